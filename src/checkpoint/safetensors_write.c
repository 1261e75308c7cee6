/* checkpoint/safetensors_write.c - the writer: header first, then data as it comes, atomically. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/size.h"
#include "checkpoint/safetensors.h"
#include "os/os.h"

struct ew_st_writer {
    struct ew_file_writer *file;
    json_t *header;
    char *path;
    uint64_t declared, written;
};

static ew_status no_memory(const struct ew_st_writer *w, ew_error *err)
{
    return ew_fail(err, EW_STATUS_NO_MEMORY, "%s: no memory for its header", w->path);
}

ew_status ew_st_writer_create(const char *path, struct ew_st_writer **out, ew_error *err)
{
    struct ew_st_writer *w = ew_mem_calloc(EW_MEM_CHECKPOINT, 1, sizeof(*w));
    ew_status s;

    if (!w)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "%s: no memory for a writer", path);
    w->path = ew_mem_strdup(EW_MEM_CHECKPOINT, path);
    w->header = json_object();
    if (!w->path || !w->header) {
        ew_st_writer_abort(w);
        return ew_fail(err, EW_STATUS_NO_MEMORY, "%s: no memory for a writer", path);
    }
    s = ew_file_writer_open(&w->file, path, err);
    if (s) {
        ew_st_writer_abort(w);
        return s;
    }
    *out = w;
    return EW_STATUS_OK;
}

ew_status ew_st_writer_declare(struct ew_st_writer *w, const char *name, const struct ew_type *type,
                               ew_error *err)
{
    const char *dtype = ew_st_dtype_text(type->dtype);
    json_t *shape, *entry;
    size_t bytes;

    if (!dtype || !ew_type_bytes(type, &bytes))
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "%s: tensor '%s': %s cannot be stored", w->path,
                       name, ew_dtype_text(type->dtype));
    if (json_object_get(w->header, name))
        return ew_fail(err, EW_STATUS_INVALID_ARG, "%s: tensor '%s' is declared twice", w->path,
                       name);
    shape = json_array();
    for (int i = 0; i < type->n_dims; i++)
        if (json_array_append_new(shape, json_integer(type->dim[i])))
            return no_memory(w, err);
    entry = json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtype, "shape", shape, "data_offsets",
                      (json_int_t)w->declared, (json_int_t)(w->declared + bytes));
    if (!entry || json_object_set_new(w->header, name, entry))
        return no_memory(w, err);
    w->declared += bytes;
    return EW_STATUS_OK;
}

ew_status ew_st_writer_begin(struct ew_st_writer *w, ew_error *err)
{
    char *text = NULL;
    uint8_t prefix[8];
    size_t len, padded;
    ew_status s;

    if (json_object_set_new(w->header, "__metadata__", json_pack("{s:s}", "format", "pt")))
        return no_memory(w, err);
    text = json_dumps(w->header, JSON_COMPACT);
    if (!text)
        return no_memory(w, err);
    len = strlen(text);
    padded = ew_align_up(len, 64) + 56; /* data begins at a multiple of 64 */
    for (int i = 0; i < 8; i++)
        prefix[i] = (uint8_t)(padded >> (8 * i));
    s = ew_file_writer_write(w->file, prefix, sizeof(prefix), err);
    if (!s)
        s = ew_file_writer_write(w->file, text, len, err);
    for (size_t i = len; !s && i < padded;) {
        static const char blanks[] = "                                ";
        const size_t n = padded - i < 32 ? padded - i : 32;

        s = ew_file_writer_write(w->file, blanks, n, err);
        i += n;
    }
    free(text); /* jansson's own */
    return s;
}

ew_status ew_st_writer_write(struct ew_st_writer *w, const void *bytes, size_t len, ew_error *err)
{
    if (len > w->declared - w->written)
        return ew_fail(err, EW_STATUS_MISMATCH,
                       "%s: %zu bytes of data more than the declared %" PRIu64, w->path,
                       (size_t)(w->written + len - w->declared), w->declared);
    w->written += len;
    return ew_file_writer_write(w->file, bytes, len, err);
}

ew_status ew_st_writer_commit(struct ew_st_writer *w, ew_error *err)
{
    struct ew_file_writer *file = w->file;
    ew_status s;

    if (w->written != w->declared) {
        s = ew_fail(err, EW_STATUS_MISMATCH, "%s: %" PRIu64 " bytes of data, declared %" PRIu64,
                    w->path, w->written, w->declared);
        ew_st_writer_abort(w);
        return s;
    }
    w->file = NULL;
    s = ew_file_writer_commit(file, err);
    ew_st_writer_abort(w);
    return s;
}

void ew_st_writer_abort(struct ew_st_writer *w)
{
    if (!w)
        return;
    if (w->file)
        ew_file_writer_abort(w->file);
    json_decref(w->header);
    ew_mem_free(w->path);
    ew_mem_free(w);
}

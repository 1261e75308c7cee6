/* onnx/tensor.c - TensorProto to a type and an address: raw bytes, typed fields, external files.
 *
 * Sizes are checked against the type before anything is read. External data is opened strictly
 * beneath the model's directory (os/: no absolute path, no "..", no symlink; a hard link is a
 * regular file and is read). Does not know graphs. */
#include <string.h>

#include "onnx/onnx_int.h"
#include "tensor/tensor.h"

/* Index = ONNX's number. */
static const struct {
    const char *text;
    ew_dtype dtype;
} k_types[] = {
    { "UNDEFINED", EW_DTYPE_NONE },
    { "FLOAT", EW_DTYPE_F32 },
    { "UINT8", EW_DTYPE_U8 },
    { "INT8", EW_DTYPE_I8 },
    { "UINT16", EW_DTYPE_U16 },
    { "INT16", EW_DTYPE_I16 },
    { "INT32", EW_DTYPE_I32 },
    { "INT64", EW_DTYPE_I64 },
    { "STRING", EW_DTYPE_NONE },
    { "BOOL", EW_DTYPE_BOOL },
    { "FLOAT16", EW_DTYPE_F16 },
    { "DOUBLE", EW_DTYPE_F64 },
    { "UINT32", EW_DTYPE_U32 },
    { "UINT64", EW_DTYPE_U64 },
    { "COMPLEX64", EW_DTYPE_NONE },
    { "COMPLEX128", EW_DTYPE_NONE },
    { "BFLOAT16", EW_DTYPE_BF16 },
    { "FLOAT8E4M3FN", EW_DTYPE_F8E4M3 },
    { "FLOAT8E4M3FNUZ", EW_DTYPE_F8E4M3FNUZ },
    { "FLOAT8E5M2", EW_DTYPE_F8E5M2 },
    { "FLOAT8E5M2FNUZ", EW_DTYPE_F8E5M2FNUZ },
    { "UINT4", EW_DTYPE_U4 },
    { "INT4", EW_DTYPE_I4 },
    { "FLOAT4E2M1", EW_DTYPE_F4E2M1 },
    { "FLOAT8E8M0", EW_DTYPE_F8E8M0 },
    { "UINT2", EW_DTYPE_NONE },
    { "INT2", EW_DTYPE_NONE },
};

ew_dtype ew_onnx_dtype(int64_t data_type)
{
    return data_type >= 0 && data_type < (int64_t)EW_COUNT(k_types) ? k_types[data_type].dtype
                                                                    : EW_DTYPE_NONE;
}

int32_t ew_onnx_data_type(ew_dtype dtype)
{
    for (size_t i = 1; i < EW_COUNT(k_types); i++)
        if (k_types[i].dtype == dtype && dtype != EW_DTYPE_NONE)
            return (int32_t)i;
    return 0;
}

const char *ew_onnx_data_type_text(int64_t data_type)
{
    return data_type >= 0 && data_type < (int64_t)EW_COUNT(k_types) ? k_types[data_type].text : "?";
}

/* ---- external files ---- */

struct ext_file {
    struct ext_file *next;
    char *name;
    struct ew_file_map map;
};

struct ew_onnx_files {
    char *dir;
    struct ext_file *head;
};

ew_status ew_onnx_files_create(const char *dir, struct ew_onnx_files **out, ew_error *err)
{
    struct ew_onnx_files *files = ew_mem_calloc(EW_MEM_ONNX, 1, sizeof(*files));

    if (files)
        files->dir = ew_mem_strdup(EW_MEM_ONNX, dir);
    if (!files || !files->dir) {
        ew_mem_free(files);
        return ew_fail(err, EW_STATUS_NO_MEMORY, "no memory to open '%s'", dir);
    }
    *out = files;
    return EW_STATUS_OK;
}

void ew_onnx_files_destroy(void *obj)
{
    struct ew_onnx_files *files = obj;

    if (!files)
        return;
    for (struct ext_file *f = files->head, *next; f; f = next) {
        next = f->next;
        ew_file_map_close(&f->map);
        ew_mem_free(f->name);
        ew_mem_free(f);
    }
    ew_mem_free(files->dir);
    ew_mem_free(files);
}

static ew_status open_file(struct ew_onnx_files *files, const char *name,
                           const struct ew_file_map **out, ew_error *err)
{
    for (struct ext_file *f = files->head; f; f = f->next) {
        if (strcmp(f->name, name) == 0) {
            *out = &f->map;
            return EW_STATUS_OK;
        }
    }
    struct ext_file *f = ew_mem_calloc(EW_MEM_ONNX, 1, sizeof(*f));
    if (f)
        f->name = ew_mem_strdup(EW_MEM_ONNX, name);
    if (!f || !f->name) {
        ew_mem_free(f);
        return ew_fail(err, EW_STATUS_NO_MEMORY, "no memory to open '%s'", name);
    }
    const ew_status st = ew_file_map_open_beneath(&f->map, files->dir, name, err);
    if (st) {
        ew_mem_free(f->name);
        ew_mem_free(f);
        return st;
    }
    f->next = files->head;
    files->head = f;
    *out = &f->map;
    return EW_STATUS_OK;
}

/* ---- external data entries ---- */

struct ext_entry {
    const ProtobufCBinaryData *location, *offset, *length;
};

static bool is_key(const ProtobufCBinaryData *d, const char *key)
{
    return d->len == strlen(key) && memcmp(d->data, key, d->len) == 0;
}

static ew_status entry_read(const Onnx__TensorProto *t, struct ext_entry *e, ew_error *err)
{
    *e = (struct ext_entry){ 0 };
    for (size_t i = 0; i < t->n_external_data; i++) {
        const Onnx__StringStringEntryProto *kv = t->external_data[i];
        const ProtobufCBinaryData **slot = is_key(&kv->key, "location") ? &e->location
                                           : is_key(&kv->key, "offset") ? &e->offset
                                           : is_key(&kv->key, "length") ? &e->length
                                                                        : NULL;
        if (slot && *slot)
            return ew_fail(err, EW_STATUS_MALFORMED, "external data key '%.*s' given twice",
                           (int)kv->key.len, (const char *)kv->key.data);
        if (slot)
            *slot = &kv->value;
        else if (!is_key(&kv->key, "checksum"))
            return ew_fail(err, EW_STATUS_UNSUPPORTED, "external data key '%.*s' is not supported",
                           (int)(kv->key.len < 64 ? kv->key.len : 64), (const char *)kv->key.data);
    }
    return EW_STATUS_OK;
}

static ew_status number_read(const ProtobufCBinaryData *d, const char *key, size_t *out,
                             ew_error *err)
{
    size_t v = 0;

    if (d->len == 0)
        return ew_fail(err, EW_STATUS_MALFORMED, "external data %s is empty", key);
    for (size_t i = 0; i < d->len; i++) {
        const uint8_t c = d->data[i];
        if (c < '0' || c > '9' || !ew_size_mul(v, 10, &v) || !ew_size_add(v, (size_t)(c - '0'), &v))
            return ew_fail(err, EW_STATUS_MALFORMED,
                           "external data %s '%.*s' is not a number of bytes", key,
                           (int)(d->len < 40 ? d->len : 40), (const char *)d->data);
    }
    *out = v;
    return EW_STATUS_OK;
}

static ew_status external_read(const Onnx__TensorProto *t, struct ew_onnx_files *files,
                               size_t bytes, const uint8_t **out, ew_error *err)
{
    struct ext_entry e;
    const struct ew_file_map *map = NULL;
    char name[4096];
    size_t offset = 0, length = bytes, end;

    if (!files)
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "external data is not allowed here");
    EW_TRY(entry_read(t, &e, err));
    if (!e.location || e.location->len == 0 || e.location->len >= sizeof(name) ||
        memchr(e.location->data, 0, e.location->len))
        return ew_fail(err, EW_STATUS_MALFORMED,
                       "external data location is missing, empty, too long or has a NUL in it");
    memcpy(name, e.location->data, e.location->len);
    name[e.location->len] = 0;
    if (e.offset)
        EW_TRY(number_read(e.offset, "offset", &offset, err));
    if (e.length)
        EW_TRY(number_read(e.length, "length", &length, err));
    if (length != bytes)
        return ew_fail(err, EW_STATUS_MISMATCH,
                       "external data length %zu, the type needs %zu bytes", length, bytes);
    EW_TRY(open_file(files, name, &map, err));
    if (!ew_size_add(offset, length, &end) || end > map->len)
        return ew_fail(err, EW_STATUS_MALFORMED,
                       "external data [%zu, +%zu) lies outside file '%s' of %zu bytes", offset,
                       length, name, map->len);
    *out = map->bytes ? map->bytes + offset : NULL;
    return EW_STATUS_OK;
}

/* ---- typed fields ---- */

/* Elements that a typed field stores: 4-bit types sit two to a number. */
static size_t stored_count(ew_dtype d, size_t n)
{
    return ew_dtype_bits(d) == 4 ? (n + 1) / 2 : n;
}

static ew_status check_count(const char *field, size_t have, size_t want, ew_error *err)
{
    if (have == want)
        return EW_STATUS_OK;
    return ew_fail(err, EW_STATUS_MISMATCH, "%s has %zu values, the type needs %zu", field, have,
                   want);
}

static ew_status typed_read(const Onnx__TensorProto *t, ew_dtype d, size_t n,
                            struct ew_arena *arena, const void **out, ew_error *err)
{
    const size_t want = stored_count(d, n);
    const unsigned width = ew_dtype_bits(d) == 4 ? 1 : ew_dtype_bits(d) / 8;

    switch (d) {
    case EW_DTYPE_F32:
        *out = t->float_data;
        return check_count("float_data", t->n_float_data, want, err);
    case EW_DTYPE_F64:
        *out = t->double_data;
        return check_count("double_data", t->n_double_data, want, err);
    case EW_DTYPE_I64:
        *out = t->int64_data;
        return check_count("int64_data", t->n_int64_data, want, err);
    case EW_DTYPE_U64:
        *out = t->uint64_data;
        return check_count("uint64_data", t->n_uint64_data, want, err);
    case EW_DTYPE_I32:
        *out = t->int32_data;
        return check_count("int32_data", t->n_int32_data, want, err);
    default:
        break;
    }
    /* The rest sits in wider numbers and is copied; the count bounds the copy by the file's length.
     */
    const bool is_u32 = d == EW_DTYPE_U32;
    EW_TRY(is_u32 ? check_count("uint64_data", t->n_uint64_data, want, err)
                  : check_count("int32_data", t->n_int32_data, want, err));
    uint8_t *copy = ew_arena_calloc(arena, want, width);
    if (!copy)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "no memory for %zu values", want);
    for (size_t i = 0; i < want; i++) {
        const uint64_t v = is_u32 ? t->uint64_data[i] : (uint64_t)(int64_t)t->int32_data[i];
        for (unsigned b = 0; b < width; b++)
            copy[i * width + b] = (uint8_t)(v >> (8 * b));
    }
    *out = copy;
    return EW_STATUS_OK;
}

/* ---- the tensor ---- */

static ew_status type_read(const Onnx__TensorProto *t, struct ew_type *type, ew_error *err)
{
    *type = (struct ew_type){ .dtype = ew_onnx_dtype(t->data_type) };
    if (type->dtype == EW_DTYPE_NONE)
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "data type %d (%s) is not supported",
                       (int)t->data_type, ew_onnx_data_type_text(t->data_type));
    if (t->n_dims > EW_MAX_DIMS)
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "%zu dims, at most %d are supported", t->n_dims,
                       EW_MAX_DIMS);
    type->n_dims = (int)t->n_dims;
    for (size_t i = 0; i < t->n_dims; i++) {
        if (t->dims[i] < 0)
            return ew_fail(err, EW_STATUS_MALFORMED, "dim %zu is %lld", i, (long long)t->dims[i]);
        type->dim[i] = t->dims[i];
    }
    return EW_STATUS_OK;
}

static ew_status check_bools(const uint8_t *data, size_t n, ew_error *err)
{
    for (size_t i = 0; i < n; i++)
        if (data[i] > 1)
            return ew_fail(err, EW_STATUS_MALFORMED, "bool %zu is stored as %u", i,
                           (unsigned)data[i]);
    return EW_STATUS_OK;
}

ew_status ew_onnx_tensor_read(const Onnx__TensorProto *t, struct ew_onnx_files *files,
                              struct ew_arena *arena, struct ew_type *type, const void **data,
                              ew_error *err)
{
    static const uint64_t nothing[2];
    size_t n, bytes;

    EW_TRY(type_read(t, type, err));
    if (t->segment)
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "tensor segments are not supported");
    if (!ew_type_count(type, &n) || !ew_type_bytes(type, &bytes))
        return ew_fail(err, EW_STATUS_MALFORMED, "dims multiply past the address space");
    if (t->data_location == ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL) {
        const uint8_t *at;
        EW_TRY(external_read(t, files, bytes, &at, err));
        *data = at;
    } else if (t->raw_data.len > 0 || bytes == 0) {
        if (t->raw_data.len != bytes)
            return ew_fail(err, EW_STATUS_MISMATCH, "raw_data has %zu bytes, the type needs %zu",
                           t->raw_data.len, bytes);
        *data = t->raw_data.data;
    } else {
        EW_TRY(typed_read(t, type->dtype, n, arena, data, err));
    }
    if (bytes == 0)
        *data = nothing;
    if (type->dtype == EW_DTYPE_BOOL)
        EW_TRY(check_bools(*data, n, err));
    const size_t width = ew_dtype_bits(type->dtype) < 8 ? 1 : ew_dtype_bits(type->dtype) / 8;
    if ((uintptr_t)*data % width != 0) {
        void *copy = ew_arena_alloc(arena, bytes);
        if (!copy)
            return ew_fail(err, EW_STATUS_NO_MEMORY, "no memory for %zu bytes", bytes);
        memcpy(copy, *data, bytes);
        *data = copy;
    }
    return EW_STATUS_OK;
}

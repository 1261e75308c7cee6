/* onnx/embedding.c - embedding.safetensors of an LLM directory, both ways: `embedding` [V,H] in
 * f32, f16 or bf16; or in e4m3 with `embedding_scale` f32 [V, ceil(H/128)], a quantised constant.
 *
 * Reads and writes exactly these tensors: checkpoints are another layer's. */
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "kernels/linear_pack.h"
#include "onnx/onnx_int.h"

#define MAX_HEADER_BYTES ((size_t)1 << 20)
#define FP8_BLOCK        128

static const char *const k_file = "embedding.safetensors";

/* ---- reading ---- */

static void close_map(void *obj)
{
    ew_file_map_close(obj);
    ew_mem_free(obj);
}

/* Header length (8 bytes), JSON, data. */
static ew_status read_header(const struct ew_file_map *map, json_t **out, size_t *data_at,
                             ew_error *err)
{
    uint64_t len = 0;

    if (map->len < 8)
        return ew_fail(err, EW_STATUS_MALFORMED, "%s has %zu bytes", k_file, map->len);
    for (unsigned i = 0; i < 8; i++)
        len |= (uint64_t)map->bytes[i] << (8 * i);
    if (len > map->len - 8 || len > MAX_HEADER_BYTES)
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: header of %llu bytes in a file of %zu",
                       k_file, (unsigned long long)len, map->len);
    *data_at = 8 + (size_t)len;
    return ew_json_parse((const char *)map->bytes + 8, (size_t)len, k_file, out, err);
}

static ew_dtype dtype_of(const char *text)
{
    return strcmp(text, "F16") == 0       ? EW_DTYPE_F16
           : strcmp(text, "BF16") == 0    ? EW_DTYPE_BF16
           : strcmp(text, "F32") == 0     ? EW_DTYPE_F32
           : strcmp(text, "F8_E4M3") == 0 ? EW_DTYPE_F8E4M3
                                          : EW_DTYPE_NONE;
}

static const char *dtype_text(ew_dtype d)
{
    return d == EW_DTYPE_F16    ? "F16"
           : d == EW_DTYPE_BF16 ? "BF16"
           : d == EW_DTYPE_F32  ? "F32"
                                : NULL;
}

/* One tensor: its type, and where it lies in the data. */
static ew_status read_entry(const json_t *header, const char *name, size_t room,
                            struct ew_type *type, size_t *at, ew_error *err)
{
    const json_t *entry = json_object_get(header, name);
    const json_t *shape = json_object_get(entry, "shape");
    const json_t *span = json_object_get(entry, "data_offsets");
    const char *dtype;
    size_t bytes;

    if (!json_is_object(entry) || json_array_size(shape) != 2 || json_array_size(span) != 2)
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: no tensor '%s' of two dims", k_file, name);
    EW_TRY(ew_json_get_str_or(entry, "dtype", k_file, "", &dtype, err));
    *type = (struct ew_type){ .dtype = dtype_of(dtype), .n_dims = 2 };
    if (type->dtype == EW_DTYPE_NONE)
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "%s: dtype %s is not supported", k_file, dtype);
    for (size_t i = 0; i < 2; i++) {
        const json_t *d = json_array_get(shape, i);
        if (!json_is_integer(d) || json_integer_value(d) < 1)
            return ew_fail(err, EW_STATUS_MALFORMED, "%s: bad shape of '%s'", k_file, name);
        type->dim[i] = json_integer_value(d);
    }
    const json_t *b = json_array_get(span, 0), *e = json_array_get(span, 1);
    const int64_t begin = json_is_integer(b) ? json_integer_value(b) : -1;
    const int64_t end = json_is_integer(e) ? json_integer_value(e) : -1;
    if (!ew_type_bytes(type, &bytes) || begin < 0 || end < begin || (uint64_t)end > room ||
        (uint64_t)(end - begin) != bytes)
        return ew_fail(err, EW_STATUS_MALFORMED,
                       "%s: data_offsets [%lld, %lld) of '%s' do not fit %zu bytes of data", k_file,
                       (long long)begin, (long long)end, name, room);
    *at = (size_t)begin;
    return EW_STATUS_OK;
}

/* The bytes, or an aligned copy of them in the graph. NULL: out of memory. */
static const void *aligned(struct ew_graph *g, const struct ew_type *type, const uint8_t *data)
{
    size_t bytes;

    if ((uintptr_t)data % (ew_dtype_bits(type->dtype) / 8) == 0)
        return data;
    void *copy = ew_type_bytes(type, &bytes) ? ew_arena_alloc(&g->arena, bytes) : NULL;
    if (copy)
        memcpy(copy, data, bytes);
    return copy;
}

/* A tied head is stored twice, in the model and here: one constant is enough. */
static struct ew_value *find_same(const struct ew_graph *g, const struct ew_type *type,
                                  const void *data)
{
    size_t bytes;

    for (uint32_t i = 0; i < g->n_values; i++) {
        struct ew_value *v = g->values[i];
        if (v->is_const && v->n_uses && v->con.data && ew_type_equal(&v->type, type) &&
            ew_type_bytes(type, &bytes) && memcmp(v->con.data, data, bytes) == 0)
            return v;
    }
    return NULL;
}

static ew_status take_plain(struct ew_graph *g, const struct ew_type *type, const uint8_t *data,
                            ew_error *err)
{
    if (type->dtype == EW_DTYPE_F8E4M3)
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: no tensor 'embedding_scale' of two dims",
                       k_file);
    g->embedding = find_same(g, type, data);
    data = g->embedding ? data : aligned(g, type, data);
    if (!g->embedding && data)
        g->embedding = ew_graph_add_const(g, "embedding", type, data, false);
    return g->embedding ? EW_STATUS_OK : ew_fail(err, EW_STATUS_NO_MEMORY, "no memory");
}

static ew_status take_fp8(struct ew_graph *g, const struct ew_type *type, const uint8_t *codes,
                          const struct ew_type *scale_type, const uint8_t *scales, ew_error *err)
{
    const int64_t rows = type->dim[0], cols = type->dim[1];
    const int64_t blocks = cols / FP8_BLOCK + (cols % FP8_BLOCK != 0);
    struct ew_quant_strided *q = ew_arena_new(&g->arena, struct ew_quant_strided, 1);

    if (type->dtype != EW_DTYPE_F8E4M3 || scale_type->dtype != EW_DTYPE_F32 ||
        scale_type->dim[0] != rows || scale_type->dim[1] != blocks)
        return ew_fail(err, EW_STATUS_MISMATCH,
                       "%s: embedding %s [%lld, %lld] with embedding_scale %s [%lld, %lld], needed "
                       "are F8_E4M3 and F32 [%lld, %lld]",
                       k_file, ew_dtype_text(type->dtype), (long long)rows, (long long)cols,
                       ew_dtype_text(scale_type->dtype), (long long)scale_type->dim[0],
                       (long long)scale_type->dim[1], (long long)rows, (long long)blocks);
    if (!q)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "no memory");
    q->base.format = (struct ew_quant_format){ .code = EW_DTYPE_F8E4M3,
                                               .scale = EW_DTYPE_F32,
                                               .group = FP8_BLOCK };
    q->base.name = "embedding";
    q->base.n = (size_t)rows;
    q->base.k = (size_t)cols;
    q->codes = codes;
    q->code_row = (ptrdiff_t)cols;
    q->code_col = 1;
    q->scales = aligned(g, scale_type, scales);
    q->scale_dtype = EW_DTYPE_F32;
    q->scale_row = (ptrdiff_t)blocks;
    q->scale_col = 1;
    ew_quant_strided_init(q);
    if (q->scales)
        g->embedding = ew_graph_add_const_quant(g, "embedding", &q->base, 0, (size_t)rows);
    return g->embedding ? EW_STATUS_OK : ew_fail(err, EW_STATUS_NO_MEMORY, "no memory");
}

static ew_status take(struct ew_graph *g, const struct ew_file_map *map, ew_error *err)
{
    struct ew_type type = { 0 }, scale_type = { 0 };
    size_t data_at = 0, at = 0, scale_at = 0;
    json_t *header = NULL;

    EW_TRY(read_header(map, &header, &data_at, err));
    const uint8_t *data = map->bytes + data_at;
    const bool has_scale = json_object_get(header, "embedding_scale") != NULL;
    ew_status st = read_entry(header, "embedding", map->len - data_at, &type, &at, err);
    if (!st && has_scale)
        st = read_entry(header, "embedding_scale", map->len - data_at, &scale_type, &scale_at, err);
    json_decref(header);
    EW_TRY(st);
    return has_scale ? take_fp8(g, &type, data + at, &scale_type, data + scale_at, err)
                     : take_plain(g, &type, data + at, err);
}

ew_status ew_onnx_llm_embedding(struct ew_onnx_in *in, const char *dir)
{
    char path[4096 + 32];

    if (!ew_path_join(path, sizeof(path), dir, k_file) || !ew_path_is_file(path))
        return EW_STATUS_OK; /* drafts borrow their base's */
    struct ew_file_map *map = ew_mem_calloc(EW_MEM_ONNX, 1, sizeof(*map));
    if (!map)
        return ew_fail(in->err, EW_STATUS_NO_MEMORY, "no memory");
    const ew_status st = ew_file_map_open(map, path, in->err);
    if (st) {
        ew_mem_free(map);
        return st;
    }
    if (ew_graph_own(in->g, map, close_map))
        return ew_fail(in->err, EW_STATUS_NO_MEMORY, "no memory");
    return take(in->g, map, in->err);
}

/* ---- writing ---- */

/* Header of one tensor, or of two that follow each other. */
static ew_status write_header(struct ew_file_writer *w, const char *text, int len, ew_error *err)
{
    char header[512];
    uint8_t prefix[8];

    memcpy(header, text, (size_t)len);
    while (len % 8 != 0)
        header[len++] = ' ';
    for (unsigned i = 0; i < 8; i++)
        prefix[i] = (uint8_t)((uint64_t)len >> (8 * i));
    EW_TRY(ew_file_writer_write(w, prefix, 8, err));
    return ew_file_writer_write(w, header, (size_t)len, err);
}

static ew_status write_plain(struct ew_file_writer *w, const struct ew_value *v, size_t bytes,
                             ew_error *err)
{
    char text[400];
    const int len = snprintf(
        text, sizeof(text),
        "{\"embedding\":{\"dtype\":\"%s\",\"shape\":[%lld,%lld],\"data_offsets\":[0,%zu]}}",
        dtype_text(v->type.dtype), (long long)v->type.dim[0], (long long)v->type.dim[1], bytes);

    EW_TRY(write_header(w, text, len, err));
    return ew_file_writer_write(w, v->con.data, bytes, err);
}

/* Codes of all rows, or scales of all rows. One scale a row is one for each of its blocks. */
static ew_status write_rows(struct ew_file_writer *w, const struct ew_value *v, bool scales,
                            ew_error *err)
{
    const struct ew_quant_format *f = ew_const_quant(v);
    const struct ew_pack_args a = { .format = f,
                                    .parts = v->con.parts,
                                    .n_parts = v->con.n_parts,
                                    .n = (size_t)v->type.dim[0],
                                    .k = (size_t)v->type.dim[1] };
    const size_t blocks = (a.k + FP8_BLOCK - 1) / FP8_BLOCK;
    void *scratch = ew_mem_alloc(EW_MEM_ONNX, ew_quant_rows_bytes(f, 1, a.k));
    float *row = ew_mem_calloc(EW_MEM_ONNX, blocks, sizeof(*row));
    ew_status st =
        scratch && row ? EW_STATUS_OK : ew_fail(err, EW_STATUS_NO_MEMORY, "no memory for a row");

    for (size_t n = 0; n < a.n && !st; n++) {
        const struct ew_quant_rows r = ew_quant_rows_carve(f, 1, a.k, scratch);

        ew_weight_parts_read(&a, n, 1, &r);
        for (size_t b = 0; b < blocks; b++)
            row[b] = (float)((double)r.scales[f->group ? b : 0] * (double)r.row_scale[0]);
        st = scales ? ew_file_writer_write(w, row, blocks * sizeof(*row), err)
                    : ew_file_writer_write(w, r.codes, a.k, err);
    }
    ew_mem_free(scratch);
    ew_mem_free(row);
    return st;
}

static ew_status write_fp8(struct ew_file_writer *w, const struct ew_value *v, ew_error *err)
{
    const size_t rows = (size_t)v->type.dim[0], cols = (size_t)v->type.dim[1];
    const size_t blocks = (cols + FP8_BLOCK - 1) / FP8_BLOCK;
    char text[400];
    const int len = snprintf(
        text, sizeof(text),
        "{\"embedding\":{\"dtype\":\"F8_E4M3\",\"shape\":[%zu,%zu],\"data_offsets\":[%zu,%zu]},"
        "\"embedding_scale\":{\"dtype\":\"F32\",\"shape\":[%zu,%zu],\"data_offsets\":[0,%zu]}}",
        rows, cols, rows * blocks * 4, rows * blocks * 4 + rows * cols, rows, blocks,
        rows * blocks * 4);

    EW_TRY(write_header(w, text, len, err));
    EW_TRY(write_rows(w, v, true, err)); /* first, so that both lie aligned */
    return write_rows(w, v, false, err);
}

ew_status ew_onnx_save_embedding(const struct ew_value *v, const char *path, ew_error *err)
{
    const struct ew_quant_format *f = ew_const_quant(v);
    const bool is_fp8 = f && f->code == EW_DTYPE_F8E4M3 && (f->group == 0 || f->group == FP8_BLOCK);
    struct ew_file_writer *w;
    size_t bytes = 0;

    if (v->type.n_dims != 2 || (f && !is_fp8))
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "embedding '%s' is quantised in a way that the contract lacks: it has e4m3 "
                       "with a scale a row or a block of 128. Quantise the model without its "
                       "embedding",
                       v->name);
    if (!f && (!dtype_text(v->type.dtype) || !ew_type_bytes(&v->type, &bytes) || !v->con.data))
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "embedding '%s' is not a plain f32, f16 or bf16 matrix", v->name);
    EW_TRY(ew_file_writer_open(&w, path, err));
    const ew_status st = f ? write_fp8(w, v, err) : write_plain(w, v, bytes, err);
    if (!st)
        return ew_file_writer_commit(w, err);
    ew_file_writer_abort(w);
    return st;
}

/* onnx/save_data.c - constants on their way out: small ones inside the model, the rest into the
 * data file, row block by row block, so that no weight is ever copied whole. */
#include <string.h>

#include "onnx/save_int.h"

#define INLINE_BYTES 1024
#define DATA_ALIGN   64
#define CHUNK_BYTES  ((size_t)1 << 20)

static Onnx__TensorProto *new_tensor(struct ew_onnx_out *o, const char *name,
                                     const struct ew_type *type)
{
    Onnx__TensorProto *t = ew_arena_new(&o->arena, Onnx__TensorProto, 1);
    int64_t *dims = ew_arena_new(&o->arena, int64_t, (size_t)type->n_dims + 1);
    char *own = ew_arena_strdup(&o->arena, name);

    if (!t || !dims || !own)
        return NULL;
    onnx__tensor_proto__init(t);
    for (int i = 0; i < type->n_dims; i++)
        dims[i] = type->dim[i];
    t->dims = dims;
    t->n_dims = (size_t)type->n_dims;
    t->name = own;
    t->data_type = ew_onnx_data_type(type->dtype);
    return t;
}

Onnx__TensorProto *ew_onnx_make_tensor(struct ew_onnx_out *o, const char *name,
                                       const struct ew_type *type, const void *bytes)
{
    Onnx__TensorProto *t = new_tensor(o, name, type);
    size_t len;

    if (!t || !ew_type_bytes(type, &len))
        return NULL;
    t->raw_data.data = ew_arena_alloc(&o->arena, len + 1);
    t->raw_data.len = len;
    if (!t->raw_data.data)
        return NULL;
    if (len)
        memcpy(t->raw_data.data, bytes, len);
    return t;
}

static ew_status put_inline(struct ew_onnx_out *o, const char *name, const struct ew_type *type,
                            const void *bytes)
{
    Onnx__TensorProto *t = name ? ew_onnx_make_tensor(o, name, type, bytes) : NULL;

    return t && ew_onnx_list_push(&o->tensors, t) ? EW_STATUS_OK : ew_onnx_out_no_memory(o);
}

ew_status ew_onnx_put_i64s(struct ew_onnx_out *o, const char *name, const int64_t *v, size_t n)
{
    const int64_t dim = (int64_t)n;
    const struct ew_type type = ew_type_make(EW_DTYPE_I64, 1, &dim);

    return put_inline(o, name, &type, v);
}

ew_status ew_onnx_put_f32(struct ew_onnx_out *o, const char *name, float v)
{
    const struct ew_type type = ew_type_make(EW_DTYPE_F32, 0, NULL);

    return put_inline(o, name, &type, &v);
}

/* ---- the data file ---- */

ew_status ew_onnx_write_data(struct ew_onnx_out *o, const void *bytes, size_t len)
{
    const uint8_t *at = bytes;

    while (len > 0) {
        const size_t n = len < CHUNK_BYTES ? len : CHUNK_BYTES;
        EW_TRY(ew_file_writer_write(o->data, at, n, o->err));
        at += n;
        len -= n;
        o->data_pos += n;
        o->done_bytes += n;
        if (o->progress && o->progress->step &&
            !o->progress->step(o->progress->ctx, "write weights", o->done_bytes, o->total_bytes))
            return ew_fail(o->err, EW_STATUS_CANCELLED, "cancelled while writing weights");
    }
    return EW_STATUS_OK;
}

/* Rows of a part whose layout is not the plain one, gathered into a buffer. */
static ew_status write_strided(struct ew_onnx_out *o, const struct ew_weight_part *p, size_t k,
                               size_t elem)
{
    const size_t row = k * elem, rows = row && row < CHUNK_BYTES ? CHUNK_BYTES / row : 1;
    uint8_t *buf = ew_mem_alloc(EW_MEM_ONNX, rows * row + 1);
    ew_status st = EW_STATUS_OK;

    if (!buf)
        return ew_onnx_out_no_memory(o);
    for (size_t r = 0; r < p->n_rows && !st; r += rows) {
        const size_t n = p->n_rows - r < rows ? p->n_rows - r : rows;
        for (size_t i = 0; i < n; i++) {
            const uint8_t *src =
                (const uint8_t *)p->data + (ptrdiff_t)(r + i) * p->row_stride * (ptrdiff_t)elem;
            for (size_t c = 0; c < k; c++)
                memcpy(buf + i * row + c * elem,
                       src + (ptrdiff_t)c * p->col_stride * (ptrdiff_t)elem, elem);
        }
        st = ew_onnx_write_data(o, buf, n * row);
    }
    ew_mem_free(buf);
    return st;
}

static ew_status write_const(struct ew_onnx_out *o, const struct ew_value *v, size_t bytes)
{
    const size_t elem = ew_dtype_bits(v->type.dtype) / 8;

    if (v->con.n_parts == 0)
        return ew_onnx_write_data(o, v->con.data, bytes);
    const size_t k = (size_t)v->type.dim[v->type.n_dims - 1];
    for (size_t i = 0; i < v->con.n_parts; i++) {
        const struct ew_weight_part *p = &v->con.parts[i];
        if (p->col_stride == 1 && p->row_stride == (ptrdiff_t)k)
            EW_TRY(ew_onnx_write_data(o, p->data, p->n_rows * k * elem));
        else
            EW_TRY(write_strided(o, p, k, elem));
    }
    return EW_STATUS_OK;
}

static bool put_entry(struct ew_onnx_out *o, Onnx__TensorProto *t, const char *key,
                      const char *text)
{
    Onnx__StringStringEntryProto *e = ew_arena_new(&o->arena, Onnx__StringStringEntryProto, 1);
    char *own_key = ew_arena_strdup(&o->arena, key);

    if (!e || !own_key || !text)
        return false;
    onnx__string_string_entry_proto__init(e);
    e->key.data = (uint8_t *)own_key;
    e->key.len = strlen(key);
    e->value.data = (uint8_t *)(uintptr_t)text;
    e->value.len = strlen(text);
    t->external_data[t->n_external_data++] = e;
    return true;
}

ew_status ew_onnx_begin_data(struct ew_onnx_out *o, const char *name, const struct ew_type *type)
{
    static const uint8_t zeros[DATA_ALIGN];
    Onnx__TensorProto *t = new_tensor(o, name, type);
    size_t bytes;

    if (!ew_type_bytes(type, &bytes))
        return ew_onnx_out_no_memory(o);

    const size_t pad = (size_t)(-o->data_pos & (DATA_ALIGN - 1));
    EW_TRY(ew_file_writer_write(o->data, zeros, pad, o->err));
    o->data_pos += pad;
    if (t)
        t->external_data = ew_arena_new(&o->arena, Onnx__StringStringEntryProto *, 3);
    if (!t || !t->external_data || !put_entry(o, t, "location", "model.onnx.data") ||
        !put_entry(o, t, "offset",
                   ew_arena_printf(&o->arena, "%llu", (unsigned long long)o->data_pos)) ||
        !put_entry(o, t, "length", ew_arena_printf(&o->arena, "%zu", bytes)) ||
        !ew_onnx_list_push(&o->tensors, t))
        return ew_onnx_out_no_memory(o);
    t->data_location = ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL;
    return EW_STATUS_OK;
}

ew_status ew_onnx_put_const(struct ew_onnx_out *o, const struct ew_value *v)
{
    size_t bytes;

    if (o->const_done[v->id] & EW_ONNX_DONE_VALUE)
        return EW_STATUS_OK;
    o->const_done[v->id] |= EW_ONNX_DONE_VALUE;
    if (!ew_onnx_data_type(v->type.dtype) || !ew_type_bytes(&v->type, &bytes))
        return ew_fail(o->err, EW_STATUS_UNSUPPORTED, "constant '%s' of type %s has no ONNX form",
                       v->name, ew_dtype_text(v->type.dtype));
    if (bytes > INLINE_BYTES) {
        EW_TRY(ew_onnx_begin_data(o, v->name, &v->type));
        return write_const(o, v, bytes);
    }
    uint8_t small[INLINE_BYTES];
    if (bytes)
        ew_const_copy(v, small);
    o->done_bytes += bytes;
    return put_inline(o, v->name, &v->type, small);
}

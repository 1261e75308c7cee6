/* op/infer_nn_quant.c - types of QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear and
 * BlockQuantize. */
#include "op/infer_dtypes.h"
#include "op/infer_nn.h"

#define SET_INT_CODES                                                                              \
    (EW_SET(I8) | EW_SET(U8) | EW_SET(I16) | EW_SET(U16) | EW_SET(I4) | EW_SET(U4))
#define SET_CODES  (SET_INT_CODES | EW_SET_F8 | EW_SET(F4E2M1))
#define SET_SHORT  (EW_SET(F32) | EW_SET(F16) | EW_SET(BF16))
#define SET_SCALES (SET_SHORT | EW_SET(F8E8M0))

static ew_status check_blocks(struct ew_infer *f, int axis, int64_t block)
{
    const struct ew_type *const x = f->in[0].type, *const s = f->in[1].type;

    if (s->n_dims != x->n_dims)
        return ew_fail(f->err, EW_STATUS_MISMATCH, "scales in blocks have rank %d, the data has %d",
                       s->n_dims, x->n_dims);
    for (int d = 0; d < x->n_dims; d++) {
        int64_t want = x->dim[d];

        if (want < 0 || s->dim[d] < 0)
            continue;
        if (d == axis)
            want = want / block + (want % block != 0);
        if (s->dim[d] != want)
            return ew_fail(f->err, EW_STATUS_MISMATCH, "dim %d of the scales is %lld, not %lld", d,
                           (long long)s->dim[d], (long long)want);
    }
    return EW_STATUS_OK;
}

/* Per tensor, per axis or in blocks; the zero point is as the scale. */
static ew_status check_scales(struct ew_infer *f)
{
    const struct ew_attr_quant *const attr = &f->attrs->quant;
    const struct ew_type *const x = f->in[0].type, *const s = f->in[1].type;
    const bool one = s->n_dims == 0 || (s->n_dims == 1 && s->dim[0] == 1);
    int axis = 0;

    if (attr->block_size < 0)
        return ew_fail(f->err, EW_STATUS_MALFORMED, "block_size is %lld",
                       (long long)attr->block_size);
    if (attr->block_size > 0 || !one)
        EW_TRY(ew_infer_axis(f, attr->axis, x->n_dims, &axis));
    if (attr->block_size > 0) {
        EW_TRY(check_blocks(f, axis, attr->block_size));
    } else if (!one) {
        if (s->n_dims != 1 || (s->dim[0] >= 0 && x->dim[axis] >= 0 && s->dim[0] != x->dim[axis]))
            return ew_fail(f->err, EW_STATUS_MISMATCH,
                           "scales have rank %d and dim %lld, axis %d has %lld elements", s->n_dims,
                           (long long)s->dim[0], axis, (long long)x->dim[axis]);
    }
    if (ew_infer_has(f, 2)) {
        const struct ew_type *const z = f->in[2].type;
        const bool z_one = z->n_dims == 0 || (z->n_dims == 1 && z->dim[0] == 1);

        if (one && z_one && attr->block_size == 0)
            return EW_STATUS_OK;
        if (z->n_dims != s->n_dims)
            return ew_fail(f->err, EW_STATUS_MISMATCH, "zero points have rank %d, scales have %d",
                           z->n_dims, s->n_dims);
        for (int d = 0; d < z->n_dims; d++)
            if (z->dim[d] >= 0 && s->dim[d] >= 0 && z->dim[d] != s->dim[d])
                return ew_fail(f->err, EW_STATUS_MISMATCH,
                               "dim %d of the zero points is %lld, of the scales %lld", d,
                               (long long)z->dim[d], (long long)s->dim[d]);
    }
    return EW_STATUS_OK;
}

ew_status ew_infer_quantize(struct ew_infer *f)
{
    const struct ew_attr_quant *const attr = &f->attrs->quant;
    ew_dtype to = attr->output_dtype ? (ew_dtype)attr->output_dtype : EW_DTYPE_U8;

    EW_TRY(ew_infer_dtype_in(f, 0, SET_SHORT | EW_SET(I32)));
    EW_TRY(ew_infer_dtype_in(f, 1, SET_SCALES | EW_SET(I32)));
    if (ew_infer_has(f, 2)) {
        EW_TRY(ew_infer_dtype_in(f, 2, SET_CODES));
        to = f->in[2].type->dtype;
        if (attr->output_dtype && (ew_dtype)attr->output_dtype != to)
            return ew_fail(f->err, EW_STATUS_MISMATCH, "output_dtype is %s, the zero point is %s",
                           ew_dtype_text((ew_dtype)attr->output_dtype), ew_dtype_text(to));
    }
    if (to < 0 || to >= EW_DTYPE_COUNT || !(SET_CODES >> to & 1u))
        return ew_fail(f->err, EW_STATUS_UNSUPPORTED, "output_dtype is %d", (int)to);
    if (attr->precision != 0 && (attr->precision < EW_DTYPE_F32 || attr->precision > EW_DTYPE_F64))
        return ew_fail(f->err, EW_STATUS_UNSUPPORTED, "precision is dtype %d, a float is needed",
                       attr->precision);
    EW_TRY(check_scales(f));
    f->out[0] = *f->in[0].type;
    f->out[0].dtype = to;
    return EW_STATUS_OK;
}

ew_status ew_infer_dequantize(struct ew_infer *f)
{
    const struct ew_attr_quant *const attr = &f->attrs->quant;
    const ew_dtype scale = f->in[1].type->dtype;
    ew_dtype to = scale == EW_DTYPE_F8E8M0 ? EW_DTYPE_F32 : scale;

    EW_TRY(ew_infer_dtype_in(f, 0, SET_CODES | EW_SET(I32)));
    EW_TRY(ew_infer_dtype_in(f, 1, SET_SCALES));
    if (ew_infer_has(f, 2))
        EW_TRY(ew_infer_same_dtype(f, 0, 2));
    if (attr->output_dtype)
        to = (ew_dtype)attr->output_dtype;
    if (to < 0 || to >= EW_DTYPE_COUNT || !(SET_SHORT >> to & 1u))
        return ew_fail(f->err, EW_STATUS_UNSUPPORTED, "output_dtype is %d", (int)to);
    EW_TRY(check_scales(f));
    f->out[0] = *f->in[0].type;
    f->out[0].dtype = to;
    return EW_STATUS_OK;
}

ew_status ew_infer_dynamic_quantize(struct ew_infer *f)
{
    EW_TRY(ew_infer_dtype_in(f, 0, EW_SET(F32)));
    f->out[0] = *f->in[0].type;
    f->out[0].dtype = EW_DTYPE_U8;
    f->out[1] = ew_type_make(EW_DTYPE_F32, 0, NULL);
    f->out[2] = ew_type_make(EW_DTYPE_U8, 0, NULL);
    return EW_STATUS_OK;
}

/* dtypes of codes and scales of a dynamic kind. */
static bool block_dtypes(int32_t kind, ew_dtype *code, ew_dtype *scale)
{
    *code = EW_DTYPE_F8E4M3;
    *scale = EW_DTYPE_F32;
    switch (kind) {
    case EW_XQ_INT8_ROW:
        *code = EW_DTYPE_I8;
        return true;
    case EW_XQ_FP8_ROW:
    case EW_XQ_FP8_BLOCK:
        return true;
    case EW_XQ_NVFP4:
        *code = EW_DTYPE_F4E2M1;
        *scale = EW_DTYPE_F8E4M3;
        return true;
    case EW_XQ_MXFP4:
        *code = EW_DTYPE_F4E2M1;
        *scale = EW_DTYPE_F8E8M0;
        return true;
    case EW_XQ_MXFP8:
        *scale = EW_DTYPE_F8E8M0;
        return true;
    default:
        return false;
    }
}

ew_status ew_infer_block_quantize(struct ew_infer *f)
{
    const struct ew_attr_block_quant *const attr = &f->attrs->block_quant;
    const bool is_row = attr->x_quant == EW_XQ_INT8_ROW || attr->x_quant == EW_XQ_FP8_ROW;
    const struct ew_type *const x = f->in[0].type;
    ew_dtype code, scale;

    EW_TRY(ew_infer_dtype_in(f, 0, SET_SHORT));
    if (!block_dtypes(attr->x_quant, &code, &scale))
        return ew_fail(f->err, EW_STATUS_MALFORMED, "x_quant is %d, a dynamic kind is needed",
                       (int)attr->x_quant);
    if (x->n_dims < 1 || (!is_row && attr->block < 1))
        return ew_fail(f->err, EW_STATUS_MALFORMED, "rank is %d, blocks have %lld columns",
                       x->n_dims, (long long)attr->block);
    if (ew_infer_has(f, 1)) {
        const struct ew_type *const s = f->in[1].type;

        EW_TRY(ew_infer_dtype_in(f, 1, SET_SHORT));
        if (attr->x_quant != EW_XQ_NVFP4 || s->n_dims > 1 || (s->n_dims == 1 && s->dim[0] != 1))
            return ew_fail(f->err, EW_STATUS_MISMATCH, "input 1 is one number, of nvfp4 alone");
    }
    for (int i = 0; i < 2; i++)
        f->out[i] = *x;
    f->out[0].dtype = code;
    f->out[1].dtype = scale;
    int64_t *const last = &f->out[1].dim[x->n_dims - 1];
    *last = is_row ? 1 : ew_dim_div_ceil(f->syms, *last, attr->block);
    return EW_STATUS_OK;
}

/* gen_nn_block_quant.c - BlockQuantize: activations to codes and scales, block by block. The same
 * numbers as kernels/xquant.h, with the codes kept. */
#include <math.h>

#include "kernels/ref/gen_nn.h"

struct block {
    float amax, factor;
    ew_dtype code, scale;
    int kind;
};

static float mini_round(ew_dtype d, float v)
{
    return ew_gen_mini_decode(d, ew_gen_mini_encode(d, (double)v, true, EW_ROUND_NEAREST));
}

/* The block's scale as stored, before the factor; 0: all codes are 0. */
static float stored_scale(const struct block *b)
{
    int e;

    switch (b->kind) {
    case EW_XQ_INT8_ROW:
        return b->amax / 127.0f;
    case EW_XQ_NVFP4:
        return mini_round(EW_DTYPE_F8E4M3, b->amax / 6.0f / b->factor);
    case EW_XQ_MXFP8:
    case EW_XQ_MXFP4: /* exponent of amax less the format's largest (OCP MX 1.0, 6.3) */
        if (!(b->amax > 0) || isinf(b->amax))
            return 0.0f;
        frexpf(b->amax, &e);
        e -= 1 + (b->kind == EW_XQ_MXFP8 ? 8 : 2);
        return ldexpf(1.0f, e < -127 ? -127 : e);
    default:
        return b->amax / 448.0f;
    }
}

static float code_of(ew_dtype d, float v)
{
    if (d == EW_DTYPE_I8) {
        v = rintf(v);
        return isnan(v) ? 0.0f : v > 127.0f ? 127.0f : v < -128.0f ? -128.0f : v;
    }
    return isnan(v) && d == EW_DTYPE_F4E2M1 ? 0.0f : mini_round(d, v);
}

static float x_at(const struct ew_view *x, ptrdiff_t i)
{
    float v;

    ew_gen_load(&v, EW_GEN_F32, x->data, x->type.dtype, i, 1, 1);
    return v;
}

static void run_block(const struct ew_general_args *a, struct block *b, ptrdiff_t from,
                      ptrdiff_t to, ptrdiff_t scale_i)
{
    float scale, stored;

    b->amax = 0;
    for (ptrdiff_t i = from; i < to; i++) {
        const float v = fabsf(x_at(a->in[0], i));
        b->amax = v > b->amax ? v : b->amax;
    }
    stored = stored_scale(b);
    scale = stored * b->factor;
    const bool is_zero = !(scale > 0) || isinf(scale);
    for (ptrdiff_t i = from; i < to && a->out[0]; i++) {
        const float v = is_zero ? 0.0f : code_of(b->code, x_at(a->in[0], i) / scale);

        if (b->code == EW_DTYPE_I8)
            ((int8_t *)a->out[0]->data)[i] = (int8_t)v;
        else
            ew_gen_store(a->out[0]->data, b->code, i, 1, &v, EW_GEN_F32, 1);
    }
    stored = is_zero ? 0.0f : stored;
    if (a->n_out > 1 && a->out[1])
        ew_gen_store(a->out[1]->data, b->scale, scale_i, 1, &stored, EW_GEN_F32, 1);
}

ew_status ew_gen_block_quantize(const struct ew_general_args *a)
{
    const struct ew_attr_block_quant *const attr = &a->attrs->block_quant;
    const struct ew_type *const t = &a->in[0]->type;
    const bool is_row = attr->x_quant == EW_XQ_INT8_ROW || attr->x_quant == EW_XQ_FP8_ROW;
    const ptrdiff_t k = (ptrdiff_t)t->dim[t->n_dims - 1];
    const ptrdiff_t width = is_row || attr->block > k ? k : (ptrdiff_t)attr->block;
    const ptrdiff_t n = (ptrdiff_t)ew_gen_count(t);
    struct block b = { .factor = 1, .kind = attr->x_quant };
    ptrdiff_t scale_i = 0;

    b.code = b.kind == EW_XQ_INT8_ROW                         ? EW_DTYPE_I8
             : b.kind == EW_XQ_NVFP4 || b.kind == EW_XQ_MXFP4 ? EW_DTYPE_F4E2M1
                                                              : EW_DTYPE_F8E4M3;
    b.scale = b.kind == EW_XQ_NVFP4                            ? EW_DTYPE_F8E4M3
              : b.kind == EW_XQ_MXFP8 || b.kind == EW_XQ_MXFP4 ? EW_DTYPE_F8E8M0
                                                               : EW_DTYPE_F32;
    if (a->n_in > 1 && a->in[1])
        b.factor = x_at(a->in[1], 0);
    for (ptrdiff_t row = 0; row < n; row += k)
        for (ptrdiff_t at = 0; at < k; at += width)
            run_block(a, &b, row + at, row + (k - at < width ? k : at + width), scale_i++);
    return EW_STATUS_OK;
}

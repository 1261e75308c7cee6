/* kernels/ref/gen_nn_quant.c - QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear. One
 * element at a time: scales may be per tensor, per axis or in blocks. */
#include <math.h>

#include "base/half.h"
#include "kernels/ref/gen_nn.h"

/* Where the scale of an element is. */
struct scales {
    ptrdiff_t inner, d, block, n_blocks; /* block 0: one per index of the axis */
    bool one;
};

static struct scales scales_of(const struct ew_general_args *a)
{
    const struct ew_attr_quant *const attr = &a->attrs->quant;
    const struct ew_type *const x = &a->in[0]->type;
    const struct ew_type *const s = &a->in[1]->type;
    struct scales r = { .one = attr->block_size == 0 && ew_gen_count(s) == 1 };
    int axis;

    if (r.one)
        return r;
    axis = ew_gen_axis(attr->axis, x->n_dims);
    r.inner = (ptrdiff_t)ew_gen_product(x, axis + 1, x->n_dims);
    r.d = (ptrdiff_t)x->dim[axis];
    r.block = (ptrdiff_t)attr->block_size;
    r.n_blocks = r.block > 0 ? (ptrdiff_t)s->dim[axis] : 0;
    return r;
}

static ptrdiff_t scale_at(const struct scales *s, ptrdiff_t i)
{
    ptrdiff_t k, outer;

    if (s->one)
        return 0;
    k = i / s->inner % s->d;
    if (s->block == 0)
        return k;
    outer = i / s->inner / s->d;
    return (outer * s->n_blocks + k / s->block) * s->inner + i % s->inner;
}

static double elem(const struct ew_view *v, ptrdiff_t i)
{
    double e;

    ew_gen_load(&e, EW_GEN_F64, v->data, v->type.dtype, i, 1, 1);
    return e;
}

static void code_range(ew_dtype d, double *lo, double *hi)
{
    const int bits = (int)ew_dtype_bits(d);

    *lo = ew_dtype_is_signed(d) ? -ldexp(1, bits - 1) : 0;
    *hi = ldexp(1, ew_dtype_is_signed(d) ? bits - 1 : bits) - 1;
}

/* v as a number of dtype d. */
static double rounded(double v, ew_dtype d)
{
    if (d == EW_DTYPE_F16)
        return (double)ew_f16_to_f32(ew_f32_to_f16((float)v));
    if (d == EW_DTYPE_BF16)
        return (double)ew_bf16_to_f32(ew_f32_to_bf16((float)v));
    return d == EW_DTYPE_F64 ? v : (double)(float)v;
}

static void store_code(struct ew_view *y, ptrdiff_t i, double v, double zero, bool saturate)
{
    const ew_dtype d = y->type.dtype;

    if (ew_gen_is_mini(d)) {
        const uint8_t code = ew_gen_mini_encode(d, v, saturate, EW_ROUND_NEAREST);

        if (d == EW_DTYPE_F4E2M1)
            ew_gen_store(y->data, d, i, 1, &(float){ ew_gen_mini_decode(d, code) }, EW_GEN_F32, 1);
        else
            ((uint8_t *)y->data)[i] = code;
    } else {
        double lo, hi;
        int64_t code;

        code_range(d, &lo, &hi);
        v = rint(v) + zero;
        code = (int64_t)(v > hi ? hi : v > lo ? v : lo); /* NaN: lo */
        ew_gen_store(y->data, d, i, 1, &code, EW_GEN_I64, 1);
    }
}

/* The division is done in `precision`, or in the dtype of the scale. */
ew_status ew_gen_quantize(const struct ew_general_args *a)
{
    const struct ew_attr_quant *const attr = &a->attrs->quant;
    const struct ew_view *const x = a->in[0], *const zero = a->n_in > 2 ? a->in[2] : NULL;
    const ew_dtype scale_dtype = a->in[1]->type.dtype;
    const bool is_short = scale_dtype == EW_DTYPE_F16 || scale_dtype == EW_DTYPE_BF16;
    const ew_dtype precision = attr->precision ? (ew_dtype)attr->precision
                               : is_short      ? scale_dtype
                                               : EW_DTYPE_F32;
    const struct scales s = scales_of(a);
    const ptrdiff_t n = (ptrdiff_t)ew_gen_count(&x->type);

    for (ptrdiff_t i = 0; i < n; i++) {
        const ptrdiff_t at = scale_at(&s, i);
        const double v = rounded(elem(x, i), precision);
        const double q = rounded(v / rounded(elem(a->in[1], at), precision), precision);

        store_code(a->out[0], i, q, zero ? elem(zero, at) : 0, attr->saturate != 0);
    }
    return EW_STATUS_OK;
}

ew_status ew_gen_dequantize(const struct ew_general_args *a)
{
    const struct ew_view *const x = a->in[0], *const zero = a->n_in > 2 ? a->in[2] : NULL;
    const struct scales s = scales_of(a);
    const ptrdiff_t n = (ptrdiff_t)ew_gen_count(&x->type);

    for (ptrdiff_t i = 0; i < n; i++) {
        const ptrdiff_t at = scale_at(&s, i);
        const double v = (elem(x, i) - (zero ? elem(zero, at) : 0)) * elem(a->in[1], at);

        ew_gen_store(a->out[0]->data, a->out[0]->type.dtype, i, 1, &v, EW_GEN_F64, 1);
    }
    return EW_STATUS_OK;
}

ew_status ew_gen_dynamic_quantize(const struct ew_general_args *a)
{
    const float *const x = a->in[0]->data;
    const size_t n = ew_gen_count(&a->in[0]->type);
    float lo = 0, hi = 0, scale, zero;

    for (size_t i = 0; i < n; i++) {
        lo = x[i] < lo ? x[i] : lo;
        hi = x[i] > hi ? x[i] : hi;
    }
    scale = hi == lo ? 1.0f / 255 : (hi - lo) / 255;
    zero = rintf(-lo / scale);
    zero = zero > 255 ? 255 : zero > 0 ? zero : 0;
    for (size_t i = 0; i < n && a->out[0]; i++)
        store_code(a->out[0], (ptrdiff_t)i, (double)(x[i] / scale), (double)zero, true);
    if (a->n_out > 1 && a->out[1])
        *(float *)a->out[1]->data = scale;
    if (a->n_out > 2 && a->out[2])
        *(uint8_t *)a->out[2]->data = (uint8_t)zero;
    return EW_STATUS_OK;
}

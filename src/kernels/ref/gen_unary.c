/* kernels/ref/gen_unary.c - elementwise ops of one input, and Clip. A table names the loop of each
 * op and class; Cast is in gen_cast.c. */
#include <math.h>
#include <string.h>
#include <tgmath.h>

#include "kernels/ref/gen_common.h"

/* a and b are the op's alpha and beta. */
typedef void unary_fn(void *yv, const void *xv, size_t n, double alpha, double beta);

#define UNARY_LOOP(fn, T, out_t, expr)                                                             \
    static void fn(void *yv, const void *xv, size_t n, double alpha, double beta)                  \
    {                                                                                              \
        const T *const xs = xv;                                                                    \
        out_t *const ys = yv;                                                                      \
        const T a = (T)alpha;                                                                      \
        const T b = (T)beta;                                                                       \
                                                                                                   \
        (void)a;                                                                                   \
        (void)b;                                                                                   \
        for (size_t i = 0; i < n; i++) {                                                           \
            const T x = xs[i];                                                                     \
                                                                                                   \
            ys[i] = (out_t)(expr);                                                                 \
        }                                                                                          \
    }

/* `expr` in terms of x, a, b; the functions of math.h take the type of x (tgmath.h). */
#define UNARY_FLOAT(name, expr)                                                                    \
    UNARY_LOOP(name##_f32, float, float, expr)                                                     \
    UNARY_LOOP(name##_f64, double, double, expr)

#define UNIT_CLAMP(v) ((v) < 0 ? 0 : (v) > 1 ? 1 : (v)) /* NaN passes */

/* clang-format off */
UNARY_FLOAT(abs, fabs(x))
UNARY_FLOAT(acos, acos(x))
UNARY_FLOAT(acosh, acosh(x))
UNARY_FLOAT(asin, asin(x))
UNARY_FLOAT(asinh, asinh(x))
UNARY_FLOAT(atan, atan(x))
UNARY_FLOAT(atanh, atanh(x))
UNARY_FLOAT(ceil, ceil(x))
UNARY_FLOAT(celu, x > 0 ? x : a * expm1(x / a))
UNARY_FLOAT(cos, cos(x))
UNARY_FLOAT(cosh, cosh(x))
UNARY_FLOAT(elu, x < 0 ? a * expm1(x) : x)
UNARY_FLOAT(erf, erf(x))
UNARY_FLOAT(exp, exp(x))
UNARY_FLOAT(floor, floor(x))
UNARY_FLOAT(hard_sigmoid, UNIT_CLAMP(a * x + b))
UNARY_FLOAT(hard_swish, x * UNIT_CLAMP(x / 6 + b))
UNARY_FLOAT(leaky_relu, x < 0 ? a * x : x)
UNARY_FLOAT(log, log(x))
UNARY_FLOAT(neg, -x)
UNARY_FLOAT(reciprocal, 1 / x)
UNARY_FLOAT(relu, x < 0 ? 0 : x)
UNARY_FLOAT(round, rint(x))
UNARY_FLOAT(selu, x > 0 ? b * x : b * (a * expm1(x)))
UNARY_FLOAT(shrink, x < -b ? x + a : x > b ? x - a : x != x ? x : 0)
UNARY_FLOAT(sign, x > 0 ? 1 : x < 0 ? -1 : x == 0 ? 0 : x)
UNARY_FLOAT(sin, sin(x))
UNARY_FLOAT(sinh, sinh(x))
UNARY_FLOAT(softsign, x / (1 + fabs(x)))
UNARY_FLOAT(sqrt, sqrt(x))
UNARY_FLOAT(tan, tan(x))
UNARY_FLOAT(tanh, tanh(x))
UNARY_FLOAT(thresholded_relu, x > a ? x : x != x ? x : 0)
/* clang-format on */

UNARY_LOOP(neg_i64, uint64_t, uint64_t, 0 - x)
UNARY_LOOP(abs_i64, int64_t, uint64_t, x < 0 ? 0 - (uint64_t)x : (uint64_t)x)
UNARY_LOOP(same_u64, uint64_t, uint64_t, x)
UNARY_LOOP(relu_i64, int64_t, int64_t, x > 0 ? x : 0)
UNARY_LOOP(sign_i64, int64_t, int64_t, (x > 0) - (x < 0))
UNARY_LOOP(sign_u64, uint64_t, uint64_t, x > 0)
UNARY_LOOP(not_u64, uint64_t, uint64_t, x == 0)
UNARY_LOOP(bitwise_not_u64, uint64_t, uint64_t, ~x)
UNARY_LOOP(is_nan_f32, float, uint8_t, x != x)
UNARY_LOOP(is_nan_f64, double, uint8_t, x != x)
/* a: detect_negative, b: detect_positive */
UNARY_LOOP(is_inf_f32, float, uint8_t, isinf(x) && (x > 0 ? b != 0 : a != 0))
UNARY_LOOP(is_inf_f64, double, uint8_t, isinf(x) && (x > 0 ? b != 0 : a != 0))

#define SIGMOID_OF(T, exp_fn, suffix)                                                              \
    static T sigmoid_of_##suffix(T x)                                                              \
    {                                                                                              \
        const T e = exp_fn(-(x < 0 ? -x : x));                                                     \
                                                                                                   \
        return x < 0 ? e / (1 + e) : 1 / (1 + e);                                                  \
    }                                                                                              \
    static T softplus_of_##suffix(T x)                                                             \
    {                                                                                              \
        return (x < 0 ? 0 : x) + log1p(exp_fn(-(x < 0 ? -x : x)));                                 \
    }
SIGMOID_OF(float, expf, f32)
SIGMOID_OF(double, exp, f64)

UNARY_LOOP(sigmoid_f32, float, float, sigmoid_of_f32(x))
UNARY_LOOP(sigmoid_f64, double, double, sigmoid_of_f64(x))
UNARY_LOOP(swish_f32, float, float, x *sigmoid_of_f32(a *x))
UNARY_LOOP(swish_f64, double, double, x *sigmoid_of_f64(a *x))
UNARY_LOOP(softplus_f32, float, float, softplus_of_f32(x))
UNARY_LOOP(softplus_f64, double, double, softplus_of_f64(x))
UNARY_LOOP(mish_f32, float, float, x *tanh(softplus_of_f32(x)))
UNARY_LOOP(mish_f64, double, double, x *tanh(softplus_of_f64(x)))
UNARY_LOOP(gelu_erf_f32, float, float, x / 2 * (1 + erf(x * 0.70710678118654752f)))
UNARY_LOOP(gelu_erf_f64, double, double, x / 2 * (1 + erf(x * 0.70710678118654752440)))
UNARY_LOOP(gelu_tanh_f32, float, float,
           x / 2 * (1 + tanh(0.79788456080286536f * (x + 0.044715f * x * x * x))))
UNARY_LOOP(gelu_tanh_f64, double, double,
           x / 2 * (1 + tanh(0.79788456080286535588 * (x + 0.044715 * x * x * x))))

#define FLOATS(name)                                                                               \
    {                                                                                              \
        name##_f32, name##_f64, NULL, NULL                                                         \
    }

struct unary_row {
    unary_fn *fn[EW_GEN_CLASSES];
};

/* clang-format off */
static const struct unary_row k_unary[EW_OP_COUNT] = {
    [EW_OP_ABS] = { { abs_f32, abs_f64, abs_i64, same_u64 } },
    [EW_OP_ACOS] = { FLOATS(acos) },
    [EW_OP_ACOSH] = { FLOATS(acosh) },
    [EW_OP_ASIN] = { FLOATS(asin) },
    [EW_OP_ASINH] = { FLOATS(asinh) },
    [EW_OP_ATAN] = { FLOATS(atan) },
    [EW_OP_ATANH] = { FLOATS(atanh) },
    [EW_OP_BITWISE_NOT] = { { NULL, NULL, bitwise_not_u64, bitwise_not_u64 } },
    [EW_OP_CEIL] = { FLOATS(ceil) },
    [EW_OP_CELU] = { FLOATS(celu) },
    [EW_OP_COS] = { FLOATS(cos) },
    [EW_OP_COSH] = { FLOATS(cosh) },
    [EW_OP_ELU] = { FLOATS(elu) },
    [EW_OP_ERF] = { FLOATS(erf) },
    [EW_OP_EXP] = { FLOATS(exp) },
    [EW_OP_FLOOR] = { FLOATS(floor) },
    [EW_OP_GELU] = { FLOATS(gelu_erf) },
    [EW_OP_HARD_SIGMOID] = { FLOATS(hard_sigmoid) },
    [EW_OP_HARD_SWISH] = { FLOATS(hard_swish) },
    [EW_OP_IS_INF] = { FLOATS(is_inf) },
    [EW_OP_IS_NAN] = { FLOATS(is_nan) },
    [EW_OP_LEAKY_RELU] = { FLOATS(leaky_relu) },
    [EW_OP_LOG] = { FLOATS(log) },
    [EW_OP_MISH] = { FLOATS(mish) },
    [EW_OP_NEG] = { { neg_f32, neg_f64, neg_i64, NULL } },
    [EW_OP_NOT] = { { NULL, NULL, NULL, not_u64 } },
    [EW_OP_RECIPROCAL] = { FLOATS(reciprocal) },
    [EW_OP_RELU] = { { relu_f32, relu_f64, relu_i64, NULL } },
    [EW_OP_ROUND] = { FLOATS(round) },
    [EW_OP_SELU] = { FLOATS(selu) },
    [EW_OP_SHRINK] = { FLOATS(shrink) },
    [EW_OP_SIGMOID] = { FLOATS(sigmoid) },
    [EW_OP_SIGN] = { { sign_f32, sign_f64, sign_i64, sign_u64 } },
    [EW_OP_SIN] = { FLOATS(sin) },
    [EW_OP_SINH] = { FLOATS(sinh) },
    [EW_OP_SOFTPLUS] = { FLOATS(softplus) },
    [EW_OP_SOFTSIGN] = { FLOATS(softsign) },
    [EW_OP_SQRT] = { FLOATS(sqrt) },
    [EW_OP_SWISH] = { FLOATS(swish) },
    [EW_OP_TAN] = { FLOATS(tan) },
    [EW_OP_TANH] = { FLOATS(tanh) },
    [EW_OP_THRESHOLDED_RELU] = { FLOATS(thresholded_relu) },
};
static const struct unary_row k_gelu_tanh = { FLOATS(gelu_tanh) };
/* clang-format on */

static void unary_params(const struct ew_general_args *a, double *alpha, double *beta)
{
    *alpha = 0;
    *beta = 0;
    switch (ew_op_get(a->op)->attr_kind) {
    case EW_ATTR_KIND_alpha:
        *alpha = (double)a->attrs->alpha.alpha;
        return;
    case EW_ATTR_KIND_alpha_beta:
        *alpha = (double)a->attrs->alpha_beta.alpha;
        *beta = (double)a->attrs->alpha_beta.beta;
        return;
    case EW_ATTR_KIND_is_inf:
        *alpha = a->attrs->is_inf.detect_negative;
        *beta = a->attrs->is_inf.detect_positive;
        return;
    default:
        if (a->op == EW_OP_HARD_SWISH)
            *beta = 0.5;
        return;
    }
}

static ew_status unary_run(const struct ew_general_args *a)
{
    const struct ew_view *const x = a->in[0];
    struct ew_view *const y = a->out[0];
    const size_t n = ew_gen_count(&y->type);
    const bool to_bool = a->op == EW_OP_IS_NAN || a->op == EW_OP_IS_INF;
    enum ew_gen_class c = ew_gen_class_of(x->type.dtype);
    const struct unary_row *row = &k_unary[a->op];
    union ew_gen_block in, out;
    double alpha, beta;

    if (a->op == EW_OP_GELU && a->attrs->gelu.approximate == EW_GELU_TANH)
        row = &k_gelu_tanh;
    if (a->op == EW_OP_SHRINK && (c == EW_GEN_I64 || c == EW_GEN_U64))
        c = EW_GEN_F64; /* its attributes are floats */
    if (!row->fn[c])
        return ew_gen_refuse(a, x->type.dtype);
    unary_params(a, &alpha, &beta);
    for (size_t i = 0; i < n; i += EW_GEN_BLOCK) {
        const size_t len = n - i < EW_GEN_BLOCK ? n - i : EW_GEN_BLOCK;
        const void *src = ew_gen_direct(x->data, x->type.dtype, c, (ptrdiff_t)i);
        void *dst = to_bool ? (void *)((uint8_t *)y->data + i)
                            : ew_gen_direct(y->data, y->type.dtype, c, (ptrdiff_t)i);

        if (!src) {
            ew_gen_load(&in, c, x->data, x->type.dtype, (ptrdiff_t)i, 1, len);
            src = &in;
        }
        row->fn[c](dst ? dst : &out, src, len, alpha, beta);
        if (!dst)
            ew_gen_store(y->data, y->type.dtype, (ptrdiff_t)i, 1, &out, c, len);
    }
    return EW_STATUS_OK;
}

/* ---- Clip ---- */

union scalar {
    float f32;
    double f64;
    int64_t i64;
    uint64_t u64;
};

/* min then max, so that max wins where min > max; NaN passes through. */
#define CLIP_LOOP(member)                                                                          \
    for (size_t i = 0; i < n; i++) {                                                               \
        if (lo && b->member[i] < lo->member)                                                       \
            b->member[i] = lo->member;                                                             \
        if (hi && b->member[i] > hi->member)                                                       \
            b->member[i] = hi->member;                                                             \
    }

static void clip_block(union ew_gen_block *b, enum ew_gen_class c, const union scalar *lo,
                       const union scalar *hi, size_t n)
{
    if (c == EW_GEN_F32) {
        CLIP_LOOP(f32)
    } else if (c == EW_GEN_F64) {
        CLIP_LOOP(f64)
    } else if (c == EW_GEN_I64) {
        CLIP_LOOP(i64)
    } else {
        CLIP_LOOP(u64)
    }
}

static bool clip_bound(const struct ew_general_args *a, int i, enum ew_gen_class c,
                       union scalar *bound)
{
    if (i >= a->n_in || !a->in[i] || ew_gen_count(&a->in[i]->type) == 0)
        return false;
    ew_gen_load(bound, c, a->in[i]->data, a->in[i]->type.dtype, 0, 1, 1);
    return true;
}

ew_status ew_gen_clip(const struct ew_general_args *a)
{
    const struct ew_view *const x = a->in[0];
    struct ew_view *const y = a->out[0];
    const size_t n = ew_gen_count(&y->type);
    const enum ew_gen_class c = ew_gen_class_of(x->type.dtype);
    union scalar lo, hi;
    const bool has_lo = clip_bound(a, 1, c, &lo), has_hi = clip_bound(a, 2, c, &hi);
    union ew_gen_block b;

    for (size_t i = 0; i < n; i += EW_GEN_BLOCK) {
        const size_t len = n - i < EW_GEN_BLOCK ? n - i : EW_GEN_BLOCK;

        ew_gen_load(&b, c, x->data, x->type.dtype, (ptrdiff_t)i, 1, len);
        clip_block(&b, c, has_lo ? &lo : NULL, has_hi ? &hi : NULL, len);
        ew_gen_store(y->data, y->type.dtype, (ptrdiff_t)i, 1, &b, c, len);
    }
    return EW_STATUS_OK;
}

ew_status ew_general_unary__ref(const struct ew_general_args *a)
{
    ew_gen_clear_spare(a->out[0]);
    if (a->op == EW_OP_CAST)
        return ew_gen_cast(a);
    if (a->op == EW_OP_CLIP)
        return ew_gen_clip(a);
    if (a->op == EW_OP_IDENTITY) {
        ew_gen_copy_flat(a->out[0]->data, 0, a->in[0]->data, 0, ew_gen_count(&a->out[0]->type),
                         a->out[0]->type.dtype);
        return EW_STATUS_OK;
    }
    return unary_run(a);
}

/* kernels/ref/linear_ref.c - the judge of the linear kernels: rows as they are, sums in double.
 * Clear, not fast. Packed form: [n][k] in the weight's dtype, rows in the order of the parts. */
#include <math.h>
#include <string.h>

#include "base/half.h"
#include "kernels/linear.h"
#include "kernels/linear_pack.h"
#include "op/attrs.h"

static size_t elem_bytes(ew_dtype d)
{
    return d == EW_DTYPE_F32 ? 4 : 2;
}

static float weight_at(const void *w, ew_dtype d, size_t i)
{
    if (d == EW_DTYPE_F32)
        return ((const float *)w)[i];
    const uint16_t h = ((const uint16_t *)w)[i];
    return d == EW_DTYPE_BF16 ? ew_bf16_to_f32(h) : ew_f16_to_f32(h);
}

static double act_apply(int act, double z)
{
    switch (act) {
    case EW_ACT_SILU:
        return z / (1.0 + exp(-z));
    case EW_ACT_GELU_TANH:
        return 0.5 * z * (1.0 + tanh(0.79788456080286535588 * (z + 0.044715 * z * z * z)));
    case EW_ACT_GELU_ERF:
        return 0.5 * z * (1.0 + erf(z * 0.70710678118654752440));
    case EW_ACT_RELU:
        return z > 0 || isnan(z) ? z : 0.0;
    case EW_ACT_RELU2:
        return z > 0 || isnan(z) ? z * z : 0.0;
    default:
        return z;
    }
}

/* Output n of a row before the activation. */
static double dot_row(const struct ew_linear_args *a, ew_dtype d, const float *x, size_t n)
{
    double z = 0;

    for (size_t k = 0; k < a->k; k++)
        z += (double)x[k] * (double)weight_at(a->w, d, n * a->k + k);
    z = (z + (a->bias ? (double)a->bias[n] : 0.0)) * (double)a->scale;
    if (a->softcap != 0.0f)
        z = (double)a->softcap * tanh(z / (double)a->softcap);
    return z;
}

static void run(const struct ew_linear_args *a, ew_dtype d, size_t begin, size_t end)
{
    for (size_t m = 0; m < a->m; m++) {
        const float *x = a->x + m * a->x_stride;
        for (size_t n = begin; n < end; n++) {
            double y = act_apply(a->act, dot_row(a, d, x, n));
            if (a->glu)
                y *= dot_row(a, d, x, n + a->n / 2);
            if (a->residual)
                y += (double)a->residual[m * a->residual_stride + n];
            a->y[m * a->y_stride + n] = (float)y;
        }
    }
}

static void pack(void *dst, const struct ew_weight_part *parts, size_t n_parts, size_t n, size_t k,
                 size_t begin, size_t end, size_t bytes)
{
    for (size_t row = begin; row < end && row < n; row++) {
        ptrdiff_t col_bytes;
        const unsigned char *src = ew_weight_parts_row(parts, n_parts, row, bytes, &col_bytes);
        unsigned char *at = (unsigned char *)dst + row * k * bytes;
        for (size_t i = 0; i < k; i++) {
            if (src)
                memcpy(at + i * bytes, src + (ptrdiff_t)i * col_bytes, bytes);
            else
                memset(at + i * bytes, 0, bytes);
        }
    }
}

static size_t units(size_t n, bool glu)
{
    return glu ? n / 2 : n;
}

static size_t no_scratch(size_t m, size_t n, size_t k)
{
    (void)m;
    (void)n;
    (void)k;
    return 0;
}

#define REF_KERNEL(type, dtype)                                                                    \
    static size_t packed_bytes_##type(size_t n, size_t k, bool glu)                                \
    {                                                                                              \
        (void)glu;                                                                                 \
        return n * k * elem_bytes(dtype);                                                          \
    }                                                                                              \
    static void pack_##type(void *dst, const struct ew_weight_part *parts, size_t n_parts,         \
                            size_t n, size_t k, bool glu, size_t begin, size_t end)                \
    {                                                                                              \
        pack(dst, parts, n_parts, n, k, begin, end, elem_bytes(dtype));                            \
        if (glu)                                                                                   \
            pack(dst, parts, n_parts, n, k, n / 2 + begin, n / 2 + end, elem_bytes(dtype));        \
    }                                                                                              \
    static void unpack_row_##type(float *dst, const void *packed, size_t n, size_t k, size_t row)  \
    {                                                                                              \
        (void)n;                                                                                   \
        for (size_t i = 0; i < k; i++)                                                             \
            dst[i] = weight_at(packed, dtype, row * k + i);                                        \
    }                                                                                              \
    static void run_##type(const struct ew_linear_args *a, size_t begin, size_t end,               \
                           void *scratch)                                                          \
    {                                                                                              \
        (void)scratch;                                                                             \
        run(a, dtype, begin, end);                                                                 \
    }                                                                                              \
    extern const struct ew_linear_kernel ew_linear_##type##__ref;                                  \
    const struct ew_linear_kernel ew_linear_##type##__ref = {                                      \
        .name = "linear_" #type "__ref",                                                           \
        .cpu_need = 0,                                                                             \
        .weight_dtype = dtype,                                                                     \
        .panel = 1,                                                                                \
        .packed_bytes = packed_bytes_##type,                                                       \
        .pack = pack_##type,                                                                       \
        .unpack_row = unpack_row_##type,                                                           \
        .n_units = units,                                                                          \
        .scratch_bytes = no_scratch,                                                               \
        .run = run_##type,                                                                         \
    };

REF_KERNEL(f32, EW_DTYPE_F32)
REF_KERNEL(f16, EW_DTYPE_F16)
REF_KERNEL(bf16, EW_DTYPE_BF16)

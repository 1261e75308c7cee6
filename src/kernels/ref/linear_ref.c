/* kernels/ref/linear_ref.c - the judge of the linear kernels: rows as they are, sums in double.
 * Clear, not fast. Packed form: [n][k] in the weight's dtype, rows in the order of the parts; for
 * glu each gate row is followed by its up row. */
#include <math.h>
#include <string.h>

#include "base/half.h"
#include "kernels/linear.h"
#include "kernels/linear_pack.h"
#include "kernels/ref/linear_act.h"

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

/* Output n of a row before the activation. */
static double dot_row(const struct ew_linear_args *a, ew_dtype d, const float *x, size_t n)
{
    const size_t half = a->n / 2;
    const size_t row = !a->glu ? n : n < half ? 2 * n : 2 * (n - half) + 1;
    double z = 0;

    for (size_t k = 0; k < a->k; k++)
        z += (double)x[k] * (double)weight_at(a->w, d, row * a->k + k);
    return ew_ref_finish(a, z, n);
}

static void run(const struct ew_linear_args *a, ew_dtype d, size_t begin, size_t end)
{
    for (size_t m = 0; m < a->m; m++) {
        const float *x = a->x + m * a->x_stride;
        for (size_t n = begin; n < end; n++) {
            double y = ew_ref_act(a->act, dot_row(a, d, x, n));
            if (a->glu)
                y *= dot_row(a, d, x, n + a->n / 2);
            if (a->residual)
                y += (double)a->residual[m * a->residual_stride + n];
            a->y[m * a->y_stride + n] = (float)y;
        }
    }
}

static void pack_row(unsigned char *dst, const struct ew_pack_args *a, size_t row, size_t bytes)
{
    ptrdiff_t col_bytes;
    const unsigned char *src = ew_weight_parts_row(a->parts, a->n_parts, row, bytes, &col_bytes);

    for (size_t i = 0; i < a->k; i++) {
        if (src)
            memcpy(dst + i * bytes, src + (ptrdiff_t)i * col_bytes, bytes);
        else
            memset(dst + i * bytes, 0, bytes);
    }
}

static void pack(void *dst, const struct ew_pack_args *a, size_t begin, size_t end, size_t bytes)
{
    const size_t row_bytes = a->k * bytes;

    for (size_t u = begin; u < end; u++) {
        unsigned char *at = (unsigned char *)dst + u * row_bytes * (a->glu ? 2 : 1);

        pack_row(at, a, u, bytes);
        if (a->glu)
            pack_row(at + row_bytes, a, a->n / 2 + u, bytes);
    }
}

#define REF_KERNEL(type, dtype)                                                                    \
    static size_t packed_bytes_##type(const struct ew_quant_format *f, size_t n, size_t k,         \
                                      bool glu)                                                    \
    {                                                                                              \
        (void)f;                                                                                   \
        (void)glu;                                                                                 \
        return n * k * elem_bytes(dtype);                                                          \
    }                                                                                              \
    static void pack_##type(void *dst, const struct ew_pack_args *a, size_t begin, size_t end)     \
    {                                                                                              \
        pack(dst, a, begin, end, elem_bytes(dtype));                                               \
    }                                                                                              \
    static void unpack_row_##type(float *dst, const void *packed, const struct ew_quant_format *f, \
                                  size_t n, size_t k, size_t row)                                  \
    {                                                                                              \
        (void)f;                                                                                   \
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
        .n_units = ew_ref_units,                                                                   \
        .scratch_bytes = ew_ref_no_scratch,                                                        \
        .run = run_##type,                                                                         \
    };

REF_KERNEL(f32, EW_DTYPE_F32)
REF_KERNEL(f16, EW_DTYPE_F16)
REF_KERNEL(bf16, EW_DTYPE_BF16)

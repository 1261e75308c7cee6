/* kernels/cuda/linear_cublaslt.c - plans of products that cuBLASLt computes: a launch that rounds x
 * (unless it comes rounded, or is not to be), the product, and where its own epilogue does not do
 * what is asked for, linear_reduce.cu over its f32 sums. */
#include <string.h>

#include "kernels/cuda/linear_plan.h"
#include "op/attrs.h"

#define LEAST_ROWS 65    /* fewer are memory's, and other kernels' */
#define MOST_ROWS  65535 /* of the grid of the pass */

static size_t round256(size_t bytes)
{
    return (bytes + 255) & ~(size_t)255;
}

/* Whether y is alpha * sum + residual as the library writes it. (What is too large for f16 would be
 * infinite; here it is the largest number.) */
static bool is_plain(const struct ew_cuda_linear_problem *p, ew_dtype dtype)
{
    if (p->bias || p->glu || p->act != EW_ACT_NONE || p->softcap != 0.0f)
        return false;
    if (p->y_short)
        return dtype == EW_DTYPE_BF16 && p->y_short == dtype && !p->residual;
    return !p->residual || p->residual_stride == p->y_stride;
}

static size_t prepared_bytes(const struct ew_cuda_linear_problem *p, ew_dtype dtype)
{
    return dtype == EW_DTYPE_F32 || p->prepared ? 0 : round256(p->m * p->k * 2);
}

static size_t sums_bytes(const struct ew_cuda_linear_problem *p, ew_dtype dtype)
{
    return is_plain(p, dtype) ? 0 : round256(p->m * p->n * sizeof(float));
}

static size_t workspace_of(const struct ew_cuda_linear_problem *p, ew_dtype dtype)
{
    return prepared_bytes(p, dtype) + sums_bytes(p, dtype) + EW_CUDA_PRODUCT_WORKSPACE;
}

static struct ew_cuda_launch product_of(const struct ew_cuda_linear_problem *p,
                                        const struct ew_cuda_linear_args *a, ew_dtype dtype)
{
    const bool plain = is_plain(p, dtype), wide = dtype == EW_DTYPE_F32;
    const uint64_t sums = p->workspace + prepared_bytes(p, dtype);
    const struct ew_cuda_product q = {
        .w = p->w,
        .x = wide ? p->x : a->prepared,
        .residual = plain ? p->residual : 0,
        .y = plain ? p->y : sums,
        .workspace = sums + sums_bytes(p, dtype),
        .w_stride = p->k,
        .x_stride = wide ? p->x_stride : a->prepared_stride,
        .y_stride = plain ? p->y_stride : p->n,
        .m = (uint32_t)p->m,
        .n = (uint32_t)p->n,
        .k = (uint32_t)p->k,
        .dtype = (int32_t)dtype,
        .y_dtype = (int32_t)(plain && p->y_short ? dtype : EW_DTYPE_F32),
        .alpha = plain ? p->scale : 1.0f,
    };
    struct ew_cuda_launch l = { .spec = { .entry = "cublasLtMatmul" },
                                .product = true,
                                .grid = { 1, 1, 1 },
                                .block = { 32, 1, 1 },
                                .arg_bytes = sizeof(q) };

    memcpy(l.args, &q, sizeof(q));
    return l;
}

static size_t plan(const struct ew_cuda_linear_problem *p, ew_dtype dtype,
                   struct ew_cuda_launch *out)
{
    struct ew_cuda_linear_args a = ew_cuda_linear_args_of(p);
    struct ew_cuda_launch *l = out;

    if (p->m == 0 || p->n == 0)
        return 0;
    if (prepared_bytes(p, dtype))
        *l++ = ew_cuda_linear_prepare(p, dtype == EW_DTYPE_F16, &a);
    *l++ = product_of(p, &a, dtype);
    if (!is_plain(p, dtype)) {
        a.x = p->workspace + prepared_bytes(p, dtype);
        *l = ew_cuda_linear_launch("linear_reduce", "ew_linear_reduce", &a);
        l->grid[0] = ew_cuda_div_up(a.n_out, 4 * 256);
        l->grid[1] = a.m;
        l->block[0] = 256;
        ew_cuda_linear_define(l, p, "-DEW_REDUCE=4");
        l++;
    }
    return (size_t)(l - out);
}

/* Rows of x, W and y then begin at multiples of 16 bytes. */
static bool takes_eights(const struct ew_quant_format *f, size_t n, size_t k, bool glu)
{
    (void)f;
    (void)glu;
    return n % 8 == 0 && k % 8 == 0;
}

#define CUBLASLT(suffix, type, error, rounds)                                                      \
    static size_t workspace_##suffix(const struct ew_cuda_chip *c,                                 \
                                     const struct ew_cuda_linear_problem *p)                       \
    {                                                                                              \
        (void)c;                                                                                   \
        return workspace_of(p, type);                                                              \
    }                                                                                              \
    static size_t plan_##suffix(const struct ew_cuda_chip *c,                                      \
                                const struct ew_cuda_linear_problem *p,                            \
                                struct ew_cuda_launch *out)                                        \
    {                                                                                              \
        (void)c;                                                                                   \
        return plan(p, type, out);                                                                 \
    }                                                                                              \
    extern const struct ew_cuda_linear_kernel ew_cuda_cublaslt_##suffix;                           \
    const struct ew_cuda_linear_kernel ew_cuda_cublaslt_##suffix = {                               \
        .name = "cublaslt_" #suffix,                                                               \
        .layout = &ew_cuda_layout_##suffix,                                                        \
        .sm_min = 80,                                                                              \
        .sm_max = 999,                                                                             \
        .min_rows = LEAST_ROWS,                                                                    \
        .max_rows = MOST_ROWS,                                                                     \
        .x_error = error,                                                                          \
        .takes_prepared = rounds,                                                                  \
        .takes_norm = rounds,                                                                      \
        .puts_short = true,                                                                        \
        .library = true,                                                                           \
        .takes = takes_eights,                                                                     \
        .workspace_bytes = workspace_##suffix,                                                     \
        .plan = plan_##suffix,                                                                     \
    };

CUBLASLT(f32, EW_DTYPE_F32, 0.0f, false)
CUBLASLT(f16, EW_DTYPE_F16, EW_X_ERROR_F16, true)
CUBLASLT(bf16, EW_DTYPE_BF16, EW_X_ERROR_BF16, true)

/* kernels/ref/gen_nn.c - dispatch of group nn, its scratch, and the matrix product under MatMul,
 * Gemm and the convolutions. */
#include "kernels/ref/gen_nn.h"

#include <string.h>

#include "base/size.h"
#include "kernels/ref/gen_scratch.h"

/* ---- the product ---- */

enum ew_gen_class ew_gen_mm_class(ew_dtype d)
{
    const enum ew_gen_class c = ew_gen_class_of(d);

    return c == EW_GEN_I64 ? EW_GEN_U64 : c;
}

/* A panel of B, four rows of A, and their product. */
size_t ew_gen_mm_scratch_bytes(int64_t k)
{
    size_t n;

    if (k < 0 || !ew_size_mul((size_t)k + 1, EW_GEN_MM_COLS + EW_GEN_MM_ROWS, &n) ||
        !ew_size_mul(n, sizeof(double), &n) || !ew_size_add(n, 8192, &n))
        return SIZE_MAX;
    return n;
}

/* acc[r][j] = sum over k of a[r][k] b[k][j]; a has one row after the other, b rows step apart. */
#define MM_BLOCK(name, T)                                                                          \
    static void name(T *restrict acc, const T *restrict a, const T *restrict b, ptrdiff_t step,    \
                     ptrdiff_t k, ptrdiff_t n)                                                     \
    {                                                                                              \
        T *const acc0 = acc, *const acc1 = acc + EW_GEN_MM_COLS;                                   \
        T *const acc2 = acc1 + EW_GEN_MM_COLS, *const acc3 = acc2 + EW_GEN_MM_COLS;                \
                                                                                                   \
        for (ptrdiff_t j = 0; j < EW_GEN_MM_ROWS * EW_GEN_MM_COLS; j++)                            \
            acc[j] = 0;                                                                            \
        for (ptrdiff_t p = 0; p < k; p++) {                                                        \
            const T a0 = a[p], a1 = a[k + p], a2 = a[2 * k + p], a3 = a[3 * k + p];                \
            const T *const row = b + p * step;                                                     \
                                                                                                   \
            for (ptrdiff_t j = 0; j < n; j++) {                                                    \
                const T v = row[j];                                                                \
                                                                                                   \
                acc0[j] += a0 * v;                                                                 \
                acc1[j] += a1 * v;                                                                 \
                acc2[j] += a2 * v;                                                                 \
                acc3[j] += a3 * v;                                                                 \
            }                                                                                      \
        }                                                                                          \
    }

MM_BLOCK(block_f32, float)
MM_BLOCK(block_f64, double)
MM_BLOCK(block_u64, uint64_t)

void ew_gen_mm_run(const struct ew_gen_mm *mm)
{
    const size_t width = ew_gen_class_bytes(mm->c);
    char *const acc = mm->scratch;
    char *const a = acc + EW_GEN_MM_ROWS * EW_GEN_MM_COLS * sizeof(double);
    char *const b = a + (size_t)mm->k * EW_GEN_MM_ROWS * width;

    for (ptrdiff_t j = 0; j < mm->n; j += EW_GEN_MM_COLS) {
        const ptrdiff_t n = mm->n - j < EW_GEN_MM_COLS ? mm->n - j : EW_GEN_MM_COLS;

        if (!mm->b_f32)
            mm->pack_b(mm, b, j, n);
        for (ptrdiff_t i = 0; i < mm->m; i += EW_GEN_MM_ROWS) {
            const ptrdiff_t rows = mm->m - i < EW_GEN_MM_ROWS ? mm->m - i : EW_GEN_MM_ROWS;

            for (ptrdiff_t r = 0; r < rows; r++)
                mm->pack_a(mm, a + (size_t)(r * mm->k) * width, i + r);
            if (rows < EW_GEN_MM_ROWS)
                memset(a + (size_t)(rows * mm->k) * width, 0,
                       (size_t)((EW_GEN_MM_ROWS - rows) * mm->k) * width);
            if (mm->b_f32)
                block_f32((float *)acc, (const float *)a, mm->b_f32 + j, mm->b_f32_step, mm->k, n);
            else if (mm->c == EW_GEN_F32)
                block_f32((float *)acc, (const float *)a, (const float *)b, EW_GEN_MM_COLS, mm->k,
                          n);
            else if (mm->c == EW_GEN_F64)
                block_f64((double *)acc, (const double *)a, (const double *)b, EW_GEN_MM_COLS,
                          mm->k, n);
            else
                block_u64((uint64_t *)acc, (const uint64_t *)a, (const uint64_t *)b, EW_GEN_MM_COLS,
                          mm->k, n);
            for (ptrdiff_t r = 0; r < rows; r++)
                mm->store(mm, acc + (size_t)(r * EW_GEN_MM_COLS) * width, i + r, j, n);
        }
    }
}

/* ---- dispatch ---- */

ew_status ew_general_nn__ref(const struct ew_general_args *a)
{
    static ew_general_fn *const fns[EW_OP_COUNT] = {
        [EW_OP_ATTENTION] = ew_gen_attention,
        [EW_OP_AVERAGE_POOL] = ew_gen_pool,
        [EW_OP_BATCH_NORM] = ew_gen_channel_norm,
        [EW_OP_BLOCK_QUANTIZE] = ew_gen_block_quantize,
        [EW_OP_CONV] = ew_gen_conv,
        [EW_OP_CONV_TRANSPOSE] = ew_gen_conv_transpose,
        [EW_OP_DEQUANTIZE_LINEAR] = ew_gen_dequantize,
        [EW_OP_DYNAMIC_QUANTIZE_LINEAR] = ew_gen_dynamic_quantize,
        [EW_OP_EINSUM] = ew_gen_einsum,
        [EW_OP_GEMM] = ew_gen_gemm,
        [EW_OP_GLOBAL_AVERAGE_POOL] = ew_gen_global_pool,
        [EW_OP_GLOBAL_MAX_POOL] = ew_gen_global_pool,
        [EW_OP_GROUP_NORM] = ew_gen_channel_norm,
        [EW_OP_INSTANCE_NORM] = ew_gen_channel_norm,
        [EW_OP_LAYER_NORM] = ew_gen_row_norm,
        [EW_OP_LP_NORM] = ew_gen_lp_norm,
        [EW_OP_MATMUL] = ew_gen_matmul,
        [EW_OP_MATMUL_INTEGER] = ew_gen_matmul,
        [EW_OP_MAX_POOL] = ew_gen_pool,
        [EW_OP_QUANTIZE_LINEAR] = ew_gen_quantize,
        [EW_OP_RESIZE] = ew_gen_resize,
        [EW_OP_RMS_NORM] = ew_gen_row_norm,
        [EW_OP_ROTARY_EMBEDDING] = ew_gen_rotary,
    };

    if (!fns[a->op])
        return ew_gen_refuse(a, a->in[0] ? a->in[0]->type.dtype : EW_DTYPE_NONE);
    return fns[a->op](a);
}

size_t ew_gen_nn_scratch_bytes(ew_op op, const union ew_attrs *attrs, int n_in,
                               const struct ew_type *const *in, int n_out,
                               const struct ew_type *const *out)
{
    switch (op) {
    case EW_OP_MATMUL:
    case EW_OP_MATMUL_INTEGER:
        return ew_gen_mm_scratch_bytes(in[0]->dim[in[0]->n_dims - 1]);
    case EW_OP_GEMM:
        return ew_gen_mm_scratch_bytes(in[0]->dim[attrs->gemm.trans_a ? 0 : 1]);
    case EW_OP_CONV:
    case EW_OP_CONV_TRANSPOSE:
        return ew_gen_conv_scratch(in[1], attrs->conv.group, op == EW_OP_CONV_TRANSPOSE);
    case EW_OP_LAYER_NORM:
    case EW_OP_RMS_NORM:
        return ew_gen_row_norm_scratch(&attrs->norm, in[0]);
    case EW_OP_ATTENTION:
        return ew_gen_attention_scratch(&attrs->attention, in, n_in);
    case EW_OP_EINSUM:
        return ew_gen_einsum_scratch(in, n_in);
    case EW_OP_RESIZE:
        return n_out > 0 && out[0] ? ew_gen_resize_scratch(&attrs->resize, in[0], out[0]) : 0;
    default:
        return 0;
    }
}

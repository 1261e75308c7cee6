/* kernels/ref/gen_nn.h - what the nn group shares: one matrix product that packs its operands
 * through callbacks, and the ops in files of their own. */
#ifndef EW_KERNELS_REF_GEN_NN_H
#define EW_KERNELS_REF_GEN_NN_H

#include "kernels/ref/gen_common.h"

#define EW_GEN_MM_ROWS 4
#define EW_GEN_MM_COLS 128

/* Y[m,n] = A[m,k] B[k,n], a panel of columns at a time. Integers compute in EW_GEN_U64, whose low
 * bits are right for any of them. */
struct ew_gen_mm {
    enum ew_gen_class c;
    ptrdiff_t m, n, k;
    /* Row i of A as k values of the class. */
    void (*pack_a)(const struct ew_gen_mm *mm, void *dst, ptrdiff_t i);
    /* Columns [j, j + n) of B as k rows of EW_GEN_MM_COLS values. */
    void (*pack_b)(const struct ew_gen_mm *mm, void *dst, ptrdiff_t j, ptrdiff_t n);
    /* n finished values of row i from column j on; v may be changed. */
    void (*store)(const struct ew_gen_mm *mm, void *v, ptrdiff_t i, ptrdiff_t j, ptrdiff_t n);
    const float *b_f32; /* rows of B that need no packing, or NULL */
    ptrdiff_t b_f32_step;
    void *scratch;
    const void *user;
};

/* SIZE_MAX on overflow. */
size_t ew_gen_mm_scratch_bytes(int64_t k);
void ew_gen_mm_run(const struct ew_gen_mm *mm);
/* The class that products of a dtype run in. */
enum ew_gen_class ew_gen_mm_class(ew_dtype d);

ew_general_fn ew_gen_matmul, ew_gen_gemm, ew_gen_conv, ew_gen_conv_transpose, ew_gen_pool,
    ew_gen_global_pool, ew_gen_row_norm, ew_gen_channel_norm, ew_gen_lp_norm, ew_gen_attention,
    ew_gen_rotary, ew_gen_quantize, ew_gen_dequantize, ew_gen_dynamic_quantize,
    ew_gen_block_quantize, ew_gen_einsum, ew_gen_resize;

/* Their working memory, for concrete types that infer has accepted. */
size_t ew_gen_conv_scratch(const struct ew_type *w, int64_t group, bool transposed);
size_t ew_gen_row_norm_scratch(const struct ew_attr_norm *attr, const struct ew_type *x);
size_t ew_gen_attention_scratch(const struct ew_attr_attention *attr,
                                const struct ew_type *const *in, int n_in);
size_t ew_gen_einsum_scratch(const struct ew_type *const *in, int n_in);
size_t ew_gen_resize_scratch(const struct ew_attr_resize *attr, const struct ew_type *x,
                             const struct ew_type *y);

#endif

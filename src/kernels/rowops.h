/* kernels/rowops.h - the small f32 row kernels of a decoder, one table per instruction set.
 *
 * rmsnorm: y[r][i] = x[r][i] / sqrt(mean_i(x[r]^2) + eps) * w[i] [+ residual[r][i]]; y may equal x
 * or residual. Relative error <= 4e-6. The sum of a row does not depend on other rows. pointwise:
 * runs a program (op/attrs.h) over n elements; in[i] advances by step[i] (0: a scalar broadcast, 1:
 * dense). Absolute-or-relative error 2e-6 per instruction for exp/tanh/... family (1e-5 for pow).
 * topk_softmax: MoE routing of rows: logits [r][e] -> idx [r][k], prob [r][k]; ties to the lower
 * index. to_f32 / from_f32: dtype conversion of n elements (f16, bf16; round to nearest even).
 * block_tops: the largest of each EW_TOPS_BLOCK of x (the last one may be short), NaN where one is
 * NaN: what a sampler has to know of a vocabulary before it looks at some of it. */
#ifndef EW_KERNELS_ROWOPS_H
#define EW_KERNELS_ROWOPS_H

#include <stddef.h>
#include <stdint.h>

#include "op/attrs.h"

#define EW_TOPS_BLOCK 256

struct ew_rowops {
    const char *name; /* "avx2" */
    uint32_t cpu_need;
    void (*rmsnorm)(float *y, const float *x, const float *w, const float *residual, size_t rows,
                    size_t n, float eps);
    void (*pointwise)(const struct ew_attr_pointwise *p, float *y, const float *const *in,
                      const size_t *step, size_t n_in, size_t n);
    void (*topk_softmax)(const float *logits, size_t rows, size_t e, size_t k, int norm_topk,
                         int32_t *idx, float *prob);
    void (*f16_to_f32)(float *dst, const uint16_t *src, size_t n);
    void (*f32_to_f16)(uint16_t *dst, const float *src, size_t n);
    void (*bf16_to_f32)(float *dst, const uint16_t *src, size_t n);
    void (*f32_to_bf16)(uint16_t *dst, const float *src, size_t n);
    void (*block_tops)(float *tops, const float *x, size_t n);
};
/* All tables of this build, slowest first. */
const struct ew_rowops *const *ew_rowops_all(size_t *n);
/* Best table that `cpu_flags` allows; never NULL (ref). */
const struct ew_rowops *ew_rowops_best(uint32_t cpu_flags);

#endif

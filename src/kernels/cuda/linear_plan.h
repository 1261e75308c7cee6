/* kernels/cuda/linear_plan.h - what the plan functions of linear kernels share. */
#ifndef EW_KERNELS_CUDA_LINEAR_PLAN_H
#define EW_KERNELS_CUDA_LINEAR_PLAN_H

#include "kernels/cuda/linear.h"
#include "kernels/cuda/linear_args.cuh"

#define EW_X_ERROR_BF16 0x1p-9f
#define EW_X_ERROR_F16  0x1p-12f

/* Arguments of a problem; k_blocks and what follows for a quantised one. */
struct ew_cuda_linear_args ew_cuda_linear_args_of(const struct ew_cuda_linear_problem *p);
/* A launch with these arguments; the caller fills grid, block and spec.defines. */
struct ew_cuda_launch ew_cuda_linear_launch(const char *source, const char *entry,
                                            const struct ew_cuda_linear_args *a);
/* Sets the macros of a launch: the text (which leaves room), then those of the epilogue. */
void ew_cuda_linear_define(struct ew_cuda_launch *l, const struct ew_cuda_linear_problem *p,
                           const char *fmt, ...) EW_PRINTF(3, 4);
/* Macros that say what codes, scales and zero points of a format are: " -DEW_CODE=..." */
void ew_cuda_quant_defines(const struct ew_quant_format *f, size_t k, char *out, size_t cap);
/* The launch that rounds x (after its norm) into the workspace; *a then reads that. */
struct ew_cuda_launch ew_cuda_linear_prepare(const struct ew_cuda_linear_problem *p, bool f16,
                                             struct ew_cuda_linear_args *a);
#define EW_WIDE_ROWS 256u /* more than these are linear_wide.cu's, where that runs */
/* The product of many rows and plain weights on sm_90a (linear_wide.cu); *a has x rounded. fresh:
 * the launch before makes the weights. */
struct ew_cuda_launch ew_cuda_linear_wide(const struct ew_cuda_chip *c,
                                          const struct ew_cuda_linear_problem *p,
                                          const struct ew_cuda_linear_args *a, bool f16,
                                          bool fresh);
/* Blocks that share the columns of a tile, up to 8: as many as fill the chip most evenly, each with
 * enough columns to be worth its start. */
uint32_t ew_cuda_linear_splits(const struct ew_cuda_chip *c, size_t tiles, size_t k);
uint32_t ew_cuda_div_up(size_t a, size_t b);

#endif

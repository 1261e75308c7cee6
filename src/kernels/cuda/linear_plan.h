/* kernels/cuda/linear_plan.h - what the plan functions of linear kernels share. */
#ifndef EW_KERNELS_CUDA_LINEAR_PLAN_H
#define EW_KERNELS_CUDA_LINEAR_PLAN_H

#include "kernels/cuda/linear.h"
#include "kernels/cuda/linear_args.cuh"

#define EW_X_ERROR_BF16 0x1p-9f

/* Arguments of a problem; k_blocks and what follows for a quantised one. */
struct ew_cuda_linear_args ew_cuda_linear_args_of(const struct ew_cuda_linear_problem *p);
/* A launch with these arguments; the caller fills grid, block and spec.defines. */
struct ew_cuda_launch ew_cuda_linear_launch(const char *source, const char *entry,
                                            const struct ew_cuda_linear_args *a);
/* Macros that say what codes, scales and zero points of a format are: " -DEW_CODE=..." */
void ew_cuda_quant_defines(const struct ew_quant_format *f, size_t k, char *out, size_t cap);
uint32_t ew_cuda_div_up(size_t a, size_t b);

#endif

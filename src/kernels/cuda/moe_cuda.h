/* kernels/cuda/moe_cuda.h - Moe (op/attrs.h) as launches: route and group, gate and up, down, add.
 *
 * The grouped order is (expert, row), the sum over a row's experts runs in the router's order: a
 * result depends on its row alone. Expert weights are plain rows of bf16, f16 or f32, [e][2I][H]
 * and [e][H][I]. Which experts have rows is known on the device alone: grids are sized for the
 * most that may be, blocks without work leave. */
#ifndef EW_KERNELS_CUDA_MOE_H
#define EW_KERNELS_CUDA_MOE_H

#include "base/error.h"
#include "kernels/cuda/kernel.h"

#define EW_CUDA_MOE_LAUNCHES 5

struct ew_cuda_moe {
    const float *x;                       /* [rows][h] */
    const float *logits;                  /* [rows][e] */
    const void *gate_up;                  /* [e][2*inner][h]: gate rows, then up rows */
    const void *down;                     /* [e][h][inner] */
    uint64_t gate_up_stride, down_stride; /* bytes of an expert */
    ew_dtype w_dtype;
    float *y; /* [rows][h] */
    size_t rows, h, inner, e, k;
    int act; /* enum ew_act */
    bool norm_topk;
    void *work; /* ew_cuda_moe_work_bytes, 256-byte aligned */
};
size_t ew_cuda_moe_work_bytes(const struct ew_cuda_moe *p);
ew_status ew_cuda_moe_plan(const struct ew_cuda_moe *p, const struct ew_cuda_chip *chip,
                           struct ew_cuda_launch out[EW_CUDA_MOE_LAUNCHES], size_t *n,
                           ew_error *err);

#endif

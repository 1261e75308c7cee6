/* kernels/cuda/moe_cuda.h - Moe (op/attrs.h) as launches: route and group, gate and up, down, add.
 *
 * The grouped order is (expert, row), the sum over a row's experts runs in the router's order: a
 * result depends on its row alone. Experts lie in a layout of linear.h each, one after the other.
 * Which experts have rows is known on the device alone: grids are sized for the most that may be,
 * blocks without work leave.
 *
 * Three ways: plain experts and one row are multiplied in f32 as they are (moe_linear.cu);
 * quantised experts with about two rows each panel by panel (moe_few.cu), with more, and plain ones
 * of 16 bits with more than a row, by whole tiles (linear_mma.cu). For the last two x and what gate
 * and up make are rounded to 16 bits. */
#ifndef EW_KERNELS_CUDA_MOE_H
#define EW_KERNELS_CUDA_MOE_H

#include "base/error.h"
#include "kernels/cuda/kernel.h"
#include "tensor/quant.h"

#define EW_CUDA_MOE_LAUNCHES 5
#define EW_CUDA_MOE_FEW_ROWS 1 /* up to so many, plain experts are multiplied as they are */

struct ew_cuda_moe_weight {
    const void *at;
    uint64_t stride;               /* bytes of an expert */
    ew_dtype dtype;                /* of a plain one */
    struct ew_quant_format format; /* all zero: plain */
};

struct ew_cuda_moe {
    const float *x;                    /* [rows][h] */
    const float *logits;               /* [rows][e] */
    struct ew_cuda_moe_weight gate_up; /* [e][2*inner][h], packed with glu: gate, then up */
    struct ew_cuda_moe_weight down;    /* [e][h][inner] */
    float *y;                          /* [rows][h] */
    size_t rows, h, inner, e, k;
    int act; /* enum ew_act */
    bool norm_topk;
    void *work; /* ew_cuda_moe_work_bytes, 256-byte aligned */
};
size_t ew_cuda_moe_work_bytes(const struct ew_cuda_moe *p);
/* Places of a tile; rows of equal ones give the same bits. */
uint32_t ew_cuda_moe_tile_rows(const struct ew_cuda_moe *p);
ew_status ew_cuda_moe_plan(const struct ew_cuda_moe *p, const struct ew_cuda_chip *chip,
                           struct ew_cuda_launch out[EW_CUDA_MOE_LAUNCHES], size_t *n,
                           ew_error *err);

#endif

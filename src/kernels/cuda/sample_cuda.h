/* kernels/cuda/sample_cuda.h - logits to tokens without leaving the device.
 *
 * Greedy: ew_argmax of sample/sampler.h for every row: the lowest index of the largest value, -1
 * when a value is NaN, +inf is the largest, or none is finite.
 * Draw: temperature, top_k, top_p, min_p and the Philox draw of ew_sampler_draw, without bias,
 * penalties and log probabilities. The candidates, their order and the generator are the
 * sampler's; exp is the device's, so a draw that falls on the edge between two tokens to the last
 * bit may take the other one. -2: the row needs more candidates than the block holds (top_k above
 * EW_CUDA_SAMPLE_MAX or many ties, or top_p alone over a very flat row): the caller samples it on
 * the host. */
#ifndef EW_KERNELS_CUDA_SAMPLE_H
#define EW_KERNELS_CUDA_SAMPLE_H

#include "base/error.h"
#include "kernels/cuda/kernel.h"

#define EW_CUDA_SAMPLE_MAX 1024

struct ew_cuda_argmax {
    const float *logits; /* [rows][stride] */
    size_t rows, n, stride;
    int32_t *token;     /* [rows] */
    float *value;       /* [rows] the largest value, or NULL */
    void *work;         /* ew_cuda_argmax_work_bytes */
    uint32_t *counters; /* [rows], zero before the first launch of all, left zero */
};
size_t ew_cuda_argmax_work_bytes(size_t rows, size_t n);
ew_status ew_cuda_argmax_plan(const struct ew_cuda_argmax *p, struct ew_cuda_launch *out,
                              ew_error *err);

/* One a row, in device memory, so that a captured graph serves every request. */
struct ew_cuda_draw_params {
    double temperature, top_p, min_p; /* greedy: temperature 0 */
    uint64_t seed, position;
    uint32_t request;
    int32_t top_k; /* 0: off */
};
struct ew_cuda_draw {
    const float *logits; /* [rows][stride] */
    size_t rows, n, stride;
    const struct ew_cuda_draw_params *params; /* [rows] */
    int32_t *token;                           /* [rows] */
    void *work;                               /* ew_cuda_draw_work_bytes */
};
size_t ew_cuda_draw_work_bytes(size_t rows, size_t n);
#define EW_CUDA_DRAW_LAUNCHES 2
ew_status ew_cuda_draw_plan(const struct ew_cuda_draw *p,
                            struct ew_cuda_launch out[EW_CUDA_DRAW_LAUNCHES], ew_error *err);

#endif

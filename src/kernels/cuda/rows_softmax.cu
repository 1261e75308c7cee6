/* kernels/cuda/rows_softmax.cu - Softmax (EW_LOG 0) or LogSoftmax (1) of rows, a block a row. */
#include "reduce.cuh"
#include "rows_args.cuh"

extern "C" __global__ void __launch_bounds__(1024) ew_rows_softmax(const ew_cuda_softmax_args a)
{
    __shared__ float part[33];
    const float *const x = (const float *)a.x + (unsigned long long)blockIdx.x * a.n;
    float *const y = (float *)a.y + (unsigned long long)blockIdx.x * a.n;
    float m = -EW_INFINITY, s = 0;

    ew_grid_release();
    ew_grid_wait();
    for (unsigned i = threadIdx.x; i < a.n; i += blockDim.x)
        m = fmaxf(m, x[i]);
    m = ew_block_max(m, part);
    for (unsigned i = threadIdx.x; i < a.n; i += blockDim.x)
        s += expf(x[i] - m);
    s = ew_block_sum(s, part);
    for (unsigned i = threadIdx.x; i < a.n; i += blockDim.x)
        y[i] = EW_LOG ? x[i] - m - logf(s) : expf(x[i] - m) / s;
}

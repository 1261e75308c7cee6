// kernels/cuda/linear_reduce.cu - adds up the sums that blocks of a split product wrote,
// [splits][m][n] at args.x in the order of splits, and finishes them. args.tiles_m: splits.
#include "copy.cuh"
#include "linear_epilogue.cuh"

EW_DEV float sum_of(const ew_args &a, uint32_t m, uint32_t n)
{
    const float *at = (const float *)a.x + (size_t)m * a.n + n;
    float z = 0.0f;

    for (uint32_t i = 0; i < a.tiles_m; i++)
        z += at[(size_t)i * a.m * a.n];
    return z;
}

extern "C" __global__ void __launch_bounds__(256)
    ew_linear_reduce(const struct ew_cuda_linear_args a)
{
    const uint32_t n = blockIdx.x * 256 + threadIdx.x, m = blockIdx.y;

    ew_grid_release();
    ew_grid_wait();
    if (n >= a.n_out)
        return;
#if EW_GLU
    ew_store_glu(a, sum_of(a, m, n), sum_of(a, m, n + a.n_out), m, n);
#else
    ew_store_plain(a, sum_of(a, m, n), m, n);
#endif
}

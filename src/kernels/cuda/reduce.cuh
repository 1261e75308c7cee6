/* kernels/cuda/reduce.cuh - sums and maxima over a warp and a block, in a fixed order. */
#ifndef EW_KERNELS_CUDA_REDUCE_CUH
#define EW_KERNELS_CUDA_REDUCE_CUH

#include "copy.cuh"

#define EW_INFINITY __int_as_float(0x7f800000)
#define EW_NAN      __int_as_float(0x7fffffff)

EW_DEV float ew_warp_sum(float v)
{
#pragma unroll
    for (int o = 16; o > 0; o >>= 1)
        v += __shfl_xor_sync(0xffffffffu, v, o);
    return v;
}

/* A NaN is ignored unless all are NaN. */
EW_DEV float ew_warp_max(float v)
{
#pragma unroll
    for (int o = 16; o > 0; o >>= 1)
        v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, o));
    return v;
}

/* Sum over the block, the same in every thread. part: 33 floats of shared memory that nobody reads
 * or writes meanwhile. blockDim.x is a multiple of 32. */
EW_DEV float ew_block_sum(float v, float *part)
{
    const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32, n = blockDim.x / 32;

    v = ew_warp_sum(v);
    if (n == 1)
        return v;
    __syncthreads();
    if (lane == 0)
        part[warp] = v;
    __syncthreads();
    if (warp == 0) {
        v = ew_warp_sum(lane < n ? part[lane] : 0.0f);
        if (lane == 0)
            part[32] = v;
    }
    __syncthreads();
    return part[32];
}

EW_DEV float ew_block_max(float v, float *part)
{
    const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32, n = blockDim.x / 32;

    v = ew_warp_max(v);
    if (n == 1)
        return v;
    __syncthreads();
    if (lane == 0)
        part[warp] = v;
    __syncthreads();
    if (warp == 0) {
        v = ew_warp_max(lane < n ? part[lane] : -EW_INFINITY);
        if (lane == 0)
            part[32] = v;
    }
    __syncthreads();
    return part[32];
}

#endif

/* kernels/cuda/copy_strided.cu - elements of EW_ELEM bytes from one strided place to another. */
#include "copy.cuh"
#include "rows_args.cuh"

#if EW_ELEM == 1
typedef uint8_t elem;
#elif EW_ELEM == 2
typedef uint16_t elem;
#elif EW_ELEM == 4
typedef uint32_t elem;
#else
typedef uint64_t elem;
#endif

extern "C" __global__ void __launch_bounds__(256)
    ew_copy_strided(const __grid_constant__ ew_cuda_strided_args a)
{
    ew_grid_release();
    ew_grid_wait();
    for (uint64_t u = (uint64_t)blockIdx.x * 256 + threadIdx.x; u < a.count;
         u += (uint64_t)gridDim.x * 256) {
        int64_t to = 0, from = 0;
        uint32_t rest = (uint32_t)u;

        for (int d = (int)a.n_dims - 1; d >= 0; d--) {
            const uint32_t i = rest % a.dim[d];

            rest /= a.dim[d];
            to += i * a.dst_stride[d];
            from += i * a.src_stride[d];
        }
        ((elem *)a.dst)[to] = ((const elem *)a.src)[from];
    }
}

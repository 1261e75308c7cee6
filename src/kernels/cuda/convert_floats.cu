/* kernels/cuda/convert_floats.cu - n numbers of one float type as another. EW_SRC, EW_DST: 0 f32,
 * 1 f16, 2 bf16. */
#include "copy.cuh"
#include "rows_args.cuh"

namespace
{

EW_DEV float get(uint64_t p, uint64_t i)
{
#if EW_SRC == 0
    return ((const float *)p)[i];
#elif EW_SRC == 1
    return ew_f16_f32(((const uint16_t *)p)[i]);
#else
    return ew_bf16_f32(((const uint16_t *)p)[i]);
#endif
}

EW_DEV void put(uint64_t p, uint64_t i, float f)
{
#if EW_DST == 0
    ((float *)p)[i] = f;
#elif EW_DST == 1
    ((uint16_t *)p)[i] = ew_to_f16(f);
#else
    ((uint16_t *)p)[i] = ew_to_bf16(f);
#endif
}

} // namespace

extern "C" __global__ void __launch_bounds__(256) ew_convert_floats(const ew_cuda_convert_args a)
{
    const uint64_t step = (uint64_t)gridDim.x * 256;

    ew_grid_release();
    ew_grid_wait();
#pragma unroll 4
    for (uint64_t i = (uint64_t)blockIdx.x * 256 + threadIdx.x; i < a.n; i += step)
        put(a.dst, i, get(a.src, i));
}

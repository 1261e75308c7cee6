// kernels/cuda/linear_reduce.cu - adds up the sums that blocks of a split product wrote,
// [splits][m][n] at args.x in the order of splits, and finishes them. args.tiles_m: splits.
// EW_REDUCE 4: of one product, four columns a thread; n_out and strides are multiples of four.
#include "copy.cuh"
#include "linear_epilogue.cuh"

#if EW_REDUCE == 4
EW_DEV float4 load4(uint64_t at, size_t i)
{
    return *(const float4 *)((const float *)at + i);
}

// Four sums behind row m, column n of W.
EW_DEV float4 finish4(const ew_args &a, uint32_t m, uint32_t n)
{
    const float4 z = load4(a.x, (size_t)m * a.n + n);
    const float4 b = a.bias ? load4(a.bias, n) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);

    return make_float4(ew_finish_with(a, z.x, b.x), ew_finish_with(a, z.y, b.y),
                       ew_finish_with(a, z.z, b.z), ew_finish_with(a, z.w, b.w));
}

EW_DEV float act1(float z)
{
#    if EW_SHORT
    return ew_act_short(z);
#    else
    return ew_act(z);
#    endif
}

EW_DEV float4 times4(float4 a, float4 b)
{
    return make_float4(a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w);
}

EW_DEV void store4(const ew_args &a, float4 y, uint32_t m, uint32_t n)
{
    if (a.residual) {
        const float4 r = load4(a.residual, m * a.residual_stride + n);

        y = make_float4(y.x + r.x, y.y + r.y, y.z + r.z, y.w + r.w);
    }
#    if EW_SHORT
    *(uint2 *)((uint16_t *)a.y + m * a.y_stride + n) =
        make_uint2(ew_short2(y.x, y.y), ew_short2(y.z, y.w));
#    else
    *(float4 *)((float *)a.y + m * a.y_stride + n) = y;
#    endif
}

extern "C" __global__ void __launch_bounds__(256)
    ew_linear_reduce(const struct ew_cuda_linear_args a)
{
    const uint32_t n = (blockIdx.x * 256 + threadIdx.x) * 4, m = blockIdx.y;

    ew_grid_release();
    ew_grid_wait();
    if (n >= a.n_out)
        return;

    float4 y = finish4(a, m, n);

    y = make_float4(act1(y.x), act1(y.y), act1(y.z), act1(y.w));
#    if EW_GLU
    y = times4(y, finish4(a, m, n + a.n_out));
#    endif
    store4(a, y, m, n);
}
#else
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
#    if EW_GLU
    ew_store_glu(a, sum_of(a, m, n), sum_of(a, m, n + a.n_out), m, n);
#    else
    ew_store_plain(a, sum_of(a, m, n), m, n);
#    endif
}
#endif

/* kernels/cuda/rows_norm.cu - y = x / rms(x) * w [+ residual], a block a row. EW_VEC: numbers that
 * a thread reads at once (4 when rows and addresses allow, else 1). */
#include "reduce.cuh"
#include "rows_args.cuh"

#if EW_VEC == 4
typedef float4 vec;
#else
typedef float vec;
#endif

namespace
{

#if EW_VEC == 4
EW_DEV float square(float4 v)
{
    return v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
}

EW_DEV float4 scaled(float4 x, float inv, float4 w)
{
    return make_float4(x.x * inv * w.x, x.y * inv * w.y, x.z * inv * w.z, x.w * inv * w.w);
}

EW_DEV float4 sum(float4 a, float4 b)
{
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

EW_DEV void put_bf16(uint64_t y, unsigned long long i, float4 v)
{
    ((uint2 *)y)[i] = make_uint2(ew_bf16x2(v.x, v.y), ew_bf16x2(v.z, v.w));
}
#else
EW_DEV float square(float v)
{
    return v * v;
}

EW_DEV float scaled(float x, float inv, float w)
{
    return x * inv * w;
}

EW_DEV float sum(float a, float b)
{
    return a + b;
}

EW_DEV void put_bf16(uint64_t y, unsigned long long i, float v)
{
    ((uint16_t *)y)[i] = ew_to_bf16(v);
}
#endif

} // namespace

extern "C" __global__ void __launch_bounds__(1024) ew_rows_norm(const ew_cuda_norm_args a)
{
    __shared__ float part[33];
    const unsigned n = a.n / EW_VEC;
    const unsigned long long row = (unsigned long long)blockIdx.x * n;
    const vec *const x = (const vec *)a.x + row, *const w = (const vec *)a.w;
    float s = 0;

    ew_grid_release();
    ew_grid_wait();
    for (unsigned i = threadIdx.x; i < n; i += blockDim.x)
        s += square(x[i]);
    s = ew_block_sum(s, part);
    const float inv = 1.0f / sqrtf(s / (float)a.n + a.eps);
    for (unsigned i = threadIdx.x; i < n; i += blockDim.x) {
        vec v = scaled(x[i], inv, w[i]);

        if (a.residual)
            v = sum(v, ((const vec *)a.residual)[row + i]);
        if (a.y)
            ((vec *)a.y)[row + i] = v;
        if (a.y_bf16)
            put_bf16(a.y_bf16, row + i, v);
    }
}

// kernels/cuda/linear_prepare.cu - rows of x as bf16 (f16 with EW_F16), normalised first with
// EW_NORM, for GEMMs that read short numbers. One block a row; columns k.. up to prepared_stride
// become zeros.
#include "copy.cuh"

typedef struct ew_cuda_linear_args ew_args;

#define THREADS 256
#define STEP    (THREADS * 4) // columns at a time
#define KEPT    4             // of those, in registers

EW_DEV float4 load_x4(const float *x, uint32_t col, uint32_t k, bool vec)
{
    if (vec && col + 4 <= k)
        return *(const float4 *)(x + col);
    return make_float4(col < k ? x[col] : 0.0f, col + 1 < k ? x[col + 1] : 0.0f,
                       col + 2 < k ? x[col + 2] : 0.0f, col + 3 < k ? x[col + 3] : 0.0f);
}

EW_DEV float4 times(float4 x, float s, float4 g)
{
    return make_float4(x.x * (s * g.x), x.y * (s * g.y), x.z * (s * g.z), x.w * (s * g.w));
}

EW_DEV float squares(float4 v)
{
    return fmaf(v.x, v.x, fmaf(v.y, v.y, fmaf(v.z, v.z, v.w * v.w)));
}

EW_DEV void put(uint16_t *to, float4 v)
{
#if EW_F16
    *(uint2 *)to = make_uint2(ew_f16x2(v.x, v.y), ew_f16x2(v.z, v.w));
#else
    *(uint2 *)to = make_uint2(ew_bf16x2(v.x, v.y), ew_bf16x2(v.z, v.w));
#endif
}

#if EW_NORM
EW_DEV float block_sum(float sum)
{
    __shared__ float part[THREADS / 32];

#    pragma unroll
    for (int o = 16; o > 0; o /= 2)
        sum += __shfl_xor_sync(~0u, sum, o);
    if (threadIdx.x % 32 == 0)
        part[threadIdx.x / 32] = sum;
    __syncthreads();
    sum = 0.0f;
#    pragma unroll
    for (int i = 0; i < THREADS / 32; i++)
        sum += part[i];
    return sum;
}
#endif

extern "C" __global__ void __launch_bounds__(THREADS)
    ew_linear_prepare(const struct ew_cuda_linear_args a)
{
    const float *x = (const float *)a.x + blockIdx.x * a.x_stride;
    uint16_t *to = (uint16_t *)a.prepared + blockIdx.x * a.prepared_stride;
    const bool vec = ((a.x | (a.x_stride * 4)) & 15) == 0;
    const uint32_t c0 = threadIdx.x * 4;
    float scale = 1.0f;
    float4 kept[KEPT], g[KEPT];

    ew_grid_release();
    ew_grid_wait();
#pragma unroll
    for (int i = 0; i < KEPT; i++) {
        g[i] = make_float4(1.0f, 1.0f, 1.0f, 1.0f);
        if (EW_NORM)
            g[i] = load_x4((const float *)a.norm_weight, c0 + i * STEP, a.k, true);
    }
#pragma unroll
    for (int i = 0; i < KEPT; i++)
        kept[i] = load_x4(x, c0 + i * STEP, a.k, vec);
#if EW_NORM
    float sum = 0.0f;

#    pragma unroll
    for (int i = 0; i < KEPT; i++)
        sum += squares(kept[i]);
    for (uint32_t c = c0 + KEPT * STEP; c < a.k; c += STEP)
        sum += squares(load_x4(x, c, a.k, vec));
    scale = rsqrtf(block_sum(sum) / (float)a.k + a.norm_eps);
#endif
#pragma unroll
    for (int i = 0; i < KEPT; i++)
        if (c0 + i * STEP < a.prepared_stride)
            put(to + c0 + i * STEP, times(kept[i], scale, g[i]));
    for (uint32_t c = c0 + KEPT * STEP; c < a.prepared_stride; c += STEP) {
        float4 w = make_float4(1.0f, 1.0f, 1.0f, 1.0f);

        if (EW_NORM)
            w = load_x4((const float *)a.norm_weight, c, a.k, true);
        put(to + c, times(load_x4(x, c, a.k, vec), scale, w));
    }
}

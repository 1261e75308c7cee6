// kernels/cuda/linear_prepare.cu - rows of x as bf16 (f16 with EW_F16), normalised first with
// EW_NORM, for GEMMs that read short numbers. One block a row; columns k.. up to prepared_stride
// become zeros.
#include "copy.cuh"

typedef struct ew_cuda_linear_args ew_args;

#define THREADS 256

EW_DEV float4 load_x4(const float *x, uint32_t col, uint32_t k, bool vec)
{
    if (vec && col + 4 <= k)
        return *(const float4 *)(x + col);
    return make_float4(col < k ? x[col] : 0.0f, col + 1 < k ? x[col + 1] : 0.0f,
                       col + 2 < k ? x[col + 2] : 0.0f, col + 3 < k ? x[col + 3] : 0.0f);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    ew_linear_prepare(const struct ew_cuda_linear_args a)
{
    __shared__ float part[THREADS / 32];
    const float *x = (const float *)a.x + blockIdx.x * a.x_stride;
    uint16_t *to = (uint16_t *)a.prepared + blockIdx.x * a.prepared_stride;
    const bool vec = ((a.x | (a.x_stride * 4)) & 15) == 0;
    float scale = 1.0f;

    ew_grid_release();
    ew_grid_wait();
#if EW_NORM
    float sum = 0.0f;
    for (uint32_t c = threadIdx.x * 4; c < a.k; c += THREADS * 4) {
        const float4 v = load_x4(x, c, a.k, vec);
        sum = fmaf(v.x, v.x, sum), sum = fmaf(v.y, v.y, sum);
        sum = fmaf(v.z, v.z, sum), sum = fmaf(v.w, v.w, sum);
    }
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
    scale = rsqrtf(sum / (float)a.k + a.norm_eps);
#endif
    for (uint32_t c = threadIdx.x * 4; c < a.prepared_stride; c += THREADS * 4) {
        float4 v = load_x4(x, c, a.k, vec);
#if EW_NORM
        const float4 g = load_x4((const float *)a.norm_weight, c, a.k, true);
        v.x *= scale * g.x, v.y *= scale * g.y, v.z *= scale * g.z, v.w *= scale * g.w;
#endif
#if EW_F16
        *(uint2 *)(to + c) = make_uint2(ew_f16x2(v.x, v.y), ew_f16x2(v.z, v.w));
#else
        *(uint2 *)(to + c) = make_uint2(ew_bf16x2(v.x, v.y), ew_bf16x2(v.z, v.w));
#endif
    }
}

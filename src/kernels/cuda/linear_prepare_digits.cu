// kernels/cuda/linear_prepare_digits.cu - rows of x as integers of 16 bits, a scale for every 128
// columns, for linear_strip.cu with EW_DIGITS; normalised first with EW_NORM.
//
// x = scale * (256 d0 + d1), digits from -128 to 127; x loses at most 2^-16 of the largest of its
// 128 neighbours, and NaN or inf makes all 128 NaN. Row 8a + 2t + b of x has its digit d in row 16a
// + 8b + 2t + d of the result, where the sums of both digits end up in one lane. Within 16 bytes
// lie columns 0 8 1 9 2 10 3 11 .., which is how a panel's codes come apart (linear.h). Scales:
// f32 [columns / 128][rows, up to a multiple of 8]. Blocks: (rows up to a multiple of 8, shares of
// the columns).
#include "copy.cuh"

typedef struct ew_cuda_linear_args ew_args;

#define WARPS 16
#define KEPT  2 // groups of a warp that stay in registers from the norm on

// A lane's columns of a group.
struct four {
    float v[4];
};

EW_DEV uint32_t column(uint32_t lane, int i)
{
    return lane / 4 * 16 + lane % 4 * 2 + (i & 1) + (i & 2 ? 8 : 0);
}

EW_DEV struct four load4(const float *x, uint32_t col, uint32_t k, bool vec, uint32_t lane)
{
    struct four r;

#pragma unroll
    for (int i = 0; i < 4; i += 2) {
        const uint32_t c = col + column(lane, i);

        if (vec && c + 2 <= k) {
            const float2 v = *(const float2 *)(x + c);
            r.v[i] = v.x, r.v[i + 1] = v.y;
        } else {
            r.v[i] = c < k ? x[c] : 0.0f;
            r.v[i + 1] = c + 1 < k ? x[c + 1] : 0.0f;
        }
    }
    return r;
}

#if EW_NORM
EW_DEV float warp_sum(float v)
{
#    pragma unroll
    for (int o = 16; o > 0; o /= 2)
        v += __shfl_xor_sync(~0u, v, o);
    return v;
}

EW_DEV float block_sum(float sum)
{
    __shared__ float part[WARPS];

    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0)
        part[threadIdx.x / 32] = sum;
    __syncthreads();
    sum = 0.0f;
#    pragma unroll
    for (int i = 0; i < WARPS; i++)
        sum += part[i];
    return sum;
}
#endif

// Digits of a group and its scale.
EW_DEV void put(char *row, float *scale, const struct four &x, uint64_t stride, uint32_t lane)
{
    uint32_t top = 0, hi[4], lo[4];

#pragma unroll
    for (int i = 0; i < 4; i++) {
        const uint32_t bits = __float_as_uint(x.v[i]) & 0x7fffffffu;
        top = bits > top ? bits : top;
    }
    top = __reduce_max_sync(~0u, top);

    const float most = __uint_as_float(top);
    const bool finite = top < 0x7f800000u, some = most >= 0x1p-100f;
    const float inverse = finite && some ? 32512.0f / most : 0.0f;

#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int q = finite ? __float2int_rn(x.v[i] * inverse) : 0;
        hi[i] = (uint32_t)(q + 128) >> 8 & 0xffu;
        lo[i] = (uint32_t)q & 0xffu;
    }
    *(uint32_t *)(row + lane * 4) = hi[0] | hi[2] << 8 | hi[1] << 16 | hi[3] << 24;
    *(uint32_t *)(row + stride + lane * 4) = lo[0] | lo[2] << 8 | lo[1] << 16 | lo[3] << 24;
    if (lane == 0)
        *scale = !finite ? __uint_as_float(0x7fc00000u) : some ? most * (1.0f / 32512.0f) : 0.0f;
}

extern "C" __global__ void __launch_bounds__(WARPS * 32)
    ew_linear_prepare_digits(const struct ew_cuda_linear_args a)
{
    const uint32_t m = blockIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const uint32_t groups = (a.k + 127) / 128, step = gridDim.y * WARPS;
    const uint32_t first = blockIdx.y * WARPS + warp;
    const uint64_t stride = a.prepared_stride * 2; // bytes of a row
    char *const to = (char *)a.prepared + (m / 8 * 16 + m % 2 * 8 + m % 8 / 2 * 2) * stride;
    float *const scales = (float *)((char *)a.prepared + gridDim.x * 2 * stride) + m;
    const float *x = (const float *)a.x + (m < a.m ? m : 0) * a.x_stride;
    const bool vec = ((a.x | (a.x_stride * 4)) & 7) == 0;
    const uint32_t k = m < a.m ? a.k : 0; // rows behind the last are zeros
    struct four kept[KEPT];

    ew_grid_release();
#if EW_NORM
    struct four norms[KEPT]; // which no launch makes
#    pragma unroll
    for (int i = 0; i < KEPT; i++)
        norms[i] = load4((const float *)a.norm_weight, (first + i * step) * 128, a.k, true, lane);
#endif
    ew_grid_wait();
#pragma unroll
    for (int i = 0; i < KEPT; i++)
        kept[i] = load4(x, (first + i * step) * 128, k, vec, lane);
#if EW_NORM
    float sum = 0.0f;

#    pragma unroll
    for (int i = 0; i < KEPT; i++)
#    pragma unroll
        for (int j = 0; j < 4; j++)
            sum = fmaf(kept[i].v[j], kept[i].v[j], sum);
    for (uint32_t g = first + KEPT * step; g < groups; g += step) {
        const struct four v = load4(x, g * 128, k, vec, lane);
#    pragma unroll
        for (int j = 0; j < 4; j++)
            sum = fmaf(v.v[j], v.v[j], sum);
    }
    const float scale = rsqrtf(block_sum(sum) / (float)a.k + a.norm_eps);
#endif
#pragma unroll
    for (int i = 0; i < KEPT; i++) {
        const uint32_t g = first + i * step;

        if (g >= groups)
            break;
#if EW_NORM
#    pragma unroll
        for (int j = 0; j < 4; j++)
            kept[i].v[j] *= scale * norms[i].v[j];
#endif
        put(to + g * 128, scales + (uint64_t)g * gridDim.x, kept[i], stride, lane);
    }
    for (uint32_t g = first + KEPT * step; g < groups; g += step) {
        struct four v = load4(x, g * 128, k, vec, lane);
#if EW_NORM
        const struct four w = load4((const float *)a.norm_weight, g * 128, a.k, true, lane);
#    pragma unroll
        for (int j = 0; j < 4; j++)
            v.v[j] *= scale * w.v[j];
#endif
        put(to + g * 128, scales + (uint64_t)g * gridDim.x, v, stride, lane);
    }
}

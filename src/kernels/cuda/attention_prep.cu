/* kernels/cuda/attention_prep.cu - norm, RoPE and scale of queries into q_hi / q_lo; norm and RoPE
 * of keys, and values, into the cache.
 *
 * grid (tokens, heads / EW_WARPS), a warp a head: query heads, then keys, then values. Macros of
 * attn_cache.cuh, EW_WARPS, and EW_Q: how queries are kept (0: f32, 1: two f16, 2: two bf16). */
#include "attn_cache.cuh"

namespace
{

__device__ void put_query(const ew_cuda_attn_args &a, unsigned long long at,
                          const float x[EW_LANE_ELEMS])
{
#pragma unroll
    for (int j = 0; j < EW_LANE_ELEMS; j++) {
        const unsigned i = threadIdx.x % 32 + 32 * j;
        const float v = x[j] * a.q_scale;

        if (i >= EW_D)
            break;
#if EW_Q == 0
        ((float *)a.q_hi)[at + i] = v;
#elif EW_Q == 1
        const unsigned hi = ew_to_f16(v);
        ((unsigned short *)a.q_hi)[at + i] = (unsigned short)hi;
        if (a.q_lo)
            ((unsigned short *)a.q_lo)[at + i] = (unsigned short)ew_to_f16(v - ew_f16_f32(hi));
#else
        const unsigned hi = f32_to_bf16(v);
        ((unsigned short *)a.q_hi)[at + i] = (unsigned short)hi;
        if (a.q_lo)
            ((unsigned short *)a.q_lo)[at + i] = (unsigned short)f32_to_bf16(v - ew_bf16_f32(hi));
#endif
    }
}

/* 1 / rms over all of n elements, by the block. */
__device__ float full_inv_rms(const float *x, unsigned n, float eps, float *part)
{
    float sum = 0;

    for (unsigned i = threadIdx.x; i < n; i += blockDim.x)
        sum += x[i] * x[i];
    return 1.0f / sqrtf(ew_block_sum(sum, part) / (float)n + eps);
}

} // namespace

extern "C" __global__ void __launch_bounds__(EW_WARPS * 32)
    ew_attention_prep(const __grid_constant__ ew_cuda_attn_args a)
{
    const unsigned t = blockIdx.x, b = t / a.s, i = t % a.s;
    const unsigned hh = blockIdx.y * EW_WARPS + threadIdx.x / 32;
    const struct attn_row row = attn_row_find(a, b, i);
    float x[EW_LANE_ELEMS];
    float inv_q = 0, inv_k = 0;

    ew_grid_release();
    ew_grid_wait();
    const float *q = (const float *)a.q + t * a.q_stride;
    const float *k = (const float *)a.k + t * a.k_stride;
    const float *v = (const float *)a.v + t * a.v_stride;
#if EW_NORM == 2
    __shared__ float part[33];
    if (row.is_real) {
        inv_q = full_inv_rms(q, a.hq * EW_D, a.qk_norm_eps, part);
        inv_k = full_inv_rms(k, a.hkv * EW_D, a.qk_norm_eps, part);
    }
#endif
    if (hh >= a.hq + 2 * a.hkv)
        return;
    if (!row.is_real) {
        if (hh < a.hq) {
#pragma unroll
            for (int j = 0; j < EW_LANE_ELEMS; j++)
                x[j] = 0.0f;
            put_query(a, ((unsigned long long)t * a.hq + hh) * EW_D, x);
        }
        return;
    }
    const float *rope = attn_rope_row(a, b, row.pos);
    struct head_frame f;
    if (hh < a.hq) {
        head_frame_load(&f, (const float *)a.q_norm + (EW_NORM == 2 ? hh * EW_D : 0), rope, a.rd);
        head_load(q + hh * EW_D, &f, inv_q, a.qk_norm_eps, rope, a.rd, x);
        put_query(a, ((unsigned long long)t * a.hq + hh) * EW_D, x);
    } else if (hh < a.hq + a.hkv) {
        const unsigned h = hh - a.hq;

        head_frame_load(&f, (const float *)a.k_norm + (EW_NORM == 2 ? h * EW_D : 0), rope, a.rd);
        head_load(k + h * EW_D, &f, inv_k, a.qk_norm_eps, rope, a.rd, x);
        kv_put(kv_row(a, b, 0, h, row.slot), x, kv_head_scale(a, 0, h));
    } else {
        const unsigned h = hh - a.hq - a.hkv;

        head_copy(v + h * EW_D, x);
        kv_put(kv_row(a, b, 1, h, row.slot), x, kv_head_scale(a, 1, h));
    }
}

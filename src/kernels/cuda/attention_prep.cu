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

#if EW_NORM == 2
/* 1 / rms over all of n elements, by the block. */
__device__ float full_inv_rms(const float *x, unsigned n, float eps, float *part)
{
    float sum = 0;

    for (unsigned i = threadIdx.x; i < n; i += blockDim.x)
        sum += x[i] * x[i];
    return 1.0f / sqrtf(ew_block_sum(sum, part) / (float)n + eps);
}

#endif

/* One head of one token, x as it came. Padding: queries of zeros, nothing into the cache. */
EW_DEV void prepare(const ew_cuda_attn_args &a, unsigned t, unsigned hh, float inv,
                    float x[EW_LANE_ELEMS])
{
    const unsigned b = t / a.s;
    const struct attn_row row = attn_row_find(a, b, t % a.s);
    const bool is_q = hh < a.hq, is_v = hh >= a.hq + a.hkv;
    const unsigned h = is_q ? hh : is_v ? hh - a.hq - a.hkv : hh - a.hq;
    const unsigned long long at = ((unsigned long long)t * a.hq + hh) * EW_D;
    float y[EW_LANE_ELEMS];

    if (!row.is_real) {
#pragma unroll
        for (int j = 0; j < EW_LANE_ELEMS; j++)
            y[j] = 0.0f;
        if (is_q)
            put_query(a, at, y);
        return;
    }
    if (is_v) {
        kv_put(kv_row(a, b, 1, h, row.slot), x, kv_head_scale(a, 1, h));
        return;
    }
    const float *const rope = attn_rope_row(a, b, row.pos);
    const float *const w =
        (const float *)(is_q ? a.q_norm : a.k_norm) + (EW_NORM == 2 ? h * EW_D : 0);
    struct head_frame f;

    head_frame_load(&f, w, rope, a.rd);
    head_turn(x, attn_head_at<float>(a, t, hh), &f, inv, a.qk_norm_eps, rope, a.rd, y);
    if (is_q)
        put_query(a, at, y);
    else
        kv_put(kv_row(a, b, 0, h, row.slot), y, kv_head_scale(a, 0, h));
}

} // namespace

extern "C" __global__ void __launch_bounds__(EW_WARPS * 32)
    ew_attention_prep(const __grid_constant__ ew_cuda_attn_args a)
{
    const unsigned t = blockIdx.x, hh = blockIdx.y * EW_WARPS + threadIdx.x / 32;
    float x[EW_LANE_ELEMS], inv = 0;

    ew_grid_release();
    ew_grid_wait();
#if EW_NORM == 2
    __shared__ float part[33];
    const float inv_q =
        full_inv_rms((const float *)a.q + t * a.q_stride, a.hq * EW_D, a.qk_norm_eps, part);
    const float inv_k =
        full_inv_rms((const float *)a.k + t * a.k_stride, a.hkv * EW_D, a.qk_norm_eps, part);

    inv = hh < a.hq ? inv_q : inv_k;
#endif
    if (hh >= a.hq + 2 * a.hkv)
        return;
    head_copy(attn_head_at<float>(a, t, hh), x);
    prepare(a, t, hh, inv, x);
}

/* kernels/cuda/attention_prep_wide.cu - attention_prep.cu's work for heads of 64 or 128 that turn
 * whole or not at all, 16-bit caches and addresses that are multiples of 16: a lane has four
 * neighbours of a head, 2 * LANES is the distance to their RoPE partners, and a warp several heads
 * of its token, all of them asked for before the first is looked at. (By single numbers the loads
 * and stores themselves were what took the time: perf-log.)
 *
 * grid (tokens), block EW_WARPS warps. Macros of attn_cache.cuh (EW_NORM 0 or 1), EW_WARPS,
 * EW_ROPE (1: heads turn), EW_X (what rows are: 0 f32, 1 f16, 2 bf16). */
#include "attn_cache.cuh"

#define LANES   (EW_D / 4)   /* of a head */
#define SIDE    (32 / LANES) /* heads of a warp side by side */
#define AT_ONCE 4            /* of those, one behind the other */

namespace
{

EW_DEV float4 load4(const void *p, unsigned lane)
{
    return ((const float4 *)p)[lane];
}

#if EW_X
typedef unsigned short elem;
#else
typedef float elem;
#endif

EW_DEV float4 load_elems(const elem *p, unsigned lane)
{
#if EW_X == 0
    return load4(p, lane);
#else
    const uint2 v = ((const uint2 *)p)[lane];

#    if EW_X == 1
    return make_float4(ew_f16_lo(v.x), ew_f16_hi(v.x), ew_f16_lo(v.y), ew_f16_hi(v.y));
#    else
    return make_float4(ew_bf16_lo(v.x), ew_bf16_hi(v.x), ew_bf16_lo(v.y), ew_bf16_hi(v.y));
#    endif
#endif
}

EW_DEV void load_heads(const ew_cuda_attn_args &a, unsigned t, unsigned h0, unsigned n_heads,
                       unsigned lane, float4 x[AT_ONCE])
{
#pragma unroll
    for (int i = 0; i < AT_ONCE; i++)
        x[i] =
            load_elems(attn_head_at<elem>(a, t, min(h0 + i * EW_WARPS * SIDE, n_heads - 1)), lane);
}

EW_DEV uint2 shorten(float4 x)
{
#if EW_KV == 1
    return make_uint2(ew_f16x2(x.x, x.y), ew_f16x2(x.z, x.w));
#else
    return make_uint2(f32_to_bf16(x.x) | f32_to_bf16(x.y) << 16, f32_to_bf16(x.z) | f32_to_bf16(x.w)
                                                                                        << 16);
#endif
}

#if EW_NORM
/* Over the lanes of a head. */
EW_DEV float head_sum(float v)
{
#    pragma unroll
    for (int o = 1; o < LANES; o *= 2)
        v += __shfl_xor_sync(0xffffffffu, v, o);
    return v;
}
#endif

EW_DEV float4 times(float4 x, float s, float4 w)
{
    return make_float4(x.x * s * w.x, x.y * s * w.y, x.z * s * w.z, x.w * s * w.w);
}

EW_DEV float4 partner(float4 x)
{
    return make_float4(
        __shfl_xor_sync(0xffffffffu, x.x, LANES / 2), __shfl_xor_sync(0xffffffffu, x.y, LANES / 2),
        __shfl_xor_sync(0xffffffffu, x.z, LANES / 2), __shfl_xor_sync(0xffffffffu, x.w, LANES / 2));
}

EW_DEV float4 turn(float4 x, float4 y, float4 cos, float4 sin)
{
    return make_float4(x.x * cos.x + y.x * sin.x, x.y * cos.y + y.y * sin.y,
                       x.z * cos.z + y.z * sin.z, x.w * cos.w + y.w * sin.w);
}

} // namespace

extern "C" __global__ void __launch_bounds__(EW_WARPS * 32)
    ew_attention_prep_wide(const __grid_constant__ ew_cuda_attn_args a)
{
    const unsigned t = blockIdx.x, b = t / a.s, n_heads = a.hq + 2 * a.hkv;
    const unsigned lane = threadIdx.x % LANES, head0 = threadIdx.x / LANES;
    float4 wq = make_float4(1, 1, 1, 1), wk = wq, cos = wq, sin = make_float4(0, 0, 0, 0);
    float4 x[AT_ONCE];

    ew_grid_release();
    ew_grid_wait();
    load_heads(a, t, head0, n_heads, lane, x);
#if EW_NORM
    wq = load4((const void *)a.q_norm, lane);
    wk = load4((const void *)a.k_norm, lane);
#endif
    const struct attn_row row = attn_row_find(a, b, t % a.s);
#if EW_ROPE
    if (row.is_real) {
        const float *const rope = attn_rope_row(a, b, row.pos);
        const float s = lane < LANES / 2 ? -1.0f : 1.0f;

        cos = load4(rope, lane % (LANES / 2));
        sin = load4(rope + EW_D / 2, lane % (LANES / 2));
        sin = make_float4(s * sin.x, s * sin.y, s * sin.z, s * sin.w);
    }
#endif
    for (unsigned h0 = head0;;) {
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            const unsigned hh = h0 + i * EW_WARPS * SIDE;
            const bool is_q = hh < a.hq, is_v = hh >= a.hq + a.hkv;
            const unsigned h = is_q ? hh : is_v ? hh - a.hq - a.hkv : hh - a.hq;
            float4 y = x[i];

#if EW_NORM
            const float sum = head_sum(y.x * y.x + y.y * y.y + y.z * y.z + y.w * y.w);

            y = times(y, rsqrtf(sum / (float)EW_D + a.qk_norm_eps), is_q ? wq : wk);
#endif
#if EW_ROPE
            y = turn(y, partner(y), cos, sin);
#endif
            if (hh >= n_heads)
                continue;
            if (is_q) {
                const float s = row.is_real ? a.q_scale : 0.0f;

                y = row.is_real ? make_float4(y.x * s, y.y * s, y.z * s, y.w * s)
                                : make_float4(0, 0, 0, 0);
                ((uint2 *)((unsigned short *)a.q_hi +
                           ((unsigned long long)t * a.hq + hh) * EW_D))[lane] = shorten(y);
            } else if (row.is_real) {
                ((uint2 *)kv_row(a, b, is_v, h, row.slot))[lane] = shorten(is_v ? x[i] : y);
            }
        }
        h0 += EW_WARPS * SIDE * AT_ONCE;
        if (h0 - head0 % SIDE >= n_heads)
            break;
        load_heads(a, t, h0, n_heads, lane, x);
    }
}

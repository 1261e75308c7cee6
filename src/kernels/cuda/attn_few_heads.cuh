/* kernels/cuda/attn_few_heads.cuh - norm and RoPE of a block's queries and of the new keys that it
 * sees, for attention_few.cu: queries as hi + lo into struct few, keys and values into the ring
 * and, by one block each, into the cache. */
#ifndef EW_KERNELS_CUDA_ATTN_FEW_HEADS_CUH
#define EW_KERNELS_CUDA_ATTN_FEW_HEADS_CUH

#include "attn_few.cuh"

#if EW_WIDE
#    define LANES (EW_D / 4)           /* of a head: four neighbours a lane */
#    define SIDE  (WARPS * 32 / LANES) /* heads at once */

EW_DEV float4 times4(float4 x, float s)
{
    return make_float4(x.x * s, x.y * s, x.z * s, x.w * s);
}

EW_DEV float lanes_sum(float v)
{
#    pragma unroll
    for (int o = 1; o < LANES; o *= 2)
        v += __shfl_xor_sync(0xffffffffu, v, o);
    return v;
}

EW_DEV float4 across(float4 x)
{
    return make_float4(
        __shfl_xor_sync(0xffffffffu, x.x, LANES / 2), __shfl_xor_sync(0xffffffffu, x.y, LANES / 2),
        __shfl_xor_sync(0xffffffffu, x.z, LANES / 2), __shfl_xor_sync(0xffffffffu, x.w, LANES / 2));
}

/* Four elements of a row of the cache. */
#    if EW_KV == 0
typedef float4 stored;
#    elif EW_KV <= 2
typedef uint2 stored;
#    else
typedef unsigned stored;
#    endif

EW_DEV stored store4(float4 x, float head_scale, float *i8_scale)
{
    (void)head_scale;
    (void)i8_scale;
#    if EW_KV == 0
    return x;
#    elif EW_KV == 1
    return make_uint2(ew_f16x2(x.x, x.y), ew_f16x2(x.z, x.w));
#    elif EW_KV == 2
    return make_uint2(f32_to_bf16(x.x) | f32_to_bf16(x.y) << 16, f32_to_bf16(x.z) | f32_to_bf16(x.w)
                                                                                        << 16);
#    elif EW_KV == 3
    x = times4(x, 1.0f / head_scale);
    return f32_to_f8e4m3(x.x) | f32_to_f8e4m3(x.y) << 8 | f32_to_f8e4m3(x.z) << 16 |
           f32_to_f8e4m3(x.w) << 24;
#    else
    const float f[4] = { x.x, x.y, x.z, x.w };
    float top = 0;
    unsigned codes = 0;

#        pragma unroll
    for (int j = 0; j < 4; j++)
        top = fabsf(f[j]) < EW_INFINITY ? fmaxf(top, fabsf(f[j])) : EW_INFINITY;
#        pragma unroll
    for (int o = 1; o < LANES; o *= 2)
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, o));
    *i8_scale = top < EW_INFINITY ? top / 127.0f : EW_NAN;
#        pragma unroll
    for (int j = 0; j < 4; j++) {
        const float code = *i8_scale > 0 ? rintf(f[j] / *i8_scale) : 0.0f;

        codes |= (unsigned)((int)fminf(fmaxf(code, -127.0f), 127.0f) & 0xff) << (8 * j);
    }
    return codes;
#    endif
}

EW_DEV void put_row(unsigned char *row, unsigned lane, stored x, float i8_scale)
{
    ((stored *)row)[lane] = x;
    if (EW_KV == 4 && lane == 0)
        *(float *)(row + EW_D) = i8_scale;
}

EW_DEV void put_query4(struct few *f, unsigned r, unsigned lane, float4 x)
{
    const uint2 hi = make_uint2(pack2(x.x, x.y), pack2(x.z, x.w));

    *(uint2 *)&f->q_hi[r][lane * 4] = hi;
    *(uint2 *)&f->q_lo[r][lane * 4] =
        make_uint2(pack2_rest(x.x, x.y, hi.x), pack2_rest(x.z, x.w, hi.y));
}

/* A key or a value, coded, into the ring and, by one block, into the cache. */
EW_DEV void put_fresh(const ew_cuda_attn_args &a, const struct share &w, unsigned char *ring,
                      unsigned is_v, unsigned i, unsigned lane, stored x, float i8_scale)
{
    const stored none = {};
    const bool real = is_real(a, w, i);

    put_row(ring_row(w, ring, is_v, w.s0 + (int)i), lane, real ? x : none, real ? i8_scale : 0.0f);
    if (real && stores(w, i))
        put_row(cache_row(w, is_v, w.s0 + (int)i), lane, x, i8_scale);
}

/* Heads of a block: its queries, then new keys. A warp asks for several at once, and for what turns
 * them before the launch before has made them. */
struct heads {
    const float *q, *k, *v, *rope; /* of the batch row and kv head */
    unsigned from, n_new, n;
    float4 wq, wk;
    float4 x[EW_HEADS], cos[EW_HEADS], sin[EW_HEADS];
};

EW_DEV void heads_find(const ew_cuda_attn_args &a, const struct share &w, struct heads *s)
{
    const unsigned long long t = w.b * a.s;

    s->q = (const float *)a.q + t * a.q_stride + w.h * EW_G * EW_D;
    s->k = (const float *)a.k + t * a.k_stride + w.h * EW_D;
    s->v = (const float *)a.v + t * a.v_stride + w.h * EW_D;
    s->rope = (const float *)a.rope + w.b * a.rope_batch_stride;
    s->n_new = new_tokens(w, &s->from);
    s->n = w.n_rows + s->n_new;
}

/* Which of the heads `at` is, in a token of its own. */
EW_DEV unsigned head_token(const struct share &w, const struct heads &s, unsigned at)
{
    return at < w.n_rows ? (w.r0 + at) / EW_G : s.from + at - w.n_rows;
}

/* For all lanes of a warp: at0 of its first head decides. */
#    define WARP_HAS(at, n) ((at)-threadIdx.x % 32 / LANES < (n))

EW_DEV void ask_frames(const ew_cuda_attn_args &a, const struct share &w, unsigned at0,
                       unsigned lane, struct heads *s)
{
#    if EW_ROPE
#        pragma unroll
    for (int i = 0; i < EW_HEADS; i++) {
        const unsigned at = at0 + i * SIDE;

        if (!WARP_HAS(at, s->n))
            break;
        const unsigned pos = (unsigned)token_pos(a, w, head_token(w, *s, min(at, s->n - 1)));
        const float4 *const rope =
            (const float4 *)(s->rope + min(pos, a.rope_rows - 1) * EW_D) + lane % (LANES / 2);

        s->cos[i] = rope[0];
        s->sin[i] = rope[LANES / 2];
    }
#    endif
}

EW_DEV void ask_heads(const ew_cuda_attn_args &a, const struct share &w, unsigned at0,
                      unsigned lane, struct heads *s)
{
#    pragma unroll
    for (int i = 0; i < EW_HEADS; i++) {
        const unsigned at = at0 + i * SIDE;

        if (!WARP_HAS(at, s->n))
            break;
        const unsigned t = head_token(w, *s, min(at, s->n - 1));
        const float *const x = at < w.n_rows
                                   ? s->q + t * (unsigned)a.q_stride + (w.r0 + at) % EW_G * EW_D
                                   : s->k + t * (unsigned)a.k_stride;

        s->x[i] = ((const float4 *)x)[lane];
    }
}

EW_DEV void turn_heads(const ew_cuda_attn_args &a, const struct share &w, unsigned at0,
                       unsigned lane, const struct heads &s, struct few *f, unsigned char *ring)
{
#    pragma unroll
    for (int i = 0; i < EW_HEADS; i++) {
        const unsigned at = at0 + i * SIDE;
        const bool is_q = at < w.n_rows;
        float4 y = s.x[i];
        float scale = 0;

        if (!WARP_HAS(at, s.n))
            break;
#    if EW_NORM
        const float4 wt = is_q ? s.wq : s.wk;
        const float inv = rsqrtf(
            lanes_sum(y.x * y.x + y.y * y.y + y.z * y.z + y.w * y.w) / (float)EW_D + a.qk_norm_eps);

        y = make_float4(y.x * inv * wt.x, y.y * inv * wt.y, y.z * inv * wt.z, y.w * inv * wt.w);
#    endif
#    if EW_ROPE
        const float4 o = times4(across(y), lane < LANES / 2 ? -1.0f : 1.0f);
        const float4 c = s.cos[i], d = s.sin[i];

        y = make_float4(y.x * c.x + o.x * d.x, y.y * c.y + o.y * d.y, y.z * c.z + o.z * d.z,
                        y.w * c.w + o.w * d.w);
#    endif
        if (is_q)
            put_query4(f, at, lane, times4(y, a.q_scale));
        if (LANES == 32 && is_q)
            continue;
        const stored k = store4(y, kv_head_scale(a, 0, w.h), &scale);

        if (!is_q && at < s.n)
            put_fresh(a, w, ring, 0, s.from + at - w.n_rows, lane, k, scale);
    }
}

EW_DEV void ask_values(const ew_cuda_attn_args &a, unsigned at0, unsigned lane,
                       const struct heads &s, float4 x[EW_VALUES])
{
#    pragma unroll
    for (int i = 0; i < EW_VALUES; i++) {
        const unsigned at = at0 + i * SIDE;

        if (!WARP_HAS(at, s.n_new))
            break;
        x[i] =
            ((const float4 *)(s.v + (s.from + min(at, s.n_new - 1)) * (unsigned)a.v_stride))[lane];
    }
}

EW_DEV void put_values(const ew_cuda_attn_args &a, const struct share &w, unsigned at0,
                       unsigned lane, const struct heads &s, const float4 x[EW_VALUES],
                       unsigned char *ring)
{
#    pragma unroll
    for (int i = 0; i < EW_VALUES; i++) {
        const unsigned at = at0 + i * SIDE;
        float scale = 0;

        if (!WARP_HAS(at, s.n_new))
            break;
        const stored v = store4(x[i], kv_head_scale(a, 1, w.h), &scale);

        if (at < s.n_new)
            put_fresh(a, w, ring, 1, s.from + at, lane, v, scale);
    }
}

/* Constants are asked for before what the launch before makes is there. */
EW_DEV void prepare(const ew_cuda_attn_args &a, const struct share &w, struct few *f,
                    unsigned char *ring)
{
    const unsigned lane = threadIdx.x % LANES, at0 = threadIdx.x / LANES;
    float4 v[EW_VALUES];
    struct heads s;

    heads_find(a, w, &s);
#    if EW_NORM
    s.wq = ((const float4 *)a.q_norm)[lane];
    s.wk = ((const float4 *)a.k_norm)[lane];
#    endif
#    pragma unroll 1
    for (unsigned i = 0; i * SIDE < s.n; i += EW_HEADS) {
        const unsigned at = at0 + i * SIDE;

        ask_frames(a, w, at, lane, &s);
        if (i == 0) {
            ew_grid_wait();
            ask_values(a, at0, lane, s, v);
        }
        ask_heads(a, w, at, lane, &s);
        turn_heads(a, w, at, lane, s, f, ring);
    }
#    pragma unroll 1
    for (unsigned i = 0; i * SIDE < s.n_new; i += EW_VALUES) {
        const unsigned at = at0 + i * SIDE;

        if (i > 0)
            ask_values(a, at, lane, s, v);
        put_values(a, w, at, lane, s, v, ring);
    }
}
#else
EW_DEV void put_query(struct few *f, unsigned r, const float x[EW_LANE_ELEMS], float scale)
{
#    pragma unroll
    for (int j = 0; j < EW_LANE_ELEMS; j++) {
        const unsigned i = threadIdx.x % 32 + 32 * j, hi = pack2(x[j] * scale, 0.0f);

        if (i >= EW_D)
            break;
        f->q_hi[r][i] = (unsigned short)hi;
        f->q_lo[r][i] = (unsigned short)pack2_rest(x[j] * scale, 0.0f, hi);
    }
}

/* Any head size, any part of it turning: a warp a head. */
EW_DEV void prepare(const ew_cuda_attn_args &a, const struct share &w, struct few *f,
                    unsigned char *ring)
{
    unsigned from;
    const unsigned n_new = new_tokens(w, &from);

    ew_grid_wait();
    for (unsigned at = threadIdx.x / 32; at < w.n_rows + 2 * n_new; at += WARPS) {
        const bool is_q = at < w.n_rows, is_v = at >= w.n_rows + n_new;
        const unsigned i = is_q ? (w.r0 + at) / EW_G : from + (at - w.n_rows) % max(n_new, 1u);
        const unsigned head =
            is_q ? w.h * EW_G + (w.r0 + at) % EW_G : a.hq + (is_v ? a.hkv : 0u) + w.h;
        const float *const x = attn_head_at<float>(a, w.b * a.s + i, head);
        float y[EW_LANE_ELEMS];

        if (is_v) {
            head_copy(x, y);
        } else {
            const float *const rope = attn_rope_row(a, w.b, max(token_pos(a, w, i), 0));
            struct head_frame fr;

            head_frame_load(&fr, (const float *)(is_q ? a.q_norm : a.k_norm), rope, a.rd);
            head_load(x, &fr, 0.0f, a.qk_norm_eps, rope, a.rd, y);
        }
        if (is_q) {
            put_query(f, at, y, a.q_scale);
            continue;
        }
        const bool real = is_real(a, w, i);

#    pragma unroll
        for (int j = 0; j < EW_LANE_ELEMS && !real; j++)
            y[j] = 0.0f;
        kv_put(ring_row(w, ring, is_v, w.s0 + (int)i), y, kv_head_scale(a, is_v, w.h));
        if (real && stores(w, i))
            kv_put(cache_row(w, is_v, w.s0 + (int)i), y, kv_head_scale(a, is_v, w.h));
    }
}
#endif

#endif

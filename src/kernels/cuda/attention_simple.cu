/* kernels/cuda/attention_simple.cu - attention for head sizes that tensor cores cannot take: a warp
 * a (token, query head), f32, plain. Clear, not fast.
 *
 * grid (tokens, hq / 4), block 128. Macros of attn_cache.cuh; queries are f32 in q_hi, scaled. */
#include "attn_cache.cuh"

extern "C" __global__ void __launch_bounds__(128)
    ew_attention_simple(const __grid_constant__ ew_cuda_attn_args a)
{
    __shared__ float q_all[4][EW_D];
    const unsigned t = blockIdx.x, b = t / a.s, i = t % a.s, lane = threadIdx.x % 32;
    const unsigned h = blockIdx.y * 4 + threadIdx.x / 32, hk = h / (a.hq / a.hkv);
    float *const qs = q_all[threadIdx.x / 32];
    float o[EW_LANE_ELEMS], m = -EW_INFINITY, l = 0;

    ew_grid_release();
    ew_grid_wait();
    if (h >= a.hq)
        return;
    const struct attn_row row = attn_row_find(a, b, i);
    const unsigned end = row.is_real ? attn_row_end(a, row) : 0;
    const float k_scale = kv_head_scale(a, 0, hk), v_scale = kv_head_scale(a, 1, hk);

    for (unsigned j = lane; j < EW_D; j += 32)
        qs[j] = ((const float *)a.q_hi)[((unsigned long long)t * a.hq + h) * EW_D + j];
    __syncwarp();
#pragma unroll
    for (int j = 0; j < EW_LANE_ELEMS; j++)
        o[j] = 0.0f;
    for (unsigned p0 = 0; p0 < end; p0 += 32) {
        const unsigned p = p0 + lane;
        const bool sees = p < end && attn_row_sees(a, row, b, i, p);
        float s = -EW_INFINITY, w = 0;

        if (!__any_sync(0xffffffffu, sees))
            continue;
        if (sees) {
            const unsigned char *k = kv_row(a, b, 0, hk, p);

            s = 0;
            for (unsigned j = 0; j < EW_D; j++)
                s += qs[j] * kv_get(k, j);
            s *= EW_KV == 4 ? i8_row_scale(k) : k_scale;
            if (a.softcap != 0.0f)
                s = a.softcap * tanhf(s / a.softcap);
        }
        const float m_new = fmaxf(m, ew_warp_max(s));
        const float keep = m == m_new ? 1.0f : expf(m - m_new);
        if (sees)
            w = expf(s - m_new);
        l = l * keep + ew_warp_sum(w);
        m = m_new;
        if (sees && EW_KV == 4)
            w *= i8_row_scale(kv_row(a, b, 1, hk, p));
#pragma unroll
        for (int j = 0; j < EW_LANE_ELEMS; j++)
            o[j] *= keep;
        const unsigned who = __ballot_sync(0xffffffffu, sees);
        for (unsigned u = 0; u < 32; u++) {
            const float wu = __shfl_sync(0xffffffffu, w, u);

            if (!(who >> u & 1u))
                continue;
            const unsigned char *v = kv_row(a, b, 1, hk, p0 + u);
#pragma unroll
            for (int j = 0; j < EW_LANE_ELEMS; j++)
                if (lane + 32 * j < EW_D)
                    o[j] += wu * kv_get(v, lane + 32 * j);
        }
    }
#pragma unroll
    for (int j = 0; j < EW_LANE_ELEMS; j++) {
        const unsigned d = lane + 32 * j;
        const float y = m == -EW_INFINITY && l == 0.0f ? 0.0f : o[j] * v_scale / l;

        if (d >= EW_D)
            break;
        if (a.out)
            ((float *)a.out)[t * a.out_stride + h * EW_D + d] = y;
        if (a.out_bf16)
            ((unsigned short *)a.out_bf16)[((unsigned long long)t * a.hq + h) * EW_D + d] =
                (unsigned short)f32_to_bf16(y);
    }
}

/* kernels/cuda/attn_flash.cuh - what the flash attention kernels share: which rows a lane has and
 * what they see, the mask, the running softmax, the way out.
 *
 * Row r of a kv head is query head r % EW_G of its group, token r / EW_G. A lane 4 g + t of a warp
 * has rows g and g + 8 of 16, and of every 8 columns 2 t and 2 t + 1. The including file says TILE
 * (slots) and N_TILES (D / 8). Macros beside attn_cache.cuh's: EW_G query heads of a kv head,
 * EW_CAP (1: there is a softcap), EW_TREE (1: TREE, 0: PREFILL and CHUNKED). */
#ifndef EW_KERNELS_CUDA_ATTN_FLASH_CUH
#define EW_KERNELS_CUDA_ATTN_FLASH_CUH

#include "attn_tile.cuh"

struct rows { /* the two rows of a lane: g and g + 8 of its warp's 16 */
    unsigned i[2];
    struct attn_row row[2];
    unsigned lo[2], hi[2]; /* slots it may see; nothing when lo >= hi */
};

EW_DEV void rows_find(const ew_cuda_attn_args &a, unsigned b, unsigned r0, struct rows *v)
{
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const unsigned at = r0 + (threadIdx.x % 32 >> 2) + 8 * r;

        v->i[r] = min(at, a.s * EW_G - 1) / EW_G;
        v->row[r] = attn_row_find(a, b, v->i[r]);
        v->lo[r] = v->hi[r] = 0;
        if (at >= a.s * EW_G || !v->row[r].is_real)
            continue;
        v->hi[r] = attn_row_end(a, v->row[r]);
        if (!EW_TREE && a.window > 0 && a.window < v->hi[r])
            v->lo[r] = v->hi[r] - (unsigned)a.window;
    }
}

/* Slots [*begin, *end) that any of the rows [r0, r0 + n) sees: rows are in order of their slots.
 * begin is a multiple of TILE; nothing: end 0. */
EW_DEV void range_of_rows(const ew_cuda_attn_args &a, unsigned b, unsigned r0, unsigned n,
                          unsigned *begin, unsigned *end)
{
    const long long c = ((const int *)a.context_lengths)[b];
    const long long s0 = a.start_index ? ((const int *)a.start_index)[b] : 0;
    const long long real = EW_TREE ? c - s0 : c;
    const long long first = r0 / EW_G, last = min((r0 + n - 1) / EW_G, a.s - 1);

    *begin = *end = 0;
    if (s0 < 0 || first >= real || first >= a.s)
        return;
    *end = (unsigned)min(s0 + (EW_TREE ? min(real, (long long)a.s) : min(last + 1, real)),
                         (long long)a.cap);
    if (!EW_TREE && a.window > 0 && s0 + first + 1 > a.window)
        *begin = (unsigned)(s0 + first + 1 - a.window) / TILE * TILE;
}

EW_DEV const unsigned short *query_at(const ew_cuda_attn_args &a, unsigned long long plane,
                                      unsigned b, unsigned h, unsigned r)
{
    return (const unsigned short *)plane +
           ((unsigned long long)(b * a.s + r / EW_G) * a.hq + h * EW_G + r % EW_G) * EW_D;
}

struct state {
    float o[N_TILES][4];
    float m[2], l[2];
};

/* Scales, softcap and mask. */
EW_DEV void shape_scores(const ew_cuda_attn_args &a, const struct rows *v, unsigned b,
                         const unsigned char *k, unsigned slot, float k_scale, bool is_whole,
                         float s[TILE / 8][4])
{
    const unsigned t = threadIdx.x & 3u;

    unsigned bits[2] = { ~0u, ~0u };

#pragma unroll
    for (int n = 0; n < TILE / 8; n++) {
#if EW_TREE
        if (!is_whole && n % 4 == 0)
#    pragma unroll
            for (int r = 0; r < 2; r++)
                bits[r] = v->hi[r] ? tree_row_sees(a, v->row[r], b, v->i[r], slot + n * 8) : 0;
#endif
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const unsigned col = n * 8 + t * 2 + (e & 1), at = slot + col;
            const int r = e >> 1;

            s[n][e] = shape_score(a, s[n][e], k + col * EW_TILE_STRIDE, k_scale);
            if (!is_whole &&
                !(EW_TREE ? (bits[r] >> col % 32 & 1u) != 0 : at >= v->lo[r] && at < v->hi[r]))
                s[n][e] = -EW_INFINITY;
        }
    }
}

/* Whether every row of the block that counts sees every slot of the tile: whole_lo and whole_hi are
 * the bounds over a warp's rows; a tree's rows see all that is before it. */
EW_DEV bool tile_is_whole(const ew_cuda_attn_args &a, unsigned prefix, unsigned slot,
                          unsigned whole_lo, unsigned whole_hi)
{
    if (EW_TREE)
        return a.window <= 0 && slot + TILE <= prefix;
    return slot >= whole_lo && slot + TILE <= whole_hi;
}

/* Running softmax: s becomes probabilities; what was summed so far is to be multiplied with keep.
 */
EW_DEV void soften(float s[TILE / 8][4], struct state *st, float keep[2])
{
    float top[2] = { -EW_INFINITY, -EW_INFINITY };

#pragma unroll
    for (int n = 0; n < TILE / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            top[e >> 1] = fmaxf(top[e >> 1], s[n][e]);
#pragma unroll
    for (int r = 0; r < 2; r++) {
        top[r] = fmaxf(top[r], __shfl_xor_sync(0xffffffffu, top[r], 1));
        top[r] = fmaxf(top[r], __shfl_xor_sync(0xffffffffu, top[r], 2));
        const float m_new = fmaxf(st->m[r], top[r]);

        keep[r] = st->m[r] == m_new ? 1.0f : exp2_fast(st->m[r] - m_new);
        st->m[r] = m_new;
        st->l[r] *= keep[r];
        top[r] = m_new == -EW_INFINITY ? 0.0f : m_new;
    }
#pragma unroll
    for (int n = 0; n < TILE / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            s[n][e] = exp2_fast(s[n][e] - top[e >> 1]);
            st->l[e >> 1] += s[n][e];
        }
}

EW_DEV void rescale(struct state *st, const float keep[2])
{
#pragma unroll
    for (int j = 0; j < N_TILES; j++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            st->o[j][e] *= keep[e >> 1];
}

/* The two rows of every lane. Rows that see nothing are zeros. */
EW_DEV void put_out(const ew_cuda_attn_args &a, const struct rows *v, unsigned b, unsigned h,
                    unsigned r0, struct state *st)
{
    const unsigned lane = threadIdx.x % 32, t = lane & 3u;
    const float v_scale = kv_head_scale(a, 1, h);
    const bool by_two = (a.out | a.out_stride * 4) % 8 == 0;

#pragma unroll
    for (int r = 0; r < 2; r++) {
        const unsigned at = r0 + (lane >> 2) + 8 * r;

        st->l[r] += __shfl_xor_sync(0xffffffffu, st->l[r], 1);
        st->l[r] += __shfl_xor_sync(0xffffffffu, st->l[r], 2);
        if (at >= a.s * EW_G)
            continue;
        const unsigned tok = b * a.s + at / EW_G, head = h * EW_G + at % EW_G;
        const bool is_none = v->hi[r] == 0 || st->l[r] == 0.0f;
        const float inv = is_none ? 0.0f : v_scale / st->l[r];
        float *const y = (float *)a.out + tok * a.out_stride + head * EW_D + t * 2;
        unsigned *const z = (unsigned *)((unsigned short *)a.out_bf16 +
                                         ((unsigned long long)tok * a.hq + head) * EW_D + t * 2);
#pragma unroll
        for (int j = 0; j < N_TILES; j++) {
            const float2 u = is_none
                                 ? make_float2(0, 0)
                                 : make_float2(st->o[j][2 * r] * inv, st->o[j][2 * r + 1] * inv);

            if (a.out && by_two) {
                *(float2 *)(y + j * 8) = u;
            } else if (a.out) {
                y[j * 8] = u.x;
                y[j * 8 + 1] = u.y;
            }
            if (a.out_bf16)
                z[j * 4] = ew_bf16x2(u.x, u.y);
        }
    }
}

#endif

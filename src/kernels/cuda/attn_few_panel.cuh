/* kernels/cuda/attn_few_panel.cuh - scores, probabilities and sums of a panel of the cache, by all
 * warps of a block of attention_few.cu. */
#ifndef EW_KERNELS_CUDA_ATTN_FEW_PANEL_CUH
#define EW_KERNELS_CUDA_ATTN_FEW_PANEL_CUH

#include "attn_few.cuh"

struct seen {              /* by the two rows of a lane */
    unsigned lo[2], hi[2]; /* slots; nothing when hi is 0 */
#if EW_TREE
    unsigned long long tree[2]; /* rows of the tree, a bit each */
    unsigned i[2];
#endif
};

#if EW_TREE
/* The mask's words of a row: 64 tokens at most. */
EW_DEV unsigned long long tree_bits(const ew_cuda_attn_args &a, const struct share &w, unsigned i)
{
    const unsigned *const mask =
        (const unsigned *)a.mask + ((unsigned long long)w.b * a.s + i) * a.mask_words;
    unsigned long long bits = a.mask_words > 0 ? mask[0] : 0;

    if (a.mask_words > 1)
        bits |= (unsigned long long)mask[1] << 32;
    return w.n_real < 64 ? bits & ((1ull << w.n_real) - 1) : bits;
}
#endif

EW_DEV void seen_find(const ew_cuda_attn_args &a, const struct share &w, struct seen *v)
{
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const unsigned row = w.r0 + (threadIdx.x % 32 >> 2) + 8 * r;
        const unsigned i = min(row / EW_G, a.s - 1);

        v->hi[r] = v->lo[r] = 0;
        if (row < a.s * EW_G && is_real(a, w, i))
            v->hi[r] = EW_TREE ? (unsigned)w.end : (unsigned)w.s0 + i + 1;
        if (!EW_TREE && a.window > 0 && a.window < v->hi[r])
            v->lo[r] = v->hi[r] - (unsigned)a.window;
#if EW_TREE
        v->i[r] = i;
        v->tree[r] = tree_bits(a, w, i);
#endif
    }
}

/* Which of the slots [slot, slot + 16) a row sees, a bit each. */
EW_DEV unsigned row_bits(const ew_cuda_attn_args &a, const struct share &w, const struct seen &v,
                         int r, unsigned slot)
{
#if EW_TREE
    const int j = (int)slot - w.s0; /* first row of the tree there */

    if (v.hi[r] == 0)
        return 0;
    if (a.window > 0)
        return tree_row_sees(a, attn_row_find(a, w.b, v.i[r]), w.b, v.i[r], slot);
    if (j >= 0)
        return (unsigned)(v.tree[r] >> j);
    return j <= -16 ? 0xffffu : (unsigned)(v.tree[r] << -j) | ((1u << -j) - 1);
#else
    unsigned bits = v.hi[r] >= slot + 16 ? 0xffffu
                    : v.hi[r] > slot     ? (1u << (v.hi[r] - slot)) - 1
                                         : 0;

    if (v.lo[r] > slot)
        bits &= v.lo[r] < slot + 16 ? ~0u << (v.lo[r] - slot) : 0;
    return bits;
#endif
}

EW_DEV unsigned s_tile(int j)
{
    return threadIdx.x / 32 + j * S_WARPS;
}

/* q k^T of one tile of slots: element e of s[n] is slot 8 n + 2 t + e % 2, row g + 8 (e / 2). */
EW_DEV void multiply_keys(const struct few *f, const unsigned char *keys, float s[2][4])
{
    constexpr int AT_ONCE = 4; /* steps whose operands are asked for together */
    const unsigned lane = threadIdx.x % 32;
    const unsigned q = ew_shared(&f->q_hi[lane & 15u][lane >> 4 << 3]);
    float rest[2][4] = {}; /* a sum of its own: half as long a chain */

#pragma unroll
    for (int k0 = 0; k0 < K_STEPS; k0 += AT_ONCE) {
        unsigned bk[AT_ONCE][EW_PLANES][4], hi[AT_ONCE][4], lo[AT_ONCE][4];

#pragma unroll
        for (int i = 0; i < AT_ONCE && k0 + i < K_STEPS; i++) {
            key_frag(bk[i], keys, 0, (k0 + i) * 16);
            ew_ldmatrix4(hi[i], q + (k0 + i) * 32);
            ew_ldmatrix4(lo[i], q + (k0 + i) * 32 + (unsigned)sizeof(f->q_hi));
        }
#pragma unroll
        for (int i = 0; i < AT_ONCE && k0 + i < K_STEPS; i++)
#pragma unroll
            for (int n = 0; n < 2; n++) {
                const unsigned(*const b)[4] = bk[i];

                mma(s[n], hi[i], b[0][2 * n], b[0][2 * n + 1]);
                mma(rest[n], lo[i], b[0][2 * n], b[0][2 * n + 1]);
                if (EW_PLANES == 2)
                    mma(rest[n], hi[i], b[EW_PLANES - 1][2 * n], b[EW_PLANES - 1][2 * n + 1]);
            }
    }
#pragma unroll
    for (int n = 0; n < 2; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            s[n][e] += rest[n][e];
}

/* Scales, softcap and mask; the maxima of the tile to where all find them. */
EW_DEV void shape_tile(const ew_cuda_attn_args &a, const struct share &w, const struct seen &v,
                       const unsigned char *keys, unsigned slot, float k_scale, unsigned tile,
                       struct few *f, float s[2][4])
{
    const unsigned lane = threadIdx.x % 32, t = lane & 3u;
    float top[2] = { -EW_INFINITY, -EW_INFINITY };
    const unsigned bits[2] = { row_bits(a, w, v, 0, slot), row_bits(a, w, v, 1, slot) };

#pragma unroll
    for (int n = 0; n < 2; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const unsigned col = n * 8 + t * 2 + (e & 1);

            s[n][e] = shape_score(a, s[n][e], keys + col * STRIDE, k_scale);
            if (bits[e >> 1] >> col & 1u)
                top[e >> 1] = fmaxf(top[e >> 1], s[n][e]);
            else
                s[n][e] = -EW_INFINITY;
        }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        top[r] = fmaxf(top[r], __shfl_xor_sync(0xffffffffu, top[r], 1));
        top[r] = fmaxf(top[r], __shfl_xor_sync(0xffffffffu, top[r], 2));
        if (t == 0)
            f->top[tile][(lane >> 2) + 8 * r] = top[r];
    }
}

/* Probabilities of a tile, and their sums, to where all find them; m: maxima of the two rows. */
EW_DEV void put_probabilities(const unsigned char *values, unsigned tile, const float m[2],
                              struct few *f, const float s[2][4])
{
    const unsigned lane = threadIdx.x % 32, g = lane >> 2, t = lane & 3u;

#pragma unroll
    for (int r = 0; r < 2; r++) {
        const float top = m[r] == -EW_INFINITY ? 0.0f : m[r];
        const unsigned at = g + 8 * r;
        float sum = 0;

#pragma unroll
        for (int n = 0; n < 2; n++) {
            float x = exp2_fast(s[n][2 * r] - top), y = exp2_fast(s[n][2 * r + 1] - top);
            const unsigned col = n * 8 + t * 2;

            sum += x + y;
#if EW_KV == 4
            x = x == 0.0f ? 0.0f : x * i8_row_scale(values + col * STRIDE);
            y = y == 0.0f ? 0.0f : y * i8_row_scale(values + (col + 1) * STRIDE);
#endif
            const unsigned hi = pack2(x, y);

            *(unsigned *)&f->p_hi[at][tile * 16 + col] = hi;
            *(unsigned *)&f->p_lo[at][tile * 16 + col] = pack2_rest(x, y, hi);
        }
        sum += __shfl_xor_sync(0xffffffffu, sum, 1);
        sum += __shfl_xor_sync(0xffffffffu, sum, 2);
        if (t == 0)
            f->sum[tile][at] = sum;
    }
}

struct sums { /* of a warp: its columns */
    float o[V_TILES][2][4];
    float l[2];
};

EW_DEV unsigned v_column(int j)
{
    return threadIdx.x / 32 + j * V_WARPS;
}

/* The column, or another one for a warp that has none. */
EW_DEV unsigned v_column_at(int j)
{
    return min(v_column(j), COLUMNS - 1u);
}

EW_DEV float weight(float m, float top)
{
    return m == top ? 1.0f : exp2_fast(m - top);
}

/* Of the tiles of a panel, the lanes of a row together. */
EW_DEV float tiles_max(const float x[TILES][ROWS], int tile0, unsigned row, float m)
{
    const int t = threadIdx.x % 4;

#pragma unroll
    for (int i = 0; i < TILES; i += 4)
        if (i + t >= tile0 && i + t < TILES)
            m = fmaxf(m, x[i + t][row]);
    m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, 1));
    return fmaxf(m, __shfl_xor_sync(0xffffffffu, m, 2));
}

EW_DEV float tiles_sum(const float x[TILES][ROWS], int tile0, unsigned row)
{
    const int t = threadIdx.x % 4;
    float sum = 0;

#pragma unroll
    for (int i = 0; i < TILES; i += 4)
        if (i + t >= tile0 && i + t < TILES)
            sum += x[i + t][row];
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    return sum + __shfl_xor_sync(0xffffffffu, sum, 2);
}

/* What was summed so far, to the maxima of this panel; the panel's probabilities to l. */
EW_DEV void keep_up(const struct few *f, unsigned turn, int tile0, struct sums *st)
{
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const unsigned at = (threadIdx.x % 32 >> 2) + 8 * r;
        const float keep = weight(f->m[turn][at], f->m[turn ^ 1u][at]);

        st->l[r] = st->l[r] * keep + tiles_sum(f->sum, tile0, at);
#pragma unroll
        for (int c = 0; c < V_TILES; c++)
#pragma unroll
            for (int n = 0; n < 2; n++) {
                st->o[c][n][2 * r] *= keep;
                st->o[c][n][2 * r + 1] *= keep;
            }
    }
}

/* o += p v of a panel. */
EW_DEV void add_values(const struct few *f, const unsigned char *values, int tile0, struct sums *st)
{
    constexpr int AT_ONCE = V_TILES == 1 ? 4 : 2;
    const unsigned lane = threadIdx.x % 32;
    const unsigned p = ew_shared(&f->p_hi[lane & 15u][lane >> 4 << 3]);
    float rest[V_TILES][2][4] = {};

#pragma unroll 1
    for (int k0 = tile0; k0 < TILES; k0 += AT_ONCE) {
        unsigned bv[AT_ONCE][V_TILES][EW_PLANES][4], hi[AT_ONCE][4], lo[AT_ONCE][4];

#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            const int ks = k0 + i;

            if (ks >= TILES)
                break;
#pragma unroll
            for (int c = 0; c < V_TILES; c++)
                value_frag(bv[i][c], values, ks * 16, v_column_at(c) * 16);
            ew_ldmatrix4(hi[i], p + ks * 32);
            ew_ldmatrix4(lo[i], p + ks * 32 + (unsigned)sizeof(f->p_hi));
        }
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            if (k0 + i >= TILES)
                break;
#pragma unroll
            for (int c = 0; c < V_TILES; c++)
#pragma unroll
                for (int n = 0; n < 2; n++) {
                    const unsigned(*const b)[4] = bv[i][c];

                    mma(st->o[c][n], hi[i], b[0][2 * n], b[0][2 * n + 1]);
                    mma(rest[c][n], lo[i], b[0][2 * n], b[0][2 * n + 1]);
                    if (EW_PLANES == 2)
                        mma(rest[c][n], hi[i], b[EW_PLANES - 1][2 * n],
                            b[EW_PLANES - 1][2 * n + 1]);
                }
        }
    }
#pragma unroll
    for (int c = 0; c < V_TILES; c++)
#pragma unroll
        for (int n = 0; n < 2; n++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                st->o[c][n][e] += rest[c][n][e];
}

/* A panel that has arrived, of slots from slot0 on; `turn` says which of the maxima are old. */
EW_DEV void run_panel(const ew_cuda_attn_args &a, const struct share &w, const struct seen &v,
                      const unsigned char *keys, int slot0, unsigned turn, float k_scale,
                      struct few *f, struct sums *st)
{
    const unsigned char *const values = keys + PLANE;
    const int tile0 = max(w.begin - slot0, 0) / 16;
    float s[S_TILES][2][4] = {}, m[2];

#pragma unroll
    for (int i = 0; i < S_TILES; i++) {
        const unsigned tile = s_tile(i);

        if ((int)tile < tile0 || tile >= TILES)
            continue;
        multiply_keys(f, keys + tile * 16 * STRIDE, s[i]);
        shape_tile(a, w, v, keys + tile * 16 * STRIDE, (unsigned)slot0 + tile * 16, k_scale, tile,
                   f, s[i]);
    }
    __syncthreads();
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const unsigned at = (threadIdx.x % 32 >> 2) + 8 * r;

        m[r] = tiles_max(f->top, tile0, at, f->m[turn][at]);
        if (threadIdx.x < 32 && threadIdx.x % 4 == 0)
            f->m[turn ^ 1u][at] = m[r];
    }
#pragma unroll
    for (int i = 0; i < S_TILES; i++) {
        const unsigned tile = s_tile(i);

        if ((int)tile >= tile0 && tile < TILES)
            put_probabilities(values + tile * 16 * STRIDE, tile, m, f, s[i]);
    }
    __syncthreads();
    keep_up(f, turn, tile0, st);
    if (v_column(0) < COLUMNS)
        add_values(f, values, tile0, st);
}

EW_DEV void run_panels(const ew_cuda_attn_args &a, const struct share &w, const struct seen &v,
                       unsigned char *ring, struct few *f, struct sums *st)
{
    const float k_scale = kv_head_scale(a, 0, w.h);

#pragma unroll 1
    for (int i = 0; i < w.last - w.first; i++) {
        if (EW_STAGES == 1 && i > 0) {
            __syncthreads();
            fetch(w, ew_shared(ring), w.first + i);
        }
        if (EW_STAGES > 1 && i == 0)
            ew_cp_async_wait<EW_STAGES - 1>();
        else
            ew_cp_async_wait<(EW_STAGES > 1 ? EW_STAGES - 2 : 0)>();
        __syncthreads();
        if (EW_STAGES > 1 && i > 0)
            fetch(w, ew_shared(ring), w.first + i - 1 + EW_STAGES);
        run_panel(a, w, v, ring + i % EW_STAGES * 2 * PLANE, panel_slot(w, w.first + i),
                  (unsigned)i & 1u, k_scale, f, st);
    }
}

#endif

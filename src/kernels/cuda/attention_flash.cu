/* kernels/cuda/attention_flash.cu - attention of many query rows: blocks of 16 EW_WARPS rows walk
 * over tiles of the cache that all warps share, the newest tiles are copied while older ones are
 * multiplied, the softmax is kept running.
 *
 * Row r of a kv head is query head r % EW_G of its group, token r / EW_G: the heads of a group read
 * the same tiles. Tiles are aligned to slot 0, and a tile that a row does not see changes nothing
 * of it, so a row's bits follow from its query and what it sees.
 *
 * grid (row blocks, b * hkv), heavy blocks first. Macros: attn_flash.cuh's, EW_WARPS,
 * EW_STAGES. Queries in q_hi (an f32 cache: q_lo too), multiplied with the scale (and log2 e where
 * there is no softcap). */

#define BLOCK_ROWS (16 * EW_WARPS)
#define TILE       (EW_KV == 0 || EW_D > 128 ? 32 : 64)
#define TILE_BYTES (TILE * EW_TILE_STRIDE)
#define K_STEPS    (EW_D / 16)
#define N_TILES    (EW_D / 8)
#define Q_IN_REGS  (EW_D <= 128)
#define Q_STRIDE   (EW_D * 2 + 16)

#include "attn_flash.cuh"

namespace
{

struct query { /* of a warp: its fragments, or where they lie in shared memory */
#if Q_IN_REGS
    unsigned f[EW_PLANES][K_STEPS][4];
#else
    unsigned at;
#endif
};

__device__ __forceinline__ void query_load(const ew_cuda_attn_args &a, unsigned b, unsigned h,
                                           unsigned r0, unsigned char *mem, struct query *q)
{
    const unsigned lane = threadIdx.x % 32, last = a.s * EW_G - 1;

#if Q_IN_REGS
    (void)mem;
#    pragma unroll
    for (int p = 0; p < EW_PLANES; p++)
#    pragma unroll
        for (int r = 0; r < 2; r++) {
            const unsigned short *x =
                query_at(a, p ? a.q_lo : a.q_hi, b, h, min(r0 + (lane >> 2) + 8 * r, last));
#    pragma unroll
            for (int ks = 0; ks < K_STEPS; ks++) {
                q->f[p][ks][r] = *(const unsigned *)(x + ks * 16 + (lane & 3u) * 2);
                q->f[p][ks][r + 2] = *(const unsigned *)(x + ks * 16 + (lane & 3u) * 2 + 8);
            }
        }
#else
    unsigned char *const own = mem + threadIdx.x / 32 * (EW_PLANES * 16 * Q_STRIDE);

    for (unsigned u = lane; u < EW_PLANES * 16 * (EW_D / 8); u += 32) {
        const unsigned r = u / (EW_D / 8) % 16, p = u / (EW_D / 8) / 16, c = u % (EW_D / 8) * 8;
        const unsigned short *x = query_at(a, p ? a.q_lo : a.q_hi, b, h, min(r0 + r, last));

        *(uint4 *)(own + (p * 16 + r) * Q_STRIDE + c * 2) = *(const uint4 *)(x + c);
    }
    __syncwarp();
    q->at = ew_shared(own) + (lane & 15u) * Q_STRIDE + (lane >> 4) * 16;
#endif
}

__device__ __forceinline__ void query_frag(const struct query *q, int p, int ks, unsigned f[4])
{
#if Q_IN_REGS
#    pragma unroll
    for (int j = 0; j < 4; j++)
        f[j] = q->f[p][ks][j];
#else
    ew_ldmatrix4(f, q->at + (unsigned)p * 16 * Q_STRIDE + ks * 32);
#endif
}

/* s = q k^T of 16 rows and TILE slots. */
__device__ __forceinline__ void scores(const struct query *q, const unsigned char *k,
                                       float s[TILE / 8][4])
{
#pragma unroll
    for (int n = 0; n < TILE / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            s[n][e] = 0;
#pragma unroll
    for (int ks = 0; ks < K_STEPS; ks++) {
        unsigned f[EW_PLANES][4];

#pragma unroll
        for (int p = 0; p < EW_PLANES; p++)
            query_frag(q, p, ks, f[p]);
#pragma unroll
        for (int n = 0; n < TILE / 16; n++) {
            unsigned bk[EW_PLANES][4];

            key_frag(bk, k, n * 16, ks * 16);
#pragma unroll
            for (int w = 0; w < 2; w++) {
                mma(s[2 * n + w], f[0], bk[0][2 * w], bk[0][2 * w + 1]);
                if (EW_PLANES == 2) {
                    mma(s[2 * n + w], f[EW_PLANES - 1], bk[0][2 * w], bk[0][2 * w + 1]);
                    mma(s[2 * n + w], f[0], bk[EW_PLANES - 1][2 * w], bk[EW_PLANES - 1][2 * w + 1]);
                }
            }
        }
    }
}

/* o += p v */
__device__ __forceinline__ void add_values(float s[TILE / 8][4], const unsigned char *val,
                                           struct state *st)
{
#if EW_KV == 4
    const unsigned t = threadIdx.x & 3u;

#    pragma unroll
    for (int n = 0; n < TILE / 8; n++)
#    pragma unroll
        for (int e = 0; e < 4; e++) {
            const float scale = i8_row_scale(val + (n * 8 + t * 2 + (e & 1)) * EW_TILE_STRIDE);

            s[n][e] = s[n][e] == 0.0f ? 0.0f : s[n][e] * scale;
        }
#endif
#pragma unroll
    for (int ks = 0; ks < TILE / 16; ks++) {
        unsigned p[EW_PLANES][4];

#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int n = 2 * ks + (j >> 1), r = j & 1;

            p[0][j] = pack2(s[n][2 * r], s[n][2 * r + 1]);
            if (EW_PLANES == 2)
                p[EW_PLANES - 1][j] = pack2_rest(s[n][2 * r], s[n][2 * r + 1], p[0][j]);
        }
#pragma unroll
        for (int j = 0; j < N_TILES / 2; j++) {
            unsigned bv[EW_PLANES][4];

            value_frag(bv, val, ks * 16, j * 16);
#pragma unroll
            for (int w = 0; w < 2; w++) {
                float *const o = st->o[2 * j + w];

                mma(o, p[0], bv[0][2 * w], bv[0][2 * w + 1]);
                if (EW_PLANES == 2) {
                    mma(o, p[EW_PLANES - 1], bv[0][2 * w], bv[0][2 * w + 1]);
                    mma(o, p[0], bv[EW_PLANES - 1][2 * w], bv[EW_PLANES - 1][2 * w + 1]);
                }
            }
        }
    }
}

} // namespace

extern "C" __global__ void __launch_bounds__(EW_WARPS * 32)
    ew_attention_flash(const __grid_constant__ ew_cuda_attn_args a)
{
    extern __shared__ __align__(16) unsigned char mem[];
    const unsigned b = blockIdx.y / a.hkv, h = blockIdx.y % a.hkv;
    const unsigned block0 = (gridDim.x - 1 - blockIdx.x) * BLOCK_ROWS;
    const unsigned r0 = block0 + threadIdx.x / 32 * 16;
    const unsigned char *const keys = kv_row(a, b, 0, h, 0), *const values = kv_row(a, b, 1, h, 0);
    const float k_scale = kv_head_scale(a, 0, h);
    struct rows v;
    struct query q;
    struct state st;
    unsigned begin, end;

    ew_grid_release();
    ew_grid_wait();
    rows_find(a, b, r0, &v);
    range_of_rows(a, b, block0, BLOCK_ROWS, &begin, &end);
    const struct readable which = readable_find(a, b, 0, end);
    const unsigned n_tiles = end > begin ? (end - begin + TILE - 1) / TILE : 0;

#pragma unroll
    for (int j = 0; j < EW_STAGES - 1; j++) {
        if (j < n_tiles) {
            const unsigned dst = ew_shared(mem) + j * 2 * TILE_BYTES;

            tile_load<TILE>(dst, keys, begin + j * TILE, which, threadIdx.x, EW_WARPS * 32);
            tile_load<TILE>(dst + TILE_BYTES, values, begin + j * TILE, which, threadIdx.x,
                            EW_WARPS * 32);
        }
        ew_cp_async_commit();
    }
    query_load(a, b, h, r0, mem + EW_STAGES * 2 * TILE_BYTES, &q);
#pragma unroll
    for (int j = 0; j < N_TILES; j++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            st.o[j][e] = 0;
    st.m[0] = st.m[1] = -EW_INFINITY;
    st.l[0] = st.l[1] = 0;
    const unsigned warp_hi = __reduce_max_sync(0xffffffffu, max(v.hi[0], v.hi[1]));
    const unsigned warp_lo =
        __reduce_min_sync(0xffffffffu, min(v.hi[0] ? v.lo[0] : ~0u, v.hi[1] ? v.lo[1] : ~0u));
    const unsigned whole_hi = __reduce_min_sync(0xffffffffu, min(v.hi[0], v.hi[1]));
    const unsigned whole_lo = __reduce_max_sync(0xffffffffu, max(v.lo[0], v.lo[1]));

    for (unsigned tile = 0; tile < n_tiles; tile++) {
        const unsigned slot = begin + tile * TILE, ahead = tile + EW_STAGES - 1;
        const unsigned char *const k = mem + tile % EW_STAGES * 2 * TILE_BYTES;

        ew_cp_async_wait<EW_STAGES - 2>();
        __syncthreads();
        if (ahead < n_tiles) {
            const unsigned dst = ew_shared(mem) + ahead % EW_STAGES * 2 * TILE_BYTES;

            tile_load<TILE>(dst, keys, begin + ahead * TILE, which, threadIdx.x, EW_WARPS * 32);
            tile_load<TILE>(dst + TILE_BYTES, values, begin + ahead * TILE, which, threadIdx.x,
                            EW_WARPS * 32);
        }
        ew_cp_async_commit();
        if (slot >= warp_hi || slot + TILE <= warp_lo)
            continue;
        const bool is_whole = tile_is_whole(a, v.row[0].prefix, slot, whole_lo, whole_hi);
        float s[TILE / 8][4], keep[2];

        scores(&q, k, s);
        shape_scores(a, &v, b, k, slot, k_scale, is_whole, s);
        soften(s, &st, keep);
        rescale(&st, keep);
        add_values(s, k + TILE_BYTES, &st);
    }
    put_out(a, &v, b, h, r0, &st);
}

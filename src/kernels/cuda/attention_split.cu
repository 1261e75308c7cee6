/* kernels/cuda/attention_split.cu - attention of few query rows over a long cache: blocks share the
 * cache of a kv head, the last one to finish adds them up.
 *
 * Row r of a kv head is query head r % EW_G of its group, token r / EW_G; a block takes 16 rows.
 * The cache of a batch row is cut into at most n_split chunks whose borders follow from what there
 * is to see alone; in a chunk, 16-slot tiles go round the warps, each of which has a ring of its
 * own in shared memory, filled by asynchronous copies: no barrier until the end. Warps and chunks
 * are added up in their order.
 *
 * EW_DECODE 1: one token a batch row; the block prepares its queries itself and the block whose
 * chunk has the new slot stores key and value. 0: queries come from q_hi and q_lo.
 *
 * grid (n_split, b * hkv, row tiles). Macros: attn_cache.cuh's, EW_G, EW_DECODE, EW_STAGES. */
#include "attn_tile.cuh"

#define WARPS      4
#define TILE       16
#define TILE_BYTES (TILE * EW_TILE_STRIDE)
#define K_STEPS    (EW_D / 16)
#define N_TILES    (EW_D / 8)
#define Q_STRIDE   (EW_D + 8)

namespace {

struct shared_q { /* short floats, rows padded to differ in banks */
    unsigned short hi[16][Q_STRIDE], lo[16][Q_STRIDE];
};

/* What the warps add up with; lies over the rings. */
struct shared_sum {
    float o[WARPS][16][EW_D + 4];
    float m[WARPS][16], l[WARPS][16];
};

__device__ __forceinline__ void put_q(struct shared_q *q, unsigned r, unsigned i, float v)
{
#if EW_KV == 1
    q->hi[r][i] = (unsigned short)ew_to_f16(v);
    q->lo[r][i] = (unsigned short)ew_to_f16(v - ew_f16_f32(q->hi[r][i]));
#else
    q->hi[r][i] = (unsigned short)f32_to_bf16(v);
    q->lo[r][i] = (unsigned short)f32_to_bf16(v - ew_bf16_f32(q->hi[r][i]));
#endif
}

#if EW_DECODE
__device__ float full_inv_rms(const float *x, unsigned n, float eps, float *part)
{
    float sum = 0;

    for (unsigned i = threadIdx.x; i < n; i += blockDim.x)
        sum += x[i] * x[i];
    return 1.0f / sqrtf(ew_block_sum(sum, part) / (float)n + eps);
}

/* Queries of the block into shared memory; key and value of the new token into new_row (and, by
 * the block that owns the slot, into the cache). */
__device__ void prepare(const ew_cuda_attn_args &a, const struct attn_row &row, unsigned b,
                        unsigned h, unsigned r0, bool stores, struct shared_q *q,
                        unsigned char new_row[2][EW_TILE_STRIDE])
{
    const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const float *const xq = (const float *)a.q + b * a.q_stride;
    const float *const xk = (const float *)a.k + b * a.k_stride;
    const float *const xv = (const float *)a.v + b * a.v_stride;
    const float *const rope = attn_rope_row(a, b, row.pos);
    float inv_q = 0, inv_k = 0, x[EW_LANE_ELEMS];

#if EW_NORM == 2
    __shared__ float part[33];
    inv_q = full_inv_rms(xq, a.hq * EW_D, a.qk_norm_eps, part);
    inv_k = full_inv_rms(xk, a.hkv * EW_D, a.qk_norm_eps, part);
#endif
    for (unsigned r = warp; r < 16; r += WARPS) {
        const unsigned head = h * EW_G + r0 + r;
        const bool is_row = r0 + r < EW_G;
        const float *w = (const float *)a.q_norm + (EW_NORM == 2 ? head * EW_D : 0);

        if (is_row) {
#if EW_NORM == 1
            inv_q = head_inv_rms(xq + head * EW_D, a.qk_norm_eps);
#endif
            head_load(xq + head * EW_D, EW_NORM ? w : 0, inv_q, rope, a.rd, x);
        }
#pragma unroll
        for (int j = 0; j < EW_LANE_ELEMS; j++)
            if (lane + 32 * j < EW_D)
                put_q(q, r, lane + 32 * j, is_row ? x[j] * a.q_scale : 0.0f);
    }
    if (!stores)
        return;
    if (warp == WARPS - 1) { /* it has the fewest queries */
        const float *w = (const float *)a.k_norm + (EW_NORM == 2 ? h * EW_D : 0);

#if EW_NORM == 1
        inv_k = head_inv_rms(xk + h * EW_D, a.qk_norm_eps);
#endif
        head_load(xk + h * EW_D, EW_NORM ? w : 0, inv_k, rope, a.rd, x);
        kv_put(new_row[0], x, kv_head_scale(a, 0, h));
        if (blockIdx.z == 0)
            kv_put(kv_row(a, b, 0, h, row.slot), x, kv_head_scale(a, 0, h));
    }
    if (warp == WARPS - 2) {
        head_load(xv + h * EW_D, 0, 0, 0, 0, x);
        kv_put(new_row[1], x, kv_head_scale(a, 1, h));
        if (blockIdx.z == 0)
            kv_put(kv_row(a, b, 1, h, row.slot), x, kv_head_scale(a, 1, h));
    }
}
#else
__device__ void fetch_queries(const ew_cuda_attn_args &a, unsigned b, unsigned h, unsigned r0,
                              struct shared_q *q)
{
    for (unsigned u = threadIdx.x; u < 16 * (EW_D / 2); u += WARPS * 32) {
        const unsigned r = u / (EW_D / 2), c = u % (EW_D / 2) * 2;
        const bool is_row = r0 + r < a.s * EW_G;
        const unsigned long long at =
            ((unsigned long long)(b * a.s + (r0 + r) / EW_G) * a.hq + h * EW_G + (r0 + r) % EW_G) * EW_D + c;

        *(unsigned *)&q->hi[r][c] = is_row ? *(const unsigned *)((const unsigned short *)a.q_hi + at) : 0;
        *(unsigned *)&q->lo[r][c] = is_row ? *(const unsigned *)((const unsigned short *)a.q_lo + at) : 0;
    }
}
#endif

struct state { /* of a warp: 16 rows, its part of the slots */
    float o[N_TILES][4];
    float m[2], l[2]; /* of rows g and g + 8; l is this lane's part */
};

struct view { /* what the two rows of a lane may see */
    struct attn_row row[2];
    unsigned i[2]; /* token in S */
    bool is_row[2];
    unsigned end; /* of any row */
    int lo;       /* decode: first position in the window */
};

__device__ __forceinline__ bool sees(const ew_cuda_attn_args &a, const struct view &v, unsigned b,
                                     int r, unsigned slot)
{
#if EW_DECODE
    (void)a;
    (void)b;
    (void)r;
    return slot < v.end && (int)slot >= v.lo;
#else
    return v.is_row[r] && slot < v.end && attn_row_sees(a, v.row[r], b, v.i[r], slot);
#endif
}

/* One tile of 16 slots: scores, softmax, sums. */
__device__ __forceinline__ void attend(const ew_cuda_attn_args &a, const struct view &v, unsigned b,
                                       const struct shared_q *q, const unsigned char *k,
                                       const unsigned char *val, unsigned slot, float k_scale,
                                       struct state *st)
{
    const unsigned lane = threadIdx.x % 32, t = lane & 3u;
    const unsigned q_at = ew_shared(&q->hi[lane & 15u][lane >> 4 << 3]);
    float s[2][4] = { { 0 } };
    unsigned p_hi[4], p_lo[4];

#pragma unroll
    for (int ks = 0; ks < K_STEPS; ks++) {
        unsigned bk[EW_PLANES][4], hi[4], lo[4];

        ew_ldmatrix4(hi, q_at + ks * 32);
        ew_ldmatrix4(lo, q_at + ks * 32 + (unsigned)sizeof(q->hi));
        key_frag(bk, k, 0, ks * 16);
#pragma unroll
        for (int n = 0; n < 2; n++) {
            mma(s[n], hi, bk[0][2 * n], bk[0][2 * n + 1]);
            mma(s[n], lo, bk[0][2 * n], bk[0][2 * n + 1]);
            if (EW_PLANES == 2)
                mma(s[n], hi, bk[EW_PLANES - 1][2 * n], bk[EW_PLANES - 1][2 * n + 1]);
        }
    }
    float v_row[2][2] = { { 1, 1 }, { 1, 1 } };
    float top[2] = { -EW_INFINITY, -EW_INFINITY };
#pragma unroll
    for (int n = 0; n < 2; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const unsigned col = n * 8 + t * 2 + (e & 1);
            float x = s[n][e];

#if EW_KV == 4
            x *= i8_row_scale(k + col * EW_TILE_STRIDE);
            v_row[n][e & 1] = i8_row_scale(val + col * EW_TILE_STRIDE);
#else
            x *= k_scale;
#endif
            if (a.softcap != 0.0f)
                x = a.softcap * EW_LOG2E * tanhf(x / a.softcap);
            s[n][e] = x;
            if (sees(a, v, b, e >> 1, slot + col))
                top[e >> 1] = fmaxf(top[e >> 1], x);
            else
                s[n][e] = -EW_INFINITY;
        }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        top[r] = fmaxf(top[r], __shfl_xor_sync(0xffffffffu, top[r], 1));
        top[r] = fmaxf(top[r], __shfl_xor_sync(0xffffffffu, top[r], 2));
        const float m_new = fmaxf(st->m[r], top[r]);
        const float keep = st->m[r] == m_new ? 1.0f : exp2_fast(st->m[r] - m_new);

        st->m[r] = m_new;
        st->l[r] *= keep;
        top[r] = m_new == -EW_INFINITY ? 0.0f : m_new;
#pragma unroll
        for (int j = 0; j < N_TILES; j++) {
            st->o[j][2 * r] *= keep;
            st->o[j][2 * r + 1] *= keep;
        }
    }
#pragma unroll
    for (int n = 0; n < 2; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const float p = exp2_fast(s[n][e] - top[e >> 1]);

            st->l[e >> 1] += p;
            s[n][e] = EW_KV == 4 ? (p == 0.0f ? 0.0f : p * v_row[n][e & 1]) : p;
        }
#pragma unroll
    for (int j = 0; j < 4; j++) { /* A of the second product: (g, low) (g+8, low) (g, high) ... */
        const int n = j >> 1, r = j & 1;

        p_hi[j] = pack2(s[n][2 * r], s[n][2 * r + 1]);
        p_lo[j] = pack2_rest(s[n][2 * r], s[n][2 * r + 1], p_hi[j]);
    }
#pragma unroll
    for (int j = 0; j < N_TILES / 2; j++) {
        unsigned bv[EW_PLANES][4];

        value_frag(bv, val, 0, j * 16);
#pragma unroll
        for (int n = 0; n < 2; n++) {
            mma(st->o[2 * j + n], p_hi, bv[0][2 * n], bv[0][2 * n + 1]);
            mma(st->o[2 * j + n], p_lo, bv[0][2 * n], bv[0][2 * n + 1]);
            if (EW_PLANES == 2)
                mma(st->o[2 * j + n], p_hi, bv[EW_PLANES - 1][2 * n],
                    bv[EW_PLANES - 1][2 * n + 1]);
        }
    }
}

/* This warp's rows to shared memory. */
__device__ __forceinline__ void hand_over(struct shared_sum *sum, struct state *st)
{
    const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane >> 2, t = lane & 3u;

#pragma unroll
    for (int r = 0; r < 2; r++) {
        st->l[r] += __shfl_xor_sync(0xffffffffu, st->l[r], 1);
        st->l[r] += __shfl_xor_sync(0xffffffffu, st->l[r], 2);
        if (t == 0) {
            sum->m[warp][g + 8 * r] = st->m[r];
            sum->l[warp][g + 8 * r] = st->l[r];
        }
    }
#pragma unroll
    for (int j = 0; j < N_TILES; j++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            sum->o[warp][g + 8 * (e >> 1)][j * 8 + t * 2 + (e & 1)] = st->o[j][e];
}

__device__ __forceinline__ float weight(float m, float top)
{
    return m == top ? 1.0f : exp2_fast(m - top);
}

__device__ __forceinline__ void put_out(const ew_cuda_attn_args &a, unsigned b, unsigned h,
                                        unsigned row, unsigned c, float o, float l)
{
    const unsigned tok = b * a.s + row / EW_G, head = h * EW_G + row % EW_G;
    const float y = l == 0.0f ? 0.0f : o / l * kv_head_scale(a, 1, h);

    ((float *)a.out)[tok * a.out_stride + head * EW_D + c] = y;
    if (a.out_bf16)
        ((unsigned short *)a.out_bf16)[((unsigned long long)tok * a.hq + head) * EW_D + c] =
            (unsigned short)f32_to_bf16(y);
}

/* Adds up the warps; with one chunk that is the result, else a partial one. */
__device__ void add_warps(const ew_cuda_attn_args &a, const struct shared_sum *sum, unsigned b,
                          unsigned h, unsigned r0, unsigned n_rows, bool is_only,
                          unsigned long long part)
{
    for (unsigned u = threadIdx.x; u < n_rows * EW_D; u += WARPS * 32) {
        const unsigned r = u / EW_D, c = u % EW_D;
        float m = -EW_INFINITY, l = 0, o = 0;

#pragma unroll
        for (int w = 0; w < WARPS; w++)
            m = fmaxf(m, sum->m[w][r]);
#pragma unroll
        for (int w = 0; w < WARPS; w++) {
            const float f = weight(sum->m[w][r], m);

            l += f * sum->l[w][r];
            o += f * sum->o[w][r][c];
        }
        if (is_only) {
            put_out(a, b, h, r0 + r, c, o, l);
        } else {
            ((float *)a.part_o)[(part * 16 + r) * EW_D + c] = o;
            if (c == 0) {
                ((float *)a.part_ml)[(part * 16 + r) * 2] = m;
                ((float *)a.part_ml)[(part * 16 + r) * 2 + 1] = l;
            }
        }
    }
}

__device__ void add_chunks(const ew_cuda_attn_args &a, unsigned b, unsigned h, unsigned r0,
                           unsigned n_rows, unsigned n_chunks, unsigned long long part)
{
    for (unsigned u = threadIdx.x; u < n_rows * EW_D; u += WARPS * 32) {
        const unsigned r = u / EW_D, c = u % EW_D;
        const float *const ml = (const float *)a.part_ml + (part * 16 + r) * 2;
        const float *const po = (const float *)a.part_o + (part * 16 + r) * EW_D + c;
        float m = -EW_INFINITY, l = 0, o = 0;

#pragma unroll 8
        for (unsigned k = 0; k < n_chunks; k++)
            m = fmaxf(m, __ldcg(ml + k * 32));
#pragma unroll 8
        for (unsigned k = 0; k < n_chunks; k++) {
            const float f = weight(__ldcg(ml + k * 32), m);

            l += f * __ldcg(ml + k * 32 + 1);
            o += f * __ldcg(po + k * 16 * EW_D);
        }
        put_out(a, b, h, r0 + r, c, o, l);
    }
}

} // namespace

extern "C" __global__ void __launch_bounds__(WARPS * 32)
    ew_attention_split(const __grid_constant__ ew_cuda_attn_args a)
{
    extern __shared__ __align__(16) unsigned char mem[];
    __shared__ __align__(16) struct shared_q q;
#if EW_DECODE
    __shared__ __align__(16) unsigned char new_row[2][EW_TILE_STRIDE];
#endif
    __shared__ unsigned is_last;
    const unsigned b = blockIdx.y / a.hkv, h = blockIdx.y % a.hkv, r0 = blockIdx.z * 16;
    const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const unsigned n_rows = min(16u, a.s * EW_G - r0);
    unsigned char *const ring = mem + warp * EW_STAGES * 2 * TILE_BYTES;
    struct view v;
    struct state st;
    unsigned begin = 0, n_chunks, chunk, first;

#pragma unroll
    for (int r = 0; r < 2; r++) {
        const unsigned row = r0 + (lane >> 2) + 8 * r;

        v.i[r] = EW_DECODE ? 0 : min(row, a.s * EW_G - 1) / EW_G;
        v.row[r] = attn_row_find(a, b, v.i[r]);
        v.is_row[r] = v.row[r].is_real && row < a.s * EW_G;
    }
    v.lo = 0;
#if EW_DECODE
    v.end = v.row[0].is_real ? v.row[0].slot + 1 : 0;
    if (a.window > 0 && a.window < v.end)
        v.lo = (int)(v.end - a.window);
    begin = (unsigned)v.lo & ~63u;
#else
    { /* the end that every real row of the batch row has in common */
        const long long c = ((const int *)a.context_lengths)[b];
        const long long s0 = a.start_index ? ((const int *)a.start_index)[b] : 0;
        const long long n = min(max(c - s0, 0ll), (long long)a.s);

        v.end = s0 < 0 || n == 0 ? 0 : (unsigned)min(s0 + n, (long long)a.cap);
    }
#endif
    chunk = ((v.end - begin + a.n_split - 1) / a.n_split + 63) & ~63u;
    n_chunks = chunk ? (v.end - begin + chunk - 1) / chunk : 1;
    if (blockIdx.x >= n_chunks)
        return;
    ew_grid_release();
    first = begin + blockIdx.x * chunk;
    const unsigned end = min(first + chunk, v.end);
    const unsigned n_tiles = end > first ? (end - first + TILE - 1) / TILE : 0;
    const unsigned char *const keys = kv_row(a, b, 0, h, 0), *const values = kv_row(a, b, 1, h, 0);
#if EW_DECODE
    const unsigned readable = v.end - 1; /* the new slot comes from new_row */
#else
    const unsigned readable = v.end;
    ew_grid_wait();
#endif

#pragma unroll
    for (int j = 0; j < EW_STAGES - 1; j++) {
        const unsigned tile = warp + j * WARPS;

        if (tile < n_tiles) {
            const unsigned dst = ew_shared(ring) + j * 2 * TILE_BYTES;

            tile_load<TILE>(dst, keys, first + tile * TILE, v.lo, min(end, readable), lane, 32);
            tile_load<TILE>(dst + TILE_BYTES, values, first + tile * TILE, v.lo, min(end, readable),
                            lane, 32);
        }
        ew_cp_async_commit();
    }
#if EW_DECODE
    ew_grid_wait();
    const bool owns_new = v.end > 0 && v.end - 1 >= first && v.end - 1 < end;

    if (v.end > 0)
        prepare(a, v.row[0], b, h, r0, owns_new, &q, new_row);
#else
    fetch_queries(a, b, h, r0, &q);
#endif
    __syncthreads();

#pragma unroll
    for (int j = 0; j < N_TILES; j++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            st.o[j][e] = 0;
    st.m[0] = st.m[1] = -EW_INFINITY;
    st.l[0] = st.l[1] = 0;
    const float k_scale = kv_head_scale(a, 0, h);
    unsigned stage = 0;

    for (unsigned tile = warp; tile < n_tiles; tile += WARPS) {
        const unsigned ahead = tile + (EW_STAGES - 1) * WARPS;
        const unsigned fill = (stage + EW_STAGES - 1) % EW_STAGES;
        unsigned char *const k = ring + stage * 2 * TILE_BYTES, *const val = k + TILE_BYTES;

        if (ahead < n_tiles) {
            const unsigned dst = ew_shared(ring) + fill * 2 * TILE_BYTES;

            tile_load<TILE>(dst, keys, first + ahead * TILE, v.lo, min(end, readable), lane, 32);
            tile_load<TILE>(dst + TILE_BYTES, values, first + ahead * TILE, v.lo,
                            min(end, readable), lane, 32);
        }
        ew_cp_async_commit();
        ew_cp_async_wait<EW_STAGES - 1>();
        __syncwarp();
#if EW_DECODE
        if (owns_new && (v.end - 1 - first) / TILE == tile) {
            const unsigned at = (v.end - 1 - first) % TILE * EW_TILE_STRIDE;

            for (unsigned u = lane; u < EW_ROW_BYTES / 4; u += 32) {
                *(unsigned *)(k + at + u * 4) = *(const unsigned *)(new_row[0] + u * 4);
                *(unsigned *)(val + at + u * 4) = *(const unsigned *)(new_row[1] + u * 4);
            }
            __syncwarp();
        }
#endif
        attend(a, v, b, &q, k, val, first + tile * TILE, k_scale, &st);
        __syncwarp();
        stage = (stage + 1) % EW_STAGES;
    }
    ew_cp_async_wait<0>();
    __syncthreads();
    struct shared_sum *const sum = (struct shared_sum *)mem;

    hand_over(sum, &st);
    __syncthreads();
    const unsigned long long at =
        ((unsigned long long)blockIdx.y * gridDim.z + blockIdx.z) * a.n_split;
    add_warps(a, sum, b, h, r0, n_rows, n_chunks == 1, at + blockIdx.x);
    if (n_chunks == 1)
        return;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        unsigned *const counter = (unsigned *)a.counters + blockIdx.y * gridDim.z + blockIdx.z;

        is_last = atomicAdd(counter, 1) == n_chunks - 1;
        if (is_last)
            *counter = 0;
    }
    __syncthreads();
    if (!is_last)
        return;
    __threadfence();
    add_chunks(a, b, h, r0, n_rows, n_chunks, at);
}

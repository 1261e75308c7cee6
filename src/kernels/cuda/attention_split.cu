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
 * chunk has the new slot stores key and value. 0: a tree, whose queries come from q_hi and q_lo.
 *
 * Queries and probabilities are multiplied as hi + lo. Up to eight rows lie in the upper half of a
 * fragment's 16, their lo parts in the lower half: one product gives both (PAIRED).
 *
 * grid (n_split, b * hkv, row tiles). Macros: attn_cache.cuh's, EW_G, EW_CAP (1: there is a
 * softcap), EW_DECODE, EW_TREE (its opposite), EW_WARPS, EW_STAGES. */
#include "attn_tile.cuh"

#define WARPS      EW_WARPS
#define TILE       16
#define TILE_BYTES (TILE * EW_TILE_STRIDE)
#define K_STEPS    (EW_D / 16)
#define N_TILES    (EW_D / 8)
#define Q_STRIDE   (EW_D + 8)
#define MAX_CHUNKS 64
#define CHUNK_MIN  128u /* adding up costs more than 64 slots more */
#define PAIRED     (EW_DECODE && EW_G <= 8)
#define ROWS       (PAIRED ? 1 : 2) /* of a lane: g, g + 8 */

namespace
{

struct shared_q { /* short floats, rows padded to differ in banks */
    unsigned short hi[16][Q_STRIDE], lo[PAIRED ? 1 : 16][Q_STRIDE];
};

/* What the warps add up with; lies over the rings. */
struct shared_sum {
    float o[WARPS][8 * ROWS][EW_D + 4];
    float m[WARPS][8 * ROWS], l[WARPS][8 * ROWS];
};

#if EW_DECODE
EW_DEV void put_q(struct shared_q *q, unsigned r, unsigned i, float v)
{
    unsigned short *const lo = PAIRED ? &q->hi[r + 8][i] : &q->lo[r][i];
#    if EW_KV == 1
    q->hi[r][i] = ew_to_f16(v);
    *lo = ew_to_f16(v - ew_f16_f32(q->hi[r][i]));
#    else
    q->hi[r][i] = ew_to_bf16(v);
    *lo = ew_to_bf16(v - ew_bf16_f32(q->hi[r][i]));
#    endif
}
#endif

#if EW_DECODE && EW_NORM == 2
__device__ float full_inv_rms(const float *x, unsigned n, float eps, float *part)
{
    float sum = 0;

    for (unsigned i = threadIdx.x; i < n; i += blockDim.x)
        sum += x[i] * x[i];
    return 1.0f / sqrtf(ew_block_sum(sum, part) / (float)n + eps);
}

#endif

#if EW_DECODE
/* Which heads a warp prepares: query row `warp` of the block (and every WARPS-th on), and the last
 * two warps, which have the fewest queries, the key and the value of the new token. */
struct prepared {
    struct head_frame q, k;
    const float *rope;
};

/* Constants, before what the launch before makes is there. */
EW_DEV void frames_load(const ew_cuda_attn_args &a, const struct attn_row &row, unsigned b,
                        unsigned h, unsigned r0, struct prepared *p)
{
    const unsigned warp = threadIdx.x / 32, head = h * EW_G + min(r0 + warp, EW_G - 1);

    p->rope = row.is_real ? attn_rope_row(a, b, row.pos) : 0;
    head_frame_load(&p->q, (const float *)a.q_norm + (EW_NORM == 2 ? head * EW_D : 0), p->rope,
                    a.rd);
    if (warp == WARPS - 1)
        head_frame_load(&p->k, (const float *)a.k_norm + (EW_NORM == 2 ? h * EW_D : 0), p->rope,
                        a.rd);
}

/* Queries of the block into shared memory; key and value of the new token into new_row (and, by
 * the block that owns the slot, into the cache). */
EW_DEV void prepare(const ew_cuda_attn_args &a, const struct attn_row &row, unsigned b, unsigned h,
                    unsigned r0, bool stores, struct prepared *p, struct shared_q *q,
                    unsigned char new_row[2][EW_TILE_STRIDE])
{
    const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const float *const xq = (const float *)a.q + b * a.q_stride;
    const float *const xk = (const float *)a.k + b * a.k_stride;
    const float *const xv = (const float *)a.v + b * a.v_stride;
    float inv_q = 0, inv_k = 0, x[EW_LANE_ELEMS];

#    if EW_NORM == 2
    __shared__ float part[33];
    inv_q = full_inv_rms(xq, a.hq * EW_D, a.qk_norm_eps, part);
    inv_k = full_inv_rms(xk, a.hkv * EW_D, a.qk_norm_eps, part);
#    endif
    for (unsigned r = warp; r < (PAIRED ? 8 : 16); r += WARPS) {
        const unsigned head = h * EW_G + r0 + r;
        const bool is_row = r0 + r < EW_G;

        if (r != warp && is_row) /* the frame in hand is of another head */
            head_frame_load(&p->q, (const float *)a.q_norm + (EW_NORM == 2 ? head * EW_D : 0),
                            p->rope, a.rd);
        if (is_row)
            head_load(xq + head * EW_D, &p->q, inv_q, a.qk_norm_eps, p->rope, a.rd, x);
#    pragma unroll
        for (int j = 0; j < EW_LANE_ELEMS; j++)
            if (lane + 32 * j < EW_D)
                put_q(q, r, lane + 32 * j, is_row ? x[j] * a.q_scale : 0.0f);
    }
    if (!stores)
        return;
    if (warp == WARPS - 1) {
        head_load(xk + h * EW_D, &p->k, inv_k, a.qk_norm_eps, p->rope, a.rd, x);
        kv_put(new_row[0], x, kv_head_scale(a, 0, h));
        if (blockIdx.z == 0)
            kv_put(kv_row(a, b, 0, h, row.slot), x, kv_head_scale(a, 0, h));
    }
    if (warp == WARPS - 2) {
        head_copy(xv + h * EW_D, x);
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
            ((unsigned long long)(b * a.s + (r0 + r) / EW_G) * a.hq + h * EW_G + (r0 + r) % EW_G) *
                EW_D +
            c;

        *(unsigned *)&q->hi[r][c] =
            is_row ? *(const unsigned *)((const unsigned short *)a.q_hi + at) : 0;
        *(unsigned *)&q->lo[r][c] =
            is_row ? *(const unsigned *)((const unsigned short *)a.q_lo + at) : 0;
    }
}
#endif

struct state { /* of a warp: 16 rows, its part of the slots */
    float o[N_TILES][4];
    float m[ROWS], l[ROWS]; /* l is this lane's part */
};

struct view { /* what the two rows of a lane may see */
    struct attn_row row[ROWS];
    unsigned i[ROWS]; /* token in S */
    bool is_row[ROWS];
    unsigned end; /* of any row */
    int lo;       /* decode: first position in the window */
};

EW_DEV bool sees(const ew_cuda_attn_args &a, const struct view &v, unsigned b, int r, unsigned slot)
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

/* s += q k^T over 16 slots; element e of s[n] is slot 8 n + 2 t + e % 2, row g + 8 (e / 2). */
EW_DEV void scores(const struct shared_q *q, const unsigned char *k, float s[2][4])
{
    const unsigned lane = threadIdx.x % 32;
    const unsigned q_at = ew_shared(&q->hi[lane & 15u][lane >> 4 << 3]);
    float rest[2][4] = { { 0 } }; /* a sum of its own: half as long a chain */

#pragma unroll
    for (int ks = 0; ks < K_STEPS; ks++) {
        unsigned bk[EW_PLANES][4], hi[4], lo[4];

        ew_ldmatrix4(hi, q_at + ks * 32);
        if (!PAIRED)
            ew_ldmatrix4(lo, q_at + ks * 32 + (unsigned)sizeof(q->hi));
        key_frag(bk, k, 0, ks * 16);
#pragma unroll
        for (int n = 0; n < 2; n++) {
            float *const sum = PAIRED && ks % 2 ? rest[n] : s[n];

            mma(sum, hi, bk[0][2 * n], bk[0][2 * n + 1]);
            if (!PAIRED)
                mma(rest[n], lo, bk[0][2 * n], bk[0][2 * n + 1]);
            if (EW_PLANES == 2)
                mma(rest[n], hi, bk[EW_PLANES - 1][2 * n], bk[EW_PLANES - 1][2 * n + 1]);
        }
    }
#pragma unroll
    for (int n = 0; n < 2; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            s[n][e] += rest[n][e];
#if PAIRED
#    pragma unroll
    for (int n = 0; n < 2; n++)
#    pragma unroll
        for (int e = 0; e < 2; e++)
            s[n][e] += s[n][e + 2];
#endif
}

/* One tile of 16 slots: scores, softmax, sums. */
EW_DEV void attend(const ew_cuda_attn_args &a, const struct view &v, unsigned b,
                   const struct shared_q *q, const unsigned char *k, const unsigned char *val,
                   unsigned slot, bool is_whole, float k_scale, struct state *st)
{
    const unsigned t = threadIdx.x & 3u;
    float s[2][4] = { { 0 } }, top[ROWS];
    unsigned p_hi[4], p_lo[4];

    scores(q, k, s);
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        top[r] = -EW_INFINITY;
#pragma unroll
    for (int n = 0; n < 2; n++)
#pragma unroll
        for (int e = 0; e < 2 * ROWS; e++) {
            const unsigned col = n * 8 + t * 2 + (e & 1);

#if EW_KV == 4
            s[n][e] *= i8_row_scale(k + col * EW_TILE_STRIDE);
#else
            s[n][e] *= k_scale;
#endif
#if EW_CAP
            s[n][e] = a.softcap * EW_LOG2E * tanhf(s[n][e] / a.softcap);
#endif
            if (is_whole || sees(a, v, b, e >> 1, slot + col))
                top[e >> 1] = fmaxf(top[e >> 1], s[n][e]);
            else
                s[n][e] = -EW_INFINITY;
        }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        top[r] = fmaxf(top[r], __shfl_xor_sync(0xffffffffu, top[r], 1));
        top[r] = fmaxf(top[r], __shfl_xor_sync(0xffffffffu, top[r], 2));
        const float m_new = fmaxf(st->m[r], top[r]);
        const float keep = st->m[r] == m_new ? 1.0f : exp2_fast(st->m[r] - m_new);

        st->m[r] = m_new;
        st->l[r] *= keep;
        top[r] = m_new == -EW_INFINITY ? 0.0f : m_new;
#pragma unroll
        for (int j = 0; j < N_TILES; j++)
#pragma unroll
            for (int e = PAIRED ? 0 : 2 * r; e < (PAIRED ? 4 : 2 * r + 2); e++)
                st->o[j][e] *= keep;
    }
#pragma unroll
    for (int n = 0; n < 2; n++)
#pragma unroll
        for (int e = 0; e < 2 * ROWS; e++) {
            const float p = exp2_fast(s[n][e] - top[e >> 1]);

            st->l[e >> 1] += p;
            s[n][e] = p;
#if EW_KV == 4
            const unsigned col = n * 8 + t * 2 + (e & 1);

            s[n][e] = p == 0.0f ? 0.0f : p * i8_row_scale(val + col * EW_TILE_STRIDE);
#endif
        }
#pragma unroll
    for (int n = 0; n < 2; n++) { /* A of the second product: (g, low) (g+8, low) (g, high) ... */
        p_hi[2 * n] = pack2(s[n][0], s[n][1]);
        p_lo[2 * n] = pack2_rest(s[n][0], s[n][1], p_hi[2 * n]);
        p_hi[2 * n + 1] = PAIRED ? p_lo[2 * n] : pack2(s[n][2], s[n][3]);
        p_lo[2 * n + 1] = PAIRED ? 0 : pack2_rest(s[n][2], s[n][3], p_hi[2 * n + 1]);
    }
#pragma unroll
    for (int j = 0; j < N_TILES / 2; j++) {
        unsigned bv[EW_PLANES][4];

        value_frag(bv, val, 0, j * 16);
#pragma unroll
        for (int n = 0; n < 2; n++) {
            mma(st->o[2 * j + n], p_hi, bv[0][2 * n], bv[0][2 * n + 1]);
            if (!PAIRED)
                mma(st->o[2 * j + n], p_lo, bv[0][2 * n], bv[0][2 * n + 1]);
            if (EW_PLANES == 2)
                mma(st->o[2 * j + n], p_hi, bv[EW_PLANES - 1][2 * n], bv[EW_PLANES - 1][2 * n + 1]);
        }
    }
}

/* This warp's rows to shared memory. */
EW_DEV void hand_over(struct shared_sum *sum, struct state *st)
{
    const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane >> 2, t = lane & 3u;

#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        st->l[r] += __shfl_xor_sync(0xffffffffu, st->l[r], 1);
        st->l[r] += __shfl_xor_sync(0xffffffffu, st->l[r], 2);
        if (t == 0) {
            sum->m[warp][g + 8 * r] = st->m[r];
            sum->l[warp][g + 8 * r] = st->l[r];
        }
#pragma unroll
        for (int j = 0; j < N_TILES; j++) {
            const float x = st->o[j][2 * r] + (PAIRED ? st->o[j][2] : 0.0f);
            const float y = st->o[j][2 * r + 1] + (PAIRED ? st->o[j][3] : 0.0f);

            *(float2 *)&sum->o[warp][g + 8 * r][j * 8 + t * 2] = make_float2(x, y);
        }
    }
}

EW_DEV float weight(float m, float top)
{
    return m == top ? 1.0f : exp2_fast(m - top);
}

EW_DEV void put_out(const ew_cuda_attn_args &a, unsigned b, unsigned h, unsigned row, unsigned c,
                    float o, float l)
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

/* Adds up the chunks. First the weight of each for each row, then every thread its columns with
 * all loads in flight. factor: [n_rows][n_chunks + 1] floats of shared memory. */
__device__ void add_chunks(const ew_cuda_attn_args &a, unsigned b, unsigned h, unsigned r0,
                           unsigned n_rows, unsigned n_chunks, unsigned long long part,
                           float *factor)
{
    for (unsigned r = threadIdx.x / 32; r < n_rows; r += WARPS) {
        const float2 *const ml = (const float2 *)a.part_ml + part * 16 + r;
        float *const f = factor + r * (MAX_CHUNKS + 1);
        const unsigned lane = threadIdx.x % 32;
        float2 v[MAX_CHUNKS / 32];
        float m = -EW_INFINITY, l = 0;

#pragma unroll
        for (int j = 0; j < MAX_CHUNKS / 32; j++) {
            v[j] = make_float2(-EW_INFINITY, 0);
            if (lane + 32 * j < n_chunks)
                v[j] = __ldcg(ml + (lane + 32 * j) * 16);
            m = fmaxf(m, v[j].x);
        }
        m = ew_warp_max(m);
#pragma unroll
        for (int j = 0; j < MAX_CHUNKS / 32; j++) {
            const float w = weight(v[j].x, m);

            if (lane + 32 * j < n_chunks) {
                f[lane + 32 * j] = w;
                l += w * v[j].y;
            }
        }
        l = ew_warp_sum(l);
        if (lane == 0)
            f[MAX_CHUNKS] = l;
    }
    __syncthreads();
    for (unsigned u = threadIdx.x; u < n_rows * EW_D; u += WARPS * 32) {
        const unsigned r = u / EW_D, c = u % EW_D;
        const float *const po = (const float *)a.part_o + (part * 16 + r) * EW_D + c;
        const float *const f = factor + r * (MAX_CHUNKS + 1);
        float o = 0;

#pragma unroll 16
        for (unsigned k = 0; k < n_chunks; k++)
            o += f[k] * __ldcg(po + k * 16 * EW_D);
        put_out(a, b, h, r0 + r, c, o, f[MAX_CHUNKS]);
    }
}

/* What this block sees of the cache. */
struct span {
    unsigned first, end; /* slots of the chunk */
    unsigned n_chunks;   /* of the batch row; 1 when there is nothing to see */
    unsigned n_tiles;
};

EW_DEV void view_find(const ew_cuda_attn_args &a, unsigned b, unsigned r0, struct view *v)
{
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        const unsigned row = r0 + (threadIdx.x % 32 >> 2) + 8 * r;

        v->i[r] = EW_DECODE ? 0 : min(row, a.s * EW_G - 1) / EW_G;
        v->row[r] = attn_row_find(a, b, v->i[r]);
        v->is_row[r] = v->row[r].is_real && row < a.s * EW_G;
    }
    v->lo = 0;
#if EW_DECODE
    v->end = v->row[0].is_real ? v->row[0].slot + 1 : 0;
    if (a.window > 0 && a.window < v->end)
        v->lo = (int)(v->end - a.window);
#else /* the end that every real row of the batch row has in common */
    const long long c = ((const int *)a.context_lengths)[b];
    const long long s0 = a.start_index ? ((const int *)a.start_index)[b] : 0;
    const long long n = min(max(c - s0, 0ll), (long long)a.s);

    v->end = s0 < 0 || n == 0 ? 0 : (unsigned)min(s0 + n, (long long)a.cap);
#endif
}

EW_DEV struct span span_find(const ew_cuda_attn_args &a, const struct view &v)
{
    const unsigned begin = (unsigned)v.lo & ~63u;
    unsigned chunk = (v.end - begin + a.n_split - 1) / a.n_split;
    struct span s = { 0, 0, 1, 0 };

    if (v.end <= begin)
        return s;
    chunk = max((chunk + 63) & ~63u, CHUNK_MIN);
    s.n_chunks = (v.end - begin + chunk - 1) / chunk;
    s.first = begin + blockIdx.x * chunk;
    s.end = min(s.first + chunk, v.end);
    s.n_tiles = s.end > s.first ? (s.end - s.first + TILE - 1) / TILE : 0;
    return s;
}

/* Tile `tile` of the chunk into its stage of this warp's ring, or nothing; one group of copies. */
EW_DEV void fetch(const ew_cuda_attn_args &a, const struct span &s, const struct readable &which,
                  unsigned b, unsigned h, unsigned char *ring, unsigned stage, unsigned tile)
{
    const unsigned dst = ew_shared(ring) + stage * 2 * TILE_BYTES, lane = threadIdx.x % 32;

    if (tile < s.n_tiles) {
        const unsigned slot = s.first + tile * TILE;

        tile_load<TILE>(dst, kv_row(a, b, 0, h, 0), slot, which, lane, 32);
        tile_load<TILE>(dst + TILE_BYTES, kv_row(a, b, 1, h, 0), slot, which, lane, 32);
    }
    ew_cp_async_commit();
}

/* This warp's tiles. The first EW_STAGES - 1 of them are on their way. new_row: key and value of
 * the new token, not yet to be read from the cache; NULL where the block has not got it. */
EW_DEV void run_tiles(const ew_cuda_attn_args &a, const struct view &v, const struct span &s,
                      const struct readable &which, unsigned b, unsigned h,
                      const struct shared_q *q, const unsigned char *new_row, unsigned char *ring,
                      struct state *st)
{
    const float k_scale = kv_head_scale(a, 0, h);
    unsigned stage = 0;

    for (unsigned tile = threadIdx.x / 32; tile < s.n_tiles; tile += WARPS) {
        unsigned char *const k = ring + stage * 2 * TILE_BYTES, *const val = k + TILE_BYTES;
        const unsigned slot = s.first + tile * TILE;

        fetch(a, s, which, b, h, ring, (stage + EW_STAGES - 1) % EW_STAGES,
              tile + (EW_STAGES - 1) * WARPS);
        ew_cp_async_wait<EW_STAGES - 1>();
        __syncwarp();
#if EW_DECODE
        const bool is_whole = slot + TILE <= v.end && (int)slot >= v.lo;

        if (new_row && (v.end - 1 - s.first) / TILE == tile) {
            const unsigned at = (v.end - 1 - s.first) % TILE * EW_TILE_STRIDE;

            for (unsigned u = threadIdx.x % 32 * 4; u < EW_ROW_BYTES; u += 128) {
                *(unsigned *)(k + at + u) = *(const unsigned *)(new_row + u);
                *(unsigned *)(val + at + u) = *(const unsigned *)(new_row + EW_TILE_STRIDE + u);
            }
            __syncwarp();
        }
#else /* before the tree every row sees everything; padding rows are put right at the end */
        const bool is_whole = a.window <= 0 && slot + TILE <= which.prefix;
#endif
        attend(a, v, b, q, k, val, slot, is_whole, k_scale, st);
        __syncwarp();
        stage = (stage + 1) % EW_STAGES;
    }
    ew_cp_async_wait<0>();
#pragma unroll
    for (int r = 0; r < ROWS && !EW_DECODE; r++)
        if (!v.is_row[r]) {
            st->m[r] = -EW_INFINITY;
            st->l[r] = 0;
        }
}

/* Whether this block is the last of its batch row, kv head and row tile to come here. */
EW_DEV bool comes_last(const ew_cuda_attn_args &a, unsigned n_chunks)
{
    __shared__ unsigned is_last;

    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        unsigned *const counter = (unsigned *)a.counters + blockIdx.y * gridDim.z + blockIdx.z;

        is_last = atomicAdd(counter, 1) == n_chunks - 1;
        if (is_last)
            *counter = 0;
    }
    __syncthreads();
    if (is_last)
        __threadfence();
    return is_last;
}

} // namespace

extern "C" __global__ void __launch_bounds__(WARPS * 32, 1)
    ew_attention_split(const __grid_constant__ ew_cuda_attn_args a)
{
    extern __shared__ __align__(16) unsigned char mem[];
    __shared__ __align__(16) struct shared_q q;
    const unsigned b = blockIdx.y / a.hkv, h = blockIdx.y % a.hkv, r0 = blockIdx.z * 16;
    const unsigned n_rows = min(16u, a.s * EW_G - r0);
    const unsigned long long part =
        ((unsigned long long)blockIdx.y * gridDim.z + blockIdx.z) * a.n_split;
    unsigned char *const ring = mem + threadIdx.x / 32 * EW_STAGES * 2 * TILE_BYTES;
    const unsigned char *new_kv = 0;
    struct view v;
    struct state st;

    view_find(a, b, r0, &v);
    const struct span s = span_find(a, v);
    if (blockIdx.x >= s.n_chunks)
        return;
    ew_grid_release();
#if EW_DECODE
    __shared__ __align__(16) unsigned char new_row[2][EW_TILE_STRIDE];
    const struct readable which = readable_find(a, b, v.lo, min(s.end, v.end - 1));
    struct prepared frames;

#    pragma unroll
    for (int j = 0; j < EW_STAGES - 1; j++)
        fetch(a, s, which, b, h, ring, j, threadIdx.x / 32 + j * WARPS);
    frames_load(a, v.row[0], b, h, r0, &frames);
    ew_grid_wait();
    if (v.end > 0 && v.end - 1 >= s.first && v.end - 1 < s.end)
        new_kv = new_row[0];
    if (v.end > 0)
        prepare(a, v.row[0], b, h, r0, new_kv != 0, &frames, &q, new_row);
#else
    const struct readable which = readable_find(a, b, 0, s.end);

    ew_grid_wait();
#    pragma unroll
    for (int j = 0; j < EW_STAGES - 1; j++)
        fetch(a, s, which, b, h, ring, j, threadIdx.x / 32 + j * WARPS);
    fetch_queries(a, b, h, r0, &q);
#endif
    __syncthreads();
#pragma unroll
    for (int j = 0; j < N_TILES; j++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            st.o[j][e] = 0;
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        st.m[r] = -EW_INFINITY;
        st.l[r] = 0;
    }
    run_tiles(a, v, s, which, b, h, &q, new_kv, ring, &st);
    __syncthreads();
    hand_over((struct shared_sum *)mem, &st);
    __syncthreads();
    add_warps(a, (const struct shared_sum *)mem, b, h, r0, n_rows, s.n_chunks == 1,
              part + blockIdx.x);
    if (s.n_chunks > 1 && comes_last(a, s.n_chunks))
        add_chunks(a, b, h, r0, n_rows, s.n_chunks, part, (float *)mem);
}

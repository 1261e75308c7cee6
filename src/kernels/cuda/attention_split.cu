/* kernels/cuda/attention_split.cu - attention of few query rows over a long cache: blocks share the
 * cache of a kv head and add up what they found.
 *
 * Row r of a kv head is query head r % EW_G of its group, token r / EW_G; a block takes 16 rows.
 * The cache of a batch row is cut into at most n_split chunks whose borders follow from what there
 * is to see alone; block x of n takes chunks x, x + n .. one after the other. In a chunk 16-slot
 * tiles go round the warps, each of which has a ring of its own in shared memory, filled by
 * asynchronous copies that run ahead over the borders of chunks. Sums of chunks go through device
 * memory; the last block to finish adds them up. Warps of a chunk are added in their order, then
 * chunks in theirs, so how many blocks there are changes no bit.
 *
 * EW_DECODE 1: one token a batch row; the block prepares its queries itself, and the block whose
 * chunk has the new slot stores key and value. 0: a tree, whose queries come from q_hi and q_lo.
 *
 * Queries and probabilities are multiplied as hi + lo. Up to eight rows lie in the upper half of a
 * fragment's 16, their lo parts in the lower half: one product gives both (PAIRED).
 *
 * grid (blocks, b * hkv, row tiles). Macros: attn_cache.cuh's, EW_G, EW_CAP (1: there is a
 * softcap), EW_DECODE, EW_TREE (its opposite), EW_WARPS, EW_STAGES. Dynamic shared memory:
 * the rings, then struct shared_sum. */
#include "attn_tile.cuh"

#define WARPS      EW_WARPS
#define TILE       16
#define TILE_BYTES (TILE * EW_TILE_STRIDE)
#define K_STEPS    (EW_D / 16)
#define N_TILES    (EW_D / 8)
#define Q_STRIDE   (EW_D + 8)
#define MAX_CHUNKS 16
/* Slots of a chunk at least: adding up costs more than so many, the more the rows. */
#define CHUNK_MIN (EW_DECODE ? 128u : 512u)
#define PAIRED    (EW_DECODE && EW_G <= 8)
#define ROWS      (PAIRED ? 1 : 2) /* of a lane: g, g + 8 */
#define SUM_ROWS  (PAIRED ? EW_G : 16)

namespace
{

struct shared_q { /* short floats, rows padded to differ in banks */
    unsigned short hi[16][Q_STRIDE], lo[PAIRED ? 1 : 16][Q_STRIDE];
};

/* What the warps of a chunk add up with. */
struct shared_sum {
    float o[WARPS][SUM_ROWS][EW_D + 4];
    float m[WARPS][SUM_ROWS], l[WARPS][SUM_ROWS];
    float f[WARPS][SUM_ROWS], m_all[SUM_ROWS], l_all[SUM_ROWS]; /* weights of the warps, totals */
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

/* Which of the slots from `slot` on row r of a lane sees, a bit each. */
EW_DEV unsigned seen(const ew_cuda_attn_args &a, const struct view &v, unsigned b, int r,
                     unsigned slot)
{
#if EW_DECODE
    unsigned bits = v.end - slot < 32 ? (1u << (v.end - slot)) - 1 : ~0u;

    if (v.lo > (int)slot)
        bits &= v.lo - (int)slot < 32 ? ~0u << (v.lo - (int)slot) : 0;
    return bits;
#else
    return v.is_row[r] ? tree_row_sees(a, v.row[r], b, v.i[r], slot) : 0;
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
    unsigned bits[ROWS]; /* slots that a row sees */
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        top[r] = -EW_INFINITY;
        bits[r] = ~0u;
        if (!is_whole)
            bits[r] = seen(a, v, b, r, slot);
    }
#pragma unroll
    for (int n = 0; n < 2; n++)
#pragma unroll
        for (int e = 0; e < 2 * ROWS; e++) {
            const unsigned col = n * 8 + t * 2 + (e & 1);

            s[n][e] = shape_score(a, s[n][e], k + col * EW_TILE_STRIDE, k_scale);
            if (bits[e >> 1] >> col & 1u)
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

/* This warp's rows of a chunk to shared memory; it begins anew. */
EW_DEV void hand_over(struct shared_sum *sum, struct state *st)
{
    const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane >> 2, t = lane & 3u;

#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        st->l[r] += __shfl_xor_sync(0xffffffffu, st->l[r], 1);
        st->l[r] += __shfl_xor_sync(0xffffffffu, st->l[r], 2);
        if (t == 0 && g + 8 * r < SUM_ROWS) {
            sum->m[warp][g + 8 * r] = st->m[r];
            sum->l[warp][g + 8 * r] = st->l[r];
        }
        st->m[r] = -EW_INFINITY;
        st->l[r] = 0;
#pragma unroll
        for (int j = 0; j < N_TILES; j++) {
            const float x = st->o[j][2 * r] + (PAIRED ? st->o[j][2] : 0.0f);
            const float y = st->o[j][2 * r + 1] + (PAIRED ? st->o[j][3] : 0.0f);

            if (g + 8 * r < SUM_ROWS)
                *(float2 *)&sum->o[warp][g + 8 * r][j * 8 + t * 2] = make_float2(x, y);
        }
    }
#pragma unroll
    for (int j = 0; j < N_TILES; j++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            st->o[j][e] = 0;
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

    if (a.out)
        ((float *)a.out)[tok * a.out_stride + head * EW_D + c] = y;
    if (a.out_bf16)
        ((unsigned short *)a.out_bf16)[((unsigned long long)tok * a.hq + head) * EW_D + c] =
            (unsigned short)f32_to_bf16(y);
}

struct part { /* a sum over some slots, of one row and column */
    float m, l, o;
};

#if !PAIRED
/* Weights of the warps, by the first threads. */
EW_DEV void weigh_warps(struct shared_sum *sum)
{
    const unsigned r = threadIdx.x;
    float m = -EW_INFINITY, l = 0;

    if (r >= SUM_ROWS)
        return;
#    pragma unroll
    for (int w = 0; w < WARPS; w++)
        m = fmaxf(m, sum->m[w][r]);
#    pragma unroll
    for (int w = 0; w < WARPS; w++) {
        sum->f[w][r] = weight(sum->m[w][r], m);
        l += sum->f[w][r] * sum->l[w][r];
    }
    sum->m_all[r] = m;
    sum->l_all[r] = l;
}
#endif

/* The warps of a chunk, in their order. With few rows a thread has one output, and weighs for
 * itself sooner than it would wait for others. */
EW_DEV struct part chunk_part(const struct shared_sum *sum, unsigned r, unsigned c)
{
    struct part p = { -EW_INFINITY, 0, 0 };

#if PAIRED
#    pragma unroll
    for (int w = 0; w < WARPS; w++)
        p.m = fmaxf(p.m, sum->m[w][r]);
#    pragma unroll
    for (int w = 0; w < WARPS; w++) {
        const float f = weight(sum->m[w][r], p.m);

        p.l += f * sum->l[w][r];
        p.o += f * sum->o[w][r][c];
    }
#else
    p.m = sum->m_all[r];
    p.l = sum->l_all[r];
#    pragma unroll
    for (int w = 0; w < WARPS; w++)
        p.o += sum->f[w][r] * sum->o[w][r][c];
#endif
    return p;
}

/* Where chunks go. Output u = row * EW_D + column of the block's rows. */
struct out_plan {
    unsigned b, h, r0;
    unsigned n_out, n_chunks;
    unsigned n_blocks; /* that have chunks */
    unsigned long long part;
};

EW_DEV void send(const ew_cuda_attn_args &a, const struct out_plan &w, const struct shared_sum *sum,
                 unsigned chunk)
{
    for (unsigned u = threadIdx.x; u < w.n_out; u += WARPS * 32) {
        const struct part p = chunk_part(sum, u / EW_D, u % EW_D);
        const unsigned long long at = (w.part + chunk) * 16;

        ((float *)a.part_o)[at * EW_D + u] = p.o;
        if (u % EW_D == 0)
            ((float2 *)a.part_ml)[at + u / EW_D] = make_float2(p.m, p.l);
    }
}

/* The last block, all outputs; all loads of one at once. */
EW_DEV void add_chunks(const ew_cuda_attn_args &a, const struct out_plan &w)
{
    for (unsigned u = threadIdx.x; u < w.n_out; u += WARPS * 32) {
        const float *const o = (const float *)a.part_o + w.part * 16 * EW_D + u;
        const float2 *const ml = (const float2 *)a.part_ml + w.part * 16 + u / EW_D;
        struct part p = { -EW_INFINITY, 0, 0 };
        float2 x[MAX_CHUNKS];
        float y[MAX_CHUNKS];

#pragma unroll
        for (unsigned k = 0; k < MAX_CHUNKS; k++) {
            const bool is_there = k < w.n_chunks;

            x[k] = is_there ? __ldcg(ml + k * 16) : make_float2(-EW_INFINITY, 0.0f);
            y[k] = is_there ? __ldcg(o + k * 16 * EW_D) : 0.0f;
        }
#pragma unroll
        for (unsigned k = 0; k < MAX_CHUNKS; k++)
            p.m = fmaxf(p.m, x[k].x);
#pragma unroll
        for (unsigned k = 0; k < MAX_CHUNKS; k++) {
            const float f = k < w.n_chunks ? weight(x[k].x, p.m) : 0.0f;

            p.l += f * x[k].y;
            p.o += f * y[k];
        }
        put_out(a, w.b, w.h, w.r0 + u / EW_D, u % EW_D, p.o, p.l);
    }
}

/* The chunk that the warps have been over: out with it. */
EW_DEV void flush(const ew_cuda_attn_args &a, const struct out_plan &w, struct shared_sum *sum,
                  unsigned chunk, struct state *st)
{
    __syncthreads(); /* the chunk before was read */
    hand_over(sum, st);
    __syncthreads();
#if !PAIRED
    weigh_warps(sum);
    __syncthreads();
#endif
    if (w.n_chunks > 1) {
        send(a, w, sum, chunk);
        return;
    }
    for (unsigned u = threadIdx.x; u < w.n_out; u += WARPS * 32) {
        const struct part p = chunk_part(sum, u / EW_D, u % EW_D);

        put_out(a, w.b, w.h, w.r0 + u / EW_D, u % EW_D, p.o, p.l);
    }
}

/* How the cache of a batch row is cut. */
struct span {
    unsigned begin, end;
    unsigned chunk, n_chunks; /* slots of one; 1 when there is nothing to see */
    unsigned steps;           /* of a warp in a chunk */
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
    struct span s = { (unsigned)v.lo & ~63u, v.end, CHUNK_MIN, 1, 0 };

    if (s.end <= s.begin)
        return s;
    s.chunk = max(((s.end - s.begin + a.n_split - 1) / a.n_split + 63) & ~63u, CHUNK_MIN);
    s.n_chunks = (s.end - s.begin + s.chunk - 1) / s.chunk;
    s.steps = (s.chunk / TILE + WARPS - 1) / WARPS;
    return s;
}

/* First slot of the tile that this warp takes in its step i; at or past `end`: none. */
EW_DEV unsigned step_slot(const struct span &s, unsigned i)
{
    const unsigned chunk = blockIdx.x + i / s.steps * gridDim.x;
    const unsigned tile = (threadIdx.x / 32 + i % s.steps * WARPS) * TILE;

    return chunk < s.n_chunks && tile < s.chunk ? s.begin + chunk * s.chunk + tile : s.end;
}

/* The tile of step i into its stage of this warp's ring, or nothing; one group of copies. */
EW_DEV void fetch(const ew_cuda_attn_args &a, const struct span &s, const struct readable &which,
                  unsigned b, unsigned h, unsigned char *ring, unsigned i)
{
    const unsigned dst = ew_shared(ring) + i % EW_STAGES * 2 * TILE_BYTES, lane = threadIdx.x % 32;
    const unsigned slot = s.steps ? step_slot(s, i) : s.end;

    if (slot < s.end) {
        tile_load<TILE>(dst, kv_row(a, b, 0, h, 0), slot, which, lane, 32);
        tile_load<TILE>(dst + TILE_BYTES, kv_row(a, b, 1, h, 0), slot, which, lane, 32);
    }
    ew_cp_async_commit();
}

/* A tile that has arrived at k, values behind keys. new_row: key and value of the new token, not
 * yet to be read from the cache. */
EW_DEV void run_tile(const ew_cuda_attn_args &a, const struct view &v, const struct span &s,
                     const struct readable &which, const struct out_plan &w,
                     const struct shared_q *q, const unsigned char *new_row, unsigned char *k,
                     unsigned slot, float k_scale, struct state *st)
{
#if EW_DECODE
    const bool is_whole = slot + TILE <= s.end && (int)slot >= v.lo;

    (void)which;
    if (slot + TILE >= s.end) { /* the tile with the new slot */
        const unsigned at = (s.end - 1 - slot) * EW_TILE_STRIDE;

        for (unsigned u = threadIdx.x % 32 * 4; u < EW_ROW_BYTES; u += 128) {
            *(unsigned *)(k + at + u) = *(const unsigned *)(new_row + u);
            *(unsigned *)(k + TILE_BYTES + at + u) =
                *(const unsigned *)(new_row + EW_TILE_STRIDE + u);
        }
        __syncwarp();
    }
#else /* before the tree every row sees everything; padding rows are put right at the end */
    const bool is_whole = a.window <= 0 && slot + TILE <= which.prefix;
    (void)s;
    (void)new_row;
#endif
    attend(a, v, w.b, q, k, k + TILE_BYTES, slot, is_whole, k_scale, st);
}

/* All chunks of this block. The tiles of the first EW_STAGES - 1 steps are on their
 * way. */
EW_DEV void run_chunks(const ew_cuda_attn_args &a, const struct view &v, const struct span &s,
                       const struct readable &which, const struct out_plan &w,
                       const struct shared_q *q, const unsigned char *new_row, unsigned char *ring,
                       struct shared_sum *sum)
{
    const float k_scale = kv_head_scale(a, 0, w.h);
    struct state st;
    unsigned i = 0;

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
    for (unsigned chunk = blockIdx.x; chunk < s.n_chunks; chunk += gridDim.x) {
        for (unsigned step = 0; step < s.steps; step++, i++) {
            const unsigned slot = step_slot(s, i);

            fetch(a, s, which, w.b, w.h, ring, i + EW_STAGES - 1);
            ew_cp_async_wait<EW_STAGES - 1>();
            __syncwarp();
            if (slot < s.end)
                run_tile(a, v, s, which, w, q, new_row, ring + i % EW_STAGES * 2 * TILE_BYTES, slot,
                         k_scale, &st);
            __syncwarp();
        }
#pragma unroll
        for (int r = 0; r < ROWS && !EW_DECODE; r++)
            if (!v.is_row[r]) {
                st.m[r] = -EW_INFINITY;
                st.l[r] = 0;
            }
        flush(a, w, sum, chunk, &st);
    }
    ew_cp_async_wait<0>();
}

/* Whether this block is the last of its batch row, kv head and row tile to come here. */
EW_DEV bool comes_last(const ew_cuda_attn_args &a, unsigned n_blocks)
{
    __shared__ unsigned is_last;

    __syncthreads();
    if (threadIdx.x == 0) { /* for all: what they wrote comes before, what they read behind */
        unsigned *const counter = (unsigned *)a.counters + blockIdx.y * gridDim.z + blockIdx.z;
        unsigned before;

        asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], 1;"
                     : "=r"(before)
                     : "l"(counter)
                     : "memory");
        is_last = before == n_blocks - 1;
        if (is_last)
            *counter = 0;
    }
    __syncthreads();
    return is_last;
}

} // namespace

extern "C" __global__ void __launch_bounds__(WARPS * 32, 1)
    ew_attention_split(const __grid_constant__ ew_cuda_attn_args a)
{
    extern __shared__ __align__(16) unsigned char mem[];
    __shared__ __align__(16) struct shared_q q;
    const unsigned b = blockIdx.y / a.hkv, h = blockIdx.y % a.hkv, r0 = blockIdx.z * 16;
    unsigned char *const ring = mem + threadIdx.x / 32 * EW_STAGES * 2 * TILE_BYTES;
    struct shared_sum *const sum = (struct shared_sum *)(mem + WARPS * EW_STAGES * 2 * TILE_BYTES);
    const unsigned char *new_kv = 0;
    struct view v;

    view_find(a, b, r0, &v);
    const struct span s = span_find(a, v);
    if (blockIdx.x >= s.n_chunks)
        return;
    ew_grid_release();
    struct out_plan w = { b, h, r0 };
    w.n_out = min(16u, a.s * EW_G - r0) * EW_D;
    w.n_chunks = s.n_chunks;
    w.n_blocks = min(gridDim.x, s.n_chunks);
    w.part = ((unsigned long long)blockIdx.y * gridDim.z + blockIdx.z) * a.n_split;
#if EW_DECODE
    __shared__ __align__(16) unsigned char new_row[2][EW_TILE_STRIDE];
    const struct readable which = readable_find(a, b, v.lo, v.end - 1);
    struct prepared frames;

    new_kv = new_row[0];
#    pragma unroll
    for (int j = 0; j < EW_STAGES - 1; j++)
        fetch(a, s, which, b, h, ring, j);
    frames_load(a, v.row[0], b, h, r0, &frames);
    ew_grid_wait();
    if (v.end > 0)
        prepare(a, v.row[0], b, h, r0, (v.end - 1 - s.begin) / s.chunk % gridDim.x == blockIdx.x,
                &frames, &q, new_row);
#else
    const struct readable which = readable_find(a, b, 0, v.end);

    ew_grid_wait();
#    pragma unroll
    for (int j = 0; j < EW_STAGES - 1; j++)
        fetch(a, s, which, b, h, ring, j);
    fetch_queries(a, b, h, r0, &q);
#endif
    __syncthreads();
    run_chunks(a, v, s, which, w, &q, new_kv, ring, sum);
    if (s.n_chunks == 1)
        return;
    if (comes_last(a, w.n_blocks))
        add_chunks(a, w);
}

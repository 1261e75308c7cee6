/* kernels/cuda/step_linear_rows.cuh - linear phases of step_rows.cu: plain weights times the
 * vectors of up to 8 sequences. Device only.
 *
 * Of each chunk of columns a warp has a range of its own, as in step_linear_plain.cuh. Its input
 * goes from L2 into registers as it lies there: a lane's 16 bytes are 8 columns of one sequence,
 * and mma takes columns in any order that weights share. Two tiles of 8 rows are its A operand.
 * Rows lie 64 bytes apart in shared memory: two that are read together lie in other banks.
 *
 * Stages come in this order: groups of RED_ROWS rows; in a group whole parts of k where a part has
 * all of it, else rounds of 3 chunks; in a round two tiles at a time, chunk by chunk, and the last
 * one of an odd number alone, two chunks at a time. */
#ifndef EW_KERNELS_CUDA_STEP_LINEAR_ROWS_CUH
#define EW_KERNELS_CUDA_STEP_LINEAR_ROWS_CUH

#include "step_linear.cuh"
#include "step_rows.cuh"

#define STEP_ROUND 3                        /* chunks whose input a warp keeps */
#define STEP_TILES (EW_STEP_RED_ROWS / 8)   /* of a group */
#define STEP_TILE  EW_STEP_ROWS_TILE        /* sums of a tile, a gap of 8 in their middle */
#define STEP_RED   (STEP_TILES * STEP_TILE) /* sums of a warp */

/* ---- copying ---- */
/* The next stage: parts of n_tiles tiles, of each n_chunks chunks from `col` on. */
EW_DEV void rows_copy_stage(struct step *s, const struct ew_step_phase *ph,
                            const struct step_range *r, uint32_t tile, uint32_t n_tiles,
                            uint32_t col, uint32_t n_chunks)
{
    const uint32_t stride = ph->chunk * 2 + EW_STEP_ROWS_GAP;
    const bool glu = ph->flags & EW_STEP_GLU;
    const uint32_t per = glu ? 4 : 8, cols = min(ph->k - col, n_chunks * ph->chunk);
    uint32_t bytes = 0, to;

    if (s->turn) {
        copy_begin(s, 0);
        return;
    }
#pragma unroll 1
    for (uint32_t i = 0; i < n_tiles; i++)
        bytes += copy_bytes(ph, r, tile + i, cols);
    copy_begin(s, bytes);
    to = ring_at(s);
#pragma unroll 1
    for (uint32_t i = 0; i < n_tiles; i++) {
        const uint32_t out = r->out + (tile + i) * per, n = min(r->end - out, per);
#pragma unroll 1
        for (uint32_t c = col; c < col + cols; c += ph->chunk) {
            const uint64_t w = ph->w + (uint64_t)c * 2 + (uint64_t)out * ph->stride;
            const uint32_t run = min(ph->chunk, ph->k - c) * 2;

            copy_runs(s, to, stride, w, ph->stride, n, run);
            if (glu)
                copy_runs(s, to + 4 * stride, stride, w + (uint64_t)(ph->n / 2) * ph->stride,
                          ph->stride, n, run);
            to += ph->part_bytes;
        }
    }
    copy_end(s);
}
EW_DEV void rows_copy_round(struct step *s, const struct ew_step_phase *ph,
                            const struct step_range *r, uint32_t t0, uint32_t t1, uint32_t col)
{
    const uint32_t end = min(ph->k, col + STEP_ROUND * ph->chunk);

#pragma unroll 1
    for (uint32_t tile = t0; tile < t1; tile += 2) {
        const uint32_t two = tile + 1 < t1 ? 2 : 1;
#pragma unroll 1
        for (uint32_t c = col; c < end; c += ph->chunk * (3 - two))
            rows_copy_stage(s, ph, r, tile, two, c,
                            min(3 - two, (end - c + ph->chunk - 1) / ph->chunk));
    }
}
EW_DEV void rows_copy(struct step *s, const struct ew_step_phase *entry)
{
    const struct ew_step_phase copy = *entry, *ph = &copy;
    const struct step_range r = step_range_of<EW_STEP_PLAIN16>(ph, s->cta, s->n_cta);

#pragma unroll 1
    for (uint32_t t0 = 0; t0 < r.n_tiles; t0 += STEP_TILES) {
        const uint32_t t1 = min(t0 + STEP_TILES, r.n_tiles);

        if (ph->k <= ph->chunk) {
#pragma unroll 1
            for (uint32_t tile = t0; tile < t1; tile += ph->batch)
                rows_copy_stage(s, ph, &r, tile, min(ph->batch, t1 - tile), 0, 1);
        } else {
#pragma unroll 1
            for (uint32_t col = 0; col < ph->k; col += STEP_ROUND * ph->chunk)
                rows_copy_round(s, ph, &r, t0, t1, col);
        }
    }
}

/* ---- the input ---- */
/* This warp's columns of N chunks from `col` on. */
template <int N>
EW_DEV void rows_ranges(const struct ew_step_phase *ph, uint32_t col, struct plain_range r[N])
{
#pragma unroll
    for (int j = 0; j < N; j++) {
        const uint32_t c = col + (uint32_t)j * ph->chunk;

        r[j] = plain_range_of(c < ph->k ? min(ph->chunk, ph->k - c) : 0);
    }
}
/* Those of the input, as B operands; zeros where there is nothing. */
template <int N>
EW_DEV void rows_input(const struct step *s, const struct ew_step_phase *ph, uint32_t col,
                       uint4 x[N][4], const struct plain_range r[N])
{
    const uint32_t lane = threadIdx.x % 32;
    const uint64_t in = words_now(s) + (uint64_t)ph->in * 8 + lane * 16;
    const bool is_there = lane / 4 < s->a->sequences;
    uint32_t n = 0;
    bool all;

#pragma unroll
    for (int j = 0; j < N * 4; j++)
        x[j / 4][j % 4] = make_uint4(0, 0, 0, 0);
    do {
        all = true;
#pragma unroll
        for (int j = 0; j < N; j++) {
            const uint32_t c = col + (uint32_t)j * ph->chunk + r[j].from;
#pragma unroll
            for (uint32_t i = 0; i < 4; i++)
                words_load_if(&x[j][i], in + (uint64_t)c * 16 + i * 512,
                              is_there && i * 32 < r[j].n && !words_least(x[j][i]));
        }
#pragma unroll
        for (int j = 0; j < N; j++)
#pragma unroll
            for (uint32_t i = 0; i < 4; i++)
                all = all && (!is_there || i * 32 >= r[j].n || word_is_there(words_least(x[j][i])));
        if (++n > EW_STEP_POLL_LIMIT)
            step_gave_up(s);
    } while (!all);
    __syncwarp();
    step_mark(s, 1);
}
/* Norm weights of this lane's columns of one chunk. */
struct rows_norm {
    float4 w[8];
};
EW_DEV void rows_norm_ask(const struct ew_step_phase *ph, uint32_t col, const struct plain_range *r,
                          struct rows_norm *w)
{
    const uint64_t at = ph->norm + (uint64_t)(col + r->from + threadIdx.x % 4 * 8) * 4;

#pragma unroll
    for (uint32_t i = 0; i < 8; i++) {
        w->w[i] = make_float4(0, 0, 0, 0);
        if (ph->flags & EW_STEP_NORM && i / 2 * 32 < r->n)
            w->w[i] = *(const float4 *)(at + i / 2 * 128 + i % 2 * 16);
    }
}
EW_DEV uint32_t rows_norm_word(uint32_t x, float v, float w, float *sum)
{
    const float2 u = half2_get<EW_STEP_PAIR_F16>(x);

    *sum += u.x * u.x + u.y * u.y;
    return half2_of<EW_STEP_W_F16>(u.x * v, u.y * w);
}
/* Times the weights; squares are added to *sum. */
EW_DEV void rows_norm(uint4 x[4], const struct rows_norm *w, float *sum)
{
    float part[4] = { 0, 0, 0, 0 };

#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float4 a = w->w[2 * i], b = w->w[2 * i + 1];

        x[i].x = rows_norm_word(x[i].x, a.x, a.y, &part[0]);
        x[i].y = rows_norm_word(x[i].y, a.z, a.w, &part[1]);
        x[i].z = rows_norm_word(x[i].z, b.x, b.y, &part[2]);
        x[i].w = rows_norm_word(x[i].w, b.z, b.w, &part[3]);
    }
    *sum += (part[0] + part[1]) + (part[2] + part[3]);
}
/* Sums of squares: [8 sequences][warps]. */
EW_DEV void rows_sum_store(struct step *s, const struct ew_step_phase *ph, float sum)
{
    const uint32_t lane = threadIdx.x % 32;

    if (!(ph->flags & EW_STEP_NORM))
        return;
    sum += __shfl_xor_sync(EW_ALL, sum, 1);
    sum += __shfl_xor_sync(EW_ALL, sum, 2);
    if (lane % 4 == 0)
        s->sums[(s->half * 8 + lane / 4) * EW_STEP_WARPS + threadIdx.x / 32] = sum;
}
/* Of this thread's sequence. */
EW_DEV float rows_inv_rms(const struct step *s, const struct ew_step_phase *ph)
{
    if (!(ph->flags & EW_STEP_NORM))
        return 1;
    return rsqrtf(
        step_row_sum(smem_of(s->sums + (s->half * 8 + threadIdx.x % 32 / 4) * EW_STEP_WARPS)) *
            ph->inv_k +
        ph->eps);
}

/* Waits for the input of a phase whose rows are one part long. */
EW_DEV void rows_begin(struct step *s, const struct ew_step_phase *ph, uint4 x[1][4],
                       struct plain_range own[1], float *sum)
{
    struct rows_norm w;

    rows_norm_ask(ph, 0, own, &w);
    rows_input<1>(s, ph, 0, x, own);
    if (ph->flags & EW_STEP_NORM)
        rows_norm(x[0], &w, sum);
    rows_sum_store(s, ph, *sum);
    step_mark(s, 2);
}

/* ---- products. A stage goes back when its weights are in registers, before they are multiplied.
 * Where a part has all columns the first ones are there before the input is; where a tile has
 * several, that made a step slower (docs/perf-log.md) ---- */
struct rows_part {
    uint4 w[4];
};
/* n columns of this warp; zeros beyond. */
template <bool FULL> EW_DEV void rows_take(struct rows_part *p, uint32_t at, uint32_t n)
{
#pragma unroll
    for (uint32_t h = 0; h < 2; h++) {
        p->w[2 * h] = plain_lds<FULL>(at + h * 128, h * 64 < n);
        p->w[2 * h + 1] = plain_lds<FULL>(at + h * 128 + 64, h * 64 < n);
    }
}
/* Rows of p, and of q where TWO, times the input. */
template <bool TWO>
EW_DEV void rows_mma(float acc[2][4], const struct rows_part *p, const struct rows_part *q,
                     const uint4 x[4])
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const uint4 a = p->w[i], b = TWO ? q->w[i] : make_uint4(0, 0, 0, 0);

        mma16<EW_STEP_W_F16>(acc[0], a.x, b.x, a.y, b.y, x[i].x, x[i].y);
        mma16<EW_STEP_W_F16>(acc[1], a.z, b.z, a.w, b.w, x[i].z, x[i].w);
    }
}
/* Where a lane's weights are in a part. */
EW_DEV uint32_t rows_at(const struct ew_step_phase *ph, const struct plain_range *r)
{
    const uint32_t lane = threadIdx.x % 32;

    return lane / 4 * (ph->chunk * 2 + EW_STEP_ROWS_GAP) + r->from * 2 + lane % 4 * 16;
}
/* A warp's sums of a tile lie as [8 sequences][8 rows], the last four sequences 8 further. */
EW_DEV uint32_t rows_sums_at(uint32_t sequence)
{
    return sequence * 8 + sequence / 4 * 8;
}
EW_DEV void rows_store_tile(float *red, float v, float w, bool first)
{
    const uint32_t lane = threadIdx.x % 32;
    float *to = red + rows_sums_at(lane % 4 * 2) + lane / 4;

    to[0] = first ? v : v + to[0];
    to[8] = first ? w : w + to[8];
}
/* This warp's sums of one or two tiles, added to what is there unless they are the first. */
EW_DEV void rows_store(const float acc[2][4], float *red, bool two, bool first)
{
    rows_store_tile(red, acc[0][0] + acc[1][0], acc[0][1] + acc[1][1], first);
    if (two)
        rows_store_tile(red + STEP_TILE, acc[0][2] + acc[1][2], acc[0][3] + acc[1][3], first);
}
/* Tiles [t0, t1), each one part. */
template <bool FULL>
EW_DEV void rows_whole(struct step *s, const struct ew_step_phase *ph, uint32_t t0, uint32_t t1,
                       uint4 x[1][4], float *red)
{
    struct plain_range own[1] = { plain_range_of(FULL ? STEP_COLS : ph->k) };
    const uint32_t lane_at = rows_at(ph, own);
    uint32_t left = 0, at = 0;

#pragma unroll 1
    for (uint32_t tile = t0; tile < t1;) {
        struct rows_part p, q;
        float acc[2][4];
        uint32_t n;

        if (!left) {
            left = min(ph->batch, t1 - tile);
            at = ring_at(s) + lane_at;
            ring_wait_full(s);
        }
        n = min(left, 2u);
        rows_take<FULL>(&p, at, own[0].n);
        rows_take<FULL>(&q, n == 2 ? at + ph->part_bytes : at, own[0].n);
        at += 2 * ph->part_bytes;
        left -= n;
        if (!left)
            ring_release(s);
        if (tile == 0) {
            float sum = 0;

            rows_begin(s, ph, x, own, &sum);
        }
        plain_zero(acc);
        rows_mma<true>(acc, &p, &q, x[0]);
        rows_store(acc, red, n == 2, true);
        red += STEP_TILE * n;
        tile += n;
    }
}
/* The input of a round, times the norm's weights where there are some. */
EW_DEV void rows_round(const struct step *s, const struct ew_step_phase *ph, uint32_t col,
                       uint4 x[STEP_ROUND][4], struct plain_range r[STEP_ROUND], float *sum)
{
    rows_input<STEP_ROUND>(s, ph, col, x, r);
    if (!(ph->flags & EW_STEP_NORM))
        return;
#pragma unroll
    for (int j = 0; j < STEP_ROUND; j++) {
        struct rows_norm w;

        asm volatile("" ::: "memory"); /* or all weights are loaded at once, and spilled */
        rows_norm_ask(ph, col + (uint32_t)j * ph->chunk, &r[j], &w);
        rows_norm(x[j], &w, sum);
    }
}
/* The first stage of one tile or two: chunk 0 of both, or chunks 0 and 1 of the one. */
EW_DEV void rows_first(struct step *s, const struct ew_step_phase *ph, bool two,
                       const struct plain_range r[STEP_ROUND], struct rows_part *p,
                       struct rows_part *q)
{
    const uint32_t at = ring_at(s), from = two ? r[0].from : r[1].from;
    struct plain_range second;

    second.from = from;
    second.n = two ? r[0].n : r[1].n;
    ring_wait_full(s);
    rows_take<false>(p, at + rows_at(ph, &r[0]), r[0].n);
    rows_take<false>(q, at + ph->part_bytes + rows_at(ph, &second), second.n);
    ring_release(s);
}
/* One tile or two, n_chunks chunks; p and q: their first stage. */
EW_DEV void rows_tiles(struct step *s, const struct ew_step_phase *ph, uint32_t n_chunks, bool two,
                       const uint4 x[STEP_ROUND][4], const struct plain_range r[STEP_ROUND],
                       struct rows_part *p, struct rows_part *q, float acc[2][4])
{
    float other[2][4];

    plain_zero(other);
    if (two) {
        rows_mma<true>(acc, p, q, x[0]);
#pragma unroll
        for (uint32_t j = 1; j < STEP_ROUND; j++)
            if (j < n_chunks) {
                const uint32_t at = ring_at(s) + rows_at(ph, &r[j]);

                ring_wait_full(s);
                rows_take<false>(p, at, r[j].n);
                rows_take<false>(q, at + ph->part_bytes, r[j].n);
                ring_release(s);
                rows_mma<true>(j % 2 ? other : acc, p, q, x[j]);
            }
    } else {
        rows_mma<false>(acc, p, p, x[0]);
        rows_mma<false>(other, q, q, x[1]);
        if (n_chunks > 2) {
            ring_wait_full(s);
            rows_take<false>(p, ring_at(s) + rows_at(ph, &r[2]), r[2].n);
            ring_release(s);
            rows_mma<false>(acc, p, p, x[2]);
        }
    }
#pragma unroll
    for (int i = 0; i < 8; i++)
        acc[i / 4][i % 4] += other[i / 4][i % 4];
}
/* Tiles [t0, t1), each several chunks; their input is read again for each group of tiles. */
EW_DEV void rows_parts(struct step *s, const struct ew_step_phase *ph, uint32_t t0, uint32_t t1,
                       float *red)
{
    float sum = 0;

#pragma unroll 1
    for (uint32_t col = 0; col < ph->k; col += STEP_ROUND * ph->chunk) {
        const uint32_t n_chunks = (ph->k - col + ph->chunk - 1) / ph->chunk;
        struct plain_range r[STEP_ROUND];
        struct rows_part p, q;
        uint4 x[STEP_ROUND][4];

        rows_ranges<STEP_ROUND>(ph, col, r);
        rows_round(s, ph, col, x, r, &sum);
        rows_first(s, ph, t0 + 1 < t1, r, &p, &q);
#pragma unroll 1
        for (uint32_t tile = t0;;) {
            const bool two = tile + 1 < t1;
            float acc[2][4];

            plain_zero(acc);
            rows_tiles(s, ph, n_chunks, two, x, r, &p, &q, acc);
            rows_store(acc, red + (tile - t0) * STEP_TILE, two, col == 0);
            tile += 2;
            if (tile >= t1)
                break;
            rows_first(s, ph, tile + 1 < t1, r, &p, &q);
        }
    }
    if (t0 == 0)
        rows_sum_store(s, ph, sum);
    step_mark(s, 2);
}

/* ---- the output: of a group, warp i makes outputs 8i to 8i + 7, lane 4s + p pair p of sequence s
 * ---- */
/* Where a pair of the residual is, and what is there so far. Rows of the residual are as long as
 * those of w: step.c takes none behind a gate. */
EW_DEV uint2 rows_kept(const struct step *s, const struct ew_step_phase *ph, uint32_t out,
                       uint32_t end)
{
    const uint32_t o = out + threadIdx.x / 32 * 8 + threadIdx.x % 4 * 2;
    const uint32_t row = threadIdx.x % 32 / 4;

    if (!(ph->flags & EW_STEP_RESIDUAL) || o >= end || row >= s->a->sequences)
        return make_uint2(0, 0);
    return words_load2(words_now(s) + ph->kept * 8ull + (row * ph->n + o) * 4);
}
/* Weights of the norm that reads a pair. */
EW_DEV float2 rows_next_norm(const struct ew_step_phase *ph, uint32_t out, uint32_t end)
{
    const uint32_t o = out + threadIdx.x / 32 * 8 + threadIdx.x % 4 * 2;

    if (!(EW_STEP_KINDS & STEP_QUANTS) || !ph->rope || o >= end)
        return make_float2(1, 1);
    return *(const float2 *)(ph->rope + o * 4ull);
}
/* Sends a pair to panels behind a norm, and its square; of the four of a warp and sequence one. */
template <bool PANEL>
EW_DEV void rows_put_normed(const struct step *s, const struct ew_step_phase *ph, uint32_t row,
                            uint32_t o, uint32_t n_out, float2 z, float2 norm)
{
    const uint32_t four = 15u << (threadIdx.x % 32 & ~3u);
    float sum = z.x * z.x + z.y * z.y;

    words_put_pair(s, ph->out, ph->flags, row, o, z.x * norm.x, z.y * norm.y);
    if (PANEL) {
        sum += __shfl_xor_sync(four, sum, 1);
        sum += __shfl_xor_sync(four, sum, 2);
        if (threadIdx.x % 4 == 0)
            words_put_square(s, ph->squares, row, n_out / 8, o / 8, sum);
    } else {
        words_put_square(s, ph->squares, row, n_out / 2, o / 2, sum);
    }
}
/* Sums of a pair of outputs over all warps. */
EW_DEV float2 rows_red(const float *red)
{
    float2 v[EW_STEP_WARPS], sum = make_float2(0, 0);

#pragma unroll
    for (int i = 0; i < EW_STEP_WARPS; i++)
        v[i] = *(const float2 *)(red + i * STEP_RED);
#pragma unroll
    for (int i = 0; i < EW_STEP_WARPS; i += 4) {
        sum.x += (v[i].x + v[i + 1].x) + (v[i + 2].x + v[i + 3].x);
        sum.y += (v[i].y + v[i + 1].y) + (v[i + 2].y + v[i + 3].y);
    }
    return sum;
}
/* Outputs o and o + 1; no further than `last`. */
EW_DEV float2 rows_z(const struct ew_step_phase *ph, float2 z, float inv, uint32_t o, uint32_t last)
{
    return make_float2(step_z(ph, z.x, inv, min(o, last)), step_z(ph, z.y, inv, min(o + 1, last)));
}
EW_DEV void rows_logits(const struct step *s, const struct ew_step_phase *ph, uint32_t row,
                        uint32_t o, float2 z, struct step_best *best)
{
    const bool two = o + 1 < ph->n;

    if (s->a->logits) {
        float *to = (float *)s->a->logits + (uint64_t)row * ph->n + o;

        to[0] = z.x;
        if (two)
            to[1] = z.y;
    }
    if (z.x > best->v) {
        best->v = z.x;
        best->i = (int)o;
    }
    if (two && z.y > best->v) {
        best->v = z.y;
        best->i = (int)o + 1;
    }
    if (z.x != z.x || (two && z.y != z.y)) {
        best->v = STEP_INF;
        best->i = -1;
    }
}
/* Outputs [out, out + n) from the sums of a group. PANEL: gate and up are tiles of 8, else of 4
 * rows beside each other. */
template <bool PANEL>
EW_DEV void rows_epilogue(struct step *s, const struct ew_step_phase *ph, uint32_t out, uint32_t n,
                          float *inv, bool is_first, uint2 kept, float2 norm,
                          struct step_best *best)
{
    const bool glu = ph->flags & EW_STEP_GLU;
    const uint32_t warp = threadIdx.x / 32, row = threadIdx.x % 32 / 4, pair = threadIdx.x % 4;
    const uint32_t n_out = glu ? ph->n / 2 : ph->n, i = warp * 8 + pair * 2, o = out + i;
    const float *red = s->red + s->half * (STEP_RED * EW_STEP_WARPS) + rows_sums_at(row) +
                       (glu && PANEL ? warp * 2 * STEP_TILE + pair * 2
                        : glu        ? (warp * 2 + pair / 2) * STEP_TILE + pair % 2 * 2
                                     : warp * STEP_TILE + pair * 2);
    float2 z, up = make_float2(1, 1);

    if (warp * 8 >= n)
        return;
    z = rows_red(red);
    if (glu)
        up = rows_red(red + (PANEL ? STEP_TILE : 4));
    if (is_first)
        *inv = rows_inv_rms(s, ph);
    z = rows_z(ph, z, *inv, o, n_out - 1);
    if (ph->act)
        z = make_float2(step_act(z.x), step_act(z.y));
    if (glu) {
        up = rows_z(ph, up, *inv, n_out + o, ph->n - 1);
        z.x *= up.x;
        z.y *= up.y;
    }
    if (i >= n || row >= s->a->sequences)
        return;
    if (ph->flags & EW_STEP_RESIDUAL) {
        const float2 v =
            words_wait2(s, words_now(s) + ph->kept * 8ull + (row * n_out + o) * 4, kept);

        z.x += v.x;
        z.y += v.y;
    }
    if (ph->flags & EW_STEP_HEAD)
        rows_logits(s, ph, row, o, z, best);
    if (EW_STEP_KINDS & STEP_QUANTS && ph->rope)
        rows_put_normed<PANEL>(s, ph, row, o, n_out, z, norm);
    else if (ph->flags & EW_STEP_PAIRS)
        words_put_pair(s, ph->out, ph->flags, row, o, z.x, z.y);
    if (ph->flags & EW_STEP_SINGLES)
        words_put(s, ph->singles, row * n_out + o, z.x, z.y);
}
/* WAY: enum ew_step_plain. What products need of the entry is in registers; the output reads the
 * rest of it from shared memory: more registers would not fit. */
template <int WAY>
EW_DEV void rows_way(struct step *s, const struct ew_step_phase *entry, const struct step_range *r,
                     struct step_best *best)
{
    const struct ew_step_phase copy = *entry, *ph = &copy;
    const uint32_t per = ph->flags & EW_STEP_GLU ? 4 : 8;
    uint2 kept = rows_kept(s, entry, r->out, r->end);
    float2 norm = rows_next_norm(entry, r->out, r->end);
    uint4 x[1][4];
    float inv = 1;

#pragma unroll
    for (int i = 0; i < 4; i++)
        x[0][i] = make_uint4(0, 0, 0, 0);
#pragma unroll 1
    for (uint32_t t0 = 0; t0 < r->n_tiles; t0 += STEP_TILES) {
        const uint32_t t1 = min(t0 + STEP_TILES, r->n_tiles), out = r->out + t0 * per;
        float *red = s->red + (s->half * EW_STEP_WARPS + threadIdx.x / 32) * STEP_RED;

        if (WAY == EW_STEP_PARTS)
            rows_parts(s, ph, t0, t1, red);
        else
            rows_whole<WAY == EW_STEP_WHOLE>(s, ph, t0, t1, x, red);
        step_mark(s, 4);
        sync_warps();
        step_mark(s, 5);
        rows_epilogue<false>(s, entry, out, min((t1 - t0) * per, r->end - out), &inv, t0 == 0, kept,
                             norm, best);
        step_mark(s, 6);
        kept = rows_kept(s, entry, out + STEP_TILES * per, r->end);
        norm = rows_next_norm(entry, out + STEP_TILES * per, r->end);
        s->half ^= 1;
    }
}
EW_DEV void rows_linear(struct step *s, const struct ew_step_phase *ph, struct step_best *best)
{
    const struct step_range r = step_range_of<EW_STEP_PLAIN16>(ph, s->cta, s->n_cta);

    if (!r.n_tiles) /* and waits for nobody */
        return;
    if (EW_STEP_PLAINS & EW_STEP_PARTS && ph->k > ph->chunk)
        rows_way<EW_STEP_PARTS>(s, ph, &r, best);
    else if (EW_STEP_PLAINS & EW_STEP_WHOLE && ph->k == STEP_COLS)
        rows_way<EW_STEP_WHOLE>(s, ph, &r, best);
    else if (EW_STEP_PLAINS & EW_STEP_SHORT)
        rows_way<EW_STEP_SHORT>(s, ph, &r, best);
}

#endif

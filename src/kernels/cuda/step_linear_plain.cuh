/* kernels/cuda/step_linear_plain.cuh - linear phases of step.cu, rows of bf16 or f16: the input and
 * the products of a stage. Device only.
 *
 * Of each chunk of columns a warp has a range of its own, and of the input only that: it waits for
 * those packets, keeps them in shared memory that no other warp touches, and multiplies. Nothing
 * but the sums of a tile ever meets another warp, so a phase has one barrier, before its outputs.
 *
 * One mma takes 32 columns of 8 rows, as 16 bytes of a lane hold them: words 0 and 2 are rows 0..7
 * of its A operand, words 1 and 3 are rows 8..15, and of B the even columns have the input of the
 * first, the odd ones that of the second. Rows lie in shared memory without gaps, as they came; so
 * that two rows that are read together lie in other banks, odd ones take the halves of 64 columns
 * the other way round: of B, columns 2 and 3 are for them, 0 and 1 for even rows. What is wanted is
 * where row and column agree; the rest of the product is not used. */
#ifndef EW_KERNELS_CUDA_STEP_LINEAR_PLAIN_CUH
#define EW_KERNELS_CUDA_STEP_LINEAR_PLAIN_CUH

#include "step_dev.cuh"

#define STEP_OWN (STEP_COLS / EW_STEP_WARPS) /* columns of a chunk, a warp's at most */

/* A warp's columns of a chunk of `cols`: [from, from + n), n a multiple of 64. */
struct plain_range {
    uint32_t from, n;
};
EW_DEV struct plain_range plain_range_of(uint32_t cols)
{
    const uint32_t own = (cols + 64 * EW_STEP_WARPS - 1) / (64 * EW_STEP_WARPS) * 64;
    struct plain_range r;

    r.from = threadIdx.x / 32 * own;
    r.n = r.from < cols ? min(own, cols - r.from) : 0;
    return r;
}

/* ---- the input ---- */
EW_DEV bool plain_there(const struct two_packets *p, uint32_t seq)
{
    return packet_is(p->a, seq) && packet_is(p->b, seq);
}
/* Waits for this warp's columns of ASK chunks from `col` on, asked for together: an answer takes
 * 600 clocks. Their squares' sum is added to *sum where the input has a norm. */
template <int ASK, bool NORM>
EW_DEV void plain_input(const struct step *s, const struct ew_step_phase *ph, uint32_t col,
                        float *sum)
{
    const uint32_t lane = threadIdx.x % 32, x = smem_of(s->x);
    const uint64_t in = pairs_at(s, ph->in);
    struct two_packets p[ASK];
    float4 w[ASK];
    uint32_t at[ASK], n = 0;
    bool all;

#pragma unroll
    for (int j = 0; j < ASK; j++) {
        const uint32_t c = col + (uint32_t)j * ph->chunk;
        const struct plain_range r = plain_range_of(c < ph->k ? min(ph->chunk, ph->k - c) : 0);

        at[j] = lane * 4 < r.n ? c + r.from + lane * 4 : EW_ALL;
        p[j].a = p[j].b = (uint64_t)s->in_seq << 32;
        w[j] = make_float4(1, 1, 1, 1);
        if (NORM && at[j] != EW_ALL)
            w[j] = *(const float4 *)(ph->norm + (uint64_t)at[j] * 4);
    }
#pragma unroll
    for (int j = 0; j < ASK; j++)
        if (at[j] != EW_ALL)
            p[j] = packets_load(in + (uint64_t)at[j] * 4);
    for (;;) {
        all = true;
#pragma unroll
        for (int j = 0; j < ASK; j++)
            all = all && plain_there(&p[j], s->in_seq);
        if (all)
            break;
        if (++n > EW_STEP_POLL_LIMIT)
            step_gave_up(s);
#pragma unroll
        for (int j = 0; j < ASK; j++) /* what is there is not asked for again */
            if (!plain_there(&p[j], s->in_seq))
                p[j] = packets_load(in + (uint64_t)at[j] * 4);
    }
    step_mark(s, 1);
#pragma unroll
    for (int j = 0; j < ASK; j++) {
        uint32_t a = (uint32_t)p[j].a, b = (uint32_t)p[j].b;

        if (NORM) {
            const float2 u = pair_value(p[j].a), v = pair_value(p[j].b);

            *sum += u.x * u.x + u.y * u.y + (v.x * v.x + v.y * v.y);
            a = half2_of<EW_STEP_W_F16>(u.x * w[j].x, u.y * w[j].y);
            b = half2_of<EW_STEP_W_F16>(v.x * w[j].z, v.y * w[j].w);
        }
        if (at[j] != EW_ALL) { /* words of 16 bytes in the order 0, 2, 1, 3: see plain_x */
            const uint32_t to = x + at[j] * 2 - lane % 2 * 4;

            sts32(to, a);
            sts32(to + 8, b);
        }
    }
}
/* All of this warp's columns; chunks are as in plain_input. */
template <int ASK>
EW_DEV void plain_inputs(struct step *s, const struct ew_step_phase *ph, float *sum)
{
    if (ph->flags & EW_STEP_NORM) {
#pragma unroll 1
        for (uint32_t col = 0; col < ph->k; col += ASK * ph->chunk)
            plain_input<ASK, true>(s, ph, col, sum);
    } else { /* often longer, and half the registers */
#pragma unroll 1
        for (uint32_t col = 0; col < ph->k; col += (ASK > 1 ? 5 : 1) * ph->chunk)
            plain_input<ASK == 1 ? 1 : 5, false>(s, ph, col, sum);
    }
    __syncwarp();
    step_mark(s, 2);
}

/* Tiles [t0, t1) of which sums go to red; behind the wait for the input, where t0 is 0, *sum is
 * this thread's part of the sum of its squares.
 * ---- products. FULL: all warps have STEP_OWN columns. Every register is written, whatever the
 * range: one that is not lives through the whole kernel, and others spill ---- */
struct plain_part {
    uint4 w[4];
};
template <bool FULL> EW_DEV uint4 plain_lds(uint32_t at, bool has)
{
    return FULL || has ? lds128(at) : make_uint4(0, 0, 0, 0);
}
/* Words 0 and 2, or 1 and 3, of 8 columns. */
struct plain_input_part {
    uint2 x[4];
};
template <bool FULL>
EW_DEV void plain_x(struct plain_input_part *p, const struct step *s, uint32_t col,
                    const struct plain_range *r)
{
    const uint32_t lane = threadIdx.x % 32, other = lane & 8 ? (uint32_t)-64 : 64;
    const uint32_t at =
        smem_of(s->x) + (col + r->from) * 2 + (lane & 8) * 8 + lane % 4 * 16 + (lane & 4) * 2;
    const uint2 none = make_uint2(0, 0);

    p->x[0] = FULL || r->n > 0 ? lds64(at) : none;
    p->x[1] = FULL || r->n > 0 ? lds64(at + other) : none;
    p->x[2] = FULL || r->n > 64 ? lds64(at + 128) : none;
    p->x[3] = FULL || r->n > 64 ? lds64(at + 128 + other) : none;
}
template <bool FULL>
EW_DEV void plain_w(struct plain_part *p, uint32_t at, const struct plain_range *r)
{
    const uint32_t other = threadIdx.x & 4 ? (uint32_t)-64 : 64;

    p->w[0] = plain_lds<FULL>(at, r->n > 0);
    p->w[1] = plain_lds<FULL>(at + other, r->n > 0);
    p->w[2] = plain_lds<FULL>(at + 128, r->n > 64);
    p->w[3] = plain_lds<FULL>(at + 128 + other, r->n > 64);
}
EW_DEV void plain_mma(float acc[2][4], const struct plain_part *p, const struct plain_input_part *x)
{
#pragma unroll
    for (uint32_t i = 0; i < 4; i++)
        mma16<EW_STEP_W_F16>(acc[i % 2], p->w[i].x, p->w[i].y, p->w[i].z, p->w[i].w, x->x[i].x,
                             x->x[i].y);
}
EW_DEV void plain_zero(float acc[2][4])
{
#pragma unroll
    for (int i = 0; i < 2; i++)
        acc[i][0] = acc[i][1] = acc[i][2] = acc[i][3] = 0;
}
/* This warp's sums of a tile of 8 rows; red: of its first row. */
EW_DEV void plain_store(const float acc[2][4], float *red)
{
    const uint32_t lane = threadIdx.x % 32;

    if (lane % 4 == (lane / 4 & 1))
        red[lane / 4 * EW_STEP_WARPS] = (acc[0][0] + acc[0][3]) + (acc[1][0] + acc[1][3]);
}
/* Where a lane's weights are in a part. */
EW_DEV uint32_t plain_at(const struct ew_step_phase *ph, const struct plain_range *r)
{
    const uint32_t lane = threadIdx.x % 32;

    return lane / 4 * (ph->chunk * 2) + r->from * 2 + (lane & 4) * 16 + lane % 4 * 16;
}

/* Two parts, or one, in registers. */
struct plain_pair {
    struct plain_part p, q;
    bool two;
};
struct plain_walk {
    uint32_t left; /* tiles that were not asked for */
    uint32_t here; /* of them in the stage that is there */
    uint32_t at;
};
/* The next of a walk that has some. The stage is free again as soon as its last part was read. */
template <bool FULL>
EW_DEV void plain_take(struct plain_pair *pair, struct plain_walk *w, struct step *s,
                       const struct ew_step_phase *ph, const struct plain_range *r)
{
    if (!w->here) {
        ring_wait_full(s);
        w->here = min(ph->batch, w->left);
        w->at = ring_at(s) + plain_at(ph, r);
    }
    pair->two = w->here > 1;
    if (!(EW_STEP_BOUND & 4)) {
        plain_w<FULL>(&pair->p, w->at, r);
        plain_w<FULL>(&pair->q, pair->two ? w->at + ph->part_bytes : w->at, r);
    }
    w->at += 2 * ph->part_bytes;
    w->here -= pair->two ? 2 : 1;
    w->left -= pair->two ? 2 : 1;
    if (!w->here)
        ring_release(s);
}
EW_DEV void plain_give(float acc[2][4], float acc2[2][4], const struct plain_pair *pair,
                       const struct plain_input_part *x)
{
    plain_zero(acc);
    plain_zero(acc2);
    if (!(EW_STEP_BOUND & 4)) {
        plain_mma(acc, &pair->p, x);
        plain_mma(acc2, &pair->q, x);
    }
}
EW_DEV float *plain_keep(const float acc[2][4], const float acc2[2][4], bool two, float *red)
{
    plain_store(acc, red);
    if (two)
        plain_store(acc2, red + 8 * EW_STEP_WARPS);
    return red + 16 * EW_STEP_WARPS;
}
/* Tiles [t0, t1), each one part: the input stays in registers. Two parts at once, or every product
 * would wait for its own loads, and two more on their way; so the first four are in registers
 * before the input is there. What the norm needs of the other warps is worked out while the first
 * products are. */
template <bool FULL>
EW_DEV void plain_tiles_whole(struct step *s, const struct ew_step_phase *ph, uint32_t t0,
                              uint32_t t1, float *red)
{
    const struct plain_range r = plain_range_of(FULL ? STEP_COLS : ph->k);
    struct plain_walk walk = { t1 - t0, 0, 0 };
    struct plain_pair a, b = {}; /* written in any case, or it would live through the kernel */
    struct plain_input_part x;
    bool has_a, has_b;
    float acc[2][4], acc2[2][4], sum = 0;

    plain_take<FULL>(&a, &walk, s, ph, &r);
    has_b = walk.left > 0;
    if (has_b)
        plain_take<FULL>(&b, &walk, s, ph, &r);
    if (t0 == 0)
        plain_inputs<1>(s, ph, &sum);
    plain_x<FULL>(&x, s, 0, &r);
    plain_give(acc, acc2, &a, &x);
    if (t0 == 0)
        step_sum_store(s, ph, sum);
#pragma unroll 1
    for (;;) {
        red = plain_keep(acc, acc2, a.two, red);
        if (!has_b)
            break;
        has_a = walk.left > 0;
        if (has_a)
            plain_take<FULL>(&a, &walk, s, ph, &r);
        plain_give(acc, acc2, &b, &x);
        red = plain_keep(acc, acc2, b.two, red);
        if (!has_a)
            break;
        has_b = walk.left > 0;
        if (has_b)
            plain_take<FULL>(&b, &walk, s, ph, &r);
        plain_give(acc, acc2, &a, &x);
    }
}
/* The same where a tile has several parts; their input is read again for each tile. */
EW_DEV void plain_tiles_parts(struct step *s, const struct ew_step_phase *ph, uint32_t t0,
                              uint32_t t1, float *red)
{
    uint32_t left = (t1 - t0) * ((ph->k + ph->chunk - 1) / ph->chunk), col = 0;
    float acc[2][4], acc2[2][4], sum = 0;
    bool waits = t0 == 0;

    plain_zero(acc);
#pragma unroll 1
    while (left) {
        const uint32_t n = min(ph->batch, left);
        uint32_t at = ring_at(s);

        ring_wait_full(s);
#pragma unroll 1
        for (uint32_t i = 0; i < n && !(EW_STEP_BOUND & 4); i += 2) {
            const bool two = i + 1 < n, ends = col + ph->chunk >= ph->k;
            const uint32_t col2 = ends ? 0 : col + ph->chunk;
            const bool ends2 = two && col2 + ph->chunk >= ph->k;
            const struct plain_range r = plain_range_of(min(ph->chunk, ph->k - col));
            const struct plain_range r2 = plain_range_of(two ? min(ph->chunk, ph->k - col2) : 0);
            struct plain_pair w;
            struct plain_input_part x, y;

            plain_w<false>(&w.p, at + plain_at(ph, &r), &r);
            plain_w<false>(&w.q, at + ph->part_bytes + plain_at(ph, &r2), &r2);
            if (waits)
                plain_inputs<3>(s, ph, &sum);
            plain_x<false>(&x, s, col, &r);
            plain_x<false>(&y, s, col2, &r2);
            plain_zero(acc2);
            plain_mma(acc, &w.p, &x);
            plain_mma(acc2, &w.q, &y);
            if (waits)
                step_sum_store(s, ph, sum);
            waits = false;
            if (ends) {
                plain_store(acc, red);
                plain_zero(acc);
                red += 8 * EW_STEP_WARPS;
            }
#pragma unroll
            for (int j = 0; j < 8; j++)
                acc[j / 4][j % 4] += acc2[j / 4][j % 4];
            if (ends2) {
                plain_store(acc, red);
                plain_zero(acc);
                red += 8 * EW_STEP_WARPS;
            }
            at += 2 * ph->part_bytes;
            col = !two ? col2 : ends2 ? 0 : col2 + ph->chunk;
        }
        left -= n;
        ring_release(s);
    }
}

#endif

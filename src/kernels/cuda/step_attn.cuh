/* kernels/cuda/step_attn.cuh - the attention phase of step.cu: QK norm, RoPE, append, attention
 * over the cache, and where the positions were split between blocks their merge. Device only.
 *
 * Block c serves kv head c % hkv and split c / hkv of the positions; where they are too few to be
 * split, query head c alone. The new position's key and
 * value come from packets; the rest of the cache comes through the ring, keys of up to 128
 * positions, then their values. Of each a warp has 16 positions of its own, with a softmax of its
 * own: warps meet twice, when the queries are ready and when their results are added up. */
#ifndef EW_KERNELS_CUDA_STEP_ATTN_CUH
#define EW_KERNELS_CUDA_STEP_ATTN_CUH

#include "step_dev.cuh"

#ifndef EW_STEP_G
#    define EW_STEP_G 2 /* query heads of a kv head, rounded up to 1, 2, 4 or 8 */
#endif
#ifndef EW_STEP_D
#    define EW_STEP_D 128 /* 64 or 128 */
#endif
#define STEP_D4   (EW_STEP_D / 4) /* lanes that have a position's values, four each */
#define STEP_QROW (EW_STEP_D * 2 + 16)

/* Where this block stands; made anew where the window changes. */
EW_DEV void step_kv_set(struct step *s, uint32_t window)
{
    struct step_kv v;

    v.window = window;
    v.head = s->cta % s->a->hkv;
    v.split = s->cta / s->a->hkv;
    v.pos = s->context - 1;
    v.first = window && s->context > window ? s->context - window : 0;
    v.blocks = (s->context - v.first + EW_STEP_KV_BLOCK - 1) / EW_STEP_KV_BLOCK;
    v.splits = min(s->splits, (v.blocks + EW_STEP_KV_SPLIT - 1) / EW_STEP_KV_SPLIT);
    v.q = v.head * s->g;
    v.g = s->g;
    if (v.splits == 1 && s->n_cta >= s->a->hq) { /* one query head a block */
        v.q = s->cta;
        v.g = 1;
        v.head = v.q / s->g;
        v.split = v.q >= s->a->hq;
    }
    v.begin = v.blocks * v.split / v.splits;
    v.end = v.blocks * (v.split + 1) / v.splits;
    __syncwarp();
    if (threadIdx.x % 32 == 0)
        *s->kv = v;
    __syncwarp();
}
/* Positions, of the blocks of a stage from b on, that the cache has from before. */
EW_DEV uint32_t step_kv_olds(const struct step *s, const struct step_kv *v, uint32_t b)
{
    const uint32_t from = v->first + b * EW_STEP_KV_BLOCK;

    return v->pos > from ? min(v->pos - from, min(s->a->kv_batch, v->end - b) * EW_STEP_KV_BLOCK)
                         : 0;
}
EW_DEV uint64_t step_kv_at(const struct ew_step_phase *ph, uint32_t hkv, const struct step_kv *v,
                           uint32_t which, uint32_t pos)
{
    const uint32_t vector = (EW_STEP_ROWS > 1 ? v->row * 2 + which : which) * hkv + v->head;

    return ph->w + ((uint64_t)vector * ph->cap + pos) * (EW_STEP_D * 2);
}

/* What this block does of the heads and positions that s->kv names. */
EW_DEV void copy_heads(struct step *s, const struct ew_step_phase *ph)
{
    const struct step_kv v = *s->kv;

    if (v.split >= v.splits)
        return;
#pragma unroll 1
    for (uint32_t b = v.begin; b < v.end; b += s->a->kv_batch) {
        const uint32_t bytes = step_kv_olds(s, &v, b) * EW_STEP_D * 2;

        if (!bytes)
            continue;
#pragma unroll 1
        for (uint32_t which = 0; which < 2; which++)
            if (copy_begin(s, bytes)) {
                copy_run(s, ring_at(s),
                         step_kv_at(ph, s->a->hkv, &v, which, v.first + b * EW_STEP_KV_BLOCK),
                         bytes);
                copy_end(s);
            }
    }
}
EW_DEV void copy_attention(struct step *s, const struct ew_step_phase *ph)
{
    if (s->kv->window != ph->window)
        step_kv_set(s, ph->window);
    copy_heads(s, ph);
}

struct step_attn {
    float vec[EW_STEP_G + 2][EW_STEP_D]; /* queries, key, value: after norm and RoPE */
    char q[2][EW_STEP_G][STEP_QROW];     /* high and low halves of the queries */
    float p[EW_STEP_WARPS][EW_STEP_KV_TILE][EW_STEP_G]; /* weights of a warp's positions */
    float2 ml[EW_STEP_WARPS][EW_STEP_G];  /* of a warp: largest score, sum of weights */
    __align__(16) float fresh[EW_STEP_G]; /* the new position's scores */
    __align__(16) float part[EW_STEP_WARPS][EW_STEP_G][EW_STEP_D];
};

#if EW_STEP_ROWS > 1
#    include "step_attn_rows.cuh"
#else
/* This lane's part of vector `row` of the input. */
EW_DEV void attn_wait(const struct step *s, const struct ew_step_phase *ph,
                      const struct step_kv *kv, uint32_t row, float v[EW_STEP_D / 32])
{
    constexpr int PER = EW_STEP_D / 32;
    const uint64_t at =
        s->a->workspace + (uint64_t)(ph->in + row * EW_STEP_D + threadIdx.x % 32 * PER) * 8;
    struct two_packets p[PER / 2];

    (void)kv;
    for (uint32_t n = 0;; n++) {
        bool all = true;

#    pragma unroll
        for (int j = 0; j < PER / 2; j++)
            p[j] = packets_load(at + 16 * j);
#    pragma unroll
        for (int j = 0; j < PER / 2; j++) {
            all = all && packet_is(p[j].a, s->in_seq) && packet_is(p[j].b, s->in_seq);
            v[2 * j] = packet_value(p[j].a);
            v[2 * j + 1] = packet_value(p[j].b);
        }
        if (all)
            break;
        if (n > EW_STEP_POLL_LIMIT)
            step_gave_up(s);
    }
}
/* Pair `pair` of the output of this unit's heads: copies first, first + by, ... of it. */
EW_DEV void attn_put(const struct step *s, const struct ew_step_phase *ph, const struct step_kv *kv,
                     uint32_t pair, float x, float y, uint32_t first, uint32_t by)
{
    const uint32_t at = ph->out + kv->q * (EW_STEP_D / 2) + pair + first * s->a->copy;

    pair_send(s, s->a->workspace + (uint64_t)at * 8, x, y, s->seq, by);
}
#endif

/* Vector w (queries, then key, then value) of this head into sm->vec, by one warp. */
EW_DEV void attn_vector(const struct step *s, const struct ew_step_phase *ph, struct step_attn *sm,
                        const struct step_kv *kv, uint32_t w, uint32_t g)
{
    constexpr int PER = EW_STEP_D / 32;
    const uint32_t lane = threadIdx.x % 32, half = ph->rd / 2;
    const uint32_t row = w < g ? kv->q + w : s->a->hq + kv->head + (w > g ? s->a->hkv : 0);
    const uint64_t weight = w < g ? ph->norm : w == g ? ph->bias : 0;
    const float *rope = (const float *)ph->rope + (uint64_t)kv->pos * ph->rd +
                        (EW_STEP_ROWS > 1 ? (uint64_t)kv->row * ph->n : 0);
    float *vec = sm->vec[w < g ? w : EW_STEP_G + (w - g)];
    float v[PER], nw[PER], co[PER], si[PER], inv, sum = 0;

#pragma unroll
    for (int j = 0; j < PER; j++) {
        const uint32_t i = lane * PER + j, a = i < half ? i : i - half;

        nw[j] = weight ? ((const float *)weight)[i] : 1;
        co[j] = 1;
        si[j] = 0;
        if (ph->rope && w <= g && i < ph->rd) {
            co[j] = rope[a];
            si[j] = i < half ? -rope[half + a] : rope[half + a];
        }
    }
    attn_wait(s, ph, kv, row, v);
    __syncwarp();
    /* rotated first, scaled by the norm last: its sum takes as long as the partners */
#pragma unroll
    for (int j = 0; j < PER; j++) {
        sum += v[j] * v[j];
        v[j] *= nw[j];
    }
    if (w <= g && ph->rope) {
        float other[PER];

        if (ph->rd == EW_STEP_D) {
#pragma unroll
            for (int j = 0; j < PER; j++)
                other[j] = __shfl_xor_sync(EW_ALL, v[j], 16);
        } else {
#pragma unroll
            for (int j = 0; j < PER; j++)
                vec[lane * PER + j] = v[j];
            __syncwarp();
#pragma unroll
            for (int j = 0; j < PER; j++) {
                const uint32_t i = lane * PER + j;

                other[j] = i < ph->rd ? vec[i < half ? i + half : i - half] : 0;
            }
            __syncwarp();
        }
#pragma unroll
        for (int j = 0; j < PER; j++)
            v[j] = v[j] * co[j] + other[j] * si[j];
    }
    if (weight) {
        inv = rsqrtf(warp_sum(sum) / EW_STEP_D + ph->eps);
#pragma unroll
        for (int j = 0; j < PER; j++)
            v[j] *= inv;
    }
    if (w < g) {
#pragma unroll
        for (int j = 0; j < PER; j += 2) {
            const uint32_t i = lane * PER + j, h = half2_of<EW_STEP_KV_F16>(v[j], v[j + 1]);
            const float2 hi = half2_get<EW_STEP_KV_F16>(h);

            *(uint32_t *)(sm->q[0][w] + i * 2) = h;
            *(uint32_t *)(sm->q[1][w] + i * 2) =
                half2_of<EW_STEP_KV_F16>(v[j] - hi.x, v[j + 1] - hi.y);
            vec[i] = v[j];
            vec[i + 1] = v[j + 1];
        }
        return;
    }
#pragma unroll
    for (int j = 0; j < PER; j += 2) {
        const uint32_t i = lane * PER + j, h = half2_of<EW_STEP_KV_F16>(v[j], v[j + 1]);
        const float2 kept = half2_get<EW_STEP_KV_F16>(h);

        if (kv->split + 1 == kv->splits && kv->q % s->g == 0 && kv->pos < ph->cap)
            *(uint32_t *)(step_kv_at(ph, s->a->hkv, kv, w - g, kv->pos) + i * 2) = h;
        vec[i] = kept.x;
        vec[i + 1] = kept.y;
    }
}

/* Scores are in units of ln 2, so that weights are powers of two. */
EW_DEV float attn_score(const struct ew_step_phase *ph, float v)
{
    constexpr float UNIT = 1.4426950408889634f;

    if (EW_STEP_SOFTCAP && ph->softcap != 0)
        return ph->softcap * UNIT * tanhf(v * ph->scale / ph->softcap);
    return v * (ph->scale * UNIT);
}
EW_DEV float attn_weight(float v)
{
    float r;

    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(v));
    return r;
}
/* Keys of 16 positions, rows of a stage from `at` on; lane 4g + t has parts of rows g and 8 + g.
 * Rows are not padded, so odd ones take their halves of 128 bytes the other way round. */
#define STEP_KEY (EW_STEP_D / 32)
struct attn_keys {
    uint4 k[2][STEP_KEY];
};
EW_DEV void attn_take(struct attn_keys *p, uint32_t at)
{
    const uint32_t lane = threadIdx.x % 32, g = lane / 4, odd = g & 1;

    at += g * (EW_STEP_D * 2) + lane % 4 * 16;
#pragma unroll
    for (uint32_t r = 0; r < 2; r++)
#pragma unroll
        for (uint32_t i = 0; i < STEP_KEY; i += 2) {
            const uint32_t row = at + r * 8 * (EW_STEP_D * 2);
            const uint4 u = lds128(row + (i + odd) * 64), v = lds128(row + (i + 1 - odd) * 64);

            p->k[r][i] = odd ? v : u;
            p->k[r][i + 1] = odd ? u : v;
        }
}
/* Scores of rows 8r ..: *v0 and *v1 of positions 2t and 2t + 1 and head g. */
EW_DEV void attn_scores(const struct ew_step_phase *ph, const uint4 *k, const uint4 *q, float *v0,
                        float *v1)
{
    float c[2][4] = { { 0, 0, 0, 0 }, { 0, 0, 0, 0 } };

#pragma unroll
    for (int i = 0; i < STEP_KEY; i++) {
        const uint4 b = k[i], h = q[i], l = q[STEP_KEY + i];

        mma16<EW_STEP_KV_F16>(c[0], h.x, l.x, h.y, l.y, b.x, b.y);
        mma16<EW_STEP_KV_F16>(c[1], h.z, l.z, h.w, l.w, b.z, b.w);
    }
    *v0 = attn_score(ph, (c[0][0] + c[1][0]) + (c[0][2] + c[1][2]));
    *v1 = attn_score(ph, (c[0][1] + c[1][1]) + (c[0][3] + c[1][3]));
}

/* What a warp has of its positions so far, for up to G heads. */
template <int G> struct attn_sums {
    float o[G][4]; /* values times weights: lane's columns */
    float m, l;    /* of head lane / 4: largest score; this lane's part of the sum of weights */
};

/* n <= KV_TILE positions: their weights go to p. */
template <int G>
EW_DEV void attn_weights(const struct ew_step_phase *ph, struct step_attn *sm,
                         const struct attn_keys *k, uint32_t n, const uint4 *q,
                         struct attn_sums<G> *a)
{
    const uint32_t lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    float(*p)[EW_STEP_G] = sm->p[threadIdx.x / 32];
    float v[4], m = a->m, alpha;

    attn_scores(ph, k->k[0], q, &v[0], &v[1]);
    attn_scores(ph, k->k[1], q, &v[2], &v[3]);
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
        v[i] = i / 2 * 8 + 2 * t + i % 2 < n ? v[i] : -STEP_INF;
        m = fmaxf(m, v[i]);
    }
    m = fmaxf(m, __shfl_xor_sync(EW_ALL, m, 1));
    m = fmaxf(m, __shfl_xor_sync(EW_ALL, m, 2));
    alpha = attn_weight(a->m - m); /* m is a number: the first position is there */
    a->l *= alpha;
    a->m = m;
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
        v[i] = attn_weight(v[i] - m);
        a->l += v[i];
        if (g < G)
            p[i / 2 * 8 + 2 * t + i % 2][g] = v[i];
    }
#pragma unroll
    for (int h = 0; h < G; h++) {
        const float f = __shfl_sync(EW_ALL, alpha, h * 4);

#pragma unroll
        for (int i = 0; i < 4; i++)
            a->o[h][i] *= f;
    }
    __syncwarp();
}

template <int G> EW_DEV void attn_value(const float *p, uint32_t at, struct attn_sums<G> *a)
{
    const uint2 u = lds64(at);
    const float2 v = half2_get<EW_STEP_KV_F16>(u.x), w = half2_get<EW_STEP_KV_F16>(u.y);

#pragma unroll
    for (int h = 0; h < G; h++) {
        a->o[h][0] += p[h] * v.x;
        a->o[h][1] += p[h] * v.y;
        a->o[h][2] += p[h] * w.x;
        a->o[h][3] += p[h] * w.y;
    }
}
/* The same n positions, values at `at`. */
template <int G>
EW_DEV void attn_values(const struct step_attn *sm, uint32_t at, uint32_t n, struct attn_sums<G> *a)
{
    constexpr uint32_t ROWS = 32 / STEP_D4; /* positions at once */
    const uint32_t lane = threadIdx.x % 32, row = lane / STEP_D4;
    const float(*p)[EW_STEP_G] = sm->p[threadIdx.x / 32];

    at += row * (EW_STEP_D * 2) + lane % STEP_D4 * 8;
    if (n == EW_STEP_KV_TILE) {
#pragma unroll
        for (uint32_t i = 0; i < EW_STEP_KV_TILE; i += ROWS)
            attn_value(p[i + row], at + i * (EW_STEP_D * 2), a);
    } else {
#pragma unroll 1
        for (uint32_t i = 0; i + row < n; i += ROWS)
            attn_value(p[i + row], at + i * (EW_STEP_D * 2), a);
    }
    __syncwarp();
}

/* Each split makes a share of the pairs of its kv head: a group of lanes asks all splits for one
 * pair and for their largest scores and sums of weights, and adds up by shuffles. */
EW_DEV void attn_merge(const struct step *s, const struct ew_step_phase *ph,
                       const struct step_kv *kv)
{
    const uint32_t g = s->g, pairs = g * EW_STEP_D / 2, n_s = kv->splits;
    const uint32_t from = pairs * kv->split / n_s, end = pairs * (kv->split + 1) / n_s;
    const uint32_t size = g * (EW_STEP_D + 2), lane = threadIdx.x % 32;
    const uint64_t at = s->a->workspace +
                        ((uint64_t)ph->partial + (uint64_t)step_unit(s, kv) * s->splits * size) * 8;
    uint32_t span = 1; /* lanes of a pair */

    while (span < n_s && span < 32)
        span *= 2;
#pragma unroll 1
    for (uint32_t u = from + threadIdx.x / 32 * (32 / span); u < end;
         u += EW_STEP_WARPS * (32 / span)) {
        const uint32_t pair = u + lane / span, h = min(pair, end - 1) / (EW_STEP_D / 2);
        struct two_packets v[EW_STEP_KV_SPLITS / 32], ml[EW_STEP_KV_SPLITS / 32];
        float m = -STEP_INF, l = 0, x = 0, y = 0;
        uint32_t n = 0;
        bool all = false;

        while (!all) {
            all = true;
#pragma unroll
            for (uint32_t i = 0; i < EW_STEP_KV_SPLITS / 32; i++) {
                const uint32_t j = lane % span + 32 * i;
                const uint64_t part = at + (uint64_t)j * size * 8;

                v[i].a = v[i].b = ml[i].b = (uint64_t)s->seq << 32;
                ml[i].a = (uint64_t)s->seq << 32 | __float_as_uint(-STEP_INF);
                if (j < n_s && pair < end) {
                    v[i] = packets_load(part + (uint64_t)pair * 16);
                    ml[i] = packets_load(part + (uint64_t)(2 * pairs + 2 * h) * 8);
                }
            }
#pragma unroll
            for (uint32_t i = 0; i < EW_STEP_KV_SPLITS / 32; i++)
                all = all && packet_is(v[i].a, s->seq) && packet_is(v[i].b, s->seq) &&
                      packet_is(ml[i].a, s->seq) && packet_is(ml[i].b, s->seq);
            if (++n > EW_STEP_POLL_LIMIT)
                step_gave_up(s);
        }
        __syncwarp();
#pragma unroll
        for (uint32_t i = 0; i < EW_STEP_KV_SPLITS / 32; i++)
            m = fmaxf(m, packet_value(ml[i].a));
#pragma unroll 1
        for (uint32_t d = span / 2; d; d >>= 1)
            m = fmaxf(m, __shfl_xor_sync(EW_ALL, m, d));
#pragma unroll
        for (uint32_t i = 0; i < EW_STEP_KV_SPLITS / 32; i++) {
            const float f = pair < end ? attn_weight(packet_value(ml[i].a) - m) : 0;

            l += packet_value(ml[i].b) * f;
            x += packet_value(v[i].a) * f;
            y += packet_value(v[i].b) * f;
        }
#pragma unroll 1
        for (uint32_t d = span / 2; d; d >>= 1) {
            l += __shfl_xor_sync(EW_ALL, l, d);
            x += __shfl_xor_sync(EW_ALL, x, d);
            y += __shfl_xor_sync(EW_ALL, y, d);
        }
        if (lane % span == 0 && pair < end)
            attn_put(s, ph, kv, pair, x / l, y / l, 0, 1);
    }
}

/* Of the old positions in a stage from block b on, those of this warp: how many, and their keys. */
struct attn_tile {
    uint32_t old, n; /* old: of all warps */
    struct attn_keys k;
};
EW_DEV void attn_ask(struct attn_tile *t, struct step *s, const struct step_kv *kv, uint32_t b)
{
    const uint32_t tile = threadIdx.x / 32 * EW_STEP_KV_TILE;

    t->old = b < kv->end ? step_kv_olds(s, kv, b) : 0;
    t->n = tile < t->old ? min(t->old - tile, (uint32_t)EW_STEP_KV_TILE) : 0;
    t->k = {}; /* written in any case */
    if (!t->old)
        return;
    ring_wait_full(s);
    if (t->n)
        attn_take(&t->k, ring_at(s) + tile * (EW_STEP_D * 2));
    ring_release(s);
}
/* The queries, the key and the value. */
EW_DEV void attn_begin(const struct step *s, const struct ew_step_phase *ph, struct step_attn *sm,
                       const struct step_kv *kv, uint4 *q)
{
    const uint32_t lane = threadIdx.x % 32, h = lane / 4 < kv->g ? lane / 4 : 0;

#pragma unroll 1
    for (uint32_t w = threadIdx.x / 32; w < kv->g + 2; w += EW_STEP_WARPS)
        attn_vector(s, ph, sm, kv, w, kv->g);
    step_mark(s, 1);
    sync_warps();
    step_mark(s, 2);
#pragma unroll
    for (int i = 0; i < STEP_KEY; i++) {
        q[i] = *(const uint4 *)(sm->q[0][h] + i * 64 + lane % 4 * 16);
        q[STEP_KEY + i] = *(const uint4 *)(sm->q[1][h] + i * 64 + lane % 4 * 16);
    }
}
/* All old positions of this split, by each warp its own; *t has the first. */
template <int G>
EW_DEV void attn_blocks(struct step *s, const struct ew_step_phase *ph, struct step_attn *sm,
                        const struct step_kv *kv, struct attn_tile *t, const uint4 *q,
                        struct attn_sums<G> *a)
{
    const uint32_t tile = threadIdx.x / 32 * EW_STEP_KV_TILE;

#pragma unroll 1
    for (uint32_t b = kv->begin; t->old;) {
        if (t->n)
            attn_weights(ph, sm, &t->k, t->n, q, a);
        ring_wait_full(s);
        step_mark(s, 3);
        if (t->n)
            attn_values(sm, ring_at(s) + tile * (EW_STEP_D * 2), t->n, a);
        ring_release(s);
        b += s->a->kv_batch;
        attn_ask(t, s, kv, b);
    }
}

/* Leaves a warp's results for attn_output; the last warps have the new position's scores too. */
template <int G>
EW_DEV void attn_leave(const struct step *s, const struct ew_step_phase *ph, struct step_attn *sm,
                       const struct step_kv *kv, struct attn_sums<G> *a)
{
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, h = EW_STEP_WARPS - 1 - warp;

    a->l += __shfl_xor_sync(EW_ALL, a->l, 1);
    a->l += __shfl_xor_sync(EW_ALL, a->l, 2);
    if (lane % 4 == 0 && lane / 4 < G)
        sm->ml[warp][lane / 4] = make_float2(a->m, a->l);
#pragma unroll
    for (int i = 0; i < G; i++) {
        if (STEP_D4 < 32)
            for (int j = 0; j < 4; j++)
                a->o[i][j] += __shfl_xor_sync(EW_ALL, a->o[i][j], 16);
        if (lane < STEP_D4)
            *(float4 *)&sm->part[warp][i][lane * 4] =
                make_float4(a->o[i][0], a->o[i][1], a->o[i][2], a->o[i][3]);
    }
    if (kv->end == kv->blocks && h < kv->g) {
        float dot = 0;

#pragma unroll
        for (uint32_t i = lane; i < EW_STEP_D; i += 32)
            dot += sm->vec[h][i] * sm->vec[EW_STEP_G][i];
        dot = attn_score(ph, warp_sum(dot));
        if (lane == 0)
            sm->fresh[h] = dot;
    }
}

/* Adds up what the warps left: the output, or where positions were split this split's part. */
EW_DEV void attn_output(const struct step *s, const struct ew_step_phase *ph,
                        const struct step_attn *sm, const struct step_kv *kv)
{
    const bool has_new = kv->end == kv->blocks, alone = kv->splits == 1;
    const uint32_t g = kv->g, size = g * (EW_STEP_D + 2);
    const uint64_t to =
        s->a->workspace +
        ((uint64_t)ph->partial + (uint64_t)(step_unit(s, kv) * s->splits + kv->split) * size) * 8;

    /* two lanes a pair of outputs: each adds up half of the warps */
#pragma unroll 1
    for (uint32_t i = threadIdx.x / 2; i < g * EW_STEP_D / 2; i += EW_STEP_WARPS * 16) {
        const uint32_t h = i / (EW_STEP_D / 2), d = i % (EW_STEP_D / 2) * 2, odd = threadIdx.x & 1;
        const uint32_t w0 = odd * (EW_STEP_WARPS / 2);
        const float fresh = has_new ? sm->fresh[h] : -STEP_INF;
        float2 ml[EW_STEP_WARPS / 2], v[EW_STEP_WARPS / 2];
        float m = fresh, l = 0, f, x = 0, y = 0;

#pragma unroll
        for (int w = 0; w < EW_STEP_WARPS / 2; w++) {
            ml[w] = sm->ml[w0 + w][h];
            v[w] = *(const float2 *)&sm->part[w0 + w][h][d];
            m = fmaxf(m, ml[w].x);
        }
        m = fmaxf(m, __shfl_xor_sync(EW_ALL, m, 1));
        if (has_new && odd) {
            l = attn_weight(fresh - m);
            x = l * sm->vec[EW_STEP_G + 1][d];
            y = l * sm->vec[EW_STEP_G + 1][d + 1];
        }
#pragma unroll
        for (int w = 0; w < EW_STEP_WARPS / 2; w++) {
            f = attn_weight(ml[w].x - m); /* 0: a warp without positions */
            l += ml[w].y * f;
            x += v[w].x * f;
            y += v[w].y * f;
        }
        l += __shfl_xor_sync(EW_ALL, l, 1);
        x += __shfl_xor_sync(EW_ALL, x, 1);
        y += __shfl_xor_sync(EW_ALL, y, 1);
        if (alone) { /* and half of the copies */
            f = __fdividef(1.0f, l);
            attn_put(s, ph, kv, i, x * f, y * f, odd, 2);
        } else if (!odd) {
            packets_store(to + (uint64_t)i * 16, x, y, s->seq);
        } else if (d == 0) {
            packets_store(to + (uint64_t)(g * EW_STEP_D + 2 * h) * 8, m, l, s->seq);
        }
    }
}

template <int G>
EW_DEV void attn_run(struct step *s, const struct ew_step_phase *ph, struct step_attn *sm,
                     const struct step_kv *kv, struct attn_tile *t, const uint4 *q)
{
    struct attn_sums<G> a;

    a.m = -STEP_INF;
    a.l = 0;
#pragma unroll
    for (int h = 0; h < G; h++)
        a.o[h][0] = a.o[h][1] = a.o[h][2] = a.o[h][3] = 0;
    attn_blocks<G>(s, ph, sm, kv, t, q, &a);
    step_mark(s, 4);
    attn_leave<G>(s, ph, sm, kv, &a);
}
/* What this block does of the heads and positions that s->kv names. */
EW_DEV void run_heads(struct step *s, const struct ew_step_phase *ph)
{
    struct step_attn *sm = (struct step_attn *)s->attention;
    struct attn_tile first;
    uint4 q[2 * STEP_KEY];
    const struct step_kv kv = *s->kv;

    if (kv.split >= kv.splits)
        return;
    attn_ask(&first, s, &kv, kv.begin); /* keys are in registers before the queries are there */
    attn_begin(s, ph, sm, &kv, q);
    if (EW_STEP_G == 1 || kv.g == 1)
        attn_run<1>(s, ph, sm, &kv, &first, q);
    else if (EW_STEP_G > 1)
        attn_run<EW_STEP_G>(s, ph, sm, &kv, &first, q);
    sync_warps();
    step_mark(s, 5);
    attn_output(s, ph, sm, &kv);
    step_mark(s, 6);
    if (kv.splits > 1)
        attn_merge(s, ph, &kv);
    step_mark(s, 7);
}
EW_DEV void run_attention(struct step *s, const struct ew_step_phase *entry)
{
    const struct ew_step_phase copy = *entry, *ph = &copy;

    if (s->kv->window != ph->window)
        step_kv_set(s, ph->window);
    run_heads(s, ph);
}

#endif

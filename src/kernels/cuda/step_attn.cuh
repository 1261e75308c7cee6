/* kernels/cuda/step_attn.cuh - the attention phase of step.cu: QK norm, RoPE, append, attention
 * over the cache, and where the positions were split between blocks their merge. Device only.
 *
 * Block c serves kv head c % hkv and split c / hkv of the positions. The new position's key and
 * value come from packets; the rest of the cache comes through the ring, scores of up to
 * KV_SUPER blocks of 64 positions at a time. */
#ifndef EW_KERNELS_CUDA_STEP_ATTN_CUH
#define EW_KERNELS_CUDA_STEP_ATTN_CUH

#include "step_dev.cuh"

#ifndef EW_STEP_G
#define EW_STEP_G 2 /* query heads of a kv head, rounded up to 1, 2, 4 or 8 */
#endif
#ifndef EW_STEP_D
#define EW_STEP_D 128 /* 64 or 128 */
#endif
#define STEP_D4     (EW_STEP_D / 4) /* threads that have a position's values, four each */
#define STEP_GROUPS (EW_STEP_WARPS * 32 / STEP_D4) /* of them */
#define STEP_SCORES (EW_STEP_KV_SUPER * EW_STEP_KV_BLOCK)
#define STEP_QROW   (EW_STEP_D * 2 + 16)
#define STEP_BLOCKS_A_SPLIT 2

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
    v.splits = min(s->n_cta / s->a->hkv, (v.blocks + STEP_BLOCKS_A_SPLIT - 1) / STEP_BLOCKS_A_SPLIT);
    v.begin = v.blocks * v.split / v.splits;
    v.end = v.blocks * (v.split + 1) / v.splits;
    s->kv = v;
}
/* Positions, of the blocks of a stage from b on, that the cache has from before. */
EW_DEV uint32_t step_kv_olds(const struct step *s, const struct step_kv *v, uint32_t b,
                             uint32_t end)
{
    const uint32_t from = v->first + b * EW_STEP_KV_BLOCK;

    return v->pos > from ? min(v->pos - from, min(s->a->kv_batch, end - b) * EW_STEP_KV_BLOCK) : 0;
}
EW_DEV uint64_t step_kv_at(const struct ew_step_phase *ph, uint32_t hkv, uint32_t which,
                           uint32_t head, uint32_t pos)
{
    return ph->w + ((uint64_t)(which * hkv + head) * ph->cap + pos) * (EW_STEP_D * 2);
}

EW_DEV void copy_attention(struct step *s, const struct ew_step_phase *ph)
{
    const struct step_kv &v = s->kv;

    if (v.window != ph->window)
        step_kv_set(s, ph->window);
    if (v.split >= v.splits)
        return;
    for (uint32_t b0 = v.begin; b0 < v.end; b0 += EW_STEP_KV_SUPER) {
        const uint32_t b1 = min(b0 + EW_STEP_KV_SUPER, v.end);

#pragma unroll 1
        for (uint32_t which = 0; which < 2; which++)
#pragma unroll 1
            for (uint32_t b = b0; b < b1; b += s->a->kv_batch) {
                const uint32_t n = step_kv_olds(s, &v, b, b1), bytes = n * EW_STEP_D * 2;

                if (!n || !copy_begin(s, bytes))
                    continue;
                copy_run(s, ring_at(s),
                         step_kv_at(ph, s->a->hkv, which, v.head, v.first + b * EW_STEP_KV_BLOCK),
                         bytes);
                copy_end(s);
            }
    }
}

/* Shared memory of the phase, in the place of a linear phase's input. */
struct step_attn {
    float vec[EW_STEP_G + 2][EW_STEP_D]; /* queries, key, value: after norm and RoPE */
    __align__(16) char q[2][EW_STEP_G][STEP_QROW]; /* high and low halves of the queries */
    float scores[STEP_SCORES][EW_STEP_G];
    float alpha[EW_STEP_G], m[EW_STEP_G], l[EW_STEP_G], fresh[EW_STEP_G];
    __align__(16) float part[STEP_GROUPS][EW_STEP_G][EW_STEP_D];
};

/* Vector w (queries, then key, then value) of this head into sm->vec, by one warp. */
EW_DEV void attn_vector(const struct step *s, const struct ew_step_phase *ph, struct step_attn *sm,
                        const struct step_kv *kv, uint32_t w, uint32_t g)
{
    constexpr int PER = EW_STEP_D / 32;
    const uint32_t lane = threadIdx.x % 32, half = ph->rd / 2;
    const uint32_t row = w < g ? kv->head * g + w : s->a->hq + kv->head + (w > g ? s->a->hkv : 0);
    const uint64_t at = s->a->workspace + (uint64_t)(ph->in + row * EW_STEP_D + lane * PER) * 8;
    const uint64_t weight = w < g ? ph->norm : w == g ? ph->bias : 0;
    const float *rope = (const float *)ph->rope + (uint64_t)kv->pos * ph->rd;
    float *vec = sm->vec[w < g ? w : EW_STEP_G + (w - g)];
    struct two_packets p[PER / 2];
    float v[PER], nw[PER], co[PER], si[PER], inv = 1;

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
    for (uint32_t n = 0;; n++) {
        bool all = true;

#pragma unroll
        for (int j = 0; j < PER / 2; j++)
            p[j] = packets_load(at + 16 * j);
#pragma unroll
        for (int j = 0; j < PER / 2; j++) {
            all = all && packet_is(p[j].a, s->in_seq) && packet_is(p[j].b, s->in_seq);
            v[2 * j] = packet_value(p[j].a);
            v[2 * j + 1] = packet_value(p[j].b);
        }
        if (all)
            break;
        poll_pause(n);
        if (n > EW_STEP_POLL_LIMIT)
            step_gave_up(s);
    }
    __syncwarp();
    if (weight) {
        float sum = 0;

#pragma unroll
        for (int j = 0; j < PER; j++)
            sum += v[j] * v[j];
        inv = rsqrtf(warp_sum(sum) / EW_STEP_D + ph->eps);
    }
#pragma unroll
    for (int j = 0; j < PER; j++) {
        v[j] = v[j] * inv * nw[j];
        vec[lane * PER + j] = v[j];
    }
    __syncwarp();
    if (w <= g && ph->rope) {
#pragma unroll
        for (int j = 0; j < PER; j++) {
            const uint32_t i = lane * PER + j;

            if (i < ph->rd)
                v[j] = v[j] * co[j] + vec[i < half ? i + half : i - half] * si[j];
        }
        __syncwarp();
    }
    if (w < g) {
#pragma unroll
        for (int j = 0; j < PER; j += 2) {
            const uint32_t i = lane * PER + j, h = half2_of<EW_STEP_KV_F16>(v[j], v[j + 1]);
            const float2 hi = half2_get<EW_STEP_KV_F16>(h);

            *(uint32_t *)(sm->q[0][w] + i * 2) = h;
            *(uint32_t *)(sm->q[1][w] + i * 2) = half2_of<EW_STEP_KV_F16>(v[j] - hi.x, v[j + 1] - hi.y);
            vec[i] = v[j];
            vec[i + 1] = v[j + 1];
        }
        return;
    }
#pragma unroll
    for (int j = 0; j < PER; j += 2) {
        const uint32_t i = lane * PER + j, h = half2_of<EW_STEP_KV_F16>(v[j], v[j + 1]);
        const float2 kept = half2_get<EW_STEP_KV_F16>(h);

        if (kv->split + 1 == kv->splits && kv->pos < ph->cap)
            *(uint32_t *)(step_kv_at(ph, s->a->hkv, w - g, kv->head, kv->pos) + i * 2) = h;
        vec[i] = kept.x;
        vec[i + 1] = kept.y;
    }
}

EW_DEV float attn_score(const struct ew_step_phase *ph, float v)
{
    v *= ph->scale;
    if (EW_STEP_SOFTCAP && ph->softcap != 0)
        v = ph->softcap * tanhf(v / ph->softcap);
    return v;
}
/* Scores of the 8 positions of a tile; rows of a stage are not padded, so odd rows take their
 * halves of 128 bytes the other way round. */
EW_DEV void attn_tile(const struct ew_step_phase *ph, struct step_attn *sm, uint32_t at,
                      uint32_t to, uint32_t g_heads, const uint4 *q)
{
    constexpr int STEPS = EW_STEP_D / 32;
    const uint32_t lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, odd = g & 1;
    const uint32_t row = at + g * (EW_STEP_D * 2) + t * 16;
    float c[4][4] = { { 0, 0, 0, 0 }, { 0, 0, 0, 0 }, { 0, 0, 0, 0 }, { 0, 0, 0, 0 } };

#pragma unroll
    for (int i = 0; i < STEPS; i += 2) {
        const uint4 u = lds128(row + (i + odd) * 64), v = lds128(row + (i + 1 - odd) * 64);
        const uint4 b0 = odd ? v : u, b1 = odd ? u : v;

        mma16<EW_STEP_KV_F16>(c[0], q[i].x, q[STEPS + i].x, q[i].y, q[STEPS + i].y, b0.x, b0.y);
        mma16<EW_STEP_KV_F16>(c[1], q[i].z, q[STEPS + i].z, q[i].w, q[STEPS + i].w, b0.z, b0.w);
        mma16<EW_STEP_KV_F16>(c[2], q[i + 1].x, q[STEPS + i + 1].x, q[i + 1].y, q[STEPS + i + 1].y, b1.x,
                   b1.y);
        mma16<EW_STEP_KV_F16>(c[3], q[i + 1].z, q[STEPS + i + 1].z, q[i + 1].w, q[STEPS + i + 1].w, b1.z,
                   b1.w);
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
        c[0][i] = (c[0][i] + c[1][i]) + (c[2][i] + c[3][i]);
    if (g < g_heads) {
        sm->scores[to + 2 * t][g] =
            attn_score(ph, c[0][0] + c[0][2]);
        sm->scores[to + 2 * t + 1][g] =
            attn_score(ph, c[0][1] + c[0][3]);
    }
}

/* Turns n scores of head h into weights, by one warp; *l is this lane's part of their sum. The last
 * score may be the new position's, which is not among the others. */
EW_DEV void attn_softmax(struct step_attn *sm, uint32_t h, uint32_t n, bool has_new, bool first,
                         float *l)
{
    const uint32_t lane = threadIdx.x % 32;
    const float m0 = first ? -STEP_INF : sm->m[h];
    float v[STEP_SCORES / 32], m = m0, sum = 0, alpha;

#pragma unroll
    for (int j = 0; j < STEP_SCORES / 32; j++) {
        const uint32_t i = lane + 32 * (uint32_t)j;

        v[j] = has_new && i + 1 == n ? sm->fresh[h] : i < n ? sm->scores[i][h] : -STEP_INF;
        m = fmaxf(m, v[j]);
    }
#pragma unroll
    for (int d = 16; d; d >>= 1)
        m = fmaxf(m, __shfl_xor_sync(EW_ALL, m, d));
#pragma unroll
    for (int j = 0; j < STEP_SCORES / 32; j++) {
        const uint32_t i = lane + 32 * (uint32_t)j;
        const float p = __expf(v[j] - m);

        if (i < n) {
            sm->scores[i][h] = p;
            sum += p;
        }
    }
    alpha = first ? 0 : __expf(m0 - m);
    *l = first ? sum : *l * alpha + sum;
    if (lane == 0) {
        sm->m[h] = m;
        sm->alpha[h] = alpha;
    }
}

EW_DEV void attn_values(const struct step_attn *sm, uint32_t at, uint32_t to, uint32_t n,
                        float o[EW_STEP_G][4])
{
    const uint32_t d4 = threadIdx.x % STEP_D4, group = threadIdx.x / STEP_D4;

#pragma unroll 4
    for (uint32_t i = group; i < n; i += STEP_GROUPS) {
        const uint2 u = lds64(at + i * (EW_STEP_D * 2) + d4 * 8);
        const float2 v = half2_get<EW_STEP_KV_F16>(u.x), w = half2_get<EW_STEP_KV_F16>(u.y);

#pragma unroll
        for (int h = 0; h < EW_STEP_G; h++) {
            const float p = sm->scores[to + i][h];

            o[h][0] += p * v.x;
            o[h][1] += p * v.y;
            o[h][2] += p * w.x;
            o[h][3] += p * w.y;
        }
    }
}

/* Each split merges a share of the columns of its kv head. */
EW_DEV void attn_merge(const struct step *s, const struct ew_step_phase *ph, struct step_attn *sm,
                       const struct step_kv *kv, uint32_t g)
{
    const uint32_t size = g * (EW_STEP_D + 2), cols = g * EW_STEP_D, n_s = kv->splits;
    const uint64_t at =
        s->a->workspace + ((uint64_t)ph->partial + (uint64_t)kv->head * s->splits * size) * 8;
    const uint32_t c0 = cols * kv->split / n_s, n = cols * (kv->split + 1) / n_s - c0;
    float *val = &sm->part[0][0][0];           /* [split][n] */
    float *ml = val + (cols + n_s);            /* [split][g][2] */
    const uint32_t tid = threadIdx.x;

#pragma unroll 1
    for (uint32_t j = tid / 32; j < n_s; j += 2 * EW_STEP_WARPS) {
        const uint64_t from = at + (uint64_t)j * size * 8, next = (uint64_t)size * 8 * EW_STEP_WARPS;
        const uint32_t lane = tid % 32, j2 = j + EW_STEP_WARPS;
        const bool two = j2 < n_s, has_ml = lane < 2 * g;

#pragma unroll 1
        for (uint32_t i = lane; i < n || i == lane; i += 32) { /* four at once */
            const bool has = i < n, ends = has_ml && i == lane;
            const uint64_t pv = from + (uint64_t)(c0 + i) * 8, pm = from + (uint64_t)(cols + lane) * 8;
            const uint64_t v0 = has ? packet_load(pv) : 0, v1 = has && two ? packet_load(pv + next) : 0;
            const uint64_t m0 = ends ? packet_load(pm) : 0,
                           m1 = ends && two ? packet_load(pm + next) : 0;

            if (has)
                val[j * n + i] = packet_wait(s, pv, v0, s->seq);
            if (ends)
                ml[j * 2 * g + lane] = packet_wait(s, pm, m0, s->seq);
            if (has && two)
                val[j2 * n + i] = packet_wait(s, pv + next, v1, s->seq);
            if (ends && two)
                ml[j2 * 2 * g + lane] = packet_wait(s, pm + next, m1, s->seq);
        }
    }
    sync_warps();
    if (tid / 32 < g) { /* m becomes the factor of a split */
        const uint32_t lane = tid % 32, h = tid / 32;
        float m = -STEP_INF, l = 0;

#pragma unroll 1
        for (uint32_t i = lane; i < n_s; i += 32)
            m = fmaxf(m, ml[(i * g + h) * 2]);
        for (int d = 16; d; d >>= 1)
            m = fmaxf(m, __shfl_xor_sync(EW_ALL, m, d));
#pragma unroll 1
        for (uint32_t i = lane; i < n_s; i += 32)
            l += ml[(i * g + h) * 2 + 1] * __expf(ml[(i * g + h) * 2] - m);
        l = warp_sum(l);
#pragma unroll 1
        for (uint32_t i = lane; i < n_s; i += 32)
            ml[(i * g + h) * 2] = __expf(ml[(i * g + h) * 2] - m) / l;
    }
    sync_warps();
#pragma unroll 1
    for (uint32_t i = tid; i < n; i += EW_STEP_WARPS * 32) {
        const uint32_t h = (c0 + i) / EW_STEP_D;
        float sum = 0;

#pragma unroll 4
        for (uint32_t j = 0; j < n_s; j++)
            sum += ml[(j * g + h) * 2] * val[j * n + i];
        packet_store(s->a->workspace + (uint64_t)(ph->out + kv->head * cols + c0 + i) * 8, sum,
                     s->seq);
    }
}

EW_DEV void attn_blocks(struct step *s, const struct ew_step_phase *ph, struct step_attn *sm,
                        const struct step_kv *kv, uint32_t g, float o[EW_STEP_G][4])
{
    constexpr int STEPS = EW_STEP_D / 32;
    const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    uint4 q[2 * STEPS];
    float l = 0;

    if (kv->end == kv->blocks && warp < g) { /* the new position's score */
        float dot = 0;

#pragma unroll
        for (uint32_t i = lane; i < EW_STEP_D; i += 32)
            dot += sm->vec[warp][i] * sm->vec[EW_STEP_G][i];
        dot = attn_score(ph, warp_sum(dot));
        if (lane == 0)
            sm->fresh[warp] = dot;
        __syncwarp();
    }
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
        const uint32_t h = lane / 4 < g ? lane / 4 : 0, at = i * 64 + lane % 4 * 16;

        q[i] = *(const uint4 *)(sm->q[0][h] + at);
        q[STEPS + i] = *(const uint4 *)(sm->q[1][h] + at);
    }
    for (uint32_t b0 = kv->begin; b0 < kv->end; b0 += EW_STEP_KV_SUPER) {
        const uint32_t b1 = min(b0 + EW_STEP_KV_SUPER, kv->end);
        const uint32_t from = kv->first + b0 * EW_STEP_KV_BLOCK;
        const uint32_t n = min(kv->pos + 1 - from, (b1 - b0) * EW_STEP_KV_BLOCK);
        const bool has_new = from + n == kv->pos + 1;

#pragma unroll 1
        for (uint32_t b = b0; b < b1; b += s->a->kv_batch) {
            const uint32_t old = step_kv_olds(s, kv, b, b1);

            if (!old)
                continue;
            ring_wait_full(s);
#pragma unroll 1
            for (uint32_t tile = warp * 8; tile < old; tile += EW_STEP_WARPS * 8)
                attn_tile(ph, sm, ring_at(s) + tile * (EW_STEP_D * 2),
                          (b - b0) * EW_STEP_KV_BLOCK + tile, g, q);
            ring_release(s);
        }
        sync_warps();
        if (warp < g)
            attn_softmax(sm, warp, n, has_new, b0 == kv->begin, &l);
        sync_warps();
        if (b0 != kv->begin)
            for (int h = 0; h < EW_STEP_G; h++) {
#pragma unroll
                for (int i = 0; i < 4; i++)
                    o[h][i] *= sm->alpha[h];
            }
#pragma unroll 1
        for (uint32_t b = b0; b < b1; b += s->a->kv_batch) {
            const uint32_t old = step_kv_olds(s, kv, b, b1);

            if (!old)
                continue;
            ring_wait_full(s);
            attn_values(sm, ring_at(s), (b - b0) * EW_STEP_KV_BLOCK, old, o);
            ring_release(s);
        }
        if (has_new && threadIdx.x < STEP_D4)
            for (int h = 0; h < EW_STEP_G; h++) {
                const float p = sm->scores[n - 1][h];

#pragma unroll
                for (int i = 0; i < 4; i++)
                    o[h][i] += p * sm->vec[EW_STEP_G + 1][threadIdx.x * 4 + i];
            }
        if (b1 < kv->end)
            sync_warps();
    }
    if (warp < g) {
        l = warp_sum(l);
        if (lane == 0)
            sm->l[warp] = l;
    }
}

EW_DEV void run_attention(struct step *s, const struct ew_step_phase *entry)
{
    const struct ew_step_phase copy = *entry, *ph = &copy;
    struct step_attn *sm = (struct step_attn *)s->x;
    const struct step_kv &kv = s->kv;
    const uint32_t g = s->g, warp = threadIdx.x / 32, tid = threadIdx.x;
    const uint32_t d4 = tid % STEP_D4, group = tid / STEP_D4, cols = g * EW_STEP_D;
    float o[EW_STEP_G][4];
    uint64_t to;

    if (kv.window != ph->window)
        step_kv_set(s, ph->window);
    if (kv.split >= kv.splits)
        return;
#pragma unroll
    for (int h = 0; h < EW_STEP_G; h++)
        o[h][0] = o[h][1] = o[h][2] = o[h][3] = 0;
#pragma unroll 1
    for (uint32_t w = warp; w < g + 2; w += EW_STEP_WARPS)
        attn_vector(s, ph, sm, &kv, w, g);
    sync_warps();
    attn_blocks(s, ph, sm, &kv, g, o);
#pragma unroll
    for (int h = 0; h < EW_STEP_G; h++)
        *(float4 *)&sm->part[group][h][d4 * 4] = make_float4(o[h][0], o[h][1], o[h][2], o[h][3]);
    sync_warps();
    to = kv.splits == 1 ? (uint64_t)ph->out + kv.head * cols :
                          (uint64_t)ph->partial + (uint64_t)(kv.head * s->splits + kv.split) * g *
                                                      (EW_STEP_D + 2);
    to = s->a->workspace + to * 8;
#pragma unroll 1
    for (uint32_t i = tid; i < cols; i += EW_STEP_WARPS * 32) {
        const uint32_t h = i / EW_STEP_D;
        float sum = 0;

#pragma unroll
        for (int j = 0; j < STEP_GROUPS; j++)
            sum += sm->part[j][h][i % EW_STEP_D];
        packet_store(to + i * 8, kv.splits == 1 ? sum / sm->l[h] : sum, s->seq);
    }
    if (kv.splits == 1) {
        sync_warps(); /* part is read no more */
        return;
    }
    if (tid < 2 * g)
        packet_store(to + (cols + tid) * 8, tid & 1 ? sm->l[tid / 2] : sm->m[tid / 2], s->seq);
    sync_warps(); /* part is read no more */
    attn_merge(s, ph, sm, &kv, g);
    sync_warps();
}

#endif

/* kernels/cuda/step_attn_rows.cuh - attention of several sequences (step_rows.cu): units of work
 * are (sequence, kv head, split), spread over the blocks; what a unit does is step_attn.cuh's.
 * Device only. */
#ifndef EW_KERNELS_CUDA_STEP_ATTN_ROWS_CUH
#define EW_KERNELS_CUDA_STEP_ATTN_ROWS_CUH

#include "step_rows.cuh"

/* Items of attention: of each sequence and kv head its splits or, where positions are too few to be
 * split and blocks are enough, its query heads. */
EW_DEV uint32_t rows_items(const struct step *s)
{
    const uint32_t units = s->a->sequences * s->a->hkv;

    return units * max(s->splits, s->n_cta >= units * s->g ? s->g : 1);
}
/* Item `item` of the [splits or query heads][sequences][hkv] there are. */
EW_DEV void rows_kv_set(struct step *s, uint32_t window, uint32_t item)
{
    const uint32_t units = s->a->sequences * s->a->hkv;
    struct step_kv v;

    v.window = window;
    v.split = item / units;
    v.row = item % units / s->a->hkv;
    v.head = item % s->a->hkv;
    v.q = v.head * s->g;
    v.g = s->g;
    s->context = (uint32_t)max(((const int32_t *)s->a->context_lengths)[v.row], 1);
    v.pos = s->context - 1;
    v.first = window && s->context > window ? s->context - window : 0;
    v.blocks = (s->context - v.first + EW_STEP_KV_BLOCK - 1) / EW_STEP_KV_BLOCK;
    v.splits = min(s->splits, (v.blocks + EW_STEP_KV_SPLIT - 1) / EW_STEP_KV_SPLIT);
    if (v.splits == 1 && s->n_cta >= units * s->g) { /* one query head a block */
        v.q += v.split;
        v.g = 1;
        v.split = v.split >= s->g;
    }
    v.begin = v.blocks * v.split / v.splits;
    v.end = v.blocks * (v.split + 1) / v.splits;
    __syncwarp(); /* the last one is read no more */
    if (threadIdx.x % 32 == 0)
        *s->kv = v;
    __syncwarp();
}
/* This lane's part of vector `row` of the sequence's queries, keys and values. */
EW_DEV void attn_wait(const struct step *s, const struct ew_step_phase *ph,
                      const struct step_kv *kv, uint32_t row, float v[EW_STEP_D / 32])
{
    constexpr int PER = EW_STEP_D / 32;
    const uint64_t vector = (uint64_t)kv->row * (s->a->hq + 2 * s->a->hkv) + row;
    const uint64_t at =
        words_now(s) + (uint64_t)ph->in * 8 + (vector * EW_STEP_D + threadIdx.x % 32 * PER) * 4;
    uint2 p[PER / 2];
    uint32_t n = 0;
    bool all = false;

    while (!all) {
        all = true;
#pragma unroll
        for (int j = 0; j < PER / 2; j++)
            p[j] = words_load2(at + 8 * j);
#pragma unroll
        for (int j = 0; j < PER / 2; j++)
            all = all && word_is_there(p[j].x) && word_is_there(p[j].y);
        if (++n > EW_STEP_POLL_LIMIT)
            step_gave_up(s);
    }
#pragma unroll
    for (int j = 0; j < PER / 2; j++) {
        v[2 * j] = f32_of(p[j].x);
        v[2 * j + 1] = f32_of(p[j].y);
    }
}
/* Pair `pair` of the output of this unit's heads; there is one copy. */
EW_DEV void attn_put(const struct step *s, const struct ew_step_phase *ph, const struct step_kv *kv,
                     uint32_t pair, float x, float y, uint32_t first, uint32_t by)
{
    (void)by;
    if (!first)
        words_put_pair(s, ph->out, ph->flags, kv->row, kv->q * EW_STEP_D + 2 * pair, x, y);
}

#endif

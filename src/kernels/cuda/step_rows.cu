/* kernels/cuda/step_rows.cu - step.cu for 2 to 8 sequences, one token each (contract: step.h;
 * table: step.cuh).
 *
 * Blocks, phases and the ring are step.cu's: weights are read once for all sequences. What differs
 * is how vectors pass between blocks (step_rows.cuh), that tensor cores multiply 16 rows of weights
 * by the vectors of all sequences (step_linear_rows.cuh), and that attention has a unit of work for
 * each sequence and kv head (step_attn_rows.cuh). */
#define EW_STEP_ROWS 8
#include "step.cuh"
#include "step_dev.cuh"
#include "step_attn.cuh"
#include "step_linear_rows.cuh"
#include "step_linear_rows_quant.cuh"

#define STEP_IS(ph, k) ((EW_STEP_KINDS >> (k)&1) && (ph)->kind == (k))

#ifndef EW_STEP_ENTRY
#    define EW_STEP_ENTRY ew_step_rows
#endif

EW_DEV void step_copies(struct step *s)
{
    const uint32_t items = rows_items(s);

    if (EW_STEP_BOUND & 2)
        return;
    entry_ask(s, 0);
#pragma unroll 1
    for (s->phase = 0; s->phase < s->a->n_phases; s->phase++) {
        const struct ew_step_phase *ph = entry_take(s, s->phase);
        const bool is_attention = ph->kind == EW_STEP_ATTENTION;

        prefetch_vector(s, ph->norm, (is_attention ? EW_STEP_D : ph->k) * 4);
        prefetch_vector(s, ph->bias, (is_attention ? EW_STEP_D : ph->n) * 4);
        if (!is_attention) {
            if (STEP_IS(ph, EW_STEP_Q4))
                panels_copy<EW_STEP_Q4>(s, ph);
            else if (STEP_IS(ph, EW_STEP_Q8))
                panels_copy<EW_STEP_Q8>(s, ph);
            else if (EW_STEP_KINDS & 1 << EW_STEP_PLAIN16)
                rows_copy(s, ph);
            continue;
        }
#pragma unroll 1
        for (uint32_t i = s->cta; i < items; i += s->n_cta) {
            rows_kv_set(s, ph->window, i);
            copy_heads(s, ph);
        }
    }
}

/* The best of lanes that differ in the bits from `from` to `to`. */
EW_DEV void lanes_best(struct step_best *b, int from, int to)
{
#pragma unroll
    for (int d = from; d <= to; d *= 2) {
        const float v = __shfl_xor_sync(EW_ALL, b->v, d);
        const int i = __shfl_xor_sync(EW_ALL, b->i, d);

        better(b, v, i);
    }
}
/* Arg max over all blocks, of each sequence by a warp of block 0; the lowest index of equals. b: of
 * this lane's sequence, lane / 4. */
EW_DEV void step_tokens(struct step *s, struct step_best b, uint32_t epoch)
{
    const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const uint64_t at = s->a->workspace + (uint64_t)s->a->best * 8;
    struct step_best *all = (struct step_best *)s->red; /* [8 sequences][warps] */

    lanes_best(&b, 1, 2);
    sync_warps(); /* red is read no more */
    if (lane % 4 == 0)
        all[lane / 4 * EW_STEP_WARPS + warp] = b;
    sync_warps();
    if (warp == 0 && lane < s->a->sequences) {
        b = all[lane * EW_STEP_WARPS];
#pragma unroll
        for (int i = 1; i < EW_STEP_WARPS; i++)
            better(&b, all[lane * EW_STEP_WARPS + i].v, all[lane * EW_STEP_WARPS + i].i);
        packets_store(at + (s->cta * 8 + lane) * 16, b.v, f32_of((uint32_t)b.i), s->seq);
    }
    if (s->cta)
        return;
#pragma unroll 1
    for (uint32_t row = warp; row < s->a->sequences; row += EW_STEP_WARPS) {
        b.v = -STEP_INF;
        b.i = -1;
#pragma unroll 1
        for (uint32_t c = lane; c < s->n_cta; c += 32) {
            const uint64_t from = at + (c * 8 + row) * 16;
            const float2 p = packets_wait(s, from, packets_load(from), s->seq);

            better(&b, p.x, __float_as_int(p.y));
        }
        __syncwarp();
        lanes_best(&b, 1, 16);
        if (lane == 0)
            step_leave(s, row, b.v == STEP_INF ? -1 : b.i, epoch);
    }
}

/* The first phase's input, f32 in memory, as words. */
EW_DEV void send_input(const struct step *s)
{
    const struct ew_step_phase *first = (const struct ew_step_phase *)s->a->table;
    const bool panels = EW_STEP_KINDS & STEP_QUANTS && first->kind != EW_STEP_PLAIN16;
    const bool normed = panels && first->flags & EW_STEP_NORM;
    const uint32_t in = first->in;
    const uint32_t pairs = s->a->n_x / 2;

#pragma unroll 1
    for (uint32_t i = s->cta * EW_STEP_WARPS * 32 + threadIdx.x; i < s->a->sequences * pairs;
         i += s->n_cta * EW_STEP_WARPS * 32) {
        const float2 v = ((const float2 *)s->a->x)[i];

        const float2 w = normed ? ((const float2 *)first->norm)[i % pairs] : make_float2(1, 1);

        if (normed)
            words_put_square(s, first->squares_in, i / pairs, pairs, i % pairs,
                             v.x * v.x + v.y * v.y);
        words_put_pair(s, in, panels ? EW_STEP_PANELS : 0, i / pairs, i % pairs * 2, v.x * w.x,
                       v.y * w.y);
        words_put(s, s->a->x_singles, 2 * i, v.x, v.y);
    }
}

/* All units of attention of this block; a second one comes when all warps are done with the first.
 */
EW_DEV void run_units(struct step *s, const struct ew_step_phase *entry)
{
    const struct ew_step_phase copy = *entry, *ph = &copy;
    const uint32_t items = rows_items(s);

#pragma unroll 1
    for (uint32_t i = s->cta; i < items; i += s->n_cta) {
        if (i != s->cta)
            sync_warps();
        rows_kv_set(s, ph->window, i);
        run_heads(s, ph);
    }
}

EW_DEV void step_computes(struct step *s, uint32_t epoch)
{
    const uint32_t base = epoch * (s->a->n_phases + 1) + 1; /* never 0, which memory had first */

    step_time(s, 0);
    entry_ask(s, 0);
    send_input(s);
#pragma unroll 1
    for (s->phase = 0; s->phase < s->a->n_phases; s->phase++) {
        struct step_best best = { -STEP_INF, -1 };
        const struct ew_step_phase *ph = entry_take(s, s->phase);
        const bool head = ph->flags & EW_STEP_HEAD;

        step_mark(s, 0);
        s->in_seq = base + s->phase;
        s->seq = s->in_seq + 1;
        if (ph->kind == EW_STEP_ATTENTION)
            run_units(s, ph);
        else if (STEP_IS(ph, EW_STEP_Q4))
            panels_linear<EW_STEP_Q4>(s, ph, &best);
        else if (STEP_IS(ph, EW_STEP_Q8))
            panels_linear<EW_STEP_Q8>(s, ph, &best);
        else if (EW_STEP_KINDS & 1 << EW_STEP_PLAIN16)
            rows_linear(s, ph, &best);
        if (head && s->a->token)
            step_tokens(s, best, epoch);
    }
    step_time(s, 2);
    /* Every block has read the epoch: this one needed what they sent. */
    if (s->cta == 0 && threadIdx.x == 0)
        *(volatile uint32_t *)s->a->epoch = epoch + 1;
}

extern "C" __global__ void __launch_bounds__(EW_STEP_THREADS, 1)
    EW_STEP_ENTRY(const __grid_constant__ struct ew_step_args a)
{
    extern __shared__ __align__(128) char smem[];
    const uint32_t epoch = *(volatile uint32_t *)a.epoch;
    struct step s;

    step_parts(&s, &a, smem, EW_STEP_KINDS & STEP_QUANTS ? a.x_bytes : 0, STEP_RED, 8);
    s.g = a.hq / a.hkv;
    s.splits = min(max(s.n_cta / (a.sequences * a.hkv), 1u), (uint32_t)EW_STEP_KV_SPLITS);
    s.odd = epoch & 1;
    step_ring_begin(&s);
    if (threadIdx.x / 32 >= EW_STEP_WARPS)
        step_copies(&s);
    else
        step_computes(&s, epoch);
}

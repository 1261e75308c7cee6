/* kernels/cuda/step.cu - one decode step of a decoder as one persistent cooperative kernel
 * (contract: step.h; table: step.cuh).
 *
 * A block a multiprocessor, 8 warps that compute and 2 that copy. Those walk the phases on
 * their own and keep the ring of stages in shared memory full: weights and cache do not
 * depend on the activations, so memory never waits for a barrier. The others walk the same phases;
 * each reads the vector it needs as packets (number and sequence in 8 bytes) from L2 as soon as the
 * last of them is there, multiplies it with the rows its block owns and sends its results as
 * packets. Reading and waiting are one: a phase costs one trip through L2. */
#include "step.cuh"
#include "step_dev.cuh"
#include "step_linear.cuh"
#include "step_attn.cuh"

#ifndef EW_STEP_ENTRY
#    define EW_STEP_ENTRY ew_step
#endif

#define STEP_IS(ph, k) ((EW_STEP_KINDS >> (k)&1) && (ph)->kind == (k))

EW_DEV void step_copies(struct step *s)
{
    if (EW_STEP_BOUND & 2)
        return;
    entry_ask(s, 0);
#pragma unroll 1
    for (s->phase = 0; s->phase < s->a->n_phases; s->phase++) {
        const struct ew_step_phase *ph = entry_take(s, s->phase);
        const bool is_attention = ph->kind == EW_STEP_ATTENTION;

        prefetch_vector(s, ph->norm, (is_attention ? EW_STEP_D : ph->k) * 4);
        prefetch_vector(s, ph->bias, (is_attention ? EW_STEP_D : ph->n) * 4);
        if (STEP_IS(ph, EW_STEP_PLAIN16))
            copy_linear<EW_STEP_PLAIN16>(s, ph);
        else if (STEP_IS(ph, EW_STEP_Q4))
            copy_linear<EW_STEP_Q4>(s, ph);
        else if (STEP_IS(ph, EW_STEP_Q8))
            copy_linear<EW_STEP_Q8>(s, ph);
        else if (STEP_IS(ph, EW_STEP_ATTENTION))
            copy_attention(s, ph);
    }
}

EW_DEV void warp_best(struct step_best *b)
{
    for (int d = 16; d; d >>= 1) {
        const float v = __shfl_xor_sync(EW_ALL, b->v, d);
        const int i = __shfl_xor_sync(EW_ALL, b->i, d);

        better(b, v, i);
    }
}
/* Arg max over all blocks; the lowest index of equals. */
EW_DEV void step_token(struct step *s, struct step_best b, uint32_t epoch)
{
    const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const uint64_t at = s->a->workspace + (uint64_t)s->a->best * 8;
    float *v = s->red;
    int *i = (int *)(s->red + EW_STEP_WARPS);

    warp_best(&b);
    sync_warps(); /* red is read no more */
    if (lane == 0) {
        v[warp] = b.v;
        i[warp] = b.i;
    }
    sync_warps();
    if (warp)
        return;
    b.v = lane < EW_STEP_WARPS ? v[lane] : -STEP_INF;
    b.i = lane < EW_STEP_WARPS ? i[lane] : -1;
    warp_best(&b);
    if (lane == 0) {
        packet_store(at + s->cta * 16, b.v, s->seq);
        packet_store(at + s->cta * 16 + 8, f32_of((uint32_t)b.i), s->seq);
    }
    if (s->cta)
        return;
    b.v = -STEP_INF;
    b.i = -1;
#pragma unroll 1
    for (uint32_t c = lane; c < s->n_cta; c += 32) {
        const float2 p = packets_wait(s, at + c * 16, packets_load(at + c * 16), s->seq);

        better(&b, p.x, __float_as_int(p.y));
    }
    warp_best(&b);
    if (lane == 0)
        step_leave(s, 0, b.v == STEP_INF ? -1 : b.i, epoch);
}

/* Numbers 2i and 2i + 1 of the first phase's input; id: of its row. */
EW_DEV float2 step_first(const struct ew_step_args *a, int id, uint32_t i)
{
    const uint64_t at = a->rows + ((uint64_t)(uint32_t)id * a->n_x + 2 * i) * (a->row_type ? 2 : 4);
    float2 v;

    if (!a->rows)
        return ((const float2 *)a->x)[i];
    if (id < 0 || (uint32_t)id >= a->n_rows)
        return make_float2(f32_of(0x7fc00000), f32_of(0x7fc00000));
    if (!a->row_type)
        v = *(const float2 *)at;
    else if (a->row_type == 1)
        v = f16x2_get(*(const uint32_t *)at);
    else
        v = bf16x2_get(*(const uint32_t *)at);
    return make_float2(v.x * a->row_scale, v.y * a->row_scale);
}

EW_DEV void step_computes(struct step *s)
{
    const int id = s->a->rows ? *(volatile int32_t *)s->a->next_id : 0;
    const uint32_t epoch = *(volatile uint32_t *)s->a->epoch;
    const uint32_t base = epoch * (s->a->n_phases + 1) + 1; /* never 0, which memory had first */
    uint32_t first;

    step_time(s, 0);
    entry_ask(s, 0);
    first = ((const struct ew_step_phase *)s->a->table)->in;
#pragma unroll 1
    for (uint32_t i = s->cta * EW_STEP_WARPS * 32 + threadIdx.x; i < s->a->n_x / 2;
         i += s->n_cta * EW_STEP_WARPS * 32) {
        const float2 v = step_first(s->a, id, i);

        pair_send(s, s->a->workspace + (uint64_t)(first + i) * 8, v.x, v.y, base, 1);
        packets_store(s->a->workspace + (uint64_t)(s->a->x_singles + 2 * i) * 8, v.x, v.y, base);
    }

#pragma unroll 1
    for (s->phase = 0; s->phase < s->a->n_phases; s->phase++) {
        struct step_best best = { -STEP_INF, -1 };
        const struct ew_step_phase *ph = entry_take(s, s->phase);
        const bool head = ph->flags & EW_STEP_HEAD;

        s->in_seq = base + s->phase;
        s->seq = s->in_seq + 1;
        step_mark(s, 0);
        if (STEP_IS(ph, EW_STEP_PLAIN16))
            run_linear<EW_STEP_PLAIN16>(s, ph, &best);
        else if (STEP_IS(ph, EW_STEP_Q4))
            run_linear<EW_STEP_Q4>(s, ph, &best);
        else if (STEP_IS(ph, EW_STEP_Q8))
            run_linear<EW_STEP_Q8>(s, ph, &best);
        else if (STEP_IS(ph, EW_STEP_ATTENTION))
            run_attention(s, ph);
        if (head && s->a->token)
            step_token(s, best, epoch);
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
    struct step s;

    step_parts(&s, &a, smem, a.x_bytes, EW_STEP_RED_ROWS, 1);
    s.context = (uint32_t)max(*(const int32_t *)a.context_lengths, 1);
    s.g = a.hq / a.hkv;
    s.splits = min(s.n_cta / a.hkv, (uint32_t)EW_STEP_KV_SPLITS);
    step_kv_set(&s, 0);
    step_ring_begin(&s);
    if (threadIdx.x / 32 >= EW_STEP_WARPS)
        step_copies(&s);
    else
        step_computes(&s);
}

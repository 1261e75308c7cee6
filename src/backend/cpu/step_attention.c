/* backend/cpu/step_attention.c - KvAttention: lengths are checked in every run before any kernel.
 */
#include <stdatomic.h>

#include "backend/attn_args.h"
#include "backend/cpu/steps.h"

struct attention_step {
    const struct ew_attn_kernel *kernel;
    struct ew_attn_args a;
    size_t n_units;
    const char *name;
    /* Decoding: parts of each unit that are done. All 0 between runs: whoever counts the last one
     * sets it back. The one thing of a launch list that a run writes. */
    _Atomic uint32_t *n_done;
};

/* Every thread asks for itself and comes to the same answer. */
static bool check_lengths(const struct attention_step *at, struct ew_exec *x, unsigned i)
{
    size_t row = 0;
    int64_t need = 0;

    if (ew_attn_lengths_ok(&at->a, &row, &need))
        return true;
    if (i == 0)
        ew_fail(x->err, EW_STATUS_INVALID_ARG,
                "node '%s': row %zu needs %lld positions; %zu in this step, cache holds "
                "%zu, RoPE table %zu",
                at->name, row, (long long)need, at->a.s, at->a.cap, at->a.rope_rows);
    ew_exec_fail(x, EW_STATUS_INVALID_ARG);
    return false;
}

/* One phase: a part of a unit prepares what it needs, the last part of a unit joins them. */
static void decode_run(const struct ew_step *s, struct ew_exec *x, unsigned phase, unsigned i,
                       unsigned n)
{
    const struct attention_step *at = s->args;
    struct ew_attn_args a = at->a;
    uint8_t *const scratch = x->thread + i * x->thread_stride;
    struct ew_units units;
    size_t begin, end;

    (void)phase;
    if (!check_lengths(at, x, i))
        return;
    const size_t parts = at->kernel->n_parts(&a);
    a.parts = (float *)(void *)x->shared;
    ew_units_begin(&units, x->pool, i, n, at->n_units * parts, 1);
    while (ew_units_next(&units, &begin, &end))
        for (; begin < end; begin++) {
            _Atomic uint32_t *const done = &at->n_done[begin / parts];

            at->kernel->decode(&a, begin / parts, begin % parts, parts, scratch);
            if (parts == 1 || atomic_fetch_add_explicit(done, 1, memory_order_acq_rel) + 1 < parts)
                continue;
            atomic_store_explicit(done, 0, memory_order_relaxed);
            at->kernel->join(&a, begin / parts, parts, scratch);
        }
}

static void attention_run(const struct ew_step *s, struct ew_exec *x, unsigned phase, unsigned i,
                          unsigned n)
{
    const struct attention_step *at = s->args;
    struct ew_attn_args a = at->a;
    size_t begin, end;

    a.q_work = (float *)(void *)x->shared;
    if (phase == 0) {
        if (!check_lengths(at, x, i))
            return;
        ew_split_range(a.b * a.s, 1, i, n, &begin, &end);
        if (begin < end)
            at->kernel->prep(&a, begin, end);
    } else {
        struct ew_units units;

        ew_units_begin(&units, x->pool, i, n, at->n_units, 1);
        while (ew_units_next(&units, &begin, &end))
            at->kernel->run(&a, begin, end, x->thread + i * x->thread_stride);
    }
}

ew_status ew_emit_attention(struct ew_step_list *list, const struct ew_emit *e, ew_error *err)
{
    const bool has_norm = e->node->attrs.kv_attention.qk_norm != EW_QK_NORM_NONE;
    const float *in[3], *norms[2] = { NULL, NULL };
    struct ew_attn_args a = { 0 };
    struct attention_step *step;
    struct ew_step *s;
    size_t q_bytes;
    bool decodes;

    for (int k = 0; k < 3; k++)
        EW_TRY(ew_emit_f32_in(list, e, k, &in[k], err));
    for (int k = 0; k < 2 && has_norm; k++)
        EW_TRY(ew_emit_f32_in(list, e, 9 + k, &norms[k], err));
    EW_TRY(ew_attn_args_from_node(e, in, norms, &a, err));
    if (!a.b || !a.s)
        return EW_STATUS_OK;
    EW_TRY(ew_emit_f32_out(list, e, 0, &a.out, err));
    a.out_stride = a.hq * a.d;
    decodes = a.mode == EW_ATTN_DECODE && e->plan->attention->decode;
    s = ew_step_add(list, e, decodes ? decode_run : attention_run, sizeof(*step), &step);
    if (!s)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "launch list");
    step->kernel = e->plan->attention;
    step->a = a;
    step->n_units = decodes ? a.b * a.hkv : step->kernel->n_units(&a);
    step->name = e->node->name;
    step->n_done = NULL;
    s->n_phases = decodes ? 1 : 2;
    s->tactic = step->kernel->name;
    q_bytes = a.b * a.s * a.hq * a.d * sizeof(float);
    list->shared_bytes =
        ew_max_size(list->shared_bytes, decodes ? step->kernel->part_bytes(&a) : q_bytes);
    if (decodes) {
        step->n_done = ew_arena_alloc(list->arena, step->n_units * sizeof(*step->n_done));
        if (!step->n_done)
            return ew_fail(err, EW_STATUS_NO_MEMORY, "launch list");
        for (size_t u = 0; u < step->n_units; u++)
            atomic_init(&step->n_done[u], 0);
    }
    list->thread_bytes = ew_max_size(list->thread_bytes, step->kernel->scratch_bytes(&a));
    s->bytes = ew_attn_step_bytes(e, &a);
    s->flops = ew_attn_step_flops(&a);
    return ew_emit_f32_out_end(list, e, 0, a.out, err);
}

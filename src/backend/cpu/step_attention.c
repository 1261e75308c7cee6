/* backend/cpu/step_attention.c - KvAttention: lengths are checked in every run before any kernel.
 */
#include "backend/attn_args.h"
#include "backend/cpu/steps.h"

struct attention_step {
    const struct ew_attn_kernel *kernel;
    struct ew_attn_args a;
    size_t n_units;
    const char *name;
};

static void attention_run(const struct ew_step *s, struct ew_exec *x, unsigned phase, unsigned i,
                          unsigned n)
{
    const struct attention_step *at = s->args;
    struct ew_attn_args a = at->a;
    size_t begin, end, row = 0;
    int64_t need = 0;

    a.q_work = (float *)(void *)x->shared;
    if (phase == 0) {
        if (!ew_attn_lengths_ok(&a, &row, &need)) {
            if (i == 0)
                ew_fail(x->err, EW_STATUS_INVALID_ARG,
                        "node '%s': row %zu needs %lld positions; %zu in this step, cache holds "
                        "%zu, RoPE table %zu",
                        at->name, row, (long long)need, a.s, a.cap, a.rope_rows);
            ew_exec_fail(x, EW_STATUS_INVALID_ARG);
            return;
        }
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

    for (int k = 0; k < 3; k++)
        EW_TRY(ew_emit_f32_in(list, e, k, &in[k], err));
    for (int k = 0; k < 2 && has_norm; k++)
        EW_TRY(ew_emit_f32_in(list, e, 9 + k, &norms[k], err));
    EW_TRY(ew_attn_args_from_node(e, in, norms, &a, err));
    if (!a.b || !a.s)
        return EW_STATUS_OK;
    EW_TRY(ew_emit_f32_out(list, e, 0, &a.out, err));
    a.out_stride = a.hq * a.d;
    s = ew_step_add(list, e, attention_run, sizeof(*step), &step);
    if (!s)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "launch list");
    step->kernel = e->plan->attention;
    step->a = a;
    step->n_units = step->kernel->n_units(&a);
    step->name = e->node->name;
    s->n_phases = 2;
    s->tactic = step->kernel->name;
    q_bytes = a.b * a.s * a.hq * a.d * sizeof(float);
    list->shared_bytes = ew_max_size(list->shared_bytes, q_bytes);
    list->thread_bytes = ew_max_size(list->thread_bytes, step->kernel->scratch_bytes(&a));
    s->bytes = ew_attn_step_bytes(e, &a);
    s->flops = ew_attn_step_flops(&a);
    return ew_emit_f32_out_end(list, e, 0, a.out, err);
}

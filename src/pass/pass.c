/* pass/pass.c - the ordered list of passes, and the driver. */
#include "pass/pass.h"

#include <string.h>

#include "base/log.h"
#include "base/size.h"

#define MAX_ROUNDS 16

struct step {
    const char *name;
    ew_pass_fn *fn;
    bool is_fusion;
    bool repeat; /* until it changes nothing */
};

/* Fold and simplify run between the others: each may leave Casts and Identities behind. Norms of q
 * and k go before qkv, which needs the Linears to touch the attention; glu before the epilogues,
 * which would take its activation. Linears come first of all: fold would copy small transposed
 * weights. */
static const struct step k_steps[] = {
    { "recognise_linear", ew_pass_recognise_linear, true, true },
    { "fold", ew_pass_fold, false, true },
    { "simplify", ew_pass_simplify, false, true },
    { "recognise_linear", ew_pass_recognise_linear, true, true },
    { "half_to_f32", ew_pass_half_to_f32, false, false },
    { "fold", ew_pass_fold, false, true },
    { "simplify", ew_pass_simplify, false, true },
    { "recognise_linear", ew_pass_recognise_linear, true, true },
    { "lower_x_quant", ew_pass_lower_x_quant, true, false },
    { "recognise_norm", ew_pass_recognise_norm, true, false },
    { "recognise_act", ew_pass_recognise_act, true, false },
    { "fuse_qk_norm", ew_pass_fuse_qk_norm, true, false },
    { "fuse_qkv", ew_pass_fuse_qkv, true, false },
    { "fuse_glu", ew_pass_fuse_glu, true, false },
    { "fuse_epilogue", ew_pass_fuse_epilogue, true, true },
    { "fuse_pointwise", ew_pass_fuse_pointwise, true, false },
};

static ew_status run_step(struct ew_graph *g, const struct step *s, const ew_logger *log,
                          ew_error *err)
{
    size_t total = 0, n = 1;
    ew_status st = EW_STATUS_OK;

    for (int round = 0; !st && n && round < (s->repeat ? MAX_ROUNDS : 1); round++) {
        n = 0;
        st = s->fn(g, &n, err);
        (void)ew_graph_sweep(g);
        total += n;
    }
#ifndef NDEBUG
    if (!st)
        st = ew_graph_verify(g, err);
#endif
    if (st) {
        ew_error_within(err, "pass %s", s->name);
        return st;
    }
    if (total)
        ew_log(log, EW_LOG_DEBUG, "pass %s: %zu changes", s->name, total);
    return EW_STATUS_OK;
}

ew_status ew_passes_run(struct ew_graph *g, uint32_t flags, const ew_logger *log, ew_error *err)
{
    for (size_t i = 0; i < EW_COUNT(k_steps); i++) {
        if (k_steps[i].is_fusion && (flags & EW_PASSES_NO_FUSION))
            continue;
        EW_TRY(run_step(g, &k_steps[i], log, err));
    }
    return ew_graph_verify(g, err);
}

bool ew_pass_is_cache(const struct ew_value *v)
{
    static const char prefix[] = "past_key_values";

    return strncmp(v->name, prefix, sizeof(prefix) - 1) == 0;
}

ew_status ew_pass_set_kv_dtype(struct ew_graph *g, ew_dtype dtype, ew_error *err)
{
    if (!ew_kv_row_width(dtype, 1))
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "kv cache of dtype %s: f32, f16, bf16, f8e4m3 and i8 are known",
                       ew_dtype_text(dtype));
    for (size_t i = 0; i < g->n_inputs; i++) {
        struct ew_type *t = &g->inputs[i]->type;

        if (!ew_pass_is_cache(g->inputs[i]))
            continue;
        if (t->n_dims == 5 && t->dim[4] >= 0) {
            const int64_t head_size = t->dim[4] - (ew_kv_row_width(t->dtype, 1) - 1);

            if (head_size < 1)
                return ew_fail(err, EW_STATUS_MISMATCH, "input '%s': rows of %lld in a cache of %s",
                               g->inputs[i]->name, (long long)t->dim[4], ew_dtype_text(t->dtype));
            t->dim[4] = ew_kv_row_width(dtype, head_size);
        }
        t->dtype = dtype;
    }
    return ew_graph_infer(g, err);
}

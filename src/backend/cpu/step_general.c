/* backend/cpu/step_general.c - any op of the general table: thread 0 runs its kernel; large
 * elementwise ops are cut into flat ranges, one a thread. */
#include <string.h>

#include "backend/cpu/steps.h"
#include "kernels/general.h"

#define SPLIT_MIN 16384 /* elements: below this a barrier costs more than the work */

struct general_step {
    ew_general_fn *fn;
    struct ew_general_args args;
    struct ew_view *in_view, *out_view;
    const char *name;
    size_t count; /* elements when split */
};

static void general_run(const struct ew_step *s, struct ew_exec *x, unsigned phase, unsigned i,
                        unsigned n)
{
    const struct general_step *g = s->args;
    struct ew_general_args args = g->args;
    ew_status st;

    (void)phase;
    (void)i;
    (void)n;
    args.err = x->err;
    args.scratch = x->shared;
    st = g->fn(&args);
    if (st) {
        ew_error_within(x->err, "node '%s' (%s)", g->name, ew_op_get(args.op)->name);
        ew_exec_fail(x, st);
    }
}

static void slice(struct ew_view *v, size_t begin, size_t end, size_t count)
{
    size_t own;

    if (!ew_type_count(&v->type, &own) || own != count || (count == 1 && v->type.n_dims == 0))
        return; /* a scalar: the same for all */
    v->data = (uint8_t *)v->data + begin * (ew_dtype_bits(v->type.dtype) / 8);
    v->type.n_dims = 1;
    v->type.dim[0] = (int64_t)(end - begin);
}

static void split_run(const struct ew_step *s, struct ew_exec *x, unsigned phase, unsigned i,
                      unsigned n)
{
    const struct general_step *g = s->args;
    struct ew_general_args args = g->args;
    struct ew_view in_view[8], out_view = g->out_view[0];
    const struct ew_view *in[8];
    struct ew_view *out[1] = { &out_view };
    ew_error err = { 0 };
    size_t begin, end;
    ew_status st;

    (void)phase;
    ew_split_range(g->count, 1024, i, n, &begin, &end);
    if (begin >= end)
        return;
    for (int k = 0; k < args.n_in; k++) {
        in[k] = NULL;
        if (!g->args.in[k])
            continue;
        in_view[k] = *g->args.in[k];
        slice(&in_view[k], begin, end, g->count);
        in[k] = &in_view[k];
    }
    slice(&out_view, begin, end, g->count);
    args.in = in;
    args.out = out;
    args.err = &err;
    st = g->fn(&args);
    if (st) {
        ew_exec_fail(x, st);
        if (i == 0)
            ew_fail(x->err, st, "node '%s' (%s): %s", g->name, ew_op_get(args.op)->name, err.text);
    }
}

/* Elementwise, one output, every input of the output's size or one element, whole bytes. */
static bool can_split(const struct ew_emit *e, size_t *count)
{
    const struct ew_plan_node *n = e->node;

    if (n->op < EW_OP_ABS || n->op > EW_OP_XOR || n->n_out != 1 || n->n_in > 8 ||
        e->n_threads < 2 || !ew_type_count(&e->out[0]->type, count) || *count < SPLIT_MIN ||
        ew_dtype_bits(e->out[0]->type.dtype) % 8)
        return false;
    for (uint32_t k = 0; k < n->n_in; k++) {
        size_t c;

        if (!e->in[k])
            continue;
        if (!ew_type_count(&e->in[k]->type, &c) || (c != *count && c != 1) ||
            ew_dtype_bits(e->in[k]->type.dtype) % 8)
            return false;
    }
    return true;
}

static bool keep_views(struct ew_step_list *list, const struct ew_emit *e, struct general_step *g)
{
    const struct ew_plan_node *n = e->node;
    const struct ew_view **in = ew_arena_new(list->arena, const struct ew_view *, n->n_in + 1u);
    struct ew_view **out = ew_arena_new(list->arena, struct ew_view *, n->n_out + 1u);

    g->in_view = ew_arena_new(list->arena, struct ew_view, n->n_in + 1u);
    g->out_view = ew_arena_new(list->arena, struct ew_view, n->n_out + 1u);
    if (!in || !out || !g->in_view || !g->out_view)
        return false;
    for (uint32_t k = 0; k < n->n_in; k++)
        if (e->in[k]) {
            g->in_view[k] = *e->in[k];
            in[k] = &g->in_view[k];
        }
    for (uint32_t k = 0; k < n->n_out; k++)
        if (e->out[k]) {
            g->out_view[k] = *e->out[k];
            out[k] = &g->out_view[k];
        }
    g->args = (struct ew_general_args){ n->op,         &n->attrs, (int)n->n_in, in,
                                        (int)n->n_out, out,       NULL,         NULL };
    return true;
}

ew_status ew_emit_general(struct ew_step_list *list, const struct ew_emit *e, ew_error *err)
{
    const struct ew_plan_node *n = e->node;
    const struct ew_type *out_type[EW_MAX_OUTPUTS] = { 0 };
    const struct ew_type **in_type;
    struct general_step *g;
    struct ew_step *s;
    size_t bytes, count = 0;

    if (!ew_general_find(n->op))
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "no kernel of this build runs this op");
    s = ew_step_add(list, e, general_run, sizeof(*g), &g);
    in_type = ew_arena_new(list->arena, const struct ew_type *, n->n_in + 1u);
    if (!s || !in_type || !keep_views(list, e, g))
        return ew_fail(err, EW_STATUS_NO_MEMORY, "launch list");
    g->fn = ew_general_find(n->op);
    g->name = n->name;
    for (uint32_t k = 0; k < n->n_in; k++)
        if (e->in[k]) {
            in_type[k] = &e->in[k]->type;
            s->bytes += ew_type_bytes(in_type[k], &bytes) ? bytes : 0;
        }
    for (uint32_t k = 0; k < n->n_out; k++)
        if (e->out[k]) {
            out_type[k] = &e->out[k]->type;
            s->bytes += ew_type_bytes(out_type[k], &bytes) ? bytes : 0;
        }
    bytes =
        ew_general_scratch_bytes(n->op, &n->attrs, (int)n->n_in, in_type, (int)n->n_out, out_type);
    list->shared_bytes = ew_max_size(list->shared_bytes, bytes);
    s->serial = true;
    s->tactic = "general";
    if (!bytes && can_split(e, &count)) {
        s->fn = split_run;
        s->serial = false;
        s->tactic = "general, split";
        g->count = count;
    }
    return EW_STATUS_OK;
}

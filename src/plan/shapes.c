/* plan/shapes.c - concrete shapes of every tensor for given input shapes, and the contents of shape
 * arithmetic (Shape -> Gather -> Concat -> Reshape), which is computed here and never reaches a
 * launch list. */
#include <string.h>

#include "base/size.h"
#include "kernels/general.h"
#include "plan/plan.h"

ew_status ew_plan_infer(const struct ew_plan_node *n, const struct ew_type *type,
                        const void *const *data, struct ew_infer *f, ew_error *err)
{
    struct ew_infer_in few[16];
    struct ew_infer_in *in = few;
    ew_status st;

    if (n->n_in > EW_COUNT(few)) {
        in = ew_mem_calloc(EW_MEM_PLAN, n->n_in, sizeof(*in));
        if (!in)
            return ew_fail(err, EW_STATUS_NO_MEMORY, "node '%s': inference", n->name);
    }
    for (uint32_t k = 0; k < n->n_in; k++) {
        const uint32_t t = n->in[k];

        in[k] = (struct ew_infer_in){ 0 };
        if (t != EW_PLAN_NONE) {
            in[k].type = &type[t];
            in[k].data = data[t];
        }
    }
    memset(f, 0, offsetof(struct ew_infer, out));
    f->op = n->op;
    f->attrs = &n->attrs;
    f->n_in = (int)n->n_in;
    f->in = in;
    f->n_out = (int)n->n_out;
    f->needs_data = false;
    f->needs_input = 0;
    f->err = err;
    st = ew_op_infer(f);
    f->in = NULL;
    if (in != few)
        ew_mem_free(in);
    if (st && !f->needs_data)
        ew_error_within(err, "node '%s' (%s)", n->name, ew_op_get(n->op)->name);
    return st;
}

/* All inputs known (or only their shapes matter), and the results are small. */
static bool can_evaluate(const struct ew_plan_node *n, const struct ew_shapes *s,
                         const struct ew_infer *f)
{
    if (!ew_general_find(n->op))
        return false;
    if (n->op != EW_OP_SHAPE && n->op != EW_OP_SIZE)
        for (uint32_t k = 0; k < n->n_in; k++)
            if (n->in[k] != EW_PLAN_NONE && !s->known[n->in[k]])
                return false;
    for (uint32_t k = 0; k < n->n_out; k++) {
        size_t bytes;

        if (!ew_type_bytes(&f->out[k], &bytes) || bytes > EW_PLAN_KNOWN_MAX)
            return false;
    }
    return true;
}

struct eval { /* what one evaluation points at */
    struct ew_view in_view[64], out_view[EW_MAX_OUTPUTS];
    const struct ew_view *in[64];
    struct ew_view *out[EW_MAX_OUTPUTS];
    const struct ew_type *in_type[64], *out_type[EW_MAX_OUTPUTS];
};

static ew_status evaluate(const struct ew_plan_node *n, struct ew_shapes *s, struct ew_arena *a,
                          ew_error *err)
{
    struct eval *e;
    struct ew_general_args args = { .op = n->op, .attrs = &n->attrs, .err = err };
    size_t scratch;
    uint8_t *mem;

    if (n->n_in > EW_COUNT(e->in))
        return EW_STATUS_OK; /* stays a step */
    e = ew_mem_calloc(EW_MEM_PLAN, 1, sizeof(*e));
    if (!e)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "node '%s': evaluation", n->name);
    for (uint32_t k = 0; k < n->n_in; k++)
        if (n->in[k] != EW_PLAN_NONE) {
            e->in_type[k] = &s->type[n->in[k]];
            e->in_view[k].type = s->type[n->in[k]];
            memcpy(&e->in_view[k].data, &s->known[n->in[k]], sizeof(void *));
            e->in[k] = &e->in_view[k];
        }
    for (uint32_t k = 0; k < n->n_out; k++) {
        size_t bytes;

        if (n->out[k] == EW_PLAN_NONE)
            continue;
        e->out_type[k] = &s->type[n->out[k]];
        e->out_view[k].type = s->type[n->out[k]];
        if (ew_type_bytes(&s->type[n->out[k]], &bytes))
            e->out_view[k].data = ew_arena_alloc(a, bytes ? bytes : 1);
        if (!e->out_view[k].data) {
            ew_mem_free(e);
            return ew_fail(err, EW_STATUS_NO_MEMORY, "node '%s': evaluation", n->name);
        }
        e->out[k] = &e->out_view[k];
    }
    scratch = ew_general_scratch_bytes(n->op, &n->attrs, (int)n->n_in, e->in_type, (int)n->n_out,
                                       e->out_type);
    mem = scratch ? ew_mem_alloc_aligned(EW_MEM_PLAN, scratch, 64) : NULL;
    ew_status st = EW_STATUS_OK;
    if (scratch && !mem) {
        st = ew_fail(err, EW_STATUS_NO_MEMORY, "node '%s': evaluation", n->name);
    } else {
        args.n_in = (int)n->n_in;
        args.in = e->in;
        args.n_out = (int)n->n_out;
        args.out = e->out;
        args.scratch = mem;
        st = ew_general_find(n->op)(&args);
        if (st)
            ew_error_within(err, "node '%s' (%s)", n->name, ew_op_get(n->op)->name);
    }
    for (uint32_t k = 0; !st && k < n->n_out; k++)
        if (n->out[k] != EW_PLAN_NONE)
            s->known[n->out[k]] = e->out_view[k].data;
    ew_mem_free_aligned(mem);
    ew_mem_free(e);
    return st;
}

static ew_status shapes_start(const struct ew_plan *p, const struct ew_type *inputs,
                              struct ew_arena *a, struct ew_shapes *s, ew_error *err)
{
    memset(s, 0, sizeof(*s));
    s->type = ew_arena_new(a, struct ew_type, p->n_tensors + 1u);
    s->known = ew_arena_new(a, const void *, p->n_tensors + 1u);
    if (!s->type || !s->known)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "shapes of %u tensors", p->n_tensors);
    for (uint32_t i = 0; i < p->n_inputs; i++)
        s->type[p->inputs[i]] = inputs[i];
    for (uint32_t t = 0; t < p->n_tensors; t++) {
        const struct ew_plan_tensor *pt = &p->tensors[t];

        if (pt->kind != EW_PLAN_CONST)
            continue;
        s->type[t] = ew_type_make(pt->dtype, pt->n_dims, pt->dim);
        if (!pt->packed.kernel)
            s->known[t] = pt->data;
    }
    return EW_STATUS_OK;
}

ew_status ew_plan_shapes(const struct ew_plan *p, const struct ew_type *inputs, struct ew_arena *a,
                         struct ew_shapes *s, ew_error *err)
{
    struct ew_infer *f;
    ew_status st = shapes_start(p, inputs, a, s, err);

    if (st)
        return st;
    f = ew_mem_calloc(EW_MEM_PLAN, 1, sizeof(*f));
    if (!f)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "shape inference");
    for (uint32_t i = 0; i < p->n_nodes && !st; i++) {
        const struct ew_plan_node *n = &p->nodes[i];

        st = ew_plan_infer(n, s->type, s->known, f, err);
        if (f->needs_data) {
            s->needs_data = true;
            s->stopped_at = i;
            st = EW_STATUS_OK;
            break;
        }
        for (uint32_t k = 0; k < n->n_out && !st; k++) {
            size_t bytes;

            if (!ew_type_bytes(&f->out[k], &bytes))
                st = ew_fail(err, EW_STATUS_LIMIT, "node '%s': output %u is too large", n->name, k);
            else if (n->out[k] != EW_PLAN_NONE)
                s->type[n->out[k]] = f->out[k];
        }
        if (!st && can_evaluate(n, s, f))
            st = evaluate(n, s, a, err);
    }
    ew_mem_free(f);
    if (!st && s->needs_data && err)
        *err = (ew_error){ 0 }; /* inference said what it lacked; that is not a failure here */
    return st;
}

ew_status ew_plan_profile_shapes(const struct ew_plan *p, uint32_t profile,
                                 enum ew_plan_which which, struct ew_arena *a,
                                 struct ew_shapes *out, ew_error *err)
{
    struct ew_type *in = ew_arena_new(a, struct ew_type, p->n_inputs + 1u);
    ew_status st;

    if (!in)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "profile shapes");
    for (uint32_t i = 0; i < p->n_inputs; i++) {
        const struct ew_plan_range *r = &p->profiles[profile].inputs[i];
        const struct ew_plan_tensor *t = &p->tensors[p->inputs[i]];
        size_t bytes;

        in[i] = ew_type_make(t->dtype, t->n_dims,
                             which == EW_PLAN_MIN   ? r->min
                             : which == EW_PLAN_OPT ? r->opt
                                                    : r->max);
        if (!ew_type_bytes(&in[i], &bytes))
            return ew_fail(err, EW_STATUS_LIMIT, "profile '%s': input '%s' is too large",
                           p->profiles[profile].name, t->name);
    }
    st = ew_plan_shapes(p, in, a, out, err);
    if (st)
        ew_error_within(err, "profile '%s' at its %s shapes", p->profiles[profile].name,
                        which == EW_PLAN_MIN   ? "min"
                        : which == EW_PLAN_OPT ? "opt"
                                               : "max");
    return st;
}

bool ew_plan_node_is_free(const struct ew_plan *p, uint32_t node, const struct ew_shapes *s)
{
    const struct ew_plan_node *n = &p->nodes[node];
    bool all_known = true;

    for (uint32_t k = 0; k < n->n_out; k++)
        if (n->out[k] != EW_PLAN_NONE && !s->known[n->out[k]])
            all_known = false;
    if (all_known)
        return true;
    return ew_plan_is_view_op(n->op) && p->root[n->out[0]] != n->out[0];
}

/* plan/plan.c - structural rules of a plan: links, storage classes, profiles, packed weights.
 * Shapes are in shapes.c. */
#include "plan/plan.h"

#include <string.h>

#include "base/size.h"

void ew_plan_init(struct ew_plan *p)
{
    memset(p, 0, sizeof(*p));
    ew_arena_init(&p->arena, EW_MEM_PLAN, 0);
    p->embedding = EW_PLAN_NONE;
}

void ew_plan_deinit(struct ew_plan *p)
{
    ew_arena_deinit(&p->arena);
    memset(p, 0, sizeof(*p));
}

bool ew_plan_is_view_op(ew_op op)
{
    return op == EW_OP_RESHAPE || op == EW_OP_SQUEEZE || op == EW_OP_UNSQUEEZE ||
           op == EW_OP_FLATTEN || op == EW_OP_IDENTITY;
}

static ew_status check_node(struct ew_plan *p, uint32_t i, ew_error *err)
{
    const struct ew_plan_node *n = &p->nodes[i];
    const struct ew_op_info *info = ew_op_get(n->op);

    if (!info)
        return ew_fail(err, EW_STATUS_MALFORMED, "node '%s': op number %d is unknown", n->name,
                       (int)n->op);
    if (n->n_in < info->min_in || (info->max_in != EW_VARIADIC && n->n_in > info->max_in) ||
        n->n_out < info->min_out || n->n_out > info->max_out || n->n_out > EW_MAX_OUTPUTS)
        return ew_fail(err, EW_STATUS_MALFORMED, "node '%s' (%s): %u inputs and %u outputs",
                       n->name, info->name, n->n_in, n->n_out);
    for (uint32_t k = 0; k < n->n_in; k++) {
        const uint32_t t = n->in[k];

        if (t == EW_PLAN_NONE && k >= info->min_in)
            continue;
        if (t == EW_PLAN_NONE && n->op == EW_OP_KV_ATTENTION && (k == 1 || k == 2))
            continue;
        if (t >= p->n_tensors)
            return ew_fail(err, EW_STATUS_MALFORMED, "node '%s': input %u is tensor %u of %u",
                           n->name, k, t, p->n_tensors);
        if (p->tensors[t].kind == EW_PLAN_ACT && p->tensors[t].producer == EW_PLAN_NONE)
            return ew_fail(err, EW_STATUS_MALFORMED,
                           "node '%s': input '%s' is used before it is made", n->name,
                           p->tensors[t].name);
    }
    for (uint32_t k = 0; k < n->n_out; k++) {
        const uint32_t t = n->out[k];

        if (t == EW_PLAN_NONE)
            continue;
        if (t >= p->n_tensors || p->tensors[t].kind != EW_PLAN_ACT ||
            p->tensors[t].producer != EW_PLAN_NONE)
            return ew_fail(err, EW_STATUS_MALFORMED,
                           "node '%s': output %u is tensor %u, which it cannot be", n->name, k, t);
        p->tensors[t].producer = i;
        p->tensors[t].out_idx = k;
    }
    if (n->op == EW_OP_KV_ATTENTION && p->tensors[n->in[3]].kind != EW_PLAN_INPUT)
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "node '%s': the cache '%s' is not an input of the graph", n->name,
                       p->tensors[n->in[3]].name);
    return EW_STATUS_OK;
}

static ew_status check_tensors(struct ew_plan *p, ew_error *err)
{
    for (uint32_t i = 0; i < p->n_inputs; i++) {
        if (p->inputs[i] >= p->n_tensors || p->tensors[p->inputs[i]].kind != EW_PLAN_INPUT)
            return ew_fail(err, EW_STATUS_MALFORMED, "input %u is tensor %u, not an input", i,
                           p->inputs[i]);
        for (uint32_t j = 0; j < i; j++)
            if (p->inputs[j] == p->inputs[i])
                return ew_fail(err, EW_STATUS_MALFORMED, "input %u is listed twice", i);
    }
    uint32_t n = 0;
    for (uint32_t t = 0; t < p->n_tensors; t++) {
        n += p->tensors[t].kind == EW_PLAN_INPUT;
        p->tensors[t].producer = EW_PLAN_NONE;
    }
    if (n != p->n_inputs)
        return ew_fail(err, EW_STATUS_MALFORMED, "%u input tensors, %u inputs", n, p->n_inputs);
    return EW_STATUS_OK;
}

/* Views take the memory of what they view unless they are themselves an output, which has its own
 * address. */
static void set_roots(struct ew_plan *p)
{
    for (uint32_t t = 0; t < p->n_tensors; t++) {
        p->root[t] = t;
        p->direct_out[t] = EW_PLAN_NONE;
    }
    for (uint32_t o = 0; o < p->n_outputs; o++) {
        const uint32_t t = p->outputs[o].tensor;

        if (p->tensors[t].kind == EW_PLAN_ACT && p->outputs[o].alias == EW_PLAN_NONE &&
            p->direct_out[t] == EW_PLAN_NONE)
            p->direct_out[t] = o;
    }
    for (uint32_t i = 0; i < p->n_nodes; i++) {
        const struct ew_plan_node *n = &p->nodes[i];

        if (n->op == EW_OP_KV_ATTENTION && n->n_out > 1 && n->out[1] != EW_PLAN_NONE) {
            p->root[n->out[1]] = n->in[3];
            p->direct_out[n->out[1]] = EW_PLAN_NONE;
        } else if (ew_plan_is_view_op(n->op) && n->out[0] != EW_PLAN_NONE &&
                   p->direct_out[n->out[0]] == EW_PLAN_NONE) {
            p->root[n->out[0]] = p->root[n->in[0]];
        }
    }
}

ew_status ew_plan_link(struct ew_plan *p, ew_error *err)
{
    EW_TRY(check_tensors(p, err));
    for (uint32_t i = 0; i < p->n_nodes; i++)
        EW_TRY(check_node(p, i, err));
    for (uint32_t o = 0; o < p->n_outputs; o++) {
        const struct ew_plan_output *out = &p->outputs[o];

        if (out->tensor >= p->n_tensors || (p->tensors[out->tensor].kind == EW_PLAN_ACT &&
                                            p->tensors[out->tensor].producer == EW_PLAN_NONE))
            return ew_fail(err, EW_STATUS_MALFORMED,
                           "output '%s' is tensor %u, which nothing makes", out->name, out->tensor);
        if (p->tensors[out->tensor].packed.kernel)
            return ew_fail(err, EW_STATUS_MALFORMED, "output '%s' is a packed weight", out->name);
        if (out->alias != EW_PLAN_NONE &&
            (out->alias >= p->n_tensors || p->tensors[out->alias].kind != EW_PLAN_INPUT))
            return ew_fail(err, EW_STATUS_MALFORMED,
                           "output '%s' shares memory with tensor %u, not an input", out->name,
                           out->alias);
    }
    if (p->embedding != EW_PLAN_NONE &&
        (p->embedding >= p->n_tensors || p->tensors[p->embedding].kind != EW_PLAN_CONST))
        return ew_fail(err, EW_STATUS_MALFORMED, "embedding is tensor %u, not a constant",
                       p->embedding);
    if (!p->root) {
        p->root = ew_arena_new(&p->arena, uint32_t, p->n_tensors + 1u);
        p->direct_out = ew_arena_new(&p->arena, uint32_t, p->n_tensors + 1u);
        if (!p->root || !p->direct_out)
            return ew_fail(err, EW_STATUS_NO_MEMORY, "plan: storage table");
    }
    set_roots(p);
    return EW_STATUS_OK;
}

ew_status ew_plan_check_profiles(const struct ew_plan *p, ew_error *err)
{
    for (uint32_t i = 0; i < p->n_profiles; i++)
        for (uint32_t k = 0; k < p->n_inputs; k++) {
            const struct ew_plan_tensor *t = &p->tensors[p->inputs[k]];
            const struct ew_plan_range *r = &p->profiles[i].inputs[k];

            for (int d = 0; d < t->n_dims; d++) {
                if (r->min[d] < 0 || r->min[d] > r->opt[d] || r->opt[d] > r->max[d])
                    return ew_fail(err, EW_STATUS_INVALID_ARG,
                                   "profile '%s': input '%s' axis %d: min %lld, opt %lld, max %lld",
                                   p->profiles[i].name, t->name, d, (long long)r->min[d],
                                   (long long)r->opt[d], (long long)r->max[d]);
                if (t->dim[d] >= 0 && (r->min[d] != t->dim[d] || r->max[d] != t->dim[d]))
                    return ew_fail(err, EW_STATUS_MISMATCH,
                                   "profile '%s': input '%s' axis %d is %lld in the graph, "
                                   "%lld..%lld in the profile",
                                   p->profiles[i].name, t->name, d, (long long)t->dim[d],
                                   (long long)r->min[d], (long long)r->max[d]);
            }
        }
    return EW_STATUS_OK;
}

static ew_status check_packed_use(const struct ew_plan *p, const struct ew_plan_node *n, uint32_t k,
                                  uint64_t rows, uint64_t cols, uint64_t experts, bool glu,
                                  ew_error *err)
{
    const struct ew_plan_tensor *t = &p->tensors[n->in[k]];
    const struct ew_packed *w = &t->packed;

    if (t->kind != EW_PLAN_CONST || !w->kernel)
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "node '%s' (%s): weight '%s' is not a packed constant", n->name,
                       ew_op_get(n->op)->name, t->name);
    if (w->n != rows || w->k != cols || w->n_experts != experts || w->glu != glu)
        return ew_fail(err, EW_STATUS_MALFORMED,
                       "node '%s': weight '%s' is packed as %llu x [%llu,%llu] glu %d, the node "
                       "wants %llu x [%llu,%llu] "
                       "glu %d",
                       n->name, t->name, (unsigned long long)w->n_experts, (unsigned long long)w->n,
                       (unsigned long long)w->k, (int)w->glu, (unsigned long long)experts,
                       (unsigned long long)rows, (unsigned long long)cols, (int)glu);
    return EW_STATUS_OK;
}

ew_status ew_plan_check_packed(const struct ew_plan *p, ew_error *err)
{
    for (uint32_t i = 0; i < p->n_nodes; i++) {
        const struct ew_plan_node *n = &p->nodes[i];

        for (uint32_t k = 0; k < n->n_in; k++) {
            const struct ew_plan_tensor *t =
                n->in[k] == EW_PLAN_NONE ? NULL : &p->tensors[n->in[k]];

            if (n->op == EW_OP_LINEAR && k == 1) {
                if (t->n_dims != 2)
                    return ew_fail(err, EW_STATUS_MALFORMED,
                                   "node '%s': weight '%s' has %d dims, not 2", n->name, t->name,
                                   t->n_dims);
                EW_TRY(check_packed_use(p, n, k, (uint64_t)t->dim[0], (uint64_t)t->dim[1], 1,
                                        n->attrs.linear.glu != 0, err));
            } else if (n->op == EW_OP_MOE && (k == 2 || k == 3)) {
                if (t->n_dims != 3)
                    return ew_fail(err, EW_STATUS_MALFORMED,
                                   "node '%s': weight '%s' has %d dims, not 3", n->name, t->name,
                                   t->n_dims);
                EW_TRY(check_packed_use(p, n, k, (uint64_t)t->dim[1], (uint64_t)t->dim[2],
                                        (uint64_t)t->dim[0], k == 2, err));
            } else if (t && t->packed.kernel) {
                return ew_fail(err, EW_STATUS_MALFORMED,
                               "node '%s': input '%s' is packed for a Linear", n->name, t->name);
            }
        }
    }
    return EW_STATUS_OK;
}

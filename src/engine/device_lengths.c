/* engine/device_lengths.c - lengths of attention against the cache and the RoPE table, before a run
 * on a device: kernels there read them without a way to complain. What the caller keeps in device
 * memory is the caller's to check. */
#include "backend/attn_args.h"
#include "engine/engine_impl.h"

struct ew_length_check {
    struct ew_attn_args a;        /* without addresses */
    uint32_t lengths, start, pos; /* inputs of the engine; EW_PLAN_NONE: not asked for */
    const char *node;
};

/* Number of the engine's input that operand k is; EW_PLAN_NONE: none. */
static uint32_t input_of(const struct ew_context *c, const struct ew_plan_node *n, uint32_t k)
{
    const struct ew_plan *p = &c->engine->plan;

    for (uint32_t i = 0; k < n->n_in && n->in[k] != EW_PLAN_NONE && i < p->n_inputs; i++)
        if (p->inputs[i] == p->root[n->in[k]])
            return i;
    return EW_PLAN_NONE;
}

static bool same(const struct ew_length_check *x, const struct ew_length_check *y)
{
    return x->lengths == y->lengths && x->start == y->start && x->pos == y->pos &&
           x->a.mode == y->a.mode && x->a.b == y->a.b && x->a.s == y->a.s && x->a.cap == y->a.cap &&
           !x->a.rope == !y->a.rope && x->a.rope_rows == y->a.rope_rows;
}

static ew_status add(struct ew_context *c, struct ew_launch *l, const struct ew_emit *e)
{
    static const float any; /* q, k and v are not looked at */
    const float *const in[3] = { &any, &any, &any }, *const norms[2] = { &any, &any };
    struct ew_length_check k = { .node = e->node->name };

    EW_TRY(ew_attn_args_from_node(e, in, norms, &k.a, &c->err));
    if (!k.a.b || !k.a.s)
        return EW_STATUS_OK;
    k.lengths = input_of(c, e->node, 4);
    k.start = k.a.start_index ? input_of(c, e->node, 6) : EW_PLAN_NONE;
    k.pos = k.a.mode == EW_ATTN_TREE ? input_of(c, e->node, 8) : EW_PLAN_NONE;
    if (k.lengths == EW_PLAN_NONE || (k.a.start_index && k.start == EW_PLAN_NONE) ||
        (k.a.mode == EW_ATTN_TREE && k.pos == EW_PLAN_NONE))
        return EW_STATUS_OK; /* made by a node */
    for (size_t i = 0; i < l->n_checks; i++)
        if (same(&l->checks[i], &k))
            return EW_STATUS_OK;
    l->checks[l->n_checks++] = k;
    return EW_STATUS_OK;
}

ew_status ew_launch_note_lengths(struct ew_context *c, struct ew_launch *l, const struct ew_emit *e)
{
    size_t n = 0;

    if (e->node->op != EW_OP_KV_ATTENTION)
        return EW_STATUS_OK;
    for (uint32_t i = 0; i < c->engine->plan.n_nodes && !l->checks; i++)
        n += c->engine->plan.nodes[i].op == EW_OP_KV_ATTENTION;
    if (!l->checks)
        l->checks = ew_arena_new(&l->arena, struct ew_length_check, n);
    if (!l->checks)
        return ew_fail(&c->err, EW_STATUS_NO_MEMORY, "launch");
    return add(c, l, e);
}

/* Host address of an input; NULL: it is on the device. */
static const void *host_of(const struct ew_context *c, uint32_t i)
{
    return i == EW_PLAN_NONE || c->in[i].on_device ? NULL : c->in[i].address;
}

static ew_status refuse(struct ew_context *c, const struct ew_length_check *k,
                        const struct ew_attn_args *a, size_t row, int64_t need)
{
    return ew_fail(&c->err, EW_STATUS_INVALID_ARG,
                   "node '%s': row %zu needs %lld positions; %zu in this step, cache holds "
                   "%zu, RoPE table %zu",
                   k->node, row, (long long)need, a->s, a->cap, a->rope_rows);
}

ew_status ew_launch_check_lengths(struct ew_context *c, const struct ew_launch *l)
{
    for (size_t i = 0; i < l->n_checks; i++) {
        const struct ew_length_check *k = &l->checks[i];
        struct ew_attn_args a = k->a;
        int64_t need;
        size_t row;

        a.context_lengths = host_of(c, k->lengths);
        a.start_index = host_of(c, k->start);
        a.pos_id = host_of(c, k->pos);
        if (!a.context_lengths || (k->start != EW_PLAN_NONE && !a.start_index) ||
            (k->pos != EW_PLAN_NONE && !a.pos_id) || ew_attn_lengths_ok(&a, &row, &need))
            continue;
        return refuse(c, k, &a, row, need);
    }
    return EW_STATUS_OK;
}

bool ew_launch_lengths(const struct ew_launch *l, uint32_t *lengths, uint32_t *start)
{
    if (l->n_checks != 1)
        return false;
    *lengths = l->checks->lengths;
    *start = l->checks->start;
    return *lengths != EW_PLAN_NONE;
}

ew_status ew_launch_check_next(struct ew_context *c, const struct ew_launch *l)
{
    const struct ew_length_check *k = l->checks;
    const int32_t *length = host_of(c, k->lengths), *start = host_of(c, k->start);
    struct ew_attn_args a = k->a;
    int32_t next[2][EW_AHEAD_MAX_ROWS];
    int64_t need;
    size_t row;

    if (!length || a.b > EW_AHEAD_MAX_ROWS || (k->start != EW_PLAN_NONE && !start))
        return ew_fail(&c->err, EW_STATUS_INVALID_ARG, "node '%s': lengths that are not known",
                       k->node);
    for (size_t r = 0; r < a.b; r++) {
        if (length[r] == INT32_MAX || (start && start[r] == INT32_MAX))
            return ew_fail(&c->err, EW_STATUS_INVALID_ARG, "node '%s': row %zu: length %d", k->node,
                           r, INT32_MAX);
        next[0][r] = length[r] + 1;
        next[1][r] = start ? start[r] + 1 : 0;
    }
    a.context_lengths = next[0];
    a.start_index = start ? next[1] : NULL;
    return ew_attn_lengths_ok(&a, &row, &need) ? EW_STATUS_OK : refuse(c, k, &a, row, need);
}

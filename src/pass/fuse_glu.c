/* pass/fuse_glu.c - act(gate(x)) * up(x) becomes one Linear with glu.
 *
 * gate and up are two Linears of the same x, or the two halves of one (gate first). */
#include "pass/match.h"
#include "pass/pass.h"

static bool is_plain(const struct ew_node *n)
{
    const struct ew_attr_linear *a = &n->attrs.linear;

    return !a->glu && a->act == EW_ACT_NONE && a->scale == 1.0f && a->softcap == 0.0f &&
           (n->n_in < 4 || !n->in[3]) && (n->n_in < 3 || !n->in[2] || n->in[2]->is_const);
}

/* The node that is the activation of one side, read by nobody else. */
static struct ew_node *match_act_node(const struct ew_value *v, int *act)
{
    struct ew_node *n = v->producer;

    if (!n || v->n_uses != 1 || v->is_output)
        return NULL;
    *act = ew_match_act(n);
    return *act != EW_ACT_NONE ? n : NULL;
}

/* gate: the Linear whose x, and rounding of x, it keeps. */
static ew_status make_glu(struct ew_graph *g, struct ew_node *at, int act,
                          const struct ew_node *gate, struct ew_value *w, struct ew_value *bias,
                          ew_error *err)
{
    struct ew_value *in[3] = { gate->in[0], w, bias };
    union ew_attrs attrs = gate->attrs;

    attrs.linear.act = act;
    attrs.linear.glu = 1;
    return ew_rewrite_node(g, at, EW_OP_LINEAR, &attrs, in, bias ? 3 : 2, NULL, err);
}

static ew_status from_two(struct ew_graph *g, struct ew_node *at, int act,
                          const struct ew_value *g_val, const struct ew_value *u_val, bool *done,
                          ew_error *err)
{
    struct ew_node *part[2] = { ew_match_inner(g_val, EW_OP_LINEAR),
                                ew_match_inner(u_val, EW_OP_LINEAR) };
    struct ew_weight_list rows = { NULL, 0 };
    struct ew_value *w, *bias;
    struct ew_type t;

    if (!part[0] || !part[1] || !is_plain(part[0]) || !is_plain(part[1]) ||
        !ew_match_joinable(part[0], part[1]) || !ew_match_same_type(part[0]->in[1], part[1]->in[1]))
        return EW_STATUS_OK;
    t = part[0]->in[1]->type;
    t.dim[0] *= 2;
    if (!ew_rewrite_rows(g, part[0]->in[1], &rows) || !ew_rewrite_rows(g, part[1]->in[1], &rows))
        return ew_fail(err, EW_STATUS_NO_MEMORY, "weight of node '%s'", at->name);
    w = ew_graph_add_const_parts(g, part[0]->in[1]->name, &t, rows.parts, rows.n);
    if (!w)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "weight of node '%s'", at->name);
    EW_TRY(ew_rewrite_biases(g, part, 2, &bias, err));
    *done = true;
    return make_glu(g, at, act, part[0], w, bias, err);
}

static ew_status from_halves(struct ew_graph *g, struct ew_node *at, int act,
                             const struct ew_value *g_val, const struct ew_value *u_val, bool *done,
                             ew_error *err)
{
    struct ew_value *source, *other;
    struct ew_node *linear;
    int64_t from, mid, to;
    uint32_t n_cuts;

    if (!ew_match_piece_last(g_val, &source, &from, &mid) || from != 0 || g_val->n_uses != 1 ||
        !ew_match_piece_last(u_val, &other, &from, &to) || u_val->n_uses != 1 || source != other ||
        from != mid || to != 2 * mid || source->type.dim[source->type.n_dims - 1] != to)
        return EW_STATUS_OK;
    n_cuts = g_val->producer == u_val->producer ? 1 : 2;
    linear = ew_match_node(source, EW_OP_LINEAR);
    if (!linear || source->n_uses != n_cuts || source->is_output || !is_plain(linear))
        return EW_STATUS_OK;
    *done = true;
    return make_glu(g, at, act, linear, linear->in[1], linear->n_in > 2 ? linear->in[2] : NULL,
                    err);
}

ew_status ew_pass_fuse_glu(struct ew_graph *g, size_t *n_changes, ew_error *err)
{
    for (struct ew_node *n = g->head, *next; n; n = next) {
        bool done = false;
        next = n->next;
        if (n->op != EW_OP_MUL)
            continue;
        for (int side = 0; side < 2 && !done; side++) {
            int act;
            const struct ew_node *a = match_act_node(n->in[side], &act);
            if (!a)
                continue;
            EW_TRY(from_two(g, n, act, a->in[0], n->in[1 - side], &done, err));
            if (!done)
                EW_TRY(from_halves(g, n, act, a->in[0], n->in[1 - side], &done, err));
        }
        *n_changes += done;
    }
    return EW_STATUS_OK;
}

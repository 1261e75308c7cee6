/* pass/fuse_epilogue.c - what follows a Linear and can be done as it writes: scale, softcap,
 * activation, residual. Also the residual after a FusedRmsNorm.
 *
 * The fused node takes the place of the last op it swallows, so that everything it reads is there.
 */
#include <math.h>

#include "pass/match.h"
#include "pass/pass.h"

/* A Linear that nobody else reads, with its residual still free. */
static struct ew_node *open_linear(const struct ew_value *v)
{
    struct ew_node *n = ew_match_inner(v, EW_OP_LINEAR);

    return n && (n->n_in < 4 || !n->in[3]) ? n : NULL;
}

/* The same with nothing after the product yet but a scale. */
static struct ew_node *bare_linear(const struct ew_value *v)
{
    struct ew_node *n = open_linear(v);
    const struct ew_attr_linear *a = n ? &n->attrs.linear : NULL;

    return n && a->act == EW_ACT_NONE && !a->glu && a->softcap == 0.0f ? n : NULL;
}

static ew_status replace(struct ew_graph *g, struct ew_node *at, const struct ew_node *linear,
                         const union ew_attrs *attrs, struct ew_value *residual, ew_error *err)
{
    struct ew_value *in[4] = { linear->in[0], linear->in[1],
                               linear->n_in > 2 ? linear->in[2] : NULL, residual };
    const int n_in = residual ? 4 : in[2] ? 3 : 2;

    return ew_rewrite_node(g, at, EW_OP_LINEAR, attrs, in, n_in, NULL, err);
}

static ew_status try_residual(struct ew_graph *g, struct ew_node *n, bool *done, ew_error *err)
{
    for (int side = 0; side < 2; side++) {
        struct ew_value *r = n->in[1 - side];
        struct ew_node *base = open_linear(n->in[side]);
        if (r == n->in[side] || !ew_match_same_type(r, n->out[0]) ||
            !ew_match_same_type(n->in[side], n->out[0]))
            continue;
        if (base) {
            *done = true;
            return replace(g, n, base, &base->attrs, r, err);
        }
        base = ew_match_inner(n->in[side], EW_OP_FUSED_RMS_NORM);
        if (base && (base->n_in < 3 || !base->in[2])) {
            struct ew_value *in[3] = { base->in[0], base->in[1], r };
            *done = true;
            return ew_rewrite_node(g, n, EW_OP_FUSED_RMS_NORM, &base->attrs, in, 3, NULL, err);
        }
    }
    return EW_STATUS_OK;
}

/* Factor of Mul by, or Div by, a scalar; Div only where its inverse is exact. */
static struct ew_value *match_scale(const struct ew_node *n, double *factor)
{
    int exponent;

    if (n->op == EW_OP_MUL)
        return ew_match_with_scalar(n, factor);
    if (n->op != EW_OP_DIV || !ew_match_scalar(n->in[1], factor) || *factor == 0.0 ||
        fabs(frexp(*factor, &exponent)) != 0.5)
        return NULL;
    *factor = 1.0 / *factor;
    return n->in[0];
}

static ew_status try_scale(struct ew_graph *g, struct ew_node *n, bool *done, ew_error *err)
{
    double factor;
    const struct ew_value *v = match_scale(n, &factor);
    const struct ew_node *linear = v ? bare_linear(v) : NULL;
    const struct ew_node *user;
    union ew_attrs attrs;

    if (!linear || !ew_match_same_type(v, n->out[0]))
        return EW_STATUS_OK;
    user = ew_value_single_use(g, n->out[0]);
    if (linear->attrs.linear.scale != 1.0f || (user && user->op == EW_OP_TANH))
        return EW_STATUS_OK; /* two factors round twice; before Tanh it belongs to a softcap */
    attrs = linear->attrs;
    attrs.linear.scale = (float)factor;
    *done = true;
    return replace(g, n, linear, &attrs, NULL, err);
}

/* c * tanh(x / c) */
static ew_status try_softcap(struct ew_graph *g, struct ew_node *n, bool *done, ew_error *err)
{
    double cap, inner = 0;
    const struct ew_value *t = n->op == EW_OP_MUL ? ew_match_with_scalar(n, &cap) : NULL, *v = NULL;
    const struct ew_node *tanh = t ? ew_match_inner(t, EW_OP_TANH) : NULL;
    const struct ew_node *scaled, *linear;
    union ew_attrs attrs;

    if (!tanh || !(cap > 0))
        return EW_STATUS_OK;
    scaled = ew_match_inner(tanh->in[0], EW_OP_DIV);
    if (scaled) {
        v = ew_match_scalar(scaled->in[1], &inner) && inner == cap ? scaled->in[0] : NULL;
    } else {
        scaled = ew_match_inner(tanh->in[0], EW_OP_MUL);
        v = scaled ? ew_match_with_scalar(scaled, &inner) : NULL;
        v = v && fabs(inner * cap - 1.0) < 1e-6 ? v : NULL;
    }
    linear = v ? bare_linear(v) : NULL;
    if (!linear || !ew_match_same_type(v, n->out[0]))
        return EW_STATUS_OK;
    attrs = linear->attrs;
    attrs.linear.softcap = (float)cap;
    *done = true;
    return replace(g, n, linear, &attrs, NULL, err);
}

static ew_status try_act(struct ew_graph *g, struct ew_node *n, bool *done, ew_error *err)
{
    const int act = ew_match_act(n);
    const struct ew_node *linear = act != EW_ACT_NONE ? open_linear(n->in[0]) : NULL;
    union ew_attrs attrs;

    if (!linear || linear->attrs.linear.act != EW_ACT_NONE || linear->attrs.linear.glu)
        return EW_STATUS_OK;
    attrs = linear->attrs;
    attrs.linear.act = act;
    *done = true;
    return replace(g, n, linear, &attrs, NULL, err);
}

/* relu(x)^2, as a Pow or as a product with itself. */
static ew_status try_relu2(struct ew_graph *g, struct ew_node *n, bool *done, ew_error *err)
{
    const struct ew_node *linear = ew_match_node(n->in[0], EW_OP_LINEAR);
    const bool is_square = n->op == EW_OP_POW ? ew_match_is(n->in[1], 2.0) && n->in[0]->n_uses == 1
                                              : n->in[0] == n->in[1] && n->in[0]->n_uses == 2;
    union ew_attrs attrs;

    if (!linear || !is_square || n->in[0]->is_output || linear->attrs.linear.act != EW_ACT_RELU ||
        linear->attrs.linear.glu || (linear->n_in > 3 && linear->in[3]))
        return EW_STATUS_OK;
    attrs = linear->attrs;
    attrs.linear.act = EW_ACT_RELU2;
    *done = true;
    return replace(g, n, linear, &attrs, NULL, err);
}

ew_status ew_pass_fuse_epilogue(struct ew_graph *g, size_t *n_changes, ew_error *err)
{
    for (struct ew_node *n = g->head, *next; n; n = next) {
        bool done = false;
        next = n->next;
        if (n->op == EW_OP_ADD)
            EW_TRY(try_residual(g, n, &done, err));
        if (!done && (n->op == EW_OP_MUL || n->op == EW_OP_POW))
            EW_TRY(try_relu2(g, n, &done, err));
        if (!done && n->op == EW_OP_MUL)
            EW_TRY(try_softcap(g, n, &done, err));
        if (!done && (n->op == EW_OP_MUL || n->op == EW_OP_DIV))
            EW_TRY(try_scale(g, n, &done, err));
        if (!done && n->n_in == 1)
            EW_TRY(try_act(g, n, &done, err));
        *n_changes += done;
    }
    return EW_STATUS_OK;
}

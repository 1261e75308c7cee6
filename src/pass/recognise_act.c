/* pass/recognise_act.c - activations that exporters take apart: x * Sigmoid(x) -> Swish, the erf
 * and tanh forms of Gelu -> Gelu. */
#include "pass/match.h"
#include "pass/pass.h"

/* x of x * Sigmoid(x). */
static struct ew_value *match_swish(const struct ew_node *n)
{
    for (int side = 0; side < 2; side++) {
        const struct ew_node *s = ew_match_inner(n->in[side], EW_OP_SIGMOID);
        if (s && s->in[0] == n->in[1 - side])
            return s->in[0];
    }
    return NULL;
}

/* x of 1 + erf(x / sqrt 2). */
static struct ew_value *match_erf_part(const struct ew_value *v)
{
    const struct ew_node *add = ew_match_inner(v, EW_OP_ADD), *erf, *scaled;
    const struct ew_value *e;
    struct ew_value *x;
    double c;

    e = add ? ew_match_with_scalar(add, &c) : NULL;
    erf = e && c == 1.0 ? ew_match_inner(e, EW_OP_ERF) : NULL;
    if (!erf)
        return NULL;
    scaled = ew_match_inner(erf->in[0], EW_OP_DIV);
    if (scaled)
        return ew_match_is(scaled->in[1], 1.4142135623730951) ? scaled->in[0] : NULL;
    scaled = ew_match_inner(erf->in[0], EW_OP_MUL);
    x = scaled ? ew_match_with_scalar(scaled, &c) : NULL;
    return x && c > 0.7071060 && c < 0.7071075 ? x : NULL;
}

/* Whether v is x^3, or x^2 * x. */
static bool is_cube(const struct ew_value *v, const struct ew_value *x)
{
    const struct ew_node *n = ew_match_inner(v, EW_OP_POW);
    const struct ew_node *square;
    const struct ew_value *other;

    if (n)
        return n->in[0] == x && ew_match_is(n->in[1], 3.0);
    n = ew_match_inner(v, EW_OP_MUL);
    other = n ? ew_match_other(n, x) : NULL;
    square = other ? ew_match_inner(other, EW_OP_MUL) : NULL;
    if (square)
        return square->in[0] == x && square->in[1] == x;
    square = other ? ew_match_inner(other, EW_OP_POW) : NULL;
    return square && square->in[0] == x && ew_match_is(square->in[1], 2.0);
}

/* x of 1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)). */
static struct ew_value *match_tanh_part(const struct ew_value *v)
{
    const struct ew_node *add = ew_match_inner(v, EW_OP_ADD), *tanh, *scaled, *sum, *cube;
    const struct ew_value *t, *s;
    double c;

    t = add ? ew_match_with_scalar(add, &c) : NULL;
    tanh = t && c == 1.0 ? ew_match_inner(t, EW_OP_TANH) : NULL;
    scaled = tanh ? ew_match_inner(tanh->in[0], EW_OP_MUL) : NULL;
    s = scaled ? ew_match_with_scalar(scaled, &c) : NULL;
    sum = s && c > 0.797884 && c < 0.797885 ? ew_match_inner(s, EW_OP_ADD) : NULL;
    for (int side = 0; sum && side < 2; side++) {
        const struct ew_value *p;
        cube = ew_match_inner(sum->in[side], EW_OP_MUL);
        p = cube ? ew_match_with_scalar(cube, &c) : NULL;
        if (p && c > 0.0447149 && c < 0.0447151 && is_cube(p, sum->in[1 - side]))
            return sum->in[1 - side];
    }
    return NULL;
}

/* x of the whole: the factors x, 0.5 and 1 + f(x) in any order. */
static struct ew_value *match_gelu(const struct ew_node *n,
                                   struct ew_value *(*part)(const struct ew_value *))
{
    for (int side = 0; side < 2; side++) {
        const struct ew_node *inner = ew_match_inner(n->in[side], EW_OP_MUL);
        const struct ew_value *factor[3];
        if (!inner)
            continue;
        factor[0] = inner->in[0];
        factor[1] = inner->in[1];
        factor[2] = n->in[1 - side];
        for (int i = 0; i < 3; i++) {
            struct ew_value *x = part(factor[i]);
            const struct ew_value *a = factor[(i + 1) % 3], *b = factor[(i + 2) % 3];
            if (x && ((a == x && ew_match_is(b, 0.5)) || (b == x && ew_match_is(a, 0.5))))
                return x;
        }
    }
    return NULL;
}

static ew_status try_mul(struct ew_graph *g, struct ew_node *n, size_t *n_changes, ew_error *err)
{
    struct ew_value *x = match_swish(n);
    union ew_attrs attrs;
    ew_op op = EW_OP_SWISH;

    ew_op_attrs_init(EW_OP_SWISH, &attrs);
    if (!x) {
        op = EW_OP_GELU;
        ew_op_attrs_init(EW_OP_GELU, &attrs);
        x = match_gelu(n, match_erf_part);
    }
    if (!x) {
        attrs.gelu.approximate = EW_GELU_TANH;
        x = match_gelu(n, match_tanh_part);
    }
    if (!x || !ew_match_same_type(x, n->out[0]))
        return EW_STATUS_OK;
    ++*n_changes;
    return ew_rewrite_node(g, n, op, &attrs, &x, 1, NULL, err);
}

ew_status ew_pass_recognise_act(struct ew_graph *g, size_t *n_changes, ew_error *err)
{
    for (struct ew_node *n = g->head, *next; n; n = next) {
        next = n->next;
        if (n->op == EW_OP_MUL)
            EW_TRY(try_mul(g, n, n_changes, err));
    }
    return EW_STATUS_OK;
}

/* pass/recognise_norm.c - x * rsqrt(mean(x^2) + eps) * w, however it was spelled, becomes
 * FusedRmsNorm.
 *
 * Only over the last axis, in f32, with intermediates that nobody else reads. */
#include "pass/match.h"
#include "pass/pass.h"

/* x of mean(x^2) over the last axis, kept as a dim. */
static struct ew_value *match_mean_square(const struct ew_value *v)
{
    const struct ew_node *mean = ew_match_inner(v, EW_OP_REDUCE_MEAN), *square;
    int64_t axis;
    size_t n;
    double two;

    if (!mean || !mean->attrs.reduce.keepdims || mean->n_in < 2 ||
        !ew_value_ints(mean->in[1], &axis, 1, &n) || n != 1 ||
        (axis != -1 && axis != mean->in[0]->type.n_dims - 1))
        return NULL;
    square = ew_match_inner(mean->in[0], EW_OP_POW);
    if (square)
        return ew_match_scalar(square->in[1], &two) && two == 2.0 ? square->in[0] : NULL;
    square = ew_match_inner(mean->in[0], EW_OP_MUL);
    return square && square->in[0] == square->in[1] ? square->in[0] : NULL;
}

/* x and eps of sqrt(mean(x^2) + eps). */
static struct ew_value *match_mean_eps(const struct ew_value *v, double *eps)
{
    const struct ew_node *add = ew_match_inner(v, EW_OP_ADD);
    const struct ew_value *mean = add ? ew_match_with_scalar(add, eps) : NULL;

    return mean ? match_mean_square(mean) : NULL;
}

static struct ew_value *match_root(const struct ew_value *v, double *eps)
{
    const struct ew_node *root = ew_match_inner(v, EW_OP_SQRT);

    return root ? match_mean_eps(root->in[0], eps) : NULL;
}

/* 1 / sqrt(mean(x^2) + eps): Reciprocal(Sqrt), Div(1, Sqrt), Pow(-0.5). */
static struct ew_value *match_inverse_root(const struct ew_value *v, double *eps)
{
    const struct ew_node *n = ew_match_inner(v, EW_OP_RECIPROCAL);
    double c;

    if (n)
        return match_root(n->in[0], eps);
    n = ew_match_inner(v, EW_OP_DIV);
    if (n)
        return ew_match_scalar(n->in[0], &c) && c == 1.0 ? match_root(n->in[1], eps) : NULL;
    n = ew_match_inner(v, EW_OP_POW);
    return n && ew_match_scalar(n->in[1], &c) && c == -0.5 ? match_mean_eps(n->in[0], eps) : NULL;
}

/* x of the normalised value. */
static struct ew_value *match_normalised(const struct ew_value *v, double *eps)
{
    const struct ew_node *n = ew_match_inner(v, EW_OP_DIV);
    struct ew_value *x;

    if (n) {
        x = match_root(n->in[1], eps);
        return x == n->in[0] ? x : NULL;
    }
    n = ew_match_inner(v, EW_OP_MUL);
    for (int side = 0; n && side < 2; side++) {
        x = match_inverse_root(n->in[side], eps);
        if (x && x == n->in[1 - side])
            return x;
    }
    return NULL;
}

static ew_status to_fused(struct ew_graph *g, struct ew_node *n, struct ew_value *x,
                          struct ew_value *w, double eps, ew_error *err)
{
    union ew_attrs attrs;
    struct ew_value *in[2] = { x, ew_rewrite_vector(g, w, x->type.dim[x->type.n_dims - 1]) };

    if (!in[1])
        return ew_fail(err, EW_STATUS_NO_MEMORY, "weight of node '%s'", n->name);
    ew_op_attrs_init(EW_OP_FUSED_RMS_NORM, &attrs);
    attrs.fused_rms_norm.epsilon = (float)eps;
    return ew_rewrite_node(g, n, EW_OP_FUSED_RMS_NORM, &attrs, in, 2, NULL, err);
}

static bool is_norm_of(const struct ew_node *n, const struct ew_value *x, const struct ew_value *w)
{
    const int rank = x->type.n_dims;

    return rank > 0 && x->type.dtype == EW_DTYPE_F32 && w->type.dtype == EW_DTYPE_F32 &&
           x->type.dim[rank - 1] > 0 && ew_match_vector(w, x->type.dim[rank - 1]) &&
           ew_match_same_type(x, n->out[0]);
}

static ew_status try_chain(struct ew_graph *g, struct ew_node *n, size_t *n_changes, ew_error *err)
{
    for (int side = 0; side < 2; side++) {
        struct ew_value *w = n->in[1 - side], *x;
        double eps = 0;
        if (!w->is_const)
            continue;
        x = match_normalised(n->in[side], &eps);
        if (!x || !is_norm_of(n, x, w))
            continue;
        ++*n_changes;
        return to_fused(g, n, x, w, eps, err);
    }
    return EW_STATUS_OK;
}

static ew_status try_op(struct ew_graph *g, struct ew_node *n, size_t *n_changes, ew_error *err)
{
    const int64_t axis = n->attrs.norm.axis;

    if (!is_norm_of(n, n->in[0], n->in[1]) || (axis != -1 && axis != n->in[0]->type.n_dims - 1))
        return EW_STATUS_OK;
    ++*n_changes;
    return to_fused(g, n, n->in[0], n->in[1], (double)n->attrs.norm.epsilon, err);
}

ew_status ew_pass_recognise_norm(struct ew_graph *g, size_t *n_changes, ew_error *err)
{
    for (struct ew_node *n = g->head, *next; n; n = next) {
        next = n->next;
        if (n->op == EW_OP_MUL)
            EW_TRY(try_chain(g, n, n_changes, err));
        else if (n->op == EW_OP_RMS_NORM)
            EW_TRY(try_op(g, n, n_changes, err));
    }
    return EW_STATUS_OK;
}

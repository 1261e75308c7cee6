/* pass/simplify.c - ops that do nothing go away, pairs that cancel or combine are joined. */
#include <string.h>

#include "pass/match.h"
#include "pass/pass.h"

/* Ops that only give another shape to the same elements. */
static bool is_reshape(const struct ew_node *n)
{
    return n && (n->op == EW_OP_RESHAPE || n->op == EW_OP_SQUEEZE || n->op == EW_OP_UNSQUEEZE ||
                 n->op == EW_OP_FLATTEN);
}

static bool is_perm_identity(const struct ew_node *n)
{
    const struct ew_ints *p = &n->attrs.perm.perm;

    if (!p->n)
        return n->in[0]->type.n_dims <= 1; /* absent: reversed */
    for (int i = 0; i < p->n; i++)
        if (p->v[i] != i)
            return false;
    return true;
}

/* x (op) c where c changes nothing. */
static bool is_neutral(const struct ew_node *n, struct ew_value **x)
{
    const double neutral = n->op == EW_OP_ADD || n->op == EW_OP_SUB ? 0.0 : 1.0;
    const bool commutes = n->op == EW_OP_ADD || n->op == EW_OP_MUL;
    double c;

    *x = n->in[0];
    if (ew_match_scalar(n->in[1], &c) && c == neutral)
        return true;
    *x = n->in[1];
    return commutes && ew_match_scalar(n->in[0], &c) && c == neutral;
}

static bool is_plain_slice(const struct ew_node *n)
{
    double step;

    return n->n_in < 5 || !n->in[4] || (ew_match_scalar(n->in[4], &step) && step == 1.0);
}

/* The input that n gives through unchanged; NULL: it does something. */
static struct ew_value *same_as(const struct ew_node *n)
{
    struct ew_value *x = n->in[0];

    switch (n->op) {
    case EW_OP_IDENTITY:
        return x;
    case EW_OP_CAST:
    case EW_OP_RESHAPE:
    case EW_OP_SQUEEZE:
    case EW_OP_UNSQUEEZE:
    case EW_OP_FLATTEN:
    case EW_OP_EXPAND:
        break;
    case EW_OP_TRANSPOSE:
        return is_perm_identity(n) ? x : NULL;
    case EW_OP_SLICE:
        if (!is_plain_slice(n))
            return NULL;
        break;
    case EW_OP_CONCAT:
    case EW_OP_SUM:
    case EW_OP_MAX:
    case EW_OP_MIN:
    case EW_OP_MEAN:
        if (n->n_in != 1)
            return NULL;
        break;
    case EW_OP_SPLIT:
        if (n->n_out != 1)
            return NULL;
        break;
    case EW_OP_ADD:
    case EW_OP_SUB:
    case EW_OP_MUL:
    case EW_OP_DIV:
        if (!is_neutral(n, &x))
            return NULL;
        break;
    default:
        return NULL;
    }
    return ew_match_same_type(x, n->out[0]) ? x : NULL;
}

/* Reshape of a reshape: the first is not needed, unless the second copies dims from it (a zero in
 * its shape). */
static bool join_reshapes(struct ew_node *n)
{
    const struct ew_node *inner = n->in[0]->producer;
    int64_t shape[EW_MAX_DIMS];
    size_t len;

    if (n->op != EW_OP_RESHAPE || !is_reshape(inner) ||
        !ew_value_ints(n->in[1], shape, EW_MAX_DIMS, &len))
        return false;
    for (size_t i = 0; i < len; i++)
        if (shape[i] == 0)
            return false;
    ew_node_set_input(n, 0, inner->in[0]);
    return true;
}

/* Reshapes that lead back to where they came from. */
static struct ew_value *cancelled_reshapes(const struct ew_node *n)
{
    const struct ew_node *inner = n->in[0] ? n->in[0]->producer : NULL;

    if (!is_reshape(n) || !is_reshape(inner))
        return NULL;
    return ew_match_same_type(inner->in[0], n->out[0]) ? inner->in[0] : NULL;
}

static void get_perm(const struct ew_node *n, int rank, int64_t *out)
{
    const struct ew_ints *p = &n->attrs.perm.perm;

    for (int i = 0; i < rank; i++)
        out[i] = p->n ? p->v[i] : rank - 1 - i;
}

static bool join_transposes(struct ew_node *n)
{
    const struct ew_node *inner = ew_match_node(n->in[0], EW_OP_TRANSPOSE);
    const int rank = n->in[0]->type.n_dims;
    int64_t outer_perm[EW_MAX_DIMS], inner_perm[EW_MAX_DIMS];

    if (n->op != EW_OP_TRANSPOSE || !inner)
        return false;
    get_perm(n, rank, outer_perm);
    get_perm(inner, rank, inner_perm);
    n->attrs.perm.perm.n = rank;
    for (int i = 0; i < rank; i++)
        n->attrs.perm.perm.v[i] = inner_perm[outer_perm[i]];
    ew_node_set_input(n, 0, inner->in[0]);
    return true;
}

/* Float to wider float to a third: the middle is exact, so it is not needed. */
static bool join_casts(struct ew_node *n)
{
    const struct ew_node *inner = ew_match_node(n->in[0], EW_OP_CAST);
    ew_dtype from, mid;

    if (n->op != EW_OP_CAST || !inner)
        return false;
    from = inner->in[0]->type.dtype;
    mid = inner->out[0]->type.dtype;
    if ((from != EW_DTYPE_F16 && from != EW_DTYPE_BF16) || mid != EW_DTYPE_F32)
        return false;
    ew_node_set_input(n, 0, inner->in[0]);
    return true;
}

ew_status ew_pass_simplify(struct ew_graph *g, size_t *n_changes, ew_error *err)
{
    (void)err;
    for (struct ew_node *n = g->head, *next; n; n = next) {
        struct ew_value *x;
        next = n->next;
        if (!n->n_in || !n->in[0] || !n->out[0])
            continue;
        if (join_reshapes(n) || join_transposes(n) || join_casts(n))
            ++*n_changes;
        x = same_as(n);
        if (!x)
            x = cancelled_reshapes(n);
        if (!x || !ew_rewrite_can(n, x))
            continue;
        ew_rewrite_replace(g, n, x);
        ++*n_changes;
    }
    return EW_STATUS_OK;
}

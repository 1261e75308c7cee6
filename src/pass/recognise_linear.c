/* pass/recognise_linear.c - MatMul and Gemm with a constant weight become Linear; a constant added
 * after is its bias.
 *
 * The weight is not copied: a new constant of dims [N,K] names the same bytes by strides; a
 * DequantizeLinear becomes a quantised constant. */
#include "graph/dequant.h"
#include "pass/match.h"
#include "pass/pass.h"

/* Rank 2 constant, or DequantizeLinear, below Transposes and exact Casts; *transposed: the product
 * sees it as [cols, rows]. Language models compute in f32 in the end, so what lies over a
 * DequantizeLinear there need not be f32. */
static struct ew_value *weight_of(const struct ew_graph *g, struct ew_value *v, bool *transposed)
{
    bool is_exact = true;

    *transposed = false;
    while (v->producer && v->producer->op != EW_OP_DEQUANTIZE_LINEAR) {
        const struct ew_node *n = v->producer;
        if (n->op == EW_OP_TRANSPOSE && v->type.n_dims == 2 &&
            (!n->attrs.perm.perm.n || n->attrs.perm.perm.v[0] == 1))
            *transposed = !*transposed;
        else if (n->op != EW_OP_CAST ||
                 (v->type.dtype != EW_DTYPE_F32 && v->type.dtype != EW_DTYPE_F16 &&
                  v->type.dtype != EW_DTYPE_BF16))
            return NULL;
        else
            is_exact = is_exact && v->type.dtype == EW_DTYPE_F32;
        v = n->in[0];
    }
    if (v->producer)
        return v->type.n_dims == 2 && (is_exact || g->llm_config) ? v : NULL;
    if (!is_exact)
        return NULL;
    if (!v->is_const || v->con.n_parts || v->type.n_dims != 2 || !v->con.data)
        return NULL;
    if (v->type.dtype != EW_DTYPE_F32 && v->type.dtype != EW_DTYPE_F16 &&
        v->type.dtype != EW_DTYPE_BF16)
        return NULL;
    return v->type.dim[0] > 0 && v->type.dim[1] > 0 ? v : NULL;
}

/* Language models get f32 activations later; in other graphs only f32 products are Linears. */
static bool is_float_x(const struct ew_graph *g, const struct ew_value *x)
{
    if (x->type.dtype == EW_DTYPE_F32)
        return true;
    return g->llm_config && (x->type.dtype == EW_DTYPE_F16 || x->type.dtype == EW_DTYPE_BF16);
}

/* [N,K] over a constant that the product reads as [K,N] (is_kn) or [N,K]. *out NULL: a
 * DequantizeLinear that is no quantised constant. */
static ew_status make_weight(struct ew_graph *g, const struct ew_value *base, bool is_kn,
                             struct ew_value **out, ew_error *err)
{
    if (base->producer)
        return ew_graph_quant_of(g, base->producer, is_kn, out, err);

    const int64_t n = base->type.dim[is_kn ? 1 : 0], k = base->type.dim[is_kn ? 0 : 1];
    const int64_t dims[2] = { n, k };
    const struct ew_type t = ew_type_make(base->type.dtype, 2, dims);
    const struct ew_weight_part part = {
        .data = base->con.data, .n_rows = (size_t)n, .row_stride = 1, .col_stride = (ptrdiff_t)n
    };

    *out = is_kn ? ew_graph_add_const_parts(g, base->name, &t, &part, 1)
                 : ew_graph_add_const(g, base->name, &t, base->con.data, false);
    return *out ? EW_STATUS_OK : ew_fail(err, EW_STATUS_NO_MEMORY, "weight '%s'", base->name);
}

static ew_status to_linear(struct ew_graph *g, struct ew_node *n, struct ew_value *w,
                           struct ew_value *bias, size_t *n_changes, ew_error *err)
{
    struct ew_value *in[3] = { n->in[0], w, bias };

    ++*n_changes;
    return ew_rewrite_node(g, n, EW_OP_LINEAR, NULL, in, bias ? 3 : 2, NULL, err);
}

static ew_status try_matmul(struct ew_graph *g, struct ew_node *n, size_t *n_changes, ew_error *err)
{
    bool transposed;
    struct ew_value *base, *w;

    if (n->in[0]->is_const || n->in[0]->type.n_dims < 2 || !is_float_x(g, n->in[0]))
        return EW_STATUS_OK;
    base = weight_of(g, n->in[1], &transposed);
    if (!base)
        return EW_STATUS_OK;
    EW_TRY(make_weight(g, base, !transposed, &w, err));
    return w ? to_linear(g, n, w, NULL, n_changes, err) : EW_STATUS_OK;
}

static ew_status try_gemm(struct ew_graph *g, struct ew_node *n, size_t *n_changes, ew_error *err)
{
    const struct ew_attr_gemm *a = &n->attrs.gemm;
    struct ew_value *c = n->n_in > 2 ? n->in[2] : NULL, *base, *w;
    bool transposed;

    if (a->alpha != 1.0f || a->trans_a || n->in[0]->is_const || !is_float_x(g, n->in[0]))
        return EW_STATUS_OK;
    base = weight_of(g, n->in[1], &transposed);
    if (!base)
        return EW_STATUS_OK;
    if (a->trans_b)
        transposed = !transposed;
    if (c) {
        const int64_t rows = base->type.dim[transposed ? 0 : 1];
        if (a->beta != 1.0f || !ew_match_vector(c, rows))
            return EW_STATUS_OK;
        c = ew_rewrite_vector(g, c, rows);
        if (!c)
            return ew_fail(err, EW_STATUS_NO_MEMORY, "bias of node '%s'", n->name);
    }
    EW_TRY(make_weight(g, base, !transposed, &w, err));
    return w ? to_linear(g, n, w, c, n_changes, err) : EW_STATUS_OK;
}

static bool is_bare(const struct ew_node *n)
{
    const struct ew_attr_linear *a = &n->attrs.linear;

    return n->n_in == 2 && a->act == EW_ACT_NONE && !a->glu && a->scale == 1.0f &&
           a->softcap == 0.0f;
}

/* Add(Linear, constant [N]). */
static ew_status try_bias(struct ew_graph *g, struct ew_node *n, size_t *n_changes, ew_error *err)
{
    for (int side = 0; side < 2; side++) {
        struct ew_node *linear = ew_match_inner(n->in[side], EW_OP_LINEAR);
        struct ew_value *b = n->in[1 - side], *in[3];
        int64_t rows;
        if (!linear || !is_bare(linear))
            continue;
        rows = linear->in[1]->type.dim[0];
        if (!ew_match_vector(b, rows) || b->type.n_dims > linear->out[0]->type.n_dims ||
            b->type.dtype != linear->in[0]->type.dtype)
            continue;
        in[0] = linear->in[0];
        in[1] = linear->in[1];
        in[2] = ew_rewrite_vector(g, b, rows);
        if (!in[2])
            return ew_fail(err, EW_STATUS_NO_MEMORY, "bias of node '%s'", n->name);
        ++*n_changes;
        return ew_rewrite_node(g, n, EW_OP_LINEAR, &linear->attrs, in, 3, NULL, err);
    }
    return EW_STATUS_OK;
}

ew_status ew_pass_recognise_linear(struct ew_graph *g, size_t *n_changes, ew_error *err)
{
    for (struct ew_node *n = g->head, *next; n; n = next) {
        next = n->next;
        if (n->op == EW_OP_MATMUL)
            EW_TRY(try_matmul(g, n, n_changes, err));
        else if (n->op == EW_OP_GEMM)
            EW_TRY(try_gemm(g, n, n_changes, err));
        else if (n->op == EW_OP_ADD)
            EW_TRY(try_bias(g, n, n_changes, err));
    }
    return EW_STATUS_OK;
}

/* pass/match.c - see match.h. */
#include "pass/match.h"

#include <math.h>
#include <string.h>

#include "base/size.h"

struct ew_node *ew_match_node(const struct ew_value *v, ew_op op)
{
    return v && v->producer && v->producer->op == op ? v->producer : NULL;
}

struct ew_node *ew_match_inner(const struct ew_value *v, ew_op op)
{
    return v && v->n_uses == 1 && !v->is_output ? ew_match_node(v, op) : NULL;
}

bool ew_match_scalar(const struct ew_value *v, double *out)
{
    size_t n;

    if (!v || !v->is_const || v->con.n_parts || !ew_type_count(&v->type, &n) || n != 1)
        return false;
    *out = ew_elem_get_f64(v->con.data, v->type.dtype, 0);
    return true;
}

bool ew_match_is(const struct ew_value *v, double x)
{
    double have;

    return ew_match_scalar(v, &have) && fabs(have - x) <= 1e-6 * fabs(x);
}

struct ew_value *ew_match_other(const struct ew_node *n, const struct ew_value *v)
{
    if (n->n_in != 2 || n->in[0] == n->in[1])
        return NULL;
    return n->in[0] == v ? n->in[1] : n->in[1] == v ? n->in[0] : NULL;
}

struct ew_value *ew_match_with_scalar(const struct ew_node *n, double *scalar)
{
    if (n->n_in != 2)
        return NULL;
    if (ew_match_scalar(n->in[1], scalar))
        return n->in[0];
    return ew_match_scalar(n->in[0], scalar) ? n->in[1] : NULL;
}

bool ew_match_vector(const struct ew_value *v, int64_t n)
{
    size_t count;

    return v && v->is_const && !v->con.n_parts && v->type.n_dims >= 1 &&
           ew_dtype_is_float(v->type.dtype) && ew_type_count(&v->type, &count) &&
           count == (size_t)n && v->type.dim[v->type.n_dims - 1] == n;
}

bool ew_match_same_type(const struct ew_value *a, const struct ew_value *b)
{
    return ew_type_equal(&a->type, &b->type);
}

int ew_match_act(const struct ew_node *n)
{
    switch (n->op) {
    case EW_OP_SWISH:
        return n->attrs.alpha.alpha == 1.0f ? EW_ACT_SILU : EW_ACT_NONE;
    case EW_OP_GELU:
        return n->attrs.gelu.approximate == EW_GELU_TANH ? EW_ACT_GELU_TANH : EW_ACT_GELU_ERF;
    case EW_OP_RELU:
        return EW_ACT_RELU;
    default:
        return EW_ACT_NONE;
    }
}

/* One number that the value holds. */
static bool one_int(const struct ew_value *v, int64_t *out)
{
    size_t n;

    return v && ew_value_ints(v, out, 1, &n) && n == 1 && !ew_dim_is_symbol(*out);
}

bool ew_match_slice_last(const struct ew_node *n, int64_t *from, int64_t *to)
{
    const struct ew_type *t = &n->in[0]->type;
    const int64_t len = t->n_dims ? t->dim[t->n_dims - 1] : -1;
    int64_t axis = 0, step = 1;

    if (n->op != EW_OP_SLICE || len < 0 || !one_int(n->in[1], from) || !one_int(n->in[2], to))
        return false;
    if (n->n_in > 3 && n->in[3] && !one_int(n->in[3], &axis))
        return false;
    if (n->n_in > 4 && n->in[4] && !one_int(n->in[4], &step))
        return false;
    if (step != 1 || (axis != -1 && axis != t->n_dims - 1))
        return false;
    *from = *from < 0 ? *from + len : *from;
    *to = *to < 0 ? *to + len : *to;
    *from = *from < 0 ? 0 : *from;
    *to = *to > len ? len : *to;
    return *from <= *to;
}

bool ew_match_piece_last(const struct ew_value *v, struct ew_value **source, int64_t *from,
                         int64_t *to)
{
    const struct ew_node *n = v->producer;
    int rank;

    if (!n)
        return false;
    *source = n->in[0];
    if (n->op == EW_OP_SLICE)
        return ew_match_slice_last(n, from, to);
    rank = n->in[0] ? n->in[0]->type.n_dims : 0;
    if (n->op != EW_OP_SPLIT || rank < 1 ||
        (n->attrs.split.axis != -1 && n->attrs.split.axis != rank - 1))
        return false;
    *from = 0;
    for (int i = 0; i < v->out_idx; i++) {
        if (!n->out[i] || n->out[i]->type.dim[rank - 1] < 0)
            return false;
        *from += n->out[i]->type.dim[rank - 1];
    }
    *to = *from + v->type.dim[rank - 1];
    return v->type.dim[rank - 1] >= 0;
}

/* ---- rewriting ---- */

bool ew_rewrite_can(const struct ew_node *n, const struct ew_value *v)
{
    for (int i = 1; i < n->n_out; i++)
        if (n->out[i] && n->out[i]->n_uses)
            return false;
    return ew_graph_can_replace(n->out[0], v);
}

static bool is_dead(const struct ew_node *n)
{
    for (int i = 0; i < n->n_out; i++)
        if (n->out[i] && n->out[i]->n_uses)
            return false;
    return true;
}

/* Removes n and what fed only it; long chains are left to the sweep at the end of a pass. */
static void drop(struct ew_graph *g, struct ew_node *n)
{
    struct ew_node *stack[64];
    size_t n_stack = 0;

    stack[n_stack++] = n;
    while (n_stack) {
        struct ew_node *top = stack[--n_stack];
        struct ew_node *feeds[16];
        int n_feeds = 0;
        if ((!top->prev && g->head != top) || !is_dead(top))
            continue; /* gone already, or alive */
        for (int i = 0; i < top->n_in && n_feeds < 16; i++)
            if (top->in[i] && top->in[i]->producer)
                feeds[n_feeds++] = top->in[i]->producer;
        ew_graph_remove_node(g, top);
        for (int i = 0; i < n_feeds && n_stack < 64; i++)
            stack[n_stack++] = feeds[i];
    }
}

void ew_rewrite_replace(struct ew_graph *g, struct ew_node *n, struct ew_value *v)
{
    ew_graph_replace_uses(g, n->out[0], v);
    drop(g, n);
}

ew_status ew_rewrite_node(struct ew_graph *g, struct ew_node *at, ew_op op,
                          const union ew_attrs *attrs, struct ew_value *const *in, int n_in,
                          struct ew_node **out, ew_error *err)
{
    struct ew_node *n;

    EW_TRY(ew_graph_insert_node(g, at, op, at->name, attrs, in, n_in, 1, &n, err));
    n->out[0]->type = at->out[0]->type; /* the old type may know more of symbols; same size */
    ew_rewrite_replace(g, at, n->out[0]);
    if (out)
        *out = n;
    return EW_STATUS_OK;
}

struct ew_value *ew_rewrite_vector(struct ew_graph *g, struct ew_value *v, int64_t n)
{
    struct ew_type t = v->type;

    if (t.n_dims == 1)
        return v;
    t.n_dims = 1;
    t.dim[0] = n;
    return ew_graph_add_const(g, v->name, &t, v->con.data, false);
}

bool ew_match_joinable(const struct ew_node *a, const struct ew_node *b)
{
    const struct ew_attr_linear *x = &a->attrs.linear, *y = &b->attrs.linear;
    const struct ew_value *w = a->in[1], *v = b->in[1];
    const struct ew_quant_format *f = ew_const_quant(w), *h = ew_const_quant(v);

    return a->in[0] == b->in[0] && w->type.dtype == v->type.dtype &&
           w->type.dim[1] == v->type.dim[1] && x->x_quant == y->x_quant &&
           x->x_block == y->x_block && x->x_scale == y->x_scale && !f == !h &&
           (!f || ew_quant_format_equal(f, h));
}

bool ew_rewrite_rows(struct ew_graph *g, const struct ew_value *w, struct ew_weight_list *list)
{
    const size_t add = w->con.n_parts ? w->con.n_parts : 1;
    struct ew_weight_part *parts = ew_arena_new(&g->arena, struct ew_weight_part, list->n + add);

    if (!parts || w->type.n_dims != 2)
        return false;
    if (list->n)
        memcpy(parts, list->parts, list->n * sizeof(*parts));
    if (w->con.n_parts)
        memcpy(parts + list->n, w->con.parts, add * sizeof(*parts));
    else
        parts[list->n] = (struct ew_weight_part){ .data = w->con.data,
                                                  .n_rows = (size_t)w->type.dim[0],
                                                  .row_stride = (ptrdiff_t)w->type.dim[1],
                                                  .col_stride = 1 };
    list->parts = parts;
    list->n += add;
    return true;
}

ew_status ew_rewrite_biases(struct ew_graph *g, struct ew_node *const *linears, int n,
                            struct ew_value **out, ew_error *err)
{
    struct ew_type t = { .dtype = EW_DTYPE_F32, .n_dims = 1 };
    bool any = false;
    float *data, *at;

    *out = NULL;
    for (int i = 0; i < n; i++) {
        any = any || (linears[i]->n_in > 2 && linears[i]->in[2]);
        t.dim[0] += linears[i]->in[1]->type.dim[0];
    }
    if (!any)
        return EW_STATUS_OK;
    data = ew_arena_new(&g->arena, float, (size_t)t.dim[0]);
    if (!data)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "bias of node '%s'", linears[0]->name);
    at = data;
    for (int i = 0; i < n; i++) {
        const size_t rows = (size_t)linears[i]->in[1]->type.dim[0];
        const struct ew_value *b = linears[i]->n_in > 2 ? linears[i]->in[2] : NULL;
        if (b)
            ew_convert_floats(at, EW_DTYPE_F32, b->con.data, b->type.dtype, rows);
        at += rows;
    }
    *out = ew_graph_add_const(g, linears[0]->in[1]->name, &t, data, false);
    return *out ? EW_STATUS_OK : ew_fail(err, EW_STATUS_NO_MEMORY, "bias of a Linear");
}

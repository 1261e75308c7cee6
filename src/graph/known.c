/* graph/known.c - contents of small integer values, as dims: what shape arithmetic computes.
 *
 * Shape -> Gather -> Concat -> Reshape chains are followed with symbols inside, so that types stay
 * exact without running anything. Anything unclear leaves the value unknown; that is never an
 * error. */
#include <string.h>

#include "base/size.h"
#include "graph/ir.h"

#define CAP 64

struct ints {
    size_t n;
    int64_t v[CAP];
};

bool ew_value_ints(const struct ew_value *v, int64_t *out, size_t cap, size_t *n)
{
    size_t count;

    if (!v)
        return false;
    if (v->known) {
        if (v->n_known > cap)
            return false;
        memcpy(out, v->known, v->n_known * sizeof(*out));
        *n = v->n_known;
        return true;
    }
    if (!v->is_const || v->con.n_parts ||
        (!ew_dtype_is_int(v->type.dtype) && v->type.dtype != EW_DTYPE_BOOL) ||
        !ew_type_count(&v->type, &count) || count > cap)
        return false;
    for (size_t i = 0; i < count; i++) {
        out[i] = ew_elem_get_i64(v->con.data, v->type.dtype, i);
        if (out[i] <= EW_DIM_FIRST_SYMBOL)
            out[i] = EW_DIM_FIRST_SYMBOL + 1; /* as ew_infer_ints */
    }
    *n = count;
    return true;
}

static bool load(const struct ew_node *n, int i, struct ints *out)
{
    return i < n->n_in && ew_value_ints(n->in[i], out->v, CAP, &out->n);
}

/* The same, and no symbol among them. */
static bool load_numbers(const struct ew_node *n, int i, struct ints *out)
{
    if (!load(n, i, out))
        return false;
    for (size_t k = 0; k < out->n; k++)
        if (ew_dim_is_symbol(out->v[k]))
            return false;
    return true;
}

static void store(struct ew_graph *g, struct ew_value *v, const struct ints *r)
{
    int64_t *own;
    size_t count;

    if (!v || (ew_type_count(&v->type, &count) && count != r->n))
        return;
    for (size_t i = 0; i < r->n; i++) {
        const int64_t x = r->v[i];
        if (x == EW_DIM_BAD)
            return;
        if (v->type.dtype == EW_DTYPE_I32 && !ew_dim_is_symbol(x) &&
            (x > INT32_MAX || x < INT32_MIN))
            return;
    }
    own = ew_arena_new(&g->arena, int64_t, r->n ? r->n : 1);
    if (!own)
        return; /* unknown is always allowed */
    memcpy(own, r->v, r->n * sizeof(*own));
    v->known = own;
    v->n_known = r->n;
}

/* ---- single ops; false: unknown ---- */

static bool known_shape(const struct ew_node *n, struct ints *r)
{
    const struct ew_type *t = &n->in[0]->type;
    int64_t from = n->attrs.shape.start,
            to = n->attrs.shape.has_end ? n->attrs.shape.end : t->n_dims;

    from = from < 0 ? from + t->n_dims : from;
    to = to < 0 ? to + t->n_dims : to;
    from = from < 0 ? 0 : from;
    to = to > t->n_dims ? t->n_dims : to;
    r->n = 0;
    for (int64_t i = from; i < to; i++)
        r->v[r->n++] = t->dim[i];
    return true;
}

static bool known_size(struct ew_graph *g, const struct ew_node *n, struct ints *r)
{
    const struct ew_type *t = &n->in[0]->type;

    r->n = 1;
    r->v[0] = 1;
    for (int i = 0; i < t->n_dims; i++)
        r->v[0] = ew_dim_mul(g->syms, r->v[0], t->dim[i]);
    return true;
}

static bool known_gather(const struct ew_node *n, struct ints *r)
{
    struct ints data, idx;

    if (n->in[0]->type.n_dims != 1 || !load(n, 0, &data) || !load_numbers(n, 1, &idx))
        return false;
    r->n = idx.n;
    for (size_t i = 0; i < idx.n; i++) {
        const int64_t k = idx.v[i] < 0 ? idx.v[i] + (int64_t)data.n : idx.v[i];
        if (k < 0 || k >= (int64_t)data.n)
            return false;
        r->v[i] = data.v[k];
    }
    return true;
}

static int64_t clamp(int64_t v, int64_t low, int64_t high)
{
    return v < low ? low : v > high ? high : v;
}

static bool known_slice(const struct ew_node *n, struct ints *r)
{
    struct ints data, starts, ends, steps = { 1, { 1 } };
    int64_t len, from, to, step;

    if (n->in[0]->type.n_dims != 1 || !load(n, 0, &data) || !load_numbers(n, 1, &starts) ||
        !load_numbers(n, 2, &ends) || starts.n != 1 || ends.n != 1)
        return false;
    if (n->n_in > 4 && n->in[4] && (!load_numbers(n, 4, &steps) || steps.n != 1))
        return false;
    len = (int64_t)data.n;
    step = steps.v[0];
    if (step == 0)
        return false;
    from = starts.v[0] < 0 ? starts.v[0] + len : starts.v[0];
    to = ends.v[0] < 0 ? ends.v[0] + len : ends.v[0];
    from = step > 0 ? clamp(from, 0, len) : clamp(from, 0, len - 1);
    to = step > 0 ? clamp(to, 0, len) : clamp(to, -1, len - 1);
    step = clamp(step, -CAP, CAP); /* longer steps take one element too */
    r->n = 0;
    for (int64_t i = from; (step > 0 ? i < to : i > to) && i >= 0 && i < len; i += step)
        r->v[r->n++] = data.v[i];
    return true;
}

static bool known_concat(const struct ew_node *n, struct ints *r)
{
    r->n = 0;
    for (int i = 0; i < n->n_in; i++) {
        struct ints part;
        if (n->in[i]->type.n_dims != 1 || !load(n, i, &part) || r->n + part.n > CAP)
            return false;
        memcpy(r->v + r->n, part.v, part.n * sizeof(part.v[0]));
        r->n += part.n;
    }
    return true;
}

static bool known_filled(const struct ew_node *n, struct ints *r)
{
    struct ints shape;
    size_t count;

    if (!load_numbers(n, 0, &shape) || !ew_type_count(&n->out[0]->type, &count) || count > CAP ||
        n->attrs.fill.i <= EW_DIM_FIRST_SYMBOL)
        return false;
    r->n = count;
    for (size_t i = 0; i < count; i++)
        r->v[i] = n->attrs.fill.i;
    return true;
}

static bool known_range(const struct ew_node *n, struct ints *r)
{
    struct ints from, to, step;

    if (!load_numbers(n, 0, &from) || !load_numbers(n, 1, &to) || !load_numbers(n, 2, &step) ||
        from.n != 1 || to.n != 1 || step.n != 1 || step.v[0] == 0)
        return false;
    r->n = 0;
    for (int64_t x = from.v[0]; step.v[0] > 0 ? x < to.v[0] : x > to.v[0];) {
        if (r->n == CAP)
            return false;
        r->v[r->n++] = x;
        if (!ew_i64_add(x, step.v[0], &x))
            return false;
    }
    return true;
}

static bool known_expand(const struct ew_node *n, struct ints *r)
{
    struct ints data;
    size_t count;

    if (!load(n, 0, &data) || !ew_type_count(&n->out[0]->type, &count) || count > CAP)
        return false;
    if (data.n != count && data.n != 1)
        return false;
    r->n = count;
    for (size_t i = 0; i < count; i++)
        r->v[i] = data.v[data.n == 1 ? 0 : i];
    return true;
}

/* ---- elementwise ---- */

static bool truth(bool b, int64_t *out)
{
    *out = b ? 1 : 0;
    return true;
}

/* Whether a - b >= 1 surely. */
static bool surely_more(struct ew_symtab *t, int64_t a, int64_t b)
{
    const int64_t d = ew_dim_sub(t, ew_dim_sub(t, a, b), 1);

    return d != EW_DIM_BAD && (ew_dim_is_symbol(d) ? ew_dim_max(t, d, 0) == d : d >= 0);
}

static bool compare(struct ew_symtab *t, ew_op op, int64_t a, int64_t b, int64_t *out)
{
    const bool numbers = !ew_dim_is_symbol(a) && !ew_dim_is_symbol(b);
    const bool more = surely_more(t, a, b), less = surely_more(t, b, a);

    if (!numbers && a != b && !more && !less)
        return false;
    switch (op) {
    case EW_OP_EQUAL:
        return truth(a == b, out);
    case EW_OP_GREATER:
        return truth(more, out);
    case EW_OP_LESS:
        return truth(less, out);
    case EW_OP_GREATER_OR_EQUAL:
        return truth(!less, out);
    default:
        return truth(!more, out);
    }
}

static bool divide(struct ew_symtab *t, ew_op op, int64_t a, int64_t b, int64_t *out)
{
    const bool numbers = !ew_dim_is_symbol(a) && !ew_dim_is_symbol(b);

    if (b == 0 || (numbers && (a < 0 || b < 0)) || (!ew_dim_is_symbol(b) && b < 0))
        return false; /* signs are where integer division and Mod differ from floor */
    if (op == EW_OP_DIV)
        *out = ew_dim_div(t, a, b);
    else if (numbers)
        *out = a % b;
    else
        return false;
    return true;
}

static bool combine(struct ew_symtab *t, ew_op op, int64_t a, int64_t b, int64_t *out)
{
    switch (op) {
    case EW_OP_ADD:
        *out = ew_dim_add(t, a, b);
        return true;
    case EW_OP_SUB:
        *out = ew_dim_sub(t, a, b);
        return true;
    case EW_OP_MUL:
        *out = ew_dim_mul(t, a, b);
        return true;
    case EW_OP_MAX:
        *out = ew_dim_max(t, a, b);
        return true;
    case EW_OP_MIN:
        *out = ew_dim_min(t, a, b);
        return true;
    case EW_OP_DIV:
    case EW_OP_MOD:
        return divide(t, op, a, b, out);
    case EW_OP_AND:
        return truth(a && b, out);
    case EW_OP_OR:
        return truth(a || b, out);
    default:
        return compare(t, op, a, b, out);
    }
}

/* Scalars and vectors: the index of element i of an operand with n elements. */
static size_t at(const struct ints *x, size_t i)
{
    return x->n == 1 ? 0 : i;
}

static bool known_binary(struct ew_graph *g, const struct ew_node *n, struct ints *r)
{
    struct ints a, b;

    if (n->n_in != 2 || n->out[0]->type.n_dims > 1 || !load(n, 0, &a) || !load(n, 1, &b) ||
        (a.n != b.n && a.n != 1 && b.n != 1))
        return false;
    r->n = a.n == 1 ? b.n : a.n;
    for (size_t i = 0; i < r->n; i++)
        if (!combine(g->syms, n->op, a.v[at(&a, i)], b.v[at(&b, i)], &r->v[i]))
            return false;
    return true;
}

static bool known_where(const struct ew_node *n, struct ints *r)
{
    struct ints c, a, b;

    if (n->out[0]->type.n_dims > 1 || !load_numbers(n, 0, &c) || !load(n, 1, &a) || !load(n, 2, &b))
        return false;
    r->n = c.n == 1 ? (a.n == 1 ? b.n : a.n) : c.n;
    if ((a.n != r->n && a.n != 1) || (b.n != r->n && b.n != 1))
        return false;
    for (size_t i = 0; i < r->n; i++)
        r->v[i] = c.v[at(&c, i)] ? a.v[at(&a, i)] : b.v[at(&b, i)];
    return true;
}

static bool known_unary(struct ew_graph *g, const struct ew_node *n, struct ints *r)
{
    if (!load(n, 0, r))
        return false;
    for (size_t i = 0; i < r->n; i++) {
        if (n->op == EW_OP_NEG)
            r->v[i] = ew_dim_sub(g->syms, 0, r->v[i]);
        else if (ew_dim_is_symbol(r->v[i]))
            return false;
        else
            r->v[i] = !r->v[i];
    }
    return true;
}

static bool known_reduce(struct ew_graph *g, const struct ew_node *n, struct ints *r)
{
    struct ints a;
    int64_t sum;

    if (n->in[0]->type.n_dims != 1 || !load(n, 0, &a) || !a.n)
        return false;
    if (n->attrs.reduce.noop_with_empty_axes)
        return false;
    sum = a.v[0];
    for (size_t i = 1; i < a.n; i++) {
        if (n->op == EW_OP_REDUCE_PROD)
            sum = ew_dim_mul(g->syms, sum, a.v[i]);
        else if (n->op == EW_OP_REDUCE_SUM)
            sum = ew_dim_add(g->syms, sum, a.v[i]);
        else if (n->op == EW_OP_REDUCE_MAX)
            sum = ew_dim_max(g->syms, sum, a.v[i]);
        else
            sum = ew_dim_min(g->syms, sum, a.v[i]);
    }
    r->n = 1;
    r->v[0] = sum;
    return true;
}

static bool infer_known(struct ew_graph *g, const struct ew_node *n, struct ints *r)
{
    switch (n->op) {
    case EW_OP_SHAPE:
        return known_shape(n, r);
    case EW_OP_SIZE:
        return known_size(g, n, r);
    case EW_OP_GATHER:
        return known_gather(n, r);
    case EW_OP_SLICE:
        return known_slice(n, r);
    case EW_OP_CONCAT:
        return known_concat(n, r);
    case EW_OP_CAST: /* between integers; others have no known input or output */
        return (n->out[0]->type.dtype != EW_DTYPE_BOOL || n->in[0]->type.dtype == EW_DTYPE_BOOL) &&
               load(n, 0, r);
    case EW_OP_IDENTITY:
    case EW_OP_RESHAPE:
    case EW_OP_SQUEEZE:
    case EW_OP_UNSQUEEZE:
    case EW_OP_FLATTEN:
        return load(n, 0, r);
    case EW_OP_CONSTANT_OF_SHAPE:
        return known_filled(n, r);
    case EW_OP_RANGE:
        return known_range(n, r);
    case EW_OP_EXPAND:
        return known_expand(n, r);
    case EW_OP_WHERE:
        return known_where(n, r);
    case EW_OP_NEG:
    case EW_OP_NOT:
        return known_unary(g, n, r);
    case EW_OP_REDUCE_PROD:
    case EW_OP_REDUCE_SUM:
    case EW_OP_REDUCE_MAX:
    case EW_OP_REDUCE_MIN:
        return known_reduce(g, n, r);
    case EW_OP_ADD:
    case EW_OP_SUB:
    case EW_OP_MUL:
    case EW_OP_DIV:
    case EW_OP_MOD:
    case EW_OP_MAX:
    case EW_OP_MIN:
    case EW_OP_AND:
    case EW_OP_OR:
    case EW_OP_EQUAL:
    case EW_OP_GREATER:
    case EW_OP_GREATER_OR_EQUAL:
    case EW_OP_LESS:
    case EW_OP_LESS_OR_EQUAL:
        return known_binary(g, n, r);
    default:
        return false;
    }
}

void ew_node_infer_known(struct ew_graph *g, struct ew_node *n)
{
    struct ew_value *v = n->out[0];
    struct ints r;

    if (!v)
        return;
    v->known = NULL;
    v->n_known = 0;
    if (v->type.dtype != EW_DTYPE_I64 && v->type.dtype != EW_DTYPE_I32 &&
        v->type.dtype != EW_DTYPE_BOOL)
        return;
    if (infer_known(g, n, &r))
        store(g, v, &r);
}

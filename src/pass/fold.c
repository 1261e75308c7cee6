/* pass/fold.c - nodes whose result is known now become constants.
 *
 * Two ways: contents that inference followed (shape arithmetic), and running the general kernel on
 * constants. Weights are never copied: results over 1 MiB stay computed, but for integers, and
 * quantised ones are never unfolded. */
#include <string.h>

#include "kernels/general.h"
#include "pass/match.h"
#include "pass/pass.h"

#define MAX_BYTES       ((size_t)64 << 20)
#define MAX_FLOAT_BYTES ((size_t)1 << 20)

static bool has_output_use(const struct ew_node *n)
{
    for (int i = 0; i < n->n_out; i++)
        if (n->out[i] && n->out[i]->is_output)
            return true;
    return false;
}

/* Contents followed by inference, all of them numbers. */
static ew_status fold_known(struct ew_graph *g, struct ew_node *n, bool *done, ew_error *err)
{
    struct ew_value *v = n->out[0], *c;
    size_t bytes;
    char *data;

    *done = false;
    if (!v->known || !ew_type_bytes(&v->type, &bytes))
        return EW_STATUS_OK;
    for (size_t i = 0; i < v->n_known; i++)
        if (v->known[i] <= EW_DIM_FIRST_SYMBOL + 1) /* a symbol, or a number that was clamped */
            return EW_STATUS_OK;
    data = ew_arena_alloc(&g->arena, bytes ? bytes : 1);
    if (!data)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "node '%s'", n->name);
    for (size_t i = 0; i < v->n_known; i++)
        ew_elem_set_i64(data, v->type.dtype, i, v->known[i]);
    c = ew_graph_add_const(g, n->name, &v->type, data, false);
    if (!c)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "node '%s'", n->name);
    ew_rewrite_replace(g, n, c);
    *done = true;
    return EW_STATUS_OK;
}

static bool is_worth_it(const struct ew_node *n)
{
    size_t bytes, total = 0;

    if (!n->n_in || !ew_general_find(n->op))
        return false;
    if (n->op == EW_OP_DEQUANTIZE_LINEAR && n->in[0]->type.n_dims > 1)
        return false;
    for (int i = 0; i < n->n_in; i++)
        if (n->in[i] && (!n->in[i]->is_const || n->in[i]->con.n_parts))
            return false;
    for (int i = 0; i < n->n_out; i++) {
        if (!n->out[i])
            continue;
        if (!ew_type_bytes(&n->out[i]->type, &bytes) || bytes > MAX_BYTES ||
            (ew_dtype_is_float(n->out[i]->type.dtype) && bytes > MAX_FLOAT_BYTES))
            return false;
        total += bytes;
    }
    return total <= MAX_BYTES;
}

struct evaluation {
    struct ew_view in[16], out[EW_MAX_OUTPUTS];
    const struct ew_view *in_ptr[16];
    struct ew_view *out_ptr[EW_MAX_OUTPUTS];
    const struct ew_type *in_types[16], *out_types[EW_MAX_OUTPUTS];
};

/* Memory of the results is the graph's; false: out of memory. */
static bool prepare(struct ew_graph *g, const struct ew_node *n, struct evaluation *e)
{
    size_t bytes;

    memset(e, 0, sizeof(*e));
    for (int i = 0; i < n->n_in; i++) {
        if (!n->in[i])
            continue;
        memcpy(&e->in[i].data, &n->in[i]->con.data, sizeof(void *)); /* read only, see in_ptr */
        e->in[i].type = n->in[i]->type;
        e->in_ptr[i] = &e->in[i];
        e->in_types[i] = &e->in[i].type;
    }
    for (int i = 0; i < n->n_out; i++) {
        if (!n->out[i])
            continue;
        e->out[i].type = n->out[i]->type;
        if (!ew_type_bytes(&e->out[i].type, &bytes))
            return false;
        e->out[i].data = ew_arena_alloc(&g->arena, bytes ? bytes : 1);
        if (!e->out[i].data)
            return false;
        e->out_ptr[i] = &e->out[i];
        e->out_types[i] = &e->out[i].type;
    }
    return true;
}

/* Results of the node as constants. A kernel that refuses leaves the node as it is. */
static ew_status fold_run(struct ew_graph *g, struct ew_node *n, bool *done, ew_error *err)
{
    struct evaluation e;
    struct ew_value *c[EW_MAX_OUTPUTS] = { NULL };
    size_t scratch_bytes;
    void *scratch;
    ew_error why = { EW_STATUS_OK, "" };
    ew_status st;

    *done = false;
    if (n->n_in > 16)
        return EW_STATUS_OK;
    if (!prepare(g, n, &e))
        return ew_fail(err, EW_STATUS_NO_MEMORY, "node '%s'", n->name);
    scratch_bytes =
        ew_general_scratch_bytes(n->op, &n->attrs, n->n_in, e.in_types, n->n_out, e.out_types);
    if (scratch_bytes > MAX_BYTES)
        return EW_STATUS_OK;
    scratch = ew_mem_alloc_aligned(EW_MEM_GRAPH, scratch_bytes ? scratch_bytes : 64, 64);
    if (!scratch)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "node '%s'", n->name);
    st = ew_general_find(n->op)(&(struct ew_general_args){ .op = n->op,
                                                           .attrs = &n->attrs,
                                                           .n_in = n->n_in,
                                                           .in = e.in_ptr,
                                                           .n_out = n->n_out,
                                                           .out = e.out_ptr,
                                                           .scratch = scratch,
                                                           .err = &why });
    ew_mem_free_aligned(scratch);
    if (st)
        return EW_STATUS_OK;
    for (int i = 0; i < n->n_out; i++) {
        if (!n->out[i])
            continue;
        c[i] = ew_graph_add_const(g, n->out[i]->name, &n->out[i]->type, e.out[i].data, false);
        if (!c[i])
            return ew_fail(err, EW_STATUS_NO_MEMORY, "node '%s'", n->name);
    }
    for (int i = 1; i < n->n_out; i++)
        if (n->out[i])
            ew_graph_replace_uses(g, n->out[i], c[i]);
    ew_rewrite_replace(g, n, c[0]);
    *done = true;
    return EW_STATUS_OK;
}

/* A shape that is computed only to be written down again: numbers stay, a dim that the input has at
 * the same place becomes 0 (copy), one other may be -1. */
static ew_status freeze_reshape(struct ew_graph *g, struct ew_node *n, bool *done, ew_error *err)
{
    const struct ew_type *x = &n->in[0]->type, *y = &n->out[0]->type;
    int64_t shape[EW_MAX_DIMS];
    struct ew_value *c;
    int n_free = 0;

    *done = false;
    if (n->op != EW_OP_RESHAPE || n->in[1]->is_const || !y->n_dims)
        return EW_STATUS_OK;
    for (int i = 0; i < y->n_dims; i++) {
        if (y->dim[i] == 0)
            return EW_STATUS_OK;
        shape[i] = y->dim[i];
        if (y->dim[i] > 0)
            continue;
        shape[i] = i < x->n_dims && x->dim[i] == y->dim[i] ? 0 : -1;
        n_free += shape[i] == -1;
    }
    if (n_free > 1)
        return EW_STATUS_OK;
    c = ew_graph_const_i64(g, n->name, shape, (size_t)y->n_dims);
    if (!c)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "node '%s'", n->name);
    n->attrs.reshape.allowzero = 0;
    ew_node_set_input(n, 1, c);
    *done = true;
    return EW_STATUS_OK;
}

ew_status ew_pass_fold(struct ew_graph *g, size_t *n_changes, ew_error *err)
{
    for (struct ew_node *n = g->head, *next; n; n = next) {
        bool done = false;
        next = n->next;
        if (n->out[0])
            EW_TRY(freeze_reshape(g, n, &done, err));
        if (done)
            ++*n_changes;
        done = false;
        if (has_output_use(n) || !n->out[0])
            continue;
        if (n->n_out == 1)
            EW_TRY(fold_known(g, n, &done, err));
        if (!done && is_worth_it(n))
            EW_TRY(fold_run(g, n, &done, err));
        *n_changes += done;
    }
    return EW_STATUS_OK;
}

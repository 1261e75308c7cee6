/* graph/graph_infer.c - types of nodes from types of their inputs, over the whole graph or one
 * node.
 *
 * Rules are the op table's (op/infer*.c); contents of shape arithmetic are graph/known.c's. */
#include <string.h>

#include "graph/ir.h"

static void describe_input(const struct ew_value *v, struct ew_infer_in *in)
{
    memset(in, 0, sizeof(*in));
    if (!v)
        return;
    in->type = &v->type;
    if (v->is_const && !v->con.n_parts)
        in->data = v->con.data;
    if (v->known) {
        in->dims = v->known;
        in->n_dims = v->n_known;
    }
}

ew_status ew_node_infer_types(struct ew_graph *g, const struct ew_node *n, struct ew_type *out,
                              ew_error *err)
{
    struct ew_infer f = { .syms = g->syms,
                          .op = n->op,
                          .attrs = &n->attrs,
                          .n_in = n->n_in,
                          .n_out = n->n_out,
                          .err = err };
    struct ew_infer_in few[16];
    struct ew_infer_in *in = few;
    ew_status st;

    if (n->n_in > (int)(sizeof(few) / sizeof(few[0])))
        in = ew_mem_calloc(EW_MEM_GRAPH, (size_t)n->n_in, sizeof(*in));
    if (!in)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "node '%s'", n->name);
    for (int i = 0; i < n->n_in; i++)
        describe_input(n->in[i], &in[i]);
    f.in = in;
    st = ew_op_infer(&f);
    if (in != few)
        ew_mem_free(in);
    if (st) {
        ew_error_within(err, "node '%s' (%s)", n->name, ew_op_get(n->op)->name);
        return st;
    }
    memcpy(out, f.out, (size_t)n->n_out * sizeof(*out));
    return EW_STATUS_OK;
}

ew_status ew_graph_infer(struct ew_graph *g, ew_error *err)
{
    struct ew_type types[EW_MAX_OUTPUTS];

    for (uint32_t i = 0; i < g->n_values; i++) {
        g->values[i]->known = NULL;
        g->values[i]->n_known = 0;
    }
    for (struct ew_node *n = g->head; n; n = n->next) {
        EW_TRY(ew_node_infer_types(g, n, types, err));
        for (int i = 0; i < n->n_out; i++)
            if (n->out[i])
                n->out[i]->type = types[i];
        ew_node_infer_known(g, n);
    }
    return EW_STATUS_OK;
}

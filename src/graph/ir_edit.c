/* graph/ir_edit.c - nodes and edges: adding with inference, rewiring, removing.
 *
 * Use counts and producers are kept here and nowhere else. */
#include <string.h>

#include "base/size.h"
#include "graph/ir.h"

#define MAX_INPUTS 4096

static void unlink_node(struct ew_graph *g, struct ew_node *n)
{
    if (n->prev)
        n->prev->next = n->next;
    else
        g->head = n->next;
    if (n->next)
        n->next->prev = n->prev;
    else
        g->tail = n->prev;
    n->prev = NULL;
    n->next = NULL;
}

static void link_before(struct ew_graph *g, struct ew_node *at, struct ew_node *n)
{
    n->next = at;
    n->prev = at ? at->prev : g->tail;
    if (n->prev)
        n->prev->next = n;
    else
        g->head = n;
    if (at)
        at->prev = n;
    else
        g->tail = n;
}

static bool has_edges_room(struct ew_graph *g, struct ew_node *n, int n_in, int n_out)
{
    n->in = ew_arena_new(&g->arena, struct ew_value *, (size_t)n_in + 1);
    n->out = ew_arena_new(&g->arena, struct ew_value *, (size_t)n_out + 1);
    n->n_in = n_in;
    n->n_out = n_out;
    return n->in && n->out;
}

/* A node object with its inputs, not linked, uses not counted. NULL: out of memory. */
static struct ew_node *make_node(struct ew_graph *g, ew_op op, const char *name,
                                 const union ew_attrs *attrs, struct ew_value *const *in, int n_in,
                                 int n_out)
{
    struct ew_node *n = ew_arena_new(&g->arena, struct ew_node, 1);

    if (!n || !has_edges_room(g, n, n_in, n_out))
        return NULL;
    n->op = op;
    n->name = ew_arena_strdup(&g->arena, name && *name ? name : ew_op_get(op)->name);
    if (!n->name)
        return NULL;
    if (attrs)
        n->attrs = *attrs;
    else
        ew_op_attrs_init(op, &n->attrs);
    if (n_in)
        memcpy(n->in, in, (size_t)n_in * sizeof(struct ew_value *));
    return n;
}

ew_status ew_graph_insert_node(struct ew_graph *g, struct ew_node *at, ew_op op, const char *name,
                               const union ew_attrs *attrs, struct ew_value *const *in, int n_in,
                               int n_out, struct ew_node **out_node, ew_error *err)
{
    const struct ew_op_info *info = ew_op_get(op);
    struct ew_type types[EW_MAX_OUTPUTS];
    struct ew_node *n;

    if (out_node)
        *out_node = NULL;
    if (!info)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "node '%s': op number %d is not in the table",
                       name ? name : "", (int)op);
    if (n_in < 0 || n_in > MAX_INPUTS || n_out < 1 || n_out > EW_MAX_OUTPUTS)
        return ew_fail(err, EW_STATUS_LIMIT,
                       "node '%s' (%s): %d inputs and %d outputs, at most %d and %d are possible",
                       name ? name : "", info->name, n_in, n_out, MAX_INPUTS, EW_MAX_OUTPUTS);
    n = make_node(g, op, name, attrs, in, n_in, n_out);
    if (!n)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "node '%s'", name ? name : "");
    EW_TRY(ew_node_infer_types(g, n, types, err));
    for (int i = 0; i < n_out; i++) {
        n->out[i] = ew_graph_add_value(g, n->name, &types[i]);
        if (!n->out[i])
            return ew_fail(err, EW_STATUS_NO_MEMORY, "node '%s'", n->name);
    }
    for (int i = 0; i < n_out; i++) {
        n->out[i]->producer = n;
        n->out[i]->out_idx = i;
    }
    for (int i = 0; i < n_in; i++)
        if (n->in[i])
            n->in[i]->n_uses++;
    n->id = g->n_nodes++;
    link_before(g, at, n);
    ew_node_infer_known(g, n);
    if (out_node)
        *out_node = n;
    return EW_STATUS_OK;
}

ew_status ew_graph_add_node(struct ew_graph *g, ew_op op, const char *name,
                            const union ew_attrs *attrs, struct ew_value *const *in, int n_in,
                            int n_out, struct ew_node **out_node, ew_error *err)
{
    return ew_graph_insert_node(g, NULL, op, name, attrs, in, n_in, n_out, out_node, err);
}

bool ew_graph_can_replace(const struct ew_value *from, const struct ew_value *to)
{
    return !from->is_output || !(to->is_output || to->is_input || to->is_const);
}

/* `to` becomes the graph output that `from` was, under its name. */
static void move_output(struct ew_graph *g, struct ew_value *from, struct ew_value *to)
{
    const char *name = from->name;

    /* Both keys are in the map already: replacing their values needs no memory. */
    (void)ew_map_put(&g->values_by_name, name, strlen(name), to->id);
    (void)ew_map_put(&g->values_by_name, to->name, strlen(to->name), from->id);
    from->name = to->name;
    to->name = name;
    for (size_t i = 0; i < g->n_outputs; i++)
        if (g->outputs[i] == from)
            g->outputs[i] = to;
    from->is_output = false;
    to->is_output = true;
    to->alias_of = from->alias_of;
    from->alias_of = NULL;
    from->n_uses--;
    to->n_uses++;
}

void ew_graph_replace_uses(struct ew_graph *g, struct ew_value *from, struct ew_value *to)
{
    uint32_t left = from->n_uses - (from->is_output ? 1 : 0);

    if (from == to)
        return;
    for (struct ew_node *n = from->producer ? from->producer->next : g->head; n && left;
         n = n->next) {
        for (int i = 0; i < n->n_in; i++) {
            if (n->in[i] != from)
                continue;
            ew_node_set_input(n, i, to);
            left--;
        }
    }
    if (from->is_output && ew_graph_can_replace(from, to))
        move_output(g, from, to);
}

void ew_node_set_input(struct ew_node *n, int i, struct ew_value *v)
{
    if (n->in[i])
        n->in[i]->n_uses--;
    n->in[i] = v;
    if (v)
        v->n_uses++;
}

bool ew_node_grow_inputs(struct ew_graph *g, struct ew_node *n, int n_in)
{
    struct ew_value **in;

    if (n_in <= n->n_in)
        return true;
    in = ew_arena_new(&g->arena, struct ew_value *, (size_t)n_in);
    if (!in)
        return false;
    if (n->n_in)
        memcpy(in, n->in, (size_t)n->n_in * sizeof(struct ew_value *));
    n->in = in;
    n->n_in = n_in;
    return true;
}

void ew_graph_remove_node(struct ew_graph *g, struct ew_node *n)
{
    for (int i = 0; i < n->n_in; i++)
        ew_node_set_input(n, i, NULL);
    for (int i = 0; i < n->n_out; i++)
        if (n->out[i])
            n->out[i]->producer = NULL;
    unlink_node(g, n);
}

static bool is_used(const struct ew_node *n)
{
    for (int i = 0; i < n->n_out; i++)
        if (n->out[i] && n->out[i]->n_uses)
            return true;
    return false;
}

size_t ew_graph_sweep(struct ew_graph *g)
{
    size_t n_dropped = 0;

    for (struct ew_node *n = g->tail, *prev; n;
         n = prev) { /* users come after: one pass is enough */
        prev = n->prev;
        if (is_used(n))
            continue;
        ew_graph_remove_node(g, n);
        n_dropped++;
    }
    return n_dropped;
}

struct ew_node *ew_value_single_use(const struct ew_graph *g, const struct ew_value *v)
{
    if (v->is_output || v->n_uses != 1)
        return NULL;
    for (struct ew_node *n = v->producer ? v->producer->next : g->head; n; n = n->next)
        for (int i = 0; i < n->n_in; i++)
            if (n->in[i] == v)
                return n;
    return NULL;
}

/* graph/verify.c - structure of a graph: what every pass and importer must leave true.
 *
 * Messages name the node or value and both values. Types are re-inferred by graph_infer.c, not
 * here. */
#include <string.h>

#include "base/size.h"
#include "graph/ir.h"

struct verify {
    const struct ew_graph *g;
    uint32_t *uses;   /* by value id */
    uint8_t *defined; /* by value id: inputs, constants, outputs of nodes passed */
    ew_error *err;
};

static ew_status bad_type(struct verify *v, const struct ew_value *val)
{
    const struct ew_type *t = &val->type;

    if (t->dtype <= EW_DTYPE_NONE || t->dtype >= EW_DTYPE_COUNT)
        return ew_fail(v->err, EW_STATUS_MALFORMED, "value '%s': dtype is number %d", val->name,
                       (int)t->dtype);
    if (t->n_dims < 0 || t->n_dims > EW_MAX_DIMS)
        return ew_fail(v->err, EW_STATUS_MALFORMED, "value '%s': rank is %d, at most %d", val->name,
                       t->n_dims, EW_MAX_DIMS);
    for (int i = 0; i < t->n_dims; i++)
        if (t->dim[i] < 0 && !ew_dim_is_symbol(t->dim[i]))
            return ew_fail(v->err, EW_STATUS_MALFORMED, "value '%s': dim %d is %lld", val->name, i,
                           (long long)t->dim[i]);
    return EW_STATUS_OK;
}

static ew_status check_quant_part(struct verify *v, const struct ew_value *val, size_t i)
{
    const struct ew_weight_part *p = &val->con.parts[i];
    const struct ew_quant_source *q = p->quant, *first = val->con.parts[0].quant;
    const int64_t k = val->type.dim[val->type.n_dims - 1];

    if (val->type.dtype != EW_DTYPE_F32 || !first || !ew_quant_format_ok(&q->format) ||
        !ew_quant_format_equal(&q->format, &first->format))
        return ew_fail(v->err, EW_STATUS_MISMATCH,
                       "constant '%s': quantised part %zu is not like the parts before it",
                       val->name, i);
    if ((int64_t)q->k != k || p->quant_row > q->n || p->n_rows > q->n - p->quant_row)
        return ew_fail(v->err, EW_STATUS_MISMATCH,
                       "constant '%s': part %zu takes rows %zu to %zu of [%zu,%zu]", val->name, i,
                       p->quant_row, p->quant_row + p->n_rows, q->n, q->k);
    return EW_STATUS_OK;
}

static ew_status check_parts(struct verify *v, const struct ew_value *val)
{
    const struct ew_type *t = &val->type;
    size_t rows = 1, have = 0;

    if (t->n_dims < 2)
        return ew_fail(v->err, EW_STATUS_MALFORMED,
                       "constant '%s': has %zu parts and rank %d, parts need rank 2 or more",
                       val->name, val->con.n_parts, t->n_dims);
    if (ew_dtype_bits(t->dtype) < 8)
        return ew_fail(v->err, EW_STATUS_MALFORMED, "constant '%s': has parts of dtype %s",
                       val->name, ew_dtype_text(t->dtype));
    for (int i = 0; i + 1 < t->n_dims; i++)
        if (!ew_size_mul(rows, (size_t)t->dim[i], &rows))
            return ew_fail(v->err, EW_STATUS_LIMIT, "constant '%s': rows overflow", val->name);
    for (size_t i = 0; i < val->con.n_parts; i++) {
        const struct ew_weight_part *p = &val->con.parts[i];

        if (!p->data == !p->quant || !ew_size_add(have, p->n_rows, &have))
            return ew_fail(v->err, EW_STATUS_MALFORMED, "constant '%s': part %zu has no data",
                           val->name, i);
        if (p->quant)
            EW_TRY(check_quant_part(v, val, i));
    }
    if (have != rows)
        return ew_fail(v->err, EW_STATUS_MISMATCH,
                       "constant '%s': parts have %zu rows, type has %zu", val->name, have, rows);
    return EW_STATUS_OK;
}

static ew_status check_const(struct verify *v, const struct ew_value *val)
{
    size_t bytes;

    if (val->producer || val->is_input)
        return ew_fail(v->err, EW_STATUS_MALFORMED, "constant '%s' is also %s", val->name,
                       val->is_input ? "an input" : "made by a node");
    if (!ew_type_bytes(&val->type, &bytes))
        return ew_fail(v->err, EW_STATUS_MALFORMED, "constant '%s': its type has no fixed size",
                       val->name);
    if (val->con.n_parts)
        return check_parts(v, val);
    if (bytes && !val->con.data)
        return ew_fail(v->err, EW_STATUS_MALFORMED, "constant '%s': %zu bytes are missing",
                       val->name, bytes);
    return EW_STATUS_OK;
}

static ew_status check_values(struct verify *v)
{
    const struct ew_graph *g = v->g;

    for (uint32_t i = 0; i < g->n_values; i++) {
        const struct ew_value *val = g->values[i];
        if (val->id != i)
            return ew_fail(v->err, EW_STATUS_MALFORMED, "value '%s': id is %u at place %u",
                           val->name, val->id, i);
        if (!ew_value_is_live(val)) {
            if (val->n_uses)
                return ew_fail(v->err, EW_STATUS_MALFORMED,
                               "value '%s' has %u uses and nothing makes it", val->name,
                               val->n_uses);
            continue;
        }
        if (ew_graph_find(g, val->name) != val)
            return ew_fail(v->err, EW_STATUS_MALFORMED, "name '%s' finds another value", val->name);
        EW_TRY(bad_type(v, val));
        if (val->is_const)
            EW_TRY(check_const(v, val));
        v->defined[i] = val->is_const || val->is_input;
    }
    return EW_STATUS_OK;
}

static ew_status check_node_inputs(struct verify *v, const struct ew_node *n)
{
    const char *op = ew_op_get(n->op)->name;

    for (int i = 0; i < n->n_in; i++) {
        const struct ew_value *in = n->in[i];
        if (!in)
            continue;
        if (in->id >= v->g->n_values || v->g->values[in->id] != in)
            return ew_fail(v->err, EW_STATUS_MALFORMED,
                           "node '%s' (%s): input %d is not of this graph", n->name, op, i);
        if (!v->defined[in->id])
            return ew_fail(v->err, EW_STATUS_MALFORMED,
                           "node '%s' (%s): input %d '%s' is not made before it", n->name, op, i,
                           in->name);
        v->uses[in->id]++;
    }
    if (n->op == EW_OP_LINEAR && !n->in[1]->is_const)
        return ew_fail(v->err, EW_STATUS_UNSUPPORTED,
                       "node '%s' (%s): weight '%s' is not a constant", n->name, op,
                       n->in[1]->name);
    return EW_STATUS_OK;
}

static ew_status check_node_outputs(struct verify *v, const struct ew_node *n)
{
    const char *op = ew_op_get(n->op)->name;

    for (int i = 0; i < n->n_out; i++) {
        const struct ew_value *out = n->out[i];
        if (!out)
            continue;
        if (out->producer != n || out->out_idx != i)
            return ew_fail(v->err, EW_STATUS_MALFORMED,
                           "node '%s' (%s): output %d '%s' says it is output %d of '%s'", n->name,
                           op, i, out->name, out->out_idx,
                           out->producer ? out->producer->name : "nothing");
        if (out->is_const || out->is_input)
            return ew_fail(v->err, EW_STATUS_MALFORMED, "node '%s' (%s): output %d '%s' is also %s",
                           n->name, op, i, out->name, out->is_const ? "a constant" : "an input");
        v->defined[out->id] = 1;
    }
    return EW_STATUS_OK;
}

static ew_status check_nodes(struct verify *v)
{
    const struct ew_node *prev = NULL;

    for (const struct ew_node *n = v->g->head; n; prev = n, n = n->next) {
        const struct ew_op_info *info = ew_op_get(n->op);
        if (!info)
            return ew_fail(v->err, EW_STATUS_MALFORMED, "node '%s': op number %d", n->name,
                           (int)n->op);
        if (n->prev != prev)
            return ew_fail(v->err, EW_STATUS_MALFORMED, "node '%s' (%s): list of nodes is broken",
                           n->name, info->name);
        if (n->n_in < info->min_in || (info->max_in != EW_VARIADIC && n->n_in > info->max_in))
            return ew_fail(v->err, EW_STATUS_MALFORMED,
                           "node '%s' (%s): has %d inputs, takes %d to %d", n->name, info->name,
                           n->n_in, info->min_in, info->max_in);
        if (n->n_out < info->min_out || n->n_out > info->max_out)
            return ew_fail(v->err, EW_STATUS_MALFORMED,
                           "node '%s' (%s): has %d outputs, gives %d to %d", n->name, info->name,
                           n->n_out, info->min_out, info->max_out);
        EW_TRY(check_node_inputs(v, n));
        EW_TRY(check_node_outputs(v, n));
    }
    if (v->g->tail != prev)
        return ew_fail(v->err, EW_STATUS_MALFORMED, "graph '%s': list of nodes is broken",
                       v->g->name);
    return EW_STATUS_OK;
}

static ew_status check_alias(struct verify *v, const struct ew_value *out)
{
    const struct ew_value *in = out->alias_of;

    if (!in->is_input)
        return ew_fail(v->err, EW_STATUS_MALFORMED, "output '%s' aliases '%s', not an input",
                       out->name, in->name);
    if (!ew_type_equal(&out->type, &in->type)) {
        char a[128], b[128];
        ew_type_text(&out->type, a, sizeof(a));
        ew_type_text(&in->type, b, sizeof(b));
        return ew_fail(v->err, EW_STATUS_MISMATCH, "output '%s' is %s, aliases '%s' which is %s",
                       out->name, a, in->name, b);
    }
    return EW_STATUS_OK;
}

static ew_status check_boundary(struct verify *v)
{
    const struct ew_graph *g = v->g;

    for (size_t i = 0; i < g->n_inputs; i++)
        if (!g->inputs[i]->is_input)
            return ew_fail(v->err, EW_STATUS_MALFORMED, "input '%s' is not marked as one",
                           g->inputs[i]->name);
    for (size_t i = 0; i < g->n_outputs; i++) {
        const struct ew_value *out = g->outputs[i];
        if (!out->is_output || !v->defined[out->id])
            return ew_fail(v->err, EW_STATUS_MALFORMED, "output '%s' is not made by any node",
                           out->name);
        v->uses[out->id]++;
        if (out->alias_of)
            EW_TRY(check_alias(v, out));
    }
    if (g->embedding && (!g->embedding->is_const || g->embedding->type.n_dims != 2))
        return ew_fail(v->err, EW_STATUS_MALFORMED, "embedding '%s': must be a constant of rank 2",
                       g->embedding->name);
    return EW_STATUS_OK;
}

static ew_status check_uses(struct verify *v)
{
    for (uint32_t i = 0; i < v->g->n_values; i++)
        if (v->uses[i] != v->g->values[i]->n_uses)
            return ew_fail(v->err, EW_STATUS_MALFORMED, "value '%s': has %u uses, says %u",
                           v->g->values[i]->name, v->uses[i], v->g->values[i]->n_uses);
    return EW_STATUS_OK;
}

ew_status ew_graph_verify(const struct ew_graph *g, ew_error *err)
{
    struct verify v = { .g = g, .err = err };
    ew_status st = EW_STATUS_OK;

    v.uses = ew_mem_calloc(EW_MEM_GRAPH, g->n_values, sizeof(*v.uses));
    v.defined = ew_mem_calloc(EW_MEM_GRAPH, g->n_values, sizeof(*v.defined));
    if (!v.uses || !v.defined)
        st = ew_fail(err, EW_STATUS_NO_MEMORY, "verifying graph '%s'", g->name);
    if (!st)
        st = check_values(&v);
    if (!st)
        st = check_nodes(&v);
    if (!st)
        st = check_boundary(&v);
    if (!st)
        st = check_uses(&v);
    ew_mem_free(v.uses);
    ew_mem_free(v.defined);
    return st;
}

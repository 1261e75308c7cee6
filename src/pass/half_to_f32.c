/* pass/half_to_f32.c - a language model on a CPU computes in f32: its f16 and bf16 activations
 * become f32.
 *
 * Inputs, Casts and fills to half types turn f32; weights of Linear and Moe stay as they are; other
 * half constants become f32, big ones by a Cast at their use. Casts that this makes idle are left
 * to simplify. */
#include "pass/match.h"
#include "pass/pass.h"

#define MAX_COPY_ELEMENTS ((size_t)1 << 20)

static bool is_half(ew_dtype d)
{
    return d == EW_DTYPE_F16 || d == EW_DTYPE_BF16;
}

static bool is_weight(const struct ew_node *n, int i)
{
    return (n->op == EW_OP_LINEAR && i == 1) || (n->op == EW_OP_MOE && i >= 2);
}

static struct ew_value *as_f32(struct ew_graph *g, const struct ew_value *v)
{
    struct ew_type t = v->type;
    size_t n;
    float *data;

    if (!ew_type_count(&t, &n))
        return NULL;
    data = ew_arena_new(&g->arena, float, n ? n : 1);
    if (!data)
        return NULL;
    ew_convert_floats(data, EW_DTYPE_F32, v->con.data, t.dtype, n);
    t.dtype = EW_DTYPE_F32;
    return ew_graph_add_const(g, v->name, &t, data, false);
}

static ew_status widen_const(struct ew_graph *g, struct ew_node *n, int i, ew_error *err)
{
    struct ew_value *v = n->in[i], *wide;
    union ew_attrs to;
    struct ew_node *cast;
    size_t count;

    if (ew_type_count(&v->type, &count) && count <= MAX_COPY_ELEMENTS && !v->con.n_parts) {
        wide = as_f32(g, v);
        if (!wide)
            return ew_fail(err, EW_STATUS_NO_MEMORY, "constant '%s' as f32", v->name);
        ew_graph_replace_uses(g, v,
                              wide); /* of weights too: there are none so small that it matters */
        return EW_STATUS_OK;
    }
    ew_op_attrs_init(EW_OP_CAST, &to);
    to.cast.to = EW_DTYPE_F32;
    EW_TRY(ew_graph_insert_node(g, n, EW_OP_CAST, v->name, &to, &v, 1, 1, &cast, err));
    ew_node_set_input(n, i, cast->out[0]);
    return EW_STATUS_OK;
}

/* Attributes that name the dtype of what a node gives. */
static void widen_attrs(struct ew_node *n)
{
    int32_t *dtype = NULL;

    if (n->op == EW_OP_CAST)
        dtype = &n->attrs.cast.to;
    else if (n->op == EW_OP_CONSTANT_OF_SHAPE)
        dtype = &n->attrs.fill.dtype;
    else if (n->op == EW_OP_EYE_LIKE)
        dtype = &n->attrs.eye.dtype;
    else if (n->op == EW_OP_DEQUANTIZE_LINEAR)
        dtype = &n->attrs.quant.output_dtype;
    if (dtype && is_half((ew_dtype)*dtype))
        *dtype = EW_DTYPE_F32;
}

static bool has_half(const struct ew_graph *g)
{
    for (const struct ew_node *n = g->head; n; n = n->next) {
        for (int i = 0; i < n->n_in; i++)
            if (n->in[i] && is_half(n->in[i]->type.dtype) &&
                !(is_weight(n, i) && n->in[i]->is_const) &&
                !(n->op == EW_OP_CAST && n->in[i]->is_const) &&
                !(n->op == EW_OP_KV_ATTENTION && i == 3))
                return true;
        for (int i = 0; i < n->n_out; i++)
            if (n->out[i] && is_half(n->out[i]->type.dtype) &&
                !(n->op == EW_OP_KV_ATTENTION && i == 1))
                return true;
    }
    return false;
}

ew_status ew_pass_half_to_f32(struct ew_graph *g, size_t *n_changes, ew_error *err)
{
    if (!g->llm_config || !has_half(g))
        return EW_STATUS_OK;
    for (size_t i = 0; i < g->n_inputs; i++)
        if (is_half(g->inputs[i]->type.dtype) && !ew_pass_is_cache(g->inputs[i]))
            g->inputs[i]->type.dtype = EW_DTYPE_F32;
    for (struct ew_node *n = g->head; n; n = n->next) {
        widen_attrs(n);
        for (int i = 0; i < n->n_in; i++) {
            struct ew_value *v = n->in[i];
            if (!v || !v->is_const || !is_half(v->type.dtype) || is_weight(n, i) ||
                n->op == EW_OP_CAST)
                continue;
            EW_TRY(widen_const(g, n, i, err));
            ++*n_changes;
        }
    }
    ++*n_changes;
    return ew_graph_infer(g, err);
}

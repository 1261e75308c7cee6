/* pass/fuse_qkv.c - the projections of q, k and v become one Linear that feeds KvAttention packed.
 *
 * Also q, k and v that were cut from one value by Split or Slice: the cut goes away. */
#include "pass/match.h"
#include "pass/pass.h"

/* x W^T + b and nothing more. */
static struct ew_node *plain_linear(const struct ew_value *v)
{
    struct ew_node *n = ew_match_inner(v, EW_OP_LINEAR);
    const struct ew_attr_linear *a = n ? &n->attrs.linear : NULL;

    if (!n || a->act != EW_ACT_NONE || a->glu || a->scale != 1.0f || a->softcap != 0.0f ||
        (n->n_in > 3 && n->in[3]))
        return NULL;
    return n->n_in < 3 || !n->in[2] || (n->in[2]->is_const && !n->in[2]->con.n_parts) ? n : NULL;
}

static ew_status join_linears(struct ew_graph *g, struct ew_node *at, struct ew_node *const *part,
                              struct ew_value **out, ew_error *err)
{
    struct ew_weight_list rows = { NULL, 0 };
    struct ew_type t = part[0]->in[1]->type;
    struct ew_value *in[3] = { part[0]->in[0], NULL, NULL };
    struct ew_node *joined;

    t.dim[0] = 0;
    for (int i = 0; i < 3; i++) {
        t.dim[0] += part[i]->in[1]->type.dim[0];
        if (!ew_rewrite_rows(g, part[i]->in[1], &rows))
            return ew_fail(err, EW_STATUS_NO_MEMORY, "weight of node '%s'", part[i]->name);
    }
    in[1] = ew_graph_add_const_parts(g, part[0]->in[1]->name, &t, rows.parts, rows.n);
    if (!in[1])
        return ew_fail(err, EW_STATUS_NO_MEMORY, "weight of node '%s'", part[0]->name);
    EW_TRY(ew_rewrite_biases(g, part, 3, &in[2], err));
    EW_TRY(ew_graph_insert_node(g, at, EW_OP_LINEAR, part[0]->name, &part[0]->attrs, in,
                                in[2] ? 3 : 2, 1, &joined, err));
    *out = joined->out[0];
    return EW_STATUS_OK;
}

/* The value that q, k and v are pieces of, in this order and whole. */
static struct ew_value *match_pieces(const struct ew_node *n)
{
    const struct ew_attr_kv_attention *a = &n->attrs.kv_attention;
    const int64_t nq = a->num_q_heads * a->head_size, nkv = a->num_kv_heads * a->head_size;
    const int64_t edge[4] = { 0, nq, nq + nkv, nq + 2 * nkv };
    struct ew_value *source = NULL;

    for (int i = 0; i < 3; i++) {
        struct ew_value *s;
        int64_t from, to;
        if (!ew_match_piece_last(n->in[i], &s, &from, &to) || (source && s != source) ||
            from != edge[i] || to != edge[i + 1])
            return NULL;
        source = s;
    }
    return source->type.n_dims == 3 && source->type.dim[2] == edge[3] ? source : NULL;
}

static ew_status fuse(struct ew_graph *g, struct ew_node *n, size_t *n_changes, ew_error *err)
{
    struct ew_node *part[3];
    struct ew_value *packed;
    struct ew_type types[EW_MAX_OUTPUTS];

    if (n->attrs.kv_attention.packed_qkv)
        return EW_STATUS_OK;
    packed = match_pieces(n);
    if (!packed) {
        for (int i = 0; i < 3; i++) {
            part[i] = plain_linear(n->in[i]);
            if (!part[i] || !ew_match_joinable(part[i], part[0]))
                return EW_STATUS_OK;
        }
        EW_TRY(join_linears(g, n, part, &packed, err));
    }
    n->attrs.kv_attention.packed_qkv = 1;
    ew_node_set_input(n, 0, packed);
    ew_node_set_input(n, 1, NULL);
    ew_node_set_input(n, 2, NULL);
    ++*n_changes;
    return ew_node_infer_types(g, n, types, err);
}

ew_status ew_pass_fuse_qkv(struct ew_graph *g, size_t *n_changes, ew_error *err)
{
    for (struct ew_node *n = g->head; n; n = n->next)
        if (n->op == EW_OP_KV_ATTENTION)
            EW_TRY(fuse(g, n, n_changes, err));
    return EW_STATUS_OK;
}

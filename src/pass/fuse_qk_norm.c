/* pass/fuse_qk_norm.c - RMS norms of q and k in front of KvAttention become its attributes.
 *
 * Per head: Reshape [.., heads, D], norm over D, Reshape back. Over the full width: norm, directly.
 * A Concat that packed q, k and v is taken apart first: the attention reads three places as well as
 * one. */
#include "pass/match.h"
#include "pass/pass.h"

struct norm {
    struct ew_value *x, *w;
    float eps;
    int kind; /* enum ew_qk_norm */
};

static bool is_reshape(const struct ew_node *n)
{
    return n && (n->op == EW_OP_RESHAPE || n->op == EW_OP_SQUEEZE || n->op == EW_OP_UNSQUEEZE ||
                 n->op == EW_OP_FLATTEN);
}

static bool match_norm(const struct ew_value *v, int64_t head_size, struct norm *out)
{
    const struct ew_node *norm = ew_match_inner(v, EW_OP_FUSED_RMS_NORM);
    const struct ew_node *before;

    out->kind = EW_QK_NORM_FULL;
    if (!norm) {
        if (!v->producer || !is_reshape(v->producer) || v->n_uses != 1 || v->is_output)
            return false;
        out->kind = EW_QK_NORM_HEAD;
        norm = ew_match_inner(v->producer->in[0], EW_OP_FUSED_RMS_NORM);
    }
    if (!norm || (norm->n_in > 2 && norm->in[2]))
        return false;
    out->w = norm->in[1];
    out->eps = norm->attrs.fused_rms_norm.epsilon;
    out->x = norm->in[0];
    if (out->kind == EW_QK_NORM_FULL)
        return true;
    before = norm->in[0]->producer;
    if (!is_reshape(before) || out->w->type.dim[0] != head_size)
        return false;
    out->x = before->in[0];
    return ew_match_same_type(out->x, v);
}

static bool unpack_concat(struct ew_graph *g, struct ew_node *n)
{
    const struct ew_attr_kv_attention *a = &n->attrs.kv_attention;
    const int64_t want[3] = { a->num_q_heads * a->head_size, a->num_kv_heads * a->head_size,
                              a->num_kv_heads * a->head_size };
    struct ew_node *concat = a->packed_qkv ? ew_match_inner(n->in[0], EW_OP_CONCAT) : NULL;

    if (!concat || concat->n_in != 3 ||
        (concat->attrs.axis.axis != -1 && concat->attrs.axis.axis != 2))
        return false;
    for (int i = 0; i < 3; i++)
        if (concat->in[i]->type.n_dims != 3 || concat->in[i]->type.dim[2] != want[i])
            return false;
    n->attrs.kv_attention.packed_qkv = 0;
    for (int i = 2; i >= 0; i--)
        ew_node_set_input(n, i, concat->in[i]);
    ew_graph_remove_node(g, concat); /* or q, k and v would have two readers */
    return true;
}

static ew_status fuse(struct ew_graph *g, struct ew_node *n, size_t *n_changes, ew_error *err)
{
    struct ew_attr_kv_attention *a = &n->attrs.kv_attention;
    struct ew_type types[EW_MAX_OUTPUTS];
    struct norm q, k;

    if (unpack_concat(g, n))
        ++*n_changes;
    if (a->packed_qkv || a->qk_norm != EW_QK_NORM_NONE || !match_norm(n->in[0], a->head_size, &q) ||
        !match_norm(n->in[1], a->head_size, &k) || q.kind != k.kind || q.eps != k.eps)
        return EW_STATUS_OK;
    if (!ew_node_grow_inputs(g, n, 11))
        return ew_fail(err, EW_STATUS_NO_MEMORY, "node '%s'", n->name);
    a->qk_norm = q.kind;
    a->qk_norm_eps = q.eps;
    ew_node_set_input(n, 0, q.x);
    ew_node_set_input(n, 1, k.x);
    ew_node_set_input(n, 9, q.w);
    ew_node_set_input(n, 10, k.w);
    ++*n_changes;
    return ew_node_infer_types(g, n, types, err);
}

ew_status ew_pass_fuse_qk_norm(struct ew_graph *g, size_t *n_changes, ew_error *err)
{
    for (struct ew_node *n = g->head; n; n = n->next)
        if (n->op == EW_OP_KV_ATTENTION)
            EW_TRY(fuse(g, n, n_changes, err));
    return EW_STATUS_OK;
}

/* onnx/restore.c - puts together again what ew_graph_save_onnx took apart, so that export and
 * import are inverse.
 *
 * Candidates are found by the names that the writer gives ("<output>#<step>"), and every pattern is
 * then checked in full: a foreign graph that happens to use such names is only rewritten where that
 * changes nothing. What passes/ recognise in graphs of other exporters is theirs; the one general
 * rewrite here drops the pair of Reshapes around an attention plugin. Weights come back as the
 * bytes that were saved: no transposition, no cast. */
#include <string.h>

#include "graph/dequant.h"
#include "onnx/onnx_int.h"

struct restore {
    struct ew_graph *g;
    ew_error *err;
};

/* Whether the node is "<base>#<step>"; *len is the length of base. */
static bool is_step(const struct ew_node *n, const char *step, size_t *len)
{
    const char *hash = n ? strrchr(n->name, '#') : NULL;

    if (!hash || strcmp(hash + 1, step) != 0)
        return false;
    *len = (size_t)(hash - n->name);
    return *len > 0;
}

static bool is_step_of(const struct ew_node *n, const char *base, size_t len, const char *step)
{
    size_t n_len;

    return is_step(n, step, &n_len) && n_len == len && memcmp(n->name, base, len) == 0;
}

static bool is_made_by(const struct ew_value *v, ew_op op)
{
    return v && v->producer && v->producer->op == op;
}

/* The constant behind a widening Cast, or v itself. */
static struct ew_value *behind_cast(struct ew_value *v)
{
    if (!is_made_by(v, EW_OP_CAST) || !v->producer->in[0]->is_const)
        return v;
    const ew_dtype from = v->producer->in[0]->type.dtype;
    const bool is_exact =
        v->type.dtype == EW_DTYPE_F32 && (from == EW_DTYPE_F16 || from == EW_DTYPE_BF16);
    return is_exact ? v->producer->in[0] : v;
}

/* Puts a node in the place of `old`, whose output 0 it takes over. */
static ew_status replace(struct restore *r, struct ew_node *old, ew_op op, const char *base,
                         size_t len, const union ew_attrs *attrs, struct ew_value *const *in,
                         int n_in)
{
    const char *name = ew_arena_strndup(&r->g->arena, base, len);
    struct ew_node *made;

    if (!name)
        return ew_fail(r->err, EW_STATUS_NO_MEMORY, "no memory");
    EW_TRY(ew_graph_insert_node(r->g, old, op, name, attrs, in, n_in, 1, &made, r->err));
    ew_graph_replace_uses(r->g, old->out[0], made->out[0]);
    return EW_STATUS_OK;
}

/* The constant [N,K] that the product reads through Transpose and Cast; *out NULL: it does not. */
static ew_status weight_of(struct restore *r, const struct ew_node *n, struct ew_value **out)
{
    const struct ew_node *t = n->in[1]->producer;

    *out = NULL;
    if (is_made_by(n->in[1], EW_OP_CAST) && n->in[1]->type.dtype == EW_DTYPE_F32)
        t = t->in[0]->producer;
    if (!t || t->op != EW_OP_TRANSPOSE || t->in[0]->type.n_dims != 2)
        return EW_STATUS_OK;
    const struct ew_ints *perm = &t->attrs.perm.perm;
    const ew_dtype from = t->in[0]->type.dtype;
    if (perm->n != 2 || perm->v[0] != 1)
        return EW_STATUS_OK;
    if (is_made_by(t->in[0], EW_OP_DEQUANTIZE_LINEAR) && from == n->in[1]->type.dtype)
        return ew_graph_quant_of(r->g, t->in[0]->producer, false, out, r->err);
    if (t->in[0]->is_const &&
        (from == n->in[1]->type.dtype || from == EW_DTYPE_F16 || from == EW_DTYPE_BF16))
        *out = t->in[0];
    return EW_STATUS_OK;
}

/* MatMul(x, [Cast](Transpose([DequantizeLinear](const)))) [+ bias] -> Linear. The int4 plugin is
 * one already. */
static ew_status restore_linear(struct restore *r, struct ew_node *n)
{
    struct ew_node *last = n;
    struct ew_value *in[3] = { n->n_in ? n->in[0] : NULL, NULL, NULL };
    size_t len;

    if ((n->op != EW_OP_MATMUL && n->op != EW_OP_LINEAR) || !is_step(n, "linear", &len))
        return EW_STATUS_OK;
    if (n->op == EW_OP_LINEAR)
        in[1] = n->n_in == 2 ? n->in[1] : NULL;
    else
        EW_TRY(weight_of(r, n, &in[1]));
    if (!in[1])
        return EW_STATUS_OK;
    struct ew_node *next = ew_value_single_use(r->g, n->out[0]);
    if (next && next->op == EW_OP_ADD && next->in[0] == n->out[0] &&
        is_step_of(next, n->name, len, "bias")) {
        struct ew_value *bias = behind_cast(next->in[1]);
        if (bias->is_const && bias->type.n_dims == 1 && bias->type.dim[0] == in[1]->type.dim[0]) {
            in[2] = bias;
            last = next;
        }
    }
    return replace(r, last, EW_OP_LINEAR, n->name, len, NULL, in, in[2] ? 3 : 2);
}

static ew_status restore_rms_norm(struct restore *r, struct ew_node *n)
{
    union ew_attrs attrs;
    size_t len;

    if (n->op != EW_OP_RMS_NORM || !is_step(n, "rms", &len))
        return EW_STATUS_OK;
    struct ew_value *in[2] = { n->in[0], behind_cast(n->in[1]) };
    const int64_t axis = n->attrs.norm.axis;
    if ((axis != -1 && axis != in[0]->type.n_dims - 1) || in[1]->type.n_dims != 1 ||
        n->attrs.norm.stash_type != EW_DTYPE_F32)
        return EW_STATUS_OK;
    ew_op_attrs_init(EW_OP_FUSED_RMS_NORM, &attrs);
    attrs.fused_rms_norm.epsilon = n->attrs.norm.epsilon;
    return replace(r, n, EW_OP_FUSED_RMS_NORM, n->name, len, &attrs, in, 2);
}

static ew_status restore_swish(struct restore *r, struct ew_node *n)
{
    size_t len;

    if (n->op != EW_OP_MUL || !is_step(n, "swish", &len) || !is_made_by(n->in[0], EW_OP_SIGMOID))
        return EW_STATUS_OK;
    struct ew_value *x = n->in[1];
    if (n->in[0]->producer->in[0] != x)
        return EW_STATUS_OK;
    return replace(r, n, EW_OP_SWISH, n->name, len, NULL, &x, 1);
}

/* ---- attention ---- */

/* The value before the norm of q or k, and its weight; false when the pattern is not there. */
static bool before_norm(struct ew_value **v, struct ew_value **weight, float *eps, int norm,
                        const char *const step[3])
{
    struct ew_value *at = *v;
    size_t len;

    if (norm == EW_QK_NORM_HEAD) {
        if (!is_made_by(at, EW_OP_RESHAPE) || !is_step(at->producer, step[2], &len))
            return false;
        at = at->producer->in[0];
    }
    if (!is_made_by(at, EW_OP_RMS_NORM) || !is_step(at->producer, step[1], &len))
        return false;
    *eps = at->producer->attrs.norm.epsilon;
    *weight = behind_cast(at->producer->in[1]);
    at = at->producer->in[0];
    if (norm == EW_QK_NORM_HEAD) {
        if (!is_made_by(at, EW_OP_RESHAPE) || !is_step(at->producer, step[0], &len))
            return false;
        at = at->producer->in[0];
    }
    if (!ew_type_equal(&at->type, &(*v)->type))
        return false;
    *v = at;
    return true;
}

static bool split_widths_fit(const struct ew_node *split, const struct ew_attr_kv_attention *a)
{
    const int64_t want[3] = { a->num_q_heads * a->head_size, a->num_kv_heads * a->head_size,
                              a->num_kv_heads * a->head_size };

    for (int i = 0; i < 3; i++)
        if (split->out[i]->type.n_dims != 3 || split->out[i]->type.dim[2] != want[i])
            return false;
    return split->in[0]->type.dim[2] == want[0] + want[1] + want[2];
}

/* q, k and v that are the three outputs of one split are packed. */
static void repack(struct ew_value **in, struct ew_attr_kv_attention *a)
{
    struct ew_node *split = in[0]->producer;
    size_t len;

    if (!split || split->op != EW_OP_SPLIT || split->n_out != 3 ||
        !is_step(split, "qkv_split", &len) || !split_widths_fit(split, a))
        return;
    for (int i = 0; i < 3; i++)
        if (in[i] != split->out[i])
            return;
    in[0] = split->in[0];
    in[1] = NULL;
    in[2] = NULL;
    a->packed_qkv = 1;
}

static void unpack(struct ew_value **in, struct ew_attr_kv_attention *a)
{
    struct ew_node *concat = in[0]->producer;
    size_t len;

    if (!a->packed_qkv || !concat || concat->op != EW_OP_CONCAT || concat->n_in != 3 ||
        !is_step(concat, "qkv", &len))
        return;
    const int64_t want[3] = { a->num_q_heads * a->head_size, a->num_kv_heads * a->head_size,
                              a->num_kv_heads * a->head_size };
    for (int i = 0; i < 3; i++)
        if (concat->in[i]->type.n_dims != 3 || concat->in[i]->type.dim[2] != want[i])
            return;
    for (int i = 0; i < 3; i++)
        in[i] = concat->in[i];
    a->packed_qkv = 0;
}

static ew_status restore_attention(struct restore *r, struct ew_node *n)
{
    static const char *const steps[2][3] = { { "q_in", "q_norm", "q_out" },
                                             { "k_in", "k_norm", "k_out" } };
    struct ew_value *in[13] = { NULL };
    union ew_attrs attrs = n->attrs;
    struct ew_attr_kv_attention *a = &attrs.kv_attention;
    const int norm = a->qk_norm;
    struct ew_node *made;
    float eps[2] = { 0, 0 };

    if (n->op != EW_OP_KV_ATTENTION)
        return EW_STATUS_OK;
    n->attrs.kv_attention.qk_norm = EW_QK_NORM_NONE;
    a->qk_norm = EW_QK_NORM_NONE;
    for (int i = 0; i < n->n_in; i++)
        in[i] = n->in[i];
    unpack(in, a);
    if (norm != EW_QK_NORM_NONE && !a->packed_qkv) {
        struct ew_value *q = in[0], *k = in[1], *wq, *wk;
        if (before_norm(&q, &wq, &eps[0], norm, steps[0]) &&
            before_norm(&k, &wk, &eps[1], norm, steps[1]) && memcmp(&eps[0], &eps[1], 4) == 0) {
            in[0] = q;
            in[1] = k;
            in[9] = wq;
            in[10] = wk;
            a->qk_norm = norm;
            a->qk_norm_eps = eps[0];
        }
    }
    if (!a->packed_qkv)
        repack(in, a);
    if (!a->use_rope)
        in[5] = NULL;
    int n_in = (int)EW_COUNT(in);
    while (!in[n_in - 1])
        n_in--;
    if (n_in == n->n_in && memcmp(in, n->in, (size_t)n_in * sizeof(in[0])) == 0)
        return EW_STATUS_OK;
    EW_TRY(ew_graph_insert_node(r->g, n, EW_OP_KV_ATTENTION, n->name, &attrs, in, n_in, 2, &made,
                                r->err));
    ew_graph_replace_uses(r->g, n->out[0], made->out[0]);
    made->out[1]->alias_of = n->out[1]->alias_of;
    ew_graph_replace_uses(r->g, n->out[1], made->out[1]);
    return EW_STATUS_OK;
}

/* Reshape(Reshape(x)) of x's own type is x. */
static void drop_reshape_pair(struct restore *r, struct ew_node *n)
{
    if (n->op != EW_OP_RESHAPE || n->out[0]->is_output || !is_made_by(n->in[0], EW_OP_RESHAPE))
        return;
    struct ew_value *x = n->in[0]->producer->in[0];
    if (is_made_by(x, EW_OP_KV_ATTENTION) && ew_type_equal(&x->type, &n->out[0]->type))
        ew_graph_replace_uses(r->g, n->out[0], x);
}

static ew_status for_each(struct restore *r, ew_status (*fn)(struct restore *, struct ew_node *))
{
    for (struct ew_node *n = r->g->head, *next; n; n = next) {
        next = n->next;
        EW_TRY(fn(r, n));
    }
    (void)ew_graph_sweep(r->g);
    return EW_STATUS_OK;
}

ew_status ew_onnx_restore(struct ew_graph *g, ew_error *err)
{
    struct restore r = { g, err };

    EW_TRY(for_each(&r, restore_linear));
    EW_TRY(for_each(&r, restore_rms_norm));
    EW_TRY(for_each(&r, restore_swish));
    EW_TRY(for_each(&r, restore_attention));
    for (struct ew_node *n = g->head; n; n = n->next)
        drop_reshape_pair(&r, n);
    (void)ew_graph_sweep(g);
    return EW_STATUS_OK;
}

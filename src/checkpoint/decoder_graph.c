/* checkpoint/decoder_graph.c - the graph of a decoder spec over the weights of a checkpoint. Nodes
 * are named after the modules they come from; fusing is the passes' work. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "checkpoint/decoder.h"
#include "checkpoint/kv_scales.h"
#include "checkpoint/weights.h"
#include "graph/ir.h"

#define NAME_CAP 192 /* of a whole name */
#define REL_CAP  160 /* of a name after the prefix */

struct builder {
    const struct ew_decoder_spec *s;
    struct ew_graph *g;
    struct ew_weights w;
    bool hidden_states;
    struct ew_value *context_lengths, *start_index, *last_token_ids;
    struct ew_value *rope[2];
    struct ew_value *x;              /* residual stream */
    struct ew_value *residual_scale; /* constant, or NULL */
    struct prepared {                /* the last x that a quantised weight asked for */
        struct ew_value *x, *y;
        const float *mul;
        const uint32_t *perm;
    } prepared;
    struct ew_weight embedding;
    ew_error *err;
};

const char *ew_decoder_rope_input(int i)
{
    static const char *const names[] = { "rope_rotary_cos_sin", "rope_rotary_cos_sin_1" };

    return names[i];
}

static ew_status add_input(struct builder *b, const char *name, ew_dtype dtype, int n_dims,
                           const int64_t *dims, struct ew_value **out)
{
    const struct ew_type type = ew_type_make(dtype, n_dims, dims);

    *out = ew_graph_add_input(b->g, name, &type);
    if (!*out)
        return ew_fail(b->err, EW_STATUS_NO_MEMORY, "no memory for input '%s'", name);
    return EW_STATUS_OK;
}

/* A node with one output. */
static ew_status add_op(struct builder *b, ew_op op, const char *name, const union ew_attrs *attrs,
                        struct ew_value *const *in, int n_in, struct ew_value **out)
{
    struct ew_node *node;

    EW_TRY(ew_graph_add_node(b->g, op, name, attrs, in, n_in, 1, &node, b->err));
    *out = node->out[0];
    return EW_STATUS_OK;
}

static ew_status add_binary(struct builder *b, ew_op op, const char *name, struct ew_value *x,
                            struct ew_value *y, struct ew_value **out)
{
    struct ew_value *const in[2] = { x, y };

    return add_op(b, op, name, NULL, in, 2, out);
}

static ew_status add_scalar(struct builder *b, const char *name, double v, struct ew_value **out)
{
    *out = ew_graph_const_f32(b->g, name, (float)v);
    if (!*out)
        return ew_fail(b->err, EW_STATUS_NO_MEMORY, "no memory for constant '%s'", name);
    return EW_STATUS_OK;
}

/* "layers.<i>.<tail>" for weights; "model.layers.<i>.<tail>" for nodes. */
static const char *rel_name(char *out, int64_t i, const char *tail)
{
    snprintf(out, REL_CAP, "layers.%" PRId64 ".%s", i, tail);
    return out;
}

static const char *node_name(char *out, int64_t i, const char *tail)
{
    snprintf(out, NAME_CAP, "model.layers.%" PRId64 ".%s", i, tail);
    return out;
}

static ew_status add_norm(struct builder *b, const char *rel, struct ew_value *x,
                          struct ew_value **out)
{
    struct ew_value *in[2] = { x, NULL };
    union ew_attrs attrs;
    char name[NAME_CAP];

    snprintf(name, sizeof(name), "%s.weight", rel);
    EW_TRY(ew_weights_vector(&b->w, name, b->s->hidden, b->s->norm_plus_one ? 1.0f : 0.0f, &in[1],
                             b->err));
    ew_op_attrs_init(EW_OP_FUSED_RMS_NORM, &attrs);
    attrs.fused_rms_norm.epsilon = (float)b->s->norm_eps;
    snprintf(name, sizeof(name), "model.%s", rel);
    return add_op(b, EW_OP_FUSED_RMS_NORM, name, &attrs, in, 2, out);
}

static bool same_bytes(const void *a, const void *b, size_t n)
{
    return a == b || (a && b && memcmp(a, b, n) == 0);
}

static ew_status multiply_x(struct builder *b, const char *name, const float *mul,
                            struct ew_value **x)
{
    const int64_t k = (*x)->type.dim[(*x)->type.n_dims - 1];
    const struct ew_type type = ew_type_make(EW_DTYPE_F32, 1, &k);
    char node[NAME_CAP + 32];
    struct ew_value *c;

    snprintf(node, sizeof(node), "%s.pre_quant_scale", name);
    c = ew_graph_add_const(b->g, node, &type, mul, false);
    if (!c)
        return ew_fail(b->err, EW_STATUS_NO_MEMORY, "no memory for constant '%s'", node);
    snprintf(node, sizeof(node), "%s.x_scaled", name);
    return add_binary(b, EW_OP_MUL, node, *x, c, x);
}

static ew_status gather_x(struct builder *b, const char *name, const uint32_t *perm,
                          struct ew_value **x)
{
    const int64_t k = (*x)->type.dim[(*x)->type.n_dims - 1];
    const struct ew_type type = ew_type_make(EW_DTYPE_I64, 1, &k);
    int64_t *order = ew_arena_new(&b->g->arena, int64_t, (size_t)k);
    struct ew_value *in[2] = { *x, NULL };
    char node[NAME_CAP + 32];
    union ew_attrs attrs;

    snprintf(node, sizeof(node), "%s.g_idx_order", name);
    for (int64_t i = 0; order && i < k; i++)
        order[i] = perm[i];
    in[1] = order ? ew_graph_add_const(b->g, node, &type, order, false) : NULL;
    if (!in[1])
        return ew_fail(b->err, EW_STATUS_NO_MEMORY, "no memory for constant '%s'", node);
    ew_op_attrs_init(EW_OP_GATHER, &attrs);
    attrs.axis.axis = -1;
    snprintf(node, sizeof(node), "%s.x_ordered", name);
    return add_op(b, EW_OP_GATHER, node, &attrs, in, 2, x);
}

/* x as a weight wants it. Projections that share x and want the same share what is made of it. */
static ew_status prepare_x(struct builder *b, const char *name, const struct ew_weight *w,
                           struct ew_value **x)
{
    const size_t k = (size_t)(*x)->type.dim[(*x)->type.n_dims - 1];
    struct prepared *p = &b->prepared;
    struct ew_value *y = *x;

    if (!w->x_mul && !w->perm)
        return EW_STATUS_OK;
    if (p->x != *x || !same_bytes(p->mul, w->x_mul, k * sizeof(float)) ||
        !same_bytes(p->perm, w->perm, k * sizeof(uint32_t))) {
        if (w->x_mul)
            EW_TRY(multiply_x(b, name, w->x_mul, &y));
        if (w->perm)
            EW_TRY(gather_x(b, name, w->perm, &y));
        *p = (struct prepared){ *x, y, w->x_mul, w->perm };
    }
    *x = p->y;
    return EW_STATUS_OK;
}

/* A Linear node with this whole name; bias NULL: none. */
static ew_status add_product(struct builder *b, const char *name, struct ew_value *x,
                             const struct ew_weight *weight, struct ew_value *bias,
                             struct ew_value **out)
{
    struct ew_value *in[3] = { x, weight->value, bias };
    union ew_attrs attrs;

    EW_TRY(prepare_x(b, name, weight, &in[0]));
    ew_op_attrs_init(EW_OP_LINEAR, &attrs);
    attrs.linear.x_quant = weight->x_quant;
    attrs.linear.x_block = weight->x_block;
    if (weight->x_scale > 0)
        attrs.linear.x_scale = weight->x_scale;
    return add_op(b, EW_OP_LINEAR, name, &attrs, in, bias ? 3 : 2, out);
}

static ew_status add_linear(struct builder *b, const char *rel, struct ew_value *x,
                            const struct ew_weight *weight, bool bias, struct ew_value **out)
{
    struct ew_value *bias_value = NULL;
    char name[NAME_CAP];

    if (bias) {
        snprintf(name, sizeof(name), "%s.bias", rel);
        EW_TRY(
            ew_weights_vector(&b->w, name, weight->value->type.dim[0], 0.0f, &bias_value, b->err));
    }
    snprintf(name, sizeof(name), "model.%s", rel);
    return add_product(b, name, x, weight, bias_value, out);
}

/* The stored projection `tail` of layer i: [n, k]. */
static ew_status add_projection(struct builder *b, int64_t i, const char *tail, struct ew_value *x,
                                int64_t n, bool bias, struct ew_value **out)
{
    const int64_t k = x->type.dim[x->type.n_dims - 1];
    char rel[REL_CAP], name[NAME_CAP];
    struct ew_weight weight;

    rel_name(rel, i, tail);
    snprintf(name, sizeof(name), "%s.weight", rel);
    EW_TRY(ew_weights_matrix(&b->w, name, n, k, &weight, b->err));
    return add_linear(b, rel, x, &weight, bias, out);
}

/* Rows [begin, begin + n) of the stored projection `stored`, as if it were one named `tail`. */
static ew_status add_slice(struct builder *b, int64_t i, const char *stored, const char *tail,
                           struct ew_value *x, int64_t total, int64_t begin, int64_t n,
                           struct ew_value **out)
{
    char rel[REL_CAP], as[NAME_CAP], from[REL_CAP];
    struct ew_weight weight;

    rel_name(from, i, stored);
    rel_name(rel, i, tail);
    snprintf(as, sizeof(as), "%s.weight", rel);
    EW_TRY(ew_weights_rows(&b->w, from, total, begin, n, b->s->hidden, as, &weight, b->err));
    return add_linear(b, rel, x, &weight, false, out);
}

static ew_status add_qkv(struct builder *b, int64_t i, struct ew_value *x, struct ew_value **qkv)
{
    const struct ew_decoder_spec *s = b->s;
    const int64_t nq = s->n_heads * s->head_dim, nkv = s->n_kv_heads * s->head_dim;
    const char *const stored = "self_attn.qkv_proj.weight";

    if (s->fused_qkv) {
        const int64_t all = nq + 2 * nkv;

        EW_TRY(add_slice(b, i, stored, "self_attn.q_proj", x, all, 0, nq, &qkv[0]));
        EW_TRY(add_slice(b, i, stored, "self_attn.k_proj", x, all, nq, nkv, &qkv[1]));
        return add_slice(b, i, stored, "self_attn.v_proj", x, all, nq + nkv, nkv, &qkv[2]);
    }
    EW_TRY(add_projection(b, i, "self_attn.q_proj", x, nq, s->qkv_bias, &qkv[0]));
    EW_TRY(add_projection(b, i, "self_attn.k_proj", x, nkv, s->qkv_bias, &qkv[1]));
    return add_projection(b, i, "self_attn.v_proj", x, nkv, s->qkv_bias, &qkv[2]);
}

static ew_status add_qk_norms(struct builder *b, int64_t i, struct ew_value **in)
{
    const struct ew_decoder_spec *s = b->s;
    const bool full = s->qk_norm == EW_QK_NORM_FULL;
    const float plus = s->norm_plus_one ? 1.0f : 0.0f;
    char rel[REL_CAP];

    if (s->qk_norm == EW_QK_NORM_NONE)
        return EW_STATUS_OK;
    EW_TRY(ew_weights_vector(&b->w, rel_name(rel, i, "self_attn.q_norm.weight"),
                             s->head_dim * (full ? s->n_heads : 1), plus, &in[9], b->err));
    return ew_weights_vector(&b->w, rel_name(rel, i, "self_attn.k_norm.weight"),
                             s->head_dim * (full ? s->n_kv_heads : 1), plus, &in[10], b->err);
}

static void set_attention_attrs(const struct ew_decoder_spec *s, int64_t i, union ew_attrs *attrs)
{
    struct ew_attr_kv_attention *a = &attrs->kv_attention;

    ew_op_attrs_init(EW_OP_KV_ATTENTION, attrs);
    a->num_q_heads = s->n_heads;
    a->num_kv_heads = s->n_kv_heads;
    a->head_size = s->head_dim;
    a->packed_qkv = 0;
    a->sliding_window_size = s->layers[i].window;
    a->attention_scale = (float)s->attention_scale;
    a->softcap = (float)s->attention_softcap;
    a->qk_norm = s->qk_norm;
    a->qk_norm_eps = (float)s->norm_eps;
    a->use_rope = s->layers[i].rope_set >= 0;
}

static ew_status add_attention(struct builder *b, int64_t i, struct ew_value *x,
                               struct ew_value **out)
{
    const struct ew_decoder_spec *s = b->s;
    const int rope_set = s->layers[i].rope_set < 0 ? 0 : s->layers[i].rope_set;
    struct ew_value *in[13] = { 0 };
    union ew_attrs attrs;
    struct ew_node *node;
    char name[NAME_CAP];

    EW_TRY(add_qkv(b, i, x, in));
    snprintf(name, sizeof(name), "past_key_values_%" PRId64, i);
    in[3] = ew_graph_find(b->g, name);
    in[4] = b->context_lengths;
    in[5] = b->rope[rope_set];
    in[6] = b->start_index;
    EW_TRY(add_qk_norms(b, i, in));
    EW_TRY(ew_kv_scales_add(&b->w, i, s->n_kv_heads, &in[12], b->err));
    set_attention_attrs(s, i, &attrs);
    EW_TRY(ew_graph_add_node(b->g, EW_OP_KV_ATTENTION, node_name(name, i, "self_attn"), &attrs, in,
                             in[12]       ? 13
                             : s->qk_norm ? 11
                                          : 7,
                             2, &node, b->err));
    node->out[1]->alias_of = in[3];
    snprintf(name, sizeof(name), "present_key_values_%" PRId64, i);
    EW_TRY(ew_graph_add_output(b->g, node->out[1], name, b->err));
    return add_projection(b, i, "self_attn.o_proj", node->out[0], s->hidden, s->o_bias, out);
}

static ew_status add_activation(struct builder *b, const char *name, struct ew_value *x,
                                struct ew_value **out)
{
    const int act = b->s->act;
    union ew_attrs attrs;

    if (act == EW_ACT_SILU)
        return add_op(b, EW_OP_SWISH, name, NULL, &x, 1, out);
    if (act == EW_ACT_GELU_TANH || act == EW_ACT_GELU_ERF) {
        ew_op_attrs_init(EW_OP_GELU, &attrs);
        attrs.gelu.approximate = act == EW_ACT_GELU_TANH ? EW_GELU_TANH : EW_GELU_NONE;
        return add_op(b, EW_OP_GELU, name, &attrs, &x, 1, out);
    }
    EW_TRY(add_op(b, EW_OP_RELU, name, NULL, &x, 1, out));
    if (act == EW_ACT_RELU2)
        return add_binary(b, EW_OP_MUL, name, *out, *out, out);
    return EW_STATUS_OK;
}

static ew_status add_mlp(struct builder *b, int64_t i, struct ew_value *x, struct ew_value **out)
{
    const struct ew_decoder_spec *s = b->s;
    struct ew_value *gate, *up;
    char name[NAME_CAP];

    if (s->fused_gate_up) {
        const char *const stored = "mlp.gate_up_proj.weight";

        EW_TRY(add_slice(b, i, stored, "mlp.gate_proj", x, 2 * s->inter, 0, s->inter, &gate));
        EW_TRY(add_slice(b, i, stored, "mlp.up_proj", x, 2 * s->inter, s->inter, s->inter, &up));
    } else {
        EW_TRY(add_projection(b, i, "mlp.gate_proj", x, s->inter, s->mlp_bias, &gate));
        EW_TRY(add_projection(b, i, "mlp.up_proj", x, s->inter, s->mlp_bias, &up));
    }
    EW_TRY(add_activation(b, node_name(name, i, "mlp.act"), gate, &gate));
    EW_TRY(add_binary(b, EW_OP_MUL, node_name(name, i, "mlp.gated"), gate, up, &up));
    return add_projection(b, i, "mlp.down_proj", up, s->hidden, s->mlp_bias, out);
}

/* Experts are stored one by one under two spellings, or stacked. */
static ew_status find_experts(struct builder *b, int64_t i, const char *block,
                              struct ew_weight *gate_up, struct ew_weight *down)
{
    const struct ew_decoder_spec *s = b->s;
    const bool old = strcmp(block, "block_sparse_moe") == 0;
    char gate[NAME_CAP], up[NAME_CAP], dn[NAME_CAP], as[NAME_CAP], tail[64];
    struct ew_expert_block gu[2] = { { gate, s->moe_inter }, { up, s->moe_inter } };
    struct ew_expert_block d[1] = { { dn, s->hidden } };

    snprintf(tail, sizeof(tail), "%s.experts.gate_up_proj", block);
    if (ew_weights_has_stack(&b->w, rel_name(as, i, tail))) {
        EW_TRY(ew_weights_stack(&b->w, as, s->n_experts, 2 * s->moe_inter, s->hidden, gate_up,
                                b->err));
        snprintf(tail, sizeof(tail), "%s.experts.down_proj", block);
        return ew_weights_stack(&b->w, rel_name(as, i, tail), s->n_experts, s->hidden, s->moe_inter,
                                down, b->err);
    }
    snprintf(tail, sizeof(tail), "%s.experts.*.%s.weight", block, old ? "w1" : "gate_proj");
    rel_name(gate, i, tail);
    snprintf(tail, sizeof(tail), "%s.experts.*.%s.weight", block, old ? "w3" : "up_proj");
    rel_name(up, i, tail);
    snprintf(tail, sizeof(tail), "%s.experts.*.%s.weight", block, old ? "w2" : "down_proj");
    rel_name(dn, i, tail);
    EW_TRY(ew_weights_experts(&b->w, rel_name(as, i, "mlp.experts.gate_up_proj"), gu, 2,
                              s->n_experts, s->hidden, gate_up, b->err));
    return ew_weights_experts(&b->w, rel_name(as, i, "mlp.experts.down_proj"), d, 1, s->n_experts,
                              s->moe_inter, down, b->err);
}

/* One rounding of x serves both products of an expert. */
static ew_status set_expert_x(struct builder *b, int64_t i, const struct ew_weight *gate_up,
                              const struct ew_weight *down, union ew_attrs *attrs)
{
    if (gate_up->x_quant != down->x_quant || gate_up->x_block != down->x_block)
        return ew_fail(b->err, EW_STATUS_UNSUPPORTED,
                       "layer %" PRId64 ": experts' gate_up and down projections that round their "
                       "activations in different ways are not supported",
                       i);
    attrs->moe.x_quant = gate_up->x_quant;
    attrs->moe.x_block = gate_up->x_block;
    return EW_STATUS_OK;
}

static ew_status add_moe(struct builder *b, int64_t i, struct ew_value *x, struct ew_value **out)
{
    const struct ew_decoder_spec *s = b->s;
    struct ew_value *in[4] = { x, NULL, NULL, NULL };
    struct ew_weight gate_up, down;
    const char *block = "mlp";
    char name[NAME_CAP];
    union ew_attrs attrs;

    if (ew_weights_has(&b->w, rel_name(name, i, "block_sparse_moe.gate.weight")))
        block = "block_sparse_moe";
    snprintf(name, sizeof(name), "%s.gate", block);
    EW_TRY(add_projection(b, i, name, x, s->n_experts, false, &in[1]));
    EW_TRY(find_experts(b, i, block, &gate_up, &down));
    in[2] = gate_up.value;
    in[3] = down.value;
    ew_op_attrs_init(EW_OP_MOE, &attrs);
    EW_TRY(set_expert_x(b, i, &gate_up, &down, &attrs));
    attrs.moe.top_k = s->top_k;
    attrs.moe.norm_topk = s->norm_topk;
    attrs.moe.act = s->act;
    return add_op(b, EW_OP_MOE, node_name(name, i, "mlp.experts"), &attrs, in, 4, out);
}

/* b->x += scale * y */
static ew_status add_residual(struct builder *b, int64_t i, const char *tail, struct ew_value *y)
{
    char name[NAME_CAP], scaled[64];

    if (b->residual_scale) {
        snprintf(scaled, sizeof(scaled), "%s.scaled", tail);
        EW_TRY(add_binary(b, EW_OP_MUL, node_name(name, i, scaled), y, b->residual_scale, &y));
    }
    return add_binary(b, EW_OP_ADD, node_name(name, i, tail), b->x, y, &b->x);
}

/* One half of a layer: norms around attention or the MLP, then the residual. */
static ew_status add_half(struct builder *b, int64_t i, bool attention)
{
    const bool sandwich = b->s->norm_place == EW_NORM_SANDWICH;
    const char *after = attention ? "post_attention_layernorm" : "post_feedforward_layernorm";
    const char *before = attention  ? "input_layernorm"
                         : sandwich ? "pre_feedforward_layernorm"
                                    : "post_attention_layernorm";
    struct ew_value *y = b->x;
    char rel[REL_CAP];

    if (b->s->norm_place != EW_NORM_POST)
        EW_TRY(add_norm(b, rel_name(rel, i, before), y, &y));
    if (attention)
        EW_TRY(add_attention(b, i, y, &y));
    else if (b->s->layers[i].moe)
        EW_TRY(add_moe(b, i, y, &y));
    else
        EW_TRY(add_mlp(b, i, y, &y));
    if (b->s->norm_place != EW_NORM_PRE)
        EW_TRY(add_norm(b, rel_name(rel, i, after), y, &y));
    return add_residual(b, i, attention ? "attn_residual" : "mlp_residual", y);
}

static ew_status add_hidden(struct builder *b, int64_t i, struct ew_value *x)
{
    char name[40];

    if (!b->hidden_states)
        return EW_STATUS_OK;
    snprintf(name, sizeof(name), "hidden_%" PRId64, i);
    if (x->is_input) { /* an output must have a producer */
        char node[NAME_CAP];

        snprintf(node, sizeof(node), "model.%s", name);
        EW_TRY(add_op(b, EW_OP_IDENTITY, node, NULL, &x, 1, &x));
    }
    return ew_graph_add_output(b->g, x, name, b->err);
}

enum dim {
    DIM_BATCH,
    DIM_SEQ,
    DIM_PAST,
    DIM_ROPE_BATCH,
    DIM_MAX_POS,
    DIM_KV_BATCH,
    DIM_SELECTED,
    N_DIMS
};

static ew_status make_dims(struct builder *b, int64_t *dims)
{
    static const char *const names[N_DIMS] = { "batch",   "seq_len",  "past_len",    "rope_batch",
                                               "max_pos", "kv_batch", "num_selected" };

    for (int i = 0; i < N_DIMS; i++) {
        dims[i] = ew_dim_symbol(b->g->syms, names[i]);
        if (dims[i] == EW_DIM_BAD)
            return ew_fail(b->err, EW_STATUS_NO_MEMORY, "no memory for dim '%s'", names[i]);
    }
    return EW_STATUS_OK;
}

static ew_status add_inputs(struct builder *b)
{
    const struct ew_decoder_spec *s = b->s;
    int64_t d[N_DIMS];

    EW_TRY(make_dims(b, d));
    EW_TRY(add_input(b, "inputs_embeds", EW_DTYPE_F32, 3,
                     (const int64_t[]){ d[DIM_BATCH], d[DIM_SEQ], s->hidden }, &b->x));
    for (int64_t i = 0; i < s->n_layers; i++) {
        const int64_t kv[5] = { d[DIM_BATCH], 2, s->n_kv_heads, d[DIM_PAST],
                                ew_kv_row_width(s->kv_dtype, s->head_dim) };
        struct ew_value *past;
        char name[64];

        snprintf(name, sizeof(name), "past_key_values_%" PRId64, i);
        EW_TRY(add_input(b, name, s->kv_dtype, 5, kv, &past));
    }
    for (int i = 0; i < s->n_rope; i++) {
        const int64_t table[3] = { d[DIM_ROPE_BATCH], d[DIM_MAX_POS], s->rope[i].rotary_dim };

        EW_TRY(add_input(b, ew_decoder_rope_input(i), EW_DTYPE_F32, 3, table, &b->rope[i]));
    }
    EW_TRY(add_input(b, "context_lengths", EW_DTYPE_I32, 1, &d[DIM_BATCH], &b->context_lengths));
    EW_TRY(add_input(b, "kvcache_start_index", EW_DTYPE_I32, 1, &d[DIM_KV_BATCH], &b->start_index));
    return add_input(b, "last_token_ids", EW_DTYPE_I64, 2,
                     (const int64_t[]){ d[DIM_BATCH], d[DIM_SELECTED] }, &b->last_token_ids);
}

/* Final norm, the chosen tokens, the head and what scales its logits. */
static ew_status add_head(struct builder *b)
{
    const struct ew_decoder_spec *s = b->s;
    static const int64_t last_axis = -1;
    struct ew_weight weight = b->embedding;
    struct ew_value *in[2], *y, *c;
    union ew_attrs attrs;

    EW_TRY(add_norm(b, "norm", b->x, &y));
    EW_TRY(add_hidden(b, s->n_layers, y));
    in[0] = b->last_token_ids;
    in[1] = ew_graph_const_i64(b->g, "last_axis", &last_axis, 1);
    if (!in[1])
        return ew_fail(b->err, EW_STATUS_NO_MEMORY, "no memory for constant 'last_axis'");
    EW_TRY(add_op(b, EW_OP_UNSQUEEZE, "last_token_ids.indices", NULL, in, 2, &in[1]));
    in[0] = y;
    ew_op_attrs_init(EW_OP_GATHER_ND, &attrs);
    attrs.gather_nd.batch_dims = 1;
    EW_TRY(add_op(b, EW_OP_GATHER_ND, "model.selected", &attrs, in, 2, &in[0]));
    if (!s->tied_head || ew_weights_head_differs(&b->w))
        EW_TRY(ew_weights_head(&b->w, s->vocab, s->hidden, &weight, b->err));
    EW_TRY(add_product(b, "lm_head", in[0], &weight, NULL, &y));
    if (s->logits_divisor != 1) {
        EW_TRY(add_scalar(b, "logits_divisor", s->logits_divisor, &c));
        EW_TRY(add_binary(b, EW_OP_DIV, "lm_head.scaled", y, c, &y));
    }
    if (s->logits_softcap > 0) {
        EW_TRY(add_scalar(b, "logits_softcap", s->logits_softcap, &c));
        EW_TRY(add_binary(b, EW_OP_DIV, "lm_head.softcap_in", y, c, &y));
        EW_TRY(add_op(b, EW_OP_TANH, "lm_head.softcap_tanh", NULL, &y, 1, &y));
        EW_TRY(add_binary(b, EW_OP_MUL, "lm_head.softcap", y, c, &y));
    }
    return ew_graph_add_output(b->g, y, "logits", b->err);
}

static ew_status build_body(struct builder *b, bool multimodal)
{
    const struct ew_decoder_spec *s = b->s;

    EW_TRY(ew_weights_embedding(&b->w, s->vocab, s->hidden, &b->embedding, b->err));
    b->g->embedding = b->embedding.value;
    EW_TRY(add_inputs(b));
    if (s->residual_scale != 1)
        EW_TRY(add_scalar(b, "residual_scale", s->residual_scale, &b->residual_scale));
    for (int64_t i = 0; i < s->n_layers; i++) {
        EW_TRY(add_hidden(b, i, b->x));
        EW_TRY(add_half(b, i, true));
        EW_TRY(add_half(b, i, false));
    }
    EW_TRY(add_head(b));
    EW_TRY(ew_weights_check_unused(&b->w, multimodal, s->tied_head, b->err));
    return ew_graph_verify(b->g, b->err);
}

static void close_weights(void *st)
{
    ew_safetensors_close(st);
}

/* The body, with the quantisation that the config describes. */
static ew_status build_weights(struct builder *b, const struct ew_config *c,
                               const struct ew_safetensors *st, ew_activations activations)
{
    struct ew_qx_config *quant;
    ew_status status;

    EW_TRY(ew_qx_config_open(c, &quant, b->err));
    status = ew_weights_init(&b->w, st, b->g, quant, activations, b->err);
    if (!status)
        status = build_body(b, c->multimodal);
    ew_weights_deinit(&b->w);
    ew_qx_config_close(quant);
    return status;
}

ew_status ew_decoder_build(const struct ew_decoder_spec *s, const struct ew_config *c,
                           struct ew_safetensors *st, const ew_checkpoint_opts *opts,
                           ew_graph **out, ew_error *err)
{
    struct builder b = { .s = s, .hidden_states = opts->hidden_states, .err = err };
    ew_status status = ew_graph_create(s->family, &b.g, err);

    if (status) {
        ew_safetensors_close(st);
        return status;
    }
    status = ew_graph_own(b.g, st, close_weights);
    if (status)
        ew_fail(err, status, "no memory for a graph");
    else
        status = build_weights(&b, c, st, opts->activations);
    if (!status) {
        char *text;

        status = ew_decoder_llm_config(s, c, &text, err);
        if (!status)
            b.g->llm_config = text;
    }
    if (status) {
        ew_graph_destroy(b.g);
        return status;
    }
    *out = b.g;
    return EW_STATUS_OK;
}

static ew_status add_layer_inputs(struct builder *b, int64_t i, int64_t seq_len)
{
    const struct ew_decoder_spec *s = b->s;
    const int64_t hidden[3] = { 1, seq_len, s->hidden }, one = 1;
    const int64_t kv[5] = { 1, 2, s->n_kv_heads, seq_len, s->head_dim };
    struct ew_value *past;
    char name[64];

    EW_TRY(add_input(b, "inputs_embeds", EW_DTYPE_F32, 3, hidden, &b->x));
    snprintf(name, sizeof(name), "past_key_values_%" PRId64, i);
    EW_TRY(add_input(b, name, EW_DTYPE_F32, 5, kv, &past));
    for (int r = 0; r < s->n_rope; r++) {
        const int64_t table[3] = { 1, seq_len, s->rope[r].rotary_dim };

        EW_TRY(add_input(b, ew_decoder_rope_input(r), EW_DTYPE_F32, 3, table, &b->rope[r]));
    }
    EW_TRY(add_input(b, "context_lengths", EW_DTYPE_I32, 1, &one, &b->context_lengths));
    return add_input(b, "kvcache_start_index", EW_DTYPE_I32, 1, &one, &b->start_index);
}

ew_status ew_decoder_build_layer(const struct ew_decoder_spec *s, const struct ew_safetensors *st,
                                 int64_t i, int64_t seq_len, ew_graph **out, ew_error *err)
{
    struct builder b = { .s = s, .err = err };
    ew_status status;

    EW_TRY(ew_graph_create(s->family, &b.g, err));
    status = ew_weights_init(&b.w, st, b.g, NULL, EW_ACTIVATIONS_EXACT, err);
    if (!status)
        status = add_layer_inputs(&b, i, seq_len);
    if (!status && s->residual_scale != 1)
        status = add_scalar(&b, "residual_scale", s->residual_scale, &b.residual_scale);
    if (!status)
        status = add_half(&b, i, true);
    if (!status)
        status = add_half(&b, i, false);
    if (!status)
        status = ew_graph_add_output(b.g, b.x, "hidden", err);
    ew_weights_deinit(&b.w);
    if (status) {
        ew_graph_destroy(b.g);
        return status;
    }
    *out = b.g;
    return EW_STATUS_OK;
}

/* onnx/save_llm.c - the LLM ops taken apart into standard ONNX ops, or written as plugins of the
 * contract.
 *
 *   Linear        [quantisers of x] W [-DequantizeLinear->] -Transpose-> [-Cast->] MatMul [Add
 * bias] [Mul scale] [Div, Tanh, Mul softcap] [act, up] [Add] FusedRmsNorm  RMSNormalization [Add
 * residual] Swish         Sigmoid, Mul KvAttention   [Split] [q and k norms] [Concat]
 * AttentionPlugin, Reshape Moe           edgewise::Moe
 *
 * Every step is named "<output>#<step>", which is what restore.c looks for. */
#include <string.h>

#include "onnx/save_int.h"

/* Name under which v can be read as `dtype`: itself, or a Cast that is written once. */
static ew_status as_dtype(struct ew_onnx_out *o, const struct ew_value *v, const char *name,
                          ew_dtype dtype, const char **out)
{
    if (v->type.dtype == dtype) {
        *out = name;
        return EW_STATUS_OK;
    }
    *out = ew_onnx_step(o, name, ew_dtype_text(dtype));
    if (v->is_const && (o->const_done[v->id] & EW_ONNX_DONE_CAST))
        return EW_STATUS_OK;
    o->const_done[v->id] |= EW_ONNX_DONE_CAST;
    Onnx__NodeProto *p = ew_onnx_put_node(o, "Cast", *out, &name, 1, out, 1);
    return p && ew_onnx_put_int(o, p, "to", ew_onnx_data_type(dtype)) ? EW_STATUS_OK
                                                                      : ew_onnx_out_no_memory(o);
}

/* A chain of steps that ends in the node's output: each writes "<output>#<step>", the last one is
 * renamed. */
struct chain {
    struct ew_onnx_out *o;
    const char *base; /* the op's output */
    const char *at;   /* what the chain has come to */
};

static ew_status step(struct chain *c, const char *op_type, const char *name, const char *other)
{
    const char *out = ew_onnx_step(c->o, c->base, name);

    if (!out)
        return ew_onnx_out_no_memory(c->o);
    EW_TRY(ew_onnx_put_simple(c->o, op_type, c->at, other, out));
    c->at = out;
    return EW_STATUS_OK;
}

static ew_status step_scalar(struct chain *c, const char *op_type, const char *name, float v)
{
    const char *constant = ew_arena_printf(&c->o->arena, "%s#%s_by", c->base, name);

    EW_TRY(ew_onnx_put_f32(c->o, constant, v));
    return step(c, op_type, name, constant);
}

/* The last node of the chain gives the op's own output; its name keeps the step. */
static void end_chain(struct chain *c)
{
    Onnx__NodeProto *last = c->o->nodes.at[c->o->nodes.n - 1];

    last->output[0] = (char *)(uintptr_t)c->base;
}

static ew_status put_act(struct chain *c, int act)
{
    const char *x = c->at;

    switch (act) {
    case EW_ACT_SILU:
        EW_TRY(step(c, "Sigmoid", "act_sigmoid", NULL));
        return step(c, "Mul", "act", x);
    case EW_ACT_GELU_TANH: {
        EW_TRY(step(c, "Gelu", "act", NULL));
        Onnx__NodeProto *p = c->o->nodes.at[c->o->nodes.n - 1];
        return ew_onnx_put_text(c->o, p, "approximate", "tanh") ? EW_STATUS_OK
                                                                : ew_onnx_out_no_memory(c->o);
    }
    case EW_ACT_GELU_ERF:
        return step(c, "Gelu", "act", NULL);
    case EW_ACT_RELU:
        return step(c, "Relu", "act", NULL);
    case EW_ACT_RELU2:
        EW_TRY(step(c, "Relu", "act_relu", NULL));
        return step(c, "Mul", "act", c->at);
    default:
        return EW_STATUS_OK;
    }
}

/* Columns [gate; up] -> act(gate) * up. */
static ew_status put_glu(struct chain *c, int act)
{
    const char *out[2] = { ew_onnx_step(c->o, c->base, "gate"), ew_onnx_step(c->o, c->base, "up") };
    Onnx__NodeProto *p = ew_onnx_put_node(c->o, "Split", out[0], &c->at, 1, out, 2);

    if (!p || !ew_onnx_put_int(c->o, p, "axis", -1) || !ew_onnx_put_int(c->o, p, "num_outputs", 2))
        return ew_onnx_out_no_memory(c->o);
    c->at = out[0];
    EW_TRY(put_act(c, act));
    return step(c, "Mul", "glu", out[1]);
}

/* Name of the weight as MatMul's right side: [K,N] in x's dtype. */
static ew_status put_weight(struct ew_onnx_out *o, const struct ew_value *w, ew_dtype dtype,
                            const char **out)
{
    const char *name = ew_onnx_step(o, w->name, "t"), *from = w->name;
    static const int64_t perm[2] = { 1, 0 };

    if (ew_const_quant(w))
        from = ew_onnx_step(o, w->name, "f32");
    if (!name || !from)
        return ew_onnx_out_no_memory(o);
    if (!(o->const_done[w->id] & EW_ONNX_DONE_TRANSPOSED)) {
        o->const_done[w->id] |= EW_ONNX_DONE_TRANSPOSED;
        if (ew_const_quant(w)) {
            o->const_done[w->id] |= EW_ONNX_DONE_VALUE;
            EW_TRY(ew_onnx_save_dequantized(o, w, from));
        }
        Onnx__NodeProto *p = ew_onnx_put_node(o, "Transpose", name, &from, 1, &name, 1);
        if (!p || !ew_onnx_put_ints(o, p, "perm", perm, 2))
            return ew_onnx_out_no_memory(o);
    }
    return as_dtype(o, w, name, dtype, out);
}

/* x W^T */
static ew_status put_product(struct chain *c, const struct ew_node *n)
{
    const char *out = ew_onnx_step(c->o, c->base, "linear"), *other;
    bool done = false;

    if (!out)
        return ew_onnx_out_no_memory(c->o);
    EW_TRY(ew_onnx_save_x_quant(c->o, n, &c->at));
    if (ew_const_quant(n->in[1]))
        EW_TRY(ew_onnx_save_int4(c->o, n->in[1], c->at, out, &done));
    if (done) {
        c->at = out;
        return EW_STATUS_OK;
    }
    EW_TRY(put_weight(c->o, n->in[1], n->in[0]->type.dtype, &other));
    return step(c, "MatMul", "linear", other);
}

ew_status ew_onnx_save_linear(struct ew_onnx_out *o, const struct ew_node *n)
{
    const struct ew_attr_linear *a = &n->attrs.linear;
    const ew_dtype dtype = n->in[0]->type.dtype;
    struct chain c = { o, n->out[0]->name, n->in[0]->name };
    const char *other;

    EW_TRY(put_product(&c, n));
    if (n->n_in > 2 && n->in[2]) {
        EW_TRY(as_dtype(o, n->in[2], n->in[2]->name, dtype, &other));
        EW_TRY(step(&c, "Add", "bias", other));
    }
    if (a->scale < 1.0f || a->scale > 1.0f)
        EW_TRY(step_scalar(&c, "Mul", "scale", a->scale));
    if (a->softcap > 0) {
        EW_TRY(step_scalar(&c, "Div", "cap_div", a->softcap));
        EW_TRY(step(&c, "Tanh", "cap_tanh", NULL));
        EW_TRY(step_scalar(&c, "Mul", "cap", a->softcap));
    }
    if (a->glu)
        EW_TRY(put_glu(&c, a->act));
    else
        EW_TRY(put_act(&c, a->act));
    if (n->n_in > 3 && n->in[3])
        EW_TRY(step(&c, "Add", "residual", n->in[3]->name));
    end_chain(&c);
    return EW_STATUS_OK;
}

static ew_status put_norm(struct chain *c, const char *name, const char *weight, float eps)
{
    EW_TRY(step(c, "RMSNormalization", name, weight));
    Onnx__NodeProto *p = c->o->nodes.at[c->o->nodes.n - 1];
    return ew_onnx_put_int(c->o, p, "axis", -1) && ew_onnx_put_float(c->o, p, "epsilon", eps)
               ? EW_STATUS_OK
               : ew_onnx_out_no_memory(c->o);
}

ew_status ew_onnx_save_rms_norm(struct ew_onnx_out *o, const struct ew_node *n)
{
    struct chain c = { o, n->out[0]->name, n->in[0]->name };
    const char *weight;

    EW_TRY(as_dtype(o, n->in[1], n->in[1]->name, n->in[0]->type.dtype, &weight));
    EW_TRY(put_norm(&c, "rms", weight, n->attrs.fused_rms_norm.epsilon));
    if (n->n_in > 2 && n->in[2])
        EW_TRY(step(&c, "Add", "rms_residual", n->in[2]->name));
    end_chain(&c);
    return EW_STATUS_OK;
}

ew_status ew_onnx_save_swish(struct ew_onnx_out *o, const struct ew_node *n)
{
    struct chain c = { o, n->out[0]->name, n->in[0]->name };
    const float alpha = n->attrs.alpha.alpha;

    if (alpha < 1.0f || alpha > 1.0f)
        EW_TRY(step_scalar(&c, "Mul", "swish_alpha", alpha));
    EW_TRY(step(&c, "Sigmoid", "swish_sigmoid", NULL));
    EW_TRY(step(&c, "Mul", "swish", n->in[0]->name));
    end_chain(&c);
    return EW_STATUS_OK;
}

/* ---- attention ---- */

/* x [B,S,H*D] -> norm over each head's D values, or over all of them. */
static ew_status put_qk_norm(struct ew_onnx_out *o, const struct ew_node *n, int i,
                             const char **name)
{
    const struct ew_attr_kv_attention *a = &n->attrs.kv_attention;
    const bool is_q = i == 0, full = a->qk_norm == EW_QK_NORM_FULL;
    const int64_t heads = is_q ? a->num_q_heads : a->num_kv_heads;
    const int64_t split[4] = { 0, 0, heads, a->head_size },
                  flat[3] = { 0, 0, heads * a->head_size };
    struct chain c = { o, n->out[0]->name, *name };
    const struct ew_value *w = n->in[9 + i];
    const char *weight, *shape;

    EW_TRY(as_dtype(o, w, w->name, n->in[0]->type.dtype, &weight));
    if (!full) {
        shape = ew_onnx_step(o, c.base, is_q ? "q_heads" : "k_heads");
        EW_TRY(ew_onnx_put_i64s(o, shape, split, 4));
        EW_TRY(step(&c, "Reshape", is_q ? "q_in" : "k_in", shape));
    }
    EW_TRY(put_norm(&c, is_q ? "q_norm" : "k_norm", weight, a->qk_norm_eps));
    if (!full) {
        shape = ew_onnx_step(o, c.base, is_q ? "q_row" : "k_row");
        EW_TRY(ew_onnx_put_i64s(o, shape, flat, 3));
        EW_TRY(step(&c, "Reshape", is_q ? "q_out" : "k_out", shape));
    }
    *name = c.at;
    return EW_STATUS_OK;
}

static ew_status put_qkv_split(struct ew_onnx_out *o, const struct ew_node *n, const char **qkv)
{
    const struct ew_attr_kv_attention *a = &n->attrs.kv_attention;
    const int64_t nkv = a->num_kv_heads * a->head_size;
    const int64_t sizes[3] = { a->num_q_heads * a->head_size, nkv, nkv };
    const char *base = n->out[0]->name, *in[2];

    in[0] = n->in[0]->name;
    in[1] = ew_onnx_step(o, base, "qkv_sizes");
    EW_TRY(ew_onnx_put_i64s(o, in[1], sizes, 3));
    qkv[0] = ew_onnx_step(o, base, "q");
    qkv[1] = ew_onnx_step(o, base, "k");
    qkv[2] = ew_onnx_step(o, base, "v");
    Onnx__NodeProto *p =
        ew_onnx_put_node(o, "Split", ew_onnx_step(o, base, "qkv_split"), in, 2, qkv, 3);
    return p && ew_onnx_put_int(o, p, "axis", 2) ? EW_STATUS_OK : ew_onnx_out_no_memory(o);
}

/* The q, k, v inputs of the plugin: one name or three. */
static ew_status put_qkv(struct ew_onnx_out *o, const struct ew_node *n, const char **qkv,
                         size_t *n_qkv)
{
    const struct ew_attr_kv_attention *a = &n->attrs.kv_attention;
    const bool want_split = o->flags & EW_ONNX_SPLIT_QKV;

    *n_qkv = want_split ? 3 : 1;
    if (a->packed_qkv && !want_split && a->qk_norm == EW_QK_NORM_NONE) {
        qkv[0] = n->in[0]->name;
        return EW_STATUS_OK;
    }
    if (a->packed_qkv)
        EW_TRY(put_qkv_split(o, n, qkv));
    else
        for (int i = 0; i < 3; i++)
            qkv[i] = n->in[i]->name;
    for (int i = 0; i < 2 && a->qk_norm != EW_QK_NORM_NONE; i++)
        EW_TRY(put_qk_norm(o, n, i, &qkv[i]));
    if (want_split)
        return EW_STATUS_OK;
    const char *packed = ew_onnx_step(o, n->out[0]->name, "qkv");
    Onnx__NodeProto *p = packed ? ew_onnx_put_node(o, "Concat", packed, qkv, 3, &packed, 1) : NULL;
    qkv[0] = packed;
    return p && ew_onnx_put_int(o, p, "axis", -1) ? EW_STATUS_OK : ew_onnx_out_no_memory(o);
}

/* A layer that encodes no positions reads no rope table, but the contract has one in that place. */
static const char *rope_name(const struct ew_onnx_out *o, const struct ew_node *n)
{
    if (n->in[5])
        return n->in[5]->name;
    for (size_t i = 0; i < o->g->n_inputs; i++)
        if (strncmp(o->g->inputs[i]->name, "rope_rotary_cos_sin", 19) == 0)
            return o->g->inputs[i]->name;
    return NULL;
}

/* Scales of K and V of the cache, where each is the same for all heads. */
static bool one_scale_each(const struct ew_value *v, int64_t heads, float out[2])
{
    if (!v->is_const || !v->con.data)
        return false;
    const float *s = v->con.data;
    for (int64_t i = 0; i < 2 * heads; i++)
        if (memcmp(&s[i], &s[i / heads * heads], sizeof(*s)) != 0)
            return false;
    out[0] = s[0];
    out[1] = s[heads];
    return true;
}

/* Scales of q, k and v; those that no cache reads may be left out. */
static ew_status put_scales(struct ew_onnx_out *o, Onnx__NodeProto *p, const struct ew_node *n,
                            bool is_fp8)
{
    const struct ew_value *v = n->n_in > 12 ? n->in[12] : NULL;
    float scales[3] = { 1, 1, 1 };

    if (v && !one_scale_each(v, n->attrs.kv_attention.num_kv_heads, scales + 1)) {
        if (is_fp8)
            return ew_fail(o->err, EW_STATUS_UNSUPPORTED,
                           "node '%s': scales '%s' of the cache differ between heads; the "
                           "attribute qkv_scales has one for all",
                           n->name, v->name);
        return EW_STATUS_OK;
    }
    if (!v)
        return EW_STATUS_OK;
    return ew_onnx_put_floats(o, p, "qkv_scales", scales, 3) ? EW_STATUS_OK
                                                             : ew_onnx_out_no_memory(o);
}

static ew_status put_plugin_attrs(struct ew_onnx_out *o, Onnx__NodeProto *p,
                                  const struct ew_node *n)
{
    const struct ew_attr_kv_attention *a = &n->attrs.kv_attention;
    const bool is_fp8 = n->in[3]->type.dtype == EW_DTYPE_F8E4M3;
    bool ok = ew_onnx_put_int(o, p, "num_q_heads", a->num_q_heads) &&
              ew_onnx_put_int(o, p, "num_kv_heads", a->num_kv_heads) &&
              ew_onnx_put_int(o, p, "head_size", a->head_size) &&
              ew_onnx_put_int(o, p, "enable_tree_attention", a->enable_tree_attention) &&
              ew_onnx_put_int(o, p, "enable_fp8_kv_cache", is_fp8);

    if (ok && a->sliding_window_size != -1)
        ok = ew_onnx_put_int(o, p, "sliding_window_size", a->sliding_window_size);
    if (ok && a->attention_scale > 0)
        ok = ew_onnx_put_float(o, p, "attention_scale", a->attention_scale);
    if (ok && a->softcap > 0)
        ok = ew_onnx_put_float(o, p, "attention_softcap", a->softcap);
    if (ok && !a->use_rope)
        ok = ew_onnx_put_int(o, p, "use_rope", 0);
    if (ok && a->qk_norm != EW_QK_NORM_NONE)
        ok = ew_onnx_put_int(o, p, "qk_norm", a->qk_norm);
    return ok ? put_scales(o, p, n, is_fp8) : ew_onnx_out_no_memory(o);
}

ew_status ew_onnx_save_attention(struct ew_onnx_out *o, const struct ew_node *n)
{
    const struct ew_attr_kv_attention *a = &n->attrs.kv_attention;
    const int64_t flat[3] = { 0, 0, a->num_q_heads * a->head_size };
    const char *in[9], *out[2], *base = n->out[0]->name;
    size_t n_in;

    if (n->n_in < 7 || !n->in[6] || !rope_name(o, n) || (n->n_in > 11 && n->in[11]))
        return ew_fail(
            o->err, EW_STATUS_UNSUPPORTED,
            "node '%s': attention without rope table or start index, or with sinks, has no "
            "form in the contract",
            n->name);
    if (n->in[3]->type.dtype == EW_DTYPE_I8)
        return ew_fail(o->err, EW_STATUS_UNSUPPORTED,
                       "node '%s': an i8 cache, whose rows carry their scales, has no form in the "
                       "contract",
                       n->name);
    EW_TRY(put_qkv(o, n, in, &n_in));
    in[n_in++] = n->in[3]->name;
    in[n_in++] = n->in[4]->name;
    in[n_in++] = rope_name(o, n);
    in[n_in++] = n->in[6]->name;
    for (int i = 7; i < 9 && a->enable_tree_attention && i < n->n_in && n->in[i]; i++)
        in[n_in++] = n->in[i]->name;
    out[0] = ew_onnx_step(o, base, "heads");
    out[1] = n->out[1]->name;
    Onnx__NodeProto *p = ew_onnx_put_node(o, "AttentionPlugin", n->name, in, n_in, out, 2);
    if (!p)
        return ew_onnx_out_no_memory(o);
    p->domain = (char *)(uintptr_t)EW_ONNX_PLUGIN_DOMAIN;
    o->uses_plugin = true;
    EW_TRY(put_plugin_attrs(o, p, n));
    const char *shape = ew_onnx_step(o, base, "row");
    EW_TRY(ew_onnx_put_i64s(o, shape, flat, 3));
    return ew_onnx_put_simple(o, "Reshape", out[0], shape, base);
}

ew_status ew_onnx_save_moe(struct ew_onnx_out *o, const struct ew_node *n)
{
    const struct ew_attr_moe *a = &n->attrs.moe;
    static const char *const acts[] = { "none", "silu", "gelu_tanh", "gelu_erf", "relu", "relu2" };
    const char *in[4] = { n->in[0]->name, n->in[1]->name, n->in[2]->name, n->in[3]->name };
    Onnx__NodeProto *p = ew_onnx_put_node(o, "Moe", n->name, in, 4, &n->out[0]->name, 1);

    if (!p || !ew_onnx_put_int(o, p, "top_k", a->top_k) ||
        !ew_onnx_put_int(o, p, "norm_topk", a->norm_topk) ||
        !ew_onnx_put_text(o, p, "act", acts[a->act]))
        return ew_onnx_out_no_memory(o);
    p->domain = (char *)(uintptr_t)EW_ONNX_OWN_DOMAIN;
    o->uses_own = true;
    return EW_STATUS_OK;
}

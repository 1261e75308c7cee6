/* onnx/import_llm.c - plugin ops of the LLM contract, matched by op type whatever the domain.
 *
 * AttentionPlugin in both its forms (one packed qkv, or q, k and v) becomes KvAttention. The other
 * plugins of the reference system are refused by name. Our own `Moe` (domain edgewise) comes back
 * as it left. */
#include <math.h>
#include <string.h>

#include "onnx/onnx_int.h"

struct plugin {
    struct ew_value *x[16]; /* given inputs, empty optional ones stripped */
    int n_x;
    bool is_packed;
    bool is_fp8;
    const float *scales; /* of K and V of an fp8 cache; NULL: 1 */
    float scales_attr[2];
    union ew_attrs attrs;
};

static ew_status read_flag(struct ew_onnx_node *n, const char *name, int64_t fallback, int64_t *out)
{
    EW_TRY(ew_onnx_attr_int(n, name, fallback, out));
    return *out == 0 || *out == 1
               ? EW_STATUS_OK
               : ew_onnx_refuse(n, "attribute %s = %lld is not 0 or 1", name, (long long)*out);
}

static ew_status read_heads(struct ew_onnx_node *n, const char *name, int64_t *out)
{
    EW_TRY(ew_onnx_attr_int(n, name, 0, out));
    return *out > 0 && *out <= 65536
               ? EW_STATUS_OK
               : ew_onnx_refuse(n, "attribute %s = %lld is missing or out of range", name,
                                (long long)*out);
}

/* Attributes of edgewise alone, written only when they say something. */
static ew_status read_own_attrs(struct ew_onnx_node *n, struct ew_attr_kv_attention *a)
{
    int64_t norm, rope;

    EW_TRY(ew_onnx_attr_float(n, "attention_softcap", 0, &a->softcap));
    EW_TRY(read_flag(n, "use_rope", 1, &rope));
    EW_TRY(ew_onnx_attr_int(n, "qk_norm", 0, &norm));
    if (norm < 0 || norm > EW_QK_NORM_FULL)
        return ew_onnx_refuse(n, "attribute qk_norm = %lld is not supported", (long long)norm);
    a->use_rope = (int32_t)rope;
    a->qk_norm = (int32_t)norm; /* a hint until restore.c has found the norms */
    return EW_STATUS_OK;
}

/* Scales of q, k and v of an fp8 cache. A quantised query there is none. */
static ew_status read_scales(struct ew_onnx_node *n, struct plugin *p)
{
    const Onnx__AttributeProto *a = ew_onnx_attr(n, "qkv_scales");

    if (!a || (!p->is_fp8 && a->n_floats == 0))
        return EW_STATUS_OK;
    if (a->n_floats != 3)
        return ew_onnx_refuse(n, "attribute qkv_scales has %zu floats, not 3", a->n_floats);
    for (int i = 0; i < 2; i++) {
        p->scales_attr[i] = a->floats[1 + i];
        if (!isfinite(p->scales_attr[i]) || p->scales_attr[i] <= 0)
            return ew_onnx_refuse(n, "attribute qkv_scales holds %g", (double)p->scales_attr[i]);
    }
    if (p->is_fp8 || p->scales_attr[0] != 1.0f || p->scales_attr[1] != 1.0f)
        p->scales = p->scales_attr;
    return EW_STATUS_OK;
}

static ew_status read_attrs(struct ew_onnx_node *n, struct plugin *p)
{
    struct ew_attr_kv_attention *a = &p->attrs.kv_attention;
    int64_t tree, fp8, vision;

    ew_op_attrs_init(EW_OP_KV_ATTENTION, &p->attrs);
    EW_TRY(read_heads(n, "num_q_heads", &a->num_q_heads));
    EW_TRY(read_heads(n, "num_kv_heads", &a->num_kv_heads));
    EW_TRY(read_heads(n, "head_size", &a->head_size));
    EW_TRY(read_flag(n, "enable_tree_attention", 0, &tree));
    EW_TRY(read_flag(n, "enable_fp8_kv_cache", 0, &fp8));
    EW_TRY(read_flag(n, "enable_vision_block_attention", 0, &vision));
    if (vision)
        return ew_onnx_refuse(n, "attribute enable_vision_block_attention = 1 is not supported");
    a->enable_tree_attention = (int32_t)tree;
    p->is_fp8 = fp8 != 0;
    (void)ew_onnx_attr(n, "_outputs"); /* torch's exporter: how many outputs the node has */
    EW_TRY(read_scales(n, p));
    EW_TRY(ew_onnx_attr_int(n, "sliding_window_size", -1, &a->sliding_window_size));
    if (a->sliding_window_size < 1 && a->sliding_window_size != -1)
        return ew_onnx_refuse(n, "attribute sliding_window_size = %lld is not supported",
                              (long long)a->sliding_window_size);
    EW_TRY(ew_onnx_attr_float(n, "attention_scale", 0, &a->attention_scale));
    EW_TRY(read_own_attrs(n, a));
    return ew_onnx_attrs_all_used(n);
}

/* k_v_scale_quant_orig f32[2], the last input before 0.7. */
static ew_status take_scale_input(struct ew_onnx_node *n, struct plugin *p)
{
    const struct ew_value *v = p->x[p->n_x - 1];

    if (!p->is_fp8 || v->type.n_dims != 1 || v->type.dtype != EW_DTYPE_F32)
        return EW_STATUS_OK;
    if (!v->is_const || !v->con.data || v->type.dim[0] != 2)
        return ew_onnx_refuse(n, "scales '%s' of the cache are not a constant of 2 floats",
                              v->name);
    p->scales = p->scales_attr;
    memcpy(p->scales_attr, v->con.data, sizeof(p->scales_attr));
    for (int i = 0; i < 2; i++)
        if (!isfinite(p->scales[i]) || p->scales[i] <= 0)
            return ew_onnx_refuse(n, "scales '%s' of the cache hold %g", v->name,
                                  (double)p->scales[i]);
    p->n_x--;
    return EW_STATUS_OK;
}

/* One scale of K and one of V -> [2, heads]. NULL: out of memory. */
static struct ew_value *scales_const(const struct ew_onnx_node *n, const struct plugin *p)
{
    const int64_t heads = p->attrs.kv_attention.num_kv_heads, dims[2] = { 2, heads };
    const struct ew_type type = ew_type_make(EW_DTYPE_F32, 2, dims);
    const char *name = ew_arena_printf(&n->in->g->arena, "%s/kv_scales", n->p->name);
    float *v = ew_arena_calloc(&n->in->g->arena, 2 * (size_t)heads, sizeof(*v));

    for (int64_t i = 0; v && i < 2 * heads; i++)
        v[i] = p->scales[i / heads];
    return name && v ? ew_graph_add_const(n->in->g, name, &type, v, false) : NULL;
}

static ew_status read_inputs(struct ew_onnx_node *n, struct plugin *p)
{
    const struct ew_attr_kv_attention *a = &p->attrs.kv_attention;

    for (int i = 0; i < n->n_x; i++) {
        if (n->x[i] && p->n_x == (int)EW_COUNT(p->x))
            return ew_onnx_refuse(n, "%d inputs are not supported", n->n_x);
        if (n->x[i])
            p->x[p->n_x++] = n->x[i];
    }
    if (p->n_x > 0)
        EW_TRY(take_scale_input(n, p));
    p->is_packed = p->n_x >= 2 && p->x[1]->type.n_dims == 5;
    const int want = (p->is_packed ? 5 : 7) + (a->enable_tree_attention ? 2 : 0);
    if (p->n_x != want)
        return ew_onnx_refuse(n, "%d inputs, the %s form%s has %d", p->n_x,
                              p->is_packed ? "packed" : "split",
                              a->enable_tree_attention ? " with a tree" : "", want);
    if (!p->is_packed && p->x[3]->type.n_dims != 5)
        return ew_onnx_refuse(n, "no past_key_value of 5 dims among inputs 1 and 3");
    const ew_dtype cache = p->x[p->is_packed ? 1 : 3]->type.dtype;
    if (p->is_fp8 != (cache == EW_DTYPE_F8E4M3))
        return ew_onnx_refuse(n, "a cache of %s with enable_fp8_kv_cache = %d",
                              ew_dtype_text(cache), p->is_fp8);
    return EW_STATUS_OK;
}

/* [B,S,Hq*D] -> [B,S,Hq,D], what the plugin gives; 0 copies a dim. */
static ew_status emit_heads(struct ew_onnx_node *n, struct ew_value *flat,
                            const struct ew_attr_kv_attention *a)
{
    const int64_t shape[4] = { 0, 0, a->num_q_heads, a->head_size };
    struct ew_value *x[2] = { flat, ew_onnx_const_ints(n, "heads", shape, 4) };
    struct ew_node *node;

    if (!x[1])
        return ew_onnx_no_memory(n);
    EW_TRY(ew_onnx_emit(n, "split", EW_OP_RESHAPE, NULL, x, 2, 1, &node));
    return ew_onnx_set_output(n, 0, node->out[0]);
}

static ew_status import_attention(struct ew_onnx_node *n)
{
    struct plugin p = { .n_x = 0 };
    struct ew_value *x[13] = { NULL };
    struct ew_node *node;

    EW_TRY(read_attrs(n, &p));
    EW_TRY(read_inputs(n, &p));
    p.attrs.kv_attention.packed_qkv = p.is_packed;
    const int n_qkv = p.is_packed ? 1 : 3;
    for (int i = 0; i < n_qkv; i++)
        x[i] = p.x[i];
    for (int i = n_qkv; i < p.n_x; i++)
        x[3 + i - n_qkv] = p.x[i];
    if (p.scales) {
        x[12] = scales_const(n, &p);
        if (!x[12])
            return ew_onnx_no_memory(n);
    }
    if (ew_onnx_n_outputs(n) > 2)
        return ew_onnx_refuse(n, "%d outputs, at most 2 are supported", ew_onnx_n_outputs(n));
    /* The norms that qk_norm promises are still nodes of their own: restore.c folds them in. */
    const int32_t norm = p.attrs.kv_attention.qk_norm;
    p.attrs.kv_attention.qk_norm = EW_QK_NORM_NONE;
    EW_TRY(ew_onnx_emit(n, "", EW_OP_KV_ATTENTION, &p.attrs, x, x[12] ? 13 : 3 + p.n_x - n_qkv, 2,
                        &node));
    node->attrs.kv_attention.qk_norm = norm;
    node->out[1]->alias_of = x[3];
    EW_TRY(ew_onnx_set_output(n, 1, node->out[1]));
    return emit_heads(n, node->out[0], &p.attrs.kv_attention);
}

static ew_status import_moe(struct ew_onnx_node *n)
{
    union ew_attrs attrs;

    if (strcmp(n->p->domain, EW_ONNX_OWN_DOMAIN) != 0)
        return ew_onnx_refuse(n, "op %s::Moe is not supported", n->p->domain);
    ew_op_attrs_init(EW_OP_MOE, &attrs);
    return ew_onnx_emit_main(n, EW_OP_MOE, &attrs, n->x, n->n_x);
}

static ew_status refuse_plugin(struct ew_onnx_node *n)
{
    return ew_onnx_refuse(n, "plugin %s is not supported", n->p->op_type);
}

const struct ew_onnx_special ew_onnx_plugin_ops[] = {
    { "AttentionPlugin", import_attention },
    { "Int4MoePlugin", refuse_plugin },
    { "Moe", import_moe },
    { "Nvfp4MoePlugin", refuse_plugin },
    { "ViTAttentionPlugin", refuse_plugin },
    { NULL, NULL },
};

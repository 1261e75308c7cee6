/* onnx/save_ops.c - IR nodes to ONNX nodes: through the op table's schema when the op is ONNX's, by
 * save_llm.c when it is taken apart. Also the small functions that put nodes and attributes
 * together. */
#include <string.h>

#include "onnx/save_int.h"

ew_status ew_onnx_out_no_memory(struct ew_onnx_out *o)
{
    return ew_fail(o->err, EW_STATUS_NO_MEMORY, "no memory to write the model");
}

const char *ew_onnx_step(struct ew_onnx_out *o, const char *base, const char *step)
{
    return ew_arena_printf(&o->arena, "%s#%s", base, step);
}

/* ---- nodes and attributes ---- */

static char **copy_names(struct ew_onnx_out *o, const char *const *names, size_t n)
{
    char **own = ew_arena_new(&o->arena, char *, n + 1);

    for (size_t i = 0; own && i < n; i++) {
        own[i] = ew_arena_strdup(&o->arena, names[i] ? names[i] : "");
        if (!own[i])
            return NULL;
    }
    return own;
}

bool ew_onnx_list_push(struct ew_onnx_list *list, void *item)
{
    if (list->n == list->cap) {
        const size_t cap = list->cap ? 2 * list->cap : 256;
        void **at = ew_mem_resize(EW_MEM_ONNX, list->at, cap, sizeof(void *));
        if (!at)
            return false;
        list->at = at;
        list->cap = cap;
    }
    list->at[list->n++] = item;
    return true;
}

Onnx__NodeProto *ew_onnx_put_node(struct ew_onnx_out *o, const char *op_type, const char *name,
                                  const char *const *in, size_t n_in, const char *const *out,
                                  size_t n_out)
{
    Onnx__NodeProto *p = ew_arena_new(&o->arena, Onnx__NodeProto, 1);

    for (size_t i = 0; i < n_out; i++)
        if (!out[i])
            return NULL;
    if (!p || !name)
        return NULL;
    onnx__node_proto__init(p);
    p->op_type = ew_arena_strdup(&o->arena, op_type);
    p->name = ew_arena_strdup(&o->arena, name);
    p->input = copy_names(o, in, n_in);
    p->output = copy_names(o, out, n_out);
    p->attribute = ew_arena_new(&o->arena, Onnx__AttributeProto *, EW_ONNX_MAX_ATTRS);
    if (!p->op_type || !p->name || !p->input || !p->output || !p->attribute ||
        !ew_onnx_list_push(&o->nodes, p))
        return NULL;
    p->n_input = n_in;
    p->n_output = n_out;
    return p;
}

ew_status ew_onnx_last_domain(struct ew_onnx_out *o, const char *domain)
{
    Onnx__NodeProto *last = o->nodes.at[o->nodes.n - 1];

    last->domain = (char *)(uintptr_t)domain;
    o->uses_plugin = o->uses_plugin || strcmp(domain, EW_ONNX_PLUGIN_DOMAIN) == 0;
    o->uses_own = o->uses_own || strcmp(domain, EW_ONNX_OWN_DOMAIN) == 0;
    o->uses_trt = o->uses_trt || strcmp(domain, EW_ONNX_TRT_DOMAIN) == 0;
    return EW_STATUS_OK;
}

ew_status ew_onnx_put_simple(struct ew_onnx_out *o, const char *op_type, const char *in0,
                             const char *in1, const char *out)
{
    const char *in[2] = { in0, in1 };

    return ew_onnx_put_node(o, op_type, out, in, in1 ? 2 : 1, &out, 1) ? EW_STATUS_OK
                                                                       : ew_onnx_out_no_memory(o);
}

static Onnx__AttributeProto *put_attr(struct ew_onnx_out *o, Onnx__NodeProto *n, const char *name,
                                      Onnx__AttributeProto__AttributeType type)
{
    Onnx__AttributeProto *a = ew_arena_new(&o->arena, Onnx__AttributeProto, 1);

    if (!a || n->n_attribute == EW_ONNX_MAX_ATTRS)
        return NULL;
    onnx__attribute_proto__init(a);
    a->name = ew_arena_strdup(&o->arena, name);
    a->type = type;
    if (!a->name)
        return NULL;
    n->attribute[n->n_attribute++] = a;
    return a;
}

bool ew_onnx_put_int(struct ew_onnx_out *o, Onnx__NodeProto *n, const char *name, int64_t v)
{
    Onnx__AttributeProto *a = put_attr(o, n, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT);

    if (a)
        a->i = v;
    return a != NULL;
}

bool ew_onnx_put_float(struct ew_onnx_out *o, Onnx__NodeProto *n, const char *name, float v)
{
    Onnx__AttributeProto *a = put_attr(o, n, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT);

    if (a)
        a->f = v;
    return a != NULL;
}

bool ew_onnx_put_text(struct ew_onnx_out *o, Onnx__NodeProto *n, const char *name, const char *v)
{
    Onnx__AttributeProto *a = put_attr(o, n, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRING);

    if (!a)
        return false;
    a->s.data = (uint8_t *)ew_arena_strdup(&o->arena, v);
    a->s.len = strlen(v);
    return a->s.data != NULL;
}

bool ew_onnx_put_floats(struct ew_onnx_out *o, Onnx__NodeProto *n, const char *name, const float *v,
                        size_t n_v)
{
    Onnx__AttributeProto *a = put_attr(o, n, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOATS);

    if (!a)
        return false;
    a->floats = ew_arena_new(&o->arena, float, n_v);
    if (!a->floats)
        return false;
    memcpy(a->floats, v, n_v * sizeof(*v));
    a->n_floats = n_v;
    return true;
}

bool ew_onnx_put_ints(struct ew_onnx_out *o, Onnx__NodeProto *n, const char *name, const int64_t *v,
                      size_t n_v)
{
    Onnx__AttributeProto *a = put_attr(o, n, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS);

    if (!a)
        return false;
    a->ints = ew_arena_new(&o->arena, int64_t, n_v + 1);
    if (!a->ints)
        return false;
    memcpy(a->ints, v, n_v * sizeof(*v));
    a->n_ints = n_v;
    return true;
}

bool ew_onnx_put_tensor_attr(struct ew_onnx_out *o, Onnx__NodeProto *n, const char *name,
                             Onnx__TensorProto *t)
{
    Onnx__AttributeProto *a =
        t ? put_attr(o, n, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__TENSOR) : NULL;

    if (a)
        a->t = t;
    return a != NULL;
}

/* ---- attributes by schema ---- */

/* ONNX requires these even where the table has a default. */
static bool is_required(ew_op op, const char *name)
{
    switch (op) {
    case EW_OP_CONCAT:
        return strcmp(name, "axis") == 0;
    case EW_OP_CAST:
        return strcmp(name, "to") == 0;
    case EW_OP_BIT_SHIFT:
        return strcmp(name, "direction") == 0;
    default:
        return false;
    }
}

static bool is_private(const struct ew_node *n, const char *name)
{
    if (strcmp(name, "has_end") == 0 || strcmp(name, "has_scale") == 0)
        return true;
    if (n->op == EW_OP_SHAPE && strcmp(name, "end") == 0)
        return !n->attrs.shape.has_end;
    if (n->op == EW_OP_ATTENTION && strcmp(name, "scale") == 0)
        return !n->attrs.attention.has_scale;
    return false;
}

static bool put_field(struct ew_onnx_out *o, Onnx__NodeProto *p, const struct ew_attr_field *f,
                      const char *at, bool always)
{
    int32_t i32;
    int64_t i64;
    float f32;
    struct ew_ints ints;

    switch (f->type) {
    case EW_FIELD_I32:
    case EW_FIELD_ENUM:
    case EW_FIELD_DTYPE:
        memcpy(&i32, at, sizeof(i32));
        if (!always && i32 == (int32_t)f->fallback)
            return true;
        if (f->type == EW_FIELD_ENUM)
            return ew_onnx_put_text(o, p, f->name, f->names[i32]);
        return ew_onnx_put_int(o, p, f->name,
                               f->type == EW_FIELD_DTYPE ? ew_onnx_data_type((ew_dtype)i32) : i32);
    case EW_FIELD_I64:
        memcpy(&i64, at, sizeof(i64));
        return (!always && i64 == (int64_t)f->fallback) || ew_onnx_put_int(o, p, f->name, i64);
    case EW_FIELD_F32: {
        const float fallback = (float)f->fallback;
        memcpy(&f32, at, sizeof(f32));
        return (!always && memcmp(&f32, &fallback, sizeof(f32)) == 0) ||
               ew_onnx_put_float(o, p, f->name, f32);
    }
    case EW_FIELD_INTS:
        memcpy(&ints, at, sizeof(ints));
        return ints.n == 0 || ew_onnx_put_ints(o, p, f->name, ints.v, (size_t)ints.n);
    case EW_FIELD_TEXT:
        return ew_onnx_put_text(o, p, f->name, at);
    case EW_FIELD_F64:
    case EW_FIELD_PROGRAM:
        break;
    }
    return false;
}

static bool put_fill(struct ew_onnx_out *o, Onnx__NodeProto *p, const struct ew_attr_fill *a)
{
    const int64_t one = 1;
    const struct ew_type type = ew_type_make((ew_dtype)a->dtype, 1, &one);
    uint64_t bytes = 0;

    if (ew_dtype_is_float(type.dtype))
        ew_elem_set_f64(&bytes, type.dtype, 0, a->f);
    else
        ew_elem_set_i64(&bytes, type.dtype, 0, a->i);
    return ew_onnx_put_tensor_attr(o, p, "value", ew_onnx_make_tensor(o, "value", &type, &bytes));
}

static ew_status put_attributes(struct ew_onnx_out *o, const struct ew_node *n, Onnx__NodeProto *p)
{
    bool ok = true;

    if (n->op == EW_OP_CONSTANT_OF_SHAPE)
        ok = put_fill(o, p, &n->attrs.fill);
    else
        for (const struct ew_attr_field *f = ew_op_get(n->op)->fields; f->name && ok; f++) {
            const bool always = is_required(n->op, f->name) || strcmp(f->name, "end") == 0 ||
                                (strcmp(f->name, "scale") == 0 && n->op == EW_OP_ATTENTION);
            if (!is_private(n, f->name))
                ok = put_field(o, p, f, (const char *)&n->attrs + f->offset, always);
        }
    if (ok && n->op == EW_OP_SPLIT && (n->n_in < 2 || !n->in[1]) && !n->attrs.split.num_outputs)
        ok = ew_onnx_put_int(o, p, "num_outputs", n->n_out);
    return ok ? EW_STATUS_OK : ew_onnx_out_no_memory(o);
}

/* ---- a node ---- */

static ew_status save_plain(struct ew_onnx_out *o, const struct ew_node *n)
{
    const char **in = ew_arena_new(&o->arena, const char *, (size_t)n->n_in + 1);
    const char *out[EW_MAX_OUTPUTS];

    if (!in)
        return ew_onnx_out_no_memory(o);
    for (int i = 0; i < n->n_in; i++)
        in[i] = n->in[i] ? n->in[i]->name : NULL;
    for (int i = 0; i < n->n_out; i++)
        out[i] = n->out[i] ? n->out[i]->name : "";
    Onnx__NodeProto *p = ew_onnx_put_node(o, ew_op_get(n->op)->name, n->name, in, (size_t)n->n_in,
                                          out, (size_t)n->n_out);
    return p ? put_attributes(o, n, p) : ew_onnx_out_no_memory(o);
}

static ew_status save_block_quantize(struct ew_onnx_out *o, const struct ew_node *n)
{
    const struct ew_attr_block_quant *a = &n->attrs.block_quant;
    const bool has_factor = n->n_in > 1 && n->in[1];
    const char *in[2] = { n->in[0]->name, has_factor ? n->in[1]->name : NULL };
    const char *out[2] = { n->out[0]->name, n->out[1]->name };

    return ew_onnx_save_block_quantize(o, a->x_quant, a->block, in, has_factor ? 2 : 1, out);
}

static ew_status save_constants(struct ew_onnx_out *o, const struct ew_node *n)
{
    for (int i = 0; i < n->n_in; i++) {
        const struct ew_value *v = n->in[i];

        if (!v || !v->is_const || (ew_const_quant(v) && n->op == EW_OP_LINEAR))
            continue; /* the weight of a Linear is written with it */
        if (n->op == EW_OP_KV_ATTENTION && i == 12)
            continue; /* scales: an attribute of the plugin */
        if (ew_const_quant(v))
            return ew_fail(o->err, EW_STATUS_UNSUPPORTED,
                           "node '%s' (%s): quantised weight '%s' has an ONNX form under Linear "
                           "alone",
                           n->name, ew_op_get(n->op)->name, v->name);
        EW_TRY(ew_onnx_put_const(o, v));
    }
    if (n->op == EW_OP_MOE && n->attrs.moe.x_quant != EW_XQ_NONE)
        return ew_fail(o->err, EW_STATUS_UNSUPPORTED,
                       "node '%s' (Moe): rounding of x before experts has no ONNX form", n->name);
    return EW_STATUS_OK;
}

ew_status ew_onnx_save_node(struct ew_onnx_out *o, const struct ew_node *n)
{
    EW_TRY(save_constants(o, n));
    switch (n->op) {
    case EW_OP_BLOCK_QUANTIZE:
        return save_block_quantize(o, n);
    case EW_OP_LINEAR:
        return ew_onnx_save_linear(o, n);
    case EW_OP_FUSED_RMS_NORM:
        return ew_onnx_save_rms_norm(o, n);
    case EW_OP_SWISH:
        return ew_onnx_save_swish(o, n);
    case EW_OP_KV_ATTENTION:
        return ew_onnx_save_attention(o, n);
    case EW_OP_MOE:
        return ew_onnx_save_moe(o, n);
    case EW_OP_POINTWISE:
        return ew_fail(o->err, EW_STATUS_UNSUPPORTED,
                       "node '%s': a fused pointwise program has no ONNX form", n->name);
    default:
        return save_plain(o, n);
    }
}

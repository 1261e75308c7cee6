/* onnx/import_nn.c - importers of norms, resizing, dropout and the few com.microsoft ops that are
 * other names for ops of the table. */
#include <string.h>

#include "onnx/onnx_int.h"

/* Inference form only: scale and shift with stored statistics. */
static ew_status import_batch_norm(struct ew_onnx_node *n)
{
    union ew_attrs attrs;
    int64_t training, spatial;
    float momentum;

    ew_op_attrs_init(EW_OP_BATCH_NORM, &attrs);
    EW_TRY(ew_onnx_attr_int(n, "training_mode", 0, &training));
    EW_TRY(ew_onnx_attr_int(n, "spatial", 1, &spatial));
    EW_TRY(ew_onnx_attr_float(n, "momentum", 0.9f, &momentum)); /* of training alone */
    if (training != 0 || spatial != 1)
        return ew_onnx_refuse(n, "training_mode %lld, spatial %lld are not supported",
                              (long long)training, (long long)spatial);
    if (ew_onnx_n_outputs(n) > 1)
        return ew_onnx_refuse(n, "running statistics as outputs (training) are not supported");
    return ew_onnx_emit_main(n, EW_OP_BATCH_NORM, &attrs, n->x, n->n_x);
}

/* [G] -> [C], each value repeated C/G times. */
static ew_status spread_groups(struct ew_onnx_node *n, const char *suffix, struct ew_value *v,
                               int64_t groups, int64_t channels, struct ew_value **out)
{
    const int64_t one = 1, wide[2] = { groups, channels / groups };
    char name[3][32];
    struct ew_value *x[2] = { v, NULL };
    struct ew_node *node;

    for (size_t i = 0; i < 3; i++) {
        const char *const step[] = { "axes", "wide", "flat" };
        memcpy(name[i], suffix, strlen(suffix));
        memcpy(name[i] + strlen(suffix), step[i], 5);
    }
    x[1] = ew_onnx_const_ints(n, name[0], &one, 1);
    if (!x[1])
        return ew_onnx_no_memory(n);
    EW_TRY(ew_onnx_emit(n, name[0], EW_OP_UNSQUEEZE, NULL, x, 2, 1, &node));
    x[0] = node->out[0];
    x[1] = ew_onnx_const_ints(n, name[1], wide, 2);
    if (!x[1])
        return ew_onnx_no_memory(n);
    EW_TRY(ew_onnx_emit(n, name[1], EW_OP_EXPAND, NULL, x, 2, 1, &node));
    x[0] = node->out[0];
    x[1] = ew_onnx_const_ints(n, name[2], &channels, 1);
    if (!x[1])
        return ew_onnx_no_memory(n);
    EW_TRY(ew_onnx_emit(n, name[2], EW_OP_RESHAPE, NULL, x, 2, 1, &node));
    *out = node->out[0];
    return EW_STATUS_OK;
}

/* Opset 18 scales per group, opset 21 per channel (what the table means). */
static ew_status import_group_norm(struct ew_onnx_node *n)
{
    struct ew_value *x[3] = { ew_onnx_input(n, 0), ew_onnx_input(n, 1), ew_onnx_input(n, 2) };
    union ew_attrs attrs;
    int64_t groups;

    ew_op_attrs_init(EW_OP_GROUP_NORM, &attrs);
    if (n->n_x != 3 || !x[0] || !x[1] || !x[2])
        return ew_fail(n->in->err, EW_STATUS_MALFORMED, "%d inputs, expected 3", n->n_x);
    EW_TRY(ew_onnx_attr_int(n, "num_groups", 0, &groups));
    attrs.norm.num_groups = groups;
    if (n->in->opset < 21) {
        const int64_t channels = x[0]->type.n_dims > 1 ? x[0]->type.dim[1] : -1;
        if (groups < 1 || channels < groups || channels % groups != 0)
            return ew_onnx_refuse(n, "num_groups %lld with %lld channels", (long long)groups,
                                  (long long)channels);
        EW_TRY(spread_groups(n, "scale_", x[1], groups, channels, &x[1]));
        EW_TRY(spread_groups(n, "bias_", x[2], groups, channels, &x[2]));
    }
    return ew_onnx_emit_main(n, EW_OP_GROUP_NORM, &attrs, x, 3);
}

/* ---- resizing ---- */

/* An empty constant stands for "not given" in opsets 11 and 12. */
static struct ew_value *given(struct ew_value *v)
{
    return v && v->is_const && v->type.n_dims == 1 && v->type.dim[0] == 0 ? NULL : v;
}

static ew_status import_resize(struct ew_onnx_node *n)
{
    struct ew_value *x[4] = { ew_onnx_input(n, 0), NULL, NULL, NULL };
    union ew_attrs attrs;

    ew_op_attrs_init(EW_OP_RESIZE, &attrs);
    if (n->in->opset < 11) { /* X, scales; positions are not shifted */
        if (n->n_x != 2)
            return ew_fail(n->in->err, EW_STATUS_MALFORMED, "%d inputs, expected 2", n->n_x);
        x[2] = ew_onnx_input(n, 1);
        attrs.resize.coord = EW_COORD_ASYMMETRIC;
        attrs.resize.nearest = EW_NEAREST_FLOOR;
        return ew_onnx_emit_main(n, EW_OP_RESIZE, &attrs, x, 4);
    }
    if (n->n_x > 4)
        return ew_onnx_refuse(n, "%d inputs, at most 4 are supported", n->n_x);
    for (int i = 1; i < 4; i++)
        x[i] = given(ew_onnx_input(n, i));
    return ew_onnx_emit_main(n, EW_OP_RESIZE, &attrs, x, 4);
}

static ew_status import_upsample(struct ew_onnx_node *n)
{
    const Onnx__AttributeProto *a = ew_onnx_attr(n, "scales");
    struct ew_value *x[3] = { ew_onnx_input(n, 0), NULL, ew_onnx_input(n, 1) };
    union ew_attrs attrs;
    char mode[16];

    ew_op_attrs_init(EW_OP_RESIZE, &attrs);
    attrs.resize.coord = EW_COORD_ASYMMETRIC;
    attrs.resize.nearest = EW_NEAREST_FLOOR;
    EW_TRY(ew_onnx_attr_text(n, "mode", "nearest", mode, sizeof(mode)));
    if (strcmp(mode, "linear") == 0 || strcmp(mode, "bilinear") == 0)
        attrs.resize.mode = EW_RESIZE_LINEAR;
    else if (strcmp(mode, "nearest") != 0)
        return ew_onnx_refuse(n, "attribute mode = '%s' is not supported", mode);
    if (a && a->type == ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOATS && !x[2]) {
        const int64_t dim = (int64_t)a->n_floats;
        const struct ew_type type = ew_type_make(EW_DTYPE_F32, 1, &dim);
        const char *name = ew_arena_printf(&n->in->g->arena, "%s.scales", n->p->output[0]);
        static const float nothing[1];
        x[2] = name ? ew_graph_add_const(n->in->g, name, &type, a->n_floats ? a->floats : nothing,
                                         true)
                    : NULL;
        if (!x[2])
            return ew_onnx_no_memory(n);
    }
    return ew_onnx_emit_main(n, EW_OP_RESIZE, &attrs, x, 3);
}

/* ---- dropout: the identity at inference ---- */

static bool is_false_const(const struct ew_value *v)
{
    return v->is_const && v->type.dtype == EW_DTYPE_BOOL && v->type.n_dims == 0 && v->con.data &&
           !*(const uint8_t *)v->con.data;
}

static ew_status import_dropout(struct ew_onnx_node *n)
{
    struct ew_value *x = ew_onnx_input(n, 0), *training = ew_onnx_input(n, 2);
    struct ew_node *node;
    union ew_attrs attrs;
    float ratio;
    int64_t seed;

    EW_TRY(ew_onnx_attr_float(n, "ratio", 0.5f, &ratio));
    EW_TRY(ew_onnx_attr_int(n, "seed", 0, &seed));
    EW_TRY(ew_onnx_attrs_all_used(n));
    if (!x || n->n_x > 3 || ew_onnx_n_outputs(n) > 2)
        return ew_fail(n->in->err, EW_STATUS_MALFORMED, "%d inputs and %d outputs", n->n_x,
                       ew_onnx_n_outputs(n));
    if (training && !is_false_const(training))
        return ew_onnx_refuse(n,
                              "training_mode is not a constant false: training is not supported");
    EW_TRY(ew_onnx_emit(n, "", EW_OP_IDENTITY, NULL, &x, 1, 1, &node));
    EW_TRY(ew_onnx_set_output(n, 0, node->out[0]));
    if (ew_onnx_n_outputs(n) < 2)
        return EW_STATUS_OK;
    ew_op_attrs_init(EW_OP_CONSTANT_OF_SHAPE, &attrs);
    attrs.fill.dtype = n->in->opset < 10 ? (int32_t)x->type.dtype : (int32_t)EW_DTYPE_BOOL;
    attrs.fill.f = 1;
    attrs.fill.i = 1;
    EW_TRY(ew_onnx_emit(n, "shape", EW_OP_SHAPE, NULL, &x, 1, 1, &node));
    EW_TRY(ew_onnx_emit(n, "mask", EW_OP_CONSTANT_OF_SHAPE, &attrs, &node->out[0], 1, 1, &node));
    return ew_onnx_set_output(n, 1, node->out[0]);
}

/* ---- com.microsoft ---- */

static ew_status import_ms_gelu(struct ew_onnx_node *n)
{
    union ew_attrs attrs;

    ew_op_attrs_init(EW_OP_GELU, &attrs);
    EW_TRY(ew_onnx_attrs_all_used(n));
    return ew_onnx_emit_main(n, EW_OP_GELU, &attrs, n->x, n->n_x);
}

static ew_status import_ms_fast_gelu(struct ew_onnx_node *n)
{
    struct ew_value *x = ew_onnx_input(n, 0);
    struct ew_node *node;
    union ew_attrs attrs;

    ew_op_attrs_init(EW_OP_GELU, &attrs);
    attrs.gelu.approximate = EW_GELU_TANH;
    EW_TRY(ew_onnx_attrs_all_used(n));
    if (n->n_x == 2 && n->x[0] && n->x[1]) {
        EW_TRY(ew_onnx_emit(n, "biased", EW_OP_ADD, NULL, n->x, 2, 1, &node));
        x = node->out[0];
    } else if (n->n_x != 1) {
        return ew_fail(n->in->err, EW_STATUS_MALFORMED, "%d inputs, expected 1 or 2", n->n_x);
    }
    return ew_onnx_emit_main(n, EW_OP_GELU, &attrs, &x, 1);
}

static ew_status import_ms_quick_gelu(struct ew_onnx_node *n)
{
    union ew_attrs attrs;

    ew_op_attrs_init(EW_OP_SWISH, &attrs);
    attrs.alpha.alpha = 1.702f;
    return ew_onnx_emit_main(n, EW_OP_SWISH, &attrs, n->x, n->n_x);
}

const struct ew_onnx_special ew_onnx_nn_ops[] = {
    { "BatchNormalization", import_batch_norm },
    { "Dropout", import_dropout },
    { "GroupNormalization", import_group_norm },
    { "Resize", import_resize },
    { "Upsample", import_upsample },
    { NULL, NULL },
};

const struct ew_onnx_special ew_onnx_microsoft_ops[] = {
    { "FastGelu", import_ms_fast_gelu },
    { "Gelu", import_ms_gelu },
    { "QuickGelu", import_ms_quick_gelu },
    { NULL, NULL },
};

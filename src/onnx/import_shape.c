/* onnx/import_shape.c - importers of constants, shape, movement and reduction ops whose older forms
 * differ from the op table: axes, sizes and bounds that were attributes become constant inputs. */
#include <string.h>

#include "onnx/onnx_int.h"

/* ---- constants ---- */

static ew_status constant_floats(struct ew_onnx_node *n, const float *v, int n_dims, size_t n_v,
                                 struct ew_value **out)
{
    const int64_t dim = (int64_t)n_v;
    const struct ew_type type = ew_type_make(EW_DTYPE_F32, n_dims, &dim);
    static const float nothing[1];

    *out = ew_graph_add_const(n->in->g, n->p->output[0], &type, n_v ? v : nothing, true);
    return *out ? EW_STATUS_OK : ew_onnx_no_memory(n);
}

static ew_status constant_ints(struct ew_onnx_node *n, const int64_t *v, int n_dims, size_t n_v,
                               struct ew_value **out)
{
    const int64_t dim = (int64_t)n_v;
    const struct ew_type type = ew_type_make(EW_DTYPE_I64, n_dims, &dim);
    static const int64_t nothing[1];

    *out = ew_graph_add_const(n->in->g, n->p->output[0], &type, n_v ? v : nothing, true);
    return *out ? EW_STATUS_OK : ew_onnx_no_memory(n);
}

static ew_status tensor_attr(struct ew_onnx_node *n, const char *name, const Onnx__TensorProto *t,
                             struct ew_type *type, const void **data)
{
    if (!t)
        return ew_fail(n->in->err, EW_STATUS_MALFORMED, "attribute %s has no tensor", name);
    const ew_status st =
        ew_onnx_tensor_read(t, n->in->files, &n->in->g->arena, type, data, n->in->err);
    if (st)
        ew_error_within(n->in->err, "attribute %s", name);
    return st;
}

static ew_status import_constant(struct ew_onnx_node *n)
{
    static const struct {
        const char *name;
        int type;
    } forms[] = { { "value", ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__TENSOR },
                  { "value_float", ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT },
                  { "value_floats", ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOATS },
                  { "value_int", ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT },
                  { "value_ints", ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS } };
    const Onnx__AttributeProto *a = n->p->n_attribute == 1 ? n->p->attribute[0] : NULL;
    struct ew_value *v = NULL;
    struct ew_type type;
    const void *data;
    size_t form = 0;

    if (!a)
        return ew_fail(n->in->err, EW_STATUS_MALFORMED, "expected one attribute, it has %zu",
                       n->p->n_attribute);
    while (form < EW_COUNT(forms) &&
           (strcmp(a->name, forms[form].name) != 0 || (int)a->type != forms[form].type))
        form++;
    switch (form) {
    case 0:
        EW_TRY(tensor_attr(n, a->name, a->t, &type, &data));
        v = ew_graph_add_const(n->in->g, n->p->output[0], &type, data, false);
        if (!v)
            return ew_onnx_no_memory(n);
        break;
    case 1:
        EW_TRY(constant_floats(n, &a->f, 0, 1, &v));
        break;
    case 2:
        EW_TRY(constant_floats(n, a->floats, 1, a->n_floats, &v));
        break;
    case 3:
        EW_TRY(constant_ints(n, &a->i, 0, 1, &v));
        break;
    case 4:
        EW_TRY(constant_ints(n, a->ints, 1, a->n_ints, &v));
        break;
    default:
        return ew_onnx_refuse(n, "attribute %s of this kind is not supported", a->name);
    }
    return ew_onnx_set_output(n, 0, v);
}

static ew_status import_constant_of_shape(struct ew_onnx_node *n)
{
    const Onnx__AttributeProto *a = ew_onnx_attr(n, "value");
    union ew_attrs attrs;
    struct ew_type type;
    const void *data;
    size_t count;

    ew_op_attrs_init(EW_OP_CONSTANT_OF_SHAPE, &attrs);
    if (a) {
        EW_TRY(tensor_attr(n, "value", a->t, &type, &data));
        if (!ew_type_count(&type, &count) || count != 1)
            return ew_fail(n->in->err, EW_STATUS_MALFORMED, "attribute value is not one number");
        attrs.fill.dtype = type.dtype;
        if (ew_dtype_is_float(type.dtype))
            attrs.fill.f = ew_elem_get_f64(data, type.dtype, 0);
        else
            attrs.fill.i = ew_elem_get_i64(data, type.dtype, 0);
    }
    EW_TRY(ew_onnx_attrs_all_used(n));
    return ew_onnx_emit_main(n, EW_OP_CONSTANT_OF_SHAPE, &attrs, n->x, n->n_x);
}

/* ---- attributes that became inputs ---- */

/* Input i of x is the ints of attribute `name` when the node has the attribute. */
static ew_status ints_to_input(struct ew_onnx_node *n, const char *name, struct ew_value **slot)
{
    const int64_t *ints;
    size_t n_ints;

    EW_TRY(ew_onnx_attr_ints(n, name, &ints, &n_ints));
    if (!ints)
        return EW_STATUS_OK;
    if (*slot)
        return ew_fail(n->in->err, EW_STATUS_MALFORMED, "%s is given as attribute and as input",
                       name);
    *slot = ew_onnx_const_ints(n, name, ints, n_ints);
    return *slot ? EW_STATUS_OK : ew_onnx_no_memory(n);
}

/* Data and one int list: Squeeze, Unsqueeze, Split, Reduce*. */
static ew_status import_with_list(struct ew_onnx_node *n, const char *attr)
{
    const ew_op op = ew_op_find(n->p->op_type);
    struct ew_value *x[2] = { ew_onnx_input(n, 0), ew_onnx_input(n, 1) };
    union ew_attrs attrs;

    if (n->n_x > 2)
        return ew_onnx_refuse(n, "%d inputs, at most 2 are supported", n->n_x);
    ew_op_attrs_init(op, &attrs);
    EW_TRY(ints_to_input(n, attr, &x[1]));
    return ew_onnx_emit_main(n, op, &attrs, x, 2);
}

static ew_status import_axes(struct ew_onnx_node *n)
{
    return import_with_list(n, "axes");
}

static ew_status import_split(struct ew_onnx_node *n)
{
    return import_with_list(n, "split");
}

static ew_status import_slice(struct ew_onnx_node *n)
{
    struct ew_value *x[5];
    union ew_attrs attrs;

    if (n->n_x > 5)
        return ew_onnx_refuse(n, "%d inputs, at most 5 are supported", n->n_x);
    for (int i = 0; i < 5; i++)
        x[i] = ew_onnx_input(n, i);
    ew_op_attrs_init(EW_OP_SLICE, &attrs);
    EW_TRY(ints_to_input(n, "starts", &x[1]));
    EW_TRY(ints_to_input(n, "ends", &x[2]));
    EW_TRY(ints_to_input(n, "axes", &x[3]));
    return ew_onnx_emit_main(n, EW_OP_SLICE, &attrs, x, 5);
}

static ew_status float_to_input(struct ew_onnx_node *n, const char *name, struct ew_value **slot)
{
    const Onnx__AttributeProto *a = ew_onnx_attr(n, name);
    float v;

    if (!a)
        return EW_STATUS_OK;
    EW_TRY(ew_onnx_attr_float(n, name, 0, &v));
    if (*slot || !n->n_x || !n->x[0])
        return ew_fail(n->in->err, EW_STATUS_MALFORMED,
                       "%s is given as attribute and as input, or there is no data", name);
    *slot = ew_onnx_const_scalar(n, name, n->x[0]->type.dtype, (double)v);
    return *slot ? EW_STATUS_OK : ew_onnx_no_memory(n);
}

static ew_status import_clip(struct ew_onnx_node *n)
{
    struct ew_value *x[3] = { ew_onnx_input(n, 0), ew_onnx_input(n, 1), ew_onnx_input(n, 2) };
    union ew_attrs attrs;

    if (n->n_x > 3)
        return ew_onnx_refuse(n, "%d inputs, at most 3 are supported", n->n_x);
    ew_op_attrs_init(EW_OP_CLIP, &attrs);
    EW_TRY(float_to_input(n, "min", &x[1]));
    EW_TRY(float_to_input(n, "max", &x[2]));
    return ew_onnx_emit_main(n, EW_OP_CLIP, &attrs, x, 3);
}

static ew_status import_pad(struct ew_onnx_node *n)
{
    struct ew_value *x[4] = { ew_onnx_input(n, 0), ew_onnx_input(n, 1), ew_onnx_input(n, 2),
                              ew_onnx_input(n, 3) };
    union ew_attrs attrs;

    if (n->n_x > 4)
        return ew_onnx_refuse(n, "%d inputs, at most 4 are supported", n->n_x);
    ew_op_attrs_init(EW_OP_PAD, &attrs);
    EW_TRY(ints_to_input(n, "pads", &x[1]));
    EW_TRY(float_to_input(n, "value", &x[2]));
    return ew_onnx_emit_main(n, EW_OP_PAD, &attrs, x, 4);
}

static ew_status import_top_k(struct ew_onnx_node *n)
{
    struct ew_value *x[2] = { ew_onnx_input(n, 0), ew_onnx_input(n, 1) };
    const Onnx__AttributeProto *a = ew_onnx_attr(n, "k");
    union ew_attrs attrs;
    int64_t k;

    if (n->n_x > 2)
        return ew_onnx_refuse(n, "%d inputs, at most 2 are supported", n->n_x);
    ew_op_attrs_init(EW_OP_TOP_K, &attrs);
    if (a) {
        EW_TRY(ew_onnx_attr_int(n, "k", 0, &k));
        x[1] = ew_onnx_const_ints(n, "k", &k, 1);
        if (!x[1])
            return ew_onnx_no_memory(n);
    }
    return ew_onnx_emit_main(n, EW_OP_TOP_K, &attrs, x, 2);
}

/* Scatter is the old name of ScatterElements. */
static ew_status import_scatter(struct ew_onnx_node *n)
{
    union ew_attrs attrs;

    ew_op_attrs_init(EW_OP_SCATTER_ELEMENTS, &attrs);
    return ew_onnx_emit_main(n, EW_OP_SCATTER_ELEMENTS, &attrs, n->x, n->n_x);
}

static ew_status import_cast_like(struct ew_onnx_node *n)
{
    union ew_attrs attrs;

    if (n->n_x != 2 || !n->x[0] || !n->x[1])
        return ew_fail(n->in->err, EW_STATUS_MALFORMED, "%d inputs, expected 2", n->n_x);
    ew_op_attrs_init(EW_OP_CAST, &attrs);
    attrs.cast.to = n->x[1]->type.dtype;
    if (n->in->opset < 19 || ew_onnx_attr(n, "to")) {
        if (n->p->n_attribute)
            return ew_onnx_refuse(n, "attribute %s is not supported", n->p->attribute[0]->name);
    }
    return ew_onnx_emit_main(n, EW_OP_CAST, &attrs, n->x, 1);
}

/* Before opset 13 the softmax family works on the tensor flattened to two dims at `axis` (default
 * 1). */
static ew_status import_softmax(struct ew_onnx_node *n)
{
    const ew_op op = ew_op_find(n->p->op_type);
    struct ew_value *x = ew_onnx_input(n, 0), *back[2];
    struct ew_node *node;
    union ew_attrs attrs;
    int64_t axis;

    ew_op_attrs_init(op, &attrs);
    if (n->in->opset >= 13 || !x)
        return ew_onnx_emit_main(n, op, &attrs, n->x, n->n_x);
    EW_TRY(ew_onnx_attr_int(n, "axis", 1, &axis));
    EW_TRY(ew_onnx_attrs_all_used(n));
    const int rank = x->type.n_dims;
    if (n->n_x != 1 || axis < -rank || axis > rank)
        return ew_fail(n->in->err, EW_STATUS_MALFORMED,
                       "%d inputs, axis %lld of a tensor of %d dims", n->n_x, (long long)axis,
                       rank);
    axis = axis < 0 ? axis + rank : axis;
    attrs.axis.axis = axis;
    if (axis == rank - 1)
        return ew_onnx_emit_main(n, op, &attrs, n->x, n->n_x);
    EW_TRY(ew_onnx_emit(n, "shape", EW_OP_SHAPE, NULL, &x, 1, 1, &node));
    back[1] = node->out[0];
    EW_TRY(ew_onnx_emit(n, "flat", EW_OP_FLATTEN, &attrs, &x, 1, 1, &node));
    attrs.axis.axis = 1;
    EW_TRY(ew_onnx_emit(n, "rows", op, &attrs, &node->out[0], 1, 1, &node));
    back[0] = node->out[0];
    EW_TRY(ew_onnx_emit(n, "", EW_OP_RESHAPE, NULL, back, 2, 1, &node));
    return ew_onnx_set_output(n, 0, node->out[0]);
}

const struct ew_onnx_special ew_onnx_shape_ops[] = {
    { "CastLike", import_cast_like },
    { "Clip", import_clip },
    { "Constant", import_constant },
    { "ConstantOfShape", import_constant_of_shape },
    { "Hardmax", import_softmax },
    { "LogSoftmax", import_softmax },
    { "Pad", import_pad },
    { "ReduceL1", import_axes },
    { "ReduceL2", import_axes },
    { "ReduceLogSum", import_axes },
    { "ReduceLogSumExp", import_axes },
    { "ReduceMax", import_axes },
    { "ReduceMean", import_axes },
    { "ReduceMin", import_axes },
    { "ReduceProd", import_axes },
    { "ReduceSum", import_axes },
    { "ReduceSumSquare", import_axes },
    { "Scatter", import_scatter },
    { "Slice", import_slice },
    { "Softmax", import_softmax },
    { "Split", import_split },
    { "Squeeze", import_axes },
    { "TopK", import_top_k },
    { "Unsqueeze", import_axes },
    { NULL, NULL },
};

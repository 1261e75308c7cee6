/* onnx/import.c - ew_graph_from_onnx: a file to a graph, node by node.
 *
 *   path --load--> model --check header--> inputs, initialisers --nodes (importers)--> outputs
 * --restore--> graph
 *
 * Owns names (ONNX name -> value) and the order of things; what a node means is in import_*.c, or
 * in the op table's schema when ONNX and the table agree. The graph keeps the unpacked model and
 * external files. */
#include "onnx/onnx_int.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define MAX_MODEL_BYTES ((size_t)2 << 30)

/* ---- names ---- */

ew_status ew_onnx_bind(struct ew_onnx_in *in, const char *name, struct ew_value *v)
{
    uint32_t i;

    if (ew_map_find(&in->names, name, strlen(name), &i))
        return ew_fail(in->err, EW_STATUS_MALFORMED, "value '%s' is defined twice", name);
    if (in->n_values == in->cap_values) {
        const size_t cap = in->cap_values ? 2 * in->cap_values : 256;
        struct ew_value **values =
            ew_mem_resize(EW_MEM_ONNX, in->values, cap, sizeof(struct ew_value *));
        if (!values)
            return ew_fail(in->err, EW_STATUS_NO_MEMORY, "no memory for %zu values", cap);
        in->values = values;
        in->cap_values = cap;
    }
    if (in->n_values >= UINT32_MAX ||
        !ew_map_put(&in->names, name, strlen(name), (uint32_t)in->n_values))
        return ew_fail(in->err, EW_STATUS_NO_MEMORY, "no memory for value '%s'", name);
    in->values[in->n_values++] = v;
    return EW_STATUS_OK;
}

static struct ew_value *find_value(const struct ew_onnx_in *in, const char *name)
{
    uint32_t i;

    return ew_map_find(&in->names, name, strlen(name), &i) ? in->values[i] : NULL;
}

/* ---- one node: what importers use ---- */

/* Values are named after output 0: such names are unique in a model, node names need not be. */
static const char *base_name(const struct ew_onnx_node *n)
{
    for (size_t i = 0; i < n->p->n_output; i++)
        if (n->p->output[i][0])
            return n->p->output[i];
    return n->p->op_type;
}

static const char *helper_name(struct ew_onnx_node *n, const char *suffix)
{
    if (!suffix[0])
        return base_name(n);
    return ew_arena_printf(&n->in->g->arena, "%s.%s", base_name(n), suffix);
}

struct ew_value *ew_onnx_input(const struct ew_onnx_node *n, int i)
{
    return i < n->n_x ? n->x[i] : NULL;
}

int ew_onnx_n_outputs(const struct ew_onnx_node *n)
{
    size_t n_out = n->p->n_output;

    while (n_out > 0 && !n->p->output[n_out - 1][0])
        n_out--;
    return (int)n_out;
}

ew_status ew_onnx_set_output(struct ew_onnx_node *n, int i, struct ew_value *v)
{
    if ((size_t)i >= n->p->n_output || !n->p->output[i][0])
        return EW_STATUS_OK;
    return ew_onnx_bind(n->in, n->p->output[i], v);
}

ew_status ew_onnx_no_memory(const struct ew_onnx_node *n)
{
    return ew_fail(n->in->err, EW_STATUS_NO_MEMORY, "no memory");
}

ew_status ew_onnx_refuse(const struct ew_onnx_node *n, const char *fmt, ...)
{
    char text[512];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    return ew_fail(n->in->err, EW_STATUS_UNSUPPORTED, "%s", text);
}

ew_status ew_onnx_emit(struct ew_onnx_node *n, const char *suffix, ew_op op,
                       const union ew_attrs *attrs, struct ew_value *const *x, int n_x, int n_out,
                       struct ew_node **out)
{
    const char *name = helper_name(n, suffix);

    if (!name)
        return ew_onnx_no_memory(n);
    EW_TRY(ew_graph_add_node(n->in->g, op, name, attrs, x, n_x, n_out, out, n->in->err));
    if (!suffix[0] && n->p->name[0])
        (*out)->name = ew_arena_strdup(&n->in->g->arena, n->p->name);
    return (*out)->name ? EW_STATUS_OK : ew_onnx_no_memory(n);
}

ew_status ew_onnx_emit_main(struct ew_onnx_node *n, ew_op op, union ew_attrs *attrs,
                            struct ew_value *const *x, int n_x)
{
    const struct ew_op_info *info = ew_op_get(op);
    int n_out = ew_onnx_n_outputs(n);
    struct ew_node *node;

    EW_TRY(ew_onnx_attrs_by_schema(n, op, attrs));
    while (n_x > 0 && !x[n_x - 1])
        n_x--;
    if (n_x < info->min_in || (info->max_in != EW_VARIADIC && n_x > info->max_in))
        return ew_onnx_refuse(n, "%d inputs, %d to %d are supported", n_x, info->min_in,
                              info->max_in);
    for (int i = 0; i < n_x; i++)
        if (!x[i] && (i < info->min_in || info->max_in == EW_VARIADIC))
            return ew_fail(n->in->err, EW_STATUS_MALFORMED, "input %d is required", i);
    if (n_out > info->max_out)
        return ew_onnx_refuse(n, "output %d ('%s') is not supported, at most %d are", n_out - 1,
                              n->p->output[n_out - 1], info->max_out);
    if (n_out < info->min_out)
        n_out = info->min_out;
    EW_TRY(ew_onnx_emit(n, "", op, attrs, x, n_x, n_out, &node));
    for (int i = 0; i < n_out; i++)
        EW_TRY(ew_onnx_set_output(n, i, node->out[i]));
    return EW_STATUS_OK;
}

struct ew_value *ew_onnx_const_ints(struct ew_onnx_node *n, const char *suffix, const int64_t *v,
                                    size_t n_v)
{
    static const int64_t nothing[1];
    const char *name = helper_name(n, suffix);

    return name ? ew_graph_const_i64(n->in->g, name, v ? v : nothing, n_v) : NULL;
}

struct ew_value *ew_onnx_const_scalar(struct ew_onnx_node *n, const char *suffix, ew_dtype dtype,
                                      double v)
{
    const struct ew_type type = ew_type_make(dtype, 0, NULL);
    const char *name = helper_name(n, suffix);
    uint64_t bytes = 0;

    ew_elem_set_f64(&bytes, dtype, 0, v);
    return name ? ew_graph_add_const(n->in->g, name, &type, &bytes, true) : NULL;
}

/* ---- choosing an importer ---- */

static ew_onnx_importer *find_special(const struct ew_onnx_special *table, const char *op_type)
{
    for (; table->op_type; table++)
        if (strcmp(table->op_type, op_type) == 0)
            return table->import;
    return NULL;
}

/* Ops of the table that are no ONNX operators: a file cannot name them. */
static bool is_internal(ew_op op)
{
    return op == EW_OP_KV_ATTENTION || op == EW_OP_LINEAR || op == EW_OP_FUSED_RMS_NORM ||
           op == EW_OP_MOE || op == EW_OP_POINTWISE || op == EW_OP_BLOCK_QUANTIZE;
}

/* Ops that meant something else before opset 7, and whose attributes would not show it. */
static bool is_too_old(const struct ew_onnx_node *n)
{
    static const char *const changed[] = {
        "BatchNormalization", "Concat", "Dropout", "Gemm", "PRelu", "Selu", NULL
    };

    if (n->in->opset >= 7)
        return false;
    for (size_t i = 0; changed[i]; i++)
        if (strcmp(changed[i], n->p->op_type) == 0)
            return true;
    return false;
}

static ew_status import_op(struct ew_onnx_node *n)
{
    const char *op_type = n->p->op_type, *domain = n->p->domain;
    /* trt::DequantizeLinear is the standard's, with dtypes that its older opsets lack. */
    const bool is_default =
        !domain[0] || strcmp(domain, "ai.onnx") == 0 ||
        (strcmp(domain, EW_ONNX_TRT_DOMAIN) == 0 &&
         (strcmp(op_type, "DequantizeLinear") == 0 || strcmp(op_type, "QuantizeLinear") == 0));
    ew_onnx_importer *import = find_special(ew_onnx_plugin_ops, op_type);
    if (!import)
        import = find_special(ew_onnx_quant_ops, op_type);
    union ew_attrs attrs;

    if (is_default && is_too_old(n))
        return ew_onnx_refuse(n, "op %s of opset %lld is not supported, of 7 and later it is",
                              op_type, (long long)n->in->opset);
    if (!import && is_default) {
        import = find_special(ew_onnx_shape_ops, op_type);
        if (!import)
            import = find_special(ew_onnx_nn_ops, op_type);
    }
    if (!import && strcmp(domain, "com.microsoft") == 0)
        import = find_special(ew_onnx_microsoft_ops, op_type);
    if (import)
        return import(n);
    const ew_op op = is_default ? ew_op_find(op_type) : EW_OP_NONE;
    if (op == EW_OP_NONE || is_internal(op))
        return ew_onnx_refuse(n, "op %s%s%s is not supported", domain, domain[0] ? "::" : "",
                              op_type);
    ew_op_attrs_init(op, &attrs);
    return ew_onnx_emit_main(n, op, &attrs, n->x, n->n_x);
}

static ew_status check_attributes(const struct ew_onnx_node *n)
{
    const Onnx__NodeProto *p = n->p;

    if (p->n_attribute > EW_ONNX_MAX_ATTRS)
        return ew_onnx_refuse(n, "%zu attributes, at most %d are supported", p->n_attribute,
                              EW_ONNX_MAX_ATTRS);
    for (size_t i = 0; i < p->n_attribute; i++) {
        if (p->attribute[i]->ref_attr_name[0])
            return ew_onnx_refuse(n, "attribute %s refers to a function's", p->attribute[i]->name);
        for (size_t j = 0; j < i; j++)
            if (strcmp(p->attribute[i]->name, p->attribute[j]->name) == 0)
                return ew_fail(n->in->err, EW_STATUS_MALFORMED, "attribute %s is given twice",
                               p->attribute[i]->name);
    }
    return EW_STATUS_OK;
}

static ew_status import_inputs(struct ew_onnx_node *n)
{
    const Onnx__NodeProto *p = n->p;

    if (p->n_input > INT32_MAX || p->n_output > EW_MAX_OUTPUTS)
        return ew_onnx_refuse(n, "%zu inputs and %zu outputs", p->n_input, p->n_output);
    n->x = ew_arena_new(&n->in->g->arena, struct ew_value *, p->n_input + 1);
    if (!n->x)
        return ew_onnx_no_memory(n);
    for (size_t i = 0; i < p->n_input; i++) {
        if (!p->input[i][0])
            continue;
        n->x[i] = find_value(n->in, p->input[i]);
        if (!n->x[i])
            return ew_fail(n->in->err, EW_STATUS_MALFORMED,
                           "input '%s' is not defined before it is used (missing, out of order or "
                           "in a cycle)",
                           p->input[i]);
        n->n_x = (int)i + 1;
    }
    if (ew_onnx_n_outputs(n) == 0)
        return ew_fail(n->in->err, EW_STATUS_MALFORMED, "it has no output");
    return EW_STATUS_OK;
}

static ew_status import_node(struct ew_onnx_in *in, const Onnx__NodeProto *p)
{
    struct ew_onnx_node n = { .in = in, .p = p };
    ew_status st = check_attributes(&n);

    if (!st)
        st = import_inputs(&n);
    if (!st)
        st = import_op(&n);
    if (st && in->err && strncmp(in->err->text, "node '", 6) != 0)
        ew_error_within(in->err, "node '%s' (%s)", p->name[0] ? p->name : base_name(&n),
                        p->op_type);
    return st;
}

/* ---- graph inputs ---- */

/* A symbol of the graph for a dim's name. Names that are expressions or hold odd characters become
 * symbols of their own, told apart by a hash. */
static int64_t dim_symbol(struct ew_graph *g, const char *param)
{
    const size_t len = strlen(param);
    bool is_plain = len > 0 && len < 64 && !(param[0] >= '0' && param[0] <= '9') && param[0] != '.';
    char name[96];

    for (size_t i = 0; i < len && i < 64; i++) {
        const char c = param[i];
        const bool ok = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                        (c >= '0' && c <= '9') || c == '_' || c == '.';
        name[i] = c;
        if (!ok) {
            name[i] = '_';
            is_plain = false;
        }
    }
    name[len < 64 ? len : 64] = 0;
    if (is_plain)
        return ew_dim_symbol(g->syms, name);
    char full[160];
    (void)snprintf(full, sizeof(full), "d_%s_%08x", name,
                   (unsigned)(ew_hash64(param, len, 0) & 0xffffffffu));
    return ew_dim_symbol(g->syms, full);
}

static ew_status dim_read(struct ew_onnx_in *in, const Onnx__ValueInfoProto *v, size_t i,
                          int64_t *out)
{
    const Onnx__TensorShapeProto__Dimension *d = v->type->tensor_type->shape->dim[i];
    char unnamed[400];

    switch ((int)d->value_case) {
    case ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE:
        *out = d->dim_value;
        return *out >= 0 ? EW_STATUS_OK
                         : ew_fail(in->err, EW_STATUS_MALFORMED, "input '%s': dim %zu is %lld",
                                   v->name, i, (long long)*out);
    case ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM:
        if (d->dim_param[0]) {
            *out = dim_symbol(in->g, d->dim_param);
            break;
        }
        /* fall through */
    default:
        (void)snprintf(unnamed, sizeof(unnamed), "%.300s_d%zu", v->name, i);
        *out = dim_symbol(in->g, unnamed);
        break;
    }
    return *out != EW_DIM_BAD ? EW_STATUS_OK
                              : ew_fail(in->err, EW_STATUS_NO_MEMORY, "no memory for a symbol");
}

/* The tensor part of a value's type, or a refusal that says what it is instead. */
static ew_status tensor_type(struct ew_onnx_in *in, const char *what, const Onnx__ValueInfoProto *v,
                             const Onnx__TypeProto__Tensor **out)
{
    static const char *const kinds[] = { [1] = "a tensor",
                                         [4] = "a sequence",
                                         [5] = "a map",
                                         [8] = "a sparse tensor",
                                         [9] = "an optional" };

    if (!v->type || v->type->value_case == ONNX__TYPE_PROTO__VALUE__NOT_SET)
        return ew_fail(in->err, EW_STATUS_MALFORMED, "%s '%s' has no type", what, v->name);
    const size_t kind = (size_t)v->type->value_case;
    if (kind != ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE)
        return ew_fail(in->err, EW_STATUS_UNSUPPORTED, "%s '%s' is %s, only tensors are supported",
                       what, v->name,
                       kind < EW_COUNT(kinds) && kinds[kind] ? kinds[kind] : "unknown");
    *out = v->type->tensor_type;
    if ((*out)->elem_type == 0)
        return ew_fail(in->err, EW_STATUS_MALFORMED, "%s '%s' has no element type", what, v->name);
    if (ew_onnx_dtype((*out)->elem_type) == EW_DTYPE_NONE)
        return ew_fail(in->err, EW_STATUS_UNSUPPORTED,
                       "%s '%s': data type %d (%s) is not supported", what, v->name,
                       (int)(*out)->elem_type, ew_onnx_data_type_text((*out)->elem_type));
    return EW_STATUS_OK;
}

static ew_status import_input(struct ew_onnx_in *in, const Onnx__ValueInfoProto *v)
{
    const Onnx__TypeProto__Tensor *t = NULL;
    struct ew_type type = { 0 };

    if (!v->name[0])
        return ew_fail(in->err, EW_STATUS_MALFORMED, "a graph input has no name");
    EW_TRY(tensor_type(in, "input", v, &t));
    if (!t->shape)
        return ew_fail(in->err, EW_STATUS_UNSUPPORTED, "input '%s' has no shape", v->name);
    if (t->shape->n_dim > EW_MAX_DIMS)
        return ew_fail(in->err, EW_STATUS_UNSUPPORTED,
                       "input '%s' has %zu dims, at most %d are supported", v->name,
                       t->shape->n_dim, EW_MAX_DIMS);
    type.dtype = ew_onnx_dtype(t->elem_type);
    type.n_dims = (int)t->shape->n_dim;
    for (size_t i = 0; i < t->shape->n_dim; i++)
        EW_TRY(dim_read(in, v, i, &type.dim[i]));
    /* The contract's vanilla graphs say one token a row; the gather takes any number. */
    if (in->any_token && strcmp(v->name, "last_token_ids") == 0 && type.n_dims == 2 &&
        type.dim[1] == 1)
        type.dim[1] = ew_dim_symbol(in->g->syms, "num_selected");
    struct ew_value *value = ew_graph_add_input(in->g, v->name, &type);
    if (!value)
        return ew_fail(in->err, EW_STATUS_NO_MEMORY, "no memory for input '%s'", v->name);
    return ew_onnx_bind(in, v->name, value);
}

static ew_status import_initializer(struct ew_onnx_in *in, const Onnx__TensorProto *t)
{
    struct ew_type type;
    const void *data;

    if (!t->name[0])
        return ew_fail(in->err, EW_STATUS_MALFORMED, "an initializer has no name");
    const ew_status st = ew_onnx_tensor_read(t, in->files, &in->g->arena, &type, &data, in->err);
    if (st) {
        ew_error_within(in->err, "initializer '%s'", t->name);
        return st;
    }
    struct ew_value *v = ew_graph_add_const(in->g, t->name, &type, data, false);
    if (!v)
        return ew_fail(in->err, EW_STATUS_NO_MEMORY, "no memory for initializer '%s'", t->name);
    return ew_onnx_bind(in, t->name, v);
}

/* ---- graph outputs ---- */

static ew_status import_output(struct ew_onnx_in *in, const Onnx__ValueInfoProto *o)
{
    struct ew_value *v = find_value(in, o->name);
    const Onnx__TypeProto__Tensor *t;

    if (!v)
        return ew_fail(in->err, EW_STATUS_MALFORMED, "graph output '%s' is made by no node",
                       o->name);
    if (o->type && o->type->value_case != ONNX__TYPE_PROTO__VALUE__NOT_SET) {
        EW_TRY(tensor_type(in, "output", o, &t));
        if (ew_onnx_dtype(t->elem_type) != v->type.dtype)
            return ew_fail(
                in->err, EW_STATUS_MISMATCH, "output '%s' is declared %s, its node gives %s",
                o->name, ew_dtype_text(ew_onnx_dtype(t->elem_type)), ew_dtype_text(v->type.dtype));
        if (t->shape && t->shape->n_dim != (size_t)v->type.n_dims)
            return ew_fail(in->err, EW_STATUS_MISMATCH,
                           "output '%s' is declared with %zu dims, its node gives %d", o->name,
                           t->shape->n_dim, v->type.n_dims);
    }
    return ew_graph_add_output(in->g, v, o->name, in->err);
}

/* ---- the model ---- */

static ew_status check_header(struct ew_onnx_in *in)
{
    const Onnx__ModelProto *m = in->model;

    if (m->ir_version < 1)
        return ew_fail(in->err, EW_STATUS_MALFORMED, "not an ONNX model (no IR version)");
    if (m->ir_version > EW_ONNX_MAX_IR)
        return ew_fail(in->err, EW_STATUS_UNSUPPORTED,
                       "ONNX IR version %lld is not supported, at most %d is",
                       (long long)m->ir_version, EW_ONNX_MAX_IR);
    if (!m->graph)
        return ew_fail(in->err, EW_STATUS_MALFORMED, "the model has no graph");
    if (m->n_functions)
        return ew_fail(in->err, EW_STATUS_UNSUPPORTED,
                       "model-local functions are not supported (the first is '%s')",
                       m->functions[0]->name);
    if (m->graph->n_sparse_initializer)
        return ew_fail(in->err, EW_STATUS_UNSUPPORTED, "sparse initializers are not supported");
    for (size_t i = 0; i < m->n_opset_import; i++) {
        const Onnx__OperatorSetIdProto *o = m->opset_import[i];
        if (!o->domain[0] || strcmp(o->domain, "ai.onnx") == 0)
            in->opset = o->version;
    }
    return EW_STATUS_OK;
}

static ew_status check_opset(struct ew_onnx_in *in)
{
    const Onnx__GraphProto *g = in->model->graph;

    if (in->opset >= EW_ONNX_MIN_OPSET && in->opset <= EW_ONNX_MAX_OPSET)
        return EW_STATUS_OK;
    for (size_t i = 0; i < g->n_node; i++) {
        const char *domain = g->node[i]->domain;
        if (domain[0] && strcmp(domain, "ai.onnx") != 0)
            continue;
        return ew_fail(in->err, EW_STATUS_UNSUPPORTED,
                       "opset %lld (node '%s', %s) is not supported, %d to %d are",
                       (long long)in->opset, g->node[i]->name, g->node[i]->op_type,
                       EW_ONNX_MIN_OPSET, EW_ONNX_MAX_OPSET);
    }
    return EW_STATUS_OK;
}

static ew_status import_graph(struct ew_onnx_in *in)
{
    const Onnx__GraphProto *g = in->model->graph;

    EW_TRY(check_header(in));
    EW_TRY(check_opset(in));
    for (size_t i = 0; i < g->n_initializer; i++)
        EW_TRY(import_initializer(in, g->initializer[i]));
    const size_t n_initializers = in->n_values;
    for (size_t i = 0; i < g->n_input; i++) {
        uint32_t at;
        /* Before IR 4 every initializer was an input too: a default, which is taken. */
        if (ew_map_find(&in->names, g->input[i]->name, strlen(g->input[i]->name), &at) &&
            at < n_initializers)
            continue;
        EW_TRY(import_input(in, g->input[i]));
    }
    for (size_t i = 0; i < g->n_node; i++)
        EW_TRY(import_node(in, g->node[i]));
    if (!g->n_output)
        return ew_fail(in->err, EW_STATUS_MALFORMED, "the graph has no output");
    for (size_t i = 0; i < g->n_output; i++)
        EW_TRY(import_output(in, g->output[i]));
    (void)ew_graph_sweep(in->g);
    return ew_onnx_restore(in->g, in->err);
}

/* ---- files ---- */

/* Splits path into the directory of the model and the model's file. */
static ew_status find_model(const char *path, char *dir, char *file, size_t cap, ew_error *err)
{
    if (ew_path_is_dir(path)) {
        if (strlen(path) >= cap || !ew_path_join(file, cap, path, "model.onnx"))
            return ew_fail(err, EW_STATUS_INVALID_ARG, "path is too long");
        memcpy(dir, path, strlen(path) + 1);
        return EW_STATUS_OK;
    }
    const char *slash = strrchr(path, '/');
    const size_t len = slash ? (size_t)(slash - path) : 0;
    if (strlen(path) >= cap)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "path is too long");
    memcpy(file, path, strlen(path) + 1);
    memcpy(dir, path, len);
    dir[len] = 0;
    if (!slash)
        memcpy(dir, ".", 2);
    else if (len == 0)
        memcpy(dir, "/", 2);
    return EW_STATUS_OK;
}

static ew_status load_model(struct ew_onnx_in *in, const char *file)
{
    struct ew_file_map map;
    ProtobufCMessage *message = NULL;
    ew_status st;

    EW_TRY(ew_file_map_open(&map, file, in->err));
    if (map.len > MAX_MODEL_BYTES)
        st = ew_fail(in->err, EW_STATUS_LIMIT, "model of %zu bytes, at most %zu are read", map.len,
                     MAX_MODEL_BYTES);
    else
        st = ew_onnx_unpack(map.bytes, map.len, &onnx__model_proto__descriptor, "ONNX model",
                            &message, in->err);
    ew_file_map_close(&map);
    EW_TRY(st);
    in->model = (const Onnx__ModelProto *)message;
    return ew_graph_own(in->g, message, ew_onnx_message_free)
               ? ew_fail(in->err, EW_STATUS_NO_MEMORY, "no memory")
               : EW_STATUS_OK;
}

static ew_status import_files(struct ew_onnx_in *in, const char *dir, const char *file)
{
    EW_TRY(load_model(in, file));
    EW_TRY(ew_onnx_files_create(dir, &in->files, in->err));
    if (ew_graph_own(in->g, in->files, ew_onnx_files_destroy))
        return ew_fail(in->err, EW_STATUS_NO_MEMORY, "no memory");
    EW_TRY(ew_onnx_llm_config(in, dir));
    EW_TRY(import_graph(in));
    if (in->is_llm) {
        EW_TRY(ew_onnx_llm_embedding(in, dir));
        EW_TRY(ew_onnx_llm_check(in));
    }
    return EW_STATUS_OK;
}

ew_status ew_graph_from_onnx(const char *path, ew_graph **out, ew_error *err)
{
    char dir[4096], file[4096 + 16];
    ew_error local = { 0 };
    struct ew_onnx_in in = { .err = &local }; /* importers look at the text */
    ew_status st;

    if (!path || !out)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "path and out are needed");
    *out = NULL;
    EW_TRY(find_model(path, dir, file, sizeof(dir), err));
    ew_map_init(&in.names, EW_MEM_ONNX);
    st = ew_graph_create("onnx", &in.g, &local);
    if (!st)
        st = import_files(&in, dir, file);
    ew_map_deinit(&in.names);
    ew_mem_free(in.values);
    if (!st) {
        *out = in.g;
        return EW_STATUS_OK;
    }
    ew_graph_destroy(in.g);
    return ew_fail(err, st, "%s: %s", file, local.text);
}

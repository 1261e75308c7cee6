/* onnx/save.c - ew_graph_save_onnx: a graph to model.onnx and model.onnx.data, and for a language
 * model config.json and embedding.safetensors. The model file is written last: a directory with one
 * is complete. */
#include <string.h>

#include "onnx/save_int.h"

#define MAX_MODEL_BYTES ((size_t)2 << 30)

/* ---- types of inputs and outputs ---- */

static bool dim_put(struct ew_onnx_out *o, Onnx__TensorShapeProto__Dimension *d, int64_t dim)
{
    char text[512];

    onnx__tensor_shape_proto__dimension__init(d);
    if (dim >= 0) {
        d->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
        d->dim_value = dim;
        return true;
    }
    ew_dim_text(o->g->syms, dim, text, sizeof(text));
    if (text[0] == '?') /* an unknown: no name means just that */
        return true;
    d->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM;
    d->dim_param = ew_arena_strdup(&o->arena, text);
    return d->dim_param != NULL;
}

static Onnx__ValueInfoProto *value_info(struct ew_onnx_out *o, const struct ew_value *v)
{
    const size_t n = (size_t)v->type.n_dims;
    Onnx__ValueInfoProto *info = ew_arena_new(&o->arena, Onnx__ValueInfoProto, 1);
    Onnx__TypeProto *type = ew_arena_new(&o->arena, Onnx__TypeProto, 1);
    Onnx__TypeProto__Tensor *tensor = ew_arena_new(&o->arena, Onnx__TypeProto__Tensor, 1);
    Onnx__TensorShapeProto *shape = ew_arena_new(&o->arena, Onnx__TensorShapeProto, 1);
    Onnx__TensorShapeProto__Dimension *dims =
        ew_arena_new(&o->arena, Onnx__TensorShapeProto__Dimension, n + 1);
    Onnx__TensorShapeProto__Dimension **list =
        ew_arena_new(&o->arena, Onnx__TensorShapeProto__Dimension *, n + 1);

    if (!info || !type || !tensor || !shape || !dims || !list)
        return NULL;
    onnx__value_info_proto__init(info);
    onnx__type_proto__init(type);
    onnx__type_proto__tensor__init(tensor);
    onnx__tensor_shape_proto__init(shape);
    for (size_t i = 0; i < n; i++) {
        list[i] = &dims[i];
        if (!dim_put(o, &dims[i], v->type.dim[i]))
            return NULL;
    }
    shape->dim = list;
    shape->n_dim = n;
    tensor->elem_type = ew_onnx_data_type(v->type.dtype);
    tensor->shape = shape;
    type->value_case = ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE;
    type->tensor_type = tensor;
    info->name = (char *)(uintptr_t)v->name;
    info->type = type;
    return info;
}

static Onnx__ValueInfoProto **value_infos(struct ew_onnx_out *o, struct ew_value *const *v,
                                          size_t n)
{
    Onnx__ValueInfoProto **list = ew_arena_new(&o->arena, Onnx__ValueInfoProto *, n + 1);

    for (size_t i = 0; list && i < n; i++) {
        list[i] = value_info(o, v[i]);
        if (!list[i])
            return NULL;
    }
    return list;
}

/* ---- the model ---- */

static ew_status write_packed(struct ew_onnx_out *o, const Onnx__ModelProto *m, const char *path)
{
    const size_t len = onnx__model_proto__get_packed_size(m);
    uint8_t *bytes;
    ew_status st;

    if (len > MAX_MODEL_BYTES)
        return ew_fail(o->err, EW_STATUS_LIMIT, "model of %zu bytes, at most %zu are written", len,
                       MAX_MODEL_BYTES);
    bytes = ew_mem_alloc(EW_MEM_ONNX, len + 1);
    if (!bytes)
        return ew_onnx_out_no_memory(o);
    (void)onnx__model_proto__pack(m, bytes);
    st = ew_file_write(path, bytes, len, o->err);
    ew_mem_free(bytes);
    return st;
}

static ew_status write_model(struct ew_onnx_out *o, const char *path)
{
    static const struct {
        const char *domain;
        int64_t version;
    } k_sets[4] = { { "", EW_ONNX_SAVE_OPSET },
                    { EW_ONNX_PLUGIN_DOMAIN, 1 },
                    { EW_ONNX_OWN_DOMAIN, 1 },
                    { EW_ONNX_TRT_DOMAIN, 1 } };
    const bool wanted[4] = { true, o->uses_plugin, o->uses_own, o->uses_trt };
    Onnx__OperatorSetIdProto sets[4], *list[4];
    Onnx__ModelProto m = ONNX__MODEL_PROTO__INIT;
    Onnx__GraphProto g = ONNX__GRAPH_PROTO__INIT;

    m.opset_import = list;
    for (size_t i = 0; i < 4; i++) {
        onnx__operator_set_id_proto__init(&sets[i]);
        sets[i].domain = (char *)(uintptr_t)k_sets[i].domain;
        sets[i].version = k_sets[i].version;
        if (wanted[i])
            list[m.n_opset_import++] = &sets[i];
    }
    m.ir_version = EW_ONNX_SAVE_IR;
    m.producer_name = (char *)(uintptr_t) "edgewise";
    m.producer_version = (char *)(uintptr_t)EW_VERSION_STRING;
    m.graph = &g;
    g.name = (char *)(uintptr_t)(o->g->name && o->g->name[0] ? o->g->name : "graph");
    g.node = (Onnx__NodeProto **)(void *)o->nodes.at;
    g.n_node = o->nodes.n;
    g.initializer = (Onnx__TensorProto **)(void *)o->tensors.at;
    g.n_initializer = o->tensors.n;
    g.input = value_infos(o, o->g->inputs, o->g->n_inputs);
    g.output = value_infos(o, o->g->outputs, o->g->n_outputs);
    if (!g.input || !g.output)
        return ew_onnx_out_no_memory(o);
    g.n_input = o->g->n_inputs;
    g.n_output = o->g->n_outputs;
    return write_packed(o, &m, path);
}

/* ---- files ---- */

static ew_status save_nodes(struct ew_onnx_out *o)
{
    for (const struct ew_node *n = o->g->head; n; n = n->next)
        EW_TRY(ew_onnx_save_node(o, n));
    return EW_STATUS_OK;
}

static ew_status save_data(struct ew_onnx_out *o, const char *path)
{
    EW_TRY(ew_file_writer_open(&o->data, path, o->err));
    const ew_status st = save_nodes(o);
    if (st) {
        ew_file_writer_abort(o->data);
        return st;
    }
    return ew_file_writer_commit(o->data, o->err);
}

static ew_status save_files(struct ew_onnx_out *o, const char *dir)
{
    char path[4][4096];
    static const char *const names[4] = { "model.onnx", "model.onnx.data", "config.json",
                                          "embedding.safetensors" };

    for (size_t i = 0; i < 4; i++)
        if (!ew_path_join(path[i], sizeof(path[i]), dir, names[i]))
            return ew_fail(o->err, EW_STATUS_INVALID_ARG, "path '%s' is too long", dir);
    EW_TRY(ew_dir_make(dir, o->err));
    EW_TRY(save_data(o, path[1]));
    if (o->g->llm_config)
        EW_TRY(ew_file_write(path[2], o->g->llm_config, strlen(o->g->llm_config), o->err));
    if (o->g->embedding)
        EW_TRY(ew_onnx_save_embedding(o->g->embedding, path[3], o->err));
    return write_model(o, path[0]);
}

ew_status ew_graph_save_onnx(const ew_graph *g, const char *dir, const ew_onnx_save_opts *opts,
                             ew_error *err)
{
    struct ew_onnx_out o = { .g = g, .err = err };
    ew_graph_stats stats;
    ew_status st;

    if (!g || !dir || (opts && opts->struct_size != sizeof(*opts)))
        return ew_fail(err, EW_STATUS_INVALID_ARG,
                       "graph and dir are needed, opts must be of version %s", EW_VERSION_STRING);
    ew_graph_get_stats(g, &stats);
    o.total_bytes = stats.constant_bytes;
    o.flags = opts ? opts->flags : 0;
    o.progress = opts ? &opts->progress : NULL;
    ew_arena_init(&o.arena, EW_MEM_ONNX, 0);
    o.const_done = ew_mem_calloc(EW_MEM_ONNX, (size_t)g->n_values + 1, 1);
    st = o.const_done ? save_files(&o, dir) : ew_onnx_out_no_memory(&o);
    ew_mem_free(o.const_done);
    ew_mem_free(o.nodes.at);
    ew_mem_free(o.tensors.at);
    ew_arena_deinit(&o.arena);
    if (st)
        ew_error_within(err, "export to %s", dir);
    return st;
}

/* eval/inspect.c - what is inside a file or a model directory, as JSON. Each reader checks the
 * whole file on the way; this file only lists what they found. */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/text.h"
#include "checkpoint/config.h"
#include "checkpoint/safetensors.h"
#include "edgewise/engine.h"
#include "edgewise/inspect.h"
#include "edgewise/onnx.h"
#include "edgewise/runtime.h"
#include "graph/ir.h"
#include "os/os.h"

#define MAX_JSON ((size_t)1 << 30)

static int put_piece(const char *bytes, size_t len, void *buf)
{
    return ew_buf_append(buf, bytes, len) ? 0 : -1;
}

/* Takes o. */
static ew_status print_json(json_t *o, char **json, ew_error *err)
{
    struct ew_buf b;
    bool ok;

    ew_buf_init(&b, EW_MEM_EVAL, MAX_JSON);
    ok = o && json_dump_callback(o, put_piece, &b, JSON_INDENT(2)) == 0;
    json_decref(o);
    *json = ok ? ew_buf_take(&b) : NULL;
    ew_buf_deinit(&b);
    return *json ? EW_STATUS_OK : ew_fail(err, EW_STATUS_NO_MEMORY, "description");
}

/* Untrusted names may not be UTF-8; JSON needs it. */
static json_t *safe_string(const char *s)
{
    json_t *o = json_string(s);

    return o ? o : json_string("(not UTF-8)");
}

static json_t *dims_json(const struct ew_type *t)
{
    json_t *dims = json_array();

    for (int d = 0; d < t->n_dims; d++)
        json_array_append_new(dims, json_integer(t->dim[d]));
    return dims;
}

static json_t *tensors_json(const struct ew_safetensors *st, uint64_t *n_parameters,
                            uint64_t *n_bytes)
{
    json_t *list = json_array();

    for (size_t i = 0; i < ew_safetensors_count(st); i++) {
        const struct ew_st_tensor *t = ew_safetensors_at(st, i);
        json_t *o = json_object();
        size_t n = 0;

        json_object_set_new(o, "name", safe_string(t->name));
        json_object_set_new(o, "dtype", json_string(ew_dtype_text(t->type.dtype)));
        json_object_set_new(o, "shape", dims_json(&t->type));
        json_object_set_new(o, "bytes", json_integer((json_int_t)t->bytes));
        json_object_set_new(o, "file", safe_string(ew_safetensors_file(st, t->i_file)));
        json_array_append_new(list, o);
        if (ew_type_count(&t->type, &n))
            *n_parameters += n;
        *n_bytes += t->bytes;
    }
    return list;
}

static void put_tensors(json_t *o, const struct ew_safetensors *st)
{
    uint64_t n_parameters = 0, n_bytes = 0;
    json_t *list = tensors_json(st, &n_parameters, &n_bytes);

    json_object_set_new(o, "n_tensors", json_integer((json_int_t)ew_safetensors_count(st)));
    json_object_set_new(o, "n_parameters", json_integer((json_int_t)n_parameters));
    json_object_set_new(o, "bytes", json_integer((json_int_t)n_bytes));
    json_object_set_new(o, "tensors", list);
}

static ew_status inspect_safetensors(const char *path, char **json, ew_error *err)
{
    struct ew_safetensors *st;
    json_t *o;

    EW_TRY(ew_safetensors_open(path, &st, err));
    o = json_object();
    json_object_set_new(o, "kind", json_string("safetensors"));
    put_tensors(o, st);
    ew_safetensors_close(st);
    return print_json(o, json, err);
}

static ew_status inspect_checkpoint(const char *dir, char **json, ew_error *err)
{
    struct ew_config config;
    struct ew_safetensors *st;
    json_t *o;
    ew_status status;

    EW_TRY(ew_config_load(dir, &config, err));
    status = ew_safetensors_open_dir(dir, &st, err);
    if (!status) {
        o = json_object();
        json_object_set_new(o, "kind", json_string("checkpoint"));
        json_object_set_new(o, "family", safe_string(config.type));
        json_object_set(o, "config", config.root);
        put_tensors(o, st);
        ew_safetensors_close(st);
        status = print_json(o, json, err);
    }
    ew_config_deinit(&config);
    return status;
}

static json_t *values_json(const struct ew_graph *g, struct ew_value *const *values, size_t n)
{
    json_t *list = json_array();

    for (size_t i = 0; i < n; i++) {
        const struct ew_type *t = &values[i]->type;
        json_t *o = json_object(), *dims = json_array();

        for (int d = 0; d < t->n_dims; d++) {
            char text[256];

            ew_dim_text(g->syms, t->dim[d], text, sizeof(text));
            json_array_append_new(dims,
                                  t->dim[d] >= 0 ? json_integer(t->dim[d]) : safe_string(text));
        }
        json_object_set_new(o, "name", safe_string(values[i]->name));
        json_object_set_new(o, "dtype", json_string(ew_dtype_text(t->dtype)));
        json_object_set_new(o, "shape", dims);
        json_array_append_new(list, o);
    }
    return list;
}

static json_t *nodes_json(const struct ew_graph *g)
{
    json_t *counts = json_object();

    for (const struct ew_node *n = g->head; n; n = n->next) {
        const char *name = ew_op_get(n->op)->name;
        const json_int_t seen = json_integer_value(json_object_get(counts, name));

        json_object_set_new(counts, name, json_integer(seen + 1));
    }
    return counts;
}

static ew_status inspect_onnx(const char *path, char **json, ew_error *err)
{
    ew_graph *g = NULL;
    ew_graph_stats stats;
    json_t *o;

    EW_TRY(ew_graph_from_onnx(path, &g, err));
    ew_graph_get_stats(g, &stats);
    o = json_object();
    json_object_set_new(o, "kind", json_string("onnx"));
    json_object_set_new(o, "graph", safe_string(g->name ? g->name : ""));
    json_object_set_new(o, "n_nodes", json_integer((json_int_t)stats.n_nodes));
    json_object_set_new(o, "n_parameters", json_integer((json_int_t)stats.n_parameters));
    json_object_set_new(o, "constant_bytes", json_integer((json_int_t)stats.constant_bytes));
    json_object_set_new(o, "inputs", values_json(g, g->inputs, g->n_inputs));
    json_object_set_new(o, "outputs", values_json(g, g->outputs, g->n_outputs));
    json_object_set_new(o, "nodes", nodes_json(g));
    json_object_set_new(o, "is_language_model", json_boolean(ew_graph_llm_config(g) != NULL));
    ew_graph_destroy(g);
    return print_json(o, json, err);
}

static ew_status inspect_engine(const char *path, char **json, ew_error *err)
{
    const ew_engine_opts opts = { sizeof(opts), 1, NULL, "none", NULL };
    ew_engine *e = NULL;
    ew_status st;

    EW_TRY(ew_engine_open(path, &opts, &e, err));
    st = ew_engine_describe(e, json, err);
    ew_engine_destroy(e);
    return st;
}

static ew_status inspect_dir(const char *path, char **json, ew_error *err)
{
    const char *kind = ew_model_kind(path);
    char sub[4096];

    if (strcmp(kind, "engine") == 0) {
        if (!ew_path_join(sub, sizeof(sub), path, "llm.engine"))
            return ew_fail(err, EW_STATUS_INVALID_ARG, "path too long: %s", path);
        if (!ew_path_is_file(sub) && !ew_path_join(sub, sizeof(sub), path, "model.engine"))
            return ew_fail(err, EW_STATUS_INVALID_ARG, "path too long: %s", path);
        return inspect_engine(sub, json, err);
    }
    if (strcmp(kind, "onnx") == 0) {
        if (ew_path_join(sub, sizeof(sub), path, "llm/model.onnx") && ew_path_is_file(sub) &&
            ew_path_join(sub, sizeof(sub), path, "llm"))
            return inspect_onnx(sub, json, err);
        return inspect_onnx(path, json, err);
    }
    if (strcmp(kind, "checkpoint") == 0)
        return inspect_checkpoint(path, json, err);
    return ew_fail(err, EW_STATUS_NOT_FOUND,
                   "%s: neither a checkpoint, nor ONNX, nor an engine directory", path);
}

ew_status ew_inspect(const char *path, char **json, ew_error *err)
{
    if (!path || !json)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "inspect: no path");
    *json = NULL;
    if (ew_path_is_dir(path))
        return inspect_dir(path, json, err);
    if (!ew_path_is_file(path))
        return ew_fail(err, EW_STATUS_NOT_FOUND, "%s: no such regular file", path);
    if (ew_ends_with(path, ".safetensors"))
        return inspect_safetensors(path, json, err);
    if (ew_ends_with(path, ".onnx"))
        return inspect_onnx(path, json, err);
    return inspect_engine(path, json, err); /* its magic says what it is not */
}

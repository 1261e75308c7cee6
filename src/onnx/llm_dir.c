/* onnx/llm_dir.c - what lies beside the model of an LLM directory: config.json and
 * embedding.safetensors.
 *
 * The config's text is kept as it is; here are the checks without which the graph could not be
 * trusted: the keys that say the model's size, the version gate, and that the graph has the caches
 * the config promises. The safetensors code reads and writes exactly one tensor: checkpoints are
 * another layer's. */
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "onnx/onnx_int.h"

#define MAX_CONFIG_BYTES ((size_t)1 << 20)
#define MAX_HEADER_BYTES ((size_t)1 << 20)

/* ---- config.json ---- */

static bool is_contract(const json_t *config)
{
    return json_object_get(config, "edgellm_version") || json_object_get(config, "engine_role") ||
           (json_object_get(config, "num_hidden_layers") && json_object_get(config, "hidden_size"));
}

/* Encoders of images and sound have a config.json too, of another kind. */
static bool has_cache_input(const Onnx__GraphProto *g)
{
    for (size_t i = 0; g && i < g->n_input; i++)
        if (strncmp(g->input[i]->name, "past_key_values_", 16) == 0)
            return true;
    return false;
}

/* Major 0, minor <= 4 wrote another contract. Anything else is taken by what its graph says. */
static ew_status check_version(const char *version, ew_error *err)
{
    unsigned major, minor;

    if (!version[0] ||
        sscanf(version, "%u.%u", &major, &minor) != 2) /* none: our own, or unknown */
        return EW_STATUS_OK;
    if (major == 0 && minor <= 4)
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "config.json: edgellm_version %s is not supported, at least 0.5 is",
                       version);
    return EW_STATUS_OK;
}

static ew_status check_config(struct ew_onnx_in *in, const json_t *config)
{
    static const char *const required[] = { "vocab_size",          "hidden_size",
                                            "num_hidden_layers",   "num_attention_heads",
                                            "num_key_value_heads", "max_position_embeddings" };
    const char *version, *role, *kind;

    EW_TRY(ew_json_get_str_or(config, "edgellm_version", "config.json", "", &version, in->err));
    EW_TRY(check_version(version, in->err));
    EW_TRY(ew_json_get_str_or(config, "engine_role", "config.json", "llm", &role, in->err));
    EW_TRY(ew_json_get_str_or(config, "model_type", "config.json", "llm", &kind, in->err));
    in->any_token = strcmp(role, "llm") == 0 && strncmp(kind, "eagle3", 6) != 0;
    const bool is_draft = strcmp(role, "draft") == 0 || strcmp(kind, "eagle3_draft") == 0;
    for (size_t i = is_draft ? 1 : 0; i < EW_COUNT(required); i++) {
        int64_t v;
        EW_TRY(ew_json_get_i64(config, required[i], "config.json", &v, in->err));
        if (v < 1 || v > ((int64_t)1 << 31))
            return ew_fail(in->err, EW_STATUS_MALFORMED, "config.json: %s is %lld", required[i],
                           (long long)v);
    }
    return EW_STATUS_OK;
}

ew_status ew_onnx_llm_config(struct ew_onnx_in *in, const char *dir)
{
    char path[4096 + 32];
    json_t *config = NULL;
    char *text = NULL;
    size_t len;
    ew_status st;

    if (!has_cache_input(in->model->graph) ||
        !ew_path_join(path, sizeof(path), dir, "config.json") || !ew_path_is_file(path))
        return EW_STATUS_OK;
    EW_TRY(ew_file_read(path, MAX_CONFIG_BYTES, &text, &len, in->err));
    st = ew_json_parse(text, len, "config.json", &config, in->err);
    if (!st && json_is_object(config) && is_contract(config)) {
        st = check_config(in, config);
        in->is_llm = true;
    }
    if (!st && in->is_llm)
        in->g->llm_config = ew_mem_strndup(EW_MEM_GRAPH, text, len);
    if (!st && in->is_llm && !in->g->llm_config)
        st = ew_fail(in->err, EW_STATUS_NO_MEMORY, "no memory for config.json");
    json_decref(config);
    ew_mem_free(text);
    return st;
}

static ew_status count_caches(const struct ew_graph *g, size_t *n)
{
    *n = 0;
    for (size_t i = 0; i < g->n_inputs; i++)
        *n += strncmp(g->inputs[i]->name, "past_key_values_", 16) == 0;
    return EW_STATUS_OK;
}

ew_status ew_onnx_llm_check(struct ew_onnx_in *in)
{
    json_t *config = NULL;
    int64_t n_layers = 0, hidden = 0, vocab = 0;
    size_t n_caches;
    ew_status st;

    EW_TRY(ew_json_parse(in->g->llm_config, strlen(in->g->llm_config), "config.json", &config,
                         in->err));
    st = ew_json_get_i64_or(config, "num_hidden_layers", "config.json", 0, &n_layers, in->err);
    if (!st)
        st = ew_json_get_i64_or(config, "hidden_size", "config.json", 0, &hidden, in->err);
    if (!st)
        st = ew_json_get_i64_or(config, "vocab_size", "config.json", 0, &vocab, in->err);
    const bool is_hybrid = json_object_get(config, "layer_types") ||
                           json_object_get(config, "kv_sharing_donors") ||
                           json_object_get(config, "kv_layer_configs");
    json_decref(config);
    EW_TRY(st);
    EW_TRY(count_caches(in->g, &n_caches));
    if (!is_hybrid && (int64_t)n_caches != n_layers)
        return ew_fail(in->err, EW_STATUS_MISMATCH,
                       "config.json has num_hidden_layers %lld, the graph has %zu past_key_values "
                       "inputs",
                       (long long)n_layers, n_caches);
    const struct ew_value *e = in->g->embedding;
    if (e && (e->type.dim[1] != hidden || e->type.dim[0] < vocab))
        return ew_fail(
            in->err, EW_STATUS_MISMATCH,
            "embedding is [%lld, %lld], config.json has vocab_size %lld, hidden_size %lld",
            (long long)e->type.dim[0], (long long)e->type.dim[1], (long long)vocab,
            (long long)hidden);
    return EW_STATUS_OK;
}

/* ---- embedding.safetensors ---- */

static void close_map(void *obj)
{
    ew_file_map_close(obj);
    ew_mem_free(obj);
}

/* Header length (8 bytes), JSON, data. */
static ew_status read_header(const struct ew_file_map *map, json_t **out, size_t *data_at,
                             ew_error *err)
{
    uint64_t len = 0;

    if (map->len < 8)
        return ew_fail(err, EW_STATUS_MALFORMED, "embedding.safetensors has %zu bytes", map->len);
    for (unsigned i = 0; i < 8; i++)
        len |= (uint64_t)map->bytes[i] << (8 * i);
    if (len > map->len - 8 || len > MAX_HEADER_BYTES)
        return ew_fail(err, EW_STATUS_MALFORMED,
                       "embedding.safetensors: header of %llu bytes in a file of %zu",
                       (unsigned long long)len, map->len);
    *data_at = 8 + (size_t)len;
    return ew_json_parse((const char *)map->bytes + 8, (size_t)len, "embedding.safetensors", out,
                         err);
}

static ew_status read_entry(const json_t *header, size_t room, struct ew_type *type, size_t *at,
                            ew_error *err)
{
    static const char *const what = "embedding.safetensors";
    const json_t *entry = json_object_get(header, "embedding");
    const json_t *shape = json_object_get(entry, "shape");
    const json_t *span = json_object_get(entry, "data_offsets");
    const char *dtype;
    size_t bytes;

    if (!json_is_object(entry) || json_array_size(shape) != 2 || json_array_size(span) != 2)
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: no tensor 'embedding' of two dims", what);
    EW_TRY(ew_json_get_str_or(entry, "dtype", what, "", &dtype, err));
    *type = (struct ew_type){ .n_dims = 2 };
    type->dtype = strcmp(dtype, "F16") == 0    ? EW_DTYPE_F16
                  : strcmp(dtype, "BF16") == 0 ? EW_DTYPE_BF16
                  : strcmp(dtype, "F32") == 0  ? EW_DTYPE_F32
                                               : EW_DTYPE_NONE;
    if (type->dtype == EW_DTYPE_NONE)
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "%s: dtype %s is not supported", what, dtype);
    for (size_t i = 0; i < 2; i++) {
        const json_t *d = json_array_get(shape, i);
        if (!json_is_integer(d) || json_integer_value(d) < 1)
            return ew_fail(err, EW_STATUS_MALFORMED, "%s: bad shape", what);
        type->dim[i] = json_integer_value(d);
    }
    const json_t *b = json_array_get(span, 0), *e = json_array_get(span, 1);
    const int64_t begin = json_is_integer(b) ? json_integer_value(b) : -1;
    const int64_t end = json_is_integer(e) ? json_integer_value(e) : -1;
    if (!ew_type_bytes(type, &bytes) || begin < 0 || end < begin || (uint64_t)end > room ||
        (uint64_t)(end - begin) != bytes)
        return ew_fail(err, EW_STATUS_MALFORMED,
                       "%s: data_offsets [%lld, %lld) do not fit %zu bytes of data", what,
                       (long long)begin, (long long)end, room);
    *at = (size_t)begin;
    return EW_STATUS_OK;
}

/* A tied head is stored twice, in the model and here: one constant is enough. */
static struct ew_value *find_same(const struct ew_graph *g, const struct ew_type *type,
                                  const void *data)
{
    size_t bytes;

    for (uint32_t i = 0; i < g->n_values; i++) {
        struct ew_value *v = g->values[i];
        if (v->is_const && v->n_uses && v->con.data && ew_type_equal(&v->type, type) &&
            ew_type_bytes(type, &bytes) && memcmp(v->con.data, data, bytes) == 0)
            return v;
    }
    return NULL;
}

ew_status ew_onnx_llm_embedding(struct ew_onnx_in *in, const char *dir)
{
    char path[4096 + 32];
    struct ew_type type = { 0 };
    json_t *header = NULL;
    size_t data_at = 0, at = 0;

    if (!ew_path_join(path, sizeof(path), dir, "embedding.safetensors") || !ew_path_is_file(path))
        return EW_STATUS_OK; /* drafts borrow their base's */
    struct ew_file_map *map = ew_mem_calloc(EW_MEM_ONNX, 1, sizeof(*map));
    if (!map)
        return ew_fail(in->err, EW_STATUS_NO_MEMORY, "no memory");
    ew_status st = ew_file_map_open(map, path, in->err);
    if (st) {
        ew_mem_free(map);
        return st;
    }
    if (ew_graph_own(in->g, map, close_map))
        return ew_fail(in->err, EW_STATUS_NO_MEMORY, "no memory");
    EW_TRY(read_header(map, &header, &data_at, in->err));
    if (json_object_get(header, "embedding_scale"))
        st = ew_fail(in->err, EW_STATUS_UNSUPPORTED,
                     "embedding.safetensors: an fp8 embedding (embedding_scale) is not supported");
    else
        st = read_entry(header, map->len - data_at, &type, &at, in->err);
    json_decref(header);
    EW_TRY(st);
    const uint8_t *data = map->bytes + data_at + at;
    const bool copy = (uintptr_t)data % (ew_dtype_bits(type.dtype) / 8) != 0;
    in->g->embedding = find_same(in->g, &type, data);
    if (!in->g->embedding)
        in->g->embedding = ew_graph_add_const(in->g, "embedding", &type, data, copy);
    return in->g->embedding ? EW_STATUS_OK : ew_fail(in->err, EW_STATUS_NO_MEMORY, "no memory");
}

ew_status ew_onnx_save_embedding(const struct ew_value *v, const char *path, ew_error *err)
{
    const struct ew_type *t = &v->type;
    const char *dtype = t->dtype == EW_DTYPE_F16    ? "F16"
                        : t->dtype == EW_DTYPE_BF16 ? "BF16"
                        : t->dtype == EW_DTYPE_F32  ? "F32"
                                                    : NULL;
    struct ew_file_writer *w;
    char header[256];
    uint8_t prefix[8];
    size_t bytes;

    if (!dtype || t->n_dims != 2 || !ew_type_bytes(t, &bytes) || !v->con.data)
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "embedding '%s' is not a plain f32, f16 or bf16 matrix", v->name);
    int len = snprintf(
        header, sizeof(header),
        "{\"embedding\":{\"dtype\":\"%s\",\"shape\":[%lld,%lld],\"data_offsets\":[0,%zu]}}", dtype,
        (long long)t->dim[0], (long long)t->dim[1], bytes);
    while (len % 8 != 0)
        header[len++] = ' ';
    for (unsigned i = 0; i < 8; i++)
        prefix[i] = (uint8_t)((uint64_t)len >> (8 * i));
    EW_TRY(ew_file_writer_open(&w, path, err));
    ew_status st = ew_file_writer_write(w, prefix, 8, err);
    if (!st)
        st = ew_file_writer_write(w, header, (size_t)len, err);
    if (!st)
        st = ew_file_writer_write(w, v->con.data, bytes, err);
    if (!st)
        return ew_file_writer_commit(w, err);
    ew_file_writer_abort(w);
    return st;
}

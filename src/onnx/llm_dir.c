/* onnx/llm_dir.c - config.json, which lies beside the model of an LLM directory (the other file is
 * embedding.c's).
 *
 * The config's text is kept as it is; here are the checks without which the graph could not be
 * trusted: the keys that say the model's size, the version gate, and that the graph has the caches
 * the config promises. */
#include <string.h>

#include "base/json.h"
#include "onnx/onnx_int.h"

#define MAX_CONFIG_BYTES ((size_t)1 << 20)

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

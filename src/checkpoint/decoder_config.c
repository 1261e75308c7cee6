/* checkpoint/decoder_config.c - the LLM contract of a spec as JSON, and the public way from a
 * checkpoint directory to a graph. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/log.h"
#include "checkpoint/decoder.h"
#include "checkpoint/kv_scales.h"
#include "graph/ir.h"

/* A generation key, from generation_config.json, else the text model, else the file. */
static const json_t *find_key(const struct ew_config *c, const char *key)
{
    const json_t *const places[] = { c->generation, c->text, c->root };

    for (size_t i = 0; i < 3; i++) {
        const json_t *v = json_object_get(places[i], key);

        if (v && !json_is_null(v))
            return v;
    }
    return NULL;
}

/* eos_token_id is a number or a list of them. */
static ew_status read_eos(const struct ew_config *c, json_t *out, ew_error *err)
{
    const json_t *v = find_key(c, "eos_token_id");
    const size_t n = json_is_array(v) ? json_array_size(v) : v ? 1 : 0;

    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_is_array(v) ? json_array_get(v, i) : v;

        if (!json_is_integer(id) || json_integer_value(id) > INT32_MAX)
            return ew_fail(err, EW_STATUS_MALFORMED,
                           "%s: \"eos_token_id\" is not a token id or a list of them", c->what);
        if (json_integer_value(id) >= 0)
            json_array_append_new(out, json_integer(json_integer_value(id)));
    }
    return EW_STATUS_OK;
}

static ew_status copy_id(const struct ew_config *c, const char *key, json_t *out, ew_error *err)
{
    const json_t *v = find_key(c, key);

    if (!v)
        return EW_STATUS_OK;
    if (json_is_array(v)) /* some checkpoints list one id */
        v = json_array_get(v, 0);
    if (!json_is_integer(v) || json_integer_value(v) > INT32_MAX)
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: \"%s\" is not a token id", c->what, key);
    if (json_integer_value(v) >= 0)
        json_object_set_new(out, key, json_integer(json_integer_value(v)));
    return EW_STATUS_OK;
}

static ew_status copy_generation(const struct ew_config *c, json_t *out, ew_error *err)
{
    static const char *const numbers[] = { "temperature", "top_k", "top_p", "min_p",
                                           "repetition_penalty" };
    const json_t *sample = json_object_get(c->generation, "do_sample");

    if (json_is_boolean(sample))
        json_object_set_new(out, "do_sample", json_boolean(json_is_true(sample)));
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        json_t *v = json_object_get(c->generation, numbers[i]);

        if (!v || json_is_null(v))
            continue;
        if (!json_is_number(v))
            return ew_fail(err, EW_STATUS_MALFORMED,
                           "%s: generation_config.json: \"%s\" is not a number", c->what,
                           numbers[i]);
        json_object_set(out, numbers[i], v);
    }
    return EW_STATUS_OK;
}

static json_t *rope_sets(const struct ew_decoder_spec *s)
{
    json_t *list = json_array();

    for (int i = 0; i < s->n_rope; i++) {
        json_t *set = ew_rope_to_json(&s->rope[i]);

        json_object_set_new(set, "input", json_string(ew_decoder_rope_input(i)));
        json_array_append_new(list, set);
    }
    return list;
}

static const char *kv_text(ew_dtype dtype)
{
    return dtype == EW_DTYPE_F8E4M3 ? "fp8" : dtype == EW_DTYPE_I8 ? "int8" : "fp32";
}

static json_t *shape_keys(const struct ew_decoder_spec *s)
{
    const struct ew_rope_spec *r = &s->rope[0];
    json_t *o =
        json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:i}",
                  "model", s->family, "spec_decode_type", "none", "engine_role", "llm",
                  "kv_cache_dtype", kv_text(s->kv_dtype), "vocab_size", (json_int_t)s->vocab,
                  "hidden_size", (json_int_t)s->hidden, "intermediate_size", (json_int_t)s->inter,
                  "num_hidden_layers", (json_int_t)s->n_layers, "num_attention_heads",
                  (json_int_t)s->n_heads, "num_key_value_heads", (json_int_t)s->n_kv_heads,
                  "head_dim", (json_int_t)s->head_dim, "max_position_embeddings",
                  (json_int_t)s->max_position, "rope_theta", r->theta, "partial_rotary_factor",
                  (double)r->rotary_dim / (double)s->head_dim, "num_deepstack_features", 0);
    json_t *scaling = r->type == EW_ROPE_DEFAULT ? json_null() : ew_rope_to_json(r);

    json_object_del(scaling, "rotary_dim");
    json_object_del(scaling, "max_position_embeddings");
    json_object_set_new(o, "rope_scaling", scaling);
    if (r->type == EW_ROPE_LONGROPE)
        json_object_set_new(o, "original_max_position_embeddings", json_integer(r->original_max));
    return o;
}

ew_status ew_decoder_llm_config(const struct ew_decoder_spec *s, const struct ew_config *c,
                                char **out, ew_error *err)
{
    json_t *o = shape_keys(s), *eos = json_array(), *generation = json_object();
    json_t *own = json_pack("{s:s, s:f, s:o}", "family", s->family, "embedding_scale",
                            s->embedding_scale, "rope_sets", rope_sets(s));
    char *text = NULL;
    ew_status st = read_eos(c, eos, err);

    json_object_set(o, "eos_token_id", eos);
    if (!st)
        st = copy_id(c, "bos_token_id", o, err);
    if (!st)
        st = copy_id(c, "pad_token_id", o, err);
    if (!st)
        st = copy_generation(c, generation, err);
    json_object_set(own, "generation", generation);
    if (!st && !json_object_set(o, "edgewise", own))
        text = json_dumps(o, JSON_INDENT(2));
    if (!st) {
        *out = text ? ew_mem_strdup(EW_MEM_GRAPH, text) : NULL;
        if (!*out)
            st =
                ew_fail(err, EW_STATUS_NO_MEMORY, "%s: no memory for the engine's config", c->what);
    }
    free(text); /* jansson's own */
    json_decref(own);
    json_decref(generation);
    json_decref(eos);
    json_decref(o);
    return st;
}

static ew_status build(const char *dir, const struct ew_config *c, const ew_checkpoint_opts *opts,
                       const struct ew_decoder_spec *s, ew_graph **out, ew_error *err)
{
    struct ew_safetensors *st = NULL;
    ew_status status;

    EW_TRY(ew_safetensors_open_dir(dir, &st, err));
    ew_log(opts->logger, EW_LOG_INFO, "%s: %s, %lld layers, %zu tensors", dir, s->family,
           (long long)s->n_layers, ew_safetensors_count(st));
    status = ew_decoder_build(s, c, st, opts, out, err);
    if (status)
        ew_error_within(err, "%s", dir);
    return status;
}

ew_status ew_graph_from_checkpoint(const char *dir, const ew_checkpoint_opts *opts, ew_graph **out,
                                   ew_error *err)
{
    const ew_checkpoint_opts defaults = EW_CHECKPOINT_OPTS_INIT;
    struct ew_decoder_spec spec;
    struct ew_config config;
    ew_status s;

    if (!dir || !out)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "ew_graph_from_checkpoint: NULL argument");
    if (opts && opts->struct_size != sizeof(*opts))
        return ew_fail(err, EW_STATUS_INVALID_ARG,
                       "ew_graph_from_checkpoint: struct_size is %u, should be %zu",
                       opts->struct_size, sizeof(*opts));
    opts = opts ? opts : &defaults;
    if (opts->activations < EW_ACTIVATIONS_EXACT || opts->activations > EW_ACTIVATIONS_BF16)
        return ew_fail(err, EW_STATUS_INVALID_ARG,
                       "ew_graph_from_checkpoint: activations is %d, should be 0 to %d",
                       (int)opts->activations, (int)EW_ACTIVATIONS_BF16);
    EW_TRY(ew_config_load(dir, &config, err));
    s = ew_decoder_spec_init(&spec, &config, opts->logger, err);
    if (!s) {
        s = ew_kv_dtype_find(dir, &config, opts->logger, &spec.kv_dtype, err);
        if (!s)
            s = build(dir, &config, opts, &spec, out, err);
        ew_decoder_spec_deinit(&spec);
    }
    ew_config_deinit(&config);
    return s;
}

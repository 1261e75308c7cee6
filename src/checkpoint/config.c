/* checkpoint/config.c - loading, the choice of the text half, and the check of every key. */
#include "checkpoint/config.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/size.h"
#include "base/text.h"
#include "os/os.h"

#define MAX_CONFIG_BYTES ((size_t)16 << 20)

/* Model types that wrap a text model: their text config is nested, or (older files) spread over the
 * root with the text type given here. Text-only running of these is the text model alone: with
 * equal positions in all sections multi-section rope is plain rope, and deep-stacked features are
 * added at image tokens only. */
static const struct {
    const char *type, *flat_type;
} wrappers[] = {
    { "qwen2_vl", "qwen2" }, { "qwen2_5_vl", "qwen2" }, { "qwen3_vl", "qwen3" },
    { "internvl", NULL },    { "gemma3", NULL },        { "mistral3", NULL },
    { "llava", NULL },       { "llava_next", NULL },
};

static const struct {
    const char *type, *same_as;
} text_types[] = {
    { "qwen2_vl_text", "qwen2" },
    { "qwen2_5_vl_text", "qwen2" },
    { "qwen3_vl_text", "qwen3" },
};

/* Read for every family (families/family.c). */
static const char *const common_keys[] = {
    "model_type",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "max_position_embeddings",
    "rms_norm_eps",
    "tie_word_embeddings",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "partial_rotary_factor",
    "original_max_position_embeddings",
    "layer_types",
    "is_causal",           /* check_causal() */
    "quantization_config", /* quant_config.c */
    "compression_config",
};

/* Training, generation, bookkeeping: nothing that changes logits. */
static const char *const harmless_keys[] = {
    "architectures",
    "transformers_version",
    "transformers.js_config",
    "use_cache",
    "initializer_range",
    "dtype",
    "torch_dtype",
    "_name_or_path",
    "name_or_path",
    "pretraining_tp",
    "id2label",
    "label2id",
    "num_labels",
    "problem_type",
    "task_specific_params",
    "tokenizer_class",
    "finetuning_task",
    "gradient_checkpointing",
    "use_bfloat16",
    "return_dict",
    "use_return_dict",
    "torchscript",
    "chunk_size_feed_forward",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "router_aux_loss_coef",
    "auto_map",
    "_attn_implementation",
    "attn_implementation",
    "_attn_implementation_autoset",
    "_commit_hash",
    "_from_model_config",
    "cache_implementation",
    "keys_to_ignore_at_inference",
    "is_llama_config",
    "unsloth_version",
    "unsloth_fixed",
    "unsloth_tokenized",
    "base_model_tp_plan",
    "base_model_pp_plan",
    "prefix",
    "max_length",
    "min_length",
    "do_sample",
    "early_stopping",
    "num_beams",
    "num_beam_groups",
    "diversity_penalty",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
    "repetition_penalty",
    "length_penalty",
    "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size",
    "bad_words_ids",
    "num_return_sequences",
    "suppress_tokens",
    "begin_suppress_tokens",
    "exponential_decay_length_penalty",
    "remove_invalid_values",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "tf_legacy_loss",
    "pruned_heads",
    "router_jitter_noise",
};

static bool in_list(const char *key, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(key, list[i]) == 0)
            return true;
    return false;
}

static bool is_harmless(const char *key)
{
    return in_list(key, harmless_keys, EW_COUNT(harmless_keys)) || ew_ends_with(key, "_token_id") ||
           ew_ends_with(key, "_token_index") || ew_ends_with(key, "dropout") ||
           ew_ends_with(key, "_pdrop") || ew_ends_with(key, "dropout_prob");
}

static bool is_off(const json_t *v)
{
    return json_is_null(v) || json_is_false(v) ||
           (json_is_string(v) && json_string_length(v) == 0) ||
           (json_is_array(v) && json_array_size(v) == 0) ||
           (json_is_object(v) && json_object_size(v) == 0);
}

/* The one key of every family whose "false" is not "off": every token would see those after it. */
static ew_status check_causal(const struct ew_config *c, ew_error *err)
{
    bool causal;

    EW_TRY(ew_config_get_bool(c, "is_causal", true, &causal, err));
    if (!causal)
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "%s: \"is_causal\" false is not supported",
                       c->what);
    return EW_STATUS_OK;
}

ew_status ew_config_check_keys(const struct ew_config *c, const char *const *handled, ew_error *err)
{
    const char *key;
    json_t *value;
    size_t n = 0;

    EW_TRY(check_causal(c, err));
    while (handled[n])
        n++;
    json_object_foreach((json_t *)(uintptr_t)c->text, key, value)
    {
        if (in_list(key, common_keys, EW_COUNT(common_keys)) || in_list(key, handled, n) ||
            is_harmless(key) || is_off(value))
            continue;
        /* Older multimodal files keep the other halves beside the text keys. */
        if (c->multimodal && c->text == c->root && ew_ends_with(key, "_config"))
            continue;
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "%s: key \"%s\" is not supported for model_type \"%s\"", c->what, key,
                       c->type);
    }
    return EW_STATUS_OK;
}

static const char *get_type(const json_t *obj)
{
    return json_string_value(json_object_get(obj, "model_type"));
}

static ew_status choose_text(struct ew_config *c, ew_error *err)
{
    const char *type = get_type(c->root);
    const json_t *nested = json_object_get(c->root, "text_config");

    if (!type)
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: it has no \"model_type\"", c->what);
    c->text = c->root;
    c->type = type;
    for (size_t i = 0; i < EW_COUNT(wrappers); i++) {
        if (strcmp(wrappers[i].type, type) != 0)
            continue;
        c->multimodal = true;
        if (json_is_object(nested)) {
            c->text = nested;
            c->type = get_type(nested);
        } else {
            c->type = wrappers[i].flat_type;
        }
        if (!c->type && strcmp(type, "gemma3") == 0)
            c->type = "gemma3_text";
        if (!c->type)
            return ew_fail(err, EW_STATUS_MALFORMED, "%s: its text_config has no \"model_type\"",
                           c->what);
    }
    if (!c->multimodal && nested)
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "%s: model_type \"%s\" is not supported",
                       c->what, type);
    for (size_t i = 0; i < EW_COUNT(text_types); i++)
        if (strcmp(text_types[i].type, c->type) == 0)
            c->type = text_types[i].same_as;
    return EW_STATUS_OK;
}

static ew_status finish(struct ew_config *c, struct ew_config *out, ew_error *err)
{
    ew_status s = EW_STATUS_OK;

    if (!json_is_object(c->root))
        s = ew_fail(err, EW_STATUS_MALFORMED, "%s: it is not a JSON object", c->what);
    if (!s)
        s = choose_text(c, err);
    if (s) {
        ew_config_deinit(c);
        return s;
    }
    *out = *c;
    return EW_STATUS_OK;
}

static ew_status init(struct ew_config *c, const char *what, ew_error *err)
{
    memset(c, 0, sizeof(*c));
    c->what = ew_mem_strdup(EW_MEM_CHECKPOINT, what);
    if (!c->what)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "%s: no memory to read it", what);
    return EW_STATUS_OK;
}

ew_status ew_config_parse(const char *text, size_t len, const char *what, struct ew_config *out,
                          ew_error *err)
{
    struct ew_config c;
    ew_status s;

    EW_TRY(init(&c, what, err));
    s = ew_json_parse(text, len, what, &c.root, err);
    if (s) {
        ew_config_deinit(&c);
        return s;
    }
    return finish(&c, out, err);
}

ew_status ew_config_load_file(const char *path, struct ew_config *out, ew_error *err)
{
    struct ew_config c;
    ew_status s;

    EW_TRY(init(&c, path, err));
    s = ew_json_load(path, MAX_CONFIG_BYTES, &c.root, err);
    if (s) {
        ew_config_deinit(&c);
        return s;
    }
    return finish(&c, out, err);
}

/* A JSON object beside config.json, if it is there. */
static ew_status load_beside(const char *dir, const char *name, json_t **out, ew_error *err)
{
    char path[4096];

    if (!ew_path_join(path, sizeof(path), dir, name))
        return ew_fail(err, EW_STATUS_LIMIT, "%s: the path is too long", dir);
    if (!ew_path_is_file(path))
        return EW_STATUS_OK;
    EW_TRY(ew_json_load(path, MAX_CONFIG_BYTES, out, err));
    if (!json_is_object(*out))
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: it is not a JSON object", path);
    return EW_STATUS_OK;
}

ew_status ew_config_load(const char *dir, struct ew_config *out, ew_error *err)
{
    char path[4096];
    ew_status s;

    if (!ew_path_join(path, sizeof(path), dir, "config.json"))
        return ew_fail(err, EW_STATUS_LIMIT, "%s: the path is too long", dir);
    EW_TRY(ew_config_load_file(path, out, err));
    s = load_beside(dir, "generation_config.json", &out->generation, err);
    if (!s)
        s = load_beside(dir, "hf_quant_config.json", &out->hf_quant, err);
    if (s)
        ew_config_deinit(out);
    return s;
}

void ew_config_deinit(struct ew_config *c)
{
    json_decref(c->root);
    json_decref(c->generation);
    json_decref(c->hf_quant);
    ew_mem_free(c->what);
    memset(c, 0, sizeof(*c));
}

ew_status ew_config_get_count(const struct ew_config *c, const char *key, int64_t fallback,
                              int64_t min, int64_t max, int64_t *out, ew_error *err)
{
    if (fallback < min)
        EW_TRY(ew_json_get_i64(c->text, key, c->what, out, err));
    else
        EW_TRY(ew_json_get_i64_or(c->text, key, c->what, fallback, out, err));
    if (*out < min)
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: \"%s\" is %" PRId64 ", the least is %" PRId64,
                       c->what, key, *out, min);
    if (*out > max)
        return ew_fail(err, EW_STATUS_LIMIT, "%s: \"%s\" is %" PRId64 ", the most is %" PRId64,
                       c->what, key, *out, max);
    return EW_STATUS_OK;
}

ew_status ew_config_get_number(const struct ew_config *c, const char *key, double fallback,
                               double *out, ew_error *err)
{
    EW_TRY(ew_json_get_f64_or(c->text, key, c->what, fallback, out, err));
    if (!isfinite(*out))
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: \"%s\" is not finite", c->what, key);
    return EW_STATUS_OK;
}

ew_status ew_config_get_bool(const struct ew_config *c, const char *key, bool fallback, bool *out,
                             ew_error *err)
{
    return ew_json_get_bool_or(c->text, key, c->what, fallback, out, err);
}

bool ew_config_has(const struct ew_config *c, const char *key)
{
    const json_t *v = json_object_get(c->text, key);

    return v && !json_is_null(v);
}

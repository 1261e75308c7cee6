/* runtime/llm.c - reads the LLM contract's config.json. What a rope set means is
 * checkpoint/rope.h's. */
#include "runtime/llm.h"

#include <stdio.h>
#include <string.h>

#include "base/json.h"

void ew_llm_config_add_eos_id(struct ew_llm_config *c, int64_t id)
{
    if (id < 0 || id > INT32_MAX || ew_llm_config_is_eos(c, (int32_t)id) ||
        c->n_eos == EW_LLM_MAX_EOS)
        return;
    c->eos[c->n_eos++] = (int32_t)id;
}

bool ew_llm_config_is_eos(const struct ew_llm_config *c, int32_t id)
{
    for (uint32_t i = 0; i < c->n_eos; i++)
        if (c->eos[i] == id)
            return true;
    return false;
}

ew_status ew_llm_config_add_eos(struct ew_llm_config *c, const json_t *obj, const char *what,
                                ew_error *err)
{
    const json_t *v = json_object_get(obj, "eos_token_id");

    if (!v || json_is_null(v))
        return EW_STATUS_OK;
    if (json_is_integer(v)) {
        ew_llm_config_add_eos_id(c, json_integer_value(v));
        return EW_STATUS_OK;
    }
    if (!json_is_array(v))
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: eos_token_id is neither a number nor a list",
                       what);
    if (json_array_size(v) > EW_LLM_MAX_EOS)
        return ew_fail(err, EW_STATUS_LIMIT, "%s: %zu eos_token_ids, at most %d", what,
                       json_array_size(v), EW_LLM_MAX_EOS);
    for (size_t i = 0; i < json_array_size(v); i++) {
        const json_t *id = json_array_get(v, i);

        if (!json_is_integer(id))
            return ew_fail(err, EW_STATUS_MALFORMED, "%s: eos_token_id[%zu] is not an integer",
                           what, i);
        ew_llm_config_add_eos_id(c, json_integer_value(id));
    }
    return EW_STATUS_OK;
}

static ew_status read_size(const json_t *o, const char *key, const char *what, uint32_t *out,
                           ew_error *err)
{
    int64_t v;

    EW_TRY(ew_json_get_i64(o, key, what, &v, err));
    if (v < 1 || v > INT32_MAX)
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: %s is %lld", what, key, (long long)v);
    *out = (uint32_t)v;
    return EW_STATUS_OK;
}

static ew_status set_rope_input(struct ew_llm_config *c, uint32_t i, const char *name,
                                const char *what, ew_error *err)
{
    if (!name || strlen(name) >= sizeof(c->rope_input[i]))
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: edgewise.rope_sets[%u] names no input", what,
                       i);
    (void)snprintf(c->rope_input[i], sizeof(c->rope_input[i]), "%s", name);
    return EW_STATUS_OK;
}

/* "input" is ours; the other keys are the rope dict's, which knows no others. */
static ew_status read_rope_set(const json_t *set, const char *what, struct ew_rope_spec *out,
                               ew_error *err)
{
    json_t *dict = json_copy((json_t *)(uintptr_t)set); /* takes no const, changes nothing */
    ew_status st;

    if (!dict)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "%s: rope set", what);
    json_object_del(dict, "input");
    st = ew_rope_from_json(dict, what, out, err);
    json_decref(dict);
    return st;
}

static ew_status read_rope(const json_t *root, const json_t *ours, const char *what,
                           struct ew_llm_config *c, ew_error *err)
{
    const json_t *sets = json_object_get(ours, "rope_sets");

    if (!sets) {
        c->n_rope = 1;
        EW_TRY(set_rope_input(c, 0, "rope_rotary_cos_sin", what, err));
        return ew_rope_from_llm_config(root, what, &c->rope[0], err);
    }
    if (!json_is_array(sets) || json_array_size(sets) > EW_LLM_MAX_ROPE)
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: edgewise.rope_sets is no list of at most %d",
                       what, EW_LLM_MAX_ROPE);
    c->n_rope = (uint32_t)json_array_size(sets);
    for (uint32_t i = 0; i < c->n_rope; i++) {
        const json_t *set = json_array_get(sets, i);

        EW_TRY(set_rope_input(c, i, json_string_value(json_object_get(set, "input")), what, err));
        EW_TRY(read_rope_set(set, what, &c->rope[i], err));
    }
    return EW_STATUS_OK;
}

static ew_status read_config(const json_t *root, const char *what, struct ew_llm_config *c,
                             ew_error *err)
{
    const json_t *ours = json_object_get(root, "edgewise");
    const char *family;
    double scale;

    if (!json_is_object(root))
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: not an object", what);
    EW_TRY(ew_json_get_str_or(root, "model", what, "unknown", &family, err));
    (void)snprintf(c->family, sizeof(c->family), "%s", family);
    EW_TRY(read_size(root, "vocab_size", what, &c->vocab, err));
    EW_TRY(read_size(root, "hidden_size", what, &c->hidden, err));
    EW_TRY(read_size(root, "num_hidden_layers", what, &c->n_layers, err));
    EW_TRY(read_size(root, "num_attention_heads", what, &c->n_heads, err));
    EW_TRY(read_size(root, "num_key_value_heads", what, &c->n_kv_heads, err));
    EW_TRY(read_size(root, "head_dim", what, &c->head_dim, err));
    EW_TRY(read_size(root, "max_position_embeddings", what, &c->max_position, err));
    EW_TRY(ew_json_get_f64_or(ours, "embedding_scale", what, 1, &scale, err));
    c->embedding_scale = (float)scale;
    EW_TRY(read_rope(root, ours, what, c, err));
    return ew_llm_config_add_eos(c, root, what, err);
}

ew_status ew_llm_config_parse(const char *text, const char *what, struct ew_llm_config *out,
                              ew_error *err)
{
    json_t *root = NULL;
    ew_status st;

    memset(out, 0, sizeof(*out));
    EW_TRY(ew_json_parse(text, strlen(text), what, &root, err));
    st = read_config(root, what, out, err);
    json_decref(root);
    return st;
}

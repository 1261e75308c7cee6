/* families/family.c - the list of families, and what they read alike. */
#include "checkpoint/families/family.h"

#include <inttypes.h>
#include <string.h>

#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/size.h"

/* Caps against nonsense: far above any model, far below what overflows. */
#define MAX_LAYERS   4096
#define MAX_WIDTH    ((int64_t)1 << 22)
#define MAX_VOCAB    ((int64_t)1 << 26)
#define MAX_HEADS    65536
#define MAX_HEAD_DIM 4096
#define MAX_POSITION ((int64_t)1 << 31)
#define MAX_EXPERTS  65536

static const struct ew_family *const families[] = {
    &ew_family_qwen2,   &ew_family_qwen3,   &ew_family_qwen3_moe, &ew_family_llama,
    &ew_family_mistral, &ew_family_phi3,    &ew_family_gemma3,    &ew_family_smollm3,
    &ew_family_olmo2,   &ew_family_granite, &ew_family_mixtral,
};

static ew_status read_act(const struct ew_config *c, const char *key, const char *fallback,
                          int *out, ew_error *err)
{
    static const struct {
        const char *name;
        enum ew_act act;
    } acts[] = {
        { "silu", EW_ACT_SILU },          { "swish", EW_ACT_SILU },
        { "gelu", EW_ACT_GELU_ERF },      { "gelu_pytorch_tanh", EW_ACT_GELU_TANH },
        { "gelu_new", EW_ACT_GELU_TANH }, { "relu", EW_ACT_RELU },
        { "relu2", EW_ACT_RELU2 },
    };
    const char *name;

    if (json_is_null(json_object_get(c->text, key)))
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "%s: \"%s\" is null, an activation is needed",
                       c->what, key);
    EW_TRY(ew_json_get_str_or(c->text, key, c->what, fallback, &name, err));
    for (size_t i = 0; i < EW_COUNT(acts); i++) {
        if (strcmp(acts[i].name, name) == 0) {
            *out = acts[i].act;
            return EW_STATUS_OK;
        }
    }
    return ew_fail(err, EW_STATUS_UNSUPPORTED, "%s: \"%s\": \"%s\" is not supported", c->what, key,
                   name);
}

static ew_status read_heads(const struct ew_config *c, const struct ew_family_defaults *d,
                            struct ew_decoder_spec *s, ew_error *err)
{
    const int64_t even = s->hidden / s->n_heads;
    int64_t kv = d->n_kv_heads;

    /* A null is "as many as heads", whatever an absent key means. */
    if (!kv || json_is_null(json_object_get(c->text, "num_key_value_heads")))
        kv = s->n_heads;
    EW_TRY(ew_config_get_count(c, "num_key_value_heads", kv, 1, MAX_HEADS, &s->n_kv_heads, err));
    if (s->n_heads % s->n_kv_heads)
        return ew_fail(err, EW_STATUS_MALFORMED,
                       "%s: \"num_attention_heads\" %" PRId64 " is not a multiple of "
                       "\"num_key_value_heads\" %" PRId64,
                       c->what, s->n_heads, s->n_kv_heads);
    if (!ew_config_has(c, "head_dim") && !d->head_dim && s->hidden % s->n_heads)
        return ew_fail(err, EW_STATUS_MALFORMED,
                       "%s: \"hidden_size\" %" PRId64 " is not a multiple of "
                       "\"num_attention_heads\" %" PRId64,
                       c->what, s->hidden, s->n_heads);
    return ew_config_get_count(c, "head_dim", d->head_dim ? d->head_dim : even, 1, MAX_HEAD_DIM,
                               &s->head_dim, err);
}

static ew_status read_rope(const struct ew_config *c, const struct ew_family_defaults *d,
                           struct ew_decoder_spec *s, ew_error *err)
{
    const json_t *dict = json_object_get(c->text, "rope_scaling");
    struct ew_rope_context ctx = { .head_dim = s->head_dim,
                                   .max_position = s->max_position,
                                   .yarn_is_longrope = d->partial_rope };

    if (!dict || json_is_null(dict) || (json_is_object(dict) && !json_object_size(dict)))
        dict = json_object_get(c->text, "rope_parameters");
    EW_TRY(ew_config_get_number(c, "rope_theta", d->rope_theta, &ctx.theta, err));
    EW_TRY(ew_config_get_number(c, "partial_rotary_factor", 1, &ctx.partial, err));
    EW_TRY(ew_config_get_count(c, "original_max_position_embeddings", d->original_max, 0,
                               MAX_POSITION, &ctx.original_max, err));
    EW_TRY(ew_rope_parse(dict, &ctx, c->what, &s->rope[0], err));
    s->n_rope = 1;
    if (!d->partial_rope && s->rope[0].rotary_dim != s->head_dim)
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "%s: \"partial_rotary_factor\" is not supported for model_type \"%s\"",
                       c->what, c->type);
    return EW_STATUS_OK;
}

/* Families that have no per-layer types: the key may only say what is so anyway. */
static ew_status check_uniform(const struct ew_config *c, ew_error *err)
{
    const json_t *types = json_object_get(c->text, "layer_types");

    for (size_t i = 0; i < json_array_size(types); i++) {
        const char *type = json_string_value(json_array_get(types, i));

        if (!type || strcmp(type, "full_attention") != 0)
            return ew_fail(err, EW_STATUS_UNSUPPORTED,
                           "%s: \"layer_types\"[%zu] \"%s\" is not supported for model_type \"%s\"",
                           c->what, i, type ? type : "?", c->type);
    }
    return EW_STATUS_OK;
}

static ew_status read_tied(const struct ew_config *c, bool fallback, bool *out, ew_error *err)
{
    bool named;

    EW_TRY(ew_config_get_bool(c, "tie_word_embeddings", fallback, out, err));
    named = *out && ew_config_has(c, "tie_word_embeddings");
    /* The head belongs to the wrapper, whose key wins, but for a text half that says "tied". */
    EW_TRY(ew_json_get_bool_or(c->root, "tie_word_embeddings", c->what, *out, out, err));
    *out = *out || named;
    return EW_STATUS_OK;
}

ew_status ew_family_read_shape(const struct ew_config *c, const struct ew_family_defaults *d,
                               struct ew_decoder_spec *s, ew_error *err)
{
    const char *act_key = d->act_key ? d->act_key : "hidden_act";

    EW_TRY(ew_config_get_count(c, "vocab_size", d->vocab, 1, MAX_VOCAB, &s->vocab, err));
    EW_TRY(ew_config_get_count(c, "hidden_size", d->hidden, 1, MAX_WIDTH, &s->hidden, err));
    EW_TRY(ew_config_get_count(c, "intermediate_size", d->inter, 1, MAX_WIDTH, &s->inter, err));
    EW_TRY(
        ew_config_get_count(c, "num_hidden_layers", d->n_layers, 1, MAX_LAYERS, &s->n_layers, err));
    EW_TRY(
        ew_config_get_count(c, "num_attention_heads", d->n_heads, 1, MAX_HEADS, &s->n_heads, err));
    EW_TRY(read_heads(c, d, s, err));
    EW_TRY(ew_config_get_count(c, "max_position_embeddings", d->max_position, 1, MAX_POSITION,
                               &s->max_position, err));
    EW_TRY(ew_config_get_number(c, "rms_norm_eps", d->norm_eps, &s->norm_eps, err));
    if (s->norm_eps < 0)
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: \"rms_norm_eps\" is %g", c->what,
                       s->norm_eps);
    EW_TRY(read_act(c, act_key, d->act ? d->act : "silu", &s->act, err));
    EW_TRY(read_tied(c, d->tied_head, &s->tied_head, err));
    s->embedding_scale = s->residual_scale = s->logits_divisor = 1;
    if (!d->own_rope)
        EW_TRY(read_rope(c, d, s, err));
    s->layers = ew_mem_calloc(EW_MEM_CHECKPOINT, (size_t)s->n_layers, sizeof(*s->layers));
    if (!s->layers)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "%s: no memory for %" PRId64 " layers", c->what,
                       s->n_layers);
    for (int64_t i = 0; i < s->n_layers; i++)
        s->layers[i].window = -1;
    return EW_STATUS_OK;
}

ew_status ew_family_read_biases(const struct ew_config *c, bool mlp, struct ew_decoder_spec *s,
                                ew_error *err)
{
    EW_TRY(ew_config_get_bool(c, "attention_bias", false, &s->qkv_bias, err));
    s->o_bias = s->qkv_bias;
    if (mlp)
        EW_TRY(ew_config_get_bool(c, "mlp_bias", false, &s->mlp_bias, err));
    return EW_STATUS_OK;
}

ew_status ew_family_read_window(const struct ew_config *c, int64_t fallback, int64_t *out,
                                ew_error *err)
{
    const json_t *v = json_object_get(c->text, "sliding_window");

    *out = -1;
    if (json_is_null(v) || (!v && fallback < 1))
        return EW_STATUS_OK;
    return ew_config_get_count(c, "sliding_window", fallback, 1, INT64_MAX, out, err);
}

ew_status ew_family_read_layer_types(const struct ew_config *c, int64_t window,
                                     struct ew_decoder_spec *s, bool *found, ew_error *err)
{
    const json_t *types = json_object_get(c->text, "layer_types");

    *found = types && !json_is_null(types);
    if (!*found)
        return EW_STATUS_OK;
    if (!json_is_array(types) || json_array_size(types) != (size_t)s->n_layers)
        return ew_fail(err, EW_STATUS_MALFORMED,
                       "%s: \"layer_types\" has %zu entries, the model %" PRId64 " layers", c->what,
                       json_array_size(types), s->n_layers);
    for (int64_t i = 0; i < s->n_layers; i++) {
        const char *type = json_string_value(json_array_get(types, (size_t)i));

        if (type && strcmp(type, "full_attention") == 0) {
            s->layers[i].window = -1;
        } else if (type && strcmp(type, "sliding_attention") == 0) {
            if (window < 1)
                return ew_fail(err, EW_STATUS_MALFORMED,
                               "%s: layer %" PRId64 " is \"sliding_attention\", "
                               "but \"sliding_window\" is off",
                               c->what, i);
            s->layers[i].window = window;
        } else {
            return ew_fail(err, EW_STATUS_UNSUPPORTED,
                           "%s: \"layer_types\"[%" PRId64 "] \"%s\" is not supported", c->what, i,
                           type ? type : "?");
        }
    }
    return EW_STATUS_OK;
}

ew_status ew_family_read_experts(const struct ew_config *c, int64_t n_fallback,
                                 int64_t top_k_fallback, struct ew_decoder_spec *s, ew_error *err)
{
    const char *key = ew_config_has(c, "num_experts") ? "num_experts" : "num_local_experts";

    EW_TRY(ew_config_get_count(c, key, n_fallback, 1, MAX_EXPERTS, &s->n_experts, err));
    return ew_config_get_count(c, "num_experts_per_tok", top_k_fallback, 1, s->n_experts, &s->top_k,
                               err);
}

ew_status ew_family_read_ints(const struct ew_config *c, const char *key, int64_t n,
                              void (*use)(struct ew_decoder_spec *s, size_t i, int64_t v),
                              struct ew_decoder_spec *s, bool *found, ew_error *err)
{
    const json_t *list = json_object_get(c->text, key);

    *found = list && !json_is_null(list);
    if (!*found)
        return EW_STATUS_OK;
    if (!json_is_array(list) || (n >= 0 && json_array_size(list) < (size_t)n))
        return ew_fail(err, EW_STATUS_MALFORMED,
                       "%s: \"%s\" is not a list of %" PRId64 " numbers (it has %zu)", c->what, key,
                       n, json_array_size(list));
    for (size_t i = 0; i < (n >= 0 ? (size_t)n : json_array_size(list)); i++) {
        const json_t *v = json_array_get(list, i);

        if (!json_is_integer(v))
            return ew_fail(err, EW_STATUS_MALFORMED, "%s: \"%s\"[%zu] is not an integer", c->what,
                           key, i);
        use(s, i, json_integer_value(v));
    }
    return EW_STATUS_OK;
}

/* What cannot be right together, whatever the family. */
static ew_status check_spec(const struct ew_decoder_spec *s, const struct ew_config *c,
                            ew_error *err)
{
    if (s->attention_scale < 0 || s->logits_divisor == 0 || s->attention_softcap < 0 ||
        s->logits_softcap < 0)
        return ew_fail(err, EW_STATUS_MALFORMED,
                       "%s: attention scale %g, logits divisor %g, soft-caps %g and %g: "
                       "none may be negative, nor the divisor 0",
                       c->what, s->attention_scale, s->logits_divisor, s->attention_softcap,
                       s->logits_softcap);
    return EW_STATUS_OK;
}

ew_status ew_decoder_spec_init(struct ew_decoder_spec *out, const struct ew_config *c,
                               const ew_logger *logger, ew_error *err)
{
    const struct ew_family *f = NULL;
    struct ew_decoder_spec s = { .kv_dtype = EW_DTYPE_F32 };
    ew_status st;

    for (size_t i = 0; i < EW_COUNT(families) && !f; i++)
        if (strcmp(families[i]->type, c->type) == 0)
            f = families[i];
    if (!f)
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "%s: model_type \"%s\" is not supported",
                       c->what, c->type);
    s.family = f->type;
    EW_TRY(ew_config_check_keys(c, f->keys, err));
    st = f->read(c, &s, err);
    if (!st && f != &ew_family_qwen2 && f != &ew_family_qwen3 && f != &ew_family_gemma3 &&
        f != &ew_family_smollm3 && (f != &ew_family_mistral || c->multimodal))
        st = check_uniform(c, err);
    if (!st)
        st = check_spec(&s, c, err);
    if (st) {
        ew_decoder_spec_deinit(&s);
        return st;
    }
    if (f == &ew_family_gemma3 && ew_config_has(c, "attn_logit_softcapping"))
        ew_log(logger, EW_LOG_WARN,
               "%s: \"attn_logit_softcapping\" has no effect in gemma3, as in transformers",
               c->what);
    if (f == &ew_family_gemma3 && c->multimodal && ew_config_has(c, "final_logit_softcapping"))
        ew_log(logger, EW_LOG_WARN,
               "%s: \"final_logit_softcapping\" has no effect below model_type \"gemma3\", as in "
               "transformers",
               c->what);
    *out = s;
    return EW_STATUS_OK;
}

void ew_decoder_spec_deinit(struct ew_decoder_spec *s)
{
    ew_mem_free(s->layers);
    s->layers = NULL;
}

ew_status ew_family_read_qwen_windows(const struct ew_config *c, struct ew_decoder_spec *s,
                                      ew_error *err)
{
    bool windowed, typed;
    int64_t window, first;

    EW_TRY(ew_config_get_bool(c, "use_sliding_window", false, &windowed, err));
    EW_TRY(ew_family_read_window(c, 4096, &window, err));
    EW_TRY(ew_config_get_count(c, "max_window_layers", 28, 0, INT64_MAX, &first, err));
    window = windowed ? window : -1;
    EW_TRY(ew_family_read_layer_types(c, window, s, &typed, err));
    for (int64_t i = first; !typed && i < s->n_layers; i++)
        s->layers[i].window = window;
    return EW_STATUS_OK;
}

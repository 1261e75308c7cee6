/* families/gemma3.c - Gemma 3 (text): norms before and after each block with weights stored as w -
 * 1, scaled embeddings, per-head norms of q and k, two rope tables. attn_logit_softcapping is in
 * its config class but not in its attention: no released model sets it, transformers ignores it. */
#include "checkpoint/families/family.h"

#include <math.h>

#include "base/json.h"

static const char *const keys[] = { "hidden_activation",       "attention_bias",
                                    "query_pre_attn_scalar",   "sliding_window",
                                    "sliding_window_pattern",  "_sliding_window_pattern",
                                    "final_logit_softcapping", "attn_logit_softcapping",
                                    "rope_local_base_freq",    NULL };

/* Old files: rope_theta, rope_scaling and rope_local_base_freq. New ones: a dict per layer type. */
static ew_status read_ropes(const struct ew_config *c, struct ew_decoder_spec *s, ew_error *err)
{
    const json_t *dicts = json_object_get(c->text, "rope_parameters");
    const json_t *full = json_object_get(dicts, "full_attention");
    const json_t *sliding = json_object_get(dicts, "sliding_attention");
    const json_t *scaling = json_object_get(c->text, "rope_scaling");
    struct ew_rope_context ctx = { .head_dim = s->head_dim, .max_position = s->max_position };

    if (json_object_size(dicts) != (full ? 1u : 0u) + (sliding ? 1u : 0u))
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "%s: \"rope_parameters\" has other entries than full_attention and "
                       "sliding_attention",
                       c->what);
    if (json_object_size(scaling) && full)
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "%s: both \"rope_scaling\" and \"rope_parameters\" are given", c->what);
    if (json_object_size(scaling))
        full = scaling;
    EW_TRY(ew_config_get_number(c, "partial_rotary_factor", 1, &ctx.partial, err));
    EW_TRY(ew_config_get_number(c, "rope_theta", 1e6, &ctx.theta, err));
    EW_TRY(ew_rope_parse(full, &ctx, c->what, &s->rope[0], err));
    EW_TRY(ew_config_get_number(c, "rope_local_base_freq", 10000, &ctx.theta, err));
    EW_TRY(ew_rope_parse(sliding, &ctx, c->what, &s->rope[1], err));
    if (s->rope[0].rotary_dim != s->head_dim || s->rope[1].rotary_dim != s->head_dim)
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "%s: \"partial_rotary_factor\" is not supported for model_type \"%s\"",
                       c->what, c->type);
    return EW_STATUS_OK;
}

static ew_status read_layers(const struct ew_config *c, struct ew_decoder_spec *s, ew_error *err)
{
    int64_t window, pattern;
    bool typed;

    EW_TRY(ew_family_read_window(c, 4096, &window, err));
    EW_TRY(ew_family_read_layer_types(c, window, s, &typed, err));
    /* "_sliding_window_pattern" is what saving leaves behind; no one reads it back. */
    EW_TRY(ew_config_get_count(c, "sliding_window_pattern", 6, 1, INT64_MAX, &pattern, err));
    s->n_rope = 1;
    for (int64_t i = 0; i < s->n_layers; i++) {
        if (!typed && (i + 1) % pattern != 0) {
            if (window < 1)
                return ew_fail(err, EW_STATUS_MALFORMED,
                               "%s: sliding layers, but \"sliding_window\" is null", c->what);
            s->layers[i].window = window;
        }
        if (s->layers[i].window > 0) {
            s->layers[i].rope_set = 1;
            s->n_rope = 2;
        }
    }
    return EW_STATUS_OK;
}

static ew_status read_spec(const struct ew_config *c, struct ew_decoder_spec *s, ew_error *err)
{
    const struct ew_family_defaults d = { .vocab = 262208,
                                          .hidden = 2304,
                                          .inter = 9216,
                                          .n_layers = 26,
                                          .n_heads = 8,
                                          .n_kv_heads = 4,
                                          .head_dim = 256,
                                          .max_position = 131072,
                                          .norm_eps = 1e-6,
                                          .tied_head = true,
                                          .act_key = "hidden_activation",
                                          .act = "gelu_pytorch_tanh",
                                          .own_rope = true };
    double scalar;

    EW_TRY(ew_family_read_shape(c, &d, s, err));
    EW_TRY(ew_family_read_biases(c, false, s, err));
    EW_TRY(ew_config_get_number(c, "query_pre_attn_scalar", 256, &scalar, err));
    if (scalar <= 0)
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: \"query_pre_attn_scalar\" is %g", c->what,
                       scalar);
    s->attention_scale = 1.0 / sqrt(scalar);
    s->embedding_scale = sqrt((double)s->hidden);
    s->norm_plus_one = true;
    s->norm_place = EW_NORM_SANDWICH;
    s->qk_norm = EW_QK_NORM_HEAD;
    EW_TRY(ew_config_get_number(c, "final_logit_softcapping", 0, &s->logits_softcap, err));
    if (c->multimodal) /* the wrapper's head has no soft-cap */
        s->logits_softcap = 0;
    EW_TRY(read_ropes(c, s, err));
    return read_layers(c, s, err);
}

const struct ew_family ew_family_gemma3 = { "gemma3_text", keys, read_spec };

/* families/granite.c - Granite 3: llama with four multipliers. */
#include "checkpoint/families/family.h"

static const char *const keys[] = { "attention_bias",
                                    "mlp_bias",
                                    "embedding_multiplier",
                                    "attention_multiplier",
                                    "residual_multiplier",
                                    "logits_scaling",
                                    NULL };

static ew_status read_spec(const struct ew_config *c, struct ew_decoder_spec *s, ew_error *err)
{
    const struct ew_family_defaults d = { .max_position = 2048,
                                          .norm_eps = 1e-6,
                                          .rope_theta = 10000 };

    EW_TRY(ew_family_read_shape(c, &d, s, err));
    EW_TRY(ew_family_read_biases(c, true, s, err));
    EW_TRY(ew_config_get_number(c, "embedding_multiplier", 1, &s->embedding_scale, err));
    EW_TRY(ew_config_get_number(c, "residual_multiplier", 1, &s->residual_scale, err));
    EW_TRY(ew_config_get_number(c, "attention_multiplier", 1, &s->attention_scale, err));
    EW_TRY(ew_config_get_number(c, "logits_scaling", 1, &s->logits_divisor, err));
    if (s->attention_scale == 0) /* 0 is "default" in the spec */
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "%s: \"attention_multiplier\" is 0", c->what);
    return EW_STATUS_OK;
}

const struct ew_family ew_family_granite = { "granite", keys, read_spec };

/* families/llama.c - Llama 2 and 3.x. */
#include "checkpoint/families/family.h"

static const char *const keys[] = { "attention_bias", "mlp_bias", NULL };

static ew_status read_spec(const struct ew_config *c, struct ew_decoder_spec *s, ew_error *err)
{
    const struct ew_family_defaults d = { .max_position = 2048,
                                          .norm_eps = 1e-6,
                                          .rope_theta = 10000 };

    EW_TRY(ew_family_read_shape(c, &d, s, err));
    return ew_family_read_biases(c, true, s, err);
}

const struct ew_family ew_family_llama = { "llama", keys, read_spec };

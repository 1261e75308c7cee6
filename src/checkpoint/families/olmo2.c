/* families/olmo2.c - OLMo 2: norms after the blocks, and over the whole width of q and k. */
#include "checkpoint/families/family.h"

static const char *const keys[] = { "attention_bias", NULL };

static ew_status read_spec(const struct ew_config *c, struct ew_decoder_spec *s, ew_error *err)
{
    const struct ew_family_defaults d = { .max_position = 2048,
                                          .norm_eps = 1e-5,
                                          .rope_theta = 10000 };

    EW_TRY(ew_family_read_shape(c, &d, s, err));
    s->norm_place = EW_NORM_POST;
    s->qk_norm = EW_QK_NORM_FULL;
    return ew_family_read_biases(c, false, s, err);
}

const struct ew_family ew_family_olmo2 = { "olmo2", keys, read_spec };

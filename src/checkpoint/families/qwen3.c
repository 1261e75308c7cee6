/* families/qwen3.c - Qwen3: per-head norms of q and k, no biases unless asked for. */
#include "checkpoint/families/family.h"

static const char *const keys[] = { "use_sliding_window", "sliding_window", "max_window_layers",
                                    "attention_bias", NULL };

static ew_status read_spec(const struct ew_config *c, struct ew_decoder_spec *s, ew_error *err)
{
    const struct ew_family_defaults d = { .n_kv_heads = 32,
                                          .head_dim = 128,
                                          .max_position = 32768,
                                          .norm_eps = 1e-6,
                                          .rope_theta = 10000 };

    EW_TRY(ew_family_read_shape(c, &d, s, err));
    EW_TRY(ew_family_read_biases(c, false, s, err));
    s->qk_norm = EW_QK_NORM_HEAD;
    return ew_family_read_qwen_windows(c, s, err);
}

const struct ew_family ew_family_qwen3 = { "qwen3", keys, read_spec };

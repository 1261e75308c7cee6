/* families/qwen2.c - Qwen2 and Qwen2.5: biases on q, k, v; optional windows on the later layers. */
#include "checkpoint/families/family.h"

static const char *const keys[] = { "use_sliding_window", "sliding_window", "max_window_layers",
                                    NULL };

static ew_status read_spec(const struct ew_config *c, struct ew_decoder_spec *s, ew_error *err)
{
    const struct ew_family_defaults d = {
        .n_kv_heads = 32, .max_position = 32768, .norm_eps = 1e-6, .rope_theta = 10000
    };

    EW_TRY(ew_family_read_shape(c, &d, s, err));
    s->qkv_bias = true;
    return ew_family_read_qwen_windows(c, s, err);
}

const struct ew_family ew_family_qwen2 = { "qwen2", keys, read_spec };

/* families/mixtral.c - Mixtral: mistral with experts in every layer, weights of the chosen ones
 * always summing to 1. */
#include "checkpoint/families/family.h"

static const char *const keys[] = { "sliding_window", "num_local_experts", "num_experts",
                                    "num_experts_per_tok", NULL };

static ew_status read_spec(const struct ew_config *c, struct ew_decoder_spec *s, ew_error *err)
{
    const struct ew_family_defaults d = {
        .n_kv_heads = 8, .max_position = 131072, .norm_eps = 1e-5, .rope_theta = 1e6
    };
    int64_t window;

    EW_TRY(ew_family_read_shape(c, &d, s, err));
    EW_TRY(ew_family_read_window(c, -1, &window, err));
    EW_TRY(ew_family_read_experts(c, 8, 2, s, err));
    s->moe_inter = s->inter;
    s->norm_topk = true;
    for (int64_t i = 0; i < s->n_layers; i++) {
        s->layers[i].window = window;
        s->layers[i].moe = true;
    }
    return EW_STATUS_OK;
}

const struct ew_family ew_family_mixtral = { "mixtral", keys, read_spec };

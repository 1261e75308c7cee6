/* families/qwen3_moe.c - Qwen3 with experts in some layers. */
#include "checkpoint/families/family.h"

static const char *const keys[] = {
    "use_sliding_window",  "sliding_window",
    "attention_bias",      "max_window_layers", /* in the files, read by nobody */
    "num_experts",         "num_local_experts",
    "num_experts_per_tok", "moe_intermediate_size",
    "norm_topk_prob",      "mlp_only_layers",
    "decoder_sparse_step", NULL
};

static void set_dense(struct ew_decoder_spec *s, size_t i, int64_t layer)
{
    (void)i;
    if (layer >= 0 && layer < s->n_layers)
        s->layers[layer].moe = false;
}

static ew_status read_spec(const struct ew_config *c, struct ew_decoder_spec *s, ew_error *err)
{
    const struct ew_family_defaults d = {
        .n_kv_heads = 4, .max_position = 32768, .norm_eps = 1e-6, .rope_theta = 10000
    };
    bool windowed, found;
    int64_t window, step;

    EW_TRY(ew_family_read_shape(c, &d, s, err));
    EW_TRY(ew_family_read_biases(c, false, s, err));
    s->qk_norm = EW_QK_NORM_HEAD;
    EW_TRY(ew_family_read_experts(c, 128, 8, s, err));
    EW_TRY(ew_config_get_count(c, "moe_intermediate_size", 768, 1, (int64_t)1 << 22, &s->moe_inter,
                               err));
    EW_TRY(ew_config_get_bool(c, "norm_topk_prob", false, &s->norm_topk, err));
    EW_TRY(ew_config_get_count(c, "decoder_sparse_step", 1, 1, INT64_MAX, &step, err));
    EW_TRY(ew_config_get_bool(c, "use_sliding_window", false, &windowed, err));
    EW_TRY(ew_family_read_window(c, 4096, &window, err));
    for (int64_t i = 0; i < s->n_layers; i++) {
        s->layers[i].moe = (i + 1) % step == 0;
        s->layers[i].window = windowed ? window : -1;
    }
    return ew_family_read_ints(c, "mlp_only_layers", -1, set_dense, s, &found, err);
}

const struct ew_family ew_family_qwen3_moe = { "qwen3_moe", keys, read_spec };

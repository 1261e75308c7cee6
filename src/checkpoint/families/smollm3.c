/* families/smollm3.c - SmolLM3: llama with some layers that do not encode positions. */
#include "checkpoint/families/family.h"

static const char *const keys[] = { "attention_bias",     "mlp_bias",
                                    "no_rope_layers",     "no_rope_layer_interval",
                                    "use_sliding_window", "sliding_window",
                                    "max_window_layers",  NULL };

/* The list says which layers do have rope, its name notwithstanding. */
static void set_rope(struct ew_decoder_spec *s, size_t i, int64_t has_rope)
{
    s->layers[i].rope_set = has_rope ? 0 : -1;
}

static ew_status read_spec(const struct ew_config *c, struct ew_decoder_spec *s, ew_error *err)
{
    const struct ew_family_defaults d = { .n_kv_heads = 4,
                                          .max_position = 32768,
                                          .norm_eps = 1e-6,
                                          .rope_theta = 2e6,
                                          .tied_head = true };
    bool listed, typed, windowed;
    int64_t interval, window;

    EW_TRY(ew_family_read_shape(c, &d, s, err));
    EW_TRY(ew_family_read_biases(c, true, s, err));
    EW_TRY(ew_config_get_count(c, "no_rope_layer_interval", 4, 1, INT64_MAX, &interval, err));
    EW_TRY(ew_family_read_ints(c, "no_rope_layers", s->n_layers, set_rope, s, &listed, err));
    for (int64_t i = 0; !listed && i < s->n_layers; i++)
        set_rope(s, (size_t)i, (i + 1) % interval != 0);
    EW_TRY(ew_config_get_bool(c, "use_sliding_window", false, &windowed, err));
    EW_TRY(ew_family_read_window(c, -1, &window, err));
    /* Masks follow layer_types alone; use_sliding_window only says what the types are if absent. */
    EW_TRY(ew_family_read_layer_types(c, window, s, &typed, err));
    window = windowed ? window : -1;
    for (int64_t i = 0; !typed && i < s->n_layers; i++)
        if (s->layers[i].rope_set < 0)
            s->layers[i].window = window;
    return EW_STATUS_OK;
}

const struct ew_family ew_family_smollm3 = { "smollm3", keys, read_spec };

/* families/mistral.c - Mistral: llama with a sliding window on every layer, or on those that
 * layer_types names (transformers then reads the file as "ministral"). */
#include "checkpoint/families/family.h"

static const char *const keys[] = { "sliding_window", NULL };

static ew_status read_spec(const struct ew_config *c, struct ew_decoder_spec *s, ew_error *err)
{
    const struct ew_family_defaults d = {
        .n_kv_heads = 8, .max_position = 131072, .norm_eps = 1e-6, .rope_theta = 10000
    };
    int64_t window;
    bool typed = false;

    EW_TRY(ew_family_read_shape(c, &d, s, err));
    EW_TRY(ew_family_read_window(c, 4096, &window, err));
    if (!c->multimodal)
        EW_TRY(ew_family_read_layer_types(c, window, s, &typed, err));
    for (int64_t i = 0; !typed && i < s->n_layers; i++)
        s->layers[i].window = window;
    return EW_STATUS_OK;
}

const struct ew_family ew_family_mistral = { "mistral", keys, read_spec };

/* families/phi3.c - Phi-3, Phi-3.5, Phi-4-mini: fused qkv and gate_up, longrope, partial rotation.
 */
#include "checkpoint/families/family.h"

static const char *const keys[] = { "sliding_window", "full_attn_mod", "interpolate_factor", NULL };

static ew_status read_spec(const struct ew_config *c, struct ew_decoder_spec *s, ew_error *err)
{
    const struct ew_family_defaults d = { .max_position = 4096,
                                          .norm_eps = 1e-5,
                                          .rope_theta = 10000,
                                          .partial_rope = true,
                                          .original_max = 4096 };
    int64_t window, one;

    EW_TRY(ew_family_read_shape(c, &d, s, err));
    if (s->rope[0].type != EW_ROPE_DEFAULT && s->rope[0].type != EW_ROPE_LONGROPE)
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "%s: phi3 has the rope types default and longrope only", c->what);
    /* Leftovers of the training code: 1 is "no effect". */
    EW_TRY(ew_config_get_count(c, "full_attn_mod", 1, 1, 1, &one, err));
    EW_TRY(ew_config_get_count(c, "interpolate_factor", 1, 1, 1, &one, err));
    EW_TRY(ew_family_read_window(c, -1, &window, err));
    s->fused_qkv = s->fused_gate_up = true;
    for (int64_t i = 0; i < s->n_layers; i++)
        s->layers[i].window = window;
    return EW_STATUS_OK;
}

const struct ew_family ew_family_phi3 = { "phi3", keys, read_spec };

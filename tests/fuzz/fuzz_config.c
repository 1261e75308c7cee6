/* config.json on any bytes: the spec of a family, its contract as JSON, rows of its rope tables,
 * and what its quantization_config says about some modules. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"
#include "checkpoint/decoder.h"
#include "checkpoint/quant_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use_spec(const struct ew_decoder_spec *s, const struct ew_config *c)
{
    float row[2 * EW_ROPE_MAX_HALF];
    char *text;

    for (int i = 0; i < s->n_rope; i++) {
        const struct ew_rope_spec *r = &s->rope[i];

        if (r->rotary_dim < 2 || r->rotary_dim > 2 * EW_ROPE_MAX_HALF)
            __builtin_trap();
        ew_rope_fill(r, 0, 0, 1, row);
        ew_rope_fill(r, 1 << 20, (1 << 20) - 1, 1, row);
    }
    for (int64_t i = 0; i < s->n_layers; i++)
        if (s->layers[i].rope_set >= s->n_rope || s->layers[i].window == 0)
            __builtin_trap();
    if (!ew_decoder_llm_config(s, c, &text, NULL))
        ew_mem_free(text);
}

static void use_quant(const struct ew_config *c)
{
    static const char *const modules[] = { "model.layers.0.self_attn.q_proj", "lm_head",
                                           "model.layers.11.mlp.experts.7.down_proj" };
    struct ew_qx_config *q;

    if (ew_qx_config_open(c, &q, NULL))
        return;
    for (size_t i = 0; i < sizeof(modules) / sizeof(modules[0]); i++) {
        const struct ew_qx_scheme *s = NULL;

        if (ew_qx_config_find(q, modules[i], "Linear", &s, NULL))
            continue;
        if (s->layout != EW_QX_PLAIN && (!s->codes || !s->scales || !s->grains))
            __builtin_trap();
        if ((s->grains & EW_QX_BLOCK) && (!s->block_n || !s->group))
            __builtin_trap();
    }
    ew_qx_config_close(q);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ew_decoder_spec spec;
    struct ew_config c;

    if (ew_config_parse((const char *)data, size, "fuzz", &c, NULL))
        return 0;
    use_quant(&c);
    if (!ew_decoder_spec_init(&spec, &c, NULL, NULL)) {
        use_spec(&spec, &c);
        ew_decoder_spec_deinit(&spec);
    }
    ew_config_deinit(&c);
    return 0;
}

/* config.json on any bytes: the spec of a family, its contract as JSON, and rows of its rope
 * tables. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"
#include "checkpoint/decoder.h"

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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ew_decoder_spec spec;
    struct ew_config c;

    if (ew_config_parse((const char *)data, size, "fuzz", &c, NULL))
        return 0;
    if (!ew_decoder_spec_init(&spec, &c, NULL, NULL)) {
        use_spec(&spec, &c);
        ew_decoder_spec_deinit(&spec);
    }
    ew_config_deinit(&c);
    return 0;
}

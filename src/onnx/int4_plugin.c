/* onnx/int4_plugin.c - the packing of Int4GroupwiseGemmPlugin's weight, both ways, and a source
 * that reads it.
 *
 * Four output channels share 2*k bytes. A stripe of 64 columns is 256 nibbles (low nibble of a byte
 * first): channel 0's 64 codes, then those of channels 1, 2 and 3. Within a stripe columns are
 * permuted, each half of 32 by itself. Codes are 0..15 and mean code - 8. */
#include "onnx/int4_plugin.h"

#include "tensor/tensor.h"

/* Column of a half stripe that stands at each of its places. */
static const uint8_t k_column[32] = { 0, 8,  16, 24, 1, 9,  17, 25, 2, 10, 18, 26, 3, 11, 19, 27,
                                      4, 12, 20, 28, 5, 13, 21, 29, 6, 14, 22, 30, 7, 15, 23, 31 };

/* Byte of channel's column at place p of stripe c; the nibble is p's low bit. */
static size_t byte_at(size_t c, size_t channel, size_t p)
{
    return c * 128 + channel * 32 + p / 2;
}

void ew_onnx_int4_pack(uint8_t *dst, const uint8_t *q, size_t k)
{
    for (size_t channel = 0; channel < 4; channel++)
        for (size_t at = 0; at < k; at += 2) {
            const uint8_t *half = q + channel * k + at / 32 * 32;
            const unsigned low = half[k_column[at % 32]] & 0xfu;
            const unsigned high = half[k_column[at % 32 + 1]] & 0xfu;

            dst[byte_at(at / 64, channel, at % 64)] = (uint8_t)(low | high << 4);
        }
}

static void unpack_channel(uint8_t *q, const uint8_t *packed, size_t channel, size_t k)
{
    for (size_t at = 0; at < k; at++) {
        const uint8_t byte = packed[byte_at(at / 64, channel, at % 64)];

        q[at / 32 * 32 + k_column[at % 32]] = (uint8_t)(byte >> (at % 2 * 4) & 0xfu);
    }
}

void ew_onnx_int4_unpack(uint8_t *q, const uint8_t *packed, size_t k)
{
    for (size_t channel = 0; channel < 4; channel++)
        unpack_channel(q + channel * k, packed, channel, k);
}

/* ---- the source ---- */

struct int4_source {
    struct ew_quant_source base; /* first: it is what the reading function gets */
    const uint8_t *packed;
    const void *scales;
    ew_dtype scale_dtype;
};

static void int4_read(const struct ew_quant_source *src, size_t row, size_t n_rows,
                      const struct ew_quant_rows *out)
{
    const struct int4_source *s = (const struct int4_source *)(const void *)src;
    const size_t k = src->k, groups = ew_quant_groups(&src->format, k);

    for (size_t i = 0; i < n_rows; i++) {
        const size_t n = row + i;
        uint8_t *code = out->codes + i * k;

        unpack_channel(code, s->packed + n / 4 * 2 * k, n % 4, k);
        for (size_t c = 0; c < k; c++)
            code[c] = (uint8_t)(code[c] - 8u);
        for (size_t g = 0; g < groups; g++) {
            out->scales[i * groups + g] =
                (float)ew_elem_get_f64(s->scales, s->scale_dtype, g * src->n + n);
            out->zeros[i * groups + g] = 0;
        }
        out->row_scale[i] = 1.0f;
    }
}

struct ew_quant_source *ew_onnx_int4_source(struct ew_arena *arena, const char *name, size_t n,
                                            size_t k, uint32_t group, const void *packed,
                                            const void *scales, ew_dtype scale_dtype)
{
    struct int4_source *s = ew_arena_new(arena, struct int4_source, 1);

    if (!s)
        return NULL;
    s->base = (struct ew_quant_source){
        .format = { .code = EW_DTYPE_I4, .scale = scale_dtype, .group = group },
        .name = name,
        .n = n,
        .k = k,
        .read = int4_read,
    };
    s->packed = packed;
    s->scales = scales;
    s->scale_dtype = scale_dtype;
    return &s->base;
}

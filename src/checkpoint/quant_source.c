/* checkpoint/quant_source.c - see quant_source.h. Words of files are little-endian: bytes and
 * nibbles are addressed without them. */
#include "checkpoint/quant_source.h"

#include <string.h>

#include "tensor/tensor.h"

/* Nibble of channel 8c + m in a word of AWQ. */
static const uint8_t awq_nibble[8] = { 0, 4, 1, 5, 2, 6, 3, 7 };

static unsigned nibble(const uint8_t *bytes, size_t at)
{
    return (unsigned)bytes[at / 2] >> (at % 2 * 4) & 0xfu;
}

static unsigned raw_code(const struct ew_qx_source *s, size_t n, size_t k)
{
    switch (s->layout) {
    case EW_QX_PAIRS:
        return (unsigned)s->codes[n / 2 * s->pitch + k] >> (n % 2 * 4) & 0xfu;
    case EW_QX_AWQ:
        return nibble(s->codes, k * s->pitch + (n & ~(size_t)7) + awq_nibble[n & 7]);
    case EW_QX_GPTQ:
        return s->bytes ? s->codes[(k / 4 * s->pitch + n) * 4 + k % 4]
                        : nibble(s->codes, (k / 8 * s->pitch + n) * 8 + k % 8);
    default:
        return s->bytes ? s->codes[n * s->pitch + k] : nibble(s->codes + n * s->pitch, k);
    }
}

static void read_codes(const struct ew_qx_source *s, size_t row, size_t n_rows, uint8_t *out)
{
    const size_t k = s->base.k;
    const ew_dtype code = s->base.format.code;
    const unsigned mask = ew_quant_code_bits(code) == 8 ? 0xffu : 0xfu;

    if (s->bytes && s->layout != EW_QX_GPTQ && !s->perm && ew_quant_code_bits(code) == 8) {
        for (size_t i = 0; i < n_rows; i++)
            memcpy(out + i * k, s->codes + (row + i) * s->pitch, k);
        for (size_t i = 0; s->flip && i < n_rows * k; i++)
            out[i] ^= s->flip;
        return;
    }
    /* Columns outside: the words of AWQ and GPTQ hold neighbouring rows. */
    for (size_t c = 0; c < k; c++) {
        const size_t from = s->perm ? s->perm[c] : c;

        for (size_t i = 0; i < n_rows; i++) {
            const unsigned raw = (raw_code(s, row + i, from) & mask) ^ s->flip;

            out[i * k + c] = (uint8_t)(code == EW_DTYPE_I4 ? (raw ^ 8u) - 8u : raw);
        }
    }
}

static unsigned gptq_zero(const struct ew_qx_source *s, bool byte, size_t n, size_t g)
{
    const unsigned bits = byte ? 8 : 4, per_word = 32 / bits;
    const uint8_t *b = s->zeros + (g * s->zeros_pitch + n / per_word * per_word) * bits / 8;
    const uint32_t stored =
        (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;

    return (stored + s->zero_word_plus) >> (n % per_word * bits) & ((1u << bits) - 1);
}

int ew_qx_source_zero(const struct ew_qx_source *s, size_t n, size_t g)
{
    const bool byte = ew_quant_code_bits(s->base.format.code) == 8;

    switch (s->zeros_as) {
    case EW_QX_ZEROS_AWQ:
        return (int)nibble(s->zeros, g * s->zeros_pitch + (n & ~(size_t)7) + awq_nibble[n & 7]) +
               s->zero_plus;
    case EW_QX_ZEROS_GPTQ:
        return (int)gptq_zero(s, byte, n, g);
    case EW_QX_ZEROS_PACKED:
        return (byte ? (int)s->zeros[(n / 4 * s->zeros_pitch + g) * 4 + n % 4]
                     : (int)nibble(s->zeros, (n / 8 * s->zeros_pitch + g) * 8 + n % 8)) +
               s->zero_plus;
    case EW_QX_ZEROS_BYTES:
        return (int)(int8_t)s->zeros[n * s->zeros_pitch + g] + s->zero_plus;
    default:
        return 0;
    }
}

static double scale_at(const struct ew_qx_source *s, size_t n, size_t g)
{
    return ew_elem_get_f64(s->scales, s->scale_dtype,
                           n / s->block_n * s->scale_row + g * s->scale_col);
}

static void read_rows(const struct ew_quant_source *src, size_t row, size_t n_rows,
                      const struct ew_quant_rows *out)
{
    const struct ew_qx_source *s = (const struct ew_qx_source *)(const void *)src;
    const size_t n_groups = ew_quant_groups(&src->format, src->k);

    read_codes(s, row, n_rows, out->codes);
    for (size_t i = 0; i < n_rows; i++) {
        out->row_scale[i] = s->global;
        if (s->scales_are_rows)
            out->row_scale[i] = (float)((double)s->global * scale_at(s, row + i, 0));
        for (size_t g = 0; g < n_groups; g++) {
            out->scales[i * n_groups + g] =
                s->scales_are_rows ? 1.0f : (float)scale_at(s, row + i, g);
            out->zeros[i * n_groups + g] =
                src->format.zero ? (int16_t)ew_qx_source_zero(s, row + i, g) : 0;
        }
    }
}

void ew_qx_source_init(struct ew_qx_source *s)
{
    s->base.read = read_rows;
    if (!s->block_n)
        s->block_n = 1;
}

/* tensor/quant.c - see quant.h: formats, their text, and the reference way from codes to numbers.
 */
#include "tensor/quant.h"

#include <stdio.h>
#include <string.h>

#include "base/half.h"
#include "base/size.h"
#include "tensor/tensor.h"

bool ew_quant_format_equal(const struct ew_quant_format *a, const struct ew_quant_format *b)
{
    return a->code == b->code && a->scale == b->scale && a->group == b->group && a->zero == b->zero;
}

bool ew_quant_format_ok(const struct ew_quant_format *f)
{
    switch (f->code) {
    case EW_DTYPE_U4:
    case EW_DTYPE_U8:
        if (f->zero > 1)
            return false;
        break;
    case EW_DTYPE_I4:
    case EW_DTYPE_I8:
    case EW_DTYPE_F4E2M1:
    case EW_DTYPE_F8E4M3:
    case EW_DTYPE_F8E5M2:
        if (f->zero)
            return false;
        break;
    default:
        return false;
    }
    switch (f->scale) {
    case EW_DTYPE_NONE:
        return f->group == 0;
    case EW_DTYPE_F32:
    case EW_DTYPE_F16:
    case EW_DTYPE_BF16:
    case EW_DTYPE_F8E4M3:
    case EW_DTYPE_F8E8M0:
        return f->group >= 8 && f->group % 8 == 0;
    default:
        return false;
    }
}

void ew_quant_format_text(const struct ew_quant_format *f, char *out, size_t cap)
{
    char group[32] = " rows";

    if (!ew_quant_is(f)) {
        snprintf(out, cap, "plain");
        return;
    }
    if (f->group)
        snprintf(group, sizeof(group), " g%u", f->group);
    snprintf(out, cap, "%s%s%s%s%s", ew_dtype_text(f->code), f->zero ? " zero" : "", group,
             f->scale == EW_DTYPE_NONE ? "" : " ",
             f->scale == EW_DTYPE_NONE ? "" : ew_dtype_text(f->scale));
}

size_t ew_quant_groups(const struct ew_quant_format *f, size_t k)
{
    return f->group ? (k + f->group - 1) / f->group : 1;
}

float ew_quant_code(ew_dtype code, uint8_t bits)
{
    switch (code) {
    case EW_DTYPE_I4:
    case EW_DTYPE_I8:
        return (float)(int8_t)bits;
    case EW_DTYPE_F8E4M3:
        return ew_f8e4m3_to_f32(bits);
    case EW_DTYPE_F8E5M2:
        return ew_f8e5m2_to_f32(bits);
    case EW_DTYPE_F4E2M1:
        return (float)ew_elem_get_f64(&bits, EW_DTYPE_F4E2M1, 0);
    default:
        return (float)bits;
    }
}

unsigned ew_quant_code_bits(ew_dtype code)
{
    return (unsigned)ew_dtype_bits(code);
}

double ew_quant_bits(const struct ew_quant_format *f, size_t k)
{
    const double groups = (double)ew_quant_groups(f, k);
    double bits = (double)ew_dtype_bits(f->code) * (double)k + 32.0;

    if (f->scale != EW_DTYPE_NONE)
        bits += groups * (double)ew_dtype_bits(f->scale);
    if (f->zero)
        bits += groups * (f->code == EW_DTYPE_U4 ? 8.0 : 16.0);
    return k ? bits / (double)k : 0.0;
}

static size_t up8(size_t n)
{
    return (n + 7) & ~(size_t)7;
}

size_t ew_quant_rows_bytes(const struct ew_quant_format *f, size_t n, size_t k)
{
    const size_t g = ew_quant_groups(f, k);

    return up8(n * k) + up8(n * g * sizeof(float)) + up8(n * g * sizeof(int16_t)) +
           up8(n * sizeof(float));
}

struct ew_quant_rows ew_quant_rows_carve(const struct ew_quant_format *f, size_t n, size_t k,
                                         void *scratch)
{
    const size_t g = ew_quant_groups(f, k);
    uint8_t *at = scratch;
    struct ew_quant_rows r;

    r.scales = (float *)(void *)at;
    at += up8(n * g * sizeof(float));
    r.zeros = (int16_t *)(void *)at;
    at += up8(n * g * sizeof(int16_t));
    r.row_scale = (float *)(void *)at;
    at += up8(n * sizeof(float));
    r.codes = at;
    return r;
}

void ew_quant_decode_row(const struct ew_quant_format *f, const struct ew_quant_rows *rows,
                         size_t i, size_t k, float *dst)
{
    const size_t n_groups = ew_quant_groups(f, k), group = f->group ? f->group : k;
    const uint8_t *code = rows->codes + i * k;

    for (size_t g = 0; g < n_groups; g++) {
        const double scale = (double)rows->scales[i * n_groups + g] * (double)rows->row_scale[i];
        const double zero = f->zero ? (double)rows->zeros[i * n_groups + g] : 0.0;
        const size_t end = k - g * group < group ? k : (g + 1) * group;

        for (size_t c = g * group; c < end; c++)
            dst[c] = (float)(((double)ew_quant_code(f->code, code[c]) - zero) * scale);
    }
}

/* ---- strided tensors ---- */

static uint8_t raw_code(const struct ew_quant_strided *s, size_t row, size_t col)
{
    const ptrdiff_t at = (ptrdiff_t)row * s->code_row + (ptrdiff_t)col * s->code_col;
    const uint8_t *bytes = s->codes;

    if (ew_dtype_bits(s->base.format.code) == 8)
        return (uint8_t)(bytes[at] ^ s->flip);
    const uint8_t nibble = (uint8_t)(((unsigned)bytes[at / 2] >> (at % 2 * 4) & 0xfu) ^ s->flip);
    return s->base.format.code == EW_DTYPE_I4 ? (uint8_t)((nibble ^ 8u) - 8u) : nibble;
}

static void read_codes(const struct ew_quant_strided *s, size_t row, uint8_t *out)
{
    const size_t k = s->base.k;

    if (s->code_col == 1 && !s->flip && ew_dtype_bits(s->base.format.code) == 8) {
        memcpy(out, (const uint8_t *)s->codes + (ptrdiff_t)row * s->code_row, k);
        return;
    }
    for (size_t c = 0; c < k; c++)
        out[c] = raw_code(s, row, c);
}

static void strided_read(const struct ew_quant_source *src, size_t row, size_t n_rows,
                         const struct ew_quant_rows *out)
{
    const struct ew_quant_strided *s = (const struct ew_quant_strided *)(const void *)src;
    const size_t k = src->k, n_groups = ew_quant_groups(&src->format, k);
    const size_t block_n = s->block_n ? s->block_n : 1;

    for (size_t i = 0; i < n_rows; i++) {
        const ptrdiff_t b = (ptrdiff_t)((row + i) / block_n);
        float *scale = out->scales + i * n_groups;
        int16_t *zero = out->zeros + i * n_groups;

        read_codes(s, row + i, out->codes + i * k);
        out->row_scale[i] = s->global;
        for (size_t g = 0; g < n_groups; g++) {
            const ptrdiff_t at = b * s->scale_row + (ptrdiff_t)g * s->scale_col;
            const ptrdiff_t zat = b * s->zero_row + (ptrdiff_t)g * s->zero_col;

            scale[g] = 1.0f;
            zero[g] = s->zeros ? (int16_t)ew_elem_get_i64(s->zeros, s->zero_dtype, (size_t)zat) : 0;
            if (s->scales && !s->scales_are_rows)
                scale[g] = (float)ew_elem_get_f64(s->scales, s->scale_dtype, (size_t)at);
        }
        if (s->scales && s->scales_are_rows)
            out->row_scale[i] =
                (float)((double)s->global *
                        ew_elem_get_f64(s->scales, s->scale_dtype, (size_t)(b * s->scale_row)));
    }
}

void ew_quant_strided_init(struct ew_quant_strided *s)
{
    s->base.read = strided_read;
    if (s->global == 0.0f)
        s->global = 1.0f;
}

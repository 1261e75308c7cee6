/* kernels/ref/gen_minifloat.c - decoding and encoding of the 8- and 4-bit floats, one generic
 * routine over a table of formats. Rounds once, to nearest even, straight from double. */
#include <math.h>

#include "kernels/ref/gen_common.h"

struct mini_format {
    ew_dtype dtype;
    int mant_bits, bias;
    uint8_t max_code; /* largest finite */
    uint8_t inf_code; /* 0: no infinity */
    uint8_t nan_code; /* 0: no NaN */
    uint8_t sign_bit;
    bool is_unsigned_zero; /* fnuz: the code of -0 is NaN */
};

static const struct mini_format k_formats[] = {
    { EW_DTYPE_F8E4M3, 3, 7, 0x7e, 0, 0x7f, 0x80, false },
    { EW_DTYPE_F8E5M2, 2, 15, 0x7b, 0x7c, 0x7e, 0x80, false },
    { EW_DTYPE_F8E4M3FNUZ, 3, 8, 0x7f, 0, 0x80, 0x80, true },
    { EW_DTYPE_F8E5M2FNUZ, 2, 16, 0x7f, 0, 0x80, 0x80, true },
    { EW_DTYPE_F4E2M1, 1, 1, 0x07, 0, 0, 0x08, false },
};

#define E8M0_NAN  0xff
#define E8M0_MAX  0xfe
#define E8M0_BIAS 127

static const struct mini_format *format_find(ew_dtype d)
{
    for (size_t i = 0; i < sizeof(k_formats) / sizeof(k_formats[0]); i++)
        if (k_formats[i].dtype == d)
            return &k_formats[i];
    return NULL;
}

bool ew_gen_is_mini(ew_dtype d)
{
    return d == EW_DTYPE_F8E8M0 || format_find(d);
}

float ew_gen_mini_decode(ew_dtype d, uint8_t code)
{
    const struct mini_format *const m = format_find(d);
    uint8_t magnitude;
    int exponent;
    float v;

    if (!m) /* e8m0 */
        return code == E8M0_NAN ? NAN : ldexpf(1.0f, code - E8M0_BIAS);
    if (m->is_unsigned_zero && code == m->nan_code)
        return NAN;
    magnitude = (uint8_t)(code & (m->sign_bit - 1));
    if (m->inf_code && magnitude == m->inf_code)
        return code & m->sign_bit ? -INFINITY : INFINITY;
    if (magnitude > m->max_code)
        return NAN;
    exponent = magnitude >> m->mant_bits;
    v = (float)(magnitude & ((1 << m->mant_bits) - 1));
    if (exponent > 0)
        v += (float)(1 << m->mant_bits);
    v = ldexpf(v, (exponent > 0 ? exponent : 1) - m->bias - m->mant_bits);
    return code & m->sign_bit ? -v : v;
}

/* Powers of two alone; the sign is ignored, as nothing defines it. */
static uint8_t e8m0_encode(double v, bool saturate, int round_mode)
{
    const double x = fabs(v);
    double fraction;
    int exponent;

    if (v != v || (isinf(v) && !saturate))
        return E8M0_NAN;
    if (isinf(v))
        return E8M0_MAX;
    if (x < 0x1p-127)
        return 0;
    fraction = frexp(x, &exponent) * 2; /* [1, 2) */
    exponent += E8M0_BIAS - 1;
    if ((round_mode == EW_ROUND_UP && fraction > 1) ||
        (round_mode == EW_ROUND_NEAREST && fraction >= 1.5))
        exponent++;
    if (exponent > E8M0_MAX)
        return saturate ? E8M0_MAX : E8M0_NAN;
    return (uint8_t)exponent;
}

uint8_t ew_gen_mini_encode(ew_dtype d, double v, bool saturate, int round_mode)
{
    const struct mini_format *const m = format_find(d);
    const uint8_t sign = m && signbit(v) ? m->sign_bit : 0;
    double x = fabs(v);
    int exponent = 0;
    double code;

    if (!m)
        return e8m0_encode(v, saturate, round_mode);
    if (v != v) /* f4e2m1 has no NaN: -0, as in the tests of ONNX */
        return m->nan_code ? (uint8_t)(m->nan_code | (m->is_unsigned_zero ? 0 : sign))
                           : m->sign_bit;
    if (isinf(v)) {
        code = 256;
    } else if (x == 0) {
        code = 0;
    } else {
        frexp(x, &exponent);
        exponent += m->bias - 1; /* of the code, normal numbers */
        exponent = exponent > 1 ? exponent : 1;
        /* significand in units of the last place; a carry moves into the exponent by itself */
        x = rint(ldexp(x, m->mant_bits + m->bias - exponent));
        code = x + (double)((exponent - 1) << m->mant_bits);
    }
    if (code > m->max_code) {
        if (saturate || !(m->inf_code || m->nan_code))
            return (uint8_t)(sign | m->max_code);
        if (m->inf_code)
            return (uint8_t)(sign | m->inf_code);
        return (uint8_t)(m->nan_code | (m->is_unsigned_zero ? 0 : sign));
    }
    if (code == 0 && m->is_unsigned_zero)
        return 0;
    return (uint8_t)(sign | (uint8_t)code);
}

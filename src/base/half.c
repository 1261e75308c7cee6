/* base/half.c - scalar conversions of the short floats. Plain integer arithmetic: the judge of the
 * fast ones. */
#include "base/half.h"

#include <math.h>

float ew_f16_to_f32(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    const uint32_t exp = (h >> 10) & 0x1fu;
    const uint32_t man = h & 0x3ffu;

    if (exp == 0x1f)
        return ew_f32_from_bits(sign | 0x7f800000u | (man << 13) | (man ? 0x400000u : 0));
    if (exp)
        return ew_f32_from_bits(sign | ((exp + 112) << 23) | (man << 13));
    const float tiny = (float)man * 0x1p-24f;
    return sign ? -tiny : tiny;
}

/* Rounds a magnitude (f32 bits without sign) to a float of `man_bits` mantissa bits and exponent
 * bias `bias`, nearest even. The result may be one past the largest finite code; the caller
 * saturates. */
static uint32_t round_short(uint32_t mag, int man_bits, int bias)
{
    const int exp = (int)(mag >> 23) - 127 + bias;
    const int shift = 23 - man_bits;

    if (exp > 0) {
        const uint32_t half = (1u << (shift - 1)) - 1 + ((mag >> shift) & 1u);
        return ((mag + half) >> shift) - ((uint32_t)(127 - bias) << man_bits);
    }
    const int drop = shift + 1 - exp; /* subnormal: more bits fall off */
    if (drop > 24 + 1)
        return 0;
    const uint32_t full = (mag & 0x7fffffu) | ((mag >> 23) ? 0x800000u : 0);
    const uint32_t kept = drop > 31 ? 0 : full >> drop;
    const uint32_t rest = full & ((1u << drop) - 1);
    const uint32_t half = 1u << (drop - 1);
    return kept + (rest > half || (rest == half && (kept & 1u)));
}

uint16_t ew_f32_to_f16(float f)
{
    const uint32_t u = ew_f32_bits(f);
    const uint32_t sign = (u >> 16) & 0x8000u;
    const uint32_t mag = u & 0x7fffffffu;

    if (mag > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u | ((mag >> 13) & 0x1ffu));
    if (mag >= 0x477ff000u) /* rounds to 65536 or more */
        return (uint16_t)(sign | 0x7c00u);
    return (uint16_t)(sign | round_short(mag, 10, 15));
}

float ew_f8e4m3_to_f32(uint8_t b)
{
    const int exp = (b >> 3) & 0xf;
    const int man = b & 7;
    float mag;

    if (exp == 15 && man == 7)
        return ew_f32_from_bits((uint32_t)(b & 0x80u) << 24 | 0x7fc00000u);
    mag = exp ? ldexpf((float)(8 + man), exp - 10) : ldexpf((float)man, -9);
    return b & 0x80 ? -mag : mag;
}

uint8_t ew_f32_to_f8e4m3(float f, int saturate)
{
    const uint32_t u = ew_f32_bits(f);
    const uint32_t sign = (u >> 24) & 0x80u;
    const uint32_t mag = u & 0x7fffffffu;

    if (mag > 0x7f800000u)
        return (uint8_t)(sign | 0x7fu);
    const uint32_t code = mag == 0x7f800000u ? 0x7fu : round_short(mag, 3, 7);
    if (code >= 0x7f)
        return (uint8_t)(sign | (saturate ? 0x7eu : 0x7fu));
    return (uint8_t)(sign | code);
}

float ew_f8e5m2_to_f32(uint8_t b)
{
    return ew_f16_to_f32((uint16_t)((unsigned)b << 8));
}

uint8_t ew_f32_to_f8e5m2(float f, int saturate)
{
    const uint32_t u = ew_f32_bits(f);
    const uint32_t sign = (u >> 24) & 0x80u;
    const uint32_t mag = u & 0x7fffffffu;

    if (mag > 0x7f800000u)
        return (uint8_t)(sign | 0x7fu);
    const uint32_t code = mag == 0x7f800000u ? 0x7cu : round_short(mag, 2, 15);
    if (code >= 0x7c)
        return (uint8_t)(sign | (saturate ? 0x7bu : 0x7cu));
    return (uint8_t)(sign | code);
}

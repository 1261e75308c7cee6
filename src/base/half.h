/* base/half.h - scalar conversions of the short floats, exact and round-to-nearest-even.
 * Formats: IEEE 754 binary16, bfloat16, OCP FP8 e4m3fn/e5m2 (OFP8 rev 1.0), MX e8m0. */
#ifndef EW_BASE_HALF_H
#define EW_BASE_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint32_t ew_f32_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof(u));
    return u;
}

static inline float ew_f32_from_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof(f));
    return f;
}

static inline float ew_bf16_to_f32(uint16_t h)
{
    return ew_f32_from_bits((uint32_t)h << 16);
}

/* NaN stays NaN (quiet). */
static inline uint16_t ew_f32_to_bf16(float f)
{
    const uint32_t u = ew_f32_bits(f);

    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)((u >> 16) | 0x40u);
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

float ew_f16_to_f32(uint16_t h);
uint16_t ew_f32_to_f16(float f);
float ew_f8e4m3_to_f32(uint8_t b);
/* saturate: values past +-448 become +-448; otherwise NaN. NaN stays NaN. */
uint8_t ew_f32_to_f8e4m3(float f, int saturate);
float ew_f8e5m2_to_f32(uint8_t b);
uint8_t ew_f32_to_f8e5m2(float f, int saturate);

#endif

/* kernels/arm/vecq_neon.h - bytes in the vector vocabulary: what kernels of quantised weights need
 * beside vec_neon.h. A lane of 32 bits belongs to one output and holds four of its codes. */
#ifndef EW_KERNELS_VECQ_NEON_H
#define EW_KERNELS_VECQ_NEON_H

#include "kernels/arm/vec_neon.h"

#define QNP(r) ((r) <= 3 ? 2 : 1) /* panels that a tile of r rows takes at once */

#define vi_xor(a, b) veorq_s32(a, b)
#define vi_mul(a, b) vmulq_s32(a, b)
#define vi_set1_8(x) vreinterpretq_s32_u8(vdupq_n_u8((uint8_t)(x)))
/* 16 bytes in every 128-bit block. */
#define vi_dup16(p) vi_load(p)

/* Byte j is byte i[j] of a, or 0 where i[j] has its top bit. */
ALWAYS veci vi_shuffle8(veci a, veci i)
{
    return vreinterpretq_s32_u8(vqtbl1q_u8(vreinterpretq_u8_s32(a), vreinterpretq_u8_s32(i)));
}

ALWAYS veci vi_sub8(veci a, veci b)
{
    return vreinterpretq_s32_s8(vsubq_s8(vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b)));
}

/* VL numbers of 8 or 16 bits, one a lane. */
ALWAYS veci vi_load_u8(const unsigned char *p)
{
    uint32_t four;

    memcpy(&four, p, sizeof(four));
    const uint16x8_t words = vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(four)));
    return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(words)));
}

ALWAYS veci vi_load_i16(const unsigned char *p)
{
    return vmovl_s16(vreinterpret_s16_u8(vld1_u8(p)));
}

ALWAYS void f16_pair(uint16x8_t h, vec *lo, vec *hi)
{
    const float16x8_t f = vreinterpretq_f16_u16(h);

    *lo = vcvt_f32_f16(vget_low_f16(f));
    *hi = vcvt_high_f32_f16(f);
}

/* 2 VL bytes, e4m3 -> floats times 2^-8: an f16 has the same fields with a bias that is 8 more.
 * NaN becomes 480 * 2^-8. */
ALWAYS void v_load_e4m3_finite(const void *p, vec *lo, vec *hi)
{
    const int16x8_t b = vmovl_s8(vld1_s8(p));

    f16_pair(vandq_u16(vreinterpretq_u16_s16(vshlq_n_s16(b, 7)), vdupq_n_u16(0xbfff)), lo, hi);
}

/* The same, NaN too. */
ALWAYS void v_load_e4m3(const void *p, vec *lo, vec *hi)
{
    const uint16x8_t mag = vdupq_n_u16(0x3f80);
    const uint16x8_t b = vreinterpretq_u16_s16(vshlq_n_s16(vmovl_s8(vld1_s8(p)), 7));
    const uint16x8_t h = vandq_u16(b, vdupq_n_u16(0xbfff));

    f16_pair(vorrq_u16(h, vceqq_u16(vandq_u16(h, mag), mag)), lo, hi);
}

/* 2 VL bytes, e5m2 -> floats. */
ALWAYS void v_load_e5m2(const void *p, vec *lo, vec *hi)
{
    f16_pair(vshll_n_u8(vld1_u8(p), 8), lo, hi);
}

#endif

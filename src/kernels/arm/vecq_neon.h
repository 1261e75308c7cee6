/* kernels/arm/vecq_neon.h - bytes in the vector vocabulary: what kernels of quantised weights need
 * beside vec_neon.h. A lane of 32 bits belongs to one output and holds four of its codes. */
#ifndef EW_KERNELS_VECQ_NEON_H
#define EW_KERNELS_VECQ_NEON_H

#include "kernels/arm/vec_neon.h"

/* Rows of f32 x that meet codes as they come from memory, at once and in all, and panels that such
 * a tile takes. */
#define FUSED_ROWS  3
#define FUSED_MAX   3
#define FUSED_NP(r) ((r) == 1 ? 4 : 2)

#define QNP(r) ((r) == 1 ? 4 : (r) <= 4 ? 2 : 1) /* panels that a tile of r rows takes at once */

/* Rows that meet 4-bit codes with tables, and vectors of them that r such rows meet at once: as
 * many as leave room for the codes and one row's columns. */
#define W8_FEW     8
#define W8_WIDE(r) ((r) <= 4 ? 4 : 2)

#define vi_xor(a, b)   veorq_s32(a, b)
#define vi_mul(a, b)   vmulq_s32(a, b)
#define vi_store(p, a) vst1q_u8((uint8_t *)(void *)(p), vreinterpretq_u8_s32(a))
#define vi_set1_8(x)   vreinterpretq_s32_u8(vdupq_n_u8((uint8_t)(x)))
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

#define vi_zip32_lo(a, b) vzip1q_s32(a, b)
#define vi_zip32_hi(a, b) vzip2q_s32(a, b)

ALWAYS veci vi_zip64_lo(veci a, veci b)
{
    return vreinterpretq_s32_s64(vzip1q_s64(vreinterpretq_s64_s32(a), vreinterpretq_s64_s32(b)));
}

ALWAYS veci vi_zip64_hi(veci a, veci b)
{
    return vreinterpretq_s32_s64(vzip2q_s64(vreinterpretq_s64_s32(a), vreinterpretq_s64_s32(b)));
}

/* 16-bit lanes; vi_packs16 makes bytes of two vectors. */
#define AS16(a)        vreinterpretq_s16_s32(a)
#define vi_sll16(a, n) vreinterpretq_s32_s16(vshlq_n_s16(AS16(a), n))

ALWAYS veci vi_sub16(veci a, veci b)
{
    return vreinterpretq_s32_s16(vsubq_s16(AS16(a), AS16(b)));
}

/* a * b / 2^15, halves up; a and b are not both -2^15. */
ALWAYS veci vi_mulhrs16(veci a, veci b)
{
    return vreinterpretq_s32_s16(vqrdmulhq_s16(AS16(a), AS16(b)));
}

ALWAYS veci vi_packs16(veci a, veci b)
{
    return vreinterpretq_s32_s8(vcombine_s8(vqmovn_s16(AS16(a)), vqmovn_s16(AS16(b))));
}

/* The number at p in all 16-bit lanes. */
ALWAYS veci vi_spread16(const unsigned char *p)
{
    int16_t one;

    memcpy(&one, p, sizeof(one));
    return vreinterpretq_s32_s16(vdupq_n_s16(one));
}

/* The same of a byte without a sign. */
ALWAYS veci vi_spread8(const unsigned char *p)
{
    return vreinterpretq_s32_s16(vdupq_n_s16(*p));
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

/* Lanes of -128 to 127 as bytes. */
ALWAYS void vi_store_s8(int8_t *p, veci a)
{
    const int16x4_t words = vmovn_s32(a);
    const int32x2_t four = vreinterpret_s32_s8(vmovn_s16(vcombine_s16(words, words)));
    const int32_t bits = vget_lane_s32(four, 0);

    memcpy(p, &bits, sizeof(bits));
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

/* Sums of products by lanes of four; w and x signed, x at least -127. Codes need no raising. */
#define DOT_OFFSET 0
ALWAYS veci vi_dot_operand(veci w)
{
    return w;
}

#if defined(__ARM_FEATURE_DOTPROD)

ALWAYS veci vi_dot_bytes(veci acc, veci w, veci x)
{
    return vdotq_s32(acc, vreinterpretq_s8_s32(w), vreinterpretq_s8_s32(x));
}

/* acc + u0 . x0 + u1 . x1; u at most 31. */
ALWAYS veci vi_dot_small(veci acc, veci u0, veci x0, veci u1, veci x1)
{
    return vi_dot_bytes(vi_dot_bytes(acc, u0, x0), u1, x1);
}

#else

/* Products of 128 and 127 by twos stay in 16 bits. */
ALWAYS veci vi_dot_bytes(veci acc, veci w, veci x)
{
    const int8x16_t a = vreinterpretq_s8_s32(w), b = vreinterpretq_s8_s32(x);
    const int16x8_t lo = vmull_s8(vget_low_s8(a), vget_low_s8(b)), hi = vmull_high_s8(a, b);

    return vpadalq_s16(acc, vpaddq_s16(lo, hi));
}

/* acc + u0 . x0 + u1 . x1; u at most 31. */
ALWAYS veci vi_dot_small(veci acc, veci u0, veci x0, veci u1, veci x1)
{
    const int8x16_t a = vreinterpretq_s8_s32(u0), b = vreinterpretq_s8_s32(x0);
    const int8x16_t c = vreinterpretq_s8_s32(u1), d = vreinterpretq_s8_s32(x1);
    const int16x8_t lo =
        vmlal_s8(vmull_s8(vget_low_s8(a), vget_low_s8(b)), vget_low_s8(c), vget_low_s8(d));
    const int16x8_t hi = vmlal_high_s8(vmull_high_s8(a, b), c, d);

    return vpadalq_s16(acc, vpaddq_s16(lo, hi));
}

#endif

#if defined(__ARM_FEATURE_MATMUL_INT8)

/* Sums of two rows, VL outputs each, change between by row and by pair of outputs (both rows of
 * outputs 0 and 1, then of 2 and 3). Its own inverse. */
#    define DOT_PAIRS 1
ALWAYS void vi_pair(veci *a, veci *b)
{
    const int64x2_t x = vreinterpretq_s64_s32(*a), y = vreinterpretq_s64_s32(*b);

    *a = vreinterpretq_s32_s64(vzip1q_s64(x, y));
    *b = vreinterpretq_s32_s64(vzip2q_s64(x, y));
}

/* Paired sums plus the products of 8 columns: w0 the first four of each output, w1 the rest; x a
 * row, the other xs bytes later. */
ALWAYS void vi_dot_pair(veci *a, veci *b, veci w0, veci w1, const unsigned char *x, size_t xs)
{
    const int8x16_t x2 = vreinterpretq_s8_u8(vcombine_u8(vld1_u8(x), vld1_u8(x + xs)));

    *a = vmmlaq_s32(*a, x2, vreinterpretq_s8_s32(vzip1q_s32(w0, w1)));
    *b = vmmlaq_s32(*b, x2, vreinterpretq_s8_s32(vzip2q_s32(w0, w1)));
}

#endif

#endif

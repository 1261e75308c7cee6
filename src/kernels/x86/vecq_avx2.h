/* kernels/x86/vecq_avx2.h - bytes in the vector vocabulary: what kernels of quantised weights need
 * beside vec_avx2.h. A lane of 32 bits belongs to one output and holds four of its codes. */
#ifndef EW_KERNELS_VECQ_AVX2_H
#define EW_KERNELS_VECQ_AVX2_H

#include <string.h>

#include "kernels/x86/vec_avx2.h"

/* Rows of f32 x that meet codes as they come from memory, at once and in all, and panels that such
 * a tile takes. */
#define FUSED_ROWS  5
#define FUSED_MAX   15
#define FUSED_NP(r) ((r) <= 2 ? 2 : 1)

#define QNP(r) 1 /* panels that a tile of r rows takes at once; two streams are slower than one */

/* Rows that meet 4-bit codes with tables, and vectors of them that r such rows meet at once: as
 * many as leave room for the codes and one row's columns. */
#define W8_FEW     8
#define W8_WIDE(r) ((r) <= 4 ? 2 : 1)

#define vi_xor(a, b)      _mm256_xor_si256(a, b)
#define vi_mul(a, b)      _mm256_mullo_epi32(a, b)
#define vi_shuffle8(a, i) _mm256_shuffle_epi8(a, i)
#define vi_sub8(a, b)     _mm256_sub_epi8(a, b)
#define vi_store(p, a)    _mm256_storeu_si256((__m256i *)(void *)(p), a)
#define vi_set1_8(x)      _mm256_set1_epi8((char)(x))
/* 16 bytes in every 128-bit block. */
#define vi_dup16(p) _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)(p)))
/* 128-bit blocks of two vectors, each for itself. */
#define vi_zip32_lo(a, b) _mm256_unpacklo_epi32(a, b)
#define vi_zip32_hi(a, b) _mm256_unpackhi_epi32(a, b)
#define vi_zip64_lo(a, b) _mm256_unpacklo_epi64(a, b)
#define vi_zip64_hi(a, b) _mm256_unpackhi_epi64(a, b)
/* 16-bit lanes; vi_packs16 makes bytes of two vectors, block by block. */
#define vi_sub16(a, b)    _mm256_sub_epi16(a, b)
#define vi_sll16(a, n)    _mm256_slli_epi16(a, n)
#define vi_mulhrs16(a, b) _mm256_mulhrs_epi16(a, b)
#define vi_packs16(a, b)  _mm256_packs_epi16(a, b)
/* VL numbers of 8 or 16 bits, one a lane. */
#define vi_load_u8(p)  _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(p)))
#define vi_load_i16(p) _mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)(const void *)(p)))

/* Number l of the two at p in all 16-bit lanes of block l. */
ALWAYS veci vi_spread16(const unsigned char *p)
{
    const veci lane = _mm256_set_epi32(0x03020302, 0x03020302, 0x03020302, 0x03020302, 0x01000100,
                                       0x01000100, 0x01000100, 0x01000100);
    int32_t two;

    memcpy(&two, p, sizeof(two));
    return _mm256_shuffle_epi8(_mm256_set1_epi32(two), lane);
}

/* The same of bytes without a sign. */
ALWAYS veci vi_spread8(const unsigned char *p)
{
    return _mm256_set_m128i(_mm_set1_epi16(p[1]), _mm_set1_epi16(p[0]));
}

/* Lanes of -128 to 127 as bytes. */
ALWAYS void vi_store_s8(int8_t *p, veci a)
{
    const __m128i words =
        _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));

    _mm_storel_epi64((__m128i *)(void *)p, _mm_packs_epi16(words, words));
}

/* 2 VL bytes, e4m3 -> floats times 2^-8: an f16 has the same fields with a bias that is 8 more.
 * NaN becomes 480 * 2^-8. */
ALWAYS void v_load_e4m3_finite(const void *p, vec *lo, vec *hi)
{
    const __m256i clear = _mm256_set1_epi16((short)0xbfff);
    const __m256i b = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p));
    const __m256i h = _mm256_and_si256(_mm256_slli_epi16(b, 7), clear);

    *lo = _mm256_cvtph_ps(_mm256_castsi256_si128(h));
    *hi = _mm256_cvtph_ps(_mm256_extracti128_si256(h, 1));
}

/* The same, NaN too. */
ALWAYS void v_load_e4m3(const void *p, vec *lo, vec *hi)
{
    const __m256i mag = _mm256_set1_epi16(0x3f80), clear = _mm256_set1_epi16((short)0xbfff);
    const __m256i b = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p));
    __m256i h = _mm256_and_si256(_mm256_slli_epi16(b, 7), clear);

    h = _mm256_or_si256(h, _mm256_cmpeq_epi16(_mm256_and_si256(h, mag), mag));
    *lo = _mm256_cvtph_ps(_mm256_castsi256_si128(h));
    *hi = _mm256_cvtph_ps(_mm256_extracti128_si256(h, 1));
}

/* 2 VL bytes, e5m2 -> floats. */
ALWAYS void v_load_e5m2(const void *p, vec *lo, vec *hi)
{
    const __m256i b = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)p));
    const __m256i h = _mm256_slli_epi16(b, 8);

    *lo = _mm256_cvtph_ps(_mm256_castsi256_si128(h));
    *hi = _mm256_cvtph_ps(_mm256_extracti128_si256(h, 1));
}

#if defined(__AVXVNNI__)

/* Sums of products by lanes of four, w unsigned and x signed: 8-bit codes, which are signed, get
 * 128 more, which the caller takes back with their zero point. */
#    define DOT_FOURS
#    define INT8_MR    4 /* rows of a tile: with more, sums and codes do not fit in 16 registers */
#    define DOT_OFFSET 128 /* what vi_dot_operand adds to a code */
ALWAYS veci vi_dot_operand(veci w)
{
    return _mm256_xor_si256(w, _mm256_set1_epi8((char)0x80));
}

ALWAYS veci vi_dot_bytes(veci acc, veci w, veci x)
{
    return _mm256_dpbusd_avx_epi32(acc, w, x);
}

#else

/* acc + u0 . x0 + u1 . x1 by lanes of four; u unsigned and at most 31, x signed. */
ALWAYS veci vi_dot_small(veci acc, veci u0, veci x0, veci u1, veci x1)
{
    const __m256i s = _mm256_add_epi16(_mm256_maddubs_epi16(u0, x0), _mm256_maddubs_epi16(u1, x1));

    return _mm256_add_epi32(acc, _mm256_madd_epi16(s, _mm256_set1_epi16(1)));
}

/* The same in two parts: 16-bit sums, of so many steps of 8 columns that they fit for u of 15
 * (8 * 15 * 254) and of 24 (4 * 24 * 254), and what adds them to 32 bits. */
#    define DOT_SUMS16(kind) ((kind) == Q_E2M1 ? 2 : 4)
ALWAYS veci vi_sum16(veci u0, veci x0, veci u1, veci x1)
{
    return _mm256_add_epi16(_mm256_maddubs_epi16(u0, x0), _mm256_maddubs_epi16(u1, x1));
}

ALWAYS veci vi_add16(veci a, veci b)
{
    return _mm256_add_epi16(a, b);
}

ALWAYS veci vi_add_sum16(veci acc, veci s)
{
    return _mm256_add_epi32(acc, _mm256_madd_epi16(s, _mm256_set1_epi16(1)));
}

/* The same for signed bytes of any size, x at least -127: |w| <= 128 and |x| <= 127 keep the sums
 * of two in 16 bits. An 8-bit code as loaded goes through vi_dot_operand first. */
#    define DOT_OFFSET       0 /* what vi_dot_operand adds to a code */
ALWAYS veci vi_dot_operand(veci w)
{
    return w;
}

ALWAYS veci vi_dot_bytes(veci acc, veci w, veci x)
{
    const __m256i s = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));

    return _mm256_add_epi32(acc, _mm256_madd_epi16(s, _mm256_set1_epi16(1)));
}

#endif

#endif

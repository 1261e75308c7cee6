/* kernels/x86/vecq_avx512.h - bytes in the vector vocabulary: what kernels of quantised weights
 * need beside vec_avx512.h. A lane of 32 bits belongs to one output and holds four of its codes. */
#ifndef EW_KERNELS_VECQ_AVX512_H
#define EW_KERNELS_VECQ_AVX512_H

#include <string.h>

#include "kernels/x86/vec_avx512.h"

/* Rows of f32 x that meet codes as they come from memory, at once and in all, and panels that such
 * a tile takes: sums in floats wait for each other, and their chains may not be split. */
#define FUSED_ROWS  8
#define FUSED_MAX   32
#define FUSED_NP(r) ((r) == 1 ? 4 : (r) <= 6 ? 2 : 1)

/* Panels that a tile of r rows takes at once: two would be 8 % faster for 3 to 6 rows in cache, and
 * 10 % slower where weights come from memory (perf-log). */
#define QNP(r) 1

/* Rows that meet 4-bit codes with tables, and vectors of them that r such rows meet at once: as
 * many as leave room for the codes and one row's columns. */
#define W8_FEW     12
#define W8_WIDE(r) ((r) <= 6 ? 4 : (r) <= 8 ? 3 : 2)

#define vi_xor(a, b)      _mm512_xor_si512(a, b)
#define vi_mul(a, b)      _mm512_mullo_epi32(a, b)
#define vi_shuffle8(a, i) _mm512_shuffle_epi8(a, i)
#define vi_sub8(a, b)     _mm512_sub_epi8(a, b)
#define vi_store(p, a)    _mm512_storeu_si512((void *)(p), a)
#define vi_set1_8(x)      _mm512_set1_epi8((char)(x))
/* 16 bytes in every 128-bit block. */
#define vi_dup16(p) _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)(p)))
/* 128-bit blocks of two vectors, each for itself. */
#define vi_zip32_lo(a, b) _mm512_unpacklo_epi32(a, b)
#define vi_zip32_hi(a, b) _mm512_unpackhi_epi32(a, b)
#define vi_zip64_lo(a, b) _mm512_unpacklo_epi64(a, b)
#define vi_zip64_hi(a, b) _mm512_unpackhi_epi64(a, b)
/* 16-bit lanes; vi_packs16 makes bytes of two vectors, block by block. */
#define vi_sub16(a, b)    _mm512_sub_epi16(a, b)
#define vi_sll16(a, n)    _mm512_slli_epi16(a, n)
#define vi_mulhrs16(a, b) _mm512_mulhrs_epi16(a, b)
#define vi_packs16(a, b)  _mm512_packs_epi16(a, b)
/* VL numbers of 8 or 16 bits, one a lane. */
#define vi_load_u8(p)  _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)(p)))
#define vi_load_i16(p) _mm512_cvtepi16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)(p)))

/* Number l of the four at p in all 16-bit lanes of block l. */
ALWAYS veci vi_spread16(const unsigned char *p)
{
    const veci lane =
        _mm512_set_epi32(0x07060706, 0x07060706, 0x07060706, 0x07060706, 0x05040504, 0x05040504,
                         0x05040504, 0x05040504, 0x03020302, 0x03020302, 0x03020302, 0x03020302,
                         0x01000100, 0x01000100, 0x01000100, 0x01000100);
    long long four;

    memcpy(&four, p, sizeof(four));
    return _mm512_shuffle_epi8(_mm512_set1_epi64(four), lane);
}

/* The same of bytes without a sign. */
ALWAYS veci vi_spread8(const unsigned char *p)
{
    const veci lane =
        _mm512_set_epi32((int)0x80038003, (int)0x80038003, (int)0x80038003, (int)0x80038003,
                         (int)0x80028002, (int)0x80028002, (int)0x80028002, (int)0x80028002,
                         (int)0x80018001, (int)0x80018001, (int)0x80018001, (int)0x80018001,
                         (int)0x80008000, (int)0x80008000, (int)0x80008000, (int)0x80008000);
    int32_t four;

    memcpy(&four, p, sizeof(four));
    return _mm512_shuffle_epi8(_mm512_set1_epi32(four), lane);
}

/* Low byte of each lane. */
ALWAYS void vi_store_s8(int8_t *p, veci a)
{
    _mm_storeu_si128((__m128i *)(void *)p, _mm512_cvtepi32_epi8(a));
}

/* 2 VL bytes, e4m3 -> floats times 2^-8: an f16 has the same fields with a bias that is 8 more.
 * NaN becomes 480 * 2^-8. */
ALWAYS void v_load_e4m3_finite(const void *p, vec *lo, vec *hi)
{
    const __m512i clear = _mm512_set1_epi16((short)0xbfff);
    const __m512i b = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)p));
    const __m512i h = _mm512_and_si512(_mm512_slli_epi16(b, 7), clear);

    *lo = _mm512_cvtph_ps(_mm512_castsi512_si256(h));
    *hi = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(h, 1));
}

/* The same, NaN too. */
ALWAYS void v_load_e4m3(const void *p, vec *lo, vec *hi)
{
    const __m512i mag = _mm512_set1_epi16(0x3f80), clear = _mm512_set1_epi16((short)0xbfff);
    const __m512i b = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)p));
    __m512i h = _mm512_and_si512(_mm512_slli_epi16(b, 7), clear);
    const __mmask32 nan = _mm512_cmpeq_epi16_mask(_mm512_and_si512(h, mag), mag);

    h = _mm512_mask_blend_epi16(nan, h, _mm512_set1_epi16(-1));
    *lo = _mm512_cvtph_ps(_mm512_castsi512_si256(h));
    *hi = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(h, 1));
}

/* 2 VL bytes, e5m2 -> floats. */
ALWAYS void v_load_e5m2(const void *p, vec *lo, vec *hi)
{
    const __m512i b = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)p));
    const __m512i h = _mm512_slli_epi16(b, 8);

    *lo = _mm512_cvtph_ps(_mm512_castsi512_si256(h));
    *hi = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(h, 1));
}

#if defined(__AVX512VNNI__)
/* Sums of products by lanes of four, w unsigned and x signed: 8-bit codes, which are signed, get
 * 128 more, which the caller takes back with their zero point. */
#    define DOT_FOURS
#    define DOT_OFFSET 128 /* what vi_dot_operand adds to a code */
ALWAYS veci vi_dot_operand(veci w)
{
    return _mm512_xor_si512(w, _mm512_set1_epi8((char)0x80));
}

ALWAYS veci vi_dot_bytes(veci acc, veci w, veci x)
{
    return _mm512_dpbusd_epi32(acc, w, x);
}
#endif

#endif

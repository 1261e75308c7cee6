/* kernels/x86/attention_i16_avx512.h - what attention_i16.inc asks of vectors of 16 lanes, beside
 * vec_avx512.h. */
#ifndef EW_KERNELS_ATTENTION_I16_AVX512_H
#define EW_KERNELS_ATTENTION_I16_AVX512_H

#include <string.h>

#include "kernels/x86/vec_avx512.h"

#define vi_max(a, b)   _mm512_max_epi32(a, b)
#define vi_max16(a, b) _mm512_max_epu16(a, b)
#define vi_store(p, a) _mm512_storeu_si512((void *)(p), a)
/* 16-bit halves of each lane: the low one of a, the low one of b above it. */
#define vi_pairs(a, b) _mm512_mask_blend_epi16(0xaaaaaaaau, a, _mm512_slli_epi32(b, 16))
/* acc + a.lo * b.lo + a.hi * b.hi, 16-bit halves of each lane. */
#if defined(__AVX512VNNI__)
#    define vi_dot16(acc, a, b) _mm512_dpwssd_epi32(acc, a, b)
#else
#    define vi_dot16(acc, a, b) _mm512_add_epi32(acc, _mm512_madd_epi16(a, b))
#endif

/* Lane i of the result: what `op` makes of the lanes of part[i]. Two vectors become one with half
 * as many lanes a row left, four times. */
#define LANES(name, op)                                                                            \
    ALWAYS __m512i name##_vector(const __m512i p[VL])                                              \
    {                                                                                              \
        __m512i x[8], y[4];                                                                        \
                                                                                                   \
        UNROLL                                                                                     \
        for (int i = 0; i < 8; i++)                                                                \
            x[i] = op(_mm512_unpacklo_epi32(p[2 * i], p[2 * i + 1]),                               \
                      _mm512_unpackhi_epi32(p[2 * i], p[2 * i + 1]));                              \
        UNROLL                                                                                     \
        for (int i = 0; i < 4; i++)                                                                \
            y[i] = op(_mm512_unpacklo_epi64(x[2 * i], x[2 * i + 1]),                               \
                      _mm512_unpackhi_epi64(x[2 * i], x[2 * i + 1]));                              \
        UNROLL                                                                                     \
        for (int i = 0; i < 2; i++)                                                                \
            x[i] = op(_mm512_shuffle_i64x2(y[2 * i], y[2 * i + 1], 0x44),                          \
                      _mm512_shuffle_i64x2(y[2 * i], y[2 * i + 1], 0xee));                         \
        return op(_mm512_shuffle_i64x2(x[0], x[1], 0x88), _mm512_shuffle_i64x2(x[0], x[1], 0xdd)); \
    }
/* The same for 8 vectors; lanes 8 and up mean nothing. */
#define LANES8(name, op)                                                                           \
    ALWAYS vec name(const vec p[8])                                                                \
    {                                                                                              \
        vec x[4], y[2];                                                                            \
                                                                                                   \
        UNROLL                                                                                     \
        for (int i = 0; i < 4; i++)                                                                \
            x[i] = op(_mm512_unpacklo_ps(p[2 * i], p[2 * i + 1]),                                  \
                      _mm512_unpackhi_ps(p[2 * i], p[2 * i + 1]));                                 \
        UNROLL                                                                                     \
        for (int i = 0; i < 2; i++)                                                                \
            y[i] = op(_mm512_shuffle_ps(x[2 * i], x[2 * i + 1], 0x44),                             \
                      _mm512_shuffle_ps(x[2 * i], x[2 * i + 1], 0xee));                            \
        x[0] = op(_mm512_shuffle_f32x4(y[0], y[1], 0x44), _mm512_shuffle_f32x4(y[0], y[1], 0xee)); \
        return op(_mm512_shuffle_f32x4(x[0], x[0], 0x88), _mm512_shuffle_f32x4(x[0], x[0], 0xdd)); \
    }
LANES8(v_add_lanes8, _mm512_add_ps)
LANES8(v_max_lanes8, _mm512_max_ps)

#define ADD_AS_FLOATS(a, b)                                                                        \
    _mm512_castps_si512(_mm512_add_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b)))
LANES(vi_add_lanes, _mm512_add_epi32)
LANES(vi_max_lanes, _mm512_max_epi32)
LANES(v_add_lanes, ADD_AS_FLOATS)
#define vi_add_lanes(part) vi_add_lanes_vector(part)
#define vi_max_lanes(part) vi_max_lanes_vector(part)
#define v_add_lanes(part)  _mm512_castsi512_ps(v_add_lanes_vector((const __m512i *)(part)))

/* 2 VL lanes of 16 bits, those of a first. */
ALWAYS veci vi_pack_s16(veci a, veci b)
{
    const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);

    return _mm512_permutexvar_epi64(order, _mm512_packs_epi32(a, b));
}

/* Lanes of 16 bits. */
ALWAYS void vi_store_s16(int16_t *p, veci a)
{
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtepi32_epi16(a));
}

/* Two numbers in every lane. */
ALWAYS veci vi_bcast_pair(const int16_t *p)
{
    int32_t pair;

    memcpy(&pair, p, sizeof(pair));
    return _mm512_set1_epi32(pair);
}

/* x - floor(x), 0 for infinities, and p * 2^floor(x). */
#define v_fraction(x)       _mm512_reduce_ps(x, 0x09)
#define v_scale_floor(p, x) _mm512_scalef_ps(p, x)

/* VL codes -> VL lanes. */
ALWAYS veci vi_load_i8(const unsigned char *p)
{
    return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
}

/* 2 VL codes -> 2 VL 16-bit lanes. */
ALWAYS veci vi_widen_i8(const unsigned char *p)
{
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

#endif

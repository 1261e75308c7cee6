/* kernels/x86/attention_codes_avx2.h - codes of short caches in and out of vectors of 8 lanes, and
 * what attention_i16.inc asks of them beside vec_avx2.h. */
#ifndef EW_KERNELS_ATTENTION_CODES_AVX2_H
#define EW_KERNELS_ATTENTION_CODES_AVX2_H

#include <string.h>

#include "kernels/x86/vec_avx2.h"

/* VL codes -> VL floats, without their scale. */
ALWAYS vec v_load_i8(const unsigned char *p)
{
    return _mm256_cvtepi32_ps(
        _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)));
}

/* As f16, whose exponent counts from 8 lower: F8_FACTOR is missing. */
ALWAYS vec v_load_f8e4m3(const unsigned char *p)
{
    const __m128i nan = _mm_set1_epi16(0x3f80);
    const __m128i x = _mm_cvtepi8_epi16(_mm_loadl_epi64((const __m128i *)(const void *)p));
    const __m128i h = _mm_and_si128(_mm_slli_epi16(x, 7), _mm_set1_epi16((short)0xbf80));
    const __m128i bad = _mm_cmpeq_epi16(_mm_and_si128(h, nan), nan);

    return _mm256_cvtph_ps(_mm_or_si128(h, bad));
}

/* Low 8 bits of each lane. */
ALWAYS void vi_store_u8(unsigned char *p, veci a)
{
    const __m256i low = _mm256_and_si256(a, _mm256_set1_epi32(0xff));
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packus_epi32(low, low), 0x08);
    const __m128i bytes =
        _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_castsi256_si128(words));

    _mm_storel_epi64((__m128i *)(void *)p, bytes);
}

#define vi_max(a, b)   _mm256_max_epi32(a, b)
#define vi_max16(a, b) _mm256_max_epu16(a, b)
#define vi_store(p, a) _mm256_storeu_si256((__m256i *)(void *)(p), a)
/* 16-bit halves of each lane: the low one of a, the low one of b above it. */
#define vi_pairs(a, b) _mm256_blend_epi16(a, _mm256_slli_epi32(b, 16), 0xaa)
/* acc + a.lo * b.lo + a.hi * b.hi, 16-bit halves of each lane. */
#if defined(__AVXVNNI__)
#    define vi_dot16(acc, a, b) _mm256_dpwssd_avx_epi32(acc, a, b)
#else
#    define vi_dot16(acc, a, b) _mm256_add_epi32(acc, _mm256_madd_epi16(a, b))
#endif

/* Lane i of the result: what `op` makes of the lanes of part[i]. */
#define LANES(name, op)                                                                            \
    ALWAYS __m256 name##_vector(const __m256 p[VL])                                                \
    {                                                                                              \
        __m256 x[4], y[2];                                                                         \
                                                                                                   \
        UNROLL                                                                                     \
        for (int i = 0; i < 4; i++)                                                                \
            x[i] = op(_mm256_unpacklo_ps(p[2 * i], p[2 * i + 1]),                                  \
                      _mm256_unpackhi_ps(p[2 * i], p[2 * i + 1]));                                 \
        UNROLL                                                                                     \
        for (int i = 0; i < 2; i++)                                                                \
            y[i] = op(_mm256_shuffle_ps(x[2 * i], x[2 * i + 1], 0x44),                             \
                      _mm256_shuffle_ps(x[2 * i], x[2 * i + 1], 0xee));                            \
        return op(_mm256_permute2f128_ps(y[0], y[1], 0x20),                                        \
                  _mm256_permute2f128_ps(y[0], y[1], 0x31));                                       \
    }
#define AS_INTS(op, a, b) _mm256_castsi256_ps(op(_mm256_castps_si256(a), _mm256_castps_si256(b)))
#define ADD_INTS(a, b)    AS_INTS(_mm256_add_epi32, a, b)
#define MAX_INTS(a, b)    AS_INTS(_mm256_max_epi32, a, b)
LANES(v_add_lanes, _mm256_add_ps)
LANES(v_max_lanes, _mm256_max_ps)
LANES(vi_add_lanes, ADD_INTS)
LANES(vi_max_lanes, MAX_INTS)
#define v_add_lanes(part)  v_add_lanes_vector(part)
#define v_add_lanes8(part) v_add_lanes_vector(part)
#define v_max_lanes8(part) v_max_lanes_vector(part)
#define vi_add_lanes(part)                                                                         \
    _mm256_castps_si256(vi_add_lanes_vector((const __m256 *)(const void *)(part)))
#define vi_max_lanes(part)                                                                         \
    _mm256_castps_si256(vi_max_lanes_vector((const __m256 *)(const void *)(part)))

/* 2 VL lanes of 16 bits, those of a first. */
ALWAYS veci vi_pack_s16(veci a, veci b)
{
    return _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
}

/* Lanes of 16 bits. */
ALWAYS void vi_store_s16(int16_t *p, veci a)
{
    const __m256i packed = _mm256_packs_epi32(a, a);

    _mm_storeu_si128((__m128i *)(void *)p,
                     _mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08)));
}

/* Two numbers in every lane. */
ALWAYS veci vi_bcast_pair(const int16_t *p)
{
    int32_t pair;

    memcpy(&pair, p, sizeof(pair));
    return _mm256_set1_epi32(pair);
}

/* For x <= 0, also -inf and NaN, which stays: x - floor(x), and p * 2^floor(x), 0 below -126. */
ALWAYS vec v_fraction(vec x)
{
    x = v_max(v_set1(-127.0f), x);
    return v_sub(x, v_floor(x));
}

ALWAYS vec v_scale_floor(vec p, vec x)
{
    const veci n = v_to_int(v_floor(v_max(v_set1(-127.0f), x)));

    return v_mul(p, vi_as_float(vi_sll(vi_add(n, vi_set1(127)), 23)));
}

/* VL codes -> VL lanes. */
ALWAYS veci vi_load_i8(const unsigned char *p)
{
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
}

/* 2 VL codes -> 2 VL 16-bit lanes. */
ALWAYS veci vi_widen_i8(const unsigned char *p)
{
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)p));
}

#endif

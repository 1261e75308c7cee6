/* kernels/x86/attention_codes_avx512.h - codes of short caches in and out of vectors of 16 lanes.
 */
#ifndef EW_KERNELS_ATTENTION_CODES_AVX512_H
#define EW_KERNELS_ATTENTION_CODES_AVX512_H

#include "kernels/x86/vec_avx512.h"

/* VL codes -> VL floats, without their scale. */
ALWAYS vec v_load_i8(const unsigned char *p)
{
    return _mm512_cvtepi32_ps(
        _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)));
}

/* As f16, whose exponent counts from 8 lower: F8_FACTOR is missing. */
ALWAYS vec v_load_f8e4m3(const unsigned char *p)
{
    const __m256i nan = _mm256_set1_epi16(0x3f80);
    const __m256i x = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)p));
    const __m256i h = _mm256_and_si256(_mm256_slli_epi16(x, 7), _mm256_set1_epi16((short)0xbf80));
    const __m256i bad = _mm256_cmpeq_epi16(_mm256_and_si256(h, nan), nan);

    return _mm512_cvtph_ps(_mm256_or_si256(h, bad));
}

/* Low 8 bits of each lane. */
ALWAYS void vi_store_u8(unsigned char *p, veci a)
{
    _mm_storeu_si128((__m128i *)(void *)p, _mm512_cvtepi32_epi8(a));
}

#endif

/* kernels/x86/attention_avx2.c - attention at this level: attention_tmpl.inc with its vectors. */
#include "kernels/x86/vec_avx2.h"

#include "cpu/cpu.h"
#include "kernels/simd/vmath.inc"
#include "kernels/simd/vrow.inc"

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

#include "kernels/simd/attention_tmpl.inc"

ATTN_KERNEL(avx2, EW_CPU_AVX2, 0.0f)

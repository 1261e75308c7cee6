/* kernels/x86/attention_avx512vnni.c - attention at this level: attention_tmpl.inc with its vectors,
 * short caches in whole numbers of 16 bits. */
#include "kernels/x86/vec_avx512.h"

#if !defined(__AVX512VNNI__)
#    error "compile with the flags of AVX-512 VNNI (cmake/kernels.cmake)"
#endif

#include "kernels/x86/attention_codes_avx512.h"

#include "cpu/cpu.h"
#include "kernels/simd/vmath.inc"
#include "kernels/simd/vrow.inc"

#define vi_max(a, b)       _mm512_max_epi32(a, b)
#define vi_store(p, a)     _mm512_storeu_si512((void *)(p), a)
/* Two vectors as one of 16-bit lanes, in some order; in range. */
#define vi_pack16(a, b)    _mm512_packs_epi32(a, b)
/* 16-bit halves of each lane: the low one of a, the low one of b above it. */
#define vi_pairs(a, b)     _mm512_mask_blend_epi16(0xaaaaaaaau, a, _mm512_slli_epi32(b, 16))
/* acc + a.lo * b.lo + a.hi * b.hi, 16-bit halves of each lane. */
#define vi_dot16(acc, a, b) _mm512_dpwssd_epi32(acc, a, b)

/* Two numbers in every lane. */
ALWAYS veci vi_bcast_pair(const int16_t *p)
{
    int32_t pair;

    memcpy(&pair, p, sizeof(pair));
    return _mm512_set1_epi32(pair);
}

/* VL codes -> VL lanes. */
ALWAYS veci vi_load_i8(const unsigned char *p)
{
    return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
}

#define ATTN_I16
#include "kernels/simd/attention_tmpl.inc"

ATTN_KERNEL(avx512vnni, (EW_CPU_AVX2 | EW_CPU_AVX512 | EW_CPU_AVX512VNNI))

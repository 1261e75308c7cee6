/* kernels/x86/vec_avx512.h - the vector vocabulary of the x86 templates, 16 lanes. */
#ifndef EW_KERNELS_VEC_AVX512_H
#define EW_KERNELS_VEC_AVX512_H

#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512DQ__) ||                   \
    !defined(__AVX512VL__) || !defined(__FMA__)
#    error "compile with the flags of AVX-512 (cmake/kernels.cmake)"
#endif

#include <immintrin.h>
#include <stdint.h>

#include "kernels/simd/unroll.h"

#define VL    16 /* floats in a vector */
#define V_MR  12 /* rows of the largest register tile */
#define V_ACC 24 /* accumulators that fit beside the operands */
/* Panels that a tile of r rows takes at once: enough chains to hide the latency of FMA. */
#define V_NP(r) ((r) <= 3 ? 4 : (r) <= 6 ? 2 : 1)

typedef __m512 vec;
typedef __m512i veci;
typedef __mmask16 vmask;

#define v_zero()        _mm512_setzero_ps()
#define v_set1(x)       _mm512_set1_ps(x)
#define v_load(p)       _mm512_loadu_ps(p)
#define v_store(p, a)   _mm512_storeu_ps(p, a)
#define v_bcast(p)      _mm512_set1_ps(*(p))
#define v_add(a, b)     _mm512_add_ps(a, b)
#define v_sub(a, b)     _mm512_sub_ps(a, b)
#define v_mul(a, b)     _mm512_mul_ps(a, b)
#define v_div(a, b)     _mm512_div_ps(a, b)
#define v_first(a)      _mm512_cvtss_f32(a)
#define v_sqrt(a)       _mm512_sqrt_ps(a)
#define v_fma(a, b, c)  _mm512_fmadd_ps(a, b, c)  /* a * b + c */
#define v_fnma(a, b, c) _mm512_fnmadd_ps(a, b, c) /* c - a * b */
/* The second operand where either is NaN. */
#define v_max(a, b)     _mm512_max_ps(a, b)
#define v_min(a, b)     _mm512_min_ps(a, b)
#define v_and(a, b)     _mm512_and_ps(a, b)
#define v_or(a, b)      _mm512_or_ps(a, b)
#define v_xor(a, b)     _mm512_xor_ps(a, b)
#define v_andnot(a, b)  _mm512_andnot_ps(a, b) /* ~a & b */
#define v_round(a)      _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define v_floor(a)      _mm512_roundscale_ps(a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)
#define v_ceil(a)       _mm512_roundscale_ps(a, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC)
#define v_lt(a, b)      _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ)
#define v_gt(a, b)      _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ)
#define v_eq(a, b)      _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ)
#define v_isnan(a)      _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q)
#define v_mask_or(a, b) ((vmask)((a) | (b)))
#define v_mask_bits(m)  ((uint32_t)(m))
/* a where the mask is clear, b where it is set. */
#define v_select(a, b, m) _mm512_mask_blend_ps(m, a, b)
#define vi_set1(x)        _mm512_set1_epi32(x)
#define vi_add(a, b)      _mm512_add_epi32(a, b)
#define vi_sub(a, b)      _mm512_sub_epi32(a, b)
#define vi_and(a, b)      _mm512_and_si512(a, b)
#define vi_or(a, b)       _mm512_or_si512(a, b)
#define vi_sll(a, n)      _mm512_slli_epi32(a, n)
#define vi_srl(a, n)      _mm512_srli_epi32(a, n)
#define vi_sra(a, n)      _mm512_srai_epi32(a, n)
#define vi_load(p)        _mm512_loadu_si512((const void *)(p))
#define v_to_int(a)       _mm512_cvtps_epi32(a) /* rounds */
#define vi_to_float(a)    _mm512_cvtepi32_ps(a)
#define v_as_int(a)       _mm512_castps_si512(a)
#define vi_as_float(a)    _mm512_castsi512_ps(a)
#define v_prefetch(p)     _mm_prefetch((const char *)(p), _MM_HINT_T0)
#define v_prefetch_l2(p)  _mm_prefetch((const char *)(p), _MM_HINT_T1)
/* Keeps a in a register, and what is done to it in order. */
#define v_keep(a) __asm__ volatile("" : "+v"(a))

/* A mask with the lanes set whose bit is set. */
ALWAYS vmask v_mask_from_bits(uint32_t bits)
{
    return (vmask)bits;
}

/* The first n < VL lanes; the rest is zero and its memory is not touched. */
ALWAYS vec v_load_n(const float *p, unsigned n)
{
    return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}

ALWAYS void v_store_n(float *p, vec a, unsigned n)
{
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), a);
}

/* VL halves -> VL floats and back. */
ALWAYS vec v_load_f16(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

ALWAYS vec v_load_bf16(const uint16_t *p)
{
    const __m256i h = _mm256_loadu_si256((const __m256i *)(const void *)p);

    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

ALWAYS void v_store_f16(uint16_t *p, vec a)
{
    _mm256_storeu_si256((__m256i *)(void *)p,
                        _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

/* One half. */
ALWAYS float f16_load(uint16_t h)
{
    return _cvtsh_ss(h);
}

ALWAYS uint16_t f16_round(float x)
{
    return _cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* Low 16 bits of each lane. */
ALWAYS void vi_store_u16(uint16_t *p, veci a)
{
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtepi32_epi16(a));
}

/* Lanes are added in one fixed order. */
ALWAYS float v_sum(vec a)
{
    const __m256 h = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));

    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    s = _mm_add_ss(s, _mm_movehdup_ps(s));
    return _mm_cvtss_f32(s);
}

/* Largest lane; NaN may be lost. */
ALWAYS float v_hmax(vec a)
{
    const __m256 h = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));

    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    s = _mm_max_ss(s, _mm_movehdup_ps(s));
    return _mm_cvtss_f32(s);
}

/* r[i] lane j <-> r[j] lane i. */
ALWAYS void v_transpose(vec r[VL])
{
    vec t[16], u[16];

    UNROLL
    for (int i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    UNROLL
    for (int i = 0; i < 4; i++) { /* u[4i + c]: columns c, c+4, c+8, c+12 of rows 4i.. */
        u[4 * i] = _mm512_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
        u[4 * i + 1] = _mm512_shuffle_ps(t[4 * i], t[4 * i + 2], 0xee);
        u[4 * i + 2] = _mm512_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
        u[4 * i + 3] = _mm512_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xee);
    }
    UNROLL
    for (int c = 0; c < 4; c++) { /* 4x4 transpose of the 128-bit blocks */
        const vec ab_lo = _mm512_shuffle_f32x4(u[c], u[c + 4], 0x44);
        const vec ab_hi = _mm512_shuffle_f32x4(u[c], u[c + 4], 0xee);
        const vec cd_lo = _mm512_shuffle_f32x4(u[c + 8], u[c + 12], 0x44);
        const vec cd_hi = _mm512_shuffle_f32x4(u[c + 8], u[c + 12], 0xee);
        r[c] = _mm512_shuffle_f32x4(ab_lo, cd_lo, 0x88);
        r[c + 4] = _mm512_shuffle_f32x4(ab_lo, cd_lo, 0xdd);
        r[c + 8] = _mm512_shuffle_f32x4(ab_hi, cd_hi, 0x88);
        r[c + 12] = _mm512_shuffle_f32x4(ab_hi, cd_hi, 0xdd);
    }
}

#endif

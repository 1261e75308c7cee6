/* kernels/x86/vec_avx2.h - the vector vocabulary of the x86 templates, 8 lanes. */
#ifndef EW_KERNELS_VEC_AVX2_H
#define EW_KERNELS_VEC_AVX2_H

#if !defined(__AVX2__) || !defined(__FMA__) || !defined(__F16C__)
#    error "compile with the flags of AVX2 (cmake/kernels.cmake)"
#endif

#include <immintrin.h>
#include <stdint.h>

#include "kernels/simd/unroll.h"

#define VL    8  /* floats in a vector */
#define V_MR  6  /* rows of the largest register tile */
#define V_ACC 12 /* accumulators that fit beside the operands */
/* Panels that a tile of r rows takes at once: enough chains to hide the latency of FMA. */
#define V_NP(r) ((r) == 1 ? 4 : (r) <= 3 ? 2 : 1)

typedef __m256 vec;
typedef __m256i veci;
typedef __m256 vmask; /* all ones or zeros per lane */

#define v_zero()        _mm256_setzero_ps()
#define v_set1(x)       _mm256_set1_ps(x)
#define v_load(p)       _mm256_loadu_ps(p)
#define v_store(p, a)   _mm256_storeu_ps(p, a)
#define v_bcast(p)      _mm256_broadcast_ss(p)
#define v_add(a, b)     _mm256_add_ps(a, b)
#define v_sub(a, b)     _mm256_sub_ps(a, b)
#define v_mul(a, b)     _mm256_mul_ps(a, b)
#define v_div(a, b)     _mm256_div_ps(a, b)
#define v_first(a)      _mm256_cvtss_f32(a)
#define v_sqrt(a)       _mm256_sqrt_ps(a)
#define v_fma(a, b, c)  _mm256_fmadd_ps(a, b, c)  /* a * b + c */
#define v_fnma(a, b, c) _mm256_fnmadd_ps(a, b, c) /* c - a * b */
/* The second operand where either is NaN. */
#define v_max(a, b)     _mm256_max_ps(a, b)
#define v_min(a, b)     _mm256_min_ps(a, b)
#define v_and(a, b)     _mm256_and_ps(a, b)
#define v_or(a, b)      _mm256_or_ps(a, b)
#define v_xor(a, b)     _mm256_xor_ps(a, b)
#define v_andnot(a, b)  _mm256_andnot_ps(a, b) /* ~a & b */
#define v_round(a)      _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define v_floor(a)      _mm256_floor_ps(a)
#define v_ceil(a)       _mm256_ceil_ps(a)
#define v_lt(a, b)      _mm256_cmp_ps(a, b, _CMP_LT_OQ)
#define v_gt(a, b)      _mm256_cmp_ps(a, b, _CMP_GT_OQ)
#define v_eq(a, b)      _mm256_cmp_ps(a, b, _CMP_EQ_OQ)
#define v_isnan(a)      _mm256_cmp_ps(a, a, _CMP_UNORD_Q)
#define v_mask_or(a, b) _mm256_or_ps(a, b)
#define v_mask_bits(m)  ((uint32_t)_mm256_movemask_ps(m))
/* a where the mask is clear, b where it is set. */
#define v_select(a, b, m) _mm256_blendv_ps(a, b, m)
#define vi_set1(x)        _mm256_set1_epi32(x)
#define vi_add(a, b)      _mm256_add_epi32(a, b)
#define vi_sub(a, b)      _mm256_sub_epi32(a, b)
#define vi_and(a, b)      _mm256_and_si256(a, b)
#define vi_or(a, b)       _mm256_or_si256(a, b)
#define vi_sll(a, n)      _mm256_slli_epi32(a, n)
#define vi_srl(a, n)      _mm256_srli_epi32(a, n)
#define vi_sra(a, n)      _mm256_srai_epi32(a, n)
#define vi_load(p)        _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define v_to_int(a)       _mm256_cvtps_epi32(a) /* rounds */
#define vi_to_float(a)    _mm256_cvtepi32_ps(a)
#define v_as_int(a)       _mm256_castps_si256(a)
#define vi_as_float(a)    _mm256_castsi256_ps(a)
#define v_prefetch(p)     _mm_prefetch((const char *)(p), _MM_HINT_T0)
#define v_prefetch_l2(p)  _mm_prefetch((const char *)(p), _MM_HINT_T1)
/* Keeps a in a register, and what is done to it in order. */
#define v_keep(a) __asm__ volatile("" : "+v"(a))

/* A mask with the lanes set whose bit is set. */
ALWAYS vmask v_mask_from_bits(uint32_t bits)
{
    const __m256i lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i b = _mm256_and_si256(_mm256_set1_epi32((int)bits), lane);

    return _mm256_castsi256_ps(_mm256_cmpeq_epi32(b, lane));
}

/* The first n < VL lanes; the rest is zero and its memory is not touched. */
ALWAYS vec v_load_n(const float *p, unsigned n)
{
    return _mm256_maskload_ps(p, _mm256_castps_si256(v_mask_from_bits((1u << n) - 1)));
}

ALWAYS void v_store_n(float *p, vec a, unsigned n)
{
    _mm256_maskstore_ps(p, _mm256_castps_si256(v_mask_from_bits((1u << n) - 1)), a);
}

/* VL halves -> VL floats and back. */
ALWAYS vec v_load_f16(const uint16_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}

ALWAYS vec v_load_bf16(const uint16_t *p)
{
    const __m128i h = _mm_loadu_si128((const __m128i *)(const void *)p);

    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

ALWAYS void v_store_f16(uint16_t *p, vec a)
{
    _mm_storeu_si128((__m128i *)(void *)p,
                     _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
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
    const __m256i packed = _mm256_packus_epi32(a, a);

    _mm_storeu_si128((__m128i *)(void *)p,
                     _mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08)));
}

/* Lanes are added in one fixed order. */
ALWAYS float v_sum(vec a)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));

    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    s = _mm_add_ss(s, _mm_movehdup_ps(s));
    return _mm_cvtss_f32(s);
}

/* Largest lane; NaN may be lost. */
ALWAYS float v_hmax(vec a)
{
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));

    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    s = _mm_max_ss(s, _mm_movehdup_ps(s));
    return _mm_cvtss_f32(s);
}

/* r[i] lane j <-> r[j] lane i. */
ALWAYS void v_transpose(vec r[VL])
{
    vec t[8], u[8];

    UNROLL
    for (int i = 0; i < 4; i++) {
        t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    UNROLL
    for (int i = 0; i < 2; i++) {
        u[4 * i] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
        u[4 * i + 1] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0xee);
        u[4 * i + 2] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
        u[4 * i + 3] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xee);
    }
    UNROLL
    for (int i = 0; i < 4; i++) {
        r[i] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x20);
        r[i + 4] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x31);
    }
}

#endif

/* kernels/arm/vec_neon.h - the vector vocabulary of the templates, 4 lanes: what every AArch64 has.
 */
#ifndef EW_KERNELS_VEC_NEON_H
#define EW_KERNELS_VEC_NEON_H

#if !defined(__aarch64__) || !defined(__ARM_NEON)
#    error "compile for AArch64 (cmake/kernels.cmake)"
#endif

#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

#include "kernels/simd/unroll.h"

#define VL    4  /* floats in a vector */
#define V_MR  6  /* rows of the largest register tile */
#define V_ACC 24 /* accumulators that fit beside the operands */
/* Panels that a tile of r rows takes at once: enough chains to hide the latency of FMA. */
#define V_NP(r) ((r) <= 2 ? 4 : 2)

typedef float32x4_t vec;
typedef int32x4_t veci;
typedef uint32x4_t vmask; /* all ones or zeros per lane */

#define v_zero()        vdupq_n_f32(0.0f)
#define v_set1(x)       vdupq_n_f32(x)
#define v_load(p)       vld1q_f32(p)
#define v_store(p, a)   vst1q_f32(p, a)
#define v_bcast(p)      vld1q_dup_f32(p)
#define v_add(a, b)     vaddq_f32(a, b)
#define v_sub(a, b)     vsubq_f32(a, b)
#define v_mul(a, b)     vmulq_f32(a, b)
#define v_div(a, b)     vdivq_f32(a, b)
#define v_first(a)      vgetq_lane_f32(a, 0)
#define v_sqrt(a)       vsqrtq_f32(a)
#define v_fma(a, b, c)  vfmaq_f32(c, a, b) /* a * b + c */
#define v_fnma(a, b, c) vfmsq_f32(c, a, b) /* c - a * b */
#define v_round(a)      vrndnq_f32(a)
#define v_floor(a)      vrndmq_f32(a)
#define v_ceil(a)       vrndpq_f32(a)
#define v_lt(a, b)      vcltq_f32(a, b)
#define v_gt(a, b)      vcgtq_f32(a, b)
#define v_eq(a, b)      vceqq_f32(a, b)
#define v_isnan(a)      vmvnq_u32(vceqq_f32(a, a))
#define v_mask_or(a, b) vorrq_u32(a, b)
/* a where the mask is clear, b where it is set. */
#define v_select(a, b, m) vbslq_f32(m, b, a)
#define vi_set1(x)        vdupq_n_s32(x)
#define vi_add(a, b)      vaddq_s32(a, b)
#define vi_sub(a, b)      vsubq_s32(a, b)
#define vi_and(a, b)      vandq_s32(a, b)
#define vi_or(a, b)       vorrq_s32(a, b)
#define vi_sll(a, n)      vshlq_n_s32(a, n)
#define vi_srl(a, n)      vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(a), n))
#define vi_sra(a, n)      vshrq_n_s32(a, n)
#define vi_load(p)        vreinterpretq_s32_u8(vld1q_u8((const uint8_t *)(const void *)(p)))
#define v_to_int(a)       vcvtnq_s32_f32(a) /* rounds */
#define vi_to_float(a)    vcvtq_f32_s32(a)
#define v_as_int(a)       vreinterpretq_s32_f32(a)
#define vi_as_float(a)    vreinterpretq_f32_s32(a)
#define v_prefetch(p)     __builtin_prefetch(p)
#define v_prefetch_l2(p)  __builtin_prefetch(p, 0, 2)
/* Keeps a in a register, and what is done to it in order. */
#define v_keep(a) __asm__ volatile("" : "+w"(a))

/* The second operand where either is NaN: not what FMAX and FMIN do. */
ALWAYS vec v_max(vec a, vec b)
{
    return vbslq_f32(vcgtq_f32(a, b), a, b);
}

ALWAYS vec v_min(vec a, vec b)
{
    return vbslq_f32(vcltq_f32(a, b), a, b);
}

ALWAYS vec v_and(vec a, vec b)
{
    return vi_as_float(vandq_s32(v_as_int(a), v_as_int(b)));
}

ALWAYS vec v_or(vec a, vec b)
{
    return vi_as_float(vorrq_s32(v_as_int(a), v_as_int(b)));
}

ALWAYS vec v_xor(vec a, vec b)
{
    return vi_as_float(veorq_s32(v_as_int(a), v_as_int(b)));
}

/* ~a & b */
ALWAYS vec v_andnot(vec a, vec b)
{
    return vi_as_float(vbicq_s32(v_as_int(b), v_as_int(a)));
}

ALWAYS vmask v_lane_bits(void)
{
    static const uint32_t bit[4] = { 1, 2, 4, 8 };

    return vld1q_u32(bit);
}

ALWAYS uint32_t v_mask_bits(vmask m)
{
    return vaddvq_u32(vandq_u32(m, v_lane_bits()));
}

/* A mask with the lanes set whose bit is set. */
ALWAYS vmask v_mask_from_bits(uint32_t bits)
{
    return vtstq_u32(vdupq_n_u32(bits), v_lane_bits());
}

/* The first n < VL lanes; the rest is zero and its memory is not touched. */
ALWAYS vec v_load_n(const float *p, unsigned n)
{
    vec a = v_zero();

    if (n > 0)
        a = vld1q_lane_f32(p, a, 0);
    if (n > 1)
        a = vld1q_lane_f32(p + 1, a, 1);
    if (n > 2)
        a = vld1q_lane_f32(p + 2, a, 2);
    return a;
}

ALWAYS void v_store_n(float *p, vec a, unsigned n)
{
    if (n > 0)
        vst1q_lane_f32(p, a, 0);
    if (n > 1)
        vst1q_lane_f32(p + 1, a, 1);
    if (n > 2)
        vst1q_lane_f32(p + 2, a, 2);
}

/* VL halves -> VL floats and back. */
ALWAYS vec v_load_f16(const uint16_t *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}

ALWAYS vec v_load_bf16(const uint16_t *p)
{
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
}

ALWAYS void v_store_f16(uint16_t *p, vec a)
{
    vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(a)));
}

/* One half. */
ALWAYS float f16_load(uint16_t h)
{
    return v_first(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(h))));
}

ALWAYS uint16_t f16_round(float x)
{
    return vget_lane_u16(vreinterpret_u16_f16(vcvt_f16_f32(v_set1(x))), 0);
}

/* Low 16 bits of each lane. */
ALWAYS void vi_store_u16(uint16_t *p, veci a)
{
    vst1_u16(p, vmovn_u32(vreinterpretq_u32_s32(a)));
}

/* Lanes are added in one fixed order. */
ALWAYS float v_sum(vec a)
{
    return vaddvq_f32(a);
}

/* Largest lane; NaN may be lost. */
ALWAYS float v_hmax(vec a)
{
    return vmaxnmvq_f32(a);
}

/* r[i] lane j <-> r[j] lane i. */
ALWAYS void v_transpose(vec r[VL])
{
    const float64x2_t a = vreinterpretq_f64_f32(vtrn1q_f32(r[0], r[1]));
    const float64x2_t b = vreinterpretq_f64_f32(vtrn2q_f32(r[0], r[1]));
    const float64x2_t c = vreinterpretq_f64_f32(vtrn1q_f32(r[2], r[3]));
    const float64x2_t d = vreinterpretq_f64_f32(vtrn2q_f32(r[2], r[3]));

    r[0] = vreinterpretq_f32_f64(vzip1q_f64(a, c));
    r[1] = vreinterpretq_f32_f64(vzip1q_f64(b, d));
    r[2] = vreinterpretq_f32_f64(vzip2q_f64(a, c));
    r[3] = vreinterpretq_f32_f64(vzip2q_f64(b, d));
}

#endif

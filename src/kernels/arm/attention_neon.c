/* kernels/arm/attention_neon.c - attention at this level: attention_tmpl.inc with its vectors. */
#include "kernels/arm/vec_neon.h"

#include "cpu/cpu.h"
#include "kernels/simd/vmath.inc"
#include "kernels/simd/vrow.inc"

/* VL codes -> VL floats, without their scale. */
ALWAYS int16x8_t load_bytes(const unsigned char *p)
{
    uint32_t four;

    memcpy(&four, p, sizeof(four));
    return vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(four)));
}

ALWAYS vec v_load_i8(const unsigned char *p)
{
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(load_bytes(p))));
}

/* As f16, whose exponent counts from 8 lower: F8_FACTOR is missing. */
ALWAYS vec v_load_f8e4m3(const unsigned char *p)
{
    const uint16x4_t nan = vdup_n_u16(0x3f80);
    const uint16x4_t x = vreinterpret_u16_s16(vget_low_s16(load_bytes(p)));
    const uint16x4_t h = vand_u16(vshl_n_u16(x, 7), vdup_n_u16(0xbf80));
    const uint16x4_t bad = vceq_u16(vand_u16(h, nan), nan);

    return vcvt_f32_f16(vreinterpret_f16_u16(vorr_u16(h, bad)));
}

/* Low 8 bits of each lane. */
ALWAYS void vi_store_u8(unsigned char *p, veci a)
{
    const uint16x4_t words = vmovn_u32(vreinterpretq_u32_s32(a));
    const uint32_t four =
        vget_lane_u32(vreinterpret_u32_u8(vmovn_u16(vcombine_u16(words, words))), 0);

    memcpy(p, &four, sizeof(four));
}

#include "kernels/simd/attention_tmpl.inc"

ATTN_KERNEL(neon, EW_CPU_NEON, 0.0f)

// kernels/cuda/linear_dequant.cuh - codes of the quantised layouts (linear.h) to bf16, exactly, and
// scales and zero points of a lane's two rows. Macros from the format: EW_CODE (1 i4, 2 u4, 3 e2m1,
// 4 i8, 5 u8, 6 e4m3, 7 e5m2), EW_SCALE (0 none, 1 f32, 2 f16, 3 bf16, 4 e4m3, 5 e8m0), EW_ZERO,
// EW_GROUP (columns; 0: one group).
#ifndef EW_KERNELS_CUDA_LINEAR_DEQUANT_CUH
#define EW_KERNELS_CUDA_LINEAR_DEQUANT_CUH

#include "copy.cuh"
#include "linear_epilogue.cuh"
#include "mma.cuh"

#define EW_WIDE       (EW_CODE >= 4)
#define EW_BLOCK_COLS (EW_WIDE ? 32 : 64)
#define EW_TILES      (EW_BLOCK_COLS / 16)
#define EW_GROUPED    (EW_GROUP > 0)
// Groups that share a block, and tiles of a group within it.
#define EW_SUB         (EW_GROUPED && EW_GROUP < EW_BLOCK_COLS ? EW_BLOCK_COLS / EW_GROUP : 1)
#define EW_GROUP_TILES (EW_TILES / EW_SUB)

#define EW_SCALE_BYTES (EW_SCALE == 0 ? 0 : EW_SCALE == 1 ? 4 : EW_SCALE <= 3 ? 2 : 1)
#define EW_ZERO_BYTES  (!EW_ZERO ? 0 : EW_WIDE ? 2 : 1)
// Words that hold both rows' scales (zeros) of a unit.
#define EW_SCALE_WORDS ((EW_SCALE_BYTES * 2 * EW_SUB + 3) / 4)
#define EW_ZERO_WORDS  ((EW_ZERO_BYTES * 2 * EW_SUB + 3) / 4)

struct ew_groups {
    uint32_t scales[EW_SCALE_WORDS ? EW_SCALE_WORDS : 1];
    uint32_t zeros[EW_ZERO_WORDS ? EW_ZERO_WORDS : 1];
};

template <int BYTES> EW_DEV void ew_load_small(uint32_t *to, const char *from)
{
    if (BYTES == 2) {
        to[0] = *(const uint16_t *)from;
    } else if (BYTES == 4) {
        to[0] = *(const uint32_t *)from;
    } else if (BYTES == 8) {
        const uint2 v = *(const uint2 *)from;
        to[0] = v.x, to[BYTES >= 8 ? 1 : 0] = v.y;
    } else {
#pragma unroll
        for (int i = 0; i < BYTES / 4; i += 4) {
            const uint4 v = *(const uint4 *)(from + i * 4);
            to[i] = v.x, to[i + (BYTES >= 16 ? 1 : 0)] = v.y;
            to[i + (BYTES >= 16 ? 2 : 0)] = v.z, to[i + (BYTES >= 16 ? 3 : 0)] = v.w;
        }
    }
}

// What block `b` of the panel at `panel` needs; g = lane / 4.
EW_DEV void ew_load_groups(struct ew_groups &o, const ew_args &a, const char *panel, uint32_t b,
                           uint32_t g)
{
    const uint32_t unit =
        !EW_GROUPED ? 0
        : EW_GROUP < EW_BLOCK_COLS
            ? b
            : b / (EW_GROUPED ? (EW_GROUP + EW_BLOCK_COLS - 1) / EW_BLOCK_COLS : 1);
#if EW_SCALE
    ew_load_small<EW_SCALE_BYTES * 2 * EW_SUB>(
        o.scales, panel + a.scales_at + (unit * 8 + g) * (EW_SCALE_BYTES * 2 * EW_SUB));
#endif
#if EW_ZERO
    ew_load_small<EW_ZERO_BYTES * 2 * EW_SUB>(
        o.zeros, panel + a.zeros_at + (unit * 8 + g) * (EW_ZERO_BYTES * 2 * EW_SUB));
#endif
}

// Scale of row g (h = 0) or g + 8 (h = 1) in group `sub` of the block.
EW_DEV float ew_scale(const struct ew_groups &o, int sub, int h)
{
    const int i = sub * 2 + h;
#if EW_SCALE == 1
    return __uint_as_float(o.scales[i]);
#elif EW_SCALE == 2
    return h ? ew_f16_hi(o.scales[i / 2]) : ew_f16_lo(o.scales[i / 2]);
#elif EW_SCALE == 3
    return h ? ew_bf16_hi(o.scales[i / 2]) : ew_bf16_lo(o.scales[i / 2]);
#elif EW_SCALE == 4
    return ew_e4m3_f32(o.scales[i / 4] >> (i % 4 * 8) & 0xffu);
#elif EW_SCALE == 5
    return ew_e8m0_f32(o.scales[i / 4] >> (i % 4 * 8) & 0xffu);
#else
    return 1.0f;
#endif
}

// What is added to codes of a row, as a bf16 pair: 4 bits: -(128 + zero); 8 bits: -zero.
EW_DEV uint32_t ew_offset(const struct ew_groups &o, int sub, int h)
{
#if EW_CODE == 1
    return 0xc308c308u; // -136
#elif EW_CODE == 2 && !EW_ZERO
    return 0xc300c300u; // -128
#elif EW_CODE == 2
    const int i = sub * 2 + h;
    const uint32_t z = o.zeros[i / 4] >> (i % 4 * 8) & 0xffu;
    return (0xc300u + z) * 0x10001u;
#elif EW_ZERO
    const int i = sub * 2 + h;
    const float z = (float)(short)(o.zeros[i / 2] >> (i % 2 * 16));
    return ew_bf16x2(-z, -z);
#else
    return 0;
#endif
}

#define EW_BF16_ONE 0x3f803f80u

// (w & mask) | bits in one instruction: with two constants the compiler takes two.
EW_DEV uint32_t ew_and_or(uint32_t w, uint32_t mask, uint32_t bits)
{
    uint32_t r;
    asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(r) : "r"(w), "r"(mask), "r"(bits));
    return r;
}

// Scales that are short floats times short codes are exact in bf16 (6 significant bits at most), so
// that they may be applied to weights instead of sums.
#define EW_SHORT_SCALE (EW_SCALE >= 4 && (EW_CODE == 3 || EW_CODE >= 6))

EW_DEV void ew_scale_fragment(uint32_t f[4], const struct ew_groups &o, int sub)
{
    const float s0 = ew_scale(o, sub, 0), s1 = ew_scale(o, sub, 1);
    const uint32_t p0 = ew_bf16x2(s0, s0), p1 = ew_bf16x2(s1, s1);

    f[0] = ew_fma_bf16x2(f[0], p0, 0), f[1] = ew_fma_bf16x2(f[1], p1, 0);
    f[2] = ew_fma_bf16x2(f[2], p0, 0), f[3] = ew_fma_bf16x2(f[3], p1, 0);
}

// The cheaper way for 4-bit integers: a code's bits are a bf16 that is code * 2^-133 (2^-129 from bit
// 4 on), because denormals and the first numbers after them are evenly spaced, so that a multiplication
// is all it takes: a 64th of (code - zero). EW_CODE_UNIT makes up for that, in row scales.
#if EW_CODE == 1 || EW_CODE == 2
#    define EW_CODE_UNIT 64.0f

EW_DEV uint32_t ew_offset_64th(const struct ew_groups &o, int sub, int h)
{
#    if EW_CODE == 1
    return 0xbe00be00u; // -8/64
#    elif !EW_ZERO
    return 0;
#    else
    const int i = sub * 2 + h;
    const uint32_t z = o.zeros[i / 4] >> (i % 4 * 8) & 0xffu;
    return ew_fma_bf16x2(z * 0x10001u, 0xff00ff00u, 0);
#    endif
}

EW_DEV void ew_dequant_64th(uint32_t f[4], const uint4 &w, int j, uint32_t o0, uint32_t o1)
{
    const uint32_t word = j == 0 ? w.x : j == 1 ? w.y : j == 2 ? w.z : w.w, high = word >> 8;

    f[0] = ew_fma_bf16x2(word & 0x000f000fu, 0x7f007f00u, o0);
    f[1] = ew_fma_bf16x2(word & 0x00f000f0u, 0x7d007d00u, o1);
    f[2] = ew_fma_bf16x2(high & 0x000f000fu, 0x7f007f00u, o0);
    f[3] = ew_fma_bf16x2(high & 0x00f000f0u, 0x7d007d00u, o1);
}
#else
#    define EW_CODE_UNIT    1.0f
#    define ew_offset_64th  ew_offset
#    define ew_dequant_64th ew_dequant
#endif

#if EW_WIDE
// Two codes, in the low bytes of the halves of w (high = 0) or in the high bytes.
EW_DEV uint32_t ew_code_pair(uint32_t w, int high, uint32_t offset)
{
#    if EW_CODE <= 5
    if (high)
        w >>= 8;
    const uint32_t low7 = ew_and_or(w, 0x007f007fu, 0x43004300u); // 128 + 7 bits
    const uint32_t top = ew_and_or(w, 0x00800080u, 0x43004300u);  // 128, or 256 with the eighth bit
#        if EW_CODE == 4
    const uint32_t v = ew_fma_bf16x2(top, 0xbf80bf80u, low7);
#        else
    const uint32_t v = ew_fma_bf16x2(ew_fma_bf16x2(top, EW_BF16_ONE, 0xc300c300u), EW_BF16_ONE,
                                     ew_fma_bf16x2(low7, EW_BF16_ONE, 0xc300c300u));
#        endif
    return EW_ZERO ? ew_fma_bf16x2(v, EW_BF16_ONE, offset) : v;
#    else
    if (!high)
        w <<= 8;
#        if EW_CODE == 6 // exponent and mantissa in place, then times 2^120
    return ew_fma_bf16x2(ew_and_or(w, 0x80008000u, w >> 4 & 0x07f007f0u), 0x7b807b80u, 0);
#        else            // 2^112
    return ew_fma_bf16x2(ew_and_or(w, 0x80008000u, w >> 3 & 0x0fe00fe0u), 0x77807780u, 0);
#        endif
#    endif
}

// The A operand of tile j of a block; w is the lane's 16 bytes, o0 and o1 the offsets of its two
// rows.
EW_DEV void ew_dequant(uint32_t f[4], const uint4 &w, int j, uint32_t o0, uint32_t o1)
{
    const uint32_t lo = j == 0 ? w.x : w.z, hi = j == 0 ? w.y : w.w;

    f[0] = ew_code_pair(lo, 0, o0);
    f[1] = ew_code_pair(lo, 1, o1);
    f[2] = ew_code_pair(hi, 0, o0);
    f[3] = ew_code_pair(hi, 1, o1);
}
#else
EW_DEV uint32_t ew_code_pair(uint32_t w, int i, uint32_t offset)
{
#    if EW_CODE == 3 // sign and magnitude in place, then times 2^126
    const uint32_t sign = w << (12 - 4 * i);
    const uint32_t rest = (i < 2 ? w << (6 - 4 * i) : w >> (4 * i - 6)) & 0x01c001c0u;
    return ew_fma_bf16x2(ew_and_or(sign, 0x80008000u, rest), 0x7e807e80u, 0);
#    else            // 128 + code
    return ew_fma_bf16x2(ew_and_or(w >> (4 * i), 0x000f000fu, 0x43004300u), EW_BF16_ONE, offset);
#    endif
}

EW_DEV void ew_dequant(uint32_t f[4], const uint4 &w, int j, uint32_t o0, uint32_t o1)
{
    const uint32_t word = j == 0 ? w.x : j == 1 ? w.y : j == 2 ? w.z : w.w;

    f[0] = ew_code_pair(word, 0, o0);
    f[1] = ew_code_pair(word, 1, o1);
    f[2] = ew_code_pair(word, 2, o0);
    f[3] = ew_code_pair(word, 3, o1);
}
#endif

#endif

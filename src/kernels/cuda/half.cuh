// kernels/cuda/half.cuh - short number formats without CUDA's headers (the run-time compiler may have
// none). Bits in integers; "2" means a pair in a 32-bit word, the first number low.
#ifndef EW_KERNELS_CUDA_HALF_CUH
#define EW_KERNELS_CUDA_HALF_CUH

#include "linear_args.cuh"

#define EW_DEV static __device__ __forceinline__

EW_DEV float ew_bf16_lo(uint32_t pair)
{
    return __uint_as_float(pair << 16);
}

EW_DEV float ew_bf16_hi(uint32_t pair)
{
    return __uint_as_float(pair & 0xffff0000u);
}

EW_DEV float ew_bf16_f32(uint16_t bits)
{
    return __uint_as_float((uint32_t)bits << 16);
}

EW_DEV float ew_f16_f32(uint16_t bits)
{
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(bits));
    return f;
}

EW_DEV float ew_f16_lo(uint32_t pair)
{
    return ew_f16_f32((uint16_t)pair);
}

EW_DEV float ew_f16_hi(uint32_t pair)
{
    return ew_f16_f32((uint16_t)(pair >> 16));
}

// Nearest even; lo becomes the low half.
EW_DEV uint32_t ew_bf16x2(float lo, float hi)
{
    uint32_t r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
    return r;
}

EW_DEV uint32_t ew_f16x2(float lo, float hi)
{
    uint32_t r;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
    return r;
}

EW_DEV uint16_t ew_to_bf16(float f)
{
    return (uint16_t)ew_bf16x2(f, 0.0f);
}

EW_DEV uint16_t ew_to_f16(float f)
{
    return (uint16_t)ew_f16x2(f, 0.0f);
}

// a * b + c in bf16, rounded once; denormals are kept.
EW_DEV uint32_t ew_fma_bf16x2(uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t d;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
}

// OCP e4m3 and e5m2 to f32; e4m3 has no infinity and 0x7f is NaN.
EW_DEV float ew_e4m3_f32(uint32_t b)
{
    const float f = __uint_as_float((b & 0x7fu) << 20) * 0x1p120f;
    return __uint_as_float(((b & 0x80u) << 24) |
                           ((b & 0x7fu) == 0x7fu ? 0x7fc00000u : __float_as_uint(f)));
}

EW_DEV float ew_e5m2_f32(uint32_t b)
{
    return ew_f16_f32((uint16_t)(b << 8));
}

// Power of two, 0xff is NaN, 0 is 2^-127.
EW_DEV float ew_e8m0_f32(uint32_t b)
{
    return __uint_as_float(b == 0xff ? 0x7fc00000u : b ? b << 23 : 0x00400000u);
}

#endif

// kernels/cuda/linear_epilogue.cuh - what happens to a sum: bias, scale, soft-cap, activation, gate
// x up, residual (formula in kernels/linear.h). EW_SHORT: y is bf16 (1) or
// f16 (2; the largest number for what is larger).
#ifndef EW_KERNELS_CUDA_LINEAR_EPILOGUE_CUH
#define EW_KERNELS_CUDA_LINEAR_EPILOGUE_CUH

#include "half.cuh"

typedef struct ew_cuda_linear_args ew_args;

EW_DEV float ew_act(float z)
{
#if EW_ACT == 1
    return z / (1.0f + expf(-z));
#elif EW_ACT == 2
    return 0.5f * z * (1.0f + tanhf(0.79788456f * (z + 0.044715f * z * z * z)));
#elif EW_ACT == 3
    return 0.5f * z * (1.0f + erff(z * 0.70710678f));
#elif EW_ACT == 4
    return z > 0.0f || z != z ? z : 0.0f;
#elif EW_ACT == 5
    return z > 0.0f || z != z ? z * z : 0.0f;
#else
    return z;
#endif
}

// The same to about 2^-20, where the result becomes bf16.
EW_DEV float ew_act_short(float z)
{
#if EW_ACT == 1
    float e, r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e) : "f"(z * -1.44269504f));
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(1.0f + e));
    return z * r;
#else
    return ew_act(z);
#endif
}

EW_DEV float ew_bias(const ew_args &a, uint32_t n)
{
    return a.bias ? ((const float *)a.bias)[n] : 0.0f;
}

EW_DEV float ew_finish_with(const ew_args &a, float z, float bias)
{
    z = (z + bias) * a.scale;
#if EW_CAP
    z = a.softcap * tanhf(z / a.softcap);
#endif
    return z;
}

// Row n of W.
EW_DEV float ew_finish(const ew_args &a, float z, uint32_t n)
{
    return ew_finish_with(a, z, ew_bias(a, n));
}

#if EW_SHORT
EW_DEV uint32_t ew_short2(float lo, float hi)
{
#    if EW_SHORT == 2
    uint32_t r;
    asm("cvt.rn.satfinite.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
    return r;
#    else
    return ew_bf16x2(lo, hi);
#    endif
}
#endif

EW_DEV void ew_store(const ew_args &a, float y, uint32_t m, uint32_t n)
{
    if (a.residual)
        y += ((const float *)a.residual)[m * a.residual_stride + n];
#if EW_SHORT
    ((uint16_t *)a.y)[m * a.y_stride + n] = (uint16_t)ew_short2(y, 0.0f);
#else
    ((float *)a.y)[m * a.y_stride + n] = y;
#endif
}

EW_DEV void ew_store_plain(const ew_args &a, float z, uint32_t m, uint32_t n)
{
    ew_store(a, ew_act(ew_finish(a, z, n)), m, n);
}

// Output n of a gate/up pair.
EW_DEV void ew_store_glu(const ew_args &a, float gate, float up, uint32_t m, uint32_t n)
{
    ew_store(a, ew_act(ew_finish(a, gate, n)) * ew_finish(a, up, n + a.n_out), m, n);
}

#endif

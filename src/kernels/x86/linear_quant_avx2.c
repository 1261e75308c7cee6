/* kernels/x86/linear_quant_avx2.c - quantised weights at this level: linear_quant.inc with its
 * vectors. */
#include "kernels/x86/vecq_avx2.h"

#include "cpu/cpu.h"
#include "kernels/simd/vmath.inc"
#include "kernels/simd/linear_quant.inc"

QUANT_KERNEL(q4, avx2_p16, EW_CPU_AVX2)
QUANT_KERNEL(q8, avx2_p16, EW_CPU_AVX2)

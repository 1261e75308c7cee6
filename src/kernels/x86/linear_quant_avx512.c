/* kernels/x86/linear_quant_avx512.c - quantised weights at this level: linear_quant.inc with its
 * vectors. */
#include "kernels/x86/vecq_avx512.h"

#include "cpu/cpu.h"
#include "kernels/simd/vmath.inc"
#include "kernels/simd/linear_quant.inc"

QUANT_KERNEL(q4, avx512_p32, (EW_CPU_AVX2 | EW_CPU_AVX512))
QUANT_KERNEL(q8, avx512_p32, (EW_CPU_AVX2 | EW_CPU_AVX512))

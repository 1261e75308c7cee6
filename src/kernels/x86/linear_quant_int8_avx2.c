/* kernels/x86/linear_quant_int8_avx2.c - quantised weights times int8 rows at this level:
 * linear_quant_int8.inc with its vectors. */
#include "kernels/x86/vecq_avx2.h"

#include "cpu/cpu.h"
#include "kernels/simd/vmath.inc"
#include "kernels/simd/linear_quant_int8.inc"

INT8_KERNEL(q4x8, avx2_p16, EW_CPU_AVX2, run, scratch_bytes)
INT8_KERNEL(q8x8, avx2_p16, EW_CPU_AVX2, run, scratch_bytes)

/* kernels/arm/linear_quant_int8_neon.c - quantised weights times int8 rows at this level:
 * linear_quant_int8.inc with its vectors. */
#include "kernels/arm/vecq_neon.h"

#include "cpu/cpu.h"
#include "kernels/simd/vmath.inc"
#include "kernels/simd/linear_quant_int8.inc"

INT8_KERNEL(q4x8, neon_p8, EW_CPU_NEON, run, scratch_bytes)
INT8_KERNEL(q8x8, neon_p8, EW_CPU_NEON, run, scratch_bytes)

/* kernels/arm/linear_quant_neon.c - quantised weights at this level: linear_quant.inc with its
 * vectors. */
#include "kernels/arm/vecq_neon.h"

#include "cpu/cpu.h"
#include "kernels/simd/vmath.inc"
#include "kernels/simd/linear_quant.inc"

QUANT_KERNEL(q4, neon_p8, EW_CPU_NEON)
QUANT_KERNEL(q8, neon_p8, EW_CPU_NEON)

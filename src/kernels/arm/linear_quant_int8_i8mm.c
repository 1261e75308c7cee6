/* kernels/arm/linear_quant_int8_i8mm.c - quantised weights times int8 rows at this level:
 * linear_quant_int8.inc with its vectors. */
#if !defined(__ARM_FEATURE_DOTPROD) || !defined(__ARM_FEATURE_MATMUL_INT8)
#    error "compile with the flags of i8mm (cmake/kernels.cmake)"
#endif
#include "kernels/arm/vecq_neon.h"

#include "cpu/cpu.h"
#include "kernels/simd/vmath.inc"
#include "kernels/simd/linear_quant_int8.inc"

INT8_KERNEL(q4x8, i8mm_p8, (EW_CPU_NEON | EW_CPU_DOTPROD | EW_CPU_I8MM), run, scratch_bytes)
INT8_KERNEL(q8x8, i8mm_p8, (EW_CPU_NEON | EW_CPU_DOTPROD | EW_CPU_I8MM), run, scratch_bytes)

/* kernels/arm/linear_q4w8_i8mm.c - 4-bit weights as 8-bit integers at this level: linear_q4w8.inc
 * with its vectors. */
#if !defined(__ARM_FEATURE_DOTPROD) || !defined(__ARM_FEATURE_MATMUL_INT8)
#    error "compile with the flags of i8mm (cmake/kernels.cmake)"
#endif
#include "kernels/arm/vecq_neon.h"

#include "cpu/cpu.h"
#include "kernels/simd/vmath.inc"
#include "kernels/simd/linear_q4w8.inc"

W8_KERNEL(i8mm_p8, (EW_CPU_NEON | EW_CPU_DOTPROD | EW_CPU_I8MM), run)

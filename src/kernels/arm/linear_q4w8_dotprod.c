/* kernels/arm/linear_q4w8_dotprod.c - 4-bit weights as 8-bit integers at this level:
 * linear_q4w8.inc with its vectors. */
#if !defined(__ARM_FEATURE_DOTPROD)
#    error "compile with the flags of dotprod (cmake/kernels.cmake)"
#endif
#include "kernels/arm/vecq_neon.h"

#include "cpu/cpu.h"
#include "kernels/simd/vmath.inc"
#include "kernels/simd/linear_q4w8.inc"

W8_KERNEL(dotprod_p8, (EW_CPU_NEON | EW_CPU_DOTPROD), run)

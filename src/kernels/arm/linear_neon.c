/* kernels/arm/linear_neon.c - the linear kernels of this level: linear_tmpl.inc with its vectors.
 */
#include "kernels/arm/vec_neon.h"

#include "cpu/cpu.h"
#include "kernels/simd/vmath.inc"
#include "kernels/simd/linear_tmpl.inc"

LINEAR_KERNEL(f32, W_F32, EW_DTYPE_F32, neon_p8, EW_CPU_NEON)
LINEAR_KERNEL(f16, W_F16, EW_DTYPE_F16, neon_p8, EW_CPU_NEON)
LINEAR_KERNEL(bf16, W_BF16, EW_DTYPE_BF16, neon_p8, EW_CPU_NEON)

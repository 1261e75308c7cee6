/* kernels/x86/linear_avx2.c - the linear kernels of this level: linear_tmpl.inc with its vectors.
 */
#include "kernels/x86/vec_avx2.h"

#include "cpu/cpu.h"
#include "kernels/simd/vmath.inc"
#include "kernels/simd/linear_tmpl.inc"

LINEAR_KERNEL(f32, W_F32, EW_DTYPE_F32, avx2_p16, EW_CPU_AVX2)
LINEAR_KERNEL(f16, W_F16, EW_DTYPE_F16, avx2_p16, EW_CPU_AVX2)
LINEAR_KERNEL(bf16, W_BF16, EW_DTYPE_BF16, avx2_p16, EW_CPU_AVX2)

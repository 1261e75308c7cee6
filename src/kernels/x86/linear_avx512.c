/* kernels/x86/linear_avx512.c - the linear kernels of this level: linear_tmpl.inc with its vectors.
 */
#include "kernels/x86/vec_avx512.h"

#include "cpu/cpu.h"
#include "kernels/simd/vmath.inc"
#include "kernels/simd/linear_tmpl.inc"

LINEAR_KERNEL(f32, W_F32, EW_DTYPE_F32, avx512_p32, (EW_CPU_AVX2 | EW_CPU_AVX512))
LINEAR_KERNEL(f16, W_F16, EW_DTYPE_F16, avx512_p32, (EW_CPU_AVX2 | EW_CPU_AVX512))
LINEAR_KERNEL(bf16, W_BF16, EW_DTYPE_BF16, avx512_p32, (EW_CPU_AVX2 | EW_CPU_AVX512))

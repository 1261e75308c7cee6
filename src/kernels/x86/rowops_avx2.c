/* kernels/x86/rowops_avx2.c - the row kernels of this level: rowops_tmpl.inc with its vectors. */
#include "kernels/x86/vec_avx2.h"

#include "cpu/cpu.h"
#include "kernels/simd/vmath.inc"
#include "kernels/simd/vrow.inc"
#include "kernels/simd/rowops_tmpl.inc"

ROWOPS_TABLE(avx2, EW_CPU_AVX2)

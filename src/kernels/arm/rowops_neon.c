/* kernels/arm/rowops_neon.c - the row kernels of this level: rowops_tmpl.inc with its vectors. */
#include "kernels/arm/vec_neon.h"

#include "cpu/cpu.h"
#include "kernels/simd/vmath.inc"
#include "kernels/simd/vrow.inc"
#include "kernels/simd/rowops_tmpl.inc"

ROWOPS_TABLE(neon, EW_CPU_NEON)

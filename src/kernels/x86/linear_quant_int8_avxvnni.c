/* kernels/x86/linear_quant_int8_avxvnni.c - quantised weights times int8 rows on processors with
 * dot products in 256 bits (AVX-VNNI): linear_quant_int8.inc with the vectors of AVX2. */
#if !defined(__AVXVNNI__)
#    error "compile with the flags of AVX-VNNI (cmake/kernels.cmake)"
#endif
#include "kernels/x86/vecq_avx2.h"

#include "cpu/cpu.h"
#include "kernels/simd/vmath.inc"
#include "kernels/simd/linear_quant_int8.inc"

INT8_KERNEL(q4x8, avxvnni_p16, (EW_CPU_AVX2 | EW_CPU_AVXVNNI), run, scratch_bytes)
INT8_KERNEL(q8x8, avxvnni_p16, (EW_CPU_AVX2 | EW_CPU_AVXVNNI), run, scratch_bytes)

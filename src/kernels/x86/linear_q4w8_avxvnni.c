/* kernels/x86/linear_q4w8_avxvnni.c - 4-bit weights as 8-bit integers on processors with dot
 * products in 256 bits (AVX-VNNI): linear_q4w8.inc with the vectors of AVX2. */
#if !defined(__AVXVNNI__)
#    error "compile with the flags of AVX-VNNI (cmake/kernels.cmake)"
#endif
#include "kernels/x86/vecq_avx2.h"

#include "cpu/cpu.h"
#include "kernels/simd/vmath.inc"
#include "kernels/simd/linear_q4w8.inc"

W8_KERNEL(avxvnni_p16, (EW_CPU_AVX2 | EW_CPU_AVXVNNI), run)

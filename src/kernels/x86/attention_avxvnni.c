/* kernels/x86/attention_avxvnni.c - attention_avx2.c with one instruction for a product and its
 * sum. */
#include "kernels/x86/attention_codes_avx2.h"

#if !defined(__AVXVNNI__)
#    error "compile with the flags of AVX-VNNI (cmake/kernels.cmake)"
#endif

#include "cpu/cpu.h"
#include "kernels/simd/vmath.inc"
#include "kernels/simd/vrow.inc"

#define ATTN_I16
#include "kernels/simd/attention_tmpl.inc"

ATTN_KERNEL(avxvnni, (EW_CPU_AVX2 | EW_CPU_AVXVNNI), 0x1p-16f)

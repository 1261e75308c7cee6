/* kernels/x86/attention_avx512vnni.c - attention at this level: attention_tmpl.inc with its
 * vectors, short caches in whole numbers of 16 bits. */
#include "kernels/x86/vec_avx512.h"

#if !defined(__AVX512VNNI__)
#    error "compile with the flags of AVX-512 VNNI (cmake/kernels.cmake)"
#endif

#include "kernels/x86/attention_codes_avx512.h"

#include "cpu/cpu.h"
#include "kernels/simd/vmath.inc"
#include "kernels/simd/vrow.inc"

#include "kernels/x86/attention_i16_avx512.h"

#define ATTN_I16
#include "kernels/simd/attention_tmpl.inc"

ATTN_KERNEL(avx512vnni, (EW_CPU_AVX2 | EW_CPU_AVX512 | EW_CPU_AVX512VNNI), 0x1p-16f)

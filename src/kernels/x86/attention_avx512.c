/* kernels/x86/attention_avx512.c - attention at this level: attention_tmpl.inc with its
 * vectors, short caches in whole numbers of 16 bits. */
#include "kernels/x86/attention_codes_avx512.h"

#include "cpu/cpu.h"
#include "kernels/simd/vmath.inc"
#include "kernels/simd/vrow.inc"

#include "kernels/x86/attention_i16_avx512.h"

#define ATTN_I16
#include "kernels/simd/attention_tmpl.inc"

ATTN_KERNEL(avx512, (EW_CPU_AVX2 | EW_CPU_AVX512), 0x1p-16f)

/* kernels/x86/attention_avx512.c - attention at this level: attention_tmpl.inc with its vectors. */
#include "kernels/x86/attention_codes_avx512.h"

#include "cpu/cpu.h"
#include "kernels/simd/vmath.inc"
#include "kernels/simd/vrow.inc"

#include "kernels/simd/attention_tmpl.inc"

ATTN_KERNEL(avx512, (EW_CPU_AVX2 | EW_CPU_AVX512), 0.0f)

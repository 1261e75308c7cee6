/* kernels/x86/attention_avx2.c - attention at this level: attention_tmpl.inc with its vectors. */
#include "kernels/x86/vec_avx2.h"

#include "cpu/cpu.h"
#include "kernels/x86/vmath.inc"
#include "kernels/x86/vrow.inc"
#include "kernels/x86/attention_tmpl.inc"

ATTN_KERNEL(avx2, EW_CPU_AVX2)

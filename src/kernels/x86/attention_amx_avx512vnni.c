/* kernels/x86/attention_amx_avx512vnni.c - attention with the products of many rows on the matrix
 * tiles (AMX): attn__avx512vnni, bit for bit. */
#include "kernels/x86/vec_avx512.h"

#if !defined(__AVX512VNNI__)
#    error "compile with the flags of AVX-512 VNNI (cmake/kernels.cmake)"
#endif

#include "kernels/x86/attention_codes_avx512.h"

#include "cpu/cpu.h"
#include "kernels/simd/vmath.inc"
#include "kernels/simd/vrow.inc"

#include "kernels/x86/attention_amx.h"
#include "kernels/x86/attention_i16_avx512.h"

#define ATTN_I16
#define ATTN_I16_TILES "kernels/x86/attention_amx.inc"
#include "kernels/simd/attention_tmpl.inc"

ATTN_KERNEL(amx, (EW_CPU_AVX2 | EW_CPU_AVX512 | EW_CPU_AVX512VNNI | EW_CPU_AMX), 0x1p-16f)

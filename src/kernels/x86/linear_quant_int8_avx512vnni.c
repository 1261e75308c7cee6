/* kernels/x86/linear_quant_int8_avx512vnni.c - quantised weights times int8 rows at this level:
 * linear_quant_int8.inc with its vectors, and with matrix tiles for many rows. */
#include "kernels/x86/vecq_avx512.h"

#include "cpu/cpu.h"
#include "kernels/simd/vmath.inc"
#include "kernels/simd/linear_quant_int8.inc"
#include "kernels/x86/linear_quant_amx.inc"

INT8_KERNEL(q4x8, avx512vnni_p32, (EW_CPU_AVX2 | EW_CPU_AVX512 | EW_CPU_AVX512VNNI), run,
            scratch_bytes)
INT8_KERNEL(q8x8, avx512vnni_p32, (EW_CPU_AVX2 | EW_CPU_AVX512 | EW_CPU_AVX512VNNI), run,
            scratch_bytes)
#define AMX_NEED (EW_CPU_AVX2 | EW_CPU_AVX512 | EW_CPU_AVX512VNNI | EW_CPU_AMX)
INT8_KERNEL(q4x8, amx_p32, AMX_NEED, amx_run, amx_scratch_bytes)
INT8_KERNEL(q8x8, amx_p32, AMX_NEED, amx_run, amx_scratch_bytes)

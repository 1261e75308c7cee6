/* kernels/x86/probe_avx512vnni.c - the integer ceiling of AVX-512 VNNI. */
#include <immintrin.h>

#include "cpu/cpu.h"
#include "kernels/probe_loops.h"
#include "kernels/simd/unroll.h"

#if !defined(__AVX512VNNI__)
#    error "compile with the flags of AVX-512 VNNI (cmake/kernels.cmake)"
#endif

#define CHAINS 16 /* hide the latency of two units */

static uint64_t int8_vnni(uint64_t n)
{
    const __m512i x = _mm512_set1_epi8(5), y = _mm512_set1_epi8(3);
    __m512i sums[CHAINS], all = _mm512_setzero_si512();

    UNROLL
    for (int j = 0; j < CHAINS; j++)
        sums[j] = _mm512_setzero_si512();
    for (uint64_t i = 0; i < n; i++) {
        UNROLL
        for (int j = 0; j < CHAINS; j++) {
            sums[j] = _mm512_dpbusd_epi32(sums[j], x, y);
            __asm__ volatile("" : "+v"(sums[j])); /* one by one: no rounds are folded */
        }
    }
    UNROLL
    for (int j = 0; j < CHAINS; j++) /* by constants: a variable index would put them in memory */
        all = _mm512_add_epi32(all, sums[j]);
    volatile int sink = _mm_cvtsi128_si32(_mm512_castsi512_si128(all));
    (void)sink;
    return n * CHAINS * 64 * 2;
}

const struct ew_probe_dots ew_probe_dots__avx512vnni = { "avx512vnni",
                                                         EW_CPU_AVX512 | EW_CPU_AVX512VNNI,
                                                         int8_vnni, NULL };

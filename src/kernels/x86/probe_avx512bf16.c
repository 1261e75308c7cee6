/* kernels/x86/probe_avx512bf16.c - the bf16 ceiling of AVX-512 BF16. */
#include <immintrin.h>

#include "cpu/cpu.h"
#include "kernels/probe_loops.h"
#include "kernels/simd/unroll.h"

#if !defined(__AVX512BF16__)
#    error "compile with the flags of AVX-512 BF16 (cmake/kernels.cmake)"
#endif

#define CHAINS 16 /* hide the latency of two units */

static uint64_t bf16_pairs(uint64_t n)
{
    const __m512bh x = (__m512bh)_mm512_set1_epi16(0x3f00), y = (__m512bh)_mm512_set1_epi16(0x3e80);
    __m512 sums[CHAINS], all = _mm512_setzero_ps();

    UNROLL
    for (int j = 0; j < CHAINS; j++)
        sums[j] = _mm512_setzero_ps();
    for (uint64_t i = 0; i < n; i++) {
        UNROLL
        for (int j = 0; j < CHAINS; j++) {
            sums[j] = _mm512_dpbf16_ps(sums[j], x, y);
            __asm__ volatile("" : "+v"(sums[j])); /* one by one: no rounds are folded */
        }
    }
    UNROLL
    for (int j = 0; j < CHAINS; j++) /* by constants: a variable index would put them in memory */
        all = _mm512_add_ps(all, sums[j]);
    volatile float sink = _mm512_cvtss_f32(all);
    (void)sink;
    return n * CHAINS * 32 * 2;
}

const struct ew_probe_dots ew_probe_dots__avx512bf16 = { "avx512bf16",
                                                         EW_CPU_AVX512 | EW_CPU_AVX512BF16, NULL,
                                                         bf16_pairs };

/* kernels/x86/probe_avx2.c - the probe loops of this level. */
#include "kernels/x86/vec_avx2.h"

#include "cpu/cpu.h"
#include "kernels/probe_loops.h"
#include "kernels/simd/probe_tmpl.inc"

const struct ew_probe_loops ew_probe_loops__avx2 = { read_streams, fma_chains };

#define CHAINS 6

ALWAYS uint64_t finish(const __m256i *sums, int n, uint64_t ops)
{
    __m256i all = _mm256_setzero_si256();

    UNROLL
    for (int j = 0; j < n; j++) /* by constants: a variable index would put them in memory */
        all = _mm256_add_epi32(all, sums[j]);
    volatile int sink = _mm256_extract_epi32(all, 0);
    (void)sink;
    return ops;
}

/* As the kernels do it: two products of bytes added as 16-bit, then widened; 64 products a chain.
 */
static uint64_t int8_maddubs(uint64_t n)
{
    const __m256i ones = _mm256_set1_epi16(1), y = _mm256_set1_epi8(3);
    __m256i x = _mm256_set1_epi8(5), sums[CHAINS];

    UNROLL
    for (int j = 0; j < CHAINS; j++)
        sums[j] = _mm256_setzero_si256();
    for (uint64_t i = 0; i < n; i++) {
        UNROLL
        for (int j = 0; j < CHAINS; j++) {
            __asm__ volatile("" : "+x"(x)); /* new to the compiler each time: nothing is hoisted */
            const __m256i a = _mm256_maddubs_epi16(x, y), b = _mm256_maddubs_epi16(y, x);
            sums[j] = _mm256_add_epi32(sums[j], _mm256_madd_epi16(_mm256_add_epi16(a, b), ones));
        }
    }
    return finish(sums, CHAINS, n * CHAINS * 64 * 2);
}

/* In assembly: the flags of this file do not have the instruction, the processor is asked first. */
static uint64_t int8_vnni(uint64_t n)
{
    const __m256i x = _mm256_set1_epi8(5), y = _mm256_set1_epi8(3);
    __m256i sums[2 * CHAINS];

    UNROLL
    for (int j = 0; j < 2 * CHAINS; j++)
        sums[j] = _mm256_setzero_si256();
    for (uint64_t i = 0; i < n; i++) {
        UNROLL
        for (int j = 0; j < 2 * CHAINS; j++)
            __asm__ volatile("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sums[j]) : "x"(x), "x"(y));
    }
    return finish(sums, 2 * CHAINS, n * 2 * CHAINS * 32 * 2);
}

const struct ew_probe_dots ew_probe_dots__avx2 = { "avx2", EW_CPU_AVX2, int8_maddubs, NULL };
const struct ew_probe_dots ew_probe_dots__avxvnni = { "avxvnni", EW_CPU_AVX2 | EW_CPU_AVXVNNI,
                                                      int8_vnni, NULL };

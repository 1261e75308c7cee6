/* kernels/probe_loops.h - the inner loops of probe.c, one table per instruction set. */
#ifndef EW_KERNELS_PROBE_LOOPS_H
#define EW_KERNELS_PROBE_LOOPS_H

#include <stddef.h>
#include <stdint.h>

struct ew_probe_loops {
    uint64_t (*read)(const void *p, size_t bytes); /* returns something that depends on all bytes */
    uint64_t (*fma)(uint64_t n);                   /* n rounds; returns the operations done */
};

/* Sums of products of narrow numbers: an operation is a multiplication or an addition, as in fma.
 */
struct ew_probe_dots {
    const char *with;             /* the instructions, for people: "amx" */
    uint32_t need;                /* enum ew_cpu_flags, all of them */
    uint64_t (*int8)(uint64_t n); /* 8-bit integers into i32; NULL: not with these */
    uint64_t (*bf16)(uint64_t n); /* bf16 into f32; NULL: not with these */
};

#if defined(__x86_64__)
extern const struct ew_probe_dots ew_probe_dots__avx2, ew_probe_dots__avxvnni,
    ew_probe_dots__avx512vnni, ew_probe_dots__avx512bf16, ew_probe_dots__amx;
extern const struct ew_probe_loops ew_probe_loops__avx2, ew_probe_loops__avx512;
#elif defined(__aarch64__)
extern const struct ew_probe_loops ew_probe_loops__neon;
#endif

#endif

/* kernels/probe_loops.h - the inner loops of probe.c, one table per instruction set. */
#ifndef EW_KERNELS_PROBE_LOOPS_H
#define EW_KERNELS_PROBE_LOOPS_H

#include <stddef.h>
#include <stdint.h>

struct ew_probe_loops {
    uint64_t (*read)(const void *p, size_t bytes); /* returns something that depends on all bytes */
    uint64_t (*fma)(uint64_t n);                   /* n rounds; returns the operations done */
};
#if defined(__x86_64__)
extern const struct ew_probe_loops ew_probe_loops__avx2, ew_probe_loops__avx512;
#elif defined(__aarch64__)
extern const struct ew_probe_loops ew_probe_loops__neon;
#endif

#endif

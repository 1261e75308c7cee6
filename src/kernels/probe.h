/* kernels/probe.h - the machine's own ceilings, to quote speeds against in the same run.
 * Each measures for about `seconds` on the threads of the pool and returns per-second figures. */
#ifndef EW_KERNELS_PROBE_H
#define EW_KERNELS_PROBE_H

#include <stdint.h>

#include "base/pool.h"

/* Bytes/s of reading `bytes` (default 512 MiB when 0) with the widest loads the CPU flags allow,
 * best of several passes. 0 when memory could not be had. */
double ew_probe_read_bandwidth(struct ew_pool *pool, uint32_t cpu_flags, uint64_t bytes,
                               double seconds);
/* f32 FLOP/s of register-only FMA. */
double ew_probe_f32_flops(struct ew_pool *pool, uint32_t cpu_flags, double seconds);

#endif

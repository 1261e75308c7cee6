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
/* Operations/s (a multiplication and an addition are two) of register-only sums of products of
 * 8-bit integers into i32, and of bf16 into f32, with the best instructions that the CPU flags
 * allow; *with (static) names them. 0 and "" when no instruction is for it (bf16: then f32 FMA is
 * the ceiling) or none was measured for this architecture. */
double ew_probe_int8_ops(struct ew_pool *pool, uint32_t cpu_flags, double seconds,
                         const char **with);
double ew_probe_bf16_flops(struct ew_pool *pool, uint32_t cpu_flags, double seconds,
                           const char **with);

#endif

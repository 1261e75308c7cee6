/* fakecuda.h - a CUDA driver that has no GPU: device memory is the host's, launches are counted and
 * not run, copies and fills are done when a stream would do them, graphs replay what was captured.
 * For the backend's host logic in CI.
 *
 * Of the environment it reads, once, FAKECUDA: words separated by commas, such as
 *   sm=90  n_sm=132  memory=1073741824 (bytes)  version=13000  devices=0  integrated=1
 *   fail=cuMemAlloc_v2:3:2   the third call of it, and every later one, returns 2
 *   once=cuLaunchKernelEx:1:700   the first call of it returns 700; after a sticky result (700,
 * 719) every call that waits or launches does The functions below let a test in the same process
 * ask and change that. */
#ifndef FAKECUDA_H
#define FAKECUDA_H

#include <stddef.h>
#include <stdint.h>

/* Calls of a driver function since the last reset; "kernels" counts kernels that ran, replayed ones
 * included. */
uint64_t fakecuda_count(const char *function);
/* The k-th call from now on (1: the next) returns `result`; `for_ever`: later ones too. */
void fakecuda_fail(const char *function, uint64_t k, int result, int for_ever);
/* No failures, no counts, no sticky fault; memory that was allocated stays. */
void fakecuda_reset(void);
/* Called in place of every kernel that runs, replayed ones included: its entry, grid and arguments
 * (EW_CUDA_ARGS_CAP bytes); device memory is the host's. NULL: nothing is. */
typedef void fakecuda_launch_fn(void *ctx, const char *entry, const unsigned grid[3],
                                const void *args);
void fakecuda_on_launch(fakecuda_launch_fn *fn, void *ctx);
/* Another machine from now on: its GPUs are sm_<sm> with so much memory. */
void fakecuda_machine(int devices, int sm, size_t memory);
/* Whether its GPUs share the host's memory from now on. */
void fakecuda_integrated(int integrated);
#define FAKECUDA_MEMORY ((size_t)1 << 36) /* of the one that is there first, an sm_90 */
/* Device allocations that were not freed. */
uint64_t fakecuda_live(void);
/* Streams with work that was not waited for (what they do is done at once all the same). */
uint64_t fakecuda_busy(void);
/* Pinned memory that was freed while any stream was busy: how often. */
uint64_t fakecuda_early(void);

#endif

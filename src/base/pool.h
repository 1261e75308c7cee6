/* base/pool.h - a persistent pool of threads that all run one function, with a spinning barrier.
 *
 *   caller: ew_pool_run(pool, fn, arg)  -> fn(arg, 0, n) on the caller, fn(arg, 1..n-1, n) on
 * workers inside fn: ew_pool_barrier(pool, i) -> returns when all n have arrived
 *
 * Workers spin for a while between runs, then sleep; a run after a long pause wakes them.
 * A run allocates nothing. One run at a time per pool (the caller's duty). */
#ifndef EW_BASE_POOL_H
#define EW_BASE_POOL_H

#include "base/error.h"

struct ew_pool;
typedef void ew_pool_fn(void *arg, unsigned i_thread, unsigned n_threads);

/* n_threads 0: one per core this process may use. n_threads 1 creates no thread. */
ew_status ew_pool_create(unsigned n_threads, struct ew_pool **out, ew_error *err);
void ew_pool_destroy(struct ew_pool *p); /* NULL is fine */
unsigned ew_pool_threads(const struct ew_pool *p);
void ew_pool_run(struct ew_pool *p, ew_pool_fn *fn, void *arg);
void ew_pool_barrier(struct ew_pool *p, unsigned i_thread);

/* Splits [0, n) into n_threads runs of whole multiples of `grain`; run i is [*begin, *end). */
static inline void ew_split_range(size_t n, size_t grain, unsigned i, unsigned n_threads,
                                  size_t *begin, size_t *end)
{
    const size_t units = (n + grain - 1) / grain;
    const size_t b = units * i / n_threads * grain;
    const size_t e = units * (i + 1) / n_threads * grain;

    *begin = b < n ? b : n;
    *end = e < n ? e : n;
}

#endif

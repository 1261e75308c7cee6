/* base/pool.h - a persistent pool of threads that all run one function, its barrier, and units of
 * work that idle threads take from late ones.
 *
 *   caller:     ew_pool_run(pool, fn, arg)  -> fn(arg, 0, n) on the caller,
 *                                             fn(arg, 1..n-1, n) on workers
 *   inside fn:  ew_pool_barrier(pool, i)    -> returns when all n have arrived
 *               ew_units_begin, _next       -> ranges of units, each given out once
 *
 * Whoever waits spins for some tens of microseconds, then sleeps, so that a thread that lost its
 * core can have the waiter's; a pool of more threads than cores sleeps at once. A run allocates
 * nothing. One run at a time per pool (the caller's duty). */
#ifndef EW_BASE_POOL_H
#define EW_BASE_POOL_H

#include <stdbool.h>

#include "base/error.h"

struct ew_pool;
typedef void ew_pool_fn(void *arg, unsigned i_thread, unsigned n_threads);

/* n_threads 0: ew_os_threads(). n_threads 1 creates no thread and has no barriers. */
ew_status ew_pool_create(unsigned n_threads, struct ew_pool **out, ew_error *err);
void ew_pool_destroy(struct ew_pool *p); /* NULL is fine */
unsigned ew_pool_threads(const struct ew_pool *p);
void ew_pool_run(struct ew_pool *p, ew_pool_fn *fn, void *arg);
/* The same with fewer threads (fn hears how many) while other processes have some of the cores: a
 * thread without one is late at every barrier, and all wait for it. All are tried again after some
 * tenths of a second, later each time that it was in vain, and at once where runs with fewer
 * threads take no less. A pool that sleeps at once or is tied to cores always runs all of them. For
 * work whose results do not depend on the number of threads. */
void ew_pool_run_fit(struct ew_pool *p, ew_pool_fn *fn, void *arg);
void ew_pool_barrier(struct ew_pool *p, unsigned i_thread);

/* Ties thread i to the i-th best core (fast cores first, second threads of a core last). The caller
 * of a run is tied for the length of the run only. UNSUPPORTED: more threads than cores, or the
 * system refuses; then nothing is tied. Not during a run. */
ew_status ew_pool_pin(struct ew_pool *p, ew_error *err);

struct ew_pool_stats {
    uint64_t n_runs, n_barriers; /* n_barriers: met by all threads; the end of a run is one */
    uint64_t n_fewer;            /* runs with fewer threads than there are */
    uint64_t n_sleeps;           /* times that a thread gave up spinning, between runs included */
    uint64_t n_stolen;           /* ranges taken from another thread's share */
};
/* Not during a run. Waits of workers that sleep right now may be missing. */
void ew_pool_get_stats(const struct ew_pool *p, struct ew_pool_stats *out);

/* n_barriers of the above alone. */
uint64_t ew_pool_n_barriers(const struct ew_pool *p);

/* Units [0, n_units) of one phase. Thread i first takes ranges of its own share, a contiguous n-th
 * that is the same in every run (so memory touched first stays near), then what is left of others'.
 * Which thread gets which unit is open; results may not depend on it.
 *
 * Between two barriers each thread may walk one set of units, the same on all threads. Ranges are
 * multiples of `grain` units from the share's start but for its last. n 1 (a serial step, or a pool
 * of one): everything in one range. */
struct ew_units {
    struct ew_pool *pool;
    uint64_t tag; /* of the phase, in the high bits of cursors */
    size_t n_units, grain;
    unsigned i, n, victim;
};
void ew_units_begin(struct ew_units *s, struct ew_pool *p, unsigned i, unsigned n, size_t n_units,
                    size_t grain);
/* The next range, false when all are given out. */
bool ew_units_next(struct ew_units *s, size_t *begin, size_t *end);

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

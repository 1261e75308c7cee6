/* base/pool.c - the thread pool. One word counts runs; workers watch it, spin a while, then sleep
 * on it.
 *
 *   run_word  odd while quitting is asked for; +2 for each run
 *   arrived   barrier counter, monotonic: the k-th barrier is passed when arrived >= k * n
 *
 * Each thread keeps its own count of barriers it has passed, so nothing is ever reset under a
 * reader's feet. */
#include "base/pool.h"

#include <stdatomic.h>

#include "base/mem.h"
#include "os/os.h"

#define SPIN_RUNS                                                                                  \
    20000 /* about 50 us of pauses before a worker sleeps: a decode step's gap is shorter */
#define SPIN_BARRIER 4000

struct worker {
    struct ew_pool *pool;
    struct ew_thread *thread;
    unsigned index;
    uint64_t barriers; /* passed so far; own thread only */
    char pad[64 - 4 * 8];
};

struct ew_pool {
    _Atomic uint32_t run_word;
    _Atomic uint32_t sleepers;
    char pad0[56];
    _Atomic uint64_t arrived;
    char pad1[56];
    ew_pool_fn *fn;
    void *arg;
    unsigned n_threads;
    struct worker *workers; /* [n_threads]; entry 0 is the caller */
};

static inline void cpu_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

void ew_pool_barrier(struct ew_pool *p, unsigned i_thread)
{
    struct worker *const w = &p->workers[i_thread];
    unsigned spins = 0;

    if (p->n_threads == 1)
        return;
    const uint64_t target = ++w->barriers * p->n_threads;
    atomic_fetch_add_explicit(&p->arrived, 1, memory_order_acq_rel);
    while (atomic_load_explicit(&p->arrived, memory_order_acquire) < target) {
        cpu_pause();
        if (++spins >= SPIN_BARRIER) { /* somebody took our partner's core: let it run */
            ew_thread_yield();
            spins = 0;
        }
    }
}

static uint32_t wait_for_run(struct ew_pool *p, uint32_t seen)
{
    uint32_t now;

    for (unsigned i = 0; i < SPIN_RUNS; i++) {
        now = atomic_load_explicit(&p->run_word, memory_order_acquire);
        if (now != seen)
            return now;
        cpu_pause();
    }
    atomic_fetch_add(&p->sleepers, 1);
    for (;;) {
        now = atomic_load_explicit(&p->run_word, memory_order_seq_cst);
        if (now != seen)
            break;
        ew_wait_word((const uint32_t *)(const void *)&p->run_word, seen);
    }
    atomic_fetch_sub(&p->sleepers, 1);
    return now;
}

static void worker_main(void *arg)
{
    struct worker *const w = arg;
    struct ew_pool *const p = w->pool;
    uint32_t seen = 0;

    for (;;) {
        seen = wait_for_run(p, seen);
        if (seen & 1u)
            return;
        p->fn(p->arg, w->index, p->n_threads);
        ew_pool_barrier(p, w->index); /* the end of the run */
    }
}

static void wake(struct ew_pool *p, uint32_t add)
{
    atomic_fetch_add_explicit(&p->run_word, add, memory_order_seq_cst);
    if (atomic_load_explicit(&p->sleepers, memory_order_seq_cst))
        ew_wake_word((const uint32_t *)(const void *)&p->run_word);
}

void ew_pool_run(struct ew_pool *p, ew_pool_fn *fn, void *arg)
{
    if (p->n_threads == 1) {
        fn(arg, 0, 1);
        return;
    }
    p->fn = fn;
    p->arg = arg;
    wake(p, 2);
    fn(arg, 0, p->n_threads);
    ew_pool_barrier(p, 0);
}

unsigned ew_pool_threads(const struct ew_pool *p)
{
    return p->n_threads;
}

void ew_pool_destroy(struct ew_pool *p)
{
    if (!p)
        return;
    wake(p, 1);
    for (unsigned i = 1; i < p->n_threads; i++)
        ew_thread_join(p->workers[i].thread);
    ew_mem_free_aligned(p->workers);
    ew_mem_free_aligned(p);
}

ew_status ew_pool_create(unsigned n_threads, struct ew_pool **out, ew_error *err)
{
    struct ew_pool *p;

    *out = NULL;
    n_threads = n_threads ? n_threads : ew_os_cores();
    if (n_threads > 1024)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "%u threads asked for, at most 1024", n_threads);
    p = ew_mem_alloc_aligned(EW_MEM_MISC, sizeof(*p), 64);
    if (!p)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "thread pool");
    p->n_threads = 1;
    p->workers = ew_mem_alloc_aligned(EW_MEM_MISC, n_threads * sizeof(*p->workers), 64);
    if (!p->workers) {
        ew_mem_free_aligned(p);
        return ew_fail(err, EW_STATUS_NO_MEMORY, "thread pool");
    }
    for (unsigned i = 0; i < n_threads; i++)
        p->workers[i] = (struct worker){ .pool = p, .index = i };
    /* The count is what a running worker divides by: set before the first run, wound back if a
     * start fails. */
    for (unsigned i = 1; i < n_threads; i++) {
        const ew_status st =
            ew_thread_create(&p->workers[i].thread, worker_main, &p->workers[i], err);
        if (st) {
            p->n_threads = i;
            ew_pool_destroy(p);
            return st;
        }
    }
    p->n_threads = n_threads;
    *out = p;
    return EW_STATUS_OK;
}

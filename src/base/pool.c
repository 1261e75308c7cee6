/* base/pool.c - the thread pool. One word counts runs; workers watch it, spin a while, then sleep
 * on it. Barriers do the same on a word of their own.
 *
 *   run_word  bit 0: quitting is asked for
 *             above it, RUN_ACTIVE_BITS: threads below that number take part
 *             above them: the number of the run
 *   arrived   threads at the barrier in hand; the last one sets it back and advances `epoch`
 *   epoch     barriers passed; each thread of a run keeps its own count, so all agree on what to
 *             wait for
 *   cursor    of a thread's share: tag of the phase << 16 | grains given out. A cursor of an older
 *             tag counts as 0, so nothing has to be set back between phases. */
#include "base/pool.h"

#include <stdatomic.h>

#include "base/mem.h"
#include "os/os.h"

/* A sleep and its wake cost 5 to 50 us of latency: spinning about as long is at most twice the best
 * choice. Between runs a thread waits for sampling, which takes longer than a late partner. */
#define SPIN_BARRIER_NS 50000u
#define SPIN_LEAST_NS   3000u /* where spinning was in vain again and again: others want the core */
#define SPIN_RUN_NS     100000u
#define PAUSES          32 /* between looks at the clock */

/* Fewer threads while others have a core: see ew_pool_run_fit. */
#define FIT_WINDOW_NS 50000000u   /* of runs that are judged together */
#define FIT_HOLD_NS   200000000u  /* first time with fewer threads; doubled where it goes on */
#define FIT_MOST_NS   3200000000u /* the longest */

#define RUN_ACTIVE_BITS  11 /* of run_word */
#define RUN_ACTIVE(word) ((word) >> 1 & ((1u << RUN_ACTIVE_BITS) - 1))
#define RUN_STEP         (1u << (RUN_ACTIVE_BITS + 1))
#define CURSOR_BITS      16
#define CURSOR_MASK      (((uint64_t)1 << CURSOR_BITS) - 1)

struct worker {
    _Atomic uint64_t cursor; /* other threads take from it too */
    struct ew_pool *pool;
    struct ew_thread *thread;
    uint64_t barriers; /* passed so far; own thread only, as n_stolen */
    uint64_t n_stolen;
    uint64_t spin_ns;          /* at barriers: halved by a vain spin, doubled by one that paid */
    _Atomic uint64_t n_sleeps; /* counts between runs too, when others may read it */
    unsigned index, core;
    bool pinned;
    char pad[128 - 8 * 8 - 8];
};

struct ew_pool {
    _Atomic uint32_t run_word;
    char pad0[124];
    _Atomic uint32_t epoch;
    _Atomic uint32_t sleepers; /* read by who wakes: beside the word that it has just written */
    char pad1[120];
    _Atomic uint32_t arrived;
    char pad2[124];
    ew_pool_fn *fn;
    void *arg;
    uint64_t n_runs, n_fewer;
    uint64_t first_barrier; /* of the run: what n_barriers was when it began */
    uint64_t waited_ns;     /* of the caller, asleep at barriers of the run */
    unsigned n_threads;
    unsigned n_active; /* that take part in the run */
    struct {
        uint64_t run_ns, waited_ns, n_runs; /* since the window began */
        uint64_t until_ns;                  /* with so many threads, or with all of them */
        uint64_t hold_ns;
        uint64_t mean_ns; /* of a run with one thread more, before it was left out; 0: judged */
        unsigned n;
    } fit; /* the caller's alone */
    bool spins, pinned;
    struct ew_core_mask caller_mask; /* what workers had before they were pinned */
    struct worker *workers;          /* [n_threads]; entry 0 is the caller */
};

static inline void cpu_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static const uint32_t *futex_of(const _Atomic uint32_t *word)
{
    return (const uint32_t *)(const void *)word;
}

/* True once the word is not `seen`, false after spin_ns. */
static bool spin_change(const _Atomic uint32_t *word, uint32_t seen, uint64_t spin_ns)
{
    uint64_t start = 0;

    for (;;) {
        uint64_t ns;

        for (int i = 0; i < PAUSES; i++) {
            if (atomic_load_explicit(word, memory_order_acquire) != seen)
                return true;
            cpu_pause();
        }
        ns = ew_clock_ns();
        start = start ? start : ns;
        if (ns - start > spin_ns)
            return false;
    }
}

static void sleep_change(struct worker *w, const _Atomic uint32_t *word, uint32_t seen)
{
    struct ew_pool *const p = w->pool;

    atomic_fetch_add_explicit(&w->n_sleeps, 1, memory_order_relaxed);
    atomic_fetch_add(&p->sleepers, 1);
    while (atomic_load(word) == seen)
        ew_wait_word(futex_of(word), seen);
    atomic_fetch_sub(&p->sleepers, 1);
}

/* Sets the word and wakes who sleeps. Sequentially consistent on both sides: either the sleeper
 * sees the new word, or it is counted here. */
static void publish(struct ew_pool *p, _Atomic uint32_t *word, uint32_t value)
{
    atomic_store(word, value);
    if (atomic_load(&p->sleepers))
        ew_wake_word(futex_of(word));
}

void ew_pool_barrier(struct ew_pool *p, unsigned i_thread)
{
    struct worker *const w = &p->workers[i_thread];
    const unsigned n = p->n_active; /* after the arrival it may be another run's */

    if (n == 1)
        return;
    const uint32_t seen = (uint32_t)w->barriers++;
    if (atomic_fetch_add_explicit(&p->arrived, 1, memory_order_acq_rel) + 1 == n) {
        atomic_store_explicit(&p->arrived, 0, memory_order_relaxed);
        publish(p, &p->epoch, seen + 1);
    } else {
        const bool paid = p->spins && spin_change(&p->epoch, seen, w->spin_ns);

        if (!paid) {
            const uint64_t start = ew_clock_ns();

            sleep_change(w, &p->epoch, seen);
            if (i_thread == 0)
                p->waited_ns += ew_clock_ns() - start + w->spin_ns;
        }
        w->spin_ns = paid ? w->spin_ns * 2 : w->spin_ns / 2;
        w->spin_ns = w->spin_ns > SPIN_BARRIER_NS ? SPIN_BARRIER_NS : w->spin_ns;
        w->spin_ns = w->spin_ns < SPIN_LEAST_NS ? SPIN_LEAST_NS : w->spin_ns;
    }
}

static void worker_main(void *arg)
{
    struct worker *const w = arg;
    struct ew_pool *const p = w->pool;
    uint32_t seen = 0;
    bool was_in = true;

    for (;;) {
        if (!p->spins || !was_in || !spin_change(&p->run_word, seen, SPIN_RUN_NS))
            sleep_change(w, &p->run_word, seen);
        seen = atomic_load_explicit(&p->run_word, memory_order_acquire);
        if (seen & 1u)
            return;
        was_in = w->index < RUN_ACTIVE(seen);
        if (!was_in) /* nobody waits for this thread: it may look at nothing else of the run */
            continue;
        w->barriers = p->first_barrier;
        p->fn(p->arg, w->index, p->n_active);
        ew_pool_barrier(p, w->index); /* the end of the run */
    }
}

/* n: that take part; 0: quit. */
static void wake(struct ew_pool *p, unsigned n)
{
    const uint32_t old = atomic_load_explicit(&p->run_word, memory_order_relaxed);

    publish(p, &p->run_word, n ? (old / RUN_STEP + 1) * RUN_STEP + 2 * n : old | 1u);
}

static void run_on(struct ew_pool *p, ew_pool_fn *fn, void *arg, unsigned n)
{
    struct ew_core_mask old;
    const bool pins = p->pinned && ew_thread_pin(p->workers[0].core, &old);

    p->n_runs++;
    p->n_active = n;
    p->waited_ns = 0;
    if (n > 1) {
        p->first_barrier = p->workers[0].barriers;
        p->fn = fn;
        p->arg = arg;
        wake(p, n);
    }
    fn(arg, 0, n);
    ew_pool_barrier(p, 0);
    if (pins)
        ew_thread_unpin(&old);
}

void ew_pool_run(struct ew_pool *p, ew_pool_fn *fn, void *arg)
{
    run_on(p, fn, arg, p->n_threads);
}

static void fit_window(struct ew_pool *p)
{
    p->fit.run_ns = p->fit.waited_ns = p->fit.n_runs = 0;
}

/* After a run that ended at `now` and took run_ns. A thread less costs an n-th of the work; where
 * the caller sleeps for half of that or more, others have a core, and what is given up is mostly
 * waiting. Where runs then take no less (a machine that halts all of its cores in turn), it was
 * something else, and all threads stay for a while. */
static void fit_judge(struct ew_pool *p, uint64_t now, uint64_t run_ns)
{
    uint64_t mean;

    p->fit.run_ns += run_ns;
    p->fit.waited_ns += p->waited_ns;
    p->fit.n_runs++;
    if (p->fit.n < p->n_threads && now >= p->fit.until_ns) {
        /* all of them again, for a window at least */
        p->fit.n = p->n_threads;
        p->fit.mean_ns = 0;
        fit_window(p);
        return;
    }
    if (p->fit.run_ns < FIT_WINDOW_NS)
        return;
    mean = p->fit.run_ns / p->fit.n_runs;
    if (p->fit.mean_ns && mean >= p->fit.mean_ns) {
        p->fit.n = p->n_threads;
        p->fit.mean_ns = 0;
        p->fit.until_ns = now + p->fit.hold_ns;
    } else if (p->fit.n > 1 && p->fit.waited_ns > p->fit.run_ns / (2 * p->fit.n)) {
        if (p->fit.n < p->n_threads || now >= p->fit.until_ns) {
            p->fit.n--;
            p->fit.mean_ns = mean;
            p->fit.hold_ns = p->fit.hold_ns * 2 < FIT_MOST_NS ? p->fit.hold_ns * 2 : FIT_MOST_NS;
            p->fit.until_ns = now + p->fit.hold_ns;
        }
    } else {
        p->fit.mean_ns = 0;
        if (p->fit.n == p->n_threads)
            p->fit.hold_ns = FIT_HOLD_NS / 2;
    }
    fit_window(p);
}

void ew_pool_run_fit(struct ew_pool *p, ew_pool_fn *fn, void *arg)
{
    const uint64_t begin = ew_clock_ns();
    uint64_t now;

    /* Tied threads cannot move to the cores that are left: without the last one, the late one,
     * which may be any, would still be waited for. */
    if (!p->spins || p->pinned || p->n_threads == 1) {
        ew_pool_run(p, fn, arg);
        return;
    }
    p->n_fewer += p->fit.n < p->n_threads;
    run_on(p, fn, arg, p->fit.n);
    now = ew_clock_ns();
    fit_judge(p, now, now - begin);
}

static void pin_self(void *arg, unsigned i, unsigned n)
{
    struct worker *const w = &((struct ew_pool *)arg)->workers[i];
    struct ew_core_mask old;

    (void)n;
    w->pinned = ew_thread_pin(w->core, &old);
    if (i == 0 && w->pinned) {
        w->pool->caller_mask = old;
        ew_thread_unpin(&old);
    }
}

static void unpin_self(void *arg, unsigned i, unsigned n)
{
    (void)n;
    if (i > 0)
        ew_thread_unpin(&((struct ew_pool *)arg)->caller_mask);
}

ew_status ew_pool_pin(struct ew_pool *p, ew_error *err)
{
    struct ew_os_core *const cores = ew_mem_calloc(EW_MEM_MISC, EW_MAX_CORES, sizeof(*cores));
    size_t n = 0;

    if (!cores)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "list of cores");
    n = ew_os_core_list(cores, EW_MAX_CORES);
    for (unsigned i = 0; i < p->n_threads && i < n; i++)
        p->workers[i].core = cores[i].id;
    ew_mem_free(cores);
    if (n < p->n_threads)
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "%u threads cannot be pinned to %zu cores",
                       p->n_threads, n);
    ew_pool_run(p, pin_self, p);
    for (unsigned i = 0; i < p->n_threads; i++)
        if (!p->workers[i].pinned) {
            ew_pool_run(p, unpin_self, p);
            return ew_fail(err, EW_STATUS_UNSUPPORTED, "the system refuses to pin thread %u to %u",
                           i, p->workers[i].core);
        }
    p->pinned = true;
    return EW_STATUS_OK;
}

unsigned ew_pool_threads(const struct ew_pool *p)
{
    return p->n_threads;
}

uint64_t ew_pool_n_barriers(const struct ew_pool *p)
{
    return p->workers[0].barriers;
}

void ew_pool_get_stats(const struct ew_pool *p, struct ew_pool_stats *out)
{
    *out = (struct ew_pool_stats){ .n_runs = p->n_runs,
                                   .n_fewer = p->n_fewer,
                                   .n_barriers = ew_pool_n_barriers(p) };
    for (unsigned i = 0; i < p->n_threads; i++) {
        out->n_sleeps += atomic_load_explicit(&p->workers[i].n_sleeps, memory_order_relaxed);
        out->n_stolen += p->workers[i].n_stolen;
    }
}

/* ---- shares ---- */

void ew_units_begin(struct ew_units *s, struct ew_pool *p, unsigned i, unsigned n, size_t n_units,
                    size_t grain)
{
    const size_t least = n_units >> (CURSOR_BITS - 1); /* so that the grains of a share fit */

    *s = (struct ew_units){ .pool = p, .n_units = n_units, .i = i, .n = n };
    s->grain = grain > least ? grain : least + 1;
    s->tag = (p->workers[i].barriers + 1) << CURSOR_BITS; /* 48 bits: years of barriers */
}

/* Half of what is left of thread j's share, at least a grain: few ranges while nobody is late, and
 * small ones at the end, where a late thread is waited for. */
static bool take(struct ew_units *s, unsigned j, size_t *begin, size_t *end)
{
    _Atomic uint64_t *const cursor = &s->pool->workers[j].cursor;
    uint64_t seen = atomic_load_explicit(cursor, memory_order_relaxed);
    size_t lo, hi, grains, at, n;

    ew_split_range(s->n_units, 1, j, s->n, &lo, &hi);
    grains = (hi - lo + s->grain - 1) / s->grain;
    do {
        at = (seen & ~CURSOR_MASK) == s->tag ? (size_t)(seen & CURSOR_MASK) : 0;
        if (at >= grains)
            return false;
        n = (grains - at + 1) / 2;
    } while (!atomic_compare_exchange_weak_explicit(cursor, &seen, s->tag | (at + n),
                                                    memory_order_relaxed, memory_order_relaxed));
    *begin = lo + at * s->grain;
    *end = at + n == grains ? hi : *begin + n * s->grain;
    return true;
}

bool ew_units_next(struct ew_units *s, size_t *begin, size_t *end)
{
    if (s->n == 1) {
        *begin = 0;
        *end = s->n_units;
        return s->victim++ == 0 && s->n_units > 0;
    }
    for (; s->victim < s->n; s->victim++)
        if (take(s, (s->i + s->victim) % s->n, begin, end)) {
            s->pool->workers[s->i].n_stolen += s->victim > 0;
            return true;
        }
    return false;
}

/* ---- life ---- */

void ew_pool_destroy(struct ew_pool *p)
{
    if (!p)
        return;
    wake(p, 0);
    for (unsigned i = 1; i < p->n_threads; i++)
        ew_thread_join(p->workers[i].thread);
    ew_mem_free_aligned(p->workers);
    ew_mem_free_aligned(p);
}

ew_status ew_pool_create(unsigned n_threads, struct ew_pool **out, ew_error *err)
{
    struct ew_pool *p;

    *out = NULL;
    n_threads = n_threads ? n_threads : ew_os_threads();
    if (n_threads > 1024)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "%u threads asked for, at most 1024", n_threads);
    p = ew_mem_alloc_aligned(EW_MEM_MISC, sizeof(*p), 128);
    if (!p)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "thread pool");
    *p = (struct ew_pool){ .n_threads = 1, .n_active = 1, .spins = n_threads <= ew_os_cores() };
    p->workers = ew_mem_alloc_aligned(EW_MEM_MISC, n_threads * sizeof(*p->workers), 128);
    if (!p->workers) {
        ew_mem_free_aligned(p);
        return ew_fail(err, EW_STATUS_NO_MEMORY, "thread pool");
    }
    for (unsigned i = 0; i < n_threads; i++)
        p->workers[i] = (struct worker){ .pool = p, .index = i, .spin_ns = SPIN_BARRIER_NS };
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
    p->fit.n = n_threads;
    p->fit.hold_ns = FIT_HOLD_NS / 2;
    *out = p;
    return EW_STATUS_OK;
}

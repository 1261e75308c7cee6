/* The thread pool: every thread runs once, barriers part the phases, plain memory written before a
 * barrier is seen after it (ThreadSanitizer watches), ranges are split without holes, shares give
 * out every unit once and a late thread's units to others; a run and a barrier allocate nothing.
 * Kinds of cores and quotas from made-up folders. ew-layers: base os
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/pool.h"
#include "os/os.h"

#define N_MAX    7
#define N_PHASES 20

struct work {
    struct ew_pool *pool;
    unsigned n_calls[N_MAX];
    uint32_t value[2][N_MAX]; /* plain memory: the barrier alone orders it */
    uint32_t n_wrong[N_MAX];
};

static void phases(void *arg, unsigned i, unsigned n)
{
    struct work *const w = arg;

    w->n_calls[i]++;
    for (uint32_t phase = 0; phase < N_PHASES; phase++) {
        w->value[phase % 2][i] = phase * 16 + i;
        ew_pool_barrier(w->pool, i);
        for (unsigned j = 0; j < n; j++)
            w->n_wrong[i] += w->value[phase % 2][j] != phase * 16 + j;
    }
}

static void test_runs(void **state)
{
    (void)state;
    for (unsigned n = 1; n <= N_MAX; n++) { /* most machines have fewer cores at the end */
        struct work w = { 0 };

        assert_int_equal(ew_pool_create(n, &w.pool, NULL), 0);
        assert_int_equal(ew_pool_threads(w.pool), n);
        const uint64_t before = ew_mem_count();
        for (unsigned run = 0; run < 20; run++) {
            if (run % 7 == 6)
                (void)usleep(20000); /* workers sleep by now and must wake */
            ew_pool_run(w.pool, phases, &w);
        }
        assert_int_equal(ew_mem_count(), before);
        for (unsigned i = 0; i < n; i++) {
            assert_int_equal(w.n_calls[i], 20);
            assert_int_equal(w.n_wrong[i], 0);
        }
        ew_pool_destroy(w.pool);
    }
    ew_pool_destroy(NULL);
}

static void test_create_and_destroy(void **state)
{
    struct ew_pool *p;

    (void)state;
    for (int i = 0; i < 50; i++) {
        assert_int_equal(ew_pool_create((unsigned)i % 4, &p, NULL), 0);
        assert_true(ew_pool_threads(p) >= 1);
        ew_pool_destroy(p);
    }
    for (uint64_t k = 1; k < 8; k++) {
        ew_error err = { 0 };

        p = NULL;
        ew_mem_fail_at(k);
        const ew_status st = ew_pool_create(3, &p, &err);
        ew_mem_fail_at(0);
        assert_true(st == EW_STATUS_OK || (st == EW_STATUS_NO_MEMORY && err.text[0]));
        if (!st)
            ew_pool_destroy(p);
    }
}

static void test_split(void **state)
{
    static const size_t grains[] = { 1, 3, 16, 64 };

    (void)state;
    for (size_t n = 0; n < 300; n += 7)
        for (size_t g = 0; g < 4; g++)
            for (unsigned t = 1; t < 9; t++) {
                size_t at = 0, begin, end;

                for (unsigned i = 0; i < t; i++) {
                    ew_split_range(n, grains[g], i, t, &begin, &end);
                    assert_int_equal(begin, at);
                    assert_true(end >= begin && end <= n);
                    assert_true(end == n || end % grains[g] == 0);
                    at = end;
                }
                assert_int_equal(at, n);
            }
}

/* ---- shares ---- */

#define N_UNITS 1000

struct units {
    struct ew_pool *pool;
    size_t n_units, grain;
    unsigned late;             /* this thread starts late; N_MAX: none */
    uint32_t given[N_UNITS];   /* times that a unit was given out, all phases; atomic */
    uint32_t by_late, n_wrong; /* atomic */
    double sum[N_UNITS];       /* of the last phase: each unit by whoever got it */
};

static void count_units(void *arg, unsigned i, unsigned n)
{
    struct units *const u = arg;

    for (unsigned phase = 0; phase < 3; phase++) {
        struct ew_units s;
        size_t begin, end;

        if (i == u->late)
            (void)usleep(3000);
        ew_units_begin(&s, u->pool, i, n, u->n_units, u->grain);
        while (ew_units_next(&s, &begin, &end)) {
            if (begin >= end || end > u->n_units)
                __atomic_fetch_add(&u->n_wrong, 1, __ATOMIC_RELAXED);
            for (size_t k = begin; k < end && k < N_UNITS; k++) {
                __atomic_fetch_add(&u->given[k], 1, __ATOMIC_RELAXED);
                u->sum[k] = 1.0 / (double)(k + 1) + phase;
            }
            if (i == u->late)
                __atomic_fetch_add(&u->by_late, (uint32_t)(end - begin), __ATOMIC_RELAXED);
        }
        ew_pool_barrier(u->pool, i);
    }
}

static void test_shares(void **state)
{
    static const size_t sizes[] = { 0, 1, 2, 3, 7, 64, 65, 999, N_UNITS };
    static const size_t grains[] = { 1, 4, 64, 5000 };
    static const unsigned threads[] = { 1, 2, 3, 7 };

    (void)state;
    for (size_t t = 0; t < 4; t++) {
        struct units u = { .late = N_MAX };

        assert_int_equal(ew_pool_create(threads[t], &u.pool, NULL), 0);
        const uint64_t before = ew_mem_count();
        for (size_t k = 0; k < 9 * 4; k++) {
            u.n_units = sizes[k / 4];
            u.grain = grains[k % 4];
            memset(u.given, 0, sizeof(u.given));
            ew_pool_run(u.pool, count_units, &u);
            for (size_t j = 0; j < N_UNITS; j++) {
                assert_int_equal(u.given[j], j < u.n_units ? 3 : 0);
                if (j < u.n_units)
                    assert_true(u.sum[j] == 1.0 / (double)(j + 1) + 2);
            }
        }
        assert_int_equal(u.n_wrong, 0);
        assert_int_equal(ew_mem_count(), before);
        ew_pool_destroy(u.pool);
    }
}

static void test_late_thread(void **state)
{
    struct ew_pool_stats stats;
    struct units u = { .late = 1, .n_units = N_UNITS, .grain = 4 };

    (void)state;
    assert_int_equal(ew_pool_create(2, &u.pool, NULL), 0);
    for (int run = 0; run < 5; run++)
        ew_pool_run(u.pool, count_units, &u);
    ew_pool_get_stats(u.pool, &stats);
    assert_int_equal(stats.n_runs, 5);
    assert_int_equal(stats.n_barriers, 5 * 4);
    assert_int_equal(ew_pool_n_barriers(u.pool), 5 * 4);
    assert_true(stats.n_stolen > 0);
    assert_true(stats.n_sleeps > 0);              /* 3 ms are too long to spin */
    assert_true(u.by_late < 5 * 3 * N_UNITS / 4); /* its share would have been a half */
    for (size_t j = 0; j < N_UNITS; j++)
        assert_int_equal(u.given[j], 15);
    ew_pool_destroy(u.pool);
}

/* A serial step inside a run of many is called as 0 of 1. */
static void test_share_of_one(void **state)
{
    struct ew_units s;
    struct ew_pool *p;
    size_t begin = 9, end = 9;

    (void)state;
    assert_int_equal(ew_pool_create(3, &p, NULL), 0);
    ew_units_begin(&s, p, 0, 1, 10, 4);
    assert_true(ew_units_next(&s, &begin, &end));
    assert_int_equal(begin, 0);
    assert_int_equal(end, 10);
    assert_false(ew_units_next(&s, &begin, &end));
    ew_units_begin(&s, p, 0, 1, 0, 4);
    assert_false(ew_units_next(&s, &begin, &end));
    ew_pool_destroy(p);
}

static void one_barrier(void *arg, unsigned i, unsigned n)
{
    (void)n;
    ew_pool_barrier(((struct work *)arg)->pool, i);
}

/* Far more threads than cores: nobody spins for a core that a partner needs. */
static void test_oversubscribed(void **state)
{
    struct units u = { .late = N_MAX, .n_units = N_UNITS, .grain = 1 };
    const uint64_t start = ew_clock_ns();

    (void)state;
    assert_int_equal(ew_pool_create(ew_os_cores() + 40, &u.pool, NULL), 0);
    for (int run = 0; run < 20; run++)
        ew_pool_run(u.pool, count_units, &u);
    for (size_t j = 0; j < N_UNITS; j++)
        assert_int_equal(u.given[j], 60);
    ew_pool_destroy(u.pool);
    assert_true(ew_clock_ns() - start < 20000000000u);
}

static void test_storm(void **state)
{
    struct work w = { 0 };

    (void)state;
    for (unsigned k = 0; k < 200; k++) {
        assert_int_equal(ew_pool_create(1 + k % N_MAX, &w.pool, NULL), 0);
        for (unsigned run = 0; run < k % 3; run++)
            ew_pool_run(w.pool, one_barrier, &w);
        ew_pool_destroy(w.pool); /* some workers have not begun to wait yet */
    }
}

/* ---- cores ---- */

struct fit_work {
    struct ew_pool *pool;
    unsigned last_n, n_wrong;
    bool is_late;
    unsigned alone_us; /* what the work takes one thread; 0: 1 ms, as of two */
    unsigned n_in;     /* atomic */
};

/* Threads work 1 ms between two barriers; thread 1 comes 2 ms late where it is told to. */
static void fit_phases(void *arg, unsigned i, unsigned n)
{
    struct fit_work *const w = arg;

    if (i == 0) {
        w->last_n = n;
        w->n_in = 0;
    }
    ew_pool_barrier(w->pool, i);
    __atomic_add_fetch(&w->n_in, 1, __ATOMIC_RELAXED);
    (void)usleep(i == 1 && w->is_late ? 3000 : n == 1 && w->alone_us ? w->alone_us : 1000);
    ew_pool_barrier(w->pool, i);
    if (i == 0)
        w->n_wrong += w->n_in != n;
}

/* Runs until n threads take part; false after `most` of them. */
static bool fits(struct fit_work *w, unsigned n, unsigned most)
{
    for (unsigned run = 0; run < most; run++) {
        ew_pool_run_fit(w->pool, fit_phases, w);
        if (w->last_n == n)
            return true;
    }
    return false;
}

static void test_fewer_threads(void **state)
{
    struct fit_work w = { .is_late = true };
    struct ew_pool_stats stats;

    (void)state;
    if (ew_os_cores() < 2) { /* more threads than cores sleep at once: nothing is judged */
        print_message("one core: not checked\n");
        return;
    }
    assert_int_equal(ew_pool_create(2, &w.pool, NULL), 0);
    assert_true(fits(&w, 1, 200)); /* the late one is left out */
    ew_pool_run(w.pool, fit_phases, &w);
    assert_int_equal(w.last_n, 2); /* who asks for all gets them */
    w.is_late = false;
    assert_true(fits(&w, 2, 5000)); /* and it is tried again */
    ew_pool_get_stats(w.pool, &stats);
    assert_true(stats.n_fewer > 0);
    assert_int_equal(w.n_wrong, 0);
    ew_pool_destroy(w.pool);
}

/* Where a thread alone takes longer than two with one of them late, two go on. */
static void test_fewer_in_vain(void **state)
{
    struct fit_work w = { .is_late = true, .alone_us = 6000 };
    struct ew_pool_stats stats;
    unsigned n = 0;

    (void)state;
    if (ew_os_cores() < 2) {
        print_message("one core: not checked\n");
        return;
    }
    assert_int_equal(ew_pool_create(2, &w.pool, NULL), 0);
    assert_true(fits(&w, 1, 200)); /* tried */
    for (; n < 100 && w.last_n == 1; n++)
        ew_pool_run_fit(w.pool, fit_phases, &w);
    assert_true(n < 20); /* of 6 ms in a window of 50: less than what it would be held for */
    for (n = 0; n < 30; n++) {
        ew_pool_run_fit(w.pool, fit_phases, &w);
        assert_int_equal(w.last_n, 2);
    }
    ew_pool_get_stats(w.pool, &stats);
    assert_true(stats.n_fewer > 0);
    ew_pool_destroy(w.pool);
}

/* Threads that are tied to cores cannot make room for the late one. */
static void test_tied_threads_stay(void **state)
{
    struct fit_work w = { .is_late = true };

    (void)state;
    if (ew_os_cores() < 2) {
        print_message("one core: not checked\n");
        return;
    }
    assert_int_equal(ew_pool_create(2, &w.pool, NULL), 0);
    assert_int_equal(ew_pool_pin(w.pool, NULL), 0);
    assert_false(fits(&w, 1, 100));
    assert_int_equal(w.last_n, 2);
    ew_pool_destroy(w.pool);
}

static void note_core(void *arg, unsigned i, unsigned n)
{
    struct ew_os_core one[2];

    (void)n;
    ((unsigned *)arg)[i] = ew_os_core_list(one, 2) == 1 ? one[0].id : EW_MAX_CORES;
}

static void test_pin(void **state)
{
    struct ew_os_core cores[EW_MAX_CORES];
    const size_t n = ew_os_core_list(cores, EW_MAX_CORES);
    unsigned on[EW_MAX_CORES];
    struct ew_pool *p;
    ew_error err = { 0 };

    (void)state;
    assert_true(n >= 1 && ew_os_threads() >= 1 && ew_os_threads() <= n);
    assert_int_equal(ew_pool_create((unsigned)n, &p, NULL), 0);
    assert_int_equal(ew_pool_pin(p, &err), 0);
    ew_pool_run(p, note_core, on);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(on[i], cores[i].id);
    assert_int_equal(ew_os_core_list(cores, EW_MAX_CORES), n); /* the caller is free again */
    ew_pool_destroy(p);
    assert_int_equal(ew_pool_create((unsigned)n + 1, &p, NULL), 0);
    assert_int_equal(ew_pool_pin(p, &err), EW_STATUS_UNSUPPORTED);
    assert_non_null(strstr(err.text, "cannot be pinned"));
    ew_pool_run(p, note_core, on);
    for (size_t i = 0; i <= n && n > 1; i++)
        assert_int_equal(on[i], EW_MAX_CORES);
    ew_pool_destroy(p);
}

static char root[256];

static void put(const char *dir, const char *name, const char *text)
{
    char path[512];

    assert_true(snprintf(path, sizeof(path), "%s/%s", root, dir) < (int)sizeof(path));
    assert_int_equal(ew_dir_make(path, NULL), 0);
    assert_true(snprintf(path, sizeof(path), "%s/%s/%s", root, dir, name) < (int)sizeof(path));
    assert_int_equal(ew_file_write(path, text, strlen(text), NULL), 0);
}

static void test_kinds_of_cores(void **state)
{
    static const unsigned capacity[][4] = {
        { 1024, 1024, 1024, 1024 }, /* all alike */
        { 1024, 870, 300, 300 },    /* a prime, a big and two little cores */
        { 5200, 5100, 3900, 3900 }, /* favoured, fast, efficient */
        { 5700, 5400, 5400, 5300 }, /* favoured cores alone */
        { 0, 0, 0, 0 },             /* the system does not say */
        { 1024, 0, 300, 300 },
    };
    static const size_t fast[] = { 4, 2, 2, 4, 4, 4 };
    struct ew_os_core core = { .id = 5 };

    (void)state;
    for (size_t k = 0; k < 6; k++) {
        struct ew_os_core c[4] = { 0 };

        for (unsigned i = 0; i < 4; i++)
            c[i].capacity = capacity[k][i];
        assert_int_equal(ew_os_fast_cores(c, 4), fast[k]);
    }
    assert_int_equal(ew_os_fast_cores(NULL, 0), 0);
    ew_os_core_read(root, &core);
    assert_int_equal(core.capacity, 0);
    put("cpu5/cpufreq", "cpuinfo_max_freq", "3900000\n");
    put("cpu5/topology", "thread_siblings_list", "1,5\n");
    ew_os_core_read(root, &core);
    assert_int_equal(core.capacity, 3900000);
    assert_int_equal(core.sibling, 1);
    put("cpu5", "cpu_capacity", "446\n");
    put("cpu5/topology", "thread_siblings_list", "4-7\n");
    ew_os_core_read(root, &core);
    assert_int_equal(core.capacity, 446);
    assert_int_equal(core.sibling, 1);
    put("cpu5", "cpu_capacity", "none");
    put("cpu5/topology", "thread_siblings_list", "5--,x");
    ew_os_core_read(root, &core);
    assert_int_equal(core.capacity, 3900000);
    assert_int_equal(core.sibling, 0);
}

static void test_quota(void **state)
{
    char self[512];

    (void)state;
    assert_true(snprintf(self, sizeof(self), "%s/g/self", root) < (int)sizeof(self));
    assert_true(ew_os_cpu_quota(self, root) == 0); /* no such file */
    put("g", "self", "0::/a/b\n");
    assert_true(ew_os_cpu_quota(self, root) == 0);
    put("a/b", "cpu.max", "max 100000\n");
    assert_true(ew_os_cpu_quota(self, root) == 0);
    put("a", "cpu.max", "150000 100000\n");
    assert_true(ew_os_cpu_quota(self, root) == 1.5);
    put("a/b", "cpu.max", "400000 100000\n"); /* looser than its parent */
    assert_true(ew_os_cpu_quota(self, root) == 1.5);
    put("g", "self", "7:memory:/a\n4:cpu,cpuacct:/box\n0::/none\n");
    assert_true(ew_os_cpu_quota(self, root) == 0);
    put("cpu/box", "cpu.cfs_quota_us", "-1\n");
    put("cpu/box", "cpu.cfs_period_us", "100000\n");
    assert_true(ew_os_cpu_quota(self, root) == 0);
    put("cpu/box", "cpu.cfs_quota_us", "300000\n");
    assert_true(ew_os_cpu_quota(self, root) == 3);
    put("a", "cpu.max", "junk");
    put("g", "self", "nonsense\n::\n0:");
    assert_true(ew_os_cpu_quota(self, root) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_runs),
        cmocka_unit_test(test_create_and_destroy),
        cmocka_unit_test(test_split),
        cmocka_unit_test(test_shares),
        cmocka_unit_test(test_late_thread),
        cmocka_unit_test(test_share_of_one),
        cmocka_unit_test(test_oversubscribed),
        cmocka_unit_test(test_storm),
        cmocka_unit_test(test_fewer_threads),
        cmocka_unit_test(test_fewer_in_vain),
        cmocka_unit_test(test_tied_threads_stay),
        cmocka_unit_test(test_pin),
        cmocka_unit_test(test_kinds_of_cores),
        cmocka_unit_test(test_quota),
    };

    (void)snprintf(root, sizeof(root), "%s/u_pool.%u", EW_BINARY_DIR, ew_os_pid());
    return cmocka_run_group_tests(tests, NULL, NULL);
}

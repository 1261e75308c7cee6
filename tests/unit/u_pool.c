/* The thread pool: every thread runs once, barriers part the phases, plain memory written before a
 * barrier is seen after it (ThreadSanitizer watches), ranges are split without holes; a run and a
 * barrier allocate nothing. ew-layers: base os
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/pool.h"

#define N_MAX    4
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
    for (unsigned n = 1; n <= N_MAX; n++) {
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_runs),
        cmocka_unit_test(test_create_and_destroy),
        cmocka_unit_test(test_split),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Symbolic dims: canonical forms, arithmetic, text both ways.
 * ew-layers: base os tensor op */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "op/symtab.h"

static int set_up(void **state)
{
    *state = ew_symtab_create();
    return *state ? 0 : -1;
}

static int tear_down(void **state)
{
    ew_symtab_destroy(*state);
    return 0;
}

static void expect_text(struct ew_symtab *t, int64_t dim, const char *want)
{
    char text[128];

    ew_dim_text(t, dim, text, sizeof(text));
    assert_string_equal(text, want);
    assert_true(ew_dim_parse(t, text) == dim);
}

static void test_numbers_fold(void **state)
{
    struct ew_symtab *t = *state;

    assert_int_equal(ew_dim_add(NULL, 2, 3), 5);
    assert_int_equal(ew_dim_mul(NULL, 4, 3), 12);
    assert_int_equal(ew_dim_sub(NULL, 3, 5), -2);
    assert_int_equal(ew_dim_div(NULL, 7, 2), 3);
    assert_int_equal(ew_dim_div_ceil(NULL, 7, 2), 4);
    assert_int_equal(ew_dim_max(t, 7, 2), 7);
    assert_int_equal(ew_dim_min(t, 7, 2), 2);
    assert_true(ew_dim_div(NULL, 7, 0) == EW_DIM_BAD);
    assert_true(ew_dim_add(NULL, INT64_MAX, 1) == EW_DIM_BAD);
    assert_true(ew_dim_mul(NULL, INT64_MAX / 2, 3) == EW_DIM_BAD);
    assert_true(ew_dim_add(NULL, ew_dim_symbol(t, "a"), 1) == EW_DIM_BAD);
}

static void test_sums_are_canonical(void **state)
{
    struct ew_symtab *t = *state;
    const int64_t a = ew_dim_symbol(t, "a"), b = ew_dim_symbol(t, "b");

    assert_true(a < 0 && b < 0 && a != b);
    assert_true(ew_dim_symbol(t, "a") == a);
    assert_true(ew_dim_add(t, a, b) == ew_dim_add(t, b, a));
    assert_true(ew_dim_sub(t, ew_dim_add(t, a, b), b) == a);
    assert_true(ew_dim_sub(t, a, a) == 0);
    assert_true(ew_dim_add(t, a, a) == ew_dim_mul(t, 2, a));
    expect_text(t, ew_dim_add(t, ew_dim_add(t, 1, b), a), "a + b + 1");
    expect_text(t, ew_dim_sub(t, b, ew_dim_mul(t, 3, a)), "-3*a + b");
}

static void test_products_expand(void **state)
{
    struct ew_symtab *t = *state;
    const int64_t a = ew_dim_symbol(t, "a"), b = ew_dim_symbol(t, "b");
    const int64_t sum = ew_dim_add(t, a, b);

    assert_true(ew_dim_mul(t, sum, 2) == ew_dim_add(t, ew_dim_mul(t, 2, a), ew_dim_mul(t, b, 2)));
    assert_true(ew_dim_mul(t, a, b) == ew_dim_mul(t, b, a));
    expect_text(t, ew_dim_mul(t, sum, sum), "a*a + 2*a*b + b*b");
    expect_text(t, ew_dim_mul(t, ew_dim_mul(t, 64, b), a), "64*a*b");
}

static void test_division(void **state)
{
    struct ew_symtab *t = *state;
    const int64_t a = ew_dim_symbol(t, "a"), b = ew_dim_symbol(t, "b");
    const int64_t p = ew_dim_mul(t, ew_dim_mul(t, a, b), 64);

    assert_true(ew_dim_div(t, p, 64) == ew_dim_mul(t, a, b));
    assert_true(ew_dim_div(t, p, ew_dim_mul(t, a, 16)) == ew_dim_mul(t, 4, b));
    assert_true(ew_dim_div(t, ew_dim_mul(t, 6, ew_dim_add(t, a, b)), ew_dim_add(t, a, b)) == 6);
    expect_text(t, ew_dim_div(t, a, 2), "div(a, 2)");
    assert_true(ew_dim_div(t, a, 2) == ew_dim_div(t, a, 2));
    expect_text(t, ew_dim_div_ceil(t, ew_dim_add(t, a, 1), 32), "ceil_div(a + 1, 32)");
}

static void test_extremes(void **state)
{
    struct ew_symtab *t = *state;
    const int64_t a = ew_dim_symbol(t, "a"), b = ew_dim_symbol(t, "b");

    assert_true(ew_dim_max(t, a, ew_dim_add(t, a, 1)) == ew_dim_add(t, a, 1));
    assert_true(ew_dim_min(t, a, ew_dim_add(t, a, b)) == a);
    assert_true(ew_dim_max(t, a, 0) == a);
    assert_true(ew_dim_max(t, a, b) == ew_dim_max(t, b, a));
    expect_text(t, ew_dim_min(t, b, a), "min(a, b)");
}

static void test_evaluation(void **state)
{
    struct ew_symtab *t = *state;
    const int64_t a = ew_dim_symbol(t, "a"), b = ew_dim_symbol(t, "b");
    const int64_t both[2] = { 7, 5 }, one[2] = { 7, -1 };
    const int64_t e = ew_dim_max(t, ew_dim_div(t, ew_dim_add(t, a, b), 5), ew_dim_sub(t, b, a));

    assert_int_equal(ew_dim_eval(t, e, both, 2), 2);
    assert_int_equal(ew_dim_eval(t, ew_dim_mul(t, a, a), one, 2), 49);
    assert_true(ew_dim_eval(t, e, one, 2) == EW_DIM_BAD);
    assert_true(ew_dim_eval(t, ew_dim_unknown(t), both, 2) == EW_DIM_BAD);
    assert_true(ew_dim_eval(t, ew_dim_sub(t, b, a), both, 2) == EW_DIM_BAD); /* a size below zero */
    assert_int_equal(ew_symtab_n_symbols(t), 2);
    assert_string_equal(ew_symtab_symbol_name(t, 1), "b");
}

static void test_unknowns(void **state)
{
    struct ew_symtab *t = *state;
    const int64_t x = ew_dim_unknown(t), y = ew_dim_unknown(t);

    assert_true(x != y);
    expect_text(t, y, "?1");
    assert_true(ew_dim_parse(t, "?7") != ew_dim_unknown(t));
    expect_text(t, ew_dim_unknown(t), "?9");
}

/* The same sum made in another order, from text alone, prints the same. */
static void test_order_does_not_depend_on_history(void **state)
{
    struct ew_symtab *t = *state, *u = ew_symtab_create();
    char text[128], again[128];
    int64_t d;

    (void)ew_dim_unknown(t);
    d = ew_dim_parse(t, "div(a, 3)*?5 + ?2 + max(b, a) + 4*b");
    assert_true(d != EW_DIM_BAD);
    ew_dim_text(t, d, text, sizeof(text));
    (void)ew_dim_symbol(u, "a");
    (void)ew_dim_parse(u, "max(a, b) + ?9");
    ew_dim_text(u, ew_dim_parse(u, text), again, sizeof(again));
    ew_symtab_destroy(u);
    assert_string_equal(again, text);
}

static void test_bad_text(void **state)
{
    static const char *const bad[] = { "",         "a +",   "3 4",
                                       "(a",       "a)",    "div(a)",
                                       "foo(a,b)", "?",     "99999999999999999999",
                                       "div(a,0)", "a % b", "--" };
    struct ew_symtab *t = *state;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (ew_dim_parse(t, bad[i]) != EW_DIM_BAD)
            fail_msg("'%s' was taken", bad[i]);
}

static void test_depth_is_capped(void **state)
{
    struct ew_symtab *t = *state;
    int64_t d = ew_dim_symbol(t, "a");

    for (int i = 0; i < 1000; i++)
        d = ew_dim_max(t, ew_dim_div(t, ew_dim_add(t, d, 1), 3), ew_dim_symbol(t, "b"));
    assert_true(ew_dim_is_symbol(d));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_numbers_fold, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_sums_are_canonical, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_products_expand, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_division, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_extremes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_evaluation, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_unknowns, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_order_does_not_depend_on_history, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bad_text, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_depth_is_capped, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

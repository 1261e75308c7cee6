/* u_cpu.c - level names and masks, and that detection agrees with itself.
 * ew-layers: base os cpu */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cpu/cpu.h"
#include "os/os.h"

static void test_masks_nest(void **state)
{
    static const char *const x86[] = { "ref", "avx2", "avx512", "avx512vnni", "amx", "native" };
    uint32_t before = 0, mask;

    (void)state;
    for (size_t i = 0; i < sizeof(x86) / sizeof(x86[0]); i++) {
        assert_true(ew_cpu_level_mask(x86[i], &mask));
        assert_int_equal(before & ~mask, 0); /* a higher level allows all that a lower one does */
        before = mask;
    }
    assert_true(ew_cpu_level_mask("ref", &mask));
    assert_int_equal(mask, 0);
    assert_true(ew_cpu_level_mask("i8mm", &mask));
    assert_int_equal(mask & EW_CPU_AVX2, 0);
}

static void test_unknown_level_is_refused(void **state)
{
    uint32_t mask = 7;

    (void)state;
    assert_false(ew_cpu_level_mask("avx3", &mask));
    assert_false(ew_cpu_level_mask("", &mask));
    assert_int_equal(mask, 7);
}

static void test_text_is_the_best_level(void **state)
{
    (void)state;
    assert_string_equal(ew_cpu_level_text(0), "ref");
    assert_string_equal(ew_cpu_level_text(EW_CPU_AVX2), "avx2");
    assert_string_equal(ew_cpu_level_text(EW_CPU_AVX512), "ref"); /* AVX-512 implies AVX2 */
    assert_string_equal(ew_cpu_level_text(EW_CPU_AVX2 | EW_CPU_AVX512), "avx512");
    assert_string_equal(ew_cpu_level_text(EW_CPU_AVX2 | EW_CPU_AVX512 | EW_CPU_AVX512VNNI),
                        "avx512vnni");
    assert_string_equal(ew_cpu_level_text(EW_CPU_NEON), "neon");
    assert_string_equal(ew_cpu_level_text(EW_CPU_NEON | EW_CPU_DOTPROD), "dotprod");
    assert_string_equal(ew_cpu_level_text(EW_CPU_NEON | EW_CPU_I8MM), "neon"); /* a bundle */
    assert_string_equal(ew_cpu_level_text(EW_CPU_NEON | EW_CPU_DOTPROD | EW_CPU_I8MM), "i8mm");
}

static void test_detection(void **state)
{
    struct ew_cpu_info a, b;

    (void)state;
    memset(&a, 0x5a, sizeof(a));
    ew_cpu_detect(&a);
    ew_cpu_detect(&b);
    assert_int_equal(a.flags, b.flags);
    assert_int_equal(a.n_cores, ew_os_cores());
    assert_non_null(memchr(a.vendor, '\0', sizeof(a.vendor)));
    assert_non_null(memchr(a.model, '\0', sizeof(a.model)));
    if (a.flags & EW_CPU_AVX512)
        assert_true(a.flags & EW_CPU_AVX2);
#if defined(__x86_64__)
    assert_string_equal(ew_cpu_arch(), "x86_64");
    assert_int_equal(a.flags & ~0xffffu, 0); /* nothing of ARM */
    /* the compiler's run-time library asks the same processor */
    assert_int_equal((a.flags & EW_CPU_AVX2) != 0, __builtin_cpu_supports("avx2") &&
                                                       __builtin_cpu_supports("fma") &&
                                                       __builtin_cpu_supports("bmi2"));
    assert_int_equal((a.flags & EW_CPU_AVX512) != 0,
                     __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"));
#endif
#if defined(__aarch64__)
    assert_string_equal(ew_cpu_arch(), "aarch64");
    assert_true(a.flags & EW_CPU_NEON);
    assert_int_equal(a.flags & 0xffff, 0); /* nothing of x86 */
    uint32_t neon;
    assert_true(ew_cpu_level_mask("neon", &neon));
    assert_string_equal(ew_cpu_level_text(a.flags & neon), "neon");
#endif
    if (a.l1d_bytes && a.l2_bytes)
        assert_true(a.l1d_bytes >= 4096 && a.l2_bytes >= a.l1d_bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_masks_nest),
        cmocka_unit_test(test_unknown_level_is_refused),
        cmocka_unit_test(test_text_is_the_best_level),
        cmocka_unit_test(test_detection),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* u_plan.c - the engine file against damage: every truncation, every byte flipped, and hand-made
 * lies with right checksums. One engine has plain weights, one quantised ones. */
#include "quant_fixture.h"

#include "plan/codec.h"
#include "plan/reader.h"

static void make_plain(void **bytes, size_t *len)
{
    linear_bytes(bytes, len);
}

/* Activations rounded by blocks: every field that a quantised product has is set. */
static void make_quantised(void **bytes, size_t *len)
{
    static struct weights w;

    quant_bytes(&w, EW_XQ_NVFP4, 16, 1.0f / 2688, bytes, len);
}

typedef void make_fn(void **bytes, size_t *len);
static make_fn *const makers[2] = { make_plain, make_quantised };

static uint8_t *copy_of(const void *bytes, size_t len)
{
    uint8_t *c = aligned_alloc(4096, (len + 4095) / 4096 * 4096);

    memcpy(c, bytes, len);
    return c;
}

static ew_status try_load(const uint8_t *bytes, size_t len, ew_error *err)
{
    ew_engine_opts o = EW_ENGINE_OPTS_INIT;
    ew_engine *e = NULL;
    ew_status st;

    o.n_threads = 1;
    *err = (ew_error){ 0 };
    st = ew_engine_load(bytes, len, &o, &e, err);
    assert_true((st == 0) == (e != NULL));
    if (st)
        assert_true(strlen(err->text) > 10);
    ew_engine_destroy(e);
    return st;
}

static void test_good(void **state)
{
    void *bytes, *again;
    size_t len, len2;
    ew_error err;

    (void)state;
    linear_bytes(&bytes, &len);
    assert_int_equal(try_load(bytes, len, &err), 0);
    linear_bytes(&again, &len2); /* a build is reproducible */
    assert_int_equal(len, len2);
    assert_memory_equal(bytes, again, len);
    ew_plan_free(bytes);
    ew_plan_free(again);
}

static void test_truncation(void **state)
{
    void *bytes;
    size_t len;
    ew_error err;

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        makers[i](&bytes, &len);
        for (size_t n = 0; n < len; n++)
            assert_int_not_equal(try_load(bytes, n, &err), 0);
        ew_plan_free(bytes);
    }
}

static void check_flips(make_fn *make)
{
    void *bytes;
    size_t len;
    uint8_t *c;
    ew_error err;

    make(&bytes, &len);
    c = copy_of(bytes, len);
    for (size_t i = 0; i < len; i++) {
        c[i] ^= (uint8_t)(1u << i % 8);
        if (!try_load(c, len, &err))
            fail_msg("byte %zu flipped and nobody noticed", i);
        c[i] ^= (uint8_t)(1u << i % 8);
    }
    assert_int_equal(try_load(c, len, &err), 0);
    free(c);
    ew_plan_free(bytes);
}

static void test_flips(void **state)
{
    (void)state;
    check_flips(make_plain);
    check_flips(make_quantised);
}

static void expect_text(const uint8_t *c, size_t len, ew_status want, const char *part)
{
    ew_error err;

    assert_int_equal(try_load(c, len, &err), want);
    if (!strstr(err.text, part))
        fail_msg("'%s', wanted '%s' in it", err.text, part);
}

static void test_messages(void **state)
{
    void *bytes;
    size_t len;
    uint64_t off, n;
    uint8_t *c;

    (void)state;
    linear_bytes(&bytes, &len);
    c = copy_of(bytes, len);
    ew_put_u32(c + 8, 3); /* of before: how steps run was another table */
    expect_text(c, len, EW_STATUS_MISMATCH, "version is 3, this build reads 5: build it again");
    ew_put_u32(c + 8, EW_PLAN_FORMAT);
    ew_put_u64(c + 16, 5);
    expect_text(c, len, EW_STATUS_MALFORMED, "header says 5");
    ew_put_u64(c + 16, len);
    assert_true(ew_plan_section_range(c, len, EW_PLAN_TACTICS, &off, &n));
    c[off] ^= 1;
    expect_text(c, len, EW_STATUS_MALFORMED, "section TACTICS: checksum");
    c[off] ^= 1;
    c[len - 1] ^= 1; /* padding is covered too */
    expect_text(c, len, EW_STATUS_MALFORMED, "section WEIGHTS: checksum");
    free(c);
    ew_plan_free(bytes);
}

/* The level that a file needs and this processor lacks is named. */
static void test_other_device(void **state)
{
    struct ew_plan p;
    void *bytes;
    size_t len;
    ew_error err = { 0 };
    ew_engine *e = NULL;
    char *json = NULL;

    (void)state;
    linear_bytes(&bytes, &len);
    MUST(ew_engine_load(bytes, len, NULL, &e, &err));
    MUST(ew_engine_describe(e, &json, &err));
    if (!strstr(json, "__ref\"") || strstr(json, "__avx2")) {
        assert_int_equal(ew_plan_read(bytes, len, 0, &p, &err), EW_STATUS_MISMATCH);
        assert_non_null(strstr(err.text, "needs CPU level"));
    }
    ew_text_free(json);
    ew_engine_destroy(e);
    ew_plan_free(bytes);
}

/* Whoever recomputes the checksums may say anything: it must be refused or run, never crash. */
static void check_lies(make_fn *make)
{
    void *bytes;
    size_t len;
    uint64_t begin, end, n;
    uint8_t *c;
    ew_error err;
    uint32_t rng = 1;
    size_t refused = 0, tried = 0;

    make(&bytes, &len);
    c = copy_of(bytes, len);
    assert_true(ew_plan_section_range(c, len, EW_PLAN_META, &begin, &n));
    assert_true(ew_plan_section_range(c, len, EW_PLAN_TACTICS, &end, &n));
    end += n;
    for (size_t i = (size_t)begin; i < end; i++)
        for (int k = 0; k < 3; k++) {
            const uint8_t was = c[i];

            rng = rng * 1664525u + 1013904223u;
            c[i] = (uint8_t)(k == 0 ? 0xffu : k == 1 ? was ^ (1u << (rng >> 29)) : rng >> 24);
            ew_plan_rehash(c, len);
            tried++;
            refused += try_load(c, len, &err) != 0;
            c[i] = was;
        }
    assert_true(tried > 1000);
    assert_true(refused > tried / 40);
    free(c);
    ew_plan_free(bytes);
}

static void test_lies(void **state)
{
    (void)state;
    check_lies(make_plain);
    check_lies(make_quantised);
}

/* The format of a packed weight and how its factor is rounded: what is no format, or not what the
 * kernel packed, is refused before it is computed with. */
static void test_format_lies(void **state)
{
    static const uint8_t said[8] = { EW_DTYPE_I4, EW_DTYPE_F32, 16, 0, 0, 0, 0, EW_XQ_NVFP4 };
    static const struct {
        size_t at;
        uint8_t lie;
    } lies[] = {
        { 0, EW_DTYPE_F32 },
        { 0, EW_DTYPE_I8 },
        { 0, 0xee },
        { 1, EW_DTYPE_F16 },
        { 1, EW_DTYPE_I8 },
        { 2, 8 },
        { 2, 12 },
        { 2, 0 },
        { 5, 1 },
        { 6, 1 },
        { 6, 2 },
        { 7, EW_XQ_COUNT },
        { 7, 0xff },
    };
    void *bytes;
    size_t len, n_found = 0;
    uint64_t off, n;
    uint8_t *c;

    (void)state;
    make_quantised(&bytes, &len);
    c = copy_of(bytes, len);
    assert_true(ew_plan_section_range(c, len, EW_PLAN_GRAPH, &off, &n));
    for (uint64_t i = off; i + sizeof(said) <= off + n; i++) {
        if (memcmp(c + i, said, sizeof(said)) != 0)
            continue;
        n_found++;
        for (size_t k = 0; k < sizeof(lies) / sizeof(lies[0]); k++) {
            c[i + lies[k].at] = lies[k].lie;
            ew_plan_rehash(c, len);
            expect_text(c, len, EW_STATUS_MALFORMED, k ? "weight" : "packed weight");
            c[i + lies[k].at] = said[lies[k].at];
        }
    }
    assert_true(n_found > 0);
    free(c);
    ew_plan_free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),         cmocka_unit_test(test_truncation),
        cmocka_unit_test(test_flips),        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_other_device), cmocka_unit_test(test_lies),
        cmocka_unit_test(test_format_lies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The engine file: no cut and no flipped byte passes, nor a file of another version or machine. The
 * engine is that of models/tiny. EW_FLIPS sets how many single-byte flips are tried (2000). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "edgewise/build.h"
#include "edgewise/engine.h"
#include "edgewise/runtime.h"
#include "os/os.h"
#include "plan/reader.h"

#define DIR  EW_BINARY_DIR "/test-engine-file"
#define CUT  DIR "/cut.engine"
#define PAGE 4096

static uint8_t *engine; /* page-aligned copy of the file */
static size_t n_engine;
static uint64_t random_state = 0x9E3779B97F4A7C15u;

static uint64_t random_u64(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static int set_up(void **state)
{
    ew_build_opts opts = EW_BUILD_OPTS_INIT;
    ew_error err = { 0 };
    FILE *f;

    (void)state;
    opts.flags = EW_BUILD_NO_TIMING;
    opts.max_kv_len = 64;
    if (ew_model_build(EW_SOURCE_DIR "/models/tiny", DIR, &opts, false, &err)) {
        print_message("%s\n", err.text);
        return 1;
    }
    f = fopen(DIR "/llm.engine", "rb");
    if (!f || fseek(f, 0, SEEK_END))
        return 1;
    n_engine = (size_t)ftell(f);
    rewind(f);
    engine = ew_mem_alloc_aligned(EW_MEM_MISC, n_engine + 1, PAGE);
    if (!engine || fread(engine, 1, n_engine, f) != n_engine)
        return 1;
    return fclose(f);
}

static int tear_down(void **state)
{
    (void)state;
    ew_mem_free_aligned(engine);
    return 0;
}

static ew_status load(size_t len, ew_error *err)
{
    ew_engine_opts opts = EW_ENGINE_OPTS_INIT;
    ew_engine *e = NULL;

    opts.n_threads = 1;
    *err = (ew_error){ 0 };
    const ew_status st = ew_engine_load(engine, len, &opts, &e, err);
    assert_true((st == EW_STATUS_OK) == (e != NULL));
    if (st)
        assert_true(err->text[0] != '\0' && strchr(err->text, '\n') == NULL);
    ew_engine_destroy(e);
    return st;
}

static void test_whole(void **state)
{
    ew_error err;

    (void)state;
    if (load(n_engine, &err))
        fail_msg("%s", err.text);
}

static void test_truncations(void **state)
{
    ew_error err;
    size_t n = 0;

    (void)state;
    for (size_t len = 0; len < n_engine; n++) {
        if (load(len, &err) == EW_STATUS_OK)
            fail_msg("a file of %zu of %zu bytes was accepted", len, n_engine);
        len += len < 1024 || n_engine - len <= 1024 ? 1
               : len < 65536                        ? 1 + random_u64() % 256
                                                    : 1 + random_u64() % 32768;
        if (len >= n_engine - 1024 && len < n_engine - 512)
            len = n_engine - 512;
    }
    print_message("%zu truncations refused\n", n);
    assert_true(n > 1000);
    assert_int_not_equal(load(n_engine + 1, &err), EW_STATUS_OK);
}

static void test_cut_files(void **state)
{
    ew_engine_opts opts = EW_ENGINE_OPTS_INIT;

    (void)state;
    opts.n_threads = 1;
    for (int i = 0; i < 64; i++) {
        const size_t len = i < 8 ? (size_t)i : (size_t)(random_u64() % n_engine);
        FILE *f = fopen(CUT, "wb");
        ew_engine *e = NULL;
        ew_error err = { 0 };

        assert_non_null(f);
        assert_int_equal(fwrite(engine, 1, len, f), len);
        assert_int_equal(fclose(f), 0);
        assert_int_not_equal(ew_engine_open(CUT, &opts, &e, &err), EW_STATUS_OK);
        assert_null(e);
        assert_non_null(strstr(err.text, "cut.engine"));
    }
    (void)remove(CUT);
}

static void flip_at(size_t at, unsigned how)
{
    ew_error err;
    const uint8_t was = engine[at];

    engine[at] = (uint8_t)(how < 8 ? was ^ (1u << how) : was ^ 0xFFu);
    if (load(n_engine, &err) == EW_STATUS_OK)
        fail_msg("byte %zu of %zu: 0x%02x for 0x%02x was accepted", at, n_engine, engine[at], was);
    engine[at] = was;
}

static void test_flips(void **state)
{
    const char *const text = getenv("EW_FLIPS");
    const long n = text ? strtol(text, NULL, 10) : 2000;
    ew_error err;

    (void)state;
    assert_true(n > 0);
    for (long i = 0; i < n; i++) /* one in four near the start, where every byte means something */
        flip_at((size_t)(random_u64() % (i % 4 ? n_engine : 65536)), (unsigned)(random_u64() % 9));
    print_message("%ld flips refused\n", n);
    assert_int_equal(load(n_engine, &err), EW_STATUS_OK);
}

/* A file that says another version, whole in every other way. */
static void test_version(void **state)
{
    uint8_t head[64];
    size_t refused_as_mismatch = 0;
    ew_error err;

    (void)state;
    memcpy(head, engine, sizeof(head));
    for (size_t i = 0; i < sizeof(head); i++) {
        engine[i] = (uint8_t)(head[i] + 1);
        ew_plan_rehash(engine, n_engine);
        const ew_status st = load(n_engine, &err);
        if (st == EW_STATUS_MISMATCH || st == EW_STATUS_UNSUPPORTED)
            refused_as_mismatch++;
        engine[i] = head[i];
        ew_plan_rehash(engine, n_engine);
    }
    assert_int_equal(load(n_engine, &err), EW_STATUS_OK);
    assert_true(refused_as_mismatch > 0);
}

/* What is no engine at all. */
static void test_other_files(void **state)
{
    static const char *const others[] = { EW_SOURCE_DIR "/LICENSE",
                                          EW_SOURCE_DIR "/models/tiny/model.safetensors",
                                          EW_SOURCE_DIR "/models/tiny/none", EW_SOURCE_DIR };

    (void)state;
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        ew_engine *e = NULL;
        ew_error err = { 0 };

        assert_int_not_equal(ew_engine_open(others[i], NULL, &e, &err), EW_STATUS_OK);
        assert_null(e);
        assert_true(err.text[0] != '\0');
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),     cmocka_unit_test(test_truncations),
        cmocka_unit_test(test_cut_files), cmocka_unit_test(test_flips),
        cmocka_unit_test(test_version),   cmocka_unit_test(test_other_files),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}

/* KV cache and prefix store against a plain model of what each slot should hold.
 * ew-layers: base os kv */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "kv/prefix.h"

enum { N_LAYERS = 2, MAX_BATCH = 4, CAP = 10 };

static struct ew_kv *make_cache(ew_dtype dtype)
{
    const uint32_t heads[N_LAYERS] = { 2, 1 }, dims[N_LAYERS] = { 4, 8 };
    struct ew_kv *kv = NULL;
    ew_error err = { 0 };

    assert_int_equal(ew_kv_create(N_LAYERS, heads, dims, MAX_BATCH, CAP, dtype, &kv, &err), 0);
    return kv;
}

static float *slot(const struct ew_kv *kv, uint32_t layer, uint32_t row, size_t head, uint32_t t)
{
    float *at = ew_kv_row(kv, layer, row);

    return at + (head * CAP + t) * kv->layers[layer].head_dim;
}

/* Writes `tag + t` into all of token t of a row and commits it. */
static void push_tokens(struct ew_kv *kv, uint32_t row, uint32_t n, float tag)
{
    const uint32_t start = (uint32_t)kv->lengths[row];

    for (uint32_t l = 0; l < N_LAYERS; l++)
        for (size_t h = 0; h < 2 * kv->layers[l].kv_heads; h++)
            for (uint32_t t = start; t < start + n; t++)
                for (uint32_t d = 0; d < kv->layers[l].head_dim; d++)
                    slot(kv, l, row, h, t)[d] = tag + (float)t + (float)h / 16 + (float)d / 256;
    assert_int_equal(ew_kv_commit(kv, row, n, NULL), 0);
}

static void expect_token(const struct ew_kv *kv, uint32_t row, uint32_t at, float tag, uint32_t t)
{
    for (uint32_t l = 0; l < N_LAYERS; l++)
        for (size_t h = 0; h < 2 * kv->layers[l].kv_heads; h++)
            for (uint32_t d = 0; d < kv->layers[l].head_dim; d++)
                assert_true(slot(kv, l, row, h, at)[d] ==
                            tag + (float)t + (float)h / 16 + (float)d / 256);
}

static void test_commit_and_rewind(void **state)
{
    struct ew_kv *kv = make_cache(EW_DTYPE_F32);
    ew_error err = { 0 };

    (void)state;
    push_tokens(kv, 1, 9, 100);
    assert_int_equal(ew_kv_commit(kv, 1, 2, &err), EW_STATUS_LIMIT);
    assert_non_null(strstr(err.text, "holds 9"));
    assert_non_null(strstr(err.text, "capacity 10"));
    assert_int_equal(kv->lengths[1], 9);
    assert_int_equal(ew_kv_rewind(kv, 1, 10, &err), EW_STATUS_INVALID_ARG);
    assert_int_equal(ew_kv_rewind(kv, MAX_BATCH, 0, &err), EW_STATUS_INVALID_ARG);
    assert_int_equal(ew_kv_rewind(kv, 1, 4, &err), 0);
    push_tokens(kv, 1, 1, 200);
    expect_token(kv, 1, 3, 100, 3);
    expect_token(kv, 1, 4, 200, 4);
    ew_kv_destroy(kv);
}

static void test_compaction(void **state)
{
    struct ew_kv *kv = make_cache(EW_DTYPE_F32);
    const int32_t map[MAX_BATCH] = { -1, 0, -1, 1 };
    const int32_t up[2] = { 1, 0 }, twice[2] = { 0, 0 };

    (void)state;
    for (uint32_t r = 0; r < MAX_BATCH; r++)
        push_tokens(kv, r, r + 2, 100.0f * (float)r);
    assert_int_equal(ew_kv_compact(kv, up, 2, NULL), EW_STATUS_INVALID_ARG);
    assert_int_equal(ew_kv_compact(kv, twice, 2, NULL), EW_STATUS_INVALID_ARG);
    assert_int_equal(ew_kv_compact(kv, map, MAX_BATCH, NULL), 0);
    assert_int_equal(kv->lengths[0], 3);
    assert_int_equal(kv->lengths[1], 5);
    assert_int_equal(kv->lengths[2], 0);
    assert_int_equal(kv->lengths[3], 0);
    for (uint32_t t = 0; t < 3; t++)
        expect_token(kv, 0, t, 100, t);
    for (uint32_t t = 0; t < 5; t++)
        expect_token(kv, 1, t, 300, t);
    ew_kv_destroy(kv);
}

static void test_tree_commit(void **state)
{
    struct ew_kv *kv = make_cache(EW_DTYPE_F32);
    const int32_t accepted[3] = { 0, 2, 5 }, descending[2] = { 3, 1 }, outside[1] = { 6 };

    (void)state;
    push_tokens(kv, 2, 9, 50);
    assert_int_equal(ew_kv_rewind(kv, 2, 3, NULL), 0); /* slots 3..8: a tree of 6 */
    assert_int_equal(ew_kv_commit_tree(kv, 2, descending, 2, 6, NULL), EW_STATUS_INVALID_ARG);
    assert_int_equal(ew_kv_commit_tree(kv, 2, outside, 1, 6, NULL), EW_STATUS_INVALID_ARG);
    assert_int_equal(ew_kv_commit_tree(kv, 2, accepted, 3, 8, NULL), EW_STATUS_LIMIT);
    assert_int_equal(ew_kv_commit_tree(kv, 2, accepted, 3, 6, NULL), 0);
    assert_int_equal(kv->lengths[2], 6);
    expect_token(kv, 2, 2, 50, 2);
    expect_token(kv, 2, 3, 50, 3);
    expect_token(kv, 2, 4, 50, 5);
    expect_token(kv, 2, 5, 50, 8);
    ew_kv_destroy(kv);
}

/* Rows of 12 codes and a scale, of 12 codes: bytes move and are counted as they are. */
static void test_coded_rows(void **state)
{
    static const ew_dtype dtypes[2] = { EW_DTYPE_I8, EW_DTYPE_F8E4M3 };
    const uint32_t heads = 2;
    const int32_t ids[5] = { 1, 2, 3, 4, 5 }, map[3] = { -1, -1, 0 };

    (void)state;
    for (int i = 0; i < 2; i++) {
        const uint32_t width = i == 0 ? 16 : 12;
        struct ew_prefix_store s;
        struct ew_kv *kv;

        assert_int_equal(ew_kv_create(1, &heads, &width, 3, CAP, dtypes[i], &kv, NULL), 0);
        assert_int_equal(kv->layers[0].row_bytes, 2 * heads * CAP * width);
        assert_int_equal(kv->total_bytes, 3 * 2 * heads * CAP * width);
        assert_int_equal(ew_kv_tokens_bytes(kv, 5), 2 * heads * 5 * width);
        for (uint32_t b = 0; b < 2 * heads * CAP * width; b++)
            ((unsigned char *)ew_kv_row(kv, 0, 1))[b] = (unsigned char)(b * 7 + b / 251);
        assert_int_equal(ew_kv_commit(kv, 1, 5, NULL), 0);
        ew_prefix_init(&s, 8000);
        assert_int_equal(ew_prefix_save(&s, kv, 1, 0, ids, 5, NULL), 0);
        assert_int_equal(ew_prefix_load(&s, kv, 2, 0, ids, 5, 4), 4);
        assert_int_equal(ew_kv_compact(kv, map, 3, NULL), 0); /* row 2 goes down to 0 */
        assert_int_equal(kv->lengths[0], 4);
        for (uint32_t h = 0; h < 2 * heads; h++)
            assert_memory_equal((char *)ew_kv_row(kv, 0, 0) + h * CAP * width,
                                (char *)ew_kv_row(kv, 0, 1) + h * CAP * width, 4 * width);
        ew_prefix_deinit(&s);
        ew_kv_destroy(kv);
    }
}

static void test_refusals(void **state)
{
    const uint32_t huge = UINT32_MAX, one = 1, zero = 0;
    struct ew_kv *kv;

    (void)state;
    assert_int_equal(ew_kv_create(1, &huge, &huge, huge, INT32_MAX, EW_DTYPE_F32, &kv, NULL),
                     EW_STATUS_NO_MEMORY);
    assert_int_equal(ew_kv_create(1, &zero, &one, 1, 1, EW_DTYPE_F32, &kv, NULL),
                     EW_STATUS_INVALID_ARG);
    assert_int_equal(ew_kv_create(1, &one, &one, 1, 1, EW_DTYPE_U8, &kv, NULL),
                     EW_STATUS_UNSUPPORTED);
    assert_null(kv);
}

static void test_prefix_store(void **state)
{
    struct ew_kv *kv = make_cache(EW_DTYPE_F32);
    const int32_t a[6] = { 1, 2, 3, 4, 5, 6 }, b[4] = { 1, 2, 9, 9 }, c[3] = { 7, 7, 7 };
    struct ew_prefix_store s;

    (void)state;
    ew_prefix_init(&s, 8000);
    push_tokens(kv, 0, 6, 10);
    push_tokens(kv, 1, 4, 20);
    assert_int_equal(ew_prefix_save(&s, kv, 0, 1, a, 6, NULL), 0);
    assert_int_equal(ew_prefix_save(&s, kv, 1, 1, b, 4, NULL), 0);
    assert_int_equal(ew_prefix_save(&s, kv, 0, 1, a, 6, NULL), 0);
    assert_int_equal(s.n_entries, 2);
    assert_int_equal(ew_prefix_save(&s, kv, 0, 1, a, 7, NULL), EW_STATUS_INVALID_ARG);
    /* The longest common run, never more than asked for, never across salts. */
    assert_int_equal(ew_prefix_load(&s, kv, 2, 2, a, 6, 6), 0);
    assert_int_equal(ew_prefix_load(&s, kv, 2, 1, c, 3, 3), 0);
    assert_int_equal(kv->lengths[2], 0);
    assert_int_equal(ew_prefix_load(&s, kv, 2, 1, a, 6, 5), 5);
    assert_int_equal(kv->lengths[2], 5);
    for (uint32_t t = 0; t < 5; t++)
        expect_token(kv, 2, t, 10, t);
    assert_int_equal(ew_prefix_load(&s, kv, 3, 1, b, 4, 100), 4);
    for (uint32_t t = 0; t < 4; t++)
        expect_token(kv, 3, t, 20, t);
    ew_prefix_deinit(&s);
    ew_kv_destroy(kv);
}

static void test_prefix_lru(void **state)
{
    struct ew_kv *kv = make_cache(EW_DTYPE_F32);
    const uint64_t before = ew_mem_tag_bytes(EW_MEM_KV);
    struct ew_prefix_store s;
    size_t one;
    int32_t ids[3] = { 0, 5, 5 };

    (void)state;
    push_tokens(kv, 0, 3, 10);
    ew_prefix_init(&s, SIZE_MAX);
    assert_int_equal(ew_prefix_save(&s, kv, 0, 0, ids, 3, NULL), 0);
    one = s.used_bytes;
    ew_prefix_deinit(&s);
    ew_prefix_init(&s, one - 1);
    assert_int_equal(ew_prefix_save(&s, kv, 0, 0, ids, 3, NULL), EW_STATUS_LIMIT);
    ew_prefix_init(&s, 2 * one);
    for (ids[0] = 1; ids[0] <= 2; ids[0]++)
        assert_int_equal(ew_prefix_save(&s, kv, 0, 0, ids, 3, NULL), 0);
    ids[0] = 1; /* used last: 2 must go */
    assert_int_equal(ew_prefix_load(&s, kv, 1, 0, ids, 3, 3), 3);
    ids[0] = 3;
    assert_int_equal(ew_prefix_save(&s, kv, 0, 0, ids, 3, NULL), 0);
    assert_int_equal(s.n_entries, 2);
    assert_int_equal(ew_prefix_load(&s, kv, 1, 0, ids, 3, 3), 3);
    ids[0] = 2;
    assert_int_equal(ew_prefix_load(&s, kv, 1, 0, ids, 3, 3), 0);
    ids[0] = 1;
    assert_int_equal(ew_prefix_load(&s, kv, 1, 0, ids, 3, 3), 3);
    ew_prefix_deinit(&s);
    assert_int_equal(ew_mem_tag_bytes(EW_MEM_KV), before);
    ew_kv_destroy(kv);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_commit_and_rewind), cmocka_unit_test(test_compaction),
        cmocka_unit_test(test_tree_commit),       cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_prefix_store),      cmocka_unit_test(test_prefix_lru),
        cmocka_unit_test(test_coded_rows),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

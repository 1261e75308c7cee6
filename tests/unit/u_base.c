/* u_base.c - the floor: sizes, short floats, arenas, buffers, maps, JSON getters, error text,
 * files. ew-layers: base os tensor */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/half.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/size.h"
#include "os/os.h"
#include "tensor/tensor.h"

static void sizes(void **state)
{
    const int64_t overflowing[] = { (int64_t)1 << 40, (int64_t)1 << 40 },
                  empty[] = { 0, (int64_t)1 << 62, 8 };
    const int64_t fine[] = { 3, 5 };
    struct ew_type t = ew_type_make(EW_DTYPE_F32, 2, overflowing);
    size_t n;

    (void)state;
    assert_false(ew_size_mul(SIZE_MAX, 2, &n));
    assert_false(ew_size_add(SIZE_MAX, 1, &n));
    assert_false(ew_type_bytes(&t, &n));
    t = ew_type_make(EW_DTYPE_F32, 3, empty);
    assert_false(ew_type_count(&t, &n)); /* a zero does not excuse the rest */
    t = ew_type_make(EW_DTYPE_I4, 2, fine);
    assert_true(ew_type_bytes(&t, &n));
    assert_int_equal(n, 8); /* 15 nibbles */
}

/* Every code of the short floats survives the way to f32 and back; halves between two codes go to
 * the even one. */
static void short_floats(void **state)
{
    (void)state;
    for (uint32_t c = 0; c < 65536; c++) {
        const float f = ew_f16_to_f32((uint16_t)c);
        const bool nan = (c & 0x7fff) > 0x7c00;
        if (nan)
            assert_true(f != f);
        else
            assert_int_equal(ew_f32_to_f16(f), c);
        if ((c & 0x7fff) < 0x7bff && !(c & 0x8000)) {
            const float next = ew_f16_to_f32((uint16_t)(c + 1));
            assert_int_equal(ew_f32_to_f16((f + next) / 2), c % 2 ? c + 1 : c);
        }
        if ((c & 0x7fff) <= 0x7f80)
            assert_int_equal(ew_f32_to_bf16(ew_bf16_to_f32((uint16_t)c)), c);
    }
    for (uint32_t c = 0; c < 256; c++) {
        if ((c & 0x7f) != 0x7f)
            assert_int_equal(ew_f32_to_f8e4m3(ew_f8e4m3_to_f32((uint8_t)c), 0), c);
        if ((c & 0x7f) <= 0x7c)
            assert_int_equal(ew_f32_to_f8e5m2(ew_f8e5m2_to_f32((uint8_t)c), 0), c);
    }
    assert_int_equal(ew_f32_to_f8e4m3(1e9f, 1), 0x7e);
    assert_int_equal(ew_f32_to_f8e4m3(1e9f, 0), 0x7f);
    assert_int_equal(ew_f32_to_f16(65519.0f), 0x7bff);
    assert_int_equal(ew_f32_to_f16(65520.0f), 0x7c00);
}

static void arenas_and_buffers(void **state)
{
    const uint64_t before = ew_mem_tag_bytes(EW_MEM_EVAL);
    struct ew_arena a;
    struct ew_buf b;

    (void)state;
    ew_arena_init(&a, EW_MEM_EVAL, 1 << 20);
    for (int i = 0; i < 1000; i++) {
        unsigned char *const p = ew_arena_alloc(&a, (size_t)i);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 16, 0);
        for (int k = 0; k < i; k++)
            assert_int_equal(p[k], 0);
        memset(p, 0xff, (size_t)i);
    }
    assert_null(ew_arena_alloc(&a, 1 << 20)); /* over the cap */
    assert_null(ew_arena_calloc(&a, SIZE_MAX, 2));
    ew_arena_deinit(&a);
    ew_buf_init(&b, EW_MEM_EVAL, 10);
    assert_true(ew_buf_puts(&b, "12345"));
    assert_true(ew_buf_printf(&b, "%d", 67890));
    assert_false(ew_buf_putc(&b, '!'));
    assert_true(b.failed);
    assert_string_equal(b.data, "1234567890");
    assert_null(ew_buf_take(&b));
    assert_int_equal(ew_mem_tag_bytes(EW_MEM_EVAL), before);
}

static void maps(void **state)
{
    static char keys[5000][12];
    struct ew_map m;
    uint32_t v;

    (void)state;
    ew_map_init(&m, EW_MEM_EVAL);
    assert_false(ew_map_find(&m, "x", 1, &v));
    for (uint32_t i = 0; i < 5000; i++) {
        snprintf(keys[i], sizeof(keys[i]), "k%u", i);
        assert_true(ew_map_put(&m, keys[i], strlen(keys[i]), i));
    }
    for (uint32_t i = 0; i < 5000; i++) {
        assert_true(ew_map_find(&m, keys[i], strlen(keys[i]), &v));
        assert_int_equal(v, i);
    }
    assert_true(ew_map_put(&m, "k7", 2, 99));
    assert_true(ew_map_find(&m, "k7", 2, &v));
    assert_int_equal(v, 99);
    assert_int_equal(m.n_used, 5000);
    assert_false(ew_map_find(&m, "k5000", 5, &v));
    ew_map_deinit(&m);
}

static void json_getters(void **state)
{
    static const char twice[] = "{\"a\": 1, \"a\": 2}";
    static const char good[] = "{\"n\": 3.0, \"s\": \"t\", \"z\": null}";
    ew_error err = { EW_STATUS_OK, "" };
    json_t *o;
    int64_t i;

    (void)state;
    assert_int_equal(ew_json_parse(twice, strlen(twice), "x.json", &o, &err), EW_STATUS_MALFORMED);
    assert_non_null(strstr(err.text, "x.json"));
    assert_int_equal(ew_json_parse(good, strlen(good), "x.json", &o, &err), EW_STATUS_OK);
    assert_int_equal(ew_json_get_i64(o, "n", "x.json", &i, &err), EW_STATUS_OK);
    assert_int_equal(i, 3);
    assert_int_equal(ew_json_get_i64_or(o, "z", "x.json", 5, &i, &err), EW_STATUS_OK);
    assert_int_equal(i, 5);
    assert_int_equal(ew_json_get_i64(o, "s", "x.json", &i, &err), EW_STATUS_MALFORMED);
    assert_non_null(strstr(err.text, "\"s\" is a string, not an integer"));
    json_decref(o);
}

static void error_text(void **state)
{
    ew_error err = { EW_STATUS_OK, "" };

    (void)state;
    assert_int_equal(ew_fail(&err, EW_STATUS_IO, "a\nb\033[31m"), EW_STATUS_IO);
    assert_string_equal(err.text, "a?b?[31m");
    ew_error_within(&err, "file '%s'", "x");
    assert_string_equal(err.text, "file 'x': a?b?[31m");
    assert_int_equal(ew_fail(NULL, EW_STATUS_IO, "x"), EW_STATUS_IO);
}

static void files(void **state)
{
    char dir[] = "/tmp/u_base_XXXXXX", path[64], link_path[64];
    struct ew_file_writer *w;
    struct ew_file_map map;
    ew_error err = { EW_STATUS_OK, "" };
    char **names;
    size_t n;

    (void)state;
    assert_non_null(mkdtemp(dir));
    assert_true(ew_path_join(path, sizeof(path), dir, "f"));
    assert_int_equal(ew_file_writer_open(&w, path, &err), EW_STATUS_OK);
    assert_int_equal(ew_file_writer_write(w, "abc", 3, &err), EW_STATUS_OK);
    ew_file_writer_abort(w);
    assert_int_equal(ew_dir_list(dir, &names, &n, &err), EW_STATUS_OK);
    assert_int_equal(n, 0);     /* nothing is left of an aborted file */
    for (int i = 0; i < 2; i++) /* new, then over an old one */
        assert_int_equal(ew_file_write(path, i ? "new" : "old!", i ? 3 : 4, &err), EW_STATUS_OK);
    assert_int_equal(ew_file_map_open_beneath(&map, dir, "f", &err), EW_STATUS_OK);
    assert_int_equal(map.len, 3);
    assert_memory_equal(map.bytes, "new", 3);
    ew_file_map_close(&map);
    assert_true(ew_path_join(link_path, sizeof(link_path), dir, "l"));
    assert_int_equal(symlink("f", link_path), 0);
    static const char *const outside[] = { "../f", "/etc/passwd", "l", "", "a/../../f", "./../f" };
    for (size_t i = 0; i < EW_COUNT(outside); i++)
        assert_int_not_equal(ew_file_map_open_beneath(&map, dir, outside[i], &err), EW_STATUS_OK);
    assert_int_equal(ew_file_map_open(&map, dir, &err), EW_STATUS_IO); /* a folder */
    unlink(link_path);
    unlink(path);
    rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes),
        cmocka_unit_test(short_floats),
        cmocka_unit_test(arenas_and_buffers),
        cmocka_unit_test(maps),
        cmocka_unit_test(json_getters),
        cmocka_unit_test(error_text),
        cmocka_unit_test(files),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

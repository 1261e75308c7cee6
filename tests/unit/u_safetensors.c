/* ew-layers: base os cpu tensor op kernels graph checkpoint
 * The safetensors reader against lying files, the sharded reader against lying indexes, and the
 * writer against the reader. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "checkpoint/safetensors.h"
#include "os/os.h"

static size_t make_file(char *out, const char *header, uint64_t claimed, size_t data_len)
{
    const size_t len = strlen(header);

    for (int i = 0; i < 8; i++)
        out[i] = (char)(claimed >> (8 * i));
    memcpy(out + 8, header, len);
    memset(out + 8 + len, 1, data_len);
    return 8 + len + data_len;
}

/* A header with data_len bytes after it must give this status, naming `word`. */
static void expect(const char *header, size_t data_len, ew_status want, const char *word)
{
    static char bytes[1 << 16];
    const size_t len = make_file(bytes, header, strlen(header), data_len);
    /* an exact copy, so that sanitizers see a byte too many */
    char *exact = ew_mem_alloc(EW_MEM_MISC, len);
    struct ew_safetensors *st = NULL;
    ew_error err = { 0 };
    ew_status s;

    memcpy(exact, bytes, len);
    s = ew_safetensors_parse(exact, len, "f", &st, &err);
    if (s != want || (word && !strstr(err.text, word)))
        fail_msg("%s: status %d '%s', wanted %d with '%s'", header, s, err.text, want, word);
    if (!s)
        ew_safetensors_close(st);
    ew_mem_free(exact);
}

#define T(name, dtype, shape, offsets)                                                             \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static void hostile_headers(void **state)
{
    (void)state;
    expect("{" T("a", "F32", "[2]", "[0,8]") "}", 8, EW_STATUS_OK, NULL);
    expect("{" T("a", "F32", "[]", "[0,4]") "," T("b", "BF16", "[2,0]", "[4,4]") "}", 4,
           EW_STATUS_OK, NULL);
    expect("{\"__metadata__\":{\"x\":\"y\"}," T("a", "U8", "[3]", "[0,3]") "}", 3, EW_STATUS_OK,
           NULL);
    expect("{" T("a", "F32", "[2]", "[0,8]") "}   ", 8, EW_STATUS_OK, NULL);
    expect("{}", 0, EW_STATUS_OK, NULL);
    expect("{" T("a", "F32", "[2]", "[0,8]") "}", 9, EW_STATUS_MALFORMED, "has 9");
    expect("{" T("a", "F32", "[2]", "[0,8]") "}", 7, EW_STATUS_MALFORMED, "'a'");
    expect("{" T("a", "F32", "[3]", "[0,8]") "}", 8, EW_STATUS_MALFORMED, "12 bytes");
    expect("{" T("a", "F33", "[2]", "[0,8]") "}", 8, EW_STATUS_UNSUPPORTED, "F33");
    expect("{" T("a", "F32", "[-2]", "[0,8]") "}", 8, EW_STATUS_MALFORMED, "dim 0");
    expect("{" T("a", "F32", "[2.0]", "[0,8]") "}", 8, EW_STATUS_MALFORMED, "dim 0");
    expect("{" T("a", "F32", "2", "[0,8]") "}", 8, EW_STATUS_MALFORMED, "shape");
    expect("{" T("a", "F32", "[1,1,1,1,1,1,1,1,2]", "[0,8]") "}", 8, EW_STATUS_UNSUPPORTED,
           "9 dims");
    expect("{" T("a", "F32", "[4294967296,4294967296]", "[0,8]") "}", 8, EW_STATUS_MALFORMED,
           "overflows");
    expect("{" T("a", "F32", "[4611686018427387904,2]", "[0,8]") "}", 8, EW_STATUS_MALFORMED,
           "overflows");
    expect("{" T("a", "F32", "[2]", "[8,0]") "}", 8, EW_STATUS_MALFORMED, "data_offsets");
    expect("{" T("a", "F32", "[2]", "[-8,0]") "}", 8, EW_STATUS_MALFORMED, "data_offsets");
    expect("{" T("a", "F32", "[2]", "[0]") "}", 8, EW_STATUS_MALFORMED, "data_offsets");
    expect("{" T("a", "F32", "[2]", "\"0,8\"") "}", 8, EW_STATUS_MALFORMED, "data_offsets");
    expect("{" T("a", "F32", "[2]", "[0,9223372036854775807]") "}", 8, EW_STATUS_MALFORMED, "'a'");
    expect("{" T("a", "F32", "[2]", "[0,8]") "," T("b", "F32", "[2]", "[4,12]") "}", 12,
           EW_STATUS_MALFORMED, "begins at byte 4");
    expect("{" T("a", "F32", "[1]", "[0,4]") "," T("b", "F32", "[1]", "[8,12]") "}", 12,
           EW_STATUS_MALFORMED, "begins at byte 8");
    expect("{" T("a", "F32", "[1]", "[4,8]") "}", 8, EW_STATUS_MALFORMED, "begins at byte 4");
    expect("{" T("a", "F32", "[1]", "[0,4]") "," T("a", "F32", "[1]", "[4,8]") "}", 8,
           EW_STATUS_MALFORMED, NULL);
    expect("{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, EW_STATUS_MALFORMED, "'a'");
    expect("{\"a\":3}", 4, EW_STATUS_MALFORMED, "'a'");
    expect("[]", 0, EW_STATUS_MALFORMED, "object");
    expect("{", 0, EW_STATUS_MALFORMED, NULL);
    expect("", 0, EW_STATUS_MALFORMED, NULL);
}

static void hostile_lengths(void **state)
{
    static const uint64_t claims[] = {
        0, 1, 3, 1u << 20, (uint64_t)1 << 40, UINT64_MAX, UINT64_MAX - 7, (uint64_t)INT64_MAX
    };
    char bytes[64];

    (void)state;
    for (size_t len = 0; len < 8; len++) {
        struct ew_safetensors *st;

        assert_int_equal(ew_safetensors_parse("\2\0\0\0\0\0\0", len, "f", &st, NULL),
                         EW_STATUS_MALFORMED);
    }
    for (size_t i = 0; i < sizeof(claims) / sizeof(claims[0]); i++) {
        const size_t len = make_file(bytes, "{}", claims[i], 0);
        struct ew_safetensors *st;

        assert_int_equal(ew_safetensors_parse(bytes, len, "f", &st, NULL), EW_STATUS_MALFORMED);
    }
}

/* ---- files ---- */

static const char *temp_path(const char *name)
{
    static char path[4][4096];
    static int i;
    char *out = path[i++ & 3];

    snprintf(out, 4096, "%s/u_safetensors.%u", EW_BINARY_DIR, ew_os_pid());
    assert_int_equal(ew_dir_make(out, NULL), EW_STATUS_OK);
    snprintf(out + strlen(out), 4096 - strlen(out), "/%s", name);
    return out;
}

static void put_tensors(const char *path, const char *a, const char *b)
{
    const int64_t dims[2] = { 2, 3 };
    const struct ew_type matrix = ew_type_make(EW_DTYPE_F32, 2, dims);
    const struct ew_type vector = ew_type_make(EW_DTYPE_U8, 1, dims + 1);
    static const float m[6] = { 1, 2, 3, 4, 5, 6 };
    struct ew_st_writer *w;
    ew_error err = { 0 };

    assert_int_equal(ew_st_writer_create(path, &w, &err), EW_STATUS_OK);
    assert_int_equal(ew_st_writer_declare(w, a, &matrix, &err), EW_STATUS_OK);
    assert_int_equal(ew_st_writer_declare(w, a, &matrix, &err), EW_STATUS_INVALID_ARG);
    assert_int_equal(ew_st_writer_declare(w, b, &vector, &err), EW_STATUS_OK);
    assert_int_equal(ew_st_writer_begin(w, &err), EW_STATUS_OK);
    assert_int_equal(ew_st_writer_write(w, m, 8, &err), EW_STATUS_OK);
    assert_int_equal(ew_st_writer_write(w, m + 2, 16, &err), EW_STATUS_OK);
    assert_int_equal(ew_st_writer_write(w, "xyz", 3, &err), EW_STATUS_OK);
    assert_int_equal(ew_st_writer_write(w, "x", 1, &err), EW_STATUS_MISMATCH);
    assert_int_equal(ew_st_writer_commit(w, &err), EW_STATUS_OK);
}

static void writer_and_reader_agree(void **state)
{
    const char *path = temp_path("one.safetensors");
    const struct ew_st_tensor *t;
    struct ew_safetensors *st;
    ew_error err = { 0 };

    (void)state;
    put_tensors(path, "a/\"quoted\"", "b");
    assert_int_equal(ew_safetensors_open(path, &st, &err), EW_STATUS_OK);
    assert_int_equal(ew_safetensors_count(st), 2);
    t = ew_safetensors_find(st, "a/\"quoted\"");
    assert_non_null(t);
    assert_int_equal(t->type.dtype, EW_DTYPE_F32);
    assert_int_equal(t->type.dim[1], 3);
    assert_float_equal(((const float *)t->data)[5], 6.0f, 0);
    assert_int_equal((uintptr_t)t->data % 64, 0);
    t = ew_safetensors_find(st, "b");
    assert_memory_equal(t->data, "xyz", 3);
    assert_null(ew_safetensors_find(st, "c"));
    ew_safetensors_close(st);
}

static void unfinished_writes_leave_nothing(void **state)
{
    const char *path = temp_path("none.safetensors");
    const int64_t n = 4;
    const struct ew_type type = ew_type_make(EW_DTYPE_F32, 1, &n);
    struct ew_st_writer *w;
    ew_error err = { 0 };

    (void)state;
    assert_int_equal(ew_st_writer_create(path, &w, &err), EW_STATUS_OK);
    assert_int_equal(ew_st_writer_declare(w, "a", &type, &err), EW_STATUS_OK);
    assert_int_equal(ew_st_writer_begin(w, &err), EW_STATUS_OK);
    assert_int_equal(ew_st_writer_commit(w, &err), EW_STATUS_MISMATCH);
    assert_false(ew_path_is_file(path));
}

static void expect_index(const char *index, ew_status want, const char *word)
{
    char dir[4096];
    struct ew_safetensors *st;
    ew_error err = { 0 };
    ew_status s;

    snprintf(dir, sizeof(dir), "%s", temp_path(""));
    assert_int_equal(
        ew_file_write(temp_path("model.safetensors.index.json"), index, strlen(index), &err),
        EW_STATUS_OK);
    s = ew_safetensors_open_dir(dir, &st, &err);
    if (s != want || (word && !strstr(err.text, word)))
        fail_msg("%s: status %d '%s', wanted %d with '%s'", index, s, err.text, want, word);
    if (!s) {
        assert_int_equal(ew_safetensors_count(st), 4);
        ew_safetensors_close(st);
    }
}

#define MAP(text) "{\"weight_map\":{" text "}}"

static void indexes(void **state)
{
    (void)state;
    put_tensors(temp_path("s1.safetensors"), "a", "b");
    put_tensors(temp_path("s2.safetensors"), "c", "d");
    put_tensors(temp_path("s3.safetensors"), "c", "e");
#define AB "\"a\":\"s1.safetensors\",\"b\":\"s1.safetensors\""
    expect_index(MAP(AB ",\"c\":\"s2.safetensors\",\"d\":\"s2.safetensors\""), EW_STATUS_OK, NULL);
    expect_index(MAP(AB ",\"c\":\"s2.safetensors\",\"d\":\"s1.safetensors\""), EW_STATUS_MALFORMED,
                 "'d' lies in s2");
    expect_index(MAP(AB ",\"c\":\"s2.safetensors\""), EW_STATUS_MALFORMED, "'d'");
    expect_index(MAP(AB ",\"x\":\"s1.safetensors\""), EW_STATUS_MALFORMED, "'x'");
    expect_index(
        MAP(AB ",\"c\":\"s2.safetensors\",\"d\":\"s2.safetensors\",\"e\":\"s3.safetensors\""),
        EW_STATUS_MALFORMED, "'c' is in s2");
    expect_index(MAP(AB ",\"c\":\"s9.safetensors\""), EW_STATUS_NOT_FOUND, "s9");
    expect_index(MAP("\"a\":\"../s1.safetensors\""), EW_STATUS_MALFORMED, "../s1");
    expect_index(MAP("\"a\":\"/etc/passwd\""), EW_STATUS_MALFORMED, "/etc/passwd");
    expect_index(MAP("\"a\":\"\""), EW_STATUS_MALFORMED, "plain");
    expect_index(MAP("\"a\":3"), EW_STATUS_MALFORMED, "'a'");
    expect_index(MAP(""), EW_STATUS_MALFORMED, "weight_map");
    expect_index("{}", EW_STATUS_MALFORMED, "weight_map");
    expect_index("[]", EW_STATUS_MALFORMED, "weight_map");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hostile_headers),
        cmocka_unit_test(hostile_lengths),
        cmocka_unit_test(writer_and_reader_agree),
        cmocka_unit_test(unfinished_writes_leave_nothing),
        cmocka_unit_test(indexes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

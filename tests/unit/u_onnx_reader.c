/* u_onnx_reader.c - hostile and odd ONNX files against the importer: what is refused, and that it
 * says why. Models are encoded here byte by byte, so that the test does not trust the code under
 * test. ew-layers: base os cpu tensor op kernels graph onnx */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "edgewise/onnx.h"
#include "graph/ir.h"
#include "os/os.h"

/* ---- a small protobuf encoder ---- */

struct pb {
    uint8_t at[1 << 17];
    size_t n;
};

static void put_varint(struct pb *b, uint64_t v)
{
    while (v >= 0x80) {
        b->at[b->n++] = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    b->at[b->n++] = (uint8_t)v;
}

static void put_int(struct pb *b, unsigned field, uint64_t v)
{
    put_varint(b, field << 3);
    put_varint(b, v);
}

static void put_bytes(struct pb *b, unsigned field, const void *bytes, size_t n)
{
    put_varint(b, field << 3 | 2);
    put_varint(b, n);
    if (n)
        memcpy(b->at + b->n, bytes, n);
    b->n += n;
}

static void put_text(struct pb *b, unsigned field, const char *text)
{
    put_bytes(b, field, text, strlen(text));
}

static void put_msg(struct pb *b, unsigned field, const struct pb *m)
{
    put_bytes(b, field, m->at, m->n);
}

/* ---- models: y = Op(x, w), x f32[2], w an initializer f32[2] ---- */

struct recipe {
    const char *op, *domain, *location, *offset, *length, *input1, *attribute;
    size_t location_len; /* 0: strlen */
    uint64_t ir, opset, x_type, w_dim, n_raw;
    uint64_t w_type;  /* 0: f32 in raw_data */
    unsigned w_field; /* typed field of w's values */
    const uint64_t *w_values;
    size_t n_w_values;
    bool is_external, is_repeated, has_function, has_sparse, is_sequence, no_type;
};

static const struct recipe k_good = { .op = "Add",
                                      .domain = "",
                                      .location = "w.bin",
                                      .offset = "8",
                                      .length = "8",
                                      .input1 = "w",
                                      .ir = 10,
                                      .opset = 21,
                                      .x_type = 1,
                                      .w_dim = 2,
                                      .n_raw = 8 };

static void put_value_info(struct pb *g, unsigned field, const char *name, const struct recipe *r)
{
    static struct pb v, t, tt, shape, dim;

    v.n = t.n = tt.n = shape.n = dim.n = 0;
    put_int(&dim, 1, 2);
    put_msg(&shape, 1, &dim);
    if (r->is_sequence)
        put_bytes(&tt, 1, NULL, 0); /* a type that says nothing */
    else
        put_int(&tt, 1, r->x_type);
    if (!r->is_sequence)
        put_msg(&tt, 2, &shape);
    put_msg(&t, r->is_sequence ? 4 : 1, &tt);
    put_text(&v, 1, name);
    if (!r->no_type)
        put_msg(&v, 2, &t);
    put_msg(g, field, &v);
}

static void put_entry(struct pb *t, const char *key, const char *value, size_t len)
{
    static struct pb e;

    e.n = 0;
    put_text(&e, 1, key);
    put_bytes(&e, 2, value, len);
    put_msg(t, 13, &e);
}

static void put_weight(struct pb *g, const struct recipe *r)
{
    static const float raw[2] = { 1.0f, 2.0f };
    static struct pb t;

    t.n = 0;
    put_int(&t, 1, r->w_dim);
    put_int(&t, 2, r->w_type ? r->w_type : 1);
    put_text(&t, 8, "w");
    for (size_t i = 0; i < r->n_w_values; i++)
        put_int(&t, r->w_field, r->w_values[i]); /* not packed: legal too */
    if (r->is_external) {
        put_int(&t, 14, 1);
        put_entry(&t, "location", r->location,
                  r->location_len ? r->location_len : strlen(r->location));
        put_entry(&t, "offset", r->offset, strlen(r->offset));
        put_entry(&t, "length", r->length, strlen(r->length));
    } else if (!r->w_type) {
        put_bytes(&t, 9, raw, (size_t)r->n_raw);
    }
    put_msg(g, 5, &t);
}

static void put_node(struct pb *g, const struct recipe *r)
{
    static struct pb n, a;

    n.n = a.n = 0;
    put_text(&n, 1, "x");
    put_text(&n, 1, r->input1);
    put_text(&n, 2, "y");
    put_text(&n, 3, "the_node");
    put_text(&n, 4, r->op);
    if (r->attribute) {
        put_text(&a, 1, r->attribute);
        put_int(&a, 3, 1);
        put_int(&a, 20, 2);
        put_msg(&n, 5, &a);
    }
    put_text(&n, 7, r->domain);
    put_msg(g, 1, &n);
    if (r->is_repeated)
        put_msg(g, 1, &n);
}

static void make_model(struct pb *m, const struct recipe *r)
{
    static struct pb g, set, empty;

    m->n = g.n = set.n = empty.n = 0;
    put_int(m, 1, r->ir);
    put_int(&set, 2, r->opset);
    put_msg(m, 8, &set);
    put_node(&g, r);
    put_text(&g, 2, "g");
    put_weight(&g, r);
    put_value_info(&g, 11, "x", r);
    put_value_info(&g, 12, "y", r);
    if (r->has_sparse)
        put_msg(&g, 15, &empty);
    if (r->has_function) {
        put_text(&empty, 1, "local_f");
        put_msg(m, 25, &empty);
    }
    put_msg(m, 7, &g);
}

/* ---- a directory to work in ---- */

static char g_dir[256];
static char g_path[300];

static int set_up(void **state)
{
    static const float data[4] = { 5, 6, 7, 8 };
    char path[300];
    ew_error err;

    (void)state;
    (void)snprintf(g_dir, sizeof(g_dir), "%s/u_onnx.%ld/in", EW_BINARY_DIR, (long)getpid());
    (void)snprintf(g_path, sizeof(g_path), "%s/model.onnx", g_dir);
    if (ew_dir_make(g_dir, &err))
        return -1;
    (void)snprintf(path, sizeof(path), "%s/w.bin", g_dir);
    if (ew_file_write(path, data, sizeof(data), &err))
        return -1;
    (void)snprintf(path, sizeof(path), "%s/../out.bin", g_dir);
    if (ew_file_write(path, data, sizeof(data), &err))
        return -1;
    (void)snprintf(path, sizeof(path), "%s/sub", g_dir);
    if (ew_dir_make(path, &err))
        return -1;
    (void)snprintf(path, sizeof(path), "%s/link.bin", g_dir);
    return symlink("w.bin", path);
}

static int tear_down(void **state)
{
    static const char *const names[] = { "in/w.bin", "in/link.bin", "in/model.onnx", "out.bin" };
    static const char *const dirs[] = { "in/sub", "in", "" };
    char path[400];

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        (void)snprintf(path, sizeof(path), "%s/u_onnx.%ld/%s", EW_BINARY_DIR, (long)getpid(),
                       names[i]);
        (void)unlink(path);
    }
    for (size_t i = 0; i < 3; i++) {
        (void)snprintf(path, sizeof(path), "%s/u_onnx.%ld/%s", EW_BINARY_DIR, (long)getpid(),
                       dirs[i]);
        (void)rmdir(path);
    }
    return 0;
}

static ew_status import_bytes(const void *bytes, size_t n, ew_error *err)
{
    ew_graph *g = NULL;

    *err = (ew_error){ 0 };
    FILE *f = fopen(g_path, "wb"); /* not ew_file_write: thousands of fsyncs */
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    const ew_status st = ew_graph_from_onnx(g_path, &g, err);
    assert_int_equal(st == EW_STATUS_OK, g != NULL);
    assert_null(strchr(err->text, '\n'));
    ew_graph_destroy(g);
    return st;
}

static void expect(const struct recipe *r, ew_status want, const char *text)
{
    static struct pb m;
    ew_error err;

    make_model(&m, r);
    const ew_status st = import_bytes(m.at, m.n, &err);
    if (st != want || (text && !strstr(err.text, text)))
        fail_msg("status %d, wanted %d with '%s'; text: %s", (int)st, (int)want, text ? text : "",
                 err.text);
}

/* ---- tests ---- */

static void test_good(void **state)
{
    struct recipe r = k_good;

    (void)state;
    expect(&r, EW_STATUS_OK, NULL);
    r.is_external = true;
    expect(&r, EW_STATUS_OK, NULL);
}

static void test_outside(void **state)
{
    static const char *const bad[] = { "../out.bin",     "/etc/hostname", "sub/../../out.bin",
                                       "sub/../w.bin",   "link.bin",      "sub",
                                       "nothing_is_here" };
    struct recipe r = k_good;

    (void)state;
    r.is_external = true;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        static struct pb m;
        ew_error err;
        r.location = bad[i];
        make_model(&m, &r);
        if (!import_bytes(m.at, m.n, &err))
            fail_msg("location '%s' was read", bad[i]);
        assert_non_null(strstr(err.text, "initializer 'w'"));
    }
    r.location = "w.bin\0/../../out.bin";
    r.location_len = 20;
    expect(&r, EW_STATUS_MALFORMED, "NUL");
    r.location = "";
    r.location_len = 0;
    expect(&r, EW_STATUS_MALFORMED, "location");
}

static void test_lying_offsets(void **state)
{
    static const char *const offsets[] = { "9",
                                           "16",
                                           "18446744073709551615",
                                           "9223372036854775807",
                                           "18446744073709551616",
                                           "-8",
                                           "0x8",
                                           "",
                                           " 8" };
    struct recipe r = k_good;

    (void)state;
    r.is_external = true;
    for (size_t i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
        r.offset = offsets[i];
        expect(&r, EW_STATUS_MALFORMED, "external data");
    }
    r.offset = "8";
    r.length = "4";
    expect(&r, EW_STATUS_MISMATCH, "length 4, the type needs 8");
    r.length = "99999999999999999999999";
    expect(&r, EW_STATUS_MALFORMED, "length");
    r.length = "1099511627776";
    r.w_dim = (uint64_t)1 << 38;
    expect(&r, EW_STATUS_MALFORMED, "outside file");
}

static void test_sizes(void **state)
{
    struct recipe r = k_good;

    (void)state;
    r.n_raw = 4;
    expect(&r, EW_STATUS_MISMATCH, "raw_data has 4 bytes, the type needs 8");
    r.n_raw = 8;
    r.w_dim = (uint64_t)1 << 62;
    expect(&r, EW_STATUS_MALFORMED, "address space");
    r.w_dim = UINT64_MAX; /* -1 */
    expect(&r, EW_STATUS_MALFORMED, "dim 0 is -1");
}

/* Values kept in wider fields: 16-bit floats, small integers, bools and nibbles in int32_data, u32
 * in uint64_data. */
static void test_typed(void **state)
{
    static const uint64_t f16[2] = { 0x3c00, 0xc000 }, i8[2] = { 5, UINT64_MAX },
                          u32[2] = { 7, 0xffffffffu }, bools[2] = { 1, 0 }, nibbles[1] = { 0xf3 },
                          bad_bool[2] = { 1, 2 };
    static const struct {
        uint64_t type;
        unsigned field;
        const uint64_t *values;
        size_t n, n_bytes;
        const char *bytes; /* NULL: refused */
    } cases[] = { { 10, 5, f16, 2, 4, "\x00\x3c\x00\xc0" },
                  { 3, 5, i8, 2, 2, "\x05\xff" },
                  { 12, 11, u32, 2, 8, "\x07\x00\x00\x00\xff\xff\xff\xff" },
                  { 9, 5, bools, 2, 2, "\x01\x00" },
                  { 21, 5, nibbles, 1, 1, "\xf3" },
                  { 9, 5, bad_bool, 2, 0, NULL },
                  { 10, 5, f16, 1, 0, NULL },
                  { 12, 5, u32, 2, 0, NULL } };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        static struct pb m;
        struct recipe r = k_good;
        ew_graph *g = NULL;
        ew_error err = { 0 };
        r.input1 = "x";
        r.w_type = cases[i].type;
        r.w_field = cases[i].field;
        r.w_values = cases[i].values;
        r.n_w_values = cases[i].n;
        make_model(&m, &r);
        assert_int_equal(ew_file_write(g_path, m.at, m.n, &err), EW_STATUS_OK);
        const ew_status st = ew_graph_from_onnx(g_path, &g, &err);
        if ((st == EW_STATUS_OK) != (cases[i].bytes != NULL))
            fail_msg("case %zu: status %d, %s", i, (int)st, err.text);
        if (g)
            assert_memory_equal(ew_graph_find(g, "w")->con.data, cases[i].bytes, cases[i].n_bytes);
        ew_graph_destroy(g);
    }
}

static void test_refusals(void **state)
{
    struct recipe r = k_good;

    (void)state;
    r.op = "NoSuchOp";
    expect(&r, EW_STATUS_UNSUPPORTED, "node 'the_node' (NoSuchOp)");
    r.op = "Linear"; /* of our table, but no ONNX op */
    expect(&r, EW_STATUS_UNSUPPORTED, "op Linear");
    r = k_good;
    r.attribute = "broadcast";
    expect(&r, EW_STATUS_UNSUPPORTED, "attribute broadcast");
    r = k_good;
    r.domain = "com.example";
    expect(&r, EW_STATUS_UNSUPPORTED, "com.example::Add");
    r = k_good;
    r.ir = 15;
    expect(&r, EW_STATUS_UNSUPPORTED, "IR version 15");
    r = k_good;
    r.opset = 1000;
    expect(&r, EW_STATUS_UNSUPPORTED, "opset 1000");
    r = k_good;
    r.x_type = 8;
    expect(&r, EW_STATUS_UNSUPPORTED, "STRING");
    r = k_good;
    r.is_sequence = true;
    expect(&r, EW_STATUS_UNSUPPORTED, "a sequence");
    r = k_good;
    r.has_function = true;
    expect(&r, EW_STATUS_UNSUPPORTED, "local_f");
    r = k_good;
    r.has_sparse = true;
    expect(&r, EW_STATUS_UNSUPPORTED, "sparse");
}

static void test_structure(void **state)
{
    struct recipe r = k_good;

    (void)state;
    r.input1 = "ghost";
    expect(&r, EW_STATUS_MALFORMED, "'ghost' is not defined");
    r.input1 = "y"; /* its own output: a cycle */
    expect(&r, EW_STATUS_MALFORMED, "'y' is not defined");
    r = k_good;
    r.is_repeated = true;
    expect(&r, EW_STATUS_MALFORMED, "'y' is defined twice");
    r = k_good;
    r.no_type = true;
    expect(&r, EW_STATUS_MALFORMED, "has no type");
}

/* The plugin is known by its name in every domain; a model of the old contract is refused by what
 * it lacks. */
static void test_plugins(void **state)
{
    static const char *const domains[] = { "", "trt", "trt_edgellm", "anything" };
    struct recipe r = k_good;

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        r.domain = domains[i];
        r.op = "AttentionPlugin";
        expect(&r, EW_STATUS_UNSUPPORTED, "num_q_heads");
        r.op = "Int4GroupwiseGemmPlugin";
        expect(&r, EW_STATUS_UNSUPPORTED, "gemm_n");
    }
}

static void test_truncated(void **state)
{
    static struct pb m;
    ew_error err;

    (void)state;
    make_model(&m, &k_good);
    for (size_t n = 0; n < m.n; n++)
        if (!import_bytes(m.at, n, &err))
            fail_msg("%zu of %zu bytes were read as a model", n, m.n);
}

static void test_flipped(void **state)
{
    static struct pb m;
    struct recipe r = k_good;
    ew_error err;

    (void)state;
    r.is_external = true;
    r.attribute = "axis";
    make_model(&m, &r);
    for (size_t i = 0; i < m.n * 8; i++) { /* any verdict, no crash */
        m.at[i / 8] ^= (uint8_t)(1u << (i % 8));
        (void)import_bytes(m.at, m.n, &err);
        m.at[i / 8] ^= (uint8_t)(1u << (i % 8));
    }
}

/* Types nested far deeper than a recursive unpacker's stack. */
static void test_depth(void **state)
{
    enum { N = 20000 };
    static uint8_t bytes[16 * N];
    size_t at = sizeof(bytes), len = 0;
    ew_error err;

    (void)state;
    for (int i = 0; i < N; i++) { /* from the inside out: elem_type (1) in sequence_type (4) */
        static struct pb head;
        head.n = 0;
        put_varint(&head, (i % 2 ? 4u : 1u) << 3 | 2u);
        put_varint(&head, len);
        at -= head.n;
        memcpy(bytes + at, head.at, head.n);
        len += head.n;
    }
    const struct {
        unsigned field;
    } outer[] = { { 2 }, { 11 }, { 7 } }; /* type in value info in graph in model */
    for (size_t i = 0; i < 3; i++) {
        static struct pb head;
        head.n = 0;
        put_varint(&head, outer[i].field << 3 | 2u);
        put_varint(&head, len);
        at -= head.n;
        memcpy(bytes + at, head.at, head.n);
        len += head.n;
    }
    assert_int_equal(import_bytes(bytes + at, len, &err), EW_STATUS_LIMIT);
    assert_non_null(strstr(err.text, "deep"));
}

/* Empty submessages cost two bytes in the file and hundreds in memory. */
static void test_memory(void **state)
{
    enum { N = 300000 };
    static uint8_t bytes[2 * N + 16];
    static struct pb head;
    ew_error err;

    (void)state;
    head.n = 0;
    put_varint(&head, 7u << 3 | 2u);
    put_varint(&head, 2 * N);
    memcpy(bytes, head.at, head.n);
    for (size_t i = 0; i < N; i++) {
        bytes[head.n + 2 * i] = 1u << 3 | 2u; /* GraphProto.node */
        bytes[head.n + 2 * i + 1] = 0;
    }
    assert_int_not_equal(import_bytes(bytes, head.n + 2 * N, &err), EW_STATUS_OK);
    assert_non_null(strstr(err.text, "unpacks to more than"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),          cmocka_unit_test(test_outside),
        cmocka_unit_test(test_lying_offsets), cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_refusals),      cmocka_unit_test(test_structure),
        cmocka_unit_test(test_plugins),       cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_flipped),       cmocka_unit_test(test_depth),
        cmocka_unit_test(test_memory),        cmocka_unit_test(test_typed),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

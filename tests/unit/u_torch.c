/* ew-layers: base os cpu tensor op kernels graph checkpoint
 * Files of torch.save: the same tensors as the safetensors twin of each, what is refused of others,
 * and lying pickles and zip files. tests/golden/torch/generate.py made the files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/mem.h"
#include "checkpoint/safetensors.h"
#include "os/os.h"

#define GOLDEN EW_SOURCE_DIR "/tests/golden/torch/"

/* Reads every byte, so that sanitizers see one too many. */
static unsigned touch(const struct ew_safetensors *st)
{
    unsigned sum = 0;

    for (size_t i = 0; i < ew_safetensors_count(st); i++) {
        const struct ew_st_tensor *t = ew_safetensors_at(st, i);

        for (size_t k = 0; k < t->bytes; k++)
            sum += ((const uint8_t *)t->data)[k];
    }
    return sum;
}

/* An exact heap copy of the bytes must give this status, naming `word`. */
static void expect(const void *bytes, size_t len, const char *title, ew_status want,
                   const char *word)
{
    char *exact = ew_mem_alloc(EW_MEM_MISC, len);
    struct ew_safetensors *st = NULL;
    ew_error err = { 0 };
    ew_status s;

    if (len)
        memcpy(exact, bytes, len);
    s = ew_safetensors_parse_torch(exact, len, "f.bin", &st, &err);
    if (s != want || (word && !strstr(err.text, word)))
        fail_msg("%s: status %d '%s', wanted %d with '%s'", title, s, err.text, want, word);
    if (!s) {
        (void)touch(st);
        ew_safetensors_close(st);
    }
    ew_mem_free(exact);
}

/* ---- the files of generate.py ---- */

static void expect_twin(const struct ew_safetensors *st)
{
    struct ew_safetensors *twin;
    ew_error err = { 0 };

    assert_int_equal(ew_safetensors_open(GOLDEN "twin.safetensors", &twin, &err), EW_STATUS_OK);
    assert_int_equal(ew_safetensors_count(st), ew_safetensors_count(twin));
    for (size_t i = 0; i < ew_safetensors_count(twin); i++) {
        const struct ew_st_tensor *b = ew_safetensors_at(twin, i);
        const struct ew_st_tensor *a = ew_safetensors_find(st, b->name);

        if (!a || !ew_type_equal(&a->type, &b->type) || a->bytes != b->bytes ||
            (a->bytes && memcmp(a->data, b->data, a->bytes) != 0))
            fail_msg("tensor '%s' differs from its twin", b->name);
    }
    ew_safetensors_close(twin);
}

static void same_as_twin(void **state)
{
    static const char *const dirs[] = { GOLDEN, GOLDEN "sharded" };
    struct ew_safetensors *st;
    const struct ew_st_tensor *a, *b;
    ew_error err = { 0 };
    char *bytes;
    size_t len;

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        if (ew_safetensors_open_dir(dirs[i], &st, &err))
            fail_msg("%s", err.text);
        expect_twin(st);
        ew_safetensors_close(st);
    }
    assert_int_equal(ew_file_read(GOLDEN "protocol4.bin", 1 << 20, &bytes, &len, &err),
                     EW_STATUS_OK);
    assert_int_equal(ew_safetensors_parse_torch(bytes, len, "f.bin", &st, &err), EW_STATUS_OK);
    expect_twin(st);
    /* tied weights are one range of the file, a part of a storage is no copy of it */
    a = ew_safetensors_find(st, "view.whole");
    b = ew_safetensors_find(st, "view.tied");
    assert_ptr_equal(a->data, b->data);
    b = ew_safetensors_find(st, "view.rows");
    assert_ptr_equal((const char *)a->data + 2 * 8 * 4, b->data);
    b = ew_safetensors_find(st, "view.one");
    assert_ptr_equal((const char *)a->data + (3 * 8 + 5) * 4, b->data);
    b = ew_safetensors_find(st, "view.transposed");
    assert_true((const char *)b->data < bytes || (const char *)b->data >= bytes + len);
    ew_safetensors_close(st);
    ew_mem_free(bytes);
}

static void other_contents(void **state)
{
    static const struct {
        const char *file;
        ew_status want;
        const char *word;
    } cases[] = {
        { "module.bin", EW_STATUS_OK, NULL },
        { "legacy.bin", EW_STATUS_UNSUPPORTED, "before torch 1.6" },
        { "bad_nested.bin", EW_STATUS_UNSUPPORTED, "'bad.nested' is a dict" },
        { "bad_number.bin", EW_STATUS_UNSUPPORTED, "'bad.number' is an int" },
        { "bad_real.bin", EW_STATUS_UNSUPPORTED, "'bad.real' is a float" },
        { "bad_list.bin", EW_STATUS_UNSUPPORTED, "'bad.list' is a list" },
        { "bad_none.bin", EW_STATUS_UNSUPPORTED, "'bad.none' is None" },
        { "bad_text.bin", EW_STATUS_UNSUPPORTED, "'bad.text' is a string" },
        { "bad_root.bin", EW_STATUS_UNSUPPORTED, "holds a tensor" },
        { "bad_complex.bin", EW_STATUS_UNSUPPORTED, "'torch.ComplexFloatStorage'" },
        { "twin.safetensors", EW_STATUS_MALFORMED, "no end of a zip file" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char path[4096], *bytes;
        size_t len;

        snprintf(path, sizeof(path), "%s%s", GOLDEN, cases[i].file);
        assert_int_equal(ew_file_read(path, 1 << 20, &bytes, &len, NULL), EW_STATUS_OK);
        expect(bytes, len, cases[i].file, cases[i].want, cases[i].word);
        ew_mem_free(bytes);
    }
}

/* ---- a zip writer that can lie ---- */

static void put_le(struct ew_buf *b, uint64_t v, int n_bytes)
{
    for (int i = 0; i < n_bytes; i++)
        ew_buf_putc(b, (char)(i < 8 ? v >> (8 * i) : 0));
}

struct entry {
    const char *name;
    const void *data;
    size_t len;
    uint32_t flags, method;
    uint64_t begin, bytes; /* what the directory says, if not 0 */
};

#define ZIP64 1 /* all sizes and places in the 64-bit fields */

static void put_central(struct ew_buf *z, const struct entry *e, size_t begin, int options)
{
    const uint64_t bytes = e->bytes ? e->bytes : e->len, at = e->begin ? e->begin : begin;
    const bool wide = options & ZIP64;

    put_le(z, 0x02014b50, 4);
    put_le(z, 0, 4);
    put_le(z, e->flags, 2);
    put_le(z, e->method, 2);
    put_le(z, 0, 8);
    put_le(z, wide ? UINT32_MAX : bytes, 4);
    put_le(z, wide ? UINT32_MAX : bytes, 4);
    put_le(z, strlen(e->name), 2);
    put_le(z, wide ? 5 + 28 : 0, 2);
    put_le(z, 0, 2 + 2 + 2 + 4);
    put_le(z, wide ? UINT32_MAX : at, 4);
    ew_buf_puts(z, e->name);
    if (wide) {
        put_le(z, 0x9999, 2); /* somebody else's field comes first */
        put_le(z, 1, 2);
        put_le(z, 0, 1);
        put_le(z, 1, 2);
        put_le(z, 24, 2);
        put_le(z, bytes, 8);
        put_le(z, bytes, 8);
        put_le(z, at, 8);
    }
}

static void put_zip(struct ew_buf *z, const struct entry *e, size_t n, int options)
{
    size_t begin[8], dir, end;

    ew_buf_init(z, EW_MEM_MISC, 1 << 20);
    for (size_t i = 0; i < n; i++) {
        begin[i] = z->len;
        put_le(z, 0x04034b50, 4);
        put_le(z, 0, 4 + 2 + 8 + 8); /* as with a descriptor behind the data: no sizes here */
        put_le(z, strlen(e[i].name), 2);
        put_le(z, 0, 2);
        ew_buf_puts(z, e[i].name);
        ew_buf_append(z, e[i].data, e[i].len);
    }
    dir = z->len;
    for (size_t i = 0; i < n; i++)
        put_central(z, &e[i], begin[i], options);
    end = z->len;
    if (options & ZIP64) {
        put_le(z, 0x06064b50, 4);
        put_le(z, 44, 8);
        put_le(z, 0, 4 + 8);
        put_le(z, n, 8);
        put_le(z, n, 8);
        put_le(z, end - dir, 8);
        put_le(z, dir, 8);
        put_le(z, 0x07064b50, 4);
        put_le(z, 0, 4);
        put_le(z, end, 8);
        put_le(z, 1, 4);
    }
    put_le(z, 0x06054b50, 4);
    put_le(z, 0, 4);
    put_le(z, options & ZIP64 ? 0xffff : n, 2);
    put_le(z, options & ZIP64 ? 0xffff : n, 2);
    put_le(z, options & ZIP64 ? UINT32_MAX : end - dir, 4);
    put_le(z, options & ZIP64 ? UINT32_MAX : dir, 4);
    put_le(z, 0, 2);
    assert_false(z->failed);
}

static void expect_zip(const struct entry *e, size_t n, int options, const char *title,
                       ew_status want, const char *word)
{
    struct ew_buf z;

    put_zip(&z, e, n, options);
    expect(z.data, z.len, title, want, word);
    ew_buf_deinit(&z);
}

#define EMPTY               "\x80\2}."
#define ENTRY(name_, data_) .name = (name_), .data = (data_), .len = sizeof(data_) - 1
#define PICKLE              ENTRY("x/data.pkl", EMPTY)

static void zips(void **state)
{
    static const struct entry good[] = { { PICKLE }, { ENTRY("x/byteorder", "little") } };
    static const struct entry big[] = { { PICKLE }, { ENTRY("x/byteorder", "big") } };
    static const struct entry deep[] = { { ENTRY("x/y/data.pkl", EMPTY) } };
    static const struct entry twice[] = { { PICKLE }, { ENTRY("y/data.pkl", EMPTY) } };
    static const struct entry same[] = { { PICKLE }, { PICKLE } };
    static const struct entry none[] = { { ENTRY("x/version", "3\n") } };
    static const struct entry packed[] = { { PICKLE, .method = 8 } };
    static const struct entry secret[] = { { PICKLE, .flags = 1 } };
    static const struct entry beyond[] = { { PICKLE, .begin = 1 << 20 } };
    static const struct entry long_entry[] = { { PICKLE, .bytes = 5 } };
    static const struct entry overlap[] = { { PICKLE, .bytes = 8 }, { ENTRY("x/version", "3\n") } };
    static const struct entry elsewhere[] = { { PICKLE },
                                              { ENTRY("x/version", "3\n"), .begin = 1 } };
    static const struct entry alias[] = { { ENTRY("x/version", "3\n") }, { PICKLE, .begin = 0 } };
    static const struct entry huge[] = { { PICKLE, .bytes = UINT64_MAX } };
    static const struct entry far[] = { { PICKLE, .begin = UINT64_MAX - 29 } };

    (void)state;
    expect_zip(good, 2, 0, "good", EW_STATUS_OK, NULL);
    expect_zip(good, 2, ZIP64, "good64", EW_STATUS_OK, NULL);
    expect_zip(big, 2, 0, "big", EW_STATUS_UNSUPPORTED, "'big'");
    expect_zip(deep, 1, 0, "deep", EW_STATUS_MALFORMED, "without data.pkl");
    expect_zip(twice, 2, 0, "twice", EW_STATUS_MALFORMED, "more than one data.pkl");
    expect_zip(same, 2, 0, "same", EW_STATUS_MALFORMED, "'x/data.pkl' is there twice");
    expect_zip(none, 1, 0, "none", EW_STATUS_MALFORMED, "without data.pkl");
    expect_zip(none, 0, 0, "nothing", EW_STATUS_MALFORMED, "without data.pkl");
    expect_zip(packed, 1, 0, "packed", EW_STATUS_UNSUPPORTED, "'x/data.pkl' is compressed");
    expect_zip(secret, 1, 0, "secret", EW_STATUS_UNSUPPORTED, "'x/data.pkl' is encrypted");
    expect_zip(beyond, 1, 0, "beyond", EW_STATUS_MALFORMED, "does not begin at byte 1048576");
    expect_zip(long_entry, 1, 0, "long", EW_STATUS_MALFORMED, "is 5 bytes at byte 0");
    expect_zip(overlap, 2, 0, "overlap", EW_STATUS_MALFORMED, "'x/version' begins at byte");
    expect_zip(elsewhere, 2, 0, "elsewhere", EW_STATUS_MALFORMED, "'x/version' does not begin");
    expect_zip(alias, 2, 0, "alias", EW_STATUS_OK, NULL);
    expect_zip(huge, 1, ZIP64, "huge", EW_STATUS_MALFORMED, "18446744073709551615 bytes");
    expect_zip(far, 1, ZIP64, "far", EW_STATUS_MALFORMED, "does not begin at byte");
}

/* Two records of the directory for one place in the file: the names would have to differ. */
static void shared_bytes(void **state)
{
    static const struct entry e[] = { { ENTRY("x/version", "3\n") }, { PICKLE } };
    struct ew_buf z;
    size_t i;

    (void)state;
    put_zip(&z, e, 2, 0);
    for (i = 0; memcmp(z.data + i, "PK\1\2", 4) != 0; i++)
        ;
    z.data[i + 46 + 9 + 42] = 0; /* where data.pkl begins */
    expect(z.data, z.len, "shared", EW_STATUS_MALFORMED, "another name");
    ew_buf_deinit(&z);
}

/* ---- pickles ---- */

static void expect_pickle(const void *pickle, size_t len, ew_status want, const char *word)
{
    const struct entry e[] = { { .name = "x/data.pkl", .data = pickle, .len = len } };

    expect_zip(e, 1, 0, word ? word : "pickle", want, word);
}

#define P(text) text, sizeof(text) - 1

static void pickles(void **state)
{
    (void)state;
    expect_pickle(P("\x80\2}."), EW_STATUS_OK, NULL);
    expect_pickle(P("\x80\4\x95\2\0\0\0\0\0\0\0}."), EW_STATUS_OK, NULL);
    expect_pickle(P("\x80\2}N0(KKKK1."), EW_STATUS_OK, NULL);
    expect_pickle(P("\x80\2"
                    "ccollections\nOrderedDict\n)R}b."),
                  EW_STATUS_OK, NULL);
    /* what pickles are feared for */
    expect_pickle(P("\x80\2"
                    "cos\nsystem\nX\2\0\0\0ls\x85R."),
                  EW_STATUS_UNSUPPORTED,
                  "f.bin: pickle asks for 'os.system': only tensors are read");
    expect_pickle(P("\x80\2"
                    "c__builtin__\neval\nX\2\0\0\0ls\x85R."),
                  EW_STATUS_UNSUPPORTED, "'__builtin__.eval'");
    expect_pickle(P("\x80\4\x8c\10builtins\x8c\4eval\x93\x8c\1x\x85R."), EW_STATUS_UNSUPPORTED,
                  "'builtins.eval'");
    expect_pickle(P("\x80\2"
                    "cposix\nsystem\n0}."),
                  EW_STATUS_UNSUPPORTED, "'posix.system'");
    expect_pickle(P("\x80\2ctorch\nload\n."), EW_STATUS_UNSUPPORTED, "'torch.load'");
    expect_pickle(P("\x80\2ctorch._utils.\n_rebuild_tensor_v2\n."), EW_STATUS_UNSUPPORTED,
                  "'torch._utils.._rebuild");
    expect_pickle(P("\x80\2(ios\nsystem\n."), EW_STATUS_UNSUPPORTED, "opcode 0x69");
    expect_pickle(P("\x80\2(N)\x81."), EW_STATUS_UNSUPPORTED, "opcode 0x81");
    expect_pickle(P("\x80\2\x82\1."), EW_STATUS_UNSUPPORTED, "opcode 0x82");
    expect_pickle(P("\x80\1}."), EW_STATUS_UNSUPPORTED, "protocol 1");
    expect_pickle(P("\x80\6}."), EW_STATUS_UNSUPPORTED, "protocol 6");
    /* pickles that are none */
    expect_pickle(P(""), EW_STATUS_MALFORMED, "no end");
    expect_pickle(P("\x80"), EW_STATUS_MALFORMED, "cut short");
    expect_pickle(P("\x80\2}"), EW_STATUS_MALFORMED, "no end");
    expect_pickle(P("\x80\2."), EW_STATUS_MALFORMED, "too few");
    expect_pickle(P("\x80\2}}."), EW_STATUS_MALFORMED, "leaves values");
    expect_pickle(P("\x80\2}.}"), EW_STATUS_MALFORMED, "behind it");
    expect_pickle(P("\x80\2(."), EW_STATUS_MALFORMED, "mark");
    expect_pickle(P("\x80\2t."), EW_STATUS_MALFORMED, "no mark");
    expect_pickle(P("\x80\2(\x85."), EW_STATUS_MALFORMED, "mark");
    expect_pickle(P("\x80\2(q\0."), EW_STATUS_MALFORMED, "mark");
    expect_pickle(P("\x80\2}(Nu."), EW_STATUS_MALFORMED, "key without");
    expect_pickle(P("\x80\2N(NNu."), EW_STATUS_MALFORMED, "than a dict");
    expect_pickle(P("\x80\2(NNu."), EW_STATUS_MALFORMED, "than a dict");
    expect_pickle(P("\x80\2NNs."), EW_STATUS_MALFORMED, "than a dict");
    expect_pickle(P("\x80\2}Na."), EW_STATUS_MALFORMED, "than a list");
    expect_pickle(P("\x80\2(Ne."), EW_STATUS_MALFORMED, "than a list");
    expect_pickle(P("\x80\2NQ."), EW_STATUS_MALFORMED, "than a tuple");
    expect_pickle(P("\x80\2N)R."), EW_STATUS_MALFORMED, "no function");
    expect_pickle(P("\x80\2N}b."), EW_STATUS_MALFORMED, "state");
    expect_pickle(P("\x80\2NN\x93."), EW_STATUS_MALFORMED, "than text");
    expect_pickle(P("\x80\2"
                    "ctorch._utils\n_rebuild_parameter\nNNN\x87R."),
                  EW_STATUS_MALFORMED, "parameter");
    expect_pickle(P("\x80\2"
                    "ccollections\nOrderedDict\n]\x85R."),
                  EW_STATUS_MALFORMED, "OrderedDict");
    expect_pickle(P("\x80\2X\xff\xff\xff\xffx."), EW_STATUS_MALFORMED, "cut short");
    expect_pickle(P("\x80\2\x8d\xff\xff\xff\xff\xff\xff\xff\xffx."), EW_STATUS_MALFORMED,
                  "cut short");
    expect_pickle(P("\x80\4\x95\xff\xff\xff\xff\xff\xff\xff\xff}."), EW_STATUS_MALFORMED,
                  "cut short");
    expect_pickle(P("\x80\2ccollections"), EW_STATUS_MALFORMED, "cut short");
    expect_pickle(P("\x80\2G\1\2\3."), EW_STATUS_MALFORMED, "cut short");
    expect_pickle(P("\x80\2\x8a\x09\1\1\1\1\1\1\1\1\1."), EW_STATUS_MALFORMED, "64 bits");
    /* a memo that would take gigabytes; things that were never put there */
    expect_pickle(P("\x80\2}r\xff\xff\xff\xff."), EW_STATUS_MALFORMED, "memo");
    expect_pickle(P("\x80\2}q\3h\2."), EW_STATUS_MALFORMED, "memo");
    expect_pickle(P("\x80\2}h\0."), EW_STATUS_MALFORMED, "memo");
    /* dicts that hold themselves and tuples of tuples: nothing here recurses */
    expect_pickle(P("\x80\2}q\0X\1\0\0\0ah\0s."), EW_STATUS_UNSUPPORTED, "'a' is a dict");
    expect_pickle(P("\x80\2}K\1Ns."), EW_STATUS_UNSUPPORTED, "is an int, not a name");
    expect_pickle(P("\x80\2}X\2\0\0\0a\0Ns."), EW_STATUS_MALFORMED, "NUL");
}

static void deep_pickle(void **state)
{
    struct ew_buf b;

    (void)state;
    ew_buf_init(&b, EW_MEM_MISC, 1 << 20);
    ew_buf_puts(&b, "\x80\2N");
    for (int i = 0; i < 100000; i++)
        ew_buf_putc(&b, '\x85');
    ew_buf_putc(&b, '.');
    expect_pickle(b.data, b.len, EW_STATUS_UNSUPPORTED, "holds a tuple");
    ew_buf_deinit(&b);
}

/* ---- tensors ---- */

struct tensor { /* of f32, in a storage of 6 */
    int64_t count, offset, size[2], stride[2];
    const char *key;
};

static void put_int(struct ew_buf *b, int64_t v)
{
    ew_buf_append(b, "\x8a\10", 2);
    put_le(b, (uint64_t)v, 8);
}

static void put_tensor(struct ew_buf *b, const struct tensor *t)
{
    ew_buf_puts(b, "X\1");
    put_le(b, 0, 3);
    ew_buf_puts(b, "actorch._utils\n_rebuild_tensor_v2\n((\x8c\7storagectorch\nFloatStorage\n\x8c");
    put_le(b, strlen(t->key), 1);
    ew_buf_puts(b, t->key);
    ew_buf_puts(b, "\x8c\3cpu");
    put_int(b, t->count);
    ew_buf_puts(b, "tQ");
    put_int(b, t->offset);
    put_int(b, t->size[0]);
    put_int(b, t->size[1]);
    ew_buf_puts(b, "\x86");
    put_int(b, t->stride[0]);
    put_int(b, t->stride[1]);
    ew_buf_puts(b, "\x86\x89}tR");
}

static void expect_tensor(struct tensor t, int n, ew_status want, const char *word)
{
    static const float storage[6] = { 1, 2, 3, 4, 5, 6 };
    struct entry e[] = { { .name = "x/data.pkl" },
                         { .name = "x/data/0", .data = storage, .len = sizeof(storage) } };
    struct ew_buf b;

    ew_buf_init(&b, EW_MEM_MISC, 1 << 20);
    ew_buf_puts(&b, "\x80\2}(");
    for (int i = 0; i < n; i++)
        put_tensor(&b, &t);
    ew_buf_puts(&b, "u.");
    e[0].data = b.data;
    e[0].len = b.len;
    expect_zip(e, 2, 0, word ? word : "tensor", want, word);
    ew_buf_deinit(&b);
}

#define T(...) ((struct tensor){ __VA_ARGS__, "0" })
#define BIG    ((int64_t)1 << 62)

static void tensors(void **state)
{
    (void)state;
    expect_tensor(T(6, 0, { 2, 3 }, { 3, 1 }), 1, EW_STATUS_OK, NULL);
    expect_tensor(T(6, 0, { 3, 2 }, { 1, 3 }), 1, EW_STATUS_OK, NULL);
    expect_tensor(T(6, 5, { 1, 1 }, { INT64_MAX, 1 }), 1, EW_STATUS_OK, NULL);
    expect_tensor(T(6, 4, { 2, 1 }, { 1, INT64_MAX }), 1, EW_STATUS_OK, NULL);
    expect_tensor(T(6, 0, { 3, 1 }, { 2, INT64_MAX }), 1, EW_STATUS_OK, NULL);
    expect_tensor(T(6, 99, { 0, BIG }, { BIG, BIG }), 1, EW_STATUS_OK, NULL);
    expect_tensor(T(6, 0, { 2, 3 }, { 3, 1 }), 2, EW_STATUS_MALFORMED, "'a' is in f.bin too");
    expect_tensor(T(6, 1, { 2, 3 }, { 3, 1 }), 1, EW_STATUS_MALFORMED, "'a' f32[2,3] leads out");
    expect_tensor(T(6, 0, { 2, 3 }, { 4, 1 }), 1, EW_STATUS_MALFORMED, "leads out");
    expect_tensor(T(6, 6, { 1, 1 }, { 1, 1 }), 1, EW_STATUS_MALFORMED, "leads out");
    expect_tensor(T(6, INT64_MAX, { 1, 1 }, { 1, 1 }), 1, EW_STATUS_MALFORMED, "leads out");
    expect_tensor(T(6, INT64_MAX, { 2, 1 }, { 1, 1 }), 1, EW_STATUS_MALFORMED, "leads out");
    expect_tensor(T(6, 0, { 3, 1 }, { BIG, 1 }), 1, EW_STATUS_MALFORMED, "leads out");
    expect_tensor(T(6, -1, { 2, 3 }, { 3, 1 }), 1, EW_STATUS_MALFORMED, "offset");
    expect_tensor(T(6, 0, { -2, 3 }, { 3, 1 }), 1, EW_STATUS_MALFORMED, "counts");
    expect_tensor(T(6, 5, { 2, 3 }, { -3, 1 }), 1, EW_STATUS_MALFORMED, "counts");
    expect_tensor(T(6, 0, { BIG, 4 }, { 0, 0 }), 1, EW_STATUS_MALFORMED, "overflows");
    expect_tensor(T(6, 0, { BIG, 1 }, { 0, 0 }), 1, EW_STATUS_MALFORMED, "overflows");
    expect_tensor(T(5, 0, { 2, 3 }, { 3, 1 }), 1, EW_STATUS_MALFORMED, "24 bytes, not 5");
    expect_tensor(T(BIG, 0, { 2, 3 }, { 3, 1 }), 1, EW_STATUS_MALFORMED, "24 bytes");
    expect_tensor(T(-6, 0, { 2, 3 }, { 3, 1 }), 1, EW_STATUS_MALFORMED, "storage");
    /* one element seen a million million times */
    expect_tensor(T(6, 0, { 1000000, 1000000 }, { 0, 0 }), 1, EW_STATUS_LIMIT, "'a'");
    expect_tensor((struct tensor){ 6, 0, { 2, 3 }, { 3, 1 }, "1" }, 1, EW_STATUS_MALFORMED,
                  "no storage '1'");
    expect_tensor((struct tensor){ 6, 0, { 2, 3 }, { 3, 1 }, "../data.pkl" }, 1,
                  EW_STATUS_MALFORMED, "no storage '../data.pkl'");
}

/* ---- every truncation, every flipped bit, every failed allocation ---- */

static void read_seed(const char *name, char **bytes, size_t *len)
{
    char path[4096];

    snprintf(path, sizeof(path), "%s%s", GOLDEN, name);
    assert_int_equal(ew_file_read(path, 1 << 20, bytes, len, NULL), EW_STATUS_OK);
}

static void truncations(void **state)
{
    char *bytes;
    size_t len;

    (void)state;
    read_seed("module.bin", &bytes, &len);
    for (size_t n = 0; n < len; n++)
        expect(bytes, n, "truncated", EW_STATUS_MALFORMED, "no end of a zip file");
    ew_mem_free(bytes);
}

static void flips(void **state)
{
    char *bytes, *exact;
    size_t len, n_read = 0, n_refused = 0;

    (void)state;
    read_seed("../../fuzz/corpus/torch/views", &bytes, &len);
    exact = ew_mem_alloc(EW_MEM_MISC, len);
    for (size_t i = 0; i < len; i++) {
        for (int k = 0; k < 256; k++) {
            struct ew_safetensors *st;

            memcpy(exact, bytes, len);
            exact[i] = (char)k;
            if (ew_safetensors_parse_torch(exact, len, "f.bin", &st, NULL)) {
                n_refused++;
                continue;
            }
            n_read++;
            (void)touch(st);
            ew_safetensors_close(st);
        }
    }
    assert_true(n_read > len); /* flips in the data and in padding are none of our business */
    assert_true(n_refused > len);
    ew_mem_free(exact);
    ew_mem_free(bytes);
}

static void failing_memory(void **state)
{
    char *bytes;
    size_t len;
    ew_status s = EW_STATUS_NO_MEMORY;
    uint64_t k;

    (void)state;
    read_seed("pytorch_model.bin", &bytes, &len);
    for (k = 1; s == EW_STATUS_NO_MEMORY && k < 1000; k++) {
        const uint64_t before = ew_mem_tag_bytes(EW_MEM_CHECKPOINT);
        struct ew_safetensors *st;

        ew_mem_fail_at(k);
        s = ew_safetensors_parse_torch(bytes, len, "f.bin", &st, NULL);
        ew_mem_fail_at(0);
        if (!s)
            ew_safetensors_close(st);
        assert_int_equal(ew_mem_tag_bytes(EW_MEM_CHECKPOINT), before);
    }
    assert_int_equal(s, EW_STATUS_OK);
    assert_true(k > 10);
    ew_mem_free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_as_twin), cmocka_unit_test(other_contents),
        cmocka_unit_test(zips),         cmocka_unit_test(shared_bytes),
        cmocka_unit_test(pickles),      cmocka_unit_test(deep_pickle),
        cmocka_unit_test(tensors),      cmocka_unit_test(truncations),
        cmocka_unit_test(flips),        cmocka_unit_test(failing_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

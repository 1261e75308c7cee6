/* ew-layers: base os text
 * Tokenizer against Hugging Face tokenizers: small recorded tokenizers of each kind, and the
 * published vectors of two real ones where ../shared is present. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "base/json.h"
#include "os/os.h"
#include "text/tokenizer_internal.h"
#include "text/utf8.h"

#define GOLDEN EW_SOURCE_DIR "/tests/golden/tokenizers/"
#define SHARED EW_SOURCE_DIR "/../shared/"

static ew_tokenizer *load(const char *path)
{
    ew_tokenizer *t = NULL;
    ew_error err = { 0 };

    if (ew_tokenizer_load(path, &t, &err))
        fail_msg("%s", err.text);
    return t;
}

static void check_encode(const ew_tokenizer *t, const char *text, size_t len, uint32_t flags,
                         const json_t *want)
{
    int32_t *ids;
    size_t n;

    assert_int_equal(ew_tokenizer_encode(t, text, len, flags, &ids, &n, NULL), EW_STATUS_OK);
    if (n != json_array_size(want))
        fail_msg("%s: %zu ids, not %zu", text, n, json_array_size(want));
    for (size_t i = 0; i < n; i++) {
        if (ids[i] != json_integer_value(json_array_get(want, i)))
            fail_msg("%s: id %zu is %d, not %d", text, i, ids[i],
                     (int)json_integer_value(json_array_get(want, i)));
    }
    ew_tokens_free(ids);
}

static void check_decode(const ew_tokenizer *t, const int32_t *ids, size_t n, bool skip,
                         const char *want)
{
    char *text;
    size_t len;
    ew_decoder *d;
    struct ew_buf all;
    const char *part;
    size_t part_len;

    assert_int_equal(ew_tokenizer_decode(t, ids, n, skip, &text, &len, NULL), EW_STATUS_OK);
    if (want)
        assert_string_equal(text, want);
    ew_buf_init(&all, EW_MEM_TEXT, 1u << 24);
    assert_int_equal(ew_decoder_create(t, skip, &d, NULL), EW_STATUS_OK);
    for (size_t i = 0; i <= n; i++) {
        assert_int_equal(i < n ? ew_decoder_push(d, ids[i], &part, &part_len)
                               : ew_decoder_finish(d, &part, &part_len),
                         EW_STATUS_OK);
        assert_true(ew_utf8_is_valid(part, part_len));
        ew_buf_append(&all, part, part_len);
    }
    assert_int_equal(all.len, len);
    assert_memory_equal(all.data ? all.data : "", text, len);
    ew_buf_deinit(&all);
    ew_decoder_destroy(d);
    ew_string_free(text);
}

static void check_golden(const char *name)
{
    char path[512];
    json_t *rows;
    const json_t *row;
    size_t i;
    ew_tokenizer *t;

    snprintf(path, sizeof(path), "%s%s.json", GOLDEN, name);
    t = load(path);
    snprintf(path, sizeof(path), "%s%s.vectors", GOLDEN, name);
    assert_int_equal(ew_json_load(path, 1u << 24, &rows, NULL), EW_STATUS_OK);
    assert_true(json_array_size(rows) >= 50);
    json_array_foreach(rows, i, row)
    {
        const json_t *text = json_object_get(row, "text");
        const json_t *list = json_object_get(row, "decode");
        int32_t ids[512];
        size_t n = json_array_size(list);

        check_encode(t, json_string_value(text), json_string_length(text), EW_ENCODE_SPECIAL,
                     json_object_get(row, "ids"));
        check_encode(t, json_string_value(text), json_string_length(text),
                     EW_ENCODE_SPECIAL | EW_ENCODE_ADD_BOS, json_object_get(row, "bos"));
        assert_true(n < 512);
        for (size_t k = 0; k < n; k++)
            ids[k] = (int32_t)json_integer_value(json_array_get(list, k));
        check_decode(t, ids, n, false, json_string_value(json_object_get(row, "whole")));
        check_decode(t, ids, n, true, json_string_value(json_object_get(row, "plain")));
        for (size_t k = 0; k < n; k++)
            check_decode(t, ids, k, false, NULL);
    }
    json_decref(rows);
    ew_tokenizer_destroy(t);
}

static void test_golden(void **state)
{
    (void)state;
    check_golden("llama2-like");
    check_golden("gemma-like");
    check_golden("gpt2-like");
    check_golden("nemo-like");
    check_golden("metaspace");
    check_golden("suffixed");
}

/* Texts between marks, and a line of ids for each. */
static void check_published(const char *tokenizer, const char *vectors)
{
    static const char mark[] = "\n__ggml_vocab_test__\n";
    char path[512];
    char *inp;
    char *out;
    size_t inp_len;
    size_t out_len;
    ew_tokenizer *t;
    unsigned n_texts = 0;

    snprintf(path, sizeof(path), SHARED "tokenizers/%s", tokenizer);
    if (!ew_path_is_dir(path)) {
        print_message("skipped: %s is not here\n", path);
        return;
    }
    t = load(path);
    snprintf(path, sizeof(path), SHARED "reference/tokenizer-vectors/%s.inp", vectors);
    assert_int_equal(ew_file_read(path, 1u << 20, &inp, &inp_len, NULL), EW_STATUS_OK);
    snprintf(path, sizeof(path), SHARED "reference/tokenizer-vectors/%s.out", vectors);
    assert_int_equal(ew_file_read(path, 1u << 20, &out, &out_len, NULL), EW_STATUS_OK);
    for (char *text = inp, *line = out; text; n_texts++) {
        char *end = strstr(text, mark);
        char *end_line = strchr(line, '\n');
        char json[4096] = "[";
        json_t *want;

        if (end)
            *end = 0;
        if (end_line)
            *end_line = 0;
        for (size_t i = 0; line[i]; i++) {
            const size_t n = strlen(json);
            const bool between = line[i] == ' ' && n > 1 && line[i + 1];

            json[n] = between ? ',' : line[i];
        }
        json[strlen(json)] = ']';
        want = json_loads(json, 0, NULL);
        assert_non_null(want);
        check_encode(t, text, strlen(text), EW_ENCODE_SPECIAL, want);
        json_decref(want);
        text = end ? end + strlen(mark) : NULL;
        line = end_line ? end_line + 1 : line + strlen(line);
    }
    assert_int_equal(n_texts, 47);
    ew_mem_free(inp);
    ew_mem_free(out);
    ew_tokenizer_destroy(t);
}

static void test_published(void **state)
{
    (void)state;
    check_published("Qwen3-0.6B", "ggml-vocab-qwen2.gguf");
    check_published("Llama-3.2-3B-Instruct", "ggml-vocab-llama-bpe.gguf");
}

/* a, b, ab, <s> (special), <t> (not special). */
static const char small[] =
    "{\"added_tokens\":[{\"id\":3,\"content\":\"<s>\",\"special\":true,\"normalized\":false},"
    "{\"id\":4,\"content\":\"<t>\",\"special\":false,\"normalized\":false}],"
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"<\":5,\"s\":6,\">\":7},"
    "\"merges\":[\"a b\"]}}";

static ew_tokenizer *parse(const char *json)
{
    ew_tokenizer *t = NULL;
    ew_error err = { 0 };

    if (ew_tokenizer_parse(json, strlen(json), NULL, 0, &t, &err))
        fail_msg("%s", err.text);
    return t;
}

static void check_spans(const ew_tokenizer *t, const char *text, size_t begin, size_t end,
                        const char *want)
{
    const ew_text_span span = { begin, end };
    json_t *list = json_loads(want, 0, NULL);
    int32_t *ids;
    size_t n;

    assert_int_equal(ew_tokenizer_encode_spans(t, text, strlen(text), 0, &span, 1, &ids, &n, NULL),
                     EW_STATUS_OK);
    assert_int_equal(n, json_array_size(list));
    for (size_t i = 0; i < n; i++)
        assert_int_equal(ids[i], json_integer_value(json_array_get(list, i)));
    ew_tokens_free(ids);
    json_decref(list);
}

static void test_spans(void **state)
{
    ew_tokenizer *t = parse(small);
    json_t *as_token = json_loads("[2,3,4,0]", 0, NULL);
    json_t *as_text = json_loads("[2,5,6,7,4,0]", 0, NULL);
    const ew_text_span bad = { 2, 9 };
    int32_t *ids;
    size_t n;

    (void)state;
    check_encode(t, "ab<s><t>a", 9, EW_ENCODE_SPECIAL, as_token);
    check_encode(t, "ab<s><t>a", 9, 0, as_text);
    check_spans(t, "ab<s><t>a", 0, 0, "[2,3,4,0]");
    check_spans(t, "ab<s><t>a", 2, 5, "[2,5,6,7,4,0]"); /* inside */
    check_spans(t, "ab<s><t>a", 0, 3, "[2,5,6,7,4,0]"); /* straddles the end */
    check_spans(t, "ab<s><t>a", 4, 9, "[2,5,6,7,4,0]"); /* straddles the begin */
    check_spans(t, "ab<s><t>a", 5, 9, "[2,3,4,0]");     /* beside */
    check_spans(t, "<s><s>a", 3, 7, "[3,5,6,7,0]");
    check_spans(t, "ab<s>", 1, 2, "[2,3]"); /* a border does not stop merges */
    assert_int_equal(ew_tokenizer_encode_spans(t, "abc", 3, 0, &bad, 1, &ids, &n, NULL),
                     EW_STATUS_INVALID_ARG);
    json_decref(as_token);
    json_decref(as_text);
    ew_tokenizer_destroy(t);
}

static void test_lookup(void **state)
{
    ew_tokenizer *t = load(GOLDEN "llama2-like.json");
    const char *bytes;
    size_t len;

    (void)state;
    assert_true(ew_tokenizer_is_special(t, ew_tokenizer_find(t, "<s>")));
    assert_int_equal(ew_tokenizer_find(t, "no such token"), -1);
    assert_null(ew_tokenizer_token(t, (int32_t)ew_tokenizer_vocab_len(t)));
    assert_null(ew_tokenizer_token(t, -1));
    assert_true(ew_tokenizer_token_bytes(t, ew_tokenizer_find(t, "<0xE4>"), &bytes, &len));
    assert_int_equal(len, 1);
    assert_memory_equal(bytes, "\xE4", 1);
    assert_int_equal(ew_tokenizer_bos(t), -1);
    ew_tokenizer_destroy(t);
}

/* A megabyte that no pre-tokenizer cuts: work must grow as n log n, here as a few looks a byte. */
static void test_long_word(void **state)
{
    const size_t len = (size_t)1 << 20;
    ew_tokenizer *t = parse("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"aa\":1,\"aaaa\":2},"
                            "\"merges\":[\"a a\",[\"aa\",\"aa\"]]}}");
    struct ew_bpe_scratch s;
    char *text = ew_mem_alloc(EW_MEM_MISC, len);

    (void)state;
    memset(text, 'a', len);
    ew_bpe_scratch_init(&s);
    assert_int_equal(ew_bpe_encode(&t->bpe, &s, text, len, NULL), EW_STATUS_OK);
    assert_int_equal(s.n_symbols, len / 4);
    assert_int_equal(s.symbols[0].id, 2);
    assert_true(s.n_steps < 3 * len);
    ew_bpe_scratch_deinit(&s);
    ew_mem_free(text);
    ew_tokenizer_destroy(t);
}

static void test_hostile(void **state)
{
#define MODEL(rest) "{\"model\":{\"type\":\"BPE\"," rest "}}"
#define WITH(rest)  "{" rest ",\"model\":{\"vocab\":{\"a\":0},\"merges\":[]}}"
    static const struct {
        const char *json;
        ew_status status;
        const char *says;
    } files[] = {
        { "", EW_STATUS_MALFORMED, "JSON" },
        { "[]", EW_STATUS_MALFORMED, "model is not an object" },
        { "{\"model\":{\"type\":\"Unigram\"}}", EW_STATUS_UNSUPPORTED, "Unigram" },
        { MODEL("\"vocab\":[],\"merges\":[]"), EW_STATUS_MALFORMED, "vocab" },
        { MODEL("\"vocab\":{},\"merges\":[]"), EW_STATUS_MALFORMED, "no token" },
        { MODEL("\"vocab\":{\"a\":-1,\"b\":0},\"merges\":[]"), EW_STATUS_MALFORMED, "id -1" },
        { MODEL("\"vocab\":{\"b\":0,\"a\":16000000},\"merges\":[]"), EW_STATUS_MALFORMED,
          "16000000" },
        { MODEL("\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]"), EW_STATUS_MALFORMED,
          "share the id 0" },
        { MODEL("\"vocab\":{\"a\":\"x\",\"b\":0},\"merges\":[]"), EW_STATUS_MALFORMED, "integer" },
        { MODEL("\"vocab\":{\"a\":0},\"merges\":[\"a b\"]"), EW_STATUS_MALFORMED, "token b" },
        { MODEL("\"vocab\":{\"a\":0},\"merges\":[\"a a\"]"), EW_STATUS_MALFORMED, "token aa" },
        { MODEL("\"vocab\":{\"a\":0},\"merges\":[\"a\"]"), EW_STATUS_MALFORMED, "two tokens" },
        { MODEL("\"vocab\":{\"a\":0},\"merges\":[[\"a\",1]]"), EW_STATUS_MALFORMED, "two tokens" },
        { MODEL("\"vocab\":{\"a\":0},\"merges\":{}"), EW_STATUS_MALFORMED, "merges" },
        { MODEL("\"dropout\":0.5,\"vocab\":{\"a\":0},\"merges\":[]"), EW_STATUS_UNSUPPORTED,
          "dropout" },
        { MODEL("\"byte_fallback\":true,\"vocab\":{\"<0x-1>\":0},\"merges\":[]"),
          EW_STATUS_MALFORMED, "<0x-1>" },
        { MODEL("\"byte_fallback\":true,\"vocab\":{\"<0x100>\":0},\"merges\":[]"),
          EW_STATUS_MALFORMED, "<0x100>" },
        { WITH("\"normalizer\":{\"type\":\"Nmt\"}"), EW_STATUS_UNSUPPORTED, "Nmt" },
        { WITH("\"normalizer\":{\"type\":\"Precompiled\"}"), EW_STATUS_UNSUPPORTED, "Precompiled" },
        { WITH("\"normalizer\":7"), EW_STATUS_MALFORMED, "normalizer" },
        { WITH("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(a\"},\"behavior\":"
               "\"Isolated\"}"),
          EW_STATUS_MALFORMED, "bad regex" },
        { WITH("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[a&&b]\"},"
               "\"behavior\":\"Isolated\"}"),
          EW_STATUS_UNSUPPORTED, "&&" },
        { WITH("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":"
               "\"No\"}"),
          EW_STATUS_MALFORMED, "behavior" },
        { WITH("\"decoder\":{\"type\":\"WordPiece\"}"), EW_STATUS_UNSUPPORTED, "WordPiece" },
        { WITH("\"decoder\":{\"type\":\"Strip\",\"content\":\" \",\"start\":-1,\"stop\":0}"),
          EW_STATUS_MALFORMED, "start" },
        { WITH("\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{"
               "\"id\":\"x\"}}]}"),
          EW_STATUS_MALFORMED, "x" },
        { WITH("\"added_tokens\":[{\"id\":1,\"content\":\"a\"}]"), EW_STATUS_MALFORMED,
          "added token a" },
        { WITH("\"added_tokens\":[{\"id\":0,\"content\":\"b\"}]"), EW_STATUS_MALFORMED,
          "share the id" },
        { WITH("\"added_tokens\":[{\"id\":9999999,\"content\":\"b\"}]"), EW_STATUS_MALFORMED,
          "9999999" },
        { WITH("\"added_tokens\":[5]"), EW_STATUS_MALFORMED, "content" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        ew_tokenizer *t = NULL;
        ew_error err = { 0 };
        const ew_status st =
            ew_tokenizer_parse(files[i].json, strlen(files[i].json), NULL, 0, &t, &err);

        if (st != files[i].status || !strstr(err.text, files[i].says) || t)
            fail_msg("%s: status %d, %s", files[i].json, st, err.text);
    }
}

static void test_invalid_text(void **state)
{
    ew_tokenizer *t = load(GOLDEN "gpt2-like.json");
    static const struct {
        const char *bytes, *repaired;
    } texts[] = { { "a\xFF"
                    "b",
                    "a\xEF\xBF\xBD"
                    "b" },
                  { "\xE4\xB8", "\xEF\xBF\xBD" },
                  { "\xED\xA0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD" },
                  { "", "" } };

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        int32_t *a;
        int32_t *b;
        size_t n_a;
        size_t n_b;

        assert_int_equal(
            ew_tokenizer_encode(t, texts[i].bytes, strlen(texts[i].bytes), 0, &a, &n_a, NULL),
            EW_STATUS_OK);
        assert_int_equal(
            ew_tokenizer_encode(t, texts[i].repaired, strlen(texts[i].repaired), 0, &b, &n_b, NULL),
            EW_STATUS_OK);
        assert_int_equal(n_a, n_b);
        assert_memory_equal(a, b, n_a * sizeof(*a));
        ew_tokens_free(a);
        ew_tokens_free(b);
    }
    ew_tokenizer_destroy(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),       cmocka_unit_test(test_published),
        cmocka_unit_test(test_spans),        cmocka_unit_test(test_lookup),
        cmocka_unit_test(test_long_word),    cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_invalid_text),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Whole models from checkpoint to text, against references that transformers computed. models/tiny
 * is in the repository; what lies in ../shared is skipped, by name, when it is not there. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "base/mem.h"
#include "edgewise/build.h"
#include "edgewise/engine.h"
#include "edgewise/eval.h"
#include "edgewise/graph.h"
#include "edgewise/inspect.h"
#include "edgewise/runtime.h"
#include "os/os.h"

#define SHARED         EW_SOURCE_DIR "/../shared/"
#define CACHE          EW_BINARY_DIR "/test-engines"
#define TINY           EW_SOURCE_DIR "/models/tiny"
#define TINY_REFERENCE SHARED "reference/trained/tiny-reference.json"

static bool absent(const char *path)
{
    if (ew_path_is_file(path) || ew_path_is_dir(path))
        return false;
    print_message("skipped: %s\n", path);
    return true;
}

/* Engine of a model with the given steps, opened. */
static ew_runtime *open_model(const char *model, uint32_t max_input_len, uint32_t flags,
                              bool hidden_states, uint32_t n_threads)
{
    ew_build_opts build = EW_BUILD_OPTS_INIT;
    ew_prepare_opts opts = EW_PREPARE_OPTS_INIT;
    ew_runtime_opts ro = EW_RUNTIME_OPTS_INIT;
    ew_runtime *rt = NULL;
    ew_error err = { 0 };
    char dir[4096];

    build.flags = flags | EW_BUILD_NO_TIMING | EW_BUILD_EXACT_KV;
    build.max_input_len = max_input_len;
    build.max_kv_len = 1280;
    opts.cache_dir = CACHE;
    opts.build = &build;
    opts.hidden_states = hidden_states;
    opts.rebuild = true; /* the builder may have changed since */
    ro.n_threads = n_threads;
    if (ew_model_prepare(model, &opts, dir, sizeof(dir), &err) ||
        ew_runtime_open(dir, &ro, &rt, &err))
        fail_msg("%s: %s", model, err.text);
    return rt;
}

struct greedy_case {
    int32_t prompt[64], want[256];
    uint32_t n_prompt, n_want;
    const char *text;
    double gap;
};

static uint32_t read_ids(const json_t *list, int32_t *out, uint32_t cap)
{
    const uint32_t n = (uint32_t)json_array_size(list);

    assert_true(n <= cap);
    for (uint32_t i = 0; i < n; i++)
        out[i] = (int32_t)json_integer_value(json_array_get(list, i));
    return n;
}

static uint32_t read_cases(const json_t *root, struct greedy_case *cases, uint32_t cap)
{
    const json_t *list = json_object_get(root, "greedy");
    const uint32_t n = (uint32_t)json_array_size(list);

    assert_true(n > 0 && n <= cap);
    for (uint32_t i = 0; i < n; i++) {
        const json_t *c = json_array_get(list, i);

        cases[i].n_prompt = read_ids(json_object_get(c, "prompt_ids"), cases[i].prompt, 64);
        cases[i].n_want = read_ids(json_object_get(c, "greedy_ids"), cases[i].want, 256);
        cases[i].text = json_string_value(json_object_get(c, "text"));
        cases[i].gap = json_number_value(json_object_get(c, "smallest_top2_gap"));
    }
    return n;
}

static void check_greedy(ew_runtime *rt, const struct greedy_case *cases, uint32_t n,
                         double min_gap)
{
    ew_request r[16] = { 0 };
    ew_response out[16];
    ew_error err = { 0 };

    for (uint32_t i = 0; i < n; i++) {
        r[i] = (ew_request)EW_REQUEST_INIT;
        r[i].prompt_ids = cases[i].prompt;
        r[i].n_prompt_ids = cases[i].n_prompt;
        r[i].sampling.greedy = true;
        r[i].max_tokens = cases[i].n_want;
    }
    assert_int_equal(ew_runtime_handle_request(rt, r, n, out, &err), 0);
    for (uint32_t i = 0; i < n; i++) {
        assert_int_equal(out[i].status, 0);
        if (cases[i].gap > min_gap) {
            assert_memory_equal(out[i].ids, cases[i].want, cases[i].n_want * sizeof(int32_t));
            if (out[i].finish == EW_FINISH_LENGTH)
                assert_string_equal(out[i].text, cases[i].text);
        }
        ew_response_release(&out[i]);
    }
}

/* Greedy ids and texts of the reference, through several steps, threads and batch sizes. */
static void test_tiny_greedy(void **state)
{
    static const uint32_t steps[][2] = { { 512, 1 }, { 512, 2 }, { 7, 2 }, { 1, 1 } };
    static struct greedy_case cases[16];
    json_t *root = NULL;
    uint32_t n;

    (void)state;
    if (absent(TINY_REFERENCE))
        return;
    assert_int_equal(ew_json_load(TINY_REFERENCE, (size_t)64 << 20, &root, NULL), 0);
    n = read_cases(root, cases, 16);
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        ew_runtime *rt = open_model(TINY, steps[i][0], 0, false, steps[i][1]);

        check_greedy(rt, cases, n, 0.02);
        ew_runtime_destroy(rt);
    }
    json_decref(root);
}

static const char *const questions[8] = {
    "What is the capital of France?",
    "What is 27 plus 48?",
    "Count from 5 to 15.",
    "Spell the word \"lantern\".",
    "Tell me a story about a brave fox.",
    "Which day comes after Friday?",
    "Sort these words: river, apple, pillow, bridge.",
    "Hello!",
};

static void ask(ew_runtime *rt, uint32_t first, uint32_t n, bool greedy, ew_response *out)
{
    static char messages[8][256];
    ew_request r[8] = { 0 };
    ew_error err = { 0 };

    for (uint32_t i = 0; i < n; i++) {
        json_t *m = json_pack("[{s:s, s:s}]", "role", "user", "content", questions[first + i]);

        assert_true(json_dumpb(m, messages[i], sizeof(messages[i]) - 1, JSON_COMPACT) < 255);
        messages[i][json_dumpb(m, messages[i], sizeof(messages[i]) - 1, JSON_COMPACT)] = '\0';
        json_decref(m);
        r[i] = (ew_request)EW_REQUEST_INIT;
        r[i].messages_json = messages[i];
        r[i].enable_thinking = 0;
        r[i].sampling.greedy = greedy;
        r[i].sampling.temperature = greedy ? 0 : 0.8;
        r[i].sampling.top_k = greedy ? 0 : 30;
        r[i].sampling.seed = 5;
        r[i].max_tokens = 60;
    }
    assert_int_equal(ew_runtime_handle_request(rt, r, n, out, &err), 0);
}

/* Eight different prompts together give what each gives alone: threads, chunks and neighbours
 * change no token. */
static void test_batch_of_eight(void **state)
{
    ew_runtime *rt = open_model(TINY, 512, 0, false, 1);
    ew_response alone[8];
    static const uint32_t steps[][2] = { { 512, 1 }, { 512, 2 }, { 16, 2 }, { 5, 1 } };

    (void)state;
    for (uint32_t i = 0; i < 8; i++) {
        ask(rt, i, 1, true, &alone[i]);
        if (alone[i].status)
            fail_msg("%s", alone[i].error);
    }
    ew_runtime_destroy(rt);
    assert_non_null(strstr(alone[0].text, "Paris"));
    assert_non_null(strstr(alone[1].text, "75"));
    for (size_t s = 0; s < sizeof(steps) / sizeof(steps[0]); s++) {
        ew_response out[8];

        rt = open_model(TINY, steps[s][0], 0, false, steps[s][1]);
        ask(rt, 0, 8, true, out);
        for (uint32_t i = 0; i < 8; i++) {
            assert_int_equal(out[i].n_ids, alone[i].n_ids);
            assert_memory_equal(out[i].ids, alone[i].ids, out[i].n_ids * sizeof(int32_t));
            assert_string_equal(out[i].text, alone[i].text);
            ew_response_release(&out[i]);
        }
        ew_runtime_destroy(rt);
    }
    for (uint32_t i = 0; i < 8; i++)
        ew_response_release(&alone[i]);
}

/* The same seed gives the same sampled text with other threads and chunks. */
static void test_seed(void **state)
{
    ew_runtime *a = open_model(TINY, 512, 0, false, 1), *b = open_model(TINY, 16, 0, false, 2);
    ew_response x[8], y[8];

    (void)state;
    ask(a, 0, 8, false, x);
    ask(b, 0, 8, false, y);
    for (uint32_t i = 0; i < 8; i++) {
        assert_int_equal(x[i].status, 0);
        assert_string_equal(x[i].text, y[i].text);
        ew_response_release(&x[i]);
        ew_response_release(&y[i]);
    }
    ew_runtime_destroy(a);
    ew_runtime_destroy(b);
}

struct stream {
    char text[4096];
    size_t len;
    uint32_t n_calls, stop_after;
    uint64_t allocations[512];
};

static bool on_text(void *ctx, uint32_t i_request, const char *text, size_t len)
{
    struct stream *s = ctx;

    (void)i_request;
    assert_true(s->len + len < sizeof(s->text));
    memcpy(s->text + s->len, text, len);
    s->len += len;
    s->text[s->len] = '\0';
    if (s->n_calls < 512)
        s->allocations[s->n_calls] = ew_memory_n_allocations();
    s->n_calls++;
    return s->stop_after == 0 || s->n_calls < s->stop_after;
}

static ew_response run_raw(ew_runtime *rt, const char *text, const char *const *stop,
                           uint32_t n_stop, struct stream *s)
{
    ew_request r = EW_REQUEST_INIT;
    ew_response out;

    r.raw_text = text;
    r.sampling.greedy = true;
    r.max_tokens = 80;
    r.stop = stop;
    r.n_stop = n_stop;
    r.on_text = on_text;
    r.on_text_ctx = s;
    assert_int_equal(ew_runtime_handle_request(rt, &r, 1, &out, NULL), 0);
    if (out.status)
        fail_msg("%s", out.error);
    return out;
}

static void test_streaming_and_stops(void **state)
{
    ew_runtime *rt = open_model(TINY, 512, 0, false, 2);
    const char *const stops[2] = { " called Ru", "never said" };
    struct stream s = { 0 }, cut = { 0 }, stopped = { .stop_after = 5 };
    ew_response all = run_raw(rt, "Once upon a time", NULL, 0, &s);
    ew_response out = run_raw(rt, "Once upon a time", stops, 2, &cut);

    (void)state;
    assert_string_equal(all.text, s.text);
    assert_non_null(strstr(all.text, " called Ruby"));
    assert_true(s.n_calls > 40);
    for (uint32_t i = 8; i < s.n_calls; i++) /* nothing is allocated between two tokens */
        assert_int_equal(s.allocations[i], s.allocations[7]);
    assert_int_equal(out.finish, EW_FINISH_STOP);
    assert_string_equal(out.text, cut.text);
    assert_null(strstr(out.text, " called"));
    assert_true(strncmp(all.text, out.text, strlen(out.text)) == 0);
    assert_true(strncmp(all.text + strlen(out.text), stops[0], strlen(stops[0])) == 0);
    ew_response_release(&out);
    out = run_raw(rt, "Once upon a time", NULL, 0, &stopped);
    assert_int_equal(out.finish, EW_FINISH_CANCELLED);
    assert_int_equal(stopped.n_calls, 5);
    ew_response_release(&out);
    ew_response_release(&all);
    ew_runtime_destroy(rt);
}

static void test_step_allocates_nothing(void **state)
{
    ew_runtime *rt = open_model(TINY, 512, 0, false, 2);
    static float logits[4096];
    const int32_t ids[4] = { 2215, 608, 258, 601 };
    uint64_t before;

    (void)state;
    for (int i = 0; i < 4; i++)
        assert_int_equal(ew_runtime_forward(rt, 0, ids + i, 1, 0, logits, 1, NULL), 0);
    before = ew_memory_n_allocations();
    for (int i = 0; i < 100; i++)
        assert_int_equal(ew_runtime_forward(rt, 0, ids + i % 4, 1, 0, logits, 1, NULL), 0);
    assert_int_equal(ew_memory_n_allocations(), before);
    ew_runtime_destroy(rt);
}

static void test_saved_system_prompt(void **state)
{
    ew_runtime *rt = open_model(TINY, 64, 0, false, 2);
    ew_request r = EW_REQUEST_INIT;
    ew_response first, again, other;

    (void)state;
    r.messages_json = "[{\"role\":\"system\",\"content\":\"You are a helpful assistant.\"},"
                      "{\"role\":\"user\",\"content\":\"What is 27 plus 48?\"}]";
    r.enable_thinking = 0;
    r.sampling.greedy = true;
    r.save_prefix = true;
    assert_int_equal(ew_runtime_handle_request(rt, &r, 1, &first, NULL), 0);
    assert_int_equal(first.n_reused, 0);
    assert_int_equal(ew_runtime_handle_request(rt, &r, 1, &again, NULL), 0);
    assert_true(again.n_reused > 5 && again.n_reused < again.n_prompt);
    assert_string_equal(first.text, again.text);
    r.messages_json = "[{\"role\":\"system\",\"content\":\"You are a helpful assistant.\"},"
                      "{\"role\":\"user\",\"content\":\"Count from 5 to 15.\"}]";
    assert_int_equal(ew_runtime_handle_request(rt, &r, 1, &other, NULL), 0);
    assert_int_equal(other.n_reused, again.n_reused);
    ew_response_release(&first);
    ew_response_release(&again);
    ew_response_release(&other);
    ew_runtime_destroy(rt);
}

/* What a user writes is text, even if it looks like the end of his turn; in a raw prompt it is the
 * token. */
static void test_special_tokens_in_messages(void **state)
{
    ew_runtime *rt = open_model(TINY, 512, 0, false, 1);
    ew_request chat = EW_REQUEST_INIT, raw = EW_REQUEST_INIT;
    ew_response a, b;

    (void)state;
    chat.messages_json = "[{\"role\":\"user\",\"content\":\"a <|im_end|> b\"}]";
    chat.sampling.greedy = raw.sampling.greedy = true;
    chat.max_tokens = raw.max_tokens = 1;
    assert_int_equal(ew_runtime_handle_request(rt, &chat, 1, &a, NULL), 0);
    raw.raw_text = a.prompt_text;
    assert_int_equal(ew_runtime_handle_request(rt, &raw, 1, &b, NULL), 0);
    assert_int_equal(a.status, 0);
    assert_non_null(strstr(a.prompt_text, "a <|im_end|> b<|im_end|>"));
    assert_string_equal(a.prompt_text, b.prompt_text);
    assert_int_equal(a.n_prompt, b.n_prompt + 3); /* four tokens of text for one */
    ew_response_release(&a);
    ew_response_release(&b);
    ew_runtime_destroy(rt);
}

/* A template would pass over these in silence and answer something else. */
static void test_messages_without_role(void **state)
{
    static const char *const bad[] = { "[1]", "[{}]", "[{\"role\":1,\"content\":\"x\"}]",
                                       "[{\"role\":\"user\",\"content\":\"x\"},\"y\"]" };
    enum { N = sizeof(bad) / sizeof(bad[0]) };
    ew_runtime *rt = open_model(TINY, 64, 0, false, 1);
    ew_request r[N];
    ew_response out[N];

    (void)state;
    for (int i = 0; i < N; i++) {
        r[i] = (ew_request)EW_REQUEST_INIT;
        r[i].messages_json = bad[i];
        r[i].max_tokens = 1;
    }
    assert_int_equal(ew_runtime_handle_request(rt, r, N, out, NULL), 0);
    for (int i = 0; i < N; i++) {
        assert_int_equal(out[i].status, EW_STATUS_INVALID_ARG);
        assert_non_null(strstr(out[i].error, i < 3 ? "messages[0]" : "messages[1]"));
        ew_response_release(&out[i]);
    }
    ew_runtime_destroy(rt);
}

static void test_model_directories(void **state)
{
    ew_prepare_opts opts = EW_PREPARE_OPTS_INIT;
    ew_build_opts build = EW_BUILD_OPTS_INIT;
    char dir[4096], again[4096], engine[4200], *json = NULL;
    uint64_t bytes;
    int64_t before, after;
    ew_error err = { 0 };

    (void)state;
    assert_string_equal(ew_model_kind(TINY), "checkpoint");
    assert_string_equal(ew_model_kind(EW_SOURCE_DIR "/src"), "unknown");
    assert_string_equal(ew_model_kind("no such path"), "unknown");
    assert_int_equal(ew_model_prepare(TINY, &opts, dir, sizeof(dir), &err), EW_STATUS_INVALID_ARG);
    assert_int_equal(ew_model_prepare("no such path", &opts, dir, sizeof(dir), &err),
                     EW_STATUS_NOT_FOUND);
    assert_int_equal(ew_model_build(TINY, TINY, NULL, false, &err), EW_STATUS_INVALID_ARG);
    build.flags = EW_BUILD_NO_TIMING | EW_BUILD_EXACT_KV;
    opts.build = &build;
    opts.cache_dir = CACHE;
    assert_int_equal(ew_model_prepare(TINY, &opts, dir, sizeof(dir), &err), 0);
    assert_string_equal(ew_model_kind(dir), "engine");
    (void)snprintf(engine, sizeof(engine), "%s/llm.engine", dir);
    assert_true(ew_path_stat(engine, &bytes, &before));
    assert_int_equal(ew_model_prepare(TINY, &opts, again, sizeof(again), &err), 0);
    assert_string_equal(dir, again); /* and not built twice */
    assert_true(ew_path_stat(engine, &bytes, &after));
    assert_true(before == after);
    build.max_input_len = 33; /* other options, another engine */
    assert_int_equal(ew_model_prepare(TINY, &opts, again, sizeof(again), &err), 0);
    assert_string_not_equal(dir, again);
    assert_int_equal(ew_inspect(TINY, &json, &err), 0);
    assert_non_null(strstr(json, "\"family\": \"qwen3\""));
    ew_text_free(json);
    assert_int_equal(ew_inspect(dir, &json, &err), 0);
    assert_non_null(strstr(json, "generation"));
    ew_text_free(json);
    assert_int_equal(ew_inspect("no such path", &json, &err), EW_STATUS_NOT_FOUND);
}

static void check_parity(const char *model, const char *reference, bool hidden)
{
    ew_runtime *rt = open_model(model, 64, EW_BUILD_ALL_LOGITS | EW_BUILD_EXACT_KV, hidden, 2);
    ew_parity_result res;
    ew_error err = { 0 };

    if (ew_eval_parity(rt, reference, 0, NULL, &res, &err))
        fail_msg("%s: %s", model, err.text);
    print_message("%s: logits within %.2g, greedy %llu of %llu\n", model, res.max_relative_logits,
                  (unsigned long long)res.n_greedy_equal, (unsigned long long)res.n_greedy);
    if (!res.ok)
        fail_msg("%s: %s", model, res.first_bad);
    ew_parity_release(&res);
    ew_runtime_destroy(rt);
}

static void test_tiny_parity(void **state)
{
    (void)state;
    if (!absent(SHARED "reference/trained/tiny-forward.safetensors"))
        check_parity(TINY, SHARED "reference/trained/tiny-forward.safetensors", true);
}

static void test_architectures(void **state)
{
    static const char *const names[] = { "qwen2",         "qwen3",  "llama3-rope",
                                         "phi3-longrope", "gemma3", "qwen3-moe" };

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char dir[4096], reference[4096];

        (void)snprintf(dir, sizeof(dir), SHARED "reference/architectures/%s", names[i]);
        (void)snprintf(reference, sizeof(reference), "%.4000s/reference.safetensors", dir);
        if (!absent(reference))
            check_parity(dir, reference, false);
    }
}

static void test_golden_families(void **state)
{
    char **names = NULL;
    size_t n = 0;

    (void)state;
    if (absent(EW_SOURCE_DIR "/tests/golden/families"))
        return;
    assert_int_equal(ew_dir_list(EW_SOURCE_DIR "/tests/golden/families", &names, &n, NULL), 0);
    for (size_t i = 0; i < n; i++) {
        char dir[4096], reference[4096];

        (void)snprintf(dir, sizeof(dir), EW_SOURCE_DIR "/tests/golden/families/%.200s", names[i]);
        (void)snprintf(reference, sizeof(reference), "%.4000s/reference.safetensors", dir);
        if (ew_path_is_file(reference))
            check_parity(dir, reference, false);
        ew_mem_free(names[i]);
    }
    ew_mem_free(names);
}

/* phi3-longrope crosses its border of 16 tokens while generating: the row is computed anew under
 * the long factors. */
static void test_longrope_restart(void **state)
{
    const char *const dir = SHARED "reference/architectures/phi3-longrope";
    ew_request r = EW_REQUEST_INIT;
    ew_response out;
    ew_runtime *rt;
    static float logits[320];
    int32_t ids[64] = { 5, 17, 99, 201, 4, 33, 270, 8, 150, 61 };
    ew_error err = { 0 };

    (void)state;
    if (absent(dir))
        return;
    rt = open_model(dir, 64, 0, false, 1);
    r.prompt_ids = ids;
    r.n_prompt_ids = 10;
    r.sampling.greedy = true;
    r.ignore_eos = true;
    r.max_tokens = 20;
    assert_int_equal(ew_runtime_handle_request(rt, &r, 1, &out, &err), 0);
    assert_int_equal(out.status, 0);
    for (uint32_t i = 0; i < out.n_ids; i++) { /* as if each token were a prefill of its own */
        int32_t best = 0;

        assert_int_equal(ew_runtime_rewind(rt, 0, 0, &err), 0);
        assert_int_equal(ew_runtime_forward(rt, 0, ids, 10 + i, 0, logits, 1, &err), 0);
        for (int32_t v = 1; v < 320; v++)
            best = logits[v] > logits[best] ? v : best;
        assert_int_equal(out.ids[i], best);
        ids[10 + i] = best;
    }
    ew_response_release(&out);
    ew_runtime_destroy(rt);
}

static void test_tiny_perplexity(void **state)
{
    const char *const path = SHARED "text/books_test.txt";
    ew_ppl_opts opts = EW_PPL_OPTS_INIT;
    ew_ppl_result res;
    ew_error err = { 0 };
    char *text = NULL;
    size_t len;
    ew_runtime *rt;

    (void)state;
    if (absent(path))
        return;
    assert_int_equal(ew_file_read(path, (size_t)16 << 20, &text, &len, &err), 0);
    opts.window = 1024;
    opts.max_chars = 200000;
    rt = open_model(TINY, 512, EW_BUILD_ALL_LOGITS, false, 2);
    if (ew_eval_ppl(rt, text, len, &opts, &res, &err))
        fail_msg("%s", err.text);
    print_message("perplexity %.6f over %llu tokens\n", res.perplexity,
                  (unsigned long long)res.n_scored);
    assert_int_equal(res.n_scored, 56265);
    assert_true(fabs(res.perplexity / 27.698014626266552 - 1) < 1e-3);
    ew_mem_free(text);
    ew_runtime_destroy(rt);
}

/* Directories that the reference system's exporter wrote, as they are. Weights are f16 there. */
static void test_reference_exports(void **state)
{
    static const char *const others[] = { "tiny-eagle-base", "tiny-vl" };
    const char *const tiny = SHARED "reference/edgellm-exports/tiny";
    static struct greedy_case cases[16];
    json_t *root = NULL;
    ew_runtime *rt;

    (void)state;
    if (!absent(tiny) && !absent(TINY_REFERENCE)) {
        assert_int_equal(ew_json_load(TINY_REFERENCE, (size_t)64 << 20, &root, NULL), 0);
        rt = open_model(tiny, 512, 0, false, 2);
        check_greedy(rt, cases, read_cases(root, cases, 16), 0.02);
        ew_runtime_destroy(rt);
        json_decref(root);
    }
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        ew_response out[2];
        char dir[4096];

        (void)snprintf(dir, sizeof(dir), SHARED "reference/edgellm-exports/%s", others[i]);
        if (absent(dir))
            continue;
        rt = open_model(dir, 16, 0, false, 2);
        ask(rt, 0, 2, true, out);
        for (int j = 0; j < 2; j++) {
            if (out[j].status)
                fail_msg("%s: %s", dir, out[j].error);
            print_message("%s: %s\n", dir, out[j].text);
            assert_true(out[j].n_ids > 0);
            ew_response_release(&out[j]);
        }
        ew_runtime_destroy(rt);
    }
}

static void test_qwen2_export(void **state)
{
    const char *const dir = SHARED "reference/edgellm-exports/qwen2";
    const char *const reference = SHARED "reference/architectures/qwen2/reference.safetensors";
    ew_parity_result res;
    ew_error err = { 0 };
    ew_runtime *rt;

    (void)state;
    if (absent(dir) || absent(reference))
        return;
    rt = open_model(dir, 64, EW_BUILD_ALL_LOGITS, false, 1);
    if (ew_eval_parity(rt, reference, 2e-3, NULL, &res, &err)) /* f16 weights */
        fail_msg("%s", err.text);
    print_message("qwen2 export: logits within %.2g\n", res.max_relative_logits);
    assert_true(res.ok);
    ew_parity_release(&res);
    ew_runtime_destroy(rt);
}

static void test_small(void **state)
{
    const char *const dir = SHARED "models/small";
    const char *const path = SHARED "reference/trained/small-reference.json";
    static struct greedy_case cases[16];
    json_t *root = NULL;
    ew_runtime *rt;

    (void)state;
    if (absent(dir) || absent(path))
        return;
    assert_int_equal(ew_json_load(path, (size_t)64 << 20, &root, NULL), 0);
    rt = open_model(dir, 512, 0, false, 2);
    check_greedy(rt, cases, read_cases(root, cases, 16), 0.02);
    ew_runtime_destroy(rt);
    json_decref(root);
    check_parity(dir, SHARED "reference/trained/small-forward.safetensors", true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiny_greedy),
        cmocka_unit_test(test_batch_of_eight),
        cmocka_unit_test(test_seed),
        cmocka_unit_test(test_streaming_and_stops),
        cmocka_unit_test(test_step_allocates_nothing),
        cmocka_unit_test(test_saved_system_prompt),
        cmocka_unit_test(test_special_tokens_in_messages),
        cmocka_unit_test(test_messages_without_role),
        cmocka_unit_test(test_model_directories),
        cmocka_unit_test(test_tiny_parity),
        cmocka_unit_test(test_architectures),
        cmocka_unit_test(test_golden_families),
        cmocka_unit_test(test_longrope_restart),
        cmocka_unit_test(test_tiny_perplexity),
        cmocka_unit_test(test_reference_exports),
        cmocka_unit_test(test_qwen2_export),
        cmocka_unit_test(test_small),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

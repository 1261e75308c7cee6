/* Every allocation fails once, in everything that loads: the call says "out of memory" in one line
 * (or does without), gives nothing half made, and not one byte stays behind. EW_TORTURE sets how
 * many failing allocations each is given (2000, spread over all of them). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "base/mem.h"
#include "checkpoint/safetensors.h"
#include "edgewise/build.h"
#include "edgewise/engine.h"
#include "edgewise/onnx.h"
#include "edgewise/quantize.h"
#include "edgewise/runtime.h"
#include "edgewise/tokenizer.h"
#include "graph/ir.h"
#include "os/os.h"

#define FAMILY        EW_SOURCE_DIR "/tests/golden/families/qwen3-moe-mixed"
#define QUANTIZE_FROM EW_SOURCE_DIR "/tests/golden/families/smollm3-window"
#define WORK          EW_BINARY_DIR "/test-torture"

typedef ew_status victim_fn(ew_error *err);

static uint64_t live_bytes(void)
{
    uint64_t sum = 0;

    for (int tag = 0; tag < EW_MEM_TAG_COUNT; tag++)
        sum += ew_mem_tag_bytes((enum ew_mem_tag)tag);
    return sum;
}

static void print_live(void)
{
    for (int tag = 0; tag < EW_MEM_TAG_COUNT; tag++)
        if (ew_mem_tag_bytes((enum ew_mem_tag)tag))
            print_message("  %s: %llu bytes\n", ew_mem_tag_text((enum ew_mem_tag)tag),
                          (unsigned long long)ew_mem_tag_bytes((enum ew_mem_tag)tag));
}

static uint64_t n_tries(void)
{
    const char *const text = getenv("EW_TORTURE");
    const long n = text ? strtol(text, NULL, 10) : 2000;

    return n > 0 ? (uint64_t)n : 2000;
}

/* A growing text says "limit" of its cap and of memory alike; a folder that cannot be listed is no
 * model. Everything else must name memory. */
static bool is_fair(ew_status st, const ew_error *err)
{
    return (st == EW_STATUS_NO_MEMORY || st == EW_STATUS_LIMIT || st == EW_STATUS_NOT_FOUND) &&
           err->text[0] && !strchr(err->text, '\n');
}

static void torture(const char *what, victim_fn *victim)
{
    const uint64_t before = live_bytes(), count = ew_mem_count();
    ew_error err = { 0 };
    uint64_t n_failed = 0, n_wrong = 0;

    if (victim(&err))
        fail_msg("%s: %s", what, err.text);
    const uint64_t n = ew_mem_count() - count;
    if (live_bytes() != before) {
        print_live();
        fail_msg("%s leaves %lld bytes when all goes well", what,
                 (long long)(live_bytes() - before));
    }
    assert_true(n > 0);
    const uint64_t step = n / n_tries() + 1;
    for (uint64_t k = 1; k <= n; k += k < 40 ? 1 : step) {
        err = (ew_error){ 0 };
        ew_mem_fail_at(k);
        const ew_status st = victim(&err);
        ew_mem_fail_at(0);
        n_failed += st != EW_STATUS_OK;
        if (st && !is_fair(st, &err) && n_wrong++ < 12)
            print_error("%s, allocation %llu of %llu: %s: '%s'\n", what, (unsigned long long)k,
                        (unsigned long long)n, ew_status_text(st), err.text);
        if (live_bytes() != before) {
            print_live();
            fail_msg("%s, allocation %llu of %llu: %lld bytes stay behind (%s)", what,
                     (unsigned long long)k, (unsigned long long)n,
                     (long long)(live_bytes() - before), err.text);
        }
    }
    print_message("%s: %llu allocations, %llu failures reported\n", what, (unsigned long long)n,
                  (unsigned long long)n_failed);
    assert_true(n_failed > 0);
    assert_int_equal(n_wrong, 0);
}

static ew_status do_safetensors(ew_error *err)
{
    struct ew_safetensors *st;
    const ew_status s = ew_safetensors_open_dir(FAMILY, &st, err);

    if (!s)
        ew_safetensors_close(st);
    return s;
}

static ew_status do_tokenizer(ew_error *err)
{
    ew_tokenizer *t;
    int32_t *ids;
    size_t n;
    char *text;
    ew_status s =
        ew_tokenizer_load(EW_SOURCE_DIR "/tests/golden/tokenizers/llama2-like.json", &t, err);

    if (s)
        return s;
    s = ew_tokenizer_encode(t, "Hello w\xC3\xB6rld <s> 123", 18, EW_ENCODE_SPECIAL, &ids, &n, err);
    if (!s) {
        s = ew_tokenizer_decode(t, ids, n, true, &text, &n, err);
        ew_tokens_free(ids);
    }
    if (!s)
        ew_string_free(text);
    ew_tokenizer_destroy(t);
    return s;
}

static ew_status do_template(ew_error *err)
{
    static const char input[] =
        "{\"messages\":[{\"role\":\"user\",\"content\":\"What is 2 plus 3?\"}],"
        "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],"
        "\"add_generation_prompt\":true,\"enable_thinking\":false}";
    ew_template *t;
    ew_text_span *spans;
    size_t n, n_spans;
    char *text;
    ew_status s = ew_template_load(EW_SOURCE_DIR "/models/tiny", false, &t, err);

    if (s)
        return s;
    s = ew_template_render(t, input, NULL, 0, &text, &n, &spans, &n_spans, err);
    if (!s) {
        ew_string_free(text);
        ew_spans_free(spans);
    }
    ew_template_destroy(t);
    return s;
}

static ew_status do_graph_text(ew_error *err)
{
    ew_graph *g, *again = NULL;
    char *text;
    ew_status s = ew_graph_from_checkpoint(FAMILY, NULL, &g, err);

    if (s)
        return s;
    s = ew_graph_text(g, &text, err);
    if (!s) {
        const ew_status parsed = ew_graph_parse(text, strlen(text), &again, err);
        if (parsed == EW_STATUS_NO_MEMORY)
            s = parsed; /* weights print as hashes: any other verdict is fine here */
        ew_graph_destroy(again);
        ew_text_free(text);
    }
    ew_graph_destroy(g);
    return s;
}

static ew_status do_export(ew_error *err)
{
    ew_onnx_save_opts opts = EW_ONNX_SAVE_OPTS_INIT;
    ew_graph *g;
    ew_status s = ew_graph_from_checkpoint(FAMILY, NULL, &g, err);

    if (s)
        return s;
    s = ew_graph_save_onnx(g, WORK "/onnx", &opts, err);
    ew_graph_destroy(g);
    return s;
}

static ew_status do_import(ew_error *err)
{
    ew_graph *g;
    const ew_status s = ew_graph_from_onnx(WORK "/onnx", &g, err);

    if (!s)
        ew_graph_destroy(g);
    return s;
}

static ew_status do_build(ew_error *err)
{
    ew_build_opts opts = EW_BUILD_OPTS_INIT;

    opts.flags = EW_BUILD_NO_TIMING;
    opts.n_threads = 1;
    opts.max_batch = 2;
    opts.max_input_len = 8;
    opts.max_kv_len = 32;
    return ew_model_build(FAMILY, WORK "/engine", &opts, false, err);
}

/* Quantised checkpoints: the formats whose reading holds most at a time. */
static ew_status do_quantised(ew_error *err)
{
    static const char *const formats[] = { "awq-moe",       "gptq-act", "ct-mixed",
                                           "fp8-block-odd", "mo-mixed", "ct-mxfp4-moe" };

    for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
        char dir[512];
        ew_graph *g;
        ew_status s;

        snprintf(dir, sizeof(dir), EW_SOURCE_DIR "/tests/golden/quant_import/%s", formats[i]);
        s = ew_graph_from_checkpoint(dir, NULL, &g, err);
        if (s)
            return s;
        ew_graph_destroy(g);
    }
    return EW_STATUS_OK;
}

/* Built too, with weights that stay packed. */
static ew_status do_quantised_build(ew_error *err)
{
    ew_build_opts opts = EW_BUILD_OPTS_INIT;

    opts.flags = EW_BUILD_NO_TIMING;
    opts.n_threads = 1;
    opts.max_batch = 2;
    opts.max_input_len = 8;
    opts.max_kv_len = 32;
    opts.kv_dtype = EW_DTYPE_I8;
    opts.activations = EW_ACTIVATIONS_INT8;
    return ew_model_build(EW_SOURCE_DIR "/tests/golden/quant_import/ct-int4-asym",
                          WORK "/engine-quantised", &opts, false, err);
}

/* What was written without some memory is what is written with all of it. */
static void check_quantised_copy(void)
{
    static uint64_t first;
    struct ew_file_map map;
    ew_error err = { 0 };

    if (ew_file_map_open(&map, WORK "/quantised/model.safetensors", &err))
        fail_msg("%s", err.text);
    const uint64_t hash = ew_hash64(map.bytes, map.len, 0);
    ew_file_map_close(&map);
    first = first ? first : hash;
    assert_true(hash == first);
}

/* A copy with every method in it; nothing may be under its name when the call fails. */
static ew_status do_quantize(ew_error *err)
{
    static const char *const overrides[] = { "*.q_proj=gptq", "*.down_proj=int4", "*.k_proj=nvfp4",
                                             "*.1.*.up_proj=none" };
    ew_quantize_opts opts = EW_QUANTIZE_OPTS_INIT;
    int32_t ids[64];
    char *json = NULL;
    ew_status s;

    for (int i = 0; i < 64; i++)
        ids[i] = i * 7 % 61;
    opts.scheme = "int8";
    opts.group = 32;
    opts.asymmetric = true;
    opts.act_order = true;
    opts.embedding = "int8";
    opts.lm_head = "int8";
    opts.kv = "fp8";
    opts.overrides = overrides;
    opts.n_overrides = 4;
    opts.calibration_ids = ids;
    opts.n_calibration_ids = 64;
    opts.n_threads = 1;
    s = ew_quantize(QUANTIZE_FROM, WORK "/quantised", &opts, &json, err);
    ew_mem_fail_at(0); /* the clean-up is not on trial */
    ew_text_free(json);
    if ((s == EW_STATUS_OK) != ew_path_is_dir(WORK "/quantised"))
        fail_msg("quantize: %s, and %s folder", s ? err->text : "fine", s ? "a" : "no");
    if (!s)
        check_quantised_copy();
    ew_dir_remove(WORK "/quantised");
    return s;
}

static ew_status do_engine(ew_error *err)
{
    ew_engine_opts opts = EW_ENGINE_OPTS_INIT;
    ew_context *c;
    ew_engine *e;
    char *json;
    ew_status s;

    opts.n_threads = 1;
    s = ew_engine_open(WORK "/engine/llm.engine", &opts, &e, err);
    if (s)
        return s;
    s = ew_engine_describe(e, &json, err);
    if (!s) {
        ew_text_free(json);
        s = ew_context_create(e, NULL, &c, err);
    }
    if (!s)
        ew_context_destroy(c);
    ew_engine_destroy(e);
    return s;
}

static ew_status do_answer(ew_error *err)
{
    static const int32_t ids[5] = { 3, 14, 15, 9, 2 };
    ew_runtime_opts opts = EW_RUNTIME_OPTS_INIT;
    ew_request r[3];
    ew_response out[3] = { 0 };
    ew_runtime *rt;
    ew_status s;

    opts.n_threads = 1;
    s = ew_runtime_open(WORK "/engine", &opts, &rt, err);
    if (s)
        return s;
    for (int i = 0; i < 3; i++) {
        r[i] = (ew_request)EW_REQUEST_INIT;
        r[i].prompt_ids = ids;
        r[i].n_prompt_ids = 5 - (uint32_t)i;
        r[i].max_tokens = 6;
        r[i].ignore_eos = true;
        r[i].sampling.temperature = 1;
        r[i].sampling.top_k = 20;
        r[i].sampling.num_logprobs = i;
    }
    s = ew_runtime_handle_request(rt, r, 3, out, err);
    for (int i = 0; i < 3; i++) {
        if (!s && out[i].status) { /* a row may fail alone */
            s = out[i].status;
            (void)ew_fail(err, s, "%s", out[i].error);
        }
        ew_response_release(&out[i]);
    }
    ew_runtime_destroy(rt);
    return s;
}

#define VICTIM(name)                                                                               \
    static void test_##name(void **state)                                                          \
    {                                                                                              \
        (void)state;                                                                               \
        torture(#name, do_##name);                                                                 \
    }
VICTIM(safetensors)
VICTIM(tokenizer)
VICTIM(template)
VICTIM(graph_text)
VICTIM(export)
VICTIM(import)
VICTIM(build)
VICTIM(engine)
VICTIM(answer)
VICTIM(quantised)
VICTIM(quantised_build)
VICTIM(quantize)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_safetensors),     cmocka_unit_test(test_tokenizer),
        cmocka_unit_test(test_template),        cmocka_unit_test(test_graph_text),
        cmocka_unit_test(test_export),          cmocka_unit_test(test_import),
        cmocka_unit_test(test_build),           cmocka_unit_test(test_engine),
        cmocka_unit_test(test_answer),          cmocka_unit_test(test_quantised),
        cmocka_unit_test(test_quantised_build), cmocka_unit_test(test_quantize),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

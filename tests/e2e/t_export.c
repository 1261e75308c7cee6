/* Export, import, run: the logits are those of the direct path, bit for bit, in both forms of the
 * attention op, for every family of tests/golden, for models/tiny and for quantised copies of it.
 */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "edgewise/build.h"
#include "edgewise/graph.h"
#include "edgewise/onnx.h"
#include "edgewise/quantize.h"
#include "edgewise/runtime.h"
#include "os/os.h"

#define FAMILIES EW_SOURCE_DIR "/tests/golden/families"
#define WORK     EW_BINARY_DIR "/test-export"
#define N_IDS    24

/* Logits of three steps: a prefill, a second chunk, one token. */
static float *logits_of(const char *model, ew_activations activations, uint32_t *vocab)
{
    ew_build_opts opts = EW_BUILD_OPTS_INIT;
    ew_runtime_opts ro = EW_RUNTIME_OPTS_INIT;
    static const uint32_t steps[3] = { 16, 7, 1 };
    ew_error err = { 0 };
    ew_model_info info;
    ew_runtime *rt;
    int32_t ids[N_IDS];
    uint32_t at = 0;

    opts.flags = EW_BUILD_NO_TIMING | EW_BUILD_ALL_LOGITS | EW_BUILD_EXACT_KV;
    opts.activations = activations;
    opts.max_kv_len = 64;
    opts.max_input_len = 32;
    ro.n_threads = 1;
    if (ew_model_build(model, WORK "/engine", &opts, false, &err) ||
        ew_runtime_open(WORK "/engine", &ro, &rt, &err))
        fail_msg("%s: %s", model, err.text);
    ew_runtime_get_model(rt, &info);
    *vocab = info.vocab;
    for (uint32_t i = 0; i < N_IDS; i++)
        ids[i] = (int32_t)((i * 7919u + 13u) % info.vocab);
    float *const out = calloc((size_t)N_IDS * info.vocab, sizeof(*out));
    assert_non_null(out);
    for (size_t s = 0; s < 3; at += steps[s++])
        if (ew_runtime_forward(rt, 0, ids + at, steps[s], N_IDS, out + (size_t)at * info.vocab,
                               steps[s], &err))
            fail_msg("%s: %s", model, err.text);
    ew_runtime_destroy(rt);
    return out;
}

static void export_model(const char *model, ew_activations activations, const char *dir,
                         uint32_t flags)
{
    ew_checkpoint_opts opts = EW_CHECKPOINT_OPTS_INIT;
    ew_onnx_save_opts save = EW_ONNX_SAVE_OPTS_INIT;
    ew_graph *g = NULL;
    ew_error err = { 0 };

    save.flags = flags;
    opts.activations = activations;
    if (ew_graph_from_checkpoint(model, &opts, &g, &err) || ew_graph_save_onnx(g, dir, &save, &err))
        fail_msg("%s: %s", model, err.text);
    ew_graph_destroy(g);
}

static void check_model_as(const char *model, ew_activations activations)
{
    static const uint32_t forms[2] = { 0, EW_ONNX_SPLIT_QKV };
    uint32_t vocab, same_vocab;
    float *const want = logits_of(model, activations, &vocab);
    double size = 0;

    for (size_t i = 0; i < (size_t)N_IDS * vocab; i++)
        size += (double)(want[i] * want[i]);
    assert_true(size > 0); /* not a comparison of nothing */
    for (size_t f = 0; f < 2; f++) {
        export_model(model, activations, WORK "/onnx", forms[f]);
        float *const got = logits_of(WORK "/onnx", EW_ACTIVATIONS_EXACT, &same_vocab);

        assert_int_equal(vocab, same_vocab);
        for (size_t i = 0; i < (size_t)N_IDS * vocab; i++)
            if (memcmp(&want[i], &got[i], sizeof(float)) != 0)
                fail_msg("%s, %s: token %zu, logit %zu is %.9g, directly %.9g", model,
                         f ? "split" : "packed", i / vocab, i % vocab, (double)got[i],
                         (double)want[i]);
        free(got);
    }
    free(want);
}

static void check_model(const char *model)
{
    check_model_as(model, EW_ACTIVATIONS_EXACT);
}

/* The int4 plugin, DequantizeLinear with rows, blocks and zero points, two levels, exponents; x as
 * it is and rounded as the checkpoint says. */
static void test_quantised(void **state)
{
    static const struct {
        const char *scheme, *method;
        uint32_t group;
        bool asymmetric;
        bool rounds_x; /* its config declares activations that its tensors have scales for */
    } cases[] = {
        { "int4", "rtn", 128, false, false }, { "int4", "rtn", 32, true, false },
        { "int8", NULL, 0, false, true },     { "fp8", NULL, 0, false, true },
        { "nvfp4", NULL, 0, false, false },   { "mxfp4", NULL, 0, false, false },
    };
    static const char dir[] = WORK "/quantised";
    ew_error err = { 0 };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        ew_quantize_opts opts = EW_QUANTIZE_OPTS_INIT;

        opts.scheme = cases[i].scheme;
        opts.method = cases[i].method;
        opts.group = cases[i].group;
        opts.asymmetric = cases[i].asymmetric;
        opts.calibration_tokens = 256;
        ew_dir_remove(dir);
        if (ew_quantize(EW_SOURCE_DIR "/models/tiny", dir, &opts, NULL, &err))
            fail_msg("%s: %s", cases[i].scheme, err.text);
        check_model_as(dir, EW_ACTIVATIONS_EXACT);
        if (cases[i].rounds_x)
            check_model_as(dir, EW_ACTIVATIONS_DECLARED);
    }
    ew_dir_remove(dir);
}

static void test_tiny(void **state)
{
    (void)state;
    check_model(EW_SOURCE_DIR "/models/tiny");
}

static void test_families(void **state)
{
    DIR *const dir = opendir(FAMILIES);
    const struct dirent *entry;
    int n = 0;

    (void)state;
    assert_non_null(dir);
    while ((entry = readdir(dir)) != NULL) {
        char path[1024];

        if (entry->d_name[0] == '.' || strchr(entry->d_name, '.'))
            continue; /* a script or a table */
        assert_true(snprintf(path, sizeof(path), "%s/%s", FAMILIES, entry->d_name) < 1024);
        check_model(path);
        n++;
    }
    assert_int_equal(closedir(dir), 0);
    print_message("%d families\n", n);
    assert_true(n >= 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiny),
        cmocka_unit_test(test_quantised),
        cmocka_unit_test(test_families),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Passes on graphs in text form: tests/graph/(name).txt holds a graph, the passes to run, and what
 * must come out. With the argument "--update" the expected halves are written anew (read the diff
 * before committing it). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/size.h"
#include "pass/pass.h"

static const struct {
    const char *name;
    ew_pass_fn *fn;
} k_passes[] = {
    { "fold", ew_pass_fold },
    { "simplify", ew_pass_simplify },
    { "half_to_f32", ew_pass_half_to_f32 },
    { "recognise_linear", ew_pass_recognise_linear },
    { "lower_x_quant", ew_pass_lower_x_quant },
    { "recognise_norm", ew_pass_recognise_norm },
    { "recognise_act", ew_pass_recognise_act },
    { "fuse_qk_norm", ew_pass_fuse_qk_norm },
    { "fuse_qkv", ew_pass_fuse_qkv },
    { "fuse_glu", ew_pass_fuse_glu },
    { "fuse_epilogue", ew_pass_fuse_epilogue },
    { "fuse_pointwise", ew_pass_fuse_pointwise },
};

static bool update;

static char *read_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    char *text = calloc(1, 1 << 20);

    assert_non_null(f);
    assert_non_null(text);
    (void)fread(text, 1, (1 << 20) - 1, f);
    fclose(f);
    return text;
}

static void run_named(struct ew_graph *g, const char *name)
{
    ew_error err = { EW_STATUS_OK, "" };
    ew_status st = EW_STATUS_INVALID_ARG;
    size_t n = 0;

    if (strcmp(name, "all") == 0)
        st = ew_passes_run(g, 0, NULL, &err);
    for (size_t i = 0; i < EW_COUNT(k_passes); i++) {
        if (strcmp(k_passes[i].name, name) != 0)
            continue;
        st = k_passes[i].fn(g, &n, &err);
        (void)ew_graph_sweep(g);
    }
    if (st)
        fail_msg("pass %s: %s", name, err.text);
    st = ew_graph_verify(g, &err);
    if (st)
        fail_msg("after pass %s: %s", name, err.text);
}

static void run_listed(struct ew_graph *g, const char *list)
{
    char names[256], *save = NULL;

    snprintf(names, sizeof(names), "%s", list);
    for (char *p = strtok_r(names, " ", &save); p; p = strtok_r(NULL, " ", &save))
        run_named(g, p);
}

static char *print(const struct ew_graph *g)
{
    ew_error err;
    char *text = NULL;

    assert_int_equal(ew_graph_text(g, &text, &err), EW_STATUS_OK);
    return text;
}

static void write_expected(const char *path, const char *head, const char *in, const char *out)
{
    FILE *f = fopen(path, "wb");

    assert_non_null(f);
    fprintf(f, "%s\n--- in\n%s--- out\n%s", head, in, out);
    fclose(f);
}

/* "# words", "passes: a b", "--- in", graph, "--- out", graph. Runs twice: the second time nothing
 * may change. */
static void check_file(const char *name)
{
    char path[512];
    char *text, *in, *want, *passes, *got, *again;
    struct ew_graph *g = NULL;
    ew_error err = { EW_STATUS_OK, "" };

    snprintf(path, sizeof(path), "%s/tests/graph/%s.txt", EW_SOURCE_DIR, name);
    text = read_file(path);
    in = strstr(text, "\n--- in\n");
    assert_non_null(in);
    *in = '\0';
    in += strlen("\n--- in\n");
    want = strstr(in, "--- out\n");
    assert_non_null(want);
    *want = '\0';
    want += strlen("--- out\n");
    passes = strstr(text, "passes:");
    assert_non_null(passes);
    passes += strlen("passes:");
    if (ew_graph_parse(in, strlen(in), &g, &err))
        fail_msg("%s: %s", name, err.text);
    run_listed(g, passes);
    got = print(g);
    if (update)
        write_expected(path, text, in, got);
    else if (strcmp(got, want) != 0)
        fail_msg("%s gives\n%s", name, got);
    run_listed(g, passes);
    again = print(g);
    assert_string_equal(again, got);
    ew_text_free(got);
    ew_text_free(again);
    ew_graph_destroy(g);
    free(text);
}

#define FILE_TEST(name)                                                                            \
    static void test_##name(void **state)                                                          \
    {                                                                                              \
        (void)state;                                                                               \
        check_file(#name);                                                                         \
    }
/* clang-format off */
#define FILES(X) \
    X(fold_shapes) X(fold_constants) X(simplify) X(linear) X(norm) X(act) X(half) \
    X(qk_norm_head) X(qk_norm_full) X(qkv_bias) X(qkv_split) X(glu) X(glu_halves) \
    X(epilogue) X(not_fused) X(pointwise) X(decoder) X(dequantize) X(x_quant) \
    X(quant_joined) X(quant_not_joined) X(quant_all)
/* clang-format on */
FILES(FILE_TEST)

static void test_kv_dtype(void **state)
{
    static const char text[] = "graph \"g\" {\n"
                               "  input %past_key_values_0: f32[batch, 2, 1, cap, 4]\n"
                               "  %y: f32[batch, 2, 1, cap, 4] = Identity(%past_key_values_0)\n"
                               "  output %y aliases %past_key_values_0\n"
                               "}\n";
    struct ew_graph *g;
    ew_error err;

    (void)state;
    assert_int_equal(ew_graph_parse(text, sizeof(text) - 1, &g, &err), EW_STATUS_OK);
    assert_int_equal(ew_pass_set_kv_dtype(g, EW_DTYPE_F16, &err), EW_STATUS_OK);
    assert_int_equal(g->outputs[0]->type.dtype, EW_DTYPE_F16);
    assert_int_equal(ew_graph_verify(g, &err), EW_STATUS_OK);
    assert_int_equal(ew_pass_set_kv_dtype(g, EW_DTYPE_U8, &err), EW_STATUS_UNSUPPORTED);
    assert_int_equal(ew_pass_set_kv_dtype(g, EW_DTYPE_I8, &err), EW_STATUS_OK);
    assert_int_equal(g->outputs[0]->type.dtype, EW_DTYPE_I8);
    assert_int_equal(g->outputs[0]->type.dim[4], 8); /* 4 codes and a scale */
    assert_int_equal(ew_pass_set_kv_dtype(g, EW_DTYPE_F8E4M3, &err), EW_STATUS_OK);
    assert_int_equal(g->outputs[0]->type.dim[4], 4);
    ew_graph_destroy(g);
}

int main(int argc, char **argv)
{
#define FILE_ENTRY(name) cmocka_unit_test(test_##name),
    const struct CMUnitTest tests[] = { FILES(FILE_ENTRY) cmocka_unit_test(test_kv_dtype) };

    update = argc > 1 && strcmp(argv[1], "--update") == 0;
    return cmocka_run_group_tests(tests, NULL, NULL);
}

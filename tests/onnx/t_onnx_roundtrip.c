/* t_onnx_roundtrip.c - export and import are inverse: a checkpoint's graph and the graph that comes
 * back from ONNX have the same nodes, attributes, types and weights, in the packed and in the split
 * form. */
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

static char g_dir[300];

static int set_up(void **state)
{
    (void)state;
    (void)snprintf(g_dir, sizeof(g_dir), "%s/t_onnx.%ld", EW_BINARY_DIR, (long)getpid());
    return 0;
}

static int tear_down(void **state)
{
    static const char *const names[] = { "model.onnx", "model.onnx.data", "config.json",
                                         "embedding.safetensors" };
    char path[400];

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", g_dir, names[i]);
        (void)unlink(path);
    }
    (void)rmdir(g_dir);
    return 0;
}

static void same_const(const struct ew_value *a, const struct ew_value *b)
{
    size_t bytes;

    assert_true(ew_type_equal(&a->type, &b->type));
    assert_true(ew_type_bytes(&a->type, &bytes));
    void *x = malloc(bytes + 1), *y = malloc(bytes + 1);
    assert_non_null(x);
    assert_non_null(y);
    ew_const_copy(a, x);
    ew_const_copy(b, y);
    assert_memory_equal(x, y, bytes);
    free(x);
    free(y);
}

/* Symbols are numbered anew: compared are numbers, and the names of symbols. */
static void same_type(const struct ew_graph *g, const struct ew_value *a, const struct ew_graph *h,
                      const struct ew_value *b)
{
    char x[256], y[256];

    assert_int_equal(a->type.dtype, b->type.dtype);
    assert_int_equal(a->type.n_dims, b->type.n_dims);
    for (int i = 0; i < a->type.n_dims; i++) {
        ew_dim_text(g->syms, a->type.dim[i], x, sizeof(x));
        ew_dim_text(h->syms, b->type.dim[i], y, sizeof(y));
        assert_string_equal(x, y);
    }
}

static void same_attrs(const struct ew_node *a, const struct ew_node *b)
{
    union ew_attrs x = a->attrs, y = b->attrs;

    if (a->op == EW_OP_KV_ATTENTION && x.kv_attention.qk_norm == EW_QK_NORM_NONE)
        x.kv_attention.qk_norm_eps = y.kv_attention.qk_norm_eps = 0; /* of no norm */
    if (!ew_op_attrs_equal(a->op, &x, &y))
        fail_msg("attributes of '%s' and '%s' differ", a->name, b->name);
}

/* pair[id of a value of g] = its counterpart in h. */
static void same_node(const struct ew_graph *g, const struct ew_node *a, const struct ew_graph *h,
                      const struct ew_node *b, const struct ew_value **pair)
{
    if (a->op != b->op || a->n_in != b->n_in || a->n_out != b->n_out)
        fail_msg("node '%s' (%s) came back as '%s' (%s)", a->name, ew_op_get(a->op)->name, b->name,
                 ew_op_get(b->op)->name);
    same_attrs(a, b);
    for (int i = 0; i < a->n_in; i++) {
        assert_int_equal(a->in[i] == NULL, b->in[i] == NULL);
        if (!a->in[i])
            continue;
        assert_int_equal(a->in[i]->is_const, b->in[i]->is_const);
        if (a->in[i]->is_const && !pair[a->in[i]->id])
            same_const(a->in[i], b->in[i]);
        else if (!a->in[i]->is_const)
            assert_ptr_equal(pair[a->in[i]->id], b->in[i]);
        pair[a->in[i]->id] = b->in[i];
    }
    for (int i = 0; i < a->n_out; i++) {
        same_type(g, a->out[i], h, b->out[i]);
        pair[a->out[i]->id] = b->out[i];
    }
}

static void same_graph(const struct ew_graph *g, const struct ew_graph *h)
{
    const struct ew_value **pair = calloc(g->n_values, sizeof(*pair));
    const struct ew_node *b = h->head;

    assert_non_null(pair);
    assert_int_equal(g->n_inputs, h->n_inputs);
    for (size_t i = 0; i < g->n_inputs; i++) {
        assert_string_equal(g->inputs[i]->name, h->inputs[i]->name);
        same_type(g, g->inputs[i], h, h->inputs[i]);
        pair[g->inputs[i]->id] = h->inputs[i];
    }
    for (const struct ew_node *a = g->head; a; a = a->next, b = b->next) {
        assert_non_null(b);
        same_node(g, a, h, b, pair);
    }
    assert_null(b);
    assert_int_equal(g->n_outputs, h->n_outputs);
    for (size_t i = 0; i < g->n_outputs; i++) {
        const struct ew_value *x = g->outputs[i], *y = h->outputs[i];
        assert_string_equal(x->name, y->name);
        assert_ptr_equal(pair[x->id], y);
        assert_int_equal(x->alias_of == NULL, y->alias_of == NULL);
        if (x->alias_of)
            assert_string_equal(x->alias_of->name, y->alias_of->name);
    }
    assert_string_equal(g->llm_config, h->llm_config);
    assert_int_equal(g->embedding == NULL, h->embedding == NULL);
    if (g->embedding)
        same_const(g->embedding, h->embedding);
    free(pair);
}

static void round_trip(const char *model, uint32_t flags)
{
    ew_onnx_save_opts opts = EW_ONNX_SAVE_OPTS_INIT;
    ew_graph *g = NULL, *h = NULL;
    ew_error err = { 0 };

    opts.flags = flags;
    if (ew_graph_from_checkpoint(model, NULL, &g, &err) ||
        ew_graph_save_onnx(g, g_dir, &opts, &err) || ew_graph_from_onnx(g_dir, &h, &err) ||
        ew_graph_verify(h, &err))
        fail_msg("%s: %s", model, err.text);
    same_graph(g, h);
    ew_graph_destroy(g);
    ew_graph_destroy(h);
}

static void test_checkpoints(void **state)
{
    static const char *const names[] = { "models/tiny",
                                         "reference/architectures/gemma3",
                                         "reference/architectures/llama3-rope",
                                         "reference/architectures/phi3-longrope",
                                         "reference/architectures/qwen2",
                                         "reference/architectures/qwen3",
                                         "reference/architectures/qwen3-moe" };
    size_t n_done = 0;
    char path[400];

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        (void)snprintf(path, sizeof(path), "%s/../shared/%s", EW_SOURCE_DIR, names[i]);
        if (!ew_path_is_dir(path))
            continue;
        round_trip(path, 0);
        round_trip(path, EW_ONNX_SPLIT_QKV);
        n_done++;
    }
    if (!n_done)
        print_message("skipped: no checkpoints in ../shared\n");
}

/* What the reference system's exporter wrote: the language halves import, with caches aliased and
 * the output of attention flat; any number of tokens may be selected in a plain model. */
static void test_reference_exports(void **state)
{
    static const char *const names[] = { "tiny", "qwen2", "tiny-vl", "tiny-eagle-base",
                                         "small-eagle3-draft" };
    ew_error err = { 0 };
    size_t n_done = 0;
    char path[400];

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        ew_graph *g = NULL;
        size_t n_attention = 0, n_alias = 0;
        (void)snprintf(path, sizeof(path), "%s/../shared/reference/edgellm-exports/%s/llm",
                       EW_SOURCE_DIR, names[i]);
        if (!ew_path_is_dir(path))
            continue;
        if (ew_graph_from_onnx(path, &g, &err) || ew_graph_verify(g, &err))
            fail_msg("%s: %s", path, err.text);
        for (const struct ew_node *n = g->head; n; n = n->next)
            n_attention += n->op == EW_OP_KV_ATTENTION;
        for (size_t o = 0; o < g->n_outputs; o++)
            n_alias += g->outputs[o]->alias_of != NULL;
        assert_true(n_attention > 0);
        assert_int_equal(n_attention, n_alias);
        const struct ew_value *last = ew_graph_find(g, "last_token_ids");
        assert_true(last->type.dim[1] < 0);
        assert_int_equal(g->embedding == NULL, strcmp(names[i], "small-eagle3-draft") == 0);
        ew_graph_destroy(g);
        n_done++;
    }
    if (!n_done)
        print_message("skipped: no exports in ../shared\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checkpoints),
        cmocka_unit_test(test_reference_exports),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

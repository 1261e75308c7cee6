/* The IR: building, rewiring, inference with symbols, the verifier's refusals, and the text form
 * both ways. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/size.h"
#include "graph/ir.h"

static struct ew_graph *parse(const char *text)
{
    struct ew_graph *g = NULL;
    ew_error err = { EW_STATUS_OK, "" };

    if (ew_graph_parse(text, strlen(text), &g, &err))
        fail_msg("%s", err.text);
    return g;
}

static void expect_round_trip(const char *text)
{
    struct ew_graph *g = parse(text), *h;
    char *first, *second;

    assert_int_equal(ew_graph_text(g, &first, NULL), EW_STATUS_OK);
    h = parse(first);
    assert_int_equal(ew_graph_text(h, &second, NULL), EW_STATUS_OK);
    assert_string_equal(first, second);
    assert_string_equal(first, text);
    ew_text_free(first);
    ew_text_free(second);
    ew_graph_destroy(g);
    ew_graph_destroy(h);
}

static void test_text_round_trip(void **state)
{
    (void)state;
    expect_round_trip("graph \"all \\\"kinds\\\"\" {\n"
                      "  symbols batch, seq, past_len\n"
                      "  llm_config \"{\\\"a\\\": 1}\"\n"
                      "  input %x: f32[batch, seq, 4]\n"
                      "  input %\"odd name: %1\": f16[seq + past_len]\n"
                      "  input %e: i64[3]\n"
                      "  const %i: i64[3] = {-9223372036854775808, 0, 9223372036854775807}\n"
                      "  const %f: f32[4] = {0.100000001, -0, inf, nan}\n"
                      "  const %h: f16[2] = {1.5, -65504}\n"
                      "  const %d: f64[] = {0.10000000000000001}\n"
                      "  const %n: i4[3] = {-8, 7, 1}\n"
                      "  const %none: i64[0] = {}\n"
                      "  const %d1: f32[] = {6}\n"
                      "  const %k: i64[1] = {2}\n"
                      "  const %m: f32[1] = {6}\n"
                      "  const %big: bf16[100, 4] = zeros\n"
                      "  embedding %big\n"
                      "  %y: f32[batch, seq, 4] = Elu(%x) {alpha = 0.25}\n"
                      "  %c: f32[batch, seq, 4] = Clip(%y, _, %d1) \"node name\"\n"
                      "  %p: f32[batch, seq, 4] = Pointwise(%c) {program = [r1 = mul r0 r0; r2 = "
                      "add_imm r1 0.5]}\n"
                      "  %t: f32[4, seq, batch] = Transpose(%p) {perm = [2, 1, 0]}\n"
                      "  %v: f32[4, seq, 2], %idx: i64[4, seq, 2] = TopK(%t, %k)\n"
                      "  %q: f32[div(seq, 3), ?1, max(batch, seq)] = Expand(%m, %e)\n"
                      "  %i.out: i64[3] = Identity(%i)\n"
                      "  %f.out: f32[4] = Identity(%f)\n"
                      "  %h.out: f16[2] = Identity(%h)\n"
                      "  %d.out: f64[] = Identity(%d)\n"
                      "  %n.out: i4[3] = Identity(%n)\n"
                      "  %none.out: i64[0] = Identity(%none)\n"
                      "  output %v\n"
                      "  output %q\n"
                      "  output %i.out\n"
                      "  output %f.out\n"
                      "  output %h.out\n"
                      "  output %d.out\n"
                      "  output %n.out\n"
                      "  output %none.out\n"
                      "}\n");
}

static void test_inference_of_a_decoder(void **state)
{
    struct ew_graph *g;
    char text[64];
    ew_error err = { EW_STATUS_OK, "" };
    const int64_t emb[3] = { 0, 0, 64 };
    struct ew_type t = ew_type_make(EW_DTYPE_F32, 3, emb);
    struct ew_value *x, *shape, *zero, *one, *b, *s, *bs, *in[4];
    struct ew_node *n;
    union ew_attrs attrs;

    (void)state;
    assert_int_equal(ew_graph_create("d", &g, &err), EW_STATUS_OK);
    t.dim[0] = ew_dim_symbol(g->syms, "batch");
    t.dim[1] = ew_dim_symbol(g->syms, "seq");
    x = ew_graph_add_input(g, "x", &t);
    assert_int_equal(ew_graph_add_node(g, EW_OP_SHAPE, "shape", NULL, &x, 1, 1, &n, &err), 0);
    shape = n->out[0];
    zero = ew_graph_const_i64(g, "zero", (const int64_t[]){ 0 }, 1);
    one = ew_graph_const_i64(g, "one", (const int64_t[]){ 1 }, 1);
    in[0] = shape;
    in[1] = zero;
    assert_int_equal(ew_graph_add_node(g, EW_OP_GATHER, "b", NULL, in, 2, 1, &n, &err), 0);
    b = n->out[0];
    in[1] = one;
    assert_int_equal(ew_graph_add_node(g, EW_OP_GATHER, "s", NULL, in, 2, 1, &n, &err), 0);
    s = n->out[0];
    in[0] = b;
    in[1] = s;
    assert_int_equal(ew_graph_add_node(g, EW_OP_MUL, "bs", NULL, in, 2, 1, &n, &err), 0);
    bs = n->out[0];
    assert_non_null(bs->known);
    assert_true(bs->known[0] == ew_dim_mul(g->syms, t.dim[0], t.dim[1]));
    in[0] = bs;
    in[1] = ew_graph_const_i64(g, "heads", (const int64_t[]){ 4, -1 }, 2);
    ew_op_attrs_init(EW_OP_CONCAT, &attrs);
    assert_int_equal(ew_graph_add_node(g, EW_OP_CONCAT, "to", &attrs, in, 2, 1, &n, &err), 0);
    in[1] = n->out[0];
    in[0] = x;
    assert_int_equal(ew_graph_add_node(g, EW_OP_RESHAPE, "r", NULL, in, 2, 1, &n, &err), 0);
    ew_dim_text(g->syms, n->out[0]->type.dim[0], text, sizeof(text));
    assert_string_equal(text, "batch*seq");
    assert_int_equal(n->out[0]->type.dim[1], 4);
    assert_int_equal(n->out[0]->type.dim[2], 16);
    assert_int_equal(ew_graph_infer(g, &err), EW_STATUS_OK);
    assert_int_equal(n->out[0]->type.dim[2], 16);
    ew_graph_destroy(g);
}

static const char k_small[] = "graph \"s\" {\n"
                              "  input %x: f32[n, 4]\n"
                              "  %a: f32[n, 4] = Exp(%x)\n"
                              "  %b: f32[n, 4] = Add(%a, %a)\n"
                              "  output %b\n"
                              "}\n";

static void test_uses_and_rewiring(void **state)
{
    struct ew_graph *g = parse(k_small);
    struct ew_value *x = ew_graph_find(g, "x"), *a = ew_graph_find(g, "a"),
                    *b = ew_graph_find(g, "b");
    struct ew_node *neg, *exp_node = a->producer;
    ew_error err;

    (void)state;
    assert_int_equal(a->n_uses, 2);
    assert_null(ew_value_single_use(g, a));
    assert_ptr_equal(ew_value_single_use(g, x), exp_node);
    assert_int_equal(
        ew_graph_insert_node(g, b->producer, EW_OP_NEG, "neg", NULL, &a, 1, 1, &neg, &err),
        EW_STATUS_OK);
    assert_ptr_equal(exp_node->next, neg);
    ew_graph_replace_uses(g, b, neg->out[0]); /* the output moves, with its name */
    assert_ptr_equal(g->outputs[0], neg->out[0]);
    assert_string_equal(neg->out[0]->name, "b");
    assert_ptr_equal(ew_graph_find(g, "b"), neg->out[0]);
    assert_int_equal(ew_graph_sweep(g), 1);
    assert_int_equal(a->n_uses, 1);
    assert_int_equal(ew_graph_verify(g, &err), EW_STATUS_OK);
    assert_false(ew_graph_can_replace(neg->out[0], x));
    ew_graph_replace_uses(g, neg->out[0], x); /* refused: an input cannot be an output */
    assert_ptr_equal(g->outputs[0], neg->out[0]);
    assert_int_equal(ew_graph_add_output(g, x, "copy", &err), EW_STATUS_OK); /* by an Identity */
    assert_int_equal(g->outputs[1]->producer->op, EW_OP_IDENTITY);
    assert_string_equal(g->outputs[1]->name, "copy");
    assert_int_equal(ew_graph_verify(g, &err), EW_STATUS_OK);
    ew_graph_destroy(g);
}

static void expect_refusal(struct ew_graph *g, const char *first, const char *second)
{
    ew_error err = { EW_STATUS_OK, "" };

    assert_int_not_equal(ew_graph_verify(g, &err), EW_STATUS_OK);
    if (!strstr(err.text, first) || !strstr(err.text, second))
        fail_msg("'%s' names neither '%s' nor '%s'", err.text, first, second);
    ew_graph_destroy(g);
}

static void test_verifier_refuses(void **state)
{
    struct ew_graph *g;
    struct ew_node *n;

    (void)state;
    g = parse(k_small); /* uses */
    ew_graph_find(g, "a")->n_uses = 3;
    expect_refusal(g, "'a'", "3");
    g = parse(k_small); /* order: Exp after Add */
    n = g->head;
    g->head = n->next;
    g->head->prev = NULL;
    g->tail->next = n;
    n->prev = g->tail;
    n->next = NULL;
    g->tail = n;
    expect_refusal(g, "'b'", "'a'");
    g = parse(k_small); /* producer */
    ew_graph_find(g, "a")->out_idx = 1;
    expect_refusal(g, "'a'", "1");
    g = parse(k_small); /* arity */
    g->tail->n_in = 1;
    expect_refusal(g, "'b'", "has 1 inputs");
    g = parse(k_small); /* dtype */
    ew_graph_find(g, "x")->type.dtype = (ew_dtype)77;
    expect_refusal(g, "'x'", "77");
    g = parse(k_small); /* alias of something else */
    g->outputs[0]->alias_of = ew_graph_find(g, "a");
    expect_refusal(g, "'b'", "'a'");
    g = parse(k_small);
    g->outputs[0]->alias_of = ew_graph_find(g, "x");
    g->outputs[0]->type.dim[1] = 5;
    expect_refusal(g, "'b'", "5");
}

static void test_verifier_checks_parts(void **state)
{
    static const float w[12];
    const struct ew_weight_part parts[2] = { { w, 2, 4, 1, NULL, 0 }, { w, 1, 1, 3, NULL, 0 } };
    const int64_t dims[2] = { 3, 4 };
    struct ew_type t = ew_type_make(EW_DTYPE_F32, 2, dims);
    struct ew_graph *g = parse(k_small);
    struct ew_value *v = ew_graph_add_const_parts(g, "w", &t, parts, 2);
    ew_error err;

    (void)state;
    assert_non_null(v);
    assert_int_equal(ew_graph_verify(g, &err), EW_STATUS_OK);
    v->type.dim[0] = 4;
    expect_refusal(g, "'w'", "3 rows");
}

static void test_parts_are_gathered(void **state)
{
    static const float kn[6] = { 1, 2, 3, 4, 5, 6 }; /* [K=2, N=3] */
    static const float nk[2] = { 7, 8 };
    const struct ew_weight_part parts[2] = { { kn, 3, 1, 3, NULL, 0 }, { nk, 1, 2, 1, NULL, 0 } };
    const float want[8] = { 1, 4, 2, 5, 3, 6, 7, 8 };
    const int64_t dims[2] = { 4, 2 };
    const struct ew_type t = ew_type_make(EW_DTYPE_F32, 2, dims);
    struct ew_graph *g = parse(k_small);
    float got[8];

    (void)state;
    ew_const_copy(ew_graph_add_const_parts(g, "w", &t, parts, 2), got);
    assert_memory_equal(got, want, sizeof(want));
    ew_graph_destroy(g);
}

/* One line each inside a graph with an input %x: f32[n, 4]; the error must hold the words. */
static void test_parser_refuses(void **state)
{
    static const struct {
        const char *line, *words;
    } bad[] = {
        { "%a: f32[n, 4] = Exp(%y)", "'y' is not defined" },
        { "%x: f32[n, 4] = Exp(%x)", "'x' is defined twice" },
        { "%a: f32[n, 5] = Exp(%x)", "f32[?,5], it is f32[?,4]" },
        { "%a: f32[n, 4] = Foo(%x)", "'Foo' is not known" },
        { "%a: f32[n, 4] = Exp(%x) {alpha = 1}", "no attribute 'alpha'" },
        { "%a: f32[n, 4] = Elu(%x) {alpha = x}", "a number" },
        { "%a: f32[n, 4] = Exp(%x, %x)", "has 2 inputs" },
        { "%a: f32[n, 4] = Exp(_)", "input 0 is absent" },
        { "%a: f32[n, 4] = Exp(%x", "')'" },
        { "%a: f32[n 4] = Exp(%x)", "a dim" },
        { "%a: q9[n, 4] = Exp(%x)", "'q9' is no dtype" },
        { "const %c: f32[100] = hash 00", "printed without its contents" },
        { "const %c: f32[8, 64] = hash 00 of i8 rows", "printed without its contents" },
        { "const %c: f32[8, 64] = zeros of i4 g20 f16", "no such quantised format" },
        { "const %c: f32[8, 64] = zeros of i4 zero g32 f16", "no such quantised format" },
        { "const %c: f32[8, 64] = zeros of f32 rows", "no such quantised format" },
        { "const %c: f16[8, 64] = zeros of i8 rows", "is no f32 matrix" },
        { "const %c: f32[64] = zeros of i8 rows", "is no f32 matrix" },
        { "const %c: f32[2] = {1}", "','" },
        { "const %c: f32[2] = {1, 2, 3}", "'}'" },
        { "const %c: f32[n] = zeros", "no fixed size" },
        { "const %c: f32[99999999999] = zeros", "are left of" },
        { "const %c: f32[99999999999] = {1", "all elements" },
        { "const %c: f32[1] 0", "'='" },
        { "output %x", "cannot be an output" },
        { "input %i: f32[1, 1, 1, 1, 1, 1, 1, 1, 1]", "at most 8 dims" },
        { "input %i: f32[-3]", "a dim" },
        { "nonsense", "'%'" },
        { "%\"\": f32[n, 4] = Exp(%x)", "a name is empty" },
        { "%a: f32[n, 4] = Pointwise(%x) {program = [r1 = add r0 r2]}", "not written before" },
    };

    (void)state;
    for (size_t i = 0; i < EW_COUNT(bad); i++) {
        struct ew_graph *g = NULL;
        ew_error err = { EW_STATUS_OK, "" };
        char text[512];
        snprintf(text, sizeof(text), "graph \"g\" {\n  input %%x: f32[n, 4]\n  %s\n}\n",
                 bad[i].line);
        assert_int_not_equal(ew_graph_parse(text, strlen(text), &g, &err), EW_STATUS_OK);
        assert_null(g);
        if (!strstr(err.text, bad[i].words) || !strstr(err.text, "line 3"))
            fail_msg("'%s' gives '%s'", bad[i].line, err.text);
    }
}

static void count_release(void *obj)
{
    ++*(int *)obj;
}

static void test_owners_and_stats(void **state)
{
    struct ew_graph *g = parse(k_small);
    ew_graph_stats stats;
    int released = 0;

    (void)state;
    assert_int_equal(ew_graph_own(g, &released, count_release), EW_STATUS_OK);
    ew_graph_get_stats(g, &stats);
    assert_int_equal(stats.n_nodes, 2);
    assert_int_equal(stats.n_inputs, 1);
    assert_int_equal(stats.n_constants, 0);
    assert_null(ew_graph_llm_config(g));
    ew_graph_destroy(g);
    assert_int_equal(released, 1);
    ew_graph_destroy(NULL);
}

static void test_names_stay_unique(void **state)
{
    struct ew_graph *g = parse(k_small);
    struct ew_value *x = ew_graph_find(g, "x");
    struct ew_node *n;
    char name[32];
    ew_error err;

    (void)state;
    for (int i = 1; i < 50; i++) {
        assert_int_equal(ew_graph_add_node(g, EW_OP_NEG, "a", NULL, &x, 1, 1, &n, &err), 0);
        snprintf(name, sizeof(name), "a.%d", i);
        assert_string_equal(n->out[0]->name, name);
    }
    assert_null(ew_graph_find(g, "\1a")); /* the counter of suffixes is no value */
    assert_int_equal(ew_value_rename(g, n->out[0], "x", &err), EW_STATUS_MISMATCH);
    assert_int_equal(ew_value_rename(g, n->out[0], "a", &err), EW_STATUS_OK);
    assert_ptr_equal(ew_graph_find(g, "a"), n->out[0]);
    assert_int_equal(ew_graph_verify(g, &err), EW_STATUS_OK);
    ew_graph_destroy(g);
}

/* Every allocation of parsing fails once: a status, no crash, no leak (the sanitizer sees to it).
 */
static void test_out_of_memory(void **state)
{
    (void)state;
    for (uint64_t k = 1; k < 100; k++) {
        struct ew_graph *g = NULL;
        ew_status st;
        ew_mem_fail_at(k);
        st = ew_graph_parse(k_small, sizeof(k_small) - 1, &g, NULL);
        ew_mem_fail_at(0);
        if (!st) {
            ew_graph_destroy(g);
            return;
        }
        assert_null(g);
    }
    fail_msg("parsing never succeeded");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_round_trip),       cmocka_unit_test(test_inference_of_a_decoder),
        cmocka_unit_test(test_uses_and_rewiring),     cmocka_unit_test(test_verifier_refuses),
        cmocka_unit_test(test_verifier_checks_parts), cmocka_unit_test(test_parts_are_gathered),
        cmocka_unit_test(test_parser_refuses),        cmocka_unit_test(test_owners_and_stats),
        cmocka_unit_test(test_names_stay_unique),     cmocka_unit_test(test_out_of_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The passes keep the numbers: graphs of tests/graph are run before and after all passes, op by op,
 * with the same weights.
 *
 * General ops run by their general kernels; fused ops by the few lines here that spell their
 * contract in double. KvAttention is stood in for by a function of the same inputs that notices any
 * mix-up of q, k, v, heads and norms. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "base/size.h"
#include "kernels/general.h"
#include "kernels/xquant.h"
#include "pass/pass.h"

enum { BATCH = 2, SEQ = 3, OTHER = 8 };

struct tensor {
    struct ew_view view;
    bool is_set;
};

/* ---- numbers that depend on a name alone ---- */

static double next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (double)(*state >> 40) / (double)(1 << 24) - 0.5;
}

static void fill_floats(struct ew_view *v, const char *name)
{
    uint64_t state = ew_hash64(name, strlen(name), 1);
    size_t n = 0;

    assert_true(ew_type_count(&v->type, &n));
    for (size_t i = 0; i < n; i++)
        ew_elem_set_f64(v->data, v->type.dtype, i, next_random(&state));
}

static bool is_zero(const void *data, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        if (((const char *)data)[i])
            return false;
    return true;
}

/* Codes of a quantised weight. */
static void fill_codes(struct ew_view *v, const char *name)
{
    uint64_t state = ew_hash64(name, strlen(name), 1);
    const double half = ldexp(1, (int)ew_dtype_bits(v->type.dtype) - 1);
    size_t n = 0;

    assert_true(ew_type_count(&v->type, &n));
    for (size_t i = 0; i < n; i++)
        ew_elem_set_i64(v->data, v->type.dtype, i, (int64_t)floor(2 * half * next_random(&state)));
}

static void fill_weights(struct ew_graph *g)
{
    for (uint32_t i = 0; i < g->n_values; i++) {
        struct ew_value *v = g->values[i];
        struct ew_view view = { .type = v->type };
        size_t bytes;
        const bool is_codes = v->type.dtype == EW_DTYPE_I8 || v->type.dtype == EW_DTYPE_I4;
        if (!v->is_const || v->type.n_dims == 0 || !ew_type_bytes(&v->type, &bytes) ||
            (!is_codes && !ew_dtype_is_float(v->type.dtype)) || !is_zero(v->con.data, bytes))
            continue;
        memcpy(&view.data, &v->con.data, sizeof(void *));
        if (is_codes)
            fill_codes(&view, v->name);
        else
            fill_floats(&view, v->name);
    }
}

/* ---- fused ops by their contracts ---- */

static double get(const struct tensor *t, size_t i)
{
    return ew_elem_get_f64(t->view.data, t->view.type.dtype, i);
}

static void set(struct tensor *t, size_t i, double x)
{
    ew_elem_set_f64(t->view.data, t->view.type.dtype, i, x);
}

static size_t last_dim(const struct tensor *t)
{
    return (size_t)t->view.type.dim[t->view.type.n_dims - 1];
}

static size_t count(const struct tensor *t)
{
    size_t n = 0;

    assert_true(ew_type_count(&t->view.type, &n));
    return n;
}

static double act(int kind, double x)
{
    switch (kind) {
    case EW_ACT_SILU:
        return x / (1 + exp(-x));
    case EW_ACT_GELU_TANH:
        return 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
    case EW_ACT_GELU_ERF:
        return 0.5 * x * (1 + erf(x / 1.4142135623730951));
    case EW_ACT_RELU:
        return x > 0 ? x : 0;
    case EW_ACT_RELU2:
        return x > 0 ? x * x : 0;
    default:
        return x;
    }
}

static double linear_row(const struct ew_attr_linear *a, const struct tensor *const *in, size_t row,
                         size_t n)
{
    const size_t k = last_dim(in[0]);
    double z = 0;

    for (size_t i = 0; i < k; i++)
        z += get(in[0], row * k + i) * get(in[1], n * k + i);
    z = (z + (in[2] ? get(in[2], n) : 0)) * (double)a->scale;
    return a->softcap != 0.0f ? (double)a->softcap * tanh(z / (double)a->softcap) : z;
}

static void run_linear(const struct ew_node *node, const struct tensor *const *in,
                       struct tensor *out)
{
    const struct ew_attr_linear *a = &node->attrs.linear;
    const size_t n = last_dim(out), rows = count(out) / n, k = last_dim(in[0]);
    const struct ew_x_rounding round = { a->x_quant, (size_t)a->x_block, a->x_scale };

    if (a->x_quant != EW_XQ_NONE) {
        struct tensor rounded = *in[0];
        const struct tensor *const again[4] = { &rounded, in[1], in[2], in[3] };
        struct ew_node plain = *node;

        plain.attrs.linear.x_quant = EW_XQ_NONE;
        rounded.view.data = malloc(rows * k * sizeof(float));
        assert_non_null(rounded.view.data);
        for (size_t r = 0; r < rows; r++)
            ew_x_round_row(&round, (float *)rounded.view.data + r * k,
                           (const float *)in[0]->view.data + r * k, k);
        run_linear(&plain, again, out);
        free(rounded.view.data);
        return;
    }
    for (size_t r = 0; r < rows; r++) {
        for (size_t i = 0; i < n; i++) {
            double y = act(a->act, linear_row(a, in, r, i));
            if (a->glu)
                y *= linear_row(a, in, r, n + i);
            set(out, r * n + i, y + (in[3] ? get(in[3], r * n + i) : 0));
        }
    }
}

static void run_norm(const struct ew_node *node, const struct tensor *const *in, struct tensor *out)
{
    const size_t n = last_dim(out), rows = count(out) / n;

    for (size_t r = 0; r < rows; r++) {
        double sum = 0;
        for (size_t i = 0; i < n; i++)
            sum += get(in[0], r * n + i) * get(in[0], r * n + i);
        sum = 1 / sqrt(sum / (double)n + (double)node->attrs.fused_rms_norm.epsilon);
        for (size_t i = 0; i < n; i++)
            set(out, r * n + i,
                get(in[0], r * n + i) * sum * get(in[1], i) + (in[2] ? get(in[2], r * n + i) : 0));
    }
}

static double run_instr(const struct ew_pw_instr *c, const double *r)
{
    const double a = r[c->a], b = r[c->b], imm = (double)c->imm;

    switch (c->op) {
    case EW_PW_ADD:
        return a + b;
    case EW_PW_SUB:
        return a - b;
    case EW_PW_MUL:
        return a * b;
    case EW_PW_DIV:
        return a / b;
    case EW_PW_SIGMOID:
        return 1 / (1 + exp(-a));
    case EW_PW_TANH:
        return tanh(a);
    case EW_PW_SILU:
        return act(EW_ACT_SILU, a);
    case EW_PW_GELU_TANH:
        return act(EW_ACT_GELU_TANH, a);
    case EW_PW_GELU_ERF:
        return act(EW_ACT_GELU_ERF, a);
    case EW_PW_ADD_IMM:
        return a + imm;
    case EW_PW_MUL_IMM:
        return a * imm;
    default:
        fail_msg("instruction %u is not run here", c->op);
        return 0;
    }
}

static void run_pointwise(const struct ew_node *node, const struct tensor *const *in,
                          struct tensor *out)
{
    const struct ew_attr_pointwise *p = &node->attrs.pointwise;
    const size_t n = count(out);

    for (size_t i = 0; i < n; i++) {
        double r[EW_PW_MAX_REGS] = { 0 };
        for (int k = 0; k < node->n_in; k++)
            r[k] = get(in[k], count(in[k]) == 1 ? 0 : i);
        for (int k = 0; k < p->n_instr; k++)
            r[p->instr[k].dst] = run_instr(&p->instr[k], r);
        set(out, i, r[p->instr[p->n_instr - 1].dst]);
    }
}

static void run_matmul(const struct tensor *const *in, struct tensor *out)
{
    const size_t n = last_dim(out), k = last_dim(in[0]), rows = count(out) / n;

    assert_int_equal(in[1]->view.type.n_dims, 2);
    for (size_t r = 0; r < rows; r++) {
        for (size_t c = 0; c < n; c++) {
            double sum = 0;
            for (size_t i = 0; i < k; i++)
                sum += get(in[0], r * k + i) * get(in[1], i * n + c);
            set(out, r * n + c, sum);
        }
    }
}

/* Head h of q, k or v of one token, normed as the attributes say. */
static void kv_head(const struct ew_node *node, const struct tensor *const *in, int which,
                    size_t token, size_t h, double *out)
{
    const struct ew_attr_kv_attention *a = &node->attrs.kv_attention;
    const size_t d = (size_t)a->head_size, hq = (size_t)a->num_q_heads,
                 hkv = (size_t)a->num_kv_heads;
    const size_t heads = which == 0 ? hq : hkv;
    const size_t before = which == 0 ? 0 : which == 1 ? hq : hq + hkv;
    const struct tensor *src = a->packed_qkv ? in[0] : in[which];
    const struct tensor *w = which == 0 ? in[9] : which == 1 ? in[10] : NULL;
    const size_t base = a->packed_qkv ? (token * (hq + 2 * hkv) + before) * d : token * heads * d;
    const bool full = a->qk_norm == EW_QK_NORM_FULL;
    const size_t n = full ? heads * d : d, from = full ? 0 : h * d;
    double sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += get(src, base + from + i) * get(src, base + from + i);
    sum = 1 / sqrt(sum / (double)n + (double)a->qk_norm_eps);
    for (size_t i = 0; i < d; i++) {
        out[i] = get(src, base + h * d + i);
        if (w)
            out[i] *= sum * get(w, full ? h * d + i : i);
    }
}

static void run_kv_attention(const struct ew_node *node, const struct tensor *const *in,
                             struct tensor *out)
{
    const struct ew_attr_kv_attention *a = &node->attrs.kv_attention;
    const size_t d = (size_t)a->head_size, hq = (size_t)a->num_q_heads;
    const size_t group = hq / (size_t)a->num_kv_heads;
    double q[16], k[16], v[16];

    assert_true(d <= 16);
    for (size_t t = 0; t < count(out) / (hq * d); t++) {
        for (size_t h = 0; h < hq; h++) {
            double score = 0;
            kv_head(node, in, 0, t, h, q);
            kv_head(node, in, 1, t, h / group, k);
            kv_head(node, in, 2, t, h / group, v);
            for (size_t i = 0; i < d; i++)
                score += q[i] * k[i] * (double)(i + 1);
            for (size_t i = 0; i < d; i++)
                set(out, (t * hq + h) * d + i, v[i] * (1 + score));
        }
    }
}

/* ---- running ---- */

static void make_room(struct tensor *t, const struct ew_type *type)
{
    size_t bytes = 0;

    assert_true(ew_type_bytes(type, &bytes));
    t->view.type = *type;
    t->view.data = calloc(1, bytes + 64);
    t->is_set = true;
    assert_non_null(t->view.data);
}

static void run_general(const struct ew_node *n, const struct tensor *const *in,
                        struct tensor **out)
{
    const struct ew_view *views[12] = { NULL };
    struct ew_view *results[4] = { NULL };
    char scratch[1 << 17] __attribute__((aligned(64)));
    ew_error err = { EW_STATUS_OK, "" };

    for (int i = 0; i < n->n_in; i++)
        views[i] = in[i] ? &in[i]->view : NULL;
    for (int i = 0; i < n->n_out; i++)
        results[i] = out[i] ? &out[i]->view : NULL;
    if (ew_general_find(n->op)(&(struct ew_general_args){ n->op, &n->attrs, n->n_in, views,
                                                          n->n_out, results, scratch, &err }))
        fail_msg("node '%s': %s", n->name, err.text);
}

static void run_node(const struct ew_node *n, struct tensor *all)
{
    const struct tensor *in[12] = { NULL };
    struct tensor *out[4] = { NULL };

    assert_true(n->n_in <= 12 && n->n_out <= 4);
    for (int i = 0; i < n->n_in; i++)
        in[i] = n->in[i] ? &all[n->in[i]->id] : NULL;
    for (int i = 0; i < n->n_out; i++) {
        out[i] = n->out[i] ? &all[n->out[i]->id] : NULL;
        if (out[i])
            make_room(out[i], &n->out[i]->type);
    }
    switch (n->op) {
    case EW_OP_LINEAR:
        run_linear(n, in, out[0]);
        break;
    case EW_OP_FUSED_RMS_NORM:
        run_norm(n, in, out[0]);
        break;
    case EW_OP_POINTWISE:
        run_pointwise(n, in, out[0]);
        break;
    case EW_OP_MATMUL:
        run_matmul(in, out[0]);
        break;
    case EW_OP_KV_ATTENTION:
        run_kv_attention(n, in, out[0]);
        break;
    default:
        run_general(n, in, out);
    }
}

static void make_concrete(struct ew_graph *g)
{
    int64_t values[16];
    ew_error err = { EW_STATUS_OK, "" };

    for (size_t i = 0; i < EW_COUNT(values); i++) {
        const char *name = ew_symtab_symbol_name(g->syms, i);
        values[i] = name && strcmp(name, "batch") == 0 ? BATCH
                    : name && strcmp(name, "seq") == 0 ? SEQ
                    : name && name[0] == 'n'           ? 0
                                                       : OTHER;
    }
    for (size_t i = 0; i < g->n_inputs; i++)
        for (int d = 0; d < g->inputs[i]->type.n_dims; d++)
            g->inputs[i]->type.dim[d] = ew_dim_eval(g->syms, g->inputs[i]->type.dim[d], values, 16);
    if (ew_graph_infer(g, &err))
        fail_msg("%s", err.text);
}

/* All values of the graph, by id; free with drop_all. */
static struct tensor *run(struct ew_graph *g)
{
    struct tensor *all = calloc(g->n_values, sizeof(*all));

    assert_non_null(all);
    make_concrete(g);
    for (uint32_t i = 0; i < g->n_values; i++) {
        const struct ew_value *v = g->values[i];
        if (!v->is_const && !v->is_input)
            continue;
        make_room(&all[i], &v->type);
        if (v->is_const)
            ew_const_copy(v, all[i].view.data);
        else if (ew_dtype_is_float(v->type.dtype))
            fill_floats(&all[i].view, v->name);
    }
    for (const struct ew_node *n = g->head; n; n = n->next)
        run_node(n, all);
    return all;
}

static void drop_all(const struct ew_graph *g, struct tensor *all)
{
    for (uint32_t i = 0; i < g->n_values; i++)
        free(all[i].view.data);
    free(all);
}

static struct ew_graph *load(const char *name)
{
    char path[512], *text = calloc(1, 1 << 20), *in, *end;
    struct ew_graph *g = NULL;
    ew_error err = { EW_STATUS_OK, "" };
    FILE *f;

    snprintf(path, sizeof(path), "%s/tests/graph/%s.txt", EW_SOURCE_DIR, name);
    f = fopen(path, "rb");
    assert_non_null(f);
    assert_non_null(text);
    (void)fread(text, 1, (1 << 20) - 1, f);
    fclose(f);
    in = strstr(text, "--- in\n") + strlen("--- in\n");
    end = strstr(in, "--- out\n");
    if (ew_graph_parse(in, (size_t)(end - in), &g, &err))
        fail_msg("%s: %s", name, err.text);
    free(text);
    fill_weights(g);
    return g;
}

/* Largest difference of an output, relative to the largest value of that output. */
static double compare(const struct ew_graph *g, const struct tensor *a, const struct ew_graph *h,
                      const struct tensor *b)
{
    double worst = 0;

    assert_int_equal(g->n_outputs, h->n_outputs);
    for (size_t o = 0; o < g->n_outputs; o++) {
        const struct tensor *x = &a[g->outputs[o]->id], *y = &b[h->outputs[o]->id];
        double top = 1e-30, diff = 0;
        if (g->outputs[o]->alias_of)
            continue; /* the stand-in writes no cache */
        assert_int_equal(count(x), count(y));
        for (size_t i = 0; i < count(x); i++) {
            assert_true(isfinite(get(x, i)));
            top = fmax(top, fabs(get(x, i)));
            diff = fmax(diff, fabs(get(x, i) - get(y, i)));
        }
        assert_true(top > 1e-6); /* or nothing was compared */
        worst = fmax(worst, diff / top);
    }
    return worst;
}

static void check(const char *name, double tolerance)
{
    struct ew_graph *g = load(name), *h = load(name);
    struct tensor *a, *b;
    ew_error err = { EW_STATUS_OK, "" };
    double worst;

    if (ew_passes_run(h, 0, NULL, &err))
        fail_msg("%s: %s", name, err.text);
    a = run(g);
    b = run(h);
    worst = compare(g, a, h, b);
    drop_all(g, a);
    drop_all(h, b);
    ew_graph_destroy(g);
    ew_graph_destroy(h);
    if (!(worst <= tolerance))
        fail_msg("%s: differs by %g, at most %g", name, worst, tolerance);
}

static void test_f32_graphs(void **state)
{
    static const char *const names[] = { "linear",         "act",          "simplify",
                                         "fold_constants", "fold_shapes",  "glu",
                                         "glu_halves",     "epilogue",     "not_fused",
                                         "pointwise",      "qk_norm_head", "qk_norm_full",
                                         "qkv_bias",       "qkv_split" };

    (void)state;
    for (size_t i = 0; i < EW_COUNT(names); i++)
        check(names[i], 2e-6);
}

/* Before: rounded to f16 after every op. */
static void test_f16_graphs(void **state)
{
    (void)state;
    check("half", 5e-3);
    check("decoder", 2e-2);
}

/* Lowered or op by op: the same but for the order of sums, which may move a value to the next code
 * of a short format. */
static void test_quantised_graphs(void **state)
{
    (void)state;
    check("dequantize", 2e-6);
    check("quant_all", 2e-6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f32_graphs),
        cmocka_unit_test(test_f16_graphs),
        cmocka_unit_test(test_quantised_graphs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

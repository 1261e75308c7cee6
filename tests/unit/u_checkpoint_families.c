/* ew-layers: base os cpu tensor op kernels graph checkpoint
 * Graphs made from checkpoints of every family, run node by node in double by the plain interpreter
 * below, against float32 logits and hidden states of transformers: tests/golden/families, and
 * ../shared/reference/architectures when it is there. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "base/mem.h"
#include "checkpoint/rope.h"
#include "checkpoint/safetensors.h"
#include "graph/ir.h"
#include "os/os.h"

struct tensor {
    double *v;
    size_t rows, width;
};

struct run {
    struct ew_graph *g;
    size_t n_batch, n_tokens;
    size_t n_compare;    /* rows; the text before the first image of a multimodal reference */
    struct tensor *vals; /* by value id */
    struct ew_rope_spec rope[2];
};

static double *new_doubles(size_t n)
{
    double *p = ew_mem_calloc(EW_MEM_MISC, n, sizeof(double));

    assert_non_null(p);
    return p;
}

static struct tensor *const_of(struct run *r, const struct ew_value *v)
{
    struct tensor *t = &r->vals[v->id];
    size_t bytes = 0, n = 0;
    void *raw;

    if (t->v)
        return t;
    assert_true(v->is_const);
    assert_true(ew_type_bytes(&v->type, &bytes) && ew_type_count(&v->type, &n));
    raw = ew_mem_alloc(EW_MEM_MISC, bytes);
    ew_const_copy(v, raw);
    t->v = new_doubles(n);
    for (size_t i = 0; i < n; i++)
        t->v[i] = ew_elem_get_f64(raw, v->type.dtype, i);
    ew_mem_free(raw);
    t->width = v->type.n_dims ? (size_t)v->type.dim[v->type.n_dims - 1] : 1;
    t->rows = n / t->width;
    return t;
}

static struct tensor *make(struct run *r, const struct ew_value *v, size_t rows, size_t width)
{
    struct tensor *t = &r->vals[v->id];

    *t = (struct tensor){ new_doubles(rows * width), rows, width };
    return t;
}

static double activate(int act, double x)
{
    switch (act) {
    case EW_ACT_SILU:
        return x / (1.0 + exp(-x));
    case EW_ACT_GELU_TANH:
        return 0.5 * x * (1.0 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
    case EW_ACT_GELU_ERF:
        return 0.5 * x * (1.0 + erf(x * M_SQRT1_2));
    case EW_ACT_RELU:
        return x > 0 ? x : 0;
    default:
        fail_msg("activation %d", act);
    }
    return 0;
}

static void do_linear(struct run *r, const struct ew_node *n)
{
    const struct tensor *x = const_of(r, n->in[0]), *w = const_of(r, n->in[1]);
    const struct tensor *bias = n->n_in > 2 && n->in[2] ? const_of(r, n->in[2]) : NULL;
    struct tensor *y = make(r, n->out[0], x->rows, w->rows);

    for (size_t m = 0; m < x->rows; m++)
        for (size_t o = 0; o < w->rows; o++) {
            double sum = bias ? bias->v[o] : 0;

            for (size_t k = 0; k < w->width; k++)
                sum += x->v[m * x->width + k] * w->v[o * w->width + k];
            y->v[m * y->width + o] = sum;
        }
}

static void norm_row(double *y, const double *x, const double *w, size_t n, double eps)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] / sqrt(sum / (double)n + eps) * w[i];
}

static void do_norm(struct run *r, const struct ew_node *n)
{
    const struct tensor *x = const_of(r, n->in[0]), *w = const_of(r, n->in[1]);
    struct tensor *y = make(r, n->out[0], x->rows, x->width);

    for (size_t m = 0; m < x->rows; m++)
        norm_row(y->v + m * x->width, x->v + m * x->width, w->v, x->width,
                 (double)n->attrs.fused_rms_norm.epsilon);
}

static void rotate(const struct ew_rope_spec *spec, double *head, size_t pos, size_t n_tokens)
{
    const size_t half = (size_t)spec->rotary_dim / 2;
    float row[2 * EW_ROPE_MAX_HALF];

    ew_rope_fill(spec, (int64_t)n_tokens, (int64_t)pos, 1, row);
    for (size_t i = 0; i < half; i++) {
        const double a = head[i], b = head[half + i], c = (double)row[i], s = (double)row[half + i];

        head[i] = a * c - b * s;
        head[half + i] = b * c + a * s;
    }
}

/* q or k in place: norms, then rope. */
static void prepare_heads(struct run *r, const struct ew_node *n, struct tensor *t,
                          const struct tensor *w)
{
    const struct ew_attr_kv_attention *a = &n->attrs.kv_attention;
    const size_t d = (size_t)a->head_size;
    const double eps = (double)a->qk_norm_eps;
    const bool second = strcmp(n->in[5]->name, "rope_rotary_cos_sin") != 0;

    for (size_t m = 0; m < t->rows; m++) {
        double *row = t->v + m * t->width;

        if (a->qk_norm == EW_QK_NORM_FULL)
            norm_row(row, row, w->v, t->width, eps);
        for (size_t h = 0; h < t->width / d; h++) {
            if (a->qk_norm == EW_QK_NORM_HEAD)
                norm_row(row + h * d, row + h * d, w->v, d, eps);
            if (a->use_rope)
                rotate(&r->rope[second], row + h * d, m % r->n_tokens, r->n_tokens);
        }
    }
}

static void attend(const struct ew_attr_kv_attention *a, const double *q, const struct tensor *k,
                   const struct tensor *v, size_t first_row, size_t pos, size_t kv_head, double *y)
{
    const size_t d = (size_t)a->head_size;
    const double scale =
        a->attention_scale != 0.0f ? (double)a->attention_scale : 1.0 / sqrt((double)d);
    const size_t begin = a->sliding_window_size > 0 && (int64_t)pos >= a->sliding_window_size
                             ? pos + 1 - (size_t)a->sliding_window_size
                             : 0;
    double sum = 0;

    for (size_t j = begin; j <= pos; j++) {
        const double *kj = k->v + (first_row + j) * k->width + kv_head * d;
        double s = 0;

        for (size_t i = 0; i < d; i++)
            s += q[i] * kj[i];
        s *= scale;
        if (a->softcap > 0)
            s = (double)a->softcap * tanh(s / (double)a->softcap);
        s = exp(s);
        sum += s;
        for (size_t i = 0; i < d; i++)
            y[i] += s * v->v[(first_row + j) * v->width + kv_head * d + i];
    }
    for (size_t i = 0; i < d; i++)
        y[i] /= sum;
}

static void do_attention(struct run *r, const struct ew_node *n)
{
    const struct ew_attr_kv_attention *a = &n->attrs.kv_attention;
    struct tensor *q = const_of(r, n->in[0]), *k = const_of(r, n->in[1]);
    const struct tensor *v = const_of(r, n->in[2]);
    const size_t d = (size_t)a->head_size, group = (size_t)(a->num_q_heads / a->num_kv_heads);
    struct tensor *y = make(r, n->out[0], q->rows, q->width);

    prepare_heads(r, n, q, a->qk_norm ? const_of(r, n->in[9]) : NULL);
    prepare_heads(r, n, k, a->qk_norm ? const_of(r, n->in[10]) : NULL);
    for (size_t m = 0; m < q->rows; m++)
        for (size_t h = 0; h < q->width / d; h++)
            attend(a, q->v + m * q->width + h * d, k, v, m / r->n_tokens * r->n_tokens,
                   m % r->n_tokens, h / group, y->v + m * y->width + h * d);
}

static void run_expert(const struct ew_node *n, const struct tensor *gate_up,
                       const struct tensor *down, size_t e, const double *x, double p, double *y)
{
    const size_t h = gate_up->width, inter = down->width;
    const double *gu = gate_up->v + e * 2 * inter * h, *dn = down->v + e * h * inter;
    double *mid = new_doubles(inter);

    for (size_t i = 0; i < inter; i++) {
        double g = 0, u = 0;

        for (size_t k = 0; k < h; k++) {
            g += gu[i * h + k] * x[k];
            u += gu[(inter + i) * h + k] * x[k];
        }
        mid[i] = activate(n->attrs.moe.act, g) * u;
    }
    for (size_t o = 0; o < h; o++)
        for (size_t i = 0; i < inter; i++)
            y[o] += p * dn[o * inter + i] * mid[i];
    ew_mem_free(mid);
}

static void do_moe(struct run *r, const struct ew_node *n)
{
    const struct tensor *x = const_of(r, n->in[0]), *logits = const_of(r, n->in[1]);
    const struct tensor *gate_up = const_of(r, n->in[2]), *down = const_of(r, n->in[3]);
    struct tensor *y = make(r, n->out[0], x->rows, x->width);
    const size_t n_experts = logits->width;

    for (size_t m = 0; m < x->rows; m++) {
        const double *l = logits->v + m * n_experts;
        double all = 0, chosen_sum = 0;
        size_t chosen[16];

        for (size_t e = 0; e < n_experts; e++)
            all += exp(l[e]);
        for (int64_t k = 0; k < n->attrs.moe.top_k; k++) {
            size_t best = n_experts;

            for (size_t e = 0; e < n_experts; e++) {
                bool taken = false;

                for (int64_t j = 0; j < k; j++)
                    taken = taken || chosen[j] == e;
                if (!taken && (best == n_experts || l[e] > l[best]))
                    best = e;
            }
            chosen[k] = best;
            chosen_sum += exp(l[best]);
        }
        for (int64_t k = 0; k < n->attrs.moe.top_k; k++)
            run_expert(n, gate_up, down, chosen[k], x->v + m * x->width,
                       exp(l[chosen[k]]) / (n->attrs.moe.norm_topk ? chosen_sum : all),
                       y->v + m * y->width);
    }
}

static void do_binary(struct run *r, const struct ew_node *n)
{
    const struct tensor *x = const_of(r, n->in[0]), *c = const_of(r, n->in[1]);
    struct tensor *y = make(r, n->out[0], x->rows, x->width);
    const size_t all = x->rows * x->width, nc = c->rows * c->width;

    assert_true(nc == all || nc == 1);
    for (size_t i = 0; i < all; i++) {
        const double b = c->v[nc == 1 ? 0 : i];

        y->v[i] = n->op == EW_OP_MUL ? x->v[i] * b : n->op == EW_OP_ADD ? x->v[i] + b : x->v[i] / b;
    }
}

static void do_unary(struct run *r, const struct ew_node *n)
{
    const struct tensor *x = const_of(r, n->in[0]);
    struct tensor *y = make(r, n->out[0], x->rows, x->width);

    for (size_t i = 0; i < x->rows * x->width; i++) {
        const double v = x->v[i];

        if (n->op == EW_OP_TANH)
            y->v[i] = tanh(v);
        else if (n->op == EW_OP_SWISH)
            y->v[i] = activate(EW_ACT_SILU, v * (double)n->attrs.alpha.alpha) /
                      (double)n->attrs.alpha.alpha;
        else if (n->op == EW_OP_GELU)
            y->v[i] = activate(n->attrs.gelu.approximate ? EW_ACT_GELU_TANH : EW_ACT_GELU_ERF, v);
        else
            y->v[i] = v; /* Identity; GatherND of all tokens in order */
    }
}

static void run_node(struct run *r, const struct ew_node *n)
{
    switch (n->op) {
    case EW_OP_LINEAR:
        do_linear(r, n);
        break;
    case EW_OP_FUSED_RMS_NORM:
        do_norm(r, n);
        break;
    case EW_OP_KV_ATTENTION:
        do_attention(r, n);
        break;
    case EW_OP_MOE:
        do_moe(r, n);
        break;
    case EW_OP_ADD:
    case EW_OP_MUL:
    case EW_OP_DIV:
        do_binary(r, n);
        break;
    case EW_OP_UNSQUEEZE: /* the selection: all tokens */
        break;
    case EW_OP_TANH:
    case EW_OP_SWISH:
    case EW_OP_GELU:
    case EW_OP_IDENTITY:
    case EW_OP_GATHER_ND:
        do_unary(r, n);
        break;
    default:
        fail_msg("%s: op %d", n->name, n->op);
    }
}

/* ---- checkpoints ---- */

static void read_contract(struct run *r, double *embedding_scale)
{
    json_t *o = json_loads(r->g->llm_config, 0, NULL);
    const json_t *own = json_object_get(o, "edgewise");
    const json_t *sets = json_object_get(own, "rope_sets");
    ew_error err = { 0 };

    assert_non_null(o);
    *embedding_scale = json_real_value(json_object_get(own, "embedding_scale"));
    for (size_t i = 0; i < json_array_size(sets); i++) {
        json_t *set = json_array_get(sets, i);

        json_object_del(set, "input");
        if (ew_rope_from_json(set, "rope_sets", &r->rope[i], &err))
            fail_msg("%s", err.text);
    }
    json_decref(o);
}

static void feed(struct run *r, const struct ew_st_tensor *ids)
{
    const struct tensor *table = const_of(r, r->g->embedding);
    struct ew_value *in = ew_graph_find(r->g, "inputs_embeds");
    struct tensor *x = make(r, in, r->n_batch * r->n_tokens, table->width);
    double scale;

    read_contract(r, &scale);
    for (size_t m = 0; m < x->rows; m++) {
        const int64_t id = ew_elem_get_i64(ids->data, ids->type.dtype, m);

        for (size_t i = 0; i < x->width; i++)
            x->v[m * x->width + i] =
                (double)(float)(table->v[(size_t)id * table->width + i] * (double)(float)scale);
    }
}

/* Largest difference over largest value, of one graph output against the reference. */
static double output_error(struct run *r, const char *name, const struct ew_st_tensor *want)
{
    double worst = 0, largest = 0;

    for (size_t i = 0; i < r->g->n_outputs; i++) {
        const struct ew_value *v = r->g->outputs[i];
        const struct tensor *t = &r->vals[v->id];

        if (strcmp(v->name, name) != 0)
            continue;
        for (size_t k = 0; k < r->n_compare * t->width; k++) {
            const double w = ew_elem_get_f64(want->data, want->type.dtype, k);
            const double e = fabs(t->v[k] - w);

            worst = e > worst || isnan(e) ? e : worst;
            largest = fabs(w) > largest ? fabs(w) : largest;
        }
        return worst / largest;
    }
    fail_msg("no output '%s'", name);
    return 1;
}

static void compare_outputs(struct run *r, const struct ew_safetensors *ref, const char *label)
{
    const struct ew_st_tensor *logits = ew_safetensors_find(ref, "logits");
    double worst = output_error(r, "logits", logits);

    for (int i = 0;; i++) {
        const struct ew_st_tensor *want;
        char name[32];
        double e;

        snprintf(name, sizeof(name), "hidden_%d", i);
        want = ew_safetensors_find(ref, name);
        if (!want)
            break;
        e = output_error(r, name, want);
        if (!(e <= 1e-5))
            fail_msg("%s: %s differs by %.2e of its largest value", label, name, e);
    }
    print_message("%-24s logits differ by %.1e of the largest\n", label, worst);
    if (!(worst <= 1e-5))
        fail_msg("%s: logits differ by %.2e of the largest", label, worst);
}

static void check_dir(const char *dir, const char *name)
{
    const ew_checkpoint_opts opts = { .struct_size = sizeof(opts), .hidden_states = true };
    char path[4096], file[4096];
    struct ew_safetensors *ref;
    const struct ew_st_tensor *ids;
    struct run r = { 0 };
    ew_error err = { 0 };

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    assert_true(ew_path_join(file, sizeof(file), path, "reference.safetensors"));
    if (ew_graph_from_checkpoint(path, &opts, &r.g, &err))
        fail_msg("%s: %s", name, err.text);
    if (ew_safetensors_open(file, &ref, &err))
        fail_msg("%s: %s", name, err.text);
    ids = ew_safetensors_find(ref, "input_ids");
    r.n_batch = (size_t)ids->type.dim[0];
    r.n_tokens = (size_t)ids->type.dim[1];
    r.n_compare = r.n_batch * r.n_tokens;
    for (size_t i = 0; ew_safetensors_find(ref, "pixel_values") && i < r.n_compare; i++)
        if (ew_elem_get_i64(ids->data, ids->type.dtype, i) >=
            300) /* image tokens of these models */
            r.n_compare = i;
    r.vals = ew_mem_calloc(EW_MEM_MISC, r.g->n_values, sizeof(*r.vals));
    feed(&r, ids);
    for (const struct ew_node *n = r.g->head; n; n = n->next)
        run_node(&r, n);
    if (r.n_compare)
        compare_outputs(&r, ref, name);
    else
        print_message("%-24s runs; its reference begins with an image\n", name);
    for (size_t i = 0; i < r.g->n_values; i++)
        ew_mem_free(r.vals[i].v);
    ew_mem_free(r.vals);
    ew_graph_destroy(r.g);
    ew_safetensors_close(ref);
}

static void own_fixtures(void **state)
{
    const char *dir = EW_SOURCE_DIR "/tests/golden/families";
    size_t n, checked = 0;
    char **names;
    ew_error err = { 0 };

    (void)state;
    assert_int_equal(ew_dir_list(dir, &names, &n, &err), EW_STATUS_OK);
    for (size_t i = 0; i < n; i++) {
        char path[4096];

        if (ew_path_join(path, sizeof(path), dir, names[i]) && ew_path_is_dir(path)) {
            check_dir(dir, names[i]);
            checked++;
        }
        ew_mem_free(names[i]);
    }
    ew_mem_free(names);
    assert_true(checked >= 20);
}

static void shared_fixtures(void **state)
{
    static const char *const names[] = { "qwen2",         "qwen3",      "llama3-rope",
                                         "phi3-longrope", "qwen3-moe",  "gemma3",
                                         "qwen3-vl",      "qwen2.5-vl", "internvl3" };
    const char *dir = EW_SOURCE_DIR "/../shared/reference/architectures";

    (void)state;
    if (!ew_path_is_dir(dir)) {
        print_message("skipped: no ../shared/reference/architectures\n");
        skip();
    }
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        check_dir(dir, names[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(own_fixtures),
        cmocka_unit_test(shared_fixtures),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

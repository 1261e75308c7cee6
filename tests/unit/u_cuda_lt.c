/* Products by cuBLASLt without a GPU (tests/fakecuda): what a build makes of it, what an engine
 * does where it is another one or none, graphs, faults, and which matrix is which. */
#include <math.h>

#include "engine_fixture.h"

#include "backend/cuda/cuda.h"
#include "base/half.h"
#include "base/json.h"
#include "edgewise/runtime.h"
#include "fakecuda.h"
#include "fakecublaslt.h"
#include "kernels/cuda/linear.h"
#include "op/attrs.h"

#define TINY  EW_SOURCE_DIR "/models/tiny"
#define DIR   EW_BINARY_DIR "/test-engines/u_cuda_lt"
#define TIMES EW_BINARY_DIR "/test-engines/u_cuda_lt_times.json"
#define ROWS  80 /* of a prompt: enough for the library */

static char said[1024]; /* what was logged of the library, last */

static void hear(void *ctx, ew_log_level level, const char *text)
{
    (void)ctx;
    (void)level;
    if (strstr(text, "cuBLASLt"))
        (void)snprintf(said, sizeof(said), "%s", text);
}

static const ew_logger logger = { NULL, hear };

static void has(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("'%s', wanted '%s' in it", text, part);
}

static void lacks(const char *text, const char *part)
{
    if (strstr(text, part))
        fail_msg("'%s' in '%s'", part, text);
}

static void fresh(void)
{
    fakecuda_reset();
    fakecublaslt_reset();
    said[0] = '\0';
}

static ew_status build(const char *tactic, const char *times, ew_error *err)
{
    ew_build_opts o = EW_BUILD_OPTS_INIT;

    o.device = "cuda:0";
    o.flags = times ? 0 : EW_BUILD_NO_TIMING;
    o.timing_cache = times;
    o.tactic = tactic;
    o.n_threads = 2;
    o.max_batch = 2;
    o.max_kv_len = 256;
    o.max_input_len = 128;
    o.logger = &logger;
    return ew_model_build(TINY, DIR, &o, false, err);
}

/* What inspect says; freed by the caller. */
static char *describe(void)
{
    ew_engine_opts o = EW_ENGINE_OPTS_INIT;
    ew_engine *e = NULL;
    ew_error err = { 0 };
    char *json = NULL;

    o.device = "none";
    MUST(ew_engine_open(DIR "/llm.engine", &o, &e, &err));
    MUST(ew_engine_describe(e, &json, &err));
    ew_engine_destroy(e);
    return json;
}

static ew_status open_it(ew_runtime **rt, ew_error *err)
{
    ew_runtime_opts o = EW_RUNTIME_OPTS_INIT;

    o.logger = &logger;
    return ew_runtime_open(DIR, &o, rt, err);
}

static ew_status forward(ew_runtime *rt, ew_error *err)
{
    int32_t ids[ROWS];

    for (int i = 0; i < ROWS; i++)
        ids[i] = i + 1;
    EW_TRY(ew_runtime_rewind(rt, 0, 0, err));
    return ew_runtime_forward(rt, 0, ids, ROWS, 0, NULL, 0, err);
}

static void nothing_is_left(void)
{
    assert_int_equal(fakecuda_live(), 0);
    assert_int_equal(fakecublaslt_live(), 0);
}

/* ---- building ---- */

/* An engine that uses it names it, and which switches do; one that does not says nothing. */
static void test_build(void **state)
{
    ew_error err = { 0 };
    char *json;

    (void)state;
    fresh();
    MUST(build("cublaslt", NULL, &err));
    json = describe();
    has(json, "\"cublaslt\": \"13.1.0\"");
    has(json, "\"kernel\": \"cublaslt_bf16\"");
    has(json, "\"kernel\": \"strip_bf16\""); /* fewer rows */
    ew_text_free(json);
    MUST(build("cublaslt_f16", NULL, &err)); /* no such weights */
    json = describe();
    lacks(json, "cublaslt");
    ew_text_free(json);
    MUST(build(NULL, NULL, &err));
    json = describe();
    lacks(json, "cublaslt");
    ew_text_free(json);
    nothing_is_left();
}

/* Not there: nobody misses it who did not ask for it. */
static void test_build_without(void **state)
{
    ew_error err = { 0 };

    (void)state;
    fresh();
    fakecublaslt_set_version(0);
    MUST(build(NULL, TIMES, &err));
    has(said, "not one of the tactics");
    assert_int_equal(build("cublaslt", NULL, &err), EW_STATUS_DEVICE);
    has(err.text, "tactic 'cublaslt': cuBLASLt: it does not start: CUBLAS_STATUS_NOT_INITIALIZED");
    nothing_is_left();
}

/* Where it is nowhere to be found. */
static void test_paths(void **state)
{
    struct ew_cuda_device *d = NULL;
    struct ew_cublaslt *b = NULL;
    char text[EW_CUBLASLT_TEXT_CAP];
    ew_error err = { 0 };

    (void)state;
    fresh();
    MUST(ew_cuda_device_open(0, NULL, &d, &err));
    assert_int_equal(ew_cublaslt_open("libno-such-library.so", d, &b, &err), EW_STATUS_UNSUPPORTED);
    has(err.text, "no cuBLASLt (libcublasLt.so.13, .12 or .11): it is not at libno-such-library");
    assert_int_equal(ew_cublaslt_open("libm.so.6", d, &b, &err), EW_STATUS_UNSUPPORTED);
    assert_int_equal(ew_cublaslt_open(EW_SOURCE_DIR, d, &b, &err), EW_STATUS_UNSUPPORTED);
    assert_null(b);
    ew_cuda_device_close(d);
    assert_string_equal(ew_cublaslt_text(130100, text), "13.1.0");
    assert_string_equal(ew_cublaslt_text(120805, text), "12.8.5");
    assert_string_equal(ew_cublaslt_text(11402, text), "11.4.2");
    nothing_is_left();
}

/* The kernel of ours beside the one that this key is of does the same for its nodes. */
static void has_rival(const json_t *entries, const char *key)
{
    const char *const at = strstr(key, "cublaslt_bf16 130100 ");
    char rival[512];

    (void)snprintf(rival, sizeof(rival), "%.*swgmma_bf16 0 %s", (int)(at - key), key,
                   at + strlen("cublaslt_bf16 130100 "));
    if (!json_object_get(entries, rival))
        fail_msg("'%s' was not timed", rival);
}

/* Every kernel of the library took so many percent of what the stand-in's clock says of all. */
static void build_where_it_takes(int percent)
{
    json_t *cache = NULL, *entries, *ns;
    const char *key;
    ew_error err = { 0 };
    char *text;
    int n = 0;

    MUST(build(NULL, TIMES, &err));
    MUST(ew_json_load(TIMES, 1 << 24, &cache, &err));
    entries = json_object_get(cache, "entries");
    json_object_foreach(entries, key, ns) if (strstr(key, "|cublaslt_bf16 130100 "))
    {
        has_rival(entries, key);
        json_integer_set(ns, json_integer_value(ns) * percent / 100);
        n++;
    }
    assert_true(n > 3);
    text = json_dumps(cache, 0);
    MUST(ew_file_write(TIMES, text, strlen(text), &err));
    free(text);
    json_decref(cache);
    MUST(build(NULL, TIMES, &err));
}

/* It has to be more than 3 % faster than the best of ours. */
static void test_has_to_win(void **state)
{
    char *json;

    (void)state;
    fresh();
    (void)remove(TIMES);
    build_where_it_takes(98);
    json = describe();
    lacks(json, "cublaslt");
    ew_text_free(json);
    (void)remove(TIMES);
    build_where_it_takes(90);
    json = describe();
    has(json, "\"cublaslt\": \"13.1.0\"");
    ew_text_free(json);
    nothing_is_left();
}

/* ---- running ---- */

static uint64_t n_products;

static void count_products(void *ctx, const char *entry, const unsigned grid[3], const void *args)
{
    (void)ctx;
    (void)grid;
    (void)args;
    n_products += strcmp(entry, "cublasLtMatmul") == 0;
}

/* Products of a forward; *calls: of the library for it. */
static uint64_t run_one(ew_runtime *rt, uint64_t *calls)
{
    const uint64_t before = fakecublaslt_count("cublasLtMatmul");
    ew_error err = { 0 };

    n_products = 0;
    fakecuda_on_launch(count_products, NULL);
    MUST(forward(rt, &err));
    fakecuda_on_launch(NULL, NULL);
    *calls = fakecublaslt_count("cublasLtMatmul") - before;
    return n_products;
}

/* Captured once, replayed after that; nothing is asked of the library then. */
static void test_graphs(void **state)
{
    ew_runtime *rt = NULL;
    ew_error err = { 0 };
    uint64_t calls, n, plans;

    (void)state;
    fresh();
    MUST(build("cublaslt", NULL, &err));
    fresh();
    MUST(open_it(&rt, &err));
    assert_string_equal(said, "");
    n = run_one(rt, &calls);
    assert_true(n >= 6 * 4 && calls == n);
    plans = fakecublaslt_count("cublasLtMatmulAlgoGetHeuristic");
    assert_true(plans < n); /* layers share them */
    assert_int_equal(run_one(rt, &calls), n);
    assert_int_equal(calls, 0);
    assert_int_equal(fakecublaslt_count("cublasLtMatmulAlgoGetHeuristic"), plans);
    ew_runtime_destroy(rt);
    nothing_is_left();
}

/* Another version, or none: the engine's own kernels, and one line that says so. */
static void test_fallback(void **state)
{
    static const size_t versions[] = { 130200, 120805, 0 };
    static const char *const words[] = {
        "the engine uses cuBLASLt 13.1.0: this machine has 13.2.0; its products run as kernels",
        "the engine uses cuBLASLt 13.1.0: this machine has 12.8.5; its products run as kernels",
        "the engine uses cuBLASLt 13.1.0: cuBLASLt: it does not start"
    };
    ew_error err = { 0 };
    uint64_t calls;

    (void)state;
    fresh();
    MUST(build("cublaslt", NULL, &err));
    for (int i = 0; i < 3; i++) {
        ew_runtime *rt = NULL;

        fresh();
        fakecublaslt_set_version(versions[i]);
        MUST(open_it(&rt, &err));
        has(said, words[i]);
        assert_int_equal(run_one(rt, &calls), 0);
        assert_int_equal(calls, 0);
        assert_true(fakecuda_count("kernels") > 6 * 4);
        ew_runtime_destroy(rt);
        nothing_is_left();
    }
}

/* Any call fails: a line that names it, or the engine's own kernels; nothing is left. */
static void test_faults(void **state)
{
    static const char *const functions[] = { "cublasLtCreate",
                                             "cublasLtMatmulDescCreate",
                                             "cublasLtMatmulDescSetAttribute",
                                             "cublasLtMatrixLayoutCreate",
                                             "cublasLtMatmulPreferenceCreate",
                                             "cublasLtMatmulPreferenceSetAttribute",
                                             "cublasLtMatmulAlgoGetHeuristic",
                                             "cublasLtMatmul" };
    ew_error err = { 0 };

    (void)state;
    fresh();
    MUST(build("cublaslt", NULL, &err));
    for (size_t f = 0; f < sizeof(functions) / sizeof(functions[0]); f++)
        for (uint64_t k = 1;; k += 1 + k / 2) {
            ew_runtime *rt = NULL;
            bool happened;

            fresh();
            err = (ew_error){ 0 };
            fakecublaslt_fail(functions[f], k, k % 2 ? 3 : 14);
            if (!open_it(&rt, &err))
                (void)forward(rt, &err);
            happened = fakecublaslt_count(functions[f]) >= k;
            if (err.status) {
                has(err.text, "cuBLASLt");
                if (rt) /* it is no fault of the device: the next run is like any other */
                    MUST(forward(rt, &(ew_error){ 0 }));
            } else if (happened) {
                has(said, "run as kernels");
            }
            ew_runtime_destroy(rt);
            nothing_is_left();
            if (!happened) {
                assert_true(k > 1);
                break;
            }
        }
}

/* The host's own memory ends, at any allocation: a status with words, or the engine's own kernels.
 */
static void test_no_host_memory(void **state)
{
    const uint64_t engine = ew_mem_tag_bytes(EW_MEM_ENGINE);
    ew_error err = { 0 };
    uint64_t n = 1;

    (void)state;
    fresh();
    MUST(build("cublaslt", NULL, &err));
    for (uint64_t k = 0; k <= n; k += 1 + k / 16) { /* 0: none fails, to count them */
        const uint64_t before = ew_mem_count();
        ew_runtime *rt = NULL;

        fresh();
        err = (ew_error){ 0 };
        ew_mem_fail_at(k);
        if (!open_it(&rt, &err))
            (void)forward(rt, &err);
        ew_mem_fail_at(0);
        if (!k)
            n = ew_mem_count() - before;
        if (err.status && !err.text[0])
            fail_msg("allocation %d: no words", (int)k);
        ew_runtime_destroy(rt);
        nothing_is_left();
        assert_int_equal(ew_mem_tag_bytes(EW_MEM_ENGINE), engine);
    }
    assert_true(n > 100);
}

/* A fault of the device in a product poisons the stream, whose words name the product's node. */
static void test_sticky(void **state)
{
    ew_runtime_opts o = EW_RUNTIME_OPTS_INIT;
    ew_runtime *rt = NULL;
    ew_error err = { 0 };

    (void)state;
    fresh();
    MUST(build("cublaslt", NULL, &err));
    o.flags = EW_CONTEXT_NO_GRAPH;
    MUST(ew_runtime_open(DIR, &o, &rt, &err));
    fakecuda_fail("cuLaunchKernelEx", 3, EW_CU_ILLEGAL_ADDRESS, 0); /* behind lookup and norm */
    assert_int_equal(forward(rt, &err), EW_STATUS_DEVICE);
    has(err.text, "CUDA: model.layers.0.");
    has(err.text, "cuBLASLt: product: CUBLAS_STATUS_EXECUTION_FAILED 13");
    assert_int_equal(forward(rt, &err), EW_STATUS_DEVICE);
    has(err.text, "last launch 'model.layers.0.");
    ew_runtime_destroy(rt);
    nothing_is_left();
    fresh();
}

/* ---- which matrix is which ---- */

static void play(void *ctx, const char *entry, const unsigned grid[3], const void *args)
{
    (void)ctx;
    (void)grid;
    assert_string_equal(entry, "cublasLtMatmul");
    fakecublaslt_play(args);
}

static void *device_memory(struct ew_cuda *c, size_t bytes)
{
    void *p = NULL;
    ew_error err = { 0 };

    MUST(c->base.memory.alloc(c->base.memory.ctx, bytes, "test", &p, &err));
    return p;
}

/* The product of a plan is x W^T, scaled, with the residual, in y's type. */
static void check_product(struct ew_cuda *c, bool residual, ew_dtype y_short)
{
    enum { M = 67, N = 24, K = 40 };
    const struct ew_cuda_linear_kernel *k = ew_cuda_linear_kernel_find("cublaslt_bf16");
    uint16_t *x = device_memory(c, M * K * 2), *w = device_memory(c, N * K * 2);
    float *y = device_memory(c, M * N * 4), *z = device_memory(c, M * N * 4);
    struct ew_cuda_linear_problem p = { .prepared = (uintptr_t)x,
                                        .w = (uintptr_t)w,
                                        .residual = residual ? (uintptr_t)z : 0,
                                        .y = (uintptr_t)y,
                                        .prepared_stride = K,
                                        .residual_stride = N,
                                        .y_stride = N,
                                        .m = M,
                                        .n = N,
                                        .k = K,
                                        .act = EW_ACT_NONE,
                                        .y_short = y_short,
                                        .scale = 0.5f };
    const size_t work_bytes = k->workspace_bytes(&c->chip, &p);
    void *work = device_memory(c, work_bytes);
    struct ew_cuda_launch l[EW_CUDA_LINEAR_LAUNCHES];
    ew_error err = { 0 };
    ew_cu_function f;

    for (uint32_t i = 0; i < M * K; i++)
        x[i] = ew_f32_to_bf16(noise(i));
    for (uint32_t i = 0; i < N * K; i++)
        w[i] = ew_f32_to_bf16(noise(i + 90000));
    for (uint32_t i = 0; i < M * N; i++)
        z[i] = noise(i + 50000);
    p.workspace = (uintptr_t)work;
    assert_int_equal(k->plan(&c->chip, &p, l), 1);
    MUST(ew_cuda_modules_get(c->modules, &l[0], &f, &err));
    fakecuda_on_launch(play, NULL);
    MUST(ew_cuda_queue_launch(&c->memory_queue, f, &l[0], "test", &err));
    fakecuda_on_launch(NULL, NULL);
    for (uint32_t i = 0; i < M * N; i++) {
        double want = 0;
        const float got = y_short ? ew_bf16_to_f32(((uint16_t *)y)[i]) : y[i];

        for (uint32_t j = 0; j < K; j++)
            want +=
                (double)ew_bf16_to_f32(x[i / N * K + j]) * (double)ew_bf16_to_f32(w[i % N * K + j]);
        want = 0.5 * want + (residual ? (double)z[i] : 0.0);
        if (fabs(want - (double)got) > (y_short ? 0x1p-8 : 1e-6) * (fabs(want) + 1e-3))
            fail_msg("[%u] is %g, not %g", i, (double)got, want);
    }
    c->base.memory.release(c->base.memory.ctx, x, M * K * 2);
    c->base.memory.release(c->base.memory.ctx, w, N * K * 2);
    c->base.memory.release(c->base.memory.ctx, y, M * N * 4);
    c->base.memory.release(c->base.memory.ctx, z, M * N * 4);
    c->base.memory.release(c->base.memory.ctx, work, work_bytes);
}

static void test_product(void **state)
{
    struct ew_cuda *c = NULL;
    ew_error err = { 0 };

    (void)state;
    fresh();
    MUST(ew_cuda_bare(0, false, &c, &err));
    MUST(ew_cuda_load_library(c, &err));
    check_product(c, false, EW_DTYPE_NONE);
    check_product(c, true, EW_DTYPE_NONE);
    check_product(c, false, EW_DTYPE_BF16);
    ew_cuda_close(c);
    nothing_is_left();
}

#define WIDE 64 /* of a square weight in f32 */

static void open_linear(ew_engine **e, void **bytes)
{
    const ew_profile_input x = { "x", 2, { 1, WIDE }, { ROWS, WIDE }, { 128, WIDE } };
    const ew_profile profile = { "p", &x, 1 };
    ew_build_opts o = EW_BUILD_OPTS_INIT;
    struct ew_type type = { EW_DTYPE_F32, 2, { 0, WIDE } };
    struct ew_graph *g = NULL;
    struct ew_value *in[2];
    struct ew_node *n = NULL;
    ew_error err = { 0 };
    size_t len;

    MUST(ew_graph_create("linear", &g, &err));
    type.dim[0] = ew_dim_symbol(g->syms, "batch");
    in[0] = ew_graph_add_input(g, "x", &type);
    in[1] = const_f32(g, "w", 2, (const int64_t[]){ WIDE, WIDE }, 1);
    MUST(ew_graph_add_node(g, EW_OP_LINEAR, "linear", NULL, in, 2, 1, &n, &err));
    MUST(ew_graph_add_output(g, n->out[0], "y", &err));
    o.device = "cuda:0";
    o.flags = EW_BUILD_NO_TIMING;
    o.tactic = "cublaslt";
    o.profiles = &profile;
    o.n_profiles = 1;
    MUST(ew_build_memory(g, &o, bytes, &len, &err));
    ew_graph_destroy(g);
    MUST(ew_engine_load(*bytes, len, NULL, e, &err));
}

static void play_if_product(void *ctx, const char *entry, const unsigned grid[3], const void *args)
{
    count_products(ctx, entry, grid, args);
    if (strcmp(entry, "cublasLtMatmul") == 0)
        fakecublaslt_play(args);
}

/* Weights of f32, from graph to result; an output that a caller puts between the 16 bytes is not
 * the library's. */
static void test_addresses(void **state)
{
    static float y[ROWS * WIDE];
    const int64_t dims[2] = { ROWS, WIDE };
    float *const x = noises((size_t)ROWS * WIDE, 5), *const w = noises((size_t)WIDE * WIDE, 1);
    const size_t bytes = sizeof(y) + 64;
    ew_engine *e = NULL;
    ew_context *c = NULL;
    ew_error err = { 0 };
    void *plan, *at;

    (void)state;
    fresh();
    open_linear(&e, &plan);
    MUST(ew_context_create(e, NULL, &c, &err));
    MUST(ew_engine_memory(e)->alloc(ew_engine_memory(e)->ctx, bytes, "y", &at, &err));
    assert_int_equal(ew_context_set_shape(c, "x", dims, 2), 0);
    assert_int_equal(ew_context_set_address(c, "x", x), 0);
    fakecuda_on_launch(play_if_product, NULL);
    for (int off = 0; off <= 16; off += 4) {
        assert_int_equal(ew_context_set_device_address(c, "y", (char *)at + off), 0);
        n_products = 0;
        if (ew_context_run(c))
            fail_msg("%s", ew_context_error(c));
        assert_int_equal(n_products, off % 16 == 0);
    }
    fakecuda_on_launch(NULL, NULL);
    memcpy(y, (char *)at + 16, sizeof(y));
    for (int i = 0; i < ROWS * WIDE; i++) {
        double want = 0;

        for (int k = 0; k < WIDE; k++)
            want += (double)x[i / WIDE * WIDE + k] * (double)w[i % WIDE * WIDE + k];
        if (fabs(want - (double)y[i]) > 1e-5)
            fail_msg("[%d] is %g, not %g", i, (double)y[i], want);
    }
    ew_engine_memory(e)->release(ew_engine_memory(e)->ctx, at, bytes);
    ew_context_destroy(c);
    ew_engine_destroy(e);
    ew_plan_free(plan);
    free(x);
    free(w);
    nothing_is_left();
}

/* What the library's own epilogue does not do is a pass over its sums. */
static void test_passes(void **state)
{
    const struct ew_cuda_chip chip = { 90, 132, 227u << 10, 50u << 20, 1 };
    const struct ew_cuda_linear_kernel *k = ew_cuda_linear_kernel_find("cublaslt_bf16");
    const struct ew_cuda_linear_problem plain = { .x = 1 << 20,
                                                  .w = 1 << 24,
                                                  .y = 1 << 28,
                                                  .m = 100,
                                                  .n = 64,
                                                  .k = 64,
                                                  .x_stride = 64,
                                                  .y_stride = 64,
                                                  .residual_stride = 64,
                                                  .workspace = 1 << 30,
                                                  .scale = 1 };
    struct ew_cuda_linear_problem p[9];
    struct ew_cuda_launch l[EW_CUDA_LINEAR_LAUNCHES];

    (void)state;
    for (int i = 0; i < 9; i++)
        p[i] = plain;
    p[1].residual = p[1].y; /* in place */
    p[2].scale = 2;
    p[3].y_short = EW_DTYPE_BF16;
    for (int i = 0; i < 4; i++) {
        assert_int_equal(k->plan(&chip, &p[i], l), 2); /* x is rounded first */
        assert_true(l[1].product);
        assert_true(k->workspace_bytes(&chip, &p[i]) == EW_CUDA_PRODUCT_WORKSPACE + 100 * 64 * 2);
    }
    p[4].bias = 1 << 20;
    p[5].act = EW_ACT_SILU;
    p[6].glu = true;
    p[7].y_short = EW_DTYPE_F16;
    p[8].softcap = 20;
    for (int i = 4; i < 9; i++) {
        struct ew_cuda_product q;

        assert_int_equal(k->plan(&chip, &p[i], l), 3);
        memcpy(&q, l[1].args, sizeof(q));
        assert_true(q.y != p[i].y && !q.residual && q.alpha == 1.0f);
        assert_string_equal(l[2].spec.entry, "ew_linear_reduce");
        assert_true(k->workspace_bytes(&chip, &p[i]) >=
                    EW_CUDA_PRODUCT_WORKSPACE + 100 * 64 * 2 + 100 * 64 * 4);
    }
    assert_int_equal(ew_cuda_linear_kernel_find("cublaslt_f16")->plan(&chip, &p[7], l), 3);
    assert_false(ew_cuda_linear_kernel_runs(k, &chip, EW_DTYPE_BF16, NULL, 64, 64, 64, false, 0));
    assert_false(ew_cuda_linear_kernel_runs(k, &chip, EW_DTYPE_BF16, NULL, 100, 68, 64, false, 0));
    assert_true(ew_cuda_linear_kernel_runs(k, &chip, EW_DTYPE_BF16, NULL, 100, 64, 64, false, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paths),          cmocka_unit_test(test_product),
        cmocka_unit_test(test_passes),         cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_build),          cmocka_unit_test(test_build_without),
        cmocka_unit_test(test_has_to_win),     cmocka_unit_test(test_graphs),
        cmocka_unit_test(test_fallback),       cmocka_unit_test(test_faults),
        cmocka_unit_test(test_no_host_memory), cmocka_unit_test(test_sticky),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Requests on the CUDA backend without a GPU (tests/fakecuda): draws on the device beside draws on
 * the host, the graph cache under batch sizes and adapters, several contexts, ranges for profilers.
 * The driver here runs no kernel but those of cuda_played.h. */
#include <math.h>

#include "cuda_played.h"

#include "base/size.h"
#include "checkpoint/safetensors.h"
#include "edgewise/eval.h"
#include "fakenvtx.h"

#define DIR EW_BINARY_DIR "/test-engines/u_cuda_run"
#define ALL EW_BINARY_DIR "/test-engines/u_cuda_run_all" /* logits of every token */

/* ---- requests ---- */

/* Three ways to sample beside each other. */
static void make_requests(ew_request r[N_ROWS], uint64_t seed)
{
    static const int32_t ids[3] = { 5, 6, 7 };

    for (int i = 0; i < N_ROWS; i++) {
        r[i] = (ew_request)EW_REQUEST_INIT;
        r[i].prompt_ids = ids;
        r[i].n_prompt_ids = 3;
        r[i].ignore_eos = true;
        r[i].max_tokens = N_OUT;
        r[i].sampling.seed = seed + (uint64_t)i / 2;
    }
    r[0].sampling.temperature = 0.8;
    r[0].sampling.top_k = 40;
    r[1].sampling.temperature = 1.7;
    r[1].sampling.top_p = 0.9;
    r[2].sampling.min_p = 0.05;
}

static void run(ew_runtime *rt, const ew_request r[N_ROWS], int32_t out[N_ROWS][N_OUT])
{
    ew_response got[N_ROWS] = { 0 };
    ew_error err = { 0 };

    MUST(ew_runtime_handle_request(rt, r, N_ROWS, got, &err));
    for (int i = 0; i < N_ROWS; i++) {
        if (got[i].status)
            fail_msg("row %d: %s", i, got[i].error);
        assert_int_equal(got[i].n_ids, N_OUT);
        memcpy(out[i], got[i].ids, sizeof(out[i]));
        ew_response_release(&got[i]);
    }
}

/* Rows with draws of their own get the tokens that the host would have drawn, and nothing but
 * tokens comes back. */
static void test_draws(void **state)
{
    static const int32_t some_id = 0;
    static const float no_bias = 0.0f;
    ew_runtime *rt = open_played(DIR);
    ew_request r[N_ROWS];
    int32_t there[N_ROWS][N_OUT], here[N_ROWS][N_OUT], other[N_ROWS][N_OUT];
    uint64_t captures;

    (void)state;
    make_requests(r, 11);
    run(rt, r, there);
    assert_int_equal(fakecuda_count("cuMemcpyDtoHAsync_v2"), N_OUT);
    captures = fakecuda_count("cuGraphInstantiateWithFlags");
    assert_int_equal(captures, 2); /* prefill and decode */
    assert_true(memcmp(there[0], there[1], sizeof(there[0])) != 0);
    /* other seeds, other temperatures: data, not another graph */
    make_requests(r, 99);
    r[0].sampling.temperature = 1.2;
    run(rt, r, other);
    assert_int_equal(fakecuda_count("cuGraphInstantiateWithFlags"), captures);
    assert_int_equal(fakecuda_count("cuGraphLaunch"), 2 * N_OUT);
    assert_true(memcmp(there, other, sizeof(there)) != 0);
    /* a bias of nothing is the host's */
    make_requests(r, 11);
    for (int i = 0; i < N_ROWS; i++) {
        r[i].sampling.bias_ids = &some_id;
        r[i].sampling.bias = &no_bias;
        r[i].sampling.n_bias = 1;
    }
    run(rt, r, here);
    assert_memory_equal(there, here, sizeof(there));
    close_played(rt);
}

/* What the device leaves is drawn on the host, from the same scores by the same number. */
static void test_left_draws(void **state)
{
    ew_runtime *rt = open_played(DIR);
    ew_request r[N_ROWS];
    int32_t all[N_ROWS][N_OUT], some[N_ROWS][N_OUT];

    (void)state;
    make_requests(r, 5);
    run(rt, r, all);
    played.leave_every = 4;
    run(rt, r, some);
    assert_true(played.n_draws > 8);
    assert_memory_equal(all, some, sizeof(all));
    close_played(rt);
}

/* A neighbour whose scores the host wants changes nothing for the others; greedy rows draw the
 * likeliest. */
static void test_mixed_rows(void **state)
{
    ew_runtime *rt = open_played(DIR);
    ew_request r[N_ROWS];
    int32_t alone[N_ROWS][N_OUT], mixed[N_ROWS][N_OUT];
    uint64_t before;

    (void)state;
    make_requests(r, 5);
    run(rt, r, alone);
    r[1].sampling.repetition_penalty = 1.5;
    r[2].sampling = (ew_sampling){ .greedy = true };
    before = fakecuda_count("cuMemcpyDtoHAsync_v2");
    run(rt, r, mixed);
    assert_int_equal(fakecuda_count("cuMemcpyDtoHAsync_v2") - before, 2 * N_OUT);
    assert_memory_equal(alone[0], mixed[0], sizeof(alone[0]));
    for (int i = 1; i < N_OUT; i++)
        assert_int_equal(mixed[2][i], mixed[2][0]);
    /* greedy requests alone: no draw */
    for (int i = 0; i < N_ROWS; i++)
        r[i].sampling = (ew_sampling){ .greedy = true };
    before = played.n_argmax;
    run(rt, r, alone);
    assert_int_equal(played.n_argmax - before, N_OUT);
    assert_memory_equal(alone[0], mixed[2], sizeof(alone[0]));
    /* more candidates than the device sorts: the host's from the first step on */
    for (int i = 0; i < N_ROWS; i++)
        r[i].sampling = (ew_sampling){ .top_k = EW_DRAW_MAX_TOP_K + 1 };
    before = fakecuda_count("cuMemcpyDtoHAsync_v2");
    run(rt, r, mixed);
    assert_int_equal(fakecuda_count("cuMemcpyDtoHAsync_v2") - before, 2 * N_OUT);
    close_played(rt);
}

/* ---- faults ---- */

static int32_t usual[2][N_ROWS][N_OUT]; /* without a fault */

/* A greedy row alone. What its tokens are depends here on who plays its steps. */
static void run_alone(ew_runtime *rt, ew_error *err)
{
    ew_request r[N_ROWS];
    ew_response got = { 0 };

    make_requests(r, 3);
    r[0].sampling = (ew_sampling){ .greedy = true };
    if (ew_runtime_handle_request(rt, r, 1, &got, err))
        assert_true(err->status != 0);
    if (got.status) {
        err->status = got.status;
        (void)snprintf(err->text, sizeof(err->text), "%s", got.error);
    }
    ew_response_release(&got);
}

/* Rows that end one after the other (so rows move), prefixes that are kept and taken again. *err:
 * the first error. */
static void run_all_kinds(ew_runtime *rt, bool is_usual, ew_error *err)
{
    for (int again = 0; again < 2 && !err->status; again++) {
        ew_request r[N_ROWS];
        ew_response got[N_ROWS] = { 0 };

        make_requests(r, 3);
        for (int i = 0; i < N_ROWS; i++) {
            r[i].max_tokens = 2 + (uint32_t)i;
            r[i].save_prefix = true;
        }
        if (ew_runtime_handle_request(rt, r, N_ROWS, got, err))
            assert_true(err->status != 0);
        for (int i = 0; i < N_ROWS; i++) {
            if (got[i].status && !err->status) {
                err->status = got[i].status;
                (void)snprintf(err->text, sizeof(err->text), "%s", got[i].error);
            }
            if (!err->status && is_usual)
                memcpy(usual[again][i], got[i].ids, r[i].max_tokens * sizeof(int32_t));
            if (!err->status)
                assert_memory_equal(usual[again][i], got[i].ids, r[i].max_tokens * sizeof(int32_t));
            ew_response_release(&got[i]);
        }
    }
    if (!err->status)
        run_alone(rt, err);
}

/* The k-th call of a function (0: none) fails with `result`. False: there is no k-th call. What is
 * nobody's answer may fail in silence (a prefix that is not kept). */
static bool fault(const char *function, uint64_t k, int result, bool one_kernel)
{
    ew_runtime_opts ro = EW_RUNTIME_OPTS_INIT;
    ew_runtime *rt = NULL;
    ew_error err = { 0 }, again = { 0 };
    bool happened;

    fakecuda_reset();
    fakecuda_on_launch(on_launch, NULL);
    memset(&played, 0, sizeof(played));
    if (k)
        fakecuda_fail(function, k, result, 0);
    if (!ew_runtime_open(DIR, &ro, &rt, &err)) {
        for (int i = 0; i < EW_PLAN_STEP_ROWS; i++)
            rt->engine->plan.device.step[i].one_kernel = one_kernel;
        run_all_kinds(rt, !k, &err);
    }
    happened = fakecuda_count(function) >= k;
    if (err.status && !strstr(err.text, "CUDA"))
        fail_msg("%s %d: '%s' does not say where", function, (int)k, err.text);
    if (rt && happened && result == EW_CU_ILLEGAL_ADDRESS) {
        run_all_kinds(rt, false, &again);
        assert_int_equal(again.status, EW_STATUS_DEVICE);
    }
    ew_runtime_destroy(rt);
    ew_sampler_deinit(&played.sampler);
    fakecuda_on_launch(NULL, NULL);
    if (fakecuda_live())
        fail_msg("%s %d: %d allocations are left", function, (int)k, (int)fakecuda_live());
    return happened;
}

/* Whatever call fails, now or for good: a status, words, and nothing is left. */
static void test_every_fault(void **state)
{
    static const char *const functions[] = {
        "cuLaunchKernelEx",        "cuGraphLaunch",
        "cuGraphUpload",           "cuStreamSynchronize",
        "cuStreamBeginCapture_v2", "cuStreamEndCapture",
        "cuMemcpyHtoDAsync_v2",    "cuMemcpyDtoHAsync_v2",

        "cuMemcpy2DAsync_v2",      "cuMemsetD8Async",
        "cuModuleGetFunction",     "cuEventRecord",
        "cuEventCreate",           "cuMemAlloc_v2",
        "cuMemHostAlloc",          "cuGraphInstantiateWithFlags"
    };
    static const int results[] = { 1, EW_CU_OUT_OF_MEMORY, EW_CU_ILLEGAL_ADDRESS };

    (void)state;
    for (int way = 0; way < 2; way++) { /* steps as graphs of kernels, as one kernel */
        assert_true(fault("cuInit", 0, 0, way));
        for (size_t f = 0; f < sizeof(functions) / sizeof(functions[0]); f++)
            for (size_t i = 0; i < sizeof(results) / sizeof(results[0]); i++) {
                uint64_t k = 1;

                while (fault(functions[f], k, results[i], way))
                    k += 1 + k / 3;
                if (k == 1)
                    fail_msg("%s is not called", functions[f]);
            }
    }
}

/* The host's own memory ends, at any allocation: a status (or the usual tokens, where it was
 * nobody's answer), and nothing is left on either side. */
static void test_no_host_memory(void **state)
{
    const uint64_t gpu = ew_mem_tag_bytes(EW_MEM_GPU), context = ew_mem_tag_bytes(EW_MEM_CONTEXT),
                   engine = ew_mem_tag_bytes(EW_MEM_ENGINE);
    uint64_t n = 1, before;

    (void)state;
    for (uint64_t k = 0; k <= n; k += 1 + k / 8) { /* 0: none fails, to count them */
        ew_runtime_opts ro = EW_RUNTIME_OPTS_INIT;
        ew_runtime *rt = NULL;
        ew_error err = { 0 };

        fakecuda_reset();
        fakecuda_on_launch(on_launch, NULL);
        memset(&played, 0, sizeof(played));
        MUST(ew_sampler_init(&played.sampler, 4096, &err)); /* the test's own */
        before = ew_mem_count();
        ew_mem_fail_at(k);
        if (!ew_runtime_open(DIR, &ro, &rt, &err))
            run_all_kinds(rt, false, &err);
        ew_mem_fail_at(0);
        if (!k)
            n = ew_mem_count() - before;
        if (err.status && !err.text[0])
            fail_msg("allocation %d: no words", (int)k);
        ew_runtime_destroy(rt);
        ew_sampler_deinit(&played.sampler);
        fakecuda_on_launch(NULL, NULL);
        if (fakecuda_live() || ew_mem_tag_bytes(EW_MEM_GPU) != gpu ||
            ew_mem_tag_bytes(EW_MEM_CONTEXT) != context ||
            ew_mem_tag_bytes(EW_MEM_ENGINE) != engine)
            fail_msg("allocation %d: something is left", (int)k);
    }
    assert_true(n > 100);
}

/* A row that its caller ends, and one that a neighbour outlives: the rest is as without them. */
static bool stop_soon(void *ctx, uint32_t i_request, const char *text, size_t len)
{
    int *const left = ctx;

    (void)i_request, (void)text, (void)len;
    return --*left > 0;
}

static void test_cancelled_row(void **state)
{
    ew_runtime *rt = open_played(DIR);
    ew_request r[N_ROWS];
    ew_response got[N_ROWS] = { 0 };
    int32_t alone[N_ROWS][N_OUT];
    ew_error err = { 0 };
    uint64_t captures;
    int left = 2;

    (void)state;
    make_requests(r, 8);
    run(rt, r, alone);
    r[0].on_text = stop_soon;
    r[0].on_text_ctx = &left;
    MUST(ew_runtime_handle_request(rt, r, N_ROWS, got, &err));
    assert_int_equal(got[0].finish, EW_FINISH_CANCELLED);
    assert_true(got[0].n_ids > 0 && got[0].n_ids < N_OUT);
    assert_memory_equal(got[0].ids, alone[0], got[0].n_ids * sizeof(int32_t));
    for (int i = 0; i < N_ROWS; i++) {
        if (i) {
            assert_int_equal(got[i].n_ids, N_OUT);
            assert_memory_equal(got[i].ids, alone[i], sizeof(alone[i]));
        }
        ew_response_release(&got[i]);
    }
    captures = fakecuda_count("cuGraphInstantiateWithFlags");
    r[0].on_text = NULL;
    run(rt, r, alone);
    assert_int_equal(fakecuda_count("cuGraphInstantiateWithFlags"), captures);
    close_played(rt);
}

/* ---- parity ---- */

#define PARITY_DIR  EW_BINARY_DIR "/test-engines/u_cuda_parity"
#define PARITY_FILE EW_BINARY_DIR "/test-engines/u_cuda_parity.safetensors"
#define N_TOKENS    4

/* Logits of 0, which nothing here computes, and gaps of a router. n_gaps 0: none. */
static void write_reference(uint32_t vocab, const float *gaps, int64_t n_gaps)
{
    static const int32_t ids[N_TOKENS] = { 5, 6, 7, 8 };
    const int64_t dims[3] = { 1, N_TOKENS, vocab }, gap_dims[2] = { 1, n_gaps };
    const struct ew_type types[3] = { ew_type_make(EW_DTYPE_I32, 2, dims),
                                      ew_type_make(EW_DTYPE_F32, 3, dims),
                                      ew_type_make(EW_DTYPE_F32, 2, gap_dims) };
    float *logits = calloc((size_t)N_TOKENS * vocab, sizeof(*logits));
    struct ew_st_writer *w = NULL;
    ew_error err = { 0 };

    assert_non_null(logits);
    for (uint32_t t = 0; t < N_TOKENS; t++)
        logits[(size_t)t * vocab + t] = 1.0f;
    MUST(ew_st_writer_create(PARITY_FILE, &w, &err));
    MUST(ew_st_writer_declare(w, "input_ids", &types[0], &err));
    MUST(ew_st_writer_declare(w, "logits", &types[1], &err));
    if (n_gaps)
        MUST(ew_st_writer_declare(w, "router_gap", &types[2], &err));
    MUST(ew_st_writer_begin(w, &err));
    MUST(ew_st_writer_write(w, ids, sizeof(ids), &err));
    MUST(ew_st_writer_write(w, logits, (size_t)N_TOKENS * vocab * sizeof(*logits), &err));
    if (n_gaps)
        MUST(ew_st_writer_write(w, gaps, (size_t)n_gaps * sizeof(*gaps), &err));
    MUST(ew_st_writer_commit(w, &err));
    free(logits);
}

static ew_parity_result parity(ew_runtime *rt)
{
    ew_parity_result r;
    ew_error err = { 0 };

    MUST(ew_eval_parity(rt, PARITY_FILE, 0.5, NULL, &r, &err));
    return r;
}

/* Tokens that a router may send elsewhere are judged apart where operands are rounded. */
static void test_router_ties(void **state)
{
    static const float some[N_TOKENS] = { 0.5f, 0.009f, 0.0f, 0.011f }, none[N_TOKENS] = { 0 };
    ew_build_opts o = EW_BUILD_OPTS_INIT;
    ew_runtime_opts ro = EW_RUNTIME_OPTS_INIT;
    ew_runtime *rt = NULL;
    ew_model_info info;
    ew_parity_result r;
    ew_error err = { 0 };

    (void)state;
    o.device = "cuda";
    o.flags = EW_BUILD_NO_TIMING | EW_BUILD_ALL_LOGITS;
    o.n_threads = 2;
    o.max_batch = 1;
    o.max_kv_len = o.max_input_len = 64;
    MUST(ew_model_build(TINY, PARITY_DIR, &o, false, &err));
    fakecuda_reset();
    MUST(ew_runtime_open(PARITY_DIR, &ro, &rt, &err));
    ew_runtime_get_model(rt, &info);
    write_reference(info.vocab, NULL, 0);
    r = parity(rt);
    assert_false(r.ok);
    assert_int_equal(r.n_ties, 0);
    assert_int_equal(r.n_greedy, N_TOKENS);
    ew_parity_release(&r);
    write_reference(info.vocab, some, N_TOKENS);
    r = parity(rt);
    assert_false(r.ok);
    assert_int_equal(r.n_ties, 2);
    assert_int_equal(r.n_greedy, N_TOKENS - 2);
    assert_true(r.tie_kl > 0 && r.max_kl > 0);
    ew_parity_release(&r);
    write_reference(info.vocab, none, N_TOKENS);
    r = parity(rt);
    assert_true(r.ok);
    assert_int_equal(r.n_ties, N_TOKENS);
    assert_true(r.tie_kl > 0 && r.max_kl <= 0);
    ew_parity_release(&r);
    write_reference(info.vocab, some, N_TOKENS - 1);
    assert_int_equal(ew_eval_parity(rt, PARITY_FILE, 0.5, NULL, &r, &err), EW_STATUS_MISMATCH);
    assert_non_null(strstr(err.text, "'router_gap' is not a float [1,4]"));
    ew_runtime_destroy(rt);
}

/* ---- graph cache ---- */

#define ADAPTER_BYTES ((size_t)8 * FIX_N * sizeof(float))

/* y = Linear(x, w) + tanh(x * s): s is an adapter, an input that stays on the device. */
static struct ew_graph *adapter_graph(void)
{
    ew_error err = { 0 };
    struct ew_graph *g = NULL;
    struct ew_node *n = NULL;
    struct ew_value *in[2], *sum;
    const int64_t w_dims[2] = { FIX_N, FIX_N };
    struct ew_type xt = { EW_DTYPE_F32, 2, { 0, FIX_N } };

    MUST(ew_graph_create("adapter", &g, &err));
    xt.dim[0] = ew_dim_symbol(g->syms, "batch");
    in[0] = ew_graph_add_input(g, "x", &xt);
    in[1] = const_f32(g, "w", 2, w_dims, 1);
    MUST(ew_graph_add_node(g, EW_OP_LINEAR, "lin", NULL, in, 2, 1, &n, &err));
    sum = n->out[0];
    in[1] = ew_graph_add_input(g, "adapter", &xt);
    MUST(ew_graph_add_node(g, EW_OP_MUL, "mul", NULL, in, 2, 1, &n, &err));
    in[0] = n->out[0];
    MUST(ew_graph_add_node(g, EW_OP_TANH, "tanh", NULL, in, 1, 1, &n, &err));
    in[0] = sum;
    in[1] = n->out[0];
    MUST(ew_graph_add_node(g, EW_OP_ADD, "add", NULL, in, 2, 1, &n, &err));
    MUST(ew_graph_add_output(g, n->out[0], "y", &err));
    return g;
}

static void open_adapter(int64_t max_batch, ew_engine **e, void **bytes)
{
    const ew_profile_input in[2] = {
        { "x", 2, { 1, FIX_N }, { 2, FIX_N }, { max_batch, FIX_N } },
        { "adapter", 2, { 1, FIX_N }, { 2, FIX_N }, { max_batch, FIX_N } }
    };
    const ew_profile profile = { "p", in, 2 };
    ew_build_opts o = EW_BUILD_OPTS_INIT;
    struct ew_graph *g = adapter_graph();
    ew_error err = { 0 };
    size_t len;

    fakecuda_reset();
    o.flags = EW_BUILD_NO_TIMING;
    o.profiles = &profile;
    o.n_profiles = 1;
    o.device = "cuda";
    MUST(ew_build_memory(g, &o, bytes, &len, &err));
    ew_graph_destroy(g);
    MUST(ew_engine_load(*bytes, len, NULL, e, &err));
}

static void run_adapter(ew_context *c, int64_t batch, void *adapter, const float *x, float *y)
{
    const int64_t dims[2] = { batch, FIX_N };

    assert_int_equal(ew_context_set_shape(c, "x", dims, 2), 0);
    assert_int_equal(ew_context_set_address(c, "x", (void *)(uintptr_t)x), 0);
    assert_int_equal(ew_context_set_shape(c, "adapter", dims, 2), 0);
    assert_int_equal(ew_context_set_device_address(c, "adapter", adapter), 0);
    assert_int_equal(ew_context_set_address(c, "y", y), 0);
    if (ew_context_run(c))
        fail_msg("%s", ew_context_error(c));
}

/* Three batch sizes by two adapters are six captures, and the second time round none: a launch a
 * run. */
static void test_graph_cache(void **state)
{
    static const int64_t batches[3] = { 1, 3, 8 };
    static float x[8 * FIX_N], y[8 * FIX_N];
    void *adapter[2], *bytes;
    ew_engine *e = NULL;
    ew_context *c = NULL;
    ew_error err = { 0 };
    ew_context_stats s;
    uint64_t launches;

    (void)state;
    open_adapter(8, &e, &bytes);
    MUST(ew_context_create(e, NULL, &c, &err));
    for (int i = 0; i < 2; i++)
        MUST(ew_engine_memory(e)->alloc(ew_engine_memory(e)->ctx, ADAPTER_BYTES, "adapter",
                                        &adapter[i], &err));
    fakecuda_reset();
    for (int round = 0; round < 3; round++) {
        launches = fakecuda_count("cuLaunchKernelEx");
        for (int b = 0; b < 3; b++)
            for (int i = 0; i < 2; i++)
                run_adapter(c, batches[b], adapter[i], x, y);
        assert_int_equal(fakecuda_count("cuGraphInstantiateWithFlags"), 6);
        assert_int_equal(fakecuda_count("cuGraphLaunch"), 6 * (round + 1));
        if (round > 0)
            assert_int_equal(fakecuda_count("cuLaunchKernelEx"), launches);
    }
    ew_context_get_stats(c, &s);
    assert_int_equal(s.n_captures, 6);
    assert_int_equal(s.n_replays, 12);
    ew_context_destroy(c);
    for (int i = 0; i < 2; i++)
        ew_engine_memory(e)->release(ew_engine_memory(e)->ctx, adapter[i], ADAPTER_BYTES);
    ew_engine_destroy(e);
    ew_plan_free(bytes);
    assert_int_equal(fakecuda_live(), 0);
}

/* A run that fails half way has gone no further when its caller hears of it: x and y are the
 * caller's again. */
static void test_failed_run(void **state)
{
    static const char *const functions[] = { "cuMemcpyHtoDAsync_v2", "cuGraphLaunch",
                                             "cuMemcpyDtoHAsync_v2", "cuStreamSynchronize" };
    static float x[8 * FIX_N], y[8 * FIX_N];
    void *adapter, *bytes;
    ew_engine *e = NULL;
    ew_context *c = NULL;
    ew_error err = { 0 };

    (void)state;
    open_adapter(8, &e, &bytes);
    MUST(ew_context_create(e, NULL, &c, &err));
    MUST(ew_engine_memory(e)->alloc(ew_engine_memory(e)->ctx, ADAPTER_BYTES, "adapter", &adapter,
                                    &err));
    for (size_t i = 0; i < EW_COUNT(functions); i++) {
        run_adapter(c, 3, adapter, x, y);
        assert_int_equal(fakecuda_busy(), 0);
        fakecuda_fail(functions[i], 1, 1, 0);
        assert_int_equal(ew_context_run(c), EW_STATUS_DEVICE);
        if (fakecuda_busy())
            fail_msg("%s fails, and the stream goes on", functions[i]);
    }
    run_adapter(c, 3, adapter, x, y);
    ew_context_destroy(c);
    ew_engine_memory(e)->release(ew_engine_memory(e)->ctx, adapter, ADAPTER_BYTES);
    ew_engine_destroy(e);
    ew_plan_free(bytes);
    assert_int_equal(fakecuda_live(), 0);
}

static void test_draw_refusals(void **state)
{
    ew_engine *e = NULL;
    ew_context *c = NULL;
    ew_error err = { 0 };
    const ew_draw draw = { .top_p = 1 };
    int32_t token;
    void *bytes;

    (void)state;
    open_adapter(2000, &e, &bytes);
    MUST(ew_context_create(e, NULL, &c, &err));
    assert_int_equal(ew_context_set_draw(c, "x", &draw, &token), EW_STATUS_INVALID_ARG);
    assert_int_equal(ew_context_set_draw(c, "y", NULL, &token), EW_STATUS_INVALID_ARG);
    assert_int_equal(ew_context_set_draw(c, "y", &draw, &token), EW_STATUS_UNSUPPORTED);
    assert_non_null(strstr(ew_context_error(c), "too many rows"));
    ew_context_destroy(c);
    ew_engine_destroy(e);
    ew_plan_free(bytes);
}

struct runner {
    ew_context *c;
    void *adapter;
    float x[8 * FIX_N], y[8 * FIX_N];
};

static void run_many(void *ctx)
{
    struct runner *r = ctx;

    for (int64_t i = 0; i < 200; i++)
        run_adapter(r->c, 1 + i % 8, r->adapter, r->x, r->y);
}

/* Contexts of one engine in threads of their own: each has its stream, memory and graphs. */
static void test_contexts(void **state)
{
    static struct runner r[3];
    struct ew_thread *threads[3] = { 0 };
    void *bytes;
    ew_engine *e = NULL;
    ew_error err = { 0 };

    (void)state;
    open_adapter(8, &e, &bytes);
    for (int i = 0; i < 3; i++) {
        MUST(ew_context_create(e, NULL, &r[i].c, &err));
        MUST(ew_engine_memory(e)->alloc(ew_engine_memory(e)->ctx, ADAPTER_BYTES, "adapter",
                                        &r[i].adapter, &err));
    }
    fakecuda_reset();
    for (int i = 0; i < 3; i++)
        MUST(ew_thread_create(&threads[i], run_many, &r[i], &err));
    for (int i = 0; i < 3; i++)
        ew_thread_join(threads[i]);
    assert_int_equal(fakecuda_count("cuGraphInstantiateWithFlags"), 3 * 8);
    assert_int_equal(fakecuda_count("cuGraphLaunch"), 3 * 200);
    for (int i = 0; i < 3; i++) {
        ew_context_destroy(r[i].c);
        ew_engine_memory(e)->release(ew_engine_memory(e)->ctx, r[i].adapter, ADAPTER_BYTES);
    }
    ew_engine_destroy(e);
    ew_plan_free(bytes);
    assert_int_equal(fakecuda_live(), 0);
}

/* Who wants the likeliest tokens of a pass gets them without its logits. */
static void test_forward_tokens(void **state)
{
    enum { N = 5 };
    static const int32_t ids[N] = { 5, 6, 7, 8, 9 };
    ew_runtime *rt = open_played(ALL);
    const uint32_t vocab = rt->lane->vocab;
    float *const logits = ew_mem_calloc(EW_MEM_RUNTIME, N * (size_t)vocab, sizeof(*logits));
    int32_t tokens[N + 1] = { 0 };
    ew_error err = { 0 };
    uint64_t before;

    (void)state;
    assert_non_null(logits);
    tokens[N] = -1;
    before = fakecuda_count("cuMemcpyDtoHAsync_v2");
    MUST(ew_runtime_forward_tokens(rt, 0, ids, N, 0, tokens, N, &err));
    assert_int_equal(fakecuda_count("cuMemcpyDtoHAsync_v2") - before, 1);
    assert_int_equal(played.n_argmax, 1);
    MUST(ew_runtime_rewind(rt, 0, 0, &err));
    MUST(ew_runtime_forward(rt, 0, ids, N, 0, logits, N, &err));
    assert_int_equal(fakecuda_count("cuMemcpyDtoHAsync_v2") - before, 3);
    for (uint32_t i = 0; i < N; i++)
        assert_int_equal(tokens[i], ew_argmax(logits + (size_t)i * vocab, vocab));
    assert_int_equal(tokens[N], -1);
    ew_mem_free(logits);
    close_played(rt);
}

/* ---- ranges ---- */

/* Launches carry the names of their nodes, in order and one after the other. */
static void test_ranges(void **state)
{
    ew_runtime_opts ro = EW_RUNTIME_OPTS_INIT;
    const int32_t id = 1;
    ew_runtime *rt = NULL;
    ew_error err = { 0 };
    unsigned n = 0, layer0 = 0, layer1 = 0;

    (void)state;
    fakecuda_reset();
    ro.flags = EW_CONTEXT_NO_GRAPH;
    MUST(ew_runtime_open(DIR, &ro, &rt, &err));
    fakenvtx_reset();
    MUST(ew_runtime_forward(rt, 0, &id, 1, 0, NULL, 0, &err));
    for (const char *name; (name = fakenvtx_name(n)) != NULL; n++) {
        if (!layer0 && strncmp(name, "model.layers.0.", 15) == 0)
            layer0 = n + 1;
        if (!layer1 && strncmp(name, "model.layers.1.", 15) == 0)
            layer1 = n + 1;
    }
    assert_int_equal(n, fakecuda_count("cuLaunchKernelEx"));
    assert_true(layer0 > 0 && layer1 > layer0);
    assert_int_equal(fakenvtx_depth(), 0);
    ew_runtime_destroy(rt);
}

/* ---- the library of a tool ---- */

#define TOOL EW_BINARY_DIR "/tests/fakeinject/libinject.so"

static unsigned warned;

static void count_warnings(void *ctx, ew_log_level level, const char *text)
{
    (void)ctx;
    warned += level == EW_LOG_WARN && strstr(text, "profiler: ") != NULL;
}

/* One forward pass with the tool named; launches. */
static uint64_t forward_under(const char *tool)
{
    const ew_logger logger = { NULL, count_warnings };
    ew_runtime_opts ro = EW_RUNTIME_OPTS_INIT;
    const int32_t id = 1;
    ew_runtime *rt = NULL;
    ew_error err = { 0 };
    uint64_t n;

    fakecuda_reset();
    ro.flags = EW_CONTEXT_NO_GRAPH;
    ro.profiler = tool;
    ro.logger = &logger;
    MUST(ew_runtime_open(DIR, &ro, &rt, &err));
    fakenvtx_reset();
    MUST(ew_runtime_forward(rt, 0, &id, 1, 0, NULL, 0, &err));
    n = fakecuda_count("cuLaunchKernelEx");
    ew_runtime_destroy(rt);
    return n;
}

/* A profiler's own library gets the names of launches, of every engine of the process from then on
 * that names one. */
static void test_tool(void **state)
{
    unsigned (*count)(void);
    int (*depth)(void);
    const char *(*name)(unsigned);
    void *lib, *symbols[3];
    ew_error err = { 0 };
    uint64_t n;

    (void)state;
    warned = 0;
    lib = ew_lib_open(TOOL, &err);
    if (!lib)
        fail_msg("%s", err.text);
    symbols[0] = ew_lib_symbol(lib, "fakeinject_count");
    symbols[1] = ew_lib_symbol(lib, "fakeinject_depth");
    symbols[2] = ew_lib_symbol(lib, "fakeinject_name");
    memcpy(&count, &symbols[0], sizeof(count));
    memcpy(&depth, &symbols[1], sizeof(depth));
    memcpy(&name, &symbols[2], sizeof(name));
    n = forward_under(TOOL);
    assert_int_equal(count(), n);
    assert_int_equal(depth(), 0);
    assert_non_null(strstr(name((unsigned)n - 4), "model."));
    assert_null(fakenvtx_name(0));                  /* nobody is told twice */
    assert_int_equal(count(), forward_under(NULL)); /* NVTX's own library */
    assert_non_null(fakenvtx_name(0));
    n = count() + forward_under("another.so"); /* the first one stays */
    assert_int_equal(count(), n);
    assert_int_equal(warned, 0);
    ew_lib_close(lib);
}

static int make_engine(void **state)
{
    (void)state;
    build_tiny(DIR, 0);
    build_tiny(ALL, EW_BUILD_ALL_LOGITS);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_draws),          cmocka_unit_test(test_left_draws),
        cmocka_unit_test(test_mixed_rows),     cmocka_unit_test(test_draw_refusals),
        cmocka_unit_test(test_graph_cache),    cmocka_unit_test(test_contexts),
        cmocka_unit_test(test_every_fault),    cmocka_unit_test(test_no_host_memory),
        cmocka_unit_test(test_cancelled_row),  cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_router_ties),    cmocka_unit_test(test_tool),
        cmocka_unit_test(test_forward_tokens), cmocka_unit_test(test_failed_run),
    };

    return cmocka_run_group_tests(tests, make_engine, NULL);
}

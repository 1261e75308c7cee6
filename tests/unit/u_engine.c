/* u_engine.c - contexts: results, capture and replay, allocations, refusals, threads, dynamic
 * shapes, KV attention. */
#include "engine_fixture.h"

#include <math.h>

struct env {
    void *bytes;
    size_t len;
    ew_engine *e;
};

static void open_linear(struct env *v, uint32_t threads)
{
    ew_engine_opts o = EW_ENGINE_OPTS_INIT;
    ew_error err = { 0 };

    o.n_threads = threads;
    linear_bytes(&v->bytes, &v->len);
    MUST(ew_engine_load(v->bytes, v->len, &o, &v->e, &err));
}

static void close_env(struct env *v)
{
    ew_engine_destroy(v->e);
    ew_plan_free(v->bytes);
}

static void run_linear(ew_context *c, const float *x, int64_t m, float *y)
{
    const int64_t dims[2] = { m, FIX_K };

    assert_int_equal(ew_context_set_shape(c, "x", dims, 2), 0);
    assert_int_equal(ew_context_set_address(c, "x", (void *)(uintptr_t)x), 0);
    assert_int_equal(ew_context_set_address(c, "y", y), 0);
    if (ew_context_run(c))
        fail_msg("%s", ew_context_error(c));
}

static void close_to(const float *got, const float *want, size_t n, float tol)
{
    for (size_t i = 0; i < n; i++)
        if (!(fabsf(got[i] - want[i]) <= tol))
            fail_msg("value %zu is %g, wanted %g", i, (double)got[i], (double)want[i]);
}

/* The weight (its last panel padded to at most 64 rows), the bias and the addend. */
static void test_step_bytes(void **state)
{
    struct env v;

    (void)state;
    open_linear(&v, 1);
    assert_in_range(ew_engine_step_bytes(v.e), 4 * (FIX_N * FIX_K + 2 * FIX_N),
                    4 * (64 * FIX_K + 2 * FIX_N));
    assert_int_equal(ew_engine_step_macs(v.e), FIX_N * FIX_K);
    close_env(&v);
}

/* Each profile allows one shape: it need not be set, and changes with the profile. */
static void test_profiles_of_one_shape(void **state)
{
    static const ew_profile_input in[2] = {
        { "x", 2, { 3, FIX_K }, { 3, FIX_K }, { 3, FIX_K } },
        { "x", 2, { 5, FIX_K }, { 5, FIX_K }, { 5, FIX_K } },
    };
    static const ew_profile p[2] = { { "three", &in[0], 1 }, { "five", &in[1], 1 } };
    static const uint32_t order[] = { 0, 1, 0 };
    struct env v;
    ew_context *c;
    ew_error err = { 0 };
    float x[5 * FIX_K] = { 0 }, y[5 * FIX_N];

    (void)state;
    build_bytes(linear_graph(), p, 2, &v.bytes, &v.len);
    MUST(ew_engine_load(v.bytes, v.len, NULL, &v.e, &err));
    MUST(ew_context_create(v.e, NULL, &c, &err));
    assert_int_equal(ew_context_set_address(c, "x", x), 0);
    assert_int_equal(ew_context_set_address(c, "y", y), 0);
    for (int i = 0; i < 3; i++) {
        int64_t dims[8] = { 0 };
        uint32_t n_dims = 0;

        assert_int_equal(ew_context_set_profile(c, order[i]), 0);
        if (ew_context_run(c))
            fail_msg("%s", ew_context_error(c));
        assert_int_equal(ew_context_get_shape(c, "y", dims, &n_dims), 0);
        assert_int_equal(dims[0], order[i] ? 5 : 3);
    }
    ew_context_destroy(c);
    close_env(&v);
}

static void test_values(void **state)
{
    float y[9 * FIX_N], want[9 * FIX_N], *x = noises(9 * FIX_K, 5);
    const void *z = NULL;
    struct env v;
    ew_context *c = NULL;
    ew_error err = { 0 };
    ew_dtype dtype;
    int64_t dims[8];
    uint32_t n_dims;

    (void)state;
    open_linear(&v, 2);
    MUST(ew_context_create(v.e, NULL, &c, &err));
    for (int64_t m = 1; m <= 9; m += 4) {
        run_linear(c, x, m, y);
        linear_expect(x, (size_t)m, want);
        close_to(y, want, (size_t)m * FIX_N, 1e-5f);
        assert_int_equal(ew_context_get_output(c, "z", &z, &dtype, dims, &n_dims), 0);
        assert_int_equal(n_dims, 2);
        assert_int_equal(dims[0], m);
        for (size_t i = 0; i < (size_t)m * FIX_N; i++)
            want[i] = tanhf(want[i]);
        close_to(z, want, (size_t)m * FIX_N, 1e-5f);
    }
    ew_context_destroy(c);
    close_env(&v);
    free(x);
}

static void test_capture(void **state)
{
    float y[9 * FIX_N], *x = noises(9 * FIX_K, 5);
    struct env v;
    ew_context *c = NULL;
    ew_error err = { 0 };
    ew_context_stats st;
    uint64_t before;

    (void)state;
    open_linear(&v, 2);
    MUST(ew_context_create(v.e, NULL, &c, &err));
    run_linear(c, x, 3, y);
    run_linear(c, x, 5, y);
    run_linear(c, x, 3, y); /* z was held by a smaller block: one more capture is allowed */
    run_linear(c, x, 5, y);
    ew_context_get_stats(c, &st);
    assert_int_equal(st.n_runs, 4);
    assert_true(st.n_captures <= 3);
    before = ew_mem_count();
    for (int i = 0; i < 50; i++) {
        run_linear(c, x, i % 2 ? 3 : 5, y);
        assert_int_equal(ew_context_run(c), 0);
    }
    assert_int_equal(ew_mem_count() - before, 0);
    ew_context_get_stats(c, &st);
    assert_true(st.n_replays >= 100);
    assert_true(st.n_captures <= 3);
    ew_context_destroy(c);
    close_env(&v);
    free(x);
}

static void test_cache_is_bounded(void **state)
{
    float *y = calloc(200 * FIX_N, sizeof(*y)), *x = noises(9 * FIX_K, 5), want[FIX_N];
    struct env v;
    ew_context *c = NULL;
    ew_error err = { 0 };

    (void)state;
    open_linear(&v, 1);
    MUST(ew_context_create(v.e, NULL, &c, &err));
    linear_expect(x, 1, want);
    for (int round = 0; round < 2; round++)
        for (size_t i = 0; i < 150; i++) {
            run_linear(c, x, 1, y + i * FIX_N);
            close_to(y + i * FIX_N, want, FIX_N, 1e-5f);
        }
    ew_context_destroy(c);
    close_env(&v);
    free(x);
    free(y);
}

static void expect_error(ew_context *c, ew_status got, ew_status want, const char *part)
{
    assert_int_equal(got, want);
    if (!strstr(ew_context_error(c), part))
        fail_msg("error is '%s', wanted '%s' in it", ew_context_error(c), part);
}

static void test_refusals(void **state)
{
    float y[9 * FIX_N], *x = noises(9 * FIX_K, 5);
    const int64_t big[2] = { 10, FIX_K }, ok[2] = { 2, FIX_K }, wide[2] = { 2, 7 };
    struct env v;
    ew_context *c = NULL;
    ew_error err = { 0 };

    (void)state;
    open_linear(&v, 1);
    MUST(ew_context_create(v.e, NULL, &c, &err));
    expect_error(c, ew_context_run(c), EW_STATUS_INVALID_ARG, "'x': no shape");
    assert_int_equal(ew_context_set_shape(c, "x", ok, 2), 0);
    expect_error(c, ew_context_run(c), EW_STATUS_INVALID_ARG, "'x': no address");
    assert_int_equal(ew_context_set_address(c, "x", x), 0);
    assert_int_equal(ew_context_set_shape(c, "x", big, 2), 0);
    expect_error(c, ew_context_run(c), EW_STATUS_INVALID_ARG,
                 "axis 0 is 10; profile 'default' allows 1 to 9");
    assert_int_equal(ew_context_set_shape(c, "x", wide, 2), 0);
    expect_error(c, ew_context_run(c), EW_STATUS_INVALID_ARG, "axis 1 is 7");
    expect_error(c, ew_context_set_shape(c, "x", ok, 1), EW_STATUS_INVALID_ARG, "1 dims given");
    expect_error(c, ew_context_set_address(c, "nope", y), EW_STATUS_NOT_FOUND, "'nope'");
    expect_error(c, ew_context_set_profile(c, 7), EW_STATUS_INVALID_ARG, "profile 7");
    run_linear(c, x, 2, y); /* and it still works */
    ew_context_destroy(c);
    close_env(&v);
    free(x);
}

static void test_threads_and_no_graph_agree(void **state)
{
    float want[9 * FIX_N], y[9 * FIX_N], *x = noises(9 * FIX_K, 5);
    ew_context_opts no_graph = EW_CONTEXT_OPTS_INIT;
    ew_step_profile sp;
    ew_error err = { 0 };

    (void)state;
    no_graph.flags = EW_CONTEXT_NO_GRAPH | EW_CONTEXT_PROFILE;
    for (uint32_t threads = 1; threads <= 3; threads++)
        for (int flag = 0; flag < 2; flag++) {
            struct env v;
            ew_context *c = NULL;

            open_linear(&v, threads);
            MUST(ew_context_create(v.e, flag ? &no_graph : NULL, &c, &err));
            memset(y, 0, sizeof(y));
            run_linear(c, x, 9, y);
            run_linear(c, x, 9, y);
            if (threads == 1 && !flag)
                memcpy(want, y, sizeof(want));
            assert_memory_equal(y, want, sizeof(want));
            if (flag) {
                assert_int_equal(ew_context_get_step(c, 0, &sp), 0);
                assert_int_equal(sp.n_runs, 2);
                assert_int_equal(sp.flops, 2 * 9 * FIX_N * FIX_K);
            }
            ew_context_destroy(c);
            close_env(&v);
        }
    free(x);
}

/* y = x[0:n], n is an input: its value decides y's shape. */
static struct ew_graph *dynamic_graph(void)
{
    ew_error err = { 0 };
    struct ew_graph *g = NULL;
    struct ew_node *n = NULL;
    struct ew_type xt = { EW_DTYPE_F32, 1, { 10 } }, nt = { EW_DTYPE_I64, 0, { 0 } };
    int64_t zero = 0, one = 1;
    struct ew_value *in[3], *x, *r;

    MUST(ew_graph_create("dynamic", &g, &err));
    x = ew_graph_add_input(g, "x", &xt);
    in[1] = ew_graph_add_input(g, "n", &nt);
    nt.n_dims = 0;
    in[0] = ew_graph_add_const(g, "zero", &nt, &zero, true);
    in[2] = ew_graph_add_const(g, "one", &nt, &one, true);
    MUST(ew_graph_add_node(g, EW_OP_RANGE, "range", NULL, in, 3, 1, &n, &err));
    r = n->out[0];
    in[0] = x;
    in[1] = r;
    MUST(ew_graph_add_node(g, EW_OP_GATHER, "gather", NULL, in, 2, 1, &n, &err));
    MUST(ew_graph_add_node(g, EW_OP_NEG, "neg", NULL, &n->out[0], 1, 1, &n, &err));
    MUST(ew_graph_add_output(g, n->out[0], "y", &err));
    return g;
}

static void test_dynamic(void **state)
{
    float x[10];
    int64_t n = 0, dims[8];
    const void *data = NULL;
    void *bytes = NULL;
    size_t len = 0;
    ew_engine *e = NULL;
    ew_context *c = NULL;
    ew_error err = { 0 };
    ew_dtype dtype;
    uint32_t n_dims;

    (void)state;
    for (int i = 0; i < 10; i++)
        x[i] = (float)i;
    build_bytes(dynamic_graph(), NULL, 0, &bytes, &len);
    MUST(ew_engine_load(bytes, len, NULL, &e, &err));
    MUST(ew_context_create(e, NULL, &c, &err));
    assert_int_equal(ew_context_set_address(c, "x", x), 0);
    assert_int_equal(ew_context_set_address(c, "n", &n), 0);
    expect_error(c, ew_context_set_address(c, "y", x), EW_STATUS_INVALID_ARG, "depends on data");
    for (n = 7; n >= 0; n -= 7) {
        if (ew_context_run(c))
            fail_msg("%s", ew_context_error(c));
        assert_int_equal(ew_context_get_output(c, "y", &data, &dtype, dims, &n_dims), 0);
        assert_int_equal(n_dims, 1);
        assert_int_equal(dims[0], n);
        for (int64_t i = 0; i < n; i++)
            assert_true(((const float *)data)[i] == -x[i]);
    }
    n = 9;
    assert_int_equal(ew_context_run(c), 0);
    n = 11; /* past the end of x: the kernel refuses, by node name */
    expect_error(c, ew_context_run(c), ew_context_run(c), "gather");
    ew_context_destroy(c);
    ew_engine_destroy(e);
    ew_plan_free(bytes);
}

/* Shape -> Gather -> Concat -> Reshape never reaches the launch list. */
static void test_shape_arithmetic(void **state)
{
    struct ew_graph *g = NULL;
    struct ew_node *n = NULL;
    struct ew_type xt = { EW_DTYPE_F32, 2, { 0, 6 } };
    ew_profile_input pin = { "x", 2, { 1, 6 }, { 2, 6 }, { 4, 6 } };
    ew_profile p = { "default", &pin, 1 };
    struct ew_value *in[3], *x;
    int64_t i0 = 0, two_three[2] = { 2, 3 }, dims[8], shape[2] = { 4, 6 };
    ew_context_opts prof = EW_CONTEXT_OPTS_INIT;
    float data[24], y[24];
    void *bytes = NULL;
    size_t len = 0;
    ew_engine *e = NULL;
    ew_context *c = NULL;
    ew_step_profile sp;
    ew_error err = { 0 };
    uint32_t n_dims;

    (void)state;
    for (int i = 0; i < 24; i++)
        data[i] = (float)i;
    MUST(ew_graph_create("shapes", &g, &err));
    xt.dim[0] = ew_dim_symbol(g->syms, "batch");
    x = ew_graph_add_input(g, "x", &xt);
    MUST(ew_graph_add_node(g, EW_OP_SHAPE, "shape", NULL, &x, 1, 1, &n, &err));
    in[0] = n->out[0];
    in[1] = ew_graph_const_i64(g, "i", &i0, 1);
    MUST(ew_graph_add_node(g, EW_OP_GATHER, "dim0", NULL, in, 2, 1, &n, &err));
    in[0] = n->out[0];
    in[1] = ew_graph_const_i64(g, "rest", two_three, 2);
    MUST(ew_graph_add_node(g, EW_OP_CONCAT, "cat", NULL, in, 2, 1, &n, &err));
    in[1] = n->out[0];
    in[0] = x;
    MUST(ew_graph_add_node(g, EW_OP_RESHAPE, "reshape", NULL, in, 2, 1, &n, &err));
    MUST(ew_graph_add_node(g, EW_OP_NEG, "neg", NULL, &n->out[0], 1, 1, &n, &err));
    MUST(ew_graph_add_output(g, n->out[0], "y", &err));
    build_bytes(g, &p, 1, &bytes, &len);
    prof.flags = EW_CONTEXT_PROFILE;
    MUST(ew_engine_load(bytes, len, NULL, &e, &err));
    MUST(ew_context_create(e, &prof, &c, &err));
    assert_int_equal(ew_context_set_shape(c, "x", shape, 2), 0);
    assert_int_equal(ew_context_get_shape(c, "y", dims, &n_dims), 0); /* before any run */
    assert_int_equal(n_dims, 3);
    assert_int_equal(dims[0] * 100 + dims[1] * 10 + dims[2], 423);
    assert_int_equal(ew_context_set_address(c, "x", data), 0);
    assert_int_equal(ew_context_set_address(c, "y", y), 0);
    if (ew_context_run(c))
        fail_msg("%s", ew_context_error(c));
    for (int i = 0; i < 24; i++)
        assert_true(y[i] == -data[i]);
    assert_int_equal(ew_context_get_step(c, 0, &sp), 0);
    assert_int_equal(ew_context_get_step(c, 1, &sp), EW_STATUS_NOT_FOUND);
    ew_context_destroy(c);
    ew_engine_destroy(e);
    ew_plan_free(bytes);
}

static void test_trace_and_describe(void **state)
{
    float y[9 * FIX_N], *x = noises(9 * FIX_K, 5);
    char path[256], *text = NULL;
    size_t n = 0;
    struct env v;
    ew_context *c = NULL;
    ew_error err = { 0 };

    (void)state;
    snprintf(path, sizeof(path), "%s/u_engine_trace.json", EW_BINARY_DIR);
    open_linear(&v, 2);
    MUST(ew_context_create(v.e, NULL, &c, &err));
    MUST(ew_trace_start(100, &err));
    assert_int_equal(ew_trace_start(100, &err), EW_STATUS_BUSY);
    run_linear(c, x, 3, y);
    MUST(ew_trace_write(path, &err));
    MUST(ew_file_read(path, 1 << 20, &text, &n, &err));
    assert_non_null(strstr(text, "\"traceEvents\""));
    assert_non_null(strstr(text, "\"ph\":\"X\""));
    ew_mem_free(text);
    remove(path);
    MUST(ew_engine_describe(v.e, &text, &err));
    assert_non_null(strstr(text, "runners_up"));
    assert_non_null(strstr(text, "WEIGHTS"));
    ew_text_free(text);
    ew_context_destroy(c);
    close_env(&v);
    free(x);
}

/* norm, linear and a pointwise sum, three times. Of the whole x [1,ROW_K], or of rows [0, n) of
 * x [1,ROW_K], where n is an input and every step runs as soon as it is emitted. */
#define ROW_K 200
static struct ew_graph *row_graph(bool dynamic)
{
    union ew_attrs prog = { .pointwise = { .n_instr = 2,
                                           .instr = { { EW_PW_ADD, 2, 0, 1, 0 },
                                                      { EW_PW_MUL_IMM, 2, 2, 0, 0.5f } } } };
    const struct ew_type xt = { EW_DTYPE_F32, 2, { 1, ROW_K } }, nt = { EW_DTYPE_I64, 0, { 0 } };
    const int64_t kd[1] = { ROW_K }, wd[2] = { ROW_K, ROW_K }, zero = 0, one = 1;
    struct ew_graph *g = NULL;
    struct ew_node *n = NULL;
    struct ew_value *in[3], *h;
    ew_error err = { 0 };

    MUST(ew_graph_create("rows", &g, &err));
    h = ew_graph_add_input(g, "x", &xt);
    if (dynamic) {
        in[0] = ew_graph_add_const(g, "zero", &nt, &zero, true);
        in[1] = ew_graph_add_input(g, "n", &nt);
        in[2] = ew_graph_add_const(g, "one", &nt, &one, true);
        MUST(ew_graph_add_node(g, EW_OP_RANGE, "range", NULL, in, 3, 1, &n, &err));
        in[0] = h;
        in[1] = n->out[0];
        MUST(ew_graph_add_node(g, EW_OP_GATHER, "gather", NULL, in, 2, 1, &n, &err));
        h = n->out[0];
    }
    for (uint32_t i = 0; i < 3; i++) {
        in[0] = h;
        in[1] = const_f32(g, "nw", 1, kd, 10 + i);
        MUST(ew_graph_add_node(g, EW_OP_FUSED_RMS_NORM, "norm", NULL, in, 2, 1, &n, &err));
        in[0] = n->out[0];
        in[1] = const_f32(g, "w", 2, wd, 20 + i);
        MUST(ew_graph_add_node(g, EW_OP_LINEAR, "lin", NULL, in, 2, 1, &n, &err));
        in[0] = n->out[0];
        in[1] = h;
        MUST(ew_graph_add_node(g, EW_OP_POINTWISE, "pw", &prog, in, 2, 1, &n, &err));
        h = n->out[0];
    }
    MUST(ew_graph_add_output(g, h, "y", &err));
    return g;
}

/* One row: norms run on every thread for itself and short pointwise programs on one alone, between
 * steps that run on all. The same bits whatever the number of threads, and node by node. */
static void test_single_row_steps(void **state)
{
    static const uint32_t threads[] = { 1, 2, 3, 7 };
    float *x = noises(ROW_K, 5), first[ROW_K] = { 0 };
    int64_t one = 1, dims[8];
    ew_error err = { 0 };

    (void)state;
    for (int t = 0; t < 8; t++) {
        const bool dynamic = t >= 4;
        ew_engine_opts o = EW_ENGINE_OPTS_INIT;
        ew_context_stats st;
        ew_engine *e = NULL;
        ew_context *c = NULL;
        void *bytes = NULL;
        const void *y = NULL;
        ew_dtype dtype;
        uint32_t n_dims;
        size_t len = 0;
        uint64_t first_barriers = 0;

        build_bytes(row_graph(dynamic), NULL, 0, &bytes, &len);
        o.n_threads = threads[t % 4];
        MUST(ew_engine_load(bytes, len, &o, &e, &err));
        MUST(ew_context_create(e, NULL, &c, &err));
        assert_int_equal(ew_context_set_address(c, "x", x), 0);
        if (dynamic)
            assert_int_equal(ew_context_set_address(c, "n", &one), 0);
        for (int run = 0; run < 20; run++) {
            if (ew_context_run(c))
                fail_msg("%s", ew_context_error(c));
            ew_context_get_stats(c, &st);
            first_barriers = run ? first_barriers : st.n_last_barriers;
        }
        assert_int_equal(ew_context_get_output(c, "y", &y, &dtype, dims, &n_dims), 0);
        assert_int_equal(dims[n_dims - 1], ROW_K);
        if (t == 0)
            memcpy(first, y, sizeof(first));
        assert_true(first[0] != 0 && first[0] != x[0]);
        assert_memory_equal(y, first, sizeof(first));
        assert_int_equal(st.n_threads, threads[t % 4]);
        if (st.n_threads == 1)
            assert_int_equal(st.n_barriers, 0);
        else if (!dynamic) /* a norm costs none; the last of two steps has the run's. Of the first
                            * run, as later ones go without a thread that others left no core. */
            assert_int_equal(first_barriers, 6);
        ew_context_destroy(c);
        ew_engine_destroy(e);
        ew_plan_free(bytes);
    }
    free(x);
}

/* Every thread has a core of its own, or the refusal says so. */
static void test_pinned(void **state)
{
    ew_context_opts opts = EW_CONTEXT_OPTS_INIT;
    float y[3 * FIX_N], want[3 * FIX_N], *x = noises(3 * FIX_K, 5);
    struct env v;
    ew_context *c = NULL;
    ew_error err = { 0 };

    (void)state;
    opts.flags = EW_CONTEXT_PIN;
    open_linear(&v, 1);
    MUST(ew_context_create(v.e, &opts, &c, &err));
    run_linear(c, x, 3, y);
    linear_expect(x, 3, want);
    close_to(y, want, (size_t)3 * FIX_N, 1e-5f);
    ew_context_destroy(c);
    close_env(&v);
    open_linear(&v, 1000);
    assert_int_equal(ew_context_create(v.e, &opts, &c, &err), EW_STATUS_UNSUPPORTED);
    assert_non_null(strstr(err.text, "1000 threads cannot be pinned"));
    close_env(&v);
    free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_profiles_of_one_shape),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_step_bytes),
        cmocka_unit_test(test_capture),
        cmocka_unit_test(test_cache_is_bounded),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_threads_and_no_graph_agree),
        cmocka_unit_test(test_single_row_steps),
        cmocka_unit_test(test_pinned),
        cmocka_unit_test(test_dynamic),
        cmocka_unit_test(test_shape_arithmetic),
        cmocka_unit_test(test_trace_and_describe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Steps of greedy rows that begin before the host knows their tokens, on the stand-in driver. */
#include "cuda_played.h"
#include "engine/device_impl.h"

#define DIR EW_BINARY_DIR "/test-engines/u_cuda_ahead"

/* One greedy request; its tokens, and what the driver was asked for meanwhile. */
struct counts {
    uint64_t uploads, downloads, launches, steps;
};
static struct counts counts_now(void)
{
    return (struct counts){ fakecuda_count("cuMemcpyHtoDAsync_v2"),
                            fakecuda_count("cuMemcpyDtoHAsync_v2"), fakecuda_count("cuGraphLaunch"),
                            played.n_steps };
}
static struct counts run_greedy(ew_runtime *rt, const int32_t *prompt, uint32_t n, uint32_t n_out,
                                int32_t *out)
{
    ew_request r = EW_REQUEST_INIT;
    ew_response got = { 0 };
    ew_error err = { 0 };
    const struct counts before = counts_now();
    struct counts now;

    r.prompt_ids = prompt;
    r.n_prompt_ids = n;
    r.max_tokens = n_out + (rt->config.n_eos ? 3 : 0);
    r.sampling.greedy = true;
    MUST(ew_runtime_handle_request(rt, &r, 1, &got, &err));
    if (got.status)
        fail_msg("%s", got.error);
    assert_int_equal(got.n_ids, n_out);
    memcpy(out, got.ids, n_out * sizeof(*out));
    ew_response_release(&got);
    now = counts_now();
    return (struct counts){ now.uploads - before.uploads, now.downloads - before.downloads,
                            now.launches - before.launches, now.steps - before.steps };
}

static void assert_follows(const int32_t *out, uint32_t n, int32_t length)
{
    for (uint32_t i = 1; i < n; i++)
        assert_int_equal(out[i], step_token(out[i - 1], length + (int32_t)i));
}

/* A greedy row alone: each step is begun before the token of the one before is handed out, reads
 * what that one left, and nothing goes up or down but by the first. */
static void test_ahead(void **state)
{
    static const int32_t prompt[3] = { 5, 6, 7 };
    ew_runtime *rt = open_played(DIR);
    int32_t out[N_OUT], again[N_OUT], cut[4];
    struct counts n;

    (void)state;
    rt->engine->plan.device.step[0].one_kernel = true;
    rt->config.n_eos = 0;
    n = run_greedy(rt, prompt, 3, N_OUT, out);
    assert_int_equal(n.steps, N_OUT - 1); /* none begun in vain */
    assert_follows(out, N_OUT, 3);
    assert_int_equal(n.launches, N_OUT);
    assert_int_equal(n.downloads, 1);
    assert_int_equal(fakecuda_count("cuEventSynchronize"), N_OUT - 2);
    /* what a request left is not what the next begins with */
    n = run_greedy(rt, out, 2, 4, cut);
    assert_int_equal(n.uploads, 2); /* of the prompt, of the first step */
    assert_follows(cut, 4, 2);
    n = run_greedy(rt, prompt, 3, N_OUT, again);
    assert_int_equal(n.uploads, 2);
    assert_memory_equal(out, again, sizeof(out));
    /* a token that ends the row: the step begun behind it is nobody's */
    rt->config.eos[0] = out[5];
    rt->config.n_eos = 1;
    n = run_greedy(rt, prompt, 3, 6, again);
    assert_int_equal(n.steps, 6);
    assert_memory_equal(out, again, 6 * sizeof(*out));
    rt->config.n_eos = 0;
    n = run_greedy(rt, prompt, 3, N_OUT, again);
    assert_int_equal(n.uploads, 2);
    assert_memory_equal(out, again, sizeof(out));
    close_played(rt);
}

/* Each row's tokens follow from its prompt; how many the first has, and which. */
static uint32_t run_rows(ew_runtime *rt, const ew_request r[N_ROWS], int32_t first[N_OUT])
{
    ew_response got[N_ROWS] = { 0 };
    ew_error err = { 0 };
    const uint64_t steps = played.n_steps;
    uint32_t n = 0;

    MUST(ew_runtime_handle_request(rt, r, N_ROWS, got, &err));
    n = got[0].n_ids;
    memcpy(first, got[0].ids, n * sizeof(*first));
    for (int i = 0; i < N_ROWS; i++) {
        assert_true(!got[i].status && got[i].n_ids >= 4);
        assert_follows(got[i].ids, got[i].n_ids, 3 + i);
        ew_response_release(&got[i]);
    }
    /* one is begun in vain where a token ends a row */
    assert_int_equal(played.n_steps - steps, N_OUT - 1 + (n < N_OUT));
    return n;
}

/* Greedy rows: begun ahead together, and when one has ended the others go on from where they are.
 */
static void test_ahead_rows(void **state)
{
    static const int32_t prompt[5] = { 5, 6, 7, 8, 9 };
    ew_runtime *rt = open_played(DIR);
    ew_request r[N_ROWS];
    int32_t first[N_OUT];

    (void)state;
    for (int i = 0; i < 4; i++)
        rt->engine->plan.device.step[i].one_kernel = true;
    rt->config.n_eos = 0;
    for (int i = 0; i < N_ROWS; i++) {
        r[i] = (ew_request)EW_REQUEST_INIT;
        r[i].prompt_ids = prompt;
        r[i].n_prompt_ids = 3 + (uint32_t)i;
        r[i].sampling.greedy = true;
        r[i].max_tokens = i == 1 ? 5 : N_OUT;
    }
    assert_int_equal(run_rows(rt, r, first), N_OUT);
    /* 4 steps of three rows, 7 of two: all but the last of each began the next */
    assert_int_equal(fakecuda_count("cuEventSynchronize"), 3 + 6);
    /* a token that ends a row while the step behind it is under way */
    rt->config.eos[0] = first[3];
    rt->config.n_eos = 1;
    assert_int_equal(run_rows(rt, r, first), 4);
    close_played(rt);
}

/* A context in the middle of its life, with a run begun ahead. */
static struct ew_context *begin_ahead(ew_runtime *rt)
{
    struct ew_context *c = rt->lane->ctx;

    if (ew_context_run_ahead(c))
        fail_msg("%s", ew_context_error(c));
    assert_non_null(c->dev->begun);
    return c;
}

/* Whatever drops a list while its next run is under way waits for that first; so does a run that
 * fails to begin the next. */
static void test_dropped_lists(void **state)
{
    static const int32_t prompt[3] = { 5, 6, 7 };
    ew_runtime *rt = open_played(DIR);
    struct ew_context *c;
    int32_t out[4];
    uint64_t waits, with;

    (void)state;
    rt->engine->plan.device.step[0].one_kernel = true;
    rt->config.n_eos = 0;
    run_greedy(rt, prompt, 3, 4, out);
    ew_context_forget(rt->lane->ctx, NULL); /* that of the prompt */
    c = begin_ahead(rt);
    waits = fakecuda_count("cuStreamSynchronize");
    ew_context_forget(c, NULL);
    assert_null(c->dev->begun);
    with = fakecuda_count("cuStreamSynchronize") - waits;
    c = begin_ahead(rt);
    assert_int_equal(ew_context_settle(c), 0);
    waits = fakecuda_count("cuStreamSynchronize");
    ew_context_forget(c, NULL);
    assert_int_equal(with, fakecuda_count("cuStreamSynchronize") - waits + 1);
    c = begin_ahead(rt);
    assert_int_equal(ew_context_settle(c), 0);
    fakecuda_fail("cuEventRecord", 2, 1, 0); /* of the run begun ahead */
    assert_int_not_equal(ew_context_run_ahead(c), 0);
    assert_null(c->dev->begun);
    assert_int_equal(fakecuda_busy(), 0);
    begin_ahead(rt);
    close_played(rt); /* with one under way */
}

/* Two linears of one row, and what the first one made as an output too, if asked for. */
static void build_chain(bool both, void **bytes, size_t *len)
{
    static const ew_profile_input x = { "x", 2, { 1, 128 }, { 1, 128 }, { 1, 128 } };
    static const ew_profile profile = { "p", &x, 1 };
    static const uint16_t w[128 * 128];
    const struct ew_type xt = ew_type_make(EW_DTYPE_F32, 2, x.opt),
                         wt = ew_type_make(EW_DTYPE_BF16, 2, (const int64_t[]){ 128, 128 });
    ew_build_opts o = EW_BUILD_OPTS_INIT;
    struct ew_graph *g = NULL;
    struct ew_value *in[2];
    struct ew_node *n = NULL;
    ew_error err = { 0 };

    MUST(ew_graph_create("chain", &g, &err));
    in[0] = ew_graph_add_input(g, "x", &xt);
    in[1] = ew_graph_add_const(g, "w", &wt, w, true);
    for (int i = 0; i < 2; i++) {
        MUST(ew_graph_add_node(g, EW_OP_LINEAR, i ? "last" : "first", NULL, in, 2, 1, &n, &err));
        in[0] = n->out[0];
        if (i || both)
            MUST(ew_graph_add_output(g, in[0], i ? "y" : "between", &err));
    }
    o.flags = EW_BUILD_NO_TIMING;
    o.profiles = &profile;
    o.n_profiles = 1;
    o.device = "cuda";
    MUST(ew_build_memory(g, &o, bytes, len, &err));
    ew_graph_destroy(g);
}

/* One kernel writes its last vector alone: where there are other outputs, the step is a graph. */
static void test_outputs_between(void **state)
{
    static float x[128], y[128], between[128];

    (void)state;
    for (int both = 0; both < 2; both++) {
        ew_engine *e = NULL;
        ew_context *c = NULL;
        ew_error err = { 0 };
        void *bytes;
        size_t len;

        fakecuda_reset();
        fakecuda_on_launch(on_launch, NULL);
        build_chain(both, &bytes, &len);
        MUST(ew_engine_load(bytes, len, NULL, &e, &err));
        e->plan.device.step[0].one_kernel = true;
        MUST(ew_context_create(e, NULL, &c, &err));
        assert_int_equal(ew_context_set_address(c, "x", x), 0);
        assert_int_equal(ew_context_set_address(c, "y", y), 0);
        if (both)
            assert_int_equal(ew_context_set_address(c, "between", between), 0);
        memset(&played, 0, sizeof(played));
        if (ew_context_run(c))
            fail_msg("%s", ew_context_error(c));
        assert_int_equal(played.n_steps, !both);
        ew_context_destroy(c);
        ew_engine_destroy(e);
        ew_plan_free(bytes);
        fakecuda_on_launch(NULL, NULL);
    }
}

static int make_engine(void **state)
{
    (void)state;
    build_tiny(DIR, 0);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ahead),
        cmocka_unit_test(test_ahead_rows),
        cmocka_unit_test(test_dropped_lists),
        cmocka_unit_test(test_outputs_between),
    };

    return cmocka_run_group_tests(tests, make_engine, NULL);
}

/* Engines on their way to a GPU, on the stand-in driver: where weights lie, and what a failure half
 * way leaves. */
#include "engine_fixture.h"

#include "base/size.h"
#include "engine/engine_impl.h"
#include "fakecuda.h"
#include "kernels/cuda/linear_args.cuh"

#include "backend/cuda/cuda.h"

#define FILE_NAME EW_BINARY_DIR "/test-engines/u_cuda_load.engine"
#define N         128

/* y = Linear(x, w), up to max_rows rows. */
static ew_status build(int64_t max_rows, uint32_t flags, void **bytes, size_t *len)
{
    const ew_profile_input x = { "x", 2, { 1, N }, { 1, N }, { max_rows, N } };
    const ew_profile profile = { "p", &x, 1 };
    static const uint16_t w[N * N];
    const struct ew_type w_type = ew_type_make(EW_DTYPE_BF16, 2, (const int64_t[]){ N, N });
    struct ew_type type = { EW_DTYPE_F32, 2, { 0, N } };
    ew_build_opts o = EW_BUILD_OPTS_INIT;
    struct ew_graph *g = NULL;
    struct ew_value *in[2];
    struct ew_node *n = NULL;
    ew_error err = { 0 };
    ew_status st;

    *bytes = NULL;
    MUST(ew_graph_create("load", &g, &err));
    type.dim[0] = ew_dim_symbol(g->syms, "rows");
    in[0] = ew_graph_add_input(g, "x", &type);
    in[1] = ew_graph_add_const(g, "w", &w_type, w, true);
    MUST(ew_graph_add_node(g, EW_OP_LINEAR, "linear", NULL, in, 2, 1, &n, &err));
    MUST(ew_graph_add_output(g, n->out[0], "y", &err));
    o.flags = flags;
    o.profiles = &profile;
    o.n_profiles = 1;
    o.n_threads = 1;
    o.device = "cuda";
    st = ew_build_memory(g, &o, bytes, len, &err);
    ew_graph_destroy(g);
    return st;
}

static void build_simple(void **bytes, size_t *len)
{
    fakecuda_reset();
    assert_int_equal(build(8, EW_BUILD_NO_TIMING, bytes, len), 0);
}

/* ---- weights ---- */

/* A GPU that shares the host's memory reads the file's own pages, whatever their addresses. */
static void test_shared_weights(void **state)
{
    ew_engine *e = NULL;
    ew_error err = { 0 };
    const struct ew_cuda *c;
    void *bytes;
    size_t len;

    (void)state;
    fakecuda_integrated(1);
    build_simple(&bytes, &len);
    MUST(ew_dir_make(EW_BINARY_DIR "/test-engines", &err));
    MUST(ew_file_write(FILE_NAME, bytes, len, &err));
    ew_plan_free(bytes);
    MUST(ew_engine_open(FILE_NAME, NULL, &e, &err));
    c = (const struct ew_cuda *)e->device;
    assert_int_equal(fakecuda_count("cuMemHostRegister_v2"), 1);
    assert_non_null(c->registered);
    assert_ptr_equal(c->base.weights, e->plan.weights); /* of one address space here */
    assert_int_equal(c->weights, 0);
    ew_engine_destroy(e);
    assert_int_equal(fakecuda_count("cuMemHostUnregister"), 1);
    fakecuda_integrated(0);
    assert_int_equal(fakecuda_live(), 0);
}

/* What uploads read is not given back while one is under way. */
static void test_failed_upload(void **state)
{
    static const char *const functions[] = { "cuEventRecord", "cuStreamSynchronize",
                                             "cuMemcpyHtoDAsync_v2" };
    ew_engine *e = NULL;
    ew_error err = { 0 };
    void *bytes;
    size_t len;

    (void)state;
    build_simple(&bytes, &len);
    for (size_t i = 0; i < EW_COUNT(functions); i++) {
        const uint64_t early = fakecuda_early();

        fakecuda_reset();
        fakecuda_fail(functions[i], 1, 1, 0);
        assert_int_equal(ew_engine_load(bytes, len, NULL, &e, &err), EW_STATUS_DEVICE);
        if (fakecuda_early() != early)
            fail_msg("%s fails, and pinned memory goes while it is read", functions[i]);
        assert_int_equal(fakecuda_live(), 0);
    }
    ew_plan_free(bytes);
}

/* ---- timing ---- */

static unsigned n_nowhere, n_launched;

static void see_launch(void *ctx, const char *entry, const unsigned grid[3], const void *args)
{
    struct ew_cuda_linear_args a;

    (void)ctx;
    (void)grid;
    if (strcmp(entry, "ew_linear_rows") != 0) /* others may be there to round x */
        return;
    memcpy(&a, args, sizeof(a));
    n_launched++;
    n_nowhere += !a.y;
}

/* Memory to time kernels in comes whole or not at all: where some of it does not come, no kernel is
 * launched over the rest. */
static void test_timing_memory(void **state)
{
    (void)state;
    for (uint64_t k = 1; k < 12; k++) {
        void *bytes;
        size_t len;

        fakecuda_reset();
        fakecuda_on_launch(see_launch, NULL);
        n_nowhere = n_launched = 0;
        fakecuda_fail("cuMemAlloc_v2", k, 1, 0);
        (void)build(8, 0, &bytes, &len);
        fakecuda_on_launch(NULL, NULL);
        ew_plan_free(bytes);
        assert_true(n_launched > 0);
        if (n_nowhere)
            fail_msg("allocation %d fails, and %u of %u kernels write nowhere", (int)k, n_nowhere,
                     n_launched);
        assert_int_equal(fakecuda_live(), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shared_weights),
        cmocka_unit_test(test_failed_upload),
        cmocka_unit_test(test_timing_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

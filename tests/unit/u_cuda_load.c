/* Engines on their way to a GPU, on the stand-in driver: where weights lie, what a failure half way
 * leaves, and files that do not say the truth. */
#include "engine_fixture.h"

#include "base/size.h"
#include "engine/device_impl.h"
#include "fakecuda.h"
#include "kernels/cuda/linear_args.cuh"
#include "plan/codec.h"
#include "plan/reader.h"

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

/* ---- files that do not say the truth ---- */

/* What a run of the engine says. */
static void run_once(const void *bytes, size_t len, ew_error *err)
{
    static float x[N], y[N];
    const int64_t dims[2] = { 1, N };
    ew_engine *e = NULL;
    ew_context *c = NULL;

    if (ew_engine_load(bytes, len, NULL, &e, err) || ew_context_create(e, NULL, &c, err))
        fail_msg("%s", err->text);
    assert_int_equal(ew_context_set_shape(c, "x", dims, 2), 0);
    assert_int_equal(ew_context_set_address(c, "x", x), 0);
    assert_int_equal(ew_context_set_address(c, "y", y), 0);
    err->status = ew_context_run(c);
    (void)snprintf(err->text, sizeof(err->text), "%s", ew_context_error(c));
    ew_context_destroy(c);
    ew_engine_destroy(e);
}

/* Code that is cut, or whose tables point outside it, never reaches the driver. */
static void test_cut_kernels(void **state)
{
    static const struct {
        size_t at;
        uint8_t value;
    } changes[] = {
        { 0, 0 },     /* no ELF file */
        { 4, 1 },     /* of 32 bits */
        { 56, 1 },    /* a segment's record where there is none */
        { 60, 1 },    /* a section's */
        { 32, 65 },   /* tables behind the end */
        { 40, 1 },    /* sections that are not counted */
        { 39, 0x80 }, /* an offset near 2^63 */
    };
    ew_error err = { 0 };
    void *bytes;
    uint8_t *changed;
    size_t len;

    (void)state;
    build_simple(&bytes, &len);
    run_once(bytes, len, &err);
    assert_int_equal(err.status, 0);
    changed = ew_mem_alloc_aligned(EW_MEM_MISC, len, 4096);
    assert_non_null(changed);
    for (size_t i = 0; i < EW_COUNT(changes); i++) {
        const uint64_t loads = fakecuda_count("cuModuleLoadData");

        memcpy(changed, bytes, len);
        for (size_t at = 0; at + 64 <= len; at += EW_PLAN_ALIGN) /* every kernel's */
            if (memcmp(changed + at, "\177ELF\2\1", 6) == 0)
                changed[at + changes[i].at] = changes[i].value;
        ew_plan_rehash(changed, len);
        err = (ew_error){ 0 };
        run_once(changed, len, &err);
        if (err.status != EW_STATUS_MALFORMED || !strstr(err.text, "no whole cubin"))
            fail_msg("change %d: %d '%s'", (int)i, err.status, err.text);
        assert_int_equal(fakecuda_count("cuModuleLoadData"), loads);
    }
    ew_mem_free_aligned(changed);
    ew_plan_free(bytes);
    assert_int_equal(fakecuda_live(), 0);
}

/* A context's block of small inputs and draws was made for what the profile said; a run of more
 * writes nothing behind it. */
static void test_more_than_the_profile(void **state)
{
    static float x[8 * N];
    static ew_draw draws[8];
    static int32_t tokens[8];
    const int64_t dims[2] = { 8, N };
    ew_engine *e = NULL;
    ew_context *c = NULL;
    ew_error err = { 0 };
    void *bytes;
    size_t len;

    (void)state;
    build_simple(&bytes, &len);
    for (int way = 0; way < 2; way++) {
        MUST(ew_engine_load(bytes, len, NULL, &e, &err));
        e->plan.profiles[0].inputs[0].max[0] = 1;
        MUST(ew_context_create(e, NULL, &c, &err));
        e->plan.profiles[0].inputs[0].max[0] = 8;
        c->dev->draws[0].rows = 1;
        assert_int_equal(ew_context_set_shape(c, "x", dims, 2), 0);
        if (way == 0) {
            assert_int_equal(ew_context_set_address(c, "x", x), 0);
        } else {
            assert_int_equal(ew_context_set_device_address(c, "x", x), 0);
            assert_int_equal(ew_context_set_draw(c, "y", draws, tokens), 0);
        }
        assert_int_equal(ew_context_run(c), EW_STATUS_LIMIT);
        assert_non_null(strstr(ew_context_error(c), way ? "output 'y' has 8 rows, its profile"
                                                        : "input 'x' is larger than its profile"));
        ew_context_destroy(c);
        ew_engine_destroy(e);
    }
    ew_plan_free(bytes);
    assert_int_equal(fakecuda_live(), 0);
}

/* Scratch that a file says is none grows to what lists need, and all of it is counted. */
static void test_scratch_grows(void **state)
{
    const uint64_t before = ew_mem_tag_bytes(EW_MEM_GPU);
    static float x[64 * N], y[64 * N];
    const int64_t dims[2] = { 64, N };
    ew_engine *e = NULL;
    ew_context *c = NULL;
    ew_error err = { 0 };
    void *bytes;
    size_t len;

    (void)state;
    fakecuda_reset();
    assert_int_equal(build(64, EW_BUILD_NO_TIMING, &bytes, &len), 0);
    MUST(ew_engine_load(bytes, len, NULL, &e, &err));
    assert_true(e->plan.device.scratch_bytes > 0);
    e->plan.device.scratch_bytes = e->plan.device.counter_bytes = 0;
    MUST(ew_context_create(e, NULL, &c, &err));
    assert_int_equal(ew_context_set_shape(c, "x", dims, 2), 0);
    assert_int_equal(ew_context_set_address(c, "x", x), 0);
    assert_int_equal(ew_context_set_address(c, "y", y), 0);
    if (ew_context_run(c))
        fail_msg("%s", ew_context_error(c));
    assert_true(c->shared_bytes > 0);
    ew_context_destroy(c);
    ew_engine_destroy(e);
    ew_plan_free(bytes);
    assert_int_equal(ew_mem_tag_bytes(EW_MEM_GPU), before);
}

/* Profiles whose shapes have more bytes than there are. */
static void test_endless_profile(void **state)
{
    ew_engine *e = NULL;
    ew_context *c = NULL;
    ew_error err = { 0 };
    void *bytes;
    size_t len;

    (void)state;
    build_simple(&bytes, &len);
    MUST(ew_engine_load(bytes, len, NULL, &e, &err));
    e->plan.profiles[0].inputs[0].max[0] = INT64_MAX;
    assert_int_equal(ew_context_create(e, NULL, &c, &err), EW_STATUS_LIMIT);
    ew_engine_destroy(e);
    ew_plan_free(bytes);
    assert_int_equal(fakecuda_live(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shared_weights),        cmocka_unit_test(test_failed_upload),
        cmocka_unit_test(test_timing_memory),         cmocka_unit_test(test_cut_kernels),
        cmocka_unit_test(test_more_than_the_profile), cmocka_unit_test(test_endless_profile),
        cmocka_unit_test(test_scratch_grows),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

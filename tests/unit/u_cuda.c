/* The CUDA backend's host logic on a driver that has no GPU (tests/fakecuda, linked here, so that
 * the backend's dlopen finds it): builds, memory, graph cache, faults. What kernels compute,
 * checkcuda checks where there is a GPU. */
#include "engine_fixture.h"

#include "backend/cuda/cuda.h"
#include "edgewise/graph.h"
#include "edgewise/runtime.h"
#include "fakecuda.h"
#include "fakenvrtc.h"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/step.cuh"
#include "kv/cache.h"
#include "plan/reader.h"

#define TINY EW_SOURCE_DIR "/models/tiny"
#define DIR  EW_BINARY_DIR "/test-engines/u_cuda"

static void has(const ew_error *err, const char *text)
{
    if (!strstr(err->text, text))
        fail_msg("'%s', wanted '%s' in it", err->text, text);
}

static ew_status build_tiny_by(uint32_t flags, const char *device, const char *tactic, ew_dtype kv,
                               ew_error *err)
{
    ew_build_opts o = EW_BUILD_OPTS_INIT;

    o.device = device;
    o.flags = flags;
    o.tactic = tactic;
    o.kv_dtype = kv;
    o.n_threads = 2;
    o.max_batch = 3;
    o.max_kv_len = 256;
    o.max_input_len = 64;
    return ew_model_build(TINY, DIR, &o, false, err);
}

static ew_status build_tiny(uint32_t flags, const char *device, ew_error *err)
{
    return build_tiny_by(flags, device, NULL, EW_DTYPE_NONE, err);
}

static ew_status open_tiny(const ew_runtime_opts *ro, ew_runtime **rt, ew_error *err)
{
    return ew_runtime_open(DIR, ro, rt, err);
}

/* ---- tests ---- */

static void test_no_driver(void **state)
{
    struct ew_cuda_driver d;
    ew_error err = { 0 };

    (void)state;
    assert_int_equal(ew_cuda_driver_open(&d, "libno-such-driver.so", &err), EW_STATUS_UNSUPPORTED);
    has(&err, "no driver on this machine");
    err = (ew_error){ 0 };
    assert_int_equal(ew_cuda_driver_open(&d, "libm.so.6", &err), EW_STATUS_UNSUPPORTED);
    has(&err, "libm.so.6 is no CUDA driver");
}

static void test_device_names(void **state)
{
    int i = -1;

    (void)state;
    assert_true(ew_cuda_device_parse("cuda", &i) && i == 0);
    assert_true(ew_cuda_device_parse("cuda:12", &i) && i == 12);
    assert_false(ew_cuda_device_parse("cuda:", &i));
    assert_false(ew_cuda_device_parse("cuda:-1", &i));
    assert_false(ew_cuda_device_parse("cuda:1x", &i));
    assert_false(ew_cuda_device_parse("cpu", &i));
}

static void test_start_failures(void **state)
{
    struct ew_cuda_device *d = NULL;
    ew_error err = { 0 };

    (void)state;
    fakecuda_reset();
    fakecuda_fail("cuInit", 1, EW_CU_NO_DEVICE, 1);
    assert_int_equal(ew_cuda_device_open(0, NULL, &d, &err), EW_STATUS_UNSUPPORTED);
    has(&err, "this machine has no GPU");
    fakecuda_reset();
    err = (ew_error){ 0 };
    assert_int_equal(ew_cuda_device_open(7, NULL, &d, &err), EW_STATUS_UNSUPPORTED);
    has(&err, "no GPU 7 on this machine, it has 1");
    err = (ew_error){ 0 };
    fakecuda_fail("cuDevicePrimaryCtxRetain", 1, EW_CU_OUT_OF_MEMORY, 0);
    assert_int_equal(ew_cuda_device_open(0, NULL, &d, &err), EW_STATUS_NO_MEMORY);
    has(&err, "context");
    assert_null(d);
}

/* What a machine lacks is said in one line each, by what a user asked for. */
static void test_machines(void **state)
{
    struct ew_cuda_device *d = NULL;
    struct ew_nvrtc *compiler = NULL;
    ew_runtime_opts ro = EW_RUNTIME_OPTS_INIT;
    ew_runtime *rt = NULL;
    ew_error err = { 0 };

    (void)state;
    fakecuda_reset();
    MUST(build_tiny(EW_BUILD_NO_TIMING, "cuda:0", &err));
    fakecuda_machine(0, 90, FAKECUDA_MEMORY);
    assert_int_equal(build_tiny(0, "cuda", &err), EW_STATUS_UNSUPPORTED);
    has(&err, "this machine has no GPU");
    err = (ew_error){ 0 };
    assert_int_equal(open_tiny(&ro, &rt, &err), EW_STATUS_UNSUPPORTED);
    has(&err, "this machine has no GPU");
    fakecuda_machine(1, 75, FAKECUDA_MEMORY);
    err = (ew_error){ 0 };
    assert_int_equal(ew_cuda_device_open(0, NULL, &d, &err), EW_STATUS_UNSUPPORTED);
    has(&err, "is sm_75; kernels need sm_80 or newer");
    fakecuda_machine(1, 121, FAKECUDA_MEMORY); /* the fake compiler knows up to sm_120 */
    err = (ew_error){ 0 };
    assert_int_not_equal(build_tiny(0, "cuda", &err), EW_STATUS_OK);
    has(&err, "sm_121");
    fakecuda_machine(1, 90, (size_t)1 << 20);
    err = (ew_error){ 0 };
    assert_int_equal(open_tiny(&ro, &rt, &err), EW_STATUS_NO_MEMORY);
    has(&err, "weights: ");
    has(&err, "of 1048576 are free on Fake GPU 0");
    assert_null(strchr(err.text, '\n'));
    fakecuda_machine(1, 90, FAKECUDA_MEMORY);
    err = (ew_error){ 0 };
    assert_int_equal(ew_nvrtc_open("libno-such-compiler.so", &compiler, &err),
                     EW_STATUS_UNSUPPORTED);
    has(&err, "building an engine needs NVRTC");
    assert_int_equal(fakecuda_live(), 0);
}

static void test_build(void **state)
{
    ew_engine_opts none = EW_ENGINE_OPTS_INIT;
    ew_engine *e = NULL;
    ew_error err = { 0 };
    char *json;

    (void)state;
    fakecuda_reset();
    MUST(build_tiny(0, "cuda:0", &err));
    assert_int_equal(fakecuda_live(), 0);
    none.device = "none";
    MUST(ew_engine_open(DIR "/llm.engine", &none, &e, &err));
    MUST(ew_engine_describe(e, &json, &err));
    assert_non_null(strstr(json, "Fake GPU 0"));
    assert_non_null(strstr(json, "linear_bf16__cuda"));
    ew_text_free(json);
    ew_engine_destroy(e);
    none.device = "cpu";
    assert_int_equal(ew_engine_open(DIR "/llm.engine", &none, &e, &err), EW_STATUS_MISMATCH);
    has(&err, "not for the CPU");
}

#define KERNELS EW_BINARY_DIR "/test-engines/u_cuda_kernels"

/* Files of the folder of kernels. */
static size_t n_kernels(char first[4096])
{
    char **names = NULL;
    size_t n = 0;

    first[0] = '\0';
    if (ew_dir_list(KERNELS, &names, &n, NULL))
        return 0;
    for (size_t i = 0; i < n; i++) {
        if (i == 0)
            assert_true(ew_path_join(first, 4096, KERNELS, names[i]));
        ew_mem_free(names[i]);
    }
    ew_mem_free(names);
    return n;
}

static uint64_t build_with_kernels(const char *dir)
{
    ew_build_opts o = EW_BUILD_OPTS_INIT;
    ew_error err = { 0 };

    fakenvrtc_reset();
    o.device = "cuda:0";
    o.flags = EW_BUILD_NO_TIMING;
    o.n_threads = 2;
    o.kernel_cache = dir;
    MUST(ew_model_build(TINY, DIR, &o, false, &err));
    return fakenvrtc_count();
}

/* A kernel is compiled once; a file that is not what it was is compiled anew and mended; a folder
 * that cannot be made keeps nothing. */
static void test_kernel_cache(void **state)
{
    char path[4096], *text;
    size_t len, len_again;
    uint64_t n;
    ew_error err = { 0 };

    (void)state;
    ew_dir_remove(KERNELS);
    n = build_with_kernels(NULL);
    assert_true(n > 10);
    assert_int_equal(n_kernels(path), 0);
    assert_int_equal(build_with_kernels(KERNELS), n);
    assert_int_equal(n_kernels(path), n);
    assert_int_equal(build_with_kernels(KERNELS), 0);
    MUST(ew_file_read(path, 1 << 20, &text, &len, &err));
    text[len - 1] ^= 1;
    MUST(ew_file_write(path, text, len, &err));
    assert_int_equal(build_with_kernels(KERNELS), 1);
    assert_int_equal(build_with_kernels(KERNELS), 0);
    MUST(ew_file_write(path, text, 10, &err));
    assert_int_equal(build_with_kernels(KERNELS), 1);
    ew_mem_free(text);
    MUST(ew_file_read(path, 1 << 20, &text, &len_again, &err));
    assert_int_equal(len_again, len);
    ew_mem_free(text);
    assert_int_equal(build_with_kernels(DIR "/llm.engine/no"), n);
    /* another build of the same version makes kernels of its own */
    fakenvrtc_build("2");
    assert_int_equal(build_with_kernels(KERNELS), n);
    assert_int_equal(build_with_kernels(KERNELS), 0);
    fakenvrtc_build("");
    assert_int_equal(build_with_kernels(KERNELS), n);
    assert_int_equal(build_with_kernels(KERNELS), n);
    fakenvrtc_build("1");
    assert_int_equal(build_with_kernels(KERNELS), 0);
}

/* What inspect says of a decode step, after a build that was told how to run it. */
static void has_step(const char *tactic, ew_dtype kv, const char *as)
{
    ew_engine_opts none = EW_ENGINE_OPTS_INIT;
    ew_engine *e = NULL;
    ew_error err = { 0 };
    char *json, *at;

    fakecuda_reset();
    MUST(build_tiny_by(EW_BUILD_NO_TIMING, "cuda:0", tactic, kv, &err));
    none.device = "none";
    MUST(ew_engine_open(DIR "/llm.engine", &none, &e, &err));
    MUST(ew_engine_describe(e, &json, &err));
    at = strstr(json, "\"decode_step\"");
    assert_non_null(at);
    if (!strstr(at, as))
        fail_msg("%s: no %s in %.200s", tactic ? tactic : "no tactic", as, at);
    ew_text_free(json);
    ew_engine_destroy(e);
}

/* What is no language model. */
static ew_status build_linear_by(const char *tactic, ew_error *err_out)
{
    static const ew_profile_input x = { "x", 2, { 1, 64 }, { 1, 64 }, { 1, 64 } };
    static const ew_profile profile = { "default", &x, 1 };
    const struct ew_type type = ew_type_make(EW_DTYPE_F32, 2, x.opt);
    ew_build_opts o = EW_BUILD_OPTS_INIT;
    struct ew_graph *g = NULL;
    struct ew_value *in[2];
    struct ew_node *n = NULL;
    ew_error err = { 0 };
    void *bytes = NULL;
    size_t len;
    ew_status st;

    MUST(ew_graph_create("linear", &g, &err));
    in[0] = ew_graph_add_input(g, "x", &type);
    in[1] = const_f32(g, "w", 2, (const int64_t[]){ 64, 64 }, 1);
    MUST(ew_graph_add_node(g, EW_OP_LINEAR, "linear", NULL, in, 2, 1, &n, &err));
    MUST(ew_graph_add_output(g, n->out[0], "y", &err));
    o.device = "cuda:0";
    o.flags = EW_BUILD_NO_TIMING;
    o.tactic = tactic;
    o.profiles = &profile;
    o.n_profiles = 1;
    st = ew_build_memory(g, &o, &bytes, &len, err_out);
    ew_graph_destroy(g);
    ew_plan_free(bytes);
    return st;
}

/* A decode step is one kernel or a graph as it is told; what cannot be one kernel is refused by
 * name when that is asked for, and is a graph otherwise. */
static void test_step_tactics(void **state)
{
    static const ew_dtype caches[] = { EW_DTYPE_I8, EW_DTYPE_F8E4M3, EW_DTYPE_F32 };
    ew_error err = { 0 };

    (void)state;
    has_step("step_kernel", EW_DTYPE_F16, "\"as\": \"one kernel\"");
    has_step("step_graph", EW_DTYPE_F16, "\"as\": \"graph\"");
    for (size_t i = 0; i < sizeof(caches) / sizeof(caches[0]); i++) {
        has_step(NULL, caches[i], "\"as\": \"graph\"");
        has_step("step_graph", caches[i], "\"one_kernel_ns\": 0");
        assert_int_equal(
            build_tiny_by(EW_BUILD_NO_TIMING, "cuda:0", "step_kernel", caches[i], &err),
            EW_STATUS_UNSUPPORTED);
        has(&err, "tactic 'step_kernel': one kernel a step: node 'model.layers.0.");
        has(&err, "a cache other than f16 or bf16");
    }
    assert_int_equal(build_linear_by("step_kernel", &err), EW_STATUS_UNSUPPORTED);
    has(&err, "no profile 'generation'");
    assert_int_equal(build_tiny_by(0, "cuda:0", "step_nothing", EW_DTYPE_F16, &err),
                     EW_STATUS_INVALID_ARG);
    assert_int_equal(build_tiny_by(0, "cpu", "step_kernel", EW_DTYPE_F16, &err),
                     EW_STATUS_INVALID_ARG);
    assert_int_equal(fakecuda_live(), 0);
}

/* A kernel that the driver will not launch is out of the timing; a fault ends the build. */
static void test_bad_kernel(void **state)
{
    ew_error err = { 0 };

    (void)state;
    fakecuda_reset();
    fakecuda_fail("cuLaunchKernelEx", 5, 1, 0);
    MUST(build_tiny(0, "cuda:0", &err));
    assert_true(fakecuda_count("cuLaunchKernelEx") > 5);
    assert_int_equal(fakecuda_count("cuGraphInstantiateWithFlags"),
                     fakecuda_count("cuGraphExecDestroy"));
    fakecuda_reset();
    fakecuda_fail("cuLaunchKernelEx", 5, EW_CU_LAUNCH_FAILED, 0);
    assert_int_equal(build_tiny(0, "cuda:0", &err), EW_STATUS_DEVICE);
    has(&err, "CUDA:");
    assert_int_equal(fakecuda_live(), 0);
    fakecuda_reset();
}

/* Any call of a build fails: an engine all the same (a kernel less, a step not timed), or words of
 * the driver and nothing left. */
static void test_build_faults(void **state)
{
    static const char *const functions[] = { "cuMemAlloc_v2",       "cuMemHostAlloc",
                                             "cuModuleLoadData",    "cuLaunchKernelEx",
                                             "cuStreamSynchronize", "cuStreamEndCapture",
                                             "cuGraphLaunch",       "cuGraphInstantiateWithFlags",
                                             "cuMemsetD8Async",     "cuEventElapsedTime" };
    static const int results[] = { 1, EW_CU_OUT_OF_MEMORY, EW_CU_ILLEGAL_ADDRESS };

    (void)state;
    for (size_t f = 0; f < sizeof(functions) / sizeof(functions[0]); f++)
        for (size_t i = 0; i < sizeof(results) / sizeof(results[0]); i++)
            for (uint64_t k = 1;; k += 1 + 2 * k) {
                ew_error err = { 0 };
                ew_status st;

                fakecuda_reset();
                fakecuda_fail(functions[f], k, results[i], 0);
                st = build_tiny(0, "cuda:0", &err);
                if (st)
                    has(&err, "CUDA");
                if (fakecuda_live())
                    fail_msg("%s %d: %d allocations are left", functions[f], (int)k,
                             (int)fakecuda_live());
                if (fakecuda_count(functions[f]) < k)
                    break;
            }
    fakecuda_reset();
}

static void test_refused(void **state)
{
    ew_error err = { 0 };

    (void)state;
    assert_int_equal(build_tiny(0, "gpu", &err), EW_STATUS_INVALID_ARG);
    has(&err, "none of cpu, cuda, cuda:N");
    err = (ew_error){ 0 };
    assert_int_equal(build_tiny(0, "cuda:3", &err), EW_STATUS_UNSUPPORTED);
    has(&err, "no GPU 3");
}

static void test_graphs(void **state)
{
    ew_runtime_opts ro = EW_RUNTIME_OPTS_INIT;
    const int32_t ids[5] = { 1, 2, 3, 4, 5 };
    ew_runtime *rt = NULL;
    ew_error err = { 0 };
    uint64_t before, kernels, allocations;

    (void)state;
    MUST(build_tiny(EW_BUILD_NO_TIMING, "cuda", &err));
    fakecuda_reset();
    MUST(open_tiny(&ro, &rt, &err));
    MUST(ew_runtime_forward(rt, 0, ids, 5, 0, NULL, 0, &err));
    MUST(ew_runtime_forward(rt, 0, ids, 1, 0, NULL, 0, &err));
    assert_int_equal(fakecuda_count("cuGraphInstantiateWithFlags"), 2); /* prefill, decode */
    kernels = fakecuda_count("kernels");
    assert_true(kernels > 60);
    before = fakecuda_count("cuLaunchKernelEx");
    allocations = ew_memory_n_allocations();
    for (int i = 0; i < 4; i++)
        MUST(ew_runtime_forward(rt, 0, ids, 1, 0, NULL, 0, &err));
    /* a step: one upload, one graph, one download; nothing is captured, launched or allocated */
    assert_int_equal(fakecuda_count("cuGraphInstantiateWithFlags"), 2);
    assert_int_equal(fakecuda_count("cuLaunchKernelEx"), before);
    assert_int_equal(fakecuda_count("cuGraphLaunch"), 6);
    assert_int_equal(fakecuda_count("cuMemcpyHtoDAsync_v2") % 2, 0);
    assert_int_equal(ew_memory_n_allocations(), allocations);
    assert_true(fakecuda_count("kernels") > kernels);
    /* a shape that was there: no capture; another row: its cache lies elsewhere */
    MUST(ew_runtime_rewind(rt, 0, 0, &err));
    MUST(ew_runtime_forward(rt, 0, ids, 5, 0, NULL, 0, &err));
    assert_int_equal(fakecuda_count("cuGraphInstantiateWithFlags"), 2);
    MUST(ew_runtime_forward(rt, 1, ids, 5, 0, NULL, 0, &err));
    assert_int_equal(fakecuda_count("cuGraphInstantiateWithFlags"), 3);
    ew_runtime_destroy(rt);
    assert_int_equal(fakecuda_live(), 0);
    assert_int_equal(fakecuda_count("cuGraphExecDestroy"), 3);
}

/* A context without a runtime: lengths are the host's, all else lies on the device. */
struct bare {
    ew_engine *e;
    ew_context *c;
    int32_t lengths[1], start[1];
    void *held[32];
    size_t n_held;
};

static void open_bare(struct bare *b)
{
    ew_error err = { 0 };
    ew_tensor_info t;

    *b = (struct bare){ .lengths = { 1 } };
    fakecuda_reset();
    MUST(ew_engine_open(DIR "/llm.engine", NULL, &b->e, &err));
    MUST(ew_context_create(b->e, NULL, &b->c, &err));
    assert_int_equal(ew_context_set_profile(b->c, 1), 0);
    for (uint32_t i = 0; !ew_engine_get_tensor(b->e, i, 1, &t); i++) {
        const ew_memory *m = ew_engine_memory(b->e);
        void *at = NULL;

        if (!t.is_input)
            continue;
        assert_int_equal(ew_context_set_shape(b->c, t.name, t.opt, t.n_dims), 0);
        if (strcmp(t.name, "context_lengths") == 0) {
            assert_int_equal(ew_context_set_address(b->c, t.name, b->lengths), 0);
        } else if (strcmp(t.name, "kvcache_start_index") == 0) {
            assert_int_equal(ew_context_set_address(b->c, t.name, b->start), 0);
        } else {
            MUST(m->alloc(m->ctx, 1 << 20, t.name, &at, &err));
            assert_int_equal(ew_context_set_device_address(b->c, t.name, at), 0);
            assert_true(b->n_held < 32);
            b->held[b->n_held++] = at;
        }
    }
}

static void close_bare(struct bare *b)
{
    ew_context_destroy(b->c);
    while (b->n_held)
        ew_engine_memory(b->e)->release(ew_engine_memory(b->e)->ctx, b->held[--b->n_held], 1 << 20);
    ew_engine_destroy(b->e);
    assert_int_equal(fakecuda_live(), 0);
}

/* A lookup's scale is in what was captured: another scale is another capture, whatever was set
 * between. */
static void test_scales_of_lookups(void **state)
{
    static const int32_t id = 3;
    struct bare b;

    (void)state;
    open_bare(&b);
    assert_int_equal(ew_context_set_tokens(b.c, "inputs_embeds", &id, 1.0f), 0);
    assert_int_equal(ew_context_run(b.c), 0);
    assert_int_equal(ew_context_set_device_address(b.c, "inputs_embeds", b.held[0]), 0);
    assert_int_equal(ew_context_run(b.c), 0);
    assert_int_equal(fakecuda_count("cuGraphInstantiateWithFlags"), 2);
    assert_int_equal(ew_context_set_tokens(b.c, "inputs_embeds", &id, 2.0f), 0);
    assert_int_equal(ew_context_run(b.c), 0);
    assert_int_equal(fakecuda_count("cuGraphInstantiateWithFlags"), 3);
    assert_int_equal(ew_context_set_tokens(b.c, "inputs_embeds", &id, 2.0f), 0);
    assert_int_equal(ew_context_run(b.c), 0);
    assert_int_equal(fakecuda_count("cuGraphInstantiateWithFlags"), 3);
    close_bare(&b);
}

/* Lengths that lie outside the cache never reach the device. */
static void test_lengths(void **state)
{
    struct bare b;
    uint64_t launches;

    (void)state;
    open_bare(&b);
    assert_true(strncmp(ew_engine_device(b.e), "cuda:0 (Fake GPU 0", 18) == 0);
    assert_int_equal(ew_context_run(b.c), 0);
    launches = fakecuda_count("cuGraphLaunch");
    b.lengths[0] = 257; /* the cache holds 256 */
    assert_int_equal(ew_context_run(b.c), EW_STATUS_INVALID_ARG);
    if (!strstr(ew_context_error(b.c), "row 0 needs 257 positions"))
        fail_msg("%s", ew_context_error(b.c));
    assert_int_equal(fakecuda_count("cuGraphLaunch"), launches);
    b.lengths[0] = 256;
    assert_int_equal(ew_context_run(b.c), 0);
    close_bare(&b);
}

/* Tokens alone come back, unless the sampler on the host has something to do. */
static void test_downloads(void **state)
{
    const int32_t ids[3] = { 5, 6, 7 };
    ew_runtime *rt = NULL;
    ew_error err = { 0 };

    (void)state;
    for (int way = 0; way < 3; way++) { /* greedy, drawn, with a penalty */
        ew_request r = EW_REQUEST_INIT;
        ew_response out = { 0 };
        ew_runtime_opts ro = EW_RUNTIME_OPTS_INIT;

        fakecuda_reset();
        MUST(open_tiny(&ro, &rt, &err));
        r.prompt_ids = ids;
        r.n_prompt_ids = 3;
        r.sampling.greedy = way == 0;
        r.sampling.repetition_penalty = way == 2 ? 1.2 : 0;
        r.ignore_eos = true;
        r.max_tokens = 4;
        MUST(ew_runtime_handle_request(rt, &r, 1, &out, &err));
        assert_int_equal(fakecuda_count("cuMemcpyDtoHAsync_v2"), way < 2 ? 4 : 8);
        assert_int_equal(fakecuda_count("cuMemcpyHtoDAsync_v2"), 4 + 2); /* weights, RoPE */
        ew_response_release(&out);
        ew_runtime_destroy(rt);
    }
}

static void test_no_graph(void **state)
{
    ew_runtime_opts ro = EW_RUNTIME_OPTS_INIT;
    const int32_t id = 1;
    ew_runtime *rt = NULL;
    ew_error err = { 0 };

    (void)state;
    fakecuda_reset();
    ro.flags = EW_CONTEXT_NO_GRAPH;
    MUST(open_tiny(&ro, &rt, &err));
    MUST(ew_runtime_forward(rt, 0, &id, 1, 0, NULL, 0, &err));
    assert_int_equal(fakecuda_count("cuGraphInstantiateWithFlags"), 0);
    assert_true(fakecuda_count("cuLaunchKernelEx") > 30);
    ew_runtime_destroy(rt);
    assert_int_equal(fakecuda_live(), 0);
}

/* What one Linear alone reads comes rounded from its maker: of a layer's launches (norm and q, k,
 * v; attention; output; norm and gate, up; down) none rounds anything but the norms. */
static void test_short_activations(void **state)
{
    enum { ROWS = 20, LAYERS = 6, AROUND = 5 };
    ew_runtime_opts ro = EW_RUNTIME_OPTS_INIT;
    int32_t ids[ROWS];
    ew_runtime *rt = NULL;
    ew_error err = { 0 };

    (void)state;
    for (int i = 0; i < ROWS; i++)
        ids[i] = i + 1;
    fakecuda_reset();
    ro.flags = EW_CONTEXT_NO_GRAPH;
    MUST(open_tiny(&ro, &rt, &err));
    MUST(ew_runtime_forward(rt, 0, ids, ROWS, 0, NULL, 0, &err));
    assert_int_equal(fakecuda_count("cuLaunchKernelEx"), 7 * LAYERS + AROUND);
    ew_runtime_destroy(rt);
}

/* A fault names the launch, and everything after it fails with the same words. */
static void test_sticky_fault(void **state)
{
    ew_runtime_opts ro = EW_RUNTIME_OPTS_INIT;
    const int32_t id = 1;
    ew_runtime *rt = NULL;
    ew_error err = { 0 }, again = { 0 };

    (void)state;
    fakecuda_reset();
    ro.flags = EW_CONTEXT_NO_GRAPH;
    MUST(open_tiny(&ro, &rt, &err));
    fakecuda_fail("cuLaunchKernelEx", 4, EW_CU_ILLEGAL_ADDRESS, 0);
    assert_int_equal(ew_runtime_forward(rt, 0, &id, 1, 0, NULL, 0, &err), EW_STATUS_DEVICE);
    has(&err, "CUDA_ERROR_ILLEGAL_ADDRESS");
    has(&err, "last launch 'model.layers.0.");
    assert_int_equal(ew_runtime_forward(rt, 0, &id, 1, 0, NULL, 0, &again), EW_STATUS_DEVICE);
    assert_string_equal(err.text, again.text);
    ew_runtime_destroy(rt);
}

/* A kernel of many phases that waits in vain says where before it ends. */
static void test_waited_in_vain(void **state)
{
    struct ew_cuda_device *d = NULL;
    struct ew_cuda_queue q;
    ew_error err = { 0 };

    (void)state;
    fakecuda_reset();
    MUST(ew_cuda_device_open(0, NULL, &d, &err));
    MUST(ew_cuda_queue_open(d, &q, &err));
    q.last = "one kernel a step";
    *d->fault = EW_STEP_FAULT(7u, 131u, 9u);
    fakecuda_fail("cuStreamSynchronize", 1, EW_CU_LAUNCH_FAILED, 0);
    assert_int_equal(ew_cuda_queue_wait(&q, &err), EW_STATUS_DEVICE);
    has(&err, "last launch 'one kernel a step', whose phase 7 waited in vain in block 131, warp 9");
    ew_cuda_queue_close(&q);
    ew_cuda_device_close(d);
}

/* Any allocation of the device or of pinned memory may fail: a status, and nothing is left. */
static void test_out_of_memory(void **state)
{
    static const char *const functions[] = { "cuMemAlloc_v2", "cuMemHostAlloc", "cuStreamCreate",
                                             "cuModuleLoadData", "cuGraphInstantiateWithFlags" };
    ew_runtime_opts ro = EW_RUNTIME_OPTS_INIT;
    const int32_t ids[3] = { 1, 2, 3 };

    (void)state;
    for (size_t f = 0; f < sizeof(functions) / sizeof(functions[0]); f++) {
        uint64_t k = 1;

        for (;; k++) {
            ew_runtime *rt = NULL;
            ew_error err = { 0 };
            ew_status st;

            fakecuda_reset();
            fakecuda_fail(functions[f], k, EW_CU_OUT_OF_MEMORY, 0);
            st = open_tiny(&ro, &rt, &err);
            if (!st)
                st = ew_runtime_forward(rt, 0, ids, 3, 0, NULL, 0, &err);
            ew_runtime_destroy(rt);
            if (fakecuda_live())
                fail_msg("%s %d: %d allocations are left", functions[f], (int)k,
                         (int)fakecuda_live());
            if (!st)
                break; /* there is no k-th call */
            assert_int_equal(st, EW_STATUS_NO_MEMORY);
            assert_true(err.text[0] != 0);
        }
        assert_true(k > 1);
    }
}

static void test_other_chip(void **state)
{
    ew_engine *e = NULL;
    ew_error err = { 0 };
    char *bytes;
    size_t len;
    uint8_t *copy;

    (void)state;
    fakecuda_reset();
    MUST(ew_file_read(DIR "/llm.engine", (size_t)1 << 28, &bytes, &len, &err));
    copy = ew_mem_alloc_aligned(EW_MEM_MISC, len, 4096);
    assert_non_null(copy);
    memcpy(copy, bytes, len);
    for (size_t i = 0; i + 14 < len; i++) /* the chip's number follows its name */
        if (memcmp(copy + i, "Fake GPU 0", 10) == 0 && copy[i + 10] == 90)
            copy[i + 10] = 87;
    ew_plan_rehash(copy, len);
    assert_int_equal(ew_engine_load(copy, len, NULL, &e, &err), EW_STATUS_MISMATCH);
    has(&err, "engine was built for Fake GPU 0 (sm_87");
    has(&err, "GPU 0 is Fake GPU 0 (sm_90");
    ew_mem_free_aligned(copy);
    ew_mem_free(bytes);
}

/* Builders pack units range by range into a buffer that stands for the place of the first: whole or
 * in pieces, a packed weight is the same bytes. */
static void test_layout_units(void **state)
{
    const size_t n = 48, k = 40;
    uint16_t *w = calloc(n * k, sizeof(*w));
    size_t n_layouts;
    const struct ew_linear_kernel *const *layouts = ew_cuda_linear_layouts(&n_layouts);

    (void)state;
    assert_non_null(w);
    for (size_t i = 0; i < n * k; i++)
        w[i] = (uint16_t)(i * 2654435761u >> 16 & 0x3fff);
    for (size_t i = 0; i < 2 * n_layouts; i++) {
        const struct ew_linear_kernel *l = layouts[i / 2];
        const struct ew_weight_part part = { w, n, (ptrdiff_t)k, 1, NULL, 0 };
        struct ew_pack_args a = { .parts = &part, .n_parts = 1, .n = n, .k = k, .glu = i % 2 };
        const size_t units = l->takes ? 0 : l->n_units(n, a.glu);
        const size_t bytes = l->takes ? 0 : l->packed_bytes(NULL, n, k, a.glu);
        uint8_t *whole, *pieces;

        if (l->takes || l->weight_dtype == EW_DTYPE_F32)
            continue;
        assert_int_equal(bytes % units, 0);
        whole = calloc(2, bytes);
        assert_non_null(whole);
        pieces = whole + bytes;
        l->pack(whole, &a, 0, units);
        for (size_t u = 0; u < units; u += 5) {
            const size_t end = u + 5 < units ? u + 5 : units, unit = bytes / units;
            uint8_t buffer[5 * 512];

            assert_true(unit <= 512);
            l->pack((uint8_t *)((uintptr_t)buffer - u * unit), &a, u, end);
            memcpy(pieces + u * unit, buffer, (end - u) * unit);
        }
        assert_memory_equal(whole, pieces, bytes);
        free(whole);
    }
    free(w);
}

/* The cache moves rows in device memory as it does in the host's. */
static void test_cache(void **state)
{
    static const uint32_t heads[2] = { 2, 1 }, dims[2] = { 4, 8 };
    struct ew_cuda *cuda = NULL;
    struct ew_kv *kv = NULL;
    ew_error err = { 0 };
    uint8_t block[2][1024];
    const int32_t map[3] = { -1, 0, 1 };

    (void)state;
    fakecuda_reset();
    MUST(ew_cuda_bare(0, false, &cuda, &err));
    MUST(ew_kv_create_in(&cuda->base.memory, 2, heads, dims, 3, 16, EW_DTYPE_F16, &kv, &err));
    assert_true(ew_kv_tokens_bytes(kv, 5) <= sizeof(block[0]));
    for (size_t i = 0; i < sizeof(block[0]); i++)
        block[0][i] = (uint8_t)(i * 7 + 1);
    MUST(ew_kv_load(kv, 2, block[0], 5, 5));
    MUST(ew_kv_compact(kv, map, 3, &err));
    assert_int_equal(kv->lengths[1], 5);
    assert_int_equal(kv->lengths[2], 0);
    memset(block[1], 0, sizeof(block[1]));
    MUST(ew_kv_save(kv, 1, 5, block[1]));
    assert_memory_equal(block[0], block[1], ew_kv_tokens_bytes(kv, 5));
    assert_true(fakecuda_count("cuMemcpy2DAsync_v2") > 0);
    ew_kv_destroy(kv);
    assert_int_equal(fakecuda_live(), 0);
    ew_cuda_close(cuda);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_driver),         cmocka_unit_test(test_device_names),
        cmocka_unit_test(test_start_failures),    cmocka_unit_test(test_build),
        cmocka_unit_test(test_machines),          cmocka_unit_test(test_bad_kernel),
        cmocka_unit_test(test_refused),           cmocka_unit_test(test_graphs),
        cmocka_unit_test(test_lengths),           cmocka_unit_test(test_downloads),
        cmocka_unit_test(test_no_graph),          cmocka_unit_test(test_short_activations),
        cmocka_unit_test(test_sticky_fault),      cmocka_unit_test(test_waited_in_vain),
        cmocka_unit_test(test_scales_of_lookups), cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_other_chip),        cmocka_unit_test(test_cache),
        cmocka_unit_test(test_layout_units),      cmocka_unit_test(test_step_tactics),
        cmocka_unit_test(test_build_faults),      cmocka_unit_test(test_kernel_cache),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

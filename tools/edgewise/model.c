/* model.c - from a path that a user names to an open runtime: shared by run, chat, bench and eval.
 */
#include "cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(__aarch64__)
#    define LEVELS "neon, dotprod, i8mm"
#else
#    define LEVELS "avx2, avx512, avx512vnni, amx"
#endif

struct model_opts model_opts;

/* clang-format off */
const struct opt build_opt_table[] = {
    { "device", 0, OPT_TEXT, &model_opts.device, "DEVICE", "cpu (default), cuda, cuda:N; an engine that is there already runs on what it was built for" },
    { "threads", 't', OPT_U32, &model_opts.threads, "N", "threads (default: one per core; per core of the faster kinds on a mixed processor)" },
    { "cpu", 0, OPT_TEXT, &model_opts.cpu, "LEVEL", "use no more than: ref (plain C), " LEVELS ", native (default)" },
    { "max-batch", 0, OPT_U32, &model_opts.max_batch, "N", "requests decoded together (default 8)" },
    { "max-input-len", 0, OPT_U32, &model_opts.max_input_len, "N", "longest prefill step; longer prompts run in chunks (default 512)" },
    { "max-kv-len", 0, OPT_U32, &model_opts.max_kv_len, "N", "tokens a conversation may hold (default: 4096 or the model's limit)" },
    { "kv", 0, OPT_TEXT, &model_opts.kv, "DTYPE", "KV cache: f16 (default, unless the checkpoint asks for another; eval parity: f32), f32, bf16, fp8, int8" },
    { "activations", 0, OPT_TEXT, &model_opts.activations, "KIND", "what x is rounded to: exact (default: nothing), before quantised weights int8 (a scale a token: fast) or declared (as the checkpoint says), before bf16 weights bf16 (fast where the processor multiplies it)" },
    { "tactic", 0, OPT_TEXT, &model_opts.tactic, "NAME", "force a kernel where it applies (names: inspect)" },
    { "kernel-cache", 0, OPT_TEXT, &model_opts.kernel_cache, "DIR", "folder of compiled kernels of a GPU (default: kernels in the cache folder); none: compile all" },
    { "timing-cache", 0, OPT_TEXT, &model_opts.timing_cache, "FILE", "reuse and keep measured tactic times" },
    { "no-timing", 0, OPT_FLAG, &model_opts.no_timing, NULL, "take the best-ranked kernels without timing them" },
    { "no-fusion", 0, OPT_FLAG, &model_opts.no_fusion, NULL, "only fold constants and simplify: to find a pass that is wrong" },
    { "quiet", 'q', OPT_FLAG, &model_opts.quiet, NULL, "no progress" },
    { "verbose", 'v', OPT_FLAG, &model_opts.verbose, NULL, "say what happens" },
    OPT_END,
};

const struct opt model_opt_table[] = {
    { "cache-dir", 0, OPT_TEXT, &model_opts.cache_dir, "DIR", "where engines made on the fly go (default ~/.cache/edgewise)" },
    { "rebuild", 0, OPT_FLAG, &model_opts.rebuild, NULL, "build again even if the cache has it" },
    { "no-graph", 0, OPT_FLAG, &model_opts.no_graph, NULL, "never replay a captured launch list" },
    { "pin", 0, OPT_FLAG, &model_opts.pin, NULL, "tie each thread to a core of its own; siblings of a core come last" },
    { "profile", 0, OPT_FLAG, &model_opts.profile, NULL, "time every step; figures as JSON on standard error" },
    { "trace", 0, OPT_TEXT, &model_opts.trace, "FILE", "write a Chrome trace" },
    OPT_END,
};
/* clang-format on */

static ew_dtype kv_dtype_find(const char *name)
{
    static const struct {
        const char *name;
        ew_dtype dtype;
    } names[] = { { "f32", EW_DTYPE_F32 },
                  { "f16", EW_DTYPE_F16 },
                  { "bf16", EW_DTYPE_BF16 },
                  { "fp8", EW_DTYPE_F8E4M3 },
                  { "int8", EW_DTYPE_I8 } };

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(name, names[i].name) == 0)
            return names[i].dtype;
    return EW_DTYPE_NONE;
}

/* False, after a message: no such kind. */
bool model_activations(ew_activations *out)
{
    static const char *const names[] = { [EW_ACTIVATIONS_EXACT] = "exact",
                                         [EW_ACTIVATIONS_INT8] = "int8",
                                         [EW_ACTIVATIONS_DECLARED] = "declared",
                                         [EW_ACTIVATIONS_BF16] = "bf16" };

    *out = EW_ACTIVATIONS_EXACT;
    if (!model_opts.activations)
        return true;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(names[i], model_opts.activations) == 0) {
            *out = (ew_activations)i;
            return true;
        }
    }
    cli_usage("--activations: '%s' is not exact, int8, declared or bf16", model_opts.activations);
    return false;
}

static bool default_cache_dir(char *out, size_t cap)
{
    const char *const xdg = getenv("XDG_CACHE_HOME");
    const char *const home = getenv("HOME");
    int n;

    if (xdg && xdg[0] == '/')
        n = snprintf(out, cap, "%s/edgewise", xdg);
    else if (home && home[0])
        n = snprintf(out, cap, "%s/.cache/edgewise", home);
    else
        n = snprintf(out, cap, ".edgewise-cache");
    return n > 0 && (size_t)n < cap;
}

/* Where compiled kernels are kept; NULL: nowhere. */
static const char *kernel_cache(void)
{
    static char path[4200];
    char cache[4096];

    if (model_opts.kernel_cache)
        return strcmp(model_opts.kernel_cache, "none") == 0 ? NULL : model_opts.kernel_cache;
    if (!model_opts.cache_dir && !default_cache_dir(cache, sizeof(cache)))
        return NULL;
    const int n = snprintf(path, sizeof(path), "%s/kernels",
                           model_opts.cache_dir ? model_opts.cache_dir : cache);
    return n > 0 && (size_t)n < sizeof(path) ? path : NULL;
}

bool model_build_opts(ew_build_opts *out)
{
    *out = (ew_build_opts)EW_BUILD_OPTS_INIT;
    cli_quiet(model_opts.quiet);
    cli_verbose(model_opts.verbose);
    if (model_opts.kv) {
        out->kv_dtype = kv_dtype_find(model_opts.kv);
        if (out->kv_dtype == EW_DTYPE_NONE) {
            cli_usage("--kv: '%s' is not f32, f16, bf16, fp8 or int8", model_opts.kv);
            return false;
        }
    }
    if (!model_activations(&out->activations))
        return false;
    out->flags |= model_opts.no_timing ? EW_BUILD_NO_TIMING : 0u;
    out->flags |= model_opts.no_fusion ? EW_BUILD_NO_FUSION : 0u;
    out->cpu_level = model_opts.cpu;
    out->device = model_opts.device;
    out->n_threads = model_opts.threads;
    out->max_batch = model_opts.max_batch;
    out->max_input_len = model_opts.max_input_len;
    out->max_kv_len = model_opts.max_kv_len;
    out->tactic = model_opts.tactic;
    out->timing_cache = model_opts.timing_cache;
    out->kernel_cache = kernel_cache();
    out->progress = cli_progress();
    out->logger = cli_logger();
    return true;
}

int model_engine_dir(const char *model, uint32_t flags, bool hidden_states, char *dir, size_t cap)
{
    ew_prepare_opts prep = EW_PREPARE_OPTS_INIT;
    ew_build_opts build;
    ew_error err = { EW_STATUS_OK, "" };
    char cache[4096];

    if (!model_build_opts(&build))
        return EXIT_USAGE;
    if (!model_opts.cache_dir && !default_cache_dir(cache, sizeof(cache)))
        return cli_fail_text("the cache folder's name is too long");
    build.flags |= flags;
    prep.cache_dir = model_opts.cache_dir ? model_opts.cache_dir : cache;
    prep.build = &build;
    prep.hidden_states = hidden_states;
    prep.rebuild = model_opts.rebuild;
    prep.progress = cli_progress();
    prep.logger = cli_logger();
    const ew_status st = ew_model_prepare(model, &prep, dir, cap, &err);
    cli_progress_end();
    return st ? cli_fail(&err) : EXIT_FINE;
}

double cli_seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int model_open(const char *model, uint32_t flags, bool hidden_states, ew_runtime **out,
               double *load_seconds)
{
    ew_runtime_opts opts = EW_RUNTIME_OPTS_INIT;
    ew_error err = { EW_STATUS_OK, "" };
    char dir[4096];
    const int code = model_engine_dir(model, flags, hidden_states, dir, sizeof(dir));

    *out = NULL;
    if (code)
        return code;
    const double start = cli_seconds();
    opts.n_threads = model_opts.threads;
    opts.max_batch = model_opts.max_batch;
    opts.flags = (model_opts.no_graph ? EW_CONTEXT_NO_GRAPH : 0u) |
                 (model_opts.profile ? EW_CONTEXT_PROFILE : 0u) |
                 (model_opts.pin ? EW_CONTEXT_PIN : 0u);
    opts.trace_path = model_opts.trace;
    opts.profiler = getenv("NVTX_INJECTION64_PATH"); /* set by a profiler around us */
    opts.logger = cli_logger();
    opts.device = model_opts.device;
    if (ew_runtime_open(dir, &opts, out, &err))
        return cli_fail(&err);
    if (load_seconds)
        *load_seconds = cli_seconds() - start;
    return EXIT_FINE;
}

int model_finish(ew_runtime *rt, int code)
{
    ew_error err = { EW_STATUS_OK, "" };
    char *text;

    if (code || !model_opts.profile)
        return code;
    if (ew_runtime_profile_json(rt, &text, &err))
        return cli_fail(&err);
    fprintf(stderr, "%s\n", text);
    ew_text_free(text);
    return EXIT_FINE;
}

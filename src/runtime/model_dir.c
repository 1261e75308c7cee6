/* runtime/model_dir.c - model directories of any stage: what one holds, from checkpoint or ONNX to
 * an engine directory, and the cache of engines made on the fly.
 *
 * llm.engine is written last and appears whole or not at all, so a directory that has it is
 * complete: a build that was killed leaves none that looks ready, and two builds of the same engine
 * end with the same files. */
#include <stdio.h>
#include <string.h>

#include "backend/cuda/device.h"
#include "base/buf.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/text.h"
#include "cpu/cpu.h"
#include "edgewise/build.h"
#include "edgewise/onnx.h"
#include "edgewise/runtime.h"
#include "os/os.h"
#include "plan/codec.h"

#define PATH_CAP      4096
#define MAX_TEXT_FILE ((size_t)256 << 20)

static const char *const text_files[] = {
    "tokenizer.json",         "tokenizer_config.json", "special_tokens_map.json",
    "chat_template.jinja",    "chat_template.json",    "processed_chat_template.json",
    "generation_config.json",
};

static bool has_file(const char *dir, const char *name)
{
    char path[PATH_CAP];

    return ew_path_join(path, sizeof(path), dir, name) && ew_path_is_file(path);
}

static void free_names(char **names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ew_mem_free(names[i]);
    ew_mem_free(names);
}

static bool has_weights(const char *dir)
{
    char **names = NULL;
    size_t n = 0;
    bool found = false;

    if (ew_dir_list(dir, &names, &n, NULL) != EW_STATUS_OK)
        return false;
    for (size_t i = 0; i < n; i++)
        found |= ew_ends_with(names[i], ".safetensors") ||
                 ew_ends_with(names[i], ".safetensors.index.json") ||
                 strcmp(names[i], "pytorch_model.bin") == 0 ||
                 strcmp(names[i], "pytorch_model.bin.index.json") == 0;
    free_names(names, n);
    return found;
}

const char *ew_model_kind(const char *path)
{
    char sub[PATH_CAP];

    if (ew_path_is_file(path))
        return ew_ends_with(path, ".onnx") ? "onnx" : "unknown";
    if (!ew_path_is_dir(path))
        return "unknown";
    if (has_file(path, "llm.engine") || has_file(path, "model.engine"))
        return "engine";
    if (has_file(path, "model.onnx"))
        return "onnx";
    if (ew_path_join(sub, sizeof(sub), path, "llm") && has_file(sub, "model.onnx"))
        return "onnx";
    if (has_file(path, "config.json") && has_weights(path))
        return "checkpoint";
    return "unknown";
}

/* The directory whose files make the model: the path itself, its llm/, or the one an ONNX file lies
 * in. */
static ew_status model_home(const char *model, char home[PATH_CAP], ew_error *err)
{
    const char *slash = strrchr(model, '/');
    int n;

    if (ew_path_is_file(model)) {
        n = slash ? snprintf(home, PATH_CAP, "%.*s", (int)(slash - model) + (slash == model), model)
                  : snprintf(home, PATH_CAP, ".");
    } else if (strcmp(ew_model_kind(model), "onnx") == 0 && !has_file(model, "model.onnx")) {
        n = snprintf(home, PATH_CAP, "%s/llm", model);
    } else {
        n = snprintf(home, PATH_CAP, "%s", model);
    }
    return n > 0 && n < PATH_CAP ? EW_STATUS_OK
                                 : ew_fail(err, EW_STATUS_INVALID_ARG, "path too long: %s", model);
}

static ew_status copy_file(const char *from_dir, const char *to_dir, const char *name,
                           ew_error *err)
{
    char from[PATH_CAP], to[PATH_CAP];
    char *bytes = NULL;
    size_t len = 0;
    ew_status st;

    if (!ew_path_join(from, sizeof(from), from_dir, name) ||
        !ew_path_join(to, sizeof(to), to_dir, name))
        return ew_fail(err, EW_STATUS_INVALID_ARG, "path too long: %s", from_dir);
    if (!ew_path_is_file(from))
        return EW_STATUS_OK;
    EW_TRY(ew_file_read(from, MAX_TEXT_FILE, &bytes, &len, err));
    st = ew_file_write(to, bytes, len, err);
    ew_mem_free(bytes);
    return st;
}

ew_status ew_model_copy_text_files(const char *from, const char *to, ew_error *err)
{
    char home[PATH_CAP];

    EW_TRY(model_home(from, home, err));
    for (size_t i = 0; i < sizeof(text_files) / sizeof(text_files[0]); i++)
        EW_TRY(copy_file(home, to, text_files[i], err));
    return EW_STATUS_OK;
}

static ew_status load_graph(const char *model, const char *kind, const ew_build_opts *build,
                            bool hidden_states, ew_graph **out, ew_error *err)
{
    ew_checkpoint_opts opts = EW_CHECKPOINT_OPTS_INIT;

    opts.hidden_states = hidden_states;
    opts.logger = build->logger;
    opts.activations = build->activations;
    if (strcmp(kind, "checkpoint") == 0)
        return ew_graph_from_checkpoint(model, &opts, out, err);
    if (hidden_states)
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "%s: hidden states can only be added to a checkpoint, not to an ONNX graph",
                       model);
    return ew_graph_from_onnx(model, out, err);
}

static ew_status write_engine(ew_graph *g, const char *home, const char *dir,
                              const ew_build_opts *build, ew_error *err)
{
    const char *config = ew_graph_llm_config(g);
    char path[PATH_CAP];

    EW_TRY(ew_dir_make(dir, err));
    if (config) {
        EW_TRY(ew_model_copy_text_files(home, dir, err));
        if (!ew_path_join(path, sizeof(path), dir, "config.json"))
            return ew_fail(err, EW_STATUS_INVALID_ARG, "path too long: %s", dir);
        EW_TRY(ew_file_write(path, config, strlen(config), err));
    }
    if (!ew_path_join(path, sizeof(path), dir, config ? "llm.engine" : "model.engine"))
        return ew_fail(err, EW_STATUS_INVALID_ARG, "path too long: %s", dir);
    return ew_build_file(g, build, path, err);
}

ew_status ew_model_build(const char *model, const char *dir, const ew_build_opts *build,
                         bool hidden_states, ew_error *err)
{
    static const ew_build_opts defaults = EW_BUILD_OPTS_INIT;
    const char *kind = ew_model_kind(model);
    char home[PATH_CAP], graph_path[PATH_CAP];
    ew_graph *g = NULL;
    ew_status st;

    if (!build)
        build = &defaults;
    if (strcmp(kind, "checkpoint") != 0 && strcmp(kind, "onnx") != 0)
        return ew_fail(err, EW_STATUS_NOT_FOUND,
                       "%s: neither a checkpoint (config.json, *.safetensors or pytorch_model.bin) "
                       "nor ONNX (model.onnx)",
                       model);
    if (strcmp(ew_model_kind(dir), "checkpoint") == 0 || strcmp(ew_model_kind(dir), "onnx") == 0)
        return ew_fail(err, EW_STATUS_INVALID_ARG,
                       "%s: holds a model; an engine's config.json would overwrite its own", dir);
    EW_TRY(model_home(model, home, err));
    (void)snprintf(graph_path, sizeof(graph_path), "%s", ew_path_is_file(model) ? model : home);
    EW_TRY(load_graph(graph_path, kind, build, hidden_states, &g, err));
    st = write_engine(g, home, dir, build, err);
    ew_graph_destroy(g);
    return st;
}

/* ---- the cache ---- */

/* Everything an engine depends on, as text to hash. */
static ew_status describe_files(const char *home, struct ew_buf *b, ew_error *err)
{
    char **names = NULL;
    size_t n = 0;

    EW_TRY(ew_dir_list(home, &names, &n, err));
    for (size_t i = 0; i < n; i++) {
        char path[PATH_CAP];
        uint64_t bytes;
        int64_t mtime_ns;

        if (ew_path_join(path, sizeof(path), home, names[i]) && ew_path_is_file(path) &&
            ew_path_stat(path, &bytes, &mtime_ns))
            ew_buf_printf(b, "%s %llu %lld\n", names[i], (unsigned long long)bytes,
                          (long long)mtime_ns);
    }
    free_names(names, n);
    return EW_STATUS_OK;
}

static void describe_profiles(const ew_build_opts *o, struct ew_buf *b)
{
    for (uint32_t p = 0; p < o->n_profiles; p++) {
        ew_buf_printf(b, "profile %s\n", o->profiles[p].name ? o->profiles[p].name : "");
        for (uint32_t i = 0; i < o->profiles[p].n_inputs; i++) {
            const ew_profile_input *in = &o->profiles[p].inputs[i];

            ew_buf_printf(b, "%s", in->name);
            for (uint32_t d = 0; d < in->n_dims && d < 8; d++)
                ew_buf_printf(b, " %lld:%lld:%lld", (long long)in->min[d], (long long)in->opt[d],
                              (long long)in->max[d]);
            ew_buf_putc(b, '\n');
        }
    }
}

/* The GPU itself: another one in its place needs another engine. */
static ew_status describe_device(const char *device, struct ew_buf *b, ew_error *err)
{
    char text[160];

    EW_TRY(ew_cuda_device_describe(device, text, sizeof(text), err));
    ew_buf_printf(b, "device %s\n", text);
    return EW_STATUS_OK;
}

static ew_status cache_key(const char *model, const char *home, const ew_build_opts *o,
                           bool hidden_states, uint64_t *key, ew_error *err)
{
    struct ew_cpu_info cpu;
    struct ew_buf b;
    ew_status st;

    ew_cpu_detect(&cpu);
    ew_buf_init(&b, EW_MEM_RUNTIME, (size_t)64 << 20);
    ew_buf_printf(&b, "edgewise %s format %u\n%s\n%s\n", EW_VERSION_STRING, EW_PLAN_FORMAT, home,
                  model);
    st = describe_files(home, &b, err);
    ew_buf_printf(&b, "cpu %x %s level %s\n", cpu.flags, cpu.model,
                  o->cpu_level ? o->cpu_level : "native");
    ew_buf_printf(&b, "flags %u batch %u input %u kv %u %d x %d threads %u tactic %s hidden %d\n",
                  o->flags, o->max_batch, o->max_input_len, o->max_kv_len, (int)o->kv_dtype,
                  (int)o->activations, o->n_threads, o->tactic ? o->tactic : "", hidden_states);
    describe_profiles(o, &b);
    if (!st && o->device && strcmp(o->device, "cpu") != 0)
        st = describe_device(o->device, &b, err);
    if (!st && b.failed)
        st = ew_fail(err, EW_STATUS_NO_MEMORY, "%s: cache key", model);
    *key = ew_hash64(b.data, b.len, 0);
    ew_buf_deinit(&b);
    return st;
}

/* Last component of a path without trailing slashes, for a name that a person recognises. */
static void base_name(const char *path, char out[64])
{
    size_t end = strlen(path), begin;

    while (end > 1 && path[end - 1] == '/')
        end--;
    begin = end;
    while (begin > 0 && path[begin - 1] != '/')
        begin--;
    (void)snprintf(out, 64, "%.*s", (int)(end - begin < 40 ? end - begin : 40), path + begin);
}

static ew_status give_path(const char *path, char *out, size_t cap, ew_error *err)
{
    const size_t len = strlen(path);

    if (len >= cap)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "path of %zu bytes, room for %zu: %s", len, cap,
                       path);
    memcpy(out, path, len + 1);
    return EW_STATUS_OK;
}

static ew_status prepare(const char *model, const ew_prepare_opts *opts, char *engine_dir,
                         size_t cap, ew_error *err)
{
    ew_build_opts build = EW_BUILD_OPTS_INIT;
    char home[PATH_CAP], name[128], base[64], dir[PATH_CAP];
    uint64_t key;

    if (opts->build)
        build = *opts->build;
    if (!build.progress.step)
        build.progress = opts->progress;
    if (!build.logger)
        build.logger = opts->logger;
    if (!opts->cache_dir)
        return ew_fail(err, EW_STATUS_INVALID_ARG,
                       "%s must be built into an engine first, and no cache directory is given",
                       model);
    EW_TRY(model_home(model, home, err));
    EW_TRY(cache_key(model, home, &build, opts->hidden_states, &key, err));
    base_name(model, base);
    (void)snprintf(name, sizeof(name), "%s-%016llx", base, (unsigned long long)key);
    if (!ew_path_join(dir, sizeof(dir), opts->cache_dir, name))
        return ew_fail(err, EW_STATUS_INVALID_ARG, "path too long: %s", opts->cache_dir);
    if (opts->rebuild || strcmp(ew_model_kind(dir), "engine") != 0)
        EW_TRY(ew_model_build(model, dir, &build, opts->hidden_states, err));
    return give_path(dir, engine_dir, cap, err);
}

ew_status ew_model_prepare(const char *model, const ew_prepare_opts *opts, char *engine_dir,
                           size_t cap, ew_error *err)
{
    static const ew_prepare_opts defaults = EW_PREPARE_OPTS_INIT;
    const char *kind;

    if (!model || !engine_dir || cap == 0)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "prepare: no model or no room for the path");
    if (!opts)
        opts = &defaults;
    if (opts->struct_size != sizeof(*opts))
        return ew_fail(err, EW_STATUS_INVALID_ARG, "prepare options: struct_size is %u, not %zu",
                       opts->struct_size, sizeof(*opts));
    kind = ew_model_kind(model);
    if (strcmp(kind, "engine") == 0)
        return give_path(model, engine_dir, cap, err);
    if (strcmp(kind, "unknown") == 0)
        return ew_fail(
            err, EW_STATUS_NOT_FOUND,
            "%s: neither a checkpoint (config.json, *.safetensors or pytorch_model.bin), nor ONNX "
            "(model.onnx), nor an engine directory (llm.engine)",
            model);
    return prepare(model, opts, engine_dir, cap, err);
}

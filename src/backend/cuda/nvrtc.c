/* backend/cuda/nvrtc.c - finding the run-time compiler, and one compilation. */
#include "backend/cuda/nvrtc.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/size.h"
#include "kernels/cuda/source.h"
#include "os/os.h"

#define MAX_OPTIONS 64
#define MAX_HEADERS 64

typedef int nvrtc_result;
typedef void *nvrtc_program;

/* clang-format off */
#define NVRTC_FUNCTIONS(X) \
    X(version, "nvrtcVersion", (int *major, int *minor)) \
    X(error_text, "nvrtcGetErrorString", (nvrtc_result r)) \
    X(n_archs, "nvrtcGetNumSupportedArchs", (int *n)) \
    X(archs, "nvrtcGetSupportedArchs", (int *archs)) \
    X(create, "nvrtcCreateProgram", (nvrtc_program *p, const char *source, const char *name, int n_headers, const char *const *headers, const char *const *names)) \
    X(compile, "nvrtcCompileProgram", (nvrtc_program p, int n, const char *const *options)) \
    X(destroy, "nvrtcDestroyProgram", (nvrtc_program *p)) \
    X(cubin_bytes, "nvrtcGetCUBINSize", (nvrtc_program p, size_t *n)) \
    X(cubin, "nvrtcGetCUBIN", (nvrtc_program p, char *cubin)) \
    X(ptx_bytes, "nvrtcGetPTXSize", (nvrtc_program p, size_t *n)) \
    X(ptx, "nvrtcGetPTX", (nvrtc_program p, char *ptx)) \
    X(log_bytes, "nvrtcGetProgramLogSize", (nvrtc_program p, size_t *n)) \
    X(log, "nvrtcGetProgramLog", (nvrtc_program p, char *log))
/* clang-format on */

typedef const char *nvrtc_text;
#define RETURNS_version     nvrtc_result
#define RETURNS_error_text  nvrtc_text
#define RETURNS_n_archs     nvrtc_result
#define RETURNS_archs       nvrtc_result
#define RETURNS_create      nvrtc_result
#define RETURNS_compile     nvrtc_result
#define RETURNS_destroy     nvrtc_result
#define RETURNS_cubin_bytes nvrtc_result
#define RETURNS_cubin       nvrtc_result
#define RETURNS_ptx_bytes   nvrtc_result
#define RETURNS_ptx         nvrtc_result
#define RETURNS_log_bytes   nvrtc_result
#define RETURNS_log         nvrtc_result

struct ew_nvrtc {
    void *lib;
    int number; /* of the version */
    uint64_t build;
    int archs_known[64], n_known;
#define NVRTC_MEMBER(member, name, args) RETURNS_##member(*member) args;
    NVRTC_FUNCTIONS(NVRTC_MEMBER)
#undef NVRTC_MEMBER
};

/* Kernels share structs with C; the run-time compiler has no system headers, so that these few
 * types are given to it under the names that C knows. */
static const char stdint_text[] =
    "#pragma once\n"
    "typedef signed char int8_t; typedef unsigned char uint8_t;\n"
    "typedef short int16_t; typedef unsigned short uint16_t;\n"
    "typedef int int32_t; typedef unsigned int uint32_t;\n"
    "typedef long long int64_t; typedef unsigned long long uint64_t;\n"
    "typedef unsigned long long uintptr_t; typedef long long intptr_t;\n";
static const char empty_text[] = "#pragma once\n";

/* The head of the PTX of an empty program names release and build. */
static uint64_t build_of(struct ew_nvrtc *c)
{
    char option[40], *text = NULL;
    const char *const options[] = { option };
    nvrtc_program p = NULL;
    uint64_t hash = 0;
    size_t n = 0;

    (void)snprintf(option, sizeof(option), "--gpu-architecture=compute_%d", c->archs_known[0]);
    if (!c->n_known || c->create(&p, "", "build.cu", 0, NULL, NULL))
        return 0;
    if (!c->compile(p, 1, options) && !c->ptx_bytes(p, &n) && n > 1)
        text = ew_mem_calloc(EW_MEM_BUILD, n, 1);
    if (text && !c->ptx(p, text)) {
        hash = ew_hash64(text, n, 0);
        hash = ew_hash64(stdint_text, sizeof(stdint_text), hash);
        hash = ew_hash64(empty_text, sizeof(empty_text), hash);
    }
    ew_mem_free(text);
    c->destroy(&p);
    return hash;
}

static bool load(struct ew_nvrtc *c, const char *path)
{
    const struct {
        const char *name;
        size_t at;
    } functions[] = {
#define NVRTC_ENTRY(member, name, args) { name, offsetof(struct ew_nvrtc, member) },
        NVRTC_FUNCTIONS(NVRTC_ENTRY)
#undef NVRTC_ENTRY
    };
    int major, minor;

    c->lib = ew_lib_open(path, NULL);
    if (!c->lib)
        return false;
    for (size_t i = 0; i < EW_COUNT(functions); i++) {
        void *f = ew_lib_symbol(c->lib, functions[i].name);

        if (!f)
            goto fail;
        memcpy((char *)c + functions[i].at, &f, sizeof(f));
    }
    if (c->version(&major, &minor) || c->n_archs(&c->n_known) || c->n_known < 0 ||
        c->n_known > (int)EW_COUNT(c->archs_known) || c->archs(c->archs_known))
        goto fail;
    c->number = major * 1000 + minor * 10;
    c->build = build_of(c);
    return true;
fail:
    ew_lib_close(c->lib);
    c->lib = NULL;
    return false;
}

/* Library names, newest first, in one folder or (NULL) where the system looks. */
static bool load_from(struct ew_nvrtc *c, const char *dir)
{
    static const char *const names[] = { "libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so.11.2",
                                         "libnvrtc.so" };
    char path[4096];

    for (size_t i = 0; i < EW_COUNT(names); i++) {
        if (dir && !ew_path_join(path, sizeof(path), dir, names[i]))
            continue;
        if (load(c, dir ? path : names[i]))
            return true;
    }
    return false;
}

ew_status ew_nvrtc_open(const char *path, struct ew_nvrtc **out, ew_error *err)
{
    static const char *const dirs[] = { NULL, "/usr/local/cuda/lib64", "/usr/local/cuda/lib",
                                        "/usr/local/cuda/targets/x86_64-linux/lib",
                                        "/usr/local/cuda/targets/aarch64-linux/lib" };
    struct ew_nvrtc *c = ew_mem_calloc(EW_MEM_BUILD, 1, sizeof(*c));
    bool found;

    *out = NULL;
    if (!c)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "CUDA compiler");
    if (path)
        found = ew_path_is_dir(path) ? load_from(c, path) : load(c, path);
    else
        found = false;
    for (size_t i = 0; !path && !found && i < EW_COUNT(dirs); i++)
        found = load_from(c, dirs[i]);
    if (!found) {
        ew_mem_free(c);
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "CUDA: building an engine needs NVRTC (libnvrtc.so.13, .12 or .11), %s%s",
                       path ? "not at " : "which is neither installed nor under /usr/local/cuda",
                       path ? path : "");
    }
    *out = c;
    return EW_STATUS_OK;
}

void ew_nvrtc_close(struct ew_nvrtc *c)
{
    if (!c)
        return;
    ew_lib_close(c->lib);
    ew_mem_free(c);
}

int ew_nvrtc_version(const struct ew_nvrtc *c)
{
    return c->number;
}

uint64_t ew_nvrtc_build(const struct ew_nvrtc *c)
{
    return c->build;
}

bool ew_nvrtc_supports(const struct ew_nvrtc *c, uint32_t sm)
{
    for (int i = 0; i < c->n_known; i++)
        if (c->archs_known[i] == (int)sm)
            return true;
    return false;
}

struct options {
    const char *at[MAX_OPTIONS];
    int n;
    char text[EW_NVRTC_OPTIONS_CAP];
};

/* "-DA=1 -DB=2" and what every kernel gets. */
void ew_nvrtc_options(char out[EW_NVRTC_OPTIONS_CAP], const struct ew_cuda_spec *spec, uint32_t sm)
{
    (void)snprintf(out, EW_NVRTC_OPTIONS_CAP, "--gpu-architecture=sm_%u%s --std=c++17 %s", sm,
                   sm == 90 ? "a" : "", spec->defines);
}

static bool make_options(struct options *o, const struct ew_cuda_spec *spec, uint32_t sm)
{
    char *at = o->text;

    o->n = 0;
    ew_nvrtc_options(o->text, spec, sm);
    while (*at) {
        at += strspn(at, " ");
        if (!*at)
            break;
        if (o->n == MAX_OPTIONS)
            return false;
        o->at[o->n++] = at;
        at += strcspn(at, " ");
        if (*at)
            *at++ = '\0';
    }
    return true;
}

/* Every .cuh, by its own name and by the one that C includes it by. */
static int list_headers(const char *texts[MAX_HEADERS * 2 + 3],
                        const char *names[MAX_HEADERS * 2 + 3], char paths[MAX_HEADERS][96])
{
    size_t n;
    const struct ew_cuda_text *all = ew_cuda_texts(&n);
    int k = 0;

    for (size_t i = 0; i < n && k < 2 * MAX_HEADERS; i++) {
        if (all[i].len < 1 || !strstr(all[i].name, ".cuh"))
            continue;
        (void)snprintf(paths[k / 2], sizeof(paths[0]), "kernels/cuda/%s", all[i].name);
        texts[k] = all[i].text;
        names[k++] = all[i].name;
        texts[k] = all[i].text;
        names[k] = paths[k / 2];
        k++;
    }
    texts[k] = stdint_text;
    names[k++] = "stdint.h";
    texts[k] = empty_text;
    names[k++] = "stddef.h";
    texts[k] = empty_text;
    names[k++] = "stdbool.h";
    return k;
}

/* The first line of a log that says "error", without its end. */
static void first_error(const char *log, char *out, size_t cap)
{
    const char *at = log ? strstr(log, "error") : NULL;
    size_t len;

    if (!at) {
        (void)snprintf(out, cap, "no message");
        return;
    }
    while (at > log && at[-1] != '\n')
        at--;
    len = strcspn(at, "\n");
    (void)snprintf(out, cap, "%.*s", (int)(len < cap ? len : cap - 1), at);
}

static char *read_log(struct ew_nvrtc *c, nvrtc_program p)
{
    size_t n = 0;
    char *log;

    if (c->log_bytes(p, &n) || n <= 1)
        return NULL;
    log = ew_mem_calloc(EW_MEM_BUILD, n + 1, 1);
    if (log && c->log(p, log)) {
        ew_mem_free(log);
        return NULL;
    }
    return log;
}

static ew_status read_cubin(struct ew_nvrtc *c, nvrtc_program p, const struct ew_cuda_spec *spec,
                            void **cubin, size_t *n_bytes, ew_error *err)
{
    nvrtc_result r = c->cubin_bytes(p, n_bytes);

    if (!r && *n_bytes) {
        *cubin = ew_mem_alloc(EW_MEM_BUILD, *n_bytes);
        if (!*cubin)
            return ew_fail(err, EW_STATUS_NO_MEMORY, "kernel '%s': %zu bytes", spec->entry,
                           *n_bytes);
        r = c->cubin(p, *cubin);
    }
    if (!r && *n_bytes)
        return EW_STATUS_OK;
    ew_mem_free(*cubin);
    *cubin = NULL;
    return ew_fail(err, EW_STATUS_DEVICE, "kernel '%s': the compiler gives no code: %s",
                   spec->entry, c->error_text(r));
}

ew_status ew_nvrtc_compile(struct ew_nvrtc *c, const struct ew_cuda_spec *spec, uint32_t sm,
                           void **cubin, size_t *n_bytes, char **log, ew_error *err)
{
    const char *texts[MAX_HEADERS * 2 + 3], *names[MAX_HEADERS * 2 + 3];
    char paths[MAX_HEADERS][96], file[128], line[512];
    const char *source = ew_cuda_source_find(spec->source);
    struct options o;
    nvrtc_program p = NULL;
    nvrtc_result r;
    char *said;
    ew_status st;
    const int n_headers = list_headers(texts, names, paths);

    *cubin = NULL;
    *n_bytes = 0;
    if (log)
        *log = NULL;
    if (!source)
        return ew_fail(err, EW_STATUS_NOT_FOUND, "kernel source '%s' is not in this build",
                       spec->source);
    if (!make_options(&o, spec, sm))
        return ew_fail(err, EW_STATUS_LIMIT, "kernel '%s': more than %d options", spec->entry,
                       MAX_OPTIONS);
    (void)snprintf(file, sizeof(file), "%s.cu", spec->source);
    r = c->create(&p, source, file, n_headers, texts, names);
    if (r)
        return ew_fail(err, EW_STATUS_DEVICE, "kernel '%s': %s", spec->entry, c->error_text(r));
    r = c->compile(p, o.n, o.at);
    said = read_log(c, p);
    if (r) {
        first_error(said, line, sizeof(line));
        st = ew_fail(err, EW_STATUS_DEVICE, "kernel '%s' (%s) for sm_%u: %s: %s", spec->entry,
                     spec->defines, sm, c->error_text(r), line);
    } else {
        st = read_cubin(c, p, spec, cubin, n_bytes, err);
    }
    c->destroy(&p);
    if (log)
        *log = said;
    else
        ew_mem_free(said);
    return st;
}

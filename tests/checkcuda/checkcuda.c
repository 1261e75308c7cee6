/* checkcuda.c - every CUDA kernel against the reference on the host.
 *
 *   checkcuda [--filter TEXT] [--list] [--bench] [--device N] [--jobs N] [--nvrtc PATH]
 *             [--driver PATH] [--compile-only] [--one-each] [--each-kernel] [--part I/N]
 *             [--cubins DIR] [--sm 80,86,...] [--verbose]
 *
 * --compile-only needs no GPU: every spec of every family for every chip of --sm (all by default)
 * goes through NVRTC; with --one-each only the first of each entry of each source. On a GPU those
 * two run fewer cases, for tools that make a run slow: --one-each the smallest case of every entry,
 * --each-kernel the smallest of every specialisation. --part 0/3: every third case that the filter
 * wants, from the first on, so that three processes share the work. --cubins: a folder
 * where compiled kernels are kept for the next run. Exit status: 0 when all is well, 1 after a
 * failure, 2 for wrong arguments, 77 when the machine has no GPU or no NVRTC. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/nvrtc_cache.h"
#include "base/mem.h"
#include "base/pool.h"
#include "base/size.h"
#include "state.h"

#define NO_DEVICE 77

#define CC(family) extern const struct cc_family cc_family_##family;
#include "families.inc"
#undef CC

static const struct cc_family *const families[] = {
#define CC(family) &cc_family_##family,
#include "families.inc"
#undef CC
};

/* What --compile-only takes a chip for: numbers of typical products, cuBLASLt beside them. */
static const struct ew_cuda_chip chips[] = {
    { 80, 108, 166912, 40u << 20, 1 }, { 86, 84, 101376, 6u << 20, 1 },
    { 87, 16, 166912, 4u << 20, 1 },   { 89, 128, 101376, 72u << 20, 1 },
    { 90, 132, 232448, 50u << 20, 1 }, { 100, 148, 232448, 126u << 20, 1 },
    { 110, 20, 232448, 32u << 20, 1 }, { 120, 170, 101376, 96u << 20, 1 },
};

struct args {
    const char *filter, *nvrtc, *driver, *sm, *part, *cubins;
    bool list, bench, compile_only, one_each, each_kernel, verbose;
    int device;
    unsigned jobs;
};

static void run_all(struct cc *c, enum cc_mode mode)
{
    c->mode = mode;
    c->n_wanted = 0;
    for (size_t i = 0; i < EW_COUNT(families); i++) {
        c->family = families[i];
        c->n_family_cases = c->n_family_failures = 0;
        c->worst = 0;
        families[i]->run(c);
        if (mode == CC_RUN && c->n_family_cases)
            printf("%-24s %5zu cases %5zu failures  largest error %.3f of its bound\n",
                   families[i]->name, c->n_family_cases, c->n_family_failures, c->worst);
    }
}

struct job {
    struct cc *c;
    struct ew_nvrtc *compiler;
    const char *cubin_dir;
    bool verbose;
    size_t next;
    size_t n_failures;
    void **cubins; /* [n_specs] */
    size_t *bytes;
};

static void compile_body(void *arg, unsigned i, unsigned n)
{
    struct job *j = arg;
    size_t at;

    (void)i;
    (void)n;
    while ((at = __atomic_fetch_add(&j->next, 1, __ATOMIC_RELAXED)) < j->c->n_specs) {
        const struct cc_spec *s = &j->c->specs[at];
        ew_error err = { 0 };
        char *log = NULL;

        if (!ew_nvrtc_supports(j->compiler, s->sm))
            continue;
        if (ew_nvrtc_compile_in(j->cubin_dir, j->compiler, &s->spec, s->sm, &j->cubins[at],
                                &j->bytes[at], &log, &err)) {
            __atomic_fetch_add(&j->n_failures, 1, __ATOMIC_RELAXED);
            printf("FAIL %s: %s\n%s\n", s->first_case, err.text, j->verbose && log ? log : "");
        } else if (log && j->verbose) {
            printf("%s: %s\n", s->spec.entry, log);
        }
        ew_mem_free(log);
    }
}

/* All gathered specs through the compiler, on `jobs` threads. */
static size_t compile_all(struct job *j, unsigned jobs)
{
    struct ew_pool *pool = NULL;
    ew_error err = { 0 };

    j->cubins = calloc(j->c->n_specs + 1, sizeof(*j->cubins));
    j->bytes = calloc(j->c->n_specs + 1, sizeof(*j->bytes));
    if (!j->cubins || !j->bytes || ew_pool_create(jobs, &pool, &err)) {
        printf("%s\n", err.text);
        return 1;
    }
    ew_pool_run(pool, compile_body, j);
    ew_pool_destroy(pool);
    return j->n_failures;
}

static void drop_cubins(struct job *j)
{
    for (size_t i = 0; j->cubins && i < j->c->n_specs; i++)
        ew_mem_free(j->cubins[i]);
    free(j->cubins);
    free(j->bytes);
}

static bool wants_sm(const char *list, uint32_t sm)
{
    char text[16];

    (void)snprintf(text, sizeof(text), "%u", sm);
    for (const char *at = list; at && *at; at += strcspn(at, ","), at += *at == ',')
        if (strlen(text) == strspn(at, "0123456789") && strncmp(at, text, strlen(text)) == 0)
            return true;
    return !list;
}

static int compile_only(struct cc *c, const struct args *a, struct ew_nvrtc *compiler)
{
    struct job j = { .c = c, .compiler = compiler, .cubin_dir = a->cubins, .verbose = a->verbose };
    size_t failures;

    for (size_t i = 0; i < EW_COUNT(chips); i++) {
        if (!wants_sm(a->sm, chips[i].sm))
            continue;
        if (!ew_nvrtc_supports(compiler, chips[i].sm))
            printf("sm_%u is unknown to this NVRTC (%d): left out\n", chips[i].sm,
                   ew_nvrtc_version(compiler));
        c->chip = chips[i];
        run_all(c, CC_GATHER);
    }
    failures = compile_all(&j, a->jobs);
    printf("checkcuda: %zu kernels compiled, %zu failures\n", c->n_specs, failures);
    drop_cubins(&j);
    return failures ? 1 : 0;
}

/* The smallest case of everything that was gathered, and what those launch. */
static void choose_cases(struct cc *c)
{
    size_t n = 0;

    c->chosen = calloc(c->n_specs + 1, sizeof(*c->chosen));
    if (!c->chosen)
        abort();
    for (size_t i = 0; i < c->n_specs; i++) {
        size_t same = 0;

        while (same < n && strcmp(c->chosen[same], c->specs[i].first_case) != 0)
            same++;
        if (same == n)
            memcpy(c->chosen[n++], c->specs[i].first_case, sizeof(*c->chosen));
    }
    c->n_chosen = n;
    c->n_specs = 0;
    c->one_each = false;
}

/* "I/N" with I < N. */
static bool take_part(struct cc *c, const char *text)
{
    char *end;

    if (!text)
        return true;
    c->part = (unsigned)strtoul(text, &end, 10);
    if (*end != '/')
        return false;
    c->n_parts = (unsigned)strtoul(end + 1, &end, 10);
    return !*end && c->part < c->n_parts;
}

/* Without it nothing of its cases runs. */
static void open_library(struct cc *c)
{
    char version[EW_CUBLASLT_TEXT_CAP];
    ew_error err = { 0 };

    if (ew_cublaslt_open(NULL, c->device, &c->library, &err)) {
        printf("%s\n", err.text);
        return;
    }
    c->chip.cublaslt = ew_cublaslt_version(c->library);
    ew_cuda_modules_set_library(c->modules, c->library);
    printf("cuBLASLt %s\n", ew_cublaslt_text(c->chip.cublaslt, version));
}

static int run_device(struct cc *c, const struct args *a, struct ew_nvrtc *compiler)
{
    struct job j = { .c = c, .compiler = compiler, .cubin_dir = a->cubins, .verbose = a->verbose };
    ew_error err = { 0 };
    size_t failures;
    ew_status st = ew_cuda_modules_open(c->device, NULL, &c->modules, &err);

    if (!st)
        st = ew_cuda_queue_open(c->device, &c->queue, &err);
    if (st) {
        printf("%s\n", err.text);
        return 1;
    }
    c->chip = c->device->chip;
    printf("%s: sm_%u, %u multiprocessors, NVRTC %d\n", c->device->name, c->chip.sm, c->chip.n_sm,
           ew_nvrtc_version(compiler));
    open_library(c);
    run_all(c, CC_GATHER);
    if (a->one_each || a->each_kernel) {
        choose_cases(c);
        (void)take_part(c, a->part);
        run_all(c, CC_GATHER);
    }
    failures = compile_all(&j, a->jobs);
    for (size_t i = 0; i < c->n_specs && !st; i++) {
        const struct ew_cuda_image image = { c->specs[i].spec.source, c->specs[i].spec.defines,
                                             j.cubins[i], j.bytes[i] };

        if (j.cubins[i])
            st = ew_cuda_modules_add(c->modules, &image, &err);
    }
    run_all(c, CC_RUN);
    printf("checkcuda: %zu cases, %zu failures; %zu kernels, %zu did not compile\n", c->n_cases,
           c->n_failures, c->n_specs, failures);
    ew_cuda_queue_close(&c->queue);
    ew_cuda_modules_close(c->modules);
    ew_cublaslt_close(c->library);
    drop_cubins(&j);
    free(c->chosen);
    return failures || c->n_failures || st ? 1 : 0;
}

static bool parse(int argc, char **argv, struct args *a)
{
    for (int i = 1; i < argc; i++) {
        const char *o = argv[i], *v = i + 1 < argc ? argv[i + 1] : NULL;

        if (strcmp(o, "--list") == 0)
            a->list = true;
        else if (strcmp(o, "--bench") == 0)
            a->bench = true;
        else if (strcmp(o, "--compile-only") == 0)
            a->compile_only = true;
        else if (strcmp(o, "--one-each") == 0)
            a->one_each = true;
        else if (strcmp(o, "--each-kernel") == 0)
            a->each_kernel = true;
        else if (strcmp(o, "--verbose") == 0)
            a->verbose = true;
        else if (!v)
            return false;
        else if (strcmp(o, "--filter") == 0)
            a->filter = argv[++i];
        else if (strcmp(o, "--nvrtc") == 0)
            a->nvrtc = argv[++i];
        else if (strcmp(o, "--driver") == 0)
            a->driver = argv[++i];
        else if (strcmp(o, "--cubins") == 0)
            a->cubins = argv[++i];
        else if (strcmp(o, "--part") == 0)
            a->part = argv[++i];
        else if (strcmp(o, "--sm") == 0)
            a->sm = argv[++i];
        else if (strcmp(o, "--device") == 0)
            a->device = (int)strtol(argv[++i], NULL, 10);
        else if (strcmp(o, "--jobs") == 0)
            a->jobs = (unsigned)strtoul(argv[++i], NULL, 10);
        else
            return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    struct cc c = { 0 };
    struct args a = { 0 };
    struct ew_nvrtc *compiler = NULL;
    ew_error err = { 0 };
    int rc;

    if (!parse(argc, argv, &a) || !take_part(&c, a.part)) {
        (void)fprintf(stderr,
                      "usage: checkcuda [--filter TEXT] [--list] [--bench] [--device N] [--jobs N] "
                      "[--nvrtc PATH] [--driver PATH] [--compile-only] [--one-each] "
                      "[--each-kernel] [--part I/N] [--cubins DIR] [--sm LIST] [--verbose]\n");
        return 2;
    }
    c.filter = a.filter;
    c.bench = a.bench;
    c.verbose = a.verbose;
    c.one_each = a.one_each;
    c.chip = chips[4];
    if (a.one_each || a.each_kernel)
        c.n_parts = 0; /* of what is chosen then, not of what it is chosen from */
    if (a.list) {
        run_all(&c, CC_LIST);
        return 0;
    }
    if (ew_nvrtc_open(a.nvrtc, &compiler, &err) ||
        (!a.compile_only && ew_cuda_device_open(a.device, a.driver, &c.device, &err))) {
        printf("checkcuda: %s\n", err.text);
        ew_nvrtc_close(compiler);
        return NO_DEVICE;
    }
    rc = a.compile_only ? compile_only(&c, &a, compiler) : run_device(&c, &a, compiler);
    ew_cuda_device_close(c.device);
    ew_nvrtc_close(compiler);
    free(c.buffers);
    free(c.specs);
    return rc;
}

/* checkmodel.c - models of odd shapes on a GPU beside the CPU in f32.
 *
 *   checkmodel [--device cuda:N] [--dir DIR] [--filter TEXT] [--part I/N] [--threads N]
 *              [--kernel-cache DIR] [--list]
 *
 * Each model of models.c is made (and quantised), built for both devices, and one sequence that
 * fills the cache to its last place runs in several ways: in the longest steps, in uneven pieces,
 * token by token, again from the middle, some models in steps of each length up to 64. Logits of
 * each token are compared. Then eight requests of different lengths over five rows, greedy, twice:
 * rows end, move and are taken again, prefixes are kept and taken; then contexts of one engine at
 * once in threads. A line a model. --device cpu checks the program itself. Exit status: 0 when all
 * is well, 1 after a failure, 2 for wrong arguments, 77 without a GPU. */
#include "checkmodel.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/cuda.h"
#include "base/size.h"
#include "edgewise/build.h"
#include "edgewise/quantize.h"
#include "os/os.h"
#include "runtime/rt.h"
#include "sample/sampler.h"

#define NO_DEVICE   77
#define PATH_CAP    1024
#define N_ROWS      5
#define N_REQUESTS  8
#define N_OUT       8
#define MAX_KL      1e-4
#define MAX_ERROR   2e-2 /* of the largest logit */
#define ROUTED_KL   1e-3 /* with experts, a token above this went to another one ... */
#define ROUTED_PART 16   /* ... and one of so many may */
#define NEAR_TIE    0.05

struct options {
    const char *device, *dir, *filter, *kernels;
    unsigned part, n_parts, n_threads;
    bool list;
};

struct pair { /* one model on both devices */
    const struct cm_model *m;
    const struct options *o;
    ew_runtime *cpu, *gpu;
    uint32_t vocab;
    int32_t *ids;      /* [cap] */
    float *want, *got; /* [cap][vocab] */
    double kl, error;  /* the worst of all ways: mean divergence, largest difference */
    uint32_t n_routed; /* tokens */
    bool failed;
};

static void *xalloc(size_t n, size_t bytes)
{
    void *p = calloc(n ? n : 1, bytes);

    if (!p)
        abort();
    return p;
}

static void fail(struct pair *p, const char *what, const char *why)
{
    printf("FAIL %s: %s: %s\n", p->m->name, what, why);
    p->failed = true;
}

/* ---- logits ---- */

static double log_sum(const float *x, uint32_t n)
{
    double max = -INFINITY, sum = 0;

    for (uint32_t i = 0; i < n; i++)
        max = x[i] > max ? x[i] : max;
    for (uint32_t i = 0; i < n; i++)
        sum += exp(x[i] - max);
    return max + log(sum);
}

static double divergence(const float *want, const float *got, uint32_t n)
{
    const double a = log_sum(want, n), b = log_sum(got, n);
    double kl = 0;

    for (uint32_t i = 0; i < n; i++)
        kl += exp(want[i] - a) * ((want[i] - a) - (got[i] - b));
    return kl;
}

static void compare(struct pair *p, const char *way)
{
    const double allowed = MAX_KL * (p->m->loose ? p->m->loose : 1);
    double kl = 0, error = 0, max = 0;
    uint32_t routed = 0, worst = 0;
    char text[200];

    for (uint32_t t = 0; t < p->m->cap; t++) {
        const float *want = p->want + (size_t)t * p->vocab, *got = p->got + (size_t)t * p->vocab;
        const double d = divergence(want, got, p->vocab);

        if (p->m->routes && d > ROUTED_KL) {
            routed++;
            continue;
        }
        kl += isfinite(d) ? d / p->m->cap : 1e9;
        for (uint32_t i = 0; i < p->vocab; i++) {
            const double off = fabs((double)want[i] - (double)got[i]);

            max = fabs((double)want[i]) > max ? fabs((double)want[i]) : max;
            if (!(off <= error)) {
                error = off;
                worst = t;
            }
        }
    }
    error /= max;
    /* A token that went elsewhere is in the cache that later ones attend to. */
    if (!(kl <= allowed) || routed > p->m->cap / ROUTED_PART ||
        !(routed || error <= MAX_ERROR * sqrt(allowed / MAX_KL))) {
        (void)snprintf(text, sizeof(text),
                       "KL %.2e, error %.2e (token %u), %u of %u to other experts", kl, error,
                       worst, routed, p->m->cap);
        fail(p, way, text);
    }
    p->kl = kl > p->kl ? kl : p->kl;
    p->error = error > p->error ? error : p->error;
    p->n_routed = routed > p->n_routed ? routed : p->n_routed;
}

/* ---- one sequence in several ways ---- */

static const uint32_t pieces[] = { 1, 16, 63, 2, 64, 17, 1, 1, 33, 128, 5, 65, 127, 9 };

/* Tokens [from, to) in steps of at most `most`, or uneven ones (most 0). */
static bool feed(struct pair *p, ew_runtime *rt, const char *way, uint32_t from, uint32_t to,
                 uint32_t most, float *out)
{
    ew_error err = { 0 };
    uint32_t n, k = 0;

    for (uint32_t at = from; at < to; at += n) {
        n = most ? most : pieces[k++ % EW_COUNT(pieces)];
        n = n < p->m->in ? n : p->m->in;
        n = n < to - at ? n : to - at;
        if (ew_runtime_forward(rt, 0, p->ids + at, n, 0, out + (size_t)at * p->vocab, n, &err)) {
            fail(p, way, err.text);
            return false;
        }
    }
    return true;
}

static bool rewind_to(struct pair *p, const char *way, uint32_t len)
{
    ew_error err = { 0 };

    if (!ew_runtime_rewind(p->gpu, 0, len, &err))
        return true;
    fail(p, way, err.text);
    return false;
}

static void sequence(struct pair *p)
{
    const uint32_t cap = p->m->cap, some = cap < 48 ? cap / 2 : 24, half = cap / 2 + 1;
    ew_error err = { 0 };

    if (!feed(p, p->cpu, "the CPU", 0, cap, p->m->in, p->want))
        return;
    if (feed(p, p->gpu, "long steps", 0, cap, p->m->in, p->got))
        compare(p, "long steps");
    if (!ew_runtime_forward(p->gpu, 0, p->ids, 1, 0, NULL, 0, &err))
        fail(p, "a full cache", "took one more token");
    if (rewind_to(p, "pieces", 0) && feed(p, p->gpu, "pieces", 0, cap, 0, p->got))
        compare(p, "pieces");
    memset(p->got, 0, (size_t)cap * p->vocab * sizeof(*p->got));
    if (rewind_to(p, "token by token", 0) &&
        feed(p, p->gpu, "token by token", 0, some, 1, p->got) &&
        feed(p, p->gpu, "token by token", some, cap - some, 0, p->got) &&
        feed(p, p->gpu, "token by token", cap - some, cap, 1, p->got))
        compare(p, "token by token");
    if (rewind_to(p, "again", half) && feed(p, p->gpu, "again", half, cap, 7, p->got))
        compare(p, "again");
}

/* A step of n tokens in the middle, for each n: its logits, and the token that they pick without.
 */
static void each_length(struct pair *p)
{
    const uint32_t at = p->m->cap / 3, most = p->m->in < 64 ? p->m->in : 64;
    int32_t picked[64];
    ew_error err = { 0 };

    if (!rewind_to(p, "each length", 0) || !feed(p, p->gpu, "each length", 0, p->m->cap, 0, p->got))
        return;
    for (uint32_t n = 2; n <= most && at + n <= p->m->cap && !p->failed; n++) {
        char way[32];

        (void)snprintf(way, sizeof(way), "a step of %u", n);
        if (!rewind_to(p, way, at) || !feed(p, p->gpu, way, at, at + n, n, p->got))
            return;
        compare(p, way);
        if (!rewind_to(p, way, at))
            return;
        if (ew_runtime_forward_tokens(p->gpu, 0, p->ids + at, n, 0, picked, n, &err)) {
            fail(p, way, err.text);
            return;
        }
        for (uint32_t i = 0; i < n; i++)
            if (picked[i] != ew_argmax(p->got + (size_t)(at + i) * p->vocab, p->vocab))
                fail(p, way, "the token picked is not the likeliest of its logits");
    }
}

/* ---- rows ---- */

/* More requests than rows, of different lengths, that end at different steps: rows move and are
 * taken again. */
static void make_requests(const struct pair *p, ew_request r[N_REQUESTS], bool wants_lead)
{
    const uint32_t most = p->m->cap - N_OUT;
    const uint32_t lens[N_REQUESTS] = { 1, 17, most < 64 ? most : 64, 5, most, 2, 16, 33 };

    for (int i = 0; i < N_REQUESTS; i++) {
        r[i] = (ew_request)EW_REQUEST_INIT;
        r[i].prompt_ids = p->ids + i % 3;
        r[i].n_prompt_ids = lens[i] < most ? lens[i] : most;
        r[i].ignore_eos = true;
        r[i].max_tokens = N_OUT - (uint32_t)i % 3;
        r[i].save_prefix = true;
        r[i].sampling.greedy = true;
        r[i].sampling.num_logprobs = wants_lead ? 2 : 0;
    }
}

/* The same tokens, or others from a near tie on. */
static void compare_rows(struct pair *p, const char *what, const ew_response *want,
                         const ew_response *got)
{
    for (int i = 0; i < N_REQUESTS; i++) {
        uint32_t at = 0;
        char text[128];

        if (got[i].status || want[i].status) {
            fail(p, what, got[i].status ? got[i].error : want[i].error);
            continue;
        }
        while (at < want[i].n_ids && at < got[i].n_ids && want[i].ids[at] == got[i].ids[at])
            at++;
        if (at == want[i].n_ids || p->m->routes)
            continue;
        if (got[i].n_ids == want[i].n_ids &&
            want[i].logprobs[at * 3 + 1].logprob - want[i].logprobs[at * 3 + 2].logprob < NEAR_TIE)
            continue;
        (void)snprintf(text, sizeof(text), "token %u of request %d (%u of %u tokens) is another",
                       at, i, got[i].n_ids, want[i].n_ids);
        fail(p, what, text);
    }
}

static void rows(struct pair *p)
{
    ew_request r[N_REQUESTS];
    ew_response want[N_REQUESTS] = { 0 };
    ew_error err = { 0 };
    uint64_t reused = 0;

    make_requests(p, r, true);
    if (ew_runtime_handle_request(p->cpu, r, N_REQUESTS, want, &err)) {
        fail(p, "rows on the CPU", err.text);
        return;
    }
    make_requests(p, r, false);
    for (int again = 0; again < 2; again++) { /* the second time on prefixes that were kept */
        ew_response got[N_REQUESTS] = { 0 };

        if (ew_runtime_handle_request(p->gpu, r, N_REQUESTS, got, &err))
            fail(p, "rows", err.text);
        else
            compare_rows(p, again ? "rows on prefixes" : "rows", want, got);
        for (int i = 0; i < N_REQUESTS; i++) {
            reused += again ? got[i].n_reused : 0;
            ew_response_release(&got[i]);
        }
    }
    if (!reused)
        fail(p, "rows on prefixes", "no prefix was taken");
    for (int i = 0; i < N_REQUESTS; i++)
        ew_response_release(&want[i]);
}

/* ---- contexts in threads ---- */

#define N_LANES 3
#define N_STEPS 12

struct walker {
    struct pair *p;
    struct ew_lane *lane;
    uint32_t prompt;
    float *logits; /* [1 + N_STEPS][vocab] */
    ew_error err;
};

/* A prompt, then single tokens. */
static void walk(void *ctx)
{
    struct walker *w = ctx;

    for (uint32_t i = 0; i <= N_STEPS; i++) {
        const uint32_t n = i ? 1 : w->prompt;
        const int32_t *ids = w->p->ids + (i ? w->prompt + i - 1 : 0);
        const struct ew_lane_step step = { .n_rows = 1, .ids = &ids, .n = &n, .n_select = 1 };

        if (ew_lane_run(w->lane, &step, &w->err))
            return;
        memcpy(w->logits + (size_t)i * w->p->vocab, ew_lane_logits(w->lane, 0, 0),
               w->p->vocab * sizeof(float));
    }
}

static bool open_lanes(struct pair *p, struct walker w[2 * N_LANES])
{
    ew_error err = { 0 };

    for (int i = 0; i < 2 * N_LANES; i++) {
        w[i].p = p;
        w[i].prompt = p->m->in / (uint32_t)(1 + i % N_LANES);
        if (w[i].prompt + N_STEPS > p->m->cap)
            w[i].prompt = p->m->cap - N_STEPS;
        w[i].logits = xalloc((size_t)(1 + N_STEPS) * p->vocab, sizeof(float));
        if (ew_lane_create(p->gpu->engine, &p->gpu->config, 1, 0, &w[i].lane, &err)) {
            fail(p, "a context", err.text);
            return false;
        }
    }
    return true;
}

/* Contexts of one engine at once give the bits of one after the other. */
static void contexts(struct pair *p)
{
    struct walker w[2 * N_LANES] = { 0 };
    struct ew_thread *threads[N_LANES] = { 0 };
    ew_error err = { 0 };

    if (open_lanes(p, w)) {
        for (int i = 0; i < N_LANES; i++)
            walk(&w[i]);
        for (int i = 0; i < N_LANES; i++)
            if (ew_thread_create(&threads[i], walk, &w[N_LANES + i], &err))
                fail(p, "a thread", err.text);
        for (int i = 0; i < N_LANES; i++)
            if (threads[i])
                ew_thread_join(threads[i]);
        for (int i = 0; i < N_LANES; i++) {
            if (w[i].err.status || w[N_LANES + i].err.status)
                fail(p, "a context", w[w[i].err.status ? i : N_LANES + i].err.text);
            else if (memcmp(w[i].logits, w[N_LANES + i].logits,
                            (size_t)(1 + N_STEPS) * p->vocab * sizeof(float)) != 0)
                fail(p, "contexts in threads", "other bits than one after the other");
        }
    }
    for (int i = 0; i < 2 * N_LANES; i++) {
        ew_lane_destroy(w[i].lane);
        free(w[i].logits);
    }
}

/* ---- a model ---- */

static void drop(const char *dir)
{
    static const char *const parts[] = { "plain", "short", "cpu", "gpu" };
    char path[PATH_CAP];

    for (size_t i = 0; i < EW_COUNT(parts); i++)
        if (ew_path_join(path, sizeof(path), dir, parts[i]))
            ew_dir_remove(path);
    ew_dir_remove(dir);
}

static ew_status make_checkpoint(const struct cm_model *m, const char *dir, char out[PATH_CAP],
                                 ew_error *err)
{
    char config[PATH_CAP], plain[PATH_CAP];
    ew_quantize_opts q = EW_QUANTIZE_OPTS_INIT;

    drop(dir);
    EW_TRY(ew_dir_make(dir, err));
    if (!ew_path_join(config, sizeof(config), dir, "in.json") ||
        !ew_path_join(plain, sizeof(plain), dir, "plain") ||
        !ew_path_join(out, PATH_CAP, dir, m->scheme ? "short" : "plain"))
        return ew_fail(err, EW_STATUS_LIMIT, "%s is too long", dir);
    EW_TRY(ew_file_write(config, m->config, strlen(m->config), err));
    EW_TRY(ew_checkpoint_synth(config, plain, 1, NULL, err));
    if (!m->scheme)
        return EW_STATUS_OK;
    q.scheme = m->scheme;
    q.method = m->method;
    q.group = m->group;
    q.asymmetric = m->asymmetric;
    q.n_threads = 1;
    return ew_quantize(plain, out, &q, NULL, err);
}

static ew_status open_on(struct pair *p, const char *checkpoint, const char *dir, bool gpu,
                         ew_runtime **out, ew_error *err)
{
    ew_build_opts b = EW_BUILD_OPTS_INIT;
    ew_runtime_opts ro = EW_RUNTIME_OPTS_INIT;
    char engine[PATH_CAP];

    if (!ew_path_join(engine, sizeof(engine), dir, gpu ? "gpu" : "cpu"))
        return ew_fail(err, EW_STATUS_LIMIT, "%s is too long", dir);
    b.flags = EW_BUILD_NO_TIMING | EW_BUILD_ALL_LOGITS;
    b.device = gpu ? p->o->device : NULL;
    b.tactic = gpu && strncmp(p->o->device, "cuda", 4) == 0 ? p->m->tactic : NULL;
    b.kv_dtype = p->m->kv == EW_DTYPE_NONE ? EW_DTYPE_F16 : p->m->kv;
    b.kernel_cache = p->o->kernels;
    b.max_batch = N_ROWS;
    b.max_kv_len = p->m->cap;
    b.max_input_len = p->m->in;
    b.n_threads = ro.n_threads = p->o->n_threads;
    EW_TRY(ew_model_build(checkpoint, engine, &b, false, err));
    ro.device = b.device;
    return ew_runtime_open(engine, &ro, out, err);
}

static void run(struct pair *p, const char *dir)
{
    char checkpoint[PATH_CAP];
    ew_model_info info;
    ew_error err = { 0 };
    uint32_t seed = 12345;

    if (make_checkpoint(p->m, dir, checkpoint, &err) ||
        open_on(p, checkpoint, dir, false, &p->cpu, &err) ||
        open_on(p, checkpoint, dir, true, &p->gpu, &err)) {
        fail(p, "making it", err.text);
        return;
    }
    ew_runtime_get_model(p->cpu, &info);
    p->vocab = info.vocab;
    p->ids = xalloc(p->m->cap, sizeof(*p->ids));
    p->want = xalloc((size_t)p->m->cap * p->vocab, sizeof(float));
    p->got = xalloc((size_t)p->m->cap * p->vocab, sizeof(float));
    for (uint32_t i = 0; i < p->m->cap; i++) {
        seed = seed * 1664525u + 1013904223u;
        p->ids[i] = (int32_t)((seed >> 8) % p->vocab);
    }
    sequence(p);
    if (p->m->each)
        each_length(p);
    rows(p);
    contexts(p);
}

static bool check(const struct cm_model *m, const struct options *o)
{
    struct pair p = { .m = m, .o = o };
    const uint64_t begin = ew_clock_ns();
    char dir[PATH_CAP];

    (void)snprintf(dir, sizeof(dir), "%s/%u", o->dir, (unsigned)(m - cm_models));
    run(&p, dir);
    printf("%-34s %-6s  KL %.2e  error %.2e  to other experts %u  %.1f s\n", m->name,
           p.failed ? "FAILED" : "good", p.kl, p.error, p.n_routed,
           (double)(ew_clock_ns() - begin) / 1e9);
    (void)fflush(stdout);
    ew_runtime_destroy(p.cpu);
    ew_runtime_destroy(p.gpu);
    free(p.ids);
    free(p.want);
    free(p.got);
    drop(dir);
    return !p.failed;
}

static bool parse(int argc, char **argv, struct options *o)
{
    for (int i = 1; i < argc; i++) {
        const char *at = argv[i], *v = i + 1 < argc ? argv[i + 1] : NULL;

        if (strcmp(at, "--list") == 0)
            o->list = true;
        else if (!v)
            return false;
        else if (strcmp(at, "--device") == 0)
            o->device = argv[++i];
        else if (strcmp(at, "--dir") == 0)
            o->dir = argv[++i];
        else if (strcmp(at, "--filter") == 0)
            o->filter = argv[++i];
        else if (strcmp(at, "--kernel-cache") == 0)
            o->kernels = argv[++i];
        else if (strcmp(at, "--threads") == 0)
            o->n_threads = (unsigned)strtoul(argv[++i], NULL, 10);
        else if (strcmp(at, "--part") == 0) {
            char *end;

            o->part = (unsigned)strtoul(argv[++i], &end, 10);
            if (*end != '/')
                return false;
            o->n_parts = (unsigned)strtoul(end + 1, &end, 10);
            if (*end || o->part >= o->n_parts)
                return false;
        } else {
            return false;
        }
    }
    return true;
}

/* A GPU and a compiler are there: else nothing is checked. */
static bool has_device(const struct options *o)
{
    struct ew_cuda *c = NULL;
    ew_error err = { 0 };
    int index = 0;

    if (strncmp(o->device, "cuda", 4) != 0)
        return true;
    if (o->device[4] == ':')
        index = (int)strtol(o->device + 5, NULL, 10);
    if (ew_cuda_bare(index, true, &c, &err)) {
        printf("checkmodel: %s\n", err.text);
        return false;
    }
    ew_cuda_close(c);
    return true;
}

int main(int argc, char **argv)
{
    struct options o = { .device = "cuda:0", .dir = "checkmodel.tmp", .n_threads = 2 };
    unsigned n = 0, n_failed = 0, n_wanted = 0;
    ew_error err = { 0 };

    if (!parse(argc, argv, &o)) {
        (void)fprintf(stderr, "usage: checkmodel [--device cuda:N] [--dir DIR] [--filter TEXT] "
                              "[--part I/N] [--threads N] [--kernel-cache DIR] [--list]\n");
        return 2;
    }
    if (!o.list && ew_dir_make(o.dir, &err)) {
        printf("checkmodel: %s\n", err.text);
        return 1;
    }
    if (!o.list && !has_device(&o))
        return NO_DEVICE;
    for (size_t i = 0; i < cm_n_models; i++) {
        if (o.filter && !strstr(cm_models[i].name, o.filter))
            continue;
        if (o.n_parts && n_wanted++ % o.n_parts != o.part)
            continue;
        n++;
        if (o.list)
            printf("%s\n", cm_models[i].name);
        else
            n_failed += !check(&cm_models[i], &o);
    }
    if (!o.list)
        printf("checkmodel: %u models, %u failed\n", n, n_failed);
    return n_failed ? 1 : 0;
}

/* case.c - one case: its memory, its launches, its verdict. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "state.h"

#define RNG_STEP 0x9e3779b97f4a7c15u

const struct ew_cuda_chip *cc_chip(const struct cc *c)
{
    return &c->chip;
}

bool cc_has_values(const struct cc *c)
{
    return c->mode == CC_RUN;
}

bool cc_is_bench(const struct cc *c)
{
    return c->bench;
}

static bool is_chosen(const struct cc *c)
{
    for (size_t i = 0; i < c->n_chosen; i++)
        if (strcmp(c->chosen[i], c->name) == 0)
            return true;
    return false;
}

bool cc_begin(struct cc *c, const char *fmt, ...)
{
    va_list args;
    int at = snprintf(c->name, sizeof(c->name), "%s/", c->family->name);

    va_start(args, fmt);
    (void)vsnprintf(c->name + at, sizeof(c->name) - (size_t)at, fmt, args);
    va_end(args);
    if (c->filter && !strstr(c->name, c->filter))
        return false;
    if (c->chosen && !is_chosen(c))
        return false;
    if (c->n_parts && c->n_wanted++ % c->n_parts != c->part)
        return false;
    if (c->mode == CC_LIST) {
        printf("%s\n", c->name);
        return false;
    }
    c->rng = RNG_STEP;
    for (const char *p = c->name; *p; p++)
        c->rng = (c->rng ^ (uint64_t)(unsigned char)*p) * 0x100000001b3u;
    c->failed = false;
    c->next_address = 1u << 20;
    return true;
}

void cc_end(struct cc *c)
{
    for (size_t i = 0; i < c->n_buffers; i++) {
        ew_cuda_free(c->device, c->buffers[i].base);
        free(c->buffers[i].host);
    }
    c->n_buffers = 0;
    if (c->mode != CC_RUN)
        return;
    c->n_cases++;
    c->n_family_cases++;
    c->n_failures += c->failed;
    c->n_family_failures += c->failed;
    if (c->verbose) {
        printf("%s %s\n", c->failed ? "bad " : "good", c->name);
        (void)fflush(stdout);
    }
}

uint64_t cc_rand(struct cc *c)
{
    uint64_t z = (c->rng += RNG_STEP);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

size_t cc_range(struct cc *c, size_t lo, size_t hi)
{
    return lo + (size_t)(cc_rand(c) % (hi - lo + 1));
}

float cc_normal(struct cc *c)
{
    const uint64_t r = cc_rand(c);
    double sum = 0;

    for (int i = 0; i < 4; i++)
        sum += (double)(r >> (16 * i) & 0xffff) / 65535.0 - 0.5;
    return (float)(sum * 1.7320508);
}

void cc_fill_normal(struct cc *c, float *p, size_t n, float scale)
{
    if (!cc_has_values(c)) { /* what is drawn behind them stays what it is */
        c->rng += n * RNG_STEP;
        memset(p, 0, n * sizeof(*p));
        return;
    }
    for (size_t i = 0; i < n; i++)
        p[i] = cc_normal(c) * scale;
}

void cc_fail(struct cc *c, const char *fmt, ...)
{
    va_list args;

    c->failed = true;
    printf("FAIL %s: ", c->name);
    va_start(args, fmt);
    (void)vprintf(fmt, args);
    va_end(args);
    printf("\n");
    (void)fflush(stdout);
}

static struct cc_buffer *new_buffer(struct cc *c, size_t bytes)
{
    struct cc_buffer *b;

    if (c->n_buffers == c->cap_buffers) {
        c->cap_buffers = c->cap_buffers ? c->cap_buffers * 2 : 16;
        c->buffers = realloc(c->buffers, c->cap_buffers * sizeof(*c->buffers));
        if (!c->buffers)
            abort();
    }
    b = &c->buffers[c->n_buffers++];
    memset(b, 0, sizeof(*b));
    b->bytes = bytes;
    b->address = c->next_address;
    c->next_address += (bytes + 4095) / 4096 * 4096 + 4096;
    return b;
}

/* Device memory of a buffer, with canaries, filled with `fill`. */
static void place(struct cc *c, struct cc_buffer *b, uint8_t fill)
{
    ew_error err = { 0 };
    ew_status st = ew_cuda_alloc(c->device, b->bytes + 2 * CC_CANARY, c->name, &b->base, &err);

    if (!st) {
        b->address = b->base + CC_CANARY;
        st = ew_cuda_queue_fill(&c->queue, b->base, 0xa5, b->bytes + 2 * CC_CANARY, &err);
    }
    if (!st && b->bytes)
        st = ew_cuda_queue_fill(&c->queue, b->address, fill, b->bytes, &err);
    if (st)
        cc_fail(c, "%s", err.text);
}

uint64_t cc_input(struct cc *c, const void *host, size_t bytes)
{
    struct cc_buffer *b = new_buffer(c, bytes);
    ew_error err = { 0 };

    b->is_input = true;
    if (c->mode != CC_RUN)
        return b->address;
    place(c, b, 0);
    if (bytes && b->base &&
        (ew_cuda_queue_upload(&c->queue, b->address, host, bytes, &err) ||
         ew_cuda_queue_wait(&c->queue, &err)))
        cc_fail(c, "%s", err.text);
    return b->address;
}

uint64_t cc_output(struct cc *c, size_t bytes)
{
    struct cc_buffer *b = new_buffer(c, bytes);

    if (c->mode == CC_RUN)
        place(c, b, 0xff);
    return b->address;
}

uint64_t cc_zeroed(struct cc *c, size_t bytes)
{
    struct cc_buffer *b = new_buffer(c, bytes);

    if (c->mode == CC_RUN)
        place(c, b, 0);
    return b->address;
}

const void *cc_download(struct cc *c, uint64_t address)
{
    struct cc_buffer *b = NULL;
    ew_error err = { 0 };
    size_t total;

    for (size_t i = 0; i < c->n_buffers; i++)
        if (c->buffers[i].address == address)
            b = &c->buffers[i];
    if (!b) {
        cc_fail(c, "cc_download of what no cc_ function gave");
        abort();
    }
    total = b->bytes + 2 * CC_CANARY;
    free(b->host);
    b->host = calloc(1, total);
    if (!b->host)
        abort();
    if (!b->base || ew_cuda_queue_download(&c->queue, b->host, b->base, total, &err) ||
        ew_cuda_queue_wait(&c->queue, &err)) {
        cc_fail(c, "download: %s", err.text);
        return b->host + CC_CANARY;
    }
    for (size_t i = 0; i < CC_CANARY; i++)
        if (b->host[i] != 0xa5 || b->host[total - 1 - i] != 0xa5) {
            cc_fail(c, "a buffer of %zu bytes was written outside", b->bytes);
            break;
        }
    return b->host + CC_CANARY;
}

/* What a case costs, near enough: tools count memory accesses. */
static size_t bytes_of_case(const struct cc *c)
{
    size_t bytes = 0;

    for (size_t i = 0; i < c->n_buffers; i++)
        bytes += c->buffers[i].bytes;
    return bytes;
}

static void gather(struct cc *c, const struct ew_cuda_spec *s)
{
    const size_t bytes = bytes_of_case(c);

    if (!s->source) /* a library's product */
        return;
    for (size_t i = 0; i < c->n_specs; i++) {
        struct cc_spec *const known = &c->specs[i];

        if (known->sm != c->chip.sm || strcmp(known->spec.source, s->source) != 0 ||
            (c->one_each ? strcmp(known->spec.entry, s->entry) != 0
                         : strcmp(known->spec.defines, s->defines) != 0))
            continue;
        if (bytes < known->case_bytes) {
            known->case_bytes = bytes;
            memcpy(known->first_case, c->name, sizeof(c->name));
        }
        return;
    }
    if (c->n_specs == c->cap_specs) {
        c->cap_specs = c->cap_specs ? c->cap_specs * 2 : 64;
        c->specs = realloc(c->specs, c->cap_specs * sizeof(*c->specs));
        if (!c->specs)
            abort();
    }
    c->specs[c->n_specs].spec = *s;
    c->specs[c->n_specs].sm = c->chip.sm;
    c->specs[c->n_specs].case_bytes = bytes;
    memcpy(c->specs[c->n_specs++].first_case, c->name, sizeof(c->name));
}

bool cc_launch(struct cc *c, const struct ew_cuda_launch *l, size_t n)
{
    ew_error err = { 0 };
    ew_cu_function f;
    ew_status st = EW_STATUS_OK;

    if (c->mode == CC_GATHER) {
        for (size_t i = 0; i < n; i++)
            gather(c, &l[i].spec);
        return false;
    }
    if (c->mode != CC_RUN || c->failed)
        return false;
    for (size_t i = 0; i < n && !st; i++) {
        st = ew_cuda_modules_get(c->modules, &l[i], &f, &err);
        if (!st)
            st = ew_cuda_queue_launch(&c->queue, f, &l[i], l[i].spec.entry, &err);
    }
    if (!st)
        st = ew_cuda_queue_wait(&c->queue, &err);
    if (st)
        cc_fail(c, "%s", err.text);
    return !st;
}

void cc_bench(struct cc *c, const struct ew_cuda_launch *l, size_t n, double bytes, double flops)
{
    if (c->mode == CC_GATHER)
        for (size_t i = 0; i < n; i++)
            gather(c, &l[i].spec);
    if (c->mode == CC_RUN && c->bench && !c->failed)
        cc_bench_run(c, l, n, bytes, flops);
}

/* One number against its bound. False: it is too far. */
static bool fits(struct cc *c, float got, float want, double bound)
{
    const double d = fabs((double)got - (double)want);

    if (isnan(want) || isnan(got))
        return isnan(want) && isnan(got);
    if (isinf(want) || isinf(got))
        return want == got;
    if (bound > 0 && d / bound > c->worst)
        c->worst = d / bound;
    return d <= bound;
}

static void say(struct cc *c, const char *what, size_t n_bad, size_t n, size_t first, float got,
                float want, double bound)
{
    cc_fail(c, "%s: %zu of %zu are wrong, first [%zu] = %g, not %g (allowed %g off)", what, n_bad,
            n, first, (double)got, (double)want, bound);
}

void cc_near(struct cc *c, const char *what, const float *got, const float *want, size_t n,
             double abs_tolerance, double rel_tolerance)
{
    size_t bad = 0, first = 0;

    for (size_t i = 0; i < n; i++)
        if (!fits(c, got[i], want[i], abs_tolerance + rel_tolerance * fabs((double)want[i])) &&
            !bad++)
            first = i;
    if (bad)
        say(c, what, bad, n, first, got[first], want[first],
            abs_tolerance + rel_tolerance * fabs((double)want[first]));
}

void cc_within(struct cc *c, const char *what, const float *got, const float *want,
               const float *bound, size_t n)
{
    size_t bad = 0, first = 0;

    for (size_t i = 0; i < n; i++)
        if (!fits(c, got[i], want[i], (double)bound[i]) && !bad++)
            first = i;
    if (bad)
        say(c, what, bad, n, first, got[first], want[first], (double)bound[first]);
}

void cc_equal(struct cc *c, const char *what, const void *got, const void *want, size_t bytes)
{
    const uint8_t *g = got, *w = want;

    for (size_t i = 0; i < bytes; i++)
        if (g[i] != w[i]) {
            cc_fail(c, "%s: byte %zu of %zu is 0x%02x, not 0x%02x", what, i, bytes, g[i], w[i]);
            return;
        }
}

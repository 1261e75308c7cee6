/* bench_curve.c - what a step of M rows costs against a step of one: M requests decoded together,
 * and M tokens of one request as speculative decoding verifies them: with the likeliest token after
 * each, and with the logits of all. */
#include "bench_cmd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIN_STEPS 4u

/* One point: seconds of a step in each run. */
struct point {
    double s[64];
    uint32_t n;
};

typedef int (*time_fn)(struct bench *b, uint32_t m, double *seconds);

static double median(const struct point *p)
{
    return p->s[p->n / 2];
}

/* Fewer steps of more rows: the same work at each point. */
static uint32_t n_steps(const struct bench *b, uint32_t m)
{
    return b->n_gen / m > MIN_STEPS ? b->n_gen / m : MIN_STEPS;
}

static int time_decode(struct bench *b, uint32_t m, double *seconds)
{
    ew_runtime_stats s;
    double ttft;
    const int code = bench_run(b, m, b->m_length, n_steps(b, m) + 1, &s, &ttft);

    if (!code)
        *seconds = 1e-9 * (double)s.decode_ns / (double)s.decode_steps;
    return code;
}

/* What a pass over M tokens leaves: one of the two. */
struct results {
    float *logits;
    int32_t *tokens;
};

static ew_status pass(struct bench *b, const int32_t *ids, uint32_t m, const struct results *r,
                      ew_error *err)
{
    return r->tokens ? ew_runtime_forward_tokens(b->rt, 0, ids, m, 0, r->tokens, m, err)
                     : ew_runtime_forward(b->rt, 0, ids, m, 0, r->logits, m, err);
}

/* The runtime's own clock: the copy of the results to the caller is not part of a step. */
static ew_status verify_once(struct bench *b, uint32_t m, const int32_t *ids,
                             const struct results *r, double *seconds, ew_error *err)
{
    const uint32_t steps = n_steps(b, m);
    ew_runtime_stats before, after;

    for (uint32_t i = 0; i <= steps; i++) { /* the first makes the shape known */
        if (i == 1)
            ew_runtime_get_stats(b->rt, &before);
        ew_status st = ew_runtime_rewind(b->rt, 0, b->m_length, err);
        if (!st)
            st = pass(b, ids, m, r, err);
        if (st)
            return st;
    }
    ew_runtime_get_stats(b->rt, &after);
    *seconds = 1e-9 * (double)(after.forward_ns - before.forward_ns) / steps;
    return EW_STATUS_OK;
}

static int time_passes(struct bench *b, uint32_t m, const struct results *r, double *seconds)
{
    int32_t *const ids = bench_ids(b->m_length + m, b->model.vocab);
    ew_error err = { EW_STATUS_OK, "" };
    int code = EXIT_FINE;

    if (!ids || (!r->logits && !r->tokens))
        code = cli_fail_text("out of memory");
    else if (ew_runtime_rewind(b->rt, 0, 0, &err) ||
             ew_runtime_forward(b->rt, 0, ids, b->m_length, 0, NULL, 0, &err) ||
             verify_once(b, m, ids + b->m_length, r, seconds, &err) ||
             ew_runtime_rewind(b->rt, 0, 0, &err))
        code = cli_fail(&err);
    free(ids);
    return code;
}

static int time_tokens(struct bench *b, uint32_t m, double *seconds)
{
    const struct results r = { .tokens = malloc(m * sizeof(*r.tokens)) };
    const int code = time_passes(b, m, &r, seconds);

    free(r.tokens);
    return code;
}

static int time_logits(struct bench *b, uint32_t m, double *seconds)
{
    const struct results r = { .logits = malloc((size_t)m * b->model.vocab * sizeof(*r.logits)) };
    const int code = time_passes(b, m, &r, seconds);

    free(r.logits);
    return code;
}

static json_t *point_json(const struct bench *b, uint32_t m, const struct point *p, double one)
{
    const struct bench_rate rate = { (double)b->model.step_bytes / median(p),
                                     2.0 * (double)b->model.step_macs * m / median(p), 0 };
    json_t *const v =
        json_pack("{s:I, s:f, s:f, s:f, s:f, s:f}", "rows", (json_int_t)m, "cost", median(p) / one,
                  "step_ms", 1e3 * median(p), "min_step_ms", 1e3 * p->s[0], "max_step_ms",
                  1e3 * p->s[p->n - 1], "tokens_per_s", m / median(p));

    bench_rate_json(b, &rate, v);
    if (!b->json_out) {
        char text[160];

        bench_rate_text(b, &rate, text, sizeof(text));
        printf("  %4u %10.3f %8.3f %10.1f   %s\n", m, 1e3 * median(p), median(p) / one,
               m / median(p), text);
        fflush(stdout);
    }
    return v;
}

/* m[0] is 1: what the others are measured against. Runs alternate over the counts, so that a
 * machine that slows down slows all of them; the first of each makes its shape known (on a GPU a
 * graph is captured: of few steps that would be most of the time) and does not count. Counts that
 * the engine does not take are left out. */
static int curve_of(struct bench *b, const char *title, time_fn run, uint32_t most, json_t *to)
{
    const ew_progress progress = cli_progress();
    struct point points[BENCH_MAX_LIST + 1] = { 0 };
    uint32_t n = 0, n_runs;

    while (n < b->n_m && b->m[n] <= most)
        n++;
    n_runs = (b->n_reps + 1) * n;
    for (uint32_t i = 0; i < n_runs; i++) {
        struct point *const p = &points[i % n];
        double seconds;
        const int code = run(b, b->m[i % n], &seconds);

        if (code)
            return code;
        if (i >= n)
            p->s[p->n++] = seconds;
        progress.step(progress.ctx, title, i + 1, n_runs);
    }
    cli_progress_end();
    if (!b->json_out)
        printf("%s, context %u\n  %4s %10s %8s %10s\n", title, b->m_length, "M", "ms/step", "cost",
               "tok/s");
    for (uint32_t i = 0; i < n; i++)
        bench_sort(points[i].s, points[i].n);
    for (uint32_t i = 0; i < n; i++)
        json_array_append_new(to, point_json(b, b->m[i], &points[i], median(&points[0])));
    if (!b->json_out && n < b->n_m)
        printf("  %u rows and more are left out: the engine takes %u\n", b->m[n], most);
    return EXIT_FINE;
}

int bench_curve(struct bench *b)
{
    json_t *const decode = json_array(), *const verify = json_array(), *const logits = json_array();
    const uint32_t most = b->model.all_logits ? b->model.max_input_len : 1;
    int code;

    json_decref(b->curve);
    b->curve = json_pack("{s:I, s:o, s:o, s:o}", "length", (json_int_t)b->m_length, "decode",
                         decode, "verify", verify, "verify_logits", logits);
    code = curve_of(b, "a step of M rows", time_decode, b->model.max_batch, decode);
    if (!code)
        code =
            curve_of(b, "M tokens of one row, likeliest token of each", time_tokens, most, verify);
    if (!code)
        code = curve_of(b, "M tokens of one row, logits of each", time_logits, most, logits);
    return code;
}

/* runtime/profile.c - what the runtime measured, as JSON in the reference system's shape, with our
 * own keys beside it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "os/os.h"
#include "runtime/rt.h"

void ew_runtime_get_stats(const ew_runtime *rt, ew_runtime_stats *out)
{
    ew_context_stats c;

    *out = rt->stats;
    ew_context_get_stats(rt->lane->ctx, &c);
    out->captures = c.n_captures;
    out->replays = c.n_replays;
}

static void put_real(json_t *o, const char *key, double v)
{
    json_object_set_new(o, key, json_real(isfinite(v) ? v : 0));
}

static void put_count(json_t *o, const char *key, uint64_t v)
{
    json_object_set_new(o, key, json_integer((json_int_t)v));
}

static double per(double a, uint64_t n)
{
    return n > 0 ? a / (double)n : 0;
}

static int compare_reals(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Value below which q of the sorted samples lie, interpolated. */
static double quantile(const double *v, size_t n, double q)
{
    const double at = q * (double)(n - 1);
    const size_t i = (size_t)at;

    return i + 1 < n ? v[i] + (v[i + 1] - v[i]) * (at - (double)i) : v[n - 1];
}

static json_t *stage_json(const struct ew_stage *stage, double *sorted)
{
    const size_t n = stage->n_runs < EW_STAGE_SAMPLES ? (size_t)stage->n_runs : EW_STAGE_SAMPLES;
    json_t *o = json_object(), *stats = json_object();
    const double mean = per((double)stage->total_ns / 1e6, stage->n_runs);
    double var = 0;

    json_object_set_new(o, "stage_id", json_string(stage->id));
    put_count(o, "total_runs", stage->n_runs);
    put_real(o, "total_gpu_time_ms", (double)stage->total_ns / 1e6);
    put_real(o, "average_time_per_run_ms", mean);
    memcpy(sorted, stage->ms, n * sizeof(*sorted));
    qsort(sorted, n, sizeof(*sorted), compare_reals);
    for (size_t i = 0; i < n; i++)
        var += (sorted[i] - mean) * (sorted[i] - mean);
    put_count(stats, "count", stage->n_runs);
    put_real(stats, "min_ms", n ? sorted[0] : 0);
    put_real(stats, "max_ms", n ? sorted[n - 1] : 0);
    put_real(stats, "mean_ms", mean);
    put_real(stats, "median_ms", n ? quantile(sorted, n, 0.5) : 0);
    put_real(stats, "p95_ms", n ? quantile(sorted, n, 0.95) : 0);
    put_real(stats, "p99_ms", n ? quantile(sorted, n, 0.99) : 0);
    put_real(stats, "stddev_ms", n ? sqrt(var / (double)n) : 0);
    json_object_set_new(o, "gpu_time_stats", stats);
    return o;
}

static json_t *prefill_json(const struct ew_runtime *rt)
{
    const ew_runtime_stats *s = &rt->stats;
    const double ms = (double)s->prefill_ns / 1e6;
    json_t *o = json_object();

    put_count(o, "total_runs", s->prefill_runs);
    put_count(o, "reused_tokens", s->reused_tokens);
    put_count(o, "computed_tokens", s->prefill_tokens);
    put_real(o, "average_tokens_per_run", per((double)s->prefill_tokens, s->prefill_runs));
    put_real(o, "average_time_per_run_ms", per(ms, s->prefill_runs));
    put_real(o, "tokens_per_second", per(1e9 * (double)s->prefill_tokens, s->prefill_ns));
    put_real(o, "average_time_per_token_ms", per(ms, s->prefill_tokens));
    return o;
}

/* Without the first token of each row: prefill made that one. */
static json_t *generation_json(const struct ew_runtime *rt)
{
    const ew_runtime_stats *s = &rt->stats;
    json_t *o = json_object();

    put_count(o, "total_runs", rt->n_requests);
    put_count(o, "generated_tokens", rt->n_request_tokens);
    put_real(o, "average_tokens_per_run", per((double)rt->n_request_tokens, rt->n_requests));
    put_real(o, "tokens_per_second", per(1e9 * (double)s->decode_tokens, s->decode_ns));
    put_real(o, "average_time_per_token_ms", per((double)s->decode_ns / 1e6, s->decode_tokens));
    put_count(o, "steps", s->decode_steps);
    return o;
}

static json_t *host_json(const struct ew_runtime *rt)
{
    const ew_runtime_stats *s = &rt->stats;
    json_t *o = json_object();

    put_real(o, "load_ms", (double)s->load_ns / 1e6);
    put_real(o, "template_ms", (double)s->template_ns / 1e6);
    put_real(o, "tokenize_ms", (double)s->tokenize_ns / 1e6);
    put_real(o, "sample_ms", (double)s->sample_ns / 1e6);
    put_real(o, "detokenize_ms", (double)s->detokenize_ns / 1e6);
    return o;
}

/* Barriers of the last run are those of a decode step, when that was what ran last. */
static json_t *threads_json(const struct ew_runtime *rt)
{
    json_t *o = json_object();
    ew_context_stats s;

    ew_context_get_stats(rt->lane->ctx, &s);
    put_count(o, "threads", s.n_threads);
    put_count(o, "barriers", s.n_barriers);
    put_count(o, "barriers_last_run", s.n_last_barriers);
    put_count(o, "sleeps", s.n_sleeps);
    put_count(o, "stolen_ranges", s.n_stolen);
    return o;
}

/* Per-step table of the context; an empty list unless it profiles. */
static json_t *steps_json(const struct ew_runtime *rt)
{
    json_t *list = json_array();
    ew_step_profile p;

    for (uint32_t i = 0; ew_context_get_step(rt->lane->ctx, i, &p) == EW_STATUS_OK; i++) {
        json_t *o = json_object();

        json_object_set_new(o, "name", json_string(p.name));
        json_object_set_new(o, "op", json_string(p.op));
        json_object_set_new(o, "tactic", json_string(p.tactic ? p.tactic : ""));
        put_count(o, "runs", p.n_runs);
        put_real(o, "total_ms", (double)p.total_ns / 1e6);
        put_real(o, "mean_ms", per((double)p.total_ns / 1e6, p.n_runs));
        put_real(o, "min_ms", (double)p.min_ns / 1e6);
        put_real(o, "max_ms", (double)p.max_ns / 1e6);
        put_count(o, "bytes", p.bytes);
        put_count(o, "flops", p.flops);
        json_array_append_new(list, o);
    }
    return list;
}

static json_t *memory_json(const struct ew_runtime *rt)
{
    json_t *o = json_object();
    const char *name;
    uint64_t bytes;

    for (uint32_t i = 0; ew_memory_get(i, &name, &bytes); i++)
        put_count(o, name, bytes);
    put_count(o, "kv cache pages", rt->lane->kv->total_bytes); /* mapped; touched as rows grow */
    return o;
}

static int put_piece(const char *bytes, size_t len, void *buf)
{
    return ew_buf_append(buf, bytes, len) ? 0 : -1;
}

ew_status ew_runtime_profile_json(const ew_runtime *rt, char **json, ew_error *err)
{
    const uint64_t peak = ew_os_peak_rss_bytes();
    double *sorted = ew_mem_calloc(EW_MEM_RUNTIME, EW_STAGE_SAMPLES, sizeof(*sorted));
    json_t *o = json_object(), *stages = json_array();
    struct ew_buf text;
    bool ok;

    *json = NULL;
    ew_buf_init(&text, EW_MEM_RUNTIME, (size_t)256 << 20);
    for (int i = 0; sorted && i < EW_STAGE_COUNT; i++)
        json_array_append_new(stages, stage_json(&rt->stages[i], sorted));
    json_object_set_new(o, "prefill", prefill_json(rt));
    json_object_set_new(o, "generation", generation_json(rt));
    json_object_set_new(o, "stages", stages);
    put_count(o, "peak_unified_memory_bytes", peak);
    put_real(o, "peak_unified_memory_mb", (double)peak / 1048576);
    json_object_set_new(o, "host", host_json(rt));
    json_object_set_new(o, "memory", memory_json(rt));
    json_object_set_new(o, "threads", threads_json(rt));
    json_object_set_new(o, "steps", steps_json(rt));
    ok = sorted && json_dump_callback(o, put_piece, &text, JSON_INDENT(2)) == 0;
    json_decref(o);
    ew_mem_free(sorted);
    *json = ok ? ew_buf_take(&text) : NULL;
    ew_buf_deinit(&text);
    return *json ? EW_STATUS_OK : ew_fail(err, EW_STATUS_NO_MEMORY, "profile");
}

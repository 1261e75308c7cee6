/* build/tactics_time.c - timing one kernel on one problem, and the file that remembers it. Weights
 * are made up: a row of noise repeated (row stride 0), so that no page of the checkpoint is
 * touched. */
#include <stdio.h>

#include "build/build_impl.h"

#include "base/json.h"
#include "base/log.h"
#include "base/size.h"
#include "os/os.h"
#include "plan/codec.h"

#define WEIGHT_CAP                                                                                 \
    ((uint64_t)64 << 20) /* bytes of the representative: larger than caches, bounded */
#define FLOP_CAP  2e9    /* of one timed run */
#define CACHE_CAP ((size_t)16 << 20)

#define COLD_BYTES ((size_t)64 << 20) /* read before a timed run: no weight stays in caches */

struct ew_timing_cache {
    json_t *entries; /* key -> ns */
    uint8_t *cold;   /* COLD_BYTES, once something is timed with few rows */
};

ew_status ew_timing_cache_open(const char *path, const ew_logger *logger,
                               struct ew_timing_cache **out, ew_error *err)
{
    struct ew_timing_cache *tc = ew_mem_calloc(EW_MEM_BUILD, 1, sizeof(*tc));
    json_t *json = NULL;
    ew_error why = { 0 };

    *out = NULL;
    if (!tc)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "timing cache");
    if (path && ew_path_is_file(path)) {
        if (ew_json_load(path, CACHE_CAP, &json, &why) == EW_STATUS_OK)
            tc->entries = json_incref(json_object_get(json, "entries"));
        else /* a cache can always be made again */
            ew_log(logger, EW_LOG_WARN, "timing cache ignored: %s", why.text);
        json_decref(json);
    }
    if (!json_is_object(tc->entries)) {
        json_decref(tc->entries);
        tc->entries = json_object();
    }
    *out = tc;
    return tc->entries ? EW_STATUS_OK : ew_fail(err, EW_STATUS_NO_MEMORY, "timing cache");
}

ew_status ew_timing_cache_save(const struct ew_timing_cache *tc, const char *path, ew_error *err)
{
    json_t *json = json_pack("{s:i,s:O}", "version", 1, "entries", tc->entries);
    char *text = ew_plan_json_text(json, JSON_INDENT(1) | JSON_SORT_KEYS, EW_MEM_BUILD);
    ew_status st = text ? ew_file_write(path, text, strlen(text), err)
                        : ew_fail(err, EW_STATUS_NO_MEMORY, "timing cache");

    ew_mem_free(text);
    json_decref(json);
    return st;
}

void ew_timing_cache_close(struct ew_timing_cache *tc)
{
    if (!tc)
        return;
    json_decref(tc->entries);
    ew_mem_free_aligned(tc->cold);
    ew_mem_free(tc);
}

bool ew_timing_cache_get(const struct ew_timing_cache *tc, const char *key, uint64_t *ns)
{
    const json_t *hit = json_object_get(tc->entries, key);

    if (!json_is_integer(hit) || json_integer_value(hit) <= 0)
        return false;
    *ns = (uint64_t)json_integer_value(hit);
    return true;
}

bool ew_timing_cache_put(struct ew_timing_cache *tc, const char *key, uint64_t ns)
{
    return json_object_set_new(tc->entries, key, json_integer((json_int_t)ns)) == 0;
}

struct bench {
    const struct ew_linear_kernel *kernel;
    struct ew_linear_args a;
    struct ew_weight_part part;
    struct ew_quant_strided quant; /* one made-up row for all, when the weight is quantised */
    uint8_t *packed, *scratch, *pack_scratch, *prepared;
    size_t pack_stride;
    float *x, *y;
    uint16_t *row;
    const uint8_t *cold; /* NULL: weights may stay in caches */
    size_t stride, units;
    enum { BENCH_PACK, BENCH_COLD, BENCH_PREPARE, BENCH_RUN } phase;
};

/* A word of each line. */
static void bench_cool(const uint8_t *cold, unsigned i, unsigned n)
{
    volatile const uint8_t *const at = cold;
    size_t begin, end;

    ew_split_range(COLD_BYTES, 64, i, n, &begin, &end);
    for (size_t b = begin; b < end; b += 64)
        (void)at[b];
}

static void bench_body(void *arg, unsigned i, unsigned n)
{
    struct bench *t = arg;
    const struct ew_pack_args args = { .format = t->a.format,
                                       .parts = &t->part,
                                       .n_parts = 1,
                                       .n = t->a.n,
                                       .k = t->a.k,
                                       .glu = t->a.glu,
                                       .scratch = t->pack_scratch + i * t->pack_stride };
    size_t begin, end;

    if (t->phase == BENCH_COLD) {
        bench_cool(t->cold, i, n);
        return;
    }
    ew_split_range(t->phase == BENCH_PREPARE ? t->a.m : t->units, 1, i, n, &begin, &end);
    if (begin >= end)
        return;
    if (t->phase == BENCH_PACK)
        t->kernel->pack(t->packed, &args, begin, end);
    else if (t->phase == BENCH_PREPARE)
        t->kernel->prepare(&t->a, begin, end, t->prepared);
    else
        t->kernel->run(&t->a, begin, end, t->scratch + i * t->stride);
}

static void bench_free(struct bench *t)
{
    ew_mem_free_aligned(t->packed);
    ew_mem_free_aligned(t->scratch);
    ew_mem_free_aligned(t->pack_scratch);
    ew_mem_free_aligned(t->prepared);
    ew_mem_free(t->x);
    ew_mem_free(t->y);
    ew_mem_free(t->row);
}

/* The row of noise: bytes that are finite codes of any format, under scales of 1. */
static void bench_row(struct bench *t)
{
    const struct ew_quant_format *f = t->a.format;
    const size_t k = t->a.k, n = t->a.n;

    t->part = (struct ew_weight_part){ .data = t->row, .n_rows = n, .col_stride = 1 };
    if (!ew_quant_is(f)) {
        for (size_t i = 0; i < k; i++)
            ew_elem_set_f64(t->row, t->kernel->weight_dtype, i,
                            (double)((i * 2654435761u >> 7) % 1000) / 1000.0 - 0.5);
        return;
    }
    for (size_t i = 0; i < k; i++)
        ((uint8_t *)t->row)[i] = (uint8_t)((i * 2654435761u >> 9) & 0x77u);
    t->quant = (struct ew_quant_strided){
        .base = { .format = *f, .name = "timing", .n = n, .k = k }, .codes = t->row, .code_col = 1
    };
    ew_quant_strided_init(&t->quant);
    t->part = (struct ew_weight_part){ .n_rows = n, .quant = &t->quant.base };
}

static ew_status bench_make(struct ew_build *b, struct bench *t)
{
    const struct ew_quant_format *f = t->a.format;
    const size_t n = t->a.n, k = t->a.k, m = t->a.m;

    t->stride = ew_align_up(t->kernel->scratch_bytes(f, m, n, k), 128) + 128;
    t->pack_stride =
        t->kernel->pack_scratch_bytes ? ew_align_up(t->kernel->pack_scratch_bytes(f, k), 64) : 0;
    t->units = t->kernel->n_units(n, t->a.glu);
    t->packed = ew_mem_alloc_aligned(EW_MEM_BUILD, t->kernel->packed_bytes(f, n, k, t->a.glu), 64);
    t->pack_scratch =
        ew_mem_alloc_aligned(EW_MEM_BUILD, t->pack_stride * ew_pool_threads(b->pool) + 64, 64);
    t->scratch = ew_mem_alloc_aligned(EW_MEM_BUILD, t->stride * ew_pool_threads(b->pool), 128);
    t->prepared =
        ew_mem_alloc_aligned(EW_MEM_BUILD, ew_linear_prepared_bytes(t->kernel, f, m, k) + 64, 64);
    t->x = ew_mem_calloc(EW_MEM_BUILD, m * k, sizeof(float));
    t->y = ew_mem_calloc(EW_MEM_BUILD, m * n, sizeof(float));
    t->row = ew_mem_calloc(EW_MEM_BUILD, k, 8);
    if (!t->packed || !t->scratch || !t->pack_scratch || !t->prepared || !t->x || !t->y || !t->row)
        return ew_fail(b->err, EW_STATUS_NO_MEMORY, "timing of [%zu,%zu] at %zu rows", n, k, m);
    bench_row(t);
    for (size_t i = 0; i < m * k; i++)
        t->x[i] = (float)((i * 40503u >> 3) % 1000) / 1000.0f - 0.5f;
    t->a.x = t->x;
    t->a.x_stride = k;
    t->a.w = t->packed;
    t->a.y = t->y;
    t->a.y_stride = t->a.glu ? n / 2 : n;
    t->a.scale = 1.0f;
    t->a.prepared = t->prepared;
    t->phase = BENCH_PACK;
    ew_pool_run(b->pool, bench_body, t);
    return EW_STATUS_OK;
}

/* Few rows wait for weights to come from memory, as they do in a model, where all other weights
 * were read since; many find them in caches. */
static ew_status cold_make(struct ew_build *b, struct ew_timing_cache *tc, struct bench *t)
{
    if (t->a.m >= EW_TIME_MANY)
        return EW_STATUS_OK;
    if (!tc->cold) {
        tc->cold = ew_mem_alloc_aligned(EW_MEM_BUILD, COLD_BYTES, 64);
        if (!tc->cold)
            return ew_fail(b->err, EW_STATUS_NO_MEMORY, "timing: %zu bytes", COLD_BYTES);
        memset(tc->cold, 1, COLD_BYTES); /* pages of its own */
    }
    t->cold = tc->cold;
    return EW_STATUS_OK;
}

/* Best of a few runs; n was cut to keep it short, so the time is scaled back up. */
static ew_status measure(struct ew_build *b, struct ew_timing_cache *tc,
                         const struct ew_linear_kernel *kernel, const struct ew_plan_tactic *t,
                         uint64_t m, uint64_t *ns)
{
    const double row_bytes =
        (double)t->k * (ew_quant_is(&t->format)
                            ? ew_quant_bits(&t->format, (size_t)t->k) / 8.0
                            : (double)(ew_dtype_bits(kernel->weight_dtype) / 8));
    struct bench bench = { .kernel = kernel };
    uint64_t n = t->n, best = UINT64_MAX, spent = 0;
    ew_status st;

    if ((double)n * row_bytes > (double)WEIGHT_CAP)
        n = (uint64_t)((double)WEIGHT_CAP / row_bytes);
    if (2.0 * (double)m * (double)n * (double)t->k > FLOP_CAP)
        n = (uint64_t)(FLOP_CAP / (2.0 * (double)m * (double)t->k));
    n = n < 256 ? (t->n < 256 ? t->n : 256) : n < t->n ? n / 256 * 256 : n;
    bench.a =
        (struct ew_linear_args){ .m = (size_t)m, .n = (size_t)n, .k = (size_t)t->k, .glu = t->glu };
    bench.a.format = &t->format;
    bench.a.act = t->glu ? EW_ACT_SILU : EW_ACT_NONE;
    st = bench_make(b, &bench);
    if (!st)
        st = cold_make(b, tc, &bench);
    for (int run = 0; !st && run < 12 && (run < 3 || spent < 30000000u); run++) {
        uint64_t begin, took;

        bench.phase = BENCH_COLD;
        if (bench.cold)
            ew_pool_run(b->pool, bench_body, &bench);
        begin = ew_clock_ns();

        bench.phase = BENCH_PREPARE;
        if (kernel->prepare)
            ew_pool_run(b->pool, bench_body, &bench);
        bench.phase = BENCH_RUN;
        ew_pool_run(b->pool, bench_body, &bench);
        took = ew_clock_ns() - begin;
        spent += took;
        if (run > 0 && took < best) /* the first one warms up */
            best = took;
    }
    bench_free(&bench);
    *ns = st ? 0 : (uint64_t)((double)best * (double)t->n / (double)n) + 1;
    return st;
}

ew_status ew_time_linear(struct ew_build *b, struct ew_timing_cache *tc,
                         const struct ew_linear_kernel *kernel, const struct ew_plan_tactic *t,
                         uint64_t m, uint64_t *ns)
{
    char key[256];
    char format[64];

    ew_quant_format_text(&t->format, format, sizeof(format));
    snprintf(key, sizeof(key), "%s|%u threads|%s|%s|%llux%llu%s|m%llu%s", b->cpu.model,
             ew_pool_threads(b->pool), kernel->name, format, (unsigned long long)t->n,
             (unsigned long long)t->k, t->glu ? " glu" : "", (unsigned long long)m,
             m < EW_TIME_MANY ? " cold" : "");
    if (ew_timing_cache_get(tc, key, ns))
        return EW_STATUS_OK;
    EW_TRY(measure(b, tc, kernel, t, m, ns));
    if (!ew_timing_cache_put(tc, key, *ns))
        return ew_fail(b->err, EW_STATUS_NO_MEMORY, "timing cache");
    return EW_STATUS_OK;
}

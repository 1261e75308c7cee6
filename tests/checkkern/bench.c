/* bench.c - speeds of the kernels beside the machine's own ceilings, measured in the same run.
 * Figures of perf-log.md come from here: checkkern --bench [--filter TEXT] [--threads N]. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/pool.h"
#include "base/size.h"
#include "checkkern.h"
#include "kernels/attn_rules.h"
#include "kernels/linear.h"
#include "kernels/probe.h"
#include "kernels/rowops.h"
#include "os/os.h"

struct bench {
    struct ck *c;
    struct ew_pool *pool;
    double bandwidth, flops; /* ceilings */
};

struct linear_job {
    const struct ew_linear_kernel *kern;
    struct ew_linear_args a;
    size_t n_units, scratch_bytes;
    unsigned char *scratch, *prepared;
};

static void linear_pass(void *arg, unsigned i, unsigned n)
{
    struct linear_job *j = arg;
    size_t begin, end;

    ew_split_range(j->n_units, 1, i, n, &begin, &end);
    j->kern->run(&j->a, begin, end, j->scratch + i * j->scratch_bytes);
}

static void linear_prepare(void *arg, unsigned i, unsigned n)
{
    struct linear_job *j = arg;
    size_t begin, end;

    ew_split_range(j->a.m, 1, i, n, &begin, &end);
    if (begin < end)
        j->kern->prepare(&j->a, begin, end, j->prepared);
}

/* One thread is timed by its own clock, so that neighbours on the machine count less. */
static uint64_t clock_of(const struct bench *b)
{
    struct timespec t;

    if (ew_pool_threads(b->pool) > 1)
        return ew_clock_ns();
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Seconds of the fastest of some runs; before: a first part, or NULL. */
static double best_run(struct bench *b, ew_pool_fn *before, ew_pool_fn *fn, void *arg)
{
    const uint64_t start = ew_clock_ns();
    double best = 1e9;

    for (int i = 0; i < 3 || (i < 200 && ew_clock_ns() - start < 300000000u); i++) {
        const uint64_t t0 = clock_of(b);
        if (before)
            ew_pool_run(b->pool, before, arg);
        ew_pool_run(b->pool, fn, arg);
        best = fmin(best, (double)(clock_of(b) - t0) * 1e-9);
    }
    return best;
}

static double time_linear(struct bench *b, const struct ew_linear_kernel *kern,
                          const struct ew_quant_format *f, void *w, size_t m, const size_t nk[2])
{
    const unsigned n_threads = ew_pool_threads(b->pool);
    struct linear_job j = { .kern = kern };
    float *x = malloc(m * nk[1] * 4), *y = malloc(m * nk[0] * 4);

    ck_fill(b->c, x, m * nk[1], CK_NORMAL);
    j.a = (struct ew_linear_args){ .x = x,
                                   .x_stride = nk[1],
                                   .w = w,
                                   .format = f,
                                   .y = y,
                                   .y_stride = nk[0],
                                   .m = m,
                                   .n = nk[0],
                                   .k = nk[1],
                                   .scale = 1.0f };
    j.n_units = kern->n_units(nk[0], false);
    j.scratch_bytes = kern->scratch_bytes(f, m, nk[0], nk[1]) / 64 * 64 + 64;
    j.scratch = aligned_alloc(64, j.scratch_bytes * n_threads);
    j.prepared = aligned_alloc(64, ew_linear_prepared_bytes(kern, f, m, nk[1]) / 64 * 64 + 64);
    j.a.prepared = j.prepared;
    const double s = best_run(b, kern->prepare ? linear_prepare : NULL, linear_pass, &j);
    free(j.prepared);
    free(j.scratch);
    free(x);
    free(y);
    return s;
}

/* Codes, scales and zero points that any kernel can work on, from a table of random bytes. */
static void fill_rows(const struct ew_quant_source *s, size_t row, size_t n_rows,
                      const struct ew_quant_rows *out)
{
    const size_t groups = n_rows * ew_quant_groups(&s->format, s->k);
    const unsigned top = ew_quant_code_bits(s->format.code) == 4 ? 15 : 0x6f;

    for (size_t i = 0; i < n_rows * s->k; i++) {
        const uint8_t code = (uint8_t)((row * 31 + i * 2654435761u) >> 7 & top);
        out->codes[i] = s->format.code == EW_DTYPE_I4 ? (uint8_t)((code ^ 8u) - 8u) : code;
    }
    for (size_t i = 0; i < groups; i++) {
        out->scales[i] = 0.125f;
        out->zeros[i] = s->format.zero ? 7 : 0;
    }
    for (size_t i = 0; i < n_rows; i++)
        out->row_scale[i] = 0.5f;
}

static void fill_weight(struct bench *b, const struct ew_linear_kernel *kern,
                        const struct ew_quant_format *f, unsigned char *w, const size_t nk[2])
{
    const size_t bytes = kern->packed_bytes(f, nk[0], nk[1], false);

    if (!f) {
        for (size_t j = 0; j < bytes / 2; j++) { /* small floats of any format */
            const uint16_t h = (uint16_t)(0x3c00 + (ck_rand(b->c) & 0x83ff));
            memcpy(w + 2 * j, &h, 2);
        }
        return;
    }
    const struct ew_quant_source source = {
        .format = *f, .name = "bench", .n = nk[0], .k = nk[1], .read = fill_rows
    };
    const struct ew_weight_part part = { .n_rows = nk[0], .quant = &source };
    const struct ew_pack_args pack = { .format = f,
                                       .parts = &part,
                                       .n_parts = 1,
                                       .n = nk[0],
                                       .k = nk[1],
                                       .scratch = aligned_alloc(
                                           64, kern->pack_scratch_bytes(f, nk[1]) / 64 * 64 + 64) };
    kern->pack(w, &pack, 0, kern->n_units(nk[0], false));
    free(pack.scratch);
}

/* f: NULL for a kernel of plain weights. */
static void bench_linear(struct bench *b, const struct ew_linear_kernel *kern,
                         const struct ew_quant_format *f)
{
    static const size_t shapes[][2] = {
        { 151936, 1024 }, { 3072, 1024 }, { 6144, 1024 }, { 1024, 3072 }
    };
    static const size_t ms[] = { 1, 2, 4, 6, 8, 12, 16, 32, 64, 128, 512 };
    char text[64] = "";

    if (f)
        ew_quant_format_text(f, text, sizeof(text));
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        const size_t *nk = shapes[i], bytes = kern->packed_bytes(f, nk[0], nk[1], false);
        unsigned char *w = ew_os_pages_alloc(bytes, true);
        double one = 0;
        fill_weight(b, kern, f, w, nk);
        for (size_t j = 0; j < sizeof(ms) / sizeof(ms[0]); j++) {
            if (i == 0 && ms[j] > 16)
                break;
            const double s = time_linear(b, kern, f, w, ms[j], nk);
            const double flops = 2.0 * (double)(ms[j] * nk[0] * nk[1]) / s;
            one = j == 0 ? s : one;
            printf("%-26s %-17s n %6zu k %5zu m %4zu  %8.3f ms %6.1f GB/s (%3.0f%%) %7.1f GFLOP/s "
                   "(%3.0f%%)  cost %.2f\n",
                   kern->name, text, nk[0], nk[1], ms[j], s * 1e3, (double)bytes / s * 1e-9,
                   100 * (double)bytes / s / b->bandwidth, flops * 1e-9, 100 * flops / b->flops,
                   s / one);
        }
        ew_os_pages_free(w, bytes);
    }
}

/* Formats that checkpoints have. */
static void bench_quant(struct bench *b, const struct ew_linear_kernel *kern)
{
    static const struct ew_quant_format formats[] = {
        { EW_DTYPE_I4, EW_DTYPE_F16, 128, 0 },       { EW_DTYPE_U4, EW_DTYPE_F16, 128, 1 },
        { EW_DTYPE_I4, EW_DTYPE_F16, 32, 0 },        { EW_DTYPE_F4E2M1, EW_DTYPE_F8E4M3, 16, 0 },
        { EW_DTYPE_F4E2M1, EW_DTYPE_F8E8M0, 32, 0 }, { EW_DTYPE_I8, EW_DTYPE_NONE, 0, 0 },
        { EW_DTYPE_U8, EW_DTYPE_F16, 128, 1 },       { EW_DTYPE_F8E4M3, EW_DTYPE_NONE, 0, 0 },
        { EW_DTYPE_F8E4M3, EW_DTYPE_BF16, 128, 0 },
    };

    for (size_t i = 0; i < EW_COUNT(formats); i++)
        if (kern->takes(&formats[i], 1024))
            bench_linear(b, kern, &formats[i]);
}

struct attn_job {
    const struct ew_attn_kernel *kern;
    struct ew_attn_args a;
    size_t n_parts; /* 0: prep is not timed, run is */
    unsigned char *scratch;
    size_t scratch_bytes;
};

static void attn_pass(void *arg, unsigned i, unsigned n)
{
    struct attn_job *j = arg;
    size_t begin, end;

    if (j->n_parts) {
        ew_split_range(j->a.hkv * j->n_parts, 1, i, n, &begin, &end);
        for (; begin < end; begin++)
            j->kern->decode(&j->a, begin / j->n_parts, begin % j->n_parts, j->n_parts,
                            j->scratch + i * j->scratch_bytes);
        return;
    }
    ew_split_range(j->kern->n_units(&j->a), 1, i, n, &begin, &end);
    j->kern->run(&j->a, begin, end, j->scratch + i * j->scratch_bytes);
}

/* Qwen3-0.6B's heads: the last `s` tokens of a context of `ctx`. */
static void bench_attention(struct bench *b, const struct ew_attn_kernel *kern, ew_dtype t,
                            size_t s, size_t ctx)
{
    const size_t hq = 16, hkv = 8, d = 128, n_kv = 2 * hkv * ctx;
    const size_t kv_bytes = n_kv * attn_row_bytes(t, d);
    const int32_t len = s == 1 ? (int32_t)ctx : (int32_t)s, start = (int32_t)(ctx - s);
    struct attn_job j = { .kern = kern };
    void *kv = ew_os_pages_alloc(kv_bytes, true);
    float *q = malloc(s * hq * d * 4), *out = malloc(s * hq * d * 4);

    memset(kv, 0x12, kv_bytes);
    ck_fill(b->c, q, s * hq * d, CK_NORMAL);
    j.a = (struct ew_attn_args){ .mode = s == 1 ? EW_ATTN_DECODE : EW_ATTN_CHUNKED,
                                 .b = 1,
                                 .s = s,
                                 .hq = hq,
                                 .hkv = hkv,
                                 .d = d,
                                 .kv = kv,
                                 .kv_dtype = t,
                                 .cap = ctx,
                                 .context_lengths = &len,
                                 .start_index = s == 1 ? NULL : &start,
                                 .scale = 0.088f,
                                 .q_work = q,
                                 .out = out,
                                 .out_stride = hq * d };
    j.scratch_bytes = kern->scratch_bytes(&j.a) / 64 * 64 + 64;
    j.scratch = aligned_alloc(64, j.scratch_bytes * ew_pool_threads(b->pool));
    float *k = calloc((hq + 2 * hkv) * d, 4);
    if (s == 1 && kern->decode) {
        j.a.q = j.a.k = j.a.v = k;
        j.n_parts = kern->n_parts(&j.a);
        j.a.parts = aligned_alloc(64, kern->part_bytes(&j.a) / 64 * 64 + 64);
    }
    const double sec = best_run(b, NULL, attn_pass, &j);
    const double bytes = (double)kv_bytes;
    const double flops = 4.0 * (double)(hq * d) * ((double)s * ((double)ctx - (double)(s - 1) / 2));
    printf("%-26s kv %-4s s %4zu ctx %5zu %8.3f ms %6.1f GB/s (%3.0f%%) %7.1f GFLOP/s (%3.0f%%)\n",
           kern->name, ew_dtype_text(t), s, ctx, sec * 1e3, bytes / sec * 1e-9,
           100 * bytes / sec / b->bandwidth, flops / sec * 1e-9, 100 * flops / sec / b->flops);
    free(j.a.parts);
    free(k);
    free(j.scratch);
    free(q);
    free(out);
    ew_os_pages_free(kv, kv_bytes);
}

struct row_job {
    const struct ew_rowops *t;
    float *x, *y, *w;
    int op;
};

enum { ROWS = 512, ROW_LEN = 1024 };

static void row_pass(void *arg, unsigned i, unsigned n)
{
    struct row_job *j = arg;
    size_t begin, end;

    ew_split_range(ROWS, 1, i, n, &begin, &end);
    const size_t at = begin * ROW_LEN, len = (end - begin) * ROW_LEN;
    if (j->op < 0) {
        j->t->rmsnorm(j->y + at, j->x + at, j->w, NULL, end - begin, ROW_LEN, 1e-6f);
        return;
    }
    const struct ew_attr_pointwise p = { .n_instr = 1,
                                         .instr = { { (uint8_t)j->op, 1, 0, 0, 0 } } };
    const float *const in[1] = { j->x + at };
    const size_t step[1] = { 1 };
    j->t->pointwise(&p, j->y + at, in, step, 1, len);
}

static void bench_rowops(struct bench *b, const struct ew_rowops *t)
{
    static const int ops[] = { -1, EW_PW_SILU, EW_PW_GELU_ERF, EW_PW_TANH, EW_PW_LOG };
    static const char *const names[] = { "rmsnorm", "silu", "gelu_erf", "tanh", "log" };
    struct row_job j = { .t = t,
                         .x = malloc(ROWS * ROW_LEN * 4),
                         .y = malloc(ROWS * ROW_LEN * 4),
                         .w = malloc(ROW_LEN * 4) };

    ck_fill(b->c, j.x, ROWS * ROW_LEN, CK_NORMAL);
    ck_fill(b->c, j.w, ROW_LEN, CK_NORMAL);
    for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
        j.op = ops[i];
        const double s = best_run(b, NULL, row_pass, &j);
        printf("rowops__%-18s %-10s %8.3f ms %6.2f Gelem/s\n", t->name, names[i], s * 1e3,
               ROWS * ROW_LEN / s * 1e-9);
    }
    free(j.x);
    free(j.y);
    free(j.w);
}

int ck_bench(struct ck *c)
{
    static const ew_dtype types[] = { EW_DTYPE_F32, EW_DTYPE_F16, EW_DTYPE_BF16, EW_DTYPE_F8E4M3,
                                      EW_DTYPE_I8 };
    struct bench b = { .c = c };
    size_t n;

    if (ew_pool_create(c->n_threads, &b.pool, NULL))
        return 2;
    b.bandwidth = ew_probe_read_bandwidth(b.pool, c->cpu_flags, 0, 1.0);
    b.flops = ew_probe_f32_flops(b.pool, c->cpu_flags, 0.5);
    printf("ceilings, %u threads: %.1f GB/s read, %.1f GFLOP/s f32\n", ew_pool_threads(b.pool),
           b.bandwidth * 1e-9, b.flops * 1e-9);
    const struct ew_linear_kernel *const *lin = ew_linear_kernels(&n);
    for (size_t i = 0; i < n; i++)
        if (lin[i]->cpu_need && ck_wants(c, lin[i]->name, lin[i]->cpu_need)) {
            if (lin[i]->takes)
                bench_quant(&b, lin[i]);
            else
                bench_linear(&b, lin[i], NULL);
        }
    const struct ew_attn_kernel *const *attn = ew_attn_kernels(&n);
    for (size_t i = 0; i < n; i++) {
        if (!attn[i]->cpu_need || !ck_wants(c, attn[i]->name, attn[i]->cpu_need))
            continue;
        for (size_t t = 0; t < EW_COUNT(types); t++) {
            bench_attention(&b, attn[i], types[t], 1, 128);
            bench_attention(&b, attn[i], types[t], 1, 512);
            bench_attention(&b, attn[i], types[t], 1, 16384);
            bench_attention(&b, attn[i], types[t], 512, 512);
            bench_attention(&b, attn[i], types[t], 512, 4096);
        }
    }
    const struct ew_rowops *const *rows = ew_rowops_all(&n);
    for (size_t i = 0; i < n; i++)
        if (ck_wants(c, "rowops", rows[i]->cpu_need))
            bench_rowops(&b, rows[i]);
    ew_pool_destroy(b.pool);
    return 0;
}

/* check_attention_cuda.c - attention on the device against the reference: every mode, element of
 * the cache, head size and way to run; padding rows, windows, softcaps, trees, ragged batches.
 *
 * The reference attends over the cache that the device left behind, so that a key on the edge
 * between two codes is judged once, by check_cache, and not again by every query that sees it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "base/size.h"
#include "checkcuda.h"
#include "kernels/attn_rules.h"
#include "kernels/cuda/attention_cuda.h"

#define MAX_B 128

/* One step of a batch: history in the cache, then S rows. */
struct world {
    enum ew_attn_mode mode;
    size_t b, s, hq, hkv, d, rd, cap, past, pad;
    ew_dtype kv_dtype;
    int norm; /* 0, 1 a head, 2 full */
    bool has_scales;
    bool x_short;   /* q, k and v come as the cache's type */
    bool only_bf16; /* of the output */
    bool one_past;  /* all batch rows have the same history: sooner made */
    float softcap;
    int64_t window;

    float *q, *k, *v; /* packed rows of [b*s][width] */
    float *rope, *q_norm, *k_norm, *kv_scale;
    int32_t len[MAX_B], start[MAX_B];
    uint32_t *mask;
    int32_t *pos_id;
    size_t words;
    unsigned char *kv;
    size_t kv_bytes;
};

static size_t width(const struct world *w)
{
    return (w->hq + 2 * w->hkv) * w->d;
}

static void *must(void *p)
{
    if (!p)
        abort();
    return p;
}

static float *normals(struct cc *c, size_t n, float scale)
{
    float *p = must(malloc((n ? n : 1) * sizeof(*p)));

    cc_fill_normal(c, p, n, scale);
    return p;
}

/* Everything on the host. */
static struct ew_attn_args host_args(const struct world *w)
{
    return (struct ew_attn_args){ .mode = w->mode,
                                  .b = w->b,
                                  .s = w->s,
                                  .hq = w->hq,
                                  .hkv = w->hkv,
                                  .d = w->d,
                                  .q = w->q,
                                  .k = w->k,
                                  .v = w->v,
                                  .q_stride = width(w),
                                  .k_stride = width(w),
                                  .v_stride = width(w),
                                  .kv = w->kv,
                                  .kv_dtype = w->kv_dtype,
                                  .kv_scale = w->kv_scale,
                                  .cap = w->cap,
                                  .rope = w->rd ? w->rope : NULL,
                                  .rope_rows = w->cap,
                                  .rd = w->rd,
                                  .context_lengths = w->len,
                                  .start_index = w->mode == EW_ATTN_PREFILL ? NULL : w->start,
                                  .mask = w->mask,
                                  .mask_words = w->words,
                                  .pos_id = w->pos_id,
                                  .q_norm = w->norm ? w->q_norm : NULL,
                                  .k_norm = w->norm ? w->k_norm : NULL,
                                  .qk_norm_full = w->norm == 2,
                                  .qk_norm_eps = 1e-6f,
                                  .scale = 1.0f / sqrtf((float)w->d),
                                  .softcap = w->softcap,
                                  .window = w->window };
}

/* The reference stores w->past tokens of history for every batch row. */
static void fill_history(struct cc *c, struct world *w)
{
    const struct ew_attn_kernel *ref = ew_attn_kernel_find("attn__ref");
    struct world h = *w;
    struct ew_attn_args a;

    memset(w->kv, 0xff, w->kv_bytes); /* NaN in every format: nobody may look at it */
    if (!w->past)
        return;
    h.mode = EW_ATTN_PREFILL;
    h.b = w->one_past ? 1 : w->b;
    h.s = w->past;
    h.hq = w->hkv;
    h.q = normals(c, h.b * h.s * width(&h), 1.0f);
    h.k = h.q + h.hq * h.d;
    h.v = h.k + h.hkv * h.d;
    for (size_t b = 0; b < h.b; b++)
        h.len[b] = (int32_t)h.past;
    a = host_args(&h);
    a.q_work = must(malloc(h.b * h.s * h.hq * h.d * sizeof(float)));
    ref->prep(&a, 0, h.b * h.s);
    free(a.q_work);
    free(h.q);
    for (size_t b = h.b; b < w->b; b++)
        memcpy(w->kv + b * (w->kv_bytes / w->b), w->kv, w->kv_bytes / w->b);
}

/* A tree of s rows: row i hangs on an earlier one; now and then a padding row. */
static void make_tree(struct cc *c, struct world *w)
{
    w->words = (w->s + 31) / 32;
    w->mask = must(calloc(w->b * w->s * w->words, sizeof(*w->mask)));
    w->pos_id = must(malloc(w->b * w->s * sizeof(*w->pos_id)));
    for (size_t b = 0; b < w->b; b++)
        for (size_t i = 0; i < w->s; i++) {
            const size_t at = b * w->s + i, up = i ? cc_range(c, i > 3 ? i - 3 : 0, i - 1) : 0;
            uint32_t *row = w->mask + at * w->words;
            const bool is_pad = i > 0 && (cc_rand(c) % 8 == 0 || w->pos_id[b * w->s + up] < 0);

            w->pos_id[at] = is_pad ? -1 : i ? w->pos_id[b * w->s + up] + 1 : w->start[b];
            if (is_pad)
                continue;
            if (i)
                memcpy(row, w->mask + (b * w->s + up) * w->words, w->words * sizeof(*row));
            row[i / 32] |= 1u << (i % 32);
        }
}

static void make(struct cc *c, struct world *w)
{
    const size_t n = w->b * w->s;

    w->q = normals(c, n * width(w), 1.0f);
    w->k = w->q + w->hq * w->d;
    w->v = w->k + w->hkv * w->d;
    for (size_t i = 0; i < n * width(w) && w->x_short; i++) /* as they will come */
        w->q[i] = w->kv_dtype == EW_DTYPE_F16 ? ew_f16_to_f32(ew_f32_to_f16(w->q[i]))
                                              : ew_bf16_to_f32(ew_f32_to_bf16(w->q[i]));
    w->q_norm = normals(c, w->hq * w->d, 1.0f);
    w->k_norm = normals(c, w->hkv * w->d, 1.0f);
    w->rope = must(malloc((w->cap * w->rd + 1) * sizeof(float)));
    for (size_t p = 0; p < w->cap; p++)
        for (size_t i = 0; i < w->rd / 2; i++) {
            const double angle = (double)p * pow(10000.0, -2.0 * (double)i / (double)w->rd);

            w->rope[p * w->rd + i] = (float)cos(angle);
            w->rope[p * w->rd + w->rd / 2 + i] = (float)sin(angle);
        }
    w->kv_scale = w->has_scales ? must(malloc(2 * w->hkv * sizeof(float))) : NULL;
    for (size_t i = 0; w->kv_scale && i < 2 * w->hkv; i++)
        w->kv_scale[i] = 0.004f + (float)cc_range(c, 0, 100) * 0.001f;
    w->kv_bytes = w->b * 2 * w->hkv * w->cap * attn_row_bytes(w->kv_dtype, w->d);
    w->kv = must(malloc(w->kv_bytes));
    for (size_t b = 0; b < w->b; b++) {
        const int32_t rows = b == 0 ? (int32_t)w->s : (int32_t)cc_range(c, 0, w->s);

        w->start[b] = w->mode == EW_ATTN_PREFILL ? 0
                      : b == 0                   ? (int32_t)w->past
                                                 : (int32_t)cc_range(c, 0, w->past);
        w->len[b] = w->mode == EW_ATTN_DECODE ? w->start[b] + 1
                    : w->mode == EW_ATTN_TREE ? w->start[b] + rows
                                              : rows;
        if (w->mode == EW_ATTN_DECODE && b == 2)
            w->len[b] = 0; /* an empty row: zeros */
    }
    fill_history(c, w);
    if (w->mode == EW_ATTN_TREE)
        make_tree(c, w);
}

static void drop(struct world *w)
{
    free(w->q);
    free(w->q_norm);
    free(w->k_norm);
    free(w->rope);
    free(w->kv_scale);
    free(w->kv);
    free(w->mask);
    free(w->pos_id);
}

static float elem(const struct world *w, const unsigned char *row, size_t is_v, size_t h, size_t i)
{
    uint16_t s;
    float f;

    switch (w->kv_dtype) {
    case EW_DTYPE_F32:
        memcpy(&f, row + 4 * i, 4);
        return f;
    case EW_DTYPE_I8:
        return (float)(int8_t)row[i] * attn_row_scale(row, w->d);
    case EW_DTYPE_F8E4M3:
        return ew_f8e4m3_to_f32(row[i]) * (w->kv_scale ? w->kv_scale[is_v * w->hkv + h] : 1.0f);
    default:
        memcpy(&s, row + 2 * i, 2);
        return w->kv_dtype == EW_DTYPE_BF16 ? ew_bf16_to_f32(s) : ew_f16_to_f32(s);
    }
}

/* How far two roundings of nearly the same number may be apart. */
static double slack(const struct world *w, const unsigned char *row, float x)
{
    const double size = fabs((double)x);

    switch (w->kv_dtype) {
    case EW_DTYPE_F32:
        return 2e-5;
    case EW_DTYPE_F16:
        return 1e-3 * size + 2e-5;
    case EW_DTYPE_BF16:
        return 8e-3 * size + 2e-5;
    case EW_DTYPE_I8:
        return 1.001 * (double)attn_row_scale(row, w->d) + 2e-5;
    default:
        return 0.126 * size + (w->kv_scale ? 0.104 : 1.0) * 0.002 + 2e-5;
    }
}

static void check_cache(struct cc *c, const struct world *w, const unsigned char *got)
{
    const size_t step = attn_row_bytes(w->kv_dtype, w->d), n = w->kv_bytes / step;

    for (size_t r = 0; r < n; r++) {
        const size_t h = r / w->cap % w->hkv, is_v = r / w->cap / w->hkv % 2;
        const unsigned char *x = w->kv + r * step, *y = got + r * step;

        if (memcmp(x, y, step) == 0)
            continue;
        for (size_t i = 0; i < w->d; i++) {
            const float want = elem(w, x, is_v, h, i), have = elem(w, y, is_v, h, i);

            if (is_v || !(fabs((double)want - (double)have) <= slack(w, x, want))) {
                cc_fail(c, "%s of head %zu, slot %zu: element %zu is %g, not %g", is_v ? "V" : "K",
                        h, r % w->cap, i, (double)have, (double)want);
                return;
            }
        }
    }
}

/* What the way that runs this may be off by: probabilities (and in flash attention queries) are
 * rounded to the tensor cores' type. V is about N(0, 1). */
static double tolerance(const struct world *w, size_t n_launches, const struct ew_cuda_launch *l)
{
    const char *const source = l[n_launches - 1].spec.source;

    if (strcmp(source, "attention_simple") == 0)
        return 3e-5;
    if (strcmp(source, "attention_split") == 0 || strcmp(source, "attention_few") == 0 ||
        w->kv_dtype == EW_DTYPE_F32)
        return 2e-4;
    return w->kv_dtype == EW_DTYPE_F16 ? 3e-3 : 2.5e-2;
}

static uint64_t short_rows(struct cc *c, const struct world *w, size_t n)
{
    uint16_t *h = must(malloc(n * sizeof(*h)));
    uint64_t at;

    for (size_t i = 0; i < n; i++)
        h[i] = w->kv_dtype == EW_DTYPE_F16 ? ew_f32_to_f16(w->q[i]) : ew_f32_to_bf16(w->q[i]);
    at = cc_input(c, h, n * sizeof(*h));
    free(h);
    return at;
}

struct device_side {
    struct ew_cuda_attn p;
    uint64_t kv, out, out_bf16;
};

static struct device_side upload(struct cc *c, const struct world *w)
{
    struct device_side d = { .p = { .a = host_args(w) } };
    struct ew_attn_args *a = &d.p.a;
    const size_t n = w->b * w->s;
    const uint64_t q =
        w->x_short ? short_rows(c, w, n * width(w)) : cc_input(c, w->q, n * width(w) * 4);

    d.p.x_short = w->x_short ? w->kv_dtype : EW_DTYPE_NONE;
#define UP(p, bytes) ((void *)(uintptr_t)cc_input(c, p, bytes))
    a->q = (const float *)(uintptr_t)q;
    a->k = a->q + w->hq * w->d;
    a->v = a->k + w->hkv * w->d;
    d.kv = cc_input(c, w->kv, w->kv_bytes);
    a->kv = (void *)(uintptr_t)d.kv;
    if (a->kv_scale)
        a->kv_scale = UP(w->kv_scale, 2 * w->hkv * 4);
    if (a->rope)
        a->rope = UP(w->rope, w->cap * w->rd * 4);
    a->context_lengths = UP(w->len, w->b * 4);
    if (a->start_index)
        a->start_index = UP(w->start, w->b * 4);
    if (w->mask) {
        a->mask = UP(w->mask, n * w->words * 4);
        a->pos_id = UP(w->pos_id, n * 4);
    }
    if (w->norm) {
        a->q_norm = UP(w->q_norm, w->hq * w->d * 4);
        a->k_norm = UP(w->k_norm, w->hkv * w->d * 4);
    }
#undef UP
    a->out_stride = w->hq * w->d + w->pad;
    d.out = cc_output(c, n * a->out_stride * 4);
    a->out = (float *)(uintptr_t)d.out;
    d.out_bf16 = cc_output(c, n * w->hq * w->d * 2);
    d.p.out_bf16 = (void *)(uintptr_t)d.out_bf16;
    if (w->only_bf16)
        d.p.a.out = NULL;
    d.p.work = (void *)(uintptr_t)cc_output(c, ew_cuda_attn_work_bytes(&d.p, cc_chip(c)));
    d.p.counters =
        (uint32_t *)(uintptr_t)cc_zeroed(c, w->b * EW_CUDA_ATTN_COUNTERS(w->hkv, w->s) * 4);
    return d;
}

/* The reference's output over the device's cache, against the device's. */
static void judge(struct cc *c, struct world *w, const struct device_side *d, double abs_tolerance)
{
    const struct ew_attn_kernel *ref = ew_attn_kernel_find("attn__ref");
    const size_t n = w->b * w->s, row = w->hq * w->d, stride = d->p.a.out_stride;
    float *want = must(malloc(n * row * 4)), *got = must(malloc(n * row * 4));
    float *got_short = must(malloc(n * row * 4));
    struct ew_attn_args a = host_args(w);
    const unsigned char *kv = cc_download(c, d->kv);
    const float *out = cc_download(c, d->out);
    const uint16_t *half = cc_download(c, d->out_bf16);
    void *scratch;

    a.q_work = must(malloc(n * row * 4));
    a.out = want;
    a.out_stride = row;
    scratch = must(malloc(ref->scratch_bytes(&a) + 8));
    ref->prep(&a, 0, n);
    check_cache(c, w, kv);
    memcpy(w->kv, kv, w->kv_bytes);
    ref->run(&a, 0, ref->n_units(&a), scratch);
    for (size_t t = 0; t < n; t++) {
        memcpy(got + t * row, out + t * stride, row * 4);
        for (size_t i = 0; i < row; i++)
            got_short[t * row + i] = ew_bf16_to_f32(half[t * row + i]);
        if (w->only_bf16)
            memcpy(got + t * row, got_short + t * row, row * 4);
        for (size_t i = row; i < stride && !w->only_bf16; i++)
            if (ew_f32_bits(out[t * stride + i]) != UINT32_MAX) {
                cc_fail(c, "wrote between rows of the output");
                break;
            }
    }
    cc_near(c, "output", got, want, n * row, abs_tolerance, w->only_bf16 ? 0x1p-8 : 0);
    cc_near(c, "output in bf16", got_short, got, n * row, 1e-30, 0.00391);
    free(a.q_work);
    free(scratch);
    free(want);
    free(got);
    free(got_short);
}

static bool same_way(const struct ew_cuda_launch *x, const struct ew_cuda_launch *y)
{
    return strcmp(x->spec.source, y->spec.source) == 0 &&
           strcmp(x->spec.defines, y->spec.defines) == 0 && x->grid[0] == y->grid[0];
}

/* Rows [first, b) of a decode batch without the others: the same bits where the same kernel shares
 * a row in the same way. */
static void without(struct cc *c, const struct world *w, const struct device_side *d, size_t first,
                    const struct ew_cuda_launch *whole)
{
    const size_t n_rows = w->b - first, row = w->hq * w->d, stride = d->p.a.out_stride;
    struct ew_cuda_launch l[EW_CUDA_ATTN_LAUNCHES];
    struct ew_cuda_attn p = d->p;
    struct ew_attn_args *a = &p.a;
    const uint64_t out = cc_output(c, n_rows * row * 4);
    ew_error err = { 0 };
    size_t n;

    a->b = n_rows;
    a->q += first * a->q_stride;
    a->k += first * a->k_stride;
    a->v += first * a->v_stride;
    a->kv = (unsigned char *)a->kv + first * (w->kv_bytes / w->b);
    a->context_lengths += first;
    a->start_index += first;
    a->out = (float *)(uintptr_t)out;
    a->out_stride = row;
    p.out_bf16 = NULL;
    p.work = (void *)(uintptr_t)cc_output(c, ew_cuda_attn_work_bytes(&p, cc_chip(c)));
    if (ew_cuda_attn_plan(&p, cc_chip(c), l, &n, &err)) {
        cc_fail(c, "%s", err.text);
    } else if (cc_launch(c, l, n)) {
        const float *const got = cc_download(c, out), *const all = cc_download(c, d->out);

        for (size_t i = 0; i < n_rows; i++)
            if (same_way(&l[0], whole))
                cc_equal(c, "a row without others", got + i * row, all + (first + i) * stride,
                         row * 4);
            else
                cc_near(c, "a row without others", got + i * row, all + (first + i) * stride, row,
                        4e-4, 0);
    }
}

static void run_case(struct cc *c, struct world w)
{
    static const char *const modes[] = { "prefill", "chunked", "decode", "tree" };
    struct ew_cuda_launch l[EW_CUDA_ATTN_LAUNCHES];
    struct device_side d;
    ew_error err = { 0 };
    size_t n;

    if (!cc_begin(c,
                  "%s %s d%zu b%zu s%zu past%zu hq%zu hkv%zu rd%zu norm%d window%lld cap%g "
                  "scales%d%s",
                  modes[w.mode], ew_dtype_text(w.kv_dtype), w.d, w.b, w.s, w.past, w.hq, w.hkv,
                  w.rd, w.norm, (long long)w.window, (double)w.softcap, w.has_scales,
                  w.x_short     ? " short"
                  : w.only_bf16 ? " to bf16"
                                : ""))
        return;
    make(c, &w);
    d = upload(c, &w);
    if (ew_cuda_attn_plan(&d.p, cc_chip(c), l, &n, &err))
        cc_fail(c, "%s", err.text);
    else if (cc_launch(c, l, n))
        judge(c, &w, &d, tolerance(&w, n, l));
    if (w.mode == EW_ATTN_DECODE && w.b > 1) {
        without(c, &w, &d, w.b - 1, &l[0]);
        without(c, &w, &d, 1, &l[0]);
    }
    cc_end(c);
    drop(&w);
}

/* A world of this mode, element and head size; the rest by lot, as a function of `i` alone. */
static struct world draw(size_t i, enum ew_attn_mode mode, ew_dtype t, size_t d)
{
    static const size_t groups[] = { 1, 2, 4, 3, 8, 7, 20 };
    static const size_t pasts[] = { 0, 37, 300, 63, 130, 1100, 16 };
    static const size_t rows[] = { 5, 70, 33, 150, 17, 2 };
    struct world w = { .mode = mode, .kv_dtype = t, .d = d };

    w.b = i % 3 == 0 ? 3 : 1 + i % 2;
    if (mode == EW_ATTN_DECODE && i % 4 == 1)
        w.b = i % 8 == 1 ? 40 : 70; /* fewer blocks a row; more than a chip has room for */
    w.hkv = 1 + i % 2;
    w.hq = w.hkv * groups[i % EW_COUNT(groups)];
    w.s = mode == EW_ATTN_DECODE ? 1 : rows[(i / 2) % EW_COUNT(rows)];
    w.past = mode == EW_ATTN_PREFILL ? 0 : pasts[(i / 3) % EW_COUNT(pasts)];
    w.cap = w.past + w.s + i % 5 * 13;
    w.rd = i % 4 == 3 ? d / 4 * 2 : i % 9 == 8 ? 0 : d / 2 * 2;
    w.norm = (int)(i / 2 % 3);
    w.has_scales = t == EW_DTYPE_F8E4M3 && i % 2;
    w.softcap = i % 5 == 4 ? 5.0f : 0.0f;
    w.window = i % 4 == 2 ? (int64_t)(1 + i * 7 % 100) : -1;
    w.pad = i % 3;
    w.only_bf16 = i % 7 == 3 && mode != EW_ATTN_DECODE;
    return w;
}

/* Times: shapes of Qwen3-0.6B (16 heads) and 4B (32). */
static void bench(struct cc *c)
{
    static const struct {
        enum ew_attn_mode mode;
        size_t b, s, past, hq;
    } shapes[] = {
        { EW_ATTN_DECODE, 1, 1, 127, 16 },    { EW_ATTN_DECODE, 1, 1, 1023, 16 },
        { EW_ATTN_DECODE, 1, 1, 4095, 16 },   { EW_ATTN_DECODE, 1, 1, 16383, 16 },
        { EW_ATTN_DECODE, 1, 1, 4095, 32 },   { EW_ATTN_DECODE, 8, 1, 1023, 16 },
        { EW_ATTN_DECODE, 8, 1, 127, 16 },    { EW_ATTN_DECODE, 2, 1, 127, 32 },
        { EW_ATTN_DECODE, 8, 1, 31, 32 },     { EW_ATTN_DECODE, 8, 1, 511, 32 },
        { EW_ATTN_DECODE, 16, 1, 127, 32 },   { EW_ATTN_DECODE, 64, 1, 31, 32 },
        { EW_ATTN_DECODE, 64, 1, 127, 32 },   { EW_ATTN_DECODE, 64, 1, 511, 32 },
        { EW_ATTN_CHUNKED, 1, 2, 127, 32 },   { EW_ATTN_CHUNKED, 1, 16, 31, 32 },
        { EW_ATTN_CHUNKED, 1, 16, 112, 32 },  { EW_ATTN_CHUNKED, 1, 64, 64, 32 },
        { EW_ATTN_CHUNKED, 1, 16, 1023, 32 }, { EW_ATTN_CHUNKED, 1, 64, 1023, 32 },
        { EW_ATTN_TREE, 1, 16, 112, 32 },     { EW_ATTN_TREE, 1, 64, 64, 32 },
        { EW_ATTN_TREE, 1, 16, 1023, 32 },    { EW_ATTN_TREE, 1, 64, 4095, 32 },
        { EW_ATTN_TREE, 1, 64, 1023, 32 },    { EW_ATTN_PREFILL, 1, 512, 0, 16 },
        { EW_ATTN_PREFILL, 1, 2048, 0, 16 },  { EW_ATTN_PREFILL, 1, 2048, 0, 32 },
        { EW_ATTN_PREFILL, 1, 8192, 0, 32 },  { EW_ATTN_CHUNKED, 1, 512, 3584, 32 },
    };

    for (size_t i = 0; i < EW_COUNT(shapes); i++) {
        struct world w = { .mode = shapes[i].mode,
                           .kv_dtype = EW_DTYPE_BF16,
                           .b = shapes[i].b,
                           .s = shapes[i].s,
                           .past = shapes[i].past,
                           .hq = shapes[i].hq,
                           .hkv = 8,
                           .d = 128,
                           .rd = 128,
                           .norm = 1,
                           .one_past = true,
                           .window = -1 };
        struct ew_cuda_launch l[EW_CUDA_ATTN_LAUNCHES];
        static const char *const modes[] = { "prefill", "chunked", "decode", "tree" };
        struct device_side d;
        const double seen = (double)w.past + (w.mode == EW_ATTN_TREE ? 1.0 : 0.5) * (double)w.s;
        ew_error err = { 0 };
        size_t n;

        w.cap = w.past + w.s;
        if (!cc_begin(c, "bench %s b%zu s%zu past%zu hq%zu", modes[w.mode], w.b, w.s, w.past, w.hq))
            continue;
        make(c, &w);
        for (size_t b = 0; b < w.b; b++) {
            w.start[b] = (int32_t)w.past;
            w.len[b] =
                (int32_t)(w.mode == EW_ATTN_DECODE || w.mode == EW_ATTN_TREE ? w.past + w.s : w.s);
        }
        w.x_short = ew_cuda_attn_takes_short(cc_chip(c), w.kv_dtype, w.s, w.d) &&
                    w.mode != EW_ATTN_TREE; /* as models have them */
        d = upload(c, &w);
        if (w.mode == EW_ATTN_PREFILL || w.mode == EW_ATTN_CHUNKED)
            d.p.a.out = NULL; /* a GEMM reads it */
        else
            d.p.out_bf16 = NULL;
        if (ew_cuda_attn_plan(&d.p, cc_chip(c), l, &n, &err))
            cc_fail(c, "%s", err.text);
        else if (cc_launch(c, l, n))
            cc_bench(c, l, n,
                     (double)(w.b * w.hkv * (w.past + w.s) * 2 * w.d * 2) +
                         (double)(w.b * w.s * (width(&w) + w.hq * w.d) * 4),
                     4.0 * (double)(w.b * w.s * w.hq * w.d) * seen);
        if (n == 2 && cc_launch(c, l, n)) { /* without the preparation */
            printf("  main launch alone: ");
            cc_bench(c, &l[1], 1, (double)(w.b * w.hkv * (w.past + w.s) * 2 * w.d * 2),
                     4.0 * (double)(w.b * w.s * w.hq * w.d) * seen);
        }
        cc_end(c);
        drop(&w);
    }
}

/* Few tokens in one launch: where panels, row tiles, chunks and new tokens begin and end. Few
 * kernels, many lengths. */
static void few(struct cc *c)
{
    static const size_t rows[] = { 64, 1, 16, 49, 3, 63, 50, 7, 31 };
    static const size_t pasts[] = { 449, 0, 64, 15, 2900, 1, 113, 600, 1700, 255, 16 };
    static const ew_dtype types[] = { EW_DTYPE_BF16, EW_DTYPE_I8, EW_DTYPE_F8E4M3, EW_DTYPE_F32 };

    for (size_t i = 0; i < 54; i++) {
        const bool is_rare = i >= 44;
        const enum ew_attn_mode mode = i % 5 == 0   ? EW_ATTN_PREFILL
                                       : i % 5 == 1 ? EW_ATTN_DECODE
                                       : i % 5 == 3 ? EW_ATTN_TREE
                                                    : EW_ATTN_CHUNKED;
        const bool is_one = mode == EW_ATTN_DECODE;
        struct world w = { .mode = mode,
                           .b = is_one ? 70 + i : 1 + i % 7 / 5,
                           .s = is_one ? 1 : rows[i % EW_COUNT(rows)],
                           .hkv = 2,
                           .hq = is_rare ? 24 : 8,
                           .d = 128,
                           .rd = 128,
                           .past = mode == EW_ATTN_PREFILL ? 0 : pasts[i % EW_COUNT(pasts)],
                           .kv_dtype = is_rare ? types[i % EW_COUNT(types)] : EW_DTYPE_F16,
                           .norm = 1,
                           .only_bf16 = i % 8 == 3 && !is_one,
                           .one_past = true,
                           .window = i % 7 == 6 ? (int64_t)(9 + i * 13 % 400) : -1 };

        w.has_scales = w.kv_dtype == EW_DTYPE_F8E4M3;
        w.cap = w.past + w.s + i % 3 * 7;
        run_case(c, w);
    }
}

CC_FAMILY(attention_cuda)
{
    static const ew_dtype types[] = { EW_DTYPE_BF16, EW_DTYPE_F32, EW_DTYPE_F16, EW_DTYPE_F8E4M3,
                                      EW_DTYPE_I8 };
    static const size_t sizes[] = { 128, 64, 80, 96, 256, 32, 33, 16, 48 };
    size_t i = 0;

    for (int mode = EW_ATTN_PREFILL; mode <= EW_ATTN_TREE; mode++)
        for (size_t t = 0; t < EW_COUNT(types); t++)
            for (size_t d = 0; d < EW_COUNT(sizes); d++, i++)
                if (d < 2 || (i + d) % 3 == 0) /* a third of the rarer sizes */
                    run_case(c, draw(i, mode, types[t], sizes[d]));
    /* the window of tests/golden/families/mixtral-window */
    run_case(c, (struct world){ .mode = EW_ATTN_PREFILL,
                                .b = 2,
                                .s = 24,
                                .hq = 2,
                                .hkv = 1,
                                .d = 16,
                                .rd = 16,
                                .cap = 256,
                                .kv_dtype = EW_DTYPE_F16,
                                .window = 5 });
    /* more units of work than multiprocessors */
    run_case(c, (struct world){ .mode = EW_ATTN_PREFILL,
                                .b = 3,
                                .s = 171,
                                .hq = 40,
                                .hkv = 5,
                                .d = 64,
                                .rd = 64,
                                .cap = 180,
                                .kv_dtype = EW_DTYPE_F16,
                                .norm = 1,
                                .window = -1 });
    run_case(c, (struct world){ .mode = EW_ATTN_CHUNKED,
                                .b = 2,
                                .s = 259,
                                .hq = 4,
                                .hkv = 2,
                                .d = 128,
                                .rd = 96,
                                .cap = 400,
                                .past = 130,
                                .kv_dtype = EW_DTYPE_BF16,
                                .window = 150 });
    for (size_t k = 0; k < 4; k++) {
        const struct world w = { .mode = k % 2 ? EW_ATTN_CHUNKED : EW_ATTN_PREFILL,
                                 .b = 2,
                                 .s = 70 + k,
                                 .hq = 6,
                                 .hkv = 2,
                                 .d = k < 2 ? 128 : 64,
                                 .rd = k == 3  ? 0
                                       : k < 2 ? 128
                                               : 64,
                                 .cap = 140,
                                 .past = k % 2 ? 50 : 0,
                                 .kv_dtype = k == 1 ? EW_DTYPE_BF16 : EW_DTYPE_F16,
                                 .norm = k != 2,
                                 .x_short = true,
                                 .only_bf16 = true,
                                 .window = -1 };

        if (ew_cuda_attn_takes_short(cc_chip(c), w.kv_dtype, w.s, w.d))
            run_case(c, w);
    }
    few(c);
    if (cc_is_bench(c))
        bench(c);
}

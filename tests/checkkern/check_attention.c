/* check_attention.c - attention kernels against the reference, and their bit contract: whatever way
 * a prompt is fed (whole, chunks, token by token, as a tree, in a batch), the same bits come out.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "checkkern.h"
#include "kernels/attn_rules.h"

#define MAX_B 3

/* A batch of sequences, fed to a kernel step by step. */
struct world {
    size_t b, n_tok, hq, hkv, d, rd, cap, pad;
    ew_dtype kv_dtype;
    bool qk_norm, qk_norm_full;
    float softcap;
    int64_t window;
    enum { Q_NORMAL, Q_OUTLIERS } q_fill;
    float *qkv;  /* [b][n_tok][(hq+2hkv)*d] */
    float *rope; /* [cap][rd] */
    float *q_norm, *k_norm;
    struct ck_mem kv;
    float *kv_scale; /* [2][hkv], or NULL */
    float *out;      /* [b][n_tok][hq*d] */
    float *q_work;   /* of the last step */
};

struct step { /* tokens [from, from + n) of each batch row, in a window of s rows */
    enum ew_attn_mode mode;
    size_t s;
    int32_t from[MAX_B], n[MAX_B];
    uint32_t *mask; /* tree: [b][s][words] */
    size_t words;
    int32_t *pos_id;
    size_t prefix[MAX_B]; /* tree */
};

static size_t width(const struct world *w)
{
    return (w->hq + 2 * w->hkv) * w->d;
}

static void world_make(struct ck *c, struct world *w)
{
    const size_t n = w->b * w->n_tok;

    w->qkv = malloc(n * width(w) * 4);
    w->out = calloc(n * w->hq * w->d, 4);
    w->q_work = malloc((n + 64) * w->b * w->hq * w->d * 4);
    w->rope = malloc(w->cap * w->rd * 4 + 4);
    w->q_norm = malloc(w->hq * w->d * 4);
    w->k_norm = malloc(w->hkv * w->d * 4);
    w->kv = ck_mem_make(w->b * 2 * w->hkv * w->cap * attn_row_bytes(w->kv_dtype, w->d));
    for (size_t i = 0; w->kv_scale && i < 2 * w->hkv; i++)
        w->kv_scale[i] = 0.004f + (float)ck_range(c, 0, 100) * 0.001f;
    ck_fill(c, w->qkv, n * width(w), w->q_fill == Q_OUTLIERS ? CK_OUTLIERS : CK_NORMAL);
    ck_fill(c, w->q_norm, w->hq * w->d, CK_NORMAL);
    ck_fill(c, w->k_norm, w->hkv * w->d, CK_NORMAL);
    for (size_t p = 0; p < w->cap; p++)
        for (size_t i = 0; i < w->rd / 2; i++) {
            const double angle = (double)p * pow(10000.0, -2.0 * (double)i / (double)w->rd);
            w->rope[p * w->rd + i] = (float)cos(angle);
            w->rope[p * w->rd + w->rd / 2 + i] = (float)sin(angle);
        }
    memset(w->kv.at, 0xff, w->kv.bytes); /* NaN in every format: nobody may look at it */
}

static void world_drop(struct world *w)
{
    free(w->qkv);
    free(w->out);
    free(w->q_work);
    free(w->rope);
    free(w->q_norm);
    free(w->k_norm);
    free(w->kv_scale);
    ck_mem_drop(&w->kv);
}

static struct ew_attn_args step_args(const struct world *w, const struct step *s, const float *in,
                                     float *out, size_t out_stride)
{
    return (struct ew_attn_args){ .mode = s->mode,
                                  .b = w->b,
                                  .s = s->s,
                                  .hq = w->hq,
                                  .hkv = w->hkv,
                                  .d = w->d,
                                  .q = in,
                                  .k = in + w->hq * w->d,
                                  .v = in + (w->hq + w->hkv) * w->d,
                                  .q_stride = width(w),
                                  .k_stride = width(w),
                                  .v_stride = width(w),
                                  .kv = w->kv.at,
                                  .kv_dtype = w->kv_dtype,
                                  .kv_scale = w->kv_scale,
                                  .cap = w->cap,
                                  .rope = w->rd ? w->rope : NULL,
                                  .rope_rows = w->cap,
                                  .rd = w->rd,
                                  .mask = s->mask,
                                  .mask_words = s->words,
                                  .pos_id = s->pos_id,
                                  .q_norm = w->qk_norm ? w->q_norm : NULL,
                                  .k_norm = w->qk_norm ? w->k_norm : NULL,
                                  .qk_norm_full = w->qk_norm_full,
                                  .qk_norm_eps = 1e-6f,
                                  .scale = 1.0f / sqrtf((float)w->d),
                                  .softcap = w->softcap,
                                  .window = w->window,
                                  .q_work = w->q_work,
                                  .out = out,
                                  .out_stride = out_stride };
}

static void step_both(struct ck *c, const struct ew_attn_kernel *prep,
                      const struct ew_attn_kernel *run, const struct ew_attn_args *a)
{
    const size_t n_tok = a->b * a->s, cut = ck_range(c, 0, n_tok);
    const size_t n_units = run->n_units(a), half = ck_range(c, 0, n_units);
    struct ck_mem scratch = ck_mem_make(run->scratch_bytes(a));

    memset(scratch.at, 0xff, scratch.bytes);
    prep->prep(a, cut, n_tok);
    prep->prep(a, 0, cut);
    run->run(a, half, n_units, scratch.at);
    run->run(a, 0, half, scratch.at);
    ck_mem_drop(&scratch);
}

/* The parts of a decoding step in any order. */
static void step_decode(struct ck *c, const struct ew_attn_kernel *kern, struct ew_attn_args *a)
{
    const size_t n_parts = kern->n_parts(a), n = a->b * a->hkv * n_parts;
    struct ck_mem scratch = ck_mem_make(kern->scratch_bytes(a));
    struct ck_mem parts = ck_mem_make(kern->part_bytes(a));
    size_t from = ck_range(c, 0, n - 1);

    memset(scratch.at, 0xff, scratch.bytes);
    memset(parts.at, 0xff, parts.bytes);
    a->parts = n_parts > 1 ? (float *)(void *)parts.at : NULL;
    for (size_t i = 0; i < n; i++, from = (from + 1) % n)
        kern->decode(a, from / n_parts, from % n_parts, n_parts, scratch.at);
    for (size_t i = 0; n_parts > 1 && i < a->b * a->hkv; i++)
        kern->join(a, i, n_parts, scratch.at);
    ck_mem_drop(&scratch);
    ck_mem_drop(&parts);
}

/* Feeds one step. Work is split in odd ranges. Returns false when a padding row is not zero. */
static bool world_step(struct ck *c, struct world *w, const struct step *s,
                       const struct ew_attn_kernel *prep, const struct ew_attn_kernel *run)
{
    const size_t out_stride = w->hq * w->d + w->pad, wd = width(w);
    float *in = malloc(w->b * s->s * wd * 4), *out = malloc(w->b * s->s * out_stride * 4);
    struct ew_attn_args a = step_args(w, s, in, out, out_stride);
    int32_t len[MAX_B], start[MAX_B];
    bool is_fine = true;

    memset(in, 0xff, w->b * s->s * wd * 4); /* padding rows are NaN */
    ck_canary_set(out, w->b * s->s * out_stride * 4);
    for (size_t b = 0; b < w->b; b++) {
        memcpy(in + b * s->s * wd, w->qkv + (b * w->n_tok + (size_t)s->from[b]) * wd,
               (size_t)s->n[b] * wd * 4);
        start[b] = s->from[b];
        len[b] =
            s->mode == EW_ATTN_DECODE || s->mode == EW_ATTN_TREE ? s->from[b] + s->n[b] : s->n[b];
    }
    a.context_lengths = len;
    a.start_index = s->mode == EW_ATTN_CHUNKED || s->mode == EW_ATTN_TREE ? start : NULL;
    if (s->mode == EW_ATTN_DECODE && run->decode)
        step_decode(c, run, &a);
    else
        step_both(c, prep, run, &a);
    for (size_t b = 0; b < w->b; b++)
        for (size_t i = 0; i < s->s; i++) {
            const float *row = out + (b * s->s + i) * out_stride;
            const bool is_pad = (int32_t)i >= s->n[b] || (s->pos_id && s->pos_id[b * s->s + i] < 0);
            for (size_t j = 0; is_pad && j < w->hq * w->d; j++)
                is_fine = is_fine && row[j] == 0.0f;
            is_fine = is_fine && ck_canary_ok(row + w->hq * w->d, w->pad * 4);
            if ((int32_t)i < s->n[b])
                memcpy(w->out + (b * w->n_tok + (size_t)s->from[b] + i) * w->hq * w->d, row,
                       w->hq * w->d * 4);
        }
    free(in);
    free(out);
    return is_fine;
}

static void describe(struct ck *c, const char *name, const struct world *w, const char *what,
                     size_t at, double error)
{
    ck_fail(
        c, name,
        "%s at %zu, error %.3g: b %zu tok %zu hq %zu hkv %zu d %zu rd %zu cap %zu kv %s norm %d "
        "full %d softcap %g window %lld",
        what, at, error, w->b, w->n_tok, w->hq, w->hkv, w->d, w->rd, w->cap,
        ew_dtype_text(w->kv_dtype), w->qk_norm, w->qk_norm_full, (double)w->softcap,
        (long long)w->window);
}

static struct world random_world(struct ck *c, size_t i)
{
    static const size_t ds[] = { 16, 64, 128, 80, 96, 256, 20, 17, 33 };
    static const ew_dtype types[] = { EW_DTYPE_F32, EW_DTYPE_F16, EW_DTYPE_BF16, EW_DTYPE_F8E4M3,
                                      EW_DTYPE_I8 };
    static const size_t groups[] = { 1, 2, 3, 4, 7, 8 };
    const size_t longest = i % 16 == 15 ? 2 * EW_ATTN_SEGMENT + 60 : i % 4 ? 40 : 150;
    struct world w = { .b = ck_range(c, 1, MAX_B), .n_tok = ck_range(c, 1, longest) };

    w.hkv = ck_range(c, 1, 2);
    w.hq = w.hkv * groups[ck_range(c, 0, 5)];
    w.d = ds[ck_range(c, 0, i % 3 ? 5 : 8)];
    w.rd = ck_rand(c) % 4 ? w.d / 2 * 2 : ck_rand(c) & 1 ? w.d / 4 * 2 : 0;
    w.cap = w.n_tok + ck_range(c, 0, 70);
    w.kv_dtype = types[ck_range(c, 0, 4)];
    if (w.kv_dtype == EW_DTYPE_F8E4M3 && (ck_rand(c) & 1))
        w.kv_scale = malloc(2 * w.hkv * sizeof(float));
    w.qk_norm = ck_rand(c) & 1;
    w.qk_norm_full = w.qk_norm && (ck_rand(c) & 1);
    w.softcap = ck_rand(c) % 3 ? 0.0f : 5.0f;
    w.window = ck_rand(c) % 3 ? -1 : (int64_t)ck_range(c, 1, 50);
    w.pad = ck_rand(c) & 1 ? ck_range(c, 1, 5) : 0;
    w.q_fill = ck_rand(c) % 4 ? Q_NORMAL : Q_OUTLIERS;
    return w;
}

/* Ragged prefill; every row has at least one token. */
static struct step prefill_step(struct ck *c, const struct world *w)
{
    struct step s = { .mode = EW_ATTN_PREFILL, .s = w->n_tok };

    for (size_t b = 0; b < w->b; b++)
        s.n[b] = b == 0 ? (int32_t)w->n_tok : (int32_t)ck_range(c, 1, w->n_tok);
    return s;
}

/* What rounding may shift: scores of normal inputs are about 1, so errors stay near those of sums
 * (rounding of 2^-16 once more shifts the score of a row of 256 by 1e-4, a sixth of what storing
 * f16 does; of some thousand shapes the worst was 54 roundings off); outliers give scores of
 * thousands whose last bit moves whole probabilities. */
static double out_slack(const struct world *w, const struct ew_attn_kernel *kern)
{
    const double rounds = w->kv_dtype == EW_DTYPE_F32 ? 0 : (double)kern->short_error;

    if (w->q_fill == Q_NORMAL)
        return 1e-5 + 64.0 * rounds;
    if (w->softcap != 0)
        return rounds > 0 ? 8000.0
                          : 1.0; /* the length of q times that of k, rounded, is above the cap */
    return 4000.0 * 4e-6 * (w->qk_norm ? 200.0 : 4000.0 * 4000.0);
}

/* Element i of a row of the cache, with its scale. */
static float row_elem(const struct world *w, const unsigned char *row, size_t is_v, size_t h,
                      size_t i)
{
    if (w->kv_dtype == EW_DTYPE_I8)
        return (float)(int8_t)row[i] * attn_row_scale(row, w->d);
    if (w->kv_dtype == EW_DTYPE_F8E4M3)
        return ew_f8e4m3_to_f32(row[i]) * (w->kv_scale ? w->kv_scale[is_v * w->hkv + h] : 1.0f);
    return ck_to_f32(row, w->kv_dtype, i);
}

/* How far two roundings of nearly the same number may be apart. */
static double row_slack(const struct world *w, const unsigned char *row, float x)
{
    const double near = w->q_fill == Q_OUTLIERS ? 2e-2 : 4e-5, size = fabs((double)x);

    switch (w->kv_dtype) {
    case EW_DTYPE_F32:
        return near;
    case EW_DTYPE_F16:
        return 1e-3 * size + near;
    case EW_DTYPE_BF16:
        return 8e-3 * size + near;
    case EW_DTYPE_I8:
        return 1.001 * (double)attn_row_scale(row, w->d) + near;
    default:
        return 0.126 * size + (w->kv_scale ? 0.104 : 1.0) * 0.002 + near;
    }
}

/* The cache against what the reference wrote. V is stored as it comes: its codes are the same. */
static void check_cache(struct ck *c, const struct ew_attn_kernel *kern, const struct world *w,
                        const unsigned char *kv_ref)
{
    const size_t step = attn_row_bytes(w->kv_dtype, w->d), n = w->kv.bytes / step;

    for (size_t r = 0; r < n; r++) {
        const size_t h = r / w->cap % w->hkv, is_v = r / w->cap / w->hkv % 2;
        const unsigned char *a = kv_ref + r * step, *b = w->kv.at + r * step;
        if (is_v && memcmp(a, b, step) != 0) {
            describe(c, kern->name, w, "V in the cache", r, 0);
            return;
        }
        for (size_t i = 0; i < w->d; i++) {
            const float x = row_elem(w, a, is_v, h, i), y = row_elem(w, b, is_v, h, i);
            if (!ck_same_float(x, y) && !(fabs((double)x - (double)y) <= row_slack(w, a, x))) {
                describe(c, kern->name, w, "K in the cache", r, fabs((double)x - (double)y));
                return;
            }
        }
    }
}

/* One token whose V is `x` [20]: its row in the cache goes to `row`. */
static void store_v(const struct ew_attn_kernel *kern, ew_dtype t, const float *scale,
                    const float *x, unsigned char row[24])
{
    enum { D = 20 };
    unsigned char kv[2 * (D + 4)];
    float zero[D] = { 0 }, q_work[D];
    const int32_t len = 1;
    const struct ew_attn_args a = { .mode = EW_ATTN_DECODE,
                                    .b = 1,
                                    .s = 1,
                                    .hq = 1,
                                    .hkv = 1,
                                    .d = D,
                                    .q = zero,
                                    .k = zero,
                                    .v = x,
                                    .kv = kv,
                                    .kv_dtype = t,
                                    .kv_scale = scale,
                                    .cap = 1,
                                    .context_lengths = &len,
                                    .q_work = q_work };

    kern->prep(&a, 0, 1);
    memcpy(row, kv + attn_kv_at(&a, 0, 1, 0, 0), attn_row_bytes(t, D));
}

/* Codes worked out by hand: ties, saturation, rows of zeros and of NaN. */
static void check_codes(struct ck *c, const struct ew_attn_kernel *kern)
{
    static const float x[20] = { 127, -127, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, 63.4f, 63.6f, 1e-9f };
    static const signed char i8[20] = { 127, -127, 0, 2, 2, 0, -2, 63, 64, 0 };
    static const float y[20] = { 1,        -1,        448, 1e9f, -500,      464, 0x1p-9f,
                                 0x1p-10f, 0x1.8p-9f, 17,  19,   0x1.fp-7f, NAN, INFINITY };
    static const unsigned char f8[20] = { 0x38, 0xb8, 0x7e, 0x7e, 0xfe, 0x7e, 0x01,
                                          0x00, 0x02, 0x58, 0x5a, 0x08, 0x7f, 0x7e };
    const float half = 0.5f, scales[2] = { 7, 0.5f }, none[20] = { 0 };
    unsigned char row[24];
    float bad[20] = { 1, 2 }, halved[20];

    store_v(kern, EW_DTYPE_I8, NULL, x, row);
    if (memcmp(row, i8, 20) != 0 || attn_row_scale(row, 20) != 1.0f)
        ck_fail(c, kern->name, "i8 codes, scale %g", (double)attn_row_scale(row, 20));
    store_v(kern, EW_DTYPE_I8, NULL, none, row);
    if (memcmp(row, none, 20) != 0 || attn_row_scale(row, 20) != 0.0f)
        ck_fail(c, kern->name, "i8 row of zeros");
    for (int i = 0; i < 2; i++) {
        bad[17] = i ? NAN : -INFINITY;
        store_v(kern, EW_DTYPE_I8, NULL, bad, row);
        if (memcmp(row, none, 20) != 0 || !isnan(attn_row_scale(row, 20)))
            ck_fail(c, kern->name, "i8 row with %g", (double)bad[17]);
    }
    store_v(kern, EW_DTYPE_F8E4M3, NULL, y, row);
    if (memcmp(row, f8, 20) != 0)
        ck_fail(c, kern->name, "f8e4m3 codes");
    for (size_t i = 0; i < 20; i++)
        halved[i] = y[i] * half;
    store_v(kern, EW_DTYPE_F8E4M3, scales, halved, row);
    if (memcmp(row, f8, 20) != 0)
        ck_fail(c, kern->name, "f8e4m3 codes with a scale");
    c->n_checks += 6;
}

static void check_values(struct ck *c, const struct ew_attn_kernel *kern,
                         const struct ew_attn_kernel *ref, const struct step *s, struct world *w)
{
    const size_t n_out = w->b * w->n_tok * w->hq * w->d, n_q = w->b * s->s * w->hq * w->d;
    float *want = malloc(n_out * 4), *q = malloc(n_q * 4);
    unsigned char *kv_before = malloc(w->kv.bytes), *kv_ref = malloc(w->kv.bytes);

    memcpy(kv_before, w->kv.at, w->kv.bytes);
    if (!world_step(c, w, s, ref, ref))
        describe(c, ref->name, w, "padding not zero", 0, 0);
    memcpy(want, w->out, n_out * 4);
    memcpy(q, w->q_work, n_q * 4);
    memcpy(kv_ref, w->kv.at, w->kv.bytes);
    /* run alone, on what the reference prepared */
    if (!world_step(c, w, s, ref, kern))
        describe(c, kern->name, w, "padding not zero", 0, 0);
    for (size_t i = 0; i < n_out; i++) {
        const double error = fabs((double)want[i] - (double)w->out[i]);
        if (!(error <= out_slack(w, kern))) {
            describe(c, kern->name, w, s->mode == EW_ATTN_TREE ? "tree output" : "output", i,
                     error);
            break;
        }
    }
    /* prep alone */
    memcpy(w->kv.at, kv_before, w->kv.bytes);
    world_step(c, w, s, kern, kern);
    for (size_t i = 0; i < n_q; i++) {
        const double error = fabs((double)q[i] - (double)w->q_work[i]);
        if (!(error <= 4e-6 * (fabs((double)q[i]) + (w->q_fill == Q_OUTLIERS ? 4000 : 5)))) {
            describe(c, kern->name, w, "q_work", i, error);
            break;
        }
    }
    check_cache(c, kern, w, kv_ref);
    free(want);
    free(q);
    free(kv_before);
    free(kv_ref);
}

/* Feeds the whole world in one of several ways and leaves the outputs in w->out. */
static void feed(struct ck *c, const struct ew_attn_kernel *kern, struct world *w,
                 const struct step *whole, int way)
{
    int32_t done[MAX_B] = { 0 };
    bool is_more = true;

    memset(w->kv.at, 0xff, w->kv.bytes);
    memset(w->out, 0, w->b * w->n_tok * w->hq * w->d * 4);
    while (is_more) {
        struct step s = { .mode = way == 1 ? EW_ATTN_CHUNKED : EW_ATTN_DECODE,
                          .s = way == 1 ? ck_range(c, 1, 50) : 1 };
        is_more = false;
        for (size_t b = 0; b < w->b; b++) {
            const int32_t left = whole->n[b] - done[b];
            s.from[b] = done[b];
            s.n[b] = left < (int32_t)s.s ? left : (int32_t)s.s;
            if (s.n[b] == 0 && s.mode == EW_ATTN_DECODE) { /* a finished row asks its last again */
                s.from[b] = done[b] - 1;
                s.n[b] = 1;
            }
            done[b] = s.from[b] + s.n[b];
            is_more = is_more || done[b] < whole->n[b];
        }
        if (!world_step(c, w, &s, kern, kern))
            describe(c, kern->name, w, "padding not zero", 0, 0);
    }
}

static void check_modes(struct ck *c, const struct ew_attn_kernel *kern, const struct step *whole,
                        struct world *w)
{
    static const char *const what[] = { "", "chunks differ from prefill",
                                        "token by token differs from prefill" };
    const size_t n = w->b * w->n_tok * w->hq * w->d;
    float *want = malloc(n * 4);

    memset(w->kv.at, 0xff, w->kv.bytes);
    memset(w->out, 0, n * 4);
    world_step(c, w, whole, kern, kern);
    memcpy(want, w->out, n * 4);
    for (int way = 1; way <= 2; way++) {
        feed(c, kern, w, whole, way);
        for (size_t i = 0; i < n; i++)
            if (!ck_same_float(want[i], w->out[i])) {
                describe(c, kern->name, w, what[way], i, (double)fabsf(want[i] - w->out[i]));
                break;
            }
    }
    free(want);
}

/* The tail of each sequence as a tree: random ancestors, or (is_chain) a causal chain, which must
 * give the bits of the prefill. */
static void check_tree(struct ck *c, const struct ew_attn_kernel *kern,
                       const struct ew_attn_kernel *ref, struct world *w, bool is_chain)
{
    const size_t s_n = ck_range(c, 1, w->n_tok < 40 ? w->n_tok : 40), words = (s_n + 31) / 32;
    struct step all = { .mode = EW_ATTN_PREFILL, .s = w->n_tok },
                s = { .mode = EW_ATTN_TREE, .s = s_n };
    const size_t n = w->b * w->n_tok * w->hq * w->d;
    float *want = malloc(n * 4);

    s.words = words;
    s.mask = calloc(w->b * s_n * words, 4);
    s.pos_id = malloc(w->b * s_n * 4);
    for (size_t b = 0; b < w->b; b++) {
        s.from[b] = (int32_t)(w->n_tok - s_n);
        all.n[b] = (int32_t)w->n_tok;
        s.n[b] = (int32_t)(is_chain ? s_n : ck_range(c, 1, s_n));
        for (size_t i = 0; i < s_n; i++) {
            const size_t parent = is_chain || i == 0 ? i - 1 : ck_range(c, 0, i - 1);
            uint32_t *row = s.mask + (b * s_n + i) * words;
            if (i > 0)
                memcpy(row, s.mask + (b * s_n + parent) * words, words * 4);
            row[i / 32] |= 1u << (i % 32);
            s.pos_id[b * s_n + i] = i > 0 ? s.pos_id[b * s_n + parent] + 1 : s.from[b];
        }
        if (!is_chain && s_n > 1 && (ck_rand(c) & 1))
            s.pos_id[b * s_n + s_n - 1] = -1;
    }
    memset(w->kv.at, 0xff, w->kv.bytes);
    world_step(c, w, &all, kern, kern);
    memcpy(want, w->out, n * 4);
    if (is_chain) {
        world_step(c, w, &s, kern, kern);
        for (size_t i = 0; i < n; i++)
            if (!ck_same_float(want[i], w->out[i])) {
                describe(c, kern->name, w, "chain tree differs from prefill", i,
                         (double)fabsf(want[i] - w->out[i]));
                break;
            }
    } else {
        check_values(c, kern, ref, &s, w);
    }
    free(want);
    free(s.mask);
    free(s.pos_id);
}

/* A row of a batch has the bits that it has alone. */
static void check_batch(struct ck *c, const struct ew_attn_kernel *kern, struct world *w)
{
    struct world one = *w;
    const size_t row = w->n_tok * w->hq * w->d;
    struct step s = { .mode = EW_ATTN_PREFILL, .s = w->n_tok };

    for (size_t b = 0; b < w->b; b++)
        s.n[b] = (int32_t)w->n_tok;
    world_step(c, w, &s, kern, kern);
    one.b = 1;
    one.qkv = w->qkv + (w->b - 1) * w->n_tok * width(w);
    one.out = malloc(row * 4);
    world_step(c, &one, &s, kern, kern);
    for (size_t i = 0; i < row; i++)
        if (!ck_same_float(one.out[i], w->out[(w->b - 1) * row + i])) {
            describe(c, kern->name, w, "alone differs from batch", i, 0);
            break;
        }
    free(one.out);
}

static bool worse(float want, float got, double slack)
{
    if (isfinite(want))
        return !(fabs((double)want - (double)got) <= slack);
    return isfinite(got); /* NaN or infinity: which of them depends on the order of sums */
}

/* Rows of K, V and q that hold NaN, infinity or enormous numbers: who sees them gets what the
 * reference gets, who does not see them gets the bits that it has without them. */
static void check_hostile(struct ck *c, const struct ew_attn_kernel *kern,
                          const struct ew_attn_kernel *ref, ew_dtype t)
{
    struct world w = { .b = 1, .n_tok = ck_range(c, 70, 150), .hq = 4, .hkv = 2, .d = 64, .rd = 0 };
    const size_t n = w.n_tok * w.hq * w.d, bad = ck_range(c, 1, w.n_tok - 2);
    static const float what[] = { NAN, INFINITY, -INFINITY, 1e18f, -3e19f };
    const float x = what[ck_range(c, 0, 4)];
    const size_t column = ck_range(c, 0, 2); /* in q, K or V */
    const double near =
        t == EW_DTYPE_F8E4M3 ? 4e-2 : 1e-3; /* 448 among ones: that is what rounds */
    struct step s = { .mode = EW_ATTN_PREFILL, .s = w.n_tok, .n = { (int32_t)w.n_tok } };
    float *want = malloc(n * 4), *clean = malloc(n * 4);

    w.cap = w.n_tok + 3;
    w.kv_dtype = t;
    world_make(c, &w);
    const size_t head = column == 0 ? ck_range(c, 0, w.hq - 1)
                                    : w.hq + (column - 1) * w.hkv + ck_range(c, 0, w.hkv - 1);
    const size_t elem = ck_range(c, 0, w.d - 1);
    for (size_t i = 0; i < w.n_tok * w.hq; i++) { /* what rounds to 0 would not see the sign of x */
        float *q = &w.qkv[i / w.hq * width(&w) + i % w.hq * w.d + elem];
        *q = fabsf(*q) < 0.25f ? copysignf(0.25f, *q) : *q;
    }
    world_step(c, &w, &s, kern, kern);
    memcpy(clean, w.out, n * 4);
    w.qkv[bad * width(&w) + head * w.d + elem] = x;
    world_step(c, &w, &s, ref, ref);
    memcpy(want, w.out, n * 4);
    world_step(c, &w, &s, kern, kern);
    for (size_t i = 0; i < n; i++) {
        const double slack = near + (isfinite(x) ? fabs((double)want[i]) * 1e-3 : 0);
        if (i / (w.hq * w.d) < bad ? !ck_same_float(clean[i], w.out[i])
                                   : worse(want[i], w.out[i], slack)) {
            describe(c, kern->name, &w, "hostile value", i, (double)want[i] - (double)w.out[i]);
            fprintf(stderr, "  %g in %s of token %zu: %g, wanted %g\n", (double)x,
                    column ? column == 1 ? "K" : "V" : "q", bad, (double)w.out[i], (double)want[i]);
            break;
        }
    }
    check_modes(c, kern, &s, &w);
    c->n_checks += 2;
    free(want);
    free(clean);
    world_drop(&w);
}

void ck_attention(struct ck *c)
{
    static const ew_dtype types[] = { EW_DTYPE_F32, EW_DTYPE_F16, EW_DTYPE_BF16, EW_DTYPE_F8E4M3,
                                      EW_DTYPE_I8 };
    size_t n;
    const struct ew_attn_kernel *const *all = ew_attn_kernels(&n);

    for (size_t i = 0; i < n; i++) {
        if (!ck_wants(c, all[i]->name, all[i]->cpu_need))
            continue;
        const size_t before = c->n_failures;
        check_codes(c, all[i]);
        for (size_t j = 0; j < (i == 0 ? 12 : 60); j++) {
            struct world w = random_world(c, j);
            world_make(c, &w);
            const struct step whole = prefill_step(c, &w);
            check_values(c, all[i], all[0], &whole, &w);
            check_modes(c, all[i], &whole, &w);
            check_tree(c, all[i], all[0], &w, false);
            check_tree(c, all[i], all[0], &w, true);
            check_batch(c, all[i], &w);
            c->n_checks += 5;
            world_drop(&w);
        }
        for (size_t j = 0; j < (i == 0 ? 5 : 50); j++)
            check_hostile(c, all[i], all[0], types[j % 5]);
        printf("%-28s %s\n", all[i]->name, c->n_failures == before ? "ok" : "FAILED");
    }
}

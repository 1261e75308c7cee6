/* check_step_cuda.c - a whole decode step in one kernel (kernels/cuda/step.h) against the same
 * decoder computed in double, two tokens one after the other, of one sequence or of several; and
 * what the planner refuses. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "checkcuda.h"
#include "kernels/cuda/step.h"
#include "op/attrs.h"

#define LAYERS 2 /* at most */
#define EPS    1e-5f

struct decoder {
    size_t hidden, ffn, hq, hkv, d, vocab, cap, context;
    struct ew_quant_format w, head; /* code NONE: plain */
    bool mixed;                     /* o and up are plain all the same */
    ew_dtype plain, kv;
    bool bias, qk_norm, rope_half;
    int act;
    int64_t window;
    float softcap;
    uint32_t n_sm; /* as if the chip had so few; 0: all */
    size_t rows;   /* sequences */
    size_t layers; /* 0: LAYERS */
};

/* Tokens of a sequence: all different, the last one has 1 or few. */
static size_t context_of(const struct decoder *m, size_t row)
{
    return m->context - row * (m->context - 1) / m->rows;
}

struct weight {
    size_t n, k;
    float *rows; /* what the packed form means */
    float *bias;
    uint64_t at, bias_at;
    const struct ew_linear_kernel *layout;
    struct ew_quant_format format;
    bool glu;
};
struct layer {
    struct weight qkv, o, up, down;
    float *norm[2], *q_norm, *k_norm, *kv; /* kv: f32 of what the cache holds */
    uint64_t norm_at[2], q_norm_at, k_norm_at, kv_at;
};
struct model {
    struct layer layer[LAYERS];
    struct weight head;
    float *norm, *rope, *x;
    uint64_t norm_at, rope_at, x_at, context_at, table_at, workspace_at;
    uint64_t h_at, n_at, qkv_at, att_at, up_at, logits_at, token_at;
    size_t rd;
};

static void *xalloc(size_t n, size_t bytes)
{
    void *p = calloc(n + 1, bytes);

    if (!p)
        abort();
    return p;
}

static float *random_floats(struct cc *c, size_t n, float scale, float middle, uint64_t *at)
{
    float *p = xalloc(n, sizeof(*p));

    cc_fill_normal(c, p, n, scale);
    for (size_t i = 0; i < n; i++)
        p[i] += middle;
    *at = cc_input(c, p, n * sizeof(*p));
    return p;
}

/* ---- weights ---- */

struct source {
    struct ew_quant_source base;
    struct ew_quant_rows all;
};
static void source_read(const struct ew_quant_source *base, size_t row, size_t n_rows,
                        const struct ew_quant_rows *out)
{
    const struct source *s = (const struct source *)(const void *)base;
    const size_t k = base->k, groups = ew_quant_groups(&base->format, k);

    memcpy(out->codes, s->all.codes + row * k, n_rows * k);
    memcpy(out->scales, s->all.scales + row * groups, n_rows * groups * sizeof(float));
    memset(out->zeros, 0, n_rows * groups * sizeof(int16_t));
    memcpy(out->row_scale, s->all.row_scale + row, n_rows * sizeof(float));
}

static float scale_as(float v, ew_dtype d)
{
    if (d == EW_DTYPE_F16)
        return ew_f16_to_f32(ew_f32_to_f16(v));
    return d == EW_DTYPE_BF16 ? ew_bf16_to_f32(ew_f32_to_bf16(v)) : v;
}

static void fill_quant(struct cc *c, struct weight *w, struct source *s, void **memory)
{
    const size_t groups = ew_quant_groups(&w->format, w->k);
    const int half = w->format.code == EW_DTYPE_I4 ? 8 : 128;
    const float size = sqrtf(3.0f / (float)w->k) / (float)half;

    *memory = xalloc(ew_quant_rows_bytes(&w->format, w->n, w->k) + 64, 1);
    s->all = ew_quant_rows_carve(&w->format, w->n, w->k, *memory);
    s->base = (struct ew_quant_source){
        .format = w->format, .name = "random", .n = w->n, .k = w->k, .read = source_read
    };
    if (!cc_has_values(c))
        return;
    for (size_t i = 0; i < w->n * w->k; i++)
        s->all.codes[i] = (uint8_t)((int)cc_range(c, 0, (size_t)(2 * half - 1)) - half);
    for (size_t i = 0; i < w->n * groups; i++)
        s->all.scales[i] = w->format.scale == EW_DTYPE_NONE
                               ? 1.0f
                               : scale_as(1.0f + 0.1f * cc_normal(c), w->format.scale);
    for (size_t i = 0; i < w->n; i++)
        s->all.row_scale[i] = size * (1.0f + 0.1f * cc_normal(c));
    for (size_t i = 0; i < w->n; i++)
        ew_quant_decode_row(&w->format, &s->all, i, w->k, w->rows + i * w->k);
}

static void weight_make(struct cc *c, struct weight *w, const struct decoder *m,
                        const struct ew_quant_format *f, size_t n, size_t k, bool glu)
{
    const bool is_quant = ew_quant_is(f);
    const char *name = is_quant ? (f->code == EW_DTYPE_I4 ? "linear_q4__cuda" : "linear_q8__cuda")
                       : m->plain == EW_DTYPE_F16 ? "linear_f16__cuda"
                                                  : "linear_bf16__cuda";
    uint16_t *plain = xalloc(n * k, sizeof(*plain));
    struct source source;
    struct ew_weight_part part = {
        .data = plain, .n_rows = n, .row_stride = (ptrdiff_t)k, .col_stride = 1
    };
    struct ew_pack_args a = {
        .format = f, .parts = &part, .n_parts = 1, .n = n, .k = k, .glu = glu
    };
    void *packed, *memory = NULL;
    size_t bytes;

    *w = (struct weight){ .n = n, .k = k, .format = *f, .glu = glu };
    w->layout = ew_cuda_linear_layout_find(name);
    w->rows = xalloc(n * k, sizeof(float));
    if (is_quant) {
        fill_quant(c, w, &source, &memory);
        part.data = NULL;
        part.quant = &source.base;
    } else {
        cc_fill_normal(c, w->rows, n * k, 1.0f / sqrtf((float)k));
        for (size_t i = 0; i < n * k && cc_has_values(c); i++) {
            plain[i] =
                m->plain == EW_DTYPE_F16 ? ew_f32_to_f16(w->rows[i]) : ew_f32_to_bf16(w->rows[i]);
            w->rows[i] =
                m->plain == EW_DTYPE_F16 ? ew_f16_to_f32(plain[i]) : ew_bf16_to_f32(plain[i]);
        }
    }
    bytes = w->layout->packed_bytes(f, n, k, glu);
    packed = xalloc(bytes, 1);
    a.scratch =
        w->layout->pack_scratch_bytes ? xalloc(w->layout->pack_scratch_bytes(f, k), 1) : NULL;
    if (cc_has_values(c))
        w->layout->pack(packed, &a, 0, w->layout->n_units(n, glu));
    w->at = cc_input(c, packed, bytes);
    if (m->bias)
        w->bias = random_floats(c, n, 0.1f, 0, &w->bias_at);
    free(a.scratch);
    free(packed);
    free(memory);
    free(plain);
}

static void weight_drop(struct weight *w)
{
    free(w->rows);
    free(w->bias);
}

static float kv_round(const struct decoder *m, float v)
{
    return m->kv == EW_DTYPE_F16 ? ew_f16_to_f32(ew_f32_to_f16(v))
                                 : ew_bf16_to_f32(ew_f32_to_bf16(v));
}

static void model_make(struct cc *c, struct model *o, const struct decoder *m)
{
    const size_t qkv = (m->hq + 2 * m->hkv) * m->d, kv = m->rows * 2 * m->hkv * m->cap * m->d;
    int32_t lengths[64] = { 0 };
    uint16_t *half = xalloc(kv, sizeof(*half));

    for (size_t r = 0; r < m->rows; r++) {
        lengths[r] = (int32_t)context_of(m, r);
        lengths[32 + r] = lengths[r] + 1;
    }
    memset(o, 0, sizeof(*o));
    o->rd = m->rope_half ? m->d / 2 : m->d;
    for (size_t i = 0; i < m->layers; i++) {
        static const struct ew_quant_format plain = { 0 };
        const struct ew_quant_format *other = m->mixed ? &plain : &m->w;
        struct layer *l = &o->layer[i];

        weight_make(c, &l->qkv, m, &m->w, qkv, m->hidden, false);
        weight_make(c, &l->o, m, other, m->hidden, m->hq * m->d, false);
        weight_make(c, &l->up, m, other, 2 * m->ffn, m->hidden, true);
        weight_make(c, &l->down, m, &m->w, m->hidden, m->ffn, false);
        for (int k = 0; k < 2; k++)
            l->norm[k] = random_floats(c, m->hidden, 0.1f, 1, &l->norm_at[k]);
        if (m->qk_norm) {
            l->q_norm = random_floats(c, m->d, 0.1f, 1, &l->q_norm_at);
            l->k_norm = random_floats(c, m->d, 0.1f, 1, &l->k_norm_at);
        }
        l->kv = xalloc(kv, sizeof(float));
        cc_fill_normal(c, l->kv, kv, 1);
        for (size_t k = 0; k < kv && cc_has_values(c); k++) {
            half[k] = m->kv == EW_DTYPE_F16 ? ew_f32_to_f16(l->kv[k]) : ew_f32_to_bf16(l->kv[k]);
            l->kv[k] = kv_round(m, l->kv[k]);
        }
        l->kv_at = cc_input(c, half, kv * sizeof(*half));
    }
    weight_make(c, &o->head, m, &m->head, m->vocab, m->hidden, false);
    o->norm = random_floats(c, m->hidden, 0.1f, 1, &o->norm_at);
    o->x = random_floats(c, m->rows * m->hidden, 1, 0, &o->x_at);
    o->rope = xalloc(m->cap * o->rd, sizeof(float));
    for (size_t p = 0; p < m->cap; p++)
        for (size_t i = 0; i < o->rd / 2; i++) {
            const double a = (double)p * pow(1e4, -2.0 * (double)i / (double)o->rd);

            o->rope[p * o->rd + i] = (float)cos(a);
            o->rope[p * o->rd + o->rd / 2 + i] = (float)sin(a);
        }
    o->rope_at = cc_input(c, o->rope, m->cap * o->rd * sizeof(float));
    o->context_at = cc_input(c, lengths, sizeof(lengths));
    o->h_at = cc_output(c, m->rows * m->hidden * 4);
    o->n_at = cc_output(c, m->rows * m->hidden * 4);
    o->qkv_at = cc_output(c, m->rows * qkv * 4);
    o->att_at = cc_output(c, m->rows * m->hq * m->d * 4);
    o->up_at = cc_output(c, m->rows * m->ffn * 4);
    o->logits_at = cc_output(c, m->rows * m->vocab * 4);
    o->token_at = cc_output(c, 2 * m->rows * 4);
    free(half);
}

static void model_drop(struct model *o)
{
    for (size_t i = 0; i < LAYERS; i++) {
        struct layer *l = &o->layer[i];

        weight_drop(&l->qkv);
        weight_drop(&l->o);
        weight_drop(&l->up);
        weight_drop(&l->down);
        free(l->norm[0]);
        free(l->norm[1]);
        free(l->q_norm);
        free(l->k_norm);
        free(l->kv);
    }
    weight_drop(&o->head);
    free(o->norm);
    free(o->rope);
    free(o->x);
}

/* ---- in double ---- */

static double act_of(int act, double z)
{
    switch (act) {
    case EW_ACT_SILU:
        return z / (1 + exp(-z));
    case EW_ACT_GELU_TANH:
        return 0.5 * z * (1 + tanh(0.79788456080286536 * (z + 0.044715 * z * z * z)));
    case EW_ACT_RELU2:
        return z > 0 ? z * z : 0;
    default:
        return z;
    }
}

static void ref_linear(const struct weight *w, const double *x, double *y)
{
    for (size_t i = 0; i < w->n; i++) {
        double sum = w->bias ? w->bias[i] : 0;

        for (size_t k = 0; k < w->k; k++)
            sum += x[k] * w->rows[i * w->k + k];
        y[i] = sum;
    }
}

static void ref_norm(const double *x, const float *w, size_t n, double *y)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    sum = 1 / sqrt(sum / (double)n + EPS);
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] * sum * w[i];
}

static void ref_rotate(const struct model *o, const struct decoder *m, size_t pos, const float *w,
                       double *v)
{
    const float *r = o->rope + pos * o->rd;
    const size_t half = o->rd / 2;

    if (w)
        ref_norm(v, w, m->d, v);
    for (size_t i = 0; i < half; i++) {
        const double a = v[i], b = v[i + half];

        v[i] = a * r[i] - b * r[half + i];
        v[i + half] = b * r[i] + a * r[half + i];
    }
}

static void ref_attention(const struct model *o, const struct layer *l, const struct decoder *m,
                          size_t row, size_t pos, double *qkv, double *out)
{
    const size_t g = m->hq / m->hkv, d = m->d;
    float *kv = l->kv + row * 2 * m->hkv * m->cap * d;
    const size_t from =
        m->window > 0 && pos + 1 > (size_t)m->window ? pos + 1 - (size_t)m->window : 0;
    double *p = xalloc(pos + 1, sizeof(*p));

    for (size_t h = 0; h < m->hq + m->hkv; h++)
        ref_rotate(o, m, pos, h < m->hq ? l->q_norm : l->k_norm, qkv + h * d);
    for (size_t h = 0; h < 2 * m->hkv; h++)
        for (size_t i = 0; i < d; i++)
            kv[(h * m->cap + pos) * d + i] = kv_round(m, (float)qkv[(m->hq + h) * d + i]);
    for (size_t h = 0; h < m->hq; h++) {
        const float *k = kv + h / g * m->cap * d, *v = k + m->hkv * m->cap * d;
        double sum = 0, top = -INFINITY;

        for (size_t t = from; t <= pos; t++) {
            double s = 0;

            for (size_t i = 0; i < d; i++)
                s += qkv[h * d + i] * k[t * d + i];
            s /= sqrt((double)d);
            p[t] = m->softcap != 0 ? m->softcap * tanh(s / m->softcap) : s;
            top = p[t] > top ? p[t] : top;
        }
        for (size_t t = from; t <= pos; t++)
            sum += p[t] = exp(p[t] - top);
        for (size_t i = 0; i < d; i++) {
            double s = 0;

            for (size_t t = from; t <= pos; t++)
                s += p[t] * v[t * d + i];
            out[h * d + i] = s / sum;
        }
    }
    free(p);
}

static void ref_step(const struct model *o, const struct decoder *m, size_t row, size_t pos,
                     float *logits)
{
    const size_t big = (m->hq + 2 * m->hkv) * m->d + 2 * m->ffn + m->hidden + m->vocab;
    double *h = xalloc(m->hidden, 8), *n = xalloc(m->hidden, 8), *y = xalloc(big, 8),
           *z = xalloc(big, 8);

    for (size_t i = 0; i < m->hidden; i++)
        h[i] = o->x[row * m->hidden + i];
    for (size_t i = 0; i < m->layers; i++) {
        const struct layer *l = &o->layer[i];

        ref_norm(h, l->norm[0], m->hidden, n);
        ref_linear(&l->qkv, n, y);
        ref_attention(o, l, m, row, pos, y, z);
        ref_linear(&l->o, z, y);
        for (size_t k = 0; k < m->hidden; k++)
            h[k] += y[k];
        ref_norm(h, l->norm[1], m->hidden, n);
        ref_linear(&l->up, n, y);
        for (size_t k = 0; k < m->ffn; k++)
            z[k] = act_of(m->act, y[k]) * y[m->ffn + k];
        ref_linear(&l->down, z, y);
        for (size_t k = 0; k < m->hidden; k++)
            h[k] += y[k];
    }
    ref_norm(h, o->norm, m->hidden, n);
    ref_linear(&o->head, n, y);
    for (size_t i = 0; i < m->vocab; i++)
        logits[i] = (float)y[i];
    free(h);
    free(n);
    free(y);
    free(z);
}

/* ---- nodes ---- */

static const float *floats_at(uint64_t a)
{
    return (const float *)(uintptr_t)a;
}

static struct ew_cuda_decode_node linear(const char *name, const struct weight *w, size_t rows,
                                         uint64_t x, uint64_t y, uint64_t residual, int act)
{
    const size_t n_out = w->glu ? w->n / 2 : w->n;

    return (struct ew_cuda_decode_node){ .kind = EW_CUDA_DECODE_LINEAR,
                                         .name = name,
                                         .layout = w->layout,
                                         .problem = { .x = x,
                                                      .y = y,
                                                      .w = w->at,
                                                      .bias = w->bias_at,
                                                      .residual = residual,
                                                      .x_stride = w->k,
                                                      .y_stride = n_out,
                                                      .residual_stride = n_out,
                                                      .m = rows,
                                                      .n = w->n,
                                                      .k = w->k,
                                                      .format = w->format,
                                                      .act = act,
                                                      .glu = w->glu,
                                                      .scale = 1 } };
}
static struct ew_cuda_decode_node norm(size_t rows, uint64_t x, uint64_t y, uint64_t w, size_t k)
{
    return (struct ew_cuda_decode_node){ .kind = EW_CUDA_DECODE_NORM,
                                         .name = "norm",
                                         .problem = { .x = x,
                                                      .y = y,
                                                      .norm_weight = w,
                                                      .norm_eps = EPS,
                                                      .x_stride = k,
                                                      .y_stride = k,
                                                      .m = rows,
                                                      .k = k } };
}

#define NODES (LAYERS * 7 + 3)
static size_t make_nodes(const struct model *o, const struct decoder *m, uint64_t context,
                         struct ew_cuda_decode_node *out)
{
    size_t n = 0;
    uint64_t h = o->x_at;

    for (size_t i = 0; i < m->layers; i++) {
        const struct layer *l = &o->layer[i];
        const float *q = floats_at(o->qkv_at);

        out[n++] = norm(m->rows, h, o->n_at, l->norm_at[0], m->hidden);
        out[n++] = linear("qkv", &l->qkv, m->rows, o->n_at, o->qkv_at, 0, 0);
        out[n++] =
            (struct ew_cuda_decode_node){ .kind = EW_CUDA_DECODE_ATTENTION,
                                          .name = "attention",
                                          .attention = { .mode = EW_ATTN_DECODE,
                                                         .b = m->rows,
                                                         .s = 1,
                                                         .hq = m->hq,
                                                         .hkv = m->hkv,
                                                         .d = m->d,
                                                         .q = q,
                                                         .k = q + m->hq * m->d,
                                                         .v = q + (m->hq + m->hkv) * m->d,
                                                         .kv = (void *)(uintptr_t)l->kv_at,
                                                         .kv_dtype = m->kv,
                                                         .cap = m->cap,
                                                         .rope = floats_at(o->rope_at),
                                                         .rope_rows = m->cap,
                                                         .rd = o->rd,
                                                         .context_lengths =
                                                             (const int32_t *)(uintptr_t)context,
                                                         .q_norm = floats_at(l->q_norm_at),
                                                         .k_norm = floats_at(l->k_norm_at),
                                                         .qk_norm_eps = EPS,
                                                         .scale = 1.0f / sqrtf((float)m->d),
                                                         .softcap = m->softcap,
                                                         .window = m->window,
                                                         .out = (float *)(uintptr_t)o->att_at } };
        out[n++] = linear("o", &l->o, m->rows, o->att_at, o->h_at, h, 0);
        h = o->h_at;
        out[n++] = norm(m->rows, h, o->n_at, l->norm_at[1], m->hidden);
        out[n++] = linear("up", &l->up, m->rows, o->n_at, o->up_at, 0, m->act);
        out[n++] = linear("down", &l->down, m->rows, o->up_at, h, h, 0);
    }
    out[n++] = (struct ew_cuda_decode_node){ .kind = EW_CUDA_DECODE_SAME,
                                             .name = "last token",
                                             .problem = { .x = h, .y = o->att_at } };
    out[n++] = norm(m->rows, o->att_at, o->n_at, o->norm_at, m->hidden);
    out[n++] = linear("head", &o->head, m->rows, o->n_at, o->logits_at, 0, 0);
    return n;
}

/* ---- cases ---- */

static bool plan_step(struct cc *c, struct model *o, const struct decoder *m, size_t which,
                      struct ew_cuda_launch *launch)
{
    struct ew_cuda_decode_node nodes[NODES];
    struct ew_step_phase table[NODES];
    struct ew_cuda_decode_plan plan = { .table = table };
    const size_t n = make_nodes(o, m, o->context_at + which * 128, nodes);
    struct ew_cuda_decode_place place = { .token = o->token_at + which * m->rows * 4 };
    struct ew_cuda_chip chip = *cc_chip(c);
    ew_error err = { 0 };

    if (m->n_sm && m->n_sm < chip.n_sm)
        chip.n_sm = m->n_sm;
    if (ew_cuda_decode_plan(nodes, n, &chip, &place, &plan, &err)) {
        cc_fail(c, "%s", err.text);
        return false;
    }
    if (which == 0) {
        o->table_at = cc_input(c, table, plan.table_bytes);
        o->workspace_at = cc_zeroed(c, plan.workspace_bytes);
    }
    place.table = o->table_at;
    place.workspace = o->workspace_at;
    if (ew_cuda_decode_plan(nodes, n, &chip, &place, &plan, &err)) {
        cc_fail(c, "%s", err.text);
        return false;
    }
    *launch = plan.launch;
    return true;
}

static double l2(const float *a, size_t n)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += (double)a[i] * a[i];
    return sqrt(sum / (double)n);
}

static void check_row(struct cc *c, const struct model *o, const struct decoder *m, size_t row,
                      const float *got, int32_t token)
{
    float *want = xalloc(m->vocab, sizeof(float));
    int32_t best = 0;

    ref_step(o, m, row, context_of(m, row) - 1, want);
    ref_step(o, m, row, context_of(m, row), want);
    /* 14 vectors rounded to bf16 one after the other: 2^-9 each at most, 2^-10.5 on
     * average, and the worst of 1000 logits lies four of their deviations away */
    cc_near(c, "logits", got, want, m->vocab, 2.5e-2 * l2(want, m->vocab), 0);
    for (size_t i = 0; i < m->vocab; i++)
        if (got[i] > got[best])
            best = (int32_t)i;
    cc_equal(c, "token", &token, &best, sizeof(best));
    free(want);
}

/* The first token twice (the second time over what the first left), then the next, twice too. */
static void check_decoder(struct cc *c, const struct decoder *decoder, const char *name)
{
    struct decoder m = *decoder;
    struct ew_cuda_launch launch[4];
    struct model o;

    m.rows = m.rows ? m.rows : 1;
    m.layers = m.layers ? m.layers : LAYERS;
    if (!cc_begin(c, "%s context %zu", name, m.context))
        return;
    model_make(c, &o, &m);
    if (plan_step(c, &o, &m, 0, &launch[0]) && plan_step(c, &o, &m, 1, &launch[2])) {
        launch[1] = launch[0];
        launch[3] = launch[2];
        if (cc_launch(c, launch, 4)) {
            const float *got = cc_download(c, o.logits_at);
            const int32_t *token = cc_download(c, o.token_at);

            for (size_t r = 0; r < m.rows; r++)
                check_row(c, &o, &m, r, got + r * m.vocab, token[m.rows + r]);
        }
    }
    model_drop(&o);
    cc_end(c);
}

static const struct ew_quant_format q4_128 = { EW_DTYPE_I4, EW_DTYPE_F16, 128, 0 };
static const struct ew_quant_format q4_64 = { EW_DTYPE_I4, EW_DTYPE_BF16, 64, 0 };
static const struct ew_quant_format q4_32 = { EW_DTYPE_I4, EW_DTYPE_F16, 32, 0 };
static const struct ew_quant_format q8_128 = { EW_DTYPE_I8, EW_DTYPE_F16, 128, 0 };
static const struct ew_quant_format q8_row = { EW_DTYPE_I8, EW_DTYPE_NONE, 0, 0 };

#define QWEN                                                                                       \
    .hidden = 256, .ffn = 768, .hq = 4, .hkv = 2, .d = 128, .vocab = 1000, .cap = 600,             \
    .plain = EW_DTYPE_BF16, .kv = EW_DTYPE_BF16, .qk_norm = true, .act = EW_ACT_SILU

/* Small enough for racecheck to come to its end; the ring goes round some times. */
#define TINY                                                                                       \
    .hidden = 256, .ffn = 256, .hq = 2, .hkv = 1, .d = 64, .vocab = 96, .cap = 80,                 \
    .plain = EW_DTYPE_BF16, .kv = EW_DTYPE_BF16, .qk_norm = true, .act = EW_ACT_SILU, .n_sm = 2

/* The head alone has work for a whole chip. */
#define ONE_LAYER                                                                                  \
    .hidden = 128, .ffn = 128, .hq = 2, .hkv = 1, .d = 64, .vocab = 4000, .cap = 80,               \
    .plain = EW_DTYPE_BF16, .kv = EW_DTYPE_F16, .qk_norm = true, .act = EW_ACT_SILU, .layers = 1

/* Columns in turns of 1024: two for the norms' inputs, more for the other. */
#define WIDE(width)                                                                                \
    .hidden = 1280, .ffn = width, .hq = 10, .hkv = 2, .d = 128, .vocab = 1000, .cap = 600,         \
    .plain = EW_DTYPE_BF16, .kv = EW_DTYPE_F16, .qk_norm = true, .act = EW_ACT_SILU

static void check_refusals(struct cc *c)
{
    static const struct ew_quant_format zeros = { EW_DTYPE_U4, EW_DTYPE_F16, 128, 1 };
    const struct decoder m = { QWEN, .context = 3, .rows = 1, .layers = LAYERS };
    struct ew_cuda_decode_node nodes[NODES];
    struct ew_step_phase table[NODES];
    struct ew_cuda_decode_plan plan = { .table = table };
    const struct ew_cuda_decode_place place = { 0 };
    struct model o;

    if (!cc_begin(c, "refusals"))
        return;
    model_make(c, &o, &m);
    for (int i = 0; i < 10; i++) {
        static const char *const want[] = { "zero points",  "one token",   "node before",
                                            "residual",     "no linear",   "a cache other",
                                            "another num",  "more than 8", "attention made",
                                            "behind a gate" };
        size_t n = make_nodes(&o, &m, o.context_at, nodes);
        ew_error err = { 0 };

        if (i == 0)
            nodes[1].problem.format = zeros;
        if (i == 1)
            nodes[2].attention.b = 2;
        if (i == 2)
            nodes[3].problem.x += 256;
        if (i == 3)
            nodes[6].problem.residual = o.att_at;
        if (i == 4)
            n -= 1;
        if (i == 5)
            nodes[9].attention.kv_dtype = EW_DTYPE_I8;
        if (i == 6)
            nodes[3].problem.m = 2;
        if (i == 7)
            nodes[1].problem.m = 9;
        if (i == 8) {
            nodes[6].problem.residual = o.att_at;
            nodes[6].problem.n = nodes[3].problem.k;
        }
        if (i == 9) {
            nodes[1].problem.m = nodes[3].problem.m = nodes[5].problem.m = 2;
            nodes[2].attention.b = 2;
            nodes[5].problem.residual = o.h_at;
            nodes[5].problem.n = 2 * nodes[5].problem.k;
        }
        if (ew_cuda_decode_plan(nodes, n, cc_chip(c), &place, &plan, &err) !=
                EW_STATUS_UNSUPPORTED ||
            (!strstr(err.text, want[i]) && !(i == 0 && strstr(err.text, "codes other"))))
            cc_fail(c, "change %d is not refused as '%s': '%s'", i, want[i], err.text);
    }
    model_drop(&o);
    cc_end(c);
}

/* Several sequences. */
static void check_rows(struct cc *c, const struct decoder *all, size_t n_all)
{
    for (size_t i = 0; i < n_all; i++) {
        const struct decoder *m = &all[i];
        char name[96];
        int n = snprintf(name, sizeof(name), "rows %zu ", m->rows);

        if (ew_quant_is(&m->w))
            n += snprintf(name + n, sizeof(name) - (size_t)n, "%s g%zu%s ffn %zu ",
                          m->w.code == EW_DTYPE_I4 ? "q4" : "q8", (size_t)m->w.group,
                          m->mixed ? " mixed" : "", m->ffn);
        (void)snprintf(name + n, sizeof(name) - (size_t)n, "hidden %zu d%zu blocks %u", m->hidden,
                       m->d, m->n_sm);
        check_decoder(c, m, name);
    }
}

static void check_rows_plain(struct cc *c)
{
    const struct decoder all[] = {
        { QWEN, .rows = 2, .context = 1 },
        { QWEN, .rows = 2, .context = 130 },
        { QWEN, .rows = 3, .context = 65 },
        { QWEN, .rows = 8, .context = 128 },
        { QWEN, .rows = 8, .context = 599 },
        { QWEN, .rows = 8, .context = 64, .bias = true, .rope_half = true },
        { QWEN, .rows = 5, .context = 333, .window = 100, .softcap = 5 },
        { QWEN, .rows = 8, .context = 580, .n_sm = 4 }, /* several units of attention a block */
        { QWEN, .rows = 2, .context = 590, .n_sm = 31 },
        { .hidden = 320,
          .ffn = 448,
          .hq = 8,
          .hkv = 1,
          .d = 64,
          .vocab = 777,
          .cap = 300,
          .plain = EW_DTYPE_BF16,
          .kv = EW_DTYPE_F16,
          .act = EW_ACT_GELU_TANH,
          .rows = 7,
          .context = 298 },
        { .hidden = 512,
          .ffn = 2048,
          .hq = 12,
          .hkv = 4,
          .d = 64,
          .vocab = 501,
          .cap = 300,
          .plain = EW_DTYPE_F16,
          .kv = EW_DTYPE_F16,
          .act = EW_ACT_RELU2,
          .rows = 4,
          .context = 200 },
        /* columns in several parts and rounds, tiles of several groups */
        { .hidden = 1088,
          .ffn = 3392,
          .hq = 6,
          .hkv = 2,
          .d = 128,
          .vocab = 1000,
          .cap = 100,
          .plain = EW_DTYPE_BF16,
          .kv = EW_DTYPE_BF16,
          .act = EW_ACT_SILU,
          .rows = 6,
          .context = 70,
          .n_sm = 9 },
        { .hidden = 1024,
          .ffn = 3072,
          .hq = 16,
          .hkv = 8,
          .d = 128,
          .vocab = 4000,
          .cap = 300,
          .plain = EW_DTYPE_BF16,
          .kv = EW_DTYPE_F16,
          .qk_norm = true,
          .act = EW_ACT_SILU,
          .rows = 8,
          .context = 130 },
        { ONE_LAYER, .rows = 3, .context = 70 },
        /* the last two before it for tools that are slow: the same kernels on less */
        { .hidden = 1088,
          .ffn = 1088,
          .hq = 6,
          .hkv = 2,
          .d = 128,
          .vocab = 200,
          .cap = 40,
          .plain = EW_DTYPE_BF16,
          .kv = EW_DTYPE_BF16,
          .act = EW_ACT_SILU,
          .rows = 6,
          .context = 20,
          .n_sm = 4 },
        { .hidden = 1024,
          .ffn = 1088,
          .hq = 8,
          .hkv = 4,
          .d = 128,
          .vocab = 200,
          .cap = 40,
          .plain = EW_DTYPE_BF16,
          .kv = EW_DTYPE_F16,
          .qk_norm = true,
          .act = EW_ACT_SILU,
          .rows = 8,
          .context = 20,
          .n_sm = 40 },
    };

    check_rows(c, all, sizeof(all) / sizeof(*all));
}

static void check_rows_quant(struct cc *c)
{
    const struct decoder all[] = {
        { TINY, .w = q4_128, .head = q8_row, .rows = 2, .context = 70 },
        { QWEN, .w = q4_128, .head = q8_row, .rows = 8, .context = 128 },
        { QWEN, .w = q4_64, .head = q8_row, .rows = 5, .context = 40, .bias = true },
        { QWEN, .w = q4_32, .head = q8_128, .rows = 8, .context = 599, .n_sm = 7 },
        { QWEN, .w = q8_128, .head = q4_128, .rows = 3, .context = 333, .window = 100,
          .softcap = 5 },
        { QWEN, .w = q4_128, .mixed = true, .rows = 8, .context = 65 },
        { .hidden = 320,
          .ffn = 448,
          .hq = 8,
          .hkv = 1,
          .d = 64,
          .vocab = 777,
          .cap = 300,
          .plain = EW_DTYPE_F16,
          .kv = EW_DTYPE_F16,
          .act = EW_ACT_GELU_TANH,
          .w = q4_64,
          .head = q8_row,
          .mixed = true,
          .rows = 7,
          .context = 298 },
        /* two, three and more turns, rounds, parts, groups of panels */
        { WIDE(2560), .w = q4_128, .head = q8_row, .rows = 8, .context = 30 },
        { WIDE(4352), .w = q4_128, .head = q8_row, .rows = 6, .context = 30, .n_sm = 9 },
        { WIDE(4416), .w = q8_row, .head = q8_row, .rows = 8, .context = 30, .n_sm = 40 },
        { WIDE(5184), .w = q4_32, .head = q8_128, .rows = 4, .context = 30, .n_sm = 20,
          .layers = 1 },
        { .hidden = 4096,
          .ffn = 1024,
          .hq = 8,
          .hkv = 2,
          .d = 128,
          .vocab = 4000,
          .cap = 40,
          .plain = EW_DTYPE_BF16,
          .kv = EW_DTYPE_F16,
          .qk_norm = true,
          .act = EW_ACT_SILU,
          .w = q4_128,
          .head = q8_row,
          .rows = 8,
          .context = 30,
          .layers = 1 },
        { ONE_LAYER, .w = q4_128, .head = q8_row, .rows = 8, .context = 70 },
    };

    check_rows(c, all, sizeof(all) / sizeof(*all));
}

CC_FAMILY(step_cuda)
{
    static const size_t contexts[] = { 1, 64, 65, 128, 191, 600 - 1 };
    const struct decoder more[] = {
        { QWEN, .w = q4_64, .head = q8_row, .context = 40 },
        { QWEN, .w = q4_32, .head = q8_128, .context = 40 },
        { QWEN, .w = q8_128, .head = q8_row, .context = 40 },
        { WIDE(2560), .w = q4_128, .head = q8_row, .context = 30 },
        { WIDE(4352), .w = q4_128, .head = q8_row, .context = 30 },
        { WIDE(2304), .w = q8_128, .head = q8_row, .context = 30 },
        { WIDE(1536), .w = q4_32, .head = q8_128, .context = 30 },
        { QWEN, .bias = true, .context = 90, .rope_half = true },
        { QWEN, .window = 100, .context = 333, .softcap = 5 },
        { QWEN, .context = 599, .n_sm = 4 }, /* more positions a block than scores at once */
        { QWEN, .w = q4_128, .head = q8_row, .context = 599, .n_sm = 7 },
        { .hidden = 320,
          .ffn = 448,
          .hq = 8,
          .hkv = 1,
          .d = 64,
          .vocab = 777,
          .cap = 300,
          .plain = EW_DTYPE_BF16,
          .kv = EW_DTYPE_F16,
          .act = EW_ACT_GELU_TANH,
          .context = 299 },
        { .hidden = 512,
          .ffn = 2048,
          .hq = 12,
          .hkv = 4,
          .d = 64,
          .vocab = 501,
          .cap = 300,
          .plain = EW_DTYPE_F16,
          .kv = EW_DTYPE_F16,
          .act = EW_ACT_RELU2,
          .context = 200 },
        { QWEN, .context = 40, .n_sm = 2 }, /* phases longer than the ring */
        { TINY, .context = 70 },
        { TINY, .w = q4_128, .head = q8_row, .context = 70 },
        { ONE_LAYER, .context = 70 },
        { ONE_LAYER, .w = q4_128, .head = q8_row, .context = 70 },
    };
    static const char *const names[] = { "q4 g64 bf16",    "q4 g32",         "q8 g128",
                                         "q4 3 turns",     "q4 parts",       "q8 parts",
                                         "q4 g32 2 turns", "bias half-rope", "window softcap",
                                         "bf16 4 blocks",  "q4 7 blocks",    "d64 g8 gelu",
                                         "f16 d64 g3",     "bf16 long",      "bf16 2 blocks",
                                         "q4 2 blocks",    "bf16 1 layer",   "q4 1 layer" };

    for (size_t i = 0; i < sizeof(contexts) / sizeof(*contexts); i++) {
        const struct decoder plain = { QWEN, .context = contexts[i] };
        const struct decoder quant = { QWEN, .w = q4_128, .head = q8_row, .context = contexts[i] };

        check_decoder(c, &plain, "bf16");
        check_decoder(c, &quant, "q4 g128");
    }
    for (size_t i = 0; i < sizeof(more) / sizeof(*more); i++)
        check_decoder(c, &more[i], names[i]);
    check_rows_plain(c);
    check_rows_quant(c);
    check_refusals(c);
}

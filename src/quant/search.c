/* quant/search.c - scales that move magnitude between a layer's inputs and its weights without
 * changing the product: AWQ (Lin et al. 2023) makes the channels that matter easier to round,
 * SmoothQuant (Xiao et al. 2022) takes outliers off the activations. Both choose a strength by the
 * output error on calibration inputs. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/half.h"
#include "base/size.h"
#include "quant/quant.h"

#define STRENGTHS 20
#define MAX_ROWS  512 /* calibration inputs that judge a strength */

struct search {
    struct ew_q_run *r;
    struct ew_q_fold *f;
    size_t m, max_n;
    float *x;                   /* [m][k], a sample */
    float *magnitude, *s;       /* [k] */
    float *wmax;                /* [k], largest weight of a column */
    float *xs, *ws, *y;         /* scaled copies, products */
    float *want[EW_Q_FOLD_MAX]; /* [m][n] of each consumer */
    bool smooth;
};

static void free_search(struct search *a)
{
    ew_mem_free(a->x);
    ew_mem_free(a->magnitude);
    ew_mem_free(a->s);
    ew_mem_free(a->wmax);
    ew_mem_free(a->xs);
    ew_mem_free(a->ws);
    ew_mem_free(a->y);
    for (size_t i = 0; i < EW_Q_FOLD_MAX; i++)
        ew_mem_free(a->want[i]);
}

static float *floats(size_t n, size_t m)
{
    size_t count;

    return ew_size_mul(n, m, &count) ? ew_mem_calloc(EW_MEM_CHECKPOINT, count, sizeof(float))
                                     : NULL;
}

/* Channels whose s must be equal get their mean: heads that read the same kv head. */
static void share(const struct ew_q_fold *f, float *v)
{
    const size_t d = f->share, heads = d ? f->k / d : 0;

    for (size_t h = 0; d && f->heads_per_kv > 1 && h < heads; h += f->heads_per_kv)
        for (size_t i = 0; i < d; i++) {
            float mean = 0;

            for (size_t j = 0; j < f->heads_per_kv; j++)
                mean += v[(h + j) * d + i] / (float)f->heads_per_kv;
            for (size_t j = 0; j < f->heads_per_kv; j++)
                v[(h + j) * d + i] = mean;
        }
}

static void measure(struct search *a)
{
    const struct ew_q_fold *f = a->f;
    const size_t n = a->r->n_tokens, k = f->k;

    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < k; j++) {
            const float v = fabsf(f->x[i * k + j]);

            a->magnitude[j] = a->smooth ? fmaxf(a->magnitude[j], v) : a->magnitude[j] + v;
        }
    for (size_t c = 0; c < f->n_consumers; c++)
        for (size_t i = 0; i < f->consumers[c]->n; i++)
            for (size_t j = 0; j < k; j++)
                a->wmax[j] = fmaxf(a->wmax[j], fabsf(f->weights[c][i * k + j]));
    share(f, a->magnitude);
    share(f, a->wmax);
}

static ew_status prepare(struct search *a)
{
    const struct ew_q_fold *f = a->f;
    const size_t k = f->k, n = a->r->n_tokens, step = (n + MAX_ROWS - 1) / MAX_ROWS;
    bool good;

    a->m = n / step;
    for (size_t c = 0; c < f->n_consumers; c++)
        a->max_n = f->consumers[c]->n > a->max_n ? f->consumers[c]->n : a->max_n;
    a->x = floats(a->m, k);
    a->xs = floats(a->m, k);
    a->magnitude = floats(k, 1);
    a->wmax = floats(k, 1);
    a->s = floats(k, 1);
    a->ws = floats(a->max_n, k);
    a->y = floats(a->m, a->max_n);
    good = a->x && a->xs && a->magnitude && a->wmax && a->s && a->ws && a->y;
    for (size_t c = 0; good && c < f->n_consumers; c++) {
        a->want[c] = floats(a->m, f->consumers[c]->n);
        good = a->want[c] != NULL;
    }
    if (!good)
        return ew_fail(a->r->err, EW_STATUS_NO_MEMORY, "no memory to search scales");
    for (size_t i = 0; i < a->m; i++)
        memcpy(a->x + i * k, f->x + i * step * k, k * sizeof(*a->x));
    measure(a);
    for (size_t c = 0; c < f->n_consumers; c++)
        EW_TRY(ew_q_matmul(a->r, a->x, a->m, f->weights[c], f->consumers[c]->n, k, a->want[c]));
    return EW_STATUS_OK;
}

/* s of one strength, its extremes centred on 1. */
static void make_scales(struct search *a, float strength)
{
    float min = FLT_MAX, max = 0;

    for (size_t j = 0; j < a->f->k; j++) {
        const float x = fmaxf(a->magnitude[j], 1e-8f), w = fmaxf(a->wmax[j], 1e-8f);
        const float v = a->smooth ? powf(w, 1 - strength) / powf(x, strength) : powf(x, strength);

        a->s[j] = v;
        min = fminf(min, v);
        max = fmaxf(max, v);
    }
    for (size_t j = 0; j < a->f->k; j++) {
        /* SmoothQuant divides inputs by x^a / w^(1-a): s, which weights are multiplied with */
        const float v = a->s[j] / sqrtf(min * max);

        a->s[j] = fminf(fmaxf(a->smooth ? 1 / v : v, 1e-4f), 1e4f);
    }
}

/* What a run with int8 activations would see: each row on its own grid of 127 steps. */
static void round_inputs(float *x, size_t m, size_t k)
{
    for (size_t i = 0; i < m; i++) {
        float max = 0;

        for (size_t j = 0; j < k; j++)
            max = fmaxf(max, fabsf(x[i * k + j]));
        for (size_t j = 0; max > 0 && j < k; j++)
            x[i * k + j] = rintf(x[i * k + j] * 127 / max) * max / 127;
    }
}

struct rounding {
    const struct search *a;
    const struct ew_q_format *format;
    const float *w;
};

/* Rows of w times s, rounded as RTN would. */
static void round_rows(void *arg, size_t begin, size_t end)
{
    const struct rounding *p = arg;
    const size_t k = p->a->f->k, g = ew_q_group(p->format, k);

    for (size_t i = begin; i < end; i++) {
        float *to = p->a->ws + i * k;

        for (size_t j = 0; j < k; j++)
            to[j] = p->w[i * k + j] * p->a->s[j];
        for (size_t j = 0; j < k; j += g) {
            float scale;
            uint8_t zero;

            ew_q_fit(p->format, to + j, NULL, g, 1, false, &scale, &zero);
            ew_q_round(p->format, to + j, g, scale, zero, NULL, to + j);
        }
    }
}

static ew_status judge(struct search *a, double *loss)
{
    const struct ew_q_fold *f = a->f;

    *loss = 0;
    for (size_t i = 0; i < a->m; i++)
        for (size_t j = 0; j < f->k; j++)
            a->xs[i * f->k + j] = a->x[i * f->k + j] / a->s[j];
    if (a->smooth)
        round_inputs(a->xs, a->m, f->k);
    for (size_t c = 0; c < f->n_consumers; c++) {
        const size_t n = f->consumers[c]->n;
        struct rounding p = { a, &f->consumers[c]->scheme.format, f->weights[c] };
        double sum = 0;

        ew_q_parallel(a->r, n, round_rows, &p);
        EW_TRY(ew_q_matmul(a->r, a->xs, a->m, a->ws, n, f->k, a->y));
        for (size_t i = 0; i < a->m * n; i++) {
            const double e = (double)a->y[i] - (double)a->want[c][i];

            sum += e * e;
        }
        *loss += sum;
    }
    return EW_STATUS_OK;
}

/* The norm is stored short: s becomes what its rounding leaves, so that the product stays. */
static void fold_norm(const struct ew_q_fold *f, float *s)
{
    const float plus = f->norm_plus_one ? 1 : 0;

    for (size_t j = 0; j < f->k; j++) {
        float stored = f->norm[j] / s[j] - plus;

        if (f->norm_dtype == EW_DTYPE_BF16)
            stored = ew_bf16_to_f32(ew_f32_to_bf16(stored));
        else if (f->norm_dtype == EW_DTYPE_F16)
            stored = ew_f16_to_f32(ew_f32_to_f16(stored));
        if (fabsf(f->norm[j]) < 1e-6f || fabsf(stored + plus) < 1e-6f || !isfinite(stored)) {
            s[j] = 1;
            continue;
        }
        s[j] = f->norm[j] / (stored + plus);
        f->norm[j] = stored + plus;
    }
}

/* Row of the producer that makes channel j. */
static size_t producer_row(const struct ew_q_fold *f, size_t j)
{
    return f->share ? j / f->share / f->heads_per_kv * f->share + j % f->share : j;
}

static void apply(struct search *a)
{
    struct ew_q_fold *f = a->f;
    const size_t k = f->k;

    if (f->norm)
        fold_norm(f, a->s);
    for (size_t j = 0; f->rows && j < k; j++) {
        const size_t row = producer_row(f, j);
        const bool first = !f->share || j / f->share % f->heads_per_kv == 0;

        for (size_t i = 0; first && i < f->rows_k; i++)
            f->rows[row * f->rows_k + i] /= a->s[j];
        if (first && f->rows_bias)
            f->rows_bias[row] /= a->s[j];
    }
    for (size_t c = 0; c < f->n_consumers; c++)
        for (size_t i = 0; i < f->consumers[c]->n; i++)
            for (size_t j = 0; j < k; j++)
                f->weights[c][i * k + j] *= a->s[j];
    for (size_t i = 0; i < a->r->n_tokens; i++)
        for (size_t j = 0; j < k; j++)
            f->x[i * k + j] /= a->s[j];
}

ew_status ew_q_fold_search(struct ew_q_run *r, struct ew_q_fold *f, bool smooth, double *gain)
{
    struct search a = { .r = r, .f = f, .smooth = smooth };
    double best = 0, first = 0;
    int chosen = -1;
    ew_status st = prepare(&a);

    for (int i = -1; !st && i <= STRENGTHS; i++) { /* -1: as it is */
        double loss;

        for (size_t j = 0; i < 0 && j < f->k; j++)
            a.s[j] = 1;
        if (i >= 0)
            make_scales(&a, (float)i / STRENGTHS);
        st = judge(&a, &loss);
        if (!st && (i < 0 || loss < best)) {
            best = loss;
            chosen = i;
        }
        first = i < 0 ? loss : first;
    }
    if (!st && chosen >= 0) {
        make_scales(&a, (float)chosen / STRENGTHS);
        apply(&a);
    }
    *gain = first > 0 ? best / first : 1;
    free_search(&a);
    return st;
}

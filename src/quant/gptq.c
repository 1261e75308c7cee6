/* quant/gptq.c - rounding with error compensation (GPTQ, Frantar et al. 2022): the error of each
 * column is moved onto the columns not yet rounded, by the inverse Hessian of the layer's inputs.
 */
#include <math.h>
#include <string.h>

#include "base/size.h"
#include "quant/quant.h"

#define BLOCK 128 /* columns whose updates of later columns are collected */
#define TILE  8   /* rows that share a pass over the factor */
#define PANEL 64  /* columns a step of the Cholesky factorisation */

/* ---- factor of the inverse ---- */

struct cholesky {
    float *a; /* [k][k], lower triangle becomes the factor */
    size_t k, at, width;
    float *panel; /* [PANEL][k], the panel transposed */
    float *inverse;
};

/* Rows of the panel below the diagonal block: L[i][at..] = A[i][at..] D^-T. */
static void solve_panel(void *arg, size_t begin, size_t end)
{
    const struct cholesky *c = arg;
    const size_t from = c->at + c->width;

    for (size_t i = from + begin; i < from + end; i++) {
        float *row = c->a + i * c->k + c->at;

        for (size_t j = 0; j < c->width; j++) {
            const float *d = c->a + (c->at + j) * c->k + c->at;
            float v = row[j];

            for (size_t l = 0; l < j; l++)
                v -= row[l] * d[l];
            row[j] = v / d[j];
            c->panel[j * c->k + i] = row[j];
        }
    }
}

static void update_rest(void *arg, size_t begin, size_t end)
{
    const struct cholesky *c = arg;
    const size_t from = c->at + c->width;

    for (size_t i = from + begin; i < from + end; i++) {
        float *row = c->a + i * c->k;

        for (size_t l = 0; l < c->width; l++) {
            const float f = row[c->at + l], *p = c->panel + l * c->k;

            for (size_t j = from; j <= i; j++)
                row[j] -= f * p[j];
        }
    }
}

/* False when the matrix is not positive definite to working precision. */
static bool factor_diagonal(struct cholesky *c)
{
    for (size_t i = c->at; i < c->at + c->width; i++) {
        float *row = c->a + i * c->k;

        for (size_t j = c->at; j <= i; j++) {
            const float *other = c->a + j * c->k;
            double v = (double)row[j];

            for (size_t l = c->at; l < j; l++)
                v -= (double)row[l] * (double)other[l];
            if (i == j && !(v > 0))
                return false;
            row[j] = (float)(i == j ? sqrt(v) : v / (double)other[j]);
        }
    }
    return true;
}

/* Columns [begin, end) of the inverse of the lower factor. */
static void invert_columns(void *arg, size_t begin, size_t end)
{
    const struct cholesky *c = arg;

    for (size_t c0 = begin; c0 < end; c0 += PANEL) {
        const size_t c1 = c0 + PANEL < end ? c0 + PANEL : end;

        for (size_t i = c0; i < c->k; i++) {
            float *to = c->inverse + i * c->k;
            const float *l = c->a + i * c->k;

            for (size_t j = c0; j < c1; j++)
                to[j] = i == j ? 1 : 0;
            for (size_t m = c0; m < i; m++) {
                const float *from = c->inverse + m * c->k;

                for (size_t j = c0; j < c1; j++)
                    to[j] -= l[m] * from[j];
            }
            for (size_t j = c0; j < c1; j++)
                to[j] /= l[i];
        }
    }
}

static void reverse(float *v, size_t n)
{
    for (size_t i = 0; i < n / 2; i++) {
        const float t = v[i];

        v[i] = v[n - 1 - i];
        v[n - 1 - i] = t;
    }
}

ew_status ew_q_inverse_factor(struct ew_q_run *r, float *h, size_t k, float damp, float *u)
{
    struct cholesky c = { .a = h, .k = k, .inverse = u };
    double trace = 0;
    bool good = true;

    c.panel = ew_mem_calloc(EW_MEM_CHECKPOINT, PANEL * k, sizeof(*c.panel));
    if (!c.panel)
        return ew_fail(r->err, EW_STATUS_NO_MEMORY, "no memory to factor %zu x %zu", k, k);
    for (size_t i = 0; i < k; i++)
        trace += (double)h[i * k + i];
    for (size_t i = 0; i < k; i++)
        h[i * k + i] += damp * (float)(trace / (double)k) + 1e-20f;
    /* U upper with U^T U = H^-1: factor H with both orders reversed, invert, reverse again. */
    reverse(h, k * k);
    for (c.at = 0; good && c.at < k; c.at += PANEL) {
        c.width = k - c.at < PANEL ? k - c.at : PANEL;
        good = factor_diagonal(&c);
        if (good && c.at + c.width < k) {
            ew_q_parallel(r, k - c.at - c.width, solve_panel, &c);
            ew_q_parallel(r, k - c.at - c.width, update_rest, &c);
        }
    }
    ew_mem_free(c.panel);
    if (!good)
        return EW_STATUS_LIMIT;
    memset(u, 0, k * k * sizeof(*u));
    ew_q_parallel(r, k, invert_columns, &c);
    reverse(u, k * k);
    return EW_STATUS_OK;
}

/* ---- rounding ---- */

struct gptq {
    float *w;
    const float *u, *importance;
    const size_t *order; /* column j of u is column order[j] of w; NULL: the same */
    struct ew_q_tensor *q;
};

/* Scale of the group that column j opens: of the compensated values, or with an order (where a
 * group's columns come one by one) of the original ones. */
static void open_groups(const struct gptq *g, const float *tile, size_t row, size_t n, size_t j)
{
    struct ew_q_tensor *q = g->q;
    const size_t len = ew_q_group(&q->format, q->k);

    if (g->order || j % len)
        return;
    for (size_t t = 0; t < n; t++) {
        const size_t at = (row + t) * q->n_groups + j / len;
        uint8_t zero;

        ew_q_fit(&q->format, tile + t * q->k + j, g->importance + j, len, q->global, true,
                 &q->scale[at], &zero);
        if (q->zero)
            q->zero[at] = zero;
    }
}

/* Rounds column j of the tile; errors (over the pivot) into err[t]. */
static void round_column(const struct gptq *g, const float *tile, size_t row, size_t n, size_t j,
                         float *err)
{
    struct ew_q_tensor *q = g->q;
    const size_t len = ew_q_group(&q->format, q->k), col = g->order ? g->order[j] : j;
    const float pivot = g->u[j * q->k + j];

    for (size_t t = 0; t < n; t++) {
        const size_t at = (row + t) * q->n_groups + col / len, to = (row + t) * q->k + col;
        const uint8_t zero = q->zero ? q->zero[at] : 0;
        const float v = tile[t * q->k + j];

        q->codes[to] = ew_q_encode(&q->format, v, q->scale[at], zero);
        g->w[to] = ew_q_decode(&q->format, q->codes[to], q->scale[at], zero);
        err[t] = (v - g->w[to]) / pivot;
    }
}

static void round_tile(const struct gptq *g, float *tile, size_t row, size_t n)
{
    const size_t k = g->q->k;
    float err[BLOCK][TILE];

    for (size_t t = 0; t < n; t++)
        for (size_t j = 0; j < k; j++)
            tile[t * k + j] = g->w[(row + t) * k + (g->order ? g->order[j] : j)];
    for (size_t b = 0; b < k; b += BLOCK) {
        const size_t end = b + BLOCK < k ? b + BLOCK : k;

        for (size_t j = b; j < end; j++) {
            const float *u = g->u + j * k;

            open_groups(g, tile, row, n, j);
            round_column(g, tile, row, n, j, err[j - b]);
            for (size_t t = 0; t < n; t++)
                for (size_t l = j + 1; l < end; l++)
                    tile[t * k + l] -= err[j - b][t] * u[l];
        }
        for (size_t j = b; j < end; j++)
            for (size_t t = 0; t < n; t++)
                for (size_t l = end; l < k; l++)
                    tile[t * k + l] -= err[j - b][t] * g->u[j * k + l];
    }
}

static void round_rows(void *arg, size_t begin, size_t end)
{
    const struct gptq *g = arg;
    float *tile = ew_mem_calloc(EW_MEM_CHECKPOINT, TILE * g->q->k, sizeof(*tile));

    for (size_t i = begin; tile && i < end; i += TILE)
        round_tile(g, tile, i, end - i < TILE ? end - i : TILE);
    if (!tile)
        g->q->codes[begin * g->q->k] = INT16_MIN; /* seen by the caller */
    ew_mem_free(tile);
}

ew_status ew_q_gptq(struct ew_q_run *r, float *w, const float *u, const float *importance,
                    const size_t *order, struct ew_q_tensor *q)
{
    struct gptq g = { w, u, importance, order, q };
    const size_t len = ew_q_group(&q->format, q->k);

    for (size_t i = 0; order && i < q->n * q->n_groups; i++) {
        const size_t at = i / q->n_groups * q->k + i % q->n_groups * len;
        uint8_t zero;

        ew_q_fit(&q->format, w + at, importance + i % q->n_groups * len, len, q->global, true,
                 &q->scale[i], &zero);
        if (q->zero)
            q->zero[i] = zero;
    }
    ew_q_parallel(r, q->n, round_rows, &g);
    for (size_t i = 0; i < q->n; i++)
        if (q->codes[i * q->k] == INT16_MIN)
            return ew_fail(r->err, EW_STATUS_NO_MEMORY, "no memory to round %zu rows", q->n);
    return EW_STATUS_OK;
}

/* check_rowops.c - tables of row kernels against plain sums in double and libm. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkkern.h"
#include "kernels/rowops.h"

static void check_rmsnorm(struct ck *c, const struct ew_rowops *t, size_t i)
{
    static const size_t ns[] = { 1, 3, 17, 64, 100, 128, 1000, 1024 };
    const size_t rows = ck_range(c, 1, 5), n = ns[ck_range(c, 0, 7)], len = rows * n;
    const enum ck_fill fill = (enum ck_fill)(i % CK_SPECIAL);
    struct ck_mem xm = ck_mem_make(len * 4), wm = ck_mem_make(n * 4), rm = ck_mem_make(len * 4),
                  ym = ck_mem_make(len * 4);
    float *x = (float *)(void *)xm.at, *w = (float *)(void *)wm.at, *r = (float *)(void *)rm.at,
          *y = (float *)(void *)ym.at;
    const bool has_residual = i & 1, in_place = i & 2;

    ck_fill(c, x, len, fill);
    ck_fill(c, w, n, CK_NORMAL);
    ck_fill(c, r, len, CK_NORMAL);
    memcpy(y, in_place && has_residual ? r : x, len * 4);
    t->rmsnorm(y, in_place && !has_residual ? y : x, w, has_residual ? (in_place ? y : r) : NULL,
               rows, n, 1e-6f);
    for (size_t j = 0; j < len; j++) {
        double sum = 0;
        for (size_t k = 0; k < n; k++)
            sum += (double)x[j / n * n + k] * (double)x[j / n * n + k];
        const double v = (double)x[j] / sqrt(sum / (double)n + 1e-6f) * (double)w[j % n];
        const double want = v + (has_residual ? (double)r[j] : 0);
        const double slack = 4e-6 * fabs(v) + 1e-7 * fabs(want) + 1e-44;
        if (!(fabs((double)y[j] - want) <= slack)) {
            ck_fail(c, t->name, "rmsnorm at %zu: %g, not %g; rows %zu n %zu fill %s residual %d", j,
                    (double)y[j], want, rows, n, ck_fill_text(fill), has_residual);
            break;
        }
    }
    c->n_checks++;
    ck_mem_drop(&xm);
    ck_mem_drop(&wm);
    ck_mem_drop(&rm);
    ck_mem_drop(&ym);
}

/* One instruction against the reference table over many values, each element an own case. */
static void check_instruction(struct ck *c, const struct ew_rowops *t, const struct ew_rowops *ref,
                              int op, enum ck_fill fill)
{
    const size_t n = ck_range(c, 1, 700), step[2] = { 1, ck_rand(c) & 1 };
    struct ck_mem am = ck_mem_make(n * 4), bm = ck_mem_make(n * 4), ym = ck_mem_make(n * 4);
    float *a = (float *)(void *)am.at, *b = (float *)(void *)bm.at, *y = (float *)(void *)ym.at;
    float *want = malloc(n * 4);
    const struct ew_attr_pointwise p = {
        .n_instr = 1, .instr = { { .op = (uint8_t)op, .dst = 2, .a = 0, .b = 1, .imm = 0.7f } }
    };
    const float *const in[2] = { a, b };
    const double bar = op == EW_PW_POW ? 1e-5 : 2e-6;

    ck_fill(c, a, n, fill);
    ck_fill(c, b, n, fill);
    for (size_t i = 0; i < n && fill == CK_NORMAL; i++)
        a[i] *= (float)(1 << (ck_rand(c) % 8)); /* the tails of exp, tanh, erf */
    ref->pointwise(&p, want, in, step, 2, n);
    t->pointwise(&p, y, in, step, 2, n);
    for (size_t i = 0; i < n; i++) {
        const double error = fabs((double)y[i] - (double)want[i]);
        const bool is_fine = ck_same_float(y[i], want[i]) || error <= bar ||
                             error <= bar * fabs((double)want[i]) ||
                             (fabs((double)want[i]) > 3.4e38 && fabs((double)y[i]) > 3.4e38 &&
                              (want[i] > 0) == (y[i] > 0));
        if (!is_fine) {
            ck_fail(c, t->name, "pointwise op %d at %zu of %zu: f(%g, %g) = %g, not %g; fill %s",
                    op, i, n, (double)a[i], (double)b[i * step[1]], (double)y[i], (double)want[i],
                    ck_fill_text(fill));
            break;
        }
    }
    c->n_checks++;
    free(want);
    ck_mem_drop(&am);
    ck_mem_drop(&bm);
    ck_mem_drop(&ym);
}

/* A chain that reuses registers and writes over an input, in place. */
static void check_program(struct ck *c, const struct ew_rowops *t)
{
    const size_t n = ck_range(c, 1, 1000), step[3] = { 1, 1, 0 };
    const struct ew_attr_pointwise p = { .n_instr = 4,
                                         .instr = { { EW_PW_MUL, 0, 0, 2, 0 },
                                                    { EW_PW_ADD, 3, 0, 1, 0 },
                                                    { EW_PW_ADD_IMM, 3, 3, 0, 0.5f },
                                                    { EW_PW_MUL, 1, 3, 0, 0 } } };
    float *a = malloc(n * 4), *b = malloc(n * 4), *y = malloc(n * 4);
    const float s = ck_normal(c), *const in[3] = { y, b, &s };

    ck_fill(c, a, n, CK_NORMAL);
    ck_fill(c, b, n, CK_NORMAL);
    memcpy(y, a, n * 4);
    t->pointwise(&p, y, in, step, 3, n);
    for (size_t i = 0; i < n; i++) {
        const float x = a[i] * s, z = (x + b[i]) + 0.5f;
        if (fabsf(y[i] - z * x) > 1e-5f) {
            ck_fail(c, t->name, "program at %zu of %zu: %g, not %g", i, n, (double)y[i],
                    (double)(z * x));
            break;
        }
    }
    c->n_checks++;
    free(a);
    free(b);
    free(y);
}

static void check_topk(struct ck *c, const struct ew_rowops *t, size_t i)
{
    const size_t rows = 3, e = ck_range(c, 4, 130), k = ck_range(c, 1, e < 8 ? e : 8);
    struct ck_mem m = ck_mem_make(rows * e * 4);
    float *x = (float *)(void *)m.at, prob[24];
    int32_t idx[24];

    ck_fill(c, x, rows * e, i % 3 ? CK_NORMAL : CK_EQUAL);
    for (size_t j = 0; i % 3 == 2 && j < rows * e; j++)
        x[j] = (float)(int)x[j]; /* ties */
    t->topk_softmax(x, rows, e, k, i & 1, idx, prob);
    for (size_t r = 0; r < rows; r++) {
        double sum = 0, top = 0;
        for (size_t j = 0; j < e; j++)
            sum += exp((double)x[r * e + j]);
        for (size_t j = 0; j < k; j++)
            top += exp((double)x[r * e + (size_t)idx[r * k + j]]);
        for (size_t j = 0; j < k; j++) {
            const size_t at = (size_t)idx[r * k + j];
            size_t rank = 0; /* how many come before it */
            for (size_t q = 0; q < e; q++)
                rank += x[r * e + q] > x[r * e + at] || (x[r * e + q] >= x[r * e + at] && q < at);
            const double want = exp((double)x[r * e + at]) / (i & 1 ? top : sum);
            if (rank != j || fabs(want - (double)prob[r * k + j]) > 2e-6)
                ck_fail(c, t->name, "topk row %zu rank %zu: index %zu has rank %zu, p %g, not %g",
                        r, j, at, rank, (double)prob[r * k + j], want);
        }
    }
    c->n_checks++;
    ck_mem_drop(&m);
}

/* All 65536 short floats, and floats near every rounding edge. */
static void check_conversions(struct ck *c, const struct ew_rowops *t, const struct ew_rowops *ref)
{
    const size_t n = 65536 + 5;
    uint16_t *h = malloc(n * 2), *g = malloc(n * 2);
    float *a = malloc(n * 4), *b = malloc(n * 4);

    for (int bf = 0; bf < 2; bf++) {
        for (size_t i = 0; i < n; i++)
            h[i] = (uint16_t)i;
        (bf ? t->bf16_to_f32 : t->f16_to_f32)(a, h, n);
        (bf ? ref->bf16_to_f32 : ref->f16_to_f32)(b, h, n);
        for (size_t i = 0; i < n; i++)
            if (!ck_same_float(a[i], b[i])) {
                ck_fail(c, t->name, "%s_to_f32 of %zx", bf ? "bf16" : "f16", i);
                break;
            }
        for (size_t i = 0; i < n; i++) {
            uint32_t u = (uint32_t)ck_rand(c);
            if (i & 1) { /* close to a short float, or half way between two */
                memcpy(&u, &b[i], 4);
                u += (uint32_t)(bf ? 0x7fff : 0xfff) + (uint32_t)(ck_rand(c) % 3);
            }
            memcpy(&a[i], &u, 4);
        }
        (bf ? t->f32_to_bf16 : t->f32_to_f16)(h, a, n);
        (bf ? ref->f32_to_bf16 : ref->f32_to_f16)(g, a, n);
        for (size_t i = 0; i < n; i++)
            if (h[i] != g[i] && !(isnan(a[i]) && (h[i] & 0x7fff) > (bf ? 0x7f80 : 0x7c00))) {
                ck_fail(c, t->name, "f32_to_%s of %a: %x, not %x", bf ? "bf16" : "f16",
                        (double)a[i], h[i], g[i]);
                break;
            }
    }
    c->n_checks++;
    free(h);
    free(g);
    free(a);
    free(b);
}

static void check_tops(struct ck *c, const struct ew_rowops *t, size_t i)
{
    const size_t n = ck_range(c, 1, 3 * EW_TOPS_BLOCK), n_blocks = (n - 1) / EW_TOPS_BLOCK + 1;
    struct ck_mem m = ck_mem_make(n * 4), out = ck_mem_make(n_blocks * 4);
    float *x = (float *)(void *)m.at, *got = (float *)(void *)out.at;

    ck_fill(c, x, n, (enum ck_fill)(i % CK_FILL_COUNT));
    for (size_t j = 0; i % 11 == 10 && j < n; j++)
        x[j] = i & 1 ? NAN : -INFINITY;
    t->block_tops(got, x, n);
    for (size_t b = 0; b < n_blocks; b++) {
        float want = x[b * EW_TOPS_BLOCK];
        for (size_t j = b * EW_TOPS_BLOCK; j < n && j < (b + 1) * EW_TOPS_BLOCK; j++)
            want = x[j] > want || isnan(x[j]) ? x[j] : want;
        if (isnan(want) ? !isnan(got[b]) : got[b] != want)
            ck_fail(c, t->name, "top of block %zu of %zu: %g, not %g; fill %zu", b, n,
                    (double)got[b], (double)want, i % CK_FILL_COUNT);
    }
    c->n_checks++;
    ck_mem_drop(&m);
    ck_mem_drop(&out);
}

void ck_rowops(struct ck *c)
{
    size_t n;
    const struct ew_rowops *const *all = ew_rowops_all(&n);

    for (size_t i = 0; i < n; i++) {
        char name[64];
        snprintf(name, sizeof(name), "rowops__%s", all[i]->name);
        if (!ck_wants(c, name, all[i]->cpu_need))
            continue;
        const size_t before = c->n_failures;
        for (size_t j = 0; j < 120; j++) {
            check_rmsnorm(c, all[i], j);
            check_topk(c, all[i], j);
            check_tops(c, all[i], j);
            check_program(c, all[i]);
        }
        for (int op = 0; op < EW_PW_OP_COUNT; op++)
            for (size_t j = 0; j < 4 * CK_FILL_COUNT; j++)
                check_instruction(c, all[i], all[0], op, (enum ck_fill)(j % CK_FILL_COUNT));
        check_conversions(c, all[i], all[0]);
        printf("%-28s %s\n", name, c->n_failures == before ? "ok" : "FAILED");
    }
}

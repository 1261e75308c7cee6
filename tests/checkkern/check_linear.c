/* check_linear.c - linear kernels against sums in double, and their bit contract. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check_linear.h"
#include "kernels/xquant.h"
#include "op/attrs.h"

static void describe(struct ck *c, const char *kernel, const struct ck_problem *p, const char *what,
                     size_t index, double error)
{
    const struct ck_shape *s = &p->s;
    char format[64];

    ew_quant_format_text(p->format, format, sizeof(format));
    ck_fail(c, kernel,
            "%s at %zu, error %.3g: m %zu n %zu k %zu glu %d act %d bias %d residual %d scale %g "
            "softcap %g transposed %d fill %s %s",
            what, index, error, s->m, s->n, s->k, s->glu, s->act, s->has_bias, s->has_residual,
            (double)s->scale, (double)s->softcap, s->transposed, ck_fill_text(s->fill), format);
}

void ck_problem_vectors(struct ck *c, struct ck_problem *p)
{
    const struct ck_shape *s = &p->s;
    const size_t x_stride = s->k + s->x_pad;

    p->n_out = s->glu ? s->n / 2 : s->n;
    p->w = malloc(s->n * s->k * 4 + 4);
    p->x_mem = ck_mem_make(((s->m - 1) * x_stride + s->k) * 4);
    p->x = (float *)(void *)p->x_mem.at;
    p->x_seen = p->x;
    for (size_t m = 0; m < s->m; m++)
        ck_fill(c, p->x + m * x_stride, s->k, s->fill);
    p->bias_mem = ck_mem_make(s->n * 4);
    p->bias = (float *)(void *)p->bias_mem.at;
    p->residual_mem = ck_mem_make(s->m * p->n_out * 4);
    p->residual = (float *)(void *)p->residual_mem.at;
    ck_fill(c, p->bias, s->n, CK_NORMAL);
    ck_fill(c, p->residual, s->m * p->n_out, CK_NORMAL);
}

static void problem_make(struct ck *c, struct ck_problem *p, ew_dtype d)
{
    const struct ck_shape *s = &p->s;
    const size_t bytes = ck_elem_bytes(d);
    size_t row = 0;

    ck_problem_vectors(c, p);
    p->raw = malloc(s->n * s->k * bytes + 4);
    ck_fill(c, p->w, s->n * s->k, s->fill == CK_HUGE && d == EW_DTYPE_F16 ? CK_OUTLIERS : s->fill);
    for (size_t i = 0; i < s->n * s->k; i++) {
        unsigned char e[4];
        const size_t at = s->transposed ? i % s->k * s->n + i / s->k : i;
        ck_from_f32(e, d, p->w + i, 1);
        memcpy(p->raw + at * bytes, e, bytes);
        uint32_t word[1];
        memcpy(word, e, 4);
        p->w[i] = ck_to_f32(word, d, 0);
    }
    for (size_t i = 0; i < s->n_parts; i++) {
        const size_t end = s->n * (i + 1) / s->n_parts;
        p->parts[i] =
            (struct ew_weight_part){ .data = p->raw + row * (s->transposed ? 1 : s->k) * bytes,
                                     .n_rows = end - row,
                                     .row_stride = s->transposed ? 1 : (ptrdiff_t)s->k,
                                     .col_stride = s->transposed ? (ptrdiff_t)s->n : 1 };
        row = end;
    }
}

void ck_problem_drop(struct ck_problem *p)
{
    free(p->w);
    free(p->raw);
    ck_mem_drop(&p->x_mem);
    ck_mem_drop(&p->bias_mem);
    ck_mem_drop(&p->residual_mem);
}

static double act_double(int act, double z)
{
    switch (act) {
    case EW_ACT_SILU:
        return z / (1.0 + exp(-z));
    case EW_ACT_GELU_TANH:
        return 0.5 * z * (1.0 + tanh(sqrt(2.0 / acos(-1.0)) * (z + 0.044715 * z * z * z)));
    case EW_ACT_GELU_ERF:
        return 0.5 * z * erfc(-z / sqrt(2.0));
    case EW_ACT_RELU:
        return z < 0 ? 0 : z;
    case EW_ACT_RELU2:
        return z < 0 ? 0 : z * z;
    default:
        return z;
    }
}

/* Output before the activation and a bound of what f32 may lose on the way. */
static double exact_sum(const struct ck_problem *p, size_t m, size_t n, double *slack)
{
    const float *x = p->x_seen + m * (p->s.k + p->s.x_pad), *w = p->w + n * p->s.k;
    const double scale = (double)p->s.scale, cap = (double)p->s.softcap;
    double z = 0, mass = 0, weights = 0;

    for (size_t k = 0; k < p->s.k; k++) {
        z += (double)x[k] * (double)w[k];
        mass += fabs((double)x[k] * (double)w[k]);
        weights += fabs((double)w[k]);
    }
    if (p->s.has_bias) {
        z += (double)p->bias[n];
        mass += fabs((double)p->bias[n]);
    }
    /* all products equal: every step of a chain rounds the same way, so only the bound of theory
     * holds */
    const double unit = p->s.fill == CK_EQUAL ? (double)p->s.k * 6e-8 : 0;
    *slack = mass * fabs(scale) * (2e-6 + unit + (double)p->x_error) + 1e-42 * (double)p->s.k;
    *slack +=
        127 * 0.8e-45 * weights * fabs(scale); /* a denormal scale of codes is a whole number */
    if (p->x_error > 0) /* denormals are 0 there: of x's parts, and of products */
        *slack += 0x1p-126 * (weights + (double)p->s.k) * fabs(scale);
    z *= scale;
    if (cap != 0)
        z = cap * tanh(z / cap);
    return z;
}

/* NaN and inf where the reference has them; otherwise within the slack. Empty text: fine. */
static const char *judge(const struct ck_problem *p, size_t m, size_t n, float got, double *error)
{
    double slack, up_slack = 0, up = 1;
    const double z = exact_sum(p, m, n, &slack);
    double y = act_double(p->s.act, z);

    slack *=
        p->s.act == EW_ACT_RELU2 ? 2 * fabs(z) + slack + 1 : 1.2; /* slope of the activations */
    slack += 2e-6 * fabs(y) +
             (p->s.act ? 4e-7 * (p->s.act == EW_ACT_GELU_ERF ? 1 + fabs(z) : 1) : 0) +
             4e-7 * fabs((double)p->s.softcap);
    if (p->s.glu) {
        up = exact_sum(p, m, n + p->n_out, &up_slack);
        up_slack += 4e-7 * fabs((double)p->s.softcap);
        slack = slack * (fabs(up) + up_slack) + up_slack * fabs(y) + 4e-7 * fabs(y * up);
        if (isinf(up) && fabs(y) < 1e-30)
            return ""; /* NaN or inf: it hangs on whether the gate underflowed to zero */
        if ((isfinite(y) && fabs(y) > 1e37) || (isfinite(up) && fabs(up) > 1e37))
            return ""; /* f32 does not hold this factor, whatever the product is */
        y *= up;
    }
    if (p->s.has_residual)
        y += (double)p->residual[m * p->n_out + n];
    slack += 2e-7 * fabs(y) + 1e-44;
    *error = fabs(y - (double)got);
    if (isnan(slack) || isinf(slack) || fabs(y) + slack > 1e37)
        return isnan(y) && !isnan(got) ? "lost a NaN" : "";
    if (isnan(y) != isnan(got))
        return "NaN only on one side";
    return *error <= slack ? "" : "wrong value";
}

/* Runs rows [m0, m0 + rows) into y, unit by unit or at once. */
static void run_rows(const struct ew_linear_kernel *kern, const struct ck_problem *p, const void *w,
                     float *y, const size_t rows[2], bool by_unit)
{
    const struct ck_shape *s = &p->s;
    const size_t m0 = rows[0], y_stride = p->n_out + s->y_pad;
    struct ew_linear_args a = { .x = p->x + m0 * (s->k + s->x_pad),
                                .x_stride = s->k + s->x_pad,
                                .w = w,
                                .format = p->format,
                                .bias = s->has_bias ? p->bias : NULL,
                                .residual = s->has_residual ? p->residual + m0 * p->n_out : NULL,
                                .residual_stride = p->n_out,
                                .y = y,
                                .y_stride = y_stride,
                                .m = rows[1],
                                .n = s->n,
                                .k = s->k,
                                .act = s->act,
                                .glu = s->glu,
                                .scale = s->scale,
                                .softcap = s->softcap };
    const size_t n_units = kern->n_units(s->n, s->glu);
    void *scratch = aligned_alloc(64, kern->scratch_bytes(p->format, a.m, a.n, a.k) / 64 * 64 + 64);
    const size_t prepared_bytes = ew_linear_prepared_bytes(kern, p->format, a.m, a.k);
    void *prepared = aligned_alloc(64, prepared_bytes / 64 * 64 + 64);

    memset(prepared, 0xff, prepared_bytes); /* the rows behind the last one may be anything */
    a.prepared = prepared;
    if (kern->prepare) {
        kern->prepare(&a, a.m / 2, a.m, prepared);
        kern->prepare(&a, 0, a.m / 2, prepared);
    }

    if (s->in_place && a.residual) {
        for (size_t m = 0; m < a.m; m++)
            memcpy(y + m * y_stride, a.residual + m * p->n_out, p->n_out * 4);
        a.residual = y;
        a.residual_stride = y_stride;
    }
    for (size_t u = 0; by_unit && u < n_units; u++)
        kern->run(&a, u, u + 1, scratch);
    if (!by_unit)
        kern->run(&a, 0, n_units, scratch);
    free(scratch);
    free(prepared);
}

static void check_values(struct ck *c, const char *name, const struct ck_problem *p, const float *y)
{
    const size_t y_stride = p->n_out + p->s.y_pad;

    for (size_t m = 0; m < p->s.m; m++) {
        for (size_t n = 0; n < p->n_out; n++) {
            double error;
            const char *bad = judge(p, m, n, y[m * y_stride + n], &error);
            if (bad[0]) {
                describe(c, name, p, bad, m * p->n_out + n, error);
                return;
            }
        }
        if (p->s.y_pad && m + 1 < p->s.m &&
            !ck_canary_ok(y + m * y_stride + p->n_out, p->s.y_pad * 4)) {
            describe(c, name, p, "wrote between rows", m, 0);
            return;
        }
    }
}

static void check_bits(struct ck *c, const char *name, const struct ck_problem *p, const float *y,
                       const float *other, size_t m0, size_t rows, const char *what)
{
    const size_t y_stride = p->n_out + p->s.y_pad;

    for (size_t m = 0; m < rows; m++)
        for (size_t n = 0; n < p->n_out; n++)
            if (!ck_same_float(y[(m0 + m) * y_stride + n], other[m * y_stride + n])) {
                describe(c, name, p, what, (m0 + m) * p->n_out + n,
                         (double)fabsf(y[(m0 + m) * y_stride + n] - other[m * y_stride + n]));
                return;
            }
}

/* Plain weights come back as they were; quantised ones within a rounding, and a row with a NaN may
 * be NaN all over, as its products are. */
static bool same_weight(const struct ck_problem *p, float got, float want)
{
    return ck_same_float(got, want) || (p->format && isnan(got) && p->s.fill == CK_SPECIAL) ||
           (p->format && fabsf(got - want) <= 1.2e-7f * fabsf(want) + 2e-45f);
}

static void check_unpack(struct ck *c, const struct ew_linear_kernel *kern,
                         const struct ck_problem *p, const void *w)
{
    float *row = malloc(p->s.k * 4);

    for (size_t n = 0; n < p->s.n && !p->s.glu; n++) {
        kern->unpack_row(row, w, p->format, p->s.n, p->s.k, n);
        for (size_t k = 0; k < p->s.k; k++)
            if (!same_weight(p, row[k], p->w[n * p->s.k + k])) {
                describe(c, kern->name, p, "unpack_row differs", n * p->s.k + k, 0);
                free(row);
                return;
            }
    }
    free(row);
}

/* Both halves of the units, upper one first. */
static void pack_halves(const struct ew_linear_kernel *kern, const struct ck_problem *p, void *w)
{
    const size_t n_units = kern->n_units(p->s.n, p->s.glu), half = n_units / 2;
    const size_t bytes =
        kern->pack_scratch_bytes ? kern->pack_scratch_bytes(p->format, p->s.k) / 64 * 64 + 64 : 64;
    struct ck_mem scratch = ck_mem_make(bytes);
    const struct ew_pack_args pack = { .format = p->format,
                                       .parts = p->parts,
                                       .n_parts = p->s.n_parts,
                                       .n = p->s.n,
                                       .k = p->s.k,
                                       .glu = p->s.glu,
                                       .scratch = scratch.at };

    kern->pack(w, &pack, half, n_units);
    kern->pack(w, &pack, 0, half);
    ck_mem_drop(&scratch);
}

void ck_problem_check(struct ck *c, const struct ew_linear_kernel *kern, const struct ck_problem *p)
{
    const struct ck_shape *s = &p->s;
    const size_t y_stride = p->n_out + s->y_pad;
    const size_t packed = kern->packed_bytes(p->format, s->n, s->k, s->glu),
                 aligned = (packed + 63) / 64 * 64;
    const size_t y_bytes = ((s->m - 1) * y_stride + p->n_out) * 4;
    struct ck_mem w_mem = ck_mem_make(aligned), y_mem = ck_mem_make(y_bytes),
                  o_mem = ck_mem_make(y_bytes);
    float *y = (float *)(void *)y_mem.at, *other = (float *)(void *)o_mem.at;
    const size_t all_rows[2] = { 0, s->m };

    ck_canary_set(w_mem.at, aligned);
    pack_halves(kern, p, w_mem.at);
    if (!ck_canary_ok(w_mem.at + packed, aligned - packed))
        describe(c, kern->name, p, "pack wrote past its bytes", packed, 0);
    ck_canary_set(y, y_bytes);
    run_rows(kern, p, w_mem.at, y, all_rows, false);
    check_values(c, kern->name, p, y);
    run_rows(kern, p, w_mem.at, other, all_rows, true);
    check_bits(c, kern->name, p, y, other, 0, s->m, "units one by one differ");
    for (size_t i = 0; i < 3; i++) { /* some rows of the batch, alone */
        const size_t m0 = ck_range(c, 0, s->m - 1);
        const size_t rows[2] = { m0, i ? 1 : ck_range(c, 1, s->m - m0) };
        run_rows(kern, p, w_mem.at, other, rows, false);
        check_bits(c, kern->name, p, y, other, m0, rows[1], "rows alone differ from the batch");
    }
    check_unpack(c, kern, p, w_mem.at);
    c->n_checks++;
    ck_mem_drop(&w_mem);
    ck_mem_drop(&y_mem);
    ck_mem_drop(&o_mem);
}

float *ck_round_x(const struct ck_problem *p, int x_quant)
{
    const struct ew_x_rounding r = { .kind = x_quant };
    const size_t stride = p->s.k + p->s.x_pad;
    float *rounded = malloc(p->s.m * stride * sizeof(float));

    for (size_t m = 0; m < p->s.m; m++)
        ew_x_round_row(&r, rounded + m * stride, p->x + m * stride, p->s.k);
    return rounded;
}

static void check_one(struct ck *c, const struct ew_linear_kernel *kern, const struct ck_shape *s)
{
    struct ck_problem p = { .s = *s, .x_error = kern->x_error };
    float *rounded = NULL;

    problem_make(c, &p, kern->weight_dtype);
    if (kern->x_quant != EW_XQ_NONE)
        p.x_seen = rounded = ck_round_x(&p, kern->x_quant);
    ck_problem_check(c, kern, &p);
    free(rounded);
    ck_problem_drop(&p);
}

struct ck_shape ck_random_shape(struct ck *c, size_t i)
{
    static const size_t ks[] = { 1, 3, 17, 64, 255, 257, 600, 1000 };
    static const float scales[] = { 1.0f, 1.0f, 0.22f };
    struct ck_shape s = { .m = ck_range(c, 1, 17),
                          .n = ck_range(c, 1, 100),
                          .k = ks[ck_range(c, 0, 7)] };

    if (i % 8 == 7) { /* many rows: several blocks of rows and panels */
        s.m = ck_range(c, 18, 300);
        s.n = ck_range(c, 1, 200);
    }
    s.glu = i % 3 == 1;
    if (s.glu)
        s.n *= 2;
    s.act = (int)ck_range(c, 0, EW_ACT_RELU2);
    s.has_bias = ck_rand(c) & 1;
    s.has_residual = ck_rand(c) & 1;
    s.in_place = ck_rand(c) & 1;
    s.transposed = ck_rand(c) & 1;
    s.scale = scales[ck_range(c, 0, 2)];
    s.softcap = ck_rand(c) % 4 ? 0.0f : 3.0f;
    s.x_pad = ck_rand(c) & 1 ? ck_range(c, 1, 9) : 0;
    s.y_pad = ck_rand(c) & 1 ? ck_range(c, 1, 9) : 0;
    s.n_parts = s.n >= 3 ? ck_range(c, 1, 3) : 1;
    s.fill = i % 2 ? CK_NORMAL : (enum ck_fill)ck_range(c, 0, CK_FILL_COUNT - 1);
    return s;
}

void ck_linear(struct ck *c)
{
    size_t n;
    const struct ew_linear_kernel *const *all = ew_linear_kernels(&n);

    for (size_t i = 0; i < n; i++) {
        if (all[i]->takes || !ck_wants(c, all[i]->name, all[i]->cpu_need))
            continue; /* quantised ones: check_quant.c */
        const size_t before = c->n_failures;
        for (size_t j = 0; j < 240; j++) {
            const struct ck_shape s = ck_random_shape(c, j);
            check_one(c, all[i], &s);
        }
        const struct ck_shape wide = { .m = 20, .n = 2100, .k = 300, .n_parts = 1, .scale = 1.0f };
        check_one(c, all[i], &wide); /* more panels than the sums of a block hold */
        printf("%-28s %s\n", all[i]->name, c->n_failures == before ? "ok" : "FAILED");
    }
}

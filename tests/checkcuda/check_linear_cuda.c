/* check_linear_cuda.c - every linear kernel of a GPU against kernels/ref over layouts, formats, odd
 * shapes and epilogues; with --bench the shapes of models. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "checkcuda.h"
#include "kernels/cuda/linear.h"
#include "op/attrs.h"
#include "../quant_matrix.h"
#include "tensor/tensor.h"

struct shape {
    size_t m, n, k;
    bool glu, norm, bias, residual;
    int act;
    float scale, softcap;
    bool y_short; /* y as bf16, x given as bf16 */
};

static void *xalloc(size_t n, size_t bytes)
{
    void *p = calloc(n + 1, bytes);

    if (!p)
        abort();
    return p;
}

static float random_scale(struct cc *c, ew_dtype d)
{
    uint32_t elem = 0;

    if (d == EW_DTYPE_NONE)
        return 1.0f;
    if (d == EW_DTYPE_F8E8M0)
        return ldexpf(1.0f, (int)cc_range(c, 0, 8) - 8);
    if (d == EW_DTYPE_F8E4M3)
        return ew_f8e4m3_to_f32((uint8_t)cc_range(c, 0, 0x7e)) / 64.0f == 0
                   ? 1.0f
                   : ew_f8e4m3_to_f32((uint8_t)cc_range(c, 1, 0x60));
    ew_elem_set_f64(&elem, d, 0, 0.02 * (double)cc_normal(c));
    return (float)ew_elem_get_f64(&elem, d, 0);
}

static void matrix_make(struct cc *c, struct matrix *m, const struct ew_quant_format *f, size_t n,
                        size_t k)
{
    const size_t groups = ew_quant_groups(f, k), top = f->code == EW_DTYPE_U4 ? 16 : 256;

    m->base = (struct ew_quant_source){
        .format = *f, .name = "random", .n = n, .k = k, .read = matrix_read
    };
    m->codes = xalloc(n * k, 1);
    m->scales = xalloc(n * groups, sizeof(float));
    m->zeros = xalloc(n * groups, sizeof(int16_t));
    m->row_scale = xalloc(n, sizeof(float));
    for (size_t i = 0; i < n * k && cc_has_values(c); i++)
        m->codes[i] = matrix_code((uint8_t)cc_rand(c), f->code, false);
    for (size_t i = 0; i < n * groups; i++) {
        m->scales[i] = random_scale(c, f->scale);
        m->zeros[i] = f->zero ? (int16_t)(cc_rand(c) % 4 ? cc_range(c, 0, top) : top) : 0;
    }
    for (size_t i = 0; i < n; i++)
        m->row_scale[i] = cc_rand(c) & 1 ? 1.0f : 0.1f * cc_normal(c);
}

static void matrix_drop(struct matrix *m)
{
    free(m->codes);
    free(m->scales);
    free(m->zeros);
    free(m->row_scale);
}

/* ---- one weight: dequantised for the reference, packed for the GPU ---- */
struct weight {
    struct ew_quant_format format;
    ew_dtype dtype;
    float *rows; /* f32 [n][k] */
    void *packed;
    size_t packed_bytes;
};

static void pack(struct cc *c, struct weight *w, const struct ew_linear_kernel *l,
                 const struct ew_pack_args *a)
{
    struct ew_pack_args b = *a;

    w->packed_bytes = l->packed_bytes(a->format, a->n, a->k, a->glu);
    w->packed = xalloc(w->packed_bytes, 1);
    b.scratch = l->pack_scratch_bytes ? xalloc(l->pack_scratch_bytes(a->format, a->k), 1) : NULL;
    if (cc_has_values(c))
        l->pack(w->packed, &b, 0, l->n_units(a->n, a->glu));
    free(b.scratch);
}

static void check_unpack(struct cc *c, const struct weight *w, const struct ew_linear_kernel *l,
                         const struct shape *s)
{
    float *row;

    if (s->glu || !cc_has_values(c))
        return;
    row = xalloc(s->k, sizeof(*row));
    for (size_t i = 0; i < s->n; i += s->n / 7 + 1) {
        l->unpack_row(row, w->packed, &w->format, s->n, s->k, i);
        cc_near(c, "unpack_row", row, w->rows + i * s->k, s->k, 0, 0x1p-23);
    }
    free(row);
}

static void weight_plain(struct cc *c, struct weight *w, const struct ew_linear_kernel *l,
                         const struct shape *s)
{
    const size_t bytes = l->weight_dtype == EW_DTYPE_F32 ? 4 : 2;
    unsigned char *data = xalloc(s->n * s->k, bytes);
    const struct ew_weight_part part = {
        .data = data, .n_rows = s->n, .row_stride = (ptrdiff_t)s->k, .col_stride = 1
    };

    w->dtype = l->weight_dtype;
    for (size_t i = 0; i < s->n * s->k && cc_has_values(c); i++) {
        ew_elem_set_f64(data, w->dtype, i, 0.05 * (double)cc_normal(c));
        w->rows[i] = (float)ew_elem_get_f64(data, w->dtype, i);
    }
    pack(c, w, l,
         &(struct ew_pack_args){
             .parts = &part, .n_parts = 1, .n = s->n, .k = s->k, .glu = s->glu });
    free(data);
}

static void weight_quant(struct cc *c, struct weight *w, const struct ew_linear_kernel *l,
                         const struct shape *s)
{
    struct matrix m = { 0 };
    const struct ew_weight_part parts[2] = {
        { .n_rows = s->n / 3, .quant = &m.base },
        { .n_rows = s->n - s->n / 3, .quant = &m.base, .quant_row = s->n / 3 }
    };

    matrix_make(c, &m, &w->format, s->n, s->k);
    const struct ew_quant_rows all = { m.codes, m.scales, m.zeros, m.row_scale };

    for (size_t i = 0; i < s->n && cc_has_values(c); i++)
        ew_quant_decode_row(&w->format, &all, i, s->k, w->rows + i * s->k);
    pack(c, w, l,
         &(struct ew_pack_args){ .format = &w->format,
                                 .parts = parts,
                                 .n_parts = 2,
                                 .n = s->n,
                                 .k = s->k,
                                 .glu = s->glu });
    matrix_drop(&m);
}

/* ---- the judge: sums in double, and how far from them a kernel may be ---- */
static double act(int a, double z)
{
    switch (a) {
    case EW_ACT_SILU:
        return z / (1.0 + exp(-z));
    case EW_ACT_GELU_TANH:
        return 0.5 * z * (1.0 + tanh(0.79788456080286535588 * (z + 0.044715 * z * z * z)));
    case EW_ACT_GELU_ERF:
        return 0.5 * z * (1.0 + erf(z * 0.70710678118654752440));
    case EW_ACT_RELU:
        return z > 0 ? z : 0.0;
    case EW_ACT_RELU2:
        return z > 0 ? z * z : 0.0;
    default:
        return z;
    }
}

struct sum {
    double z, error;
};

static struct sum dot(const struct shape *s, const float *x, const float *w, const float *bias,
                      size_t n, double x_error)
{
    struct sum r = { 0, 0 };

    for (size_t k = 0; k < s->k; k++) {
        const double p = (double)x[k] * (double)w[n * s->k + k];

        r.z += p;
        r.error += fabs(p);
    }
    r.error *= x_error + 4e-6 + (double)s->k * 0x1p-28;
    r.z = (r.z + (bias ? (double)bias[n] : 0.0)) * (double)s->scale;
    r.error = r.error * fabs((double)s->scale) + 1e-6 * fabs(r.z);
    if (s->softcap != 0.0f)
        r.z = (double)s->softcap * tanh(r.z / (double)s->softcap);
    return r;
}

static void reference(const struct shape *s, const float *x, const float *w, const float *bias,
                      const float *residual, double x_error, float *want, float *bound)
{
    const size_t out = s->glu ? s->n / 2 : s->n;

    for (size_t m = 0; m < s->m; m++)
        for (size_t n = 0; n < out; n++) {
            const struct sum g = dot(s, x + m * s->k, w, bias, n, x_error);
            const double slope = s->act == EW_ACT_RELU2 ? 2 * fabs(g.z) + g.error : 1.2;
            double y = act(s->act, g.z), e = g.error * slope + 2e-6 * fabs(g.z);

            if (s->glu) {
                const struct sum u = dot(s, x + m * s->k, w, bias, n + out, x_error);

                e = e * (fabs(u.z) + u.error) + u.error * fabs(y) + 1e-6 * fabs(y * u.z);
                y *= u.z;
            }
            if (residual)
                y += (double)residual[m * out + n];
            want[m * out + n] = (float)y;
            bound[m * out + n] = (float)(e + 1e-6 * fabs(y) + 1e-12);
        }
}

/* x := x * rsqrt(mean(x^2) + eps) * w, then rounded as the kernel says it rounds. */
static void prepare_x(const struct ew_cuda_linear_kernel *k, const struct shape *s, float *x,
                      const float *norm)
{
    for (size_t m = 0; m < s->m; m++) {
        double q = 0;

        for (size_t i = 0; i < s->k; i++)
            q += (double)x[m * s->k + i] * (double)x[m * s->k + i];
        q = 1.0 / sqrt(q / (double)s->k + 1e-6);
        for (size_t i = 0; i < s->k; i++) {
            float *v = &x[m * s->k + i];

            if (s->norm)
                *v = (float)((double)*v * q * (double)norm[i]);
            else if (k->x_error >= 0x1p-12f)
                *v = k->layout->weight_dtype == EW_DTYPE_F16 ? ew_f16_to_f32(ew_f32_to_f16(*v))
                                                             : ew_bf16_to_f32(ew_f32_to_bf16(*v));
        }
    }
}

static uint64_t rounded_input(struct cc *c, const float *x, size_t n)
{
    uint16_t *h = xalloc(n, sizeof(*h));
    uint64_t at;

    for (size_t i = 0; i < n; i++)
        h[i] = ew_f32_to_bf16(x[i]);
    at = cc_input(c, h, n * sizeof(*h));
    free(h);
    return at;
}

/* bf16 to f32, in place from the end: there is room for both. */
static const float *widened(const void *y, size_t n)
{
    float *f = (float *)(uintptr_t)y;

    for (size_t i = n; i-- > 0;)
        f[i] = ew_bf16_to_f32(((const uint16_t *)y)[i]);
    return f;
}

static const float *run_case(struct cc *c, const struct ew_cuda_linear_kernel *k,
                             const struct weight *w, const struct shape *s, const float *x,
                             const float *bias, const float *residual, const float *norm)
{
    const size_t out = s->glu ? s->n / 2 : s->n;
    struct ew_cuda_linear_problem p = {
        .x = cc_input(c, x, s->m * s->k * sizeof(float)),
        .w = cc_input(c, w->packed, w->packed_bytes),
        .bias = s->bias ? cc_input(c, bias, s->n * sizeof(float)) : 0,
        .residual = s->residual ? cc_input(c, residual, s->m * out * sizeof(float)) : 0,
        .y = cc_output(c, s->m * out * sizeof(float)),
        .norm_weight = s->norm ? cc_input(c, norm, s->k * sizeof(float)) : 0,
        .norm_eps = 1e-6f,
        .x_stride = s->k,
        .residual_stride = out,
        .y_stride = out,
        .m = s->m,
        .n = s->n,
        .k = s->k,
        .format = w->format,
        .act = s->act,
        .glu = s->glu,
        .scale = s->scale,
        .softcap = s->softcap,
    };
    struct ew_cuda_launch launches[EW_CUDA_LINEAR_LAUNCHES];
    size_t n, work;

    if (s->y_short) {
        p.prepared = rounded_input(c, x, s->m * s->k);
        p.prepared_stride = s->k;
        p.x = 0;
        p.y_short = EW_DTYPE_BF16;
    }
    work = k->workspace_bytes(cc_chip(c), &p);
    if (work)
        p.workspace = cc_output(c, work);
    n = k->plan(cc_chip(c), &p, launches);
    if (!cc_launch(c, launches, n))
        return NULL;
    if (cc_is_bench(c) && s->m * s->n * s->k > 1u << 20)
        cc_bench(c, launches, n, (double)w->packed_bytes + (double)s->m * (double)(s->k + out) * 4,
                 2.0 * (double)s->m * (double)s->n * (double)s->k);
    return s->y_short ? widened(cc_download(c, p.y), s->m * out) : cc_download(c, p.y);
}

static void fill(struct cc *c, const struct shape *s, float *x, float *bias, float *residual,
                 float *norm)
{
    cc_fill_normal(c, x, s->m * s->k, 1.0f);
    cc_fill_normal(c, bias, s->n, 0.5f);
    cc_fill_normal(c, residual, s->m * s->n, 1.0f);
    cc_fill_normal(c, norm, s->k, 0.2f);
    for (size_t i = 0; i < s->k; i++)
        norm[i] += 1.0f;
}

static void one(struct cc *c, const struct ew_cuda_linear_kernel *k,
                const struct ew_quant_format *f, const struct shape *s)
{
    const ew_dtype dtype = k->layout->weight_dtype;
    char format[64] = "";
    struct weight w = { .format = f ? *f : (struct ew_quant_format){ 0 } };
    float *x, *bias, *residual, *norm, *want, *bound;
    const float *got;

    if (!ew_cuda_linear_kernel_runs(k, cc_chip(c), dtype, f, s->m, s->n, s->k, s->glu,
                                    EW_XQ_NONE) ||
        (s->norm && !k->takes_norm) ||
        (s->y_short && (!k->puts_short || !k->takes_prepared || dtype == EW_DTYPE_F16)))
        return;
    if (f)
        ew_quant_format_text(f, format, sizeof(format));
    if (!cc_begin(c, "%s %s m%zu n%zu k%zu%s%s%s%s%s act%d", k->name, format, s->m, s->n, s->k,
                  s->glu ? " glu" : "", s->norm ? " norm" : "", s->bias ? " bias" : "",
                  s->residual ? " residual" : "", s->y_short ? " short" : "", s->act))
        return;
    w.rows = xalloc(s->n * s->k, sizeof(float));
    x = xalloc(s->m * s->k, sizeof(*x));
    bias = xalloc(s->n, sizeof(*bias));
    residual = xalloc(s->m * s->n, sizeof(*residual));
    norm = xalloc(s->k, sizeof(*norm));
    want = xalloc(s->m * s->n, sizeof(*want));
    bound = xalloc(s->m * s->n, sizeof(*bound));
    fill(c, s, x, bias, residual, norm);
    if (f)
        weight_quant(c, &w, k->layout, s);
    else
        weight_plain(c, &w, k->layout, s);
    check_unpack(c, &w, k->layout, s);
    got = run_case(c, k, &w, s, x, bias, residual, norm);
    if (got) {
        const double x_error =
            (k->x_error < 0x1p-12f || s->norm ? (double)k->x_error : 0.0) + (double)k->w_error;

        prepare_x(k, s, x, norm);
        reference(s, x, w.rows, s->bias ? bias : NULL, s->residual ? residual : NULL,
                  x_error + (s->norm ? 1e-6 : 0), want, bound);
        for (size_t i = 0; i < s->m * (s->glu ? s->n / 2 : s->n) && s->y_short; i++)
            bound[i] += fabsf(want[i]) * 0x1p-8f;
        cc_within(c, "y", got, want, bound, s->m * (s->glu ? s->n / 2 : s->n));
    }
    cc_end(c);
    free(w.rows);
    free(w.packed);
    free(x);
    free(bias);
    free(residual);
    free(norm);
    free(want);
    free(bound);
}

/* A row alone and in company: the same bits, within the rows of a class (linear.h). */
static void same_bits(struct cc *c, const struct ew_cuda_linear_kernel *k,
                      const struct ew_quant_format *f)
{
    const size_t most = k->max_rows > 64 ? 64 : k->max_rows;
    const bool gemv = strncmp(k->name, "gemv", 4) == 0;
    struct shape s = { .m = gemv ? 8 : most, .n = 272, .k = 1160, .norm = true, .scale = 1 };
    struct weight w = { .format = f ? *f : (struct ew_quant_format){ 0 } };
    float *x, *norm, *alone;
    const float *got;

    if (!ew_cuda_linear_kernel_runs(k, cc_chip(c), k->layout->weight_dtype, f, s.m, s.n, s.k, false,
                                    EW_XQ_NONE))
        return;
    if (!cc_begin(c, "%s bits m1 and m%zu", k->name, s.m))
        return;
    w.rows = xalloc(s.n * s.k, sizeof(float));
    x = xalloc(s.m * s.k, sizeof(*x));
    norm = xalloc(s.k, sizeof(*norm));
    alone = xalloc(s.n, sizeof(*alone));
    cc_fill_normal(c, x, s.m * s.k, 1.0f);
    cc_fill_normal(c, norm, s.k, 1.0f);
    if (f)
        weight_quant(c, &w, k->layout, &s);
    else
        weight_plain(c, &w, k->layout, &s);
    for (size_t m = 1; m <= s.m; m = m < 3 ? m + 2 : m * 2 < s.m || m == s.m ? m * 2 : s.m) {
        struct shape t = s;

        t.m = m;
        got = run_case(c, k, &w, &t, x, NULL, NULL, norm);
        if (got && m == 1)
            memcpy(alone, got, s.n * sizeof(*alone));
        else if (got)
            cc_equal(c, "the first row", got, alone, s.n * sizeof(*alone));
    }
    cc_end(c);
    free(w.rows);
    free(w.packed);
    free(x);
    free(norm);
    free(alone);
}

/* ---- times: contents do not matter, so that making them takes no time ---- */
static void time_one(struct cc *c, const struct ew_cuda_linear_kernel *k,
                     const struct ew_quant_format *f, const struct shape *s)
{
    const size_t out = s->glu ? s->n / 2 : s->n;
    const size_t bytes = k->layout->packed_bytes(f, s->n, s->k, s->glu);
    struct ew_cuda_launch launches[EW_CUDA_LINEAR_LAUNCHES];
    char format[64] = "";
    uint64_t seed = 1;
    uint32_t *w;
    float *x;
    size_t n, work;

    if (!ew_cuda_linear_kernel_runs(k, cc_chip(c), k->layout->weight_dtype, f, s->m, s->n, s->k,
                                    s->glu, EW_XQ_NONE))
        return;
    if (f)
        ew_quant_format_text(f, format, sizeof(format));
    if (!cc_begin(c, "time %s %s m%zu n%zu k%zu%s%s%s", k->name, format, s->m, s->n, s->k,
                  s->glu ? " glu" : "", s->norm ? " norm" : "", s->y_short ? " short" : ""))
        return;
    w = xalloc(bytes / 4, 4);
    x = xalloc(s->m * s->k, 4);
    for (size_t i = 0; i < bytes / 4; i++) { /* small numbers in every format: no power is saved */
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        w[i] = (uint32_t)(seed >> 32) & 0xbfffbfffu;
    }
    for (size_t i = 0; i < s->m * s->k; i++)
        x[i] = (float)(i * 2654435761u % 1000) * 0.002f - 1.0f;
    for (size_t i = 0; i < s->m * s->k && s->y_short; i++)
        ((uint16_t *)x)[i] = ew_f32_to_bf16(x[i]); /* in place: from the front it is read first */
    struct ew_cuda_linear_problem p = {
        .x = cc_input(c, x, s->m * s->k * 4),
        .w = cc_input(c, w, bytes),
        .y = cc_output(c, s->m * out * 4),
        .norm_weight = s->norm ? cc_input(c, x, s->k * 4) : 0,
        .norm_eps = 1e-6f,
        .x_stride = s->k,
        .residual_stride = out,
        .y_stride = out,
        .m = s->m,
        .n = s->n,
        .k = s->k,
        .act = s->glu ? EW_ACT_SILU : EW_ACT_NONE,
        .glu = s->glu,
        .scale = 1.0f,
    };
    if (f)
        p.format = *f;
    if (s->y_short) { /* as models run them: x comes rounded, what only products read goes rounded
                       */
        p.prepared = cc_input(c, x, s->m * s->k * 2);
        p.prepared_stride = s->k;
        p.x = 0;
        p.y_short = s->glu ? EW_DTYPE_BF16 : s->n == 6144 ? EW_DTYPE_F16 : EW_DTYPE_NONE;
    }
    work = k->workspace_bytes(cc_chip(c), &p);
    if (work)
        p.workspace = cc_output(c, work);
    n = k->plan(cc_chip(c), &p, launches);
    if (cc_launch(c, launches, n) || !cc_chip(c)->n_sm)
        cc_bench(c, launches, n, (double)bytes + (double)s->m * (double)(s->k + out) * 4,
                 2.0 * (double)s->m * (double)s->n * (double)s->k);
    cc_end(c);
    free(w);
    free(x);
}

static const struct ew_quant_format formats[] = {
    { EW_DTYPE_I4, EW_DTYPE_F16, 128, 0 },       { EW_DTYPE_I4, EW_DTYPE_BF16, 64, 0 },
    { EW_DTYPE_U4, EW_DTYPE_F16, 128, 1 },       { EW_DTYPE_U4, EW_DTYPE_F32, 32, 1 },
    { EW_DTYPE_I4, EW_DTYPE_NONE, 0, 0 },        { EW_DTYPE_I4, EW_DTYPE_F32, 32, 0 },
    { EW_DTYPE_U4, EW_DTYPE_F16, 0, 1 },         { EW_DTYPE_F4E2M1, EW_DTYPE_F8E4M3, 16, 0 },
    { EW_DTYPE_F4E2M1, EW_DTYPE_F8E8M0, 32, 0 }, { EW_DTYPE_I8, EW_DTYPE_NONE, 0, 0 },
    { EW_DTYPE_I8, EW_DTYPE_F16, 128, 0 },       { EW_DTYPE_I8, EW_DTYPE_BF16, 32, 0 },
    { EW_DTYPE_U8, EW_DTYPE_F16, 128, 1 },       { EW_DTYPE_F8E4M3, EW_DTYPE_NONE, 0, 0 },
    { EW_DTYPE_F8E4M3, EW_DTYPE_F32, 128, 0 },   { EW_DTYPE_F8E4M3, EW_DTYPE_F8E8M0, 32, 0 },
    { EW_DTYPE_F8E5M2, EW_DTYPE_NONE, 0, 0 },
};

/* Thousands of rows take the judge seconds: several tiles a block are linear_wide.cu's alone. */
static bool tiles_are_wide(const struct ew_cuda_linear_kernel *k)
{
    return k->puts_short && (k->min_rows || k->layout->takes == NULL);
}

/* few: formats differ in how codes, scales and zero points are read, which three shapes show. */
static void shapes(struct cc *c, const struct ew_cuda_linear_kernel *k,
                   const struct ew_quant_format *f, bool few)
{
    static const struct shape list[] = {
        { 1, 64, 256, false, false, false, false, 0, 1, 0, false },
        { 1, 48, 1024, true, true, false, false, EW_ACT_SILU, 1, 0, false },
        { 2, 100, 200, false, false, true, true, EW_ACT_GELU_TANH, 0.5f, 0, false },
        { 3, 1030, 1096, false, true, true, true, 0, 1, 30.0f, false },
        { 5, 34, 77, true, false, true, true, EW_ACT_GELU_ERF, 1, 0, false },
        { 8, 256, 2048, true, true, false, false, EW_ACT_SILU, 1, 0, false },
        { 8, 17, 640, false, false, true, false, EW_ACT_RELU2, 1, 0, false },
        { 16, 320, 512, false, false, false, true, 0, 1, 0, false },
        { 33, 130, 1000, false, false, true, true, EW_ACT_RELU, 2.0f, 0, false },
        { 64, 512, 384, true, false, false, true, EW_ACT_SILU, 1, 0, false },
        { 130, 272, 448, false, false, true, false, 0, 1, 0, false },
        { 300, 520, 264, true, false, false, true, EW_ACT_SILU, 1, 0, false },
        { 300, 528, 264, true, false, true, false, EW_ACT_SILU, 1, 0, true },
        { 400, 1104, 72, true, false, false, false, EW_ACT_GELU_TANH, 0.5f, 20, true },
        { 400, 1104, 200, true, true, false, true, EW_ACT_SILU, 1, 0, false },
        { 2100, 2608, 72, true, false, false, false, EW_ACT_SILU, 1, 0, true },
        { 2100, 1300, 136, false, false, true, true, 0, 1, 0, false },
        { 40, 144, 136, false, false, false, false, 0, 1, 0, true },
        { 200, 264, 448, false, true, false, true, 0, 0.5f, 0, false },
        { 200, 264, 448, false, false, false, false, 0, 1, 0, true },
    };

    for (size_t i = 0; i < sizeof(list) / sizeof(*list); i++)
        if ((list[i].m < 1000 || tiles_are_wide(k)) &&
            (!few || i == 1 || i == 3 || i == 10 || (k->min_rows && (i == 11 || i == 12))))
            one(c, k, f, &list[i]);
}

static void times(struct cc *c, const struct ew_cuda_linear_kernel *k,
                  const struct ew_quant_format *f)
{
    static const size_t rows[] = { 1, 2, 4, 8, 16, 32, 64, 256, 2048 };
    const bool gemv = strncmp(k->name, "gemv", 4) == 0, few = k->max_rows <= 16;
    const size_t least = gemv ? 1 : !few ? 16 : k->max_rows > 8 ? 8 : 1, most = gemv ? 4 : 4096;
    static const struct shape list[] = {
        { .n = 4096, .k = 1024 },
        { .n = 1024, .k = 2048 },
        { .n = 6144, .k = 1024, .glu = true },
        { .n = 1024, .k = 3072 },
        { .n = 6144, .k = 2560 },
        { .n = 2560, .k = 4096 },
        { .n = 19456, .k = 2560, .glu = true },
        { .n = 2560, .k = 9728 },
        { .n = 24576, .k = 4096, .glu = true },
        { .n = 4096, .k = 12288 },
        { .n = 6144, .k = 4096 },
        { .n = 4096, .k = 4096 },
        { .n = 151936, .k = 1024 },
    };

    for (size_t i = 0; i < sizeof(list) / sizeof(*list); i++)
        for (size_t j = 0; j < sizeof(rows) / sizeof(*rows); j++) {
            struct shape s = list[i];

            s.m = rows[j];
            if (s.m < least || s.m > most || (s.m > 64 && s.n < 2560 && s.k < 9000))
                continue;
            time_one(c, k, f, &s);
            s.y_short = k->puts_short && k->takes_prepared && s.m > 64;
            if (s.y_short)
                time_one(c, k, f, &s);
        }
}

/* Strips: every number of rows (what is behind the last one is read by nobody), shared by all sizes
 * of clusters, several a block. */
static void strips(struct cc *c, const struct ew_cuda_linear_kernel *k,
                   const struct ew_quant_format *f)
{
    static const struct shape list[] = {
        { 24, 656, 1416, true, true, false, false, EW_ACT_SILU, 1, 0, false },
        { 16, 4112, 640, false, false, true, true, 0, 1, 0, false },
        { 31, 80, 6200, false, true, false, true, 0, 1, 0, false },
        { 2, 25500, 136, false, false, true, false, 0, 1, 0, false },
        { 3, 16904, 640, true, true, false, false, EW_ACT_SILU, 1, 0, false },
        { 5, 4216, 2100, false, false, false, true, 0, 1, 0, false },
        { 20, 4216, 2100, false, true, true, false, 0, 1, 0, false },
    };

    for (size_t m = 1; m <= 64 && m <= k->max_rows; m++) {
        const struct shape s = { .m = m, .n = 84, .k = 264, .bias = true, .scale = 1 };

        one(c, k, f, &s);
    }
    for (size_t i = 0; i < sizeof(list) / sizeof(*list); i++)
        one(c, k, f, &list[i]);
}

CC_FAMILY(linear_cuda)
{
    size_t n;
    const struct ew_cuda_linear_kernel *const *all = ew_cuda_linear_kernels(&n);

    for (size_t i = 0; i < n; i++) {
        const bool plain = all[i]->layout->takes == NULL;

        for (size_t j = 0; j < (plain ? 1 : sizeof(formats) / sizeof(*formats)); j++) {
            const bool first = plain || j == 0 || j == 9;

            shapes(c, all[i], plain ? NULL : &formats[j], !first);
            if (first)
                same_bits(c, all[i], plain ? NULL : &formats[j]);
            if (first && strncmp(all[i]->name, "strip", 5) == 0)
                strips(c, all[i], plain ? NULL : &formats[j]);
            if (cc_is_bench(c) && (plain || j == 0 || j == 2 || j == 7 || j == 9 || j == 13))
                times(c, all[i], plain ? NULL : &formats[j]);
        }
    }
}

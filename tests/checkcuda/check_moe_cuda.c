/* check_moe_cuda.c - Moe on the device: the router's choice bit for bit, the result against sums in
 * double, and the same bits for a row whatever rows are beside it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../quant_matrix.h"
#include "base/half.h"
#include "base/size.h"
#include "checkcuda.h"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/moe_cuda.h"
#include "kernels/rowops.h"
#include "tensor/tensor.h"

#define AT(type, address) ((type *)(uintptr_t)(address))

struct shape {
    size_t rows, h, inner, e, k;
    ew_dtype dtype;                       /* of plain experts */
    const struct ew_quant_format *format; /* NULL: plain */
    int act;
    bool norm, has_ties;
};

struct experts {
    float *rows;  /* [e][n][k] */
    void *packed; /* one after the other */
    size_t stride;
};

struct moe {
    struct shape of;
    float *x, *logits;
    struct experts up, down;
};

static void *room(size_t bytes)
{
    void *p = calloc(1, bytes ? bytes : 1);

    if (!p)
        abort();
    return p;
}

static const struct ew_linear_kernel *layout_of(const struct shape *of)
{
    if (of->format)
        return ew_quant_code_bits(of->format->code) == 8 ? &ew_cuda_layout_q8 : &ew_cuda_layout_q4;
    return of->dtype == EW_DTYPE_F32   ? &ew_cuda_layout_f32
           : of->dtype == EW_DTYPE_F16 ? &ew_cuda_layout_f16
                                       : &ew_cuda_layout_bf16;
}

static void fill_matrix(struct cc *c, struct matrix *m, const struct ew_quant_format *f, size_t n,
                        size_t k)
{
    const size_t groups = ew_quant_groups(f, k);
    const float size = 0.3f / sqrtf((float)k);

    *m = (struct matrix){
        .base = { .format = *f, .name = "random", .n = n, .k = k, .read = matrix_read },
        .codes = room(n * k),
        .scales = room(n * groups * 4),
        .row_scale = room(n * 4),
        .zeros = room(n * groups * 2)
    };
    for (size_t i = 0; i < n * k; i++)
        m->codes[i] = matrix_code((uint8_t)cc_rand(c), f->code, false);
    for (size_t i = 0; i < n * groups; i++) {
        uint32_t element = 0;

        m->scales[i] = size * (float)cc_range(c, 1, 8) / 4;
        if (f->scale != EW_DTYPE_NONE) {
            ew_elem_set_f64(&element, f->scale, 0,
                            f->scale == EW_DTYPE_F8E8M0 ? exp2(floor(log2((double)m->scales[i])))
                                                        : (double)m->scales[i]);
            m->scales[i] = (float)ew_elem_get_f64(&element, f->scale, 0);
        }
        m->zeros[i] = f->zero ? (int16_t)cc_range(c, 0, 15) : 0;
    }
    for (size_t i = 0; i < n; i++)
        m->row_scale[i] = f->code == EW_DTYPE_F8E4M3 ? 0.02f : 1.0f;
}

/* One expert: its rows as numbers, and packed. */
static void make_expert(struct cc *c, const struct shape *of, size_t n, size_t k, bool glu,
                        float *rows, void *packed)
{
    const struct ew_linear_kernel *l = layout_of(of);
    struct matrix m = { 0 };
    void *plain = NULL;
    struct ew_weight_part part = { .n_rows = n, .row_stride = (ptrdiff_t)k, .col_stride = 1 };
    struct ew_pack_args a = {
        .format = of->format, .parts = &part, .n_parts = 1, .n = n, .k = k, .glu = glu
    };

    if (of->format) {
        fill_matrix(c, &m, of->format, n, k);
        const struct ew_quant_rows all = { m.codes, m.scales, m.zeros, m.row_scale };

        for (size_t i = 0; i < n; i++)
            ew_quant_decode_row(of->format, &all, i, k, rows + i * k);
        part.quant = &m.base;
        a.scratch = room(l->pack_scratch_bytes(of->format, k));
    } else {
        plain = room(n * k * 4);
        cc_fill_normal(c, rows, n * k, 1.0f / sqrtf((float)k));
        ew_convert_floats(plain, of->dtype, rows, EW_DTYPE_F32, n * k);
        for (size_t i = 0; i < n * k; i++)
            rows[i] = (float)ew_elem_get_f64(plain, of->dtype, i);
        part.data = plain;
    }
    l->pack(packed, &a, 0, l->n_units(n, glu));
    free(m.codes);
    free(m.scales);
    free(m.row_scale);
    free(m.zeros);
    free(a.scratch);
    free(plain);
}

/* Too large for the reference. */
static bool is_large(const struct shape *of)
{
    return of->e * of->h * of->inner > 10000000u;
}

static struct experts make_experts(struct cc *c, const struct shape *of, size_t n, size_t k,
                                   bool glu)
{
    const struct ew_linear_kernel *l = layout_of(of);
    struct experts w = { room((is_large(of) ? 1 : of->e) * n * k * 4), NULL,
                         l->packed_bytes(of->format, n, k, glu) };

    w.packed = room(of->e * w.stride);
    for (size_t e = 0; e < of->e; e++)
        if (e == 0 || !is_large(of)) /* what is only timed may be the same every time */
            make_expert(c, of, n, k, glu, w.rows + e * n * k, (char *)w.packed + e * w.stride);
        else
            memcpy((char *)w.packed + e * w.stride, w.packed, w.stride);
    return w;
}

static double activate(int act, double x)
{
    switch (act) {
    case EW_ACT_SILU:
        return x / (1 + exp(-x));
    case EW_ACT_GELU_TANH:
        return 0.5 * x * (1 + tanh(0.79788456080286535588 * (x + 0.044715 * x * x * x)));
    case EW_ACT_GELU_ERF:
        return 0.5 * x * (1 + erf(x * 0.70710678118654752440));
    case EW_ACT_RELU2:
        return x > 0 ? x * x : 0;
    default:
        return act == EW_ACT_RELU && x < 0 ? 0 : x;
    }
}

static double dot(const float *w, const double *x, size_t k)
{
    double s = 0;

    for (size_t i = 0; i < k; i++)
        s += (double)w[i] * x[i];
    return s;
}

/* Whether the products round their operands to 16 bits. */
static bool rounds(const struct shape *of)
{
    return of->format || (of->dtype != EW_DTYPE_F32 && of->rows > EW_CUDA_MOE_FEW_ROWS);
}

static double operand(const struct shape *of, double x)
{
    if (!rounds(of))
        return x;
    return (double)(!of->format && of->dtype == EW_DTYPE_F16
                        ? ew_f16_to_f32(ew_f32_to_f16((float)x))
                        : ew_bf16_to_f32(ew_f32_to_bf16((float)x)));
}

/* How far the sum over `mid` times w may be off: sums in another order, and where what gate and up
 * make lies between two numbers of 16 bits, a few that took the other one. */
static double slack(const struct shape *of, const float *w, const double *mid, size_t k)
{
    double sum = 0, most = 0;

    for (size_t i = 0; i < k; i++) {
        const double p = fabs((double)w[i] * mid[i]);

        sum += p;
        most = p > most ? p : most;
    }
    return 3e-5 * sum + (rounds(of) ? 3 * 0x1p-8 * most : 0);
}

static void reference(const struct moe *m, float *y, float *bound)
{
    size_t n;
    const struct ew_rowops *ref = ew_rowops_all(&n)[0];
    const size_t h = m->of.h, inner = m->of.inner;
    int32_t *idx = room(m->of.rows * m->of.k * 4);
    float *prob = room(m->of.rows * m->of.k * 4);
    double *x = room(h * 8), *mid = room(inner * 8), *sum = room(h * 8), *off = room(h * 8);

    ref->topk_softmax(m->logits, m->of.rows, m->of.e, m->of.k, m->of.norm, idx, prob);
    for (size_t r = 0; r < m->of.rows; r++) {
        memset(sum, 0, h * 8);
        memset(off, 0, h * 8);
        for (size_t i = 0; i < h; i++)
            x[i] = operand(&m->of, (double)m->x[r * h + i]);
        for (size_t j = 0; j < m->of.k; j++) {
            const size_t e = (size_t)idx[r * m->of.k + j];
            const float *up = m->up.rows + e * 2 * inner * h, *down = m->down.rows + e * h * inner;

            for (size_t i = 0; i < inner; i++)
                mid[i] = operand(&m->of, activate(m->of.act, dot(up + i * h, x, h)) *
                                             dot(up + (inner + i) * h, x, h));
            for (size_t i = 0; i < h; i++) {
                const double p = (double)prob[r * m->of.k + j];

                sum[i] += p * dot(down + i * inner, mid, inner);
                off[i] += p * slack(&m->of, down + i * inner, mid, inner);
            }
        }
        for (size_t i = 0; i < h; i++) {
            y[r * h + i] = (float)sum[i];
            bound[r * h + i] = (float)(off[i] + 1e-6 * fabs(sum[i]) + 1e-7);
        }
    }
    free(idx);
    free(prob);
    free(x);
    free(mid);
    free(sum);
    free(off);
}

static void make(struct cc *c, struct moe *m)
{
    const struct shape *of = &m->of;

    m->x = room(of->rows * of->h * 4);
    m->logits = room(of->rows * of->e * 4);
    cc_fill_normal(c, m->x, of->rows * of->h, 1.0f);
    cc_fill_normal(c, m->logits, of->rows * of->e, 2.0f);
    for (size_t i = 0; i < of->rows * of->e && of->has_ties; i++)
        m->logits[i] = roundf(m->logits[i]);
    m->up = make_experts(c, of, 2 * of->inner, of->h, true);
    m->down = make_experts(c, of, of->h, of->inner, false);
}

static struct ew_cuda_moe_weight weight_of(struct cc *c, const struct shape *of,
                                           const struct experts *w)
{
    struct ew_cuda_moe_weight r = { .at = AT(void, cc_input(c, w->packed, of->e * w->stride)),
                                    .stride = w->stride,
                                    .dtype = of->dtype };

    if (of->format)
        r.format = *of->format;
    return r;
}

static void judge(struct cc *c, const struct moe *m, const float *got)
{
    const struct shape *of = &m->of;
    const size_t n_y = of->rows * of->h;
    float *want, *bound;

    if (is_large(of))
        return;
    want = room(n_y * 4);
    bound = room(n_y * 4);
    reference(m, want, bound);
    cc_within(c, "y", got, want, bound, n_y);
    free(want);
    free(bound);
}

static void run_case(struct cc *c, struct shape of)
{
    struct moe m = { .of = of };
    const size_t n_y = of.rows * of.h;
    struct ew_cuda_launch l[EW_CUDA_MOE_LAUNCHES], one[EW_CUDA_MOE_LAUNCHES];
    char format[64] = "";
    ew_error err = { 0 };
    size_t n, n_one;

    if (of.format)
        ew_quant_format_text(of.format, format, sizeof(format));
    if (!cc_begin(c, "%s rows%zu h%zu inner%zu e%zu k%zu act%d norm%d ties%d",
                  of.format ? format : ew_dtype_text(of.dtype), of.rows, of.h, of.inner, of.e, of.k,
                  of.act, of.norm, of.has_ties))
        return;
    make(c, &m);
    const uint64_t y = cc_output(c, n_y * 4), y_one = cc_output(c, of.h * 4);
    struct ew_cuda_moe p = {
        .x = AT(float, cc_input(c, m.x, n_y * 4)),
        .logits = AT(float, cc_input(c, m.logits, of.rows * of.e * 4)),
        .gate_up = weight_of(c, &of, &m.up),
        .down = weight_of(c, &of, &m.down),
        .y = AT(float, y),
        .rows = of.rows,
        .h = of.h,
        .inner = of.inner,
        .e = of.e,
        .k = of.k,
        .act = of.act,
        .norm_topk = of.norm,
    };
    const uint32_t tile_rows = ew_cuda_moe_tile_rows(&p);

    p.work = AT(void, cc_output(c, ew_cuda_moe_work_bytes(&p)));
    ew_status st = ew_cuda_moe_plan(&p, cc_chip(c), l, &n, &err);
    p.x += (of.rows - 1) * of.h; /* the last row alone */
    p.logits += (of.rows - 1) * of.e;
    p.y = AT(float, y_one);
    p.rows = 1;
    p.work = AT(void, cc_output(c, ew_cuda_moe_work_bytes(&p)));
    st = st ? st : ew_cuda_moe_plan(&p, cc_chip(c), one, &n_one, &err);
    /* both are launched where the specs are only gathered, too */
    const bool ran = !st && cc_launch(c, l, n), one_ran = !st && cc_launch(c, one, n_one);

    if (st) {
        cc_fail(c, "%s", err.text);
    } else if (ran && one_ran) {
        const float *got = cc_download(c, y);

        judge(c, &m, got);
        if (tile_rows == ew_cuda_moe_tile_rows(&p) || !rounds(&of)) /* the same kernels */
            cc_equal(c, "the last row alone", cc_download(c, y_one), got + (of.rows - 1) * of.h,
                     of.h * 4);
        cc_bench(c, l, n,
                 (double)((of.rows * of.k < of.e ? of.rows * of.k : of.e) *
                          (m.up.stride + m.down.stride)),
                 6.0 * (double)(of.rows * of.k * of.inner * of.h));
    }
    cc_end(c);
    free(m.x);
    free(m.logits);
    free(m.up.rows);
    free(m.up.packed);
    free(m.down.rows);
    free(m.down.packed);
}

static const struct ew_quant_format formats[] = {
    { .code = EW_DTYPE_I4, .scale = EW_DTYPE_BF16, .group = 32 },
    { .code = EW_DTYPE_U4, .scale = EW_DTYPE_F16, .group = 64, .zero = true },
    { .code = EW_DTYPE_F4E2M1, .scale = EW_DTYPE_F8E8M0, .group = 32 }, /* mxfp4 */
    { .code = EW_DTYPE_F4E2M1, .scale = EW_DTYPE_F8E4M3, .group = 16 }, /* nvfp4 */
    { .code = EW_DTYPE_I8, .scale = EW_DTYPE_F32, .group = 0 },
    { .code = EW_DTYPE_F8E4M3, .scale = EW_DTYPE_F32, .group = 0 },
};

CC_FAMILY(moe_cuda)
{
    /* rows, h, inner, e, k, dtype, format, act, norm, ties */
    const struct shape plain[] = {
        { 1, 64, 48, 8, 2, EW_DTYPE_BF16, NULL, EW_ACT_SILU, true, false },
        { 3, 64, 48, 8, 2, EW_DTYPE_BF16, NULL, EW_ACT_SILU, true, false },
        { 37, 64, 48, 8, 2, EW_DTYPE_F16, NULL, EW_ACT_GELU_TANH, false, true },
        { 5, 264, 104, 60, 4, EW_DTYPE_F32, NULL, EW_ACT_SILU, true, true },
        { 90, 128, 72, 3, 3, EW_DTYPE_BF16, NULL, EW_ACT_RELU2, true, false },
        { 2, 128, 64, 200, 8, EW_DTYPE_BF16, NULL, EW_ACT_GELU_ERF, false, false },
        { 21, 256, 136, 3, 3, EW_DTYPE_BF16, NULL, EW_ACT_SILU, true, true },
        { 77, 192, 80, 4, 3, EW_DTYPE_F16, NULL, EW_ACT_SILU, true, false },
    };
    static const size_t rows[] = { 1, 5, 19, 200 };

    for (size_t i = 0; i < EW_COUNT(plain); i++)
        run_case(c, plain[i]);
    for (size_t i = 0; i < EW_COUNT(formats); i++)
        for (size_t r = 0; r < EW_COUNT(rows); r++)
            run_case(c, (struct shape){ rows[r], 192, 128 + 8 * (i % 2), 6, 2, EW_DTYPE_F32,
                                        &formats[i], EW_ACT_SILU, true, r == 2 });
    if (!cc_is_bench(c))
        return;
    for (size_t r = 1; r <= 256; r *= 4) /* Qwen3-30B-A3B, an eighth of its experts */
        for (int q = 0; q < 3; q++)
            run_case(c, (struct shape){ r, 2048, 768, 16, 8, EW_DTYPE_BF16,
                                        q ? &formats[q == 1 ? 0 : 4] : NULL, EW_ACT_SILU, true,
                                        false });
}

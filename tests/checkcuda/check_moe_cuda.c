/* check_moe_cuda.c - Moe on the device: the router's choice bit for bit, the result against sums in
 * double, and the same bits for a row whatever rows are beside it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "checkcuda.h"
#include "kernels/cuda/moe_cuda.h"
#include "kernels/rowops.h"
#include "tensor/tensor.h"

#define AT(type, address) ((type *)(uintptr_t)(address))

struct shape {
    size_t rows, h, inner, e, k;
    ew_dtype dtype;
    int act;
    bool norm, has_ties;
};

struct moe {
    struct shape of;
    float *x, *logits;
    void *up, *down; /* of dtype */
};

static void *room(size_t bytes)
{
    void *p = calloc(1, bytes ? bytes : 1);

    if (!p)
        abort();
    return p;
}

static void *weights(struct cc *c, ew_dtype t, size_t n, float scale)
{
    float *f = room(n * 4);
    void *p = room(n * 4);

    cc_fill_normal(c, f, n, scale);
    ew_convert_floats(p, t, f, EW_DTYPE_F32, n);
    free(f);
    return p;
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

static double dot(const struct moe *m, const void *w, size_t row, const double *x, size_t k)
{
    double s = 0;

    for (size_t i = 0; i < k; i++)
        s += ew_elem_get_f64(w, m->of.dtype, row * k + i) * x[i];
    return s;
}

static void reference(const struct moe *m, float *y)
{
    size_t n;
    const struct ew_rowops *ref = ew_rowops_all(&n)[0];
    int32_t *idx = room(m->of.rows * m->of.k * 4);
    float *prob = room(m->of.rows * m->of.k * 4);
    double *x = room(m->of.h * 8), *mid = room(m->of.inner * 8), *sum = room(m->of.h * 8);

    ref->topk_softmax(m->logits, m->of.rows, m->of.e, m->of.k, m->of.norm, idx, prob);
    for (size_t r = 0; r < m->of.rows; r++) {
        memset(sum, 0, m->of.h * 8);
        for (size_t i = 0; i < m->of.h; i++)
            x[i] = (double)m->x[r * m->of.h + i];
        for (size_t j = 0; j < m->of.k; j++) {
            const size_t e = (size_t)idx[r * m->of.k + j];

            for (size_t i = 0; i < m->of.inner; i++)
                mid[i] = activate(m->of.act, dot(m, m->up, e * 2 * m->of.inner + i, x, m->of.h)) *
                         dot(m, m->up, (e * 2 + 1) * m->of.inner + i, x, m->of.h);
            for (size_t i = 0; i < m->of.h; i++)
                sum[i] += (double)prob[r * m->of.k + j] *
                          dot(m, m->down, e * m->of.h + i, mid, m->of.inner);
        }
        for (size_t i = 0; i < m->of.h; i++)
            y[r * m->of.h + i] = (float)sum[i];
    }
    free(idx);
    free(prob);
    free(x);
    free(mid);
    free(sum);
}

static void make(struct cc *c, struct moe *m)
{
    m->x = room(m->of.rows * m->of.h * 4);
    m->logits = room(m->of.rows * m->of.e * 4);
    cc_fill_normal(c, m->x, m->of.rows * m->of.h, 1.0f);
    cc_fill_normal(c, m->logits, m->of.rows * m->of.e, 2.0f);
    for (size_t i = 0; i < m->of.rows * m->of.e && m->of.has_ties; i++)
        m->logits[i] = roundf(m->logits[i]);
    m->up =
        weights(c, m->of.dtype, m->of.e * 2 * m->of.inner * m->of.h, 1.0f / sqrtf((float)m->of.h));
    m->down =
        weights(c, m->of.dtype, m->of.e * m->of.h * m->of.inner, 1.0f / sqrtf((float)m->of.inner));
}

static void run_case(struct cc *c, struct shape of)
{
    struct moe m = { .of = of };
    const size_t bytes = ew_dtype_bits(of.dtype) / 8, n_y = of.rows * of.h;
    struct ew_cuda_launch l[EW_CUDA_MOE_LAUNCHES], one[EW_CUDA_MOE_LAUNCHES];
    ew_error err = { 0 };
    size_t n, n_one;

    if (!cc_begin(c, "%s rows%zu h%zu inner%zu e%zu k%zu act%d norm%d ties%d",
                  ew_dtype_text(of.dtype), of.rows, of.h, of.inner, of.e, of.k, of.act, of.norm,
                  of.has_ties))
        return;
    make(c, &m);
    const uint64_t y = cc_output(c, n_y * 4), y_one = cc_output(c, of.h * 4);
    struct ew_cuda_moe p = {
        .x = AT(float, cc_input(c, m.x, n_y * 4)),
        .logits = AT(float, cc_input(c, m.logits, of.rows * of.e * 4)),
        .gate_up = AT(void, cc_input(c, m.up, of.e * 2 * of.inner * of.h * bytes)),
        .down = AT(void, cc_input(c, m.down, of.e * of.inner * of.h * bytes)),
        .gate_up_stride = 2 * of.inner * of.h * bytes,
        .down_stride = of.inner * of.h * bytes,
        .w_dtype = of.dtype,
        .y = AT(float, y),
        .rows = of.rows,
        .h = of.h,
        .inner = of.inner,
        .e = of.e,
        .k = of.k,
        .act = of.act,
        .norm_topk = of.norm,
    };
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

        if (of.rows * of.k * of.h * of.inner < 100000000u) {
            float *want = room(n_y * 4);

            reference(&m, want);
            cc_near(c, "y", got, want, n_y, 3e-5, 3e-5);
            free(want);
        }
        cc_equal(c, "the last row alone", cc_download(c, y_one), got + (of.rows - 1) * of.h,
                 of.h * 4);
        cc_bench(
            c, l, n,
            (double)((of.rows * of.k < of.e ? of.rows * of.k : of.e) * 3 * of.inner * of.h * bytes),
            6.0 * (double)(of.rows * of.k * of.inner * of.h));
    }
    cc_end(c);
    free(m.x);
    free(m.logits);
    free(m.up);
    free(m.down);
}

CC_FAMILY(moe_cuda)
{
    run_case(c, (struct shape){ 1, 64, 48, 8, 2, EW_DTYPE_BF16, EW_ACT_SILU, true, false });
    run_case(c, (struct shape){ 37, 64, 48, 8, 2, EW_DTYPE_F16, EW_ACT_GELU_TANH, false, true });
    run_case(c, (struct shape){ 5, 264, 104, 60, 4, EW_DTYPE_F32, EW_ACT_SILU, true, true });
    run_case(c, (struct shape){ 90, 128, 72, 3, 3, EW_DTYPE_BF16, EW_ACT_RELU2, true, false });
    run_case(c, (struct shape){ 2, 128, 64, 200, 8, EW_DTYPE_BF16, EW_ACT_GELU_ERF, false, false });
    if (cc_is_bench(c)) { /* Qwen3-30B-A3B, an eighth of its experts */
        run_case(c, (struct shape){ 1, 2048, 768, 16, 8, EW_DTYPE_BF16, EW_ACT_SILU, true, false });
        run_case(c,
                 (struct shape){ 64, 2048, 768, 16, 8, EW_DTYPE_BF16, EW_ACT_SILU, true, false });
    }
}

/* kernels/ref/gen_nn_pool.c - MaxPool, AveragePool and their global forms, a run of the last dim of
 * one window at a time. */
#include <math.h>

#include "kernels/ref/gen_nn.h"
#include "op/infer_nn.h"

struct pool {
    struct ew_window w;
    const struct ew_view *x;
    bool is_max, counts_pads, column_major;
    ptrdiff_t in_stride[EW_MAX_SPATIAL];
};

/* What one window gives. */
struct window_value {
    double sum, best;
    int64_t count;     /* elements inside the data */
    int64_t padded;    /* elements inside data and pads */
    ptrdiff_t best_at; /* in the channel; -1: none */
};

static int64_t ceil_div(int64_t a, int64_t b)
{
    return a >= 0 ? (a + b - 1) / b : -(-a / b);
}

/* Kernel elements of dim d whose place first + k*dilation is in [lo, hi). */
static void inside(const struct pool *p, int d, int64_t first, int64_t lo, int64_t hi,
                   int64_t *begin, int64_t *end)
{
    const int64_t step = p->w.dilation[d];

    *begin = ceil_div(lo - first, step);
    *begin = *begin > 0 ? *begin : 0;
    *end = ceil_div(hi - first, step);
    *end = *end < p->w.kernel[d] ? *end : p->w.kernel[d];
    *end = *end > *begin ? *end : *begin;
}

static void take_run(const struct pool *p, ptrdiff_t channel, ptrdiff_t at, ptrdiff_t step,
                     ptrdiff_t n, struct window_value *v)
{
    union ew_gen_block b;

    for (ptrdiff_t i = 0; i < n; i += EW_GEN_BLOCK) {
        const ptrdiff_t len = n - i < EW_GEN_BLOCK ? n - i : EW_GEN_BLOCK;

        ew_gen_load(&b, EW_GEN_F64, p->x->data, p->x->type.dtype, channel + at + i * step, step,
                    (size_t)len);
        for (ptrdiff_t k = 0; k < len; k++) {
            v->sum += b.f64[k];
            if (v->best_at < 0 || b.f64[k] > v->best) {
                v->best = b.f64[k];
                v->best_at = at + (i + k) * step;
            }
        }
    }
    v->count += n;
}

/* The window of output pixel out[] in the channel that starts at `channel`. */
static void take_window(const struct pool *p, ptrdiff_t channel, const int64_t *out,
                        struct window_value *v)
{
    const int last = p->w.n - 1;
    int64_t first[EW_MAX_SPATIAL], begin[EW_MAX_SPATIAL], end[EW_MAX_SPATIAL], k[EW_MAX_SPATIAL];

    *v = (struct window_value){ .padded = 1, .best_at = -1 };
    for (int d = 0; d <= last; d++) {
        first[d] = out[d] * p->w.stride[d] - p->w.pad_begin[d];
        inside(p, d, first[d], -p->w.pad_begin[d], p->w.in[d] + p->w.pad_end[d], &begin[d],
               &end[d]);
        v->padded *= end[d] - begin[d];
    }
    for (int d = 0; d <= last; d++) {
        inside(p, d, first[d], 0, p->w.in[d], &begin[d], &end[d]);
        if (end[d] == begin[d])
            return;
        k[d] = begin[d];
    }
    for (;;) {
        ptrdiff_t at = 0;
        int d = last - 1;

        for (int e = 0; e <= last; e++)
            at += (ptrdiff_t)(first[e] + k[e] * p->w.dilation[e]) * p->in_stride[e];
        take_run(p, channel, at, (ptrdiff_t)p->w.dilation[last],
                 (ptrdiff_t)(end[last] - begin[last]), v);
        for (; d >= 0; d--) {
            if (++k[d] < end[d])
                break;
            k[d] = begin[d];
        }
        if (d < 0)
            return;
    }
}

/* A place in the channel, row-major, as one with the first spatial dim fastest. */
static int64_t column_major(const struct pool *p, ptrdiff_t at)
{
    int64_t place = 0, step = 1;

    for (int d = 0; d < p->w.n; d++) {
        place += at / p->in_stride[d] * step;
        at %= p->in_stride[d];
        step *= p->w.in[d];
    }
    return place;
}

static void store_window(const struct pool *p, const struct ew_general_args *a, ptrdiff_t channel,
                         ptrdiff_t to, const struct window_value *v)
{
    const int64_t n = p->counts_pads ? v->padded : v->count;
    double y = 0;

    if (p->is_max)
        y = v->best_at >= 0 ? v->best : 0; /* a window of padding alone: 0 */
    else if (n > 0)
        y = v->sum / (double)n;
    if (a->out[0])
        ew_gen_store(a->out[0]->data, a->out[0]->type.dtype, to, 1, &y, EW_GEN_F64, 1);
    if (a->n_out > 1 && a->out[1]) {
        int64_t at = -1;

        if (v->best_at >= 0)
            at = channel + (p->column_major ? column_major(p, v->best_at) : v->best_at);
        ((int64_t *)a->out[1]->data)[to] = at;
    }
}

ew_status ew_gen_pool(const struct ew_general_args *a)
{
    const struct ew_attr_pool *const attr = &a->attrs->pool;
    const struct ew_type *const x = &a->in[0]->type;
    struct pool p = { .x = a->in[0],
                      .is_max = a->op == EW_OP_MAX_POOL,
                      .counts_pads = attr->count_include_pad != 0,
                      .column_major = attr->storage_order != 0 };
    struct ew_window_spec spec;
    ptrdiff_t channels, in_size, out_size = 1;

    EW_TRY(ew_window_spec_pool(attr, x, &spec, a->err));
    EW_TRY(ew_window_resolve(&spec, NULL, &p.w, a->err));
    ew_gen_strides(p.w.n, p.w.in, p.in_stride);
    channels = (ptrdiff_t)ew_gen_product(x, 0, 2);
    in_size = (ptrdiff_t)ew_gen_product(x, 2, x->n_dims);
    for (int d = 0; d < p.w.n; d++)
        out_size *= (ptrdiff_t)p.w.out[d];
    for (ptrdiff_t ch = 0; ch < channels && out_size > 0; ch++) {
        int64_t out[EW_MAX_SPATIAL] = { 0 };

        for (ptrdiff_t o = 0; o < out_size; o++) {
            struct window_value v;

            take_window(&p, ch * in_size, out, &v);
            store_window(&p, a, ch * in_size, ch * out_size + o, &v);
            for (int d = p.w.n - 1; d >= 0; d--) {
                if (++out[d] < p.w.out[d])
                    break;
                out[d] = 0;
            }
        }
    }
    return EW_STATUS_OK;
}

ew_status ew_gen_global_pool(const struct ew_general_args *a)
{
    const struct ew_type *const x = &a->in[0]->type;
    const struct pool p = { .x = a->in[0] };
    const ptrdiff_t channels = (ptrdiff_t)ew_gen_product(x, 0, 2);
    const ptrdiff_t n = (ptrdiff_t)ew_gen_product(x, 2, x->n_dims);

    for (ptrdiff_t ch = 0; ch < channels; ch++) {
        struct window_value v = { .best_at = -1 };
        double y;

        take_run(&p, ch * n, 0, 1, n, &v);
        y = a->op == EW_OP_GLOBAL_MAX_POOL ? v.best : v.sum / (double)n;
        ew_gen_store(a->out[0]->data, a->out[0]->type.dtype, ch, 1, &y, EW_GEN_F64, 1);
    }
    return EW_STATUS_OK;
}

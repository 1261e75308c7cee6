/* kernels/ref/gen_scan.c - ops along one axis: ArgMax/ArgMin, CumSum, Softmax and its kin, TopK. A
 * tensor is [outer][d][inner] here and a row is the d elements `inner` apart. */
#include <math.h>
#include <string.h>

#include "kernels/ref/gen_common.h"

struct rows {
    ptrdiff_t outer, d, inner;
};

static struct rows rows_of(const struct ew_type *t, int axis)
{
    return (struct rows){ (ptrdiff_t)ew_gen_product(t, 0, axis), (ptrdiff_t)t->dim[axis],
                          (ptrdiff_t)ew_gen_product(t, axis + 1, t->n_dims) };
}

/* ---- order of values: NaN is greater than any number, as numpy sorts ---- */

#define COMPARE_MEMBER(T)                                                                          \
    do {                                                                                           \
        const T *const v = values;                                                                 \
        return (v[i] > v[j]) - (v[i] < v[j]);                                                      \
    } while (0)

#define COMPARE_FLOAT(T)                                                                           \
    do {                                                                                           \
        const T *const v = values;                                                                 \
        if (v[i] != v[i] || v[j] != v[j])                                                          \
            return (v[i] != v[i]) - (v[j] != v[j]);                                                \
        return (v[i] > v[j]) - (v[i] < v[j]);                                                      \
    } while (0)

static int compare(const void *values, enum ew_gen_class c, size_t i, size_t j)
{
    switch (c) {
    case EW_GEN_F32:
        COMPARE_FLOAT(float);
    case EW_GEN_F64:
        COMPARE_FLOAT(double);
    case EW_GEN_I64:
        COMPARE_MEMBER(int64_t);
    default:
        COMPARE_MEMBER(uint64_t);
    }
}

/* ---- ArgMax, ArgMin ---- */

static bool is_nan_at(const void *values, enum ew_gen_class c, size_t i)
{
    if (c == EW_GEN_F32)
        return isnan(((const float *)values)[i]);
    return c == EW_GEN_F64 && isnan(((const double *)values)[i]);
}

/* Index within the row; a NaN wins both ways, as in numpy. Slot 0 of the block keeps the best. */
static int64_t arg_row(const struct ew_view *x, ptrdiff_t at, const struct rows *r, bool is_max,
                       bool last)
{
    const enum ew_gen_class c = ew_gen_class_of(x->type.dtype);
    const size_t width = ew_gen_class_bytes(c);
    union ew_gen_block b;
    int64_t best = 0;

    ew_gen_load(&b, c, x->data, x->type.dtype, at, r->inner, 1);
    for (ptrdiff_t i = 1; i < r->d; i += EW_GEN_BLOCK - 1) {
        const size_t left = (size_t)(r->d - i);
        const size_t n = left < EW_GEN_BLOCK - 1 ? left : EW_GEN_BLOCK - 1;

        ew_gen_load((char *)&b + width, c, x->data, x->type.dtype, at + i * r->inner, r->inner, n);
        for (size_t k = 1; k <= n; k++) {
            const bool nan_best = is_nan_at(&b, c, 0), nan_new = is_nan_at(&b, c, k);
            int order = compare(&b, c, k, 0);

            if (nan_best != nan_new)
                order = nan_new ? 1 : -1;
            else if (!is_max)
                order = -order;
            if (order > 0 || (order == 0 && last)) {
                memcpy(&b, (char *)&b + k * width, width);
                best = (int64_t)i + (int64_t)k - 1;
            }
        }
    }
    return best;
}

ew_status ew_gen_arg(const struct ew_general_args *a)
{
    const struct ew_view *const x = a->in[0];
    const struct ew_attr_arg *const attr = &a->attrs->arg;
    int64_t *y = a->out[0]->data;
    const bool is_scalar = x->type.n_dims == 0;
    const int axis = ew_gen_axis(attr->axis, x->type.n_dims);
    const struct rows r = is_scalar ? (struct rows){ 1, 1, 1 } : rows_of(&x->type, axis);

    if (r.d == 0 && r.outer * r.inner > 0)
        return ew_fail(a->err, EW_STATUS_MISMATCH, "axis %d has no elements to choose from", axis);
    for (ptrdiff_t o = 0; o < r.outer; o++)
        for (ptrdiff_t i = 0; i < r.inner; i++)
            *y++ = arg_row(x, o * r.d * r.inner + i, &r, a->op == EW_OP_ARG_MAX,
                           attr->select_last_index != 0);
    return EW_STATUS_OK;
}

/* ---- CumSum ---- */

union running {
    double f;
    uint64_t u;
};

static void scan_block(union ew_gen_block *b, size_t n, bool is_float, bool exclusive,
                       union running *sum)
{
    for (size_t k = 0; k < n; k++) {
        const union running before = *sum;

        if (is_float) {
            sum->f += b->f64[k];
            b->f64[k] = exclusive ? before.f : sum->f;
        } else {
            sum->u += b->u64[k];
            b->u64[k] = exclusive ? before.u : sum->u;
        }
    }
}

ew_status ew_gen_cum_sum(const struct ew_general_args *a)
{
    const struct ew_view *const x = a->in[0];
    struct ew_view *const y = a->out[0];
    const struct ew_attr_cumsum *const attr = &a->attrs->cumsum;
    const int rank = x->type.n_dims;
    const bool is_float = ew_dtype_is_float(x->type.dtype);
    const enum ew_gen_class c = is_float ? EW_GEN_F64 : ew_gen_class_of(x->type.dtype);
    int64_t axis;
    struct rows r;

    if (ew_gen_count(&a->in[1]->type) != 1)
        return ew_fail(a->err, EW_STATUS_MISMATCH, "axis has %zu elements, 1 is needed",
                       ew_gen_count(&a->in[1]->type));
    axis = ew_gen_int_at(a->in[1], 0);
    if (axis < -rank || axis >= rank)
        return ew_fail(a->err, EW_STATUS_MALFORMED, "axis is %lld, rank is %d", (long long)axis,
                       rank);
    r = rows_of(&x->type, ew_gen_axis(axis, rank));
    for (ptrdiff_t lane = 0; lane < r.outer * r.inner && r.d > 0; lane++) {
        const ptrdiff_t first = lane / r.inner * r.d * r.inner + lane % r.inner;
        const ptrdiff_t step = attr->reverse ? -r.inner : r.inner;
        const ptrdiff_t begin = attr->reverse ? first + (r.d - 1) * r.inner : first;
        union running sum = { .u = 0 };
        union ew_gen_block b;

        if (is_float)
            sum.f = 0;
        for (ptrdiff_t i = 0; i < r.d; i += EW_GEN_BLOCK) {
            const size_t n = (size_t)(r.d - i < EW_GEN_BLOCK ? r.d - i : EW_GEN_BLOCK);

            ew_gen_load(&b, c, x->data, x->type.dtype, begin + i * step, step, n);
            scan_block(&b, n, is_float, attr->exclusive != 0, &sum);
            ew_gen_store(y->data, y->type.dtype, begin + i * step, step, &b, c, n);
        }
    }
    return EW_STATUS_OK;
}

/* ---- Softmax, LogSoftmax, Hardmax ---- */

#define SOFTMAX_ROW(name, T, exp_fn)                                                               \
    static void name(T *v, ptrdiff_t d, ew_op op)                                                  \
    {                                                                                              \
        T highest = v[0];                                                                          \
        ptrdiff_t best = 0;                                                                        \
        double sum = 0;                                                                            \
                                                                                                   \
        for (ptrdiff_t i = 1; i < d; i++) {                                                        \
            if (v[i] > highest) {                                                                  \
                highest = v[i];                                                                    \
                best = i;                                                                          \
            }                                                                                      \
        }                                                                                          \
        if (op == EW_OP_HARDMAX) {                                                                 \
            for (ptrdiff_t i = 0; i < d; i++)                                                      \
                v[i] = i == best;                                                                  \
            return;                                                                                \
        }                                                                                          \
        for (ptrdiff_t i = 0; i < d; i++) {                                                        \
            const T e = exp_fn(v[i] - highest);                                                    \
                                                                                                   \
            sum += (double)e;                                                                      \
            v[i] = op == EW_OP_SOFTMAX ? e : v[i] - highest;                                       \
        }                                                                                          \
        if (op == EW_OP_LOG_SOFTMAX)                                                               \
            sum = log(sum);                                                                        \
        for (ptrdiff_t i = 0; i < d; i++)                                                          \
            v[i] = (T)(op == EW_OP_SOFTMAX ? (double)v[i] / sum : (double)v[i] - sum);             \
    }

SOFTMAX_ROW(softmax_f32, float, expf)
SOFTMAX_ROW(softmax_f64, double, exp)

ew_status ew_gen_softmax(const struct ew_general_args *a)
{
    const struct ew_view *const x = a->in[0];
    struct ew_view *const y = a->out[0];
    const enum ew_gen_class c = ew_gen_class_of(x->type.dtype);
    const struct rows r = rows_of(&x->type, ew_gen_axis(a->attrs->axis.axis, x->type.n_dims));

    if (c != EW_GEN_F32 && c != EW_GEN_F64)
        return ew_gen_refuse(a, x->type.dtype);
    for (ptrdiff_t lane = 0; lane < r.outer * r.inner && r.d > 0; lane++) {
        const ptrdiff_t at = lane / r.inner * r.d * r.inner + lane % r.inner;

        ew_gen_load(a->scratch, c, x->data, x->type.dtype, at, r.inner, (size_t)r.d);
        if (c == EW_GEN_F32)
            softmax_f32(a->scratch, r.d, a->op);
        else
            softmax_f64(a->scratch, r.d, a->op);
        ew_gen_store(y->data, y->type.dtype, at, r.inner, a->scratch, c, (size_t)r.d);
    }
    return EW_STATUS_OK;
}

/* ---- TopK: a heap of all indices, the best on top, popped k times ---- */

struct heap {
    const void *values;
    enum ew_gen_class c;
    bool largest;
    int64_t *index;
    size_t n;
};

/* Equal values: the lower index goes first. */
static bool is_before(const struct heap *h, int64_t i, int64_t j)
{
    const int order = compare(h->values, h->c, (size_t)i, (size_t)j);

    if (order == 0)
        return i < j;
    return h->largest ? order > 0 : order < 0;
}

static void sift_down(struct heap *h, size_t at)
{
    const int64_t moving = h->index[at];

    for (;;) {
        size_t child = 2 * at + 1;

        if (child >= h->n)
            break;
        if (child + 1 < h->n && is_before(h, h->index[child + 1], h->index[child]))
            child++;
        if (!is_before(h, h->index[child], moving))
            break;
        h->index[at] = h->index[child];
        at = child;
    }
    h->index[at] = moving;
}

static int64_t heap_pop(struct heap *h)
{
    const int64_t top = h->index[0];

    h->index[0] = h->index[--h->n];
    if (h->n > 0)
        sift_down(h, 0);
    return top;
}

ew_status ew_gen_top_k(const struct ew_general_args *a)
{
    const struct ew_view *const x = a->in[0];
    struct ew_view *const y = a->out[0];
    struct ew_view *const y_index = a->n_out > 1 ? a->out[1] : NULL;
    const int axis = ew_gen_axis(a->attrs->top_k.axis, x->type.n_dims);
    const struct ew_view *const shape = y ? y : y_index;
    const enum ew_gen_class c = ew_gen_class_of(x->type.dtype);
    const struct rows r = rows_of(&x->type, axis);
    const ptrdiff_t k = shape ? (ptrdiff_t)shape->type.dim[axis] : 0;
    struct heap h = { a->scratch, c, a->attrs->top_k.largest != 0, NULL, 0 };

    if (k > r.d)
        return ew_fail(a->err, EW_STATUS_MISMATCH, "k is %lld, axis %d has %lld elements",
                       (long long)k, axis, (long long)r.d);
    h.index = (int64_t *)a->scratch + r.d;
    for (ptrdiff_t lane = 0; lane < r.outer * r.inner && k > 0; lane++) {
        const ptrdiff_t o = lane / r.inner, i = lane % r.inner;

        ew_gen_load(a->scratch, c, x->data, x->type.dtype, o * r.d * r.inner + i, r.inner,
                    (size_t)r.d);
        h.n = (size_t)r.d;
        for (size_t n = 0; n < h.n; n++)
            h.index[n] = (int64_t)n;
        for (size_t n = h.n / 2; n-- > 0;)
            sift_down(&h, n);
        for (ptrdiff_t n = 0; n < k; n++) {
            const int64_t best = heap_pop(&h);
            const ptrdiff_t to = (o * k + n) * r.inner + i;

            if (y)
                ew_gen_store(y->data, y->type.dtype, to, 1,
                             (const char *)a->scratch + (size_t)best * ew_gen_class_bytes(c), c, 1);
            if (y_index)
                ((int64_t *)y_index->data)[to] = best;
        }
    }
    return EW_STATUS_OK;
}

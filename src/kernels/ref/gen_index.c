/* kernels/ref/gen_index.c - gathers and scatters. Every index is checked: out of range is MISMATCH
 * and nothing is read or written outside a tensor. */
#include <string.h>

#include "kernels/ref/gen_common.h"

/* Index i of `indices` within [-dim, dim) as [0, dim). */
static ew_status index_get(const struct ew_general_args *a, const struct ew_view *indices, size_t i,
                           int64_t dim, ptrdiff_t *out)
{
    const int64_t v = ew_gen_int_at(indices, i);

    *out = 0; /* set on failure too: gcc cannot see that callers return then */
    if (v < -dim || v >= dim)
        return ew_fail(a->err, EW_STATUS_MISMATCH, "index %lld (element %zu), dim is %lld",
                       (long long)v, i, (long long)dim);
    *out = (ptrdiff_t)(v < 0 ? v + dim : v);
    return EW_STATUS_OK;
}

ew_status ew_gen_gather(const struct ew_general_args *a)
{
    const struct ew_view *const x = a->in[0];
    struct ew_view *const y = a->out[0];
    const int axis = ew_gen_axis(a->attrs->axis.axis, x->type.n_dims);
    const ptrdiff_t outer = (ptrdiff_t)ew_gen_product(&x->type, 0, axis);
    const ptrdiff_t inner = (ptrdiff_t)ew_gen_product(&x->type, axis + 1, x->type.n_dims);
    const int64_t dim = x->type.dim[axis];
    const size_t n = ew_gen_count(&a->in[1]->type);

    for (size_t i = 0; i < n; i++) {
        ptrdiff_t index;

        EW_TRY(index_get(a, a->in[1], i, dim, &index));
        for (ptrdiff_t o = 0; o < outer; o++)
            ew_gen_copy_flat(y->data, (o * (ptrdiff_t)n + (ptrdiff_t)i) * inner, x->data,
                             (o * (ptrdiff_t)dim + index) * inner, (size_t)inner, y->type.dtype);
    }
    return EW_STATUS_OK;
}

/* Walks `indices`; operand 1 of the loop is where its coordinates lie in a tensor of type t,
 * without the axis, whose stride is *axis_stride. */
static ew_status elements_loop(const struct ew_general_args *a, const struct ew_type *t,
                               const struct ew_type *indices, int axis, struct ew_gen_loop *l,
                               ptrdiff_t *axis_stride)
{
    ptrdiff_t stride[2][EW_GEN_MAX_DIMS];

    for (int d = 0; d < t->n_dims; d++)
        if (d != axis && indices->dim[d] > t->dim[d])
            return ew_fail(a->err, EW_STATUS_MISMATCH, "dim %d of indices is %lld, of data %lld", d,
                           (long long)indices->dim[d], (long long)t->dim[d]);
    ew_gen_strides(t->n_dims, indices->dim, stride[0]);
    ew_gen_strides(t->n_dims, t->dim, stride[1]);
    *axis_stride = stride[1][axis];
    stride[1][axis] = 0;
    ew_gen_loop_init(l, 2, t->n_dims, indices->dim, (const ptrdiff_t(*)[EW_GEN_MAX_DIMS])stride);
    return EW_STATUS_OK;
}

ew_status ew_gen_gather_elements(const struct ew_general_args *a)
{
    const struct ew_view *const x = a->in[0];
    const struct ew_view *const indices = a->in[1];
    struct ew_view *const y = a->out[0];
    const int axis = ew_gen_axis(a->attrs->axis.axis, x->type.n_dims);
    struct ew_gen_loop l;
    ptrdiff_t axis_stride;

    EW_TRY(elements_loop(a, &x->type, &indices->type, axis, &l, &axis_stride));
    for (bool more = !l.empty; more; more = ew_gen_loop_next(&l)) {
        for (ptrdiff_t i = 0; i < (ptrdiff_t)l.inner; i++) {
            const ptrdiff_t to = l.at[0] + i * l.step[0];
            ptrdiff_t index;

            EW_TRY(index_get(a, indices, (size_t)to, x->type.dim[axis], &index));
            ew_gen_copy_flat(y->data, to, x->data, l.at[1] + i * l.step[1] + index * axis_stride, 1,
                             y->type.dtype);
        }
    }
    return EW_STATUS_OK;
}

/* ---- reductions of scatters ---- */

#define COMBINE(T, member)                                                                         \
    do {                                                                                           \
        const T p = x.member, q = z.member;                                                        \
        x.member = reduction == EW_RED_ADD   ? (T)(p + q)                                          \
                   : reduction == EW_RED_MUL ? (T)(p * q)                                          \
                   : reduction == EW_RED_MAX ? (p > q || p != p ? p : q)                           \
                                             : (p < q || p != p ? p : q);                          \
    } while (0)

/* y[to + i] = y[to + i] `reduction` u[from + i]. */
static void combine(struct ew_view *y, ptrdiff_t to, const struct ew_view *u, ptrdiff_t from,
                    size_t n, int reduction)
{
    const ew_dtype dtype = y->type.dtype;
    const enum ew_gen_class c = ew_gen_class_of(dtype);

    if (reduction == EW_RED_NONE) {
        ew_gen_copy_flat(y->data, to, u->data, from, n, dtype);
        return;
    }
    for (ptrdiff_t i = 0; i < (ptrdiff_t)n; i++) {
        union {
            float f32;
            double f64;
            int64_t i64;
            uint64_t u64;
        } x, z;

        ew_gen_load(&x, c, y->data, dtype, to + i, 1, 1);
        ew_gen_load(&z, c, u->data, dtype, from + i, 1, 1);
        if (c == EW_GEN_F32)
            COMBINE(float, f32);
        else if (c == EW_GEN_F64)
            COMBINE(double, f64);
        else if (c == EW_GEN_I64 && (reduction == EW_RED_MAX || reduction == EW_RED_MIN))
            COMBINE(int64_t, i64);
        else
            COMBINE(uint64_t, u64); /* sums and products wrap */
        ew_gen_store(y->data, dtype, to + i, 1, &x, c, 1);
    }
}

static void copy_data(const struct ew_view *x, struct ew_view *y)
{
    if (y->data != x->data)
        ew_gen_copy_flat(y->data, 0, x->data, 0, ew_gen_count(&y->type), y->type.dtype);
}

ew_status ew_gen_scatter_elements(const struct ew_general_args *a)
{
    const struct ew_view *const indices = a->in[1];
    struct ew_view *const y = a->out[0];
    const int axis = ew_gen_axis(a->attrs->scatter.axis, y->type.n_dims);
    struct ew_gen_loop l;
    ptrdiff_t axis_stride;

    EW_TRY(elements_loop(a, &y->type, &indices->type, axis, &l, &axis_stride));
    copy_data(a->in[0], y);
    for (bool more = !l.empty; more; more = ew_gen_loop_next(&l)) {
        for (ptrdiff_t i = 0; i < (ptrdiff_t)l.inner; i++) {
            const ptrdiff_t from = l.at[0] + i * l.step[0];
            ptrdiff_t index;

            EW_TRY(index_get(a, indices, (size_t)from, y->type.dim[axis], &index));
            combine(y, l.at[1] + i * l.step[1] + index * axis_stride, a->in[2], from, 1,
                    a->attrs->scatter.reduction);
        }
    }
    return EW_STATUS_OK;
}

/* ---- GatherND, ScatterND: tuples of `n_coords` indices name slices of `inner` elements ---- */

struct tuples {
    int first_dim; /* of the data: the first dim a tuple indexes */
    int n_coords;
    ptrdiff_t n, n_per_batch, inner;
};

static ew_status tuples_init(const struct ew_general_args *a, const struct ew_type *data,
                             int batch_dims, struct tuples *t)
{
    const struct ew_type *const indices = &a->in[1]->type;
    const int64_t coords = indices->n_dims > 0 ? indices->dim[indices->n_dims - 1] : -1;
    ptrdiff_t n_batches;

    if (coords < 0 || batch_dims < 0 || coords > data->n_dims - batch_dims ||
        batch_dims >= indices->n_dims)
        return ew_fail(a->err, EW_STATUS_MISMATCH,
                       "tuples of %lld indices after %d batch dims, rank of data is %d",
                       (long long)coords, batch_dims, data->n_dims);
    for (int d = 0; d < batch_dims; d++)
        if (data->dim[d] != indices->dim[d])
            return ew_fail(a->err, EW_STATUS_MISMATCH,
                           "batch dim %d is %lld in data, %lld in indices", d,
                           (long long)data->dim[d], (long long)indices->dim[d]);
    t->first_dim = batch_dims;
    t->n_coords = (int)coords;
    t->n = (ptrdiff_t)ew_gen_product(indices, 0, indices->n_dims - 1);
    n_batches = (ptrdiff_t)ew_gen_product(data, 0, batch_dims);
    t->n_per_batch = n_batches > 0 ? t->n / n_batches : 0;
    t->inner = (ptrdiff_t)ew_gen_product(data, batch_dims + t->n_coords, data->n_dims);
    return EW_STATUS_OK;
}

/* Element of the data at which the slice of tuple i begins. */
static ew_status tuple_at(const struct ew_general_args *a, const struct ew_type *data,
                          const struct tuples *t, ptrdiff_t i, ptrdiff_t *at)
{
    *at = i / t->n_per_batch;
    for (int k = 0; k < t->n_coords; k++) {
        const int64_t dim = data->dim[t->first_dim + k];
        ptrdiff_t index;

        EW_TRY(index_get(a, a->in[1], (size_t)(i * t->n_coords + k), dim, &index));
        *at = *at * (ptrdiff_t)dim + index;
    }
    *at *= t->inner;
    return EW_STATUS_OK;
}

ew_status ew_gen_gather_nd(const struct ew_general_args *a)
{
    const struct ew_view *const x = a->in[0];
    struct ew_view *const y = a->out[0];
    struct tuples t = { 0 };

    EW_TRY(tuples_init(a, &x->type, (int)a->attrs->gather_nd.batch_dims, &t));
    for (ptrdiff_t i = 0; i < t.n; i++) {
        ptrdiff_t at;

        EW_TRY(tuple_at(a, &x->type, &t, i, &at));
        ew_gen_copy_flat(y->data, i * t.inner, x->data, at, (size_t)t.inner, y->type.dtype);
    }
    return EW_STATUS_OK;
}

ew_status ew_gen_scatter_nd(const struct ew_general_args *a)
{
    struct ew_view *const y = a->out[0];
    struct tuples t = { 0 };

    EW_TRY(tuples_init(a, &y->type, 0, &t));
    if ((int64_t)ew_gen_count(&a->in[2]->type) != t.n * t.inner)
        return ew_fail(a->err, EW_STATUS_MISMATCH, "updates has %zu elements, %lld are needed",
                       ew_gen_count(&a->in[2]->type), (long long)(t.n * t.inner));
    copy_data(a->in[0], y);
    for (ptrdiff_t i = 0; i < t.n; i++) {
        ptrdiff_t at;

        EW_TRY(tuple_at(a, &y->type, &t, i, &at));
        combine(y, at, a->in[2], i * t.inner, (size_t)t.inner, a->attrs->scatter.reduction);
    }
    return EW_STATUS_OK;
}

/* ---- TensorScatter ---- */

ew_status ew_gen_tensor_scatter(const struct ew_general_args *a)
{
    const struct ew_view *const u = a->in[1];
    const struct ew_view *const writes = a->n_in > 2 ? a->in[2] : NULL;
    struct ew_view *const y = a->out[0];
    const int rank = y->type.n_dims;
    const int axis = ew_gen_axis(a->attrs->tensor_scatter.axis, rank);
    const bool circular = a->attrs->tensor_scatter.mode == EW_TS_CIRCULAR;
    const ptrdiff_t inner = (ptrdiff_t)ew_gen_product(&y->type, axis + 1, rank);
    const ptrdiff_t outer = (ptrdiff_t)ew_gen_product(&y->type, 0, axis);
    const int64_t cap = y->type.dim[axis], len = u->type.dim[axis];
    const ptrdiff_t per_batch = (ptrdiff_t)ew_gen_product(&y->type, 1, axis);

    copy_data(a->in[0], y);
    for (ptrdiff_t o = 0; o < outer; o++) {
        int64_t begin = writes ? ew_gen_int_at(writes, (size_t)(o / per_batch)) : 0;

        if (circular && cap > 0)
            begin = (begin % cap + cap) % cap;
        if (len > cap || begin < 0 || (!circular && begin > cap - len))
            return ew_fail(a->err, EW_STATUS_MISMATCH,
                           "write index %lld and %lld elements, the cache has %lld",
                           (long long)begin, (long long)len, (long long)cap);
        for (int64_t i = 0; i < len; i++)
            ew_gen_copy_flat(y->data, (o * (ptrdiff_t)cap + (ptrdiff_t)((begin + i) % cap)) * inner,
                             u->data, (o * (ptrdiff_t)len + (ptrdiff_t)i) * inner, (size_t)inner,
                             y->type.dtype);
    }
    return EW_STATUS_OK;
}

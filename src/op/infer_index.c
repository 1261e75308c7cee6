/* op/infer_index.c - types of gathers, scatters and OneHot. What the indices hold is checked when
 * the kernel runs. */
#include <math.h>

#include "op/infer_dtypes.h"
#include "op/infer_move.h"

static ew_status check_rank(struct ew_infer *f, int rank)
{
    if (rank > EW_MAX_DIMS)
        return ew_fail(f->err, EW_STATUS_LIMIT, "the output has rank %d, at most %d is possible",
                       rank, EW_MAX_DIMS);
    return EW_STATUS_OK;
}

ew_status ew_infer_gather(struct ew_infer *f)
{
    const struct ew_type *const x = f->in[0].type, *const indices = f->in[1].type;
    struct ew_type t = { .dtype = x->dtype };
    int axis;

    EW_TRY(ew_infer_dtype_in(f, 0, EW_SET_ANY));
    EW_TRY(ew_infer_dtype_in(f, 1, EW_SET_INDEX));
    EW_TRY(ew_infer_axis(f, f->attrs->axis.axis, x->n_dims, &axis));
    EW_TRY(check_rank(f, x->n_dims - 1 + indices->n_dims));
    for (int d = 0; d < axis; d++)
        t.dim[t.n_dims++] = x->dim[d];
    for (int d = 0; d < indices->n_dims; d++)
        t.dim[t.n_dims++] = indices->dim[d];
    for (int d = axis + 1; d < x->n_dims; d++)
        t.dim[t.n_dims++] = x->dim[d];
    f->out[0] = t;
    return EW_STATUS_OK;
}

/* indices of input 1 lie within input 0, but for the axis. */
static ew_status check_elements(struct ew_infer *f, int64_t at, int *axis)
{
    const struct ew_type *const x = f->in[0].type, *const indices = f->in[1].type;

    EW_TRY(ew_infer_dtype_in(f, 0, EW_SET_ANY));
    EW_TRY(ew_infer_dtype_in(f, 1, EW_SET_INDEX));
    EW_TRY(ew_infer_axis(f, at, x->n_dims, axis));
    if (x->n_dims != indices->n_dims)
        return ew_fail(f->err, EW_STATUS_MISMATCH, "data has rank %d, indices have %d", x->n_dims,
                       indices->n_dims);
    for (int d = 0; d < x->n_dims; d++)
        if (d != *axis && x->dim[d] >= 0 && indices->dim[d] > x->dim[d])
            return ew_fail(f->err, EW_STATUS_MISMATCH, "dim %d is %lld in indices, %lld in data", d,
                           (long long)indices->dim[d], (long long)x->dim[d]);
    return EW_STATUS_OK;
}

ew_status ew_infer_gather_elements(struct ew_infer *f)
{
    int axis;

    EW_TRY(check_elements(f, f->attrs->axis.axis, &axis));
    f->out[0] = *f->in[1].type;
    f->out[0].dtype = f->in[0].type->dtype;
    return EW_STATUS_OK;
}

/* How many coordinates a tuple of input 1 has. */
static ew_status tuple_len(struct ew_infer *f, int64_t batch_dims, int *n_coords)
{
    const struct ew_type *const x = f->in[0].type, *const indices = f->in[1].type;
    int64_t last;

    EW_TRY(ew_infer_dtype_in(f, 0, EW_SET_ANY));
    EW_TRY(ew_infer_dtype_in(f, 1, EW_SET_INDEX));
    if (x->n_dims < 1 || indices->n_dims < 1)
        return ew_fail(f->err, EW_STATUS_MISMATCH, "data has rank %d, indices have %d, at least 1",
                       x->n_dims, indices->n_dims);
    last = indices->dim[indices->n_dims - 1];
    if (last < 0)
        return ew_fail(f->err, EW_STATUS_UNSUPPORTED, "the last dim of indices is not known");
    if (batch_dims < 0 || batch_dims >= indices->n_dims || batch_dims >= x->n_dims || last < 1 ||
        last > x->n_dims - batch_dims)
        return ew_fail(f->err, EW_STATUS_MISMATCH,
                       "tuples of %lld indices after %lld batch dims, rank of data is %d",
                       (long long)last, (long long)batch_dims, x->n_dims);
    *n_coords = (int)last;
    return EW_STATUS_OK;
}

ew_status ew_infer_gather_nd(struct ew_infer *f)
{
    const struct ew_type *const x = f->in[0].type, *const indices = f->in[1].type;
    const int64_t batch_dims = f->attrs->gather_nd.batch_dims;
    struct ew_type t = { .dtype = x->dtype };
    int n_coords;

    EW_TRY(tuple_len(f, batch_dims, &n_coords));
    EW_TRY(check_rank(f, indices->n_dims - 1 + x->n_dims - (int)batch_dims - n_coords));
    for (int d = 0; d < batch_dims; d++)
        if (x->dim[d] >= 0 && indices->dim[d] >= 0 && x->dim[d] != indices->dim[d])
            return ew_fail(f->err, EW_STATUS_MISMATCH, "batch dim %d is %lld and %lld", d,
                           (long long)x->dim[d], (long long)indices->dim[d]);
    for (int d = 0; d < indices->n_dims - 1; d++)
        t.dim[t.n_dims++] = indices->dim[d];
    for (int d = (int)batch_dims + n_coords; d < x->n_dims; d++)
        t.dim[t.n_dims++] = x->dim[d];
    f->out[0] = t;
    return EW_STATUS_OK;
}

static ew_status check_reduction(struct ew_infer *f)
{
    const int reduction = f->attrs->scatter.reduction;

    EW_TRY(ew_infer_same_dtype(f, 0, 2));
    if (reduction < EW_RED_NONE || reduction > EW_RED_MIN)
        return ew_fail(f->err, EW_STATUS_MALFORMED, "reduction is %d", reduction);
    if (reduction != EW_RED_NONE)
        EW_TRY(ew_infer_dtype_in(f, 0, EW_SET_NUMBERS));
    return EW_STATUS_OK;
}

ew_status ew_infer_scatter_elements(struct ew_infer *f)
{
    const struct ew_type *const indices = f->in[1].type, *const updates = f->in[2].type;
    int axis;

    EW_TRY(check_elements(f, f->attrs->scatter.axis, &axis));
    EW_TRY(check_reduction(f));
    if (indices->n_dims != updates->n_dims)
        return ew_fail(f->err, EW_STATUS_MISMATCH, "indices have rank %d, updates have %d",
                       indices->n_dims, updates->n_dims);
    for (int d = 0; d < indices->n_dims; d++)
        if (indices->dim[d] >= 0 && updates->dim[d] >= 0 && indices->dim[d] != updates->dim[d])
            return ew_fail(f->err, EW_STATUS_MISMATCH, "dim %d is %lld in indices, %lld in updates",
                           d, (long long)indices->dim[d], (long long)updates->dim[d]);
    f->out[0] = *f->in[0].type;
    return EW_STATUS_OK;
}

ew_status ew_infer_scatter_nd(struct ew_infer *f)
{
    const struct ew_type *const x = f->in[0].type, *const indices = f->in[1].type;
    const struct ew_type *const updates = f->in[2].type;
    const int n_tuple_dims = indices->n_dims - 1;
    int n_coords;

    EW_TRY(tuple_len(f, 0, &n_coords));
    EW_TRY(check_reduction(f));
    if (updates->n_dims != n_tuple_dims + x->n_dims - n_coords)
        return ew_fail(f->err, EW_STATUS_MISMATCH, "updates have rank %d, %d is needed",
                       updates->n_dims, n_tuple_dims + x->n_dims - n_coords);
    for (int d = 0; d < updates->n_dims; d++) {
        const int64_t want =
            d < n_tuple_dims ? indices->dim[d] : x->dim[d - n_tuple_dims + n_coords];

        if (want >= 0 && updates->dim[d] >= 0 && want != updates->dim[d])
            return ew_fail(f->err, EW_STATUS_MISMATCH, "dim %d of updates is %lld, not %lld", d,
                           (long long)updates->dim[d], (long long)want);
    }
    f->out[0] = *x;
    return EW_STATUS_OK;
}

static ew_status check_writes(struct ew_infer *f)
{
    const struct ew_type *const w = f->in[2].type, *const x = f->in[0].type;

    EW_TRY(ew_infer_dtype_in(f, 2, EW_SET_INDEX));
    if (w->n_dims != 1 || (w->dim[0] >= 0 && x->dim[0] >= 0 && w->dim[0] != x->dim[0]))
        return ew_fail(f->err, EW_STATUS_MISMATCH,
                       "write indices have rank %d and dim %lld, the batch is %lld", w->n_dims,
                       (long long)(w->n_dims > 0 ? w->dim[0] : 0), (long long)x->dim[0]);
    return EW_STATUS_OK;
}

ew_status ew_infer_tensor_scatter(struct ew_infer *f)
{
    const struct ew_type *const x = f->in[0].type, *const u = f->in[1].type;
    int axis;

    EW_TRY(ew_infer_same_dtype(f, 0, 1));
    EW_TRY(ew_infer_axis(f, f->attrs->tensor_scatter.axis, x->n_dims, &axis));
    if (axis == 0 || u->n_dims != x->n_dims)
        return ew_fail(f->err, EW_STATUS_MISMATCH, "axis %d; the cache has rank %d, the update %d",
                       axis, x->n_dims, u->n_dims);
    for (int d = 0; d < x->n_dims; d++)
        if (x->dim[d] >= 0 && u->dim[d] >= 0 &&
            (d == axis ? u->dim[d] > x->dim[d] : u->dim[d] != x->dim[d]))
            return ew_fail(f->err, EW_STATUS_MISMATCH,
                           "dim %d is %lld in the cache, %lld in update", d, (long long)x->dim[d],
                           (long long)u->dim[d]);
    if (ew_infer_has(f, 2))
        EW_TRY(check_writes(f));
    f->out[0] = *x;
    return EW_STATUS_OK;
}

/* OneHot's depth may be any number; BAD when it is not known. */
static ew_status depth_of(struct ew_infer *f, int64_t *depth)
{
    const struct ew_infer_in *const in = &f->in[1];
    struct ew_contents c;
    size_t n;

    *depth = EW_DIM_BAD;
    if (!ew_type_count(in->type, &n) || n != 1)
        return ew_fail(f->err, EW_STATUS_MISMATCH, "depth has rank %d, one element is needed",
                       in->type->n_dims);
    if (ew_dtype_is_float(in->type->dtype)) {
        const double v = in->data ? ew_elem_get_f64(in->data, in->type->dtype, 0) : 0;

        if (!(v >= 0 && v < 0x1p53))
            return ew_fail(f->err, EW_STATUS_MALFORMED, "depth is %g", v);
        if (in->data)
            *depth = (int64_t)v;
        return EW_STATUS_OK;
    }
    EW_TRY(ew_infer_contents(f, 1, &c));
    if (c.known && !c.is_symbol[0] && c.v[0] < 0)
        return ew_fail(f->err, EW_STATUS_MALFORMED, "depth is %lld", (long long)c.v[0]);
    if (c.known)
        *depth = c.v[0];
    return EW_STATUS_OK;
}

ew_status ew_infer_one_hot(struct ew_infer *f)
{
    const struct ew_type *const x = f->in[0].type, *const values = f->in[2].type;
    struct ew_type t = { .dtype = values->dtype, .n_dims = x->n_dims + 1 };
    int64_t depth;
    int axis;

    EW_TRY(ew_infer_dtype_in(f, 0, EW_SET_NUMBERS));
    EW_TRY(ew_infer_dtype_in(f, 1, EW_SET_NUMBERS));
    EW_TRY(ew_infer_dtype_in(f, 2, EW_SET_WHOLE_BYTES));
    EW_TRY(check_rank(f, t.n_dims));
    EW_TRY(ew_infer_axis(f, f->attrs->axis.axis, t.n_dims, &axis));
    if (values->n_dims != 1 || (values->dim[0] >= 0 && values->dim[0] != 2))
        return ew_fail(f->err, EW_STATUS_MISMATCH, "values have rank %d, [off, on] is needed",
                       values->n_dims);
    EW_TRY(depth_of(f, &depth));
    if (depth == EW_DIM_BAD) {
        EW_TRY(ew_infer_unknown(f, 0, 1, values->dtype, t.n_dims));
        depth = f->out[0].dim[axis];
    }
    for (int d = 0; d < t.n_dims; d++)
        t.dim[d] = d == axis ? depth : x->dim[d < axis ? d : d - 1];
    f->out[0] = t;
    return EW_STATUS_OK;
}

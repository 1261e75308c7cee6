/* op/infer_reduce.c - types of reductions, scans and ops along an axis. */
#include "op/infer_dtypes.h"

/* x without the axes of the mask, or with 1 in their place. */
static void set_reduced(struct ew_infer *f, unsigned mask, bool keepdims)
{
    const struct ew_type *const x = f->in[0].type;
    struct ew_type *const y = &f->out[0];

    y->dtype = x->dtype;
    y->n_dims = 0;
    for (int d = 0; d < x->n_dims; d++) {
        if (!(mask >> d & 1u))
            y->dim[y->n_dims++] = x->dim[d];
        else if (keepdims)
            y->dim[y->n_dims++] = 1;
    }
}

static ew_status infer_reduction(struct ew_infer *f)
{
    const struct ew_attr_reduce *const attr = &f->attrs->reduce;
    const struct ew_type *const x = f->in[0].type;
    const bool is_extreme = f->op == EW_OP_REDUCE_MAX || f->op == EW_OP_REDUCE_MIN;
    struct ew_contents axes = { .known = true };
    unsigned mask = 0;

    EW_TRY(ew_infer_dtype_in(
        f, 0, EW_SET_WIDE | (is_extreme ? EW_SET(U8) | EW_SET(I8) | EW_SET(BOOL) : 0)));
    if (ew_infer_has(f, 1))
        EW_TRY(ew_infer_contents(f, 1, &axes));
    if (!axes.known) {
        if (!attr->keepdims && axes.n > (size_t)x->n_dims)
            return ew_fail(f->err, EW_STATUS_MISMATCH, "%zu axes, rank is %d", axes.n, x->n_dims);
        return ew_infer_unknown(f, 0, 1, x->dtype, x->n_dims - (attr->keepdims ? 0 : (int)axes.n));
    }
    if (axes.n == 0 && !attr->noop_with_empty_axes)
        mask = (1u << x->n_dims) - 1;
    for (size_t i = 0; i < axes.n; i++) {
        int axis;

        EW_TRY(ew_infer_axis(f, axes.v[i], x->n_dims, &axis));
        if (mask >> axis & 1u)
            return ew_fail(f->err, EW_STATUS_MALFORMED, "axis %d is given twice", axis);
        mask |= 1u << axis;
    }
    set_reduced(f, mask, attr->keepdims != 0);
    return EW_STATUS_OK;
}

static ew_status infer_arg(struct ew_infer *f)
{
    const int rank = f->in[0].type->n_dims;
    int axis = 0;

    EW_TRY(ew_infer_dtype_in(f, 0, EW_SET_NUMBERS));
    /* a scalar has one element to choose from: axis 0 and -1 are taken for it */
    EW_TRY(ew_infer_axis(f, f->attrs->arg.axis, rank > 0 ? rank : 1, &axis));
    if (rank > 0 && f->in[0].type->dim[axis] == 0)
        return ew_fail(f->err, EW_STATUS_MISMATCH, "axis %d has 0 elements, 1 is needed", axis);
    set_reduced(f, 1u << axis, f->attrs->arg.keepdims != 0);
    f->out[0].dtype = EW_DTYPE_I64;
    return EW_STATUS_OK;
}

static ew_status infer_cum_sum(struct ew_infer *f)
{
    struct ew_contents axis;
    int d;

    EW_TRY(ew_infer_dtype_in(f, 0, EW_SET_WIDE));
    EW_TRY(ew_infer_dtype_in(f, 1, EW_SET_INDEX));
    EW_TRY(ew_infer_contents(f, 1, &axis));
    if (axis.n != 1)
        return ew_fail(f->err, EW_STATUS_MISMATCH, "axis has %zu elements, 1 is needed", axis.n);
    if (axis.known)
        EW_TRY(ew_infer_axis(f, axis.v[0], f->in[0].type->n_dims, &d));
    f->out[0] = *f->in[0].type;
    return EW_STATUS_OK;
}

static ew_status infer_softmax(struct ew_infer *f)
{
    int axis;

    EW_TRY(ew_infer_dtype_in(f, 0, EW_SET_FLOATS));
    EW_TRY(ew_infer_axis(f, f->attrs->axis.axis, f->in[0].type->n_dims, &axis));
    f->out[0] = *f->in[0].type;
    return EW_STATUS_OK;
}

static ew_status infer_top_k(struct ew_infer *f)
{
    const struct ew_type *const x = f->in[0].type;
    struct ew_contents k;
    int axis;

    EW_TRY(ew_infer_dtype_in(f, 0, EW_SET_NUMBERS));
    EW_TRY(ew_infer_dtype_in(f, 1, EW_SET_INDEX));
    EW_TRY(ew_infer_axis(f, f->attrs->top_k.axis, x->n_dims, &axis));
    EW_TRY(ew_infer_contents(f, 1, &k));
    if (k.n != 1)
        return ew_fail(f->err, EW_STATUS_MISMATCH, "K has %zu elements, 1 is needed", k.n);
    f->out[0] = *x;
    f->out[1] = *x;
    f->out[1].dtype = EW_DTYPE_I64;
    if (!k.known) {
        struct ew_type any;

        EW_TRY(ew_infer_unknown(f, 0, 1, x->dtype, x->n_dims));
        any = f->out[0];
        f->out[0] = *x;
        f->out[0].dim[axis] = any.dim[axis];
        f->out[1].dim[axis] = any.dim[axis];
        return EW_STATUS_OK;
    }
    if (!k.is_symbol[0] && (k.v[0] < 0 || (x->dim[axis] >= 0 && k.v[0] > x->dim[axis])))
        return ew_fail(f->err, EW_STATUS_MISMATCH, "K is %lld, axis %d has %lld elements",
                       (long long)k.v[0], axis, (long long)x->dim[axis]);
    f->out[0].dim[axis] = k.v[0];
    f->out[1].dim[axis] = k.v[0];
    return EW_STATUS_OK;
}

ew_status ew_infer_reduce(struct ew_infer *f)
{
    switch (f->op) {
    case EW_OP_ARG_MAX:
    case EW_OP_ARG_MIN:
        return infer_arg(f);
    case EW_OP_CUM_SUM:
        return infer_cum_sum(f);
    case EW_OP_SOFTMAX:
    case EW_OP_LOG_SOFTMAX:
    case EW_OP_HARDMAX:
        return infer_softmax(f);
    case EW_OP_TOP_K:
        return infer_top_k(f);
    default:
        return infer_reduction(f);
    }
}

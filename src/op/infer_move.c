/* op/infer_move.c - types of movement ops whose shape follows from shapes and attributes, and the
 * table of the whole group. Indexing is in infer_index.c, shapes from contents in infer_extent.c.
 */
#include "op/infer_move.h"

#include "op/infer_dtypes.h"

static ew_status infer_concat(struct ew_infer *f)
{
    struct ew_type t = *f->in[0].type;
    int axis;

    EW_TRY(ew_infer_dtype_in(f, 0, EW_SET_ANY));
    EW_TRY(ew_infer_axis(f, f->attrs->axis.axis, t.n_dims, &axis));
    for (int i = 1; i < f->n_in; i++) {
        const struct ew_type *const x = f->in[i].type;

        EW_TRY(ew_infer_same_dtype(f, 0, i));
        if (x->n_dims != t.n_dims)
            return ew_fail(f->err, EW_STATUS_MISMATCH, "input 0 has rank %d, input %d has %d",
                           t.n_dims, i, x->n_dims);
        for (int d = 0; d < t.n_dims; d++) {
            if (d == axis) {
                t.dim[d] = ew_dim_add(f->syms, t.dim[d], x->dim[d]);
                continue;
            }
            if (t.dim[d] >= 0 && x->dim[d] >= 0 && t.dim[d] != x->dim[d])
                return ew_fail(f->err, EW_STATUS_MISMATCH, "dim %d is %lld in input 0, %lld in %d",
                               d, (long long)t.dim[d], (long long)x->dim[d], i);
            if (t.dim[d] < 0 && x->dim[d] >= 0)
                t.dim[d] = x->dim[d];
        }
    }
    f->out[0] = t;
    return EW_STATUS_OK;
}

static ew_status check_blocks(struct ew_infer *f)
{
    const struct ew_type *const x = f->in[0].type;
    const int64_t b = f->attrs->depth_space.blocksize;

    EW_TRY(ew_infer_dtype_in(f, 0, EW_SET_WHOLE_BYTES));
    if (x->n_dims != 4)
        return ew_fail(f->err, EW_STATUS_MISMATCH, "rank is %d, 4 is needed", x->n_dims);
    if (b < 1 || b > INT32_MAX)
        return ew_fail(f->err, EW_STATUS_MALFORMED, "blocksize is %lld", (long long)b);
    return EW_STATUS_OK;
}

/* dim / by, which must be whole. */
static ew_status exact_div(struct ew_infer *f, int d, int64_t by, int64_t *out)
{
    const int64_t dim = f->in[0].type->dim[d];

    if (dim >= 0 && dim % by != 0)
        return ew_fail(f->err, EW_STATUS_MISMATCH, "dim %d is %lld, not a multiple of %lld", d,
                       (long long)dim, (long long)by);
    *out = ew_dim_div(f->syms, dim, by);
    return EW_STATUS_OK;
}

static ew_status infer_depth_to_space(struct ew_infer *f)
{
    const int64_t b = f->attrs->depth_space.blocksize;

    EW_TRY(check_blocks(f));
    f->out[0] = *f->in[0].type;
    EW_TRY(exact_div(f, 1, b * b, &f->out[0].dim[1]));
    for (int d = 2; d < 4; d++)
        f->out[0].dim[d] = ew_dim_mul(f->syms, f->out[0].dim[d], b);
    return EW_STATUS_OK;
}

static ew_status infer_space_to_depth(struct ew_infer *f)
{
    const int64_t b = f->attrs->depth_space.blocksize;

    EW_TRY(check_blocks(f));
    f->out[0] = *f->in[0].type;
    f->out[0].dim[1] = ew_dim_mul(f->syms, f->out[0].dim[1], b * b);
    for (int d = 2; d < 4; d++)
        EW_TRY(exact_div(f, d, b, &f->out[0].dim[d]));
    return EW_STATUS_OK;
}

static ew_status infer_eye_like(struct ew_infer *f)
{
    const struct ew_type *const x = f->in[0].type;

    EW_TRY(ew_infer_dtype_in(f, 0, EW_SET_NUMBERS | EW_SET(BOOL)));
    if (x->n_dims != 2)
        return ew_fail(f->err, EW_STATUS_MISMATCH, "rank is %d, 2 is needed", x->n_dims);
    f->out[0] = *x;
    if (f->attrs->eye.dtype != EW_DTYPE_NONE)
        f->out[0].dtype = (ew_dtype)f->attrs->eye.dtype;
    if (f->attrs->eye.dtype < 0 || f->attrs->eye.dtype >= EW_DTYPE_COUNT ||
        !((EW_SET_NUMBERS | EW_SET(BOOL)) >> f->out[0].dtype & 1u))
        return ew_fail(f->err, EW_STATUS_UNSUPPORTED, "EyeLike does not give dtype %s",
                       ew_dtype_text(f->out[0].dtype));
    return EW_STATUS_OK;
}

static ew_status infer_flatten(struct ew_infer *f)
{
    const struct ew_type *const x = f->in[0].type;
    int64_t axis = f->attrs->axis.axis;
    int64_t dims[2] = { 1, 1 };

    if (axis < -x->n_dims || axis > x->n_dims)
        return ew_fail(f->err, EW_STATUS_MALFORMED, "axis is %lld, rank is %d", (long long)axis,
                       x->n_dims);
    axis += axis < 0 ? x->n_dims : 0;
    for (int d = 0; d < x->n_dims; d++)
        dims[d >= axis] = ew_dim_mul(f->syms, dims[d >= axis], x->dim[d]);
    f->out[0] = ew_type_make(x->dtype, 2, dims);
    return EW_STATUS_OK;
}

static ew_status infer_shape(struct ew_infer *f)
{
    const int64_t rank = f->in[0].type->n_dims;
    int64_t start = f->attrs->shape.start;
    int64_t end = f->attrs->shape.has_end ? f->attrs->shape.end : rank;
    int64_t n;

    start = start < -rank ? 0 : start < 0 ? start + rank : start > rank ? rank : start;
    end = end < -rank ? 0 : end < 0 ? end + rank : end > rank ? rank : end;
    n = end > start ? end - start : 0;
    f->out[0] = ew_type_make(EW_DTYPE_I64, 1, &n);
    return EW_STATUS_OK;
}

static ew_status infer_size(struct ew_infer *f)
{
    f->out[0] = ew_type_make(EW_DTYPE_I64, 0, NULL);
    return EW_STATUS_OK;
}

static ew_status infer_transpose(struct ew_infer *f)
{
    const struct ew_type *const x = f->in[0].type;
    const struct ew_ints *const perm = &f->attrs->perm.perm;
    unsigned seen = 0;

    f->out[0] = *x;
    if (perm->n != 0 && perm->n != x->n_dims)
        return ew_fail(f->err, EW_STATUS_MISMATCH, "perm has %d entries, rank is %d", perm->n,
                       x->n_dims);
    for (int d = 0; d < x->n_dims; d++) {
        int from = x->n_dims - 1 - d;

        if (perm->n > 0)
            EW_TRY(ew_infer_axis(f, perm->v[d], x->n_dims, &from));
        if (seen >> from & 1u)
            return ew_fail(f->err, EW_STATUS_MALFORMED, "perm has axis %d twice", from);
        seen |= 1u << from;
        f->out[0].dim[d] = x->dim[from];
    }
    return EW_STATUS_OK;
}

static ew_status infer_trilu(struct ew_infer *f)
{
    const struct ew_type *const x = f->in[0].type;

    EW_TRY(ew_infer_dtype_in(f, 0, EW_SET_WHOLE_BYTES));
    if (x->n_dims < 2)
        return ew_fail(f->err, EW_STATUS_MISMATCH, "rank is %d, at least 2 is needed", x->n_dims);
    if (ew_infer_has(f, 1))
        EW_TRY(ew_infer_dtype_in(f, 1, EW_SET_INDEX));
    f->out[0] = *x;
    return EW_STATUS_OK;
}

/* clang-format off */
static ew_infer_fn *const k_move[EW_OP_COUNT] = {
    [EW_OP_CONCAT] = infer_concat,
    [EW_OP_CONSTANT_OF_SHAPE] = ew_infer_constant_of_shape,
    [EW_OP_DEPTH_TO_SPACE] = infer_depth_to_space,
    [EW_OP_EXPAND] = ew_infer_expand,
    [EW_OP_EYE_LIKE] = infer_eye_like,
    [EW_OP_FLATTEN] = infer_flatten,
    [EW_OP_GATHER] = ew_infer_gather,
    [EW_OP_GATHER_ELEMENTS] = ew_infer_gather_elements,
    [EW_OP_GATHER_ND] = ew_infer_gather_nd,
    [EW_OP_ONE_HOT] = ew_infer_one_hot,
    [EW_OP_PAD] = ew_infer_pad,
    [EW_OP_RANGE] = ew_infer_range,
    [EW_OP_RESHAPE] = ew_infer_reshape,
    [EW_OP_SCATTER_ELEMENTS] = ew_infer_scatter_elements,
    [EW_OP_SCATTER_ND] = ew_infer_scatter_nd,
    [EW_OP_SHAPE] = infer_shape,
    [EW_OP_SIZE] = infer_size,
    [EW_OP_SLICE] = ew_infer_slice,
    [EW_OP_SPACE_TO_DEPTH] = infer_space_to_depth,
    [EW_OP_SPLIT] = ew_infer_split,
    [EW_OP_SQUEEZE] = ew_infer_squeeze,
    [EW_OP_TENSOR_SCATTER] = ew_infer_tensor_scatter,
    [EW_OP_TILE] = ew_infer_tile,
    [EW_OP_TRANSPOSE] = infer_transpose,
    [EW_OP_TRILU] = infer_trilu,
    [EW_OP_UNSQUEEZE] = ew_infer_unsqueeze,
};
/* clang-format on */

/* What arithmetic on untrusted contents may have made of a dim. */
static ew_status check_output(struct ew_infer *f, int o)
{
    const struct ew_type *const t = &f->out[o];
    size_t bytes;

    for (int d = 0; d < t->n_dims; d++) {
        if (t->dim[d] == EW_DIM_BAD)
            return ew_fail(f->err, EW_STATUS_LIMIT, "dim %d of output %d is out of range", d, o);
        if (t->dim[d] < 0 && !ew_dim_is_symbol(t->dim[d]))
            return ew_fail(f->err, EW_STATUS_MISMATCH, "dim %d of output %d is %lld", d, o,
                           (long long)t->dim[d]);
    }
    if (ew_type_is_concrete(t) && !ew_type_bytes(t, &bytes))
        return ew_fail(f->err, EW_STATUS_LIMIT, "output %d has more elements than memory can", o);
    return EW_STATUS_OK;
}

ew_status ew_infer_move(struct ew_infer *f)
{
    EW_TRY(k_move[f->op](f));
    for (int o = 0; o < f->n_out; o++)
        EW_TRY(check_output(f, o));
    return EW_STATUS_OK;
}

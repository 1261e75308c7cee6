/* kernels/ref/gen_move.c - ops that only move elements: a table of copies between strided boxes,
 * for any element width, packed nibbles too. Indexing is in gen_index.c, filling in gen_fill.c,
 * padding in gen_pad.c. */
#include <string.h>

#include "kernels/ref/gen_common.h"
#include "op/infer_move.h"

static ew_status move_flat(const struct ew_general_args *a)
{
    struct ew_view *const y = a->out[0];

    ew_gen_copy_flat(y->data, 0, a->in[0]->data, 0, ew_gen_count(&y->type), y->type.dtype);
    return EW_STATUS_OK;
}

static ew_status move_concat(const struct ew_general_args *a)
{
    struct ew_view *const y = a->out[0];
    const int axis = ew_gen_axis(a->attrs->axis.axis, y->type.n_dims);
    const ptrdiff_t outer = (ptrdiff_t)ew_gen_product(&y->type, 0, axis);
    const ptrdiff_t row = (ptrdiff_t)ew_gen_product(&y->type, axis, y->type.n_dims);
    ptrdiff_t at = 0;

    for (int k = 0; k < a->n_in; k++) {
        const struct ew_type *const t = &a->in[k]->type;
        const ptrdiff_t part = (ptrdiff_t)ew_gen_product(t, axis, t->n_dims);

        if (ew_gen_product(t, 0, axis) != outer || part > row - at)
            return ew_fail(a->err, EW_STATUS_MISMATCH, "input %d does not fit the output", k);
        for (ptrdiff_t o = 0; o < outer; o++)
            ew_gen_copy_flat(y->data, o * row + at, a->in[k]->data, o * part, (size_t)part,
                             y->type.dtype);
        at += part;
    }
    return EW_STATUS_OK;
}

static ew_status move_split(const struct ew_general_args *a)
{
    const struct ew_view *const x = a->in[0];
    const int axis = ew_gen_axis(a->attrs->split.axis, x->type.n_dims);
    const ptrdiff_t outer = (ptrdiff_t)ew_gen_product(&x->type, 0, axis);
    const ptrdiff_t inner = (ptrdiff_t)ew_gen_product(&x->type, axis + 1, x->type.n_dims);
    const int64_t dim = x->type.dim[axis];
    const bool has_sizes = a->n_in > 1 && a->in[1];
    int64_t at = 0;

    for (int k = 0; k < a->n_out; k++) {
        const int64_t even = (dim + a->n_out - 1) / a->n_out;
        const int64_t left = dim - at;
        int64_t part = left < even ? left : even;

        if (has_sizes)
            part = ew_gen_int_at(a->in[1], (size_t)k);
        if (part < 0 || part > left)
            return ew_fail(a->err, EW_STATUS_MISMATCH, "part %d has %lld elements, %lld are left",
                           k, (long long)part, (long long)left);
        if (a->out[k] && a->out[k]->type.dim[axis] != part)
            return ew_fail(a->err, EW_STATUS_MISMATCH, "part %d has %lld elements, output has %lld",
                           k, (long long)part, (long long)a->out[k]->type.dim[axis]);
        for (ptrdiff_t o = 0; a->out[k] && o < outer; o++)
            ew_gen_copy_flat(a->out[k]->data, o * part * inner, x->data, (o * dim + at) * inner,
                             (size_t)(part * inner), x->type.dtype);
        at += part;
    }
    return EW_STATUS_OK;
}

static ew_status move_expand(const struct ew_general_args *a)
{
    struct ew_view *const y = a->out[0];
    const struct ew_type *const types[1] = { &a->in[0]->type };
    struct ew_gen_loop l;

    if (!ew_gen_loop_init_broadcast(&l, &y->type, 1, types))
        return ew_fail(a->err, EW_STATUS_MISMATCH, "input does not broadcast to the output");
    for (bool more = !l.empty; more; more = ew_gen_loop_next(&l))
        ew_gen_copy_step(y->data, l.at[0], 1, a->in[0]->data, l.at[1], l.step[1], l.inner,
                         y->type.dtype);
    return EW_STATUS_OK;
}

/* y dense = x, seen as dims `dim`, with its axes in the order of `perm`. */
static void permute(const struct ew_view *x, struct ew_view *y, int n_dims, const int64_t *dim,
                    const int *perm)
{
    struct ew_gen_copy c = { .n_dims = n_dims };
    ptrdiff_t own[EW_GEN_MAX_DIMS];

    ew_gen_strides(n_dims, dim, own);
    for (int d = 0; d < n_dims; d++) {
        c.dim[d] = dim[perm[d]];
        c.src_stride[d] = own[perm[d]];
    }
    ew_gen_strides(n_dims, c.dim, c.dst_stride);
    ew_gen_copy_run(&c, y->data, 0, x->data, 0, y->type.dtype);
}

static ew_status move_transpose(const struct ew_general_args *a)
{
    const struct ew_type *const t = &a->in[0]->type;
    const struct ew_ints *const attr = &a->attrs->perm.perm;
    int perm[EW_MAX_DIMS];

    for (int d = 0; d < t->n_dims; d++)
        perm[d] = attr->n > 0 ? ew_gen_axis(attr->v[d], t->n_dims) : t->n_dims - 1 - d;
    permute(a->in[0], a->out[0], t->n_dims, t->dim, perm);
    return EW_STATUS_OK;
}

static ew_status move_depth_to_space(const struct ew_general_args *a)
{
    static const int dcr[] = { 0, 3, 4, 1, 5, 2 }, crd[] = { 0, 1, 4, 2, 5, 3 };
    const struct ew_type *const t = &a->in[0]->type;
    const int64_t b = a->attrs->depth_space.blocksize, c = t->dim[1] / (b * b);
    const bool is_dcr = a->attrs->depth_space.mode == EW_DEPTH_DCR;
    const int64_t dims_dcr[] = { t->dim[0], b, b, c, t->dim[2], t->dim[3] };
    const int64_t dims_crd[] = { t->dim[0], c, b, b, t->dim[2], t->dim[3] };

    permute(a->in[0], a->out[0], 6, is_dcr ? dims_dcr : dims_crd, is_dcr ? dcr : crd);
    return EW_STATUS_OK;
}

static ew_status move_space_to_depth(const struct ew_general_args *a)
{
    static const int perm[] = { 0, 3, 5, 1, 2, 4 };
    const struct ew_type *const t = &a->in[0]->type;
    const int64_t b = a->attrs->depth_space.blocksize;
    const int64_t dims[] = { t->dim[0], t->dim[1], t->dim[2] / b, b, t->dim[3] / b, b };

    permute(a->in[0], a->out[0], 6, dims, perm);
    return EW_STATUS_OK;
}

static ew_status move_slice(const struct ew_general_args *a)
{
    const struct ew_view *const x = a->in[0];
    struct ew_view *const y = a->out[0];
    const int rank = x->type.n_dims;
    const struct ew_view *const axes = a->n_in > 3 ? a->in[3] : NULL;
    const struct ew_view *const steps = a->n_in > 4 ? a->in[4] : NULL;
    const size_t n = ew_gen_count(&a->in[1]->type);
    struct ew_gen_copy c = { .n_dims = rank };
    ptrdiff_t from = 0;
    int64_t count[EW_MAX_DIMS];

    memcpy(count, x->type.dim, sizeof(count));
    ew_gen_strides(rank, x->type.dim, c.src_stride);
    ew_gen_strides(rank, y->type.dim, c.dst_stride);
    for (size_t i = 0; i < n; i++) {
        const int64_t axis = axes ? ew_gen_int_at(axes, i) : (int64_t)i;
        const int64_t step = steps ? ew_gen_int_at(steps, i) : 1;
        int64_t first;
        int d;

        if (axis < -rank || axis >= rank || step == 0)
            return ew_fail(a->err, EW_STATUS_MALFORMED, "axis %lld of rank %d, step %lld",
                           (long long)axis, rank, (long long)step);
        d = ew_gen_axis(axis, rank);
        ew_slice_resolve(x->type.dim[d], ew_gen_int_at(a->in[1], i), ew_gen_int_at(a->in[2], i),
                         step, &first, &count[d]);
        from += (ptrdiff_t)first * c.src_stride[d];
        if (count[d] > 1) /* |step| < dim then */
            c.src_stride[d] *= (ptrdiff_t)step;
    }
    for (int d = 0; d < rank; d++) {
        if (count[d] != y->type.dim[d])
            return ew_fail(a->err, EW_STATUS_MISMATCH, "dim %d is %lld, output has %lld", d,
                           (long long)count[d], (long long)y->type.dim[d]);
        c.dim[d] = count[d];
    }
    ew_gen_copy_run(&c, y->data, 0, x->data, from, y->type.dtype);
    return EW_STATUS_OK;
}

/* Each axis of the output is (repeat, dim). */
static ew_status move_tile(const struct ew_general_args *a)
{
    const struct ew_type *const t = &a->in[0]->type;
    struct ew_view *const y = a->out[0];
    struct ew_gen_copy c = { .n_dims = 2 * t->n_dims };
    ptrdiff_t own[EW_GEN_MAX_DIMS], dst[EW_GEN_MAX_DIMS];

    if (ew_gen_count(&y->type) == 0)
        return EW_STATUS_OK;
    ew_gen_strides(t->n_dims, t->dim, own);
    ew_gen_strides(t->n_dims, y->type.dim, dst);
    for (int d = 0; d < t->n_dims; d++) {
        c.dim[2 * d] = y->type.dim[d] / t->dim[d];
        c.dst_stride[2 * d] = dst[d] * (ptrdiff_t)t->dim[d];
        c.src_stride[2 * d] = 0;
        c.dim[2 * d + 1] = t->dim[d];
        c.dst_stride[2 * d + 1] = dst[d];
        c.src_stride[2 * d + 1] = own[d];
    }
    ew_gen_copy_run(&c, y->data, 0, a->in[0]->data, 0, y->type.dtype);
    return EW_STATUS_OK;
}

/* clang-format off */
static ew_general_fn *const k_move[EW_OP_COUNT] = {
    [EW_OP_CONCAT] = move_concat,
    [EW_OP_CONSTANT_OF_SHAPE] = ew_gen_constant_of_shape,
    [EW_OP_DEPTH_TO_SPACE] = move_depth_to_space,
    [EW_OP_EXPAND] = move_expand,
    [EW_OP_EYE_LIKE] = ew_gen_eye_like,
    [EW_OP_FLATTEN] = move_flat,
    [EW_OP_GATHER] = ew_gen_gather,
    [EW_OP_GATHER_ELEMENTS] = ew_gen_gather_elements,
    [EW_OP_GATHER_ND] = ew_gen_gather_nd,
    [EW_OP_ONE_HOT] = ew_gen_one_hot,
    [EW_OP_PAD] = ew_gen_pad,
    [EW_OP_RANGE] = ew_gen_range,
    [EW_OP_RESHAPE] = move_flat,
    [EW_OP_SCATTER_ELEMENTS] = ew_gen_scatter_elements,
    [EW_OP_SCATTER_ND] = ew_gen_scatter_nd,
    [EW_OP_SHAPE] = ew_gen_shape,
    [EW_OP_SIZE] = ew_gen_size,
    [EW_OP_SLICE] = move_slice,
    [EW_OP_SPACE_TO_DEPTH] = move_space_to_depth,
    [EW_OP_SPLIT] = move_split,
    [EW_OP_SQUEEZE] = move_flat,
    [EW_OP_TENSOR_SCATTER] = ew_gen_tensor_scatter,
    [EW_OP_TILE] = move_tile,
    [EW_OP_TRANSPOSE] = move_transpose,
    [EW_OP_TRILU] = ew_gen_trilu,
    [EW_OP_UNSQUEEZE] = move_flat,
};
/* clang-format on */

ew_status ew_general_move__ref(const struct ew_general_args *a)
{
    for (int k = 0; k < a->n_out; k++)
        if (a->out[k])
            ew_gen_clear_spare(a->out[k]);
    return k_move[a->op](a);
}

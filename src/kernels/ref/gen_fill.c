/* kernels/ref/gen_fill.c - ops that make tensors from little: constants, ranges, masks, shapes. */
#include <math.h>

#include "kernels/ref/gen_common.h"

ew_status ew_gen_constant_of_shape(const struct ew_general_args *a)
{
    const struct ew_attr_fill *const fill = &a->attrs->fill;
    struct ew_view *const y = a->out[0];
    uint64_t element = 0; /* one element of y's dtype */

    if (ew_dtype_is_float(y->type.dtype))
        ew_gen_store(&element, y->type.dtype, 0, 1, &fill->f, EW_GEN_F64, 1);
    else
        ew_gen_store(&element, y->type.dtype, 0, 1, &fill->i, EW_GEN_I64, 1);
    ew_gen_copy_step(y->data, 0, 1, &element, 0, 0, ew_gen_count(&y->type), y->type.dtype);
    return EW_STATUS_OK;
}

ew_status ew_gen_eye_like(const struct ew_general_args *a)
{
    static const uint64_t one = 1, zero = 0;
    struct ew_view *const y = a->out[0];
    const int64_t n_rows = y->type.dim[0], n_cols = y->type.dim[1], k = a->attrs->eye.k;

    ew_gen_copy_step(y->data, 0, 1, &zero, 0, 0, ew_gen_count(&y->type), y->type.dtype);
    if (k >= n_cols || k <= -n_rows)
        return EW_STATUS_OK;
    for (int64_t row = k < 0 ? -k : 0; row < n_rows && row + k < n_cols; row++)
        ew_gen_store(y->data, y->type.dtype, (ptrdiff_t)(row * n_cols + row + k), 1, &one,
                     EW_GEN_U64, 1);
    return EW_STATUS_OK;
}

/* The class an index is on, -1 for none. Float indices count when they are whole. */
static int64_t hot_at(const struct ew_view *indices, size_t i, int64_t depth)
{
    int64_t v;

    if (ew_dtype_is_float(indices->type.dtype)) {
        double f;

        ew_gen_load(&f, EW_GEN_F64, indices->data, indices->type.dtype, (ptrdiff_t)i, 1, 1);
        if (!(f >= -(double)depth && f < (double)depth) || f != floor(f))
            return -1;
        v = (int64_t)f;
    } else {
        v = ew_gen_int_at(indices, i);
        if (indices->type.dtype == EW_DTYPE_U64 && v < 0)
            return -1;
    }
    if (v < -depth || v >= depth)
        return -1;
    return v < 0 ? v + depth : v;
}

ew_status ew_gen_one_hot(const struct ew_general_args *a)
{
    const struct ew_view *const indices = a->in[0];
    const struct ew_view *const values = a->in[2];
    struct ew_view *const y = a->out[0];
    const int axis = ew_gen_axis(a->attrs->axis.axis, y->type.n_dims);
    const ptrdiff_t inner = (ptrdiff_t)ew_gen_product(&y->type, axis + 1, y->type.n_dims);
    const ptrdiff_t depth = (ptrdiff_t)y->type.dim[axis];
    const ptrdiff_t n = (ptrdiff_t)ew_gen_count(&indices->type);

    if (ew_gen_count(&values->type) != 2)
        return ew_fail(a->err, EW_STATUS_MISMATCH, "values has %zu elements, 2 are needed",
                       ew_gen_count(&values->type));
    ew_gen_copy_step(y->data, 0, 1, values->data, 0, 0, ew_gen_count(&y->type), y->type.dtype);
    for (ptrdiff_t i = 0; i < n; i++) {
        const int64_t hot = hot_at(indices, (size_t)i, depth);

        if (hot >= 0)
            ew_gen_copy_flat(y->data, (i / inner * depth + (ptrdiff_t)hot) * inner + i % inner,
                             values->data, 1, 1, y->type.dtype);
    }
    return EW_STATUS_OK;
}

ew_status ew_gen_range(const struct ew_general_args *a)
{
    struct ew_view *const y = a->out[0];
    const ew_dtype dtype = y->type.dtype;
    const bool is_float = ew_dtype_is_float(dtype);
    const size_t n = ew_gen_count(&y->type);
    double start = 0, delta = 0;
    uint64_t i_start = 0, i_delta = 0;
    union ew_gen_block b;

    if (is_float) {
        ew_gen_load(&start, EW_GEN_F64, a->in[0]->data, dtype, 0, 1, 1);
        ew_gen_load(&delta, EW_GEN_F64, a->in[2]->data, dtype, 0, 1, 1);
    } else {
        i_start = (uint64_t)ew_gen_int_at(a->in[0], 0);
        i_delta = (uint64_t)ew_gen_int_at(a->in[2], 0);
    }
    for (size_t i = 0; i < n; i += EW_GEN_BLOCK) {
        const size_t len = n - i < EW_GEN_BLOCK ? n - i : EW_GEN_BLOCK;

        for (size_t k = 0; k < len; k++) {
            if (is_float)
                b.f64[k] = start + (double)(i + k) * delta;
            else
                b.u64[k] = i_start + (uint64_t)(i + k) * i_delta;
        }
        ew_gen_store(y->data, dtype, (ptrdiff_t)i, 1, &b, is_float ? EW_GEN_F64 : EW_GEN_U64, len);
    }
    return EW_STATUS_OK;
}

ew_status ew_gen_shape(const struct ew_general_args *a)
{
    const struct ew_type *const t = &a->in[0]->type;
    const int64_t n = a->out[0]->type.dim[0];
    int64_t start = a->attrs->shape.start;

    if (start < 0)
        start += t->n_dims;
    start = start < 0 ? 0 : start;
    for (int64_t i = 0; i < n && start + i < t->n_dims; i++)
        ((int64_t *)a->out[0]->data)[i] = t->dim[start + i];
    return EW_STATUS_OK;
}

ew_status ew_gen_size(const struct ew_general_args *a)
{
    *(int64_t *)a->out[0]->data = (int64_t)ew_gen_count(&a->in[0]->type);
    return EW_STATUS_OK;
}

ew_status ew_gen_trilu(const struct ew_general_args *a)
{
    static const uint64_t zero = 0;
    const struct ew_view *const x = a->in[0];
    struct ew_view *const y = a->out[0];
    const int rank = x->type.n_dims;
    const int64_t n_rows = x->type.dim[rank - 2], n_cols = x->type.dim[rank - 1];
    const ptrdiff_t n_lines = (ptrdiff_t)ew_gen_product(&x->type, 0, rank - 1);
    const bool upper = a->attrs->trilu.upper != 0;
    int64_t k = 0;

    if (a->n_in > 1 && a->in[1] && ew_gen_count(&a->in[1]->type) > 0)
        k = ew_gen_int_at(a->in[1], 0);
    k = k > n_cols ? n_cols : k < -n_rows ? -n_rows : k;
    for (ptrdiff_t line = 0; line < n_lines; line++) {
        /* columns [0, edge) are below the diagonal (upper) or within it (lower) */
        int64_t edge = line % n_rows + k + (upper ? 0 : 1);
        const ptrdiff_t at = line * (ptrdiff_t)n_cols;
        ptrdiff_t e;

        edge = edge < 0 ? 0 : edge > n_cols ? n_cols : edge;
        e = (ptrdiff_t)edge;
        ew_gen_copy_step(y->data, at, 1, upper ? &zero : x->data, upper ? 0 : at, upper ? 0 : 1,
                         (size_t)e, y->type.dtype);
        ew_gen_copy_step(y->data, at + e, 1, upper ? x->data : &zero, upper ? at + e : 0,
                         upper ? 1 : 0, (size_t)(n_cols - edge), y->type.dtype);
    }
    return EW_STATUS_OK;
}

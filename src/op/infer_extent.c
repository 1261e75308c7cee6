/* op/infer_extent.c - types of ops whose shape depends on the contents of small inputs: Reshape,
 * Slice, Expand and their kind. Symbols among the contents stay symbols; contents that are not
 * known give unknown dims (ew_infer_unknown). */
#include <math.h>
#include <string.h>

#include "op/infer_dtypes.h"
#include "op/infer_move.h"

static ew_status check_rank(struct ew_infer *f, size_t rank)
{
    if (rank > EW_MAX_DIMS)
        return ew_fail(f->err, EW_STATUS_LIMIT, "the output has rank %zu, at most %d is possible",
                       rank, EW_MAX_DIMS);
    return EW_STATUS_OK;
}

static ew_status not_negative(struct ew_infer *f, const struct ew_contents *c, int input)
{
    for (size_t i = 0; i < c->n; i++)
        if (!c->is_symbol[i] && c->v[i] < 0)
            return ew_fail(f->err, EW_STATUS_MALFORMED, "element %zu of input %d is %lld", i, input,
                           (long long)c->v[i]);
    return EW_STATUS_OK;
}

/* A fresh unknown in place of what cannot be computed with symbols. */
static int64_t or_unknown(struct ew_infer *f, int64_t dim)
{
    return dim == EW_DIM_BAD && f->syms ? ew_dim_unknown(f->syms) : dim;
}

ew_status ew_infer_constant_of_shape(struct ew_infer *f)
{
    const ew_dtype dtype = (ew_dtype)f->attrs->fill.dtype;
    struct ew_contents shape;

    if (!ew_dtype_bits(dtype))
        return ew_fail(f->err, EW_STATUS_MALFORMED, "dtype is %d, no such dtype", (int)dtype);
    EW_TRY(ew_infer_contents(f, 0, &shape));
    EW_TRY(check_rank(f, shape.n));
    if (!shape.known)
        return ew_infer_unknown(f, 0, 0, dtype, (int)shape.n);
    EW_TRY(not_negative(f, &shape, 0));
    f->out[0] = ew_type_make(dtype, (int)shape.n, shape.v);
    return EW_STATUS_OK;
}

ew_status ew_infer_expand(struct ew_infer *f)
{
    const struct ew_type *const x = f->in[0].type;
    struct ew_contents shape;
    struct ew_type t;

    EW_TRY(ew_infer_dtype_in(f, 0, EW_SET_ANY));
    EW_TRY(ew_infer_contents(f, 1, &shape));
    EW_TRY(check_rank(f, shape.n));
    if (!shape.known)
        return ew_infer_unknown(f, 0, 1, x->dtype,
                                x->n_dims > (int)shape.n ? x->n_dims : (int)shape.n);
    EW_TRY(not_negative(f, &shape, 1));
    t = ew_type_make(x->dtype, (int)shape.n, shape.v);
    return ew_infer_broadcast(f, x, &t, &f->out[0]);
}

/* ---- Reshape ---- */

/* The dim that stands for -1: all of x over the others. */
static ew_status fill_rest(struct ew_infer *f, struct ew_type *t, int rest)
{
    const struct ew_type *const x = f->in[0].type;
    int64_t total = 1, others = 1;

    for (int d = 0; d < x->n_dims; d++)
        total = ew_dim_mul(f->syms, total, x->dim[d]);
    for (int d = 0; d < t->n_dims; d++)
        if (d != rest)
            others = ew_dim_mul(f->syms, others, t->dim[d]);
    if (total >= 0 && others >= 0 && (others == 0 || total % others != 0))
        return ew_fail(f->err, EW_STATUS_MISMATCH, "%lld elements do not divide into %lld",
                       (long long)total, (long long)others);
    t->dim[rest] = total == EW_DIM_BAD || others == EW_DIM_BAD ? EW_DIM_BAD
                                                               : ew_dim_div(f->syms, total, others);
    t->dim[rest] = or_unknown(f, t->dim[rest]);
    return EW_STATUS_OK;
}

ew_status ew_infer_reshape(struct ew_infer *f)
{
    const struct ew_type *const x = f->in[0].type;
    struct ew_contents shape;
    struct ew_type t = { .dtype = x->dtype };
    size_t n_from, n_to;
    int rest = -1;

    EW_TRY(ew_infer_contents(f, 1, &shape));
    EW_TRY(check_rank(f, shape.n));
    if (!shape.known)
        return ew_infer_unknown(f, 0, 1, x->dtype, (int)shape.n);
    t.n_dims = (int)shape.n;
    for (int d = 0; d < t.n_dims; d++) {
        t.dim[d] = shape.v[d];
        if (shape.is_symbol[d])
            continue;
        if (shape.v[d] < -1 || (shape.v[d] == -1 && rest >= 0))
            return ew_fail(f->err, EW_STATUS_MALFORMED, "shape has %lld at %d%s",
                           (long long)shape.v[d], d, rest >= 0 ? " and -1 before" : "");
        if (shape.v[d] == -1)
            rest = d;
        if (shape.v[d] == 0 && !f->attrs->reshape.allowzero) {
            if (d >= x->n_dims)
                return ew_fail(f->err, EW_STATUS_MISMATCH, "shape has 0 at %d, input has rank %d",
                               d, x->n_dims);
            t.dim[d] = x->dim[d];
        }
    }
    if (rest >= 0)
        EW_TRY(fill_rest(f, &t, rest));
    if (ew_type_count(x, &n_from) && ew_type_count(&t, &n_to) && n_from != n_to)
        return ew_fail(f->err, EW_STATUS_MISMATCH, "input has %zu elements, shape has %zu", n_from,
                       n_to);
    f->out[0] = t;
    return EW_STATUS_OK;
}

/* ---- Squeeze, Unsqueeze ---- */

/* Axes of input 1 in a rank, as a mask. */
static ew_status axes_mask(struct ew_infer *f, const struct ew_contents *axes, int rank,
                           unsigned *mask)
{
    *mask = 0;
    for (size_t i = 0; i < axes->n; i++) {
        int axis;

        EW_TRY(ew_infer_axis(f, axes->v[i], rank, &axis));
        if (*mask >> axis & 1u)
            return ew_fail(f->err, EW_STATUS_MALFORMED, "axis %d is given twice", axis);
        *mask |= 1u << axis;
    }
    return EW_STATUS_OK;
}

ew_status ew_infer_squeeze(struct ew_infer *f)
{
    const struct ew_type *const x = f->in[0].type;
    struct ew_contents axes = { .known = true };
    struct ew_type t = { .dtype = x->dtype };
    unsigned mask = 0;

    if (ew_infer_has(f, 1)) {
        EW_TRY(ew_infer_contents(f, 1, &axes));
        if (!axes.known)
            return ew_infer_unknown(f, 0, 1, x->dtype, x->n_dims - (int)axes.n);
        EW_TRY(axes_mask(f, &axes, x->n_dims, &mask));
    } else {
        for (int d = 0; d < x->n_dims; d++)
            mask |= x->dim[d] == 1 ? 1u << d : 0;
    }
    for (int d = 0; d < x->n_dims; d++) {
        if (!(mask >> d & 1u))
            t.dim[t.n_dims++] = x->dim[d];
        else if (x->dim[d] >= 0 && x->dim[d] != 1)
            return ew_fail(f->err, EW_STATUS_MISMATCH, "axis %d has %lld elements, not 1", d,
                           (long long)x->dim[d]);
    }
    f->out[0] = t;
    return EW_STATUS_OK;
}

ew_status ew_infer_unsqueeze(struct ew_infer *f)
{
    const struct ew_type *const x = f->in[0].type;
    struct ew_type t = { .dtype = x->dtype };
    struct ew_contents axes;
    unsigned mask;
    int from = 0;

    EW_TRY(ew_infer_contents(f, 1, &axes));
    EW_TRY(check_rank(f, (size_t)x->n_dims + axes.n));
    t.n_dims = x->n_dims + (int)axes.n;
    if (!axes.known)
        return ew_infer_unknown(f, 0, 1, x->dtype, t.n_dims);
    EW_TRY(axes_mask(f, &axes, t.n_dims, &mask));
    for (int d = 0; d < t.n_dims; d++)
        t.dim[d] = mask >> d & 1u ? 1 : x->dim[from++];
    f->out[0] = t;
    return EW_STATUS_OK;
}

/* ---- Slice ---- */

void ew_slice_resolve(int64_t dim, int64_t start, int64_t end, int64_t step, int64_t *first,
                      int64_t *count)
{
    const bool forward = step > 0;
    const int64_t lowest = forward ? 0 : -1, highest = forward ? dim : dim - 1;
    const uint64_t stride = forward ? (uint64_t)step : 0 - (uint64_t)step;
    uint64_t span;

    start += start < 0 ? dim : 0;
    end += end < 0 ? dim : 0;
    start = start < lowest ? lowest : start > highest ? highest : start;
    end = end < lowest ? lowest : end > highest ? highest : end;
    if (!forward && start < 0)
        end = start; /* before the first element, going back */
    *first = 0;
    *count = 0;
    if (forward ? end <= start : end >= start)
        return;
    span = (uint64_t)(forward ? end - start : start - end);
    *first = start;
    *count = (int64_t)((span - 1) / stride + 1);
}

#define SLICE_FAR INT32_MAX /* exporters write "to the end" as this or more */

/* Length of a slice with symbols. A literal bound within a symbolic dim is taken to lie in it: the
 * engine infers again with numbers. BAD when it cannot be told. */
static int64_t slice_len(struct ew_infer *f, int64_t dim, int64_t start, bool start_is_symbol,
                         int64_t end, bool end_is_symbol, int64_t step)
{
    int64_t len;

    if (dim >= 0 && !start_is_symbol && !end_is_symbol) {
        int64_t first;

        ew_slice_resolve(dim, start, end, step, &first, &len);
        return len;
    }
    if (step < 0) {
        const bool whole = !start_is_symbol && (start == -1 || start >= SLICE_FAR) &&
                           !end_is_symbol && end <= -SLICE_FAR;

        return whole && step > -SLICE_FAR ? ew_dim_div_ceil(f->syms, dim, -step) : EW_DIM_BAD;
    }
    if (!start_is_symbol && start < 0)
        start = start <= -SLICE_FAR ? 0 : ew_dim_add(f->syms, dim, start);
    if (end_is_symbol)
        end = end == dim ? dim : ew_dim_min(f->syms, end, dim);
    else if (end >= SLICE_FAR)
        end = dim;
    else if (end < 0)
        end = ew_dim_add(f->syms, dim, end);
    else
        end = ew_dim_min(f->syms, end, dim);
    if (start == EW_DIM_BAD || end == EW_DIM_BAD)
        return EW_DIM_BAD;
    len = ew_dim_sub(f->syms, end, start);
    if (len == EW_DIM_BAD || (len < 0 && !ew_dim_is_symbol(len)))
        return len == EW_DIM_BAD ? len : 0;
    return step == 1 ? len : ew_dim_div_ceil(f->syms, len, step);
}

static void contents_default(struct ew_contents *c, size_t n, bool count_up)
{
    memset(c, 0, sizeof(*c));
    c->known = true;
    c->n = n;
    for (size_t i = 0; i < n; i++)
        c->v[i] = count_up ? (int64_t)i : 1;
}

static ew_status slice_inputs(struct ew_infer *f, struct ew_contents c[4])
{
    for (int i = 0; i < 4; i++) {
        if (ew_infer_has(f, i + 1)) {
            EW_TRY(ew_infer_dtype_in(f, i + 1, EW_SET_INDEX));
            EW_TRY(ew_infer_contents(f, i + 1, &c[i]));
        } else {
            contents_default(&c[i], c[0].n, i == 2);
        }
        if (c[i].n != c[0].n)
            return ew_fail(f->err, EW_STATUS_MISMATCH, "starts has %zu elements, input %d has %zu",
                           c[0].n, i + 1, c[i].n);
    }
    return EW_STATUS_OK;
}

ew_status ew_infer_slice(struct ew_infer *f)
{
    const struct ew_type *const x = f->in[0].type;
    struct ew_contents c[4]; /* starts, ends, axes, steps */
    struct ew_type t = *x;
    unsigned seen = 0;

    EW_TRY(ew_infer_dtype_in(f, 0, EW_SET_ANY));
    EW_TRY(slice_inputs(f, c));
    if (!c[2].known || !c[3].known)
        return ew_infer_unknown(f, 0, c[2].known ? 4 : 3, x->dtype, x->n_dims);
    for (size_t i = 0; i < c[0].n; i++) {
        const int64_t step = c[3].v[i];
        int axis;

        EW_TRY(ew_infer_axis(f, c[2].v[i], x->n_dims, &axis));
        if (seen >> axis & 1u)
            return ew_fail(f->err, EW_STATUS_MALFORMED, "axis %d is given twice", axis);
        seen |= 1u << axis;
        if (step == 0)
            return ew_fail(f->err, EW_STATUS_MALFORMED, "step of axis %d is 0", axis);
        if (c[0].known && c[1].known && !c[3].is_symbol[i]) {
            t.dim[axis] = or_unknown(f, slice_len(f, x->dim[axis], c[0].v[i], c[0].is_symbol[i],
                                                  c[1].v[i], c[1].is_symbol[i], step));
            continue;
        }
        EW_TRY(ew_infer_unknown(f, 0, c[0].known ? 2 : 1, x->dtype, x->n_dims));
        t.dim[axis] = f->out[0].dim[axis];
    }
    f->out[0] = t;
    return EW_STATUS_OK;
}

/* ---- Pad, Tile, Split, Range ---- */

ew_status ew_infer_pad(struct ew_infer *f)
{
    const struct ew_type *const x = f->in[0].type;
    struct ew_contents pads, axes;
    struct ew_type t = *x;
    unsigned seen = 0;

    EW_TRY(ew_infer_dtype_in(f, 0, EW_SET_ANY));
    if (ew_infer_has(f, 2))
        EW_TRY(ew_infer_same_dtype(f, 0, 2));
    contents_default(&axes, (size_t)x->n_dims, true);
    if (ew_infer_has(f, 3))
        EW_TRY(ew_infer_contents(f, 3, &axes));
    EW_TRY(ew_infer_contents(f, 1, &pads));
    if (pads.n != 2 * axes.n)
        return ew_fail(f->err, EW_STATUS_MISMATCH,
                       "pads has %zu elements, %zu axes need twice that", pads.n, axes.n);
    if (!pads.known || !axes.known)
        return ew_infer_unknown(f, 0, pads.known ? 3 : 1, x->dtype, x->n_dims);
    for (size_t i = 0; i < axes.n; i++) {
        int axis;

        EW_TRY(ew_infer_axis(f, axes.v[i], x->n_dims, &axis));
        if (seen >> axis & 1u)
            return ew_fail(f->err, EW_STATUS_MALFORMED, "axis %d is given twice", axis);
        seen |= 1u << axis;
        t.dim[axis] = ew_dim_add(f->syms, t.dim[axis], pads.v[i]);
        t.dim[axis] = ew_dim_add(f->syms, t.dim[axis], pads.v[axes.n + i]);
    }
    f->out[0] = t;
    return EW_STATUS_OK;
}

ew_status ew_infer_tile(struct ew_infer *f)
{
    const struct ew_type *const x = f->in[0].type;
    struct ew_contents repeats;

    EW_TRY(ew_infer_dtype_in(f, 0, EW_SET_ANY));
    EW_TRY(ew_infer_contents(f, 1, &repeats));
    if (repeats.n != (size_t)x->n_dims)
        return ew_fail(f->err, EW_STATUS_MISMATCH, "repeats has %zu elements, rank is %d",
                       repeats.n, x->n_dims);
    if (!repeats.known)
        return ew_infer_unknown(f, 0, 1, x->dtype, x->n_dims);
    EW_TRY(not_negative(f, &repeats, 1));
    f->out[0] = *x;
    for (int d = 0; d < x->n_dims; d++)
        f->out[0].dim[d] = ew_dim_mul(f->syms, x->dim[d], repeats.v[d]);
    return EW_STATUS_OK;
}

/* Equal parts, the last ones smaller. */
static void split_evenly(struct ew_infer *f, int axis)
{
    const int64_t dim = f->in[0].type->dim[axis];
    const int64_t even = ew_dim_div_ceil(f->syms, dim, f->n_out);
    int64_t left = dim;

    for (int o = 0; o < f->n_out; o++) {
        int64_t part = even;

        if (dim >= 0)
            part = left < even ? left : even;
        else if (o == f->n_out - 1)
            part = left;
        f->out[o].dim[axis] = part;
        left = ew_dim_sub(f->syms, left, part);
    }
}

ew_status ew_infer_split(struct ew_infer *f)
{
    const struct ew_type *const x = f->in[0].type;
    const int64_t n_outputs = f->attrs->split.num_outputs;
    struct ew_contents sizes;
    int64_t total = 0;
    int axis;

    EW_TRY(ew_infer_dtype_in(f, 0, EW_SET_ANY));
    EW_TRY(ew_infer_axis(f, f->attrs->split.axis, x->n_dims, &axis));
    for (int o = 0; o < f->n_out; o++)
        f->out[o] = *x;
    if (n_outputs != 0 && n_outputs != f->n_out)
        return ew_fail(f->err, EW_STATUS_MISMATCH, "num_outputs is %lld, there are %d outputs",
                       (long long)n_outputs, f->n_out);
    if (!ew_infer_has(f, 1)) {
        split_evenly(f, axis);
        return EW_STATUS_OK;
    }
    EW_TRY(ew_infer_contents(f, 1, &sizes));
    if (sizes.n != (size_t)f->n_out)
        return ew_fail(f->err, EW_STATUS_MISMATCH, "split has %zu elements, there are %d outputs",
                       sizes.n, f->n_out);
    if (!sizes.known) {
        for (int o = 0; o < f->n_out; o++) {
            int64_t part;

            EW_TRY(ew_infer_unknown(f, o, 1, x->dtype, x->n_dims));
            part = f->out[o].dim[axis];
            f->out[o] = *x;
            f->out[o].dim[axis] = part;
        }
        return EW_STATUS_OK;
    }
    EW_TRY(not_negative(f, &sizes, 1));
    for (int o = 0; o < f->n_out; o++) {
        f->out[o].dim[axis] = sizes.v[o];
        total = ew_dim_add(f->syms, total, sizes.v[o]);
    }
    if (total >= 0 && x->dim[axis] >= 0 && total != x->dim[axis])
        return ew_fail(f->err, EW_STATUS_MISMATCH, "parts sum to %lld, axis %d has %lld",
                       (long long)total, axis, (long long)x->dim[axis]);
    return EW_STATUS_OK;
}

/* Elements of [start, limit) by delta, of integers, without overflow. */
static int64_t count_ints(int64_t start, int64_t limit, int64_t delta)
{
    const bool up = delta > 0;
    const uint64_t step = up ? (uint64_t)delta : 0 - (uint64_t)delta;
    uint64_t span;

    if (up ? limit <= start : limit >= start)
        return 0;
    span = up ? (uint64_t)limit - (uint64_t)start : (uint64_t)start - (uint64_t)limit;
    span = (span - 1) / step;
    return span >= INT64_MAX ? EW_DIM_BAD : (int64_t)span + 1;
}

/* In single precision unless all is double, as the ONNX function body does it. */
static ew_status range_floats(struct ew_infer *f, int64_t *n)
{
    const ew_dtype dtype = f->in[0].type->dtype;
    const double start = ew_elem_get_f64(f->in[0].data, dtype, 0);
    const double limit = ew_elem_get_f64(f->in[1].data, dtype, 0);
    const double delta = ew_elem_get_f64(f->in[2].data, dtype, 0);
    double count = (limit - start) / delta;

    if (dtype != EW_DTYPE_F64)
        count = (double)(((float)limit - (float)start) / (float)delta);
    count = ceil(count);
    if (!(count < 0x1p62))
        return ew_fail(f->err, EW_STATUS_MALFORMED, "Range from %g to %g by %g has no length",
                       start, limit, delta);
    *n = count > 0 ? (int64_t)count : 0;
    return EW_STATUS_OK;
}

ew_status ew_infer_range(struct ew_infer *f)
{
    struct ew_contents c[3];
    int64_t n = EW_DIM_BAD;

    EW_TRY(ew_infer_dtype_in(f, 0, EW_SET_FLOATS | EW_SET(I16) | EW_SET_INDEX));
    for (int i = 0; i < 3; i++) {
        size_t one;

        EW_TRY(ew_infer_same_dtype(f, 0, i));
        if (!ew_type_count(f->in[i].type, &one) || one != 1)
            return ew_fail(f->err, EW_STATUS_MISMATCH, "input %d has rank %d, a scalar is needed",
                           i, f->in[i].type->n_dims);
    }
    for (int i = 0; i < 3; i++) {
        const bool is_float = ew_dtype_is_float(f->in[i].type->dtype);

        if (!is_float)
            EW_TRY(ew_infer_contents(f, i, &c[i]));
        if (is_float ? !f->in[i].data : !c[i].known)
            return ew_infer_unknown(f, 0, i, f->in[0].type->dtype, 1);
    }
    if (ew_dtype_is_float(f->in[0].type->dtype)) {
        EW_TRY(range_floats(f, &n));
    } else if (!c[2].is_symbol[0] && c[2].v[0] == 0) {
        return ew_fail(f->err, EW_STATUS_MALFORMED, "delta is 0");
    } else if (!c[0].is_symbol[0] && !c[1].is_symbol[0] && !c[2].is_symbol[0]) {
        n = count_ints(c[0].v[0], c[1].v[0], c[2].v[0]);
    } else if (!c[2].is_symbol[0] && c[2].v[0] > 0) {
        n = ew_dim_sub(f->syms, c[1].v[0], c[0].v[0]);
        n = or_unknown(f, n == EW_DIM_BAD ? n : ew_dim_div_ceil(f->syms, n, c[2].v[0]));
    } else {
        n = or_unknown(f, EW_DIM_BAD);
    }
    f->out[0] = ew_type_make(f->in[0].type->dtype, 1, &n);
    return EW_STATUS_OK;
}

/* op/infer_nn_resize.c - the output sizes of Resize. */
#include <math.h>

#include "op/infer_dtypes.h"
#include "op/infer_nn.h"

#define SANE ((int64_t)1 << 40)

ew_status ew_resize_axes(const struct ew_attr_resize *attr, int rank, int *axes, int *n,
                         ew_error *err)
{
    unsigned seen = 0;

    *n = attr->axes.n > 0 ? attr->axes.n : rank;
    if (*n > rank)
        return ew_fail(err, EW_STATUS_MALFORMED, "%d axes, rank is %d", *n, rank);
    for (int k = 0; k < *n; k++) {
        const int64_t axis = attr->axes.n > 0 ? attr->axes.v[k] : k;

        if (axis < -rank || axis >= rank)
            return ew_fail(err, EW_STATUS_MALFORMED, "axis is %lld, rank is %d", (long long)axis,
                           rank);
        axes[k] = (int)(axis < 0 ? axis + rank : axis);
        if (seen >> axes[k] & 1u)
            return ew_fail(err, EW_STATUS_MALFORMED, "axis %d is given twice", axes[k]);
        seen |= 1u << axes[k];
    }
    return EW_STATUS_OK;
}

ew_status ew_resize_from_scale(int64_t dim, double scale, int64_t *out, ew_error *err)
{
    const double size = floor((double)dim * scale);

    if (!(scale > 0) || !(size < (double)SANE))
        return ew_fail(err, EW_STATUS_MALFORMED, "scale is %g for %lld elements", scale,
                       (long long)dim);
    *out = (int64_t)size;
    return EW_STATUS_OK;
}

ew_status ew_resize_from_sizes(const struct ew_attr_resize *attr, const struct ew_type *x,
                               const int *axes, int n, const int64_t *sizes, int64_t *out,
                               double *scale, ew_error *err)
{
    double one = 0;

    for (int k = 0; k < n; k++) {
        const int64_t dim = x->dim[axes[k]];

        if (sizes[k] < 0 || sizes[k] > SANE || (dim == 0 && sizes[k] != 0))
            return ew_fail(err, EW_STATUS_MALFORMED, "size %lld is asked of %lld elements",
                           (long long)sizes[k], (long long)dim);
        out[k] = sizes[k];
        scale[k] = dim > 0 ? (double)sizes[k] / (double)dim : 1;
        if (k == 0 || (attr->policy == EW_KEEP_NOT_LARGER ? scale[k] < one : scale[k] > one))
            one = scale[k];
    }
    if (attr->policy == EW_KEEP_STRETCH)
        return EW_STATUS_OK;
    for (int k = 0; k < n; k++) {
        const double size = floor(one * (double)x->dim[axes[k]] + 0.5);

        if (!(size < (double)SANE))
            return ew_fail(err, EW_STATUS_MALFORMED, "scale is %g for %lld elements", one,
                           (long long)x->dim[axes[k]]);
        out[k] = (int64_t)size;
        scale[k] = one;
    }
    return EW_STATUS_OK;
}

static ew_status from_sizes(struct ew_infer *f, const int *axes, int n)
{
    const struct ew_attr_resize *const attr = &f->attrs->resize;
    const struct ew_type *const x = f->in[0].type;
    struct ew_contents sizes;
    int64_t out[EW_MAX_DIMS];
    double scale[EW_MAX_DIMS];
    bool numbers = true;

    EW_TRY(ew_infer_contents(f, 3, &sizes));
    if (sizes.n != (size_t)n)
        return ew_fail(f->err, EW_STATUS_MISMATCH, "%zu sizes for %d axes", sizes.n, n);
    if (!sizes.known)
        return ew_infer_unknown(f, 0, 3, x->dtype, x->n_dims);
    for (int k = 0; k < n; k++)
        numbers = numbers && !sizes.is_symbol[k] && x->dim[axes[k]] >= 0;
    if (!numbers && attr->policy != EW_KEEP_STRETCH)
        return ew_infer_unknown(f, 0, 3, x->dtype, x->n_dims);
    f->out[0] = *x;
    if (numbers)
        EW_TRY(ew_resize_from_sizes(attr, x, axes, n, sizes.v, out, scale, f->err));
    for (int k = 0; k < n; k++) {
        if (!sizes.is_symbol[k] && (sizes.v[k] < 0 || sizes.v[k] > SANE))
            return ew_fail(f->err, EW_STATUS_MALFORMED, "size %d is %lld", k,
                           (long long)sizes.v[k]);
        f->out[0].dim[axes[k]] = numbers ? out[k] : sizes.v[k];
    }
    return EW_STATUS_OK;
}

static ew_status from_scales(struct ew_infer *f, const int *axes, int n)
{
    const struct ew_type *const x = f->in[0].type, *const s = f->in[2].type;

    EW_TRY(ew_infer_dtype_in(f, 2, EW_SET(F32)));
    if (s->n_dims != 1 || s->dim[0] != n)
        return ew_fail(f->err, EW_STATUS_MISMATCH, "scales have rank %d and dim %lld for %d axes",
                       s->n_dims, (long long)(s->n_dims > 0 ? s->dim[0] : 0), n);
    if (!f->in[2].data && n > 0)
        return ew_infer_unknown(f, 0, 2, x->dtype, x->n_dims);
    f->out[0] = *x;
    for (int k = 0; k < n; k++) {
        const double scale = (double)((const float *)f->in[2].data)[k];
        const int64_t dim = x->dim[axes[k]];
        int64_t *const out = &f->out[0].dim[axes[k]];

        if (!(scale > 0) || scale > (double)SANE)
            return ew_fail(f->err, EW_STATUS_MALFORMED, "scale %d is %g", k, scale);
        if (dim >= 0)
            EW_TRY(ew_resize_from_scale(dim, scale, out, f->err));
        else if (scale == floor(scale))
            *out = ew_dim_mul(f->syms, dim, (int64_t)scale);
        else
            *out = ew_dim_unknown(f->syms);
        if (*out == EW_DIM_BAD)
            return ew_fail(f->err, EW_STATUS_LIMIT, "dim %d times %g cannot be expressed", axes[k],
                           scale);
    }
    return EW_STATUS_OK;
}

/* An empty tensor stands for an absent input, as older opsets have it. */
static bool has_entries(const struct ew_infer *f, int i)
{
    size_t n;

    return ew_infer_has(f, i) && (!ew_type_count(f->in[i].type, &n) || n > 0);
}

static ew_status check_modes(struct ew_infer *f)
{
    const struct ew_attr_resize *const attr = &f->attrs->resize;

    if (attr->mode < EW_RESIZE_NEAREST || attr->mode > EW_RESIZE_CUBIC ||
        attr->coord < EW_COORD_HALF_PIXEL || attr->coord > EW_COORD_TF_CROP_AND_RESIZE)
        return ew_fail(f->err, EW_STATUS_MALFORMED, "mode is %d, coordinate mode is %d", attr->mode,
                       attr->coord);
    if (attr->nearest < EW_NEAREST_ROUND_PREFER_FLOOR || attr->nearest > EW_NEAREST_CEIL ||
        attr->policy < EW_KEEP_STRETCH || attr->policy > EW_KEEP_NOT_SMALLER)
        return ew_fail(f->err, EW_STATUS_MALFORMED, "nearest mode is %d, policy is %d",
                       attr->nearest, attr->policy);
    if (attr->antialias && attr->mode == EW_RESIZE_NEAREST)
        return ew_fail(f->err, EW_STATUS_UNSUPPORTED, "antialias with mode nearest");
    return EW_STATUS_OK;
}

ew_status ew_infer_resize(struct ew_infer *f)
{
    const struct ew_type *const x = f->in[0].type;
    const bool sizes = has_entries(f, 3), scales = has_entries(f, 2);
    int axes[EW_MAX_DIMS], n;

    EW_TRY(ew_infer_dtype_in(f, 0, EW_SET_NUMBERS | EW_SET(BOOL)));
    EW_TRY(check_modes(f));
    EW_TRY(ew_resize_axes(&f->attrs->resize, x->n_dims, axes, &n, f->err));
    if (sizes == scales && n > 0)
        return ew_fail(f->err, EW_STATUS_MALFORMED, "scales are %s and sizes are %s; one is needed",
                       scales ? "given" : "absent", sizes ? "given" : "absent");
    if (f->attrs->resize.coord == EW_COORD_TF_CROP_AND_RESIZE) {
        const struct ew_type *const roi = ew_infer_has(f, 1) ? f->in[1].type : NULL;

        if (!roi || roi->n_dims != 1 || roi->dim[0] != 2 * n)
            return ew_fail(f->err, EW_STATUS_MISMATCH,
                           "tf_crop_and_resize needs roi of %d values, there are %lld", 2 * n,
                           (long long)(roi && roi->n_dims == 1 ? roi->dim[0] : 0));
        EW_TRY(ew_infer_dtype_in(f, 1, EW_SET_FLOATS));
    }
    if (n == 0) {
        f->out[0] = *x;
        return EW_STATUS_OK;
    }
    return sizes ? from_sizes(f, axes, n) : from_scales(f, axes, n);
}

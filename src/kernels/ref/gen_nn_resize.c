/* kernels/ref/gen_nn_resize.c - Resize: nearest copies elements through one table an axis; linear
 * and cubic resize one axis after the other in doubles. */
#include <math.h>
#include <string.h>

#include "base/size.h"
#include "kernels/ref/gen_nn.h"
#include "op/infer_nn.h"

struct axis {
    int64_t in, out;
    double scale, roi_start, roi_end;
};

struct resize {
    const struct ew_attr_resize *attr;
    int rank;
    struct axis axis[EW_MAX_DIMS];
};

/* Nearest: a table of sources an axis. Others: the data before and after one axis, and the weights
 * of one output position, whose number is bounded by the input. */
size_t ew_gen_resize_scratch(const struct ew_attr_resize *attr, const struct ew_type *x,
                             const struct ew_type *y)
{
    size_t most = 1, weights = 0, sources = 0, total;

    for (int d = 0; d < x->n_dims; d++) {
        const size_t need = 8 * (size_t)x->dim[d] + 64;
        size_t n = x->dim[d] > y->dim[d] ? (size_t)x->dim[d] : (size_t)y->dim[d];

        weights = need > weights ? need : weights;
        n = n > 0 ? n : 1;
        if (!ew_size_mul(most, n, &most) || !ew_size_add(sources, (size_t)y->dim[d], &sources))
            return SIZE_MAX;
    }
    if (attr->mode == EW_RESIZE_NEAREST)
        total = sources;
    else if (!ew_size_mul(most, 2, &total) || !ew_size_add(total, weights, &total))
        return SIZE_MAX;
    return ew_size_mul(total, sizeof(double), &total) ? total : SIZE_MAX;
}

/* ---- coordinates ---- */

/* Where output o is in the input. */
static double source_of(const struct resize *r, const struct axis *x, int64_t o)
{
    const double in = (double)x->in, size = x->scale * in, at = (double)o;

    switch (r->attr->coord) {
    case EW_COORD_ALIGN_CORNERS:
        return size == 1 ? 0 : at * (in - 1) / (size - 1);
    case EW_COORD_ASYMMETRIC:
        return at / x->scale;
    case EW_COORD_TF_CROP_AND_RESIZE: {
        const double span = (x->roi_end - x->roi_start) * (in - 1);

        return (size == 1 ? span / 2 : at * span / (size - 1)) + x->roi_start * (in - 1);
    }
    case EW_COORD_PYTORCH_HALF_PIXEL:
        return size == 1 ? -0.5 : (at + 0.5) / x->scale - 0.5;
    case EW_COORD_HALF_PIXEL_SYMMETRIC:
        return in / 2 * (1 - (double)x->out / size) + (at + 0.5) / x->scale - 0.5;
    default:
        return (at + 0.5) / x->scale - 0.5;
    }
}

/* Outside of the image tf_crop_and_resize gives extrapolation_value. A NaN is outside. */
static bool is_outside(const struct resize *r, const struct axis *x, double at)
{
    return r->attr->coord == EW_COORD_TF_CROP_AND_RESIZE && !(at >= 0 && at <= (double)(x->in - 1));
}

static bool is_same(const struct resize *r, const struct axis *x)
{
    return fabs(x->scale - 1) <= 1e-9 && x->in == x->out &&
           (r->attr->coord != EW_COORD_TF_CROP_AND_RESIZE ||
            (fabs(x->roi_start) <= 1e-9 && fabs(x->roi_end - 1) <= 1e-9));
}

static int64_t clamp(double v, int64_t n)
{
    if (!(v > 0))
        return 0;
    return v >= (double)(n - 1) ? n - 1 : (int64_t)v;
}

/* ---- nearest ---- */

static int64_t nearest_of(const struct resize *r, const struct axis *x, int64_t o)
{
    const double at = is_same(r, x) ? (double)o : source_of(r, x, o), low = floor(at);
    const double part = at - low;
    bool up = false;

    if (is_outside(r, x, at))
        return -1;
    switch (r->attr->nearest) {
    case EW_NEAREST_ROUND_PREFER_FLOOR:
        up = part > 0.5;
        break;
    case EW_NEAREST_ROUND_PREFER_CEIL:
        up = part >= 0.5;
        break;
    case EW_NEAREST_CEIL:
        up = part > 0;
        break;
    default:
        break;
    }
    return clamp(up ? low + 1 : low, x->in);
}

static void run_nearest(const struct resize *r, const struct ew_general_args *a)
{
    const struct ew_view *const x = a->in[0];
    struct ew_view *const y = a->out[0];
    const size_t n = ew_gen_count(&y->type);
    const double beyond = (double)r->attr->extrapolation_value;
    int64_t *table[EW_MAX_DIMS] = { NULL }, index[EW_MAX_DIMS] = { 0 }, *next = a->scratch;
    ptrdiff_t stride[EW_GEN_MAX_DIMS];

    ew_gen_strides(r->rank, x->type.dim, stride);
    for (int d = 0; d < r->rank; d++) {
        table[d] = next;
        for (int64_t o = 0; o < r->axis[d].out; o++)
            *next++ = nearest_of(r, &r->axis[d], o);
    }
    for (size_t to = 0; to < n; to++) {
        bool inside = true;
        ptrdiff_t at = 0;

        for (int d = 0; d < r->rank; d++) {
            const int64_t i = table[d][index[d]];

            inside = inside && i >= 0;
            at += (ptrdiff_t)i * stride[d];
        }
        if (inside)
            ew_gen_copy_flat(y->data, (ptrdiff_t)to, x->data, at, 1, y->type.dtype);
        else
            ew_gen_store(y->data, y->type.dtype, (ptrdiff_t)to, 1, &beyond, EW_GEN_F64, 1);
        for (int d = r->rank - 1; d >= 0; d--) {
            if (++index[d] < r->axis[d].out)
                break;
            index[d] = 0;
        }
    }
}

/* ---- linear and cubic ---- */

static double cubic(double x, double a)
{
    x = fabs(x);
    if (x <= 1)
        return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? ((a * x - 5 * a) * x + 8 * a) * x - 4 * a : 0;
}

/* Weights of the n inputs from *first on (some may be outside) for a place. */
static int64_t weights_of(const struct resize *r, const struct axis *x, double at, double *w,
                          int64_t *first)
{
    const bool is_cubic = r->attr->mode == EW_RESIZE_CUBIC;
    const double shrink = r->attr->antialias && x->scale < 1 ? x->scale : 1;
    const double far = (double)(8 * x->in + 64), limited = at > far ? far : at >= -far ? at : -far;
    /* ratio is in (0, 1]: a whole place belongs to the pair on its left */
    const double low = ceil(limited) - 1, ratio = limited - low;
    const int64_t start = (int64_t)floor((is_cubic ? -2 : -1) / shrink) + 1;
    const int64_t n = 2 - 2 * start;
    double sum = 0;

    *first = (int64_t)low + start;
    for (int64_t i = 0; i < n; i++) {
        const double from = shrink * ((double)(start + i) - ratio);
        const int64_t k = *first + i;

        w[i] = is_cubic ? cubic(from, (double)r->attr->cubic_coeff_a)
                        : (fabs(from) < 1 ? 1 - fabs(from) : 0);
        if (r->attr->exclude_outside && (k < 0 || k >= x->in))
            w[i] = 0;
        sum += w[i];
    }
    if ((r->attr->antialias || r->attr->exclude_outside) && sum != 0)
        for (int64_t i = 0; i < n; i++)
            w[i] /= sum;
    return n;
}

/* [outer][in][inner] -> [outer][out][inner] */
static void resize_axis(const struct resize *r, const struct axis *x, const double *src,
                        double *dst, ptrdiff_t outer, ptrdiff_t inner, double *w)
{
    for (int64_t o = 0; o < x->out; o++) {
        const double at = source_of(r, x, o);
        const bool outside = is_outside(r, x, at);
        int64_t first = 0;
        const int64_t n = outside ? 0 : weights_of(r, x, at, w, &first);

        for (ptrdiff_t b = 0; b < outer; b++) {
            double *const y = dst + (b * (ptrdiff_t)x->out + (ptrdiff_t)o) * inner;

            for (ptrdiff_t i = 0; i < inner; i++)
                y[i] = outside ? (double)r->attr->extrapolation_value : 0;
            for (int64_t k = 0; k < n; k++) {
                const double *const v =
                    src +
                    (b * (ptrdiff_t)x->in + (ptrdiff_t)clamp((double)(first + k), x->in)) * inner;

                for (ptrdiff_t i = 0; w[k] != 0 && i < inner; i++)
                    y[i] += w[k] * v[i];
            }
        }
    }
}

/* Integers round to the nearest and saturate. */
static void store_all(struct ew_view *y, double *v, size_t n)
{
    const ew_dtype d = y->type.dtype;
    const int bits = (int)ew_dtype_bits(d);
    const bool is_signed = ew_dtype_is_signed(d);
    const double lo = is_signed ? -ldexp(1, bits - 1) : 0;
    const double hi = ldexp(1, is_signed ? bits - 1 : bits) - 1;

    for (size_t i = 0; ew_dtype_is_int(d) && i < n; i++) {
        const double whole = rint(v[i]);

        v[i] = whole < lo ? lo : whole > hi ? hi : whole;
    }
    if (n > 0)
        ew_gen_store(y->data, d, 0, 1, v, EW_GEN_F64, n);
}

static void run_smooth(const struct resize *r, const struct ew_general_args *a)
{
    const struct ew_type *const x = &a->in[0]->type;
    size_t most = 1;
    struct ew_type now = *x;
    double *src = a->scratch, *dst, *w;

    for (int d = 0; d < r->rank; d++) {
        const struct axis *const ax = &r->axis[d];

        most *= (size_t)(ax->in > ax->out ? ax->in : ax->out > 0 ? ax->out : 1);
    }
    dst = src + most;
    w = dst + most;
    ew_gen_load(src, EW_GEN_F64, a->in[0]->data, x->dtype, 0, 1, ew_gen_count(x));
    for (int d = 0; d < r->rank; d++) {
        double *const before = src;

        if (is_same(r, &r->axis[d]))
            continue;
        resize_axis(r, &r->axis[d], src, dst, (ptrdiff_t)ew_gen_product(&now, 0, d),
                    (ptrdiff_t)ew_gen_product(&now, d + 1, r->rank), w);
        now.dim[d] = r->axis[d].out;
        src = dst;
        dst = before;
    }
    store_all(a->out[0], src, ew_gen_count(&a->out[0]->type));
}

/* ---- the node ---- */

static ew_status read_axes(struct resize *r, const struct ew_general_args *a)
{
    const struct ew_type *const x = &a->in[0]->type;
    const struct ew_view *const sizes = a->n_in > 3 ? a->in[3] : NULL;
    const struct ew_view *const scales = a->n_in > 2 ? a->in[2] : NULL;
    const bool by_size = sizes && ew_gen_count(&sizes->type) > 0;
    int64_t want[EW_MAX_DIMS] = { 0 }, out[EW_MAX_DIMS];
    double scale[EW_MAX_DIMS];
    int axes[EW_MAX_DIMS], n;

    EW_TRY(ew_resize_axes(r->attr, r->rank, axes, &n, a->err));
    if (n > 0 && ew_gen_count(by_size ? &sizes->type : &scales->type) != (size_t)n)
        return ew_fail(a->err, EW_STATUS_MISMATCH, "%zu scales or sizes for %d axes",
                       ew_gen_count(by_size ? &sizes->type : &scales->type), n);
    for (int k = 0; k < n; k++) {
        if (by_size) {
            want[k] = ew_gen_int_at(sizes, (size_t)k);
            continue;
        }
        scale[k] = (double)((const float *)scales->data)[k];
        EW_TRY(ew_resize_from_scale(x->dim[axes[k]], scale[k], &out[k], a->err));
    }
    if (by_size)
        EW_TRY(ew_resize_from_sizes(r->attr, x, axes, n, want, out, scale, a->err));
    for (int k = 0; k < n; k++) {
        struct axis *const ax = &r->axis[axes[k]];

        if (out[k] != a->out[0]->type.dim[axes[k]])
            return ew_fail(a->err, EW_STATUS_MISMATCH, "axis %d becomes %lld, the output has %lld",
                           axes[k], (long long)out[k], (long long)a->out[0]->type.dim[axes[k]]);
        ax->scale = scale[k];
        if (r->attr->coord == EW_COORD_TF_CROP_AND_RESIZE) {
            ax->roi_start = ew_elem_get_f64(a->in[1]->data, a->in[1]->type.dtype, (size_t)k);
            ax->roi_end = ew_elem_get_f64(a->in[1]->data, a->in[1]->type.dtype, (size_t)(k + n));
        }
    }
    return EW_STATUS_OK;
}

ew_status ew_gen_resize(const struct ew_general_args *a)
{
    const struct ew_type *const x = &a->in[0]->type;
    struct resize r = { .attr = &a->attrs->resize, .rank = x->n_dims };

    for (int d = 0; d < x->n_dims; d++)
        r.axis[d] = (struct axis){ x->dim[d], a->out[0]->type.dim[d], 1, 0, 1 };
    EW_TRY(read_axes(&r, a));
    if (ew_gen_count(&a->out[0]->type) == 0)
        return EW_STATUS_OK;
    if (r.attr->mode == EW_RESIZE_NEAREST)
        run_nearest(&r, a);
    else
        run_smooth(&r, a);
    return EW_STATUS_OK;
}

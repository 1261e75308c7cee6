/* op/infer_nn_window.c - convolutions and pools: the geometry of sliding windows, and the types
 * they give. */
#include <string.h>

#include "base/size.h"
#include "op/infer_dtypes.h"
#include "op/infer_nn.h"

/* Attributes and sizes up to this multiply without overflow. */
#define SANE ((int64_t)1 << 30)

static int64_t at_or(const struct ew_ints *v, int i, int64_t fallback)
{
    return v && v->n > 0 ? v->v[i] : fallback;
}

static ew_status check_list(const struct ew_ints *v, const char *name, int want, int64_t least,
                            ew_error *err)
{
    if (!v || v->n == 0)
        return EW_STATUS_OK;
    if (v->n != want)
        return ew_fail(err, EW_STATUS_MISMATCH, "%s has %d values, %d are needed", name, (int)v->n,
                       want);
    for (int i = 0; i < v->n; i++)
        if (v->v[i] < least || v->v[i] > SANE)
            return ew_fail(err, EW_STATUS_MALFORMED, "%s[%d] is %lld, it must be %lld to %lld",
                           name, i, (long long)v->v[i], (long long)least, (long long)SANE);
    return EW_STATUS_OK;
}

/* Everything but out and automatic pads. */
static ew_status window_start(const struct ew_window_spec *spec, struct ew_window *w, ew_error *err)
{
    const bool own_pads = spec->auto_pad == EW_AUTO_PAD_NOTSET;

    memset(w, 0, sizeof(*w));
    w->n = spec->n;
    if (spec->auto_pad < EW_AUTO_PAD_NOTSET || spec->auto_pad > EW_AUTO_PAD_VALID)
        return ew_fail(err, EW_STATUS_MALFORMED, "auto_pad is %d", (int)spec->auto_pad);
    EW_TRY(check_list(spec->strides, "strides", w->n, 1, err));
    EW_TRY(check_list(spec->dilations, "dilations", w->n, 1, err));
    EW_TRY(check_list(spec->pads, "pads", 2 * w->n, 0, err));
    for (int d = 0; d < w->n; d++) {
        w->in[d] = spec->in[d];
        w->kernel[d] = spec->kernel[d];
        w->stride[d] = at_or(spec->strides, d, 1);
        w->dilation[d] = at_or(spec->dilations, d, 1);
        w->pad_begin[d] = own_pads ? at_or(spec->pads, d, 0) : 0;
        w->pad_end[d] = own_pads ? at_or(spec->pads, d + w->n, 0) : 0;
        if (w->kernel[d] < 1 || w->kernel[d] > SANE)
            return ew_fail(err, EW_STATUS_MALFORMED, "kernel dim %d is %lld, 1 to %lld is possible",
                           d, (long long)w->kernel[d], (long long)SANE);
        if (w->in[d] > SANE)
            return ew_fail(err, EW_STATUS_LIMIT, "spatial dim %d is %lld, at most %lld is possible",
                           d, (long long)w->in[d], (long long)SANE);
    }
    return EW_STATUS_OK;
}

static int64_t span_of(const struct ew_window *w, int d)
{
    return (w->kernel[d] - 1) * w->dilation[d] + 1;
}

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static ew_status resolve_symbolic(const struct ew_window_spec *spec, struct ew_symtab *syms,
                                  struct ew_window *w, int d, ew_error *err)
{
    const int64_t span = span_of(w, d), pads = w->pad_begin[d] + w->pad_end[d];
    const bool same =
        spec->auto_pad == EW_AUTO_PAD_SAME_UPPER || spec->auto_pad == EW_AUTO_PAD_SAME_LOWER;

    if (same)
        w->out[d] = ew_dim_div_ceil(syms, w->in[d], w->stride[d]);
    else if (!spec->ceil_mode)
        w->out[d] = ew_dim_add(
            syms, ew_dim_div(syms, ew_dim_add(syms, w->in[d], pads - span), w->stride[d]), 1);
    else if (w->stride[d] + w->pad_end[d] <= span)
        w->out[d] = ew_dim_add(
            syms, ew_dim_div_ceil(syms, ew_dim_add(syms, w->in[d], pads - span), w->stride[d]), 1);
    else /* the last window may be dropped: that has no expression */
        w->out[d] = ew_dim_unknown(syms);
    if (w->out[d] == EW_DIM_BAD)
        return ew_fail(err, EW_STATUS_LIMIT, "output size %d cannot be expressed", d);
    return EW_STATUS_OK;
}

ew_status ew_window_resolve(const struct ew_window_spec *spec, struct ew_symtab *syms,
                            struct ew_window *w, ew_error *err)
{
    const bool same =
        spec->auto_pad == EW_AUTO_PAD_SAME_UPPER || spec->auto_pad == EW_AUTO_PAD_SAME_LOWER;

    EW_TRY(window_start(spec, w, err));
    for (int d = 0; d < w->n; d++) {
        const int64_t in = w->in[d], s = w->stride[d], span = span_of(w, d);
        int64_t padded, room;

        if (in < 0) {
            EW_TRY(resolve_symbolic(spec, syms, w, d, err));
            continue;
        }
        if (same) {
            const int64_t out = ceil_div(in, s), need = (out - 1) * s + span - in;
            const int64_t pads = out > 0 && need > 0 ? need : 0;

            w->out[d] = out;
            w->pad_begin[d] = spec->auto_pad == EW_AUTO_PAD_SAME_UPPER ? pads / 2 : pads - pads / 2;
            w->pad_end[d] = pads - w->pad_begin[d];
            continue;
        }
        padded = in + w->pad_begin[d] + w->pad_end[d];
        if (padded < span)
            return ew_fail(err, EW_STATUS_MISMATCH,
                           "the kernel spans %lld in dim %d, the padded input has %lld",
                           (long long)span, d, (long long)padded);
        room = padded - span;
        w->out[d] = (spec->ceil_mode ? ceil_div(room, s) : room / s) + 1;
        if (spec->ceil_mode && (w->out[d] - 1) * s >= in + w->pad_begin[d])
            w->out[d]--; /* it would start in the padding at the end */
    }
    return EW_STATUS_OK;
}

static ew_status transposed_pads(const struct ew_window_spec *spec, struct ew_window *w, int d,
                                 int64_t extra, ew_error *err)
{
    const int64_t want = at_or(spec->output_shape, d, w->in[d] * w->stride[d]);
    const int64_t full = w->stride[d] * (w->in[d] - 1) + extra + span_of(w, d);
    const int64_t pads = full - want;

    /* an output that reaches past what the input covers is padding below zero: zeros at its end */
    if (want < 0 || want > SANE)
        return ew_fail(err, EW_STATUS_MALFORMED, "output_shape[%d] is %lld", d, (long long)want);
    w->out[d] = want;
    w->pad_begin[d] = spec->auto_pad == EW_AUTO_PAD_SAME_UPPER ? pads / 2 : pads - pads / 2;
    if (pads < 0)
        w->pad_begin[d] = 0;
    w->pad_end[d] = pads - w->pad_begin[d];
    return EW_STATUS_OK;
}

ew_status ew_window_resolve_transposed(const struct ew_window_spec *spec, struct ew_symtab *syms,
                                       struct ew_window *w, ew_error *err)
{
    const bool same =
        spec->auto_pad == EW_AUTO_PAD_SAME_UPPER || spec->auto_pad == EW_AUTO_PAD_SAME_LOWER;
    const bool shaped = spec->output_shape && spec->output_shape->n > 0;

    EW_TRY(window_start(spec, w, err));
    EW_TRY(check_list(spec->output_padding, "output_padding", w->n, 0, err));
    EW_TRY(check_list(spec->output_shape, "output_shape", w->n, 0, err));
    for (int d = 0; d < w->n; d++) {
        const int64_t extra = at_or(spec->output_padding, d, 0), span = span_of(w, d);
        const int64_t pads = w->pad_begin[d] + w->pad_end[d];

        if (extra >= w->stride[d] && extra >= w->dilation[d])
            return ew_fail(err, EW_STATUS_MALFORMED,
                           "output_padding[%d] is %lld, it must be below stride %lld or dilation",
                           d, (long long)extra, (long long)w->stride[d]);
        if (w->in[d] >= 0 && (same || shaped)) {
            EW_TRY(transposed_pads(spec, w, d, extra, err));
            continue;
        }
        if (shaped) {
            w->out[d] = spec->output_shape->v[d];
            continue;
        }
        if (same)
            w->out[d] = ew_dim_mul(syms, w->in[d], w->stride[d]);
        else
            w->out[d] =
                ew_dim_add(syms, ew_dim_mul(syms, ew_dim_sub(syms, w->in[d], 1), w->stride[d]),
                           extra + span - pads);
        if (w->in[d] == 0)
            w->out[d] = 0;
        if (w->out[d] == EW_DIM_BAD || (w->in[d] >= 0 && w->out[d] < 0))
            return ew_fail(err, EW_STATUS_MISMATCH,
                           "pads of %lld leave nothing of dim %d, the input has %lld",
                           (long long)pads, d, (long long)w->in[d]);
    }
    return EW_STATUS_OK;
}

ew_status ew_window_spec_conv(const struct ew_attr_conv *attr, const struct ew_type *x,
                              const struct ew_type *w, struct ew_window_spec *spec, ew_error *err)
{
    const struct ew_ints *const k = &attr->kernel_shape;

    if (x->n_dims < 3 || w->n_dims != x->n_dims)
        return ew_fail(err, EW_STATUS_MISMATCH, "the data has rank %d, the weights %d", x->n_dims,
                       w->n_dims);
    *spec = (struct ew_window_spec){ .n = x->n_dims - 2,
                                     .in = x->dim + 2,
                                     .kernel = w->dim + 2,
                                     .strides = &attr->strides,
                                     .pads = &attr->pads,
                                     .dilations = &attr->dilations,
                                     .output_padding = &attr->output_padding,
                                     .output_shape = &attr->output_shape,
                                     .auto_pad = attr->auto_pad };
    if (k->n > 0 && k->n != spec->n)
        return ew_fail(err, EW_STATUS_MISMATCH, "kernel_shape has %d values, %d are needed",
                       (int)k->n, spec->n);
    for (int d = 0; d < k->n; d++)
        if (k->v[d] != w->dim[d + 2])
            return ew_fail(err, EW_STATUS_MISMATCH,
                           "kernel_shape[%d] is %lld, the weights say %lld", d, (long long)k->v[d],
                           (long long)w->dim[d + 2]);
    return EW_STATUS_OK;
}

ew_status ew_window_spec_pool(const struct ew_attr_pool *attr, const struct ew_type *x,
                              struct ew_window_spec *spec, ew_error *err)
{
    if (x->n_dims < 3 || attr->kernel_shape.n != x->n_dims - 2)
        return ew_fail(err, EW_STATUS_MISMATCH, "the data has rank %d, kernel_shape %d values",
                       x->n_dims, (int)attr->kernel_shape.n);
    *spec = (struct ew_window_spec){ .n = x->n_dims - 2,
                                     .in = x->dim + 2,
                                     .kernel = attr->kernel_shape.v,
                                     .strides = &attr->strides,
                                     .pads = &attr->pads,
                                     .dilations = &attr->dilations,
                                     .auto_pad = attr->auto_pad,
                                     .ceil_mode = attr->ceil_mode };
    return EW_STATUS_OK;
}

/* ---- types ---- */

static ew_status check_bias(struct ew_infer *f, int64_t channels)
{
    const struct ew_type *b;

    if (!ew_infer_has(f, 2))
        return EW_STATUS_OK;
    b = f->in[2].type;
    EW_TRY(ew_infer_same_dtype(f, 0, 2));
    if (b->n_dims != 1 || (b->dim[0] >= 0 && channels >= 0 && b->dim[0] != channels))
        return ew_fail(f->err, EW_STATUS_MISMATCH,
                       "the bias has rank %d and dim %lld, there are %lld channels", b->n_dims,
                       (long long)(b->n_dims > 0 ? b->dim[0] : 0), (long long)channels);
    return EW_STATUS_OK;
}

static ew_status check_weights(struct ew_infer *f, struct ew_window_spec *spec)
{
    const struct ew_type *const w = f->in[1].type;

    EW_TRY(ew_infer_dtype_in(f, 0, EW_SET_FLOATS));
    EW_TRY(ew_infer_same_dtype(f, 0, 1));
    if (f->attrs->conv.group < 1)
        return ew_fail(f->err, EW_STATUS_MALFORMED, "group is %lld",
                       (long long)f->attrs->conv.group);
    EW_TRY(ew_window_spec_conv(&f->attrs->conv, f->in[0].type, w, spec, f->err));
    for (int d = 0; d < w->n_dims; d++)
        if (w->dim[d] < 0)
            return ew_fail(f->err, EW_STATUS_UNSUPPORTED, "dim %d of the weights is not a number",
                           d);
    return EW_STATUS_OK;
}

ew_status ew_infer_conv(struct ew_infer *f)
{
    const struct ew_type *const x = f->in[0].type, *const w = f->in[1].type;
    const int64_t group = f->attrs->conv.group;
    struct ew_window_spec spec;
    struct ew_window win;
    int64_t channels;

    EW_TRY(check_weights(f, &spec));
    if (!ew_i64_mul(w->dim[1], group, &channels) || (x->dim[1] >= 0 && channels != x->dim[1]))
        return ew_fail(f->err, EW_STATUS_MISMATCH,
                       "the data has %lld channels, the weights %lld in %lld groups",
                       (long long)x->dim[1], (long long)w->dim[1], (long long)group);
    if (w->dim[0] % group != 0)
        return ew_fail(f->err, EW_STATUS_MISMATCH, "%lld output channels in %lld groups",
                       (long long)w->dim[0], (long long)group);
    EW_TRY(check_bias(f, w->dim[0]));
    EW_TRY(ew_window_resolve(&spec, f->syms, &win, f->err));
    f->out[0] = *x;
    f->out[0].dim[1] = w->dim[0];
    memcpy(f->out[0].dim + 2, win.out, (size_t)win.n * sizeof(win.out[0]));
    return EW_STATUS_OK;
}

ew_status ew_infer_conv_transpose(struct ew_infer *f)
{
    const struct ew_type *const x = f->in[0].type, *const w = f->in[1].type;
    const int64_t group = f->attrs->conv.group;
    struct ew_window_spec spec;
    struct ew_window win;
    int64_t channels;

    EW_TRY(check_weights(f, &spec));
    if (x->dim[1] >= 0 && w->dim[0] != x->dim[1])
        return ew_fail(f->err, EW_STATUS_MISMATCH, "the data has %lld channels, the weights %lld",
                       (long long)x->dim[1], (long long)w->dim[0]);
    if (w->dim[0] % group != 0 || !ew_i64_mul(w->dim[1], group, &channels))
        return ew_fail(f->err, EW_STATUS_MISMATCH, "%lld input channels in %lld groups",
                       (long long)w->dim[0], (long long)group);
    EW_TRY(check_bias(f, channels));
    EW_TRY(ew_window_resolve_transposed(&spec, f->syms, &win, f->err));
    f->out[0] = *x;
    f->out[0].dim[1] = channels;
    memcpy(f->out[0].dim + 2, win.out, (size_t)win.n * sizeof(win.out[0]));
    return EW_STATUS_OK;
}

ew_status ew_infer_pool(struct ew_infer *f)
{
    const struct ew_type *const x = f->in[0].type;
    const bool is_max = f->op == EW_OP_MAX_POOL;
    struct ew_window_spec spec;
    struct ew_window win;

    EW_TRY(ew_infer_dtype_in(f, 0, EW_SET_FLOATS | (is_max ? EW_SET(I8) | EW_SET(U8) : 0)));
    EW_TRY(ew_window_spec_pool(&f->attrs->pool, x, &spec, f->err));
    EW_TRY(ew_window_resolve(&spec, f->syms, &win, f->err));
    for (int o = 0; o < f->n_out; o++) {
        f->out[o] = *x;
        memcpy(f->out[o].dim + 2, win.out, (size_t)win.n * sizeof(win.out[0]));
    }
    if (f->n_out > 1)
        f->out[1].dtype = EW_DTYPE_I64;
    return EW_STATUS_OK;
}

ew_status ew_infer_global_pool(struct ew_infer *f)
{
    const struct ew_type *const x = f->in[0].type;

    EW_TRY(ew_infer_dtype_in(f, 0, EW_SET_FLOATS));
    if (x->n_dims < 2)
        return ew_fail(f->err, EW_STATUS_MISMATCH, "rank is %d, 2 is the least", x->n_dims);
    f->out[0] = *x;
    for (int d = 2; d < x->n_dims; d++) {
        if (x->dim[d] == 0)
            return ew_fail(f->err, EW_STATUS_MISMATCH, "dim %d has 0 elements, 1 is needed", d);
        f->out[0].dim[d] = 1;
    }
    return EW_STATUS_OK;
}

/* kernels/ref/gen_nn_norm.c - LayerNormalization, RMSNormalization, Batch-, Group- and
 * InstanceNormalization, LpNormalization. Sums are doubles; values are f32, or f64 for f64 data,
 * and are rounded once, to the output. stash_type is the dtype of Mean and InvStdDev. */
#include <math.h>

#include "base/size.h"
#include "kernels/ref/gen_nn.h"

/* Sums of x and of (x - mean)^2, whatever the dtype. */
struct sums {
    double mean, var;
};

/* ---- rows ---- */

/* A row of the data, one of the scale, one of the bias. */
size_t ew_gen_row_norm_scratch(const struct ew_attr_norm *attr, const struct ew_type *x)
{
    const int axis = ew_gen_axis(attr->axis, x->n_dims);
    size_t n = 1;

    for (int d = axis; d < x->n_dims; d++)
        if (!ew_size_mul(n, (size_t)x->dim[d], &n))
            return SIZE_MAX;
    return ew_size_mul(n, 3 * sizeof(double), &n) ? n : SIZE_MAX;
}

/* Scale or bias, broadcast to the rows of x. */
struct affine {
    const struct ew_view *v;
    struct ew_gen_loop loop; /* of one row */
    ptrdiff_t stride[EW_MAX_DIMS];
    bool varies; /* from row to row */
    void *row;
};

static void affine_init(struct affine *w, const struct ew_view *v, const struct ew_type *x,
                        int axis, void *row)
{
    ptrdiff_t own[EW_GEN_MAX_DIMS], inner[1][EW_GEN_MAX_DIMS] = { { 0 } };

    w->v = v;
    w->row = row;
    w->varies = false;
    if (!v)
        return;
    ew_gen_strides(v->type.n_dims, v->type.dim, own);
    for (int d = 0; d < x->n_dims; d++) {
        const int k = d - (x->n_dims - v->type.n_dims);

        w->stride[d] = k >= 0 && v->type.dim[k] != 1 ? own[k] : 0;
        if (d < axis)
            w->varies = w->varies || w->stride[d] != 0;
        else
            inner[0][d - axis] = w->stride[d];
    }
    ew_gen_loop_init(&w->loop, 1, x->n_dims - axis, x->dim + axis,
                     (const ptrdiff_t(*)[EW_GEN_MAX_DIMS])inner);
}

static void affine_load(struct affine *w, const struct ew_type *x, int axis, ptrdiff_t row,
                        enum ew_gen_class c)
{
    const size_t width = ew_gen_class_bytes(c);
    char *dst = w->row;
    ptrdiff_t at = 0;

    if (!w->v || (row > 0 && !w->varies))
        return;
    for (int d = axis - 1; d >= 0; d--) {
        at += row % (ptrdiff_t)x->dim[d] * w->stride[d];
        row /= (ptrdiff_t)x->dim[d];
    }
    for (bool more = !w->loop.empty; more; more = ew_gen_loop_next(&w->loop)) {
        ew_gen_load(dst, c, w->v->data, w->v->type.dtype, at + w->loop.at[0], w->loop.step[0],
                    w->loop.inner);
        dst += w->loop.inner * width;
    }
}

#define ROW_NORM(name, T)                                                                          \
    static struct sums name(T *restrict v, const T *restrict scale, const T *restrict bias,        \
                            ptrdiff_t n, double eps, bool centred)                                 \
    {                                                                                              \
        struct sums s = { 0, 0 };                                                                  \
        T mean, inv;                                                                               \
                                                                                                   \
        for (ptrdiff_t i = 0; centred && i < n; i++)                                               \
            s.mean += (double)v[i];                                                                \
        s.mean /= (double)n;                                                                       \
        for (ptrdiff_t i = 0; i < n; i++)                                                          \
            s.var += ((double)v[i] - s.mean) * ((double)v[i] - s.mean);                            \
        s.var = 1 / sqrt(s.var / (double)n + eps);                                                 \
        mean = (T)s.mean;                                                                          \
        inv = (T)s.var;                                                                            \
        for (ptrdiff_t i = 0; i < n; i++)                                                          \
            v[i] = (v[i] - mean) * inv * scale[i];                                                 \
        for (ptrdiff_t i = 0; bias && i < n; i++)                                                  \
            v[i] += bias[i];                                                                       \
        return s; /* var is 1 / deviation now */                                                   \
    }

ROW_NORM(row_norm_f32, float)
ROW_NORM(row_norm_f64, double)

ew_status ew_gen_row_norm(const struct ew_general_args *a)
{
    const struct ew_view *const x = a->in[0];
    struct ew_view *const y = a->out[0];
    const enum ew_gen_class c = ew_gen_class_of(x->type.dtype);
    const size_t width = ew_gen_class_bytes(c);
    const int axis = ew_gen_axis(a->attrs->norm.axis, x->type.n_dims);
    const ptrdiff_t rows = (ptrdiff_t)ew_gen_product(&x->type, 0, axis);
    const ptrdiff_t n = (ptrdiff_t)ew_gen_product(&x->type, axis, x->type.n_dims);
    const double eps = (double)a->attrs->norm.epsilon;
    const bool centred = a->op == EW_OP_LAYER_NORM;
    char *const row = a->scratch;
    struct affine scale, bias;

    affine_init(&scale, a->in[1], &x->type, axis, row + (size_t)n * width);
    affine_init(&bias, a->n_in > 2 ? a->in[2] : NULL, &x->type, axis, row + 2 * (size_t)n * width);
    for (ptrdiff_t r = 0; r < rows; r++) {
        struct sums s;

        affine_load(&scale, &x->type, axis, r, c);
        affine_load(&bias, &x->type, axis, r, c);
        ew_gen_load(row, c, x->data, x->type.dtype, r * n, 1, (size_t)n);
        if (c == EW_GEN_F32)
            s = row_norm_f32((float *)row, scale.row, bias.v ? bias.row : NULL, n, eps, centred);
        else
            s = row_norm_f64((double *)row, scale.row, bias.v ? bias.row : NULL, n, eps, centred);
        if (y)
            ew_gen_store(y->data, y->type.dtype, r * n, 1, row, c, (size_t)n);
        if (a->n_out > 1 && a->out[1])
            ew_gen_store(a->out[1]->data, a->out[1]->type.dtype, r, 1, &s.mean, EW_GEN_F64, 1);
        if (a->n_out > 2 && a->out[2])
            ew_gen_store(a->out[2]->data, a->out[2]->type.dtype, r, 1, &s.var, EW_GEN_F64, 1);
    }
    return EW_STATUS_OK;
}

/* ---- channels ---- */

static double elem(const struct ew_view *v, ptrdiff_t i)
{
    double e;

    ew_gen_load(&e, EW_GEN_F64, v->data, v->type.dtype, i, 1, 1);
    return e;
}

static struct sums sums_of(const struct ew_view *x, ptrdiff_t at, ptrdiff_t n)
{
    struct sums s = { 0, 0 };
    union ew_gen_block b;

    for (int pass = 0; pass < 2; pass++) {
        double sum = 0;

        for (ptrdiff_t i = 0; i < n; i += EW_GEN_BLOCK) {
            const size_t len = (size_t)(n - i < EW_GEN_BLOCK ? n - i : EW_GEN_BLOCK);

            ew_gen_load(&b, EW_GEN_F64, x->data, x->type.dtype, at + i, 1, len);
            for (size_t k = 0; k < len; k++)
                sum += pass == 0 ? b.f64[k] : (b.f64[k] - s.mean) * (b.f64[k] - s.mean);
        }
        if (pass == 0)
            s.mean = sum / (double)n;
        else
            s.var = sum / (double)n;
    }
    return s;
}

/* y = x * mul + add over n neighbours. */
static void affine_run(const struct ew_view *x, struct ew_view *y, ptrdiff_t at, ptrdiff_t n,
                       double mul, double add)
{
    union ew_gen_block b;

    for (ptrdiff_t i = 0; i < n; i += EW_GEN_BLOCK) {
        const size_t len = (size_t)(n - i < EW_GEN_BLOCK ? n - i : EW_GEN_BLOCK);

        ew_gen_load(&b, EW_GEN_F64, x->data, x->type.dtype, at + i, 1, len);
        for (size_t k = 0; k < len; k++)
            b.f64[k] = b.f64[k] * mul + add;
        ew_gen_store(y->data, y->type.dtype, at + i, 1, &b, EW_GEN_F64, len);
    }
}

ew_status ew_gen_channel_norm(const struct ew_general_args *a)
{
    const struct ew_view *const x = a->in[0];
    const ptrdiff_t channels = x->type.n_dims > 1 ? (ptrdiff_t)x->type.dim[1] : 1;
    const ptrdiff_t batch = x->type.n_dims > 0 ? (ptrdiff_t)x->type.dim[0] : 1;
    const ptrdiff_t inner = (ptrdiff_t)ew_gen_product(&x->type, 2, x->type.n_dims);
    const ptrdiff_t per = a->op == EW_OP_GROUP_NORM
                              ? channels / (ptrdiff_t)a->attrs->norm.num_groups
                              : 1; /* channels that share statistics */
    const double eps = (double)a->attrs->norm.epsilon;

    for (ptrdiff_t g = 0; inner > 0 && per > 0 && g < batch * channels / per; g++) {
        struct sums s = { 0, 0 };

        if (a->op != EW_OP_BATCH_NORM)
            s = sums_of(x, g * per * inner, per * inner);
        for (ptrdiff_t k = g * per; k < (g + 1) * per; k++) {
            const ptrdiff_t ch = k % channels;
            double mul;

            if (a->op == EW_OP_BATCH_NORM) {
                s.mean = elem(a->in[3], ch);
                s.var = elem(a->in[4], ch);
            }
            mul = elem(a->in[1], ch) / sqrt(s.var + eps);
            affine_run(x, a->out[0], k * inner, inner, mul, elem(a->in[2], ch) - s.mean * mul);
        }
    }
    return EW_STATUS_OK;
}

ew_status ew_gen_lp_norm(const struct ew_general_args *a)
{
    const struct ew_view *const x = a->in[0];
    struct ew_view *const y = a->out[0];
    const bool is_l1 = a->attrs->lp_norm.p == 1;
    const int axis = ew_gen_axis(a->attrs->lp_norm.axis, x->type.n_dims);
    const ptrdiff_t d = (ptrdiff_t)x->type.dim[axis];
    const ptrdiff_t inner = (ptrdiff_t)ew_gen_product(&x->type, axis + 1, x->type.n_dims);
    const ptrdiff_t lanes = (ptrdiff_t)ew_gen_product(&x->type, 0, axis) * inner;

    for (ptrdiff_t lane = 0; lane < lanes && d > 0; lane++) {
        const ptrdiff_t at = lane / inner * d * inner + lane % inner;
        double norm = 0;

        for (ptrdiff_t i = 0; i < d; i++) {
            const double v = elem(x, at + i * inner);

            norm += is_l1 ? fabs(v) : v * v;
        }
        norm = is_l1 ? norm : sqrt(norm);
        for (ptrdiff_t i = 0; i < d; i++) { /* 0 / 0 is 0 here */
            const double v = norm == 0 ? 0 : elem(x, at + i * inner) / norm;

            ew_gen_store(y->data, y->type.dtype, at + i * inner, 1, &v, EW_GEN_F64, 1);
        }
    }
    return EW_STATUS_OK;
}

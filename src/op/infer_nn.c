/* op/infer_nn.c - types of products and norms, and the dispatch of group nn. Windows, Attention,
 * Einsum, Resize and quantisation are in infer_nn_<what>.c. */
#include "op/infer_dtypes.h"
#include "op/infer_nn.h"

#define SET_PRODUCT EW_SET_WIDE

/* ---- products ---- */

static ew_status check_inner(struct ew_infer *f, int64_t a, int64_t b)
{
    if (a >= 0 && b >= 0 && a != b)
        return ew_fail(f->err, EW_STATUS_MISMATCH, "inner dims are %lld and %lld", (long long)a,
                       (long long)b);
    return EW_STATUS_OK;
}

/* numpy's matmul: 1-D operands are a row and a column that leave no dim behind. */
static ew_status product_shape(struct ew_infer *f, ew_dtype dtype)
{
    const struct ew_type *const a = f->in[0].type, *const b = f->in[1].type;
    struct ew_type batch_a = *a, batch_b = *b, y;

    if (a->n_dims < 1 || b->n_dims < 1)
        return ew_fail(f->err, EW_STATUS_MISMATCH, "ranks are %d and %d, 1 is the least", a->n_dims,
                       b->n_dims);
    EW_TRY(check_inner(f, a->dim[a->n_dims - 1], b->dim[b->n_dims < 2 ? 0 : b->n_dims - 2]));
    batch_a.n_dims = a->n_dims < 2 ? 0 : a->n_dims - 2;
    batch_b.n_dims = b->n_dims < 2 ? 0 : b->n_dims - 2;
    EW_TRY(ew_infer_broadcast(f, &batch_a, &batch_b, &y));
    if (a->n_dims > 1)
        y.dim[y.n_dims++] = a->dim[a->n_dims - 2];
    if (b->n_dims > 1)
        y.dim[y.n_dims++] = b->dim[b->n_dims - 1];
    y.dtype = dtype;
    f->out[0] = y;
    return EW_STATUS_OK;
}

static ew_status infer_matmul(struct ew_infer *f)
{
    EW_TRY(ew_infer_dtype_in(f, 0, SET_PRODUCT));
    EW_TRY(ew_infer_same_dtype(f, 0, 1));
    return product_shape(f, f->in[0].type->dtype);
}

/* A zero point is one number, or one for each row of A or column of B. */
static ew_status check_zero_point(struct ew_infer *f, int i, int64_t n, const struct ew_type *of)
{
    const struct ew_type *z;

    if (!ew_infer_has(f, i))
        return EW_STATUS_OK;
    z = f->in[i].type;
    EW_TRY(ew_infer_same_dtype(f, i, i - 2));
    if (z->n_dims == 0 || (z->n_dims == 1 && z->dim[0] == 1))
        return EW_STATUS_OK;
    if (z->n_dims == 1 && of->n_dims > 1 && (z->dim[0] < 0 || n < 0 || z->dim[0] == n))
        return EW_STATUS_OK;
    return ew_fail(f->err, EW_STATUS_UNSUPPORTED,
                   "zero point %d has rank %d and %lld elements; 1 or %lld in one dim are taken", i,
                   z->n_dims, (long long)z->dim[0], (long long)n);
}

static ew_status infer_matmul_integer(struct ew_infer *f)
{
    const struct ew_type *const a = f->in[0].type, *const b = f->in[1].type;

    for (int i = 0; i < 2; i++)
        EW_TRY(ew_infer_dtype_in(f, i, EW_SET(I8) | EW_SET(U8)));
    EW_TRY(product_shape(f, EW_DTYPE_I32));
    EW_TRY(check_zero_point(f, 2, a->n_dims > 1 ? a->dim[a->n_dims - 2] : 1, a));
    return check_zero_point(f, 3, b->n_dims > 1 ? b->dim[b->n_dims - 1] : 1, b);
}

static ew_status infer_gemm(struct ew_infer *f)
{
    const struct ew_attr_gemm *const attr = &f->attrs->gemm;
    const struct ew_type *const a = f->in[0].type, *const b = f->in[1].type;
    struct ew_type y = { .dtype = a->dtype, .n_dims = 2 }, with_c;

    EW_TRY(ew_infer_dtype_in(f, 0, SET_PRODUCT));
    EW_TRY(ew_infer_same_dtype(f, 0, 1));
    if (a->n_dims != 2 || b->n_dims != 2)
        return ew_fail(f->err, EW_STATUS_MISMATCH, "ranks are %d and %d, both must be 2", a->n_dims,
                       b->n_dims);
    EW_TRY(check_inner(f, a->dim[attr->trans_a ? 0 : 1], b->dim[attr->trans_b ? 1 : 0]));
    y.dim[0] = a->dim[attr->trans_a ? 1 : 0];
    y.dim[1] = b->dim[attr->trans_b ? 0 : 1];
    f->out[0] = y;
    if (!ew_infer_has(f, 2))
        return EW_STATUS_OK;
    EW_TRY(ew_infer_same_dtype(f, 0, 2));
    if (f->in[2].type->n_dims > 2)
        return ew_fail(f->err, EW_STATUS_MISMATCH, "C has rank %d, at most 2 is possible",
                       f->in[2].type->n_dims);
    EW_TRY(ew_infer_broadcast(f, &y, f->in[2].type, &with_c));
    for (int d = 0; d < 2; d++)
        if (y.dim[d] >= 0 && with_c.dim[d] >= 0 && with_c.dim[d] != y.dim[d])
            return ew_fail(f->err, EW_STATUS_MISMATCH, "C has dim %lld where the product has %lld",
                           (long long)with_c.dim[d], (long long)y.dim[d]);
    return EW_STATUS_OK;
}

/* ---- norms ---- */

static ew_status check_epsilon(struct ew_infer *f)
{
    const float eps = f->attrs->norm.epsilon;

    if (!(eps >= 0) || eps > 1e30f)
        return ew_fail(f->err, EW_STATUS_MALFORMED, "epsilon is %g", (double)eps);
    return EW_STATUS_OK;
}

/* Input i must broadcast to x without changing it. */
static ew_status check_scale(struct ew_infer *f, int i)
{
    const struct ew_type *const x = f->in[0].type, *const s = f->in[i].type;

    EW_TRY(ew_infer_dtype_in(f, i, EW_SET_FLOATS));
    if (s->n_dims > x->n_dims)
        return ew_fail(f->err, EW_STATUS_MISMATCH, "input %d has rank %d, the data has %d", i,
                       s->n_dims, x->n_dims);
    for (int d = 0; d < s->n_dims; d++) {
        const int64_t have = s->dim[d], want = x->dim[x->n_dims - s->n_dims + d];

        if (have >= 0 && have != 1 && want >= 0 && have != want)
            return ew_fail(f->err, EW_STATUS_MISMATCH, "input %d has dim %lld, the data has %lld",
                           i, (long long)have, (long long)want);
    }
    return EW_STATUS_OK;
}

static ew_status infer_row_norm(struct ew_infer *f)
{
    const struct ew_attr_norm *const attr = &f->attrs->norm;
    const struct ew_type *const x = f->in[0].type;
    int axis;

    EW_TRY(ew_infer_dtype_in(f, 0, EW_SET_FLOATS));
    EW_TRY(ew_infer_axis(f, attr->axis, x->n_dims, &axis));
    EW_TRY(check_epsilon(f));
    if (attr->stash_type <= EW_DTYPE_NONE || attr->stash_type > EW_DTYPE_F64)
        return ew_fail(f->err, EW_STATUS_UNSUPPORTED, "stash_type %d is not a float of 16 or more",
                       attr->stash_type);
    for (int i = 1; i < f->n_in; i++)
        if (f->in[i].type)
            EW_TRY(check_scale(f, i));
    f->out[0] = *x;
    for (int o = 1; o < f->n_out; o++) {
        f->out[o] = *x;
        f->out[o].dtype = (ew_dtype)attr->stash_type;
        for (int d = axis; d < x->n_dims; d++)
            f->out[o].dim[d] = 1;
    }
    return EW_STATUS_OK;
}

/* Batch, Group and InstanceNormalization: every other input is [C]. */
static ew_status infer_channel_norm(struct ew_infer *f)
{
    const struct ew_type *const x = f->in[0].type;
    const int64_t groups = f->attrs->norm.num_groups;
    const bool batch = f->op == EW_OP_BATCH_NORM;
    int64_t channels;

    EW_TRY(ew_infer_dtype_in(f, 0, EW_SET_FLOATS));
    EW_TRY(check_epsilon(f));
    if (x->n_dims < (batch ? 1 : 2))
        return ew_fail(f->err, EW_STATUS_MISMATCH, "rank is %d, %d is the least", x->n_dims,
                       batch ? 1 : 2);
    channels = x->n_dims > 1 ? x->dim[1] : 1;
    for (int i = 1; i < f->n_in; i++) {
        const struct ew_type *const t = f->in[i].type;

        EW_TRY(ew_infer_dtype_in(f, i, EW_SET_FLOATS));
        if (t->n_dims != 1 || (t->dim[0] >= 0 && channels >= 0 && t->dim[0] != channels))
            return ew_fail(f->err, EW_STATUS_MISMATCH,
                           "input %d has rank %d and dim %lld; there are %lld channels", i,
                           t->n_dims, (long long)(t->n_dims > 0 ? t->dim[0] : 0),
                           (long long)channels);
    }
    if (f->op == EW_OP_GROUP_NORM && (groups < 1 || (channels >= 0 && channels % groups != 0)))
        return ew_fail(f->err, EW_STATUS_MISMATCH, "num_groups is %lld, there are %lld channels",
                       (long long)groups, (long long)channels);
    f->out[0] = *x;
    return EW_STATUS_OK;
}

static ew_status infer_lp_norm(struct ew_infer *f)
{
    const int64_t p = f->attrs->lp_norm.p;
    int axis;

    EW_TRY(ew_infer_dtype_in(f, 0, EW_SET_FLOATS));
    EW_TRY(ew_infer_axis(f, f->attrs->lp_norm.axis, f->in[0].type->n_dims, &axis));
    if (p != 1 && p != 2)
        return ew_fail(f->err, EW_STATUS_UNSUPPORTED, "p is %lld, 1 and 2 are supported",
                       (long long)p);
    f->out[0] = *f->in[0].type;
    return EW_STATUS_OK;
}

ew_status ew_infer_nn(struct ew_infer *f)
{
    static ew_infer_fn *const fns[EW_OP_COUNT] = {
        [EW_OP_ATTENTION] = ew_infer_attention,
        [EW_OP_AVERAGE_POOL] = ew_infer_pool,
        [EW_OP_BATCH_NORM] = infer_channel_norm,
        [EW_OP_BLOCK_QUANTIZE] = ew_infer_block_quantize,
        [EW_OP_CONV] = ew_infer_conv,
        [EW_OP_CONV_TRANSPOSE] = ew_infer_conv_transpose,
        [EW_OP_DEQUANTIZE_LINEAR] = ew_infer_dequantize,
        [EW_OP_DYNAMIC_QUANTIZE_LINEAR] = ew_infer_dynamic_quantize,
        [EW_OP_EINSUM] = ew_infer_einsum,
        [EW_OP_GEMM] = infer_gemm,
        [EW_OP_GLOBAL_AVERAGE_POOL] = ew_infer_global_pool,
        [EW_OP_GLOBAL_MAX_POOL] = ew_infer_global_pool,
        [EW_OP_GROUP_NORM] = infer_channel_norm,
        [EW_OP_INSTANCE_NORM] = infer_channel_norm,
        [EW_OP_LAYER_NORM] = infer_row_norm,
        [EW_OP_LP_NORM] = infer_lp_norm,
        [EW_OP_MATMUL] = infer_matmul,
        [EW_OP_MATMUL_INTEGER] = infer_matmul_integer,
        [EW_OP_MAX_POOL] = ew_infer_pool,
        [EW_OP_QUANTIZE_LINEAR] = ew_infer_quantize,
        [EW_OP_RESIZE] = ew_infer_resize,
        [EW_OP_RMS_NORM] = infer_row_norm,
        [EW_OP_ROTARY_EMBEDDING] = ew_infer_rotary,
    };

    if (!fns[f->op])
        return ew_fail(f->err, EW_STATUS_UNSUPPORTED, "%s has no inference",
                       ew_op_get(f->op)->name);
    return fns[f->op](f);
}

/* kernels/ref/gen_reduce.c - the Reduce* ops: sums, products and extremes over any set of axes.
 * Floats accumulate in double, integers in 64 bits with wrap-around. Scans and rows are in
 * gen_scan.c. */
#include <math.h>
#include <string.h>

#include "kernels/ref/gen_common.h"

union accumulator {
    double f;
    int64_t i;
    uint64_t u;
};

/* Folds n values of a block into *acc. */
typedef void fold_fn(union accumulator *acc, const union ew_gen_block *b, size_t n);

#define FOLD(name, member, expr)                                                                   \
    static void name(union accumulator *acc, const union ew_gen_block *b, size_t n)                \
    {                                                                                              \
        for (size_t k = 0; k < n; k++)                                                             \
            acc->member = (expr);                                                                  \
    }

/* clang-format off */
FOLD(sum_f64, f, acc->f + b->f64[k])
FOLD(sum_u64, u, acc->u + b->u64[k])
FOLD(prod_f64, f, acc->f * b->f64[k])
FOLD(prod_u64, u, acc->u * b->u64[k])
FOLD(abs_f64, f, acc->f + fabs(b->f64[k]))
FOLD(abs_i64, u, acc->u + (b->i64[k] < 0 ? 0 - b->u64[k] : b->u64[k]))
FOLD(square_f64, f, acc->f + b->f64[k] * b->f64[k])
FOLD(square_u64, u, acc->u + b->u64[k] * b->u64[k])
FOLD(max_f64, f, b->f64[k] > acc->f || b->f64[k] != b->f64[k] ? b->f64[k] : acc->f)
FOLD(max_i64, i, b->i64[k] > acc->i ? b->i64[k] : acc->i)
FOLD(max_u64, u, b->u64[k] > acc->u ? b->u64[k] : acc->u)
FOLD(min_f64, f, b->f64[k] < acc->f || b->f64[k] != b->f64[k] ? b->f64[k] : acc->f)
FOLD(min_i64, i, b->i64[k] < acc->i ? b->i64[k] : acc->i)
FOLD(min_u64, u, b->u64[k] < acc->u ? b->u64[k] : acc->u)
/* clang-format on */

struct reduce_row {
    fold_fn *fold[EW_GEN_CLASSES];
    bool in_f64; /* integers too are taken as doubles */
};

/* clang-format off */
static const struct reduce_row k_reduce[EW_OP_COUNT] = {
    [EW_OP_REDUCE_L1] = { { NULL, abs_f64, abs_i64, sum_u64 }, false },
    [EW_OP_REDUCE_L2] = { { NULL, square_f64, NULL, NULL }, true },
    [EW_OP_REDUCE_LOG_SUM] = { { NULL, sum_f64, NULL, NULL }, true },
    [EW_OP_REDUCE_LOG_SUM_EXP] = { { NULL, max_f64, NULL, NULL }, true }, /* its first pass */
    [EW_OP_REDUCE_MAX] = { { NULL, max_f64, max_i64, max_u64 }, false },
    [EW_OP_REDUCE_MEAN] = { { NULL, sum_f64, sum_u64, sum_u64 }, false },
    [EW_OP_REDUCE_MIN] = { { NULL, min_f64, min_i64, min_u64 }, false },
    [EW_OP_REDUCE_PROD] = { { NULL, prod_f64, prod_u64, prod_u64 }, false },
    [EW_OP_REDUCE_SUM] = { { NULL, sum_f64, sum_u64, sum_u64 }, false },
    [EW_OP_REDUCE_SUM_SQUARE] = { { NULL, square_f64, square_u64, square_u64 }, false },
};
/* clang-format on */

/* What a reduction of nothing gives. */
static union accumulator identity_of(ew_op op, enum ew_gen_class c, ew_dtype d)
{
    const unsigned bits = ew_dtype_bits(d);
    const bool is_max = op == EW_OP_REDUCE_MAX || op == EW_OP_REDUCE_LOG_SUM_EXP;
    union accumulator acc = { .u = 0 };

    if (op == EW_OP_REDUCE_PROD) {
        if (c == EW_GEN_F64)
            acc.f = 1;
        else
            acc.u = 1;
    } else if (is_max || op == EW_OP_REDUCE_MIN) {
        const int64_t highest = (int64_t)(UINT64_MAX >> (65 - bits));

        if (c == EW_GEN_F64)
            acc.f = is_max ? -INFINITY : INFINITY;
        else if (c == EW_GEN_I64)
            acc.i = is_max ? -highest - 1 : highest;
        else
            acc.u = is_max ? 0 : UINT64_MAX;
    } else if (c == EW_GEN_F64) {
        acc.f = 0;
    }
    return acc;
}

struct reduction {
    const struct ew_view *x;
    enum ew_gen_class c;
    struct ew_gen_loop loop; /* over what one output element reduces */
};

static void fold_all(struct reduction *r, ptrdiff_t base, fold_fn *fold, union accumulator *acc)
{
    union ew_gen_block b;

    for (bool more = !r->loop.empty; more; more = ew_gen_loop_next(&r->loop)) {
        for (size_t i = 0; i < r->loop.inner; i += EW_GEN_BLOCK) {
            const size_t left = r->loop.inner - i;
            const size_t n = left < EW_GEN_BLOCK ? left : EW_GEN_BLOCK;

            ew_gen_load(&b, r->c, r->x->data, r->x->type.dtype,
                        base + r->loop.at[0] + (ptrdiff_t)i * r->loop.step[0], r->loop.step[0], n);
            fold(acc, &b, n);
        }
    }
}

/* log(sum(exp(x))), shifted by the largest so that nothing overflows. */
static double log_sum_exp(struct reduction *r, ptrdiff_t base, double highest)
{
    double sum = 0;
    union ew_gen_block b;

    if (isinf(highest) || highest != highest)
        return highest;
    for (bool more = !r->loop.empty; more; more = ew_gen_loop_next(&r->loop)) {
        for (size_t i = 0; i < r->loop.inner; i += EW_GEN_BLOCK) {
            const size_t left = r->loop.inner - i;
            const size_t n = left < EW_GEN_BLOCK ? left : EW_GEN_BLOCK;

            ew_gen_load(&b, EW_GEN_F64, r->x->data, r->x->type.dtype,
                        base + r->loop.at[0] + (ptrdiff_t)i * r->loop.step[0], r->loop.step[0], n);
            for (size_t k = 0; k < n; k++)
                sum += exp(b.f64[k] - highest);
        }
    }
    return highest + log(sum);
}

static void finish(ew_op op, enum ew_gen_class c, int64_t count, union accumulator *acc)
{
    if (op == EW_OP_REDUCE_L2) {
        acc->f = sqrt(acc->f);
    } else if (op == EW_OP_REDUCE_LOG_SUM) {
        acc->f = log(acc->f);
    } else if (op == EW_OP_REDUCE_MEAN) {
        if (c == EW_GEN_F64)
            acc->f /= (double)count;
        else if (count == 0)
            acc->u = 0;
        else if (c == EW_GEN_I64)
            acc->i /= count;
        else
            acc->u /= (uint64_t)count;
    }
}

/* Which axes go: bit d of *mask. */
static ew_status axes_of(const struct ew_general_args *a, unsigned *mask)
{
    const struct ew_view *const axes = a->n_in > 1 ? a->in[1] : NULL;
    const int rank = a->in[0]->type.n_dims;
    const size_t n = axes ? ew_gen_count(&axes->type) : 0;

    *mask = n == 0 && !a->attrs->reduce.noop_with_empty_axes ? (1u << rank) - 1 : 0;
    for (size_t i = 0; i < n; i++) {
        const int64_t axis = ew_gen_int_at(axes, i);

        if (axis < -rank || axis >= rank)
            return ew_fail(a->err, EW_STATUS_MALFORMED, "axis is %lld, rank is %d", (long long)axis,
                           rank);
        *mask |= 1u << ew_gen_axis(axis, rank);
    }
    return EW_STATUS_OK;
}

static ew_status reduce_run(const struct ew_general_args *a)
{
    const struct ew_view *const x = a->in[0];
    struct ew_view *const y = a->out[0];
    const struct reduce_row *const row = &k_reduce[a->op];
    struct reduction r = { .x = x, .c = ew_gen_class_of(x->type.dtype) };
    int64_t kept[EW_MAX_DIMS], gone[EW_MAX_DIMS];
    ptrdiff_t own[EW_GEN_MAX_DIMS];
    ptrdiff_t kept_stride[2][EW_GEN_MAX_DIMS], gone_stride[1][EW_GEN_MAX_DIMS];
    int n_kept = 0, n_gone = 0;
    int64_t count = 1;
    struct ew_gen_loop l;
    unsigned mask;

    if (row->in_f64 || r.c == EW_GEN_F32)
        r.c = EW_GEN_F64;
    if (!row->fold[r.c])
        return ew_gen_refuse(a, x->type.dtype);
    EW_TRY(axes_of(a, &mask));
    ew_gen_strides(x->type.n_dims, x->type.dim, own);
    for (int d = 0; d < x->type.n_dims; d++) {
        if (mask >> d & 1) {
            gone[n_gone] = x->type.dim[d];
            gone_stride[0][n_gone++] = own[d];
            count *= x->type.dim[d];
        } else {
            kept[n_kept] = x->type.dim[d];
            kept_stride[1][n_kept++] = own[d];
        }
    }
    ew_gen_strides(n_kept, kept, kept_stride[0]);
    ew_gen_loop_init(&l, 2, n_kept, kept, (const ptrdiff_t(*)[EW_GEN_MAX_DIMS])kept_stride);
    ew_gen_loop_init(&r.loop, 1, n_gone, gone, (const ptrdiff_t(*)[EW_GEN_MAX_DIMS])gone_stride);
    if (!l.empty &&
        ew_gen_product(&y->type, 0, y->type.n_dims) * count !=
            ew_gen_product(&x->type, 0, x->type.n_dims) &&
        count != 0)
        return ew_fail(a->err, EW_STATUS_MISMATCH, "axes do not fit the shape of the output");
    for (bool more = !l.empty; more; more = ew_gen_loop_next(&l)) {
        for (ptrdiff_t i = 0; i < (ptrdiff_t)l.inner; i++) {
            const ptrdiff_t base = l.at[1] + i * l.step[1];
            union accumulator acc = identity_of(a->op, r.c, x->type.dtype);

            fold_all(&r, base, row->fold[r.c], &acc);
            if (a->op == EW_OP_REDUCE_LOG_SUM_EXP)
                acc.f = log_sum_exp(&r, base, acc.f);
            finish(a->op, r.c, count, &acc);
            ew_gen_store(y->data, y->type.dtype, l.at[0] + i, 1, &acc, r.c, 1);
        }
    }
    return EW_STATUS_OK;
}

ew_status ew_general_reduce__ref(const struct ew_general_args *a)
{
    switch (a->op) {
    case EW_OP_ARG_MAX:
    case EW_OP_ARG_MIN:
        return ew_gen_arg(a);
    case EW_OP_CUM_SUM:
        return ew_gen_cum_sum(a);
    case EW_OP_SOFTMAX:
    case EW_OP_LOG_SOFTMAX:
    case EW_OP_HARDMAX:
        return ew_gen_softmax(a);
    case EW_OP_TOP_K:
        return ew_gen_top_k(a);
    default:
        return reduce_run(a);
    }
}

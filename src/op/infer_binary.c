/* op/infer_binary.c - types of elementwise ops with broadcasting. */
#include "base/size.h"
#include "op/infer_dtypes.h"

static const struct {
    ew_op op;
    uint32_t dtypes;
    bool to_bool;
} k_binary[] = {
    { EW_OP_ADD, EW_SET_NUMBERS, false },
    { EW_OP_AND, EW_SET(BOOL), true },
    { EW_OP_BITWISE_AND, EW_SET_INTS, false },
    { EW_OP_BITWISE_OR, EW_SET_INTS, false },
    { EW_OP_BITWISE_XOR, EW_SET_INTS, false },
    { EW_OP_BIT_SHIFT, EW_SET_UNSIGNED, false },
    { EW_OP_DIV, EW_SET_NUMBERS, false },
    { EW_OP_EQUAL, EW_SET_NUMBERS | EW_SET(BOOL), true },
    { EW_OP_GREATER, EW_SET_NUMBERS, true },
    { EW_OP_GREATER_OR_EQUAL, EW_SET_NUMBERS, true },
    { EW_OP_LESS, EW_SET_NUMBERS, true },
    { EW_OP_LESS_OR_EQUAL, EW_SET_NUMBERS, true },
    { EW_OP_MAX, EW_SET_NUMBERS, false },
    { EW_OP_MEAN, EW_SET_FLOATS, false },
    { EW_OP_MIN, EW_SET_NUMBERS, false },
    { EW_OP_MOD, EW_SET_NUMBERS, false },
    { EW_OP_MUL, EW_SET_NUMBERS, false },
    { EW_OP_OR, EW_SET(BOOL), true },
    { EW_OP_POW, EW_SET_FLOATS | EW_SET(I32) | EW_SET(I64), false },
    { EW_OP_PRELU, EW_SET_WIDE, false },
    { EW_OP_SUB, EW_SET_NUMBERS, false },
    { EW_OP_SUM, EW_SET_FLOATS, false },
    { EW_OP_XOR, EW_SET(BOOL), true },
};

static ew_status infer_where(struct ew_infer *f)
{
    struct ew_type t;

    EW_TRY(ew_infer_dtype_in(f, 0, EW_SET(BOOL)));
    EW_TRY(ew_infer_dtype_in(f, 1, EW_SET_WHOLE_BYTES));
    EW_TRY(ew_infer_same_dtype(f, 1, 2));
    EW_TRY(ew_infer_broadcast(f, f->in[1].type, f->in[2].type, &t));
    EW_TRY(ew_infer_broadcast(f, &t, f->in[0].type, &t));
    t.dtype = f->in[1].type->dtype;
    f->out[0] = t;
    return EW_STATUS_OK;
}

/* PRelu's slope broadcasts to x, never the other way. */
static ew_status check_slope(struct ew_infer *f)
{
    const struct ew_type *const x = f->in[0].type, *const slope = f->in[1].type;

    if (slope->n_dims > x->n_dims)
        return ew_fail(f->err, EW_STATUS_MISMATCH, "slope has rank %d, input has %d", slope->n_dims,
                       x->n_dims);
    for (int d = 0; d < slope->n_dims; d++) {
        const int64_t dim = x->dim[d + x->n_dims - slope->n_dims];

        if (slope->dim[d] >= 0 && dim >= 0 && slope->dim[d] != 1 && slope->dim[d] != dim)
            return ew_fail(f->err, EW_STATUS_MISMATCH, "slope has dim %lld, input has %lld",
                           (long long)slope->dim[d], (long long)dim);
    }
    return EW_STATUS_OK;
}

ew_status ew_infer_binary(struct ew_infer *f)
{
    const ew_dtype dtype = f->in[0].type->dtype;
    size_t row = 0;
    struct ew_type t = *f->in[0].type;

    if (f->op == EW_OP_WHERE)
        return infer_where(f);
    while (row < EW_COUNT(k_binary) && k_binary[row].op != f->op)
        row++;
    if (row == EW_COUNT(k_binary))
        return ew_fail(f->err, EW_STATUS_UNSUPPORTED, "%s has no rule", ew_op_get(f->op)->name);
    EW_TRY(ew_infer_dtype_in(f, 0, k_binary[row].dtypes));
    if (f->op == EW_OP_MOD && !f->attrs->mod.fmod && ew_dtype_is_float(dtype))
        return ew_fail(f->err, EW_STATUS_MALFORMED, "Mod of %s has fmod 0, it must be 1",
                       ew_dtype_text(dtype));
    if (f->op == EW_OP_PRELU)
        EW_TRY(check_slope(f));
    for (int i = 1; i < f->n_in; i++) {
        if (f->op == EW_OP_POW)
            EW_TRY(ew_infer_dtype_in(f, i, EW_SET_NUMBERS));
        else
            EW_TRY(ew_infer_same_dtype(f, 0, i));
        EW_TRY(ew_infer_broadcast(f, &t, f->in[i].type, &t));
    }
    if (f->op == EW_OP_PRELU)
        t = *f->in[0].type;
    t.dtype = k_binary[row].to_bool ? EW_DTYPE_BOOL : dtype;
    f->out[0] = t;
    return EW_STATUS_OK;
}

/* op/infer_unary.c - types of elementwise ops with one input, Cast and Clip among them. */
#include "base/size.h"
#include "op/infer_dtypes.h"

static const struct {
    ew_op op;
    uint32_t dtypes;
} k_unary[] = {
    { EW_OP_ABS, EW_SET_NUMBERS },
    { EW_OP_BITWISE_NOT, EW_SET_INTS },
    { EW_OP_IDENTITY, EW_SET_ANY },
    { EW_OP_IS_INF, EW_SET_FLOATS | EW_SET_F8 },
    { EW_OP_IS_NAN, EW_SET_FLOATS | EW_SET_F8 },
    { EW_OP_NEG, EW_SET_FLOATS | EW_SET_SIGNED },
    { EW_OP_NOT, EW_SET(BOOL) },
    { EW_OP_RELU, EW_SET_FLOATS | EW_SET_SIGNED },
    { EW_OP_SHRINK, EW_SET_NUMBERS },
    { EW_OP_SIGN, EW_SET_NUMBERS },
    { EW_OP_CAST, EW_SET_ANY },
    { EW_OP_CLIP, EW_SET_NUMBERS },
};

static uint32_t dtypes_of(ew_op op)
{
    for (size_t i = 0; i < EW_COUNT(k_unary); i++)
        if (k_unary[i].op == op)
            return k_unary[i].dtypes;
    return EW_SET_FLOATS;
}

static ew_status check_clip(struct ew_infer *f)
{
    for (int i = 1; i < f->n_in; i++) {
        const struct ew_type *const t = f->in[i].type;

        if (!t)
            continue;
        EW_TRY(ew_infer_same_dtype(f, 0, i));
        if (t->n_dims > 1 || (t->n_dims == 1 && t->dim[0] > 1))
            return ew_fail(f->err, EW_STATUS_MISMATCH, "input %d has rank %d, a scalar is needed",
                           i, t->n_dims);
    }
    return EW_STATUS_OK;
}

ew_status ew_infer_unary(struct ew_infer *f)
{
    EW_TRY(ew_infer_dtype_in(f, 0, dtypes_of(f->op)));
    f->out[0] = *f->in[0].type;
    switch (f->op) {
    case EW_OP_IS_INF:
    case EW_OP_IS_NAN:
        f->out[0].dtype = EW_DTYPE_BOOL;
        return EW_STATUS_OK;
    case EW_OP_CAST:
        if (!ew_dtype_bits((ew_dtype)f->attrs->cast.to))
            return ew_fail(f->err, EW_STATUS_MALFORMED, "to is %d, no such dtype",
                           f->attrs->cast.to);
        f->out[0].dtype = (ew_dtype)f->attrs->cast.to;
        return EW_STATUS_OK;
    case EW_OP_CLIP:
        return check_clip(f);
    default:
        return EW_STATUS_OK;
    }
}

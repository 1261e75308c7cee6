/* op/infer.c - dispatch of type inference to the groups, and the helpers they share.
 *
 * Rules of single ops are in infer_<group>.c. */
#include <string.h>

#include "op/op.h"

enum { GROUP_unary, GROUP_binary, GROUP_reduce, GROUP_move, GROUP_nn, GROUP_llm };

static const uint8_t k_groups[EW_OP_COUNT] = {
#define OP(id, name, min_in, max_in, min_out, max_out, attrs, group) [EW_OP_##id] = GROUP_##group,
#include "op/ops.inc"
#undef OP
};

static ew_infer_fn *const k_group_fns[] = { ew_infer_unary, ew_infer_binary, ew_infer_reduce,
                                            ew_infer_move,  ew_infer_nn,     ew_infer_llm };

/* Inputs below min_in that may be absent all the same. */
static bool may_be_absent(const struct ew_infer *f, int i)
{
    return f->op == EW_OP_KV_ATTENTION && (i == 1 || i == 2);
}

ew_status ew_op_infer(struct ew_infer *f)
{
    const struct ew_op_info *info = ew_op_get(f->op);

    if (!info)
        return ew_fail(f->err, EW_STATUS_INVALID_ARG, "op number %d is not in the table",
                       (int)f->op);
    if (f->n_in < info->min_in || (info->max_in != EW_VARIADIC && f->n_in > info->max_in))
        return ew_fail(f->err, EW_STATUS_MALFORMED, "has %d inputs, takes %d to %d", f->n_in,
                       info->min_in, info->max_in);
    if (f->n_out < info->min_out || f->n_out > info->max_out || f->n_out > EW_MAX_OUTPUTS)
        return ew_fail(f->err, EW_STATUS_MALFORMED, "has %d outputs, gives %d to %d", f->n_out,
                       info->min_out, info->max_out);
    for (int i = 0; i < info->min_in; i++)
        if (!f->in[i].type && !may_be_absent(f, i))
            return ew_fail(f->err, EW_STATUS_MALFORMED, "input %d is absent, it is required", i);
    if (info->max_in == EW_VARIADIC)
        for (int i = 0; i < f->n_in; i++)
            if (!f->in[i].type)
                return ew_fail(f->err, EW_STATUS_MALFORMED, "input %d is absent, it is required",
                               i);
    memset(f->out, 0, sizeof(f->out));
    f->needs_data = false;
    f->needs_input = -1;
    return k_group_fns[k_groups[f->op]](f);
}

static void dim_text(const struct ew_infer *f, int64_t dim, char *out, size_t cap)
{
    ew_dim_text(f->syms, dim, out, cap);
}

static ew_status broadcast_dim(struct ew_infer *f, int64_t a, int64_t b, int64_t *out)
{
    if (a == b || b == 1) {
        *out = a;
        return EW_STATUS_OK;
    }
    if (a == 1) {
        *out = b;
        return EW_STATUS_OK;
    }
    if (a >= 0 && b >= 0) {
        return ew_fail(f->err, EW_STATUS_MISMATCH, "dims %lld and %lld do not broadcast",
                       (long long)a, (long long)b);
    }
    if (a >= 0 || b >= 0) {
        *out = a >= 0 ? a : b; /* the symbol must be this number or 1 */
        return EW_STATUS_OK;
    }
    *out = ew_dim_max(f->syms, a, b);
    if (*out == EW_DIM_BAD) {
        char ta[64], tb[64];
        dim_text(f, a, ta, sizeof(ta));
        dim_text(f, b, tb, sizeof(tb));
        return ew_fail(f->err, EW_STATUS_MISMATCH, "dims %s and %s do not broadcast", ta, tb);
    }
    return EW_STATUS_OK;
}

ew_status ew_infer_broadcast(struct ew_infer *f, const struct ew_type *a, const struct ew_type *b,
                             struct ew_type *out)
{
    const int n = a->n_dims > b->n_dims ? a->n_dims : b->n_dims;
    struct ew_type r = { .dtype = a->dtype, .n_dims = n };

    for (int i = 0; i < n; i++) {
        const int ia = a->n_dims - n + i, ib = b->n_dims - n + i;
        EW_TRY(broadcast_dim(f, ia >= 0 ? a->dim[ia] : 1, ib >= 0 ? b->dim[ib] : 1, &r.dim[i]));
    }
    *out = r; /* a or b may be out */
    return EW_STATUS_OK;
}

bool ew_infer_ints(struct ew_infer *f, int i, int64_t *out, size_t cap, size_t *n)
{
    const struct ew_infer_in *in;
    size_t count;

    if (i >= f->n_in || !f->in[i].type)
        return false;
    in = &f->in[i];
    if (in->dims) {
        if (in->n_dims > cap)
            return false;
        if (in->n_dims)
            memcpy(out, in->dims, in->n_dims * sizeof(*out));
        *n = in->n_dims;
        return true;
    }
    if (!ew_dtype_is_int(in->type->dtype) || !ew_type_count(in->type, &count) || count > cap)
        return false;
    if (count && !in->data)
        return false;
    for (size_t k = 0; k < count; k++) {
        const int64_t v = ew_elem_get_i64(in->data, in->type->dtype, k);
        out[k] =
            v > EW_DIM_FIRST_SYMBOL ? v : EW_DIM_FIRST_SYMBOL + 1; /* INT64_MIN: "from the start" */
    }
    *n = count;
    return true;
}

ew_status ew_infer_axis(struct ew_infer *f, int64_t axis, int rank, int *out)
{
    if (axis < -(int64_t)rank || axis >= rank)
        return ew_fail(f->err, EW_STATUS_MALFORMED, "axis is %lld, rank is %d", (long long)axis,
                       rank);
    *out = (int)(axis < 0 ? axis + rank : axis);
    return EW_STATUS_OK;
}

ew_status ew_infer_unknown(struct ew_infer *f, int o, int input, ew_dtype dtype, int rank)
{
    struct ew_type *t = &f->out[o];

    f->needs_data = true;
    f->needs_input = input;
    if (!f->syms)
        return ew_fail(f->err, EW_STATUS_UNSUPPORTED,
                       "the shape of output %d depends on the contents of input %d", o, input);
    if (rank < 0 || rank > EW_MAX_DIMS)
        return ew_fail(f->err, EW_STATUS_LIMIT, "rank is %d, at most %d is possible", rank,
                       EW_MAX_DIMS);
    t->dtype = dtype;
    t->n_dims = rank;
    for (int i = 0; i < rank; i++) {
        t->dim[i] = ew_dim_unknown(f->syms);
        if (t->dim[i] == EW_DIM_BAD)
            return ew_fail(f->err, EW_STATUS_NO_MEMORY, "symbol table");
    }
    return EW_STATUS_OK;
}

/* kernels/ref/gen_dispatch.c - which function runs an op, and how much scratch it wants. */
#include "base/size.h"
#include "kernels/ref/gen_common.h"
#include "kernels/ref/gen_scratch.h"

enum { GROUP_unary, GROUP_binary, GROUP_reduce, GROUP_move, GROUP_nn, GROUP_llm };

static const uint8_t k_groups[EW_OP_COUNT] = {
#define OP(id, name, min_in, max_in, min_out, max_out, attrs, group) [EW_OP_##id] = GROUP_##group,
#include "op/ops.inc"
#undef OP
};

ew_general_fn *ew_general_find(ew_op op)
{
    static ew_general_fn *const fns[] = { ew_general_unary__ref,  ew_general_binary__ref,
                                          ew_general_reduce__ref, ew_general_move__ref,
                                          ew_general_nn__ref,     NULL };

    if (op <= EW_OP_NONE || op >= EW_OP_COUNT)
        return NULL;
    return fns[k_groups[op]];
}

/* One row along the axis in the widest class, and for TopK its indices. */
static size_t reduce_scratch(ew_op op, const union ew_attrs *attrs, const struct ew_type *x)
{
    int64_t axis;
    size_t d, bytes;

    if (op == EW_OP_TOP_K)
        axis = attrs->top_k.axis;
    else if (op == EW_OP_SOFTMAX || op == EW_OP_LOG_SOFTMAX || op == EW_OP_HARDMAX)
        axis = attrs->axis.axis;
    else
        return 0;
    if (!x || x->n_dims == 0)
        return 2 * sizeof(double);
    d = (size_t)x->dim[ew_gen_axis(axis, x->n_dims)];
    return ew_size_mul(d, 2 * sizeof(double), &bytes) ? bytes : SIZE_MAX;
}

size_t ew_general_scratch_bytes(ew_op op, const union ew_attrs *attrs, int n_in,
                                const struct ew_type *const *in, int n_out,
                                const struct ew_type *const *out)
{
    if (op <= EW_OP_NONE || op >= EW_OP_COUNT || n_in < 1)
        return 0;
    if (k_groups[op] == GROUP_reduce)
        return reduce_scratch(op, attrs, in[0]);
    if (k_groups[op] == GROUP_nn)
        return ew_gen_nn_scratch_bytes(op, attrs, n_in, in, n_out, out);
    return 0;
}

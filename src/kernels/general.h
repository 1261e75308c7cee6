/* kernels/general.h - the general operators: one function per op over concrete views, any dtype
 * that ONNX allows the op. Clear C, the judge of everything faster. Shapes of `out` were set by
 * ew_op_infer and memory is there; `scratch` is for ops that need working memory (freed by nobody:
 * it is the caller's).
 *
 * A general kernel may be called on a range of its work only through its own loop: it is
 * single-threaded, reentrant and allocates nothing but through `scratch`. */
#ifndef EW_KERNELS_GENERAL_H
#define EW_KERNELS_GENERAL_H

#include "op/op.h"

struct ew_general_args {
    ew_op op;
    const union ew_attrs *attrs;
    int n_in;
    const struct ew_view *const *in; /* NULL entries: optional input absent */
    int n_out;
    struct ew_view *const *out; /* NULL entries: output not wanted */
    void *scratch;              /* ew_general_scratch_bytes() bytes, 64-byte aligned */
    ew_error *err;
};

typedef ew_status ew_general_fn(const struct ew_general_args *a);

/* The function of an op; NULL for ops of group llm that have typed kernels of their own. */
ew_general_fn *ew_general_find(ew_op op);
/* Working memory for these shapes; 0 for most. in/out types concrete; NULL entries absent. */
size_t ew_general_scratch_bytes(ew_op op, const union ew_attrs *attrs, int n_in,
                                const struct ew_type *const *in, int n_out,
                                const struct ew_type *const *out);

/* One per group, each dispatching on a->op. */
ew_general_fn ew_general_unary__ref, ew_general_binary__ref, ew_general_reduce__ref,
    ew_general_move__ref, ew_general_nn__ref;

#endif

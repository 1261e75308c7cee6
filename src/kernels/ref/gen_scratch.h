/* kernels/ref/gen_scratch.h - working memory of the nn group (gen_nn*.c), asked by gen_dispatch.c.
 */
#ifndef EW_KERNELS_REF_GEN_SCRATCH_H
#define EW_KERNELS_REF_GEN_SCRATCH_H

#include "op/op.h"

/* As ew_general_scratch_bytes, for ops of group nn. */
size_t ew_gen_nn_scratch_bytes(ew_op op, const union ew_attrs *attrs, int n_in,
                               const struct ew_type *const *in, int n_out,
                               const struct ew_type *const *out);

#endif

/* checkpoint/quant_load_impl.h - what quant_load.c and quant_zeros.c share: the state of loading
 * one module. */
#ifndef EW_CHECKPOINT_QUANT_LOAD_IMPL_H
#define EW_CHECKPOINT_QUANT_LOAD_IMPL_H

#include "checkpoint/quant_load.h"

struct ew_qx_job {
    struct ew_qx_loader *l;
    const struct ew_qx_scheme *s;
    const char *module;
    size_t n, k, n_stack; /* n_stack 0: not a stack */
    const char *codes_name, *scales_name;
    const struct ew_st_tensor *codes, *scales;
    size_t scale_count; /* of one matrix */
    struct ew_qx_source *src;
};

/* NULL if there is none. */
const struct ew_st_tensor *ew_qx_find(const struct ew_qx_job *j, const char *tail);
void ew_qx_mark(const struct ew_qx_job *j, const struct ew_st_tensor *t);
/* Finds, checks, marks as used. NOT_FOUND or MISMATCH names it. */
ew_status ew_qx_take(const struct ew_qx_job *j, const char *tail, const ew_dtype *dtypes,
                     size_t n_dtypes, int n_dims, const int64_t *dims,
                     const struct ew_st_tensor **out, ew_error *err);
ew_status ew_qx_no_memory(const struct ew_qx_job *j, ew_error *err);

/* quant_zeros.c: zero points (the format becomes unsigned where there are any), and the order of
 * columns. After codes and scales. */
ew_status ew_qx_take_zeros(struct ew_qx_job *j, ew_error *err);
ew_status ew_qx_take_order(struct ew_qx_job *j, struct ew_qx_module *out, ew_error *err);

#endif

/* tensor/tensor.h - types (dtype + dims) and views (type + address) of dense row-major tensors.
 *
 * A dim is an int64: >= 0 is a number; < 0 is a symbol of a graph's symbol table (op/symtab.h).
 * Views that reach kernels are always concrete. Sub-byte dtypes (i4, u4, f4e2m1) are packed two to
 * a byte, low nibble first, over the flattened tensor. */
#ifndef EW_TENSOR_H
#define EW_TENSOR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define EW_MAX_DIMS 8

struct ew_type {
    ew_dtype dtype;
    int n_dims; /* 0 = scalar */
    int64_t dim[EW_MAX_DIMS];
};

struct ew_view {
    struct ew_type type; /* concrete */
    void *data;          /* NULL when the tensor has no elements */
};

/* Elements / bytes of a concrete type; false on overflow or a symbolic dim. */
bool ew_type_count(const struct ew_type *t, size_t *n);
bool ew_type_bytes(const struct ew_type *t, size_t *bytes);
bool ew_type_is_concrete(const struct ew_type *t);
bool ew_type_equal(const struct ew_type *a, const struct ew_type *b);
struct ew_type ew_type_make(ew_dtype dtype, int n_dims, const int64_t *dims);
/* "f32[2,3]"; symbols print as "?". For names of symbols use ew_graph's printer. out is always
 * terminated. */
void ew_type_text(const struct ew_type *t, char *out, size_t cap);

bool ew_dtype_is_float(ew_dtype d);  /* f64 f32 f16 bf16 and the 8- and 4-bit floats */
bool ew_dtype_is_int(ew_dtype d);    /* signed and unsigned integers, not bool */
bool ew_dtype_is_signed(ew_dtype d); /* floats and signed integers */

/* Element access by index with conversion; any dtype. The slow, always right way. */
double ew_elem_get_f64(const void *data, ew_dtype d, size_t i);
int64_t ew_elem_get_i64(const void *data, ew_dtype d, size_t i); /* floats truncate */
/* Rounds to nearest even for floats; integers wrap as C casts do; floats to ints truncate. */
void ew_elem_set_f64(void *data, ew_dtype d, size_t i, double v);
void ew_elem_set_i64(void *data, ew_dtype d, size_t i, int64_t v);

/* n elements of src_dtype -> dst_dtype (float to float), fast for f32/f16/bf16. */
void ew_convert_floats(void *dst, ew_dtype dst_dtype, const void *src, ew_dtype src_dtype,
                       size_t n);

#endif

/* kernels/linear_pack.h - what the packers of all instruction sets share. */
#ifndef EW_KERNELS_LINEAR_PACK_H
#define EW_KERNELS_LINEAR_PACK_H

#include "kernels/linear.h"

/* First element of row `row` counted over all parts, and the bytes from one column to the next.
 * NULL when the parts have fewer rows. */
const unsigned char *ew_weight_parts_row(const struct ew_weight_part *parts, size_t n_parts,
                                         size_t row, size_t elem_bytes, ptrdiff_t *col_bytes);
/* Rows [row, row + n_rows) of quantised parts, counted over all of them; rows past the end are
 * codes 0 with scale and zero point 0. */
void ew_weight_parts_read(const struct ew_pack_args *a, size_t row, size_t n_rows,
                          const struct ew_quant_rows *out);

#endif

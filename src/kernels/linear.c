/* kernels/linear.c - the table of linear kernels and what their packers share.
 * Owns no arithmetic: that is in ref/ and x86/. */
#include "kernels/linear.h"

#include <string.h>

#include "base/size.h"
#include "kernels/linear_pack.h"

#define EW_KERNEL(name) extern const struct ew_linear_kernel name;
#include "kernels/list_linear.inc"
#undef EW_KERNEL

static const struct ew_linear_kernel *const all[] = {
#define EW_KERNEL(name) &name,
#include "kernels/list_linear.inc"
#undef EW_KERNEL
};

const struct ew_linear_kernel *const *ew_linear_kernels(size_t *n)
{
    *n = EW_COUNT(all);
    return all;
}

const struct ew_linear_kernel *ew_linear_kernel_find(const char *name)
{
    for (size_t i = 0; i < EW_COUNT(all); i++)
        if (strcmp(all[i]->name, name) == 0)
            return all[i];
    return NULL;
}

const unsigned char *ew_weight_parts_row(const struct ew_weight_part *parts, size_t n_parts,
                                         size_t row, size_t elem_bytes, ptrdiff_t *col_bytes)
{
    for (size_t i = 0; i < n_parts; i++) {
        if (row < parts[i].n_rows) {
            *col_bytes = parts[i].col_stride * (ptrdiff_t)elem_bytes;
            return (const unsigned char *)parts[i].data +
                   (ptrdiff_t)row * parts[i].row_stride * (ptrdiff_t)elem_bytes;
        }
        row -= parts[i].n_rows;
    }
    *col_bytes = 0;
    return NULL;
}

/* kernels/linear.c - the table of linear kernels and what their packers share.
 * Owns no arithmetic: that is in ref/ and x86/. */
#include "kernels/linear.h"

#include <string.h>

#include "base/size.h"
#include "kernels/cuda/linear.h"
#include "kernels/linear_pack.h"
#include "op/attrs.h"

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

size_t ew_linear_prepared_bytes(const struct ew_linear_kernel *k, const struct ew_quant_format *f,
                                size_t m, size_t n_cols)
{
    return k->prepare ? (m + EW_PREPARED_PAD) * k->prepared_row_bytes(f, n_cols) : 0;
}

const struct ew_linear_kernel *ew_linear_kernel_find(const char *name)
{
    for (size_t i = 0; i < EW_COUNT(all); i++)
        if (strcmp(all[i]->name, name) == 0)
            return all[i];
    return ew_cuda_linear_layout_find(name); /* a GPU's: packed and unpacked here, run there */
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

void ew_weight_parts_read(const struct ew_pack_args *a, size_t row, size_t n_rows,
                          const struct ew_quant_rows *out)
{
    const size_t n_groups = ew_quant_groups(a->format, a->k);
    size_t done = 0, at = 0;

    for (size_t i = 0; i < a->n_parts && done < n_rows; i++) {
        const struct ew_weight_part *p = &a->parts[i];
        const size_t lo = row + done;

        if (lo < at + p->n_rows) {
            const size_t left = at + p->n_rows - lo;
            const size_t n = n_rows - done < left ? n_rows - done : left;
            const struct ew_quant_rows to = { out->codes + done * a->k,
                                              out->scales + done * n_groups,
                                              out->zeros + done * n_groups, out->row_scale + done };

            p->quant->read(p->quant, p->quant_row + lo - at, n, &to);
            done += n;
        }
        at += p->n_rows;
    }
    memset(out->codes + done * a->k, 0, (n_rows - done) * a->k);
    for (size_t i = done * n_groups; i < n_rows * n_groups; i++) {
        out->scales[i] = 0.0f;
        out->zeros[i] = 0;
    }
    for (size_t i = done; i < n_rows; i++)
        out->row_scale[i] = 0.0f;
}

bool ew_linear_kernel_runs(const struct ew_linear_kernel *k, ew_dtype dtype,
                           const struct ew_quant_format *f, size_t n_cols, int x_quant)
{
    if (k->x_quant != EW_XQ_NONE && k->x_quant != x_quant && k->x_quant != ew_x_quant_of_x(x_quant))
        return false;
    if (!ew_quant_is(f))
        return !k->takes && k->weight_dtype == dtype;
    return k->takes && k->takes(f, n_cols);
}

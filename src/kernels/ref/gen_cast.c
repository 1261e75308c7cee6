/* kernels/ref/gen_cast.c - Cast between any two dtypes. Float to integer truncates (out of
 * range is as ew_gen_store says), integer to integer wraps, anything but 0 is true. */
#include <string.h>

#include "kernels/ref/gen_common.h"

/* The 8-bit floats need the attributes; nibbles saturate always, so the shared store does. */
static void store_f8(uint8_t *out, ew_dtype d, const union ew_gen_block *b, enum ew_gen_class c,
                     size_t n, const struct ew_attr_cast *attr)
{
    for (size_t i = 0; i < n; i++) {
        double v;

        if (c == EW_GEN_F32)
            v = (double)b->f32[i];
        else if (c == EW_GEN_F64)
            v = b->f64[i];
        else
            v = c == EW_GEN_I64 ? (double)b->i64[i] : (double)b->u64[i];
        out[i] = ew_gen_mini_encode(d, v, attr->saturate != 0, attr->round_mode);
    }
}

static bool is_fast_float(ew_dtype d)
{
    return d == EW_DTYPE_F32 || d == EW_DTYPE_F16 || d == EW_DTYPE_BF16;
}

ew_status ew_gen_cast(const struct ew_general_args *a)
{
    const struct ew_view *const x = a->in[0];
    struct ew_view *const y = a->out[0];
    const ew_dtype from = x->type.dtype, to = y->type.dtype;
    const enum ew_gen_class c = ew_gen_class_of(from);
    const size_t n = ew_gen_count(&y->type);
    const bool to_f8 = ew_gen_is_mini(to) && to != EW_DTYPE_F4E2M1;

    if (from == to) {
        ew_gen_copy_flat(y->data, 0, x->data, 0, n, to);
        return EW_STATUS_OK;
    }
    if (is_fast_float(from) && is_fast_float(to)) {
        if (n > 0)
            ew_convert_floats(y->data, to, x->data, from, n);
        return EW_STATUS_OK;
    }
    for (size_t i = 0; i < n; i += EW_GEN_BLOCK) {
        const size_t len = n - i < EW_GEN_BLOCK ? n - i : EW_GEN_BLOCK;
        union ew_gen_block b;

        ew_gen_load(&b, c, x->data, from, (ptrdiff_t)i, 1, len);
        if (to_f8)
            store_f8((uint8_t *)y->data + i, to, &b, c, len, &a->attrs->cast);
        else
            ew_gen_store(y->data, to, (ptrdiff_t)i, 1, &b, c, len);
    }
    return EW_STATUS_OK;
}

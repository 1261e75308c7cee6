/* op/infer_dtypes.c - dtype checks and contents of inputs for the infer_*.c files. */
#include "op/infer_dtypes.h"

bool ew_infer_has(const struct ew_infer *f, int i)
{
    return i < f->n_in && f->in[i].type;
}

ew_status ew_infer_dtype_in(struct ew_infer *f, int i, uint32_t set)
{
    const ew_dtype d = f->in[i].type->dtype;

    if (d > EW_DTYPE_NONE && d < EW_DTYPE_COUNT && (set >> d & 1u))
        return EW_STATUS_OK;
    return ew_fail(f->err, EW_STATUS_UNSUPPORTED, "%s does not take dtype %s as input %d",
                   ew_op_get(f->op)->name, ew_dtype_text(d), i);
}

ew_status ew_infer_same_dtype(struct ew_infer *f, int i, int j)
{
    const ew_dtype a = f->in[i].type->dtype, b = f->in[j].type->dtype;

    if (a == b)
        return EW_STATUS_OK;
    return ew_fail(f->err, EW_STATUS_MISMATCH, "input %d is %s, input %d is %s", i,
                   ew_dtype_text(a), j, ew_dtype_text(b));
}

ew_status ew_infer_contents(struct ew_infer *f, int i, struct ew_contents *c)
{
    const struct ew_infer_in *const in = &f->in[i];
    const struct ew_type *const t = in->type;
    size_t n;

    c->known = false;
    c->n = 0;
    if (!ew_dtype_is_int(t->dtype) || t->n_dims > 1)
        return ew_fail(f->err, EW_STATUS_MISMATCH, "input %d is %s of rank %d, integers are needed",
                       i, ew_dtype_text(t->dtype), t->n_dims);
    if (!ew_type_count(t, &n)) {
        if (!in->dims)
            return ew_fail(f->err, EW_STATUS_UNSUPPORTED, "the length of input %d is not known", i);
        n = in->n_dims;
    }
    if (n > EW_CONTENTS_CAP)
        return ew_fail(f->err, EW_STATUS_LIMIT,
                       "input %d has %zu elements, at most %d are possible", i, n, EW_CONTENTS_CAP);
    c->n = n;
    if (n > 0 && !in->data && (!in->dims || in->n_dims != n))
        return EW_STATUS_OK;
    for (size_t k = 0; k < n; k++) {
        c->is_symbol[k] = false;
        if (in->data) {
            c->v[k] = ew_elem_get_i64(in->data, t->dtype, k);
        } else {
            if (in->dims[k] == EW_DIM_BAD)
                return EW_STATUS_OK;
            c->v[k] = in->dims[k];
            c->is_symbol[k] = ew_dim_is_symbol(in->dims[k]);
        }
    }
    c->known = true;
    return EW_STATUS_OK;
}

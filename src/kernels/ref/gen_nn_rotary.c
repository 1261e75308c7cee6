/* kernels/ref/gen_nn_rotary.c - RotaryEmbedding: pairs of every head turned by the angles of their
 * position. */
#include "kernels/ref/gen_nn.h"

struct rotary {
    const struct ew_view *x, *cos, *sin;
    struct ew_view *y;
    ptrdiff_t size, half; /* of a head */
    bool interleaved;
};

/* The head that starts at `at`, with row `row` of the caches. */
static void turn_head(const struct rotary *r, ptrdiff_t at, ptrdiff_t row)
{
    const ew_dtype d = r->x->type.dtype;
    const ptrdiff_t step = r->interleaved ? 2 : 1, other = r->interleaved ? 1 : r->half;

    for (ptrdiff_t i = 0; i < r->half; i++) {
        const ptrdiff_t first = at + i * step, second = first + other, angle = row * r->half + i;
        double a, b, c, s, real, imag;

        ew_gen_load(&a, EW_GEN_F64, r->x->data, d, first, 1, 1);
        ew_gen_load(&b, EW_GEN_F64, r->x->data, d, second, 1, 1);
        ew_gen_load(&c, EW_GEN_F64, r->cos->data, d, angle, 1, 1);
        ew_gen_load(&s, EW_GEN_F64, r->sin->data, d, angle, 1, 1);
        real = c * a - s * b;
        imag = s * a + c * b;
        ew_gen_store(r->y->data, d, first, 1, &real, EW_GEN_F64, 1);
        ew_gen_store(r->y->data, d, second, 1, &imag, EW_GEN_F64, 1);
    }
    ew_gen_copy_flat(r->y->data, at + 2 * r->half, r->x->data, at + 2 * r->half,
                     (size_t)(r->size - 2 * r->half), d);
}

ew_status ew_gen_rotary(const struct ew_general_args *a)
{
    const struct ew_attr_rotary *const attr = &a->attrs->rotary;
    const struct ew_type *const x = &a->in[0]->type, *const cache = &a->in[1]->type;
    const struct ew_view *const ids = a->n_in > 3 ? a->in[3] : NULL;
    const bool is_4d = x->n_dims == 4;
    const ptrdiff_t heads = (ptrdiff_t)(is_4d ? x->dim[1] : attr->num_heads);
    const ptrdiff_t len = (ptrdiff_t)x->dim[is_4d ? 2 : 1], batch = (ptrdiff_t)x->dim[0];
    const ptrdiff_t size = (ptrdiff_t)(is_4d ? x->dim[3] : x->dim[2] / heads);
    const struct rotary r = { .x = a->in[0],
                              .cos = a->in[1],
                              .sin = a->in[2],
                              .y = a->out[0],
                              .size = size,
                              .half = attr->rotary_embedding_dim
                                          ? (ptrdiff_t)attr->rotary_embedding_dim / 2
                                          : size / 2,
                              .interleaved = attr->interleaved != 0 };

    if (cache->dim[cache->n_dims - 1] != r.half)
        return ew_fail(a->err, EW_STATUS_MISMATCH, "the caches have %lld columns, %lld are needed",
                       (long long)cache->dim[cache->n_dims - 1], (long long)r.half);
    for (ptrdiff_t p = 0; p < batch * len; p++) {
        int64_t row = p;

        if (ids) {
            row = ew_gen_int_at(ids, (size_t)p);
            if (row < 0 || row >= cache->dim[0])
                return ew_fail(a->err, EW_STATUS_MISMATCH, "position %lld, the caches have %lld",
                               (long long)row, (long long)cache->dim[0]);
        }
        for (ptrdiff_t h = 0; h < heads; h++) {
            const ptrdiff_t at = is_4d ? (p / len * heads + h) * len + p % len : p * heads + h;

            turn_head(&r, at * size, (ptrdiff_t)row);
        }
    }
    return EW_STATUS_OK;
}

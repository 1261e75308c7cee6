/* kernels/ref/gen_pad.c - Pad. Negative pads crop first; the modes then extend what is left. */
#include <string.h>

#include "kernels/ref/gen_common.h"

struct pad_plan {
    int rank;
    int64_t crop[EW_MAX_DIMS];   /* elements of x left out in front */
    int64_t before[EW_MAX_DIMS]; /* elements added in front */
    int64_t kept[EW_MAX_DIMS];   /* elements of x used; <= 0: none */
};

static ew_status plan_init(const struct ew_general_args *a, struct pad_plan *p)
{
    const struct ew_type *const x = &a->in[0]->type;
    const struct ew_type *const y = &a->out[0]->type;
    const struct ew_view *const axes = a->n_in > 3 ? a->in[3] : NULL;
    const size_t n = axes ? ew_gen_count(&axes->type) : (size_t)x->n_dims;

    if (ew_gen_count(&a->in[1]->type) != 2 * n)
        return ew_fail(a->err, EW_STATUS_MISMATCH,
                       "pads has %zu elements, %zu axes need twice that",
                       ew_gen_count(&a->in[1]->type), n);
    p->rank = x->n_dims;
    memset(p->crop, 0, sizeof(p->crop));
    memset(p->before, 0, sizeof(p->before));
    memcpy(p->kept, x->dim, sizeof(p->kept));
    for (size_t i = 0; i < n; i++) {
        const int64_t axis = axes ? ew_gen_int_at(axes, i) : (int64_t)i;
        const int64_t before = ew_gen_int_at(a->in[1], i);
        const int64_t after = ew_gen_int_at(a->in[1], n + i);
        int64_t total;
        int d;

        if (axis < -p->rank || axis >= p->rank)
            return ew_fail(a->err, EW_STATUS_MALFORMED, "axis is %lld, rank is %d", (long long)axis,
                           p->rank);
        d = ew_gen_axis(axis, p->rank);
        if (__builtin_add_overflow(before, after, &total) ||
            __builtin_add_overflow(total, x->dim[d], &total) || total != y->dim[d])
            return ew_fail(a->err, EW_STATUS_MISMATCH, "dim %d: %lld%+lld%+lld, output has %lld", d,
                           (long long)x->dim[d], (long long)before, (long long)after,
                           (long long)y->dim[d]);
        p->crop[d] = before < 0 ? -before : 0;
        p->before[d] = before > 0 ? before : 0;
        p->kept[d] = x->dim[d] + (before < 0 ? before : 0) + (after < 0 ? after : 0);
    }
    return EW_STATUS_OK;
}

static void pad_constant(const struct ew_general_args *a, const struct pad_plan *p)
{
    static const uint64_t zero = 0;
    const struct ew_view *const value = a->n_in > 2 ? a->in[2] : NULL;
    const bool has_value = value && ew_gen_count(&value->type) > 0;
    const struct ew_view *const x = a->in[0];
    struct ew_view *const y = a->out[0];
    struct ew_gen_copy c = { .n_dims = p->rank };
    ptrdiff_t from = 0, to = 0;

    ew_gen_copy_step(y->data, 0, 1, has_value ? value->data : &zero, 0, 0, ew_gen_count(&y->type),
                     y->type.dtype);
    ew_gen_strides(p->rank, x->type.dim, c.src_stride);
    ew_gen_strides(p->rank, y->type.dim, c.dst_stride);
    for (int d = 0; d < p->rank; d++) {
        if (p->kept[d] <= 0)
            return;
        c.dim[d] = p->kept[d];
        from += (ptrdiff_t)p->crop[d] * c.src_stride[d];
        to += (ptrdiff_t)p->before[d] * c.dst_stride[d];
    }
    ew_gen_copy_run(&c, y->data, to, x->data, from, y->type.dtype);
}

/* Index i, outside [0, n) too, as one inside it. */
static int64_t map_index(int64_t i, int64_t n, int mode)
{
    int64_t period;

    if (i >= 0 && i < n)
        return i;
    if (mode == EW_PAD_EDGE || n == 1)
        return i < 0 ? 0 : n - 1;
    period = mode == EW_PAD_WRAP ? n : 2 * (n - 1);
    i %= period;
    if (i < 0)
        i += period;
    return i < n ? i : period - i;
}

static void pad_mapped(const struct ew_general_args *a, const struct pad_plan *p, int mode)
{
    const struct ew_view *const x = a->in[0];
    struct ew_view *const y = a->out[0];
    const int last = p->rank - 1;
    const int64_t width = y->type.dim[last];
    const ptrdiff_t n_rows = (ptrdiff_t)(ew_gen_product(&y->type, 0, last));
    ptrdiff_t own[EW_GEN_MAX_DIMS];

    ew_gen_strides(p->rank, x->type.dim, own);
    for (ptrdiff_t row = 0; row < n_rows; row++) {
        ptrdiff_t left = row, base = (ptrdiff_t)p->crop[last];

        for (int d = last - 1; d >= 0; d--) {
            const int64_t i = (int64_t)(left % y->type.dim[d]) - p->before[d];

            left /= y->type.dim[d];
            base += (ptrdiff_t)(p->crop[d] + map_index(i, p->kept[d], mode)) * own[d];
        }
        for (int64_t o = 0; o < width;) {
            const int64_t i = o - p->before[last];
            const int64_t run = i >= 0 && i < p->kept[last] ? p->kept[last] - i : 1;
            const int64_t n = run < width - o ? run : width - o;

            ew_gen_copy_flat(y->data, row * width + o, x->data,
                             base + map_index(i, p->kept[last], mode), (size_t)n, y->type.dtype);
            o += n;
        }
    }
}

ew_status ew_gen_pad(const struct ew_general_args *a)
{
    const int mode = a->attrs->pad.mode;
    struct pad_plan p;

    EW_TRY(plan_init(a, &p));
    if (ew_gen_count(&a->out[0]->type) == 0)
        return EW_STATUS_OK;
    if (mode == EW_PAD_CONSTANT || p.rank == 0) {
        pad_constant(a, &p);
        return EW_STATUS_OK;
    }
    for (int d = 0; d < p.rank; d++)
        if (p.kept[d] <= 0)
            return ew_fail(a->err, EW_STATUS_MISMATCH, "dim %d has nothing to extend to %lld", d,
                           (long long)a->out[0]->type.dim[d]);
    pad_mapped(a, &p, mode);
    return EW_STATUS_OK;
}

/* kernels/ref/gen_nn_conv.c - Conv and ConvTranspose: matrix products whose right side, the windows
 * of the data, is gathered a panel at a time. */
#include <string.h>

#include "base/size.h"
#include "kernels/ref/gen_nn.h"
#include "op/infer_nn.h"

struct conv {
    struct ew_window w;
    const struct ew_view *x, *weight, *bias;
    struct ew_view *y;
    ptrdiff_t in_size, kernel_size, out_size; /* elements of one channel */
    ptrdiff_t in_stride[EW_MAX_SPATIAL];
    ptrdiff_t c_in, c_out;                    /* of one group */
    ptrdiff_t x_at, weight_at, y_at, bias_at; /* of this group */
    bool transposed;
};

size_t ew_gen_conv_scratch(const struct ew_type *w, int64_t group, bool transposed)
{
    int64_t k = transposed ? w->dim[0] / group : w->dim[1];

    for (int d = 2; d < w->n_dims; d++)
        if (!ew_i64_mul(k, w->dim[d], &k))
            return SIZE_MAX;
    return ew_gen_mm_scratch_bytes(k);
}

/* Input position of output o under kernel element k in dim d; -1: there is none. */
static int64_t source_of(const struct conv *c, int d, int64_t o, int64_t k)
{
    const struct ew_window *const w = &c->w;
    int64_t i;

    if (!c->transposed) {
        i = o * w->stride[d] - w->pad_begin[d] + k * w->dilation[d];
    } else {
        i = o + w->pad_begin[d] - k * w->dilation[d];
        if (i < 0 || i % w->stride[d] != 0)
            return -1;
        i /= w->stride[d];
    }
    return i >= 0 && i < w->in[d] ? i : -1;
}

static int64_t clamp(int64_t v, int64_t lo, int64_t hi)
{
    return v < lo ? lo : v > hi ? hi : v;
}

static int64_t ceil_div(int64_t a, int64_t b)
{
    return a >= 0 ? (a + b - 1) / b : -(-a / b);
}

/* n outputs of the last dim from o on, in a row of the data that starts at `at`. */
static void gather_run(const struct conv *c, enum ew_gen_class class, char *dst, ptrdiff_t at,
                       int64_t o, int64_t n, int64_t k)
{
    const int d = c->w.n - 1;
    const size_t width = ew_gen_class_bytes(class);
    const int64_t s = c->w.stride[d], shift = k * c->w.dilation[d] - c->w.pad_begin[d];

    memset(dst, 0, (size_t)n * width);
    if (c->transposed) {
        for (int64_t j = 0; j < n; j++) {
            const int64_t i = source_of(c, d, o + j, k);

            if (i >= 0)
                ew_gen_load(dst + (size_t)j * width, class, c->x->data, c->x->type.dtype,
                            at + (ptrdiff_t)i, 1, 1);
        }
    } else {
        const int64_t first = clamp(ceil_div(-shift, s), o, o + n);
        const int64_t end = clamp(ceil_div(c->w.in[d] - shift, s), first, o + n);

        if (end > first)
            ew_gen_load(dst + (size_t)(first - o) * width, class, c->x->data, c->x->type.dtype,
                        at + (ptrdiff_t)(first * s + shift), (ptrdiff_t)s, (size_t)(end - first));
    }
}

/* The row of B of channel ch and kernel element kernel[]. */
static void gather_row(const struct conv *c, enum ew_gen_class class, char *dst, ptrdiff_t ch,
                       const int64_t *kernel, ptrdiff_t j, ptrdiff_t n)
{
    const int last = c->w.n - 1;
    const size_t width = ew_gen_class_bytes(class);

    while (n > 0) {
        const int64_t o = j % c->w.out[last], left = c->w.out[last] - o;
        const ptrdiff_t run = left < n ? (ptrdiff_t)left : n;
        ptrdiff_t at = c->x_at + ch * c->in_size, pixel = j / (ptrdiff_t)c->w.out[last];
        bool inside = true;

        for (int d = last - 1; d >= 0 && inside; d--) {
            const int64_t i = source_of(c, d, pixel % (ptrdiff_t)c->w.out[d], kernel[d]);

            inside = i >= 0;
            at += (ptrdiff_t)i * c->in_stride[d];
            pixel /= (ptrdiff_t)c->w.out[d];
        }
        if (inside)
            gather_run(c, class, dst, at, o, run, kernel[last]);
        else
            memset(dst, 0, (size_t)run * width);
        dst += (size_t)run * width;
        j += run;
        n -= run;
    }
}

static void pack_b(const struct ew_gen_mm *mm, void *dst, ptrdiff_t j, ptrdiff_t n)
{
    const struct conv *const c = mm->user;
    const size_t step = EW_GEN_MM_COLS * ew_gen_class_bytes(mm->c);
    int64_t kernel[EW_MAX_SPATIAL] = { 0 };
    char *row = dst;

    for (ptrdiff_t ch = 0; ch < c->c_in; ch++) {
        for (ptrdiff_t k = 0; k < c->kernel_size; k++, row += step) {
            gather_row(c, mm->c, row, ch, kernel, j, n);
            for (int d = c->w.n - 1; d >= 0; d--) { /* the next element; wraps to 0 at the end */
                if (++kernel[d] < c->w.kernel[d])
                    break;
                kernel[d] = 0;
            }
        }
    }
}

/* Conv has [c_out][c_in * kernel], ConvTranspose [c_in][c_out][kernel]. */
static void pack_a(const struct ew_gen_mm *mm, void *dst, ptrdiff_t i)
{
    const struct conv *const c = mm->user;
    const struct ew_view *const w = c->weight;
    const size_t step = (size_t)c->kernel_size * ew_gen_class_bytes(mm->c);

    if (!c->transposed) {
        ew_gen_load(dst, mm->c, w->data, w->type.dtype, c->weight_at + i * mm->k, 1, (size_t)mm->k);
        return;
    }
    for (ptrdiff_t ch = 0; ch < c->c_in; ch++)
        ew_gen_load((char *)dst + (size_t)ch * step, mm->c, w->data, w->type.dtype,
                    c->weight_at + (ch * c->c_out + i) * c->kernel_size, 1, (size_t)c->kernel_size);
}

static void store(const struct ew_gen_mm *mm, void *v, ptrdiff_t i, ptrdiff_t j, ptrdiff_t n)
{
    const struct conv *const c = mm->user;

    if (c->bias) {
        double b;

        ew_gen_load(&b, EW_GEN_F64, c->bias->data, c->bias->type.dtype, c->bias_at + i, 1, 1);
        for (ptrdiff_t e = 0; e < n; e++) {
            if (mm->c == EW_GEN_F32)
                ((float *)v)[e] += (float)b;
            else
                ((double *)v)[e] += b;
        }
    }
    ew_gen_store(c->y->data, c->y->type.dtype, c->y_at + i * c->out_size + j, 1, v, mm->c,
                 (size_t)n);
}

static void run_groups(const struct ew_general_args *a, struct conv *c)
{
    const ptrdiff_t group = (ptrdiff_t)a->attrs->conv.group;
    const ptrdiff_t batch = (ptrdiff_t)c->x->type.dim[0];
    const struct ew_gen_mm mm = { .c = ew_gen_class_of(c->x->type.dtype),
                                  .m = c->c_out,
                                  .n = c->out_size,
                                  .k = c->c_in * c->kernel_size,
                                  .pack_a = pack_a,
                                  .pack_b = pack_b,
                                  .store = store,
                                  .scratch = a->scratch,
                                  .user = c };

    for (ptrdiff_t i = 0; i < batch * group; i++) {
        const ptrdiff_t g = i % group;

        c->x_at = i * c->c_in * c->in_size;
        c->y_at = i * c->c_out * c->out_size;
        c->weight_at = g * c->c_in * c->c_out * c->kernel_size;
        c->bias_at = g * c->c_out;
        ew_gen_mm_run(&mm);
    }
}

static ew_status conv_run(const struct ew_general_args *a, bool transposed)
{
    const struct ew_type *const tw = &a->in[1]->type;
    const int64_t group = a->attrs->conv.group;
    struct conv c = { .x = a->in[0],
                      .weight = a->in[1],
                      .bias = a->n_in > 2 ? a->in[2] : NULL,
                      .y = a->out[0],
                      .transposed = transposed };
    struct ew_window_spec spec;

    EW_TRY(ew_window_spec_conv(&a->attrs->conv, &c.x->type, tw, &spec, a->err));
    if (transposed)
        EW_TRY(ew_window_resolve_transposed(&spec, NULL, &c.w, a->err));
    else
        EW_TRY(ew_window_resolve(&spec, NULL, &c.w, a->err));
    c.in_size = (ptrdiff_t)ew_gen_product(&c.x->type, 2, c.x->type.n_dims);
    c.kernel_size = (ptrdiff_t)ew_gen_product(tw, 2, tw->n_dims);
    c.out_size = (ptrdiff_t)ew_gen_product(&c.y->type, 2, c.y->type.n_dims);
    c.c_in = (ptrdiff_t)(transposed ? tw->dim[0] / group : tw->dim[1]);
    c.c_out = (ptrdiff_t)(transposed ? tw->dim[1] : tw->dim[0] / group);
    ew_gen_strides(c.w.n, c.w.in, c.in_stride);
    if (c.out_size > 0)
        run_groups(a, &c);
    return EW_STATUS_OK;
}

ew_status ew_gen_conv(const struct ew_general_args *a)
{
    return conv_run(a, false);
}

ew_status ew_gen_conv_transpose(const struct ew_general_args *a)
{
    return conv_run(a, true);
}

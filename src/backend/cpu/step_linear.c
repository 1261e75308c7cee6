/* backend/cpu/step_linear.c - Linear: units of the packed weight are split between the threads;
 * before that rows of x are rounded, where the node asks and the kernel does not, and brought into
 * the form that the kernel reads. Every thread does that for itself when x is short: a barrier
 * costs more. */
#include "backend/cpu/steps.h"

#include "kernels/xquant.h"
#include "os/os.h"

#define OWN_VALUES 8192 /* x of so many elements is brought into form by every thread */
#define GRAIN_FEW  4    /* units; as many panels as a kernel has in flight */
#define GRAIN_MANY 8    /* with many rows a unit is long */
#define MANY_ROWS  16

struct linear_step {
    const struct ew_linear_kernel *kernel;
    struct ew_linear_args a;
    struct ew_x_rounding round; /* kind NONE: the kernel sees x itself */
    size_t n_units, grain;
    size_t own_x, own_form; /* bytes at the front of each thread's scratch: x of the norm before
                             * this step, then its form; 0: in one place for all */
};

/* Bytes of rounded x in front of the prepared form, in the scratch. */
static size_t rounded_bytes(const struct linear_step *l)
{
    return l->round.kind == EW_XQ_NONE ? 0 : (l->a.m * l->a.k * sizeof(float) + 63) / 64 * 64;
}

/* Rows of x rounded, then in the kernel's own form. Returns what the kernel is to see. */
static struct ew_linear_args first_form(const struct linear_step *l, const float *x, uint8_t *to)
{
    struct ew_linear_args a = l->a;

    a.x = x;
    if (l->round.kind != EW_XQ_NONE) {
        a.x = (const float *)(const void *)to;
        a.x_stride = a.k;
    }
    if (l->kernel->prepare)
        a.prepared = to + rounded_bytes(l);
    return a;
}

static void make_form(const struct linear_step *l, const float *x, uint8_t *to, unsigned i,
                      unsigned n)
{
    const struct ew_linear_args a = first_form(l, x, to);
    size_t begin, end;

    ew_split_range(a.m, 1, i, n, &begin, &end);
    for (size_t m = begin; m < end && l->round.kind != EW_XQ_NONE; m++)
        ew_x_round_row(&l->round, (float *)(void *)to + m * a.k, x + m * l->a.x_stride, a.k);
    if (begin < end && l->kernel->prepare)
        l->kernel->prepare(&a, begin, end, to + rounded_bytes(l));
}

static void linear_run(const struct ew_step *s, struct ew_exec *x, unsigned phase, unsigned i,
                       unsigned n)
{
    const struct linear_step *l = s->args;
    uint8_t *const own = x->thread + i * x->thread_stride;
    const float *const in = l->own_x && i ? (const float *)(const void *)own : l->a.x;
    uint8_t *const form = l->own_form ? own + l->own_x : x->shared;
    const struct ew_linear_args a = first_form(l, in, form);
    struct ew_units units;
    size_t begin, end;

    if (phase + 1 < s->n_phases) {
        make_form(l, in, form, i, n);
        return;
    }
    if (l->own_form)
        make_form(l, in, form, 0, 1);
    ew_units_begin(&units, x->pool, i, n, l->n_units, l->grain);
    while (ew_units_next(&units, &begin, &end))
        l->kernel->run(&a, begin, end, own + l->own_x + l->own_form);
}

/* Where rounded and prepared x go, and in whose time they are made. */
static void plan_form(struct ew_step_list *list, struct ew_step *s, struct linear_step *l)
{
    const struct ew_linear_args *a = &l->a;
    const size_t bytes =
        rounded_bytes(l) + ew_linear_prepared_bytes(l->kernel, a->format, a->m, a->k);

    if (a->m * a->k <= OWN_VALUES) {
        l->own_form = (bytes + 63) / 64 * 64;
    } else if (bytes) {
        s->n_phases = 2;
        list->shared_bytes = ew_max_size(list->shared_bytes, bytes);
    }
    list->thread_bytes =
        ew_max_size(list->thread_bytes,
                    l->own_x + l->own_form + l->kernel->scratch_bytes(a->format, a->m, a->n, a->k));
}

ew_status ew_emit_linear(struct ew_step_list *list, const struct ew_emit *e, ew_error *err)
{
    const struct ew_attr_linear *at = &e->node->attrs.linear;
    const struct ew_packed *w = e->packed[1];
    const struct ew_type *xt = &e->in[0]->type;
    struct ew_linear_args a = { 0 };
    struct linear_step *l;
    struct ew_step *s;
    bool own_x;
    size_t count;

    if (!w || !ew_type_count(xt, &count) || xt->n_dims < 1 ||
        xt->dim[xt->n_dims - 1] != (int64_t)w->k)
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "weight is not packed for this input");
    a.n = (size_t)w->n;
    a.k = (size_t)w->k;
    a.m = count / a.k;
    if (!a.m)
        return EW_STATUS_OK;
    EW_TRY(ew_emit_f32_in(list, e, 0, &a.x, err));
    EW_TRY(ew_emit_f32_in(list, e, 2, &a.bias, err));
    EW_TRY(ew_emit_f32_in(list, e, 3, &a.residual, err));
    EW_TRY(ew_emit_f32_out(list, e, 0, &a.y, err));
    a.x_stride = a.k;
    a.y_stride = w->glu ? a.n / 2 : a.n;
    a.residual_stride = a.y_stride;
    a.w = e->in[1]->data;
    a.format = &w->format;
    a.act = at->act;
    a.glu = w->glu;
    a.scale = at->scale;
    a.softcap = at->softcap;
    own_x = ew_norm_for_each(list, a.x, a.y, a.m * a.y_stride);
    s = ew_step_add(list, e, linear_run, sizeof(*l), &l);
    if (!s)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "launch list");
    l->kernel = w->kernel;
    l->a = a;
    l->n_units = w->kernel->n_units(a.n, a.glu);
    l->grain = a.m < MANY_ROWS ? GRAIN_FEW : GRAIN_MANY;
    l->own_x = own_x ? (a.m * a.k * sizeof(float) + 63) / 64 * 64 : 0;
    if (w->kernel->x_quant == EW_XQ_NONE)
        l->round = (struct ew_x_rounding){ ew_x_quant_of_x(at->x_quant), (size_t)at->x_block,
                                           at->x_scale };
    plan_form(list, s, l);
    s->tactic = w->kernel->name;
    s->flops = 2ull * a.m * a.n * a.k;
    s->bytes = w->expert_bytes + 4ull * a.m * (a.k + a.y_stride);
    return ew_emit_f32_out_end(list, e, 0, a.y, err);
}

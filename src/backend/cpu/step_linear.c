/* backend/cpu/step_linear.c - Linear: units of the packed weight are split between the threads;
 * before that, where the node rounds x and the kernel does not, rows of x are rounded. */
#include "backend/cpu/steps.h"

#include "kernels/xquant.h"
#include "os/os.h"

struct linear_step {
    const struct ew_linear_kernel *kernel;
    struct ew_linear_args a;
    struct ew_x_rounding round; /* kind NONE: the kernel sees x itself */
    size_t n_units;
};

static void round_rows(const struct linear_step *l, float *dst, unsigned i, unsigned n)
{
    size_t begin, end;

    ew_split_range(l->a.m, 1, i, n, &begin, &end);
    for (size_t m = begin; m < end; m++)
        ew_x_round_row(&l->round, dst + m * l->a.k, l->a.x + m * l->a.x_stride, l->a.k);
}

static void linear_run(const struct ew_step *s, struct ew_exec *x, unsigned phase, unsigned i,
                       unsigned n)
{
    const struct linear_step *l = s->args;
    const bool rounds = l->round.kind != EW_XQ_NONE;
    struct ew_linear_args a = l->a;
    size_t begin, end;

    if (rounds && phase == 0) {
        round_rows(l, (float *)(void *)x->shared, i, n);
        return;
    }
    if (rounds) {
        a.x = (const float *)(const void *)x->shared;
        a.x_stride = a.k;
    }
    ew_split_range(l->n_units, 1, i, n, &begin, &end);
    if (begin < end)
        l->kernel->run(&a, begin, end, x->thread + i * x->thread_stride);
}

ew_status ew_emit_linear(struct ew_step_list *list, const struct ew_emit *e, ew_error *err)
{
    const struct ew_attr_linear *at = &e->node->attrs.linear;
    const struct ew_packed *w = e->packed[1];
    const struct ew_type *xt = &e->in[0]->type;
    struct ew_linear_args a = { 0 };
    struct linear_step *l;
    struct ew_step *s;
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
    s = ew_step_add(list, e, linear_run, sizeof(*l), &l);
    if (!s)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "launch list");
    l->kernel = w->kernel;
    l->a = a;
    l->n_units = w->kernel->n_units(a.n, a.glu);
    list->thread_bytes =
        ew_max_size(list->thread_bytes, w->kernel->scratch_bytes(a.format, a.m, a.n, a.k));
    if (at->x_quant != w->kernel->x_quant) {
        l->round = (struct ew_x_rounding){ at->x_quant, (size_t)at->x_block, at->x_scale };
        s->n_phases = 2;
        list->shared_bytes = ew_max_size(list->shared_bytes, a.m * a.k * sizeof(float));
    }
    s->tactic = w->kernel->name;
    s->flops = 2ull * a.m * a.n * a.k;
    s->bytes = w->expert_bytes + 4ull * a.m * (a.k + a.y_stride);
    return ew_emit_f32_out_end(list, e, 0, a.y, err);
}

/* backend/cpu/step_moe.c - Moe: route, group rows by expert, gate/up, down, add up.
 *
 * The grouping order is (expert, row); the sum over a row's experts runs in the order its router
 * gave them. Both depend on nothing beside the row itself, so results do not depend on the batch or
 * the threads. */
#include <string.h>

#include "backend/cpu/steps.h"

#include "base/size.h"
#include "kernels/xquant.h"

struct moe_step {
    const struct ew_rowops *ops;
    const struct ew_packed *up, *down; /* in the plan */
    const uint8_t *up_w, *down_w;
    const float *x, *logits;
    float *y;
    size_t rows, h, inner, e, k;
    int norm_topk, act;
    struct ew_x_rounding up_round, down_round; /* kind NONE: the kernel sees x itself */
};

struct moe_work {   /* carved from the run's shared scratch */
    int32_t *idx;   /* [rows][k] expert of a row's j-th choice */
    float *prob;    /* [rows][k] */
    int32_t *slot;  /* [rows][k] place in the grouped order */
    int32_t *row;   /* [rows*k] row of a place */
    int32_t *first; /* [e+1] places of an expert */
    float *x, *mid, *out;
    uint8_t *up_form, *down_form; /* x and mid in their kernels' own form, where they have one */
};

static size_t carve(uint8_t *base, const struct moe_step *m, struct moe_work *w)
{
    const size_t rk = m->rows * m->k;
    const size_t want[] = { rk * 4,
                            rk * 4,
                            rk * 4,
                            rk * 4,
                            (m->e + 1) * 4,
                            rk * m->h * 4,
                            rk * m->inner * 4,
                            rk * m->h * 4,
                            ew_linear_prepared_bytes(m->up->kernel, &m->up->format, rk, m->h),
                            ew_linear_prepared_bytes(m->down->kernel, &m->down->format, rk,
                                                     m->inner) };
    void *at[EW_COUNT(want)];
    size_t off = 0;

    for (size_t i = 0; i < EW_COUNT(want); i++) {
        at[i] = base ? base + off : NULL;
        off += (want[i] + 63) & ~(size_t)63;
    }
    *w = (struct moe_work){ at[0], at[1], at[2], at[3], at[4], at[5], at[6], at[7], at[8], at[9] };
    return off;
}

static void group(const struct moe_step *m, const struct moe_work *w)
{
    const size_t rk = m->rows * m->k;

    memset(w->first, 0, (m->e + 1) * sizeof(*w->first));
    for (size_t i = 0; i < rk; i++) {
        if (w->idx[i] < 0 || (size_t)w->idx[i] >= m->e)
            w->idx[i] = 0; /* a router of NaNs: NaN results, but no stray index */
        w->first[w->idx[i] + 1]++;
    }
    for (size_t e = 0; e < m->e; e++)
        w->first[e + 1] += w->first[e];
    for (size_t i = 0; i < rk; i++) { /* first[e] walks through expert e's places */
        const int32_t place = w->first[w->idx[i]]++;

        w->slot[i] = place;
        w->row[place] = (int32_t)(i / m->k);
    }
    memmove(w->first + 1, w->first, m->e * sizeof(*w->first));
    w->first[0] = 0;
}

/* One of the two products for every expert that has rows; units of all those experts are split as
 * one range. */
static void expert_linear(const struct moe_step *m, const struct moe_work *w, bool up, unsigned i,
                          unsigned n, void *scratch)
{
    const struct ew_packed *p = up ? m->up : m->down;
    const size_t per = p->kernel->n_units((size_t)p->n, p->glu);
    size_t n_active = 0, seen = 0, begin, end;

    for (size_t e = 0; e < m->e; e++)
        n_active += w->first[e + 1] > w->first[e];
    ew_split_range(n_active * per, 1, i, n, &begin, &end);
    for (size_t e = 0; e < m->e; e++) {
        const size_t at = (size_t)w->first[e], rows = (size_t)w->first[e + 1] - at;
        const size_t lo = seen * per, hi = lo + per;

        if (!rows)
            continue;
        seen++;
        if (hi <= begin || lo >= end)
            continue;
        struct ew_linear_args a = {
            .m = rows, .n = (size_t)p->n, .k = (size_t)p->k, .scale = 1.0f
        };
        a.x = up ? w->x + at * m->h : w->mid + at * m->inner;
        a.x_stride = a.k;
        a.w = (up ? m->up_w : m->down_w) + e * p->expert_bytes;
        a.y = up ? w->mid + at * m->inner : w->out + at * m->h;
        a.y_stride = up ? m->inner : m->h;
        if (p->kernel->prepare)
            a.prepared = (up ? w->up_form : w->down_form) +
                         at * p->kernel->prepared_row_bytes(&p->format, a.k);
        a.glu = up;
        a.format = &p->format;
        a.act = up ? m->act : EW_ACT_NONE;
        p->kernel->run(&a, (begin > lo ? begin : lo) - lo, (end < hi ? end : hi) - lo, scratch);
    }
}

/* Rows [begin, end) of x or mid: rounded in place, then in the kernel's own form. */
static void make_form(const struct moe_step *m, const struct moe_work *w, bool up, size_t begin,
                      size_t end)
{
    const struct ew_packed *p = up ? m->up : m->down;
    const struct ew_x_rounding *round = up ? &m->up_round : &m->down_round;
    const size_t k = (size_t)p->k;
    float *x = up ? w->x : w->mid;
    const struct ew_linear_args a = { .x = x, .x_stride = k, .k = k, .format = &p->format };

    for (size_t r = begin; r < end && round->kind != EW_XQ_NONE; r++)
        ew_x_round_row(round, x + r * k, x + r * k, k);
    if (begin < end && p->kernel->prepare)
        p->kernel->prepare(&a, begin, end, up ? w->up_form : w->down_form);
}

static void add_up(const struct moe_step *m, const struct moe_work *w, size_t begin, size_t end)
{
    for (size_t r = begin; r < end; r++) {
        float *y = m->y + r * m->h;

        memset(y, 0, m->h * sizeof(*y));
        for (size_t j = 0; j < m->k; j++) {
            const float p = w->prob[r * m->k + j];
            const float *o = w->out + (size_t)w->slot[r * m->k + j] * m->h;

            for (size_t c = 0; c < m->h; c++)
                y[c] += p * o[c];
        }
    }
}

static void moe_run(const struct ew_step *s, struct ew_exec *x, unsigned phase, unsigned i,
                    unsigned n)
{
    const struct moe_step *m = s->args;
    void *scratch = x->thread + i * x->thread_stride;
    struct moe_work w;
    size_t begin, end;

    carve(x->shared, m, &w);
    switch (phase) {
    case 0:
        ew_split_range(m->rows, 1, i, n, &begin, &end);
        if (begin < end)
            m->ops->topk_softmax(m->logits + begin * m->e, end - begin, m->e, m->k, m->norm_topk,
                                 w.idx + begin * m->k, w.prob + begin * m->k);
        break;
    case 1:
        if (i == 0)
            group(m, &w);
        break;
    case 2:
        ew_split_range(m->rows * m->k, 1, i, n, &begin, &end);
        for (size_t r = begin; r < end; r++)
            memcpy(w.x + r * m->h, m->x + (size_t)w.row[r] * m->h, m->h * sizeof(float));
        make_form(m, &w, true, begin, end);
        break;
    case 3:
        expert_linear(m, &w, true, i, n, scratch);
        break;
    case 4:
        ew_split_range(m->rows * m->k, 1, i, n, &begin, &end);
        make_form(m, &w, false, begin, end);
        break;
    case 5:
        expert_linear(m, &w, false, i, n, scratch);
        break;
    default:
        ew_split_range(m->rows, 1, i, n, &begin, &end);
        add_up(m, &w, begin, end);
        break;
    }
}

static ew_status moe_sizes(const struct ew_emit *e, struct moe_step *m, ew_error *err)
{
    const struct ew_attr_moe *at = &e->node->attrs.moe;
    const struct ew_type *x = &e->in[0]->type, *r = &e->in[1]->type;
    size_t count, r_count;

    m->up = e->packed[2];
    m->down = e->packed[3];
    if (!m->up || !m->down || x->n_dims < 1 || r->n_dims < 1 || !ew_type_count(x, &count) ||
        !ew_type_count(r, &r_count))
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "experts are not packed");
    m->h = (size_t)x->dim[x->n_dims - 1];
    m->e = (size_t)r->dim[r->n_dims - 1];
    m->inner = (size_t)m->up->n / 2;
    m->k = (size_t)at->top_k;
    if (m->h != m->up->k || m->h != m->down->n || m->inner != m->down->k ||
        m->e != m->up->n_experts || m->e != m->down->n_experts)
        return ew_fail(err, EW_STATUS_MISMATCH,
                       "%zu experts of width %zu x %zu, packed %llu of %llu x %llu", m->e, m->h,
                       m->inner, (unsigned long long)m->down->n_experts,
                       (unsigned long long)m->down->n, (unsigned long long)m->down->k);
    if (at->top_k < 1 || m->k > m->e)
        return ew_fail(err, EW_STATUS_MALFORMED, "top_k is %lld of %zu experts",
                       (long long)at->top_k, m->e);
    m->rows = m->h ? count / m->h : 0;
    if (m->rows * m->e != r_count)
        return ew_fail(err, EW_STATUS_MISMATCH, "%zu rows, router has %zu values for %zu experts",
                       m->rows, r_count, m->e);
    return EW_STATUS_OK;
}

ew_status ew_emit_moe(struct ew_step_list *list, const struct ew_emit *e, ew_error *err)
{
    const struct ew_attr_moe *at = &e->node->attrs.moe;
    struct moe_step m = { .ops = e->plan->rowops, .norm_topk = at->norm_topk, .act = at->act };
    struct moe_step *step;
    struct moe_work unused;
    struct ew_step *s;
    size_t active;

    EW_TRY(moe_sizes(e, &m, err));
    if (m.up->kernel->x_quant == EW_XQ_NONE)
        m.up_round =
            (struct ew_x_rounding){ ew_x_quant_of_x(at->x_quant), (size_t)at->x_block, 1.0f };
    if (m.down->kernel->x_quant == EW_XQ_NONE)
        m.down_round =
            (struct ew_x_rounding){ ew_x_quant_of_x(at->x_quant), (size_t)at->x_block, 1.0f };
    if (!m.rows)
        return EW_STATUS_OK;
    EW_TRY(ew_emit_f32_in(list, e, 0, &m.x, err));
    EW_TRY(ew_emit_f32_in(list, e, 1, &m.logits, err));
    EW_TRY(ew_emit_f32_out(list, e, 0, &m.y, err));
    m.up_w = e->in[2]->data;
    m.down_w = e->in[3]->data;
    s = ew_step_add(list, e, moe_run, sizeof(*step), &step);
    if (!s)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "launch list");
    *step = m;
    s->n_phases = 7;
    s->tactic = m.up->kernel->name;
    list->shared_bytes = ew_max_size(list->shared_bytes, carve(NULL, &m, &unused));
    list->thread_bytes =
        ew_max_size(list->thread_bytes,
                    m.up->kernel->scratch_bytes(&m.up->format, m.rows, (size_t)m.up->n, m.h));
    list->thread_bytes = ew_max_size(
        list->thread_bytes, m.down->kernel->scratch_bytes(&m.down->format, m.rows, m.h, m.inner));
    active = m.rows * m.k < m.e ? m.rows * m.k : m.e;
    s->bytes = active * (m.up->expert_bytes + m.down->expert_bytes);
    s->flops = 2ull * m.rows * m.k * 3 * m.h * m.inner;
    return ew_emit_f32_out_end(list, e, 0, m.y, err);
}

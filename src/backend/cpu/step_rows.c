/* backend/cpu/step_rows.c - FusedRmsNorm by rows, and Pointwise programs by blocks of elements
 * under broadcasting. */
#include <string.h>

#include "backend/cpu/steps.h"

#include "base/size.h"

#define GRAIN_ROWS   8
#define GRAIN_BLOCKS 4
#define EACH_VALUES  4096 /* a norm of so few costs less than handing it over */

struct norm_step {
    const struct ew_rowops *ops;
    float *y;
    const float *x, *w, *residual;
    size_t rows, n;
    float eps;
};

static void norm_run(const struct ew_step *s, struct ew_exec *x, unsigned phase, unsigned i,
                     unsigned n)
{
    const struct norm_step *r = s->args;
    struct ew_units units;
    size_t begin, end;

    (void)phase;
    if (s->each) {
        float *const own = (float *)(void *)(x->thread + i * x->thread_stride);

        r->ops->rmsnorm(i ? own : r->y, r->x, r->w, r->residual, r->rows, r->n, r->eps);
        return;
    }
    ew_units_begin(&units, x->pool, i, n, r->rows, GRAIN_ROWS);
    while (ew_units_next(&units, &begin, &end))
        r->ops->rmsnorm(r->y + begin * r->n, r->x + begin * r->n, r->w,
                        r->residual ? r->residual + begin * r->n : NULL, end - begin, r->n, r->eps);
}

static bool overlap(const float *a, size_t n_a, const float *b, size_t n_b)
{
    return a && b && (uintptr_t)a < (uintptr_t)(b + n_b) && (uintptr_t)b < (uintptr_t)(a + n_a);
}

/* While one thread writes y of the step behind the norm, another may still read what the norm
 * reads. */
bool ew_norm_for_each(struct ew_step_list *list, const float *x, const float *y, size_t n_y)
{
    struct ew_step *const s = list->n > list->n_ran ? &list->steps[list->n - 1] : NULL;
    const struct norm_step *const r = s && s->fn == norm_run ? s->args : NULL;

    if (!r || r->y != x || r->rows * r->n > EACH_VALUES)
        return false;
    const struct {
        const float *at;
        size_t n;
    } in[] = { { r->x, r->rows * r->n }, { r->residual, r->rows * r->n }, { r->w, r->n } };
    for (size_t k = 0; k < EW_COUNT(in); k++)
        if (overlap(in[k].at, in[k].n, y, n_y) || overlap(in[k].at, in[k].n, r->y, r->rows * r->n))
            return false;
    s->serial = false;
    s->each = true;
    list->thread_bytes = ew_max_size(list->thread_bytes, r->rows * r->n * sizeof(float));
    return true;
}

ew_status ew_emit_rms_norm(struct ew_step_list *list, const struct ew_emit *e, ew_error *err)
{
    const struct ew_type *t = &e->in[0]->type;
    struct norm_step r = { .ops = e->plan->rowops, .eps = e->node->attrs.fused_rms_norm.epsilon };
    struct norm_step *step;
    struct ew_step *s;
    size_t count, w_count;

    if (t->n_dims < 1 || !ew_type_count(t, &count) || !ew_type_count(&e->in[1]->type, &w_count))
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "a norm of a scalar");
    r.n = (size_t)t->dim[t->n_dims - 1];
    if (w_count != r.n)
        return ew_fail(err, EW_STATUS_MISMATCH, "weight has %zu values, rows have %zu", w_count,
                       r.n);
    if (!count)
        return EW_STATUS_OK;
    r.rows = count / r.n;
    EW_TRY(ew_emit_f32_in(list, e, 0, &r.x, err));
    EW_TRY(ew_emit_f32_in(list, e, 1, &r.w, err));
    EW_TRY(ew_emit_f32_in(list, e, 2, &r.residual, err));
    EW_TRY(ew_emit_f32_out(list, e, 0, &r.y, err));
    s = ew_step_add(list, e, norm_run, sizeof(*step), &step);
    if (!s)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "launch list");
    *step = r;
    s->serial = r.rows == 1;
    s->tactic = r.ops->name;
    s->bytes = 8ull * count;
    s->flops = 4ull * count;
    return ew_emit_f32_out_end(list, e, 0, r.y, err);
}

/* The output is walked as [outer][inner]: inside `inner` every input is dense or constant. */
struct pointwise_step {
    const struct ew_rowops *ops;
    const struct ew_attr_pointwise *program;
    float *y;
    size_t n_in, outer, inner, block, n_blocks;
    const float *in[8];
    size_t step[8]; /* inside inner: 0 or 1 */
    int n_dims;     /* of outer */
    size_t dim[EW_MAX_DIMS];
    size_t stride[8][EW_MAX_DIMS]; /* of input k along outer axis d, in elements */
};

static void pointwise_blocks(const struct pointwise_step *p, size_t begin, size_t end)
{
    for (size_t u = begin; u < end; u++) {
        const size_t at = u % p->n_blocks * p->block;
        const size_t len = p->inner - at < p->block ? p->inner - at : p->block;
        const float *in[8];
        size_t o = u / p->n_blocks;
        size_t off[8] = { 0 };

        for (int d = p->n_dims - 1; d >= 0; d--) {
            const size_t idx = o % p->dim[d];

            o /= p->dim[d];
            for (size_t k = 0; k < p->n_in; k++)
                off[k] += idx * p->stride[k][d];
        }
        for (size_t k = 0; k < p->n_in; k++)
            in[k] = p->in[k] + off[k] + at * p->step[k];
        p->ops->pointwise(p->program, p->y + u / p->n_blocks * p->inner + at, in, p->step, p->n_in,
                          len);
    }
}

static void pointwise_run(const struct ew_step *s, struct ew_exec *x, unsigned phase, unsigned i,
                          unsigned n)
{
    const struct pointwise_step *p = s->args;
    struct ew_units units;
    size_t begin, end;

    (void)phase;
    ew_units_begin(&units, x->pool, i, n, p->outer * p->n_blocks, GRAIN_BLOCKS);
    while (ew_units_next(&units, &begin, &end))
        pointwise_blocks(p, begin, end);
}

/* Dim of input t on output axis d, and its element stride there. */
static int64_t aligned_dim(const struct ew_type *t, int out_dims, int d, size_t *stride)
{
    const int a = d - (out_dims - t->n_dims);
    size_t s = 1;

    *stride = 0;
    if (a < 0)
        return 1;
    for (int j = t->n_dims - 1; j > a; j--)
        s *= (size_t)t->dim[j];
    *stride = t->dim[a] == 1 ? 0 : s;
    return t->dim[a];
}

static void pointwise_walk(struct pointwise_step *p, const struct ew_emit *e)
{
    const struct ew_type *y = &e->out[0]->type;
    int state[8] = { 0 }; /* 0 undecided, 1 dense, 2 constant */
    int cut = y->n_dims;
    size_t unused;

    p->inner = 1;
    for (bool fits = true; cut > 0; cut--) {
        for (size_t k = 0; k < p->n_in && y->dim[cut - 1] != 1; k++) {
            const int want = aligned_dim(&e->in[k]->type, y->n_dims, cut - 1, &unused) == 1 ? 2 : 1;

            fits = fits && (state[k] == 0 || state[k] == want);
        }
        if (!fits)
            break;
        for (size_t k = 0; k < p->n_in && y->dim[cut - 1] != 1; k++)
            state[k] = aligned_dim(&e->in[k]->type, y->n_dims, cut - 1, &unused) == 1 ? 2 : 1;
        p->inner *= (size_t)y->dim[cut - 1];
    }
    p->outer = 1;
    p->n_dims = cut;
    for (int d = 0; d < cut; d++) {
        p->dim[d] = (size_t)y->dim[d];
        p->outer *= p->dim[d];
        for (size_t k = 0; k < p->n_in; k++)
            aligned_dim(&e->in[k]->type, y->n_dims, d, &p->stride[k][d]);
    }
    for (size_t k = 0; k < p->n_in; k++)
        p->step[k] = state[k] == 1;
    p->block = 4096;
    p->n_blocks = (p->inner + p->block - 1) / p->block;
}

ew_status ew_emit_pointwise(struct ew_step_list *list, const struct ew_emit *e, ew_error *err)
{
    struct pointwise_step *p;
    struct ew_step *s;
    const float *in[8];
    float *y;
    size_t count;

    if (e->node->n_in > 8 || !ew_type_count(&e->out[0]->type, &count))
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "%u inputs", e->node->n_in);
    if (!count)
        return EW_STATUS_OK;
    for (int k = 0; k < (int)e->node->n_in; k++)
        EW_TRY(ew_emit_f32_in(list, e, k, &in[k], err));
    EW_TRY(ew_emit_f32_out(list, e, 0, &y, err));
    s = ew_step_add(list, e, pointwise_run, sizeof(*p), &p);
    if (!s)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "launch list");
    p->ops = e->plan->rowops;
    p->program = &e->node->attrs.pointwise;
    p->y = y;
    p->n_in = e->node->n_in;
    memcpy(p->in, in, p->n_in * sizeof(in[0]));
    pointwise_walk(p, e);
    s->serial = p->outer * p->n_blocks == 1;
    s->tactic = p->ops->name;
    s->bytes = 4ull * count * (p->n_in + 1);
    s->flops = (uint64_t)count * (uint64_t)p->program->n_instr;
    return ew_emit_f32_out_end(list, e, 0, y, err);
}

/* backend/cuda/emit_linear.c - Linear: which kernel multiplies how many rows, and its launches. */
#include <string.h>

#include "backend/cuda/cuda.h"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/step.h"

static uint64_t address(const void *p)
{
    return (uint64_t)(uintptr_t)p;
}

const struct ew_plan_tactic *ew_cuda_tactic_of(const struct ew_plan *p,
                                               const struct ew_plan_tensor *t)
{
    for (uint32_t i = 0; i < p->n_tactics; i++) {
        const struct ew_plan_tactic *k = &p->tactics[i];

        if (k->dtype == t->dtype && k->n == t->packed.n && k->k == t->packed.k &&
            k->glu == t->packed.glu && k->x_quant == t->packed.x_quant &&
            ew_quant_format_equal(&k->format, &t->packed.format))
            return k;
    }
    return NULL;
}

static bool runs(const struct ew_cuda_linear_kernel *k, const struct ew_cuda_chip *chip,
                 ew_dtype dtype, const struct ew_packed *w, uint64_t m)
{
    return k->layout == w->kernel &&
           ew_cuda_linear_kernel_runs(k, chip, dtype, &w->format, (size_t)m, (size_t)w->n,
                                      (size_t)w->k, w->glu, w->x_quant);
}

bool ew_cuda_linear_covers(const struct ew_cuda_chip *chip, const struct ew_linear_kernel *layout,
                           const struct ew_plan_tactic *t)
{
    const struct ew_packed w = { .kernel = layout,
                                 .format = t->format,
                                 .x_quant = t->x_quant,
                                 .n = t->n,
                                 .k = t->k,
                                 .glu = t->glu };
    size_t n;
    const struct ew_cuda_linear_kernel *const *all = ew_cuda_linear_kernels(&n);

    for (size_t i = 0; i < n; i++)
        if (all[i]->max_rows == SIZE_MAX && runs(all[i], chip, t->dtype, &w, 1u << 20))
            return true;
    return false;
}

/* Without a measurement: the kernel made for the fewest rows that still takes m; of two, the one
 * that rounds x, which is the faster way. */
static bool better(const struct ew_cuda_linear_kernel *a, const struct ew_cuda_linear_kernel *b)
{
    if (!b || a->max_rows != b->max_rows)
        return !b || a->max_rows < b->max_rows;
    return a->x_error > b->x_error;
}

const struct ew_cuda_linear_kernel *ew_cuda_linear_choose(const struct ew_plan *p,
                                                          const struct ew_cuda_chip *chip,
                                                          ew_dtype dtype, const struct ew_packed *w,
                                                          uint64_t m, bool exact)
{
    const struct ew_cuda_linear_kernel *best = NULL;
    const struct ew_plan_tensor t = { .dtype = dtype, .packed = *w };
    const struct ew_plan_tactic *tactic = ew_cuda_tactic_of(p, &t);
    size_t n;
    const struct ew_cuda_linear_kernel *const *all = ew_cuda_linear_kernels(&n);

    for (size_t i = 0; i < n && exact; i++)
        if (!all[i]->library && runs(all[i], chip, dtype, w, m) &&
            (!best || all[i]->x_error < best->x_error))
            best = all[i];
    if (best)
        return best;
    for (uint32_t i = 0; tactic && i < tactic->n_switches; i++)
        if (m <= tactic->switches[i].max_m) {
            best = ew_cuda_linear_kernel_find(tactic->switches[i].kernel);
            if (best && runs(best, chip, dtype, w, m))
                return best;
            break;
        }
    best = NULL;
    for (size_t i = 0; i < n; i++) /* a library is asked where it was seen to be faster, alone */
        if (!all[i]->library && runs(all[i], chip, dtype, w, m) && better(all[i], best))
            best = all[i];
    return best;
}

/* Experts are picked by these sums: a rounding there is another expert, not another last bit. */
bool ew_cuda_is_router(const struct ew_plan *p, uint32_t t)
{
    for (uint32_t i = 0; i < p->n_nodes; i++)
        if (p->nodes[i].op == EW_OP_MOE && p->nodes[i].in[1] == t)
            return true;
    return false;
}

static ew_status operands(struct ew_cuda_work *w, struct ew_cuda_linear_problem *p, float **y,
                          ew_error *err)
{
    const float *x, *bias, *residual;

    EW_TRY(ew_cuda_f32_in(w, 0, &x, err));
    EW_TRY(ew_cuda_f32_in(w, 2, &bias, err));
    EW_TRY(ew_cuda_f32_in(w, 3, &residual, err));
    EW_TRY(ew_cuda_f32_out(w, 0, y, err));
    p->x = address(x);
    p->bias = address(bias);
    p->residual = address(residual);
    p->y = address(*y);
    return EW_STATUS_OK;
}

static bool overlap(uint64_t a, size_t n_a, uint64_t b, size_t n_b)
{
    return a < b + n_b && b < a + n_a;
}

/* cuBLASLt's algorithms are chosen for rows at multiples of 16 bytes: what a caller binds may lie
 * elsewhere, and is multiplied by the kernel that would without the library. */
static const struct ew_cuda_linear_kernel *if_aligned(const struct ew_emit *e,
                                                      const struct ew_cuda_linear_kernel *k,
                                                      const struct ew_cuda_linear_problem *p)
{
    struct ew_cuda_chip without = ew_cuda_of(e)->chip;

    if (!k->library || p->y_short || (p->x | p->y | p->residual) % 16 == 0)
        return k;
    without.cublaslt = 0;
    return ew_cuda_linear_choose(e->plan, &without, e->in[1]->type.dtype, e->packed[1], p->m,
                                 false);
}

/* The norm before this Linear, when that is what the list's last step is for and the kernel can do
 * it: a launch less. The norm's own input may be dead by now, and y in its place: then it stays. */
static const struct ew_cuda_step *norm_before(const struct ew_step_list *list,
                                              const struct ew_cuda_linear_kernel *k,
                                              const struct ew_cuda_linear_problem *p)
{
    const struct ew_cuda_step *s = list->n > list->n_ran ? list->steps[list->n - 1].args : NULL;
    const size_t n_y = p->m * (size_t)p->y_stride * sizeof(float);

    if (!k->takes_norm || !s || !s->norm.y || address(s->norm.y) != p->x || s->norm.n != p->k ||
        s->norm.rows != p->m ||
        overlap(p->y, n_y, address(s->norm.x), p->m * p->k * sizeof(float)) ||
        overlap(p->y, n_y, address(s->norm.w), p->k * sizeof(float)))
        return NULL;
    return s;
}

/* Addresses tell at run time alone whether a norm is taken in: an engine has kernels for both. */
static void see_without_norm(const struct ew_cuda *cuda, const struct ew_cuda_linear_kernel *k,
                             const struct ew_cuda_linear_problem *p)
{
    struct ew_cuda_launch l[EW_CUDA_LINEAR_LAUNCHES];
    const size_t n = cuda->see ? k->plan(&cuda->chip, p, l) : 0;

    for (size_t i = 0; i < n; i++)
        cuda->see(cuda->see_ctx, &l[i]);
}

/* The launch before that brings weights into L2 while others work is told of this one's. */
static void tell_ahead(const struct ew_step_list *list, const struct ew_cuda_launch *l)
{
    for (size_t i = list->n; l->reads.bytes && i > list->n_ran; i--) {
        struct ew_cuda_step *s;

        memcpy(&s, &list->steps[i - 1].args, sizeof(s)); /* of a list that is being made */
        if (s->kind == EW_CUDA_STEP_LAUNCH && s->launch.ahead_at) {
            memcpy(s->launch.args + s->launch.ahead_at, &l->reads, sizeof(l->reads));
            return;
        }
    }
}

ew_status ew_cuda_emit_linear(struct ew_step_list *list, const struct ew_emit *e, ew_error *err)
{
    const struct ew_attr_linear *at = &e->node->attrs.linear;
    const struct ew_cuda *cuda = ew_cuda_of(e);
    const struct ew_packed *w = e->packed[1];
    const struct ew_type *xt = &e->in[0]->type;
    struct ew_cuda_launch launches[EW_CUDA_LINEAR_LAUNCHES];
    struct ew_cuda_work work = { e, list, 0 };
    struct ew_cuda_linear_problem p = { 0 };
    const struct ew_cuda_linear_kernel *k;
    const struct ew_cuda_step *norm;
    size_t count, n, bytes;
    char format[64];
    float *y;

    if (!w || !ew_type_count(xt, &count) || xt->n_dims < 1 ||
        xt->dim[xt->n_dims - 1] != (int64_t)w->k)
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "weight is not packed for this input");
    p.n = (size_t)w->n;
    p.k = (size_t)w->k;
    p.m = count / p.k;
    if (!p.m)
        return EW_STATUS_OK;
    k = ew_cuda_linear_choose(e->plan, &cuda->chip, e->in[1]->type.dtype, w, p.m,
                              ew_cuda_is_router(e->plan, e->node->out[0]));
    if (!k) {
        ew_quant_format_text(&w->format, format, sizeof(format));
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "no CUDA kernel multiplies %zu rows by [%zu,%zu] of %s on sm_%u", p.m, p.n,
                       p.k, ew_quant_is(&w->format) ? format : ew_dtype_text(e->in[1]->type.dtype),
                       cuda->chip.sm);
    }
    EW_TRY(operands(&work, &p, &y, err));
    p.w = address(e->in[1]->data);
    p.x_stride = p.k;
    p.y_stride = p.residual_stride = w->glu ? p.n / 2 : p.n;
    p.format = w->format;
    p.act = at->act;
    p.glu = w->glu;
    p.scale = at->scale;
    p.softcap = at->softcap;
    p.y_short = ew_cuda_is_short(e, e->node->out[0], p.m)
                    ? EW_DTYPE_BF16
                    : ew_cuda_short_heads(e, e->node->out[0], &e->out[0]->type);
    if (ew_cuda_is_short(e, e->node->in[0], p.m)) {
        p.prepared = p.x;
        p.prepared_stride = p.k;
        p.x = 0;
    }
    k = if_aligned(e, k, &p);
    norm = norm_before(list, k, &p);
    /* Kernels that prepare x in a launch of their own always do the norm there. */
    if (norm && (k->takes_prepared || k->prepares || !e->plan->device.split_norms)) {
        see_without_norm(cuda, k, &p);
        p.x = address(norm->norm.x);
        p.norm_weight = address(norm->norm.w);
        p.norm_eps = norm->norm.eps;
        list->n--;
    }
    bytes = k->workspace_bytes ? k->workspace_bytes(&cuda->chip, &p) : 0;
    if (bytes)
        p.workspace = address(ew_cuda_work_take(&work, bytes));
    n = k->plan(&cuda->chip, &p, launches);
    if (n)
        tell_ahead(list, &launches[n - 1]);
    EW_TRY(ew_cuda_emit_launches(list, e, launches, n, k->name,
                                 w->expert_bytes + 4ull * p.m * (p.k + p.y_stride),
                                 2ull * p.m * p.n * p.k, err));
    if (p.m <= EW_CUDA_DECODE_ROWS && n && e->out[0]->type.dtype == EW_DTYPE_F32) {
        const struct ew_cuda_decode_node node = {
            .kind = EW_CUDA_DECODE_LINEAR, .name = e->node->name, .layout = w->kernel, .problem = p
        };

        EW_TRY(ew_cuda_note_decode(list, &node, err));
    }
    return ew_cuda_f32_out_end(&work, 0, y, err);
}

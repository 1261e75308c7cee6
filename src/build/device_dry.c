/* build/device_dry.c - emission without a device: what kernels the engine will launch, and how much
 * working memory they need, at the shapes that tell kernels apart. Addresses are made up. */
#include "backend/cuda/cuda.h"
#include "build/build_impl.h"

#define FAKE_BASE ((uintptr_t)1 << 40)
#define FAKE_STEP ((uintptr_t)1 << 34)

struct dry {
    struct ew_build *b;
    struct ew_cuda *cuda;
    struct ew_type *in;   /* [n_inputs] */
    struct ew_view *view; /* [n_tensors] */
    const struct ew_view **node_in;
    const struct ew_packed **packed;
    struct ew_view **node_out;
};

static void place(struct dry *d, const struct ew_shapes *s)
{
    const struct ew_plan *p = &d->b->plan;

    for (uint32_t t = 0; t < p->n_tensors; t++) {
        d->view[t].type = s->type[t];
        d->view[t].data = NULL;
        if (p->tensors[t].kind == EW_PLAN_CONST || !s->known[t])
            d->view[t].data = (void *)(FAKE_BASE + p->root[t] * FAKE_STEP);
    }
}

static ew_status emit_node(struct dry *d, uint32_t i, struct ew_step_list *list)
{
    const struct ew_plan *p = &d->b->plan;
    const struct ew_plan_node *n = &p->nodes[i];
    const struct ew_emit e = { .plan = p,
                               .node = n,
                               .slot = i,
                               .in = d->node_in,
                               .packed = d->packed,
                               .out = d->node_out,
                               .n_threads = 1,
                               .device = &d->cuda->base,
                               .scratch = (void *)(FAKE_BASE / 2),
                               .counters = (void *)(FAKE_BASE / 4) };

    for (uint32_t k = 0; k < n->n_in; k++) {
        const uint32_t t = n->in[k];

        d->node_in[k] = t == EW_PLAN_NONE ? NULL : &d->view[t];
        d->packed[k] =
            t != EW_PLAN_NONE && p->tensors[t].packed.kernel ? &p->tensors[t].packed : NULL;
    }
    for (uint32_t k = 0; k < n->n_out; k++)
        d->node_out[k] = n->out[k] == EW_PLAN_NONE ? NULL : &d->view[n->out[k]];
    return ew_backend_cuda()->emit(list, &e, d->b->err);
}

/* What a context may put before and after the nodes (ew_context_set_tokens, set_argmax, set_draw).
 * What the backend has no kernel for, it will refuse there. */
static void emit_around(struct dry *d, struct ew_step_list *list)
{
    const struct ew_backend *cuda = ew_backend_cuda();
    const struct ew_plan *p = &d->b->plan;
    const struct ew_emit e = { .plan = p,
                               .device = &d->cuda->base,
                               .scratch = (void *)(FAKE_BASE / 2),
                               .counters = (void *)(FAKE_BASE / 4) };
    void *const at = (void *)(FAKE_BASE / 8);

    if (p->embedding != EW_PLAN_NONE)
        (void)cuda->emit_embed(list, &e, at, &p->tensors[p->embedding], at, at, 1, 1.0f, NULL);
    for (uint32_t o = 0; o < p->n_outputs; o++) {
        const struct ew_type *t = &d->view[p->outputs[o].tensor].type;
        size_t count;

        if (t->dtype == EW_DTYPE_F32 && t->n_dims > 0 && t->dim[t->n_dims - 1] > 0 &&
            ew_type_count(t, &count) && p->outputs[o].alias == EW_PLAN_NONE) {
            const size_t n = (size_t)t->dim[t->n_dims - 1];

            (void)cuda->emit_argmax(list, &e, at, count / n, n, at, NULL);
            (void)cuda->emit_draw(list, &e, at, count / n, n, at, at, NULL);
        }
    }
}

/* All nodes at the shapes in d->in. */
static ew_status emit_all(struct dry *d)
{
    struct ew_plan *p = &d->b->plan;
    struct ew_step_list list = { 0 };
    struct ew_shapes s;
    struct ew_arena a;
    ew_status st;

    ew_arena_init(&a, EW_MEM_BUILD, 0);
    list.arena = &a;
    st = ew_plan_shapes(p, d->in, &a, &s, d->b->err);
    if (!st && s.needs_data)
        st = ew_fail(d->b->err, EW_STATUS_UNSUPPORTED,
                     "node '%s': its shapes depend on data, and the CUDA backend runs fixed lists "
                     "alone",
                     p->nodes[s.stopped_at].name);
    if (!st)
        place(d, &s);
    for (uint32_t i = 0; i < p->n_nodes && !st; i++)
        if (!ew_plan_node_is_free(p, i, &s))
            st = emit_node(d, i, &list);
    if (!st) {
        const struct ew_emit e = { .plan = p, .device = &d->cuda->base };

        st = ew_backend_cuda()->emit_end(&list, &e, 0, d->b->err);
        emit_around(d, &list);
    }
    if (!st && list.shared_bytes > p->device.scratch_bytes)
        p->device.scratch_bytes = list.shared_bytes;
    if (!st && list.counter_bytes > p->device.counter_bytes)
        p->device.counter_bytes = list.counter_bytes;
    ew_arena_deinit(&a);
    return st;
}

static ew_status dry_open(struct ew_build *b, struct ew_build_specs *s, struct dry *d)
{
    const struct ew_plan *p = &b->plan;
    uint32_t widest = 1;

    for (uint32_t i = 0; i < p->n_nodes; i++) {
        widest = p->nodes[i].n_in > widest ? p->nodes[i].n_in : widest;
        widest = p->nodes[i].n_out > widest ? p->nodes[i].n_out : widest;
    }
    *d = (struct dry){ .b = b };
    d->in = ew_mem_calloc(EW_MEM_BUILD, p->n_inputs + 1u, sizeof(*d->in));
    d->view = ew_mem_calloc(EW_MEM_BUILD, p->n_tensors + 1u, sizeof(*d->view));
    d->node_in = ew_mem_calloc(EW_MEM_BUILD, widest, sizeof(*d->node_in));
    d->packed = ew_mem_calloc(EW_MEM_BUILD, widest, sizeof(*d->packed));
    d->node_out = ew_mem_calloc(EW_MEM_BUILD, widest, sizeof(*d->node_out));
    if (!d->in || !d->view || !d->node_in || !d->packed || !d->node_out)
        return ew_fail(b->err, EW_STATUS_NO_MEMORY, "CUDA kernels");
    return ew_cuda_dry(&b->cuda->chip, ew_build_specs_see, s, &d->cuda, b->err);
}

static void dry_close(struct dry *d)
{
    ew_cuda_close(d->cuda);
    ew_mem_free(d->in);
    ew_mem_free(d->view);
    ew_mem_free(d->node_in);
    ew_mem_free(d->packed);
    ew_mem_free(d->node_out);
}

/* ---- shapes ---- */

static const struct ew_plan_range *range_of(const struct dry *d, uint32_t profile, uint32_t i)
{
    return &d->b->plan.profiles[profile].inputs[i];
}

static void set_all(struct dry *d, uint32_t profile, enum ew_plan_which which)
{
    const struct ew_plan *p = &d->b->plan;

    for (uint32_t i = 0; i < p->n_inputs; i++) {
        const struct ew_plan_tensor *t = &p->tensors[p->inputs[i]];
        const struct ew_plan_range *r = range_of(d, profile, i);

        d->in[i] = ew_type_make(t->dtype, t->n_dims,
                                which == EW_PLAN_MIN   ? r->min
                                : which == EW_PLAN_MAX ? r->max
                                                       : r->opt);
    }
}

static int64_t clamp(int64_t v, int64_t lo, int64_t hi)
{
    return v < lo ? lo : v > hi ? hi : v;
}

/* Every axis of one symbol at v. */
static void set_symbol(struct dry *d, uint32_t profile, int64_t symbol, int64_t v)
{
    for (uint32_t i = 0; i < d->b->plan.n_inputs; i++) {
        const struct ew_type *g = &d->b->graph->inputs[i]->type;
        const struct ew_plan_range *r = range_of(d, profile, i);

        for (int k = 0; k < g->n_dims; k++)
            if (g->dim[k] == symbol)
                d->in[i].dim[k] = clamp(v, r->min[k], r->max[k]);
    }
}

/* The contract allows no rows or one a batch row (EDGE-LLM rules). False: there is no such input.
 */
static bool set_start(struct dry *d, uint32_t profile, bool batch)
{
    const struct ew_plan *p = &d->b->plan;
    int64_t rows = -1;

    for (uint32_t i = 0; i < p->n_inputs; i++)
        if (strcmp(p->tensors[p->inputs[i]].name, "context_lengths") == 0)
            rows = d->in[i].dim[0];
    for (uint32_t i = 0; i < p->n_inputs; i++) {
        const struct ew_plan_range *r = range_of(d, profile, i);

        if (strcmp(p->tensors[p->inputs[i]].name, "kvcache_start_index") != 0)
            continue;
        d->in[i].dim[0] = clamp(batch ? rows : 0, r->min[0], r->max[0]);
        return true;
    }
    return false;
}

/* Shapes between the opt ones may make no sense together: those are not the engine's either. */
static ew_status emit_if_valid(struct dry *d, uint32_t profile)
{
    ew_error *const err = d->b->err;
    ew_error ignored = { 0 };
    const bool has_start = set_start(d, profile, false);
    ew_status st;

    d->b->err = &ignored;
    st = emit_all(d);
    if (has_start && st != EW_STATUS_NO_MEMORY) {
        ignored = (ew_error){ 0 };
        (void)set_start(d, profile, true);
        st = emit_all(d);
    }
    d->b->err = err;
    return st == EW_STATUS_NO_MEMORY ? ew_fail(err, st, "%s", ignored.text) : EW_STATUS_OK;
}

/* 1..8, then four steps an octave. */
static int64_t next_value(int64_t v)
{
    int64_t step = 1;

    while (step * 8 <= v)
        step *= 2;
    return v + step;
}

static ew_status sweep(struct dry *d, uint32_t profile, int64_t symbol, int64_t lo, int64_t hi)
{
    for (int which = EW_PLAN_MIN; which <= EW_PLAN_MAX; which++)
        for (int64_t v = lo;; v = next_value(v)) {
            const int64_t at = v < hi ? v : hi;

            set_all(d, profile, (enum ew_plan_which)which);
            set_symbol(d, profile, symbol, at);
            EW_TRY(emit_if_valid(d, profile));
            if (at == hi)
                break;
        }
    return EW_STATUS_OK;
}

/* Every symbol of the inputs once. */
static ew_status sweep_symbols(struct dry *d, uint32_t profile)
{
    const struct ew_plan *p = &d->b->plan;

    for (uint32_t i = 0; i < p->n_inputs; i++) {
        const struct ew_type *g = &d->b->graph->inputs[i]->type;
        const struct ew_plan_range *r = range_of(d, profile, i);

        for (int k = 0; k < g->n_dims; k++) {
            bool seen = g->dim[k] >= 0 || r->min[k] >= r->max[k];

            for (uint32_t j = 0; j <= i && !seen; j++)
                for (int m = 0; m < d->b->graph->inputs[j]->type.n_dims && !seen; m++)
                    seen = (j < i || m < k) && d->b->graph->inputs[j]->type.dim[m] == g->dim[k] &&
                           range_of(d, profile, j)->min[m] < range_of(d, profile, j)->max[m];
            if (!seen)
                EW_TRY(sweep(d, profile, g->dim[k], r->min[k], r->max[k]));
        }
    }
    return EW_STATUS_OK;
}

ew_status ew_build_dry_opt(struct ew_build *b, struct ew_build_specs *s)
{
    struct dry d;
    ew_status st = dry_open(b, s, &d);

    for (uint32_t i = 0; i < b->plan.n_profiles && !st; i++) {
        set_all(&d, i, EW_PLAN_OPT);
        st = emit_all(&d);
    }
    dry_close(&d);
    return st;
}

static ew_status dry_all(struct ew_build *b, struct ew_build_specs *s, bool with_library)
{
    struct dry d;
    ew_status st = dry_open(b, s, &d);

    if (!st && !with_library)
        d.cuda->chip.cublaslt = 0;
    for (uint32_t i = 0; i < b->plan.n_profiles && !st; i++) {
        set_all(&d, i, EW_PLAN_OPT);
        st = emit_all(&d);
        for (int which = EW_PLAN_MIN; which <= EW_PLAN_MAX && !st; which++) {
            set_all(&d, i, (enum ew_plan_which)which);
            st = emit_if_valid(&d, i);
        }
        if (!st)
            st = sweep_symbols(&d, i);
    }
    dry_close(&d);
    return st;
}

ew_status ew_build_dry_all(struct ew_build *b, struct ew_build_specs *s)
{
    EW_TRY(dry_all(b, s, true));
    /* Where the library is not there, or another one, the engine's own kernels do it all. */
    return b->plan.device.cublaslt ? dry_all(b, s, false) : EW_STATUS_OK;
}

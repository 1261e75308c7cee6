/* build/device_step.c - a decode step of one sequence, and of each number of them up to what a
 * persistent kernel takes, as a graph of kernels or as that one kernel: both are run on the device
 * with made-up weights of the right sizes, and the faster one wins. */
#include "backend/cuda/cuda.h"
#include "build/build_impl.h"

#include "base/log.h"
#include "os/os.h"

#define CONTEXT 128 /* tokens in the cache while timing */
#define RUNS    20  /* of one timed repeat */
#define REPEATS 4

struct trial {
    struct ew_build *b;
    uint32_t profile;
    int32_t rows; /* sequences */
    struct ew_arena arena;
    struct ew_shapes shapes;
    struct ew_view *view; /* [n_tensors] */
    struct block {
        void *data;
        size_t bytes;
    } weights, activations, scratch, counters, *tensors; /* [n_tensors]: inputs and outputs */
    struct ew_stream *stream;
};

static ew_status take(struct trial *t, struct block *k, size_t bytes)
{
    const ew_memory *m = &t->b->cuda->base.memory;

    k->bytes = bytes ? bytes : 1;
    return m->alloc(m->ctx, k->bytes, "timing a step", &k->data, t->b->err);
}

static void drop(struct trial *t, struct block *k)
{
    const ew_memory *m = &t->b->cuda->base.memory;

    if (k->data)
        m->release(m->ctx, k->data, k->bytes);
    k->data = NULL;
}

/* Lengths as in the middle of a conversation. */
static ew_status fill_lengths(struct trial *t, uint32_t tensor, int32_t value)
{
    const ew_memory *m = &t->b->cuda->base.memory;

    for (int32_t r = 0; r < t->rows; r++)
        EW_TRY(m->copy(m->ctx, EW_COPY_UPLOAD, (int32_t *)t->tensors[tensor].data + r,
                       sizeof(value), &value, sizeof(value), sizeof(value), 1, t->b->err));
    return EW_STATUS_OK;
}

static ew_status make_inputs(struct trial *t)
{
    const struct ew_plan *p = &t->b->plan;
    const int32_t cap = CONTEXT;

    for (uint32_t i = 0; i < p->n_inputs; i++) {
        const uint32_t at = p->inputs[i];
        size_t bytes;

        if (!ew_type_bytes(&t->shapes.type[at], &bytes))
            return ew_fail(t->b->err, EW_STATUS_LIMIT, "input '%s' is too large",
                           p->tensors[at].name);
        EW_TRY(take(t, &t->tensors[at], bytes));
        if (strcmp(p->tensors[at].name, "context_lengths") == 0)
            EW_TRY(fill_lengths(t, at, cap));
        else if (strcmp(p->tensors[at].name, "kvcache_start_index") == 0 && bytes)
            EW_TRY(fill_lengths(t, at, cap - 1));
    }
    return EW_STATUS_OK;
}

static uint8_t *input_of_alias(const struct trial *t, uint32_t output)
{
    const uint32_t alias = t->b->plan.outputs[output].alias;

    return alias == EW_PLAN_NONE ? NULL : t->tensors[alias].data;
}

/* Where a tensor that a node makes lies. */
static ew_status place_made(struct trial *t, uint32_t at, void **data)
{
    const struct ew_plan *p = &t->b->plan;
    const struct ew_plan_profile *pr = &p->profiles[t->profile];
    const uint32_t o = p->direct_out[at];
    size_t bytes;

    *data = NULL;
    if (!ew_type_bytes(&t->shapes.type[at], &bytes) || !bytes || t->shapes.known[at])
        return EW_STATUS_OK;
    if (o == EW_PLAN_NONE) {
        *data = (uint8_t *)t->activations.data + pr->off[at];
        return EW_STATUS_OK;
    }
    *data = input_of_alias(t, o);
    if (*data)
        return EW_STATUS_OK;
    EW_TRY(take(t, &t->tensors[at], bytes));
    *data = t->tensors[at].data;
    return EW_STATUS_OK;
}

static ew_status place_all(struct trial *t)
{
    const struct ew_plan *p = &t->b->plan;

    for (uint32_t at = 0; at < p->n_tensors; at++) {
        struct ew_view *v = &t->view[at];

        v->type = t->shapes.type[at];
        if (p->tensors[at].kind == EW_PLAN_CONST)
            v->data = (uint8_t *)t->weights.data + p->tensors[at].off;
        else if (p->tensors[at].kind == EW_PLAN_INPUT)
            v->data = t->tensors[at].data;
        else if (p->root[at] == at)
            EW_TRY(place_made(t, at, &v->data));
        else
            v->data = t->view[p->root[at]].data; /* of an earlier tensor */
    }
    return EW_STATUS_OK;
}

/* Inputs at the profile's opt shapes, but the axes of the batch. */
static ew_status choose_shapes(struct trial *t)
{
    const struct ew_plan *p = &t->b->plan;
    struct ew_type *in = ew_arena_new(&t->arena, struct ew_type, p->n_inputs + 1u);
    int64_t batch = 0;

    if (!in)
        return ew_fail(t->b->err, EW_STATUS_NO_MEMORY, "timing a step");
    for (uint32_t i = 0; i < p->n_inputs; i++)
        if (strcmp(p->tensors[p->inputs[i]].name, "context_lengths") == 0)
            batch = t->b->graph->inputs[i]->type.dim[0];
    for (uint32_t i = 0; i < p->n_inputs; i++) {
        const struct ew_plan_tensor *of = &p->tensors[p->inputs[i]];
        const struct ew_type *g = &t->b->graph->inputs[i]->type;

        in[i] = ew_type_make(of->dtype, of->n_dims, p->profiles[t->profile].inputs[i].opt);
        for (int k = 0; k < g->n_dims && batch < 0; k++)
            if (g->dim[k] == batch)
                in[i].dim[k] = t->rows;
        if (strcmp(of->name, "kvcache_start_index") == 0 && in[i].dim[0])
            in[i].dim[0] = t->rows;
    }
    return ew_plan_shapes(p, in, &t->arena, &t->shapes, t->b->err);
}

static ew_status trial_open(struct trial *t)
{
    struct ew_build *b = t->b;
    struct ew_plan *p = &b->plan;
    struct ew_cuda *c = b->cuda;

    t->view = ew_arena_new(&t->arena, struct ew_view, p->n_tensors + 1u);
    t->tensors = ew_arena_new(&t->arena, struct block, p->n_tensors + 1u);
    if (!t->view || !t->tensors)
        return ew_fail(b->err, EW_STATUS_NO_MEMORY, "timing a step");
    EW_TRY(choose_shapes(t));
    EW_TRY(take(t, &t->weights, (size_t)p->weights_bytes));
    EW_TRY(take(t, &t->activations, (size_t)p->profiles[t->profile].block_bytes));
    EW_TRY(take(t, &t->scratch, (size_t)p->device.scratch_bytes));
    EW_TRY(take(t, &t->counters, (size_t)p->device.counter_bytes));
    EW_TRY(make_inputs(t));
    EW_TRY(place_all(t));
    return c->base.ops->open_stream(&c->base, &t->stream, b->err);
}

static void trial_close(struct trial *t)
{
    t->b->cuda->base.ops->close_stream(t->stream);
    for (uint32_t i = 0; t->tensors && i < t->b->plan.n_tensors; i++)
        drop(t, &t->tensors[i]);
    drop(t, &t->weights);
    drop(t, &t->activations);
    drop(t, &t->scratch);
    drop(t, &t->counters);
    ew_arena_deinit(&t->arena);
}

static ew_status emit_node(struct trial *t, uint32_t i, struct ew_step_list *list,
                           const struct ew_emit *base)
{
    const struct ew_plan *p = &t->b->plan;
    const struct ew_plan_node *n = &p->nodes[i];
    const struct ew_view **in = ew_arena_new(&t->arena, const struct ew_view *, n->n_in + 1u);
    const struct ew_packed **packed =
        ew_arena_new(&t->arena, const struct ew_packed *, n->n_in + 1u);
    struct ew_view **out = ew_arena_new(&t->arena, struct ew_view *, n->n_out + 1u);
    struct ew_emit e = *base;

    if (!in || !packed || !out)
        return ew_fail(t->b->err, EW_STATUS_NO_MEMORY, "timing a step");
    for (uint32_t k = 0; k < n->n_in; k++)
        if (n->in[k] != EW_PLAN_NONE) {
            in[k] = &t->view[n->in[k]];
            packed[k] = p->tensors[n->in[k]].packed.kernel ? &p->tensors[n->in[k]].packed : NULL;
        }
    for (uint32_t k = 0; k < n->n_out; k++)
        out[k] = n->out[k] == EW_PLAN_NONE ? NULL : &t->view[n->out[k]];
    e.node = n;
    e.slot = i;
    e.in = in;
    e.packed = packed;
    e.out = out;
    return ew_backend_cuda()->emit(list, &e, t->b->err);
}

static ew_status emit_all(struct trial *t, struct ew_step_list *list)
{
    const struct ew_plan *p = &t->b->plan;
    const struct ew_emit e = { .plan = p,
                               .n_threads = 1,
                               .device = &t->b->cuda->base,
                               .scratch = t->scratch.data,
                               .scratch_bytes = t->scratch.bytes,
                               .counters = t->counters.data,
                               .counters_bytes = t->counters.bytes };

    list->arena = &t->arena;
    for (uint32_t i = 0; i < p->n_nodes; i++)
        if (!ew_plan_node_is_free(p, i, &t->shapes))
            EW_TRY(emit_node(t, i, list, &e));
    return ew_backend_cuda()->emit_end(list, &e, 0, t->b->err);
}

/* Nanoseconds of a step, the least of a few repeats. */
static ew_status replay(struct trial *t, struct ew_recording *r, uint64_t *ns)
{
    const struct ew_device_ops *ops = t->b->cuda->base.ops;

    *ns = UINT64_MAX;
    for (int k = 0; k < REPEATS; k++) {
        const uint64_t begin = ew_clock_ns();
        uint64_t took;

        for (int i = 0; i < RUNS; i++)
            EW_TRY(ops->replay(t->stream, r, t->b->err));
        EW_TRY(ops->wait(t->stream, t->b->err));
        took = (ew_clock_ns() - begin) / RUNS;
        if (k > 0 && took < *ns) /* the first one warms up */
            *ns = took;
    }
    return EW_STATUS_OK;
}

struct way { /* to run a step */
    bool split_norms, one_kernel;
};

static void set_way(struct ew_plan_device *d, struct way w)
{
    d->split_norms = w.split_norms;
    for (int i = 0; i < EW_PLAN_STEP_ROWS; i++)
        d->step[i].one_kernel = w.one_kernel;
}

static ew_status time_way(struct trial *t, struct way way, uint64_t *ns)
{
    const ew_memory *m = &t->b->cuda->base.memory;
    const struct ew_device_ops *ops = t->b->cuda->base.ops;
    struct ew_plan_device *const d = &t->b->plan.device;
    const struct ew_plan_device before = *d;
    struct ew_step_list list = { 0 };
    struct ew_recording *r = NULL;
    ew_status st;

    *ns = 0;
    set_way(d, way);
    st = emit_all(t, &list);
    *d = before;
    if (!st && (!way.one_kernel || list.n == 1)) {
        st = ops->record(t->stream, &list, &r, t->b->err);
        if (!st)
            st = replay(t, r, ns);
    }
    ops->drop(t->stream, r);
    for (struct ew_list_memory *k = list.memory; k; k = k->next)
        m->release(m->ctx, k->data, k->bytes);
    return st;
}

/* The fastest graph: norms in kernels or by themselves. */
static ew_status time_graphs(struct trial *t, struct way *best, uint64_t *best_ns)
{
    const struct way split = { .split_norms = true };
    uint64_t ns;

    EW_TRY(time_way(t, *best, best_ns));
    EW_TRY(time_way(t, split, &ns));
    ew_log(t->b->opts.logger, EW_LOG_INFO, "a step: %llu ns; norms by themselves: %llu ns",
           (unsigned long long)*best_ns, (unsigned long long)ns);
    if (ns < *best_ns) {
        *best = split;
        *best_ns = ns;
    }
    return EW_STATUS_OK;
}

static bool find_generation(const struct ew_plan *p, uint32_t *profile)
{
    for (uint32_t i = 0; i < p->n_profiles; i++)
        if (strcmp(p->profiles[i].name, "generation") == 0) {
            *profile = i;
            return true;
        }
    return false;
}

/* The most sequences of a step that the profile allows. */
static int32_t most_rows(const struct ew_plan *p, uint32_t profile)
{
    for (uint32_t i = 0; i < p->n_inputs; i++)
        if (strcmp(p->tensors[p->inputs[i]].name, "context_lengths") == 0) {
            const int64_t max = p->profiles[profile].inputs[i].max[0];

            return max < EW_PLAN_STEP_ROWS ? (int32_t)max : EW_PLAN_STEP_ROWS;
        }
    return 1;
}

static ew_status time_both(struct trial *t, struct way *best, struct ew_plan_step *s)
{
    const struct way one = { .one_kernel = true };

    if (t->rows == 1)
        EW_TRY(time_graphs(t, best, &s->graph_ns)); /* the way that norms go is for all */
    EW_TRY(time_way(t, one, &s->one_kernel_ns));
    if (t->rows == 1 || !s->one_kernel_ns)
        return EW_STATUS_OK;
    EW_TRY(time_way(t, *best, &s->graph_ns));
    ew_log(t->b->opts.logger, EW_LOG_INFO, "a step of %d: %llu ns; as one kernel: %llu ns",
           (int)t->rows, (unsigned long long)s->graph_ns, (unsigned long long)s->one_kernel_ns);
    return EW_STATUS_OK;
}

#define STEP_GRAPH  "step_graph"
#define STEP_KERNEL "step_kernel"

bool ew_build_is_step_tactic(const char *name)
{
    return strcmp(name, STEP_GRAPH) == 0 || strcmp(name, STEP_KERNEL) == 0;
}

static bool is_forced(const struct ew_build *b, const char *tactic)
{
    return b->opts.tactic && strcmp(b->opts.tactic, tactic) == 0;
}

/* The faster way, or the one that the options ask for. */
static bool is_one_kernel(const struct ew_build *b, const struct ew_plan_step *s)
{
    return s->one_kernel_ns && !is_forced(b, STEP_GRAPH) &&
           (is_forced(b, STEP_KERNEL) || s->one_kernel_ns < s->graph_ns);
}

/* A step of so many sequences. */
static ew_status time_rows(struct ew_build *b, uint32_t profile, int32_t rows, struct way *best)
{
    struct ew_plan_step *s = &b->plan.device.step[rows - 1];
    struct trial t = { .b = b, .profile = profile, .rows = rows };
    ew_status st;

    ew_arena_init(&t.arena, EW_MEM_BUILD, 0);
    st = trial_open(&t);
    if (!st)
        st = time_both(&t, best, s);
    trial_close(&t);
    s->one_kernel = !st && is_one_kernel(b, s);
    return st;
}

ew_status ew_build_time_step(struct ew_build *b)
{
    struct way best = { 0 };
    ew_error *const err = b->err;
    ew_error local = { 0 }, why = { 0 };
    uint32_t profile;
    ew_status st = EW_STATUS_OK;

    if (!find_generation(&b->plan, &profile))
        return is_forced(b, STEP_KERNEL)
                   ? ew_fail(err, EW_STATUS_UNSUPPORTED,
                             "tactic '%s': the engine has no profile 'generation'", STEP_KERNEL)
                   : EW_STATUS_OK;
    EW_TRY(ew_build_step(b, "time a step", 0, 1));
    b->err = &local;
    for (int32_t rows = 1; rows <= most_rows(&b->plan, profile) && !st; rows++) {
        b->cuda->why_graph = rows == 1 ? &why : NULL;
        st = time_rows(b, profile, rows, &best);
        if (!b->plan.device.step[rows - 1].one_kernel_ns)
            break; /* nor will it take more */
    }
    b->cuda->why_graph = NULL;
    b->err = err;
    b->plan.device.split_norms = best.split_norms;
    if (st) /* the graph always works: what is lost is speed */
        ew_log(b->opts.logger, EW_LOG_WARN, "a decode step was not timed: %s", local.text);
    else if (why.text[0])
        ew_log(b->opts.logger, EW_LOG_INFO, "a step runs as a graph: %s", why.text);
    if (is_forced(b, STEP_KERNEL) && !b->plan.device.step[0].one_kernel)
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "tactic '%s': %s", STEP_KERNEL,
                       st ? local.text : why.text);
    return EW_STATUS_OK;
}

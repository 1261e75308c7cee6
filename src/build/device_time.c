/* build/device_time.c - which kernel multiplies how many rows of each weight: every kernel of the
 * layout that runs is timed at powers of two of rows, as a replayed graph over copies of the weight
 * that do not fit the cache together. */
#include <stdio.h>

#include "backend/cuda/cuda.h"
#include "build/build_impl.h"

#include "base/log.h"
#include "kernels/cuda/linear.h"

#define MAX_STEPS   24 /* of rows */
#define COPY_BYTES  ((uint64_t)1 << 30)
#define MAX_COPIES  32
#define MAX_KERNELS 64
#define LOST        3 /* times slower than the best: more rows will not change that */
#define REPEATS     4
#define LIBRARY_WIN 1.03 /* times faster than the best kernel of ours a library has to be */

struct problem {
    struct ew_build *b;
    const struct ew_plan_tactic *t;
    struct ew_packed w;
    uint64_t max_m;
    uint64_t lost; /* a bit a kernel: far behind at fewer rows, not timed any more */
    void *weights, *x, *y, *work;
    size_t weight_bytes, n_copies, x_bytes, y_bytes, work_bytes;
};

/* Rows that any profile can ask for. */
static uint64_t largest_m(const struct ew_build *b)
{
    const struct ew_plan *p = &b->plan;
    uint64_t most = 1;

    for (uint32_t i = 0; i < p->n_profiles; i++) {
        struct ew_shapes s;
        struct ew_arena a;

        ew_arena_init(&a, EW_MEM_BUILD, 0);
        if (!ew_plan_profile_shapes(p, i, EW_PLAN_MAX, &a, &s, NULL) && !s.needs_data)
            for (uint32_t k = 0; k < p->n_nodes; k++) {
                const struct ew_type *x = &s.type[p->nodes[k].in[0]];
                size_t count;

                if (p->nodes[k].op == EW_OP_LINEAR && x->n_dims > 0 && ew_type_count(x, &count) &&
                    x->dim[x->n_dims - 1] > 0 && count / (size_t)x->dim[x->n_dims - 1] > most)
                    most = count / (size_t)x->dim[x->n_dims - 1];
            }
        ew_arena_deinit(&a);
    }
    return most;
}

static struct ew_cuda_linear_problem plain_problem(const struct problem *p, uint64_t m, size_t copy)
{
    const size_t n_out = (size_t)(p->t->glu ? p->t->n / 2 : p->t->n);

    return (struct ew_cuda_linear_problem){ .x = (uint64_t)(uintptr_t)p->x,
                                            .w = (uint64_t)(uintptr_t)p->weights +
                                                 copy * p->weight_bytes,
                                            .y = (uint64_t)(uintptr_t)p->y,
                                            .workspace = (uint64_t)(uintptr_t)p->work,
                                            .x_stride = p->t->k,
                                            .y_stride = n_out,
                                            .residual_stride = n_out,
                                            .m = (size_t)m,
                                            .n = (size_t)p->t->n,
                                            .k = (size_t)p->t->k,
                                            .format = p->t->format,
                                            .act = p->t->glu ? EW_ACT_SILU : EW_ACT_NONE,
                                            .glu = p->t->glu,
                                            .scale = 1.0f };
}

/* The problem as the model's nodes have it: what the epilogue costs decides about a library, which
 * needs a pass of its own for most of it. Contents that are read: any memory that is there. */
static void use_as_nodes_do(const struct problem *p, struct ew_cuda_linear_problem *q)
{
    const struct ew_plan *plan = &p->b->plan;
    const struct ew_emit e = { .plan = plan, .device = &p->b->cuda->base };

    for (uint32_t i = 0; i < plan->n_nodes; i++) {
        const struct ew_plan_node *n = &plan->nodes[i];
        const int64_t dims[3] = { 1, (int64_t)q->m, (int64_t)q->y_stride };
        const struct ew_type y = ew_type_make(EW_DTYPE_F32, 3, dims);

        if (n->op != EW_OP_LINEAR || ew_cuda_tactic_of(plan, &plan->tensors[n->in[1]]) != p->t)
            continue;
        if (n->n_in > 2 && n->in[2] != EW_PLAN_NONE)
            q->bias = q->w;
        if (n->n_in > 3 && n->in[3] != EW_PLAN_NONE)
            q->residual = q->y;
        q->act = n->attrs.linear.act;
        q->scale = n->attrs.linear.scale;
        q->softcap = n->attrs.linear.softcap;
        q->y_short = ew_cuda_is_short(&e, n->out[0], q->m) ? EW_DTYPE_BF16
                                                           : ew_cuda_short_heads(&e, n->out[0], &y);
    }
}

/* Beside a library every kernel has to do what the nodes want; without one they are told apart well
 * enough by the plain problem. */
static bool as_nodes_do(const struct problem *p, uint64_t m)
{
    return p->b->cuda->chip.cublaslt && m > 64;
}

static struct ew_cuda_linear_problem make_problem(const struct problem *p,
                                                  const struct ew_cuda_linear_kernel *k, uint64_t m,
                                                  size_t copy)
{
    struct ew_cuda_linear_problem q = plain_problem(p, m, copy);

    if (as_nodes_do(p, m))
        use_as_nodes_do(p, &q);
    if (!k->puts_short)
        q.y_short = EW_DTYPE_NONE;
    return q;
}

static bool runs(const struct problem *p, const struct ew_cuda_linear_kernel *k, uint64_t m)
{
    return k->layout == p->w.kernel &&
           ew_cuda_linear_kernel_runs(k, &p->b->cuda->chip, p->t->dtype, &p->t->format, (size_t)m,
                                      (size_t)p->t->n, (size_t)p->t->k, p->t->glu, p->t->x_quant);
}

/* Kernel specs of everything that will be timed: compiled together, on all threads. */
static void see_all(const struct problem *p, struct ew_build_specs *s)
{
    size_t n;
    const struct ew_cuda_linear_kernel *const *all = ew_cuda_linear_kernels(&n);

    for (uint64_t m = 1; m < 2 * p->max_m; m *= 2)
        for (size_t i = 0; i < n; i++) {
            struct ew_cuda_launch l[EW_CUDA_LINEAR_LAUNCHES];
            struct ew_cuda_linear_problem q = make_problem(p, all[i], m, 0);
            size_t n_launches;

            if (!runs(p, all[i], m))
                continue;
            n_launches = all[i]->plan(&p->b->cuda->chip, &q, l);
            for (size_t k = 0; k < n_launches; k++)
                ew_build_specs_see(s, &l[k]);
        }
}

static size_t work_bytes(const struct problem *p)
{
    size_t n, most = 1;
    const struct ew_cuda_linear_kernel *const *all = ew_cuda_linear_kernels(&n);

    for (uint64_t m = 1; m < 2 * p->max_m; m *= 2)
        for (size_t i = 0; i < n; i++) {
            const struct ew_cuda_linear_problem q = make_problem(p, all[i], m, 0);
            size_t bytes;

            if (!runs(p, all[i], m) || !all[i]->workspace_bytes)
                continue;
            bytes = all[i]->workspace_bytes(&p->b->cuda->chip, &q);
            most = bytes > most ? bytes : most;
        }
    return most;
}

static ew_status fill(struct problem *p, void *at, size_t bytes)
{
    struct ew_cuda_queue *q = &p->b->cuda->memory_queue;

    /* 0x3c3c: a small number in f16 and bf16, no NaN as a code or a scale of any format */
    EW_TRY(ew_cuda_queue_fill(q, (ew_cu_ptr)(uintptr_t)at, 0x3c, bytes, p->b->err));
    return ew_cuda_queue_wait(q, p->b->err);
}

static ew_status take_memory(struct problem *p)
{
    const ew_memory *m = &p->b->cuda->base.memory;
    const uint64_t want = 3 * p->b->cuda->chip.l2_bytes;
    const uint64_t rows = p->max_m * 2;

    p->weight_bytes = ((size_t)p->w.expert_bytes + 255) & ~(size_t)255;
    p->n_copies = (size_t)(want / p->weight_bytes) + 1;
    if (p->n_copies * p->weight_bytes > COPY_BYTES)
        p->n_copies = (size_t)(COPY_BYTES / p->weight_bytes);
    p->n_copies = p->n_copies < 1 ? 1 : p->n_copies > MAX_COPIES ? MAX_COPIES : p->n_copies;
    p->x_bytes = (size_t)(rows * p->t->k * sizeof(float));
    p->y_bytes = (size_t)(rows * p->t->n * sizeof(float));
    p->work_bytes = work_bytes(p);
    EW_TRY(m->alloc(m->ctx, p->n_copies * p->weight_bytes, "timing", &p->weights, p->b->err));
    EW_TRY(m->alloc(m->ctx, p->x_bytes, "timing", &p->x, p->b->err));
    EW_TRY(m->alloc(m->ctx, p->y_bytes, "timing", &p->y, p->b->err));
    EW_TRY(m->alloc(m->ctx, p->work_bytes, "timing", &p->work, p->b->err));
    EW_TRY(fill(p, p->weights, p->n_copies * p->weight_bytes));
    return fill(p, p->x, p->x_bytes);
}

static void problem_close(struct problem *p)
{
    const ew_memory *m = &p->b->cuda->base.memory;

    m->release(m->ctx, p->weights, p->n_copies * p->weight_bytes);
    m->release(m->ctx, p->x, p->x_bytes);
    m->release(m->ctx, p->y, p->y_bytes);
    m->release(m->ctx, p->work, p->work_bytes);
    p->weights = p->x = p->y = p->work = NULL;
}

/* All of it, or none. */
static ew_status problem_open(struct problem *p)
{
    const ew_status st = take_memory(p);

    if (st)
        problem_close(p);
    return st;
}

static ew_status record(struct problem *p, const struct ew_cuda_linear_kernel *k, uint64_t m,
                        ew_cu_graph_exec *out)
{
    struct ew_cuda *c = p->b->cuda;
    struct ew_cuda_queue *q = &c->memory_queue;
    ew_status st = ew_cuda_queue_capture(q, p->b->err), ended;

    if (st)
        return st;
    for (size_t copy = 0; copy < p->n_copies && !st; copy++) {
        struct ew_cuda_launch l[EW_CUDA_LINEAR_LAUNCHES];
        const struct ew_cuda_linear_problem problem = make_problem(p, k, m, copy);
        const size_t n = k->plan(&c->chip, &problem, l);

        for (size_t i = 0; i < n && !st; i++) {
            ew_cu_function f;

            st = ew_cuda_modules_get(c->modules, &l[i], &f, p->b->err);
            if (!st)
                st = ew_cuda_queue_launch(q, f, &l[i], k->name, p->b->err);
        }
    }
    ended = ew_cuda_queue_captured(q, st ? NULL : out, st ? NULL : p->b->err);
    return st ? st : ended;
}

static ew_status measure(struct problem *p, const struct ew_cuda_linear_kernel *k, uint64_t m,
                         uint64_t *ns)
{
    struct ew_cuda *c = p->b->cuda;
    const struct ew_cuda_driver *cu = &c->device->cu;
    ew_cu_graph_exec x = NULL;
    ew_cu_event from = NULL, to = NULL;
    ew_cu_result r;
    double best = 1e30;
    float ms = 0;

    EW_TRY(record(p, k, m, &x));
    if (!x)
        return ew_fail(p->b->err, EW_STATUS_DEVICE, "kernel '%s' launches nothing", k->name);
    ew_cuda_enter(c->device);
    r = cu->event_create(&from, 0);
    if (!r)
        r = cu->event_create(&to, 0);
    for (int i = 0; i < REPEATS && !r; i++) {
        r = cu->event_record(from, c->memory_queue.stream);
        if (!r)
            r = cu->graph_launch(x, c->memory_queue.stream);
        if (!r)
            r = cu->event_record(to, c->memory_queue.stream);
        if (!r)
            r = cu->event_synchronize(to);
        if (!r)
            r = cu->event_elapsed(&ms, from, to);
        if (!r && i > 0 && (double)ms < best) /* the first one warms up */
            best = (double)ms;
    }
    if (from)
        (void)cu->event_destroy(from);
    if (to)
        (void)cu->event_destroy(to);
    (void)cu->graph_exec_destroy(x);
    ew_cuda_leave(c->device);
    c->memory_queue.last = k->name;
    *ns = r ? 0 : (uint64_t)(best * 1e6 / (double)p->n_copies) + 1;
    return ew_cuda_queue_failed(&c->memory_queue, r, "timing", p->b->err);
}

static ew_status time_one(struct problem *p, struct ew_timing_cache *tc,
                          const struct ew_cuda_linear_kernel *k, uint64_t m, uint64_t *ns)
{
    const struct ew_cuda_device *d = p->b->cuda->device;
    char key[384], format[64], use[64] = "";

    ew_quant_format_text(&p->t->format, format, sizeof(format));
    if (as_nodes_do(p, m)) {
        const struct ew_cuda_linear_problem q = make_problem(p, k, m, 0);

        (void)snprintf(use, sizeof(use), " %u %d%d%d%d%d%d",
                       k->library ? p->b->cuda->chip.cublaslt : 0, q.bias != 0, q.residual != 0,
                       q.act, q.scale != 1.0f, q.softcap != 0.0f, (int)q.y_short);
    }
    (void)snprintf(key, sizeof(key), "%s sm_%u x%u|%s%s|%s|%llux%llu%s|m%llu", d->name, d->chip.sm,
                   d->chip.n_sm, k->name, use, format, (unsigned long long)p->t->n,
                   (unsigned long long)p->t->k, p->t->glu ? " glu" : "", (unsigned long long)m);
    if (ew_timing_cache_get(tc, key, ns))
        return EW_STATUS_OK;
    if (!p->weights)
        EW_TRY(problem_open(p));
    EW_TRY(measure(p, k, m, ns));
    return ew_timing_cache_put(tc, key, *ns)
               ? EW_STATUS_OK
               : ew_fail(p->b->err, EW_STATUS_NO_MEMORY, "timing cache");
}

/* A kernel that the driver does not launch on this chip is out; ns is 0 then. A fault that the
 * device does not survive ends the build. */
static ew_status time_or_drop(struct problem *p, struct ew_timing_cache *tc, size_t i, uint64_t m,
                              uint64_t *ns)
{
    const struct ew_cuda_linear_kernel *k = ew_cuda_linear_kernels(&(size_t){ 0 })[i];
    ew_error *const err = p->b->err;
    ew_error local = { 0 };
    ew_status st;

    *ns = 0;
    p->b->err = &local;
    st = time_one(p, tc, k, m, ns);
    p->b->err = err;
    if (st != EW_STATUS_DEVICE || p->b->cuda->memory_queue.poison.status)
        return st ? ew_fail(err, st, "%s", local.text) : EW_STATUS_OK;
    ew_log(p->b->opts.logger, EW_LOG_WARN, "kernel '%s' at %llu rows of [%llu,%llu]: %s", k->name,
           (unsigned long long)m, (unsigned long long)p->t->n, (unsigned long long)p->t->k,
           local.text);
    p->lost |= 1ull << i;
    *ns = 0;
    return EW_STATUS_OK;
}

/* The fastest kernel at m rows. */
static ew_status fastest(struct problem *p, struct ew_timing_cache *tc, bool timed, uint64_t m,
                         const struct ew_cuda_linear_kernel **best, uint64_t *best_ns)
{
    const char *forced = p->b->opts.tactic;
    uint64_t least = UINT64_MAX, ns, took[MAX_KERNELS] = { 0 };
    bool settled;
    size_t n;
    const struct ew_cuda_linear_kernel *const *all = ew_cuda_linear_kernels(&n);

    *best = NULL;
    *best_ns = 0;
    for (size_t i = 0; i < n && forced; i++)
        if (ew_cuda_linear_kernel_is(all[i], forced) && runs(p, all[i], m))
            *best = all[i];
    if (!*best && !timed)
        *best = ew_cuda_linear_choose(&p->b->plan, &p->b->cuda->chip, p->t->dtype, &p->w, m, false);
    settled = *best != NULL;
    for (size_t i = 0; i < n && !settled; i++) {
        if (i >= MAX_KERNELS || !runs(p, all[i], m) || (p->lost >> i & 1))
            continue;
        EW_TRY(time_or_drop(p, tc, i, m, &ns));
        if (!ns)
            continue;
        took[i] = ns;
        if (all[i]->library ? (double)ns * LIBRARY_WIN < (double)least : ns < least) {
            *best_ns = least = ns;
            *best = all[i];
        }
    }
    for (size_t i = 0; i < n && i < MAX_KERNELS && m >= 4; i++)
        if (took[i] / LOST >= least)
            p->lost |= 1ull << i;
    return *best ? EW_STATUS_OK
                 : ew_fail(p->b->err, EW_STATUS_UNSUPPORTED, "no CUDA kernel for %llu rows",
                           (unsigned long long)m);
}

static ew_status switches_of(struct problem *p, struct ew_timing_cache *tc, bool timed,
                             struct ew_plan_tactic *t)
{
    struct ew_plan_switch *s = ew_arena_new(&p->b->plan.arena, struct ew_plan_switch, MAX_STEPS);
    uint32_t n = 0;

    if (!s)
        return ew_fail(p->b->err, EW_STATUS_NO_MEMORY, "tactics");
    for (uint64_t m = 1; m < 2 * p->max_m && n < MAX_STEPS; m *= 2) {
        const struct ew_cuda_linear_kernel *k;
        uint64_t ns;

        EW_TRY(fastest(p, tc, timed, m, &k, &ns));
        if (n && s[n - 1].kernel == k->name)
            s[n - 1].max_m = m;
        else
            s[n++] = (struct ew_plan_switch){ k->name, m, ns };
    }
    if (n && ew_cuda_linear_kernel_find(s[n - 1].kernel)->max_rows == SIZE_MAX)
        s[n - 1].max_m = UINT64_MAX;
    t->switches = s;
    t->n_switches = n;
    return EW_STATUS_OK;
}

static struct problem problem_of(struct ew_build *b, const struct ew_plan_tactic *t, uint64_t max_m)
{
    const struct ew_linear_kernel *layout = ew_linear_kernel_find(t->candidates[t->chosen].kernel);

    return (struct problem){ .b = b,
                             .t = t,
                             .max_m = max_m,
                             .w = { .kernel = layout,
                                    .format = t->format,
                                    .x_quant = t->x_quant,
                                    .n = t->n,
                                    .k = t->k,
                                    .n_experts = 1,
                                    .expert_bytes = layout->packed_bytes(&t->format, (size_t)t->n,
                                                                         (size_t)t->k, t->glu),
                                    .glu = t->glu } };
}

/* Compiled together on all threads, then given to the table that timing launches from. */
static ew_status compile_all(struct ew_build *b, uint64_t max_m, struct ew_build_specs *s)
{
    for (uint32_t i = 0; i < b->plan.n_tactics; i++) {
        const struct problem p = problem_of(b, &b->plan.tactics[i], max_m);

        see_all(&p, s);
    }
    EW_TRY(ew_build_specs_compile(b, s));
    for (size_t i = 0; i < s->n; i++) {
        const struct ew_cuda_image image = { s->at[i].source, s->at[i].defines, s->at[i].code,
                                             s->at[i].bytes };

        EW_TRY(ew_cuda_modules_add(b->cuda->modules, &image, b->err));
    }
    return EW_STATUS_OK;
}

/* Whether cuBLASLt could multiply any of the weights: it takes its time to load. */
static bool wants_library(const struct ew_build *b, uint64_t max_m)
{
    struct ew_cuda_chip with = b->cuda->chip;
    size_t n;
    const struct ew_cuda_linear_kernel *const *all = ew_cuda_linear_kernels(&n);

    with.cublaslt = 1;
    for (uint32_t i = 0; i < b->plan.n_tactics; i++)
        for (size_t k = 0; k < n; k++) {
            const struct ew_plan_tactic *t = &b->plan.tactics[i];

            if (all[k]->library && max_m >= all[k]->min_rows &&
                ew_cuda_linear_kernel_runs(all[k], &with, t->dtype, &t->format, all[k]->min_rows,
                                           (size_t)t->n, (size_t)t->k, t->glu, t->x_quant))
                return true;
        }
    return false;
}

/* A library that is not there is missed by nobody, unless it was asked for. */
static ew_status load_library(struct ew_build *b, bool timed, uint64_t max_m)
{
    const bool forced = b->opts.tactic && strncmp(b->opts.tactic, "cublaslt", 8) == 0;
    ew_error why = { 0 };
    ew_status st;

    if ((!timed && !forced) || !wants_library(b, max_m))
        return EW_STATUS_OK;
    st = ew_cuda_load_library(b->cuda, &why);
    if (!st)
        return EW_STATUS_OK;
    if (forced || st == EW_STATUS_NO_MEMORY)
        return ew_fail(b->err, st, "tactic '%s': %s", forced ? b->opts.tactic : "cublaslt",
                       why.text);
    ew_log(b->opts.logger, EW_LOG_INFO, "%s: not one of the tactics", why.text);
    return EW_STATUS_OK;
}

/* The engine names the library that its switches use. */
static void name_library(struct ew_build *b)
{
    for (uint32_t i = 0; i < b->plan.n_tactics; i++)
        for (uint32_t k = 0; k < b->plan.tactics[i].n_switches; k++)
            if (ew_cuda_linear_kernel_find(b->plan.tactics[i].switches[k].kernel)->library)
                b->plan.device.cublaslt = b->cuda->chip.cublaslt;
}

ew_status ew_build_switches(struct ew_build *b, struct ew_timing_cache *tc, bool timed,
                            struct ew_build_specs *s)
{
    const uint64_t max_m = largest_m(b);
    ew_status st = load_library(b, timed, max_m);

    if (!st && timed)
        st = compile_all(b, max_m, s);
    for (uint32_t i = 0; i < b->plan.n_tactics && !st; i++) {
        struct problem p = problem_of(b, &b->plan.tactics[i], max_m);

        st = ew_build_step(b, "time tactics", i, b->plan.n_tactics);
        if (!st)
            st = switches_of(&p, tc, timed, &b->plan.tactics[i]);
        problem_close(&p);
    }
    if (!st)
        name_library(b);
    return st;
}

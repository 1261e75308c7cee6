/* backend/cpu/cpu.c - the CPU backend's table: which emitter serves which op, and the walk over a
 * launch list. */
#include <string.h>

#include "backend/cpu/steps.h"
#include "os/os.h"

struct ew_step *ew_step_add(struct ew_step_list *list, const struct ew_emit *e, ew_step_fn *fn,
                            size_t arg_bytes, void *args_out)
{
    struct ew_step *s;
    void *args = ew_arena_alloc(list->arena, arg_bytes ? arg_bytes : 1);

    if (!args)
        return NULL;
    if (list->n == list->cap) {
        const size_t cap = list->cap ? list->cap * 2 : 64;
        struct ew_step *more = ew_arena_new(list->arena, struct ew_step, cap);

        if (!more)
            return NULL;
        if (list->n)
            memcpy(more, list->steps, list->n * sizeof(*more));
        list->steps = more;
        list->cap = cap;
    }
    s = &list->steps[list->n++];
    *s = (struct ew_step){ .fn = fn, .args = args, .n_phases = 1, .slot = e ? e->slot : 0 };
    memcpy(args_out, &args, sizeof(args));
    return s;
}

void ew_exec_fail(struct ew_exec *x, ew_status st)
{
    int none = 0;

    __atomic_compare_exchange_n(&x->status, &none, (int)st, false, __ATOMIC_RELAXED,
                                __ATOMIC_RELAXED);
}

static ew_status cpu_emit(struct ew_step_list *list, const struct ew_emit *e, ew_error *err)
{
    const size_t before = list->n;
    ew_status st;

    switch (e->node->op) {
    case EW_OP_LINEAR:
        st = ew_emit_linear(list, e, err);
        break;
    case EW_OP_FUSED_RMS_NORM:
        st = ew_emit_rms_norm(list, e, err);
        break;
    case EW_OP_KV_ATTENTION:
        st = ew_emit_attention(list, e, err);
        break;
    case EW_OP_MOE:
        st = ew_emit_moe(list, e, err);
        break;
    case EW_OP_POINTWISE:
        st = ew_emit_pointwise(list, e, err);
        break;
    default:
        st = ew_emit_general(list, e, err);
        break;
    }
    if (st) {
        ew_error_within(err, "node '%s' (%s)", e->node->name, ew_op_get(e->node->op)->name);
        list->n = before;
    }
    return st;
}

struct walk {
    const struct ew_step *steps;
    size_t n;
    struct ew_exec *x;
};

/* No barrier after the last phase of step s: its readers are the same thread, or the run ends with
 * one. */
static bool needs_no_barrier(const struct walk *w, size_t s)
{
    const struct ew_step *const step = &w->steps[s];

    return s + 1 == w->n || step->each || (step->serial && w->steps[s + 1].serial);
}

static void walk(void *arg, unsigned i, unsigned n)
{
    const struct walk *w = arg;
    struct ew_exec *x = w->x;

    for (size_t s = 0; s < w->n; s++) {
        const struct ew_step *step = &w->steps[s];

        if (x->step_ns && i == 0)
            x->step_ns[s] = ew_clock_ns();
        /* After a failure every thread still meets every barrier: leaving early could strand the
         * others. */
        for (unsigned phase = 0; phase < step->n_phases; phase++) {
            if ((!step->serial || i == 0) && !__atomic_load_n(&x->status, __ATOMIC_RELAXED))
                step->fn(step, x, phase, i,
                         step->serial ? 1 : n); /* a serial step is thread 0's in whole */
            if (n > 1 && (phase + 1 < step->n_phases || !needs_no_barrier(w, s)))
                ew_pool_barrier(x->pool, i);
        }
    }
}

static void cpu_run(const struct ew_step_list *list, size_t begin, size_t end, struct ew_exec *x)
{
    struct walk w = { list->steps + begin, end - begin, x };

    if (w.n)
        ew_pool_run_fit(x->pool, walk, &w);
    if (x->step_ns)
        x->step_ns[w.n] = ew_clock_ns();
}

const struct ew_backend *ew_backend_cpu(void)
{
    static const struct ew_backend cpu = {
        .name = "cpu", .emit = cpu_emit, .emit_copy = ew_emit_copy, .run = cpu_run
    };

    return &cpu;
}

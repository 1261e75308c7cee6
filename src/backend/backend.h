/* backend/backend.h - what a device does for an engine: turn a node with concrete views into steps
 * of a launch list, and run a list. One vtable a device; backend/cpu is the first.
 *
 *   emit: node + views --> steps (function + arguments, kept in the launch's arena)
 *   run:  the pool's threads walk the list together; a phase ends with a barrier unless the next
 *         needs none (serial and `each` steps, the end of the list)
 *
 * A list is immutable once emitted (but for counters that a run leaves at 0) and holds no scratch
 * addresses: those belong to the run, so that a context may grow its scratch without touching
 * captured lists. */
#ifndef EW_BACKEND_H
#define EW_BACKEND_H

#include "base/arena.h"
#include "backend/device.h"
#include "base/pool.h"
#include "plan/plan.h"

struct ew_exec { /* one run in flight */
    struct ew_pool *pool;
    uint8_t *shared; /* working memory of the step in hand */
    uint8_t *thread; /* n_threads x thread_stride */
    size_t thread_stride;
    int status; /* first failure; written before a barrier, read after it */
    ew_error *err;
    uint64_t *step_ns; /* [n_steps] begin times + end, or NULL: not timed */
};

struct ew_step;
typedef void ew_step_fn(const struct ew_step *s, struct ew_exec *x, unsigned phase, unsigned i,
                        unsigned n);

struct ew_step {
    ew_step_fn *fn;
    const void *args;
    unsigned n_phases;
    bool serial; /* thread 0 does all of it (as 0 of 1); no barrier before another serial step */
    bool each;   /* one phase that every thread does in whole: thread 0 to its place, the others to
                  * the front of their own scratch; no barrier after it */
    uint32_t slot;      /* profile entry: node number, or n_nodes + output for a closing copy */
    const char *tactic; /* static or in the plan */
    uint64_t bytes, flops;
};

struct ew_list_memory {
    struct ew_list_memory *next; /* in the list's arena, as this is */
    void *data;
    size_t bytes;
};

#define EW_CONV_SLOTS 16
struct ew_step_list {
    struct ew_arena *arena; /* of the launch */
    struct ew_step *steps;
    size_t n, cap;
    size_t n_ran; /* steps that have run already, where a list runs while it is emitted */
    size_t shared_bytes, thread_bytes; /* largest need of any step */
    size_t counter_bytes;              /* the same of zeroed words (a device's) */
    struct ew_list_memory *memory;     /* of a device: goes with the list */
    struct {
        void *data;
        size_t bytes;
    } conv[EW_CONV_SLOTS]; /* f32 twins of half operands, reused node by node */
};

/* One node to be emitted. Views are concrete; a packed weight has its record beside the view. */
struct ew_emit {
    const struct ew_plan *plan;
    const struct ew_plan_node *node;
    uint32_t slot;
    const struct ew_view *const *in;       /* [n_in], NULL: absent */
    const struct ew_packed *const *packed; /* [n_in], NULL: not packed */
    struct ew_view *const *out;
    unsigned n_threads;
    /* Of a device's list, which holds addresses of working memory: where it is and how much. A step
     * that needs more only raises the list's shared_bytes and counter_bytes; the list must then not
     * be run, but made again with so much. Counters are zero before every step and after it. */
    struct ew_device *device;
    void *scratch, *counters;
    size_t scratch_bytes, counters_bytes;
};

struct ew_backend {
    const char *name;
    ew_status (*emit)(struct ew_step_list *list, const struct ew_emit *e, ew_error *err);
    /* bytes from src to dst, as a step */
    ew_status (*emit_copy)(struct ew_step_list *list, uint32_t slot, void *dst, const void *src,
                           size_t bytes, ew_error *err);
    /* Steps around a device's nodes, or NULL: rows of an embedding table in f32, times scale
     * (UNSUPPORTED: not of this table; no ids ask that and nothing else is read), and the index of
     * the largest value of each row of x. e: no node, the device's working memory. */
    ew_status (*emit_embed)(struct ew_step_list *list, const struct ew_emit *e, void *to,
                            const struct ew_plan_tensor *table, const void *data, const void *ids,
                            size_t n_ids, float scale, ew_error *err);
    ew_status (*emit_argmax)(struct ew_step_list *list, const struct ew_emit *e, const void *x,
                             size_t rows, size_t n, void *tokens, ew_error *err);
    /* Makes the list, whose nodes end in one step over logits x of one row for each of n
     * sequences, lead on: each run leaves their likeliest tokens in tokens[run of the list % 2 *
     * n], i32 [2 * n] in memory of the host that is pinned, and on the device what a run that
     * follows reads: the tokens in ids[n], lengths[n] one more each. False: not this list; it was
     * not changed. NULL: none does. */
    bool (*emit_lead_on)(struct ew_step_list *list, const void *x, const void *lengths,
                         int32_t *tokens, void *ids);
    /* A token drawn from each row by draws[row] (ew_draw, in device memory). */
    ew_status (*emit_draw)(struct ew_step_list *list, const struct ew_emit *e, const void *x,
                           size_t rows, size_t n, const void *draws, void *tokens, ew_error *err);
    /* After the last node of a list: a device may make other steps of those from `first` on. NULL:
     * nothing to do. */
    ew_status (*emit_end)(struct ew_step_list *list, const struct ew_emit *e, size_t first,
                          ew_error *err);
    /* Runs steps [begin, end); the status is x->status. NULL: lists run on streams of a device. */
    void (*run)(const struct ew_step_list *list, size_t begin, size_t end, struct ew_exec *x);
};
const struct ew_backend *ew_backend_cpu(void);
const struct ew_backend *ew_backend_cuda(void);

/* Shared by the emitters of a backend: appends a zeroed step with `arg_bytes` of arguments. NULL:
 * no memory. */
struct ew_step *ew_step_add(struct ew_step_list *list, const struct ew_emit *e, ew_step_fn *fn,
                            size_t arg_bytes, void *args_out);

#endif

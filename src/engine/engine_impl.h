/* engine/engine_impl.h - the engine and context objects as their own files see them.
 *
 *   ew_engine: plan (tables, mapped weights), output shapes at each profile, name lookup. Immutable
 * after load. ew_context: bindings -> key -> launch. A launch owns an arena: types, views, known
 * contents, steps.
 *
 *   key   = profile, dims and address of every input, address of every output (its own, or the held
 * memory's) cache = up to EW_CACHE_LAUNCHES launches, found by a 128-bit hash of the key and
 * compared in full */
#ifndef EW_ENGINE_IMPL_H
#define EW_ENGINE_IMPL_H

#include <string.h>

#include "edgewise/engine.h"
#include "backend/backend.h"
#include "base/hash.h"
#include "os/os.h"
#include "plan/plan.h"

#define EW_CACHE_LAUNCHES 64

struct ew_engine {
    struct ew_plan plan;
    const uint8_t *bytes;
    size_t len;
    struct ew_file_map map; /* empty when the caller lent the bytes */
    unsigned n_threads;
    ew_logger logger;
    bool has_logger;
    const struct ew_backend *backend;
    struct ew_device *device;          /* NULL: the CPU */
    char *device_name, *profiler;      /* of the options */
    struct ew_map names;               /* tensor name -> i of ew_engine_get_tensor */
    struct ew_tensor_info *info;       /* [n_profiles][n_inputs + n_outputs] */
    size_t shared_bytes, thread_bytes; /* scratch that the profiles' max shapes need */
    size_t block_bytes;
    bool only_looked_at; /* no device was opened */
    bool is_dynamic;     /* some profile cannot be resolved without data */
};

struct ew_binding {
    int64_t dim[EW_MAX_DIMS];
    bool has_shape;  /* inputs: every dim is set */
    bool by_profile; /* by the profile, which allows one shape, not by the caller */
    void *address;
    bool on_device;     /* address is of the engine's memory; elsewhere it is the host's */
    const int32_t *ids; /* input: rows of the embedding instead of an address */
    float scale;
    int32_t *tokens;      /* output: where the token picked from each of its rows goes */
    const ew_draw *draws; /* output: how; NULL: the likeliest */
};

struct ew_launch {
    struct ew_arena arena;
    uint8_t *key;
    struct ew_hash128 hash;
    uint64_t last_use;
    bool is_dynamic; /* shapes depend on contents: run node by node */
    struct ew_shapes shapes;
    struct ew_view *view; /* [n_tensors] */
    struct ew_step_list list;
    struct ew_length_check *checks; /* a device's: of attention, in every run */
    size_t n_checks;
    struct ew_recording *recording; /* a device's; NULL until the first replay */
    struct ew_lead {                /* device_ahead.c; off: a run does not lead on to the next */
        bool on;
        uint32_t ids, out; /* input and output numbers */
        uint32_t n;        /* sequences: a token of each */
        uint64_t n_runs;   /* begun */
    } lead;
};

struct ew_held { /* an output that the context holds */
    void *data;
    size_t cap;
};

struct ew_heap_chunk {
    struct ew_heap_chunk *next;
    size_t cap, used;
    uint8_t *data;
};

struct ew_slot_stat { /* per node (and closing copy) */
    const char *tactic;
    uint64_t n_runs, total_ns, min_ns, max_ns, bytes, flops;
};

struct ew_context {
    ew_engine *engine;
    uint32_t flags;
    uint32_t profile;
    struct ew_binding *in, *out;
    struct ew_held *held;    /* [n_outputs] */
    struct ew_type *in_type; /* scratch of resolve */
    bool clean;              /* nothing was set since the last run */
    struct ew_launch *last;
    struct ew_launch *cache[EW_CACHE_LAUNCHES];
    size_t n_cached;
    uint64_t tick;
    uint8_t *key;
    size_t key_bytes;
    struct ew_pool *pool;
    uint8_t *block, *shared, *thread;
    size_t block_bytes, shared_bytes, thread_stride;
    uint64_t *step_ns;
    size_t step_ns_cap;
    struct ew_slot_stat *slots; /* [n_nodes + n_outputs] */
    struct ew_heap_chunk *heap; /* dynamic mode */
    struct ew_on_device *dev;   /* NULL: the CPU */
    ew_context_stats stats;
    ew_error err;
};

/* resolve.c: builds a launch for what is bound now (shapes checked, addresses there). */
ew_status ew_launch_create(struct ew_context *c, struct ew_launch **out);
void ew_launch_destroy(struct ew_context *c, struct ew_launch *l);
/* Emits the steps of node i from l->view. */
ew_status ew_launch_emit_node(struct ew_context *c, struct ew_launch *l, uint32_t node);
/* The closing copies: outputs that no node writes in place. */
ew_status ew_launch_emit_outputs(struct ew_context *c, struct ew_launch *l);
/* Address where output o must end up (its own, its alias input's, or held memory grown to `bytes`).
 * NULL: no memory. */
void *ew_context_out_address(struct ew_context *c, uint32_t o, size_t bytes);
/* Grows scratch to what the list needs. */
ew_status ew_context_scratch(struct ew_context *c, size_t shared, size_t per_thread);
/* Runs steps [begin, end) with timing when asked for. */
ew_status ew_context_exec(struct ew_context *c, const struct ew_step_list *list, size_t begin,
                          size_t end);

/* context.c: forgets every captured launch but `keep`; a run that was begun ahead is waited for. */
void ew_context_forget(struct ew_context *c, const struct ew_launch *keep);

void ew_context_note_step(struct ew_context *c, const struct ew_step *s, uint64_t begin,
                          uint64_t end);
/* Room for n times in c->step_ns. */
ew_status ew_context_step_times(struct ew_context *c, size_t n);

/* device.c: what a context has on a device. A host address that was set is copied to and from a
 * place of the context's own there: all small inputs lie in one block that one copy moves. */
struct ew_stream *ew_context_stream(const struct ew_context *c);
ew_status ew_context_device_open(struct ew_context *c, ew_error *err);
void ew_context_device_close(struct ew_context *c);
/* Gives every input with a host address its place; before the key is made. */
ew_status ew_context_device_place(struct ew_context *c);
/* Where kernels find input i. */
void *ew_context_in_address(const struct ew_context *c, uint32_t i);
/* Memory of output o that the context holds, grown to `bytes`. */
void *ew_context_device_held(struct ew_context *c, uint32_t o, size_t bytes);
void *ew_context_device_held_now(const struct ew_context *c, uint32_t o); /* NULL: none yet */
/* Scratch and counters as large as the list needs. *grown: addresses changed, the list is to be
 * emitted again. */
/* Steps before and after the nodes: lookups, picks of tokens. */
ew_status ew_context_device_before(struct ew_context *c, struct ew_launch *l);
ew_status ew_context_device_end(struct ew_context *c, struct ew_launch *l, size_t first);
ew_status ew_context_device_after(struct ew_context *c, struct ew_launch *l);
ew_status ew_context_device_scratch(struct ew_context *c, const struct ew_step_list *list,
                                    bool *grown);
void ew_context_device_emit(const struct ew_context *c, struct ew_emit *e);
/* device_lengths.c: remembers what of an attention node is to be checked, and checks it. */
ew_status ew_launch_note_lengths(struct ew_context *c, struct ew_launch *l,
                                 const struct ew_emit *e);
ew_status ew_launch_check_lengths(struct ew_context *c, const struct ew_launch *l);
/* The numbers of its inputs that one check reads, EW_PLAN_NONE: none. False: not one check. */
bool ew_launch_lengths(const struct ew_launch *l, uint32_t *lengths, uint32_t *start);
/* Of a step that begins before its tokens are known. */
#define EW_AHEAD_MAX_ROWS EW_PLAN_STEP_ROWS
/* The same check of a run of so many rows whose lengths are one more. */
ew_status ew_launch_check_next(struct ew_context *c, const struct ew_launch *l);
/* Copies in, runs, copies out, waits; ahead: begins the next run, where it can. */
ew_status ew_context_device_run(struct ew_context *c, struct ew_launch *l, bool ahead);
/* Waits for a run that was begun ahead; its results are nobody's. */
ew_status ew_context_device_settle(struct ew_context *c);
/* Whether the device may draw tokens from output o: f32, and not too many rows. */
bool ew_context_device_draws(const struct ew_context *c, uint32_t o);
/* Output o of the last run in the host's memory. */
ew_status ew_context_device_read(struct ew_context *c, uint32_t o, const void **data);

/* dynamic.c */
ew_status ew_context_run_dynamic(struct ew_context *c, struct ew_launch *l);
void ew_heap_destroy(struct ew_heap_chunk *h);

/* trace.c */
bool ew_trace_is_on(void);
void ew_trace_add(const char *name, const char *category, uint64_t begin_ns, uint64_t end_ns);

#endif

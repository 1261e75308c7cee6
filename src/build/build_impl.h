/* build/build_impl.h - the builder's own object and its stages, in the order they run. */
#ifndef EW_BUILD_IMPL_H
#define EW_BUILD_IMPL_H

#include <string.h>

#include "edgewise/build.h"
#include "base/hash.h"
#include "base/pool.h"
#include "cpu/cpu.h"
#include "graph/ir.h"
#include "plan/plan.h"
#include "plan/writer.h"

#define EW_TREE_MAX                                                                                \
    64 /* rows of a verification tree that the default generation profile allows                   \
        */

struct ew_build_const {         /* beside tensor t of the plan */
    const struct ew_value *src; /* where its contents are; NULL: tensor.data has them */
    bool pack;                  /* a weight of Linear or Moe */
    bool used;                  /* by a node */
    bool lookup;                /* a quantised table that only rows are read of */
};

struct ew_build {
    ew_build_opts opts;
    struct ew_graph *graph;
    struct ew_plan plan;
    struct ew_build_const *consts; /* [n_tensors] */
    struct ew_cpu_info cpu;
    uint32_t cpu_flags; /* what the level allows of what there is */
    struct ew_pool *pool;
    struct ew_cuda *cuda; /* the GPU that is built for; NULL: the CPU */
    ew_error *err;
};

/* False: the caller cancelled (err is set). */
ew_status ew_build_step(struct ew_build *b, const char *stage, uint64_t done, uint64_t total);

ew_status ew_build_flatten(struct ew_build *b);     /* flatten.c: graph -> plan tables */
ew_status ew_build_profiles(struct ew_build *b);    /* profiles.c */
ew_status ew_build_tactics(struct ew_build *b);     /* tactics.c: kernels of every packed weight */
ew_status ew_build_memory_plan(struct ew_build *b); /* memory.c */
ew_status ew_build_meta(struct ew_build *b);        /* build.c */
ew_status ew_build_weights(struct ew_build *b, struct ew_plan_writer *w); /* weights.c */
/* Offsets of all constants; sets plan.weights_bytes. */
ew_status ew_build_place_weights(struct ew_build *b);

/* tactics_time.c: nanoseconds of one run of `kernel` at m rows, measured, or from the cache. */
#define EW_TIME_MANY 16 /* rows; fewer are timed with weights that come from memory */
struct ew_timing_cache;
ew_status ew_timing_cache_open(const char *path, const ew_logger *logger,
                               struct ew_timing_cache **out, ew_error *err);
ew_status ew_timing_cache_save(const struct ew_timing_cache *tc, const char *path, ew_error *err);
void ew_timing_cache_close(struct ew_timing_cache *tc);
ew_status ew_time_linear(struct ew_build *b, struct ew_timing_cache *tc,
                         const struct ew_linear_kernel *kernel, const struct ew_plan_tactic *t,
                         uint64_t m, uint64_t *ns);

/* ---- a GPU's part of a build ---- */
struct ew_cuda;
struct ew_cuda_launch;
/* device.c: opens the GPU that the options name, if they name one. */
ew_status ew_build_device_open(struct ew_build *b);
void ew_build_device_close(struct ew_build *b);
/* Refuses nodes that the backend does not run, times the kernels of every weight by rows, and
 * compiles what the profiles' shapes need into plan.images. After the memory plan. */
ew_status ew_build_device_kernels(struct ew_build *b);

/* device_specs.c: distinct kernels, in the order they came. */
struct ew_build_specs {
    struct ew_build_spec {
        const char *source;
        char *key;           /* "source defines": the map's */
        const char *defines; /* its end */
        const char *entry;   /* the first one, for messages */
        void *code;
        size_t bytes;
    } * at;
    size_t n, cap;
    struct ew_map map;
    bool no_memory;
};
void ew_build_specs_init(struct ew_build_specs *s);
void ew_build_specs_deinit(struct ew_build_specs *s);
/* As struct ew_cuda's `see`: ctx is the specs. */
void ew_build_specs_see(void *ctx, const struct ew_cuda_launch *l);
/* Copies code that `from` has for specs of s without any. */
void ew_build_specs_take(struct ew_build_specs *s, const struct ew_build_specs *from);
/* Compiles those without code, on all threads of the build. */
ew_status ew_build_specs_compile(struct ew_build *b, struct ew_build_specs *s);

/* device_dry.c: emits every node at one profile's opt shapes, or at all shapes that tell kernels
 * apart; raises plan.device's scratch_bytes and counter_bytes to what was needed. */
ew_status ew_build_dry_opt(struct ew_build *b, struct ew_build_specs *s);
ew_status ew_build_dry_all(struct ew_build *b, struct ew_build_specs *s);

/* device_time.c: the switches of every tactic. `timed`: by measurement; `s` gets what was compiled
 * for it, and the build's table of kernels borrows that code. */
ew_status ew_build_switches(struct ew_build *b, struct ew_timing_cache *tc, bool timed,
                            struct ew_build_specs *s);

/* device_step.c: whether decode steps of 1 to 8 rows run as one kernel (plan.device.step).
 * The device's table has what it needs. */
ew_status ew_build_time_step(struct ew_build *b);
/* What opts.tactic may say of the step: "step_graph", "step_kernel". */
bool ew_build_is_step_tactic(const char *name);

/* tactics_time.c: what the cache knows. False: nothing. */
bool ew_timing_cache_get(const struct ew_timing_cache *tc, const char *key, uint64_t *ns);
bool ew_timing_cache_put(struct ew_timing_cache *tc, const char *key, uint64_t ns);

/* memory.c, for the test: places n blocks with lifetimes [first, last] so that no two live ones
 * overlap. Returns the size of the block. Offsets are multiples of EW_PLAN_ALIGN. */
struct ew_live {
    uint64_t bytes, off;
    uint32_t first, last, tensor;
};
ew_status ew_memory_place(struct ew_live *live, size_t n, uint64_t *block_bytes, ew_error *err);

#endif

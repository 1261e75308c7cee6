/* build/build_impl.h - the builder's own object and its stages, in the order they run. */
#ifndef EW_BUILD_IMPL_H
#define EW_BUILD_IMPL_H

#include <string.h>

#include "edgewise/build.h"
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
struct ew_timing_cache;
ew_status ew_timing_cache_open(const char *path, const ew_logger *logger,
                               struct ew_timing_cache **out, ew_error *err);
ew_status ew_timing_cache_save(const struct ew_timing_cache *tc, const char *path, ew_error *err);
void ew_timing_cache_close(struct ew_timing_cache *tc);
ew_status ew_time_linear(struct ew_build *b, struct ew_timing_cache *tc,
                         const struct ew_linear_kernel *kernel, const struct ew_plan_tactic *t,
                         uint64_t m, uint64_t *ns);

/* memory.c, for the test: places n blocks with lifetimes [first, last] so that no two live ones
 * overlap. Returns the size of the block. Offsets are multiples of EW_PLAN_ALIGN. */
struct ew_live {
    uint64_t bytes, off;
    uint32_t first, last, tensor;
};
ew_status ew_memory_place(struct ew_live *live, size_t n, uint64_t *block_bytes, ew_error *err);

#endif

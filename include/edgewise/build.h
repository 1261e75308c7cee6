/* edgewise/build.h - graph + device + profiles -> engine file.
 *
 * The builder runs the passes, times the tactics of each op at the opt shape of each profile on
 * this machine, plans memory, packs weights straight from the mapped checkpoint into the file, and
 * renames it into place. */
#ifndef EW_BUILD_H
#define EW_BUILD_H

#include "edgewise/graph.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Shapes of one input under one profile. dims as in the graph; every symbolic dim needs a number.
 */
typedef struct ew_profile_input {
    const char *name;
    uint32_t n_dims;
    int64_t min[8], opt[8], max[8];
} ew_profile_input;

typedef struct ew_profile {
    const char *name; /* "context" */
    const ew_profile_input *inputs;
    uint32_t n_inputs;
} ew_profile;

enum ew_build_flags {
    EW_BUILD_NO_TIMING =
        1u << 0, /* take the best-ranked tactic without timing it (tests, onnx-check) */
    EW_BUILD_NO_FUSION = 1u << 1, /* only fold and simplify: to find a pass that is wrong */
    EW_BUILD_ALL_LOGITS =
        1u << 2, /* language model: logits of every token of a step may be asked for */
    EW_BUILD_EXACT_KV = 1u << 3, /* ew_model_build: the cache of a checkpoint that asks for none
                                    stays f32, not f16 */
};

/* Zero = default of every field. */
typedef struct ew_build_opts {
    uint32_t struct_size;
    uint32_t flags;        /* enum ew_build_flags */
    const char *cpu_level; /* NULL: native; "ref", "avx2", "avx512"... masks what the machine has */
    uint32_t n_threads;    /* 0: one per core */
    /* language models: the two default profiles; ignored when profiles are given */
    uint32_t max_batch;     /* 0: 8 */
    uint32_t max_input_len; /* longest prefill step; 0: 512. Longer prompts run in chunks */
    uint32_t
        max_kv_len; /* tokens a row may hold; 0: min(4096, the model's max_position_embeddings) */
    ew_dtype kv_dtype;          /* F32, F16, BF16, F8E4M3 (scales of the model), I8 (scale a row).
                                   NONE: as the graph says; ew_model_build of a checkpoint: f16, or
                                   what it asks for */
    const ew_profile *profiles; /* explicit profiles (any graph) */
    uint32_t n_profiles;
    const char *timing_cache; /* file read before and written after timing; NULL: none */
    /* "linear_bf16__avx2_p16": force where it applies; NULL: time them. On a GPU also "step_graph",
     * "step_kernel": how decode steps of up to 8 rows run, where a kernel takes so many */
    const char *tactic;
    ew_progress progress;
    const ew_logger *logger;
    ew_activations activations; /* of a quantised checkpoint; read where the graph is made
                                   (ew_model_build), not by ew_build_file */
    const char *device; /* "cpu" (and NULL), "cuda", "cuda:1": what the engine is for. A GPU must be
                           there; its cache is f16 where kv_dtype is NONE and the graph says f32 */
    const char *kernel_cache; /* folder where compiled kernels of a GPU are kept, by a hash of all
                                 that they are made from; made when it is not there. NULL: none */
} ew_build_opts;
#define EW_BUILD_OPTS_INIT                                                                         \
    {                                                                                              \
        sizeof(ew_build_opts), 0, 0, 0, 0, 0, 0, EW_DTYPE_NONE, 0, 0, 0, 0, { 0, 0 }, 0, 0, 0, 0   \
    }

/* Writes the engine to `path` (atomic). The graph is consumed in the sense that passes change it;
 * destroy it after. */
EW_API ew_status ew_build_file(ew_graph *g, const ew_build_opts *opts, const char *path,
                               ew_error *err) EW_MUST_USE;
/* The same into memory: *bytes is page-aligned and freed by ew_plan_free. For evaluation and small
 * graphs. */
EW_API ew_status ew_build_memory(ew_graph *g, const ew_build_opts *opts, void **bytes,
                                 size_t *n_bytes, ew_error *err) EW_MUST_USE;
EW_API void ew_plan_free(void *bytes);

#ifdef __cplusplus
}
#endif
#endif

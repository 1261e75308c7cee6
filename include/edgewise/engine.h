/* edgewise/engine.h - run a built engine file.
 *
 *   engine file --open (map, check)--> ew_engine   immutable, shared by threads
 *                                          |  create, one per stream of work
 *                                          v
 *                                      ew_context  profile, shapes, addresses, activations;
 *                                          |       one thread at a time
 *                                          v
 *                                      ew_context_run: replay a captured launch list, or
 *                                                      resolve and capture
 *
 * The engine maps weights; a context owns activations. Running after the first run with the same
 * shapes and addresses allocates nothing. */
#ifndef EW_ENGINE_H
#define EW_ENGINE_H

#include "edgewise/memory.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ew_engine ew_engine;
typedef struct ew_context ew_context;

typedef struct ew_engine_opts {
    uint32_t struct_size;
    uint32_t n_threads; /* threads a context of this engine runs on; 0: one per core, or
                           per core of the faster kinds on a mixed processor */
    const ew_logger *logger;
    const char *device; /* "cpu", "cuda", "cuda:1"; NULL: what the engine was built for; "none": it
                           is only looked at, and gives no context */
    const char *profiler; /* a GPU's: library of a tool that shows NVTX ranges, which then carry the
                             names of nodes; what the tool puts into NVTX_INJECTION64_PATH. The
                             first one of a process is loaded, for good. NULL: none */
} ew_engine_opts;
#define EW_ENGINE_OPTS_INIT                                                                        \
    {                                                                                              \
        sizeof(ew_engine_opts), 0, 0, 0, 0                                                         \
    }

/* Maps and checks the file: magic, version, length, every section's checksum, device fingerprint.
 * Errors: NOT_FOUND, MALFORMED (truncated, flipped bytes), MISMATCH (other version or device),
 * NO_MEMORY. */
EW_API ew_status ew_engine_open(const char *path, const ew_engine_opts *opts, ew_engine **out,
                                ew_error *err) EW_MUST_USE;
/* `plan` is borrowed until ew_engine_destroy; must be 64-byte aligned. */
EW_API ew_status ew_engine_load(const void *plan, size_t plan_bytes, const ew_engine_opts *opts,
                                ew_engine **out, ew_error *err) EW_MUST_USE;
EW_API void ew_engine_destroy(ew_engine *e);

/* "cpu", or "cuda:0 (NVIDIA H200, sm_90)". Borrowed. */
EW_API const char *ew_engine_device(const ew_engine *e);
/* Memory of that device, until ew_engine_destroy. */
EW_API const ew_memory *ew_engine_memory(const ew_engine *e);

/* JSON description: sections, profiles, tactics with times and runners-up, memory. Freed by
 * ew_text_free (graph.h). */
EW_API ew_status ew_engine_describe(const ew_engine *e, char **json, ew_error *err) EW_MUST_USE;
/* config.json of the language model inside, or NULL. Borrowed. */
EW_API const char *ew_engine_llm_config(const ew_engine *e);

typedef struct ew_tensor_info {
    const char *name;
    ew_dtype dtype;
    uint32_t n_dims;
    int64_t min[8], opt[8],
        max[8]; /* of the profile asked for; -1 where an output's size depends on data */
    bool is_input;
    const char *alias_of; /* output that shares this input's memory, or NULL */
} ew_tensor_info;
EW_API uint32_t ew_engine_n_profiles(const ew_engine *e);
EW_API const char *ew_engine_profile_name(const ew_engine *e,
                                          uint32_t profile); /* NULL out of range */
EW_API uint32_t ew_engine_n_tensors(const ew_engine *e);     /* inputs, then outputs */
EW_API ew_status ew_engine_get_tensor(const ew_engine *e, uint32_t i, uint32_t profile,
                                      ew_tensor_info *out);

/* Row `id` of the embedding table as f32, hidden_size values. INVALID_ARG when there is none or id
 * is out of range. */
EW_API ew_status ew_engine_embed(const ew_engine *e, int32_t id, float *out);

/* Rows of that table; 0: none. */
EW_API uint32_t ew_engine_embed_rows(const ew_engine *e);

/* Bytes of weights that one step of one row reads: every constant that a node uses, once; of
 * experts only the top k. What a decode step's speed is measured against. */
EW_API uint64_t ew_engine_step_bytes(const ew_engine *e);
/* Multiplications by weights that one step of one row does (Linear, MatMul, Gemm; of experts the
 * top k). Attention and what is not a matrix are not counted; an operation count is twice this. */
EW_API uint64_t ew_engine_step_macs(const ew_engine *e);

enum ew_context_flags {
    EW_CONTEXT_NO_GRAPH =
        1u << 0, /* issue step by step, never capture: a profiler sees every kernel */
    EW_CONTEXT_PROFILE = 1u << 1, /* time every step */
    EW_CONTEXT_PIN = 1u << 2, /* one core a thread, the caller's too while a run lasts; UNSUPPORTED
                                 when there are more threads than cores */
};
typedef struct ew_context_opts {
    uint32_t struct_size;
    uint32_t flags;
} ew_context_opts;
#define EW_CONTEXT_OPTS_INIT                                                                       \
    {                                                                                              \
        sizeof(ew_context_opts), 0                                                                 \
    }

EW_API ew_status ew_context_create(ew_engine *e, const ew_context_opts *opts, ew_context **out,
                                   ew_error *err) EW_MUST_USE;
EW_API void ew_context_destroy(ew_context *c);

/* Per run: profile (0 by default), shape of every input with dynamic dims, address of every input
 * and output. Addresses are borrowed until the next run with others; shapes must lie in the
 * profile. An output whose size depends on data has no address to set: read it with
 * ew_context_get_output after the run. Unknown names: NOT_FOUND; text in ew_context_error. */
EW_API ew_status ew_context_set_profile(ew_context *c, uint32_t profile);
EW_API ew_status ew_context_set_shape(ew_context *c, const char *name, const int64_t *dims,
                                      uint32_t n_dims);
EW_API ew_status ew_context_set_address(ew_context *c, const char *name, void *address);
/* The same for an address in the engine's own memory (ew_engine_memory): nothing is copied in or
 * out. Elsewhere than on a CPU what ew_context_set_address names is the host's: inputs are copied
 * to the device before every run, outputs back after it. */
EW_API ew_status ew_context_set_device_address(ew_context *c, const char *name, void *address);
/* An f32 input is rows of the embedding table, times `scale`: one a token id of the input's leading
 * dims (borrowed until the next run with others; the caller checks them: another id gives NaN).
 * Looked up where the engine runs. UNSUPPORTED: not on this device, or not in this table's format;
 * then ew_engine_embed serves. NULL: back to an address. */
EW_API ew_status ew_context_set_tokens(ew_context *c, const char *name, const int32_t *ids,
                                       float scale);
/* After every run, tokens[i] is where row i of an f32 output (its last axis) has its largest value,
 * the lowest index on a tie, -1 when a value is NaN or none is finite; found where the engine runs.
 * An output without an address is then never copied to the host. UNSUPPORTED: not on this device.
 * NULL: no longer. */
EW_API ew_status ew_context_set_argmax(ew_context *c, const char *name, int32_t *tokens);
/* How a token is drawn from one row of scores: as a request's sampling says (runtime.h), without
 * penalties, biases and log-probabilities. The random number is that of (seed, request, position).
 */
typedef struct ew_draw {
    double temperature;  /* <= 0: the likeliest token, as ew_context_set_argmax */
    double top_p, min_p; /* 1 and 0: off */
    uint64_t seed, position;
    uint32_t request;
    int32_t top_k; /* 0: off */
} ew_draw;
#define EW_DRAW_LEFT      (-2)
#define EW_DRAW_MAX_TOP_K 512
/* The same as ew_context_set_argmax (which ends it, and the other way round) with a draw in place
 * of the largest value: row i by draws[i], which is read at every run (borrowed, as tokens).
 * EW_DRAW_LEFT in place of a token: the row is one that the device cannot draw from (top_k above
 * EW_DRAW_MAX_TOP_K, many ties, a nucleus of many tokens); its scores are there by
 * ew_context_get_output. NULL tokens: no longer. */
EW_API ew_status ew_context_set_draw(ew_context *c, const char *name, const ew_draw *draws,
                                     int32_t *tokens);
/* Shape of an output for the shapes set now (or after the run when it depends on data). */
EW_API ew_status ew_context_get_shape(ew_context *c, const char *name, int64_t dims[8],
                                      uint32_t *n_dims);
/* Where an output lies after a run: at the address that was set, else in memory that the context
 * holds (borrowed until the next run). INVALID_ARG when anything was set since the run. */
EW_API ew_status ew_context_get_output(ew_context *c, const char *name, const void **data,
                                       ew_dtype *dtype, int64_t dims[8], uint32_t *n_dims);
EW_API ew_status ew_context_run(ew_context *c);
/* The same for a decode step of a few rows whose next step, so the caller expects, has the tokens
 * that this one picks (ew_context_set_argmax, ew_context_set_tokens) and lengths one more: where
 * the device can, that step has begun when this one returns, and the next run takes it if its
 * inputs are those; otherwise it is waited for and forgotten, but for what it wrote at its position
 * of the cache. Until the next run or ew_context_settle nobody else writes what the device
 * addresses of this context name, or reads outputs but tokens and the positions of the cache that
 * this run and those before it wrote. */
EW_API ew_status ew_context_run_ahead(ew_context *c);
/* Waits for a step that was begun ahead, if one was. */
EW_API ew_status ew_context_settle(ew_context *c);
/* Text of the last failure of this context; "" if none. */
EW_API const char *ew_context_error(const ew_context *c);

typedef struct ew_step_profile {
    const char *name;   /* "layers.3.qkv" */
    const char *op;     /* "Linear" */
    const char *tactic; /* "linear_bf16__avx2_p16" */
    uint64_t n_runs, total_ns, min_ns, max_ns;
    uint64_t bytes, flops; /* of the last run: what the step had to read and compute */
} ew_step_profile;
/* With EW_CONTEXT_PROFILE: entry i in execution order; NOT_FOUND past the end. */
EW_API ew_status ew_context_get_step(const ew_context *c, uint32_t i, ew_step_profile *out);
typedef struct ew_context_stats {
    uint64_t n_runs, n_captures, n_replays, activation_bytes, scratch_bytes;
    uint32_t n_threads;
    uint64_t n_barriers;      /* met by all threads of a run, in all runs; none with one thread */
    uint64_t n_last_barriers; /* of them in the last run */
    uint64_t n_sleeps;        /* times that a thread waited too long to spin on */
    uint64_t n_stolen;        /* ranges of units that a thread took from a late one */
} ew_context_stats;
EW_API void ew_context_get_stats(const ew_context *c, ew_context_stats *out);

/* Chrome trace (chrome://tracing, Perfetto): start recording spans of every step of every context
 * of this process into memory, and write them. One trace at a time; BUSY otherwise. */
EW_API ew_status ew_trace_start(uint64_t max_events, ew_error *err);
EW_API ew_status ew_trace_write(const char *path, ew_error *err);

/* Live bytes by subsystem ("engine", "kv cache"...): entry i; false past the end. */
EW_API bool ew_memory_get(uint32_t i, const char **name, uint64_t *bytes);
/* Allocations made by the library since the process started; a decode step makes none. */
EW_API uint64_t ew_memory_n_allocations(void);

typedef struct ew_machine_info {
    char model[64];
    char level[16];          /* "avx2" */
    uint32_t n_cores;        /* that this process may use, whatever n_threads was */
    uint32_t n_threads;      /* that measured */
    double read_bytes_per_s; /* measured, n_threads threads */
    double f32_flops_per_s;
    double int8_ops_per_s;   /* sums of products of 8-bit integers; 0: no such instructions */
    double bf16_flops_per_s; /* the same of bf16; 0: as f32 */
    char int8_with[16];      /* "amx", "avx512vnni", "avxvnni", "avx2"; "" */
    char bf16_with[16];
} ew_machine_info;
/* Measures the machine's ceilings (about a second). n_threads 0: one per core. */
EW_API ew_status ew_machine_measure(uint32_t n_threads, const char *cpu_level, ew_machine_info *out,
                                    ew_error *err);
/* Bytes/s that n_threads threads (0: one per core) read now, best of the passes of about `seconds`.
 * Other jobs and other machines of the same host move this ceiling within seconds: measure it right
 * before and after what is compared with it. Takes 512 MiB for the time of the call. */
EW_API ew_status ew_machine_measure_read(uint32_t n_threads, const char *cpu_level, double seconds,
                                         double *bytes_per_s, ew_error *err);

#ifdef __cplusplus
}
#endif
#endif

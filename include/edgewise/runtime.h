/* edgewise/runtime.h - what an application calls: conversations in, text out.
 *
 *   engine directory --open--> ew_runtime (engine, tokenizer, template, KV cache, sampler)
 *   ew_request[n] --ew_runtime_handle_request--> ew_response[n]   (rows of any length)
 *
 * One handle_request at a time per runtime (BUSY otherwise); cancel may come from any thread. */
#ifndef EW_RUNTIME_H
#define EW_RUNTIME_H

#include "edgewise/base.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ew_runtime ew_runtime;

typedef struct ew_runtime_opts {
    uint32_t struct_size;
    uint32_t n_threads;     /* 0: one per core */
    uint32_t max_batch;     /* rows decoded together; 0: the engine's */
    uint32_t flags;         /* enum ew_context_flags of engine.h */
    const char *trace_path; /* NULL: none. Chrome trace of everything until destroy */
    const ew_logger *logger;
    const char *device, *profiler; /* of the engine: as ew_engine_opts */
} ew_runtime_opts;
#define EW_RUNTIME_OPTS_INIT                                                                       \
    {                                                                                              \
        sizeof(ew_runtime_opts), 0, 0, 0, 0, 0, 0, 0                                               \
    }

/* `dir`: an engine directory (llm.engine, config.json, tokenizer files). A directory without
 * tokenizer files opens too; requests must then bring prompt_ids. */
EW_API ew_status ew_runtime_open(const char *dir, const ew_runtime_opts *opts, ew_runtime **out,
                                 ew_error *err) EW_MUST_USE;
EW_API void ew_runtime_destroy(ew_runtime *rt);

/* Zero = default; the three-state fields use -1/0/1 as said. */
typedef struct ew_sampling {
    bool greedy;        /* the most likely token; other fields but penalties and bias are ignored */
    double temperature; /* 0 with greedy unset: 1.0; negative: INVALID_ARG; use greedy for T = 0 */
    int32_t top_k;      /* 0: off */
    double top_p;       /* 0: 1.0 (off) */
    double min_p;       /* 0: off */
    double repetition_penalty; /* 0: 1.0 (off); as in HF/CTRL, over prompt and output */
    double presence_penalty, frequency_penalty; /* over the output, OpenAI's formula */
    uint64_t seed;           /* counter-based generator keyed by (seed, request index, position) */
    int32_t num_logprobs;    /* 0: none; else top n (<= 50) beside each chosen token */
    const int32_t *bias_ids; /* logit bias: n_bias pairs */
    const float *bias;       /* in [-100, 100] */
    uint32_t n_bias;
} ew_sampling;

enum ew_finish {
    EW_FINISH_NONE = 0,
    EW_FINISH_EOS,
    EW_FINISH_LENGTH,
    EW_FINISH_STOP,
    EW_FINISH_CANCELLED,
    EW_FINISH_ERROR
};
/* "end-of-sequence", "max-length", "stop-words", "cancelled", "error", "not-finished". */
EW_API const char *ew_finish_text(enum ew_finish f);

typedef struct ew_request {
    uint32_t struct_size;
    /* one of: */
    const char
        *messages_json;   /* array of {role, content}; with tools_json etc. merged by extra_json */
    const char *raw_text; /* no template; special tokens in it are tokens */
    const int32_t *prompt_ids; /* n_prompt_ids */
    uint32_t n_prompt_ids;
    const char
        *extra_json; /* object of further template variables (tools, documents...), or NULL */
    int32_t enable_thinking;       /* -1: do not define it; 0/1 */
    int32_t add_generation_prompt; /* 0: default (true), -1: false */
    ew_sampling sampling;
    uint32_t max_tokens;     /* 0: 256 */
    const char *const *stop; /* stop strings, not part of the text */
    uint32_t n_stop;
    bool ignore_eos;
    bool save_prefix; /* keep the KV of the system prompt for later requests */
    /* Called for each piece of text as it is certain (UTF-8, no half characters, stop strings held
     * back). Return false to cancel this row. From the thread that called handle_request. */
    bool (*on_text)(void *ctx, uint32_t i_request, const char *text, size_t len);
    void *on_text_ctx;
} ew_request;
#define EW_REQUEST_INIT                                                                            \
    {                                                                                              \
        sizeof(ew_request), 0, 0, 0, 0, 0, -1, 0, { 0 }, 0, 0, 0, 0, 0, 0, 0                       \
    }

typedef struct ew_logprob {
    int32_t id;
    float logprob;
} ew_logprob;

typedef struct ew_response {
    enum ew_finish finish;
    ew_status status; /* of this row; text in error */
    char error[512];
    char *text;        /* NUL-terminated; special tokens skipped */
    char *prompt_text; /* formatted prompt, NULL for prompt_ids */
    int32_t *ids;      /* generated ids, EOS included */
    uint32_t n_ids;
    uint32_t n_prompt;
    uint32_t n_reused;    /* prompt tokens taken from a saved prefix */
    ew_logprob *logprobs; /* [n_ids][1 + num_logprobs]: the chosen token, then the top ones; NULL if
                             not asked for */
    uint32_t n_logprobs;
    double ttft_ms; /* from the start of handle_request */
} ew_response;

/* Handles n requests (n may exceed max_batch: the rest wait for a free row). `out` is an array of
 * n; release each with ew_response_release. A bad request fails its own row only; the call fails
 * when nothing could be done at all. */
EW_API ew_status ew_runtime_handle_request(ew_runtime *rt, const ew_request *requests, uint32_t n,
                                           ew_response *out, ew_error *err) EW_MUST_USE;
EW_API void ew_response_release(ew_response *r);
/* Stops the running handle_request at the next step; its rows finish as CANCELLED. Any thread. */
EW_API void ew_runtime_cancel(ew_runtime *rt);

typedef struct ew_runtime_stats {
    uint64_t prefill_runs, prefill_tokens, reused_tokens, prefill_ns;
    uint64_t decode_steps, decode_tokens, decode_ns;
    uint64_t forward_runs, forward_tokens, forward_ns; /* ew_runtime_forward*, without the
                                                          copy to the caller */
    uint64_t tokenize_ns, template_ns, sample_ns, detokenize_ns, load_ns;
    uint64_t captures, replays; /* steps whose launch list was made, and those that found one */
} ew_runtime_stats;
EW_API void ew_runtime_get_stats(const ew_runtime *rt, ew_runtime_stats *out);
/* Profile in the reference system's JSON shape (prefill, generation, stages, memory) plus per-step
 * tables with EW_CONTEXT_PROFILE. Freed by ew_text_free. */
EW_API ew_status ew_runtime_profile_json(const ew_runtime *rt, char **json,
                                         ew_error *err) EW_MUST_USE;

/* Raw forward passes for benchmarks and evaluation: feeds n ids to cache row `row` (0 <= row <
 * max_batch), logits of the last n_logits of them ([n_logits][vocab], may be NULL with 0).
 * hint_len: final length of the sequence (0: unknown), which RoPE variants that look at it use.
 * They go behind what the row holds; ew_runtime_rewind cuts that to `len` tokens. BUSY while a
 * request is handled; rewind does not check that. */
EW_API ew_status ew_runtime_forward(ew_runtime *rt, uint32_t row, const int32_t *ids, uint32_t n,
                                    uint32_t hint_len, float *logits, uint32_t n_logits,
                                    ew_error *err) EW_MUST_USE;
/* The same, but the likeliest token after each of the last n_tokens ids (the lowest of equals), as
 * one who verifies a guess wants them: where a GPU finds them, no logits leave it. */
EW_API ew_status ew_runtime_forward_tokens(ew_runtime *rt, uint32_t row, const int32_t *ids,
                                           uint32_t n, uint32_t hint_len, int32_t *tokens,
                                           uint32_t n_tokens, ew_error *err) EW_MUST_USE;
EW_API ew_status ew_runtime_rewind(ew_runtime *rt, uint32_t row, uint32_t len,
                                   ew_error *err) EW_MUST_USE;
/* hidden_i of the last forward ([n][hidden] f32), when the engine was built with them; NULL
 * otherwise. */
EW_API const float *ew_runtime_hidden(const ew_runtime *rt, uint32_t i, uint32_t *n_tokens,
                                      uint32_t *width);

typedef struct ew_model_info {
    char family[32];
    uint32_t vocab, hidden, n_layers, n_heads, n_kv_heads, head_dim, max_position, max_batch,
        max_input_len, max_kv_len;
    uint32_t n_hidden_states; /* 0: the engine has no hidden_i outputs */
    uint64_t weight_bytes;    /* of the engine file */
    uint64_t step_bytes;      /* weights that decoding one row reads a step */
    uint64_t step_macs;       /* multiplications by weights that it does */
    uint64_t kv_bytes;
    bool has_tokenizer, has_template, all_logits;
    char device[160]; /* "cpu", or "cuda:0 (NVIDIA H200, sm_90)" */
} ew_model_info;
EW_API void ew_runtime_get_model(const ew_runtime *rt, ew_model_info *out);

/* ---- model directories of any stage ---- */

typedef struct ew_prepare_opts {
    uint32_t struct_size;
    const char *cache_dir; /* where engines made on the fly go; NULL: no cache, INVALID_ARG when a
                              build is needed */
    const struct ew_build_opts *build; /* NULL: defaults */
    bool hidden_states;                /* checkpoint only */
    bool rebuild;                      /* ignore what the cache has */
    ew_progress progress;
    const ew_logger *logger;
} ew_prepare_opts;
#define EW_PREPARE_OPTS_INIT                                                                       \
    {                                                                                              \
        sizeof(ew_prepare_opts), 0, 0, 0, 0, { 0, 0 }, 0                                           \
    }

/* What a path holds: "checkpoint", "onnx" (a folder or a .onnx file), "engine", "unknown". */
EW_API const char *ew_model_kind(const char *path);
/* Makes sure that there is an engine directory for `model` (checkpoint, ONNX or engine directory):
 * builds into cache_dir under a name that hashes the model's files (path, length, time), options,
 * version and device. engine_dir: at least 4096 bytes. */
EW_API ew_status ew_model_prepare(const char *model, const ew_prepare_opts *opts, char *engine_dir,
                                  size_t cap, ew_error *err) EW_MUST_USE;
/* Builds `model` (checkpoint or ONNX directory) into engine directory `dir`: llm.engine,
 * config.json, tokenizer files; a graph that is no language model gives model.engine alone. */
EW_API ew_status ew_model_build(const char *model, const char *dir,
                                const struct ew_build_opts *build, bool hidden_states,
                                ew_error *err) EW_MUST_USE;

/* Copies tokenizer.json, tokenizer_config.json, chat templates, generation_config.json and the like
 * from one model directory to another, those that are there. */
EW_API ew_status ew_model_copy_text_files(const char *from, const char *to,
                                          ew_error *err) EW_MUST_USE;

/* Writes a random checkpoint of the shape in config_path (any supported family) to dir; bf16 and
 * of standard deviation 0.02 unless the config says otherwise (dtype, initializer_range). */
EW_API ew_status ew_checkpoint_synth(const char *config_path, const char *dir, uint64_t seed,
                                     const ew_progress *progress, ew_error *err) EW_MUST_USE;

#ifdef __cplusplus
}
#endif
#endif

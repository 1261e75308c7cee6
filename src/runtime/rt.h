/* runtime/rt.h - the runtime object and what its files share. */
#ifndef EW_RUNTIME_RT_H
#define EW_RUNTIME_RT_H

#include <stdatomic.h>

#include "base/buf.h"
#include "edgewise/runtime.h"
#include "edgewise/tokenizer.h"
#include "kv/prefix.h"
#include "runtime/lane.h"
#include "runtime/stop.h"
#include "sample/sampler.h"

#define EW_PREFIX_STORE_BYTES ((size_t)512 << 20)
#define EW_STAGE_SAMPLES      4096 /* of the newest runs, for percentiles */

struct ew_stage { /* one kind of work, for the profile */
    const char *id;
    uint64_t n_runs, total_ns;
    double *ms; /* ring of EW_STAGE_SAMPLES */
};
enum ew_stage_idx { EW_STAGE_PREFILL = 0, EW_STAGE_GENERATION, EW_STAGE_COUNT };

/* A request that has a cache row. Row i of the runtime is row i of the cache. */
struct ew_row {
    const ew_request *req; /* borrowed for the call */
    ew_response *out;
    uint32_t index; /* of the request */
    int32_t *ids;   /* prompt, then output */
    uint32_t n_prompt, n_ids, max_ids;
    uint32_t n_save; /* prompt tokens to keep for later requests; 0: none */
    struct ew_sample_params params;
    struct ew_history history;
    struct ew_sample_logprob *logprobs; /* [max output][1 + n_logprobs] or NULL */
    ew_decoder *decoder;                /* NULL without a tokenizer */
    struct ew_buf text;
    size_t n_sent; /* bytes of text the callback has had */
    struct ew_stop stop;
    bool done;
};

struct ew_runtime {
    ew_engine *engine;
    struct ew_llm_config config;
    struct ew_lane *lane;
    ew_tokenizer *tokenizer;       /* NULL: none in the directory */
    ew_template *chat, *tool_chat; /* NULL: none; tool_chat NULL: as chat */
    struct ew_sampler sampler;
    struct ew_prefix_store prefixes;
    struct ew_row **rows; /* [max_batch]; the first n_active are in use */
    uint32_t n_active;
    const int32_t **step_ids; /* [max_batch] */
    uint32_t *step_n;         /* [max_batch] */
    int32_t *step_map;        /* [max_batch] */
    ew_draw *step_draws;      /* [max_batch] */
    uint64_t start_ns;        /* of the handle_request that runs */
    ew_runtime_stats stats;
    uint64_t n_requests, n_request_tokens; /* rows handled, tokens they made after their first */
    struct ew_stage stages[EW_STAGE_COUNT];
    atomic_bool busy, cancel;
    char *trace_path;
    uint64_t weight_bytes;
    const ew_logger *logger;
    float **hidden; /* [n_hidden][n_hidden_tokens][hidden] of the last forward */
    uint32_t n_hidden_tokens, cap_hidden_tokens;
};

/* What a request says, as tokens. */
struct ew_prompt {
    int32_t *ids; /* ew_mem_free */
    uint32_t n;
    char *text; /* ew_mem_free; NULL for prompt_ids */
    uint32_t n_save;
};
ew_status ew_prompt_make(struct ew_runtime *rt, const ew_request *req, struct ew_prompt *out,
                         ew_error *err);

/* Prompt, history, decoder, buffers of one request; everything it will need is allocated here. */
ew_status ew_row_create(struct ew_runtime *rt, const ew_request *req, uint32_t index,
                        ew_response *response, struct ew_row **out, ew_error *err);
/* One generated token: text, stop rules, callback. Sets done (and the response's finish) when the
 * row has ended. */
ew_status ew_row_push(struct ew_runtime *rt, struct ew_row *row, int32_t token, ew_error *err);
/* Ends the row: what it has goes to its response; frees it. A finish that is there already stays.
 */
void ew_row_finish(struct ew_runtime *rt, struct ew_row *row, enum ew_finish finish);
void ew_response_fail(ew_response *out, ew_status st, const ew_error *err);

void ew_stage_add(struct ew_stage *stage, uint64_t ns);

#endif

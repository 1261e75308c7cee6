/* runtime/runtime.c - opening and closing a runtime, raw forward passes. Requests are schedule.c's.
 */
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/size.h"
#include "os/os.h"
#include "runtime/rt.h"

#define MAX_JSON_BYTES   ((size_t)16 << 20)
#define TRACE_MAX_EVENTS 2000000u

static ew_status load_engine(struct ew_runtime *rt, const char *dir, const ew_runtime_opts *opts,
                             ew_error *err)
{
    const ew_engine_opts eo = { sizeof(eo), opts->n_threads, opts->logger, opts->device,
                                opts->profiler };
    char path[4096];
    const char *config;
    uint64_t bytes = 0;
    int64_t mtime_ns;

    if (ew_path_join(path, sizeof(path), dir, "model.engine") && ew_path_is_file(path))
        return ew_fail(err, EW_STATUS_MISMATCH, "%s: not the engine of a language model", path);
    if (!ew_path_join(path, sizeof(path), dir, "llm.engine"))
        return ew_fail(err, EW_STATUS_INVALID_ARG, "path too long: %s", dir);
    EW_TRY(ew_engine_open(path, &eo, &rt->engine, err));
    if (ew_path_stat(path, &bytes, &mtime_ns))
        rt->weight_bytes = bytes;
    config = ew_engine_llm_config(rt->engine);
    if (!config)
        return ew_fail(err, EW_STATUS_MISMATCH, "%s: not the engine of a language model", path);
    EW_TRY(ew_llm_config_parse(config, path, &rt->config, err));
    EW_TRY(ew_lane_create(rt->engine, &rt->config, opts->max_batch, opts->flags, &rt->lane, err));
    return EW_STATUS_OK;
}

/* End tokens from all who name some: config.json, generation_config.json, the tokenizer. */
static ew_status collect_eos(struct ew_runtime *rt, const char *dir, ew_error *err)
{
    char path[4096];
    json_t *generation = NULL;
    ew_status st;

    if (!ew_path_join(path, sizeof(path), dir, "generation_config.json"))
        return ew_fail(err, EW_STATUS_INVALID_ARG, "path too long: %s", dir);
    if (ew_path_is_file(path)) {
        EW_TRY(ew_json_load(path, MAX_JSON_BYTES, &generation, err));
        st = ew_llm_config_add_eos(&rt->config, generation, path, err);
        json_decref(generation);
        EW_TRY(st);
    }
    if (rt->tokenizer)
        ew_llm_config_add_eos_id(&rt->config, ew_tokenizer_eos(rt->tokenizer));
    return EW_STATUS_OK;
}

static ew_status load_text(struct ew_runtime *rt, const char *dir, ew_error *err)
{
    char path[4096];
    ew_status st;
    ew_error template_err = { 0 };

    if (!ew_path_join(path, sizeof(path), dir, "tokenizer.json"))
        return ew_fail(err, EW_STATUS_INVALID_ARG, "path too long: %s", dir);
    if (!ew_path_is_file(path))
        return collect_eos(rt, dir, err);
    EW_TRY(ew_tokenizer_load(dir, &rt->tokenizer, err));
    if (ew_tokenizer_vocab_len(rt->tokenizer) > rt->config.vocab)
        ew_log(rt->logger, EW_LOG_WARN, "%s: tokenizer has %u ids, the model %u", dir,
               ew_tokenizer_vocab_len(rt->tokenizer), rt->config.vocab);
    st = ew_template_load(dir, false, &rt->chat, &template_err);
    if (st && st != EW_STATUS_NOT_FOUND) /* raw prompts still work */
        ew_log(rt->logger, EW_LOG_WARN, "%s", template_err.text);
    if (rt->chat && ew_template_load(dir, true, &rt->tool_chat, NULL) != EW_STATUS_OK)
        rt->tool_chat = NULL;
    return collect_eos(rt, dir, err);
}

static ew_status make_buffers(struct ew_runtime *rt, ew_error *err)
{
    static const char *const ids[EW_STAGE_COUNT] = { "llm_prefill", "llm_generation" };
    const uint32_t b = rt->lane->max_batch;

    rt->rows = ew_mem_calloc(EW_MEM_RUNTIME, b, sizeof(*rt->rows));
    rt->step_ids = ew_mem_calloc(EW_MEM_RUNTIME, b, sizeof(*rt->step_ids));
    rt->step_n = ew_mem_calloc(EW_MEM_RUNTIME, b, sizeof(*rt->step_n));
    rt->step_map = ew_mem_calloc(EW_MEM_RUNTIME, b, sizeof(*rt->step_map));
    rt->step_draws = ew_mem_calloc(EW_MEM_RUNTIME, b, sizeof(*rt->step_draws));
    if (!rt->rows || !rt->step_ids || !rt->step_n || !rt->step_map || !rt->step_draws)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "runtime");
    for (int i = 0; i < EW_STAGE_COUNT; i++) {
        rt->stages[i].id = ids[i];
        rt->stages[i].ms = ew_mem_calloc(EW_MEM_RUNTIME, EW_STAGE_SAMPLES, sizeof(double));
        if (!rt->stages[i].ms)
            return ew_fail(err, EW_STATUS_NO_MEMORY, "runtime");
    }
    if (rt->lane->n_hidden > 0) {
        rt->hidden = ew_mem_calloc(EW_MEM_RUNTIME, rt->lane->n_hidden, sizeof(*rt->hidden));
        if (!rt->hidden)
            return ew_fail(err, EW_STATUS_NO_MEMORY, "runtime");
    }
    ew_prefix_init(&rt->prefixes, EW_PREFIX_STORE_BYTES);
    return ew_sampler_init(&rt->sampler, rt->lane->vocab, err);
}

static ew_status start_trace(struct ew_runtime *rt, const char *path, ew_error *err)
{
    ew_status st;

    if (!path)
        return EW_STATUS_OK;
    rt->trace_path = ew_mem_strdup(EW_MEM_RUNTIME, path);
    if (!rt->trace_path)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "trace path");
    st = ew_trace_start(TRACE_MAX_EVENTS, err);
    if (st) { /* the trace of another: destroy must not write it */
        ew_mem_free(rt->trace_path);
        rt->trace_path = NULL;
    }
    return st;
}

ew_status ew_runtime_open(const char *dir, const ew_runtime_opts *opts, ew_runtime **out,
                          ew_error *err)
{
    static const ew_runtime_opts defaults = EW_RUNTIME_OPTS_INIT;
    const uint64_t t0 = ew_clock_ns();
    struct ew_runtime *rt;
    ew_status st;

    *out = NULL;
    if (!opts)
        opts = &defaults;
    if (opts->struct_size != sizeof(*opts))
        return ew_fail(err, EW_STATUS_INVALID_ARG, "runtime options: struct_size is %u, not %zu",
                       opts->struct_size, sizeof(*opts));
    rt = ew_mem_calloc(EW_MEM_RUNTIME, 1, sizeof(*rt));
    if (!rt)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "runtime");
    rt->logger = opts->logger;
    st = start_trace(rt, opts->trace_path, err);
    if (!st)
        st = load_engine(rt, dir, opts, err);
    if (!st)
        st = load_text(rt, dir, err);
    if (!st)
        st = make_buffers(rt, err);
    if (st) {
        ew_runtime_destroy(rt);
        return st;
    }
    rt->stats.load_ns = ew_clock_ns() - t0;
    *out = rt;
    return EW_STATUS_OK;
}

void ew_runtime_destroy(ew_runtime *rt)
{
    ew_error err = { 0 };

    if (!rt)
        return;
    if (rt->trace_path && ew_trace_write(rt->trace_path, &err) != EW_STATUS_OK)
        ew_log(rt->logger, EW_LOG_ERROR, "%s", err.text);
    for (uint32_t i = 0; rt->hidden && i < rt->lane->n_hidden; i++)
        ew_mem_free(rt->hidden[i]);
    ew_mem_free(rt->hidden);
    ew_prefix_deinit(&rt->prefixes);
    ew_sampler_deinit(&rt->sampler);
    for (int i = 0; i < EW_STAGE_COUNT; i++)
        ew_mem_free(rt->stages[i].ms);
    ew_mem_free(rt->rows);
    ew_mem_free(rt->step_ids);
    ew_mem_free(rt->step_n);
    ew_mem_free(rt->step_map);
    ew_mem_free(rt->step_draws);
    ew_template_destroy(rt->tool_chat);
    ew_template_destroy(rt->chat);
    ew_tokenizer_destroy(rt->tokenizer);
    ew_lane_destroy(rt->lane);
    ew_engine_destroy(rt->engine);
    ew_mem_free(rt->trace_path);
    ew_mem_free(rt);
}

/* ---- raw passes ---- */

static ew_status reserve_hidden(struct ew_runtime *rt, uint32_t n, ew_error *err)
{
    rt->n_hidden_tokens = 0;
    if (n <= rt->cap_hidden_tokens || rt->lane->n_hidden == 0)
        return EW_STATUS_OK;
    for (uint32_t i = 0; i < rt->lane->n_hidden; i++) {
        float *h =
            ew_mem_resize(EW_MEM_RUNTIME, rt->hidden[i], (size_t)n * rt->lane->hidden, sizeof(*h));

        if (!h)
            return ew_fail(err, EW_STATUS_NO_MEMORY, "hidden states of %u tokens", n);
        rt->hidden[i] = h;
    }
    rt->cap_hidden_tokens = n;
    return EW_STATUS_OK;
}

static ew_status check_forward(const struct ew_runtime *rt, uint32_t row, uint32_t n,
                               uint32_t n_logits, ew_error *err)
{
    if (row >= rt->lane->max_batch)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "forward: row %u of %u", row,
                       rt->lane->max_batch);
    if (n == 0 || n_logits > n)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "forward: logits of %u of %u tokens", n_logits,
                       n);
    if (n_logits > 1 && rt->lane->max_select == 1 && rt->lane->max_input_len > 1)
        return ew_fail(
            err, EW_STATUS_MISMATCH,
            "forward: logits of %u tokens, but the engine was built to give those of the "
            "last one only (build with all logits)",
            n_logits);
    return EW_STATUS_OK;
}

struct wanted {      /* of the last n tokens of a pass: one of the two; n 0: neither */
    float *logits;   /* [n][vocab] */
    int32_t *tokens; /* [n], the likeliest after each */
    uint32_t n;
};

/* The device found them, or they are found here. */
static void pick_tokens(const struct ew_lane *lane, const struct wanted *w)
{
    for (uint32_t j = 0; j < w->n; j++)
        w->tokens[j] = lane->picks_there ? ew_lane_token(lane, 0, j)
                                         : ew_argmax(ew_lane_logits(lane, 0, j), lane->vocab);
}

/* One chunk; its part of what is wanted and of the hidden states goes to its place. */
static ew_status forward_chunk(struct ew_runtime *rt, uint32_t row, const int32_t *ids, uint32_t n,
                               const struct wanted *w, ew_error *err)
{
    const struct ew_lane *lane = rt->lane;
    const struct ew_lane_step step = {
        row, 1, &ids, &n, w->n ? w->n : 1, .no_logits = !w->n || w->tokens
    };

    const uint64_t t0 = ew_clock_ns();

    EW_TRY(ew_lane_run(rt->lane, &step, err));
    if (w->tokens)
        pick_tokens(lane, w);
    rt->stats.forward_ns += ew_clock_ns() - t0;
    rt->stats.forward_runs++;
    rt->stats.forward_tokens += n;
    if (w->n && w->logits)
        memcpy(w->logits, ew_lane_logits(lane, 0, 0),
               (size_t)w->n * lane->vocab * sizeof(*w->logits));
    for (uint32_t i = 0; i < lane->n_hidden; i++)
        memcpy(rt->hidden[i] + (size_t)rt->n_hidden_tokens * lane->hidden, lane->hidden_out[i].data,
               (size_t)n * lane->hidden * sizeof(float));
    rt->n_hidden_tokens += n;
    return EW_STATUS_OK;
}

static ew_status forward(struct ew_runtime *rt, uint32_t row, const int32_t *ids, uint32_t n,
                         uint32_t hint_len, const struct wanted *w, ew_error *err)
{
    const uint32_t max = rt->lane->max_input_len;
    const uint32_t len = ew_lane_len(rt->lane, row);

    EW_TRY(check_forward(rt, row, n, w->n, err));
    if (n > rt->lane->cap - len) /* here, not at the chunk that finds out: all or nothing */
        return ew_fail(err, EW_STATUS_LIMIT,
                       "row %u holds %u tokens and cannot take %u more: capacity %u", row, len, n,
                       rt->lane->cap);
    EW_TRY(reserve_hidden(rt, n, err));
    if (len == 0) /* an empty row takes the table of its final length, and keeps it */
        rt->lane->regimes[row] = ew_rope_regime(rt->lane->rope, hint_len > n ? hint_len : n);
    for (uint32_t at = 0; at < n;) {
        const uint32_t c = n - at < max ? n - at : max;
        const uint32_t first = n - w->n; /* token of the first that is wanted */
        struct wanted here = { NULL, NULL, 0 };

        if (at + c > first)
            here.n = at + c - first < c ? at + c - first : c;
        if (here.n && w->tokens)
            here.tokens = w->tokens + (at + c - here.n - first);
        else if (here.n)
            here.logits = w->logits + (size_t)(at + c - here.n - first) * rt->lane->vocab;
        EW_TRY(forward_chunk(rt, row, ids + at, c, &here, err));
        at += c;
    }
    return EW_STATUS_OK;
}

static ew_status forward_alone(ew_runtime *rt, uint32_t row, const int32_t *ids, uint32_t n,
                               uint32_t hint_len, const struct wanted *w, ew_error *err)
{
    ew_status st;

    if (!rt || !ids || (w->n > 0 && !w->logits && !w->tokens))
        return ew_fail(err, EW_STATUS_INVALID_ARG, "forward: no runtime, ids or place for results");
    if (row >= rt->lane->max_batch)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "forward: row %u of %u", row,
                       rt->lane->max_batch);
    if (atomic_exchange(&rt->busy, true))
        return ew_fail(err, EW_STATUS_BUSY, "the runtime handles a request");
    st = forward(rt, row, ids, n, hint_len, w, err);
    atomic_store(&rt->busy, false);
    return st;
}

ew_status ew_runtime_forward(ew_runtime *rt, uint32_t row, const int32_t *ids, uint32_t n,
                             uint32_t hint_len, float *logits, uint32_t n_logits, ew_error *err)
{
    return forward_alone(rt, row, ids, n, hint_len, &(struct wanted){ logits, NULL, n_logits },
                         err);
}

ew_status ew_runtime_forward_tokens(ew_runtime *rt, uint32_t row, const int32_t *ids, uint32_t n,
                                    uint32_t hint_len, int32_t *tokens, uint32_t n_tokens,
                                    ew_error *err)
{
    return forward_alone(rt, row, ids, n, hint_len, &(struct wanted){ NULL, tokens, n_tokens },
                         err);
}

ew_status ew_runtime_rewind(ew_runtime *rt, uint32_t row, uint32_t len, ew_error *err)
{
    ew_status st;

    if (!rt)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "rewind: no runtime");
    if (atomic_exchange(&rt->busy, true))
        return ew_fail(err, EW_STATUS_BUSY, "the runtime handles a request");
    st = ew_kv_rewind(rt->lane->kv, row, len, err);
    atomic_store(&rt->busy, false);
    return st;
}

const float *ew_runtime_hidden(const ew_runtime *rt, uint32_t i, uint32_t *n_tokens,
                               uint32_t *width)
{
    if (!rt || i >= rt->lane->n_hidden || rt->n_hidden_tokens == 0)
        return NULL;
    *n_tokens = rt->n_hidden_tokens;
    *width = rt->lane->hidden;
    return rt->hidden[i];
}

void ew_runtime_get_model(const ew_runtime *rt, ew_model_info *out)
{
    memset(out, 0, sizeof(*out));
    (void)snprintf(out->family, sizeof(out->family), "%s", rt->config.family);
    out->vocab = rt->lane->vocab;
    out->hidden = rt->config.hidden;
    out->n_layers = rt->config.n_layers;
    out->n_heads = rt->config.n_heads;
    out->n_kv_heads = rt->config.n_kv_heads;
    out->head_dim = rt->config.head_dim;
    out->max_position = rt->config.max_position;
    out->max_batch = rt->lane->max_batch;
    out->max_input_len = rt->lane->max_input_len;
    out->max_kv_len = rt->lane->cap;
    out->n_hidden_states = rt->lane->n_hidden;
    out->weight_bytes = rt->weight_bytes;
    out->step_bytes = ew_engine_step_bytes(rt->engine);
    out->step_macs = ew_engine_step_macs(rt->engine);
    out->kv_bytes = rt->lane->kv->total_bytes;
    (void)snprintf(out->device, sizeof(out->device), "%s", ew_engine_device(rt->engine));
    out->has_tokenizer = rt->tokenizer != NULL;
    out->has_template = rt->chat != NULL;
    out->all_logits = rt->lane->max_select > 1 || rt->lane->max_input_len == 1;
}

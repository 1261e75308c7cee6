/* runtime/row.c - one request from its prompt to its response: sampling settings, text as it grows,
 * the rules that end it. Which rows run when is schedule.c's. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "os/os.h"
#include "runtime/rt.h"

#define MAX_TEXT_BYTES     ((size_t)1 << 30)
#define DEFAULT_MAX_TOKENS 256

static const char *const finish_texts[] = { "not-finished", "end-of-sequence", "max-length",
                                            "stop-words",   "cancelled",       "error" };

const char *ew_finish_text(enum ew_finish f)
{
    return (unsigned)f < sizeof(finish_texts) / sizeof(finish_texts[0]) ? finish_texts[f]
                                                                        : finish_texts[0];
}

static struct ew_sample_params fill_params(const ew_sampling *s)
{
    return (struct ew_sample_params){
        .greedy = s->greedy,
        .temperature = s->temperature == 0 || s->greedy ? 1.0 : s->temperature,
        .top_k = s->greedy ? 0 : s->top_k,
        .top_p = s->top_p == 0 || s->greedy ? 1.0 : s->top_p,
        .min_p = s->greedy ? 0 : s->min_p,
        .repetition = s->repetition_penalty == 0 ? 1.0 : s->repetition_penalty,
        .presence = s->presence_penalty,
        .frequency = s->frequency_penalty,
        .seed = s->seed,
        .n_logprobs = s->num_logprobs < 0 ? UINT32_MAX : (uint32_t)s->num_logprobs,
        .wants_logprobs = s->num_logprobs != 0,
        .bias_ids = s->bias_ids,
        .bias = s->bias,
        .n_bias = s->n_bias,
    };
}

static void row_destroy(struct ew_row *row)
{
    ew_mem_free(row->ids);
    ew_mem_free(row->logprobs);
    ew_history_deinit(&row->history);
    ew_decoder_destroy(row->decoder);
    ew_buf_deinit(&row->text);
    ew_mem_free(row);
}

static ew_status check_request(const struct ew_runtime *rt, const struct ew_row *row, ew_error *err)
{
    const ew_request *req = row->req;

    if (req->struct_size != sizeof(*req))
        return ew_fail(err, EW_STATUS_INVALID_ARG, "request: struct_size is %u, not %zu",
                       req->struct_size, sizeof(*req));
    if (req->sampling.n_bias > 0 && (!req->sampling.bias_ids || !req->sampling.bias))
        return ew_fail(err, EW_STATUS_INVALID_ARG, "logit_bias: %u entries, no ids or values",
                       req->sampling.n_bias);
    if (req->n_stop > 0 && !req->stop)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "%u stop strings, no list", req->n_stop);
    EW_TRY(ew_sample_check(&row->params, rt->lane->vocab, err));
    for (uint32_t i = 0; i < req->n_stop; i++)
        if (!req->stop[i] || !req->stop[i][0])
            return ew_fail(err, EW_STATUS_INVALID_ARG, "stop string %u is empty", i);
    if (req->n_stop > 0 && !rt->tokenizer)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "stop strings need a tokenizer");
    return EW_STATUS_OK;
}

/* Moves the prompt into the row and makes all that its output will need. */
static ew_status reserve(struct ew_runtime *rt, struct ew_row *row, struct ew_prompt *p,
                         ew_error *err)
{
    const uint32_t cap = rt->lane->cap;
    const uint32_t wanted = row->req->max_tokens ? row->req->max_tokens : DEFAULT_MAX_TOKENS;
    uint32_t max_out;
    int32_t *ids;

    if (p->n >= cap)
        return ew_fail(err, EW_STATUS_LIMIT,
                       "the prompt has %u tokens and with one more does not fit the context of %u",
                       p->n, cap);
    max_out = wanted < cap - p->n ? wanted : cap - p->n;
    row->n_prompt = p->n;
    row->n_ids = p->n;
    row->max_ids = p->n + max_out;
    row->n_save = p->n_save;
    ids = ew_mem_resize(EW_MEM_RUNTIME, p->ids, row->max_ids, sizeof(*ids));
    if (!ids)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "a row of %u tokens", row->max_ids);
    row->ids = ids;
    p->ids = NULL;
    if (row->params.wants_logprobs) {
        row->logprobs = ew_mem_calloc(
            EW_MEM_RUNTIME, (size_t)max_out * (1 + row->params.n_logprobs), sizeof(*row->logprobs));
        if (!row->logprobs)
            return ew_fail(err, EW_STATUS_NO_MEMORY, "log-probabilities of %u tokens", max_out);
    }
    EW_TRY(ew_history_init(&row->history, &row->params, row->ids, row->n_prompt, max_out, err));
    if (!ew_buf_reserve(&row->text, 256 + 8 * (size_t)max_out)) /* grows if tokens are longer */
        return ew_fail(err, EW_STATUS_NO_MEMORY, "text of %u tokens", max_out);
    return rt->tokenizer ? ew_decoder_create(rt->tokenizer, true, &row->decoder, err)
                         : EW_STATUS_OK;
}

ew_status ew_row_create(struct ew_runtime *rt, const ew_request *req, uint32_t index,
                        ew_response *response, struct ew_row **out, ew_error *err)
{
    struct ew_row *row = ew_mem_calloc(EW_MEM_RUNTIME, 1, sizeof(*row));
    struct ew_prompt prompt = { 0 };
    ew_status st;

    *out = NULL;
    if (!row)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "request");
    row->req = req;
    row->index = index;
    row->out = response;
    row->params = fill_params(&req->sampling);
    row->stop = (struct ew_stop){ req->stop, req->n_stop };
    ew_buf_init(&row->text, EW_MEM_RUNTIME, MAX_TEXT_BYTES);
    st = check_request(rt, row, err);
    if (!st)
        st = ew_prompt_make(rt, req, &prompt, err);
    if (!st) {
        response->prompt_text = prompt.text;
        response->n_prompt = prompt.n;
        st = reserve(rt, row, &prompt, err);
    }
    ew_mem_free(prompt.ids);
    if (st) {
        row_destroy(row);
        return st;
    }
    *out = row;
    return EW_STATUS_OK;
}

/* Gives the callback what is certain: all but `held` bytes. False: the caller wants no more. */
static bool send_text(struct ew_row *row, size_t held)
{
    const size_t end = row->text.len - held;
    const size_t from = row->n_sent;

    if (!row->req->on_text || end <= from)
        return true;
    row->n_sent = end;
    return row->req->on_text(row->req->on_text_ctx, row->index, row->text.data + from, end - from);
}

/* Adds decoded text. *stopped: a stop string was in it; the text now ends before it. */
static ew_status add_text(struct ew_row *row, const char *text, size_t len, bool *stopped,
                          ew_error *err)
{
    const size_t seen = row->text.len;
    size_t at;

    *stopped = false;
    if (len == 0)
        return EW_STATUS_OK;
    if (!ew_buf_append(&row->text, text, len))
        return ew_fail(err, EW_STATUS_NO_MEMORY, "text of %zu bytes", seen + len);
    if (ew_stop_find(&row->stop, row->text.data, row->text.len, seen, &at)) {
        row->text.len = at;
        row->text.data[at] = '\0';
        *stopped = true;
    }
    return EW_STATUS_OK;
}

/* The text is complete but for what the decoder holds. */
static ew_status end_text(struct ew_row *row, enum ew_finish finish, ew_error *err)
{
    bool stopped = false;

    if (row->decoder) {
        const char *text;
        size_t len;
        const ew_status st = ew_decoder_finish(row->decoder, &text, &len);

        if (st)
            return ew_fail(err, st, "decoding the end of the text");
        EW_TRY(add_text(row, text, len, &stopped, err));
    }
    row->out->finish = stopped ? EW_FINISH_STOP : finish;
    row->done = true;
    (void)send_text(row, 0); /* it ends anyway */
    return EW_STATUS_OK;
}

static ew_status push_text(struct ew_row *row, int32_t token, ew_error *err)
{
    const char *text;
    size_t len;
    bool stopped;
    const ew_status st = ew_decoder_push(row->decoder, token, &text, &len);

    if (st)
        return ew_fail(err, st, "decoding token %d", token);
    EW_TRY(add_text(row, text, len, &stopped, err));
    if (stopped) {
        row->out->finish = EW_FINISH_STOP;
        row->done = true;
        (void)send_text(row, 0);
    } else if (!send_text(row, ew_stop_held(&row->stop, row->text.data, row->text.len))) {
        row->out->finish = EW_FINISH_CANCELLED;
        row->done = true;
    }
    return EW_STATUS_OK;
}

ew_status ew_row_push(struct ew_runtime *rt, struct ew_row *row, int32_t token, ew_error *err)
{
    const uint64_t t0 = ew_clock_ns();
    ew_status st = EW_STATUS_OK;

    if (row->n_ids == row->n_prompt)
        row->out->ttft_ms = (double)(t0 - rt->start_ns) / 1e6;
    row->ids[row->n_ids++] = token;
    ew_history_push(&row->history, token);
    if (!row->req->ignore_eos && ew_llm_config_is_eos(&rt->config, token))
        st = end_text(row, EW_FINISH_EOS, err);
    else if (row->decoder)
        st = push_text(row, token, err);
    if (!st && !row->done && row->n_ids == row->max_ids)
        st = end_text(row, EW_FINISH_LENGTH, err);
    rt->stats.detokenize_ns += ew_clock_ns() - t0;
    return st;
}

void ew_response_fail(ew_response *out, ew_status st, const ew_error *err)
{
    out->finish = EW_FINISH_ERROR;
    out->status = st;
    (void)snprintf(out->error, sizeof(out->error), "%.*s", (int)sizeof(out->error) - 1, err->text);
}

static void take_output(struct ew_row *row, ew_response *out)
{
    const uint32_t n = row->n_ids - row->n_prompt;
    const size_t per_token = 1 + row->params.n_logprobs;

    out->n_ids = n;
    out->ids = ew_mem_alloc(EW_MEM_RUNTIME, n * sizeof(*out->ids));
    out->text = ew_buf_take(&row->text);
    if (row->logprobs && n > 0) {
        out->logprobs = ew_mem_calloc(EW_MEM_RUNTIME, n * per_token, sizeof(*out->logprobs));
        for (size_t i = 0; out->logprobs && i < n * per_token; i++)
            out->logprobs[i] = (ew_logprob){ row->logprobs[i].id, row->logprobs[i].logprob };
        out->n_logprobs = out->logprobs ? row->params.n_logprobs : 0;
    }
    if (out->ids) {
        memcpy(out->ids, row->ids + row->n_prompt, n * sizeof(*out->ids));
        return;
    }
    out->n_ids = 0;
    out->finish = EW_FINISH_ERROR;
    out->status = EW_STATUS_NO_MEMORY;
    (void)snprintf(out->error, sizeof(out->error), "response of %u tokens", n);
}

void ew_row_finish(struct ew_runtime *rt, struct ew_row *row, enum ew_finish finish)
{
    ew_response *out = row->out;

    if (out->finish == EW_FINISH_NONE)
        out->finish = finish;
    take_output(row, out);
    rt->n_requests++;
    rt->n_request_tokens += out->n_ids > 0 ? out->n_ids - 1 : 0;
    row_destroy(row);
}

void ew_response_release(ew_response *r)
{
    if (!r)
        return;
    ew_mem_free(r->text);
    ew_mem_free(r->prompt_text);
    ew_mem_free(r->ids);
    ew_mem_free(r->logprobs);
    memset(r, 0, sizeof(*r));
}

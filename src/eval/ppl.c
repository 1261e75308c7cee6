/* eval/ppl.c - perplexity of a text in windows of fixed length (Hugging Face's recipe). */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "edgewise/eval.h"
#include "os/os.h"
#include "runtime/rt.h"

#define LOGITS_BYTES ((size_t)64 << 20) /* of one piece of a window */

struct ppl {
    ew_runtime *rt;
    const ew_ppl_opts *opts;
    int32_t *ids;
    size_t n_ids;
    uint32_t window, stride, vocab, piece;
    float *logits; /* [piece][vocab] */
    double sum, sum_squares;
    uint64_t n_scored;
};

/* -log p(id), of raw logits. */
static double token_nll(const float *logits, uint32_t vocab, int32_t id)
{
    float max = -INFINITY;
    double sum = 0;

    for (uint32_t i = 0; i < vocab; i++)
        max = logits[i] > max ? logits[i] : max;
    for (uint32_t i = 0; i < vocab; i++)
        sum += exp((double)logits[i] - (double)max);
    return (double)max + log(sum) - (double)logits[id];
}

/* Tokens [begin, end) as one context; those from `from` on are scored. */
static ew_status score_window(struct ppl *p, size_t begin, size_t end, size_t from, ew_error *err)
{
    EW_TRY(ew_runtime_rewind(p->rt, 0, 0, err));
    for (size_t at = begin; at < end; at += p->piece) {
        const uint32_t n = end - at < p->piece ? (uint32_t)(end - at) : p->piece;

        EW_TRY(ew_runtime_forward(p->rt, 0, p->ids + at, n, (uint32_t)(end - begin), p->logits, n,
                                  err));
        for (uint32_t i = 0; i < n; i++) {
            const size_t next = at + i + 1;
            double nll;

            if (next >= end || next < from)
                continue;
            nll = token_nll(p->logits + (size_t)i * p->vocab, p->vocab, p->ids[next]);
            p->sum += nll;
            p->sum_squares += nll * nll;
            p->n_scored++;
        }
    }
    return EW_STATUS_OK;
}

static ew_status score_all(struct ppl *p, ew_error *err)
{
    const ew_progress *progress = &p->opts->progress;
    size_t done = 0;

    for (size_t begin = 0; begin + 1 < p->n_ids; begin += p->stride) {
        const size_t end = begin + p->window < p->n_ids ? begin + p->window : p->n_ids;

        if (end - begin < p->window && begin > 0 && p->stride == p->window)
            break; /* what does not fill a window is not scored: its tokens would have less context
                    */
        if (progress->step && !progress->step(progress->ctx, "perplexity", begin, p->n_ids))
            return ew_fail(err, EW_STATUS_CANCELLED, "perplexity cancelled");
        EW_TRY(score_window(p, begin, end, done, err));
        done = end;
        if (end == p->n_ids)
            break;
    }
    if (progress->step)
        (void)progress->step(progress->ctx, "perplexity", p->n_ids, p->n_ids);
    return p->n_scored > 0 ? EW_STATUS_OK
                           : ew_fail(err, EW_STATUS_INVALID_ARG,
                                     "text of %zu tokens: nothing to score", p->n_ids);
}

/* Bytes of the first max_chars characters. */
static size_t cut_chars(const char *text, size_t len, uint64_t max_chars)
{
    uint64_t chars = 0;

    for (size_t i = 0; i < len; i++)
        if (((unsigned char)text[i] & 0xc0) != 0x80 && ++chars > max_chars)
            return i;
    return len;
}

static ew_status prepare(struct ppl *p, const char *text, size_t len, ew_error *err)
{
    ew_model_info model;

    ew_runtime_get_model(p->rt, &model);
    if (!p->rt->tokenizer)
        return ew_fail(err, EW_STATUS_NOT_FOUND, "perplexity of a text needs a tokenizer");
    if (!model.all_logits)
        return ew_fail(err, EW_STATUS_MISMATCH,
                       "perplexity needs an engine that was built with all logits");
    p->vocab = model.vocab;
    p->window = p->opts->window ? p->opts->window : 1024;
    if (p->opts->window > model.max_kv_len)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "window of %u tokens, the engine holds %u",
                       p->window, model.max_kv_len);
    p->window = p->window < model.max_kv_len ? p->window : model.max_kv_len;
    p->stride = p->opts->stride ? p->opts->stride : p->window;
    if (p->window < 2 || p->stride > p->window)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "window of %u tokens, stride of %u", p->window,
                       p->stride);
    p->piece = (uint32_t)(LOGITS_BYTES / sizeof(float) / p->vocab) + 1;
    p->piece = p->piece < model.max_input_len ? p->piece : model.max_input_len;
    p->piece = p->piece < p->window ? p->piece : p->window;
    p->logits = ew_mem_calloc(EW_MEM_EVAL, (size_t)p->piece * p->vocab, sizeof(*p->logits));
    if (!p->logits)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "logits of %u tokens", p->piece);
    if (p->opts->max_bytes && len > p->opts->max_bytes)
        len = (size_t)p->opts->max_bytes;
    if (p->opts->max_chars)
        len = cut_chars(text, len, p->opts->max_chars);
    EW_TRY(ew_tokenizer_encode(p->rt->tokenizer, text, len, EW_ENCODE_SPECIAL | EW_ENCODE_ADD_BOS,
                               &p->ids, &p->n_ids, err));
    for (size_t i = 0; i < p->n_ids; i++)
        if (p->ids[i] < 0 || (uint32_t)p->ids[i] >= p->vocab)
            return ew_fail(err, EW_STATUS_MISMATCH, "token %zu is %d, the model has %u", i,
                           p->ids[i], p->vocab);
    return EW_STATUS_OK;
}

ew_status ew_eval_ppl(ew_runtime *rt, const char *text, size_t len, const ew_ppl_opts *opts,
                      ew_ppl_result *out, ew_error *err)
{
    static const ew_ppl_opts defaults = EW_PPL_OPTS_INIT;
    struct ppl p = { .rt = rt, .opts = opts ? opts : &defaults };
    const uint64_t t0 = ew_clock_ns();
    ew_status st;

    memset(out, 0, sizeof(*out));
    if (p.opts->struct_size != sizeof(*opts))
        return ew_fail(err, EW_STATUS_INVALID_ARG, "perplexity options: struct_size is %u, not %zu",
                       p.opts->struct_size, sizeof(*opts));
    st = prepare(&p, text, len, err);
    if (!st)
        st = score_all(&p, err);
    if (!st) {
        const double n = (double)p.n_scored, mean = p.sum / n;
        const double var = p.sum_squares / n - mean * mean;

        out->n_tokens = p.n_ids;
        out->n_scored = p.n_scored;
        out->nll_sum = p.sum;
        out->perplexity = exp(mean);
        out->perplexity_stderr = out->perplexity * sqrt((var > 0 ? var : 0) / n);
        out->seconds = (double)(ew_clock_ns() - t0) / 1e9;
    }
    ew_tokens_free(p.ids);
    ew_mem_free(p.logits);
    return st;
}

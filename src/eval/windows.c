/* eval/windows.c - tokens of a text, their windows, and the normaliser of their logits. */
#include "eval/windows.h"

#include <math.h>
#include <string.h>

#include "runtime/rt.h"

#define LOGITS_BYTES ((size_t)64 << 20) /* of one piece of a window */

/* Bytes of the first max_chars characters. */
static size_t cut_chars(const char *text, size_t len, uint64_t max_chars)
{
    uint64_t chars = 0;

    for (size_t i = 0; i < len; i++)
        if (((unsigned char)text[i] & 0xc0) != 0x80 && ++chars > max_chars)
            return i;
    return len;
}

static ew_status set_sizes(struct ew_windows *w, const ew_model_info *model,
                           const ew_ppl_opts *opts, ew_error *err)
{
    w->vocab = model->vocab;
    w->window = opts->window ? opts->window : 1024;
    w->max_windows = opts->max_windows;
    if (opts->window > model->max_kv_len)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "window of %u tokens, the engine holds %u",
                       w->window, model->max_kv_len);
    w->window = w->window < model->max_kv_len ? w->window : model->max_kv_len;
    w->stride = opts->stride ? opts->stride : w->window;
    if (w->window < 2 || w->stride > w->window)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "window of %u tokens, stride of %u", w->window,
                       w->stride);
    w->piece = (uint32_t)(LOGITS_BYTES / sizeof(float) / w->vocab) + 1;
    w->piece = w->piece < model->max_input_len ? w->piece : model->max_input_len;
    w->piece = w->piece < w->window ? w->piece : w->window;
    return EW_STATUS_OK;
}

ew_status ew_windows_init(struct ew_windows *w, const ew_runtime *rt, const ew_ppl_opts *opts,
                          const char *text, size_t len, ew_error *err)
{
    ew_model_info model;

    memset(w, 0, sizeof(*w));
    ew_runtime_get_model(rt, &model);
    if (!rt->tokenizer)
        return ew_fail(err, EW_STATUS_NOT_FOUND, "perplexity of a text needs a tokenizer");
    if (!model.all_logits)
        return ew_fail(err, EW_STATUS_MISMATCH,
                       "perplexity needs an engine that was built with all logits");
    EW_TRY(set_sizes(w, &model, opts, err));
    if (opts->max_bytes && len > opts->max_bytes)
        len = (size_t)opts->max_bytes;
    if (opts->max_chars)
        len = cut_chars(text, len, opts->max_chars);
    EW_TRY(ew_tokenizer_encode(rt->tokenizer, text, len, EW_ENCODE_SPECIAL | EW_ENCODE_ADD_BOS,
                               &w->ids, &w->n_ids, err));
    for (size_t i = 0; i < w->n_ids; i++)
        if (w->ids[i] < 0 || (uint32_t)w->ids[i] >= w->vocab)
            return ew_fail(err, EW_STATUS_MISMATCH, "token %zu is %d, the model has %u", i,
                           w->ids[i], w->vocab);
    if (w->n_ids < 2)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "text of %zu tokens: nothing to score",
                       w->n_ids);
    return EW_STATUS_OK;
}

void ew_windows_deinit(struct ew_windows *w)
{
    ew_tokens_free(w->ids);
    memset(w, 0, sizeof(*w));
}

bool ew_windows_next(const struct ew_windows *w, struct ew_window *at)
{
    const bool first = at->end == 0;
    const size_t begin = first ? 0 : at->begin + w->stride;
    const size_t end = w->n_ids - begin > w->window ? begin + w->window : w->n_ids;
    const uint32_t index = first ? 0 : at->index + 1;

    if (at->end == w->n_ids || begin + 1 >= w->n_ids || (w->max_windows && index >= w->max_windows))
        return false;
    if (!first && end - begin < w->window && w->stride == w->window)
        return false; /* its tokens would have less context */
    *at = (struct ew_window){ .begin = begin, .end = end, .from = at->end, .index = index };
    return true;
}

ew_status ew_log_sum(const float *logits, uint32_t vocab, size_t token, double *out, ew_error *err)
{
    float max = -INFINITY;
    double sum = 0;

    for (uint32_t i = 0; i < vocab; i++)
        max = logits[i] > max ? logits[i] : max;
    for (uint32_t i = 0; i < vocab; i++)
        sum += exp((double)logits[i] - (double)max);
    *out = (double)max + log(sum);
    if (!isfinite(*out))
        return ew_fail(err, EW_STATUS_MALFORMED,
                       "the model's logits for token %zu of the text are not finite numbers",
                       token);
    return EW_STATUS_OK;
}

/* eval/windows.h - a text as tokens, cut into windows that are fed piece by piece.
 *
 * Hugging Face's fixed-length recipe: windows of `window` tokens start every `stride` tokens; in
 * each those tokens are scored that no window before it scored, never its first. What does not fill
 * a window without overlap is left out, unless it is all there is. */
#ifndef EW_EVAL_WINDOWS_H
#define EW_EVAL_WINDOWS_H

#include "eval/journal.h"

struct ew_windows {
    int32_t *ids; /* ew_tokens_free */
    size_t n_ids;
    uint32_t window, stride, vocab;
    uint32_t piece; /* tokens fed at once, so that their logits stay small */
    uint32_t max_windows;
};

struct ew_window { /* tokens [begin, end) are one context; those from `from` on are scored */
    size_t begin, end, from;
    uint32_t index;
};

/* Tokenises and checks; window and stride of opts against the engine. */
ew_status ew_windows_init(struct ew_windows *w, const ew_runtime *rt, const ew_ppl_opts *opts,
                          const char *text, size_t len, ew_error *err);
void ew_windows_deinit(struct ew_windows *w);
/* at: zeroed before the first call. False when there are no more. */
bool ew_windows_next(const struct ew_windows *w, struct ew_window *at);
/* Whether token t of the text is scored in window at. */
static inline bool ew_window_scores(const struct ew_window *at, size_t t)
{
    return t > at->begin && t >= at->from && t < at->end;
}
/* How many that are. */
static inline size_t ew_window_n_scored(const struct ew_window *at)
{
    const size_t first = at->from > at->begin ? at->from : at->begin + 1;

    return at->end > first ? at->end - first : 0;
}
/* ln of the sum of exp(logits), f64; MALFORMED when it is not finite. */
ew_status ew_log_sum(const float *logits, uint32_t vocab, size_t token, double *out, ew_error *err);

#endif

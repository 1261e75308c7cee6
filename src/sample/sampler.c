/* sample/sampler.c - bias, penalties, warpers and the draw. The history it reads is history.c's.
 *
 * The vocabulary is never sorted, and gone through once: the largest of each block tells where the
 * best are. top_k finds its threshold with a heap of k, top_p pops a heap only until p is reached.
 * Probabilities are summed in double, in id order or in order of likelihood, both fixed by the
 * logits. */
#include "sample/sampler.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "cpu/cpu.h"
#include "sample/philox.h"

static ew_status check_range(const char *name, double v, double lo, double hi, ew_error *err)
{
    if (v >= lo && v <= hi) /* false for NaN */
        return EW_STATUS_OK;
    return ew_fail(err, EW_STATUS_INVALID_ARG, "%s is %g, allowed: %g to %g", name, v, lo, hi);
}

ew_status ew_sample_check(const struct ew_sample_params *p, uint32_t vocab, ew_error *err)
{
    if (!(p->temperature > 0) || !(p->temperature <= 1e6))
        return ew_fail(
            err, EW_STATUS_INVALID_ARG,
            "temperature is %g, must be above 0 and at most 1e6 (greedy asks for the most "
            "likely token)",
            p->temperature);
    if (!(p->top_p > 0) || !(p->top_p <= 1))
        return ew_fail(err, EW_STATUS_INVALID_ARG, "top_p is %g, must be above 0 and at most 1",
                       p->top_p);
    if (p->top_k < 0)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "top_k is %d, must not be negative", p->top_k);
    EW_TRY(check_range("min_p", p->min_p, 0, 1, err));
    if (!(p->repetition > 0) || !(p->repetition <= 1e6))
        return ew_fail(err, EW_STATUS_INVALID_ARG, "repetition_penalty is %g, must be above 0",
                       p->repetition);
    EW_TRY(check_range("presence_penalty", p->presence, -100, 100, err));
    EW_TRY(check_range("frequency_penalty", p->frequency, -100, 100, err));
    if (p->n_logprobs > EW_MAX_LOGPROBS)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "num_logprobs is %u, at most %d", p->n_logprobs,
                       EW_MAX_LOGPROBS);
    for (uint32_t i = 0; i < p->n_bias; i++) {
        if (p->bias_ids[i] < 0 || (uint32_t)p->bias_ids[i] >= vocab)
            return ew_fail(err, EW_STATUS_INVALID_ARG, "logit_bias of token %d, vocabulary is %u",
                           p->bias_ids[i], vocab);
        EW_TRY(check_range("logit_bias", (double)p->bias[i], -100, 100, err));
    }
    return EW_STATUS_OK;
}

ew_status ew_sampler_init(struct ew_sampler *s, uint32_t vocab, ew_error *err)
{
    struct ew_cpu_info cpu;

    ew_cpu_detect(&cpu);
    *s = (struct ew_sampler){ .vocab = vocab, .ops = ew_rowops_best(cpu.flags) };
    s->scores = ew_mem_calloc(EW_MEM_SAMPLE, vocab, sizeof(*s->scores));
    s->heap = ew_mem_calloc(EW_MEM_SAMPLE, vocab, sizeof(*s->heap));
    s->tops = ew_mem_calloc(EW_MEM_SAMPLE, vocab / EW_TOPS_BLOCK + 1, sizeof(*s->tops));
    if (s->scores && s->heap && s->tops)
        return EW_STATUS_OK;
    ew_sampler_deinit(s);
    return ew_fail(err, EW_STATUS_NO_MEMORY, "sampler for a vocabulary of %u", vocab);
}

void ew_sampler_deinit(struct ew_sampler *s)
{
    ew_mem_free(s->scores);
    ew_mem_free(s->heap);
    ew_mem_free(s->tops);
    *s = (struct ew_sampler){ 0 };
}

int32_t ew_argmax(const float *v, uint32_t n)
{
    float best = -INFINITY;
    int32_t at = -1;
    bool nan = false;

    for (uint32_t i = 0; i < n; i++) {
        nan |= v[i] != v[i];
        if (v[i] > best) {
            best = v[i];
            at = (int32_t)i;
        }
    }
    return nan || best == INFINITY ? -1 : at;
}

/* The same through s->tops, which hold those of v then. */
static int32_t look(struct ew_sampler *s, const float *v)
{
    const uint32_t n_blocks = (s->vocab + EW_TOPS_BLOCK - 1) / EW_TOPS_BLOCK;
    int32_t block;

    s->ops->block_tops(s->tops, v, s->vocab);
    block = ew_argmax(s->tops, n_blocks);
    if (block < 0)
        return -1;
    for (uint32_t i = (uint32_t)block * EW_TOPS_BLOCK; i < s->vocab; i++)
        if (v[i] >= s->tops[block])
            return (int32_t)i;
    return -1;
}

/* ---- heaps of candidates ---- */

/* a is less likely than b: lower score, or the higher id of two that tie. */
static bool less_likely(struct ew_candidate a, struct ew_candidate b)
{
    return a.score < b.score || (a.score == b.score && a.id > b.id);
}

/* The root is the most likely (max) or the least likely of the heap. */
static void sift_down(struct ew_candidate *h, size_t n, size_t i, bool max)
{
    const struct ew_candidate x = h[i];

    for (;;) {
        size_t c = 2 * i + 1;

        if (c >= n)
            break;
        if (c + 1 < n && less_likely(h[c], h[c + 1]) == max)
            c++;
        if (less_likely(x, h[c]) != max)
            break;
        h[i] = h[c];
        i = c;
    }
    h[i] = x;
}

static void heap_make(struct ew_candidate *h, size_t n, bool max)
{
    for (size_t i = n / 2; i-- > 0;)
        sift_down(h, n, i, max);
}

/* The k most likely of v (its largest are in s->tops) into the heap, whose root is the least likely
 * of them. */
static void select_top(const struct ew_sampler *s, const float *v, uint32_t k)
{
    struct ew_candidate *const h = s->heap;
    const uint32_t n = s->vocab;

    for (uint32_t i = 0; i < k; i++)
        h[i] = (struct ew_candidate){ v[i], (int32_t)i };
    heap_make(h, k, false);
    for (uint32_t i = k; i < n; i++) {
        if (i % EW_TOPS_BLOCK == 0 && s->tops[i / EW_TOPS_BLOCK] <= h[0].score) {
            i += EW_TOPS_BLOCK - 1;
            continue;
        }
        if (v[i] > h[0].score) { /* a tie has the higher id: less likely */
            h[0] = (struct ew_candidate){ v[i], (int32_t)i };
            sift_down(h, k, 0, false);
        }
    }
}

/* ---- the steps of a draw ---- */

/* False: no finite value, or a NaN. */
static bool fill_logprobs(struct ew_sampler *s, uint32_t n_top, double *log_sum,
                          struct ew_sample_logprob *out)
{
    const int32_t best = look(s, s->scores);
    double sum = 0, max;
    size_t n = n_top < s->vocab ? n_top : s->vocab;

    if (best < 0)
        return false;
    max = (double)s->scores[best];
    for (uint32_t i = 0; i < s->vocab; i++)
        sum += exp((double)s->scores[i] - max);
    *log_sum = max + log(sum);
    if (n == 0)
        return true;
    select_top(s, s->scores, (uint32_t)n);
    for (uint32_t i = (uint32_t)n; i < n_top; i++)
        out[1 + i] = (struct ew_sample_logprob){ -1, -INFINITY };
    while (n > 0) { /* popping the least likely fills from the back */
        out[n] = (struct ew_sample_logprob){ s->heap[0].id,
                                             (float)((double)s->heap[0].score - *log_sum) };
        n--;
        s->heap[0] = s->heap[n];
        sift_down(s->heap, n, 0, false);
    }
    return true;
}

static void apply_penalties(float *scores, const struct ew_sample_params *p,
                            const struct ew_history *h)
{
    for (uint32_t i = 0; h->slots && i < h->n_slots; i++) {
        const struct ew_history_slot *slot = &h->slots[i];
        double x;

        if (slot->id < 0)
            continue;
        x = (double)scores[slot->id];
        x = x < 0 ? x * p->repetition : x / p->repetition;
        if (slot->n_out > 0)
            x -= p->presence + p->frequency * (double)slot->n_out;
        scores[slot->id] = (float)x;
    }
}

/* top_k: the candidates whose score is at least that of the k-th. Returns how many (in id order).
 */
static size_t keep_top_k(struct ew_sampler *s, const float *v, int32_t top_k)
{
    float threshold = -INFINITY;
    size_t n = 0;

    if (top_k > 0 && (uint32_t)top_k < s->vocab) {
        select_top(s, v, (uint32_t)top_k);
        threshold = s->heap[0].score;
    }
    for (uint32_t i = 0; i < s->vocab; i++) {
        if (i % EW_TOPS_BLOCK == 0 && s->tops[i / EW_TOPS_BLOCK] < threshold) {
            i += EW_TOPS_BLOCK - 1;
            continue;
        }
        if (v[i] >= threshold && v[i] > -INFINITY)
            s->heap[n++] = (struct ew_candidate){ v[i], (int32_t)i };
    }
    return n;
}

/* top_p: moves the nucleus to the end of the array, most likely last; returns where it begins.
 * Scores are weights here. */
static size_t keep_top_p(struct ew_candidate *c, size_t n, double top_p, double total)
{
    size_t begin = n;
    double before = 0;

    heap_make(c, n, true);
    while (begin > 0 && (begin == n || before < top_p * total)) {
        const struct ew_candidate top = c[0];

        before += (double)top.score;
        begin--;
        c[0] = c[begin];
        sift_down(c, begin, 0, true);
        c[begin] = top;
    }
    return begin;
}

/* v: the scores, whose largest are in s->tops; best: the likeliest. */
static int32_t draw_warped(struct ew_sampler *s, const struct ew_sample_params *p, const float *v,
                           int32_t best, double u)
{
    struct ew_candidate *c = s->heap;
    const float max = v[best];
    size_t n = keep_top_k(s, v, p->top_k);
    size_t begin = 0;
    double total = 0, target, run = 0;

    for (size_t i = 0; i < n; i++) { /* weights relative to the best, which is exactly 1 */
        c[i].score = (float)exp(((double)c[i].score - (double)max) / p->temperature);
        total += (double)c[i].score;
    }
    if (p->top_p < 1)
        begin = keep_top_p(c, n, p->top_p, total);
    total = 0;
    for (size_t i = begin; i < n; i++) {
        if ((double)c[i].score < p->min_p)
            c[i].score = 0;
        total += (double)c[i].score;
    }
    target = u * total;
    for (size_t i = begin; i < n; i++) {
        run += (double)c[i].score;
        if (run > target && c[i].score > 0)
            return c[i].id;
    }
    return best; /* rounding left target == total */
}

ew_status ew_sampler_draw(struct ew_sampler *s, const float *logits,
                          const struct ew_sample_params *p, const struct ew_history *h,
                          uint32_t request, uint64_t position, int32_t *token,
                          struct ew_sample_logprob *logprobs)
{
    const bool wants = logprobs && p->wants_logprobs;
    const bool changes = wants || h->slots || p->n_bias > 0;
    const float *const v = changes ? s->scores : logits;
    double log_sum = 0;
    float chosen_score;
    int32_t best;

    if (changes) {
        memcpy(s->scores, logits, s->vocab * sizeof(*logits));
        for (uint32_t i = 0; i < p->n_bias; i++)
            s->scores[p->bias_ids[i]] += p->bias[i];
        if (wants && !fill_logprobs(s, p->n_logprobs, &log_sum, logprobs))
            return EW_STATUS_DEVICE;
        apply_penalties(s->scores, p, h);
    }
    best = look(s, v);
    if (best < 0)
        return EW_STATUS_DEVICE;
    *token = best;
    if (!p->greedy)
        *token = draw_warped(s, p, v, best, ew_philox_uniform(p->seed, request, position));
    if (wants) {
        chosen_score = logits[*token];
        for (uint32_t i = 0; i < p->n_bias; i++)
            if (p->bias_ids[i] == *token)
                chosen_score += p->bias[i];
        logprobs[0] = (struct ew_sample_logprob){ *token, (float)((double)chosen_score - log_sum) };
    }
    return EW_STATUS_OK;
}

/* sample/sampler.h - logits of one position -> one token.
 *
 *   raw logits --+ logit bias--> (logprobs are the log-softmax of this)
 *              --repetition, presence, frequency penalties-->
 *              --temperature, top_k, top_p, min_p (the order of transformers' warpers)--> draw
 *
 * As in transformers: top_k keeps every token that ties with the k-th; top_p keeps the fewest most
 * likely tokens whose probability reaches p (at least one); min_p drops what is less likely than
 * min_p times the best. Greedy takes the highest score after penalties, lowest id on a tie.
 *
 * The draw is Philox keyed by (seed, request, position). Calls allocate nothing: the workspace is
 * made once for a vocabulary, the history of a request when the request is admitted. One thread at
 * a time. */
#ifndef EW_SAMPLE_SAMPLER_H
#define EW_SAMPLE_SAMPLER_H

#include "base/error.h"
#include "kernels/rowops.h"

#define EW_MAX_LOGPROBS 50

struct ew_sample_params { /* every default filled in; see ew_sample_check */
    bool greedy;
    double temperature, top_p, min_p;
    int32_t top_k; /* 0: off */
    double repetition, presence, frequency;
    uint64_t seed;
    uint32_t n_logprobs; /* of the most likely tokens */
    bool wants_logprobs;
    const int32_t *bias_ids;
    const float *bias;
    uint32_t n_bias;
};

/* Ranges of every field, ids of the bias against the vocabulary. INVALID_ARG names the field and
 * its value. */
ew_status ew_sample_check(const struct ew_sample_params *p, uint32_t vocab, ew_error *err);

/* Which tokens a request has seen: what the penalties need. */
struct ew_history_slot {
    int32_t id; /* -1: free */
    uint32_t n_out;
};
struct ew_history {
    struct ew_history_slot *slots; /* open addressing; NULL when no penalty is on */
    uint32_t n_slots;              /* power of two */
};
/* Room for a prompt and max_out tokens; nothing is allocated when no penalty of p is on. */
ew_status ew_history_init(struct ew_history *h, const struct ew_sample_params *p,
                          const int32_t *prompt, uint32_t n_prompt, uint32_t max_out,
                          ew_error *err);
void ew_history_deinit(struct ew_history *h);
/* A generated token; the caller gives no more than max_out. */
void ew_history_push(struct ew_history *h, int32_t id);

struct ew_candidate {
    float score;
    int32_t id;
};
struct ew_sampler {
    uint32_t vocab;
    float *scores;             /* [vocab] */
    struct ew_candidate *heap; /* [vocab] */
    float *tops;               /* the largest score of each block of EW_TOPS_BLOCK */
    const struct ew_rowops *ops;
};
ew_status ew_sampler_init(struct ew_sampler *s, uint32_t vocab, ew_error *err);
void ew_sampler_deinit(struct ew_sampler *s);

struct ew_sample_logprob {
    int32_t id;
    float logprob;
};
/* logits: [vocab]. logprobs: room for 1 + n_logprobs, or NULL: the chosen token, then the most
 * likely ones, best first. DEVICE when the logits hold NaN or no finite value: the model broke, and
 * no token would be an honest answer. */
ew_status ew_sampler_draw(struct ew_sampler *s, const float *logits,
                          const struct ew_sample_params *p, const struct ew_history *h,
                          uint32_t request, uint64_t position, int32_t *token,
                          struct ew_sample_logprob *logprobs);

/* Index of the largest value, the lowest on a tie; -1 when one is NaN or none is finite. */
int32_t ew_argmax(const float *v, uint32_t n);

#endif

/* runtime/lane.h - the LLM contract of an engine bound to buffers: token ids of some cache rows in,
 * logits out.
 *
 * Owns the context, the KV cache and every input and output buffer. Does not know requests, text or
 * sampling.
 *
 * A step takes n[r] new tokens for each of the rows row0..row0+n_rows-1 and leaves the logits of
 * the last n_select tokens of each. Rows of different length are padded on the right; padding
 * changes nothing (kernels/attention.h). When the longest has one token the step is a decode step:
 * context_lengths then means the total length. A step with the rows and shapes of the one before
 * sets nothing on the context and allocates nothing. */
#ifndef EW_RUNTIME_LANE_H
#define EW_RUNTIME_LANE_H

#include "edgewise/engine.h"
#include "kv/cache.h"
#include "runtime/llm.h"
#include "runtime/rope_tables.h"

#define EW_LANE_NAME_CAP 64

/* An input or output with a buffer of its own, sized for the largest step. */
struct ew_lane_tensor {
    char name[EW_LANE_NAME_CAP];
    ew_dtype dtype;
    void *data; /* of the host, fast to copy; zeroed at start */
    size_t bytes;
    uint32_t width; /* of the last axis */
};

struct ew_lane_shape { /* what the context was told last */
    uint32_t row0, n_rows, s, n_select, regime;
    bool set, logits, draws;
};

struct ew_lane {
    ew_engine *engine;
    ew_context *ctx;
    struct ew_kv *kv;
    struct ew_rope_tables *rope;
    const struct ew_llm_config *config;
    uint32_t max_batch, max_input_len, cap, hidden, vocab, max_select;
    uint32_t generation_profile;
    struct ew_lane_tensor embeds, context_lengths, start_index, last_ids, logits;
    struct ew_lane_tensor *zeros; /* inputs [B,S,width] that stay zero: deepstack_embeds_i */
    uint32_t n_zeros;
    bool has_tree; /* attention_mask, attention_pos_id */
    struct ew_lane_tensor tree_mask, tree_pos;
    struct ew_lane_tensor *hidden_out; /* hidden_0.., [B,S,width] */
    uint32_t n_hidden;
    bool has_hidden_states;
    struct ew_lane_tensor hidden_states; /* a drafter's taps: computed, not used yet */
    float *embed_row;                    /* [hidden] */
    uint32_t n_embed;                    /* rows of the embedding */
    /* The device looks rows up, finds the likeliest token, draws tokens. */
    bool embeds_there, picks_there, draws_there;
    int32_t *ids, *tokens; /* [max_batch * max_input_len]; [rows of logits] */
    ew_draw *draws;        /* [max_batch] */
    struct ew_lane_shape last;
    uint32_t *regimes; /* [max_batch] RoPE regime of each row; moves with compaction */
};

struct ew_lane_step {
    uint32_t row0, n_rows;
    const int32_t *const *ids; /* [n_rows] the new tokens of each row */
    const uint32_t *n;         /* [n_rows] how many, each >= 1 */
    uint32_t n_select;         /* 1..max_select */
    bool no_logits;       /* nobody will ask for ew_lane_logits: they may stay where they are */
    bool ahead;           /* of one token a row, likely to be followed by one with those it picks */
    const ew_draw *draws; /* [n_rows], where draws_there and n_select is 1: how tokens are picked */
};

/* max_batch 0: the engine's. flags: enum ew_context_flags. */
ew_status ew_lane_create(ew_engine *engine, const struct ew_llm_config *config, uint32_t max_batch,
                         uint32_t flags, struct ew_lane **out, ew_error *err);
void ew_lane_destroy(struct ew_lane *lane);

/* Rows of one step must share a regime. Tokens are committed to the cache when it succeeds; nothing
 * is when it fails. */
ew_status ew_lane_run(struct ew_lane *lane, const struct ew_lane_step *step, ew_error *err);
/* Waits for what a step with `ahead` began; before rows of the cache change otherwise. */
ew_status ew_lane_settle(struct ew_lane *lane, ew_error *err);
/* Logits [vocab] of the last step: row i of the step, j-th of its n_select. */
static inline const float *ew_lane_logits(const struct ew_lane *lane, uint32_t i, uint32_t j)
{
    return (const float *)lane->logits.data +
           ((size_t)i * lane->last.n_select + j) * (size_t)lane->vocab;
}

/* Logits of the last step wherever they are: on the host now, borrowed until the next step. */
ew_status ew_lane_read_logits(struct ew_lane *lane, uint32_t i, const float **out, ew_error *err);

/* The token picked from the same: the likeliest (ew_argmax), or as the step's draws said
 * (EW_DRAW_LEFT: not by the device). No logits are needed. Only where picks_there. */
static inline int32_t ew_lane_token(const struct ew_lane *lane, uint32_t i, uint32_t j)
{
    return lane->tokens[(size_t)i * lane->last.n_select + j];
}

/* "<prefix><i>". */
void ew_lane_indexed_name(char name[EW_LANE_NAME_CAP], const char *prefix, uint32_t i);

/* Tokens the row holds. */
static inline uint32_t ew_lane_len(const struct ew_lane *lane, uint32_t row)
{
    return (uint32_t)lane->kv->lengths[row];
}

#endif

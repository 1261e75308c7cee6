/* text/bpe.h - the BPE model: one piece of text to ids. */
#ifndef EW_TEXT_BPE_H
#define EW_TEXT_BPE_H

#include "base/error.h"
#include "base/hash.h"
#include "base/json.h"

#define EW_BPE_SINGLE_CHARS 512

struct ew_bpe_merge { /* slot of an open-addressing table; rank UINT32_MAX: empty */
    int32_t left, right;
    uint32_t rank;
    int32_t id;
};
struct ew_bpe {
    const struct ew_map *vocab; /* borrowed from the tokenizer */
    struct ew_bpe_merge *merges;
    size_t merge_mask;            /* slots - 1 */
    struct ew_buf prefix, suffix; /* continuing_subword_prefix, end_of_word_suffix */
    char *unk_text;               /* for the error when it is not in the vocabulary */
    int32_t unk_id; /* -1: unknown characters vanish; -2: unk_text is unknown itself */
    bool byte_fallback, fuse_unk, ignore_merges;
    int32_t byte_ids[256];                 /* <0x00>..<0xFF>, or -1 */
    int32_t char_ids[EW_BPE_SINGLE_CHARS]; /* characters below U+0200 alone, or -1 */
};
/* `model`: the "model" object; vocab is complete. deinit is needed also after a failure. */
ew_status ew_bpe_parse(struct ew_bpe *b, const json_t *model, const struct ew_map *vocab,
                       ew_error *err);
void ew_bpe_deinit(struct ew_bpe *b);

struct ew_bpe_symbol {
    int32_t id;
    int32_t prev, next; /* -1: none. id -1: merged away */
};
struct ew_bpe_candidate {
    uint64_t order; /* rank << 32 | position */
    int32_t left, right, id;
};
struct ew_bpe_scratch {
    struct ew_bpe_symbol *symbols;
    size_t n_symbols, cap_symbols;
    struct ew_bpe_candidate *heap;
    size_t n_heap, cap_heap;
    struct ew_buf spelled; /* a character with prefix or suffix */
    uint64_t n_steps;      /* merge candidates looked at, ever: what tests bound */
};
void ew_bpe_scratch_init(struct ew_bpe_scratch *s);
void ew_bpe_scratch_deinit(struct ew_bpe_scratch *s);

/* s->symbols[0..n_symbols) in reading order after the call (prev and next mean nothing then). */
ew_status ew_bpe_encode(const struct ew_bpe *b, struct ew_bpe_scratch *s, const char *word,
                        size_t len, ew_error *err);

#endif

/* text/pretokenize.h - the pre-tokenizer chain: text into pieces that merges never cross. */
#ifndef EW_TEXT_PRETOKENIZE_H
#define EW_TEXT_PRETOKENIZE_H

#include "text/pattern.h"

enum ew_pre_kind { EW_PRE_SPLIT, EW_PRE_BYTE_LEVEL, EW_PRE_METASPACE };
enum ew_split_behavior {
    EW_SPLIT_REMOVED,
    EW_SPLIT_ISOLATED,
    EW_SPLIT_MERGED_WITH_PREVIOUS,
    EW_SPLIT_MERGED_WITH_NEXT,
    EW_SPLIT_CONTIGUOUS,
};
enum ew_prepend { EW_PREPEND_NEVER, EW_PREPEND_FIRST, EW_PREPEND_ALWAYS };

struct ew_pre_step {
    enum ew_pre_kind kind;
    struct ew_pattern pattern; /* SPLIT; METASPACE: its replacement */
    enum ew_split_behavior behavior;
    bool invert;
    bool cut;             /* METASPACE: split at the replacement */
    enum ew_prepend head; /* METASPACE, BYTE_LEVEL */
};
struct ew_pre_chain {
    struct ew_pre_step *steps;
    size_t n_steps;
};
/* NULL and null give an empty chain. deinit is needed also after a failure. */
ew_status ew_pre_parse(struct ew_pre_chain *c, const json_t *json, ew_error *err);
void ew_pre_deinit(struct ew_pre_chain *c);
/* "always", "first", "never" of a Metaspace object, with the older add_prefix_space. */
ew_status ew_pre_parse_scheme(const json_t *json, enum ew_prepend *out, ew_error *err);

struct ew_piece {
    size_t off, len;
    bool starts_input; /* at offset 0 of the whole input */
};
struct ew_pre_text {
    struct ew_buf text, next_text;
    struct ew_piece *pieces, *next;
    size_t n_pieces, n_next, cap_pieces, cap_next;
    bool failed; /* out of memory for pieces */
};
void ew_pre_text_init(struct ew_pre_text *p, size_t max_len);
void ew_pre_text_deinit(struct ew_pre_text *p);
/* Pieces of `text`, which is copied into p. */
ew_status ew_pre_run(const struct ew_pre_chain *c, struct ew_pre_text *p, const char *text,
                     size_t len, bool starts_input, struct ew_regex_scratch *scratch,
                     ew_error *err);

#endif

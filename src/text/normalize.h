/* text/normalize.h - the normalizer chain of a tokenizer.json. */
#ifndef EW_TEXT_NORMALIZE_H
#define EW_TEXT_NORMALIZE_H

#include "text/pattern.h"

/* clang-format off */
enum ew_norm_kind {
    EW_NORM_NFC, EW_NORM_NFD, EW_NORM_NFKC, EW_NORM_NFKD,
    EW_NORM_LOWERCASE, EW_NORM_STRIP, EW_NORM_STRIP_ACCENTS, EW_NORM_REPLACE, EW_NORM_PREPEND,
    EW_NORM_BYTE_LEVEL,
};
/* clang-format on */

struct ew_norm_step {
    enum ew_norm_kind kind;
    bool left, right;          /* STRIP */
    struct ew_pattern pattern; /* REPLACE */
    char *content;             /* REPLACE, PREPEND; owned */
    size_t content_len;
};
struct ew_norm_chain {
    struct ew_norm_step *steps;
    size_t n_steps;
};
/* NULL and null give an empty chain. deinit is needed also after a failure. */
ew_status ew_norm_parse(struct ew_norm_chain *c, const json_t *json, ew_error *err);
void ew_norm_deinit(struct ew_norm_chain *c);

/* Text on its way through the chain. `from_user` says of each byte whether a user wrote it; it is
 * kept only where has_marks. */
struct ew_norm_text {
    struct ew_buf text;
    struct ew_buf from_user;
    struct ew_buf next_text; /* scratch */
    struct ew_buf next_from_user;
    struct ew_buf points; /* scratch: int32_t code points and their marks */
    bool has_marks;
    bool starts_input; /* the first byte comes from offset 0 of the whole input */
};
void ew_norm_text_init(struct ew_norm_text *n, bool has_marks, size_t max_len);
void ew_norm_text_deinit(struct ew_norm_text *n);
/* Replaces n->text by its normal form. */
ew_status ew_norm_run(const struct ew_norm_chain *c, struct ew_norm_text *n,
                      struct ew_regex_scratch *scratch, ew_error *err);

#endif

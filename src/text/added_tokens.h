/* text/added_tokens.h - tokens that are found in the text before anything else looks at it. */
#ifndef EW_TEXT_ADDED_TOKENS_H
#define EW_TEXT_ADDED_TOKENS_H

#include "text/normalize.h"

struct ew_added_token {
    const char *text; /* borrowed from the tokenizer's vocabulary */
    size_t len;
    int32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
};
struct ew_added_pattern {
    char *text; /* owned; the token's text, normalised where the token asks for it */
    size_t len;
    uint32_t token; /* index */
};
struct ew_added_index { /* patterns sorted by bytes: the longest one at a place is a walk down */
    struct ew_added_pattern *patterns;
    size_t n_patterns;
    bool may_begin[256];
};
struct ew_added_set {
    struct ew_added_token *tokens;
    size_t n_tokens;
    struct ew_added_index raw, normal;
    struct ew_regex word; /* one \w character; compiled when a token is single_word */
};
/* Reads token texts already in s->tokens. deinit is needed also after a failure. */
ew_status ew_added_index_all(struct ew_added_set *s, const struct ew_norm_chain *norm,
                             ew_error *err);
void ew_added_deinit(struct ew_added_set *s);

/* What to look for in one text. */
struct ew_added_walk {
    const struct ew_added_set *set;
    const struct ew_added_index *index;
    struct ew_regex_scratch *scratch;
    const char *text;
    size_t len;
    const char *from_user; /* a mark per byte: no special token touches one; NULL: no marks */
    bool specials;         /* special tokens are looked for */
    size_t done;           /* everything before is given out */
    size_t pos;            /* search goes on here */
};
/* The next token and its bytes [begin, end), after what is done; *token NULL at the end. */
ew_status ew_added_walk_next(struct ew_added_walk *w, const struct ew_added_token **token,
                             size_t *begin, size_t *end, ew_error *err);

#endif

/* text/decode.h - the decoder chain: token texts in, text out, piece by piece.
 *
 * Each stage takes tokens (in fragments, closed by `ends`) and gives tokens to the next, so that
 * streaming and whole decoding are the same code. */
#ifndef EW_TEXT_DECODE_H
#define EW_TEXT_DECODE_H

#include "text/pattern.h"

/* clang-format off */
enum ew_dec_kind {
    EW_DEC_BYTE_LEVEL, EW_DEC_BYTE_FALLBACK, EW_DEC_REPLACE, EW_DEC_FUSE, EW_DEC_STRIP,
    EW_DEC_METASPACE, EW_DEC_BPE, EW_DEC_JOIN, /* JOIN: spaces between tokens, when there is no decoder */
};
/* clang-format on */
struct ew_dec_step {
    enum ew_dec_kind kind;
    struct ew_pattern pattern; /* REPLACE; METASPACE, STRIP: the character; BPE: the suffix */
    char *content;             /* REPLACE; owned */
    size_t content_len;
    size_t start, stop; /* STRIP */
    bool drops_first;   /* METASPACE: marks of the first token vanish */
};
struct ew_dec_chain {
    struct ew_dec_step *steps;
    size_t n_steps;
};
ew_status ew_dec_parse(struct ew_dec_chain *c, const json_t *json, ew_error *err);
void ew_dec_deinit(struct ew_dec_chain *c);

struct ew_dec_stage {
    struct ew_buf token; /* fragments of an unfinished token */
    struct ew_buf held;  /* bytes, or a token, that cannot go on yet */
    bool has_held;
    size_t n_tokens; /* finished ones */
    size_t n_cut;    /* STRIP: characters cut from this token */
    bool in_token;   /* something of this token has gone on */
};
struct ew_dec_run {
    const struct ew_dec_chain *chain;
    struct ew_dec_stage *stages;
    struct ew_regex_scratch scratch;
    struct ew_buf out;
    ew_status status; /* first failure */
};
ew_status ew_dec_run_init(struct ew_dec_run *r, const struct ew_dec_chain *c, ew_error *err);
void ew_dec_run_deinit(struct ew_dec_run *r);
void ew_dec_run_reset(struct ew_dec_run *r);
/* Results are appended to r->out; failures go to r->status. */
void ew_dec_run_push(struct ew_dec_run *r, const char *token, size_t len);
void ew_dec_run_finish(struct ew_dec_run *r);

/* The bytes one token stands for by itself, without what depends on its neighbours. */
ew_status ew_dec_token_bytes(const struct ew_dec_chain *c, struct ew_regex_scratch *scratch,
                             const char *token, size_t len, struct ew_buf *tmp, struct ew_buf *out);
/* <0xHH>: the byte, else -1. */
int ew_dec_byte_token(const char *token, size_t len);
ew_status ew_dec_replace(const struct ew_dec_step *s, struct ew_regex_scratch *scratch,
                         const char *text, size_t len, struct ew_buf *out);

#endif

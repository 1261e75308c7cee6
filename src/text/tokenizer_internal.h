/* text/tokenizer_internal.h - what a loaded tokenizer is made of, and loading from memory. */
#ifndef EW_TEXT_TOKENIZER_INTERNAL_H
#define EW_TEXT_TOKENIZER_INTERNAL_H

#include "edgewise/tokenizer.h"
#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/decode.h"
#include "text/normalize.h"
#include "text/post_process.h"
#include "text/pretokenize.h"

#define EW_TOKENIZER_MAX_FILE_BYTES ((size_t)100 << 20)
#define EW_TOKENIZER_MAX_TEXT_BYTES ((size_t)1 << 29)

struct ew_token {
    const char *text; /* NULL: no token has this id */
    size_t len;
    size_t bytes_off, bytes_len; /* in ew_tokenizer.bytes */
    bool is_special;
};
struct ew_tokenizer {
    char *names; /* every token's text, each NUL-terminated */
    size_t names_len, names_cap;
    struct ew_buf bytes;
    struct ew_token *tokens;
    uint32_t n_tokens;   /* largest id + 1 */
    struct ew_map vocab; /* the model's tokens */
    struct ew_map all;   /* those and the added ones */
    struct ew_norm_chain norm;
    struct ew_pre_chain pre;
    struct ew_bpe bpe;
    struct ew_added_set added;
    struct ew_post post;
    struct ew_dec_chain dec;
    int32_t bos, eos, pad;
};

/* tokenizer.json and, where `config` is given, tokenizer_config.json as bytes. */
ew_status ew_tokenizer_parse(const char *json, size_t len, const char *config, size_t config_len,
                             ew_tokenizer **out, ew_error *err);

#endif

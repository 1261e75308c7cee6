/* edgewise/tokenizer.h - text to ids and back, and conversations to text.
 *
 *   tokenizer.json (+ tokenizer_config.json) --load--> ew_tokenizer    immutable, any thread
 *   ids one by one   --ew_decoder_push-->    text, always whole UTF-8 characters
 *   messages as JSON --ew_template_render--> prompt text
 *
 * Follows Hugging Face tokenizers (BPE models) and transformers' chat templates (Jinja2,
 * trim_blocks and lstrip_blocks on). */
#ifndef EW_TOKENIZER_H
#define EW_TOKENIZER_H

#include "edgewise/base.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ew_tokenizer ew_tokenizer;
typedef struct ew_decoder ew_decoder;
typedef struct ew_template ew_template;

/* `path`: a directory with tokenizer.json, or the file itself. NOT_FOUND when there is none;
 * UNSUPPORTED names a model, normaliser, pre-tokeniser or decoder that is not handled. */
EW_API ew_status ew_tokenizer_load(const char *path, ew_tokenizer **out, ew_error *err) EW_MUST_USE;
EW_API void ew_tokenizer_destroy(ew_tokenizer *t);

enum ew_encode_flags {
    EW_ENCODE_SPECIAL =
        1u << 0, /* added special tokens in the text are tokens; otherwise they are plain text */
    EW_ENCODE_ADD_BOS =
        1u
        << 1, /* apply the post-processor (BOS/EOS of TemplateProcessing), as add_special_tokens */
};
/* Encodes UTF-8 (invalid bytes become U+FFFD first). *ids is fresh memory, freed with
 * ew_tokens_free. */
EW_API ew_status ew_tokenizer_encode(const ew_tokenizer *t, const char *text, size_t len,
                                     uint32_t flags, int32_t **ids, size_t *n_ids,
                                     ew_error *err) EW_MUST_USE;
/* Like encode, where `n_spans` byte ranges [begin, end) of the text came from a user: special
 * tokens inside them (or that straddle their border) are text, elsewhere they are tokens. Spans are
 * sorted and disjoint. */
typedef struct ew_text_span {
    size_t begin, end;
} ew_text_span;
EW_API ew_status ew_tokenizer_encode_spans(const ew_tokenizer *t, const char *text, size_t len,
                                           uint32_t flags, const ew_text_span *spans,
                                           size_t n_spans, int32_t **ids, size_t *n_ids,
                                           ew_error *err) EW_MUST_USE;
EW_API void ew_tokens_free(int32_t *ids);
/* Whole text of ids; skip_special drops special tokens; ids out of range give nothing. *text is
 * fresh, NUL-terminated, valid UTF-8 (ew_string_free). */
EW_API ew_status ew_tokenizer_decode(const ew_tokenizer *t, const int32_t *ids, size_t n_ids,
                                     bool skip_special, char **text, size_t *len,
                                     ew_error *err) EW_MUST_USE;
EW_API void ew_string_free(char *text);

EW_API uint32_t
ew_tokenizer_vocab_len(const ew_tokenizer *t); /* largest id + 1, added tokens included */
EW_API int32_t ew_tokenizer_find(
    const ew_tokenizer *t, const char *token); /* id of a token's text as in the file, or -1 */
EW_API const char *ew_tokenizer_token(const ew_tokenizer *t,
                                      int32_t id); /* as in the file; NULL out of range. Borrowed */
EW_API bool ew_tokenizer_is_special(const ew_tokenizer *t, int32_t id);
/* From tokenizer_config.json beside it: -1 when not given. */
EW_API int32_t ew_tokenizer_bos(const ew_tokenizer *t);
EW_API int32_t ew_tokenizer_eos(const ew_tokenizer *t);
EW_API int32_t ew_tokenizer_pad(const ew_tokenizer *t);
/* The raw bytes of one token as it contributes to text (byte-level undone), for logprobs. false
 * when out of range. */
EW_API bool ew_tokenizer_token_bytes(const ew_tokenizer *t, int32_t id, const char **bytes,
                                     size_t *len);

/* Streaming decode: concatenating what push and finish return gives ew_tokenizer_decode of all ids.
 * One thread at a time. */
EW_API ew_status ew_decoder_create(const ew_tokenizer *t, bool skip_special, ew_decoder **out,
                                   ew_error *err) EW_MUST_USE;
EW_API void ew_decoder_destroy(ew_decoder *d);
/* *text: whole characters that are now certain (maybe none), borrowed until the next call. */
EW_API ew_status ew_decoder_push(ew_decoder *d, int32_t id, const char **text, size_t *len);
EW_API ew_status ew_decoder_finish(ew_decoder *d, const char **text,
                                   size_t *len); /* what was held back (U+FFFD for halves) */
EW_API void ew_decoder_reset(ew_decoder *d);

/* ---- chat templates ---- */

/* Caps of one rendering; zero fields mean the defaults. Hitting one is EW_STATUS_LIMIT and names
 * it. */
typedef struct ew_template_caps {
    uint64_t max_steps;     /* 0: 1 000 000 evaluated nodes */
    uint32_t max_depth;     /* 0: 200 nested calls/expressions */
    uint64_t max_out_bytes; /* 0: 8 MiB */
    uint64_t max_range_len; /* 0: 100 000 elements in range() */
} ew_template_caps;

/* Parses Jinja source; errors name line and what was expected. */
EW_API ew_status ew_template_parse(const char *source, size_t len, const char *name,
                                   ew_template **out, ew_error *err) EW_MUST_USE;
/* The template of a model directory: chat_template.jinja, else chat_template of
 * tokenizer_config.json (a string, or the entry "default" / "tool_use" when with_tools of a list),
 * else processed_chat_template.json. NOT_FOUND when there is none. */
EW_API ew_status ew_template_load(const char *dir, bool with_tools, ew_template **out,
                                  ew_error *err) EW_MUST_USE;
EW_API void ew_template_destroy(ew_template *t);

/* Renders with `input_json`, an object whose members are the template's variables (messages, tools,
 * add_generation_prompt, enable_thinking, bos_token, documents...; bos_token and eos_token of the
 * directory are added by ew_template_load when absent). now_s: seconds since the epoch for
 * strftime_now, < 0: the clock. *text fresh (ew_string_free). user_spans, when given, receives the
 * byte ranges of the output that came from message contents and other input strings (fresh,
 * ew_spans_free), so that special tokens in user text stay text. raise_exception() and
 * undefined-attribute errors are MALFORMED with the template's message. */
EW_API ew_status ew_template_render(const ew_template *t, const char *input_json,
                                    const ew_template_caps *caps, int64_t now_s, char **text,
                                    size_t *len, ew_text_span **user_spans, size_t *n_spans,
                                    ew_error *err) EW_MUST_USE;
EW_API void ew_spans_free(ew_text_span *spans);

#ifdef __cplusplus
}
#endif
#endif

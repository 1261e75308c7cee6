/* text/regex.h - regular expressions as published tokenizers write them (Oniguruma, Ruby syntax),
 * run by PCRE2.
 *
 *   ew_regex          compiled once, immutable, any thread
 *   ew_regex_scratch  match data of one call or one stream */
#ifndef EW_TEXT_REGEX_H
#define EW_TEXT_REGEX_H

#include "base/buf.h"
#include "base/error.h"

struct ew_regex {
    void *code; /* pcre2_code_8; NULL before compile */
    bool has_jit;
};
/* `what` names the owner in errors. UNSUPPORTED names syntax that cannot be carried over. */
ew_status ew_regex_compile(struct ew_regex *r, struct ew_str pattern, const char *what,
                           ew_error *err);
void ew_regex_deinit(struct ew_regex *r);

struct ew_regex_scratch {
    void *match;   /* pcre2_match_data_8 */
    void *context; /* pcre2_match_context_8 */
    void *stack;   /* pcre2_jit_stack_8, only after the small one overflowed */
};
ew_status ew_regex_scratch_init(struct ew_regex_scratch *s, ew_error *err);
void ew_regex_scratch_deinit(struct ew_regex_scratch *s);

/* First match at or after `from` in well-formed UTF-8. LIMIT when the match gives up. */
ew_status ew_regex_find(const struct ew_regex *r, struct ew_regex_scratch *s, const char *text,
                        size_t len, size_t from, bool *found, size_t *begin, size_t *end,
                        ew_error *err);

#endif

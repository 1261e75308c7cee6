/* text/regex.c - PCRE2 behind Oniguruma's dialect. Owns translation and match limits; patterns and
 * their use belong to pattern.c. */
#include "text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "text/regex_dialect.h"

#define MATCH_LIMIT     10000000u
#define HEAP_LIMIT_KIB  65536u
#define BIG_STACK_BYTES ((size_t)64 << 20)

static void *regex_alloc(PCRE2_SIZE bytes, void *ctx)
{
    (void)ctx;
    return ew_mem_alloc(EW_MEM_TEXT, bytes);
}

static void regex_free(void *p, void *ctx)
{
    (void)ctx;
    ew_mem_free(p);
}

static ew_status compile_code(struct ew_regex *r, const char *text, size_t len, const char *what,
                              ew_error *err)
{
    pcre2_general_context *general = pcre2_general_context_create(regex_alloc, regex_free, NULL);
    pcre2_compile_context *context = general ? pcre2_compile_context_create(general) : NULL;
    ew_status st = EW_STATUS_NO_MEMORY;
    int code = 0;
    PCRE2_SIZE at = 0;

    if (context) {
        pcre2_set_newline(context, PCRE2_NEWLINE_LF);
        pcre2_set_parens_nest_limit(context, 100);
        r->code = pcre2_compile((PCRE2_SPTR)text, len,
                                PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                                &code, &at, context);
        if (r->code) {
            r->has_jit = pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE) == 0;
            st = EW_STATUS_OK;
        } else if (code != PCRE2_ERROR_HEAP_FAILED) {
            char reason[128];

            if (pcre2_get_error_message(code, (PCRE2_UCHAR *)reason, sizeof(reason)) < 0)
                reason[0] = 0;
            st = ew_fail(err, EW_STATUS_MALFORMED, "%s: bad regex at byte %zu: %s", what,
                         (size_t)at, reason);
        }
    }
    pcre2_compile_context_free(context);
    pcre2_general_context_free(general);
    if (st == EW_STATUS_NO_MEMORY)
        return ew_fail(err, st, "%s: out of memory for a regex", what);
    return st;
}

ew_status ew_regex_compile(struct ew_regex *r, struct ew_str pattern, const char *what,
                           ew_error *err)
{
    struct ew_buf text;
    ew_status st;

    ew_buf_init(&text, EW_MEM_TEXT, 1u << 20);
    st = ew_regex_translate(&text, pattern, what, err);
    if (!st)
        st = compile_code(r, text.data ? text.data : "", text.len, what, err);
    ew_buf_deinit(&text);
    return st;
}

void ew_regex_deinit(struct ew_regex *r)
{
    pcre2_code_free(r->code);
    r->code = NULL;
}

ew_status ew_regex_scratch_init(struct ew_regex_scratch *s, ew_error *err)
{
    pcre2_general_context *general = pcre2_general_context_create(regex_alloc, regex_free, NULL);

    *s = (struct ew_regex_scratch){ 0 };
    if (general) {
        s->match = pcre2_match_data_create(1, general);
        s->context = pcre2_match_context_create(general);
        pcre2_general_context_free(general);
    }
    if (!s->match || !s->context) {
        ew_regex_scratch_deinit(s);
        return ew_fail(err, EW_STATUS_NO_MEMORY, "regex: out of memory for match data");
    }
    pcre2_set_match_limit(s->context, MATCH_LIMIT);
    pcre2_set_heap_limit(s->context, HEAP_LIMIT_KIB);
    return EW_STATUS_OK;
}

void ew_regex_scratch_deinit(struct ew_regex_scratch *s)
{
    pcre2_jit_stack_free(s->stack);
    pcre2_match_context_free(s->context);
    pcre2_match_data_free(s->match);
    *s = (struct ew_regex_scratch){ 0 };
}

static int run_match(const struct ew_regex *r, struct ew_regex_scratch *s, const char *text,
                     size_t len, size_t from)
{
    if (r->has_jit)
        return pcre2_jit_match(r->code, (PCRE2_SPTR)text, len, from, PCRE2_NO_UTF_CHECK, s->match,
                               s->context);
    return pcre2_match(r->code, (PCRE2_SPTR)text, len, from, PCRE2_NO_UTF_CHECK, s->match,
                       s->context);
}

ew_status ew_regex_find(const struct ew_regex *r, struct ew_regex_scratch *s, const char *text,
                        size_t len, size_t from, bool *found, size_t *begin, size_t *end,
                        ew_error *err)
{
    int got = run_match(r, s, text, len, from);

    if (got == PCRE2_ERROR_JIT_STACKLIMIT && !s->stack) {
        s->stack = pcre2_jit_stack_create(65536, BIG_STACK_BYTES, NULL);
        if (!s->stack)
            return ew_fail(err, EW_STATUS_NO_MEMORY, "regex: out of memory for the match stack");
        pcre2_jit_stack_assign(s->context, NULL, s->stack);
        got = run_match(r, s, text, len, from);
    }
    *found = got >= 0;
    if (got == PCRE2_ERROR_NOMATCH)
        return EW_STATUS_OK;
    if (got == PCRE2_ERROR_NOMEMORY)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "regex: out of memory in a match");
    if (got < 0)
        return ew_fail(err, EW_STATUS_LIMIT, "regex: match gave up at byte %zu of %zu (code %d)",
                       from, len, got);
    *begin = pcre2_get_ovector_pointer(s->match)[0];
    *end = pcre2_get_ovector_pointer(s->match)[1];
    if (*begin > *end) /* \K in a lookahead can do this */
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "regex: a match that ends before it begins");
    return EW_STATUS_OK;
}

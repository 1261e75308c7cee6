/* checkpoint/quant_match.c - patterns over module names as quantisation configs write them: names,
 * Python regexes anchored at the start, shell globs, parts of names, class names. Regexes of a file
 * are bounded in size and in work. */
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/mem.h"
#include "base/text.h"
#include "checkpoint/quant_config.h"

#define REGEX_MAX_BYTES 65536
#define MATCH_LIMIT     100000u
#define HEAP_LIMIT_KIB  4096u

static void *regex_alloc(PCRE2_SIZE bytes, void *ctx)
{
    (void)ctx;
    return ew_mem_alloc(EW_MEM_CHECKPOINT, bytes);
}

static void regex_free(void *p, void *ctx)
{
    (void)ctx;
    ew_mem_free(p);
}

ew_status ew_qx_pattern_compile(struct ew_qx_pattern *p, const char *what, ew_error *err)
{
    pcre2_general_context *general;
    pcre2_compile_context *context;
    PCRE2_SIZE at = 0;
    int code = 0;

    if (p->kind != EW_QX_REGEX)
        return EW_STATUS_OK;
    if (strlen(p->text) > REGEX_MAX_BYTES)
        return ew_fail(err, EW_STATUS_LIMIT, "%s: a regex has %zu bytes, the most is %d", what,
                       strlen(p->text), REGEX_MAX_BYTES);
    general = pcre2_general_context_create(regex_alloc, regex_free, NULL);
    context = general ? pcre2_compile_context_create(general) : NULL;
    if (context) {
        pcre2_set_parens_nest_limit(context, 100);
        p->code = pcre2_compile((PCRE2_SPTR)p->text, PCRE2_ZERO_TERMINATED,
                                PCRE2_UTF | PCRE2_ANCHORED | PCRE2_NEVER_BACKSLASH_C, &code, &at,
                                context);
    }
    pcre2_compile_context_free(context);
    pcre2_general_context_free(general);
    if (!context || (!p->code && code == PCRE2_ERROR_HEAP_FAILED))
        return ew_fail(err, EW_STATUS_NO_MEMORY, "%s: no memory for a regex", what);
    if (!p->code)
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: \"%.80s\" is not a regex (byte %zu)", what,
                       p->text, (size_t)at);
    return EW_STATUS_OK;
}

void ew_qx_pattern_deinit(struct ew_qx_pattern *p)
{
    pcre2_code_free(p->code);
    p->code = NULL;
}

static bool regex_matches(const struct ew_qx_pattern *p, const char *text, bool *broken)
{
    pcre2_general_context *general = pcre2_general_context_create(regex_alloc, regex_free, NULL);
    pcre2_match_context *context = general ? pcre2_match_context_create(general) : NULL;
    pcre2_match_data *match = general ? pcre2_match_data_create(1, general) : NULL;
    int n = PCRE2_ERROR_NOMEMORY;

    if (context && match) {
        pcre2_set_match_limit(context, MATCH_LIMIT);
        pcre2_set_depth_limit(context, MATCH_LIMIT);
        pcre2_set_heap_limit(context, HEAP_LIMIT_KIB);
        n = pcre2_match(p->code, (PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED, 0, 0, match, context);
    }
    pcre2_match_data_free(match);
    pcre2_match_context_free(context);
    pcre2_general_context_free(general);
    if (n < 0 && n != PCRE2_ERROR_NOMATCH)
        *broken = true;
    return n >= 0;
}

/* `part` at the end of the name, or anywhere between dots ("mlp.gate" is no part of
 * "mlp.gate_proj"). */
static bool part_matches(const char *part, const char *name)
{
    const size_t m = strlen(part);

    if (!m)
        return false;
    if (ew_ends_with(name, part))
        return true;
    for (const char *at = strstr(name, part); at; at = strstr(at + 1, part)) {
        const char before = at == name ? '.' : at[-1], after = at[m];

        if ((before == '.' || part[0] == '.') && (after == '.' || part[m - 1] == '.'))
            return true;
    }
    return false;
}

bool ew_qx_pattern_matches(const struct ew_qx_pattern *p, const char *module,
                           const char *class_name, bool *broken)
{
    switch (p->kind) {
    case EW_QX_NAME:
        return strcmp(p->text, module) == 0;
    case EW_QX_REGEX:
        return regex_matches(p, module, broken);
    case EW_QX_GLOB:
        return ew_glob_match(p->text, module);
    case EW_QX_PART:
        return part_matches(p->text, module);
    case EW_QX_CLASS:
        return strcmp(p->text, class_name) == 0;
    case EW_QX_ANY:
    default:
        return true;
    }
}

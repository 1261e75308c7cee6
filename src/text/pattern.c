/* text/pattern.c - walks matches of strings, regexes and character classes. What is done with the
 * matches belongs to the callers. */
#include "text/pattern.h"

#include "text/utf8.h"

ew_status ew_pattern_set_literal(struct ew_pattern *p, struct ew_str text, ew_error *err)
{
    p->literal = ew_mem_strndup(EW_MEM_TEXT, text.at, text.len);
    p->literal_len = text.len;
    if (!p->literal)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "pattern: out of memory for %zu bytes", text.len);
    return EW_STATUS_OK;
}

ew_status ew_pattern_parse(struct ew_pattern *p, const json_t *json, const char *what,
                           ew_error *err)
{
    const json_t *literal = json_is_string(json) ? json : json_object_get(json, "String");
    const json_t *regex = json_object_get(json, "Regex");
    const json_t *one = literal ? literal : regex;

    if (!json_is_string(one))
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: pattern is neither String nor Regex", what);
    const struct ew_str text = { json_string_value(one), json_string_length(one) };
    if (literal)
        return ew_pattern_set_literal(p, text, err);
    return ew_regex_compile(&p->regex, text, what, err);
}

void ew_pattern_deinit(struct ew_pattern *p)
{
    ew_mem_free(p->literal);
    p->literal = NULL;
    ew_regex_deinit(&p->regex);
}

void ew_pattern_walk_init(struct ew_pattern_walk *w, const struct ew_pattern *p,
                          struct ew_regex_scratch *scratch, const char *text, size_t len)
{
    *w = (struct ew_pattern_walk){ p, scratch, text, len, 0, SIZE_MAX };
}

static ew_status find_once(struct ew_pattern_walk *w, bool *found, size_t *begin, size_t *end,
                           ew_error *err)
{
    const struct ew_pattern *p = w->pattern;

    *found = false;
    if (p->regex.code)
        return ew_regex_find(&p->regex, w->scratch, w->text, w->len, w->pos, found, begin, end,
                             err);
    if (p->literal) {
        const char *at =
            w->len == w->pos && p->literal_len > 0
                ? NULL
                : memmem(w->text + w->pos, w->len - w->pos, p->literal, p->literal_len);

        *found = at != NULL;
        if (at) {
            *begin = (size_t)(at - w->text);
            *end = *begin + p->literal_len;
        }
        return EW_STATUS_OK;
    }
    for (size_t i = w->pos; i < w->len;) {
        size_t used;

        if (p->is_member(ew_utf8_get(w->text + i, &used))) {
            *found = true;
            *begin = i;
            *end = i + used;
            return EW_STATUS_OK;
        }
        i += used;
    }
    return EW_STATUS_OK;
}

ew_status ew_pattern_walk_next(struct ew_pattern_walk *w, bool *found, size_t *begin, size_t *end,
                               ew_error *err)
{
    while (w->pos <= w->len) {
        EW_TRY(find_once(w, found, begin, end, err));
        if (!*found)
            break;
        if (*begin == *end && *end == w->last_end) {
            size_t used = 1;

            if (w->pos < w->len)
                ew_utf8_get(w->text + w->pos, &used);
            w->pos += used;
            continue;
        }
        w->pos = *end;
        w->last_end = *end;
        return EW_STATUS_OK;
    }
    *found = false;
    return EW_STATUS_OK;
}

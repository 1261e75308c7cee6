/* text/pattern.h - what a tokenizer searches for: a string, a regex, or a class of characters. */
#ifndef EW_TEXT_PATTERN_H
#define EW_TEXT_PATTERN_H

#include "base/json.h"
#include "text/regex.h"

struct ew_pattern {
    char *literal; /* owned; NULL unless a string */
    size_t literal_len;
    struct ew_regex regex;          /* code NULL unless a regex */
    bool (*is_member)(uint32_t cp); /* NULL unless a class: each member is one match */
};
/* {"String": "..."}, {"Regex": "..."} or a plain string. */
ew_status ew_pattern_parse(struct ew_pattern *p, const json_t *json, const char *what,
                           ew_error *err);
ew_status ew_pattern_set_literal(struct ew_pattern *p, struct ew_str text, ew_error *err);
void ew_pattern_deinit(struct ew_pattern *p);

/* Walks the matches of one text, left to right, not overlapping. An empty match right after another
 * match is not one. */
struct ew_pattern_walk {
    const struct ew_pattern *pattern;
    struct ew_regex_scratch *scratch;
    const char *text;
    size_t len;
    size_t pos;
    size_t last_end; /* SIZE_MAX before the first match */
};
void ew_pattern_walk_init(struct ew_pattern_walk *w, const struct ew_pattern *p,
                          struct ew_regex_scratch *scratch, const char *text, size_t len);
ew_status ew_pattern_walk_next(struct ew_pattern_walk *w, bool *found, size_t *begin, size_t *end,
                               ew_error *err);

#endif

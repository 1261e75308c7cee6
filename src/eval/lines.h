/* eval/lines.h - files of questions: one JSON object a line, blank lines between them allowed. */
#ifndef EW_EVAL_LINES_H
#define EW_EVAL_LINES_H

#include "base/json.h"

struct ew_lines {
    const char *name; /* of the file; borrowed */
    json_t **v;       /* [n] objects */
    size_t *number;   /* [n] line in the file, from 1 */
    size_t n;
};
/* limit 0: all. MALFORMED names the line; a file without any is INVALID_ARG. */
ew_status ew_lines_load(const char *text, size_t len, const char *name, uint32_t limit,
                        struct ew_lines *out, ew_error *err);
void ew_lines_release(struct ew_lines *l);
/* First of the keys that is there, as a string; NULL when none is or it is no string. */
const char *ew_line_text(const json_t *line, const char *key, const char *other_key);

#endif

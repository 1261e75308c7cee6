/* text/jinja_strings.h - string work that methods and filters share. Marks of user bytes are kept
 * (jinja_value.h). */
#ifndef EW_TEXT_JINJA_STRINGS_H
#define EW_TEXT_JINJA_STRINGS_H

#include "text/jinja_value.h"

/* chars NULL: Unicode whitespace. */
ew_status jinja_strip(struct jinja_run *r, const struct jinja_str *s, const struct jinja_str *chars,
                      bool left, bool right, struct jinja_value *out);
/* sep NULL: runs of whitespace. max < 0: all. from_right: rsplit. */
ew_status jinja_split(struct jinja_run *r, const struct jinja_str *s, const struct jinja_str *sep,
                      int64_t max, bool from_right, struct jinja_value *out);
ew_status jinja_split_lines(struct jinja_run *r, const struct jinja_str *s, bool keep_ends,
                            struct jinja_value *out);
ew_status jinja_replace(struct jinja_run *r, const struct jinja_str *s,
                        const struct jinja_str *from, const struct jinja_str *to, int64_t max,
                        struct jinja_value *out);
/* strict: items must be strings (str.join); otherwise they are printed (the filter). */
ew_status jinja_join(struct jinja_run *r, const struct jinja_str *sep, struct jinja_value items,
                     bool strict, struct jinja_value *out);
/* "upper", "lower", "title", "capitalize", "swapcase". */
ew_status jinja_change_case(struct jinja_run *r, const struct jinja_str *s, const char *how,
                            struct jinja_value *out);

#endif

/* text/regex_dialect.h - Oniguruma (Ruby syntax) pattern text to PCRE2 pattern text. */
#ifndef EW_TEXT_REGEX_DIALECT_H
#define EW_TEXT_REGEX_DIALECT_H

#include "base/buf.h"
#include "base/error.h"

/* Appends the PCRE2 form of `pattern` to *out. UNSUPPORTED: class intersections (&&), negated
 * nested classes, \W and \H inside a class. */
ew_status ew_regex_translate(struct ew_buf *out, struct ew_str pattern, const char *what,
                             ew_error *err);

/* Members of Unicode's \w, to be put in brackets. */
#define EW_REGEX_WORD_CLASS "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"

#endif

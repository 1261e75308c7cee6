/* base/text.h - small questions about strings. */
#ifndef EW_BASE_TEXT_H
#define EW_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

static inline bool ew_ends_with(const char *s, const char *tail)
{
    const size_t n = strlen(s), m = strlen(tail);

    return n >= m && memcmp(s + n - m, tail, m) == 0;
}

/* Whether s has one of the tails behind something: a tail alone does not count. */
static inline bool ew_has_tail(const char *s, const char *const *tails, size_t n_tails)
{
    for (size_t i = 0; i < n_tails; i++)
        if (ew_ends_with(s, tails[i]) && strlen(s) > strlen(tails[i]))
            return true;
    return false;
}

/* Glob over the whole of text: * is any run, ? one character. At most |pattern| x |text| steps. */
bool ew_glob_match(const char *pattern, const char *text);

#endif

/* graph/text_lex.h - a cursor over the text form: names, strings, numbers, with the line for
 * messages. */
#ifndef EW_GRAPH_TEXT_LEX_H
#define EW_GRAPH_TEXT_LEX_H

#include "graph/text.h"

struct ew_lex {
    const char *at, *end;
    unsigned line;
    struct ew_arena *arena; /* where names and strings go */
    ew_error *err;
};

/* Fails with MALFORMED: "line N: expected <what>, found '...'". */
ew_status ew_lex_expected(struct ew_lex *l, const char *what);
/* Skips blanks and comments; newlines too when `lines`. */
void ew_lex_skip(struct ew_lex *l, bool lines);
bool ew_lex_at_end(struct ew_lex *l);
/* Takes this punctuation or word if it is next on the line. A word must not run on. */
bool ew_lex_take(struct ew_lex *l, const char *text);
ew_status ew_lex_want(struct ew_lex *l, const char *text);
/* [A-Za-z0-9_./]+ */
ew_status ew_lex_word(struct ew_lex *l, const char *what, const char **out);
/* "quoted", with \" \\ \n \xNN; no NUL inside. */
ew_status ew_lex_string(struct ew_lex *l, const char **out);
ew_status ew_lex_i64(struct ew_lex *l, int64_t *out);
ew_status ew_lex_f64(struct ew_lex *l, double *out);

#endif

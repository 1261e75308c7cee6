/* graph/text_lex.c - see text_lex.h. */
#include "graph/text_lex.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

ew_status ew_lex_expected(struct ew_lex *l, const char *what)
{
    size_t n = 0;

    ew_lex_skip(l, false);
    while (l->at + n < l->end && n < 24 && l->at[n] != '\n')
        n++;
    return ew_fail(l->err, EW_STATUS_MALFORMED, "line %u: expected %s, found '%.*s'", l->line, what,
                   (int)n, l->at);
}

void ew_lex_skip(struct ew_lex *l, bool lines)
{
    while (l->at < l->end) {
        if (*l->at == ' ' || *l->at == '\t' || *l->at == '\r') {
            l->at++;
        } else if (*l->at == '#') {
            while (l->at < l->end && *l->at != '\n')
                l->at++;
        } else if (*l->at == '\n' && lines) {
            l->at++;
            l->line++;
        } else {
            break;
        }
    }
}

bool ew_lex_at_end(struct ew_lex *l)
{
    ew_lex_skip(l, true);
    return l->at == l->end;
}

bool ew_lex_take(struct ew_lex *l, const char *text)
{
    const size_t n = strlen(text);

    ew_lex_skip(l, false);
    if ((size_t)(l->end - l->at) < n || memcmp(l->at, text, n) != 0)
        return false;
    if (ew_text_is_name_char(text[n - 1]) && l->at + n < l->end && ew_text_is_name_char(l->at[n]))
        return false;
    l->at += n;
    return true;
}

ew_status ew_lex_want(struct ew_lex *l, const char *text)
{
    char what[40] = "'";

    if (ew_lex_take(l, text))
        return EW_STATUS_OK;
    strncat(what, text, sizeof(what) - 3);
    strncat(what, "'", 2);
    return ew_lex_expected(l, what);
}

ew_status ew_lex_word(struct ew_lex *l, const char *what, const char **out)
{
    const char *from;

    ew_lex_skip(l, false);
    from = l->at;
    while (l->at < l->end && ew_text_is_name_char(*l->at))
        l->at++;
    if (l->at == from)
        return ew_lex_expected(l, what);
    *out = ew_arena_strndup(l->arena, from, (size_t)(l->at - from));
    return *out ? EW_STATUS_OK : ew_fail(l->err, EW_STATUS_NO_MEMORY, "line %u", l->line);
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

/* One character of a string; 0: bad escape. */
static char string_char(struct ew_lex *l)
{
    char c = *l->at++;
    int high, low;

    if (c != '\\')
        return c;
    if (l->at == l->end)
        return 0;
    c = *l->at++;
    if (c == 'n')
        return '\n';
    if (c != 'x')
        return c == '"' || c == '\\' ? c : 0;
    if (l->end - l->at < 2)
        return 0;
    high = hex_digit(l->at[0]);
    low = hex_digit(l->at[1]);
    l->at += 2;
    return high < 0 || low < 0 ? 0 : (char)(unsigned char)(high * 16 + low);
}

ew_status ew_lex_string(struct ew_lex *l, const char **out)
{
    const char *end;
    char *text;
    size_t n = 0;

    EW_TRY(ew_lex_want(l, "\""));
    for (end = l->at; end < l->end && *end != '"' && *end != '\n'; end++)
        if (*end == '\\' && end + 1 < l->end)
            end++;
    if (end >= l->end || *end != '"')
        return ew_lex_expected(l, "a string that ends on its line");
    text = ew_arena_alloc(l->arena, (size_t)(end - l->at) + 1);
    if (!text)
        return ew_fail(l->err, EW_STATUS_NO_MEMORY, "line %u", l->line);
    while (l->at < end) {
        text[n] = string_char(l);
        if (!text[n++])
            return ew_lex_expected(l, "an escape \\\" \\\\ \\n or \\xNN before this");
    }
    l->at = end + 1;
    *out = text;
    return EW_STATUS_OK;
}

/* Copies what may be a number into `text`; its length, 0 if there is none. */
static size_t number_text(struct ew_lex *l, char *text, size_t cap)
{
    size_t n = 0;

    ew_lex_skip(l, false);
    while (l->at + n < l->end && n + 1 < cap) {
        const char c = l->at[n];
        if (!(c == '-' || c == '+' || c == '.' || (c >= '0' && c <= '9') ||
              (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')))
            break;
        text[n++] = c;
    }
    text[n] = '\0';
    return n;
}

ew_status ew_lex_i64(struct ew_lex *l, int64_t *out)
{
    char text[32];
    const size_t n = number_text(l, text, sizeof(text));
    char *end = text;

    errno = 0;
    *out = text[0] == '-' ? strtoll(text, &end, 10) : (int64_t)strtoull(text, &end, 10);
    if (!n || end != text + n || errno)
        return ew_lex_expected(l, "an integer");
    l->at += n;
    return EW_STATUS_OK;
}

ew_status ew_lex_f64(struct ew_lex *l, double *out)
{
    char text[64];
    const size_t n = number_text(l, text, sizeof(text));
    char *end = text;

    *out = strtod(text, &end);
    if (!n || end != text + n)
        return ew_lex_expected(l, "a number");
    l->at += n;
    return EW_STATUS_OK;
}

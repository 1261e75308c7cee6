/* text/regex_dialect.c - what the two regex dialects write differently:
 *
 *   \s \S   Unicode White_Space (PCRE2 also takes U+180E)
 *   \w \W   Alphabetic, M, Nd, Pc (PCRE2: L, N, _)
 *   \h \H   a hexadecimal digit (PCRE2: horizontal space)
 *   \uHHHH  a code point
 *   X{n,m}+ a repeated repeat (PCRE2: possessive)
 *   [a[bc]] nested classes
 *
 * Everything else means the same in both, or is PCRE2's to refuse. */
#include "text/regex_dialect.h"

#define MAX_GROUPS 100

struct translator {
    struct ew_buf *out;
    struct ew_str in;
    size_t i;
    const char *what;
    ew_error *err;
    size_t groups[MAX_GROUPS]; /* where open groups begin in out */
    size_t n_groups;
    size_t atom; /* where the last atom begins in out */
};

static bool is_hex(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static bool looks_at(const struct translator *t, const char *text)
{
    const size_t len = strlen(text);

    return t->in.len - t->i >= len && memcmp(t->in.at + t->i, text, len) == 0;
}

static ew_status refuse(const struct translator *t, const char *syntax)
{
    return ew_fail(t->err, EW_STATUS_UNSUPPORTED, "%s: regex syntax %s at byte %zu", t->what,
                   syntax, t->i);
}

/* \p{...}, \x{...}, \k<...> and the like: copied whole, so that braces are not taken for repeats.
 */
static void copy_escape(struct translator *t)
{
    const char c = t->in.at[t->i + 1];
    size_t len = 2;

    while (t->i + len < t->in.len && ((unsigned char)t->in.at[t->i + len] & 0xC0u) == 0x80u)
        len++;
    if (strchr("pPxogk", c) && t->i + 2 < t->in.len && t->in.at[t->i + 2] == '{') {
        while (t->i + len < t->in.len && t->in.at[t->i + len] != '}')
            len++;
        if (t->i + len < t->in.len)
            len++;
    }
    ew_buf_append(t->out, t->in.at + t->i, len);
    t->i += len;
}

static ew_status escape(struct translator *t, bool in_class)
{
    static const struct {
        char letter;
        const char *outside, *inside; /* inside NULL: refused */
    } words[] = {
        { 's', "\\p{White_Space}", "\\p{White_Space}" },
        { 'S', "\\P{White_Space}", "\\P{White_Space}" },
        { 'w', "[" EW_REGEX_WORD_CLASS "]", EW_REGEX_WORD_CLASS },
        { 'W', "[^" EW_REGEX_WORD_CLASS "]", NULL },
        { 'h', "[0-9A-Fa-f]", "0-9A-Fa-f" },
        { 'H', "[^0-9A-Fa-f]", NULL },
    };

    if (t->i + 1 >= t->in.len)
        return ew_fail(t->err, EW_STATUS_MALFORMED, "%s: bad regex: \\ at the end", t->what);
    for (size_t k = 0; k < sizeof(words) / sizeof(words[0]); k++) {
        if (words[k].letter != t->in.at[t->i + 1])
            continue;
        if (in_class && !words[k].inside)
            return refuse(t, "\\W or \\H inside a class");
        ew_buf_puts(t->out, in_class ? words[k].inside : words[k].outside);
        t->i += 2;
        return EW_STATUS_OK;
    }
    if (looks_at(t, "\\u") && t->in.len - t->i >= 6 && is_hex(t->in.at[t->i + 2]) &&
        is_hex(t->in.at[t->i + 3]) && is_hex(t->in.at[t->i + 4]) && is_hex(t->in.at[t->i + 5])) {
        ew_buf_printf(t->out, "\\x{%.4s}", t->in.at + t->i + 2);
        t->i += 6;
        return EW_STATUS_OK;
    }
    copy_escape(t);
    return EW_STATUS_OK;
}

/* At '['. Nested positive classes are flattened: a union is what they mean. */
static ew_status class(struct translator *t)
{
    unsigned depth = 1;
    bool at_start = true; /* a ']' here is a member */

    ew_buf_putc(t->out, '[');
    t->i++;
    if (looks_at(t, "^")) {
        ew_buf_putc(t->out, '^');
        t->i++;
    }
    while (t->i < t->in.len && depth > 0) {
        const char c = t->in.at[t->i];

        if (c == '\\') {
            EW_TRY(escape(t, true));
        } else if (looks_at(t, "&&")) {
            return refuse(t, "&& (class intersection)");
        } else if (looks_at(t, "[:")) {
            const char *end = memmem(t->in.at + t->i, t->in.len - t->i, ":]", 2);
            const size_t len = end ? (size_t)(end - (t->in.at + t->i)) + 2 : 2;

            ew_buf_append(t->out, t->in.at + t->i, len);
            t->i += len;
        } else if (looks_at(t, "[^")) {
            return refuse(t, "[^...] inside a class");
        } else if (c == '[') {
            depth++;
            t->i++;
        } else if (c == ']' && !at_start) {
            depth--;
            t->i++;
        } else {
            if (c == ']')
                ew_buf_putc(t->out, '\\');
            ew_buf_putc(t->out, c);
            t->i++;
        }
        at_start = false;
    }
    ew_buf_putc(t->out, ']');
    if (depth > 0)
        return ew_fail(t->err, EW_STATUS_MALFORMED, "%s: bad regex: class without ]", t->what);
    return EW_STATUS_OK;
}

/* At '{': length of a repeat "{n}", "{n,}", "{,m}" or "{n,m}", 0 when it is a plain brace. */
static size_t repeat_len(const struct translator *t)
{
    size_t k = t->i + 1;
    size_t digits = 0;

    while (k < t->in.len && ((t->in.at[k] >= '0' && t->in.at[k] <= '9') || t->in.at[k] == ',')) {
        digits += t->in.at[k] != ',';
        k++;
    }
    return digits > 0 && k < t->in.len && t->in.at[k] == '}' ? k + 1 - t->i : 0;
}

/* Puts what begins at t->atom in a group. */
static void group_atom(struct translator *t)
{
    if (!ew_buf_reserve(t->out, 8))
        return;
    ew_buf_puts(t->out, "(?:)");
    memmove(t->out->data + t->atom + 3, t->out->data + t->atom, t->out->len - 4 - t->atom);
    memcpy(t->out->data + t->atom, "(?:", 3);
    t->out->data[t->out->len - 1] = ')';
}

static void repeat(struct translator *t, size_t len)
{
    if (t->in.at[t->i + 1] == ',') /* {,m}: PCRE2 10.42 has no such form */
        ew_buf_printf(t->out, "{0%.*s", (int)(len - 1), t->in.at + t->i + 1);
    else
        ew_buf_append(t->out, t->in.at + t->i, len);
    t->i += len;
    if (looks_at(t, "+"))
        group_atom(t);
}

static ew_status piece(struct translator *t)
{
    const char c = t->in.at[t->i];
    const size_t here = t->out->len;

    if (c == '{') {
        const size_t len = repeat_len(t);

        if (len > 0) {
            repeat(t, len);
            return EW_STATUS_OK;
        }
    }
    if (c == '(') {
        if (t->n_groups == MAX_GROUPS)
            return ew_fail(t->err, EW_STATUS_LIMIT, "%s: regex with more than %d nested groups",
                           t->what, MAX_GROUPS);
        t->groups[t->n_groups++] = here;
    } else if (c == ')' && t->n_groups > 0) {
        t->atom = t->groups[--t->n_groups];
    } else if (!strchr("?*+", c)) {
        t->atom = here;
    }
    if (c == '\\')
        return escape(t, false);
    if (c == '[')
        return class(t);
    do
        ew_buf_putc(t->out, t->in.at[t->i++]);
    while (t->i < t->in.len && ((unsigned char)t->in.at[t->i] & 0xC0u) == 0x80u);
    return EW_STATUS_OK;
}

ew_status ew_regex_translate(struct ew_buf *out, struct ew_str pattern, const char *what,
                             ew_error *err)
{
    struct translator t = { .out = out, .in = pattern, .what = what, .err = err };

    while (t.i < t.in.len)
        EW_TRY(piece(&t));
    if (out->failed)
        return ew_fail(err, EW_STATUS_LIMIT, "%s: regex of %zu bytes is too long", what,
                       pattern.len);
    return EW_STATUS_OK;
}

/* text/jinja_lex.c - template source to tokens, with the whitespace rules of trim_blocks and
 * lstrip_blocks. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "text/jinja_ast.h"

struct lexer {
    struct ew_arena *arena;
    const char *src;
    size_t len, at;
    int line;
    const char *name;
    struct jinja_token *tokens;
    size_t n, cap;
    bool trim_next; /* the last tag ended in -}: drop leading whitespace of the text that follows */
    ew_error *err;
};

static ew_status fail(struct lexer *x, const char *what)
{
    return ew_fail(x->err, EW_STATUS_MALFORMED, "%s: line %d: %s", x->name, x->line, what);
}

static ew_status push(struct lexer *x, struct jinja_token t)
{
    if (x->n == x->cap) {
        const size_t cap = x->cap ? x->cap * 2 : 256;
        struct jinja_token *const more = ew_arena_new(x->arena, struct jinja_token, cap);
        if (!more)
            return ew_fail(x->err, EW_STATUS_NO_MEMORY, "%s: template tokens", x->name);
        if (x->n)
            memcpy(more, x->tokens, x->n * sizeof(*more));
        x->tokens = more;
        x->cap = cap;
    }
    t.line = x->line;
    x->tokens[x->n++] = t;
    return EW_STATUS_OK;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v';
}

static bool starts(const struct lexer *x, const char *text)
{
    const size_t n = strlen(text);

    return x->len - x->at >= n && memcmp(x->src + x->at, text, n) == 0;
}

static void count_lines(struct lexer *x, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++)
        x->line += x->src[i] == '\n';
}

/* Next "{{", "{%" or "{#" at or after `from`; len when there is none. */
static size_t find_tag(const struct lexer *x, size_t from)
{
    for (size_t i = from; i + 1 < x->len; i++)
        if (x->src[i] == '{' &&
            (x->src[i + 1] == '{' || x->src[i + 1] == '%' || x->src[i + 1] == '#'))
            return i;
    return x->len;
}

/* Text from `from` to the tag at `to`; what the tag's sign and lstrip_blocks take off its end. */
static ew_status push_text(struct lexer *x, size_t from, size_t to)
{
    size_t begin = from, end = to;
    const char sign = to + 2 < x->len ? x->src[to + 2] : '\0';
    const bool is_tag = to < x->len;
    ew_status st = EW_STATUS_OK;

    if (is_tag && sign == '-') {
        while (end > begin && is_space(x->src[end - 1]))
            end--;
    } else if (is_tag && x->src[to + 1] != '{' && sign != '+') {
        size_t e = end; /* lstrip_blocks: only blanks between the line's start and the tag */
        while (e > begin && (x->src[e - 1] == ' ' || x->src[e - 1] == '\t'))
            e--;
        if ((e == begin && (begin == 0 || x->src[begin - 1] == '\n')) ||
            (e > begin && x->src[e - 1] == '\n'))
            end = e;
    }
    if (x->trim_next)
        while (begin < end && is_space(x->src[begin]))
            begin++;
    if (begin < end)
        st = push(x, (struct jinja_token){
                         .kind = JINJA_TOK_DATA, .at = x->src + begin, .len = end - begin });
    count_lines(x, from, to);
    x->trim_next = false;
    return st;
}

/* After a tag that ended with `sign`: "-" trims the text that follows; block tags and comments eat
 * one newline. */
static void after_tag(struct lexer *x, char sign, bool eats_newline)
{
    x->trim_next = sign == '-';
    if (sign != '-' && sign != '+' && eats_newline) {
        if (starts(x, "\r\n"))
            x->at++;
        if (x->at < x->len && x->src[x->at] == '\n') {
            x->at++;
            x->line++;
        }
    }
}

static ew_status lex_comment(struct lexer *x)
{
    size_t i = x->at + 2;

    while (i + 1 < x->len && !(x->src[i] == '#' && x->src[i + 1] == '}'))
        i++;
    if (i + 1 >= x->len)
        return fail(x, "a comment is not closed with #}");
    const char sign = i > x->at + 2 ? x->src[i - 1] : '\0';
    count_lines(x, x->at, i);
    x->at = i + 2;
    after_tag(x, sign == '-' || sign == '+' ? sign : '\0', true);
    return EW_STATUS_OK;
}

static size_t put_utf8(char *out, uint32_t cp)
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (char)(0xc0 | cp >> 6);
        out[1] = (char)(0x80 | (cp & 0x3f));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (char)(0xe0 | cp >> 12);
        out[1] = (char)(0x80 | (cp >> 6 & 0x3f));
        out[2] = (char)(0x80 | (cp & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | cp >> 18);
    out[1] = (char)(0x80 | (cp >> 12 & 0x3f));
    out[2] = (char)(0x80 | (cp >> 6 & 0x3f));
    out[3] = (char)(0x80 | (cp & 0x3f));
    return 4;
}

static bool read_hex(const char *p, const char *end, int digits, uint32_t *out)
{
    *out = 0;
    for (int i = 0; i < digits; i++) {
        if (p + i >= end || !isxdigit((unsigned char)p[i]))
            return false;
        const char c = (char)tolower((unsigned char)p[i]);
        *out = *out * 16 + (uint32_t)(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    return *out <= 0x10ffff && !(*out >= 0xd800 && *out <= 0xdfff);
}

/* One escape after a backslash at p; returns bytes of source used, writes to out. */
static size_t unescape(const char *p, const char *end, char *out, size_t *n_out)
{
    static const char from[] = "ntrabfv0\\'\"", to[] = "\n\t\r\a\b\f\v\0\\'\"";
    const char *const hit = memchr(from, *p, sizeof(from) - 1);
    const int digits = *p == 'x' ? 2 : *p == 'u' ? 4 : *p == 'U' ? 8 : 0;
    uint32_t cp;

    if (hit) {
        out[0] = to[hit - from];
        *n_out = 1;
        return 1;
    }
    if (digits && read_hex(p + 1, end, digits, &cp)) {
        *n_out = put_utf8(out, cp);
        return 1 + (size_t)digits;
    }
    if (*p == '\n') {
        *n_out = 0;
        return 1;
    }
    out[0] = '\\'; /* Python keeps unknown escapes */
    out[1] = *p;
    *n_out = 2;
    return 1;
}

static ew_status lex_string(struct lexer *x)
{
    const char quote = x->src[x->at];
    size_t i = x->at + 1, n = 0;
    char *out;

    while (i < x->len && x->src[i] != quote)
        i += x->src[i] == '\\' ? 2 : 1;
    if (i >= x->len)
        return fail(x, "a string is not closed");
    out = ew_arena_alloc(x->arena, 2 * (i - x->at) + 8);
    if (!out)
        return ew_fail(x->err, EW_STATUS_NO_MEMORY, "%s: template string", x->name);
    for (size_t k = x->at + 1; k < i;) {
        size_t added = 1;
        if (x->src[k] == '\\') {
            k += 1 + unescape(x->src + k + 1, x->src + i, out + n, &added);
        } else {
            out[n] = x->src[k++];
        }
        n += added;
    }
    const ew_status st =
        push(x, (struct jinja_token){ .kind = JINJA_TOK_STR, .at = out, .len = n });
    count_lines(x, x->at, i);
    x->at = i + 1;
    return st;
}

static ew_status lex_number(struct lexer *x)
{
    char text[64];
    size_t n = 0;
    bool is_float = false;
    size_t i = x->at;

    for (; i < x->len; i++) {
        const char c = x->src[i];
        const bool dot =
            c == '.' && !is_float && i + 1 < x->len && isdigit((unsigned char)x->src[i + 1]);
        const bool exp = (c == 'e' || c == 'E') && i + 1 < x->len &&
                         (isdigit((unsigned char)x->src[i + 1]) ||
                          (i + 2 < x->len && strchr("+-", x->src[i + 1]) &&
                           isdigit((unsigned char)x->src[i + 2])));
        const bool exp_sign =
            n && (text[n - 1] == 'e' || text[n - 1] == 'E') && (c == '+' || c == '-');
        if (c == '_')
            continue;
        if (!isdigit((unsigned char)c) && !dot && !exp && !exp_sign)
            break;
        is_float |= dot || exp;
        if (n + 1 == sizeof(text))
            return fail(x, "a number of too many digits");
        text[n++] = c;
    }
    text[n] = '\0';
    x->at = i;
    errno = 0;
    if (is_float)
        return push(x, (struct jinja_token){ .kind = JINJA_TOK_FLOAT, .f = strtod(text, NULL) });
    const int64_t v = strtoll(text, NULL, 10);
    if (errno)
        return fail(x, "an integer beyond 64 bits");
    return push(x, (struct jinja_token){ .kind = JINJA_TOK_INT, .i = v });
}

static ew_status lex_op(struct lexer *x)
{
    static const char *const ops[] = { "**", "//", "==", "!=", "<=", ">=", "+", "-", "*",
                                       "/",  "%",  "~",  "|",  "(",  ")",  "[", "]", "{",
                                       "}",  ",",  ".",  ":",  "<",  ">",  "=" };

    for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
        if (starts(x, ops[i])) {
            const ew_status st = push(
                x,
                (struct jinja_token){ .kind = JINJA_TOK_OP, .at = ops[i], .len = strlen(ops[i]) });
            x->at += strlen(ops[i]);
            return st;
        }
    return ew_fail(x->err, EW_STATUS_MALFORMED, "%s: line %d: unexpected character '%.1s'", x->name,
                   x->line, x->src + x->at);
}

/* True at the end of the tag, which is consumed; *sign says whether it trims. */
static bool at_tag_end(struct lexer *x, char close, char *sign)
{
    const size_t k = x->at + (starts(x, "-") || starts(x, "+"));

    if (k + 1 >= x->len || x->src[k] != close || x->src[k + 1] != '}')
        return false;
    *sign = k > x->at ? x->src[x->at] : '\0';
    x->at = k + 2;
    return true;
}

static ew_status lex_tag(struct lexer *x, bool block)
{
    const char close = block ? '%' : '}';
    uint32_t braces = 0;
    char sign;

    x->at += 2;
    if (x->at < x->len && (x->src[x->at] == '-' || x->src[x->at] == '+'))
        x->at++;
    EW_TRY(push(x, (struct jinja_token){ .kind = block ? JINJA_TOK_BLOCK : JINJA_TOK_PRINT }));
    for (;;) {
        while (x->at < x->len && is_space(x->src[x->at]))
            x->line += x->src[x->at++] == '\n';
        if (x->at >= x->len)
            return fail(x, block ? "a block is not closed with %}"
                                 : "an expression is not closed with }}");
        const char c = x->src[x->at];
        if ((braces == 0 || block) && at_tag_end(x, close, &sign))
            break;
        braces += c == '{';
        braces -= c == '}' && braces;
        if (c == '"' || c == '\'') {
            EW_TRY(lex_string(x));
        } else if (isdigit((unsigned char)c)) {
            EW_TRY(lex_number(x));
        } else if (isalpha((unsigned char)c) || c == '_' || (unsigned char)c >= 0x80) {
            const size_t from = x->at;
            while (x->at < x->len && (isalnum((unsigned char)x->src[x->at]) ||
                                      x->src[x->at] == '_' || (unsigned char)x->src[x->at] >= 0x80))
                x->at++;
            EW_TRY(push(x, (struct jinja_token){
                               .kind = JINJA_TOK_NAME, .at = x->src + from, .len = x->at - from }));
        } else {
            EW_TRY(lex_op(x));
        }
    }
    EW_TRY(
        push(x, (struct jinja_token){ .kind = block ? JINJA_TOK_BLOCK_END : JINJA_TOK_PRINT_END }));
    after_tag(x, sign, block);
    return EW_STATUS_OK;
}

/* "{% raw %}" at the cursor: the text up to its end is data. */
static ew_status lex_raw(struct lexer *x, bool *was_raw)
{
    size_t i = x->at + 2;

    i += i < x->len && (x->src[i] == '-' || x->src[i] == '+');
    while (i < x->len && is_space(x->src[i]))
        i++;
    *was_raw = i + 3 <= x->len && memcmp(x->src + i, "raw", 3) == 0 && i + 3 < x->len &&
               !isalnum((unsigned char)x->src[i + 3]);
    if (!*was_raw)
        return EW_STATUS_OK;
    EW_TRY(lex_tag(x, true));
    x->n -= 3; /* BLOCK raw BLOCK_END */
    const size_t from = x->at;
    for (size_t tag = find_tag(x, x->at); tag < x->len; tag = find_tag(x, tag + 1)) {
        size_t k = tag + 2;
        k += k < x->len && (x->src[k] == '-' || x->src[k] == '+');
        while (k < x->len && is_space(x->src[k]))
            k++;
        if (x->src[tag + 1] == '%' && x->len - k >= 6 && memcmp(x->src + k, "endraw", 6) == 0) {
            EW_TRY(push_text(x, from, tag));
            x->at = tag;
            EW_TRY(lex_tag(x, true));
            x->n -= 3;
            return EW_STATUS_OK;
        }
    }
    return fail(x, "{% raw %} is not closed with {% endraw %}");
}

ew_status jinja_lex(struct ew_arena *arena, const char *source, size_t len, const char *name,
                    struct jinja_token **tokens, size_t *n_tokens, ew_error *err)
{
    struct lexer x = {
        .arena = arena, .src = source, .len = len, .line = 1, .name = name, .err = err
    };

    /* keep_trailing_newline is off in Jinja: one newline at the very end is dropped */
    if (x.len && x.src[x.len - 1] == '\n')
        x.len--;
    if (x.len && x.src[x.len - 1] == '\r' && x.len < len)
        x.len--;
    while (x.at < x.len) {
        const size_t tag = find_tag(&x, x.at);
        bool raw = false;
        EW_TRY(push_text(&x, x.at, tag));
        x.at = tag;
        if (tag >= x.len)
            break;
        if (x.src[tag + 1] == '#') {
            EW_TRY(lex_comment(&x));
            continue;
        }
        if (x.src[tag + 1] == '%')
            EW_TRY(lex_raw(&x, &raw));
        if (!raw)
            EW_TRY(lex_tag(&x, x.src[tag + 1] == '%'));
    }
    EW_TRY(push(&x, (struct jinja_token){ .kind = JINJA_TOK_EOF }));
    *tokens = x.tokens;
    *n_tokens = x.n;
    return EW_STATUS_OK;
}

/* text/jinja_print.c - values as text: Python's str() and repr(), json.dumps(), and JSON in. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/json.h"
#include "text/jinja_value.h"

#define MAX_TEXT ((size_t)64 << 20)

struct writer {
    struct jinja_run *r;
    struct ew_buf buf;
    struct jinja_json_opts json;
    bool user; /* a user string went in */
    uint32_t depth;
};

/* Shortest digits that read back the same, spelled as Python spells them. */
static void print_float(struct ew_buf *b, double f, bool json)
{
    char text[40];
    int precision = 1;

    if (isnan(f) || isinf(f)) {
        ew_buf_puts(b, isnan(f) ? (json ? "NaN" : "nan")
                       : f > 0  ? (json ? "Infinity" : "inf")
                                : (json ? "-Infinity" : "-inf"));
        return;
    }
    do
        snprintf(text, sizeof(text), "%.*e", precision - 1, f);
    while (strtod(text, NULL) != f && ++precision <= 17);
    const int exp = (int)strtol(strchr(text, 'e') + 1, NULL, 10);
    if (exp < -4 || exp >= 16) {
        char *e = strchr(text, 'e');
        *e = '\0';
        ew_buf_printf(b, "%se%c%02d", text, exp < 0 ? '-' : '+', abs(exp));
        return;
    }
    const int decimals = precision - 1 - exp;
    ew_buf_printf(b, "%.*f", decimals > 1 ? decimals : 1, f);
}

static void print_repr_str(struct ew_buf *b, const struct jinja_str *s)
{
    const bool has_single = memchr(s->at, '\'', s->len) != NULL;
    const char quote = has_single && !memchr(s->at, '"', s->len) ? '"' : '\'';

    ew_buf_putc(b, quote);
    for (size_t i = 0; i < s->len; i++) {
        const unsigned char c = (unsigned char)s->at[i];
        if (c == '\\' || c == (unsigned char)quote)
            ew_buf_printf(b, "\\%c", c);
        else if (c == '\n' || c == '\r' || c == '\t')
            ew_buf_puts(b, c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t");
        else if (c < 0x20 || c == 0x7f)
            ew_buf_printf(b, "\\x%02x", c);
        else
            ew_buf_putc(b, (char)c);
    }
    ew_buf_putc(b, quote);
}

static ew_status enter(struct writer *w)
{
    if (++w->depth > w->r->caps.max_depth)
        return jinja_fail(w->r, EW_STATUS_LIMIT, "a value nested deeper than %u",
                          w->r->caps.max_depth);
    return jinja_charge(w->r, 1);
}

static ew_status print_repr(struct writer *w, struct jinja_value v);

static ew_status print_repr_list(struct writer *w, const struct jinja_list *l)
{
    ew_buf_putc(&w->buf, l->tuple ? '(' : '[');
    for (size_t i = 0; i < l->n; i++) {
        if (i)
            ew_buf_puts(&w->buf, ", ");
        EW_TRY(print_repr(w, l->v[i]));
    }
    ew_buf_puts(&w->buf, l->tuple ? (l->n == 1 ? ",)" : ")") : "]");
    return EW_STATUS_OK;
}

static ew_status print_repr_dict(struct writer *w, const struct jinja_dict *d)
{
    if (d->is_namespace) {
        ew_buf_puts(&w->buf, "<Namespace>");
        return EW_STATUS_OK;
    }
    ew_buf_putc(&w->buf, '{');
    for (size_t i = 0; i < d->n; i++) {
        if (i)
            ew_buf_puts(&w->buf, ", ");
        EW_TRY(print_repr(w, d->e[i].key));
        ew_buf_puts(&w->buf, ": ");
        EW_TRY(print_repr(w, d->e[i].value));
    }
    ew_buf_putc(&w->buf, '}');
    return EW_STATUS_OK;
}

static ew_status print_repr(struct writer *w, struct jinja_value v)
{
    ew_status st = enter(w);

    if (st)
        return st;
    switch (v.kind) {
    case JINJA_UNDEFINED:
        ew_buf_puts(&w->buf, "Undefined");
        break;
    case JINJA_NONE:
        ew_buf_puts(&w->buf, "None");
        break;
    case JINJA_BOOL:
        ew_buf_puts(&w->buf, v.u.b ? "True" : "False");
        break;
    case JINJA_INT:
        ew_buf_printf(&w->buf, "%lld", (long long)v.u.i);
        break;
    case JINJA_FLOAT:
        print_float(&w->buf, v.u.f, false);
        break;
    case JINJA_STR:
        w->user |= jinja_str_any_user(v.u.s);
        print_repr_str(&w->buf, v.u.s);
        break;
    case JINJA_LIST:
        st = print_repr_list(w, v.u.list);
        break;
    case JINJA_DICT:
        st = print_repr_dict(w, v.u.dict);
        break;
    case JINJA_MACRO:
    case JINJA_FUNC:
    case JINJA_METHOD:
        ew_buf_printf(&w->buf, "<%s>", jinja_type_text(v));
        break;
    }
    w->depth--;
    return st;
}

static ew_status finish(struct writer *w, ew_status st, struct jinja_value *out)
{
    static const struct jinja_str user = { .at = "u", .len = 1, .all_user = true };

    if (!st && w->buf.failed)
        st = jinja_fail(w->r, EW_STATUS_LIMIT, "a text of more than %zu bytes", MAX_TEXT);
    if (!st)
        st = jinja_str_new(w->r, w->buf.data ? w->buf.data : "", w->buf.len, w->user ? &user : NULL,
                           out);
    ew_buf_deinit(&w->buf);
    return st;
}

ew_status jinja_to_str(struct jinja_run *r, struct jinja_value v, struct jinja_value *out)
{
    struct writer w = { .r = r };

    if (v.kind == JINJA_STR) {
        *out = v;
        return EW_STATUS_OK;
    }
    if (v.kind == JINJA_UNDEFINED)
        return jinja_str_new(r, "", 0, NULL, out);
    ew_buf_init(&w.buf, EW_MEM_TEXT, MAX_TEXT);
    return finish(&w, print_repr(&w, v), out);
}

static void json_escape(struct writer *w, const struct jinja_str *s)
{
    struct ew_buf *const b = &w->buf;

    ew_buf_putc(b, '"');
    for (size_t i = 0; i < s->len; i++) {
        const unsigned char c = (unsigned char)s->at[i];
        if (c == '"' || c == '\\')
            ew_buf_printf(b, "\\%c", c);
        else if (c == '\n' || c == '\r' || c == '\t' || c == '\b' || c == '\f')
            ew_buf_printf(b, "\\%c",
                          c == '\n'   ? 'n'
                          : c == '\r' ? 'r'
                          : c == '\t' ? 't'
                          : c == '\b' ? 'b'
                                      : 'f');
        else if (c < 0x20)
            ew_buf_printf(b, "\\u%04x", c);
        else if (c < 0x80 || !w->json.ensure_ascii)
            ew_buf_putc(b, (char)c);
        else {
            const int n = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
            uint32_t cp = c & (0x3fu >> n);
            for (int k = 0; k < n && i + 1 < s->len; k++)
                cp = cp << 6 | ((unsigned char)s->at[++i] & 0x3fu);
            if (cp >= 0x10000)
                ew_buf_printf(b, "\\u%04x\\u%04x", 0xd7c0 + (cp >> 10), 0xdc00 + (cp & 0x3ff));
            else
                ew_buf_printf(b, "\\u%04x", cp);
        }
    }
    ew_buf_putc(b, '"');
}

static void json_newline(struct writer *w)
{
    if (w->json.indent < 0)
        return;
    ew_buf_putc(&w->buf, '\n');
    for (uint32_t i = 0; i < (w->depth - 1) * (uint32_t)w->json.indent; i++)
        ew_buf_putc(&w->buf, ' ');
}

static ew_status print_json(struct writer *w, struct jinja_value v);

static ew_status json_key(struct writer *w, struct jinja_value key)
{
    if (key.kind == JINJA_STR) {
        w->user |= jinja_str_any_user(key.u.s);
        json_escape(w, key.u.s);
        return EW_STATUS_OK;
    }
    if (key.kind == JINJA_LIST)
        return jinja_fail(w->r, EW_STATUS_MALFORMED,
                          "keys must be str, int, float, bool or None, not tuple");
    ew_buf_putc(&w->buf, '"');
    EW_TRY(print_json(w, key));
    ew_buf_putc(&w->buf, '"');
    return EW_STATUS_OK;
}

static int entry_order(const void *a, const void *b)
{
    const struct jinja_value x = ((const struct jinja_entry *)a)->key,
                             y = ((const struct jinja_entry *)b)->key;
    size_t n;

    if (x.kind != JINJA_STR || y.kind != JINJA_STR)
        return (x.kind > y.kind) - (x.kind < y.kind);
    n = x.u.s->len < y.u.s->len ? x.u.s->len : y.u.s->len;
    const int c = n ? memcmp(x.u.s->at, y.u.s->at, n) : 0;
    return c ? c : (x.u.s->len > y.u.s->len) - (x.u.s->len < y.u.s->len);
}

static ew_status json_dict(struct writer *w, const struct jinja_dict *d)
{
    struct jinja_entry *e = d->e;

    if (w->json.sort_keys && d->n) {
        e = ew_arena_new(&w->r->arena, struct jinja_entry, d->n);
        if (!e)
            return jinja_no_memory(w->r);
        memcpy(e, d->e, d->n * sizeof(*e));
        qsort(e, d->n, sizeof(*e), entry_order);
    }
    ew_buf_putc(&w->buf, '{');
    for (size_t i = 0; i < d->n; i++) {
        if (i)
            ew_buf_puts(&w->buf, w->json.item_sep);
        w->depth++;
        json_newline(w);
        w->depth--;
        EW_TRY(json_key(w, e[i].key));
        ew_buf_puts(&w->buf, w->json.key_sep);
        EW_TRY(print_json(w, e[i].value));
    }
    if (d->n)
        json_newline(w);
    ew_buf_putc(&w->buf, '}');
    return EW_STATUS_OK;
}

static ew_status json_list(struct writer *w, const struct jinja_list *l)
{
    ew_buf_putc(&w->buf, '[');
    for (size_t i = 0; i < l->n; i++) {
        if (i)
            ew_buf_puts(&w->buf, w->json.item_sep);
        w->depth++;
        json_newline(w);
        w->depth--;
        EW_TRY(print_json(w, l->v[i]));
    }
    if (l->n)
        json_newline(w);
    ew_buf_putc(&w->buf, ']');
    return EW_STATUS_OK;
}

static ew_status print_json(struct writer *w, struct jinja_value v)
{
    ew_status st = enter(w);

    if (st)
        return st;
    switch (v.kind) {
    case JINJA_NONE:
        ew_buf_puts(&w->buf, "null");
        break;
    case JINJA_BOOL:
        ew_buf_puts(&w->buf, v.u.b ? "true" : "false");
        break;
    case JINJA_INT:
        ew_buf_printf(&w->buf, "%lld", (long long)v.u.i);
        break;
    case JINJA_FLOAT:
        print_float(&w->buf, v.u.f, true);
        break;
    case JINJA_STR:
        w->user |= jinja_str_any_user(v.u.s);
        json_escape(w, v.u.s);
        break;
    case JINJA_LIST:
        st = json_list(w, v.u.list);
        break;
    case JINJA_DICT:
        if (!v.u.dict->is_namespace) {
            st = json_dict(w, v.u.dict);
            break;
        }
        /* fall through */
    default:
        st = jinja_fail(w->r, EW_STATUS_MALFORMED, "Object of type %s is not JSON serializable",
                        jinja_type_text(v));
        break;
    }
    w->depth--;
    return st;
}

ew_status jinja_to_json(struct jinja_run *r, struct jinja_value v,
                        const struct jinja_json_opts *opts, struct jinja_value *out)
{
    struct writer w = { .r = r, .json = *opts };

    if (!w.json.item_sep)
        w.json.item_sep = w.json.indent < 0 ? ", " : ",";
    if (!w.json.key_sep)
        w.json.key_sep = ": ";
    ew_buf_init(&w.buf, EW_MEM_TEXT, MAX_TEXT);
    return finish(&w, print_json(&w, v), out);
}

static ew_status from_json(struct jinja_run *r, const json_t *j, bool clean, uint32_t depth,
                           struct jinja_value *out)
{
    static const struct jinja_str user = { .at = "u", .len = 1, .all_user = true };
    const char *key;
    json_t *item;
    size_t i;

    if (depth > r->caps.max_depth)
        return jinja_fail(r, EW_STATUS_LIMIT, "input nested deeper than %u", r->caps.max_depth);
    switch (json_typeof(j)) {
    case JSON_OBJECT:
        EW_TRY(jinja_dict_new(r, out));
        json_object_foreach((json_t *)(uintptr_t)j, key, item)
        {
            const size_t len = strlen(key);
            const bool token = depth == 0 && len > 6 && strcmp(key + len - 6, "_token") == 0;
            struct jinja_value k, v;
            EW_TRY(jinja_str_new(r, key, len, depth ? &user : NULL, &k));
            EW_TRY(from_json(r, item, token, depth + 1, &v));
            EW_TRY(jinja_dict_set(r, out->u.dict, k, v));
        }
        return EW_STATUS_OK;
    case JSON_ARRAY:
        EW_TRY(jinja_list_new(r, false, out));
        json_array_foreach(j, i, item)
        {
            struct jinja_value v;
            EW_TRY(from_json(r, item, clean, depth + 1, &v));
            EW_TRY(jinja_list_push(r, out->u.list, v));
        }
        return EW_STATUS_OK;
    case JSON_STRING:
        return jinja_str_new(r, json_string_value(j), json_string_length(j), clean ? NULL : &user,
                             out);
    case JSON_INTEGER:
        *out = jinja_int(json_integer_value(j));
        return EW_STATUS_OK;
    case JSON_REAL:
        *out = jinja_float(json_real_value(j));
        return EW_STATUS_OK;
    case JSON_TRUE:
    case JSON_FALSE:
        *out = jinja_bool(json_is_true(j));
        return EW_STATUS_OK;
    case JSON_NULL:
        break;
    }
    *out = jinja_none();
    return EW_STATUS_OK;
}

ew_status jinja_from_json(struct jinja_run *r, const char *text, struct jinja_value *out)
{
    json_t *j;
    ew_status st;

    EW_TRY(ew_json_parse(text, strlen(text), "template input", &j, r->err));
    st = json_is_object(j) ? from_json(r, j, false, 0, out)
                           : ew_fail(r->err, EW_STATUS_MALFORMED, "template input: not an object");
    json_decref(j);
    return st;
}

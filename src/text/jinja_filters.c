/* text/jinja_filters.c - "|" filters of single values; those that walk sequences are in
 * jinja_filters_seq.c. */
#include "text/jinja_filters.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/jinja_strings.h"

ew_status jinja_filter_str(struct jinja_run *r, struct jinja_value v, const struct jinja_str **out)
{
    struct jinja_value text;

    EW_TRY(jinja_to_str(r, v, &text));
    *out = text.u.s;
    return EW_STATUS_OK;
}

static ew_status need_defined(struct jinja_run *r, struct jinja_value v)
{
    return v.kind == JINJA_UNDEFINED
               ? jinja_fail(r, EW_STATUS_MALFORMED, "'%s' is undefined", v.u.missing)
               : EW_STATUS_OK;
}

static ew_status f_trim(struct jinja_run *r, struct jinja_value v, const struct jinja_call *call,
                        struct jinja_value *out)
{
    const struct jinja_str *s, *chars;

    EW_TRY(jinja_filter_str(r, v, &s));
    EW_TRY(jinja_arg_str(r, call, 0, "chars", &chars));
    return jinja_strip(r, s, chars, true, true, out);
}

static ew_status f_length(struct jinja_run *r, struct jinja_value v, const struct jinja_call *call,
                          struct jinja_value *out)
{
    (void)call;
    switch (v.kind) {
    case JINJA_STR:
        *out = jinja_int((int64_t)jinja_str_n_chars(v.u.s));
        return jinja_charge(r, v.u.s->len / 64);
    case JINJA_LIST:
        *out = jinja_int((int64_t)v.u.list->n);
        return EW_STATUS_OK;
    case JINJA_DICT:
        *out = jinja_int((int64_t)v.u.dict->n);
        return EW_STATUS_OK;
    case JINJA_UNDEFINED:
        *out = jinja_int(0);
        return EW_STATUS_OK;
    default:
        return jinja_fail(r, EW_STATUS_MALFORMED, "object of type '%s' has no len()",
                          jinja_type_text(v));
    }
}

static ew_status f_default(struct jinja_run *r, struct jinja_value v, const struct jinja_call *call,
                           struct jinja_value *out)
{
    const struct jinja_value fallback = jinja_arg_get(call, 0, "default_value");
    const bool if_false = jinja_truth(jinja_arg_get(call, 1, "boolean"));

    if (v.kind != JINJA_UNDEFINED && !(if_false && !jinja_truth(v))) {
        *out = v;
        return EW_STATUS_OK;
    }
    *out = fallback;
    return fallback.kind == JINJA_UNDEFINED && call->n == 0 ? jinja_str_new(r, "", 0, NULL, out)
                                                            : EW_STATUS_OK;
}

/* transformers' own tojson: json.dumps(x, ensure_ascii=False, indent=None, separators=None,
 * sort_keys=False). */
static ew_status f_tojson(struct jinja_run *r, struct jinja_value v, const struct jinja_call *call,
                          struct jinja_value *out)
{
    struct jinja_json_opts opts = { .indent = -1 };
    const struct jinja_value sep = jinja_arg_get(call, 2, "separators");
    int64_t indent;

    opts.ensure_ascii = jinja_truth(jinja_arg_get(call, 0, "ensure_ascii"));
    opts.sort_keys = jinja_truth(jinja_arg_get(call, 3, "sort_keys"));
    if (call->n && call->v[0].kind == JINJA_INT) { /* plain Jinja's first argument is indent */
        opts.ensure_ascii = false;
        EW_TRY(jinja_arg_int(r, call, 0, NULL, -1, &indent));
    } else {
        EW_TRY(jinja_arg_int(r, call, 1, "indent", -1, &indent));
    }
    opts.indent = indent > 64 ? 64 : (int)indent;
    if (sep.kind == JINJA_LIST && sep.u.list->n == 2 && sep.u.list->v[0].kind == JINJA_STR &&
        sep.u.list->v[1].kind == JINJA_STR) {
        opts.item_sep =
            ew_arena_strndup(&r->arena, sep.u.list->v[0].u.s->at, sep.u.list->v[0].u.s->len);
        opts.key_sep =
            ew_arena_strndup(&r->arena, sep.u.list->v[1].u.s->at, sep.u.list->v[1].u.s->len);
    }
    return jinja_to_json(r, v, &opts, out);
}

static ew_status f_string(struct jinja_run *r, struct jinja_value v, const struct jinja_call *call,
                          struct jinja_value *out)
{
    (void)call;
    return jinja_to_str(r, v, out);
}

static ew_status f_safe(struct jinja_run *r, struct jinja_value v, const struct jinja_call *call,
                        struct jinja_value *out)
{
    struct jinja_str *s;

    (void)call;
    EW_TRY(jinja_to_str(r, v, out));
    s = ew_arena_new(&r->arena, struct jinja_str, 1);
    if (!s)
        return jinja_no_memory(r);
    *s = *out->u.s;
    s->safe = true;
    out->u.s = s;
    return EW_STATUS_OK;
}

static ew_status f_escape(struct jinja_run *r, struct jinja_value v, const struct jinja_call *call,
                          struct jinja_value *out)
{
    static const char *const pairs[][2] = {
        { "&", "&amp;" }, { "<", "&lt;" }, { ">", "&gt;" }, { "'", "&#39;" }, { "\"", "&#34;" }
    };

    (void)call;
    EW_TRY(jinja_to_str(r, v, out));
    for (size_t i = 0; !out->u.s->safe && i < 5; i++) {
        const struct jinja_str from = { .at = pairs[i][0], .len = 1 };
        const struct jinja_str to = { .at = pairs[i][1], .len = strlen(pairs[i][1]) };
        EW_TRY(jinja_replace(r, out->u.s, &from, &to, -1, out));
    }
    return f_safe(r, *out, call, out);
}

static ew_status change_case(struct jinja_run *r, struct jinja_value v, const char *how,
                             struct jinja_value *out)
{
    const struct jinja_str *s;

    EW_TRY(jinja_filter_str(r, v, &s));
    return jinja_change_case(r, s, how, out);
}
static ew_status f_upper(struct jinja_run *r, struct jinja_value v, const struct jinja_call *call,
                         struct jinja_value *out)
{
    (void)call;
    return change_case(r, v, "upper", out);
}
static ew_status f_lower(struct jinja_run *r, struct jinja_value v, const struct jinja_call *call,
                         struct jinja_value *out)
{
    (void)call;
    return change_case(r, v, "lower", out);
}
static ew_status f_capitalize(struct jinja_run *r, struct jinja_value v,
                              const struct jinja_call *call, struct jinja_value *out)
{
    (void)call;
    return change_case(r, v, "capitalize", out);
}
static ew_status f_title(struct jinja_run *r, struct jinja_value v, const struct jinja_call *call,
                         struct jinja_value *out)
{
    (void)call;
    return change_case(r, v, "title", out);
}

static ew_status f_replace(struct jinja_run *r, struct jinja_value v, const struct jinja_call *call,
                           struct jinja_value *out)
{
    const struct jinja_str *s, *from, *to;
    int64_t n;

    EW_TRY(jinja_filter_str(r, v, &s));
    EW_TRY(jinja_filter_str(r, jinja_arg_get(call, 0, "old"), &from));
    EW_TRY(jinja_filter_str(r, jinja_arg_get(call, 1, "new"), &to));
    EW_TRY(jinja_arg_int(r, call, 2, "count", -1, &n));
    return jinja_replace(r, s, from, to, n, out);
}

static ew_status f_abs(struct jinja_run *r, struct jinja_value v, const struct jinja_call *call,
                       struct jinja_value *out)
{
    (void)call;
    if (!jinja_is_number(v))
        return jinja_fail(r, EW_STATUS_MALFORMED, "bad operand type for abs(): '%s'",
                          jinja_type_text(v));
    if (v.kind != JINJA_FLOAT)
        return jinja_as_i64(v) < 0 ? jinja_binary(r, "-", jinja_int(0), v, out)
                                   : jinja_binary(r, "+", jinja_int(0), v, out);
    *out = jinja_float(fabs(v.u.f));
    return EW_STATUS_OK;
}

/* int(x) with the filter's rule: what cannot be converted is the default. */
static ew_status f_int(struct jinja_run *r, struct jinja_value v, const struct jinja_call *call,
                       struct jinja_value *out)
{
    char text[64], *end;
    int64_t base;

    *out = jinja_arg_get(call, 0, "default");
    if (out->kind == JINJA_UNDEFINED)
        *out = jinja_int(0);
    EW_TRY(jinja_arg_int(r, call, 1, "base", 10, &base));
    if (v.kind == JINJA_INT || v.kind == JINJA_BOOL) {
        *out = jinja_int(jinja_as_i64(v));
    } else if (v.kind == JINJA_FLOAT && fabs(v.u.f) < 0x1p63) {
        *out = jinja_int((int64_t)v.u.f);
    } else if (v.kind == JINJA_STR && v.u.s->len && v.u.s->len < sizeof(text) && base >= 2 &&
               base <= 36) {
        memcpy(text, v.u.s->at, v.u.s->len);
        text[v.u.s->len] = '\0';
        errno = 0;
        const int64_t i = strtoll(text, &end, (int)base);
        end += strspn(end, " \t\n");
        if (*end == '\0' && !errno) {
            *out = jinja_int(i);
        } else {
            const double d = strtod(text, &end);
            if (end != text && *end == '\0' && fabs(d) < 0x1p63)
                *out = jinja_int((int64_t)d);
        }
    }
    return EW_STATUS_OK;
}

static ew_status f_float(struct jinja_run *r, struct jinja_value v, const struct jinja_call *call,
                         struct jinja_value *out)
{
    char text[64], *end;

    (void)r;
    *out = jinja_arg_get(call, 0, "default");
    if (out->kind == JINJA_UNDEFINED)
        *out = jinja_float(0);
    if (jinja_is_number(v)) {
        *out = jinja_float(jinja_as_f64(v));
    } else if (v.kind == JINJA_STR && v.u.s->len && v.u.s->len < sizeof(text)) {
        memcpy(text, v.u.s->at, v.u.s->len);
        text[v.u.s->len] = '\0';
        const double d = strtod(text, &end);
        end += strspn(end, " \t\n");
        if (end != text && *end == '\0')
            *out = jinja_float(d);
    }
    return EW_STATUS_OK;
}

static ew_status f_round(struct jinja_run *r, struct jinja_value v, const struct jinja_call *call,
                         struct jinja_value *out)
{
    const struct jinja_str *method;
    int64_t digits;

    EW_TRY(jinja_arg_int(r, call, 0, "precision", 0, &digits));
    EW_TRY(jinja_arg_str(r, call, 1, "method", &method));
    if (!jinja_is_number(v) || digits > 300 || digits < -300)
        return jinja_fail(r, EW_STATUS_MALFORMED, "round needs a number, not %s",
                          jinja_type_text(v));
    const double scale = pow(10, (double)digits), x = jinja_as_f64(v) * scale;
    const double whole = method && jinja_str_is(method, "ceil")    ? ceil(x)
                         : method && jinja_str_is(method, "floor") ? floor(x)
                                                                   : nearbyint(x);
    *out = jinja_float(whole / scale);
    return EW_STATUS_OK;
}

/* Lines after the first (and blank ones only on request) get `width` blanks in front. */
static ew_status f_indent(struct jinja_run *r, struct jinja_value v, const struct jinja_call *call,
                          struct jinja_value *out)
{
    const struct jinja_value width = jinja_arg_get(call, 0, "width");
    const bool first = jinja_truth(jinja_arg_get(call, 1, "first")),
               blank = jinja_truth(jinja_arg_get(call, 2, "blank"));
    struct jinja_value pad, lines, line;
    const struct jinja_str *s;

    EW_TRY(jinja_filter_str(r, v, &s));
    if (width.kind == JINJA_STR) {
        pad = width;
    } else {
        EW_TRY(jinja_str_new(r, " ", 1, NULL, &pad));
        EW_TRY(jinja_binary(r, "*", pad, jinja_int(width.kind == JINJA_INT ? width.u.i : 4), &pad));
    }
    const struct jinja_str newline = { .at = "\n", .len = 1 };
    EW_TRY(jinja_split(r, s, &newline, -1, false, &lines));
    for (size_t i = 0; i < lines.u.list->n; i++) {
        line = lines.u.list->v[i];
        if (i == 0 ? first : blank || line.u.s->len > 0)
            EW_TRY(jinja_binary(r, "+", pad, line, &lines.u.list->v[i]));
    }
    return jinja_join(r, &newline, lines, true, out);
}

static ew_status f_attr(struct jinja_run *r, struct jinja_value v, const struct jinja_call *call,
                        struct jinja_value *out)
{
    const struct jinja_str *name;

    EW_TRY(need_defined(r, v));
    EW_TRY(jinja_filter_str(r, jinja_arg_get(call, 0, "name"), &name));
    const char *const text = ew_arena_strndup(&r->arena, name->at, name->len);
    return text ? jinja_get_attr(r, v, text, name->len, out) : jinja_no_memory(r);
}

static ew_status f_wordcount(struct jinja_run *r, struct jinja_value v,
                             const struct jinja_call *call, struct jinja_value *out)
{
    const struct jinja_str *s;
    struct jinja_value words;

    (void)call;
    EW_TRY(jinja_filter_str(r, v, &s));
    EW_TRY(jinja_split(r, s, NULL, -1, false, &words));
    *out = jinja_int((int64_t)words.u.list->n);
    return EW_STATUS_OK;
}

static const struct jinja_filter filters[] = {
    { "trim", f_trim },
    { "length", f_length },
    { "count", f_length },
    { "default", f_default },
    { "d", f_default },
    { "tojson", f_tojson },
    { "string", f_string },
    { "safe", f_safe },
    { "escape", f_escape },
    { "e", f_escape },
    { "upper", f_upper },
    { "lower", f_lower },
    { "title", f_title },
    { "replace", f_replace },
    { "capitalize", f_capitalize },
    { "abs", f_abs },
    { "int", f_int },
    { "float", f_float },
    { "round", f_round },
    { "indent", f_indent },
    { "attr", f_attr },
    { "wordcount", f_wordcount },
};

ew_status jinja_apply_filter(struct jinja_run *r, const char *name, struct jinja_value v,
                             const struct jinja_call *call, struct jinja_value *out)
{
    for (size_t i = 0; i < sizeof(filters) / sizeof(filters[0]); i++)
        if (strcmp(filters[i].name, name) == 0)
            return filters[i].fn(r, v, call, out);
    for (const struct jinja_filter *f = jinja_sequence_filters; f->name; f++)
        if (strcmp(f->name, name) == 0)
            return f->fn(r, v, call, out);
    return jinja_fail(r, EW_STATUS_UNSUPPORTED, "no filter named '%s'", name);
}

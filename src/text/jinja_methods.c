/* text/jinja_methods.c - methods of strings, dicts and lists. What Python's sandbox forbids
 * (append, update...) is refused. */
#include <ctype.h>
#include <string.h>
#include <utf8proc.h>

#include "base/buf.h"
#include "text/jinja_eval.h"
#include "text/jinja_strings.h"

static const char *const str_methods[] = {
    "strip",        "lstrip",       "rstrip",  "split",     "rsplit",    "splitlines",
    "startswith",   "endswith",     "upper",   "lower",     "title",     "capitalize",
    "replace",      "find",         "rfind",   "index",     "count",     "join",
    "isdigit",      "isalpha",      "isalnum", "isspace",   "isupper",   "islower",
    "removeprefix", "removesuffix", "zfill",   "isnumeric", "isdecimal", "swapcase",
    "partition",    "rpartition",   NULL
};
static const char *const dict_methods[] = { "get", "items", "keys", "values", NULL };
static const char *const list_methods[] = { "index", "count", NULL };
static const char *const forbidden[] = { "append",  "extend", "insert",     "pop",    "remove",
                                         "clear",   "sort",   "reverse",    "update", "setdefault",
                                         "popitem", "format", "format_map", "encode", NULL };

static bool listed(const char *const *names, const char *name)
{
    for (; *names; names++)
        if (strcmp(*names, name) == 0)
            return true;
    return false;
}

bool jinja_method_exists(struct jinja_value self, const char *name)
{
    switch (self.kind) {
    case JINJA_STR:
        return listed(str_methods, name) || strcmp(name, "format") == 0 ||
               strcmp(name, "encode") == 0;
    case JINJA_DICT:
        return listed(dict_methods, name) ||
               (listed(forbidden, name) && (name[0] == 'u' || strncmp(name, "pop", 3) == 0 ||
                                            strcmp(name, "setdefault") == 0));
    case JINJA_LIST:
        return listed(list_methods, name) ||
               (listed(forbidden, name) && name[0] != 'u' && name[0] != 'f');
    default:
        return false;
    }
}

/* ---- strings ---- */

static ew_status need_str(struct jinja_run *r, const struct jinja_call *call, size_t i,
                          const char *what, const struct jinja_str **out)
{
    EW_TRY(jinja_arg_str(r, call, i, NULL, out));
    return *out ? EW_STATUS_OK : jinja_fail(r, EW_STATUS_MALFORMED, "%s needs a string", what);
}

static ew_status str_affix(struct jinja_run *r, const struct jinja_str *s, const char *name,
                           const struct jinja_call *call, struct jinja_value *out)
{
    const struct jinja_value arg = jinja_arg_get(call, 0, NULL);
    const bool front = name[0] == 's';
    const size_t n = arg.kind == JINJA_LIST ? arg.u.list->n : 1;
    bool hit = false;

    for (size_t i = 0; i < n && !hit; i++) {
        const struct jinja_value v = arg.kind == JINJA_LIST ? arg.u.list->v[i] : arg;
        if (v.kind != JINJA_STR || (arg.kind == JINJA_LIST && !arg.u.list->tuple))
            return jinja_fail(r, EW_STATUS_MALFORMED,
                              "%s first arg must be str or a tuple of str, not %s", name,
                              jinja_type_text(arg));
        const size_t len = v.u.s->len;
        hit = len <= s->len && memcmp(s->at + (front ? 0 : s->len - len), v.u.s->at, len) == 0;
    }
    *out = jinja_bool(hit);
    return EW_STATUS_OK;
}

static ew_status str_find(struct jinja_run *r, const struct jinja_str *s, const char *name,
                          const struct jinja_call *call, struct jinja_value *out)
{
    const struct jinja_str *what;
    size_t at = SIZE_MAX;

    EW_TRY(need_str(r, call, 0, name, &what));
    EW_TRY(jinja_charge(r, s->len / 64));
    if (name[0] == 'r') {
        for (size_t i = s->len + 1; i-- > 0 && at == SIZE_MAX;)
            if (i + what->len <= s->len && memcmp(s->at + i, what->at, what->len) == 0)
                at = i;
    } else {
        const char *const hit = what->len ? memmem(s->at, s->len, what->at, what->len) : s->at;
        at = hit ? (size_t)(hit - s->at) : SIZE_MAX;
    }
    if (at == SIZE_MAX && name[0] == 'i')
        return jinja_fail(r, EW_STATUS_MALFORMED, "substring not found");
    const struct jinja_str head = { .at = s->at, .len = at };
    *out = jinja_int(at == SIZE_MAX ? -1 : (int64_t)jinja_str_n_chars(&head));
    return EW_STATUS_OK;
}

static ew_status str_count(struct jinja_run *r, const struct jinja_str *s,
                           const struct jinja_call *call, struct jinja_value *out)
{
    const struct jinja_str *what;
    int64_t n = 0;

    EW_TRY(need_str(r, call, 0, "count", &what));
    EW_TRY(jinja_charge(r, s->len / 64));
    if (what->len == 0) {
        *out = jinja_int((int64_t)jinja_str_n_chars(s) + 1);
        return EW_STATUS_OK;
    }
    for (size_t at = 0; at < s->len;) {
        const char *const hit = memmem(s->at + at, s->len - at, what->at, what->len);
        if (!hit)
            break;
        n++;
        at = (size_t)(hit - s->at) + what->len;
    }
    *out = jinja_int(n);
    return EW_STATUS_OK;
}

static ew_status str_trim_affix(struct jinja_run *r, const struct jinja_str *s, const char *name,
                                const struct jinja_call *call, struct jinja_value *out)
{
    const struct jinja_str *what;
    const bool front = strcmp(name, "removeprefix") == 0;

    EW_TRY(need_str(r, call, 0, name, &what));
    if (what->len > s->len ||
        memcmp(s->at + (front ? 0 : s->len - what->len), what->at, what->len) != 0)
        return jinja_str_sub(r, s, 0, s->len, out);
    return front ? jinja_str_sub(r, s, what->len, s->len, out)
                 : jinja_str_sub(r, s, 0, s->len - what->len, out);
}

/* str.is*(): every character of a class, at least one. */
static ew_status str_class(const struct jinja_str *s, const char *name, struct jinja_value *out)
{
    bool any = false, all = s->len > 0;

    for (size_t at = 0; at < s->len && all;) {
        utf8proc_int32_t cp;
        const utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)s->at + at,
                                                    (utf8proc_ssize_t)(s->len - at), &cp);
        if (n <= 0)
            break;
        at += (size_t)n;
        const utf8proc_category_t c = utf8proc_category(cp);
        const bool alpha = c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO;
        const bool digit = c == UTF8PROC_CATEGORY_ND;
        const bool space = c == UTF8PROC_CATEGORY_ZS || (cp >= 9 && cp <= 13) ||
                           (cp >= 0x1c && cp <= 0x1f) || cp == 0x85;
        if (strcmp(name, "isupper") == 0) {
            all = c != UTF8PROC_CATEGORY_LL && c != UTF8PROC_CATEGORY_LT;
            any |= c == UTF8PROC_CATEGORY_LU;
        } else if (strcmp(name, "islower") == 0) {
            all = c != UTF8PROC_CATEGORY_LU && c != UTF8PROC_CATEGORY_LT;
            any |= c == UTF8PROC_CATEGORY_LL;
        } else {
            all = strcmp(name, "isalpha") == 0   ? alpha
                  : strcmp(name, "isalnum") == 0 ? alpha || digit
                  : strcmp(name, "isspace") == 0 ? space
                                                 : digit;
            any = true;
        }
    }
    *out = jinja_bool(all && any);
    return EW_STATUS_OK;
}

static ew_status str_zfill(struct jinja_run *r, const struct jinja_str *s,
                           const struct jinja_call *call, struct jinja_value *out)
{
    const bool sign = s->len && (s->at[0] == '-' || s->at[0] == '+');
    struct jinja_value zeros, head, tail;
    int64_t width;

    EW_TRY(jinja_arg_int(r, call, 0, "width", 0, &width));
    const int64_t missing = width - (int64_t)jinja_str_n_chars(s);
    EW_TRY(jinja_str_new(r, "0", 1, s, &zeros));
    EW_TRY(jinja_binary(r, "*", zeros, jinja_int(missing), &zeros));
    EW_TRY(jinja_str_sub(r, s, 0, sign, &head));
    EW_TRY(jinja_str_sub(r, s, sign, s->len, &tail));
    const struct jinja_str *const parts[3] = { head.u.s, zeros.u.s, tail.u.s };
    return jinja_str_concat(r, parts, 3, out);
}

static ew_status str_partition(struct jinja_run *r, const struct jinja_str *s, const char *name,
                               const struct jinja_call *call, struct jinja_value *out)
{
    const struct jinja_str *sep;
    struct jinja_value parts[3];
    size_t at = SIZE_MAX;

    EW_TRY(need_str(r, call, 0, name, &sep));
    if (sep->len == 0)
        return jinja_fail(r, EW_STATUS_MALFORMED, "empty separator");
    for (size_t i = 0; i + sep->len <= s->len; i++)
        if (memcmp(s->at + i, sep->at, sep->len) == 0) {
            at = i;
            if (name[0] == 'p')
                break;
        }
    const bool found = at != SIZE_MAX;
    const size_t cut = found ? at : name[0] == 'p' ? s->len : 0;
    const size_t after = found ? at + sep->len : cut;
    EW_TRY(jinja_str_sub(r, s, 0, cut, &parts[0]));
    EW_TRY(jinja_str_sub(r, s, cut, after, &parts[1]));
    EW_TRY(jinja_str_sub(r, s, after, s->len, &parts[2]));
    EW_TRY(jinja_list_new(r, true, out));
    for (int i = 0; i < 3; i++)
        EW_TRY(jinja_list_push(r, out->u.list, parts[i]));
    return EW_STATUS_OK;
}

static ew_status call_str(struct jinja_run *r, const struct jinja_str *s, const char *name,
                          const struct jinja_call *call, struct jinja_value *out)
{
    const struct jinja_str *a, *b;
    int64_t n;

    if (strcmp(name, "strip") == 0 || strcmp(name, "lstrip") == 0 || strcmp(name, "rstrip") == 0) {
        EW_TRY(jinja_arg_str(r, call, 0, "chars", &a));
        return jinja_strip(r, s, a, name[0] != 'r', name[0] != 'l', out);
    }
    if (strcmp(name, "split") == 0 || strcmp(name, "rsplit") == 0) {
        EW_TRY(jinja_arg_str(r, call, 0, "sep", &a));
        EW_TRY(jinja_arg_int(r, call, 1, "maxsplit", -1, &n));
        return jinja_split(r, s, a, n, name[0] == 'r', out);
    }
    if (strcmp(name, "splitlines") == 0)
        return jinja_split_lines(r, s, jinja_truth(jinja_arg_get(call, 0, "keepends")), out);
    if (strcmp(name, "replace") == 0) {
        EW_TRY(need_str(r, call, 0, name, &a));
        EW_TRY(need_str(r, call, 1, name, &b));
        EW_TRY(jinja_arg_int(r, call, 2, "count", -1, &n));
        return jinja_replace(r, s, a, b, n, out);
    }
    if (strcmp(name, "join") == 0)
        return jinja_join(r, s, jinja_arg_get(call, 0, NULL), true, out);
    if (strcmp(name, "startswith") == 0 || strcmp(name, "endswith") == 0)
        return str_affix(r, s, name, call, out);
    if (strcmp(name, "find") == 0 || strcmp(name, "rfind") == 0 || strcmp(name, "index") == 0)
        return str_find(r, s, name, call, out);
    if (strcmp(name, "count") == 0)
        return str_count(r, s, call, out);
    if (strncmp(name, "is", 2) == 0)
        return str_class(s, name, out);
    if (strncmp(name, "remove", 6) == 0)
        return str_trim_affix(r, s, name, call, out);
    if (strcmp(name, "zfill") == 0)
        return str_zfill(r, s, call, out);
    if (strcmp(name, "partition") == 0 || strcmp(name, "rpartition") == 0)
        return str_partition(r, s, name, call, out);
    return jinja_change_case(r, s, name, out);
}

/* ---- dicts and lists ---- */

static ew_status call_dict(struct jinja_run *r, const struct jinja_dict *d, const char *name,
                           const struct jinja_call *call, struct jinja_value *out)
{
    struct jinja_value pair;

    if (strcmp(name, "get") == 0) {
        const struct jinja_value fallback = jinja_arg_get(call, 1, "default");
        if (!jinja_dict_find(d, jinja_arg_get(call, 0, "key"), out))
            *out = fallback.kind == JINJA_UNDEFINED ? jinja_none() : fallback;
        return EW_STATUS_OK;
    }
    EW_TRY(jinja_list_new(r, false, out));
    for (size_t i = 0; i < d->n; i++) {
        struct jinja_value item = name[0] == 'k' ? d->e[i].key : d->e[i].value;
        if (name[0] == 'i') {
            EW_TRY(jinja_list_new(r, true, &pair));
            EW_TRY(jinja_list_push(r, pair.u.list, d->e[i].key));
            EW_TRY(jinja_list_push(r, pair.u.list, d->e[i].value));
            item = pair;
        }
        EW_TRY(jinja_list_push(r, out->u.list, item));
    }
    return jinja_charge(r, d->n / 8);
}

static ew_status call_list(struct jinja_run *r, const struct jinja_list *l, const char *name,
                           const struct jinja_call *call, struct jinja_value *out)
{
    const struct jinja_value what = jinja_arg_get(call, 0, NULL);
    int64_t n = 0;

    EW_TRY(jinja_charge(r, l->n / 8));
    for (size_t i = 0; i < l->n; i++) {
        const bool same = jinja_equal(l->v[i], what, 0);
        if (same && name[0] == 'i') {
            *out = jinja_int((int64_t)i);
            return EW_STATUS_OK;
        }
        n += same;
    }
    if (name[0] == 'i')
        return jinja_fail(r, EW_STATUS_MALFORMED, "value is not in list");
    *out = jinja_int(n);
    return EW_STATUS_OK;
}

ew_status jinja_call_method(struct jinja_run *r, const struct jinja_method *m,
                            const struct jinja_call *call, struct jinja_value *out)
{
    const bool ok = (m->self.kind == JINJA_STR && listed(str_methods, m->name)) ||
                    (m->self.kind == JINJA_DICT && listed(dict_methods, m->name)) ||
                    (m->self.kind == JINJA_LIST && listed(list_methods, m->name));

    if (!ok)
        return jinja_fail(r, EW_STATUS_UNSUPPORTED, "%s.%s() is not allowed in a template",
                          jinja_type_text(m->self), m->name);
    if (m->self.kind == JINJA_STR)
        return call_str(r, m->self.u.s, m->name, call, out);
    if (m->self.kind == JINJA_DICT)
        return call_dict(r, m->self.u.dict, m->name, call, out);
    return call_list(r, m->self.u.list, m->name, call, out);
}

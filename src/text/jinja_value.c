/* text/jinja_value.c - making, comparing and indexing values. Printing them is jinja_print.c's. */
#include "text/jinja_value.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

ew_status jinja_fail(struct jinja_run *r, ew_status s, const char *fmt, ...)
{
    char text[600];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    return ew_fail(r->err, s, "%s: line %d: %s", r->template_name, r->line, text);
}

ew_status jinja_no_memory(struct jinja_run *r)
{
    if (r->arena.cap_bytes && r->arena.used_bytes > r->arena.cap_bytes / 2)
        return jinja_fail(r, EW_STATUS_LIMIT, "the template uses more than %zu bytes of memory",
                          r->arena.cap_bytes);
    return jinja_fail(r, EW_STATUS_NO_MEMORY, "out of memory");
}

ew_status jinja_charge(struct jinja_run *r, uint64_t steps)
{
    r->steps += steps;
    if (r->steps > r->caps.max_steps)
        return jinja_fail(r, EW_STATUS_LIMIT, "the template takes more than %llu steps",
                          (unsigned long long)r->caps.max_steps);
    return EW_STATUS_OK;
}

ew_status jinja_str_new(struct jinja_run *r, const char *at, size_t len,
                        const struct jinja_str *like, struct jinja_value *out)
{
    struct jinja_str *const s = ew_arena_alloc(&r->arena, sizeof(*s));
    char *const copy = ew_arena_strndup(&r->arena, at, len);

    if (!s || !copy)
        return jinja_no_memory(r);
    *s = (struct jinja_str){ .at = copy, .len = len, .all_user = like && jinja_str_any_user(like) };
    *out = (struct jinja_value){ .kind = JINJA_STR, .u.s = s };
    return jinja_charge(r, len / 64);
}

ew_status jinja_str_sub(struct jinja_run *r, const struct jinja_str *s, size_t begin, size_t end,
                        struct jinja_value *out)
{
    struct jinja_str *const sub = ew_arena_alloc(&r->arena, sizeof(*sub));

    if (!sub)
        return jinja_no_memory(r);
    *sub = (struct jinja_str){ .at = s->at + begin,
                               .len = end - begin,
                               .user = s->user ? s->user + begin : NULL,
                               .all_user = s->all_user,
                               .safe = s->safe };
    *out = (struct jinja_value){ .kind = JINJA_STR, .u.s = sub };
    return EW_STATUS_OK;
}

bool jinja_str_user_at(const struct jinja_str *s, size_t i)
{
    return s->user ? s->user[i] != 0 : s->all_user;
}

bool jinja_str_any_user(const struct jinja_str *s)
{
    return s->user ? memchr(s->user, 1, s->len) != NULL : s->all_user && s->len > 0;
}

/* One mark for the whole when all parts agree; a byte map otherwise. */
ew_status jinja_str_concat(struct jinja_run *r, const struct jinja_str *const *parts, size_t n,
                           struct jinja_value *out)
{
    struct jinja_str *const s = ew_arena_alloc(&r->arena, sizeof(*s));
    uint8_t *user = NULL;
    size_t len = 0;
    bool any_user = false, any_clean = false;
    char *bytes;

    for (size_t i = 0; i < n; i++) {
        len += parts[i]->len;
        any_user |= parts[i]->len && (parts[i]->user || parts[i]->all_user);
        any_clean |= parts[i]->len && (parts[i]->user || !parts[i]->all_user);
    }
    EW_TRY(jinja_charge(r, len / 64));
    bytes = ew_arena_alloc(&r->arena, len + 1);
    if (any_user && any_clean)
        user = ew_arena_alloc(&r->arena, len + 1);
    if (!s || !bytes || (any_user && any_clean && !user))
        return jinja_no_memory(r);
    *s = (struct jinja_str){ .at = bytes, .len = len, .user = user, .all_user = any_user };
    for (size_t i = 0, at = 0; i < n; at += parts[i]->len, i++) {
        const struct jinja_str *const p = parts[i];
        if (p->len)
            memcpy(bytes + at, p->at, p->len);
        if (user && p->user && p->len)
            memcpy(user + at, p->user, p->len);
        else if (user)
            memset(user + at, p->all_user, p->len);
    }
    *out = (struct jinja_value){ .kind = JINJA_STR, .u.s = s };
    return EW_STATUS_OK;
}

bool jinja_str_is(const struct jinja_str *s, const char *text)
{
    return s->len == strlen(text) && memcmp(s->at, text, s->len) == 0;
}

size_t jinja_str_n_chars(const struct jinja_str *s)
{
    size_t n = 0;

    for (size_t i = 0; i < s->len; i++)
        n += ((unsigned char)s->at[i] & 0xc0) != 0x80;
    return n;
}

size_t jinja_str_char_off(const struct jinja_str *s, size_t i_char)
{
    size_t n = 0;

    for (size_t i = 0; i < s->len; i++) {
        if (((unsigned char)s->at[i] & 0xc0) == 0x80)
            continue;
        if (n++ == i_char)
            return i;
    }
    return s->len;
}

ew_status jinja_list_new(struct jinja_run *r, bool tuple, struct jinja_value *out)
{
    struct jinja_list *const l = ew_arena_alloc(&r->arena, sizeof(*l));

    if (!l)
        return jinja_no_memory(r);
    l->tuple = tuple;
    *out = (struct jinja_value){ .kind = JINJA_LIST, .u.list = l };
    return EW_STATUS_OK;
}

ew_status jinja_list_push(struct jinja_run *r, struct jinja_list *l, struct jinja_value v)
{
    if (l->n == l->cap) {
        const size_t cap = l->cap ? l->cap * 2 : 8;
        struct jinja_value *const more = ew_arena_new(&r->arena, struct jinja_value, cap);
        if (!more)
            return jinja_no_memory(r);
        if (l->n)
            memcpy(more, l->v, l->n * sizeof(*more));
        l->v = more;
        l->cap = cap;
    }
    l->v[l->n++] = v;
    return EW_STATUS_OK;
}

ew_status jinja_dict_new(struct jinja_run *r, struct jinja_value *out)
{
    struct jinja_dict *const d = ew_arena_alloc(&r->arena, sizeof(*d));

    if (!d)
        return jinja_no_memory(r);
    *out = (struct jinja_value){ .kind = JINJA_DICT, .u.dict = d };
    return EW_STATUS_OK;
}

/* Linear: dicts of templates have a handful of keys; long ones are paid for in steps. */
static struct jinja_entry *find_entry(const struct jinja_dict *d, struct jinja_value key)
{
    for (size_t i = 0; i < d->n; i++)
        if (jinja_equal(d->e[i].key, key, 0))
            return &d->e[i];
    return NULL;
}

ew_status jinja_dict_set(struct jinja_run *r, struct jinja_dict *d, struct jinja_value key,
                         struct jinja_value v)
{
    struct jinja_entry *e;

    if (key.kind == JINJA_LIST && !key.u.list->tuple)
        return jinja_fail(r, EW_STATUS_MALFORMED, "unhashable type: 'list'");
    if (key.kind == JINJA_DICT)
        return jinja_fail(r, EW_STATUS_MALFORMED, "unhashable type: 'dict'");
    EW_TRY(jinja_charge(r, d->n / 16));
    e = find_entry(d, key);
    if (e) {
        e->value = v;
        return EW_STATUS_OK;
    }
    if (d->n == d->cap) {
        const size_t cap = d->cap ? d->cap * 2 : 8;
        struct jinja_entry *const more = ew_arena_new(&r->arena, struct jinja_entry, cap);
        if (!more)
            return jinja_no_memory(r);
        if (d->n)
            memcpy(more, d->e, d->n * sizeof(*more));
        d->e = more;
        d->cap = cap;
    }
    d->e[d->n++] = (struct jinja_entry){ key, v };
    return EW_STATUS_OK;
}

bool jinja_dict_find(const struct jinja_dict *d, struct jinja_value key, struct jinja_value *out)
{
    const struct jinja_entry *const e = find_entry(d, key);

    if (e)
        *out = e->value;
    return e != NULL;
}

bool jinja_dict_find_text(const struct jinja_dict *d, const char *key, size_t len,
                          struct jinja_value *out)
{
    const struct jinja_str s = { .at = key, .len = len };

    return jinja_dict_find(d, (struct jinja_value){ .kind = JINJA_STR, .u.s = &s }, out);
}

bool jinja_truth(struct jinja_value v)
{
    switch (v.kind) {
    case JINJA_UNDEFINED:
    case JINJA_NONE:
        return false;
    case JINJA_BOOL:
        return v.u.b;
    case JINJA_INT:
        return v.u.i != 0;
    case JINJA_FLOAT:
        return v.u.f != 0;
    case JINJA_STR:
        return v.u.s->len > 0;
    case JINJA_LIST:
        return v.u.list->n > 0;
    case JINJA_DICT:
        return v.u.dict->is_namespace || v.u.dict->n > 0;
    case JINJA_MACRO:
    case JINJA_FUNC:
    case JINJA_METHOD:
        break;
    }
    return true;
}

bool jinja_is_number(struct jinja_value v)
{
    return v.kind == JINJA_INT || v.kind == JINJA_FLOAT || v.kind == JINJA_BOOL;
}

double jinja_as_f64(struct jinja_value v)
{
    return v.kind == JINJA_FLOAT ? v.u.f : (double)jinja_as_i64(v);
}

int64_t jinja_as_i64(struct jinja_value v)
{
    return v.kind == JINJA_BOOL ? v.u.b : v.kind == JINJA_INT ? v.u.i : 0;
}

static bool lists_equal(const struct jinja_list *a, const struct jinja_list *b, uint32_t depth)
{
    if (a->n != b->n || a->tuple != b->tuple)
        return false;
    for (size_t i = 0; i < a->n; i++)
        if (!jinja_equal(a->v[i], b->v[i], depth))
            return false;
    return true;
}

static bool dicts_equal(const struct jinja_dict *a, const struct jinja_dict *b, uint32_t depth)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++) {
        struct jinja_value v;
        if (!jinja_dict_find(b, a->e[i].key, &v) || !jinja_equal(a->e[i].value, v, depth))
            return false;
    }
    return true;
}

bool jinja_equal(struct jinja_value a, struct jinja_value b, uint32_t depth)
{
    if (depth > 100)
        return false;
    if (jinja_is_number(a) && jinja_is_number(b)) {
        if (a.kind == JINJA_FLOAT || b.kind == JINJA_FLOAT)
            return jinja_as_f64(a) == jinja_as_f64(b);
        return jinja_as_i64(a) == jinja_as_i64(b);
    }
    if (a.kind != b.kind)
        return false;
    switch (a.kind) {
    case JINJA_UNDEFINED:
    case JINJA_NONE:
        return true;
    case JINJA_STR:
        return a.u.s->len == b.u.s->len && memcmp(a.u.s->at, b.u.s->at, a.u.s->len) == 0;
    case JINJA_LIST:
        return a.u.list == b.u.list || lists_equal(a.u.list, b.u.list, depth + 1);
    case JINJA_DICT:
        return a.u.dict == b.u.dict || dicts_equal(a.u.dict, b.u.dict, depth + 1);
    case JINJA_MACRO:
        return a.u.macro == b.u.macro;
    case JINJA_FUNC:
        return a.u.func == b.u.func;
    default:
        return a.u.method == b.u.method;
    }
}

static int sign_of(int64_t a, int64_t b)
{
    return (a > b) - (a < b);
}

static ew_status compare_lists(struct jinja_run *r, const struct jinja_list *a,
                               const struct jinja_list *b, int *out)
{
    for (size_t i = 0; i < a->n && i < b->n; i++) {
        if (jinja_equal(a->v[i], b->v[i], 0))
            continue;
        if (++r->depth > r->caps.max_depth)
            return jinja_fail(r, EW_STATUS_LIMIT, "lists nested deeper than %u", r->caps.max_depth);
        const ew_status st = jinja_compare(r, a->v[i], b->v[i], out);
        r->depth--;
        return st;
    }
    *out = sign_of((int64_t)a->n, (int64_t)b->n);
    return EW_STATUS_OK;
}

ew_status jinja_compare(struct jinja_run *r, struct jinja_value a, struct jinja_value b, int *out)
{
    EW_TRY(jinja_charge(r, 1));
    if (jinja_is_number(a) && jinja_is_number(b)) {
        const double x = jinja_as_f64(a), y = jinja_as_f64(b);
        if (a.kind != JINJA_FLOAT && b.kind != JINJA_FLOAT)
            *out = sign_of(jinja_as_i64(a), jinja_as_i64(b));
        else
            *out = isnan(x) || isnan(y) ? 2 : (x > y) - (x < y);
        return EW_STATUS_OK;
    }
    if (a.kind == JINJA_STR && b.kind == JINJA_STR) {
        const size_t n = a.u.s->len < b.u.s->len ? a.u.s->len : b.u.s->len;
        const int c = n ? memcmp(a.u.s->at, b.u.s->at, n) : 0; /* UTF-8 sorts as code points do */
        *out = c ? (c > 0) - (c < 0) : sign_of((int64_t)a.u.s->len, (int64_t)b.u.s->len);
        return EW_STATUS_OK;
    }
    if (a.kind == JINJA_LIST && b.kind == JINJA_LIST && a.u.list->tuple == b.u.list->tuple)
        return compare_lists(r, a.u.list, b.u.list, out);
    if (a.kind == JINJA_UNDEFINED || b.kind == JINJA_UNDEFINED)
        return jinja_fail(r, EW_STATUS_MALFORMED, "'%s' is undefined",
                          a.kind == JINJA_UNDEFINED ? a.u.missing : b.u.missing);
    return jinja_fail(r, EW_STATUS_MALFORMED,
                      "'<' not supported between instances of '%s' and '%s'", jinja_type_text(a),
                      jinja_type_text(b));
}

const char *jinja_type_text(struct jinja_value v)
{
    switch (v.kind) {
    case JINJA_UNDEFINED:
        return "Undefined";
    case JINJA_NONE:
        return "NoneType";
    case JINJA_BOOL:
        return "bool";
    case JINJA_INT:
        return "int";
    case JINJA_FLOAT:
        return "float";
    case JINJA_STR:
        return "str";
    case JINJA_LIST:
        return v.u.list->tuple ? "tuple" : "list";
    case JINJA_DICT:
        return v.u.dict->is_namespace ? "Namespace" : "dict";
    case JINJA_MACRO:
        return "Macro";
    case JINJA_FUNC:
    case JINJA_METHOD:
        break;
    }
    return "function";
}

/* text/jinja_filters_seq.c - filters over sequences and mappings. */
#include <string.h>

#include "text/jinja_filters.h"
#include "text/jinja_strings.h"

/* "a.b.0" from an item. */
static ew_status get_path(struct jinja_run *r, struct jinja_value v, struct jinja_value path,
                          struct jinja_value *out)
{
    struct jinja_value parts, key;
    const struct jinja_str dot = { .at = ".", .len = 1 };

    *out = v;
    if (path.kind == JINJA_INT)
        return jinja_get_item(r, v, path, out);
    if (path.kind != JINJA_STR)
        return EW_STATUS_OK;
    EW_TRY(jinja_split(r, path.u.s, &dot, -1, false, &parts));
    for (size_t i = 0; i < parts.u.list->n; i++) {
        const struct jinja_str *const p = parts.u.list->v[i].u.s;
        int64_t n = 0;
        bool number = p->len > 0 && p->len < 10;
        for (size_t k = 0; k < p->len && number; k++) {
            number = p->at[k] >= '0' && p->at[k] <= '9';
            n = n * 10 + (p->at[k] - '0');
        }
        EW_TRY(jinja_str_new(r, p->at, p->len, NULL, &key));
        EW_TRY(jinja_get_item(r, *out, number ? jinja_int(n) : key, out));
    }
    return EW_STATUS_OK;
}

static struct jinja_call rest_of(const struct jinja_call *call, size_t from)
{
    struct jinja_call rest = { 0 };

    if (call->n > from) {
        rest.v = call->v + from;
        rest.n = call->n - from;
    }
    return rest;
}

/* select, reject, selectattr, rejectattr: (attribute), test name, test arguments. */
static ew_status pick(struct jinja_run *r, struct jinja_value v, const struct jinja_call *call,
                      bool by_attr, bool want, struct jinja_value *out)
{
    const size_t at = by_attr;
    const struct jinja_value test = jinja_arg_get(call, at, NULL);
    const struct jinja_call args = rest_of(call, at + 1);
    struct jinja_list *items;

    if (by_attr && call->n == 0)
        return jinja_fail(r, EW_STATUS_MALFORMED, "selectattr and rejectattr need an attribute");
    EW_TRY(jinja_iterate(r, v, &items));
    EW_TRY(jinja_list_new(r, false, out));
    for (size_t i = 0; i < items->n; i++) {
        struct jinja_value item = items->v[i];
        bool yes;
        EW_TRY(jinja_charge(r, 1));
        if (by_attr)
            EW_TRY(get_path(r, item, call->v[0], &item));
        if (test.kind == JINJA_STR) {
            const char *const name = ew_arena_strndup(&r->arena, test.u.s->at, test.u.s->len);
            if (!name)
                return jinja_no_memory(r);
            EW_TRY(jinja_apply_test(r, name, item, &args, &yes));
        } else {
            yes = jinja_truth(item);
        }
        if (yes == want)
            EW_TRY(jinja_list_push(r, out->u.list, items->v[i]));
    }
    return EW_STATUS_OK;
}
static ew_status f_select(struct jinja_run *r, struct jinja_value v, const struct jinja_call *c,
                          struct jinja_value *out)
{
    return pick(r, v, c, false, true, out);
}
static ew_status f_reject(struct jinja_run *r, struct jinja_value v, const struct jinja_call *c,
                          struct jinja_value *out)
{
    return pick(r, v, c, false, false, out);
}
static ew_status f_selectattr(struct jinja_run *r, struct jinja_value v, const struct jinja_call *c,
                              struct jinja_value *out)
{
    return pick(r, v, c, true, true, out);
}
static ew_status f_rejectattr(struct jinja_run *r, struct jinja_value v, const struct jinja_call *c,
                              struct jinja_value *out)
{
    return pick(r, v, c, true, false, out);
}

static ew_status f_map(struct jinja_run *r, struct jinja_value v, const struct jinja_call *call,
                       struct jinja_value *out)
{
    const struct jinja_value attribute = jinja_arg_get(call, 99, "attribute");
    const struct jinja_value fallback = jinja_arg_get(call, 99, "default");
    const struct jinja_value filter = jinja_arg_get(call, 0, NULL);
    const struct jinja_call args = rest_of(call, 1);
    struct jinja_list *items;
    const char *name = NULL;

    if (attribute.kind == JINJA_UNDEFINED && filter.kind != JINJA_STR)
        return jinja_fail(r, EW_STATUS_MALFORMED, "map needs a filter name or attribute=");
    if (filter.kind == JINJA_STR)
        name = ew_arena_strndup(&r->arena, filter.u.s->at, filter.u.s->len);
    EW_TRY(jinja_iterate(r, v, &items));
    EW_TRY(jinja_list_new(r, false, out));
    for (size_t i = 0; i < items->n; i++) {
        struct jinja_value item;
        EW_TRY(jinja_charge(r, 1));
        if (attribute.kind != JINJA_UNDEFINED) {
            EW_TRY(get_path(r, items->v[i], attribute, &item));
            if (item.kind == JINJA_UNDEFINED && fallback.kind != JINJA_UNDEFINED)
                item = fallback;
        } else if (name) {
            EW_TRY(jinja_apply_filter(r, name, items->v[i], &args, &item));
        } else {
            return jinja_no_memory(r);
        }
        EW_TRY(jinja_list_push(r, out->u.list, item));
    }
    return EW_STATUS_OK;
}

static ew_status f_join(struct jinja_run *r, struct jinja_value v, const struct jinja_call *call,
                        struct jinja_value *out)
{
    const struct jinja_value attribute = jinja_arg_get(call, 1, "attribute");
    const struct jinja_value d = jinja_arg_get(call, 0, "d");
    const struct jinja_str empty = { .at = "", .len = 0 };
    struct jinja_list *items;
    struct jinja_value list, item;

    if (attribute.kind != JINJA_UNDEFINED && attribute.kind != JINJA_NONE) {
        EW_TRY(jinja_iterate(r, v, &items));
        EW_TRY(jinja_list_new(r, false, &list));
        for (size_t i = 0; i < items->n; i++) {
            EW_TRY(get_path(r, items->v[i], attribute, &item));
            EW_TRY(jinja_list_push(r, list.u.list, item));
        }
        v = list;
    }
    return jinja_join(r, d.kind == JINJA_STR ? d.u.s : &empty, v, false, out);
}

static ew_status f_first(struct jinja_run *r, struct jinja_value v, const struct jinja_call *call,
                         struct jinja_value *out)
{
    struct jinja_list *items;

    (void)call;
    EW_TRY(jinja_iterate(r, v, &items));
    *out = items->n ? items->v[0] : jinja_undefined("the first item of an empty sequence");
    return EW_STATUS_OK;
}
static ew_status f_last(struct jinja_run *r, struct jinja_value v, const struct jinja_call *call,
                        struct jinja_value *out)
{
    struct jinja_list *items;

    (void)call;
    EW_TRY(jinja_iterate(r, v, &items));
    *out =
        items->n ? items->v[items->n - 1] : jinja_undefined("the last item of an empty sequence");
    return EW_STATUS_OK;
}

static ew_status copy_list(struct jinja_run *r, struct jinja_value v, struct jinja_value *out)
{
    struct jinja_list *items;

    EW_TRY(jinja_iterate(r, v, &items));
    EW_TRY(jinja_list_new(r, false, out));
    for (size_t i = 0; i < items->n; i++)
        EW_TRY(jinja_list_push(r, out->u.list, items->v[i]));
    return jinja_charge(r, items->n / 8);
}
static ew_status f_list(struct jinja_run *r, struct jinja_value v, const struct jinja_call *call,
                        struct jinja_value *out)
{
    (void)call;
    return copy_list(r, v, out);
}
static ew_status f_reverse(struct jinja_run *r, struct jinja_value v, const struct jinja_call *call,
                           struct jinja_value *out)
{
    const struct jinja_str empty = { .at = "", .len = 0 };

    (void)call;
    EW_TRY(copy_list(r, v, out));
    struct jinja_list *const l = out->u.list;
    for (size_t i = 0; i < l->n / 2; i++) {
        const struct jinja_value t = l->v[i];
        l->v[i] = l->v[l->n - 1 - i];
        l->v[l->n - 1 - i] = t;
    }
    return v.kind == JINJA_STR ? jinja_join(r, &empty, *out, true, out) : EW_STATUS_OK;
}

static ew_status f_items(struct jinja_run *r, struct jinja_value v, const struct jinja_call *call,
                         struct jinja_value *out)
{
    const struct jinja_method m = { v, "items" };

    if (v.kind == JINJA_UNDEFINED)
        return jinja_list_new(r, false, out);
    if (v.kind != JINJA_DICT)
        return jinja_fail(r, EW_STATUS_MALFORMED, "Can only get item pairs from a mapping.");
    return jinja_call_method(r, &m, call, out);
}

/* ---- ordering ---- */

struct order {
    struct jinja_run *r;
    struct jinja_value attribute;
    bool case_sensitive, descending;
};

/* What an item is compared by: its attribute, strings in lower case unless case matters. */
static ew_status sort_key(const struct order *o, struct jinja_value item, struct jinja_value *key)
{
    EW_TRY(get_path(o->r, item, o->attribute, key));
    if (key->kind == JINJA_STR && !o->case_sensitive)
        return jinja_change_case(o->r, key->u.s, "lower", key);
    return EW_STATUS_OK;
}

static ew_status merge_sort(const struct order *o, struct jinja_value *v, struct jinja_value *keys,
                            struct jinja_value *tv, struct jinja_value *tk, size_t n)
{
    const size_t half = n / 2;
    size_t a = 0, b = half;

    if (n < 2)
        return EW_STATUS_OK;
    EW_TRY(merge_sort(o, v, keys, tv, tk, half));
    EW_TRY(merge_sort(o, v + half, keys + half, tv, tk, n - half));
    for (size_t i = 0; i < n; i++) {
        int c = 0;
        if (a < half && b < n)
            EW_TRY(jinja_compare(o->r, keys[a], keys[b], &c));
        const bool left = b >= n || (a < half && (o->descending ? c >= 0 : c <= 0));
        const size_t from = left ? a++ : b++;
        tv[i] = v[from];
        tk[i] = keys[from];
    }
    memcpy(v, tv, n * sizeof(*v));
    memcpy(keys, tk, n * sizeof(*keys));
    return EW_STATUS_OK;
}

static ew_status sort_list(const struct order *o, struct jinja_list *l)
{
    struct jinja_value *const work = ew_arena_new(&o->r->arena, struct jinja_value, 3 * l->n + 1);

    if (!work)
        return jinja_no_memory(o->r);
    for (size_t i = 0; i < l->n; i++)
        EW_TRY(sort_key(o, l->v[i], &work[i]));
    return merge_sort(o, l->v, work, work + l->n, work + 2 * l->n, l->n);
}

static ew_status f_sort(struct jinja_run *r, struct jinja_value v, const struct jinja_call *call,
                        struct jinja_value *out)
{
    const struct order o = { r, jinja_arg_get(call, 2, "attribute"),
                             jinja_truth(jinja_arg_get(call, 1, "case_sensitive")),
                             jinja_truth(jinja_arg_get(call, 0, "reverse")) };

    EW_TRY(copy_list(r, v, out));
    return sort_list(&o, out->u.list);
}

static ew_status f_dictsort(struct jinja_run *r, struct jinja_value v,
                            const struct jinja_call *call, struct jinja_value *out)
{
    const struct jinja_value by = jinja_arg_get(call, 1, "by");
    const bool by_value = by.kind == JINJA_STR && jinja_str_is(by.u.s, "value");
    const struct order o = { r, jinja_int(by_value),
                             jinja_truth(jinja_arg_get(call, 0, "case_sensitive")),
                             jinja_truth(jinja_arg_get(call, 2, "reverse")) };
    const struct jinja_call none = { 0 };

    EW_TRY(f_items(r, v, &none, out));
    return sort_list(&o, out->u.list);
}

static ew_status f_unique(struct jinja_run *r, struct jinja_value v, const struct jinja_call *call,
                          struct jinja_value *out)
{
    const struct order o = { r, jinja_arg_get(call, 1, "attribute"),
                             jinja_truth(jinja_arg_get(call, 0, "case_sensitive")), false };
    struct jinja_value keys, key;
    struct jinja_list *items;

    EW_TRY(jinja_iterate(r, v, &items));
    EW_TRY(jinja_list_new(r, false, out));
    EW_TRY(jinja_list_new(r, false, &keys));
    for (size_t i = 0; i < items->n; i++) {
        bool seen;
        EW_TRY(sort_key(&o, items->v[i], &key));
        EW_TRY(jinja_contains(r, keys, key, &seen));
        if (seen)
            continue;
        EW_TRY(jinja_list_push(r, keys.u.list, key));
        EW_TRY(jinja_list_push(r, out->u.list, items->v[i]));
    }
    return EW_STATUS_OK;
}

static ew_status extreme(struct jinja_run *r, struct jinja_value v, const struct jinja_call *call,
                         bool largest, struct jinja_value *out)
{
    const struct order o = { r, jinja_arg_get(call, 1, "attribute"),
                             jinja_truth(jinja_arg_get(call, 0, "case_sensitive")), false };
    struct jinja_value best = jinja_none(), key;
    struct jinja_list *items;
    int c;

    EW_TRY(jinja_iterate(r, v, &items));
    *out = jinja_undefined("the extreme of an empty sequence");
    for (size_t i = 0; i < items->n; i++) {
        EW_TRY(sort_key(&o, items->v[i], &key));
        if (i) {
            EW_TRY(jinja_compare(r, key, best, &c));
            if (largest ? c <= 0 : c >= 0)
                continue;
        }
        best = key;
        *out = items->v[i];
    }
    return EW_STATUS_OK;
}
static ew_status f_min(struct jinja_run *r, struct jinja_value v, const struct jinja_call *call,
                       struct jinja_value *out)
{
    return extreme(r, v, call, false, out);
}
static ew_status f_max(struct jinja_run *r, struct jinja_value v, const struct jinja_call *call,
                       struct jinja_value *out)
{
    return extreme(r, v, call, true, out);
}

static ew_status f_sum(struct jinja_run *r, struct jinja_value v, const struct jinja_call *call,
                       struct jinja_value *out)
{
    const struct jinja_value attribute = jinja_arg_get(call, 0, "attribute");
    struct jinja_list *items;
    struct jinja_value item;

    *out = jinja_arg_get(call, 1, "start");
    if (out->kind == JINJA_UNDEFINED)
        *out = jinja_int(0);
    EW_TRY(jinja_iterate(r, v, &items));
    for (size_t i = 0; i < items->n; i++) {
        EW_TRY(get_path(r, items->v[i], attribute, &item));
        EW_TRY(jinja_binary(r, "+", *out, item, out));
    }
    return EW_STATUS_OK;
}

static ew_status f_batch(struct jinja_run *r, struct jinja_value v, const struct jinja_call *call,
                         struct jinja_value *out)
{
    const struct jinja_value fill = jinja_arg_get(call, 1, "fill_with");
    struct jinja_value row = jinja_none();
    struct jinja_list *items;
    int64_t count;

    EW_TRY(jinja_arg_int(r, call, 0, "linecount", 0, &count));
    if (count < 1 || count > 1000000)
        return jinja_fail(r, EW_STATUS_MALFORMED, "batch needs a positive count");
    EW_TRY(jinja_iterate(r, v, &items));
    EW_TRY(jinja_list_new(r, false, out));
    for (size_t i = 0; i < items->n; i++) {
        if (i % (size_t)count == 0) {
            EW_TRY(jinja_list_new(r, false, &row));
            EW_TRY(jinja_list_push(r, out->u.list, row));
        }
        EW_TRY(jinja_list_push(r, row.u.list, items->v[i]));
    }
    while (fill.kind != JINJA_UNDEFINED && fill.kind != JINJA_NONE && row.kind == JINJA_LIST &&
           row.u.list->n < (size_t)count) {
        EW_TRY(jinja_charge(r, 1));
        EW_TRY(jinja_list_push(r, row.u.list, fill));
    }
    return EW_STATUS_OK;
}

const struct jinja_filter jinja_sequence_filters[] = {
    { "select", f_select },
    { "reject", f_reject },
    { "selectattr", f_selectattr },
    { "rejectattr", f_rejectattr },
    { "map", f_map },
    { "join", f_join },
    { "first", f_first },
    { "last", f_last },
    { "list", f_list },
    { "reverse", f_reverse },
    { "items", f_items },
    { "sort", f_sort },
    { "dictsort", f_dictsort },
    { "unique", f_unique },
    { "min", f_min },
    { "max", f_max },
    { "sum", f_sum },
    { "batch", f_batch },
    { NULL, NULL },
};

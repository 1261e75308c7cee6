/* text/jinja_eval.c - statements and expressions of a template, run. Filters, tests, methods and
 * globals have files of their own. */
#include "text/jinja_eval.h"

#include <string.h>

#include "base/size.h"

static ew_status enter(struct jinja_run *r, const struct jinja_node *n)
{
    r->line = n->line;
    if (++r->depth > r->caps.max_depth)
        return jinja_fail(r, EW_STATUS_LIMIT, "nested or recursive deeper than %u",
                          r->caps.max_depth);
    return jinja_charge(r, 1);
}

ew_status jinja_scope_set(struct jinja_run *r, struct jinja_scope *s, const char *name, size_t len,
                          struct jinja_value v)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->vars[i].len == len && memcmp(s->vars[i].name, name, len) == 0) {
            s->vars[i].value = v;
            return EW_STATUS_OK;
        }
    if (s->n == s->cap) {
        const size_t cap = s->cap ? s->cap * 2 : 8;
        struct jinja_var *const more = ew_arena_new(&r->arena, struct jinja_var, cap);
        if (!more)
            return jinja_no_memory(r);
        if (s->n)
            memcpy(more, s->vars, s->n * sizeof(*more));
        s->vars = more;
        s->cap = cap;
    }
    s->vars[s->n++] = (struct jinja_var){ name, len, v };
    return EW_STATUS_OK;
}

bool jinja_scope_find(const struct jinja_scope *s, const char *name, size_t len,
                      struct jinja_value *out)
{
    for (; s; s = s->parent)
        for (size_t i = 0; i < s->n; i++)
            if (s->vars[i].len == len && memcmp(s->vars[i].name, name, len) == 0) {
                *out = s->vars[i].value;
                return true;
            }
    return false;
}

/* ---- access ---- */

ew_status jinja_get_attr(struct jinja_run *r, struct jinja_value v, const char *name, size_t len,
                         struct jinja_value *out)
{
    if (v.kind == JINJA_UNDEFINED)
        return jinja_fail(r, EW_STATUS_MALFORMED, "'%s' is undefined", v.u.missing);
    if (!(v.kind == JINJA_DICT && v.u.dict->is_namespace) && jinja_method_exists(v, name)) {
        struct jinja_method *const m = ew_arena_new(&r->arena, struct jinja_method, 1);
        if (!m)
            return jinja_no_memory(r);
        *m = (struct jinja_method){ v, name };
        *out = (struct jinja_value){ .kind = JINJA_METHOD, .u.method = m };
        return EW_STATUS_OK;
    }
    if (v.kind == JINJA_DICT && jinja_dict_find_text(v.u.dict, name, len, out))
        return EW_STATUS_OK;
    *out = jinja_undefined(name);
    return EW_STATUS_OK;
}

/* Python's index rule: negative counts from the end. False when outside. */
static bool wrap_index(int64_t i, size_t n, size_t *out)
{
    if (i < 0)
        i += (int64_t)n;
    if (i < 0 || (uint64_t)i >= n)
        return false;
    *out = (size_t)i;
    return true;
}

ew_status jinja_get_item(struct jinja_run *r, struct jinja_value v, struct jinja_value key,
                         struct jinja_value *out)
{
    size_t i;

    EW_TRY(jinja_charge(r, v.kind == JINJA_DICT  ? v.u.dict->n / 16
                           : v.kind == JINJA_STR ? v.u.s->len / 64
                                                 : 0));
    *out = jinja_undefined(key.kind == JINJA_STR ? key.u.s->at : "item");
    if (v.kind == JINJA_UNDEFINED)
        return jinja_fail(r, EW_STATUS_MALFORMED, "'%s' is undefined", v.u.missing);
    if (v.kind == JINJA_DICT) {
        if (!jinja_dict_find(v.u.dict, key, out) && key.kind == JINJA_STR &&
            !v.u.dict->is_namespace)
            return jinja_get_attr(r, v, key.u.s->at, key.u.s->len, out);
        return EW_STATUS_OK;
    }
    if (key.kind == JINJA_INT && v.kind == JINJA_LIST && wrap_index(key.u.i, v.u.list->n, &i))
        *out = v.u.list->v[i];
    if (key.kind == JINJA_INT && v.kind == JINJA_STR &&
        wrap_index(key.u.i, jinja_str_n_chars(v.u.s), &i))
        return jinja_str_sub(r, v.u.s, jinja_str_char_off(v.u.s, i),
                             jinja_str_char_off(v.u.s, i + 1), out);
    if (key.kind == JINJA_STR && v.kind != JINJA_NONE)
        return jinja_get_attr(r, v, key.u.s->at, key.u.s->len, out);
    return EW_STATUS_OK;
}

ew_status jinja_iterate(struct jinja_run *r, struct jinja_value v, struct jinja_list **out)
{
    struct jinja_value list, item;

    if (v.kind == JINJA_LIST) {
        *out = v.u.list;
        return jinja_charge(r, v.u.list->n / 16);
    }
    EW_TRY(jinja_list_new(r, false, &list));
    *out = list.u.list;
    if (v.kind == JINJA_UNDEFINED)
        return EW_STATUS_OK;
    if (v.kind == JINJA_DICT && !v.u.dict->is_namespace) {
        for (size_t i = 0; i < v.u.dict->n; i++)
            EW_TRY(jinja_list_push(r, *out, v.u.dict->e[i].key));
        return EW_STATUS_OK;
    }
    if (v.kind != JINJA_STR)
        return jinja_fail(r, EW_STATUS_MALFORMED, "'%s' object is not iterable",
                          jinja_type_text(v));
    for (size_t at = 0, end; at < v.u.s->len; at = end) {
        end = at + 1;
        while (end < v.u.s->len && ((unsigned char)v.u.s->at[end] & 0xc0) == 0x80)
            end++;
        EW_TRY(jinja_charge(r, 1));
        EW_TRY(jinja_str_sub(r, v.u.s, at, end, &item));
        EW_TRY(jinja_list_push(r, *out, item));
    }
    return EW_STATUS_OK;
}

ew_status jinja_contains(struct jinja_run *r, struct jinja_value container, struct jinja_value item,
                         bool *out)
{
    struct jinja_value found;

    *out = false;
    switch (container.kind) {
    case JINJA_STR:
        if (item.kind != JINJA_STR)
            return jinja_fail(r, EW_STATUS_MALFORMED,
                              "'in <string>' requires string as left operand, not %s",
                              jinja_type_text(item));
        EW_TRY(jinja_charge(r, container.u.s->len / 64));
        *out = item.u.s->len == 0 ||
               (container.u.s->len &&
                memmem(container.u.s->at, container.u.s->len, item.u.s->at, item.u.s->len) != NULL);
        return EW_STATUS_OK;
    case JINJA_DICT:
        *out = jinja_dict_find(container.u.dict, item, &found);
        return jinja_charge(r, container.u.dict->n / 16);
    case JINJA_LIST:
        for (size_t i = 0; i < container.u.list->n && !*out; i++)
            *out = jinja_equal(container.u.list->v[i], item, 0);
        return jinja_charge(r, container.u.list->n / 16);
    case JINJA_UNDEFINED:
        return EW_STATUS_OK;
    default:
        return jinja_fail(r, EW_STATUS_MALFORMED, "argument of type '%s' is not iterable",
                          jinja_type_text(container));
    }
}

/* ---- calls ---- */

static ew_status push_arg(struct jinja_run *r, struct jinja_call *call, size_t cap,
                          struct jinja_value v)
{
    if (call->n == cap)
        return jinja_fail(r, EW_STATUS_LIMIT, "more than %zu arguments", cap);
    call->v[call->n++] = v;
    return EW_STATUS_OK;
}

enum { MAX_ARGS = 64 };

static ew_status eval_args(struct jinja_run *r, struct jinja_scope *scope,
                           const struct jinja_node *n, struct jinja_call *call)
{
    struct jinja_list *list;
    struct jinja_value v;

    call->caller = jinja_undefined("caller");
    call->v = ew_arena_new(&r->arena, struct jinja_value, MAX_ARGS);
    call->kw = ew_arena_new(&r->arena, struct jinja_var, MAX_ARGS);
    if (!call->v || !call->kw)
        return jinja_no_memory(r);
    for (size_t i = 0; i < n->n_args; i++) {
        const struct jinja_arg *const a = &n->args[i];
        EW_TRY(jinja_eval(r, scope, a->value, &v));
        if (a->stars == 1) {
            EW_TRY(jinja_iterate(r, v, &list));
            for (size_t k = 0; k < list->n; k++)
                EW_TRY(push_arg(r, call, MAX_ARGS, list->v[k]));
        } else if (a->stars == 2 && v.kind == JINJA_DICT) {
            for (size_t k = 0; k < v.u.dict->n; k++) {
                const struct jinja_entry *const e = &v.u.dict->e[k];
                if (e->key.kind != JINJA_STR || call->n_kw == MAX_ARGS)
                    return jinja_fail(r, EW_STATUS_MALFORMED,
                                      "keywords must be strings, at most %d", MAX_ARGS);
                call->kw[call->n_kw++] =
                    (struct jinja_var){ e->key.u.s->at, e->key.u.s->len, e->value };
            }
        } else if (a->stars == 2) {
            return jinja_fail(r, EW_STATUS_MALFORMED, "argument after ** must be a mapping, not %s",
                              jinja_type_text(v));
        } else if (a->name) {
            if (call->n_kw == MAX_ARGS)
                return jinja_fail(r, EW_STATUS_LIMIT, "more than %d arguments", MAX_ARGS);
            call->kw[call->n_kw++] = (struct jinja_var){ a->name, a->name_len, v };
        } else {
            EW_TRY(push_arg(r, call, MAX_ARGS, v));
        }
    }
    return EW_STATUS_OK;
}

/* Runs a body into one string. */
static ew_status exec_to_str(struct jinja_run *r, struct jinja_scope *scope,
                             const struct jinja_node *n, struct jinja_value *out)
{
    struct jinja_out text = { 0 };
    enum jinja_flow flow;

    EW_TRY(jinja_exec(r, scope, n->body, n->n_body, &text, &flow));
    return jinja_str_concat(r, text.parts, text.n, out);
}

/* Positional arguments beyond the parameters become varargs, other keywords kwargs: Jinja allows
 * them only in macros that use those names, which costs a walk of the body; here they are always
 * defined and extra ones accepted. */
static ew_status bind_params(struct jinja_run *r, struct jinja_scope *scope,
                             const struct jinja_node *def, const struct jinja_call *call)
{
    struct jinja_value varargs, kwargs, v;

    EW_TRY(jinja_list_new(r, true, &varargs));
    EW_TRY(jinja_dict_new(r, &kwargs));
    for (size_t i = 0; i < def->n_args; i++) {
        const struct jinja_arg *const a = &def->args[i];
        v = jinja_undefined(a->name);
        if (i < call->n) {
            v = call->v[i];
        } else {
            bool found = false;
            for (size_t k = 0; k < call->n_kw && !found; k++)
                if (call->kw[k].len == a->name_len &&
                    memcmp(call->kw[k].name, a->name, a->name_len) == 0) {
                    v = call->kw[k].value;
                    found = true;
                }
            if (!found && a->value)
                EW_TRY(jinja_eval(r, scope, a->value, &v));
        }
        EW_TRY(jinja_scope_set(r, scope, a->name, a->name_len, v));
    }
    for (size_t i = def->n_args; i < call->n; i++)
        EW_TRY(jinja_list_push(r, varargs.u.list, call->v[i]));
    for (size_t k = 0; k < call->n_kw; k++) {
        bool is_param = false;
        for (size_t i = 0; i < def->n_args; i++)
            is_param |= def->args[i].name_len == call->kw[k].len &&
                        memcmp(def->args[i].name, call->kw[k].name, call->kw[k].len) == 0;
        if (is_param)
            continue;
        EW_TRY(jinja_str_new(r, call->kw[k].name, call->kw[k].len, NULL, &v));
        EW_TRY(jinja_dict_set(r, kwargs.u.dict, v, call->kw[k].value));
    }
    EW_TRY(jinja_scope_set(r, scope, "varargs", 7, varargs));
    EW_TRY(jinja_scope_set(r, scope, "kwargs", 6, kwargs));
    return jinja_scope_set(r, scope, "caller", 6, call->caller);
}

ew_status jinja_call_value(struct jinja_run *r, struct jinja_value f, const struct jinja_call *call,
                           struct jinja_value *out)
{
    struct jinja_scope *scope;

    switch (f.kind) {
    case JINJA_FUNC:
        return jinja_call_global(r, f.u.func, call, out);
    case JINJA_METHOD:
        return jinja_call_method(r, f.u.method, call, out);
    case JINJA_MACRO:
        scope = ew_arena_new(&r->arena, struct jinja_scope, 1);
        if (!scope)
            return jinja_no_memory(r);
        scope->parent = f.u.macro->scope;
        EW_TRY(bind_params(r, scope, f.u.macro->def, call));
        return exec_to_str(r, scope, f.u.macro->def, out);
    case JINJA_UNDEFINED:
        return jinja_fail(r, EW_STATUS_MALFORMED, "'%s' is undefined", f.u.missing);
    default:
        return jinja_fail(r, EW_STATUS_MALFORMED, "'%s' object is not callable",
                          jinja_type_text(f));
    }
}

/* ---- expressions ---- */

static ew_status eval_slice(struct jinja_run *r, struct jinja_scope *scope,
                            const struct jinja_node *n, struct jinja_value *out)
{
    const struct jinja_node *const parts[3] = { n->b, n->c, n->d };
    int64_t at[3] = { 0, 0, 1 };
    bool given[3] = { false, false, false };
    struct jinja_value v, item;

    EW_TRY(jinja_eval(r, scope, n->a, &v));
    if (v.kind == JINJA_UNDEFINED)
        return jinja_fail(r, EW_STATUS_MALFORMED, "'%s' is undefined", v.u.missing);
    if (v.kind != JINJA_STR && v.kind != JINJA_LIST)
        return jinja_fail(r, EW_STATUS_MALFORMED, "'%s' cannot be sliced", jinja_type_text(v));
    for (int i = 0; i < 3; i++) {
        if (!parts[i])
            continue;
        EW_TRY(jinja_eval(r, scope, parts[i], &item));
        if (item.kind == JINJA_NONE)
            continue;
        if (item.kind != JINJA_INT && item.kind != JINJA_BOOL)
            return jinja_fail(r, EW_STATUS_MALFORMED, "slice indices must be integers, not %s",
                              jinja_type_text(item));
        at[i] = jinja_as_i64(item);
        given[i] = true;
    }
    const int64_t len = (int64_t)(v.kind == JINJA_STR ? jinja_str_n_chars(v.u.s) : v.u.list->n);
    const int64_t step = at[2];
    if (step == 0)
        return jinja_fail(r, EW_STATUS_MALFORMED, "slice step cannot be zero");
    const int64_t low = step > 0 ? 0 : -1, high = step > 0 ? len : len - 1;
    for (int i = 0; i < 2; i++) {
        if (!given[i]) {
            at[i] = (i == 0) == (step > 0) ? low : high;
            continue;
        }
        if (at[i] < 0)
            at[i] = at[i] < -len ? low : at[i] + len < low ? low : at[i] + len;
        at[i] = at[i] > high ? high : at[i];
    }
    if (v.kind == JINJA_STR && step == 1) {
        const size_t begin = jinja_str_char_off(v.u.s, (size_t)at[0]);
        const size_t end = at[1] > at[0] ? jinja_str_char_off(v.u.s, (size_t)at[1]) : begin;
        return jinja_str_sub(r, v.u.s, begin, end, out);
    }
    EW_TRY(jinja_list_new(r, v.kind == JINJA_LIST && v.u.list->tuple, out));
    struct jinja_list *chars;
    EW_TRY(jinja_iterate(r, v, &chars));
    for (int64_t i = at[0]; step > 0 ? i < at[1] : i > at[1];) {
        EW_TRY(jinja_list_push(r, out->u.list, chars->v[i]));
        if (!ew_i64_add(i, step, &i))
            break;
    }
    if (v.kind == JINJA_LIST)
        return EW_STATUS_OK;
    const struct jinja_str **const pieces =
        ew_arena_new(&r->arena, const struct jinja_str *, out->u.list->n + 1);
    if (!pieces)
        return jinja_no_memory(r);
    const size_t n_pieces = out->u.list->n;
    for (size_t i = 0; i < n_pieces; i++)
        pieces[i] = out->u.list->v[i].u.s;
    return jinja_str_concat(r, pieces, n_pieces, out);
}

static ew_status eval_chain(struct jinja_run *r, struct jinja_scope *scope,
                            const struct jinja_node *n, struct jinja_value *out)
{
    struct jinja_value left, right;
    bool ok = true;

    EW_TRY(jinja_eval(r, scope, n->a, &left));
    for (size_t i = 0; i < n->n_kids && ok; i++, left = right) {
        const char *const op = n->kids[i]->text;
        int order;
        EW_TRY(jinja_eval(r, scope, n->kids[i]->a, &right));
        if (op[0] == '=' || op[0] == '!') {
            ok = jinja_equal(left, right, 0) == (op[0] == '=');
        } else if (op[0] == 'i' || op[0] == 'n') {
            EW_TRY(jinja_contains(r, right, left, &ok));
            ok = ok == (op[0] == 'i');
        } else {
            EW_TRY(jinja_compare(r, left, right, &order));
            ok = order != 2 && (op[0] == '<' ? order < 0 || (op[1] && order == 0)
                                             : order > 0 || (op[1] && order == 0));
        }
    }
    *out = jinja_bool(ok);
    return EW_STATUS_OK;
}

static ew_status eval_list(struct jinja_run *r, struct jinja_scope *scope,
                           const struct jinja_node *n, bool tuple, struct jinja_value *out)
{
    struct jinja_value item;

    EW_TRY(jinja_list_new(r, tuple, out));
    for (size_t i = 0; i < n->n_kids; i++) {
        EW_TRY(jinja_eval(r, scope, n->kids[i], &item));
        EW_TRY(jinja_list_push(r, out->u.list, item));
    }
    return EW_STATUS_OK;
}

static ew_status eval_dict(struct jinja_run *r, struct jinja_scope *scope,
                           const struct jinja_node *n, struct jinja_value *out)
{
    struct jinja_value key, item;

    EW_TRY(jinja_dict_new(r, out));
    for (size_t i = 0; i < n->n_kids; i += 2) {
        EW_TRY(jinja_eval(r, scope, n->kids[i], &key));
        EW_TRY(jinja_eval(r, scope, n->kids[i + 1], &item));
        EW_TRY(jinja_dict_set(r, out->u.dict, key, item));
    }
    return EW_STATUS_OK;
}

static ew_status eval_unary(struct jinja_run *r, struct jinja_scope *scope,
                            const struct jinja_node *n, struct jinja_value *out)
{
    struct jinja_value v;

    EW_TRY(jinja_eval(r, scope, n->a, &v));
    if (n->text[0] == 'n') {
        *out = jinja_bool(!jinja_truth(v));
        return EW_STATUS_OK;
    }
    if (v.kind == JINJA_UNDEFINED)
        return jinja_fail(r, EW_STATUS_MALFORMED, "'%s' is undefined", v.u.missing);
    if (!jinja_is_number(v))
        return jinja_fail(r, EW_STATUS_MALFORMED, "bad operand type for unary %s: '%s'", n->text,
                          jinja_type_text(v));
    if (n->text[0] == '-')
        return jinja_binary(r, "-", jinja_int(0), v, out);
    *out = v.kind == JINJA_BOOL ? jinja_int(v.u.b) : v;
    return EW_STATUS_OK;
}

static ew_status eval_binary(struct jinja_run *r, struct jinja_scope *scope,
                             const struct jinja_node *n, struct jinja_value *out)
{
    struct jinja_value a, b;

    EW_TRY(jinja_eval(r, scope, n->a, &a));
    if ((n->text[0] == 'a' && !jinja_truth(a)) || (n->text[0] == 'o' && jinja_truth(a))) {
        *out = a;
        return EW_STATUS_OK;
    }
    if (n->text[0] == 'a' || n->text[0] == 'o')
        return jinja_eval(r, scope, n->b, out);
    EW_TRY(jinja_eval(r, scope, n->b, &b));
    return jinja_binary(r, n->text, a, b, out);
}

static ew_status eval_call(struct jinja_run *r, struct jinja_scope *scope,
                           const struct jinja_node *n, struct jinja_value caller,
                           struct jinja_value *out)
{
    struct jinja_call call = { 0 };
    struct jinja_value f;

    EW_TRY(jinja_eval(r, scope, n->a, &f));
    if (f.kind == JINJA_UNDEFINED && n->a->kind == JINJA_ATTR) {
        struct jinja_value self;
        EW_TRY(jinja_eval(r, scope, n->a->a, &self));
        return jinja_fail(r, EW_STATUS_MALFORMED, "'%s object' has no attribute '%s'",
                          jinja_type_text(self), n->a->text);
    }
    EW_TRY(eval_args(r, scope, n, &call));
    call.caller = caller;
    r->line = n->line;
    return jinja_call_value(r, f, &call, out);
}

static ew_status eval_filter(struct jinja_run *r, struct jinja_scope *scope,
                             const struct jinja_node *n, const struct jinja_value *block,
                             struct jinja_value *out)
{
    struct jinja_call call = { 0 };
    struct jinja_value v;

    if (!n->a)
        v = *block;
    else if (n->a->kind == JINJA_FILTER)
        EW_TRY(eval_filter(r, scope, n->a, block, &v));
    else
        EW_TRY(jinja_eval(r, scope, n->a, &v));
    EW_TRY(enter(r, n));
    EW_TRY(eval_args(r, scope, n, &call));
    r->line = n->line;
    EW_TRY(jinja_apply_filter(r, n->text, v, &call, out));
    r->depth--;
    return EW_STATUS_OK;
}

static ew_status eval_test(struct jinja_run *r, struct jinja_scope *scope,
                           const struct jinja_node *n, struct jinja_value *out)
{
    struct jinja_call call = { 0 };
    struct jinja_value v;
    bool yes;

    EW_TRY(jinja_eval(r, scope, n->a, &v));
    EW_TRY(eval_args(r, scope, n, &call));
    EW_TRY(jinja_apply_test(r, n->text, v, &call, &yes));
    *out = jinja_bool(yes != n->negate);
    return EW_STATUS_OK;
}

static ew_status eval_name(struct jinja_scope *scope, const struct jinja_node *n,
                           struct jinja_value *out)
{
    if (!jinja_scope_find(scope, n->text, n->len, out) && !jinja_global_find(n->text, n->len, out))
        *out = jinja_undefined(n->text);
    return EW_STATUS_OK;
}

static ew_status eval_cond(struct jinja_run *r, struct jinja_scope *scope,
                           const struct jinja_node *n, struct jinja_value *out)
{
    struct jinja_value v;

    EW_TRY(jinja_eval(r, scope, n->b, &v));
    if (jinja_truth(v))
        return jinja_eval(r, scope, n->a, out);
    if (n->c)
        return jinja_eval(r, scope, n->c, out);
    *out = jinja_undefined("the inline if's else");
    return EW_STATUS_OK;
}

static ew_status eval_access(struct jinja_run *r, struct jinja_scope *scope,
                             const struct jinja_node *n, struct jinja_value *out)
{
    struct jinja_value v, key;

    EW_TRY(jinja_eval(r, scope, n->a, &v));
    if (n->kind == JINJA_ATTR)
        return jinja_get_attr(r, v, n->text, n->len, out);
    EW_TRY(jinja_eval(r, scope, n->b, &key));
    return jinja_get_item(r, v, key, out);
}

static ew_status eval_kind(struct jinja_run *r, struct jinja_scope *scope,
                           const struct jinja_node *n, struct jinja_value *out)
{
    switch (n->kind) {
    case JINJA_CONST:
        *out = n->value;
        return EW_STATUS_OK;
    case JINJA_NAME:
        return eval_name(scope, n, out);
    case JINJA_TUPLE:
    case JINJA_ARRAY:
        return eval_list(r, scope, n, n->kind == JINJA_TUPLE, out);
    case JINJA_MAP:
        return eval_dict(r, scope, n, out);
    case JINJA_UNARY:
        return eval_unary(r, scope, n, out);
    case JINJA_BINARY:
        return eval_binary(r, scope, n, out);
    case JINJA_CHAIN:
        return eval_chain(r, scope, n, out);
    case JINJA_COND:
        return eval_cond(r, scope, n, out);
    case JINJA_ATTR:
    case JINJA_ITEM:
        return eval_access(r, scope, n, out);
    case JINJA_SLICE:
        return eval_slice(r, scope, n, out);
    case JINJA_CALL:
        return eval_call(r, scope, n, jinja_undefined("caller"), out);
    case JINJA_FILTER:
        return eval_filter(r, scope, n, NULL, out);
    case JINJA_TEST:
        return eval_test(r, scope, n, out);
    default:
        return jinja_fail(r, EW_STATUS_MALFORMED, "not an expression");
    }
}

ew_status jinja_eval(struct jinja_run *r, struct jinja_scope *scope, const struct jinja_node *n,
                     struct jinja_value *out)
{
    EW_TRY(enter(r, n));
    EW_TRY(eval_kind(r, scope, n, out));
    r->depth--;
    return EW_STATUS_OK;
}

/* ---- statements ---- */

static ew_status emit(struct jinja_run *r, struct jinja_out *out, const struct jinja_str *s)
{
    if (s->len == 0)
        return EW_STATUS_OK;
    out->bytes += s->len;
    if (out->bytes > r->caps.max_out_bytes)
        return jinja_fail(r, EW_STATUS_LIMIT, "the output is longer than %llu bytes",
                          (unsigned long long)r->caps.max_out_bytes);
    if (out->n == out->cap) {
        const size_t cap = out->cap ? out->cap * 2 : 16;
        const struct jinja_str **const more =
            ew_arena_new(&r->arena, const struct jinja_str *, cap);
        if (!more)
            return jinja_no_memory(r);
        if (out->n)
            memcpy(more, out->parts, out->n * sizeof(*more));
        out->parts = more;
        out->cap = cap;
    }
    out->parts[out->n++] = s;
    return EW_STATUS_OK;
}

static ew_status assign(struct jinja_run *r, struct jinja_scope *scope,
                        const struct jinja_node *target, struct jinja_value v)
{
    struct jinja_value holder, key;
    struct jinja_list *items;

    if (target->kind == JINJA_NAME)
        return jinja_scope_set(r, scope, target->text, target->len, v);
    if (target->kind == JINJA_ATTR) {
        EW_TRY(jinja_eval(r, scope, target->a, &holder));
        if (holder.kind != JINJA_DICT || !holder.u.dict->is_namespace)
            return jinja_fail(r, EW_STATUS_MALFORMED,
                              "cannot assign attribute on non-namespace object");
        EW_TRY(jinja_str_new(r, target->text, target->len, NULL, &key));
        return jinja_dict_set(r, holder.u.dict, key, v);
    }
    EW_TRY(jinja_iterate(r, v, &items));
    if (items->n != target->n_kids)
        return jinja_fail(r, EW_STATUS_MALFORMED, "%zu values to unpack into %zu names", items->n,
                          target->n_kids);
    for (size_t i = 0; i < items->n; i++)
        EW_TRY(assign(r, scope, target->kids[i], items->v[i]));
    return EW_STATUS_OK;
}

static ew_status new_scope(struct jinja_run *r, struct jinja_scope *parent,
                           struct jinja_scope **out)
{
    *out = ew_arena_new(&r->arena, struct jinja_scope, 1);
    if (!*out)
        return jinja_no_memory(r);
    (*out)->parent = parent;
    return EW_STATUS_OK;
}

static ew_status set_field(struct jinja_run *r, struct jinja_dict *d, const char *name,
                           struct jinja_value v)
{
    struct jinja_value key;

    EW_TRY(jinja_str_new(r, name, strlen(name), NULL, &key));
    return jinja_dict_set(r, d, key, v);
}

/* The `loop` object of item i of n; a namespace dict whose cycle and changed are methods. */
static ew_status make_loop(struct jinja_run *r, const struct jinja_list *items, size_t i,
                           int64_t depth, struct jinja_value *out)
{
    EW_TRY(jinja_dict_new(r, out));
    struct jinja_dict *const d = out->u.dict;
    EW_TRY(set_field(r, d, "index", jinja_int((int64_t)i + 1)));
    EW_TRY(set_field(r, d, "index0", jinja_int((int64_t)i)));
    EW_TRY(set_field(r, d, "revindex", jinja_int((int64_t)(items->n - i))));
    EW_TRY(set_field(r, d, "revindex0", jinja_int((int64_t)(items->n - i) - 1)));
    EW_TRY(set_field(r, d, "first", jinja_bool(i == 0)));
    EW_TRY(set_field(r, d, "last", jinja_bool(i + 1 == items->n)));
    EW_TRY(set_field(r, d, "length", jinja_int((int64_t)items->n)));
    EW_TRY(set_field(r, d, "depth", jinja_int(depth)));
    EW_TRY(set_field(r, d, "depth0", jinja_int(depth - 1)));
    EW_TRY(set_field(r, d, "previtem", i ? items->v[i - 1] : jinja_undefined("previtem")));
    return set_field(r, d, "nextitem",
                     i + 1 < items->n ? items->v[i + 1] : jinja_undefined("nextitem"));
}

/* Items that pass the loop's filter, so that loop.length and loop.last are right. */
static ew_status filter_items(struct jinja_run *r, struct jinja_scope *scope,
                              const struct jinja_node *n, struct jinja_list **items)
{
    struct jinja_value kept, v;
    struct jinja_scope *inner;

    EW_TRY(jinja_list_new(r, false, &kept));
    for (size_t i = 0; i < (*items)->n; i++) {
        EW_TRY(new_scope(r, scope, &inner));
        EW_TRY(assign(r, inner, n->a, (*items)->v[i]));
        EW_TRY(jinja_eval(r, inner, n->c, &v));
        if (jinja_truth(v))
            EW_TRY(jinja_list_push(r, kept.u.list, (*items)->v[i]));
    }
    *items = kept.u.list;
    return EW_STATUS_OK;
}

static ew_status exec_for(struct jinja_run *r, struct jinja_scope *scope,
                          const struct jinja_node *n, struct jinja_out *out, enum jinja_flow *flow)
{
    struct jinja_value iterable, loop;
    struct jinja_list *items;
    struct jinja_scope *inner;

    if (n->negate)
        return jinja_fail(r, EW_STATUS_UNSUPPORTED, "recursive loops are not supported");
    EW_TRY(jinja_eval(r, scope, n->b, &iterable));
    EW_TRY(jinja_iterate(r, iterable, &items));
    if (n->c)
        EW_TRY(filter_items(r, scope, n, &items));
    const size_t n_items =
        items->n; /* the body cannot change the list, but it may be the list's owner */
    for (size_t i = 0; i < n_items; i++) {
        enum jinja_flow inner_flow;
        EW_TRY(jinja_charge(r, 1));
        EW_TRY(new_scope(r, scope, &inner));
        EW_TRY(make_loop(r, items, i, 1, &loop));
        EW_TRY(jinja_scope_set(r, inner, "loop", 4, loop));
        EW_TRY(assign(r, inner, n->a, items->v[i]));
        EW_TRY(jinja_exec(r, inner, n->body, n->n_body, out, &inner_flow));
        if (inner_flow == JINJA_FLOW_BREAK)
            break;
    }
    if (n_items == 0) {
        EW_TRY(new_scope(r, scope, &inner));
        return jinja_exec(r, inner, n->orelse, n->n_orelse, out, flow);
    }
    return EW_STATUS_OK;
}

static ew_status exec_set(struct jinja_run *r, struct jinja_scope *scope,
                          const struct jinja_node *n)
{
    struct jinja_value v;
    struct jinja_scope *inner;

    if (n->b) {
        EW_TRY(jinja_eval(r, scope, n->b, &v));
    } else {
        EW_TRY(new_scope(r, scope, &inner));
        EW_TRY(exec_to_str(r, inner, n, &v));
        if (n->c)
            EW_TRY(eval_filter(r, scope, n->c, &v, &v));
    }
    return assign(r, scope, n->a, v);
}

static ew_status make_macro(struct jinja_run *r, struct jinja_scope *scope,
                            const struct jinja_node *n, struct jinja_value *out)
{
    struct jinja_macro *const m = ew_arena_new(&r->arena, struct jinja_macro, 1);

    if (!m)
        return jinja_no_memory(r);
    *m = (struct jinja_macro){ n, scope };
    *out = (struct jinja_value){ .kind = JINJA_MACRO, .u.macro = m };
    return EW_STATUS_OK;
}

static ew_status exec_output(struct jinja_run *r, struct jinja_out *out, struct jinja_value v)
{
    struct jinja_value text;

    EW_TRY(jinja_to_str(r, v, &text));
    return emit(r, out, text.u.s);
}

static ew_status exec_with(struct jinja_run *r, struct jinja_scope *scope,
                           const struct jinja_node *n, struct jinja_out *out, enum jinja_flow *flow)
{
    struct jinja_scope *inner;
    struct jinja_value v;

    EW_TRY(new_scope(r, scope, &inner));
    for (size_t i = 0; i < n->n_kids; i += 2) {
        EW_TRY(jinja_eval(r, scope, n->kids[i + 1], &v));
        EW_TRY(assign(r, inner, n->kids[i], v));
    }
    return jinja_exec(r, inner, n->body, n->n_body, out, flow);
}

static ew_status exec_filter_block(struct jinja_run *r, struct jinja_scope *scope,
                                   const struct jinja_node *n, struct jinja_out *out)
{
    struct jinja_scope *inner;
    struct jinja_value v;

    EW_TRY(new_scope(r, scope, &inner));
    EW_TRY(exec_to_str(r, inner, n, &v));
    EW_TRY(eval_filter(r, scope, n->a, &v, &v));
    return exec_output(r, out, v);
}

static ew_status exec_text(struct jinja_run *r, const struct jinja_node *n, struct jinja_out *out)
{
    struct jinja_str *const s = ew_arena_new(&r->arena, struct jinja_str, 1);

    if (!s)
        return jinja_no_memory(r);
    *s = (struct jinja_str){ .at = n->text, .len = n->len };
    return emit(r, out, s);
}

static ew_status exec_one(struct jinja_run *r, struct jinja_scope *scope,
                          const struct jinja_node *n, struct jinja_out *out, enum jinja_flow *flow)
{
    struct jinja_value v, text;

    switch (n->kind) {
    case JINJA_TEXT:
        return exec_text(r, n, out);
    case JINJA_OUTPUT:
        EW_TRY(jinja_eval(r, scope, n->a, &v));
        return exec_output(r, out, v);
    case JINJA_IF:
        EW_TRY(jinja_eval(r, scope, n->a, &v));
        if (jinja_truth(v))
            return jinja_exec(r, scope, n->body, n->n_body, out, flow);
        return jinja_exec(r, scope, n->orelse, n->n_orelse, out, flow);
    case JINJA_FOR:
        return exec_for(r, scope, n, out, flow);
    case JINJA_SET:
        return exec_set(r, scope, n);
    case JINJA_MACRO_DEF:
        EW_TRY(make_macro(r, scope, n, &v));
        return jinja_scope_set(r, scope, n->text, n->len, v);
    case JINJA_CALL_BLOCK:
        EW_TRY(make_macro(r, scope, n, &v));
        EW_TRY(eval_call(r, scope, n->a, v, &text));
        return exec_output(r, out, text);
    case JINJA_FILTER_BLOCK:
        return exec_filter_block(r, scope, n, out);
    case JINJA_WITH:
        return exec_with(r, scope, n, out, flow);
    case JINJA_SCOPE:
        return jinja_exec(r, scope, n->body, n->n_body, out, flow);
    case JINJA_BREAK:
    case JINJA_CONTINUE:
        *flow = n->kind == JINJA_BREAK ? JINJA_FLOW_BREAK : JINJA_FLOW_CONTINUE;
        return EW_STATUS_OK;
    default:
        return jinja_fail(r, EW_STATUS_MALFORMED, "not a statement");
    }
}

ew_status jinja_exec(struct jinja_run *r, struct jinja_scope *scope, struct jinja_node *const *body,
                     size_t n_body, struct jinja_out *out, enum jinja_flow *flow)
{
    *flow = JINJA_FLOW_NEXT;
    for (size_t i = 0; i < n_body && *flow == JINJA_FLOW_NEXT; i++) {
        EW_TRY(enter(r, body[i]));
        EW_TRY(exec_one(r, scope, body[i], out, flow));
        r->depth--;
    }
    return EW_STATUS_OK;
}

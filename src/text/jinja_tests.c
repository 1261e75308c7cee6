/* text/jinja_tests.c - "is" tests. */
#include <string.h>

#include "text/jinja_eval.h"

static bool all_chars(const struct jinja_str *s, bool upper)
{
    bool any = false;

    for (size_t i = 0; i < s->len; i++) {
        const char c = s->at[i];
        if (upper ? c >= 'a' && c <= 'z' : c >= 'A' && c <= 'Z')
            return false;
        any |= (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    }
    return any;
}

static ew_status integer_test(struct jinja_run *r, const char *name, struct jinja_value v,
                              const struct jinja_call *call, bool *out)
{
    int64_t by;

    if (v.kind == JINJA_UNDEFINED)
        return jinja_fail(r, EW_STATUS_MALFORMED, "'%s' is undefined", v.u.missing);
    if (v.kind != JINJA_INT && v.kind != JINJA_BOOL)
        return jinja_fail(r, EW_STATUS_MALFORMED, "test '%s' needs an integer, not %s", name,
                          jinja_type_text(v));
    EW_TRY(jinja_arg_int(r, call, 0, "num", 2, &by));
    if (by == 0)
        return jinja_fail(r, EW_STATUS_MALFORMED, "division by zero");
    const int64_t rest = by == -1 ? 0 : jinja_as_i64(v) % by;
    *out = (rest == 0) == (name[0] != 'o');
    return EW_STATUS_OK;
}

static ew_status compare_test(struct jinja_run *r, const char *op, struct jinja_value v,
                              const struct jinja_call *call, bool *out)
{
    const struct jinja_value other = jinja_arg_get(call, 0, NULL);
    int order;

    if (strcmp(op, "==") == 0 || strcmp(op, "!=") == 0) {
        *out = jinja_equal(v, other, 0) == (op[0] == '=');
        return EW_STATUS_OK;
    }
    EW_TRY(jinja_compare(r, v, other, &order));
    *out = order != 2 &&
           (op[0] == '<' ? order < 0 || (op[1] && !order) : order > 0 || (op[1] && !order));
    return EW_STATUS_OK;
}

/* Tests of the value's kind alone; -1: not one of these. */
static int kind_test(const char *name, struct jinja_value v)
{
    static const struct {
        const char *name;
        uint32_t kinds;
    } table[] = {
        { "undefined", 1u << JINJA_UNDEFINED },
        { "none", 1u << JINJA_NONE },
        { "string", 1u << JINJA_STR },
        { "number", 1u << JINJA_INT | 1u << JINJA_FLOAT | 1u << JINJA_BOOL },
        { "integer", 1u << JINJA_INT },
        { "float", 1u << JINJA_FLOAT },
        { "boolean", 1u << JINJA_BOOL },
        { "mapping", 1u << JINJA_DICT },
        { "iterable",
          1u << JINJA_STR | 1u << JINJA_LIST | 1u << JINJA_DICT | 1u << JINJA_UNDEFINED },
        { "sequence",
          1u << JINJA_STR | 1u << JINJA_LIST | 1u << JINJA_DICT | 1u << JINJA_UNDEFINED },
        { "callable", 1u << JINJA_MACRO | 1u << JINJA_FUNC | 1u << JINJA_METHOD },
        { "defined", ~(1u << JINJA_UNDEFINED) },
    };

    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        if (strcmp(name, table[i].name) == 0)
            return (table[i].kinds >> v.kind & 1u) != 0;
    if (strcmp(name, "true") == 0 || strcmp(name, "false") == 0)
        return v.kind == JINJA_BOOL && v.u.b == (name[0] == 't');
    if (strcmp(name, "lower") == 0 || strcmp(name, "upper") == 0)
        return v.kind == JINJA_STR && all_chars(v.u.s, name[0] == 'u');
    if (strcmp(name, "escaped") == 0)
        return v.kind == JINJA_STR && v.u.s->safe;
    return -1;
}

static const char *comparison_of(const char *name)
{
    static const char *const table[][2] = {
        { "eq", "==" }, { "equalto", "==" },    { "==", "==" }, { "ne", "!=" }, { "!=", "!=" },
        { "lt", "<" },  { "lessthan", "<" },    { "<", "<" },   { "le", "<=" }, { "<=", "<=" },
        { "gt", ">" },  { "greaterthan", ">" }, { ">", ">" },   { "ge", ">=" }, { ">=", ">=" },
    };

    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        if (strcmp(name, table[i][0]) == 0)
            return table[i][1];
    return NULL;
}

ew_status jinja_apply_test(struct jinja_run *r, const char *name, struct jinja_value v,
                           const struct jinja_call *call, bool *out)
{
    const int by_kind = kind_test(name, v);
    const char *const op = comparison_of(name);

    *out = by_kind == 1;
    if (by_kind >= 0)
        return EW_STATUS_OK;
    if (op)
        return compare_test(r, op, v, call, out);
    if (strcmp(name, "odd") == 0 || strcmp(name, "even") == 0 || strcmp(name, "divisibleby") == 0)
        return integer_test(r, name, v, call, out);
    if (strcmp(name, "in") == 0)
        return jinja_contains(r, jinja_arg_get(call, 0, "seq"), v, out);
    if (strcmp(name, "sameas") == 0) {
        const struct jinja_value other = jinja_arg_get(call, 0, "other");
        *out = v.kind == other.kind && (v.kind == JINJA_LIST   ? v.u.list == other.u.list
                                        : v.kind == JINJA_DICT ? v.u.dict == other.u.dict
                                                               : jinja_equal(v, other, 0));
        return EW_STATUS_OK;
    }
    return jinja_fail(r, EW_STATUS_UNSUPPORTED, "no test named '%s'", name);
}

/* text/jinja_ops.c - arithmetic, arguments, and the global functions of a template. */
#include <math.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "base/size.h"
#include "os/os.h"
#include "text/jinja_eval.h"

/* ---- arguments ---- */

struct jinja_value jinja_arg_get(const struct jinja_call *call, size_t i, const char *name)
{
    if (i < call->n)
        return call->v[i];
    for (size_t k = 0; name && k < call->n_kw; k++)
        if (call->kw[k].len == strlen(name) && memcmp(call->kw[k].name, name, call->kw[k].len) == 0)
            return call->kw[k].value;
    return jinja_undefined(name ? name : "argument");
}

ew_status jinja_arg_int(struct jinja_run *r, const struct jinja_call *call, size_t i,
                        const char *name, int64_t fallback, int64_t *out)
{
    const struct jinja_value v = jinja_arg_get(call, i, name);

    *out = fallback;
    if (v.kind == JINJA_UNDEFINED || v.kind == JINJA_NONE)
        return EW_STATUS_OK;
    if (v.kind != JINJA_INT && v.kind != JINJA_BOOL)
        return jinja_fail(r, EW_STATUS_MALFORMED, "argument %s must be an integer, not %s",
                          name ? name : "", jinja_type_text(v));
    *out = jinja_as_i64(v);
    return EW_STATUS_OK;
}

ew_status jinja_arg_str(struct jinja_run *r, const struct jinja_call *call, size_t i,
                        const char *name, const struct jinja_str **out)
{
    const struct jinja_value v = jinja_arg_get(call, i, name);

    *out = NULL;
    if (v.kind == JINJA_UNDEFINED || v.kind == JINJA_NONE)
        return EW_STATUS_OK;
    if (v.kind != JINJA_STR)
        return jinja_fail(r, EW_STATUS_MALFORMED, "argument %s must be a string, not %s",
                          name ? name : "", jinja_type_text(v));
    *out = v.u.s;
    return EW_STATUS_OK;
}

/* ---- arithmetic ---- */

static ew_status operands(struct jinja_run *r, const char *op, struct jinja_value a,
                          struct jinja_value b)
{
    if (a.kind == JINJA_UNDEFINED || b.kind == JINJA_UNDEFINED)
        return jinja_fail(r, EW_STATUS_MALFORMED, "'%s' is undefined",
                          a.kind == JINJA_UNDEFINED ? a.u.missing : b.u.missing);
    if (op[0] == '+' && a.kind == JINJA_STR)
        return jinja_fail(r, EW_STATUS_MALFORMED, "can only concatenate str (not \"%s\") to str",
                          jinja_type_text(b));
    return jinja_fail(r, EW_STATUS_MALFORMED, "unsupported operand types for %s: '%s' and '%s'", op,
                      jinja_type_text(a), jinja_type_text(b));
}

static int64_t floor_div(int64_t a, int64_t b)
{
    const int64_t q = a / b;

    return q - (a % b != 0 && (a < 0) != (b < 0));
}

static ew_status int_arith(struct jinja_run *r, const char *op, int64_t a, int64_t b,
                           struct jinja_value *out)
{
    int64_t v = 0;
    bool ok = true;

    if ((op[0] == '/' || op[0] == '%') && b == 0)
        return jinja_fail(r, EW_STATUS_MALFORMED, "division by zero");
    if (strcmp(op, "/") == 0) {
        *out = jinja_float((double)a / (double)b);
        return EW_STATUS_OK;
    }
    if (strcmp(op, "**") == 0) {
        if (b < 0) {
            *out = jinja_float(pow((double)a, (double)b));
            return EW_STATUS_OK;
        }
        v = 1;
        for (int64_t base = a; b && ok; b >>= 1) {
            if (b & 1)
                ok = ew_i64_mul(v, base, &v);
            if (b > 1)
                ok = ok && ew_i64_mul(base, base, &base);
        }
    } else if (op[0] == '+') {
        ok = ew_i64_add(a, b, &v);
    } else if (op[0] == '-') {
        ok = !__builtin_sub_overflow(a, b, &v);
    } else if (op[0] == '*') {
        ok = ew_i64_mul(a, b, &v);
    } else if (b == -1) {
        ok = op[0] == '%' || !__builtin_sub_overflow((int64_t)0, a, &v);
    } else {
        v = op[0] == '%' ? a - floor_div(a, b) * b : floor_div(a, b);
    }
    if (!ok)
        return jinja_fail(r, EW_STATUS_LIMIT, "an integer beyond 64 bits");
    *out = jinja_int(v);
    return EW_STATUS_OK;
}

static ew_status float_arith(struct jinja_run *r, const char *op, double a, double b,
                             struct jinja_value *out)
{
    if ((op[0] == '/' || op[0] == '%') && b == 0)
        return jinja_fail(r, EW_STATUS_MALFORMED, "float division by zero");
    if (strcmp(op, "**") == 0)
        *out = jinja_float(pow(a, b));
    else if (op[0] == '+')
        *out = jinja_float(a + b);
    else if (op[0] == '-')
        *out = jinja_float(a - b);
    else if (op[0] == '*')
        *out = jinja_float(a * b);
    else if (strcmp(op, "//") == 0)
        *out = jinja_float(floor(a / b));
    else if (op[0] == '/')
        *out = jinja_float(a / b);
    else
        *out = jinja_float(a - floor(a / b) * b);
    return EW_STATUS_OK;
}

static ew_status repeat(struct jinja_run *r, struct jinja_value v, int64_t times,
                        struct jinja_value *out)
{
    const size_t len = v.kind == JINJA_STR ? v.u.s->len : v.u.list->n;
    size_t total;

    times = times < 0 ? 0 : times;
    if (!ew_size_mul(len, (size_t)times, &total) || total > r->caps.max_out_bytes)
        return jinja_fail(r, EW_STATUS_LIMIT, "a repetition of %zu x %lld is too long", len,
                          (long long)times);
    EW_TRY(jinja_charge(r, (uint64_t)times));
    if (v.kind == JINJA_STR) {
        const struct jinja_str **const parts =
            ew_arena_new(&r->arena, const struct jinja_str *, (size_t)times + 1);
        if (!parts)
            return jinja_no_memory(r);
        for (int64_t i = 0; i < times; i++)
            parts[i] = v.u.s;
        return jinja_str_concat(r, parts, (size_t)times, out);
    }
    EW_TRY(jinja_list_new(r, v.u.list->tuple, out));
    for (int64_t i = 0; i < times; i++)
        for (size_t k = 0; k < len; k++)
            EW_TRY(jinja_list_push(r, out->u.list, v.u.list->v[k]));
    return EW_STATUS_OK;
}

static ew_status add_lists(struct jinja_run *r, const struct jinja_list *a,
                           const struct jinja_list *b, struct jinja_value *out)
{
    EW_TRY(jinja_charge(r, (a->n + b->n) / 8));
    EW_TRY(jinja_list_new(r, a->tuple, out));
    for (size_t i = 0; i < a->n; i++)
        EW_TRY(jinja_list_push(r, out->u.list, a->v[i]));
    for (size_t i = 0; i < b->n; i++)
        EW_TRY(jinja_list_push(r, out->u.list, b->v[i]));
    return EW_STATUS_OK;
}

ew_status jinja_binary(struct jinja_run *r, const char *op, struct jinja_value a,
                       struct jinja_value b, struct jinja_value *out)
{
    if (op[0] == '~') {
        EW_TRY(jinja_to_str(r, a, &a));
        EW_TRY(jinja_to_str(r, b, &b));
    }
    if ((op[0] == '+' || op[0] == '~') && a.kind == JINJA_STR && b.kind == JINJA_STR) {
        const struct jinja_str *const parts[2] = { a.u.s, b.u.s };
        return jinja_str_concat(r, parts, 2, out);
    }
    if (op[0] == '+' && a.kind == JINJA_LIST && b.kind == JINJA_LIST &&
        a.u.list->tuple == b.u.list->tuple)
        return add_lists(r, a.u.list, b.u.list, out);
    if (strcmp(op, "*") == 0 && (a.kind == JINJA_STR || a.kind == JINJA_LIST) &&
        b.kind == JINJA_INT)
        return repeat(r, a, b.u.i, out);
    if (strcmp(op, "*") == 0 && a.kind == JINJA_INT &&
        (b.kind == JINJA_STR || b.kind == JINJA_LIST))
        return repeat(r, b, a.u.i, out);
    if (op[0] == '%' && a.kind == JINJA_STR)
        return jinja_fail(r, EW_STATUS_UNSUPPORTED,
                          "printf-style formatting with %% is not supported");
    if (!jinja_is_number(a) || !jinja_is_number(b))
        return operands(r, op, a, b);
    if (a.kind == JINJA_FLOAT || b.kind == JINJA_FLOAT)
        return float_arith(r, op, jinja_as_f64(a), jinja_as_f64(b), out);
    return int_arith(r, op, jinja_as_i64(a), jinja_as_i64(b), out);
}

/* ---- global functions ---- */

enum { FUNC_RAISE, FUNC_STRFTIME, FUNC_RANGE, FUNC_NAMESPACE, FUNC_DICT, FUNC_COUNT };
static const char *const globals[FUNC_COUNT] = { "raise_exception", "strftime_now", "range",
                                                 "namespace", "dict" };

bool jinja_global_find(const char *name, size_t len, struct jinja_value *out)
{
    for (int i = 0; i < FUNC_COUNT; i++)
        if (strlen(globals[i]) == len && memcmp(globals[i], name, len) == 0) {
            *out = (struct jinja_value){ .kind = JINJA_FUNC, .u.func = i };
            return true;
        }
    return false;
}

static ew_status call_range(struct jinja_run *r, const struct jinja_call *call,
                            struct jinja_value *out)
{
    int64_t a, b, step;

    if (call->n < 1 || call->n > 3)
        return jinja_fail(r, EW_STATUS_MALFORMED, "range expects 1 to 3 arguments, got %zu",
                          call->n);
    EW_TRY(jinja_arg_int(r, call, 0, NULL, 0, &a));
    EW_TRY(jinja_arg_int(r, call, 1, NULL, 0, &b));
    EW_TRY(jinja_arg_int(r, call, 2, NULL, 1, &step));
    if (call->n == 1) {
        b = a;
        a = 0;
    }
    if (step == 0)
        return jinja_fail(r, EW_STATUS_MALFORMED, "range() arg 3 must not be zero");
    const double len = ((double)b - (double)a) / (double)step;
    if (len > (double)r->caps.max_range_len)
        return jinja_fail(r, EW_STATUS_LIMIT, "range of %.0f elements, at most %llu", len,
                          (unsigned long long)r->caps.max_range_len);
    EW_TRY(jinja_list_new(r, false, out));
    for (int64_t i = a; step > 0 ? i < b : i > b;) {
        EW_TRY(jinja_list_push(r, out->u.list, jinja_int(i)));
        if (!ew_i64_add(i, step, &i))
            break;
    }
    return jinja_charge(r, out->u.list->n / 16);
}

static ew_status call_dict(struct jinja_run *r, const struct jinja_call *call, bool is_namespace,
                           struct jinja_value *out)
{
    struct jinja_value key;

    EW_TRY(jinja_dict_new(r, out));
    if (call->n > 1 || (call->n == 1 && call->v[0].kind != JINJA_DICT))
        return jinja_fail(r, EW_STATUS_MALFORMED, "%s() takes a mapping and keywords",
                          is_namespace ? "namespace" : "dict");
    for (size_t i = 0; call->n && i < call->v[0].u.dict->n; i++)
        EW_TRY(jinja_dict_set(r, out->u.dict, call->v[0].u.dict->e[i].key,
                              call->v[0].u.dict->e[i].value));
    for (size_t i = 0; i < call->n_kw; i++) {
        EW_TRY(jinja_str_new(r, call->kw[i].name, call->kw[i].len, NULL, &key));
        EW_TRY(jinja_dict_set(r, out->u.dict, key, call->kw[i].value));
    }
    out->u.dict->is_namespace = is_namespace;
    return EW_STATUS_OK;
}

/* datetime.now().strftime(format), of the C locale. */
static ew_status call_strftime(struct jinja_run *r, const struct jinja_call *call,
                               struct jinja_value *out)
{
    const struct jinja_str *format;
    char pattern[256], text[512];
    struct tm tm;
    const time_t now = r->now_s < 0 ? (time_t)ew_wall_clock_s() : (time_t)r->now_s;

    EW_TRY(jinja_arg_str(r, call, 0, "format", &format));
    if (!format || format->len >= sizeof(pattern))
        return jinja_fail(r, EW_STATUS_MALFORMED,
                          "strftime_now needs a format of at most %zu bytes", sizeof(pattern) - 1);
    memcpy(pattern, format->at, format->len);
    pattern[format->len] = '\0';
    if (!(r->now_s < 0 ? localtime_r(&now, &tm) : gmtime_r(&now, &tm)))
        return jinja_fail(r, EW_STATUS_MALFORMED, "the time cannot be told");
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored                                                                     \
    "-Wformat-nonliteral" /* the format is the template's, bounded by text */
    const size_t n = strftime(text, sizeof(text), pattern, &tm);
#pragma GCC diagnostic pop
    return jinja_str_new(r, text, n, NULL, out);
}

ew_status jinja_call_global(struct jinja_run *r, int func, const struct jinja_call *call,
                            struct jinja_value *out)
{
    struct jinja_value text;

    switch (func) {
    case FUNC_RAISE:
        EW_TRY(jinja_to_str(r, jinja_arg_get(call, 0, "message"), &text));
        return jinja_fail(r, EW_STATUS_MALFORMED, "%.*s",
                          (int)(text.u.s->len < 400 ? text.u.s->len : 400), text.u.s->at);
    case FUNC_STRFTIME:
        return call_strftime(r, call, out);
    case FUNC_RANGE:
        return call_range(r, call, out);
    default:
        return call_dict(r, call, func == FUNC_NAMESPACE, out);
    }
}

/* base/json.c - strict JSON through jansson. */
#include "base/json.h"

#include <math.h>

#include "os/os.h"

ew_status ew_json_parse(const char *bytes, size_t len, const char *what, json_t **out,
                        ew_error *err)
{
    json_error_t jerr;

    *out = json_loadb(bytes, len, JSON_REJECT_DUPLICATES, &jerr);
    if (*out)
        return EW_STATUS_OK;
    return ew_fail(err, EW_STATUS_MALFORMED, "%s: JSON line %d column %d: %s", what, jerr.line,
                   jerr.column, jerr.text);
}

ew_status ew_json_load(const char *path, size_t max_bytes, json_t **out, ew_error *err)
{
    char *text;
    size_t len;

    *out = NULL;
    EW_TRY(ew_file_read(path, max_bytes, &text, &len, err));
    const ew_status st = ew_json_parse(text, len, path, out, err);
    ew_mem_free(text);
    return st;
}

static const char *type_text(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a real number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a boolean";
    case JSON_NULL:
        break;
    }
    return "null";
}

static ew_status wrong(const char *key, const char *what, const char *wanted, const json_t *v,
                       ew_error *err)
{
    return ew_fail(err, EW_STATUS_MALFORMED, "%s: \"%s\" is %s, not %s", what, key, type_text(v),
                   wanted);
}

static const json_t *lookup(const json_t *obj, const char *key)
{
    const json_t *const v = json_object_get(obj, key);

    return json_is_null(v) ? NULL : v;
}

ew_status ew_json_get_i64_or(const json_t *obj, const char *key, const char *what, int64_t fallback,
                             int64_t *out, ew_error *err)
{
    const json_t *const v = lookup(obj, key);

    *out = fallback;
    if (!v)
        return EW_STATUS_OK;
    if (json_is_integer(v)) {
        *out = json_integer_value(v);
        return EW_STATUS_OK;
    }
    if (json_is_real(v)) {
        const double d = json_real_value(v);
        if (d == floor(d) && fabs(d) < 0x1p53) {
            *out = (int64_t)d;
            return EW_STATUS_OK;
        }
    }
    return wrong(key, what, "an integer", v, err);
}

ew_status ew_json_get_i64(const json_t *obj, const char *key, const char *what, int64_t *out,
                          ew_error *err)
{
    if (!lookup(obj, key))
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: \"%s\" is missing", what, key);
    return ew_json_get_i64_or(obj, key, what, 0, out, err);
}

ew_status ew_json_get_f64_or(const json_t *obj, const char *key, const char *what, double fallback,
                             double *out, ew_error *err)
{
    const json_t *const v = lookup(obj, key);

    *out = fallback;
    if (!v)
        return EW_STATUS_OK;
    if (!json_is_number(v))
        return wrong(key, what, "a number", v, err);
    *out = json_number_value(v);
    return EW_STATUS_OK;
}

ew_status ew_json_get_bool_or(const json_t *obj, const char *key, const char *what, bool fallback,
                              bool *out, ew_error *err)
{
    const json_t *const v = lookup(obj, key);

    *out = fallback;
    if (!v)
        return EW_STATUS_OK;
    if (!json_is_boolean(v))
        return wrong(key, what, "a boolean", v, err);
    *out = json_is_true(v);
    return EW_STATUS_OK;
}

ew_status ew_json_get_str_or(const json_t *obj, const char *key, const char *what,
                             const char *fallback, const char **out, ew_error *err)
{
    const json_t *const v = lookup(obj, key);

    *out = fallback;
    if (!v)
        return EW_STATUS_OK;
    if (!json_is_string(v))
        return wrong(key, what, "a string", v, err);
    *out = json_string_value(v);
    return EW_STATUS_OK;
}

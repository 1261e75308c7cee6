/* eval/lines.c - reading a file of questions. */
#include "eval/lines.h"

#include <string.h>

#include "base/mem.h"

static size_t count_lines(const char *text, size_t len)
{
    size_t n = 1;

    for (size_t i = 0; i < len; i++)
        n += text[i] == '\n';
    return n;
}

static bool is_blank(const char *line, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r')
            return false;
    return true;
}

static ew_status add_line(struct ew_lines *l, const char *line, size_t len, size_t number,
                          ew_error *err)
{
    ew_error why = { EW_STATUS_OK, "" };
    json_t *v;

    if (ew_json_parse(line, len, "JSON", &v, &why))
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: line %zu is not JSON: %.200s", l->name,
                       number, why.text);
    if (!json_is_object(v)) {
        json_decref(v);
        return ew_fail(err, EW_STATUS_MALFORMED, "%s: line %zu is not a JSON object", l->name,
                       number);
    }
    l->v[l->n] = v;
    l->number[l->n++] = number;
    return EW_STATUS_OK;
}

ew_status ew_lines_load(const char *text, size_t len, const char *name, uint32_t limit,
                        struct ew_lines *out, ew_error *err)
{
    const size_t cap = count_lines(text, len);
    ew_status st = EW_STATUS_OK;
    size_t number = 0;

    *out = (struct ew_lines){ .name = name };
    out->v = ew_mem_calloc(EW_MEM_EVAL, cap, sizeof(json_t *));
    out->number = ew_mem_calloc(EW_MEM_EVAL, cap, sizeof(*out->number));
    if (!out->v || !out->number)
        st = ew_fail(err, EW_STATUS_NO_MEMORY, "%s: %zu lines", name, cap);
    for (size_t at = 0; at < len && !st && (!limit || out->n < limit);) {
        const char *const end = memchr(text + at, '\n', len - at);
        const size_t n = end ? (size_t)(end - (text + at)) : len - at;

        number++;
        if (!is_blank(text + at, n))
            st = add_line(out, text + at, n, number, err);
        at += n + 1;
    }
    if (!st && out->n == 0)
        st = ew_fail(err, EW_STATUS_INVALID_ARG, "%s: no questions", name);
    if (st)
        ew_lines_release(out);
    return st;
}

void ew_lines_release(struct ew_lines *l)
{
    for (size_t i = 0; i < l->n; i++)
        json_decref(l->v[i]);
    ew_mem_free(l->v);
    ew_mem_free(l->number);
    *l = (struct ew_lines){ 0 };
}

const char *ew_line_text(const json_t *line, const char *key, const char *other_key)
{
    const char *const text = json_string_value(json_object_get(line, key));

    return text || !other_key ? text : json_string_value(json_object_get(line, other_key));
}

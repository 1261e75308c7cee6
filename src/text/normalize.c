/* text/normalize.c - parses and runs the normalizer chain. Unicode normal forms are in
 * normal_form.c; which text is normalised is encode.c's business. */
#include "text/normalize.h"

#include "text/byte_level.h"
#include "text/normal_form.h"
#include "text/utf8.h"

#include <utf8proc.h>

#define MAX_STEPS 256
#define MAX_NEST  16

/* ---- parsing ---- */

static ew_status set_content(struct ew_norm_step *s, const json_t *json, const char *key,
                             ew_error *err)
{
    const json_t *value = json_object_get(json, key);

    if (!json_is_string(value))
        return ew_fail(err, EW_STATUS_MALFORMED, "normalizer: %s is not a string", key);
    s->content_len = json_string_length(value);
    s->content = ew_mem_strndup(EW_MEM_TEXT, json_string_value(value), s->content_len);
    if (!s->content)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "normalizer: out of memory for %s", key);
    return EW_STATUS_OK;
}

static ew_status parse_step(struct ew_norm_step *s, const json_t *json, const char *type,
                            ew_error *err)
{
    static const struct {
        const char *type;
        enum ew_norm_kind kind;
    } kinds[] = {
        { "NFC", EW_NORM_NFC },
        { "NFD", EW_NORM_NFD },
        { "NFKC", EW_NORM_NFKC },
        { "NFKD", EW_NORM_NFKD },
        { "Lowercase", EW_NORM_LOWERCASE },
        { "Strip", EW_NORM_STRIP },
        { "StripAccents", EW_NORM_STRIP_ACCENTS },
        { "Replace", EW_NORM_REPLACE },
        { "Prepend", EW_NORM_PREPEND },
        { "ByteLevel", EW_NORM_BYTE_LEVEL },
    };
    size_t k = 0;

    while (k < sizeof(kinds) / sizeof(kinds[0]) && strcmp(kinds[k].type, type) != 0)
        k++;
    if (k == sizeof(kinds) / sizeof(kinds[0]))
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "normalizer %s is not supported", type);
    s->kind = kinds[k].kind;
    switch (s->kind) {
    case EW_NORM_STRIP:
        EW_TRY(ew_json_get_bool_or(json, "strip_left", "normalizer", true, &s->left, err));
        return ew_json_get_bool_or(json, "strip_right", "normalizer", true, &s->right, err);
    case EW_NORM_REPLACE:
        EW_TRY(ew_pattern_parse(&s->pattern, json_object_get(json, "pattern"), "normalizer Replace",
                                err));
        return set_content(s, json, "content", err);
    case EW_NORM_PREPEND:
        return set_content(s, json, "prepend", err);
    default:
        return EW_STATUS_OK;
    }
}

static ew_status parse_into(struct ew_norm_chain *c, const json_t *json, unsigned depth,
                            ew_error *err)
{
    const char *type;
    const json_t *list;
    const json_t *one;
    size_t i;

    if (!json_is_object(json))
        return ew_fail(err, EW_STATUS_MALFORMED, "normalizer is not an object");
    EW_TRY(ew_json_get_str_or(json, "type", "normalizer", "", &type, err));
    if (strcmp(type, "Sequence") != 0) {
        struct ew_norm_step *grown;

        if (c->n_steps == MAX_STEPS)
            return ew_fail(err, EW_STATUS_LIMIT, "more than %d normalizers", MAX_STEPS);
        grown = ew_mem_resize(EW_MEM_TEXT, c->steps, c->n_steps + 1, sizeof(*grown));
        if (!grown)
            return ew_fail(err, EW_STATUS_NO_MEMORY, "normalizer: out of memory");
        c->steps = grown;
        grown[c->n_steps] = (struct ew_norm_step){ 0 };
        return parse_step(&grown[c->n_steps++], json, type, err);
    }
    list = json_object_get(json, "normalizers");
    if (!json_is_array(list))
        return ew_fail(err, EW_STATUS_MALFORMED, "normalizer Sequence: normalizers is not a list");
    if (depth == MAX_NEST)
        return ew_fail(err, EW_STATUS_LIMIT, "normalizers nested deeper than %d", MAX_NEST);
    json_array_foreach(list, i, one) EW_TRY(parse_into(c, one, depth + 1, err));
    return EW_STATUS_OK;
}

ew_status ew_norm_parse(struct ew_norm_chain *c, const json_t *json, ew_error *err)
{
    return !json || json_is_null(json) ? EW_STATUS_OK : parse_into(c, json, 0, err);
}

void ew_norm_deinit(struct ew_norm_chain *c)
{
    for (size_t i = 0; i < c->n_steps; i++) {
        ew_pattern_deinit(&c->steps[i].pattern);
        ew_mem_free(c->steps[i].content);
    }
    ew_mem_free(c->steps);
    *c = (struct ew_norm_chain){ 0 };
}

/* ---- running ---- */

void ew_norm_text_init(struct ew_norm_text *n, bool has_marks, size_t max_len)
{
    *n = (struct ew_norm_text){ .has_marks = has_marks };
    ew_buf_init(&n->text, EW_MEM_TEXT, max_len);
    ew_buf_init(&n->from_user, EW_MEM_TEXT, max_len);
    ew_buf_init(&n->next_text, EW_MEM_TEXT, max_len);
    ew_buf_init(&n->next_from_user, EW_MEM_TEXT, max_len);
    ew_buf_init(&n->points, EW_MEM_TEXT, 16 * max_len);
}

void ew_norm_text_deinit(struct ew_norm_text *n)
{
    ew_buf_deinit(&n->text);
    ew_buf_deinit(&n->from_user);
    ew_buf_deinit(&n->next_text);
    ew_buf_deinit(&n->next_from_user);
    ew_buf_deinit(&n->points);
}

void ew_norm_keep(struct ew_norm_text *n, size_t begin, size_t end)
{
    ew_buf_append(&n->next_text, n->text.data + begin, end - begin);
    if (n->has_marks)
        ew_buf_append(&n->next_from_user, n->from_user.data + begin, end - begin);
}

void ew_norm_put(struct ew_norm_text *n, const char *text, size_t len, bool from_user)
{
    ew_buf_append(&n->next_text, text, len);
    for (size_t i = 0; n->has_marks && i < len; i++)
        ew_buf_putc(&n->next_from_user, from_user);
}

bool ew_norm_is_from_user(const struct ew_norm_text *n, size_t begin, size_t end)
{
    return n->has_marks && begin < end && memchr(n->from_user.data + begin, 1, end - begin);
}

static void strip(const struct ew_norm_step *s, struct ew_norm_text *n)
{
    size_t begin = 0;
    size_t end = n->text.len;
    size_t used;

    while (s->left && begin < end && ew_char_is_space(ew_utf8_get(n->text.data + begin, &used)))
        begin += used;
    while (s->right && end > begin) {
        const size_t last = ew_utf8_before(n->text.data, end);

        if (!ew_char_is_space(ew_utf8_get(n->text.data + last, &used)))
            break;
        end = last;
    }
    if (begin > 0)
        n->starts_input = false;
    ew_norm_keep(n, begin, end);
}

static void lower_char(struct ew_norm_text *n, size_t at, size_t used, uint32_t cp)
{
    char bytes[4];

    if (cp == 0x130) { /* the one character whose lower case is two */
        ew_norm_put(n, "i\xCC\x87", 3, ew_norm_is_from_user(n, at, at + used));
        return;
    }
    const uint32_t low = (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp);

    ew_norm_put(n, bytes, ew_utf8_put(bytes, low), ew_norm_is_from_user(n, at, at + used));
}

static void map_chars(const struct ew_norm_step *s, struct ew_norm_text *n)
{
    size_t i = 0;

    while (i < n->text.len) {
        size_t used;
        const uint32_t cp = ew_utf8_get(n->text.data + i, &used);

        if (s->kind == EW_NORM_LOWERCASE)
            lower_char(n, i, used, cp);
        else if (!ew_char_is_nonspacing_mark(cp))
            ew_norm_keep(n, i, i + used);
        i += used;
    }
}

static void map_bytes(struct ew_norm_text *n)
{
    if (!n->has_marks) {
        ew_byte_level_map(&n->next_text, n->text.data, n->text.len);
        return;
    }
    for (size_t i = 0; i < n->text.len; i++) {
        const size_t before = n->next_text.len;

        ew_byte_level_map(&n->next_text, n->text.data + i, 1);
        for (size_t k = before; k < n->next_text.len; k++)
            ew_buf_putc(&n->next_from_user, n->from_user.data[i]);
    }
}

static ew_status replace(const struct ew_norm_step *s, struct ew_norm_text *n,
                         struct ew_regex_scratch *scratch, ew_error *err)
{
    struct ew_pattern_walk walk;
    size_t kept = 0;
    bool found = true;

    ew_pattern_walk_init(&walk, &s->pattern, scratch, n->text.data, n->text.len);
    while (!n->next_text.failed) {
        size_t begin;
        size_t end;

        EW_TRY(ew_pattern_walk_next(&walk, &found, &begin, &end, err));
        if (!found)
            break;
        ew_norm_keep(n, kept, begin);
        ew_norm_put(n, s->content, s->content_len, ew_norm_is_from_user(n, begin, end));
        kept = end;
    }
    ew_norm_keep(n, kept, n->text.len);
    return EW_STATUS_OK;
}

static ew_status run_step(const struct ew_norm_step *s, struct ew_norm_text *n,
                          struct ew_regex_scratch *scratch, ew_error *err)
{
    switch (s->kind) {
    case EW_NORM_NFC:
        return ew_normal_form(n, true, false, err);
    case EW_NORM_NFD:
        return ew_normal_form(n, false, false, err);
    case EW_NORM_NFKC:
        return ew_normal_form(n, true, true, err);
    case EW_NORM_NFKD:
        return ew_normal_form(n, false, true, err);
    case EW_NORM_STRIP:
        strip(s, n);
        break;
    case EW_NORM_LOWERCASE:
    case EW_NORM_STRIP_ACCENTS:
        map_chars(s, n);
        break;
    case EW_NORM_REPLACE:
        return replace(s, n, scratch, err);
    case EW_NORM_PREPEND:
        ew_norm_put(n, s->content, s->content_len, false);
        ew_norm_keep(n, 0, n->text.len);
        break;
    case EW_NORM_BYTE_LEVEL:
        map_bytes(n);
        break;
    }
    return EW_STATUS_OK;
}

static void swap(struct ew_buf *a, struct ew_buf *b)
{
    const struct ew_buf t = *a;

    *a = *b;
    *b = t;
}

ew_status ew_norm_run(const struct ew_norm_chain *c, struct ew_norm_text *n,
                      struct ew_regex_scratch *scratch, ew_error *err)
{
    for (size_t i = 0; i < c->n_steps && n->text.len > 0; i++) {
        ew_buf_reset(&n->next_text);
        ew_buf_reset(&n->next_from_user);
        ew_buf_puts(&n->next_text, ""); /* data is there even when nothing remains */
        ew_buf_puts(&n->next_from_user, "");
        EW_TRY(run_step(&c->steps[i], n, scratch, err));
        if (n->next_text.failed || n->next_from_user.failed)
            return ew_fail(err, EW_STATUS_LIMIT, "normalizer: %zu bytes of text grew over %zu",
                           n->text.len, n->next_text.max_len);
        swap(&n->text, &n->next_text);
        swap(&n->from_user, &n->next_from_user);
    }
    return EW_STATUS_OK;
}

/* text/pretokenize_parse.c - reads the pre_tokenizer object of a tokenizer.json. */
#include "text/byte_level.h"
#include "text/pretokenize.h"
#include "text/regex_dialect.h"
#include "text/utf8.h"

#define MAX_STEPS 256
#define MAX_NEST  16

ew_status ew_pre_parse_scheme(const json_t *json, enum ew_prepend *out, ew_error *err)
{
    const char *scheme;
    bool add;

    EW_TRY(ew_json_get_bool_or(json, "add_prefix_space", "Metaspace", true, &add, err));
    EW_TRY(ew_json_get_str_or(json, "prepend_scheme", "Metaspace", add ? "always" : "never",
                              &scheme, err));
    if (strcmp(scheme, "always") == 0)
        *out = add ? EW_PREPEND_ALWAYS : EW_PREPEND_NEVER;
    else if (strcmp(scheme, "first") == 0)
        *out = add ? EW_PREPEND_FIRST : EW_PREPEND_NEVER;
    else if (strcmp(scheme, "never") == 0)
        *out = EW_PREPEND_NEVER;
    else
        return ew_fail(err, EW_STATUS_MALFORMED, "Metaspace: unknown prepend_scheme %s", scheme);
    return EW_STATUS_OK;
}

static ew_status parse_behavior(const json_t *json, const char *fallback,
                                enum ew_split_behavior *out, ew_error *err)
{
    static const char *const names[] = { "Removed", "Isolated", "MergedWithPrevious",
                                         "MergedWithNext", "Contiguous" };
    const char *name;

    EW_TRY(ew_json_get_str_or(json, "behavior", "pre_tokenizer", fallback, &name, err));
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(names[i], name) == 0) {
            *out = (enum ew_split_behavior)i;
            return EW_STATUS_OK;
        }
    }
    return ew_fail(err, EW_STATUS_MALFORMED, "pre_tokenizer: unknown behavior %s", name);
}

static ew_status add_step(struct ew_pre_chain *c, enum ew_pre_kind kind,
                          enum ew_split_behavior behavior, struct ew_pre_step **out, ew_error *err)
{
    struct ew_pre_step *grown;

    if (c->n_steps == MAX_STEPS)
        return ew_fail(err, EW_STATUS_LIMIT, "more than %d pre-tokenizers", MAX_STEPS);
    grown = ew_mem_resize(EW_MEM_TEXT, c->steps, c->n_steps + 1, sizeof(*grown));
    if (!grown)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "pre_tokenizer: out of memory");
    c->steps = grown;
    grown[c->n_steps] = (struct ew_pre_step){ .kind = kind, .behavior = behavior };
    *out = &grown[c->n_steps++];
    return EW_STATUS_OK;
}

static ew_status parse_split(struct ew_pre_chain *c, const json_t *json, ew_error *err)
{
    struct ew_pre_step *s = NULL;

    EW_TRY(add_step(c, EW_PRE_SPLIT, EW_SPLIT_ISOLATED, &s, err));
    EW_TRY(ew_pattern_parse(&s->pattern, json_object_get(json, "pattern"), "pre_tokenizer Split",
                            err));
    EW_TRY(parse_behavior(json, "", &s->behavior, err));
    return ew_json_get_bool_or(json, "invert", "pre_tokenizer Split", false, &s->invert, err);
}

static ew_status parse_byte_level(struct ew_pre_chain *c, const json_t *json, ew_error *err)
{
    struct ew_pre_step *s = NULL;
    bool add_space;
    bool use_regex;

    EW_TRY(add_step(c, EW_PRE_BYTE_LEVEL, EW_SPLIT_ISOLATED, &s, err));
    EW_TRY(ew_json_get_bool_or(json, "add_prefix_space", "ByteLevel", true, &add_space, err));
    EW_TRY(ew_json_get_bool_or(json, "use_regex", "ByteLevel", true, &use_regex, err));
    s->head = add_space ? EW_PREPEND_ALWAYS : EW_PREPEND_NEVER;
    if (!use_regex)
        return EW_STATUS_OK;
    return ew_regex_compile(&s->pattern.regex, ew_str_from(EW_BYTE_LEVEL_REGEX), "ByteLevel", err);
}

static ew_status parse_one_char(struct ew_pattern *p, const json_t *json, const char *key,
                                ew_error *err)
{
    const json_t *value = json_object_get(json, key);
    size_t used;

    if (!json_is_string(value) || json_string_length(value) == 0)
        return ew_fail(err, EW_STATUS_MALFORMED, "pre_tokenizer: %s is not one character", key);
    const struct ew_str text = { json_string_value(value), json_string_length(value) };
    ew_utf8_get(text.at, &used);
    if (used != text.len)
        return ew_fail(err, EW_STATUS_MALFORMED, "pre_tokenizer: %s is not one character", key);
    return ew_pattern_set_literal(p, text, err);
}

static ew_status parse_metaspace(struct ew_pre_chain *c, const json_t *json, ew_error *err)
{
    struct ew_pre_step *s = NULL;

    EW_TRY(add_step(c, EW_PRE_METASPACE, EW_SPLIT_MERGED_WITH_NEXT, &s, err));
    EW_TRY(parse_one_char(&s->pattern, json, "replacement", err));
    EW_TRY(ew_json_get_bool_or(json, "split", "Metaspace", true, &s->cut, err));
    return ew_pre_parse_scheme(json, &s->head, err);
}

static ew_status parse_chars(struct ew_pre_chain *c, const json_t *json, const char *type,
                             ew_error *err)
{
    struct ew_pre_step *s = NULL;

    EW_TRY(add_step(c, EW_PRE_SPLIT, EW_SPLIT_REMOVED, &s, err));
    if (strcmp(type, "CharDelimiterSplit") == 0)
        return parse_one_char(&s->pattern, json, "delimiter", err);
    if (strcmp(type, "Digits") == 0) {
        bool alone;

        s->pattern.is_member = ew_char_is_numeric;
        EW_TRY(ew_json_get_bool_or(json, "individual_digits", "Digits", false, &alone, err));
        s->behavior = alone ? EW_SPLIT_ISOLATED : EW_SPLIT_CONTIGUOUS;
        return EW_STATUS_OK;
    }
    if (strcmp(type, "Punctuation") == 0) {
        s->pattern.is_member = ew_char_is_punctuation;
        return parse_behavior(json, "Isolated", &s->behavior, err);
    }
    if (strcmp(type, "Whitespace") == 0) {
        s->invert = true;
        return ew_regex_compile(&s->pattern.regex,
                                ew_str_from("[" EW_REGEX_WORD_CLASS "\\x{200c}\\x{200d}]+|"
                                            "[^" EW_REGEX_WORD_CLASS "\\x{200c}\\x{200d}\\s]+"),
                                "Whitespace", err);
    }
    s->pattern.is_member = ew_char_is_space;
    if (strcmp(type, "BertPreTokenizer") != 0)
        return EW_STATUS_OK;
    EW_TRY(add_step(c, EW_PRE_SPLIT, EW_SPLIT_ISOLATED, &s, err));
    s->pattern.is_member = ew_char_is_punctuation;
    return EW_STATUS_OK;
}

static ew_status parse_into(struct ew_pre_chain *c, const json_t *json, unsigned depth,
                            ew_error *err)
{
    static const char *const char_types[] = { "Digits",           "Punctuation",
                                              "Whitespace",       "WhitespaceSplit",
                                              "BertPreTokenizer", "CharDelimiterSplit" };
    const char *type;
    const json_t *list;
    const json_t *one;
    size_t i;

    if (!json_is_object(json))
        return ew_fail(err, EW_STATUS_MALFORMED, "pre_tokenizer is not an object");
    EW_TRY(ew_json_get_str_or(json, "type", "pre_tokenizer", "", &type, err));
    if (strcmp(type, "Split") == 0)
        return parse_split(c, json, err);
    if (strcmp(type, "ByteLevel") == 0)
        return parse_byte_level(c, json, err);
    if (strcmp(type, "Metaspace") == 0)
        return parse_metaspace(c, json, err);
    for (i = 0; i < sizeof(char_types) / sizeof(char_types[0]); i++) {
        if (strcmp(type, char_types[i]) == 0)
            return parse_chars(c, json, type, err);
    }
    if (strcmp(type, "Sequence") != 0)
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "pre_tokenizer %s is not supported", type);
    list = json_object_get(json, "pretokenizers");
    if (!json_is_array(list))
        return ew_fail(err, EW_STATUS_MALFORMED,
                       "pre_tokenizer Sequence: pretokenizers is not a list");
    if (depth == MAX_NEST)
        return ew_fail(err, EW_STATUS_LIMIT, "pre-tokenizers nested deeper than %d", MAX_NEST);
    json_array_foreach(list, i, one) EW_TRY(parse_into(c, one, depth + 1, err));
    return EW_STATUS_OK;
}

ew_status ew_pre_parse(struct ew_pre_chain *c, const json_t *json, ew_error *err)
{
    return !json || json_is_null(json) ? EW_STATUS_OK : parse_into(c, json, 0, err);
}

void ew_pre_deinit(struct ew_pre_chain *c)
{
    for (size_t i = 0; i < c->n_steps; i++)
        ew_pattern_deinit(&c->steps[i].pattern);
    ew_mem_free(c->steps);
    *c = (struct ew_pre_chain){ 0 };
}

/* text/decode_parse.c - reads the decoder object of a tokenizer.json. */
#include "text/decode.h"
#include "text/pretokenize.h"
#include "text/utf8.h"

#define MAX_STEPS 64
#define MAX_NEST  16

static ew_status add_step(struct ew_dec_chain *c, enum ew_dec_kind kind, struct ew_dec_step **out,
                          ew_error *err)
{
    struct ew_dec_step *grown;

    if (c->n_steps == MAX_STEPS)
        return ew_fail(err, EW_STATUS_LIMIT, "more than %d decoders", MAX_STEPS);
    grown = ew_mem_resize(EW_MEM_TEXT, c->steps, c->n_steps + 1, sizeof(*grown));
    if (!grown)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "decoder: out of memory");
    c->steps = grown;
    grown[c->n_steps] = (struct ew_dec_step){ .kind = kind };
    *out = &grown[c->n_steps++];
    return EW_STATUS_OK;
}

static ew_status parse_text(struct ew_dec_step *s, const json_t *json, const char *key,
                            bool one_char, ew_error *err)
{
    const json_t *value = json_object_get(json, key);
    size_t used = 0;

    if (!json_is_string(value) || json_string_length(value) == 0)
        return ew_fail(err, EW_STATUS_MALFORMED, "decoder: %s is not a text", key);
    const struct ew_str text = { json_string_value(value), json_string_length(value) };
    ew_utf8_get(text.at, &used);
    if (one_char && used != text.len)
        return ew_fail(err, EW_STATUS_MALFORMED, "decoder: %s is not one character", key);
    return ew_pattern_set_literal(&s->pattern, text, err);
}

static ew_status parse_count(const json_t *json, const char *key, size_t *out, ew_error *err)
{
    int64_t value;

    EW_TRY(ew_json_get_i64(json, key, "decoder Strip", &value, err));
    if (value < 0 || value > 1 << 20)
        return ew_fail(err, EW_STATUS_MALFORMED, "decoder Strip: %s is %lld, not 0 to %d", key,
                       (long long)value, 1 << 20);
    *out = (size_t)value;
    return EW_STATUS_OK;
}

static ew_status parse_replace(struct ew_dec_step *s, const json_t *json, ew_error *err)
{
    const json_t *content = json_object_get(json, "content");

    EW_TRY(ew_pattern_parse(&s->pattern, json_object_get(json, "pattern"), "decoder Replace", err));
    if (!json_is_string(content))
        return ew_fail(err, EW_STATUS_MALFORMED, "decoder Replace: content is not a string");
    s->content_len = json_string_length(content);
    s->content = ew_mem_strndup(EW_MEM_TEXT, json_string_value(content), s->content_len);
    if (!s->content)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "decoder: out of memory");
    return EW_STATUS_OK;
}

static ew_status parse_step(struct ew_dec_step *s, const json_t *json, ew_error *err)
{
    enum ew_prepend head;

    switch (s->kind) {
    case EW_DEC_REPLACE:
        return parse_replace(s, json, err);
    case EW_DEC_STRIP:
        EW_TRY(parse_text(s, json, "content", true, err));
        EW_TRY(parse_count(json, "start", &s->start, err));
        return parse_count(json, "stop", &s->stop, err);
    case EW_DEC_METASPACE:
        EW_TRY(parse_text(s, json, "replacement", true, err));
        EW_TRY(ew_pre_parse_scheme(json, &head, err));
        s->drops_first = head != EW_PREPEND_NEVER;
        return EW_STATUS_OK;
    case EW_DEC_BPE:
        if (!json_object_get(json, "suffix"))
            return ew_pattern_set_literal(&s->pattern, ew_str_from("</w>"), err);
        return parse_text(s, json, "suffix", false, err);
    default:
        return EW_STATUS_OK;
    }
}

static ew_status parse_into(struct ew_dec_chain *c, const json_t *json, unsigned depth,
                            ew_error *err)
{
    static const struct {
        const char *type;
        enum ew_dec_kind kind;
    } kinds[] = {
        { "ByteLevel", EW_DEC_BYTE_LEVEL }, { "ByteFallback", EW_DEC_BYTE_FALLBACK },
        { "Replace", EW_DEC_REPLACE },      { "Fuse", EW_DEC_FUSE },
        { "Strip", EW_DEC_STRIP },          { "Metaspace", EW_DEC_METASPACE },
        { "BPEDecoder", EW_DEC_BPE },
    };
    struct ew_dec_step *s = NULL;
    const char *type;
    const json_t *list;
    const json_t *one;
    size_t i;

    if (!json_is_object(json))
        return ew_fail(err, EW_STATUS_MALFORMED, "decoder is not an object");
    EW_TRY(ew_json_get_str_or(json, "type", "decoder", "", &type, err));
    for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(type, kinds[i].type) == 0) {
            EW_TRY(add_step(c, kinds[i].kind, &s, err));
            return parse_step(s, json, err);
        }
    }
    if (strcmp(type, "Sequence") != 0)
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "decoder %s is not supported", type);
    list = json_object_get(json, "decoders");
    if (!json_is_array(list))
        return ew_fail(err, EW_STATUS_MALFORMED, "decoder Sequence: decoders is not a list");
    if (depth == MAX_NEST)
        return ew_fail(err, EW_STATUS_LIMIT, "decoders nested deeper than %d", MAX_NEST);
    json_array_foreach(list, i, one) EW_TRY(parse_into(c, one, depth + 1, err));
    return EW_STATUS_OK;
}

ew_status ew_dec_parse(struct ew_dec_chain *c, const json_t *json, ew_error *err)
{
    struct ew_dec_step *s = NULL;

    if (json && !json_is_null(json))
        return parse_into(c, json, 0, err);
    return add_step(c, EW_DEC_JOIN, &s, err);
}

void ew_dec_deinit(struct ew_dec_chain *c)
{
    for (size_t i = 0; i < c->n_steps; i++) {
        ew_pattern_deinit(&c->steps[i].pattern);
        ew_mem_free(c->steps[i].content);
    }
    ew_mem_free(c->steps);
    *c = (struct ew_dec_chain){ 0 };
}

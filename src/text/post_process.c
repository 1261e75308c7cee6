/* text/post_process.c - reads post-processors. Only templates for a single text matter here: pairs
 * of texts and type ids are for encoders. */
#include "text/post_process.h"

#define MAX_NEST 16

struct reader {
    struct ew_post one;     /* of the processor being read */
    const json_t *specials; /* of a TemplateProcessing */
    uint32_t n_tokens;
    bool saw_text;
};

static ew_status add_id(struct reader *r, const json_t *id, ew_error *err)
{
    const int64_t value = json_is_integer(id) ? (int64_t)json_integer_value(id) : -1;
    size_t *n = r->saw_text ? &r->one.n_after : &r->one.n_before;

    if (value < 0 || value >= r->n_tokens)
        return ew_fail(err, EW_STATUS_MALFORMED, "post_processor: id %lld is not one of %u tokens",
                       (long long)value, r->n_tokens);
    if (*n == EW_POST_MAX_IDS)
        return ew_fail(err, EW_STATUS_LIMIT, "post_processor: more than %d tokens",
                       EW_POST_MAX_IDS);
    (r->saw_text ? r->one.after : r->one.before)[(*n)++] = (int32_t)value;
    return EW_STATUS_OK;
}

static ew_status read_special(struct reader *r, const json_t *special, ew_error *err)
{
    const json_t *name = json_object_get(special, "id");
    const json_t *entry =
        json_is_string(name) ? json_object_get(r->specials, json_string_value(name)) : NULL;
    const json_t *ids = json_object_get(entry, "ids");
    const json_t *id;
    size_t i;

    if (!json_is_array(ids))
        return ew_fail(err, EW_STATUS_MALFORMED, "post_processor: special token %s has no ids",
                       json_is_string(name) ? json_string_value(name) : "?");
    json_array_foreach(ids, i, id) EW_TRY(add_id(r, id, err));
    return EW_STATUS_OK;
}

static ew_status read_template(struct reader *r, const json_t *json, ew_error *err)
{
    const json_t *list = json_object_get(json, "single");
    const json_t *one;
    size_t i;

    r->specials = json_object_get(json, "special_tokens");
    if (!json_is_array(list))
        return ew_fail(err, EW_STATUS_MALFORMED, "post_processor: single is not a list");
    json_array_foreach(list, i, one)
    {
        const json_t *special = json_object_get(one, "SpecialToken");
        const json_t *sequence = json_object_get(json_object_get(one, "Sequence"), "id");

        if (special) {
            EW_TRY(read_special(r, special, err));
        } else if (json_is_string(sequence) && strcmp(json_string_value(sequence), "A") == 0 &&
                   !r->saw_text) {
            r->saw_text = true;
        } else {
            return ew_fail(err, EW_STATUS_MALFORMED,
                           "post_processor: piece %zu of single is neither a special token nor the "
                           "one text A",
                           i);
        }
    }
    if (!r->saw_text)
        return ew_fail(err, EW_STATUS_MALFORMED, "post_processor: single does not hold the text A");
    return EW_STATUS_OK;
}

/* Bert and Roberta: [text, id] of cls before, of sep after. */
static ew_status read_cls_sep(struct reader *r, const json_t *json, ew_error *err)
{
    EW_TRY(add_id(r, json_array_get(json_object_get(json, "cls"), 1), err));
    r->saw_text = true;
    return add_id(r, json_array_get(json_object_get(json, "sep"), 1), err);
}

/* The new ids go around those that are there. */
static ew_status wrap(struct ew_post *p, const struct ew_post *one, ew_error *err)
{
    if (p->n_before + one->n_before > EW_POST_MAX_IDS ||
        p->n_after + one->n_after > EW_POST_MAX_IDS)
        return ew_fail(err, EW_STATUS_LIMIT, "post_processor: more than %d tokens",
                       EW_POST_MAX_IDS);
    memmove(p->before + one->n_before, p->before, p->n_before * sizeof(*p->before));
    memcpy(p->before, one->before, one->n_before * sizeof(*p->before));
    memcpy(p->after + p->n_after, one->after, one->n_after * sizeof(*p->after));
    p->n_before += one->n_before;
    p->n_after += one->n_after;
    return EW_STATUS_OK;
}

static ew_status parse_into(struct ew_post *p, const json_t *json, uint32_t n_tokens,
                            unsigned depth, ew_error *err)
{
    struct reader r = { .n_tokens = n_tokens };
    const char *type;
    const json_t *list;
    const json_t *one;
    size_t i;

    if (!json_is_object(json))
        return ew_fail(err, EW_STATUS_MALFORMED, "post_processor is not an object");
    EW_TRY(ew_json_get_str_or(json, "type", "post_processor", "", &type, err));
    if (strcmp(type, "ByteLevel") == 0)
        return EW_STATUS_OK;
    if (strcmp(type, "TemplateProcessing") == 0) {
        EW_TRY(read_template(&r, json, err));
        return wrap(p, &r.one, err);
    }
    if (strcmp(type, "BertProcessing") == 0 || strcmp(type, "RobertaProcessing") == 0) {
        EW_TRY(read_cls_sep(&r, json, err));
        return wrap(p, &r.one, err);
    }
    if (strcmp(type, "Sequence") != 0)
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "post_processor %s is not supported", type);
    list = json_object_get(json, "processors");
    if (!json_is_array(list))
        return ew_fail(err, EW_STATUS_MALFORMED,
                       "post_processor Sequence: processors is not a list");
    if (depth == MAX_NEST)
        return ew_fail(err, EW_STATUS_LIMIT, "post-processors nested deeper than %d", MAX_NEST);
    json_array_foreach(list, i, one) EW_TRY(parse_into(p, one, n_tokens, depth + 1, err));
    return EW_STATUS_OK;
}

ew_status ew_post_parse(struct ew_post *p, const json_t *json, uint32_t n_tokens, ew_error *err)
{
    *p = (struct ew_post){ 0 };
    return !json || json_is_null(json) ? EW_STATUS_OK : parse_into(p, json, n_tokens, 0, err);
}

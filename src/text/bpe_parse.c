/* text/bpe_parse.c - reads the "model" object of a tokenizer.json, except for its vocabulary. */
#include "text/bpe_table.h"
#include "text/utf8.h"

#include <stdio.h>

static ew_status parse_affix(struct ew_buf *out, const json_t *model, const char *key,
                             ew_error *err)
{
    const char *text;

    EW_TRY(ew_json_get_str_or(model, key, "model", "", &text, err));
    if (!ew_buf_puts(out, text))
        return ew_fail(err, EW_STATUS_LIMIT, "model: %s of %zu bytes is too long", key,
                       strlen(text));
    return EW_STATUS_OK;
}

static ew_status parse_unk(struct ew_bpe *b, const json_t *model, ew_error *err)
{
    const char *text;
    uint32_t id;

    b->unk_id = -1;
    EW_TRY(ew_json_get_str_or(model, "unk_token", "model", NULL, &text, err));
    if (!text)
        return EW_STATUS_OK;
    b->unk_text = ew_mem_strdup(EW_MEM_TEXT, text);
    if (!b->unk_text)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "model: out of memory for unk_token");
    b->unk_id = ew_map_find(b->vocab, text, strlen(text), &id) ? (int32_t)id : -2;
    return EW_STATUS_OK;
}

static void find_single_ids(struct ew_bpe *b)
{
    uint32_t id;

    for (uint32_t cp = 0; cp < EW_BPE_SINGLE_CHARS; cp++) {
        char text[4];
        const size_t len = ew_utf8_put(text, cp);

        b->char_ids[cp] = ew_map_find(b->vocab, text, len, &id) ? (int32_t)id : -1;
    }
    for (unsigned byte = 0; byte < 256; byte++) {
        char text[8];

        snprintf(text, sizeof(text), "<0x%02X>", byte);
        b->byte_ids[byte] = ew_map_find(b->vocab, text, 6, &id) ? (int32_t)id : -1;
    }
}

/* Splits "a b" at its only space, or takes the two strings of a list. */
static ew_status merge_parts(const json_t *json, size_t rank, struct ew_str *left,
                             struct ew_str *right, ew_error *err)
{
    if (json_is_string(json)) {
        const struct ew_str both = { json_string_value(json), json_string_length(json) };
        const char *space = memchr(both.at, ' ', both.len);
        const size_t at = space ? (size_t)(space - both.at) : both.len;

        if (!space || memchr(space + 1, ' ', both.len - at - 1))
            return ew_fail(err, EW_STATUS_MALFORMED, "model: merge %zu is not two tokens", rank);
        *left = (struct ew_str){ both.at, at };
        *right = (struct ew_str){ space + 1, both.len - at - 1 };
        return EW_STATUS_OK;
    }
    const json_t *a = json_array_get(json, 0);
    const json_t *b = json_array_get(json, 1);

    if (json_array_size(json) != 2 || !json_is_string(a) || !json_is_string(b))
        return ew_fail(err, EW_STATUS_MALFORMED, "model: merge %zu is not two tokens", rank);
    *left = (struct ew_str){ json_string_value(a), json_string_length(a) };
    *right = (struct ew_str){ json_string_value(b), json_string_length(b) };
    return EW_STATUS_OK;
}

static ew_status find_token(const struct ew_bpe *b, struct ew_str text, size_t rank, int32_t *id,
                            ew_error *err)
{
    uint32_t found;

    if (!ew_map_find(b->vocab, text.at, text.len, &found))
        return ew_fail(err, EW_STATUS_MALFORMED, "model: merge %zu: token %.*s is not in the vocab",
                       rank, (int)(text.len < 200 ? text.len : 200), text.at);
    *id = (int32_t)found;
    return EW_STATUS_OK;
}

/* A later merge of the same pair wins, as in the reference. */
static void put_merge(struct ew_bpe *b, struct ew_bpe_merge m)
{
    size_t i = ew_bpe_merge_slot(m.left, m.right) & b->merge_mask;

    while (b->merges[i].rank != UINT32_MAX &&
           (b->merges[i].left != m.left || b->merges[i].right != m.right))
        i = (i + 1) & b->merge_mask;
    b->merges[i] = m;
}

static ew_status add_merge(struct ew_bpe *b, const json_t *json, size_t rank, struct ew_buf *joined,
                           ew_error *err)
{
    struct ew_bpe_merge m = { .rank = (uint32_t)rank };
    struct ew_str left = { NULL, 0 };
    struct ew_str right = { NULL, 0 };

    EW_TRY(merge_parts(json, rank, &left, &right, err));
    EW_TRY(find_token(b, left, rank, &m.left, err));
    EW_TRY(find_token(b, right, rank, &m.right, err));
    if (right.len < b->prefix.len)
        return ew_fail(err, EW_STATUS_MALFORMED,
                       "model: merge %zu: token %.*s is shorter than the prefix", rank,
                       (int)right.len, right.at);
    ew_buf_reset(joined);
    ew_buf_append(joined, left.at, left.len);
    if (!ew_buf_append(joined, right.at + b->prefix.len, right.len - b->prefix.len))
        return ew_fail(err, EW_STATUS_NO_MEMORY, "model: out of memory for merge %zu", rank);
    EW_TRY(find_token(b, (struct ew_str){ joined->data, joined->len }, rank, &m.id, err));
    put_merge(b, m);
    return EW_STATUS_OK;
}

static ew_status parse_merges(struct ew_bpe *b, const json_t *list, ew_error *err)
{
    const size_t n = json_array_size(list);
    size_t n_slots = 16;
    struct ew_buf joined;
    ew_status st = EW_STATUS_OK;
    size_t rank = 0;

    if (!json_is_array(list))
        return ew_fail(err, EW_STATUS_MALFORMED, "model: merges is not a list");
    while (n_slots < 2 * n)
        n_slots *= 2;
    b->merges = ew_mem_alloc(EW_MEM_TEXT, n_slots * sizeof(*b->merges));
    if (!b->merges)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "model: out of memory for %zu merges", n);
    memset(b->merges, 0xFF, n_slots * sizeof(*b->merges));
    b->merge_mask = n_slots - 1;
    ew_buf_init(&joined, EW_MEM_TEXT, SIZE_MAX / 2);
    for (size_t i = 0; i < n && !st; i++) {
        const json_t *one = json_array_get(list, i);

        if (json_is_string(one) && strncmp(json_string_value(one), "#version", 8) == 0)
            continue; /* the first line of an old merges.txt */
        st = add_merge(b, one, rank++, &joined, err);
    }
    ew_buf_deinit(&joined);
    return st;
}

ew_status ew_bpe_parse(struct ew_bpe *b, const json_t *model, const struct ew_map *vocab,
                       ew_error *err)
{
    double dropout;

    b->vocab = vocab;
    ew_buf_init(&b->prefix, EW_MEM_TEXT, 256);
    ew_buf_init(&b->suffix, EW_MEM_TEXT, 256);
    EW_TRY(ew_json_get_f64_or(model, "dropout", "model", 0, &dropout, err));
    if (dropout != 0)
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "model: dropout %g is not supported", dropout);
    EW_TRY(parse_affix(&b->prefix, model, "continuing_subword_prefix", err));
    EW_TRY(parse_affix(&b->suffix, model, "end_of_word_suffix", err));
    EW_TRY(parse_unk(b, model, err));
    EW_TRY(ew_json_get_bool_or(model, "byte_fallback", "model", false, &b->byte_fallback, err));
    EW_TRY(ew_json_get_bool_or(model, "fuse_unk", "model", false, &b->fuse_unk, err));
    EW_TRY(ew_json_get_bool_or(model, "ignore_merges", "model", false, &b->ignore_merges, err));
    find_single_ids(b);
    return parse_merges(b, json_object_get(model, "merges"), err);
}

void ew_bpe_deinit(struct ew_bpe *b)
{
    ew_mem_free(b->merges);
    ew_mem_free(b->unk_text);
    ew_buf_deinit(&b->prefix);
    ew_buf_deinit(&b->suffix);
}

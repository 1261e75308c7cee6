/* runtime/prompt.c - what a request says, as token ids: template, tokenizer, which part is worth
 * keeping.
 *
 * Messages go through the chat template; special tokens in what a user wrote stay text. Raw text
 * has no template: special tokens in it are tokens, and the tokenizer's own BOS goes in front
 * unless the text has it. */
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "os/os.h"
#include "runtime/rt.h"

#define MAX_TEMPLATE_INPUT ((size_t)64 << 20)

/* Ids of a fresh ew_tokens array, or borrowed ones, into the prompt. */
static ew_status take_ids(struct ew_runtime *rt, const int32_t *ids, size_t n,
                          struct ew_prompt *out, ew_error *err)
{
    if (n == 0)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "the prompt is empty");
    if (n > INT32_MAX)
        return ew_fail(err, EW_STATUS_LIMIT, "prompt of %zu tokens", n);
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || (uint32_t)ids[i] >= rt->config.vocab)
            return ew_fail(err, EW_STATUS_MISMATCH, "prompt token %zu is %d, the vocabulary has %u",
                           i, ids[i], rt->config.vocab);
    out->ids = ew_mem_alloc(EW_MEM_RUNTIME, n * sizeof(*ids));
    if (!out->ids)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "prompt of %zu tokens", n);
    memcpy(out->ids, ids, n * sizeof(*ids));
    out->n = (uint32_t)n;
    return EW_STATUS_OK;
}

static bool starts_with_bos(const struct ew_runtime *rt, const char *text)
{
    const int32_t bos = ew_tokenizer_bos(rt->tokenizer);
    const char *token = bos >= 0 ? ew_tokenizer_token(rt->tokenizer, bos) : NULL;

    return token && token[0] && strncmp(text, token, strlen(token)) == 0;
}

static ew_status make_raw(struct ew_runtime *rt, const ew_request *req, struct ew_prompt *out,
                          ew_error *err)
{
    const uint32_t flags =
        EW_ENCODE_SPECIAL | (starts_with_bos(rt, req->raw_text) ? 0u : EW_ENCODE_ADD_BOS);
    const uint64_t t0 = ew_clock_ns();
    int32_t *ids = NULL;
    size_t n = 0;
    ew_status st;

    out->text = ew_mem_strdup(EW_MEM_RUNTIME, req->raw_text);
    if (!out->text)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "prompt text");
    st = ew_tokenizer_encode(rt->tokenizer, req->raw_text, strlen(req->raw_text), flags, &ids, &n,
                             err);
    rt->stats.tokenize_ns += ew_clock_ns() - t0;
    if (!st)
        st = take_ids(rt, ids, n, out, err);
    ew_tokens_free(ids);
    out->n_save = req->save_prefix ? out->n : 0;
    return st;
}

/* The members of the object `extra` (text between its braces) as they stand, after a comma: numbers
 * keep their spelling. */
static bool append_members(struct ew_buf *b, const char *extra)
{
    const char *begin = strchr(extra, '{');
    const char *end = strrchr(extra, '}');

    return ew_buf_putc(b, ',') && ew_buf_append(b, begin + 1, (size_t)(end - begin - 1));
}

/* The variables of one rendering. messages: JSON text that was checked to be an array. */
static ew_status template_input(const ew_request *req, const char *messages, bool generation,
                                bool has_extra, struct ew_buf *b, ew_error *err)
{
    ew_buf_init(b, EW_MEM_RUNTIME, MAX_TEMPLATE_INPUT);
    ew_buf_puts(b, "{\"messages\":");
    ew_buf_puts(b, messages);
    ew_buf_puts(b, generation ? ",\"add_generation_prompt\":true"
                              : ",\"add_generation_prompt\":false");
    if (req->enable_thinking >= 0)
        ew_buf_puts(b, req->enable_thinking ? ",\"enable_thinking\":true"
                                            : ",\"enable_thinking\":false");
    if (has_extra)
        append_members(b, req->extra_json);
    ew_buf_putc(b, '}');
    return b->failed ? ew_fail(err, EW_STATUS_LIMIT, "messages and variables over %zu bytes",
                               MAX_TEMPLATE_INPUT)
                     : EW_STATUS_OK;
}

struct chat { /* one conversation on its way to tokens */
    const ew_template *template;
    json_t *messages, *extra;
    char *text;
    size_t len;
    ew_text_span *spans;
    size_t n_spans;
};

static ew_status render(const ew_request *req, const struct chat *c, const char *messages,
                        bool generation, struct chat *out, ew_error *err)
{
    struct ew_buf input;
    ew_status st =
        template_input(req, messages, generation, json_object_size(c->extra) > 0, &input, err);

    if (!st)
        st = ew_template_render(c->template, input.data, NULL, -1, &out->text, &out->len,
                                &out->spans, &out->n_spans, err);
    ew_buf_deinit(&input);
    return st;
}

static ew_status encode(struct ew_runtime *rt, const struct chat *c, int32_t **ids, size_t *n,
                        ew_error *err)
{
    return ew_tokenizer_encode_spans(rt->tokenizer, c->text, c->len, 0, c->spans, c->n_spans, ids,
                                     n, err);
}

static void chat_release(struct chat *c)
{
    json_decref(c->messages);
    json_decref(c->extra);
    ew_string_free(c->text);
    ew_spans_free(c->spans);
}

static int dump_piece(const char *bytes, size_t len, void *buf)
{
    return ew_buf_append(buf, bytes, len) ? 0 : -1;
}

/* How many first tokens of the prompt come from the system messages: those that rendering them
 * alone gives too. A template that cannot do that keeps nothing; that is no error. */
static uint32_t system_prefix(struct ew_runtime *rt, const ew_request *req, const struct chat *c,
                              const struct ew_prompt *prompt)
{
    json_t *system = json_array();
    struct chat part = { 0 };
    int32_t *ids = NULL;
    size_t n = 0;
    uint32_t same = 0;
    struct ew_buf text;

    ew_buf_init(&text, EW_MEM_RUNTIME, MAX_TEMPLATE_INPUT);
    for (size_t i = 0; system && i < json_array_size(c->messages); i++) {
        json_t *m = json_array_get(c->messages, i);
        const char *role = json_string_value(json_object_get(m, "role"));

        if (!role || (strcmp(role, "system") != 0 && strcmp(role, "developer") != 0) ||
            json_array_append(system, m) != 0)
            break;
    }
    if (json_array_size(system) > 0 &&
        json_dump_callback(system, dump_piece, &text, JSON_COMPACT) == 0 &&
        render(req, c, text.data, false, &part, NULL) == EW_STATUS_OK &&
        encode(rt, &part, &ids, &n, NULL) == EW_STATUS_OK)
        while (same < n && same < prompt->n && ids[same] == prompt->ids[same])
            same++;
    ew_tokens_free(ids);
    chat_release(&part);
    json_decref(system);
    ew_buf_deinit(&text);
    return same;
}

static ew_status parse_chat(struct ew_runtime *rt, const ew_request *req, struct chat *c,
                            ew_error *err)
{
    EW_TRY(ew_json_parse(req->messages_json, strlen(req->messages_json), "messages", &c->messages,
                         err));
    if (!json_is_array(c->messages) || json_array_size(c->messages) == 0)
        return ew_fail(err, EW_STATUS_INVALID_ARG, "messages: not a list with at least one entry");
    /* Templates pass over what they do not know. */
    for (size_t i = 0; i < json_array_size(c->messages); i++)
        if (!json_is_string(json_object_get(json_array_get(c->messages, i), "role")))
            return ew_fail(err, EW_STATUS_INVALID_ARG,
                           "messages[%zu]: not an object with a role that is a string", i);
    if (req->extra_json) {
        EW_TRY(ew_json_parse(req->extra_json, strlen(req->extra_json), "template variables",
                             &c->extra, err));
        if (!json_is_object(c->extra))
            return ew_fail(err, EW_STATUS_INVALID_ARG, "template variables: not an object");
    }
    c->template = rt->chat;
    if (rt->tool_chat && json_array_size(json_object_get(c->extra, "tools")) > 0)
        c->template = rt->tool_chat;
    if (!c->template)
        return ew_fail(err, EW_STATUS_NOT_FOUND,
                       "the model has no chat template: send raw text instead of messages");
    return EW_STATUS_OK;
}

static ew_status make_chat(struct ew_runtime *rt, const ew_request *req, struct ew_prompt *out,
                           ew_error *err)
{
    struct chat c = { 0 };
    int32_t *ids = NULL;
    size_t n = 0;
    const uint64_t t0 = ew_clock_ns();
    uint64_t t1 = t0;
    ew_status st = parse_chat(rt, req, &c, err);

    if (!st)
        st = render(req, &c, req->messages_json, req->add_generation_prompt >= 0, &c, err);
    t1 = ew_clock_ns();
    rt->stats.template_ns += t1 - t0;
    if (!st)
        st = encode(rt, &c, &ids, &n, err);
    rt->stats.tokenize_ns += ew_clock_ns() - t1;
    if (!st)
        st = take_ids(rt, ids, n, out, err);
    if (!st) {
        out->text = ew_mem_strndup(EW_MEM_RUNTIME, c.text, c.len);
        if (!out->text)
            st = ew_fail(err, EW_STATUS_NO_MEMORY, "prompt text");
    }
    if (!st && req->save_prefix)
        out->n_save = system_prefix(rt, req, &c, out);
    ew_tokens_free(ids);
    chat_release(&c);
    return st;
}

ew_status ew_prompt_make(struct ew_runtime *rt, const ew_request *req, struct ew_prompt *out,
                         ew_error *err)
{
    const int n_given =
        (req->messages_json != NULL) + (req->raw_text != NULL) + (req->prompt_ids != NULL);
    ew_status st;

    memset(out, 0, sizeof(*out));
    if (n_given != 1)
        return ew_fail(err, EW_STATUS_INVALID_ARG,
                       "a request has %d of messages, raw text and prompt ids, not one", n_given);
    if (!req->prompt_ids && !rt->tokenizer)
        return ew_fail(err, EW_STATUS_NOT_FOUND,
                       "the model has no tokenizer: a request must bring prompt ids");
    if (req->prompt_ids) {
        st = take_ids(rt, req->prompt_ids, req->n_prompt_ids, out, err);
        out->n_save = req->save_prefix ? out->n : 0;
    } else {
        st = req->raw_text ? make_raw(rt, req, out, err) : make_chat(rt, req, out, err);
    }
    if (st) {
        ew_mem_free(out->ids);
        ew_mem_free(out->text);
        memset(out, 0, sizeof(*out));
    }
    return st;
}

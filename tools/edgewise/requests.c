/* requests.c - request and response files in the reference system's JSON format (TensorRT Edge-LLM
 * 0.5.0 and 0.9.1 keys). */
#include "cli.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Limits of the reference: a request file is input of strangers. */
#define MAX_REQUESTS      100000
#define MAX_MESSAGES      64
#define MAX_CONTENT_BYTES (128u << 10)
#define MAX_BATCH         16
#define MAX_BIAS          1024

struct reader {
    const char *path;
    struct request_file *f;
    bool failed;
};

/* Sampling defaults of the file; a request may override some. */
struct defaults {
    double temperature, top_p, repetition_penalty, presence_penalty, frequency_penalty, min_p;
    json_int_t top_k, max_tokens, num_logprobs, seed;
    bool apply_template, generation_prompt, thinking;
    const json_t *stop, *bias;
};

EW_PRINTF(2, 3) static void bad(struct reader *r, const char *fmt, ...)
{
    char text[400];
    va_list args;

    if (r->failed)
        return;
    r->failed = true;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    cli_fail_text("%s: %s", r->path, text);
}

static double get_number(struct reader *r, const json_t *o, const char *key, double fallback,
                         double lo, double hi)
{
    const json_t *const v = json_object_get(o, key);

    if (!v || json_is_null(v))
        return fallback;
    const double d = json_number_value(v);
    if (!json_is_number(v) || !isfinite(d) || d < lo || d > hi) {
        bad(r, "\"%s\" must be a number in [%g, %g]", key, lo, hi);
        return fallback;
    }
    return d;
}

static json_int_t get_int(struct reader *r, const json_t *o, const char *key, json_int_t fallback,
                          json_int_t lo, json_int_t hi)
{
    const double d = get_number(r, o, key, (double)fallback, (double)lo, (double)hi);

    if (d != floor(d))
        bad(r, "\"%s\" must be a whole number, not %g", key, d);
    return (json_int_t)d;
}

static bool get_bool(struct reader *r, const json_t *o, const char *key, bool fallback)
{
    const json_t *const v = json_object_get(o, key);

    if (!v || json_is_null(v))
        return fallback;
    if (!json_is_boolean(v))
        bad(r, "\"%s\" must be true or false", key);
    return json_is_true(v);
}

/* Memory that lives as long as the file. */
static void *own(struct reader *r, void *p)
{
    struct request_file *const f = r->f;
    char **const more = p ? realloc(f->owned, (f->n_owned + 1) * sizeof(*f->owned)) : NULL;

    if (!more) {
        free(p);
        bad(r, "out of memory");
        return NULL;
    }
    f->owned = more;
    f->owned[f->n_owned++] = p;
    return p;
}

static void read_stop(struct reader *r, const json_t *stop, ew_request *q)
{
    const size_t n = json_is_array(stop) ? json_array_size(stop) : 1;
    const char **list;

    if (!stop || json_is_null(stop) || n == 0)
        return;
    list = own(r, calloc(n, sizeof(*list)));
    for (size_t i = 0; list && i < n; i++) {
        list[i] = json_string_value(json_is_array(stop) ? json_array_get(stop, i) : stop);
        if (!list[i])
            bad(r, "\"stop\" must be a string or an array of strings");
    }
    if (r->failed)
        return;
    q->stop = list;
    q->n_stop = (uint32_t)n;
}

static void read_bias(struct reader *r, const json_t *bias, ew_request *q)
{
    const size_t n = json_object_size(bias);
    const char *key;
    json_t *value;
    uint32_t i = 0;

    if (!bias || json_is_null(bias))
        return;
    if (!json_is_object(bias) || n > MAX_BIAS) {
        bad(r, "\"logit_bias\" must be an object of at most %d entries", MAX_BIAS);
        return;
    }
    int32_t *const ids = n ? own(r, calloc(n, sizeof(*ids))) : NULL;
    float *const values = n ? own(r, calloc(n, sizeof(*values))) : NULL;
    if (!ids || !values)
        return;
    json_object_foreach((json_t *)(uintptr_t)bias, key, value)
    {
        char *end;
        const long id = strtol(key, &end, 10);
        const double v = json_number_value(value);
        if (*key == '\0' || *end || id < 0 || id > INT32_MAX || !json_is_number(value) ||
            !(fabs(v) <= 100)) {
            bad(r, "\"logit_bias\": \"%.40s\" needs a token id and a value in [-100, 100]", key);
            return;
        }
        ids[i] = (int32_t)id;
        values[i++] = (float)v;
    }
    q->sampling.bias_ids = ids;
    q->sampling.bias = values;
    q->sampling.n_bias = i;
}

static void check_content(struct reader *r, const json_t *content)
{
    size_t i;
    json_t *part;

    if (json_is_string(content) || json_is_null(content)) {
        if (json_string_length(content) > MAX_CONTENT_BYTES)
            bad(r, "a message of %zu bytes, at most %u", json_string_length(content),
                MAX_CONTENT_BYTES);
        return;
    }
    if (!json_is_array(content)) {
        bad(r, "\"content\" must be a string or an array");
        return;
    }
    json_array_foreach(content, i, part)
    {
        const char *const type = json_string_value(json_object_get(part, "type"));
        if (!type || strcmp(type, "text") != 0)
            bad(r, "content of type \"%.40s\" is not supported yet, only \"text\"",
                type ? type : "?");
        else if (!json_is_string(json_object_get(part, "text")))
            bad(r, "a content part of type \"text\" has no \"text\"");
    }
}

static void check_messages(struct reader *r, const json_t *messages)
{
    size_t i;
    json_t *m;

    if (!json_is_array(messages) || json_array_size(messages) == 0 ||
        json_array_size(messages) > MAX_MESSAGES) {
        bad(r, "\"messages\" must be an array of 1 to %d messages", MAX_MESSAGES);
        return;
    }
    json_array_foreach(messages, i, m)
    {
        if (!json_is_string(json_object_get(m, "role")))
            bad(r, "message %zu has no \"role\"", i);
        else if (json_object_get(m, "content"))
            check_content(r, json_object_get(m, "content"));
        else if (!json_object_get(m, "tool_calls"))
            bad(r, "message %zu has no \"content\"", i);
    }
}

/* Text of all contents in order: what the model sees when the template is off. */
static char *raw_text(struct reader *r, const json_t *messages)
{
    size_t i, j, len = 0;
    json_t *m, *part;
    char *text = NULL;

    for (int pass = 0; pass < 2; pass++) {
        if (pass)
            text = own(r, malloc(len + 1));
        if (pass && !text)
            return NULL;
        len = 0;
        json_array_foreach((json_t *)(uintptr_t)messages, i, m)
        {
            const json_t *const content = json_object_get(m, "content");
            const size_t n = json_is_array(content) ? json_array_size(content) : 1;
            for (j = 0; j < n; j++) {
                part = json_is_array(content) ? json_object_get(json_array_get(content, j), "text")
                                              : (json_t *)(uintptr_t)content;
                if (text)
                    memcpy(text + len, json_string_value(part) ? json_string_value(part) : "",
                           json_string_length(part));
                len += json_string_length(part);
            }
        }
    }
    text[len] = '\0';
    return text;
}

/* Messages as templates want them: parts of text joined to one string, which every template takes
 * and many that know no images demand. */
static char *template_messages(struct reader *r, const json_t *messages)
{
    json_t *const out = json_array();
    size_t i;
    json_t *m;

    json_array_foreach((json_t *)(uintptr_t)messages, i, m)
    {
        json_t *const copy = json_copy(m);
        if (json_is_array(json_object_get(m, "content"))) {
            json_t *const one = json_pack("[O]", m);
            const char *const text = raw_text(r, one);
            json_object_set_new(copy, "content", json_string(text ? text : ""));
            json_decref(one);
        }
        json_array_append_new(out, copy);
    }
    char *const text = own(r, json_dumps(out, JSON_COMPACT));
    json_decref(out);
    return text;
}

static void read_defaults(struct reader *r, const json_t *root, struct defaults *d)
{
    d->temperature = get_number(r, root, "temperature", 1.0, 0, 1000);
    d->top_p = get_number(r, root, "top_p", 0.8, 0, 1);
    d->min_p = get_number(r, root, "min_p", 0, 0, 1);
    d->top_k = get_int(r, root, "top_k", 50, 0, INT32_MAX);
    d->repetition_penalty = get_number(r, root, "repetition_penalty", 1.0, 1e-3, 1000);
    d->presence_penalty = get_number(r, root, "presence_penalty", 0, -100, 100);
    d->frequency_penalty = get_number(r, root, "frequency_penalty", 0, -100, 100);
    d->seed = get_int(r, root, "seed", 42, 0, (json_int_t)1 << 53);
    d->max_tokens = get_int(r, root, "max_generate_length", 256, 1, INT32_MAX);
    d->num_logprobs = get_int(r, root, "num_logprobs", 0, 0, 50);
    d->apply_template = get_bool(r, root, "apply_chat_template", true);
    d->generation_prompt = get_bool(r, root, "add_generation_prompt", true);
    d->thinking = get_bool(r, root, "enable_thinking", false);
    d->stop = json_object_get(root, "stop");
    d->bias = json_object_get(root, "logit_bias");
}

/* Template variables beyond messages that a request may bring. */
static char *extra_json(struct reader *r, const json_t *request)
{
    json_t *extra;
    char *text = NULL;

    if (!json_object_get(request, "tools") && !json_object_get(request, "documents"))
        return NULL;
    extra = json_object();
    if (json_object_get(request, "tools"))
        json_object_set(extra, "tools", json_object_get(request, "tools"));
    if (json_object_get(request, "documents"))
        json_object_set(extra, "documents", json_object_get(request, "documents"));
    text = own(r, json_dumps(extra, JSON_COMPACT));
    json_decref(extra);
    return text;
}

static void read_request(struct reader *r, const json_t *request, const struct defaults *d,
                         ew_request *q, const json_t **echo)
{
    const json_t *const messages = json_object_get(request, "messages");
    const json_t *const lora = json_object_get(request, "lora_name");

    *q = (ew_request)EW_REQUEST_INIT;
    if (lora && !json_is_null(lora) && !json_is_string(lora)) {
        bad(r, "\"lora_name\" must be a string");
        return;
    }
    if (json_string_length(lora)) {
        bad(r, "lora_name \"%.100s\": adapters are not supported yet", json_string_value(lora));
        return;
    }
    check_messages(r, messages);
    if (r->failed)
        return;
    *echo = messages;
    if (d->apply_template)
        q->messages_json = template_messages(r, messages);
    else
        q->raw_text = raw_text(r, messages);
    q->extra_json = extra_json(r, request);
    q->enable_thinking = d->thinking;
    q->add_generation_prompt = d->generation_prompt ? 0 : -1;
    q->sampling.greedy = d->temperature < 1e-3 || d->top_k == 1;
    q->sampling.temperature = q->sampling.greedy ? 0 : d->temperature;
    q->sampling.top_k = q->sampling.greedy ? 0 : (int32_t)d->top_k;
    q->sampling.top_p = q->sampling.greedy ? 0 : d->top_p;
    q->sampling.min_p = q->sampling.greedy ? 0 : d->min_p;
    q->sampling.repetition_penalty = d->repetition_penalty;
    q->sampling.presence_penalty = d->presence_penalty;
    q->sampling.frequency_penalty = d->frequency_penalty;
    q->sampling.seed = (uint64_t)d->seed;
    q->sampling.num_logprobs = (int32_t)get_int(r, request, "num_logprobs", d->num_logprobs, 0, 50);
    if (q->sampling.num_logprobs < d->num_logprobs)
        q->sampling.num_logprobs = (int32_t)d->num_logprobs;
    q->max_tokens = (uint32_t)d->max_tokens;
    q->save_prefix = get_bool(r, request, "save_system_prompt_kv_cache", false);
    read_stop(r, json_object_get(request, "stop") ? json_object_get(request, "stop") : d->stop, q);
    read_bias(r,
              json_object_get(request, "logit_bias") ? json_object_get(request, "logit_bias")
                                                     : d->bias,
              q);
}

bool request_file_load(const char *path, struct request_file *out)
{
    struct reader r = { path, out, false };
    struct defaults d;
    json_error_t jerr;
    size_t len, i;
    json_t *list, *item;
    char *const text = cli_read_file(path, &len);

    *out = (struct request_file){ 0 };
    if (!text)
        return false;
    out->root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &jerr);
    free(text);
    if (!out->root) {
        cli_fail_text("%s: JSON line %d column %d: %s", path, jerr.line, jerr.column, jerr.text);
        return false;
    }
    list = json_object_get(out->root, "requests");
    if (!json_is_array(list) || json_array_size(list) == 0 || json_array_size(list) > MAX_REQUESTS)
        bad(&r, "\"requests\" must be an array of 1 to %d requests", MAX_REQUESTS);
    read_defaults(&r, out->root, &d);
    out->batch_size = (uint32_t)get_int(&r, out->root, "batch_size", 1, 1, MAX_BATCH);
    if (!r.failed) {
        out->n = (uint32_t)json_array_size(list);
        out->requests = calloc(out->n, sizeof(*out->requests));
        out->messages = calloc(out->n, sizeof(*out->messages));
        if (!out->requests || !out->messages)
            bad(&r, "out of memory");
    }
    if (!r.failed)
        json_array_foreach(list, i, item) if (!r.failed)
            read_request(&r, item, &d, &out->requests[i], &out->messages[i]);
    if (r.failed)
        request_file_release(out);
    return !r.failed;
}

void request_file_release(struct request_file *f)
{
    for (uint32_t i = 0; i < f->n_owned; i++)
        free(f->owned[i]);
    free(f->owned);
    free(f->requests);
    free(f->messages);
    json_decref(f->root);
    *f = (struct request_file){ 0 };
}

static json_t *text_json(const char *bytes, size_t len)
{
    json_t *const v = json_stringn(bytes, len);

    return v ? v : json_string("\xEF\xBF\xBD"); /* half a character */
}

static json_t *logprobs_json(const ew_response *p, const ew_tokenizer *tok)
{
    json_t *const rows = json_array();

    for (uint32_t i = 0; i < p->n_ids; i++) {
        json_t *const row = json_array();
        for (uint32_t j = 1; j <= p->n_logprobs; j++) {
            const ew_logprob *const l = &p->logprobs[(size_t)i * (1 + p->n_logprobs) + j];
            json_t *const entry = json_object();
            json_t *const byte_list = json_array();
            const char *bytes = "";
            size_t len = 0;
            if (tok)
                ew_tokenizer_token_bytes(tok, l->id, &bytes, &len);
            for (size_t b = 0; b < len; b++)
                json_array_append_new(byte_list, json_integer((unsigned char)bytes[b]));
            json_object_set_new(entry, "token_id", json_integer(l->id));
            json_object_set_new(entry, "token", text_json(bytes, len));
            json_object_set_new(entry, "bytes", byte_list);
            json_object_set_new(entry, "logprob", json_real((double)l->logprob));
            json_array_append_new(row, entry);
        }
        json_array_append_new(rows, row);
    }
    return rows;
}

/* Strings become one text part, as the reference echoes them. */
static json_t *echo_messages(const json_t *messages)
{
    json_t *const out = json_array();
    size_t i;
    json_t *m;

    json_array_foreach((json_t *)(uintptr_t)messages, i, m)
    {
        json_t *const copy = json_copy(m);
        const json_t *const content = json_object_get(m, "content");
        if (json_is_string(content))
            json_object_set_new(copy, "content",
                                json_pack("[{s:s, s:O}]", "type", "text", "text", content));
        json_array_append_new(out, copy);
    }
    return out;
}

static json_t *system_prompt(const char *messages_json, const ew_template *tmpl)
{
    json_t *const messages = messages_json ? json_loads(messages_json, 0, NULL) : NULL;
    const char *const role =
        json_string_value(json_object_get(json_array_get(messages, 0), "role"));
    json_t *input, *result;
    char *text = NULL, *rendered = NULL;
    size_t len = 0;

    if (!tmpl || !role || strcmp(role, "system") != 0) {
        json_decref(messages);
        return json_string("");
    }
    input = json_pack("{s:[O], s:b}", "messages", json_array_get(messages, 0),
                      "add_generation_prompt", 0);
    text = json_dumps(input, JSON_COMPACT);
    json_decref(input);
    json_decref(messages);
    if (!text || ew_template_render(tmpl, text, NULL, -1, &rendered, &len, NULL, NULL, NULL))
        result = json_string("");
    else
        result = text_json(rendered, len);
    free(text);
    ew_string_free(rendered);
    return result;
}

json_t *request_file_responses(const struct request_file *f, const char *path,
                               const ew_response *responses, const ew_tokenizer *tok,
                               const ew_template *tmpl)
{
    json_t *const list = json_array();

    for (uint32_t i = 0; i < f->n; i++) {
        const ew_response *const p = &responses[i];
        json_t *const o = json_object();
        json_object_set_new(o, "output_text",
                            p->status
                                ? json_string("Edgewise cannot handle this request. Fails.")
                                : text_json(p->text ? p->text : "", p->text ? strlen(p->text) : 0));
        json_object_set_new(o, "request_idx", json_integer(i));
        json_object_set_new(o, "batch_idx", json_integer(i % f->batch_size));
        json_object_set_new(o, "finish_reason", json_string(ew_finish_text(p->finish)));
        json_object_set_new(o, "messages", echo_messages(f->messages[i]));
        json_object_set_new(o, "formatted_system_prompt",
                            system_prompt(f->requests[i].messages_json, tmpl));
        json_object_set_new(o, "formatted_complete_request",
                            json_string(p->prompt_text ? p->prompt_text : ""));
        if (p->status)
            json_object_set_new(o, "error", json_string(p->error));
        if (p->logprobs)
            json_object_set_new(o, "logprobs", logprobs_json(p, tok));
        json_array_append_new(list, o);
    }
    return json_pack("{s:s, s:o}", "input_file", path, "responses", list);
}

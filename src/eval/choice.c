/* eval/choice.c - questions with given options, by log-likelihood (eval.h says how). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/lines.h"
#include "eval/stats.h"
#include "eval/windows.h"
#include "os/os.h"
#include "runtime/rt.h"

enum { MAX_OPTIONS = 64 };
#define LOGITS_BYTES ((size_t)64 << 20) /* of one piece of an option */

struct choice {
    ew_runtime *rt;
    const ew_choice_opts *opts;
    ew_model_info model;
    struct ew_lines lines;
    struct ew_journal journal;
    struct ew_buf line;
    float *logits; /* [piece][vocab] */
    float *first;  /* [vocab] behind the prefix */
    uint32_t piece;
    ew_choice_result *out;
};

struct tokens {
    int32_t *ids;
    size_t n;
};

struct question { /* one line, tokenised */
    struct tokens alone, joined[MAX_OPTIONS];
    size_t bytes[MAX_OPTIONS]; /* of the option's text */
    uint32_t n;
    size_t shared; /* tokens of the prefix that is forwarded once */
};

static void question_release(struct question *q)
{
    ew_tokens_free(q->alone.ids);
    for (uint32_t i = 0; i < q->n; i++)
        ew_tokens_free(q->joined[i].ids);
}

/* ---- a line ---- */

static ew_status bad_line(const struct choice *c, size_t i, const char *what, ew_error *err)
{
    return ew_fail(err, EW_STATUS_MALFORMED, "%s: line %zu: %s", c->lines.name, c->lines.number[i],
                   what);
}

/* An index, the text of an option, or a letter. */
static bool find_answer(const json_t *answer, const json_t *options, uint32_t *out)
{
    const size_t n = json_array_size(options);
    const char *const text = json_string_value(answer);

    if (json_is_integer(answer)) {
        *out = (uint32_t)json_integer_value(answer);
        return json_integer_value(answer) >= 0 && (size_t)json_integer_value(answer) < n;
    }
    for (size_t i = 0; text && i < n; i++) {
        *out = (uint32_t)i;
        if (strcmp(json_string_value(json_array_get(options, i)), text) == 0)
            return true;
    }
    if (!text || text[0] == '\0' || text[1] != '\0')
        return false;
    *out = (uint32_t)(text[0] >= 'a' ? text[0] - 'a' : text[0] - 'A');
    return text[0] >= 'A' && *out < n;
}

static ew_status read_line(struct choice *c, size_t i, ew_error *err)
{
    const json_t *const line = c->lines.v[i], *const options = json_object_get(line, "options");
    const char *const question = ew_line_text(line, "question", "context");
    const char *kind = ew_line_text(line, "kind", "subject");
    ew_choice_item *const item = &c->out->items[i];

    if (!question)
        return bad_line(c, i, "no \"question\" or \"context\" that is a string", err);
    if (json_array_size(options) < 2 || json_array_size(options) > MAX_OPTIONS)
        return bad_line(c, i, "\"options\" is not a list of 2 to 64 texts", err);
    for (size_t o = 0; o < json_array_size(options); o++)
        if (json_string_length(json_array_get(options, o)) == 0)
            return bad_line(c, i, "an option is not a text, or an empty one", err);
    if (!find_answer(json_object_get(line, "answer"), options, &item->answer))
        return bad_line(c, i, "\"answer\" is no index, letter or text of an option", err);
    item->kind = ew_mem_strdup(EW_MEM_EVAL, kind ? kind : "all");
    item->question = ew_mem_strdup(EW_MEM_EVAL, question);
    return item->kind && item->question ? EW_STATUS_OK
                                        : ew_fail(err, EW_STATUS_NO_MEMORY, "a question");
}

/* ---- tokens ---- */

struct prompt { /* the question as the model sees it */
    char *text;
    size_t len;
    ew_text_span *spans; /* [n_spans + 1]: room for the option's own */
    size_t n_spans;
};

static ew_status render_prompt(struct choice *c, const char *question, struct prompt *out,
                               ew_error *err)
{
    json_t *const vars =
        json_pack("{s:[{s:s, s:s}], s:b, s:b}", "messages", "role", "user", "content", question,
                  "add_generation_prompt", 1, "enable_thinking", 0);
    char *const input = vars ? json_dumps(vars, JSON_COMPACT) : NULL;
    ew_text_span *spans = NULL;
    char *text = NULL;
    ew_status st;

    json_decref(vars);
    if (!input)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "a question");
    st = ew_template_render(c->rt->chat, input, NULL, -1, &text, &out->len, &spans, &out->n_spans,
                            err);
    if (!st) {
        out->text = ew_mem_strndup(EW_MEM_EVAL, text, out->len);
        out->spans = ew_mem_calloc(EW_MEM_EVAL, out->n_spans + 1, sizeof(*out->spans));
        if (!out->text || !out->spans)
            st = ew_fail(err, EW_STATUS_NO_MEMORY, "a question");
        else if (out->n_spans)
            memcpy(out->spans, spans, out->n_spans * sizeof(*spans));
    }
    ew_spans_free(spans);
    ew_string_free(text);
    free(input); /* jansson's own */
    return st;
}

static ew_status make_prompt(struct choice *c, const char *question, struct prompt *out,
                             ew_error *err)
{
    memset(out, 0, sizeof(*out));
    if (c->opts->chat)
        return render_prompt(c, question, out, err);
    out->len = strlen(question);
    out->text = ew_mem_strdup(EW_MEM_EVAL, question);
    out->spans = ew_mem_calloc(EW_MEM_EVAL, 2, sizeof(*out->spans));
    out->n_spans = out->len > 0;
    if (!out->text || !out->spans)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "a question");
    out->spans[0] = (ew_text_span){ 0, out->len };
    return EW_STATUS_OK;
}

/* The prompt with `option` behind it (NULL: alone); what users wrote has no special tokens. */
static ew_status encode(struct choice *c, const struct prompt *p, const char *option,
                        struct tokens *out, ew_error *err)
{
    const bool space = option && !c->opts->chat && p->len > 0 && p->text[p->len - 1] != ' ' &&
                       p->text[p->len - 1] != '\n' && option[0] != ' ' && option[0] != '\n';
    const uint32_t flags = c->opts->chat ? 0u : EW_ENCODE_ADD_BOS;
    size_t n_spans = p->n_spans;
    struct ew_buf text;
    ew_status st;

    ew_buf_init(&text, EW_MEM_EVAL, (size_t)64 << 20);
    ew_buf_append(&text, p->text, p->len);
    if (option) {
        ew_buf_puts(&text, space ? " " : "");
        ew_buf_puts(&text, option);
        p->spans[n_spans++] = (ew_text_span){ p->len, text.len };
    }
    st = text.failed ? ew_fail(err, EW_STATUS_LIMIT, "a question of over 64 MiB")
                     : ew_tokenizer_encode_spans(c->rt->tokenizer, text.data, text.len, flags,
                                                 p->spans, n_spans, &out->ids, &out->n, err);
    ew_buf_deinit(&text);
    return st;
}

static size_t common_prefix(const struct tokens *a, const struct tokens *b, size_t most)
{
    size_t n = 0;

    while (n < most && n < a->n && n < b->n && a->ids[n] == b->ids[n])
        n++;
    return n;
}

static ew_status tokenise(struct choice *c, size_t i, struct question *q, ew_error *err)
{
    const json_t *const options = json_object_get(c->lines.v[i], "options");
    struct prompt p;
    ew_status st = make_prompt(c, c->out->items[i].question, &p, err);

    memset(q, 0, sizeof(*q));
    if (!st)
        st = encode(c, &p, NULL, &q->alone, err);
    q->shared = q->alone.n;
    for (size_t o = 0; o < json_array_size(options) && !st; o++) {
        const char *const option = json_string_value(json_array_get(options, o));

        st = encode(c, &p, option, &q->joined[o], err);
        q->n = (uint32_t)o + 1;
        q->bytes[o] = strlen(option);
        q->shared = common_prefix(&q->alone, &q->joined[o], q->shared);
    }
    ew_mem_free(p.text);
    ew_mem_free(p.spans);
    if (!st && q->shared == 0)
        st = bad_line(c, i, "no token stands before the options (an empty question?)", err);
    for (uint32_t o = 0; o < q->n && !st; o++)
        if (q->joined[o].n <= q->shared || q->joined[o].n > c->model.max_kv_len)
            st = ew_fail(err, EW_STATUS_LIMIT,
                         "%s: line %zu: option %u gives %zu tokens, the engine holds %u",
                         c->lines.name, c->lines.number[i], o, q->joined[o].n, c->model.max_kv_len);
    return st;
}

/* ---- likelihood ---- */

static ew_status add_logprob(struct choice *c, const float *logits, int32_t id, size_t at,
                             double *sum, ew_error *err)
{
    double all;

    if (id < 0 || (uint32_t)id >= c->model.vocab)
        return ew_fail(err, EW_STATUS_MISMATCH, "token %d, the model has %u", id, c->model.vocab);
    EW_TRY(ew_log_sum(logits, c->model.vocab, at, &all, err));
    *sum += (double)logits[id] - all;
    return EW_STATUS_OK;
}

/* Of the tokens behind the prefix, which the cache holds. */
static ew_status score_option(struct choice *c, const struct question *q, uint32_t o, double *sum,
                              ew_error *err)
{
    const struct tokens *const t = &q->joined[o];

    *sum = 0;
    EW_TRY(ew_runtime_rewind(c->rt, 0, (uint32_t)q->shared, err));
    EW_TRY(add_logprob(c, c->first, t->ids[q->shared], q->shared, sum, err));
    for (size_t at = q->shared; at + 1 < t->n; at += c->piece) {
        const size_t left = t->n - 1 - at;
        const uint32_t n = left < c->piece ? (uint32_t)left : c->piece;

        EW_TRY(ew_runtime_forward(c->rt, 0, t->ids + at, n, (uint32_t)t->n, c->logits, n, err));
        for (uint32_t i = 0; i < n; i++)
            EW_TRY(add_logprob(c, c->logits + (size_t)i * c->model.vocab, t->ids[at + i + 1],
                               at + i + 1, sum, err));
    }
    return EW_STATUS_OK;
}

static ew_status score_line(struct choice *c, size_t i, double *sums, size_t *bytes, ew_error *err)
{
    struct question q;
    ew_status st = tokenise(c, i, &q, err);

    if (!st)
        st = ew_runtime_rewind(c->rt, 0, 0, err);
    if (!st)
        st = ew_runtime_forward(c->rt, 0, q.alone.ids, (uint32_t)q.shared, 0, c->first, 1, err);
    for (uint32_t o = 0; o < q.n && !st; o++) {
        bytes[o] = q.bytes[o];
        st = score_option(c, &q, o, &sums[o], err);
    }
    question_release(&q);
    return st;
}

static void judge(ew_choice_item *item, const double *sums, const size_t *bytes, uint32_t n)
{
    double other = -INFINITY;

    for (uint32_t o = 0; o < n; o++) {
        if (sums[o] > sums[item->best])
            item->best = o;
        if (sums[o] / (double)bytes[o] > sums[item->best_norm] / (double)bytes[item->best_norm])
            item->best_norm = o;
        if (o != item->answer && sums[o] > other)
            other = sums[o];
    }
    item->margin = sums[item->answer] - other;
}

static ew_status take_line(struct choice *c, size_t i, ew_error *err)
{
    const json_t *const options = json_object_get(c->lines.v[i], "options");
    const uint32_t n = (uint32_t)json_array_size(options);
    double sums[MAX_OPTIONS];
    size_t bytes[MAX_OPTIONS];
    json_t *line;
    ew_status st;

    EW_TRY(ew_journal_next(&c->journal, &line, err));
    if (line) {
        for (uint32_t o = 0; o < n; o++)
            bytes[o] = json_string_length(json_array_get(options, o));
        st = ew_journal_numbers(line, 0, sums, n, &c->journal, err);
        json_decref(line);
        EW_TRY(st);
    } else {
        EW_TRY(score_line(c, i, sums, bytes, err));
        for (uint32_t o = 0; o < n; o++)
            ew_buf_printf(&c->line, "%c%.17g", o ? ',' : '[', sums[o]);
        ew_buf_putc(&c->line, ']');
        EW_TRY(ew_journal_add(&c->journal, &c->line, err));
    }
    judge(&c->out->items[i], sums, bytes, n);
    return EW_STATUS_OK;
}

static ew_status score_all(struct choice *c, ew_error *err)
{
    const ew_progress *const progress = &c->opts->progress;

    for (size_t i = 0; i < c->lines.n; i++) {
        if (progress->step && !progress->step(progress->ctx, "choices", i, c->lines.n))
            return ew_fail(err, EW_STATUS_CANCELLED, "choices cancelled");
        EW_TRY(take_line(c, i, err));
    }
    return EW_STATUS_OK;
}

/* ---- table ---- */

static void add_to(ew_choice_kind *k, const ew_choice_item *item)
{
    const double n = (double)k->all;
    const uint64_t right = (uint64_t)llround(k->acc.value * n) + (item->best == item->answer);
    const uint64_t norm =
        (uint64_t)llround(k->acc_norm.value * n) + (item->best_norm == item->answer);

    k->all++;
    k->acc = ew_stats_share(right, k->all);
    k->acc_norm = ew_stats_share(norm, k->all);
}

static ew_status tally(ew_choice_result *out, ew_error *err)
{
    out->kinds = ew_mem_calloc(EW_MEM_EVAL, out->n_items, sizeof(*out->kinds));
    if (!out->kinds)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "kinds of questions");
    memcpy(out->total.kind, "total", sizeof("total"));
    for (uint32_t i = 0; i < out->n_items; i++) {
        char kind[sizeof(out->kinds[0].kind)];
        const size_t len = strlen(out->items[i].kind);
        uint32_t k = 0;

        memset(kind, 0, sizeof(kind));
        memcpy(kind, out->items[i].kind, len < sizeof(kind) ? len : sizeof(kind) - 1);
        while (k < out->n_kinds && strcmp(out->kinds[k].kind, kind) != 0)
            k++;
        if (k == out->n_kinds)
            memcpy(out->kinds[out->n_kinds++].kind, kind, sizeof(kind));
        add_to(&out->kinds[k], &out->items[i]);
        add_to(&out->total, &out->items[i]);
    }
    return EW_STATUS_OK;
}

/* ---- all of it ---- */

static ew_status check_model(struct choice *c, ew_error *err)
{
    ew_runtime_get_model(c->rt, &c->model);
    if (!c->rt->tokenizer)
        return ew_fail(err, EW_STATUS_NOT_FOUND, "choices need a tokenizer");
    if (c->opts->chat && !c->rt->chat)
        return ew_fail(err, EW_STATUS_NOT_FOUND, "the model has no chat template");
    if (!c->model.all_logits)
        return ew_fail(err, EW_STATUS_MISMATCH,
                       "choices need an engine that was built with all logits");
    c->piece = (uint32_t)(LOGITS_BYTES / sizeof(float) / c->model.vocab) + 1;
    c->piece = c->piece < c->model.max_input_len ? c->piece : c->model.max_input_len;
    return EW_STATUS_OK;
}

static ew_status prepare(struct choice *c, const char *jsonl, size_t len, const char *name,
                         ew_error *err)
{
    const uint32_t how[1] = { c->opts->chat };
    uint64_t key;

    EW_TRY(check_model(c, err));
    EW_TRY(ew_lines_load(jsonl, len, name, c->opts->limit, &c->lines, err));
    if (c->lines.n > UINT32_MAX)
        return ew_fail(err, EW_STATUS_LIMIT, "%s: %zu questions", name, c->lines.n);
    c->logits = ew_mem_calloc(EW_MEM_EVAL, (size_t)c->piece * c->model.vocab, sizeof(float));
    c->first = ew_mem_calloc(EW_MEM_EVAL, c->model.vocab, sizeof(float));
    c->out->items = ew_mem_calloc(EW_MEM_EVAL, c->lines.n, sizeof(*c->out->items));
    if (!c->logits || !c->first || !c->out->items)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "%s: %zu questions", name, c->lines.n);
    c->out->n_items = (uint32_t)c->lines.n;
    for (size_t i = 0; i < c->lines.n; i++)
        EW_TRY(read_line(c, i, err));
    key = ew_journal_key_runtime(0, c->rt);
    key = ew_journal_key_bytes(key, how, sizeof(how));
    key = ew_journal_key_bytes(key, jsonl, len);
    return ew_journal_open(&c->journal, c->opts->resume, "choice", key, err);
}

ew_status ew_eval_choice(ew_runtime *rt, const char *jsonl, size_t len, const char *name,
                         const ew_choice_opts *opts, ew_choice_result *out, ew_error *err)
{
    static const ew_choice_opts defaults = EW_CHOICE_OPTS_INIT;
    struct choice c = { .rt = rt, .opts = opts ? opts : &defaults, .out = out };
    const uint64_t t0 = ew_clock_ns();
    ew_status st;

    memset(out, 0, sizeof(*out));
    if (c.opts->struct_size != sizeof(*opts))
        return ew_fail(err, EW_STATUS_INVALID_ARG, "choice options: struct_size is %u, not %zu",
                       c.opts->struct_size, sizeof(*opts));
    ew_buf_init(&c.line, EW_MEM_EVAL, (size_t)1 << 20);
    st = prepare(&c, jsonl, len, name, err);
    if (!st)
        st = score_all(&c, err);
    if (!st)
        st = tally(out, err);
    out->seconds = (double)(ew_clock_ns() - t0) / 1e9;
    ew_journal_close(&c.journal);
    ew_lines_release(&c.lines);
    ew_buf_deinit(&c.line);
    ew_mem_free(c.logits);
    ew_mem_free(c.first);
    if (st)
        ew_choice_release(out);
    return st;
}

void ew_choice_release(ew_choice_result *r)
{
    if (!r)
        return;
    for (uint32_t i = 0; r->items && i < r->n_items; i++) {
        ew_mem_free(r->items[i].kind);
        ew_mem_free(r->items[i].question);
    }
    ew_mem_free(r->items);
    ew_mem_free(r->kinds);
    memset(r, 0, sizeof(*r));
}

/* eval/qa.c - greedy answers to questions with one right answer, by kind. */
#include <string.h>

#include "eval/journal.h"
#include "eval/lines.h"
#include "eval/stats.h"
#include "os/os.h"

enum { GROUP = 64 };

struct qa {
    ew_runtime *rt;
    const ew_qa_opts *opts;
    struct ew_lines lines;
    struct ew_journal journal;
    struct ew_buf line;
    char **messages; /* [lines.n] JSON texts */
    ew_qa_result *out;
};

static char *copy_text(const char *text)
{
    return ew_mem_strdup(EW_MEM_EVAL, text ? text : "");
}

static int dump_piece(const char *bytes, size_t len, void *buf)
{
    return ew_buf_append(buf, bytes, len) ? 0 : -1;
}

/* What is asked, as messages and for a person. */
static ew_status read_question(struct qa *q, size_t i, ew_error *err)
{
    const json_t *const line = q->lines.v[i];
    const char *const question = ew_line_text(line, "question", NULL);
    const char *const kind = ew_line_text(line, "kind", NULL);
    const char *const answer = ew_line_text(line, "answer", NULL);
    json_t *messages = json_object_get(line, "messages"), *made = NULL;
    ew_qa_item *const item = &q->out->items[i];
    struct ew_buf text;

    if (!messages && question)
        messages = made = json_pack("[{s:s, s:s}]", "role", "user", "content", question);
    if (!json_is_array(messages) || !answer) {
        json_decref(made);
        return ew_fail(err, EW_STATUS_MALFORMED,
                       "%s: line %zu needs \"question\" or \"messages\", and \"answer\"",
                       q->lines.name, q->lines.number[i]);
    }
    ew_buf_init(&text, EW_MEM_EVAL, (size_t)64 << 20);
    (void)json_dump_callback(messages, dump_piece, &text, JSON_COMPACT);
    item->question =
        copy_text(question ? question
                           : ew_line_text(json_array_get(messages, json_array_size(messages) - 1),
                                          "content", NULL));
    item->kind = copy_text(kind ? kind : "all");
    item->wanted = copy_text(answer);
    q->messages[i] = ew_buf_take(&text);
    ew_buf_deinit(&text);
    json_decref(made);
    if (!item->question || !item->kind || !item->wanted || !q->messages[i])
        return ew_fail(err, EW_STATUS_NO_MEMORY, "%s: line %zu", q->lines.name, q->lines.number[i]);
    return EW_STATUS_OK;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static struct ew_str trimmed(const char *text)
{
    struct ew_str s = ew_str_from(text);

    while (s.len && is_space(s.at[0])) {
        s.at++;
        s.len--;
    }
    while (s.len && is_space(s.at[s.len - 1]))
        s.len--;
    return s;
}

static ew_status take_answer(struct qa *q, size_t i, const char *got, bool answered, ew_error *err)
{
    ew_qa_item *const item = &q->out->items[i];

    item->got = copy_text(got);
    if (!item->got)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "an answer");
    item->right = answered && ew_str_equal(trimmed(got), trimmed(item->wanted));
    return EW_STATUS_OK;
}

static ew_status save_answer(struct qa *q, size_t i, bool answered, ew_error *err)
{
    json_t *const got = json_string(q->out->items[i].got);

    if (!q->journal.path) {
        json_decref(got);
        return EW_STATUS_OK;
    }
    ew_buf_printf(&q->line, "[%d,", answered);
    if (!got || json_dump_callback(got, dump_piece, &q->line, JSON_ENCODE_ANY) != 0)
        q->line.failed = true;
    ew_buf_putc(&q->line, ']');
    json_decref(got);
    return ew_journal_add(&q->journal, &q->line, err);
}

/* Answers that the journal has; *n is how many. */
static ew_status load_answers(struct qa *q, size_t *n, ew_error *err)
{
    for (*n = 0; *n < q->lines.n; (*n)++) {
        json_t *line;
        ew_status st;

        EW_TRY(ew_journal_next(&q->journal, &line, err));
        if (!line)
            return EW_STATUS_OK;
        const char *const got = json_string_value(json_array_get(line, 1));
        st = got ? take_answer(q, *n, got, json_integer_value(json_array_get(line, 0)) == 1, err)
                 : ew_fail(err, EW_STATUS_MALFORMED, "%s: a line is no answer", q->journal.path);
        json_decref(line);
        EW_TRY(st);
    }
    return EW_STATUS_OK;
}

static ew_status ask(struct qa *q, size_t first, uint32_t n, ew_error *err)
{
    ew_request req[GROUP];
    ew_response resp[GROUP];
    ew_status st = EW_STATUS_OK;

    for (uint32_t j = 0; j < n; j++) {
        req[j] = (ew_request)EW_REQUEST_INIT;
        req[j].messages_json = q->messages[first + j];
        req[j].enable_thinking = q->opts->think;
        req[j].sampling.greedy = true;
        req[j].max_tokens = q->opts->max_tokens;
    }
    EW_TRY(ew_runtime_handle_request(q->rt, req, n, resp, err));
    for (uint32_t j = 0; j < n; j++) {
        const bool answered = resp[j].status == EW_STATUS_OK && resp[j].text;

        if (!st)
            st = take_answer(q, first + j, answered ? resp[j].text : resp[j].error, answered, err);
        if (!st)
            st = save_answer(q, first + j, answered, err);
        ew_response_release(&resp[j]);
    }
    return st;
}

static ew_status ask_all(struct qa *q, ew_error *err)
{
    const ew_progress *const progress = &q->opts->progress;
    size_t done;

    EW_TRY(load_answers(q, &done, err));
    while (done < q->lines.n) {
        const uint32_t n = (uint32_t)(q->lines.n - done < GROUP ? q->lines.n - done : GROUP);

        if (progress->step && !progress->step(progress->ctx, "questions", done, q->lines.n))
            return ew_fail(err, EW_STATUS_CANCELLED, "questions cancelled");
        EW_TRY(ask(q, done, n, err));
        done += n;
    }
    return EW_STATUS_OK;
}

static void add_to(ew_share *s, bool right)
{
    s->all++;
    s->right += right;
    s->share = (double)s->right / (double)s->all;
    ew_stats_wilson(s->right, s->all, &s->low, &s->high);
}

static ew_status tally(ew_qa_result *out, ew_error *err)
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
        add_to(&out->kinds[k], out->items[i].right);
        add_to(&out->total, out->items[i].right);
    }
    return EW_STATUS_OK;
}

static ew_status prepare(struct qa *q, const char *jsonl, size_t len, const char *name,
                         ew_error *err)
{
    const uint32_t how[2] = { q->opts->max_tokens, q->opts->think };
    uint64_t key;

    EW_TRY(ew_lines_load(jsonl, len, name, q->opts->limit, &q->lines, err));
    if (q->lines.n > UINT32_MAX)
        return ew_fail(err, EW_STATUS_LIMIT, "%s: %zu questions", name, q->lines.n);
    q->messages = ew_mem_calloc(EW_MEM_EVAL, q->lines.n, sizeof(char *));
    q->out->items = ew_mem_calloc(EW_MEM_EVAL, q->lines.n, sizeof(*q->out->items));
    if (!q->messages || !q->out->items)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "%s: %zu questions", name, q->lines.n);
    q->out->n_items = (uint32_t)q->lines.n;
    for (size_t i = 0; i < q->lines.n; i++)
        EW_TRY(read_question(q, i, err));
    key = ew_journal_key_runtime(0, q->rt);
    key = ew_journal_key_bytes(key, how, sizeof(how));
    key = ew_journal_key_bytes(key, jsonl, len);
    return ew_journal_open(&q->journal, q->opts->resume, "qa", key, err);
}

ew_status ew_eval_qa(ew_runtime *rt, const char *jsonl, size_t len, const char *name,
                     const ew_qa_opts *opts, ew_qa_result *out, ew_error *err)
{
    static const ew_qa_opts defaults = EW_QA_OPTS_INIT;
    struct qa q = { .rt = rt, .opts = opts ? opts : &defaults, .out = out };
    const uint64_t t0 = ew_clock_ns();
    ew_status st;

    memset(out, 0, sizeof(*out));
    if (q.opts->struct_size != sizeof(*opts))
        return ew_fail(err, EW_STATUS_INVALID_ARG, "question options: struct_size is %u, not %zu",
                       q.opts->struct_size, sizeof(*opts));
    ew_buf_init(&q.line, EW_MEM_EVAL, (size_t)64 << 20);
    st = prepare(&q, jsonl, len, name, err);
    if (!st)
        st = ask_all(&q, err);
    if (!st)
        st = tally(out, err);
    out->seconds = (double)(ew_clock_ns() - t0) / 1e9;
    for (size_t i = 0; q.messages && i < q.lines.n; i++)
        ew_mem_free(q.messages[i]);
    ew_mem_free(q.messages);
    ew_journal_close(&q.journal);
    ew_lines_release(&q.lines);
    ew_buf_deinit(&q.line);
    if (st)
        ew_qa_release(out);
    return st;
}

void ew_qa_release(ew_qa_result *r)
{
    if (!r)
        return;
    for (uint32_t i = 0; r->items && i < r->n_items; i++) {
        ew_mem_free(r->items[i].kind);
        ew_mem_free(r->items[i].question);
        ew_mem_free(r->items[i].wanted);
        ew_mem_free(r->items[i].got);
    }
    ew_mem_free(r->items);
    ew_mem_free(r->kinds);
    memset(r, 0, sizeof(*r));
}

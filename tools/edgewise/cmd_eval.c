/* cmd_eval.c - `edgewise eval ppl|qa|parity`. */
#include "cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "edgewise/eval.h"
#include "edgewise/inspect.h"

static const char *text_path, *qa_path, *reference_path;
static uint32_t window, stride, limit;
static uint64_t max_chars;
static double tolerance;
static bool json_out, show_wrong;

/* clang-format off */
static const struct opt eval_table[] = {
    { "text", 0, OPT_TEXT, &text_path, "FILE", "ppl: the text" },
    { "window", 0, OPT_U32, &window, "N", "ppl: tokens a window (default 1024, or --max-kv-len if less)" },
    { "stride", 0, OPT_U32, &stride, "N", "ppl: tokens between windows (default: the window)" },
    { "max-chars", 0, OPT_U64, &max_chars, "N", "ppl: only the first N characters" },
    { "file", 0, OPT_TEXT, &qa_path, "FILE", "qa: lines {\"question\" or \"messages\", \"answer\", \"kind\"}" },
    { "limit", 0, OPT_U32, &limit, "N", "qa: only the first N lines" },
    { "wrong", 0, OPT_FLAG, &show_wrong, NULL, "qa: print what was answered wrongly" },
    { "reference", 0, OPT_TEXT, &reference_path, "FILE", "parity: safetensors with input_ids, logits and maybe hidden_N" },
    { "tolerance", 0, OPT_F64, &tolerance, "X", "parity: max error / max value allowed (default 1e-4)" },
    { "max-tokens", 'n', OPT_U32, &sampling_opts.max_tokens, "N", "qa: tokens an answer may have (default 256)" },
    { "think", 0, OPT_FLAG, &sampling_opts.think, NULL, "qa: let the model think" },
    { "json", 0, OPT_FLAG, &json_out, NULL, "figures as JSON" },
    OPT_END,
};
/* clang-format on */

static int eval_ppl(const char *model)
{
    ew_ppl_opts opts = EW_PPL_OPTS_INIT;
    ew_ppl_result r;
    ew_error err = { EW_STATUS_OK, "" };
    ew_runtime *rt;
    char *text;
    size_t len;
    int code;

    if (!text_path)
        return cli_usage("eval ppl needs --text FILE");
    text = cli_read_file(text_path, &len);
    if (!text)
        return EXIT_FAILED;
    code = model_open(model, EW_BUILD_ALL_LOGITS, false, &rt, NULL);
    if (!code) {
        opts.window = window;
        opts.stride = stride;
        opts.max_chars = max_chars;
        opts.progress = cli_progress();
        const ew_status st = ew_eval_ppl(rt, text, len, &opts, &r, &err);
        cli_progress_end();
        if (st)
            code = cli_fail(&err);
        else if (json_out)
            code = cli_print_json(json_pack("{s:f, s:f, s:f, s:I, s:I, s:f}", "perplexity",
                                            r.perplexity, "stderr", r.perplexity_stderr, "nll_sum",
                                            r.nll_sum, "tokens", (json_int_t)r.n_tokens,
                                            "scored_tokens", (json_int_t)r.n_scored, "seconds",
                                            r.seconds),
                                  NULL);
        else
            printf("perplexity %.6f +- %.4f over %llu tokens (%llu in the text, %.1f s)\n",
                   r.perplexity, r.perplexity_stderr, (unsigned long long)r.n_scored,
                   (unsigned long long)r.n_tokens, r.seconds);
        code = model_finish(rt, code);
        ew_runtime_destroy(rt);
    }
    free(text);
    return code;
}

/* ---- questions ---- */

struct question {
    json_t *line;
    char *messages;
    const char *answer, *kind;
    bool right;
};

static void trim(const char **text, size_t *len)
{
    while (*len && strchr(" \t\r\n", (*text)[0])) {
        (*text)++;
        (*len)--;
    }
    while (*len && strchr(" \t\r\n", (*text)[*len - 1]))
        (*len)--;
}

static bool exact(const char *a, const char *b)
{
    size_t a_len = strlen(a), b_len = strlen(b);

    trim(&a, &a_len);
    trim(&b, &b_len);
    return a_len == b_len && memcmp(a, b, a_len) == 0;
}

static bool parse_question(const char *text, size_t len, struct question *q)
{
    json_t *messages;

    q->line = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    q->answer = json_string_value(json_object_get(q->line, "answer"));
    q->kind = json_string_value(json_object_get(q->line, "kind"));
    q->kind = q->kind ? q->kind : "all";
    messages = json_object_get(q->line, "messages");
    if (messages)
        json_incref(messages);
    else if (json_is_string(json_object_get(q->line, "question")))
        messages = json_pack("[{s:s, s:O}]", "role", "user", "content",
                             json_object_get(q->line, "question"));
    q->messages = messages ? json_dumps(messages, JSON_COMPACT) : NULL;
    json_decref(messages);
    return q->answer && q->messages;
}

static void questions_free(struct question *qs, size_t n)
{
    for (size_t i = 0; qs && i < n; i++) {
        free(qs[i].messages);
        json_decref(qs[i].line);
    }
    free(qs);
}

static struct question *load_questions(size_t *n)
{
    size_t len, cap = 0;
    char *const text = cli_read_file(qa_path, &len);
    struct question *qs = NULL;

    *n = 0;
    for (const char *line = text; line && *line && (!limit || *n < limit);) {
        const size_t line_len = strcspn(line, "\n");
        if (strspn(line, " \t\r") < line_len) {
            if (*n == cap) {
                cap = cap ? cap * 2 : 256;
                struct question *const more = realloc(qs, cap * sizeof(*qs));
                if (!more)
                    break;
                qs = more;
            }
            qs[*n] = (struct question){ 0 };
            if (!parse_question(line, line_len, &qs[(*n)++])) {
                cli_fail_text("%s: line %zu needs \"question\" or \"messages\", and \"answer\"",
                              qa_path, *n);
                questions_free(qs, *n);
                qs = NULL;
                break;
            }
        }
        line += line_len + (line[line_len] == '\n');
    }
    if (text && *n == 0)
        cli_fail_text("%s: no questions", qa_path);
    free(text);
    return qs;
}

static int ask(ew_runtime *rt, struct question *qs, size_t n)
{
    enum { GROUP = 64 };
    const ew_progress progress = cli_progress();

    for (size_t i = 0; i < n; i += GROUP) {
        const uint32_t m = (uint32_t)(n - i < GROUP ? n - i : GROUP);
        ew_request req[GROUP];
        ew_response resp[GROUP];
        ew_error err = { EW_STATUS_OK, "" };
        for (uint32_t j = 0; j < m; j++) {
            req[j] = (ew_request)EW_REQUEST_INIT;
            req[j].messages_json = qs[i + j].messages;
            req[j].enable_thinking = sampling_opts.think;
            req[j].sampling.greedy = true;
            req[j].max_tokens = sampling_opts.max_tokens;
        }
        progress.step(progress.ctx, "questions", i, n);
        if (ew_runtime_handle_request(rt, req, m, resp, &err))
            return cli_fail(&err);
        for (uint32_t j = 0; j < m; j++) {
            const char *const got = resp[j].text ? resp[j].text : resp[j].error;
            qs[i + j].right = !resp[j].status && exact(got, qs[i + j].answer);
            if (show_wrong && !qs[i + j].right) {
                cli_progress_end();
                fprintf(stderr, "%s: wanted \"%s\", got \"%s\"\n", qs[i + j].kind, qs[i + j].answer,
                        got);
            }
            ew_response_release(&resp[j]);
        }
    }
    cli_progress_end();
    return EXIT_FINE;
}

static int print_kinds(const struct question *qs, size_t n)
{
    json_t *const kinds = json_object();
    size_t total = 0;
    const char *kind;
    json_t *row;

    for (size_t i = 0; i < n; i++) {
        if (!json_object_get(kinds, qs[i].kind))
            json_object_set_new(kinds, qs[i].kind,
                                json_pack("{s:i, s:i}", "right", 0, "questions", 0));
        row = json_object_get(kinds, qs[i].kind);
        json_t *const right = json_object_get(row, "right");
        json_t *const all = json_object_get(row, "questions");
        json_integer_set(right, json_integer_value(right) + qs[i].right);
        json_integer_set(all, json_integer_value(all) + 1);
        total += qs[i].right;
    }
    if (json_out)
        return cli_print_json(json_pack("{s:I, s:I, s:f, s:o}", "right", (json_int_t)total,
                                        "questions", (json_int_t)n, "share",
                                        (double)total / (double)n, "kinds", kinds),
                              NULL);
    json_object_foreach(kinds, kind, row)
    {
        const double right = json_number_value(json_object_get(row, "right"));
        const double all = json_number_value(json_object_get(row, "questions"));
        printf("%-24s %5.0f of %5.0f  %5.1f %%\n", kind, right, all, 100 * right / all);
    }
    printf("%-24s %5zu of %5zu  %5.1f %%\n", "total", total, n, 100.0 * (double)total / (double)n);
    json_decref(kinds);
    return EXIT_FINE;
}

static int eval_qa(const char *model)
{
    ew_runtime *rt;
    struct question *qs;
    size_t n;
    int code;

    if (!qa_path)
        return cli_usage("eval qa needs --file FILE");
    qs = load_questions(&n);
    if (!qs || n == 0) {
        questions_free(qs, n);
        return EXIT_FAILED;
    }
    code = model_open(model, 0, false, &rt, NULL);
    if (!code) {
        code = ask(rt, qs, n);
        if (!code)
            code = model_finish(rt, print_kinds(qs, n));
        ew_runtime_destroy(rt);
    }
    questions_free(qs, n);
    return code;
}

/* ---- parity ---- */

/* What the reference needs of an engine: hidden states, and room for its longest row in one step.
 * Nothing is said of a file that cannot be read: the evaluation itself will say why. */
static bool size_for_reference(void)
{
    char *text;
    ew_error err = { EW_STATUS_OK, "" };
    bool hidden = false;
    size_t i;
    json_t *t;

    if (ew_inspect(reference_path, &text, &err))
        return false;
    json_t *const root = json_loads(text, 0, NULL);
    ew_text_free(text);
    json_array_foreach(json_object_get(root, "tensors"), i, t)
    {
        const char *const name = json_string_value(json_object_get(t, "name"));
        const json_t *const shape = json_object_get(t, "shape");
        if (!name)
            continue;
        hidden = hidden || strcmp(name, "hidden_0") == 0;
        if (strcmp(name, "input_ids") == 0 && json_array_size(shape) == 2) {
            const json_int_t len = json_integer_value(json_array_get(shape, 1));
            const uint32_t room = len > 0 && len < 1 << 20 ? (uint32_t)(len + 63) / 64 * 64 : 0;
            model_opts.max_kv_len = model_opts.max_kv_len ? model_opts.max_kv_len : room;
            model_opts.max_input_len = model_opts.max_input_len ? model_opts.max_input_len : room;
        }
    }
    if (model_opts.max_kv_len && model_opts.max_input_len > model_opts.max_kv_len)
        model_opts.max_input_len = model_opts.max_kv_len;
    json_decref(root);
    return hidden;
}

static int print_parity(const ew_parity_result *r)
{
    if (json_out) {
        json_t *const rows = json_array();
        for (uint32_t i = 0; i < r->n_rows; i++) {
            const ew_parity_row *const p = &r->rows[i];
            json_array_append_new(rows, json_pack("{s:s, s:s, s:f, s:f, s:f, s:[I,I,I], s:b}",
                                                  "way", p->way, "tensor", p->tensor, "max_abs_err",
                                                  p->max_abs_err, "max_abs_ref", p->max_abs_ref,
                                                  "relative", p->relative, "worst",
                                                  (json_int_t)p->worst[0], (json_int_t)p->worst[1],
                                                  (json_int_t)p->worst[2], "ok", p->ok));
        }
        const int code =
            cli_print_json(json_pack("{s:b, s:s, s:f, s:I, s:I, s:o}", "ok", r->ok, "first_bad",
                                     r->first_bad, "max_relative_logits", r->max_relative_logits,
                                     "greedy_equal", (json_int_t)r->n_greedy_equal, "greedy",
                                     (json_int_t)r->n_greedy, "rows", rows),
                           NULL);
        return code ? code : r->ok ? EXIT_FINE : EXIT_FAILED;
    }
    for (uint32_t i = 0; i < r->n_rows; i++) {
        const ew_parity_row *const p = &r->rows[i];
        printf("%-16s %-12s max error %.3e of %.3e, relative %.2e at [%lld,%lld,%lld]%s\n", p->way,
               p->tensor, p->max_abs_err, p->max_abs_ref, p->relative, (long long)p->worst[0],
               (long long)p->worst[1], (long long)p->worst[2], p->ok ? "" : "  DIFFERS");
    }
    printf("same most likely token: %llu of %llu\n", (unsigned long long)r->n_greedy_equal,
           (unsigned long long)r->n_greedy);
    if (r->ok)
        printf("parity: ok\n");
    else
        printf("parity: first difference in %s\n", r->first_bad);
    return r->ok ? EXIT_FINE : EXIT_FAILED;
}

static int eval_parity(const char *model)
{
    ew_parity_result r;
    ew_error err = { EW_STATUS_OK, "" };
    ew_runtime *rt;
    int code;

    if (!reference_path)
        return cli_usage("eval parity needs --reference FILE.safetensors");
    /* An ONNX graph has the outputs it has; only a checkpoint's can be extended. */
    const bool hidden = size_for_reference() && strcmp(ew_model_kind(model), "checkpoint") == 0;
    code = model_open(model, EW_BUILD_ALL_LOGITS, hidden, &rt, NULL);
    if (code)
        return code;
    const ew_progress progress = cli_progress();
    const ew_status st = ew_eval_parity(rt, reference_path, tolerance, &progress, &r, &err);
    cli_progress_end();
    if (st) {
        code = cli_fail(&err);
    } else {
        code = model_finish(rt, print_parity(&r));
        ew_parity_release(&r);
    }
    ew_runtime_destroy(rt);
    return code;
}

int cmd_eval(int argc, char **argv)
{
    const struct opt *const tables[] = { eval_table, model_opt_table, build_opt_table, NULL };
    const char *args[2];
    const int n =
        cli_parse(cli_command("eval"),
                  "  ppl     perplexity of a text in windows (Hugging Face's fixed-length recipe)\n"
                  "  qa      greedy answers compared exactly, by kind\n"
                  "  parity  logits and layers beside a reference: one prefill, uneven chunks, "
                  "token by token;\n"
                  "          names the first layer that differs. Exit code 1 when it does.",
                  tables, argc, argv, args, 2);

    if (n < 0)
        return CLI_PARSE_EXIT(n);
    if (n != 2)
        return cli_usage("eval needs ppl, qa or parity, and a model");
    if (strcmp(args[0], "ppl") == 0)
        return eval_ppl(args[1]);
    if (strcmp(args[0], "qa") == 0)
        return eval_qa(args[1]);
    if (strcmp(args[0], "parity") == 0)
        return eval_parity(args[1]);
    return cli_usage("eval: unknown kind '%s'", args[0]);
}

/* cmd_run.c - `edgewise run`: one prompt streamed to the terminal, or a file of requests to a file
 * of responses. */
#include "cli.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *prompt, *requests_path, *output_path, *system_text, *prompt_file;
static bool json_out;

/* clang-format off */
static const struct opt run_table[] = {
    { "prompt", 'p', OPT_TEXT, &prompt, "TEXT", "the user's message (with --raw: the whole prompt)" },
    { "prompt-file", 'f', OPT_TEXT, &prompt_file, "FILE", "the prompt from a file, - for standard input" },
    { "system", 's', OPT_TEXT, &system_text, "TEXT", "system message" },
    { "requests", 0, OPT_TEXT, &requests_path, "FILE", "requests in the reference JSON format" },
    { "output", 'o', OPT_TEXT, &output_path, "FILE", "responses, or with -p the answer, as JSON to this file" },
    { "json", 0, OPT_FLAG, &json_out, NULL, "with -p: the answer as JSON with its token ids and times" },
    OPT_END,
};
/* clang-format on */

static ew_runtime *interrupted; /* what Ctrl-C cancels */

static void on_interrupt(int sig)
{
    (void)sig;
    if (interrupted)
        ew_runtime_cancel(interrupted);
    signal(SIGINT, SIG_DFL); /* the second one ends the program */
}

static bool print_piece(void *ctx, uint32_t i, const char *text, size_t len)
{
    (void)ctx;
    (void)i;
    return fwrite(text, 1, len, stdout) == len && fflush(stdout) == 0;
}

static json_t *answer_json(const ew_response *p)
{
    json_t *const ids = json_array(), *const steps = json_array();

    for (uint32_t i = 0; i < p->n_ids; i++)
        json_array_append_new(ids, json_integer(p->ids[i]));
    for (uint32_t i = 0; p->logprobs && i < p->n_ids; i++) {
        json_t *const step = json_array();
        for (uint32_t j = 0; j <= p->n_logprobs; j++) {
            const ew_logprob *const l = &p->logprobs[(size_t)i * (1 + p->n_logprobs) + j];
            json_array_append_new(step, json_pack("{s:I, s:f}", "token_id", (json_int_t)l->id,
                                                  "logprob", (double)l->logprob));
        }
        json_array_append_new(steps, step);
    }
    json_t *const answer =
        json_pack("{s:s, s:s, s:o, s:I, s:s, s:f}", "text", p->text, "finish_reason",
                  ew_finish_text(p->finish), "ids", ids, "prompt_tokens", (json_int_t)p->n_prompt,
                  "prompt", p->prompt_text ? p->prompt_text : "", "ttft_ms", p->ttft_ms);
    if (p->logprobs)
        json_object_set_new(answer, "logprobs", steps);
    else
        json_decref(steps);
    return answer;
}

static char *messages_text(const char *user)
{
    json_t *const list = json_array();
    char *text;

    if (system_text)
        json_array_append_new(list,
                              json_pack("{s:s, s:s}", "role", "system", "content", system_text));
    json_array_append_new(list, json_pack("{s:s, s:s}", "role", "user", "content", user));
    /* What is not UTF-8 made no message. */
    text = json_array_size(list) == (system_text ? 2 : 1) ? json_dumps(list, JSON_COMPACT) : NULL;
    json_decref(list);
    return text;
}

static int run_prompt(ew_runtime *rt)
{
    ew_request q = EW_REQUEST_INIT;
    ew_response p;
    ew_error err = { EW_STATUS_OK, "" };
    char *messages = NULL;
    int code = EXIT_FINE;

    if (!sampling_fill(&q))
        return EXIT_USAGE;
    if (sampling_opts.raw) {
        q.raw_text = prompt;
    } else {
        messages = messages_text(prompt);
        if (!messages)
            return cli_fail_text("the prompt is not valid UTF-8");
        q.messages_json = messages;
    }
    const bool stream = !json_out && !output_path;
    if (stream)
        q.on_text = print_piece;
    const ew_status st = ew_runtime_handle_request(rt, &q, 1, &p, &err);
    free(messages);
    if (st)
        return cli_fail(&err);
    if (p.status)
        code = cli_fail_text("%s", p.error);
    else if (stream)
        printf("\n");
    else
        code = cli_print_json(answer_json(&p), output_path);
    ew_response_release(&p);
    return code;
}

static int run_file(ew_runtime *rt, const char *engine_dir)
{
    struct request_file f;
    ew_error err = { EW_STATUS_OK, "" };
    ew_response *responses;
    ew_tokenizer *tok = NULL;
    ew_template *tmpl = NULL;
    uint32_t n_failed = 0;
    int code;

    if (!request_file_load(requests_path, &f))
        return EXIT_FAILED;
    responses = calloc(f.n, sizeof(*responses));
    if (!responses) {
        request_file_release(&f);
        return cli_fail_text("out of memory");
    }
    const ew_progress progress = cli_progress();
    for (uint32_t i = 0; i < f.n; i += f.batch_size) {
        const uint32_t n = f.n - i < f.batch_size ? f.n - i : f.batch_size;
        progress.step(progress.ctx, "requests", i, f.n);
        if (ew_runtime_handle_request(rt, f.requests + i, n, responses + i, &err))
            for (uint32_t j = i; j < i + n; j++) {
                responses[j].status = err.status;
                responses[j].finish = EW_FINISH_ERROR;
                snprintf(responses[j].error, sizeof(responses[j].error), "%.500s", err.text);
            }
    }
    cli_progress_end();
    /* Only for names of tokens and the system block; their absence is no error here. */
    if (ew_tokenizer_load(engine_dir, &tok, NULL))
        tok = NULL;
    if (ew_template_load(engine_dir, false, &tmpl, NULL))
        tmpl = NULL;
    code = cli_print_json(request_file_responses(&f, requests_path, responses, tok, tmpl),
                          output_path);
    for (uint32_t i = 0; i < f.n; i++) {
        if (responses[i].status) {
            n_failed++;
            cli_fail_text("request %u: %s", i, responses[i].error);
        }
        ew_response_release(&responses[i]);
    }
    ew_template_destroy(tmpl);
    ew_tokenizer_destroy(tok);
    free(responses);
    request_file_release(&f);
    return n_failed ? EXIT_FAILED : code;
}

int cmd_run(int argc, char **argv)
{
    const struct opt *const tables[] = { run_table, sampling_opt_table, model_opt_table,
                                         build_opt_table, NULL };
    const struct command *const cmd = cli_command("run");
    const char *model;
    char *from_file = NULL;
    char dir[4096];
    ew_runtime *rt;
    size_t len;
    int code;
    const int n = cli_parse(
        cmd,
        "<model> is a Hugging Face checkpoint, an ONNX directory or an engine directory; "
        "what is missing\n"
        "is built on the fly and cached. Without sampling options the answer is greedy. A request "
        "file says\n"
        "itself how to sample, think and stop: the options for that are for -p and -f.",
        tables, argc, argv, &model, 1);

    if (n < 0)
        return CLI_PARSE_EXIT(n);
    if (n == 0)
        return cli_usage("run needs a model");
    if ((prompt != NULL) + (requests_path != NULL) + (prompt_file != NULL) != 1)
        return cli_usage("run needs one of -p TEXT, -f FILE and --requests FILE");
    if (!sampling_fill(&(ew_request)EW_REQUEST_INIT)) /* before anything is built */
        return EXIT_USAGE;
    if (prompt_file) {
        prompt = from_file = cli_read_file(prompt_file, &len);
        if (!prompt)
            return EXIT_FAILED;
    }
    code = model_engine_dir(model, 0, false, dir, sizeof(dir));
    if (!code)
        code = model_open(dir, 0, false, &rt, NULL);
    if (!code) {
        interrupted = rt;
        signal(SIGINT, on_interrupt);
        code = requests_path ? run_file(rt, dir) : run_prompt(rt);
        code = model_finish(rt, code);
        interrupted = NULL;
        ew_runtime_destroy(rt);
    }
    free(from_file);
    return code;
}

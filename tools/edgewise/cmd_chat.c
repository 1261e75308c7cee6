/* cmd_chat.c - `edgewise chat`: a conversation on the terminal with line editing. */
#include "cli.h"

#include <histedit.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *system_text;

/* clang-format off */
static const struct opt chat_table[] = {
    { "system", 's', OPT_TEXT, &system_text, "TEXT", "system message" },
    OPT_END,
};
/* clang-format on */

static const char help_text[] =
    "/reset starts over, /think and /no-think switch thinking, /stats shows speed, /quit ends.";

static ew_runtime *interrupted;

static void on_interrupt(int sig)
{
    (void)sig;
    if (interrupted)
        ew_runtime_cancel(interrupted);
}

static bool print_piece(void *ctx, uint32_t i, const char *text, size_t len)
{
    (void)ctx;
    (void)i;
    return fwrite(text, 1, len, stdout) == len && fflush(stdout) == 0;
}

static json_t *fresh(void)
{
    json_t *const list = json_array();

    if (system_text)
        json_array_append_new(list,
                              json_pack("{s:s, s:s}", "role", "system", "content", system_text));
    return list;
}

static void print_stats(ew_runtime *rt)
{
    ew_runtime_stats s;

    ew_runtime_get_stats(rt, &s);
    printf("prompt: %llu tokens (%llu reused) at %.1f tok/s; answer: %llu tokens at %.1f tok/s\n",
           (unsigned long long)s.prefill_tokens, (unsigned long long)s.reused_tokens,
           s.prefill_ns ? 1e9 * (double)s.prefill_tokens / (double)s.prefill_ns : 0.0,
           (unsigned long long)s.decode_tokens,
           s.decode_ns ? 1e9 * (double)s.decode_tokens / (double)s.decode_ns : 0.0);
}

/* One exchange; the conversation keeps it only if it went well. */
static void say(ew_runtime *rt, json_t *conversation, const char *line)
{
    ew_request q = EW_REQUEST_INIT;
    ew_response p;
    ew_error err = { EW_STATUS_OK, "" };
    json_t *const message = json_pack("{s:s, s:s}", "role", "user", "content", line);
    char *text;

    if (!message || !sampling_fill(&q)) {
        cli_fail_text("the line is not valid UTF-8");
        return;
    }
    json_array_append_new(conversation, message);
    text = json_dumps(conversation, JSON_COMPACT);
    q.messages_json = text;
    q.on_text = print_piece;
    interrupted = rt;
    const ew_status st = ew_runtime_handle_request(rt, &q, 1, &p, &err);
    interrupted = NULL;
    free(text);
    if (st || p.status) {
        cli_fail_text("%s", st ? err.text : p.error);
        json_array_remove(conversation, json_array_size(conversation) - 1);
    } else {
        printf("\n");
        json_array_append_new(conversation,
                              json_pack("{s:s, s:s}", "role", "assistant", "content", p.text));
    }
    if (!st)
        ew_response_release(&p);
}

/* False: end the chat. */
static bool handle_line(ew_runtime *rt, json_t **conversation, const char *line)
{
    if (line[0] == '\0')
        return true;
    if (strcmp(line, "/quit") == 0 || strcmp(line, "/exit") == 0)
        return false;
    if (strcmp(line, "/reset") == 0) {
        json_decref(*conversation);
        *conversation = fresh();
    } else if (strcmp(line, "/think") == 0 || strcmp(line, "/no-think") == 0) {
        sampling_opts.think = line[1] == 't';
        sampling_opts.no_think = !sampling_opts.think;
    } else if (strcmp(line, "/stats") == 0) {
        print_stats(rt);
    } else if (line[0] == '/') {
        puts(help_text);
    } else {
        say(rt, *conversation, line);
    }
    return true;
}

static char *prompt_text(EditLine *el)
{
    static char text[] = "> ";

    (void)el;
    return text;
}

static void chat_terminal(ew_runtime *rt, json_t **conversation)
{
    EditLine *const el = el_init("edgewise", stdin, stdout, stderr);
    History *const past = history_init();
    HistEvent event;
    const char *line;
    bool more = true;
    int len;

    history(past, &event, H_SETSIZE, 500);
    el_set(el, EL_PROMPT, prompt_text);
    el_set(el, EL_EDITOR, "emacs");
    el_set(el, EL_HIST, history, past);
    el_set(el, EL_SIGNAL, 1);
    while (more && (line = el_gets(el, &len)) != NULL && len > 0) {
        char *const copy = strndup(line, strcspn(line, "\r\n"));
        if (!copy)
            break;
        if (copy[0])
            history(past, &event, H_ENTER, line);
        more = handle_line(rt, conversation, copy);
        free(copy);
    }
    history_end(past);
    el_end(el);
}

static void chat_pipe(ew_runtime *rt, json_t **conversation)
{
    char *line = NULL;
    size_t cap = 0;

    while (getline(&line, &cap, stdin) > 0) {
        line[strcspn(line, "\r\n")] = '\0';
        if (!handle_line(rt, conversation, line))
            break;
    }
    free(line);
}

int cmd_chat(int argc, char **argv)
{
    const struct opt *const tables[] = { chat_table, sampling_opt_table, model_opt_table,
                                         build_opt_table, NULL };
    const char *model;
    ew_runtime *rt;
    const int n = cli_parse(cli_command("chat"), help_text, tables, argc, argv, &model, 1);

    if (n < 0)
        return CLI_PARSE_EXIT(n);
    if (n == 0)
        return cli_usage("chat needs a model");
    if (sampling_opts.raw)
        return cli_usage("chat uses the model's template; --raw is for run");
    if (!sampling_fill(&(ew_request)EW_REQUEST_INIT)) /* before anything is built */
        return EXIT_USAGE;
    const int code = model_open(model, 0, false, &rt, NULL);
    if (code)
        return code;
    json_t *conversation = fresh();
    signal(SIGINT, on_interrupt);
    if (isatty(STDIN_FILENO) && isatty(STDOUT_FILENO))
        chat_terminal(rt, &conversation);
    else
        chat_pipe(rt, &conversation);
    json_decref(conversation);
    const int finished = model_finish(rt, EXIT_FINE);
    ew_runtime_destroy(rt);
    return finished;
}

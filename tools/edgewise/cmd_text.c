/* cmd_text.c - `edgewise tokenize` and `edgewise template`: the text half on its own. */
#include "cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *text_file, *input_path, *now_text;
static bool decode, special, add_bos, json_out, show_tokens, skip_special, with_tools;

/* clang-format off */
static const struct opt tokenize_table[] = {
    { "file", 'f', OPT_TEXT, &text_file, "FILE", "text (or ids with --decode) from a file, - for standard input" },
    { "decode", 'd', OPT_FLAG, &decode, NULL, "ids to text" },
    { "special", 0, OPT_FLAG, &special, NULL, "special tokens in the text are tokens" },
    { "add-bos", 0, OPT_FLAG, &add_bos, NULL, "apply the post-processor (BOS, EOS)" },
    { "skip-special", 0, OPT_FLAG, &skip_special, NULL, "with --decode: leave special tokens out" },
    { "tokens", 0, OPT_FLAG, &show_tokens, NULL, "one token a line: id and text" },
    { "json", 0, OPT_FLAG, &json_out, NULL, "JSON: {\"ids\": [...]} or {\"text\": \"...\"}" },
    OPT_END,
};
static const struct opt template_table[] = {
    { "input", 'i', OPT_TEXT, &input_path, "FILE", "variables as a JSON object: messages, tools, add_generation_prompt..." },
    { "now", 0, OPT_TEXT, &now_text, "TIME", "what strftime_now shows: seconds since 1970 or YYYY-MM-DD[ HH:MM] (default: the clock)" },
    { "tools", 0, OPT_FLAG, &with_tools, NULL, "prefer the model's template for tools" },
    OPT_END,
};
/* clang-format on */

static int print_ids(const ew_tokenizer *t, const int32_t *ids, size_t n)
{
    if (json_out) {
        json_t *const list = json_array();
        for (size_t i = 0; i < n; i++)
            json_array_append_new(list, json_integer(ids[i]));
        return cli_print_json(json_pack("{s:o}", "ids", list), NULL);
    }
    for (size_t i = 0; i < n; i++) {
        const char *const token = ew_tokenizer_token(t, ids[i]);
        if (show_tokens)
            printf("%d\t%s\n", ids[i], token ? token : "?");
        else
            printf(i ? " %d" : "%d", ids[i]);
    }
    if (!show_tokens)
        printf("\n");
    return EXIT_FINE;
}

static int run_encode(const ew_tokenizer *t, const char *text, size_t len)
{
    ew_error err = { EW_STATUS_OK, "" };
    int32_t *ids;
    size_t n;
    const uint32_t flags = (special ? EW_ENCODE_SPECIAL : 0u) | (add_bos ? EW_ENCODE_ADD_BOS : 0u);

    if (ew_tokenizer_encode(t, text, len, flags, &ids, &n, &err))
        return cli_fail(&err);
    const int code = print_ids(t, ids, n);
    ew_tokens_free(ids);
    return code;
}

static int run_decode(const ew_tokenizer *t, const char *text)
{
    ew_error err = { EW_STATUS_OK, "" };
    size_t n = 0, len;
    int32_t *const ids = calloc(strlen(text) / 2 + 2, sizeof(*ids));
    char *out;

    if (!ids)
        return cli_fail_text("out of memory");
    while (*text) {
        char *end;
        const size_t gap = strspn(text, " \t\r\n,[]");
        text += gap;
        if (!*text)
            break;
        const long id = strtol(text, &end, 10);
        if (end == text || id < 0 || id > INT32_MAX) {
            free(ids);
            return cli_fail_text("'%.20s' is not a token id", text);
        }
        ids[n++] = (int32_t)id;
        text = end;
    }
    const ew_status st = ew_tokenizer_decode(t, ids, n, skip_special, &out, &len, &err);
    free(ids);
    if (st)
        return cli_fail(&err);
    int code = EXIT_FINE;
    if (json_out)
        code = cli_print_json(json_pack("{s:s%}", "text", out, len), NULL);
    else
        printf("%s\n", out);
    ew_string_free(out);
    return code;
}

int cmd_tokenize(int argc, char **argv)
{
    const struct opt *const tables[] = { tokenize_table, NULL };
    const char *args[2];
    ew_error err = { EW_STATUS_OK, "" };
    ew_tokenizer *t;
    char *from_file = NULL;
    const int n = cli_parse(cli_command("tokenize"), NULL, tables, argc, argv, args, 2);

    if (n < 0)
        return CLI_PARSE_EXIT(n);
    if (n < 1 || (n == 2) == (text_file != NULL))
        return cli_usage("tokenize needs a model and a text, or -f FILE");
    if (ew_tokenizer_load(args[0], &t, &err))
        return cli_fail(&err);
    const char *text = n == 2 ? args[1] : NULL;
    size_t len = text ? strlen(text) : 0;
    if (!text)
        text = from_file = cli_read_file(text_file, &len);
    int code = EXIT_FAILED;
    if (text)
        code = decode ? run_decode(t, text) : run_encode(t, text, len);
    free(from_file);
    ew_tokenizer_destroy(t);
    return code;
}

/* The variables: the file itself, or its member "input" when the file is a whole test case. */
static char *read_input(void)
{
    size_t len;
    char *text = cli_read_file(input_path, &len);
    json_t *const root = text ? json_loadb(text, len, 0, NULL) : NULL;

    if (json_is_object(json_object_get(root, "input")) && !json_object_get(root, "messages")) {
        free(text);
        text = json_dumps(json_object_get(root, "input"), JSON_COMPACT);
    }
    json_decref(root);
    return text;
}

/* --now, else SOURCE_DATE_EPOCH (reproducible builds), else the clock (-1). False after a message.
 */
static bool read_now(int64_t *now)
{
    const char *const text = now_text ? now_text : getenv("SOURCE_DATE_EPOCH");
    struct tm tm = { 0 };
    char *end;

    *now = -1;
    if (!text)
        return true;
    *now = strtoll(text, &end, 10);
    if (end != text && *end == '\0')
        return true;
    end = strptime(text, "%Y-%m-%d", &tm);
    if (end && *end)
        end = strptime(end + 1, "%H:%M", &tm);
    if (!end || *end) {
        cli_usage("--now: '%s' is neither seconds nor YYYY-MM-DD[ HH:MM]", text);
        return false;
    }
    *now = timegm(&tm);
    return true;
}

static ew_status load_template(const char *path, ew_template **out, ew_error *err)
{
    const char *const dot = strrchr(path, '.');
    char *source;
    size_t len;

    if (!dot || (strcmp(dot, ".jinja") != 0 && strcmp(dot, ".j2") != 0 && strcmp(dot, ".txt") != 0))
        return ew_template_load(path, with_tools, out, err);
    source = cli_read_file(path, &len);
    if (!source)
        return EW_STATUS_IO;
    const ew_status st = ew_template_parse(source, len, path, out, err);
    free(source);
    return st;
}

int cmd_template(int argc, char **argv)
{
    const struct opt *const tables[] = { template_table, NULL };
    const char *path;
    ew_error err = { EW_STATUS_OK, "" };
    ew_template *t;
    char *input, *out;
    size_t len;
    const int n = cli_parse(cli_command("template"),
                            "The template is a .jinja file or that of a model directory; the "
                            "rendering goes to standard output\n"
                            "without a newline added.",
                            tables, argc, argv, &path, 1);

    if (n < 0)
        return CLI_PARSE_EXIT(n);
    if (n == 0 || !input_path)
        return cli_usage("template needs a template and --input case.json");
    int64_t now;
    if (!read_now(&now))
        return EXIT_USAGE;
    const ew_status st = load_template(path, &t, &err);
    if (st)
        return err.text[0] ? cli_fail(&err) : EXIT_FAILED;
    input = read_input();
    int code = EXIT_FAILED;
    if (input) {
        if (ew_template_render(t, input, NULL, now, &out, &len, NULL, NULL, &err)) {
            code = cli_fail(&err);
        } else {
            code = cli_write_file(NULL, out, len) ? EXIT_FINE : EXIT_FAILED;
            ew_string_free(out);
        }
        free(input);
    }
    ew_template_destroy(t);
    return code;
}

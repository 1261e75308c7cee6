/* cmd_inspect.c - `edgewise inspect`: what is in a file, as a summary or as JSON. */
#include "cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "edgewise/inspect.h"
#include "edgewise/onnx.h"

static bool json_out, print_graph;

/* clang-format off */
static const struct opt inspect_table[] = {
    { "json", 0, OPT_FLAG, &json_out, NULL, "everything as JSON" },
    { "graph", 0, OPT_FLAG, &print_graph, NULL, "the graph's text form (checkpoint or ONNX)" },
    OPT_END,
};
/* clang-format on */

static void print_value(const char *key, const json_t *v, int depth);

static bool is_flat(const json_t *v)
{
    const char *key;
    json_t *item;
    size_t i;

    json_object_foreach((json_t *)(uintptr_t)v, key,
                        item) if (json_is_object(item) ||
                                  (json_is_array(item) && json_array_size(item) &&
                                   !json_is_number(json_array_get(item, 0)))) return false;
    json_array_foreach(v, i, item) if (!json_is_number(item) && !json_is_string(item)) return false;
    return true;
}

static void print_scalar(const json_t *v)
{
    char *const text = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(6));

    if (text)
        fputs(json_is_string(v) ? json_string_value(v) : text, stdout);
    free(text);
}

/* One line: key=value of an object, or the items of an array. */
static void print_line(const json_t *v)
{
    const char *key;
    json_t *item;
    bool first = true;

    if (json_is_array(v)) {
        print_scalar(v);
        return;
    }
    json_object_foreach((json_t *)(uintptr_t)v, key, item)
    {
        printf("%s%s=", first ? "" : "  ", key);
        print_scalar(item);
        first = false;
    }
}

static void print_children(const json_t *v, int depth)
{
    const char *key;
    json_t *item;
    size_t i;

    json_object_foreach((json_t *)(uintptr_t)v, key, item) print_value(key, item, depth);
    json_array_foreach(v, i, item) print_value(NULL, item, depth);
}

static void print_value(const char *key, const json_t *v, int depth)
{
    printf("%*s%s%s", depth * 2, "", key ? key : "- ", key ? ": " : "");
    if (!json_is_object(v) && !json_is_array(v)) {
        print_scalar(v);
        printf("\n");
    } else if (is_flat(v)) {
        print_line(v);
        printf("\n");
    } else {
        printf("\n");
        print_children(v, depth + 1);
    }
}

static int inspect_graph(const char *path)
{
    ew_checkpoint_opts opts = EW_CHECKPOINT_OPTS_INIT;
    ew_error err = { EW_STATUS_OK, "" };
    ew_graph *g;
    char *text;
    const char *const kind = ew_model_kind(path);
    const bool onnx = strcmp(kind, "onnx") == 0;

    if (strcmp(kind, "engine") == 0)
        return cli_fail_text("%s: --graph needs a checkpoint or ONNX, this is an engine", path);
    ew_status st =
        onnx ? ew_graph_from_onnx(path, &g, &err) : ew_graph_from_checkpoint(path, &opts, &g, &err);

    if (st)
        return cli_fail(&err);
    st = ew_graph_text(g, &text, &err);
    ew_graph_destroy(g);
    if (st)
        return cli_fail(&err);
    fputs(text, stdout);
    ew_text_free(text);
    return EXIT_FINE;
}

int cmd_inspect(int argc, char **argv)
{
    const struct opt *const tables[] = { inspect_table, NULL };
    const char *path;
    ew_error err = { EW_STATUS_OK, "" };
    char *text;
    const int n = cli_parse(cli_command("inspect"),
                            "Of an engine: profiles, tactics with their times and runners-up, "
                            "memory, sections. Every byte is checked.",
                            tables, argc, argv, &path, 1);

    if (n < 0)
        return CLI_PARSE_EXIT(n);
    if (n == 0)
        return cli_usage("inspect needs a path");
    if (print_graph)
        return inspect_graph(path);
    if (ew_inspect(path, &text, &err))
        return cli_fail(&err);
    json_t *const v = json_loads(text, JSON_DECODE_ANY, NULL);
    ew_text_free(text);
    if (json_out)
        return cli_print_json(v, NULL);
    print_children(v, 0);
    json_decref(v);
    return EXIT_FINE;
}

/* cmd_build.c - `edgewise build` and `edgewise export`: the two stages that write something a user
 * ships. */
#include "cli.h"

#include <stdio.h>

#include "edgewise/onnx.h"

static bool hidden_states, all_logits, split_qkv, print_graph;

/* clang-format off */
static const struct opt build_table[] = {
    { "hidden-states", 0, OPT_FLAG, &hidden_states, NULL, "also output every layer's input (checkpoints)" },
    { "all-logits", 0, OPT_FLAG, &all_logits, NULL, "logits of every token of a step may be asked for" },
    OPT_END,
};
static const struct opt export_table[] = {
    { "split-qkv", 0, OPT_FLAG, &split_qkv, NULL, "attention with q, k, v inputs (0.6 and later) instead of one packed qkv" },
    { "hidden-states", 0, OPT_FLAG, &hidden_states, NULL, "also output every layer's input" },
    { "print", 0, OPT_FLAG, &print_graph, NULL, "print the graph's text form" },
    { "quiet", 'q', OPT_FLAG, &model_opts.quiet, NULL, "no progress" },
    OPT_END,
};
/* clang-format on */

int cmd_build(int argc, char **argv)
{
    const struct opt *const tables[] = { build_table, build_opt_table, NULL };
    const char *args[2];
    ew_build_opts opts;
    ew_error err = { EW_STATUS_OK, "" };
    const int n = cli_parse(
        cli_command("build"),
        "Writes <dir>/llm.engine and, for a language model, config.json and the tokenizer's files.",
        tables, argc, argv, args, 2);

    if (n < 0)
        return CLI_PARSE_EXIT(n);
    if (n != 2)
        return cli_usage("build needs a model and a folder to write");
    if (!model_build_opts(&opts))
        return EXIT_USAGE;
    opts.flags |= all_logits ? EW_BUILD_ALL_LOGITS : 0u;
    if (ew_model_build(args[0], args[1], &opts, hidden_states, &err))
        return cli_fail(&err);
    cli_progress_end();
    return EXIT_FINE;
}

int cmd_export(int argc, char **argv)
{
    const struct opt *const tables[] = { export_table, NULL };
    const char *args[2];
    ew_onnx_save_opts save = EW_ONNX_SAVE_OPTS_INIT;
    ew_checkpoint_opts read = EW_CHECKPOINT_OPTS_INIT;
    ew_error err = { EW_STATUS_OK, "" };
    ew_graph *g;
    char *text = NULL;
    const int n = cli_parse(cli_command("export"),
                            "Writes <dir>/model.onnx, model.onnx.data, config.json, "
                            "embedding.safetensors and the tokenizer's\n"
                            "files in the layout of the reference system.",
                            tables, argc, argv, args, 2);

    if (n < 0)
        return CLI_PARSE_EXIT(n);
    if (n != 2)
        return cli_usage("export needs a checkpoint and a folder to write");
    cli_quiet(model_opts.quiet);
    read.hidden_states = hidden_states;
    read.logger = cli_logger();
    if (ew_graph_from_checkpoint(args[0], &read, &g, &err))
        return cli_fail(&err);
    save.flags = split_qkv ? EW_ONNX_SPLIT_QKV : 0u;
    save.progress = cli_progress();
    ew_status st = ew_graph_save_onnx(g, args[1], &save, &err);
    if (!st && print_graph)
        st = ew_graph_text(g, &text, &err);
    if (!st)
        st = ew_model_copy_text_files(args[0], args[1], &err);
    cli_progress_end();
    if (text)
        fputs(text, stdout);
    ew_text_free(text);
    ew_graph_destroy(g);
    return st ? cli_fail(&err) : EXIT_FINE;
}

/* cmd_synth.c - `edgewise synth`: random checkpoints for benchmarks. */
#include "cli.h"

static uint64_t seed = 1;

/* clang-format off */
static const struct opt synth_table[] = {
    { "seed", 0, OPT_U64, &seed, "N", "seed of the weights (default 1)" },
    { "quiet", 'q', OPT_FLAG, &model_opts.quiet, NULL, "no progress" },
    OPT_END,
};
/* clang-format on */

int cmd_synth(int argc, char **argv)
{
    const struct opt *const tables[] = { synth_table, NULL };
    const char *args[2];
    ew_error err = { EW_STATUS_OK, "" };
    const int n = cli_parse(cli_command("synth"), "Same config and seed give the same bytes.",
                            tables, argc, argv, args, 2);

    if (n < 0)
        return CLI_PARSE_EXIT(n);
    if (n != 2)
        return cli_usage("synth needs a config.json and a folder to write");
    cli_quiet(model_opts.quiet);
    const ew_progress progress = cli_progress();
    if (ew_checkpoint_synth(args[0], args[1], seed, &progress, &err))
        return cli_fail(&err);
    cli_progress_end();
    return EXIT_FINE;
}

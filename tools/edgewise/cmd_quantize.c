/* cmd_quantize.c - `edgewise quantize`: a quantised copy of a checkpoint. */
#include "cli.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "edgewise/quantize.h"

static ew_quantize_opts opts = EW_QUANTIZE_OPTS_INIT;
static const char *calibration;
static struct opt_list overrides;
static bool json;

/* clang-format off */
static const struct opt quantize_table[] = {
    { "scheme", 's', OPT_TEXT, &opts.scheme, "S", "int8, int4, gptq, fp8, nvfp4 or mxfp4" },
    { "method", 0, OPT_TEXT, &opts.method, "M", "int4: awq (default), awq+gptq or rtn; int8: rtn needs no text and folds no outliers" },
    { "group", 'g', OPT_U32, &opts.group, "N", "int4, gptq: 32, 64 or 128 weights a scale (default 128)" },
    { "bits", 0, OPT_U32, &opts.bits, "N", "gptq: 4 (default) or 8" },
    { "asymmetric", 0, OPT_FLAG, &opts.asymmetric, NULL, "int4, gptq: with zero points" },
    { "act-order", 0, OPT_FLAG, &opts.act_order, NULL, "gptq: columns in order of their activations" },
    { "lm-head", 0, OPT_TEXT, &opts.lm_head, "S", "scheme of the head (default none)" },
    { "embedding", 0, OPT_TEXT, &opts.embedding, "S", "int8, or none (default)" },
    { "kv", 0, OPT_TEXT, &opts.kv, "S", "KV cache: int8, fp8, or none (default)" },
    { "override", 0, OPT_LIST, &overrides, "P=S", "scheme S (or none) for modules like P, as in *.down_proj=int8; repeatable" },
    { "calibration", 0, OPT_TEXT, &calibration, "FILE", "text to calibrate on (default: a built-in one)" },
    { "calibration-tokens", 0, OPT_U32, &opts.calibration_tokens, "N", "tokens of it (default 4096)" },
    { "threads", 't', OPT_U32, &opts.n_threads, "N", "threads (default: one per core)" },
    { "json", 0, OPT_FLAG, &json, NULL, "print a summary: bits a weight, errors by module" },
    { "quiet", 'q', OPT_FLAG, &model_opts.quiet, NULL, "no progress" },
    OPT_END,
};
/* clang-format on */

static volatile sig_atomic_t interrupted;

static void on_interrupt(int sig)
{
    interrupted = 1;
    signal(sig, SIG_DFL); /* the second one ends the program */
}

/* Ctrl-C or a kill ends the work at the next layer, and what was written goes. */
static bool step(void *ctx, const char *stage, uint64_t done, uint64_t total)
{
    const ew_progress shown = cli_progress();

    (void)ctx;
    return !interrupted && shown.step(shown.ctx, stage, done, total);
}

int cmd_quantize(int argc, char **argv)
{
    const struct opt *const tables[] = { quantize_table, NULL };
    const char *args[2];
    ew_error err = { EW_STATUS_OK, "" };
    char *text = NULL, *summary = NULL;
    ew_status s;
    const int n = cli_parse(cli_command("quantize"),
                            "Writes a Hugging Face directory with compressed-tensors metadata.",
                            tables, argc, argv, args, 2);

    if (n < 0)
        return CLI_PARSE_EXIT(n);
    if (n != 2)
        return cli_usage("quantize needs a checkpoint and a folder to write");
    if (!opts.scheme)
        return cli_usage("quantize needs --scheme int8, int4, gptq, fp8, nvfp4 or mxfp4");
    if (calibration) {
        text = cli_read_file(calibration, &opts.calibration_len);
        if (!text)
            return EXIT_FAILED;
        opts.calibration = text;
    }
    cli_quiet(model_opts.quiet);
    opts.progress = (ew_progress){ NULL, step };
    signal(SIGINT, on_interrupt);
    signal(SIGTERM, on_interrupt);
    opts.logger = cli_logger();
    opts.overrides = overrides.v;
    opts.n_overrides = overrides.n;
    s = ew_quantize(args[0], args[1], &opts, json ? &summary : NULL, &err);
    cli_progress_end();
    free(text);
    if (s)
        return cli_fail(&err);
    if (summary)
        puts(summary);
    ew_text_free(summary);
    return EXIT_FINE;
}

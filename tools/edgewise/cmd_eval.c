/* cmd_eval.c - `edgewise eval`: options, and what its sub-commands share. Each has a file eval_*.c.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "eval_cmd.h"

struct eval_opts eval_opts;

static struct model_opts against;

/* clang-format off */
static const struct opt eval_table[] = {
    { "text", 0, OPT_TEXT, &eval_opts.file, "FILE", "ppl, kld, parity: the text (or as last argument)" },
    { "file", 0, OPT_TEXT, &eval_opts.file, "FILE", "qa, choice: the questions, a JSON object a line (or as last argument)" },
    { "against", 0, OPT_TEXT, &eval_opts.against, "MODEL", "kld, parity: the reference model" },
    { "window", 0, OPT_U32, &eval_opts.window, "N", "ppl, kld: tokens a window (default 1024, or --max-kv-len if less); parity: 128" },
    { "stride", 0, OPT_U32, &eval_opts.stride, "N", "ppl, kld: tokens between windows (default: the window)" },
    { "chunks", 0, OPT_U32, &eval_opts.chunks, "N", "ppl, kld: only the first N windows; parity: 4" },
    { "max-chars", 0, OPT_U64, &eval_opts.max_chars, "N", "ppl, kld: only the first N characters" },
    { "limit", 0, OPT_U32, &eval_opts.limit, "N", "qa, choice: only the first N lines" },
    { "wrong", 0, OPT_FLAG, &eval_opts.show_wrong, NULL, "qa: print what was answered wrongly" },
    { "max-tokens", 'n', OPT_U32, &sampling_opts.max_tokens, "N", "qa: tokens an answer may have (default 256)" },
    { "think", 0, OPT_FLAG, &sampling_opts.think, NULL, "qa: let the model think" },
    { "template", 0, OPT_TEXT, &eval_opts.template_name, "NAME", "choice: none (default: the question as it stands) or chat" },
    { "reference", 0, OPT_TEXT, &eval_opts.reference, "FILE", "parity: safetensors with input_ids, logits and maybe hidden_N" },
    { "tolerance", 0, OPT_F64, &eval_opts.tolerance, "X", "parity --reference: max error / max value allowed (default 1e-4)" },
    { "max-kl", 0, OPT_F64, &eval_opts.max_kl, "X", "kld, parity --reference: fail when the mean divergence is above (nats a token)" },
    { "resume", 0, OPT_TEXT, &eval_opts.resume, "FILE", "ppl, kld, qa, choice: keep what is done here, and go on from it" },
    { "html", 0, OPT_TEXT, &eval_opts.html, "FILE", "also write a report with plots" },
    { "json", 0, OPT_FLAG, &eval_opts.json, NULL, "figures as JSON" },
    OPT_END,
};

const struct opt eval_against_table[] = {
    { "against-kv", 0, OPT_TEXT, &against.kv, "DTYPE", "KV cache of the reference (default: as without --kv)" },
    { "against-activations", 0, OPT_TEXT, &against.activations, "KIND", "--activations of the reference (default exact)" },
    { "against-device", 0, OPT_TEXT, &against.device, "DEVICE", "--device of the reference (default: the model's)" },
    { "against-cpu", 0, OPT_TEXT, &against.cpu, "LEVEL", "--cpu of the reference" },
    { "against-tactic", 0, OPT_TEXT, &against.tactic, "NAME", "--tactic of the reference" },
    { "against-no-fusion", 0, OPT_FLAG, &against.no_fusion, NULL, "--no-fusion for the reference" },
    OPT_END,
};
/* clang-format on */

/* Swaps in what the reference does not share with the model; returns what was there. */
static struct model_opts as_reference(void)
{
    const struct model_opts saved = model_opts;

    model_opts.kv = against.kv;
    model_opts.activations = against.activations;
    model_opts.cpu = against.cpu;
    model_opts.tactic = against.tactic;
    model_opts.no_fusion = against.no_fusion;
    model_opts.device = against.device ? against.device : model_opts.device;
    return saved;
}

int eval_open(const char *model, bool is_reference, ew_runtime **out)
{
    const struct model_opts saved = model_opts;
    int code;

    if (is_reference)
        as_reference();
    if (model_opts.max_batch == 0 && strcmp(ew_model_kind(model), "engine") != 0)
        model_opts.max_batch = 1;
    code = model_open(model, EW_BUILD_ALL_LOGITS, false, out, NULL);
    model_opts = saved;
    return code;
}

bool eval_against_opts(ew_build_opts *out)
{
    const struct model_opts saved = as_reference();
    const bool ok = model_build_opts(out);

    model_opts = saved;
    return ok;
}

json_t *eval_real(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

json_t *eval_estimate(ew_estimate e)
{
    return json_pack("{s:o, s:o}", "value", eval_real(e.value), "stderr", eval_real(e.error));
}

/* Options that mean nothing to the kind asked for are refused, not passed over. */
static int check_opts(const char *kind)
{
    const bool windows = strcmp(kind, "ppl") == 0 || strcmp(kind, "kld") == 0;
    const bool lines = strcmp(kind, "qa") == 0 || strcmp(kind, "choice") == 0;
    const bool parity = strcmp(kind, "parity") == 0;

    if (eval_opts.against && !parity && strcmp(kind, "kld") != 0)
        return cli_usage("eval %s takes no --against", kind);
    if (eval_opts.resume && parity)
        return cli_usage("eval parity takes no --resume");
    if (eval_opts.reference && !parity)
        return cli_usage("eval %s takes no --reference", kind);
    if (parity && (eval_opts.reference != NULL) == (eval_opts.against != NULL))
        return cli_usage("eval parity needs --reference FILE.safetensors or --against MODEL");
    if (eval_opts.max_kl > 0 && strcmp(kind, "kld") != 0 && !(parity && eval_opts.reference))
        return cli_usage("eval %s takes no --max-kl", parity ? "parity --against" : kind);
    if ((eval_opts.limit || eval_opts.show_wrong) && !lines)
        return cli_usage("eval %s takes no --limit or --wrong", kind);
    if ((eval_opts.stride || eval_opts.max_chars) && !windows)
        return cli_usage("eval %s takes no --stride or --max-chars", kind);
    if (eval_opts.template_name && strcmp(kind, "choice") != 0)
        return cli_usage("eval %s takes no --template", kind);
    return EXIT_FINE;
}

int cmd_eval(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(const char *model);
    } kinds[] = { { "ppl", eval_ppl },       { "kld", eval_kld },       { "qa", eval_qa },
                  { "choice", eval_choice }, { "parity", eval_parity }, { NULL, NULL } };
    const struct opt *const tables[] = { eval_table, eval_against_table, model_opt_table,
                                         build_opt_table, NULL };
    const char *args[3];
    const int n = cli_parse(
        cli_command("eval"),
        "  ppl     perplexity of a text in windows (Hugging Face's fixed-length recipe)\n"
        "  kld     the model beside --against: KL divergence, same-top share, perplexity ratio\n"
        "  qa      greedy answers compared exactly, by kind\n"
        "  choice  questions with options (MMLU, HellaSwag): the likeliest option, by kind\n"
        "  parity  --reference: logits and layers beside a file: one prefill, uneven chunks,\n"
        "          token by token; names the first layer that differs.\n"
        "          --against: beside another precision of the model, layer by layer and\n"
        "          projection by projection; names those that are not as the others.\n"
        "          Exit code 1 when something differs, or is suspicious.",
        tables, argc, argv, args, 3);

    if (n < 0)
        return CLI_PARSE_EXIT(n);
    if (n < 2)
        return cli_usage("eval needs ppl, kld, qa, choice or parity, and a model");
    if (n == 3 && eval_opts.file)
        return cli_usage("eval: two files, '%s' and '%s'", eval_opts.file, args[2]);
    eval_opts.file = n == 3 ? args[2] : eval_opts.file;
    for (int i = 0; kinds[i].name; i++) {
        if (strcmp(args[0], kinds[i].name) != 0)
            continue;
        const int code = check_opts(args[0]);
        return code ? code : kinds[i].run(args[1]);
    }
    return cli_usage("eval: unknown kind '%s'", args[0]);
}

/* main.c - picks the command. */
#include "cli.h"

#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

/* clang-format off */
const struct command commands[] = {
    { "run",        "run <model> [-p TEXT | --requests in.json] [options]", "Answer a prompt, or a file of requests.", cmd_run },
    { "chat",       "chat <model> [options]", "Talk to a model.", cmd_chat },
    { "export",     "export <checkpoint> <dir> [options]", "Write a checkpoint's graph as ONNX with its weights.", cmd_export },
    { "build",      "build <checkpoint|onnx> <dir> [options]", "Build an engine for this machine.", cmd_build },
    { "quantize",   "quantize <checkpoint> <dir> --scheme S [options]", "Write a quantised copy of a checkpoint.", cmd_quantize },
    { "inspect",    "inspect <path> [options]", "Say what is in a checkpoint, safetensors, ONNX or engine file.", cmd_inspect },
    { "bench",      "bench <model> [options]", "Measure speed and memory beside the machine's ceilings.", cmd_bench },
    { "eval",       "eval ppl|kld|qa|choice|parity <model> [FILE] [options]", "Measure how right a model is.", cmd_eval },
    { "tokenize",   "tokenize <model|tokenizer.json> [TEXT] [options]", "Text to token ids and back.", cmd_tokenize },
    { "template",   "template <file|model> --input case.json [options]", "Render a chat template.", cmd_template },
    { "synth",      "synth <config.json> <dir> [options]", "Write a random checkpoint of a config's shape.", cmd_synth },
    { "onnx-check", "onnx-check <dir>... [options]", "Run folders in the ONNX backend test format.", cmd_onnx_check },
    { NULL, NULL, NULL, NULL },
};
/* clang-format on */

static void print_commands(FILE *f)
{
    fprintf(f,
            "edgewise %s: language models on the machine in front of you\n\nUsage: edgewise "
            "<command> [options]\n\n",
            EW_VERSION_STRING);
    for (const struct command *c = commands; c->name; c++)
        fprintf(f, "  %-11s %s\n", c->name, c->summary);
    fprintf(f, "\nEach command has --help. <model> is a Hugging Face checkpoint, an ONNX or an "
               "engine directory.\n"
               "Exit codes: 0 done, 1 failed (one line says why), 2 wrong command line.\n");
}

int main(int argc, char **argv)
{
    const struct command *c;

    setlocale(LC_CTYPE, "C.UTF-8");
    signal(SIGPIPE, SIG_IGN);
    if (argc < 2) {
        print_commands(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        print_commands(stdout);
        return cli_finish(EXIT_FINE);
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("edgewise %s\n", EW_VERSION_STRING);
        return EXIT_FINE;
    }
    c = cli_command(argv[1]);
    if (!c)
        return cli_usage("unknown command '%s'", argv[1]);
    return cli_finish(c->run(argc - 1, argv + 1));
}

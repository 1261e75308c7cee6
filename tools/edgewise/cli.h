/* cli.h - what the commands share: options, messages, progress. Uses include/edgewise/ alone. */
#ifndef EDGEWISE_CLI_H
#define EDGEWISE_CLI_H

#include <jansson.h>

#include "edgewise/build.h"
#include "edgewise/engine.h"
#include "edgewise/graph.h"
#include "edgewise/runtime.h"
#include "edgewise/tokenizer.h"

/* Exit codes: 0 done, 1 it failed (one line on stderr), 2 the command line is wrong. */
enum { EXIT_FINE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

enum opt_kind {
    OPT_FLAG,
    OPT_TEXT,
    OPT_U32,
    OPT_U64,
    OPT_I32,
    OPT_F64,
    OPT_LIST /* repeatable text */
};

struct opt_list {
    const char *v[64];
    uint32_t n;
};

struct opt {
    const char *name; /* "max-tokens" */
    char letter;      /* 'p', or 0 */
    enum opt_kind kind;
    void *to;          /* bool, const char *, uint32_t... by kind */
    const char *value; /* "N" in the help, NULL for flags */
    const char *help;
};
#define OPT_END                                                                                    \
    {                                                                                              \
        0, 0, OPT_FLAG, 0, 0, 0                                                                    \
    }

struct command {
    const char *name;
    const char *usage;                 /* "run <model> [-p TEXT | --requests in.json] [options]" */
    const char *summary;               /* one line */
    int (*run)(int argc, char **argv); /* argv[0] = command name */
};
/* One a file, argv[0] = the command's name; exit codes as above. */
int cmd_run(int argc, char **argv);
int cmd_chat(int argc, char **argv);
int cmd_export(int argc, char **argv);
int cmd_build(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_eval(int argc, char **argv);
int cmd_tokenize(int argc, char **argv);
int cmd_template(int argc, char **argv);
int cmd_synth(int argc, char **argv);
int cmd_onnx_check(int argc, char **argv);
int cmd_quantize(int argc, char **argv);
extern const struct command commands[]; /* terminated by name NULL */

/* Parses options anywhere on the line; the others go to positional (at most cap). On --help prints
 * usage, text and tables and returns -1 (exit 0); on a wrong line prints one line and returns -2
 * (exit 2); else the number of positionals. Several tables may be given, NULL-terminated. */
int cli_parse(const struct command *cmd, const char *text, const struct opt *const *tables,
              int argc, char **argv, const char **positional, int cap);
#define CLI_PARSE_EXIT(n) ((n) == -1 ? EXIT_FINE : EXIT_USAGE)

/* "edgewise: <text>" on stderr; returns EXIT_FAILED. */
int cli_fail(const ew_error *err);
int cli_fail_text(const char *fmt, ...) EW_PRINTF(1, 2);
/* The same for a wrong command line; returns EXIT_USAGE. */
int cli_usage(const char *fmt, ...) EW_PRINTF(1, 2);

const struct command *cli_command(const char *name);
ew_progress
cli_progress(void); /* a line on stderr that rewrites itself on a terminal; stages only otherwise */
void cli_progress_end(void);
void cli_quiet(bool quiet);
const ew_logger *cli_logger(void);
void cli_verbose(bool verbose);

/* Whole file, NUL-terminated, free(); "-" is standard input. NULL after a message. */
char *cli_read_file(const char *path, size_t *len);
/* Writes text to path ("-" or NULL: stdout); false after a message. */
bool cli_write_file(const char *path, const char *text, size_t len);
/* Flushes standard output. `code`, or EXIT_FAILED when output was lost (said here) or the library
 * logged an error. */
int cli_finish(int code);
/* Dumps with indent 4 and a newline to path or stdout, and releases v. */
int cli_print_json(json_t *v, const char *path);
void cli_bytes_text(double bytes, char *out, size_t cap); /* "1.2 GB" */
/* "512,1024" -> numbers above 0; false after a message. */
bool cli_parse_u32_list(const char *text, uint32_t *out, uint32_t cap, uint32_t *n);

/* ---- options of every command that runs a model (model.c) ---- */
struct model_opts {
    const char *cache_dir, *cpu, *kv, *activations, *tactic, *timing_cache, *kernel_cache, *trace;
    const char *device;
    uint32_t threads, max_batch, max_input_len, max_kv_len;
    bool rebuild, no_graph, no_fusion, no_timing, profile, pin, quiet, verbose;
};
extern struct model_opts model_opts;
extern const struct opt model_opt_table[];
extern const struct opt build_opt_table[];
/* --activations as a number; false after a message. */
bool model_activations(ew_activations *out);
/* Fills build options from the command line; false after a message. */
bool model_build_opts(ew_build_opts *out);
/* Engine for `model` (built into the cache when it is not one) and an open runtime. flags: enum
 * ew_build_flags to add. EXIT_FINE or an exit code after a message. load_seconds may be NULL. */
int model_open(const char *model, uint32_t flags, bool hidden_states, ew_runtime **out,
               double *load_seconds);
/* Of a clock that only goes on. */
double cli_seconds(void);
/* After the work, with --profile: its figures on stderr. `code`, or an exit code after a message.
 */
int model_finish(ew_runtime *rt, int code);
/* The engine directory alone. */
int model_engine_dir(const char *model, uint32_t flags, bool hidden_states, char *dir, size_t cap);

/* ---- sampling options (sampling.c) ---- */
struct sampling_opts {
    double temperature, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty;
    int32_t top_k, logprobs;
    uint64_t seed;
    uint32_t max_tokens;
    bool greedy, think, no_think, raw, ignore_eos;
    struct opt_list stop;
};
extern struct sampling_opts sampling_opts;
extern const struct opt sampling_opt_table[];
/* Greedy unless a sampling option was given. False after a message. */
bool sampling_fill(ew_request *r);

/* ---- request files (requests.c) ---- */
struct request_file {
    json_t *root; /* owner of every string below */
    ew_request *requests;
    const json_t **messages; /* echo */
    char **owned;            /* dumped JSON texts */
    uint32_t n, n_owned, batch_size;
};
/* The reference system's format (0.5.0 and 0.9.1). False after a message. */
bool request_file_load(const char *path, struct request_file *out);
void request_file_release(struct request_file *f);
/* {input_file, responses:[...]}; tokens' texts for logprobs come from tok (may be NULL). */
json_t *request_file_responses(const struct request_file *f, const char *path,
                               const ew_response *responses, const ew_tokenizer *tok,
                               const ew_template *tmpl);

#endif

/* cmd_build.c - `edgewise build` and `edgewise export`: the two stages that write something a user
 * ships. */
#include "cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "edgewise/onnx.h"

static bool hidden_states, all_logits, split_qkv, print_graph, build_json;
static struct opt_list shapes;
static const char *profiles_path;

/* clang-format off */
static const struct opt build_table[] = {
    { "hidden-states", 0, OPT_FLAG, &hidden_states, NULL, "also output every layer's input (checkpoints)" },
    { "all-logits", 0, OPT_FLAG, &all_logits, NULL, "logits of every token of a step may be asked for" },
    { "json", 0, OPT_FLAG, &build_json, NULL, "print seconds, the peak of resident memory and the engine's size as JSON" },
    { "shape", 0, OPT_LIST, &shapes, "IN=MIN:OPT:MAX",
      "shapes of an input, e.g. x=1x3:8x3:32x3 or x=8x3; makes one profile" },
    { "profiles", 0, OPT_TEXT, &profiles_path, "FILE",
      "profiles as JSON: [{\"name\": ..., \"inputs\": {IN: {\"min\": [..], \"opt\": [..], \"max\": [..]}}}]" },
    OPT_END,
};
static const struct opt export_table[] = {
    { "split-qkv", 0, OPT_FLAG, &split_qkv, NULL, "attention with q, k, v inputs (0.6 and later) instead of one packed qkv" },
    { "hidden-states", 0, OPT_FLAG, &hidden_states, NULL, "also output every layer's input" },
    { "activations", 0, OPT_TEXT, &model_opts.activations, "KIND", "x before quantised weights: exact (default), int8, declared" },
    { "print", 0, OPT_FLAG, &print_graph, NULL, "print the graph's text form" },
    { "quiet", 'q', OPT_FLAG, &model_opts.quiet, NULL, "no progress" },
    OPT_END,
};
/* clang-format on */

/* ---- profiles of the command line ---- */

enum { MAX_PROFILES = 16, MAX_INPUTS = 256 };

struct profile_set {
    ew_profile profiles[MAX_PROFILES];
    ew_profile_input *inputs; /* [MAX_PROFILES][MAX_INPUTS] */
    uint32_t n;
    json_t *root;    /* owner of names */
    char *names[64]; /* of --shape */
};

static void profiles_release(struct profile_set *set)
{
    for (uint32_t i = 0; i < 64; i++)
        free(set->names[i]);
    free(set->inputs);
    json_decref(set->root);
}

/* "2x3x4" (or "" for a scalar) up to a ':' or the end. */
static bool parse_dims(const char **text, int64_t *dims, uint32_t *n)
{
    *n = 0;
    while (**text && **text != ':') {
        char *end;
        const long long v = strtoll(*text, &end, 10);
        if (end == *text || v < 0 || *n == 8)
            return false;
        dims[(*n)++] = v;
        *text = end + (*end == 'x');
        if (*end != 'x' && *end != ':' && *end)
            return false;
    }
    *text += **text == ':';
    return true;
}

static bool parse_shape(const char *text, struct profile_set *set, uint32_t i)
{
    ew_profile_input *const in = &set->inputs[i];
    const char *const eq = strrchr(text, '=');
    const char *at = eq ? eq + 1 : "";
    uint32_t n_min, n_opt, n_max;

    set->names[i] = eq ? strndup(text, (size_t)(eq - text)) : NULL;
    in->name = set->names[i];
    if (!eq || !in->name || !parse_dims(&at, in->min, &n_min))
        return false;
    if (*at == '\0') { /* one shape: all three */
        memcpy(in->opt, in->min, sizeof(in->opt));
        memcpy(in->max, in->min, sizeof(in->max));
        in->n_dims = n_min;
        return true;
    }
    in->n_dims = n_min;
    return parse_dims(&at, in->opt, &n_opt) && parse_dims(&at, in->max, &n_max) && *at == '\0' &&
           n_min == n_opt && n_opt == n_max;
}

static bool json_dims(const json_t *list, int64_t *dims, uint32_t *n)
{
    size_t i;
    json_t *v;

    if (!json_is_array(list) || json_array_size(list) > 8)
        return false;
    *n = (uint32_t)json_array_size(list);
    json_array_foreach(list, i, v)
    {
        if (!json_is_integer(v) || json_integer_value(v) < 0)
            return false;
        dims[i] = json_integer_value(v);
    }
    return true;
}

static bool json_profile(const json_t *entry, struct profile_set *set)
{
    ew_profile *const p = &set->profiles[set->n];
    ew_profile_input *const inputs = set->inputs + (size_t)set->n * MAX_INPUTS;
    const char *name;
    json_t *shape;

    p->name = json_string_value(json_object_get(entry, "name"));
    p->inputs = inputs;
    if (!p->name || json_object_size(json_object_get(entry, "inputs")) > MAX_INPUTS)
        return false;
    json_object_foreach(json_object_get(entry, "inputs"), name, shape)
    {
        ew_profile_input *const in = &inputs[p->n_inputs++];
        uint32_t n_opt, n_max;
        in->name = name;
        if (!json_dims(json_object_get(shape, "min"), in->min, &in->n_dims) ||
            !json_dims(json_object_get(shape, "opt"), in->opt, &n_opt) ||
            !json_dims(json_object_get(shape, "max"), in->max, &n_max) || in->n_dims != n_opt ||
            n_opt != n_max)
            return false;
    }
    set->n++;
    return true;
}

/* EXIT_FINE, or an exit code after a message. */
static int profiles_read(struct profile_set *set, ew_build_opts *opts)
{
    json_error_t jerr;
    size_t i;
    json_t *entry;

    if (!shapes.n && !profiles_path)
        return EXIT_FINE;
    if (shapes.n && profiles_path)
        return cli_usage("--shape and --profiles exclude each other");
    set->inputs = calloc((size_t)MAX_PROFILES * MAX_INPUTS, sizeof(*set->inputs));
    if (!set->inputs)
        return cli_fail_text("out of memory");
    for (uint32_t k = 0; k < shapes.n; k++)
        if (!parse_shape(shapes.v[k], set, k))
            return cli_usage("--shape: '%s' is not IN=MIN:OPT:MAX with dims like 1x3x224",
                             shapes.v[k]);
    if (shapes.n) {
        set->profiles[0] = (ew_profile){ "default", set->inputs, shapes.n };
        set->n = 1;
    } else {
        set->root = json_load_file(profiles_path, JSON_REJECT_DUPLICATES, &jerr);
        if (!set->root)
            return cli_fail_text("%s: %s", profiles_path, jerr.text);
        if (!json_is_array(set->root) || json_array_size(set->root) > MAX_PROFILES)
            return cli_fail_text("%s: not a list of up to %d profiles", profiles_path,
                                 MAX_PROFILES);
        json_array_foreach(set->root, i, entry) if (!json_profile(entry, set)) return cli_fail_text(
            "%s: profile %zu needs \"name\" and \"inputs\" with min, opt and max", profiles_path,
            i);
    }
    opts->profiles = set->profiles;
    opts->n_profiles = set->n;
    return EXIT_FINE;
}

static int print_built(const char *dir, double seconds)
{
    static const char *const names[] = { "llm.engine", "model.engine" };
    struct rusage u = { 0 };
    json_int_t bytes = 0;

    for (size_t i = 0; i < 2 && !bytes; i++) {
        char path[4096];
        struct stat st;

        snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
        if (stat(path, &st) == 0)
            bytes = (json_int_t)st.st_size;
    }
    getrusage(RUSAGE_SELF, &u);
    return cli_print_json(json_pack("{s:f, s:I, s:I}", "seconds", seconds, "peak_resident_bytes",
                                    (json_int_t)u.ru_maxrss * 1024, "engine_bytes", bytes),
                          NULL);
}

int cmd_build(int argc, char **argv)
{
    const struct opt *const tables[] = { build_table, build_opt_table, NULL };
    const char *args[2];
    ew_build_opts opts;
    ew_error err = { EW_STATUS_OK, "" };
    const int n = cli_parse(cli_command("build"),
                            "Writes <dir>/llm.engine, config.json and the tokenizer's files; a "
                            "graph that is no language model\n"
                            "gives <dir>/model.engine alone.",
                            tables, argc, argv, args, 2);

    if (n < 0)
        return CLI_PARSE_EXIT(n);
    if (n != 2)
        return cli_usage("build needs a model and a folder to write");
    if (!model_build_opts(&opts))
        return EXIT_USAGE;
    opts.flags |= all_logits ? EW_BUILD_ALL_LOGITS : 0u;
    struct profile_set set = { 0 };
    const double begin = cli_seconds();
    int code = profiles_read(&set, &opts);
    if (!code && ew_model_build(args[0], args[1], &opts, hidden_states, &err))
        code = cli_fail(&err);
    cli_progress_end();
    profiles_release(&set);
    return code || !build_json ? code : print_built(args[1], cli_seconds() - begin);
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
    const char *const kind = ew_model_kind(args[0]);
    if (strcmp(kind, "onnx") == 0 || strcmp(kind, "engine") == 0)
        return cli_fail_text("%s: export needs a checkpoint, this is of the kind '%s'", args[0],
                             kind);
    read.hidden_states = hidden_states;
    read.logger = cli_logger();
    if (!model_activations(&read.activations))
        return EXIT_USAGE;
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

/* cmd_onnx_check.c - `edgewise onnx-check`: folders in the format of the ONNX backend tests. */
#include "cli.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "edgewise/eval.h"

static bool json_out, list_passed;

/* clang-format off */
static const struct opt check_table[] = {
    { "cpu", 0, OPT_TEXT, &model_opts.cpu, "LEVEL", "use no more than: ref (plain C), avx2, avx512, native (default)" },
    { "passed", 0, OPT_FLAG, &list_passed, NULL, "list what passed too" },
    { "json", 0, OPT_FLAG, &json_out, NULL, "results as JSON" },
    OPT_END,
};
/* clang-format on */

struct tally {
    uint64_t n[3];
    json_t *rows;
};

static void check_one(const char *dir, struct tally *t)
{
    static const char *const words[] = { "passed", "FAILED", "refused" };
    ew_error err = { EW_STATUS_OK, "" };
    ew_onnx_case verdict = EW_ONNX_CASE_FAILED;

    if (ew_eval_onnx_case(dir, model_opts.cpu, &verdict, &err))
        verdict = EW_ONNX_CASE_FAILED;
    t->n[verdict]++;
    if (json_out)
        json_array_append_new(t->rows,
                              json_pack("{s:s, s:s, s:s}", "case", dir, "verdict",
                                        verdict == EW_ONNX_CASE_FAILED ? "failed" : words[verdict],
                                        "why", verdict == EW_ONNX_CASE_PASSED ? "" : err.text));
    else if (verdict != EW_ONNX_CASE_PASSED || list_passed)
        printf("%s %s%s%s\n", words[verdict], dir, verdict == EW_ONNX_CASE_PASSED ? "" : ": ",
               verdict == EW_ONNX_CASE_PASSED ? "" : err.text);
}

static bool has_model(const char *dir)
{
    char path[4096];
    struct stat st;
    const int n = snprintf(path, sizeof(path), "%s/model.onnx", dir);

    return n > 0 && (size_t)n < sizeof(path) && stat(path, &st) == 0;
}

/* A folder with a model.onnx is a case; any other is a folder of cases. */
static bool check_dir(const char *dir, struct tally *t)
{
    struct dirent **names;

    if (has_model(dir)) {
        check_one(dir, t);
        return true;
    }
    const int n = scandir(dir, &names, NULL, alphasort);
    bool any = false;
    for (int i = 0; i < n; i++) {
        char path[4096];
        const int len = snprintf(path, sizeof(path), "%s/%s", dir, names[i]->d_name);
        if (names[i]->d_name[0] != '.' && len > 0 && (size_t)len < sizeof(path) &&
            has_model(path)) {
            check_one(path, t);
            any = true;
        }
        free(names[i]);
    }
    if (n >= 0)
        free(names);
    return any;
}

int cmd_onnx_check(int argc, char **argv)
{
    const struct opt *const tables[] = { check_table, NULL };
    static const char *dirs[65536];
    struct tally t = { { 0 }, NULL };
    const int n = cli_parse(cli_command("onnx-check"),
                            "Prints every failure and refusal, and last `N passed, N failed, N "
                            "refused`. Exit code 1 if any failed.\n"
                            "A folder without model.onnx is searched one level down.",
                            tables, argc, argv, dirs, (int)(sizeof(dirs) / sizeof(dirs[0])));

    if (n < 0)
        return CLI_PARSE_EXIT(n);
    if (n == 0)
        return cli_usage("onnx-check needs folders");
    int code = EXIT_FINE;
    t.rows = json_array();
    for (int i = 0; i < n; i++)
        if (!check_dir(dirs[i], &t)) {
            cli_fail_text("%s: no model.onnx here or one level down", dirs[i]);
            t.n[EW_ONNX_CASE_FAILED]++;
        }
    if (json_out)
        code = cli_print_json(json_pack("{s:O, s:I, s:I, s:I}", "cases", t.rows, "passed",
                                        (json_int_t)t.n[0], "failed", (json_int_t)t.n[1], "refused",
                                        (json_int_t)t.n[2]),
                              NULL);
    else
        printf("%llu passed, %llu failed, %llu refused\n", (unsigned long long)t.n[0],
               (unsigned long long)t.n[1], (unsigned long long)t.n[2]);
    json_decref(t.rows);
    return t.n[EW_ONNX_CASE_FAILED] ? EXIT_FAILED : code;
}

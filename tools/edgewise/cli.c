/* cli.c - options, messages and progress of the command line. Owns the terminal; knows no model. */
#include "cli.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct {
    bool quiet, verbose, line_open;
    bool error_logged;
    char stage[64];
    double last_percent;
} ui;

int cli_fail_text(const char *fmt, ...)
{
    va_list args;

    cli_progress_end();
    fputs("edgewise: ", stderr);
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputc('\n', stderr);
    return EXIT_FAILED;
}

int cli_fail(const ew_error *err)
{
    return cli_fail_text("%s", err->text[0] ? err->text : ew_status_text(err->status));
}

int cli_usage(const char *fmt, ...)
{
    va_list args;

    fputs("edgewise: ", stderr);
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputs(" (see --help)\n", stderr);
    return EXIT_USAGE;
}

static void print_table(const struct opt *table)
{
    for (const struct opt *o = table; o->name; o++) {
        char left[64];
        const int n = o->letter ? snprintf(left, sizeof(left), "-%c, --%s", o->letter, o->name)
                                : snprintf(left, sizeof(left), "    --%s", o->name);
        if (o->value && n > 0 && (size_t)n < sizeof(left))
            snprintf(left + n, sizeof(left) - (size_t)n, " %s", o->value);
        printf("  %-30s %s\n", left, o->help);
    }
}

static void print_help(const struct command *cmd, const char *text, const struct opt *const *tables)
{
    printf("edgewise %s\n\n%s\n", cmd->usage, cmd->summary);
    if (text)
        printf("\n%s\n", text);
    if (tables)
        printf("\nOptions:\n");
    for (; tables && *tables; tables++)
        print_table(*tables);
    printf("  -h, --help                     this text\n");
}

static const struct opt *find_opt(const struct opt *const *tables, const char *name, size_t len,
                                  char letter)
{
    for (; tables && *tables; tables++)
        for (const struct opt *o = *tables; o->name; o++)
            if (letter ? o->letter == letter
                       : strlen(o->name) == len && memcmp(o->name, name, len) == 0)
                return o;
    return NULL;
}

static bool parse_u64(const char *text, uint64_t max, uint64_t *out)
{
    char *end;

    errno = 0;
    if (!isdigit((unsigned char)text[0]))
        return false;
    *out = strtoull(text, &end, text[0] == '0' && (text[1] | 32) == 'x' ? 16 : 10);
    return *end == '\0' && errno == 0 && *out <= max;
}

static bool parse_f64(const char *text, double *out)
{
    char *end;

    errno = 0;
    *out = strtod(text, &end);
    return end != text && *end == '\0' && errno == 0 && isfinite(*out);
}

static bool store(const struct opt *o, const char *value)
{
    uint64_t u;
    double d;

    switch (o->kind) {
    case OPT_FLAG:
        *(bool *)o->to = true;
        return true;
    case OPT_TEXT:
        *(const char **)o->to = value;
        return true;
    case OPT_LIST: {
        struct opt_list *const list = o->to;
        if (list->n == sizeof(list->v) / sizeof(list->v[0]))
            return false;
        list->v[list->n++] = value;
        return true;
    }
    case OPT_U32:
        if (!parse_u64(value, UINT32_MAX, &u))
            return false;
        *(uint32_t *)o->to = (uint32_t)u;
        return true;
    case OPT_U64:
        return parse_u64(value, UINT64_MAX, o->to);
    case OPT_I32:
        if (!parse_f64(value, &d) || d != floor(d) || fabs(d) > 2147483647.0)
            return false;
        *(int32_t *)o->to = (int32_t)d;
        return true;
    case OPT_F64:
        return parse_f64(value, o->to);
    }
    return false;
}

/* Handles argv[*i], an option; advances *i past its value. */
static const char *what_it_takes(enum opt_kind kind)
{
    switch (kind) {
    case OPT_U32:
    case OPT_U64:
        return kind == OPT_U32 ? "a whole number of 0 to 4294967295" : "a whole number of 64 bits";
    case OPT_I32:
        return "a whole number of 32 bits";
    case OPT_F64:
        return "a finite number";
    default:
        return "accepted, 64 of them are the most";
    }
}

static bool parse_one(const struct opt *const *tables, int argc, char **argv, int *i)
{
    const char *const arg = argv[*i];
    const bool is_long = arg[1] == '-';
    const char *const eq = is_long ? strchr(arg, '=') : NULL;
    const size_t len = is_long ? (eq ? (size_t)(eq - arg) : strlen(arg)) - 2 : 0;
    const struct opt *o = is_long ? find_opt(tables, arg + 2, len, 0) : NULL;
    const char *value = eq ? eq + 1 : NULL;

    if (!is_long && arg[2] == '\0')
        o = find_opt(tables, NULL, 0, arg[1]);
    if (!o) {
        cli_usage("unknown option %s", arg);
        return false;
    }
    if (o->kind == OPT_FLAG && value) {
        cli_usage("--%s takes no value", o->name);
        return false;
    }
    if (o->kind != OPT_FLAG && !value) {
        if (*i + 1 >= argc) {
            cli_usage("--%s needs a value (%s)", o->name, o->value);
            return false;
        }
        value = argv[++*i];
    }
    if (!store(o, value)) {
        cli_usage("--%s: '%s' is not %s", o->name, value, what_it_takes(o->kind));
        return false;
    }
    return true;
}

int cli_parse(const struct command *cmd, const char *text, const struct opt *const *tables,
              int argc, char **argv, const char **positional, int cap)
{
    int n = 0;
    bool only_positional = false;

    for (int i = 1; i < argc; i++) {
        const char *const arg = argv[i];
        if (!only_positional && strcmp(arg, "--") == 0) {
            only_positional = true;
        } else if (!only_positional && (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0)) {
            print_help(cmd, text, tables);
            return -1;
        } else if (!only_positional && arg[0] == '-' && arg[1] != '\0') {
            if (!parse_one(tables, argc, argv, &i))
                return -2;
        } else if (n == cap) {
            cli_usage("%s: unexpected argument '%s'", cmd->name, arg);
            return -2;
        } else {
            positional[n++] = arg;
        }
    }
    return n;
}

const struct command *cli_command(const char *name)
{
    for (const struct command *c = commands; c->name; c++)
        if (strcmp(c->name, name) == 0)
            return c;
    return NULL;
}

void cli_quiet(bool quiet)
{
    ui.quiet = quiet;
}

void cli_verbose(bool verbose)
{
    ui.verbose = verbose;
}

int cli_finish(int code)
{
    struct pollfd out = { STDOUT_FILENO, 0, 0 };

    errno = 0;
    if (fflush(stdout) != 0 || ferror(stdout)) {
        const int why = errno;
        clearerr(stdout); /* said once */
        if (poll(&out, 1, 0) == 1 && (out.revents & POLLERR))
            return EXIT_FAILED; /* a pipe whose reader left, and knows that */
        return cli_fail_text("standard output: cannot write%s%s", why ? ": " : "",
                             why ? strerror(why) : "");
    }
    return code == EXIT_FINE && ui.error_logged ? EXIT_FAILED : code;
}

void cli_progress_end(void)
{
    if (ui.line_open)
        fputs("\r\033[K", stderr);
    ui.line_open = false;
    ui.stage[0] = '\0';
}

/* On a terminal one line that rewrites itself; in a log one line a stage. */
static bool progress_step(void *ctx, const char *stage, uint64_t done, uint64_t total)
{
    const double percent = total ? 100.0 * (double)done / (double)total : 0.0;
    const bool new_stage = strcmp(stage, ui.stage) != 0;

    (void)ctx;
    if (ui.quiet)
        return true;
    if (new_stage) {
        snprintf(ui.stage, sizeof(ui.stage), "%s", stage);
        ui.last_percent = -1;
    }
    if (isatty(STDERR_FILENO)) {
        if (new_stage || percent - ui.last_percent >= 1.0 || (total && done == total)) {
            if (total)
                fprintf(stderr, "\r\033[K%s %3.0f %%", stage, percent);
            else
                fprintf(stderr, "\r\033[K%s", stage);
            fflush(stderr);
            ui.line_open = true;
            ui.last_percent = percent;
        }
    } else if (new_stage) {
        fprintf(stderr, "%s\n", stage);
    }
    return true;
}

ew_progress cli_progress(void)
{
    return (ew_progress){ NULL, progress_step };
}

static void log_line(void *ctx, ew_log_level level, const char *line)
{
    (void)ctx;
    if (level > EW_LOG_WARN && !ui.verbose)
        return;
    if (ui.quiet && level > EW_LOG_ERROR)
        return;
    cli_progress_end();
    ui.error_logged = ui.error_logged || level == EW_LOG_ERROR;
    fprintf(stderr, "%s%s\n",
            level == EW_LOG_WARN    ? "warning: "
            : level == EW_LOG_ERROR ? "edgewise: "
                                    : "",
            line);
}

const ew_logger *cli_logger(void)
{
    static const ew_logger logger = { NULL, log_line };

    return &logger;
}

char *cli_read_file(const char *path, size_t *len)
{
    FILE *const f = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
    char *text = NULL;
    size_t cap = 0;

    *len = 0;
    if (!f) {
        cli_fail_text("%s: cannot open: %s", path, strerror(errno));
        return NULL;
    }
    for (;;) {
        if (cap - *len < 65536) {
            cap = cap ? cap * 2 : 131072;
            char *const more = cap > ((size_t)1 << 32) ? NULL : realloc(text, cap);
            if (!more) {
                cli_fail_text("%s: too large to read", path);
                free(text);
                text = NULL;
                break;
            }
            text = more;
        }
        const size_t n = fread(text + *len, 1, cap - *len - 1, f);
        *len += n;
        if (n == 0) {
            text[*len] = '\0';
            break;
        }
    }
    if (text && ferror(f)) {
        cli_fail_text("%s: cannot read: %s", path, strerror(errno));
        free(text);
        text = NULL;
    }
    if (f != stdin)
        fclose(f);
    return text;
}

bool cli_write_file(const char *path, const char *text, size_t len)
{
    FILE *f;

    if (!path || strcmp(path, "-") == 0) {
        fwrite(text, 1, len, stdout);
        return cli_finish(EXIT_FINE) == EXIT_FINE;
    }
    char temp[4096];
    snprintf(temp, sizeof(temp), "%s.tmp.%ld", path, (long)getpid());
    f = fopen(temp, "wb");
    if (!f) {
        cli_fail_text("%s: cannot create: %s", path, strerror(errno));
        return false;
    }
    const bool written = fwrite(text, 1, len, f) == len;
    if (fclose(f) != 0 || !written || rename(temp, path) != 0) {
        cli_fail_text("%s: cannot write: %s", path, strerror(errno));
        unlink(temp);
        return false;
    }
    return true;
}

int cli_print_json(json_t *v, const char *path)
{
    char *const text = v ? json_dumps(v, JSON_INDENT(4)) : NULL;

    json_decref(v);
    if (!text)
        return cli_fail_text("out of memory while writing JSON");
    const size_t len = strlen(text);
    text[len] = '\n'; /* the terminator's place: written without it */
    const bool ok = cli_write_file(path, text, len + 1);
    free(text);
    return ok ? EXIT_FINE : EXIT_FAILED;
}

void cli_bytes_text(double bytes, char *out, size_t cap)
{
    static const char *const units[] = { "B", "KB", "MB", "GB", "TB" };
    unsigned u = 0;

    while (bytes >= 1000 && u < 4) {
        bytes /= 1000;
        u++;
    }
    snprintf(out, cap, u ? "%.2f %s" : "%.0f %s", bytes, units[u]);
}

bool cli_parse_u32_list(const char *text, uint32_t *out, uint32_t cap, uint32_t *n)
{
    *n = 0;
    while (*text) {
        char item[16];
        uint64_t v;
        const size_t len = strcspn(text, ",");
        if (len >= sizeof(item) || *n == cap) {
            cli_usage("'%s' is not a list of up to %u numbers", text, cap);
            return false;
        }
        memcpy(item, text, len);
        item[len] = '\0';
        if (!parse_u64(item, UINT32_MAX, &v) || v == 0) {
            cli_usage("'%s' is not a whole number above 0", item);
            return false;
        }
        out[(*n)++] = (uint32_t)v;
        text += len + (text[len] == ',');
    }
    return true;
}

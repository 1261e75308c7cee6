/* report.c - bench_report: joins what scripts/bench.sh measured into report.json, report.md and
 * roofline.svg of a folder.
 *
 *   bench_report OUT [--title TEXT] [--note TEXT]... [--edgewise MODEL FILE]... [--llama MODEL
 * FILE]...
 */
#include "report.h"

#include <stdlib.h>
#include <string.h>

static const char *const ceiling_names[N_CEILINGS] = { "read", "f32", "int8", "bf16" };

/* ---- JSON ---- */

static json_t *real_or_null(double x)
{
    return x > 0 ? json_real(x) : json_null();
}

static json_t *samples_json(const struct samples *s)
{
    if (s->n == 0)
        return json_null();
    return json_pack("{s:f, s:f, s:f, s:I}", "median", median(s), "min", smallest(s), "max",
                     largest(s), "n", (json_int_t)s->n);
}

static double against_llama(const struct run *r, const struct row *w)
{
    const struct row *const other = w->llama ? NULL : find_row(r, w, true);

    return other && median(&other->rate) > 0 ? median(&w->rate) / median(&other->rate) : 0;
}

static json_t *row_json(const struct run *r, const struct row *w)
{
    json_t *const shares = json_object();
    const double rate = median(&w->rate);

    for (int c = 0; c < N_CEILINGS; c++)
        json_object_set_new(shares, ceiling_names[c], samples_json(&w->share[c]));
    return json_pack("{s:s, s:s, s:s, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o}", "model", w->model,
                     "engine", engine_name(w), "what", w->what, "batch", (json_int_t)w->batch,
                     "length", (json_int_t)w->length, "tokens_per_s", samples_json(&w->rate),
                     "read_bytes_per_s", real_or_null(rate * w->bytes), "ops_per_s",
                     real_or_null(rate * w->ops), "ops_per_byte",
                     real_or_null(w->bytes > 0 ? w->ops / w->bytes : 0), "shares", shares,
                     "ratio_to_llama", real_or_null(against_llama(r, w)));
}

/* One quotient of two rows of a model. */
struct ratio {
    const struct row *of, *to;
};

/* Rows of one model that the project compares: longest against shortest, most rows against one. */
static size_t ratios(const struct run *r, struct ratio *out, size_t cap)
{
    size_t n = 0;

    for (size_t i = 0; i < r->n_rows; i++) {
        const struct row *const to = &r->rows[i];

        for (size_t k = 0; k < r->n_rows && n < cap; k++) {
            const struct row *const of = &r->rows[k];
            const bool longer = of->length > to->length && of->batch == to->batch;
            const bool wider = of->length == to->length && of->batch > to->batch && to->batch == 1;

            if (of->llama == to->llama && strcmp(of->model, to->model) == 0 &&
                strcmp(of->what, to->what) == 0 && (longer || wider))
                out[n++] = (struct ratio){ of, to };
        }
    }
    return n;
}

static void work_text(const struct row *w, char *out, size_t cap)
{
    if (strcmp(w->what, "prefill") == 0)
        snprintf(out, cap, "prefill %ld", w->length);
    else if (w->batch == 1)
        snprintf(out, cap, "decode at %ld", w->length);
    else
        snprintf(out, cap, "decode at %ld, batch %ld", w->length, w->batch);
}

static json_t *report_json(const struct run *r)
{
    json_t *const ceilings = json_object(), *const rows = json_array(), *const notes = json_array(),
                  *const curves = json_array(), *const quotients = json_array();
    struct ratio q[MAX_ROWS];
    const size_t n_q = ratios(r, q, MAX_ROWS);

    for (int c = 0; c < N_CEILINGS; c++)
        json_object_set_new(ceilings, ceiling_names[c], samples_json(&r->ceiling[c]));
    for (size_t i = 0; i < r->n_rows; i++)
        json_array_append_new(rows, row_json(r, &r->rows[i]));
    for (size_t i = 0; i < r->n_curves; i++)
        json_array_append_new(curves, json_pack("{s:s, s:O}", "model", r->curves[i].model, "curve",
                                                r->curves[i].points));
    for (size_t i = 0; i < r->n_notes; i++)
        json_array_append_new(notes, json_string(r->notes[i]));
    for (size_t i = 0; i < n_q; i++) {
        char of[64], to[64];

        work_text(q[i].of, of, sizeof(of));
        work_text(q[i].to, to, sizeof(to));
        json_array_append_new(quotients,
                              json_pack("{s:s, s:s, s:s, s:s, s:f}", "model", q[i].of->model,
                                        "engine", engine_name(q[i].of), "of", of, "to", to, "ratio",
                                        median(&q[i].of->rate) / median(&q[i].to->rate)));
    }
    return json_pack("{s:s, s:{s:s, s:s, s:I, s:s, s:s, s:o}, s:s, s:o, s:o, s:o, s:o}", "title",
                     r->title, "machine", "model", r->machine, "level", r->level, "threads",
                     (json_int_t)r->threads, "int8_with", r->with[INT8], "bf16_with", r->with[BF16],
                     "ceilings", ceilings, "llama_build", r->llama_build, "rows", rows, "ratios",
                     quotients, "curves", curves, "notes", notes);
}

/* ---- Markdown ---- */

static void percent(FILE *f, double x)
{
    if (x > 0)
        fprintf(f, " %.1f %% |", 100 * x);
    else
        fprintf(f, " |");
}

static void write_ceilings(const struct run *r, FILE *f)
{
    static const char *const titles[N_CEILINGS] = { "read, GB/s", "f32 FMA, GFLOP/s",
                                                    "8-bit integer dot, GOP/s",
                                                    "bf16 dot, GFLOP/s" };

    fprintf(f, "## Ceilings\n\n%s, %s, %ld threads. Measured before every group of rows.\n\n",
            r->machine[0] ? r->machine : "not measured", r->level, r->threads);
    fprintf(f, "| ceiling | median | min | max | with |\n|---|---:|---:|---:|---|\n");
    for (int c = 0; c < N_CEILINGS; c++) {
        const struct samples *const s = &r->ceiling[c];

        if (s->n == 0)
            fprintf(f, "| %s | not measured | | | |\n", titles[c]);
        else
            fprintf(f, "| %s | %.1f | %.1f | %.1f | %s |\n", titles[c], median(s) / 1e9,
                    smallest(s) / 1e9, largest(s) / 1e9, r->with[c]);
    }
}

static void write_rows(const struct run *r, FILE *f)
{
    fprintf(f,
            "\n## Speed\n\n"
            "| model | work | engine | tok/s, median | min | max | weights read, GB/s | of read | "
            "GOP/s | of f32 | of int8 | of bf16 | to llama.cpp |\n"
            "|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n");
    for (size_t i = 0; i < r->n_rows; i++) {
        const struct row *const w = &r->rows[i];
        const double rate = median(&w->rate), ratio = against_llama(r, w);
        char work[64];

        work_text(w, work, sizeof(work));
        fprintf(f, "| %s | %s | %s | %.1f | %.1f | %.1f | %.2f |", w->model, work, engine_name(w),
                rate, smallest(&w->rate), largest(&w->rate), rate * w->bytes / 1e9);
        percent(f, median(&w->share[READ]));
        if (w->ops > 0)
            fprintf(f, " %.1f |", rate * w->ops / 1e9);
        else
            fprintf(f, " |");
        for (int c = F32; c < N_CEILINGS; c++)
            percent(f, median(&w->share[c]));
        if (ratio > 0)
            fprintf(f, " %.2f x |\n", ratio);
        else
            fprintf(f, " |\n");
    }
}

static void write_ratios(const struct run *r, FILE *f)
{
    struct ratio q[MAX_ROWS];
    const size_t n = ratios(r, q, MAX_ROWS);

    if (n == 0)
        return;
    fprintf(f, "\n## Ratios within a model\n\n| model | engine | work | to | ratio |\n"
               "|---|---|---|---|---:|\n");
    for (size_t i = 0; i < n; i++) {
        char of[64], to[64];

        work_text(q[i].of, of, sizeof(of));
        work_text(q[i].to, to, sizeof(to));
        fprintf(f, "| %s | %s | %s | %s | %.2f |\n", q[i].of->model, engine_name(q[i].of), of, to,
                median(&q[i].of->rate) / median(&q[i].to->rate));
    }
}

static void curve_cells(const json_t *v, FILE *f)
{
    const json_t *const share = json_object_get(v, "share_of_read_bandwidth");

    if (!v) {
        fprintf(f, " | | | |");
        return;
    }
    fprintf(f, " %.3f | %.3f | %.1f |", json_number_value(json_object_get(v, "step_ms")),
            json_number_value(json_object_get(v, "cost")),
            json_number_value(json_object_get(v, "tokens_per_s")));
    percent(f, json_number_value(share));
}

static void write_curve(const struct curve *c, FILE *f)
{
    const json_t *const decode = json_object_get(c->points, "decode");
    const json_t *const verify = json_object_get(c->points, "verify");
    const json_t *v;
    size_t i;

    fprintf(f,
            "\n### %s, context %lld\n\n"
            "| M | M rows: ms/step | cost(M)/cost(1) | tok/s | of read | M tokens of one row, "
            "likeliest of each: "
            "ms/step | cost(M)/cost(1) | tok/s | of read |\n"
            "|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
            c->model, (long long)json_integer_value(json_object_get(c->points, "length")));
    json_array_foreach(decode, i, v)
    {
        fprintf(f, "| %lld |", (long long)json_integer_value(json_object_get(v, "rows")));
        curve_cells(v, f);
        curve_cells(json_array_get(verify, i), f);
        fprintf(f, "\n");
    }
}

static void write_report(const struct run *r, FILE *f)
{
    fprintf(f, "# %s\n\n", r->title);
    write_ceilings(r, f);
    write_rows(r, f);
    write_ratios(r, f);
    if (r->n_curves)
        fprintf(f, "\n## Small batches: what a step of M costs against a step of one\n");
    for (size_t i = 0; i < r->n_curves; i++)
        write_curve(&r->curves[i], f);
    fprintf(f,
            "\n## How to read it\n\n"
            "- Shares are of ceilings that the same process measured; a median of shares, one a "
            "round. llama.cpp measures none: its shares are of this run's medians, its bytes the "
            "model size that it states.\n"
            "- Weights read: bytes of weights of a step, by steps a second. The cache, which "
            "counts at long contexts, is not in it.\n"
            "- Operations: two a weight and token; attention is not counted.\n");
    for (size_t i = 0; i < r->n_notes; i++)
        fprintf(f, "- %s\n", r->notes[i]);
    fprintf(f, "\n![roofline](roofline.svg)\n");
}

/* ---- the command ---- */

static FILE *create(const char *dir, const char *name)
{
    char path[4096];
    const int n = snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *const f = n > 0 && (size_t)n < sizeof(path) ? fopen(path, "w") : NULL;

    if (!f)
        fprintf(stderr, "bench: %s/%s cannot be written\n", dir, name);
    return f;
}

static bool done(FILE *f, const char *name)
{
    const bool bad = ferror(f) != 0;

    if (fclose(f) == 0 && !bad)
        return true;
    fprintf(stderr, "bench: %s could not be written in full\n", name);
    return false;
}

static bool write_all(const struct run *r, const char *dir)
{
    json_t *const root = report_json(r);
    FILE *f = create(dir, "report.json");
    bool ok = f && root && json_dumpf(root, f, JSON_INDENT(4)) == 0 && fputc('\n', f) != EOF;

    json_decref(root);
    ok = f && done(f, "report.json") && ok;
    f = ok ? create(dir, "report.md") : NULL;
    if (f)
        write_report(r, f);
    ok = f && done(f, "report.md");
    f = ok ? create(dir, "roofline.svg") : NULL;
    if (f)
        write_roofline(r, f);
    return f && done(f, "roofline.svg");
}

static bool read_args(struct run *r, int argc, char **argv)
{
    for (int i = 2; i < argc;) {
        const bool two = strcmp(argv[i], "--edgewise") == 0 || strcmp(argv[i], "--llama") == 0;
        const int left = argc - i - 1;

        if (two && left >= 2) {
            if (!(argv[i][2] == 'e' ? add_edgewise : add_llama)(r, argv[i + 1], argv[i + 2]))
                return false;
            i += 3;
        } else if (strcmp(argv[i], "--title") == 0 && left >= 1) {
            r->title = argv[i + 1];
            i += 2;
        } else if (strcmp(argv[i], "--note") == 0 && left >= 1 && r->n_notes < MAX_NOTES) {
            r->notes[r->n_notes++] = argv[i + 1];
            i += 2;
        } else {
            fprintf(stderr, "bench: what is '%s'?\n", argv[i]);
            return false;
        }
    }
    return true;
}

int main(int argc, char **argv)
{
    struct run *const r = calloc(1, sizeof(*r));
    bool ok = r && argc >= 2;

    if (ok) {
        r->title = "Speed of Edgewise on this machine";
        ok = read_args(r, argc, argv);
    }
    if (ok && r->n_rows == 0 && r->n_curves == 0) {
        fprintf(stderr, "bench: nothing was measured\n");
        ok = false;
    }
    if (ok) {
        finish_llama(r);
        ok = write_all(r, argv[1]);
    }
    for (size_t i = 0; r && i < r->n_curves; i++)
        json_decref(r->curves[i].points);
    free(r);
    return ok ? 0 : 1;
}

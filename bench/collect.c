/* collect.c - reads what `edgewise bench --json` and `llama-bench -o json` printed. Owns the
 * samples and their statistics; writes nothing. */
#include "report.h"

#include <stdlib.h>
#include <string.h>

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

double median(const struct samples *s)
{
    double x[MAX_SAMPLES];

    if (s->n == 0)
        return 0;
    memcpy(x, s->x, s->n * sizeof(*x));
    qsort(x, s->n, sizeof(*x), by_value);
    return s->n % 2 ? x[s->n / 2] : 0.5 * (x[s->n / 2 - 1] + x[s->n / 2]);
}

double smallest(const struct samples *s)
{
    double least = s->n ? s->x[0] : 0;

    for (size_t i = 1; i < s->n; i++)
        least = s->x[i] < least ? s->x[i] : least;
    return least;
}

double largest(const struct samples *s)
{
    double most = s->n ? s->x[0] : 0;

    for (size_t i = 1; i < s->n; i++)
        most = s->x[i] > most ? s->x[i] : most;
    return most;
}

static void add(struct samples *s, double x)
{
    if (x > 0 && s->n < MAX_SAMPLES)
        s->x[s->n++] = x;
}

const char *engine_name(const struct row *w)
{
    return w->llama ? "llama.cpp" : "edgewise";
}

static bool same(const struct row *a, const struct row *b)
{
    return strcmp(a->model, b->model) == 0 && strcmp(a->what, b->what) == 0 &&
           a->batch == b->batch && a->length == b->length;
}

const struct row *find_row(const struct run *r, const struct row *like, bool llama)
{
    for (size_t i = 0; i < r->n_rows; i++)
        if (r->rows[i].llama == llama && same(&r->rows[i], like))
            return &r->rows[i];
    return NULL;
}

/* The row like `w`, made when it is not there. */
static struct row *row_of(struct run *r, const struct row *w)
{
    for (size_t i = 0; i < r->n_rows; i++)
        if (r->rows[i].llama == w->llama && same(&r->rows[i], w))
            return &r->rows[i];
    if (r->n_rows == MAX_ROWS)
        return NULL;
    r->rows[r->n_rows] = *w;
    return &r->rows[r->n_rows++];
}

static bool refuse(const char *path, const char *why)
{
    fprintf(stderr, "bench: %s: %s\n", path, why);
    return false;
}

static double number(const json_t *v, const char *key)
{
    return json_number_value(json_object_get(v, key));
}

static void text(char *to, size_t cap, const json_t *v, const char *key)
{
    const char *const s = json_string_value(json_object_get(v, key));

    snprintf(to, cap, "%s", s ? s : "");
}

static void add_machine(struct run *r, const json_t *m, double *ceiling)
{
    static const char *const keys[N_CEILINGS] = { "read_bytes_per_s", "f32_flops_per_s",
                                                  "int8_ops_per_s", "bf16_flops_per_s" };

    text(r->machine, sizeof(r->machine), m, "model");
    text(r->level, sizeof(r->level), m, "level");
    text(r->with[INT8], sizeof(r->with[INT8]), m, "int8_with");
    text(r->with[BF16], sizeof(r->with[BF16]), m, "bf16_with");
    r->threads = (long)number(m, "threads");
    for (int c = 0; c < N_CEILINGS; c++) {
        ceiling[c] = number(m, keys[c]);
        add(&r->ceiling[c], ceiling[c]);
    }
}

static bool add_row(struct run *r, const char *model, const json_t *v, const double *ceiling)
{
    const double best = number(v, "tokens_per_s"), rate = number(v, "median_tokens_per_s");
    struct row w = { .batch = (long)number(v, "batch"), .length = (long)number(v, "length") };

    if (!(best > 0) || !(rate > 0))
        return false;
    snprintf(w.model, sizeof(w.model), "%s", model);
    text(w.what, sizeof(w.what), v, "what");
    w.bytes = number(v, "read_bytes_per_s") / best;
    w.ops = number(v, "ops_per_s") / best;
    struct row *const to = row_of(r, &w);
    if (!to)
        return false;
    add(&to->rate, rate);
    for (int c = 0; c < N_CEILINGS; c++)
        if (ceiling[c] > 0)
            add(&to->share[c], rate * (c == READ ? w.bytes : w.ops) / ceiling[c]);
    return true;
}

bool add_edgewise(struct run *r, const char *model, const char *path)
{
    json_t *const root = json_load_file(path, 0, NULL);
    const json_t *const rows = json_object_get(root, "rows");
    json_t *const points = json_object_get(root, "curve");
    double ceiling[N_CEILINGS] = { 0 };
    bool ok = json_is_array(rows);
    const json_t *v;
    size_t i;

    if (!ok)
        refuse(path, "not the JSON of edgewise bench");
    if (ok && json_is_object(json_object_get(root, "machine")))
        add_machine(r, json_object_get(root, "machine"), ceiling);
    json_array_foreach(rows, i, v)
    {
        if (ok && !add_row(r, model, v, ceiling))
            ok = refuse(path, "a row without a rate, or too many rows");
    }
    if (ok && json_is_object(points) && r->n_curves < MAX_CURVES) {
        struct curve *const c = &r->curves[r->n_curves++];

        snprintf(c->model, sizeof(c->model), "%s", model);
        c->points = json_incref(points);
    }
    json_decref(root);
    return ok;
}

/* Prompt processing or generation alone; mixed tests are not compared with anything. */
static bool add_test(struct run *r, const char *model, const json_t *v)
{
    const long prompt = (long)number(v, "n_prompt"), gen = (long)number(v, "n_gen");
    const long depth = (long)number(v, "n_depth");
    const json_t *const samples = json_object_get(v, "samples_ts");
    struct row w = { .llama = true, .batch = 1 };
    const json_t *x;
    size_t i;

    if ((prompt > 0) == (gen > 0) || (prompt > 0 && depth > 0))
        return true;
    snprintf(w.model, sizeof(w.model), "%s", model);
    snprintf(w.what, sizeof(w.what), "%s", prompt > 0 ? "prefill" : "decode");
    w.length = prompt > 0 ? prompt : depth;
    const double ubatch = number(v, "n_ubatch") > 0 ? number(v, "n_ubatch") : 512;
    const double together = prompt > 0 ? ((double)prompt < ubatch ? (double)prompt : ubatch) : 1;
    w.bytes = number(v, "model_size") / together;
    text(r->llama_build, sizeof(r->llama_build), v, "build_commit");
    struct row *const to = row_of(r, &w);
    if (!to)
        return false;
    json_array_foreach(samples, i, x) add(&to->rate, json_number_value(x));
    if (json_array_size(samples) == 0)
        add(&to->rate, number(v, "avg_ts"));
    return to->rate.n > 0;
}

bool add_llama(struct run *r, const char *model, const char *path)
{
    json_t *const root = json_load_file(path, 0, NULL);
    bool ok = json_is_array(root);
    const json_t *v;
    size_t i;

    if (!ok)
        refuse(path, "not the JSON of llama-bench");
    json_array_foreach(root, i, v)
    {
        if (ok && !add_test(r, model, v))
            ok = refuse(path, "a test without a rate, or too many tests");
    }
    json_decref(root);
    return ok;
}

/* Its operations are those of the same work here; it measures no ceilings, so that the run's
 * medians stand in. */
void finish_llama(struct run *r)
{
    for (size_t i = 0; i < r->n_rows; i++) {
        struct row *const w = &r->rows[i];
        const struct row *const ours = w->llama ? find_row(r, w, false) : NULL;

        if (!w->llama)
            continue;
        w->ops = ours ? ours->ops : 0;
        for (int c = 0; c < N_CEILINGS; c++)
            for (size_t k = 0; k < w->rate.n && r->ceiling[c].n; k++)
                add(&w->share[c],
                    w->rate.x[k] * (c == READ ? w->bytes : w->ops) / median(&r->ceiling[c]));
    }
}

/* report.h - what one run of scripts/bench.sh measured: filled by collect.c from the JSON of
 * `edgewise bench` and llama-bench, written by report.c and roofline.c. A tool of this folder; uses
 * nothing of the library. */
#ifndef BENCH_REPORT_H
#define BENCH_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include <jansson.h>

#define MAX_SAMPLES 256
#define MAX_ROWS    256
#define MAX_CURVES  32
#define MAX_NOTES   64

struct samples {
    double x[MAX_SAMPLES];
    size_t n;
};

enum ceiling { READ, F32, INT8, BF16, N_CEILINGS };

/* One line of the table: one kind of work of one model on one engine. */
struct row {
    char model[64], what[16];
    bool llama;
    long batch, length;
    double bytes, ops;                /* of weights and a token; 0: not known */
    struct samples rate;              /* tokens/s, one a round */
    struct samples share[N_CEILINGS]; /* of the ceilings of the same process; llama: of the run's */
};

struct curve {
    char model[64];
    json_t *points; /* as `edgewise bench --json` says */
};

struct run {
    char machine[96], level[32], llama_build[64];
    long threads;
    struct samples ceiling[N_CEILINGS]; /* bytes/s, operations/s */
    char with[N_CEILINGS][32];
    struct row rows[MAX_ROWS];
    struct curve curves[MAX_CURVES];
    const char *notes[MAX_NOTES], *title;
    size_t n_rows, n_curves, n_notes;
};

/* Each: false after a message on stderr. */
bool add_edgewise(struct run *r, const char *model, const char *path);
bool add_llama(struct run *r, const char *model, const char *path);
/* Shares of llama-bench's rows, when all files are in. */
void finish_llama(struct run *r);

double median(const struct samples *s); /* 0 of none */
double smallest(const struct samples *s);
double largest(const struct samples *s);
const struct row *find_row(const struct run *r, const struct row *like, bool llama);
const char *engine_name(const struct row *w);

void write_roofline(const struct run *r, FILE *f);

#endif

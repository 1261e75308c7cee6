/* bench_cmd.h - what the files of `edgewise bench` share. */
#ifndef EDGEWISE_BENCH_CMD_H
#define EDGEWISE_BENCH_CMD_H

#include "cli.h"

#define BENCH_MAX_LIST 16
#define BENCH_MAX_ROWS 64 /* of the curve: its buffers grow with the square */

struct bench {
    ew_runtime *rt;
    ew_model_info model;
    ew_machine_info machine; /* rates are 0 when not measured */
    double load_s, ttft_ms;
    json_t *rows, *curve, *memory; /* curve: null when not wanted */
    uint64_t captures, replays;    /* of the runtime that note_memory looked at */
    uint32_t prefill[BENCH_MAX_LIST], decode[BENCH_MAX_LIST], batch[BENCH_MAX_LIST],
        m[BENCH_MAX_LIST + 1];
    uint32_t n_prefill, n_decode, n_batch, n_m;
    uint32_t n_gen, n_reps, m_length; /* tokens a run, runs, context of the curve */
    bool json_out, no_ceilings;
};

/* What one kind of work did in a second, against the ceilings of this run. */
struct bench_rate {
    double read_bytes_per_s; /* of weights */
    double ops_per_s;        /* two a weight and token; attention is not counted */
    double share_of_read;    /* of ceilings measured around each run; 0: of the run's one ceiling */
};
/* Adds the rates and the shares to an object; null where a ceiling was not measured. */
void bench_rate_json(const struct bench *b, const struct bench_rate *r, json_t *to);
/* "93.0 % of read bandwidth, 25 GOP/s (12 % f32, 3 % int8)" */
void bench_rate_text(const struct bench *b, const struct bench_rate *r, char *out, size_t cap);

/* `n` random ids (the same every time) or NULL. */
int32_t *bench_ids(uint32_t n, uint32_t vocab);
/* `batch` prompts of `len` ids, `gen` tokens each; what it took. EXIT_FINE or an exit code after a
 * message. */
int bench_run(struct bench *b, uint32_t batch, uint32_t len, uint32_t gen, ew_runtime_stats *took,
              double *ttft_ms);
void bench_sort(double *x, uint32_t n);

/* The curve of small batches on the open runtime: a step of M rows, M tokens of one row. Fills
 * b->curve and prints it unless JSON is wanted. */
int bench_curve(struct bench *b);

#endif

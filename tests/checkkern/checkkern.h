/* checkkern.h - what the checks of kernels share: random numbers, guarded memory, comparing,
 * reporting. */
#ifndef CHECKKERN_H
#define CHECKKERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "edgewise/base.h"

struct ck {
    uint64_t seed;      /* of the run */
    uint64_t rng;       /* state */
    uint32_t cpu_flags; /* what this machine has and --cpu allows */
    const char *filter; /* substring of kernel names, or NULL */
    unsigned n_threads; /* of the bench */
    size_t n_checks, n_failures;
};

/* ---- random ---- */
uint64_t ck_rand(struct ck *c);
size_t ck_range(struct ck *c, size_t lo, size_t hi); /* [lo, hi] */
float ck_normal(struct ck *c);                       /* about N(0, 1) */

enum ck_fill {
    CK_NORMAL,
    CK_OUTLIERS,
    CK_ZERO,
    CK_EQUAL,
    CK_DENORMAL,
    CK_HUGE,
    CK_SPECIAL,
    CK_FILL_COUNT
};
const char *ck_fill_text(enum ck_fill f);
void ck_fill(struct ck *c, float *p, size_t n, enum ck_fill f);

/* ---- memory that ends at a page without access ---- */
struct ck_mem {
    void *map;
    size_t map_bytes;
    unsigned char *at; /* `bytes` bytes, the last one just before the guard page */
    size_t bytes;
};
struct ck_mem ck_mem_make(size_t bytes);
void ck_mem_drop(struct ck_mem *m);
/* An output with canaries before, between (by the strides of the caller) and after it. */
void ck_canary_set(void *p, size_t bytes);
bool ck_canary_ok(const void *p, size_t bytes);

/* ---- verdicts ---- */
/* Counts a check; prints and counts a failure. */
void ck_fail(struct ck *c, const char *kernel, const char *fmt, ...) EW_PRINTF(3, 4);
/* Whether this machine and --filter want the kernel; remembers it for a report of a crash. */
bool ck_wants(struct ck *c, const char *kernel, uint32_t cpu_need);
bool ck_same_float(float a, float b); /* bit-equal, or both NaN */

/* Weights and caches in short formats. */
size_t ck_elem_bytes(ew_dtype d);
void ck_from_f32(void *dst, ew_dtype d, const float *src, size_t n);
float ck_to_f32(const void *src, ew_dtype d, size_t i);

void ck_linear(struct ck *c);
void ck_quant(struct ck *c);
void ck_attention(struct ck *c);
void ck_rowops(struct ck *c);
int ck_bench(struct ck *c);

#endif

/* checkcuda.h - what checks of CUDA kernels share: cases, device memory, launching, comparing,
 * timing.
 *
 *   family (check_linear.c: CC_FAMILY(linear)) --run--> cases --plan function--> launches
 *   one case: begin, inputs and outputs, launch, reference on the host, compare, end
 *
 *     if (cc_begin(c, "bf16 m%zu n%zu k%zu", m, n, k)) {
 *         const uint64_t w = cc_input(c, packed, packed_bytes), y = cc_output(c, m * n * 4);
 *         ... make launches from the addresses with the family's plan function ...
 *         if (cc_launch(c, launches, n_launches)) {
 *             ... the reference; it is not needed where nothing ran ...
 *             cc_near(c, "y", cc_download(c, y), want, m * n, abs, rel);
 *         }
 *         cc_end(c);
 *     }
 *
 * Families run more than once: first only to gather specs, which are compiled by all cores (with
 * --compile-only for every chip asked for, and that is all); then on the GPU. cc_launch returns
 * false where nothing ran. A family must give the same cases every time; random numbers come from
 * cc_rand, which starts anew in each case. */
#ifndef CHECKCUDA_H
#define CHECKCUDA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "edgewise/base.h"
#include "kernels/cuda/kernel.h"

struct cc; /* one run of the program */

/* ---- cases ---- */
/* The chip at hand, or the one that is compiled for. Addresses and launches may depend on it. */
const struct ew_cuda_chip *cc_chip(const struct cc *c);
/* Starts the case "<family>/<text>". False: the filter does not want it (no cc_end then). */
bool cc_begin(struct cc *c, const char *fmt, ...) EW_PRINTF(2, 3);
/* Frees what the case had; reports it. */
void cc_end(struct cc *c);
/* True when times are wanted: large shapes for cc_bench are worth making. */
bool cc_is_bench(const struct cc *c);

/* False while launches are only gathered: no contents are looked at, and large ones need not be
 * made. */
bool cc_has_values(const struct cc *c);

/* ---- random numbers, the same in every run of a case ---- */
uint64_t cc_rand(struct cc *c);
size_t cc_range(struct cc *c, size_t lo, size_t hi); /* [lo, hi] */
float cc_normal(struct cc *c);                       /* about N(0, 1) */
void cc_fill_normal(struct cc *c, float *p, size_t n, float scale);

/* ---- device memory: addresses are 256-byte aligned and have canaries on both sides ---- */
uint64_t cc_input(struct cc *c, const void *host, size_t bytes);
/* Filled with 0xff (NaN in every float format). */
uint64_t cc_output(struct cc *c, size_t bytes);
/* Zeroed (tickets, barriers). Timed repeats do not zero it again: kernels must leave
 * such words as they found them. */
uint64_t cc_zeroed(struct cc *c, size_t bytes);
/* Contents after the launches; valid until cc_end. Checks the canaries. */
const void *cc_download(struct cc *c, uint64_t address);

/* ---- launching ---- */
/* Runs the launches in order and waits. False: nothing ran (gathering, compiling only, or a failure
 * that is already reported). */
bool cc_launch(struct cc *c, const struct ew_cuda_launch *l, size_t n);
/* With --bench, times the launches as one replayed graph, with cold L2: buffers whose address was
 * made by cc_input exist several times and each repeat reads another copy (every 8-byte word of the
 * arguments that points into such a buffer is moved). bytes: what must be read and written; flops:
 * what must be computed. Prints one line. Call it after cc_launch, before cc_end. */
void cc_bench(struct cc *c, const struct ew_cuda_launch *l, size_t n, double bytes, double flops);

/* ---- verdicts ---- */
void cc_fail(struct cc *c, const char *fmt, ...) EW_PRINTF(2, 3);
/* |got - want| <= abs + rel * |want| for each; NaN where want is NaN, equal where it is infinite.
 */
void cc_near(struct cc *c, const char *what, const float *got, const float *want, size_t n,
             double abs_tolerance, double rel_tolerance);
/* |got - want| <= bound[i]. */
void cc_within(struct cc *c, const char *what, const float *got, const float *want,
               const float *bound, size_t n);
void cc_equal(struct cc *c, const char *what, const void *got, const void *want, size_t bytes);

/* ---- families ---- */
struct cc_family {
    const char *name;
    void (*run)(struct cc *c);
};
/* In check_<name>.c: CC_FAMILY(name) { ...cases... } and a line CC(name) in families.inc. */
#define CC_FAMILY(family)                                                                          \
    static void cc_run_##family(struct cc *c);                                                     \
    extern const struct cc_family cc_family_##family;                                              \
    const struct cc_family cc_family_##family = { #family, cc_run_##family };                      \
    static void cc_run_##family(struct cc *c)

#endif

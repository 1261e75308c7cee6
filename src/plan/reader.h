/* plan/reader.h - bytes to a plan, trusting none of them. */
#ifndef EW_PLAN_READER_H
#define EW_PLAN_READER_H

#include "plan/plan.h"

/* Checks magic, versions, length, header hash and section table, then every chunk's hash on
 * n_threads threads. */
ew_status ew_plan_verify(const uint8_t *bytes, size_t len, unsigned n_threads, ew_error *err);
/* Reads a verified file; still believes nothing. cpu_flags: what this processor has. Constants
 * point into `bytes`, which must be 64-byte aligned and outlive the plan. On failure *p is left
 * de-initialised. */
ew_status ew_plan_read(const uint8_t *bytes, size_t len, uint32_t cpu_flags, struct ew_plan *p,
                       ew_error *err);
/* Where section s lies. False when the header is not one. */
bool ew_plan_section_range(const uint8_t *bytes, size_t len, unsigned s, uint64_t *off,
                           uint64_t *n);
/* Rewrites every checksum of the header after the body was changed: for fuzzing and tests. */
void ew_plan_rehash(uint8_t *bytes, size_t len);

#endif

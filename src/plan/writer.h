/* plan/writer.h - a plan to bytes. Weights are streamed by whoever has them; the header comes last.
 */
#ifndef EW_PLAN_WRITER_H
#define EW_PLAN_WRITER_H

#include "plan/plan.h"

/* Where bytes go: a file writer or memory. */
struct ew_plan_sink {
    void *ctx;
    ew_status (*write)(void *ctx, const void *bytes, size_t len, ew_error *err);
    ew_status (*patch)(void *ctx, const void *bytes, size_t len, uint64_t off, ew_error *err);
};

struct ew_plan_writer;
/* Writes the space of the header and every section but WEIGHTS. `sink` is borrowed until close. */
ew_status ew_plan_writer_open(const struct ew_plan *p, const struct ew_plan_sink *sink,
                              struct ew_plan_writer **out, ew_error *err);
/* Appends to WEIGHTS. */
ew_status ew_plan_writer_weights(struct ew_plan_writer *w, const void *bytes, size_t len,
                                 ew_error *err);
uint64_t ew_plan_writer_weights_pos(const struct ew_plan_writer *w);
/* Pads, checks that weights_bytes were given, writes the header. Frees w in every case. */
ew_status ew_plan_writer_close(struct ew_plan_writer *w, ew_error *err);
void ew_plan_writer_abandon(struct ew_plan_writer *w); /* NULL is fine */
/* Length of the whole file. */
uint64_t ew_plan_file_bytes(const struct ew_plan_writer *w);

#endif

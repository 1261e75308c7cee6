/* eval/journal.h - the state of an evaluation that can be stopped and go on.
 *
 * A text file: the first line says what work it belongs to, then a line of JSON for every piece of
 * work that is done. Lines are only ever appended, so a stopped process leaves at most one half
 * line, which the next run cuts off. Numbers are written with 17 digits: reading gives the same
 * f64, and so the same sums. Owns the file's form, not what the lines mean. */
#ifndef EW_EVAL_JOURNAL_H
#define EW_EVAL_JOURNAL_H

#include "base/buf.h"
#include "base/json.h"
#include "edgewise/eval.h"

struct ew_journal {
    const char *path; /* borrowed; NULL: no journal, every call does nothing */
    char *text;       /* what was there */
    size_t len, at;   /* whole lines; read so far */
    uint64_t end;     /* where the next line goes */
};

/* Hash of what a piece of work depends on, built up by these. */
uint64_t ew_journal_key_runtime(uint64_t key, const ew_runtime *rt);
uint64_t ew_journal_key_bytes(uint64_t key, const void *bytes, size_t len);

/* path NULL: none. MISMATCH when the file is of other work, MALFORMED when it is no such file. */
ew_status ew_journal_open(struct ew_journal *j, const char *path, const char *kind, uint64_t key,
                          ew_error *err);
void ew_journal_close(struct ew_journal *j);
/* The next line of the file; *out NULL when there is none left. Owned by the caller. */
ew_status ew_journal_next(struct ew_journal *j, json_t **out, ew_error *err);
/* Appends b (one line, without its end) and empties b. Fails when b failed. */
ew_status ew_journal_add(struct ew_journal *j, struct ew_buf *b, ew_error *err);

/* Reads n numbers of a JSON array from index `from` on. */
ew_status ew_journal_numbers(const json_t *line, size_t from, double *out, size_t n,
                             const struct ew_journal *j, ew_error *err);

#endif

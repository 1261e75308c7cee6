/* runtime/rope_tables.h - the position tables that steps bind, and which table a row needs.
 *
 * Most models have one table for ever (regime 0). Two types depend on the length
 * (checkpoint/rope.h); a row then has a regime, a number that names its table: longrope  0 up to
 * original_max tokens, else original_max + 1. A row that grows over the border starts again: its
 * cache is computed anew under the long factors, as transformers' Phi3 does dynamic   0 up to
 * max_position tokens, else the length L that was prefilled. Rows before L have the base of length
 * L, row p >= L that of length p + 1, and keys in the cache keep theirs, as in transformers'
 * generate Tables are made when first asked for and kept; the least recently used goes when there
 * are too many. */
#ifndef EW_RUNTIME_ROPE_TABLES_H
#define EW_RUNTIME_ROPE_TABLES_H

#include "checkpoint/rope.h"
#include "edgewise/memory.h"

struct ew_rope_input {
    const char *name; /* of the engine's input; borrowed */
    uint32_t rd;
    struct ew_rope_spec spec;
};

struct ew_rope_table {
    uint32_t set, regime;
    uint64_t used; /* clock of the last use; 0: free */
    float *data;   /* [cap][rd], of the tables' memory */
    size_t bytes;
};

struct ew_rope_tables {
    uint32_t cap, n_sets, n_tables;
    struct ew_rope_input sets[2];
    struct ew_rope_table *tables; /* [n_tables] */
    uint64_t clock;
    const ew_memory *memory; /* where tables are: the host's, or as ew_rope_tables_move_to said */
};

/* n_rows: how many rows may have regimes of their own at a time. */
ew_status ew_rope_tables_create(uint32_t cap, const struct ew_rope_input *sets, uint32_t n_sets,
                                uint32_t n_rows, struct ew_rope_tables **out, ew_error *err);
/* Tables made from now on are in this memory. Before the first is asked for. */
void ew_rope_tables_move_to(struct ew_rope_tables *t, const ew_memory *memory);
void ew_rope_tables_destroy(struct ew_rope_tables *t);

/* Regime of a row whose prefill is, or will be, len tokens. */
uint32_t ew_rope_regime(const struct ew_rope_tables *t, uint32_t len);
/* A row of this regime that now has len tokens must be computed anew. */
bool ew_rope_must_restart(const struct ew_rope_tables *t, uint32_t regime, uint32_t len);
/* [cap][rd], valid until n_rows + 1 other regimes have been asked for. */
ew_status ew_rope_tables_get(struct ew_rope_tables *t, uint32_t set, uint32_t regime, float **table,
                             ew_error *err);

#endif

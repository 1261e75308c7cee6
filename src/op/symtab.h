/* op/symtab.h - symbolic dims. A dim < 0 is an entry of this table: a named symbol ("batch"), an
 * expression of dims ("2*seq", "past_len+seq"), or an unknown ("?3"). Entries are interned: equal
 * expressions have equal dims, so == compares them.
 *
 * With table NULL every function works on numbers alone and returns EW_DIM_BAD if given a symbol.
 */
#ifndef EW_OP_SYMTAB_H
#define EW_OP_SYMTAB_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"

#define EW_DIM_BAD INT64_MIN /* overflow, or a symbol where none may be */

/* Symbols lie far below zero, so that contents of integer tensors (`known`, ew_infer_ints) can hold
 * small negative numbers (the -1 of a Reshape, a negative Slice start) beside symbols. In a type
 * every dim < 0 is a symbol; in contents, ask ew_dim_is_symbol(). */
#define EW_DIM_FIRST_SYMBOL (-((int64_t)1 << 40))
static inline bool ew_dim_is_symbol(int64_t d)
{
    return d <= EW_DIM_FIRST_SYMBOL && d != EW_DIM_BAD;
}

struct ew_symtab;

struct ew_symtab *ew_symtab_create(void); /* NULL: no memory */
void ew_symtab_destroy(struct ew_symtab *t);
/* The dim of a named symbol, created on first use. Names: [A-Za-z_][A-Za-z0-9_.]*; other characters
 * become '_'. */
int64_t ew_dim_symbol(struct ew_symtab *t, const char *name);
/* A fresh unknown. */
int64_t ew_dim_unknown(struct ew_symtab *t);

/* Numbers fold; sums and products are kept in a canonical order (constants collected, terms
 * sorted) so that a+b == b+a. Overflow gives EW_DIM_BAD. */
int64_t ew_dim_add(struct ew_symtab *t, int64_t a, int64_t b);
int64_t ew_dim_sub(struct ew_symtab *t, int64_t a, int64_t b);
int64_t ew_dim_mul(struct ew_symtab *t, int64_t a, int64_t b);
int64_t ew_dim_div(struct ew_symtab *t, int64_t a, int64_t b); /* floor; exact if it can */
int64_t ew_dim_div_ceil(struct ew_symtab *t, int64_t a, int64_t b);
int64_t ew_dim_max(struct ew_symtab *t, int64_t a, int64_t b);
int64_t ew_dim_min(struct ew_symtab *t, int64_t a, int64_t b);

/* Text of any dim: "3", "batch", "past_len + seq_len", "?2". Terminated, truncated if need be. */
void ew_dim_text(const struct ew_symtab *t, int64_t dim, char *out, size_t cap);
/* Inverse of ew_dim_text for numbers, names, + - * and parentheses; EW_DIM_BAD on bad text. */
int64_t ew_dim_parse(struct ew_symtab *t, const char *text);
/* Value of `dim` when symbol i (in creation order of named symbols) has values[i] (-1 unknown).
 * EW_DIM_BAD when it cannot be known. */
int64_t ew_dim_eval(const struct ew_symtab *t, int64_t dim, const int64_t *values, size_t n_values);
size_t ew_symtab_n_symbols(const struct ew_symtab *t);
const char *ew_symtab_symbol_name(const struct ew_symtab *t, size_t i);

#endif

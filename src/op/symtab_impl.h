/* op/symtab_impl.h - what symtab.c and symtab_text.c share. Nobody else includes it. */
#ifndef EW_OP_SYMTAB_IMPL_H
#define EW_OP_SYMTAB_IMPL_H

#include <stdbool.h>

#include "base/hash.h"
#include "op/symtab.h"

#define EW_SYM_MAX_TERMS 16
#define EW_SYM_MAX_ATOMS 6
#define EW_SYM_NAME_CAP  256
#define EW_SYM_MAX_DEPTH 12

enum ew_sym_kind {
    EW_SYM_NAME = 1,
    EW_SYM_UNKNOWN,
    EW_SYM_POLY,
    EW_SYM_DIV,
    EW_SYM_DIV_CEIL,
    EW_SYM_MAX,
    EW_SYM_MIN
};

struct ew_sym_term { /* hashed as bytes: unused atoms are zero and there is no padding */
    int64_t coef;
    int64_t n_atoms;
    int64_t atoms[EW_SYM_MAX_ATOMS]; /* dims of atoms, sorted */
};

struct ew_sym_poly {
    int n;
    struct ew_sym_term term[EW_SYM_MAX_TERMS];
};

struct ew_sym_entry {
    enum ew_sym_kind kind;
    int n_terms;
    int depth;        /* nesting of divisions and extremes, capped: recursion is safe */
    const char *name; /* NAME */
    int64_t number;   /* NAME: index among symbols; UNKNOWN: its number */
    const struct ew_sym_term *terms; /* POLY */
    int64_t a, b;                    /* DIV, DIV_CEIL, MAX, MIN */
};

struct ew_symtab {
    struct ew_arena arena;
    struct ew_map index; /* canonical bytes -> entry */
    struct ew_sym_entry *entries;
    size_t n_entries, cap_entries;
    const char **symbols;
    size_t n_symbols;
    int64_t next_unknown;
};

/* NULL for a number. */
const struct ew_sym_entry *ew_sym_entry_get(const struct ew_symtab *t, int64_t dim);
int64_t ew_sym_unknown_numbered(struct ew_symtab *t, int64_t number);
/* Whether a dim or content is a number (also one below zero), and which. */
static inline bool ew_sym_number(const struct ew_symtab *t, int64_t dim, int64_t *out)
{
    (void)t;
    *out = dim;
    return !ew_dim_is_symbol(dim) && dim != EW_DIM_BAD;
}

#endif

/* op/infer_dtypes.h - sets of dtypes and their checks, and the integer contents of an input with
 * the symbols in them told from the numbers; for the infer_*.c files. */
#ifndef EW_OP_INFER_DTYPES_H
#define EW_OP_INFER_DTYPES_H

#include "op/op.h"

#define EW_SET(name)       (1u << EW_DTYPE_##name)
#define EW_SET_FLOATS      (EW_SET(F32) | EW_SET(F16) | EW_SET(BF16) | EW_SET(F64))
#define EW_SET_F8          (EW_SET(F8E4M3) | EW_SET(F8E5M2) | EW_SET(F8E4M3FNUZ) | EW_SET(F8E5M2FNUZ))
#define EW_SET_SIGNED      (EW_SET(I8) | EW_SET(I16) | EW_SET(I32) | EW_SET(I64))
#define EW_SET_UNSIGNED    (EW_SET(U8) | EW_SET(U16) | EW_SET(U32) | EW_SET(U64))
#define EW_SET_INTS        (EW_SET_SIGNED | EW_SET_UNSIGNED)
#define EW_SET_NUMBERS     (EW_SET_FLOATS | EW_SET_INTS)
#define EW_SET_WIDE        (EW_SET_FLOATS | EW_SET(I32) | EW_SET(I64) | EW_SET(U32) | EW_SET(U64))
#define EW_SET_INDEX       (EW_SET(I32) | EW_SET(I64))
#define EW_SET_WHOLE_BYTES (EW_SET_NUMBERS | EW_SET_F8 | EW_SET(F8E8M0) | EW_SET(BOOL))
#define EW_SET_ANY         (EW_SET_WHOLE_BYTES | EW_SET(I4) | EW_SET(U4) | EW_SET(F4E2M1))

/* UNSUPPORTED unless the dtype of input i is in the set. */
ew_status ew_infer_dtype_in(struct ew_infer *f, int i, uint32_t set);
/* MISMATCH unless inputs i and j have one dtype. */
ew_status ew_infer_same_dtype(struct ew_infer *f, int i, int j);
/* True when input i is there. */
bool ew_infer_has(const struct ew_infer *f, int i);

#define EW_CONTENTS_CAP 64
struct ew_contents {
    bool known;
    size_t n;
    int64_t v[EW_CONTENTS_CAP];      /* numbers of any sign, or dims */
    bool is_symbol[EW_CONTENTS_CAP]; /* v is an entry of the symbol table */
};
/* Integers of input i (scalar or 1-D, at most EW_CONTENTS_CAP). When they are not known, known is
 * false and n is their number; a number that is not known is refused. */
ew_status ew_infer_contents(struct ew_infer *f, int i, struct ew_contents *c);

#endif

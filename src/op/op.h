/* op/op.h - the op table: what an op is called, how many inputs and outputs it has, what
 * attributes, and what types its outputs have. One inference function per op serves the graph
 * (symbolic dims), the builder (min/opt/max shapes) and the engine (shapes of this run).
 *
 * This layer knows no graph and no memory: it sees types, and the contents of small inputs when
 * known. */
#ifndef EW_OP_H
#define EW_OP_H

#include "op/attrs.h"
#include "op/symtab.h"
#include "tensor/tensor.h"

typedef enum ew_op {
    EW_OP_NONE = 0,
#define OP(id, name, min_in, max_in, min_out, max_out, attrs, group) EW_OP_##id,
#include "op/ops.inc"
#undef OP
    EW_OP_COUNT
} ew_op;

#define EW_MAX_OUTPUTS 64
#define EW_VARIADIC    255

enum ew_attr_kind {
#define EW_ATTR_KIND_ENUM(kind) EW_ATTR_KIND_##kind,
    EW_ATTR_KIND_LIST(EW_ATTR_KIND_ENUM)
#undef EW_ATTR_KIND_ENUM
};

enum ew_field_type {
    EW_FIELD_I32,
    EW_FIELD_I64,
    EW_FIELD_F32,
    EW_FIELD_F64,
    EW_FIELD_INTS,
    EW_FIELD_ENUM /* i32 + names */,
    EW_FIELD_DTYPE /* i32 */,
    EW_FIELD_TEXT /* char[] */,
    EW_FIELD_PROGRAM
};
struct ew_attr_field {
    const char *name; /* ONNX's attribute name where it has one */
    enum ew_field_type type;
    uint16_t offset;          /* into the attribute struct */
    uint16_t cap;             /* EW_FIELD_TEXT: bytes */
    double fallback;          /* default of scalar fields */
    const char *const *names; /* EW_FIELD_ENUM: NULL-terminated, index = value */
};

struct ew_op_info {
    ew_op op;
    const char *name;
    uint8_t min_in, max_in, min_out, max_out;
    enum ew_attr_kind attr_kind;
    size_t attr_bytes;
    const struct ew_attr_field *fields; /* terminated by name NULL */
};

/* Borrowed, static; NULL for a number out of range. */
const struct ew_op_info *ew_op_get(ew_op op);
/* By ONNX / IR name, case-sensitive; EW_OP_NONE if unknown. */
ew_op ew_op_find(const char *name);
/* Defaults of the op's attributes. */
void ew_op_attrs_init(ew_op op, union ew_attrs *attrs);
/* Copies one field of the schema from one struct to another. */
void ew_op_attr_copy_field(const struct ew_attr_field *f, union ew_attrs *to,
                           const union ew_attrs *from);
bool ew_op_attrs_equal(ew_op op, const union ew_attrs *a, const union ew_attrs *b);

/* What inference may know of an input beside its type. */
struct ew_infer_in {
    const struct ew_type *type; /* NULL: optional input absent */
    const void *data;           /* contents (concrete type), or NULL: not known now */
    const int64_t *dims; /* integer contents, possibly symbolic (shape arithmetic), or NULL */
    size_t n_dims;       /* length of dims */
};

struct ew_infer {
    struct ew_symtab *syms; /* NULL: everything is concrete */
    ew_op op;
    const union ew_attrs *attrs;
    int n_in;
    const struct ew_infer_in *in;
    int n_out; /* outputs the node has (optional trailing ones may be fewer) */
    struct ew_type out[EW_MAX_OUTPUTS]; /* result */
    /* Set when a shape depends on contents that were not given (`data`/`dims` NULL): with a symbol
     * table the out dims are then fresh unknowns and the call still succeeds; without one it fails
     * with UNSUPPORTED. */
    bool needs_data;
    int needs_input; /* which input's contents were missing */
    ew_error *err;
};

/* Checks dtypes, ranks and attribute values of one node and sets out[0..n_out). Errors are one line
 * about the node's inputs, with both values; the caller prepends the node's name. */
ew_status ew_op_infer(struct ew_infer *f);

/* ---- for the infer_*.c files ---- */
typedef ew_status ew_infer_fn(struct ew_infer *f);
/* One per group; each has a switch or table over its ops. */
ew_infer_fn ew_infer_unary, ew_infer_binary, ew_infer_reduce, ew_infer_move, ew_infer_nn,
    ew_infer_llm;
/* ONNX multidirectional broadcast of two dim lists; symbols: equal stays, 1 yields, otherwise the
 * number wins over the symbol, two different symbols give max. MISMATCH names both dims. */
ew_status ew_infer_broadcast(struct ew_infer *f, const struct ew_type *a, const struct ew_type *b,
                             struct ew_type *out);
/* Integer contents of input i as dims (from data i32/i64 or dims); false when not known. n <= cap
 * or error. */
bool ew_infer_ints(struct ew_infer *f, int i, int64_t *out, size_t cap, size_t *n);
/* Normalises axis in [-rank, rank); MALFORMED-style failure otherwise. */
ew_status ew_infer_axis(struct ew_infer *f, int64_t axis, int rank, int *out);
/* Marks needs_data and, with a symbol table, sets every dim of out[o] of this rank to a fresh
 * unknown. */
ew_status ew_infer_unknown(struct ew_infer *f, int o, int input, ew_dtype dtype, int rank);

/* KvAttention: last dim of a cache of this dtype; 0: no cache can be of it. */
int64_t ew_kv_row_width(ew_dtype cache, int64_t head_size);

#endif

/* graph/ir.h - the IR: nodes of the op table over values with symbolic types.
 *
 *   ew_graph (arena) --nodes--> struct ew_node --inputs/outputs--> struct ew_value
 *                    --inputs/outputs (ordered, named)
 *                    --symtab (dims)
 *                    --owners (mapped files that constants point into; released with the graph)
 *
 * Nodes are in topological order; insertion keeps it. A value has one producer (a node, or none:
 * graph input or constant). Everything lives in the arena: passes drop nodes by unlinking. Not
 * thread safe. */
#ifndef EW_GRAPH_IR_H
#define EW_GRAPH_IR_H

#include "edgewise/graph.h"
#include "base/arena.h"
#include "base/buf.h"
#include "base/hash.h"
#include "kernels/linear.h" /* struct ew_weight_part */
#include "op/op.h"

struct ew_node;

/* Contents of a constant. One contiguous block (n_parts 0, data), or a 2-D or 3-D weight put
 * together from row blocks that stay where the checkpoint has them (n_parts > 0, data NULL): rows =
 * product of all dims but the last. Parts may be quantised, all in one format: then the type is
 * f32, what the codes mean, and nothing is unpacked in memory. */
struct ew_const {
    const void *data;
    struct ew_weight_part *parts;
    size_t n_parts;
};

struct ew_value {
    const char *name; /* unique in the graph, never NULL */
    struct ew_type type;
    struct ew_node *producer; /* NULL: input or constant */
    int out_idx;
    bool is_input, is_output, is_const;
    struct ew_const con;
    struct ew_value
        *alias_of;   /* output that shares this input's memory (present_key_values), else NULL */
    uint32_t n_uses; /* node inputs + graph output; kept by the functions below */
    uint32_t id;     /* dense, for side tables */
    const int64_t *known; /* integer contents as dims, filled by ew_graph_infer; NULL unknown */
    size_t n_known;
};

struct ew_node {
    ew_op op;
    const char *name; /* never NULL */
    union ew_attrs attrs;
    struct ew_value **in;  /* NULL entries: absent optional inputs */
    struct ew_value **out; /* NULL entries: unwanted optional outputs */
    int n_in, n_out;
    struct ew_node *prev, *next;
    uint32_t id;
};

struct ew_owner {
    void *obj;
    void (*release)(void *obj);
    struct ew_owner *next;
};

struct ew_graph {
    struct ew_arena arena;
    struct ew_symtab *syms;
    const char *name;
    struct ew_node *head, *tail;
    struct ew_value **inputs, **outputs;
    size_t n_inputs, n_outputs, cap_inputs, cap_outputs;
    uint32_t n_values, n_nodes; /* ids handed out */
    struct ew_map values_by_name;
    struct ew_value **values; /* by id */
    size_t cap_values;
    struct ew_owner *owners;
    char *llm_config; /* JSON text of the LLM contract (config.json keys), or NULL for a plain
                         graph; heap, tag GRAPH */
    struct ew_value
        *embedding; /* constant [V,H] kept beside the graph (the lookup is outside), or NULL */
};

ew_status ew_graph_create(const char *name, struct ew_graph **out, ew_error *err);
/* ew_graph_destroy is public (edgewise/graph.h) */
/* The graph keeps obj until it is destroyed, then calls release(obj). On failure release is called
 * at once. */
ew_status ew_graph_own(struct ew_graph *g, void *obj, void (*release)(void *));

/* Values. A name that is taken gets ".1", ".2"... appended. NULL: out of memory. */
struct ew_value *ew_graph_add_value(struct ew_graph *g, const char *name,
                                    const struct ew_type *type);
struct ew_value *ew_graph_add_input(struct ew_graph *g, const char *name,
                                    const struct ew_type *type);
/* data borrowed: must live as long as the graph (ew_graph_own), or copied when copy is set. */
struct ew_value *ew_graph_add_const(struct ew_graph *g, const char *name,
                                    const struct ew_type *type, const void *data, bool copy);
struct ew_value *ew_graph_add_const_parts(struct ew_graph *g, const char *name,
                                          const struct ew_type *type,
                                          const struct ew_weight_part *parts, size_t n_parts);
/* Small helpers for constants made by code. */
struct ew_value *ew_graph_const_i64(struct ew_graph *g, const char *name, const int64_t *v,
                                    size_t n);                                      /* shape [n] */
struct ew_value *ew_graph_const_f32(struct ew_graph *g, const char *name, float v); /* scalar */
ew_status ew_graph_add_output(struct ew_graph *g, struct ew_value *v, const char *name,
                              ew_error *err);
struct ew_value *ew_graph_find(const struct ew_graph *g, const char *name);

/* Appends a node with n_out fresh output values named <name>, <name>.1...; attrs NULL = defaults;
 * in may hold NULLs. Types of the outputs are inferred at once: on failure the error names the
 * node. *out_node may be NULL. */
ew_status ew_graph_add_node(struct ew_graph *g, ew_op op, const char *name,
                            const union ew_attrs *attrs, struct ew_value *const *in, int n_in,
                            int n_out, struct ew_node **out_node, ew_error *err);
/* The same before `at` (NULL: at the end). */
ew_status ew_graph_insert_node(struct ew_graph *g, struct ew_node *at, ew_op op, const char *name,
                               const union ew_attrs *attrs, struct ew_value *const *in, int n_in,
                               int n_out, struct ew_node **out_node, ew_error *err);
/* Every use of `from` (node inputs and graph outputs) becomes `to`. Graph outputs keep their name:
 * `to` takes it. Where ew_graph_can_replace() says no (`from` is a graph output, `to` a graph
 * output, input or constant), the graph output stays and only node inputs change. */
bool ew_graph_can_replace(const struct ew_value *from, const struct ew_value *to);
void ew_graph_replace_uses(struct ew_graph *g, struct ew_value *from, struct ew_value *to);
void ew_node_set_input(struct ew_node *n, int i, struct ew_value *v);
/* Room for n_in inputs; new ones are absent. False: out of memory. */
bool ew_node_grow_inputs(struct ew_graph *g, struct ew_node *n, int n_in);
/* Unlinks; the node's outputs must have no uses. */
void ew_graph_remove_node(struct ew_graph *g, struct ew_node *n);
/* Drops nodes none of whose outputs is used, until there is none. Returns how many. */
size_t ew_graph_sweep(struct ew_graph *g);
/* The one node that uses v, or NULL if there are none, several, or v is a graph output. */
struct ew_node *ew_value_single_use(const struct ew_graph *g, const struct ew_value *v);

/* A graph input, a constant, or output of a node that is still linked. */
bool ew_value_is_live(const struct ew_value *v);
/* Gives v this name; a plain value that has it is renamed. MISMATCH when an input or output of the
 * graph has it. */
ew_status ew_value_rename(struct ew_graph *g, struct ew_value *v, const char *name, ew_error *err);
/* `name`, or `name` with the first free ".1", ".2"...; in the arena. NULL: out of memory. */
const char *ew_graph_unique_name(struct ew_graph *g, const char *name);

/* One node: types of its outputs into out[n_out] (not stored), and `known` of its outputs (stored).
 */
ew_status ew_node_infer_types(struct ew_graph *g, const struct ew_node *n, struct ew_type *out,
                              ew_error *err);
void ew_node_infer_known(struct ew_graph *g, struct ew_node *n);
/* Integer contents of a value as dims: of a small constant or of shape arithmetic. False: not
 * known, or over cap. */
bool ew_value_ints(const struct ew_value *v, int64_t *out, size_t cap, size_t *n);

/* Infers all types again from the inputs, and `known` contents of shape arithmetic. */
ew_status ew_graph_infer(struct ew_graph *g, ew_error *err);
/* Structure: order, uses, names, arities, dtypes, constants' sizes, aliases. */
ew_status ew_graph_verify(const struct ew_graph *g, ew_error *err);
/* Text form; see docs/graph.md. Constants beyond a few elements print as a hash. */
ew_status ew_graph_print(const struct ew_graph *g, struct ew_buf *out);
/* Reads the text form (constants must be printed in full or are zeros of the type when marked so).
 */
ew_status ew_graph_parse(const char *text, size_t len, struct ew_graph **out, ew_error *err);
/* Copies a constant's contents (parts gathered, quantised ones decoded) into dst of its byte size.
 * False: out of memory. */
bool ew_const_copy(const struct ew_value *v, void *dst);
/* Format of a quantised constant; NULL for any other value. */
const struct ew_quant_format *ew_const_quant(const struct ew_value *v);
/* A quantised constant f32[n, k] over rows [row, row + n) of a source (borrowed: the graph must own
 * it). NULL: out of memory. */
struct ew_value *ew_graph_add_const_quant(struct ew_graph *g, const char *name,
                                          const struct ew_quant_source *src, size_t row, size_t n);

#endif

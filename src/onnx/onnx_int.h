/* onnx/onnx_int.h - what the files of onnx/ share: the wire layer, the import context, one node
 * being imported.
 *
 *   bytes --wire.c--> Onnx__ModelProto --import*.c, tensor.c, attr.c--> ew_graph --restore.c-->
 * ew_graph
 *
 * Nothing outside onnx/ includes this. */
#ifndef EW_ONNX_INT_H
#define EW_ONNX_INT_H

#include "edgewise/onnx.h"

#include "base/buf.h"
#include "base/hash.h"
#include "base/size.h"
#include "graph/ir.h"
#include "onnx.pb-c.h"
#include "os/os.h"

#define EW_ONNX_MAX_IR        14
#define EW_ONNX_MIN_OPSET     1
#define EW_ONNX_MAX_OPSET     28
#define EW_ONNX_SAVE_OPSET    24
#define EW_ONNX_SAVE_IR       10
#define EW_ONNX_MAX_ATTRS     64
#define EW_ONNX_PLUGIN_DOMAIN "trt_edgellm"
#define EW_ONNX_OWN_DOMAIN    "edgewise"
#define EW_ONNX_TRT_DOMAIN    "trt"

/* ---- wire.c ---- */

/* Checks nesting and lengths of an encoded message before the recursive unpacker may see it. */
ew_status ew_onnx_scan(const uint8_t *bytes, size_t len, const ProtobufCMessageDescriptor *root,
                       ew_error *err);
/* Scan, then unpack with memory bounded by the length. Free with ew_onnx_message_free. */
ew_status ew_onnx_unpack(const uint8_t *bytes, size_t len, const ProtobufCMessageDescriptor *root,
                         const char *what, ProtobufCMessage **out, ew_error *err);
void ew_onnx_message_free(void *message);

/* ---- tensor.c ---- */

/* ONNX's TensorProto.DataType <-> ours; NONE / 0 when there is no counterpart. */
ew_dtype ew_onnx_dtype(int64_t data_type);
int32_t ew_onnx_data_type(ew_dtype dtype);
/* "STRING", "COMPLEX64"... for refusals; "?" if unknown. */
const char *ew_onnx_data_type_text(int64_t data_type);

struct ew_onnx_files; /* external data files that were opened, kept by the graph */
ew_status ew_onnx_files_create(const char *dir, struct ew_onnx_files **out, ew_error *err);
void ew_onnx_files_destroy(void *files);

/* Type and contents of a tensor. *data points into t, a mapped external file, or memory of `arena`
 * (typed data fields, unaligned external data); never NULL. files NULL: external data is refused.
 */
ew_status ew_onnx_tensor_read(const Onnx__TensorProto *t, struct ew_onnx_files *files,
                              struct ew_arena *arena, struct ew_type *type, const void **data,
                              ew_error *err);

/* ---- import.c ---- */

struct ew_onnx_in {
    struct ew_graph *g;
    const Onnx__ModelProto *model;
    struct ew_onnx_files *files;
    int64_t opset;       /* of the default domain */
    bool is_llm;         /* config.json of the LLM contract is beside the model */
    bool any_token;      /* engine_role llm: last_token_ids may name any number of tokens */
    struct ew_map names; /* ONNX name -> index into values */
    struct ew_value **values;
    size_t n_values, cap_values;
    ew_error *err;
};

/* One node on its way in. Inputs: absent ones are NULL, trailing absent ones are not counted. */
struct ew_onnx_node {
    struct ew_onnx_in *in;
    const Onnx__NodeProto *p;
    struct ew_value **x;
    int n_x;
    uint64_t used; /* attributes that an importer has looked at */
};

ew_status ew_onnx_bind(struct ew_onnx_in *in, const char *name, struct ew_value *v);
/* The node's output i is v (a name that is empty binds nothing). */
ew_status ew_onnx_set_output(struct ew_onnx_node *n, int i, struct ew_value *v);
/* Number of outputs wanted: trailing empty names are not. */
int ew_onnx_n_outputs(const struct ew_onnx_node *n);
/* Input i, or NULL when absent. */
struct ew_value *ew_onnx_input(const struct ew_onnx_node *n, int i);

/* Adds an IR node; `suffix` ("" for the node that makes output 0) names helpers. */
ew_status ew_onnx_emit(struct ew_onnx_node *n, const char *suffix, ew_op op,
                       const union ew_attrs *attrs, struct ew_value *const *x, int n_x, int n_out,
                       struct ew_node **out);
/* The usual end of an importer: attributes by schema for what is not used yet, refusal of unknown
 * ones, one IR node over x, outputs bound. */
ew_status ew_onnx_emit_main(struct ew_onnx_node *n, ew_op op, union ew_attrs *attrs,
                            struct ew_value *const *x, int n_x);
/* Constants named after the node. NULL: out of memory. */
struct ew_value *ew_onnx_const_ints(struct ew_onnx_node *n, const char *suffix, const int64_t *v,
                                    size_t n_v);
struct ew_value *ew_onnx_const_scalar(struct ew_onnx_node *n, const char *suffix, ew_dtype dtype,
                                      double v);
ew_status ew_onnx_no_memory(const struct ew_onnx_node *n);
/* "not supported" about this node. */
ew_status ew_onnx_refuse(const struct ew_onnx_node *n, const char *fmt, ...) EW_PRINTF(2, 3);

/* ---- attr.c ---- */

/* NULL when absent; marks it used. */
const Onnx__AttributeProto *ew_onnx_attr(struct ew_onnx_node *n, const char *name);
ew_status ew_onnx_attr_int(struct ew_onnx_node *n, const char *name, int64_t fallback,
                           int64_t *out);
ew_status ew_onnx_attr_float(struct ew_onnx_node *n, const char *name, float fallback, float *out);
/* *ints NULL when absent. Borrowed from the model. */
ew_status ew_onnx_attr_ints(struct ew_onnx_node *n, const char *name, const int64_t **ints,
                            size_t *n_ints);
/* Text of at most cap-1 bytes, terminated; fallback when absent. */
ew_status ew_onnx_attr_text(struct ew_onnx_node *n, const char *name, const char *fallback,
                            char *out, size_t cap);
/* Every unused attribute goes to the schema field of its name, or is refused. */
ew_status ew_onnx_attrs_by_schema(struct ew_onnx_node *n, ew_op op, union ew_attrs *attrs);
ew_status ew_onnx_attrs_all_used(struct ew_onnx_node *n);

/* ---- import_*.c ---- */

typedef ew_status ew_onnx_importer(struct ew_onnx_node *n);
struct ew_onnx_special {
    const char *op_type;
    ew_onnx_importer *import;
};
/* Tables end with op_type NULL. */
extern const struct ew_onnx_special ew_onnx_shape_ops[], ew_onnx_nn_ops[], ew_onnx_plugin_ops[],
    ew_onnx_quant_ops[], ew_onnx_microsoft_ops[];

/* ---- restore.c ---- */

/* Rebuilds the ops that ew_graph_save_onnx takes apart (Linear, FusedRmsNorm, Swish, the inputs of
 * KvAttention) where the pattern is exact, so that a graph which went through ONNX is the graph it
 * was. */
ew_status ew_onnx_restore(struct ew_graph *g, ew_error *err);

/* ---- llm_dir.c ---- */

/* Looks for the contract's config.json beside the model; *is_llm false when there is none. On
 * success the text and the facts that the importer needs are set. */
ew_status ew_onnx_llm_config(struct ew_onnx_in *in, const char *dir);
/* embedding.safetensors, when there is one. */
ew_status ew_onnx_llm_embedding(struct ew_onnx_in *in, const char *dir);
/* Counts and roles of the finished graph against the config. */
ew_status ew_onnx_llm_check(struct ew_onnx_in *in);

/* One-tensor safetensors file. */
ew_status ew_onnx_save_embedding(const struct ew_value *v, const char *path, ew_error *err);

#endif

/* onnx/save_int.h - what the files of the writer share: the model being put together, and its data
 * file.
 *
 * Messages live in the arena; tensors over a small size go to the data file as they are met. Helper
 * nodes are named
 * "<name>#<step>": restore.c looks for these names when it puts an op together again. */
#ifndef EW_ONNX_SAVE_INT_H
#define EW_ONNX_SAVE_INT_H

#include "onnx/onnx_int.h"

struct ew_onnx_list { /* growable array of message pointers */
    void **at;
    size_t n, cap;
};
/* False: out of memory. */
bool ew_onnx_list_push(struct ew_onnx_list *list, void *item);

/* Forms in which a constant is in the file already. */
enum ew_onnx_done {
    EW_ONNX_DONE_VALUE = 1u << 0, /* under its name; quantised: behind a DequantizeLinear */
    EW_ONNX_DONE_TRANSPOSED = 1u << 1,
    EW_ONNX_DONE_CAST = 1u << 2,
    EW_ONNX_DONE_INT4 = 1u << 3, /* as the plugin wants it */
};

struct ew_onnx_out {
    const struct ew_graph *g;
    uint32_t flags; /* enum ew_onnx_flags */
    struct ew_arena arena;
    struct ew_onnx_list nodes, tensors;
    struct ew_file_writer *data;
    uint64_t data_pos;
    uint64_t done_bytes, total_bytes; /* of constants, for progress */
    const ew_progress *progress;
    uint8_t *const_done; /* by value id: enum ew_onnx_done */
    bool uses_plugin, uses_own, uses_trt;
    ew_error *err;
};

ew_status ew_onnx_out_no_memory(struct ew_onnx_out *o);
/* Text in the arena: "<base>#<step>"; NULL: out of memory (the node call below then fails). */
const char *ew_onnx_step(struct ew_onnx_out *o, const char *base, const char *step);

/* Appends a node; names may not be NULL except absent inputs. NULL: out of memory. */
Onnx__NodeProto *ew_onnx_put_node(struct ew_onnx_out *o, const char *op_type, const char *name,
                                  const char *const *in, size_t n_in, const char *const *out,
                                  size_t n_out);
/* One input, one output and the like: the node is named as its output. */
ew_status ew_onnx_put_simple(struct ew_onnx_out *o, const char *op_type, const char *in0,
                             const char *in1, const char *out);
/* False: out of memory. */
bool ew_onnx_put_int(struct ew_onnx_out *o, Onnx__NodeProto *n, const char *name, int64_t v);
bool ew_onnx_put_float(struct ew_onnx_out *o, Onnx__NodeProto *n, const char *name, float v);
bool ew_onnx_put_text(struct ew_onnx_out *o, Onnx__NodeProto *n, const char *name, const char *v);
bool ew_onnx_put_floats(struct ew_onnx_out *o, Onnx__NodeProto *n, const char *name, const float *v,
                        size_t n_v);
bool ew_onnx_put_ints(struct ew_onnx_out *o, Onnx__NodeProto *n, const char *name, const int64_t *v,
                      size_t n_v);
bool ew_onnx_put_tensor_attr(struct ew_onnx_out *o, Onnx__NodeProto *n, const char *name,
                             Onnx__TensorProto *t);

/* ---- save_data.c ---- */

/* The constant is in the file under its name (written on first use). */
ew_status ew_onnx_put_const(struct ew_onnx_out *o, const struct ew_value *v);
/* Small constants made by the writer. */
ew_status ew_onnx_put_i64s(struct ew_onnx_out *o, const char *name, const int64_t *v, size_t n);
ew_status ew_onnx_put_f32(struct ew_onnx_out *o, const char *name, float v);
/* A tensor with its bytes inside. NULL: out of memory. */
Onnx__TensorProto *ew_onnx_make_tensor(struct ew_onnx_out *o, const char *name,
                                       const struct ew_type *type, const void *bytes);

/* A tensor in the data file, whose bytes the caller then writes, all of them. */
ew_status ew_onnx_begin_data(struct ew_onnx_out *o, const char *name, const struct ew_type *type);
ew_status ew_onnx_write_data(struct ew_onnx_out *o, const void *bytes, size_t len);

/* ---- save_quant.c ---- */

/* The quantised constant v [N,K] as an f32 value named `out`. */
ew_status ew_onnx_save_dequantized(struct ew_onnx_out *o, const struct ew_value *v,
                                   const char *out);
/* x W^T named `out` by the int4 plugin. *done false: the weight has no such form, nothing was
 * written. */
ew_status ew_onnx_save_int4(struct ew_onnx_out *o, const struct ew_value *v, const char *x,
                            const char *out, bool *done);
/* What x_quant of the Linear n does to x, whose name *x becomes. */
ew_status ew_onnx_save_x_quant(struct ew_onnx_out *o, const struct ew_node *n, const char **x);
/* The node of a dynamic quantiser: codes and scales. */
ew_status ew_onnx_save_block_quantize(struct ew_onnx_out *o, int32_t kind, int64_t block,
                                      const char *const *in, size_t n_in, const char *const *out);

/* ---- save_ops.c, save_llm.c ---- */

/* The node that was put last is of this domain. */
ew_status ew_onnx_last_domain(struct ew_onnx_out *o, const char *domain);

ew_status ew_onnx_save_node(struct ew_onnx_out *o, const struct ew_node *n);
ew_status ew_onnx_save_linear(struct ew_onnx_out *o, const struct ew_node *n);
ew_status ew_onnx_save_rms_norm(struct ew_onnx_out *o, const struct ew_node *n);
ew_status ew_onnx_save_swish(struct ew_onnx_out *o, const struct ew_node *n);
ew_status ew_onnx_save_attention(struct ew_onnx_out *o, const struct ew_node *n);
ew_status ew_onnx_save_moe(struct ew_onnx_out *o, const struct ew_node *n);

#endif

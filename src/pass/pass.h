/* pass/pass.h - rewrites of a graph, in their fixed order.
 *
 * A pass leaves a graph that verifies, computes the same numbers (one rounding less where two ops
 * become one, none more) and finds nothing to do when run again. Nothing here knows a device. */
#ifndef EW_PASS_H
#define EW_PASS_H

#include "graph/ir.h"

enum ew_passes_flags {
    EW_PASSES_NO_FUSION = 1u << 0, /* fold, simplify and the change of activations to f32 alone */
};

/* Every pass in order, then a verification. On failure the graph must not be used again. */
ew_status ew_passes_run(struct ew_graph *g, uint32_t flags, const ew_logger *log, ew_error *err);
/* Type of the inputs past_key_values_* (and with them of the outputs that alias them): f32, f16,
 * bf16, f8e4m3 or i8, whose rows are wider (ew_kv_row_width). */
ew_status ew_pass_set_kv_dtype(struct ew_graph *g, ew_dtype dtype, ew_error *err);

/* Whether a graph input is a KV cache, by its name. */
bool ew_pass_is_cache(const struct ew_value *v);

/* ---- the passes; *n_changes is counted up ---- */
typedef ew_status ew_pass_fn(struct ew_graph *g, size_t *n_changes, ew_error *err);
ew_pass_fn ew_pass_fold;             /* constants and shape arithmetic */
ew_pass_fn ew_pass_simplify;         /* ops that do nothing, pairs that cancel */
ew_pass_fn ew_pass_half_to_f32;      /* f16/bf16 activations of a language model become f32 */
ew_pass_fn ew_pass_recognise_linear; /* MatMul, Gemm with a constant -> Linear, no copy; + bias */
ew_pass_fn ew_pass_lower_x_quant;    /* Q and DQ of x before a quantised weight -> x_quant */
ew_pass_fn ew_pass_recognise_norm;   /* chains and RMSNormalization -> FusedRmsNorm */
ew_pass_fn ew_pass_recognise_act;    /* x * Sigmoid(x) -> Swish; erf and tanh forms -> Gelu */
ew_pass_fn ew_pass_fuse_qk_norm;     /* norms of q and k -> attributes of KvAttention */
ew_pass_fn ew_pass_fuse_qkv;         /* three Linears -> one, packed */
ew_pass_fn ew_pass_fuse_glu;         /* act(gate) * up -> Linear glu */
ew_pass_fn ew_pass_fuse_epilogue; /* scale, softcap, activation, residual -> Linear, FusedRmsNorm */
ew_pass_fn ew_pass_fuse_pointwise; /* what is left of elementwise chains -> Pointwise */

#endif

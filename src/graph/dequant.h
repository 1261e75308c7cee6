/* graph/dequant.h - the quantised constant that a DequantizeLinear over constants stands for.
 *
 * Owns the translation of ONNX's scales and zero points (per tensor, per axis, in blocks, scales
 * that are quantised themselves) to tensor/quant.h. Which nodes to translate is the callers'. */
#ifndef EW_GRAPH_DEQUANT_H
#define EW_GRAPH_DEQUANT_H

#include "graph/ir.h"

/* dq: a DequantizeLinear of a matrix [N,K] (is_kn: [K,N]). *out: the same weight as a quantised
 * constant f32[N,K] that reads the node's constants where they are. *out NULL: it has no such form
 * (not constant, scales along N in blocks or per K, blocks that are no multiple of 8, e5m2fnuz and
 * the like) and the node stays. What the node rounds to half is a reason too, but not in a language
 * model, which computes in f32. Fails only without memory. The graph is not changed but for the new
 * constant. */
ew_status ew_graph_quant_of(struct ew_graph *g, const struct ew_node *dq, bool is_kn,
                            struct ew_value **out, ew_error *err);

#endif

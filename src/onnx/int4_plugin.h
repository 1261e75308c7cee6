/* onnx/int4_plugin.h - the weight of Int4GroupwiseGemmPlugin: packing both ways, and reading it. */
#ifndef EW_ONNX_INT4_PLUGIN_H
#define EW_ONNX_INT4_PLUGIN_H

#include "base/arena.h"
#include "tensor/quant.h"

/* Four output channels of the weight of Int4GroupwiseGemmPlugin: q[4][k], values 0..15, to 2*k
 * bytes (int16 [k] in little-endian order). k: a multiple of 64. */
void ew_onnx_int4_pack(uint8_t *dst, const uint8_t *q, size_t k);
/* The inverse. */
void ew_onnx_int4_unpack(uint8_t *q, const uint8_t *packed, size_t k);
/* A source of weight [n][k] over the plugin's tensors (borrowed): packed i8 [n/2][k] and scales of
 * dtype [k/group][n]. n: a multiple of 4. In the arena; NULL: out of memory. */
struct ew_quant_source *ew_onnx_int4_source(struct ew_arena *arena, const char *name, size_t n,
                                            size_t k, uint32_t group, const void *packed,
                                            const void *scales, ew_dtype scale_dtype);

#endif

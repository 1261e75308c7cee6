/* checkpoint/kv_scales.h - the KV cache in a checkpoint: the dtype its quantisation config asks
 * for, and the static scales of K and V. Private to checkpoint/. */
#ifndef EW_CHECKPOINT_KV_SCALES_H
#define EW_CHECKPOINT_KV_SCALES_H

#include "checkpoint/config.h"
#include "checkpoint/weights.h"

/* Scales of a layer's K and V as a constant f32 [2, heads] (input 12 of KvAttention), from
 * `self_attn.k_proj.k_scale` and `v_proj.v_scale` (ModelOpt) or `self_attn.k_scale` and `v_scale`
 * (compressed-tensors): one number, or one a head, of any float dtype. *out NULL: there are none.
 * Scales of the query count as used and are ignored. Tensors of a wrong size, or not above 0, are
 * refused by name. */
ew_status ew_kv_scales_add(struct ew_weights *w, int64_t layer, int64_t heads,
                           struct ew_value **out, ew_error *err);

/* f8e4m3 or i8 when config.json (kv_cache_scheme, kv_cache_quant_algo) or hf_quant_config.json in
 * `dir` asks for such a cache, else f32. A scheme that is not known is warned about. */
ew_status ew_kv_dtype_find(const char *dir, const struct ew_config *c, const ew_logger *logger,
                           ew_dtype *out, ew_error *err);

#endif

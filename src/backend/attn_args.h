/* backend/attn_args.h - a KvAttention node as arguments of kernels/attention.h: mode from shapes
 * (EDGE-LLM rules), sizes checked again because kernels trust them. */
#ifndef EW_BACKEND_ATTN_ARGS_H
#define EW_BACKEND_ATTN_ARGS_H

#include "backend/backend.h"

/* Everything but q_work and out. in: q, k and v in f32 (k and v NULL when packed); norms: weights
 * of the QK-norm in f32 or NULL. a->b or a->s 0: nothing to do, the rest is not set. Addresses are
 * the views' own. */
ew_status ew_attn_args_from_node(const struct ew_emit *e, const float *const in[3],
                                 const float *const norms[2], struct ew_attn_args *a,
                                 ew_error *err);
/* What a step reads and writes at most. */
uint64_t ew_attn_step_bytes(const struct ew_emit *e, const struct ew_attn_args *a);
static inline uint64_t ew_attn_step_flops(const struct ew_attn_args *a)
{
    return 4ull * a->b * a->s * a->hq * a->d * a->cap;
}

/* True when every position that a kernel will touch lies in the cache and the RoPE table: lengths,
 * starts and positions of `a` are read here, so they are the host's. Otherwise *row needs *need. */
bool ew_attn_lengths_ok(const struct ew_attn_args *a, size_t *row, int64_t *need);

#endif

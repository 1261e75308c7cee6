/* kernels/cuda/attention_cuda.h - KvAttention on a GPU: kernels/attention.h as launches.
 *
 *   DECODE          one launch: norm, RoPE, append, attention over splits of the cache, merge
 *   TREE, few rows  prep, then the same split kernel over all rows of a kv head
 *   otherwise       prep, then flash attention by blocks of query rows
 *   any head size that tensor cores cannot take: prep, then a plain kernel
 *
 * Numbers: scores and sums f32. Queries go into tensor cores as two short floats (hi + lo), except
 * in flash attention over an f16 or bf16 cache, where they are rounded once to the cache's type;
 * probabilities likewise. An f32 cache is read as two bf16 numbers.
 *
 * Bit contract, weaker than attention.h's: the output of a query depends on its q and on the cache
 * it sees alone, not on the batch, S, padding or who computes beside it, within one of {DECODE},
 * {TREE}, {PREFILL, CHUNKED}. Between those the last bits may differ.
 *
 * Lengths, start indices, masks and positions are read on the device; the launches hold for every
 * value of them that the shapes allow. A row whose lengths do not fit the cache or the RoPE table
 * writes nothing outside them; checking them is the caller's. They must not be written by a launch
 * of the same early_start chain: prefetches read them before griddepcontrol.wait. */
#ifndef EW_KERNELS_CUDA_ATTENTION_H
#define EW_KERNELS_CUDA_ATTENTION_H

#include "base/error.h"
#include "kernels/attention.h"
#include "kernels/cuda/kernel.h"

#define EW_CUDA_ATTN_LAUNCHES 2
/* u32 words at `counters`, a row of the batch. */
#define EW_CUDA_ATTN_COUNTERS(hkv, s) ((size_t)(hkv)*4u)

struct ew_cuda_attn {
    struct ew_attn_args a; /* every pointer a device address; q_work is not read. d <= 256 */
    void *out_bf16;        /* [b*s][hq*d] bf16, dense: the output once more for a GEMM, or NULL */
    void *work;            /* ew_cuda_attn_work_bytes, 256-byte aligned; contents do not matter */
    uint32_t *counters;    /* b * EW_CUDA_ATTN_COUNTERS words: zero before the first launch of all,
                              left zero by each. Launches of one stream may share them */
};

/* Depends on shapes, dtypes and the chip alone. */
size_t ew_cuda_attn_work_bytes(const struct ew_cuda_attn *p, const struct ew_cuda_chip *chip);
/* Fills *n launches. UNSUPPORTED says what: a head size above 256, a dtype of the cache. */
ew_status ew_cuda_attn_plan(const struct ew_cuda_attn *p, const struct ew_cuda_chip *chip,
                            struct ew_cuda_launch out[EW_CUDA_ATTN_LAUNCHES], size_t *n,
                            ew_error *err);

#endif

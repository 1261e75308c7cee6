/* kernels/cuda/attention_cuda.h - KvAttention on a GPU: kernels/attention.h as launches.
 *
 *   up to 64 tokens a batch row, and DECODE of more heads than the chip has multiprocessors
 *                     one launch: norm, RoPE, append, attention over chunks of the cache, sum
 *                     (attention_few.cu)
 *   DECODE            one launch: the same, made for few heads (attention_split.cu)
 *   TREE, few rows, where the QK-norm is of all heads together
 *                     prep, then that kernel over all rows of a kv head, 16 at a time
 *   otherwise         prep, then flash attention by blocks of query rows: warp groups on sm_90
 *                     (f16 and bf16 caches, heads of 64 and 128), single warps elsewhere
 *   head sizes that are no multiple of 16, or tiles that the chip has no room for: prep, then a
 *                     plain kernel
 *
 * Numbers: scores and sums f32. Few rows: queries and probabilities go into tensor cores as two
 * short floats, hi + lo, an f32 cache is read as two bf16 numbers: as good as f32. Flash attention
 * over a cache of 16 or 8 bits rounds queries and probabilities once, to f16 for an f16 cache, else
 * to bf16. The plain kernel is f32 throughout.
 *
 * Bit contract, weaker than attention.h's: the output of a query depends on its q, on the cache it
 * sees and on the shapes alone, not on padding or who computes beside it. With DECODE of few heads
 * and more than 64 tokens it does not depend on the batch or S either, within one of {DECODE},
 * {TREE at one length}, {PREFILL, CHUNKED}. Otherwise the last bits may differ. A NaN or infinity
 * in the cache may reach queries that do not see it, when they see neighbours of its tile.
 *
 * Lengths, start indices, masks and positions are read on the device; the launches hold for every
 * value of them that the shapes allow. A row whose lengths do not fit the cache or the RoPE table
 * writes nothing outside them; checking them is the caller's.
 *
 * Early start: what runs in one launch reads lengths, positions, RoPE, norm weights and all cache
 * rows but new ones before griddepcontrol.wait. Nothing of a chain of early starts that it is in
 * may write those: lengths are set by a launch that is fully ordered before the chain, and steps of
 * several tokens put one full dependency between tokens. */
#ifndef EW_KERNELS_CUDA_ATTENTION_H
#define EW_KERNELS_CUDA_ATTENTION_H

#include "base/error.h"
#include "kernels/attention.h"
#include "kernels/cuda/attention_args.cuh"
#include "kernels/cuda/kernel.h"

#define EW_CUDA_ATTN_LAUNCHES 2
/* u32 words at `counters`, a row of the batch. */
#define EW_CUDA_ATTN_COUNTERS(hkv, s) ((size_t)(hkv) * ((s) == 1 ? 4u : EW_ATTN_FEW_BLOCKS))

struct ew_cuda_attn {
    struct ew_attn_args a; /* every pointer a device address; q_work is not read. d <= 256 */
    void *out_bf16;        /* [b*s][hq*d] bf16, dense: the output for a GEMM, or NULL. Beside a.out,
                              or alone: a.out is NULL then */
    ew_dtype x_short; /* NONE: q, k and v are f32. F16 or BF16, where ew_cuda_attn_takes_short: rows
                         of that, [b*s][hq + 2 hkv][d] at a.q */
    void *work;       /* ew_cuda_attn_work_bytes, 256-byte aligned; contents do not matter */
    uint32_t *counters; /* b * EW_CUDA_ATTN_COUNTERS words: zero before the first launch of all,
                           left zero by each. Launches of one stream may share them */
};

/* Depends on shapes, dtypes and the chip alone. */
size_t ew_cuda_attn_work_bytes(const struct ew_cuda_attn *p, const struct ew_cuda_chip *chip);
/* Whether x_short may be F16 or BF16: on sm_90, with a cache of that, for many rows. */
bool ew_cuda_attn_takes_short(const struct ew_cuda_chip *chip, ew_dtype kv_dtype, size_t s,
                              size_t head_size);
/* Fills *n launches. UNSUPPORTED says what: a head size above 256, a dtype of the cache. */
ew_status ew_cuda_attn_plan(const struct ew_cuda_attn *p, const struct ew_cuda_chip *chip,
                            struct ew_cuda_launch out[EW_CUDA_ATTN_LAUNCHES], size_t *n,
                            ew_error *err);

#endif

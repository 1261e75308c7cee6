/* kernels/attention.h - attention over the linear KV cache (op KvAttention).
 *
 * Two passes with a barrier between them:
 *   prep: per token: QK-norm, RoPE (NeoX halves on the first rd dims, f32), write K and V to the
 * cache, put the rotated query into q_work run:  per (batch row, kv head, block of queries):
 * softmax(scale * q k^T) v over what the query may see
 * Mode DECODE needs no pass before it: `decode` does both for one part of one (batch row, kv head),
 * and `join` puts the parts together.
 *
 * Modes (ew_attn_mode) and the meaning of context_lengths[b] =: c, start_index[b] =: s0 (0 if
 * NULL), row i of S: PREFILL  start_index NULL: c new tokens, position and slot i, sees [0, i];
 * rows i >= c are padding CHUNKED  c new tokens, position and slot s0+i, sees [0, s0+i]; rows i >=
 * c are padding DECODE   S == 1, c = total length with this token: position and slot c-1, sees [0,
 * c-1] TREE     c = s0 + tree size: position pos_id[b][i], slot s0+i, sees [0, s0) and tree rows j
 * whose mask bit (word j/32, bit j%32 of mask[b][i]) is set; pos_id -1 = padding row Padding rows
 * write nothing to the cache and give zeros. A slot >= cap is never written (the caller checked;
 * the kernel drops it). Sliding window w > 0: of what it sees, only positions > own position - w.
 * q, k, v, out and all arithmetic are f32. NaN/inf propagate.
 *
 * The cache holds rows of one token and head, after norm and RoPE (the Bit contract below reads
 * what was stored, never what was to be stored, so a prompt sees its own keys and values
 * quantised): f32, f16, bf16  D elements f8e4m3          D codes; code = e4m3(x * (1 / scale)),
 * nearest even, saturated at +-448; x = code * scale, scale = kv_scale[K or V][kv head], static i8
 * D codes, then their scale as 4 bytes of a little-endian f32: row of D + 4 bytes; scale = max|x| /
 * 127, code = x / scale to nearest even (0 where scale is 0); a row that holds NaN or infinity gets
 * the scale NaN and codes 0 Kernels multiply codes and apply the scales to scores and
 * probabilities.
 *
 * Bit contract: the output of a query depends on its q and the cache it sees alone: not on S, the
 * batch, the mode or the threads (prefill of a prompt in any chunks gives the same bits as token by
 * token). Keys are taken in blocks of EW_ATTN_BLOCK positions aligned to slot 0, softmax running
 * maximum updated once a block; blocks are summed up in segments of EW_ATTN_SEGMENT positions, also
 * aligned to slot 0, and the segments added in their order.
 *
 * Error against `ref`: sums of f32. A kernel with short_error > 0 rounds q, and what it reads from
 * a cache that is not f32, once more: by up to short_error of the length of the row (q, K) or of
 * its largest element (V), probabilities by that much of their sum over a block. An f32 cache is
 * exact to f32 everywhere. */
#ifndef EW_KERNELS_ATTENTION_H
#define EW_KERNELS_ATTENTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "edgewise/base.h"

#define EW_ATTN_BLOCK   64
#define EW_ATTN_SEGMENT 512

enum ew_attn_mode { EW_ATTN_PREFILL = 0, EW_ATTN_CHUNKED, EW_ATTN_DECODE, EW_ATTN_TREE };

struct ew_attn_args {
    enum ew_attn_mode mode;
    size_t b, s, hq, hkv, d; /* batch, rows per batch row, query heads, kv heads, head size */
    const float *q, *k,
        *v; /* token t = b*S+i at [t * stride]; packed qkv: three pointers into one */
    size_t q_stride, k_stride, v_stride;
    void *kv; /* [b][2][hkv][cap] rows of kv_dtype */
    ew_dtype kv_dtype;
    const float *kv_scale; /* f8e4m3: [2][hkv], of K and then of V; NULL: 1. Ignored otherwise */
    size_t cap;
    const float *rope;        /* [1|b][rope_rows][rd]: cos[rd/2] sin[rd/2]; NULL: no positions */
    size_t rope_batch_stride; /* floats; 0: shared by all rows */
    size_t rope_rows, rd;
    const int32_t *context_lengths; /* [b] */
    const int32_t *start_index;     /* [b] or NULL */
    const uint32_t *mask;           /* TREE: [b][s][mask_words] */
    size_t mask_words;
    const int32_t *pos_id; /* TREE: [b][s] */
    const float *q_norm,
        *k_norm; /* weights of the QK-norm or NULL: [d], or [hq*d] / [hkv*d] when qk_norm_full */
    bool qk_norm_full;
    float qk_norm_eps;
    float scale, softcap; /* softcap 0: off */
    int64_t window;       /* <= 0: off */
    float *q_work;        /* [b*s][hq*d]; not read by decode */
    float *parts;         /* decode: part_bytes, 64-byte aligned; NULL while n_parts is 1 */
    float *out;           /* token t at [t * out_stride], hq*d floats */
    size_t out_stride;
};

struct ew_attn_kernel {
    const char *name;
    uint32_t cpu_need;
    float short_error;
    /* Tokens [begin, end) of b*s. */
    void (*prep)(const struct ew_attn_args *a, size_t begin, size_t end);
    /* Units of the run pass; a unit is (batch row, kv head, query block). Depends on shapes only.
     */
    size_t (*n_units)(const struct ew_attn_args *a);
    size_t (*scratch_bytes)(const struct ew_attn_args *a); /* per thread */
    void (*run)(const struct ew_attn_args *a, size_t begin, size_t end, void *scratch);
    /* Mode DECODE, instead of prep and run; all NULL where a kernel has no such way. Units are the
     * b * hkv (batch row, kv head) in that order; a unit has n_parts parts, segments of the cache,
     * which may run in any order on any thread. When n_parts > 1 whoever is last calls join. */
    size_t (*n_parts)(const struct ew_attn_args *a);    /* reads context_lengths; >= 1 */
    size_t (*part_bytes)(const struct ew_attn_args *a); /* for the cache filled to cap */
    void (*decode)(const struct ew_attn_args *a, size_t unit, size_t part, size_t n_parts,
                   void *scratch);
    void (*join)(const struct ew_attn_args *a, size_t unit, size_t n_parts, void *scratch);
};
const struct ew_attn_kernel *const *ew_attn_kernels(size_t *n);
const struct ew_attn_kernel *ew_attn_kernel_find(const char *name);

#endif

/* kv/cache.h - the linear KV cache: for each layer one block
 * [max_batch][2][kv_heads][cap][head_dim].
 *
 * Owns the pages and how many tokens each row holds. Does not know tokens, requests or positions.
 * Attention writes a step's keys and values at slots lengths[row].. itself; commit() then says that
 * they count. Rows are dense: active rows are 0..n-1, and compact() moves survivors down. Pages are
 * mapped at create and touched on first write.
 *
 * Not thread safe. Nothing allocates after create except save. */
#ifndef EW_KV_CACHE_H
#define EW_KV_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "edgewise/memory.h"

struct ew_kv_layer {
    uint32_t kv_heads, head_dim;
    char *data;       /* of the cache's memory: [max_batch][2][kv_heads][cap][head_dim] */
    size_t row_bytes; /* of one batch row */
};

struct ew_kv {
    uint32_t n_layers, max_batch, cap;
    ew_dtype dtype;
    size_t elem_bytes;
    size_t total_bytes;
    struct ew_kv_layer *layers;
    int32_t *lengths;        /* [max_batch] tokens held; readable as kvcache_start_index */
    const ew_memory *memory; /* where the layers are */
};

/* heads and dims: [n_layers]; dims are elements of a stored row, an i8 one's scale included.
 * dtype: f32, f16, bf16, f8e4m3 or i8. Rows are moved whole: what is in them does not matter. */
ew_status ew_kv_create(uint32_t n_layers, const uint32_t *heads, const uint32_t *dims,
                       uint32_t max_batch, uint32_t cap, ew_dtype dtype, struct ew_kv **out,
                       ew_error *err);
/* The same in the memory of a device, which must outlive the cache. */
ew_status ew_kv_create_in(const ew_memory *memory, uint32_t n_layers, const uint32_t *heads,
                          const uint32_t *dims, uint32_t max_batch, uint32_t cap, ew_dtype dtype,
                          struct ew_kv **out, ew_error *err);
void ew_kv_destroy(struct ew_kv *kv); /* NULL is fine */

/* Where row `row` of a layer starts: binding it makes `row` the first row of a step. */
static inline void *ew_kv_row(const struct ew_kv *kv, uint32_t layer, uint32_t row)
{
    return kv->layers[layer].data + kv->layers[layer].row_bytes * row;
}

/* Tokens just written count. LIMIT when the row would pass the capacity. */
ew_status ew_kv_commit(struct ew_kv *kv, uint32_t row, uint32_t n, ew_error *err);
/* Back (never forward) to len tokens; INVALID_ARG otherwise. */
ew_status ew_kv_rewind(struct ew_kv *kv, uint32_t row, uint32_t len, ew_error *err);
/* Rows leave: map[old] = new row (<= old, each at most once) or -1, for old rows 0..n-1. Copies
 * only what is used; rows of the old range that nothing moved to become empty. */
ew_status ew_kv_compact(struct ew_kv *kv, const int32_t *map, uint32_t n, ew_error *err);
/* A verified tree sits at slots len..len+n_tree-1. accepted[0..n): strictly ascending tree rows
 * that stay; they move to len..len+n-1 and count. */
ew_status ew_kv_commit_tree(struct ew_kv *kv, uint32_t row, const int32_t *accepted, uint32_t n,
                            uint32_t n_tree, ew_error *err);

/* Bytes that `len` tokens of one row take in all layers. */
size_t ew_kv_tokens_bytes(const struct ew_kv *kv, uint32_t len);
/* The first len tokens of a row into / out of a block of the host's, of
 * ew_kv_tokens_bytes(saved_len) bytes. load takes the first len <= saved_len tokens and sets the
 * row's length. The caller checked the ranges: only a device can fail. */
ew_status ew_kv_save(const struct ew_kv *kv, uint32_t row, uint32_t len, void *block);
ew_status ew_kv_load(struct ew_kv *kv, uint32_t row, const void *block, uint32_t saved_len,
                     uint32_t len);

#endif

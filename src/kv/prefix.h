/* kv/prefix.h - store of saved prefixes: token ids -> their keys and values, capped in bytes, least
 * recently used leaves first.
 *
 * An entry is found by exact ids: find() returns the entry that shares the longest run of first
 * tokens with a prompt. `salt` separates what must not mix (RoPE regime, adapter). Belongs to one
 * cache shape. Not thread safe. */
#ifndef EW_KV_PREFIX_H
#define EW_KV_PREFIX_H

#include "kv/cache.h"

struct ew_prefix_entry;
struct ew_prefix_store {
    struct ew_prefix_entry *head; /* most recently used first */
    size_t used_bytes, cap_bytes;
    uint32_t n_entries;
};

void ew_prefix_init(struct ew_prefix_store *s, size_t cap_bytes);
void ew_prefix_deinit(struct ew_prefix_store *s);
/* Copies the first n tokens of a row. A prefix that is there already is only marked as used. LIMIT
 * when it alone is over the cap (nothing changes), NO_MEMORY. */
ew_status ew_prefix_save(struct ew_prefix_store *s, const struct ew_kv *kv, uint32_t row,
                         uint64_t salt, const int32_t *ids, uint32_t n, ew_error *err);
/* Loads the longest common run, at most max_len tokens, into the row; returns its length (0:
 * nothing, row untouched). */
uint32_t ew_prefix_load(struct ew_prefix_store *s, struct ew_kv *kv, uint32_t row, uint64_t salt,
                        const int32_t *ids, uint32_t n, uint32_t max_len);

#endif

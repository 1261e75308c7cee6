/* base/hash.h - XXH3 behind our names, and one open-addressing map from bytes to u32. */
#ifndef EW_BASE_HASH_H
#define EW_BASE_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"

uint64_t ew_hash64(const void *bytes, size_t len, uint64_t seed);
struct ew_hash128 {
    uint64_t lo;
    uint64_t hi;
};
struct ew_hash128 ew_hash128(const void *bytes, size_t len, uint64_t seed);

/* Map from byte strings to u32. Keys are borrowed: they must outlive the map. */
struct ew_map_slot {
    const char *key;
    uint32_t len;
    uint32_t value;
    uint64_t hash;
};
struct ew_map {
    struct ew_map_slot *slots;
    size_t n_slots; /* power of two, 0 before the first put */
    size_t n_used;
    enum ew_mem_tag tag;
};
void ew_map_init(struct ew_map *m, enum ew_mem_tag tag);
void ew_map_deinit(struct ew_map *m);
/* False when out of memory. Replaces the value of a key that is there. */
bool ew_map_put(struct ew_map *m, const char *key, size_t len, uint32_t value);
bool ew_map_find(const struct ew_map *m, const char *key, size_t len, uint32_t *value);

#endif

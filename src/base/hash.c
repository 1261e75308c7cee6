/* base/hash.c - XXH3 and the byte-string map (linear probing, grown at 2/3 full). */
#include "base/hash.h"

#include <string.h>
#include <xxhash.h>

uint64_t ew_hash64(const void *bytes, size_t len, uint64_t seed)
{
    return XXH3_64bits_withSeed(bytes, len, seed);
}

struct ew_hash128 ew_hash128(const void *bytes, size_t len, uint64_t seed)
{
    const XXH128_hash_t h = XXH3_128bits_withSeed(bytes, len, seed);

    return (struct ew_hash128){ h.low64, h.high64 };
}

void ew_map_init(struct ew_map *m, enum ew_mem_tag tag)
{
    *m = (struct ew_map){ .tag = tag };
}

void ew_map_deinit(struct ew_map *m)
{
    ew_mem_free(m->slots);
    m->slots = NULL;
    m->n_slots = m->n_used = 0;
}

static struct ew_map_slot *find_slot(const struct ew_map *m, const char *key, size_t len,
                                     uint64_t hash)
{
    size_t i = (size_t)hash & (m->n_slots - 1);

    while (m->slots[i].key) {
        struct ew_map_slot *const s = &m->slots[i];
        if (s->hash == hash && s->len == len && memcmp(s->key, key, len) == 0)
            return s;
        i = (i + 1) & (m->n_slots - 1);
    }
    return &m->slots[i];
}

static bool grow(struct ew_map *m)
{
    struct ew_map next = { .n_slots = m->n_slots ? m->n_slots * 2 : 64, .tag = m->tag };

    next.slots = ew_mem_calloc(m->tag, next.n_slots, sizeof(*next.slots));
    if (!next.slots)
        return false;
    for (size_t i = 0; i < m->n_slots; i++) {
        const struct ew_map_slot *const s = &m->slots[i];
        if (s->key)
            *find_slot(&next, s->key, s->len, s->hash) = *s;
    }
    next.n_used = m->n_used;
    ew_mem_free(m->slots);
    *m = next;
    return true;
}

bool ew_map_put(struct ew_map *m, const char *key, size_t len, uint32_t value)
{
    const uint64_t hash = ew_hash64(key, len, 0);
    struct ew_map_slot *s;

    if (len > UINT32_MAX || (m->n_used * 3 >= m->n_slots * 2 && !grow(m)))
        return false;
    s = find_slot(m, key, len, hash);
    m->n_used += s->key == NULL;
    *s = (struct ew_map_slot){ key, (uint32_t)len, value, hash };
    return true;
}

bool ew_map_find(const struct ew_map *m, const char *key, size_t len, uint32_t *value)
{
    const struct ew_map_slot *s;

    if (!m->n_slots)
        return false;
    s = find_slot(m, key, len, ew_hash64(key, len, 0));
    if (!s->key)
        return false;
    *value = s->value;
    return true;
}

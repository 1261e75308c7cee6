/* kv/prefix.c - the list of saved prefixes. A linear search: entries are few (system prompts) and
 * the comparison stops at the first token that differs. */
#include "kv/prefix.h"

#include <string.h>

#include "base/mem.h"
#include "base/size.h"

struct ew_prefix_entry {
    struct ew_prefix_entry *next;
    uint64_t salt;
    size_t bytes;
    uint32_t n;
    int32_t *ids; /* [n], after the struct; the block of the cache follows */
    char *block;
};

void ew_prefix_init(struct ew_prefix_store *s, size_t cap_bytes)
{
    *s = (struct ew_prefix_store){ .cap_bytes = cap_bytes };
}

void ew_prefix_deinit(struct ew_prefix_store *s)
{
    while (s->head) {
        struct ew_prefix_entry *e = s->head;

        s->head = e->next;
        ew_mem_free(e);
    }
    s->used_bytes = 0;
    s->n_entries = 0;
}

/* Moves *link to the front. */
static void touch(struct ew_prefix_store *s, struct ew_prefix_entry **link)
{
    struct ew_prefix_entry *e = *link;

    *link = e->next;
    e->next = s->head;
    s->head = e;
}

static void drop_last(struct ew_prefix_store *s)
{
    struct ew_prefix_entry **link = &s->head;

    while ((*link)->next)
        link = &(*link)->next;
    s->used_bytes -= (*link)->bytes;
    s->n_entries--;
    ew_mem_free(*link);
    *link = NULL;
}

ew_status ew_prefix_save(struct ew_prefix_store *s, const struct ew_kv *kv, uint32_t row,
                         uint64_t salt, const int32_t *ids, uint32_t n, ew_error *err)
{
    size_t ids_bytes = ew_align_up((size_t)n * sizeof(*ids), 16);
    size_t head = ew_align_up(sizeof(struct ew_prefix_entry), 16);
    struct ew_prefix_entry *e;
    size_t bytes;
    ew_status st;

    if (row >= kv->max_batch || n == 0 || n > (uint32_t)kv->lengths[row])
        return ew_fail(err, EW_STATUS_INVALID_ARG, "saved prefix: %u tokens of row %u", n, row);
    for (struct ew_prefix_entry **l = &s->head; *l; l = &(*l)->next)
        if ((*l)->salt == salt && (*l)->n == n && memcmp((*l)->ids, ids, n * sizeof(*ids)) == 0) {
            touch(s, l);
            return EW_STATUS_OK;
        }
    bytes = head + ids_bytes + ew_kv_tokens_bytes(kv, n);
    if (bytes > s->cap_bytes)
        return ew_fail(err, EW_STATUS_LIMIT,
                       "saved prefix: %u tokens take %zu bytes, the store holds %zu", n, bytes,
                       s->cap_bytes);
    e = ew_mem_alloc(EW_MEM_KV, bytes);
    if (!e)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "saved prefix of %u tokens", n);
    while (s->used_bytes + bytes > s->cap_bytes)
        drop_last(s);
    e->salt = salt;
    e->bytes = bytes;
    e->n = n;
    e->ids = (int32_t *)(void *)((char *)e + head);
    e->block = (char *)e + head + ids_bytes;
    memcpy(e->ids, ids, n * sizeof(*ids));
    st = ew_kv_save(kv, row, n, e->block);
    if (st) {
        ew_mem_free(e);
        return ew_fail(err, st, "saved prefix of %u tokens: the device gave nothing back", n);
    }
    e->next = s->head;
    s->head = e;
    s->used_bytes += bytes;
    s->n_entries++;
    return EW_STATUS_OK;
}

uint32_t ew_prefix_load(struct ew_prefix_store *s, struct ew_kv *kv, uint32_t row, uint64_t salt,
                        const int32_t *ids, uint32_t n, uint32_t max_len)
{
    struct ew_prefix_entry **best = NULL;
    uint32_t best_len = 0;

    if (max_len > n)
        max_len = n;
    for (struct ew_prefix_entry **l = &s->head; *l; l = &(*l)->next) {
        const uint32_t limit = (*l)->n < max_len ? (*l)->n : max_len;
        uint32_t len = 0;

        if ((*l)->salt != salt)
            continue;
        while (len < limit && (*l)->ids[len] == ids[len])
            len++;
        if (len > best_len) {
            best = l;
            best_len = len;
        }
    }
    if (!best)
        return 0;
    if (ew_kv_load(kv, row, (*best)->block, (*best)->n, best_len))
        return 0; /* as if there were none; the device's next run says why */
    touch(s, best);
    return best_len;
}

/* base/mem.c - tagged heap allocation with counters. The counters are the only process-wide state
 * of the library; they are atomics that nothing but reports reads.
 *
 *   block: [ head: bytes, tag, pad to 16 ][ user bytes ... ]
 *
 * Aligned blocks keep the same head directly before the user's address. */
#include "base/mem.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"

struct head {
    uint64_t bytes;
    uint32_t tag;
    uint32_t back; /* bytes from the start of the libc block to the user's address */
};

_Static_assert(sizeof(struct head) == 16, "user memory stays 16-byte aligned");

static _Atomic uint64_t live[EW_MEM_TAG_COUNT];
static _Atomic uint64_t count;
static _Atomic uint64_t fail_at;

static int injected_failure(void)
{
    uint64_t k = atomic_load_explicit(&fail_at, memory_order_relaxed);

    if (k == 0)
        return 0;
    k = atomic_fetch_sub(&fail_at, 1);
    return k == 1;
}

static void *finish(void *block, size_t back, size_t bytes, enum ew_mem_tag tag)
{
    char *const user = (char *)block + back;
    struct head *const h = (struct head *)(void *)(user - sizeof(struct head));

    h->bytes = bytes;
    h->tag = (uint32_t)tag;
    h->back = (uint32_t)back;
    atomic_fetch_add_explicit(&live[tag], bytes, memory_order_relaxed);
    atomic_fetch_add_explicit(&count, 1, memory_order_relaxed);
    return user;
}

void *ew_mem_alloc(enum ew_mem_tag tag, size_t bytes)
{
    size_t total;
    void *block;

    if (!ew_size_add(bytes, sizeof(struct head), &total) || injected_failure())
        return NULL;
    block = malloc(total);
    return block ? finish(block, sizeof(struct head), bytes, tag) : NULL;
}

void *ew_mem_calloc(enum ew_mem_tag tag, size_t n, size_t bytes)
{
    size_t all, total;
    void *block;

    if (!ew_size_mul(n, bytes, &all) || !ew_size_add(all, sizeof(struct head), &total) ||
        injected_failure())
        return NULL;
    block = calloc(1, total);
    return block ? finish(block, sizeof(struct head), all, tag) : NULL;
}

void *ew_mem_resize(enum ew_mem_tag tag, void *p, size_t n, size_t bytes)
{
    struct head *h;
    size_t all, total;
    void *block;

    if (!p)
        return ew_size_mul(n, bytes, &all) ? ew_mem_alloc(tag, all) : NULL;
    if (!ew_size_mul(n, bytes, &all) || !ew_size_add(all, sizeof(struct head), &total) ||
        injected_failure())
        return NULL;
    h = (struct head *)(void *)((char *)p - sizeof(struct head));
    const uint64_t old_bytes = h->bytes;
    const uint32_t old_tag = h->tag;
    block = realloc(h, total);
    if (!block)
        return NULL;
    atomic_fetch_sub_explicit(&live[old_tag], old_bytes, memory_order_relaxed);
    return finish(block, sizeof(struct head), all, (enum ew_mem_tag)old_tag);
}

void ew_mem_free(void *p)
{
    struct head *h;

    if (!p)
        return;
    h = (struct head *)(void *)((char *)p - sizeof(struct head));
    atomic_fetch_sub_explicit(&live[h->tag], h->bytes, memory_order_relaxed);
    free((char *)p - h->back);
}

void *ew_mem_alloc_aligned(enum ew_mem_tag tag, size_t bytes, size_t align)
{
    size_t total;
    void *block;

    if (!ew_size_add(bytes, align, &total) || !ew_size_add(total, align, &total) ||
        injected_failure())
        return NULL;
    block = aligned_alloc(align, ew_align_up(total - align, align));
    if (!block)
        return NULL;
    memset((char *)block + align, 0, bytes);
    return finish(block, align, bytes, tag);
}

void ew_mem_free_aligned(void *p)
{
    ew_mem_free(p);
}

char *ew_mem_strndup(enum ew_mem_tag tag, const char *text, size_t len)
{
    size_t total;
    char *copy;

    if (!ew_size_add(len, 1, &total))
        return NULL;
    copy = ew_mem_alloc(tag, total);
    if (!copy)
        return NULL;
    memcpy(copy, text, len);
    copy[len] = '\0';
    return copy;
}

char *ew_mem_strdup(enum ew_mem_tag tag, const char *text)
{
    return ew_mem_strndup(tag, text, strlen(text));
}

void ew_mem_note(enum ew_mem_tag tag, int64_t bytes)
{
    atomic_fetch_add_explicit(&live[tag], (uint64_t)bytes, memory_order_relaxed);
}

uint64_t ew_mem_tag_bytes(enum ew_mem_tag tag)
{
    return tag < EW_MEM_TAG_COUNT ? atomic_load_explicit(&live[tag], memory_order_relaxed) : 0;
}

const char *ew_mem_tag_text(enum ew_mem_tag tag)
{
    static const char *const names[] = {
#define NAME(name, text) [EW_MEM_##name] = text,
        EW_MEM_TAG_MAP(NAME)
#undef NAME
    };

    return tag < EW_MEM_TAG_COUNT ? names[tag] : "?";
}

uint64_t ew_mem_count(void)
{
    return atomic_load_explicit(&count, memory_order_relaxed);
}

void ew_mem_fail_at(uint64_t k)
{
    atomic_store(&fail_at, k);
}

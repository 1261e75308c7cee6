/* base/arena.c - chunks of at least 64 KiB, doubling up to 4 MiB; big objects get a chunk of their
 * own. */
#include "base/arena.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/size.h"

#define FIRST_CHUNK   ((size_t)64 << 10)
#define LARGEST_CHUNK ((size_t)4 << 20)

struct ew_arena_chunk {
    struct ew_arena_chunk *next;
    size_t used;
    size_t cap;
    size_t pad; /* keeps the bytes after the struct 16-byte aligned */
};

_Static_assert(sizeof(struct ew_arena_chunk) % 16 == 0, "chunk bytes are aligned");

void ew_arena_init(struct ew_arena *a, enum ew_mem_tag tag, size_t cap_bytes)
{
    *a = (struct ew_arena){ .cap_bytes = cap_bytes, .tag = tag };
}

void ew_arena_deinit(struct ew_arena *a)
{
    struct ew_arena_chunk *c = a->head;

    while (c) {
        struct ew_arena_chunk *const next = c->next;
        ew_mem_free(c);
        c = next;
    }
    a->head = NULL;
    a->used_bytes = 0;
}

static struct ew_arena_chunk *grow(struct ew_arena *a, size_t bytes)
{
    size_t cap = a->head ? a->head->cap * 2 : FIRST_CHUNK;
    struct ew_arena_chunk *c;
    size_t total;

    cap = cap > LARGEST_CHUNK ? LARGEST_CHUNK : cap;
    cap = cap < bytes ? bytes : cap;
    if (!ew_size_add(cap, sizeof(*c), &total))
        return NULL;
    c = ew_mem_calloc(a->tag, 1, total);
    if (!c)
        return NULL;
    c->cap = cap;
    c->next = a->head;
    a->head = c;
    return c;
}

void *ew_arena_alloc(struct ew_arena *a, size_t bytes)
{
    struct ew_arena_chunk *c = a->head;
    size_t rounded, used;

    if (!ew_size_add(bytes, 15, &rounded))
        return NULL;
    rounded &= ~(size_t)15;
    if (!ew_size_add(a->used_bytes, rounded, &used) || (a->cap_bytes && used > a->cap_bytes))
        return NULL;
    if (!c || c->cap - c->used < rounded) {
        c = grow(a, rounded);
        if (!c)
            return NULL;
    }
    void *const p = (char *)(c + 1) + c->used;
    c->used += rounded;
    a->used_bytes = used;
    return p;
}

void *ew_arena_calloc(struct ew_arena *a, size_t n, size_t bytes)
{
    size_t all;

    return ew_size_mul(n, bytes, &all) ? ew_arena_alloc(a, all) : NULL;
}

char *ew_arena_strndup(struct ew_arena *a, const char *text, size_t len)
{
    size_t total;
    char *copy;

    if (!ew_size_add(len, 1, &total))
        return NULL;
    copy = ew_arena_alloc(a, total);
    if (copy && len)
        memcpy(copy, text, len);
    return copy;
}

char *ew_arena_strdup(struct ew_arena *a, const char *text)
{
    return ew_arena_strndup(a, text, strlen(text));
}

char *ew_arena_printf(struct ew_arena *a, const char *fmt, ...)
{
    va_list args;
    va_list again;
    char *text = NULL;

    va_start(args, fmt);
    va_copy(again, args);
    const int len = vsnprintf(NULL, 0, fmt, args);
    if (len >= 0)
        text = ew_arena_alloc(a, (size_t)len + 1);
    if (text)
        vsnprintf(text, (size_t)len + 1, fmt, again);
    va_end(again);
    va_end(args);
    return text;
}

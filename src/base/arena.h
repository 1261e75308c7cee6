/* base/arena.h - chunked bump allocator: things that live and die together (a graph, a parsed
 * file). No per-object free; destroy drops everything. Not thread safe. */
#ifndef EW_BASE_ARENA_H
#define EW_BASE_ARENA_H

#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"

struct ew_arena_chunk;
struct ew_arena {
    struct ew_arena_chunk *head;
    size_t used_bytes; /* handed out */
    size_t cap_bytes;  /* hard cap; 0 = none */
    enum ew_mem_tag tag;
};

void ew_arena_init(struct ew_arena *a, enum ew_mem_tag tag, size_t cap_bytes);
void ew_arena_deinit(struct ew_arena *a);
/* Zeroed, aligned to 16. NULL when out of memory or over the cap. */
void *ew_arena_alloc(struct ew_arena *a, size_t bytes);
/* Zeroed array with overflow check. */
void *ew_arena_calloc(struct ew_arena *a, size_t n, size_t bytes);
/* NUL-terminated copies. */
char *ew_arena_strndup(struct ew_arena *a, const char *text, size_t len);
char *ew_arena_strdup(struct ew_arena *a, const char *text);
char *ew_arena_printf(struct ew_arena *a, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#define ew_arena_new(a, type, n) ((type *)ew_arena_calloc((a), (n), sizeof(type)))

#endif

/* base/mem.h - heap memory by subsystem. Every allocation of the library goes through here, so
 * that `edgewise inspect` and ew_memory_bytes() can say who holds what, tests can count
 * allocations, and torture tests can make the k-th one fail.
 *
 * Thread safety: all functions, any thread. */
#ifndef EW_BASE_MEM_H
#define EW_BASE_MEM_H

#include <stddef.h>
#include <stdint.h>

/* clang-format off */
#define EW_MEM_TAG_MAP(X) \
    X(MISC, "misc") X(GRAPH, "graph") X(CHECKPOINT, "checkpoint") X(ONNX, "onnx")      \
    X(BUILD, "build") X(PLAN, "plan") X(ENGINE, "engine") X(CONTEXT, "context")         \
    X(KV, "kv cache") X(TEXT, "text") X(RUNTIME, "runtime") X(SAMPLE, "sample") X(EVAL, "eval") \
    X(GPU_WEIGHTS, "gpu weights") X(GPU, "gpu, rest") X(PINNED, "pinned for the gpu")
/* clang-format on */

enum ew_mem_tag {
#define EW_MEM_TAG_ENUM(name, text) EW_MEM_##name,
    EW_MEM_TAG_MAP(EW_MEM_TAG_ENUM)
#undef EW_MEM_TAG_ENUM
        EW_MEM_TAG_COUNT
};

/* n * bytes, zeroed, aligned to 16; NULL on overflow, n*bytes == 0 gives a valid unique pointer. */
void *ew_mem_calloc(enum ew_mem_tag tag, size_t n, size_t bytes);
/* Not zeroed. */
void *ew_mem_alloc(enum ew_mem_tag tag, size_t bytes);
/* Like realloc over n * bytes; on failure the old block is untouched. `p` may be NULL. */
void *ew_mem_resize(enum ew_mem_tag tag, void *p, size_t n, size_t bytes);
/* NULL is fine. */
void ew_mem_free(void *p);
char *ew_mem_strdup(enum ew_mem_tag tag, const char *text);
char *ew_mem_strndup(enum ew_mem_tag tag, const char *text, size_t len);

/* Zeroed, aligned to `align` (a power of two >= 64); freed with ew_mem_free_aligned. */
void *ew_mem_alloc_aligned(enum ew_mem_tag tag, size_t bytes, size_t align);
void ew_mem_free_aligned(void *p);

/* Bytes that others hold for us (a device's memory) come and go. */
void ew_mem_note(enum ew_mem_tag tag, int64_t bytes);
uint64_t ew_mem_tag_bytes(enum ew_mem_tag tag); /* live bytes now */
const char *ew_mem_tag_text(enum ew_mem_tag tag);
uint64_t ew_mem_count(void); /* allocations since start, all threads: for "0 allocations a step" */

/* Tests only: the k-th allocation from now fails (1 = the next); 0 turns it off. */
void ew_mem_fail_at(uint64_t k);

#endif

/* edgewise/memory.h - memory of the device that an engine runs on, for those who bind addresses in
 * it (a KV cache, tables that stay). On a CPU it is the host's. */
#ifndef EW_MEMORY_H
#define EW_MEMORY_H

#include "edgewise/base.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum ew_copy_kind {                     /* what the addresses of a copy are */
                            EW_COPY_DEVICE = 0, /* both of the device */
                            EW_COPY_UPLOAD,     /* from the host to the device */
                            EW_COPY_DOWNLOAD,   /* from the device to the host */
                            EW_COPY_FORCE32 = 0x7fffffff
} ew_copy_kind;

/* Borrowed from an engine. Calls are ordered with runs of its contexts as the caller sees them:
 * what a finished run wrote is there, and a run after a call sees what the call did. Any thread. */
typedef struct ew_memory {
    void *ctx;
    bool is_host; /* the host may read and write the addresses */
    /* Zeroed, aligned to 256 bytes. `what` is named when there is not enough. */
    ew_status (*alloc)(void *ctx, size_t bytes, const char *what, void **out, ew_error *err);
    void (*release)(void *ctx, void *p, size_t bytes);
    /* Host memory that copies to and from fastest (pinned). Zeroed. */
    ew_status (*alloc_host)(void *ctx, size_t bytes, const char *what, void **out, ew_error *err);
    void (*release_host)(void *ctx, void *p, size_t bytes);
    /* `height` pieces of `width` bytes, each `pitch` after the one before. No overlap. Done when it
     * returns. */
    ew_status (*copy)(void *ctx, ew_copy_kind kind, void *to, size_t to_pitch, const void *from,
                      size_t from_pitch, size_t width, size_t height, ew_error *err);
} ew_memory;

#ifdef __cplusplus
}
#endif
#endif

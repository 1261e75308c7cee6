/* base/memory.c - pages of the host as an ew_memory. */
#include "base/memory.h"

#include <string.h>

#include "os/os.h"

static ew_status host_alloc(void *ctx, size_t bytes, const char *what, void **out, ew_error *err)
{
    (void)ctx;
    *out = ew_os_pages_alloc(bytes ? bytes : 1, true);
    return *out ? EW_STATUS_OK : ew_fail(err, EW_STATUS_NO_MEMORY, "%s: %zu bytes", what, bytes);
}

static void host_release(void *ctx, void *p, size_t bytes)
{
    (void)ctx;
    if (p)
        ew_os_pages_free(p, bytes ? bytes : 1);
}

static ew_status host_copy(void *ctx, ew_copy_kind kind, void *to, size_t to_pitch,
                           const void *from, size_t from_pitch, size_t width, size_t height,
                           ew_error *err)
{
    (void)ctx;
    (void)kind;
    (void)err;
    for (size_t i = 0; i < height; i++)
        memcpy((char *)to + i * to_pitch, (const char *)from + i * from_pitch, width);
    return EW_STATUS_OK;
}

const ew_memory *ew_memory_of_host(void)
{
    static const ew_memory host = { NULL,       true,         host_alloc, host_release,
                                    host_alloc, host_release, host_copy };

    return &host;
}

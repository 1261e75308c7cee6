/* kernels/cuda/launch.h - filling in a launch: what the plan functions of one file after the other
 * would write again. */
#ifndef EW_KERNELS_CUDA_LAUNCH_H
#define EW_KERNELS_CUDA_LAUNCH_H

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "edgewise/base.h"
#include "kernels/cuda/kernel.h"

/* A launch of `entry` in <source>.cu over (x, y, z) blocks of `threads`, with its arguments, that
 * may begin early. `fmt` makes the macros; they fit EW_CUDA_DEFINES_CAP by construction. */
static inline void EW_PRINTF(8, 9)
    ew_cuda_launch_fill(struct ew_cuda_launch *l, const char *source, const char *entry,
                        const uint32_t grid[3], uint32_t threads, const void *args,
                        size_t arg_bytes, const char *fmt, ...)
{
    va_list list;

    memset(l, 0, sizeof(*l));
    l->spec.source = source;
    l->spec.entry = entry;
    va_start(list, fmt);
    (void)vsnprintf(l->spec.defines, sizeof(l->spec.defines), fmt, list);
    va_end(list);
    memcpy(l->grid, grid, sizeof(l->grid));
    l->block[0] = threads;
    l->block[1] = l->block[2] = 1;
    l->early_start = true;
    l->arg_bytes = (uint32_t)arg_bytes;
    memcpy(l->args, args, arg_bytes);
}

static inline uint64_t ew_cuda_address(const void *p)
{
    return (uint64_t)(uintptr_t)p;
}

#endif

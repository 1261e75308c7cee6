/* kernels/x86/attention_amx.h - the scratch of attention_amx.inc, in whole tiles: bytes of the
 * codes of a unit's queries, and of the K and V of a block. */
#ifndef EW_KERNELS_ATTENTION_AMX_H
#define EW_KERNELS_ATTENTION_AMX_H

#include <stddef.h>

#include "base/size.h"
#include "kernels/attention.h"

#define I16_TILE_ROWS ((size_t)16)
#define I16_TILE_K    ((size_t)64) /* bytes of a row of a tile */

static inline size_t i16_tile_d(size_t d)
{
    return ew_align_up(d, I16_TILE_K);
}

/* Of both planes. */
static inline size_t i16_q_plane_bytes(size_t rows, size_t d)
{
    return 2 * ew_align_up(rows, I16_TILE_ROWS) * i16_tile_d(d);
}

static inline size_t i16_planes_bytes(const struct ew_attn_args *a, size_t rows)
{
    if (a->kv_dtype != EW_DTYPE_I8)
        return 0;
    return i16_q_plane_bytes(rows, a->d) +
           EW_ATTN_BLOCK * (i16_tile_d(a->d) + ew_align_up(a->d, 16));
}

#endif

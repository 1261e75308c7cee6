/* kernels/x86/amx_tile.h - the instructions of the matrix tiles:
 *
 *   amx_configure(c), amx_release()
 *   AMX_ZERO(t), AMX_LOAD(t, p, stride), AMX_STORE(t, p, stride)
 *   AMX_LOAD_ONCE: what is not read again soon; it comes from L2 and leaves what L1 holds there
 *   AMX_MUL_BF16(c, x, w)     c += x w: bf16 pairs into f32
 *   AMX_MUL_INT8(c, x, w)     signed bytes by fours into i32; _SIGNED_UNSIGNED, _UNSIGNED_SIGNED,
 *                             _UNSIGNED: x first, then w
 *
 * t, c, x, w: tile numbers as plain tokens. stride in bytes, size_t. */
#ifndef EW_KERNELS_AMX_TILE_H
#define EW_KERNELS_AMX_TILE_H

#include <stdint.h>

struct amx_config { /* palette 1: up to 8 tiles of 16 rows of 64 bytes */
    uint8_t palette, start_row, reserved[14];
    uint16_t colsb[16];
    uint8_t rows[16];
};

#ifdef EW_EMULATE_AMX
#    include "kernels/x86/amx_emulated.h"
#else
#    include "kernels/x86/amx_asm.h"
#endif

#endif

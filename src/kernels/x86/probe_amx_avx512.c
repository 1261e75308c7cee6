/* kernels/x86/probe_amx_avx512.c - the ceilings of the matrix tiles (AMX): 8-bit integers, bf16. */
#include <string.h>

#include "cpu/cpu.h"
#include "kernels/probe_loops.h"
#include "kernels/x86/amx_tile.h"

#define TILE_ROWS  16
#define TILE_BYTES 64 /* of a row */

/* Full tiles: 0..3 sums, 4 and 5 one factor, 6 and 7 the other. Bytes 0x3f are 63, pairs of them a
 * bf16 below 1. */
static void start(void)
{
    unsigned char bytes[TILE_ROWS * TILE_BYTES];
    struct amx_config c;

    memset(&c, 0, sizeof(c));
    memset(bytes, 0x3f, sizeof(bytes));
    c.palette = 1;
    for (int t = 0; t < 8; t++) {
        c.rows[t] = TILE_ROWS;
        c.colsb[t] = TILE_BYTES;
    }
    amx_configure(&c);
    AMX_ZERO(0);
    AMX_ZERO(1);
    AMX_ZERO(2);
    AMX_ZERO(3);
    AMX_LOAD(4, bytes, (size_t)TILE_BYTES);
    AMX_LOAD(5, bytes, (size_t)TILE_BYTES);
    AMX_LOAD(6, bytes, (size_t)TILE_BYTES);
    AMX_LOAD(7, bytes, (size_t)TILE_BYTES);
}

static uint64_t int8_tiles(uint64_t n)
{
    start();
    for (uint64_t i = 0; i < n; i++) {
        AMX_MUL_INT8(0, 4, 6);
        AMX_MUL_INT8(1, 4, 7);
        AMX_MUL_INT8(2, 5, 6);
        AMX_MUL_INT8(3, 5, 7);
    }
    amx_release();
    return n * 4 * TILE_ROWS * 16 * 64 * 2; /* rows x columns x products */
}

static uint64_t bf16_tiles(uint64_t n)
{
    start();
    for (uint64_t i = 0; i < n; i++) {
        AMX_MUL_BF16(0, 4, 6);
        AMX_MUL_BF16(1, 4, 7);
        AMX_MUL_BF16(2, 5, 6);
        AMX_MUL_BF16(3, 5, 7);
    }
    amx_release();
    return n * 4 * TILE_ROWS * 16 * 32 * 2;
}

const struct ew_probe_dots ew_probe_dots__amx = { "amx", EW_CPU_AVX512 | EW_CPU_AMX, int8_tiles,
                                                  bf16_tiles };

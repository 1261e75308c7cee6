/* kernels/x86/amx_emulated.h - amx_tile.h without matrix tiles: what the instructions do, in C, for
 * test builds on processors that lack them (CMake option EW_EMULATE_AMX). Integers are the
 * processor's to the bit. Sums of bf16 are not: the processor adds two products a step, in pairs.
 * Shapes that do not fit each other, which a processor refuses, trap. */
#ifndef EW_KERNELS_AMX_EMULATED_H
#define EW_KERNELS_AMX_EMULATED_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static _Thread_local struct {
    bool is_on;
    uint8_t rows[8];
    uint16_t colsb[8];
    unsigned char t[8][16][64];
} amx_emulated;

static inline void amx_expect(bool fits)
{
    if (!fits || !amx_emulated.is_on)
        __builtin_trap();
}

static inline void amx_configure(const struct amx_config *c)
{
    memset(&amx_emulated, 0, sizeof(amx_emulated));
    amx_emulated.is_on = true;
    for (int t = 0; t < 8; t++) {
        amx_expect(c->palette == 1 && c->rows[t] <= 16 && c->colsb[t] <= 64);
        amx_emulated.rows[t] = c->rows[t];
        amx_emulated.colsb[t] = c->colsb[t];
    }
}

static inline void amx_release(void)
{
    memset(&amx_emulated, 0x5a, sizeof(amx_emulated));
    amx_emulated.is_on = false;
}

static inline void amx_zero(int t)
{
    amx_expect(true);
    memset(amx_emulated.t[t], 0, sizeof(amx_emulated.t[t]));
}

static inline void amx_load(int t, const void *p, size_t stride)
{
    amx_zero(t);
    for (size_t r = 0; r < amx_emulated.rows[t]; r++)
        memcpy(amx_emulated.t[t][r], (const char *)p + r * stride, amx_emulated.colsb[t]);
}

static inline void amx_store(int t, void *p, size_t stride)
{
    amx_expect(true);
    for (size_t r = 0; r < amx_emulated.rows[t]; r++)
        memcpy((char *)p + r * stride, amx_emulated.t[t][r], amx_emulated.colsb[t]);
}

/* A product's tiles: rows of the sums are those of x, columns those of w, fours of x rows of w. */
static inline void amx_expect_product(int c, int x, int w)
{
    amx_expect(amx_emulated.rows[c] == amx_emulated.rows[x] &&
               amx_emulated.colsb[c] == amx_emulated.colsb[w] &&
               amx_emulated.colsb[x] == 4 * amx_emulated.rows[w]);
}

static inline int32_t amx_byte(unsigned char b, bool is_signed)
{
    return is_signed && b > 127 ? (int32_t)b - 256 : (int32_t)b;
}

/* is_signed: x, w */
static inline void amx_mul_bytes(int c, int x, int w, bool x_signed, bool w_signed)
{
    const int width = amx_emulated.colsb[x];
    int32_t wide[64][16];

    amx_expect_product(c, x, w);
    for (int k = 0; k < width; k++)
        for (int n = 0; n < 16; n++)
            wide[k][n] = amx_byte(amx_emulated.t[w][k / 4][4 * n + k % 4], w_signed);
    for (int m = 0; m < amx_emulated.rows[c]; m++) {
        uint32_t sums[16];

        memcpy(sums, amx_emulated.t[c][m], sizeof(sums));
        for (int k = 0; k < width; k++) {
            const int32_t f = amx_byte(amx_emulated.t[x][m][k], x_signed);

            for (int n = 0; n < 16; n++)
                sums[n] += (uint32_t)(f * wide[k][n]);
        }
        memcpy(amx_emulated.t[c][m], sums, amx_emulated.colsb[c]);
    }
}

/* Denormals are taken as 0. */
static inline float amx_bf16(int t, int row, int byte)
{
    uint16_t half;
    uint32_t bits;
    float x;

    memcpy(&half, amx_emulated.t[t][row] + byte, 2);
    bits = half & 0x7f80 ? (uint32_t)half << 16 : (uint32_t)(half & 0x8000) << 16;
    memcpy(&x, &bits, 4);
    return x;
}

static inline void amx_mul_bf16(int c, int x, int w)
{
    const int width = amx_emulated.colsb[x] / 2;
    float wide[32][16];

    amx_expect_product(c, x, w);
    for (int k = 0; k < width; k++)
        for (int n = 0; n < 16; n++)
            wide[k][n] = amx_bf16(w, k / 2, 4 * n + k % 2 * 2);
    for (int m = 0; m < amx_emulated.rows[c]; m++) {
        float sums[16];

        memcpy(sums, amx_emulated.t[c][m], sizeof(sums));
        for (int k = 0; k < width; k++) {
            const float f = amx_bf16(x, m, 2 * k);

            for (int n = 0; n < 16; n++)
                sums[n] = f * wide[k][n] + sums[n];
        }
        memcpy(amx_emulated.t[c][m], sums, amx_emulated.colsb[c]);
    }
}

#define AMX_ZERO(t)                      amx_zero(t)
#define AMX_LOAD(t, p, stride)           amx_load(t, p, stride)
#define AMX_LOAD_ONCE(t, p, stride)      amx_load(t, p, stride)
#define AMX_STORE(t, p, stride)          amx_store(t, p, stride)
#define AMX_MUL_BF16(c, x, w)            amx_mul_bf16(c, x, w)
#define AMX_MUL_INT8(c, x, w)            amx_mul_bytes(c, x, w, true, true)
#define AMX_MUL_SIGNED_UNSIGNED(c, x, w) amx_mul_bytes(c, x, w, true, false)
#define AMX_MUL_UNSIGNED_SIGNED(c, x, w) amx_mul_bytes(c, x, w, false, true)
#define AMX_MUL_UNSIGNED(c, x, w)        amx_mul_bytes(c, x, w, false, false)

#endif

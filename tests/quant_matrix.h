/* quant_matrix.h - a quantised matrix in memory as ew_quant_rows has it, and codes to fill it with:
 * for the kernel checks of processors and of GPUs. */
#ifndef EW_TESTS_QUANT_MATRIX_H
#define EW_TESTS_QUANT_MATRIX_H

#include <string.h>

#include "tensor/quant.h"

struct matrix {
    struct ew_quant_source base;
    uint8_t *codes;
    float *scales, *row_scale;
    int16_t *zeros;
};

static inline void matrix_read(const struct ew_quant_source *s, size_t row, size_t n_rows,
                               const struct ew_quant_rows *out)
{
    const struct matrix *m = (const struct matrix *)(const void *)s;
    const size_t groups = ew_quant_groups(&s->format, s->k);

    memcpy(out->codes, m->codes + row * s->k, n_rows * s->k);
    memcpy(out->scales, m->scales + row * groups, n_rows * groups * sizeof(float));
    memcpy(out->zeros, m->zeros + row * groups, n_rows * groups * sizeof(int16_t));
    memcpy(out->row_scale, m->row_scale + row, n_rows * sizeof(float));
}

/* Eight random bits as a code; specials: NaN and infinity too where the format has them. */
static inline uint8_t matrix_code(uint8_t bits, ew_dtype code, bool specials)
{
    switch (code) {
    case EW_DTYPE_I4:
        return (uint8_t)(((bits & 15u) ^ 8u) - 8u);
    case EW_DTYPE_U4:
    case EW_DTYPE_F4E2M1:
        return bits & 15u;
    case EW_DTYPE_F8E4M3:
        return (bits & 0x7fu) == 0x7fu && !specials ? 0x7e : bits;
    case EW_DTYPE_F8E5M2:
        return (bits & 0x7fu) >= 0x7cu && !specials ? 0x7b : bits;
    default:
        return bits;
    }
}

#endif

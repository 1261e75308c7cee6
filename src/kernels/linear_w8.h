/* kernels/linear_w8.h - 4-bit weights as 8-bit integers with one scale a row (EW_XQ_INT8_W8): what
 * a kernel that rounds weights makes of them, and its tests expect.
 *
 *   unit   = max over groups of |scale[g]| * span[g], / 127    span: the largest |code - zero|
 *   factor = round(scale[g] / unit * 2048)                     i16, at most 127 / 8 * 2048
 *   w8     = floor((code - zero) * factor / 2048 + 1/2)        -127 .. 127
 *   w     ~= w8 * (unit * row_scale)
 *
 * The rounding is at most half of 1/127 of the row's largest weight, where a step of 4 bits is a
 * seventh of the group's. */
#ifndef EW_KERNELS_LINEAR_W8_H
#define EW_KERNELS_LINEAR_W8_H

#include <math.h>

#include "tensor/quant.h"

static inline double ew_w8_unit(const struct ew_quant_format *f, const float *scales,
                                const int16_t *zeros, size_t n_groups)
{
    double most = 0.0;

    for (size_t g = 0; g < n_groups; g++) {
        const int zero = f->zero ? zeros[g] : 0;
        const int span = f->code == EW_DTYPE_I4 ? 8 : zero > 7 ? zero : 15 - zero;
        const double s = fabs((double)scales[g]) * span;

        if (!(s <= most))
            most = s; /* NaN stays */
        if (isnan(s))
            break;
    }
    return most / 127.0;
}

static inline int16_t ew_w8_factor(float scale, double unit)
{
    const double f = (double)scale / unit * 2048.0;

    return fabs(f) <= 32767.0 ? (int16_t)lrint(f) : 0; /* no unit, no factor */
}

/* code: four bits. */
static inline int ew_w8_code(const struct ew_quant_format *f, uint8_t code, int zero,
                             int16_t factor)
{
    const int c = f->code == EW_DTYPE_I4 ? (code ^ 8) - 8 : code;

    return ((c - zero) * factor + 1024) >> 11;
}

#endif

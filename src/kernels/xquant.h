/* kernels/xquant.h - rounding of activations to a short format and back ("fake quantisation"), for
 * products whose kernel works on x as it is. enum ew_x_quant (op/attrs.h) names the kinds. */
#ifndef EW_KERNELS_XQUANT_H
#define EW_KERNELS_XQUANT_H

#include <stddef.h>

struct ew_x_rounding {
    int kind;     /* enum ew_x_quant */
    size_t block; /* columns, for the kinds with blocks; the last one may be short */
    float scale;  /* for static kinds and NVFP4 */
};

/* Row of k floats -> what is left of it. dst may equal src. Depends on the row alone. NaN becomes
 * 0 where the format has none (int8, e2m1). */
void ew_x_round_row(const struct ew_x_rounding *r, float *dst, const float *src, size_t k);

#endif

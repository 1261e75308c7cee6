/* kernels/ref/linear_act.h - what the reference linear kernels share: their epilogue, in double,
 * and their units, which are rows. */
#ifndef EW_KERNELS_REF_LINEAR_ACT_H
#define EW_KERNELS_REF_LINEAR_ACT_H

#include <math.h>

#include "kernels/linear.h"
#include "op/attrs.h"

static inline double ew_ref_act(int act, double z)
{
    switch (act) {
    case EW_ACT_SILU:
        return z / (1.0 + exp(-z));
    case EW_ACT_GELU_TANH:
        return 0.5 * z * (1.0 + tanh(0.79788456080286535588 * (z + 0.044715 * z * z * z)));
    case EW_ACT_GELU_ERF:
        return 0.5 * z * (1.0 + erf(z * 0.70710678118654752440));
    case EW_ACT_RELU:
        return z > 0 || isnan(z) ? z : 0.0;
    case EW_ACT_RELU2:
        return z > 0 || isnan(z) ? z * z : 0.0;
    default:
        return z;
    }
}

/* Bias, scale and soft-cap on the sum z of output n. */
static inline double ew_ref_finish(const struct ew_linear_args *a, double z, size_t n)
{
    z = (z + (a->bias ? (double)a->bias[n] : 0.0)) * (double)a->scale;
    if (a->softcap != 0.0f)
        z = (double)a->softcap * tanh(z / (double)a->softcap);
    return z;
}

static inline size_t ew_ref_units(size_t n, bool glu)
{
    return glu ? n / 2 : n;
}

static inline size_t ew_ref_no_scratch(const struct ew_quant_format *f, size_t m, size_t n,
                                       size_t k)
{
    (void)f;
    (void)m;
    (void)n;
    (void)k;
    return 0;
}

#endif

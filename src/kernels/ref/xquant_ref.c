/* kernels/ref/xquant_ref.c - see xquant.h. Portable and clear; a row is a small part of the product
 * that follows. */
#include "kernels/xquant.h"

#include <math.h>
#include <string.h>

#include "base/half.h"
#include "op/attrs.h"
#include "tensor/tensor.h"

static float max_abs(const float *x, size_t n)
{
    float m = 0;

    for (size_t i = 0; i < n; i++)
        m = fabsf(x[i]) > m ? fabsf(x[i]) : m;
    return m;
}

static float to_int8(float x)
{
    const float r = nearbyintf(x);

    if (isnan(r))
        return 0.0f;
    return r > 127.0f ? 127.0f : r < -128.0f ? -128.0f : r;
}

static float to_e2m1(float x)
{
    uint8_t code = 0;

    if (isnan(x))
        return 0.0f;
    ew_elem_set_f64(&code, EW_DTYPE_F4E2M1, 0, (double)x);
    return (float)ew_elem_get_f64(&code, EW_DTYPE_F4E2M1, 0);
}

static float to_e4m3(float x)
{
    return ew_f8e4m3_to_f32(ew_f32_to_f8e4m3(x, 1));
}

typedef float round_fn(float x);

static void round_by(round_fn *to, float *dst, const float *src, size_t n, float scale)
{
    if (!(scale > 0) || isinf(scale)) { /* zeros, or nothing that a short format can hold */
        memset(dst, 0, n * sizeof(*dst));
        return;
    }
    for (size_t i = 0; i < n; i++)
        dst[i] = to(src[i] / scale) * scale;
}

/* Power of two whose product with the format's largest exponent holds amax (OCP MX 1.0, 6.3). */
static float mx_scale(float amax, int largest_exp)
{
    int e;

    if (!(amax > 0) || isinf(amax))
        return 0.0f;
    frexpf(amax, &e);
    e = e - 1 - largest_exp;
    return ldexpf(1.0f, e < -127 ? -127 : e);
}

static void round_block(const struct ew_x_rounding *r, float *dst, const float *src, size_t n)
{
    const float amax = max_abs(src, n);

    switch (r->kind) {
    case EW_XQ_INT8_ROW:
        round_by(to_int8, dst, src, n, amax / 127.0f);
        break;
    case EW_XQ_FP8_ROW:
    case EW_XQ_FP8_BLOCK:
        round_by(to_e4m3, dst, src, n, amax / 448.0f);
        break;
    case EW_XQ_NVFP4:
        round_by(to_e2m1, dst, src, n, to_e4m3(amax / 6.0f / r->scale) * r->scale);
        break;
    case EW_XQ_MXFP8:
        round_by(to_e4m3, dst, src, n, mx_scale(amax, 8));
        break;
    default:
        round_by(to_e2m1, dst, src, n, mx_scale(amax, 2));
        break;
    }
}

void ew_x_round_row(const struct ew_x_rounding *r, float *dst, const float *src, size_t k)
{
    const bool whole = r->kind == EW_XQ_INT8_ROW || r->kind == EW_XQ_FP8_ROW || r->block == 0;
    const size_t block = whole ? k : r->block;

    switch (r->kind) {
    case EW_XQ_NONE:
        memmove(dst, src, k * sizeof(*dst));
        return;
    case EW_XQ_BF16:
        for (size_t i = 0; i < k; i++)
            dst[i] = ew_bf16_to_f32(ew_f32_to_bf16(src[i]));
        return;
    case EW_XQ_INT8:
        round_by(to_int8, dst, src, k, r->scale);
        return;
    case EW_XQ_FP8:
        round_by(to_e4m3, dst, src, k, r->scale);
        return;
    default:
        for (size_t at = 0; at < k; at += block)
            round_block(r, dst + at, src + at, k - at < block ? k - at : block);
    }
}

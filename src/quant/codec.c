/* quant/codec.c - see codec.h. */
#include "quant/codec.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/half.h"
#include "base/mem.h"
#include "base/size.h"

#define FP8_MAX 448.0f
#define FP4_MAX 6.0f
#define LANES   8

static const float fp4_values[8] = { 0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f };

ew_status ew_q_tensor_init(struct ew_q_tensor *q, const struct ew_q_format *f, size_t n, size_t k,
                           ew_error *err)
{
    size_t count, scales;

    *q = (struct ew_q_tensor){ .format = *f, .n = n, .k = k, .global = 1 };
    q->n_groups = k / ew_q_group(f, k);
    if (!ew_size_mul(n, k, &count) || !ew_size_mul(n, q->n_groups, &scales))
        return ew_fail(err, EW_STATUS_LIMIT, "a matrix of %zu x %zu is too large", n, k);
    q->codes = ew_mem_calloc(EW_MEM_CHECKPOINT, count, sizeof(*q->codes));
    q->scale = ew_mem_calloc(EW_MEM_CHECKPOINT, scales, sizeof(*q->scale));
    if (f->asymmetric)
        q->zero = ew_mem_calloc(EW_MEM_CHECKPOINT, scales, 1);
    if (q->codes && q->scale && (q->zero || !f->asymmetric))
        return EW_STATUS_OK;
    ew_q_tensor_deinit(q);
    return ew_fail(err, EW_STATUS_NO_MEMORY, "no memory to quantise a matrix of %zu x %zu", n, k);
}

void ew_q_tensor_deinit(struct ew_q_tensor *q)
{
    ew_mem_free(q->codes);
    ew_mem_free(q->scale);
    ew_mem_free(q->zero);
    *q = (struct ew_q_tensor){ 0 };
}

float ew_q_global(float amax)
{
    return amax > 0 ? FP8_MAX * FP4_MAX / amax : 1;
}

/* Nearest integer, ties to even, of |v| < 2^22: the sum drops the fraction. */
static inline float nearest(float v)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23 */

    return (v + magic) - magic;
}

static inline float clamp(float v, float lo, float hi)
{
    v = v < lo ? lo : v;
    return v > hi ? hi : v;
}

/* Code of |a| <= 6 with ties to the even mantissa. */
static inline int fp4_code(float a)
{
    return (a > 0.25f) + (a >= 0.75f) + (a > 1.25f) + (a >= 1.75f) + (a > 2.5f) + (a >= 3.5f) +
           (a > 5.0f);
}

static inline void int_range(const struct ew_q_format *f, float *lo, float *hi)
{
    *lo = f->asymmetric ? 0 : -(float)(1 << (f->bits - 1));
    *hi = *lo + (float)((1 << f->bits) - 1);
}

/* As it will be stored. */
static float stored_scale(const struct ew_q_format *f, float s)
{
    if (f->scale_dtype == EW_DTYPE_BF16)
        return ew_bf16_to_f32(ew_f32_to_bf16(s));
    if (f->scale_dtype == EW_DTYPE_F16)
        return ew_f16_to_f32(ew_f32_to_f16(s));
    return s;
}

int16_t ew_q_encode(const struct ew_q_format *f, float v, float scale, uint8_t zero)
{
    const float half = f->asymmetric ? (float)(1 << (f->bits - 1)) : 0; /* rounds signed codes */
    float lo, hi;

    switch (f->kind) {
    case EW_Q_INT:
        int_range(f, &lo, &hi);
        v = clamp(v / scale, -1e6f, 1e6f) + ((float)zero - half);
        return (int16_t)clamp(nearest(v) + half, lo, hi);
    case EW_Q_FP8:
        return ew_f32_to_f8e4m3(v / scale, 1);
    default:
        return (int16_t)(fp4_code(fabsf(v / scale)) | (v < 0 ? 8 : 0));
    }
}

float ew_q_decode(const struct ew_q_format *f, int16_t code, float scale, uint8_t zero)
{
    switch (f->kind) {
    case EW_Q_INT:
        return (float)(code - zero) * scale;
    case EW_Q_FP8:
        return ew_f8e4m3_to_f32((uint8_t)code) * scale;
    default:
        return (code & 8 ? -fp4_values[code & 7] : fp4_values[code & 7]) * scale;
    }
}

void ew_q_round(const struct ew_q_format *f, const float *w, size_t n, float scale, uint8_t zero,
                int16_t *codes, float *out)
{
    for (size_t i = 0; i < n; i++) {
        const int16_t c = ew_q_encode(f, w[i], scale, zero);

        if (codes)
            codes[i] = c;
        if (out)
            out[i] = ew_q_decode(f, c, scale, zero);
    }
}

/* Sum of importance * error^2; LANES sums, so that it vectorises. */
static float int_error(const struct ew_q_format *f, const float *w, const float *importance,
                       size_t n, float scale, uint8_t zero)
{
    const float inv = 1 / scale, z = (float)zero;
    float sum[LANES] = { 0 }, lo, hi, total = 0;
    size_t i = 0;

    int_range(f, &lo, &hi);
    for (; i + LANES <= n; i += LANES)
        for (size_t j = 0; j < LANES; j++) {
            const float c = clamp(nearest(w[i + j] * inv) + z, lo, hi);
            const float e = (c - z) * scale - w[i + j];

            sum[j] += e * e * (importance ? importance[i + j] : 1.0f);
        }
    for (; i < n; i++) {
        const float e = (clamp(nearest(w[i] * inv) + z, lo, hi) - z) * scale - w[i];

        sum[0] += e * e * (importance ? importance[i] : 1.0f);
    }
    for (size_t j = 0; j < LANES; j++)
        total += sum[j];
    return total;
}

static float block_error(const struct ew_q_format *f, const float *w, const float *importance,
                         size_t n, float scale, uint8_t zero)
{
    float total = 0;

    if (f->kind == EW_Q_INT)
        return int_error(f, w, importance, n, scale, zero);
    for (size_t i = 0; i < n; i++) {
        const float e = ew_q_decode(f, ew_q_encode(f, w[i], scale, zero), scale, zero) - w[i];

        total += e * e * (importance ? importance[i] : 1.0f);
    }
    return total;
}

static void extent(const float *w, size_t n, float *min, float *max)
{
    *min = 0;
    *max = 0;
    for (size_t i = 0; i < n; i++) {
        *min = w[i] < *min ? w[i] : *min;
        *max = w[i] > *max ? w[i] : *max;
    }
}

static void fit_int(const struct ew_q_format *f, const float *w, const float *importance, size_t n,
                    bool search, float *scale, uint8_t *zero)
{
    const float levels = (float)((1 << f->bits) - 1);
    float min, max, best = FLT_MAX;

    extent(w, n, &min, &max);
    if (!f->asymmetric) {
        max = -min > max ? -min : max;
        min = -max;
    }
    *zero = (uint8_t)(f->asymmetric ? 1u << (f->bits - 1) : 0u);
    *scale = FLT_EPSILON; /* of a block of zeros, as compressed-tensors has it */
    if (max - min < FLT_MIN * levels)
        return;
    for (int step = 0; step < (search ? 28 : 1); step++) {
        const float shrink = 1 - 0.02f * (float)step;
        const float s = stored_scale(f, (max - min) * shrink / levels);
        const uint8_t z = f->asymmetric ? (uint8_t)clamp(nearest(-min * shrink / s), 0, levels) : 0;
        float e;

        if (s < FLT_MIN)
            break;
        e = search ? int_error(f, w, importance, n, s, z) : 0;
        if (e < best) {
            best = e;
            *scale = s;
            *zero = z;
        }
    }
}

/* Block scales of NVFP4 are e4m3 after the global divisor; 0 would lose the block. */
static float nvfp4_scale(float s, float global)
{
    const float rounded = ew_f8e4m3_to_f32(ew_f32_to_f8e4m3(s * global, 1));

    return (rounded > 0 ? rounded : 0.125f) / global;
}

/* Largest power of two that leaves amax within 6 after rounding (OCP MX: emax 2). */
static float mxfp4_scale(float amax)
{
    const uint32_t bits = (ew_f32_bits(amax) + (1u << 21)) & 0x7f800000u;
    const int exponent = (int)(bits >> 23) - 127 - 2;

    return ldexpf(1, exponent < -127 ? -127 : exponent);
}

static void fit_fp4(const struct ew_q_format *f, const float *w, const float *importance, size_t n,
                    float global, bool search, float *scale)
{
    static const float tries[] = { 1.0f,   0.95f, 0.9f, 0.85f, 0.8f, 0.75f, 0.7f,
                                   0.667f, 1.1f,  1.2f, 1.3f,  1.4f, 1.5f };
    const bool nv = f->kind == EW_Q_NVFP4;
    float min, max, best = FLT_MAX, amax;

    extent(w, n, &min, &max);
    amax = -min > max ? -min : max;
    *scale = nv ? nvfp4_scale(amax / FP4_MAX, global) : mxfp4_scale(amax);
    if (!search)
        return;
    for (size_t i = 0; i < (nv ? EW_COUNT(tries) : 3); i++) {
        const float s = nv ? nvfp4_scale(amax / FP4_MAX * tries[i], global)
                           : mxfp4_scale(amax) * (i == 0   ? 1.0f
                                                  : i == 1 ? 0.5f
                                                           : 2.0f);
        const float e = block_error(f, w, importance, n, s, 0);

        if (e < best) {
            best = e;
            *scale = s;
        }
    }
}

void ew_q_fit(const struct ew_q_format *f, const float *w, const float *importance, size_t n,
              float global, bool search, float *scale, uint8_t *zero)
{
    float min, max;

    *zero = 0;
    if (f->kind == EW_Q_INT) {
        fit_int(f, w, importance, n, search, scale, zero);
    } else if (f->kind == EW_Q_FP8) {
        extent(w, n, &min, &max);
        max = -min > max ? -min : max;
        *scale = stored_scale(f, max / FP8_MAX);
        *scale = *scale >= FLT_MIN ? *scale : FLT_EPSILON;
    } else {
        fit_fp4(f, w, importance, n, global, search, scale);
    }
}

void ew_q_rtn_rows(struct ew_q_tensor *q, const float *w, const float *importance, bool search,
                   size_t begin, size_t end, float *out)
{
    const size_t g = ew_q_group(&q->format, q->k);

    for (size_t i = begin; i < end; i++) {
        for (size_t j = 0; j < q->n_groups; j++) {
            const size_t at = i * q->k + j * g, s = i * q->n_groups + j;
            uint8_t zero;

            ew_q_fit(&q->format, w + at, importance ? importance + j * g : NULL, g, q->global,
                     search, &q->scale[s], &zero);
            if (q->zero)
                q->zero[s] = zero;
            ew_q_round(&q->format, w + at, g, q->scale[s], zero, q->codes + at,
                       out ? out + at : NULL);
        }
    }
}

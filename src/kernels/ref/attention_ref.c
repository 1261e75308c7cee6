/* kernels/ref/attention_ref.c - the judge of attention: one query at a time, sums in double.
 * Clear, not fast. */
#include <math.h>
#include <string.h>

#include "base/half.h"
#include "kernels/attn_rules.h"

/* Element i of a stored row, without its scale. */
static float row_get(ew_dtype t, const unsigned char *row, size_t i)
{
    uint16_t h;
    float f;

    if (t == EW_DTYPE_I8)
        return row[i] < 128 ? (float)row[i] : (float)row[i] - 256.0f;
    if (t == EW_DTYPE_F8E4M3)
        return ew_f8e4m3_to_f32(row[i]);
    if (t == EW_DTYPE_F32) {
        memcpy(&f, row + i * sizeof(f), sizeof(f));
        return f;
    }
    memcpy(&h, row + i * sizeof(h), sizeof(h));
    return t == EW_DTYPE_BF16 ? ew_bf16_to_f32(h) : ew_f16_to_f32(h);
}

/* What the stored elements of (b, K or V, h, slot) are to be multiplied with. */
static float row_scale(const struct ew_attn_args *a, size_t b, size_t is_v, size_t h, size_t slot)
{
    if (a->kv_dtype == EW_DTYPE_I8)
        return attn_row_scale((const unsigned char *)a->kv + attn_kv_at(a, b, is_v, h, slot), a->d);
    return a->kv_dtype == EW_DTYPE_F8E4M3 ? attn_kv_scale(a, is_v, h) : 1.0f;
}

static void row_put_i8(unsigned char *row, const float *x, size_t d)
{
    float amax = 0, scale;
    bool is_finite = true;

    for (size_t i = 0; i < d; i++) {
        is_finite = is_finite && isfinite(x[i]);
        amax = fabsf(x[i]) > amax ? fabsf(x[i]) : amax;
    }
    scale = is_finite ? amax / 127.0f : NAN;
    for (size_t i = 0; i < d; i++) {
        const float code = scale > 0 ? rintf(x[i] / scale) : 0.0f;
        row[i] = (unsigned char)(int)(code > 127.0f ? 127.0f : code < -127.0f ? -127.0f : code);
    }
    attn_row_set_scale(row, d, scale);
}

/* x [d] is stored as the row of (b, K or V, h, slot). */
static void row_put(const struct ew_attn_args *a, size_t b, size_t is_v, size_t h, size_t slot,
                    const float *x)
{
    unsigned char *row = (unsigned char *)a->kv + attn_kv_at(a, b, is_v, h, slot);
    const float inv = 1.0f / attn_kv_scale(a, is_v, h);

    if (a->kv_dtype == EW_DTYPE_I8) {
        row_put_i8(row, x, a->d);
        return;
    }
    if (a->kv_dtype == EW_DTYPE_F32) {
        memcpy(row, x, a->d * sizeof(float));
        return;
    }
    for (size_t i = 0; i < a->d; i++) {
        const uint16_t s =
            a->kv_dtype == EW_DTYPE_BF16 ? ew_f32_to_bf16(x[i]) : ew_f32_to_f16(x[i]);
        if (a->kv_dtype == EW_DTYPE_F8E4M3)
            row[i] = ew_f32_to_f8e4m3(x[i] * inv, 1);
        else
            memcpy(row + i * sizeof(s), &s, sizeof(s));
    }
}

/* 1 / rms of n elements, or 1 without a norm. */
static double inv_rms(const float *x, size_t n, const float *w, float eps)
{
    double sum = 0;

    if (!w)
        return 1.0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return 1.0 / sqrt(sum / (double)n + (double)eps);
}

/* Element i of a head after norm and rope. */
static float head_elem(const float *x, const float *w, double inv, const float *rope, size_t rd,
                       size_t i)
{
    const double self = (double)x[i] * inv * (w ? (double)w[i] : 1.0);

    if (!rope || i >= rd)
        return (float)self;
    const size_t half = rd / 2, j = i % half, other = i < half ? i + half : i - half;
    const double o = (double)x[other] * inv * (w ? (double)w[other] : 1.0);
    const double c = (double)rope[j], s = (double)rope[half + j];
    return (float)(i < half ? self * c - o * s : self * c + o * s);
}

static void prep_token(const struct ew_attn_args *a, size_t t)
{
    const size_t b = t / a->s, d = a->d;
    const struct attn_row row = attn_row_find(a, b, t % a->s);
    const float *q = a->q + t * a->q_stride, *k = a->k + t * a->k_stride,
                *v = a->v + t * a->v_stride;
    float *out = a->q_work + t * a->hq * d;

    if (!row.is_real) {
        memset(out, 0, a->hq * d * sizeof(float));
        return;
    }
    const float *rope = attn_rope_row(a, b, row.pos);
    const double q_full = a->qk_norm_full ? inv_rms(q, a->hq * d, a->q_norm, a->qk_norm_eps) : 0;
    const double k_full = a->qk_norm_full ? inv_rms(k, a->hkv * d, a->k_norm, a->qk_norm_eps) : 0;
    /* K goes first: `out` is room for one of its heads until q comes. */
    for (size_t h = 0; h < a->hkv; h++) {
        const float *x = k + h * d;
        const float *w = a->k_norm && a->qk_norm_full ? a->k_norm + h * d : a->k_norm;
        const double inv = a->qk_norm_full ? k_full : inv_rms(x, d, w, a->qk_norm_eps);
        for (size_t i = 0; i < d; i++)
            out[i] = head_elem(x, w, inv, rope, a->rd, i);
        row_put(a, b, 0, h, row.slot, out);
        row_put(a, b, 1, h, row.slot, v + h * d);
    }
    for (size_t h = 0; h < a->hq; h++) {
        const float *x = q + h * d;
        const float *w = a->q_norm && a->qk_norm_full ? a->q_norm + h * d : a->q_norm;
        const double inv = a->qk_norm_full ? q_full : inv_rms(x, d, w, a->qk_norm_eps);
        for (size_t i = 0; i < d; i++)
            out[h * d + i] = head_elem(x, w, inv, rope, a->rd, i);
    }
}

static void prep(const struct ew_attn_args *a, size_t begin, size_t end)
{
    for (size_t t = begin; t < end; t++)
        prep_token(a, t);
}

/* A unit is (batch row, kv head, query). */
static size_t n_units(const struct ew_attn_args *a)
{
    return a->b * a->hkv * a->s;
}

static size_t scratch_bytes(const struct ew_attn_args *a)
{
    return a->cap * sizeof(double);
}

static void attend(const struct ew_attn_args *a, size_t b, size_t i, size_t h, double *score)
{
    const struct attn_row row = attn_row_find(a, b, i);
    const size_t d = a->d, t = b * a->s + i, hk = h / (a->hq / a->hkv);
    const float *q = a->q_work + (t * a->hq + h) * d;
    const unsigned char *kv = a->kv;
    const size_t end = row.is_real ? attn_row_end(a, &row) : 0;
    float *out = a->out + t * a->out_stride + h * d;
    double max = -INFINITY, sum = 0;
    bool sees_any = false;

    for (size_t p = 0; p < end; p++) {
        if (!attn_row_sees(a, &row, b, i, p))
            continue;
        const unsigned char *k = kv + attn_kv_at(a, b, 0, hk, p);
        double s = 0;
        for (size_t j = 0; j < d; j++)
            s += (double)q[j] * (double)row_get(a->kv_dtype, k, j);
        s *= (double)row_scale(a, b, 0, hk, p) * (double)a->scale;
        if (a->softcap != 0.0f)
            s = (double)a->softcap * tanh(s / (double)a->softcap);
        score[p] = s;
        max = s > max || isnan(s) ? s : max;
        sees_any = true;
    }
    for (size_t p = 0; p < end; p++)
        if (attn_row_sees(a, &row, b, i, p))
            sum += exp(score[p] - max);
    for (size_t j = 0; j < d; j++) {
        double o = 0;
        for (size_t p = 0; p < end; p++)
            if (attn_row_sees(a, &row, b, i, p))
                o += exp(score[p] - max) * (double)row_scale(a, b, 1, hk, p) *
                     (double)row_get(a->kv_dtype, kv + attn_kv_at(a, b, 1, hk, p), j);
        out[j] = sees_any ? (float)(o / sum) : 0.0f;
    }
}

static void run(const struct ew_attn_args *a, size_t begin, size_t end, void *scratch)
{
    const size_t group = a->hq / a->hkv;

    for (size_t u = begin; u < end; u++) {
        const size_t i = u % a->s, hk = u / a->s % a->hkv, b = u / a->s / a->hkv;
        for (size_t g = 0; g < group; g++)
            attend(a, b, i, hk * group + g, scratch);
    }
}

extern const struct ew_attn_kernel ew_attn__ref;
const struct ew_attn_kernel ew_attn__ref = {
    .name = "attn__ref",
    .cpu_need = 0,
    .prep = prep,
    .n_units = n_units,
    .scratch_bytes = scratch_bytes,
    .run = run,
};

/* kernels/ref/attention_ref.c - the judge of attention: one query at a time, sums in double.
 * Clear, not fast. */
#include <math.h>
#include <string.h>

#include "base/half.h"
#include "kernels/attn_rules.h"

static float cache_get(const struct ew_attn_args *a, size_t i)
{
    if (a->kv_dtype == EW_DTYPE_F32)
        return ((const float *)a->kv)[i];
    const uint16_t h = ((const uint16_t *)a->kv)[i];
    return a->kv_dtype == EW_DTYPE_BF16 ? ew_bf16_to_f32(h) : ew_f16_to_f32(h);
}

static void cache_put(const struct ew_attn_args *a, size_t i, float v)
{
    if (a->kv_dtype == EW_DTYPE_F32)
        ((float *)a->kv)[i] = v;
    else if (a->kv_dtype == EW_DTYPE_BF16)
        ((uint16_t *)a->kv)[i] = ew_f32_to_bf16(v);
    else
        ((uint16_t *)a->kv)[i] = ew_f32_to_f16(v);
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
    for (size_t h = 0; h < a->hq; h++) {
        const float *x = q + h * d;
        const float *w = a->q_norm && a->qk_norm_full ? a->q_norm + h * d : a->q_norm;
        const double inv = a->qk_norm_full ? q_full : inv_rms(x, d, w, a->qk_norm_eps);
        for (size_t i = 0; i < d; i++)
            out[h * d + i] = head_elem(x, w, inv, rope, a->rd, i);
    }
    for (size_t h = 0; h < a->hkv; h++) {
        const float *x = k + h * d;
        const float *w = a->k_norm && a->qk_norm_full ? a->k_norm + h * d : a->k_norm;
        const double inv = a->qk_norm_full ? k_full : inv_rms(x, d, w, a->qk_norm_eps);
        for (size_t i = 0; i < d; i++) {
            cache_put(a, attn_kv_index(a, b, 0, h) + row.slot * d + i,
                      head_elem(x, w, inv, rope, a->rd, i));
            cache_put(a, attn_kv_index(a, b, 1, h) + row.slot * d + i, v[h * d + i]);
        }
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
    const size_t k0 = attn_kv_index(a, b, 0, hk), v0 = attn_kv_index(a, b, 1, hk);
    const size_t end = row.is_real ? attn_row_end(a, &row) : 0;
    float *out = a->out + t * a->out_stride + h * d;
    double max = -INFINITY, sum = 0;
    bool sees_any = false;

    for (size_t p = 0; p < end; p++) {
        if (!attn_row_sees(a, &row, b, i, p))
            continue;
        double s = 0;
        for (size_t j = 0; j < d; j++)
            s += (double)q[j] * (double)cache_get(a, k0 + p * d + j);
        s *= (double)a->scale;
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
                o += exp(score[p] - max) * (double)cache_get(a, v0 + p * d + j);
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

/* kernels/cuda/attn_cache.cuh - attention.h's rules on the device: who is real and sees what, how
 * a row of the cache is stored and read, norm and RoPE of a head.
 *
 * Told by macros: EW_D head size; EW_KV element of the cache (0 f32, 1 f16, 2 bf16, 3 f8e4m3, 4 i8
 * with a scale behind the row); EW_NORM (0 none, 1 a head, 2 all heads together). */
#ifndef EW_KERNELS_CUDA_ATTN_CACHE_CUH
#define EW_KERNELS_CUDA_ATTN_CACHE_CUH

#include "attention_args.cuh"
#include "reduce.cuh"

#define EW_ROW_BYTES (EW_KV == 0 ? EW_D * 4 : EW_KV <= 2 ? EW_D * 2 : EW_KV == 3 ? EW_D : EW_D + 4)
#define EW_LOG2E     1.44269504088896340736f

enum { ATTN_PREFILL = 0, ATTN_CHUNKED, ATTN_DECODE, ATTN_TREE };

/* ---- short floats: as base/half.h, bit for bit ---- */

EW_DEV unsigned f32_to_bf16(float f)
{
    const unsigned u = __float_as_uint(f);

    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (u >> 16) | 0x40u;
    return (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
}

/* Nearest even, saturated at +-448; NaN stays NaN. */
EW_DEV unsigned f32_to_f8e4m3(float f)
{
    const unsigned u = __float_as_uint(f), sign = u >> 24 & 0x80u, mag = u & 0x7fffffffu;
    unsigned r;

    if (mag > 0x7f800000u)
        return sign | 0x7fu;
    if (mag < 0x3c800000u) /* below 2^-6: steps of 2^-9 */
        return sign | (unsigned)rintf(__uint_as_float(mag) * 512.0f);
    r = mag + 0x7ffffu + (mag >> 20 & 1u);
    r = (r >> 20) - (120u << 3);
    return sign | (mag >= 0x43e00000u || r > 0x7eu ? 0x7eu : r);
}

/* ---- who is real, who sees what ---- */

struct attn_row { /* attn_rules.h's */
    bool is_real;
    int pos;       /* >= 0 when real */
    unsigned slot; /* < cap when real */
    unsigned prefix, n_tree;
};

EW_DEV struct attn_row attn_row_find(const ew_cuda_attn_args &a,
                                                                unsigned b, unsigned i)
{
    const long long c = ((const int *)a.context_lengths)[b];
    const long long s0 = a.start_index ? ((const int *)a.start_index)[b] : 0;
    struct attn_row r = { false, 0, 0, 0, 0 };
    long long pos, slot;

    if (a.mode == ATTN_DECODE) {
        pos = slot = c - 1;
        r.is_real = i == 0 && c > 0;
    } else if (a.mode == ATTN_TREE) {
        pos = ((const int *)a.pos_id)[(unsigned long long)b * a.s + i];
        slot = s0 + i;
        r.prefix = (unsigned)s0;
        r.n_tree = c > s0 ? (unsigned)(c - s0) : 0;
        r.is_real = s0 >= 0 && i < r.n_tree && pos >= 0;
    } else {
        pos = slot = s0 + i;
        r.is_real = s0 >= 0 && i < c;
    }
    r.is_real = r.is_real && slot < a.cap;
    r.pos = (int)pos;
    r.slot = (unsigned)slot;
    return r;
}

EW_DEV unsigned attn_row_end(const ew_cuda_attn_args &a,
                                                        const struct attn_row &r)
{
    unsigned end = r.slot + 1;

    if (a.mode == ATTN_TREE)
        end = r.prefix + min(r.n_tree, a.s);
    return min(end, a.cap);
}

/* Whether real row i sees slot < attn_row_end(). */
EW_DEV bool attn_row_sees(const ew_cuda_attn_args &a,
                                                     const struct attn_row &r, unsigned b,
                                                     unsigned i, unsigned slot)
{
    int pos = (int)slot;

    if (a.mode == ATTN_TREE && slot >= r.prefix) {
        const unsigned j = slot - r.prefix;
        const unsigned *mask = (const unsigned *)a.mask + ((unsigned long long)b * a.s + i) * a.mask_words;

        if (j / 32 >= a.mask_words || !(mask[j / 32] >> (j % 32) & 1u))
            return false;
        pos = ((const int *)a.pos_id)[(unsigned long long)b * a.s + j];
    }
    return a.window <= 0 || (long long)pos > (long long)r.pos - a.window;
}

/* ---- rows of the cache ---- */

EW_DEV unsigned char *kv_row(const ew_cuda_attn_args &a, unsigned b,
                                                        unsigned is_v, unsigned h, unsigned slot)
{
    return (unsigned char *)a.kv +
           (((unsigned long long)(b * 2 + is_v) * a.hkv + h) * a.cap + slot) * EW_ROW_BYTES;
}

/* What stored elements are multiplied with, beside an i8 row's own scale. */
EW_DEV float kv_head_scale(const ew_cuda_attn_args &a, unsigned is_v,
                                                      unsigned h)
{
    return EW_KV == 3 && a.kv_scale ? ((const float *)a.kv_scale)[is_v * a.hkv + h] : 1.0f;
}

EW_DEV float i8_row_scale(const unsigned char *row)
{
    return __uint_as_float((unsigned)row[EW_D] | (unsigned)row[EW_D + 1] << 8 |
                           (unsigned)row[EW_D + 2] << 16 | (unsigned)row[EW_D + 3] << 24);
}

/* Element i of a stored row, without any scale. */
EW_DEV float kv_get(const unsigned char *row, unsigned i)
{
#if EW_KV == 0
    return ((const float *)row)[i];
#elif EW_KV == 1
    return ew_f16_f32(((const unsigned short *)row)[i]);
#elif EW_KV == 2
    return ew_bf16_f32(((const unsigned short *)row)[i]);
#elif EW_KV == 3
    return ew_e4m3_f32(row[i]);
#else
    return (float)(signed char)row[i];
#endif
}

#define EW_LANE_ELEMS ((EW_D + 31) / 32)

/* A warp stores x (lane l has elements l + 32 j; 0 past the end) as a row. */
EW_DEV void kv_put(unsigned char *row, const float x[EW_LANE_ELEMS],
                                              float head_scale)
{
    const unsigned lane = threadIdx.x % 32;

#if EW_KV == 4
    float amax = 0, scale;
    bool is_finite = true;

#    pragma unroll
    for (int j = 0; j < EW_LANE_ELEMS; j++) {
        is_finite = is_finite && fabsf(x[j]) < EW_INFINITY;
        amax = fmaxf(amax, fabsf(x[j]));
    }
    is_finite = __all_sync(0xffffffffu, is_finite);
    amax = ew_warp_max(amax);
    scale = is_finite ? amax / 127.0f : EW_NAN;
#    pragma unroll
    for (int j = 0; j < EW_LANE_ELEMS; j++) {
        const float code = scale > 0 ? rintf(x[j] / scale) : 0.0f;

        if (lane + 32 * j < EW_D)
            row[lane + 32 * j] = (unsigned char)(int)fminf(fmaxf(code, -127.0f), 127.0f);
    }
    if (lane < 4)
        row[EW_D + lane] = (unsigned char)(__float_as_uint(scale) >> (8 * lane));
#else
#    if EW_KV == 3
    const float inv = 1.0f / head_scale;

#    endif
#    pragma unroll
    for (int j = 0; j < EW_LANE_ELEMS; j++) {
        const unsigned i = lane + 32 * j;

        if (i >= EW_D)
            break;
#    if EW_KV == 0
        ((float *)row)[i] = x[j];
#    elif EW_KV == 1
        ((unsigned short *)row)[i] = (unsigned short)ew_to_f16(x[j]);
#    elif EW_KV == 2
        ((unsigned short *)row)[i] = (unsigned short)f32_to_bf16(x[j]);
#    else
        row[i] = (unsigned char)f32_to_f8e4m3(x[j] * inv);
#    endif
    }
#endif
}

/* ---- norm and RoPE ---- */

EW_DEV const float *attn_rope_row(const ew_cuda_attn_args &a, unsigned b,
                                                             int pos)
{
    if (!a.rope || a.rope_rows == 0)
        return 0;
    return (const float *)a.rope + b * a.rope_batch_stride +
           (unsigned long long)min((unsigned)pos, a.rope_rows - 1) * a.rd;
}

/* 1 / rms of the D elements at x, by one warp. */
EW_DEV float head_inv_rms(const float *x, float eps)
{
    float sum = 0;

#pragma unroll
    for (int j = 0; j < EW_LANE_ELEMS; j++) {
        const unsigned i = threadIdx.x % 32 + 32 * j;
        const float v = i < EW_D ? x[i] : 0.0f;

        sum += v * v;
    }
    return 1.0f / sqrtf(ew_warp_sum(sum) / (float)EW_D + eps);
}

/* A head after norm and RoPE, lane l gets elements l + 32 j. w, rope: NULL for none. */
EW_DEV void head_load(const float *x, const float *w, float inv,
                                                 const float *rope, unsigned rd,
                                                 float out[EW_LANE_ELEMS])
{
    const unsigned half = rd / 2;

#pragma unroll
    for (int j = 0; j < EW_LANE_ELEMS; j++) {
        const unsigned i = threadIdx.x % 32 + 32 * j;

        out[j] = 0.0f;
        if (i >= EW_D)
            break;
        const float self = w ? x[i] * inv * w[i] : x[i];

        out[j] = self;
        if (rope && i < rd) {
            const unsigned r = i < half ? i : i - half, o = i < half ? i + half : r;
            const float other = w ? x[o] * inv * w[o] : x[o];

            out[j] = i < half ? self * rope[r] - other * rope[half + r]
                              : self * rope[r] + other * rope[half + r];
        }
    }
}

#endif

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
/* Where a kernel is made for one mode, the others cost it nothing. */
#if defined(EW_TREE) && EW_TREE
#    define IS_MODE(m) ((m) == ATTN_TREE)
#elif defined(EW_DECODE) && EW_DECODE
#    define IS_MODE(m) ((m) == ATTN_DECODE)
#elif defined(EW_TREE)
#    define IS_MODE(m) ((m) == ATTN_CHUNKED)
#else
#    define IS_MODE(m) (a.mode == (unsigned)(m))
#endif

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

/* Where head hh of token t is: query heads, then keys, then values. */
template <typename elem>
EW_DEV const elem *attn_head_at(const ew_cuda_attn_args &a, unsigned t, unsigned hh)
{
    if (hh < a.hq)
        return (const elem *)a.q + t * a.q_stride + hh * EW_D;
    if (hh < a.hq + a.hkv)
        return (const elem *)a.k + t * a.k_stride + (hh - a.hq) * EW_D;
    return (const elem *)a.v + t * a.v_stride + (hh - a.hq - a.hkv) * EW_D;
}

EW_DEV struct attn_row attn_row_find(const ew_cuda_attn_args &a, unsigned b, unsigned i)
{
    const long long c = ((const int *)a.context_lengths)[b];
    const long long s0 = a.start_index ? ((const int *)a.start_index)[b] : 0;
    struct attn_row r = { false, 0, 0, 0, 0 };
    long long pos, slot;

    if (IS_MODE(ATTN_DECODE)) {
        pos = slot = c - 1;
        r.is_real = i == 0 && c > 0;
    } else if (IS_MODE(ATTN_TREE)) {
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

EW_DEV unsigned attn_row_end(const ew_cuda_attn_args &a, const struct attn_row &r)
{
    unsigned end = r.slot + 1;

    if (IS_MODE(ATTN_TREE))
        end = r.prefix + min(r.n_tree, a.s);
    return min(end, a.cap);
}

/* Whether real row i sees slot < attn_row_end(). */
EW_DEV bool attn_row_sees(const ew_cuda_attn_args &a, const struct attn_row &r, unsigned b,
                          unsigned i, unsigned slot)
{
    int pos = (int)slot;

    if (IS_MODE(ATTN_TREE) && slot >= r.prefix) {
        const unsigned j = slot - r.prefix;
        const unsigned *mask =
            (const unsigned *)a.mask + ((unsigned long long)b * a.s + i) * a.mask_words;

        if (j / 32 >= a.mask_words || !(mask[j / 32] >> (j % 32) & 1u))
            return false;
        pos = ((const int *)a.pos_id)[(unsigned long long)b * a.s + j];
    }
    return a.window <= 0 || (long long)pos > (long long)r.pos - a.window;
}

/* Which of the slots [slot, slot + 32) real row i of a tree sees, a bit each; slots before the tree
 * and the mask's words are taken at once. */
EW_DEV unsigned tree_row_sees(const ew_cuda_attn_args &a, const struct attn_row &r, unsigned b,
                              unsigned i, unsigned slot)
{
    const unsigned *const mask =
        (const unsigned *)a.mask + ((unsigned long long)b * a.s + i) * a.mask_words;
    const unsigned end = attn_row_end(a, r), before = r.prefix > slot ? r.prefix - slot : 0;
    const unsigned j = slot + before - r.prefix, w = j / 32; /* first tree row in reach */
    unsigned long long bits = 0;

    if (before < 32) {
        bits = (w < a.mask_words ? mask[w] : 0u) |
               (unsigned long long)(w + 1 < a.mask_words ? mask[w + 1] : 0u) << 32;
        bits = bits >> (j % 32) << before;
    }
    bits |= before < 32 ? (1ull << before) - 1 : ~0ull;
    if (end < slot + 32)
        bits &= end > slot ? (1ull << (end - slot)) - 1 : 0;
    for (unsigned k = 0; k < 32 && a.window > 0; k++) {
        const bool is_tree = slot + k >= r.prefix;

        if (!(bits >> k & 1u))
            continue;
        const int pos =
            is_tree ? ((const int *)a.pos_id)[(unsigned long long)b * a.s + slot + k - r.prefix]
                    : (int)(slot + k);
        if ((long long)pos <= (long long)r.pos - a.window)
            bits &= ~(1ull << k);
    }
    return (unsigned)bits;
}

/* ---- rows of the cache ---- */

EW_DEV unsigned char *kv_row(const ew_cuda_attn_args &a, unsigned b, unsigned is_v, unsigned h,
                             unsigned slot)
{
    return (unsigned char *)a.kv +
           (((unsigned long long)(b * 2 + is_v) * a.hkv + h) * a.cap + slot) * EW_ROW_BYTES;
}

/* What stored elements are multiplied with, beside an i8 row's own scale. */
EW_DEV float kv_head_scale(const ew_cuda_attn_args &a, unsigned is_v, unsigned h)
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
EW_DEV void kv_put(unsigned char *row, const float x[EW_LANE_ELEMS], float head_scale)
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

EW_DEV const float *attn_rope_row(const ew_cuda_attn_args &a, unsigned b, int pos)
{
    if (!a.rope || a.rope_rows == 0)
        return 0;
    return (const float *)a.rope + b * a.rope_batch_stride +
           (unsigned long long)min((unsigned)pos, a.rope_rows - 1) * a.rd;
}

/* What norm and RoPE do to the elements l + 32 j of a head: constants, which may be loaded before
 * the head itself is there. */
struct head_frame {
    float w[EW_LANE_ELEMS], w_other[EW_LANE_ELEMS]; /* of the element and of its RoPE partner */
    float cos[EW_LANE_ELEMS], sin[EW_LANE_ELEMS];
};

EW_DEV unsigned rope_partner(unsigned i, unsigned rd)
{
    return i < rd / 2 ? i + rd / 2 : i - rd / 2;
}

/* All of a head turns, and a lane has the partners of its own elements: fewer loads. */
#define TURNS_WHOLE(rd) (EW_D % 64 == 0 && (rd) == EW_D)
#define LANE_HALF       (EW_D % 64 == 0 ? EW_D / 64 : 0)

/* w: of this head, read if EW_NORM. rope: NULL for none. */
EW_DEV void head_frame_load(struct head_frame *f, const float *w, const float *rope, unsigned rd)
{
    const unsigned lane = threadIdx.x % 32;

#pragma unroll
    for (int j = 0; j < EW_LANE_ELEMS; j++) {
        f->w[j] = f->w_other[j] = f->cos[j] = 1.0f;
        f->sin[j] = 0.0f;
#if EW_NORM
        if (lane + 32 * j < EW_D)
            f->w[j] = w[lane + 32 * j];
#endif
    }
    if (!rope)
        return;
    if (TURNS_WHOLE(rd)) {
#pragma unroll
        for (int j = 0; j < EW_LANE_ELEMS; j++) {
            const int r = j < LANE_HALF ? j : j - LANE_HALF;

            f->w_other[j] = f->w[j < LANE_HALF ? j + LANE_HALF : r];
            f->cos[j] = j < LANE_HALF ? rope[lane + 32 * r] : f->cos[r];
            f->sin[j] = j < LANE_HALF ? -rope[EW_D / 2 + lane + 32 * r] : -f->sin[r];
        }
        return;
    }
#pragma unroll
    for (int j = 0; j < EW_LANE_ELEMS; j++) {
        const unsigned i = lane + 32 * j, r = i < rd / 2 ? i : i - rd / 2;

        if (i >= rd)
            break;
#if EW_NORM
        f->w_other[j] = w[rope_partner(i, rd)];
#endif
        f->cos[j] = rope[r];
        f->sin[j] = i < rd / 2 ? -rope[rd / 2 + r] : rope[rd / 2 + r];
    }
}

/* A head as it is. */
EW_DEV void head_copy(const float *x, float out[EW_LANE_ELEMS])
{
#pragma unroll
    for (int j = 0; j < EW_LANE_ELEMS; j++) {
        const unsigned i = threadIdx.x % 32 + 32 * j;

        out[j] = i < EW_D ? x[i] : 0.0f;
    }
}

/* A head after norm and RoPE. self: the head as it is (head_copy), at x in memory. inv: 1 / rms
 * where EW_NORM is 2. */
EW_DEV void head_turn(const float self[EW_LANE_ELEMS], const float *x, const struct head_frame *f,
                      float inv, float eps, const float *rope, unsigned rd,
                      float out[EW_LANE_ELEMS])
{
    const unsigned lane = threadIdx.x % 32;
    float other[EW_LANE_ELEMS];

#pragma unroll
    for (int j = 0; j < EW_LANE_ELEMS; j++)
        other[j] = 0.0f;
    if (rope && TURNS_WHOLE(rd)) {
#pragma unroll
        for (int j = 0; j < EW_LANE_ELEMS; j++)
            other[j] = self[j < LANE_HALF ? j + LANE_HALF : j - LANE_HALF];
    } else if (rope) {
#pragma unroll
        for (int j = 0; j < EW_LANE_ELEMS; j++)
            other[j] = lane + 32 * j < rd ? x[rope_partner(lane + 32 * j, rd)] : 0.0f;
    }
#if EW_NORM == 1
    float sum = 0;

#    pragma unroll
    for (int j = 0; j < EW_LANE_ELEMS; j++)
        sum += self[j] * self[j];
    inv = 1.0f / sqrtf(ew_warp_sum(sum) / (float)EW_D + eps);
#endif
#pragma unroll
    for (int j = 0; j < EW_LANE_ELEMS; j++) {
        const float a = EW_NORM ? self[j] * inv * f->w[j] : self[j];
        const float b = EW_NORM ? other[j] * inv * f->w_other[j] : other[j];

        out[j] = rope && lane + 32 * j < rd ? a * f->cos[j] + b * f->sin[j] : a;
    }
}

EW_DEV void head_load(const float *x, const struct head_frame *f, float inv, float eps,
                      const float *rope, unsigned rd, float out[EW_LANE_ELEMS])
{
    float self[EW_LANE_ELEMS];

    head_copy(x, self);
    head_turn(self, x, f, inv, eps, rope, rd, out);
}

#endif

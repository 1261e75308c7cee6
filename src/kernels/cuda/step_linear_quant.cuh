/* kernels/cuda/step_linear_quant.cuh - linear phases of step.cu, panels of 4- and 8-bit codes: the
 * input in shared memory and the products of a stage (order of the calls: step_linear.cuh). Device
 * only.
 *
 * 128 columns of the input are one integer each, q = round(x / xs) with xs = max|x| / 32256, and
 * that is two digits: q = d0 + 256 d1, both int8. A column of B (mma m16n8k32) is a digit; a panel
 * of 16 rows is A, and no code is moved to where a plain product would want it:
 *
 *   q4  A's rows 0..7 are the low nibbles of the panel's words (its rows 0..7), A's rows 8..15 the
 *       words as they are, whose bytes are 16 * high + low: what rows 8..15 of the panel sum up to
 * is the difference. Codes are code + 8: sums start at what the eights will add. q8  the bytes of a
 * word are rows g, g + 8, g, g + 8 of the panel. All four words of 32 columns are A as they are;
 * columns of B have zeros where the other row's bytes are: column d + 2h + 4r is digit d for rows
 * 8h..8h+7 and the columns that A's rows 8r..8r+7 hold.
 *
 * A warp multiplies 128 columns of a part, so that a group's scale is applied once. Lane 4g + t
 * gets the sums of row g + 8 (t % 2) of the panel (q8: those of lanes t and t + 2 are added). */
#ifndef EW_KERNELS_CUDA_STEP_LINEAR_QUANT_CUH
#define EW_KERNELS_CUDA_STEP_LINEAR_QUANT_CUH

#include "step_dev.cuh"

/* Columns whose products have one scale, or more of them than can be summed up: 32, 64 or 128. The
 * least of all phases. */
#ifndef EW_STEP_UNIT
#    define EW_STEP_UNIT 128
#endif
#define STEP_QUANT 128                         /* columns a warp multiplies at once */
#define STEP_UNITS (STEP_QUANT / EW_STEP_UNIT) /* units of those */

/* ---- the input ---- */
/* In s->x: the two digits, planes in the order of the panels' products: of each 64 columns [t][tile
 * of 16][2t, 2t+8, 2t+1, 2t+9]; then, of each 128 columns, struct quant_meta. */
struct quant_meta {
    float xs;
    int sum[STEP_UNITS]; /* q4: -8 times the integers of a unit, summed up */
};
EW_DEV uint32_t quant_plane(const struct ew_step_phase *ph)
{
    return ((ph->k + 127) & ~127u) + 64; /* digits of a lane in other banks */
}
EW_DEV struct quant_meta *quant_meta_of(const struct step *s, const struct ew_step_phase *ph)
{
    return (struct quant_meta *)(s->x + 2 * quant_plane(ph));
}
EW_DEV float max_or_nan(float a, float b)
{
    float r;

    asm("max.NaN.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
    return r;
}
/* Takes 128 columns apart: a lane has columns 2t, 2t+1, 2t+8, 2t+9 of tile lane / 4. */
template <int KIND>
EW_DEV void store_digits(uint32_t x, uint32_t plane, struct quant_meta *meta, const float v[4])
{
    const uint32_t lane = threadIdx.x % 32;
    const float amax = f32_of(__reduce_max_sync(
        EW_ALL, __float_as_uint(max_or_nan(max_or_nan(fabsf(v[0]), fabsf(v[1])),
                                           max_or_nan(fabsf(v[2]), fabsf(v[3]))))));
    /* 32256 is 126 * 256; beside numbers of 1e-30 nothing is seen of smaller ones */
    const float inv = amax > 1e-30f ? __fdividef(32256.0f, amax) : 0;
    const uint32_t at = x + lane / 16 * 64 + lane % 4 * 16 + lane / 4 % 4 * 4;
    uint32_t lo[4], hi[4];
    int sum;

#pragma unroll
    for (int j = 0; j < 4; j++) { /* 1.5 * 2^23: the low bits of the sum are the integer's */
        lo[j] = __float_as_uint(fmaf(v[j], inv, 12582912.0f));
        hi[j] = lo[j] + 128;
    }
    sts32(at,
          __byte_perm(__byte_perm(lo[0], lo[2], 0x40), __byte_perm(lo[1], lo[3], 0x40), 0x5410));
    sts32(at + plane,
          __byte_perm(__byte_perm(hi[0], hi[2], 0x51), __byte_perm(hi[1], hi[3], 0x51), 0x5410));
    if (lane == 0)
        meta->xs = amax > 1e-30f ? amax * (1 / 32256.0f) : amax == amax ? 0 : amax;
    if (KIND != EW_STEP_Q4)
        return;
    sum = (int)(lo[0] + lo[1] + (lo[2] + lo[3]) - 4 * 0x4b400000u);
    if (STEP_UNITS == 1) {
        sum = __reduce_add_sync(EW_ALL, sum);
    } else {
#pragma unroll
        for (int d = 1; d < EW_STEP_UNIT / 4; d *= 2)
            sum += __shfl_xor_sync(EW_ALL, sum, d);
    }
    if (lane % (EW_STEP_UNIT / 4) == 0)
        meta->sum[lane / (EW_STEP_UNIT / 4)] = -8 * sum;
}
template <int KIND, int STEP_ASK8>
EW_DEV void load_x8(struct step *s, const struct ew_step_phase *ph)
{
    constexpr uint32_t STEP = EW_STEP_WARPS * 128;
    const uint64_t from = s->a->workspace + (uint64_t)ph->in * 8;
    const uint32_t plane = quant_plane(ph), warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const uint32_t first = lane / 4 * 16 + lane % 4 * 2; /* of the lane's columns, then + 8 */
    float sum = 0;

#pragma unroll 1
    for (uint32_t i0 = warp * 128; i0 < ph->k; i0 += STEP_ASK8 * STEP) {
        struct two_packets p[2 * STEP_ASK8];
        float2 w[2 * STEP_ASK8];
        uint32_t n = 0;
        bool all = false;

#pragma unroll
        for (int j = 0; j < STEP_ASK8; j++) {
            const uint32_t i = i0 + (uint32_t)j * STEP + first;

            w[2 * j] = w[2 * j + 1] = make_float2(1, 1);
            p[2 * j].a = p[2 * j].b = p[2 * j + 1].a = p[2 * j + 1].b = (uint64_t)s->in_seq << 32;
            if (ph->flags & EW_STEP_NORM && i < ph->k) {
                w[2 * j] = *(const float2 *)(ph->norm + (uint64_t)i * 4);
                w[2 * j + 1] = *(const float2 *)(ph->norm + (uint64_t)i * 4 + 32);
            }
        }
        while (!all) { /* as input_wait */
            all = true;
#pragma unroll
            for (int j = 0; j < STEP_ASK8; j++) {
                const uint32_t i = i0 + (uint32_t)j * STEP + first;

                if (i < ph->k) { /* a multiple of 16 */
                    p[2 * j] = packets_load(from + (uint64_t)i * 8);
                    p[2 * j + 1] = packets_load(from + (uint64_t)i * 8 + 64);
                }
            }
#pragma unroll
            for (int j = 0; j < 2 * STEP_ASK8; j++)
                all = all && packet_is(p[j].a, s->in_seq) && packet_is(p[j].b, s->in_seq);
            if (!all)
                poll_pause(n);
            if (++n > EW_STEP_POLL_LIMIT)
                step_gave_up(s);
        }
        __syncwarp();
#pragma unroll
        for (int j = 0; j < STEP_ASK8; j++) {
            const uint32_t b = i0 + (uint32_t)j * STEP, i = b + first;
            float v[4] = { 0, 0, 0, 0 };

            if (b >= ph->k)
                break;
            if (i < ph->k) {
                const float a0 = packet_value(p[2 * j].a), a1 = packet_value(p[2 * j].b);
                const float a2 = packet_value(p[2 * j + 1].a), a3 = packet_value(p[2 * j + 1].b);

                if (ph->flags & EW_STEP_KEEP) {
                    *(float2 *)(s->keep + i) = make_float2(a0, a1);
                    *(float2 *)(s->keep + i + 8) = make_float2(a2, a3);
                }
                sum += a0 * a0 + a1 * a1 + (a2 * a2 + a3 * a3);
                v[0] = a0 * w[2 * j].x;
                v[1] = a1 * w[2 * j].y;
                v[2] = a2 * w[2 * j + 1].x;
                v[3] = a3 * w[2 * j + 1].y;
            }
            store_digits<KIND>(smem_of(s->x) + b, plane, quant_meta_of(s, ph) + b / 128, v);
        }
    }
    if (ph->flags & EW_STEP_NORM) {
        sum = warp_sum(sum);
        if (lane == 0)
            s->sums[warp] = sum;
    }
}

/* ---- products ---- */
template <int KIND> struct quant_part {
    uint4 w[KIND == EW_STEP_Q4 ? 2 : 4];
    uint32_t x[8]; /* of 16 columns each */
    struct quant_meta meta;
    float scale[STEP_UNITS];
    float acc, row;
};
/* Whether this warp has columns of a part. If not it multiplies the last ones by zero: registers
 * written under a condition would live too long. */
EW_DEV bool quant_has(uint32_t cols)
{
    return threadIdx.x / 32 * STEP_QUANT < cols;
}
/* The first of its columns. */
EW_DEV uint32_t quant_first(uint32_t cols)
{
    return min(threadIdx.x / 32 * STEP_QUANT, (cols - 1) & ~(STEP_QUANT - 1));
}
template <int KIND> EW_DEV uint32_t quant_scales(const struct ew_step_phase *ph, uint32_t at)
{
    return at + ph->chunk * (KIND == EW_STEP_Q4 ? 8 : 16);
}
EW_DEV float lds_scale(uint32_t at)
{
    unsigned short h;

    asm volatile("ld.shared.u16 %0, [%1];" : "=h"(h) : "r"(at));
    return half2_get<EW_STEP_SCALE_F16>(h).x;
}
template <bool FULL, int KIND>
EW_DEV void part_ask(struct quant_part<KIND> *p, const struct ew_step_phase *ph, uint32_t at,
                     uint32_t col, uint32_t cols)
{
    constexpr uint32_t CODE = KIND == EW_STEP_Q4 ? 8 : 16;
    const uint32_t lane = threadIdx.x % 32, first = quant_first(cols);
    const uint32_t group = ph->group_log2;
    const uint32_t scales = quant_scales<KIND>(ph, at) + lane / 4 * 4 + lane % 2 * 2;

    (void)col;
#pragma unroll
    for (uint32_t j = 0; j < STEP_QUANT * CODE / 512; j++)
        p->w[j] = lds128(at + first * CODE + j * 512 + lane * 16);
#pragma unroll
    for (uint32_t u = 0; u < STEP_UNITS; u++) {
        const uint32_t g = (first + u * EW_STEP_UNIT) >> group;

        p->scale[u] = 1;
        if (EW_STEP_UNIT == 32 && KIND == EW_STEP_Q4 && group == 5) /* [g / 2][8][g % 2][2] */
            p->scale[u] = lds_scale(scales + g / 2 * 64 + lane / 4 * 4 + g % 2 * 4);
        else if (group)
            p->scale[u] = lds_scale(scales + g * 32);
    }
}
template <bool FULL, int KIND>
EW_DEV void part_x(struct quant_part<KIND> *p, const struct step *s, const struct ew_step_phase *ph,
                   uint32_t col, uint32_t cols)
{
    const uint32_t lane = threadIdx.x % 32, at = col + quant_first(cols);
    const uint32_t x = smem_of(s->x) + (lane / 4 % 2) * quant_plane(ph) + at + lane % 4 * 16;
    /* q8: bytes 0 and 2 or 1 and 3 (4r) of x to bytes 0 and 2 or 1 and 3 (2h); byte 4 is 0 */
    const uint32_t pick = lane & 16 ? (lane & 8 ? 0x3414 : 0x4341) : lane & 8 ? 0x2404 : 0x4240;

    p->meta = quant_meta_of(s, ph)[at / STEP_QUANT];
    /* the sums of A's rows 8..15 are of 16 times the codes */
    p->meta.xs *= !quant_has(cols) ? 0 : KIND == EW_STEP_Q4 && lane % 2 ? 1 / 16.0f : 1;
#pragma unroll
    for (int j = 0; j < 2; j++) {
        const uint4 v = lds128(x + (uint32_t)j * 64);

        p->x[4 * j] = v.x;
        p->x[4 * j + 1] = v.y;
        p->x[4 * j + 2] = v.z;
        p->x[4 * j + 3] = v.w;
    }
    if (KIND == EW_STEP_Q8)
#pragma unroll
        for (int j = 0; j < 8; j++)
            p->x[j] = __byte_perm(p->x[j], 0, pick);
}
template <int KIND> EW_DEV void part_zero(struct quant_part<KIND> *p)
{
    p->acc = 0;
}
/* Of 32 columns, the j-th of the four. */
EW_DEV void quant_product(const struct quant_part<EW_STEP_Q4> *p, int j, int c[4])
{
    const uint32_t a = j % 2 ? p->w[j / 2].z : p->w[j / 2].x;
    const uint32_t b = j % 2 ? p->w[j / 2].w : p->w[j / 2].y;

    mma8u(c, a & 0x0f0f0f0fu, a, b & 0x0f0f0f0fu, b, p->x[2 * j], p->x[2 * j + 1]);
}
EW_DEV void quant_product(const struct quant_part<EW_STEP_Q8> *p, int j, int c[4])
{
    mma8(c, p->w[j].x, p->w[j].y, p->w[j].z, p->w[j].w, p->x[2 * j], p->x[2 * j + 1]);
}
/* What the sums of a unit are to this lane's row. */
template <int KIND> EW_DEV float quant_sum(const int c[4])
{
    const int a = c[0] + c[1] * 256, b = c[2] + c[3] * 256;

    if (KIND == EW_STEP_Q4)
        return (float)(threadIdx.x % 2 ? b - a : a);
    return (float)(threadIdx.x & 2 ? b : a);
}
template <bool FULL, int KIND>
EW_DEV void part_add(struct quant_part<KIND> *p, const struct step *s,
                     const struct ew_step_phase *ph, uint32_t at, uint32_t col, uint32_t cols)
{
    const uint32_t lane = threadIdx.x % 32;

    (void)s;
    if (col + cols >= ph->k) /* the last part of a tile has these */
        p->row = f32_of(lds32(quant_scales<KIND>(ph, at) +
                              (ph->group_log2 ? cols >> ph->group_log2 << 5 : 0) + lane / 4 * 4 +
                              lane % 2 * 32));
#pragma unroll
    for (int u = 0; u < STEP_UNITS; u++) {
        const int eights = KIND == EW_STEP_Q4 ? p->meta.sum[u] : 0;
        int c[4] = { eights, 0, eights * 17, 0 }, d[4] = { 0, 0, 0, 0 };

        if (u && quant_first(cols) + (uint32_t)u * EW_STEP_UNIT >= cols)
            break; /* whose scales nobody wrote */
#pragma unroll
        for (int j = 0; j < EW_STEP_UNIT / 32; j++) /* two chains */
            quant_product(p, u * (EW_STEP_UNIT / 32) + j, j % 2 ? d : c);
#pragma unroll
        for (int j = 0; j < 4; j++)
            c[j] += d[j];
        p->acc = fmaf(quant_sum<KIND>(c), p->scale[u] * p->meta.xs, p->acc);
    }
}
template <int KIND> EW_DEV void part_store(const struct quant_part<KIND> *p, float *red)
{
    const uint32_t lane = threadIdx.x % 32;
    float v = p->acc;

    if (KIND == EW_STEP_Q8)
        v += __shfl_xor_sync(EW_ALL, v, 2);
    if (lane % 4 < 2)
        red[(lane / 4 + lane % 2 * 8) * EW_STEP_WARPS] = v * p->row;
}

#endif

/* kernels/cuda/step_linear_quant.cuh - linear phases of step.cu, panels of 4- and 8-bit codes: the
 * input in shared memory and the products. Device only.
 *
 * A column of the input is an integer, q = round(x / xs) with xs = max|x| / 32256 of up to 512, and
 * that is two digits: q = d0 + 256 d1, both int8. A column of B (mma m16n8k32) is a digit; a panel
 * of 16 rows is A, as it lies in memory: no code is moved to where a plain product would want it.
 * Where that puts columns of x or rows of the panel beside each other that do not belong together,
 * a column of B has what belongs together, and what else the product has is not used. Column
 * d + 2r + 4h of B is for digit d and for what A's rows 8r..8r+7 hold:
 *
 * q4: 64 columns of a panel are four words a lane, one a tile of 16 columns. A's rows 0..7 are
 * tiles 0 and 2, rows 8..15 are tiles 1 and 3. The low nibbles of a word are rows 0..7 of the
 * panel. One product has them alone, another the words as they are, whose bytes are 16 * high +
 * low: rows 8..15 of the panel are the difference. Codes are code + 8: sums start at what the
 * eights will add. h says nothing.
 *
 * q8: 32 columns are four words, two a tile; the bytes of a word are rows g, g + 8, g, g + 8 of the
 * panel. A's rows 0..7 are the first of each two words, rows 8..15 the second; columns of B have
 * zeros where the bytes of rows 8(1-h).. are.
 *
 * A warp multiplies 128 columns of a part, so that a group's scale is applied once. Lane
 * 4g + r + 2h gets sums of row g + 8h of the panel; those of r = 0 and 1 are added. */
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
static_assert(EW_STEP_WARPS * STEP_QUANT == STEP_COLS,
              "each warp takes and multiplies its columns");

/* ---- copying ---- */
/* A stage has whole panels, as they lie in memory, or one part of a panel: `chunk` columns, behind
 * them their scales, and in the last part those of the rows. */
EW_DEV bool quant_whole(const struct ew_step_phase *ph)
{
    return ph->chunk >= ph->k;
}
template <int KIND> EW_DEV uint32_t quant_scales_at(const struct ew_step_phase *ph)
{
    return quant_whole(ph) ? ph->scales_at : ph->chunk * (KIND == EW_STEP_Q4 ? 8 : 16);
}
EW_DEV uint32_t quant_scale_bytes(const struct ew_step_phase *ph, uint32_t cols)
{
    return ph->group_log2 ? cols >> ph->group_log2 << 5 : 0;
}
/* The next stage: a part of the panel at w, from `col` on. */
template <int KIND>
EW_DEV void quant_copy_part(struct step *s, const struct ew_step_phase *ph, uint64_t w,
                            uint32_t col)
{
    constexpr uint32_t CODE = KIND == EW_STEP_Q4 ? 8 : 16;
    const uint32_t cols = min(ph->chunk, ph->k - col);
    const uint32_t scales = quant_scale_bytes(ph, cols) + (col + cols >= ph->k ? 64 : 0);

    if (copy_begin(s, cols * CODE + scales)) {
        copy_run(s, ring_at(s), w + col * CODE, cols * CODE);
        if (scales)
            copy_run(s, ring_at(s) + ph->chunk * CODE,
                     w + ph->scales_at + quant_scale_bytes(ph, col), scales);
        copy_end(s);
    }
}
/* Panels [tile, tile + n) of the weight; stages end where groups of RED_ROWS outputs do. */
template <int KIND>
EW_DEV void quant_copy(struct step *s, const struct ew_step_phase *ph, uint32_t tile, uint32_t n)
{
    constexpr uint32_t GROUP = EW_STEP_RED_ROWS / 16;
    uint64_t w = ph->w + (uint64_t)tile * ph->stride;

    if (quant_whole(ph)) {
#pragma unroll 1
        for (uint32_t i = 0; i < n;) {
            const uint32_t here = min(ph->batch, min(n, (i / GROUP + 1) * GROUP) - i);

            if (copy_begin(s, here * ph->stride)) {
                copy_run(s, ring_at(s), w, here * ph->stride);
                copy_end(s);
            }
            w += (uint64_t)here * ph->stride;
            i += here;
        }
        return;
    }
#pragma unroll 1
    for (uint32_t i = 0; i < n; i++, w += ph->stride) {
#pragma unroll 1
        for (uint32_t col = 0; col < ph->k; col += ph->chunk)
            quant_copy_part<KIND>(s, ph, w, col);
    }
}

/* ---- the input ---- */
/* In s->x: the two digits, planes in the order of the products: of each 128 columns [t][tile of 16
 * % 2][tile / 2][2t, 2t+8, 2t+1, 2t+9]; then, of each 128 columns, struct quant_meta. */
struct quant_meta {
    float xs;
    int sum[STEP_UNITS]; /* q4: -8 times the integers of a unit, summed up */
};
EW_DEV uint32_t quant_plane(const struct ew_step_phase *ph)
{
    return ((ph->k + 127) & ~127u) + 16; /* the digits in other banks */
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
/* Where a lane puts its digits of 128 columns, from their start. */
EW_DEV uint32_t quant_digits_at(void)
{
    const uint32_t lane = threadIdx.x % 32;

    return lane % 4 * 32 + lane / 4 % 2 * 16 + lane / 8 * 4;
}
/* Takes 128 columns apart, of which a lane has 2t, 2t+1, 2t+8, 2t+9 of tile lane / 4 and puts the
 * digits at `at`; the sum of the lane's integers. */
EW_DEV int store_digits(uint32_t at, uint32_t plane, const float v[4], float inv)
{
    uint32_t q[4];

    /* 1.5 * 2^23 + 128: the low bits of the sum are the integer's, plus 128; so the upper digit is
     * rounded, and the lower one is 128 off, which is its sign */
#pragma unroll
    for (int j = 0; j < 4; j++)
        q[j] = __float_as_uint(fmaf(v[j], inv, 12583040.0f));
    sts32(at, __byte_perm(__byte_perm(q[0], q[2], 0x40), __byte_perm(q[1], q[3], 0x40), 0x5410) ^
                  0x80808080u);
    sts32(at + plane,
          __byte_perm(__byte_perm(q[0], q[2], 0x51), __byte_perm(q[1], q[3], 0x51), 0x5410));
    return (int)(q[0] + q[1] + (q[2] + q[3]) - 4 * 0x4b400080u);
}
/* What one integer of a set of columns is worth, and how many of them one is, of the largest
 * magnitude: beside numbers of 1e-30 nothing is seen of smaller ones. */
struct quant_unit {
    float xs, inv;
};
EW_DEV struct quant_unit quant_unit_of(float amax)
{
    struct quant_unit u;

    amax = f32_of(__reduce_max_sync(EW_ALL, __float_as_uint(amax))); /* a NaN is larger than all */
    amax = max_or_nan(amax, 1e-30f);
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(u.inv) : "f"(amax));
    u.inv *= 32256.0f; /* 126 * 256 */
    u.xs = amax * (1 / 32256.0f);
    return u;
}
/* Of 128 columns whose lanes' sums of integers are sum: of each unit, -8 times them all. */
template <int KIND> EW_DEV void quant_sums(int out[STEP_UNITS], int sum)
{
    if (STEP_UNITS == 1) {
        out[0] = KIND == EW_STEP_Q4 ? -8 * __reduce_add_sync(EW_ALL, sum) : 0;
        return;
    }
#pragma unroll
    for (int d = 1; d < EW_STEP_UNIT / 4; d *= 2)
        sum += __shfl_xor_sync(EW_ALL, sum, d);
#pragma unroll
    for (int u = 0; u < STEP_UNITS; u++)
        out[u] = -8 * __shfl_sync(EW_ALL, sum, u * (EW_STEP_UNIT / 4));
}
/* ASK times 128 columns of the input, from i0 on and STEP_COLS apart, times the norm's weights; the
 * packets are asked for at once, since an answer takes 600 clocks. What is behind the input is 0;
 * LAST: that is in the last of them alone. The sum of this thread's squares is added to *sum; the
 * largest magnitude. */
template <int ASK, bool LAST>
EW_DEV float quant_wait(const struct step *s, const struct ew_step_phase *ph, uint32_t i0,
                        float v[4 * ASK], float *sum)
{
    const uint64_t from = pairs_at(s, ph->in);
    const uint32_t lane = threadIdx.x % 32;
    const uint32_t first = i0 + lane / 4 * 16 + lane % 4 * 2; /* of the lane's columns, then + 8 */
    uint64_t p[2 * ASK];
    float2 w[2 * ASK];
    float amax = 0;
    uint32_t n = 0;
    bool all = false;

#pragma unroll
    for (int j = 0; j < ASK; j++) {
        const uint32_t i = first + (uint32_t)j * STEP_COLS;
        const bool is_in = (LAST && j + 1 < ASK) || i < ph->k; /* k: a multiple of 16 */
        const bool normed = ph->flags & EW_STEP_NORM && is_in;

        w[2 * j] = normed ? *(const float2 *)(ph->norm + (uint64_t)i * 4) : make_float2(1, 1);
        w[2 * j + 1] =
            normed ? *(const float2 *)(ph->norm + (uint64_t)i * 4 + 32) : make_float2(1, 1);
    }
    while (!all) {
        all = true;
#pragma unroll
        for (int j = 0; j < ASK; j++) {
            const uint32_t i = first + (uint32_t)j * STEP_COLS;
            const bool is_in = (LAST && j + 1 < ASK) || i < ph->k;
            const uint64_t nothing = (uint64_t)s->in_seq << 32; /* zeros that are there */

            p[2 * j] = is_in ? packet_load(from + (uint64_t)i * 4) : nothing;
            p[2 * j + 1] = is_in ? packet_load(from + (uint64_t)i * 4 + 32) : nothing;
        }
#pragma unroll
        for (int j = 0; j < 2 * ASK; j++)
            all = all && packet_is(p[j], s->in_seq);
        if (++n > EW_STEP_POLL_LIMIT)
            step_gave_up(s);
    }
    __syncwarp();
#pragma unroll
    for (int j = 0; j < 2 * ASK; j++) {
        const float2 x = pair_value(p[j]);

        *sum += x.x * x.x + x.y * x.y;
        v[2 * j] = x.x * w[j].x;
        v[2 * j + 1] = x.y * w[j].y;
        amax = max_or_nan(amax, max_or_nan(fabsf(v[2 * j]), fabsf(v[2 * j + 1])));
    }
    return amax;
}
/* Columns of the input taken apart by this warp, those that it multiplies; this thread's part of
 * their sum of squares. ASK times 128 of them share xs. */
template <int KIND, int ASK> EW_DEV float quant_take(struct step *s, const struct ew_step_phase *ph)
{
    const uint32_t lane = threadIdx.x % 32, to = smem_of(s->x) + quant_digits_at();
    float sum = 0;

#pragma unroll 1
    for (uint32_t i0 = threadIdx.x / 32 * STEP_QUANT; i0 < ph->k; i0 += ASK * STEP_COLS) {
        float v[4 * ASK];
        const struct quant_unit unit = quant_unit_of(quant_wait<ASK, false>(s, ph, i0, v, &sum));

#pragma unroll
        for (int j = 0; j < ASK; j++) {
            const uint32_t i = i0 + (uint32_t)j * STEP_COLS;
            struct quant_meta *meta = quant_meta_of(s, ph) + i / STEP_QUANT;
            int all[STEP_UNITS];

            if (i >= ph->k)
                break;
            quant_sums<KIND>(all, store_digits(to + i, quant_plane(ph), v + 4 * j, unit.inv));
            if (lane == 0)
                meta->xs = unit.xs;
#pragma unroll
            for (int u = 0; u < STEP_UNITS; u++)
                if ((int)lane == u)
                    meta->sum[u] = all[u];
        }
    }
    __syncwarp(); /* it reads no other warp's columns */
    return sum;
}

/* ---- products ---- */
/* Where 128 columns are that a warp multiplies, from the start of a part. A warp that has none
 * there multiplies the last ones by zero: what is done under a condition costs more. */
struct quant_place {
    uint32_t first;
    float unit;
};
/* What the sums of this lane are worth: q4's of rows 8..15 are of 16 times the codes. */
template <int KIND> EW_DEV float quant_times(bool has)
{
    return !has ? 0 : KIND == EW_STEP_Q4 && threadIdx.x & 2 ? 1 / 16.0f : 1;
}
template <int KIND> EW_DEV struct quant_place quant_place_of(uint32_t turn, uint32_t cols)
{
    const uint32_t want = turn * STEP_COLS + threadIdx.x / 32 * STEP_QUANT;
    struct quant_place w;

    w.first = min(want, (cols - 1) & ~(STEP_QUANT - 1u));
    w.unit = quant_times<KIND>(want < cols);
    return w;
}

template <int KIND> struct quant_codes {
    uint4 w[KIND == EW_STEP_Q4 ? 2 : 4];
    float scale[STEP_UNITS];
};
template <int KIND> struct quant_input {
    uint32_t x[KIND == EW_STEP_Q4 ? 4 : 8];
    float xs;
    int sum[STEP_UNITS];
};
EW_DEV float lds_scale(uint32_t at)
{
    unsigned short h;

    asm volatile("ld.shared.u16 %0, [%1];" : "=h"(h) : "r"(at));
    return half2_get<EW_STEP_SCALE_F16>(h).x;
}
template <int KIND>
EW_DEV void quant_ask(struct quant_codes<KIND> *p, const struct ew_step_phase *ph, uint32_t first,
                      uint32_t at)
{
    const uint32_t lane = threadIdx.x % 32, group = ph->group_log2;
    const uint32_t codes = at + first * (KIND == EW_STEP_Q4 ? 8 : 16) + lane * 16;
    const uint32_t scales = at + quant_scales_at<KIND>(ph) + lane / 4 * 4 + lane % 4 / 2 * 2;

#pragma unroll
    for (uint32_t j = 0; j < (KIND == EW_STEP_Q4 ? 2 : 4); j++)
        p->w[j] = lds128(codes + j * 512);
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
/* Where a lane finds what it multiplies of the digits of 128 columns, from their start. */
template <int KIND> EW_DEV uint32_t quant_digits_from(uint32_t plane)
{
    const uint32_t lane = threadIdx.x % 32;

    return lane / 4 % 2 * plane + lane % 4 * 32 + (KIND == EW_STEP_Q4 ? lane / 8 % 2 * 16 : 0);
}
template <int KIND> EW_DEV void quant_digits_load(struct quant_input<KIND> *p, uint32_t at)
{
    const uint32_t lane = threadIdx.x % 32;

    if (KIND == EW_STEP_Q4) {
        const uint4 v = lds128(at);

        p->x[0] = v.x;
        p->x[1] = v.y;
        p->x[2] = v.z;
        p->x[3] = v.w;
    } else {
        /* bytes 0 and 2 or 1 and 3 (r) of x to bytes 0 and 2 or 1 and 3 (h); byte 4 is 0 */
        const uint32_t pick = lane & 8    ? (lane & 16 ? 0x3414 : 0x4341)
                              : lane & 16 ? 0x2404
                                          : 0x4240;
        const uint4 v = lds128(at), u = lds128(at + 16);

        p->x[0] = __byte_perm(v.x, 0, pick);
        p->x[1] = __byte_perm(u.x, 0, pick);
        p->x[2] = __byte_perm(v.y, 0, pick);
        p->x[3] = __byte_perm(u.y, 0, pick);
        p->x[4] = __byte_perm(v.z, 0, pick);
        p->x[5] = __byte_perm(u.z, 0, pick);
        p->x[6] = __byte_perm(v.w, 0, pick);
        p->x[7] = __byte_perm(u.w, 0, pick);
    }
}
/* The input: columns from `col` on, which are this warp's. */
template <int KIND>
EW_DEV void quant_x(struct quant_input<KIND> *p, const struct step *s,
                    const struct ew_step_phase *ph, uint32_t col, float unit)
{
    const uint32_t plane = quant_plane(ph), x = smem_of(s->x);
    const uint32_t meta = x + 2 * plane + col / STEP_QUANT * (uint32_t)sizeof(struct quant_meta);

    quant_digits_load(p, x + col + quant_digits_from<KIND>(plane));
    if (STEP_UNITS == 1) {
        const uint2 v = lds64(meta);

        p->xs = f32_of(v.x);
        p->sum[0] = (int)v.y;
    } else {
        p->xs = f32_of(lds32(meta));
#pragma unroll
        for (uint32_t u = 0; u < STEP_UNITS; u++)
            p->sum[u] = (int)lds32(meta + 4 + 4 * u);
    }
    p->xs *= unit;
}
/* An input of T turns, which is up to T times STEP_COLS columns: of them this warp's into
 * registers. A warp that has none in the last turn has zeros there, which it multiplies. This
 * thread's part of the sum of squares. */
template <int KIND, int T>
EW_DEV float quant_take_whole(struct quant_input<KIND> x[T], struct step *s,
                              const struct ew_step_phase *ph)
{
    const uint32_t i0 = threadIdx.x / 32 * STEP_QUANT, plane = quant_plane(ph);
    const bool has_last = i0 + (T - 1) * STEP_COLS < ph->k;
    uint32_t to = smem_of(s->x) + i0 + quant_digits_at();
    uint32_t from = smem_of(s->x) + i0 + quant_digits_from<KIND>(plane);
    float v[4 * T], sum = 0, times = quant_times<KIND>(true), last = quant_times<KIND>(has_last);
    struct quant_unit unit;
    int ints[T];

    asm volatile("" : "+r"(to), "+r"(from), "+f"(times), "+f"(last)); /* not behind the wait */
    unit = quant_unit_of(quant_wait<T, true>(s, ph, i0, v, &sum));
#pragma unroll
    for (int t = 0; t < T; t++) {
        ints[t] = 0;
        if (t + 1 < T || has_last)
            ints[t] = store_digits(to + t * STEP_COLS, plane, v + 4 * t, unit.inv);
    }
    __syncwarp();
#pragma unroll
    for (int t = 0; t < T; t++) {
        x[t].xs = unit.xs * (t + 1 < T ? times : last);
#pragma unroll
        for (int i = 0; i < (KIND == EW_STEP_Q4 ? 4 : 8); i++)
            x[t].x[i] = 0;
        if (t + 1 < T || has_last)
            quant_digits_load(&x[t], from + t * STEP_COLS);
    }
#pragma unroll
    for (int t = 0; t < T; t++)
        quant_sums<KIND>(x[t].sum, ints[t]);
    return sum;
}
/* The sum of a unit for this lane's r. */
EW_DEV int quant_digits(const int c[4])
{
    const bool r = threadIdx.x & 1;

    return (r ? c[2] : c[0]) + (r ? c[3] : c[1]) * 256;
}
EW_DEV float quant_sum(const struct quant_codes<EW_STEP_Q4> *p,
                       const struct quant_input<EW_STEP_Q4> *x, int u)
{
    int low[4] = { x->sum[u], 0, 0, 0 }, all[4] = { 17 * x->sum[u], 0, 0, 0 }, v;

#pragma unroll
    for (int j = 0; j < (EW_STEP_UNIT + 63) / 64; j++) {
        const int b = u * EW_STEP_UNIT / 64 + j;
        const uint4 w = p->w[b];
        const uint32_t x0 = EW_STEP_UNIT == 32 && u % 2 ? 0 : x->x[2 * b];
        const uint32_t x1 = EW_STEP_UNIT == 32 && u % 2 == 0 ? 0 : x->x[2 * b + 1];

        mma8u(all, w.x, w.y, w.z, w.w, x0, x1);
        mma8u(low, w.x & 0x0f0f0f0fu, w.y & 0x0f0f0f0fu, w.z & 0x0f0f0f0fu, w.w & 0x0f0f0f0fu, x0,
              x1);
    }
    v = quant_digits(low);
    return (float)(threadIdx.x & 2 ? quant_digits(all) - v : v);
}
EW_DEV float quant_sum(const struct quant_codes<EW_STEP_Q8> *p,
                       const struct quant_input<EW_STEP_Q8> *x, int u)
{
    int c[2][4] = { { 0, 0, 0, 0 }, { 0, 0, 0, 0 } };

#pragma unroll
    for (int j = 0; j < EW_STEP_UNIT / 32; j++) { /* two chains */
        const int b = u * EW_STEP_UNIT / 32 + j;
        const uint4 w = p->w[b];

        mma8(c[j % 2], w.x, w.y, w.z, w.w, x->x[2 * b], x->x[2 * b + 1]);
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
        c[0][i] += c[1][i];
    return (float)quant_digits(c[0]);
}
/* The products of a part of which the warp has `cols` columns, or 128 of more. */
template <int KIND>
EW_DEV float quant_products(const struct quant_codes<KIND> *p, const struct quant_input<KIND> *x,
                            uint32_t cols)
{
    float sum = 0;

#pragma unroll
    for (int u = 0; u < STEP_UNITS; u++) {
        if (u && (uint32_t)u * EW_STEP_UNIT >= cols)
            break; /* whose scales nobody wrote */
        sum = fmaf(quant_sum(p, x, u), p->scale[u] * x->xs, sum);
    }
    return sum;
}
/* A row's sum of this warp to red, a shared address; where the next panel's goes. */
EW_DEV uint32_t quant_store(uint32_t red, float acc, float row)
{
    acc += __shfl_xor_sync(EW_ALL, acc, 1);
    if (threadIdx.x % 2 == 0)
        sts32(red, __float_as_uint(acc * row));
    return red + 16 * EW_STEP_WARPS * 4;
}
/* Where a lane's sums of a group's first panel go, in the half 0 of red. */
EW_DEV uint32_t quant_red(const struct step *s)
{
    const uint32_t lane = threadIdx.x % 32;

    return smem_of(s->red) + ((lane / 4 + lane % 4 / 2 * 8) * EW_STEP_WARPS + threadIdx.x / 32) * 4;
}
/* What products begin with, in registers before the input is there: codes and scales of two panels
 * of one turn, else of one of T; T 0, of longer ones or parts of them, of two turns. */
template <int KIND, int T> struct quant_ahead {
    static constexpr int N = T <= 1 ? 2 : T, PANELS = T == 1 ? 2 : 1;
    struct quant_codes<KIND> w[N];
    float row[PANELS];
};
EW_DEV uint32_t quant_row_at(const struct ew_step_phase *ph)
{
    const uint32_t lane = threadIdx.x % 32;

    return ph->row_scales_at + lane / 4 * 4 + lane % 4 / 2 * 32;
}
/* Of panels of T turns, of which n are in the stage. Two at once where they have one turn: each
 * alone is a chain in which every instruction waits for the one before. The second may not be
 * there; then it is the first again, not used. */
template <int KIND, int T>
EW_DEV void quant_ask_whole(struct quant_ahead<KIND, T> *a, const struct ew_step_phase *ph,
                            uint32_t at, uint32_t n)
{
    const uint32_t last = quant_place_of<KIND>(T - 1, ph->k).first;

    if (T == 1) {
#pragma unroll
        for (uint32_t j = 0; j < 2; j++) {
            const uint32_t from = j && n > 1 ? at + ph->stride : at;

            quant_ask(&a->w[j], ph, last, from);
            a->row[j] = f32_of(lds32(from + quant_row_at(ph)));
        }
        return;
    }
#pragma unroll
    for (uint32_t t = 0; t < T; t++)
        quant_ask(&a->w[t], ph, t + 1 < T ? t * STEP_COLS + threadIdx.x / 32 * STEP_QUANT : last,
                  at);
    a->row[0] = f32_of(lds32(at + quant_row_at(ph)));
}
/* Of longer ones, whole or by parts of `cols` columns: two turns of a part. */
template <int KIND>
EW_DEV void quant_ask_long(struct quant_ahead<KIND, 0> *a, const struct ew_step_phase *ph,
                           uint32_t at, uint32_t turn, uint32_t cols)
{
#pragma unroll
    for (uint32_t j = 0; j < 2; j++)
        quant_ask(&a->w[j], ph, quant_place_of<KIND>(turn + j, cols).first, at);
    a->row[0] = f32_of(lds32(at + quant_row_at(ph)));
}
/* Waits for the first stage of a group of n panels. */
template <int KIND, int T>
EW_DEV void quant_begin(struct quant_ahead<KIND, T> *a, struct step *s,
                        const struct ew_step_phase *ph, uint32_t n)
{
    ring_wait_full(s);
    quant_ask_whole(a, ph, ring_at(s), min(ph->batch, n));
}
template <int KIND>
EW_DEV void quant_begin(struct quant_ahead<KIND, 0> *a, struct step *s,
                        const struct ew_step_phase *ph, uint32_t n)
{
    (void)n;
    ring_wait_full(s);
    quant_ask_long(a, ph, ring_at(s), 0, min(ph->chunk, ph->k));
}

/* What was asked for, multiplied: a sum a panel. */
template <int KIND, int T>
EW_DEV void quant_sums_whole(float sum[2], const struct quant_ahead<KIND, T> *a,
                             const struct quant_input<KIND> *x, uint32_t k)
{
    const uint32_t last = k - quant_place_of<KIND>(T - 1, k).first;

    sum[0] = sum[1] = 0;
    if (T == 1) {
        sum[0] = quant_products(&a->w[0], x, last);
        sum[1] = quant_products(&a->w[1], x, last);
        return;
    }
#pragma unroll
    for (int t = 0; t < T; t++)
        sum[0] += quant_products(&a->w[t], &x[t], t + 1 < T ? STEP_QUANT : last);
}
/* Whole panels of a group into red; *squares becomes its sum over the warp, while products wait. */
template <int KIND, int T>
EW_DEV void quant_tiles_whole(struct step *s, const struct ew_step_phase *ph, uint32_t n,
                              uint32_t red, struct quant_ahead<KIND, T> *a,
                              const struct quant_input<KIND> *x, float *squares)
{
    constexpr uint32_t PANELS = quant_ahead<KIND, T>::PANELS;
    uint32_t at = ring_at(s), here = min(ph->batch, n), i = 0;
    float sum[2];

    quant_sums_whole(sum, a, x, ph->k);
    *squares = warp_sum(*squares);
#pragma unroll 1
    for (;;) {
        red = quant_store(red, sum[0], a->row[0]);
        if (PANELS == 2 && i + 1 < here)
            red = quant_store(red, sum[1], a->row[PANELS - 1]);
        i += PANELS;
        at += PANELS * ph->stride;
        if (i >= here) {
            ring_release(s);
            n -= here;
            if (!n)
                break;
            here = min(ph->batch, n);
            i = 0;
            at = ring_at(s);
            ring_wait_full(s);
        }
        quant_ask_whole(a, ph, at, here - i);
        quant_sums_whole(sum, a, x, ph->k);
    }
}
template <int KIND>
EW_DEV void quant_tiles_long(struct step *s, const struct ew_step_phase *ph, uint32_t n,
                             uint32_t red, struct quant_ahead<KIND, 0> *a)
{
    const uint32_t batch = quant_whole(ph) ? ph->batch : 1;
    uint32_t at = ring_at(s), here = min(batch, n), i = 0, col = 0, turn = 0;
    uint32_t cols = min(ph->chunk, ph->k);
    float acc = 0;

#pragma unroll 1
    for (;;) {
        struct quant_input<KIND> x[2];
        float sum[2];

#pragma unroll
        for (uint32_t j = 0; j < 2; j++) {
            const struct quant_place place = quant_place_of<KIND>(turn + j, cols);

            quant_x(&x[j], s, ph,
                    place.unit != 0 ? col + place.first : threadIdx.x / 32 * STEP_QUANT,
                    place.unit);
            sum[j] = quant_products(&a->w[j], &x[j], cols - place.first);
        }
        acc += sum[0] + sum[1];
        turn += 2;
        if (turn * STEP_COLS >= cols) { /* of a part */
            turn = 0;
            col += cols;
            at += ph->stride;
            if (col >= ph->k) {
                red = quant_store(red, acc, a->row[0]);
                acc = 0;
                col = 0;
                n--;
            }
            if (++i == here) {
                ring_release(s);
                if (!n)
                    break;
                here = min(batch, n);
                i = 0;
                at = ring_at(s);
                ring_wait_full(s);
            }
            cols = min(ph->chunk, ph->k - col);
        }
        quant_ask_long(a, ph, at, turn, cols);
    }
}
#endif

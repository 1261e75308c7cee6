/* kernels/cuda/step_linear_quant.cuh - linear phases of step.cu, panels of 4- and 8-bit codes: the
 * input in shared memory and the products of a stage (order of the calls: step_linear.cuh). Device
 * only. */
#ifndef EW_KERNELS_CUDA_STEP_LINEAR_QUANT_CUH
#define EW_KERNELS_CUDA_STEP_LINEAR_QUANT_CUH

#include "step_dev.cuh"

/* ---- the input ---- */
/* As three int8 digits (base 256, low first) of a fixed point number a block of 128 columns
 * shares: x = xs * (d0 + 256 d1 + 65536 d2). Planes of k bytes, in the order of the panels'
 * products: of each 64 columns [t][tile of 16][2t, 2t+8, 2t+1, 2t+9]. */
EW_DEV void store_digits(struct step *s, uint32_t plane, uint32_t i, const float v[4], float inv)
{
    const uint32_t lane = threadIdx.x % 32, x = smem_of(s->x);
    uint32_t d[3] = { 0, 0, 0 };

#pragma unroll
    for (int j = 0; j < 4; j++) {
        int q = __float2int_rn(v[j] * inv);
        const int d0 = (int)(signed char)(q & 255);
        int d1;

        q = (q - d0) >> 8;
        d1 = (int)(signed char)(q & 255);
        q = (q - d1) >> 8;
        d[0] |= (uint32_t)(d0 & 255) << 8 * j;
        d[1] |= (uint32_t)(d1 & 255) << 8 * j;
        d[2] |= (uint32_t)(q & 255) << 8 * j;
    }
    {
        const bool upper = lane & 2; /* has columns 8..15 of its 16 */
        const uint32_t t = (lane & 1) * 2 + (upper ? 1 : 0);
        const uint32_t at = x + (i & ~63u) + t * 16 + (lane >> 2 & 3) * 4;

#pragma unroll
        for (int j = 0; j < 3; j++) {
            const uint32_t o = __shfl_xor_sync(EW_ALL, d[j], 2);

            sts32(at + (uint32_t)j * plane, __byte_perm(d[j], o, upper ? 0x3726 : 0x5140));
        }
    }
}
template <int STEP_ASK8>
EW_DEV float quant_input(struct step *s, const struct ew_step_phase *ph, float unit)
{
    constexpr uint32_t STEP = EW_STEP_WARPS * 128;
    const uint64_t from = s->a->workspace + (uint64_t)ph->in * 8;
    const uint32_t plane = ph->k + 64, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    float sum = 0;

#pragma unroll 1
    for (uint32_t i0 = warp * 128; i0 < ph->k; i0 += STEP_ASK8 * STEP) {
        struct two_packets p[STEP_ASK8];
        float4 w[STEP_ASK8];
        uint32_t n = 0;
        bool all = false;

#pragma unroll
        for (int j = 0; j < STEP_ASK8; j++) {
            const uint32_t i = i0 + (uint32_t)j * STEP + lane * 4;

            w[j] = make_float4(1, 1, 1, 1);
            p[j].a = p[j].b = (uint64_t)s->in_seq << 32;
            if (ph->flags & EW_STEP_NORM && i < ph->k)
                w[j] = *(const float4 *)(ph->norm + (uint64_t)i * 4);
        }
        while (!all) { /* an answer takes 600 clocks: all are asked for at once */
            all = true;
#pragma unroll
            for (int j = 0; j < STEP_ASK8; j++)
                if (i0 + (uint32_t)j * STEP + lane * 4 < ph->k)
                    p[j] = packets_load(from + (uint64_t)(i0 + (uint32_t)j * STEP + lane * 4) * 4);
#pragma unroll
            for (int j = 0; j < STEP_ASK8; j++)
                all = all && packet_is(p[j].a, s->in_seq) && packet_is(p[j].b, s->in_seq);
            if (!all)
                poll_pause(n);
            if (++n > EW_STEP_POLL_LIMIT)
                step_gave_up(s);
        }
        __syncwarp();
#pragma unroll
        for (int j = 0; j < STEP_ASK8; j++) {
            const uint32_t b = i0 + (uint32_t)j * STEP, i = b + lane * 4;
            float v[4] = { 0, 0, 0, 0 }, amax;

            if (b >= ph->k)
                break;
            if (i < ph->k) {
                const float2 a0 = pair_value(p[j].a), a1 = pair_value(p[j].b);

                sum += a0.x * a0.x + a0.y * a0.y + (a1.x * a1.x + a1.y * a1.y);
                v[0] = a0.x * w[j].x;
                v[1] = a0.y * w[j].y;
                v[2] = a1.x * w[j].z;
                v[3] = a1.y * w[j].w;
            }
            amax = fmaxf(fmaxf(fabsf(v[0]), fabsf(v[1])), fmaxf(fabsf(v[2]), fabsf(v[3])));
            amax = f32_of(__reduce_max_sync(EW_ALL, __float_as_uint(amax)));
            store_digits(s, plane, i, v, amax > 0 ? __fdividef(8257536.0f, amax) : 0);
            if (lane == 0) /* 8257536 is 126 * 65536 */
                s->xs[b / 128] = amax * (1 / 8257536.0f) * unit;
        }
    }
    return sum;
}
/* The whole input, for all warps; this thread's part of its sum of squares. */
template <int KIND> EW_DEV float quant_load(struct step *s, const struct ew_step_phase *ph)
{
    const float unit = KIND == EW_STEP_Q4 ? 1 / 16.0f : 1;
    const float sum =
        ph->k <= EW_STEP_WARPS * 128 ? quant_input<1>(s, ph, unit) : quant_input<3>(s, ph, unit);

    sync_warps();
    return sum;
}

/* ---- products ---- */
#define STEP_BLOCKS (STEP_COLS / 64 / EW_STEP_WARPS) /* turns of 64 */

template <int KIND> struct quant_part {
    uint4 x[STEP_BLOCKS], w[STEP_BLOCKS][KIND == EW_STEP_Q4 ? 1 : 2];
    float2 scale[STEP_BLOCKS][2]; /* of rows g and g + 8, of the first and last 32 columns */
    float xs[STEP_BLOCKS];
    float acc[2], row[2];
};
template <bool FULL, int KIND>
EW_DEV void part_ask(struct quant_part<KIND> *p, const struct ew_step_phase *ph, uint32_t at,
                     uint32_t col, uint32_t cols)
{
    constexpr uint32_t CODE = KIND == EW_STEP_Q4 ? 8 : 16;
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = ph->group_log2;
    const uint32_t scales = at + ph->chunk * CODE;

    (void)col;
#pragma unroll
    for (uint32_t j = 0; j < STEP_BLOCKS; j++) {
        const uint32_t i = j * EW_STEP_WARPS + warp;

        p->w[j][0] = make_uint4(0, 0, 0, 0);
        p->w[j][KIND == EW_STEP_Q4 ? 0 : 1] = make_uint4(0, 0, 0, 0);
        p->scale[j][0] = p->scale[j][1] = make_float2(1, 1);
        if (!FULL && i * 64 >= cols)
            continue;
        p->w[j][0] = lds128(at + i * 64 * CODE + lane * 16);
        if (KIND == EW_STEP_Q8)
            p->w[j][1] = lds128(at + i * 64 * CODE + 512 + lane * 16);
        if (group == 5) { /* [8][2][2] */
            p->scale[j][0] = half2_get<EW_STEP_SCALE_F16>(lds32(scales + i * 64 + lane / 4 * 8));
            p->scale[j][1] =
                half2_get<EW_STEP_SCALE_F16>(lds32(scales + i * 64 + lane / 4 * 8 + 4));
        } else if (group) {
            p->scale[j][0] =
                half2_get<EW_STEP_SCALE_F16>(lds32(scales + (i * 64 >> group << 5) + lane / 4 * 4));
        }
    }
}
template <bool FULL, int KIND>
EW_DEV void part_x(struct quant_part<KIND> *p, const struct step *s, const struct ew_step_phase *ph,
                   uint32_t col, uint32_t cols)
{
    const uint32_t warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4;
    const uint32_t x = smem_of(s->x) + (g < 3 ? g : 0) * (ph->k + 64) + col + threadIdx.x % 4 * 16;

#pragma unroll
    for (uint32_t j = 0; j < STEP_BLOCKS; j++) {
        const uint32_t i = j * EW_STEP_WARPS + warp;

        p->x[j] = FULL || i * 64 < cols ? lds128(x + i * 64) : make_uint4(0, 0, 0, 0);
        p->xs[j] = FULL || i * 64 < cols ? s->xs[(col + i * 64) / 128] : 0;
    }
}
template <int KIND> EW_DEV void part_zero(struct quant_part<KIND> *p)
{
    p->acc[0] = p->acc[1] = 0;
}
/* Sums of 16 rows over columns that share a scale: lanes t = 0 and 1 have the digits of the input.
 */
EW_DEV void drain8(const int c[4], float2 scale, float xs, float acc[2])
{
    const uint32_t t = threadIdx.x % 4;
    const int mul = t == 0 ? 256 : 0;
    const float f = t == 0 ? xs : t == 1 ? xs * 65536.0f : 0;

    acc[0] += (float)(c[0] + c[1] * mul) * (f * scale.x);
    acc[1] += (float)(c[2] + c[3] * mul) * (f * scale.y);
}
template <bool FULL, int KIND>
EW_DEV void part_add(struct quant_part<KIND> *p, const struct step *s,
                     const struct ew_step_phase *ph, uint32_t at, uint32_t col, uint32_t cols)
{
    const uint32_t warp = threadIdx.x / 32;
    const uint32_t rows = at + ph->chunk * (KIND == EW_STEP_Q4 ? 8 : 16) +
                          (ph->group_log2 ? ph->chunk >> ph->group_log2 << 5 : 0) +
                          threadIdx.x % 32 / 4 * 4;

    (void)s;
    (void)col;
    p->row[0] = f32_of(lds32(rows));
    p->row[1] = f32_of(lds32(rows + 32));
#pragma unroll
    for (uint32_t j = 0; j < STEP_BLOCKS; j++) {
        const uint4 w = p->w[j][0], u = p->w[j][KIND == EW_STEP_Q4 ? 0 : 1], x = p->x[j];
        uint32_t a[8];
        int c[4] = { 0, 0, 0, 0 };

        if (!FULL && (j * EW_STEP_WARPS + warp) * 64 >= cols)
            continue;
        if (KIND == EW_STEP_Q4) {
            const uint32_t v[4] = { w.x, w.y, w.z, w.w };

#pragma unroll
            for (int k = 0; k < 4; k++) { /* (code - 8) * 16 as int8 */
                a[2 * k] = (v[k] << 4 & 0xf0f0f0f0u) ^ 0x80808080u;
                a[2 * k + 1] = (v[k] & 0xf0f0f0f0u) ^ 0x80808080u;
            }
        } else {
            a[0] = __byte_perm(w.x, w.y, 0x6240);
            a[1] = __byte_perm(w.x, w.y, 0x7351);
            a[2] = __byte_perm(w.z, w.w, 0x6240);
            a[3] = __byte_perm(w.z, w.w, 0x7351);
            a[4] = __byte_perm(u.x, u.y, 0x6240);
            a[5] = __byte_perm(u.x, u.y, 0x7351);
            a[6] = __byte_perm(u.z, u.w, 0x6240);
            a[7] = __byte_perm(u.z, u.w, 0x7351);
        }
        mma8(c, a[0], a[1], a[2], a[3], x.x, x.y);
        if (ph->group_log2 == 5) {
            drain8(c, p->scale[j][0], p->xs[j], p->acc);
            c[0] = c[1] = c[2] = c[3] = 0;
            mma8(c, a[4], a[5], a[6], a[7], x.z, x.w);
            drain8(c, p->scale[j][1], p->xs[j], p->acc);
        } else {
            mma8(c, a[4], a[5], a[6], a[7], x.z, x.w);
            drain8(c, p->scale[j][0], p->xs[j], p->acc);
        }
    }
}
template <int KIND> EW_DEV void part_store(const struct quant_part<KIND> *p, float *red)
{
    const uint32_t lane = threadIdx.x % 32;
    const float v0 = p->acc[0] + __shfl_xor_sync(EW_ALL, p->acc[0], 1);
    const float v1 = p->acc[1] + __shfl_xor_sync(EW_ALL, p->acc[1], 1);

    if (lane % 4 == 0) {
        red[(lane / 4) * EW_STEP_WARPS] = v0 * p->row[0];
        red[(lane / 4 + 8) * EW_STEP_WARPS] = v1 * p->row[1];
    }
}

/* One part: a stage's columns [col, col + cols) of a tile. */
template <bool WHOLE, bool FULL, int KIND>
EW_DEV void quant_part_run(struct quant_part<KIND> *p, const struct step *s,
                           const struct ew_step_phase *ph, uint32_t at, uint32_t col, uint32_t cols)
{
    part_ask<FULL>(p, ph, at, col, cols);
    if (!WHOLE)
        part_x<FULL>(p, s, ph, col, cols);
    if (WHOLE || col == 0)
        part_zero(p);
    part_add<FULL>(p, s, ph, at, col, cols);
}
/* Tiles [t0, t1) into red. WHOLE: a part is a tile, and the input stays in registers. */
template <bool WHOLE, int KIND>
EW_DEV void quant_tiles_of(struct step *s, const struct ew_step_phase *ph, uint32_t t0, uint32_t t1,
                           float *red)
{
    struct quant_part<KIND> p;

    if (WHOLE)
        part_x<false>(&p, s, ph, 0, ph->k);
#pragma unroll 1
    for (uint32_t tile = t0, col = 0; tile < t1;) {
        uint32_t at = ring_at(s);

        ring_wait_full(s);
#pragma unroll 1
        for (uint32_t i = 0; i < ph->batch && tile < t1; i++) {
            const uint32_t cols = WHOLE ? ph->k : min(ph->chunk, ph->k - col);

            quant_part_run<WHOLE, false>(&p, s, ph, at, col, cols);
            at += ph->part_bytes;
            col += ph->chunk;
            if (WHOLE || col >= ph->k) {
                part_store(&p, red);
                red += 16 * EW_STEP_WARPS;
                col = 0;
                tile++;
            }
        }
        ring_release(s);
    }
}
template <int KIND>
EW_DEV void quant_tiles(struct step *s, const struct ew_step_phase *ph, uint32_t t0, uint32_t t1,
                        float *red)
{
    if (ph->k <= ph->chunk)
        quant_tiles_of<true, KIND>(s, ph, t0, t1, red);
    else
        quant_tiles_of<false, KIND>(s, ph, t0, t1, red);
}

#endif

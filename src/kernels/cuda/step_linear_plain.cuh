/* kernels/cuda/step_linear_plain.cuh - linear phases of step.cu, rows of bf16 or f16: the input in
 * shared memory and the products of a stage (order of the calls: step_linear.cuh). Device only. */
#ifndef EW_KERNELS_CUDA_STEP_LINEAR_PLAIN_CUH
#define EW_KERNELS_CUDA_STEP_LINEAR_PLAIN_CUH

#include "step_dev.cuh"

/* ---- the input ---- */
/* Pairs i, i + step... < k, N at most, of which the first is at `at`: asked for together until all
 * are there, since an answer takes 600 clocks. */
template <int N>
EW_DEV void input_wait(const struct step *s, uint64_t at, uint32_t i, uint32_t step, uint32_t k,
                       struct two_packets p[N])
{
    uint32_t n = 0;

    for (;;) {
        bool all = true;

#pragma unroll
        for (int j = 0; j < N; j++)
            if (i + (uint32_t)j * step < k)
                p[j] = packets_load(at + (uint32_t)j * step * 8);
#pragma unroll
        for (int j = 0; j < N; j++)
            all = all && packet_is(p[j].a, s->in_seq) && packet_is(p[j].b, s->in_seq);
        if (all)
            return;
        poll_pause(n);
        if (++n > EW_STEP_POLL_LIMIT)
            step_gave_up(s);
    }
}

/* As two 16-bit floats, high and low, in the order of A operands: of each 32 columns
 * [half][t][pair][high, low], where t has columns 8t..8t+7 and half the first or last 4 of them. */
template <int STEP_ASK> EW_DEV void load_x16(struct step *s, const struct ew_step_phase *ph)
{
    constexpr uint32_t STEP = EW_STEP_WARPS * 64;
    const uint64_t from = s->a->workspace + (uint64_t)ph->in * 8;
    const uint32_t x = smem_of(s->x);
    float sum = 0;

#pragma unroll 1
    for (uint32_t i0 = threadIdx.x * 2; i0 < ph->k; i0 += STEP_ASK * STEP) {
        struct two_packets p[STEP_ASK];
        float2 w[STEP_ASK];

#pragma unroll
        for (int j = 0; j < STEP_ASK; j++) {
            w[j] = make_float2(1, 1);
            p[j].a = p[j].b = (uint64_t)s->in_seq << 32;
            if (ph->flags & EW_STEP_NORM && i0 + (uint32_t)j * STEP < ph->k)
                w[j] = *(const float2 *)(ph->norm + (uint64_t)(i0 + (uint32_t)j * STEP) * 4);
        }
        input_wait<STEP_ASK>(s, from + (uint64_t)i0 * 8, i0, STEP, ph->k, p);
#pragma unroll
        for (int j = 0; j < STEP_ASK; j++) {
            const uint32_t i = i0 + (uint32_t)j * STEP;

            if (i < ph->k) {
                float2 v = make_float2(packet_value(p[j].a), packet_value(p[j].b)), hi;
                uint32_t h;

                if (ph->flags & EW_STEP_KEEP)
                    *(float2 *)(s->keep + i) = v;
                sum += v.x * v.x + v.y * v.y;
                v.x *= w[j].x;
                v.y *= w[j].y;
                h = half2_of<EW_STEP_W_F16>(v.x, v.y);
                hi = half2_get<EW_STEP_W_F16>(h);
                sts64(x + (i >> 5) * 128 + (i >> 2 & 1) * 64 + (i >> 3 & 3) * 16 + (i >> 1 & 1) * 8,
                      h, half2_of<EW_STEP_W_F16>(v.x - hi.x, v.y - hi.y));
            }
        }
    }
    if (ph->flags & EW_STEP_NORM) {
        sum = warp_sum(sum);
        if (threadIdx.x % 32 == 0)
            s->sums[threadIdx.x / 32] = sum;
    }
}

/* ---- products ---- */
#define STEP_PLAIN (STEP_COLS / 32 / EW_STEP_WARPS) /* turns of 32 columns a warp */

struct plain_part {
    uint4 x[STEP_PLAIN][2], w[STEP_PLAIN];
    float acc[4][4];
};
template <bool FULL>
EW_DEV void part_ask(struct plain_part *p, const struct ew_step_phase *ph, uint32_t at,
                     uint32_t col, uint32_t cols)
{
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const uint32_t w = at + (lane / 4) * (ph->chunk * 2 + 64) + lane % 4 * 16;

    (void)col;
#pragma unroll
    for (uint32_t j = 0; j < STEP_PLAIN; j++) {
        const uint32_t i = j * EW_STEP_WARPS + warp;

        p->w[j] = FULL || i * 32 < cols ? lds128(w + i * 64) : make_uint4(0, 0, 0, 0);
    }
}
template <bool FULL>
EW_DEV void part_x(struct plain_part *p, const struct step *s, const struct ew_step_phase *ph,
                   uint32_t col, uint32_t cols)
{
    const uint32_t warp = threadIdx.x / 32, x = smem_of(s->x) + col * 4 + threadIdx.x % 4 * 16;

    (void)ph;
#pragma unroll
    for (uint32_t j = 0; j < STEP_PLAIN; j++) {
        const uint32_t i = j * EW_STEP_WARPS + warp;

        p->x[j][0] = FULL || i * 32 < cols ? lds128(x + i * 128) : make_uint4(0, 0, 0, 0);
        p->x[j][1] = FULL || i * 32 < cols ? lds128(x + i * 128 + 64) : make_uint4(0, 0, 0, 0);
    }
}
EW_DEV void part_zero(struct plain_part *p)
{
#pragma unroll
    for (int i = 0; i < 4; i++)
        p->acc[i][0] = p->acc[i][1] = p->acc[i][2] = p->acc[i][3] = 0;
}
template <bool FULL>
EW_DEV void part_add(struct plain_part *p, const struct step *s, const struct ew_step_phase *ph,
                     uint32_t at, uint32_t col, uint32_t cols)
{
    (void)s;
    (void)ph;
    (void)at;
    (void)col;
    (void)cols;
#pragma unroll
    for (uint32_t j = 0; j < STEP_PLAIN; j++) {
        const uint4 w = p->w[j], a = p->x[j][0], b = p->x[j][1];

        mma16<EW_STEP_W_F16>(p->acc[j % 2 * 2], a.x, a.y, a.z, a.w, w.x, w.y);
        mma16<EW_STEP_W_F16>(p->acc[j % 2 * 2 + 1], b.x, b.y, b.z, b.w, w.z, w.w);
    }
}
EW_DEV void part_store(const struct plain_part *p, float *red)
{
    const uint32_t lane = threadIdx.x % 32;
    const float v0 = (p->acc[0][0] + p->acc[1][0]) + (p->acc[2][0] + p->acc[3][0]) +
                     ((p->acc[0][2] + p->acc[1][2]) + (p->acc[2][2] + p->acc[3][2]));
    const float v1 = (p->acc[0][1] + p->acc[1][1]) + (p->acc[2][1] + p->acc[3][1]) +
                     ((p->acc[0][3] + p->acc[1][3]) + (p->acc[2][3] + p->acc[3][3]));

    if (lane < 4) {
        red[(lane * 2) * EW_STEP_WARPS] = v0;
        red[(lane * 2 + 1) * EW_STEP_WARPS] = v1;
    }
}

#endif

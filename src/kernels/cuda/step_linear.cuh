/* kernels/cuda/step_linear.cuh - linear phases of step.cu. Device only.
 *
 * A block owns a range of outputs, cut into tiles of 8 (plain) or 16 rows (panels of the quantised
 * layouts). A stage of the ring holds `chunk` columns of a tile; all warps take columns of each
 * stage in turns and keep their part of the input in registers where a tile is one stage. Their
 * sums meet in shared memory. */
#ifndef EW_KERNELS_CUDA_STEP_LINEAR_CUH
#define EW_KERNELS_CUDA_STEP_LINEAR_CUH

#include "step_dev.cuh"

struct step_range {
    uint32_t out, end; /* outputs */
    uint32_t tile, n_tiles;
};

template <int KIND>
EW_DEV struct step_range step_range_of(const struct ew_step_phase *ph, uint32_t cta, uint32_t n_cta)
{
    const uint32_t rows = KIND == EW_STEP_PLAIN16 ? 3 : 4; /* log2 */
    const bool glu = ph->flags & EW_STEP_GLU;
    const uint32_t per = glu ? rows - 1 : rows, n = glu ? ph->n / 2 : ph->n;
    struct step_range r;

    if (KIND != EW_STEP_PLAIN16)
        cta = cta >= ph->first ? cta - ph->first : cta + n_cta - ph->first;
    r.tile = cta * ph->share + min(cta, ph->extra);
    r.n_tiles = ph->share + (cta < ph->extra ? 1 : 0);
    if (KIND == EW_STEP_PLAIN16) {
        r.out = r.tile;
        r.end = r.out + r.n_tiles;
        r.tile = 0;
        r.n_tiles = (r.n_tiles + (1u << per) - 1) >> per;
    } else {
        r.out = r.tile << per;
        r.end = min(r.out + (r.n_tiles << per), n);
    }
    return r;
}

/* ---- copying ---- */
template <int KIND>
EW_DEV void copy_tile(const struct step *s, const struct ew_step_phase *ph,
                      const struct step_range *r, uint32_t tile, uint32_t to, uint32_t col,
                      uint32_t cols)
{
    if (KIND == EW_STEP_PLAIN16) {
        const uint32_t to_stride = ph->chunk * 2 + 64;
        const bool glu = ph->flags & EW_STEP_GLU;
        const uint32_t per = glu ? 4 : 8, out = r->out + tile * per, n = min(r->end - out, per);
        const uint64_t w = ph->w + (uint64_t)col * 2 + (uint64_t)out * ph->stride;

        copy_runs(s, to, to_stride, w, ph->stride, n, cols * 2);
        if (glu)
            copy_runs(s, to + 4 * to_stride, to_stride, w + (uint64_t)(ph->n / 2) * ph->stride,
                      ph->stride, n, cols * 2);
    } else {
        const uint32_t code = KIND == EW_STEP_Q4 ? 8 : 16;
        const uint64_t w = ph->w + (uint64_t)(r->tile + tile) * ph->stride;

        if (ph->chunk * code == ph->scales_at) { /* the whole panel */
            copy_run(s, to, w, ph->row_scales_at + 64);
            return;
        }
        copy_run(s, to, w + col * code, cols * code);
        to += ph->chunk * code;
        if (ph->group_log2) {
            copy_run(s, to, w + ph->scales_at + (col >> ph->group_log2 << 5),
                     cols >> ph->group_log2 << 5);
            to += ph->chunk >> ph->group_log2 << 5;
        }
        copy_run(s, to, w + ph->row_scales_at, 64);
    }
}
/* Bytes that come for `cols` columns of a tile. */
template <int KIND>
EW_DEV uint32_t copy_bytes(const struct ew_step_phase *ph, const struct step_range *r,
                           uint32_t tile, uint32_t cols)
{
    if (KIND == EW_STEP_PLAIN16) {
        const bool glu = ph->flags & EW_STEP_GLU;
        const uint32_t per = glu ? 4 : 8, rows = min(r->end - r->out - tile * per, per);

        return (glu ? 4 : 2) * rows * cols;
    }
    return cols * (KIND == EW_STEP_Q4 ? 8 : 16) +
           (ph->group_log2 ? cols >> ph->group_log2 << 5 : 0) + 64;
}
template <int KIND> EW_DEV void copy_linear(struct step *s, const struct ew_step_phase *entry)
{
    const struct ew_step_phase copy = *entry, *ph = &copy;
    const struct step_range r = step_range_of<KIND>(ph, s->cta, s->n_cta);
    constexpr uint32_t GROUP = EW_STEP_RED_ROWS / (KIND == EW_STEP_PLAIN16 ? 8 : 16);
    uint32_t tile = 0, col = 0;

#pragma unroll 1
    while (tile < r.n_tiles) { /* a stage; none crosses a group of tiles */
        const uint32_t end = min((tile / GROUP + 1) * GROUP, r.n_tiles);
        uint32_t bytes = 0, t = tile, c = col, n = 0;
        bool mine;

#pragma unroll 1
        for (; n < ph->batch && t < end; n++) {
            bytes += copy_bytes<KIND>(ph, &r, t, min(ph->chunk, ph->k - c));
            c += ph->chunk;
            if (c >= ph->k) {
                c = 0;
                t++;
            }
        }
        mine = copy_begin(s, bytes);
#pragma unroll 1
        for (uint32_t i = 0; mine && i < n; i++) {
            copy_tile<KIND>(s, ph, &r, tile, ring_at(s) + i * ph->part_bytes, col,
                            min(ph->chunk, ph->k - col));
            col += ph->chunk;
            if (col >= ph->k) {
                col = 0;
                tile++;
            }
        }
        if (mine)
            copy_end(s);
        tile = t;
        col = c;
    }
}

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
template <int KIND, int STEP_ASK8>
EW_DEV void load_x8(struct step *s, const struct ew_step_phase *ph)
{
    constexpr uint32_t STEP = EW_STEP_WARPS * 128;
    const uint64_t from = s->a->workspace + (uint64_t)ph->in * 8;
    const uint32_t plane = ph->k + 64, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    float sum = 0;

#pragma unroll 1
    for (uint32_t i0 = warp * 128; i0 < ph->k; i0 += STEP_ASK8 * STEP) {
        struct two_packets p[2 * STEP_ASK8];
        float2 w[2 * STEP_ASK8];
        uint32_t n = 0;
        bool all = false;

#pragma unroll
        for (int j = 0; j < STEP_ASK8; j++) {
            const uint32_t i = i0 + (uint32_t)j * STEP + lane * 4;

            w[2 * j] = w[2 * j + 1] = make_float2(1, 1);
            p[2 * j].a = p[2 * j].b = p[2 * j + 1].a = p[2 * j + 1].b = (uint64_t)s->in_seq << 32;
            if (ph->flags & EW_STEP_NORM && i < ph->k) {
                const float4 v = *(const float4 *)(ph->norm + (uint64_t)i * 4);

                w[2 * j] = make_float2(v.x, v.y);
                w[2 * j + 1] = make_float2(v.z, v.w);
            }
        }
        while (!all) { /* as input_wait */
            all = true;
#pragma unroll
            for (int j = 0; j < STEP_ASK8; j++) {
                const uint32_t i = i0 + (uint32_t)j * STEP + lane * 4;

                if (i < ph->k) {
                    p[2 * j] = packets_load(from + (uint64_t)i * 8);
                    p[2 * j + 1] = packets_load(from + (uint64_t)i * 8 + 16);
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
            const uint32_t b = i0 + (uint32_t)j * STEP, i = b + lane * 4;
            float v[4] = { 0, 0, 0, 0 }, amax;

            if (b >= ph->k)
                break;
            if (i < ph->k) {
                const float a0 = packet_value(p[2 * j].a), a1 = packet_value(p[2 * j].b);
                const float a2 = packet_value(p[2 * j + 1].a), a3 = packet_value(p[2 * j + 1].b);

                if (ph->flags & EW_STEP_KEEP)
                    *(float4 *)(s->keep + i) = make_float4(a0, a1, a2, a3);
                sum += a0 * a0 + a1 * a1 + (a2 * a2 + a3 * a3);
                v[0] = a0 * w[2 * j].x;
                v[1] = a1 * w[2 * j].y;
                v[2] = a2 * w[2 * j + 1].x;
                v[3] = a3 * w[2 * j + 1].y;
            }
            amax = fmaxf(fmaxf(fabsf(v[0]), fabsf(v[1])), fmaxf(fabsf(v[2]), fabsf(v[3])));
            amax = f32_of(__reduce_max_sync(EW_ALL, __float_as_uint(amax)));
            store_digits(s, plane, i, v, amax > 0 ? __fdividef(8257536.0f, amax) : 0);
            if (lane == 0) /* 8257536 is 126 * 65536 */
                s->xs[b / 128] = amax * (1 / 8257536.0f) * (KIND == EW_STEP_Q4 ? 1 / 16.0f : 1);
        }
    }
    if (ph->flags & EW_STEP_NORM) {
        sum = warp_sum(sum);
        if (lane == 0)
            s->sums[warp] = sum;
    }
}

/* ---- products: what one warp does of a stage. `ask` reads the weights from shared memory, `x`
 * the input; then `add` multiplies; `store` leaves the warp's sums of a tile in red ---- */
#define STEP_COLS   1024                            /* of a chunk, at most */
#define STEP_PLAIN  (STEP_COLS / 32 / EW_STEP_WARPS) /* turns of 32 columns a warp */
#define STEP_BLOCKS (STEP_COLS / 64 / EW_STEP_WARPS) /* turns of 64 */

struct plain_part {
    uint4 x[STEP_PLAIN][2], w[STEP_PLAIN];
    float acc[4][4];
};
template <bool FULL>
EW_DEV void part_ask(struct plain_part *p, const struct ew_step_phase *ph, uint32_t at, uint32_t col,
                     uint32_t cols)
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
            p->scale[j][0] = half2_get<EW_STEP_SCALE_F16>(
                lds32(scales + (i * 64 >> group << 5) + lane / 4 * 4));
        }
    }
}
template <bool FULL, int KIND>
EW_DEV void part_x(struct quant_part<KIND> *p, const struct step *s, const struct ew_step_phase *ph,
                   uint32_t col, uint32_t cols)
{
    const uint32_t warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4;
    const uint32_t x =
        smem_of(s->x) + (g < 3 ? g : 0) * (ph->k + 64) + col + threadIdx.x % 4 * 16;

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
/* Sums of 16 rows over columns that share a scale: lanes t = 0 and 1 have the digits of the input. */
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

/* ---- the output ---- */
EW_DEV float step_act(float z)
{
    switch (EW_STEP_ACT) { /* enum ew_act */
    case 1:
        return __fdividef(z, 1 + __expf(-z));
    case 2:
        return 0.5f * z * (1 + tanhf(0.7978845608028654f * (z + 0.044715f * z * z * z)));
    case 3:
        return 0.5f * z * (1 + erff(z * 0.7071067811865476f));
    case 4:
        return fmaxf(z, 0);
    case 5:
        return z > 0 ? z * z : 0;
    default:
        return z;
    }
}
struct step_best {
    float v;
    uint32_t i;
};
EW_DEV float step_z(const struct ew_step_phase *ph, float z, float inv, uint32_t row)
{
    z *= inv;
    if (EW_STEP_BIAS && ph->bias)
        z += ((const float *)ph->bias)[row];
    z *= ph->scale;
    if (EW_STEP_SOFTCAP && ph->softcap != 0)
        z = ph->softcap * tanhf(z / ph->softcap);
    return z;
}
EW_DEV void step_output(struct step *s, const struct ew_step_phase *ph, uint32_t o, float z,
                        float up, float inv, struct step_best *best)
{
    z = step_z(ph, z, inv, o);
    if (ph->act)
        z = step_act(z);
    if (ph->flags & EW_STEP_GLU)
        z *= step_z(ph, up, inv, ph->n / 2 + o);
    if (ph->flags & EW_STEP_RESIDUAL)
        z += s->keep[o];
    if (ph->flags & EW_STEP_HEAD) {
        if (s->a->logits)
            ((float *)s->a->logits)[o] = z;
        if (z > best->v) {
            best->v = z;
            best->i = o;
        }
    } else {
        packet_store(s->a->workspace + (uint64_t)(ph->out + o) * 8, z, s->seq);
    }
}
EW_DEV float step_row_sum(const float *row)
{
    float sum = 0;

#pragma unroll
    for (int i = 0; i < EW_STEP_WARPS; i += 4) {
        const float4 v = *(const float4 *)(row + i);

        sum += (v.x + v.y) + (v.z + v.w);
    }
    return sum;
}
/* n <= RED_ROWS outputs from `out` on, whose sums are in red[half]. */
template <int ROWS>
EW_DEV void step_epilogue(struct step *s, const struct ew_step_phase *ph, uint32_t out, uint32_t n,
                          float inv, struct step_best *best)
{
    const bool glu = ph->flags & EW_STEP_GLU;
    const uint32_t log2 = ROWS == 8 ? 3 : 4, per = glu ? log2 - 1 : log2, i = threadIdx.x;
    const float *red = s->red + s->half * EW_STEP_RED_ROWS * EW_STEP_WARPS +
                       ((i >> per) * ROWS + (i & ((1u << per) - 1))) * EW_STEP_WARPS;

    if (i < n)
        step_output(s, ph, out + i, step_row_sum(red),
                    glu ? step_row_sum(red + ROWS / 2 * EW_STEP_WARPS) : 0, inv, best);
}
EW_DEV float step_inv_rms(const struct step *s, const struct ew_step_phase *ph)
{
    float sum = 0;

    if (!(ph->flags & EW_STEP_NORM))
        return 1;
#pragma unroll
    for (int i = 0; i < EW_STEP_WARPS; i += 4) {
        const float4 v = *(const float4 *)(s->sums + i);

        sum += v.x + v.y + (v.z + v.w);
    }
    return rsqrtf(sum * ph->inv_k + ph->eps);
}

template <int KIND> struct step_part {
    typedef struct quant_part<KIND> type;
};
template <> struct step_part<EW_STEP_PLAIN16> {
    typedef struct plain_part type;
};
/* One part: a stage's columns [col, col + cols) of a tile. */
template <bool WHOLE, bool FULL, typename PART>
EW_DEV void run_part(PART *p, const struct step *s, const struct ew_step_phase *ph, uint32_t at,
                     uint32_t col, uint32_t cols)
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
EW_DEV void run_tiles(struct step *s, const struct ew_step_phase *ph, uint32_t t0, uint32_t t1,
                      float *red)
{
    constexpr uint32_t ROWS = KIND == EW_STEP_PLAIN16 ? 8 : 16;
    typename step_part<KIND>::type p;

    if (WHOLE)
        part_x<false>(&p, s, ph, 0, ph->k);
#pragma unroll 1
    for (uint32_t tile = t0, col = 0; tile < t1;) {
        uint32_t at = ring_at(s);

        ring_wait_full(s);
#pragma unroll 1
        for (uint32_t i = 0; i < ph->batch && tile < t1; i++) {
            const uint32_t cols = WHOLE ? ph->k : min(ph->chunk, ph->k - col);

            if (KIND == EW_STEP_PLAIN16 && cols == STEP_COLS) /* not worth its code elsewhere */
                run_part<WHOLE, true>(&p, s, ph, at, col, cols);
            else
                run_part<WHOLE, false>(&p, s, ph, at, col, cols);
            at += ph->part_bytes;
            col += ph->chunk;
            if (WHOLE || col >= ph->k) {
                part_store(&p, red);
                red += ROWS * EW_STEP_WARPS;
                col = 0;
                tile++;
            }
        }
        ring_release(s);
    }
}
template <int KIND>
EW_DEV void run_linear(struct step *s, const struct ew_step_phase *entry, struct step_best *best)
{
    const struct ew_step_phase copy = *entry, *ph = &copy; /* in registers, what is used of it */
    constexpr uint32_t ROWS = KIND == EW_STEP_PLAIN16 ? 8 : 16;
    const uint32_t per = ph->flags & EW_STEP_GLU ? ROWS / 2 : ROWS, warp = threadIdx.x / 32;
    const struct step_range r = step_range_of<KIND>(ph, s->cta, s->n_cta);
    const bool whole = ph->chunk >= ph->k; /* a tile is one stage: the input stays in registers */
    float inv;

    if (KIND == EW_STEP_PLAIN16)
        ph->k <= EW_STEP_WARPS * 128 ? load_x16<2>(s, ph) : load_x16<6>(s, ph);
    else
        ph->k <= EW_STEP_WARPS * 128 ? load_x8<KIND, 1>(s, ph) : load_x8<KIND, 3>(s, ph);
    sync_warps();
    inv = step_inv_rms(s, ph);
#pragma unroll 1
    for (uint32_t t0 = 0; t0 < r.n_tiles; t0 += EW_STEP_RED_ROWS / ROWS) {
        const uint32_t t1 = min(t0 + EW_STEP_RED_ROWS / ROWS, r.n_tiles);
        float *red = s->red + s->half * EW_STEP_RED_ROWS * EW_STEP_WARPS + warp;

        if (whole)
            run_tiles<true, KIND>(s, ph, t0, t1, red);
        else
            run_tiles<false, KIND>(s, ph, t0, t1, red);
        sync_warps();
        step_epilogue<ROWS>(s, ph, r.out + t0 * per, min((t1 - t0) * per, r.end - r.out - t0 * per),
                            inv, best);
        s->half ^= 1;
    }
}

#endif

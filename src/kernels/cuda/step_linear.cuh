/* kernels/cuda/step_linear.cuh - linear phases of step.cu. Device only.
 *
 * A block owns a range of outputs, cut into tiles of 8 (plain) or 16 rows (panels of the quantised
 * layouts). A stage of the ring holds `team` tiles times `chunk` columns; 16 / team warps share a
 * tile and take its columns in turns. Their sums meet in shared memory. */
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

/* Bytes of a tile in a stage. */
template <int KIND> EW_DEV uint32_t step_tile_bytes(const struct ew_step_phase *ph)
{
    if (KIND == EW_STEP_PLAIN16)
        return 8 * (ph->chunk * 2 + 64);
    return (ph->chunk * (KIND == EW_STEP_Q4 ? 8 : 16) +
            (ph->group_log2 ? ph->chunk >> ph->group_log2 << 5 : 0) + 64 + 127) &
           ~127u;
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
template <int KIND> EW_DEV void copy_linear(struct step *s, const struct ew_step_phase *entry)
{
    const struct ew_step_phase copy = *entry, *ph = &copy;
    const struct step_range r = step_range_of<KIND>(ph, s->cta, s->n_cta);
    const uint32_t tile_bytes = step_tile_bytes<KIND>(ph);
    const bool glu = ph->flags & EW_STEP_GLU;

#pragma unroll 1
    for (uint32_t tile = 0; tile < r.n_tiles; tile += ph->team) {
        const uint32_t n = min(ph->team, r.n_tiles - tile);

#pragma unroll 1
        for (uint32_t col = 0; col < ph->k; col += ph->chunk) {
            const uint32_t cols = min(ph->chunk, ph->k - col);
            uint32_t bytes;

            if (KIND == EW_STEP_PLAIN16) {
                const uint32_t per = glu ? 4 : 8, rows = min(r.end - r.out - tile * per, n * per);

                bytes = (glu ? 2 : 1) * rows * cols * 2;
            } else {
                bytes = n * (cols * (KIND == EW_STEP_Q4 ? 8 : 16) +
                             (ph->group_log2 ? cols >> ph->group_log2 << 5 : 0) + 64);
            }
            if (!copy_begin(s, bytes))
                continue;
#pragma unroll 1
            for (uint32_t i = 0; i < n; i++)
                copy_tile<KIND>(s, ph, &r, tile + i, ring_at(s) + i * tile_bytes, col, cols);
            copy_end(s);
        }
    }
}

/* ---- the input ---- */
struct step_pair {
    float2 v, w;
};
EW_DEV float2 input_pair(const struct step *s, const struct ew_step_phase *ph, uint32_t i,
                         struct two_packets p)
{
    if (ph->flags & EW_STEP_IN_PLAIN)
        return *(const float2 *)(s->a->x + (uint64_t)i * 4);
    return packets_wait(s, s->a->workspace + (uint64_t)(ph->in + i) * 8, p, s->in_seq);
}
EW_DEV struct two_packets input_ask(const struct step *s, const struct ew_step_phase *ph,
                                    uint32_t i)
{
    struct two_packets p = { 0, 0 };

    if (!(ph->flags & EW_STEP_IN_PLAIN))
        p = packets_load(s->a->workspace + (uint64_t)(ph->in + i) * 8);
    return p;
}
EW_DEV float2 norm_pair(const struct ew_step_phase *ph, uint32_t i)
{
    if (ph->flags & EW_STEP_NORM)
        return *(const float2 *)(ph->norm + (uint64_t)i * 4);
    return make_float2(1, 1);
}

/* As two 16-bit floats, high and low: planes of k elements. */
#define STEP_ASK 4
EW_DEV void load_x16(struct step *s, const struct ew_step_phase *ph)
{
    const uint32_t x = smem_of(s->x), plane = ph->k * 2 + 64;
    float sum = 0;

#pragma unroll 1
    for (uint32_t i0 = threadIdx.x * 2; i0 < ph->k; i0 += STEP_ASK * EW_STEP_WARPS * 64) {
        struct two_packets p[STEP_ASK];
        float2 w[STEP_ASK];

#pragma unroll
        for (int j = 0; j < STEP_ASK; j++) {
            const uint32_t i = i0 + (uint32_t)j * EW_STEP_WARPS * 64;

            if (i < ph->k) {
                w[j] = norm_pair(ph, i);
                p[j] = input_ask(s, ph, i);
            }
        }
#pragma unroll
        for (int j = 0; j < STEP_ASK; j++) {
            const uint32_t i = i0 + (uint32_t)j * EW_STEP_WARPS * 64;

            if (i < ph->k) {
                float2 v = input_pair(s, ph, i, p[j]), hi;
                uint32_t h;

                if (ph->flags & EW_STEP_KEEP)
                    *(float2 *)(s->keep + i) = v;
                sum += v.x * v.x + v.y * v.y;
                v.x *= w[j].x;
                v.y *= w[j].y;
                h = half2_of<EW_STEP_W_F16>(v.x, v.y);
                hi = half2_get<EW_STEP_W_F16>(h);
                sts32(x + i * 2, h);
                sts32(x + plane + i * 2, half2_of<EW_STEP_W_F16>(v.x - hi.x, v.y - hi.y));
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
template <int KIND> EW_DEV void load_x8(struct step *s, const struct ew_step_phase *ph)
{
    const uint32_t plane = ph->k + 64, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    float sum = 0;

#pragma unroll 1
    for (uint32_t b = warp; b * 128 < ph->k; b += EW_STEP_WARPS) {
        const uint32_t i = b * 128 + lane * 4;
        float v[4] = { 0, 0, 0, 0 }, amax;

        if (i < ph->k) {
            const float2 w0 = norm_pair(ph, i), w1 = norm_pair(ph, i + 2);
            const struct two_packets p0 = input_ask(s, ph, i), p1 = input_ask(s, ph, i + 2);
            const float2 a = input_pair(s, ph, i, p0), c = input_pair(s, ph, i + 2, p1);

            if (ph->flags & EW_STEP_KEEP)
                *(float4 *)(s->keep + i) = make_float4(a.x, a.y, c.x, c.y);
            sum += a.x * a.x + a.y * a.y + c.x * c.x + c.y * c.y;
            v[0] = a.x * w0.x;
            v[1] = a.y * w0.y;
            v[2] = c.x * w1.x;
            v[3] = c.y * w1.y;
        }
        amax = fmaxf(fmaxf(fabsf(v[0]), fabsf(v[1])), fmaxf(fabsf(v[2]), fabsf(v[3])));
        amax = f32_of(__reduce_max_sync(EW_ALL, __float_as_uint(amax)));
        store_digits(s, plane, i, v, amax > 0 ? 8257536.0f / amax : 0); /* 126 * 65536 */
        if (lane == 0)
            s->xs[b] = amax * (1 / 8257536.0f) * (KIND == EW_STEP_Q4 ? 1 / 16.0f : 1);
    }
    if (ph->flags & EW_STEP_NORM) {
        sum = warp_sum(sum);
        if (lane == 0)
            s->sums[warp] = sum;
    }
}

/* ---- products of one tile and stage: adds to acc ---- */
EW_DEV void tile_plain(const struct step *s, const struct ew_step_phase *ph, uint32_t at,
                       uint32_t col, uint32_t cols, uint32_t member, uint32_t members,
                       float acc[2][4])
{
    const uint32_t lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const uint32_t w = at + g * (ph->chunk * 2 + 64) + t * 16;
    const uint32_t x = smem_of(s->x) + (g & 1) * (ph->k * 2 + 64) + col * 2 + t * 16;

#pragma unroll 2
    for (uint32_t i = member; i < cols / 32; i += members) {
        const uint4 a = lds128(x + i * 64), b = lds128(w + i * 64);

        mma16<EW_STEP_W_F16>(acc[0], a.x, 0, a.y, 0, b.x, b.y);
        mma16<EW_STEP_W_F16>(acc[1], a.z, 0, a.w, 0, b.z, b.w);
    }
}

/* Sums of 16 rows over columns that share a scale: acc of rows g and g + 8. */
EW_DEV void drain8(const int c[4], uint32_t scales, bool has, float xs, float acc[2])
{
    const uint32_t t = threadIdx.x % 4;
    const int mul = t == 0 ? 256 : 0;
    const float f = t == 0 ? xs : t == 1 ? xs * 65536.0f : 0;
    float2 ws = make_float2(1, 1);

    if (has)
        ws = half2_get<EW_STEP_SCALE_F16>(lds32(scales + threadIdx.x % 32 / 4 * 4));
    acc[0] += (float)(c[0] + c[1] * mul) * (f * ws.x);
    acc[1] += (float)(c[2] + c[3] * mul) * (f * ws.y);
}
template <int KIND>
EW_DEV void tile_quant(const struct step *s, const struct ew_step_phase *ph, uint32_t at,
                       uint32_t col, uint32_t cols, uint32_t member, uint32_t members, float acc[2])
{
    const uint32_t lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const uint32_t code = KIND == EW_STEP_Q4 ? 8 : 16, group = ph->group_log2;
    const uint32_t scales = at + ph->chunk * code;
    const uint32_t x = smem_of(s->x) + (g < 3 ? g : 0) * (ph->k + 64) + col + t * 16;

#pragma unroll 1
    for (uint32_t b = member; b < cols / 64; b += members) {
        const uint4 xv = lds128(x + b * 64), w = lds128(at + b * 64 * code + lane * 16);
        const float xs = s->xs[(col + b * 64) / 128];
        uint32_t a[8];
        int c[4] = { 0, 0, 0, 0 };

        if (KIND == EW_STEP_Q4) {
            const uint32_t v[4] = { w.x, w.y, w.z, w.w };

#pragma unroll
            for (int j = 0; j < 4; j++) { /* (code - 8) * 16 as int8 */
                a[2 * j] = v[j] << 4 & 0xf0f0f0f0u ^ 0x80808080u;
                a[2 * j + 1] = v[j] & 0xf0f0f0f0u ^ 0x80808080u;
            }
        } else {
            const uint4 u = lds128(at + b * 64 * code + 512 + lane * 16);

            a[0] = __byte_perm(w.x, w.y, 0x6240);
            a[1] = __byte_perm(w.x, w.y, 0x7351);
            a[2] = __byte_perm(w.z, w.w, 0x6240);
            a[3] = __byte_perm(w.z, w.w, 0x7351);
            a[4] = __byte_perm(u.x, u.y, 0x6240);
            a[5] = __byte_perm(u.x, u.y, 0x7351);
            a[6] = __byte_perm(u.z, u.w, 0x6240);
            a[7] = __byte_perm(u.z, u.w, 0x7351);
        }
        mma8(c, a[0], a[1], a[2], a[3], xv.x, xv.y);
        if (group == 5) {
            const uint32_t sc = scales + b * 64 + g * 4; /* [8][2][2]: the drain adds g * 4 */

            drain8(c, sc, true, xs, acc);
            c[0] = c[1] = c[2] = c[3] = 0;
            mma8(c, a[4], a[5], a[6], a[7], xv.z, xv.w);
            drain8(c, sc + 4, true, xs, acc);
        } else {
            mma8(c, a[4], a[5], a[6], a[7], xv.z, xv.w);
            drain8(c, scales + (b * 64 >> group << 5), group != 0, xs, acc);
        }
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
/* n outputs from `out` on, whose sums are in red[half]. */
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
/* n outputs from `out` on, whose sums are in red[half]: eight threads each. */
template <int ROWS>
EW_DEV void step_epilogue(struct step *s, const struct ew_step_phase *ph, uint32_t out, uint32_t n,
                          uint32_t members, float inv, struct step_best *best)
{
    const bool glu = ph->flags & EW_STEP_GLU;
    const uint32_t part = threadIdx.x % 8, log2 = ROWS == 8 ? 3 : 4, per = glu ? log2 - 1 : log2;
    const float *red = s->red + s->half * EW_STEP_RED_ROWS * EW_STEP_WARPS + part * 2;

#pragma unroll 1
    for (uint32_t i0 = 0; i0 < n; i0 += EW_STEP_WARPS * 4) {
        const uint32_t i = i0 + threadIdx.x / 8, row = (i >> per) * ROWS + (i & ((1u << per) - 1));
        float z = 0, up = 0;

        if (i < n && part * 2 < members) {
            const float2 v = *(const float2 *)(red + row * EW_STEP_WARPS);

            z = v.x + v.y;
            if (glu) {
                const float2 u = *(const float2 *)(red + (row + ROWS / 2) * EW_STEP_WARPS);

                up = u.x + u.y;
            }
        }
#pragma unroll
        for (int d = 4; d; d >>= 1) {
            z += __shfl_xor_sync(EW_ALL, z, d);
            up += __shfl_xor_sync(EW_ALL, up, d);
        }
        if (i < n && part == 0)
            step_output(s, ph, out + i, z, up, inv, best);
    }
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

template <int KIND> EW_DEV void run_linear(struct step *s, const struct ew_step_phase *entry, struct step_best *best)
{
    const struct ew_step_phase copy = *entry, *ph = &copy; /* in registers, what is used of it */
    constexpr uint32_t ROWS = KIND == EW_STEP_PLAIN16 ? 8 : 16;
    const uint32_t per = ph->flags & EW_STEP_GLU ? ROWS / 2 : ROWS, team = ph->team;
    const struct step_range r = step_range_of<KIND>(ph, s->cta, s->n_cta);
    const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const uint32_t members = team == 4 ? EW_STEP_WARPS / 4 : team == 2 ? EW_STEP_WARPS / 2 : EW_STEP_WARPS;
    const uint32_t slot = team == 4 ? warp / (EW_STEP_WARPS / 4) : team == 2 ? warp / (EW_STEP_WARPS / 2) : 0;
    const uint32_t member = warp & (members - 1);
    const uint32_t tile_bytes = step_tile_bytes<KIND>(ph);
    float inv;

    STEP_TRACE(s, 0);
    if (KIND == EW_STEP_PLAIN16)
        load_x16(s, ph);
    else
        load_x8<KIND>(s, ph);
    STEP_TRACE(s, 1);
    sync_warps();
    STEP_TRACE(s, 2);
    inv = step_inv_rms(s, ph);
#pragma unroll 1
    for (uint32_t t0 = 0; t0 < r.n_tiles; t0 += EW_STEP_RED_ROWS / ROWS) {
        const uint32_t t1 = min(t0 + EW_STEP_RED_ROWS / ROWS, r.n_tiles);
        float *red = s->red + s->half * EW_STEP_RED_ROWS * EW_STEP_WARPS;

#pragma unroll 1
        for (uint32_t tile = t0; tile < t1; tile += team) {
            const bool mine = tile + slot < t1;
            const uint32_t row = (tile + slot - t0) * ROWS;
            float acc[2][4] = { { 0, 0, 0, 0 }, { 0, 0, 0, 0 } };
            float row_scale[2] = { 1, 1 };

#pragma unroll 1
            for (uint32_t col = 0; col < ph->k; col += ph->chunk) {
                const uint32_t cols = min(ph->chunk, ph->k - col);
                const uint32_t at = ring_at(s) + slot * tile_bytes;

                ring_wait_full(s);
                if (mine) {
                    if (KIND == EW_STEP_PLAIN16) {
                        tile_plain(s, ph, at, col, cols, member, members, acc);
                    } else {
                        const uint32_t rs = at + ph->chunk * (KIND == EW_STEP_Q4 ? 8 : 16) +
                                            (ph->group_log2 ? ph->chunk >> ph->group_log2 << 5 : 0) +
                                            lane / 4 * 4;

                        row_scale[0] = f32_of(lds32(rs));
                        row_scale[1] = f32_of(lds32(rs + 32));
                        tile_quant<KIND>(s, ph, at, col, cols, member, members, acc[0]);
                    }
                }
                ring_release(s);
            }
            if (!mine)
                continue;
            if (KIND == EW_STEP_PLAIN16) {
                float v0 = acc[0][0] + acc[1][0], v1 = acc[0][1] + acc[1][1];

                v0 += __shfl_xor_sync(EW_ALL, v0, 4);
                v1 += __shfl_xor_sync(EW_ALL, v1, 4);
                if (lane < 4) {
                    red[(row + lane * 2) * EW_STEP_WARPS + member] = v0;
                    red[(row + lane * 2 + 1) * EW_STEP_WARPS + member] = v1;
                }
            } else {
                float v0 = acc[0][0] + __shfl_xor_sync(EW_ALL, acc[0][0], 1);
                float v1 = acc[0][1] + __shfl_xor_sync(EW_ALL, acc[0][1], 1);

                if (lane % 4 == 0) {
                    red[(row + lane / 4) * EW_STEP_WARPS + member] = v0 * row_scale[0];
                    red[(row + lane / 4 + 8) * EW_STEP_WARPS + member] = v1 * row_scale[1];
                }
            }
        }
        STEP_TRACE(s, 3);
        sync_warps();
        STEP_TRACE(s, 4);
        step_epilogue<ROWS>(s, ph, r.out + t0 * per, min((t1 - t0) * per, r.end - r.out - t0 * per),
                            members, inv, best);
        s->half ^= 1;
    }
    STEP_TRACE(s, 5);
}

#endif

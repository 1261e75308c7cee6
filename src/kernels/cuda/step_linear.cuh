/* kernels/cuda/step_linear.cuh - linear phases of step.cu. Device only.
 *
 * A block owns a range of outputs, cut into tiles of 8 (plain) or 16 rows (panels of the quantised
 * layouts). A stage of the ring holds `chunk` columns of a tile; all warps take columns of each
 * stage in turns and keep their part of the input in registers where a tile is one stage. Their
 * sums meet in shared memory.
 *
 * Each kind (step_linear_plain.cuh, step_linear_quant.cuh) says what one warp does of a stage:
 * `part_ask` reads the weights from shared memory, `part_x` the input; then `part_add` multiplies;
 * `part_store` leaves the warp's sums of a tile in red. */
#ifndef EW_KERNELS_CUDA_STEP_LINEAR_CUH
#define EW_KERNELS_CUDA_STEP_LINEAR_CUH

#include "step_dev.cuh"
#include "step_linear_plain.cuh"
#include "step_linear_quant.cuh"

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
EW_DEV void copy_tile(const struct step *s, const struct ew_step_phase *ph,
                      const struct step_range *r, uint32_t tile, uint32_t to, uint32_t col,
                      uint32_t cols)
{
    const uint32_t to_stride = ph->chunk * 2 + 64;
    const bool glu = ph->flags & EW_STEP_GLU;
    const uint32_t per = glu ? 4 : 8, out = r->out + tile * per, n = min(r->end - out, per);
    const uint64_t w = ph->w + (uint64_t)col * 2 + (uint64_t)out * ph->stride;

    copy_runs(s, to, to_stride, w, ph->stride, n, cols * 2);
    if (glu)
        copy_runs(s, to + 4 * to_stride, to_stride, w + (uint64_t)(ph->n / 2) * ph->stride,
                  ph->stride, n, cols * 2);
}
/* Bytes that come for `cols` columns of a tile. */
EW_DEV uint32_t copy_bytes(const struct ew_step_phase *ph, const struct step_range *r,
                           uint32_t tile, uint32_t cols)
{
    const bool glu = ph->flags & EW_STEP_GLU;
    const uint32_t per = glu ? 4 : 8, rows = min(r->end - r->out - tile * per, per);

    return (glu ? 4 : 2) * rows * cols;
}
EW_DEV void copy_plain(struct step *s, const struct ew_step_phase *ph, const struct step_range r)
{
    constexpr uint32_t GROUP = EW_STEP_RED_ROWS / 8;
    uint32_t tile = 0, col = 0;

#pragma unroll 1
    while (tile < r.n_tiles) { /* a stage; none crosses a group of tiles */
        const uint32_t end = min((tile / GROUP + 1) * GROUP, r.n_tiles);
        uint32_t bytes = 0, t = tile, c = col, n = 0;
        bool mine;

#pragma unroll 1
        for (; n < ph->batch && t < end; n++) {
            bytes += copy_bytes(ph, &r, t, min(ph->chunk, ph->k - c));
            c += ph->chunk;
            if (c >= ph->k) {
                c = 0;
                t++;
            }
        }
        mine = copy_begin(s, bytes);
#pragma unroll 1
        for (uint32_t i = 0; mine && i < n; i++) {
            copy_tile(s, ph, &r, tile, ring_at(s) + i * ph->part_bytes, col,
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
template <int KIND> EW_DEV void copy_linear(struct step *s, const struct ew_step_phase *entry)
{
    const struct ew_step_phase copy = *entry, *ph = &copy;
    const struct step_range r = step_range_of<KIND>(ph, s->cta, s->n_cta);

    if (KIND == EW_STEP_PLAIN16)
        copy_plain(s, ph, r);
    else
        quant_copy<KIND>(s, ph, r.tile, r.n_tiles);
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

/* One part: a stage's columns [col, col + cols) of a tile. */
template <bool WHOLE, bool FULL>
EW_DEV void run_part(struct plain_part *p, const struct step *s, const struct ew_step_phase *ph,
                     uint32_t at, uint32_t col, uint32_t cols)
{
    part_ask<FULL>(p, ph, at, col, cols);
    if (!WHOLE)
        part_x<FULL>(p, s, ph, col, cols);
    if (WHOLE || col == 0)
        part_zero(p);
    part_add<FULL>(p, s, ph, at, col, cols);
}
/* Tiles [t0, t1) into red. WHOLE: a part is a tile, and the input stays in registers. */
template <bool WHOLE>
EW_DEV void run_tiles(struct step *s, const struct ew_step_phase *ph, uint32_t t0, uint32_t t1,
                      float *red)
{
    constexpr uint32_t ROWS = 8;
    struct plain_part p;

    if (WHOLE)
        part_x<false>(&p, s, ph, 0, ph->k);
#pragma unroll 1
    for (uint32_t tile = t0, col = 0; tile < t1;) {
        uint32_t at = ring_at(s);

        ring_wait_full(s);
#pragma unroll 1
        for (uint32_t i = 0; i < ph->batch && tile < t1; i++) {
            const uint32_t cols = WHOLE ? ph->k : min(ph->chunk, ph->k - col);

            if (cols == STEP_COLS)
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

        if (KIND != EW_STEP_PLAIN16)
            quant_tiles<KIND>(s, ph, t0, t1, red);
        else if (whole)
            run_tiles<true>(s, ph, t0, t1, red);
        else
            run_tiles<false>(s, ph, t0, t1, red);
        sync_warps();
        step_epilogue<ROWS>(s, ph, r.out + t0 * per, min((t1 - t0) * per, r.end - r.out - t0 * per),
                            inv, best);
        s->half ^= 1;
    }
}

#endif

/* kernels/cuda/step_linear.cuh - linear phases of step.cu. Device only.
 *
 * A block owns a range of outputs, cut into tiles of 8 (plain) or 16 rows (panels of the quantised
 * layouts). A stage of the ring holds `chunk` columns of a tile; all warps take columns of each
 * stage. Their sums meet in shared memory. What a kind does with its input and with a stage is in
 * step_linear_plain.cuh and step_linear_quant.cuh. */
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
        r.out = 2 * r.tile;
        r.end = min(r.out + 2 * r.n_tiles, n);
        r.tile = 0;
        r.n_tiles = (r.end - r.out + (1u << per) - 1) >> per;
    } else {
        r.out = r.tile << per;
        r.end = min(r.out + (r.n_tiles << per), n);
    }
    return r;
}

/* ---- copying ---- */
/* Row by row, also where rows lie side by side: one copy of 16 KB took 8 % longer a step. */
EW_DEV void copy_tile(const struct step *s, const struct ew_step_phase *ph,
                      const struct step_range *r, uint32_t tile, uint32_t to, uint32_t col,
                      uint32_t cols)
{
    const uint32_t to_stride = ph->chunk * 2;
    const bool glu = ph->flags & EW_STEP_GLU;
    const uint32_t per = glu ? 4 : 8, out = r->out + tile * per, n = min(r->end - out, per);
    const uint64_t w = ph->w + (uint64_t)col * 2 + (uint64_t)out * ph->stride;
    const uint64_t up = w + (uint64_t)(ph->n / 2) * ph->stride;

    copy_runs(s, to, to_stride, w, ph->stride, n, cols * 2);
    if (glu)
        copy_runs(s, to + 4 * to_stride, to_stride, up, ph->stride, n, cols * 2);
}
/* Bytes that come for `cols` columns of a tile. */
EW_DEV uint32_t copy_bytes(const struct ew_step_phase *ph, const struct step_range *r,
                           uint32_t tile, uint32_t cols)
{
    const bool glu = ph->flags & EW_STEP_GLU;
    const uint32_t per = glu ? 4 : 8, rows = min(r->end - r->out - tile * per, per);

    return (glu ? 4 : 2) * rows * cols;
}
/* Parts in the order of tiles, then columns; no stage crosses a group of tiles. A warp works out
 * what is in its own stages alone. */
EW_DEV void copy_plain(struct step *s, const struct ew_step_phase *ph, const struct step_range r)
{
    const uint32_t chunks = ph->k <= ph->chunk ? 1 : (ph->k + STEP_COLS - 1) / STEP_COLS;
    const uint32_t group = EW_STEP_RED_ROWS / 8 * chunks, all = r.n_tiles * chunks;

#pragma unroll 1
    for (uint32_t part = 0, end = min(group, all); part < all;) {
        const uint32_t n = min(ph->batch, end - part);

        if (s->turn == 0) {
            uint32_t tile = part / chunks, col = (part - tile * chunks) * ph->chunk, bytes = 0;

#pragma unroll 1
            for (uint32_t i = 0, t = tile, c = col; i < n; i++) {
                bytes += copy_bytes(ph, &r, t, min(ph->chunk, ph->k - c));
                c += ph->chunk;
                if (c >= ph->k) {
                    c = 0;
                    t++;
                }
            }
            copy_begin(s, bytes);
#pragma unroll 1
            for (uint32_t i = 0; i < n; i++) {
                copy_tile(s, ph, &r, tile, ring_at(s) + i * ph->part_bytes, col,
                          min(ph->chunk, ph->k - col));
                col += ph->chunk;
                if (col >= ph->k) {
                    col = 0;
                    tile++;
                }
            }
            copy_end(s);
        } else {
            copy_begin(s, 0);
        }
        part += n;
        if (part == end)
            end = min(end + group, all);
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
    int i;
};
/* Nothing is (-inf, -1), a number that is none (inf, -1): -1 is the least. */
EW_DEV void better(struct step_best *b, float v, int i)
{
    if (v > b->v || (v == b->v && i < b->i)) {
        b->v = v;
        b->i = i;
    }
}
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
/* Output out + i of a group, which thread i makes: what is known of it before its sums are. */
struct step_output {
    uint32_t o, red; /* its number; its sums, a shared address in the half 0 of red */
    bool is_warp, is_pair, is_mine; /* the warp makes some; the thread or its neighbour; it */
    uint64_t pair, single; /* where it goes: the first copy that this thread sends; alone */
    uint64_t kept;         /* RESIDUAL: its packet, as it was read early */
};
EW_DEV uint64_t step_packet(const struct step *s, uint32_t i)
{
    return s->a->workspace + (uint64_t)i * 8;
}
/* Of n <= RED_ROWS outputs from `out` on. */
template <int ROWS>
EW_DEV struct step_output step_output_of(const struct step *s, const struct ew_step_phase *ph,
                                         uint32_t out, uint32_t n)
{
    const uint32_t i = threadIdx.x, log2 = (ROWS == 8 ? 3 : 4) - (ph->flags & EW_STEP_GLU ? 1 : 0);
    struct step_output r;

    r.o = out + i;
    r.is_warp = i / 32 * 32 < n;
    r.is_pair = (i & ~1u) < n;
    r.is_mine = i < n;
    r.red = smem_of(s->red) + ((i >> log2) * ROWS + (i & ((1u << log2) - 1))) * (EW_STEP_WARPS * 4);
    r.pair = step_packet(s, ph->out + r.o / 2 + i % 2 * s->a->copy);
    r.single = step_packet(s, ph->singles + r.o);
    r.kept = 0;
    if (ph->flags & EW_STEP_RESIDUAL && r.is_mine)
        r.kept = packet_load(step_packet(s, ph->kept + r.o));
    return r;
}
/* Keeps the compiler from making it later, when its input is there and everyone waits. */
EW_DEV void step_output_pin(struct step_output *r)
{
    asm volatile("" : "+r"(r->o), "+r"(r->red), "+l"(r->pair), "+l"(r->single));
}
EW_DEV float step_row_sum(uint32_t red)
{
    float sum = 0;

#pragma unroll
    for (int i = 0; i < EW_STEP_WARPS; i += 4) {
        const uint4 v = lds128(red + i * 4);

        sum += (f32_of(v.x) + f32_of(v.y)) + (f32_of(v.z) + f32_of(v.w));
    }
    return sum;
}
EW_DEV float step_inv_rms(const struct step *s, const struct ew_step_phase *ph)
{
    float sum = 0;

#pragma unroll
    for (int i = 0; i < EW_STEP_WARPS; i += 4) {
        const float4 v = *(const float4 *)(s->sums + s->half * EW_STEP_WARPS + i);

        sum += v.x + v.y + (v.z + v.w);
    }
    return ph->flags & EW_STEP_NORM ? rsqrtf(sum * ph->inv_k + ph->eps) : 1;
}
/* The outputs, whose sums are in red[half]. What is read of shared memory is asked for at once,
 * needed or not: a branch costs more. *inv is made for the first group of a phase. */
template <int ROWS>
EW_DEV void step_send(struct step *s, const struct ew_step_phase *ph, const struct step_output *r,
                      float *inv, bool is_first, struct step_best *best)
{
    const bool glu = ph->flags & EW_STEP_GLU;
    const uint32_t red = r->red + s->half * (EW_STEP_RED_ROWS * EW_STEP_WARPS * 4);
    float z, up, rms, next;

    if (!r->is_warp)
        return;
    z = step_row_sum(red);
    up = step_row_sum(red + (glu ? ROWS / 2 * EW_STEP_WARPS * 4 : 0));
    rms = step_inv_rms(s, ph);
    *inv = is_first ? rms : *inv;
    z = step_z(ph, z, *inv, r->o);
    if (ph->act)
        z = step_act(z);
    if (glu)
        z *= step_z(ph, up, *inv, ph->n / 2 + r->o);
    if (ph->flags & EW_STEP_RESIDUAL && r->is_mine)
        z += packet_wait(s, step_packet(s, ph->kept + r->o), r->kept, s->in_seq - ph->kept_back);
    if (ph->flags & EW_STEP_HEAD && r->is_mine) {
        if (s->a->logits)
            ((float *)s->a->logits)[r->o] = z;
        if (z > best->v) {
            best->v = z;
            best->i = (int)r->o;
        } else if (z != z) {
            best->v = STEP_INF;
            best->i = -1;
        }
    }
    z = r->is_mine ? z : 0;
    next = __shfl_xor_sync(EW_ALL, z, 1);
    if (ph->flags & EW_STEP_PAIRS && r->is_pair) /* odd lanes send odd copies */
        pair_send(s, r->pair, threadIdx.x % 2 ? next : z, threadIdx.x % 2 ? z : next, s->seq, 2);
    if (ph->flags & EW_STEP_SINGLES && r->is_mine)
        packet_store(r->single, z, s->seq);
}
/* Outputs of the group that begins with tile t0. */
template <int ROWS>
EW_DEV uint32_t step_group(const struct ew_step_phase *ph, const struct step_range *r, uint32_t t0)
{
    const uint32_t per = ph->flags & EW_STEP_GLU ? ROWS / 2 : ROWS;

    return t0 < r->n_tiles ? min(EW_STEP_RED_ROWS / ROWS * per, r->end - r->out - t0 * per) : 0;
}
EW_DEV void run_plain(struct step *s, const struct ew_step_phase *entry, struct step_best *best)
{
    const struct ew_step_phase copy = *entry, *ph = &copy; /* in registers, what is used of it */
    constexpr uint32_t ROWS = 8, TILES = EW_STEP_RED_ROWS / ROWS;
    const uint32_t per = ph->flags & EW_STEP_GLU ? ROWS / 2 : ROWS, warp = threadIdx.x / 32;
    const struct step_range r = step_range_of<EW_STEP_PLAIN16>(ph, s->cta, s->n_cta);
    float inv = 1;

    if (!r.n_tiles) /* and waits for nobody */
        return;

    struct step_output o = step_output_of<ROWS>(s, ph, r.out, step_group<ROWS>(ph, &r, 0));

#pragma unroll 1
    for (uint32_t t0 = 0; t0 < r.n_tiles; t0 += TILES) {
        const uint32_t t1 = min(t0 + TILES, r.n_tiles);
        float *red = s->red + s->half * EW_STEP_RED_ROWS * EW_STEP_WARPS + warp;

        if (EW_STEP_PLAINS & EW_STEP_WHOLE && ph->k == STEP_COLS)
            plain_tiles_whole<true>(s, ph, t0, t1, red);
        else if (EW_STEP_PLAINS & EW_STEP_SHORT && ph->k <= ph->chunk)
            plain_tiles_whole<false>(s, ph, t0, t1, red);
        else if (EW_STEP_PLAINS & EW_STEP_PARTS)
            plain_tiles_parts(s, ph, t0, t1, red);
        step_mark(s, 4);
        sync_warps();
        step_mark(s, 5);
        step_send<ROWS>(s, ph, &o, &inv, t0 == 0, best);
        step_mark(s, 6);
        if (t1 < r.n_tiles)
            o = step_output_of<ROWS>(s, ph, r.out + t1 * per, step_group<ROWS>(ph, &r, t1));
        s->half ^= 1;
    }
}
/* What does not need the input comes before it: codes and addresses are in registers when it is
 * there. T: whole panels of so many turns, by code of their own, which prepares nothing that others
 * need; 0: any. */
template <int KIND, int T>
EW_DEV void quant_groups(struct step *s, const struct ew_step_phase *ph, const struct step_range *r,
                         struct step_best *best)
{
    constexpr uint32_t ROWS = 16, TILES = EW_STEP_RED_ROWS / ROWS;
    const uint32_t per = ph->flags & EW_STEP_GLU ? ROWS / 2 : ROWS;
    struct step_output o = step_output_of<ROWS>(s, ph, r->out, step_group<ROWS>(ph, r, 0));
    uint32_t red = quant_red(s);
    struct quant_ahead<KIND, T> a;
    struct quant_input<KIND> x[T ? T : 1];
    float inv = 1, sum;

    step_output_pin(&o);
    asm volatile("" : "+r"(red));
    quant_begin(&a, s, ph, min(TILES, r->n_tiles));
    if constexpr (T)
        sum = quant_take_whole<KIND, T>(x, s, ph);
    else
        sum = quant_take<KIND, 4>(s, ph);
#pragma unroll 1
    for (uint32_t t0 = 0; t0 < r->n_tiles; t0 += TILES) {
        const uint32_t t1 = min(t0 + TILES, r->n_tiles);
        const uint32_t to = red + s->half * (EW_STEP_RED_ROWS * EW_STEP_WARPS * 4);

        if constexpr (T) {
            quant_tiles_whole<KIND, T>(s, ph, t1 - t0, to, &a, x, &sum);
        } else {
            quant_tiles_long(s, ph, t1 - t0, to, &a);
            if (t0 == 0)
                sum = warp_sum(sum);
        }
        if (t0 == 0 && threadIdx.x % 32 == 0)
            s->sums[s->half * EW_STEP_WARPS + threadIdx.x / 32] = sum;
        step_mark(s, 4);
        if (t1 < r->n_tiles) /* before the barrier, which then costs less */
            quant_begin(&a, s, ph, min(TILES, r->n_tiles - t1));
        sync_warps();
        step_mark(s, 5);
        step_send<ROWS>(s, ph, &o, &inv, t0 == 0, best);
        step_mark(s, 6);
        if (t1 < r->n_tiles)
            o = step_output_of<ROWS>(s, ph, r->out + t1 * per, step_group<ROWS>(ph, r, t1));
        s->half ^= 1;
    }
}
template <int KIND>
EW_DEV void run_quant(struct step *s, const struct ew_step_phase *entry, struct step_best *best)
{
    constexpr uint32_t HAS = EW_STEP_TURNS >> (KIND == EW_STEP_Q4 ? 0 : 8);
    const struct ew_step_phase copy = *entry, *ph = &copy;
    const struct step_range r = step_range_of<KIND>(ph, s->cta, s->n_cta);

    if (!r.n_tiles)
        return;
    if (HAS & 2 && ph->turns == 1)
        quant_groups<KIND, 1>(s, ph, &r, best);
    else if (HAS & 4 && ph->turns == 2)
        quant_groups<KIND, 2>(s, ph, &r, best);
    else if (HAS & 8 && ph->turns == 3)
        quant_groups<KIND, 3>(s, ph, &r, best);
    else if (HAS & 1)
        quant_groups<KIND, 0>(s, ph, &r, best);
}
template <int KIND>
EW_DEV void run_linear(struct step *s, const struct ew_step_phase *entry, struct step_best *best)
{
    if (KIND == EW_STEP_PLAIN16)
        run_plain(s, entry, best);
    else
        run_quant<KIND == EW_STEP_Q8 ? EW_STEP_Q8 : EW_STEP_Q4>(s, entry, best);
}

#endif

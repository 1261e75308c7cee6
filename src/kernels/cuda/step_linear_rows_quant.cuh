/* kernels/cuda/step_linear_rows_quant.cuh - linear phases of step_rows.cu: panels of 4- and 8-bit
 * codes times the vectors of several sequences. Device only.
 *
 * A panel's 16 rows are the A operand of mma m16n8k16, a word of codes a lane; a column of B is a
 * sequence. Codes become numbers by a mask alone: with an exponent of 0 or 1 the bits of a 16-bit
 * float are an integer, so that code + 8 in the low four bits of a bf16 is 2^-133 times that, in
 * the next four 2^-129 times; code + 128 in the low eight is 2^-133 times that. What is multiplied
 * by them was made larger by 2^100 by who sent it, or sums would be too small for f32. Sums start
 * at what the eights (128s) will add. Who sends also multiplies by the weights of the reader's norm
 * and sends sums of squares, so that nothing is left to be done to numbers when they come.
 *
 * A warp multiplies 128 columns of each 1024 (a turn), as in step_linear_quant.cuh; it keeps its
 * columns of the input, of up to 4 turns, in registers, as they come from L2. Longer rows are
 * multiplied by rounds of 4 turns, and their sums added up in shared memory.
 *
 * Stages come in this order: groups of RED_ROWS rows; in a group whole panels, else rounds; in a
 * round panel by panel, each by parts. */
#ifndef EW_KERNELS_CUDA_STEP_LINEAR_ROWS_QUANT_CUH
#define EW_KERNELS_CUDA_STEP_LINEAR_ROWS_QUANT_CUH

#include "step_linear_rows.cuh"

#define PANEL_TURNS 4 /* of a round */
#define PANEL_COLS  (PANEL_TURNS * STEP_COLS)
#define PANEL_GROUP (EW_STEP_RED_ROWS / 16) /* panels */
#define PANEL_SIDE  4                       /* turns side by side, at most */
/* Whether there are rounds of less turns. */
#define PANEL_RESTS(kind) (EW_STEP_TURNS >> ((kind) == EW_STEP_Q4 ? 0 : 8) & 16)
/* A part has so many times STEP_COLS columns of 8 bits, or twice that of 4. */
#ifndef EW_STEP_MOST
#    define EW_STEP_MOST 2
#endif

/* ---- copying ---- */
template <int KIND> EW_DEV void panels_copy(struct step *s, const struct ew_step_phase *entry)
{
    const struct ew_step_phase copy = *entry, *ph = &copy;
    const struct step_range r = step_range_of<KIND>(ph, s->cta, s->n_cta);
    const uint64_t w = ph->w + (uint64_t)r.tile * ph->stride;

    if (quant_whole(ph)) {
        quant_copy<KIND>(s, ph, r.tile, r.n_tiles);
        return;
    }
#pragma unroll 1
    for (uint32_t t0 = 0; t0 < r.n_tiles; t0 += PANEL_GROUP) {
        const uint32_t t1 = min(t0 + PANEL_GROUP, r.n_tiles);
#pragma unroll 1
        for (uint32_t from = 0; from < ph->k; from += PANEL_COLS)
#pragma unroll 1
            for (uint32_t tile = t0; tile < t1; tile++)
#pragma unroll 1
                for (uint32_t col = from; col < min(from + PANEL_COLS, ph->k); col += ph->chunk)
                    quant_copy_part<KIND>(s, ph, w + (uint64_t)tile * ph->stride, col);
    }
}

/* ---- codes ---- */
/* Rows of TURNS turns; 0: of more, whole or by rounds. T turns are of a round, U of a stage's panel
 * or part of one. */
template <int KIND, int TURNS> struct panel_shape {
    static constexpr int PART = KIND == EW_STEP_Q4 ? 2 * EW_STEP_MOST : EW_STEP_MOST;
    static constexpr int T = TURNS ? TURNS : PANEL_TURNS;
    static constexpr int U = TURNS && TURNS <= PART ? TURNS : PART;
};
/* Where a warp is in the stages of its phase, and where it finds its columns of a turn there: in a
 * last one it may have none, and multiplies others by zeros: what is done under a condition costs
 * more. */
struct panel_walk {
    uint32_t at; /* of the panel or the part */
    /* whole panels: in the stage, behind this one; the first of the next stage; all */
    uint32_t left, tile, n_tiles;
    uint32_t codes, codes_last;
    uint32_t scales[STEP_UNITS], scales_last[STEP_UNITS], scale_step;
    uint32_t rows;
};
template <int KIND>
EW_DEV uint32_t panel_scale(const struct ew_step_phase *ph, uint32_t col, uint32_t u)
{
    const uint32_t lane = threadIdx.x % 32, group = ph->group_log2;
    const uint32_t at = quant_scales_at<KIND>(ph) + lane / 4 * 4;

    if (EW_STEP_UNIT == 32 && KIND == EW_STEP_Q4 && group == 5) /* [g / 2][8][g % 2][2] */
        return at + lane / 4 * 4 + col + u / 2 * 64 + u % 2 * 4;
    return at + (group ? (col + u * EW_STEP_UNIT) >> group << 5 : 0);
}
/* Of a round of `cols` columns. */
template <int KIND>
EW_DEV void panel_places(struct panel_walk *w, const struct ew_step_phase *ph, uint32_t cols)
{
    constexpr uint32_t CODE = KIND == EW_STEP_Q4 ? 8 : 16;
    const uint32_t own = threadIdx.x / 32 * STEP_QUANT;
    const uint32_t last = min(own, (cols - 1) % STEP_COLS & ~(STEP_QUANT - 1u));

    w->codes = own * CODE + threadIdx.x % 32 * 16;
    w->codes_last = last * CODE + threadIdx.x % 32 * 16;
#pragma unroll
    for (uint32_t u = 0; u < STEP_UNITS; u++) {
        w->scales[u] = panel_scale<KIND>(ph, own, u);
        w->scales_last[u] = panel_scale<KIND>(ph, last, u);
    }
    w->scale_step = ph->group_log2 ? STEP_COLS >> ph->group_log2 << 5 : 0;
    w->rows = ph->row_scales_at + threadIdx.x % 32 / 4 * 4;
}
/* The next stage, or the next panel of this one. */
EW_DEV void panel_stage(struct step *s, const struct ew_step_phase *ph, struct panel_walk *w)
{
    if (w->left) {
        w->left--;
        w->at += ph->stride;
        return;
    }
    ring_wait_full(s);
    w->at = ring_at(s);
    if (quant_whole(ph)) {
        const uint32_t end = min((w->tile / PANEL_GROUP + 1) * PANEL_GROUP, w->n_tiles);

        w->left = min(ph->batch, end - w->tile) - 1;
        w->tile += w->left + 1;
    }
}
/* What sums of the rows g and g + 8 of a panel are worth. */
template <int KIND> EW_DEV float panel_unit(int high)
{
    return KIND == EW_STEP_Q4 && high ? 536870912.0f : 8589934592.0f; /* 2^29, 2^33 */
}
EW_DEV uint32_t word_at(const uint4 &v, int i)
{
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}
/* Tile of 16 columns as the A operand, of those in w: 4 of 4 bits, 2 of 8. */
template <int KIND> EW_DEV void panel_tile(uint32_t f[4], const uint4 &w, int tile)
{
    if (KIND == EW_STEP_Q4) {
        const uint32_t low = word_at(w, tile), high = low >> 8;

        f[0] = low & 0x000f000fu;
        f[1] = low & 0x00f000f0u;
        f[2] = high & 0x000f000fu;
        f[3] = high & 0x00f000f0u;
    } else {
        const uint32_t low = word_at(w, tile * 2) ^ 0x80808080u;
        const uint32_t high = word_at(w, tile * 2 + 1) ^ 0x80808080u;

        f[0] = __byte_perm(low, 0, 0x4240);
        f[1] = __byte_perm(low, 0, 0x4341);
        f[2] = __byte_perm(high, 0, 0x4240);
        f[3] = __byte_perm(high, 0, 0x4341);
    }
}

/* ---- the input ---- */
/* Words of T turns. What sums of their units start at is in shared memory that no other warp
 * touches, since registers are too few: [T turns][units][4]: of sequences 2t and 2t + 1, for rows
 * of low codes and for those of high ones. */
template <int T> struct panel_input {
    uint4 x[T][4];
};
EW_DEV uint32_t panel_start(const struct step *s, int t, int u)
{
    return smem_of(s->x) + threadIdx.x / 32 * (PANEL_TURNS * STEP_UNITS * 64) +
           (uint32_t)(t * STEP_UNITS + u) * 64 + threadIdx.x % 4 * 16;
}
template <int T> EW_DEV void panel_clear(struct panel_input<T> *p)
{
#pragma unroll
    for (int i = 0; i < T * 4; i++)
        p->x[i / 4][i % 4] = make_uint4(0, 0, 0, 0);
}
EW_DEV void sts128(uint32_t at, const float v[4])
{
    asm volatile("st.shared.v4.f32 [%0], {%1,%2,%3,%4};" ::"r"(at), "f"(v[0]), "f"(v[1]), "f"(v[2]),
                 "f"(v[3]));
}
/* Tile of 16 columns of a turn as the B operand. */
EW_DEV uint2 panel_x(const uint4 x[4], int tile)
{
    return tile % 2 ? make_uint2(x[tile / 2].z, x[tile / 2].w)
                    : make_uint2(x[tile / 2].x, x[tile / 2].y);
}
/* Words of 16 bytes with squares of the input that a lane reads with it. */
#define PANEL_SQUARES 4
/* This warp's columns from `col` on; zeros behind the last. Of the squares of sequence `warp`, the
 * first 128 * PANEL_SQUARES words of n. */
template <int T>
EW_DEV void panel_wait(const struct step *s, const struct ew_step_phase *ph, uint32_t col,
                       uint4 x[T][4], uint4 squares[PANEL_SQUARES], uint32_t n_squares)
{
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const uint64_t in = words_now(s) + (uint64_t)ph->in * 8 + (uint64_t)col * 16 + lane * 16;
    const uint64_t sums =
        words_now(s) + (uint64_t)ph->squares_in * 8 + warp * ph->n_squares * 4 + lane * 16;
    const bool is_there = lane / 4 < s->a->sequences;
    const uint32_t left = is_there && col < ph->k ? ph->k - col : 0;
    uint32_t n = 0;
    bool all;

#pragma unroll
    for (int i = 0; i < T * 4; i++)
        x[i / 4][i % 4] = make_uint4(0, 0, 0, 0);
#pragma unroll
    for (int i = 0; i < PANEL_SQUARES; i++)
        squares[i] = make_uint4(0, 0, 0, 0);
    do {
        all = true;
#pragma unroll
        for (uint32_t i = 0; i < T * 4; i++)
            words_load_if(&x[i / 4][i % 4], in + i / 4 * (STEP_COLS * 16) + i % 4 * 512,
                          i / 4 * STEP_COLS + i % 4 * 32 < left && !words_least(x[i / 4][i % 4]));
#pragma unroll
        for (uint32_t i = 0; i < PANEL_SQUARES; i++)
            words_load_if(&squares[i], sums + i * 512,
                          i * 128 + lane * 4 < n_squares && !words_least(squares[i]));
#pragma unroll
        for (uint32_t i = 0; i < T * 4; i++)
            all = all && (i / 4 * STEP_COLS + i % 4 * 32 >= left ||
                          word_is_there(words_least(x[i / 4][i % 4])));
#pragma unroll
        for (uint32_t i = 0; i < PANEL_SQUARES; i++)
            all =
                all && (i * 128 + lane * 4 >= n_squares || word_is_there(words_least(squares[i])));
        if (++n > EW_STEP_POLL_LIMIT)
            step_gave_up(s);
    } while (!all);
    __syncwarp();
    step_mark(s, 1);
}
EW_DEV float panel_sum(uint4 v)
{
    return (f32_of(v.x) + f32_of(v.y)) + (f32_of(v.z) + f32_of(v.w));
}
/* The sum of the squares of sequence `warp` to where rows_inv_rms reads it; v: those read so far.
 */
EW_DEV void panel_squares(struct step *s, const struct ew_step_phase *ph,
                          const uint4 v[PANEL_SQUARES])
{
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const uint64_t at = words_now(s) + (uint64_t)ph->squares_in * 8 + warp * ph->n_squares * 4;
    float sum = 0;

#pragma unroll
    for (int i = 0; i < PANEL_SQUARES; i++)
        sum += panel_sum(v[i]);
#pragma unroll 1
    for (uint32_t i = PANEL_SQUARES * 128 + lane * 4;
         i < (warp < s->a->sequences ? ph->n_squares : 0); i += 128) {
        const float2 a = words_wait2(s, at + i * 4, make_uint2(0, 0));
        const float2 b = words_wait2(s, at + i * 4 + 8, make_uint2(0, 0));

        sum += (a.x + a.y) + (b.x + b.y);
    }
    __syncwarp();
    sum += __shfl_xor_sync(EW_ALL, sum, 16);
    sum += __shfl_xor_sync(EW_ALL, sum, 8);
    if (lane < EW_STEP_WARPS)
        s->sums[(s->half * 8 + warp) * EW_STEP_WARPS + lane] = sum;
}
/* Of columns [col, col + T turns). */
template <int KIND, int T>
EW_DEV void panel_take(struct panel_input<T> *p, struct step *s, const struct ew_step_phase *ph,
                       uint32_t col, bool is_first)
{
    /* -8 as the bits of low and of high codes, -128 */
    const uint32_t low = KIND == EW_STEP_Q4 ? 0x80088008u : 0x80808080u, high = 0x80808080u;
    const bool sums = is_first && col == 0 && ph->flags & EW_STEP_NORM;
    uint4 squares[PANEL_SQUARES];

    panel_wait<T>(s, ph, col + threadIdx.x / 32 * STEP_QUANT, p->x, squares,
                  sums && threadIdx.x / 32 < s->a->sequences ? ph->n_squares : 0);
    if (sums)
        panel_squares(s, ph, squares);
    __syncwarp(); /* the last ones are read no more */
#pragma unroll
    for (int i = 0; i < T * STEP_UNITS; i++) {
        const int t = i / STEP_UNITS, u = i % STEP_UNITS;
        float c[4] = { 0, 0, 0, 0 };

#pragma unroll
        for (int j = 0; j < EW_STEP_UNIT / 16; j++) {
            const uint2 b = panel_x(p->x[t], u * (EW_STEP_UNIT / 16) + j);

            mma16<false>(c, low, high, low, high, b.x, b.y);
        }
        if (threadIdx.x % 32 < 4)
            sts128(panel_start(s, t, u), c);
    }
    __syncwarp();
    step_mark(s, 2);
}

/* ---- products ---- */
/* Turns t to t + N - 1 of a panel in this round, side by side: each is a chain in which every
 * product waits for the one before. ends: they are the round's last, which has `last` columns of
 * this warp or more; is_last: the panel's, too, and row becomes what its sums are worth. A stage
 * goes back with the last of its turns. */
template <int KIND, int TURNS, int N>
EW_DEV void panel_step(float acc[4], float row[2], struct step *s, const struct ew_step_phase *ph,
                       struct panel_walk *w,
                       const struct panel_input<panel_shape<KIND, TURNS>::T> *x, int t, bool ends,
                       bool is_last, uint32_t last)
{
    constexpr int U = panel_shape<KIND, TURNS>::U, TILES = KIND == EW_STEP_Q4 ? 4 : 2;
    constexpr int UNIT = EW_STEP_UNIT / 16, DONE = 8 - (TILES < UNIT ? TILES : UNIT);
    constexpr int CHAINS = N <= 2 ? 2 : 1;
    constexpr uint32_t TURN = STEP_COLS * (KIND == EW_STEP_Q4 ? 8 : 16);
    float a[N][CHAINS][4];
    uint32_t scale[N];
    uint4 v[N];

    if (t % U == 0)
        panel_stage(s, ph, w);
#pragma unroll
    for (int i = 0; i < 8; i++) { /* tiles of 16 columns */
        const int u = i / UNIT;
#pragma unroll
        for (int j = 0; j < N; j++) {
            const bool is_end = ends && j == N - 1;
            const uint32_t turn = (uint32_t)((t + j) % U);
            uint4 start;

            if (i % TILES == 0)
                v[j] = lds128(w->at + (is_end ? w->codes_last : w->codes) + turn * TURN +
                              i / TILES * 512);
            if (i % UNIT)
                continue;
            scale[j] = EW_STEP_SCALE_F16 ? 0x3c003c00u : 0x3f803f80u;
            if (ph->group_log2)
                scale[j] = lds32(w->at + (is_end ? w->scales_last[u] : w->scales[u]) +
                                 turn * w->scale_step);
            start = lds128(panel_start(s, t + j, u));
#pragma unroll
            for (int c = 0; c < CHAINS * 4; c++)
                a[j][c / 4][c % 4] = c < 4 ? f32_of(word_at(start, c)) : 0;
        }
        if (i == DONE) {
            if (ends && is_last) {
                row[0] = f32_of(lds32(w->at + w->rows)) * panel_unit<KIND>(0);
                row[1] = f32_of(lds32(w->at + w->rows + 32)) * panel_unit<KIND>(1);
            }
            if ((ends || (t + N) % U == 0) && !w->left)
                ring_release(s);
        }
#pragma unroll
        for (int j = 0; j < N; j++) {
            const uint2 b = panel_x(x->x[t + j], i);
            uint32_t f[4];

            panel_tile<KIND>(f, v[j], i % TILES);
            mma16<false>(a[j][i % CHAINS], f[0], f[1], f[2], f[3], b.x, b.y);
        }
        if ((i + 1) % UNIT)
            continue;
#pragma unroll
        for (int j = 0; j < N; j++) {
            const float2 by = half2_get<EW_STEP_SCALE_F16>(scale[j]);

            if (u && ends && j == N - 1 && (uint32_t)u * EW_STEP_UNIT >= last)
                break; /* whose scales nobody wrote */
#pragma unroll
            for (int c = 0; c < 4; c++)
                acc[c] = fmaf(CHAINS == 2 ? a[j][0][c] + a[j][CHAINS - 1][c] : a[j][0][c],
                              c < 2 ? by.x : by.y, acc[c]);
        }
    }
}
/* A panel's turns of a round of `cols` columns. FULL: there are T of them. */
template <int KIND, int TURNS, bool FULL>
EW_DEV void panel_multiply(float acc[4], float row[2], struct step *s,
                           const struct ew_step_phase *ph, struct panel_walk *w,
                           const struct panel_input<panel_shape<KIND, TURNS>::T> *x, uint32_t cols,
                           bool is_last)
{
    constexpr int T = panel_shape<KIND, TURNS>::T, U = panel_shape<KIND, TURNS>::U;
    const uint32_t own = threadIdx.x / 32 * STEP_QUANT;
    const int turns = FULL ? T : (int)((cols + STEP_COLS - 1) / STEP_COLS);
    const uint32_t left = cols - (uint32_t)(turns - 1) * STEP_COLS; /* of the last turn */
    const uint32_t last = own < left ? left - own : (cols - 1) % STEP_QUANT + 1;

    if (FULL) {
        constexpr int N = U < PANEL_SIDE ? U : PANEL_SIDE, REST = T % N ? T % N : N;

#pragma unroll
        for (int t = 0; t < T; t += N) {
            if (T - t >= N)
                panel_step<KIND, TURNS, N>(acc, row, s, ph, w, x, t, t + N == T, is_last, last);
            else
                panel_step<KIND, TURNS, REST>(acc, row, s, ph, w, x, t, true, is_last, last);
        }
        return;
    }
#pragma unroll
    for (int t = 0; t < T; t++)
        if (t < turns)
            panel_step<KIND, TURNS, 1>(acc, row, s, ph, w, x, t, t + 1 == turns, is_last, last);
}
EW_DEV void panel_store(float *red, const float acc[4], const float row[2], bool first)
{
    float *to = red + rows_sums_at(threadIdx.x % 4 * 2) + threadIdx.x % 32 / 4;

#pragma unroll
    for (int i = 0; i < 4; i++) {
        float *at = to + i / 2 * STEP_TILE + i % 2 * 8;

        *at = (first ? acc[i] : acc[i] + *at) * row[i / 2];
    }
}
/* Tiles [t0, t1), a group, into red. */
template <int KIND, int TURNS>
EW_DEV void panels_group(struct step *s, const struct ew_step_phase *ph, uint32_t t0, uint32_t t1,
                         float *red, struct panel_walk *w,
                         struct panel_input<panel_shape<KIND, TURNS>::T> *x)
{
    constexpr int T = panel_shape<KIND, TURNS>::T;
    constexpr uint32_t ROUND = T * STEP_COLS;

#pragma unroll 1
    for (uint32_t col = 0; col < ph->k; col += ROUND) {
        const uint32_t cols = TURNS ? ph->k : min(ph->k - col, ROUND);
        const bool is_last = TURNS || col + cols == ph->k;

        if (!TURNS && (t0 == 0 || ph->k > ROUND)) {
            panel_places<KIND>(w, ph, cols);
            panel_take<KIND, T>(x, s, ph, col, t0 == 0);
        }
#pragma unroll 1
        for (uint32_t tile = t0; tile < t1; tile++) {
            float acc[4] = { 0, 0, 0, 0 }, row[2] = { 1, 1 };

            if (TURNS || !PANEL_RESTS(KIND) || cols > ROUND - STEP_COLS)
                panel_multiply<KIND, TURNS, true>(acc, row, s, ph, w, x, cols, is_last);
            else
                panel_multiply<KIND, TURNS, false>(acc, row, s, ph, w, x, cols, is_last);
            panel_store(red + (tile - t0) * 2 * STEP_TILE, acc, row, TURNS || col == 0);
        }
    }
}
template <int KIND, int TURNS>
EW_DEV void panels_way(struct step *s, const struct ew_step_phase *entry,
                       const struct step_range *r, struct step_best *best)
{
    constexpr int T = panel_shape<KIND, TURNS>::T;
    const struct ew_step_phase copy = *entry, *ph = &copy;
    const uint32_t per = ph->flags & EW_STEP_GLU ? 8 : 16;
    uint2 kept = rows_kept(s, entry, r->out, r->end);
    struct panel_walk w;
    struct panel_input<T> x;
    float2 norm = rows_next_norm(entry, r->out, r->end);
    float inv = 1;

    w.at = w.left = w.tile = 0;
    w.n_tiles = r->n_tiles;
    if (TURNS) {
        panel_places<KIND>(&w, ph, ph->k);
        panel_take<KIND, T>(&x, s, ph, 0, true);
    } else { /* or registers that are written under a condition would be kept everywhere */
        panel_clear(&x);
        panel_places<KIND>(&w, ph, min(ph->k, (uint32_t)PANEL_COLS));
    }
#pragma unroll 1
    for (uint32_t t0 = 0; t0 < r->n_tiles; t0 += PANEL_GROUP) {
        const uint32_t t1 = min(t0 + PANEL_GROUP, r->n_tiles), out = r->out + t0 * per;
        float *red = s->red + (s->half * EW_STEP_WARPS + threadIdx.x / 32) * STEP_RED;

        panels_group<KIND, TURNS>(s, ph, t0, t1, red, &w, &x);
        step_mark(s, 4);
        sync_warps();
        step_mark(s, 5);
        rows_epilogue<true>(s, entry, out, min((t1 - t0) * per, r->end - out), &inv, t0 == 0, kept,
                            norm, best);
        step_mark(s, 6);
        kept = rows_kept(s, entry, out + PANEL_GROUP * per, r->end);
        norm = rows_next_norm(entry, out + PANEL_GROUP * per, r->end);
        s->half ^= 1;
    }
}
template <int KIND>
EW_DEV void panels_linear(struct step *s, const struct ew_step_phase *ph, struct step_best *best)
{
    constexpr uint32_t HAS = EW_STEP_TURNS >> (KIND == EW_STEP_Q4 ? 0 : 8);
    const struct step_range r = step_range_of<KIND>(ph, s->cta, s->n_cta);

    if (!r.n_tiles)
        return;
    if (HAS & 2 && ph->turns == 1)
        panels_way<KIND, 1>(s, ph, &r, best);
    else if (HAS & 4 && ph->turns == 2)
        panels_way<KIND, 2>(s, ph, &r, best);
    else if (HAS & 8 && ph->turns == 3)
        panels_way<KIND, 3>(s, ph, &r, best);
    else if (HAS & 1)
        panels_way<KIND, 0>(s, ph, &r, best);
}

#endif

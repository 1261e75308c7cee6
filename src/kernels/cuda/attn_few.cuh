/* kernels/cuda/attn_few.cuh - what a block of attention_few.cu has to do: its rows, its part of the
 * cache, and which new tokens it sees. Macros: attention_few.cu's. */
#ifndef EW_KERNELS_CUDA_ATTN_FEW_CUH
#define EW_KERNELS_CUDA_ATTN_FEW_CUH

#include "attn_tile.cuh"

#define WARPS    EW_WARPS
#define ROWS     16 /* of a block */
#define STRIDE   EW_TILE_STRIDE
#define PLANE    (EW_PANEL * STRIDE) /* bytes: keys of a panel, or values */
#define Q_STRIDE (EW_D + 8)
#define P_STRIDE (EW_PANEL + 8)
#define K_STEPS  (EW_D / 16)
#define TILES    (EW_PANEL / 16)
#define COLUMNS  (EW_D / 16)
/* Warps that share the tiles of a panel, and the columns of 16; how many each has. */
#define S_WARPS    (TILES < WARPS ? TILES : WARPS)
#define S_TILES    (TILES / S_WARPS)
#define V_WARPS    (COLUMNS < WARPS ? COLUMNS : WARPS)
#define V_TILES    ((COLUMNS + V_WARPS - 1) / V_WARPS)
#define CHUNK_MIN  256 /* slots of a chunk, where there are several */
#define MAX_CHUNKS 16

struct few {
    unsigned short q_hi[ROWS][Q_STRIDE], q_lo[ROWS][Q_STRIDE];
    unsigned short p_hi[ROWS][P_STRIDE], p_lo[ROWS][P_STRIDE];
    float top[TILES][ROWS], sum[TILES][ROWS]; /* of a tile */
    float m[2][ROWS];                         /* maxima before and after a panel, by turns */
};

struct share {            /* what a block has to do; slots may be negative in the oldest panel */
    unsigned char *k, *v; /* slot 0 of the head in the cache */
    unsigned b, h, block, chunk, n_chunks;
    unsigned r0, n_rows; /* rows that are there */
    unsigned n_real;     /* tokens that lengths and capacity allow */
    int s0;              /* slot of the first new token */
    int begin, end, top; /* slots seen: begin and top are multiples of 16 */
    int first, last;     /* panels, counted from the newest down */
};

/* What the lengths of the batch row say. */
EW_DEV void lengths_find(const ew_cuda_attn_args &a, struct share *w)
{
    const int c = ((const int *)a.context_lengths)[w->b];

#if EW_DECODE
    w->s0 = c - 1;
    w->n_real = c > 0 && c <= (int)a.cap;
#else
    w->s0 = a.start_index ? ((const int *)a.start_index)[w->b] : 0;
    w->n_real = 0;
    if (w->s0 >= 0 && w->s0 < (int)a.cap)
        w->n_real =
            (unsigned)min(max(EW_TREE ? c - w->s0 : c, 0), min((int)a.s, (int)a.cap - w->s0));
#endif
}

/* What the block's rows see. */
EW_DEV void slots_find(const ew_cuda_attn_args &a, struct share *w)
{
    const unsigned first = w->r0 / EW_G, last = (w->r0 + w->n_rows - 1) / EW_G;

    w->begin = w->end = 0;
    if (first < w->n_real) {
        w->end = w->s0 + (int)(EW_TREE ? w->n_real : min(last + 1, w->n_real));
        if (!EW_TREE && a.window > 0 && a.window < w->s0 + (int)first + 1)
            w->begin = (w->s0 + (int)first + 1 - (int)a.window) & ~15;
    }
    w->top = (w->end + 15) & ~15;
}

/* False: nothing is left for this block. */
EW_DEV bool share_find(const ew_cuda_attn_args &a, struct share *w)
{
    const unsigned blocks = (a.s * EW_G + ROWS - 1) / ROWS;
    unsigned n_panels, each;

    w->b = blockIdx.z;
    w->h = blockIdx.y;
    w->k = kv_row(a, w->b, 0, w->h, 0);
    w->v = w->k + (unsigned long long)a.hkv * a.cap * EW_ROW_BYTES;
    w->block = blockIdx.x % blocks;
    w->chunk = blockIdx.x / blocks;
    w->r0 = w->block * ROWS;
    w->n_rows = min((unsigned)ROWS, a.s * EW_G - w->r0);
    lengths_find(a, w);
    slots_find(a, w);
    n_panels = (unsigned)(w->top - w->begin + EW_PANEL - 1) / EW_PANEL;
    each = max((n_panels + a.n_split - 1) / a.n_split, (CHUNK_MIN + EW_PANEL - 1) / EW_PANEL);
    w->n_chunks = max(1u, (n_panels + each - 1) / each);
    w->first = (int)(w->chunk * each);
    w->last = (int)min(w->chunk * each + each, n_panels);
    return w->chunk < w->n_chunks;
}

EW_DEV int panel_slot(const struct share &w, int panel)
{
    return w.top - (panel + 1) * EW_PANEL;
}

/* Old slots of a panel, one group of copies. Rows of new slots and behind are put there by others.
 */
EW_DEV void fetch(const struct share &w, unsigned ring, int panel)
{
    constexpr int PER_ROW = EW_ROW_BYTES / EW_CP_BYTES, THREADS = WARPS * 32;
    constexpr int RUN = THREADS / PER_ROW; /* side by side; threads behind them have none */
    const int slot0 = panel_slot(w, panel), r0 = max(w.begin - slot0, 0);
    const int end = panel < w.last ? min(EW_PANEL, w.s0 - slot0) : 0;
    const unsigned c = threadIdx.x % PER_ROW * EW_CP_BYTES;
    int r = r0 + (int)threadIdx.x / PER_ROW;
    unsigned dst = ring + (unsigned)(panel - w.first) % EW_STAGES * 2 * PLANE + r * STRIDE + c;
    const unsigned char *k = w.k + (long long)(slot0 + r) * EW_ROW_BYTES + c;
    const unsigned char *v = w.v + (long long)(slot0 + r) * EW_ROW_BYTES + c;

    if (threadIdx.x < RUN * PER_ROW)
#pragma unroll 2
        for (; r < end; r += RUN) {
            cp_async(dst, k, true);
            cp_async(dst + PLANE, v, true);
            dst += RUN * STRIDE;
            k += RUN * EW_ROW_BYTES;
            v += RUN * EW_ROW_BYTES;
        }
    ew_cp_async_commit();
}

/* Where the key (value) of a slot lies in the ring, which has its panel. */
EW_DEV unsigned char *ring_row(const struct share &w, unsigned char *ring, unsigned is_v, int slot)
{
    const unsigned back = (unsigned)(w.top - 1 - slot);

    return ring + (back / EW_PANEL * 2 + is_v) * PLANE + (EW_PANEL - 1 - back % EW_PANEL) * STRIDE;
}

EW_DEV unsigned char *cache_row(const struct share &w, unsigned is_v, int slot)
{
    return (is_v ? w.v : w.k) + (unsigned long long)slot * EW_ROW_BYTES;
}

/* Position of a token; negative: of a tree's padding. */
EW_DEV int token_pos(const ew_cuda_attn_args &a, const struct share &w, unsigned i)
{
    return EW_TREE ? ((const int *)a.pos_id)[w.b * a.s + i] : w.s0 + (int)i;
}

EW_DEV bool is_real(const ew_cuda_attn_args &a, const struct share &w, unsigned i)
{
    return i < w.n_real && (!EW_TREE || token_pos(a, w, i) >= 0);
}

/* Whether this block keeps what it made of new token i. */
EW_DEV bool stores(const struct share &w, unsigned i)
{
    return i * EW_G - w.r0 < ROWS;
}

/* New tokens that the block sees: [*from, *from + n). */
EW_DEV unsigned new_tokens(const struct share &w, unsigned *from)
{
    const int lo = max(w.s0, w.begin);

    *from = (unsigned)(lo - w.s0);
    return w.end > lo && w.first == 0 ? (unsigned)(w.end - lo) : 0;
}

/* Zeros behind the newest slot: what was never written may be NaN, and 0 * NaN is no 0. */
EW_DEV void clear_rest(const struct share &w, unsigned char *ring)
{
    const unsigned n = w.first == 0 ? (unsigned)(w.top - w.end) : 0;

    for (unsigned u = threadIdx.x; u < n * (STRIDE / 16) * 2; u += WARPS * 32) {
        const unsigned r = u / (STRIDE / 16) / 2, is_v = u / (STRIDE / 16) % 2;

        ((uint4 *)ring_row(w, ring, is_v, w.end + (int)r))[u % (STRIDE / 16)] =
            make_uint4(0, 0, 0, 0);
    }
}

#endif

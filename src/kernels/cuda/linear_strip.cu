// kernels/cuda/linear_strip.cu - y = x W^T on the tensor cores of sm_90a for 2 to 64 rows of x,
// where reading the weights should be all that takes time. Contract in linear.h.
//
// A block has a strip of EW_GROUPS * 64 rows of W, a warpgroup 64 of them: as many rows as are a
// multiprocessor's share of the matrix, so that every multiprocessor reads x once (tiles of 128
// rows read more of x than of 4-bit W). x is the B operand (128-byte swizzle): EW_X_STAGES stages
// of 128 columns filled by a warpgroup that rounds x on its way (EW_ROUND; with the norm, whose
// factor is a part of the epilogue), or boxes of rows rounded before. Plain weights are the A
// operand in shared memory, EW_SLOTS stages of boxes. Quantised ones go by cp.async into a ring of
// EW_SLOTS slots that a warp has for itself and its panel, every lane reading back what it copied,
// then to registers: the next stage is dequantised while the tensor cores work on this one.
// EW_CLUSTER blocks of a cluster share the columns of a strip and add up through each other's
// shared memory, in order.
//
// Macros: EW_CODE 0: plain (EW_F16), else those of linear_dequant.cuh (EW_GROUP 0, 16, 32, 64 or a
// multiple of 128); EW_N (8 to 64; 8 or 16 with EW_ROUND), EW_GROUPS (1 to 3), EW_SLOTS (2 and
// more), EW_X_STAGES, EW_CLUSTER, EW_ROUND, EW_AHEAD (stages of x read before they are rounded),
// EW_NORM, EW_GLU. args.tiles_n: strips.
#if EW_CODE
#    include "linear_dequant.cuh"
#else
#    include "copy.cuh"
#    include "linear_epilogue.cuh"
#endif
#include "linear_panel.cuh"
#include "linear_tile.cuh"
#include "wgmma.cuh"

#define STAGE_COLS 128
#define ROWS       (EW_GROUPS * 64)
#define WARPS      (EW_GROUPS * 4)                    // that multiply
#define W_WARP     (EW_ROUND ? WARPS + 4 : WARPS + 1) // that loads plain weights
#define THREADS    (WARPS * 32 + 128 + (EW_ROUND && !EW_CODE ? 32 : 0))
#define X_SUB      (EW_N * 128) // bytes of 64 columns
#define X_STAGE    (2 * X_SUB)
#define PITCH      (ROWS + 4) // floats of a row of sums

#if EW_CODE
#    define BLOCKS      (STAGE_COLS / EW_BLOCK_COLS)
#    define TILES       (STAGE_COLS / 16)
#    define UNIT_COLS   (EW_SUB > 1 ? EW_BLOCK_COLS : EW_GROUPED ? EW_GROUP : 1) // of stored scales
#    define UNITS       (EW_GROUPED && UNIT_COLS < STAGE_COLS ? STAGE_COLS / UNIT_COLS : 1)
#    define UNIT_BLOCKS (BLOCKS / UNITS)
#    define GROUP_TILES (EW_GROUPED && EW_GROUP < STAGE_COLS ? EW_GROUP / 16 : TILES)
#    define PROMOTE     (EW_GROUPED && EW_SCALE && !EW_SHORT_SCALE)

// What a lane copies of a unit. Two bytes come with their neighbours: four are the least.
#    define SCALE_BYTES (2 * EW_SUB * EW_SCALE_BYTES)
#    define ZERO_BYTES  (2 * EW_SUB * EW_ZERO_BYTES)
#    define COPIED(n)   ((n) == 2 ? 4 : (n))
#    define UNIT_BYTES  (32 * (COPIED(SCALE_BYTES) + COPIED(ZERO_BYTES)))
#    define SLOT        (BLOCKS * 512 + UNITS * UNIT_BYTES) // of a warp
#    define RINGS       (WARPS * EW_SLOTS * SLOT)
#else
#    define W_SUB (ROWS * 128) // bytes of 64 columns
#    define RINGS (EW_SLOTS * 2 * W_SUB)
#endif

// x, the rings of the warps, then this.
struct fixed {
    unsigned long long full[EW_X_STAGES], empty[EW_X_STAGES], normed;
    unsigned long long w_full[EW_CODE ? 1 : EW_SLOTS], w_empty[EW_CODE ? 1 : EW_SLOTS];
    float squares[EW_ROUND ? EW_N : 1];
};
#define RINGS_AT (EW_X_STAGES * X_STAGE)
#define FIXED_AT (RINGS_AT + RINGS)
#define TILE_AT  (FIXED_AT + 512)

extern __shared__ __align__(1024) char dynamic[];

#if EW_WGMMA

// Strips from `strip` by `stride`; columns in stages of 128 from `begin` on.
struct work {
    uint32_t strip, stride, begin, stages;
};

EW_DEV struct work work_of(const ew_args &a)
{
#    if EW_CODE
    const uint32_t unit = EW_GROUPED && EW_GROUP > STAGE_COLS ? EW_GROUP / STAGE_COLS : 1;
#    else
    const uint32_t unit = 1;
#    endif
    const uint32_t all = (a.k + STAGE_COLS - 1) / STAGE_COLS;
    const uint32_t range = ((all + unit - 1) / unit + EW_CLUSTER - 1) / EW_CLUSTER * unit;
    const uint32_t rank = EW_CLUSTER > 1 ? ew_cluster_rank() : 0;
    struct work w;

    w.strip = blockIdx.x / EW_CLUSTER;
    w.stride = gridDim.x / EW_CLUSTER;
    w.begin = rank * range < all ? rank * range : all;
    w.stages = all - w.begin < range ? all - w.begin : range;
    return w;
}

// ---- x ----

#    if EW_ROUND
#        define PIECES ((EW_N + 7) / 8) // of 8 columns a thread and stage: rows r and r + 8
#        define ASKED  (PIECES + (EW_NORM ? 1 : 0)) // and of the norm's weights
#        if EW_F16
#            define SHORT2 ew_f16x2
#        else
#            define SHORT2 ew_bf16x2
#        endif

// What a thread reads of a stage, and from where. Few instructions: one warp a scheduler does this.
struct pieces {
    float4 v[ASKED][2];
};

struct source {
    const float *at[ASKED]; // the thread's columns of stage 0; 0: no such row
};

EW_DEV void load_pieces(struct pieces &to, const struct source &from, uint32_t col, bool lo,
                        bool hi)
{
#        pragma unroll
    for (int i = 0; i < ASKED; i++) {
        to.v[i][0] = to.v[i][1] = make_float4(0, 0, 0, 0);
        if (from.at[i] && lo)
            to.v[i][0] = *(const float4 *)(from.at[i] + col);
        if (from.at[i] && hi)
            to.v[i][1] = *(const float4 *)(from.at[i] + col + 4);
    }
}

// Rounds them; to: the thread's place in row r of a stage (rows r and r + 8 are swizzled alike).
EW_DEV void put_pieces(const struct pieces &p, char *to, float squares[PIECES])
{
#        pragma unroll
    for (int i = 0; i < PIECES; i++) {
        float4 u = p.v[i][0], w = p.v[i][1];
#        if EW_NORM
        const float4 n0 = p.v[PIECES][0], n1 = p.v[PIECES][1];
        float q = squares[i];
        q = fmaf(u.x, u.x, q), q = fmaf(u.y, u.y, q), q = fmaf(u.z, u.z, q), q = fmaf(u.w, u.w, q);
        q = fmaf(w.x, w.x, q), q = fmaf(w.y, w.y, q), q = fmaf(w.z, w.z, q), q = fmaf(w.w, w.w, q);
        squares[i] = q;
        u.x *= n0.x, u.y *= n0.y, u.z *= n0.z, u.w *= n0.w;
        w.x *= n1.x, w.y *= n1.y, w.z *= n1.z, w.w *= n1.w;
#        endif
        *(uint4 *)(to + i * 1024) =
            make_uint4(SHORT2(u.x, u.y), SHORT2(u.z, u.w), SHORT2(w.x, w.y), SHORT2(w.z, w.w));
    }
}

// Sums of squares of the rows, where every thread has a part of two of them.
EW_DEV void join_squares(struct fixed &f, float squares[PIECES], uint32_t t)
{
#        pragma unroll
    for (int i = 0; i < PIECES; i++) {
#        pragma unroll
        for (int o = 8; o > 0; o /= 2)
            squares[i] += __shfl_xor_sync(~0u, squares[i], o);
        if (t % 16 == 0)
            f.squares[t / 16 + i * 8] = squares[i];
    }
    __syncwarp();
    if (t % 32 == 0)
        ew_mbar_arrive(ew_shared(&f.normed));
}

EW_DEV void produce(const struct ew_cuda_linear_map_args &p, const struct work &w, struct fixed &f)
{
    const ew_args &a = p.a;
    const uint32_t t = threadIdx.x - WARPS * 32, c = t % 16, r = t / 16;
    const uint32_t strips =
        w.strip < a.tiles_n ? (a.tiles_n - w.strip + w.stride - 1) / w.stride : 0;
    const uint32_t all = strips * w.stages, end = (w.begin + w.stages) * STAGE_COLS;
    char *const to = dynamic + c / 8 * X_SUB + r * 128 + ((c % 8) ^ r) * 16;
    struct pieces x[EW_AHEAD];
    struct source from;
    float squares[PIECES];
    uint32_t at = 0, phase = 1, next = w.begin * STAGE_COLS; // next: column of the next load

#        pragma unroll
    for (int i = 0; i < PIECES; i++) {
        from.at[i] = r + i * 8 < a.m ? (const float *)a.x + (r + i * 8) * a.x_stride + c * 8
                                     : (const float *)0;
        squares[i] = 0.0f;
    }
    if (EW_NORM)
        from.at[ASKED - 1] = (const float *)a.norm_weight + c * 8;
    ew_grid_wait();
    // loads run EW_AHEAD stages before what is rounded
    for (int i = -EW_AHEAD; i < (int)all; i += EW_AHEAD)
#        pragma unroll
        for (int d = 0; d < EW_AHEAD; d++) {
            const int n = i + d;

            if (n >= (int)all)
                break;
            if (n >= 0) {
                ew_mbar_wait(ew_shared(&f.empty[at]), phase);
                put_pieces(x[d], to + at * X_STAGE, squares);
                ew_async_fence();
                __syncwarp();
                if (t % 32 == 0)
                    ew_mbar_arrive(ew_shared(&f.full[at]));
                if (++at == EW_X_STAGES) {
                    at = 0;
                    phase ^= 1;
                }
                if (EW_NORM && n + 1 == (int)w.stages)
                    join_squares(f, squares, t);
            }
            if (n + EW_AHEAD < (int)all) {
                load_pieces(x[d], from, next, next + c * 8 < a.k, next + c * 8 + 4 < a.k);
                next += STAGE_COLS;
                if (next == end)
                    next = w.begin * STAGE_COLS;
            }
        }
}
#    else
// One lane.
EW_DEV void produce(const struct ew_cuda_linear_map_args &p, const struct work &w, struct fixed &f)
{
    uint32_t at = 0, phase = 1;

    ew_grid_wait();
    for (uint32_t strip = w.strip; strip < p.a.tiles_n; strip += w.stride)
        for (uint32_t i = 0; i < w.stages; i++) {
            const uint32_t full = ew_shared(&f.full[at]), to = ew_shared(dynamic) + at * X_STAGE;
            const uint32_t col = (w.begin + i) * STAGE_COLS; // past the end come zeros

            ew_mbar_wait(ew_shared(&f.empty[at]), phase);
            ew_mbar_expect(full, X_STAGE);
            ew_box_load(to, p.map_x, col, 0, full);
            ew_box_load(to + X_SUB, p.map_x, col + 64, 0, full);
            if (++at == EW_X_STAGES) {
                at = 0;
                phase ^= 1;
            }
        }
}
#    endif

// ---- weights ----

#    if EW_CODE
// What a lane copies next, and to where in the ring of its warp.
struct stream {
    const char *panel;
    uint32_t left; // stages of all strips
    uint32_t strip, block, to;
};

// Where the part of a lane lies in scales or zero points of unit `unit`, `bytes` each; in fours.
EW_DEV uint32_t unit_at(uint32_t unit, uint32_t bytes, uint32_t lane)
{
    return unit * (8 * bytes) + (lane / 4 * bytes & ~3u);
}

EW_DEV void stream_next(struct stream &s, const ew_args &a, const struct work &w, uint32_t warp,
                        uint32_t lane)
{
    if (s.left) {
        const char *codes = s.panel + (s.block * 512 + lane * 16);
        const uint32_t ring = ew_shared(dynamic) + RINGS_AT + warp * (EW_SLOTS * SLOT),
                       to = ring + s.to;

#        pragma unroll
        for (int i = 0; i < BLOCKS; i++) // what is behind the last block is zero
            ew_cp_async16(to + i * 512 + lane * 16, codes + i * 512,
                          s.block + i < a.k_blocks ? 16 : 0);
#        pragma unroll
        for (int u = 0; u < UNITS; u++) {
            uint32_t unit = EW_GROUPED ? s.block * EW_BLOCK_COLS / UNIT_COLS + u : 0;
            if (u > 0) {
                const uint32_t last = (a.k_blocks - 1) * EW_BLOCK_COLS / UNIT_COLS;
                unit = unit < last ? unit : last;
            }
            const uint32_t at = to + BLOCKS * 512 + u * UNIT_BYTES;
#        pragma unroll
            for (int j = 0; j < SCALE_BYTES; j += 16)
                ew_cp_async<(SCALE_BYTES <= 4   ? 4
                             : SCALE_BYTES > 16 ? 16
                                                : SCALE_BYTES)>(
                    at + lane * COPIED(SCALE_BYTES) + j,
                    s.panel + (a.scales_at + unit_at(unit, SCALE_BYTES, lane)) + j);
            if (ZERO_BYTES)
                ew_cp_async<(ZERO_BYTES <= 4 ? 4 : ZERO_BYTES)>(
                    at + 32 * COPIED(SCALE_BYTES) + lane * COPIED(ZERO_BYTES),
                    s.panel + (a.zeros_at + unit_at(unit, ZERO_BYTES, lane)));
        }
        s.left--;
        s.block += BLOCKS;
        if (s.block == (w.begin + w.stages) * BLOCKS) {
            s.block = w.begin * BLOCKS;
            s.strip += w.stride;
            s.panel = ew_panel_at(a, s.strip * WARPS + warp);
        }
    }
    ew_cp_async_commit();
    s.to = s.to == (EW_SLOTS - 1) * SLOT ? 0 : s.to + SLOT;
}

// A of a stage.
struct fragments {
    uint32_t f[TILES * 4];
    struct ew_groups o[UNITS];
};

template <int BYTES> EW_DEV void load_copied(uint32_t *to, const char *from, uint32_t lane)
{
    if (BYTES == 2) // one of the two neighbours
        to[0] = *(const uint16_t *)(from + lane * 4 + lane / 4 % 2 * 2);
    else
        ew_load_small<BYTES ? BYTES : 4>(to, from + lane * BYTES);
}

EW_DEV void dequant(struct fragments &f, const char *slot, uint32_t lane)
{
#        pragma unroll
    for (int u = 0; u < UNITS; u++) {
        const char *at = slot + BLOCKS * 512 + u * UNIT_BYTES;

        if (SCALE_BYTES)
            load_copied<SCALE_BYTES>(f.o[u].scales, at, lane);
        if (ZERO_BYTES)
            load_copied<ZERO_BYTES>(f.o[u].zeros, at + 32 * COPIED(SCALE_BYTES), lane);
    }
#        pragma unroll
    for (int i = 0; i < BLOCKS; i++) {
        const uint4 w = *(const uint4 *)(slot + i * 512 + lane * 16);
        const struct ew_groups &o = f.o[i / UNIT_BLOCKS];

#        pragma unroll
        for (int j = 0; j < EW_TILES; j++) {
            uint32_t *to = f.f + (i * EW_TILES + j) * 4;
            const int sub = j / EW_GROUP_TILES;

            ew_dequant_64th(to, w, j, ew_offset_64th(o, sub, 0), ew_offset_64th(o, sub, 1));
            if (EW_SHORT_SCALE && EW_GROUPED)
                ew_scale_fragment(to, o, sub);
        }
    }
    // all of it before the first product, or the compiler makes every product wait for its own
#        pragma unroll
    for (int i = 0; i < TILES * 4; i++)
        asm volatile("" : "+r"(f.f[i])::"memory");
}

// ---- products ----

EW_DEV void promote(float *acc, float *part, const struct fragments &f, int tile)
{
    const struct ew_groups &o = f.o[tile / (TILES / UNITS)];
    const int sub = tile % EW_TILES / EW_GROUP_TILES;
    const float s0 = ew_scale(o, EW_SUB > 1 ? sub : 0, 0),
                s1 = ew_scale(o, EW_SUB > 1 ? sub : 0, 1);

#        pragma unroll
    for (int i = 0; i < EW_N / 2; i++)
        acc[i] = fmaf(part[i], i % 4 < 2 ? s0 : s1, acc[i]);
}

// Starts the products of a stage, x at `tile`; sums of groups shorter than that are also finished.
EW_DEV void multiply(float *acc, float *part, const struct fragments &f, uint32_t tile, bool keep)
{
    ew_wg_fence();
#        pragma unroll
    for (int j = 0; j < TILES; j++) {
        ew_wg<EW_N>::rs(PROMOTE ? part : acc, f.f + j * 4, tile + j / 4 * (X_SUB / 16) + j % 4 * 2,
                        PROMOTE ? (j % GROUP_TILES > 0 || (GROUP_TILES == TILES && keep)) : 1);
        if (PROMOTE && GROUP_TILES < TILES && (j + 1) % GROUP_TILES == 0) {
            ew_wg_commit();
            ew_wg_wait<0>();
            ew_wg_touch<EW_N>(part);
            promote(acc, part, f, j);
            if (j + 1 < TILES)
                ew_wg_fence();
        }
    }
    ew_wg_commit();
}

struct reader {
    uint32_t slot;      // where in the ring of a warp
    uint32_t at, phase; // stage of x
};

// One register for the whole warp: descriptors are built without its lanes.
EW_DEV uint32_t tile_of(uint32_t stage)
{
    return __shfl_sync(~0u, ew_wg_tile_low(ew_shared(dynamic) + stage * X_STAGE), 0);
}

EW_DEV void dequant_next(struct fragments &f, struct reader &r, uint32_t warp, uint32_t lane)
{
    ew_cp_async_wait<EW_SLOTS - 2>();
    dequant(f, dynamic + RINGS_AT + warp * (EW_SLOTS * SLOT) + r.slot, lane);
    r.slot = r.slot == (EW_SLOTS - 1) * SLOT ? 0 : r.slot + SLOT;
}

EW_DEV void consume(const ew_args &a, const struct work &w, float *acc, struct fixed &fixed,
                    struct reader &r, struct stream &stream, uint32_t warp, uint32_t lane)
{
    float part[PROMOTE ? EW_N / 2 : 1];
    struct fragments f[2];
    bool keep = false;

#        pragma unroll
    for (int i = 0; i < EW_N / 2; i++)
        acc[i] = 0.0f;
    if (w.stages == 0)
        return;
    dequant_next(f[0], r, warp, lane);
    for (uint32_t i = 0; i < w.stages; i += 2)
#        pragma unroll
        for (int h = 0; h < 2; h++) {
            const uint32_t at = r.at, next = i + h + 1;

            if (i + h >= w.stages)
                break;
            const uint32_t tile = tile_of(at);
            ew_mbar_wait(ew_shared(&fixed.full[at]), r.phase);
            multiply(acc, part, f[h], tile, keep);
            r.at = at + 1 == EW_X_STAGES ? 0 : at + 1;
            r.phase ^= r.at == 0;
            stream_next(stream, a, w, warp, lane); // into the slot read last
            if (next < w.stages)
                dequant_next(f[1 - h], r, warp, lane);
            ew_wg_wait<0>();
            ew_wg_touch<EW_N>(PROMOTE ? part : acc);
            if (lane == 0)
                ew_mbar_arrive(ew_shared(&fixed.empty[at]));
            keep = true;
            if (PROMOTE && GROUP_TILES == TILES &&
                (EW_GROUP <= STAGE_COLS || next == w.stages ||
                 next * STAGE_COLS % UNIT_COLS == 0)) {
                promote(acc, part, f[h], 0);
                keep = false;
            }
        }
#        pragma unroll
    for (int i = 0; i < EW_N / 2; i++)
        acc[i] *= EW_CODE_UNIT;
}
#    else
// Boxes of plain weights, which depend on no launch before. One lane.
EW_DEV void load_weights(const struct ew_cuda_linear_map_args &p, const struct work &w,
                         struct fixed &f)
{
    uint32_t at = 0, phase = 1;

    for (uint32_t strip = w.strip; strip < p.a.tiles_n; strip += w.stride)
        for (uint32_t i = 0; i < w.stages; i++) {
            const uint32_t full = ew_shared(&f.w_full[at]);

            ew_mbar_wait(ew_shared(&f.w_empty[at]), phase);
            ew_mbar_expect(full, 2 * W_SUB);
#        pragma unroll
            for (int s = 0; s < 2; s++) {
                const uint32_t to = ew_shared(dynamic) + RINGS_AT + (at * 2 + s) * W_SUB;
                const uint32_t col = (w.begin + i) * STAGE_COLS + s * 64;

                if (EW_GLU) // panels of 8 gate rows and their 8 up rows
                    ew_box_load4(to, p.map_w, col, 0, 0, strip * WARPS, full);
                else
                    ew_box_load(to, p.map_w, col, strip * ROWS, full);
            }
            if (++at == EW_SLOTS) {
                at = 0;
                phase ^= 1;
            }
        }
}

struct reader {
    uint32_t at, phase, w_at, w_phase; // stages of x and of weights
};

EW_DEV void release(struct fixed &f, uint32_t at, uint32_t w_at, uint32_t lane)
{
    if (lane == 0) {
        ew_mbar_arrive(ew_shared(&f.empty[at]));
        ew_mbar_arrive(ew_shared(&f.w_empty[w_at]));
    }
}

EW_DEV void consume(const struct work &w, float *acc, struct fixed &f, struct reader &r,
                    uint32_t warp, uint32_t lane)
{
    uint32_t at = 0, w_at = 0;

#        pragma unroll
    for (int i = 0; i < EW_N / 2; i++)
        acc[i] = 0.0f;
    for (uint32_t c = 0; c < w.stages; c++) {
        const uint32_t x = ew_shared(dynamic) + r.at * X_STAGE;
        const uint32_t rows = ew_shared(dynamic) + RINGS_AT + r.w_at * 2 * W_SUB + warp / 4 * 8192;

        ew_mbar_wait(ew_shared(&f.w_full[r.w_at]), r.w_phase);
        ew_mbar_wait(ew_shared(&f.full[r.at]), r.phase);
        ew_wg_fence();
#        pragma unroll
        for (int j = 0; j < 8; j++)
            ew_wg<EW_N>::ss(acc, ew_wg_tile(rows + j / 4 * W_SUB) + j % 4 * 2,
                            ew_wg_tile(x + j / 4 * X_SUB) + j % 4 * 2, 1);
        ew_wg_commit();
        ew_wg_wait<1>();
        if (c)
            release(f, at, w_at, lane);
        at = r.at, w_at = r.w_at;
        if (++r.at == EW_X_STAGES) {
            r.at = 0;
            r.phase ^= 1;
        }
        if (++r.w_at == EW_SLOTS) {
            r.w_at = 0;
            r.w_phase ^= 1;
        }
    }
    ew_wg_wait<0>();
    ew_wg_touch<EW_N>(acc);
    if (w.stages)
        release(f, at, w_at, lane);
}
#    endif

// ---- epilogue ----

EW_DEV float rms_scale(const ew_args &a, struct fixed &f, uint32_t m)
{
    float sum = 0.0f;

#    pragma unroll
    for (int r = 0; r < EW_CLUSTER; r++)
        sum += EW_CLUSTER > 1 ? ew_cluster_load(ew_shared(&f.squares[m]), r) : f.squares[m];
    return rsqrtf(sum / (float)a.k + a.norm_eps);
}

#    if EW_CLUSTER == 1
EW_DEV void store(const ew_args &a, const float *acc, struct fixed &f, uint32_t panel,
                  uint32_t warp, uint32_t lane)
{
    const float *scales = ew_panel_scales(a, panel);

#        if EW_N >= 32
    float *buffer = (float *)(dynamic + TILE_AT + warp * EW_TILE_BYTES);
    const bool wide = ew_wide(a);

#            pragma unroll
    for (int i = 0; i < EW_N / EW_TILE_ROWS; i++) {
        ew_tile_put(buffer, acc + i * (EW_TILE_ROWS / 2), lane);
        __syncwarp();
        if (i * EW_TILE_ROWS < a.m) {
            float4 r[EW_TILE_PASSES];

            ew_tile_residual(a, r, panel, i * EW_TILE_ROWS, lane, wide);
            ew_tile_store(a, buffer, scales, r, panel, i * EW_TILE_ROWS, lane, wide);
        }
        __syncwarp();
    }
#        else
    const uint32_t g = lane / 4, t = lane % 4, n = panel * (EW_GLU ? 8 : 16) + g;
    const float s0 = scales ? scales[g] : 1.0f, s1 = scales ? scales[g + 8] : 1.0f;

    if (EW_NORM)
        ew_mbar_wait(ew_shared(&f.normed), 0);
#            pragma unroll
    for (int i = 0; i < EW_N / 2; i += 4)
#            pragma unroll
        for (int h = 0; h < 2; h++) {
            const uint32_t m = i * 2 + t * 2 + h;

            if (m >= a.m || n >= a.n_out)
                continue;
            const float s = EW_NORM ? rms_scale(a, f, m) : 1.0f;
            if (EW_GLU) {
                ew_store_glu(a, acc[i + h] * s0 * s, acc[i + 2 + h] * s1 * s, m, n);
            } else {
                ew_store_plain(a, acc[i + h] * s0 * s, m, n);
                if (n + 8 < a.n_out)
                    ew_store_plain(a, acc[i + 2 + h] * s1 * s, m, n + 8);
            }
        }
#        endif
}
#    else
// Sums of four rows of W over the blocks of the cluster, in their order.
EW_DEV void gather(float z[4], const float *at, const float *scales, float s)
{
    z[0] = z[1] = z[2] = z[3] = 0.0f;
#        pragma unroll
    for (int r = 0; r < EW_CLUSTER; r++) {
        const float4 v = ew_cluster_load4(ew_shared(at), r);
        z[0] += v.x, z[1] += v.y, z[2] += v.z, z[3] += v.w;
    }
#        pragma unroll
    for (int i = 0; i < 4; i++)
        z[i] *= scales ? scales[i] * s : s;
}

// Through shared memory, where the rings were: blocks of the cluster share out fours of rows.
EW_DEV void store(const ew_args &a, const float *acc, struct fixed &f, uint32_t strip,
                  uint32_t warp, uint32_t lane)
{
    float *sums = (float *)dynamic; // [rows of x][PITCH]
    const uint32_t g = lane / 4, t = lane % 4;
    const uint32_t quads = EW_GLU ? 2 : 4;
    const bool wide = ew_wide(a);

    // every stage and every copy was waited for by who reads it, so that nothing is written here
    // any more once all warps are done
#        if EW_CODE
    ew_cp_async_wait<0>();
#        endif
    asm volatile("bar.sync 1, %0;" ::"n"(WARPS * 32) : "memory");
#        pragma unroll
    for (int i = 0; i < EW_N / 2; i++)
        sums[(i / 4 * 8 + t * 2 + i % 2) * PITCH + warp * 16 + g + (i % 4 < 2 ? 0 : 8)] = acc[i];
    ew_cluster_sync();
#        pragma unroll 1
    for (uint32_t i = ew_cluster_rank() * (WARPS * 32) + threadIdx.x; i < WARPS * quads * a.m;
         i += EW_CLUSTER * WARPS * 32) {
        const uint32_t q = i % quads * 4, p = i / quads % WARPS, m = i / (quads * WARPS);
        const uint32_t panel = strip * WARPS + p, n = panel * (EW_GLU ? 8 : 16) + q;
        const float *at = &sums[m * PITCH + p * 16 + q];
        const float *scales = ew_panel_scales(a, panel);
        float z[4], up[4] = { 0.0f, 0.0f, 0.0f, 0.0f };

        if (n >= a.n_out)
            continue;
        const float4 r = ew_residual4(a, m, n, wide);
        const float s = EW_NORM ? rms_scale(a, f, m) : 1.0f;
        gather(z, at, scales ? scales + q : 0, s);
        if (EW_GLU)
            gather(up, at + 8, scales ? scales + q + 8 : 0, s);
        ew_finish4(a, z, up, r, m, n, wide);
    }
}
#    endif
#endif

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    ew_linear_strip(const __grid_constant__ struct ew_cuda_linear_map_args p)
{
#if EW_WGMMA
    struct fixed &f = *(struct fixed *)(dynamic + FIXED_AT);
    const ew_args &a = p.a;
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const struct work w = work_of(a);

    ew_grid_release();
    if (EW_ROUND && threadIdx.x < EW_N)
        f.squares[threadIdx.x] = 0.0f;
    if (threadIdx.x == 0) {
        for (int i = 0; i < EW_X_STAGES; i++) {
            ew_mbar_init(ew_shared(&f.full[i]), EW_ROUND ? 4 : 1);
            ew_mbar_init(ew_shared(&f.empty[i]), WARPS);
        }
        for (int i = 0; !EW_CODE && i < EW_SLOTS; i++) {
            ew_mbar_init(ew_shared(&f.w_full[i]), 1);
            ew_mbar_init(ew_shared(&f.w_empty[i]), WARPS);
        }
        ew_mbar_init(ew_shared(&f.normed), 4);
        ew_mbar_init_fence();
    }
    __syncthreads();
    if (warp >= WARPS) {
        if (!EW_ROUND && EW_GROUPS > 1)
            asm volatile("setmaxnreg.dec.sync.aligned.u32 32;");
        if (EW_ROUND ? warp < WARPS + 4 : warp == WARPS && lane == 0)
            produce(p, w, f);
#    if !EW_CODE
        if (warp == W_WARP && lane == 0)
            load_weights(p, w, f);
#    endif
        __syncwarp();
    } else {
        struct reader r = { 0 };
        float acc[EW_N / 2];

        if (!EW_ROUND && EW_GROUPS == 2)
            asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
        if (!EW_ROUND && EW_GROUPS == 3)
            asm volatile("setmaxnreg.inc.sync.aligned.u32 160;");
#    if EW_CODE
        const uint32_t strips =
            w.strip < a.tiles_n ? (a.tiles_n - w.strip + w.stride - 1) / w.stride : 0;
        struct stream stream = { ew_panel_at(a, w.strip * WARPS + warp), strips * w.stages, w.strip,
                                 w.begin * BLOCKS, 0 };
#        pragma unroll 1
        for (int i = 0; i < EW_SLOTS - 1; i++)
            stream_next(stream, a, w, warp, lane);
#    endif
        ew_grid_wait();
        for (uint32_t strip = w.strip; strip < a.tiles_n; strip += w.stride) {
#    if EW_CODE
            consume(a, w, acc, f, r, stream, warp, lane);
#    else
            consume(w, acc, f, r, warp, lane);
#    endif
#    if EW_CLUSTER == 1
            store(a, acc, f, strip * WARPS + warp, warp, lane);
#    else
            store(a, acc, f, strip, warp, lane); // one strip alone
#    endif
        }
    }
#    if EW_CLUSTER > 1
    if (warp >= WARPS)
        ew_cluster_sync(); // the one in store()
    ew_cluster_sync();     // nobody leaves while its sums are read
#    endif
#endif
}

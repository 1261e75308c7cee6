// kernels/cuda/linear_wgmma.cu - y = x W^T on the tensor cores of sm_90a, from a few rows of x to
// many. x comes as bf16 or f16. Contract in linear.h.
//
// A tile is ROWS rows of W by EW_N rows of x. A producer warp fills a ring of EW_STAGES stages of
// EW_STAGE_COLS columns: boxes of x (the B operand, 128-byte swizzle) and of plain weights (A), or
// the blocks, scales and zero points of 8 panels by linear copies. Two warpgroups multiply 64 rows
// each: quantised weights go from shared memory to A in registers, a warp a panel. With EW_CLUSTER
// > 1 blocks of a cluster have a range of the columns each and add up their tiles through each
// other's shared memory, in order; else blocks walk over tiles, rows of x first, so that weights
// are read from memory once.
//
// Macros: EW_N (16 to 256), EW_STAGES, EW_STAGE_COLS (64 or 128), EW_CLUSTER, EW_GLU,
// EW_F16, plain: EW_CODE 0; quantised: those of
// linear_dequant.cuh. args.tiles_m, tiles_n: tiles of rows of x and of W.
#if EW_CODE
#    include "linear_dequant.cuh"
#else
#    include "copy.cuh"
#    include "linear_epilogue.cuh"
#endif
#include "linear_panel.cuh"
#include "linear_tile.cuh"
#include "wgmma.cuh"

#define GROUPS 2 // consumer warpgroups
#define ROWS   (GROUPS * 64)
#define PANELS (ROWS / 16)
// Large tiles: the producer is a warpgroup too, so that it can give its registers away.
#define LARGE      (EW_MIN_BLOCKS == 1)
#define THREADS    (GROUPS * 128 + (LARGE ? 128 : 32))
#define SUBS       (EW_STAGE_COLS / 64)
#define X_SUB      (EW_N * 128) // bytes of 64 columns
#define W_SUB      (ROWS * 128)
#define PITCH      (ROWS + 4) // floats of a row of sums
#define ALIGN16(n) (((n) + 15) / 16 * 16)

#if EW_CODE
#    define STAGE_BLOCKS (EW_STAGE_COLS / EW_BLOCK_COLS)
// Blocks of a group of scales.
#    define UNIT_BLOCKS                                                                            \
        (!EW_GROUPED ? 1 << 30 : EW_GROUP < EW_BLOCK_COLS ? 1 : EW_GROUP / EW_BLOCK_COLS)
// What a lane reads of a block beside its codes. Two bytes cannot be copied asynchronously.
#    define SCALE_BYTES (2 * EW_SUB * EW_SCALE_BYTES)
#    define ZERO_BYTES  (2 * EW_SUB * EW_ZERO_BYTES)
#    define SCALE_SLOT  (SCALE_BYTES > 2 ? SCALE_BYTES : 0)
#    define ZERO_SLOT   (ZERO_BYTES > 2 ? ZERO_BYTES : 0)
#    define SLOT        (512 + 32 * (SCALE_SLOT + ZERO_SLOT)) // of a warp and block
#    define STAGE_BYTES ((SUBS * X_SUB + GROUPS * 4 * STAGE_BLOCKS * SLOT + 1023) / 1024 * 1024)
#else
#    define STAGE_BYTES (SUBS * (X_SUB + W_SUB))
#endif

// The ring, then its barriers; swizzled boxes need 1024-byte alignment.
extern __shared__ __align__(1024) char dynamic[];

#if EW_WGMMA

struct bars {
    unsigned long long full[EW_STAGES], empty[EW_STAGES];
};

// What a block does: tiles from `tile` by `stride`, columns [begin, end) in units of 64 (plain) or
// of blocks.
struct work {
    uint32_t tile, stride, begin, end, iters;
};

EW_DEV struct work work_of(const ew_args &a)
{
#    if EW_CODE
    const uint32_t all = a.k_blocks, stage = STAGE_BLOCKS;
#    else
    const uint32_t all = (a.k + 63) / 64, stage = SUBS;
#    endif
    const uint32_t rank = EW_CLUSTER > 1 ? ew_cluster_rank() : 0;
    // ranges are whole stages, and whole groups where those are longer
    const uint32_t unit =
#    if EW_CODE
        EW_GROUPED && UNIT_BLOCKS > STAGE_BLOCKS ? UNIT_BLOCKS :
#    endif
                                                 stage;
    const uint32_t range = ((all + unit - 1) / unit + EW_CLUSTER - 1) / EW_CLUSTER * unit;
    struct work w;

    w.tile = blockIdx.x / EW_CLUSTER;
    w.stride = gridDim.x / EW_CLUSTER;
    w.begin = rank * range < all ? rank * range : all;
    w.end = w.begin + range < all ? w.begin + range : all;
    w.iters = (w.end - w.begin + stage - 1) / stage;
    return w;
}

// The stage of iteration `it` of a tile is announced; of plain weights the load is started.
EW_DEV void load_weights(const struct ew_cuda_linear_map_args &p, const struct work &w,
                         uint32_t tile_n, uint32_t it, uint32_t stage, uint32_t full)
{
#    if EW_CODE
    const uint32_t b = w.begin + it * STAGE_BLOCKS;
    const uint32_t blocks = w.end - b < STAGE_BLOCKS ? w.end - b : STAGE_BLOCKS;

    ew_mbar_expect(full, (blocks * EW_BLOCK_COLS + 63) / 64 * X_SUB);
#    else
    const uint32_t b = w.begin + it * SUBS;
    const uint32_t subs = w.end - b < SUBS ? w.end - b : SUBS;

    ew_mbar_expect(full, subs * (X_SUB + W_SUB));
    for (uint32_t s = 0; s < subs; s++) {
        const uint32_t to = stage + SUBS * X_SUB + s * W_SUB, col = (b + s) * 64;

        if (EW_GLU) // panels of 8 gate rows and their 8 up rows
            ew_box_load4(to, p.map_w, col, 0, 0, tile_n * PANELS, full);
        else
            ew_box_load(to, p.map_w, col, tile_n * ROWS, full);
    }
#    endif
}

EW_DEV void load_x(const struct ew_cuda_linear_map_args &p, const struct work &w, uint32_t tile_m,
                   uint32_t it, uint32_t stage, uint32_t full)
{
#    if EW_CODE
    const uint32_t b = w.begin + it * STAGE_BLOCKS;
    const uint32_t blocks = w.end - b < STAGE_BLOCKS ? w.end - b : STAGE_BLOCKS;
    const uint32_t subs = (blocks * EW_BLOCK_COLS + 63) / 64, col = b * EW_BLOCK_COLS;
#    else
    const uint32_t b = w.begin + it * SUBS;
    const uint32_t subs = w.end - b < SUBS ? w.end - b : SUBS, col = b * 64;
#    endif

    for (uint32_t s = 0; s < subs; s++) {
        ew_box_load(stage + s * X_SUB, p.map_x, col + s * 64, tile_m * EW_N, full);
    }
}

// A warp has read stage `at`: whoever fills it next may.
EW_DEV void release(struct bars &bars, uint32_t at, uint32_t lane)
{
    if (lane == 0)
        ew_mbar_arrive(ew_shared(&bars.empty[at]));
}

// One lane.
EW_DEV void produce(const struct ew_cuda_linear_map_args &p, const struct work &w, uint32_t ring,
                    struct bars &bars)
{
    const uint32_t tiles = p.a.tiles_m * p.a.tiles_n;
    const uint32_t pre = w.iters < EW_STAGES ? w.iters : EW_STAGES;
    uint32_t at = 0, phase = 0, skip = pre;

    // weights do not depend on the launch before
    for (uint32_t it = 0; it < pre; it++)
        load_weights(p, w, w.tile / p.a.tiles_m, it, ring + it * STAGE_BYTES,
                     ew_shared(&bars.full[it]));
    ew_grid_wait();
    for (uint32_t tile = w.tile; tile < tiles; tile += w.stride) {
        for (uint32_t it = 0; it < w.iters; it++) {
            const uint32_t stage = ring + at * STAGE_BYTES, full = ew_shared(&bars.full[at]);

            if (skip) {
                skip--;
            } else {
                ew_mbar_wait(ew_shared(&bars.empty[at]), phase ^ 1);
                load_weights(p, w, tile / p.a.tiles_m, it, stage, full);
            }
            load_x(p, w, tile % p.a.tiles_m, it, stage, full);
            if (++at == EW_STAGES) {
                at = 0;
                phase ^= 1;
            }
        }
    }
}

#    if EW_CODE
#        define FRAGMENTS (EW_TILES * 4)
#        define PROMOTE   (EW_GROUPED && EW_SCALE && !EW_SHORT_SCALE)

// Codes, scales and zero points of a warp's panel come through a ring of its own (beside the stages
// of x), in which every lane reads back what it copied: nobody else is waited for. (The copy engine
// was tried: 16 copies of a kilobyte or less a stage keep it too busy.)
struct stream {
    uint32_t tile, it, at; // what is copied next, and to which stage
};

EW_DEV void stream_next(struct stream &s, const ew_args &a, const struct work &w, uint32_t warp,
                        uint32_t lane)
{
    if (s.tile < a.tiles_m * a.tiles_n && w.iters) {
        const char *panel = ew_panel_at(a, s.tile / a.tiles_m * PANELS + warp);
        const uint32_t b = w.begin + s.it * STAGE_BLOCKS;
        const uint32_t to =
            ew_shared(dynamic) + s.at * STAGE_BYTES + SUBS * X_SUB + warp * (STAGE_BLOCKS * SLOT);

#        pragma unroll
        for (int i = 0; i < STAGE_BLOCKS; i++) {
            const uint32_t unit = ((b + i) / UNIT_BLOCKS * 8 + lane / 4);

            if (b + i >= w.end)
                break;
            ew_cp_async16(to + i * SLOT + lane * 16, panel + (size_t)(b + i) * 512 + lane * 16, 16);
#        pragma unroll
            for (int j = 0; j < SCALE_SLOT; j += 16)
                ew_cp_async<(SCALE_SLOT < 4    ? 4
                             : SCALE_SLOT > 16 ? 16
                                               : SCALE_SLOT)>(
                    to + i * SLOT + 512 + lane * SCALE_SLOT + j,
                    panel + a.scales_at + unit * SCALE_BYTES + j);
            if (ZERO_SLOT)
                ew_cp_async<(ZERO_SLOT < 4 ? 4 : ZERO_SLOT)>(
                    to + i * SLOT + 512 + 32 * SCALE_SLOT + lane * ZERO_SLOT,
                    panel + a.zeros_at + unit * ZERO_BYTES);
        }
        if (++s.it == w.iters) {
            s.it = 0;
            s.tile += w.stride;
        }
    }
    ew_cp_async_commit();
    if (++s.at == EW_STAGES)
        s.at = 0;
}

// Of block `b` of a panel, in slot `slot`.
EW_DEV void load_slot_groups(struct ew_groups &o, const ew_args &a, const char *slot,
                             const char *panel, uint32_t b, uint32_t lane)
{
    const uint32_t unit = b / UNIT_BLOCKS * 8 + lane / 4;

    if (SCALE_SLOT)
        ew_load_small<SCALE_SLOT ? SCALE_SLOT : 4>(o.scales, slot + 512 + lane * SCALE_SLOT);
    else if (SCALE_BYTES)
        ew_load_small<2>(o.scales, panel + a.scales_at + unit * SCALE_BYTES);
    if (ZERO_SLOT)
        ew_load_small<ZERO_SLOT ? ZERO_SLOT : 4>(o.zeros,
                                                 slot + 512 + 32 * SCALE_SLOT + lane * ZERO_SLOT);
    else if (ZERO_BYTES)
        ew_load_small<2>(o.zeros, panel + a.zeros_at + unit * ZERO_BYTES);
}

EW_DEV void promote(float *acc, float *part, const struct ew_groups &o, int sub)
{
    const float s0 = ew_scale(o, sub, 0), s1 = ew_scale(o, sub, 1);

#        pragma unroll
    for (int i = 0; i < EW_N / 2; i++)
        acc[i] = fmaf(part[i], i % 4 < 2 ? s0 : s1, acc[i]);
}

// A of a block: dequantised, all of it before the first product, or the compiler makes every
// product wait for its own.
struct fragments {
    uint32_t f[FRAGMENTS];
    struct ew_groups o;
};

EW_DEV void dequant_block(struct fragments &f, const ew_args &a, uint32_t stage, const char *panel,
                          int i, uint32_t b, uint32_t warp, uint32_t lane)
{
    const char *slot =
        dynamic + stage * STAGE_BYTES + SUBS * X_SUB + (warp * STAGE_BLOCKS + i) * SLOT;
    const uint4 w = *(const uint4 *)(slot + lane * 16);

    load_slot_groups(f.o, a, slot, panel, b, lane);
#        pragma unroll
    for (int j = 0; j < EW_TILES; j++) {
        const int sub = j / EW_GROUP_TILES;
        ew_dequant(f.f + j * 4, w, j, ew_offset(f.o, sub, 0), ew_offset(f.o, sub, 1));
        if (EW_SHORT_SCALE && EW_GROUPED)
            ew_scale_fragment(f.f + j * 4, f.o, sub);
    }
#        pragma unroll
    for (int j = 0; j < FRAGMENTS; j++)
        asm volatile("" : "+r"(f.f[j])::"memory");
}

// Starts the products of block i of a stage; those of short groups are also finished.
EW_DEV void multiply_block(float *acc, float *part, const struct fragments &f, uint32_t x, int i,
                           bool &keep)
{
    ew_wg_fence();
#        pragma unroll
    for (int j = 0; j < EW_TILES; j++) {
        const int col = i * EW_BLOCK_COLS + j * 16;
        ew_wg<EW_N>::rs(PROMOTE ? part : acc, f.f + j * 4,
                        ew_wg_tile_low(x + col / 64 * X_SUB) + col % 64 / 8, keep);
        keep = true;
        if (PROMOTE && EW_SUB > 1 && (j + 1) % EW_GROUP_TILES == 0) {
            ew_wg_commit();
            ew_wg_wait<0>();
            ew_wg_touch<EW_N>(part);
            promote(acc, part, f.o, j / EW_GROUP_TILES);
            keep = false;
            if (j + 1 < EW_TILES)
                ew_wg_fence();
        }
    }
    ew_wg_commit();
}

// Sums of a tile: 64 rows of W by EW_N rows of x. The next block is dequantised while the tensor
// cores work on this one.
EW_DEV void consume(const ew_args &a, const struct work &w, float *acc, uint32_t &at,
                    uint32_t &phase, struct bars &bars, struct stream &stream, uint32_t tile_n,
                    uint32_t warp, uint32_t lane)
{
    const char *panel = ew_panel_at(a, tile_n * PANELS + warp);
    float part[PROMOTE ? EW_N / 2 : 1];
    struct fragments f[2];
    bool keep = false;

#        pragma unroll
    for (int i = 0; (PROMOTE || w.iters == 0) && i < EW_N / 2; i++)
        acc[i] = 0.0f;
    if (w.iters == 0)
        return;
    ew_cp_async_wait<EW_STAGES - 2>();
    dequant_block(f[0], a, at, panel, 0, w.begin, warp, lane);
    for (uint32_t it = 0; it < w.iters; it++) {
        const uint32_t x = ew_shared(dynamic + at * STAGE_BYTES), now = at;
        const uint32_t b = w.begin + it * STAGE_BLOCKS, left = w.end - b;
        const uint32_t blocks = left < STAGE_BLOCKS ? left : STAGE_BLOCKS;

        ew_mbar_wait(ew_shared(&bars.full[at]), phase);
        stream_next(stream, a, w, warp, lane); // into the stage before this one
        if (++at == EW_STAGES) {
            at = 0;
            phase ^= 1;
        }
#        pragma unroll
        for (int i = 0; i < STAGE_BLOCKS; i++) {
            if (i >= blocks)
                break;
            multiply_block(acc, part, f[i % 2], x, i, keep);
            if (i + 1 < blocks) {
                dequant_block(f[(i + 1) % 2], a, now, panel, i + 1, b + i + 1, warp, lane);
            } else if (it + 1 < w.iters) {
                ew_cp_async_wait<EW_STAGES - 2>();
                dequant_block(f[0], a, at, panel, 0, b + STAGE_BLOCKS, warp, lane);
            }
            ew_wg_wait<0>();
            ew_wg_touch<EW_N>(PROMOTE ? part : acc);
            if (PROMOTE && EW_SUB == 1 && (b + i + 1 == w.end || (b + i + 1) % UNIT_BLOCKS == 0)) {
                promote(acc, part, f[i % 2].o, 0);
                keep = false;
            }
        }
        release(bars, now, lane);
    }
}
#    else
EW_DEV void consume(const ew_args &a, const struct work &w, float *acc, uint32_t &at,
                    uint32_t &phase, struct bars &bars, uint32_t group, uint32_t lane)
{
    uint32_t before = EW_STAGES; // the stage whose products may be in flight

#        pragma unroll
    for (int i = 0; i < EW_N / 2; i++)
        acc[i] = 0.0f;
    for (uint32_t it = 0; it < w.iters; it++) {
        const uint32_t x = ew_shared(dynamic + at * STAGE_BYTES);
        const uint32_t left = w.end - w.begin - it * SUBS, subs = left < SUBS ? left : SUBS;

        ew_mbar_wait(ew_shared(&bars.full[at]), phase);
        ew_wg_fence();
#        pragma unroll
        for (uint32_t s = 0; s < SUBS; s++) {
            if (SUBS > 1 && s >= subs)
                break;
            const uint64_t wa = ew_wg_tile(x + SUBS * X_SUB + s * W_SUB + group * 8192);
            const uint64_t xb = ew_wg_tile(x + s * X_SUB);
#        pragma unroll
            for (int j = 0; j < 4; j++) {
                ew_wg<EW_N>::ss(acc, wa + j * 2, xb + j * 2, 1);
            }
        }
        ew_wg_commit();
        ew_wg_wait<1>();
        if (before < EW_STAGES)
            release(bars, before, lane);
        before = at;
        if (++at == EW_STAGES) {
            at = 0;
            phase ^= 1;
        }
    }
    ew_wg_wait<0>();
    ew_wg_touch<EW_N>(acc);
    if (before < EW_STAGES)
        release(bars, before, lane);
}
#    endif

#    if EW_CLUSTER == 1
EW_DEV void store_tile(const ew_args &a, const float *acc, char *buffers, uint32_t panel,
                       uint32_t m0, uint32_t warp, uint32_t lane)
{
    const float *scales = ew_panel_scales(a, panel);
    const bool wide = ew_wide(a);

#        if EW_N >= 32
    float *buffer = (float *)(buffers + warp * EW_TILE_BYTES);
    float4 next[EW_TILE_PASSES]; // to be added, asked for a turn ahead

    ew_tile_residual(a, next, panel, m0, lane, wide);
#            pragma unroll
    for (int i = 0; i < EW_N / EW_TILE_ROWS; i++) {
        float4 r[EW_TILE_PASSES];

#            pragma unroll
        for (int j = 0; j < EW_TILE_PASSES; j++)
            r[j] = next[j];
        ew_tile_put(buffer, acc + i * (EW_TILE_ROWS / 2), lane);
        __syncwarp();
        if (i + 1 < EW_N / EW_TILE_ROWS)
            ew_tile_residual(a, next, panel, m0 + (i + 1) * EW_TILE_ROWS, lane, wide);
        if (m0 + i * EW_TILE_ROWS < a.m)
            ew_tile_store(a, buffer, scales, r, panel, m0 + i * EW_TILE_ROWS, lane, wide);
        __syncwarp();
    }
#        else
    const uint32_t g = lane / 4, t = lane % 4, n = panel * (EW_GLU ? 8 : 16) + g;
    const float s0 = scales ? scales[g] : 1.0f, s1 = scales ? scales[g + 8] : 1.0f;

#            pragma unroll
    for (int i = 0; i < EW_N / 2; i += 4)
#            pragma unroll
        for (int h = 0; h < 2; h++) {
            const uint32_t m = m0 + i * 2 + t * 2 + h;

            if (m >= a.m || n >= a.n_out)
                continue;
            if (EW_GLU) {
                ew_store_glu(a, acc[i + h] * s0, acc[i + 2 + h] * s1, m, n);
            } else {
                ew_store_plain(a, acc[i + h] * s0, m, n);
                if (n + 8 < a.n_out)
                    ew_store_plain(a, acc[i + 2 + h] * s1, m, n + 8);
            }
        }
#        endif
}
#    else
// Sums of four rows of W over the blocks of the cluster, in their order.
EW_DEV void gather(float z[4], const float *at, const float *scales)
{
    z[0] = z[1] = z[2] = z[3] = 0.0f;
#        pragma unroll
    for (int r = 0; r < EW_CLUSTER; r++) {
        const float4 v = ew_cluster_load4(ew_shared(at), r);
        z[0] += v.x, z[1] += v.y, z[2] += v.z, z[3] += v.w;
    }
#        pragma unroll
    for (int i = 0; i < 4; i++)
        z[i] *= scales ? scales[i] : 1.0f;
}

// Through shared memory, where the ring was: blocks of the cluster share out the panels.
EW_DEV void store_cluster(const ew_args &a, const float *acc, uint32_t tile_n, uint32_t m0,
                          uint32_t warp, uint32_t lane)
{
    float *sums = (float *)dynamic; // [rows of x][PITCH]
    const uint32_t g = lane / 4, t = lane % 4;

    // every stage was waited for, so that nothing is written here any more once all warps are done
    asm volatile("bar.sync 1, %0;" ::"n"(GROUPS * 128) : "memory");
#        pragma unroll
    for (int i = 0; i < EW_N / 2; i++)
        sums[(i / 4 * 8 + t * 2 + i % 2) * PITCH + warp * 16 + g + (i % 4 < 2 ? 0 : 8)] = acc[i];
    ew_cluster_sync();
    const uint32_t per = PANELS / EW_CLUSTER, first = ew_cluster_rank() * per;
    const uint32_t quads = EW_GLU ? 2 : 4, live = a.m - m0 < EW_N ? a.m - m0 : EW_N;
    const bool wide = ew_wide(a);

#        pragma unroll 1
    for (uint32_t i = threadIdx.x; i < per * quads * live; i += GROUPS * 128) {
        const uint32_t q = i % quads * 4, p = i / quads % per + first, m = i / (quads * per);
        const uint32_t panel = tile_n * PANELS + p, n = panel * (EW_GLU ? 8 : 16) + q;
        const float *at = &sums[m * PITCH + p * 16 + q], *scales = ew_panel_scales(a, panel);
        float z[4], up[4] = { 0.0f, 0.0f, 0.0f, 0.0f };

        if (n >= a.n_out)
            continue;
        gather(z, at, scales ? scales + q : 0);
        if (EW_GLU)
            gather(up, at + 8, scales ? scales + 8 + q : 0);
        ew_finish4(a, z, up, ew_residual4(a, m0 + m, n, wide), m0 + m, n, wide);
    }
}
#    endif
#endif

extern "C" __global__ void __launch_bounds__(THREADS, EW_MIN_BLOCKS)
    ew_linear_wgmma(const __grid_constant__ struct ew_cuda_linear_map_args p)
{
#if EW_WGMMA
    struct bars &bars = *(struct bars *)(dynamic + EW_STAGES * STAGE_BYTES);
    const ew_args &a = p.a;
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const struct work w = work_of(a);

    ew_grid_release();
    if (threadIdx.x == 0) {
        for (int i = 0; i < EW_STAGES; i++) {
            ew_mbar_init(ew_shared(&bars.full[i]), 1);
            ew_mbar_init(ew_shared(&bars.empty[i]), GROUPS * 4);
        }
        ew_mbar_init_fence();
    }
    __syncthreads();
    if (warp >= GROUPS * 4) {
        if (LARGE)
            asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (warp == GROUPS * 4 && lane == 0)
            produce(p, w, ew_shared(dynamic), bars);
        __syncwarp();
    } else {
        uint32_t at = 0, phase = 0;
        float acc[EW_N / 2];

        if (LARGE)
            asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
#    if EW_CODE
        struct stream stream = { w.tile, 0, 0 };
#        pragma unroll
        for (int i = 0; i < EW_STAGES - 1; i++)
            stream_next(stream, a, w, warp, lane);
#    endif
        ew_grid_wait();
        for (uint32_t tile = w.tile; tile < a.tiles_m * a.tiles_n; tile += w.stride) {
            const uint32_t tile_n = tile / a.tiles_m, m0 = tile % a.tiles_m * EW_N;

#    if EW_CODE
            consume(a, w, acc, at, phase, bars, stream, tile_n, warp, lane);
#    else
            consume(a, w, acc, at, phase, bars, warp / 4, lane);
#    endif

#    if EW_CLUSTER > 1
            store_cluster(a, acc, tile_n, m0, warp, lane);
#    else
            store_tile(a, acc, dynamic + EW_STAGES * STAGE_BYTES + 128, tile_n * PANELS + warp, m0,
                       warp, lane);
#    endif
        }
    }
#    if EW_CLUSTER > 1
    if (warp >= GROUPS * 4)
        ew_cluster_sync(); // the one in store_cluster
    ew_cluster_sync();     // nobody leaves while its sums are read
#    endif
#endif
}

// kernels/cuda/linear_wide.cu - y = x W^T for hundreds of rows of x and plain weights on the tensor
// cores of sm_90a. x comes as bf16 or f16. Contract in linear.h.
//
// A tile is 256 rows of x (the A operand) by EW_N rows of W (B). Two warpgroups multiply 128 rows
// of x each, in two sets of accumulators; the third has one lane that fills a ring of EW_STAGES
// stages of 64 columns. What bounds large products is not the tensor cores but what a
// multiprocessor can read from L2 (about 25 bytes a clock were seen): tiles are as large as
// registers allow, and blocks come in clusters of EW_SHARE that have neighbouring tiles of W and
// one of x, of which each brings a part for all of them. Blocks walk over tiles, rows of x first,
// so that weights are read from memory once.
//
// block 384, grid (clusters * EW_SHARE). Macros: EW_N (64 to 176, a multiple of 16), EW_STAGES,
// EW_SHARE, EW_F16, EW_FRESH (1: the launch before made the weights), and those of the epilogue.
// args.tiles_m, tiles_n: tiles of rows of x and of W; tiles_n is a multiple of EW_SHARE.
#include "copy.cuh"
#include "linear_epilogue.cuh"
#include "linear_tile.cuh"
#include "wgmma.cuh"

#define GROUPS      2   // consumer warpgroups
#define ROWS        256 // of x
#define HALVES      2   // of a warpgroup's rows
#define X_BYTES     (ROWS * 128)
#define W_BYTES     (EW_N * 128)
#define STAGE_BYTES (X_BYTES + W_BYTES)
// bf16 of gate x up leaves through shared memory: 16 rows of a warp.
#define LINE_CHUNKS (EW_N / 16) // of 16 bytes, of a row
#define LINE_PITCH  (EW_N + 16) // bytes

// The ring, its barriers, the rows on their way out.
extern __shared__ __align__(1024) char dynamic[];

#if EW_WGMMA

struct bars {
    unsigned long long full[EW_STAGES], empty[EW_STAGES];
};

struct place { // in the ring
    uint32_t at, phase;
};

EW_DEV void step(struct place &p)
{
    if (++p.at == EW_STAGES) {
        p.at = 0;
        p.phase ^= 1;
    }
}

// Tiles that the blocks of a cluster do together.
EW_DEV uint32_t n_tiles(const ew_args &a)
{
    return a.tiles_m * a.tiles_n / EW_SHARE;
}

EW_DEV uint32_t tile_n_of(const ew_args &a, uint32_t tile)
{
    return tile / a.tiles_m * EW_SHARE + ew_cluster_rank();
}

// The stage of iteration `it` is announced, and the weights' part of it started.
EW_DEV void load_weights(const struct ew_cuda_linear_map_args &p, uint32_t tile_n, uint32_t it,
                         uint32_t stage, uint32_t full)
{
    ew_mbar_expect(full, STAGE_BYTES);
    if (EW_GLU) // panels of 8 gate rows and their 8 up rows
        ew_box_load4(stage + X_BYTES, p.map_w, it * 64, 0, 0, tile_n * (EW_N / 16), full);
    else
        ew_box_load(stage + X_BYTES, p.map_w, it * 64, tile_n * EW_N, full);
}

// This block's part of the tile of x, for the whole cluster.
EW_DEV void load_x(const struct ew_cuda_linear_map_args &p, uint32_t tile_m, uint32_t it,
                   uint32_t stage, uint32_t full)
{
    const uint32_t part = ew_cluster_rank() * (ROWS / EW_SHARE);

#    if EW_SHARE > 1
    ew_box_load_shared(stage + part * 128, p.map_x, it * 64, tile_m * ROWS + part, full,
                       (1 << EW_SHARE) - 1);
#    else
    ew_box_load(stage + part * 128, p.map_x, it * 64, tile_m * ROWS + part, full);
#    endif
}

// One lane.
EW_DEV void produce(const struct ew_cuda_linear_map_args &p, uint32_t iters, struct bars &bars)
{
    const uint32_t ring = ew_shared(dynamic), cluster = blockIdx.x / EW_SHARE;
    const uint32_t pre = iters < EW_STAGES ? iters : EW_STAGES;
    struct place at = { 0, 0 };
    uint32_t skip = pre;

    if (EW_FRESH)
        ew_grid_wait();
    // weights do not depend on the launch before
    for (uint32_t it = 0; it < pre; it++)
        load_weights(p, tile_n_of(p.a, cluster), it, ring + it * STAGE_BYTES,
                     ew_shared(&bars.full[it]));
    ew_grid_wait();
    for (uint32_t tile = cluster; tile < n_tiles(p.a); tile += gridDim.x / EW_SHARE)
        for (uint32_t it = 0; it < iters; it++, step(at)) {
            const uint32_t stage = ring + at.at * STAGE_BYTES, full = ew_shared(&bars.full[at.at]);

            ew_mbar_wait(ew_shared(&bars.empty[at.at]), at.phase ^ 1);
            if (skip)
                skip--;
            else
                load_weights(p, tile_n_of(p.a, tile), it, stage, full);
            load_x(p, tile % p.a.tiles_m, it, stage, full);
        }
}

// A warp has read stage `at`: the blocks that fill it may.
EW_DEV void release(struct bars &bars, uint32_t at, uint32_t lane)
{
    if (lane < EW_SHARE)
        ew_mbar_arrive_at(ew_shared(&bars.empty[at]), lane);
}

EW_DEV void consume(float acc[HALVES][EW_N / 2], uint32_t iters, struct place &at,
                    struct bars &bars, uint32_t group, uint32_t lane)
{
    uint32_t before = EW_STAGES; // the stage whose products may be in flight

#    pragma unroll
    for (int i = 0; i < EW_N / 2; i++)
        acc[0][i] = acc[1][i] = 0.0f;
    for (uint32_t it = 0; it < iters; it++) {
        const uint32_t stage = ew_shared(dynamic + at.at * STAGE_BYTES);
        const uint64_t x0 = ew_wg_tile(stage + group * (HALVES * 8192));
        const uint64_t x1 = ew_wg_tile(stage + group * (HALVES * 8192) + 8192);
        const uint64_t w = ew_wg_tile(stage + X_BYTES);

        ew_mbar_wait(ew_shared(&bars.full[at.at]), at.phase);
        ew_wg_fence();
#    pragma unroll
        for (int j = 0; j < 4; j++) {
            ew_wg<EW_N>::ss(acc[0], x0 + j * 2, w + j * 2, 1);
            ew_wg<EW_N>::ss(acc[1], x1 + j * 2, w + j * 2, 1);
        }
        ew_wg_commit();
        ew_wg_wait<1>();
        if (before < EW_STAGES)
            release(bars, before, lane);
        before = at.at;
        step(at);
    }
    ew_wg_wait<0>();
    ew_wg_touch<EW_N>(acc[0]);
    ew_wg_touch<EW_N>(acc[1]);
    if (before < EW_STAGES)
        release(bars, before, lane);
}

#    if EW_GLU && EW_SHORT == 1
// 16 rows of a warp: gate and up of a column are a lane's own. Whole lines to memory.
EW_DEV void put_rows(const ew_args &a, const float *acc, char *lines, uint32_t m0, uint32_t tile_n,
                     uint32_t lane)
{
    const uint32_t n0 = tile_n * (EW_N / 2);
    const bool wide = (a.y | a.y_stride * 2) % 16 == 0 && !a.residual;

#        pragma unroll
    for (int p = 0; p < LINE_CHUNKS; p++) {
        const float *const g = acc + p * 8, *const u = g + 4;
        const uint32_t at = n0 + p * 8 + lane % 4 * 2, n = at < a.n_out ? at : 0;
        const float g0 = ew_bias(a, n), g1 = ew_bias(a, n + 1);
        const float u0 = ew_bias(a, n + a.n_out), u1 = ew_bias(a, n + a.n_out + 1);
        uint32_t f[2];

#        pragma unroll
        for (int h = 0; h < 2; h++)
            f[h] = ew_bf16x2(ew_act_short(ew_finish_with(a, g[h * 2], g0)) *
                                 ew_finish_with(a, u[h * 2], u0),
                             ew_act_short(ew_finish_with(a, g[h * 2 + 1], g1)) *
                                 ew_finish_with(a, u[h * 2 + 1], u1));
        asm volatile("stmatrix.sync.aligned.m8n8.x2.shared.b16 [%0], {%1, %2};" ::"r"(
                         ew_shared(lines) + lane % 16 * LINE_PITCH + p * 16),
                     "r"(f[0]), "r"(f[1])
                     : "memory");
    }
    __syncwarp();
#        pragma unroll 2
    for (uint32_t i = lane; i < 16 * LINE_CHUNKS; i += 32) {
        const uint32_t r = i / LINE_CHUNKS, c = i % LINE_CHUNKS, m = m0 + r, n = n0 + c * 8;
        const uint4 v = *(const uint4 *)(lines + r * LINE_PITCH + c * 16);
        const uint32_t words[4] = { v.x, v.y, v.z, v.w };

        if (m >= a.m || n >= a.n_out)
            continue;
        if (wide && n + 8 <= a.n_out) {
            *(uint4 *)((uint16_t *)a.y + m * a.y_stride + n) = v;
            continue;
        }
#        pragma unroll
        for (int j = 0; j < 8; j++)
            if (n + j < a.n_out)
                ew_store(a, j % 2 ? ew_bf16_hi(words[j / 2]) : ew_bf16_lo(words[j / 2]), m, n + j);
    }
    __syncwarp(); // the next rows go there
}
#    elif EW_GLU
EW_DEV void put_rows(const ew_args &a, const float *acc, char *lines, uint32_t m0, uint32_t tile_n,
                     uint32_t lane)
{
    (void)lines;
#        pragma unroll
    for (int p = 0; p < LINE_CHUNKS; p++)
#        pragma unroll
        for (int e = 0; e < 4; e++) {
            const uint32_t m = m0 + lane / 4 + e / 2 * 8;
            const uint32_t n = tile_n * (EW_N / 2) + p * 8 + lane % 4 * 2 + e % 2;

            if (m < a.m && n < a.n_out)
                ew_store_glu(a, acc[p * 8 + e], acc[p * 8 + 4 + e], m, n);
        }
}
#    else
// Of two neighbouring blocks of 8 columns a lane has two columns each; it gives one pair to the
// lane beside it for the other's: four columns of one block, 16 bytes.
EW_DEV float4 trade(const float *j0, const float *j1, bool odd)
{
    const float a = odd ? j0[0] : j1[0], b = odd ? j0[1] : j1[1];
    const float c = __shfl_xor_sync(0xffffffffu, a, 1), d = __shfl_xor_sync(0xffffffffu, b, 1);

    return odd ? make_float4(c, d, j1[0], j1[1]) : make_float4(j0[0], j0[1], c, d);
}

EW_DEV void put_rows(const ew_args &a, const float *acc, char *lines, uint32_t m0, uint32_t tile_n,
                     uint32_t lane)
{
    const bool odd = lane & 1, wide = ew_wide(a);
    const uint32_t n0 = tile_n * EW_N + odd * 8 + (lane & 2) * 2, m = m0 + lane / 4;
    float4 next[2] = { ew_residual4(a, m, n0, wide), ew_residual4(a, m + 8, n0, wide) };

    (void)lines;
#        pragma unroll
    for (int p = 0; p < EW_N / 16; p++) {
        const uint32_t n = n0 + p * 16;
        const float4 r[2] = { next[0], next[1] };

        if (p + 1 < EW_N / 16) {
            next[0] = ew_residual4(a, m, n + 16, wide);
            next[1] = ew_residual4(a, m + 8, n + 16, wide);
        }
#        pragma unroll
        for (int h = 0; h < 2; h++) {
            const float4 v = trade(acc + p * 8 + h * 2, acc + p * 8 + 4 + h * 2, odd);
            const float z[4] = { v.x, v.y, v.z, v.w };

            if (m + h * 8 < a.m && n < a.n_out)
                ew_finish4(a, z, z, r[h], m + h * 8, n, wide);
        }
    }
}
#    endif
#endif

extern "C" __global__ void __launch_bounds__(384, 1)
    ew_linear_wide(const __grid_constant__ struct ew_cuda_linear_map_args p)
{
#if EW_WGMMA
    struct bars &bars = *(struct bars *)(dynamic + EW_STAGES * STAGE_BYTES);
    const ew_args &a = p.a;
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = warp / 4;
    const uint32_t iters = (a.k + 63) / 64;

    ew_grid_release();
    if (threadIdx.x == 0) {
        for (int i = 0; i < EW_STAGES; i++) {
            ew_mbar_init(ew_shared(&bars.full[i]), 1);
            ew_mbar_init(ew_shared(&bars.empty[i]), GROUPS * 4 * EW_SHARE);
        }
        ew_mbar_init_fence();
    }
    __syncthreads();
    ew_cluster_sync(); // nothing is brought to a block that has no barriers yet
    if (group == GROUPS) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
        if (warp == GROUPS * 4 && lane == 0)
            produce(p, iters, bars);
        __syncwarp();
    } else {
        float acc[HALVES][EW_N / 2];
        struct place at = { 0, 0 };
        char *const lines = dynamic + EW_STAGES * STAGE_BYTES + 128 + warp * (16 * LINE_PITCH);

        asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
        ew_grid_wait();
        for (uint32_t tile = blockIdx.x / EW_SHARE; tile < n_tiles(a);
             tile += gridDim.x / EW_SHARE) {
            const uint32_t m0 = tile % a.tiles_m * ROWS + group * 128 + warp % 4 * 16;

            consume(acc, iters, at, bars, group, lane);
#    pragma unroll
            for (int h = 0; h < HALVES; h++)
                put_rows(a, acc[h], lines, m0 + h * 64, tile_n_of(a, tile), lane);
        }
    }
    ew_cluster_sync(); // boxes and arrivals of others may be on their way
#endif
}

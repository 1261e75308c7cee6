// kernels/cuda/linear_mma.cu - y = x W^T with the matrix instructions that every chip from sm_80 on
// has, from a few rows of x to many. x comes as bf16 or f16. Contract in linear.h.
//
// A tile is 128 rows of W by EW_N rows of x, columns come 64 at a time through a ring of EW_STAGES
// stages in shared memory (cp.async). Eight warps: EW_N < 128: a panel of 16 rows each; 128: two
// panels by half of the rows of x. Plain weights are read by ldmatrix, quantised ones by their
// lanes and dequantised in registers. EW_SPLIT: blocks along z have a range of the columns each and
// write sums that linear_reduce.cu adds up. EW_MOE: blocks along x have a tile of places of one
// expert each (moe_route.cu makes them) instead of EW_N rows, and find its weight.
//
// Macros: EW_N (16, 32, 64, 128), EW_STAGES, EW_SPLIT, EW_GLU, EW_F16, EW_MOE; plain: EW_CODE 0;
// quantised: those of linear_dequant.cuh.
#if EW_CODE
#    include "linear_dequant.cuh"
#else
#    include "copy.cuh"
#    include "linear_epilogue.cuh"
#    include "mma.cuh"
#endif
#include "linear_tile.cuh"

#define WARPS       8
#define THREADS     (WARPS * 32)
#define ROWS        128
#define WARP_PANELS (EW_N == 128 ? 2 : 1)
#define WARP_TILES  (EW_N == 128 ? 8 : EW_N / 8) // of 8 rows of x
#define X_BYTES     (EW_N * 128)
#if EW_CODE
#    define BLOCKS  (64 / EW_BLOCK_COLS) // of a stage
#    define W_BYTES (8 * BLOCKS * 512)
#    define PROMOTE (EW_GROUPED && EW_SCALE && !EW_SHORT_SCALE)
#else
#    define W_BYTES (ROWS * 128)
#    define PROMOTE 0
#endif
#define STAGE_BYTES (X_BYTES + W_BYTES)
#ifndef EW_MOE
#    define EW_MOE 0
#endif

extern __shared__ __align__(128) char dynamic[]; // EW_MOE: and the rows of x of a tile behind it

EW_DEV uint32_t *sources(void)
{
    return (uint32_t *)(dynamic + EW_STAGES * STAGE_BYTES);
}

// 16-byte piece `c` of row `r` of a tile with rows of 128 bytes: no two of 8 rows share banks.
EW_DEV uint32_t place(uint32_t r, uint32_t c)
{
    return r * 128 + ((c ^ (r & 7)) * 16);
}

EW_DEV uint32_t last_panel(const ew_args &a)
{
    return (a.n_out + (EW_GLU ? 7 : 15)) / (EW_GLU ? 8 : 16) - 1;
}

// Row of W at row r of tile `tile`.
EW_DEV uint32_t row_of(const ew_args &a, uint32_t tile, uint32_t r)
{
#if EW_GLU
    const uint32_t j = (tile * 8 + r / 16) * 8 + r % 8;
    return (j < a.n_out ? j : a.n_out - 1) + (r % 16 < 8 ? 0 : a.n_out);
#else
    const uint32_t j = tile * ROWS + r;
    return j < a.n ? j : a.n - 1;
#endif
}

EW_DEV void load_weights(const ew_args &a, uint32_t tile, uint32_t col64, uint32_t stage)
{
#if EW_CODE
#    pragma unroll
    for (int i = threadIdx.x; i < W_BYTES / 16; i += THREADS) {
        const uint32_t p = i / (BLOCKS * 32), b = col64 * BLOCKS + i / 32 % BLOCKS;
        const uint32_t want = tile * 8 + p, last = last_panel(a);
        const char *panel = (const char *)a.w + (size_t)(want < last ? want : last) * a.row_bytes;
        const bool in = b < a.k_blocks;
        ew_cp_async16(stage + X_BYTES + i * 16, panel + (in ? b * 512 + i % 32 * 16 : 0),
                      in ? 16 : 0);
    }
#else
    const uint32_t row_pieces = (uint32_t)(a.row_bytes / 16);
#    pragma unroll
    for (int i = threadIdx.x; i < ROWS * 8; i += THREADS) {
        const uint32_t r = i / 8, c = col64 * 8 + i % 8;
        const char *at = (const char *)a.w + row_of(a, tile, r) * a.row_bytes;
        const bool in = c < row_pieces;
        ew_cp_async16(stage + X_BYTES + place(r, i % 8), at + (in ? c * 16 : 0), in ? 16 : 0);
    }
#endif
}

EW_DEV void load_x(const ew_args &a, uint32_t m0, uint32_t col64, uint32_t stage)
{
    const uint32_t row_pieces = (a.k + 7) / 8;
#pragma unroll
    for (int i = threadIdx.x; i < EW_N * 8; i += THREADS) {
        const uint32_t r = i / 8, c = col64 * 8 + i % 8;
        const bool in = m0 + r < a.m && c < row_pieces;
#if EW_MOE
        const uint64_t row = sources()[r];
#else
        const uint64_t row = m0 + r;
#endif
        const char *at =
            (const char *)a.prepared + (in ? row * a.prepared_stride * 2 + (size_t)c * 16 : 0);
        ew_cp_async16(stage + place(r, i % 8), at, in ? 16 : 0);
    }
}

EW_DEV void product(float c[4], const uint32_t f[4], uint32_t b0, uint32_t b1)
{
#if EW_F16
    ew_mma_f16(c, f, b0, b1);
#else
    ew_mma_bf16(c, f, b0, b1);
#endif
}

// The B operands of two tiles of 16 columns (half: columns 0-31 or 32-63 of the stage).
EW_DEV void load_b(uint32_t b[WARP_TILES][4], uint32_t stage, uint32_t row0, int half,
                   uint32_t lane)
{
#pragma unroll
    for (int i = 0; i < WARP_TILES; i++)
        ew_ldmatrix4(b[i], stage + place(row0 + i * 8 + lane % 8, half * 4 + lane / 8));
}

struct warp_sums {
    float acc[WARP_PANELS][WARP_TILES][4];
};

#if EW_CODE
EW_DEV void promote(struct warp_sums &s, float part[WARP_TILES][4], int p,
                    const struct ew_groups &o, int sub)
{
    const float s0 = ew_scale(o, sub, 0), s1 = ew_scale(o, sub, 1);

#    pragma unroll
    for (int i = 0; i < WARP_TILES; i++)
#    pragma unroll
        for (int j = 0; j < 4; j++) {
            s.acc[p][i][j] = fmaf(part[i][j], j < 2 ? s0 : s1, s.acc[p][i][j]);
            part[i][j] = 0.0f;
        }
}

// Panel p of the warp, its scales and zero points in o[block].
EW_DEV void multiply_panel(struct warp_sums &s, int p, uint32_t panel, const char *stage,
                           uint32_t x, uint32_t row0, const struct ew_groups o[BLOCKS],
                           uint32_t lane)
{
    float part[WARP_TILES][4];

#    pragma unroll
    for (int i = 0; PROMOTE && i < WARP_TILES; i++)
        part[i][0] = part[i][1] = part[i][2] = part[i][3] = 0.0f;
#    pragma unroll
    for (int k = 0; k < BLOCKS; k++) {
        const uint4 w = *(const uint4 *)(stage + X_BYTES + (panel * BLOCKS + k) * 512 + lane * 16);
#    pragma unroll
        for (int j = 0; j < EW_TILES; j++) {
            const int sub = j / EW_GROUP_TILES, tile = k * EW_TILES + j;
            uint32_t f[4], b[WARP_TILES][4];

            if (tile % 2 == 0)
                load_b(b, x, row0, tile / 2, lane);
            ew_dequant(f, w, j, ew_offset(o[k], sub, 0), ew_offset(o[k], sub, 1));
            if (EW_SHORT_SCALE && EW_GROUPED)
                ew_scale_fragment(f, o[k], sub);
#    pragma unroll
            for (int i = 0; i < WARP_TILES; i++)
                product(PROMOTE ? part[i] : s.acc[p][i], f, b[i][tile % 2 * 2],
                        b[i][tile % 2 * 2 + 1]);
            if (PROMOTE && (j + 1) % EW_GROUP_TILES == 0)
                promote(s, part, p, o[k], sub);
        }
    }
}

EW_DEV void load_all_groups(struct ew_groups o[WARP_PANELS][BLOCKS], const ew_args &a,
                            uint32_t tile, uint32_t panel0, uint32_t col64, uint32_t lane)
{
#    pragma unroll
    for (int p = 0; p < WARP_PANELS; p++)
#    pragma unroll
        for (int k = 0; k < BLOCKS; k++) {
            const uint32_t want = tile * 8 + panel0 + p, last = last_panel(a);
            const uint32_t b = col64 * BLOCKS + k;
            ew_load_groups(o[p][k], a,
                           (const char *)a.w + (size_t)(want < last ? want : last) * a.row_bytes,
                           b < a.k_blocks ? b : a.k_blocks - 1, lane / 4);
        }
}
#endif

EW_DEV void multiply_plain(struct warp_sums &s, uint32_t panel0, uint32_t stage, uint32_t row0,
                           uint32_t lane)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        uint32_t b[WARP_TILES][4];

        load_b(b, stage, row0, half, lane);
#pragma unroll
        for (int j = 0; j < 2; j++)
#pragma unroll
            for (int p = 0; p < WARP_PANELS; p++) {
                uint32_t f[4];

                ew_ldmatrix4(
                    f, stage + X_BYTES +
                           place((panel0 + p) * 16 + lane % 16, half * 4 + j * 2 + lane / 16));
#pragma unroll
                for (int i = 0; i < WARP_TILES; i++)
                    product(s.acc[p][i], f, b[i][j * 2], b[i][j * 2 + 1]);
            }
    }
}

EW_DEV void store_sum(const ew_args &a, float z, uint32_t m, uint32_t n)
{
#if EW_SPLIT
    ((float *)a.y)[((size_t)blockIdx.z * a.m + m) * a.n + n] = z;
#else
    ew_store_plain(a, z, m, n);
#endif
}

EW_DEV const float *row_scales(const ew_args &a, uint32_t panel)
{
#if EW_CODE
    const uint32_t last = last_panel(a);
    return (const float *)((const char *)a.w + (size_t)(panel < last ? panel : last) * a.row_bytes +
                           a.row_scales_at);
#else
    return 0;
#endif
}

EW_DEV void store_panel(const ew_args &a, const float acc[WARP_TILES][4], uint32_t panel,
                        uint32_t m0, uint32_t lane)
{
    const uint32_t g = lane / 4, t = lane % 4, n = panel * (EW_GLU ? 8 : 16) + g;
    const float *scales = row_scales(a, panel);
    const float s0 = scales ? scales[g] : 1.0f, s1 = scales ? scales[g + 8] : 1.0f;

#pragma unroll
    for (int i = 0; i < WARP_TILES; i++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const uint32_t m = m0 + i * 8 + t * 2 + h;
            const float z0 = acc[i][h] * s0, z1 = acc[i][2 + h] * s1;

            if (m >= a.m || n >= a.n_out)
                continue;
#if EW_GLU && !EW_SPLIT
            ew_store_glu(a, z0, z1, m, n);
#else
            store_sum(a, z0, m, n);
            if (EW_GLU)
                store_sum(a, z1, m, n + a.n_out);
            else if (n + 8 < a.n_out)
                store_sum(a, z1, m, n + 8);
#endif
        }
}

#if EW_MOE
// What the block's tile of places makes of the arguments. False: there is no such tile.
EW_DEV bool choose_expert(const struct ew_cuda_linear_moe_args &p, ew_args &a)
{
    ew_grid_wait();
    if (blockIdx.x >= *(const uint32_t *)p.n_tiles)
        return false;
    const int4 tile = ((const int4 *)p.tiles)[blockIdx.x];

    a.w += (uint64_t)tile.x * p.expert_stride;
    a.y += (uint64_t)tile.y * a.y_stride * (EW_SHORT ? 2 : 4);
    a.m = (uint32_t)tile.z;
    for (uint32_t i = threadIdx.x; i < EW_N; i += THREADS) {
        const uint32_t at = (uint32_t)tile.y + (i < a.m ? i : a.m - 1);
        sources()[i] = p.row ? ((const uint32_t *)p.row)[at] : at;
    }
    __syncthreads();
    return true;
}
#endif

#if EW_MOE
extern "C" __global__ void __launch_bounds__(THREADS, EW_N == 128 ? 1 : 2)
    ew_linear_moe(const __grid_constant__ struct ew_cuda_linear_moe_args given)
#else
extern "C" __global__ void __launch_bounds__(THREADS, EW_N == 128 ? 1 : 2)
    ew_linear_mma(const struct ew_cuda_linear_args a)
#endif
{
#if EW_MOE
    struct ew_cuda_linear_args a = given.a;
    const uint32_t m0 = 0;

    ew_grid_release();
    if (!choose_expert(given, a))
        return;
#else
    const uint32_t m0 = blockIdx.x * EW_N;
#endif
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const uint32_t tile = blockIdx.y, ring = ew_shared(dynamic);
    const uint32_t panel0 = EW_N == 128 ? warp / 2 * 2 : warp;
    const uint32_t row0 = EW_N == 128 ? warp % 2 * 64 : 0;
    const uint32_t all = (a.k + 63) / 64;
    const uint32_t range = (all + gridDim.z - 1) / gridDim.z;
    const uint32_t begin = blockIdx.z * range < all ? blockIdx.z * range : all;
    const uint32_t n = begin + range < all ? range : all - begin;
    struct warp_sums s;
#if EW_CODE
    struct ew_groups o[WARP_PANELS][BLOCKS];
#endif

#if !EW_MOE
    ew_grid_release();
#endif
#pragma unroll
    for (int p = 0; p < WARP_PANELS; p++)
#pragma unroll
        for (int i = 0; i < WARP_TILES; i++)
            s.acc[p][i][0] = s.acc[p][i][1] = s.acc[p][i][2] = s.acc[p][i][3] = 0.0f;
    for (uint32_t i = 0; i < EW_STAGES - 1; i++)
        if (i < n)
            load_weights(a, tile, begin + i, ring + i * STAGE_BYTES);
#if EW_CODE
    load_all_groups(o, a, tile, panel0, begin < all ? begin : 0, lane);
#endif
#if !EW_MOE
    ew_grid_wait();
#endif
    for (uint32_t i = 0; i < EW_STAGES - 1; i++) {
        if (i < n)
            load_x(a, m0, begin + i, ring + i * STAGE_BYTES);
        ew_cp_async_commit(); // the first group holds all weights so far
    }
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t at = i % EW_STAGES * STAGE_BYTES, next = i + EW_STAGES - 1;

        ew_cp_async_wait<EW_STAGES - 2>();
        __syncthreads();
        if (next < n) {
            load_weights(a, tile, begin + next, ring + next % EW_STAGES * STAGE_BYTES);
            load_x(a, m0, begin + next, ring + next % EW_STAGES * STAGE_BYTES);
        }
        ew_cp_async_commit();
#if EW_CODE
        struct ew_groups ahead[WARP_PANELS][BLOCKS];
        load_all_groups(ahead, a, tile, panel0, begin + (i + 1 < n ? i + 1 : i), lane);
#    pragma unroll
        for (int p = 0; p < WARP_PANELS; p++)
            multiply_panel(s, p, panel0 + p, dynamic + at, ring + at, row0, o[p], lane);
#    pragma unroll
        for (int p = 0; p < WARP_PANELS; p++)
#    pragma unroll
            for (int k = 0; k < BLOCKS; k++)
                o[p][k] = ahead[p][k];
#else
        multiply_plain(s, panel0, ring + at, row0, lane);
#endif
    }
#if EW_N >= 32 && !EW_SPLIT
    float *buffer = (float *)(dynamic + warp * EW_TILE_BYTES);
    const bool wide = ew_wide(a);

    ew_cp_async_wait<0>();
    __syncthreads(); // the ring is free
#    pragma unroll
    for (int p = 0; p < WARP_PANELS; p++) {
        const uint32_t panel = tile * 8 + panel0 + p;
#    pragma unroll
        for (int i = 0; i < WARP_TILES; i += 4) {
            const uint32_t m = m0 + row0 + i * 8;
            float4 r[EW_TILE_PASSES];

            ew_tile_residual(a, r, panel, m, lane, wide);
            ew_tile_put(buffer, &s.acc[p][i][0], lane);
            __syncwarp();
            if (m < a.m)
                ew_tile_store(a, buffer, row_scales(a, panel), r, panel, m, lane, wide);
            __syncwarp();
        }
    }
#else
#    pragma unroll
    for (int p = 0; p < WARP_PANELS; p++)
        store_panel(a, s.acc[p], tile * 8 + panel0 + p, m0 + row0, lane);
#endif
}

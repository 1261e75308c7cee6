// kernels/cuda/moe_few.cu - one product of Moe for few rows and quantised experts: a block takes a
// panel of 16 rows of one expert's weight and up to 8 places that the expert has, its warps share the
// columns. A warp's loads of several blocks are all in flight before the first is used: with few rows
// nothing but reading takes time.
//
// grid (panels, tiles at most). Macros: EW_GLU, EW_ACT, EW_CAP, EW_SHORT and those of
// linear_dequant.cuh. Arguments as linear_mma.cu with EW_MOE; x is bf16.
#include "linear_dequant.cuh"

#define WARPS   8
#define PLACES  8 // of a tile
#define AHEAD   4 // blocks of columns that a warp has in flight
#define PROMOTE (EW_GROUPED && EW_SCALE && !EW_SHORT_SCALE)

struct block { // of a panel, and the columns of x that belong to it
    uint4 w;
    struct ew_groups o;
    uint32_t x[EW_TILES][2];
};

EW_DEV void load(struct block &b, const ew_args &a, const char *panel, const char *x, bool live,
                 uint32_t at, uint32_t lane)
{
    b.w = ew_load_stream(panel + (size_t)at * 512 + lane * 16);
    ew_load_groups(b.o, a, panel, at, lane / 4);
#pragma unroll
    for (int j = 0; j < EW_TILES; j++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const uint32_t col = at * EW_BLOCK_COLS + j * 16 + h * 8 + lane % 4 * 2;

            b.x[j][h] = live && col < a.k ? *(const uint32_t *)(x + (size_t)col * 2) : 0u;
        }
}

EW_DEV void multiply(float acc[4], const struct block &b)
{
    float part[4] = { 0.0f, 0.0f, 0.0f, 0.0f };

#pragma unroll
    for (int j = 0; j < EW_TILES; j++) {
        const int sub = j / EW_GROUP_TILES;
        uint32_t f[4];

        ew_dequant(f, b.w, j, ew_offset(b.o, sub, 0), ew_offset(b.o, sub, 1));
        if (EW_SHORT_SCALE && EW_GROUPED)
            ew_scale_fragment(f, b.o, sub);
        ew_mma_bf16(PROMOTE ? part : acc, f, b.x[j][0], b.x[j][1]);
        if (PROMOTE && (j + 1) % EW_GROUP_TILES == 0) {
            const float s0 = ew_scale(b.o, sub, 0), s1 = ew_scale(b.o, sub, 1);

#pragma unroll
            for (int i = 0; i < 4; i++) {
                acc[i] = fmaf(part[i], i < 2 ? s0 : s1, acc[i]);
                part[i] = 0.0f;
            }
        }
    }
}

// Sum over the warps of row `row` of the panel for a place, with the row's own scale.
EW_DEV float finish(const float part[WARPS][16][PLACES], const float *scales, uint32_t row,
                    uint32_t place)
{
    float z = 0.0f;

#pragma unroll
    for (int w = 0; w < WARPS; w++)
        z += part[w][row][place];
    return z * scales[row];
}

extern "C" __global__ void __launch_bounds__(WARPS * 32)
    ew_moe_few(const __grid_constant__ struct ew_cuda_linear_moe_args given)
{
    __shared__ float part[WARPS][16][PLACES];
    struct ew_cuda_linear_args a = given.a;
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    float acc[4] = { 0.0f, 0.0f, 0.0f, 0.0f };

    ew_grid_release();
    ew_grid_wait();
    if (blockIdx.y >= *(const uint32_t *)given.n_tiles)
        return;
    const int4 tile = ((const int4 *)given.tiles)[blockIdx.y];
    const bool live = g < (uint32_t)tile.z;
    const uint32_t place = (uint32_t)tile.y + (live ? g : 0);
    const uint64_t row = given.row ? ((const uint32_t *)given.row)[place] : place;
    const char *x = (const char *)a.prepared + row * a.prepared_stride * 2;
    const char *panel = (const char *)a.w + (uint64_t)tile.x * given.expert_stride +
                        (uint64_t)blockIdx.x * a.row_bytes;

    a.y += (uint64_t)tile.y * a.y_stride * (EW_SHORT ? 2 : 4);
    for (uint32_t b0 = warp; b0 < a.k_blocks; b0 += WARPS * AHEAD) {
        struct block b[AHEAD];

#pragma unroll
        for (int i = 0; i < AHEAD; i++)
            if (b0 + i * WARPS < a.k_blocks)
                load(b[i], a, panel, x, live, b0 + i * WARPS, lane);
#pragma unroll
        for (int i = 0; i < AHEAD; i++)
            if (b0 + i * WARPS < a.k_blocks)
                multiply(acc, b[i]);
    }
    part[warp][g][t * 2] = acc[0];
    part[warp][g][t * 2 + 1] = acc[1];
    part[warp][g + 8][t * 2] = acc[2];
    part[warp][g + 8][t * 2 + 1] = acc[3];
    __syncthreads();
    const float *scales = (const float *)(panel + a.row_scales_at);
    const uint32_t outs = EW_GLU ? 8 : 16, j = threadIdx.x % outs, m = threadIdx.x / outs;
    const uint32_t n = blockIdx.x * outs + j;

    if (m >= (uint32_t)tile.z || n >= a.n_out)
        return;
#if EW_GLU
    ew_store_glu(a, finish(part, scales, j, m), finish(part, scales, j + 8, m), m, n);
#else
    ew_store_plain(a, finish(part, scales, j, m), m, n);
#endif
}

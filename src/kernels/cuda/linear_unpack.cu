// kernels/cuda/linear_unpack.cu - panels of quantised weights to plain bf16 rows (the layout of
// linear_bf16__cuda: with EW_GLU gate rows, then up rows), scales applied in f32 and the product
// rounded once: for products of so many rows of x that this pass over the weights costs little.
//
// grid (panels), block 256: warps take blocks of columns by turns. Macros of linear_dequant.cuh,
// EW_GLU. args.y: where the rows go, y_stride apart.
#include "linear_dequant.cuh"

#define WARPS  8
#define PITCH  (EW_BLOCK_COLS * 2 + 16) // bytes of a row of a block in shared memory
#define CHUNKS (EW_BLOCK_COLS / 8)      // of 16 bytes, of such a row

// Both numbers of a pair times s.
EW_DEV uint32_t scaled(uint32_t pair, float s)
{
    return ew_bf16x2(ew_bf16_lo(pair) * s, ew_bf16_hi(pair) * s);
}

// Tile j of the block, 16 rows by 16 columns, into shared memory.
EW_DEV void put_tile(char *to, const uint32_t f[4], int j, uint32_t lane)
{
    const uint32_t row = lane % 8 + lane / 8 % 2 * 8, chunk = j * 2 + lane / 16;

#if EW_SM >= 90
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(
                     ew_shared(to) + row * PITCH + chunk * 16),
                 "r"(f[0]), "r"(f[1]), "r"(f[2]), "r"(f[3])
                 : "memory");
#else
    (void)row;
    for (int i = 0; i < 4; i++)
        *(uint32_t *)(to + (lane / 4 + i % 2 * 8) * PITCH + (j * 2 + i / 2) * 16 + lane % 4 * 4) =
            f[i];
    (void)chunk;
#endif
}

extern "C" __global__ void __launch_bounds__(WARPS * 32)
    ew_linear_unpack(const struct ew_cuda_linear_args a)
{
    __shared__ __align__(16) char blocks[WARPS][16 * PITCH];
    const uint32_t lane = threadIdx.x % 32, g = lane / 4, warp = threadIdx.x / 32;
    const char *const panel = (const char *)a.w + (size_t)blockIdx.x * a.row_bytes;
    const float *const row_scales = (const float *)(panel + a.row_scales_at);
    const float r0 = row_scales[g], r1 = row_scales[g + 8];
    char *const mine = blocks[warp];

    ew_grid_release();
    ew_grid_wait();
    for (uint32_t b = warp; b < a.k_blocks; b += WARPS) {
        const uint4 w = ew_load_stream(panel + (size_t)b * 512 + lane * 16);
        struct ew_groups o;

        ew_load_groups(o, a, panel, b, g);
#pragma unroll
        for (int j = 0; j < EW_TILES; j++) {
            const int sub = j / EW_GROUP_TILES;
            const float s0 = ew_scale(o, sub, 0) * r0, s1 = ew_scale(o, sub, 1) * r1;
            uint32_t f[4];

            ew_dequant(f, w, j, ew_offset(o, sub, 0), ew_offset(o, sub, 1));
#pragma unroll
            for (int i = 0; i < 4; i++)
                f[i] = scaled(f[i], i % 2 ? s1 : s0);
            put_tile(mine, f, j, lane);
        }
        __syncwarp();
#pragma unroll
        for (uint32_t i = lane; i < 16 * CHUNKS; i += 32) {
            const uint32_t r = i / CHUNKS, c = i % CHUNKS, col = b * EW_BLOCK_COLS + c * 8;
            const uint32_t n = EW_GLU ? blockIdx.x * 8 + r % 8 : blockIdx.x * 16 + r;
            const uint32_t row = EW_GLU && r >= 8 ? a.n_out + n : n;

            if (n < a.n_out && col < a.y_stride)
                *(uint4 *)((uint16_t *)a.y + row * a.y_stride + col) =
                    *(const uint4 *)(mine + r * PITCH + c * 16);
        }
        __syncwarp();
    }
}

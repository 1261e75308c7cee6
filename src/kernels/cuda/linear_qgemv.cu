// kernels/cuda/linear_qgemv.cu - y = x W^T for a few rows of x and quantised weights, on tensor
// cores: a panel of 16 rows of W is the A operand, dequantised in registers, and up to 8 rows of x
// are B. Each x is two bf16 numbers, so that nothing but 2^-17 of it is lost. Contract in linear.h.
//
// A warp reads blocks of 512 bytes of its panel, EW_DEPTH ahead. EW_WARPS_K warps of a block and
// EW_CLUSTER blocks of a cluster share a panel's columns: the first take every EW_WARPS_K-th block
// of a range, the second ranges. Their sums are added in order. x stays in shared memory, by chunks
// of columns where it has no room.
//
// Macros: those of linear_dequant.cuh, EW_GLU, EW_NORM, EW_DEPTH, EW_WARPS_K, EW_CLUSTER,
// EW_MIN_BLOCKS.
#include "linear_dequant.cuh"

#define WARPS   8
#define THREADS (WARPS * 32)
#define PANELS  (WARPS / EW_WARPS_K) // of a block at a time
#define COLS    8                    // rows of x

// args.tiles_m: blocks (of EW_BLOCK_COLS columns) of a chunk; args.tiles_n: panels
extern __shared__ __align__(128) char dynamic[];

struct fixed {
    float sums[2][WARPS][16 * COLS]; // two turns
    float squares[WARPS][COLS];
    uint4 zero;
};

// x[m][first column...] of one chunk: part 0 the numbers rounded to bf16, part 1 what that lost.
EW_DEV char *x_row(const ew_args &a, uint32_t part, uint32_t m)
{
    const uint32_t pitch = a.tiles_m * EW_BLOCK_COLS * 2 + 16;

    return dynamic + (part * a.m + m) * pitch;
}

EW_DEV float4 load_x4(const float *x, uint32_t col, uint32_t k, bool vec)
{
    if (vec && col + 4 <= k)
        return *(const float4 *)(x + col);
    return make_float4(col < k ? x[col] : 0.0f, col + 1 < k ? x[col + 1] : 0.0f,
                       col + 2 < k ? x[col + 2] : 0.0f, col + 3 < k ? x[col + 3] : 0.0f);
}

// Warps take pieces of 128 columns of rows, in order: warp w the pieces w, w + WARPS...
// squares: 0 leaves the sums of squares alone, 1 starts them, 2 goes on.
EW_DEV void stage(const ew_args &a, struct fixed &f, uint32_t block, uint32_t n_blocks,
                  int squares_mode)
{
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const uint32_t begin = block * EW_BLOCK_COLS, cols = n_blocks * EW_BLOCK_COLS;
    const bool vec = ((a.x | (a.x_stride * 4)) & 15) == 0;

    for (uint32_t m = 0; m < a.m; m++) {
        const float *x = (const float *)a.x + m * a.x_stride;
        float squares = 0.0f;
#pragma unroll 4
        for (uint32_t c = warp * 128 + lane * 4; c < cols; c += WARPS * 128) {
            float4 v = load_x4(x, begin + c, a.k, vec);
#if EW_NORM
            const float4 g = load_x4((const float *)a.norm_weight, begin + c, a.k, true);
            squares = fmaf(v.x, v.x, squares), squares = fmaf(v.y, v.y, squares);
            squares = fmaf(v.z, v.z, squares), squares = fmaf(v.w, v.w, squares);
            v.x *= g.x, v.y *= g.y, v.z *= g.z, v.w *= g.w;
#endif
            const uint2 hi = make_uint2(ew_bf16x2(v.x, v.y), ew_bf16x2(v.z, v.w));
            const uint2 lo = make_uint2(ew_bf16x2(v.x - ew_bf16_lo(hi.x), v.y - ew_bf16_hi(hi.x)),
                                        ew_bf16x2(v.z - ew_bf16_lo(hi.y), v.w - ew_bf16_hi(hi.y)));
            *(uint2 *)(x_row(a, 0, m) + c * 2) = hi;
            *(uint2 *)(x_row(a, 1, m) + c * 2) = lo;
        }
        if (EW_NORM && squares_mode) {
#pragma unroll
            for (int o = 16; o > 0; o /= 2)
                squares += __shfl_xor_sync(~0u, squares, o);
            if (lane == 0)
                f.squares[warp][m] = squares + (squares_mode == 1 ? 0.0f : f.squares[warp][m]);
        }
    }
}

// Adds the products of one block. x0, x1: where this lane's ldmatrix row begins in part 0 and 1.
EW_DEV void multiply(float acc[4], const uint4 &w, const struct ew_groups &o, uint32_t x0,
                     uint32_t x1, uint32_t x_step)
{
    float part[4] = { 0.0f, 0.0f, 0.0f, 0.0f };
    uint32_t hi[4], lo[4], f[4];

#pragma unroll
    for (int j = 0; j < EW_TILES; j++) {
        const int sub = j / EW_GROUP_TILES;
        if (j % 2 == 0) {
            ew_ldmatrix4(hi, x0 + j / 2 * x_step);
            ew_ldmatrix4(lo, x1 + j / 2 * x_step);
        }
        ew_dequant(f, w, j, ew_offset(o, sub, 0), ew_offset(o, sub, 1));
        ew_mma_bf16(part, f, hi[j % 2 * 2], hi[j % 2 * 2 + 1]);
        ew_mma_bf16(part, f, lo[j % 2 * 2], lo[j % 2 * 2 + 1]);
        if ((j + 1) % EW_GROUP_TILES == 0) {
            const float s0 = ew_scale(o, sub, 0), s1 = ew_scale(o, sub, 1);
            acc[0] = fmaf(part[0], s0, acc[0]), acc[1] = fmaf(part[1], s0, acc[1]);
            acc[2] = fmaf(part[2], s1, acc[2]), acc[3] = fmaf(part[3], s1, acc[3]);
            part[0] = part[1] = part[2] = part[3] = 0.0f;
        }
    }
}

// Sum of element i of panel p of this turn over warps, then blocks.
EW_DEV float gather(struct fixed &f, uint32_t turn, uint32_t p, uint32_t i)
{
    float sum = 0.0f;

#pragma unroll
    for (int r = 0; r < EW_CLUSTER; r++)
#pragma unroll
        for (int w = 0; w < EW_WARPS_K; w++) {
            const float *at = &f.sums[turn][p * EW_WARPS_K + w][i];
            sum += EW_CLUSTER > 1 ? ew_cluster_load(ew_shared(at), r) : *at;
        }
    return sum;
}

EW_DEV float rms_scale(const ew_args &a, struct fixed &f, uint32_t m)
{
    float sum = 0.0f;

#pragma unroll
    for (int r = 0; r < EW_CLUSTER; r++)
#pragma unroll
        for (int w = 0; w < WARPS; w++) {
            const float *at = &f.squares[w][m];
            sum += EW_CLUSTER > 1 ? ew_cluster_load(ew_shared(at), r) : *at;
        }
    return rsqrtf(sum / (float)a.k + a.norm_eps);
}

// Outputs of the panels of this turn, shared out over the threads of the cluster.
EW_DEV void finish(const ew_args &a, struct fixed &f, uint32_t turn, uint32_t panel0, uint32_t rank)
{
    const uint32_t rows = EW_GLU ? 8 : 16, per_panel = rows * a.m;

    for (uint32_t i = threadIdx.x * EW_CLUSTER + rank; i < PANELS * per_panel;
         i += THREADS * EW_CLUSTER) {
        const uint32_t p = i / per_panel, row = i % per_panel % rows, m = i % per_panel / rows;
        const uint32_t n = (panel0 + p) * rows + row;
        const float *scales =
            (const float *)((const char *)a.w + (panel0 + p) * a.row_bytes + a.row_scales_at);

        if (panel0 + p >= a.tiles_n || n >= a.n_out)
            continue;
        const float norm = EW_NORM ? rms_scale(a, f, m) : 1.0f;
        const float z = gather(f, turn, p, row * COLS + m) * norm * scales[row];
        if (EW_GLU)
            ew_store_glu(a, z, gather(f, turn, p, (row + 8) * COLS + m) * norm * scales[row + 8], m,
                         n);
        else
            ew_store_plain(a, z, m, n);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, EW_MIN_BLOCKS)
    ew_linear_qgemv(const struct ew_cuda_linear_args a)
{
    __shared__ struct fixed f;
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const uint32_t rank = EW_CLUSTER > 1 ? ew_cluster_rank() : 0;
    const uint32_t stride = gridDim.x / EW_CLUSTER * PANELS;
    // blocks of this block's range, the same number for each rank; the last may have fewer
    const uint32_t range = (a.k_blocks + EW_CLUSTER - 1) / EW_CLUSTER, begin = rank * range;
    const uint32_t end = begin + range < a.k_blocks ? begin + range : a.k_blocks;
    const uint32_t steps = (range + EW_WARPS_K - 1) / EW_WARPS_K;
    const uint32_t chunk = a.tiles_m / EW_WARPS_K; // steps
    const uint32_t first = begin + warp % EW_WARPS_K;
    uint32_t panel0 = blockIdx.x / EW_CLUSTER * PANELS;
    uint32_t ahead_panel = panel0 + warp / EW_WARPS_K, ahead = 0;
    uint4 w[EW_DEPTH];
    struct ew_groups o[EW_DEPTH];
    float acc[4] = { 0.0f, 0.0f, 0.0f, 0.0f };

    ew_grid_release();
#define LOAD(d)                                                                                    \
    do {                                                                                           \
        const uint32_t b = first + ahead * EW_WARPS_K;                                             \
        if (ahead_panel < a.tiles_n && b < end) {                                                  \
            const char *panel = (const char *)a.w + (size_t)ahead_panel * a.row_bytes;             \
            w[d] = ew_load_stream(panel + b * 512 + lane * 16);                                    \
            ew_load_groups(o[d], a, panel, b, g);                                                  \
        }                                                                                          \
        if (++ahead == steps) {                                                                    \
            ahead = 0;                                                                             \
            ahead_panel += stride;                                                                 \
        }                                                                                          \
    } while (0)
#pragma unroll
    for (int d = 0; d < EW_DEPTH; d++)
        LOAD(d);
    if (threadIdx.x == 0)
        f.zero = make_uint4(0, 0, 0, 0);
    ew_grid_wait();

    // this lane's row of B for ldmatrix: rows of x past the end are zeros
    const bool live = lane % 8 < a.m;
    const uint32_t x_step = live ? 64 : 0, zero = ew_shared(&f.zero);
    const uint32_t x0 = live ? ew_shared(x_row(a, 0, lane % 8)) + lane / 8 * 16 : zero;
    const uint32_t x1 = live ? ew_shared(x_row(a, 1, lane % 8)) + lane / 8 * 16 : zero;
    uint32_t step = 0, turn = 0, staged = 0, passes = 0;
    bool more = true;

    while (more) {
#pragma unroll
        for (int d = 0; d < EW_DEPTH; d++) {
            if (!more)
                break;
            if (step % chunk == 0 && (staged == 0 || chunk < steps)) {
                const uint32_t at = begin + step * EW_WARPS_K, left = end > at ? end - at : 0;

                if (staged)
                    __syncthreads(); // the chunk before is read
                stage(a, f, at, left < a.tiles_m ? left : a.tiles_m,
                      passes      ? 0
                      : step == 0 ? 1
                                  : 2);
                staged = 1;
                __syncthreads();
            }
            const uint32_t in_chunk = (step % chunk) * EW_WARPS_K + warp % EW_WARPS_K;
            const uint32_t at = live ? in_chunk * (EW_BLOCK_COLS * 2) : 0;

            if (first + step * EW_WARPS_K < end)
                multiply(acc, w[d], o[d], x0 + at, x1 + at, x_step);
            LOAD(d);
            if (++step < steps)
                continue;
            float *s = f.sums[turn][warp];
            *(float2 *)(s + g * COLS + t * 2) = make_float2(acc[0], acc[1]);
            *(float2 *)(s + (g + 8) * COLS + t * 2) = make_float2(acc[2], acc[3]);
            acc[0] = acc[1] = acc[2] = acc[3] = 0.0f;
            if (EW_CLUSTER > 1)
                ew_cluster_sync();
            else
                __syncthreads();
            finish(a, f, turn, panel0, rank);
            step = 0;
            turn ^= 1;
            passes = 1;
            panel0 += stride;
            more = panel0 < a.tiles_n;
        }
    }
    if (EW_CLUSTER > 1)
        ew_cluster_sync(); // nobody leaves while its sums are read
#undef LOAD
}

// kernels/cuda/linear_few.cuh - what the kernels for a few rows of x share: how warps and blocks
// share the columns of panels of 16 rows of W, how reads run ahead, how x comes into shared memory,
// and what becomes of the sums. linear_rows.cu and linear_digits.cu say what a product is.
//
// A warp reads steps of STEP_COLS columns of its panel, EW_DEPTH ahead; the first reads start
// before the launch before this one ends. EW_WARPS_K warps of a block and EW_CLUSTER blocks of a
// cluster share a panel's columns: the first take every EW_WARPS_K-th step of a range, the second
// ranges. Their sums are added in order. x stays in shared memory, by chunks of columns where it
// has no room.
//
// Macros: EW_ROWS (1, 2, 4, 8, 16: most rows of x), EW_WARPS, EW_WARPS_K, EW_CLUSTER, EW_DEPTH,
// EW_MIN_BLOCKS, EW_NORM, EW_GLU. args.tiles_m: steps of a chunk; args.tiles_n: panels.
//
// A kernel defines before it includes this: STEP_COLS, FRAGS (operands of 8 columns of B),
// OPERAND_COLS (columns of x in 64 bytes of a column of B), SUM_COLS (columns of sums that a warp
// leaves) and struct step (what a lane reads in a step); and after it
//   load_step   a lane's part of a step
//   put_x       four columns of x a lane, 128 a warp, to shared memory
//   clear_x     what else of a chunk of steps must be written
//   operand     where a lane finds its column of B
//   multiply    the products of a step
//   put_sums    a warp's sums to shared memory, row_sum: of one row of x from there
#ifndef EW_KERNELS_CUDA_LINEAR_FEW_CUH
#define EW_KERNELS_CUDA_LINEAR_FEW_CUH

#include "copy.cuh"
#include "linear_epilogue.cuh"

#define THREADS   (EW_WARPS * 32)
#define PANELS    (EW_WARPS / EW_WARPS_K) // of a block at a time
#define PITCH     20                      // floats of a column in sums
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define ROW_WARPS MIN(EW_WARPS / EW_ROWS, 8) // that round a row of x
#define PIECE     128                        // columns a warp rounds at a time
#define SLOTS     (8 / ROW_WARPS) // sums of squares a lane has: 8 a row, so that m does not matter
// Pieces of x read before the first is used; few where three blocks share the registers (more
// spilled: slower).
#define BATCH (EW_MIN_BLOCKS == 3 ? MIN(SLOTS, 4) : EW_NORM ? 2 : 4)
#define TURN  (SLOTS > BATCH ? SLOTS : BATCH)

extern __shared__ __align__(128) char dynamic[];

struct fixed {
    float sums[2][EW_WARPS][SUM_COLS][PITCH]; // two turns
    float joined[EW_CLUSTER > 1 ? 2 : 1][PANELS][EW_ROWS][PITCH];
    float squares[EW_ROWS][8];
    uint4 zero;
};
#define FIXED_BYTES ((sizeof(struct fixed) + 127) / 128 * 128)

struct sums {
    float acc[FRAGS][4];
};

// Where a warp reads: a panel (quantised), or its rows g and g + 8 (plain).
struct source {
    const char *panel, *row8;
};

// A lane's column of an operand in shared memory, and from 64 bytes of it to the next: 0 where
// there is no row of x, and zeros are read.
struct operand {
    uint32_t at, step;
};

EW_DEV void load_step(struct step &to, const ew_args &a, const struct source &from, uint32_t s,
                      uint32_t lane);
EW_DEV void put_x(const ew_args &a, uint32_t m, uint32_t col, const float4 v, uint32_t lane);
EW_DEV void clear_x(const ew_args &a, uint32_t steps);
EW_DEV struct operand operand(const ew_args &a, const struct fixed &f, int frag, uint32_t lane);
EW_DEV void multiply(struct sums &s, const struct step &w, const struct operand x[FRAGS],
                     const ew_args &a, uint32_t step, uint32_t lane);
EW_DEV void put_sums(float to[SUM_COLS][PITCH], struct sums &s, uint32_t lane);
EW_DEV float row_sum(const float of[SUM_COLS][PITCH], uint32_t m, uint32_t row);

EW_DEV float4 load_x4(const float *x, uint32_t col, uint32_t k, bool vec)
{
    if (vec && col + 4 <= k)
        return *(const float4 *)(x + col);
    return make_float4(col < k ? x[col] : 0.0f, col + 1 < k ? x[col + 1] : 0.0f,
                       col + 2 < k ? x[col + 2] : 0.0f, col + 3 < k ? x[col + 3] : 0.0f);
}

// Rounds `steps` steps of x from `begin` on. Piece p of a row goes to the row's warp p % ROW_WARPS,
// and its squares to the sum p % 8.
EW_DEV void stage(const ew_args &a, uint32_t begin, uint32_t steps, float squares[SLOTS])
{
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, cols = steps * STEP_COLS;
    const bool vec = ((a.x | (a.x_stride * 4)) & 15) == 0;
    const uint32_t m = warp / ROW_WARPS, first = warp % ROW_WARPS;
    const float *x = (const float *)a.x + m * a.x_stride;

    begin *= STEP_COLS;
    clear_x(a, steps);
    if (m >= a.m || m >= EW_ROWS)
        return;
    // the i-th piece of this warp; BATCH of them are read before the first is used
    for (uint32_t i = 0; i / SLOTS * 8 * PIECE < cols; i += TURN) {
#pragma unroll
        for (int h = 0; h < TURN; h += BATCH) {
            float4 v[BATCH], n[EW_NORM ? BATCH : 1];
#pragma unroll
            for (int u = 0; u < BATCH; u++) {
                const uint32_t p =
                    (i / SLOTS + (h + u) / SLOTS) * 8 + (h + u) % SLOTS * ROW_WARPS + first;
                const uint32_t c = p * PIECE + lane * 4;

                v[u] = c < cols ? load_x4(x, begin + c, a.k, vec) : make_float4(0, 0, 0, 0);
                if (EW_NORM)
                    n[EW_NORM ? u : 0] =
                        c < cols ? load_x4((const float *)a.norm_weight, begin + c, a.k, true)
                                 : make_float4(0, 0, 0, 0);
            }
#pragma unroll
            for (int u = 0; u < BATCH; u++) {
                const uint32_t p =
                    (i / SLOTS + (h + u) / SLOTS) * 8 + (h + u) % SLOTS * ROW_WARPS + first;
                const uint32_t c = p * PIECE + lane * 4;

                if (c >= cols)
                    break;
#if EW_NORM
                float &q = squares[(h + u) % SLOTS];
                q = fmaf(v[u].x, v[u].x, q), q = fmaf(v[u].y, v[u].y, q);
                q = fmaf(v[u].z, v[u].z, q), q = fmaf(v[u].w, v[u].w, q);
                v[u].x *= n[u].x, v[u].y *= n[u].y, v[u].z *= n[u].z, v[u].w *= n[u].w;
#endif
                put_x(a, m, c, v[u], lane);
            }
        }
    }
}

EW_DEV void join_squares(const ew_args &a, struct fixed &f, float squares[SLOTS])
{
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;

    if (warp / ROW_WARPS >= MIN(a.m, EW_ROWS))
        return;
#pragma unroll
    for (int u = 0; u < SLOTS; u++) {
#pragma unroll
        for (int o = 16; o > 0; o /= 2)
            squares[u] += __shfl_xor_sync(~0u, squares[u], o);
        if (lane == 0)
            f.squares[warp / ROW_WARPS][u * ROW_WARPS + warp % ROW_WARPS] = squares[u];
    }
}

EW_DEV float rms_scale(const ew_args &a, struct fixed &f, uint32_t m)
{
    float sum = 0.0f;

#pragma unroll
    for (int r = 0; r < EW_CLUSTER; r++)
#pragma unroll
        for (int i = 0; i < 8; i++)
            sum +=
                EW_CLUSTER > 1 ? ew_cluster_load(ew_shared(&f.squares[m][i]), r) : f.squares[m][i];
    return rsqrtf(sum / (float)a.k + a.norm_eps);
}

// Sum of row `row` of a panel times row m of x, over warps, and over the cluster where that is
// done.
EW_DEV float gather(struct fixed &f, uint32_t turn, uint32_t p, uint32_t row, uint32_t m)
{
    float sum = 0.0f;

#if EW_CLUSTER > 1
#    pragma unroll
    for (int r = 0; r < EW_CLUSTER; r++)
        sum += ew_cluster_load(ew_shared(&f.joined[turn][p][m][row]), r);
#else
#    pragma unroll
    for (int w = 0; w < EW_WARPS_K; w++)
        sum += row_sum(f.sums[turn][p * EW_WARPS_K + w], m, row);
#endif
    return sum;
}

// Outputs of the panels of this turn, shared out over the threads of the cluster.
EW_DEV void finish(const ew_args &a, struct fixed &f, uint32_t turn, uint32_t panel0, uint32_t rank)
{
    const uint32_t rows = EW_GLU ? 8 : 16;

#if EW_CLUSTER > 1
    for (uint32_t i = threadIdx.x; i < PANELS * EW_ROWS * 16; i += THREADS) {
        const uint32_t p = i / (EW_ROWS * 16), m = i / 16 % EW_ROWS, row = i % 16;
        float sum = 0.0f;
#    pragma unroll
        for (int w = 0; w < EW_WARPS_K; w++)
            sum += row_sum(f.sums[turn][p * EW_WARPS_K + w], m, row);
        f.joined[turn][p][m][row] = sum;
    }
    ew_cluster_sync();
#endif
    for (uint32_t i = rank * THREADS + threadIdx.x; i < PANELS * EW_ROWS * rows;
         i += THREADS * EW_CLUSTER) {
        const uint32_t p = i / (EW_ROWS * rows), m = i / rows % EW_ROWS, row = i % rows;
        const uint32_t n = (panel0 + p) * rows + row;
        float s0 = 1.0f, s1 = 1.0f;

        if (m >= a.m || panel0 + p >= a.tiles_n || n >= a.n_out)
            continue;
        if (EW_NORM)
            s0 = s1 = rms_scale(a, f, m);
#if EW_CODE
        const float *scales =
            (const float *)((const char *)a.w + (panel0 + p) * a.row_bytes + a.row_scales_at);
        s0 *= scales[row];
        if (EW_GLU)
            s1 *= scales[row + 8];
#endif
        const float z = gather(f, turn, p, row, m) * s0;
        if (EW_GLU)
            ew_store_glu(a, z, gather(f, turn, p, row + 8, m) * s1, m, n);
        else
            ew_store_plain(a, z, m, n);
    }
}

EW_DEV struct source source_of(const ew_args &a, uint32_t panel, uint32_t g)
{
    struct source s;

#if EW_CODE
    s.panel = s.row8 = (const char *)a.w + (size_t)MIN(panel, a.tiles_n - 1) * a.row_bytes;
#else
    const uint32_t rows = EW_GLU ? 8 : 16, last = a.n_out - 1, n = panel * rows + g;
    const uint32_t second = EW_GLU ? a.n_out + MIN(n, last) : MIN(n + 8, last);
    s.panel = (const char *)a.w + (size_t)MIN(n, last) * a.row_bytes;
    s.row8 = (const char *)a.w + (size_t)second * a.row_bytes;
#endif
    return s;
}

EW_DEV void ew_few(const ew_args &a)
{
    struct fixed &f = *(struct fixed *)dynamic; // first, then x
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4;
    const uint32_t rank = EW_CLUSTER > 1 ? ew_cluster_rank() : 0;
    const uint32_t stride = gridDim.x / EW_CLUSTER * PANELS;
    // steps of this block's range, of which the last block may have fewer
    const uint32_t all = (a.k + STEP_COLS - 1) / STEP_COLS,
                   range = (all + EW_CLUSTER - 1) / EW_CLUSTER;
    const uint32_t begin = MIN(rank * range, all), end = MIN(begin + range, all);
    const uint32_t first = begin + warp % EW_WARPS_K;
    uint32_t panel0 = blockIdx.x / EW_CLUSTER * PANELS, turn = 0;
    uint32_t ahead_panel = panel0 + warp / EW_WARPS_K, ahead = first;
    struct source from = source_of(a, ahead_panel, g);
    struct step w[EW_DEPTH];
    struct sums s;
    float squares[SLOTS];

    ew_grid_release();
    // every warp takes as many steps, the last ones may be past the end; with chunks a multiple of
    // EW_DEPTH, so that a chunk always begins at d = 0 below and the code that fills it stands once
    const uint32_t chunk = a.tiles_m / EW_WARPS_K,
                   plain_steps = (range + EW_WARPS_K - 1) / EW_WARPS_K;
    const uint32_t steps =
        chunk < plain_steps ? (plain_steps + EW_DEPTH - 1) / EW_DEPTH * EW_DEPTH : plain_steps;
    uint32_t ahead_left = steps;
#define LOAD(d)                                                                                    \
    do {                                                                                           \
        if (ahead < end)                                                                           \
            load_step(w[d], a, from, ahead, lane);                                                 \
        ahead += EW_WARPS_K;                                                                       \
        if (--ahead_left == 0) {                                                                   \
            ahead_left = steps;                                                                    \
            ahead_panel += stride;                                                                 \
            ahead = ahead_panel - warp / EW_WARPS_K < a.tiles_n ? first : 0x40000000u;             \
            from = source_of(a, ahead_panel, g);                                                   \
        }                                                                                          \
    } while (0)
#pragma unroll
    for (int d = 0; d < EW_DEPTH; d++)
        LOAD(d);
    if (threadIdx.x == 0)
        f.zero = make_uint4(0, 0, 0, 0);
#pragma unroll
    for (int i = 0; i < SLOTS; i++)
        squares[i] = 0.0f;
#pragma unroll
    for (int i = 0; i < FRAGS; i++)
        s.acc[i][0] = s.acc[i][1] = s.acc[i][2] = s.acc[i][3] = 0.0f;
    ew_grid_wait();

    struct operand x0[FRAGS], x[FRAGS];
#pragma unroll
    for (int i = 0; i < FRAGS; i++) {
        x0[i] = operand(a, f, i, lane);
        x0[i].at += x0[i].step * (warp % EW_WARPS_K * (STEP_COLS / OPERAND_COLS));
        x[i] = x0[i];
    }
    uint32_t step = 0, in_chunk = 0;
    bool more = true, stage_next = true, first_turn = true;

    while (more) {
#pragma unroll
        for (int d = 0; d < EW_DEPTH; d++) {
            if (!more)
                break;
            if (d == 0 && stage_next) {
                const uint32_t at = begin + step * EW_WARPS_K, left = end > at ? end - at : 0;

                __syncthreads(); // the chunk before is read
                stage(a, at, MIN(left, a.tiles_m), squares);
                if (EW_NORM && first_turn && step + chunk >= steps)
                    join_squares(a, f, squares);
                __syncthreads();
                stage_next = false;
                in_chunk = 0;
#pragma unroll
                for (int i = 0; i < FRAGS; i++)
                    x[i] = x0[i];
            }
            if (first + step * EW_WARPS_K < end)
                multiply(s, w[d], x, a, in_chunk * EW_WARPS_K + warp % EW_WARPS_K, lane);
#pragma unroll
            for (int i = 0; i < FRAGS; i++)
                x[i].at += x[i].step * (EW_WARPS_K * STEP_COLS / OPERAND_COLS);
            LOAD(d);
            step++;
            if (++in_chunk == chunk && step < steps)
                stage_next = true;
            if (step < steps)
                continue;
            put_sums(f.sums[turn][warp], s, lane);
#pragma unroll
            for (int i = 0; i < FRAGS; i++)
                s.acc[i][0] = s.acc[i][1] = s.acc[i][2] = s.acc[i][3] = 0.0f;
            __syncthreads();
            finish(a, f, turn, panel0, rank);
            first_turn = false;
            step = in_chunk = 0;
            stage_next = chunk < steps;
            turn ^= 1;
            panel0 += stride;
            more = panel0 < a.tiles_n;
#pragma unroll
            for (int i = 0; i < FRAGS; i++)
                x[i] = x0[i];
        }
    }
    if (EW_CLUSTER > 1)
        ew_cluster_sync(); // nobody leaves while its sums are read
#undef LOAD
}

#endif

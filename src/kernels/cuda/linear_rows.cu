// kernels/cuda/linear_rows.cu - y = x W^T for up to 16 rows of x on tensor cores, in one launch: a
// panel of 16 rows of W is the A operand (quantised weights are dequantised in registers), x is B.
// Contract in linear.h.
//
// EW_LO says what the columns of B are. 4: rows of x rounded to bf16 in columns 0-3, what that lost
// in 4-7; 8: the same with eight rows and two operands; 0: sixteen rows, rounded, two operands.
// With EW_LO > 0 the kernel is exact to 2^-17 of x, and a row has the same bits with 4 and with 8.
//
// A warp reads steps of 128 (q4) or 64 columns of its panel, EW_DEPTH ahead; the first reads start
// before the launch before this one ends. EW_WARPS_K warps of a block and EW_CLUSTER blocks of a
// cluster share a panel's columns: the first take every EW_WARPS_K-th step of a range, the second
// ranges. Their sums are added in order. x stays in shared memory, by chunks of columns where it
// has no room.
//
// Macros: EW_CODE 0: plain bf16, else those of linear_dequant.cuh; EW_LO, EW_ROWS (1, 2, 4, 8, 16:
// most rows of x), EW_WARPS, EW_WARPS_K, EW_CLUSTER, EW_DEPTH, EW_MIN_BLOCKS, EW_NORM, EW_GLU.
// args.tiles_m: steps of a chunk; args.tiles_n: panels.
#if EW_CODE
#    include "linear_dequant.cuh"
#    define STEP_COLS (2 * EW_BLOCK_COLS)
#    define WORDS     2 // of 16 bytes a lane and step
#else
#    include "copy.cuh"
#    include "linear_epilogue.cuh"
#    include "mma.cuh"
#    define STEP_COLS 64
#    define WORDS     4
#endif

#define THREADS   (EW_WARPS * 32)
#define PANELS    (EW_WARPS / EW_WARPS_K) // of a block at a time
#define FRAGS     (EW_LO == 4 ? 1 : 2)
#define PARTS     (EW_LO ? 2 : 1)
#define PITCH     20 // floats of a row of x in sums
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
    float sums[2][EW_WARPS][EW_ROWS][PITCH]; // two turns
    float joined[EW_CLUSTER > 1 ? 2 : 1][PANELS][EW_ROWS][PITCH];
    float squares[EW_ROWS][8];
    uint4 zero;
};
#define FIXED_BYTES ((sizeof(struct fixed) + 127) / 128 * 128)

// What a lane reads in a step.
struct step {
    uint4 w[WORDS];
#if EW_CODE
    struct ew_groups o[2];
#endif
};

// Groups longer than a block are the same for both blocks of a step.
#if EW_CODE
#    define ONE_GROUP (!EW_GROUPED || EW_GROUP >= STEP_COLS)
#    define PROMOTE   (EW_GROUPED && EW_SCALE)
#else
#    define ONE_GROUP 1
#    define PROMOTE   0
#endif

EW_DEV uint32_t x_pitch(const ew_args &a)
{
    // bytes; ldmatrix wants an odd multiple of 16 modulo 128, plain loads of two rows want 64
    return a.tiles_m * STEP_COLS * 2 + (EW_CODE ? 16 : 64);
}

EW_DEV char *x_row(const ew_args &a, uint32_t part, uint32_t m)
{
    return dynamic + FIXED_BYTES + (part * a.m + m) * x_pitch(a);
}

EW_DEV float4 load_x4(const float *x, uint32_t col, uint32_t k, bool vec)
{
    if (vec && col + 4 <= k)
        return *(const float4 *)(x + col);
    return make_float4(col < k ? x[col] : 0.0f, col + 1 < k ? x[col + 1] : 0.0f,
                       col + 2 < k ? x[col + 2] : 0.0f, col + 3 < k ? x[col + 3] : 0.0f);
}

EW_DEV void put_x4(const ew_args &a, uint32_t m, uint32_t c, const float4 v)
{
    const uint2 hi = make_uint2(ew_bf16x2(v.x, v.y), ew_bf16x2(v.z, v.w));

    *(uint2 *)(x_row(a, 0, m) + c * 2) = hi;
    if (PARTS == 2)
        *(uint2 *)(x_row(a, 1, m) + c * 2) =
            make_uint2(ew_bf16x2(v.x - ew_bf16_lo(hi.x), v.y - ew_bf16_hi(hi.x)),
                       ew_bf16x2(v.z - ew_bf16_lo(hi.y), v.w - ew_bf16_hi(hi.y)));
}

// Rounds `cols` columns of x from `begin` on. Piece p of a row goes to the row's warp p %
// ROW_WARPS, and its squares to the sum p % 8.
EW_DEV void stage(const ew_args &a, uint32_t begin, uint32_t cols, float squares[SLOTS])
{
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const bool vec = ((a.x | (a.x_stride * 4)) & 15) == 0;
    const uint32_t m = warp / ROW_WARPS, first = warp % ROW_WARPS;
    const float *x = (const float *)a.x + m * a.x_stride;

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
                put_x4(a, m, c, v[u]);
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

// The lane's bytes of step `s` of a panel.
EW_DEV void load_step(struct step &to, const ew_args &a, const char *panel, const char *row8,
                      uint32_t s, uint32_t lane)
{
#if EW_CODE
    const uint32_t b0 = s * 2, b1 = MIN(b0 + 1, a.k_blocks - 1);

    to.w[0] = ew_load_stream(panel + (size_t)(b0 * 512 + lane * 16));
    to.w[1] = ew_load_stream(panel + (size_t)(b1 * 512 + lane * 16));
    ew_load_groups(to.o[0], a, panel, b0, lane / 4);
    if (!ONE_GROUP)
        ew_load_groups(to.o[1], a, panel, b1, lane / 4);
#else
    const uint32_t at = s * 128 + lane % 4 * 16, end = (uint32_t)a.row_bytes;
    const uint4 none = make_uint4(0, 0, 0, 0);

    to.w[0] = at < end ? ew_load_stream(panel + at) : none;
    to.w[1] = at < end ? ew_load_stream(row8 + at) : none;
    to.w[2] = at + 64 < end ? ew_load_stream(panel + at + 64) : none;
    to.w[3] = at + 64 < end ? ew_load_stream(row8 + at + 64) : none;
#endif
}

struct sums {
    float acc[FRAGS][4];
};

#if EW_CODE
// x: where the lane's ldmatrix row begins in this step, one a fragment; x_step: to the next 32
// columns, 0 where there is no row.
EW_DEV void multiply(struct sums &s, const struct step &w, const uint32_t x[FRAGS],
                     const uint32_t x_step[FRAGS])
{
    float part[FRAGS][4];
    uint32_t b[FRAGS][4], f[4];

#    pragma unroll
    for (int i = 0; i < FRAGS; i++)
        part[i][0] = part[i][1] = part[i][2] = part[i][3] = 0.0f;
#    pragma unroll
    for (int j = 0; j < 2 * EW_TILES; j++) {
        const int block = j / EW_TILES, tile = j % EW_TILES, sub = tile / EW_GROUP_TILES;
        const struct ew_groups &o = w.o[ONE_GROUP ? 0 : block];

        if (j % 2 == 0)
#    pragma unroll
            for (int i = 0; i < FRAGS; i++)
                ew_ldmatrix4(b[i], x[i] + j / 2 * x_step[i]);
        ew_dequant(f, w.w[block], tile, ew_offset(o, sub, 0), ew_offset(o, sub, 1));
#    pragma unroll
        for (int i = 0; i < FRAGS; i++)
            ew_mma_bf16(PROMOTE ? part[i] : s.acc[i], f, b[i][j % 2 * 2], b[i][j % 2 * 2 + 1]);
        if (PROMOTE && (ONE_GROUP ? j + 1 == 2 * EW_TILES : (j + 1) % EW_GROUP_TILES == 0)) {
            const float s0 = ew_scale(o, sub, 0), s1 = ew_scale(o, sub, 1);
#    pragma unroll
            for (int i = 0; i < FRAGS; i++) {
                s.acc[i][0] = fmaf(part[i][0], s0, s.acc[i][0]);
                s.acc[i][1] = fmaf(part[i][1], s0, s.acc[i][1]);
                s.acc[i][2] = fmaf(part[i][2], s1, s.acc[i][2]);
                s.acc[i][3] = fmaf(part[i][3], s1, s.acc[i][3]);
                part[i][0] = part[i][1] = part[i][2] = part[i][3] = 0.0f;
            }
        }
    }
}
#else
// Both operands take columns in the order in which a lane reads 16 bytes: columns 8t..8t+7 of 32.
EW_DEV void multiply(struct sums &s, const struct step &w, const uint32_t x[FRAGS],
                     const uint32_t x_step[FRAGS])
{
#    pragma unroll
    for (int h = 0; h < 2; h++) {
        const uint4 lo = w.w[h * 2], hi = w.w[h * 2 + 1];
        const uint32_t f0[4] = { lo.x, hi.x, lo.y, hi.y }, f1[4] = { lo.z, hi.z, lo.w, hi.w };

#    pragma unroll
        for (int i = 0; i < FRAGS; i++) {
            uint4 b;

            asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];"
                         : "=r"(b.x), "=r"(b.y), "=r"(b.z), "=r"(b.w)
                         : "r"(x[i] + h * x_step[i]));
            ew_mma_bf16(s.acc[i], f0, b.x, b.y);
            ew_mma_bf16(s.acc[i], f1, b.z, b.w);
        }
    }
}
#endif

// A warp's sums to shared memory, what rounding lost added to what was rounded.
EW_DEV void put_sums(float to[EW_ROWS][PITCH], struct sums &s, uint32_t lane)
{
    const uint32_t g = lane / 4, t = lane % 4;

#pragma unroll
    for (int i = 0; i < FRAGS; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const uint32_t m = (EW_LO == 8 ? 0 : i * 8) + t * 2 + j % 2;
            float v = s.acc[i][j];

            if (EW_LO == 4)
                v += __shfl_xor_sync(~0u, v, 2);
            if (EW_LO == 8)
                v += s.acc[FRAGS - 1][j];
            if (m < EW_ROWS && !(EW_LO == 8 && i > 0))
                to[m][g + j / 2 * 8] = v;
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
        sum += f.sums[turn][p * EW_WARPS_K + w][m][row];
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
            sum += f.sums[turn][p * EW_WARPS_K + w][m][row];
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

// Where a warp reads: a panel (quantised), or its rows g and g + 8 (plain).
struct source {
    const char *panel, *row8;
};

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

extern "C" __global__ void __launch_bounds__(THREADS, EW_MIN_BLOCKS)
    ew_linear_rows(const struct ew_cuda_linear_args a)
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
            load_step(w[d], a, from.panel, from.row8, ahead, lane);                                \
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

    // this lane's row of B, and its piece of it; rows of x that there are not are zeros
    const uint32_t column = EW_CODE ? lane % 8 : g, piece = EW_CODE ? lane / 8 : lane % 4;
    uint32_t x0[FRAGS], x[FRAGS], x_step[FRAGS];
#pragma unroll
    for (int i = 0; i < FRAGS; i++) {
        const uint32_t part = EW_LO == 4 ? column / 4 : EW_LO == 8 ? i : 0;
        const uint32_t m = EW_LO == 4 ? column % 4 : EW_LO == 8 ? column : column + i * 8;
        const uint32_t at = piece * 16 + warp % EW_WARPS_K * (STEP_COLS * 2);

        x0[i] = x[i] = m < a.m ? ew_shared(x_row(a, part, m)) + at : ew_shared(&f.zero);
        x_step[i] = m < a.m ? 64 : 0;
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
                stage(a, at * STEP_COLS, MIN(left, a.tiles_m) * STEP_COLS, squares);
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
                multiply(s, w[d], x, x_step);
#pragma unroll
            for (int i = 0; i < FRAGS; i++)
                x[i] += x_step[i] * (EW_WARPS_K * STEP_COLS / 32);
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

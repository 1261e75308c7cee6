// kernels/cuda/linear_digits.cu - y = x W^T for up to 16 rows of x and integer codes, on the
// integer tensor cores: no code is ever turned into a float. Contract in linear.h.
//
// 128 columns of a row of x are one integer each, round(x / xs) with xs = max|x| / 2^20, and that
// is three digits to the base 128 from -64 to 64: x = xs * (d0 + 128 d1 + 128^2 d2); with EW_DIGITS
// 2: max|x| / 2^13 and two of them. A digit of a row is a column of B (8 bits), a panel of 16 rows
// of W is A: 4-bit codes are spread over bytes by a mask and a shift for eight of them. The order
// in which the layout has codes puts, for every lane, columns 2t, 2t+8, 2t+1, 2t+9 of 16 into one
// word, so x is kept in that order too. Sums of a group are exact integers; then
//     sum += (products - zero * sum of digits) * scale of W * xs * 128^digit         in f32.
// x loses at most 2^-21 (2^-14) of the largest of its 128 neighbours. NaN and inf make all 128
// columns NaN.
//
// How warps and blocks share columns, turns and chunks: as in linear_rows.cu.
//
// Macros: those of linear_dequant.cuh (EW_CODE 1, 2, 4, 5; EW_GROUP 0, 32, 64 or a multiple of
// 128), EW_DIGITS, EW_ROWS (1, 2, 4, 8, 16), EW_WARPS, EW_WARPS_K, EW_CLUSTER, EW_DEPTH,
// EW_MIN_BLOCKS, EW_NORM, EW_GLU. args.tiles_m: steps of a chunk; args.tiles_n: panels.
#include "linear_dequant.cuh"

#define STEP_COLS 128
#define WORDS     (STEP_COLS / EW_BLOCK_COLS) // blocks of a step, 16 bytes a lane each
#define THREADS   (EW_WARPS * 32)
#define PANELS    (EW_WARPS / EW_WARPS_K) // of a block at a time
#define FRAGS     ((EW_ROWS * EW_DIGITS + 7) / 8)
#define COLS      (FRAGS * 8)                          // of B: digit d of row m is EW_DIGITS m + d
#define PITCH     20                                   // floats of a column in sums
#define SUM_COLS  (EW_DIGITS == 2 ? EW_ROWS : COLS)    // two digits of a row are in one lane
#define LARGEST   (EW_DIGITS == 3 ? 0x1p20f : 0x1p13f) // of the integers
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define ROW_WARPS MIN(EW_WARPS / EW_ROWS, 8) // that take a row of x apart
#define SLOTS     (8 / ROW_WARPS) // sums of squares a lane has: 8 a row, so that m does not matter
// Pieces of x read before the first is used; few where three blocks share the registers (more
// spilled: slower).
#define BATCH (EW_MIN_BLOCKS == 3 ? MIN(SLOTS, 4) : EW_NORM ? 2 : 4)
#define TURN  (SLOTS > BATCH ? SLOTS : BATCH)
// Groups that share a step, and products of 32 columns of a group
#define PARTS       (EW_GROUPED && EW_GROUP < STEP_COLS ? STEP_COLS / EW_GROUP : 1)
#define PART_TILES  (4 / PARTS)
#define ONE_GROUP   (PARTS == 1)
#define FIXED_BYTES ((sizeof(struct fixed) + 127) / 128 * 128)

extern __shared__ __align__(128) char dynamic[];

struct fixed {
    float sums[2][EW_WARPS][SUM_COLS][PITCH]; // two turns
    float joined[EW_CLUSTER > 1 ? 2 : 1][PANELS][EW_ROWS][PITCH];
    float squares[EW_ROWS][8];
    uint4 zero;
};

// What a lane reads in a step.
struct step {
    uint4 w[WORDS];
    struct ew_groups o[ONE_GROUP ? 1 : WORDS];
};

// Integer sums start at the bits of 1.5 * 2^23: as floats they are that number plus the sum,
// exactly, without a conversion.
#define MAGIC_BITS 0x4b400000
#define MAGIC      12582912.0f

// Of a column of B in a part of a step: what a digit is worth, and the sum of the digits; where all
// codes have the same zero point, MAGIC plus the zero point times that.
struct meta {
    float worth, sum;
};
#define FIXED_ZERO (EW_CODE == 1 ? 8 : 0)

EW_DEV uint32_t x_pitch(const ew_args &a)
{
    return a.tiles_m * STEP_COLS + 64; // bytes: rows of 64 bytes from two columns share no banks
}

EW_DEV char *x_column(const ew_args &a, uint32_t c)
{
    return dynamic + FIXED_BYTES + c * x_pitch(a);
}

EW_DEV struct meta *meta_at(const ew_args &a, uint32_t step)
{
    return (struct meta *)(dynamic + FIXED_BYTES + (EW_DIGITS * a.m * x_pitch(a) + 15) / 16 * 16) +
           step * PARTS * COLS;
}

EW_DEV float4 load_x4(const float *x, uint32_t col, uint32_t k, bool vec)
{
    if (vec && col + 4 <= k)
        return *(const float4 *)(x + col);
    return make_float4(col < k ? x[col] : 0.0f, col + 1 < k ? x[col + 1] : 0.0f,
                       col + 2 < k ? x[col + 2] : 0.0f, col + 3 < k ? x[col + 3] : 0.0f);
}

// One word of a digit of this lane's four columns: see the order above. Lanes that are 2 apart
// exchange halves.
EW_DEV uint32_t digit_word(const int d[4], bool high)
{
    const uint32_t first = (d[0] & 0xff) | (d[1] & 0xff) << 16;
    const uint32_t second = (d[2] & 0xff) | (d[3] & 0xff) << 16;
    const uint32_t other = __shfl_xor_sync(~0u, high ? first : second, 2);

    return high ? other | second << 8 : first | other << 8;
}

// Takes 128 columns of row m apart; all lanes, each with columns 4 lane..4 lane + 3.
EW_DEV void put_digits(const ew_args &a, uint32_t m, uint32_t step, const float4 v, uint32_t lane)
{
    const float x[4] = { v.x, v.y, v.z, v.w };
    uint32_t most = 0;
    int q[4], d[4], sum;

#pragma unroll
    for (int i = 0; i < 4; i++)
        most = max(most, __float_as_uint(x[i]) & 0x7fffffffu);
    most = __reduce_max_sync(~0u, most);
    const bool finite = most < 0x7f800000u;
    // tiny numbers are nothing beside what they are added to; their scale would not be a number
    const float top = __uint_as_float(most), inverse = top >= 0x1p-100f ? LARGEST / top : 0.0f;
    float worth =
        finite ? (top >= 0x1p-100f ? top * (1.0f / LARGEST) : 0.0f) : __uint_as_float(0x7fc00000u);
    const bool high = lane & 2;
    const uint32_t t = (lane & 1) * 2 + (high ? 1 : 0);
    const uint32_t at = step * STEP_COLS + lane / 16 * 64 + t * 16 + lane / 4 % 4 * 4;

#pragma unroll
    for (int i = 0; i < 4; i++)
        q[i] = finite ? __float2int_rn(x[i] * inverse) : 0;
#pragma unroll
    for (int digit = 0; digit < EW_DIGITS; digit++) {
        sum = 0;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            d[i] = digit == EW_DIGITS - 1 ? q[i] : ((q[i] + 64) & 127) - 64;
            q[i] = (q[i] - d[i]) >> 7;
            sum += d[i];
        }
        *(uint32_t *)(x_column(a, EW_DIGITS * m + digit) + at) = digit_word(d, high);
#pragma unroll
        for (int o = 1; o < 32 / PARTS; o *= 2)
            sum += __shfl_xor_sync(~0u, sum, o);
        if (lane % (32 / PARTS) == 0) {
            struct meta *to = meta_at(a, step) + lane / (32 / PARTS) * COLS + EW_DIGITS * m + digit;
            to->worth = worth;
            to->sum = EW_ZERO ? (float)sum : MAGIC + (float)(FIXED_ZERO * sum);
        }
        worth *= 128.0f;
    }
}

// Columns of steps [begin, begin + n) of x. Step s of a row goes to the row's warp s % ROW_WARPS,
// and its squares to the sum s % 8.
EW_DEV void stage(const ew_args &a, uint32_t begin, uint32_t n, float squares[SLOTS])
{
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const bool vec = ((a.x | (a.x_stride * 4)) & 15) == 0;
    const uint32_t m = warp / ROW_WARPS, first = warp % ROW_WARPS;
    const float *x = (const float *)a.x + m * a.x_stride;

    for (uint32_t i = threadIdx.x; i < n * PARTS * (COLS - EW_DIGITS * a.m); i += THREADS) {
        struct meta *to = meta_at(a, 0) + i / (COLS - EW_DIGITS * a.m) * COLS + EW_DIGITS * a.m +
                          i % (COLS - EW_DIGITS * a.m);
        to->worth = to->sum = 0.0f;
    }
    if (m >= a.m || m >= EW_ROWS)
        return;
    // the i-th step of this warp; BATCH of them are read before the first is used
    for (uint32_t i = 0; i / SLOTS * 8 < n; i += TURN) {
#pragma unroll
        for (int h = 0; h < TURN; h += BATCH) {
            float4 v[BATCH], norm[EW_NORM ? BATCH : 1];
#pragma unroll
            for (int u = 0; u < BATCH; u++) {
                const uint32_t s =
                    (i / SLOTS + (h + u) / SLOTS) * 8 + (h + u) % SLOTS * ROW_WARPS + first;
                const uint32_t c = (begin + s) * STEP_COLS + lane * 4;

                v[u] = s < n ? load_x4(x, c, a.k, vec) : make_float4(0, 0, 0, 0);
                if (EW_NORM)
                    norm[EW_NORM ? u : 0] =
                        s < n ? load_x4((const float *)a.norm_weight, c, a.k, true)
                              : make_float4(0, 0, 0, 0);
            }
#pragma unroll
            for (int u = 0; u < BATCH; u++) {
                const uint32_t s =
                    (i / SLOTS + (h + u) / SLOTS) * 8 + (h + u) % SLOTS * ROW_WARPS + first;

                if (s >= n)
                    break;
#if EW_NORM
                float &r = squares[(h + u) % SLOTS];
                r = fmaf(v[u].x, v[u].x, r), r = fmaf(v[u].y, v[u].y, r);
                r = fmaf(v[u].z, v[u].z, r), r = fmaf(v[u].w, v[u].w, r);
                v[u].x *= norm[u].x, v[u].y *= norm[u].y, v[u].z *= norm[u].z, v[u].w *= norm[u].w;
#endif
                put_digits(a, m, s, v[u], lane);
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
EW_DEV void load_step(struct step &to, const ew_args &a, const char *panel, uint32_t s,
                      uint32_t lane)
{
    const uint32_t last = a.k_blocks - 1;

#pragma unroll
    for (int i = 0; i < WORDS; i++) {
        const uint32_t b = MIN(s * WORDS + i, last);
        to.w[i] = ew_load_stream(panel + (size_t)(b * 512 + lane * 16));
        if (i == 0 || !ONE_GROUP)
            ew_load_groups(to.o[ONE_GROUP ? 0 : i], a, panel, b, lane / 4);
    }
}

// A of 32 columns: codes of rows g and g + 8 in bytes.
EW_DEV void spread(uint32_t f[4], const uint4 w[WORDS], int tile)
{
#if EW_WIDE
    const uint4 v = w[tile];

    f[0] = __byte_perm(v.x, v.y, 0x6240), f[1] = __byte_perm(v.x, v.y, 0x7351);
    f[2] = __byte_perm(v.z, v.w, 0x6240), f[3] = __byte_perm(v.z, v.w, 0x7351);
#else
    const uint4 v = w[tile / 2];
    const uint32_t lo = tile % 2 ? v.z : v.x, hi = tile % 2 ? v.w : v.y;

    f[0] = lo & 0x0f0f0f0fu, f[1] = lo >> 4 & 0x0f0f0f0fu;
    f[2] = hi & 0x0f0f0f0fu, f[3] = hi >> 4 & 0x0f0f0f0fu;
#endif
}

EW_DEV void product(int c[4], const uint32_t f[4], uint32_t b0, uint32_t b1)
{
#if EW_CODE == 4
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
                 "{%8,%9}, {%0,%1,%2,%3};"
#else
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
                 "{%8,%9}, {%0,%1,%2,%3};"
#endif
                 : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
                 : "r"(f[0]), "r"(f[1]), "r"(f[2]), "r"(f[3]), "r"(b0), "r"(b1));
}

struct sums {
    float acc[FRAGS][4];
};

// Zero point of row g (h = 0) or g + 8 in group `sub` of its block.
EW_DEV float zero_of(const struct ew_groups &o, int sub, int h)
{
#if !EW_ZERO
    return 0.0f;
#elif EW_WIDE
    const int i = sub * 2 + h;
    return (float)(short)(o.zeros[i / 2] >> (i % 2 * 16));
#else
    const int i = sub * 2 + h;
    return (float)(o.zeros[i / 4] >> (i % 4 * 8) & 0xffu);
#endif
}

// Products less zero point times sum of digits: an integer below 2^24.
EW_DEV float whole(int c, float zero, float sum)
{
    return EW_ZERO ? fmaf(-zero, sum, __int_as_float(c) - MAGIC) : __int_as_float(c) - sum;
}

EW_DEV void add_part(float acc[4], const int c[4], const struct ew_groups &o, int sub,
                     const float4 w)
{
    const float z0 = zero_of(o, sub, 0), z1 = zero_of(o, sub, 1);
    const float s0 = EW_SCALE ? ew_scale(o, sub, 0) : 1.0f,
                s1 = EW_SCALE ? ew_scale(o, sub, 1) : 1.0f;

    // w: worth and sum of the lane's first column, and of its second
    acc[0] = fmaf(whole(c[0], z0, w.y), s0 * w.x, acc[0]);
    acc[1] = fmaf(whole(c[1], z0, w.w), s0 * w.z, acc[1]);
    acc[2] = fmaf(whole(c[2], z1, w.y), s1 * w.x, acc[2]);
    acc[3] = fmaf(whole(c[3], z1, w.w), s1 * w.z, acc[3]);
}

// x: this lane's 16 bytes of the step, one a fragment; x_step: to the next 64 columns, 0 where
// there is no column.
EW_DEV void multiply(struct sums &s, const struct step &w, const uint32_t x[FRAGS],
                     const uint32_t x_step[FRAGS], const struct meta *meta, uint32_t t)
{
    int c[FRAGS][4];
    uint4 b[FRAGS];

#pragma unroll
    for (int tile = 0; tile < 4; tile++) {
        const int part = tile / PART_TILES, col = part * (STEP_COLS / PARTS);
        uint32_t f[4];

        if (tile % 2 == 0)
#pragma unroll
            for (int i = 0; i < FRAGS; i++)
                asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];"
                             : "=r"(b[i].x), "=r"(b[i].y), "=r"(b[i].z), "=r"(b[i].w)
                             : "r"(x[i] + tile / 2 * x_step[i]));
        if (tile % PART_TILES == 0)
#pragma unroll
            for (int i = 0; i < FRAGS; i++)
                c[i][0] = c[i][1] = c[i][2] = c[i][3] = MAGIC_BITS;
        spread(f, w.w, tile);
#pragma unroll
        for (int i = 0; i < FRAGS; i++)
            product(c[i], f, tile % 2 ? b[i].z : b[i].x, tile % 2 ? b[i].w : b[i].y);
        if ((tile + 1) % PART_TILES == 0)
#pragma unroll
            for (int i = 0; i < FRAGS; i++)
                add_part(s.acc[i], c[i], w.o[ONE_GROUP ? 0 : col / EW_BLOCK_COLS],
                         ONE_GROUP ? 0 : col % EW_BLOCK_COLS / (STEP_COLS / PARTS) % EW_SUB,
                         *(const float4 *)(meta + part * COLS + i * 8 + t * 2));
    }
}

EW_DEV void put_sums(float to[SUM_COLS][PITCH], const struct sums &s, uint32_t lane)
{
    const uint32_t g = lane / 4, t = lane % 4;

#pragma unroll
    for (int i = 0; i < FRAGS; i++) {
#if EW_DIGITS == 2
        to[i * 4 + t][g] = s.acc[i][0] + s.acc[i][1];
        to[i * 4 + t][g + 8] = s.acc[i][2] + s.acc[i][3];
#else
#    pragma unroll
        for (int j = 0; j < 4; j++)
            to[i * 8 + t * 2 + j % 2][g + j / 2 * 8] = s.acc[i][j];
#endif
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

// Of a warp: the digits of row m of x, the least first.
EW_DEV float row_sum(struct fixed &f, uint32_t turn, uint32_t warp, uint32_t m, uint32_t row)
{
#if EW_DIGITS == 2
    return f.sums[turn][warp][m][row];
#else
    const float(*c)[PITCH] = &f.sums[turn][warp][3 * m];

    return c[0][row] + c[1][row] + c[2][row];
#endif
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
        sum += row_sum(f, turn, p * EW_WARPS_K + w, m, row);
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
            sum += row_sum(f, turn, p * EW_WARPS_K + w, m, row);
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
        const float *scales =
            (const float *)((const char *)a.w + (panel0 + p) * a.row_bytes + a.row_scales_at);
        s0 *= scales[row];
        if (EW_GLU)
            s1 *= scales[row + 8];
        const float z = gather(f, turn, p, row, m) * s0;
        if (EW_GLU)
            ew_store_glu(a, z, gather(f, turn, p, row + 8, m) * s1, m, n);
        else
            ew_store_plain(a, z, m, n);
    }
}

EW_DEV const char *panel_at(const ew_args &a, uint32_t panel)
{
    return (const char *)a.w + (size_t)MIN(panel, a.tiles_n - 1) * a.row_bytes;
}

extern "C" __global__ void __launch_bounds__(THREADS, EW_MIN_BLOCKS)
    ew_linear_digits(const struct ew_cuda_linear_args a)
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
    const char *from = panel_at(a, ahead_panel);
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
            from = panel_at(a, ahead_panel);                                                       \
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

    // this lane's column of B, and its piece of it; columns that there are not are zeros
    uint32_t x0[FRAGS], x[FRAGS], x_step[FRAGS];
#pragma unroll
    for (int i = 0; i < FRAGS; i++) {
        const uint32_t c = i * 8 + g, at = lane % 4 * 16 + warp % EW_WARPS_K * STEP_COLS;

        x0[i] = x[i] = c < EW_DIGITS * a.m ? ew_shared(x_column(a, c)) + at : ew_shared(&f.zero);
        x_step[i] = c < EW_DIGITS * a.m ? 64 : 0;
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
                multiply(s, w[d], x, x_step, meta_at(a, in_chunk * EW_WARPS_K + warp % EW_WARPS_K),
                         lane % 4);
#pragma unroll
            for (int i = 0; i < FRAGS; i++)
                x[i] += x_step[i] * (EW_WARPS_K * STEP_COLS / 64);
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

// kernels/cuda/linear_rows.cu - y = x W^T for up to 16 rows of x on tensor cores, in one launch: a
// panel of 16 rows of W is the A operand (quantised weights are dequantised in registers), x is B.
// Contract in linear.h; how the work is shared out in linear_few.cuh.
//
// EW_LO says what the columns of B are. 4: rows of x rounded to bf16 in columns 0-3, what that lost
// in 4-7; 8: the same with eight rows and two operands; 0: sixteen rows, rounded, two operands.
// With EW_LO > 0 the kernel is exact to 2^-17 of x, and a row has the same bits with 4 and with 8.
//
// Macros: EW_CODE 0: plain bf16, else those of linear_dequant.cuh; EW_LO; those of linear_few.cuh.
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

#define FRAGS        (EW_LO == 4 ? 1 : 2)
#define PARTS        (EW_LO ? 2 : 1)
#define SUM_COLS     EW_ROWS
#define OPERAND_COLS 32

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

#include "linear_few.cuh"

EW_DEV uint32_t x_pitch(const ew_args &a)
{
    // bytes; ldmatrix wants an odd multiple of 16 modulo 128, plain loads of two rows want 64
    return a.tiles_m * STEP_COLS * 2 + (EW_CODE ? 16 : 64);
}

EW_DEV char *x_row(const ew_args &a, uint32_t part, uint32_t m)
{
    return dynamic + FIXED_BYTES + (part * a.m + m) * x_pitch(a);
}

EW_DEV void put_x(const ew_args &a, uint32_t m, uint32_t c, const float4 v, uint32_t lane)
{
    const uint2 hi = make_uint2(ew_bf16x2(v.x, v.y), ew_bf16x2(v.z, v.w));

    *(uint2 *)(x_row(a, 0, m) + c * 2) = hi;
    if (PARTS == 2)
        *(uint2 *)(x_row(a, 1, m) + c * 2) =
            make_uint2(ew_bf16x2(v.x - ew_bf16_lo(hi.x), v.y - ew_bf16_hi(hi.x)),
                       ew_bf16x2(v.z - ew_bf16_lo(hi.y), v.w - ew_bf16_hi(hi.y)));
}

EW_DEV void clear_x(const ew_args &a, uint32_t steps)
{
}

// Rows of x that there are not are zeros.
EW_DEV struct operand operand(const ew_args &a, const struct fixed &f, int frag, uint32_t lane)
{
    const uint32_t column = EW_CODE ? lane % 8 : lane / 4, piece = EW_CODE ? lane / 8 : lane % 4;
    const uint32_t part = EW_LO == 4 ? column / 4 : EW_LO == 8 ? frag : 0;
    const uint32_t m = EW_LO == 4 ? column % 4 : EW_LO == 8 ? column : column + frag * 8;
    struct operand x;

    x.at = m < a.m ? ew_shared(x_row(a, part, m)) + piece * 16 : ew_shared(&f.zero);
    x.step = m < a.m ? 64 : 0;
    return x;
}

// The lane's bytes of step `s` of a panel.
EW_DEV void load_step(struct step &to, const ew_args &a, const struct source &from, uint32_t s,
                      uint32_t lane)
{
    const char *panel = from.panel;
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
    to.w[1] = at < end ? ew_load_stream(from.row8 + at) : none;
    to.w[2] = at + 64 < end ? ew_load_stream(panel + at + 64) : none;
    to.w[3] = at + 64 < end ? ew_load_stream(from.row8 + at + 64) : none;
#endif
}

#if EW_CODE
EW_DEV void multiply(struct sums &s, const struct step &w, const struct operand x[FRAGS],
                     const ew_args &a, uint32_t step, uint32_t lane)
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
                ew_ldmatrix4(b[i], x[i].at + j / 2 * x[i].step);
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
EW_DEV void multiply(struct sums &s, const struct step &w, const struct operand x[FRAGS],
                     const ew_args &a, uint32_t step, uint32_t lane)
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
                         : "r"(x[i].at + h * x[i].step));
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

EW_DEV float row_sum(const float of[SUM_COLS][PITCH], uint32_t m, uint32_t row)
{
    return of[m][row];
}

extern "C" __global__ void __launch_bounds__(THREADS, EW_MIN_BLOCKS)
    ew_linear_rows(const struct ew_cuda_linear_args a)
{
    ew_few(a);
}

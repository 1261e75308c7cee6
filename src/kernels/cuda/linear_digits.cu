// kernels/cuda/linear_digits.cu - y = x W^T for up to 16 rows of x and integer codes, on the
// integer tensor cores: no code is ever turned into a float. Contract in linear.h; how the
// work is shared out in linear_few.cuh.
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
// Macros: those of linear_dequant.cuh (EW_CODE 1, 2, 4, 5; EW_GROUP 0, 32, 64 or a multiple of
// 128), EW_DIGITS, those of linear_few.cuh.
#include "linear_dequant.cuh"

#define STEP_COLS    128
#define WORDS        (STEP_COLS / EW_BLOCK_COLS) // blocks of a step, 16 bytes a lane each
#define FRAGS        ((EW_ROWS * EW_DIGITS + 7) / 8)
#define COLS         (FRAGS * 8)                       // of B: digit d of row m is EW_DIGITS m + d
#define SUM_COLS     (EW_DIGITS == 2 ? EW_ROWS : COLS) // two digits of a row are in one lane
#define OPERAND_COLS 64
#define LARGEST      (EW_DIGITS == 3 ? 0x1p20f : 0x1p13f) // of the integers
// Groups that share a step, and products of 32 columns of a group
#define PARTS      (EW_GROUPED && EW_GROUP < STEP_COLS ? STEP_COLS / EW_GROUP : 1)
#define PART_TILES (4 / PARTS)
#define ONE_GROUP  (PARTS == 1)

// What a lane reads in a step.
struct step {
    uint4 w[WORDS];
    struct ew_groups o[ONE_GROUP ? 1 : WORDS];
};

#include "linear_few.cuh"

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
EW_DEV void put_x(const ew_args &a, uint32_t m, uint32_t col, const float4 v, uint32_t lane)
{
    const uint32_t step = col / STEP_COLS;
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

// Columns of B that no digit is in.
EW_DEV void clear_x(const ew_args &a, uint32_t steps)
{
    const uint32_t none = COLS - EW_DIGITS * a.m;

    for (uint32_t i = threadIdx.x; i < steps * PARTS * none; i += THREADS) {
        struct meta *to = meta_at(a, 0) + i / none * COLS + EW_DIGITS * a.m + i % none;
        to->worth = to->sum = 0.0f;
    }
}

// Columns that there are not are zeros.
EW_DEV struct operand operand(const ew_args &a, const struct fixed &f, int frag, uint32_t lane)
{
    const uint32_t c = frag * 8 + lane / 4;
    struct operand x;

    x.at = c < EW_DIGITS * a.m ? ew_shared(x_column(a, c)) + lane % 4 * 16 : ew_shared(&f.zero);
    x.step = c < EW_DIGITS * a.m ? 64 : 0;
    return x;
}

// The lane's bytes of step `s` of a panel.
EW_DEV void load_step(struct step &to, const ew_args &a, const struct source &from, uint32_t s,
                      uint32_t lane)
{
    const uint32_t last = a.k_blocks - 1;

#pragma unroll
    for (int i = 0; i < WORDS; i++) {
        const uint32_t b = MIN(s * WORDS + i, last);
        to.w[i] = ew_load_stream(from.panel + (size_t)(b * 512 + lane * 16));
        if (i == 0 || !ONE_GROUP)
            ew_load_groups(to.o[ONE_GROUP ? 0 : i], a, from.panel, b, lane / 4);
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

EW_DEV void multiply(struct sums &s, const struct step &w, const struct operand x[FRAGS],
                     const ew_args &a, uint32_t step, uint32_t lane)
{
    const struct meta *meta = meta_at(a, step);
    const uint32_t t = lane % 4;
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
                             : "r"(x[i].at + tile / 2 * x[i].step));
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

EW_DEV void put_sums(float to[SUM_COLS][PITCH], struct sums &s, uint32_t lane)
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

// The digits of row m of x, the least first.
EW_DEV float row_sum(const float of[SUM_COLS][PITCH], uint32_t m, uint32_t row)
{
#if EW_DIGITS == 2
    return of[m][row];
#else
    return of[3 * m][row] + of[3 * m + 1][row] + of[3 * m + 2][row];
#endif
}

extern "C" __global__ void __launch_bounds__(THREADS, EW_MIN_BLOCKS)
    ew_linear_digits(const struct ew_cuda_linear_args a)
{
    ew_few(a);
}

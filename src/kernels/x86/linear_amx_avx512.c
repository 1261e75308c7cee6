/* kernels/x86/linear_amx_avx512.c - bf16 weights on the matrix tiles (AMX), which multiply bf16 by
 * bf16 into f32. Two kernels:
 *   bf16     a row of x is split into two bf16 numbers, x = hi + lo (17 significant bits, the error
 *            of a product at most 2^-17): C += hi B, then C += lo B, 32 columns at a time
 *   bf16x16  x is rounded to bf16 (EW_XQ_BF16): half of the work
 * 32 rows of x stay in L1 while some panels pass by, which come from L2.
 * k ascends, and every count of rows runs the same chain, so results do not depend on the batch.
 *
 * Packed, and x as one number: linear_bf16_pairs.inc. Prepared x of two: per row and 32 columns hi
 * [32], then lo [32]; rows are an odd number of cache lines apart too. */
#include "kernels/x86/vec_avx512.h"

#include "cpu/cpu.h"
#include "kernels/x86/amx_tile.h"
#include "kernels/simd/vmath.inc"
#include "kernels/x86/linear_bf16_pairs.inc"

#define AHEAD 4096 /* bytes of weights fetched ahead */
#define ROWS_A_BLOCK                                                                               \
    256 /* rows of prepared x that meet a group of panels before the next block starts */

/* ---- x as two bf16 numbers ---- */

static size_t prepared_row_bytes(const struct ew_quant_format *f, size_t k)
{
    (void)f;
    return up_k(k) * 4 + 64;
}

/* What nearest even would carry to infinity is cut off instead; lo of infinities and NaN is 0. */
static void split(__m512 x, __m256i *hi, __m256i *lo)
{
    const __m512i u = _mm512_castps_si512(x), exp = _mm512_set1_epi32(0x7f800000);
    const __mmask16 special = _mm512_cmpeq_epi32_mask(_mm512_and_si512(u, exp), exp);
    __m512i h = to_bf16(x);
    const __mmask16 over =
        _mm512_cmpeq_epi32_mask(_mm512_and_si512(_mm512_slli_epi32(h, 16), exp), exp);

    h = _mm512_mask_srli_epi32(h, (__mmask16)(over & ~special), u, 16);
    const __m512 rest = _mm512_sub_ps(x, _mm512_castsi512_ps(_mm512_slli_epi32(h, 16)));
    *hi = _mm512_cvtepi32_epi16(h);
    *lo = _mm512_cvtepi32_epi16(_mm512_maskz_mov_epi32((__mmask16)~special, to_bf16(rest)));
}

static void prepare(const struct ew_linear_args *a, size_t begin, size_t end, void *prepared)
{
    const size_t row_bytes = prepared_row_bytes(NULL, a->k), wide = up_k(a->k);

    for (size_t m = begin; m < end; m++) {
        uint8_t *at = (uint8_t *)prepared + m * row_bytes;
        const float *x = a->x + m * a->x_stride;

        for (size_t k = 0; k < wide; k += 16) {
            const size_t left = a->k > k ? a->k - k : 0;
            const __mmask16 mask = (__mmask16)(left >= 16 ? 0xffffu : (1u << left) - 1u);
            uint8_t *to = at + k / KB * 4 * KB + k % KB * 2;
            __m256i hi, lo;

            split(_mm512_maskz_loadu_ps(mask, x + (left ? k : 0)), &hi, &lo);
            _mm256_storeu_si256((__m256i *)(void *)to, hi);
            _mm256_storeu_si256((__m256i *)(void *)(to + 2 * KB), lo);
        }
    }
}

/* ---- tiles ---- */

/* Tiles 0-3: C of two row tiles by two panels' halves; 4, 5: x; 6, 7: weights. */
static void configure(size_t rows0, size_t rows1)
{
    struct amx_config c = { .palette = 1 };

    for (int t = 0; t < 8; t++) {
        c.colsb[t] = 64;
        c.rows[t] = TILE_ROWS;
    }
    c.rows[0] = c.rows[1] = c.rows[4] = (uint8_t)rows0;
    c.rows[2] = c.rows[3] = c.rows[5] = (uint8_t)(rows1 ? rows1 : 1);
    amx_configure(&c);
}

/* Sums of up to 32 rows and one panel into z [32][z_stride]. x: prepared rows, `parts` numbers for
 * every element: a constant where this is inlined, as is two, more than 16 rows. */
ALWAYS void tile(int parts, bool two, const uint8_t *x, size_t row_bytes, const uint8_t *w,
                 size_t k, float *z, size_t z_stride)
{
    const uint8_t *x1 = x + TILE_ROWS * row_bytes;

    AMX_ZERO(0);
    AMX_ZERO(1);
    AMX_ZERO(2);
    AMX_ZERO(3);
    for (size_t i = 0; i < up_k(k); i += KB, w += 2 * TILE_BYTES) {
        for (size_t line = 0; !two && line < 2 * TILE_BYTES; line += 64)
            _mm_prefetch((const char *)w + AHEAD + line, _MM_HINT_T0);
        AMX_LOAD_ONCE(6, w, (size_t)64);
        AMX_LOAD_ONCE(7, w + TILE_BYTES, (size_t)64);
        for (int part = 0; part < parts; part++, x += 64, x1 += 64) {
            AMX_LOAD(4, x, row_bytes);
            AMX_MUL_BF16(0, 4, 6);
            AMX_MUL_BF16(1, 4, 7);
            if (!two)
                continue;
            AMX_LOAD(5, x1, row_bytes);
            AMX_MUL_BF16(2, 5, 6);
            AMX_MUL_BF16(3, 5, 7);
        }
    }
    AMX_STORE(0, z, z_stride * 4);
    AMX_STORE(1, z + 16, z_stride * 4);
    if (two) {
        AMX_STORE(2, z + TILE_ROWS * z_stride, z_stride * 4);
        AMX_STORE(3, z + TILE_ROWS * z_stride + 16, z_stride * 4);
    }
}

/* Rows [m0, m0 + rows), rows <= 32, and units [u0, u1). */
ALWAYS void run_rows(int parts, const struct ew_linear_args *a, size_t m0, size_t rows, size_t u0,
                     size_t u1)
{
    const size_t per_unit = a->glu ? 2 : 1, bytes = panel_bytes(a->k);
    const size_t row_bytes =
        parts == 2 ? prepared_row_bytes(NULL, a->k) : bf16_row_bytes(NULL, a->k);
    const uint8_t *x = (const uint8_t *)a->prepared + m0 * row_bytes;
    _Alignas(64) float z[2 * TILE_ROWS * 2 * P];

    for (size_t u = u0; u < u1; u++) {
        for (size_t p = 0; p < per_unit; p++) {
            const uint8_t *w = (const uint8_t *)a->w + (u * per_unit + p) * bytes;

            if (rows > TILE_ROWS)
                tile(parts, true, x, row_bytes, w, a->k, z + p * P, 2 * P);
            else
                tile(parts, false, x, row_bytes, w, a->k, z + p * P, 2 * P);
        }
        finish_rows(a, z, 2 * P, m0, rows, u);
    }
}

ALWAYS void run_parts(int parts, const struct ew_linear_args *a, size_t begin, size_t end)
{
    const size_t units_a_group = a->m > 2 * TILE_ROWS ? (a->glu ? 2 : 4) : end - begin;

    for (size_t block = 0; block < a->m; block += ROWS_A_BLOCK) {
        const size_t block_end = a->m - block < ROWS_A_BLOCK ? a->m : block + ROWS_A_BLOCK;

        for (size_t u = begin; u < end; u += units_a_group) {
            const size_t u1 = end - u < units_a_group ? end : u + units_a_group;

            for (size_t m = block; m < block_end; m += 2 * TILE_ROWS) {
                const size_t rows = block_end - m < 2 * TILE_ROWS ? block_end - m : 2 * TILE_ROWS;

                if (m == block || rows < 2 * TILE_ROWS)
                    configure(rows < TILE_ROWS ? rows : TILE_ROWS,
                              rows > TILE_ROWS ? rows - TILE_ROWS : 0);
                run_rows(parts, a, m, rows, u, u1);
            }
        }
    }
    amx_release();
}

static void run(const struct ew_linear_args *a, size_t begin, size_t end, void *scratch)
{
    (void)scratch;
    run_parts(2, a, begin, end);
}

static void run_bf16(const struct ew_linear_args *a, size_t begin, size_t end, void *scratch)
{
    (void)scratch;
    run_parts(1, a, begin, end);
}

extern const struct ew_linear_kernel ew_linear_bf16__amx_p32;
const struct ew_linear_kernel ew_linear_bf16__amx_p32 = {
    .name = "linear_bf16__amx_p32",
    .cpu_need = EW_CPU_AVX2 | EW_CPU_AVX512 | EW_CPU_AMX,
    .weight_dtype = EW_DTYPE_BF16,
    .x_error = 0x1p-17f,
    .panel = 2 * VL,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .unpack_row = unpack_row,
    .prepared_row_bytes = prepared_row_bytes,
    .prepare = prepare,
    .n_units = n_units,
    .scratch_bytes = scratch_bytes,
    .run = run,
};

extern const struct ew_linear_kernel ew_linear_bf16x16__amx_p32;
const struct ew_linear_kernel ew_linear_bf16x16__amx_p32 = {
    .name = "linear_bf16x16__amx_p32",
    .cpu_need = EW_CPU_AVX2 | EW_CPU_AVX512 | EW_CPU_AMX,
    .weight_dtype = EW_DTYPE_BF16,
    .x_quant = EW_XQ_BF16,
    .panel = 2 * VL,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .unpack_row = unpack_row,
    .prepared_row_bytes = bf16_row_bytes,
    .prepare = bf16_prepare,
    .n_units = n_units,
    .scratch_bytes = scratch_bytes,
    .run = run_bf16,
};

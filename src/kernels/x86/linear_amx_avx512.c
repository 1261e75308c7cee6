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

#define AHEAD     4096              /* bytes of weights fetched ahead */
#define X_BYTES   ((size_t)7 << 18) /* rows of prepared x that stay in L2 while panels pass by */
#define ROWS_MOST ((size_t)256)     /* where all would be more: of a block */

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

#define ZS    (2 * P)     /* from one row of sums to the next: two panels side by side */
#define WEAVE ((size_t)2) /* rows that are finished at once */

/* Sums of one unit and up to 32 rows, [rows][ZS], on their way to y. */
struct sums {
    size_t m, rows, u; /* whose they are; rows 0: nobody's */
    float *z;
};

/* Rows [r0, r1) of these sums -> y. */
static void finish(const struct ew_linear_args *a, const struct sums *s, size_t r0, size_t r1)
{
    finish_rows(a, s->z + r0 * ZS, ZS, s->m + r0, r1 - r0, s->u);
}

/* Weights of the next group of panels on their way to L2: so many bytes at every tile of columns.
 */
struct fetch {
    const uint8_t *at;
    size_t step;
};

struct tile_args {
    const struct ew_linear_args *a;
    size_t row_bytes; /* of prepared x */
    const uint8_t *x; /* prepared rows */
    const uint8_t *w; /* panel */
    float *z;         /* [rows][ZS] */
    const struct sums *late;
    size_t done, end; /* rows of `late` that are finished meanwhile */
    struct fetch *fetch;
};

/* Sums of up to 32 rows and one panel, and between the tiles of columns some rows of `late`: a
 * tile's loads are so many operations that no processor sees past them to work that comes after.
 * `parts` numbers for every element of x: a constant where this is inlined, as is two, more than
 * 16 rows. */
ALWAYS void tile(int parts, bool two, struct tile_args t)
{
    const size_t row_bytes = t.row_bytes, steps = up_k(t.a->k) / KB, rows = t.end - t.done;
    const uint8_t *x1 = t.x + TILE_ROWS * row_bytes, *next = t.fetch->at;
    const size_t step = t.fetch->step;
    size_t due = 0; /* rows that should have been finished, in 1 / steps */

    AMX_ZERO(0);
    AMX_ZERO(1);
    AMX_ZERO(2);
    AMX_ZERO(3);
    for (size_t i = 0; i < steps; i++, t.w += 2 * TILE_BYTES) {
        for (size_t line = 0; !two && line < 2 * TILE_BYTES; line += 64)
            _mm_prefetch((const char *)t.w + AHEAD + line, _MM_HINT_T0);
        AMX_LOAD_ONCE(6, t.w, (size_t)64);
        AMX_LOAD_ONCE(7, t.w + TILE_BYTES, (size_t)64);
        for (int part = 0; part < parts; part++, t.x += 64, x1 += 64) {
            AMX_LOAD(4, t.x, row_bytes);
            AMX_MUL_BF16(0, 4, 6);
            AMX_MUL_BF16(1, 4, 7);
            if (!two)
                continue;
            AMX_LOAD(5, x1, row_bytes);
            AMX_MUL_BF16(2, 5, 6);
            AMX_MUL_BF16(3, 5, 7);
        }
        for (size_t line = 0; line < step; line += 64)
            _mm_prefetch((const char *)next + line, _MM_HINT_T1);
        next += step;
        due += rows;
        if (due >= WEAVE * steps && t.done + WEAVE <= t.end) {
            finish(t.a, t.late, t.done, t.done + WEAVE);
            t.done += WEAVE;
            due -= WEAVE * steps;
        }
    }
    AMX_STORE(0, t.z, ZS * sizeof(float));
    AMX_STORE(1, t.z + 16, ZS * sizeof(float));
    if (two) {
        AMX_STORE(2, t.z + TILE_ROWS * ZS, ZS * sizeof(float));
        AMX_STORE(3, t.z + TILE_ROWS * ZS + 16, ZS * sizeof(float));
    }
    if (t.done < t.end)
        finish(t.a, t.late, t.done, t.end);
    t.fetch->at = next;
}

/* Sums of rows [now->m, now->m + rows), at most 32, and units [us[0], us[1]); all but those of the
 * last unit reach y here, and those of `late` before. */
ALWAYS void run_rows(int parts, const struct ew_linear_args *a, const size_t us[2],
                     struct sums *late, struct sums *now, struct fetch *fetch)
{
    const size_t per_unit = a->glu ? 2 : 1, bytes = panel_bytes(a->k);
    const size_t row_bytes =
        parts == 2 ? prepared_row_bytes(NULL, a->k) : bf16_row_bytes(NULL, a->k);

    for (now->u = us[0]; now->u < us[1]; now->u++) {
        for (size_t p = 0; p < per_unit; p++) {
            const struct tile_args t = {
                .a = a,
                .row_bytes = row_bytes,
                .x = (const uint8_t *)a->prepared + now->m * row_bytes,
                .w = (const uint8_t *)a->w + (now->u * per_unit + p) * bytes,
                .z = now->z + p * P,
                .late = late,
                .done = late->rows * p / per_unit,
                .end = late->rows * (p + 1) / per_unit,
                .fetch = fetch,
            };

            if (now->rows > TILE_ROWS)
                tile(parts, true, t);
            else
                tile(parts, false, t);
        }
        const struct sums free = *late;
        *late = *now;
        now->z = free.z;
    }
}

/* Rows [ms[0], ms[1]) and units [us[0], us[1]). */
ALWAYS void run_block(int parts, const struct ew_linear_args *a, const size_t us[2],
                      const size_t ms[2])
{
    const size_t per_unit = a->glu ? 2 : 1, bytes = per_unit * panel_bytes(a->k);
    const size_t rows = ms[1] - ms[0], tiles = (rows + 2 * TILE_ROWS - 1) / (2 * TILE_ROWS);
    const size_t group = tiles > 1 ? 4 / per_unit : us[1] - us[0];
    _Alignas(64) float z[2][2 * TILE_ROWS * ZS];
    struct sums late = { .z = z[0] }, now = { .z = z[1] };

    for (size_t u = us[0]; u < us[1]; u += group) {
        const size_t some[2] = { u, us[1] - u < group ? us[1] : u + group };
        struct fetch fetch = { (const uint8_t *)a->w + some[1] * bytes,
                               tiles > 1 ? 2 * TILE_BYTES / tiles : 0 };

        for (now.m = ms[0]; now.m < ms[1]; now.m += 2 * TILE_ROWS) {
            now.rows = ms[1] - now.m < 2 * TILE_ROWS ? ms[1] - now.m : 2 * TILE_ROWS;
            if (now.m == ms[0] || now.rows < 2 * TILE_ROWS)
                configure(now.rows < TILE_ROWS ? now.rows : TILE_ROWS,
                          now.rows > TILE_ROWS ? now.rows - TILE_ROWS : 0);
            run_rows(parts, a, some, &late, &now, &fetch);
        }
    }
    finish(a, &late, 0, late.rows);
}

ALWAYS void run_parts(int parts, const struct ew_linear_args *a, size_t begin, size_t end)
{
    const size_t row_bytes =
        parts == 2 ? prepared_row_bytes(NULL, a->k) : bf16_row_bytes(NULL, a->k);
    const size_t most = a->m * row_bytes <= X_BYTES ? a->m : ROWS_MOST, us[2] = { begin, end };

    for (size_t m = 0; m < a->m; m += most) {
        const size_t ms[2] = { m, a->m - m < most ? a->m : m + most };

        run_block(parts, a, us, ms);
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

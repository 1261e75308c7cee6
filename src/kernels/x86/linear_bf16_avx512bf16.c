/* kernels/x86/linear_bf16_avx512bf16.c - bf16 weights times x rounded to bf16 (EW_XQ_BF16), two
 * columns an instruction. One chain an output, k ascending, for any number of rows. Packed weights
 * and prepared x: linear_bf16_pairs.inc. */
#include "kernels/x86/vec_avx512.h"

#if !defined(__AVX512BF16__)
#    error "compile with the flags of AVX512-BF16 (cmake/kernels.cmake)"
#endif

#include "cpu/cpu.h"
#include "kernels/simd/vmath.inc"
#include "kernels/x86/linear_bf16_pairs.inc"

/* Panels that a tile of r rows takes at once, and what a thread has on its way from memory. */
#define PANELS(r)      ((r) <= 2 ? 4 : (r) <= 6 ? 2 : 1)
#define PREFETCH_BYTES 8192
#define X_BLOCK_BYTES                                                                              \
    ((size_t)2 << 20) /* rows of x that meet a group of panels before the next block starts */

struct tile_args {
    const uint8_t *x; /* prepared rows */
    size_t x_stride;
    const uint8_t *w; /* first panel */
    size_t k;
    float *z; /* [rows][GROUP * P] */
};

/* Two columns of a row of x in every lane. */
ALWAYS __m512bh load_x(const uint8_t *x)
{
    int32_t two;

    memcpy(&two, x, 4);
    return (__m512bh)_mm512_set1_epi32(two);
}

/* rows x (np * P) sums. rows and np are constants where this is inlined. */
ALWAYS void tile(int rows, int np, const struct tile_args *t)
{
    const size_t bytes = panel_bytes(t->k), ahead = PREFETCH_BYTES / (size_t)np;
    __m512 acc[V_MR][2 * GROUP];

    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int p = 0; p < 2 * np; p++)
            acc[r][p] = _mm512_setzero_ps();
    }
    for (size_t at = 0; at < bytes; at += 2 * TILE_BYTES) {
        /* the last tiles of a panel fetch the first of the panel after this tile's */
        const size_t off = ahead + (at + ahead < bytes ? 0 : (size_t)(np - 1) * bytes);
        const uint8_t *w = t->w + at, *x = t->x + at / P;
        for (int pair = 0; pair < TILE_ROWS; pair++, w += 64, x += 4) {
            __m512bh b[2 * GROUP];
            UNROLL
            for (int p = 0; p < 2 * np; p++) {
                const uint8_t *from = w + (size_t)(p / 2) * bytes + (size_t)(p % 2) * TILE_BYTES;
                _mm_prefetch((const char *)from + off, _MM_HINT_T0);
                b[p] = (__m512bh)_mm512_loadu_si512(from);
            }
            UNROLL
            for (int r = 0; r < rows; r++) {
                const __m512bh two = load_x(x + (size_t)r * t->x_stride);
                UNROLL
                for (int p = 0; p < 2 * np; p++)
                    acc[r][p] = _mm512_dpbf16_ps(acc[r][p], two, b[p]);
            }
        }
    }
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int p = 0; p < 2 * np; p++)
            v_store(t->z + (size_t)r * GROUP * P + (size_t)p * VL, acc[r][p]);
    }
}

typedef void tile_fn(const struct tile_args *t);

#define TILE(r)                                                                                    \
    static void tile_##r(const struct tile_args *t)                                                \
    {                                                                                              \
        tile(r, PANELS(r), t);                                                                     \
    }                                                                                              \
    static void thin_##r(const struct tile_args *t)                                                \
    {                                                                                              \
        tile(r, 1, t);                                                                             \
    }
#define TILE_NAME(r) tile_##r,
#define THIN_NAME(r) thin_##r,
#define EACH_ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12)
EACH_ROWS(TILE)
static tile_fn *const tiles[V_MR] = { EACH_ROWS(TILE_NAME) };
static tile_fn *const thin_tiles[V_MR] = { EACH_ROWS(THIN_NAME) };

/* Sums of `rows` rows and n_panels panels (<= GROUP) into t->z. */
static void tile_panels(size_t rows, size_t n_panels, struct tile_args t)
{
    const size_t bytes = panel_bytes(t.k), step = PANELS(rows);
    size_t p = 0;

    for (; p + step <= n_panels; p += step, t.w += step * bytes, t.z += step * P)
        tiles[rows - 1](&t);
    for (; p < n_panels; p++, t.w += bytes, t.z += P)
        thin_tiles[rows - 1](&t);
}

/* Rows [rows[0], rows[1]): each group of panels meets all of them, tile by tile. */
static void run_block(const struct ew_linear_args *a, const size_t rows[2], const size_t units[2])
{
    const size_t per_unit = a->glu ? 2 : 1, x_stride = bf16_row_bytes(NULL, a->k);
    const size_t n_rows = rows[1] - rows[0], n_tiles = (n_rows + V_MR - 1) / V_MR;
    const size_t units_a_group = (n_tiles > 1 ? 2 : GROUP) / per_unit;
    float z[V_MR * GROUP * P];

    for (size_t u = units[0]; u < units[1]; u += units_a_group) {
        const size_t n = units[1] - u < units_a_group ? units[1] - u : units_a_group;
        for (size_t i = 0; i < n_tiles; i++) {
            const size_t m0 = rows[0] + n_rows * i / n_tiles;
            const size_t m1 = rows[0] + n_rows * (i + 1) / n_tiles;
            const struct tile_args t = { .x = (const uint8_t *)a->prepared + m0 * x_stride,
                                         .x_stride = x_stride,
                                         .w = (const uint8_t *)a->w +
                                              u * per_unit * panel_bytes(a->k),
                                         .k = a->k,
                                         .z = z };
            tile_panels(m1 - m0, n * per_unit, t);
            for (size_t j = 0; j < n; j++)
                finish_rows(a, z + j * per_unit * P, GROUP * P, m0, m1 - m0, u + j);
        }
    }
}

static void run(const struct ew_linear_args *a, size_t begin, size_t end, void *scratch)
{
    const size_t fit = X_BLOCK_BYTES / bf16_row_bytes(NULL, a->k) / V_MR * V_MR;
    const size_t rows_a_block = fit > 2 * V_MR ? fit : 2 * V_MR;
    const size_t units[2] = { begin, end };

    (void)scratch;
    for (size_t m = 0; m < a->m; m += rows_a_block) {
        const size_t rows[2] = { m, a->m - m < rows_a_block ? a->m : m + rows_a_block };
        run_block(a, rows, units);
    }
}

extern const struct ew_linear_kernel ew_linear_bf16x16__avx512bf16_p32;
const struct ew_linear_kernel ew_linear_bf16x16__avx512bf16_p32 = {
    .name = "linear_bf16x16__avx512bf16_p32",
    .cpu_need = EW_CPU_AVX2 | EW_CPU_AVX512 | EW_CPU_AVX512BF16,
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
    .run = run,
};

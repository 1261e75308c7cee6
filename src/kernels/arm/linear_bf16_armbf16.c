/* kernels/arm/linear_bf16_armbf16.c - bf16 weights times x rounded to bf16 (EW_XQ_BF16) by BFMMLA:
 * two rows of x, two outputs and four columns an instruction. One chain an output, k ascending, for
 * any number of rows: a row without a partner is its own.
 *
 * Packed: panels of 8 outputs, for each 4 columns [4 pairs of outputs][2][4]. A prepared row of x:
 * bf16 [k in whole 4], zeros behind k, in whole 16 bytes. */
#if !defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#    error "compile with the flags of bf16 (cmake/kernels.cmake)"
#endif
#include "kernels/arm/vec_neon.h"

#include "cpu/cpu.h"
#include "kernels/simd/vmath.inc"
#include "kernels/simd/linear_finish.inc"

#define KB      4
#define QUAD    (P * KB * 2) /* bytes of four columns of a panel */
#define PAIRS   (V_MR / 2)   /* of rows */
#define VECTORS 4            /* of a panel's outputs, two in each */
/* Panels that a tile of that many pairs of rows takes at once: chains enough, and no more sums than
 * registers. */
#define PANELS(pairs) ((pairs) == 1 ? GROUP : 2)

static size_t up_k(size_t k)
{
    return (k + KB - 1) / KB * KB;
}

static size_t panel_bytes(size_t k)
{
    return up_k(k) / KB * QUAD;
}

/* Where element (output j of the panel, column k) lies, in elements. */
static size_t place(size_t j, size_t k)
{
    return k / KB * (QUAD / 2) + j / 2 * 8 + j % 2 * 4 + k % KB;
}

#include "kernels/simd/linear_bf16_pack.inc"

/* ---- x ---- */

static size_t row_bytes(const struct ew_quant_format *f, size_t k)
{
    (void)f;
    return (up_k(k) * 2 + 15) / 16 * 16;
}

static void prepare(const struct ew_linear_args *a, size_t begin, size_t end, void *prepared)
{
    for (size_t m = begin; m < end; m++) {
        uint16_t *to = (uint16_t *)(void *)((uint8_t *)prepared + m * row_bytes(NULL, a->k));
        const float *x = a->x + m * a->x_stride;

        for (size_t k = 0; k < a->k; k++)
            to[k] = ew_f32_to_bf16(x[k]);
        for (size_t k = a->k; k < up_k(a->k); k++)
            to[k] = 0;
    }
}

/* ---- products ---- */

struct tile_args {
    const uint8_t *x[V_MR]; /* prepared rows; the last one again where they are odd in number */
    const uint8_t *w;       /* first panel */
    size_t k;
    float *z; /* [2 * pairs][GROUP * P] */
};

/* pairs and np are constants where this is inlined. */
ALWAYS void tile(int pairs, int np, const struct tile_args *t)
{
    const size_t bytes = panel_bytes(t->k);
    float32x4_t acc[PAIRS][GROUP * VECTORS];

    UNROLL
    for (int r = 0; r < pairs; r++) {
        UNROLL
        for (int i = 0; i < np * VECTORS; i++)
            acc[r][i] = v_zero();
    }
    for (size_t at = 0, col = 0; at < bytes; at += QUAD, col += (size_t)KB * 2) {
        bfloat16x8_t x[PAIRS];

        UNROLL
        for (int r = 0; r < pairs; r++)
            x[r] = vreinterpretq_bf16_u16(
                vcombine_u16(vld1_u16((const uint16_t *)(const void *)(t->x[2 * r] + col)),
                             vld1_u16((const uint16_t *)(const void *)(t->x[2 * r + 1] + col))));
        UNROLL
        for (int i = 0; i < np * VECTORS; i++) {
            const uint8_t *from = t->w + (size_t)(i / VECTORS) * bytes + at + i % VECTORS * 16;
            const bfloat16x8_t w =
                vreinterpretq_bf16_u16(vld1q_u16((const uint16_t *)(const void *)from));
            UNROLL
            for (int r = 0; r < pairs; r++)
                acc[r][i] = vbfmmlaq_f32(acc[r][i], x[r], w);
        }
    }
    UNROLL
    for (int r = 0; r < pairs; r++) {
        UNROLL
        for (int i = 0; i < np * VECTORS; i++) {
            float *z = t->z + (size_t)r * 2 * GROUP * P + (size_t)i * 2;
            vst1_f32(z, vget_low_f32(acc[r][i]));
            vst1_f32(z + GROUP * P, vget_high_f32(acc[r][i]));
        }
    }
}

typedef void tile_fn(const struct tile_args *t);

#define TILE(pairs)                                                                                \
    static void tile_##pairs(const struct tile_args *t)                                            \
    {                                                                                              \
        tile(pairs, PANELS(pairs), t);                                                             \
    }                                                                                              \
    static void thin_##pairs(const struct tile_args *t)                                            \
    {                                                                                              \
        tile(pairs, 1, t);                                                                         \
    }
TILE(1)
TILE(2)
TILE(3)
static tile_fn *const tiles[PAIRS] = { tile_1, tile_2, tile_3 };
static tile_fn *const thin_tiles[PAIRS] = { thin_1, thin_2, thin_3 };

/* Units [begin, end), group after group, each with all rows. */
static void run(const struct ew_linear_args *a, size_t begin, size_t end, void *scratch)
{
    const size_t per_unit = a->glu ? 2 : 1, bytes = panel_bytes(a->k), at_once = GROUP / per_unit;
    float z[V_MR * GROUP * P];

    (void)scratch;
    for (size_t u = begin; u < end; u += at_once) {
        const size_t n = end - u < at_once ? end - u : at_once, n_panels = n * per_unit;
        const uint8_t *w = (const uint8_t *)a->w + u * per_unit * bytes;

        for (size_t m = 0; m < a->m; m += V_MR) {
            const size_t rows = a->m - m < V_MR ? a->m - m : V_MR, pairs = (rows + 1) / 2;
            const size_t step = PANELS(pairs);
            struct tile_args t = { .k = a->k };
            size_t p = 0;

            for (size_t r = 0; r < 2 * pairs; r++)
                t.x[r] = (const uint8_t *)a->prepared +
                         (m + (r < rows ? r : rows - 1)) * row_bytes(NULL, a->k);
            while (p < n_panels) {
                const bool wide = p + step <= n_panels;

                t.w = w + p * bytes;
                t.z = z + p * P;
                (wide ? tiles : thin_tiles)[pairs - 1](&t);
                p += wide ? step : 1;
            }
            for (size_t j = 0; j < n; j++)
                finish_rows(a, z + j * per_unit * P, GROUP * P, m, rows, u + j);
        }
    }
}

extern const struct ew_linear_kernel ew_linear_bf16x16__armbf16_p8;
const struct ew_linear_kernel ew_linear_bf16x16__armbf16_p8 = {
    .name = "linear_bf16x16__armbf16_p8",
    .cpu_need = EW_CPU_NEON | EW_CPU_BF16,
    .weight_dtype = EW_DTYPE_BF16,
    .x_quant = EW_XQ_BF16,
    .panel = 2 * VL,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .unpack_row = unpack_row,
    .prepared_row_bytes = row_bytes,
    .prepare = prepare,
    .n_units = n_units,
    .scratch_bytes = scratch_bytes,
    .run = run,
};

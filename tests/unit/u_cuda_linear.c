/* Linear layouts of a GPU: what was packed is read back, in whole or in pieces; gate and up rows
 * share panels. Plans: what they ask for is possible on the chip, and the same for every m of a
 * class where bits depend on it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/half.h"
#include "kernels/cuda/linear.h"
#include "op/attrs.h"

#define N 40
#define K 200

static const struct ew_quant_format i4_g128 = { EW_DTYPE_I4, EW_DTYPE_F16, 128, 0 };
static const struct ew_quant_format u4_g32 = { EW_DTYPE_U4, EW_DTYPE_F16, 32, 1 };
static const struct ew_quant_format i8_rows = { EW_DTYPE_I8, EW_DTYPE_NONE, 0, 0 };

static void read_rows(const struct ew_quant_source *s, size_t row, size_t n_rows,
                      const struct ew_quant_rows *out)
{
    const size_t groups = ew_quant_groups(&s->format, s->k);

    for (size_t i = 0; i < n_rows; i++) {
        for (size_t k = 0; k < s->k; k++) {
            const size_t v = (row + i) * 7 + k * 3 + k / 16;

            out->codes[i * s->k + k] = s->format.code == EW_DTYPE_U4   ? (uint8_t)(v % 16)
                                       : s->format.code == EW_DTYPE_I4 ? (uint8_t)(v % 16 - 8)
                                                                       : (uint8_t)v;
        }
        for (size_t g = 0; g < groups; g++) {
            out->scales[i * groups + g] =
                s->format.scale == EW_DTYPE_NONE ? 1.0f : 0.5f + 0.25f * (float)((row + i + g) % 5);
            out->zeros[i * groups + g] = s->format.zero ? (int16_t)((row + i + g) % 17) : 0;
        }
        out->row_scale[i] = 1.0f + 0.125f * (float)((row + i) % 8);
    }
}

static void *packed_of(const struct ew_linear_kernel *l, const struct ew_quant_format *f, bool glu,
                       size_t piece)
{
    const struct ew_quant_source source = { .format = *f, .n = N, .k = K, .read = read_rows };
    const struct ew_weight_part part = { .n_rows = N, .quant = &source };
    struct ew_pack_args a = {
        .format = f, .parts = &part, .n_parts = 1, .n = N, .k = K, .glu = glu
    };
    void *to = calloc(1, l->packed_bytes(f, N, K, glu));

    a.scratch = malloc(l->pack_scratch_bytes(f, K));
    assert_non_null(to);
    assert_non_null(a.scratch);
    for (size_t u = 0; u < l->n_units(N, glu); u += piece)
        l->pack(to, &a, u, u + piece < l->n_units(N, glu) ? u + piece : l->n_units(N, glu));
    free(a.scratch);
    return to;
}

static void check_round_trip(const struct ew_linear_kernel *l, const struct ew_quant_format *f)
{
    const struct ew_quant_source source = { .format = *f, .n = N, .k = K, .read = read_rows };
    void *whole = packed_of(l, f, false, N), *pieces = packed_of(l, f, false, 1);
    void *pairs = packed_of(l, f, true, N), *scratch = malloc(ew_quant_rows_bytes(f, 1, K));
    const struct ew_quant_rows r = ew_quant_rows_carve(f, 1, K, scratch);
    float got[K], want[K];

    assert_true(l->takes(f, K));
    assert_memory_equal(whole, pieces, l->packed_bytes(f, N, K, false));
    for (size_t i = 0; i < N; i++) {
        read_rows(&source, i, 1, &r);
        ew_quant_decode_row(f, &r, 0, K, want);
        l->unpack_row(got, whole, f, N, K, i);
        assert_memory_equal(got, want, sizeof(got));
        /* row i of gate/up rows is row i % 8 or 8 + i % 8 of panel i / 8 of its half */
        const size_t j = i % (N / 2);
        l->unpack_row(got, pairs, f, N, K, j / 8 * 16 + j % 8 + (i < N / 2 ? 0 : 8));
        assert_memory_equal(got, want, sizeof(got));
    }
    free(whole);
    free(pieces);
    free(pairs);
    free(scratch);
}

static void test_round_trip(void **state)
{
    (void)state;
    check_round_trip(&ew_cuda_layout_q4, &i4_g128);
    check_round_trip(&ew_cuda_layout_q4, &u4_g32);
    check_round_trip(&ew_cuda_layout_q8, &i8_rows);
}

/* Places that kernels know, written out from the drawing in linear.h. */
static void test_places(void **state)
{
    uint8_t *q4 = packed_of(&ew_cuda_layout_q4, &i4_g128, false, N);
    uint8_t *q8 = packed_of(&ew_cuda_layout_q8, &i8_rows, false, N);
    const struct ew_cuda_panel l = ew_cuda_panel_of(&i4_g128, K);
    uint16_t scale;
    float row_scale;

    (void)state;
    /* row 9, column 3: lane 5, fourth of its eight: nibble 5 of the word, last byte of the first
     * four */
    assert_int_equal(q4[5 * 16 + 2] >> 4, (9 * 7 + 3 * 3) % 16);
    assert_int_equal(q8[5 * 16 + 3], 9 * 7 + 3 * 3);
    /* row 1, column 19: second tile, second of the eight: nibble 4; third byte */
    assert_int_equal(q4[5 * 16 + 4 + 2] & 15, (7 + 57 + 1) % 16);
    assert_int_equal(q8[5 * 16 + 8 + 2], 7 + 57 + 1);
    assert_int_equal(l.k_blocks, 4);
    assert_int_equal(l.scales_at, 4 * 512);
    memcpy(&scale, q4 + l.scales_at + ((8 + 1) * 2 + 1) * 2, 2); /* group 1, row 9 */
    assert_true(ew_f16_to_f32(scale) == 0.5f);
    memcpy(&row_scale, q4 + l.bytes + l.row_scales_at + 3 * 4, 4); /* row 19 */
    assert_true(row_scale == 1.0f + 0.125f * 3);
    free(q4);
    free(q8);
}

static void test_what_layouts_refuse(void **state)
{
    const struct ew_quant_format odd = { EW_DTYPE_I4, EW_DTYPE_F16, 48, 0 };
    const struct ew_quant_format wide = { EW_DTYPE_I4, EW_DTYPE_F16, 192, 0 };

    (void)state;
    assert_false(
        ew_cuda_layout_q4.takes(&odd, K)); /* 48 neither divides a block of 64 nor the other way */
    assert_true(ew_cuda_layout_q4.takes(&odd, 40)); /* one group a row */
    assert_true(ew_cuda_layout_q4.takes(&wide, 1024));
    assert_false(ew_cuda_layout_q4.takes(&i8_rows, K));
    assert_false(ew_cuda_layout_q8.takes(&i4_g128, K));
}

static const struct ew_cuda_chip chips[] = {
    { .sm = 87, .n_sm = 16, .shared_per_block = 163u << 10, .l2_bytes = 4u << 20 },
    { .sm = 89, .n_sm = 128, .shared_per_block = 99u << 10, .l2_bytes = 72u << 20 },
    { .sm = 90, .n_sm = 132, .shared_per_block = 227u << 10, .l2_bytes = 50u << 20, .cublaslt = 1 },
    { .sm = 110, .n_sm = 20, .shared_per_block = 227u << 10, .l2_bytes = 32u << 20 },
    { .sm = 121, .n_sm = 48, .shared_per_block = 99u << 10, .l2_bytes = 24u << 20, .cublaslt = 1 },
};

static struct ew_cuda_linear_problem problem(const struct ew_cuda_linear_kernel *k, size_t m,
                                             size_t n, size_t cols, bool glu)
{
    struct ew_cuda_linear_problem p = { .x = 1u << 20,
                                        .w = 1u << 24,
                                        .y = 1u << 22,
                                        .workspace = 1u << 26,
                                        .x_stride = cols,
                                        .y_stride = n,
                                        .m = m,
                                        .n = n,
                                        .k = cols,
                                        .glu = glu,
                                        .act = glu ? EW_ACT_SILU : EW_ACT_NONE,
                                        .norm_weight = k->takes_norm ? 1u << 25 : 0,
                                        .scale = 1 };

    if (k->layout == &ew_cuda_layout_q4)
        p.format = i4_g128;
    else if (k->layout == &ew_cuda_layout_q8)
        p.format = i8_rows;
    return p;
}

/* What others may bring into L2 ahead lies within the weights, in panels from their beginning. */
static void check_reads(const struct ew_cuda_linear_kernel *k,
                        const struct ew_cuda_linear_problem *p, const struct ew_cuda_launch *l)
{
    const size_t bytes = k->layout->packed_bytes(&p->format, p->n, p->k, p->glu);
    const struct ew_cuda_ahead *a = &l->reads;

    assert_true(!l->ahead_at || l->ahead_at + sizeof(*a) <= l->arg_bytes);
    if (!a->bytes)
        return;
    assert_true(a->w == p->w && a->bytes % 16 == 0 && a->pitch % 16 == 0 &&
                a->part_pitch % 16 == 0);
    assert_true((a->parts - 1) * (uint64_t)a->part_pitch + a->bytes <= a->pitch);
    assert_true(a->rows * a->pitch <= bytes);
    assert_true((uint64_t)a->rows * a->parts * a->bytes <= 64u << 20); /* L2 has to hold it */
}

/* Every launch of every plan could be launched. */
static void test_plans_fit_the_chip(void **state)
{
    static const size_t shapes[][2] = { { 1, 1 },         { 1024, 1024 },  { 4096, 12288 },
                                        { 151936, 1024 }, { 24576, 4096 }, { 48, 53248 },
                                        { 192, 32768 } };
    static const size_t rows[] = { 1, 3, 8, 16, 64, 200, 2048 };
    size_t n_kernels;
    const struct ew_cuda_linear_kernel *const *all = ew_cuda_linear_kernels(&n_kernels);

    (void)state;
    for (size_t i = 0; i < n_kernels; i++)
        for (size_t c = 0; c < sizeof(chips) / sizeof(*chips); c++)
            for (size_t s = 0; s < 2 * sizeof(shapes) / sizeof(*shapes); s++)
                for (size_t r = 0; r < sizeof(rows) / sizeof(*rows); r++) {
                    const bool glu = s % 2;
                    const struct ew_cuda_linear_problem p =
                        problem(all[i], rows[r], shapes[s / 2][0], shapes[s / 2][1], glu);
                    struct ew_cuda_launch l[EW_CUDA_LINEAR_LAUNCHES];
                    size_t n;

                    if ((glu && p.n % 2) ||
                        !ew_cuda_linear_kernel_runs(all[i], &chips[c], all[i]->layout->weight_dtype,
                                                    &p.format, p.m, p.n, p.k, glu, EW_XQ_NONE))
                        continue;
                    n = all[i]->plan(&chips[c], &p, l);
                    assert_in_range(n, 1, EW_CUDA_LINEAR_LAUNCHES);
                    for (size_t j = 0; j < n; j++) {
                        assert_true(l[j].grid[0] && l[j].grid[1] && l[j].grid[2]);
                        assert_true(l[j].grid[1] <= 65535 && l[j].grid[2] <= 65535);
                        assert_in_range(l[j].block[0], 32, 1024);
                        assert_true(l[j].shared_bytes <= chips[c].shared_per_block);
                        assert_true(l[j].cluster <= 8 && (!l[j].cluster || chips[c].sm >= 90));
                        assert_true(!l[j].cluster || l[j].grid[0] % l[j].cluster == 0);
                        assert_true(l[j].arg_bytes <= EW_CUDA_ARGS_CAP);
                        assert_true(strlen(l[j].spec.defines) + 1 < EW_CUDA_DEFINES_CAP);
                        assert_true(l[j].product || strstr(l[j].spec.defines, "-DEW_"));
                        assert_null(strstr(l[j].spec.defines, "-DEW_SLOTS=0 "));
                        assert_true(!strstr(l[j].spec.defines, "-DEW_SLOTS=1 ") ||
                                    !all[i]->layout->takes); /* a ring of one: plain weights */
                        check_reads(all[i], &p, &l[j]);
                    }
                    assert_true(n == 1 || all[i]->workspace_bytes(&chips[c], &p) > 0);
                }
}

/* Number behind a macro of the last launch, 0 without it. */
static long macro_of(const struct ew_cuda_linear_kernel *k, const struct ew_cuda_chip *c, size_t m,
                     const char *name)
{
    const struct ew_cuda_linear_problem p = problem(k, m, 1024, 4096, false);
    struct ew_cuda_launch l[EW_CUDA_LINEAR_LAUNCHES];
    const size_t n = k->plan(c, &p, l);
    const char *at = n ? strstr(l[n - 1].spec.defines, name) : NULL;

    return at ? strtol(at + strlen(name), NULL, 10) : 0;
}

static void test_sharing_does_not_depend_on_m(void **state)
{
    static const char *const few[] = { "gemv_bf16", "rows_bf16", "rows_q4",
                                       "digits_q4", "rows16_q8", "stripd_q4" };
    static const char *const many[] = { "wgmma_bf16", "wgmma_q4" };

    (void)state;
    for (size_t i = 0; i < sizeof(few) / sizeof(*few); i++) {
        const struct ew_cuda_linear_kernel *k = ew_cuda_linear_kernel_find(few[i]);

        assert_non_null(k);
        for (size_t m = 2; m <= 8; m++) {
            assert_int_equal(macro_of(k, &chips[2], m, "-DEW_WARPS_K="),
                             macro_of(k, &chips[2], 1, "-DEW_WARPS_K="));
            assert_int_equal(macro_of(k, &chips[2], m, "-DEW_CLUSTER="),
                             macro_of(k, &chips[2], 1, "-DEW_CLUSTER="));
        }
    }
    for (size_t i = 0; i < sizeof(many) / sizeof(*many); i++) {
        const struct ew_cuda_linear_kernel *k = ew_cuda_linear_kernel_find(many[i]);

        assert_non_null(k);
        assert_true(macro_of(k, &chips[2], 1, "-DEW_CLUSTER=") > 1);
        assert_int_equal(macro_of(k, &chips[2], 1, "-DEW_CLUSTER="),
                         macro_of(k, &chips[2], 64, "-DEW_CLUSTER="));
        assert_int_equal(macro_of(k, &chips[2], 65, "-DEW_CLUSTER="),
                         macro_of(k, &chips[2], 256, "-DEW_CLUSTER="));
        assert_true(macro_of(k, &chips[2], 300, "-DEW_CLUSTER=") <= 1);
    }
    assert_null(ew_cuda_linear_kernel_find("gemv"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_what_layouts_refuse),
        cmocka_unit_test(test_plans_fit_the_chip),
        cmocka_unit_test(test_sharing_does_not_depend_on_m),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

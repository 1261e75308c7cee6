/* ew-layers: base os cpu tensor op kernels graph pass plan backend build engine
 *
 * u_quant_format.c - quantised formats: text, validity, decoding, strided sources, and a graph
 * whose weights are quantised, built and run. */
#include "quant_fixture.h"

#include <math.h>

#include "kernels/xquant.h"
#include "tensor/tensor.h"

static void test_formats(void **state)
{
    static const struct {
        struct ew_quant_format f;
        bool ok;
        const char *text;
    } cases[] = {
        { { EW_DTYPE_I4, EW_DTYPE_F16, 128, 0 }, true, "i4 g128 f16" },
        { { EW_DTYPE_U4, EW_DTYPE_F16, 64, 1 }, true, "u4 zero g64 f16" },
        { { EW_DTYPE_F8E4M3, EW_DTYPE_NONE, 0, 0 }, true, "f8e4m3 rows" },
        { { EW_DTYPE_F4E2M1, EW_DTYPE_F8E4M3, 16, 0 }, true, "f4e2m1 g16 f8e4m3" },
        { { EW_DTYPE_F8E4M3, EW_DTYPE_F8E8M0, 32, 0 }, true, "f8e4m3 g32 f8e8m0" },
        { { EW_DTYPE_I4, EW_DTYPE_F16, 128, 1 }, false, NULL }, /* signed codes have no zero */
        { { EW_DTYPE_I8, EW_DTYPE_NONE, 32, 0 }, false, NULL }, /* blocks without scales */
        { { EW_DTYPE_I8, EW_DTYPE_F32, 12, 0 }, false, NULL },  /* blocks of a multiple of 8 */
        { { EW_DTYPE_F32, EW_DTYPE_F32, 32, 0 }, false, NULL },
        { { EW_DTYPE_I8, EW_DTYPE_I8, 32, 0 }, false, NULL },
    };
    char text[64];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(ew_quant_format_ok(&cases[i].f), cases[i].ok);
        if (!cases[i].ok)
            continue;
        ew_quant_format_text(&cases[i].f, text, sizeof(text));
        assert_string_equal(text, cases[i].text);
    }
    assert_true(fabs(ew_quant_bits(&cases[0].f, 1024) - (4 + 0.125 + 32.0 / 1024)) < 1e-12);
}

/* Offset binary nibbles [2][8], scales by (row, block of 8), zero points none. */
static void test_strided_int4(void **state)
{
    static const uint8_t codes[8] = { 0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe };
    static const uint16_t scales[2] = { 0x3800, 0x4000 }; /* 0.5, 2 */
    struct ew_quant_strided s = {
        .base = { .format = { EW_DTYPE_I4, EW_DTYPE_F16, 8, 0 }, .name = "w", .n = 2, .k = 8 },
        .codes = codes,
        .code_row = 8,
        .code_col = 1,
        .flip = 8,
        .scales = scales,
        .scale_dtype = EW_DTYPE_F16,
        .scale_row = 1,
        .scale_col = 1
    };
    uint64_t scratch[32];
    float row[8];

    (void)state;
    ew_quant_strided_init(&s);
    assert_true(ew_quant_rows_bytes(&s.base.format, 2, 8) <= sizeof(scratch));
    const struct ew_quant_rows r = ew_quant_rows_carve(&s.base.format, 2, 8, scratch);
    s.base.read(&s.base, 0, 2, &r);
    for (size_t i = 0; i < 2; i++) {
        ew_quant_decode_row(&s.base.format, &r, i, 8, row);
        for (int c = 0; c < 8; c++)
            assert_true(row[c] == (float)((int)i * 8 + c - 8) * (i ? 2.0f : 0.5f));
    }
}

/* A transposed u8 table with zero points, and a factor on all. */
static void test_strided_zero_points(void **state)
{
    static const uint8_t codes[16 * 2] = { 3, 200 }; /* [k][n] */
    static const float scales[2] = { 0.25f, 1.0f };
    static const uint8_t zeros[2] = { 1, 255 };
    struct ew_quant_strided s = {
        .base = { .format = { EW_DTYPE_U8, EW_DTYPE_F32, 16, 1 }, .name = "w", .n = 2, .k = 16 },
        .codes = codes,
        .code_row = 1,
        .code_col = 2,
        .scales = scales,
        .scale_dtype = EW_DTYPE_F32,
        .scale_row = 1,
        .scale_col = 2,
        .zeros = zeros,
        .zero_dtype = EW_DTYPE_U8,
        .zero_row = 1,
        .zero_col = 2,
        .global = 4.0f
    };
    uint64_t scratch[32];
    float row[16];

    (void)state;
    ew_quant_strided_init(&s);
    const struct ew_quant_rows r = ew_quant_rows_carve(&s.base.format, 1, 16, scratch);
    s.base.read(&s.base, 0, 1, &r);
    ew_quant_decode_row(&s.base.format, &r, 0, 16, row);
    assert_true(row[0] == 2.0f && row[1] == -1.0f); /* (3-1)*.25*4, (0-1)*.25*4 */
    s.base.read(&s.base, 1, 1, &r);
    ew_quant_decode_row(&s.base.format, &r, 0, 16, row);
    assert_true(row[0] == -220.0f && row[15] == -1020.0f);
}

static void weights_row(const struct weights *w, size_t n, float *row)
{
    const int i = n >= N - 4;
    const struct ew_quant_source *s = &w->src[i].base;
    uint64_t scratch[64];

    assert_true(ew_quant_rows_bytes(&s->format, 1, K) <= sizeof(scratch));
    const struct ew_quant_rows r = ew_quant_rows_carve(&s->format, 1, K, scratch);
    s->read(s, i ? n - (N - 4) : n + 4, 1, &r);
    ew_quant_decode_row(&s->format, &r, 0, K, row);
}

static void run_engine(const void *bytes, size_t len, const float *x, size_t m, float *y)
{
    const int64_t dims[2] = { (int64_t)m, K };
    ew_error err = { 0 };
    ew_engine *e = NULL;
    ew_context *c = NULL;
    float row[K];

    MUST(ew_engine_load(bytes, len, NULL, &e, &err));
    MUST(ew_context_create(e, NULL, &c, &err));
    MUST(ew_context_set_shape(c, "x", dims, 2));
    MUST(ew_context_set_address(c, "x", (void *)(uintptr_t)x));
    MUST(ew_context_set_address(c, "y", y));
    MUST(ew_context_run(c));
    ew_context_destroy(c);
    assert_int_equal(ew_engine_embed(e, N - 1, row), EW_STATUS_OK);
    memcpy(y + m * N, row, sizeof(row));
    ew_engine_destroy(e);
}

static void check_graph(int x_quant, int x_block, float x_scale)
{
    const struct ew_x_rounding round = { x_quant, (size_t)x_block, x_scale };
    static struct weights w;
    float *x = noises(3 * K, 5), y[3 * N + K], row[K], xr[K];
    void *bytes;
    size_t len;

    quant_bytes(&w, x_quant, x_block, x_scale, &bytes, &len);
    run_engine(bytes, len, x, 3, y);
    for (size_t m = 0; m < 3; m++) {
        ew_x_round_row(&round, xr, x + m * K, K);
        for (size_t i = 0; i < N; i++) {
            double z = 0, mass = 0;

            weights_row(&w, i, row);
            for (size_t k = 0; k < K; k++) {
                z += (double)xr[k] * (double)row[k];
                mass += fabs((double)xr[k] * (double)row[k]);
            }
            assert_true(fabs(z - (double)y[m * N + i]) <= 1e-5 * mass);
        }
    }
    weights_row(&w, N - 1, row);
    for (size_t k = 0; k < K; k++)
        assert_true(fabsf(row[k] - y[3 * N + k]) <= 1e-6f * fabsf(row[k]));
    ew_mem_free(bytes);
    free(x);
}

static void test_quantised_graph(void **state)
{
    (void)state;
    check_graph(EW_XQ_NONE, 0, 1.0f);
    check_graph(EW_XQ_INT8_ROW, 0, 1.0f);
    check_graph(EW_XQ_INT8, 0, 1.0f / 100);
    check_graph(EW_XQ_FP8_ROW, 0, 1.0f);
    check_graph(EW_XQ_FP8_BLOCK, 16, 1.0f);
    check_graph(EW_XQ_NVFP4, 16, 1.0f / 2688);
    check_graph(EW_XQ_MXFP8, 32, 1.0f);
    check_graph(EW_XQ_MXFP4, 32, 1.0f);
}

/* Known answers of each rounding (formats: OCP FP8, OCP MX, NVFP4). */
static void test_x_rounding(void **state)
{
    static const struct {
        struct ew_x_rounding r;
        float in[4], out[4];
    } cases[] = {
        { { EW_XQ_INT8, 0, 0.5f }, { 0.6f, -0.75f, 100, -100 }, { 0.5f, -1.0f, 63.5f, -64 } },
        { { EW_XQ_INT8_ROW, 0, 1 }, { 127, 1.5f, 2.5f, -0.4f }, { 127, 2, 2, 0 } },
        { { EW_XQ_FP8, 0, 1 }, { 17, 19, 1000, 0.001953125f }, { 16, 20, 448, 0.001953125f } },
        { { EW_XQ_FP8_ROW, 0, 1 }, { 448, 17, 19, -1 }, { 448, 16, 20, -1 } },
        { { EW_XQ_MXFP4, 4, 1 }, { 6, 2.4f, 2.6f, -5 }, { 6, 2, 3, -4 } },
        { { EW_XQ_MXFP4, 4, 1 }, { 6, 0.6f, 0.2f, -5 }, { 6, 0.5f, 0, -4 } },
        { { EW_XQ_NVFP4, 4, 1 }, { 6.3f, 2.4f, 0.26f, -5 }, { 6, 2, 0.5f, -4 } },
        { { EW_XQ_MXFP8, 4, 1 }, { 448, 0.002f, 0, -1 }, { 448, 0.001953125f, 0, -1 } },
        { { EW_XQ_MXFP8, 4, 1 }, { 448, 17, 1.06f, -1 }, { 448, 16, 1.0f, -1 } },
        { { EW_XQ_NVFP4, 4, 1 }, { 6, 2.4f, 0.26f, -5 }, { 6, 2, 0.5f, -4 } },
        { { EW_XQ_INT8_ROW, 0, 1 }, { 0, 0, -0.0f, 0 }, { 0, 0, 0, 0 } },
    };
    float out[4];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        ew_x_round_row(&cases[i].r, out, cases[i].in, 4);
        for (int k = 0; k < 4; k++)
            if (out[k] != cases[i].out[k])
                fail_msg("case %zu, %d: %g, want %g", i, k, (double)out[k],
                         (double)cases[i].out[k]);
    }
}

/* Parts of two formats in one constant are refused. */
static void test_mixed_parts_are_refused(void **state)
{
    static struct weights w;
    const int64_t dims[2] = { N, K };
    const struct ew_type t = ew_type_make(EW_DTYPE_F32, 2, dims);
    struct ew_graph *g = NULL;
    ew_error err = { 0 };

    (void)state;
    weights_make(&w);
    w.src[1].base.format.scale = EW_DTYPE_F16;
    const struct ew_weight_part parts[2] = { { .n_rows = N - 4, .quant = &w.src[0].base },
                                             { .n_rows = 4, .quant = &w.src[1].base } };
    MUST(ew_graph_create("mixed", &g, &err));
    assert_non_null(ew_graph_add_const_parts(g, "w", &t, parts, 2));
    assert_int_equal(ew_graph_verify(g, &err), EW_STATUS_MISMATCH);
    assert_non_null(strstr(err.text, "'w'"));
    ew_graph_destroy(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formats),
        cmocka_unit_test(test_strided_int4),
        cmocka_unit_test(test_strided_zero_points),
        cmocka_unit_test(test_x_rounding),
        cmocka_unit_test(test_quantised_graph),
        cmocka_unit_test(test_mixed_parts_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

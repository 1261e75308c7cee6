/* Quantisers: codes and packing against what compressed-tensors wrote (golden/quant), GPTQ against
 * rounding to nearest under its own Hessian, folding that leaves the product, options by name. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/text.h"
#include "quant/quant.h"

#define N 8
#define K 128

static struct ew_safetensors *golden;
static struct ew_q_run run;
static ew_error error;

static int setup(void **state)
{
    (void)state;
    if (ew_safetensors_open(EW_SOURCE_DIR "/tests/golden/quant/formats.safetensors", &golden,
                            &error) ||
        ew_pool_create(2, &run.pool, &error))
        return -1;
    run.err = &error;
    run.kernel = ew_linear_kernel_find("linear_f32__ref");
    ew_arena_init(&run.arena, EW_MEM_CHECKPOINT, 0);
    return run.kernel ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    ew_arena_deinit(&run.arena);
    ew_pool_destroy(run.pool);
    ew_safetensors_close(golden);
    return 0;
}

static const float *floats_of(const char *name)
{
    const struct ew_st_tensor *t = ew_safetensors_find(golden, name);

    assert_non_null(t);
    assert_int_equal(t->type.dtype, EW_DTYPE_F32);
    return t->data;
}

/* Every tensor that compressed-tensors wrote for `name` must be among ours, byte for byte. */
static void check_format(const char *name, struct ew_q_format f)
{
    struct ew_q_unit u = { 0 };
    struct ew_q_tensor q;
    const float *w = floats_of("weight");
    const size_t len = strlen(name);
    float max = 0;
    size_t n_seen = 0;

    assert_int_equal(ew_q_tensor_init(&q, &f, N, K, &error), 0);
    for (size_t i = 0; i < N * K; i++)
        max = fmaxf(max, fabsf(w[i]));
    if (f.kind == EW_Q_NVFP4)
        q.global = ew_q_global(max);
    ew_q_rtn_rows(&q, w, NULL, false, 0, N, NULL);
    assert_int_equal(ew_q_declare(&run, &u, name, &f, N, K), 0);
    assert_int_equal(ew_q_pack(&run, &u, name, &q), 0);
    for (size_t i = 0; i < ew_safetensors_count(golden); i++) {
        const struct ew_st_tensor *t = ew_safetensors_at(golden, i);
        const struct ew_q_out *o;

        if (strncmp(t->name, name, len) != 0 || t->name[len] != '.')
            continue;
        o = ew_q_out_find(&u, t->name);
        if (!o)
            fail_msg("%s is missing", t->name);
        else if (!ew_type_equal(&o->type, &t->type) || memcmp(o->data, t->data, t->bytes) != 0)
            fail_msg("%s differs", t->name);
        n_seen++;
    }
    assert_int_equal(n_seen, u.n_outs);
    for (size_t i = 0; i < u.n_outs; i++)
        ew_mem_free(u.outs[i].data);
    ew_mem_free(u.outs);
    ew_q_tensor_deinit(&q);
}

static void test_formats(void **state)
{
    const ew_dtype f32 = EW_DTYPE_F32;

    (void)state;
    check_format("int4", (struct ew_q_format){ EW_Q_INT, 4, 32, false, true, f32 });
    check_format("int4a", (struct ew_q_format){ EW_Q_INT, 4, 32, true, true, f32 });
    check_format("int8", (struct ew_q_format){ EW_Q_INT, 8, 0, false, false, f32 });
    check_format("fp8", (struct ew_q_format){ EW_Q_FP8, 8, 0, false, false, f32 });
    check_format("nvfp4", (struct ew_q_format){ EW_Q_NVFP4, 4, 16, false, false, f32 });
    check_format("mxfp4", (struct ew_q_format){ EW_Q_MXFP4, 4, 32, false, false, f32 });
}

/* A code means what it was made from: encoding it again gives the code again. */
static void test_codes_come_back(void **state)
{
    static const struct ew_q_format formats[] = {
        { EW_Q_INT, 4, 32, false, true, EW_DTYPE_BF16 },
        { EW_Q_INT, 4, 32, true, true, EW_DTYPE_F16 },
        { EW_Q_INT, 8, 32, true, true, EW_DTYPE_BF16 },
        { EW_Q_NVFP4, 4, 16, false, false, EW_DTYPE_BF16 },
        { EW_Q_MXFP4, 4, 32, false, false, EW_DTYPE_BF16 },
    };
    const float *w = floats_of("weight");

    (void)state;
    for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
        const struct ew_q_format *f = &formats[i];
        float scale, plain = 0, searched = 0;
        uint8_t zero;

        for (int search = 0; search < 2; search++) {
            float sum = 0;

            for (size_t at = 0; at < N * K; at += f->group) {
                ew_q_fit(f, w + at, NULL, f->group, 100, search, &scale, &zero);
                for (size_t j = at; j < at + f->group; j++) {
                    const int16_t c = ew_q_encode(f, w[j], scale, zero);
                    const float v = ew_q_decode(f, c, scale, zero);

                    if (fabsf(v) > 0)
                        assert_int_equal(ew_q_encode(f, v, scale, zero), c);
                    sum += (v - w[j]) * (v - w[j]);
                }
            }
            *(search ? &searched : &plain) = sum;
        }
        assert_true(searched <= plain);
    }
}

/* tr(d h d^T) */
static double hessian_error(const float *a, const float *b, const float *h)
{
    double sum = 0;

    for (size_t r = 0; r < N; r++)
        for (size_t i = 0; i < K; i++)
            for (size_t j = 0; j < K; j++)
                sum += (double)(a[r * K + i] - b[r * K + i]) * (double)h[i * K + j] *
                       (double)(a[r * K + j] - b[r * K + j]);
    return sum;
}

static void test_factor(void **state)
{
    const float *want = floats_of("gptq.factor"), *x = floats_of("gptq.inputs");
    const float *hessian = floats_of("gptq.hessian");
    static float h[K * K], u[K * K];

    (void)state;
    assert_int_equal(ew_q_gram(&run, x, 256, K, h), 0);
    for (size_t i = 0; i < K * K; i++)
        assert_float_equal(h[i], hessian[i], 1e-3 * (1 + fabsf(hessian[i])));
    assert_int_equal(ew_q_inverse_factor(&run, h, K, 0.01f, u), 0);
    for (size_t i = 0; i < K * K; i++)
        assert_float_equal(u[i], want[i], 2e-3);
    memset(h, 0, sizeof(h));
    h[0] = -1;
    assert_int_equal(ew_q_inverse_factor(&run, h, K, 0.01f, u), EW_STATUS_LIMIT);
}

static void test_gptq(void **state)
{
    const struct ew_q_format f = { EW_Q_INT, 4, 32, false, true, EW_DTYPE_F32 };
    const float *w = floats_of("weight"), *u = floats_of("gptq.factor");
    const float *h = floats_of("gptq.hessian");
    static float plain[N * K], better[N * K], diagonal[K];
    struct ew_q_tensor q;
    double rtn, gptq;

    (void)state;
    for (size_t i = 0; i < K; i++)
        diagonal[i] = h[i * K + i];
    assert_int_equal(ew_q_tensor_init(&q, &f, N, K, &error), 0);
    ew_q_rtn_rows(&q, w, diagonal, true, 0, N, plain);
    memcpy(better, w, sizeof(better));
    assert_int_equal(ew_q_gptq(&run, better, u, diagonal, NULL, &q), 0);
    for (size_t i = 0; i < N * K; i++)
        assert_float_equal(better[i],
                           ew_q_decode(&f, q.codes[i], q.scale[i / K * 4 + i % K / 32], 0), 1e-7);
    rtn = hessian_error(plain, w, h);
    gptq = hessian_error(better, w, h);
    if (!(gptq < 0.8 * rtn))
        fail_msg("error %g with compensation, %g without", gptq, rtn);
    ew_q_tensor_deinit(&q);
}

/* The textbook order of the work, a column and a row at a time: the same codes, over more columns
 * than a block of the fast one, with and without an order of columns. */
static void check_gptq_by_columns(const size_t *order)
{
    enum { ROWS = 9, COLS = 224, G = 32 };
    const struct ew_q_format f = { EW_Q_INT, 4, G, true, true, EW_DTYPE_F32 };
    static float w[ROWS * COLS], u[COLS * COLS], out[ROWS * COLS], importance[COLS];
    struct ew_q_tensor q;

    memset(u, 0, sizeof(u));
    for (size_t i = 0; i < COLS; i++) {
        importance[i] = 1 + (float)(i % 5);
        u[i * COLS + i] = 0.5f + 0.01f * (float)(i % 90);
        for (size_t j = i + 1; j < COLS; j++)
            u[i * COLS + j] = 0.02f * (float)((i * 7 + j * 13) % 11) - 0.1f;
    }
    for (size_t i = 0; i < ROWS * COLS; i++)
        w[i] = floats_of("weight")[i % (N * K)] + 0.001f * (float)(i % 17);
    memcpy(out, w, sizeof(out));
    assert_int_equal(ew_q_tensor_init(&q, &f, ROWS, COLS, &error), 0);
    assert_int_equal(ew_q_gptq(&run, out, u, importance, order, &q), 0);
    for (size_t r = 0; r < ROWS; r++) {
        float row[COLS];

        for (size_t j = 0; j < COLS; j++)
            row[j] = w[r * COLS + (order ? order[j] : j)];
        for (size_t j = 0; j < COLS; j++) {
            const size_t col = order ? order[j] : j, at = r * (COLS / G) + col / G;
            const float *group = order ? w + r * COLS + col / G * G : row + j;
            float scale;
            uint8_t zero;

            if (order || j % G == 0) {
                ew_q_fit(&f, group, importance + col / G * G, G, 1, true, &scale, &zero);
                assert_true(scale == q.scale[at] && zero == q.zero[at]);
            }
            const int16_t code = ew_q_encode(&f, row[j], q.scale[at], q.zero[at]);
            const float v = ew_q_decode(&f, code, q.scale[at], q.zero[at]);
            if (code != q.codes[r * COLS + col] || v != out[r * COLS + col])
                fail_msg("row %zu, column %zu: %d, want %d", r, j, q.codes[r * COLS + col], code);
            for (size_t l = j + 1; l < COLS; l++)
                row[l] -= (row[j] - v) / u[j * COLS + j] * u[j * COLS + l];
        }
    }
    ew_q_tensor_deinit(&q);
}

static void test_gptq_by_columns(void **state)
{
    size_t order[224];

    (void)state;
    check_gptq_by_columns(NULL);
    for (size_t i = 0; i < 224; i++)
        order[i] = i * 45 % 224;
    check_gptq_by_columns(order);
}

/* o_proj and the v_proj before it: heads of one kv head get one scale, and the rows of v_proj that
 * make a channel, with their bias, lose what the columns that read it gain. */
static void test_fold_of_heads(void **state)
{
    enum { T = 64, D = 16, PER_KV = 4, KV = K / D / PER_KV, IN = 3 };
    static float x[T * K], w[N * K], rows[KV * D * IN], bias[KV * D];
    const struct ew_q_module m = {
        .n = N, .k = K, .scheme = { .format = { EW_Q_INT, 4, 32, false, true, EW_DTYPE_F32 } }
    };
    struct ew_q_fold f = { .consumers = { &m },
                           .weights = { w },
                           .n_consumers = 1,
                           .x = x,
                           .k = K,
                           .share = D,
                           .heads_per_kv = PER_KV,
                           .rows = rows,
                           .rows_k = IN,
                           .rows_bias = bias };
    bool moved = false;
    double gain;

    (void)state;
    memcpy(w, floats_of("weight"), sizeof(w));
    for (size_t i = 0; i < T * K; i++) /* channels of very different size */
        x[i] = floats_of("gptq.inputs")[i] * (1 + (float)(i % K % D) * (float)(i % K / 64 + 1));
    for (size_t i = 0; i < KV * D * IN; i++)
        rows[i] = 1;
    for (size_t i = 0; i < KV * D; i++)
        bias[i] = 2;
    run.n_tokens = T;
    assert_int_equal(ew_q_fold_search(&run, &f, false, &gain), 0);
    run.n_tokens = 0;
    assert_true(gain < 1);
    for (size_t j = 0; j < K; j++) {
        const size_t row = j / D / PER_KV * D + j % D;
        const float s = w[j] / floats_of("weight")[j];

        moved = moved || fabsf(s - 1) > 0.1f;
        for (size_t i = 0; i < IN; i++)
            assert_float_equal(rows[row * IN + i] * s, 1, 1e-5);
        assert_float_equal(bias[row] * s, 2, 1e-5);
    }
    assert_true(moved);
}

/* x w^T must stay what it was when scales move from the norm (stored in bf16) to the weights. */
static void test_fold(void **state)
{
    enum { T = 64 };
    static float x[T * K], w[N * K], norm[K], before[T * N], after[T * N];
    const struct ew_q_module m = {
        .n = N, .k = K, .scheme = { .format = { EW_Q_INT, 4, 32, false, true, EW_DTYPE_BF16 } }
    };
    struct ew_q_fold f = { .consumers = { &m },
                           .weights = { w },
                           .n_consumers = 1,
                           .x = x,
                           .k = K,
                           .norm = norm,
                           .norm_dtype = EW_DTYPE_BF16,
                           .norm_plus_one = true };
    double gain, change = 0;

    (void)state;
    memcpy(w, floats_of("weight"), sizeof(w));
    memcpy(x, floats_of("gptq.inputs"), sizeof(x));
    for (size_t j = 0; j < K; j++)
        norm[j] = 1 + 0.25f * (float)(j % 5);
    run.n_tokens = T;
    assert_int_equal(ew_q_matmul(&run, x, T, w, N, K, before), 0);
    assert_int_equal(ew_q_fold_search(&run, &f, false, &gain), 0);
    assert_true(gain > 0 && gain < 1);
    assert_int_equal(ew_q_matmul(&run, x, T, w, N, K, after), 0);
    for (size_t i = 0; i < T * N; i++)
        assert_float_equal(after[i], before[i], 1e-4);
    for (size_t j = 0; j < K; j++)
        change =
            fmax(change,
                 fabs(w[j] / floats_of("weight")[j] * norm[j] / (1 + 0.25f * (float)(j % 5)) - 1));
    assert_true(change < 1e-5); /* what the norm lost the weights have, in spite of rounding */
    run.n_tokens = 0;
}

static void test_glob(void **state)
{
    (void)state;
    assert_true(ew_glob_match("*.down_proj", "model.layers.3.mlp.down_proj"));
    assert_true(ew_glob_match("model.layers.?.mlp.*", "model.layers.3.mlp.up_proj"));
    assert_true(ew_glob_match("*", ""));
    assert_false(ew_glob_match("*.down_proj", "model.layers.3.mlp.down_proj2"));
    assert_false(ew_glob_match("model.layers.?.*", "model.layers.13.mlp.up_proj"));
    assert_true(ew_glob_match("a*b*c", "aXbbXc"));
}

static void expect_refused(ew_quantize_opts o, const char *word)
{
    struct ew_q_options out;
    ew_error err = { 0 };

    assert_int_equal(ew_q_options_parse(&o, &out, &err), EW_STATUS_INVALID_ARG);
    if (!strstr(err.text, word))
        fail_msg("'%s' is not in '%s'", word, err.text);
}

#define OPTS(...)                                                                                  \
    (ew_quantize_opts)                                                                             \
    {                                                                                              \
        .struct_size = sizeof(ew_quantize_opts), __VA_ARGS__                                       \
    }

static void test_options(void **state)
{
    static const char *const overrides[] = { "*.down_proj=int8", "*.3.mlp.*=none" };
    static const char *const bad[] = { "*.down_proj" }, *const unknown[] = { "*=int3" };
    const ew_quantize_opts o =
        OPTS(.scheme = "gptq", .bits = 8, .group = 64, .overrides = overrides, .n_overrides = 2);
    struct ew_q_options out;

    (void)state;
    expect_refused(OPTS(.scheme = NULL), "no scheme");
    expect_refused(OPTS(.scheme = "int5"), "'int5'");
    expect_refused(OPTS(.scheme = "none"), "'none'");
    expect_refused(OPTS(.scheme = "int4", .group = 48), "48");
    expect_refused(OPTS(.scheme = "gptq", .bits = 3), "3 bits");
    expect_refused(OPTS(.scheme = "int4", .method = "magic"), "'magic'");
    expect_refused(OPTS(.scheme = "int4", .kv = "int4"), "'int4'");
    expect_refused(OPTS(.scheme = "int4", .embedding = "fp8"), "'fp8'");
    expect_refused(OPTS(.scheme = "int4", .overrides = bad, .n_overrides = 1), "PATTERN=SCHEME");
    expect_refused(OPTS(.scheme = "int4", .overrides = unknown, .n_overrides = 1), "'int3'");
    assert_int_equal(ew_q_options_parse(&o, &out, &error), 0);
    assert_int_equal(out.main.format.bits, 8);
    assert_int_equal(out.main.format.group, 64);
    assert_ptr_equal(ew_q_scheme_of(&out, "model.layers.3.mlp.down_proj"), &out.overrides[1]);
    assert_ptr_equal(ew_q_scheme_of(&out, "model.layers.4.mlp.down_proj"), &out.overrides[0]);
    assert_ptr_equal(ew_q_scheme_of(&out, "model.layers.4.mlp.up_proj"), &out.main);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formats),       cmocka_unit_test(test_codes_come_back),
        cmocka_unit_test(test_factor),        cmocka_unit_test(test_gptq),
        cmocka_unit_test(test_fold),          cmocka_unit_test(test_glob),
        cmocka_unit_test(test_options),       cmocka_unit_test(test_gptq_by_columns),
        cmocka_unit_test(test_fold_of_heads),
    };

    return cmocka_run_group_tests_name("quant", tests, setup, teardown);
}

/* ew-layers: base os cpu tensor op kernels
 * Group nn of the general operators: products, windows, norms, attention, quantisation, Einsum and
 * Resize. Values worked out by hand or with numpy; the ONNX node tests cover the rest. Hostile
 * shapes and attributes must be refused in one line. */
#include "general_run.h"

#define F64(...)                                                                                   \
    (const double[])                                                                               \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }

/* ---- products ---- */

static void test_matmul(void **state)
{
    struct run r;

    (void)state;
    run_init(&r, "MatMul");
    IN(&r, F32, DIMS(2, 1, 2), F32(1, 2, 3, 4));
    IN(&r, F32, DIMS(2, 3), F32(1, 2, 3, 4, 5, 6));
    EXPECT(&r, DIMS(2, 1, 3), F32(9, 12, 15, 19, 26, 33));
    run_init(&r, "MatMul"); /* 1-D operands leave no dim */
    IN(&r, I32, DIMS(3), I32(1, -2, 3));
    IN(&r, I32, DIMS(3), I32(4, 5, 6));
    EXPECT_SCALAR(&r, I32(12));
    run_init(&r, "MatMul"); /* the sum of nothing */
    IN(&r, F32, DIMS(2, 0), F32(0));
    IN(&r, F32, DIMS(0, 2), F32(0));
    EXPECT(&r, DIMS(2, 2), F32(0, 0, 0, 0));
    run_init(&r, "MatMul");
    IN(&r, F32, DIMS(1, 3), F32(1, 2, 3));
    IN(&r, F32, DIMS(2, 1), F32(1, 2));
    EXPECT_FAIL(&r, MISMATCH);
    run_init(&r, "MatMul");
    IN_SCALAR(&r, F32, F32(1));
    IN(&r, F32, DIMS(1), F32(1));
    EXPECT_FAIL(&r, MISMATCH);
}

/* More columns and rows than one block of the product. */
static void test_matmul_blocks(void **state)
{
    static float a[5 * 3], b[3 * 300], y[5 * 300];
    const struct ew_view va = { ew_type_make(EW_DTYPE_F32, 2, DIMS(5, 3)), a };
    const struct ew_view vb = { ew_type_make(EW_DTYPE_F32, 2, DIMS(3, 300)), b };
    struct ew_view vy = { ew_type_make(EW_DTYPE_F32, 2, DIMS(5, 300)), y };
    struct ew_view *const out[] = { &vy };
    const struct ew_view *const in[] = { &va, &vb };
    const struct ew_type *const types[] = { &va.type, &vb.type };
    const struct ew_type *const out_types[] = { &vy.type };
    const size_t bytes = ew_general_scratch_bytes(EW_OP_MATMUL, NULL, 2, types, 1, out_types);
    struct ew_general_args args = {
        .op = EW_OP_MATMUL, .n_in = 2, .in = in, .n_out = 1, .out = out
    };

    (void)state;
    for (int i = 0; i < 15; i++)
        a[i] = (float)(i % 7 - 3);
    for (int i = 0; i < 900; i++)
        b[i] = (float)(i % 11 - 5);
    args.scratch = ew_mem_alloc_aligned(EW_MEM_MISC, bytes, 64);
    assert_non_null(args.scratch);
    assert_int_equal(ew_general_find(EW_OP_MATMUL)(&args), EW_STATUS_OK);
    for (int i = 0; i < 5; i++) {
        for (int j = 0; j < 300; j++) {
            float want = 0;

            for (int k = 0; k < 3; k++)
                want += a[i * 3 + k] * b[k * 300 + j];
            assert_true(y[i * 300 + j] == want);
        }
    }
    ew_mem_free_aligned(args.scratch);
}

static void test_gemm(void **state)
{
    struct run r;

    (void)state;
    run_init(&r, "Gemm");
    r.attrs.gemm.alpha = 2;
    r.attrs.gemm.beta = 0.5f;
    r.attrs.gemm.trans_a = 1;
    r.attrs.gemm.trans_b = 1;
    IN(&r, F32, DIMS(2, 1), F32(1, 2));
    IN(&r, F32, DIMS(2, 2), F32(1, 2, 3, 4));
    IN(&r, F32, DIMS(2), F32(10, 20));
    EXPECT(&r, DIMS(1, 2), F32(15, 32));
    run_init(&r, "Gemm");
    IN(&r, F32, DIMS(1, 1), F32(1));
    IN(&r, F32, DIMS(1, 1), F32(1));
    IN(&r, F32, DIMS(2, 1), F32(1, 2)); /* C may not widen the product */
    EXPECT_FAIL(&r, MISMATCH);
}

static void test_matmul_integer(void **state)
{
    struct run r;

    (void)state;
    run_init(&r, "MatMulInteger");
    IN(&r, U8, DIMS(1, 2), U8(11, 255));
    IN(&r, I8, DIMS(2, 1), I8(-2, 3));
    IN_SCALAR(&r, U8, U8(12));
    IN(&r, I8, DIMS(1), I8(-1));
    EXPECT(&r, DIMS(1, 1), I32(1 + 243 * 4));
}

/* ---- windows ---- */

static void test_conv(void **state)
{
    struct run r;

    (void)state;
    run_init(&r, "Conv"); /* two groups, padding, a stride */
    r.attrs.conv.group = 2;
    r.attrs.conv.strides = (struct ew_ints){ 1, { 2 } };
    r.attrs.conv.pads = (struct ew_ints){ 2, { 1, 1 } };
    IN(&r, F32, DIMS(1, 2, 3), F32(1, 2, 3, 4, 5, 6));
    IN(&r, F32, DIMS(2, 1, 2), F32(1, 10, 1, 100));
    IN(&r, F32, DIMS(2), F32(0.5f, 0));
    EXPECT(&r, DIMS(1, 2, 2), F32(10.5f, 32.5f, 400, 605));
    r.n_in = 0;
    r.attrs.conv.group = 3;
    IN(&r, F32, DIMS(1, 2, 3), F32(1, 2, 3, 4, 5, 6));
    IN(&r, F32, DIMS(2, 1, 2), F32(1, 10, 1, 100));
    EXPECT_FAIL(&r, MISMATCH);
}

static void conv_1d(struct run *r, const char *name)
{
    static const float x[] = { 1, 2 }, w[] = { 1, 10 };

    run_init(r, name);
    IN(r, F32, DIMS(1, 1, 2), x);
    IN(r, F32, DIMS(1, 1, 2), w);
}

static void test_conv_hostile(void **state)
{
    struct run r;

    (void)state;
    conv_1d(&r, "Conv");
    r.attrs.conv.dilations = (struct ew_ints){ 1, { 2 } };
    EXPECT_FAIL(&r, MISMATCH); /* the kernel spans 3 of 2 */
    conv_1d(&r, "Conv");
    r.attrs.conv.strides = (struct ew_ints){ 1, { 0 } };
    EXPECT_FAIL(&r, MALFORMED);
    conv_1d(&r, "Conv");
    r.attrs.conv.dilations = (struct ew_ints){ 1, { INT64_MAX } };
    EXPECT_FAIL(&r, MALFORMED);
    conv_1d(&r, "Conv");
    r.attrs.conv.pads = (struct ew_ints){ 1, { 1 } };
    EXPECT_FAIL(&r, MISMATCH);
    conv_1d(&r, "Conv");
    r.attrs.conv.pads = (struct ew_ints){ 2, { -1, 0 } };
    EXPECT_FAIL(&r, MALFORMED);
    conv_1d(&r, "Conv");
    r.attrs.conv.group = INT64_MIN;
    EXPECT_FAIL(&r, MALFORMED);
    conv_1d(&r, "ConvTranspose");
    r.attrs.conv.pads = (struct ew_ints){ 2, { 2, 2 } };
    EXPECT_FAIL(&r, MISMATCH);
}

static void test_conv_transpose(void **state)
{
    struct run r;

    (void)state;
    conv_1d(&r, "ConvTranspose");
    r.attrs.conv.strides = (struct ew_ints){ 1, { 2 } };
    r.attrs.conv.output_padding = (struct ew_ints){ 1, { 1 } };
    EXPECT(&r, DIMS(1, 1, 5), F32(1, 10, 2, 20, 0));
    conv_1d(&r, "ConvTranspose");
    r.attrs.conv.output_shape = (struct ew_ints){ 1, { 2 } }; /* pads 1: at the start */
    EXPECT(&r, DIMS(1, 1, 2), F32(12, 20));
}

static void test_pools(void **state)
{
    struct run r;

    (void)state;
    run_init(&r, "MaxPool");
    r.n_out = 2;
    r.attrs.pool.kernel_shape = (struct ew_ints){ 2, { 2, 2 } };
    r.attrs.pool.storage_order = 1;
    IN(&r, I8, DIMS(1, 1, 2, 3), I8(-5, -1, -3, -2, -4, -6));
    EXPECT(&r, DIMS(1, 1, 1, 2), I8(-1, -1));
    assert_int_equal(r.data[1].i64[0], 2); /* row 0, column 1, columns first */
    run_init(&r,
             "AveragePool"); /* ceil_mode: the last window hangs over and counts what is there */
    r.attrs.pool.kernel_shape = (struct ew_ints){ 1, { 2 } };
    r.attrs.pool.strides = (struct ew_ints){ 1, { 2 } };
    r.attrs.pool.ceil_mode = 1;
    r.attrs.pool.count_include_pad = 1;
    IN(&r, F32, DIMS(1, 1, 3), F32(1, 3, 7));
    EXPECT(&r, DIMS(1, 1, 2), F32(2, 7));
    run_init(&r, "MaxPool");
    r.attrs.pool.kernel_shape = (struct ew_ints){ 1, { 0 } };
    IN(&r, F32, DIMS(1, 1, 3), F32(1, 3, 7));
    EXPECT_FAIL(&r, MALFORMED);
    run_init(&r, "GlobalMaxPool");
    IN(&r, F32, DIMS(1, 2, 2), F32(-1, -3, 7, 2));
    EXPECT(&r, DIMS(1, 2, 1), F32(-1, 7));
}

/* ---- norms ---- */

static void test_norms(void **state)
{
    struct run r;

    (void)state;
    run_init(&r, "LayerNormalization");
    r.n_out = 2;
    r.attrs.norm.epsilon = 0;
    IN(&r, F32, DIMS(2, 2), F32(1, 3, 10, 6));
    IN(&r, F32, DIMS(2), F32(1, 10));
    IN(&r, F32, DIMS(2, 1), F32(0, 100)); /* broadcast from row to row */
    EXPECT(&r, DIMS(2, 2), F32(-1, 10, 101, 90));
    assert_true(r.data[1].f32[0] == 2 && r.data[1].f32[1] == 8);
    run_init(&r, "RMSNormalization");
    r.attrs.norm.epsilon = 0;
    IN(&r, F64, DIMS(2), F64(2, 2));
    IN(&r, F64, DIMS(1), F64(3));
    EXPECT(&r, DIMS(2), F64(3, 3));
    run_init(&r, "GroupNormalization");
    r.attrs.norm.num_groups = 1;
    r.attrs.norm.epsilon = 0;
    IN(&r, F32, DIMS(1, 2), F32(1, 3));
    IN(&r, F32, DIMS(2), F32(1, 2));
    IN(&r, F32, DIMS(2), F32(0, 5));
    EXPECT(&r, DIMS(1, 2), F32(-1, 7));
    r.attrs.norm.num_groups = 0;
    EXPECT_FAIL(&r, MISMATCH);
    run_init(&r, "LpNormalization");
    IN(&r, F32, DIMS(2, 2), F32(3, 4, 0, 0));
    EXPECT(&r, DIMS(2, 2), F32(0.6f, 0.8f, 0, 0));
}

/* ---- attention ---- */

static void attention_4d(struct run *r, int64_t q_heads, int64_t kv_heads)
{
    static const float zeros[8], values[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };

    run_init(r, "Attention");
    IN(r, F32, DIMS(1, q_heads, 1, 1), zeros);
    IN(r, F32, DIMS(1, kv_heads, 2, 1), zeros);
    IN(r, F32, DIMS(1, kv_heads, 2, 1), values);
}

static void test_attention(void **state)
{
    struct run r;

    (void)state;
    attention_4d(&r, 4, 2); /* equal weights; two query heads share one of keys */
    EXPECT(&r, DIMS(1, 4, 1, 1), F32(1.5f, 1.5f, 3.5f, 3.5f));
    attention_4d(&r, 1, 1); /* a mask shorter than the keys hides the rest */
    IN(&r, BOOL, DIMS(1, 1), U8(1));
    EXPECT(&r, DIMS(1, 1, 1, 1), F32(1));
    attention_4d(&r, 1, 1);
    IN(&r, F32, DIMS(1, 1), F32(0));
    EXPECT(&r, DIMS(1, 1, 1, 1), F32(1));
    attention_4d(&r, 1, 1); /* nothing to see: zero, not NaN */
    IN(&r, BOOL, DIMS(1, 2), U8(0, 0));
    EXPECT(&r, DIMS(1, 1, 1, 1), F32(0));
    attention_4d(&r, 1, 1);
    IN_ABSENT(&r);
    IN(&r, F32, DIMS(1, 1, 1, 1), F32(0));
    IN(&r, F32, DIMS(1, 1, 1, 1), F32(30));
    EXPECT(&r, DIMS(1, 1, 1, 1), F32(11));
    attention_4d(&r, 3, 2);
    EXPECT_FAIL(&r, MISMATCH);
    attention_4d(&r, 1, 1);
    IN(&r, F32, DIMS(1, 3), F32(0, 0, 0));
    EXPECT_FAIL(&r, MISMATCH);
    attention_4d(&r, 1, 1);
    IN_ABSENT(&r);
    IN(&r, F32, DIMS(1, 1, 1, 1), F32(0));
    EXPECT_FAIL(&r, MALFORMED); /* a past of keys without one of values */
    attention_4d(&r, 1, 1);
    IN_ABSENT(&r);
    IN_ABSENT(&r);
    IN_ABSENT(&r);
    IN(&r, I64, DIMS(1), I64(3));
    EXPECT_FAIL(&r, MISMATCH); /* three of two keys */
}

static void test_rotary(void **state)
{
    struct run r;

    (void)state;
    run_init(&r, "RotaryEmbedding"); /* a quarter turn of the first two of three */
    r.attrs.rotary.num_heads = 1;
    r.attrs.rotary.rotary_embedding_dim = 2;
    IN(&r, F32, DIMS(1, 1, 3), F32(1, 2, 3));
    IN(&r, F32, DIMS(2, 1), F32(1, 0));
    IN(&r, F32, DIMS(2, 1), F32(0, 1));
    IN(&r, I64, DIMS(1, 1), I64(1));
    EXPECT(&r, DIMS(1, 1, 3), F32(-2, 1, 3));
    r.n_in = 3;
    IN(&r, I64, DIMS(1, 1), I64(2));
    EXPECT_FAIL(&r, MISMATCH);
    r.n_in = 3;
    IN(&r, I64, DIMS(1, 1), I64(INT64_MIN));
    EXPECT_FAIL(&r, MISMATCH);
    r.attrs.rotary.num_heads = 0;
    EXPECT_FAIL(&r, MISMATCH);
}

/* ---- quantisation ---- */

static void test_quantize(void **state)
{
    struct run r;

    (void)state;
    run_init(&r, "QuantizeLinear"); /* ties to even, saturation, NaN */
    IN(&r, F32, DIMS(5), F32(1, 3, 1000, -1000, 5));
    IN_SCALAR(&r, F32, F32(2));
    IN_SCALAR(&r, I8, I8(1));
    EXPECT(&r, DIMS(5), I8(1, 3, 127, -128, 3));
    run_init(&r, "QuantizeLinear"); /* packed: the low nibble goes first */
    r.attrs.quant.output_dtype = EW_DTYPE_I4;
    IN(&r, F32, DIMS(3), F32(1, -2, 99));
    IN_SCALAR(&r, F32, F32(1));
    EXPECT(&r, DIMS(3), U8(0xe1));
    assert_int_equal(r.data[0].u8[1] & 15, 7);
    run_init(&r, "DequantizeLinear"); /* blocks of two along axis 0 */
    r.attrs.quant.axis = 0;
    r.attrs.quant.block_size = 2;
    IN(&r, U8, DIMS(3, 1), U8(10, 20, 30));
    IN(&r, F32, DIMS(2, 1), F32(2, 3));
    IN(&r, U8, DIMS(2, 1), U8(1, 2));
    EXPECT(&r, DIMS(3, 1), F32(18, 38, 84));
    r.attrs.quant.block_size = 1;
    EXPECT_FAIL(&r, MISMATCH);
    r.attrs.quant.block_size = -1;
    EXPECT_FAIL(&r, MALFORMED);
    run_init(&r, "DynamicQuantizeLinear");
    r.n_out = 2;
    IN(&r, F32, DIMS(3), F32(-1, 0, 1));
    r.op = EW_OP_DYNAMIC_QUANTIZE_LINEAR;
    EXPECT_FAIL(&r, MALFORMED); /* it has three outputs */
}

/* ---- Einsum ---- */

static void einsum(struct run *r, const char *equation)
{
    run_init(r, "Einsum");
    strncpy(r->attrs.einsum.equation, equation, EW_EINSUM_CAP - 1);
}

static void test_einsum(void **state)
{
    static const char *const bad[] = { "ij->k",     "ij->ii",   "i->i",  "i.j->i", "....->",
                                       "ij,jk->ik", "ij->i->j", "i1->i", "ij-i" };
    struct run r;

    (void)state;
    einsum(&r, "ij,jk"); /* implicit output: ik */
    IN(&r, F32, DIMS(1, 2), F32(1, 2));
    IN(&r, F32, DIMS(2, 1), F32(3, 4));
    EXPECT(&r, DIMS(1, 1), F32(11));
    einsum(&r, "...ii->...i"); /* a diagonal in a batch */
    IN(&r, I32, DIMS(2, 2, 2), I32(1, 2, 3, 4, 5, 6, 7, 8));
    EXPECT(&r, DIMS(2, 2), I32(1, 4, 5, 8));
    einsum(&r, " b a "); /* transposed by the alphabet */
    IN(&r, F32, DIMS(1, 2), F32(1, 2));
    EXPECT(&r, DIMS(2, 1), F32(1, 2));
    einsum(&r, "i,,i->");
    IN(&r, F32, DIMS(2), F32(1, 2));
    IN_SCALAR(&r, F32, F32(10));
    IN(&r, F32, DIMS(2), F32(3, 4));
    EXPECT_SCALAR(&r, F32(110));
    for (size_t i = 0; i < EW_COUNT(bad); i++) {
        einsum(&r, bad[i]);
        IN(&r, F32, DIMS(2, 2), F32(1, 2, 3, 4));
        assert_int_not_equal(run_go(&r), EW_STATUS_OK);
        assert_true(r.err.text[0] != 0);
    }
}

/* ---- Resize ---- */

static void resize(struct run *r, int mode, int coord, const float *scale)
{
    static const float x[] = { 1, 3 };

    run_init(r, "Resize");
    r->attrs.resize.mode = mode;
    r->attrs.resize.coord = coord;
    IN(r, F32, DIMS(2), x);
    IN_ABSENT(r);
    IN(r, F32, DIMS(1), scale);
}

static void test_resize(void **state)
{
    struct run r;

    (void)state;
    resize(&r, EW_RESIZE_LINEAR, EW_COORD_HALF_PIXEL, F32(2));
    EXPECT(&r, DIMS(4), F32(1, 1.5f, 2.5f, 3));
    resize(&r, EW_RESIZE_NEAREST, EW_COORD_ASYMMETRIC, F32(1.5f));
    EXPECT(&r, DIMS(3), F32(1, 3, 3));
    resize(&r, EW_RESIZE_LINEAR, EW_COORD_HALF_PIXEL, F32(0));
    EXPECT_FAIL(&r, MALFORMED);
    resize(&r, EW_RESIZE_LINEAR, EW_COORD_HALF_PIXEL, F32(1e30f));
    EXPECT_FAIL(&r, MALFORMED);
    resize(&r, EW_RESIZE_LINEAR, EW_COORD_HALF_PIXEL, F32(2));
    IN(&r, I64, DIMS(1), I64(4));
    EXPECT_FAIL(&r, MALFORMED); /* both scales and sizes */
    resize(&r, EW_RESIZE_LINEAR, EW_COORD_TF_CROP_AND_RESIZE, F32(2));
    EXPECT_FAIL(&r, MISMATCH); /* no roi */
    run_init(&r, "Resize");    /* not_larger: the smaller of scales 2 and 3 for both */
    r.attrs.resize.policy = EW_KEEP_NOT_LARGER;
    IN(&r, U8, DIMS(1, 1), U8(7));
    IN_ABSENT(&r);
    IN_ABSENT(&r);
    IN(&r, I64, DIMS(2), I64(2, 3));
    EXPECT(&r, DIMS(2, 2), U8(7, 7, 7, 7));
}

/* ---- symbols ---- */

static void test_symbols(void **state)
{
    struct ew_symtab *const syms = ew_symtab_create();
    const int64_t batch = ew_dim_symbol(syms, "batch"), len = ew_dim_symbol(syms, "len");
    const struct ew_type x = ew_type_make(EW_DTYPE_F32, 3, DIMS(batch, 2, len));
    const struct ew_type w = ew_type_make(EW_DTYPE_F32, 3, DIMS(4, 2, 3));
    const struct ew_infer_in in[2] = { { .type = &x }, { .type = &w } };
    static struct ew_infer f;
    union ew_attrs attrs;
    char text[64];

    (void)state;
    assert_non_null(syms);
    ew_op_attrs_init(EW_OP_CONV, &attrs);
    f = (struct ew_infer){
        .syms = syms, .op = EW_OP_CONV, .attrs = &attrs, .n_in = 2, .in = in, .n_out = 1
    };
    attrs.conv.pads = (struct ew_ints){ 2, { 1, 1 } };
    assert_int_equal(ew_op_infer(&f), EW_STATUS_OK);
    assert_true(f.out[0].dim[0] == batch && f.out[0].dim[1] == 4 && f.out[0].dim[2] == len);
    attrs.conv.pads.n = 0;
    assert_int_equal(ew_op_infer(&f), EW_STATUS_OK);
    ew_dim_text(syms, f.out[0].dim[2], text, sizeof(text));
    assert_true(f.out[0].dim[2] == ew_dim_sub(syms, len, 2));
    ew_symtab_destroy(syms);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matmul),         cmocka_unit_test(test_matmul_blocks),
        cmocka_unit_test(test_gemm),           cmocka_unit_test(test_matmul_integer),
        cmocka_unit_test(test_conv),           cmocka_unit_test(test_conv_hostile),
        cmocka_unit_test(test_conv_transpose), cmocka_unit_test(test_pools),
        cmocka_unit_test(test_norms),          cmocka_unit_test(test_attention),
        cmocka_unit_test(test_rotary),         cmocka_unit_test(test_quantize),
        cmocka_unit_test(test_einsum),         cmocka_unit_test(test_resize),
        cmocka_unit_test(test_symbols),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

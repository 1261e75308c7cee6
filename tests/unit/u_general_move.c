/* ew-layers: base os cpu tensor op kernels
 * The edges of movement, indexing and shape operators, and their inference with symbols. */
#include "general_run.h"

static void test_reshape(void **state)
{
    struct run r;

    (void)state;
    run_init(&r, "Reshape");
    IN(&r, I32, DIMS(2, 3), I32(1, 2, 3, 4, 5, 6));
    IN(&r, I64, DIMS(3), I64(0, -1, 1));
    EXPECT(&r, DIMS(2, 3, 1), I32(1, 2, 3, 4, 5, 6));
    run_init(&r, "Reshape");
    r.attrs.reshape.allowzero = 1;
    IN(&r, I32, DIMS(0, 3), NULL);
    IN(&r, I64, DIMS(2), I64(3, 0));
    EXPECT_EMPTY(&r, DIMS(3, 0));
    run_init(&r, "Reshape");
    IN(&r, I32, DIMS(2, 3), I32(1, 2, 3, 4, 5, 6));
    IN(&r, I64, DIMS(2), I64(4, -1));
    EXPECT_FAIL(&r, MISMATCH);
    run_init(&r, "Reshape");
    IN(&r, I32, DIMS(2), I32(1, 2));
    IN(&r, I64, DIMS(2), I64(-1, -1));
    EXPECT_FAIL(&r, MALFORMED);
}

static void test_slice(void **state)
{
    struct run r;

    (void)state;
    run_init(&r, "Slice");
    IN(&r, I32, DIMS(5), I32(0, 1, 2, 3, 4));
    IN(&r, I64, DIMS(1), I64(INT64_MAX));
    IN(&r, I64, DIMS(1), I64(INT64_MIN));
    IN_ABSENT(&r);
    IN(&r, I64, DIMS(1), I64(-2));
    EXPECT(&r, DIMS(3), I32(4, 2, 0));
    run_init(&r, "Slice");
    IN(&r, I32, DIMS(5), I32(0, 1, 2, 3, 4));
    IN(&r, I64, DIMS(1), I64(-3));
    IN(&r, I64, DIMS(1), I64(100));
    EXPECT(&r, DIMS(3), I32(2, 3, 4));
    run_init(&r, "Slice");
    IN(&r, I32, DIMS(5), I32(0, 1, 2, 3, 4));
    IN(&r, I64, DIMS(1), I64(0));
    IN(&r, I64, DIMS(1), I64(5));
    IN(&r, I64, DIMS(1), I64(0));
    IN(&r, I64, DIMS(1), I64(INT64_MIN));
    EXPECT_EMPTY(&r, DIMS(0));
    r.n_in = 4;
    IN(&r, I64, DIMS(1), I64(0));
    EXPECT_FAIL(&r, MALFORMED);
}

static void test_nibbles(void **state)
{
    struct run r;

    (void)state;
    run_init(&r, "Transpose");
    IN(&r, U4, DIMS(3, 3), U8(0x21, 0x43, 0x65, 0x87, 0x09));
    EXPECT(&r, DIMS(3, 3), U8(0x41, 0x27, 0x85, 0x63, 0x09));
    run_init(&r, "Concat");
    IN(&r, U4, DIMS(1), U8(0x01));
    IN(&r, U4, DIMS(2), U8(0x32));
    EXPECT(&r, DIMS(3), U8(0x21, 0x03));
}

static void test_pad(void **state)
{
    struct run r;

    (void)state;
    run_init(&r, "Pad");
    r.attrs.pad.mode = EW_PAD_REFLECT;
    IN(&r, I32, DIMS(3), I32(1, 2, 3));
    IN(&r, I64, DIMS(2), I64(2, 3));
    EXPECT(&r, DIMS(8), I32(3, 2, 1, 2, 3, 2, 1, 2));
    r.n_in = 0;
    r.attrs.pad.mode = EW_PAD_WRAP;
    IN(&r, I32, DIMS(3), I32(1, 2, 3));
    IN(&r, I64, DIMS(2), I64(1, 4));
    EXPECT(&r, DIMS(8), I32(3, 1, 2, 3, 1, 2, 3, 1));
    run_init(&r, "Pad");
    IN(&r, I32, DIMS(2, 3), I32(1, 2, 3, 4, 5, 6));
    IN(&r, I64, DIMS(2), I64(-1, 2));
    IN_SCALAR(&r, I32, I32(9));
    IN(&r, I64, DIMS(1), I64(-1));
    EXPECT(&r, DIMS(2, 4), I32(2, 3, 9, 9, 5, 6, 9, 9));
    run_init(&r, "Pad");
    IN(&r, I32, DIMS(2), I32(1, 2));
    IN(&r, I64, DIMS(2), I64(-3, 0));
    EXPECT_FAIL(&r, MISMATCH);
}

static void test_gather(void **state)
{
    struct run r;

    (void)state;
    run_init(&r, "Gather");
    r.attrs.axis.axis = 1;
    IN(&r, I32, DIMS(2, 3), I32(1, 2, 3, 4, 5, 6));
    IN(&r, I32, DIMS(2), I32(-1, 0));
    EXPECT(&r, DIMS(2, 2), I32(3, 1, 6, 4));
    run_init(&r, "Gather");
    IN(&r, I32, DIMS(2), I32(1, 2));
    IN_SCALAR(&r, I64, I64(2));
    EXPECT_FAIL(&r, MISMATCH);
    run_init(&r, "GatherND");
    IN(&r, I32, DIMS(2, 2), I32(1, 2, 3, 4));
    IN(&r, I64, DIMS(2, 2), I64(0, 0, 1, -3));
    EXPECT_FAIL(&r, MISMATCH);
}

static void test_scatter(void **state)
{
    struct run r;

    (void)state;
    run_init(&r, "ScatterElements");
    r.attrs.scatter.reduction = EW_RED_ADD;
    IN(&r, I32, DIMS(3), I32(1, 2, 3));
    IN(&r, I64, DIMS(3), I64(0, -3, 2));
    IN(&r, I32, DIMS(3), I32(10, 20, 30));
    EXPECT(&r, DIMS(3), I32(31, 2, 33));
    run_init(&r, "ScatterND");
    IN(&r, I32, DIMS(3), I32(1, 2, 3));
    IN(&r, I64, DIMS(1, 1), I64(3));
    IN(&r, I32, DIMS(1), I32(9));
    EXPECT_FAIL(&r, MISMATCH);
    run_init(&r, "TensorScatter");
    r.attrs.tensor_scatter.mode = EW_TS_CIRCULAR;
    r.attrs.tensor_scatter.axis = 1;
    IN(&r, I32, DIMS(1, 3), I32(1, 2, 3));
    IN(&r, I32, DIMS(1, 2), I32(8, 9));
    IN(&r, I64, DIMS(1), I64(5));
    EXPECT(&r, DIMS(1, 3), I32(9, 2, 8));
    r.attrs.tensor_scatter.mode = EW_TS_LINEAR;
    EXPECT_FAIL(&r, MISMATCH);
}

static void test_fill(void **state)
{
    struct run r;

    (void)state;
    run_init(&r, "OneHot");
    IN(&r, I64, DIMS(3), I64(1, -1, 3));
    IN_SCALAR(&r, I64, I64(3));
    IN(&r, I32, DIMS(2), I32(0, 5));
    EXPECT(&r, DIMS(3, 3), I32(0, 5, 0, 0, 0, 5, 0, 0, 0));
    run_init(&r, "Range");
    IN_SCALAR(&r, I64, I64(10));
    IN_SCALAR(&r, I64, I64(4));
    IN_SCALAR(&r, I64, I64(-4));
    EXPECT(&r, DIMS(2), I64(10, 6));
    run_init(&r, "Range");
    IN_SCALAR(&r, F32, F32(0));
    IN_SCALAR(&r, F32, F32(1));
    IN_SCALAR(&r, F32, F32(0));
    EXPECT_FAIL(&r, MALFORMED);
    run_init(&r, "Trilu");
    r.attrs.trilu.upper = 0;
    IN(&r, I32, DIMS(2, 2), I32(1, 2, 3, 4));
    IN_SCALAR(&r, I64, I64(INT64_MIN));
    EXPECT(&r, DIMS(2, 2), I32(0, 0, 0, 0));
    run_init(&r, "ConstantOfShape");
    IN(&r, I64, DIMS(1), I64(-1));
    EXPECT_FAIL(&r, MALFORMED);
    run_init(&r, "ConstantOfShape");
    IN(&r, I64, DIMS(3), I64(INT64_MAX, INT64_MAX, 2));
    EXPECT_FAIL(&r, LIMIT);
}

static void test_split(void **state)
{
    struct run r;

    (void)state;
    run_init(&r, "Split");
    r.n_out = 2;
    r.attrs.split.num_outputs = 2;
    IN(&r, I32, DIMS(5), I32(1, 2, 3, 4, 5));
    EXPECT(&r, DIMS(3), I32(1, 2, 3));
    assert_int_equal(r.out[1].dim[0], 2);
    assert_memory_equal(&r.data[1], I32(4, 5), 8);
    run_init(&r, "Split");
    r.n_out = 2;
    IN(&r, I32, DIMS(3), I32(1, 2, 3));
    IN(&r, I64, DIMS(2), I64(1, 3));
    EXPECT_FAIL(&r, MISMATCH);
}

/* x [batch, seq, 12] with contents that hold symbols. */
static void test_symbols(void **state)
{
    struct ew_symtab *const t = ew_symtab_create();
    const int64_t batch = ew_dim_symbol(t, "batch"), seq = ew_dim_symbol(t, "seq");
    const struct ew_type x = { EW_DTYPE_F32, 3, { batch, seq, 12 } };
    const struct ew_type shape = { EW_DTYPE_I64, 1, { 4 } }, one = { EW_DTYPE_I64, 1, { 1 } };
    const int64_t dims[] = { batch, -1, 3, 4 };
    const int64_t start = -1, end = INT64_MAX, axis = 1;
    struct ew_infer_in in[] = { { .type = &x },
                                { .type = &shape, .dims = dims, .n_dims = 4 },
                                { .type = &one, .data = &end },
                                { .type = &one, .data = &axis } };
    union ew_attrs attrs;
    struct ew_infer f = {
        .syms = t, .op = EW_OP_RESHAPE, .attrs = &attrs, .n_in = 2, .in = in, .n_out = 1
    };

    (void)state;
    ew_op_attrs_init(f.op, &attrs);
    assert_int_equal(ew_op_infer(&f), EW_STATUS_OK);
    assert_int_equal(f.out[0].dim[0], batch);
    assert_int_equal(f.out[0].dim[1], seq);
    in[1].dims = NULL; /* not known: unknowns, but four of them */
    assert_int_equal(ew_op_infer(&f), EW_STATUS_OK);
    assert_true(f.needs_data && f.needs_input == 1 && f.out[0].n_dims == 4);
    f.syms = NULL;
    assert_int_equal(ew_op_infer(&f), EW_STATUS_UNSUPPORTED);
    f.syms = t;
    f.op = EW_OP_SLICE; /* x[:, -1:] */
    f.n_in = 4;
    in[1] = (struct ew_infer_in){ .type = &one, .data = &start };
    assert_int_equal(ew_op_infer(&f), EW_STATUS_OK);
    assert_int_equal(f.out[0].dim[1], 1);
    assert_int_equal(f.out[0].dim[0], batch);
    ew_symtab_destroy(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reshape), cmocka_unit_test(test_slice),
        cmocka_unit_test(test_nibbles), cmocka_unit_test(test_pad),
        cmocka_unit_test(test_gather),  cmocka_unit_test(test_scatter),
        cmocka_unit_test(test_fill),    cmocka_unit_test(test_split),
        cmocka_unit_test(test_symbols),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

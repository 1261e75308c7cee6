/* ew-layers: base os cpu tensor op kernels
 * The edges of reductions, scans and TopK; expected values are numpy's or the ONNX text's. */
#include <math.h>

#include "general_run.h"

static void test_axes(void **state)
{
    struct run r;

    (void)state;
    run_init(&r, "ReduceSum");
    IN(&r, F32, DIMS(2, 3), F32(1, 2, 3, 4, 5, 6));
    IN(&r, I64, DIMS(1), I64(-2));
    r.attrs.reduce.keepdims = 0;
    EXPECT(&r, DIMS(3), F32(5, 7, 9));
    run_init(&r, "ReduceSum");
    IN(&r, F32, DIMS(2, 3), F32(1, 2, 3, 4, 5, 6));
    EXPECT(&r, DIMS(1, 1), F32(21));
    run_init(&r, "ReduceSumSquare"); /* the square stays, nothing is summed */
    r.attrs.reduce.noop_with_empty_axes = 1;
    IN(&r, F32, DIMS(3), F32(1, 2, 3));
    IN(&r, I64, DIMS(0), NULL);
    EXPECT(&r, DIMS(3), F32(1, 4, 9));
    run_init(&r, "ReduceSum");
    IN(&r, F32, DIMS(2), F32(1, 2));
    IN(&r, I64, DIMS(1), I64(1));
    EXPECT_FAIL(&r, MALFORMED);
}

static void test_empty(void **state)
{
    struct run r;

    (void)state;
    run_init(&r, "ReduceMax");
    IN(&r, F32, DIMS(2, 0), NULL);
    IN(&r, I64, DIMS(1), I64(1));
    EXPECT(&r, DIMS(2, 1), F32(-INFINITY, -INFINITY));
    run_init(&r, "ReduceMin");
    IN(&r, I8, DIMS(0), NULL);
    EXPECT(&r, DIMS(1), I8(127));
    run_init(&r, "ReduceProd");
    IN(&r, F32, DIMS(0, 2), NULL);
    IN(&r, I64, DIMS(1), I64(0));
    r.attrs.reduce.keepdims = 0;
    EXPECT(&r, DIMS(2), F32(1, 1));
    run_init(&r, "ReduceLogSumExp");
    IN(&r, F32, DIMS(2), F32(1000, 1000));
    assert_int_equal(run_go(&r), EW_STATUS_OK);
    assert_float_equal(r.data[0].f32[0], 1000.6931f, 1e-3f);
}

static void test_arg(void **state)
{
    struct run r;

    (void)state;
    run_init(&r, "ArgMax");
    IN(&r, I32, DIMS(2, 3), I32(1, 3, 3, 2, 2, 1));
    r.attrs.arg.axis = -1;
    EXPECT(&r, DIMS(2, 1), I64(1, 0));
    r.n_in = 0;
    r.attrs.arg.select_last_index = 1;
    r.attrs.arg.keepdims = 0;
    IN(&r, I32, DIMS(2, 3), I32(1, 3, 3, 2, 2, 1));
    EXPECT(&r, DIMS(2), I64(2, 1));
    run_init(&r, "ArgMin");
    IN(&r, F32, DIMS(0), NULL);
    EXPECT_FAIL(&r, MISMATCH);
}

static void test_cum_sum(void **state)
{
    struct run r;

    (void)state;
    run_init(&r, "CumSum");
    r.attrs.cumsum.exclusive = 1;
    r.attrs.cumsum.reverse = 1;
    IN(&r, I32, DIMS(3), I32(1, 2, 3));
    IN_SCALAR(&r, I32, I32(0));
    EXPECT(&r, DIMS(3), I32(5, 3, 0));
    run_init(&r, "CumSum");
    IN(&r, F32, DIMS(2, 2), F32(1, 2, 3, 4));
    IN_SCALAR(&r, I64, I64(-2));
    EXPECT(&r, DIMS(2, 2), F32(1, 2, 4, 6));
    run_init(&r, "CumSum");
    IN(&r, F32, DIMS(2), F32(1, 2));
    IN_SCALAR(&r, I64, I64(1));
    EXPECT_FAIL(&r, MALFORMED);
}

static void test_softmax(void **state)
{
    struct run r;

    (void)state;
    run_init(&r, "Softmax");
    r.attrs.axis.axis = 0;
    IN(&r, F32, DIMS(2, 2), F32(1e30f, 0, 1e30f, -INFINITY));
    EXPECT(&r, DIMS(2, 2), F32(0.5f, 1, 0.5f, 0));
    run_init(&r, "Hardmax");
    IN(&r, F32, DIMS(3), F32(1, 4, 4));
    EXPECT(&r, DIMS(3), F32(0, 1, 0));
}

static void test_top_k(void **state)
{
    struct run r;

    (void)state;
    run_init(&r, "TopK");
    r.n_out = 2;
    IN(&r, F32, DIMS(5), F32(1, 7, 7, NAN, 0));
    IN(&r, I64, DIMS(1), I64(4));
    assert_int_equal(run_go(&r), EW_STATUS_OK);
    assert_memory_equal(&r.data[1], I64(3, 1, 2, 0), 4 * sizeof(int64_t));
    run_init(&r, "TopK");
    r.n_out = 2;
    r.attrs.top_k.largest = 0;
    r.attrs.top_k.axis = 0;
    IN(&r, I32, DIMS(3, 2), I32(3, 1, 2, 1, 1, 9));
    IN(&r, I64, DIMS(1), I64(2));
    EXPECT(&r, DIMS(2, 2), I32(1, 1, 2, 1));
    assert_memory_equal(&r.data[1], I64(2, 0, 1, 1), 4 * sizeof(int64_t));
    run_init(&r, "TopK");
    r.n_out = 2;
    IN(&r, F32, DIMS(2), F32(1, 2));
    IN(&r, I64, DIMS(1), I64(3));
    EXPECT_FAIL(&r, MISMATCH);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_axes),    cmocka_unit_test(test_empty),
        cmocka_unit_test(test_arg),     cmocka_unit_test(test_cum_sum),
        cmocka_unit_test(test_softmax), cmocka_unit_test(test_top_k),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

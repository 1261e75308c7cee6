/* ew-layers: base os cpu tensor op kernels
 * The edges of the elementwise general operators; expected values are numpy's or the ONNX text's.
 */
#include <math.h>

#include "general_run.h"

static void test_broadcast(void **state)
{
    struct run r;

    (void)state;
    run_init(&r, "Add");
    IN(&r, F32, DIMS(2, 1), F32(1, 10));
    IN(&r, F32, DIMS(3), F32(1, 2, 3));
    EXPECT(&r, DIMS(2, 3), F32(2, 3, 4, 11, 12, 13));
    run_init(&r, "Add");
    IN(&r, F32, DIMS(0, 1), NULL);
    IN(&r, F32, DIMS(1, 3), F32(1, 2, 3));
    EXPECT_EMPTY(&r, DIMS(0, 3));
    run_init(&r, "Add");
    IN(&r, F32, DIMS(2), F32(1, 2));
    IN(&r, F32, DIMS(3), F32(1, 2, 3));
    EXPECT_FAIL(&r, MISMATCH);
    run_init(&r, "Add");
    IN(&r, F32, DIMS(1), F32(1));
    IN(&r, I64, DIMS(1), I64(1));
    EXPECT_FAIL(&r, MISMATCH);
}

static void test_integer_division(void **state)
{
    struct run r;

    (void)state;
    run_init(&r, "Div");
    IN(&r, I32, DIMS(4), I32(-7, 7, INT32_MIN, 5));
    IN(&r, I32, DIMS(4), I32(2, -2, -1, 0));
    EXPECT(&r, DIMS(4), I32(-3, -3, INT32_MIN, 0));
    run_init(&r, "Div");
    IN(&r, I64, DIMS(2), I64(INT64_MIN, 1));
    IN(&r, I64, DIMS(2), I64(-1, 0));
    EXPECT(&r, DIMS(2), I64(INT64_MIN, 0));
    run_init(&r, "Mod");
    IN(&r, I32, DIMS(5), I32(-7, 7, -7, INT32_MIN, 3));
    IN(&r, I32, DIMS(5), I32(3, -3, -3, -1, 0));
    EXPECT(&r, DIMS(5), I32(2, -2, -1, 0, 0));
    run_init(&r, "Mod");
    r.attrs.mod.fmod = 1;
    IN(&r, I32, DIMS(2), I32(-7, 7));
    IN(&r, I32, DIMS(2), I32(3, -3));
    EXPECT(&r, DIMS(2), I32(-1, 1));
    run_init(&r, "Mod");
    IN(&r, F32, DIMS(1), F32(1));
    IN(&r, F32, DIMS(1), F32(1));
    EXPECT_FAIL(&r, MALFORMED);
}

static void test_wrap_and_shift(void **state)
{
    struct run r;

    (void)state;
    run_init(&r, "Add");
    IN(&r, I8, DIMS(2), I8(127, -128));
    IN(&r, I8, DIMS(2), I8(1, -1));
    EXPECT(&r, DIMS(2), I8(-128, 127));
    run_init(&r, "BitShift");
    r.attrs.bit_shift.left = 1;
    IN(&r, U8, DIMS(3), U8(255, 255, 1));
    IN(&r, U8, DIMS(3), U8(4, 9, 200));
    EXPECT(&r, DIMS(3), U8(240, 0, 0));
    run_init(&r, "Pow");
    IN(&r, I32, DIMS(4), I32(-3, 2, 0, -1));
    IN(&r, I64, DIMS(4), I64(3, -1, -1, -3));
    EXPECT(&r, DIMS(4), I32(-27, 0, 0, -1));
}

static void test_nan_and_rounding(void **state)
{
    struct run r;

    (void)state;
    run_init(&r, "Max");
    IN(&r, F32, DIMS(3), F32(NAN, 1, 2));
    IN(&r, F32, DIMS(3), F32(1, NAN, 1));
    assert_int_equal(run_go(&r), EW_STATUS_OK);
    assert_true(isnan(r.data[0].f32[0]) && isnan(r.data[0].f32[1]) && r.data[0].f32[2] == 2);
    run_init(&r, "Round");
    IN(&r, F32, DIMS(5), F32(0.5f, 1.5f, 2.5f, -1.5f, 2.4f));
    EXPECT(&r, DIMS(5), F32(0, 2, 2, -2, 2));
    run_init(&r, "Relu");
    IN(&r, F32, DIMS(1), F32(NAN));
    assert_int_equal(run_go(&r), EW_STATUS_OK);
    assert_true(isnan(r.data[0].f32[0]));
}

static void test_clip(void **state)
{
    struct run r;

    (void)state;
    run_init(&r, "Clip");
    IN(&r, F32, DIMS(3), F32(-1, 0, 5));
    IN_ABSENT(&r);
    IN_SCALAR(&r, F32, F32(2));
    EXPECT(&r, DIMS(3), F32(-1, 0, 2));
    run_init(&r, "Clip"); /* min > max: max everywhere */
    IN(&r, F32, DIMS(3), F32(-1, 0, 5));
    IN_SCALAR(&r, F32, F32(4));
    IN_SCALAR(&r, F32, F32(2));
    EXPECT(&r, DIMS(3), F32(2, 2, 2));
}

static void test_cast(void **state)
{
    struct run r;

    (void)state;
    run_init(&r, "Cast");
    r.attrs.cast.to = EW_DTYPE_I32;
    IN(&r, F32, DIMS(4), F32(-1.9f, 1.9f, NAN, INFINITY));
    EXPECT(&r, DIMS(4), I32(-1, 1, 0, INT32_MAX));
    run_init(&r, "Cast");
    r.attrs.cast.to = EW_DTYPE_I8;
    IN(&r, I32, DIMS(2), I32(200, -129));
    EXPECT(&r, DIMS(2), I8(-56, 127));
    run_init(&r, "Cast");
    r.attrs.cast.to = EW_DTYPE_F8E4M3;
    IN(&r, F32, DIMS(5), F32(448, 1e9f, -0.0f, 0.001953125f, 17));
    EXPECT(&r, DIMS(5), U8(0x7e, 0x7e, 0x80, 0x01, 0x58));
    run_init(&r, "Cast");
    r.attrs.cast.to = EW_DTYPE_F8E5M2;
    r.attrs.cast.saturate = 0;
    IN(&r, F32, DIMS(2), F32(1e9f, -INFINITY));
    EXPECT(&r, DIMS(2), U8(0x7c, 0xfc));
    run_init(&r, "Cast");
    r.attrs.cast.to = EW_DTYPE_F8E4M3FNUZ;
    IN(&r, F32, DIMS(3), F32(-0.0f, NAN, 240));
    EXPECT(&r, DIMS(3), U8(0x00, 0x80, 0x7f));
    run_init(&r, "Cast"); /* two to a byte, low nibble first */
    r.attrs.cast.to = EW_DTYPE_I4;
    IN(&r, I32, DIMS(3), I32(-1, 3, -8));
    EXPECT(&r, DIMS(3), U8(0x3f, 0x08));
    run_init(&r, "Cast");
    r.attrs.cast.to = EW_DTYPE_F8E8M0;
    IN(&r, F32, DIMS(3), F32(1, 3, 4));
    EXPECT(&r, DIMS(3), U8(127, 129, 129));
    run_init(&r, "Cast"); /* one rounding: 1 + 2^-11 + 2^-30 is above the tie */
    r.attrs.cast.to = EW_DTYPE_F16;
    IN(&r, F64, DIMS(1), (const double[]){ 1 + 0x1p-11 + 0x1p-30 });
    EXPECT(&r, DIMS(1), (const uint16_t[]){ 0x3c01 });
}

static void test_where_and_logic(void **state)
{
    struct run r;

    (void)state;
    run_init(&r, "Where");
    IN(&r, BOOL, DIMS(2, 1), U8(1, 0));
    IN(&r, I64, DIMS(2), I64(1, 2));
    IN_SCALAR(&r, I64, I64(9));
    EXPECT(&r, DIMS(2, 2), I64(1, 2, 9, 9));
    run_init(&r, "Xor");
    IN(&r, BOOL, DIMS(4), U8(0, 0, 1, 1));
    IN(&r, BOOL, DIMS(4), U8(0, 1, 0, 1));
    EXPECT(&r, DIMS(4), U8(0, 1, 1, 0));
    run_init(&r, "Sin");
    IN(&r, I32, DIMS(1), I32(1));
    EXPECT_FAIL(&r, UNSUPPORTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_broadcast),
        cmocka_unit_test(test_integer_division),
        cmocka_unit_test(test_wrap_and_shift),
        cmocka_unit_test(test_nan_and_rounding),
        cmocka_unit_test(test_clip),
        cmocka_unit_test(test_cast),
        cmocka_unit_test(test_where_and_logic),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

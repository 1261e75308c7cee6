/* The op table: names, arities, schemas, defaults; dispatch and the LLM group of inference.
 * ew-layers: base os tensor op */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "op/op.h"

static void test_every_op_is_whole(void **state)
{
    (void)state;
    for (int i = EW_OP_NONE + 1; i < EW_OP_COUNT; i++) {
        const struct ew_op_info *info = ew_op_get((ew_op)i);
        assert_non_null(info);
        assert_int_equal(info->op, i);
        assert_int_equal(ew_op_find(info->name), i);
        assert_true(info->min_in <= info->max_in && info->min_out <= info->max_out);
        assert_true(info->attr_bytes <= sizeof(union ew_attrs));
        for (const struct ew_attr_field *f = info->fields; f->name; f++) {
            assert_true(f->offset < info->attr_bytes);
            assert_true((f->type == EW_FIELD_ENUM) == (f->names != NULL));
            assert_true((f->type == EW_FIELD_TEXT) == (f->cap > 0));
        }
    }
    assert_null(ew_op_get(EW_OP_NONE));
    assert_null(ew_op_get(EW_OP_COUNT));
    assert_int_equal(ew_op_find("add"), EW_OP_NONE);
    assert_int_equal(ew_op_find("Add"), EW_OP_ADD);
    assert_int_equal(ew_op_find("KvAttention"), EW_OP_KV_ATTENTION);
}

/* What special entries repeat of the table must agree with it. */
static void test_special_entries_keep_arity(void **state)
{
    static const struct {
        ew_op op;
        int min_in, max_in, max_out;
    } want[] = {
#define OP(id, name, min_in, max_in, min_out, max_out, attrs, group)                               \
    { EW_OP_##id, min_in, max_in, max_out },
#include "op/ops.inc"
#undef OP
    };

    (void)state;
    for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
        const struct ew_op_info *info = ew_op_get(want[i].op);
        assert_int_equal(info->min_in, want[i].min_in);
        assert_int_equal(info->max_in, want[i].max_in);
        assert_int_equal(info->max_out, want[i].max_out);
    }
}

static union ew_attrs defaults(ew_op op)
{
    union ew_attrs a;

    memset(&a, 0xff, sizeof(a));
    ew_op_attrs_init(op, &a);
    return a;
}

/* Values of the ONNX operator documents. */
static void test_defaults(void **state)
{
    (void)state;
    assert_true(defaults(EW_OP_ELU).alpha.alpha == 1.0f);
    assert_true(defaults(EW_OP_LEAKY_RELU).alpha.alpha == 0.01f);
    assert_true(defaults(EW_OP_THRESHOLDED_RELU).alpha.alpha == 1.0f);
    assert_true(defaults(EW_OP_HARD_SIGMOID).alpha_beta.alpha == 0.2f);
    assert_true(defaults(EW_OP_HARD_SIGMOID).alpha_beta.beta == 0.5f);
    assert_true(defaults(EW_OP_SELU).alpha_beta.alpha == 1.67326319217681884765625f);
    assert_true(defaults(EW_OP_SELU).alpha_beta.beta == 1.05070102214813232421875f);
    assert_true(defaults(EW_OP_SHRINK).alpha_beta.alpha == 0.0f);
    assert_true(defaults(EW_OP_SHRINK).alpha_beta.beta == 0.5f);
    assert_int_equal(defaults(EW_OP_SOFTMAX).axis.axis, -1);
    assert_int_equal(defaults(EW_OP_FLATTEN).axis.axis, 1);
    assert_int_equal(defaults(EW_OP_GATHER).axis.axis, 0);
    assert_int_equal(defaults(EW_OP_ONE_HOT).axis.axis, -1);
    assert_int_equal(defaults(EW_OP_TOP_K).top_k.axis, -1);
    assert_int_equal(defaults(EW_OP_TOP_K).top_k.largest, 1);
    assert_int_equal(defaults(EW_OP_REDUCE_SUM).reduce.keepdims, 1);
    assert_int_equal(defaults(EW_OP_CAST).cast.saturate, 1);
    assert_true(defaults(EW_OP_LAYER_NORM).norm.epsilon == 1e-5f);
    assert_int_equal(defaults(EW_OP_LAYER_NORM).norm.axis, -1);
    assert_int_equal(defaults(EW_OP_LP_NORM).lp_norm.p, 2);
    assert_int_equal(defaults(EW_OP_QUANTIZE_LINEAR).quant.axis, 1);
    assert_int_equal(defaults(EW_OP_CONV).conv.group, 1);
    assert_int_equal(defaults(EW_OP_CONV).conv.strides.n, 0);
    assert_true(defaults(EW_OP_GEMM).gemm.beta == 1.0f);
    assert_true(defaults(EW_OP_RESIZE).resize.cubic_coeff_a == -0.75f);
    assert_int_equal(defaults(EW_OP_TENSOR_SCATTER).tensor_scatter.axis, -2);
    assert_int_equal(defaults(EW_OP_TRILU).trilu.upper, 1);
    assert_int_equal(defaults(EW_OP_KV_ATTENTION).kv_attention.sliding_window_size, -1);
    assert_int_equal(defaults(EW_OP_KV_ATTENTION).kv_attention.use_rope, 1);
    assert_true(defaults(EW_OP_LINEAR).linear.scale == 1.0f);
}

static void test_attrs_equal(void **state)
{
    union ew_attrs a = defaults(EW_OP_CONV), b = defaults(EW_OP_CONV);

    (void)state;
    a.conv.strides.v[3] = 9; /* beyond n: not part of the value */
    assert_true(ew_op_attrs_equal(EW_OP_CONV, &a, &b));
    a.conv.strides.n = 1;
    assert_false(ew_op_attrs_equal(EW_OP_CONV, &a, &b));
    a = b = defaults(EW_OP_POINTWISE);
    a.pointwise.n_instr = b.pointwise.n_instr = 1;
    a.pointwise.instr[0].imm = 1.0f;
    assert_false(ew_op_attrs_equal(EW_OP_POINTWISE, &a, &b));
    a = b = defaults(EW_OP_EINSUM);
    strcpy(a.einsum.equation, "ij->ji");
    assert_false(ew_op_attrs_equal(EW_OP_EINSUM, &a, &b));
    ew_op_attr_copy_field(ew_op_get(EW_OP_EINSUM)->fields, &b, &a);
    assert_true(ew_op_attrs_equal(EW_OP_EINSUM, &a, &b));
}

static struct ew_type type(ew_dtype d, int n, int64_t a, int64_t b, int64_t c)
{
    const int64_t dims[3] = { a, b, c };

    return ew_type_make(d, n, dims);
}

static ew_status infer(ew_op op, const union ew_attrs *attrs, const struct ew_type *const *in,
                       int n, int n_out, struct ew_infer *f, ew_error *err)
{
    struct ew_infer_in ins[13];

    memset(ins, 0, sizeof(ins));
    memset(f, 0, sizeof(*f));
    memset(err, 0, sizeof(*err));
    for (int i = 0; i < n; i++)
        ins[i].type = in[i];
    f->op = op;
    f->attrs = attrs;
    f->n_in = n;
    f->in = ins;
    f->n_out = n_out;
    f->err = err;
    return ew_op_infer(f);
}

static void test_linear(void **state)
{
    const struct ew_type x = type(EW_DTYPE_F32, 3, 2, 5, 8), w = type(EW_DTYPE_BF16, 2, 6, 8, 0);
    const struct ew_type narrow = type(EW_DTYPE_BF16, 2, 6, 7, 0);
    const struct ew_type *in[2] = { &x, &w };
    union ew_attrs a = defaults(EW_OP_LINEAR);
    struct ew_infer f;
    ew_error err;

    (void)state;
    assert_int_equal(infer(EW_OP_LINEAR, &a, in, 2, 1, &f, &err), EW_STATUS_OK);
    assert_int_equal(f.out[0].dim[2], 6);
    a.linear.glu = 1;
    assert_int_equal(infer(EW_OP_LINEAR, &a, in, 2, 1, &f, &err), EW_STATUS_OK);
    assert_int_equal(f.out[0].dim[2], 3);
    in[1] = &narrow;
    assert_int_equal(infer(EW_OP_LINEAR, &a, in, 2, 1, &f, &err), EW_STATUS_MISMATCH);
    assert_non_null(strstr(err.text, "7"));
    assert_non_null(strstr(err.text, "8"));
    in[1] = NULL;
    assert_int_equal(infer(EW_OP_LINEAR, &a, in, 2, 1, &f, &err), EW_STATUS_MALFORMED);
    assert_int_equal(infer(EW_OP_LINEAR, &a, in, 1, 1, &f, &err), EW_STATUS_MALFORMED);
}

static void test_kv_attention(void **state)
{
    const int64_t kv_dims[5] = { 2, 2, 2, 64, 4 };
    const struct ew_type q = type(EW_DTYPE_F32, 3, 2, 5, 16), k = type(EW_DTYPE_F32, 3, 2, 5, 8);
    const struct ew_type kv = ew_type_make(EW_DTYPE_F16, 5, kv_dims);
    const struct ew_type len = type(EW_DTYPE_I32, 1, 2, 0, 0),
                         rope = type(EW_DTYPE_F32, 3, 1, 64, 4);
    const struct ew_type *in[13] = { &q, &k, &k, &kv, &len, &rope };
    union ew_attrs a = defaults(EW_OP_KV_ATTENTION);
    struct ew_infer f;
    ew_error err;

    (void)state;
    a.kv_attention.num_q_heads = 4;
    a.kv_attention.num_kv_heads = 2;
    a.kv_attention.head_size = 4;
    assert_int_equal(infer(EW_OP_KV_ATTENTION, &a, in, 7, 2, &f, &err), EW_STATUS_OK);
    assert_true(ew_type_equal(&f.out[0], &q));
    assert_true(ew_type_equal(&f.out[1], &kv));
    struct ew_type other = kv; /* an i8 row has 4 bytes of scale behind its codes */
    in[3] = &other;
    other.dtype = EW_DTYPE_F8E4M3;
    assert_int_equal(infer(EW_OP_KV_ATTENTION, &a, in, 7, 2, &f, &err), EW_STATUS_OK);
    other.dtype = EW_DTYPE_I8;
    assert_int_equal(infer(EW_OP_KV_ATTENTION, &a, in, 7, 2, &f, &err), EW_STATUS_MISMATCH);
    assert_non_null(strstr(err.text, "is 4, needed of i8 with head_size 4 is 8"));
    other.dim[4] = 8;
    assert_int_equal(infer(EW_OP_KV_ATTENTION, &a, in, 7, 2, &f, &err), EW_STATUS_OK);
    assert_true(ew_type_equal(&f.out[1], &other));
    other.dtype = EW_DTYPE_F8E4M3;
    assert_int_equal(infer(EW_OP_KV_ATTENTION, &a, in, 7, 2, &f, &err), EW_STATUS_MISMATCH);
    other.dtype = EW_DTYPE_U8;
    assert_int_equal(infer(EW_OP_KV_ATTENTION, &a, in, 7, 2, &f, &err), EW_STATUS_MISMATCH);
    in[3] = &kv;
    const struct ew_type scales = type(EW_DTYPE_F32, 2, 2, 2, 0),
                         few = type(EW_DTYPE_F32, 2, 2, 1, 0);
    in[12] = &scales;
    assert_int_equal(infer(EW_OP_KV_ATTENTION, &a, in, 13, 2, &f, &err), EW_STATUS_OK);
    in[12] = &few;
    assert_int_equal(infer(EW_OP_KV_ATTENTION, &a, in, 13, 2, &f, &err), EW_STATUS_MISMATCH);
    in[2] = NULL;
    assert_int_equal(infer(EW_OP_KV_ATTENTION, &a, in, 7, 2, &f, &err), EW_STATUS_MISMATCH);
    in[2] = &k;
    a.kv_attention.packed_qkv = 1;
    assert_int_equal(infer(EW_OP_KV_ATTENTION, &a, in, 7, 2, &f, &err), EW_STATUS_MISMATCH);
    a.kv_attention.packed_qkv = 0;
    a.kv_attention.num_kv_heads = 3;
    assert_int_equal(infer(EW_OP_KV_ATTENTION, &a, in, 7, 2, &f, &err), EW_STATUS_MALFORMED);
    a.kv_attention.num_kv_heads = 2;
    a.kv_attention.qk_norm = EW_QK_NORM_HEAD;
    assert_int_equal(infer(EW_OP_KV_ATTENTION, &a, in, 7, 2, &f, &err), EW_STATUS_MISMATCH);
}

static void test_pointwise_programs_are_checked(void **state)
{
    const struct ew_type x = type(EW_DTYPE_F32, 2, 2, 5, 0);
    const struct ew_type *in[1] = { &x };
    union ew_attrs a = defaults(EW_OP_POINTWISE);
    struct ew_infer f;
    ew_error err;

    (void)state;
    assert_int_equal(infer(EW_OP_POINTWISE, &a, in, 1, 1, &f, &err), EW_STATUS_MALFORMED);
    a.pointwise.n_instr = 1;
    a.pointwise.instr[0] = (struct ew_pw_instr){ EW_PW_ADD, 1, 0, 0, 0 };
    assert_int_equal(infer(EW_OP_POINTWISE, &a, in, 1, 1, &f, &err), EW_STATUS_OK);
    a.pointwise.instr[0].b = 3; /* never written */
    assert_int_equal(infer(EW_OP_POINTWISE, &a, in, 1, 1, &f, &err), EW_STATUS_MALFORMED);
    a.pointwise.instr[0].b = 200;
    assert_int_equal(infer(EW_OP_POINTWISE, &a, in, 1, 1, &f, &err), EW_STATUS_MALFORMED);
    a.pointwise.instr[0].b = 0;
    a.pointwise.instr[0].op = EW_PW_OP_COUNT;
    assert_int_equal(infer(EW_OP_POINTWISE, &a, in, 1, 1, &f, &err), EW_STATUS_MALFORMED);
}

static void test_broadcast(void **state)
{
    struct ew_symtab *t = ew_symtab_create();
    const int64_t s = ew_dim_symbol(t, "s"), u = ew_dim_symbol(t, "u");
    struct ew_type a = type(EW_DTYPE_F32, 3, 1, s, 4), b = type(EW_DTYPE_F32, 2, 3, 1, 0), r;
    ew_error err = { EW_STATUS_OK, "" };
    struct ew_infer f = { .syms = t, .err = &err };

    (void)state;
    assert_int_equal(ew_infer_broadcast(&f, &a, &b, &r), EW_STATUS_OK);
    assert_true(r.n_dims == 3 && r.dim[0] == 1 && r.dim[1] == 3 && r.dim[2] == 4);
    b.dim[0] = u;
    assert_int_equal(ew_infer_broadcast(&f, &a, &b, &r), EW_STATUS_OK);
    assert_true(r.dim[1] == ew_dim_max(t, s, u));
    b.dim[1] = 5;
    assert_int_equal(ew_infer_broadcast(&f, &a, &b, &r), EW_STATUS_MISMATCH);
    assert_non_null(strstr(err.text, "4"));
    assert_non_null(strstr(err.text, "5"));
    ew_symtab_destroy(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_op_is_whole),
        cmocka_unit_test(test_special_entries_keep_arity),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_attrs_equal),
        cmocka_unit_test(test_linear),
        cmocka_unit_test(test_kv_attention),
        cmocka_unit_test(test_pointwise_programs_are_checked),
        cmocka_unit_test(test_broadcast),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

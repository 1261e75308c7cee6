/* onnx/import_quant.c - quantisation ops that are not ONNX's own, matched by op type whatever the
 * domain: the int4 product of the LLM contract, TensorRT's quantisers, and MatMulNBits.
 *
 * Weights become quantised constants that read the file's tensors where they are. Quantisers
 * become QuantizeLinear, DequantizeLinear and BlockQuantize, which pass/lower_x_quant takes in. */
#include <string.h>

#include "onnx/int4_plugin.h"
#include "onnx/onnx_int.h"

static bool is_plain_const(const struct ew_value *v)
{
    return v && v->is_const && !v->con.n_parts && v->con.data;
}

static ew_status want_const(struct ew_onnx_node *n, int i, const char *what)
{
    const struct ew_value *v = ew_onnx_input(n, i);

    if (!v)
        return ew_fail(n->in->err, EW_STATUS_MALFORMED, "input %d (%s) is missing", i, what);
    return is_plain_const(v)
               ? EW_STATUS_OK
               : ew_onnx_refuse(n, "input %d (%s, '%s') is no constant", i, what, v->name);
}

static ew_status want_int(struct ew_onnx_node *n, const char *name, int64_t lo, int64_t hi,
                          int64_t *out)
{
    EW_TRY(ew_onnx_attr_int(n, name, 0, out));
    return *out >= lo && *out <= hi
               ? EW_STATUS_OK
               : ew_onnx_refuse(n, "attribute %s = %lld is missing or out of range", name,
                                (long long)*out);
}

static ew_status want_type(struct ew_onnx_node *n, int i, const char *what, int64_t rows,
                           int64_t cols)
{
    const struct ew_type *t = &n->x[i]->type;

    if (t->n_dims != 2 || t->dim[0] != rows || t->dim[1] != cols)
        return ew_fail(n->in->err, EW_STATUS_MISMATCH,
                       "%s '%s' have rank %d and %lld rows, needed is [%lld, %lld]", what,
                       n->x[i]->name, t->n_dims, t->n_dims ? (long long)t->dim[0] : 0,
                       (long long)rows, (long long)cols);
    return EW_STATUS_OK;
}

/* y = x W^T over a source. */
static ew_status emit_linear(struct ew_onnx_node *n, const struct ew_quant_source *src,
                             struct ew_value *bias)
{
    struct ew_value *x[3] = { n->x[0], NULL, bias };
    struct ew_node *node;

    if (src)
        x[1] = ew_graph_add_const_quant(n->in->g, src->name, src, 0, src->n);
    if (!x[1])
        return ew_onnx_no_memory(n);
    EW_TRY(ew_onnx_emit(n, "", EW_OP_LINEAR, NULL, x, bias ? 3 : 2, 1, &node));
    return ew_onnx_set_output(n, 0, node->out[0]);
}

/* x [..,K], qweight i8 [N/2,K], scales [K/g,N]. */
static ew_status import_int4_plugin(struct ew_onnx_node *n)
{
    int64_t rows, cols, group;

    EW_TRY(want_int(n, "gemm_n", 4, INT32_MAX, &rows));
    EW_TRY(want_int(n, "gemm_k", 64, INT32_MAX, &cols));
    EW_TRY(want_int(n, "group_size", 8, INT32_MAX, &group));
    EW_TRY(ew_onnx_attrs_all_used(n));
    if (rows % 4 || cols % 64 || group % 8 || cols % group)
        return ew_onnx_refuse(n, "gemm_n %lld, gemm_k %lld, group_size %lld do not fit the packing",
                              (long long)rows, (long long)cols, (long long)group);
    if (n->n_x != 3 || !n->x[0])
        return ew_fail(n->in->err, EW_STATUS_MALFORMED, "%d inputs, expected 3", n->n_x);
    EW_TRY(want_const(n, 1, "weight"));
    EW_TRY(want_const(n, 2, "scales"));
    EW_TRY(want_type(n, 1, "weights", rows / 2, cols));
    EW_TRY(want_type(n, 2, "scales", cols / group, rows));
    const ew_dtype code = n->x[1]->type.dtype, scale = n->x[2]->type.dtype;
    if ((code != EW_DTYPE_I8 && code != EW_DTYPE_U8) ||
        (scale != EW_DTYPE_F16 && scale != EW_DTYPE_F32 && scale != EW_DTYPE_BF16))
        return ew_onnx_refuse(n, "weights of %s with scales of %s", ew_dtype_text(code),
                              ew_dtype_text(scale));
    return emit_linear(n,
                       ew_onnx_int4_source(&n->in->g->arena, n->x[1]->name, (size_t)rows,
                                           (size_t)cols, (uint32_t)group, n->x[1]->con.data,
                                           n->x[2]->con.data, scale),
                       NULL);
}

/* ---- com.microsoft::MatMulNBits ---- */

static ew_status nbits_zeros(struct ew_onnx_node *n, struct ew_quant_strided *q, size_t groups)
{
    const unsigned bits = ew_quant_code_bits(q->base.format.code);
    const size_t row = bits == 4 ? (groups + 1) / 2 * 2 : groups; /* rows start at bytes */
    const size_t want = q->base.n * (row * bits / 8);
    size_t have;

    if (!ew_onnx_input(n, 3)) {
        q->flip = bits == 4 ? 8 : 128;
        q->base.format.code = bits == 4 ? EW_DTYPE_I4 : EW_DTYPE_I8;
        return EW_STATUS_OK;
    }
    EW_TRY(want_const(n, 3, "zero points"));
    if (n->x[3]->type.dtype != EW_DTYPE_U8)
        return ew_onnx_refuse(n, "zero points of %s", ew_dtype_text(n->x[3]->type.dtype));
    if (!ew_type_bytes(&n->x[3]->type, &have) || have != want)
        return ew_fail(n->in->err, EW_STATUS_MISMATCH, "zero points '%s' have %zu bytes, not %zu",
                       n->x[3]->name, have, want);
    q->base.format.zero = 1;
    q->zeros = n->x[3]->con.data;
    q->zero_dtype = bits == 4 ? EW_DTYPE_U4 : EW_DTYPE_U8;
    q->zero_row = (ptrdiff_t)row;
    q->zero_col = 1;
    return EW_STATUS_OK;
}

/* B u8 [N, blocks, block * bits / 8], scales of N * blocks elements. */
static ew_status nbits_tensors(struct ew_onnx_node *n, struct ew_quant_strided *q, size_t groups)
{
    const ew_dtype scale = n->x[2]->type.dtype;
    const unsigned bits = ew_quant_code_bits(q->base.format.code);
    const size_t row = groups * q->base.format.group, want = q->base.n * (row * bits / 8);
    size_t bytes = 0, n_scales = 0;

    if (n->x[1]->type.dtype != EW_DTYPE_U8 ||
        (scale != EW_DTYPE_F16 && scale != EW_DTYPE_F32 && scale != EW_DTYPE_BF16))
        return ew_onnx_refuse(n, "weights of %s with scales of %s",
                              ew_dtype_text(n->x[1]->type.dtype), ew_dtype_text(scale));
    if (!ew_type_bytes(&n->x[1]->type, &bytes) || !ew_type_count(&n->x[2]->type, &n_scales) ||
        bytes != want || n_scales != q->base.n * groups)
        return ew_fail(n->in->err, EW_STATUS_MISMATCH,
                       "weights '%s' of %zu bytes and %zu scales, needed are %zu and %zu",
                       n->x[1]->name, bytes, n_scales, want, q->base.n * groups);
    q->base.format.scale = scale;
    q->base.name = n->x[1]->name;
    q->codes = n->x[1]->con.data;
    q->code_row = (ptrdiff_t)row;
    q->code_col = 1;
    q->scales = n->x[2]->con.data;
    q->scale_dtype = scale;
    q->scale_row = (ptrdiff_t)groups;
    q->scale_col = 1;
    return nbits_zeros(n, q, groups);
}

static ew_status import_matmul_nbits(struct ew_onnx_node *n)
{
    struct ew_quant_strided *q = ew_arena_new(&n->in->g->arena, struct ew_quant_strided, 1);
    int64_t rows, cols, bits, block, level;

    EW_TRY(want_int(n, "N", 1, INT32_MAX, &rows));
    EW_TRY(want_int(n, "K", 1, INT32_MAX, &cols));
    EW_TRY(ew_onnx_attr_int(n, "bits", 4, &bits));
    EW_TRY(want_int(n, "block_size", 8, INT32_MAX / 2, &block));
    EW_TRY(ew_onnx_attr_int(n, "accuracy_level", 0, &level)); /* how ORT may round x: not at all */
    EW_TRY(ew_onnx_attrs_all_used(n));
    if ((bits != 4 && bits != 8) || block % 8)
        return ew_onnx_refuse(n, "%lld bits in blocks of %lld", (long long)bits, (long long)block);
    if (n->n_x < 3 || n->n_x > 6 || !n->x[0])
        return ew_fail(n->in->err, EW_STATUS_MALFORMED, "%d inputs, expected 3 to 6", n->n_x);
    if (ew_onnx_input(n, 4))
        return ew_onnx_refuse(n, "input 4 (g_idx) is not supported");
    EW_TRY(want_const(n, 1, "weight"));
    EW_TRY(want_const(n, 2, "scales"));
    if (!q)
        return ew_onnx_no_memory(n);
    q->base.format.code = bits == 4 ? EW_DTYPE_U4 : EW_DTYPE_U8;
    q->base.format.group = (uint32_t)block;
    q->base.n = (size_t)rows;
    q->base.k = (size_t)cols;
    EW_TRY(nbits_tensors(n, q, ew_quant_groups(&q->base.format, q->base.k)));
    ew_quant_strided_init(q);
    return emit_linear(n, &q->base, ew_onnx_input(n, 5));
}

/* ---- TensorRT's quantisers ---- */

static ew_status import_fp8_quantize(struct ew_onnx_node *n)
{
    union ew_attrs attrs;

    ew_op_attrs_init(EW_OP_QUANTIZE_LINEAR, &attrs);
    attrs.quant.output_dtype = EW_DTYPE_F8E4M3;
    return ew_onnx_emit_main(n, EW_OP_QUANTIZE_LINEAR, &attrs, n->x, n->n_x);
}

static ew_status import_fp8_dequantize(struct ew_onnx_node *n)
{
    union ew_attrs attrs;

    ew_op_attrs_init(EW_OP_DEQUANTIZE_LINEAR, &attrs);
    return ew_onnx_emit_main(n, EW_OP_DEQUANTIZE_LINEAR, &attrs, n->x, n->n_x);
}

/* Blocks lie along the last axis. */
static ew_status want_last_axis(struct ew_onnx_node *n)
{
    int64_t axis;

    EW_TRY(ew_onnx_attr_int(n, "axis", -1, &axis));
    if (axis == -1 || (ew_onnx_input(n, 0) && axis == n->x[0]->type.n_dims - 1))
        return EW_STATUS_OK;
    return ew_onnx_refuse(n, "attribute axis = %lld is not the last", (long long)axis);
}

/* type_attr, if the file has it, names the dtype that this kind has anyway. */
static ew_status import_block_quantize(struct ew_onnx_node *n, int32_t kind, int64_t block,
                                       const char *type_attr)
{
    union ew_attrs attrs;
    struct ew_node *node;
    int64_t type;

    ew_op_attrs_init(EW_OP_BLOCK_QUANTIZE, &attrs);
    EW_TRY(want_last_axis(n));
    EW_TRY(ew_onnx_attr_int(n, "block_size", block, &attrs.block_quant.block));
    EW_TRY(ew_onnx_attr_int(n, type_attr, ew_onnx_data_type(EW_DTYPE_F8E4M3), &type));
    EW_TRY(ew_onnx_attrs_all_used(n));
    if (type != ew_onnx_data_type(EW_DTYPE_F8E4M3) || n->n_x < 1 || n->n_x > 2 || !n->x[0])
        return ew_onnx_refuse(n, "attribute %s = %lld, %d inputs", type_attr, (long long)type,
                              n->n_x);
    attrs.block_quant.x_quant = kind;
    EW_TRY(ew_onnx_emit(n, "", EW_OP_BLOCK_QUANTIZE, &attrs, n->x, n->n_x, 2, &node));
    for (int i = 0; i < ew_onnx_n_outputs(n) && i < 2; i++)
        EW_TRY(ew_onnx_set_output(n, i, node->out[i]));
    return EW_STATUS_OK;
}

static ew_status import_fp4_dynamic(struct ew_onnx_node *n)
{
    return import_block_quantize(n, EW_XQ_NVFP4, 16, "scale_type");
}

static ew_status import_mxfp8_dynamic(struct ew_onnx_node *n)
{
    return import_block_quantize(n, EW_XQ_MXFP8, 32, "output_dtype");
}

/* Codes e4m3 and scales, whose bytes are exponents though the file may call them u8. */
static ew_status import_mxfp8_dequantize(struct ew_onnx_node *n)
{
    union ew_attrs attrs;
    int64_t dtype;

    ew_op_attrs_init(EW_OP_DEQUANTIZE_LINEAR, &attrs);
    EW_TRY(want_last_axis(n));
    EW_TRY(ew_onnx_attr_int(n, "block_size", 32, &attrs.quant.block_size));
    EW_TRY(ew_onnx_attr_int(n, "output_dtype", ew_onnx_data_type(EW_DTYPE_F32), &dtype));
    if (n->n_x != 2 || !n->x[0] || !n->x[1])
        return ew_fail(n->in->err, EW_STATUS_MALFORMED, "%d inputs, expected 2", n->n_x);
    struct ew_value *x[2] = { n->x[0], n->x[1] };
    if (x[1]->type.dtype == EW_DTYPE_U8) {
        struct ew_type type = x[1]->type;
        EW_TRY(want_const(n, 1, "scales"));
        type.dtype = EW_DTYPE_F8E8M0;
        x[1] = ew_graph_add_const(n->in->g, x[1]->name, &type, x[1]->con.data, false);
        if (!x[1])
            return ew_onnx_no_memory(n);
    }
    attrs.quant.axis = -1;
    attrs.quant.output_dtype = (int32_t)ew_onnx_dtype(dtype);
    return ew_onnx_emit_main(n, EW_OP_DEQUANTIZE_LINEAR, &attrs, x, 2);
}

/* Ours: kinds that no contract has. */
static ew_status import_own_block_quantize(struct ew_onnx_node *n)
{
    union ew_attrs attrs;

    if (strcmp(n->p->domain, EW_ONNX_OWN_DOMAIN) != 0)
        return ew_onnx_refuse(n, "op %s::BlockQuantize is not supported", n->p->domain);
    ew_op_attrs_init(EW_OP_BLOCK_QUANTIZE, &attrs);
    return ew_onnx_emit_main(n, EW_OP_BLOCK_QUANTIZE, &attrs, n->x, n->n_x);
}

const struct ew_onnx_special ew_onnx_quant_ops[] = {
    { "BlockQuantize", import_own_block_quantize },
    { "Int4GroupwiseGemmPlugin", import_int4_plugin },
    { "MatMulNBits", import_matmul_nbits },
    { "TRT_FP4DynamicQuantize", import_fp4_dynamic },
    { "TRT_FP8DequantizeLinear", import_fp8_dequantize },
    { "TRT_FP8QuantizeLinear", import_fp8_quantize },
    { "TRT_MXFP8DequantizeLinear", import_mxfp8_dequantize },
    { "TRT_MXFP8DynamicQuantize", import_mxfp8_dynamic },
    { NULL, NULL },
};

/* op/op.c - the op table: info, attribute schemas with defaults, lookup by name.
 *
 * Owns what an op is called and how its attributes are laid out. What types an op gives is in
 * infer*.c. */
#include "op/op.h"

#include <string.h>

#include "base/size.h"

/* ---- enumerations as ONNX writes them; index = value ---- */

static const char *const k_gelu_names[] = { "none", "tanh", NULL };
static const char *const k_round_names[] = { "up", "down", "nearest", NULL };
static const char *const k_shift_names[] = { "RIGHT", "LEFT", NULL };
static const char *const k_depth_names[] = { "DCR", "CRD", NULL };
static const char *const k_pad_names[] = { "constant", "reflect", "edge", "wrap", NULL };
static const char *const k_reduction_names[] = { "none", "add", "mul", "max", "min", NULL };
static const char *const k_ts_names[] = { "linear", "circular", NULL };
static const char *const k_auto_pad_names[] = { "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID",
                                                NULL };
static const char *const k_resize_names[] = { "nearest", "linear", "cubic", NULL };
static const char *const k_coord_names[] = { "half_pixel",
                                             "half_pixel_symmetric",
                                             "pytorch_half_pixel",
                                             "align_corners",
                                             "asymmetric",
                                             "tf_crop_and_resize",
                                             NULL };
static const char *const k_nearest_names[] = { "round_prefer_floor", "round_prefer_ceil", "floor",
                                               "ceil", NULL };
static const char *const k_policy_names[] = { "stretch", "not_larger", "not_smaller", NULL };
static const char *const k_act_names[] = { "none", "silu",  "gelu_tanh", "gelu_erf",
                                           "relu", "relu2", NULL };
static const char *const k_x_quant_names[] = { "none",    "int8",      "int8_row", "fp8",
                                               "fp8_row", "fp8_block", "nvfp4",    "mxfp8",
                                               "mxfp4",   "bf16",      "int8_w8",  NULL };
static const char *const k_qk_norm_names[] = { "none", "head", "full", NULL };

/* ---- schemas ---- */

#define FIELD(kind, text, member, ftype, fallback)                                                 \
    {                                                                                              \
        text, EW_FIELD_##ftype, (uint16_t)offsetof(struct ew_attr_##kind, member), 0, fallback,    \
            NULL                                                                                   \
    }
#define FIELD_ENUM(kind, text, member, names, fallback)                                            \
    {                                                                                              \
        text, EW_FIELD_ENUM, (uint16_t)offsetof(struct ew_attr_##kind, member), 0, fallback, names \
    }
#define FIELD_END                                                                                  \
    {                                                                                              \
        NULL, EW_FIELD_I32, 0, 0, 0, NULL                                                          \
    }
#define FIELDS static const struct ew_attr_field

/* clang-format off */
FIELDS k_none[] = { FIELD_END };

FIELDS k_alpha[] = { FIELD(alpha, "alpha", alpha, F32, 1.0), FIELD_END }; /* Elu, Celu, ThresholdedRelu, Swish */
FIELDS k_alpha_leaky[] = { FIELD(alpha, "alpha", alpha, F32, 0.01), FIELD_END };
FIELDS k_alpha_beta[] = { /* HardSigmoid */
    FIELD(alpha_beta, "alpha", alpha, F32, 0.2), FIELD(alpha_beta, "beta", beta, F32, 0.5), FIELD_END };
FIELDS k_selu[] = {
    FIELD(alpha_beta, "alpha", alpha, F32, 1.67326319217681884765625),
    FIELD(alpha_beta, "gamma", beta, F32, 1.05070102214813232421875), FIELD_END };
FIELDS k_shrink[] = {
    FIELD(alpha_beta, "bias", alpha, F32, 0.0), FIELD(alpha_beta, "lambd", beta, F32, 0.5), FIELD_END };
FIELDS k_gelu[] = { FIELD_ENUM(gelu, "approximate", approximate, k_gelu_names, 0), FIELD_END };
FIELDS k_is_inf[] = {
    FIELD(is_inf, "detect_negative", detect_negative, I32, 1),
    FIELD(is_inf, "detect_positive", detect_positive, I32, 1), FIELD_END };
FIELDS k_cast[] = {
    FIELD(cast, "to", to, DTYPE, 0), FIELD(cast, "saturate", saturate, I32, 1),
    FIELD_ENUM(cast, "round_mode", round_mode, k_round_names, EW_ROUND_UP), FIELD_END };
FIELDS k_bit_shift[] = { FIELD_ENUM(bit_shift, "direction", left, k_shift_names, 0), FIELD_END };
FIELDS k_mod[] = { FIELD(mod, "fmod", fmod, I32, 0), FIELD_END };
FIELDS k_arg[] = {
    FIELD(arg, "axis", axis, I64, 0), FIELD(arg, "keepdims", keepdims, I32, 1),
    FIELD(arg, "select_last_index", select_last_index, I32, 0), FIELD_END };
FIELDS k_cumsum[] = {
    FIELD(cumsum, "exclusive", exclusive, I32, 0), FIELD(cumsum, "reverse", reverse, I32, 0), FIELD_END };
FIELDS k_reduce[] = {
    FIELD(reduce, "keepdims", keepdims, I32, 1),
    FIELD(reduce, "noop_with_empty_axes", noop_with_empty_axes, I32, 0), FIELD_END };
FIELDS k_axis[] = { FIELD(axis, "axis", axis, I64, 0), FIELD_END }; /* Gather, GatherElements, Concat */
FIELDS k_axis_last[] = { FIELD(axis, "axis", axis, I64, -1), FIELD_END }; /* Softmax family, OneHot */
FIELDS k_axis_flatten[] = { FIELD(axis, "axis", axis, I64, 1), FIELD_END };
FIELDS k_top_k[] = {
    FIELD(top_k, "axis", axis, I64, -1), FIELD(top_k, "largest", largest, I32, 1),
    FIELD(top_k, "sorted", sorted, I32, 1), FIELD_END };
FIELDS k_fill[] = { /* ONNX's `value` tensor taken apart; default: f32 0 */
    FIELD(fill, "dtype", dtype, DTYPE, EW_DTYPE_F32), FIELD(fill, "f", f, F64, 0), FIELD(fill, "i", i, I64, 0),
    FIELD_END };
FIELDS k_depth_space[] = {
    FIELD(depth_space, "blocksize", blocksize, I64, 0),
    FIELD_ENUM(depth_space, "mode", mode, k_depth_names, EW_DEPTH_DCR), FIELD_END };
FIELDS k_eye[] = { FIELD(eye, "dtype", dtype, DTYPE, 0), FIELD(eye, "k", k, I64, 0), FIELD_END };
FIELDS k_gather_nd[] = { FIELD(gather_nd, "batch_dims", batch_dims, I64, 0), FIELD_END };
FIELDS k_pad[] = { FIELD_ENUM(pad, "mode", mode, k_pad_names, EW_PAD_CONSTANT), FIELD_END };
FIELDS k_reshape[] = { FIELD(reshape, "allowzero", allowzero, I32, 0), FIELD_END };
FIELDS k_scatter[] = {
    FIELD(scatter, "axis", axis, I64, 0),
    FIELD_ENUM(scatter, "reduction", reduction, k_reduction_names, EW_RED_NONE), FIELD_END };
FIELDS k_shape[] = { /* has_end is set by whoever sets end */
    FIELD(shape, "start", start, I64, 0), FIELD(shape, "end", end, I64, 0),
    FIELD(shape, "has_end", has_end, I32, 0), FIELD_END };
FIELDS k_split[] = {
    FIELD(split, "axis", axis, I64, 0), FIELD(split, "num_outputs", num_outputs, I64, 0), FIELD_END };
FIELDS k_tensor_scatter[] = {
    FIELD(tensor_scatter, "axis", axis, I64, -2),
    FIELD_ENUM(tensor_scatter, "mode", mode, k_ts_names, EW_TS_LINEAR), FIELD_END };
FIELDS k_perm[] = { FIELD(perm, "perm", perm, INTS, 0), FIELD_END };
FIELDS k_trilu[] = { FIELD(trilu, "upper", upper, I32, 1), FIELD_END };
FIELDS k_attention[] = { /* has_scale is set by whoever sets scale */
    FIELD(attention, "is_causal", is_causal, I32, 0),
    FIELD(attention, "q_num_heads", q_num_heads, I64, 0),
    FIELD(attention, "kv_num_heads", kv_num_heads, I64, 0),
    FIELD(attention, "scale", scale, F32, 0), FIELD(attention, "has_scale", has_scale, I32, 0),
    FIELD(attention, "softcap", softcap, F32, 0),
    FIELD(attention, "qk_matmul_output_mode", qk_matmul_output_mode, I32, 0),
    FIELD(attention, "softmax_precision", softmax_precision, DTYPE, 0), FIELD_END };
FIELDS k_pool[] = {
    FIELD(pool, "kernel_shape", kernel_shape, INTS, 0), FIELD(pool, "strides", strides, INTS, 0),
    FIELD(pool, "pads", pads, INTS, 0), FIELD(pool, "dilations", dilations, INTS, 0),
    FIELD_ENUM(pool, "auto_pad", auto_pad, k_auto_pad_names, EW_AUTO_PAD_NOTSET),
    FIELD(pool, "ceil_mode", ceil_mode, I32, 0), FIELD(pool, "count_include_pad", count_include_pad, I32, 0),
    FIELD(pool, "storage_order", storage_order, I32, 0), FIELD_END };
FIELDS k_conv[] = {
    FIELD(conv, "kernel_shape", kernel_shape, INTS, 0), FIELD(conv, "strides", strides, INTS, 0),
    FIELD(conv, "pads", pads, INTS, 0), FIELD(conv, "dilations", dilations, INTS, 0),
    FIELD(conv, "output_padding", output_padding, INTS, 0), FIELD(conv, "output_shape", output_shape, INTS, 0),
    FIELD(conv, "group", group, I64, 1),
    FIELD_ENUM(conv, "auto_pad", auto_pad, k_auto_pad_names, EW_AUTO_PAD_NOTSET), FIELD_END };
FIELDS k_norm[] = {
    FIELD(norm, "axis", axis, I64, -1), FIELD(norm, "epsilon", epsilon, F32, 1e-5),
    FIELD(norm, "num_groups", num_groups, I64, 0), FIELD(norm, "stash_type", stash_type, DTYPE, EW_DTYPE_F32),
    FIELD_END };
FIELDS k_lp_norm[] = { FIELD(lp_norm, "axis", axis, I64, -1), FIELD(lp_norm, "p", p, I64, 2), FIELD_END };
FIELDS k_quant[] = {
    FIELD(quant, "axis", axis, I64, 1), FIELD(quant, "block_size", block_size, I64, 0),
    FIELD(quant, "output_dtype", output_dtype, DTYPE, 0), FIELD(quant, "saturate", saturate, I32, 1),
    FIELD(quant, "precision", precision, DTYPE, 0), FIELD_END };
FIELDS k_einsum[] = {
    { "equation", EW_FIELD_TEXT, (uint16_t)offsetof(struct ew_attr_einsum, equation), EW_EINSUM_CAP, 0, NULL },
    FIELD_END };
FIELDS k_gemm[] = {
    FIELD(gemm, "alpha", alpha, F32, 1), FIELD(gemm, "beta", beta, F32, 1),
    FIELD(gemm, "transA", trans_a, I32, 0), FIELD(gemm, "transB", trans_b, I32, 0), FIELD_END };
FIELDS k_resize[] = {
    FIELD_ENUM(resize, "mode", mode, k_resize_names, EW_RESIZE_NEAREST),
    FIELD_ENUM(resize, "coordinate_transformation_mode", coord, k_coord_names, EW_COORD_HALF_PIXEL),
    FIELD_ENUM(resize, "nearest_mode", nearest, k_nearest_names, EW_NEAREST_ROUND_PREFER_FLOOR),
    FIELD_ENUM(resize, "keep_aspect_ratio_policy", policy, k_policy_names, EW_KEEP_STRETCH),
    FIELD(resize, "antialias", antialias, I32, 0), FIELD(resize, "exclude_outside", exclude_outside, I32, 0),
    FIELD(resize, "cubic_coeff_a", cubic_coeff_a, F32, -0.75),
    FIELD(resize, "extrapolation_value", extrapolation_value, F32, 0),
    FIELD(resize, "axes", axes, INTS, 0), FIELD_END };
FIELDS k_rotary[] = {
    FIELD(rotary, "interleaved", interleaved, I32, 0), FIELD(rotary, "num_heads", num_heads, I64, 0),
    FIELD(rotary, "rotary_embedding_dim", rotary_embedding_dim, I64, 0), FIELD_END };

FIELDS k_kv_attention[] = {
    FIELD(kv_attention, "num_q_heads", num_q_heads, I64, 0),
    FIELD(kv_attention, "num_kv_heads", num_kv_heads, I64, 0),
    FIELD(kv_attention, "head_size", head_size, I64, 0),
    FIELD(kv_attention, "packed_qkv", packed_qkv, I32, 0),
    FIELD(kv_attention, "enable_tree_attention", enable_tree_attention, I32, 0),
    FIELD(kv_attention, "sliding_window_size", sliding_window_size, I64, -1),
    FIELD(kv_attention, "attention_scale", attention_scale, F32, 0),
    FIELD(kv_attention, "softcap", softcap, F32, 0),
    FIELD_ENUM(kv_attention, "qk_norm", qk_norm, k_qk_norm_names, EW_QK_NORM_NONE),
    FIELD(kv_attention, "qk_norm_eps", qk_norm_eps, F32, 0),
    FIELD(kv_attention, "use_rope", use_rope, I32, 1), FIELD_END };
FIELDS k_linear[] = {
    FIELD_ENUM(linear, "act", act, k_act_names, EW_ACT_NONE), FIELD(linear, "glu", glu, I32, 0),
    FIELD(linear, "scale", scale, F32, 1), FIELD(linear, "softcap", softcap, F32, 0),
    FIELD_ENUM(linear, "x_quant", x_quant, k_x_quant_names, EW_XQ_NONE),
    FIELD(linear, "x_block", x_block, I32, 0), FIELD(linear, "x_scale", x_scale, F32, 1), FIELD_END };
FIELDS k_fused_rms_norm[] = { FIELD(fused_rms_norm, "epsilon", epsilon, F32, 1e-5), FIELD_END };
FIELDS k_moe[] = {
    FIELD(moe, "top_k", top_k, I64, 1), FIELD(moe, "norm_topk", norm_topk, I32, 0),
    FIELD_ENUM(moe, "act", act, k_act_names, EW_ACT_SILU),
    FIELD_ENUM(moe, "x_quant", x_quant, k_x_quant_names, EW_XQ_NONE),
    FIELD(moe, "x_block", x_block, I32, 0), FIELD_END };
FIELDS k_block_quant[] = {
    FIELD_ENUM(block_quant, "x_quant", x_quant, k_x_quant_names, EW_XQ_NONE),
    FIELD(block_quant, "block", block, I64, 0), FIELD_END };
FIELDS k_pointwise[] = { { "program", EW_FIELD_PROGRAM, 0, 0, 0, NULL }, FIELD_END };
/* clang-format on */

static const struct ew_op_info k_ops[EW_OP_COUNT] = {
#define OP(id, name, min_in, max_in, min_out, max_out, attrs, group)                               \
    [EW_OP_##id] = { EW_OP_##id,                                                                   \
                     name,                                                                         \
                     min_in,                                                                       \
                     max_in,                                                                       \
                     min_out,                                                                      \
                     max_out,                                                                      \
                     EW_ATTR_KIND_##attrs,                                                         \
                     sizeof(struct ew_attr_##attrs),                                               \
                     k_##attrs },
#include "op/ops.inc"
#undef OP
};

/* Ops that share a struct with others but not its names or defaults. */
static const struct {
    ew_op op;
    struct ew_op_info info;
} k_special[] = {
#define SPECIAL(id, name, n_in, attrs, fields)                                                     \
    {                                                                                              \
        EW_OP_##id,                                                                                \
        {                                                                                          \
            EW_OP_##id, name, n_in, n_in, 1, 1, EW_ATTR_KIND_##attrs,                              \
                sizeof(struct ew_attr_##attrs), fields                                             \
        }                                                                                          \
    }
    SPECIAL(LEAKY_RELU, "LeakyRelu", 1, alpha, k_alpha_leaky),
    SPECIAL(SELU, "Selu", 1, alpha_beta, k_selu),
    SPECIAL(SHRINK, "Shrink", 1, alpha_beta, k_shrink),
    SPECIAL(SOFTMAX, "Softmax", 1, axis, k_axis_last),
    SPECIAL(LOG_SOFTMAX, "LogSoftmax", 1, axis, k_axis_last),
    SPECIAL(HARDMAX, "Hardmax", 1, axis, k_axis_last),
    SPECIAL(ONE_HOT, "OneHot", 3, axis, k_axis_last),
    SPECIAL(FLATTEN, "Flatten", 1, axis, k_axis_flatten),
#undef SPECIAL
};

const struct ew_op_info *ew_op_get(ew_op op)
{
    if ((int)op <= EW_OP_NONE || op >= EW_OP_COUNT)
        return NULL;
    for (size_t i = 0; i < EW_COUNT(k_special); i++)
        if (k_special[i].op == op)
            return &k_special[i].info;
    return &k_ops[op];
}

ew_op ew_op_find(const char *name)
{
    for (int i = EW_OP_NONE + 1; i < EW_OP_COUNT; i++)
        if (strcmp(k_ops[i].name, name) == 0)
            return (ew_op)i;
    return EW_OP_NONE;
}

/* ---- attribute values ---- */

static void field_init(const struct ew_attr_field *f, char *at)
{
    switch (f->type) {
    case EW_FIELD_I32:
    case EW_FIELD_ENUM:
    case EW_FIELD_DTYPE: {
        const int32_t v = (int32_t)f->fallback;
        memcpy(at, &v, sizeof(v));
        break;
    }
    case EW_FIELD_I64: {
        const int64_t v = (int64_t)f->fallback;
        memcpy(at, &v, sizeof(v));
        break;
    }
    case EW_FIELD_F32: {
        const float v = (float)f->fallback;
        memcpy(at, &v, sizeof(v));
        break;
    }
    case EW_FIELD_F64:
        memcpy(at, &f->fallback, sizeof(double));
        break;
    case EW_FIELD_INTS:
    case EW_FIELD_TEXT:
    case EW_FIELD_PROGRAM:
        break; /* empty */
    }
}

void ew_op_attrs_init(ew_op op, union ew_attrs *attrs)
{
    const struct ew_op_info *info = ew_op_get(op);

    memset(attrs, 0, sizeof(*attrs));
    if (!info)
        return;
    for (const struct ew_attr_field *f = info->fields; f->name; f++)
        field_init(f, (char *)attrs + f->offset);
}

void ew_op_attr_copy_field(const struct ew_attr_field *f, union ew_attrs *to,
                           const union ew_attrs *from)
{
    size_t bytes = 0;

    switch (f->type) {
    case EW_FIELD_I32:
    case EW_FIELD_ENUM:
    case EW_FIELD_DTYPE:
    case EW_FIELD_F32:
        bytes = 4;
        break;
    case EW_FIELD_I64:
    case EW_FIELD_F64:
        bytes = 8;
        break;
    case EW_FIELD_INTS:
        bytes = sizeof(struct ew_ints);
        break;
    case EW_FIELD_TEXT:
        bytes = f->cap;
        break;
    case EW_FIELD_PROGRAM:
        bytes = sizeof(struct ew_attr_pointwise);
        break;
    }
    memcpy((char *)to + f->offset, (const char *)from + f->offset, bytes);
}

static bool program_equal(const struct ew_attr_pointwise *a, const struct ew_attr_pointwise *b)
{
    if (a->n_instr != b->n_instr || a->n_instr < 0 || a->n_instr > EW_PW_MAX_INSTR)
        return false;
    for (int i = 0; i < a->n_instr; i++) {
        const struct ew_pw_instr *x = &a->instr[i], *y = &b->instr[i];
        if (x->op != y->op || x->dst != y->dst || x->a != y->a || x->b != y->b ||
            memcmp(&x->imm, &y->imm, sizeof(x->imm)) != 0)
            return false;
    }
    return true;
}

static bool field_equal(const struct ew_attr_field *f, const char *a, const char *b)
{
    switch (f->type) {
    case EW_FIELD_I32:
    case EW_FIELD_ENUM:
    case EW_FIELD_DTYPE:
    case EW_FIELD_F32:
        return memcmp(a, b, 4) == 0;
    case EW_FIELD_I64:
    case EW_FIELD_F64:
        return memcmp(a, b, 8) == 0;
    case EW_FIELD_INTS: {
        struct ew_ints x, y;
        memcpy(&x, a, sizeof(x));
        memcpy(&y, b, sizeof(y));
        if (x.n != y.n || x.n < 0 || x.n > EW_MAX_INTS)
            return false;
        return memcmp(x.v, y.v, (size_t)x.n * sizeof(x.v[0])) == 0;
    }
    case EW_FIELD_TEXT:
        return strncmp(a, b, f->cap) == 0;
    case EW_FIELD_PROGRAM:
        return program_equal((const struct ew_attr_pointwise *)(const void *)a,
                             (const struct ew_attr_pointwise *)(const void *)b);
    }
    return false;
}

bool ew_op_attrs_equal(ew_op op, const union ew_attrs *a, const union ew_attrs *b)
{
    const struct ew_op_info *info = ew_op_get(op);

    if (!info)
        return false;
    for (const struct ew_attr_field *f = info->fields; f->name; f++)
        if (!field_equal(f, (const char *)a + f->offset, (const char *)b + f->offset))
            return false;
    return true;
}

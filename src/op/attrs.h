/* op/attrs.h - the attribute struct of every op that has one, and their schema.
 *
 * Attributes are plain data without pointers: they are copied, compared and written to engine files
 * field by field through the schema (op/op.h), never as raw structs. Zero is not always the
 * default: use ew_op_attrs_init(). Enumerations are the strings of ONNX in the schema and ints
 * here. */
#ifndef EW_OP_ATTRS_H
#define EW_OP_ATTRS_H

#include <stdint.h>

#define EW_MAX_INTS   16
#define EW_EINSUM_CAP 128

struct ew_ints { /* n = 0: absent */
    int32_t n;
    int64_t v[EW_MAX_INTS];
};

struct ew_attr_none {
    int32_t unused;
};
struct ew_attr_alpha {
    float alpha;
};
struct ew_attr_alpha_beta {
    float alpha, beta;
};
enum ew_gelu_approx { EW_GELU_NONE = 0, EW_GELU_TANH = 1 };
struct ew_attr_gelu {
    int32_t approximate;
};
struct ew_attr_is_inf {
    int32_t detect_negative, detect_positive;
};
/* to: ew_dtype. saturate: only for the 8-bit floats. round_mode: EW_ROUND_* for f8e8m0 */
enum ew_round_mode { EW_ROUND_UP = 0, EW_ROUND_DOWN = 1, EW_ROUND_NEAREST = 2 };
struct ew_attr_cast {
    int32_t to, saturate, round_mode;
};
struct ew_attr_bit_shift {
    int32_t left;
};
struct ew_attr_mod {
    int32_t fmod;
};
struct ew_attr_arg {
    int64_t axis;
    int32_t keepdims, select_last_index;
};
struct ew_attr_cumsum {
    int32_t exclusive, reverse;
};
struct ew_attr_reduce {
    int32_t keepdims, noop_with_empty_axes;
};
struct ew_attr_axis {
    int64_t axis;
};
struct ew_attr_top_k {
    int64_t axis;
    int32_t largest, sorted;
};
struct ew_attr_fill {
    int32_t dtype;
    double f;
    int64_t i;
}; /* i for integer and bool dtypes, f for floats */
enum ew_depth_mode { EW_DEPTH_DCR = 0, EW_DEPTH_CRD = 1 };
struct ew_attr_depth_space {
    int64_t blocksize;
    int32_t mode;
};
struct ew_attr_eye {
    int32_t dtype;
    int64_t k;
}; /* dtype NONE: as the input */
struct ew_attr_gather_nd {
    int64_t batch_dims;
};
enum ew_pad_mode { EW_PAD_CONSTANT = 0, EW_PAD_REFLECT = 1, EW_PAD_EDGE = 2, EW_PAD_WRAP = 3 };
struct ew_attr_pad {
    int32_t mode;
}; /* inputs: data, pads, [value], [axes] */
struct ew_attr_reshape {
    int32_t allowzero;
};
enum ew_reduction { EW_RED_NONE = 0, EW_RED_ADD, EW_RED_MUL, EW_RED_MAX, EW_RED_MIN };
struct ew_attr_scatter {
    int64_t axis;
    int32_t reduction;
};
struct ew_attr_shape {
    int64_t start, end;
    int32_t has_end;
};
struct ew_attr_split {
    int64_t axis;
    int64_t num_outputs;
}; /* num_outputs 0: from input 1 or output count */
enum ew_ts_mode { EW_TS_LINEAR = 0, EW_TS_CIRCULAR = 1 };
struct ew_attr_tensor_scatter {
    int64_t axis;
    int32_t mode;
};
struct ew_attr_perm {
    struct ew_ints perm;
};
struct ew_attr_trilu {
    int32_t upper;
};
/* ONNX Attention-23/24. Zero heads: inputs are 4-D. scale 0: 1/sqrt(head_size). */
struct ew_attr_attention {
    int32_t is_causal;
    int64_t q_num_heads, kv_num_heads;
    float scale, softcap;
    int32_t has_scale;
    int32_t qk_matmul_output_mode;
    int32_t softmax_precision; /* ew_dtype, NONE = default */
};
enum ew_auto_pad {
    EW_AUTO_PAD_NOTSET = 0,
    EW_AUTO_PAD_SAME_UPPER,
    EW_AUTO_PAD_SAME_LOWER,
    EW_AUTO_PAD_VALID
};
struct ew_attr_pool {
    struct ew_ints kernel_shape, strides, pads, dilations;
    int32_t auto_pad, ceil_mode, count_include_pad, storage_order;
};
struct ew_attr_conv {
    struct ew_ints kernel_shape, strides, pads, dilations;
    struct ew_ints output_padding, output_shape; /* ConvTranspose */
    int64_t group;
    int32_t auto_pad;
};
struct ew_attr_norm { /* LayerNormalization, RMSNormalization, Group/Instance/BatchNormalization */
    int64_t axis;
    float epsilon;
    int64_t num_groups;
    int32_t stash_type; /* ew_dtype */
};
struct ew_attr_lp_norm {
    int64_t axis, p;
};
struct ew_attr_quant { /* QuantizeLinear, DequantizeLinear */
    int64_t axis, block_size;
    int32_t output_dtype; /* ew_dtype, NONE = from zero point / scale */
    int32_t saturate, precision;
};
struct ew_attr_einsum {
    char equation[EW_EINSUM_CAP];
};
struct ew_attr_gemm {
    float alpha, beta;
    int32_t trans_a, trans_b;
};
enum ew_resize_mode { EW_RESIZE_NEAREST = 0, EW_RESIZE_LINEAR, EW_RESIZE_CUBIC };
enum ew_resize_coord {
    EW_COORD_HALF_PIXEL = 0,
    EW_COORD_HALF_PIXEL_SYMMETRIC,
    EW_COORD_PYTORCH_HALF_PIXEL,
    EW_COORD_ALIGN_CORNERS,
    EW_COORD_ASYMMETRIC,
    EW_COORD_TF_CROP_AND_RESIZE
};
enum ew_resize_nearest {
    EW_NEAREST_ROUND_PREFER_FLOOR = 0,
    EW_NEAREST_ROUND_PREFER_CEIL,
    EW_NEAREST_FLOOR,
    EW_NEAREST_CEIL
};
enum ew_resize_policy { EW_KEEP_STRETCH = 0, EW_KEEP_NOT_LARGER, EW_KEEP_NOT_SMALLER };
struct ew_attr_resize {
    int32_t mode, coord, nearest, policy, antialias, exclude_outside;
    float cubic_coeff_a, extrapolation_value;
    struct ew_ints axes;
};
struct ew_attr_rotary {
    int32_t interleaved;
    int64_t num_heads, rotary_embedding_dim;
};

/* ---- the LLM ops ---- */

/* Activations inside fused ops. */
enum ew_act {
    EW_ACT_NONE = 0,
    EW_ACT_SILU,
    EW_ACT_GELU_TANH,
    EW_ACT_GELU_ERF,
    EW_ACT_RELU,
    EW_ACT_RELU2
};

/* KvAttention: attention over the linear cache, AttentionPlugin of the reference system.
 * inputs:  0 q [B,S,Hq*D], or packed qkv [B,S,(Hq+2Hkv)*D] when packed_qkv (then 1 and 2 are
 * absent) 1 k [B,S,Hkv*D]   2 v [B,S,Hkv*D] 3 past_key_value [B,2,Hkv,cap,D]   4 context_lengths
 * i32 [B] 5 rope_rotary_cos_sin f32 [1|B, >=cap, rd]; row = cos[rd/2] then sin[rd/2] 6
 * kvcache_start_index i32 [0|B] 7 attention_mask i32 [B,S,words] packed bits (tree)   8
 * attention_pos_id i32 [B,S|1] (tree) 9 q_norm weight [D] (per head) or [Hq*D] (full)   10 k_norm
 * weight [D] or [Hkv*D] 11 sinks [Hq] (reserved) 12 kv_scales f32 [2,Hkv] constant: scales of an
 * f8e4m3 cache, of K and then of V (absent: 1; read by no other cache). Input 3 is f32, f16, bf16
 * or f8e4m3 [B,2,Hkv,cap,D], or i8 [B,2,Hkv,cap,D+4], whose rows end with their scale. outputs: 0
 * attention [B,S,Hq*D]   1 present_key_value = input 3 updated in place Modes and the meaning of
 * context_lengths are EDGE-LLM's, section 3.1 (see kernels/attention.h). */
enum ew_qk_norm { EW_QK_NORM_NONE = 0, EW_QK_NORM_HEAD = 1, EW_QK_NORM_FULL = 2 };
struct ew_attr_kv_attention {
    int64_t num_q_heads, num_kv_heads, head_size;
    int32_t packed_qkv;
    int32_t enable_tree_attention;
    int64_t
        sliding_window_size; /* -1 = off; otherwise a query sees itself and window-1 before it */
    float attention_scale;   /* 0 = 1/sqrt(head_size) */
    float softcap;           /* 0 = off; s = softcap * tanh(s / softcap) before the mask */
    int32_t qk_norm;         /* enum ew_qk_norm; before RoPE */
    float qk_norm_eps;
    int32_t use_rope; /* 0: positions are not encoded (NoPE layer); input 5 is ignored */
};

/* How x is rounded before a quantised product. x' = decode(encode(x / s)) * s, nearest even,
 * saturating. ROW and BLOCK scales come from x itself: s = amax / (largest code). */
enum ew_x_quant {
    EW_XQ_NONE = 0,
    EW_XQ_INT8,      /* static: s = x_scale */
    EW_XQ_INT8_ROW,  /* a scale a row (token) */
    EW_XQ_FP8,       /* e4m3, static: s = x_scale */
    EW_XQ_FP8_ROW,   /* e4m3, a scale a row */
    EW_XQ_FP8_BLOCK, /* e4m3, a scale every x_block columns */
    EW_XQ_NVFP4,     /* e2m1, block scales amax/6 rounded to e4m3 after division by x_scale */
    EW_XQ_MXFP8,     /* e4m3, blocks of x_block, power-of-two scale: exponent of amax less 8 */
    EW_XQ_MXFP4,     /* e2m1, the same with exponent of amax less 2 */
    EW_XQ_BF16,      /* bf16, no scale */
    EW_XQ_INT8_W8, /* as INT8_ROW, and 4-bit weights may be rounded too, to int8 with a scale a row
                      (kernels/linear_w8.h) */
    EW_XQ_COUNT
};

/* What is done to x alone. */
static inline int32_t ew_x_quant_of_x(int32_t kind)
{
    return kind == EW_XQ_INT8_W8 ? (int32_t)EW_XQ_INT8_ROW : kind;
}

/* BlockQuantize: x in a short format with scales that come from x, by blocks of the last axis.
 * inputs:  0 x [..,K]   1 factor on all block scales, one element (optional, NVFP4 alone)
 * outputs: 0 codes [..,K]   1 scales [.., ceil(K/block)], one a row for the ROW kinds
 * DequantizeLinear over both, in blocks, gives what x_quant of a Linear makes of x. Stands for the
 * reference system's dynamic quantisers until a Linear takes it in. */
struct ew_attr_block_quant {
    int32_t x_quant; /* enum ew_x_quant, a dynamic kind */
    int64_t block;   /* columns; not of the ROW kinds */
};

/* Linear: y = act(x W^T + bias) [* up] [+ residual]
 * inputs: 0 x [..,K]  1 weight [N,K] constant, row-major as in a checkpoint  2 bias [N] (optional)
 *         3 residual [..,N'] (optional), added last
 * glu: weight rows are [gate N/2; up N/2], y = act(gate) * up, N' = N/2; else N' = N.
 * scale multiplies x W^T + bias (granite's residual multiplier, logits scaling), before residual.
 * softcap (0 off): y = softcap * tanh(y / softcap), after scale. */
struct ew_attr_linear {
    int32_t act, glu;
    float scale, softcap;
    int32_t x_quant; /* enum ew_x_quant: x is rounded like this first */
    int32_t x_block; /* columns of a block, where x_quant has blocks */
    float x_scale;   /* where x_quant is static; NVFP4: the factor on all block scales */
};

/* FusedRmsNorm: y = x * rsqrt(mean(x^2) + eps) * w [+ residual]; the last axis. */
struct ew_attr_fused_rms_norm {
    float epsilon;
};

/* Moe: y = sum over the top_k experts e of p_e * down_e(act(gate_e x) * up_e x)
 * inputs: 0 x [..,H]  1 router logits [..,E]  2 gate_up [E,2I,H]  3 down [E,H,I]
 * p = softmax over all E of the logits, top k chosen (ties: lower index), divided by their sum if
 * norm_topk. */
struct ew_attr_moe {
    int64_t top_k;
    int32_t norm_topk, act;
    int32_t x_quant, x_block; /* of both products of every expert; no static ones */
};

/* Pointwise program: a chain of elementwise f32 ops, run block by block from L1. Register r0..r7
 * start as the inputs (broadcast by ONNX rules); each instruction writes a register; the last one
 * written is y. */
enum ew_pw_op {
    EW_PW_ADD,
    EW_PW_SUB,
    EW_PW_MUL,
    EW_PW_DIV,
    EW_PW_MAX,
    EW_PW_MIN,
    EW_PW_POW,
    EW_PW_NEG,
    EW_PW_ABS,
    EW_PW_EXP,
    EW_PW_LOG,
    EW_PW_SQRT,
    EW_PW_RSQRT,
    EW_PW_RECIP,
    EW_PW_SIGMOID,
    EW_PW_TANH,
    EW_PW_SILU,
    EW_PW_GELU_TANH,
    EW_PW_GELU_ERF,
    EW_PW_ERF,
    EW_PW_RELU,
    EW_PW_SOFTPLUS,
    EW_PW_SIN,
    EW_PW_COS,
    EW_PW_FLOOR,
    EW_PW_CEIL,
    EW_PW_ADD_IMM,
    EW_PW_MUL_IMM,
    EW_PW_MAX_IMM,
    EW_PW_MIN_IMM,
    EW_PW_OP_COUNT
};
#define EW_PW_MAX_INSTR 32
#define EW_PW_MAX_REGS  16
struct ew_pw_instr {
    uint8_t op, dst, a, b;
    float imm;
};
struct ew_attr_pointwise {
    int32_t n_instr;
    struct ew_pw_instr instr[EW_PW_MAX_INSTR];
};

/* clang-format off */
#define EW_ATTR_KIND_LIST(X) \
    X(none) X(alpha) X(alpha_beta) X(gelu) X(is_inf) X(cast) X(bit_shift) X(mod) X(arg) \
    X(cumsum) X(reduce) X(axis) X(top_k) X(fill) X(depth_space) X(eye) X(gather_nd) X(pad) \
    X(reshape) X(scatter) X(shape) X(split) X(tensor_scatter) X(perm) X(trilu) X(attention) \
    X(pool) X(conv) X(norm) X(lp_norm) X(quant) X(einsum) X(gemm) X(resize) X(rotary) \
    X(kv_attention) X(linear) X(fused_rms_norm) X(moe) X(pointwise) X(block_quant)
/* clang-format on */

union ew_attrs {
#define EW_ATTR_MEMBER(kind) struct ew_attr_##kind kind;
    EW_ATTR_KIND_LIST(EW_ATTR_MEMBER)
#undef EW_ATTR_MEMBER
};

#endif

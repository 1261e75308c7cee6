/* op/infer_llm.c - types of the LLM ops and of what the passes make: KvAttention, Linear,
 * FusedRmsNorm, Moe, Pointwise. Contracts of their inputs are in op/attrs.h. */
#include <string.h>

#include "op/op.h"

static const struct ew_type *in_type(const struct ew_infer *f, int i)
{
    return i < f->n_in ? f->in[i].type : NULL;
}

/* Whether both can be the same size: numbers must be equal, a symbol may be any number. */
static bool dims_agree(int64_t a, int64_t b)
{
    return a == b || a < 0 || b < 0;
}

static ew_status want_dim(struct ew_infer *f, int input, int axis, int64_t want)
{
    const struct ew_type *t = in_type(f, input);
    char text[64];

    if (dims_agree(t->dim[axis], want))
        return EW_STATUS_OK;
    ew_dim_text(f->syms, want, text, sizeof(text));
    return ew_fail(f->err, EW_STATUS_MISMATCH, "dim %d of input %d is %lld, needed is %s", axis,
                   input, (long long)t->dim[axis], text);
}

static ew_status want_rank(struct ew_infer *f, int input, int rank)
{
    const struct ew_type *t = in_type(f, input);

    if (t->n_dims == rank)
        return EW_STATUS_OK;
    return ew_fail(f->err, EW_STATUS_MISMATCH, "rank of input %d is %d, needed is %d", input,
                   t->n_dims, rank);
}

static ew_status want_dtype(struct ew_infer *f, int input, ew_dtype dtype)
{
    const struct ew_type *t = in_type(f, input);

    if (t->dtype == dtype)
        return EW_STATUS_OK;
    return ew_fail(f->err, EW_STATUS_MISMATCH, "input %d is %s, needed is %s", input,
                   ew_dtype_text(t->dtype), ew_dtype_text(dtype));
}

static bool is_plain_float(ew_dtype d)
{
    return d == EW_DTYPE_F32 || d == EW_DTYPE_F16 || d == EW_DTYPE_BF16;
}

static ew_status want_float(struct ew_infer *f, int input)
{
    const struct ew_type *t = in_type(f, input);

    if (is_plain_float(t->dtype))
        return EW_STATUS_OK;
    return ew_fail(f->err, EW_STATUS_MISMATCH, "input %d is %s, needed is f32, f16 or bf16", input,
                   ew_dtype_text(t->dtype));
}

/* A vector of `n` floats, if there is such an input. */
static ew_status want_vector(struct ew_infer *f, int input, int64_t n)
{
    if (!in_type(f, input))
        return EW_STATUS_OK;
    EW_TRY(want_float(f, input));
    EW_TRY(want_rank(f, input, 1));
    return want_dim(f, input, 0, n);
}

/* ---- KvAttention ---- */

int64_t ew_kv_row_width(ew_dtype cache, int64_t head_size)
{
    if (cache == EW_DTYPE_I8)
        return head_size + (int64_t)sizeof(float);
    return is_plain_float(cache) || cache == EW_DTYPE_F8E4M3 ? head_size : 0;
}

static ew_status kv_check_attrs(struct ew_infer *f)
{
    const struct ew_attr_kv_attention *a = &f->attrs->kv_attention;
    const int64_t cap = 1 << 20;

    if (a->num_q_heads < 1 || a->num_kv_heads < 1 || a->head_size < 1 || a->num_q_heads > cap ||
        a->num_kv_heads > cap || a->head_size > cap)
        return ew_fail(
            f->err, EW_STATUS_MALFORMED,
            "num_q_heads %lld, num_kv_heads %lld, head_size %lld: each must be 1 to %lld",
            (long long)a->num_q_heads, (long long)a->num_kv_heads, (long long)a->head_size,
            (long long)cap);
    if (a->num_q_heads % a->num_kv_heads)
        return ew_fail(f->err, EW_STATUS_MALFORMED,
                       "num_q_heads %lld is not a multiple of num_kv_heads %lld",
                       (long long)a->num_q_heads, (long long)a->num_kv_heads);
    if (a->packed_qkv != 0 && a->packed_qkv != 1)
        return ew_fail(f->err, EW_STATUS_MALFORMED, "packed_qkv is %d, must be 0 or 1",
                       (int)a->packed_qkv);
    if (a->qk_norm < EW_QK_NORM_NONE || a->qk_norm > EW_QK_NORM_FULL)
        return ew_fail(f->err, EW_STATUS_MALFORMED, "qk_norm is %d, must be 0 to 2",
                       (int)a->qk_norm);
    return EW_STATUS_OK;
}

static ew_status kv_check_qkv(struct ew_infer *f)
{
    const struct ew_attr_kv_attention *a = &f->attrs->kv_attention;
    const int64_t nq = a->num_q_heads * a->head_size, nkv = a->num_kv_heads * a->head_size;

    EW_TRY(want_float(f, 0));
    EW_TRY(want_rank(f, 0, 3));
    EW_TRY(want_dim(f, 0, 2, a->packed_qkv ? nq + 2 * nkv : nq));
    for (int i = 1; i <= 2; i++) {
        if (a->packed_qkv && in_type(f, i))
            return ew_fail(f->err, EW_STATUS_MISMATCH,
                           "input %d is given though packed_qkv is 1: q, k and v are in input 0",
                           i);
        if (a->packed_qkv)
            continue;
        if (!in_type(f, i))
            return ew_fail(f->err, EW_STATUS_MISMATCH, "input %d is absent though packed_qkv is 0",
                           i);
        EW_TRY(want_dtype(f, i, in_type(f, 0)->dtype));
        EW_TRY(want_rank(f, i, 3));
        EW_TRY(want_dim(f, i, 0, in_type(f, 0)->dim[0]));
        EW_TRY(want_dim(f, i, 1, in_type(f, 0)->dim[1]));
        EW_TRY(want_dim(f, i, 2, nkv));
    }
    return EW_STATUS_OK;
}

/* The cache: rows of an i8 one end with 4 bytes of scale. */
static ew_status kv_check_cache(struct ew_infer *f)
{
    const struct ew_attr_kv_attention *a = &f->attrs->kv_attention;
    const struct ew_type *kv = in_type(f, 3);
    const int64_t width = ew_kv_row_width(kv->dtype, a->head_size);

    if (!width)
        return ew_fail(f->err, EW_STATUS_MISMATCH,
                       "input 3 is %s, a cache is f32, f16, bf16, f8e4m3 or i8",
                       ew_dtype_text(kv->dtype));
    EW_TRY(want_rank(f, 3, 5));
    EW_TRY(want_dim(f, 3, 0, in_type(f, 0)->dim[0]));
    EW_TRY(want_dim(f, 3, 1, 2));
    EW_TRY(want_dim(f, 3, 2, a->num_kv_heads));
    if (!dims_agree(kv->dim[4], width))
        return ew_fail(f->err, EW_STATUS_MISMATCH,
                       "dim 4 of input 3 is %lld, needed of %s with head_size %lld is %lld",
                       (long long)kv->dim[4], ew_dtype_text(kv->dtype), (long long)a->head_size,
                       (long long)width);
    return EW_STATUS_OK;
}

static ew_status kv_check_state(struct ew_infer *f)
{
    const struct ew_attr_kv_attention *a = &f->attrs->kv_attention;
    const int64_t batch = in_type(f, 0)->dim[0];

    EW_TRY(kv_check_cache(f));
    EW_TRY(want_dtype(f, 4, EW_DTYPE_I32));
    EW_TRY(want_rank(f, 4, 1));
    EW_TRY(want_dim(f, 4, 0, batch));
    if (a->use_rope && !in_type(f, 5))
        return ew_fail(f->err, EW_STATUS_MISMATCH, "input 5 is absent though use_rope is 1");
    if (in_type(f, 5) && a->use_rope) {
        const struct ew_type *rope = in_type(f, 5);
        EW_TRY(want_dtype(f, 5, EW_DTYPE_F32));
        EW_TRY(want_rank(f, 5, 3));
        if (rope->dim[2] >= 0 && (rope->dim[2] % 2 || rope->dim[2] > a->head_size))
            return ew_fail(f->err, EW_STATUS_MISMATCH,
                           "rotary width is %lld, needed is an even number up to head_size %lld",
                           (long long)rope->dim[2], (long long)a->head_size);
        if (rope->dim[0] != 1)
            EW_TRY(want_dim(f, 5, 0, batch));
    }
    if (in_type(f, 6)) { /* [B], or [0] to say that nothing is cached */
        EW_TRY(want_dtype(f, 6, EW_DTYPE_I32));
        EW_TRY(want_rank(f, 6, 1));
        if (in_type(f, 6)->dim[0] != 0)
            EW_TRY(want_dim(f, 6, 0, batch));
    }
    return EW_STATUS_OK;
}

static ew_status kv_check_extras(struct ew_infer *f)
{
    const struct ew_attr_kv_attention *a = &f->attrs->kv_attention;
    const bool full = a->qk_norm == EW_QK_NORM_FULL;
    const int64_t heads_q = full ? a->num_q_heads : 1, heads_k = full ? a->num_kv_heads : 1;

    for (int i = 7; i <= 8; i++) {
        if (a->enable_tree_attention && !in_type(f, i))
            return ew_fail(f->err, EW_STATUS_MISMATCH,
                           "input %d is absent though enable_tree_attention is 1", i);
        if (!in_type(f, i))
            continue;
        EW_TRY(want_dtype(f, i, EW_DTYPE_I32));
        EW_TRY(want_rank(f, i, i == 7 ? 3 : 2));
    }
    for (int i = 9; i <= 10; i++)
        if ((a->qk_norm != EW_QK_NORM_NONE) != (in_type(f, i) != NULL))
            return ew_fail(f->err, EW_STATUS_MISMATCH, "input %d is %s though qk_norm is %d", i,
                           in_type(f, i) ? "given" : "absent", (int)a->qk_norm);
    EW_TRY(want_vector(f, 9, heads_q * a->head_size));
    EW_TRY(want_vector(f, 10, heads_k * a->head_size));
    if (in_type(f, 11))
        return ew_fail(f->err, EW_STATUS_UNSUPPORTED, "input 11 (sinks) is given");
    if (!in_type(f, 12))
        return EW_STATUS_OK;
    EW_TRY(want_dtype(f, 12, EW_DTYPE_F32));
    EW_TRY(want_rank(f, 12, 2));
    EW_TRY(want_dim(f, 12, 0, 2));
    return want_dim(f, 12, 1, a->num_kv_heads);
}

static ew_status infer_kv_attention(struct ew_infer *f)
{
    const struct ew_attr_kv_attention *a = &f->attrs->kv_attention;

    EW_TRY(kv_check_attrs(f));
    EW_TRY(kv_check_qkv(f));
    EW_TRY(kv_check_state(f));
    EW_TRY(kv_check_extras(f));
    f->out[0] = *in_type(f, 0);
    f->out[0].dim[2] = a->num_q_heads * a->head_size;
    f->out[1] = *in_type(f, 3);
    return EW_STATUS_OK;
}

/* ---- Linear, FusedRmsNorm, Moe ---- */

static ew_status want_same(struct ew_infer *f, int input, const struct ew_type *want)
{
    if (!in_type(f, input))
        return EW_STATUS_OK;
    EW_TRY(want_dtype(f, input, want->dtype));
    EW_TRY(want_rank(f, input, want->n_dims));
    for (int i = 0; i < want->n_dims; i++)
        EW_TRY(want_dim(f, input, i, want->dim[i]));
    return EW_STATUS_OK;
}

static ew_status want_some_rank(struct ew_infer *f, int input)
{
    if (in_type(f, input)->n_dims > 0)
        return EW_STATUS_OK;
    return ew_fail(f->err, EW_STATUS_MISMATCH, "rank of input %d is 0, needed is 1 or more", input);
}

static ew_status check_act(struct ew_infer *f, int32_t act)
{
    if (act >= EW_ACT_NONE && act <= EW_ACT_RELU2)
        return EW_STATUS_OK;
    return ew_fail(f->err, EW_STATUS_MALFORMED, "act is %d, must be %d to %d", (int)act,
                   EW_ACT_NONE, EW_ACT_RELU2);
}

/* Rounding of x: a known kind, blocks that divide the columns, a scale that can divide. */
static ew_status check_x_quant(struct ew_infer *f, int32_t kind, int32_t block, float scale)
{
    const bool blocks = kind == EW_XQ_FP8_BLOCK || kind == EW_XQ_NVFP4 || kind == EW_XQ_MXFP8 ||
                        kind == EW_XQ_MXFP4;

    if (kind < EW_XQ_NONE || kind >= EW_XQ_COUNT)
        return ew_fail(f->err, EW_STATUS_MALFORMED, "x_quant is %d, must be %d to %d", (int)kind,
                       EW_XQ_NONE, EW_XQ_COUNT - 1);
    if (blocks && block < 1)
        return ew_fail(f->err, EW_STATUS_MALFORMED, "x_block is %d, must be 1 or more", (int)block);
    if (!(scale > 0) || scale > 3.0e38f)
        return ew_fail(f->err, EW_STATUS_MALFORMED, "x_scale is %g, must be positive",
                       (double)scale);
    return EW_STATUS_OK;
}

static ew_status infer_linear(struct ew_infer *f)
{
    const struct ew_attr_linear *a = &f->attrs->linear;
    const struct ew_type *x = in_type(f, 0), *w = in_type(f, 1);
    struct ew_type *y = &f->out[0];

    EW_TRY(check_act(f, a->act));
    EW_TRY(check_x_quant(f, a->x_quant, a->x_block, a->x_scale));
    EW_TRY(want_float(f, 0));
    EW_TRY(want_some_rank(f, 0));
    EW_TRY(want_float(f, 1));
    EW_TRY(want_rank(f, 1, 2));
    EW_TRY(want_dim(f, 1, 1, x->dim[x->n_dims - 1]));
    if (a->glu && w->dim[0] >= 0 && w->dim[0] % 2)
        return ew_fail(f->err, EW_STATUS_MISMATCH, "weight has %lld rows, glu needs an even number",
                       (long long)w->dim[0]);
    EW_TRY(want_vector(f, 2, w->dim[0]));
    *y = *x;
    y->dim[y->n_dims - 1] = a->glu ? ew_dim_div(f->syms, w->dim[0], 2) : w->dim[0];
    return want_same(f, 3, y);
}

static ew_status infer_fused_rms_norm(struct ew_infer *f)
{
    const struct ew_type *x = in_type(f, 0);

    EW_TRY(want_float(f, 0));
    EW_TRY(want_some_rank(f, 0));
    EW_TRY(want_vector(f, 1, x->dim[x->n_dims - 1]));
    f->out[0] = *x;
    return want_same(f, 2, x);
}

static ew_status infer_moe(struct ew_infer *f)
{
    const struct ew_attr_moe *a = &f->attrs->moe;
    const struct ew_type *x = in_type(f, 0), *logits = in_type(f, 1), *gate_up = in_type(f, 2);
    int64_t e;

    EW_TRY(check_act(f, a->act));
    EW_TRY(check_x_quant(f, a->x_quant, a->x_block, 1.0f));
    if (a->x_quant == EW_XQ_INT8 || a->x_quant == EW_XQ_FP8)
        return ew_fail(f->err, EW_STATUS_UNSUPPORTED, "static rounding of x for experts");
    for (int i = 0; i < 4; i++)
        EW_TRY(want_float(f, i));
    EW_TRY(want_some_rank(f, 0));
    EW_TRY(want_rank(f, 1, x->n_dims));
    for (int i = 0; i + 1 < x->n_dims; i++)
        EW_TRY(want_dim(f, 1, i, x->dim[i]));
    EW_TRY(want_rank(f, 2, 3));
    EW_TRY(want_rank(f, 3, 3));
    e = gate_up->dim[0];
    EW_TRY(want_dim(f, 1, logits->n_dims - 1, e));
    EW_TRY(want_dim(f, 2, 2, x->dim[x->n_dims - 1]));
    EW_TRY(want_dim(f, 3, 0, e));
    EW_TRY(want_dim(f, 3, 1, x->dim[x->n_dims - 1]));
    if (gate_up->dim[1] < 0 || gate_up->dim[1] % 2)
        return ew_fail(f->err, EW_STATUS_MISMATCH,
                       "gate_up has %lld rows, needed is an even number",
                       (long long)gate_up->dim[1]);
    EW_TRY(want_dim(f, 3, 2, gate_up->dim[1] / 2));
    if (a->top_k < 1 || (e >= 0 && a->top_k > e))
        return ew_fail(f->err, EW_STATUS_MISMATCH, "top_k is %lld, experts are %lld",
                       (long long)a->top_k, (long long)e);
    f->out[0] = *x;
    return EW_STATUS_OK;
}

/* ---- Pointwise ---- */

static bool pw_reads_b(uint8_t op)
{
    return op <= EW_PW_POW;
}

static ew_status infer_pointwise(struct ew_infer *f)
{
    const struct ew_attr_pointwise *p = &f->attrs->pointwise;
    uint32_t written = (1u << f->n_in) - 1;

    if (p->n_instr < 1 || p->n_instr > EW_PW_MAX_INSTR)
        return ew_fail(f->err, EW_STATUS_MALFORMED,
                       "program has %d instructions, must have 1 to %d", (int)p->n_instr,
                       EW_PW_MAX_INSTR);
    for (int i = 0; i < p->n_instr; i++) {
        const struct ew_pw_instr *c = &p->instr[i];
        if (c->op >= EW_PW_OP_COUNT || c->dst >= EW_PW_MAX_REGS || c->a >= EW_PW_MAX_REGS ||
            c->b >= EW_PW_MAX_REGS)
            return ew_fail(f->err, EW_STATUS_MALFORMED,
                           "instruction %d is op %u of registers %u, %u, %u: out of range", i,
                           c->op, c->dst, c->a, c->b);
        if (!(written >> c->a & 1) || (pw_reads_b(c->op) && !(written >> c->b & 1)))
            return ew_fail(f->err, EW_STATUS_MALFORMED,
                           "instruction %d reads registers %u, %u: not written before", i, c->a,
                           c->b);
        written |= 1u << c->dst;
    }
    f->out[0] = *in_type(f, 0);
    for (int i = 0; i < f->n_in; i++) {
        if (!in_type(f, i))
            return ew_fail(f->err, EW_STATUS_MALFORMED, "input %d is absent", i);
        EW_TRY(want_dtype(f, i, EW_DTYPE_F32));
        EW_TRY(ew_infer_broadcast(f, &f->out[0], in_type(f, i), &f->out[0]));
    }
    return EW_STATUS_OK;
}

ew_status ew_infer_llm(struct ew_infer *f)
{
    switch (f->op) {
    case EW_OP_KV_ATTENTION:
        return infer_kv_attention(f);
    case EW_OP_LINEAR:
        return infer_linear(f);
    case EW_OP_FUSED_RMS_NORM:
        return infer_fused_rms_norm(f);
    case EW_OP_MOE:
        return infer_moe(f);
    case EW_OP_POINTWISE:
        return infer_pointwise(f);
    default:
        return ew_fail(f->err, EW_STATUS_UNSUPPORTED, "op number %d is not of group llm",
                       (int)f->op);
    }
}

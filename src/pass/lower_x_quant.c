/* pass/lower_x_quant.c - activations that are quantised and dequantised before a product with a
 * quantised weight: the pair becomes the Linear's x_quant.
 *
 *   x -QuantizeLinear-> -DequantizeLinear-> Linear    int8 or e4m3, one constant scale, no zero
 * point x -BlockQuantize-> codes, scales -DequantizeLinear-> [-DequantizeLinear->] Linear
 *
 * What does not fit (other scales, zero points off the middle, e5m2) stays and runs op by op. */
#include <math.h>

#include "pass/match.h"
#include "pass/pass.h"

struct x_quant {
    struct ew_value *x;
    int32_t kind, block;
    float scale;
};

static bool is_wide(ew_dtype d)
{
    return d == EW_DTYPE_F32 || d == EW_DTYPE_F16 || d == EW_DTYPE_BF16;
}

static const struct ew_value *behind_casts(const struct ew_value *v)
{
    while (v->producer && v->producer->op == EW_OP_CAST && is_wide(v->type.dtype) &&
           is_wide(v->producer->in[0]->type.dtype))
        v = v->producer->in[0];
    return v;
}

/* One positive number. */
static bool match_factor(const struct ew_value *v, float *out)
{
    double x;

    if (!ew_match_scalar(behind_casts(v), &x) || !(x > 0) || !isfinite((float)x) || (float)x == 0)
        return false;
    *out = (float)x;
    return true;
}

/* No zero point, or the one that makes codes symmetric. */
static bool is_middle(const struct ew_node *n, ew_dtype code)
{
    double zero;

    if (n->n_in < 3 || !n->in[2])
        return code != EW_DTYPE_U8;
    return ew_match_scalar(n->in[2], &zero) && zero == (code == EW_DTYPE_U8 ? 128.0 : 0.0);
}

static bool match_static(const struct ew_node *dq, struct x_quant *out)
{
    const struct ew_node *q = ew_match_node(dq->in[0], EW_OP_QUANTIZE_LINEAR);
    const ew_dtype code = dq->in[0]->type.dtype;
    float again;

    if (!q || (code != EW_DTYPE_I8 && code != EW_DTYPE_U8 && code != EW_DTYPE_F8E4M3) ||
        q->attrs.quant.block_size || dq->attrs.quant.block_size || !q->attrs.quant.saturate ||
        !match_factor(q->in[1], &out->scale) || !match_factor(dq->in[1], &again) ||
        again != out->scale || !is_middle(q, code) || !is_middle(dq, code))
        return false;
    out->x = q->in[0];
    out->kind = code == EW_DTYPE_F8E4M3 ? EW_XQ_FP8 : EW_XQ_INT8;
    out->block = 0;
    return true;
}

static bool is_last_axis(const struct ew_node *n)
{
    const int64_t axis = n->attrs.quant.axis;

    return axis == -1 || axis == n->in[0]->type.n_dims - 1;
}

/* Scales of the codes of `q`, times the factor that q divided by. */
static bool match_block_scales(const struct ew_value *v, const struct ew_node *q, float *factor)
{
    const struct ew_node *inner;
    float again;

    *factor = 1;
    v = behind_casts(v);
    if (q->attrs.block_quant.x_quant != EW_XQ_NVFP4)
        return v == q->out[1];
    inner = ew_match_node(v, EW_OP_DEQUANTIZE_LINEAR);
    if (q->n_in > 1 && q->in[1] && !match_factor(q->in[1], factor))
        return false;
    return inner && inner->in[0] == q->out[1] && (inner->n_in < 3 || !inner->in[2]) &&
           match_factor(inner->in[1], &again) && again == *factor;
}

static bool match_dynamic(const struct ew_node *dq, struct x_quant *out)
{
    const struct ew_node *q = ew_match_node(dq->in[0], EW_OP_BLOCK_QUANTIZE);
    const struct ew_attr_block_quant *a = q ? &q->attrs.block_quant : NULL;

    if (!q || dq->in[0] != q->out[0] || (dq->n_in > 2 && dq->in[2]) || !is_last_axis(dq) ||
        a->block > INT32_MAX || !match_block_scales(dq->in[1], q, &out->scale))
        return false;
    const bool is_row = a->x_quant == EW_XQ_INT8_ROW || a->x_quant == EW_XQ_FP8_ROW;
    const int64_t k = q->in[0]->type.dim[q->in[0]->type.n_dims - 1];
    if (dq->attrs.quant.block_size != (is_row ? k : a->block))
        return false;
    out->x = q->in[0];
    out->kind = a->x_quant;
    out->block = is_row ? 0 : (int32_t)a->block;
    return true;
}

ew_status ew_pass_lower_x_quant(struct ew_graph *g, size_t *n_changes, ew_error *err)
{
    (void)err;
    for (struct ew_node *n = g->head; n; n = n->next) {
        struct x_quant found;
        const struct ew_node *dq;

        if (n->op != EW_OP_LINEAR || n->attrs.linear.x_quant != EW_XQ_NONE ||
            !ew_const_quant(n->in[1]))
            continue;
        dq = ew_match_node(behind_casts(n->in[0]), EW_OP_DEQUANTIZE_LINEAR);
        if (!dq || (!match_static(dq, &found) && !match_dynamic(dq, &found)) ||
            found.x->type.dtype != n->in[0]->type.dtype)
            continue;
        n->attrs.linear.x_quant = found.kind;
        n->attrs.linear.x_block = found.block;
        n->attrs.linear.x_scale = found.scale;
        ew_node_set_input(n, 0, found.x);
        ++*n_changes;
    }
    return EW_STATUS_OK;
}

/* backend/cuda/emit_rows.c - FusedRmsNorm, Pointwise, and the few plain ops that language models
 * keep after the passes: gathers, casts, soft maximum. Every other op is refused by name. */
#include <string.h>

#include "backend/cuda/cuda.h"
#include "kernels/cuda/rows_cuda.h"
#include "kernels/cuda/step.h"

/* The list's last step is this norm. */
static void note_norm(struct ew_step_list *list, const struct ew_cuda_norm *p)
{
    struct ew_cuda_step *s;

    memcpy(&s, &list->steps[list->n - 1].args, sizeof(s)); /* made a moment ago, and ours */
    s->norm.x = p->x;
    s->norm.w = p->w;
    s->norm.y = p->y;
    s->norm.rows = p->rows;
    s->norm.n = p->n;
    s->norm.eps = p->eps;
}

ew_status ew_cuda_emit_rms_norm(struct ew_step_list *list, const struct ew_emit *e, ew_error *err)
{
    const struct ew_type *t = &e->in[0]->type;
    struct ew_cuda_norm p = { .eps = e->node->attrs.fused_rms_norm.epsilon };
    struct ew_cuda_work work = { e, list, 0 };
    struct ew_cuda_launch l;
    size_t count, w_count;

    if (t->n_dims < 1 || !ew_type_count(t, &count) || !ew_type_count(&e->in[1]->type, &w_count))
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "a norm of a scalar");
    p.n = (size_t)t->dim[t->n_dims - 1];
    if (w_count != p.n)
        return ew_fail(err, EW_STATUS_MISMATCH, "weight has %zu values, rows have %zu", w_count,
                       p.n);
    if (!count)
        return EW_STATUS_OK;
    p.rows = count / p.n;
    EW_TRY(ew_cuda_f32_in(&work, 0, &p.x, err));
    EW_TRY(ew_cuda_f32_in(&work, 1, &p.w, err));
    EW_TRY(ew_cuda_f32_in(&work, 2, &p.residual, err));
    EW_TRY(ew_cuda_f32_out(&work, 0, &p.y, err));
    EW_TRY(ew_cuda_norm_plan(&p, &l, err));
    EW_TRY(ew_cuda_emit_launches(list, e, &l, 1, NULL, 8ull * count, 4ull * count, err));
    if (p.rows <= EW_CUDA_DECODE_ROWS && !p.residual) {
        const struct ew_cuda_decode_node node = { .kind = EW_CUDA_DECODE_NORM,
                                                  .name = e->node->name,
                                                  .problem = { .x = (uint64_t)(uintptr_t)p.x,
                                                               .y = (uint64_t)(uintptr_t)p.y,
                                                               .norm_weight =
                                                                   (uint64_t)(uintptr_t)p.w,
                                                               .norm_eps = p.eps,
                                                               .x_stride = p.n,
                                                               .y_stride = p.n,
                                                               .m = p.rows,
                                                               .n = p.n,
                                                               .k = p.n } };

        EW_TRY(ew_cuda_note_decode(list, &node, err));
    }
    /* a weight that is not f32 was converted into working memory, which the Linear takes for itself
     */
    if (!p.residual && e->in[0]->type.dtype == EW_DTYPE_F32 &&
        e->in[1]->type.dtype == EW_DTYPE_F32 && e->out[0]->type.dtype == EW_DTYPE_F32 &&
        ew_cuda_only_linear(e->plan, e->node->out[0]))
        note_norm(list, &p);
    return ew_cuda_f32_out_end(&work, 0, p.y, err);
}

ew_status ew_cuda_emit_pointwise(struct ew_step_list *list, const struct ew_emit *e, ew_error *err)
{
    struct ew_cuda_pointwise p = { .program = &e->node->attrs.pointwise, .n_in = e->node->n_in };
    struct ew_cuda_work work = { e, list, 0 };
    struct ew_type in_type[8], out_type;
    struct ew_cuda_launch l;
    size_t count;

    if (p.n_in > 8 || !ew_type_count(&e->out[0]->type, &count))
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "%zu inputs", p.n_in);
    if (!count)
        return EW_STATUS_OK;
    for (uint32_t k = 0; k < p.n_in; k++) {
        EW_TRY(ew_cuda_f32_in(&work, k, &p.in[k], err));
        in_type[k] = e->in[k]->type;
        in_type[k].dtype = EW_DTYPE_F32;
        p.in_type[k] = &in_type[k];
    }
    EW_TRY(ew_cuda_f32_out(&work, 0, &p.y, err));
    out_type = e->out[0]->type;
    out_type.dtype = EW_DTYPE_F32;
    p.out_type = &out_type;
    EW_TRY(ew_cuda_pointwise_plan(&p, &l, err));
    EW_TRY(ew_cuda_emit_launches(list, e, &l, 1, NULL, 4ull * count * (p.n_in + 1),
                                 (uint64_t)count * (uint64_t)p.program->n_instr, err));
    return ew_cuda_f32_out_end(&work, 0, p.y, err);
}

static ew_status note_same(struct ew_step_list *list, const struct ew_emit *e, size_t rows,
                           ew_error *err)
{
    const struct ew_cuda_decode_node node = { .kind = EW_CUDA_DECODE_SAME,
                                              .name = e->node->name,
                                              .problem = { .x = (uint64_t)(uintptr_t)e->in[0]->data,
                                                           .y =
                                                               (uint64_t)(uintptr_t)e->out[0]->data,
                                                           .m = rows } };

    return ew_cuda_note_decode(list, &node, err);
}

static ew_status gather(struct ew_step_list *list, const struct ew_emit *e,
                        const struct ew_cuda_gather *p, ew_error *err)
{
    struct ew_cuda_launch l;

    if (p->idx_type != EW_DTYPE_I32 && p->idx_type != EW_DTYPE_I64)
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "indices of %s", ew_dtype_text(p->idx_type));
    if (!p->n_batch || !p->n_idx || !p->row_bytes)
        return EW_STATUS_OK;
    EW_TRY(ew_cuda_gather_plan(p, &l, err));
    EW_TRY(ew_cuda_emit_launches(list, e, &l, 1, "gather",
                                 2ull * p->n_batch * p->n_idx * p->row_bytes, 0, err));
    if (p->n_batch <= EW_CUDA_DECODE_ROWS && p->n_idx == 1 && p->n_rows == 1 &&
        e->in[0]->type.dtype == EW_DTYPE_F32)
        return note_same(list, e, p->n_batch, err); /* of one row there is one choice */
    return EW_STATUS_OK;
}

/* Elements of dims [from, to) and bytes of an element; false: not of whole bytes. */
static bool inner_bytes(const struct ew_type *t, int from, size_t *bytes)
{
    const unsigned bits = ew_dtype_bits(t->dtype);

    *bytes = bits / 8;
    for (int d = from; d < t->n_dims; d++)
        *bytes *= (size_t)t->dim[d];
    return bits % 8 == 0;
}

/* data [B.., S, rest], indices [B.., n.., 1]: the last-token gather. */
static ew_status emit_gather_nd(struct ew_step_list *list, const struct ew_emit *e, ew_error *err)
{
    const struct ew_type *x = &e->in[0]->type, *i = &e->in[1]->type;
    const int64_t b = e->node->attrs.gather_nd.batch_dims;
    struct ew_cuda_gather p = { .dst = e->out[0]->data,
                                .src = e->in[0]->data,
                                .idx = e->in[1]->data,
                                .idx_type = i->dtype,
                                .n_batch = 1,
                                .n_idx = 1 };

    if (b < 0 || b >= x->n_dims || i->n_dims < b + 1 || i->dim[i->n_dims - 1] != 1 ||
        !inner_bytes(x, (int)b + 1, &p.row_bytes))
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "the CUDA backend gathers along one axis behind the batch");
    for (int d = 0; d < (int)b; d++)
        p.n_batch *= (size_t)x->dim[d];
    for (int d = (int)b; d < i->n_dims - 1; d++)
        p.n_idx *= (size_t)i->dim[d];
    p.n_rows = (size_t)x->dim[b];
    return gather(list, e, &p, err);
}

static ew_status emit_gather(struct ew_step_list *list, const struct ew_emit *e, ew_error *err)
{
    const struct ew_type *x = &e->in[0]->type;
    struct ew_cuda_gather p = { .dst = e->out[0]->data,
                                .src = e->in[0]->data,
                                .idx = e->in[1]->data,
                                .idx_type = e->in[1]->type.dtype,
                                .n_batch = 1 };
    const int64_t axis = e->node->attrs.axis.axis;

    if (x->n_dims < 1 || (axis != 0 && axis != -x->n_dims) || !inner_bytes(x, 1, &p.row_bytes) ||
        !ew_type_count(&e->in[1]->type, &p.n_idx))
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "the CUDA backend gathers along axis 0");
    p.n_rows = (size_t)x->dim[0];
    return gather(list, e, &p, err);
}

static ew_status emit_cast(struct ew_step_list *list, const struct ew_emit *e, ew_error *err)
{
    const struct ew_view *x = e->in[0], *y = e->out[0];
    struct ew_cuda_launch l;
    size_t n;

    if (!ew_type_count(&x->type, &n))
        return ew_fail(err, EW_STATUS_LIMIT, "input is too large");
    if (!n)
        return EW_STATUS_OK;
    EW_TRY(ew_cuda_convert_plan(y->data, y->type.dtype, x->data, x->type.dtype, n, &l, err));
    return ew_cuda_emit_launches(list, e, &l, 1, "convert", 0, 0, err);
}

static ew_status emit_softmax(struct ew_step_list *list, const struct ew_emit *e, ew_error *err)
{
    const struct ew_type *t = &e->in[0]->type;
    const int64_t axis = e->node->attrs.axis.axis;
    struct ew_cuda_softmax p = { .is_log = e->node->op == EW_OP_LOG_SOFTMAX };
    struct ew_cuda_work work = { e, list, 0 };
    struct ew_cuda_launch l;
    size_t count;

    if (t->n_dims < 1 || (axis != -1 && axis != t->n_dims - 1) || !ew_type_count(t, &count))
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "the CUDA backend takes the soft maximum of the last axis");
    if (!count)
        return EW_STATUS_OK;
    p.n = (size_t)t->dim[t->n_dims - 1];
    p.rows = count / p.n;
    EW_TRY(ew_cuda_f32_in(&work, 0, &p.x, err));
    EW_TRY(ew_cuda_f32_out(&work, 0, &p.y, err));
    EW_TRY(ew_cuda_softmax_plan(&p, &l, err));
    EW_TRY(ew_cuda_emit_launches(list, e, &l, 1, "softmax", 8ull * count, 4ull * count, err));
    return ew_cuda_f32_out_end(&work, 0, p.y, err);
}

ew_status ew_cuda_emit_general(struct ew_step_list *list, const struct ew_emit *e, ew_error *err)
{
    size_t n;

    if (ew_plan_is_view_op(e->node->op)) { /* into an output's own memory */
        if (!ew_type_bytes(&e->out[0]->type, &n))
            return ew_fail(err, EW_STATUS_LIMIT, "output is too large");
        return ew_cuda_emit_copy(list, e, e->out[0]->data, e->in[0]->data, n, err);
    }
    switch (e->node->op) {
    case EW_OP_GATHER_ND:
        return emit_gather_nd(list, e, err);
    case EW_OP_GATHER:
        return emit_gather(list, e, err);
    case EW_OP_CAST:
        return emit_cast(list, e, err);
    case EW_OP_SOFTMAX:
    case EW_OP_LOG_SOFTMAX:
        return emit_softmax(list, e, err);
    default:
        break;
    }
    for (uint32_t k = 0; k < e->node->n_out; k++)
        if (e->out[k] && (!ew_type_count(&e->out[k]->type, &n) || n))
            return ew_fail(err, EW_STATUS_UNSUPPORTED, "the CUDA backend does not run this op");
    return EW_STATUS_OK;
}

/* backend/cuda/emit_moe.c - Moe as launches. */
#include "backend/cuda/cuda.h"
#include "kernels/cuda/moe_cuda.h"

static struct ew_cuda_moe_weight weight_of(const struct ew_view *v, const struct ew_packed *w)
{
    return (struct ew_cuda_moe_weight){
        .at = v->data, .stride = w->expert_bytes, .dtype = v->type.dtype, .format = w->format
    };
}

ew_status ew_cuda_emit_moe(struct ew_step_list *list, const struct ew_emit *e, ew_error *err)
{
    const struct ew_attr_moe *at = &e->node->attrs.moe;
    const struct ew_packed *up = e->packed[2], *down = e->packed[3];
    const struct ew_cuda *cuda = ew_cuda_of(e);
    struct ew_cuda_work work = { e, list, 0 };
    struct ew_cuda_launch launches[EW_CUDA_MOE_LAUNCHES];
    struct ew_cuda_moe p = { .act = at->act, .norm_topk = at->norm_topk != 0 };
    size_t n = 0, count;
    float *y;

    if (!up || !down || !ew_type_count(&e->in[0]->type, &count))
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "experts are not packed");
    if (at->x_quant != EW_XQ_NONE)
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "the CUDA backend does not round activations before experts (build with "
                       "--activations exact)");
    p.h = (size_t)up->k;
    p.inner = (size_t)down->k;
    p.e = (size_t)up->n_experts;
    p.k = (size_t)at->top_k;
    p.rows = count / p.h;
    if (!p.rows)
        return EW_STATUS_OK;
    EW_TRY(ew_cuda_f32_in(&work, 0, &p.x, err));
    EW_TRY(ew_cuda_f32_in(&work, 1, &p.logits, err));
    EW_TRY(ew_cuda_f32_out(&work, 0, &y, err));
    p.y = y;
    p.gate_up = weight_of(e->in[2], up);
    p.down = weight_of(e->in[3], down);
    p.work = ew_cuda_work_take(&work, ew_cuda_moe_work_bytes(&p));
    EW_TRY(ew_cuda_moe_plan(&p, &cuda->chip, launches, &n, err));
    EW_TRY(ew_cuda_emit_launches(list, e, launches, n, "moe",
                                 p.k * (up->expert_bytes + down->expert_bytes),
                                 6ull * p.rows * p.k * p.h * p.inner, err));
    return ew_cuda_f32_out_end(&work, 0, y, err);
}

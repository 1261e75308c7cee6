/* backend/cuda/emit_attention.c - KvAttention and Moe as launches. Lengths are read on the device;
 * what the caller knows of them is checked before a run (engine/context.c). */
#include <string.h>

#include "backend/attn_args.h"
#include "backend/cuda/cuda.h"
#include "kernels/cuda/attention_cuda.h"
#include "kernels/cuda/moe_cuda.h"

ew_status ew_cuda_emit_attention(struct ew_step_list *list, const struct ew_emit *e, ew_error *err)
{
    const bool has_norm = e->node->attrs.kv_attention.qk_norm != EW_QK_NORM_NONE;
    const struct ew_cuda *cuda = ew_cuda_of(e);
    struct ew_cuda_work work = { e, list, 0 };
    struct ew_cuda_launch launches[EW_CUDA_ATTN_LAUNCHES];
    struct ew_cuda_attn p = { 0 };
    struct ew_attn_args *a = &p.a;
    const float *in[3], *norms[2] = { NULL, NULL };
    size_t n = 0;
    float *y;

    for (uint32_t k = 0; k < 3; k++)
        EW_TRY(ew_cuda_f32_in(&work, k, &in[k], err));
    for (uint32_t k = 0; k < 2 && has_norm; k++)
        EW_TRY(ew_cuda_f32_in(&work, 9 + k, &norms[k], err));
    EW_TRY(ew_attn_args_from_node(e, in, norms, a, err));
    if (!a->b || !a->s)
        return EW_STATUS_OK;
    EW_TRY(ew_cuda_f32_out(&work, 0, &y, err));
    a->out = y;
    a->out_stride = a->hq * a->d;
    p.work = ew_cuda_work_take(&work, ew_cuda_attn_work_bytes(&p, &cuda->chip));
    p.counters =
        ew_cuda_counters(list, e, a->b * EW_CUDA_ATTN_COUNTERS(a->hkv, a->s) * sizeof(uint32_t));
    EW_TRY(ew_cuda_attn_plan(&p, &cuda->chip, launches, &n, err));
    EW_TRY(ew_cuda_emit_launches(list, e, launches, n, NULL, ew_attn_step_bytes(e, a),
                                 ew_attn_step_flops(a), err));
    return ew_cuda_f32_out_end(&work, 0, y, err);
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
    if (ew_quant_is(&up->format) || ew_quant_is(&down->format) || at->x_quant != EW_XQ_NONE)
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "the CUDA backend runs experts of bf16, f16 and f32 alone");
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
    p.gate_up = e->in[2]->data;
    p.down = e->in[3]->data;
    p.gate_up_stride = up->expert_bytes;
    p.down_stride = down->expert_bytes;
    p.w_dtype = e->in[2]->type.dtype;
    p.work = ew_cuda_work_take(&work, ew_cuda_moe_work_bytes(&p));
    EW_TRY(ew_cuda_moe_plan(&p, &cuda->chip, launches, &n, err));
    EW_TRY(ew_cuda_emit_launches(list, e, launches, n, "moe",
                                 p.k * (up->expert_bytes + down->expert_bytes),
                                 6ull * p.rows * p.k * p.h * p.inner, err));
    return ew_cuda_f32_out_end(&work, 0, y, err);
}

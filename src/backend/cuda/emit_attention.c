/* backend/cuda/emit_attention.c - KvAttention as launches. Lengths are read on the device;
 * what the caller knows of them is checked before a run (engine/context.c). */
#include <string.h>

#include "backend/attn_args.h"
#include "backend/cuda/cuda.h"
#include "kernels/cuda/attention_cuda.h"
#include "kernels/cuda/step.h"

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
    p.x_short = ew_cuda_short_heads(e, e->node->in[0], &e->in[0]->type);
    EW_TRY(ew_cuda_f32_out(&work, 0, &y, err));
    a->out_stride = a->hq * a->d;
    if (ew_cuda_is_short(e, e->node->out[0], a->b * a->s))
        p.out_bf16 = y;
    else
        a->out = y;
    p.work = ew_cuda_work_take(&work, ew_cuda_attn_work_bytes(&p, &cuda->chip));
    p.counters =
        ew_cuda_counters(list, e, a->b * EW_CUDA_ATTN_COUNTERS(a->hkv, a->s) * sizeof(uint32_t));
    EW_TRY(ew_cuda_attn_plan(&p, &cuda->chip, launches, &n, err));
    EW_TRY(ew_cuda_emit_launches(list, e, launches, n, NULL, ew_attn_step_bytes(e, a),
                                 ew_attn_step_flops(a), err));
    if (a->b <= EW_CUDA_DECODE_ROWS && a->mode == EW_ATTN_DECODE && n &&
        e->out[0]->type.dtype == EW_DTYPE_F32) {
        const struct ew_cuda_decode_node node = { .kind = EW_CUDA_DECODE_ATTENTION,
                                                  .name = e->node->name,
                                                  .attention = *a };

        EW_TRY(ew_cuda_note_decode(list, &node, err));
    }
    return ew_cuda_f32_out_end(&work, 0, y, err);
}

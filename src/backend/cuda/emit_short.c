/* backend/cuda/emit_short.c - activations that lie in memory as bf16: what one Linear alone reads,
 * which would round it anyway. Its maker rounds, the launch that would have is gone, and half of
 * the bytes are. The tensor keeps its place and its size in the plan. */
#include "backend/cuda/cuda.h"
#include "kernels/cuda/attention_cuda.h"
#include "kernels/cuda/linear.h"

#define SHORT_ROWS 16  /* fewer are read by kernels that want f32 */
#define HEADS_ROWS 256 /* up to these, f32 costs little */

/* The node that alone reads tensor t, as its first input, or NULL. */
static const struct ew_plan_node *only_reader(const struct ew_plan *p, uint32_t t)
{
    const struct ew_plan_node *reader = NULL;

    for (uint32_t i = 0; i < p->n_nodes; i++)
        for (uint32_t k = 0; k < p->nodes[i].n_in; k++) {
            const uint32_t in = p->nodes[i].in[k];

            if (in == EW_PLAN_NONE || p->root[in] != p->root[t])
                continue;
            if (reader || k != 0 || in != t)
                return NULL;
            reader = &p->nodes[i];
        }
    for (uint32_t o = 0; o < p->n_outputs; o++)
        if (p->root[p->outputs[o].tensor] == p->root[t])
            return NULL;
    return reader;
}

const struct ew_plan_node *ew_cuda_only_linear(const struct ew_plan *p, uint32_t t)
{
    const struct ew_plan_node *reader = only_reader(p, t);

    return reader && reader->op == EW_OP_LINEAR ? reader : NULL;
}

static const struct ew_plan_node *maker_of(const struct ew_plan *p, uint32_t t)
{
    for (uint32_t i = 0; i < p->n_nodes; i++)
        for (uint32_t k = 0; k < p->nodes[i].n_out; k++)
            if (p->nodes[i].out[k] == t)
                return &p->nodes[i];
    return NULL;
}

/* The kernel of a Linear of m rows. */
static const struct ew_cuda_linear_kernel *kernel_of(const struct ew_emit *e,
                                                     const struct ew_plan_node *linear, uint64_t m)
{
    const struct ew_plan_tensor *w = &e->plan->tensors[linear->in[1]];

    if (!w->packed.kernel)
        return NULL;
    return ew_cuda_linear_choose(e->plan, &ew_cuda_of(e)->chip, w->dtype, &w->packed, m,
                                 ew_cuda_is_router(e->plan, linear->out[0]));
}

bool ew_cuda_is_short(const struct ew_emit *e, uint32_t t, uint64_t m)
{
    const struct ew_plan_node *reader, *maker;
    const struct ew_cuda_linear_kernel *k;

    if (m < SHORT_ROWS || e->plan->tensors[t].dtype != EW_DTYPE_F32 || e->plan->root[t] != t)
        return false;
    reader = ew_cuda_only_linear(e->plan, t);
    maker = reader ? maker_of(e->plan, t) : NULL;
    k = maker ? kernel_of(e, reader, m) : NULL;
    if (!k || !k->takes_prepared || k->layout->weight_dtype == EW_DTYPE_F16 ||
        e->plan->tensors[reader->in[1]].packed.k % 8)
        return false;
    if (maker->op == EW_OP_LINEAR) {
        k = kernel_of(e, maker, m);
        return k && k->puts_short;
    }
    return maker->op == EW_OP_KV_ATTENTION;
}

/* Heads that the wide preparation turns (attention_prep_wide.cu). */
static bool turns_whole(const struct ew_plan *p, const struct ew_plan_node *attention)
{
    const struct ew_attr_kv_attention *at = &attention->attrs.kv_attention;
    const uint32_t rope = attention->n_in > 5 && at->use_rope ? attention->in[5] : EW_PLAN_NONE;

    return rope == EW_PLAN_NONE ||
           (p->tensors[rope].n_dims == 3 && p->tensors[rope].dim[2] == at->head_size);
}

ew_dtype ew_cuda_short_heads(const struct ew_emit *e, uint32_t t, const struct ew_type *type)
{
    const struct ew_plan *p = e->plan;
    const struct ew_plan_node *reader, *maker;
    const struct ew_cuda_linear_kernel *k;
    uint64_t m;

    if (type->dtype != EW_DTYPE_F32 || type->n_dims != 3 || p->root[t] != t)
        return EW_DTYPE_NONE;
    m = (uint64_t)type->dim[0] * (uint64_t)type->dim[1];
    reader = m > HEADS_ROWS ? only_reader(p, t) : NULL;
    maker = reader && reader->op == EW_OP_KV_ATTENTION ? maker_of(p, t) : NULL;
    if (!maker || maker->op != EW_OP_LINEAR || !reader->attrs.kv_attention.packed_qkv ||
        reader->attrs.kv_attention.qk_norm == EW_QK_NORM_FULL || !turns_whole(p, reader) ||
        !ew_cuda_attn_takes_short(&ew_cuda_of(e)->chip, p->tensors[reader->in[3]].dtype,
                                  (size_t)type->dim[1],
                                  (size_t)reader->attrs.kv_attention.head_size))
        return EW_DTYPE_NONE;
    k = kernel_of(e, maker, m);
    return k && k->puts_short ? p->tensors[reader->in[3]].dtype : EW_DTYPE_NONE;
}

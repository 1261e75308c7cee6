/* backend/attn_args.c - KvAttention's node to arguments; shared by the backends. */
#include "backend/attn_args.h"

#include <math.h>

bool ew_attn_lengths_ok(const struct ew_attn_args *a, size_t *row, int64_t *need)
{
    for (size_t b = 0; b < a->b; b++) {
        const int64_t c = a->context_lengths[b];
        const int64_t s0 = a->start_index ? a->start_index[b] : 0;
        int64_t end = 0;

        *row = b;
        *need = c;
        if (c < 0 || s0 < 0)
            return false;
        switch (a->mode) {
        case EW_ATTN_PREFILL:
        case EW_ATTN_CHUNKED:
            if (c > (int64_t)a->s)
                return false;
            end = s0 + c;
            break;
        case EW_ATTN_DECODE:
            end = c;
            break;
        case EW_ATTN_TREE:
            end = s0 + (int64_t)a->s;
            break;
        }
        *need = end;
        if (end > (int64_t)a->cap ||
            (a->rope && a->mode != EW_ATTN_TREE && end > (int64_t)a->rope_rows))
            return false;
        for (size_t i = 0; a->mode == EW_ATTN_TREE && i < a->s; i++) {
            const int64_t pos = a->pos_id[b * a->s + i];

            *need = pos + 1;
            if (pos < -1 || (a->rope && pos >= (int64_t)a->rope_rows))
                return false;
        }
    }
    return true;
}

static ew_status choose_mode(const struct ew_emit *e, struct ew_attn_args *a, ew_error *err)
{
    const struct ew_view *start = e->node->n_in > 6 ? e->in[6] : NULL;
    const struct ew_view *mask = e->node->n_in > 7 ? e->in[7] : NULL;
    const struct ew_view *pos = e->node->n_in > 8 ? e->in[8] : NULL;

    if (!start || start->type.dim[0] == 0) {
        a->mode = EW_ATTN_PREFILL;
        return EW_STATUS_OK;
    }
    if (start->type.dim[0] != (int64_t)a->b)
        return ew_fail(err, EW_STATUS_MISMATCH, "kvcache_start_index has %lld rows, the batch %zu",
                       (long long)start->type.dim[0], a->b);
    a->start_index = start->data;
    if (a->s == 1) {
        a->mode = EW_ATTN_DECODE;
        return EW_STATUS_OK;
    }
    if (!e->node->attrs.kv_attention.enable_tree_attention || !pos || pos->type.dim[1] == 1) {
        a->mode = EW_ATTN_CHUNKED;
        return EW_STATUS_OK;
    }
    if (!mask || pos->type.dim[1] != (int64_t)a->s || mask->type.dim[1] != (int64_t)a->s ||
        pos->type.dim[0] != (int64_t)a->b || mask->type.dim[0] != (int64_t)a->b ||
        mask->type.dim[2] * 32 < (int64_t)a->s)
        return ew_fail(err, EW_STATUS_MISMATCH,
                       "tree of %zu rows: attention_pos_id has %lld, attention_mask %lld", a->s,
                       (long long)pos->type.dim[1], mask ? (long long)mask->type.dim[1] : -1);
    a->mode = EW_ATTN_TREE;
    a->mask = mask->data;
    a->mask_words = (size_t)mask->type.dim[2];
    a->pos_id = pos->data;
    return EW_STATUS_OK;
}

/* Sizes of q, cache and RoPE against the attributes; what inference checks symbolically is checked
 * again here because the kernel trusts it. */
static ew_status shapes(const struct ew_emit *e, struct ew_attn_args *a, ew_error *err)
{
    const struct ew_attr_kv_attention *at = &e->node->attrs.kv_attention;
    const struct ew_type *q = &e->in[0]->type, *kv = &e->in[3]->type, *len = &e->in[4]->type;
    const int64_t width =
        at->head_size * (at->num_q_heads + (at->packed_qkv ? 2 * at->num_kv_heads : 0));
    const int64_t width_kv = ew_kv_row_width(kv->dtype, at->head_size);

    if (q->n_dims != 3 || kv->n_dims != 5 || at->num_q_heads < 1 || at->num_kv_heads < 1 ||
        at->head_size < 1 || at->num_q_heads % at->num_kv_heads || q->dim[2] != width)
        return ew_fail(err, EW_STATUS_MISMATCH, "query width is %lld, the attributes say %lld",
                       (long long)q->dim[q->n_dims > 2 ? 2 : 0], (long long)width);
    a->b = (size_t)q->dim[0];
    a->s = (size_t)q->dim[1];
    a->hq = (size_t)at->num_q_heads;
    a->hkv = (size_t)at->num_kv_heads;
    a->d = (size_t)at->head_size;
    if (kv->dim[0] != q->dim[0] || kv->dim[1] != 2 || kv->dim[2] != at->num_kv_heads ||
        kv->dim[4] != width_kv)
        return ew_fail(err, EW_STATUS_MISMATCH,
                       "cache is [%lld,%lld,%lld,%lld,%lld], wanted [%lld,2,%lld,cap,%lld]",
                       (long long)kv->dim[0], (long long)kv->dim[1], (long long)kv->dim[2],
                       (long long)kv->dim[3], (long long)kv->dim[4], (long long)q->dim[0],
                       (long long)at->num_kv_heads, (long long)width_kv);
    if (len->n_dims != 1 || len->dim[0] != q->dim[0] || len->dtype != EW_DTYPE_I32)
        return ew_fail(err, EW_STATUS_MISMATCH, "context_lengths has %lld rows, the batch %lld",
                       (long long)len->dim[0], (long long)q->dim[0]);
    a->kv = e->in[3]->data;
    a->kv_dtype = kv->dtype;
    a->cap = (size_t)kv->dim[3];
    a->context_lengths = e->in[4]->data;
    if (!width_kv)
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "cache of %s; f32, f16, bf16, f8e4m3 and i8 can be run",
                       ew_dtype_text(kv->dtype));
    return EW_STATUS_OK;
}

static ew_status operands(const struct ew_emit *e, const float *const in[3],
                          const float *const norms[2], struct ew_attn_args *a, ew_error *err)
{
    const struct ew_attr_kv_attention *at = &e->node->attrs.kv_attention;
    const struct ew_view *rope = e->node->n_in > 5 && at->use_rope ? e->in[5] : NULL;

    a->q = in[0];
    a->k = in[1];
    a->v = in[2];
    a->q_stride = a->hq * a->d;
    a->k_stride = a->v_stride = a->hkv * a->d;
    if (at->packed_qkv) {
        a->q_stride = a->k_stride = a->v_stride = (a->hq + 2 * a->hkv) * a->d;
        a->k = a->q + a->hq * a->d;
        a->v = a->k + a->hkv * a->d;
    } else if (!a->k || !a->v) {
        return ew_fail(err, EW_STATUS_MALFORMED, "k or v is missing");
    }
    if (rope) {
        if (rope->type.n_dims != 3 || rope->type.dtype != EW_DTYPE_F32 ||
            rope->type.dim[2] > at->head_size || rope->type.dim[2] < 2 || rope->type.dim[2] % 2 ||
            (rope->type.dim[0] != 1 && rope->type.dim[0] != (int64_t)a->b))
            return ew_fail(err, EW_STATUS_MISMATCH,
                           "RoPE table [%lld,..,%lld], batch %zu, head size %zu",
                           (long long)rope->type.dim[0], (long long)rope->type.dim[2], a->b, a->d);
        a->rope = rope->data;
        a->rope_rows = (size_t)rope->type.dim[1];
        a->rd = (size_t)rope->type.dim[2];
        a->rope_batch_stride = rope->type.dim[0] == 1 ? 0 : a->rope_rows * a->rd;
    }
    if (a->kv_dtype == EW_DTYPE_F8E4M3 && e->node->n_in > 12 && e->in[12]) {
        const struct ew_type *t = &e->in[12]->type;

        if (t->dtype != EW_DTYPE_F32 || t->n_dims != 2 || t->dim[0] != 2 ||
            t->dim[1] != at->num_kv_heads)
            return ew_fail(err, EW_STATUS_MISMATCH, "scales of the cache are %s [%lld,%lld]",
                           ew_dtype_text(t->dtype), (long long)t->dim[0], (long long)t->dim[1]);
        a->kv_scale = e->in[12]->data;
    }
    if (at->qk_norm != EW_QK_NORM_NONE) {
        a->q_norm = norms[0];
        a->k_norm = norms[1];
    }
    return EW_STATUS_OK;
}

ew_status ew_attn_args_from_node(const struct ew_emit *e, const float *const in[3],
                                 const float *const norms[2], struct ew_attn_args *a, ew_error *err)
{
    const struct ew_attr_kv_attention *at = &e->node->attrs.kv_attention;

    if (e->node->n_in > 11 && e->in[11])
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "attention sinks");
    EW_TRY(shapes(e, a, err));
    if (!a->b || !a->s)
        return EW_STATUS_OK;
    EW_TRY(operands(e, in, norms, a, err));
    EW_TRY(choose_mode(e, a, err));
    a->qk_norm_full = at->qk_norm == EW_QK_NORM_FULL;
    a->qk_norm_eps = at->qk_norm_eps;
    a->scale = at->attention_scale != 0.0f ? at->attention_scale : 1.0f / sqrtf((float)a->d);
    a->softcap = at->softcap;
    a->window = at->sliding_window_size;
    return EW_STATUS_OK;
}

uint64_t ew_attn_step_bytes(const struct ew_emit *e, const struct ew_attn_args *a)
{
    return 2ull * a->b * a->hkv * a->cap * (size_t)e->in[3]->type.dim[4] *
               (ew_dtype_bits(a->kv_dtype) / 8) +
           8ull * a->b * a->s * a->hq * a->d;
}

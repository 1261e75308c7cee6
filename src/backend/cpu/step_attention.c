/* backend/cpu/step_attention.c - KvAttention: mode from shapes (EDGE-LLM rules), lengths checked
 * before any kernel runs. */
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "backend/cpu/steps.h"

struct attention_step {
    const struct ew_attn_kernel *kernel;
    struct ew_attn_args a;
    size_t n_units;
    const char *name;
    /* Decoding: parts of each unit that are done. All 0 between runs: whoever counts the last one
     * sets it back. The one thing of a launch list that a run writes. */
    _Atomic uint32_t *n_done;
};

/* True when every position that the kernel will touch lies in the cache and the RoPE table. */
static bool lengths_ok(const struct ew_attn_args *a, size_t *row, int64_t *need)
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

/* Every thread asks for itself and comes to the same answer. */
static bool check_lengths(const struct attention_step *at, struct ew_exec *x, unsigned i)
{
    size_t row = 0;
    int64_t need = 0;

    if (lengths_ok(&at->a, &row, &need))
        return true;
    if (i == 0)
        ew_fail(x->err, EW_STATUS_INVALID_ARG,
                "node '%s': row %zu needs %lld positions; %zu in this step, cache holds "
                "%zu, RoPE table %zu",
                at->name, row, (long long)need, at->a.s, at->a.cap, at->a.rope_rows);
    ew_exec_fail(x, EW_STATUS_INVALID_ARG);
    return false;
}

/* One phase: a part of a unit prepares what it needs, the last part of a unit joins them. */
static void decode_run(const struct ew_step *s, struct ew_exec *x, unsigned phase, unsigned i,
                       unsigned n)
{
    const struct attention_step *at = s->args;
    struct ew_attn_args a = at->a;
    uint8_t *const scratch = x->thread + i * x->thread_stride;
    struct ew_units units;
    size_t begin, end;

    (void)phase;
    if (!check_lengths(at, x, i))
        return;
    const size_t parts = at->kernel->n_parts(&a);
    a.parts = (float *)(void *)x->shared;
    ew_units_begin(&units, x->pool, i, n, at->n_units * parts, 1);
    while (ew_units_next(&units, &begin, &end))
        for (; begin < end; begin++) {
            _Atomic uint32_t *const done = &at->n_done[begin / parts];

            at->kernel->decode(&a, begin / parts, begin % parts, parts, scratch);
            if (parts == 1 || atomic_fetch_add_explicit(done, 1, memory_order_acq_rel) + 1 < parts)
                continue;
            atomic_store_explicit(done, 0, memory_order_relaxed);
            at->kernel->join(&a, begin / parts, parts, scratch);
        }
}

static void attention_run(const struct ew_step *s, struct ew_exec *x, unsigned phase, unsigned i,
                          unsigned n)
{
    const struct attention_step *at = s->args;
    struct ew_attn_args a = at->a;
    size_t begin, end;

    a.q_work = (float *)(void *)x->shared;
    if (phase == 0) {
        if (!check_lengths(at, x, i))
            return;
        ew_split_range(a.b * a.s, 1, i, n, &begin, &end);
        if (begin < end)
            at->kernel->prep(&a, begin, end);
    } else {
        struct ew_units units;

        ew_units_begin(&units, x->pool, i, n, at->n_units, 1);
        while (ew_units_next(&units, &begin, &end))
            at->kernel->run(&a, begin, end, x->thread + i * x->thread_stride);
    }
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
static ew_status attention_shapes(const struct ew_emit *e, struct ew_attn_args *a, ew_error *err)
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

static ew_status attention_operands(struct ew_step_list *list, const struct ew_emit *e,
                                    struct ew_attn_args *a, ew_error *err)
{
    const struct ew_attr_kv_attention *at = &e->node->attrs.kv_attention;
    const struct ew_view *rope = e->node->n_in > 5 && at->use_rope ? e->in[5] : NULL;

    EW_TRY(ew_emit_f32_in(list, e, 0, &a->q, err));
    EW_TRY(ew_emit_f32_in(list, e, 1, &a->k, err));
    EW_TRY(ew_emit_f32_in(list, e, 2, &a->v, err));
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
        EW_TRY(ew_emit_f32_in(list, e, 9, &a->q_norm, err));
        EW_TRY(ew_emit_f32_in(list, e, 10, &a->k_norm, err));
    }
    return EW_STATUS_OK;
}

ew_status ew_emit_attention(struct ew_step_list *list, const struct ew_emit *e, ew_error *err)
{
    const struct ew_attr_kv_attention *at = &e->node->attrs.kv_attention;
    struct ew_attn_args a = { 0 };
    struct attention_step *step;
    struct ew_step *s;
    size_t q_bytes;
    bool decodes;

    if (e->node->n_in > 11 && e->in[11])
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "attention sinks");
    EW_TRY(attention_shapes(e, &a, err));
    if (!a.b || !a.s)
        return EW_STATUS_OK;
    EW_TRY(attention_operands(list, e, &a, err));
    EW_TRY(choose_mode(e, &a, err));
    EW_TRY(ew_emit_f32_out(list, e, 0, &a.out, err));
    a.out_stride = a.hq * a.d;
    a.qk_norm_full = at->qk_norm == EW_QK_NORM_FULL;
    a.qk_norm_eps = at->qk_norm_eps;
    a.scale = at->attention_scale != 0.0f ? at->attention_scale : 1.0f / sqrtf((float)a.d);
    a.softcap = at->softcap;
    a.window = at->sliding_window_size;
    decodes = a.mode == EW_ATTN_DECODE && e->plan->attention->decode;
    s = ew_step_add(list, e, decodes ? decode_run : attention_run, sizeof(*step), &step);
    if (!s)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "launch list");
    step->kernel = e->plan->attention;
    step->a = a;
    step->n_units = decodes ? a.b * a.hkv : step->kernel->n_units(&a);
    step->name = e->node->name;
    step->n_done = NULL;
    s->n_phases = decodes ? 1 : 2;
    s->tactic = step->kernel->name;
    q_bytes = a.b * a.s * a.hq * a.d * sizeof(float);
    list->shared_bytes =
        ew_max_size(list->shared_bytes, decodes ? step->kernel->part_bytes(&a) : q_bytes);
    if (decodes) {
        step->n_done = ew_arena_alloc(list->arena, step->n_units * sizeof(*step->n_done));
        if (!step->n_done)
            return ew_fail(err, EW_STATUS_NO_MEMORY, "launch list");
        for (size_t u = 0; u < step->n_units; u++)
            atomic_init(&step->n_done[u], 0);
    }
    list->thread_bytes = ew_max_size(list->thread_bytes, step->kernel->scratch_bytes(&a));
    s->bytes = 2ull * a.b * a.hkv * a.cap * (size_t)e->in[3]->type.dim[4] *
                   (ew_dtype_bits(a.kv_dtype) / 8) +
               2ull * q_bytes;
    s->flops = 4ull * a.b * a.s * a.hq * a.d * a.cap;
    return ew_emit_f32_out_end(list, e, 0, a.out, err);
}

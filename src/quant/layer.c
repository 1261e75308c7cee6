/* quant/layer.c - one layer: weights into memory, scales found, codes made, tensors packed. A block
 * (attention, MLP, one expert) is in memory at a time. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/size.h"
#include "quant/quant.h"

#define MAX_BLOCK 4 /* modules that are worked on together */

struct block {
    struct ew_q_run *r;
    struct ew_q_unit *unit;
    const struct ew_q_layer *layer;
    const struct ew_q_module *m[MAX_BLOCK];
    float *w[MAX_BLOCK];
    size_t n;
};

static ew_status load(struct block *b, const struct ew_q_module *m)
{
    const size_t count = m->n * m->k, elem = ew_dtype_bits(m->src->type.dtype) / 8;
    float *w = ew_mem_calloc(EW_MEM_CHECKPOINT, count, sizeof(*w));

    if (!w)
        return ew_fail(b->r->err, EW_STATUS_NO_MEMORY, "no memory for '%s'", m->name);
    ew_convert_floats(w, EW_DTYPE_F32, (const uint8_t *)m->src->data + m->row0 * m->k * elem,
                      m->src->type.dtype, count);
    b->m[b->n] = m;
    b->w[b->n++] = w;
    return EW_STATUS_OK;
}

static void release(struct block *b)
{
    for (size_t i = 0; i < b->n; i++)
        ew_mem_free(b->w[i]);
    b->n = 0;
}

struct rtn {
    struct ew_q_tensor *q;
    const float *w, *importance;
    float *out;
    bool search;
};

static void rtn_rows(void *arg, size_t begin, size_t end)
{
    const struct rtn *a = arg;

    ew_q_rtn_rows(a->q, a->w, a->importance, a->search, begin, end, a->out);
}

static float largest(const float *w, size_t n)
{
    float max = 0;

    for (size_t i = 0; i < n; i++)
        max = fabsf(w[i]) > max ? fabsf(w[i]) : max;
    return max;
}

/* Fused kernels of others want one divisor for all projections of one input. */
static float shared_global(const struct block *b, const struct ew_q_module *m)
{
    float max = 0;

    for (size_t i = 0; i < b->n; i++)
        if (b->m[i]->tap == m->tap && b->m[i]->scheme.format.kind == EW_Q_NVFP4)
            max = fmaxf(max, largest(b->w[i], b->m[i]->n * b->m[i]->k));
    return ew_q_global(max);
}

static ew_status quantise(struct block *b, size_t i)
{
    const struct ew_q_module *m = b->m[i];
    struct ew_q_run *r = b->r;
    struct ew_q_tensor q;
    ew_status s;

    EW_TRY(ew_q_tensor_init(&q, &m->scheme.format, m->n, m->k, r->err));
    if (m->scheme.format.kind == EW_Q_NVFP4)
        q.global = shared_global(b, m);
    ew_q_parallel(r, m->n, rtn_rows, &(struct rtn){ .q = &q, .w = b->w[i] });
    s = ew_q_pack(r, b->unit, m->name, &q);
    ew_q_tensor_deinit(&q);
    return s;
}

static ew_status run_block(struct block *b, bool attention, int expert)
{
    ew_status s = EW_STATUS_OK;

    for (size_t i = 0; !s && i < b->layer->n_modules; i++) {
        const struct ew_q_module *m = &b->layer->modules[i];
        const bool is_attention = m->tap == EW_Q_TAP_ATTN || m->tap == EW_Q_TAP_O;

        if (is_attention == attention && m->expert == expert && b->n < MAX_BLOCK)
            s = load(b, m);
    }
    for (size_t i = 0; !s && i < b->n; i++)
        if (b->m[i]->scheme.format.kind != EW_Q_NONE)
            s = quantise(b, i);
    release(b);
    return s;
}

ew_status ew_q_layer_run(struct ew_q_run *r, int64_t i)
{
    struct block b = { .r = r, .unit = &r->units[i + 1], .layer = &r->layers[i] };

    EW_TRY(run_block(&b, true, -1));
    if (!r->spec.layers[i].moe)
        return run_block(&b, false, -1);
    for (int e = 0; e < (int)r->spec.n_experts; e++)
        EW_TRY(run_block(&b, false, e));
    return EW_STATUS_OK;
}

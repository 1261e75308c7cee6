/* quant/layer.c - one layer: weights into memory, scales folded, codes made, tensors packed. A
 * block (attention, MLP, one expert) is in memory at a time. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/size.h"
#include "quant/quant.h"

#define MAX_BLOCK  4   /* modules that are worked on together */
#define ERROR_ROWS 256 /* calibration inputs that the summary's errors are measured on */
#define DAMP       0.01f

struct block {
    struct ew_q_run *r;
    struct ew_q_unit *unit;
    const struct ew_q_layer *layer;
    const struct ew_q_module *m[MAX_BLOCK];
    float *w[MAX_BLOCK];
    float *bias[MAX_BLOCK]; /* of modules whose rows may be folded into; or NULL */
    double gain[MAX_BLOCK];
    size_t n;
    float *expert_x; /* [n_tokens][moe_inter], input of an expert's down projection */
};

static ew_status no_memory(struct ew_q_run *r, const char *name)
{
    return ew_fail(r->err, EW_STATUS_NO_MEMORY, "no memory for '%s'", name);
}

static float *read_floats(const struct ew_st_tensor *t, size_t from, size_t n)
{
    const size_t elem = ew_dtype_bits(t->type.dtype) / 8;
    float *v = ew_mem_calloc(EW_MEM_CHECKPOINT, n, sizeof(*v));

    if (v)
        ew_convert_floats(v, EW_DTYPE_F32, (const uint8_t *)t->data + from * elem, t->type.dtype,
                          n);
    return v;
}

static ew_status load(struct block *b, const struct ew_q_module *m)
{
    const size_t i = b->n++;

    b->m[i] = m;
    b->gain[i] = 1;
    b->w[i] = read_floats(m->src, m->row0 * m->k, m->n * m->k);
    if (m->bias && m->bias->type.n_dims == 1 && m->bias->type.dim[0] == (int64_t)m->n)
        b->bias[i] = read_floats(m->bias, 0, m->n);
    return b->w[i] ? EW_STATUS_OK : no_memory(b->r, m->name);
}

static void release(struct block *b)
{
    for (size_t i = 0; i < b->n; i++) {
        ew_mem_free(b->w[i]);
        ew_mem_free(b->bias[i]);
        b->bias[i] = NULL;
    }
    ew_mem_free(b->expert_x);
    b->expert_x = NULL;
    b->n = 0;
}

static float *input_of(const struct block *b, const struct ew_q_module *m)
{
    if (b->r->n_tokens == 0)
        return NULL;
    return m->expert >= 0 && m->tap == EW_Q_TAP_DOWN ? b->expert_x : b->r->taps[m->tap];
}

/* ---- rounding one module ---- */

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
        max = fmaxf(fabsf(w[i]), max);
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

struct ranked {
    float value;
    size_t at;
};

static int by_value_down(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;

    return x->value != y->value ? (x->value < y->value ? 1 : -1) : x->at < y->at ? -1 : 1;
}

/* Columns by falling diagonal, and h in that order. NULL: out of memory. */
static size_t *order_columns(float **h, size_t k)
{
    struct ranked *ranks = ew_mem_calloc(EW_MEM_CHECKPOINT, k, sizeof(*ranks));
    size_t *order = ew_mem_calloc(EW_MEM_CHECKPOINT, k, sizeof(*order));
    float *to = ew_mem_calloc(EW_MEM_CHECKPOINT, k * k, sizeof(*to));

    for (size_t i = 0; ranks && i < k; i++)
        ranks[i] = (struct ranked){ (*h)[i * k + i], i };
    if (!ranks || !order || !to) {
        ew_mem_free(ranks);
        ew_mem_free(order);
        ew_mem_free(to);
        return NULL;
    }
    qsort(ranks, k, sizeof(*ranks), by_value_down);
    for (size_t i = 0; i < k; i++)
        order[i] = ranks[i].at;
    for (size_t i = 0; i < k; i++)
        for (size_t j = 0; j < k; j++)
            to[i * k + j] = (*h)[order[i] * k + order[j]];
    ew_mem_free(ranks);
    ew_mem_free(*h);
    *h = to;
    return order;
}

struct hessian {
    float *h, *u, *work, *diagonal;
    size_t *order;
};

static void free_hessian(struct hessian *a)
{
    ew_mem_free(a->h);
    ew_mem_free(a->u);
    ew_mem_free(a->work);
    ew_mem_free(a->diagonal);
    ew_mem_free(a->order);
}

static ew_status make_hessian(struct ew_q_run *r, const struct ew_q_module *m, const float *x,
                              struct hessian *a)
{
    const size_t k = m->k;

    a->h = ew_mem_calloc(EW_MEM_CHECKPOINT, k * k, sizeof(float));
    a->diagonal = ew_mem_calloc(EW_MEM_CHECKPOINT, k, sizeof(float));
    if (!a->h || !a->diagonal)
        return no_memory(r, m->name);
    EW_TRY(ew_q_gram(r, x, r->n_tokens, k, a->h));
    for (size_t i = 0; i < k; i++)
        a->diagonal[i] = a->h[i * k + i] + 1e-12f;
    return EW_STATUS_OK;
}

static ew_status compensate(struct ew_q_run *r, const struct ew_q_module *m, struct hessian *a,
                            float *w, struct ew_q_tensor *q)
{
    const size_t k = m->k;
    ew_status s = EW_STATUS_LIMIT;

    if (m->scheme.act_order) {
        a->order = order_columns(&a->h, k);
        if (!a->order)
            return no_memory(r, m->name);
    }
    a->u = ew_mem_calloc(EW_MEM_CHECKPOINT, k * k, sizeof(float));
    a->work = ew_mem_calloc(EW_MEM_CHECKPOINT, k * k, sizeof(float));
    if (!a->u || !a->work)
        return no_memory(r, m->name);
    for (float damp = DAMP; s == EW_STATUS_LIMIT && damp < 200; damp *= 10) {
        memcpy(a->work, a->h, k * k * sizeof(float));
        s = ew_q_inverse_factor(r, a->work, k, damp, a->u);
    }
    if (s)
        return ew_fail(r->err, s, "'%s': its inputs have no usable Hessian", m->name);
    return ew_q_gptq(r, w, a->u, a->diagonal, a->order, q);
}

/* Rounds w, which becomes what the codes mean. */
static ew_status round_module(struct ew_q_run *r, const struct ew_q_module *m, const float *x,
                              float *w, struct ew_q_tensor *q)
{
    const bool fp4 = q->format.kind == EW_Q_NVFP4 || q->format.kind == EW_Q_MXFP4;
    struct rtn rtn = { .q = q, .w = w, .out = w, .search = fp4 };
    struct hessian a = { 0 };
    ew_status s = EW_STATUS_OK;

    if (m->scheme.method != EW_Q_RTN && x)
        s = make_hessian(r, m, x, &a);
    rtn.importance = a.diagonal;
    rtn.search = rtn.search || a.diagonal;
    if (!s && a.diagonal && (m->scheme.method == EW_Q_GPTQ || m->scheme.compensate))
        s = compensate(r, m, &a, w, q);
    else if (!s)
        ew_q_parallel(r, m->n, rtn_rows, &rtn);
    free_hessian(&a);
    return s;
}

/* Share of the output's energy that rounding changed; of the weights' without calibration. */
static ew_status relative_error(struct ew_q_run *r, const struct ew_q_module *m, const float *x,
                                const float *before, float *after, double *out)
{
    const size_t rows = r->n_tokens < ERROR_ROWS ? r->n_tokens : ERROR_ROWS, count = m->n * m->k;
    double whole = 0, error = 0;

    for (size_t i = 0; i < count; i++)
        after[i] -= before[i];
    if (x) {
        EW_TRY(ew_q_output_energy(r, x, rows, before, m->n, m->k, &whole));
        EW_TRY(ew_q_output_energy(r, x, rows, after, m->n, m->k, &error));
    } else {
        for (size_t i = 0; i < count; i++) {
            whole += (double)before[i] * (double)before[i];
            error += (double)after[i] * (double)after[i];
        }
    }
    *out = whole > 0 ? error / whole : 0;
    return EW_STATUS_OK;
}

static ew_status quantise(struct block *b, size_t i)
{
    const struct ew_q_module *m = b->m[i];
    const float *x = input_of(b, m);
    struct ew_q_run *r = b->r;
    struct ew_q_tensor q;
    float *w = ew_mem_calloc(EW_MEM_CHECKPOINT, m->n * m->k, sizeof(*w));
    double error = 0;
    ew_status s;

    if (!w)
        return no_memory(r, m->name);
    memcpy(w, b->w[i], m->n * m->k * sizeof(*w));
    s = ew_q_tensor_init(&q, &m->scheme.format, m->n, m->k, r->err);
    if (!s && m->scheme.format.kind == EW_Q_NVFP4)
        q.global = shared_global(b, m);
    if (!s)
        s = round_module(r, m, x, w, &q);
    if (!s)
        s = ew_q_pack(r, b->unit, m->name, &q);
    if (!s)
        s = relative_error(r, m, x, b->w[i], w, &error);
    if (!s)
        ew_q_report(r, b->unit, m->name, m->n * m->k, error, b->gain[i]);
    ew_q_tensor_deinit(&q);
    ew_mem_free(w);
    return s;
}

/* ---- folding ---- */

static size_t find_role(const struct block *b, const char *roles)
{
    size_t i = 0;

    while (i < b->n && !strchr(roles, b->m[i]->role))
        i++;
    return i;
}

/* The consumers of a tap into f; false when one of them is not to be scaled. */
static bool add_consumers(struct block *b, struct ew_q_fold *f, enum ew_q_tap tap, bool smooth)
{
    for (size_t i = 0; i < b->n; i++) {
        const struct ew_q_scheme *s = &b->m[i]->scheme;

        if (b->m[i]->tap != tap)
            continue;
        if (s->format.kind == EW_Q_NONE || s->smooth != smooth ||
            (!smooth && s->method != EW_Q_AWQ))
            return false;
        f->consumers[f->n_consumers] = b->m[i];
        f->weights[f->n_consumers++] = b->w[i];
        f->k = b->m[i]->k;
        f->x = input_of(b, b->m[i]);
    }
    return f->n_consumers > 0 && f->x;
}

static ew_status search(struct block *b, struct ew_q_fold *f, bool smooth)
{
    double gain;

    EW_TRY(ew_q_fold_search(b->r, f, smooth, &gain));
    for (size_t i = 0; i < b->n; i++)
        for (size_t c = 0; c < f->n_consumers; c++)
            if (f->consumers[c] == b->m[i])
                b->gain[i] = gain;
    return EW_STATUS_OK;
}

/* Scales of the norm before the projections of a tap. */
static ew_status fold_norm(struct block *b, enum ew_q_tap tap, const struct ew_st_tensor *norm)
{
    struct ew_q_run *r = b->r;
    const float plus = r->spec.norm_plus_one ? 1 : 0;
    struct ew_q_fold f = { .norm_plus_one = r->spec.norm_plus_one };
    bool smooth = false;
    ew_status s;

    for (size_t i = 0; i < b->n; i++)
        smooth = smooth || (b->m[i]->tap == tap && b->m[i]->scheme.smooth);
    if (!norm || !add_consumers(b, &f, tap, smooth))
        return EW_STATUS_OK;
    f.norm_dtype = norm->type.dtype;
    f.norm = read_floats(norm, 0, f.k);
    if (!f.norm)
        return no_memory(r, norm->name);
    for (size_t i = 0; i < f.k; i++)
        f.norm[i] += plus;
    s = search(b, &f, smooth);
    for (size_t i = 0; i < f.k; i++)
        f.norm[i] -= plus;
    if (!s)
        s = ew_q_out_floats(r, b->unit, norm->name, f.norm, f.k);
    ew_mem_free(f.norm);
    return s;
}

/* Scales between the rows of a projection (from row0 of it on) and the one that reads them. */
static ew_status fold_rows(struct block *b, const char *producers, enum ew_q_tap tap, size_t share,
                           size_t heads_per_kv)
{
    struct ew_q_run *r = b->r;
    struct ew_q_fold f = { .share = share, .heads_per_kv = heads_per_kv };
    const size_t p = find_role(b, producers);
    const struct ew_q_module *m = p < b->n ? b->m[p] : NULL;
    size_t row0;

    if (!m || m->scheme.format.kind == EW_Q_NONE || (m->bias && !b->bias[p]) ||
        !add_consumers(b, &f, tap, false))
        return EW_STATUS_OK;
    row0 = m->role == 'f' || m->role == 'a' ? m->n - f.k / heads_per_kv : 0;
    f.rows = b->w[p] + row0 * m->k;
    f.rows_k = m->k;
    f.rows_bias = b->bias[p] ? b->bias[p] + row0 : NULL;
    EW_TRY(search(b, &f, false));
    return b->bias[p] ? ew_q_out_floats(r, b->unit, m->bias->name, b->bias[p], m->n) : EW_STATUS_OK;
}

static ew_status fold_attention(struct block *b)
{
    const struct ew_decoder_spec *d = &b->r->spec;

    EW_TRY(fold_norm(b, EW_Q_TAP_ATTN, b->layer->attn_norm));
    return fold_rows(b, "va", EW_Q_TAP_O, (size_t)d->head_dim,
                     (size_t)(d->n_heads / d->n_kv_heads));
}

/* ---- experts ---- */

static float activate(int act, float v)
{
    switch (act) {
    case EW_ACT_SILU:
        return v / (1 + expf(-v));
    case EW_ACT_GELU_TANH:
        return 0.5f * v * (1 + tanhf(0.7978845608f * (v + 0.044715f * v * v * v)));
    case EW_ACT_GELU_ERF:
        return 0.5f * v * (1 + erff(v * 0.7071067812f));
    case EW_ACT_RELU2:
        return v > 0 ? v * v : 0;
    default:
        return v > 0 ? v : 0;
    }
}

/* What the down projection of this expert would see if every token went to it. */
static ew_status expert_input(struct block *b)
{
    struct ew_q_run *r = b->r;
    const size_t gate = find_role(b, "g"), up = find_role(b, "u"), t = r->n_tokens;
    const struct ew_q_module *m;
    float *y;
    ew_status s;

    if (t == 0 || gate == b->n || up == b->n)
        return EW_STATUS_OK;
    m = b->m[gate];
    b->expert_x = ew_mem_calloc(EW_MEM_CHECKPOINT, t * m->n, sizeof(float));
    y = ew_mem_calloc(EW_MEM_CHECKPOINT, t * m->n, sizeof(float));
    s = b->expert_x && y ? EW_STATUS_OK : no_memory(r, m->name);
    if (!s)
        s = ew_q_matmul(r, r->taps[EW_Q_TAP_MLP], t, b->w[gate], m->n, m->k, y);
    if (!s)
        s = ew_q_matmul(r, r->taps[EW_Q_TAP_MLP], t, b->w[up], m->n, m->k, b->expert_x);
    for (size_t i = 0; !s && i < t * m->n; i++)
        b->expert_x[i] *= activate(r->spec.act, y[i]);
    ew_mem_free(y);
    return s;
}

/* ---- a layer ---- */

static ew_status load_block(struct block *b, bool attention, int expert)
{
    for (size_t i = 0; i < b->layer->n_modules; i++) {
        const struct ew_q_module *m = &b->layer->modules[i];
        const bool is_attention = m->tap == EW_Q_TAP_ATTN || m->tap == EW_Q_TAP_O;

        if (is_attention == attention && m->expert == expert && b->n < MAX_BLOCK)
            EW_TRY(load(b, m));
    }
    return EW_STATUS_OK;
}

static ew_status run_block(struct block *b, bool attention, int expert)
{
    ew_status s = load_block(b, attention, expert);

    if (!s && attention)
        s = fold_attention(b);
    if (!s && expert >= 0)
        s = expert_input(b);
    if (!s && !attention) {
        s = fold_norm(b, EW_Q_TAP_MLP, expert < 0 ? b->layer->mlp_norm : NULL);
        if (!s)
            s = fold_rows(b, "uf", EW_Q_TAP_DOWN, 0, 1);
    }
    for (size_t i = 0; !s && i < b->n; i++)
        if (b->m[i]->scheme.format.kind != EW_Q_NONE)
            s = quantise(b, i);
    release(b);
    return s;
}

/* Scales of an fp8 cache: the largest magnitude seen becomes the largest e4m3 number. */
static ew_status pack_kv(struct ew_q_run *r, int64_t i)
{
    const size_t n = (size_t)r->spec.n_kv_heads;
    float *max = r->kv_max ? r->kv_max + (size_t)i * 2 * n : NULL;
    char name[256];

    for (size_t j = 0; max && j < 2 * n; j++)
        max[j] = max[j] > 0 ? max[j] / 448 : 1;
    for (int part = 0; max && part < 2; part++) {
        snprintf(name, sizeof(name), "%.160slayers.%lld.self_attn.%c_scale", r->prefix,
                 (long long)i, part ? 'v' : 'k');
        EW_TRY(ew_q_out_floats(r, &r->units[i + 1], name, max + (size_t)part * n, n));
    }
    return EW_STATUS_OK;
}

ew_status ew_q_layer_run(struct ew_q_run *r, int64_t i)
{
    struct block b = { .r = r, .unit = &r->units[i + 1], .layer = &r->layers[i] };

    if (r->n_tokens > 0)
        EW_TRY(ew_q_calib_layer(r, i));
    EW_TRY(pack_kv(r, i));
    EW_TRY(run_block(&b, true, -1));
    if (!r->spec.layers[i].moe)
        return run_block(&b, false, -1);
    for (int e = 0; e < (int)r->spec.n_experts; e++)
        EW_TRY(run_block(&b, false, e));
    return EW_STATUS_OK;
}

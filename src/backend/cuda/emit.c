/* backend/cuda/emit.c - which emitter serves which op, and what they share. */
#include <string.h>

#include "backend/cuda/cuda.h"

#include "base/size.h"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/rows_cuda.h"
#include "edgewise/engine.h"
#include "kernels/cuda/sample_cuda.h"

_Static_assert(sizeof(ew_draw) == sizeof(struct ew_cuda_draw_params) &&
                   offsetof(ew_draw, seed) == offsetof(struct ew_cuda_draw_params, seed) &&
                   offsetof(ew_draw, top_k) == offsetof(struct ew_cuda_draw_params, top_k),
               "what a caller gives is what the kernel reads");

#define WORK_ALIGN 256

void *ew_cuda_work_take(struct ew_cuda_work *w, size_t bytes)
{
    uint8_t *const at = (uint8_t *)w->e->scratch + w->at;

    w->at += ew_align_up(bytes ? bytes : 1, WORK_ALIGN);
    if (w->at > w->list->shared_bytes)
        w->list->shared_bytes = w->at;
    return at;
}

void *ew_cuda_counters(struct ew_step_list *list, const struct ew_emit *e, size_t bytes)
{
    if (bytes > list->counter_bytes)
        list->counter_bytes = bytes;
    return e->counters;
}

static struct ew_cuda_step *add_step(struct ew_step_list *list, const struct ew_emit *e,
                                     struct ew_step **out)
{
    struct ew_cuda_step *c;
    void *room = NULL;
    struct ew_step *s = ew_step_add(list, e, NULL, sizeof(*c) + EW_CUDA_ALIGN, &room);

    *out = s;
    if (!s)
        return NULL;
    c = ew_cuda_aligned(room);
    s->args = c;
    memset(c, 0, sizeof(*c));
    c->name = e->node ? e->node->name : "around the nodes";
    return c;
}

ew_status ew_cuda_emit_launches(struct ew_step_list *list, const struct ew_emit *e,
                                const struct ew_cuda_launch *l, size_t n, const char *tactic,
                                uint64_t bytes, uint64_t flops, ew_error *err)
{
    struct ew_cuda *cuda = ew_cuda_of(e);

    for (size_t i = 0; i < n; i++) {
        struct ew_cuda_step *c;
        struct ew_step *s;

        if (!l[i].grid[0] || !l[i].grid[1] || !l[i].grid[2])
            continue; /* nothing to do; a launch of no blocks is an error */
        if (cuda->see)
            cuda->see(cuda->see_ctx, &l[i]);
        c = add_step(list, e, &s);
        if (!c)
            return ew_fail(err, EW_STATUS_NO_MEMORY, "launch list");
        c->kind = EW_CUDA_STEP_LAUNCH;
        c->launch = l[i];
        s->tactic = tactic ? tactic : l[i].spec.entry;
        s->bytes = i == 0 ? bytes : 0;
        s->flops = i == 0 ? flops : 0;
        if (cuda->modules)
            EW_TRY(ew_cuda_modules_get(cuda->modules, &l[i], &c->function, err));
    }
    return EW_STATUS_OK;
}

static ew_status convert(struct ew_cuda_work *w, void *to, ew_dtype to_dtype, const void *from,
                         ew_dtype from_dtype, size_t n, ew_error *err)
{
    struct ew_cuda_launch l;

    EW_TRY(ew_cuda_convert_plan(to, to_dtype, from, from_dtype, n, &l, err));
    return ew_cuda_emit_launches(w->list, w->e, &l, 1, "convert", 0, 0, err);
}

static ew_status refuse_dtype(const struct ew_view *v, const char *what, uint32_t k, ew_error *err)
{
    return ew_fail(err, EW_STATUS_UNSUPPORTED, "%s %u is %s: the CUDA backend computes in floats",
                   what, k, ew_dtype_text(v->type.dtype));
}

ew_status ew_cuda_f32_in(struct ew_cuda_work *w, uint32_t k, const float **out, ew_error *err)
{
    const struct ew_view *v = k < w->e->node->n_in ? w->e->in[k] : NULL;
    size_t n;
    float *wide;

    *out = NULL;
    if (!v)
        return EW_STATUS_OK;
    if (v->type.dtype == EW_DTYPE_F32) {
        *out = v->data;
        return EW_STATUS_OK;
    }
    if (v->type.dtype != EW_DTYPE_F16 && v->type.dtype != EW_DTYPE_BF16)
        return refuse_dtype(v, "input", k, err);
    if (!ew_type_count(&v->type, &n))
        return ew_fail(err, EW_STATUS_LIMIT, "input %u is too large", k);
    wide = ew_cuda_work_take(w, n * sizeof(float));
    *out = wide;
    return n ? convert(w, wide, EW_DTYPE_F32, v->data, v->type.dtype, n, err) : EW_STATUS_OK;
}

ew_status ew_cuda_f32_out(struct ew_cuda_work *w, uint32_t k, float **out, ew_error *err)
{
    const struct ew_view *v = w->e->out[k];
    size_t n;

    if (v->type.dtype == EW_DTYPE_F32) {
        *out = v->data;
        return EW_STATUS_OK;
    }
    if (v->type.dtype != EW_DTYPE_F16 && v->type.dtype != EW_DTYPE_BF16)
        return refuse_dtype(v, "output", k, err);
    if (!ew_type_count(&v->type, &n))
        return ew_fail(err, EW_STATUS_LIMIT, "output %u is too large", k);
    *out = ew_cuda_work_take(w, n * sizeof(float));
    return EW_STATUS_OK;
}

ew_status ew_cuda_f32_out_end(struct ew_cuda_work *w, uint32_t k, const float *from, ew_error *err)
{
    const struct ew_view *v = w->e->out[k];
    size_t n;

    if (v->type.dtype == EW_DTYPE_F32 || !ew_type_count(&v->type, &n) || !n)
        return EW_STATUS_OK;
    return convert(w, v->data, v->type.dtype, from, EW_DTYPE_F32, n, err);
}

/* Contents that shape arithmetic knew are the host's: no kernel may read them. */
static ew_status check_inputs(const struct ew_emit *e, ew_error *err)
{
    size_t n;

    for (uint32_t k = 0; k < e->node->n_in; k++)
        if (e->in[k] && !e->in[k]->data && ew_type_count(&e->in[k]->type, &n) && n)
            return ew_fail(err, EW_STATUS_UNSUPPORTED,
                           "input %u is computed on the host, which the CUDA backend does not read",
                           k);
    return EW_STATUS_OK;
}

static ew_status emit_op(struct ew_step_list *list, const struct ew_emit *e, ew_error *err)
{
    EW_TRY(check_inputs(e, err));
    switch (e->node->op) {
    case EW_OP_LINEAR:
        return ew_cuda_emit_linear(list, e, err);
    case EW_OP_FUSED_RMS_NORM:
        return ew_cuda_emit_rms_norm(list, e, err);
    case EW_OP_KV_ATTENTION:
        return ew_cuda_emit_attention(list, e, err);
    case EW_OP_MOE:
        return ew_cuda_emit_moe(list, e, err);
    case EW_OP_POINTWISE:
        return ew_cuda_emit_pointwise(list, e, err);
    default:
        return ew_cuda_emit_general(list, e, err);
    }
}

static ew_status cuda_emit(struct ew_step_list *list, const struct ew_emit *e, ew_error *err)
{
    const size_t before = list->n;
    const ew_status st = emit_op(list, e, err);

    if (st) {
        ew_error_within(err, "node '%s' (%s)", e->node->name, ew_op_get(e->node->op)->name);
        list->n = before;
    }
    return st;
}

ew_status ew_cuda_emit_copy(struct ew_step_list *list, const struct ew_emit *e, void *dst,
                            const void *src, size_t bytes, ew_error *err)
{
    struct ew_cuda_step *c;
    struct ew_step *s;

    if (!bytes || dst == src)
        return EW_STATUS_OK;
    c = add_step(list, e, &s);
    if (!c)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "launch list");
    c->kind = EW_CUDA_STEP_COPY;
    c->to = (ew_cu_ptr)(uintptr_t)dst;
    c->from = (ew_cu_ptr)(uintptr_t)src;
    c->bytes = bytes;
    s->tactic = "copy";
    s->bytes = 2 * (uint64_t)bytes;
    return EW_STATUS_OK;
}

static ew_status cuda_emit_copy(struct ew_step_list *list, uint32_t slot, void *dst,
                                const void *src, size_t bytes, ew_error *err)
{
    const struct ew_emit e = { .slot = slot };

    if (bytes && !src)
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "an output is computed on the host: the CUDA backend does not write it");
    return ew_cuda_emit_copy(list, &e, dst, src, bytes, err);
}

/* Panels of quantised rows. */
static bool is_panels(const struct ew_plan_tensor *t)
{
    return t->packed.kernel == &ew_cuda_layout_q4 || t->packed.kernel == &ew_cuda_layout_q8;
}

/* Else rows must lie one after the other: a plain table, or a plain layout whose rows need no
 * padding. */
static bool is_table(const struct ew_plan_tensor *t)
{
    const unsigned bytes = ew_dtype_bits(t->dtype) / 8;

    if (t->n_dims == 2 && is_panels(t))
        return true;

    if (t->n_dims != 2 ||
        (t->dtype != EW_DTYPE_F32 && t->dtype != EW_DTYPE_F16 && t->dtype != EW_DTYPE_BF16))
        return false;
    return !t->packed.kernel || (!ew_quant_is(&t->packed.format) && !t->packed.kernel->run &&
                                 (size_t)t->dim[1] * bytes % 16 == 0);
}

static ew_status cuda_embed(struct ew_step_list *list, const struct ew_emit *e, void *to,
                            const struct ew_plan_tensor *table, const void *data, const void *ids,
                            size_t n_ids, float scale, ew_error *err)
{
    struct ew_cuda_embed p = {
        .dst = to, .table = data, .dtype = table->dtype, .ids = ids, .n_ids = n_ids, .scale = scale
    };
    struct ew_cuda_launch l;

    if (!is_table(table))
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "the CUDA backend does not look up rows of '%s'",
                       table->name);
    if (!n_ids)
        return EW_STATUS_OK;
    p.n_rows = (size_t)table->dim[0];
    p.n = (size_t)table->dim[1];
    p.format = is_panels(table) ? &table->packed.format : NULL;
    EW_TRY(ew_cuda_embed_plan(&p, &l, err));
    EW_TRY(ew_cuda_emit_launches(list, e, &l, 1, "embed", n_ids * p.n * 6, 0, err));
    return ew_cuda_note_embed(list, &p, err);
}

static ew_status cuda_argmax(struct ew_step_list *list, const struct ew_emit *e, const void *x,
                             size_t rows, size_t n, void *tokens, ew_error *err)
{
    struct ew_cuda_work work = { e, list, 0 };
    struct ew_cuda_argmax p = { .logits = x, .rows = rows, .n = n, .stride = n, .token = tokens };
    struct ew_cuda_launch l;

    if (!rows)
        return EW_STATUS_OK;
    p.work = ew_cuda_work_take(&work, ew_cuda_argmax_work_bytes(rows, n));
    p.counters = ew_cuda_counters(list, e, rows * sizeof(uint32_t));
    EW_TRY(ew_cuda_argmax_plan(&p, &l, err));
    return ew_cuda_emit_launches(list, e, &l, 1, "arg max", 4ull * rows * n, rows * n, err);
}

static ew_status cuda_draw(struct ew_step_list *list, const struct ew_emit *e, const void *x,
                           size_t rows, size_t n, const void *draws, void *tokens, ew_error *err)
{
    struct ew_cuda_work work = { e, list, 0 };
    struct ew_cuda_draw p = {
        .logits = x, .rows = rows, .n = n, .stride = n, .params = draws, .token = tokens
    };
    struct ew_cuda_launch l[EW_CUDA_DRAW_LAUNCHES];

    if (!rows)
        return EW_STATUS_OK;
    p.work = ew_cuda_work_take(&work, ew_cuda_draw_work_bytes(rows, n));
    EW_TRY(ew_cuda_draw_plan(&p, l, err));
    return ew_cuda_emit_launches(list, e, l, EW_CUDA_DRAW_LAUNCHES, "draw", 4ull * rows * n,
                                 rows * n, err);
}

const struct ew_backend *ew_backend_cuda(void)
{
    static const struct ew_backend cuda = { .name = "cuda",
                                            .emit = cuda_emit,
                                            .emit_copy = cuda_emit_copy,
                                            .emit_embed = cuda_embed,
                                            .emit_argmax = cuda_argmax,
                                            .emit_lead_on = ew_cuda_emit_lead_on,
                                            .emit_draw = cuda_draw,
                                            .emit_end = ew_cuda_emit_end };

    return &cuda;
}

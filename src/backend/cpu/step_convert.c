/* backend/cpu/step_convert.c - copies and float conversions as steps. Typed kernels compute in f32;
 * a graph with half activations gets a conversion before and after each of them. */
#include <string.h>

#include "backend/cpu/steps.h"

struct convert_step {
    void *dst;
    const void *src;
    ew_dtype dst_dtype, src_dtype; /* NONE: plain bytes */
    size_t n;
};

static size_t float_bytes(ew_dtype d)
{
    return ew_dtype_bits(d) / 8;
}

static void convert_run(const struct ew_step *s, struct ew_exec *x, unsigned phase, unsigned i,
                        unsigned n)
{
    const struct convert_step *c = s->args;
    size_t begin, end;

    (void)x;
    (void)phase;
    ew_split_range(c->n, 4096, i, n, &begin, &end);
    if (begin >= end)
        return;
    if (c->dst_dtype == EW_DTYPE_NONE)
        memmove((uint8_t *)c->dst + begin, (const uint8_t *)c->src + begin, end - begin);
    else
        ew_convert_floats((uint8_t *)c->dst + begin * float_bytes(c->dst_dtype), c->dst_dtype,
                          (const uint8_t *)c->src + begin * float_bytes(c->src_dtype), c->src_dtype,
                          end - begin);
}

static ew_status add_convert(struct ew_step_list *list, uint32_t slot, const struct convert_step *c,
                             ew_error *err)
{
    const struct ew_emit at = { .slot = slot };
    struct convert_step *args;
    struct ew_step *s = ew_step_add(list, &at, convert_run, sizeof(*args), &args);

    if (!s)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "launch list");
    *args = *c;
    s->tactic = c->dst_dtype == EW_DTYPE_NONE ? "copy" : "convert";
    s->bytes = c->dst_dtype == EW_DTYPE_NONE
                   ? 2ull * c->n
                   : c->n * (float_bytes(c->dst_dtype) + float_bytes(c->src_dtype));
    return EW_STATUS_OK;
}

ew_status ew_emit_copy(struct ew_step_list *list, uint32_t slot, void *dst, const void *src,
                       size_t bytes, ew_error *err)
{
    const struct convert_step c = { dst, src, EW_DTYPE_NONE, EW_DTYPE_NONE, bytes };

    return !bytes || dst == src ? EW_STATUS_OK : add_convert(list, slot, &c, err);
}

/* The twin buffer of slot k: nodes run one after the other, so the next node may take it again. */
static float *twin(struct ew_step_list *list, size_t k, size_t n)
{
    if (k >= EW_CONV_SLOTS)
        return NULL;
    if (list->conv[k].bytes < n * sizeof(float)) {
        void *p = ew_arena_alloc(list->arena, n * sizeof(float));

        if (!p)
            return NULL;
        list->conv[k].data = p;
        list->conv[k].bytes = n * sizeof(float);
    }
    return list->conv[k].data;
}

static ew_status refuse(const struct ew_emit *e, const char *what, int i, ew_dtype d, ew_error *err)
{
    return ew_fail(err, EW_STATUS_UNSUPPORTED,
                   "%s %d of node '%s' is %s; f32, f16 or bf16 can be run here", what, i,
                   e->node->name, ew_dtype_text(d));
}

ew_status ew_emit_f32_in(struct ew_step_list *list, const struct ew_emit *e, int i,
                         const float **out, ew_error *err)
{
    const struct ew_view *v = i < (int)e->node->n_in ? e->in[i] : NULL;
    struct convert_step c = { 0 };
    size_t n;

    *out = NULL;
    if (!v)
        return EW_STATUS_OK;
    if (v->type.dtype == EW_DTYPE_F32) {
        *out = v->data;
        return EW_STATUS_OK;
    }
    if (v->type.dtype != EW_DTYPE_F16 && v->type.dtype != EW_DTYPE_BF16)
        return refuse(e, "input", i, v->type.dtype, err);
    if (!ew_type_count(&v->type, &n))
        return ew_fail(err, EW_STATUS_LIMIT, "input %d is too large", i);
    c = (struct convert_step){ twin(list, (size_t)i, n ? n : 1), v->data, EW_DTYPE_F32,
                               v->type.dtype, n };
    if (!c.dst)
        return ew_fail(err, EW_STATUS_NO_MEMORY, "f32 twin of input %d", i);
    *out = c.dst;
    return n ? add_convert(list, e->slot, &c, err) : EW_STATUS_OK;
}

ew_status ew_emit_f32_out(struct ew_step_list *list, const struct ew_emit *e, int i, float **out,
                          ew_error *err)
{
    const struct ew_view *v = e->out[i];
    size_t n;

    if (v->type.dtype == EW_DTYPE_F32) {
        *out = v->data;
        return EW_STATUS_OK;
    }
    if (v->type.dtype != EW_DTYPE_F16 && v->type.dtype != EW_DTYPE_BF16)
        return refuse(e, "output", i, v->type.dtype, err);
    *out =
        ew_type_count(&v->type, &n) ? twin(list, (size_t)(EW_CONV_SLOTS - 1 - i), n ? n : 1) : NULL;
    return *out ? EW_STATUS_OK : ew_fail(err, EW_STATUS_NO_MEMORY, "f32 twin of output %d", i);
}

ew_status ew_emit_f32_out_end(struct ew_step_list *list, const struct ew_emit *e, int i,
                              const float *from, ew_error *err)
{
    const struct ew_view *v = e->out[i];
    struct convert_step c = { v->data, from, v->type.dtype, EW_DTYPE_F32, 0 };

    if (v->type.dtype == EW_DTYPE_F32 || !ew_type_count(&v->type, &c.n) || !c.n)
        return EW_STATUS_OK;
    return add_convert(list, e->slot, &c, err);
}

/* quant/pack.c - codes and scales as the tensors of the compressed-tensors formats:
 *
 *   pack-quantized        weight_packed i32 [n, k bits/32], weight_scale [n, groups], weight_shape
 *                         i64 [2]; zero points: weight_zero_point i32 [n bits/32, groups]
 *   int-quantized         weight i8 [n, k], weight_scale [n, 1]
 *   float-quantized       weight f8e4m3 [n, k], weight_scale [n, 1]
 *   nvfp4-pack-quantized  weight_packed u8 [n, k/2], weight_scale f8e4m3 [n, groups],
 *                         weight_global_scale f32 [1], a divisor
 *   mxfp4-pack-quantized  weight_packed u8 [n, k/2], weight_scale u8 [n, groups], exponents + 127
 *
 * Packed words hold unsigned codes (symmetric ones with 2^(bits-1) added), lowest bits first. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/half.h"
#include "base/size.h"
#include "quant/quant.h"

#define NAME_CAP 320

static ew_status no_memory(struct ew_q_run *r, const char *name)
{
    return ew_fail(r->err, EW_STATUS_NO_MEMORY, "no memory for tensor '%s'", name);
}

ew_status ew_q_add_out(struct ew_q_run *r, struct ew_q_unit *u, const char *name,
                       const struct ew_type *type, const struct ew_st_tensor *src, size_t src_off)
{
    if (u->n_outs == u->cap) {
        const size_t cap = u->cap ? 2 * u->cap : 16;
        struct ew_q_out *more = ew_mem_resize(EW_MEM_CHECKPOINT, u->outs, cap, sizeof(*more));

        if (!more)
            return no_memory(r, name);
        u->outs = more;
        u->cap = cap;
    }
    u->outs[u->n_outs] =
        (struct ew_q_out){ ew_arena_strdup(&r->arena, name), *type, src, src_off, NULL };
    return u->outs[u->n_outs++].name ? EW_STATUS_OK : no_memory(r, name);
}

struct ew_q_out *ew_q_out_find(const struct ew_q_unit *u, const char *name)
{
    for (size_t i = 0; i < u->n_outs; i++)
        if (strcmp(u->outs[i].name, name) == 0)
            return &u->outs[i];
    return NULL;
}

static ew_status declare(struct ew_q_run *r, struct ew_q_unit *u, const char *module,
                         const char *tail, ew_dtype dtype, int n_dims, size_t d0, size_t d1)
{
    const int64_t dims[2] = { (int64_t)d0, (int64_t)d1 };
    const struct ew_type type = ew_type_make(dtype, n_dims, dims);
    char name[NAME_CAP];

    snprintf(name, sizeof(name), "%s.%s", module, tail);
    return ew_q_add_out(r, u, name, &type, NULL, 0);
}

static size_t words(size_t n, int bits)
{
    return (n * (size_t)bits + 31) / 32;
}

ew_status ew_q_declare(struct ew_q_run *r, struct ew_q_unit *u, const char *module,
                       const struct ew_q_format *f, size_t n, size_t k)
{
    const size_t g = k / ew_q_group(f, k);
    const bool fp4 = f->kind == EW_Q_NVFP4 || f->kind == EW_Q_MXFP4;

    if (fp4) {
        EW_TRY(declare(r, u, module, "weight_packed", EW_DTYPE_U8, 2, n, k / 2));
        if (f->kind == EW_Q_MXFP4)
            return declare(r, u, module, "weight_scale", EW_DTYPE_U8, 2, n, g);
        EW_TRY(declare(r, u, module, "weight_scale", EW_DTYPE_F8E4M3, 2, n, g));
        return declare(r, u, module, "weight_global_scale", EW_DTYPE_F32, 1, 1, 0);
    }
    if (f->kind == EW_Q_INT && f->packed) {
        EW_TRY(declare(r, u, module, "weight_packed", EW_DTYPE_I32, 2, n, words(k, f->bits)));
        EW_TRY(declare(r, u, module, "weight_shape", EW_DTYPE_I64, 1, 2, 0));
        if (f->asymmetric)
            EW_TRY(
                declare(r, u, module, "weight_zero_point", EW_DTYPE_I32, 2, words(n, f->bits), g));
    } else {
        EW_TRY(declare(r, u, module, "weight", f->kind == EW_Q_FP8 ? EW_DTYPE_F8E4M3 : EW_DTYPE_I8,
                       2, n, k));
    }
    return declare(r, u, module, "weight_scale", f->scale_dtype, 2, n, g);
}

/* The planned tensor's memory, zeroed. */
static ew_status take(struct ew_q_run *r, struct ew_q_unit *u, const char *module, const char *tail,
                      void **data)
{
    struct ew_q_out *o;
    char name[NAME_CAP];
    size_t bytes;

    snprintf(name, sizeof(name), "%s.%s", module, tail);
    o = ew_q_out_find(u, name);
    if (!o || !ew_type_bytes(&o->type, &bytes))
        return ew_fail(r->err, EW_STATUS_INVALID_ARG, "tensor '%s' was not planned", name);
    ew_mem_free(o->data);
    o->data = ew_mem_calloc(EW_MEM_CHECKPOINT, bytes, 1);
    *data = o->data;
    return o->data ? EW_STATUS_OK : no_memory(r, name);
}

ew_status ew_q_out_floats(struct ew_q_run *r, struct ew_q_unit *u, const char *name, const float *v,
                          size_t n)
{
    struct ew_q_out *o = ew_q_out_find(u, name);
    size_t count;

    if (!o || !ew_type_count(&o->type, &count) || count != n)
        return ew_fail(r->err, EW_STATUS_INVALID_ARG, "tensor '%s' was not planned", name);
    ew_mem_free(o->data);
    o->data = ew_mem_calloc(EW_MEM_CHECKPOINT, n, ew_dtype_bits(o->type.dtype) / 8);
    if (!o->data)
        return no_memory(r, name);
    ew_convert_floats(o->data, o->type.dtype, v, EW_DTYPE_F32, n);
    return EW_STATUS_OK;
}

/* bits (4 or 8, so that none straddles a word) of value i of a run of words. */
static void put(uint32_t *run, size_t i, int bits, uint32_t v)
{
    const size_t at = i * (size_t)bits;

    run[at / 32] |= v << (at % 32);
}

static ew_status pack_words(struct ew_q_run *r, struct ew_q_unit *u, const char *module,
                            const struct ew_q_tensor *q)
{
    const struct ew_q_format *f = &q->format;
    const int offset = f->asymmetric ? 0 : 1 << (f->bits - 1);
    const size_t w = words(q->k, f->bits);
    int64_t *shape;
    uint32_t *to;
    void *p;

    EW_TRY(take(r, u, module, "weight_packed", &p));
    to = p;
    for (size_t i = 0; i < q->n; i++)
        for (size_t j = 0; j < q->k; j++)
            put(to + i * w, j, f->bits, (uint32_t)(q->codes[i * q->k + j] + offset));
    EW_TRY(take(r, u, module, "weight_shape", &p));
    shape = p;
    shape[0] = (int64_t)q->n;
    shape[1] = (int64_t)q->k;
    if (!f->asymmetric)
        return EW_STATUS_OK;
    EW_TRY(take(r, u, module, "weight_zero_point", &p));
    to = p;
    for (size_t i = 0; i < q->n; i++)
        for (size_t j = 0; j < q->n_groups; j++) {
            const size_t at = i * (size_t)f->bits;

            to[at / 32 * q->n_groups + j] |= (uint32_t)q->zero[i * q->n_groups + j] << (at % 32);
        }
    return EW_STATUS_OK;
}

static ew_status pack_fp4(struct ew_q_run *r, struct ew_q_unit *u, const char *module,
                          const struct ew_q_tensor *q)
{
    const bool nv = q->format.kind == EW_Q_NVFP4;
    const size_t scales = q->n * q->n_groups;
    uint8_t *to;
    void *p;

    EW_TRY(take(r, u, module, "weight_packed", &p));
    to = p;
    for (size_t i = 0; i < q->n * q->k / 2; i++)
        to[i] = (uint8_t)(q->codes[2 * i] | q->codes[2 * i + 1] << 4);
    EW_TRY(take(r, u, module, "weight_scale", &p));
    to = p;
    for (size_t i = 0; i < scales; i++)
        to[i] = nv ? ew_f32_to_f8e4m3(q->scale[i] * q->global, 1)
                   : (uint8_t)(ew_f32_bits(q->scale[i]) >> 23);
    if (!nv)
        return EW_STATUS_OK;
    EW_TRY(take(r, u, module, "weight_global_scale", &p));
    memcpy(p, &q->global, sizeof(q->global));
    return EW_STATUS_OK;
}

ew_status ew_q_pack(struct ew_q_run *r, struct ew_q_unit *u, const char *module,
                    const struct ew_q_tensor *q)
{
    const struct ew_q_format *f = &q->format;
    char name[NAME_CAP];

    if (f->kind == EW_Q_NVFP4 || f->kind == EW_Q_MXFP4)
        return pack_fp4(r, u, module, q);
    if (f->kind == EW_Q_INT && f->packed) {
        EW_TRY(pack_words(r, u, module, q));
    } else {
        uint8_t *to;
        void *p;

        EW_TRY(take(r, u, module, "weight", &p));
        to = p;
        for (size_t i = 0; i < q->n * q->k; i++)
            to[i] = (uint8_t)q->codes[i];
    }
    snprintf(name, sizeof(name), "%s.weight_scale", module);
    return ew_q_out_floats(r, u, name, q->scale, q->n * q->n_groups);
}

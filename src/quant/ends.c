/* quant/ends.c - the head and the embedding: wide tables, rounded row by row in pieces. */
#include <stdio.h>
#include <string.h>

#include "base/size.h"
#include "quant/quant.h"

/* A head is often the largest tensor: its codes are packed, but f32 exists for ROWS at a time. */
struct table {
    struct ew_q_tensor *q;
    const struct ew_st_tensor *src;
};

#define ROWS 16

static void round_rows(void *arg, size_t begin, size_t end)
{
    const struct table *t = arg;
    const size_t k = t->q->k, elem = ew_dtype_bits(t->src->type.dtype) / 8;
    float *w = ew_mem_calloc(EW_MEM_CHECKPOINT, ROWS * k, sizeof(*w));

    for (size_t i = begin; w && i < end; i += ROWS) {
        const size_t n = end - i < ROWS ? end - i : ROWS;
        struct ew_q_tensor piece = *t->q;

        ew_convert_floats(w, EW_DTYPE_F32, (const uint8_t *)t->src->data + i * k * elem,
                          t->src->type.dtype, n * k);
        piece.codes += i * k;
        piece.scale += i * piece.n_groups;
        piece.zero = piece.zero ? piece.zero + i * piece.n_groups : NULL;
        ew_q_rtn_rows(&piece, w, NULL, true, 0, n, NULL);
    }
    if (!w && begin < end)
        t->q->codes[begin * k] = INT16_MIN; /* seen by the caller */
    ew_mem_free(w);
}

static ew_status round_table(struct ew_q_run *r, struct ew_q_unit *u, const char *name,
                             const struct ew_st_tensor *src, const struct ew_q_format *format)
{
    const size_t n = (size_t)r->spec.vocab, k = (size_t)r->spec.hidden;
    struct ew_q_tensor q;
    struct table t = { &q, src };
    ew_status s = EW_STATUS_OK;

    EW_TRY(ew_q_tensor_init(&q, format, n, k, r->err));
    if (format->kind == EW_Q_NVFP4) {
        float max = 0;

        for (size_t i = 0; i < n * k; i++) {
            const float v = (float)ew_elem_get_f64(src->data, src->type.dtype, i);

            max = v > max ? v : -v > max ? -v : max;
        }
        q.global = ew_q_global(max);
    }
    ew_q_parallel(r, n, round_rows, &t);
    for (size_t i = 0; !s && i < n; i++)
        if (q.codes[i * k] == INT16_MIN)
            s = ew_fail(r->err, EW_STATUS_NO_MEMORY, "no memory to quantise '%s'", name);
    if (!s)
        s = ew_q_pack(r, u, name, &q);
    if (!s)
        ew_q_report(r, u, name, n * k, -1, 1);
    ew_q_tensor_deinit(&q);
    return s;
}

ew_status ew_q_ends_run(struct ew_q_run *r, bool head)
{
    const struct ew_q_options *o = r->options;
    char name[256];

    if (head)
        return o->lm_head.format.kind == EW_Q_NONE
                   ? EW_STATUS_OK
                   : round_table(r, &r->units[r->spec.n_layers + 1], r->head_name,
                                 r->head ? r->head : r->embed, &o->lm_head.format);
    if (o->embedding.format.kind == EW_Q_NONE)
        return EW_STATUS_OK;
    snprintf(name, sizeof(name), "%.200sembed_tokens", r->prefix);
    return round_table(r, &r->units[0], name, r->embed, &o->embedding.format);
}

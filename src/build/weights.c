/* build/weights.c - where constants lie in the WEIGHTS section, and streaming them there: packed
 * unit range by unit range, or copied, through one bounded buffer. */
#include "build/build_impl.h"

#include "base/size.h"

#define BUFFER_BYTES ((size_t)32 << 20)

ew_status ew_build_place_weights(struct ew_build *b)
{
    struct ew_plan *p = &b->plan;
    size_t at = 0;

    for (uint32_t t = 0; t < p->n_tensors; t++) {
        if (p->tensors[t].kind != EW_PLAN_CONST)
            continue;
        at = ew_align_up(at, EW_PLAN_ALIGN);
        p->tensors[t].off = at;
        if (!ew_size_add(at, (size_t)p->tensors[t].bytes, &at) || at > SIZE_MAX / 2)
            return ew_fail(b->err, EW_STATUS_LIMIT, "weights are too large at '%s'",
                           p->tensors[t].name);
    }
    p->weights_bytes = at;
    return EW_STATUS_OK;
}

struct pack_job {
    const struct ew_plan_tensor *t;
    struct ew_pack_args args; /* scratch: of all threads */
    size_t scratch_stride;
    uint8_t *dst; /* where unit 0 would be */
    size_t begin, end;
};

static void pack_body(void *arg, unsigned i, unsigned n)
{
    const struct pack_job *j = arg;
    struct ew_pack_args args = j->args;
    size_t begin, end;

    args.scratch = j->scratch_stride ? (uint8_t *)j->args.scratch + i * j->scratch_stride : NULL;
    ew_split_range(j->end - j->begin, 1, i, n, &begin, &end);
    if (begin < end)
        j->t->packed.kernel->pack(j->dst, &args, j->begin + begin, j->begin + end);
}

/* Rows [begin, begin+count) of a constant as parts. `out` has room for n_parts + 1. */
static size_t slice_rows(const struct ew_value *v, size_t k, size_t begin, size_t count,
                         struct ew_weight_part *out)
{
    const size_t esize = ew_dtype_bits(v->type.dtype) / 8;
    const struct ew_weight_part whole = {
        .data = v->con.data, .n_rows = begin + count, .row_stride = (ptrdiff_t)k, .col_stride = 1
    };
    const struct ew_weight_part *parts = v->con.n_parts ? v->con.parts : &whole;
    const size_t n_parts = v->con.n_parts ? v->con.n_parts : 1;
    size_t at = 0, n = 0;

    for (size_t i = 0; i < n_parts; i++) {
        const size_t lo = begin > at ? begin : at;
        const size_t hi =
            begin + count < at + parts[i].n_rows ? begin + count : at + parts[i].n_rows;

        if (lo < hi) {
            out[n] = parts[i];
            if (parts[i].quant)
                out[n].quant_row += lo - at;
            else
                out[n].data = (const uint8_t *)parts[i].data +
                              (ptrdiff_t)(lo - at) * parts[i].row_stride * (ptrdiff_t)esize;
            out[n++].n_rows = hi - lo;
        }
        at += parts[i].n_rows;
    }
    return n;
}

/* One matrix (or expert) through the buffer. Units are equally long, so a buffer that starts at
 * unit u stands in for the whole packed weight shifted by u units. */
static ew_status stream_packed(struct ew_build *b, struct ew_plan_writer *w, struct pack_job *j,
                               uint8_t *buffer)
{
    const struct ew_packed *p = &j->t->packed;
    const size_t units = p->kernel->n_units((size_t)p->n, p->glu);
    const size_t unit_bytes = (size_t)p->expert_bytes / units;
    const size_t per = BUFFER_BYTES / unit_bytes;

    for (size_t u = 0; u < units; u += per) {
        j->begin = u;
        j->end = units - u < per ? units : u + per;
        j->dst = (uint8_t *)((uintptr_t)buffer - u * unit_bytes);
        ew_pool_run(b->pool, pack_body, j);
        EW_TRY(ew_plan_writer_weights(w, buffer, (j->end - u) * unit_bytes, b->err));
        EW_TRY(
            ew_build_step(b, "pack weights", ew_plan_writer_weights_pos(w), b->plan.weights_bytes));
    }
    return EW_STATUS_OK;
}

static ew_status pack_scratch(struct ew_build *b, struct pack_job *j)
{
    const struct ew_packed *p = &j->t->packed;

    if (!p->kernel->pack_scratch_bytes)
        return EW_STATUS_OK;
    j->scratch_stride =
        ew_align_up(p->kernel->pack_scratch_bytes(&p->format, (size_t)p->k), 64) + 64;
    j->args.scratch =
        ew_mem_alloc_aligned(EW_MEM_BUILD, j->scratch_stride * ew_pool_threads(b->pool), 64);
    return j->args.scratch ? EW_STATUS_OK : EW_STATUS_NO_MEMORY;
}

static ew_status write_packed(struct ew_build *b, struct ew_plan_writer *w, uint32_t t,
                              uint8_t *buffer)
{
    const struct ew_plan_tensor *pt = &b->plan.tensors[t];
    const struct ew_packed *p = &pt->packed;
    const struct ew_value *v = b->consts[t].src;
    const size_t units = p->kernel->n_units((size_t)p->n, p->glu);
    struct pack_job j = { .t = pt };
    uint8_t *whole = NULL;
    struct ew_weight_part *parts = ew_mem_calloc(EW_MEM_BUILD, v->con.n_parts + 1, sizeof(*parts));
    ew_status st = EW_STATUS_OK;

    if (!parts || pack_scratch(b, &j)) {
        ew_mem_free(parts);
        return ew_fail(b->err, EW_STATUS_NO_MEMORY, "packing '%s'", pt->name);
    }
    j.args.format = &p->format;
    j.args.parts = parts;
    j.args.n = (size_t)p->n;
    j.args.k = (size_t)p->k;
    j.args.glu = p->glu;
    if (units == 0 || p->expert_bytes % units || p->expert_bytes / units > BUFFER_BYTES) {
        whole = ew_mem_alloc_aligned(EW_MEM_BUILD, (size_t)p->expert_bytes, EW_PLAN_ALIGN);
        if (!whole)
            st = ew_fail(b->err, EW_STATUS_NO_MEMORY, "packing '%s': %llu bytes", pt->name,
                         (unsigned long long)p->expert_bytes);
    }
    for (uint64_t e = 0; e < p->n_experts && !st; e++) {
        j.args.n_parts = slice_rows(v, (size_t)p->k, (size_t)(e * p->n), (size_t)p->n, parts);
        if (!whole) {
            st = stream_packed(b, w, &j, buffer);
            continue;
        }
        j.begin = 0;
        j.end = units;
        j.dst = whole;
        ew_pool_run(b->pool, pack_body, &j);
        st = ew_plan_writer_weights(w, whole, (size_t)p->expert_bytes, b->err);
    }
    ew_mem_free_aligned(whole);
    ew_mem_free_aligned(j.args.scratch);
    ew_mem_free(parts);
    return st;
}

static ew_status write_plain(struct ew_build *b, struct ew_plan_writer *w, uint32_t t)
{
    const struct ew_plan_tensor *pt = &b->plan.tensors[t];
    const struct ew_value *v = b->consts[t].src;
    ew_status st;
    uint8_t *copy;

    if (pt->data) {
        for (size_t at = 0; at < pt->bytes;) {
            const size_t n = pt->bytes - at < BUFFER_BYTES ? (size_t)pt->bytes - at : BUFFER_BYTES;

            EW_TRY(ew_plan_writer_weights(w, (const uint8_t *)pt->data + at, n, b->err));
            at += n;
            EW_TRY(ew_build_step(b, "pack weights", ew_plan_writer_weights_pos(w),
                                 b->plan.weights_bytes));
        }
        return EW_STATUS_OK;
    }
    copy = ew_mem_alloc(EW_MEM_BUILD, pt->bytes ? (size_t)pt->bytes : 1);
    if (!copy)
        return ew_fail(b->err, EW_STATUS_NO_MEMORY, "constant '%s': %llu bytes", pt->name,
                       (unsigned long long)pt->bytes);
    if (pt->bytes && !ew_const_copy(v, copy))
        st = ew_fail(b->err, EW_STATUS_NO_MEMORY, "constant '%s'", pt->name);
    else
        st = ew_plan_writer_weights(w, copy, (size_t)pt->bytes, b->err);
    ew_mem_free(copy);
    return st;
}

ew_status ew_build_weights(struct ew_build *b, struct ew_plan_writer *w)
{
    static const uint8_t zero[EW_PLAN_ALIGN];
    const struct ew_plan *p = &b->plan;
    const size_t want = b->plan.weights_bytes < BUFFER_BYTES
                            ? (size_t)b->plan.weights_bytes + EW_PLAN_ALIGN
                            : BUFFER_BYTES; /* no chunk is larger */
    uint8_t *buffer = ew_mem_alloc_aligned(EW_MEM_BUILD, want, EW_PLAN_ALIGN);
    ew_status st = EW_STATUS_OK;

    if (!buffer)
        return ew_fail(b->err, EW_STATUS_NO_MEMORY, "pack buffer");
    for (uint32_t t = 0; t < p->n_tensors && !st; t++) {
        if (p->tensors[t].kind != EW_PLAN_CONST)
            continue;
        st = ew_plan_writer_weights(
            w, zero, (size_t)(p->tensors[t].off - ew_plan_writer_weights_pos(w)), b->err);
        if (!st)
            st = b->consts[t].pack ? write_packed(b, w, t, buffer) : write_plain(b, w, t);
    }
    ew_mem_free_aligned(buffer);
    return st;
}

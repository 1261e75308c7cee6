/* check_rows_cuda.c - row kernels, pointwise programs, movement of elements and arg max on the
 * device against rowops.h's reference, bit for bit where nothing is rounded. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "base/size.h"
#include "checkcuda.h"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/rows_cuda.h"
#include "kernels/cuda/sample_cuda.h"
#include "kernels/rowops.h"
#include "sample/sampler.h"

#define AT(type, address) ((type *)(uintptr_t)(address))

static void *room(size_t bytes)
{
    void *p = calloc(1, bytes ? bytes : 1);

    if (!p)
        abort();
    return p;
}

static const struct ew_rowops *reference(void)
{
    size_t n;

    return ew_rowops_all(&n)[0];
}

/* The verdict on a plan that should have worked. */
static bool ran(struct cc *c, ew_status st, const ew_error *err, const struct ew_cuda_launch *l)
{
    if (st)
        cc_fail(c, "%s", err->text);
    return !st && cc_launch(c, l, 1);
}

static void norms(struct cc *c)
{
    static const struct {
        size_t rows, n;
        bool residual, half, alone, in_place;
    } t[] = {
        { 1, 1024, false, true, false, false }, { 1, 4096, true, false, false, false },
        { 37, 1024, true, true, false, false }, { 3, 20, false, true, true, false },
        { 5, 33, true, true, false, false },    { 2, 1, false, false, false, false },
        { 70, 5120, true, false, false, true }, { 512, 2560, false, true, true, false },
    };

    for (size_t i = 0; i < EW_COUNT(t); i++) {
        const size_t count = t[i].rows * t[i].n;
        struct ew_cuda_launch l;
        ew_error err = { 0 };
        float *x, *w, *r, *want, *half;

        if (!cc_begin(c, "norm rows%zu n%zu residual%d half%d alone%d in_place%d", t[i].rows,
                      t[i].n, t[i].residual, t[i].half, t[i].alone, t[i].in_place))
            continue;
        x = room(count * 4);
        r = room(count * 4);
        w = room(t[i].n * 4);
        want = room(count * 4);
        half = room(count * 4);
        cc_fill_normal(c, x, count, 3.0f);
        cc_fill_normal(c, r, count, 1.0f);
        cc_fill_normal(c, w, t[i].n, 1.0f);
        x[0] = 1000.0f;
        const uint64_t dx = cc_input(c, x, count * 4);
        const uint64_t dr = t[i].residual ? cc_input(c, r, count * 4) : 0;
        const uint64_t dy = t[i].alone ? 0 : t[i].in_place ? dr : cc_output(c, count * 4);
        const uint64_t dh = t[i].half ? cc_output(c, count * 2) : 0;
        const struct ew_cuda_norm p = { .x = AT(float, dx),
                                        .w = AT(float, cc_input(c, w, t[i].n * 4)),
                                        .residual = AT(float, dr),
                                        .y = AT(float, dy),
                                        .y_bf16 = AT(void, dh),
                                        .rows = t[i].rows,
                                        .n = t[i].n,
                                        .eps = 1e-6f };
        if (ran(c, ew_cuda_norm_plan(&p, &l, &err), &err, &l)) {
            reference()->rmsnorm(want, x, w, t[i].residual ? r : NULL, t[i].rows, t[i].n, 1e-6f);
            if (dy)
                cc_near(c, "y", cc_download(c, dy), want, count, 1e-6, 4e-6);
            if (dh) {
                const uint16_t *got = cc_download(c, dh);

                for (size_t k = 0; k < count; k++)
                    half[k] = ew_bf16_to_f32(got[k]);
                cc_near(c, "y in bf16", half, want, count, 1e-6, 0.00392);
            }
            cc_bench(c, &l, 1, (double)count * 8, 0);
        }
        cc_end(c);
        free(x);
        free(r);
        free(w);
        free(want);
        free(half);
    }
}

/* A random program: every op comes up, registers are written before they are read. */
static struct ew_attr_pointwise program(struct cc *c, size_t n_in, int first_op)
{
    struct ew_attr_pointwise g = { .n_instr = (int32_t)cc_range(c, 1, 6) };
    size_t n_regs = n_in;

    for (int32_t i = 0; i < g.n_instr; i++) {
        struct ew_pw_instr *in = &g.instr[i];

        in->op = (uint8_t)(i == 0 ? first_op : (int)cc_range(c, EW_PW_ADD, EW_PW_MUL));
        in->a = (uint8_t)cc_range(c, 0, n_regs - 1);
        in->b = (uint8_t)cc_range(c, 0, n_regs - 1);
        in->dst = (uint8_t)cc_range(c, 0, n_regs < EW_PW_MAX_REGS ? n_regs : n_regs - 1);
        in->imm = cc_normal(c);
        n_regs += in->dst == n_regs;
    }
    return g;
}

/* y of the reference, element by element through broadcasting. */
static void pointwise_want(const struct ew_cuda_pointwise *p, float *const host[8], float *y)
{
    const struct ew_type *t = p->out_type;
    const size_t step[8] = { 0 };
    size_t count;

    (void)ew_type_count(t, &count);
    for (size_t u = 0; u < count; u++) {
        const float *in[8];

        for (size_t k = 0; k < p->n_in; k++) {
            const struct ew_type *s = p->in_type[k];
            size_t at = 0, rest = u, mul = 1;

            for (int d = t->n_dims - 1; d >= 0; d--) {
                const size_t i = rest % (size_t)t->dim[d];
                const int a = d - (t->n_dims - s->n_dims);

                rest /= (size_t)t->dim[d];
                if (a < 0)
                    continue;
                at += s->dim[a] == 1 ? 0 : i * mul;
                mul *= (size_t)s->dim[a];
            }
            in[k] = host[k] + at;
        }
        reference()->pointwise(p->program, y + u, in, step, p->n_in, 1);
    }
}

static void pointwise_case(struct cc *c, int op, const struct ew_type *out,
                           const struct ew_type *types, size_t n_in, const char *shape)
{
    struct ew_cuda_pointwise p = { .n_in = n_in, .out_type = out };
    struct ew_attr_pointwise g;
    struct ew_cuda_launch l;
    ew_error err = { 0 };
    float *host[8], *want;
    size_t count, n;

    if (!cc_begin(c, "pointwise op%d %s", op, shape))
        return;
    g = program(c, n_in, op);
    p.program = &g;
    (void)ew_type_count(out, &count);
    want = room(count * 4);
    for (size_t k = 0; k < n_in; k++) {
        (void)ew_type_count(&types[k], &n);
        host[k] = room(n * 4);
        cc_fill_normal(c, host[k], n, 2.0f);
        for (size_t i = 0; i < n && (op == EW_PW_POW || op == EW_PW_LOG); i++)
            host[k][i] = fabsf(host[k][i]) + 0.1f;
        if (n > 3 && op != EW_PW_POW) {
            host[k][1] = NAN;
            host[k][2] = INFINITY;
        }
        p.in_type[k] = &types[k];
        p.in[k] = AT(float, cc_input(c, host[k], n * 4));
    }
    const uint64_t y = cc_output(c, count * 4);
    p.y = AT(float, y);
    if (ran(c, ew_cuda_pointwise_plan(&p, &l, &err), &err, &l)) {
        pointwise_want(&p, host, want);
        cc_near(c, "y", cc_download(c, y), want, count, 2e-5, 2e-5);
        cc_bench(c, &l, 1, (double)count * 4 * (double)(n_in + 1), 0);
    }
    cc_end(c);
    for (size_t k = 0; k < n_in; k++)
        free(host[k]);
    free(want);
}

static void pointwise(struct cc *c)
{
    static const int64_t d3[] = { 7, 5, 33 }, d1[] = { 33 }, mid[] = { 5, 1 }, row[] = { 7, 1, 33 };
    static const int64_t four[] = { 2, 3, 4, 5 }, bc[] = { 2, 1, 4, 1 }, one[] = { 1 };
    const struct ew_type flat = ew_type_make(EW_DTYPE_F32, 3, d3);
    const struct ew_type scalar = ew_type_make(EW_DTYPE_F32, 1, one);
    const struct ew_type dense[3] = { flat, flat, scalar };
    const struct ew_type mixed[4] = { flat, ew_type_make(EW_DTYPE_F32, 1, d1),
                                      ew_type_make(EW_DTYPE_F32, 2, mid),
                                      ew_type_make(EW_DTYPE_F32, 3, row) };
    const struct ew_type out4 = ew_type_make(EW_DTYPE_F32, 4, four);
    const struct ew_type deep[2] = { ew_type_make(EW_DTYPE_F32, 4, bc), out4 };

    for (int op = 0; op < EW_PW_OP_COUNT; op++)
        pointwise_case(c, op, &flat, dense, 3, "dense");
    pointwise_case(c, EW_PW_MUL, &flat, mixed, 4, "mixed");
    pointwise_case(c, EW_PW_SILU, &out4, deep, 2, "deep");
}

static void converts(struct cc *c)
{
    static const ew_dtype t[] = { EW_DTYPE_F32, EW_DTYPE_F16, EW_DTYPE_BF16 };
    const size_t n = 5000;

    for (size_t s = 0; s < 3; s++)
        for (size_t d = 0; d < 3; d++) {
            const size_t sb = ew_dtype_bits(t[s]) / 8, db = ew_dtype_bits(t[d]) / 8;
            struct ew_cuda_launch l;
            ew_error err = { 0 };
            float *x;
            uint8_t *src, *want;

            if (!cc_begin(c, "convert %s to %s", ew_dtype_text(t[s]), ew_dtype_text(t[d])))
                continue;
            x = room(n * 4);
            src = room(n * sb);
            want = room(n * db);
            cc_fill_normal(c, x, n, 1.0f);
            for (size_t i = 0; i < n; i++)
                x[i] = ldexpf(x[i], (int)(i % 40) - 30);
            x[7] = INFINITY;
            x[8] = -0.0f;
            ew_convert_floats(src, t[s], x, EW_DTYPE_F32, n);
            const uint64_t dst = cc_output(c, n * db);
            const uint64_t from = cc_input(c, src, n * sb);
            if (ran(c, ew_cuda_convert_plan(AT(void, dst), t[d], AT(void, from), t[s], n, &l, &err),
                    &err, &l)) {
                ew_convert_floats(want, t[d], src, t[s], n);
                cc_equal(c, "numbers", cc_download(c, dst), want, n * db);
            }
            cc_end(c);
            free(x);
            free(src);
            free(want);
        }
}

static void gathers(struct cc *c)
{
    static const struct {
        size_t batch, rows, idx, bytes;
        ew_dtype type;
    } t[] = { { 3, 17, 2, 4096, EW_DTYPE_I64 },
              { 1, 1000, 33, 64, EW_DTYPE_I32 },
              { 2, 5, 7, 6, EW_DTYPE_I32 },
              { 1, 9, 4, 13, EW_DTYPE_I64 } };

    for (size_t i = 0; i < EW_COUNT(t); i++) {
        const size_t n = t[i].batch * t[i].idx, size = t[i].type == EW_DTYPE_I64 ? 8 : 4;
        struct ew_cuda_launch l;
        ew_error err = { 0 };
        uint8_t *src, *idx, *want;

        if (!cc_begin(c, "gather batch%zu rows%zu idx%zu bytes%zu", t[i].batch, t[i].rows, t[i].idx,
                      t[i].bytes))
            continue;
        src = room(t[i].batch * t[i].rows * t[i].bytes);
        idx = room(n * size);
        want = room(n * t[i].bytes);
        for (size_t k = 0; k < t[i].batch * t[i].rows * t[i].bytes; k++)
            src[k] = (uint8_t)cc_rand(c);
        for (size_t k = 0; k < n; k++) {
            const size_t row = cc_range(c, 0, t[i].rows - 1);
            /* the last one is out of range, one counts from the end */
            const int64_t at = k == n - 1 ? (int64_t)t[i].rows
                               : k == 1   ? (int64_t)row - (int64_t)t[i].rows
                                          : (int64_t)row;
            const int32_t at32 = (int32_t)at;

            memcpy(idx + k * size, size == 8 ? (const void *)&at : (const void *)&at32, size);
            if (k != n - 1)
                memcpy(want + k * t[i].bytes, src + (k / t[i].idx * t[i].rows + row) * t[i].bytes,
                       t[i].bytes);
        }
        const uint64_t dst = cc_output(c, n * t[i].bytes);
        const struct ew_cuda_gather p = {
            .dst = AT(void, dst),
            .src = AT(void, cc_input(c, src, t[i].batch * t[i].rows * t[i].bytes)),
            .idx = AT(void, cc_input(c, idx, n * size)),
            .idx_type = t[i].type,
            .n_batch = t[i].batch,
            .n_rows = t[i].rows,
            .n_idx = t[i].idx,
            .row_bytes = t[i].bytes,
        };
        if (ran(c, ew_cuda_gather_plan(&p, &l, &err), &err, &l))
            cc_equal(c, "rows", cc_download(c, dst), want, n * t[i].bytes);
        cc_end(c);
        free(src);
        free(idx);
        free(want);
    }
}

static void embeds(struct cc *c)
{
    static const ew_dtype types[] = { EW_DTYPE_F32, EW_DTYPE_F16, EW_DTYPE_BF16 };
    static const int32_t ids[] = { 5, 0, 49, 7, 50, -1 };
    const size_t n = 131, rows = 50, n_ids = EW_COUNT(ids);

    for (size_t t = 0; t < EW_COUNT(types); t++) {
        const size_t bytes = ew_dtype_bits(types[t]) / 8;
        struct ew_cuda_launch l;
        ew_error err = { 0 };
        float *x, *want;
        uint8_t *table;

        if (!cc_begin(c, "embed %s", ew_dtype_text(types[t])))
            continue;
        x = room(rows * n * 4);
        table = room(rows * n * bytes);
        want = room(n_ids * n * 4);
        cc_fill_normal(c, x, rows * n, 1.0f);
        ew_convert_floats(table, types[t], x, EW_DTYPE_F32, rows * n);
        for (size_t i = 0; i < n_ids * n; i++) {
            const int32_t id = ids[i / n];

            want[i] = id < 0 || id >= (int32_t)rows
                          ? NAN
                          : (float)ew_elem_get_f64(table, types[t], (size_t)id * n + i % n) * 2.5f;
        }
        const uint64_t dst = cc_output(c, n_ids * n * 4);
        const struct ew_cuda_embed p = { .dst = AT(float, dst),
                                         .table = AT(void, cc_input(c, table, rows * n * bytes)),
                                         .dtype = types[t],
                                         .ids = AT(int32_t, cc_input(c, ids, sizeof(ids))),
                                         .n_ids = n_ids,
                                         .n_rows = rows,
                                         .n = n,
                                         .scale = 2.5f };
        if (ran(c, ew_cuda_embed_plan(&p, &l, &err), &err, &l))
            cc_near(c, "rows", cc_download(c, dst), want, n_ids * n, 0, 0);
        cc_end(c);
        free(x);
        free(table);
        free(want);
    }
}

/* Random panels; how they are read back on the host is checked with the linear kernels. */
static void packed_embed(struct cc *c, const struct ew_quant_format *f)
{
    const bool wide = ew_quant_code_bits(f->code) == 8;
    const struct ew_linear_kernel *layout = wide ? &ew_cuda_layout_q8 : &ew_cuda_layout_q4;
    static const int32_t ids[] = { 5, 0, 49, 8, 50, -1, 17, 31 };
    const size_t n = f->group % 64 ? 208 : 1024 + 64, rows = 50, n_ids = EW_COUNT(ids);
    const struct ew_cuda_panel panel = ew_cuda_panel_of(f, n);
    const size_t bytes = layout->packed_bytes(f, rows, n, false);
    struct ew_cuda_launch l;
    ew_error err = { 0 };
    char text[64];
    uint8_t *table;
    float *want;

    ew_quant_format_text(f, text, sizeof(text));
    if (!cc_begin(c, "embed packed %s", text))
        return;
    table = room(bytes);
    want = room(n_ids * n * 4);
    for (size_t i = 0; i < bytes; i++) /* scales and float codes are finite */
        table[i] = (uint8_t)(cc_rand(c) & (f->code == EW_DTYPE_I8 || f->code == EW_DTYPE_U8 || !wide
                                               ? i % panel.bytes < panel.scales_at ? 0xffu : 0xbfu
                                               : 0xbbu));
    for (size_t i = 0; i < n_ids; i++) {
        if (ids[i] >= 0 && ids[i] < (int32_t)rows)
            layout->unpack_row(want + i * n, table, f, rows, n, (size_t)ids[i]);
        for (size_t j = 0; j < n; j++)
            want[i * n + j] = ids[i] < 0 || ids[i] >= (int32_t)rows ? NAN : want[i * n + j] * 0.5f;
    }
    const uint64_t dst = cc_output(c, n_ids * n * 4);
    const struct ew_cuda_embed p = { .dst = AT(float, dst),
                                     .table = AT(void, cc_input(c, table, bytes)),
                                     .format = f,
                                     .ids = AT(int32_t, cc_input(c, ids, sizeof(ids))),
                                     .n_ids = n_ids,
                                     .n_rows = rows,
                                     .n = n,
                                     .scale = 0.5f };
    if (ran(c, ew_cuda_embed_plan(&p, &l, &err), &err, &l))
        cc_near(c, "rows", cc_download(c, dst), want, n_ids * n, 1e-38, 0x1p-22);
    cc_end(c);
    free(table);
    free(want);
}

static void packed_embeds(struct cc *c)
{
    static const struct ew_quant_format formats[] = {
        { EW_DTYPE_I4, EW_DTYPE_F16, 128, 0 },       { EW_DTYPE_U4, EW_DTYPE_F32, 32, 1 },
        { EW_DTYPE_F4E2M1, EW_DTYPE_F8E4M3, 16, 0 }, { EW_DTYPE_I8, EW_DTYPE_NONE, 0, 0 },
        { EW_DTYPE_I8, EW_DTYPE_BF16, 32, 0 },       { EW_DTYPE_U8, EW_DTYPE_F16, 64, 1 },
        { EW_DTYPE_U4, EW_DTYPE_F16, 0, 1 },         { EW_DTYPE_F8E4M3, EW_DTYPE_F8E8M0, 16, 0 },
        { EW_DTYPE_F8E5M2, EW_DTYPE_NONE, 0, 0 },
    };

    for (size_t i = 0; i < EW_COUNT(formats); i++)
        packed_embed(c, &formats[i]);
}

/* A transpose into the middle of a wider row, of every element size. */
static void copies(struct cc *c)
{
    const size_t a = 13, b = 70, ld = 29;

    for (uint32_t size = 1; size <= 8; size *= 2) {
        struct ew_cuda_launch l;
        ew_error err = { 0 };
        uint8_t *src, *want;

        if (!cc_begin(c, "copy %u", size))
            continue;
        src = room(a * b * size);
        want = room(b * ld * size);
        memset(want, 0xff, b * ld * size);
        for (size_t i = 0; i < a * b * size; i++)
            src[i] = (uint8_t)cc_rand(c);
        for (size_t i = 0; i < a; i++)
            for (size_t j = 0; j < b; j++) /* rows of the source from the last one up */
                memcpy(want + (j * ld + 3 + i) * size, src + ((a - 1 - i) * b + j) * size, size);
        const uint64_t dst = cc_output(c, b * ld * size);
        const struct ew_cuda_copy p = { .dst = AT(void, dst),
                                        .src = AT(void, cc_input(c, src, a * b * size)),
                                        .elem_bytes = size,
                                        .n_dims = 2,
                                        .dim = { (int64_t)b, (int64_t)a },
                                        .dst_stride = { (int64_t)ld, 1 },
                                        .src_stride = { 1, -(int64_t)b },
                                        .dst_off = 3,
                                        .src_off = (int64_t)((a - 1) * b) };
        if (ran(c, ew_cuda_copy_plan(&p, &l, &err), &err, &l))
            cc_equal(c, "elements", cc_download(c, dst), want, b * ld * size);
        cc_end(c);
        free(src);
        free(want);
    }
}

static void softmaxes(struct cc *c)
{
    static const size_t shapes[][2] = { { 5, 320 }, { 3, 1 }, { 2, 5000 } };

    for (size_t i = 0; i < EW_COUNT(shapes); i++)
        for (int is_log = 0; is_log < 2; is_log++) {
            const size_t rows = shapes[i][0], n = shapes[i][1];
            struct ew_cuda_launch l;
            ew_error err = { 0 };
            float *x, *want;

            if (!cc_begin(c, "softmax rows%zu n%zu log%d", rows, n, is_log))
                continue;
            x = room(rows * n * 4);
            want = room(rows * n * 4);
            cc_fill_normal(c, x, rows * n, 4.0f);
            for (size_t r = 0; r < rows; r++) {
                double max = -INFINITY, sum = 0;

                for (size_t k = 0; k < n; k++)
                    max = fmax(max, (double)x[r * n + k]);
                for (size_t k = 0; k < n; k++)
                    sum += exp((double)x[r * n + k] - max);
                for (size_t k = 0; k < n; k++)
                    want[r * n + k] = (float)(is_log ? (double)x[r * n + k] - max - log(sum)
                                                     : exp((double)x[r * n + k] - max) / sum);
            }
            const uint64_t y = cc_output(c, rows * n * 4);
            const struct ew_cuda_softmax p = { AT(float, cc_input(c, x, rows * n * 4)),
                                               AT(float, y), rows, n, is_log };
            if (ran(c, ew_cuda_softmax_plan(&p, &l, &err), &err, &l))
                cc_near(c, "y", cc_download(c, y), want, rows * n, 1e-6, 4e-6);
            cc_end(c);
            free(x);
            free(want);
        }
}

static void argmaxes(struct cc *c)
{
    enum { PLAIN, TIES, A_NAN, AN_INF, NONE, LAST };
    static const struct {
        size_t rows, n, stride;
        int kind;
    } t[] = { { 1, 151936, 151936, PLAIN }, { 8, 151936, 151936, TIES }, { 3, 320, 320, PLAIN },
              { 2, 1001, 1003, TIES },      { 1, 5000, 5000, A_NAN },    { 1, 5000, 5000, AN_INF },
              { 2, 100, 100, NONE },        { 1, 6145, 6145, LAST },     { 1, 1, 1, PLAIN } };

    for (size_t i = 0; i < EW_COUNT(t); i++) {
        const size_t rows = t[i].rows, n = t[i].n;
        struct ew_cuda_launch l;
        ew_error err = { 0 };
        int32_t *want;
        float *x;

        if (!cc_begin(c, "argmax rows%zu n%zu stride%zu kind%d", rows, n, t[i].stride, t[i].kind))
            continue;
        x = room(rows * t[i].stride * 4);
        want = room(rows * 4);
        cc_fill_normal(c, x, rows * t[i].stride, 5.0f);
        for (size_t r = 0; r < rows; r++) {
            float *const row = x + r * t[i].stride;

            for (size_t k = 0; t[i].kind == NONE && k < n; k++)
                row[k] = -INFINITY;
            if (t[i].kind == TIES)
                row[n - 1] = row[n / 3] = row[n / 2] = 100.0f;
            if (t[i].kind == A_NAN)
                row[n / 2 + 1] = NAN;
            if (t[i].kind == AN_INF)
                row[n - 2] = INFINITY;
            if (t[i].kind == LAST)
                row[n - 1] = 1000.0f;
            want[r] = ew_argmax(row, (uint32_t)n);
        }
        const uint64_t token = cc_output(c, rows * 4);
        const struct ew_cuda_argmax p = {
            .logits = AT(float, cc_input(c, x, rows * t[i].stride * 4)),
            .rows = rows,
            .n = n,
            .stride = t[i].stride,
            .token = AT(int32_t, token),
            .value = NULL,
            .work = AT(void, cc_output(c, ew_cuda_argmax_work_bytes(rows, n))),
            .counters = AT(uint32_t, cc_zeroed(c, rows * 4)),
        };
        if (ran(c, ew_cuda_argmax_plan(&p, &l, &err), &err, &l)) {
            cc_equal(c, "tokens", cc_download(c, token), want, rows * 4);
            if (cc_launch(c, &l, 1)) /* counters are left as they were */
                cc_equal(c, "tokens again", cc_download(c, token), want, rows * 4);
            cc_bench(c, &l, 1, (double)(rows * n * 4), 0);
        }
        cc_end(c);
        free(x);
        free(want);
    }
}

/* Draws against the sampler, many rows with their own parameters at once. A row may differ where u
 * falls on a border; so few would, that none is expected here. */
static void draws(struct cc *c)
{
    static const struct {
        size_t n;
        double temperature, top_p, min_p;
        int32_t top_k;
        float scale;
    } t[] = {
        { 5000, 1.0, 1.0, 0, 20, 3.0f },      { 5000, 0.7, 0.8, 0, 20, 3.0f },
        { 5000, 1.3, 0.9, 0, 0, 4.0f },       { 5000, 1.0, 1.0, 0, 0, 2.0f },
        { 700, 1.0, 0.95, 0.02, 0, 2.0f },    { 700, 1.0, 1.0, 0.1, 50, 2.0f },
        { 151936, 0.6, 0.95, 0, 20, 3.0f },   { 151936, 1.0, 0.5, 0, 0, 4.0f },
        { 5000, 0, 1.0, 0, 0, 3.0f },         { 300, 1.5, 0.99, 0.05, 400, 2.0f },
        { 5000, 1.0, 0.7, 0.001, 300, 1.5f }, { 151936, 1.0, 1.0, 0, 0, 3.0f },
        { 151936, 1.0, 1.0, 0.02, 0, 3.0f },  { 1025, 0.9, 1.0, 0, 500, 2.0f },
        { 1500, 1.2, 0.97, 0, 400, 2.0f },    { 37, 1.0, 0.9, 0, 0, 1.0f },
        { 37, 1.0, 1.0, 0, 5, 1.0f },         { 5000, 0.8, 1.0, 0.3, 0, 3.0f },
        { 5000, 40.0, 1.0, 0.01, 0, 3.0f },
    };
    const size_t n_cases = EW_COUNT(t) * (cc_is_bench(c) ? 2 : 1); /* the second time for a row */

    for (size_t case_ = 0; case_ < n_cases; case_++) {
        const size_t i = case_ % EW_COUNT(t), n = t[i].n, rows = case_ == i ? 24 : 1;
        struct ew_cuda_draw_params params[24] = { { 0 } };
        struct ew_cuda_launch l[EW_CUDA_DRAW_LAUNCHES];
        struct ew_sampler sampler;
        ew_error err = { 0 };
        float *x;

        if (!cc_begin(c, "draw rows%zu n%zu t%g k%d p%g min%g", rows, n, t[i].temperature,
                      t[i].top_k, t[i].top_p, t[i].min_p))
            continue;
        x = room(rows * n * 4);
        cc_fill_normal(c, x, rows * n, t[i].scale);
        for (size_t r = 0; r < rows; r++) {
            float *const row = x + r * n;

            params[r] =
                (struct ew_cuda_draw_params){ t[i].temperature, t[i].top_p,  t[i].min_p, cc_rand(c),
                                              r * 1000,         (uint32_t)r, t[i].top_k };
            if (r % 3 == 1) /* many ties */
                for (size_t k = 0; k < n; k++)
                    row[k] = roundf(row[k] * 8) / 8;
            if (r % 5 == 4)
                row[r] = -INFINITY;
        }
        if (rows > 7)
            x[7 * n + 3] = NAN;
        const uint64_t token = cc_output(c, rows * 4);
        const struct ew_cuda_draw p = {
            .logits = AT(float, cc_input(c, x, rows * n * 4)),
            .rows = rows,
            .n = n,
            .stride = n,
            .params = AT(struct ew_cuda_draw_params, cc_input(c, params, sizeof(params))),
            .token = AT(int32_t, token),
            .work = AT(void, cc_output(c, ew_cuda_draw_work_bytes(rows, n))),
        };
        const ew_status st = ew_cuda_draw_plan(&p, l, &err);

        if (st)
            cc_fail(c, "%s", err.text);
        else if (cc_launch(c, l, EW_CUDA_DRAW_LAUNCHES)) {
            const int32_t *got = cc_download(c, token);
            const struct ew_history none = { 0 };
            size_t n_left = 0;

            if (ew_sampler_init(&sampler, (uint32_t)n, &err))
                abort();
            for (size_t r = 0; r < rows; r++) {
                const struct ew_sample_params sp = { .greedy = t[i].temperature == 0,
                                                     .temperature = t[i].temperature,
                                                     .top_p = t[i].top_p,
                                                     .min_p = t[i].min_p,
                                                     .top_k = t[i].top_k,
                                                     .repetition = 1.0,
                                                     .seed = params[r].seed };
                int32_t want = -1;

                (void)ew_sampler_draw(&sampler, x + r * n, &sp, &none, params[r].request,
                                      params[r].position, &want, NULL);
                n_left += got[r] == -2;
                if (got[r] != want && got[r] != -2)
                    cc_fail(c, "row %zu: token %d, not %d", r, got[r], want);
            }
            if (n_left > rows / 2)
                cc_fail(c, "%zu of %zu rows were left to the host", n_left, rows);
            ew_sampler_deinit(&sampler);
            cc_bench(c, l, EW_CUDA_DRAW_LAUNCHES, (double)(rows * n * 4), 0);
        }
        cc_end(c);
        free(x);
    }
}

CC_FAMILY(rows_cuda)
{
    draws(c);
    norms(c);
    pointwise(c);
    converts(c);
    gathers(c);
    embeds(c);
    packed_embeds(c);
    copies(c);
    softmaxes(c);
    argmaxes(c);
}

/* quant/matmul.c - dense f32 products on the engine's own linear kernels and a thread pool. */
#include <string.h>

#include "base/size.h"
#include "quant/quant.h"

#define GRAIN 16

struct ranges {
    void (*fn)(void *arg, size_t begin, size_t end);
    void *arg;
    size_t n;
};

static void run_ranges(void *arg, unsigned i, unsigned n)
{
    const struct ranges *r = arg;
    size_t begin, end;

    ew_split_range(r->n, GRAIN, i, n, &begin, &end);
    if (begin < end)
        r->fn(r->arg, begin, end);
}

void ew_q_parallel(struct ew_q_run *r, size_t n, void (*fn)(void *arg, size_t begin, size_t end),
                   void *arg)
{
    struct ranges ranges = { fn, arg, n };

    ew_pool_run(r->pool, run_ranges, &ranges);
}

struct product {
    const struct ew_linear_kernel *kernel;
    const struct ew_linear_args *args;
    const struct ew_pack_args *pack;
    uint8_t *packed, *scratch;
    size_t scratch_bytes, units;
};

static void multiply(void *arg, unsigned i, unsigned n)
{
    const struct product *p = arg;
    const struct ew_linear_args *a = p->args;
    size_t begin, end;

    ew_split_range(p->units, 1, i, n, &begin, &end);
    if (begin == end)
        return;
    p->kernel->pack(p->packed, p->pack, begin, end);
    p->kernel->run(a, begin, end, p->scratch + i * p->scratch_bytes);
}

ew_status ew_q_matmul(struct ew_q_run *r, const float *x, size_t m, const float *w, size_t n,
                      size_t k, float *y)
{
    const struct ew_linear_kernel *kernel = r->kernel;
    const struct ew_weight_part part = {
        .data = w, .n_rows = n, .row_stride = (ptrdiff_t)k, .col_stride = 1
    };
    struct ew_linear_args a = {
        .x = x, .x_stride = k, .y = y, .y_stride = n, .m = m, .n = n, .k = k, .scale = 1
    };
    const struct ew_pack_args pack = { .parts = &part, .n_parts = 1, .n = n, .k = k };
    struct product p = { .kernel = kernel, .args = &a, .pack = &pack };

    p.scratch_bytes = ew_align_up(kernel->scratch_bytes(NULL, m, n, k) + 64, 64);
    p.units = kernel->n_units(n, false);
    p.packed = ew_mem_alloc_aligned(EW_MEM_CHECKPOINT, kernel->packed_bytes(NULL, n, k, false), 64);
    p.scratch =
        ew_mem_alloc_aligned(EW_MEM_CHECKPOINT, p.scratch_bytes * ew_pool_threads(r->pool), 64);
    a.w = p.packed;
    if (p.packed && p.scratch)
        ew_pool_run(r->pool, multiply, &p);
    ew_mem_free_aligned(p.packed);
    ew_mem_free_aligned(p.scratch);
    return p.packed && p.scratch
               ? EW_STATUS_OK
               : ew_fail(r->err, EW_STATUS_NO_MEMORY, "no memory for a product of %zu x %zu", n, k);
}

ew_status ew_q_output_energy(struct ew_q_run *r, const float *x, size_t m, const float *d, size_t n,
                             size_t k, double *out)
{
    float *y = ew_mem_calloc(EW_MEM_CHECKPOINT, m * n, sizeof(*y));
    ew_status s;

    if (!y)
        return ew_fail(r->err, EW_STATUS_NO_MEMORY, "no memory for %zu x %zu outputs", m, n);
    s = ew_q_matmul(r, x, m, d, n, k, y);
    *out = 0;
    for (size_t i = 0; i < m; i++) {
        float row[8] = { 0 };
        size_t j = 0;

        for (; j + 8 <= n; j += 8)
            for (size_t l = 0; l < 8; l++)
                row[l] += y[i * n + j + l] * y[i * n + j + l];
        for (; j < n; j++)
            row[0] += y[i * n + j] * y[i * n + j];
        for (size_t l = 0; l < 8; l++)
            *out += (double)row[l];
    }
    *out /= (double)m * (double)n;
    ew_mem_free(y);
    return s;
}

ew_status ew_q_gram(struct ew_q_run *r, const float *x, size_t m, size_t k, float *h)
{
    float *t = ew_mem_calloc(EW_MEM_CHECKPOINT, m * k, sizeof(*t));
    const float scale = 1 / (float)m;
    ew_status s;

    if (!t)
        return ew_fail(r->err, EW_STATUS_NO_MEMORY, "no memory for %zu x %zu inputs", m, k);
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < k; j++)
            t[j * m + i] = x[i * k + j];
    s = ew_q_matmul(r, t, k, t, k, m, h);
    for (size_t i = 0; !s && i < k * k; i++)
        h[i] *= scale;
    ew_mem_free(t);
    return s;
}

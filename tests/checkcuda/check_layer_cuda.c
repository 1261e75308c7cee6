/* check_layer_cuda.c - with --bench: the four Linears of a decoder layer one after the other, each
 * reading what the one before wrote, as a graph of a model runs them. A kernel alone does not show
 * what lies between two. */
#include <stdlib.h>
#include <string.h>

#include "checkcuda.h"
#include "kernels/cuda/linear.h"
#include "op/attrs.h"

struct model {
    const char *name;
    size_t hidden, heads, kv, inter; /* columns of q; of k and v each */
};

/* One Linear: where x and y lie, whether x is normalised first, what is added. */
struct link {
    size_t n, k, x_stride;
    uint64_t x, y, residual;
    bool norm, glu;
};

static uint64_t random_input(struct cc *c, size_t bytes)
{
    uint32_t *w = calloc(bytes / 4 + 1, 4);
    uint64_t seed = 1, at;

    if (!w)
        abort();
    for (size_t i = 0; i < bytes / 4; i++) { /* small numbers in every format */
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        w[i] = (uint32_t)(seed >> 32) & 0xbfffbfffu;
    }
    at = cc_input(c, w, bytes);
    free(w);
    return at;
}

static size_t plan_link(struct cc *c, const struct ew_cuda_linear_kernel *k,
                        const struct ew_quant_format *f, size_t m, const struct link *at,
                        struct ew_cuda_launch *out, double *bytes)
{
    const size_t packed = k->layout->packed_bytes(f, at->n, at->k, at->glu);
    const size_t n_out = at->glu ? at->n / 2 : at->n;
    struct ew_cuda_linear_problem p = {
        .x = at->x,
        .w = random_input(c, packed),
        .residual = at->residual,
        .y = at->y,
        .norm_weight = at->norm ? random_input(c, at->k * 4) : 0,
        .norm_eps = 1e-6f,
        .x_stride = at->x_stride,
        .y_stride = n_out,
        .residual_stride = n_out,
        .m = m,
        .n = at->n,
        .k = at->k,
        .format = *f,
        .act = at->glu ? EW_ACT_SILU : EW_ACT_NONE,
        .glu = at->glu,
        .scale = 1.0f,
    };
    const size_t work = k->workspace_bytes(cc_chip(c), &p);

    if (work)
        p.workspace = cc_output(c, work);
    *bytes += (double)packed + (double)m * (double)(at->k + n_out) * 4;
    return k->plan(cc_chip(c), &p, out);
}

/* What a launch reads first is asked for by the one before that can (backend/cuda/emit_linear.c).
 */
static void tell_ahead(struct ew_cuda_launch *l, size_t n)
{
    for (size_t i = 1; i < n; i++)
        for (size_t j = i; l[i].reads.bytes && j-- > 0;)
            if (l[j].ahead_at) {
                memcpy(l[j].args + l[j].ahead_at, &l[i].reads, sizeof(l[i].reads));
                break;
            }
}

static void time_layer(struct cc *c, const struct ew_cuda_linear_kernel *k,
                       const struct ew_quant_format *f, const struct model *d, size_t m)
{
    const size_t qkv = d->heads + 2 * d->kv, weights = d->hidden * (qkv + d->heads + 3 * d->inter);
    struct ew_cuda_launch l[4 * EW_CUDA_LINEAR_LAUNCHES];
    double bytes = 0;
    size_t n = 0;

    if (!ew_cuda_linear_kernel_runs(k, cc_chip(c), k->layout->weight_dtype, f, m, qkv, d->hidden,
                                    false, EW_XQ_NONE) ||
        !cc_begin(c, "time %s %s m%zu", k->name, d->name, m))
        return;
    const uint64_t h = random_input(c, m * d->hidden * 4), h2 = cc_output(c, m * d->hidden * 4),
                   q = cc_output(c, m * qkv * 4), a = cc_output(c, m * d->inter * 4);
    const struct link links[] = {
        { qkv, d->hidden, d->hidden, h, q, 0, k->takes_norm, false },
        { d->hidden, d->heads, qkv, q, h2, h, false, false },
        { 2 * d->inter, d->hidden, d->hidden, h2, a, 0, k->takes_norm, true },
        { d->hidden, d->inter, d->inter, a, h, h2, false, false },
    };

    for (size_t i = 0; i < sizeof(links) / sizeof(*links); i++)
        n += plan_link(c, k, f, m, &links[i], l + n, &bytes);
    tell_ahead(l, n);
    if (cc_launch(c, l, n) || !cc_chip(c)->n_sm)
        cc_bench(c, l, n, bytes, 2.0 * (double)m * (double)weights);
    cc_end(c);
}

CC_FAMILY(layer_cuda)
{
    static const char *const kernels[] = { "strip_q4", "stripd_q4", "strip16_q4" };
    static const struct model models[] = { { "8B", 4096, 4096, 1024, 12288 },
                                           { "4B", 2560, 4096, 1024, 9728 },
                                           { "0.6B", 1024, 2048, 1024, 3072 } };
    static const struct ew_quant_format f = { EW_DTYPE_I4, EW_DTYPE_F16, 128, 0 };
    static const size_t rows[] = { 4, 8, 16, 32, 64 };

    for (size_t i = 0; i < sizeof(models) / sizeof(*models) && cc_is_bench(c); i++)
        for (size_t j = 0; j < sizeof(kernels) / sizeof(*kernels); j++)
            for (size_t r = 0; r < sizeof(rows) / sizeof(*rows); r++)
                time_layer(c, ew_cuda_linear_kernel_find(kernels[j]), &f, &models[i], rows[r]);
}

/* kernels/cuda/linear_rows.c - plans of linear_rows.cu. How many warps and blocks share a panel's
 * columns follows from n, k and the chip alone, so that bits do not depend on m. */
#include "kernels/cuda/linear_plan.h"

#ifndef EW_TUNE_CLUSTER
#    define EW_TUNE_CLUSTER 1
#endif

struct sharing {
    uint32_t warps_k, cluster;
};

static uint32_t step_cols(const struct ew_cuda_linear_problem *p)
{
    return ew_quant_is(&p->format) ? 2 * (uint32_t)ew_cuda_panel_of(&p->format, 1).block_cols : 64;
}

/* Shared memory beside x: sums of two turns, sums of the blocks of a cluster, squares, zeros. */
static uint32_t fixed_bytes(struct sharing s, uint32_t warps, uint32_t rows)
{
    const uint32_t sums = 2 * warps + (s.cluster > 1 ? 2 : 1) * (warps / s.warps_k);

    return (sums * rows * 80 + rows * 32 + 16 + 127) / 128 * 128;
}

/* Enough warps in all to keep memory busy, each with a step at least; and ranges of which sixteen
 * rows of x fit into shared memory where there are clusters. */
static struct sharing share(const struct ew_cuda_chip *c, const struct ew_cuda_linear_problem *p,
                            size_t panels)
{
    const size_t want = (size_t)c->n_sm * 16, steps = ew_cuda_div_up(p->k, step_cols(p));
    struct sharing s = { 1, 1 };

    while (s.warps_k < 8 && s.warps_k * 2 <= steps && panels * s.warps_k < want)
        s.warps_k *= 2;
    while (c->sm >= 90 && s.cluster < 8 &&
           ((EW_TUNE_CLUSTER && s.cluster * 2 * s.warps_k <= steps &&
             panels * s.warps_k * s.cluster < want) ||
            p->k / s.cluster * 32 + 4096 + fixed_bytes(s, 16, 16) > c->shared_per_block))
        s.cluster *= 2;
    return s;
}

static size_t no_workspace(const struct ew_cuda_chip *c, const struct ew_cuda_linear_problem *p)
{
    (void)c;
    (void)p;
    return 0;
}

static size_t plan(const struct ew_cuda_chip *c, const struct ew_cuda_linear_problem *p, bool exact,
                   struct ew_cuda_launch *out)
{
    const bool quant = ew_quant_is(&p->format);
    const size_t n_out = p->glu ? p->n / 2 : p->n, panels = ew_cuda_div_up(n_out, p->glu ? 8 : 16);
    const struct sharing s = share(c, p, panels);
    const uint32_t cols = step_cols(p),
                   range = ew_cuda_div_up(ew_cuda_div_up(p->k, cols), s.cluster);
    const uint32_t rows = !exact ? 16 : p->m <= 1 ? 1 : p->m <= 2 ? 2 : p->m <= 4 ? 4 : 8;
    const size_t x_rows = p->m * (exact ? 2 : 1), sm_bytes = c->shared_per_block;
    const uint32_t whole = ew_cuda_div_up(range, s.warps_k) * s.warps_k; /* steps of a range */
    uint32_t warps = 8, blocks = 2, depth = 4, chunk, grid;
    struct ew_cuda_linear_args a = ew_cuda_linear_args_of(p);
    char format[96] = "-DEW_CODE=0";
    size_t room;

    if (p->m == 0 || p->n == 0)
        return 0;
    /* three blocks where there are more than two for a multiprocessor; else registers are worth
     * more */
    if (quant && rows <= 4 && ew_cuda_div_up(panels, warps / s.warps_k) * s.cluster > 2 * c->n_sm)
        blocks = 3;
    if (!exact ||
        x_rows * (whole * cols * 2 + 64) + fixed_bytes(s, warps, rows) + 1024 > sm_bytes / blocks) {
        warps = 16;
        blocks = 1;
    }
    room = (sm_bytes - fixed_bytes(s, warps, rows)) / x_rows - 64;
    chunk = whole;
    if (chunk * cols * 2 > room) { /* by chunks, which are a multiple of the depth of reads ahead */
        while (depth > 1 && s.warps_k * depth * cols * 2 > room)
            depth /= 2;
        chunk = (uint32_t)(room / (cols * 2)) / (s.warps_k * depth) * (s.warps_k * depth);
    }
    if (quant)
        ew_cuda_quant_defines(&p->format, p->k, format, sizeof(format));
    else
        a.row_bytes = (p->k * 2 + 15) & ~(size_t)15;
    a.tiles_m = chunk;
    a.tiles_n = (uint32_t)panels;
    grid = ew_cuda_div_up(panels, warps / s.warps_k);
    if (grid > blocks * c->n_sm / s.cluster)
        grid = ew_cuda_div_up(grid, ew_cuda_div_up(grid, blocks * c->n_sm / s.cluster));
    out[0] = ew_cuda_linear_launch("linear_rows", "ew_linear_rows", &a);
    out[0].grid[0] = grid * s.cluster;
    out[0].block[0] = warps * 32;
    out[0].cluster = s.cluster > 1 ? s.cluster : 0;
    out[0].shared_bytes =
        fixed_bytes(s, warps, rows) + (uint32_t)(x_rows * (chunk * cols * 2 + (quant ? 16 : 64)));
    ew_cuda_linear_define(&out[0], p,
                          "%s -DEW_LO=%d -DEW_ROWS=%u -DEW_WARPS=%u -DEW_WARPS_K=%u "
                          "-DEW_CLUSTER=%u -DEW_DEPTH=%u -DEW_MIN_BLOCKS=%u -DEW_NORM=%d",
                          format,
                          !exact      ? 0
                          : rows <= 4 ? 4
                                      : 8,
                          rows, warps, s.warps_k, s.cluster, depth, blocks, p->norm_weight != 0);
    return 1;
}

static size_t plan_exact(const struct ew_cuda_chip *c, const struct ew_cuda_linear_problem *p,
                         struct ew_cuda_launch *out)
{
    return plan(c, p, true, out);
}

static size_t plan_16(const struct ew_cuda_chip *c, const struct ew_cuda_linear_problem *p,
                      struct ew_cuda_launch *out)
{
    return plan(c, p, false, out);
}

#define ROWS(suffix)                                                                               \
    extern const struct ew_cuda_linear_kernel ew_cuda_rows_##suffix, ew_cuda_rows16_##suffix;      \
    const struct ew_cuda_linear_kernel ew_cuda_rows_##suffix = {                                   \
        .name = "rows_" #suffix,                                                                   \
        .layout = &ew_cuda_layout_##suffix,                                                        \
        .sm_min = 80,                                                                              \
        .sm_max = 999,                                                                             \
        .max_rows = 8,                                                                             \
        .x_error = 0x1p-17f,                                                                       \
        .takes_norm = true,                                                                        \
        .workspace_bytes = no_workspace,                                                           \
        .plan = plan_exact,                                                                        \
    };                                                                                             \
    const struct ew_cuda_linear_kernel ew_cuda_rows16_##suffix = {                                 \
        .name = "rows16_" #suffix,                                                                 \
        .layout = &ew_cuda_layout_##suffix,                                                        \
        .sm_min = 80,                                                                              \
        .sm_max = 999,                                                                             \
        .max_rows = 16,                                                                            \
        .x_error = EW_X_ERROR_BF16,                                                                \
        .takes_norm = true,                                                                        \
        .workspace_bytes = no_workspace,                                                           \
        .plan = plan_16,                                                                           \
    };

ROWS(bf16)
ROWS(q4)
ROWS(q8)

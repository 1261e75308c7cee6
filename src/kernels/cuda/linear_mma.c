/* kernels/cuda/linear_mma.c - plans of linear_mma.cu: a launch that rounds x (unless it comes
 * rounded), the product, and where blocks share a tile's columns a launch that adds up. How many
 * share follows from n, k, the chip and the class of m (up to 64 rows, up to 256, more), so that
 * bits are the same within a class. */

#include "kernels/cuda/linear_plan.h"

#define ROWS 128u

struct tiling {
    uint32_t n, stages, stage_bytes, splits, tiles_m, tiles_n;
};

static struct tiling tiling_of(const struct ew_cuda_chip *c, const struct ew_cuda_linear_problem *p)
{
    const bool quant = ew_quant_is(&p->format);
    const size_t n_out = p->glu ? p->n / 2 : p->n;
    struct tiling t = { .stages = 4 };

    t.n = p->m <= 16 ? 16 : p->m <= 32 ? 32 : p->m <= 64 ? 64 : 128;
    t.tiles_m = ew_cuda_div_up(p->m, t.n);
    t.tiles_n = ew_cuda_div_up(n_out, p->glu ? ROWS / 2 : ROWS);
    t.splits = p->m <= 64    ? ew_cuda_linear_splits(c, t.tiles_n, p->k)
               : p->m <= 256 ? ew_cuda_linear_splits(c, (size_t)t.tiles_n * 2, p->k)
                             : 1;
    t.stage_bytes = t.n * 128 + (!quant                                             ? ROWS * 128
                                 : ew_cuda_panel_of(&p->format, 1).block_cols == 32 ? 8192
                                                                                    : 4096);
    while (t.stages > 2 && t.stages * t.stage_bytes * (t.n < 128 ? 2 : 1) > c->shared_per_block)
        t.stages--;
    return t;
}

static size_t prepared_bytes(const struct ew_cuda_linear_problem *p)
{
    return p->prepared ? 0 : (p->m * ((p->k + 7) & ~(size_t)7) * 2 + 255) & ~(size_t)255;
}

static size_t workspace_bytes(const struct ew_cuda_chip *c, const struct ew_cuda_linear_problem *p)
{
    const struct tiling t = tiling_of(c, p);

    return prepared_bytes(p) + (t.splits > 1 ? t.splits * p->m * p->n * sizeof(float) : 0);
}

static size_t plan(const struct ew_cuda_chip *c, const struct ew_cuda_linear_problem *p, bool f16,
                   struct ew_cuda_launch *out)
{
    const struct tiling t = tiling_of(c, p);
    struct ew_cuda_linear_args a = ew_cuda_linear_args_of(p);
    const uint64_t y = a.y, sums = p->workspace + prepared_bytes(p);
    struct ew_cuda_launch *l = out;
    char format[96] = "-DEW_CODE=0";

    if (p->m == 0 || p->n == 0)
        return 0;
    if (!p->prepared)
        *l++ = ew_cuda_linear_prepare(p, f16, &a);
    if (ew_quant_is(&p->format))
        ew_cuda_quant_defines(&p->format, p->k, format, sizeof(format));
    else
        a.row_bytes = (p->k * 2 + 15) & ~(size_t)15;
    if (t.splits > 1)
        a.y = sums;
    *l = ew_cuda_linear_launch("linear_mma", "ew_linear_mma", &a);
    l->grid[0] = t.tiles_m;
    l->grid[1] = t.tiles_n;
    l->grid[2] = t.splits;
    l->block[0] = 256;
    l->shared_bytes = t.stages * t.stage_bytes;
    ew_cuda_linear_define(l, p, "%s -DEW_F16=%d -DEW_N=%u -DEW_STAGES=%u -DEW_SPLIT=%d", format,
                          f16, t.n, t.stages, t.splits > 1);
    l++;
    if (t.splits > 1) {
        a.x = sums;
        a.y = y;
        a.tiles_m = t.splits;
        *l = ew_cuda_linear_launch("linear_reduce", "ew_linear_reduce", &a);
        l->grid[0] = ew_cuda_div_up(a.n_out, 256);
        l->grid[1] = a.m;
        l->block[0] = 256;
        ew_cuda_linear_define(l, p, "-DEW_REDUCE=1");
        l++;
    }
    return (size_t)(l - out);
}

static size_t plan_bf16(const struct ew_cuda_chip *c, const struct ew_cuda_linear_problem *p,
                        struct ew_cuda_launch *out)
{
    return plan(c, p, false, out);
}

static size_t plan_f16(const struct ew_cuda_chip *c, const struct ew_cuda_linear_problem *p,
                       struct ew_cuda_launch *out)
{
    return plan(c, p, true, out);
}

#define MMA(suffix, planner, error)                                                                \
    extern const struct ew_cuda_linear_kernel ew_cuda_mma_##suffix;                                \
    const struct ew_cuda_linear_kernel ew_cuda_mma_##suffix = {                                    \
        .name = "mma_" #suffix,                                                                    \
        .layout = &ew_cuda_layout_##suffix,                                                        \
        .sm_min = 80,                                                                              \
        .sm_max = 999,                                                                             \
        .max_rows = SIZE_MAX,                                                                      \
        .x_error = error,                                                                          \
        .takes_prepared = true,                                                                    \
        .takes_norm = true,                                                                        \
        .workspace_bytes = workspace_bytes,                                                        \
        .plan = planner,                                                                           \
    };

MMA(bf16, plan_bf16, EW_X_ERROR_BF16)
MMA(f16, plan_f16, EW_X_ERROR_F16)
MMA(q4, plan_bf16, EW_X_ERROR_BF16)
MMA(q8, plan_bf16, EW_X_ERROR_BF16)

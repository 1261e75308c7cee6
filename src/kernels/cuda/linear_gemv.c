/* kernels/cuda/linear_gemv.c - plans of linear_gemv.cu. How rows and columns are shared out:
 *   warps_k   by n, k and the chip alone, so that bits do not depend on m
 *   rows      two rows of W a warp for one or two rows of x, four above: each x is read once for
 * all */

#include "kernels/cuda/linear_plan.h"

#define WARPS 8u
#ifndef EW_TUNE_BLOCKS
#    define EW_TUNE_BLOCKS 3
#endif

static size_t no_workspace(const struct ew_cuda_chip *c, const struct ew_cuda_linear_problem *p)
{
    (void)c;
    (void)p;
    return 0;
}

/* Warps that share a row: enough warps in all to keep memory busy, each with a step at least.
 * (Choosing them so that the last turn of a smaller grid is fullest was slower: what counts is
 * reads in flight.) */
static uint32_t warps_k(const struct ew_cuda_chip *c, size_t n, size_t steps)
{
    const size_t want = (size_t)c->n_sm * 16;
    uint32_t w = 1;

    while (w < WARPS && w * 2 <= steps && n / 2 * w < want)
        w *= 2;
    return w;
}

static size_t plan(const struct ew_cuda_chip *c, const struct ew_cuda_linear_problem *p, int type,
                   struct ew_cuda_launch *out)
{
    const size_t elem = type == 0 ? 4 : 2, step = 32 * 16 / elem;
    const uint32_t m = p->m <= 1 ? 1 : p->m <= 2 ? 2 : p->m <= 4 ? 4 : 8;
    /* gate and up rows in twos where that still gives every warp some */
    const bool twos = m == 1 && p->glu && p->n / 4 >= (size_t)c->n_sm * 3 * WARPS;
    const uint32_t rows = m <= 2 && !twos ? 2 : 4;
    const uint32_t depth = 8 / rows, blocks = m == 1 ? EW_TUNE_BLOCKS : m <= 4 ? 2 : 1;
    const uint32_t wk = warps_k(c, p->n, ew_cuda_div_up(p->k, step)), warps_n = WARPS / wk;
    struct ew_cuda_linear_args a = ew_cuda_linear_args_of(p);
    uint32_t grid;

    if (p->m == 0 || p->n == 0)
        return 0;
    a.row_bytes = (p->k * elem + 15) & ~(size_t)15;
    grid = ew_cuda_div_up(ew_cuda_div_up(a.n_out, p->glu ? rows / 2 : rows), warps_n);
    if (wk == 1 && grid > c->n_sm * blocks)
        grid = ew_cuda_div_up(grid, ew_cuda_div_up(grid, c->n_sm * blocks));
    out[0] = ew_cuda_linear_launch("linear_gemv", "ew_linear_gemv", &a);
    out[0].grid[0] = grid;
    out[0].grid[1] = ew_cuda_div_up(p->m, m);
    out[0].block[0] = WARPS * 32;
    ew_cuda_linear_define(&out[0], p,
                          "-DEW_TYPE=%d -DEW_M=%u -DEW_ROWS=%u -DEW_DEPTH=%u -DEW_WARPS_K=%u "
                          "-DEW_NORM=%d -DEW_MIN_BLOCKS=%u",
                          type, m, rows, depth, wk, p->norm_weight != 0, blocks);
    return 1;
}

#define GEMV(suffix, number)                                                                       \
    static size_t plan_##suffix(const struct ew_cuda_chip *c,                                      \
                                const struct ew_cuda_linear_problem *p,                            \
                                struct ew_cuda_launch *out)                                        \
    {                                                                                              \
        return plan(c, p, number, out);                                                            \
    }                                                                                              \
    extern const struct ew_cuda_linear_kernel ew_cuda_gemv_##suffix;                               \
    const struct ew_cuda_linear_kernel ew_cuda_gemv_##suffix = {                                   \
        .name = "gemv_" #suffix,                                                                   \
        .layout = &ew_cuda_layout_##suffix,                                                        \
        .sm_min = 80,                                                                              \
        .sm_max = 999,                                                                             \
        .max_rows = SIZE_MAX,                                                                      \
        .takes_norm = true,                                                                        \
        .workspace_bytes = no_workspace,                                                           \
        .plan = plan_##suffix,                                                                     \
    };

GEMV(f32, 0)
GEMV(f16, 1)
GEMV(bf16, 2)

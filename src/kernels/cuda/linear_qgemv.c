/* kernels/cuda/linear_qgemv.c - plans of linear_qgemv.cu. How many warps and blocks share a panel's
 * columns follows from n, k and the chip alone, so that bits do not depend on m. */
#include <stdio.h>
#include <string.h>

#include "kernels/cuda/linear_plan.h"

#define WARPS      8u
#define X_BYTES    (60u << 10) /* of x in shared memory: three blocks on a multiprocessor of sm_90 */
#define BLOCKS     3u
#define MAX_SPLITS 8u

struct sharing {
    uint32_t warps_k, cluster;
};

static struct sharing share(const struct ew_cuda_chip *c, size_t panels, size_t k_blocks)
{
    const size_t want = (size_t)c->n_sm * 16;
    struct sharing s = { 1, 1 };

    while (s.warps_k < WARPS && s.warps_k * 2 <= k_blocks && panels * s.warps_k < want)
        s.warps_k *= 2;
    while (c->sm >= 90 && s.cluster < MAX_SPLITS && s.cluster * 2 * s.warps_k <= k_blocks &&
           panels * s.warps_k * s.cluster < want)
        s.cluster *= 2;
    return s;
}

static size_t no_workspace(const struct ew_cuda_chip *c, const struct ew_cuda_linear_problem *p)
{
    (void)c;
    (void)p;
    return 0;
}

static size_t plan(const struct ew_cuda_chip *c, const struct ew_cuda_linear_problem *p,
                   struct ew_cuda_launch *out)
{
    const struct ew_cuda_panel l = ew_cuda_panel_of(&p->format, p->k);
    const size_t n_out = p->glu ? p->n / 2 : p->n, panels = ew_cuda_div_up(n_out, p->glu ? 8 : 16);
    const struct sharing s = share(c, panels, l.k_blocks);
    const size_t range = ew_cuda_div_up(l.k_blocks, s.cluster);
    const size_t column_bytes = 2 * p->m * l.block_cols * 2;
    const uint32_t at_once = BLOCKS * c->n_sm / s.cluster;
    struct ew_cuda_linear_args a = ew_cuda_linear_args_of(p);
    uint32_t chunk, grid;
    char format[96];

    if (p->m == 0 || p->n == 0)
        return 0;
    /* columns in shared memory: all of a block's range if they fit */
    chunk = (uint32_t)(X_BYTES / column_bytes / s.warps_k * s.warps_k);
    if (chunk < s.warps_k)
        chunk = s.warps_k;
    if (chunk > range)
        chunk = ew_cuda_div_up(range, s.warps_k) * s.warps_k;
    a.tiles_m = chunk;
    a.tiles_n = (uint32_t)panels;
    grid = ew_cuda_div_up(panels, WARPS / s.warps_k);
    if (grid > at_once)
        grid = ew_cuda_div_up(grid, ew_cuda_div_up(grid, at_once));
    out[0] = ew_cuda_linear_launch("linear_qgemv", "ew_linear_qgemv", &a);
    out[0].grid[0] = grid * s.cluster;
    out[0].block[0] = WARPS * 32;
    out[0].cluster = s.cluster > 1 ? s.cluster : 0;
    out[0].shared_bytes = (uint32_t)(2 * p->m * (chunk * l.block_cols * 2 + 16));
    ew_cuda_quant_defines(&p->format, p->k, format, sizeof(format));
    (void)snprintf(out[0].spec.defines, sizeof(out[0].spec.defines),
                   "%s -DEW_GLU=%d -DEW_NORM=%d -DEW_DEPTH=4 -DEW_WARPS_K=%u -DEW_CLUSTER=%u "
                   "-DEW_MIN_BLOCKS=%u",
                   format, p->glu, p->norm_weight != 0, s.warps_k, s.cluster, BLOCKS);
    return 1;
}

#define QGEMV(suffix)                                                                              \
    extern const struct ew_cuda_linear_kernel ew_cuda_gemv_##suffix;                               \
    const struct ew_cuda_linear_kernel ew_cuda_gemv_##suffix = {                                   \
        .name = "gemv_" #suffix,                                                                   \
        .layout = &ew_cuda_layout_##suffix,                                                        \
        .sm_min = 80,                                                                              \
        .sm_max = 999,                                                                             \
        .max_rows = 8,                                                                             \
        .x_error = 0x1p-17f,                                                                       \
        .takes_norm = true,                                                                        \
        .workspace_bytes = no_workspace,                                                           \
        .plan = plan,                                                                              \
    };

QGEMV(q4)
QGEMV(q8)

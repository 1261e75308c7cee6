/* kernels/cuda/linear_digits.c - plans of linear_digits.cu. How many warps and blocks share a
 * panel's columns follows from n, k and the chip alone, so that bits do not depend on m. */
#include "kernels/cuda/linear_plan.h"

#define STEP        128u
#define DIGITS_OF_X 3u

struct sharing {
    uint32_t warps_k, cluster;
};

/* Columns of B, which come in eights. */
static uint32_t columns(uint32_t rows)
{
    return (rows * DIGITS_OF_X + 7) / 8 * 8;
}

/* Shared memory beside x: sums of two turns, sums of the blocks of a cluster, squares, zeros. */
static uint32_t fixed_bytes(struct sharing s, uint32_t warps, uint32_t rows)
{
    const uint32_t cols = columns(rows);
    const uint32_t joined = (s.cluster > 1 ? 2 : 1) * (warps / s.warps_k) * rows;

    return ((2 * warps * cols + joined) * 80 + rows * 32 + 16 + 127) / 128 * 128;
}

/* Of x, by chunks of `steps`: digits, and what they are worth. */
static size_t x_bytes(const struct ew_quant_format *f, size_t k, size_t m, uint32_t rows,
                      size_t steps)
{
    const bool parts = ew_quant_groups(f, k) > 1 && f->group < STEP;
    const size_t x = (DIGITS_OF_X * m * (steps * STEP + 64) + 15) & ~(size_t)15;

    return x + steps * (parts ? STEP / f->group : 1) * columns(rows) * 8;
}

/* Enough warps in all to keep memory busy, each with a step at least; and ranges of which eight
 * rows of x fit into shared memory where there are clusters. */
static struct sharing share(const struct ew_cuda_chip *c, const struct ew_cuda_linear_problem *p,
                            size_t panels)
{
    const size_t want = (size_t)c->n_sm * 16, steps = ew_cuda_div_up(p->k, STEP);
    struct sharing s = { 1, 1 };

    while (s.warps_k < 8 && s.warps_k * 2 <= steps && panels * s.warps_k < want)
        s.warps_k *= 2;
    while (c->sm >= 90 && s.cluster < 8 &&
           ((s.cluster * 2 * s.warps_k <= steps && panels * s.warps_k * s.cluster < want) ||
            x_bytes(&p->format, p->k, 8, 8, ew_cuda_div_up(steps, s.cluster) + 8) +
                    fixed_bytes(s, 8, 8) >
                c->shared_per_block))
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
    const size_t n_out = p->glu ? p->n / 2 : p->n, panels = ew_cuda_div_up(n_out, p->glu ? 8 : 16);
    const struct sharing s = share(c, p, panels);
    const uint32_t range = ew_cuda_div_up(ew_cuda_div_up(p->k, STEP), s.cluster);
    const uint32_t rows = p->m <= 1 ? 1 : p->m <= 2 ? 2 : p->m <= 4 ? 4 : 8;
    const uint32_t warps = 8;
    const uint32_t fixed = fixed_bytes(s, warps, rows);
    struct ew_cuda_linear_args a = ew_cuda_linear_args_of(p);
    uint32_t chunk = ew_cuda_div_up(range, s.warps_k) * s.warps_k;
    uint32_t blocks = 2, depth = 4, grid;
    char format[96];

    if (p->m == 0 || p->n == 0)
        return 0;
    /* three blocks where there are more than two for a multiprocessor; else registers are worth
     * more */
    if (rows <= 2 && ew_cuda_div_up(panels, warps / s.warps_k) * s.cluster > 2 * c->n_sm)
        blocks = 3;
    if (fixed + x_bytes(&p->format, p->k, p->m, rows, chunk) > c->shared_per_block) {
        /* by chunks, which are a multiple of the depth of reads ahead */
        while (depth > 1 && fixed + x_bytes(&p->format, p->k, p->m, rows, s.warps_k * depth) >
                                c->shared_per_block)
            depth /= 2;
        chunk = ew_cuda_div_up(chunk, s.warps_k * depth) * s.warps_k * depth;
        while (chunk > s.warps_k * depth &&
               fixed + x_bytes(&p->format, p->k, p->m, rows, chunk) > c->shared_per_block)
            chunk -= s.warps_k * depth;
    }
    while (blocks > 1 && (fixed + x_bytes(&p->format, p->k, p->m, rows, chunk) + 1024) * blocks >
                             c->shared_per_block + 1024)
        blocks--;
    a.tiles_m = chunk;
    a.tiles_n = (uint32_t)panels;
    grid = ew_cuda_div_up(panels, warps / s.warps_k);
    if (grid > blocks * c->n_sm / s.cluster)
        grid = ew_cuda_div_up(grid, ew_cuda_div_up(grid, blocks * c->n_sm / s.cluster));
    out[0] = ew_cuda_linear_launch("linear_digits", "ew_linear_digits", &a);
    out[0].grid[0] = grid * s.cluster;
    out[0].block[0] = warps * 32;
    out[0].cluster = s.cluster > 1 ? s.cluster : 0;
    out[0].shared_bytes = fixed + (uint32_t)x_bytes(&p->format, p->k, p->m, rows, chunk);
    ew_cuda_quant_defines(&p->format, p->k, format, sizeof(format));
    ew_cuda_linear_define(
        &out[0], p,
        "%s -DEW_DIGITS=%u -DEW_ROWS=%u -DEW_WARPS=%u -DEW_WARPS_K=%u -DEW_CLUSTER=%u "
        "-DEW_DEPTH=%u -DEW_MIN_BLOCKS=%u -DEW_NORM=%d",
        format, DIGITS_OF_X, rows, warps, s.warps_k, s.cluster, depth, blocks, p->norm_weight != 0);
    return 1;
}

static bool takes(const struct ew_quant_format *f, size_t n, size_t k, bool glu)
{
    (void)n;
    (void)glu;
    if (f->code != EW_DTYPE_I4 && f->code != EW_DTYPE_U4 && f->code != EW_DTYPE_I8 &&
        f->code != EW_DTYPE_U8)
        return false;
    return ew_quant_groups(f, k) == 1 || f->group % STEP == 0 || f->group == 64 || f->group == 32;
}

#define DIGITS(suffix)                                                                             \
    extern const struct ew_cuda_linear_kernel ew_cuda_digits_##suffix;                             \
    const struct ew_cuda_linear_kernel ew_cuda_digits_##suffix = {                                 \
        .name = "digits_" #suffix,                                                                 \
        .layout = &ew_cuda_layout_##suffix,                                                        \
        .sm_min = 80,                                                                              \
        .sm_max = 999,                                                                             \
        .max_rows = 8,                                                                             \
        .x_error = 0x1p-18f,                                                                       \
        .takes_norm = true,                                                                        \
        .takes = takes,                                                                            \
        .workspace_bytes = no_workspace,                                                           \
        .plan = plan,                                                                              \
    };

DIGITS(q4)
DIGITS(q8)

/* kernels/cuda/linear_few.c - plans of linear_rows.cu and linear_digits.cu, which share out their
 * work in one way (linear_few.cuh). How many warps and blocks share a panel's columns follows from
 * n, k, the format and the chip alone, so that bits do not depend on m. */
#include "kernels/cuda/linear_plan.h"

#define DIGITS_OF_X 3u

/* What sets the two apart. */
struct way {
    const char *source, *entry;
    uint32_t (*step)(const struct ew_cuda_linear_problem *p); /* columns */
    /* Of x in shared memory, by chunks of `steps`: m rows, a kernel made for `rows`. */
    size_t (*x_bytes)(const struct ew_cuda_linear_problem *p, size_t m, uint32_t rows,
                      size_t steps);
    uint32_t (*sum_cols)(uint32_t rows); /* of sums that a warp leaves */
    uint32_t most_rows;
    uint32_t
        three_blocks; /* most rows with which three blocks share a multiprocessor's registers */
    bool widens;      /* one block of 16 warps where x has no room beside another */
};

struct sharing {
    uint32_t warps_k, cluster;
};

/* ---- bf16 on tensor cores ---- */
static uint32_t rows_step(const struct ew_cuda_linear_problem *p)
{
    return ew_quant_is(&p->format) ? 2 * (uint32_t)ew_cuda_panel_of(&p->format, 1).block_cols : 64;
}

/* With up to eight rows also what rounding lost. */
static size_t rows_x_bytes(const struct ew_cuda_linear_problem *p, size_t m, uint32_t rows,
                           size_t steps)
{
    return m * (rows > 8 ? 1 : 2) *
           (steps * rows_step(p) * 2 + (ew_quant_is(&p->format) ? 16 : 64));
}

static uint32_t rows_sum_cols(uint32_t rows)
{
    return rows;
}

/* ---- digits on integer tensor cores ---- */
static uint32_t digits_step(const struct ew_cuda_linear_problem *p)
{
    (void)p;
    return 128;
}

/* Columns of B, which come in eights. */
static uint32_t digits_cols(uint32_t rows)
{
    return (rows * DIGITS_OF_X + 7) / 8 * 8;
}

/* Digits, and what they are worth. */
static size_t digits_x_bytes(const struct ew_cuda_linear_problem *p, size_t m, uint32_t rows,
                             size_t steps)
{
    const struct ew_quant_format *f = &p->format;
    const bool parts = ew_quant_groups(f, p->k) > 1 && f->group < 128;
    const size_t x = (DIGITS_OF_X * m * (steps * 128 + 64) + 15) & ~(size_t)15;

    return x + steps * (parts ? 128 / f->group : 1) * digits_cols(rows) * 8;
}

/* Three blocks where there are more than two for a multiprocessor; else registers are worth more.
 */
static const struct way rows_plain = {
    "linear_rows", "ew_linear_rows", rows_step, rows_x_bytes, rows_sum_cols, 8, 0, true
};
static const struct way rows_quant = {
    "linear_rows", "ew_linear_rows", rows_step, rows_x_bytes, rows_sum_cols, 8, 4, true
};
static const struct way rows_16 = {
    "linear_rows", "ew_linear_rows", rows_step, rows_x_bytes, rows_sum_cols, 16, 0, true
};
static const struct way digits = {
    "linear_digits", "ew_linear_digits", digits_step, digits_x_bytes, digits_cols, 8, 2, false
};

/* Shared memory beside x: sums of two turns, sums of the blocks of a cluster, squares, zeros. */
static uint32_t fixed_bytes(const struct way *w, struct sharing s, uint32_t warps, uint32_t rows)
{
    const uint32_t joined = (s.cluster > 1 ? 2 : 1) * (warps / s.warps_k) * rows;

    return ((2 * warps * w->sum_cols(rows) + joined) * 80 + rows * 32 + 16 + 127) / 128 * 128;
}

/* Enough warps in all to keep memory busy, each with a step at least; and ranges of which all rows
 * of x fit into shared memory where there are clusters. */
static struct sharing share(const struct way *w, const struct ew_cuda_chip *c,
                            const struct ew_cuda_linear_problem *p, size_t panels)
{
    const size_t want = (size_t)c->n_sm * 16, steps = ew_cuda_div_up(p->k, w->step(p));
    const uint32_t warps = w->widens ? 16 : 8;
    struct sharing s = { 1, 1 };

    while (s.warps_k < 8 && s.warps_k * 2 <= steps && panels * s.warps_k < want)
        s.warps_k *= 2;
    while (c->sm >= 90 && s.cluster < 8 &&
           ((s.cluster * 2 * s.warps_k <= steps && panels * s.warps_k * s.cluster < want) ||
            w->x_bytes(p, w->most_rows, w->most_rows, ew_cuda_div_up(steps, s.cluster) + 8) +
                    fixed_bytes(w, s, warps, w->most_rows) >
                c->shared_per_block))
        s.cluster *= 2;
    return s;
}

struct tiling {
    uint32_t rows, warps, blocks, depth, chunk, fixed;
    size_t x_bytes;
};

static struct tiling tiling_of(const struct way *w, const struct ew_cuda_chip *c,
                               const struct ew_cuda_linear_problem *p, struct sharing s,
                               size_t panels)
{
    const size_t limit = c->shared_per_block;
    const uint32_t range = ew_cuda_div_up(ew_cuda_div_up(p->k, w->step(p)), s.cluster);
    struct tiling t = { .warps = 8, .blocks = 2, .depth = 4 };

    t.rows = w->most_rows > 8 ? 16 : p->m <= 1 ? 1 : p->m <= 2 ? 2 : p->m <= 4 ? 4 : 8;
    t.chunk = ew_cuda_div_up(range, s.warps_k) * s.warps_k;
    if (t.rows <= w->three_blocks &&
        ew_cuda_div_up(panels, t.warps / s.warps_k) * s.cluster > 2 * c->n_sm)
        t.blocks = 3;
    if (w->widens &&
        (t.rows > 8 || (w->x_bytes(p, p->m, t.rows, t.chunk) + fixed_bytes(w, s, t.warps, t.rows) +
                        1024) * t.blocks >
                           limit)) {
        t.warps = 16;
        t.blocks = 1;
    }
    t.fixed = fixed_bytes(w, s, t.warps, t.rows);
    if (t.fixed + w->x_bytes(p, p->m, t.rows, t.chunk) > limit) {
        /* by chunks, which are a multiple of the depth of reads ahead */
        while (t.depth > 1 && t.fixed + w->x_bytes(p, p->m, t.rows, s.warps_k * t.depth) > limit)
            t.depth /= 2;
        t.chunk = ew_cuda_div_up(t.chunk, s.warps_k * t.depth) * s.warps_k * t.depth;
        while (t.chunk > s.warps_k * t.depth &&
               t.fixed + w->x_bytes(p, p->m, t.rows, t.chunk) > limit)
            t.chunk -= s.warps_k * t.depth;
    }
    t.x_bytes = w->x_bytes(p, p->m, t.rows, t.chunk);
    while (t.blocks > 1 && (t.fixed + t.x_bytes + 1024) * t.blocks > limit + 1024)
        t.blocks--;
    return t;
}

static size_t plan(const struct way *w, const struct ew_cuda_chip *c,
                   const struct ew_cuda_linear_problem *p, const char *numbers,
                   struct ew_cuda_launch *out)
{
    const size_t n_out = p->glu ? p->n / 2 : p->n, panels = ew_cuda_div_up(n_out, p->glu ? 8 : 16);
    struct ew_cuda_linear_args a = ew_cuda_linear_args_of(p);
    char format[96] = "-DEW_CODE=0";
    struct sharing s;
    struct tiling t;
    uint32_t grid;

    if (p->m == 0 || p->n == 0)
        return 0;
    s = share(w, c, p, panels);
    t = tiling_of(w, c, p, s, panels);
    if (ew_quant_is(&p->format))
        ew_cuda_quant_defines(&p->format, p->k, format, sizeof(format));
    else
        a.row_bytes = (p->k * 2 + 15) & ~(size_t)15;
    a.tiles_m = t.chunk;
    a.tiles_n = (uint32_t)panels;
    grid = ew_cuda_div_up(panels, t.warps / s.warps_k);
    if (grid > t.blocks * c->n_sm / s.cluster)
        grid = ew_cuda_div_up(grid, ew_cuda_div_up(grid, t.blocks * c->n_sm / s.cluster));
    out[0] = ew_cuda_linear_launch(w->source, w->entry, &a);
    out[0].grid[0] = grid * s.cluster;
    out[0].block[0] = t.warps * 32;
    out[0].cluster = s.cluster > 1 ? s.cluster : 0;
    out[0].shared_bytes = t.fixed + (uint32_t)t.x_bytes;
    ew_cuda_linear_define(&out[0], p,
                          "%s %s -DEW_ROWS=%u -DEW_WARPS=%u -DEW_WARPS_K=%u -DEW_CLUSTER=%u "
                          "-DEW_DEPTH=%u -DEW_MIN_BLOCKS=%u -DEW_NORM=%d",
                          format, numbers, t.rows, t.warps, s.warps_k, s.cluster, t.depth, t.blocks,
                          p->norm_weight != 0);
    return 1;
}

static size_t plan_rows(const struct ew_cuda_chip *c, const struct ew_cuda_linear_problem *p,
                        struct ew_cuda_launch *out)
{
    return plan(ew_quant_is(&p->format) ? &rows_quant : &rows_plain, c, p,
                p->m <= 4 ? "-DEW_LO=4" : "-DEW_LO=8", out);
}

static size_t plan_rows16(const struct ew_cuda_chip *c, const struct ew_cuda_linear_problem *p,
                          struct ew_cuda_launch *out)
{
    return plan(&rows_16, c, p, "-DEW_LO=0", out);
}

static size_t plan_digits(const struct ew_cuda_chip *c, const struct ew_cuda_linear_problem *p,
                          struct ew_cuda_launch *out)
{
    return plan(&digits, c, p, "-DEW_DIGITS=3", out);
}

static size_t no_workspace(const struct ew_cuda_chip *c, const struct ew_cuda_linear_problem *p)
{
    (void)c;
    (void)p;
    return 0;
}

static bool takes_digits(const struct ew_quant_format *f, size_t n, size_t k, bool glu)
{
    (void)n;
    (void)glu;
    if (f->code != EW_DTYPE_I4 && f->code != EW_DTYPE_U4 && f->code != EW_DTYPE_I8 &&
        f->code != EW_DTYPE_U8)
        return false;
    return ew_quant_groups(f, k) == 1 || f->group % 128 == 0 || f->group == 64 || f->group == 32;
}

#define FEW(way, suffix, rows, error, takes_what)                                                  \
    extern const struct ew_cuda_linear_kernel ew_cuda_##way##_##suffix;                            \
    const struct ew_cuda_linear_kernel ew_cuda_##way##_##suffix = {                                \
        .name = #way "_" #suffix,                                                                  \
        .layout = &ew_cuda_layout_##suffix,                                                        \
        .sm_min = 80,                                                                              \
        .sm_max = 999,                                                                             \
        .max_rows = rows,                                                                          \
        .x_error = error,                                                                          \
        .takes_norm = true,                                                                        \
        .takes = takes_what,                                                                       \
        .workspace_bytes = no_workspace,                                                           \
        .plan = plan_##way,                                                                        \
    };

FEW(rows, bf16, 8, 0x1p-17f, NULL)
FEW(rows, q4, 8, 0x1p-17f, NULL)
FEW(rows, q8, 8, 0x1p-17f, NULL)
FEW(rows16, bf16, 16, EW_X_ERROR_BF16, NULL)
FEW(rows16, q4, 16, EW_X_ERROR_BF16, NULL)
FEW(rows16, q8, 16, EW_X_ERROR_BF16, NULL)
FEW(digits, q4, 8, 0x1p-18f, takes_digits)
FEW(digits, q8, 8, 0x1p-18f, takes_digits)

/* kernels/cuda/linear_wide.c - the plan of linear_wide.cu: how wide tiles are; and dense, which
 * runs quantised weights there: a launch of their own makes them bf16 in the workspace first. */
#include <stdio.h>
#include <string.h>

#include "kernels/cuda/linear_plan.h"

#define ROWS     256u /* of x, of a tile */
#define SHARE    2u   /* blocks of a cluster. Of four, 30 fit on an H200 at once: 12 blocks less */
#define L2_BYTES 26u  /* that a multiprocessor reads from L2 in a clock when all do */
#define BARRIERS 128u

/* Clusters that are there at once. */
static size_t clusters(const struct ew_cuda_chip *c)
{
    return c->n_sm < SHARE ? 1 : c->n_sm / SHARE;
}

static size_t tiles_of(size_t rows, size_t width)
{
    return (rows + width - 1) / width;
}

static size_t tiles_n_of(size_t n, size_t width)
{
    return (tiles_of(n, width) + SHARE - 1) / SHARE * SHARE;
}

/* Rows of W of a tile: the least time by clocks of the tensor cores (8 a row and 64 columns), or of
 * what L2 gives where that is more, over the turns that the chip needs. m counts in four steps an
 * octave, those that a builder tries: engines have the kernels of those alone. */
static uint32_t width_of(const struct ew_cuda_chip *c, size_t m, size_t n, size_t k)
{
    /* 192 fits too, and takes half as long again as it should (perf-log) */
    static const uint32_t widths[] = { 176, 160, 128, 96, 64 };
    const size_t steps = tiles_of(k, 64);
    size_t least = SIZE_MAX, step = 1;
    uint32_t best = 0;

    while (step * 8 <= m)
        step *= 2;
    m = (m + step - 1) / step * step;
    for (size_t i = 0; i < sizeof(widths) / sizeof(*widths); i++) {
        const size_t w = widths[i], read = (ROWS / SHARE + w) * 128 / L2_BYTES;
        const size_t tiles = tiles_of(m, ROWS) * tiles_n_of(n, w) / SHARE;
        const size_t turns = tiles_of(tiles, clusters(c));
        const size_t cost = turns * (steps * (8 * w > read ? 8 * w : read) + 2000 + 20 * w);

        if (cost < least) {
            least = cost;
            best = widths[i];
        }
    }
    return best;
}

struct ew_cuda_launch ew_cuda_linear_wide(const struct ew_cuda_chip *c,
                                          const struct ew_cuda_linear_problem *p,
                                          const struct ew_cuda_linear_args *a, bool f16, bool fresh)
{
    const uint32_t width = width_of(c, p->m, p->n, p->k);
    const uint32_t lines = p->glu && p->y_short == EW_DTYPE_BF16 ? 8 * 16 * (width + 16) : 0;
    const uint32_t stage = (ROWS + width) * 128;
    uint32_t stages = (c->shared_per_block - BARRIERS - lines) / stage;
    struct ew_cuda_linear_map_args args = { .a = *a };
    struct ew_cuda_launch l = { .spec = { .source = "linear_wide", .entry = "ew_linear_wide" },
                                .grid = { 1, 1, 1 },
                                .block = { 384, 1, 1 },
                                .cluster = SHARE,
                                .early_start = true,
                                .n_maps = 2,
                                .arg_bytes = sizeof(args) };
    size_t tiles;

    stages = stages > 8 ? 8 : stages;
    args.a.tiles_m = (uint32_t)tiles_of(p->m, ROWS);
    args.a.tiles_n = (uint32_t)tiles_n_of(p->n, width);
    tiles = (size_t)args.a.tiles_m * args.a.tiles_n / SHARE;
    l.grid[0] = SHARE * (uint32_t)tiles_of(tiles, tiles_of(tiles, clusters(c)));
    l.shared_bytes = stages * stage + BARRIERS + lines;
    l.maps[0] = (struct ew_cuda_tensor_map){ .address = a->prepared,
                                             .cols = p->k,
                                             .rows = p->m,
                                             .row_bytes = a->prepared_stride * 2,
                                             .box_cols = 64,
                                             .box_rows = ROWS / SHARE,
                                             .swizzle_bytes = 128,
                                             .is_f16 = f16,
                                             .arg_offset = 0 };
    l.maps[1] = (struct ew_cuda_tensor_map){ .address = p->w,
                                             .cols = p->k,
                                             .rows = p->n,
                                             .row_bytes = (p->k * 2 + 15) / 16 * 16,
                                             .box_cols = 64,
                                             .box_rows = width,
                                             .pair_rows = p->glu ? p->n / 2 : 0,
                                             .swizzle_bytes = 128,
                                             .is_f16 = f16,
                                             .arg_offset = 128 };
    memcpy(l.args, &args, sizeof(args));
    ew_cuda_linear_define(&l, p, "-DEW_F16=%d -DEW_N=%u -DEW_STAGES=%u -DEW_SHARE=%u -DEW_FRESH=%d",
                          f16, width, stages, SHARE, fresh);
    return l;
}

/* ---- dense ---- */

#define DENSE_BYTES_MAX ((size_t)512 << 20)

/* A row of the weights as bf16: as in the plain layout. */
static size_t row_elems(size_t k)
{
    return (k + 7) / 8 * 8;
}

static size_t dense_bytes(size_t n, size_t k)
{
    return (n * row_elems(k) * 2 + 255) / 256 * 256;
}

/* Gate and up rows come in one box of panels of 8 and 8. */
static bool takes_dense(const struct ew_quant_format *f, size_t n, size_t k, bool glu)
{
    (void)f;
    return (!glu || n % 16 == 0) && n <= DENSE_BYTES_MAX / 2 / row_elems(k);
}

static size_t workspace_dense(const struct ew_cuda_chip *c, const struct ew_cuda_linear_problem *p)
{
    (void)c;
    return dense_bytes(p->n, p->k) + (p->prepared ? 0 : p->m * row_elems(p->k) * 2);
}

static size_t plan_dense(const struct ew_cuda_chip *c, const struct ew_cuda_linear_problem *p,
                         struct ew_cuda_launch *out)
{
    struct ew_cuda_linear_problem d = *p; /* the product of bf16 weights that is left */
    struct ew_cuda_linear_args a = ew_cuda_linear_args_of(p);
    struct ew_cuda_launch *l = out;
    char format[96];

    if (p->m == 0 || p->n == 0)
        return 0;
    a.y = p->workspace;
    a.y_stride = row_elems(p->k);
    *l = ew_cuda_linear_launch("linear_unpack", "ew_linear_unpack", &a);
    l->grid[0] = ew_cuda_div_up(a.n_out, p->glu ? 8 : 16);
    l->block[0] = 256;
    ew_cuda_quant_defines(&p->format, p->k, format, sizeof(format));
    (void)snprintf(l->spec.defines, sizeof(l->spec.defines), "%s -DEW_GLU=%d", format, p->glu);
    l++;
    memset(&d.format, 0, sizeof(d.format));
    d.w = p->workspace;
    d.workspace = p->workspace + dense_bytes(p->n, p->k);
    a = ew_cuda_linear_args_of(&d);
    if (!p->prepared)
        *l++ = ew_cuda_linear_prepare(&d, false, &a);
    *l++ = ew_cuda_linear_wide(c, &d, &a, false, true);
    return (size_t)(l - out);
}

#define DENSE(suffix)                                                                              \
    extern const struct ew_cuda_linear_kernel ew_cuda_dense_##suffix;                              \
    const struct ew_cuda_linear_kernel ew_cuda_dense_##suffix = {                                  \
        .name = "dense_" #suffix,                                                                  \
        .layout = &ew_cuda_layout_##suffix,                                                        \
        .sm_min = 90,                                                                              \
        .sm_max = 90,                                                                              \
        .min_rows = EW_WIDE_ROWS + 1,                                                              \
        .max_rows = SIZE_MAX,                                                                      \
        .x_error = EW_X_ERROR_BF16,                                                                \
        .w_error = 0x1p-8f,                                                                        \
        .takes_prepared = true,                                                                    \
        .takes_norm = true,                                                                        \
        .puts_short = true,                                                                        \
        .takes = takes_dense,                                                                      \
        .workspace_bytes = workspace_dense,                                                        \
        .plan = plan_dense,                                                                        \
    };

DENSE(q4)
DENSE(q8)

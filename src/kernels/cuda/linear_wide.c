/* kernels/cuda/linear_wide.c - the plan of linear_wide.cu: how wide tiles are. */
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
    const uint32_t lines = p->glu && p->y_short ? 8 * 16 * (width + 16) : 0;
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

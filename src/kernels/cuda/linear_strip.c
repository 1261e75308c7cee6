/* kernels/cuda/linear_strip.c - plans of linear_strip.cu: a launch that rounds x (strip, unless it
 * comes rounded; strip16 rounds on its way) and the product. How many rows of W a block has and how
 * many blocks share its columns follows from n, k, the format and the chip alone, so that bits do
 * not depend on m. */
#include <string.h>

#include "kernels/cuda/linear_plan.h"

#define STAGE 128u /* columns */

struct tiling {
    uint32_t groups, cluster, strips;
};

/* Nanoseconds, measured on an H200: what a multiprocessor takes to read a byte, what its tensor
 * cores and what prepares their operands take for 64 quantised rows by 128 columns, what a
 * warpgroup takes for that when it is alone, and what a turn and adding up over a cluster cost.
 * Ratios are what matters. */
#define BYTE        0.028
#define QUANT       210.0
#define ALONE_PLAIN 150.0
#define ALONE_QUANT 340.0
#define JOIN        200.0 /* a block */
#define TURN        300.0

/* Blocks of clusters of `size` that run at once. Clusters stay within a group of multiprocessors
 * and leave out what is left of one: of an H200's 132, 120 run clusters of 4 or 8, 110 those of 5,
 * 96 those of 6; 120 are too many for clusters of 3 or 6, which then take two turns. */
static uint32_t at_once(const struct ew_cuda_chip *c, uint32_t size)
{
    return size <= 2   ? c->n_sm
           : size == 5 ? c->n_sm * 5 / 6
           : size == 6 ? c->n_sm * 8 / 11
                       : c->n_sm * 10 / 11;
}

/* The sharing that is done first. */
static struct tiling tiling_of(const struct ew_cuda_chip *c, const struct ew_cuda_linear_problem *p,
                               bool many)
{
    static const uint8_t clusters[] = { 1, 2, 4, 5, 6, 8 };
    const bool quant = ew_quant_is(&p->format);
    const double size = quant ? ew_quant_code_bits(p->format.code) / 8.0 : 2.0;
    const double bytes = 64.0 * (double)STAGE * size * BYTE;
    const double work = quant && bytes < QUANT ? QUANT : bytes;
    const double alone = !quant ? ALONE_PLAIN : many ? 2 * ALONE_QUANT : ALONE_QUANT;
    const size_t wgs = ew_cuda_div_up(p->glu ? p->n / 2 : p->n, p->glu ? 32 : 64),
                 stages = ew_cuda_div_up(p->k, STAGE);
    struct tiling best = { 1, 1, (uint32_t)wgs };
    double soonest = 1e30;

    for (uint32_t g = 1; g <= 3; g++)
        for (size_t i = 0; i < sizeof(clusters); i++) {
            const uint32_t share = clusters[i], strips = ew_cuda_div_up(wgs, g);
            const double turns = ew_cuda_div_up((size_t)strips * share, at_once(c, share));
            const double stage = g * work > alone ? g * work : alone;
            const double t = turns * (ew_cuda_div_up(stages, share) * stage + TURN) +
                             (share > 1 ? JOIN * share : 0.0);

            if (t < soonest && (share == 1 || stages / share >= 2)) {
                soonest = t;
                best = (struct tiling){ g, share, strips };
            }
        }
    return best;
}

/* Bytes of a warp's part of a slot of weights: as in the source. */
static uint32_t slot_bytes(const struct ew_quant_format *f, size_t k)
{
    const uint32_t cols = STAGE;

    if (!ew_quant_is(f))
        return 16 * STAGE * 2;

    const struct ew_cuda_panel l = ew_cuda_panel_of(f, k);
    const bool grouped = ew_quant_groups(f, k) > 1;
    const uint32_t unit = l.sub > 1 ? (uint32_t)l.block_cols : grouped ? f->group : cols;
    const uint32_t scale = grouped && f->scale != EW_DTYPE_NONE
                               ? 2 * (uint32_t)l.sub * (ew_dtype_bits(f->scale) / 8)
                               : 0;
    const uint32_t zero = f->zero ? 2 * (uint32_t)l.sub * (l.block_cols == 32 ? 2u : 1u) : 0;
    const uint32_t copied = (scale == 2 ? 4 : scale) + (zero == 2 ? 4 : zero);

    return cols / (uint32_t)l.block_cols * 512 + (unit < cols ? cols / unit : 1) * 32 * copied;
}

static size_t workspace_bytes(const struct ew_cuda_chip *c, const struct ew_cuda_linear_problem *p)
{
    (void)c;
    return p->prepared ? 0 : p->m * ((p->k + 7) & ~(size_t)7) * 2;
}

static size_t no_workspace(const struct ew_cuda_chip *c, const struct ew_cuda_linear_problem *p)
{
    (void)c;
    (void)p;
    return 0;
}

static size_t plan(const struct ew_cuda_chip *c, const struct ew_cuda_linear_problem *p, bool round,
                   bool f16, struct ew_cuda_launch *out)
{
    const bool quant = ew_quant_is(&p->format);
    const struct tiling t = tiling_of(c, p, !round);
    const uint32_t n = p->m <= 8 && round ? 8 : p->m <= 16 ? 16 : p->m <= 32 ? 32 : 64;
    const uint32_t stages = ew_cuda_div_up(ew_cuda_div_up(p->k, STAGE), t.cluster);
    const uint32_t ahead = stages < 4 && t.strips <= c->n_sm ? stages : 4;
    const uint32_t x_stages = round ? 4 : n <= 16 ? 8 : n == 32 ? 6 : 4, warps = t.groups * 4;
    const uint32_t slot = slot_bytes(&p->format, p->k);
    const uint32_t tiles = n >= 32 && t.cluster == 1 ? warps * 32 * 20 * 4 : 0;
    const uint32_t room = c->shared_per_block - 1024 - tiles - x_stages * n * STAGE * 2;
    uint32_t slots = (quant && room > 128u << 10 ? 128u << 10 : room) / (warps * slot);
    struct ew_cuda_linear_map_args args = { .a = ew_cuda_linear_args_of(p) };
    struct ew_cuda_launch *l = out;
    char format[96] = "-DEW_CODE=0";

    if (p->m == 0 || p->n == 0)
        return 0;
    slots = slots > 16 ? 16 : slots;
    if (!quant && slots > stages)
        slots = stages;
    if (!round && !p->prepared)
        *l++ = ew_cuda_linear_prepare(p, f16, &args.a);
    args.a.tiles_n = t.strips;
    *l = (struct ew_cuda_launch){ .spec = { .source = "linear_strip", .entry = "ew_linear_strip" },
                                  .grid = { t.strips * t.cluster, 1, 1 },
                                  .block = { warps * 32 + 128 + (round && !quant ? 32 : 0), 1, 1 },
                                  .cluster = t.cluster > 1 ? t.cluster : 0,
                                  .shared_bytes =
                                      x_stages * n * STAGE * 2 + slots * warps * slot + 512 + tiles,
                                  .early_start = true,
                                  .n_maps = (round ? 0 : 1) + (quant ? 0 : 1),
                                  .arg_bytes = sizeof(args) };
    struct ew_cuda_tensor_map *map = l->maps;

    if (t.cluster == 1 && t.strips > c->n_sm)
        l->grid[0] = ew_cuda_div_up(t.strips, ew_cuda_div_up(t.strips, c->n_sm));
    if (!round)
        *map++ = (struct ew_cuda_tensor_map){ .address = args.a.prepared,
                                              .cols = p->k,
                                              .rows = p->m,
                                              .row_bytes = args.a.prepared_stride * 2,
                                              .box_cols = 64,
                                              .box_rows = n,
                                              .swizzle_bytes = 128,
                                              .is_f16 = f16,
                                              .arg_offset = 0 };
    if (!quant)
        *map = (struct ew_cuda_tensor_map){ .address = p->w,
                                            .cols = p->k,
                                            .rows = p->n,
                                            .row_bytes = (p->k * 2 + 15) & ~(size_t)15,
                                            .box_cols = 64,
                                            .box_rows = t.groups * 64,
                                            .pair_rows = p->glu ? p->n / 2 : 0,
                                            .swizzle_bytes = 128,
                                            .is_f16 = f16,
                                            .arg_offset = 128 };
    memcpy(l->args, &args, sizeof(args));
    if (quant)
        ew_cuda_quant_defines(&p->format, p->k, format, sizeof(format));
    ew_cuda_linear_define(l, p,
                          "%s -DEW_N=%u -DEW_GROUPS=%u -DEW_SLOTS=%u -DEW_X_STAGES=%u "
                          "-DEW_CLUSTER=%u -DEW_AHEAD=%u -DEW_ROUND=%d -DEW_NORM=%d -DEW_F16=%d",
                          format, n, t.groups, slots, x_stages, t.cluster, round ? ahead : 0, round,
                          round && p->norm_weight != 0, f16);
    return (size_t)(l - out) + 1;
}

static bool takes(const struct ew_quant_format *f, size_t n, size_t k, bool glu)
{
    if (!ew_quant_is(f))
        return !glu || n % 16 == 0; /* gate and up rows come in boxes of 8 and 8 */
    return ew_quant_groups(f, k) == 1 || f->group < STAGE || f->group % STAGE == 0;
}

/* Rounds x on its way, by fours. */
static bool takes_16(const struct ew_quant_format *f, size_t n, size_t k, bool glu)
{
    return k % 4 == 0 && takes(f, n, k, glu);
}

#define STRIP(suffix, f16, error)                                                                  \
    static size_t plan_16_##suffix(const struct ew_cuda_chip *c,                                   \
                                   const struct ew_cuda_linear_problem *p,                         \
                                   struct ew_cuda_launch *out)                                     \
    {                                                                                              \
        return plan(c, p, true, f16, out);                                                         \
    }                                                                                              \
    static size_t plan_##suffix(const struct ew_cuda_chip *c,                                      \
                                const struct ew_cuda_linear_problem *p,                            \
                                struct ew_cuda_launch *out)                                        \
    {                                                                                              \
        return plan(c, p, false, f16, out);                                                        \
    }                                                                                              \
    extern const struct ew_cuda_linear_kernel ew_cuda_strip_##suffix, ew_cuda_strip16_##suffix;    \
    const struct ew_cuda_linear_kernel ew_cuda_strip16_##suffix = {                                \
        .name = "strip16_" #suffix,                                                                \
        .layout = &ew_cuda_layout_##suffix,                                                        \
        .sm_min = 90,                                                                              \
        .sm_max = 90,                                                                              \
        .max_rows = 16,                                                                            \
        .x_error = error,                                                                          \
        .takes_norm = true,                                                                        \
        .puts_short = true,                                                                        \
        .takes = takes_16,                                                                         \
        .workspace_bytes = no_workspace,                                                           \
        .plan = plan_16_##suffix,                                                                  \
    };                                                                                             \
    const struct ew_cuda_linear_kernel ew_cuda_strip_##suffix = {                                  \
        .name = "strip_" #suffix,                                                                  \
        .layout = &ew_cuda_layout_##suffix,                                                        \
        .sm_min = 90,                                                                              \
        .sm_max = 90,                                                                              \
        .max_rows = 64,                                                                            \
        .x_error = error,                                                                          \
        .takes_prepared = true,                                                                    \
        .takes_norm = true,                                                                        \
        .puts_short = true,                                                                        \
        .takes = takes,                                                                            \
        .workspace_bytes = workspace_bytes,                                                        \
        .plan = plan_##suffix,                                                                     \
    };

STRIP(bf16, false, EW_X_ERROR_BF16)
STRIP(f16, true, EW_X_ERROR_F16)
STRIP(q4, false, EW_X_ERROR_BF16)
STRIP(q8, false, EW_X_ERROR_BF16)

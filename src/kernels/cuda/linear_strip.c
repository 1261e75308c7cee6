/* kernels/cuda/linear_strip.c - plans of linear_strip.cu: a launch that rounds x (strip, unless it
 * comes rounded; strip16 rounds on its way) and the product. How many rows of W a block has and how
 * many blocks share its columns follows from n, k, the format and the chip alone, so that bits do
 * not depend on m. */
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "kernels/cuda/linear_plan.h"

#define STAGE 128u /* columns */

/* x is rounded by the product on its way; by a launch before; made digits by one. */
enum way { ROUNDS, ROUNDED, DIGITS };

struct tiling {
    uint32_t groups, cluster, strips;
};

/* Nanoseconds, measured on an H200: what a multiprocessor takes to read a byte, what its tensor
 * cores and what prepares their operands take for 64 quantised rows by 128 columns, what a
 * warpgroup takes for that when it is alone, and what a turn and adding up over a cluster cost.
 * Ratios are what matters. */
#define BYTE        0.028
#define QUANT       210.0
#define DIGIT       130.0
#define ALONE_PLAIN 150.0
#define ALONE_QUANT 340.0
#define ALONE_DIGIT 260.0
#define JOIN        200.0 /* a block */
#define TURN        300.0

/* Blocks of clusters of `size` that run at once. Clusters stay within a group of multiprocessors
 * and leave out what is left of one: of an H200's 132, 120 run clusters of 4 or 8, 110 those of 5,
 * 96 those of 3 or 6; 120 are too many for these, which then take two turns. */
static uint32_t at_once(const struct ew_cuda_chip *c, uint32_t size)
{
    return size <= 2       ? c->n_sm
           : size == 5     ? c->n_sm * 5 / 6
           : size % 3 == 0 ? c->n_sm * 8 / 11
                           : c->n_sm * 10 / 11;
}

/* The sharing that is done first. */
static struct tiling tiling_of(const struct ew_cuda_chip *c, const struct ew_cuda_linear_problem *p,
                               enum way way)
{
    static const uint8_t clusters[] = { 1, 2, 3, 4, 5, 6, 8 };
    const bool quant = ew_quant_is(&p->format);
    const double size = quant ? ew_quant_code_bits(p->format.code) / 8.0 : 2.0;
    const double bytes = 64.0 * (double)STAGE * size * BYTE;
    const double least = way == DIGITS ? DIGIT : quant ? QUANT : 0.0;
    const double work = bytes < least ? least : bytes;
    const double alone = !quant           ? ALONE_PLAIN
                         : way == ROUNDED ? 2 * ALONE_QUANT
                         : way == DIGITS  ? ALONE_DIGIT
                                          : ALONE_QUANT;
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

/* Digits, two rows a row, and their scales. */
static size_t digits_workspace(const struct ew_cuda_chip *c, const struct ew_cuda_linear_problem *p)
{
    const size_t rows = (p->m + 7) & ~(size_t)7, stages = ew_cuda_div_up(p->k, STAGE);

    (void)c;
    return rows * stages * (2 * STAGE + sizeof(float));
}

static struct ew_cuda_launch prepare_digits(const struct ew_cuda_linear_problem *p,
                                            struct ew_cuda_linear_args *a)
{
    const uint32_t stages = ew_cuda_div_up(p->k, STAGE);
    struct ew_cuda_launch l;

    a->prepared = p->workspace;
    a->prepared_stride = stages * (STAGE / 2); /* of two bytes */
    l = ew_cuda_linear_launch("linear_prepare_digits", "ew_linear_prepare_digits", a);
    l.grid[0] = (uint32_t)(p->m + 7) & ~7u;
    l.grid[1] = p->norm_weight ? 1 : ew_cuda_div_up(stages, 16);
    l.block[0] = 512;
    (void)snprintf(l.spec.defines, sizeof(l.spec.defines), "-DEW_NORM=%d", p->norm_weight != 0);
    return l;
}

static size_t no_workspace(const struct ew_cuda_chip *c, const struct ew_cuda_linear_problem *p)
{
    (void)c;
    (void)p;
    return 0;
}

/* A lane asks for so many pieces in a time that nobody waits for. */
#define PIECES 16u

/* The first columns of every panel for every block of the clusters, a quarter of the L2 cache in
 * all. */
static struct ew_cuda_ahead reads_first(const struct ew_cuda_chip *c,
                                        const struct ew_cuda_linear_problem *p,
                                        const struct tiling *t)
{
    const struct ew_cuda_panel l = ew_cuda_panel_of(&p->format, p->k);
    const uint32_t panels = ew_cuda_div_up(p->n, 16), stages = ew_cuda_div_up(p->k, STAGE);
    const uint32_t unit = ew_quant_groups(&p->format, p->k) > 1 && p->format.group > STAGE
                              ? p->format.group / STAGE
                              : 1;
    const uint32_t range = ew_cuda_div_up(ew_cuda_div_up(stages, unit), t->cluster) * unit;
    const uint32_t part = range * (STAGE / (uint32_t)l.block_cols) * 512;
    const uint32_t parts = ew_cuda_div_up(stages, range);
    const size_t pieces = (size_t)panels * parts, most = c->l2_bytes / 4 / pieces / 512 * 512;
    const size_t last = l.k_blocks * 512 - (size_t)(parts - 1) * part;
    const size_t bytes = part < most ? part : most;

    if (pieces > (size_t)PIECES * c->n_sm)
        return (struct ew_cuda_ahead){ 0 };
    return (struct ew_cuda_ahead){ .w = p->w,
                                   .pitch = l.bytes,
                                   .part_pitch = part,
                                   .rows = panels,
                                   .parts = parts,
                                   .bytes = (uint32_t)(bytes < last ? bytes : last) };
}

static struct ew_cuda_tensor_map map_of_x(const struct ew_cuda_linear_problem *p,
                                          const struct ew_cuda_linear_args *a, enum way way,
                                          bool f16, uint32_t rows)
{
    return (struct ew_cuda_tensor_map){
        .address = a->prepared,
        .cols = way == DIGITS ? a->prepared_stride : p->k,
        .rows = way == DIGITS ? ((p->m + 7) & ~(size_t)7) * 2 : p->m,
        .row_bytes = a->prepared_stride * 2,
        .box_cols = 64,
        .box_rows = rows,
        .swizzle_bytes = 128,
        .is_f16 = f16,
        .arg_offset = 0,
    };
}

static size_t plan(const struct ew_cuda_chip *c, const struct ew_cuda_linear_problem *p,
                   enum way way, bool f16, struct ew_cuda_launch *out)
{
    const bool quant = ew_quant_is(&p->format), round = way == ROUNDS;
    const struct tiling t = tiling_of(c, p, way);
    const uint32_t n = p->m <= 8 && (round || way == DIGITS) ? 8
                       : p->m <= 16                          ? 16
                       : p->m <= 32                          ? 32
                                                             : 64;
    const uint32_t x_rows = way == DIGITS ? 2 * n : n, x_cols = way == DIGITS ? 64 : 128;
    const uint32_t stages = ew_cuda_div_up(ew_cuda_div_up(p->k, STAGE), t.cluster);
    const uint32_t ahead = stages < 4 && t.strips <= c->n_sm ? stages : 4;
    const uint32_t x_stages = round ? 4 : way == DIGITS || n <= 16 ? 8 : n == 32 ? 6 : 4;
    const uint32_t warps = t.groups * 4, slot = slot_bytes(&p->format, p->k);
    const uint32_t tiles = n >= 32 && t.cluster == 1 ? warps * 32 * 20 * 4 : 0;
    const bool many = t.cluster == 1 && t.strips > c->n_sm; /* strips a block */
    const uint32_t fixed =
        512 + (way == DIGITS ? x_stages * n * 4 : 0) + (quant && !many ? warps * 64 : 0);
    const uint32_t x_bytes = x_stages * x_rows * x_cols * 2;
    const uint32_t room = c->shared_per_block - 512 - fixed - tiles - x_bytes;
    uint32_t slots = (quant && room > 128u << 10 ? 128u << 10 : room) / (warps * slot);
    struct ew_cuda_linear_map_args args = { .a = ew_cuda_linear_args_of(p) };
    struct ew_cuda_launch *l = out;
    char format[96] = "-DEW_CODE=0";

    if (p->m == 0 || p->n == 0)
        return 0;
    slots = slots > 16 ? 16 : slots;
    if (!quant && slots > stages)
        slots = stages;
    if (way == DIGITS)
        *l++ = prepare_digits(p, &args.a);
    else if (!round && !p->prepared)
        *l++ = ew_cuda_linear_prepare(p, f16, &args.a);
    args.a.tiles_n = t.strips;
    *l = (struct ew_cuda_launch){ .spec = { .source = "linear_strip", .entry = "ew_linear_strip" },
                                  .grid = { t.strips * t.cluster, 1, 1 },
                                  .block = { warps * 32 + 128 + (round && !quant ? 32 : 0), 1, 1 },
                                  .cluster = t.cluster > 1 ? t.cluster : 0,
                                  .shared_bytes = x_bytes + slots * warps * slot + fixed + tiles,
                                  .early_start = true,
                                  .n_maps = (round ? 0 : 1) + (quant ? 0 : 1),
                                  .arg_bytes = sizeof(args) };
    struct ew_cuda_tensor_map *map = l->maps;

    if (many)
        l->grid[0] = ew_cuda_div_up(t.strips, ew_cuda_div_up(t.strips, c->n_sm));
    if (!round)
        *map++ = map_of_x(p, &args.a, way, f16, x_rows);
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
    if (quant)
        l->reads = reads_first(c, p, &t);
    l->ahead_at = (uint32_t)offsetof(struct ew_cuda_linear_map_args, ahead);
    memcpy(l->args, &args, sizeof(args));
    if (quant)
        ew_cuda_quant_defines(&p->format, p->k, format, sizeof(format));
    ew_cuda_linear_define(l, p,
                          "%s -DEW_N=%u -DEW_GROUPS=%u -DEW_SLOTS=%u -DEW_X_STAGES=%u "
                          "-DEW_CLUSTER=%u -DEW_AHEAD=%u -DEW_ROUND=%d -DEW_NORM=%d -DEW_F16=%d "
                          "-DEW_DIGITS=%d -DEW_MANY=%d",
                          format, n, t.groups, slots, x_stages, t.cluster, round ? ahead : 0, round,
                          round && p->norm_weight != 0, f16, way == DIGITS, many);
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
        return plan(c, p, ROUNDS, f16, out);                                                       \
    }                                                                                              \
    static size_t plan_##suffix(const struct ew_cuda_chip *c,                                      \
                                const struct ew_cuda_linear_problem *p,                            \
                                struct ew_cuda_launch *out)                                        \
    {                                                                                              \
        return plan(c, p, ROUNDED, f16, out);                                                      \
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

/* Codes with a sign that fill half of a byte, whole stages of a scale. */
static bool takes_digits(const struct ew_quant_format *f, size_t n, size_t k, bool glu)
{
    return f->code == EW_DTYPE_I4 && !f->zero && takes(f, n, k, glu) &&
           (ew_quant_groups(f, k) == 1 || f->group % STAGE == 0);
}

static size_t plan_digits(const struct ew_cuda_chip *c, const struct ew_cuda_linear_problem *p,
                          struct ew_cuda_launch *out)
{
    return plan(c, p, DIGITS, false, out);
}

extern const struct ew_cuda_linear_kernel ew_cuda_stripd_q4;
const struct ew_cuda_linear_kernel ew_cuda_stripd_q4 = {
    .name = "stripd_q4",
    .layout = &ew_cuda_layout_q4,
    .sm_min = 90,
    .sm_max = 90,
    .max_rows = 32,
    .x_error = 0x1p-14f,
    .takes_norm = true,
    .puts_short = true,
    .prepares = true,
    .takes = takes_digits,
    .workspace_bytes = digits_workspace,
    .plan = plan_digits,
};

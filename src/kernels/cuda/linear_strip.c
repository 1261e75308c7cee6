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

/* Nanoseconds, measured on an H200: what a multiprocessor takes to read one byte, what the tensor
 * cores take for 64 rows by 128 columns by 64 rows of x, what a warpgroup takes for 128 columns
 * when it is alone, and what adding up over a cluster costs. Ratios are what matters. */
#define BYTE    0.028
#define PRODUCT 200.0
#define ALONE   400.0
#define JOIN    800.0
#define TURN    300.0

static double least(double a, double b)
{
    return a > b ? a : b;
}

unsigned ew_strip_g, ew_strip_c; /* DEVHACK */
/* The sharing that is done first. */
static struct tiling tiling_of(const struct ew_cuda_chip *c, const struct ew_cuda_linear_problem *p,
                               bool many)
{
    const double size = !ew_quant_is(&p->format) ? 2.0 : ew_quant_code_bits(p->format.code) / 8.0;
    const size_t n_out = p->glu ? p->n / 2 : p->n;
    const size_t wgs = ew_cuda_div_up(n_out, p->glu ? 32 : 64),
                 stages = ew_cuda_div_up(p->k, STAGE);
    const double bytes = 64.0 * (double)STAGE * size * BYTE;
    struct tiling best = { 1, 1, 0 };
    double soonest = 1e30;

    for (uint32_t g = 1; g <= 3; g++)
        for (uint32_t s = 1; s <= 8 && (s == 1 || stages / s >= 2); s *= 2) {
            const size_t strips = ew_cuda_div_up(wgs, g);
            /* clusters of 4 and 8 leave out what is left of a group of multiprocessors */
            const double turns = ew_cuda_div_up(strips * s, s > 2 ? c->n_sm * 10 / 11 : c->n_sm);
            const double work = g * (ew_quant_is(&p->format) && PRODUCT > bytes ? PRODUCT : bytes);
            const double t =
                turns * (ew_cuda_div_up(stages, s) *
                             least(work, ew_quant_is(&p->format) ? many ? 2 * ALONE : ALONE : 150) +
                         TURN) +
                (s > 1 ? JOIN : 0.0);

            if (ew_strip_g ? g == ew_strip_g && s == ew_strip_c : t < soonest) {
                soonest = t;
                best = (struct tiling){ g, s, (uint32_t)strips };
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
    const uint32_t x_stages = n <= 16 ? 8 : n == 32 ? 6 : 4, warps = t.groups * 4;
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
    if (!quant && slots > ew_cuda_div_up(ew_cuda_div_up(p->k, STAGE), t.cluster))
        slots = ew_cuda_div_up(ew_cuda_div_up(p->k, STAGE), t.cluster);
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
                          "-DEW_CLUSTER=%u -DEW_ROUND=%d -DEW_NORM=%d -DEW_F16=%d",
                          format, n, t.groups, slots, x_stages, t.cluster, round,
                          round && p->norm_weight != 0, f16);
    return (size_t)(l - out) + 1;
}

static bool takes(const struct ew_quant_format *f, size_t n, size_t k, bool glu)
{
    if (!ew_quant_is(f))
        return !glu || n % 16 == 0; /* gate and up rows come in boxes of 8 and 8 */
    return ew_quant_groups(f, k) == 1 || f->group < STAGE || f->group % STAGE == 0;
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
        .takes = takes,                                                                            \
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
        .takes = takes,                                                                            \
        .workspace_bytes = workspace_bytes,                                                        \
        .plan = plan_##suffix,                                                                     \
    };

STRIP(bf16, false, EW_X_ERROR_BF16)
STRIP(f16, true, EW_X_ERROR_F16)
STRIP(q4, false, EW_X_ERROR_BF16)
STRIP(q8, false, EW_X_ERROR_BF16)

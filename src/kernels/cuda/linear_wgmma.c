/* kernels/cuda/linear_wgmma.c - plans of linear_wgmma.cu (and linear_wide.cu): a launch that rounds
 * x (unless it comes rounded) and the product. How many blocks share a tile's columns follows from
 * n, k, the chip and the class of m (up to 64 rows, up to 256, more), so that bits are the same
 * within a class. */
#include <string.h>

#include "kernels/cuda/linear_plan.h"

#define ROWS   128u
#define PANELS (ROWS / 16)
/* Beside the ring: barriers, and buffers of the epilogue (linear_tile.cuh). */
#define BARRIERS 128u
#define BUFFERS  (8u * 32 * 20 * 4)

struct tiling {
    uint32_t n, stages, stage_cols, stage_bytes, cluster, blocks;
    uint32_t tiles_m, tiles_n;
};

static size_t round_up(size_t v, size_t to)
{
    return (v + to - 1) / to * to;
}

/* Bytes of a stage: as in the source. */
static size_t stage_bytes(const struct ew_quant_format *f, size_t k, const struct tiling *t)
{
    const size_t subs = t->stage_cols / 64, x = subs * t->n * 128;

    if (!ew_quant_is(f))
        return x + subs * ROWS * 128;

    const struct ew_cuda_panel l = ew_cuda_panel_of(f, k);
    const bool grouped = ew_quant_groups(f, k) > 1, wide = l.block_cols == 32;
    const size_t scale =
        grouped && f->scale != EW_DTYPE_NONE ? 2 * l.sub * (ew_dtype_bits(f->scale) / 8) : 0;
    const size_t zero = f->zero ? 2 * l.sub * (wide ? 2 : 1) : 0;
    const size_t slot = 512 + 32 * ((scale > 2 ? scale : 0) + (zero > 2 ? zero : 0));

    return round_up(x + PANELS * (t->stage_cols / l.block_cols) * slot, 1024);
}

/* Rows of x of a tile for more than 128: the widest that leaves the fewest multiprocessors idle in
 * the last turn. */
static uint32_t wide_tile(const struct ew_cuda_chip *c, size_t m, size_t tiles_n)
{
    uint32_t best = 256;
    size_t least = SIZE_MAX;

    for (uint32_t n = 256; n >= 128; n -= 64) {
        const size_t turns = ew_cuda_div_up(ew_cuda_div_up(m, n) * tiles_n, c->n_sm);

        if (turns * (n + 24) < least) {
            least = turns * (n + 24);
            best = n;
        }
    }
    return best;
}

static struct tiling tiling_of(const struct ew_cuda_chip *c, const struct ew_cuda_linear_problem *p)
{
    const bool quant = ew_quant_is(&p->format);
    const size_t n_out = p->glu ? p->n / 2 : p->n;
    struct tiling t = { .stage_cols = quant ? 128 : 64,
                        .blocks = p->m <= (quant ? 32 : 64) ? 2 : 1 };
    size_t room = t.blocks == 2 ? 112u << 10 : 224u << 10;

    t.tiles_n = ew_cuda_div_up(n_out, p->glu ? ROWS / 2 : ROWS);
    t.n = p->m <= 16             ? 16
          : p->m <= 32           ? 32
          : p->m <= 64           ? 64
          : p->m <= 128 || quant ? 128
                                 : wide_tile(c, p->m, t.tiles_n);
    t.tiles_m = ew_cuda_div_up(p->m, t.n);
    t.cluster = p->m <= 64 ? ew_cuda_linear_splits(c, t.tiles_n, p->k)
                : p->m <= EW_WIDE_ROWS
                    ? ew_cuda_linear_splits(c, (size_t)t.tiles_n * (256 / t.n), p->k)
                    : 1;
    t.stage_bytes = (uint32_t)stage_bytes(&p->format, p->k, &t);
    room -= BARRIERS + (t.cluster == 1 && t.n >= 32 ? BUFFERS : 0);
    t.stages = (uint32_t)(room / t.stage_bytes);
    if (t.stages > 8)
        t.stages = 8;
    return t;
}

static size_t prepared_stride(const struct ew_cuda_linear_problem *p)
{
    return round_up(p->k, 8);
}

static size_t workspace_bytes(const struct ew_cuda_chip *c, const struct ew_cuda_linear_problem *p)
{
    (void)c;
    return p->prepared ? 0 : p->m * prepared_stride(p) * 2;
}

static size_t plan(const struct ew_cuda_chip *c, const struct ew_cuda_linear_problem *p, bool f16,
                   struct ew_cuda_launch *out)
{
    const bool quant = ew_quant_is(&p->format);
    const struct tiling t = tiling_of(c, p);
    struct ew_cuda_linear_map_args args = { .a = ew_cuda_linear_args_of(p) };
    const size_t n_out = p->glu ? p->n / 2 : p->n;
    const uint32_t at_once = c->n_sm * t.blocks;
    const uint32_t tiles = t.tiles_m * t.tiles_n;
    struct ew_cuda_launch *l = out;
    char format[96] = "-DEW_CODE=0";

    if (p->m == 0 || p->n == 0)
        return 0;
    if (!p->prepared)
        *l++ = ew_cuda_linear_prepare(p, f16, &args.a);
    if (!quant && p->m > EW_WIDE_ROWS) {
        *l = ew_cuda_linear_wide(c, p, &args.a, f16, false);
        return (size_t)(l - out) + 1;
    }
    args.a.tiles_m = t.tiles_m;
    args.a.tiles_n = t.tiles_n;
    *l = (struct ew_cuda_launch){ .spec = { .source = "linear_wgmma", .entry = "ew_linear_wgmma" },
                                  .grid = { tiles * t.cluster, 1, 1 },
                                  .block = { t.blocks == 1 ? 384 : 288, 1, 1 },
                                  .cluster = t.cluster > 1 ? t.cluster : 0,
                                  .shared_bytes = t.stages * t.stage_bytes + BARRIERS +
                                                  (t.cluster == 1 && t.n >= 32 ? BUFFERS : 0),
                                  .early_start = true,
                                  .n_maps = quant ? 1 : 2,
                                  .arg_bytes = sizeof(args) };
    if (t.cluster == 1 && tiles > at_once)
        l->grid[0] = ew_cuda_div_up(tiles, ew_cuda_div_up(tiles, at_once));
    l->maps[0] = (struct ew_cuda_tensor_map){ .address = args.a.prepared,
                                              .cols = p->k,
                                              .rows = p->m,
                                              .row_bytes = args.a.prepared_stride * 2,
                                              .box_cols = 64,
                                              .box_rows = t.n,
                                              .swizzle_bytes = 128,
                                              .is_f16 = f16,
                                              .arg_offset = 0 };
    l->maps[1] = (struct ew_cuda_tensor_map){ .address = p->w,
                                              .cols = p->k,
                                              .rows = p->n,
                                              .row_bytes = round_up(p->k * 2, 16),
                                              .box_cols = 64,
                                              .box_rows = ROWS,
                                              .pair_rows = p->glu ? n_out : 0,
                                              .swizzle_bytes = 128,
                                              .is_f16 = f16,
                                              .arg_offset = 128 };
    memcpy(l->args, &args, sizeof(args));
    if (quant)
        ew_cuda_quant_defines(&p->format, p->k, format, sizeof(format));
    ew_cuda_linear_define(
        l, p,
        "%s -DEW_F16=%d -DEW_N=%u -DEW_STAGES=%u -DEW_STAGE_COLS=%u -DEW_CLUSTER=%u "
        "-DEW_MIN_BLOCKS=%u",
        format, f16, t.n, t.stages, t.stage_cols, t.cluster, t.blocks);
    return (size_t)(l - out) + 1;
}

/* Gate and up rows come in one box of panels of 8 and 8. */
static bool takes_plain(const struct ew_quant_format *f, size_t n, size_t k, bool glu)
{
    (void)f;
    (void)k;
    return !glu || n % 16 == 0;
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

#define WGMMA(suffix, planner, takes_what, error)                                                  \
    extern const struct ew_cuda_linear_kernel ew_cuda_wgmma_##suffix;                              \
    const struct ew_cuda_linear_kernel ew_cuda_wgmma_##suffix = {                                  \
        .name = "wgmma_" #suffix,                                                                  \
        .layout = &ew_cuda_layout_##suffix,                                                        \
        .sm_min = 90,                                                                              \
        .sm_max = 90,                                                                              \
        .max_rows = SIZE_MAX,                                                                      \
        .x_error = error,                                                                          \
        .takes_prepared = true,                                                                    \
        .takes_norm = true,                                                                        \
        .puts_short = true,                                                                        \
        .takes = takes_what,                                                                       \
        .workspace_bytes = workspace_bytes,                                                        \
        .plan = planner,                                                                           \
    };

WGMMA(bf16, plan_bf16, takes_plain, EW_X_ERROR_BF16)
WGMMA(f16, plan_f16, takes_plain, EW_X_ERROR_F16)
WGMMA(q4, plan_bf16, NULL, EW_X_ERROR_BF16)
WGMMA(q8, plan_bf16, NULL, EW_X_ERROR_BF16)

/* kernels/cuda/attention_cuda.c - which attention kernels run a KvAttention, with which tiles, and
 * where their working memory lies. */
#include "kernels/cuda/attention_cuda.h"

#include "kernels/cuda/attention_args.cuh"
#include "kernels/cuda/launch.h"
#include "tensor/tensor.h"

#define D_MAX          256
#define SPLIT_WARPS    8
#define SPLIT_TILE     16
#define SPLIT_ROWS_MAX 64 /* more rows of a kv head than this are worth flash attention's tiles */
#define SPLITS_MAX     16
#define FEW_TOKENS     64
#define FEW_TILES      8 /* of 16 rows, where there may be more than FEW_CAP positions */
#define FEW_CAP        1024
#define LOG2E          1.44269504088896340736f

_Static_assert(sizeof(struct ew_cuda_attn_map_args) <= EW_CUDA_ARGS_CAP, "arguments of a launch");

enum way { WAY_SIMPLE, WAY_SPLIT, WAY_FEW, WAY_FLASH, WAY_WGMMA };

struct choice {
    enum way way;
    bool is_fused; /* the kernel prepares its rows itself */
    unsigned kv;   /* EW_KV */
    uint32_t group, row_tiles;
    uint32_t n_split, blocks; /* chunks at most, and blocks that share them */
    uint32_t warps, stages, shared_bytes;
    uint32_t panel, per_sm; /* of attention_few.cu */
};

static int kv_code(ew_dtype t)
{
    switch (t) {
    case EW_DTYPE_F32:
        return 0;
    case EW_DTYPE_F16:
        return 1;
    case EW_DTYPE_BF16:
        return 2;
    case EW_DTYPE_F8E4M3:
        return 3;
    case EW_DTYPE_I8:
        return 4;
    default:
        return -1;
    }
}

/* Bytes from a row of a tile to the next: attn_tile.cuh. */
static uint32_t tile_stride(unsigned kv, size_t d)
{
    static const uint8_t elem[] = { 4, 2, 2, 1, 1 };

    return (uint32_t)(d * elem[kv] + 16);
}

static uint32_t max_u32(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* Chunks follow from the model and the chip; how many blocks share them also from the batch, which
 * changes no result. */
static void split_blocks(struct choice *c, const struct ew_attn_args *a,
                         const struct ew_cuda_chip *chip)
{
    const uint32_t heads = (uint32_t)(a->b * a->hkv) * c->row_tiles;

    c->n_split = max_u32(1, (uint32_t)(chip->n_sm / a->hkv));
    c->n_split = c->n_split > SPLITS_MAX ? SPLITS_MAX : c->n_split;
    c->blocks = max_u32(1, chip->n_sm / max_u32(1, heads));
    c->blocks = c->blocks > c->n_split ? c->n_split : c->blocks;
}

/* Rings of the warps and what they add up in. False: no room. */
static bool fit_split(struct choice *c, const struct ew_attn_args *a,
                      const struct ew_cuda_chip *chip)
{
    const uint32_t d = (uint32_t)a->d, stride = tile_stride(c->kv, d);
    const uint32_t stage = SPLIT_WARPS * 2 * SPLIT_TILE * stride;
    const uint32_t rows = a->mode == EW_ATTN_DECODE && c->group <= 8 ? c->group : 16;
    const uint32_t sum = (SPLIT_WARPS * rows * (d + 4 + 3) + 2 * rows) * 4;
    const uint32_t fixed = 2 * 16 * (d + 8) * 2 + 2 * stride + 1024;
    const uint32_t limit = chip->shared_per_block > fixed ? chip->shared_per_block - fixed : 0;

    split_blocks(c, a, chip);
    for (c->stages = 2; c->stages > 0; c->stages--) {
        c->shared_bytes = c->stages * stage + sum;
        if (c->shared_bytes <= limit)
            return true;
    }
    return false;
}

/* What attention_few.cu takes: its ring and its struct few. */
static uint32_t few_bytes(const struct choice *c, uint32_t d)
{
    const uint32_t ring = c->stages * 2 * c->panel * tile_stride(c->kv, d);

    return ring + 16 * (4 * (d + 8) + 4 * (c->panel + 8) + 8 * (c->panel / 16) + 8);
}

/* Few tokens a batch row, prepared by the blocks that need them. Of one token, many small blocks
 * keep a multiprocessor busy; of several, a block takes what it can. No more than a wave of blocks
 * or so, and no more than FEW_TILES that each read a cache which may be long: beyond that, others
 * are faster. */
static bool fit_few(struct choice *c, const struct ew_attn_args *a, const struct ew_cuda_chip *chip)
{
    const bool is_one = a->mode == EW_ATTN_DECODE;
    const uint32_t heads = (uint32_t)(a->b * a->hkv), n = heads * c->row_tiles;

    if (a->s > FEW_TOKENS || (a->q_norm && a->qk_norm_full) ||
        c->row_tiles > (a->s == 1 ? 4 : EW_ATTN_FEW_BLOCKS) ||
        (is_one ? heads <= chip->n_sm : n > chip->n_sm + chip->n_sm / 2) ||
        (c->row_tiles > FEW_TILES && a->mode != EW_ATTN_PREFILL && a->cap > FEW_CAP))
        return false;
    c->warps = is_one ? 4 : 8;
    c->stages = is_one ? 1 : 2;
    c->panel = is_one ? 64 : 128;
    while (few_bytes(c, (uint32_t)a->d) + 2048 > chip->shared_per_block)
        c->panel /= 2;
    if (c->panel < 32 || c->stages * c->panel < a->s + 15)
        return false;
    c->shared_bytes = few_bytes(c, (uint32_t)a->d);
    c->per_sm = is_one ? chip->shared_per_block / (c->shared_bytes + 1024) : 1;
    c->per_sm = c->per_sm > 4 ? 4 : c->per_sm;
    /* A power of two, so that few batch sizes differ in their chunks. */
    c->n_split = 1;
    while (c->n_split < SPLITS_MAX && n * c->n_split * 2 <= chip->n_sm * c->per_sm)
        c->n_split *= 2;
    c->blocks = c->row_tiles * c->n_split;
    return true;
}

static bool fit_flash(struct choice *c, size_t d, const struct ew_cuda_chip *chip)
{
    const uint32_t tile = c->kv == 0 || d > 128 ? 32 : 64, planes = c->kv == 0 ? 2 : 1;
    const uint32_t stage = 2 * tile * tile_stride(c->kv, d);

    for (c->warps = 8; c->warps >= 4; c->warps -= 4) {
        const uint32_t q = d > 128 ? c->warps * planes * 16 * ((uint32_t)d * 2 + 16) : 0;

        c->stages = 2;
        c->shared_bytes = c->stages * stage + q;
        if (c->shared_bytes + 1024 <= chip->shared_per_block)
            return true;
    }
    return false;
}

/* The warp group kernel: sm_90's instructions, tiles of 128 slots, two stages. */
static bool fit_wgmma(struct choice *c, size_t d, const struct ew_cuda_chip *chip)
{
    if (chip->sm != 90 || (c->kv != 1 && c->kv != 2) || (d != 64 && d != 128))
        return false;
    c->warps = 8; /* that multiply */
    /* queries, rows on their way out, two stages of keys and values */
    c->shared_bytes = (2 * 64 + 2 * 64 + 2 * 2 * 128) * (uint32_t)d * 2 + 1024;
    return c->shared_bytes + 1024 <= chip->shared_per_block;
}

/* Follows from shapes and the chip. */
static struct choice choose(const struct ew_attn_args *a, const struct ew_cuda_chip *chip)
{
    const bool is_few = a->mode == EW_ATTN_DECODE || a->mode == EW_ATTN_TREE;
    struct choice c = { .way = WAY_SIMPLE, .kv = (unsigned)kv_code(a->kv_dtype) };

    c.group = (uint32_t)(a->hq / a->hkv);
    c.row_tiles = (uint32_t)((a->s * c.group + 15) / 16);
    if (a->d % 16)
        return c;
    if (fit_few(&c, a, chip)) {
        c.way = WAY_FEW;
        c.is_fused = true;
    } else if (is_few && a->s * c.group <= SPLIT_ROWS_MAX && fit_split(&c, a, chip)) {
        c.way = WAY_SPLIT;
        c.is_fused = a->mode == EW_ATTN_DECODE;
    } else if (a->mode != EW_ATTN_DECODE && fit_wgmma(&c, a->d, chip)) {
        c.way = WAY_WGMMA;
    } else if (a->mode != EW_ATTN_DECODE && fit_flash(&c, a->d, chip)) {
        c.way = WAY_FLASH;
    }
    /* Shared memory that a kernel declares itself counts too when the limit must be raised. */
    if (c.shared_bytes > 32768 && c.shared_bytes <= 49152)
        c.shared_bytes = 49152 + 16;
    return c;
}

static size_t align256(size_t n)
{
    return (n + 255) / 256 * 256;
}

/* Places in the working memory, from `base` on; returns the end. */
static uint64_t carve(const struct ew_attn_args *a, const struct choice *c, uint64_t base,
                      struct ew_cuda_attn_args *out)
{
    const size_t q = a->b * a->s * a->hq * a->d;
    const size_t parts = a->b * a->hkv * c->row_tiles * c->n_split;
    uint64_t at = base;

    if (!c->is_fused) {
        out->q_hi = at;
        at += align256(q * (c->way == WAY_SIMPLE ? 4 : 2));
        if (c->way == WAY_SPLIT || (c->way == WAY_FLASH && c->kv == 0)) {
            out->q_lo = at;
            at += align256(q * 2);
        }
    }
    if (c->way == WAY_SPLIT || (c->way == WAY_FEW && c->n_split > 1)) {
        out->part_o = at;
        at += align256(parts * 16 * a->d * 4);
        out->part_ml = at;
        at += align256(parts * 16 * 2 * 4);
    }
    return at;
}

size_t ew_cuda_attn_work_bytes(const struct ew_cuda_attn *p, const struct ew_cuda_chip *chip)
{
    struct ew_cuda_attn_args unused = { 0 };
    struct choice c;

    if (!p->a.hkv || kv_code(p->a.kv_dtype) < 0)
        return 0;
    c = choose(&p->a, chip);
    return (size_t)carve(&p->a, &c, 0, &unused);
}

static struct ew_cuda_attn_args common_args(const struct ew_cuda_attn *p, const struct choice *c)
{
    const struct ew_attn_args *a = &p->a;
    struct ew_cuda_attn_args g = {
        .q = ew_cuda_address(a->q),
        .k = ew_cuda_address(a->k),
        .v = ew_cuda_address(a->v),
        .kv = ew_cuda_address(a->kv),
        .kv_scale = ew_cuda_address(a->kv_scale),
        .rope = ew_cuda_address(a->rope),
        .context_lengths = ew_cuda_address(a->context_lengths),
        .start_index = ew_cuda_address(a->start_index),
        .mask = ew_cuda_address(a->mask),
        .pos_id = ew_cuda_address(a->pos_id),
        .q_norm = ew_cuda_address(a->q_norm),
        .k_norm = ew_cuda_address(a->k_norm),
        .out = ew_cuda_address(a->out),
        .out_bf16 = ew_cuda_address(p->out_bf16),
        .counters = ew_cuda_address(p->counters),
        .q_stride = a->q_stride,
        .k_stride = a->k_stride,
        .v_stride = a->v_stride,
        .out_stride = a->out_stride,
        .rope_batch_stride = a->rope_batch_stride,
        .mask_words = a->mask_words,
        .window = a->window,
        .mode = (uint32_t)a->mode,
        .b = (uint32_t)a->b,
        .s = (uint32_t)a->s,
        .hq = (uint32_t)a->hq,
        .hkv = (uint32_t)a->hkv,
        .cap = (uint32_t)a->cap,
        .rope_rows = (uint32_t)a->rope_rows,
        .rd = a->rope ? (uint32_t)a->rd : 0,
        .n_split = c->n_split,
        .qk_norm_eps = a->qk_norm_eps,
        .softcap = a->softcap,
    };

    g.q_scale = a->scale;
    if (c->way != WAY_SIMPLE && a->softcap == 0.0f) /* soft maxima are by powers of two */
        g.q_scale *= LOG2E;
    if (a->mode == EW_ATTN_PREFILL)
        g.start_index = 0;
    (void)carve(a, c, ew_cuda_address(p->work), &g);
    if (p->x_short) {
        g.k = g.q + a->hq * a->d * 2;
        g.v = g.k + a->hkv * a->d * 2;
        g.q_stride = g.k_stride = g.v_stride = (a->hq + 2 * a->hkv) * a->d;
    }
    return g;
}

bool ew_cuda_attn_takes_short(const struct ew_cuda_chip *chip, ew_dtype kv_dtype, size_t s,
                              size_t head_size)
{
    return chip->sm == 90 && s > SPLIT_ROWS_MAX &&
           (kv_dtype == EW_DTYPE_F16 || kv_dtype == EW_DTYPE_BF16) &&
           (head_size == 64 || head_size == 128);
}

static ew_status check(const struct ew_attn_args *a, ew_error *err)
{
    if (kv_code(a->kv_dtype) < 0)
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "cache of %s; f32, f16, bf16, f8e4m3 and i8 run",
                       ew_dtype_text(a->kv_dtype));
    if (a->d < 1 || a->d > D_MAX)
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "head size %zu; at most %d", a->d, D_MAX);
    if (!a->hkv || a->hq % a->hkv)
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "%zu query heads for %zu of the cache", a->hq,
                       a->hkv);
    if (a->b * a->hkv > 65535 || a->b * 2 * a->hkv * a->cap > UINT32_MAX || a->cap > INT32_MAX ||
        a->rope_rows > INT32_MAX || a->b * a->s > INT32_MAX || a->hq > 65535)
        return ew_fail(err, EW_STATUS_LIMIT, "batch %zu x %zu heads, capacity %zu", a->b, a->hkv,
                       a->cap);
    return EW_STATUS_OK;
}

/* Heads of 64 or 128 that turn whole or not at all and lie on multiples of 16 bytes. */
static bool heads_are_wide(const struct ew_attn_args *a, const struct ew_cuda_attn_args *g)
{
    const uint64_t places = g->q | g->k | g->v | g->q_norm | g->k_norm | g->rope | g->kv;
    const uint64_t strides = g->q_stride | g->k_stride | g->v_stride | g->rope_batch_stride;

    return (a->d == 64 || a->d == 128) && (!g->rope || (g->rd == a->d && g->rope_rows)) &&
           places % 16 == 0 && strides % 4 == 0;
}

/* attention_prep_wide.cu's rules. */
static bool prep_is_wide(const struct ew_attn_args *a, const struct choice *c, unsigned norm,
                         const struct ew_cuda_attn_args *g)
{
    return heads_are_wide(a, g) && (c->kv == 1 || c->kv == 2) && c->way != WAY_SIMPLE && !g->q_lo &&
           norm != 2;
}

static void plan_prep_wide(const struct ew_attn_args *a, const struct choice *c, unsigned norm,
                           ew_dtype x_short, const struct ew_cuda_attn_args *g,
                           struct ew_cuda_launch *out)
{
    const uint32_t grid[3] = { g->b * g->s, 1, 1 };
    const uint32_t side = (uint32_t)(128 / a->d) * 4; /* heads of a warp */
    const uint32_t want = (g->hq + 2 * g->hkv + side - 1) / side;
    const uint32_t warps = want > 16 ? 16 : want;

    ew_cuda_launch_fill(out, "attention_prep_wide", "ew_attention_prep_wide", grid, warps * 32, g,
                        sizeof(*g),
                        "-DEW_D=%zu -DEW_KV=%u -DEW_NORM=%u -DEW_WARPS=%u -DEW_ROPE=%d -DEW_X=%d",
                        a->d, c->kv, norm, warps, g->rope != 0,
                        x_short == EW_DTYPE_F16    ? 1
                        : x_short == EW_DTYPE_BF16 ? 2
                                                   : 0);
}

static void plan_prep(const struct ew_attn_args *a, const struct choice *c, unsigned norm,
                      const struct ew_cuda_attn_args *g, struct ew_cuda_launch *out)
{
    enum { WARPS = 4 };
    const uint32_t grid[3] = { g->b * g->s, (g->hq + 2 * g->hkv + WARPS - 1) / WARPS, 1 };
    const unsigned q = c->way == WAY_SIMPLE ? 0 : c->kv == 1 ? 1 : 2;

    ew_cuda_launch_fill(out, "attention_prep", "ew_attention_prep", grid, WARPS * 32, g, sizeof(*g),
                        "-DEW_D=%zu -DEW_KV=%u -DEW_NORM=%u -DEW_Q=%u -DEW_WARPS=%d", a->d, c->kv,
                        norm, q, WARPS);
}

static uint32_t at_most(size_t n, size_t side, uint32_t limit)
{
    n = (n + side - 1) / side;
    return n < limit ? (uint32_t)n : limit;
}

static void plan_few(const struct ew_attn_args *a, const struct choice *c, unsigned norm,
                     const struct ew_cuda_attn_args *g, struct ew_cuda_launch *out)
{
    const uint32_t grid[3] = { c->blocks, g->hkv, g->b };
    const bool is_wide = heads_are_wide(a, g);
    /* Heads that a block has at once, and new tokens that it is made for. */
    const size_t side = c->warps * 128 / a->d, s = a->s == 1 ? 1 : a->s <= 16 ? 16 : FEW_TOKENS;
    const size_t rows = s * c->group < 16 ? s * c->group : 16;

    ew_cuda_launch_fill(
        out, "attention_few", "ew_attention_few", grid, c->warps * 32, g, sizeof(*g),
        "-DEW_D=%zu -DEW_KV=%u -DEW_NORM=%u -DEW_G=%u -DEW_CAP=%d -DEW_DECODE=%d -DEW_TREE=%d "
        "-DEW_WARPS=%u -DEW_PANEL=%u -DEW_STAGES=%u -DEW_BLOCKS=%u -DEW_WIDE=%d "
        "-DEW_ROPE=%d -DEW_HEADS=%u -DEW_VALUES=%u",
        a->d, c->kv, norm, c->group, a->softcap != 0.0f, a->mode == EW_ATTN_DECODE,
        a->mode == EW_ATTN_TREE, c->warps, c->panel, c->stages, c->per_sm, is_wide,
        is_wide && g->rope, is_wide ? at_most(rows + s, side, 10) : 0,
        is_wide ? at_most(s, side, 8) : 0);
    out->shared_bytes = c->shared_bytes;
}

static void plan_main(const struct ew_attn_args *a, const struct choice *c,
                      const struct ew_cuda_chip *chip, unsigned norm,
                      const struct ew_cuda_attn_args *g, struct ew_cuda_launch *out)
{
    const uint32_t rows = g->s * c->group;

    if (c->way == WAY_FEW) {
        plan_few(a, c, norm, g, out);
    } else if (c->way == WAY_SPLIT) {
        const uint32_t grid[3] = { c->blocks, g->b * g->hkv, c->row_tiles };

        ew_cuda_launch_fill(
            out, "attention_split", "ew_attention_split", grid, SPLIT_WARPS * 32, g, sizeof(*g),
            "-DEW_D=%zu -DEW_KV=%u -DEW_NORM=%u -DEW_G=%u -DEW_CAP=%d -DEW_DECODE=%d -DEW_TREE=%d "
            "-DEW_WARPS=%d -DEW_STAGES=%u",
            a->d, c->kv, c->is_fused ? norm : 0, c->group, a->softcap != 0.0f, c->is_fused,
            !c->is_fused, SPLIT_WARPS, c->stages);
        out->shared_bytes = c->shared_bytes;
    } else if (c->way == WAY_FLASH) {
        const uint32_t block = c->warps * 16;
        const uint32_t grid[3] = { (rows + block - 1) / block, g->b * g->hkv, 1 };

        ew_cuda_launch_fill(out, "attention_flash", "ew_attention_flash", grid, c->warps * 32, g,
                            sizeof(*g),
                            "-DEW_D=%zu -DEW_KV=%u -DEW_NORM=0 -DEW_G=%u -DEW_CAP=%d -DEW_TREE=%d "
                            "-DEW_WARPS=%u -DEW_STAGES=%u",
                            a->d, c->kv, c->group, a->softcap != 0.0f, a->mode == EW_ATTN_TREE,
                            c->warps, c->stages);
        out->shared_bytes = c->shared_bytes;
    } else if (c->way == WAY_WGMMA) {
        const uint32_t units = (rows + 127) / 128 * g->b * g->hkv;
        const uint32_t grid[3] = { units < chip->n_sm ? units : chip->n_sm, 1, 1 };
        const struct ew_cuda_attn_map_args args = { .a = *g };

        ew_cuda_launch_fill(out, "attention_wgmma", "ew_attention_wgmma", grid, 384, &args,
                            sizeof(args),
                            "-DEW_D=%zu -DEW_KV=%u -DEW_NORM=0 -DEW_G=%u -DEW_CAP=%d -DEW_TREE=%d",
                            a->d, c->kv, c->group, a->softcap != 0.0f, a->mode == EW_ATTN_TREE);
        out->shared_bytes = c->shared_bytes;
        out->n_maps = 1;
        out->maps[0] = (struct ew_cuda_tensor_map){ .address = g->kv,
                                                    .cols = a->d,
                                                    .rows = a->b * 2 * a->hkv * a->cap,
                                                    .row_bytes = a->d * 2,
                                                    .box_cols = 64,
                                                    .box_rows = 128,
                                                    .swizzle_bytes = 128,
                                                    .is_f16 = c->kv == 1 };
    } else {
        const uint32_t grid[3] = { g->b * g->s, (g->hq + 3) / 4, 1 };

        ew_cuda_launch_fill(out, "attention_simple", "ew_attention_simple", grid, 128, g,
                            sizeof(*g), "-DEW_D=%zu -DEW_KV=%u -DEW_NORM=0", a->d, c->kv);
    }
}

ew_status ew_cuda_attn_plan(const struct ew_cuda_attn *p, const struct ew_cuda_chip *chip,
                            struct ew_cuda_launch out[EW_CUDA_ATTN_LAUNCHES], size_t *n,
                            ew_error *err)
{
    const struct ew_attn_args *a = &p->a;
    const unsigned norm = !a->q_norm ? 0 : a->qk_norm_full ? 2 : 1;
    struct ew_cuda_attn_args g;
    struct choice c;

    *n = 0;
    EW_TRY(check(a, err));
    if (!a->b || !a->s)
        return EW_STATUS_OK;
    c = choose(a, chip);
    g = common_args(p, &c);
    if (!c.is_fused && prep_is_wide(a, &c, norm, &g))
        plan_prep_wide(a, &c, norm, p->x_short, &g, &out[(*n)++]);
    else if (p->x_short)
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "rows of %s, which f32 must be here",
                       ew_dtype_text(p->x_short));
    else if (!c.is_fused)
        plan_prep(a, &c, norm, &g, &out[(*n)++]);
    plan_main(a, &c, chip, norm, &g, &out[(*n)++]);
    return EW_STATUS_OK;
}

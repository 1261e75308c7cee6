/* kernels/cuda/moe_cuda.c - launches of Moe and where their working memory lies. */
#include "kernels/cuda/moe_cuda.h"

#include "kernels/cuda/launch.h"
#include "kernels/cuda/linear_plan.h"
#include "kernels/cuda/moe_args.cuh"
#include "op/attrs.h"

#define EXPERTS_MAX 1024 /* a lane of the router holds 32 */
#define MANY        8    /* places of a tile of moe_linear.cu with several rows */
#define FEW         8    /* places of a tile of moe_few.cu */
#define PANEL_ROWS  128  /* of W in a block of linear_mma.cu */

static bool is_f16(const struct ew_cuda_moe_weight *w)
{
    return !ew_quant_is(&w->format) && w->dtype == EW_DTYPE_F16;
}

/* Whether the products are linear_mma.cu's. */
static bool by_mma(const struct ew_cuda_moe *p)
{
    const bool quant = ew_quant_is(&p->gate_up.format) || ew_quant_is(&p->down.format);

    return quant || (p->gate_up.dtype != EW_DTYPE_F32 && p->rows > EW_CUDA_MOE_FEW_ROWS);
}

/* Whether the products are moe_few.cu's: quantised experts with about two rows each at most. */
static bool by_few(const struct ew_cuda_moe *p)
{
    return ew_quant_is(&p->gate_up.format) && ew_quant_is(&p->down.format) &&
           p->rows * p->k <= 2 * p->e;
}

/* Places of a tile: a tile's weight is read once, so as many as an expert has on average, and some
 * room above it. */
uint32_t ew_cuda_moe_tile_rows(const struct ew_cuda_moe *p)
{
    const size_t each = p->rows * p->k / p->e;

    if (by_few(p))
        return FEW;
    if (!by_mma(p))
        return p->rows == 1 ? 1 : MANY;
    return each <= 8 ? 16 : each <= 20 ? 32 : each <= 48 ? 64 : 128;
}

static uint64_t take(uint64_t *at, uint64_t bytes)
{
    const uint64_t p = *at;

    *at += (bytes + 255) / 256 * 256;
    return p;
}

/* Most tiles there may be: every expert's last one may be short. */
static uint64_t n_tiles(const struct ew_cuda_moe *p, uint32_t tile_rows)
{
    const uint64_t n = p->rows * p->k, experts = n < p->e ? n : p->e;

    return (n - experts) / tile_rows + experts;
}

struct work {
    struct ew_cuda_moe_args a;
    uint64_t x;        /* in 16 bits, [rows][h] */
    uint64_t mid, out; /* [rows * k][inner], f32 or 16 bits; [rows * k][h], f32 */
    uint64_t end;
};

static struct work carve(const struct ew_cuda_moe *p, uint64_t base)
{
    const uint64_t n = p->rows * p->k;
    struct work w = { .a = { .logits = ew_cuda_address(p->logits) }, .end = base };

    w.a.rows = (uint32_t)p->rows;
    w.a.e = (uint32_t)p->e;
    w.a.top_k = (uint32_t)p->k;
    w.a.norm_topk = p->norm_topk;
    w.a.tile_rows = ew_cuda_moe_tile_rows(p);
    w.a.act = p->act;
    w.a.idx = take(&w.end, n * 4);
    w.a.prob = take(&w.end, n * 4);
    w.a.slot = take(&w.end, n * 4);
    w.a.row = take(&w.end, n * 4);
    w.a.n_tiles = take(&w.end, 4);
    w.a.tiles = take(&w.end, n_tiles(p, w.a.tile_rows) * 16);
    w.x = take(&w.end, by_mma(p) ? p->rows * p->h * 2 : 0);
    w.mid = take(&w.end, n * p->inner * (by_mma(p) ? 2 : 4));
    w.out = take(&w.end, n * p->h * 4);
    return w;
}

size_t ew_cuda_moe_work_bytes(const struct ew_cuda_moe *p)
{
    return p->rows && p->k && p->e ? (size_t)carve(p, 0).end : 0;
}

static ew_status check_weight(const struct ew_cuda_moe *p, const struct ew_cuda_moe_weight *w,
                              ew_error *err)
{
    if (ew_quant_is(&w->format))
        return EW_STATUS_OK;
    if (w->dtype != EW_DTYPE_F32 && w->dtype != EW_DTYPE_F16 && w->dtype != EW_DTYPE_BF16)
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "experts of %s; f32, f16 and bf16 run",
                       ew_dtype_text(w->dtype));
    if (by_mma(p) ? w->dtype == EW_DTYPE_F32 : w->dtype != p->gate_up.dtype)
        return ew_fail(err, EW_STATUS_UNSUPPORTED,
                       "experts of %s beside others of %s or quantised ones",
                       ew_dtype_text(w->dtype), ew_dtype_text(p->gate_up.dtype));
    return EW_STATUS_OK;
}

static ew_status check(const struct ew_cuda_moe *p, ew_error *err)
{
    EW_TRY(check_weight(p, &p->gate_up, err));
    EW_TRY(check_weight(p, &p->down, err));
    if (p->h % 8 || p->inner % 8 || !p->h || !p->inner)
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "experts of %zu x %zu: multiples of 8 run", p->h,
                       p->inner);
    if (p->k < 1 || p->k > p->e || p->e > EXPERTS_MAX)
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "%zu of %zu experts; at most %d run", p->k, p->e,
                       EXPERTS_MAX);
    if (p->rows > 65535 || p->h > INT32_MAX / 2 || p->inner > INT32_MAX / 2 ||
        ((!by_mma(p) || by_few(p)) && n_tiles(p, MANY) > 65535) || p->rows * p->k > INT32_MAX)
        return ew_fail(err, EW_STATUS_LIMIT, "%zu rows of %zu", p->rows, p->h);
    return EW_STATUS_OK;
}

/* One of the two products by matrix instructions, linear_mma.cu or moe_few.cu. */
static void plan_mma(const struct ew_cuda_moe *p, const struct ew_cuda_chip *chip,
                     const struct work *w, bool is_up, struct ew_cuda_launch *out)
{
    const struct ew_cuda_moe_weight *weight = is_up ? &p->gate_up : &p->down;
    const bool quant = ew_quant_is(&weight->format);
    const struct ew_cuda_linear_problem problem = {
        .prepared = is_up ? w->x : w->mid,
        .w = ew_cuda_address(weight->at),
        .y = is_up ? w->mid : w->out,
        .prepared_stride = is_up ? p->h : p->inner,
        .y_stride = is_up ? p->inner : p->h,
        .m = w->a.tile_rows,
        .n = is_up ? 2 * p->inner : p->h,
        .k = is_up ? p->h : p->inner,
        .format = weight->format,
        .act = is_up ? p->act : EW_ACT_NONE,
        .glu = is_up,
        .y_short = !is_up             ? EW_DTYPE_NONE
                   : is_f16(&p->down) ? EW_DTYPE_F16
                                      : EW_DTYPE_BF16,
        .scale = 1.0f,
    };
    struct ew_cuda_linear_moe_args a = { .a = ew_cuda_linear_args_of(&problem),
                                         .tiles = w->a.tiles,
                                         .n_tiles = w->a.n_tiles,
                                         .row = is_up ? w->a.row : 0,
                                         .expert_stride = weight->stride };
    const uint32_t grid[3] = { (uint32_t)n_tiles(p, w->a.tile_rows),
                               ew_cuda_div_up(a.a.n_out, is_up ? PANEL_ROWS / 2 : PANEL_ROWS), 1 };
    uint32_t w_bytes = PANEL_ROWS * 128, stages = 8;
    char format[96] = "-DEW_CODE=0";

    if (quant) {
        ew_cuda_quant_defines(&weight->format, problem.k, format, sizeof(format));
        w_bytes = ew_cuda_panel_of(&weight->format, 1).block_cols == 32 ? 8192 : 4096;
    } else {
        a.a.row_bytes = problem.k * 2;
    }
    if (by_few(p)) {
        const uint32_t panels[3] = { ew_cuda_div_up(a.a.n_out, is_up ? 8 : 16), grid[0], 1 };

        ew_cuda_launch_fill(out, "moe_few", "ew_moe_few", panels, 256, &a, sizeof(a), "%s", "");
        ew_cuda_linear_define(out, &problem, "%s", format);
        return;
    }
    w_bytes += w->a.tile_rows * 128; /* a stage, with x */
    /* two blocks of a multiprocessor, and the rows of their tiles beside the rings */
    while (stages > 2 &&
           (stages * w_bytes + 1024) * (w->a.tile_rows < 128 ? 2 : 1) > chip->shared_per_block)
        stages--;
    ew_cuda_launch_fill(out, "linear_mma", "ew_linear_moe", grid, 256, &a, sizeof(a), "%s", "");
    out->shared_bytes = stages * w_bytes + w->a.tile_rows * 4;
    ew_cuda_linear_define(out, &problem,
                          "%s -DEW_MOE=1 -DEW_F16=%d -DEW_N=%u -DEW_STAGES=%u -DEW_SPLIT=0", format,
                          is_f16(weight), w->a.tile_rows, stages);
}

/* The same in f32. */
static void plan_linear(const struct ew_cuda_moe *p, const struct work *w, bool is_up,
                        struct ew_cuda_launch *out)
{
    struct ew_cuda_moe_args a = w->a;
    const struct ew_cuda_moe_weight *weight = is_up ? &p->gate_up : &p->down;
    const int code = weight->dtype == EW_DTYPE_F32 ? 0 : weight->dtype == EW_DTYPE_F16 ? 1 : 2;
    const uint32_t outs = is_up ? 2 : 4;

    a.x = is_up ? ew_cuda_address(p->x) : w->mid;
    a.w = ew_cuda_address(weight->at);
    a.y = is_up ? w->mid : w->out;
    a.expert_stride = weight->stride;
    a.n = (uint32_t)(is_up ? p->inner : p->h);
    a.k = a.ld = (uint32_t)(is_up ? p->h : p->inner);
    const uint32_t grid[3] = { (a.n + 8 * outs - 1) / (8 * outs), (uint32_t)n_tiles(p, a.tile_rows),
                               1 };
    ew_cuda_launch_fill(out, "moe_linear", "ew_moe_linear", grid, 256, &a, sizeof(a),
                        "-DEW_W=%d -DEW_R=%u -DEW_GLU=%d", code, a.tile_rows, is_up);
}

ew_status ew_cuda_moe_plan(const struct ew_cuda_moe *p, const struct ew_cuda_chip *chip,
                           struct ew_cuda_launch out[EW_CUDA_MOE_LAUNCHES], size_t *n,
                           ew_error *err)
{
    const bool mma = by_mma(p);
    const uint32_t group[3] = { 1 + (mma ? (uint32_t)p->rows : 0), 1, 1 };
    const uint32_t route[3] = { (uint32_t)((p->rows + 3) / 4), 1, 1 };
    const uint32_t add[3] = { (uint32_t)((p->h + 255) / 256), (uint32_t)p->rows, 1 };
    struct work w;

    *n = 0;
    if (!p->rows)
        return EW_STATUS_OK;
    EW_TRY(check(p, err));
    w = carve(p, ew_cuda_address(p->work));
    ew_cuda_launch_fill(&out[0], "moe_route", "ew_moe_route", route, 128, &w.a, sizeof(w.a),
                        "-DEW_E=%zu", p->e);
    w.a.x = ew_cuda_address(p->x);
    w.a.prepared = w.x;
    w.a.k = (uint32_t)p->h;
    ew_cuda_launch_fill(&out[1], "moe_route", "ew_moe_group", group, 1024, &w.a, sizeof(w.a),
                        "-DEW_E=%zu -DEW_PREPARE=%d", p->e,
                        !mma                  ? 0
                        : is_f16(&p->gate_up) ? 2
                                              : 1);
    for (int i = 0; i < 2; i++)
        if (mma)
            plan_mma(p, chip, &w, i == 0, &out[2 + i]);
        else
            plan_linear(p, &w, i == 0, &out[2 + i]);
    w.a.x = w.out;
    w.a.y = ew_cuda_address(p->y);
    w.a.n = (uint32_t)p->h;
    ew_cuda_launch_fill(&out[4], "moe_route", "ew_moe_add", add, 256, &w.a, sizeof(w.a),
                        "-DEW_E=%zu", p->e);
    *n = 5;
    return EW_STATUS_OK;
}

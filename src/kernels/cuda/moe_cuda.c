/* kernels/cuda/moe_cuda.c - launches of Moe and where their working memory lies. */
#include "kernels/cuda/moe_cuda.h"

#include "kernels/cuda/launch.h"
#include "kernels/cuda/moe_args.cuh"

#define EXPERTS_MAX 1024 /* a lane of the router holds 32 */
#define MANY        8    /* places of a tile when an expert may have several rows */

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
    uint64_t mid, out; /* [rows * k][inner], [rows * k][h], f32 */
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
    w.a.tile_rows = p->rows == 1 ? 1 : MANY;
    w.a.act = p->act;
    w.a.idx = take(&w.end, n * 4);
    w.a.prob = take(&w.end, n * 4);
    w.a.slot = take(&w.end, n * 4);
    w.a.row = take(&w.end, n * 4);
    w.a.n_tiles = take(&w.end, 4);
    w.a.tiles = take(&w.end, n_tiles(p, w.a.tile_rows) * 16);
    w.mid = take(&w.end, n * p->inner * 4);
    w.out = take(&w.end, n * p->h * 4);
    return w;
}

size_t ew_cuda_moe_work_bytes(const struct ew_cuda_moe *p)
{
    return p->rows && p->k && p->e ? (size_t)carve(p, 0).end : 0;
}

static ew_status check(const struct ew_cuda_moe *p, ew_error *err)
{
    if (p->w_dtype != EW_DTYPE_F32 && p->w_dtype != EW_DTYPE_F16 && p->w_dtype != EW_DTYPE_BF16)
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "experts of %s; f32, f16 and bf16 run",
                       ew_dtype_text(p->w_dtype));
    if (p->h % 8 || p->inner % 8 || !p->h || !p->inner)
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "experts of %zu x %zu: multiples of 8 run", p->h,
                       p->inner);
    if (p->k < 1 || p->k > p->e || p->e > EXPERTS_MAX)
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "%zu of %zu experts; at most %d run", p->k, p->e,
                       EXPERTS_MAX);
    if (p->rows > 65535 || p->h > INT32_MAX / 2 || p->inner > INT32_MAX / 2 ||
        n_tiles(p, MANY) > 65535 || p->rows * p->k > INT32_MAX)
        return ew_fail(err, EW_STATUS_LIMIT, "%zu rows of %zu", p->rows, p->h);
    return EW_STATUS_OK;
}

/* One of the two products. */
static void plan_linear(const struct ew_cuda_moe *p, const struct work *w, bool is_up,
                        struct ew_cuda_launch *out)
{
    struct ew_cuda_moe_args a = w->a;
    const int code = p->w_dtype == EW_DTYPE_F32 ? 0 : p->w_dtype == EW_DTYPE_F16 ? 1 : 2;
    const uint32_t outs = is_up ? 2 : 4;

    a.x = is_up ? ew_cuda_address(p->x) : w->mid;
    a.w = ew_cuda_address(is_up ? p->gate_up : p->down);
    a.y = is_up ? w->mid : w->out;
    a.expert_stride = is_up ? p->gate_up_stride : p->down_stride;
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
    const uint32_t one[3] = { 1, 1, 1 }, route[3] = { (uint32_t)((p->rows + 3) / 4), 1, 1 };
    const uint32_t add[3] = { (uint32_t)((p->h + 255) / 256), (uint32_t)p->rows, 1 };
    struct work w;

    (void)chip;
    *n = 0;
    if (!p->rows)
        return EW_STATUS_OK;
    EW_TRY(check(p, err));
    w = carve(p, ew_cuda_address(p->work));
    ew_cuda_launch_fill(&out[0], "moe_route", "ew_moe_route", route, 128, &w.a, sizeof(w.a),
                        "-DEW_E=%zu", p->e);
    ew_cuda_launch_fill(&out[1], "moe_route", "ew_moe_group", one, 1024, &w.a, sizeof(w.a),
                        "-DEW_E=%zu", p->e);
    plan_linear(p, &w, true, &out[2]);
    plan_linear(p, &w, false, &out[3]);
    w.a.x = w.out;
    w.a.y = ew_cuda_address(p->y);
    w.a.n = (uint32_t)p->h;
    ew_cuda_launch_fill(&out[4], "moe_route", "ew_moe_add", add, 256, &w.a, sizeof(w.a),
                        "-DEW_E=%zu", p->e);
    *n = 5;
    return EW_STATUS_OK;
}

/* kernels/cuda/sample_cuda.c - launches of arg max and of the draw. */
#include "kernels/cuda/sample_cuda.h"

#include "kernels/cuda/launch.h"
#include "kernels/cuda/sample_args.cuh"

#define PART_VALUES 2048 /* of a row that a block looks at, at least */
#define PARTS_MAX   64
#define DRAW_GROUPS 1024 /* of neighbours in a row: a thread's each */

static uint32_t n_parts(size_t n)
{
    const size_t parts = (n + PART_VALUES - 1) / PART_VALUES;

    return parts > PARTS_MAX ? PARTS_MAX : parts < 1 ? 1 : (uint32_t)parts;
}

size_t ew_cuda_argmax_work_bytes(size_t rows, size_t n)
{
    return rows * n_parts(n) * 16;
}

static ew_status check_rows(size_t rows, size_t n, ew_error *err)
{
    if (rows < 1 || rows > 65535 || n < 1 || n > INT32_MAX)
        return ew_fail(err, EW_STATUS_LIMIT, "%zu rows of %zu logits", rows, n);
    return EW_STATUS_OK;
}

ew_status ew_cuda_argmax_plan(const struct ew_cuda_argmax *p, struct ew_cuda_launch *out,
                              ew_error *err)
{
    const struct ew_cuda_argmax_args a = {
        .logits = ew_cuda_address(p->logits),
        .token = ew_cuda_address(p->token),
        .value = ew_cuda_address(p->value),
        .work = ew_cuda_address(p->work),
        .counters = ew_cuda_address(p->counters),
        .stride = p->stride,
        .n = (uint32_t)p->n,
    };
    const uint32_t grid[3] = { n_parts(p->n), (uint32_t)p->rows, 1 };

    EW_TRY(check_rows(p->rows, p->n, err));
    ew_cuda_launch_fill(out, "sample_argmax", "ew_sample_argmax", grid, 256, &a, sizeof(a), "%s",
                        "");
    return EW_STATUS_OK;
}

static uint32_t group_size(size_t n)
{
    return (uint32_t)((n + DRAW_GROUPS - 1) / DRAW_GROUPS);
}

static uint32_t n_groups(size_t n)
{
    return n ? (uint32_t)((n + group_size(n) - 1) / group_size(n)) : 0;
}

size_t ew_cuda_draw_work_bytes(size_t rows, size_t n)
{
    return rows * n_groups(n) * 16;
}

ew_status ew_cuda_draw_plan(const struct ew_cuda_draw *p,
                            struct ew_cuda_launch out[EW_CUDA_DRAW_LAUNCHES], ew_error *err)
{
    EW_TRY(check_rows(p->rows, p->n, err));
    const struct ew_cuda_draw_args a = {
        .logits = ew_cuda_address(p->logits),
        .params = ew_cuda_address(p->params),
        .token = ew_cuda_address(p->token),
        .work = ew_cuda_address(p->work),
        .stride = p->stride,
        .n = (uint32_t)p->n,
        .n_groups = n_groups(p->n),
        .group_size = group_size(p->n),
    };
    const uint32_t parts = (a.n_groups + 7) / 8, many = p->rows > 4 ? 4 : 1;
    const uint32_t groups[3] = { (parts + many - 1) / many, (uint32_t)p->rows, 1 };
    const uint32_t rows[3] = { (uint32_t)p->rows, 1, 1 };

    ew_cuda_launch_fill(&out[0], "sample_draw", "ew_sample_groups", groups, 256, &a, sizeof(a),
                        "%s", "");
    ew_cuda_launch_fill(&out[1], "sample_draw", "ew_sample_draw", rows, 1024, &a, sizeof(a), "%s",
                        "");
    return EW_STATUS_OK;
}

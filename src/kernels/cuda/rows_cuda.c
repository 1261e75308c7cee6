/* kernels/cuda/rows_cuda.c - launches of norms, conversions, gathers, copies and soft maxima. */
#include "kernels/cuda/rows_cuda.h"

#include "kernels/cuda/launch.h"
#include "kernels/cuda/linear_plan.h"
#include "kernels/cuda/rows_args.cuh"

#define BLOCKS_MAX 2048 /* of kernels whose threads go on in steps of the grid */

static uint32_t blocks_for(uint64_t n, uint32_t threads)
{
    const uint64_t blocks = (n + threads - 1) / threads;

    return blocks > BLOCKS_MAX ? BLOCKS_MAX : blocks < 1 ? 1 : (uint32_t)blocks;
}

/* Threads for a row of n words: whole warps, up to 1024. */
static uint32_t row_threads(size_t n)
{
    return n >= 1024 ? 1024 : n <= 32 ? 32 : (uint32_t)((n + 31) / 32 * 32);
}

static ew_status check_count(const char *what, uint64_t n, ew_error *err)
{
    return n < 1 || n > INT32_MAX ? ew_fail(err, EW_STATUS_LIMIT, "%llu %s; from 1 to 2^31 - 1 run",
                                            (unsigned long long)n, what)
                                  : EW_STATUS_OK;
}

ew_status ew_cuda_norm_plan(const struct ew_cuda_norm *p, struct ew_cuda_launch *out, ew_error *err)
{
    const struct ew_cuda_norm_args a = {
        .x = ew_cuda_address(p->x),
        .w = ew_cuda_address(p->w),
        .residual = ew_cuda_address(p->residual),
        .y = ew_cuda_address(p->y),
        .y_bf16 = ew_cuda_address(p->y_bf16),
        .n = (uint32_t)p->n,
        .eps = p->eps,
    };
    const bool is_vec = p->n % 4 == 0 && (a.x | a.w | a.residual | a.y | a.y_bf16) % 16 == 0;
    const uint32_t grid[3] = { (uint32_t)p->rows, 1, 1 };

    EW_TRY(check_count("columns", p->n, err));
    EW_TRY(check_count("rows", p->rows, err));
    ew_cuda_launch_fill(out, "rows_norm", "ew_rows_norm", grid,
                        row_threads(is_vec ? p->n / 4 : p->n), &a, sizeof(a), "-DEW_VEC=%d",
                        is_vec ? 4 : 1);
    return EW_STATUS_OK;
}

static int float_code(ew_dtype t)
{
    return t == EW_DTYPE_F32 ? 0 : t == EW_DTYPE_F16 ? 1 : t == EW_DTYPE_BF16 ? 2 : -1;
}

ew_status ew_cuda_convert_plan(void *dst, ew_dtype dst_dtype, const void *src, ew_dtype src_dtype,
                               size_t n, struct ew_cuda_launch *out, ew_error *err)
{
    const struct ew_cuda_convert_args a = { ew_cuda_address(dst), ew_cuda_address(src), n };
    const uint32_t grid[3] = { blocks_for(n, 256 * 4), 1, 1 };

    if (float_code(dst_dtype) < 0 || float_code(src_dtype) < 0)
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "conversion of %s to %s",
                       ew_dtype_text(src_dtype), ew_dtype_text(dst_dtype));
    ew_cuda_launch_fill(out, "convert_floats", "ew_convert_floats", grid, 256, &a, sizeof(a),
                        "-DEW_SRC=%d -DEW_DST=%d", float_code(src_dtype), float_code(dst_dtype));
    return EW_STATUS_OK;
}

ew_status ew_cuda_copy_plan(const struct ew_cuda_copy *p, struct ew_cuda_launch *out, ew_error *err)
{
    struct ew_cuda_strided_args a = { .count = 1 };
    uint64_t count = 1;

    if (p->elem_bytes != 1 && p->elem_bytes != 2 && p->elem_bytes != 4 && p->elem_bytes != 8)
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "elements of %u bytes", p->elem_bytes);
    a.dst = ew_cuda_address(p->dst) + (uint64_t)(p->dst_off * (int64_t)p->elem_bytes);
    a.src = ew_cuda_address(p->src) + (uint64_t)(p->src_off * (int64_t)p->elem_bytes);
    for (int d = 0; d < p->n_dims; d++) {
        EW_TRY(check_count("elements along an axis", (uint64_t)p->dim[d], err));
        count *= (uint64_t)p->dim[d];
        EW_TRY(check_count("elements", count, err));
        a.dim[d] = (uint32_t)p->dim[d];
        a.dst_stride[d] = p->dst_stride[d];
        a.src_stride[d] = p->src_stride[d];
    }
    a.count = (uint32_t)count;
    a.n_dims = (uint32_t)p->n_dims;
    const uint32_t grid[3] = { blocks_for(count, 256), 1, 1 };
    ew_cuda_launch_fill(out, "copy_strided", "ew_copy_strided", grid, 256, &a, sizeof(a),
                        "-DEW_ELEM=%u", p->elem_bytes);
    return EW_STATUS_OK;
}

ew_status ew_cuda_gather_plan(const struct ew_cuda_gather *p, struct ew_cuda_launch *out,
                              ew_error *err)
{
    const uint64_t all = ew_cuda_address(p->src) | ew_cuda_address(p->dst) | p->row_bytes;
    const uint32_t word = all % 16 == 0 ? 16 : all % 4 == 0 ? 4 : all % 2 == 0 ? 2 : 1;
    const struct ew_cuda_gather_args a = {
        .dst = ew_cuda_address(p->dst),
        .src = ew_cuda_address(p->src),
        .idx = ew_cuda_address(p->idx),
        .n_rows = p->n_rows,
        .n_idx = (uint32_t)p->n_idx,
        .row_words = (uint32_t)(p->row_bytes / word),
    };
    const uint32_t grid[3] = { (uint32_t)p->n_idx, (uint32_t)p->n_batch, 1 };

    if (p->idx_type != EW_DTYPE_I32 && p->idx_type != EW_DTYPE_I64)
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "indices of %s", ew_dtype_text(p->idx_type));
    EW_TRY(check_count("indices", p->n_idx, err));
    EW_TRY(check_count("bytes of a row", p->row_bytes, err));
    if (p->n_batch < 1 || p->n_batch > 65535)
        return ew_fail(err, EW_STATUS_LIMIT, "gather from %zu tables", p->n_batch);
    ew_cuda_launch_fill(out, "gather_rows", "ew_gather_rows", grid,
                        a.row_words < 256 ? row_threads(a.row_words) : 256, &a, sizeof(a),
                        "-DEW_IDX=%d -DEW_WORD=%u -DEW_EMBED=0",
                        p->idx_type == EW_DTYPE_I32 ? 4 : 8, word);
    return EW_STATUS_OK;
}

/* What of a table that is packed. */
static void embed_panels_plan(const struct ew_cuda_embed *p, struct ew_cuda_launch *out)
{
    const struct ew_cuda_panel panel = ew_cuda_panel_of(p->format, p->n);
    const struct ew_cuda_gather_panels_args a = {
        .dst = ew_cuda_address(p->dst),
        .src = ew_cuda_address(p->table),
        .idx = ew_cuda_address(p->ids),
        .n_rows = p->n_rows,
        .panel_bytes = panel.bytes,
        .k = (uint32_t)p->n,
        .scales_at = (uint32_t)panel.scales_at,
        .zeros_at = (uint32_t)panel.zeros_at,
        .row_scales_at = (uint32_t)panel.row_scales_at,
        .scale = p->scale,
    };
    const uint32_t grid[3] = { (uint32_t)p->n_ids, 1, 1 };
    char defines[96];

    ew_cuda_quant_defines(p->format, p->n, defines, sizeof(defines));
    ew_cuda_launch_fill(out, "gather_panels", "ew_gather_panels", grid,
                        p->n < 1024 ? row_threads((p->n + 3) / 4) : 256, &a, sizeof(a), "%s",
                        defines);
}

ew_status ew_cuda_embed_plan(const struct ew_cuda_embed *p, struct ew_cuda_launch *out,
                             ew_error *err)
{
    const int code = float_code(p->dtype);
    const struct ew_cuda_gather_args a = {
        .dst = ew_cuda_address(p->dst),
        .src = ew_cuda_address(p->table),
        .idx = ew_cuda_address(p->ids),
        .n_rows = p->n_rows,
        .n_idx = (uint32_t)p->n_ids,
        .row_words = (uint32_t)p->n,
        .scale = p->scale,
    };
    const uint32_t grid[3] = { (uint32_t)p->n_ids, 1, 1 };

    EW_TRY(check_count("ids", p->n_ids, err));
    EW_TRY(check_count("columns", p->n, err));
    if (p->format) {
        embed_panels_plan(p, out);
        return EW_STATUS_OK;
    }
    if (code < 0)
        return ew_fail(err, EW_STATUS_UNSUPPORTED, "embedding of %s", ew_dtype_text(p->dtype));
    ew_cuda_launch_fill(out, "gather_rows", "ew_gather_rows", grid,
                        p->n < 256 ? row_threads(p->n) : 256, &a, sizeof(a),
                        "-DEW_IDX=4 -DEW_WORD=%d -DEW_EMBED=%d", code ? 2 : 4, code + 1);
    return EW_STATUS_OK;
}

ew_status ew_cuda_softmax_plan(const struct ew_cuda_softmax *p, struct ew_cuda_launch *out,
                               ew_error *err)
{
    const struct ew_cuda_softmax_args a = { ew_cuda_address(p->x), ew_cuda_address(p->y),
                                            (uint32_t)p->n };
    const uint32_t grid[3] = { (uint32_t)p->rows, 1, 1 };

    EW_TRY(check_count("columns", p->n, err));
    EW_TRY(check_count("rows", p->rows, err));
    ew_cuda_launch_fill(out, "rows_softmax", "ew_rows_softmax", grid, row_threads(p->n), &a,
                        sizeof(a), "-DEW_LOG=%d", p->is_log);
    return EW_STATUS_OK;
}

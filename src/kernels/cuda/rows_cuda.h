/* kernels/cuda/rows_cuda.h - the row kernels of rowops.h on a GPU, and plain movement of elements:
 * norms, pointwise programs, conversions, gathers, strided copies, soft maximum. Every function
 * fills ONE launch, needs no working memory, and returns UNSUPPORTED with a reason for what no
 * kernel takes. Addresses are device addresses. Counts and offsets are below 2^31 elements. */
#ifndef EW_KERNELS_CUDA_ROWS_H
#define EW_KERNELS_CUDA_ROWS_H

#include "base/error.h"
#include "kernels/cuda/kernel.h"
#include "op/attrs.h"
#include "tensor/tensor.h"

/* FusedRmsNorm: y = x / rms(x) * w [+ residual], rows dense. y may be x or residual. */
struct ew_cuda_norm {
    const float *x, *w, *residual; /* [rows][n], [n], [rows][n] or NULL */
    float *y;                      /* or NULL when y_bf16 is wanted alone */
    void *y_bf16;                  /* [rows][n] bf16, or NULL */
    size_t rows, n;
    float eps;
};
ew_status ew_cuda_norm_plan(const struct ew_cuda_norm *p, struct ew_cuda_launch *out,
                            ew_error *err);

/* A pointwise program under broadcasting. The program travels as text in the spec: four letters
 * an instruction (op, dst, a, b), so that the compiler sees straight code; immediates travel in
 * the arguments, so that programs which differ in constants alone are one kernel. */
struct ew_cuda_pointwise {
    const struct ew_attr_pointwise *program;
    const struct ew_type *in_type[8], *out_type; /* f32; dims concrete, inputs broadcast to out */
    const float *in[8];
    size_t n_in;
    float *y; /* may be an input of the same shape */
};
ew_status ew_cuda_pointwise_plan(const struct ew_cuda_pointwise *p, struct ew_cuda_launch *out,
                                 ew_error *err);

/* n elements, f32 f16 bf16 among each other: round to nearest even, NaN stays NaN. */
ew_status ew_cuda_convert_plan(void *dst, ew_dtype dst_dtype, const void *src, ew_dtype src_dtype,
                               size_t n, struct ew_cuda_launch *out, ew_error *err);

/* dst[i0][i1].. = src[off + i0*stride0 + i1*stride1 ..]: transposes, slices, expansions, concats
 * (one launch an input), splits. Elements of 1, 2, 4 or 8 bytes; strides in elements, may be 0 or
 * negative; dst strides likewise. */
struct ew_cuda_copy {
    void *dst;
    const void *src;
    uint32_t elem_bytes;
    int n_dims;
    int64_t dim[EW_MAX_DIMS], dst_stride[EW_MAX_DIMS], src_stride[EW_MAX_DIMS];
    int64_t dst_off, src_off;
};
ew_status ew_cuda_copy_plan(const struct ew_cuda_copy *p, struct ew_cuda_launch *out,
                            ew_error *err);

/* dst[b][i] = src[b][idx[b][i]], rows of row_bytes; idx i32 or i64, negative counts from the end.
 * Gather along axis 0 of a batch of tables: the last-token gather (GatherND, batch_dims 1), Gather
 * of a table (n_batch 1), embedding lookup of a plain table. An index out of range gives a row of
 * zeros: checking it is the caller's. */
struct ew_cuda_gather {
    void *dst;         /* [n_batch][n_idx][row_bytes] */
    const void *src;   /* [n_batch][n_rows][row_bytes] */
    const void *idx;   /* [n_batch][n_idx] */
    ew_dtype idx_type; /* i32 or i64 */
    size_t n_batch, n_rows, n_idx, row_bytes;
};
ew_status ew_cuda_gather_plan(const struct ew_cuda_gather *p, struct ew_cuda_launch *out,
                              ew_error *err);

/* Rows of a table as f32, times `scale`: the embedding lookup. table [n_rows][n] of f32, f16 or
 * bf16, or packed as linear_q4__cuda or linear_q8__cuda; ids i32. An id out of range gives NaN. */
struct ew_cuda_embed {
    float *dst; /* [n_ids][n] */
    const void *table;
    ew_dtype dtype;                       /* plain */
    const struct ew_quant_format *format; /* packed; NULL: plain */
    const int32_t *ids;
    size_t n_ids, n_rows, n;
    float scale;
};
ew_status ew_cuda_embed_plan(const struct ew_cuda_embed *p, struct ew_cuda_launch *out,
                             ew_error *err);

/* Softmax or LogSoftmax of dense rows, f32; y may be x. */
struct ew_cuda_softmax {
    const float *x;
    float *y;
    size_t rows, n;
    bool is_log;
};
ew_status ew_cuda_softmax_plan(const struct ew_cuda_softmax *p, struct ew_cuda_launch *out,
                               ew_error *err);

#endif

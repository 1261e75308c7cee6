/* op/infer_move.h - arithmetic of movement ops that inference and kernels must agree on. */
#ifndef EW_OP_INFER_MOVE_H
#define EW_OP_INFER_MOVE_H

#include "op/op.h"

/* Slice of one axis of `dim` elements: clamps as ONNX says and gives the first element and how
 * many. step is not 0. *first is 0 when *count is. */
void ew_slice_resolve(int64_t dim, int64_t start, int64_t end, int64_t step, int64_t *first,
                      int64_t *count);

/* Rules of single ops: indexing (infer_index.c) and shapes from contents (infer_extent.c). */
ew_infer_fn ew_infer_gather, ew_infer_gather_elements, ew_infer_gather_nd, ew_infer_one_hot,
    ew_infer_scatter_elements, ew_infer_scatter_nd, ew_infer_tensor_scatter;
ew_infer_fn ew_infer_constant_of_shape, ew_infer_expand, ew_infer_pad, ew_infer_range,
    ew_infer_reshape, ew_infer_slice, ew_infer_split, ew_infer_squeeze, ew_infer_tile,
    ew_infer_unsqueeze;

#endif

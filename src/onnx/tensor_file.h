/* onnx/tensor_file.h - a file that holds one ONNX TensorProto, as the ONNX backend tests store
 * inputs and outputs. */
#ifndef EW_ONNX_TENSOR_FILE_H
#define EW_ONNX_TENSOR_FILE_H

#include "base/arena.h"
#include "tensor/tensor.h"

/* Type and contents (copied into the arena, aligned to 16). External data is refused. */
ew_status ew_onnx_tensor_load(const char *path, struct ew_arena *arena, struct ew_type *type,
                              void **data, ew_error *err);

#endif

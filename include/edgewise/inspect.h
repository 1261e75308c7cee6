/* edgewise/inspect.h - what is inside a file, as JSON, without running it. */
#ifndef EW_INSPECT_H
#define EW_INSPECT_H

#include "edgewise/base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Describes a safetensors file (tensors: name, dtype, shape, bytes), an ONNX file (graph, inputs,
 * outputs, nodes by op), a checkpoint directory (family, parameters, shards), an engine file or
 * directory (as ew_engine_describe). Every file is fully checked on the way. *json is freed by
 * ew_text_free. */
EW_API ew_status ew_inspect(const char *path, char **json, ew_error *err) EW_MUST_USE;

#ifdef __cplusplus
}
#endif
#endif

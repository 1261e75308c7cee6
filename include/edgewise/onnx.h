/* edgewise/onnx.h - ONNX in and out, with external data: opset 7 to 24, and other opsets where an
 * op means the same there.
 *
 * Importing maps every node to the op table or refuses it by node name before any work is done.
 * Plugin ops (AttentionPlugin, ...) are matched by op type, whatever the domain. */
#ifndef EW_ONNX_H
#define EW_ONNX_H

#include "edgewise/graph.h"

#ifdef __cplusplus
extern "C" {
#endif

/* `path`: a model.onnx or a directory that holds one. External data is read beneath the file's
 * directory only. An LLM directory (config.json and embedding.safetensors beside it) gets its llm
 * config and embedding too. */
EW_API ew_status ew_graph_from_onnx(const char *path, ew_graph **out, ew_error *err) EW_MUST_USE;

enum ew_onnx_flags {
    EW_ONNX_SPLIT_QKV =
        1u << 0, /* AttentionPlugin with q, k, v inputs (0.6+) instead of one packed qkv (0.5) */
};
typedef struct ew_onnx_save_opts {
    uint32_t struct_size;
    uint32_t flags;
    ew_progress progress;
} ew_onnx_save_opts;
#define EW_ONNX_SAVE_OPTS_INIT                                                                     \
    {                                                                                              \
        sizeof(ew_onnx_save_opts), 0,                                                              \
        {                                                                                          \
            0, 0                                                                                   \
        }                                                                                          \
    }

/* Writes dir/model.onnx and dir/model.onnx.data (and, for a language model, config.json and
 * embedding.safetensors); each file appears whole or not at all. */
EW_API ew_status ew_graph_save_onnx(const ew_graph *g, const char *dir,
                                    const ew_onnx_save_opts *opts, ew_error *err) EW_MUST_USE;

#ifdef __cplusplus
}
#endif
#endif

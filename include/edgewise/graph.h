/* edgewise/graph.h - a model as a graph: made from a checkpoint or ONNX, written as ONNX, input of
 * the builder.
 *
 *   hf checkpoint --ew_graph_from_checkpoint--> ew_graph --ew_build--> engine
 *   model.onnx    --ew_graph_from_onnx-------->    |  \--ew_graph_save_onnx--> model.onnx +
 * model.onnx.data
 *
 * A graph is mutable and single-threaded; it keeps the files it was made from mapped until
 * destroyed. */
#ifndef EW_GRAPH_H
#define EW_GRAPH_H

#include "edgewise/base.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ew_graph ew_graph;

/* What x is rounded to before it meets a weight. */
typedef enum ew_activations {
    EW_ACTIVATIONS_EXACT = 0, /* not at all: as if weights were unpacked to f32 */
    EW_ACTIVATIONS_INT8,      /* quantised weights: int8 with a scale a token, the fast way */
    EW_ACTIVATIONS_DECLARED,  /* quantised weights: as the checkpoint's config says */
    EW_ACTIVATIONS_BF16,      /* bf16 weights: bf16, the fast way where the processor has products
                                 of it */
} ew_activations;

/* Zero = default of every field. */
typedef struct ew_checkpoint_opts {
    uint32_t struct_size;
    bool hidden_states; /* also output hidden_0..hidden_L: inputs of each layer, then the final
                           norm's output (as HF) */
    const ew_logger *logger;
    ew_activations activations;
} ew_checkpoint_opts;
#define EW_CHECKPOINT_OPTS_INIT                                                                    \
    {                                                                                              \
        sizeof(ew_checkpoint_opts), 0, 0, 0                                                        \
    }

/* Reads `dir` (config.json; model.safetensors or pytorch_model.bin, or the index of one) and builds
 * the graph of its family. Weights stay mapped, never copied whole. Errors: NOT_FOUND, MALFORMED,
 * UNSUPPORTED (family, config key or value, by name), MISMATCH (tensor shapes). */
EW_API ew_status ew_graph_from_checkpoint(const char *dir, const ew_checkpoint_opts *opts,
                                          ew_graph **out, ew_error *err) EW_MUST_USE;

/* NULL is fine. */
EW_API void ew_graph_destroy(ew_graph *g);

/* Text form into fresh memory, freed by ew_text_free. */
EW_API ew_status ew_graph_text(const ew_graph *g, char **out, ew_error *err) EW_MUST_USE;
EW_API void ew_text_free(char *text);

/* Counts for a summary. */
typedef struct ew_graph_stats {
    uint64_t n_nodes, n_inputs, n_outputs, n_constants, constant_bytes, n_parameters;
} ew_graph_stats;
EW_API void ew_graph_get_stats(const ew_graph *g, ew_graph_stats *out);
/* config.json of the LLM contract, or NULL for a graph that is not a language model. Borrowed. */
EW_API const char *ew_graph_llm_config(const ew_graph *g);

#ifdef __cplusplus
}
#endif
#endif

/* checkpoint/weights.h - tensors of a checkpoint as constants of a graph: names, shapes, dtypes,
 * alignment, quantised or plain, and which tensors nobody asked for. Private to checkpoint/. */
#ifndef EW_CHECKPOINT_WEIGHTS_H
#define EW_CHECKPOINT_WEIGHTS_H

#include "checkpoint/quant_load.h"
#include "graph/ir.h"

struct ew_weights {
    const struct ew_safetensors *st;
    struct ew_graph *g;
    const char *prefix;               /* of the text model's tensors in the files: "model." */
    uint8_t *used;                    /* per tensor */
    const struct ew_qx_config *quant; /* NULL: nothing is quantised */
    ew_activations activations;
};

/* A weight and what it asks of the x that it multiplies: x is scaled, then gathered, then rounded.
 * Plain ones ask nothing. */
struct ew_weight {
    struct ew_value *value;
    const float *x_mul;   /* [k] or NULL */
    const uint32_t *perm; /* [k] or NULL: column c of the weight belongs to x[perm[c]] */
    int32_t x_quant, x_block;
    float x_scale; /* 0: none */
};

/* Finds the prefix by the embedding. NOT_FOUND if there is none. UNSUPPORTED: tensors of quantised
 * modules though `quant` (borrowed) is NULL. */
ew_status ew_weights_init(struct ew_weights *w, const struct ew_safetensors *st, struct ew_graph *g,
                          const struct ew_qx_config *quant, ew_activations activations,
                          ew_error *err);
void ew_weights_deinit(struct ew_weights *w);

/* `rel` is the name after the prefix ("layers.0.mlp.up_proj.weight"); of a quantised module too,
 * whatever its tensors are called. */
bool ew_weights_has(const struct ew_weights *w, const char *rel);
/* Matrix [n, k] as it is stored. */
ew_status ew_weights_matrix(struct ew_weights *w, const char *rel, int64_t n, int64_t k,
                            struct ew_weight *out, ew_error *err);
/* The embedding [n, k]: nothing can be asked of what it multiplies as a tied head but rounding. */
ew_status ew_weights_embedding(struct ew_weights *w, int64_t n, int64_t k, struct ew_weight *out,
                               ew_error *err);
/* Rows [begin, begin + n) of a stored matrix [total, k], as a constant named after `as`. */
ew_status ew_weights_rows(struct ew_weights *w, const char *rel, int64_t total, int64_t begin,
                          int64_t n, int64_t k, const char *as, struct ew_weight *out,
                          ew_error *err);
/* Vector [n] as f32, with `plus` added. */
ew_status ew_weights_vector(struct ew_weights *w, const char *rel, int64_t n, float plus,
                            struct ew_value **out, ew_error *err);
/* Whether the files have a head that is not the embedding again: then it is the head, even if the
 * config says "tied" (as transformers 5 does; copies are common, others are not). */
bool ew_weights_head_differs(const struct ew_weights *w);
/* The head: `lm_head.weight` beside the prefix. */
ew_status ew_weights_head(struct ew_weights *w, int64_t n, int64_t k, struct ew_weight *out,
                          ew_error *err);

/* One block of an expert constant [n_experts, sum of rows, k]: `fmt` has a * for the number of the
 * expert. */
struct ew_expert_block {
    const char *fmt;
    int64_t rows;
};
/* Constant [n_experts, rows of all blocks, k] named `as`, put together from tensors of one expert
 * each. */
ew_status ew_weights_experts(struct ew_weights *w, const char *as,
                             const struct ew_expert_block *blocks, size_t n_blocks,
                             int64_t n_experts, int64_t k, struct ew_weight *out, ew_error *err);
/* Whether experts are stored whole under this name (without ".weight"), and reading that:
 * [n_experts, rows, k]. Of experts' x only rounding can be asked. */
bool ew_weights_has_stack(const struct ew_weights *w, const char *rel);
ew_status ew_weights_stack(struct ew_weights *w, const char *rel, int64_t n_experts, int64_t rows,
                           int64_t k, struct ew_weight *out, ew_error *err);

/* UNSUPPORTED names a tensor of the text model that no one asked for: it would be mathematics left
 * out. Buffers that are computed anyway, and the head of a tied model, are none. In a multimodal
 * checkpoint only tensors under the prefix count. */
ew_status ew_weights_check_unused(const struct ew_weights *w, bool multimodal, bool tied_head,
                                  ew_error *err);

#endif

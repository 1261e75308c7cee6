/* checkpoint/weights.h - tensors of a checkpoint as constants of a graph: names, shapes, dtypes,
 * alignment, and which tensors nobody asked for. Private to checkpoint/. */
#ifndef EW_CHECKPOINT_WEIGHTS_H
#define EW_CHECKPOINT_WEIGHTS_H

#include "checkpoint/safetensors.h"
#include "graph/ir.h"

struct ew_weights {
    const struct ew_safetensors *st;
    struct ew_graph *g;
    const char *prefix; /* of the text model's tensors in the files: "model." */
    uint8_t *used;      /* per tensor */
};

/* Finds the prefix by the embedding. NOT_FOUND if there is none. */
ew_status ew_weights_init(struct ew_weights *w, const struct ew_safetensors *st, struct ew_graph *g,
                          ew_error *err);
void ew_weights_deinit(struct ew_weights *w);

/* `rel` is the name after the prefix ("layers.0.mlp.up_proj.weight"). */
bool ew_weights_has(const struct ew_weights *w, const char *rel);
/* Matrix [n, k] as it is stored. */
ew_status ew_weights_matrix(struct ew_weights *w, const char *rel, int64_t n, int64_t k,
                            struct ew_value **out, ew_error *err);
/* Rows [begin, begin + n) of a stored matrix [total, k], as a constant named after `as`. */
ew_status ew_weights_rows(struct ew_weights *w, const char *rel, int64_t total, int64_t begin,
                          int64_t n, int64_t k, const char *as, struct ew_value **out,
                          ew_error *err);
/* Vector [n] as f32, with `plus` added. */
ew_status ew_weights_vector(struct ew_weights *w, const char *rel, int64_t n, float plus,
                            struct ew_value **out, ew_error *err);
/* Whether the files have a head that is not the embedding again: then it is the head, even if the
 * config says "tied" (as transformers 5 does; copies are common, others are not). */
bool ew_weights_head_differs(const struct ew_weights *w);
/* The head: `lm_head.weight` beside the prefix. */
ew_status ew_weights_head(struct ew_weights *w, int64_t n, int64_t k, struct ew_value **out,
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
                             int64_t n_experts, int64_t k, struct ew_value **out, ew_error *err);
/* Stored whole as [n_experts, rows, k]. */
ew_status ew_weights_stack(struct ew_weights *w, const char *rel, int64_t n_experts, int64_t rows,
                           int64_t k, struct ew_value **out, ew_error *err);

/* UNSUPPORTED names a tensor of the text model that no one asked for: it would be mathematics left
 * out. Buffers that are computed anyway, and the head of a tied model, are none. In a multimodal
 * checkpoint only tensors under the prefix count. */
ew_status ew_weights_check_unused(const struct ew_weights *w, bool multimodal, bool tied_head,
                                  ew_error *err);

#endif

/* checkpoint/quant_load.h - one quantised module: its tensors found, checked and made a source of
 * rows. A refusal names the tensor and both values. Private to checkpoint/. */
#ifndef EW_CHECKPOINT_QUANT_LOAD_H
#define EW_CHECKPOINT_QUANT_LOAD_H

#include "checkpoint/quant_source.h"
#include "checkpoint/safetensors.h"

struct ew_qx_loader {
    const struct ew_safetensors *st;
    struct ew_arena *arena; /* of the graph: sources live as long as it */
    uint8_t *used;          /* per tensor */
    ew_activations activations;
};

/* A module as a quantised matrix [n, k]. Columns are those of a gathered x when perm is set. */
struct ew_qx_module {
    const struct ew_quant_source *source;
    const uint32_t *perm; /* [k]: x of column c is x[perm[c]]; NULL: in order */
    const float *x_mul;   /* [k], of x as it comes; NULL: none */
    int32_t x_quant, x_block;
    float x_scale; /* 0: none */
};

/* Whether the module's codes are there under the names of this scheme. */
bool ew_qx_is_stored(const struct ew_qx_loader *l, const struct ew_qx_scheme *s,
                     const char *module);
/* Reads it. `module` is the whole name before ".weight". */
ew_status ew_qx_load(struct ew_qx_loader *l, const struct ew_qx_scheme *s, const char *module,
                     size_t n, size_t k, struct ew_qx_module *out, ew_error *err);
/* A stack of experts [n_stack, n, k] under one name ("...experts.gate_up_proj"): out[n_stack]. */
ew_status ew_qx_load_stack(struct ew_qx_loader *l, const struct ew_qx_scheme *s, const char *name,
                           size_t n_stack, size_t n, size_t k, struct ew_qx_module *out,
                           ew_error *err);

/* A tensor that only says how something was stored or is part of other mathematics (scales of a
 * cache), so that it may stay unread. */
bool ew_qx_is_known_extra(const char *name);
/* A tensor that only quantised modules have; for checkpoints that declare nothing. */
bool ew_qx_looks_quantised(const char *name);

#endif

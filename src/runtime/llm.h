/* runtime/llm.h - what the runtime needs from an engine's config.json: sizes, end tokens,
 * positions.
 *
 * Two writers: ours ("edgewise" object with rope sets and scales) and the reference system's
 * exporter (flat keys). */
#ifndef EW_RUNTIME_LLM_H
#define EW_RUNTIME_LLM_H

#include <jansson.h>

#include "checkpoint/rope.h"

#define EW_LLM_MAX_EOS  32
#define EW_LLM_MAX_ROPE 2

struct ew_llm_config {
    char family[32];
    uint32_t vocab, hidden, n_layers, n_heads, n_kv_heads, head_dim, max_position;
    float embedding_scale;
    int32_t eos[EW_LLM_MAX_EOS];
    uint32_t n_eos;
    struct ew_rope_spec rope[EW_LLM_MAX_ROPE];
    char rope_input[EW_LLM_MAX_ROPE][64]; /* the graph input that carries it */
    uint32_t n_rope;
};

ew_status ew_llm_config_parse(const char *text, const char *what, struct ew_llm_config *out,
                              ew_error *err);
/* Adds the eos_token_id (one or a list) of an object, and single ids; duplicates and negatives are
 * dropped. */
ew_status ew_llm_config_add_eos(struct ew_llm_config *c, const json_t *obj, const char *what,
                                ew_error *err);
void ew_llm_config_add_eos_id(struct ew_llm_config *c, int64_t id);
bool ew_llm_config_is_eos(const struct ew_llm_config *c, int32_t id);

#endif

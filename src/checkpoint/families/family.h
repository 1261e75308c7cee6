/* families/family.h - what a family is: a model_type, its keys, and a function that fills the spec.
 */
#ifndef EW_CHECKPOINT_FAMILY_H
#define EW_CHECKPOINT_FAMILY_H

#include "checkpoint/decoder.h"

struct ew_family {
    const char *type;        /* model_type */
    const char *const *keys; /* handled beside the common ones; NULL-terminated */
    /* s is zeroed but for family; fills everything, ew_family_read_shape() first. */
    ew_status (*read)(const struct ew_config *c, struct ew_decoder_spec *s, ew_error *err);
};

/* What the family's config class says when a key is absent; 0: the key is required. */
struct ew_family_defaults {
    int64_t vocab, hidden, inter, n_layers, n_heads;
    int64_t n_kv_heads; /* 0: n_heads */
    int64_t head_dim;   /* 0: hidden / n_heads */
    int64_t max_position;
    double norm_eps;
    double rope_theta;
    bool tied_head;
    const char *act_key;  /* NULL: "hidden_act" */
    const char *act;      /* NULL: "silu" */
    bool partial_rope;    /* partial_rotary_factor is understood: phi3 */
    int64_t original_max; /* phi3: what original_max_position_embeddings is when absent; else 0 */
    bool own_rope;        /* the family reads its rope sets itself: gemma3 */
};

/* Shapes, activation, tied head, one rope set, all layers alike (rope set 0, no window). */
ew_status ew_family_read_shape(const struct ew_config *c, const struct ew_family_defaults *d,
                               struct ew_decoder_spec *s, ew_error *err);
/* attention_bias and mlp_bias, as llama has them. */
ew_status ew_family_read_biases(const struct ew_config *c, bool mlp, struct ew_decoder_spec *s,
                                ew_error *err);
/* sliding_window as a size, or -1 when null. */
ew_status ew_family_read_window(const struct ew_config *c, int64_t fallback, int64_t *out,
                                ew_error *err);
/* layer_types into the layers' windows. *found: the key is there. */
ew_status ew_family_read_layer_types(const struct ew_config *c, int64_t window,
                                     struct ew_decoder_spec *s, bool *found, ew_error *err);
/* num_experts (or num_local_experts), num_experts_per_tok. */
ew_status ew_family_read_experts(const struct ew_config *c, int64_t n_fallback,
                                 int64_t top_k_fallback, struct ew_decoder_spec *s, ew_error *err);
/* An integer list of at least n entries (the rest is not read, as in transformers), or of any
 * number when n < 0; absent: *found false. Each is given to `use`. */
ew_status ew_family_read_ints(const struct ew_config *c, const char *key, int64_t n,
                              void (*use)(struct ew_decoder_spec *s, size_t i, int64_t v),
                              struct ew_decoder_spec *s, bool *found, ew_error *err);

extern const struct ew_family ew_family_qwen2, ew_family_qwen3, ew_family_qwen3_moe,
    ew_family_llama, ew_family_mistral, ew_family_mixtral, ew_family_phi3, ew_family_gemma3,
    ew_family_smollm3, ew_family_olmo2, ew_family_granite;

/* Windows as Qwen2 and Qwen3 spell them: use_sliding_window, sliding_window, and max_window_layers
 * (the first layer that has one) unless layer_types says which. */
ew_status ew_family_read_qwen_windows(const struct ew_config *c, struct ew_decoder_spec *s,
                                      ew_error *err);

#endif

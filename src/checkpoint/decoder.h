/* checkpoint/decoder.h - one description that every supported family fills, and its graph.
 *
 *   config.json --families/<family>.c--> ew_decoder_spec --decoder_graph.c--> ew_graph
 *                                                \--synth.c--> random checkpoint
 *
 * The spec is all that differs between the families: shapes, options, per-layer choices and the
 * spelling of tensor names. */
#ifndef EW_CHECKPOINT_DECODER_H
#define EW_CHECKPOINT_DECODER_H

#include "checkpoint/config.h"
#include "checkpoint/rope.h"
#include "checkpoint/safetensors.h"
#include "edgewise/graph.h"
#include "op/attrs.h"

enum ew_norm_place {
    EW_NORM_PRE,      /* x + f(norm(x)) */
    EW_NORM_POST,     /* x + norm(f(x)): olmo2 */
    EW_NORM_SANDWICH, /* x + norm(f(norm(x))): gemma3 */
};

struct ew_layer_spec {
    int8_t rope_set; /* index into rope[], -1: positions are not encoded */
    bool moe;
    int64_t window; /* -1: off */
};

struct ew_decoder_spec {
    const char *family;
    int64_t vocab, hidden, inter, n_layers, n_heads, n_kv_heads, head_dim, max_position;
    double norm_eps;
    int act; /* enum ew_act */
    bool qkv_bias, o_bias, mlp_bias, tied_head;
    bool fused_qkv, fused_gate_up; /* as stored: phi3 */
    bool norm_plus_one;            /* stored norm weights are w - 1: gemma3 */
    enum ew_norm_place norm_place;
    int qk_norm;                                            /* enum ew_qk_norm */
    ew_dtype kv_dtype;                                      /* of the cache: f32, f8e4m3, i8 */
    double attention_scale;                                 /* 0: 1 / sqrt(head_dim) */
    double attention_softcap, logits_softcap;               /* 0: off */
    double embedding_scale, residual_scale, logits_divisor; /* 1: off */
    int64_t n_experts, top_k, moe_inter;
    bool norm_topk;
    int n_rope; /* 1 or 2 */
    struct ew_rope_spec rope[2];
    struct ew_layer_spec *layers; /* [n_layers] */
};

/* Reads config into *out. UNSUPPORTED names the model_type, the key or the value. */
ew_status ew_decoder_spec_init(struct ew_decoder_spec *out, const struct ew_config *c,
                               const ew_logger *logger, ew_error *err);
void ew_decoder_spec_deinit(struct ew_decoder_spec *s);

/* JSON text of the LLM contract (the reference's keys, and ours under "edgewise"); ew_mem_free. */
ew_status ew_decoder_llm_config(const struct ew_decoder_spec *s, const struct ew_config *c,
                                char **out, ew_error *err);
/* Name of the graph input that carries rope set i. Static. */
const char *ew_decoder_rope_input(int i);

/* The graph; takes st over in every case (the graph keeps it, or it is closed). */
ew_status ew_decoder_build(const struct ew_decoder_spec *s, const struct ew_config *c,
                           struct ew_safetensors *st, const ew_checkpoint_opts *opts,
                           ew_graph **out, ew_error *err);

/* The graph of layer i alone, over a borrowed st that must outlive it, for one sequence of seq_len
 * tokens from position 0. Inputs as in the whole graph with batch 1 and a cache of seq_len tokens;
 * output "hidden" is the residual stream after the layer. Nodes have their usual names. */
ew_status ew_decoder_build_layer(const struct ew_decoder_spec *s, const struct ew_safetensors *st,
                                 int64_t i, int64_t seq_len, ew_graph **out, ew_error *err);

#endif

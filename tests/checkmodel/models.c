/* models.c - the shapes: each is here for what is odd about it. Random weights; initializer_range
 * is about 1 / sqrt(hidden), so that heads attend and logits differ. */
#include "checkmodel.h"

#define LAST                                                                                       \
    ",\"rms_norm_eps\":1e-6,\"bos_token_id\":1,\"eos_token_id\":2,\"max_position_embeddings\":"    \
    "1024,\"hidden_act\":\"silu\",\"torch_dtype\":\"bfloat16\"}"
#define THETA ",\"rope_theta\":10000.0"
#define SIZES(h, inter, layers, heads, kv, vocab, std)                                             \
    "\"hidden_size\":" #h ",\"intermediate_size\":" #inter ",\"num_hidden_layers\":" #layers       \
    ",\"num_attention_heads\":" #heads ",\"num_key_value_heads\":" #kv ",\"vocab_size\":" #vocab   \
    ",\"initializer_range\":" #std
#define LLAMA  "{\"model_type\":\"llama\",\"architectures\":[\"LlamaForCausalLM\"],"
#define QWEN2  "{\"model_type\":\"qwen2\",\"architectures\":[\"Qwen2ForCausalLM\"],"
#define QWEN3  "{\"model_type\":\"qwen3\",\"architectures\":[\"Qwen3ForCausalLM\"],"
#define GEMMA3 "{\"model_type\":\"gemma3_text\",\"architectures\":[\"Gemma3ForCausalLM\"],"
#define PHI3   "{\"model_type\":\"phi3\",\"architectures\":[\"Phi3ForCausalLM\"],"
#define MOE    "{\"model_type\":\"qwen3_moe\",\"architectures\":[\"Qwen3MoeForCausalLM\"],"
#define TIED   ",\"tie_word_embeddings\":true"
#define APART  ",\"tie_word_embeddings\":false"

/* clang-format off */
const struct cm_model cm_models[] = {
    { "qwen3 d64 gqa1 odd vocab tied", QWEN3 SIZES(96, 160, 3, 3, 3, 1001, 0.1) ",\"head_dim\":64" TIED THETA LAST, .cap = 200, .in = 130 },
    { "llama d80 gqa5 biases h200", LLAMA SIZES(200, 136, 3, 5, 1, 997, 0.07) ",\"head_dim\":80,\"attention_bias\":true,\"mlp_bias\":true" APART THETA LAST, .cap = 131, .in = 129 },
    { "qwen3 d96 gqa7 h104", QWEN3 SIZES(104, 200, 2, 7, 1, 515, 0.1) ",\"head_dim\":96" APART THETA LAST, .cap = 300, .in = 256 },
    { "gemma3 d256 windows softcap", GEMMA3 SIZES(136, 264, 4, 4, 1, 768, 0.08) ",\"head_dim\":256,\"query_pre_attn_scalar\":256,\"sliding_window\":70,\"final_logit_softcapping\":8.0,\"hidden_activation\":\"gelu_pytorch_tanh\",\"layer_types\":[\"sliding_attention\",\"sliding_attention\",\"full_attention\",\"sliding_attention\"]" TIED ",\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"linear\",\"factor\":8.0,\"rope_theta\":1000000.0},\"sliding_attention\":{\"rope_type\":\"default\",\"rope_theta\":10000.0}}" LAST, .cap = 333, .in = 257 },
    { "llama d128 gqa12", LLAMA SIZES(256, 320, 2, 12, 1, 333, 0.06) ",\"head_dim\":128" APART THETA LAST, .cap = 300, .in = 300 },
    { "qwen2 d64 gqa7 bias", QWEN2 SIZES(448, 640, 2, 7, 1, 1023, 0.05) TIED THETA LAST, .cap = 128, .in = 128 },
    { "llama d40 h100 inter52", LLAMA SIZES(100, 52, 2, 6, 2, 129, 0.1) ",\"head_dim\":40" APART THETA LAST, .cap = 90, .in = 65 },
    { "phi3 half rope d48 gqa3", PHI3 SIZES(288, 152, 2, 6, 2, 402, 0.06) ",\"sliding_window\":37,\"original_max_position_embeddings\":1024,\"partial_rotary_factor\":0.5,\"pad_token_id\":0" APART THETA LAST, .cap = 190, .in = 100 },
    { "phi3 longrope two tables", PHI3 SIZES(288, 152, 2, 6, 2, 402, 0.06) ",\"sliding_window\":null,\"original_max_position_embeddings\":48,\"partial_rotary_factor\":0.5,\"pad_token_id\":0,\"rope_scaling\":{\"type\":\"longrope\",\"short_factor\":[1.00,1.05,1.10,1.15,1.20,1.25,1.30,1.35,1.40,1.45,1.50,1.55],\"long_factor\":[2.00,2.50,3.00,3.50,4.00,4.50,5.00,5.50,6.00,6.50,7.00,7.50]}" APART THETA LAST, .cap = 100, .in = 40 },
    { "granite scales d32", "{\"model_type\":\"granite\",\"architectures\":[\"GraniteForCausalLM\"]," SIZES(160, 224, 2, 5, 5, 300, 0.08) ",\"attention_bias\":true,\"mlp_bias\":true,\"attention_multiplier\":0.2,\"embedding_multiplier\":1.5,\"logits_scaling\":0.5,\"residual_multiplier\":0.8" APART THETA LAST, .cap = 100, .in = 64 },
    { "olmo2 whole norms d80", "{\"model_type\":\"olmo2\",\"architectures\":[\"Olmo2ForCausalLM\"]," SIZES(240, 136, 2, 3, 3, 555, 0.07) APART THETA LAST, .cap = 177, .in = 176 },
    { "smollm3 some without rope", "{\"model_type\":\"smollm3\",\"architectures\":[\"SmolLM3ForCausalLM\"]," SIZES(192, 264, 3, 6, 2, 601, 0.07) ",\"no_rope_layers\":[1,0,1],\"use_sliding_window\":false" TIED THETA LAST, .cap = 150, .in = 150 },
    { "qwen3 d128 one kernel", QWEN3 SIZES(512, 1536, 3, 8, 4, 2049, 0.045) ",\"head_dim\":128" TIED THETA LAST, .cap = 700, .in = 512, .tactic = "step_kernel" },
    { "qwen3 d64 gqa8 one kernel", QWEN3 SIZES(192, 320, 2, 8, 1, 1001, 0.07) ",\"head_dim\":64" TIED THETA LAST, .cap = 130, .in = 64, .tactic = "step_kernel" },
    { "llama d64 bias one kernel", LLAMA SIZES(320, 448, 2, 5, 5, 777, 0.06) ",\"attention_bias\":true,\"mlp_bias\":true" APART THETA LAST, .cap = 257, .in = 256, .tactic = "step_kernel" },
    { "qwen3 window one kernel", QWEN3 SIZES(256, 512, 3, 4, 2, 900, 0.06) ",\"head_dim\":128,\"use_sliding_window\":true,\"sliding_window\":70,\"max_window_layers\":1" APART THETA LAST, .cap = 320, .in = 128, .tactic = "step_kernel" },
    { "qwen3 int4 g128 one kernel", QWEN3 SIZES(512, 1024, 2, 8, 2, 1024, 0.045) ",\"head_dim\":64" APART THETA LAST, .cap = 300, .in = 256, .tactic = "step_kernel", .scheme = "int4", .method = "rtn" },
    { "qwen3 int4 g32 odd rows", QWEN3 SIZES(96, 160, 2, 5, 1, 1001, 0.1) ",\"head_dim\":64" APART THETA LAST, .cap = 130, .in = 128, .scheme = "int4", .method = "rtn", .group = 32 },
    { "llama int4 asymmetric g64", LLAMA SIZES(320, 448, 2, 5, 1, 501, 0.06) APART THETA LAST, .cap = 129, .in = 128, .scheme = "int4", .method = "rtn", .group = 64, .asymmetric = true },
    { "llama int8 d80", LLAMA SIZES(160, 208, 2, 4, 2, 333, 0.08) ",\"head_dim\":80" APART THETA LAST, .cap = 129, .in = 128, .scheme = "int8", .method = "rtn" },
    { "llama fp8 d96", LLAMA SIZES(192, 272, 2, 4, 4, 333, 0.07) ",\"head_dim\":96" APART THETA LAST, .cap = 129, .in = 128, .scheme = "fp8" },
    { "llama mxfp4", LLAMA SIZES(192, 288, 2, 3, 1, 333, 0.07) APART THETA LAST, .cap = 129, .in = 128, .scheme = "mxfp4" },
    { "llama nvfp4", LLAMA SIZES(192, 288, 2, 3, 1, 333, 0.07) APART THETA LAST, .cap = 129, .in = 128, .scheme = "nvfp4" },
    { "qwen3 f32 cache d64", QWEN3 SIZES(96, 160, 2, 5, 1, 501, 0.1) ",\"head_dim\":64" TIED THETA LAST, .cap = 200, .in = 128, .kv = EW_DTYPE_F32 },
    { "qwen3 bf16 cache d128 one kernel", QWEN3 SIZES(256, 256, 2, 4, 1, 501, 0.06) ",\"head_dim\":128" TIED THETA LAST, .cap = 200, .in = 128, .kv = EW_DTYPE_BF16, .tactic = "step_kernel", .loose = 8 },
    { "qwen3 int8 cache d64", QWEN3 SIZES(96, 160, 2, 5, 1, 501, 0.1) ",\"head_dim\":64" TIED THETA LAST, .cap = 200, .in = 128, .kv = EW_DTYPE_I8, .loose = 8 },
    { "qwen3 fp8 cache d80", QWEN3 SIZES(96, 160, 2, 5, 1, 501, 0.1) ",\"head_dim\":80" TIED THETA LAST, .cap = 200, .in = 128, .kv = EW_DTYPE_F8E4M3, .loose = 30 },
    { "moe e6 k3 inter40", MOE SIZES(120, 88, 2, 4, 2, 402, 0.09) ",\"head_dim\":32,\"moe_intermediate_size\":40,\"num_experts\":6,\"num_experts_per_tok\":3,\"norm_topk_prob\":true,\"decoder_sparse_step\":1,\"mlp_only_layers\":[]" APART THETA LAST, .cap = 100, .in = 70, .routes = true },
    { "moe int4 e8 k2", MOE SIZES(128, 128, 2, 4, 1, 402, 0.09) ",\"head_dim\":64,\"moe_intermediate_size\":64,\"num_experts\":8,\"num_experts_per_tok\":2,\"norm_topk_prob\":false,\"decoder_sparse_step\":1,\"mlp_only_layers\":[1]" APART THETA LAST, .cap = 100, .in = 70, .routes = true, .scheme = "int4", .method = "rtn", .group = 32 },
    { "llama f16 weights d64", LLAMA SIZES(96, 160, 2, 5, 1, 501, 0.1) ",\"head_dim\":64,\"dtype\":\"float16\"" APART THETA LAST, .cap = 150, .in = 128 },
    { "llama f32 weights d64", LLAMA SIZES(96, 160, 2, 5, 1, 501, 0.1) ",\"head_dim\":64,\"dtype\":\"float32\"" APART THETA LAST, .cap = 150, .in = 128 },
    { "llama d36 h108", LLAMA SIZES(108, 60, 2, 3, 1, 77, 0.1) ",\"head_dim\":36" APART THETA LAST, .cap = 70, .in = 33 },
    { "qwen3 h8 one layer vocab 3", QWEN3 SIZES(8, 24, 1, 1, 1, 3, 0.3) ",\"head_dim\":16" TIED THETA LAST, .cap = 34, .in = 16 },
    { "llama h1032 long steps", LLAMA SIZES(1032, 1096, 2, 6, 3, 1155, 0.03) ",\"head_dim\":96" APART THETA LAST, .cap = 700, .in = 600 },
    { "llama d80 mma", LLAMA SIZES(200, 136, 2, 5, 1, 997, 0.07) ",\"head_dim\":80,\"attention_bias\":true" APART THETA LAST, .cap = 131, .in = 129, .tactic = "mma_bf16" },
    { "llama d80 wgmma", LLAMA SIZES(200, 136, 2, 5, 1, 997, 0.07) ",\"head_dim\":80,\"attention_bias\":true" APART THETA LAST, .cap = 300, .in = 280, .tactic = "wgmma_bf16" },
    { "llama d64 strip", LLAMA SIZES(200, 136, 2, 5, 1, 997, 0.07) ",\"head_dim\":64,\"attention_bias\":true" APART THETA LAST, .cap = 131, .in = 64, .tactic = "strip_bf16" },
    { "llama d64 rows16", LLAMA SIZES(200, 136, 2, 5, 1, 997, 0.07) ",\"head_dim\":64,\"mlp_bias\":true" APART THETA LAST, .cap = 131, .in = 16, .tactic = "rows16_bf16" },
    { "llama d64 rows", LLAMA SIZES(200, 136, 2, 5, 1, 997, 0.07) ",\"head_dim\":64,\"mlp_bias\":true" APART THETA LAST, .cap = 131, .in = 8, .tactic = "rows_bf16" },
    { "llama d64 gemv", LLAMA SIZES(204, 136, 2, 5, 1, 997, 0.07) ",\"head_dim\":64,\"mlp_bias\":true" APART THETA LAST, .cap = 131, .in = 65, .tactic = "gemv_bf16" },
    { "int4 g128 dense", LLAMA SIZES(384, 640, 2, 5, 1, 997, 0.05) ",\"head_dim\":128" APART THETA LAST, .cap = 400, .in = 333, .tactic = "dense_q4", .scheme = "int4", .method = "rtn" },
    { "int4 g128 wgmma", LLAMA SIZES(384, 640, 2, 5, 1, 997, 0.05) ",\"head_dim\":128" APART THETA LAST, .cap = 300, .in = 257, .tactic = "wgmma_q4", .scheme = "int4", .method = "rtn" },
    { "int4 g128 strip", LLAMA SIZES(384, 640, 2, 5, 1, 997, 0.05) ",\"head_dim\":128" APART THETA LAST, .cap = 130, .in = 64, .tactic = "strip_q4", .scheme = "int4", .method = "rtn" },
    { "int4 g128 each length", QWEN3 SIZES(512, 1024, 3, 8, 2, 1024, 0.045) ",\"head_dim\":64" APART THETA LAST, .cap = 200, .in = 128, .scheme = "int4", .method = "rtn", .each = true },
    { "int4 g64 digits", LLAMA SIZES(192, 320, 2, 5, 1, 997, 0.07) ",\"head_dim\":64" APART THETA LAST, .cap = 130, .in = 8, .tactic = "digits_q4", .scheme = "int4", .method = "rtn", .group = 64 },
    { "int4 g32 rows", LLAMA SIZES(160, 224, 2, 5, 1, 997, 0.07) ",\"head_dim\":64" APART THETA LAST, .cap = 130, .in = 8, .tactic = "rows_q4", .scheme = "int4", .method = "rtn", .group = 32 },
    { "int8 one kernel", LLAMA SIZES(256, 512, 2, 4, 2, 700, 0.06) ",\"head_dim\":64" APART THETA LAST, .cap = 130, .in = 64, .tactic = "step_kernel", .scheme = "int8", .method = "rtn" },
    { "int8 digits", LLAMA SIZES(192, 320, 2, 5, 1, 997, 0.07) ",\"head_dim\":64" APART THETA LAST, .cap = 130, .in = 8, .tactic = "digits_q8", .scheme = "int8", .method = "rtn" },
};
/* clang-format on */
const size_t cm_n_models = sizeof(cm_models) / sizeof(cm_models[0]);

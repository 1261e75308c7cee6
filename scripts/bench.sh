#!/bin/sh
# Speed of this machine on a synthetic Qwen3-0.6B shape (bf16), beside the machine's ceilings measured in the same run; llama-bench too when it
# is on the PATH. Arguments go to `edgewise bench`.
set -eu
cd "$(dirname "$0")/.."
work=${EW_BENCH_DIR:-${TMPDIR:-/tmp}/edgewise-bench}
mkdir -p "$work"
cat >"$work/config.json" <<'JSON'
{"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072,
 "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
 "max_position_embeddings": 40960, "rms_norm_eps": 1e-06, "rope_theta": 1000000, "hidden_act": "silu",
 "tie_word_embeddings": true, "torch_dtype": "bfloat16", "attention_bias": false}
JSON
[ -f "$work/model/config.json" ] || build/edgewise synth "$work/config.json" "$work/model"
build/edgewise bench "$work/model" --cache-dir "$work/cache" "$@"
if command -v llama-bench >/dev/null && [ -n "${EW_LLAMA_MODEL:-}" ]; then
    llama-bench -m "$EW_LLAMA_MODEL" -p 512 -n 128
else
    echo "skipped: llama-bench (not on the PATH, or EW_LLAMA_MODEL is not set)"
fi

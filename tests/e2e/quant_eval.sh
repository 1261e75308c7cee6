#!/bin/sh
# Quantised models through the tools that prove them: a scale that is 2 % off is named, activations and caches are measured, engines
# keep the width of the weights, and building one does not unpack it.
. "$(dirname "$0")/lib.sh"

q() {
    out=$1
    shift
    works "quantize $*" "$ew" quantize models/tiny "$tmp/$out" -q -t 2 --calibration-tokens 512 "$@"
}
# planted WHAT MODULE FACTOR: a copy of $tmp/WHAT whose MODULE has its scales off; parity must name it and fail.
planted() {
    rm -rf "$tmp/bad"
    cp -r "$tmp/$1" "$tmp/bad"
    chmod u+w "$tmp/bad"/*
    "$tool" scale "$tmp/bad/model.safetensors" "$2.weight_scale" "$3" || bad "cannot change $2"
    "$ew" eval parity "$tmp/bad" --against models/tiny -q >"$tmp/out" 2>"$tmp/err"
    equal "$1: $2 times $3: exit code" $? 1
    has "$1: $2 times $3" "$(grep suspicious: "$tmp/out")" "suspicious: $2: gain"
}
# below WHAT GOT LIMIT
below() { if awk -v a="$2" -v b="$3" 'BEGIN { exit !(a != "" && a <= b) }'; then good; else bad "$1: $2 is more than $3"; fi; }

# A scale that is off by 2 % among the noise of four bits.
q awq --scheme int4 --lm-head int8
q rtn --scheme int4 --method rtn
for m in awq rtn; do
    has "$m: packed" "$("$ew" inspect "$tmp/$m/model.safetensors")" "mlp.down_proj.weight_packed  dtype=i32"
    works "$m: parity of a clean one" "$ew" eval parity "$tmp/$m" --against models/tiny -q
    has "$m: parity of a clean one" "$(cat "$tmp/out")" "nothing suspicious"
done
planted awq model.layers.2.mlp.down_proj 1.02
planted awq model.layers.3.self_attn.q_proj 0.98
planted rtn model.layers.4.mlp.up_proj 1.02
planted rtn model.layers.1.self_attn.k_proj 0.98

# Activations: exact is the default; the cost of int8 is seen; a weight-only checkpoint declares none; the cache keeps them apart.
cat >"$tmp/text" <<'T'
The old man walked along the road and looked at the sea. It was a warm day, and the boats lay still in the harbour.
"Where do you go?" asked the girl. "To the mill," he said, "to fetch some flour." They went together, and on the way
he told her the story of a king who had three sons. The first one was strong, the second one was clever.
T
q int8 --scheme int8
q nvfp4 --scheme nvfp4
kl() { # MODEL OPTIONS...
    m=$1
    shift
    works "kld $m $*" "$ew" eval kld "$tmp/$m" --against "$tmp/$m" "$tmp/text" $fast --json "$@" && value "$tmp/out" mean_kl.value
}
equal "exact is the default" "$(kl awq --against-activations exact)" "0.0"
for m in awq int8; do
    kl $m --against-activations exact --activations int8 >"$tmp/kl"
    if awk '{ exit !($1 > 1e-6 && $1 < 0.05) }' "$tmp/kl"; then good; else bad "$m: int8 activations cost $(cat "$tmp/kl")"; fi
done
equal "int8 declares what int8 does" "$(kl int8 --activations declared --against-activations int8)" "0.0"
for m in awq nvfp4; do
    equal "$m declares no activations" "$(value "$tmp/$m/config.json" quantization_config.config_groups.group_0.input_activations)" null
    equal "$m: declared is exact" "$(kl $m --activations declared)" "0.0"
done
"$ew" eval parity "$tmp/int8" --against "$tmp/int8" --activations int8 -q --json --chunks 1 --window 32 >"$tmp/out" 2>"$tmp/err"
if awk -v e="$(value "$tmp/out" logits_error)" 'BEGIN { exit !(e > 1e-4 && e < 0.2) }'; then good; else bad "parity takes no --activations"; fi
for c in "run $tmp/int8 -p Hello -n 4" "bench $tmp/int8 --prefill 8 --decode 8 --gen 2 --reps 1 --no-ceilings --rows none" \
    "eval ppl $tmp/int8 $tmp/text" "eval kld $tmp/int8 --against $tmp/int8 $tmp/text"; do
    works "$c" "$ew" $c $fast --activations int8 --kv int8
done
works "chat" "$ew" chat "$tmp/int8" $fast --activations int8 --kv int8 </dev/null
works "build" "$ew" build "$tmp/int8" "$tmp/e8" -q --no-timing --activations int8 --kv int8
works "export" "$ew" export "$tmp/int8" "$tmp/x8" -q --activations int8
"$ew" run "$tmp/int8" -p Hello $fast --activations fast >"$tmp/out" 2>"$tmp/err"
equal "unknown activations" $? 2
# Engines of the cache are told apart: exact and int8 of one model, of one key otherwise, are two.
rm -rf "$tmp/cache"
for a in exact int8 int8; do works "run, $a" "$ew" run "$tmp/int8" -p Hello -n 2 $fast --activations $a; done
equal "engines in the cache" "$(find "$tmp/cache" -name llm.engine | wc -l)" 2

# Width in the engine, and memory while it is built: 63 million weights are 252 MB as f32, 32 MB as they are.
cat >"$tmp/config.json" <<'T'
{"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 4096,
 "num_hidden_layers": 4, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 2048,
 "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "max_position_embeddings": 512, "hidden_act": "silu",
 "tie_word_embeddings": true, "dtype": "bfloat16"}
T
works "synth" "$ew" synth "$tmp/config.json" "$tmp/wide"
works "quantize" "$ew" quantize "$tmp/wide" "$tmp/wide4" -q --scheme int4 --method rtn --lm-head int8
works "build: memory" "$tool" rss 130e6 "$ew" build "$tmp/wide4" "$tmp/wide-engine" -q --no-timing
works "build" "$ew" build "$tmp/awq" "$tmp/awq-engine" -q --no-timing
for e in wide-engine awq-engine; do
    works "inspect" "$ew" inspect "$tmp/$e" --json
    has "$e: format" "$(value "$tmp/out" weights.0.format)" "i4 g128"
    below "$e: bits a weight" "$(value "$tmp/out" weights.0.bits_per_weight)" 4.6
    has "$e: the head" "$(value "$tmp/out" weights.1.format)" "i8"
done
equal "all linear layers are packed" "$(value "$tmp/out" weights.0.matrices)" 24
finish

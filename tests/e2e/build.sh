#!/bin/sh
# Building: what it leaves behind when it is killed, how much memory it takes, its options, inspect of all it writes.
. "$(dirname "$0")/lib.sh"

works "build" "$ew" build models/tiny "$tmp/e" --timing-cache "$tmp/timing" -t 2
has "progress in words" "$(cat "$tmp/err")" "pack weights"
equal "a timing cache" "$([ -s "$tmp/timing" ] && echo yes)" yes
works "build again from the timing cache" "$ew" build models/tiny "$tmp/e2" --timing-cache "$tmp/timing" -t 2 -q
equal "quiet" "$(cat "$tmp/err")" ""
works "the engine answers" "$ew" run "$tmp/e" -p "What is the capital of France?"
has "the engine answers" "$(cat "$tmp/out")" "Paris"
for a in "$tmp/e" "$tmp/e/llm.engine" models/tiny models/tiny/model.safetensors; do
    works "inspect $(basename "$a")" "$ew" inspect "$a"
    equal "inspect $(basename "$a") says something" "$([ -s "$tmp/out" ] && echo yes)" yes
    works "inspect --json $(basename "$a")" "$ew" inspect "$a" --json
    "$tool" json "$tmp/out" "#" >"$tmp/n" 2>&1 || bad "inspect --json $(basename "$a"): not JSON"
done
works "inspect --graph" "$ew" inspect models/tiny --graph
has "inspect --graph" "$(cat "$tmp/out")" "Attention"
for kv in f32 f16 bf16 fp8 int8; do
    works "a $kv cache" "$ew" run models/tiny -p "What is the capital of France?" --kv $kv $fast
    has "a $kv cache" "$(cat "$tmp/out")" "Paris"
done
refused "an unknown tactic" "" "$ew" build models/tiny "$tmp/e3" --tactic linear_none -q
refused "a folder that is a file" "" "$ew" build models/tiny LICENSE --no-timing -q

# Killed at any moment: no file under the final name, and the next build is fine.
sleepy=0
for delay in 0.005 0.01 0.02 0.03 0.04 0.05 0.07 0.09 0.12 0.2; do
    rm -rf "$tmp/k"
    "$ew" build models/tiny "$tmp/k" -q >/dev/null 2>&1 &
    pid=$!
    sleep $delay
    if kill -9 $pid 2>/dev/null; then sleepy=$((sleepy + 1)); fi
    wait $pid 2>/dev/null
    if [ -e "$tmp/k/llm.engine" ]; then
        works "an engine that is there is whole (killed after $delay s)" "$ew" inspect "$tmp/k/llm.engine"
    else
        good
    fi
done
[ $sleepy -gt 0 ] || bad "no builder was killed"
works "build where one was killed" "$ew" build models/tiny "$tmp/k" --no-timing -q
works "run it" "$ew" run "$tmp/k" -p "Hello!" -n 4
equal "nothing else is left" "$(ls -A "$tmp/k" | grep -c -E 'tmp|partial')" 0
# The same through the cache of `run`.
for delay in 0.01 0.03 0.06 0.1; do
    "$ew" run models/tiny -p Hello -n 1 -q --rebuild --cache-dir "$tmp/kc" >/dev/null 2>&1 &
    pid=$!
    sleep $delay
    kill -9 $pid 2>/dev/null
    wait $pid 2>/dev/null
    works "run after a kill at $delay s" "$ew" run models/tiny -p "What is the capital of France?" -q --cache-dir "$tmp/kc"
    has "run after a kill at $delay s" "$(cat "$tmp/out")" "Paris"
done

# Memory: 1.3 times the weights and 512 MiB. A checkpoint large enough for the first term to count.
cat >"$tmp/config.json" <<'J'
{"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072,
 "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 65536,
 "max_position_embeddings": 40960, "rms_norm_eps": 1e-06, "rope_theta": 1000000, "tie_word_embeddings": true,
 "hidden_act": "silu", "torch_dtype": "bfloat16", "attention_bias": false, "eos_token_id": 1, "bos_token_id": 0}
J
if [ "$(df -Pk "$tmp" | awk 'NR == 2 { print ($4 > 4000000) }')" = 1 ]; then
    works "synth" "$ew" synth "$tmp/config.json" "$tmp/big" -q
    weights=$(du -b -L -c "$tmp"/big/*.safetensors | awk 'END { print $1 }')
    works "memory of a build" "$tool" rss $((weights * 13 / 10 + 536870912)) "$ew" build "$tmp/big" "$tmp/big-e" -q --no-timing
    echo "$name: weights $((weights / 1000000)) MB: $(cat "$tmp/out")"
    works "build --json" "$ew" build models/tiny "$tmp/tiny-e" -q --no-timing --json
    for k in seconds peak_resident_bytes engine_bytes; do
        [ "$("$tool" json "$tmp/out" $k)" != "" ] && good || bad "build --json: no $k"
    done
    works "a model without a tokenizer runs" "$ew" bench "$tmp/big-e" --prefill 16 --decode 16 --gen 4 --reps 1 --no-ceilings --rows none --max-kv-len 128
    has "bench" "$(cat "$tmp/out")" "tok/s"
else
    skip "memory of a build (less than 4 GB free in $tmp)"
fi
finish

#!/bin/sh
# The least that uses everything: build, prefill, decode on two threads, a batch. For the builds that are slow.
. "$(dirname "$0")/lib.sh"
works "an answer" "$ew" run models/tiny -p "What is the capital of France?" -t 2 --max-kv-len 256 $fast
has "an answer" "$(cat "$tmp/out")" "Paris"
printf '%s' '{"batch_size": 3, "top_k": 20, "temperature": 0.9, "max_generate_length": 8, "requests": [
  {"messages": [{"role": "user", "content": "Hello!"}]},
  {"messages": [{"role": "user", "content": "Count from 5 to 15."}], "stop": ", 8", "num_logprobs": 3},
  {"messages": [{"role": "user", "content": "What is 27 plus 48?"}], "logit_bias": {"100": -50}}]}' >"$tmp/in.json"
works "a batch" "$ew" run models/tiny -t 2 --max-kv-len 256 --max-input-len 9 $fast --requests "$tmp/in.json" -o "$tmp/out.json"
equal "a batch" "$("$tool" json "$tmp/out.json" responses.#)" 3
works "parity" "$ew" eval parity tests/golden/families/mixtral --reference tests/golden/families/mixtral/reference.safetensors -t 2 $fast
works "profile and trace" "$ew" run models/tiny -p "Hello!" -n 4 -t 2 --max-kv-len 256 --profile --trace "$tmp/t.json" $fast
finish

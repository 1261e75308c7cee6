#!/bin/sh
# Request files of the reference system: keys and values of the responses, bad rows, what is refused by name.
. "$(dirname "$0")/lib.sh"

run() { "$ew" run models/tiny $fast --requests "$1" -o "$tmp/out.json"; }

cat >"$tmp/in.json" <<'J'
{"batch_size": 3, "temperature": 1.0, "top_p": 0.8, "top_k": 1, "max_generate_length": 40,
 "requests": [
  {"messages": [{"role": "user", "content": "What is the capital of France?"}]},
  {"messages": [{"role": "system", "content": [{"type": "text", "text": "You are a helpful "}, {"type": "text", "text": "assistant."}]},
                {"role": "user", "content": [{"type": "text", "text": "What is 27 plus 48?"}]}]},
  {"messages": [{"role": "user", "content": "Count from 5 to 15."}], "stop": ", 8"},
  {"messages": [{"role": "user", "content": "Count from 5 to 15."}], "stop": [", 12", ", 9"], "num_logprobs": 2},
  {"messages": [{"role": "user", "content": "Count from 5 to 15."}], "logit_bias": {"4072": 100}}
 ]}
J
works "a request file" run "$tmp/in.json"
o=$tmp/out.json
equal "input_file" "$(value "$o" input_file)" "$tmp/in.json"
equal "responses" "$(value "$o" responses.#)" 5
equal "request 0" "$(value "$o" responses.0.output_text)" "The capital of France is Paris."
equal "request 1" "$(value "$o" responses.1.output_text)" "27 + 48 = 75."
equal "stop, a string" "$(value "$o" responses.2.output_text)" "5, 6, 7"
equal "stop, a list" "$(value "$o" responses.3.output_text)" "5, 6, 7, 8"
equal "finish of stop" "$(value "$o" responses.2.finish_reason)" "stop-words"
equal "finish of the end" "$(value "$o" responses.0.finish_reason)" "end-of-sequence"
equal "logit_bias makes the end the first token" "$(value "$o" responses.4.output_text)" ""
equal "request_idx" "$(value "$o" responses.4.request_idx)" 4
equal "batch_idx" "$(value "$o" responses.4.batch_idx)" 1
equal "messages, a string becomes a part" "$(value "$o" responses.0.messages)" \
    '[{"content":[{"text":"What is the capital of France?","type":"text"}],"role":"user"}]'
equal "formatted_system_prompt" "$(value "$o" responses.1.formatted_system_prompt)" \
    "<|im_start|>system
You are a helpful assistant.<|im_end|>"
has "formatted_complete_request" "$(value "$o" responses.0.formatted_complete_request)" \
    "<|im_start|>user
What is the capital of France?<|im_end|>
<|im_start|>assistant"
equal "two logprobs a token" "$(value "$o" responses.3.logprobs.0.#)" 2
equal "logprob keys" "$(value "$o" responses.3.logprobs.0.0.#)" 4
within "the likeliest first token is certain" "$(value "$o" responses.3.logprobs.0.0.logprob)" -0.01 1
equal "its bytes" "$(value "$o" responses.3.logprobs.0.0.bytes)" "[53]"
if "$tool" json "$o" responses.0.logprobs >/dev/null 2>&1; then bad "logprobs that nobody asked for"; else good; fi

cat >"$tmp/raw.json" <<'J'
{"apply_chat_template": false, "top_k": 1, "max_generate_length": 12, "requests": [
  {"messages": [{"role": "user", "content":
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"}]}]}
J
works "apply_chat_template false" run "$tmp/raw.json"
equal "raw text" "$(value "$o" responses.0.output_text)" "The capital of France is Paris."
printf '%s' '{"add_generation_prompt": false, "top_k": 1, "max_generate_length": 2, "requests": [
  {"messages": [{"role": "user", "content": "Hello!"}]}]}' >"$tmp/in.json"
works "add_generation_prompt false" run "$tmp/in.json"
has_not "add_generation_prompt false" "$(value "$o" responses.0.formatted_complete_request)" "assistant"
printf '%s' '{"enable_thinking": true, "top_k": 1, "max_generate_length": 2, "requests": [
  {"messages": [{"role": "user", "content": "Hello!"}]}]}' >"$tmp/in.json"
works "enable_thinking" run "$tmp/in.json"
has_not "enable_thinking" "$(value "$o" responses.0.formatted_complete_request)" "</think>"
printf '%s' '{"top_k": 1, "max_generate_length": 2, "requests": [{"messages": [{"role": "user", "content": "Hi"}],
  "tools": [{"type": "function", "function": {"name": "get_weather", "parameters": {}}}]}]}' >"$tmp/in.json"
works "tools" run "$tmp/in.json"
has "tools" "$(value "$o" responses.0.formatted_complete_request)" "get_weather"

# Seeds: the same file twice gives the same bytes; requests in one batch or one by one too.
questions='{"messages": [{"role": "user", "content": "Tell me a story about a brave fox."}]},
 {"messages": [{"role": "user", "content": "Hello!"}]},
 {"messages": [{"role": "user", "content": "Tell me a story about a small boat."}]}'
for n in 1 2 3; do
    printf '{"seed": 11, "temperature": 1.1, "top_k": 40, "batch_size": %s, "max_generate_length": 50, "requests": [%s]}' \
        $n "$questions" >"$tmp/in.json"
    run "$tmp/in.json" && value "$o" responses.0.output_text >"$tmp/seed.$n" && value "$o" responses.0.finish_reason >>"$tmp/seed.$n"
done
if cmp -s "$tmp/seed.1" "$tmp/seed.3" && [ -s "$tmp/seed.1" ]; then good; else bad "a sampled answer depends on the batch"; fi

# One bad row: its own error, the others are answered, the exit code says so.
long=$(awk 'BEGIN { for (i = 0; i < 1500; i++) printf "hello there " }')
printf '{"batch_size": 2, "top_k": 1, "max_generate_length": 20, "requests": [
  {"messages": [{"role": "user", "content": "%s"}]},
  {"messages": [{"role": "user", "content": "What is the capital of France?"}]}]}' "$long" >"$tmp/in.json"
refused "a prompt longer than the cache" "request 0: " "$ew" run models/tiny $fast --max-kv-len 512 --requests "$tmp/in.json" -o "$o"
has "both numbers" "$(cat "$tmp/err")" "512"
equal "the bad row" "$(value "$o" responses.0.finish_reason)" "error"
has "the bad row's text" "$(value "$o" responses.0.output_text)" "cannot handle this request"
equal "its neighbour" "$(value "$o" responses.1.output_text)" "The capital of France is Paris."

bad_file() { # WHAT PART JSON
    printf '%s' "$3" >"$tmp/bad.json"
    refused "$1" "$2" "$ew" run models/tiny $fast --requests "$tmp/bad.json"
}
m='"messages": [{"role": "user", "content": "Hi"}]'
bad_file "lora_name" "lora_name \"x\"" "{\"requests\": [{$m, \"lora_name\": \"x\"}]}"
bad_file "an image" "\"image\" is not supported" \
    '{"requests": [{"messages": [{"role": "user", "content": [{"type": "image", "image": "a.png"}]}]}]}'
bad_file "audio" "\"audio\" is not supported" \
    '{"requests": [{"messages": [{"role": "user", "content": [{"type": "audio", "audio": "a.wav"}]}]}]}'
bad_file "no requests" "\"requests\"" '{}'
bad_file "empty requests" "\"requests\"" '{"requests": []}'
bad_file "an array" "" '[1, 2]'
bad_file "no messages" "\"messages\"" '{"requests": [{}]}'
bad_file "no role" "\"role\"" '{"requests": [{"messages": [{"content": "x"}]}]}'
bad_file "no content" "\"content\"" '{"requests": [{"messages": [{"role": "user"}]}]}'
bad_file "content of a wrong type" "\"content\"" '{"requests": [{"messages": [{"role": "user", "content": 5}]}]}'
bad_file "a word for a number" "\"temperature\"" "{\"temperature\": \"hot\", \"requests\": [{$m}]}"
bad_file "top_p out of range" "\"top_p\"" "{\"top_p\": 2, \"requests\": [{$m}]}"
bad_file "half a token" "\"top_k\"" "{\"top_k\": 1.5, \"requests\": [{$m}]}"
bad_file "batch_size 0" "\"batch_size\"" "{\"batch_size\": 0, \"requests\": [{$m}]}"
bad_file "stop, a number" "\"stop\"" "{\"requests\": [{$m, \"stop\": 3}]}"
bad_file "bias out of range" "\"logit_bias\"" "{\"requests\": [{$m, \"logit_bias\": {\"5\": 101}}]}"
bad_file "bias without an id" "\"logit_bias\"" "{\"requests\": [{$m, \"logit_bias\": {\"five\": 1}}]}"
bad_file "duplicate keys" "JSON" "{\"requests\": [{$m}], \"requests\": []}"
bad_file "half a file" "JSON" '{"requests": [{"messages": '
bad_file "not UTF-8" "JSON" "$(printf '{"requests": "\377"}')"
bad_file "deep nesting" "JSON" "$(awk 'BEGIN { for (i = 0; i < 5000; i++) printf "[" }')"
refused "no file" "cannot open" "$ew" run models/tiny $fast --requests "$tmp/none.json"
finish

#!/bin/sh
# The commands of the README: one question, a conversation through a pipe, stop strings, seeds, limits, JSON.
. "$(dirname "$0")/lib.sh"

works "the demo" "$ew" run models/tiny -p "What is the capital of France?" --greedy --cache-dir "$tmp/cache"
has "the demo" "$(cat "$tmp/out")" "Paris"
works "from the cache" "$ew" run models/tiny -p "What is the capital of France?" --cache-dir "$tmp/cache"
has "from the cache" "$(cat "$tmp/out")" "Paris"
equal "nothing is built twice" "$(find "$tmp/cache" -name llm.engine | wc -l)" 1
equal "a silent second run" "$(cat "$tmp/err")" ""

works "chat" sh -c "printf 'My name is Ada.\nWhat is 27 plus 48?\n/reset\nWhat is the capital of France?\n/stats\n/quit\n' |
    '$ew' chat models/tiny $fast"
has "chat" "$(cat "$tmp/out")" "75"
has "chat after /reset" "$(cat "$tmp/out")" "Paris"
has "chat /stats" "$(cat "$tmp/out")" "tok/s"

run() { "$ew" run models/tiny $fast "$@" 2>"$tmp/err"; }
raw='<|im_start|>user
What is the capital of France?<|im_end|>
<|im_start|>assistant
<think>

</think>

'
has "--raw: special tokens are tokens" "$(run --raw -p "$raw")" "The capital of France is Paris."
printf '%s' "$raw" >"$tmp/raw.txt"
equal "-f FILE" "$(run --raw -f "$tmp/raw.txt")" "$(run --raw -p "$raw")"
equal "-f -" "$(run --raw -f - <"$tmp/raw.txt")" "$(run --raw -p "$raw")"
has_not "special tokens in a message are text" "$(run --json -p '<|im_end|>' | tr -d '\n')" '4072, 4072'

count=$(run -p "Count from 5 to 15.")
has "counting" "$count" "13, 14, 15"
equal "--stop" "$(run -p "Count from 5 to 15." --stop ", 8")" "5, 6, 7"
equal "--stop, the first of two" "$(run -p "Count from 5 to 15." --stop "11" --stop ", 8")" "5, 6, 7"
run -p "Count from 5 to 15." --stop ", 8" --json >"$tmp/a.json"
equal "finish by stop" "$(value "$tmp/a.json" finish_reason)" "stop-words"
run -p "Count from 5 to 15." --max-tokens 4 --json >"$tmp/a.json"
equal "--max-tokens" "$(value "$tmp/a.json" ids.#)" 4
equal "finish by length" "$(value "$tmp/a.json" finish_reason)" "max-length"
run -p "Count from 5 to 15." --json >"$tmp/a.json"
equal "finish by the end" "$(value "$tmp/a.json" finish_reason)" "end-of-sequence"
equal "JSON text" "$(value "$tmp/a.json" text)" "$count"
run -p "Count from 5 to 15." --max-tokens 60 --ignore-eos --json >"$tmp/a.json"
equal "--ignore-eos" "$(value "$tmp/a.json" ids.#)" 60
run -p "Count from 5 to 15." -o "$tmp/o.json" && equal "-o FILE" "$(value "$tmp/o.json" text)" "$count"

sample="--temperature 1.2 --top-p 0.95 --max-tokens 60"
one=$(run $sample --seed 7 -p "Tell me a story about a brave fox.")
equal "the same seed" "$(run $sample --seed 7 -p "Tell me a story about a brave fox.")" "$one"
equal "the same seed, other threads and chunks" \
    "$(run $sample --seed 7 -t 2 --max-input-len 5 -p "Tell me a story about a brave fox.")" "$one"
if [ "$(run $sample --seed 8 -p "Tell me a story about a brave fox.")" = "$one" ]; then
    bad "another seed gives the same text"; else good; fi
equal "--top-k 1 is greedy" "$(run --temperature 1 --top-k 1 -p "Count from 5 to 15.")" "$count"
has "--system" "$(run --json -s "You are a pirate." -p "Hello!" | tr -d '\n')" "You are a pirate."
has_not "--no-think" "$(run --json -p "What is 2 plus 3?")" '<think>\n\n</think>\n\n\n'
has "--profile" "$(run --profile -p "Hello!" 2>&1; cat "$tmp/err")" '"prefill"'
run --trace "$tmp/trace.json" -p "Hello!" >/dev/null
has "--trace" "$(head -c 4000 "$tmp/trace.json")" '"ph"'
equal "the trace is JSON" "$("$tool" json "$tmp/trace.json" traceEvents.# >/dev/null && echo yes)" yes
finish

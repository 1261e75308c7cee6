#!/bin/sh
# Eight different prompts: together or one by one, on one or two threads, in steps of any length, the same tokens.
. "$(dirname "$0")/lib.sh"

file() { # BATCH
    printf '{"batch_size": %s, "top_k": 1, "max_generate_length": 40, "requests": [' "$1"
    printf '%s' '{"messages": [{"role": "user", "content": "What is the capital of France?"}]},
  {"messages": [{"role": "user", "content": "What is 27 plus 48?"}]},
  {"messages": [{"role": "user", "content": "Count from 5 to 15."}]},
  {"messages": [{"role": "system", "content": "You are a helpful assistant who answers in one short sentence."},
                {"role": "user", "content": "Which day comes after Friday?"}]},
  {"messages": [{"role": "user", "content": "Tell me a story about a brave fox who lived beside a wide river."}]},
  {"messages": [{"role": "user", "content": "Sort these words: river, apple, pillow, bridge, window, garden, yellow, letter."}]},
  {"messages": [{"role": "user", "content": "Hello!"}, {"role": "assistant", "content": "Hello! How can I help?"},
                {"role": "user", "content": "Spell the word \"lantern\"."}]},
  {"messages": [{"role": "user", "content": "é 中文 😀 ?"}]}]}'
}
answers() { # prints texts of the eight
    for i in 0 1 2 3 4 5 6 7; do value "$tmp/out.json" responses.$i.output_text; echo; done
}
file 1 >"$tmp/one.json"
file 8 >"$tmp/eight.json"
works "one by one" "$ew" run models/tiny $fast -t 1 --requests "$tmp/one.json" -o "$tmp/out.json"
answers >"$tmp/want"
has "one by one" "$(cat "$tmp/want")" "Paris"
for threads in 1 2; do
    for len in 3 7 64 512; do
        for f in one eight; do
            works "$f, $threads threads, steps of $len" "$ew" run models/tiny $fast -t $threads --max-input-len $len \
                --requests "$tmp/$f.json" -o "$tmp/out.json"
            answers >"$tmp/got"
            if cmp -s "$tmp/want" "$tmp/got"; then good; else
                bad "$f, $threads threads, steps of $len: $(diff "$tmp/want" "$tmp/got" | head -n 4)"; fi
        done
    done
done
works "three rows for eight prompts" "$ew" run models/tiny $fast -t 2 --max-batch 3 --max-input-len 16 \
    --requests "$tmp/eight.json" -o "$tmp/out.json"
answers >"$tmp/got"
if cmp -s "$tmp/want" "$tmp/got"; then good; else bad "three rows: $(diff "$tmp/want" "$tmp/got" | head -n 4)"; fi
# A cache of more than a segment (512 positions), whose parts several threads take: the same logits, to the bit, and a step more or
# less of prefill changes nothing.
fox=$(i=0; while [ $i -lt 90 ]; do printf 'The quick fox %s crossed the river at noon. ' $i; i=$((i + 1)); done)
for kv in f32 f16 int8; do
    for how in "-t 1" "-t 2" "-t 7" "-t 2 --max-input-len 100"; do
        # shellcheck disable=SC2086 # options, word by word
        works "long, $kv, $how" "$ew" run models/tiny $fast $how --kv $kv --max-kv-len 2048 --temperature 1 --seed 5 -n 48 -p "$fox"
        [ "$how" != "-t 1" ] || cp "$tmp/out" "$tmp/want"
        if cmp -s "$tmp/want" "$tmp/out"; then good; else bad "long, $kv, $how: another text"; fi
    done
done
finish

#!/bin/sh
# The accuracy tools on the tool: figures, JSON, reports, limits, resuming, refusals.
. "$(dirname "$0")/lib.sh"

cat >"$tmp/text" <<'T'
The old man walked along the road and looked at the sea. It was a warm day, and the boats lay still in the harbour.
"Where do you go?" asked the girl. "To the mill," he said, "to fetch some flour." They went together, and on the way
he told her the story of a king who had three sons. The first one was strong, the second one was clever, and the third
one was kind. One day the king said to them: "Go out into the world and bring me the best thing that you can find."
Count from 1 to 12: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12. The capital of France is Paris. What is 27 plus 48? 75.
T
for i in 1 2 3 4 5 6; do cat "$tmp/text"; done >"$tmp/long"

# Every report is one file that loads nothing, closes what it opens, and keeps a foreign text from being markup.
report() { # WHAT FILE PARTS...
    what=$1 file=$2
    shift 2
    html=$(cat "$file")
    for part in "<!DOCTYPE html>" "</html>" "$@"; do has "$what: report" "$html" "$part"; done
    for part in "http:" "https:" "<script" "src=" "nan" "inf\""; do has_not "$what: report" "$html" "$part"; done
    for tag in svg table div body html style tr title; do
        equal "$what: report: <$tag> closed" "$(grep -o "<$tag[ >]" "$file" | wc -l)" "$(grep -o "</$tag>" "$file" | wc -l)"
    done
}

works "ppl" "$ew" eval ppl models/tiny "$tmp/long" --window 128 $fast --json --html "$tmp/ppl.html"
cp "$tmp/out" "$tmp/ppl.json"
report "ppl" "$tmp/ppl.html" "perplexity" "<svg" "Perplexity along the text"
equal "ppl: a dot a window" "$(grep -o "<circle" "$tmp/ppl.html" | wc -l)" "$(($(value "$tmp/ppl.json" scored_tokens) / 127))"
works "ppl --text" "$ew" eval ppl models/tiny --text "$tmp/long" --window 128 $fast --json
equal "ppl: both ways to name the text" "$(value "$tmp/out" nll_sum)" "$(value "$tmp/ppl.json" nll_sum)"
works "ppl of two windows" "$ew" eval ppl models/tiny "$tmp/long" --window 128 --chunks 2 $fast --json --resume "$tmp/state"
equal "ppl of two windows" "$(value "$tmp/out" scored_tokens)" 254
refused "a state of other options" "another evaluation" "$ew" eval ppl models/tiny "$tmp/long" --window 64 $fast --resume "$tmp/state"
equal "the state stays" "$(wc -l <"$tmp/state")" 3
# A limit is no other work: a higher one goes on, a lower one takes the first windows.
works "ppl, a higher limit" "$ew" eval ppl models/tiny "$tmp/long" --window 128 --chunks 3 $fast --json --resume "$tmp/state"
equal "ppl, a higher limit" "$(value "$tmp/out" scored_tokens) $(wc -l <"$tmp/state")" "381 4"
works "ppl, no limit" "$ew" eval ppl models/tiny "$tmp/long" --window 128 $fast --json --resume "$tmp/state"
equal "ppl, no limit" "$(value "$tmp/out" nll_sum)" "$(value "$tmp/ppl.json" nll_sum)"
works "ppl, a lower limit" "$ew" eval ppl models/tiny "$tmp/long" --window 128 --chunks 2 $fast --json --resume "$tmp/state"
equal "ppl, a lower limit" "$(value "$tmp/out" scored_tokens)" 254
refused "a state that is none" "not the state" "$ew" eval ppl models/tiny "$tmp/long" $fast --resume "$tmp/text"

works "kld" "$ew" eval kld models/tiny --against models/tiny --against-kv bf16 "$tmp/long" --window 128 $fast --json --html "$tmp/kld.html" --resume "$tmp/ks"
cp "$tmp/out" "$tmp/kld.json"
report "kld" "$tmp/kld.html" "<svg" "mean KL" "same top" "Divergence along the window"
within "kld: perplexity" "$(value "$tmp/kld.json" perplexity.value)" "$(value "$tmp/ppl.json" perplexity)" 1e-9
equal "kld: a bf16 cache is near but not equal" \
    "$(awk -v k="$(value "$tmp/kld.json" mean_kl.value)" 'BEGIN { print (k > 1e-8 && k < 1e-3) }')" 1
# A state that was cut off in its last line gives the same figures.
head -c $(($(wc -c <"$tmp/ks") - 300)) "$tmp/ks" >"$tmp/ks2"
works "kld, a limit" "$ew" eval kld models/tiny --against models/tiny --against-kv bf16 "$tmp/long" --window 128 --chunks 2 $fast --json --resume "$tmp/ks2"
equal "kld, a limit" "$(value "$tmp/out" windows)" 2
works "kld, resumed" "$ew" eval kld models/tiny --against models/tiny --against-kv bf16 "$tmp/long" --window 128 $fast --json --resume "$tmp/ks2"
for k in scored_tokens mean_kl.value kl_99.value max_kl log_ratio.value rms_dp.stderr; do
    equal "kld, resumed: $k" "$(value "$tmp/out" $k)" "$(value "$tmp/kld.json" $k)"
done
cmp -s "$tmp/ks" "$tmp/ks2" && good || bad "the resumed state is not that of the unbroken run"
works "kld of bf16 activations" "$ew" eval kld models/tiny --activations bf16 --against models/tiny "$tmp/long" --window 128 $fast --json
equal "bf16 activations are near but not equal" \
    "$(awk -v k="$(value "$tmp/out" mean_kl.value)" 'BEGIN { print (k > 1e-9 && k < 1e-4) }')" 1
refused "bf16 activations in ONNX" "bf16" "$ew" export models/tiny "$tmp/bf16" --activations bf16 -q
refused "kld above the bar" "above 1e-12" "$ew" eval kld models/tiny --against models/tiny --against-kv bf16 "$tmp/text" $fast --max-kl 1e-12
works "kld, the reference on the CPU" "$ew" eval kld models/tiny --against models/tiny --against-device cpu "$tmp/text" $fast --max-kl 1e-12
refused "kld, the reference on a device that is none" "none of cpu, cuda, cuda:N" "$ew" eval kld models/tiny --against models/tiny --against-device tpu "$tmp/text" $fast
works "kld of a model with itself" "$ew" eval kld models/tiny --against models/tiny "$tmp/text" $fast
has "kld of a model with itself" "$(cat "$tmp/out")" "mean KL                             0 +- 0"
works "another vocabulary: engines" "$ew" build tests/golden/families/granite "$tmp/granite" --no-timing -q
cp models/tiny/tokenizer*.json "$tmp/granite/" 2>/dev/null
"$ew" eval kld models/tiny --against "$tmp/granite" "$tmp/text" $fast >"$tmp/out" 2>"$tmp/err"
equal "another vocabulary: exit code" $? 1

cat >"$tmp/qa.jsonl" <<'T'
{"question": "What is the capital of France?", "answer": "The capital of France is Paris.", "kind": "<b>city</b>"}
{"messages": [{"role": "user", "content": "What is the capital of France?"}], "answer": "Lyon <script>&\"'", "kind": "other"}
T
works "qa" "$ew" eval qa models/tiny "$tmp/qa.jsonl" $fast --html "$tmp/qa.html"
has "qa" "$(cat "$tmp/out")" "total                        1 of     2   50.0 %"
report "qa" "$tmp/qa.html" "&lt;b&gt;city&lt;/b&gt;" "Lyon &lt;script&gt;&amp;&quot;&#39;"
works "qa --limit --json" "$ew" eval qa models/tiny --file "$tmp/qa.jsonl" --limit 1 --json $fast
equal "qa --limit" "$(value "$tmp/out" questions)" 1
works "qa, a first line" "$ew" eval qa models/tiny "$tmp/qa.jsonl" --limit 1 $fast --resume "$tmp/qs"
works "qa, the rest" "$ew" eval qa models/tiny "$tmp/qa.jsonl" $fast --resume "$tmp/qs"
has "qa, the rest" "$(cat "$tmp/out")" "total                        1 of     2   50.0 %"
works "qa --wrong" "$ew" eval qa models/tiny "$tmp/qa.jsonl" --wrong $fast
has "qa --wrong" "$(cat "$tmp/err")" "wanted \"Lyon"
if have "$shared/reference/trained/recall.jsonl"; then
    works "qa over conversations" "$ew" eval qa models/tiny "$shared/reference/trained/recall.jsonl" --limit 12 --json $fast
    equal "qa over conversations" "$(value "$tmp/out" questions)" 12
fi

cat >"$tmp/choice.jsonl" <<'T'
{"question": "The capital of France is", "options": ["a hat.", "Paris.", "seven"], "answer": "B", "subject": "city"}
{"context": "1, 2, 3, 4,", "options": ["tree", "5"], "answer": 1, "kind": "count"}
{"question": "One, two,", "options": ["three", "castle"], "answer": "three", "kind": "count"}
T
works "choice" "$ew" eval choice models/tiny "$tmp/choice.jsonl" $fast --html "$tmp/choice.html" --json
equal "choice: Paris" "$(value "$tmp/out" items.0.best)" 1
equal "choice: 5" "$(value "$tmp/out" items.1.best)" 1
equal "choice: kinds" "$(value "$tmp/out" kinds.count.questions)" 2
report "choice" "$tmp/choice.html" "acc_norm" "city"
sed -i '/seconds/d' "$tmp/out" && mv "$tmp/out" "$tmp/choice.json"
sed 's/"Paris/" Paris/; s/"a hat/" a hat/; s/"seven/" seven/; s/"5"/" 5"/; s/"tree/" tree/' "$tmp/choice.jsonl" >"$tmp/spaces.jsonl"
works "choice, options with a space" "$ew" eval choice models/tiny "$tmp/spaces.jsonl" $fast --json
equal "choice, options with a space: right" "$(value "$tmp/out" items.0.best) $(value "$tmp/out" items.1.best)" "1 1"
equal "choice, options with a space: scores" "$(sed '/seconds/d' "$tmp/out" | cksum)" "$(cksum <"$tmp/choice.json")"
works "choice, two lines" "$ew" eval choice models/tiny "$tmp/choice.jsonl" --limit 2 $fast --resume "$tmp/cs"
works "choice, the third" "$ew" eval choice models/tiny "$tmp/choice.jsonl" $fast --resume "$tmp/cs"
has "choice, the third" "$(cat "$tmp/out")" "total                         3 questions"
works "choice --template chat" "$ew" eval choice models/tiny "$tmp/choice.jsonl" --template chat $fast
has "choice --template chat" "$(cat "$tmp/out")" "total"
echo '{"question": "x", "options": ["a"], "answer": 0}' >"$tmp/bad.jsonl"
refused "one option" "line 1" "$ew" eval choice models/tiny "$tmp/bad.jsonl" $fast

# Layer by layer: equal to itself; a moved weight is found and named, with exit code 1.
works "layers of the same model" "$ew" eval parity models/tiny --against models/tiny -q
has "layers of the same model" "$(cat "$tmp/out")" "nothing suspicious"
mkdir "$tmp/broken" && cp models/tiny/* "$tmp/broken/" && chmod u+w "$tmp/broken"/*
"$tool" add "$tmp/broken/model.safetensors" model.layers.2.mlp.down_proj.weight 77 4 || bad "cannot change a weight"
"$ew" eval parity "$tmp/broken" --against models/tiny -q --html "$tmp/layers.html" >"$tmp/out" 2>"$tmp/err"
equal "a moved weight: exit code" $? 1
has "a moved weight" "$(grep suspicious: "$tmp/out")" "suspicious: model.layers.2.mlp.down_proj"
equal "a moved weight alone" "$(grep -c suspicious: "$tmp/out")" 1
has "the layer to keep" "$(cat "$tmp/out")" "keep at higher precision first: layer 2 (mlp"
report "layers" "$tmp/layers.html" "model.layers.2.mlp.down_proj" "Gain of every projection"
"$ew" eval parity "$tmp/broken" --against models/tiny -q --json --chunks 1 --window 32 "$tmp/text" >"$tmp/out" 2>"$tmp/err"
equal "JSON: the name" "$(value "$tmp/out" suspicious.0)" "model.layers.2.mlp.down_proj"
equal "JSON: tokens" "$(value "$tmp/out" tokens)" 32
works "layers without a tokenizer" "$ew" eval parity tests/golden/families/granite --against tests/golden/families/granite -q
refused "another architecture" "reference" "$ew" eval parity models/tiny --against tests/golden/families/granite -q
refused "an engine has no layers to take apart" "only checkpoints" "$ew" eval parity models/tiny --against "$tmp/granite" -q

# What means nothing to the evaluation asked for is a mistake in the command line.
for line in "ppl models/tiny $tmp/text --limit 3" "kld models/tiny $tmp/text" "qa models/tiny $tmp/qa.jsonl --stride 4" \
    "parity models/tiny" "parity models/tiny --against models/tiny --resume $tmp/x" "ppl models/tiny" \
    "choice models/tiny $tmp/choice.jsonl --template other" "ppl models/tiny $tmp/text --text $tmp/text"; do
    "$ew" eval $line >"$tmp/out" 2>"$tmp/err"
    equal "eval $line: exit code" $? 2
    equal "eval $line: one line" "$(wc -l <"$tmp/err")" 1
done
finish

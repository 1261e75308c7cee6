#!/bin/sh
# ONNX in and out: the project's own operator tests, what the reference system exports, what we export ourselves.
. "$(dirname "$0")/lib.sh"

if have "$shared/reference/onnx-node-tests.tar.xz"; then
    mkdir "$tmp/node" && tar -xJf "$shared/reference/onnx-node-tests.tar.xz" -C "$tmp/node"
    works "the ONNX node tests" "$ew" onnx-check "$tmp/node"
    line=$(tail -n 1 "$tmp/out")
    echo "$name: node tests: $line"
    has "none fails" "$line" ", 0 failed, "
    equal "every case has a verdict" "$(echo "$line" | awk '{ print $1 + $3 + $5 }')" \
        "$(find "$tmp/node" -name model.onnx | wc -l)"
    # Passed before; a new refusal of these is a step back.
    equal "at least as many pass as did" "$(echo "$line" | awk '{ print ($1 >= 832) }')" 1
    grep '^FAILED' "$tmp/out" | head -n 20
fi

# Quantised weights and activations, against onnxruntime (tests/onnx/qdq/generate.py).
works "quantised models" "$ew" onnx-check tests/onnx/qdq
equal "all pass" "$(tail -n 1 "$tmp/out")" "$(find tests/onnx/qdq -name model.onnx | wc -l) passed, 0 failed, 0 refused"

x=$shared/reference/edgellm-exports
if have "$x"; then
    for m in tiny tiny-eagle-base qwen2 tiny-vl; do
        works "build the reference's export of $m" "$ew" build "$x/$m/llm" "$tmp/e-$m" --no-timing -q --all-logits
        equal "$m: an engine" "$(ls "$tmp/e-$m" | grep -c -E '^(llm.engine|config.json)$')" 2
    done
    for m in tiny tiny-eagle-base tiny-vl; do
        works "run $m" "$ew" run "$tmp/e-$m" -p "Hello!" -n 8 $fast
        equal "$m says something" "$([ -s "$tmp/out" ] && echo yes)" yes
    done
    "$ew" run "$x/tiny/llm" -p "What is the capital of France?" $fast >"$tmp/out" 2>"$tmp/err"
    equal "tiny's export answers" "$(cat "$tmp/out")" "The capital of France is Paris."
    works "qwen2's logits, f16 weights" "$ew" eval parity "$x/qwen2/llm" $fast --tolerance 2e-3 \
        --reference "$shared/reference/architectures/qwen2/reference.safetensors"
    r=$shared/reference/trained/tiny-reference.json
    n=$("$tool" json "$r" greedy.#)
    i=0
    while [ $i -lt "$n" ]; do
        if awk "BEGIN { exit !($(value "$r" greedy.$i.smallest_top2_gap) > 0.02) }"; then
            value "$r" greedy.$i.prompt >"$tmp/prompt"
            "$ew" run "$tmp/e-tiny" $fast --raw -f "$tmp/prompt" --max-tokens "$("$tool" json "$r" greedy.$i.greedy_ids.#)" \
                --json >"$tmp/a.json" 2>"$tmp/err"
            equal "tiny's export, text $i" "$(value "$tmp/a.json" text)" "$(value "$r" greedy.$i.text)"
        fi
        i=$((i + 1))
    done
    refused "answers of a draft model" "" "$ew" run "$x/small-eagle3-draft/llm" -p Hello $fast
    # The picture encoder is a graph like any other: it builds or names what it lacks, and leaves nothing behind.
    "$ew" build "$x/tiny-vl/visual" "$tmp/e-visual" --no-timing -q >"$tmp/out" 2>"$tmp/err"
    if [ $? -ne 0 ]; then
        equal "visual: no half engine" "$(find "$tmp/e-visual" -name '*.engine' 2>/dev/null | wc -l)" 0
        equal "visual: one line" "$(wc -l <"$tmp/err")" 1
        echo "$name: visual: $(cat "$tmp/err")"
    fi
fi

# Ours: export, run, and the same texts and figures as the direct path, in both forms.
for form in "" --split-qkv; do
    d=$tmp/x$form
    works "export $form" "$ew" export models/tiny "$d" -q $form
    equal "files of export $form" "$(cd "$d" && ls | grep -c -E '^(model.onnx|model.onnx.data|config.json|embedding.safetensors|tokenizer.json)$')" 5
    "$ew" run models/tiny -p "Tell me a story about a brave fox." -n 60 --json $fast >"$tmp/a.json"
    "$ew" run "$d" -p "Tell me a story about a brave fox." -n 60 --json $fast >"$tmp/b.json"
    equal "the same ids $form" "$(value "$tmp/b.json" ids)" "$(value "$tmp/a.json" ids)"
    works "inspect $form" "$ew" inspect "$d"
    if have "$shared/reference/trained/tiny-forward.safetensors"; then
        for m in models/tiny "$d"; do
            "$ew" eval parity "$m" --reference "$shared/reference/trained/tiny-forward.safetensors" --json $fast 2>"$tmp/err" |
                grep -A1 -E '"(max_relative_logits|greedy_equal)"' >"$tmp/figures.$(basename "$m")"
        done
        works "hidden states of export $form" "$ew" export models/tiny "$d-h" -q --hidden-states $form
        works "layers of export $form" "$ew" eval parity "$d-h" $fast \
            --reference "$shared/reference/trained/tiny-forward.safetensors"
        has "layers of export $form" "$(cat "$tmp/out")" "hidden_6"
        has "the same figures $form" "$(cat "$tmp/figures.$(basename "$d")")" \
            "$(grep max_relative_logits "$tmp/figures.tiny")"
    fi
done
finish

#!/bin/sh
# Logits and layers beside what transformers computed, three ways of running; a damaged weight is found and named.
. "$(dirname "$0")/lib.sh"

parity() { "$ew" eval parity "$1" --reference "$2" $fast; }

have "$shared/reference/trained/tiny-forward.safetensors" &&
    works "tiny, all layers" parity models/tiny "$shared/reference/trained/tiny-forward.safetensors"
for f in tests/golden/families/*/; do
    f=${f%/}
    works "$f" parity "$f" "$f/reference.safetensors"
done
for a in qwen2 qwen3 llama3-rope phi3-longrope gemma3 qwen3-moe; do
    d=$shared/reference/architectures/$a
    have "$d" && works "$a" parity "$d" "$d/reference.safetensors"
    rm -rf "$tmp/cache"
done
if have "$shared/models/small"; then
    works "small, all layers" parity "$shared/models/small" "$shared/reference/trained/small-forward.safetensors"
    has "small" "$(cat "$tmp/out")" "hidden_12"
fi

# The same weights as torch.save writes them, instead of safetensors.
r=tests/golden/families/granite
mkdir "$tmp/torch" && cp $r/config.json tests/golden/torch/granite/pytorch_model.bin "$tmp/torch/"
works "pytorch_model.bin" parity "$tmp/torch" $r/reference.safetensors

# Every instruction set answers the same; levels this machine lacks are refused with a word.
r=tests/golden/families/qwen3-window
for level in ref avx2 avx512; do
    "$ew" eval parity $r --reference $r/reference.safetensors --cpu $level $fast >"$tmp/out" 2>"$tmp/err"
    case $? in
    0) good ;;
    *) if grep -q "$level" "$tmp/err"; then skip "$level is not on this machine"; else bad "$level: $(cat "$tmp/err")"; fi ;;
    esac
done

# How far the logits are as distributions, and a bar for it.
works "divergence" "$ew" eval parity $r --reference $r/reference.safetensors $fast --max-kl 1e-9
has "divergence" "$(cat "$tmp/out")" "divergence from the reference: "
"$ew" eval parity $r --reference $r/reference.safetensors $fast --max-kl 1e-30 >"$tmp/out" 2>&1
equal "divergence above the bar" $? 1
has "divergence above the bar" "$(cat "$tmp/out")" "divergence above 1e-30"
"$ew" eval ppl $r README.md --max-kl 1 >"$tmp/out" 2>&1
equal "a bar that nothing uses" $? 2

# One weight of layer 2 (element 77 of its down projection) moved: parity fails and names hidden_3, what layer 2 makes.
if have "$shared/reference/trained/tiny-forward.safetensors"; then
    mkdir "$tmp/broken" && cp models/tiny/* "$tmp/broken/" && chmod u+w "$tmp/broken"/*
    "$tool" add "$tmp/broken/model.safetensors" model.layers.2.mlp.down_proj.weight 77 4 || bad "cannot change a weight"
    parity "$tmp/broken" "$shared/reference/trained/tiny-forward.safetensors" >"$tmp/out" 2>"$tmp/err"
    equal "a changed weight: exit code" $? 1
    has "a changed weight is found" "$(tail -n 1 "$tmp/out")" "first difference in hidden_3"
fi
mkdir "$tmp/b2" && cp tests/golden/families/granite/* "$tmp/b2/" && chmod u+w "$tmp/b2"/*
"$tool" add "$tmp/b2/model.safetensors" model.embed_tokens.weight 5 8 || bad "cannot change a weight"
parity "$tmp/b2" "$tmp/b2/reference.safetensors" >"$tmp/out" 2>"$tmp/err"
equal "a changed weight without layers in the reference" $? 1
has "it says where" "$(tail -n 1 "$tmp/out")" "first difference in"
"$ew" eval parity models/tiny --reference models/tiny/model.safetensors $fast >"$tmp/out" 2>"$tmp/err"
equal "a reference without logits" $? 1
finish

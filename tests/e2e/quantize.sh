#!/bin/sh
# `edgewise quantize`: every scheme writes a folder, twice the same; what cannot be done is refused by name; nothing is left of a
# run that was killed or refused.
. "$(dirname "$0")/lib.sh"
q() {
    out=$1
    shift
    works "quantize $*" "$ew" quantize models/tiny "$tmp/$out" -q -t 2 --calibration-tokens 256 "$@"
}
format() { value "$tmp/$1/config.json" quantization_config.format; }

q int8 --scheme int8
equal "int8" "$(format int8)" int-quantized
q int4 --scheme int4 --group 64 --lm-head int8 --embedding int8 --kv fp8 --override '*.0.mlp.down_proj=int8' --override '*.1.self_attn.*=none'
equal "int4" "$(format int4)" mixed-precision
equal "a head of its own" "$(value "$tmp/int4/config.json" tie_word_embeddings)" false
text=$("$ew" inspect "$tmp/int4/model.safetensors")
has "packed" "$text" "layers.0.mlp.up_proj.weight_packed  dtype=i32"
has "an override" "$text" "layers.0.mlp.down_proj.weight  dtype=i8"
has "left out" "$text" "layers.1.self_attn.q_proj.weight  dtype=bf16"
has "the head" "$text" "lm_head.weight_packed"
has "the embedding" "$text" "embed_tokens.weight_packed"
has "scales of the cache" "$text" "layers.2.self_attn.k_scale"
q gptq --scheme gptq --group 32 --asymmetric --act-order
has "zero points" "$("$ew" inspect "$tmp/gptq/model.safetensors")" "weight_zero_point"
for s in fp8 nvfp4 mxfp4; do
    q $s --scheme $s
done
equal "nvfp4" "$(format nvfp4)" nvfp4-pack-quantized
works "both" "$ew" quantize models/tiny "$tmp/both" --scheme int4 --method awq+gptq -g 32 -q --calibration-tokens 256 --json
cp "$tmp/out" "$tmp/both.json"
within "bits a weight" "$(value "$tmp/both.json" bits_per_weight)" 4.5 0.01
works "rtn" "$ew" quantize models/tiny "$tmp/rtn" --scheme int4 --method rtn -g 32 -q --json
equal "modules" "$(value "$tmp/out" modules.#)" "$(value "$tmp/both.json" modules.#)"

q again --scheme int4 --group 64 --lm-head int8 --embedding int8 --kv fp8 --override '*.0.mlp.down_proj=int8' --override '*.1.self_attn.*=none'
if cmp -s "$tmp/int4/model.safetensors" "$tmp/again/model.safetensors"; then good; else bad "two runs differ"; fi
"$ew" quantize models/tiny "$tmp/one" -q -t 1 --calibration-tokens 256 --scheme gptq -g 32 --asymmetric --act-order
if cmp -s "$tmp/one/model.safetensors" "$tmp/gptq/model.safetensors"; then good; else bad "one thread and two differ"; fi

refused "quantised already" "quantised already (compressed-tensors)" "$ew" quantize "$tmp/int8" "$tmp/no" -q --scheme int4
refused "unknown scheme" "'int5'" "$ew" quantize models/tiny "$tmp/no" -q --scheme int5
for o in "int8 --group 32:group" "int8 --asymmetric:asymmetric" "fp8 --act-order:act-order" "nvfp4 --method rtn:method" "int4 --bits 8:bits" \
    "gptq --method rtn:method" "int8 --method awq:awq" "int8 --method x:x" "fp8 --lm-head int8 --group 32:group"; do
    # shellcheck disable=SC2086 # options, word by word
    refused "$o" "${o#*:}" "$ew" quantize models/tiny "$tmp/no" -q --scheme ${o%:*}
done
refused "an override that matches nothing" "'*.nothing=int8' matches no linear module" "$ew" quantize models/tiny "$tmp/no" -q --scheme int8 --override '*.nothing=int8'
refused "not empty" "not empty" "$ew" quantize models/tiny "$tmp/int8" -q --scheme int4
refused "no group" "does not divide" "$ew" quantize tests/golden/families/gemma3-softcap "$tmp/no" -q --scheme int4 --method rtn
has "by tensor" "$(cat "$tmp/err")" "layers.0.self_attn.q_proj.weight"
refused "little text" "to calibrate on" "$ew" quantize models/tiny "$tmp/no" -q --scheme int4 --calibration README.md --calibration-tokens 8
refused "no checkpoint" "absent" "$ew" quantize "$tmp/absent" "$tmp/no" -q --scheme int4
if [ -e "$tmp/no" ]; then bad "a refused run left its folder"; else good; fi
"$ew" quantize models/tiny "$tmp/killed" -q --scheme int4 &
pid=$!
sleep 0.3
kill -9 $pid 2>/dev/null
wait $pid 2>/dev/null
if [ -e "$tmp/killed" ] && [ ! -e "$tmp/killed/config.json" ]; then bad "half a folder"; else good; fi
for sig in INT TERM; do
    "$ew" quantize models/tiny "$tmp/interrupted" -q -t 1 --scheme gptq --act-order 2>"$tmp/err" &
    pid=$!
    sleep 0.3
    kill -$sig $pid 2>/dev/null
    wait $pid
    equal "SIG$sig: exit code" $? 1
    equal "SIG$sig: what it left" "$(find "$tmp" -maxdepth 1 -name 'interrupted*' | wc -l)" 0
done

# A disk that is full: any size of file that is too small says so, and nothing stays.
for kib in 1 500 2000; do
    (ulimit -f $((kib * 2)); trap '' XFSZ; exec "$ew" quantize models/tiny "$tmp/full" -q --scheme int8 --method rtn) 2>"$tmp/err"
    equal "full at $kib KiB: exit code" $? 1
    has "full at $kib KiB" "$(cat "$tmp/err")" "full.tmp"
    if [ -e "$tmp/full" ]; then bad "a full disk left a folder"; else good; fi
done
refused "a folder that cannot be written" "/proc/none" "$ew" quantize models/tiny /proc/none -q --scheme int8
printf x >"$tmp/file"
refused "the output is a file" "is a file" "$ew" quantize models/tiny "$tmp/file" -q --scheme int8
mkdir "$tmp/half" && cp models/tiny/*.json "$tmp/half"
head -c 1000000 models/tiny/model.safetensors >"$tmp/half/model.safetensors"
refused "half a checkpoint" "half: model.safetensors" "$ew" quantize "$tmp/half" "$tmp/no" -q --scheme int8
rm "$tmp/half/model.safetensors"
refused "no weights" "half" "$ew" quantize "$tmp/half" "$tmp/no" -q --scheme int8
cp models/tiny/model.safetensors "$tmp/half" && rm "$tmp/half/tokenizer.json"
refused "no tokenizer to calibrate with" "tokenizer.json" "$ew" quantize "$tmp/half" "$tmp/no" -q --scheme int4
if [ -e "$tmp/no" ]; then bad "a refused run left its folder"; else good; fi
equal "nothing else was left" "$(find "$tmp" -maxdepth 1 -name '*.tmp.*' ! -name 'killed.*' | wc -l)" 0
finish

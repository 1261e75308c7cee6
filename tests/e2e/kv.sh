#!/bin/sh
# Caches of fp8 and int8: what transformers computes with K and V rounded alike, what they cost in accuracy, and the
# same tokens in a batch, on two threads, in chunks and from a saved prefix.
. "$(dirname "$0")/lib.sh"

# parity MODEL KIND [options]: against the reference of that cache; chunks and single tokens see what one go sees. Vector kernels of x86
# round to 16 bits, by 1e-4 here, which moves a code of the next layer by one step now and then: they have a tolerance of their own.
tolerance=1e-5
parity() {
    model=$1 ref=$2/reference-$3.safetensors
    shift 3
    "$ew" eval parity "$model" --reference "$ref" --tolerance $tolerance $fast "$@"
}
m=tests/golden/kv/modelopt h=tests/golden/kv/heads
case $(uname -m) in
x86_64) levels="ref avx2 native" exact="--cpu ref" ;;
*) levels="ref native" exact="--cpu native" ;;
esac
for cpu in $levels; do
    case $cpu in ref | "${exact#--cpu }") tolerance=1e-5 ;; *) tolerance=1e-2 ;; esac
    works "scales of k_proj and v_proj, $cpu" parity $m $m fp8 --cpu $cpu
    works "scales a head, $cpu" parity $h $h fp8 --kv fp8 --cpu $cpu
    works "int8, $cpu" parity $h $h int8 --kv int8 --cpu $cpu
done
tolerance=1e-5
if parity $h $h int8 $exact >"$tmp/out" 2>&1; then bad "a checkpoint without a scheme runs an f32 cache"; else good; fi
for kv in f32 f16 bf16 int8; do
    if parity $m $m fp8 --kv $kv $exact >"$tmp/out" 2>&1; then bad "--kv $kv before the checkpoint's fp8"; else good; fi
done

# Through ONNX, whose plugin has one scale for all heads.
works "export" "$ew" export $m "$tmp/onnx" -q
works "from ONNX" parity "$tmp/onnx" $m fp8 $exact
has "the contract's config" "$(cat "$tmp/onnx/config.json")" '"kv_cache_dtype": "fp8"'
mkdir "$tmp/h" && cp $h/* $m/hf_quant_config.json "$tmp/h/"
refused "scales that differ between heads" "kv_scales' of the cache differ between heads" "$ew" export "$tmp/h" "$tmp/onnx2" -q
printf '{"quantization": {"kv_cache_quant_algo": "INT8"}}' >"$tmp/h/hf_quant_config.json"
works "a checkpoint that asks for int8" parity "$tmp/h" $h int8 $exact
refused "int8 in the contract" "an i8 cache" "$ew" export "$tmp/h" "$tmp/onnx2" -q
printf '{"quantization": {' >"$tmp/h/hf_quant_config.json"
refused "a broken hf_quant_config.json" "hf_quant_config.json" "$ew" run "$tmp/h" -p x $fast

# A model without scales: 1.0, with a word.
works "no scales" "$ew" run models/tiny -p "What is the capital of France?" --kv fp8 --no-timing --cache-dir "$tmp/cache"
has "no scales: the answer" "$(cat "$tmp/out")" "Paris"
has "no scales: a warning" "$(cat "$tmp/err")" "1.0 is taken"

# Rows of D + 4 bytes, of D bytes: memory says so.
size() { # KV: leaves the bytes in $bytes
    works "bench --kv $1" "$ew" bench models/tiny --prefill 16 --decode 16 --gen 4 --reps 1 --no-ceilings --rows none --json $fast --kv "$1" --max-kv-len 256
    bytes=$(value "$tmp/out" "memory_bytes.kv cache (reserved)")
}
d=$("$tool" json models/tiny/config.json head_dim)
size f32
f32=$bytes
size fp8
equal "memory of an fp8 cache" "$bytes" $((f32 / 4))
size int8
equal "memory of an int8 cache" "$bytes" $((f32 / 4 / d * (d + 4)))

# Batches, threads, chunks.
file() { # BATCH
    printf '{"batch_size": %s, "top_k": 1, "max_generate_length": 40, "requests": [' "$1"
    printf '%s' '{"messages": [{"role": "user", "content": "What is the capital of France?"}]},
  {"messages": [{"role": "user", "content": "What is 27 plus 48?"}]},
  {"messages": [{"role": "user", "content": "Count from 5 to 15."}]},
  {"messages": [{"role": "system", "content": "You are a helpful assistant who answers in one short sentence."},
                {"role": "user", "content": "Which day comes after Friday?"}], "save_system_prompt_kv_cache": true},
  {"messages": [{"role": "user", "content": "Tell me a story about a brave fox who lived beside a wide river."}]},
  {"messages": [{"role": "user", "content": "Sort these words: river, apple, pillow, bridge, window, garden, yellow, letter."}]},
  {"messages": [{"role": "system", "content": "You are a helpful assistant who answers in one short sentence."},
                {"role": "user", "content": "Which day comes after Friday?"}], "save_system_prompt_kv_cache": true},
  {"messages": [{"role": "user", "content": "Spell the word \"lantern\"."}]}]}'
}
answers() { for i in 0 1 2 3 4 5 6 7; do value "$tmp/out.json" responses.$i.output_text; echo; done; }
file 1 >"$tmp/one.json"
file 8 >"$tmp/eight.json"
for kv in fp8 int8; do
    works "$kv: one by one" "$ew" run models/tiny $fast -t 1 --kv $kv --requests "$tmp/one.json" -o "$tmp/out.json"
    answers >"$tmp/want"
    has "$kv: one by one" "$(cat "$tmp/want")" "Paris"
    equal "$kv: from a saved prefix" "$(value "$tmp/out.json" responses.6.output_text)" \
        "$(value "$tmp/out.json" responses.3.output_text)"
    for how in "eight -t 1" "eight -t 2" "one -t 2 --max-input-len 7" "eight -t 2 --max-input-len 3 --max-batch 3"; do
        f=${how%% *}
        # shellcheck disable=SC2086 # options, word by word
        works "$kv: $how" "$ew" run models/tiny $fast --kv $kv ${how#* } --requests "$tmp/$f.json" -o "$tmp/out.json"
        answers >"$tmp/got"
        if cmp -s "$tmp/want" "$tmp/got"; then good; else bad "$kv: $how: $(diff "$tmp/want" "$tmp/got" | head -n 4)"; fi
    done
done

# What they cost, on the first windows of a book and on facts told hundreds of tokens before.
s=$shared/models/small
if have "$s"; then
    ppl() { # KV: leaves it in $got
        works "perplexity, $1" "$ew" eval ppl "$s" --text "$shared/text/books_test.txt" --max-chars 12000 --json $fast --kv "$1"
        got=$(value "$tmp/out" perplexity)
    }
    ppl f32
    want=$got
    for kv in int8:1.003 fp8:1.006; do
        ppl ${kv%:*}
        if awk "BEGIN { exit !($got > 0 && $got <= $want * ${kv#*:}) }"; then good; else
            bad "perplexity ${kv%:*}: $got, f32 $want"; fi
    done
    # the last 20: the longest gaps
    tail -n 20 "$shared/reference/trained/recall.jsonl" >"$tmp/recall.jsonl"
    for kv in int8 fp8; do
        works "recall, $kv" "$ew" eval qa "$s" --file "$tmp/recall.jsonl" --json $fast --kv $kv
        equal "recall, $kv" "$(value "$tmp/out" right)" 20
    done
fi

for kv in i8 f8e4m3 fp4 int4 F32 ""; do
    "$ew" run models/tiny -p x --kv "$kv" $fast >"$tmp/out" 2>"$tmp/err"
    equal "--kv '$kv'" $? 2
    has "--kv '$kv'" "$(cat "$tmp/err")" "is not f32, f16, bf16, fp8 or int8"
done
finish

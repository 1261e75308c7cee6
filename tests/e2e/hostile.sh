#!/bin/sh
# Files of strangers: each is refused with exit code 1 and one line, under the sanitizers too.
. "$(dirname "$0")/lib.sh"

say() { printf '%b' "$1"; }
# st HEADER DATA_BYTES [LENGTH]: a safetensors file on standard output; LENGTH lies about the header's.
st() {
    n=${3:-$(printf '%s' "$1" | wc -c)}
    i=0
    while [ $i -lt 8 ]; do
        say "\\0$(printf '%03o' $((n % 256)))"
        n=$((n / 256))
        i=$((i + 1))
    done
    printf '%s' "$1"
    head -c "$2" /dev/zero
}
fresh() { # a small checkpoint to damage
    rm -rf "$tmp/m"
    mkdir "$tmp/m"
    cp tests/golden/families/qwen3-window/config.json tests/golden/families/qwen3-window/model.safetensors "$tmp/m/"
    chmod u+w "$tmp/m"/*
}
built() { refused "$1" "$2" "$ew" build "$tmp/m" "$tmp/e" --no-timing -q; } # WHAT PART
edit() { # SED: of config.json
    fresh
    tr -d '\n' <tests/golden/families/qwen3-window/config.json | sed "$1" >"$tmp/m/config.json"
    cmp -s "$tmp/m/config.json" tests/golden/families/qwen3-window/config.json && bad "edit '$1' changed nothing"
}

fresh
works "the checkpoint before it is damaged" "$ew" build "$tmp/m" "$tmp/e" --no-timing -q
size=$(wc -c <"$tmp/m/model.safetensors")
for len in 0 1 7 8 9 100 1000 $((size / 2)) $((size - 1)); do
    fresh
    head -c "$len" tests/golden/families/qwen3-window/model.safetensors >"$tmp/m/model.safetensors"
    built "safetensors cut to $len bytes" "model.safetensors"
done
fresh
printf x >>"$tmp/m/model.safetensors"
built "a byte too many" "model.safetensors"
lie() { # WHAT HEADER DATA [LENGTH]
    fresh
    st "$2" "$3" ${4:-} >"$tmp/m/model.safetensors"
    built "$1" "model.safetensors"
    refused "inspect: $1" "model.safetensors" "$ew" inspect "$tmp/m/model.safetensors"
}
lie "a header longer than the file" '{}' 0 1000000
lie "a header of 2^63 bytes" '{}' 0 9223372036854775807
lie "overlapping tensors" '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}' 12
lie "a hole" '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}' 12
lie "offsets past the end" '{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}' 8
lie "a shape that lies" '{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}' 8
lie "a shape that overflows" '{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}}' 8
lie "negative offsets" '{"a":{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}}' 8
lie "a negative dim" '{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}' 8
lie "backward offsets" '{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}' 8
lie "an unknown dtype" '{"a":{"dtype":"Q9","shape":[2],"data_offsets":[0,8]}}' 8
lie "no JSON" '{"a":' 8
lie "an array" '[1,2]' 8
lie "a name twice" '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}' 8
lie "deep nesting" "$(awk 'BEGIN { for (i = 0; i < 3000; i++) printf "{\"a\":" }')" 8
fresh
st '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}' 8 >"$tmp/m/model.safetensors"
built "missing tensors" "model.embed_tokens.weight"
fresh
rm "$tmp/m/model.safetensors"
built "no weights" "$tmp/m"
index() { # WHAT JSON
    fresh
    rm "$tmp/m/model.safetensors"
    printf '%s' "$2" >"$tmp/m/model.safetensors.index.json"
    built "$1" ""
}
index "an index of nothing" '{}'
index "an index that is no JSON" '{"weight_map": '
index "an index with a path outside" '{"weight_map": {"model.embed_tokens.weight": "../../../etc/passwd"}}'
index "an index with an absolute path" '{"weight_map": {"model.embed_tokens.weight": "/etc/passwd"}}'
index "a shard that is not there" '{"weight_map": {"model.embed_tokens.weight": "a.safetensors"}}'

# Configurations.
edit 's/"model_type": *"qwen3"/"model_type": "quokka9"/; s/Qwen3ForCausalLM/Quokka9ForCausalLM/'
built "an unknown family" "quokka9"
edit 's/^{/{"surprise_scaling_factor": 2.5, /'
built "an unknown key" "surprise_scaling_factor"
for key in hidden_size num_hidden_layers num_attention_heads vocab_size intermediate_size head_dim num_key_value_heads; do
    for v in -1 0 99999999999 1e300 '"many"' null '[]' 3.5; do
        [ "$key=$v" = head_dim=null ] || [ "$key=$v" = num_key_value_heads=null ] && continue
        edit "s/\"$key\": *[0-9]*/\"$key\": $v/"
        built "$key $v" ""
    done
done
edit 's/"hidden_size": *[0-9]*/"hidden_size": 40/'
built "a shape that does not fit" "["
for v in '"wavy"' 5 '[]'; do
    edit "s/\"hidden_act\": *\"[a-z]*\"/\"hidden_act\": $v/"
    built "hidden_act $v" "hidden_act"
done
edit 's/"rms_norm_eps": *[-0-9.e]*/"rms_norm_eps": -1/'
built "rms_norm_eps -1" "rms_norm_eps"
for v in '' '{' '[]' '"x"' 'nonsense' '{"model_type": 7}' '{}' "$(awk 'BEGIN { for (i = 0; i < 20000; i++) printf "[" }')"; do
    fresh
    printf '%s' "$v" >"$tmp/m/config.json"
    built "config.json is $(printf %s "$v" | head -c 20)" "config.json"
done
fresh
head -c 20000 /dev/urandom >"$tmp/m/config.json"
built "config.json of random bytes" "config.json"
rm -rf "$tmp/m"
mkdir "$tmp/m"
built "an empty folder" "$tmp/m"

# Tokenizers.
tok() { # WHAT PART JSON
    rm -rf "$tmp/t"
    mkdir "$tmp/t"
    printf '%s' "$3" >"$tmp/t/tokenizer.json"
    refused "tokenizer.json: $1" "$2" "$ew" tokenize "$tmp/t" "hello"
}
tok "empty" "" ""
tok "no JSON" "" "{"
tok "an array" "" "[]"
tok "nothing in it" "" "{}"
tok "another model" "" '{"model": {"type": "Magic", "vocab": {}}}'
tok "a vocabulary of words" "" '{"model": {"type": "BPE", "vocab": {"a": "b"}, "merges": []}}'
tok "a negative id" "" '{"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}'
tok "an enormous id" "" '{"model": {"type": "BPE", "vocab": {"a": 999999999999}, "merges": []}}'
tok "a merge of strangers" "" '{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["x y"]}}'
tok "a pattern that does not compile" "" '{"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(((("}, "behavior": "Isolated", "invert": false}, "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}'
tok "an unknown pre-tokeniser" "" '{"pre_tokenizer": {"type": "Wizard"}, "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}'
tok "an unknown normaliser" "" '{"normalizer": {"type": "Wizard"}, "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}'
tok "an unknown decoder" "" '{"decoder": {"type": "Wizard"}, "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}'
tok "deep nesting" "" "$(awk 'BEGIN { for (i = 0; i < 5000; i++) printf "{\"normalizer\":" }')"
for len in 1 100 5000 100000; do
    head -c $len models/tiny/tokenizer.json >"$tmp/t/tokenizer.json"
    refused "tokenizer.json cut to $len bytes" "" "$ew" tokenize "$tmp/t" "hello"
done
head -c 50000 /dev/urandom >"$tmp/t/tokenizer.json"
refused "tokenizer.json of random bytes" "" "$ew" tokenize "$tmp/t" "hello"

# Templates: bombs, nonsense, texts that end too early.
echo '{"messages": [{"role": "user", "content": "x"}]}' >"$tmp/in.json"
tmpl() { # WHAT SOURCE
    printf '%s' "$2" >"$tmp/t.jinja"
    refused "template: $1" "" "$ew" template "$tmp/t.jinja" --input "$tmp/in.json"
}
tmpl "a loop without end" '{% for i in range(99999) %}{% for j in range(99999) %}{{ i * j }}{% endfor %}{% endfor %}'
tmpl "a string that doubles" '{% set ns = namespace(s="xxxxxxxx") %}{% for i in range(64) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}'
tmpl "a long repetition" '{{ "x" * 99999999999 }}'
tmpl "a long range" '{{ range(99999999999) | list }}'
tmpl "a macro that calls itself" '{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}'
tmpl "a list that doubles" '{% set ns = namespace(l=[1,2,3,4]) %}{% for i in range(64) %}{% set ns.l = ns.l + ns.l %}{% endfor %}{{ ns.l | length }}'
tmpl "deep parentheses" "{{ $(awk 'BEGIN { for (i = 0; i < 20000; i++) printf "(" }')"
tmpl "deep blocks" "$(awk 'BEGIN { for (i = 0; i < 20000; i++) printf "{%% if 1 %%}" }')"
tmpl "an open tag" '{{ messages'
tmpl "an open block" '{% if true %}'
tmpl "an unknown tag" '{% include "/etc/passwd" %}'
tmpl "an unknown filter" '{{ messages | explode }}'
tmpl "division by zero" '{{ 1 // 0 }}'
tmpl "modulo zero" '{{ 1 % 0 }}'
tmpl "a number too large" '{{ 9223372036854775807 * 9223372036854775807 }}{{ nothing.there }}'
tmpl "dunder attributes" '{{ messages.__class__.__mro__ }}'
tmpl "raise_exception" '{{ raise_exception("no") }}'
tmpl "an attribute of nothing" '{{ a.b.c }}'
tmpl "random bytes" "$(head -c 3000 /dev/urandom | tr -d '\000')"'{{'
printf '%s' '{{ messages }}' >"$tmp/t.jinja"
for v in '' '[]' '{"messages": ' '"x"'; do
    printf '%s' "$v" >"$tmp/in.json"
    refused "template input '$v'" "" "$ew" template "$tmp/t.jinja" --input "$tmp/in.json"
done

# ONNX: cut, random, external data where it must not be.
onnx() { refused "$1" "$2" "$ew" build "$tmp/o" "$tmp/e" --no-timing -q; } # WHAT PART
"$ew" export tests/golden/families/qwen3-window "$tmp/x" -q || bad "export"
size=$(wc -c <"$tmp/x/model.onnx")
renew() {
    rm -rf "$tmp/o"
    cp -r "$tmp/x" "$tmp/o"
}
for len in 0 1 10 1000 $((size / 2)) $((size - 1)); do
    renew
    head -c "$len" "$tmp/x/model.onnx" >"$tmp/o/model.onnx"
    onnx "model.onnx cut to $len bytes" "model.onnx"
done
renew
head -c 10000 /dev/urandom >"$tmp/o/model.onnx"
onnx "model.onnx of random bytes" "model.onnx"
for p in '../../../../etc' '/etc/passwd/abc' './../x/model.d'; do # as long as model.onnx.data, so that lengths stay right
    renew
    to=$(printf '%s' "$p///////////////" | head -c 15)
    LC_ALL=C sed "s#model.onnx.data#$to#g" "$tmp/x/model.onnx" >"$tmp/o/model.onnx"
    onnx "external data in $to" ""
done
renew
rm "$tmp/o/model.onnx.data"
onnx "external data is not there" "model.onnx.data"
renew
rm "$tmp/o/model.onnx.data"
ln -s /etc/passwd "$tmp/o/model.onnx.data"
onnx "external data is a link to elsewhere" "model.onnx.data"
renew
head -c 100 "$tmp/x/model.onnx.data" >"$tmp/o/model.onnx.data"
onnx "external data too short" "model.onnx"
renew
printf '{' >"$tmp/o/config.json"
onnx "config.json of an export" "config.json"
renew
rm "$tmp/o/embedding.safetensors"
"$ew" build "$tmp/o" "$tmp/oe" --no-timing -q 2>/dev/null
refused "no embedding" "" "$ew" bench "$tmp/oe" --no-ceilings --gen 1 --prefill 4
refused "onnx-check of nothing" "" "$ew" onnx-check "$tmp/none"

# Engines (t_engine_file.c has the thorough part).
works "an engine" "$ew" build tests/golden/families/qwen3-window "$tmp/e" --no-timing -q
for len in 0 1 63 64 4096 20000; do
    rm -rf "$tmp/d"
    cp -r "$tmp/e" "$tmp/d"
    head -c $len "$tmp/e/llm.engine" >"$tmp/d/llm.engine"
    refused "an engine cut to $len bytes" "llm.engine" "$ew" bench "$tmp/d" --no-ceilings --gen 1 --prefill 4
done
refused "a directory that is no model" "" "$ew" run docs -p x $fast
refused "a questions file without answers" "" "$ew" eval qa models/tiny --file LICENSE $fast
refused "synth of nonsense" "" "$ew" synth LICENSE "$tmp/s" -q
finish

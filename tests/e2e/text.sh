#!/bin/sh
# tokenize and template by command line: published vectors, a whole book of text, the template cases.
. "$(dirname "$0")/lib.sh"

equal "tokenize" "$("$ew" tokenize models/tiny "What is the capital of France?")" "567 347 263 832 288 534 3066 30"
equal "and back" "$("$ew" tokenize models/tiny --decode "567 347 263 832 288 534 3066 30")" "What is the capital of France?"
equal "special tokens are text" "$("$ew" tokenize models/tiny '<|im_end|>' | wc -w | awk '{ print ($1 > 1) }')" 1
equal "unless asked for" "$("$ew" tokenize models/tiny --special '<|im_end|>')" 4072
equal "--skip-special" "$("$ew" tokenize models/tiny --decode --skip-special "567 4072")" "What"
has "--tokens" "$("$ew" tokenize models/tiny --tokens "What is")" "567	What"
has "--json" "$("$ew" tokenize models/tiny --json "What" | tr -d ' \n')" '{"ids":[567]}'
equal "the empty text" "$(: | "$ew" tokenize models/tiny -f -)" ""
equal "an id out of range is no text, as in Hugging Face" "$("$ew" tokenize models/tiny --decode "567 99999999")" "What"
refused "a word for an id" "token id" "$ew" tokenize models/tiny --decode "12 x"

vectors() { # TOKENIZER VECTORS: inputs split by a line of their own, one line of ids each
    awk -v dir="$tmp" 'BEGIN { RS = "\n__ggml_vocab_test__\n"; ORS = "" }
        { f = sprintf("%s/v.%03d", dir, NR); print $0 > f; close(f) } END { print NR > (dir "/v.n") }' "$2.inp"
    n=0
    while IFS= read -r want; do
        n=$((n + 1))
        f=$(printf '%s/v.%03d' "$tmp" $n)
        [ -e "$f" ] || break
        got=$("$ew" tokenize "$1" -f "$f" | xargs)
        equal "$2 input $n" "$got" "$(echo "$want" | xargs)"
    done <"$2.out"
    rm -f "$tmp"/v.*
}
v=$shared/reference/tokenizer-vectors
if have $v; then
    vectors "$shared/tokenizers/Llama-3.2-3B-Instruct" $v/ggml-vocab-llama-bpe.gguf
    vectors "$shared/tokenizers/Qwen3-0.6B" $v/ggml-vocab-qwen2.gguf
fi
# WikiText-2's test split: count and SHA-256 of the ids as Hugging Face tokenizers 0.23 makes them.
while read -r model count sum; do
    t=$shared/$model
    if have "$t" && have "$shared/text/wikitext2-test.txt"; then
        "$ew" tokenize "$t" -f "$shared/text/wikitext2-test.txt" >"$tmp/ids"
        equal "ids of $model" "$(wc -w <"$tmp/ids")" "$count"
        equal "sum of $model" "$(sha256sum <"$tmp/ids" | cut -d' ' -f1)" "$sum"
    fi
done <tests/golden/tokenizers/wikitext2.txt

c=$shared/reference/chat-templates
if have $c; then
    i=0
    n_render=0
    n_raise=0
    while line=$("$tool" case $c/cases.json $i "$tmp/case.json" "$tmp/want"); do
        t=${line% *}
        if [ "${line##* }" = render ]; then
            n_render=$((n_render + 1))
            "$ew" template "$c/$t" --input "$tmp/case.json" --now "2026-01-15 12:00" >"$tmp/got" 2>"$tmp/err"
            if cmp -s "$tmp/want" "$tmp/got"; then good; else bad "$t case $i: $(cat "$tmp/err")"; fi
        else
            n_raise=$((n_raise + 1))
            refused "$t case $i" "" "$ew" template "$c/$t" --input "$tmp/case.json" --now "2026-01-15 12:00"
        fi
        i=$((i + 1))
    done
    equal "renderings" $n_render 156
    equal "errors" $n_raise 12
fi
finish

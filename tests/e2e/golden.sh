#!/bin/sh
# What the trained models say: greedy texts, questions, perplexity; each against transformers in float32.
. "$(dirname "$0")/lib.sh"

texts() { # MODEL REFERENCE [run options]
    model=$1 ref=$2
    shift 2
    n=$("$tool" json "$ref" greedy.#)
    i=0
    while [ $i -lt "$n" ]; do
        if awk "BEGIN { exit !($(value "$ref" greedy.$i.smallest_top2_gap) > 0.02) }"; then
            value "$ref" greedy.$i.prompt >"$tmp/prompt"
            max=$("$tool" json "$ref" greedy.$i.greedy_ids.#)
            "$ew" run "$model" $fast --raw -f "$tmp/prompt" --max-tokens "$max" --json "$@" >"$tmp/a.json" 2>"$tmp/err"
            equal "$model text $i $*" "$(value "$tmp/a.json" text)" "$(value "$ref" greedy.$i.text)"
            equal "$model ids $i $*" "$(value "$tmp/a.json" ids)" "$(value "$ref" greedy.$i.greedy_ids)"
        else
            skip "$model text $i: the two likeliest tokens are too close"
        fi
        i=$((i + 1))
    done
}

r=$shared/reference/trained
if have "$r/tiny-reference.json"; then
    texts models/tiny "$r/tiny-reference.json"
    texts models/tiny "$r/tiny-reference.json" -t 2 --max-input-len 7
    texts models/tiny "$r/tiny-reference.json" --no-fusion --no-graph --cpu ref
    works "perplexity of tiny" "$ew" eval ppl models/tiny --text "$shared/text/books_test.txt" --max-chars 200000 --json $fast
    within "perplexity of tiny" "$(value "$tmp/out" perplexity)" "$(value "$r/tiny-reference.json" perplexity.perplexity)" 0.001
    equal "tokens scored" "$(value "$tmp/out" scored_tokens)" "$(value "$r/tiny-reference.json" perplexity.scored_tokens)"
    works "questions to tiny" "$ew" eval qa models/tiny --file "$r/qa.jsonl" --json $fast
    # transformers itself gets 453 of the 500
    within "tiny's score" "$(value "$tmp/out" right)" 453 0.005
fi
if have "$r/small-reference.json"; then
    texts "$shared/models/small" "$r/small-reference.json"
    works "perplexity of small" "$ew" eval ppl "$shared/models/small" --text "$shared/text/books_test.txt" --max-chars 200000 --json $fast
    within "perplexity of small" "$(value "$tmp/out" perplexity)" "$(value "$r/small-reference.json" perplexity.perplexity)" 0.001
fi
# Without ../shared: figures of the model in the box on a text of this repository.
works "perplexity of the licence" "$ew" eval ppl models/tiny --text LICENSE --max-chars 4000 --json $fast
within "perplexity of the licence" "$(value "$tmp/out" perplexity)" "$(cat tests/golden/licence-perplexity.txt)" 0.001
finish

#!/bin/sh
# Every command explains itself; what it does not know it refuses with exit code 2 and one line.
. "$(dirname "$0")/lib.sh"

usage_error() { # WHAT CMD...
    what=$1
    shift
    "$@" >"$tmp/out" 2>"$tmp/err" </dev/null
    equal "$what: exit code" $? 2
    equal "$what: lines" "$(wc -l <"$tmp/err")" 1
    equal "$what: standard output" "$(cat "$tmp/out")" ""
}
works "edgewise --help" "$ew" --help
commands=$(awk '/^  [a-z]/ { print $1 }' "$tmp/out")
equal "commands" "$(echo $commands)" "run chat export build quantize inspect bench eval tokenize template synth onnx-check"
works "edgewise --version" "$ew" --version
has "--version" "$(cat "$tmp/out")" "edgewise "
"$ew" >/dev/null 2>&1
equal "no command" $? 2
usage_error "an unknown command" "$ew" fly
for c in $commands; do
    works "$c --help" "$ew" "$c" --help
    h=$(cat "$tmp/out")
    has "$c --help" "$h" "edgewise $c"
    has "$c --help" "$h" "--help"
    # Every option in the sources of the command has its line, with words after it.
    src=tools/edgewise/cmd_$(echo "$c" | tr - _).c
    case $c in export) src=tools/edgewise/cmd_build.c ;; tokenize | template) src=tools/edgewise/cmd_text.c ;; esac
    grep -q . "$src" || bad "$src is not there"
    echo "$h" | grep -E '^ +(-[a-z], )?--' | awk '{ n = 0; for (i = 1; i <= NF; i++) if ($i !~ /^-/) n++; if (n < 2) print }' >"$tmp/short"
    equal "$c: options without a word" "$(cat "$tmp/short")" ""
    usage_error "$c: an unknown option" "$ew" "$c" --no-such-option
    usage_error "$c: nothing to do" "$ew" "$c"
done
# The options that users of the product are promised.
promised() { # COMMAND OPTION...
    h=$("$ew" "$1" --help)
    c=$1
    shift
    for o in "$@"; do has "$c --help" "$h" "$o "; done
}
promised run --prompt --requests --output --cache-dir --think --no-think --raw --greedy --max-tokens --threads --profile --trace --no-graph --cpu
promised eval --text --file --reference --json
promised export --split-qkv
promised bench --prefill --decode
promised template --input
usage_error "a number that is none" "$ew" run models/tiny -p x --max-tokens ten
usage_error "a negative count" "$ew" run models/tiny -p x --threads -1
usage_error "greedy and temperature" "$ew" run models/tiny $fast -p x --greedy --temperature 1
usage_error "a missing value" "$ew" run models/tiny -p
usage_error "a flag with a value" "$ew" run models/tiny -p x --greedy=1
usage_error "no prompt" "$ew" run models/tiny
usage_error "two prompts" "$ew" run models/tiny -p x -f y
usage_error "an extra argument" "$ew" run models/tiny x -p y
usage_error "an unknown evaluation" "$ew" eval beauty models/tiny
usage_error "an unknown KV type" "$ew" run models/tiny -p x --kv i8
usage_error "a temperature below 0, before anything is built" "$ew" run "$tmp/none" -p x --temperature -1
usage_error "a batch of no rows" "$ew" bench models/tiny --batch 1,0
usage_error "more rows than the engine takes" "$ew" bench models/tiny --batch 9 --max-batch 4
: >"$tmp/empty"
refused "a file of no questions" "no questions" "$ew" eval qa models/tiny $fast --file "$tmp/empty"
refused "profiles that are not there" "No such file" "$ew" build models/tiny "$tmp/e" --profiles "$tmp/none"
refused "a prompt that is not UTF-8" "UTF-8" "$ew" run models/tiny $fast -p "$(printf '\377')"
"$ew" run models/tiny $fast -p "Hello!" -n 2 --logprobs 3 --json >"$tmp/lp.json" 2>"$tmp/err"
equal "log-probabilities: steps" "$("$tool" json "$tmp/lp.json" logprobs.#)" 2
equal "log-probabilities: the chosen one and 3" "$("$tool" json "$tmp/lp.json" logprobs.0.#)" 4
if [ -w /dev/full ]; then
    "$ew" tokenize models/tiny x >/dev/full 2>"$tmp/err"
    equal "a full standard output: exit code" $? 1
    has "a full standard output" "$(cat "$tmp/err")" "standard output"
fi
refused "an unknown processor level" "sse9" "$ew" run models/tiny $fast -p x --cpu sse9
refused "no such model" "" "$ew" run "$tmp/none" $fast -p x
finish

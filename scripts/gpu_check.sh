#!/bin/sh
# Everything that needs a GPU, in one go, and one table at the end:
#   kernels against the reference, parity of every reference model, greedy text beside the CPU's, the graph cache,
#   compute-sanitizer (memcheck, racecheck, initcheck), the benchmark.
#
#   scripts/gpu_check.sh [--build DIR] [--device N] [--quick] [--only STAGE,...] [--log DIR] [--bench MODEL]...
#
# DIR holds edgewise and tests/checkcuda (default: build). --quick leaves the sanitizers out. Reference models are those of
# tests/golden/families and, where it is there, ../shared/reference. Exit status 1 when anything failed; a tool that is not
# installed is "skipped" by name.
set -u
cd "$(dirname "$0")/.."
build=build device=0 quick=0 only= log=gpu_check.log bench=
while [ $# -gt 0 ]; do
    case $1 in
    --build) build=$2; shift ;;
    --device) device=$2; shift ;;
    --quick) quick=1 ;;
    --only) only=,$2,; shift ;;
    --log) log=$2; shift ;;
    --bench) bench="$bench $2"; shift ;;
    *) echo "gpu_check: unknown option $1" >&2; exit 2 ;;
    esac
    shift
done
mkdir -p "$log" || exit 1
ew="$build/edgewise" cc="$build/tests/checkcuda" cuda="--device cuda:$device" cache="$log/engines"
shared=../shared/reference table="$log/table.txt"
: >"$table"
failed=0

wants() { [ -z "$only" ] || case $only in *,$1,*) true ;; *) false ;; esac; }

# check NAME LIMIT command...: runs it with its words in the log, and adds a line to the table.
check() {
    name=$1 limit=$2
    shift 2
    start=$(date +%s%N)
    timeout "$limit" "$@" >"$log/$name.txt" 2>&1
    rc=$?
    ms=$((($(date +%s%N) - start) / 1000000))
    case $rc in
    0) result=passed ;;
    77) result=skipped ;;
    124) result="FAILED (no end after $limit s)" failed=1 ;;
    *)
        if grep -q 'not supported$\|is not supported' "$log/$name.txt"; then
            result="refused: $(grep -m1 'not supported' "$log/$name.txt" | cut -c1-90)"
        else
            result="FAILED (exit code $rc)" failed=1
        fi
        ;;
    esac
    printf '%-36s %8d ms  %s\n' "$name" "$ms" "$result" >>"$table"
}

# Logits and layers beside a file that transformers made. bf16 operands: 1e-2 of the largest value, same likeliest tokens.
parity() {
    [ -f "$2/config.json" ] && [ -f "$3" ] || return 0
    check "parity-$1" 300 "$ew" eval parity "$2" $cuda --no-timing --reference "$3" --tolerance 1e-2 --cache-dir "$cache" -q
}

greedy_one() {
    "$ew" run "$1" -q --no-timing --cache-dir "$cache" -p "$2" --max-tokens 40 $3
}

# The same greedy text as the CPU, with and without graphs.
greedy() {
    for prompt in "What do you call a young bear?" "Count to five." "Who are you?"; do
        want=$(greedy_one "$1" "$prompt" "") || return 1
        for how in "$cuda" "$cuda --no-graph"; do
            got=$(greedy_one "$1" "$prompt" "$how") || return 1
            [ "$got" = "$want" ] || { echo "'$prompt' $how: '$got', the CPU says '$want'"; return 1; }
        done
    done
}

if wants kernels; then
    check kernels 900 "$cc" --device "$device"
fi
if wants parity; then
    for dir in tests/golden/families/*/; do
        parity "$(basename "$dir")" "$dir" "$dir/reference.safetensors"
    done
    for dir in $shared/architectures/*/; do
        parity "$(basename "$dir")" "$dir" "$dir/reference.safetensors"
    done
    parity tiny models/tiny $shared/trained/tiny-forward.safetensors
    parity small ../shared/models/small $shared/trained/small-forward.safetensors
fi
if wants greedy; then
    start=$(date +%s%N)
    if greedy models/tiny >"$log/greedy.txt" 2>&1; then result=passed; else result=FAILED failed=1; fi
    printf '%-36s %8d ms  %s\n' greedy $((($(date +%s%N) - start) / 1000000)) "$result" >>"$table"
fi
if wants sanitizer && [ $quick = 0 ]; then
    if command -v compute-sanitizer >/dev/null; then
        for tool in memcheck racecheck initcheck; do
            check "$tool-kernels" 3000 compute-sanitizer --tool $tool --error-exitcode 9 "$cc" --device "$device"
            check "$tool-tiny" 900 compute-sanitizer --tool $tool --error-exitcode 9 "$ew" run models/tiny $cuda -q \
                --no-timing --no-graph --cache-dir "$cache" -p "What do you call a young bear?" --max-tokens 3
        done
    else
        printf '%-36s %8d ms  %s\n' sanitizer 0 "skipped: compute-sanitizer is not installed" >>"$table"
    fi
fi
if wants bench; then
    for model in models/tiny $bench; do
        name=bench-$(basename "$model")
        check "$name" 900 "$ew" bench "$model" $cuda -q --rows none --no-ceilings --cache-dir "$cache" --batch 1,8 --decode 128,2048
        grep -E '^(prefill|decode)' "$log/$name.txt" | sed 's/^/    /' >>"$table"
    done
fi
cat "$table"
[ $failed = 0 ] && echo "gpu_check: all is well" || echo "gpu_check: something failed; see $log"
exit $failed

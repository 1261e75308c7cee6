#!/bin/sh
# answers.sh ARM HOST ROOT: greedy answers of the AArch64 build (folder ARM, its packages in ROOT) under qemu-user are those of this
# machine's build (folder HOST), at every level and with every KV cache; engine files of one are refused by the other.
set -u
arm=$1
host=$2/edgewise
root=$3
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
n_checks=0
n_failed=0
bad() {
    n_failed=$((n_failed + 1))
    echo "FAILED: $*"
}
# on CPU ARGS...
on() {
    cpu=$1
    shift
    qemu-aarch64 -cpu "$cpu" -L /usr/aarch64-linux-gnu -E LD_LIBRARY_PATH="$root/usr/lib/aarch64-linux-gnu:$root/lib/aarch64-linux-gnu" \
        "$arm/edgewise" "$@"
}
equal() {
    n_checks=$((n_checks + 1))
    [ -n "$2" ] && [ "$2" = "$3" ] || bad "$1: '$2', wanted '$3'"
}
run="run models/tiny -t 2 -n 24 --max-kv-len 256 --no-timing -q --greedy"
for prompt in "What is the capital of France?" "Once upon a time"; do
    # shellcheck disable=SC2086
    want=$("$host" $run --cache-dir "$tmp/host" -p "$prompt")
    for level in ref neon dotprod i8mm native; do
        # shellcheck disable=SC2086
        equal "--cpu $level" "$(on max $run --cache-dir "$tmp/arm" --cpu $level -p "$prompt")" "$want"
    done
    # shellcheck disable=SC2086
    equal "-cpu cortex-a53" "$(on cortex-a53 $run --cache-dir "$tmp/arm" -p "$prompt")" "$want"
done
for kv in f16 bf16 fp8 int8; do
    # shellcheck disable=SC2086
    equal "--kv $kv" "$(on max $run --cache-dir "$tmp/arm" --kv $kv -p Hello)" "$("$host" $run --cache-dir "$tmp/host" --kv $kv -p Hello)"
done

# Codes of 4 bits times rows rounded to int8: integers, so every level has the same sums, and each brings its own kernel. Not AVX-512 VNNI,
# which may round weights too (kernels/linear_w8.h).
plain=$want
if "$host" quantize models/tiny "$tmp/int4" -s int4 -g 32 --method rtn -q; then
    want=$("$host" run "$tmp/int4" -n 24 --max-kv-len 256 --no-timing -q --greedy --activations int8 --cpu ref --cache-dir "$tmp/host" \
        -p "Once upon a time")
    for level in ref neon dotprod i8mm; do
        engine=$tmp/int4-$level
        on max build "$tmp/int4" "$engine" --no-timing -q --max-kv-len 256 --activations int8 --cpu $level || bad "build --cpu $level"
        equal "int4, --cpu $level" "$(on max run "$engine" -n 24 -q --greedy -p "Once upon a time")" "$want"
        [ $level = ref ] && continue
        on max inspect "$engine" | grep -q "linear_q4x8__${level}_p8" || bad "--cpu $level: no kernel of this level in the engine"
    done
    case $(on cortex-a53 run "$tmp/int4-i8mm" -p x 2>&1) in *"needs CPU level i8mm"*"offers neon"*) ;; *) bad "i8mm on cortex-a53" ;; esac
else
    bad "quantize"
fi

on max build models/tiny "$tmp/arm.dir" --no-timing -q --max-kv-len 256 || bad "build on aarch64"
"$host" build models/tiny "$tmp/host.dir" --no-timing -q --max-kv-len 256 || bad "build on this machine"
equal "own engine" "$(on max run "$tmp/arm.dir" -n 24 -q --greedy -p "Once upon a time")" "$plain"
case $("$host" run "$tmp/arm.dir" -p x 2>&1) in *"engine is for 'aarch64'"*) ;; *) bad "an engine of aarch64 is run here" ;; esac
case $(on max run "$tmp/host.dir" -p x 2>&1) in *"this machine is 'aarch64'"*) ;; *) bad "a foreign engine is run on aarch64" ;; esac
# shellcheck disable=SC2086
case $(on cortex-a53 $run --cache-dir "$tmp/arm" --cpu sse9 -p x 2>&1) in *sse9*) ;; *) bad "an unknown level is taken" ;; esac
case $(on max run --help) in *"dotprod, i8mm"*) ;; *) bad "--help does not name the levels" ;; esac
echo "$n_checks answers, $n_failed failures"
[ $n_failed -eq 0 ]

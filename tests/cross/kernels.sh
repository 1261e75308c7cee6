#!/bin/sh
# kernels.sh CHECKKERN: the AArch64 build of checkkern under qemu-user, once for every level on a processor that has this level and
# no more: what is detected, that masks hold, and every kernel of the level against the reference. Says nothing about speed.
set -u
checkkern=$1
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
n_failed=0
bad() {
    n_failed=$((n_failed + 1))
    echo "FAILED: $*"
}
# on CPU ARGS...
on() {
    cpu=$1
    shift
    qemu-aarch64 -cpu "$cpu" "$checkkern" --seed 20261123 "$@"
}
# level CPU MASK WANTED: the level that is named; nothing is checked (no kernel has this name).
level() {
    got=$(on "$1" --cpu "$2" --filter none | sed -n 's/^cpu .*, level \([a-z0-9]*\), .*/\1/p')
    [ "$got" = "$3" ] || bad "-cpu $1 --cpu $2: level '$got', wanted '$3'"
}
level cortex-a53 native neon
level cortex-a76 native dotprod
level max native i8mm
level max dotprod dotprod
level max neon neon
level max ref ref
level cortex-a53 i8mm neon

# A processor without an instruction must not be given a kernel that has it.
[ "$(on cortex-a53 --filter dotprod | tail -n 1)" = "0 checks, 0 failures" ] || bad "cortex-a53 runs dotprod"
[ "$(on cortex-a76 --filter i8mm | tail -n 1)" = "0 checks, 0 failures" ] || bad "cortex-a76 runs i8mm"
[ "$(on cortex-a76 --filter armbf16 | tail -n 1)" = "0 checks, 0 failures" ] || bad "cortex-a76 runs bf16"

on cortex-a53 --filter neon >"$tmp/neon" 2>&1 &
neon=$!
on cortex-a76 --filter dotprod >"$tmp/dotprod" 2>&1 || bad "dotprod: $(cat "$tmp/dotprod")"
on max --filter i8mm >"$tmp/i8mm" 2>&1 || bad "i8mm: $(cat "$tmp/i8mm")"
on max --filter armbf16 >"$tmp/armbf16" 2>&1 || bad "bf16: $(cat "$tmp/armbf16")"
wait $neon || bad "neon: $(cat "$tmp/neon")"
for l in neon dotprod i8mm armbf16; do
    grep -q '_'$l'.* ok$' "$tmp/$l" || bad "$l: no kernel was checked"
    tail -n +2 "$tmp/$l"
done
[ $n_failed -eq 0 ]

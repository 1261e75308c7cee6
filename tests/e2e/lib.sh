# lib.sh - what the end-to-end scripts share; sourced, no test by itself.
# A script runs from the repository root with the binaries of $EW_BIN (default build), works in $tmp, and ends with `finish`.
set -u
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
cd "$root" || exit 1
bin=${EW_BIN:-build}
case $bin in /*) ;; *) bin=$root/$bin ;; esac
ew=$bin/edgewise
tool=$bin/tests/e2e_tool
shared=../shared
name=$(basename "$0" .sh)
tmp=$(mktemp -d "${TMPDIR:-/tmp}/ew-$name.XXXXXX") || exit 1
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM
# Engines made on the fly: no timing (the clock decides nothing here), one folder a script.
fast="--no-timing -q --cache-dir $tmp/cache"
n_checks=0
n_failed=0
n_skipped=0

good() { n_checks=$((n_checks + 1)); }
bad() {
    n_checks=$((n_checks + 1))
    n_failed=$((n_failed + 1))
    printf '%s: FAILED: %s\n' "$name" "$*"
}
skip() {
    n_skipped=$((n_skipped + 1))
    printf 'skipped: %s\n' "$*"
}
# have PATH: true when it is there, else says that it is skipped.
have() {
    [ -e "$1" ] && return 0
    skip "$1 is not here"
    return 1
}
# equal WHAT GOT WANTED
equal() {
    if [ "$2" = "$3" ]; then good; else bad "$1: got '$2', wanted '$3'"; fi
}
# has WHAT TEXT PART
has() {
    case $2 in *"$3"*) good ;; *) bad "$1: '$3' is not in '$2'" ;; esac
}
has_not() {
    case $2 in *"$3"*) bad "$1: '$3' is in '$2'" ;; *) good ;; esac
}
# works WHAT CMD...: exit code 0; standard output is left in $tmp/out.
works() {
    what=$1
    shift
    "$@" >"$tmp/out" 2>"$tmp/err"
    rc=$?
    if [ $rc -eq 0 ]; then
        good
    else
        bad "$what: exit code $rc: $(tail -n 3 "$tmp/err") $(tail -n 1 "$tmp/out")"
    fi
    return $rc
}
# refused WHAT PART CMD...: exit code 1 (no signal, no usage), and one line on standard error with PART in it.
refused() {
    what=$1 part=$2
    shift 2
    timeout 120 "$@" >"$tmp/out" 2>"$tmp/err" </dev/null
    rc=$?
    lines=$(wc -l <"$tmp/err")
    text=$(cat "$tmp/err")
    if [ $rc -ne 1 ]; then
        bad "$what: exit code $rc, wanted 1: $(printf %s "$text" | head -c 600)"
    elif [ "$lines" -ne 1 ]; then
        bad "$what: $lines lines on standard error, wanted 1: $(printf %s "$text" | head -c 600)"
    else
        case $text in
        "edgewise: "*"$part"*) good ;;
        *) bad "$what: '$part' is not in: $text" ;;
        esac
    fi
}
value() { "$tool" json "$1" "$2"; }
# within WHAT GOT WANTED SHARE: |got - wanted| <= share * |wanted|
within() {
    if awk -v a="$2" -v b="$3" -v s="$4" 'BEGIN { d = a - b; if (d < 0) d = -d; if (b < 0) b = -b; exit !(a != "" && d <= s * b) }'
    then good; else bad "$1: $2 is not within $4 of $3"; fi
}
finish() {
    printf '%s: %d checks, %d failed, %d skipped\n' "$name" $n_checks $n_failed $n_skipped
    [ $n_failed -eq 0 ] && [ $n_checks -gt 0 ] && exit 0
    [ $n_failed -eq 0 ] && exit 77
    exit 1
}

#!/usr/bin/env bash
# What `make test` and CI run. Goes on after a failure; the last line is `N passed, N failed, N skipped`, counted in test
# programs and scripts, and the exit code is 1 when any failed.
set -u
cd "$(dirname "$0")/.." || exit 1

stages="static release unit headers symbols e2e amx clang asan tsan fuzz cross"
usage() {
    cat <<TEXT
scripts/test.sh [--quick] [--only STAGE]... [--list]

  --quick       static checks, the release build, its unit tests and end-to-end scripts
  --only STAGE  this stage alone (may be repeated); builds what it needs
  --list        the names of the stages

Stages:
  static   layers, sizes, banned functions, format (scripts/check*.sh)
  release  gcc -O2 -Werror
  unit     unit tests and kernel checks of the release build
  headers  each public header alone as C99 and C++17; a program against the library
  symbols  exported symbols against docs/abi/symbols.txt
  e2e      tests/e2e/*.sh on the release build
  amx      kernels for matrix tiles (AMX), the instructions emulated
  clang    clang -Werror and its unit tests
  asan     AddressSanitizer and UBSan: unit tests, hostile files, a short answer
  tsan     ThreadSanitizer: pool, engine, runtime tests, an answer on two threads
  fuzz     every libFuzzer target for EW_FUZZ_SECONDS (60), two at a time
  cross    aarch64: compiles; its kernels and answers under qemu-user, where these tools are installed

Environment: EW_JOBS (processors), EW_FUZZ_SECONDS, EW_FLIPS (byte flips of the engine file test).
TEXT
}

only=""
while [ $# -gt 0 ]; do
    case $1 in
    --help) usage; exit 0 ;;
    --list) echo "$stages"; exit 0 ;;
    --quick) only="static release unit headers symbols e2e" ;;
    --only)
        [ $# -ge 2 ] || { echo "test.sh: --only needs a stage" >&2; exit 2; }
        case " $stages " in *" $2 "*) ;; *) echo "test.sh: unknown stage '$2'" >&2; exit 2 ;; esac
        only="$only $2"
        shift ;;
    *) echo "test.sh: unknown option $1 (see --help)" >&2; exit 2 ;;
    esac
    shift
done
[ -n "$only" ] || only=$stages

jobs=${EW_JOBS:-$(nproc)}
launcher=""
command -v ccache >/dev/null && launcher="-DCMAKE_C_COMPILER_LAUNCHER=ccache"
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
n_passed=0
n_failed=0
n_skipped=0
failures=""

pass() { n_passed=$((n_passed + 1)); }
fail() { # NAME [LOG]
    n_failed=$((n_failed + 1))
    failures="$failures $1"
    printf '  FAILED: %s\n' "$1"
    [ -z "${2:-}" ] || tail -n "${3:-40}" "$2" | sed 's/^/    /'
}
skip() {
    n_skipped=$((n_skipped + 1))
    printf '  skipped: %s\n' "$1"
}
# one NAME CMD...: a test of its own; exit code 77 is a skip.
one() {
    local name=$1 log rc start=$SECONDS
    log=$logs/$(printf %s "$name" | tr -c 'a-zA-Z0-9.\n' _)
    shift
    "$@" >"$log" 2>&1
    rc=$?
    case $rc in
    0) pass; printf '  passed: %s (%d s)\n' "$name" $((SECONDS - start)) ;;
    77) skip "$name: $(tail -n 1 "$log")" ;;
    *) fail "$name (exit code $rc)" "$log" ;;
    esac
    [ $rc -eq 77 ] || grep '^skipped: ' "$log" | sort | uniq -c | sed 's/^ *\([0-9]*\) skipped: /    skipped: (\1) /'
    return $rc
}

preset_dir() { case $1 in release) echo build ;; asan-ubsan) echo build-asan ;; *) echo "build-$1" ;; esac; }
built=""
# build PRESET [TARGET]...: once a run; one test.
build() {
    local preset=$1 dir
    dir=$(preset_dir "$1")
    shift
    case " $built " in *" $preset "*) return 0 ;; *" !$preset "*) return 1 ;; esac
    # shellcheck disable=SC2086
    if one "build $preset" sh -c "cmake --preset $preset $launcher -Wno-dev >/dev/null && cmake --build $dir -j $jobs ${*:+--target $*} -- -k 0 >$logs/$preset.out 2>&1 ||
        { grep -E -A8 'error|FAILED' $logs/$preset.out; exit 1; }"; then
        built="$built $preset"
    else
        built="$built !$preset"
        return 1
    fi
}
# tests DIR LABEL [ctest options]: counts each program.
tests() {
    local dir=$1 label=$2 log=$logs/ctest line
    shift 2
    ctest --test-dir "$dir" -j "$jobs" --timeout 900 --output-on-failure "$@" >"$log" 2>&1
    while read -r line; do
        case $line in
        *" Passed "*) pass ;;
        *"***Skipped"*) skip "$label $(printf %s "$line" | awk '{ print $4 }')" ;;
        *) fail "$label $(printf %s "$line" | awk '{ print $4 }')" ;;
        esac
    done < <(grep -E '^ *[0-9]+/[0-9]+ Test +#' "$log")
    if ! grep -q 'tests passed' "$log"; then
        fail "$label: no tests ran" "$log"
    elif ! grep -q '^100% tests passed' "$log"; then
        grep -vE '^\[ *(OK|RUN) *\]|^ *Start|Passed ' "$log" | tail -n 120 | sed 's/^/    /'
    fi
    printf '  %s: %s\n' "$label" "$(grep 'tests passed' "$log")"
}

stage_static() {
    for check in layers sizes banned format; do one "check_$check" "scripts/check_$check.sh"; done
}
stage_release() { build release; }
stage_unit() { build release && tests build "release"; }
stage_headers() { build release && one "headers" tests/header/headers.sh build; }
stage_symbols() { build release && one "symbols" env EW_LIB=build/libedgewise.so scripts/check_symbols.sh; }
stage_e2e() {
    build release || return
    for script in tests/e2e/*.sh; do
        [ "$(basename "$script")" = lib.sh ] || one "e2e $(basename "$script" .sh)" env EW_BIN=build "$script"
    done
}
stage_amx() {
    grep -q avx512_vnni /proc/cpuinfo || { skip "amx (no AVX-512 VNNI here)"; return; }
    build amx-emulated checkkern && one "amx kernels" build-amx-emulated/tests/checkkern --seed 20261123 --filter amx
}
stage_clang() { build clang && tests build-clang "clang" -E '^(t_(models|torture|engine_file|export)|checkcuda_compile)$'; }
stage_asan() {
    export ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1
    build asan-ubsan
    if [ -x build-asan/edgewise ]; then
        EW_FLIPS=${EW_FLIPS:-200} tests build-asan "asan" -E '^(t_models|t_export|checkkern|checkcuda_compile)$'
        one "asan hostile" env EW_BIN=build-asan tests/e2e/hostile.sh
        one "asan answer" env EW_BIN=build-asan tests/e2e/short.sh
    fi
    unset ASAN_OPTIONS UBSAN_OPTIONS
}
stage_tsan() {
    export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1
    local wanted=() t
    for t in u_base u_os u_pool u_engine u_runtime u_build u_context; do [ -e tests/unit/$t.c ] && wanted+=("$t"); done
    if build tsan edgewise_tool e2e_tool "${wanted[@]}"; then
        tests build-tsan "tsan" -R "^($(printf '%s|' "${wanted[@]}")none)\$"
        one "tsan answer" env EW_BIN=build-tsan tests/e2e/short.sh
    fi
    unset TSAN_OPTIONS
}

fuzz_one() { # TARGET: its corpus and what it found before are the seeds; new finds stay out of the tree
    local target=$1 kind=${1#fuzz_} work
    work=$(mktemp -d)
    mkdir -p "$work/found"
    local seeds=("$work/found")
    for d in "tests/fuzz/corpus/$kind" "tests/fuzz/regressions/$kind"; do [ -d "$d" ] && seeds+=("$d"); done
    if [ "$kind" = plan ]; then # engines as this version writes them
        for m in tests/fuzz/corpus/onnx/resize.onnx tests/fuzz/corpus/onnx/slice9.onnx tests/golden/families/qwen3-window \
            tests/golden/quant_import/ct-int4-asym tests/golden/quant_import/mo-mixed; do
            local quantised=()
            case $m in */quant_import/*) quantised=(--activations declared --kv int8) ;; esac
            build-fuzz/edgewise build $m "$work/engine" --cpu ref --no-timing -q --max-kv-len 16 --max-input-len 4 --max-batch 2 "${quantised[@]}" &&
                cat "$work"/engine/*.engine >"$work/found/$(basename $m)"
            rm -rf "$work/engine"
        done
        for kv in f16 int8; do # for a GPU, by the stand-ins of driver and compiler
            LD_LIBRARY_PATH=build-fuzz/tests/fakecuda:build-fuzz/tests/fakenvrtc build-fuzz/edgewise build tests/golden/families/qwen3-window \
                "$work/engine" --device cuda --kernel-cache none --no-timing -q --max-kv-len 16 --max-input-len 4 --max-batch 2 --kv $kv &&
                cat "$work"/engine/*.engine >"$work/found/cuda-$kv"
            rm -rf "$work/engine"
        done
    fi
    "build-fuzz/tests/$target" -max_total_time="${EW_FUZZ_SECONDS:-60}" -rss_limit_mb=2048 -timeout=10 \
        -artifact_prefix="$work/" -print_final_stats=1 "${seeds[@]}" >"$logs/$target" 2>&1
    local rc=$?
    if [ $rc -ne 0 ]; then
        for f in "$work"/crash-* "$work"/timeout-* "$work"/oom-* "$work"/leak-*; do
            [ -f "$f" ] && { echo "base64 of $(basename "$f"):"; head -c 4000 "$f" | base64 -w 100; } >>"$logs/$target"
        done
    fi
    rm -rf "$work"
    echo $rc >"$logs/$target.rc"
}
stage_fuzz() {
    local targets=() n=0
    for f in tests/fuzz/fuzz_*.c; do targets+=("$(basename "$f" .c)"); done
    build fuzz edgewise_tool fakenvrtc "${targets[@]}" || return
    for t in "${targets[@]}"; do
        fuzz_one "$t" &
        n=$((n + 1))
        [ $((n % 2)) -eq 0 ] && wait
    done
    wait
    for t in "${targets[@]}"; do
        if [ "$(cat "$logs/$t.rc")" = 0 ]; then
            pass
            printf '  passed: %s (%s runs)\n' "$t" "$(awk '/number_of_executed_units/ { print $2 }' "$logs/$t")"
        else
            fail "$t" "$logs/$t" 60
        fi
    done
}
stage_cross() {
    local cc=aarch64-linux-gnu-gcc
    if ! command -v $cc >/dev/null || ! echo '#include <stdio.h>' | $cc -fsyntax-only -xc - 2>/dev/null; then
        skip "aarch64 (no cross compiler)"
        return
    fi
    build release && one "aarch64 compiles" scripts/check_cross.sh $cc
    if ! command -v qemu-aarch64 >/dev/null; then
        skip "aarch64 under qemu-user (no qemu-aarch64)"
        return
    fi
    one "build aarch64 checkkern" scripts/cross_checkkern.sh $cc build-cross && one "aarch64 kernels" tests/cross/kernels.sh build-cross/checkkern
    if ! scripts/arm64_root.sh build-arm64-root; then
        skip "aarch64 answers (no packages for it)"
        return
    fi
    build release && build aarch64 edgewise u_cpu u_op u_pool u_quant u_general_ew u_general_move u_general_nn u_general_reduce || return
    tests build-aarch64 aarch64 -R '^u_(cpu|op|pool|quant|general_.*)$'
    one "aarch64 answers" tests/cross/answers.sh build-aarch64 build build-arm64-root
}

all=$SECONDS
for stage in $stages; do
    case " $only " in *" $stage "*) ;; *) continue ;; esac
    start=$SECONDS
    printf '== %s\n' "$stage"
    "stage_$stage"
    printf '== %s: %d s\n' "$stage" $((SECONDS - start))
done
printf 'all stages: %d s\n' $((SECONDS - all))
[ -z "$failures" ] || printf 'failed:%s\n' "$failures"
printf '%d passed, %d failed, %d skipped\n' $n_passed $n_failed $n_skipped
[ $n_failed -eq 0 ]

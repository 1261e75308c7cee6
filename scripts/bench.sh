#!/bin/sh
# One run that says how fast this machine is and how much of that Edgewise uses: ceilings, synthetic Qwen3 shapes, llama-bench beside it.
# docs/bench.md says what is measured and how to read the report.
set -eu
export LC_ALL=C
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)

usage() {
    cat <<'TEXT'
scripts/bench.sh [options]    (make bench ARGS="options")

What:
  --quick               the 0.6b shape alone
  --sizes LIST          of 0.6b,1.7b,4b (default: all)
  --formats LIST        of int4,int8,bf16 (default: all); int4 is groups of 128, both quantised ones have an 8-bit head
  --shape NAME=FILE     this config.json in place of the built-in shapes; may be repeated
  --prefill LIST        prompt lengths (default 512,4096)
  --decode LIST         contexts to decode at (default 128,4096)
  --batch N|none        rows decoded together, at the first of --decode (default 8)
  --rows LIST|none      the curve of small batches (default 1,2,4,8,16,32,64)
  --gen N               tokens a decode run (default 64)
  --rounds N            how often all of it runs, alternating with llama-bench (default 3)
  --llama-gguf FILE=NAME   llama-bench (on the PATH) on this file as model NAME, such as 0.6b-int4; may be repeated
Passed on to edgewise bench: --threads N, --cpu LEVEL, --activations KIND, --kv DTYPE, --tactic NAME, --pin, --no-timing

Where:
  --out DIR             the report (default bench-<date>); must not exist
  --dir DIR             models (default $EW_BENCH_DIR, else ~/.cache/edgewise-bench)
  --keep                keep the engines too; else only the checkpoints stay
  --clean               keep nothing, and free space while running
  --bin DIR             a CMake build folder (default build)
  --no-build            do not build it first

Space: 0.6b 4.5 GB, all sizes 41 GB; with --clean 3.8 and 25 GB, with --keep 11 and 111 GB. Refused when the disk has less.
TEXT
}
wrong() {
    echo "bench: $* (see --help)" >&2
    exit 2
}
die() {
    echo "bench: $*" >&2
    exit 1
}
started=$(date +%s)
say() { printf '[%4d s] %s\n' $(($(date +%s) - started)) "$*" >&2; }

sizes=0.6b,1.7b,4b formats=int4,int8,bf16 shapes="" prefill=512,4096 decode=128,4096 batch=8 rows=1,2,4,8,16,32,64
gen=64 rounds=3 ggufs="" threads="" pass="" out="" dir=${EW_BENCH_DIR:-} keep="" clean="" bin=$root/build build=1
arguments=$*

# ---- the command line ----
is_count() { case $1 in '' | *[!0-9]* | 0*) return 1 ;; *) [ ${#1} -le 6 ] ;; esac }
is_list() { # of counts, or none
    [ "$1" = none ] && return 0
    case $1 in '' | ,* | *, | *,,*) return 1 ;; esac
    for item in $(echo "$1" | tr , ' '); do is_count "$item" || return 1; done
}
is_name() { case $1 in '' | *[!A-Za-z0-9._-]*) return 1 ;; *) [ ${#1} -le 40 ] ;; esac }
one_of() { # VALUE WORDS
    case " $2 " in *" $1 "*) return 0 ;; *) return 1 ;; esac
}
subset() { # LIST WORDS
    [ -n "$1" ] || return 1
    for item in $(echo "$1" | tr , ' '); do one_of "$item" "$2" || return 1; done
}
while [ $# -gt 0 ]; do
    case $1 in
    --help | -h) usage; exit 0 ;;
    --quick) sizes=0.6b ;;
    --keep) keep=1 ;;
    --clean) clean=1 ;;
    --no-build) build="" ;;
    --pin | --no-timing) pass="$pass $1" ;;
    --sizes | --formats | --shape | --prefill | --decode | --batch | --rows | --gen | --rounds | --llama-gguf | --out | --dir | --bin | \
        --threads | --cpu | --activations | --kv | --tactic)
        [ $# -ge 2 ] || wrong "$1 needs a value"
        case $1 in
        --sizes) subset "$2" "0.6b 1.7b 4b" || wrong "--sizes: '$2' is not a list of 0.6b, 1.7b, 4b"; sizes=$2 ;;
        --formats) subset "$2" "int4 int8 bf16" || wrong "--formats: '$2' is not a list of int4, int8, bf16"; formats=$2 ;;
        --shape)
            is_name "${2%%=*}" && [ "${2#*=}" != "$2" ] || wrong "--shape: '$2' is not NAME=FILE"
            [ -f "${2#*=}" ] || wrong "--shape: no file ${2#*=}"
            case ${2#*=} in *[[:space:]]*) wrong "--shape: a path without blanks, please" ;; esac
            shapes="$shapes $2" ;;
        --prefill) is_list "$2" || wrong "--prefill: '$2' is not a list of counts"; prefill=$2 ;;
        --decode) is_list "$2" || wrong "--decode: '$2' is not a list of counts"; decode=$2 ;;
        --rows) is_list "$2" || wrong "--rows: '$2' is not a list of counts"; rows=$2 ;;
        --batch) [ "$2" = none ] || is_count "$2" || wrong "--batch: '$2' is not a count"; batch=$2 ;;
        --gen) is_count "$2" || wrong "--gen: '$2' is not a count"; gen=$2 ;;
        --rounds) is_count "$2" && [ "$2" -le 64 ] || wrong "--rounds: '$2' is not in 1..64"; rounds=$2 ;;
        --llama-gguf)
            is_name "${2##*=}" && [ "${2%=*}" != "$2" ] || wrong "--llama-gguf: '$2' is not FILE=NAME"
            [ -f "${2%=*}" ] || wrong "--llama-gguf: no file ${2%=*}"
            case ${2%=*} in *[[:space:]]*) wrong "--llama-gguf: a path without blanks, please" ;; esac
            ggufs="$ggufs $2" ;;
        --out) [ -n "$2" ] || wrong "--out needs a folder"; out=$2 ;;
        --dir) [ -n "$2" ] || wrong "--dir needs a folder"; dir=$2 ;;
        --bin) bin=$2 ;;
        --threads) is_count "$2" || wrong "--threads: '$2' is not a count"; threads=$2; pass="$pass $1 $2" ;;
        *) is_name "$2" || wrong "$1: '$2' is no name"; pass="$pass $1 $2" ;;
        esac
        shift ;;
    *) wrong "unknown option '$1'" ;;
    esac
    shift
done
[ -z "$keep" ] || [ -z "$clean" ] || wrong "--keep and --clean exclude each other"
[ "$prefill$decode$rows" != nonenonenone ] || wrong "nothing to measure"
if [ -z "$dir" ]; then
    [ -n "${HOME:-}" ] || wrong "--dir is needed: no HOME"
    dir=${XDG_CACHE_HOME:-$HOME/.cache}/edgewise-bench
fi
case $dir in /*) ;; *) dir=$PWD/$dir ;; esac
[ -n "$out" ] || out=bench-$(date +%Y-%m-%d-%H%M%S)
case $out in /*) ;; *) out=$PWD/$out ;; esac
case $dir$out in *[[:space:]]*) wrong "paths without blanks, please" ;; esac
[ ! -e "$out" ] || wrong "$out is there already"
if [ -n "$shapes" ]; then
    sizes=""
    for s in $shapes; do sizes=${sizes:+$sizes,}${s%%=*}; done
fi
models=""
for s in $(echo "$sizes" | tr , ' '); do for q in $(echo "$formats" | tr , ' '); do models="$models $s-$q"; done; done
for g in $ggufs; do one_of "${g##*=}" "$models" || wrong "--llama-gguf: ${g##*=} is not one of$models"; done
[ -z "$ggufs" ] || command -v llama-bench >/dev/null || wrong "--llama-gguf: no llama-bench on the PATH"

# ---- the shapes ----
shape() { # HIDDEN INTERMEDIATE LAYERS HEADS
    cat <<JSON
{"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": $1, "intermediate_size": $2,
 "num_hidden_layers": $3, "num_attention_heads": $4, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
 "max_position_embeddings": 40960, "rms_norm_eps": 1e-06, "rope_theta": 1000000, "hidden_act": "silu",
 "tie_word_embeddings": true, "torch_dtype": "bfloat16", "attention_bias": false}
JSON
}
config() { # SIZE
    for own in $shapes; do
        [ "${own%%=*}" != "$1" ] || { cat "${own#*=}"; return; }
    done
    case $1 in
    0.6b) shape 1024 3072 28 16 ;;
    1.7b) shape 2048 6144 28 16 ;;
    4b) shape 2560 9728 36 32 ;;
    esac
}
megabytes() { # SIZE: of its bf16 checkpoint
    [ -z "$shapes" ] || { echo 0; return; }
    case $1 in 0.6b) echo 1200 ;; 1.7b) echo 3450 ;; 4b) echo 8050 ;; esac
}

# ---- space ----
mkdir -p "$dir" || die "$dir cannot be made"
sum=0 most=0
for s in $(echo "$sizes" | tr , ' '); do
    mb=$(megabytes "$s")
    sum=$((sum + mb))
    [ "$mb" -le "$most" ] || most=$mb
done
if [ -n "$clean" ]; then need=$((most * 31 / 10)); elif [ -n "$keep" ]; then need=$((sum * 87 / 10)); else need=$((sum * 24 / 10 + most * 13 / 10)); fi
have=$(du -sk "$dir" | awk '{ printf "%d", $1 / 1000 }')
free=$(df -Pk "$dir" | awk 'END { printf "%d", $4 / 1000 }')
missing=$((need - have))
[ "$free" -ge "$missing" ] || die "$dir: $free MB free, the models need $missing MB more (--quick, --clean or --dir; see --help)"

# ---- a report is there in full or not at all ----
part=$out.part.$$
child=""
cleanup() {
    rm -rf "$part" "$dir/checkpoints/"*.part*
    [ -z "$clean" ] || rm -rf "$dir/checkpoints" "$dir/engines"
}
stop() {
    trap - INT TERM EXIT
    [ -z "$child" ] || kill "$child" 2>/dev/null || true
    [ -z "$child" ] || wait "$child" 2>/dev/null || true
    cleanup
    echo "bench: stopped; no report was written" >&2
    exit 130
}
trap cleanup EXIT
trap stop INT TERM
mkdir -p "$part" "$dir/checkpoints" "$dir/engines" || die "$part cannot be made"
# In the background and waited for, so that a signal is acted upon at once.
run() {
    "$@" &
    child=$!
    rc=0
    wait "$child" || rc=$?
    child=""
    return $rc
}

if [ -n "$build" ]; then
    say "building"
    [ -f "$bin/build.ninja" ] || [ "$bin" != "$root/build" ] || (cd "$root" && cmake --preset release -Wno-dev >/dev/null)
    run cmake --build "$bin" --target edgewise_tool bench_report >"$part/build.log" 2>&1 || { tail -n 20 "$part/build.log" >&2; die "the build failed"; }
    rm -f "$part/build.log"
fi
ew=$bin/edgewise
[ -x "$ew" ] && [ -x "$bin/bench/bench_report" ] || die "$bin has no edgewise and bench/bench_report: build edgewise_tool and bench_report"
quiet=-q
[ ! -t 2 ] || quiet=""

# ---- models ----
checkpoint() { # SIZE FORMAT: its path in $path
    base=$dir/checkpoints/$1-bf16
    path=$dir/checkpoints/$1-$2
    config "$1" >"$part/config.json"
    # Another shape of the same name is another model.
    if [ -d "$base" ] && ! cmp -s "$part/config.json" "$dir/checkpoints/$1.config"; then rm -rf "$dir/checkpoints/$1-"* "$dir/engines/$1-"*; fi
    if [ ! -d "$base" ]; then
        say "$1: writing a random checkpoint"
        rm -rf "$base.part"
        run "$ew" synth "$part/config.json" "$base.part" $quiet || die "synth failed on $1"
        cp "$part/config.json" "$dir/checkpoints/$1.config"
        mv "$base.part" "$base"
    fi
    [ ! -d "$path" ] || return 0
    say "$1: quantising to $2"
    rm -rf "$path.part"
    case $2 in
    int4) run "$ew" quantize --scheme int4 --method rtn --lm-head int8 "$base" "$path.part" $quiet || die "quantize failed on $1" ;;
    int8) run "$ew" quantize --scheme int8 --method rtn --lm-head int8 "$base" "$path.part" $quiet || die "quantize failed on $1" ;;
    esac
    mv "$path.part" "$path"
}

# ---- measuring ----
longest=0
for n in $(echo "$prefill,$decode" | tr , ' '); do [ "$n" = none ] || [ "$n" -le "$longest" ] || longest=$n; done
kv_len=$(((longest + gen + 8 + 63) / 64 * 64))
set -- # what bench_report is told
bench() { # MODEL FILE OPTIONS...: one process; ceilings are measured in it
    m=$1 file=$2
    shift 2
    # shellcheck disable=SC2086
    run "$ew" bench "$path" --cache-dir "$dir/engines/$m" --gen "$gen" --json $quiet $pass "$@" >"$file" || die "edgewise bench failed on $m"
}
llama() { # MODEL FILE OPTIONS...
    m=$1 file=$2
    shift 2
    run llama-bench "$@" -r 1 -ngl 0 -t "${threads:-$(nproc)}" -o json >"$file" 2>"$part/llama.log" && return 0
    say "$m: llama-bench failed: $(tail -n 1 "$part/llama.log")"
    echo "llama-bench failed on $m ($*): $(tail -n 1 "$part/llama.log")" >>"$part/notes"
    rm -f "$file"
}
gguf_of() { # MODEL
    for g in $ggufs; do [ "${g##*=}" != "$1" ] || echo "${g%=*}"; done | tail -n 1
}
first_decode=${decode%%,*}
measure() { # MODEL ROUND: both engines, one after the other
    say "$1: round $2 of $rounds, edgewise"
    if [ "$prefill$decode" != nonenone ]; then
        bench "$1" "$part/$1.table.$2.json" --prefill "$prefill" --decode "$decode" --reps 1 --rows none --max-kv-len "$kv_len"
    fi
    if [ "$batch" != none ] && [ "$decode" != none ]; then
        bench "$1" "$part/$1.batch.$2.json" --prefill none --decode "$first_decode" --batch "$batch" --reps 1 --rows none --max-kv-len "$kv_len"
    fi
    gguf=$(gguf_of "$1")
    [ -n "$gguf" ] || return 0
    say "$1: round $2 of $rounds, llama-bench"
    [ "$prefill" = none ] || llama "$1" "$part/$1.llama-prefill.$2.json" -m "$gguf" -p "$prefill" -n 0
    [ "$decode" = none ] || llama "$1" "$part/$1.llama-decode.$2.json" -m "$gguf" -p 0 -n "$gen" -d "$decode"
}
for s in $(echo "$sizes" | tr , ' '); do
    for q in $(echo "$formats" | tr , ' '); do
        model=$s-$q
        checkpoint "$s" "$q"
        i=1
        while [ $i -le "$rounds" ]; do
            measure "$model" $i
            for f in table batch; do
                [ ! -f "$part/$model.$f.$i.json" ] || set -- "$@" --edgewise "$model" "$part/$model.$f.$i.json"
            done
            for f in llama-prefill llama-decode; do
                [ ! -f "$part/$model.$f.$i.json" ] || set -- "$@" --llama "$model" "$part/$model.$f.$i.json"
            done
            i=$((i + 1))
        done
        [ -n "$keep" ] || rm -rf "$dir/engines/$model"
        if [ "$rows" != none ]; then
            say "$model: small batches"
            bench "$model" "$part/$model.curve.json" --prefill none --decode none --rows "$rows" --reps "$rounds"
            set -- "$@" --edgewise "$model" "$part/$model.curve.json"
        fi
        [ -n "$keep" ] || rm -rf "$dir/engines/$model"
        [ -z "$clean" ] || [ "$q" = bf16 ] || rm -rf "$path"
    done
    [ -z "$clean" ] || rm -rf "$dir/checkpoints/$s-"*
done

# ---- the report ----
if [ -f "$part/notes" ]; then
    while read -r line; do set -- "$@" --note "$line"; done <"$part/notes"
fi
if ! command -v llama-bench >/dev/null; then
    set -- "$@" --note "llama.cpp: not compared, no llama-bench on the PATH."
elif [ -z "$ggufs" ]; then
    set -- "$@" --note "llama.cpp: not compared, no --llama-gguf FILE=NAME; docs/bench.md says how to make a file of equal shape."
fi
commit=$(git -C "$root" rev-parse --short HEAD 2>/dev/null || echo unknown)
"$bin/bench/bench_report" "$part" --title "Edgewise on this machine, $(date +%Y-%m-%d)" \
    --note "Commit $commit, options: ${arguments:-none}; rounds: $rounds; tokens a decode run: $gen." "$@"
mkdir "$part/done"
mv "$part/report.md" "$part/report.json" "$part/roofline.svg" "$part/done/"
mv "$part/done" "$out"
say "done"
cat "$out/report.md"
echo
echo "$out/report.md, report.json, roofline.svg"

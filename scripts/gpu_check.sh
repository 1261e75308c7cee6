#!/bin/sh
# Everything that needs a GPU, in one go, and one table at the end:
#   kernels     every kernel against the reference
#   models      small models of odd shapes beside the CPU: all logits, rows together, contexts in threads (checkmodel)
#   parity      logits of every reference model beside a file of f32 logits: divergence, largest error, likeliest tokens
#   kld         the trained models over a text beside the CPU in f32, in short and in long steps
#   greedy      greedy text beside the CPU's, with and without graphs
#   draws       tokens drawn on the device beside tokens drawn on the host from the same logits
#   graphs      a second request of a shape captures nothing
#   requests    rows that end at different times, long prompts in pieces and a saved prefix: the text of a row alone; beside
#               it the CPU's
#   build       time and peak memory of a build with nothing cached
#   sanitizer   compute-sanitizer: memcheck, racecheck, initcheck over every specialisation in its smallest case, and tiny
#   bench       speed
#
#   scripts/gpu_check.sh [--build DIR] [--device N] [--quick] [--only STAGE,...] [--log DIR] [--json FILE] [--limit S] [--jobs N]
#                        [--models DIR] [--reference DIR] [--build-config FILE] [--bench MODEL]...
#
# --build: holds edgewise, tests/checkcuda and tests/checkmodel (default: build). --quick leaves the sanitizers out. --limit:
# seconds for one part of a family of kernels under one sanitizer (default 600); what was not reached is said. --jobs:
# kernels, models, parity and sanitizers run so many processes at once (default 1); the others time or wait for each
# other. --models and --reference hold the trained
# models and what transformers computed (default: ../shared/models, ../shared/reference); what is not there is left out.
# --build-config: config.json of the synthetic model that is built (default: the 0.6B of bench/configs). --json: the
# table as JSON too. Exit status 1 when anything failed; a tool that is not installed is "skipped" by name.
set -u
cd "$(dirname "$0")/.."
build=build device=0 quick=0 only= log=gpu_check.log json= limit=600 jobs=1 bench= models=../shared/models shared=../shared/reference
config=bench/configs/qwen3-0.6b.json
while [ $# -gt 0 ]; do
    case $1 in
    --build) build=$2; shift ;;
    --device) device=$2; shift ;;
    --quick) quick=1 ;;
    --only) only=,$2,; shift ;;
    --log) log=$2; shift ;;
    --json) json=$2; shift ;;
    --limit) limit=$2; shift ;;
    --jobs) jobs=$2; shift ;;
    --models) models=$2; shift ;;
    --reference) shared=$2; shift ;;
    --build-config) config=$2; shift ;;
    --bench) bench="$bench $2"; shift ;;
    --help | -h) sed -n '2,/^set -u/s/^# \{0,1\}//p' "scripts/$(basename "$0")"; exit 0 ;;
    *) echo "gpu_check: unknown option $1" >&2; exit 2 ;;
    esac
    shift
done
mkdir -p "$log" || exit 1
ew="$build/edgewise" cc="$build/tests/checkcuda" cm="$build/tests/checkmodel" cubins="$log/cubins" cuda="--device cuda:$device" cache="$log/engines"
table="$log/table.txt" lines="$log/lines.json" max_kl=1e-4 timing=--no-timing
: >"$table"
: >"$lines"
rm -f "$log/failed" "$log/turns"
mkdir -p "$cubins"
mkfifo "$log/turns" && exec 3<>"$log/turns" || exit 1
for turn in $(seq "$jobs"); do echo >&3; done
threads=$((($(nproc) + jobs - 1) / jobs))

wants() { [ -z "$only" ] || case $only in *,$1,*) true ;; *) false ;; esac; }

# line NAME MILLISECONDS RESULT [FIGURES]: a line of the table.
line() {
    case $3 in FAILED*) : >"$log/failed" ;; esac
    printf '%-36s %8d ms  %s%s\n' "$1" "$2" "$3" "${4:+  $4}" | tee -a "$table"
    printf '{"name": "%s", "ms": %d, "result": "%s", "figures": "%s"}\n' "$1" "$2" "$(echo "$3" | tr '"\\' "''")" \
        "$(echo "${4:-}" | tr '"\\' "''")" >>"$lines"
}

# check NAME LIMIT FIGURES command...: runs it with its words in the log; FIGURES is a function that prints what of them is
# worth a place in the table (or "true").
check() {
    name=$1 seconds=$2 figures=$3
    shift 3
    start=$(date +%s%N)
    timeout "$seconds" "$@" >"$log/$name.txt" 2>&1
    rc=$?
    ms=$((($(date +%s%N) - start) / 1000000))
    case $rc in
    0) result=passed ;;
    77) result=skipped ;;
    124) result="FAILED (no end after $seconds s)" ;;
    *)
        if grep -q 'not supported$\|is not supported' "$log/$name.txt"; then
            result="refused: $(grep -m1 'not supported' "$log/$name.txt" | cut -c1-90)"
        else
            result="FAILED (exit code $rc)"
        fi
        ;;
    esac
    line "$name" "$ms" "$result" "$($figures "$log/$name.txt")"
}

# beside NAME ...: a check in the background, when one of the --jobs is free; `wait` waits for all.
beside() {
    read -r turn <&3
    { check "$@"; echo >&3; } &
}

# A shell function as a check.
check_function() {
    name=$1
    shift
    start=$(date +%s%N)
    if "$@" >"$log/$name.txt" 2>&1; then result=passed; else result=FAILED; fi
    line "$name" $((($(date +%s%N) - start) / 1000000)) "$result" "$(tail -1 "$log/$name.txt")"
}

kernel_figures() { grep '^checkcuda:' "$1" | tail -1 | cut -c12-; }
models_figures() {
    sed -n 's/.* good .*error \([^ ]*\) .*/\1/p' "$1" | sort -g | tail -1 | sed 's/^/largest error /' | tr '\n' ' '
    sed -n 's/^checkmodel: //p' "$1"
}
parity_figures() {
    sed -n 's/^divergence from the reference: \([^ ]*\).*/KL \1/p; s/^same most likely token: /same top /p;
        s/^left out: \([0-9]*\) .* up to /router ties \1, KL there /p' "$1" | tr '\n' ' '
    sed -n 's/^[a-z ]* logits .*relative \([^ ]*\).*/\1/p' "$1" | sort -g | tail -1 | sed 's/^/error /'
}
kld_figures() { sed -n 's/^mean KL *\([^ ]*\).*/KL \1/p; s/^same top token *\([^ ]*\).*/same top \1 %/p' "$1" | tr '\n' ' '; }

# Logits and layers beside a file that transformers made in f32. bf16 operands: 1e-2 of the largest value.
parity() {
    [ -f "$2/config.json" ] && [ -f "$3" ] || return 0
    if "$ew" inspect "$3" | grep -q pixel_values; then
        line "parity-$1" 0 "skipped: the reference has seen pictures"
        return 0
    fi
    beside "parity-$1" 300 parity_figures "$ew" eval parity "$2" $cuda $timing --reference "$3" --tolerance 1e-2 \
        --max-kl $max_kl --cache-dir "$cache" -q
}

# Over a text, with the cache that is the default, beside the CPU with a cache of f32: windows of 256 tokens, and of 1024 in
# one step. Once with the kernels that the builder finds fastest, as users get them.
kld() {
    [ -f "$2/config.json" ] || return 0
    against="--against $2 --against-device cpu --against-kv f32 --max-kl $max_kl"
    check "kld-$1" 600 kld_figures "$ew" eval kld "$2" $against $cuda --no-timing --text README.md --window 256 --chunks 4 \
        --cache-dir "$cache" -q
    check "kld-timed-$1" 600 kld_figures "$ew" eval kld "$2" $against $cuda --text README.md --window 256 --chunks 4 \
        --cache-dir "$cache" -q
    check "kld-1024-$1" 600 kld_figures "$ew" eval kld "$2" $against $cuda --no-timing --text README.md --window 1024 --chunks 2 \
        --max-kv-len 1024 --max-input-len 1024 --cache-dir "$cache" -q
}

one_answer() {
    model=$1 prompt=$2
    shift 2
    "$ew" run "$model" -q --no-timing --cache-dir "$cache" -p "$prompt" --max-tokens 40 "$@"
}

prompts='What do you call a young bear?
Count to five.
Who are you?'

# The same greedy text as the CPU, with and without graphs.
greedy() {
    echo "$prompts" | while read -r prompt; do
        want=$(one_answer "$1" "$prompt") || return 1
        for how in "" --no-graph; do
            got=$(one_answer "$1" "$prompt" $cuda $how) || return 1
            [ "$got" = "$want" ] || { echo "'$prompt' $how: '$got', the CPU says '$want'"; return 1; }
        done
    done
}

drawn() {
    model=$1
    shift
    one_answer "$model" "Tell me about bears." $cuda --ignore-eos --json "$@" | grep '^ *"text":'
}

# Log-probabilities are the host's, so with them the host draws; from the same logits by the same numbers.
draws() {
    n=0
    for how in "--temperature 0.9 --top-k 30" "--temperature 1.1 --top-p 0.92" "--temperature 0.8 --min-p 0.05" "--temperature 1"; do
        for seed in 1 2 3; do
            there=$(drawn "$1" $how --seed $seed) || return 1
            here=$(drawn "$1" $how --seed $seed --logprobs 1) || return 1
            [ "$there" = "$here" ] || { echo "$how --seed $seed: '$there', the host draws '$here'"; return 1; }
            n=$((n + 1))
        done
    done
    echo "$n texts of 40 tokens"
}

captures() {
    "$ew" bench "$1" $cuda -q --rows none --no-ceilings --cache-dir "$cache" --batch 1,2,4 --prefill 32 --decode 64 \
        --reps "$2" --json | sed -n 's/^ *"captures": \([0-9]*\).*/\1/p'
}

# Three batch sizes: more requests of the same shapes, no more captures.
graphs() {
    few=$(captures "$1" 1) || return 1
    many=$(captures "$1" 5) || return 1
    echo "$few captures in one round, $many in five"
    [ -n "$few" ] && [ "$few" = "$many" ]
}

requests_file() {
    long=$(printf 'The fox went along the river and over the hill. %.0s' 1 2 3 4 5 6 7 8 9 10 11 12)
    printf '{"batch_size": %s, "top_k": 1, "max_generate_length": 24, "requests": [' "$1"
    printf '{"messages": [{"role": "user", "content": "What is the capital of France?"}]},'
    printf '{"messages": [{"role": "user", "content": "%s What went?"}]},' "$long"
    printf '{"messages": [{"role": "user", "content": "Count from 5 to 15."}]},'
    for question in "Which day comes after Friday?" "What is 27 plus 48?" "Say hello."; do
        printf '{"save_system_prompt_kv_cache": true, "messages": [{"role": "system", "content": "You answer in one short sentence."},'
        printf ' {"role": "user", "content": "%s"}]},' "$question"
    done
    printf '{"messages": [{"role": "user", "content": "Spell the word lantern."}]}]}\n'
}

# Rows alone, and three at a time with prompts in pieces of 64 tokens: the same text. How many are the CPU's is told: at a
# near tie one may not be.
requests() {
    for n in 1 3 cpu; do
        case $n in
        cpu) rows=3 on= ;;
        *) rows=$n on=$cuda ;;
        esac
        requests_file $rows >"$log/requests-$n.json"
        "$ew" run "$1" $on -q --no-timing --cache-dir "$cache" --max-batch $rows --max-input-len 64 \
            --requests "$log/requests-$n.json" --output "$log/responses-$n.json" || return 1
        grep '"output_text"' "$log/responses-$n.json" >"$log/texts-$n.txt" || return 1
    done
    cmp -s "$log/texts-1.txt" "$log/texts-3.txt" || { diff "$log/texts-1.txt" "$log/texts-3.txt"; return 1; }
    echo "$(wc -l <"$log/texts-1.txt") answers, $(diff "$log/texts-1.txt" "$log/texts-cpu.txt" | grep -c '^<') other than the CPU's"
}

# At most 60 s, and 1.3 of the weights and 1 GiB of the host's memory.
build_once() {
    [ -f "$config" ] || { echo "no $config"; return 1; }
    rm -rf "$log/synthetic" "$log/synthetic-engine"
    "$ew" synth "$config" "$log/synthetic" -q || return 1
    "$ew" build "$log/synthetic" "$log/synthetic-engine" $cuda -q --kernel-cache none --json >"$log/build.json" || return 1
    weights=$(cat "$log"/synthetic/*.safetensors | wc -c)
    seconds=$(sed -n 's/^ *"seconds": \([0-9]*\).*/\1/p' "$log/build.json")
    peak=$(sed -n 's/^ *"peak_resident_bytes": \([0-9]*\).*/\1/p' "$log/build.json")
    rm -rf "$log/synthetic" "$log/synthetic-engine"
    echo "$seconds s, peak $((peak >> 20)) MiB for $((weights >> 20)) MiB of weights"
    [ "$seconds" -le 60 ] && [ "$peak" -le $((weights / 10 * 13 + (1 << 30))) ]
}

families=$(sed -n 's/^CC(\(.*\))$/\1/p' tests/checkcuda/families.inc)

# Into how many processes the cases of a family go.
parts_of() {
    case $1 in
    linear_cuda) [ "$jobs" -lt 12 ] && echo "$jobs" || echo 12 ;;
    attention_cuda | moe_cuda) [ "$jobs" -lt 6 ] && echo "$jobs" || echo 6 ;;
    step_cuda) [ "$jobs" -lt 2 ] && echo "$jobs" || echo 2 ;;
    *) echo 1 ;;
    esac
}

# kernels NAME LIMIT FAMILIES [command...]: checkcuda, under the command, family by family; `wait` waits for all. What it
# needs is compiled once.
kernels() {
    prefix=$1 seconds=$2 of=$3
    shift 3
    for family in $of; do
        parts=$(parts_of "$family")
        for part in $(seq 0 $((parts - 1))); do
            beside "$prefix-$family-$part" "$seconds" kernel_figures "$@" "$cc" --device "$device" --filter "$family/" \
                --part "$part/$parts" --cubins "$cubins" --jobs "$threads" $each
        done
    done
}

if wants kernels; then
    each=--verbose
    kernels kernels 900 "$families"
    wait
fi
if wants models && [ ! -x "$cm" ]; then
    line models 0 "skipped: $cm is not there"
elif wants models; then
    for part in $(seq 0 $((jobs - 1))); do
        beside "models-$part" 900 models_figures "$cm" --device "cuda:$device" --dir "$log/models-$part.tmp" \
            --part "$part/$jobs" --kernel-cache "$cubins"
    done
    wait
fi
if wants parity; then
    for dir in tests/golden/families/*/ "$shared"/architectures/*/; do
        parity "$(basename "$dir")" "$dir" "$dir/reference.safetensors"
    done
    parity tiny models/tiny "$shared/trained/tiny-forward.safetensors"
    parity small "$models/small" "$shared/trained/small-forward.safetensors"
    wait
    timing= # with the kernels that the builder finds fastest, one after the other
    parity timed-tiny models/tiny "$shared/trained/tiny-forward.safetensors"
    wait
    parity timed-small "$models/small" "$shared/trained/small-forward.safetensors"
    wait
fi
for model in models/tiny "$models/small"; do
    [ -f "$model/config.json" ] || continue
    which=$(basename "$model")
    wants kld && kld "$which" "$model"
    wants greedy && check_function "greedy-$which" greedy "$model"
done
wants draws && check_function draws draws models/tiny
wants graphs && check_function graphs graphs models/tiny
wants requests && check_function requests requests models/tiny
wants build && check_function build build_once
if wants sanitizer && [ $quick = 0 ]; then
    if command -v compute-sanitizer >/dev/null; then
        sanitize="compute-sanitizer --error-exitcode 9 --tool"
        each="--each-kernel --verbose"
        # A step's blocks wait for each other: beside many processes that take turns on the GPU, several times as long.
        for tool in racecheck memcheck initcheck; do
            kernels $tool "$limit" step_cuda $sanitize $tool
            wait
        done
        one_answer models/tiny Hello $cuda >"$log/sanitizer-engine.txt" 2>&1 # builds it once, for all three
        for tool in racecheck memcheck initcheck; do
            kernels $tool "$limit" "$(echo "$families" | grep -v step_cuda)" $sanitize $tool
            beside "$tool-tiny" 900 true $sanitize $tool "$ew" run models/tiny $cuda -q --no-timing --no-graph \
                --cache-dir "$cache" -p "What do you call a young bear?" --max-tokens 3 --temperature 0.8 --top-k 20
        done
        wait
    else
        line sanitizer 0 "skipped: compute-sanitizer is not installed"
    fi
fi
if wants bench; then
    for model in models/tiny $bench; do
        name=bench-$(basename "$model")
        check "$name" 900 true "$ew" bench "$model" $cuda -q --rows none --no-ceilings --cache-dir "$cache" --batch 1,8 --decode 128,2048
        grep -E '^(prefill|decode)' "$log/$name.txt" | sed 's/^/    /' | tee -a "$table"
    done
fi
if [ -n "$json" ]; then
    { echo '['; sed '$!s/$/,/' "$lines"; echo ']'; } >"$json"
fi
echo
cat "$table"
[ ! -f "$log/failed" ] && echo "gpu_check: all is well" && exit 0
echo "gpu_check: something failed; see $log"
exit 1

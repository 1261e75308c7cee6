#!/bin/sh
# scripts/bench.sh on a shape of a few kilobytes, with a llama-bench that is a shell script: the report has its rows, its ratios
# follow from its numbers, nothing is left when it is stopped. No time is judged.
. "$(dirname "$0")/lib.sh"
if ! cmake --build "$bin" --target bench_report >"$tmp/out" 2>&1; then
    skip "$bin is no CMake build folder"
    finish
fi
report() { scripts/bench.sh --bin "$bin" --no-build --dir "$tmp/models" --no-timing "$@"; }
bad_option() { # WHAT PART OPTIONS...
    what=$1 part=$2
    shift 2
    report --out "$tmp/never" "$@" >"$tmp/out" 2>"$tmp/err" </dev/null
    equal "$what: exit code" $? 2
    equal "$what: lines" "$(wc -l <"$tmp/err")" 1
    has "$what" "$(cat "$tmp/err")" "$part"
}
# Tags nest, attributes are quoted, no bare & is left.
well_formed() {
    awk 'BEGIN { RS = "<" }
    NR == 1 { next }
    {
        end = index($0, ">"); if (!end) exit 1
        tag = substr($0, 1, end - 1); rest = substr($0, end + 1)
        if (rest ~ /&/ && rest !~ /^([^&]|&(amp|lt|gt|quot);)*$/) exit 1
        if (tag ~ /^\?/) next
        name = tag; sub(/[ \n\/].*/, "", name)
        if (tag ~ /^\//) { name = substr(tag, 2); if (!depth || stack[depth] != name) exit 1; depth--; next }
        attrs = substr(tag, length(name) + 1); gsub(/[a-zA-Z:-]+="[^"]*"/, "", attrs)
        if (attrs !~ /^[ \n]*\/?$/) exit 1
        if (tag !~ /\/$/) stack[++depth] = name
    }
    END { exit depth != 0 }' "$1"
}
cat >"$tmp/config.json" <<'JSON'
{"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
 "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 512, "max_position_embeddings": 2048,
 "rms_norm_eps": 1e-06, "rope_theta": 1000000, "hidden_act": "silu", "tie_word_embeddings": true, "torch_dtype": "bfloat16"}
JSON
# 40 tokens a second in its first call of a kind, 60 in the second; prompts ten times that.
mkdir "$tmp/path"
cat >"$tmp/path/llama-bench" <<'FAKE'
#!/bin/sh
p=0 n=0 d=0
while [ $# -gt 0 ]; do
    case $1 in -p) p=$2 ;; -n) n=$2 ;; -d) d=$2 ;; esac
    shift
done
calls=$(dirname "$0")/calls.$n
echo x >>"$calls"
rate=$(($(wc -l <"$calls") * 20 + 20))
[ "$n" != 0 ] || rate=$((rate * 10))
printf '['
comma=""
for x in $(echo "$([ "$n" = 0 ] && echo "$p" || echo "$d")" | tr , ' '); do
    if [ "$n" = 0 ]; then p=$x depth=0; else p=0 depth=$x; fi
    printf '%s{"build_commit": "abc", "model_size": 1000000, "n_ubatch": 512, "n_prompt": %d, "n_gen": %d, "n_depth": %d,
        "avg_ts": %d.0, "samples_ns": [1], "samples_ts": [%d.0]}' "$comma" "$p" "$n" "$depth" $rate $rate
    comma=,
done
echo ']'
FAKE
chmod +x "$tmp/path/llama-bench"
: >"$tmp/x.gguf"

PATH=$tmp/path:$PATH works "a run" report --shape tiny="$tmp/config.json" --formats int4,bf16 --prefill 16,32 --decode 8,24 --batch 4 \
    --rows 1,2,4 --gen 4 --rounds 2 --llama-gguf "$tmp/x.gguf=tiny-int4" --out "$tmp/r"
j=$tmp/r/report.json
equal "files" "$(ls "$tmp/r" | tr '\n' ' ')" "report.json report.md roofline.svg "
equal "order" "$(grep -o 'tiny-int4: round.*' "$tmp/err" | sed 's/.*round \(.\) of 2, /\1 /' | tr '\n' ' ')" \
    "1 edgewise 1 llama-bench 2 edgewise 2 llama-bench "
has "the table is printed" "$(cat "$tmp/out")" "| tiny-int4 | decode at 8, batch 4 | edgewise |"
equal "the printed one is the written one" "$(head -n "$(wc -l <"$tmp/r/report.md")" "$tmp/out" | cksum)" "$(cksum <"$tmp/r/report.md")"
equal "rows" "$(value "$j" rows.#)" 14
equal "curves" "$(value "$j" curves.#)" 2
for c in read f32 int8; do
    has "ceiling $c" "$(value "$j" "machine.ceilings.$c.median")" "."
done
seen=""
i=0
while [ $i -lt 14 ]; do
    r=rows.$i
    work=$(value "$j" $r.engine)-$(value "$j" $r.model)-$(value "$j" $r.what)-$(value "$j" $r.length)-$(value "$j" $r.batch)
    seen="$seen $work"
    equal "$work: samples" "$(value "$j" $r.tokens_per_s.n)" 2
    mid=$(value "$j" $r.tokens_per_s.median)
    within "$work: median of two" "$mid" "$(awk -v a="$(value "$j" $r.tokens_per_s.min)" -v b="$(value "$j" $r.tokens_per_s.max)" 'BEGIN { printf "%.17g", (a + b) / 2 }')" 1e-9
    within "$work: operations a byte" "$(value "$j" $r.ops_per_byte)" \
        "$(awk -v a="$(value "$j" $r.ops_per_s)" -v b="$(value "$j" $r.read_bytes_per_s)" 'BEGIN { printf "%.17g", a / b }')" 1e-9
    case $work in
    llama.cpp-*-prefill-*) within "$work" "$mid" 500 1e-9 ;;
    llama.cpp-*-decode-*)
        within "$work" "$mid" 50 1e-9
        within "$work: share" "$(value "$j" $r.shares.read.median)" \
            "$(awk -v c="$(value "$j" machine.ceilings.read.median)" 'BEGIN { printf "%.17g", 50 * 1000000 / c }')" 1e-6
        ;;
    edgewise-tiny-int4-prefill-*) within "$work: ratio" "$(value "$j" $r.ratio_to_llama)" "$(awk -v a="$mid" 'BEGIN { printf "%.17g", a / 500 }')" 1e-9 ;;
    edgewise-tiny-int4-decode-*-1) within "$work: ratio" "$(value "$j" $r.ratio_to_llama)" "$(awk -v a="$mid" 'BEGIN { printf "%.17g", a / 50 }')" 1e-9 ;;
    *) equal "$work: nothing to compare with" "$(value "$j" $r.ratio_to_llama)" null ;;
    esac
    i=$((i + 1))
done
for e in edgewise-tiny-int4 edgewise-tiny-bf16 llama.cpp-tiny-int4; do
    for w in prefill-16-1 prefill-32-1 decode-8-1 decode-24-1; do has "rows" "$seen " " $e-$w "; done
done
for m in int4 bf16; do has "rows" "$seen " " edgewise-tiny-$m-decode-8-4 "; done
for c in 0 1; do
    for kind in decode verify verify_logits; do
        p=curves.$c.curve.$kind
        equal "$p: points" "$(value "$j" $p.#)" 3
        within "$p: cost(1)" "$(value "$j" $p.0.cost)" 1 0
        equal "$p: rows" "$(value "$j" $p.2.rows)" 4
        within "$p: cost(4)" "$(value "$j" $p.2.cost)" \
            "$(awk -v a="$(value "$j" $p.2.step_ms)" -v b="$(value "$j" $p.0.step_ms)" 'BEGIN { printf "%.17g", a / b }')" 1e-9
    done
done
works "the roofline is XML" well_formed "$tmp/r/roofline.svg"
equal "dots" "$(grep -c '<title>tiny' "$tmp/r/roofline.svg")" 14
sed '$d' "$tmp/r/roofline.svg" >"$tmp/cut.svg"
if well_formed "$tmp/cut.svg"; then bad "a cut SVG passes for XML"; else good; fi
if command -v xmllint >/dev/null; then works "xmllint" xmllint --noout "$tmp/r/roofline.svg"; fi
equal "engines are gone" "$(ls "$tmp/models/engines")" ""
equal "checkpoints stay" "$(ls "$tmp/models/checkpoints" | tr '\n' ' ')" "tiny-bf16 tiny-int4 tiny.config "

# One engine alone; a llama-bench that fails is a note, not the end.
printf '#!/bin/sh\necho "no such option: -d" >&2\nexit 1\n' >"$tmp/path/llama-bench"
PATH=$tmp/path:$PATH works "a llama-bench that fails" report --shape tiny="$tmp/config.json" --formats int4 --prefill none --decode 8 --batch none \
    --rows none --gen 2 --rounds 1 --llama-gguf "$tmp/x.gguf=tiny-int4" --out "$tmp/r2" --clean
has "a llama-bench that fails" "$(cat "$tmp/r2/report.md")" "no such option: -d"
equal "one row" "$(value "$tmp/r2/report.json" rows.#)" 1
equal "--clean" "$(ls "$tmp/models")" ""

# Stopped in the middle. A file of its own: the shell truncates it after the fork, and what an earlier run wrote would pass for this one's.
scripts/bench.sh --bin "$bin" --no-build --dir "$tmp/models" --no-timing --shape tiny="$tmp/config.json" --formats bf16 --rounds 64 \
    --out "$tmp/r3" >"$tmp/out" 2>"$tmp/stopped" &
pid=$!
i=0
until grep -qs 'round 1 ' "$tmp/stopped" || [ $i -gt 300 ]; do
    sleep 0.1
    i=$((i + 1))
done
kill -TERM $pid
wait $pid
equal "stopped: exit code" $? 130
equal "stopped: nothing is left" "$(ls -d "$tmp"/r3* 2>/dev/null)" ""

# The command line.
bad_option "an unknown option" "--fast" --fast
bad_option "a missing value" "--gen" --gen
bad_option "an unknown size" "3b" --sizes 3b
bad_option "an unknown format" "int5" --formats int4,int5
bad_option "a list that is none" "--prefill" --prefill 512,,4
bad_option "no rounds" "--rounds" --rounds 0
bad_option "a shape that is not there" "no file" --shape "x=$tmp/none.json"
bad_option "a name of odd characters" "NAME=FILE" --shape "a&b=$tmp/config.json"
bad_option "a gguf without a name" "FILE=NAME" --llama-gguf "$tmp/x.gguf"
bad_option "a gguf of no model" "9b-int4" --llama-gguf "$tmp/x.gguf=9b-int4"
bad_option "nothing" "nothing to measure" --prefill none --decode none --rows none
bad_option "two wishes" "--keep" --keep --clean
mkdir "$tmp/there"
scripts/bench.sh --out "$tmp/there" >"$tmp/out" 2>"$tmp/err"
equal "a report that is there: exit code" $? 2
printf '#!/bin/sh\necho head\necho "disk 100 99 1 99%% /"\n' >"$tmp/path/df"
chmod +x "$tmp/path/df"
PATH=$tmp/path:$PATH report --quick --out "$tmp/never" >"$tmp/out" 2>"$tmp/err"
equal "a full disk: exit code" $? 1
has "a full disk" "$(cat "$tmp/err")" "MB more"
[ ! -e "$tmp/never" ] || bad "a refused run left a report"
"$ew" bench models/tiny --rows 65 >"$tmp/out" 2>&1
equal "too many rows: exit code" $? 2
finish

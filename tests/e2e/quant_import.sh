#!/bin/sh
# Quantised checkpoints of every format, as others write them: logits beside transformers' on weights dequantised in f64.
. "$(dirname "$0")/lib.sh"

for f in tests/golden/quant_import/*/; do
    f=${f%/}
    "$ew" eval parity "$f" --reference "$f/reference.safetensors" $fast >"$tmp/out" 2>"$tmp/err"
    case $? in
    0)
        # the bar is 1e-3; these small models are a thousand times closer
        worst=$(sed -n 's/.*relative \([^ ]*\) at.*/\1/p' "$tmp/out" | sort -g | tail -1)
        if awk "BEGIN { exit !($worst < 2e-5) }"; then good; else bad "$f: relative error $worst"; fi
        ;;
    *) bad "$f: $(cat "$tmp/out" "$tmp/err")" ;;
    esac
    rm -rf "$tmp/cache"
done

# Activations: rounded ones differ a little, and only where something is quantised.
for kind in int8 declared; do
    f=tests/golden/quant_import/ct-int8
    "$ew" eval parity "$f" --reference "$f/reference.safetensors" --activations $kind $fast >"$tmp/out" 2>"$tmp/err"
    worst=$(sed -n 's/.*relative \([^ ]*\) at.*/\1/p' "$tmp/out" | sort -g | tail -1)
    if awk "BEGIN { exit !($worst > 1e-4 && $worst < 0.2) }"; then good; else bad "activations $kind: error $worst"; fi
done
works "declared activations of a weight-only format" "$ew" eval parity tests/golden/quant_import/awq \
    --reference tests/golden/quant_import/awq/reference.safetensors --activations declared $fast
if "$ew" eval parity tests/golden/quant_import/awq --reference x.safetensors --activations int4 $fast 2>"$tmp/err"; then
    bad "--activations int4 was taken"
else
    has "no such activations" "$(cat "$tmp/err")" "int4"
fi
finish

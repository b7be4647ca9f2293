#!/usr/bin/env bash
# Runs the program digits: a whole run with its files, and mistakes, which end with one line, status 2 and nothing
# written.
set -euo pipefail
digits=${MIXBIT_BIN:?the folder of programs}/digits
data=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/data/digits.csv
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0

verdict() {  # OK WHAT
  if (($1)); then passed=$((passed + 1)); else failed=$((failed + 1)); echo "failed: $2"; fi
}

refuses() {  # TEXT ARGUMENT...
  local status=0 text=$1
  shift
  "$digits" "$@" >"$work/stdout" 2>"$work/stderr" || status=$?
  local ok=0
  if ((status == 2)) && (($(wc -l <"$work/stderr") == 1)) && grep -qF -- "$text" "$work/stderr" &&
      [[ ! -s $work/stdout && ! -e $work/none ]]; then ok=1; fi
  verdict $ok "digits $*: status $status: $(cat "$work/stderr")"
}

known=(--data "$data" --out "$work/none")
refuses "see digits --help"
refuses "--out is missing" --data "$data"
refuses "unknown option '--bogus'" --bogus 1
refuses "unknown option 'bogus'" "${known[@]}" bogus
refuses "--help takes no other arguments" --help extra
refuses "--help takes no other arguments" "${known[@]}" --help
refuses "--epochs is given twice" "${known[@]}" --epochs 1 --epochs 1
refuses "--seed needs a value" "${known[@]}" --seed
for value in 0 -1 1x 99999999999; do refuses "--epochs '$value'" "${known[@]}" --epochs "$value"; done
refuses "--seed '4294967296'" "${known[@]}" --seed 4294967296
refuses "none.csv: cannot be read" --data "$work/none.csv" --out "$work/none"
refuses "$work: cannot be read" --data "$work" --out "$work/none"
printf 'label\n' >"$work/broken.csv"
refuses "broken.csv:1: " --data "$work/broken.csv" --out "$work/none"
refuses "FP9_DEFAULT_CFG" "${known[@]}" --formats FP9_DEFAULT_CFG
for content in '{"quant_cfg": 1e999}' '{' '{}' '{"quant_cfg": [{"quantizer_name": "*", "cfg": {"num_bits": 0.5}}]}'; do
  echo "$content" >"$work/mine.json"
  refuses "$work/mine.json" "${known[@]}" --formats "$work/mine.json"
done
# formats that the checkpoint has no form for, and too few images, are found before anything is trained
unwritable() {  # TEXT ATTRIBUTES
  echo "{\"quant_cfg\": [{\"quantizer_name\": \"*\", \"enable\": false},
    {\"quantizer_name\": \"*weight_quantizer\", \"cfg\": {$2}}], \"algorithm\": \"max\"}" >"$work/mine.json"
  refuses "mine: conv1.weight_quantizer: $1" "${known[@]}" --effective-bits 16 --formats "$work/mine.json"
}
unwritable "num_bits 12 can be simulated, but files hold integers of up to 8 bits, or of 16" '"num_bits": 12'
unwritable "this checkpoint has no form for weights in int16" '"num_bits": 16'
unwritable "this checkpoint has no form for e2m1 with scales by two_level" \
  '"num_bits": [2, 1], "block_sizes": {"-1": 16, "type": "dynamic", "scale_bits": [4, 3]}'
unwritable "this checkpoint holds weights with calibrated scales only, not dynamic" '"num_bits": 8, "type": "dynamic"'
unwritable "this checkpoint holds weights with calibrated scales only, not those of" '"num_bits": 8, "constant_amax": 1'
unwritable "weights have both signs" '"num_bits": 8, "unsigned": true'
for images in 1 4; do
  head -n $((images + 1)) "$data" >"$work/few.csv"
  refuses "few.csv: has $images image(s)" --data "$work/few.csv" --out "$work/none"
done

for value in six nan inf 0 -1 17 1e999; do refuses "'$value'" "${known[@]}" --effective-bits "$value"; done
refuses "cannot be met" "${known[@]}" --effective-bits 3
# a folder that cannot be written to is found before anything is trained, which prints a line an epoch
echo before >"$work/file"
refuses "$work/file" --data "$data" --out "$work/file"
refuses "$work/file'" --data "$data" --out "$work/file/x"
verdict $(($(cat "$work/file" | grep -c before) == 1)) "a file named by --out is as it was"
refuses "/proc/none" --data "$data" --out /proc/none

"$digits" --data "$data" --out "$work/out" --epochs 3 >"$work/stdout"
for file in candidate_stats.json manifest.json plan.json layer-sensitivity-report.md model.safetensors; do
  verdict $(($([[ -s $work/out/$file ]]; echo $?) == 0)) "$file is written"
done
verdict $(($(grep -cE '^(conv1|conv2|fc1|fc2) ' "$work/stdout") == 4)) "a line for each layer"
verdict $(($(grep -cE '^test accuracy 9[0-9]\.[0-9]+ % -> 9' "$work/stdout") == 1)) "the accuracy is shown"
"$digits" --data "$data" --out "$work/again" --epochs 3 >/dev/null
verdict $(($(diff -r "$work/out" "$work/again" >/dev/null; echo $?) == 0)) "a second run writes the same bytes"

status=0
"${MIXBIT_BIN}/allocate" --stats "$work/out/candidate_stats.json" --effective-bits 6 --out "$work/plan.json" \
  >"$work/stdout" 2>"$work/stderr" || status=$?
verdict $((status == 0)) "allocate plans from the statistics: $(cat "$work/stderr")"
verdict $(($(grep -c '"name": "INT4_B16_WEIGHT_ONLY"' "$work/plan.json") == 1)) "with this host's own format in the plan"

status=0
full=(--data "$data" --out "$work/full" --epochs 1)
(ulimit -f 1; trap - XFSZ; "$digits" "${full[@]}" >/dev/null 2>"$work/stderr") || status=$?
verdict $((status == 2 && $(wc -l <"$work/stderr") == 1)) "a full disk: status $status: $(cat "$work/stderr")"
verdict $(($([[ -e $work/full ]]; echo $?) != 0)) "a full disk: nothing is written"

echo "$passed passed, $failed failed, 0 skipped"
((failed == 0))

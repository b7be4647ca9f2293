#!/usr/bin/env bash
# The program byte_lm as a user runs it: what it writes, that a plan reproduces a search, and that wrong input ends with
# one line, exit status 2 and nothing written. Ends with `N passed, N failed`.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bin=${MIXBIT_BIN:-build/ci/bin}/byte_lm
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0

check() {  # NAME CONDITION...
  local name=$1
  shift
  if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAILED: $name"; fi
}
text=$work/text
head -c 40000 /dev/urandom | base64 >"$text"  # any text will do: files and exits are tested, not losses
model=(--model data/byte-lm --text "$text")
quick=(--calib-steps 1 --score-steps 1)
search=("${model[@]}" "${quick[@]}" --formats "FP8_DEFAULT_CFG,INT8_DEFAULT_CFG,examples/formats/int4_b32_weight_only.json")

"$bin" "${search[@]}" --out "$work/a" --effective-bits 6.0 >"$work/log" 2>&1
check "a search succeeds" test $? -eq 0
for file in candidate_stats.json manifest.json plan.json layer-sensitivity-report.md quantizers.json evaluation.json \
  checkpoint/model.safetensors checkpoint/config.json checkpoint/hf_quant_config.json; do
  check "writes $file" test -s "$work/a/$file"
done
check "prints the losses" grep -q '^validation loss' "$work/log"
"$bin" "${search[@]}" --threads 1 --out "$work/b" --effective-bits 6.0 >/dev/null 2>&1
check "one thread writes the same bytes" diff -r "$work/a" "$work/b"
"$bin" "${model[@]}" --calib-steps 1 --plan "$work/a/plan.json" --out "$work/c" >/dev/null 2>&1
check "a plan gives the same loss" cmp "$work/a/evaluation.json" "$work/c/evaluation.json"
check "a plan gives the same checkpoint" diff -r "$work/a/checkpoint" "$work/c/checkpoint"
"$bin" "${model[@]}" --calib-steps 1 --preset FP8_DEFAULT_CFG --out "$work/d" >/dev/null 2>&1
check "a preset writes a checkpoint" test -s "$work/d/checkpoint/model.safetensors"
"$bin" --help >"$work/help"
check "--help succeeds" test $? -eq 0
for option in model out text windows formats effective-bits preset plan method disabled-layers calib-steps score-steps \
  calib-from numerics cost threads; do
  check "--help names --$option" grep -q -- "--$option " "$work/help"
done

refused() {  # WORD ARGUMENT...: exit 2, one line that holds WORD, no output folder
  local word=$1 status
  shift
  rm -rf "$work/x"
  "$bin" "$@" >"$work/out" 2>"$work/err"
  status=$?
  check "refused ($word): exit $status" test $status -eq 2
  check "refused ($word): one line, not '$(cat "$work/err")'" test "$(wc -l <"$work/err")" -eq 1
  check "refused ($word): names it, not '$(cat "$work/err")'" grep -qF -- "$word" "$work/err"
  check "refused ($word): writes nothing" test ! -e "$work/x"
}
out=(--out "$work/x")
budget=(--effective-bits 6.0)
refused "--model is missing" "${out[@]}"
refused "--out is missing" --model data/byte-lm --preset FP8_DEFAULT_CFG
refused "--frobnicate" "${search[@]}" "${out[@]}" --frobnicate 1
refused "--formats" "${model[@]}" "${out[@]}" "${budget[@]}"
refused "--effective-bits" "${search[@]}" "${out[@]}"
refused "'six'" "${search[@]}" "${out[@]}" --effective-bits six
refused "contradict" "${model[@]}" "${out[@]}" --preset FP8_DEFAULT_CFG --plan x
refused "contradicts" "${model[@]}" "${out[@]}" --preset FP8_DEFAULT_CFG "${budget[@]}"
refused "given twice" "${search[@]}" "${out[@]}" "${budget[@]}" "${budget[@]}"
refused "needs a value" "${search[@]}" "${out[@]}" --effective-bits
refused "INT9_CFG" "${model[@]}" "${out[@]}" --formats INT9_CFG "${budget[@]}"
refused "*nothing*" "${search[@]}" "${out[@]}" "${budget[@]}" --disabled-layers '*nothing*'
refused "5 to 16 bits" "${search[@]}" "${out[@]}" --effective-bits 3
refused "--calib-steps 99" "${model[@]}" "${out[@]}" --preset FP8_DEFAULT_CFG --calib-steps 99
refused "--threads '0'" "${search[@]}" "${out[@]}" "${budget[@]}" --threads 0
refused "--threads '1000000'" "${search[@]}" "${out[@]}" "${budget[@]}" --threads 1000000
refused "gradient" "${search[@]}" "${out[@]}" "${budget[@]}" --method kl_div
refused "config.json" --model "$work/nowhere" "${out[@]}" --preset FP8_DEFAULT_CFG
refused "text" --model data/byte-lm --text "$work/no-text" "${out[@]}" --preset FP8_DEFAULT_CFG
refused "plan" "${model[@]}" "${out[@]}" --plan "$work/a/manifest.json"
refused "smoothquant" "${model[@]}" "${out[@]}" --preset INT8_SMOOTHQUANT_CFG
refused "text" "${model[@]}" "${out[@]}" --preset FP8_DEFAULT_CFG --windows "$work/text"
mkdir "$work/broken"
cp data/byte-lm/config.json "$work/broken"
head -c 5000 data/byte-lm/model.safetensors >"$work/broken/model.safetensors"
refused "model.safetensors" --model "$work/broken" --text "$text" "${out[@]}" --preset FP8_DEFAULT_CFG
sed 's/"intermediate_size": 352/"intermediate_size": 353/' data/byte-lm/config.json >"$work/broken/config.json"
cp data/byte-lm/model.safetensors "$work/broken"
refused "[353,128]" --model "$work/broken" --text "$text" "${out[@]}" --preset FP8_DEFAULT_CFG

mkdir "$work/full"
echo before >"$work/full/plan.json"
(ulimit -f 100; trap '' XFSZ; "$bin" "${search[@]}" --out "$work/full" "${budget[@]}" >/dev/null 2>"$work/err")
check "a full disk: exit 2" test $? -eq 2
check "a full disk: one line, not '$(cat "$work/err" | tail -n 1)'" grep -q 'byte_lm: ' "$work/err"
check "a full disk: what was there is there" test "$(ls -A "$work/full")$(cat "$work/full/plan.json")" = "plan.jsonbefore"

echo "$passed passed, $failed failed"
((failed == 0))

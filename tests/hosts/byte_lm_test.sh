#!/usr/bin/env bash
# The program byte_lm as a user runs it: what it writes, that a plan reproduces a search, and that wrong input ends with
# one line, exit status 2 and nothing written. Ends with `N passed, N failed`.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source tests/support/check.sh
bin=${MIXBIT_BIN:-build/ci/bin}/byte_lm
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

text=$work/text
touch "$work/empty"
cat LICENSE LICENSE LICENSE LICENSE LICENSE >"$text"  # any text will do: files and exits are tested, not losses
model=(--model data/byte-lm --text "$text")
cat >"$work/few.json" <<'END'
{"window": 65, "calibration_windows": [[0, 65], [130, 195]], "score_windows": [[260, 325], [390, 455]],
 "validation_windows": [1000, 2000, 3000, 4000, 5000, 6000, 7000, 8000]}
END
few=(--windows "$work/few.json" --calib-steps 1)  # seconds of the test are runs of the model
quick=("${few[@]}" --score-steps 1)
search=("${model[@]}" "${quick[@]}" --formats "FP8_DEFAULT_CFG,INT8_DEFAULT_CFG,examples/formats/int4_b32_weight_only.json")

"$bin" "${search[@]}" --out "$work/a" --effective-bits 6.0 >"$work/log" 2>&1
check "a search succeeds" test $? -eq 0
for file in candidate_stats.json manifest.json plan.json quant_config.json layer-sensitivity-report.md report.html \
  quantizers.json evaluation.json checkpoint/model.safetensors checkpoint/config.json checkpoint/hf_quant_config.json; do
  check "writes $file" test -s "$work/a/$file"
done
check "prints the losses" grep -q '^validation loss' "$work/log"
"$bin" "${search[@]}" --threads 1 --out "$work/b" --effective-bits 6.0 >/dev/null 2>&1
check "one thread writes the same bytes" diff -r "$work/a" "$work/b"
check "says beforehand how long its steps take" \
  test "$(grep -nE "^the search's forwards and backwards would take [0-9.]+ s at the unqu" "$work/log" | cut -d: -f1)" = 1
for memory in 1 1000000 1000000000; do
  rm -rf "$work/b"
  "$bin" "${search[@]}" --score-memory $memory --out "$work/b" --effective-bits 6.0 >/dev/null 2>&1
  check "--score-memory $memory writes the same bytes" diff -r "$work/a" "$work/b"
done
"$bin" "${model[@]}" "${few[@]}" --plan "$work/a/plan.json" --out "$work/c" >/dev/null 2>&1
check "a plan gives the same loss" cmp "$work/a/evaluation.json" "$work/c/evaluation.json"
check "a plan gives the same checkpoint" diff -r "$work/a/checkpoint" "$work/c/checkpoint"
rm -rf "$work/c"
"$bin" "${model[@]}" "${few[@]}" --calib-from score --preset "$work/a/quant_config.json" --out "$work/c" >/dev/null 2>&1
check "a plan's config gives the same loss" cmp "$work/a/evaluation.json" "$work/c/evaluation.json"
check "a plan's config gives the same checkpoint" diff -r "$work/a/checkpoint" "$work/c/checkpoint"
check "a plan's config gives the same quantizers" cmp "$work/a/quantizers.json" "$work/c/quantizers.json"
"$bin" "${model[@]}" --calib-steps 1 --preset FP8_DEFAULT_CFG --out "$work/d" >/dev/null 2>&1
check "a preset writes a checkpoint" test -s "$work/d/checkpoint/model.safetensors"
cp -r "$work/a" "$work/stale"
echo mine >"$work/stale/notes"
"$bin" "${model[@]}" "${few[@]}" --plan "$work/stale/plan.json" --out "$work/stale" >/dev/null 2>&1
check "a plan in --out is kept, the search's other files go" \
  test "$(ls "$work/stale" | tr '\n' ' ')" = "checkpoint evaluation.json notes plan.json quantizers.json "
cp "$work/a/quant_config.json" "$work/stale"
"$bin" "${model[@]}" "${few[@]}" --preset "$work/stale/quant_config.json" --out "$work/stale" >/dev/null 2>&1
check "so is a config in --out" \
  test "$(ls "$work/stale" | tr '\n' ' ')" = "checkpoint evaluation.json notes quant_config.json quantizers.json "
"$bin" "${model[@]}" "${few[@]}" --preset FP8_DEFAULT_CFG --out "$work/stale" >/dev/null 2>&1
check "a preset takes a search's files away" \
  test "$(ls "$work/stale" | tr '\n' ' ')" = "checkpoint evaluation.json notes quantizers.json "
"$bin" "${model[@]}" "${few[@]}" --preset examples/formats/int4_b32_weight_only.json --out "$work/e" >/dev/null 2>&1
check "the example format is a preset too" test -s "$work/e/checkpoint/model.safetensors"
"$bin" "${model[@]}" "${few[@]}" --preset INT8_DEFAULT_CFG --out "$work/d" \
  --algorithm '{"method": "smoothquant", "alpha": 0.5}' >/dev/null 2>"$work/log"
check "an algorithm's results are written" grep -q pre_quant_scale "$work/d/quantizers.json"
check "the checkpoint has its scales, one for layers that are fused" \
  grep -aq '"model.layers.0.self_attn.q_proj.pre_quant_scale"' "$work/d/checkpoint/model.safetensors"
while read -r preset_name word scaled folded; do
  "$bin" "${model[@]}" "${few[@]}" --preset "$preset_name" --out "$work/d" >"$work/out" 2>"$work/log"
  check "$preset_name is written" grep -q "$word" "$work/d/checkpoint/hf_quant_config.json"
  header=$(head -c 40000 "$work/d/checkpoint/model.safetensors" | tr -d '\0')
  for layer in $scaled; do
    check "$preset_name: $layer has a pre_quant_scale" grep -aq "\"model.layers.3.$layer.pre_quant_scale\"" <<<"$header"
  done
  for layer in $folded; do
    check "$preset_name: $layer's is folded" test -z "$(grep -ao "model.layers.3.$layer.pre_quant_scale" <<<"$header")"
  done
  check "$preset_name: no line says that none is written" test -z "$(grep 'not written' "$work/log")"
done <<END
INT4_AWQ_CFG "W4A16_AWQ" mlp.down_proj self_attn.q_proj
W4A8_AWQ_BETA_CFG "W4A8_AWQ" self_attn.o_proj mlp.up_proj
INT8_SMOOTHQUANT_CFG "W8A8_SQ_PER_CHANNEL" self_attn.k_proj
FP8_DEFAULT_CFG,FP8_KV_CFG "kv_cache_quant_algo":."FP8"
FP8_KV_CFG "kv_cache_quant_algo":."FP8"
END
"$bin" "${model[@]}" "${few[@]}" --preset INT4_BLOCKWISE_WEIGHT_ONLY_CFG --out "$work/d" --algorithm awq_clip \
  >/dev/null 2>&1
check "awq_clip scales nothing, and is written" test -s "$work/d/checkpoint/model.safetensors"
"$bin" "${search[@]}" --effective-bits 6.0 --dry-run --out "$work/dry" >"$work/log" 2>"$work/err"
check "--dry-run succeeds" test $? -eq 0
check "--dry-run prints the plan" \
  grep -q '^forwards: 1 to calibrate, 1 to score by gradient with as many backwards$' "$work/log"
check "--dry-run says that differences are recomputed" \
  grep -q 'for each token of a step: recomputed in the backward$' "$work/log"
"$bin" "${search[@]}" --effective-bits 6.0 --dry-run --score-memory 100000000 >"$work/log.kept" 2>&1
check "--score-memory: --dry-run says in which steps they are kept" \
  grep -qE 'for each token of a step: kept in steps of up to [0-9]+ tokens' "$work/log.kept"
check "--dry-run cuts no list" test "$(grep -cF ' in all)' "$work/log")" -eq 0
"$bin" "${search[@]}" --effective-bits 6.0 --dry-run --refine 3 --resolved "$work/resolved.json" >"$work/log.refine" 2>&1
check "--refine's forwards are counted" grep -q 'at most 159 in 3 round(s) of refinement' "$work/log.refine"
check "--resolved has it as JSON" grep -q '"scoring_forwards": 159' "$work/resolved.json"
check "--dry-run writes nothing" test ! -e "$work/dry" -a ! -s "$work/err"
"$bin" "${search[@]}" --effective-bits 6.0 --dry-run --method kl_div >"$work/log" 2>&1
check "--dry-run needs no --out, and counts kl_div's forwards" \
  grep -q '^forwards: 1 to calibrate, 52 to score by kl_div$' "$work/log"
"$bin" "${search[@]}" --effective-bits 6.0 --method kl_div --out "$work/kl" >"$work/log" 2>&1
check "and says how long its forwards take" \
  grep -q "^the search's forwards and backwards would take [0-9.]* s at" "$work/log"
check "kl_div searches too" grep -q '"method": "kl_div"' "$work/kl/manifest.json"
"$bin" "${search[@]}" --effective-bits 6.0 --refine 2 --out "$work/r" >"$work/log" 2>&1
check "--refine prints what it tried" grep -qE '^refine: round 1: [0-9]+ of 17 groups changed, predicted -' "$work/log"
check "--refine keeps what measures better" awk '/^refine: [0-9.e-]+ -> /{ok = $4 < $2} END {exit !ok}' "$work/log"
check "--refine is in the plan" grep -q 'refined in [12] round(s): the divergence' "$work/r/plan.json"
"$bin" "${model[@]}" "${few[@]}" --plan "$work/r/plan.json" --out "$work/c" >/dev/null 2>&1
check "the refined plan gives the refined model" cmp "$work/r/quantizers.json" "$work/c/quantizers.json"
"$bin" "${model[@]}" "${quick[@]}" --effective-bits 9 --formats all-layers:FP8_DEFAULT_CFG,all-layers:INT8_DEFAULT_CFG \
  --dry-run >"$work/log" 2>&1
check "all-layers: makes formats of their own" grep -q "format 'CUSTOM_1(effective-bits: 8.0)'" "$work/log"
"$bin" --help >"$work/help"
check "--help succeeds" test $? -eq 0
for option in model out text windows formats effective-bits preset plan method disabled-layers calib-steps score-steps \
  calib-from numerics cost threads algorithm dry-run checkpoint refine max-bytes latency resolved score-memory; do
  check "--help names --$option" grep -q -- "--$option " "$work/help"
done

refused() {  # WORD ARGUMENT...: exit 2, one line that holds WORD, no output folder
  local word=$1 status
  shift
  rm -rf "$work/x"
  timeout 60 "$bin" "$@" >"$work/out" 2>"$work/err" </dev/null
  status=$?
  check "refused ($word): exit $status" test $status -eq 2
  check "refused ($word): one line, not '$(cat "$work/err")'" test "$(wc -l <"$work/err")" -eq 1
  check "refused ($word): names it, not '$(cat "$work/err")'" grep -qF -- "$word" "$work/err"
  check "refused ($word): writes nothing" test ! -e "$work/x" -a ! -s "$work/out"
}
out=(--out "$work/x")
budget=(--effective-bits 6.0)
preset=(--preset FP8_DEFAULT_CFG)
refused "--model is missing" "${out[@]}"
refused "--out is missing" --model data/byte-lm "${preset[@]}"
refused "cannot be met" "${search[@]}" --effective-bits 1.0 --dry-run
refused "--plan: cannot open '$work/none.json'" "${model[@]}" "${out[@]}" --plan "$work/none.json"
refused "--formats: " "${model[@]}" "${out[@]}" --formats NO_SUCH_CFG --effective-bits 6
refused "--preset: " "${model[@]}" "${out[@]}" --preset NO_SUCH_CFG
refused "--latency: cannot open '$work/none.json'" "${search[@]}" "${out[@]}" --latency "$work/none.json"
echo '{"name": "X", "quant_cfg": [{"quantizer_name": "*weight_quantizer", "cfg": {"num_bits": 8, "axis": 7}}],
  "algorithm": "max"}' >"$work/axis.json"
refused "format X: model.layers.0.self_attn.q_proj.weight_quantizer: axis 7" "${model[@]}" "${out[@]}" \
  --formats "$work/axis.json" --effective-bits 9
sed 's/model.layers.0.mlp.gate_proj/model.layers.9.mlp.gate_proj/' "$work/a/plan.json" >"$work/elsewhere.json"
refused "--plan '$work/elsewhere.json': the plan names 'model.layers.9.mlp.gate_proj'" "${model[@]}" "${out[@]}" \
  --plan "$work/elsewhere.json"
if [[ -w /dev/full ]]; then
  "$bin" "${search[@]}" --out "$work/said" --effective-bits 6.0 >/dev/full 2>"$work/err"
  check "stdout that is full: exit 2" test $? -eq 2
  check "stdout that is full: says that files are there, not '$(tail -n 1 "$work/err")'" \
    grep -q "standard output: No space left on device; every file of --out '$work/said' is written" "$work/err"
  check "stdout that is full: and they are" diff -r "$work/a" "$work/said"
fi
refused "--resolved needs --dry-run" "${search[@]}" "${out[@]}" --effective-bits 6 --resolved "$work/r.json"
refused "--score-memory belongs to --method gradient" "${search[@]}" "${out[@]}" "${budget[@]}" --method kl_div \
  --score-memory 1000
refused "--score-memory belongs to a search" "${model[@]}" "${out[@]}" "${preset[@]}" --score-memory 1000
refused "--score-memory '0'" "${search[@]}" "${out[@]}" "${budget[@]}" --score-memory 0
refused "--dry-run belongs to a search" "${model[@]}" "${out[@]}" "${preset[@]}" --dry-run
refused "--frobnicate" "${search[@]}" "${out[@]}" --frobnicate 1
refused "'frobnicate'" "${search[@]}" "${out[@]}" frobnicate
refused "--help takes no other arguments" --help extra
refused "--help takes no other arguments" "${search[@]}" "${out[@]}" --help
refused "--formats" "${model[@]}" "${out[@]}" "${budget[@]}"
refused "--effective-bits" "${search[@]}" "${out[@]}"
for value in six nan inf 0 -1 17 1e999; do refused "'$value'" "${search[@]}" "${out[@]}" --effective-bits "$value"; done
refused "--effective-bits has an empty value" "${search[@]}" "${out[@]}" --effective-bits ''
refused "contradict" "${model[@]}" "${out[@]}" "${preset[@]}" --plan x
refused "contradicts" "${model[@]}" "${out[@]}" "${preset[@]}" "${budget[@]}"
refused "--formats belongs to a search and contradicts --plan" "${search[@]}" "${out[@]}" --plan x
refused "given twice" "${search[@]}" "${out[@]}" "${budget[@]}" "${budget[@]}"
refused "needs a value" "${search[@]}" "${out[@]}" --effective-bits
refused "--out needs a value" --model data/byte-lm --out --preset FP8_DEFAULT_CFG
refused "INT9_CFG" "${model[@]}" "${out[@]}" --formats INT9_CFG "${budget[@]}"
refused "empty item" "${model[@]}" "${out[@]}" --formats FP8_DEFAULT_CFG,, "${budget[@]}"
refused "--preset 'FP8_DEFAULT_CFG,' has an empty item" "${model[@]}" "${out[@]}" --preset FP8_DEFAULT_CFG,
refused "INT9_CFG" "${model[@]}" "${out[@]}" --preset FP8_DEFAULT_CFG,INT9_CFG
refused "FP8_DEFAULT_CFG" "${model[@]}" "${out[@]}" --formats FP8_DEFAULT_CFG,FP8_DEFAULT_CFG "${budget[@]}"
refused "*nothing*" "${search[@]}" "${out[@]}" "${budget[@]}" --disabled-layers '*nothing*'
refused "--effective-bits 3: a target of 3 effective bits" "${search[@]}" "${out[@]}" --effective-bits 3
refused "5 to 16 bits" "${search[@]}" "${out[@]}" --effective-bits 3
refused "--max-bytes '1e3'" "${search[@]}" "${out[@]}" --max-bytes 1e3
refused "--max-bytes 100: a max_bytes of 100 cannot be met: 481280 to 1540096 bytes can be reached" \
  "${search[@]}" "${out[@]}" --max-bytes 100

# what is read is not written over
cp -r data/byte-lm "$work/apart"
for file in model.safetensors config.json; do
  refused "--resolved '$work/apart/$file' lies in --model" --model "$work/apart" "${quick[@]}" --formats FP8_DEFAULT_CFG \
    --effective-bits 9 --dry-run --resolved "$work/apart/$file"
done
refused "--windows '$work/few.json' would be lost" "${search[@]}" "${budget[@]}" --dry-run --resolved "$work/few.json"
check "the model and the windows are as before" \
  eval 'diff -r data/byte-lm "$work/apart" && grep -q calibration_windows "$work/few.json"'
mkdir "$work/read"
cp "$work/few.json" "$work/read/manifest.json"
cp "$work/text" "$work/read/report.html"
cp "$work/a/quant_config.json" "$work/read/quantizers.json"
into=(--out "$work/read")
refused "--windows '$work/read/manifest.json' would be lost" "${model[@]}" "${into[@]}" "${budget[@]}" \
  --formats FP8_DEFAULT_CFG --windows "$work/read/manifest.json"
refused "--text '$work/read/report.html' would be lost" --model data/byte-lm "${few[@]}" "${into[@]}" \
  --preset FP8_DEFAULT_CFG --text "$work/read/report.html"
refused "--preset '$work/read/quantizers.json' would be lost" "${model[@]}" "${few[@]}" "${into[@]}" \
  --preset "$work/read/quantizers.json"
root=$PWD program=$(realpath "$bin")
(cd "$work/read" && "$program" --model "$root/data/byte-lm" --text "$work/text" --windows manifest.json \
  --calib-steps 1 --score-steps 1 --formats FP8_DEFAULT_CFG --effective-bits 9 --dry-run >"$work/log" 2>&1)
check "a dry run writes nothing into the folder that it is called in, so what lies there is read" test $? -eq 0
check "they are there" test "$(ls "$work/read" | tr '\n' ' ')" = "manifest.json quantizers.json report.html "
ln -s loop "$work/loop"
refused '"'"$work/loop"'" is neither a preset nor a file' "${model[@]}" "${quick[@]}" "${out[@]}" "${budget[@]}" \
  --formats "$work/loop"
refused "cannot create '/proc/none'" "${search[@]}" "${out[@]}" "${budget[@]}" --checkpoint /proc/none/kept
refused "--effective-bits: 'abc' is not a decimal number" "${search[@]}" "${out[@]}" --effective-bits abc
latency=$work/latency.json
echo '{"limit": 67.9, "latency": {"*": {"FP8_DEFAULT_CFG": 4, "INT8_DEFAULT_CFG": 6, "INT4_B32_WEIGHT_ONLY": 8,
  "NONE": 12}}}' >"$latency"
refused "a latency limit of 67.9 microseconds cannot be met: 68 to 204 microseconds can be reached" \
  "${search[@]}" "${out[@]}" --effective-bits 9 --latency "$latency"
sed -i 's/FP8_DEFAULT/FP8_DEFAUL/' "$latency"
refused "$latency': has no entry for FP8_DEFAULT_CFG" "${search[@]}" "${out[@]}" --latency "$latency"
refused "--latency belongs to a search" "${model[@]}" "${out[@]}" "${preset[@]}" --latency "$latency"
sed -i 's/FP8_DEFAUL_/FP8_DEFAULT_/; s/67.9/80/' "$latency"
"$bin" "${search[@]}" --out "$work/limits" --max-bytes 700000 --latency "$latency" >"$work/log" 2>&1
check "bytes and time instead of bits: exit 0" test $? -eq 0
check "both are said to be kept" grep -qE ' [67][0-9]{5} bytes of 700000, (80|[67][0-9]) microseconds of 80, score' "$work/log"
check "and stand in the plan" grep -q '"max_microseconds": 80.0' "$work/limits/plan.json"
refused "--calib-steps '0'" "${model[@]}" "${out[@]}" "${preset[@]}" --calib-steps 0
refused "--calib-steps 99" "${model[@]}" "${out[@]}" "${preset[@]}" --calib-steps 99
refused "--score-steps 99" "${model[@]}" "${out[@]}" --formats FP8_DEFAULT_CFG --effective-bits 8 --score-steps 99
refused "--refine '0'" "${search[@]}" "${out[@]}" "${budget[@]}" --refine 0
refused "--refine belongs to a search" "${model[@]}" "${out[@]}" "${preset[@]}" --refine 1
refused "--threads '0'" "${search[@]}" "${out[@]}" "${budget[@]}" --threads 0
refused "--threads '1000000'" "${search[@]}" "${out[@]}" "${budget[@]}" --threads 1000000
refused "gradient or kl_div" "${search[@]}" "${out[@]}" "${budget[@]}" --method guess
refused "--algorithm: no algorithm is named" "${model[@]}" "${out[@]}" "${preset[@]}" --algorithm awq_lit
refused "alpha: 2 is not in" "${model[@]}" "${out[@]}" "${preset[@]}" --algorithm '{"method": "smoothquant", "alpha": 2}'
refused "--algorithm" "${model[@]}" "${out[@]}" "${preset[@]}" --algorithm '{"method": '
refused "'acme.none' is registered" "${model[@]}" "${out[@]}" "${preset[@]}" --algorithm '{"method": "acme.none"}'
refused "--algorithm needs --preset" "${model[@]}" "${out[@]}" --plan x --algorithm max
refused "smoothquant: takes INT8" "${model[@]}" "${out[@]}" "${preset[@]}" --calib-steps 1 --algorithm smoothquant

"$bin" --help >/dev/full 2>"$work/err"
check "a full standard output is an error" test $? -eq 2

# files that are not there, or not what they should be: the path is in the line
refused "$work/nowhere/config.json" --model "$work/nowhere" "${out[@]}" "${preset[@]}"
refused "$work/no-text" --model data/byte-lm --text "$work/no-text" "${out[@]}" "${preset[@]}"
refused "/dev/zero: is not a regular file" --model data/byte-lm --text /dev/zero "${out[@]}" "${preset[@]}"
refused "--text '$work/empty' is empty" --model data/byte-lm --text "$work/empty" "${out[@]}" "${preset[@]}"
refused "INT9\x0a_CFG" "${model[@]}" "${out[@]}" --preset $'INT9\n_CFG'
refused "$work/no-plan" "${model[@]}" "${out[@]}" --plan "$work/no-plan"
refused "$work/a/manifest.json" "${model[@]}" "${out[@]}" --plan "$work/a/manifest.json"
sed '/"recipe": *{/,/}/s/: *"[^"]*"/: "NONE(effective-bits: 16.0)"/' "$work/a/plan.json" >"$work/plan.json"
refused "$work/plan.json: modules.model.layers.0." "${model[@]}" "${out[@]}" --plan "$work/plan.json"
refused "$work/text" "${model[@]}" "${out[@]}" "${preset[@]}" --windows "$work/text"
refused "$work/a'" "${model[@]}" "${out[@]}" "${preset[@]}" --windows "$work/a"
for content in '{"quant_cfg": [{"quantizer_name": "*", "cfg": {"num_bits": 0.5}}]}' \
  '{"quant_cfg": 1e999}' '{"quant_cfg": [' '{}' '[]' '{"quant_cfg": [], "quant_cfg": []}'; do
  echo "$content" >"$work/mine.json"
  refused "$work/mine.json" "${model[@]}" "${out[@]}" --preset "$work/mine.json"
  refused "$work/mine.json" "${model[@]}" "${out[@]}" "${budget[@]}" --formats "FP8_DEFAULT_CFG,$work/mine.json"
done
sed 's/"rule"/"rules"/' "$work/a/plan.json" >"$work/plan.json"
refused "$work/plan.json: modules.model.layers.0.self_attn.q_proj has no field 'rules': " \
  "${model[@]}" "${out[@]}" --plan "$work/plan.json"
mkfifo "$work/fifo"
refused "$work/fifo: cannot be read: not a regular file" "${model[@]}" "${out[@]}" --preset "$work/fifo"
refused "$work/fifo: cannot be read: not a regular file" "${model[@]}" "${out[@]}" "${budget[@]}" --formats "$work/fifo"
echo '{"window": 1e999}' >"$work/windows.json"
refused "$work/windows.json" "${model[@]}" "${out[@]}" "${preset[@]}" --windows "$work/windows.json"
echo '{"window": 4096, "calibration_windows": [[0]], "score_windows": [[0]], "validation_windows": [0]}' \
  >"$work/windows.json"
sed 's/"score_windows": \[\[0/"score_windows": [[18446744073709551615/; s/4096/64/' "$work/windows.json" >"$work/far.json"
refused "step 0: the window of 64 bytes at 18446744073709551615 is not" \
  "${model[@]}" "${out[@]}" "${preset[@]}" --windows "$work/far.json"
refused "$work/windows.json: field 'window' is 4096 bytes, that is 4095 tokens, and max_position_embeddings" \
  "${model[@]}" "${out[@]}" "${preset[@]}" --windows "$work/windows.json"

# a format that checkpoints have no form for is refused before a forward pass, which would write a progress line
cat >"$work/mine.json" <<<'{"quant_cfg": [{"quantizer_name": "*", "enable": false},
  {"quantizer_name": "*weight_quantizer", "cfg": {"num_bits": 8}}], "algorithm": "max"}'
refused "mine: model.layers.0.self_attn.q_proj: no Hugging Face form" "${model[@]}" "${out[@]}" --effective-bits 10 \
  --formats "FP8_DEFAULT_CFG,$work/mine.json"

# as a preset it is measured: one line says that there is no checkpoint, and an older one goes
no_form='model.layers.0.self_attn.q_proj: no Hugging Face form'
stale=(generation_config.json model-00001-of-00002.safetensors model.safetensors.index.json)
mkdir -p "$work/e/checkpoint"
(cd "$work/e/checkpoint" && touch "${stale[@]}")
while read -r preset_name why; do
  "$bin" "${model[@]}" "${few[@]}" --preset "$preset_name" --out "$work/e" >"$work/log" 2>"$work/err"
  check "$preset_name is measured" grep -qE '^validation loss [0-9.]+ -> [0-9.]+ nats a byte' "$work/log"
  check "$preset_name: one line says why no checkpoint is written" test \
    "$(grep -c "^checkpoint: not written: .*$why" "$work/err")" = 1
  check "$preset_name: there is none" test -s "$work/e/evaluation.json" -a ! -e "$work/e/checkpoint/model.safetensors"
done <<END
$work/mine.json $no_form
MXFP6_DEFAULT_CFG $no_form
NVFP4_SVDQUANT_DEFAULT_CFG model.layers.0.self_attn.q_proj: svdquant computes a branch beside this weight
FP8_AFFINE_KV_CFG model.layers.0.self_attn.k_bmm_quantizer: no Hugging Face form exists in this version for bias
END
check "nothing of an older checkpoint stays" test -z "$(ls -A "$work/e/checkpoint" 2>/dev/null)"
"$bin" "${model[@]}" "${few[@]}" --preset NVFP4_W4A4_WEIGHT_LOCAL_HESSIAN_CFG --out "$work/e" >"$work/log" 2>&1
check "weights searched by their Hessian are written as NVFP4" grep -q '"NVFP4"' "$work/e/checkpoint/hf_quant_config.json"

# and so is an entry of the user's that matches nothing
cat >"$work/mine.json" <<<'{"quant_cfg": [{"quantizer_name": "*", "enable": false},
  {"quantizer_name": "*weight_quantizer", "cfg": {"num_bits": 8, "axis": 0}},
  {"quantizer_name": "*lm_haed*", "enable": false}], "algorithm": "max"}'
refused 'mine: entry 2 ("*lm_haed*") matches none' "${model[@]}" "${out[@]}" --preset "$work/mine.json"
refused 'mine: entry 2 ("*lm_haed*") matches none' "${model[@]}" "${out[@]}" "${budget[@]}" --formats "$work/mine.json"

# checkpoints that are broken or do not fit
broken() {  # WORD: the model in $work/broken is refused
  refused "$1" --model "$work/broken" --text "$text" "${out[@]}" "${preset[@]}"
}
mkdir "$work/broken"
cp data/byte-lm/config.json "$work/broken"
head -c 5000 data/byte-lm/model.safetensors >"$work/broken/model.safetensors"
broken "$work/broken/model.safetensors"
head -c 3000000 data/byte-lm/model.safetensors >"$work/broken/model.safetensors"
broken "$work/broken/model.safetensors': tensor"
sed 's/"dtype"/"dtyqe"/' data/byte-lm/model.safetensors >"$work/broken/model.safetensors"
broken "$work/broken/model.safetensors': tensor"
cp data/byte-lm/model.safetensors "$work/broken"
chmod u+w "$work/broken/model.safetensors"
printf '\0\0\xc0\x7f' | dd of="$work/broken/model.safetensors" bs=1 conv=notrunc status=none \
  seek=$(($(stat -c %s "$work/broken/model.safetensors") - 4))  # a float32 NaN
broken "$work/broken/model.safetensors': tensor 'model.norm.weight' holds nan at element 127"
cp data/byte-lm/model.safetensors "$work/broken"
for change in "intermediate_size 352 353" "hidden_size 128 1000000000" "num_hidden_layers 4 1000000" \
  "vocab_size 256 2000000000" "num_attention_heads 4 2000000000" "head_dim 32 2000000000" \
  "max_position_embeddings 128 0" "rms_norm_eps 1e-05 1e999"; do
  read -r field old new <<<"$change"
  sed "s/\"$field\": $old/\"$field\": $new/" data/byte-lm/config.json >"$work/broken/config.json"
  broken "$work/broken/config.json"
  if [[ $new != 1e999 ]]; then broken "$new"; fi
done
sed 's/"use_cache": true/"rope_scaling": {"type": "linear", "factor": 2}/' data/byte-lm/config.json \
  >"$work/broken/config.json"
broken "'type'"
sed 's/"use_cache": true/"quantization_config": {}/' data/byte-lm/config.json >"$work/broken/config.json"
broken "quantization_config"

# --out: a folder apart from the model's that can be written to, known before a forward pass
cp -r data/byte-lm "$work/model"
ln -s "$work/model" "$work/link"
for folder in "$work/model" "$work/model/" "$work/model/sub/sub" "$work" "$work/link" "$work/none/../model"; do
  refused "lie in one another" --model "$work/model" --text "$text" --out "$folder" "${preset[@]}"
done
check "the model's folder is as it was" diff -r data/byte-lm "$work/model"
echo before >"$work/file"
refused "$work/file" "${model[@]}" --out "$work/file" "${preset[@]}"
refused "$work/file': Not a directory" "${model[@]}" --out "$work/file/x" "${preset[@]}"
check "a file named by --out is as it was" test "$(cat "$work/file")" = before
refused "/proc/none" "${model[@]}" --out /proc/none "${preset[@]}"

mkdir -p "$work/taken/report.html"
refused "cannot write '$work/taken/report.html': Is a directory" "${search[@]}" --out "$work/taken" "${budget[@]}"
check "a folder in a file's place is found before a forward" test "$(ls -A "$work/taken")" = report.html
mkdir -p "$work/taken2/checkpoint/hf_quant_config.json"
refused "hf_quant_config.json': Is a directory" "${model[@]}" --out "$work/taken2" "${preset[@]}"
mkdir "$work/full"
echo before >"$work/full/plan.json"
(ulimit -f 100; trap '' XFSZ; "$bin" "${search[@]}" --out "$work/full" "${budget[@]}" >/dev/null 2>"$work/err")
check "a full disk: exit 2" test $? -eq 2
check "a full disk: one line, not '$(cat "$work/err" | tail -n 1)'" grep -q 'byte_lm: ' "$work/err"
check "a full disk: what was there is there" test "$(ls -A "$work/full")$(cat "$work/full/plan.json")" = "plan.jsonbefore"

echo "$passed passed, $failed failed"
((failed == 0))

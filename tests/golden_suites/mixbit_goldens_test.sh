#!/usr/bin/env bash
# The program mixbit_goldens on folders that are not what it reads: a line that says so, and the exit status for it.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bin=${MIXBIT_BIN:-build/ci/bin}/mixbit_goldens
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0

ends() {  # STATUS TEXT FILE ARGUMENT...: the program's FILE (out or err) has a line with TEXT
  local wanted=$1 text=$2 file=$3 status
  shift 3
  timeout 120 "$bin" "$@" >"$work/out" 2>"$work/err" </dev/null
  status=$?
  if ((status == wanted)) && grep -qF -- "$text" "$work/$file"; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "FAILED: mixbit_goldens $*: exit $status, not $wanted, or no '$text' in: $(tail -n 3 "$work/$file")"
  fi
}
mkdir "$work/empty"
ends 2 "'$work/empty' holds no golden files" err "$work/empty"
mkdir -p "$work/hollow/export"
ends 2 "'$work/hollow' holds no golden files" err "$work/hollow"
ends 2 "'$work/none' is not a folder" err "$work/none"
ends 2 "'more' is another" err tests/golden more

# files of the wrong shape: a failure of their own suite, which names the file and what is missing
named() {  # SUITE TEXT JSON FILE...: FILEs that are not tensors hold JSON, in a folder of their own
  local suite=$1 text=$2 json=$3 folder
  shift 3
  folder=$(mktemp -d -p "$work")
  for file in "$@"; do
    mkdir -p "$(dirname "$folder/$file")"
    if [[ $file == *.safetensors ]]; then cp "tests/golden/$file" "$folder/$file"; else echo "$json" >"$folder/$file"; fi
  done
  ends 1 "$suite: $folder/$text" out "$folder"
}
named validation "validation.json: key 'attributes' not found" '{}' validation.json
named validation "validation.json: key 'accepted' not found" '{"attributes":[{"input":{}}]}' validation.json
named resolved "resolved.json: key 'skeletons' not found" '{}' resolved.json
named fake_quant "fake_quant.json: key 'cases' not found" '{}' fake_quant.json fake_quant.safetensors
named fake_quant "fake_quant.json: key 'id' not found" '{"cases":[{}]}' fake_quant.json fake_quant.safetensors
named pack "pack.json: key 'cases' not found" '{}' pack.json pack.safetensors
named pack "pack.json: key 'input' not found" '{"cases":[{"format":"x","id":"x"}]}' pack.json pack.safetensors
named algorithms "algorithms.json: key 'cases' not found" '{}' algorithms.json algorithms.safetensors
named lm "lm.json: key 'validation_loss' not found" '{}' lm.json lm.safetensors
named lm_autoquant "lm_autoquant.json: key 'runs' not found" '{}' lm_autoquant.json lm.json lm.safetensors
named export "export/mixed/hf_quant_config.json: key 'quantization' not found" '{}' export/mixed/hf_quant_config.json
mkdir "$work/presets"
echo '{}' >"$work/presets/presets.json"
ends 1 "presets: presets.json holds 0 presets, the library" out "$work/presets"
echo '[1e999]' >"$work/presets/presets.json"
ends 1 "presets.json': not JSON at byte" out "$work/presets"
cp tests/golden/fake_quant.json tests/golden/pack.json "$work/presets"
echo '{}' >"$work/presets/fake_quant.safetensors"
cp tests/golden/fake_quant.safetensors "$work/presets/pack.safetensors"
ends 1 "fake_quant.safetensors': not a safetensors file" out "$work/presets"
ends 1 "pack.safetensors': has no tensor" out "$work/presets"

echo "$passed passed, $failed failed"
((failed == 0))

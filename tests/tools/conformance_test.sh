#!/usr/bin/env bash
# The program conformance as a user runs it: on what ModelOpt computed (tests/golden), under the right claim and under
# wrong ones; its vectors; wrong input, which ends with one line, status 2 and nothing written; and a kernel written in
# NumPy, where there is NumPy.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source tests/support/check.sh
bin=${MIXBIT_BIN:-build/ci/bin}/conformance
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
skipped=0

run() {  # STATUS TEXT ARGUMENT...: ends with that status, and its output holds the text
  local wanted=$1 text=$2 status
  shift 2
  timeout 120 "$bin" "$@" >"$work/out" 2>"$work/err"
  status=$?
  check "$* ends with $wanted, not $status: $(head -c 300 "$work/err")" test $status -eq "$wanted"
  check "$* says '$text', not '$(head -n 3 "$work/out")'" grep -qF -- "$text" "$work/out"
}
refused() {  # TEXT ARGUMENT...: status 2, one line that holds the text, nothing else
  local text=$1 status
  shift
  timeout 60 "$bin" "$@" >"$work/out" 2>"$work/err" </dev/null
  status=$?
  check "refused ($text): exit $status" test $status -eq 2
  check "refused ($text): one line, not '$(cat "$work/err")'" test "$(wc -l <"$work/err")" -eq 1
  check "refused ($text): names it, not '$(cat "$work/err")'" grep -qF -- "$text" "$work/err"
  check "refused ($text): writes nothing" test ! -e "$work/x" -a ! -s "$work/out"
}

# what ModelOpt's tensor classes wrote: codes, scales and decoded values
pack=tests/golden/pack.safetensors
encoded() {  # CASE INPUT: the options that name its files
  echo "--input $pack:$2 --codes $pack:$1/$2/data --scales $pack:$1/$2/scale0 --output $pack:$1/$2/dequantized"
}
conforms='CONFORMS: matches in every element'
by_class=(--policy modelopt_pack)
for input in w_f32 w_bf16 w_f16 heavy_f32; do
  # shellcheck disable=SC2046  # options are words
  run 0 "$conforms" --format INT4 "${by_class[@]}" --layout flat --block 32 $(encoded int4_b32 $input)
  # shellcheck disable=SC2046
  run 0 "$conforms" --format INT8 "${by_class[@]}" --axis 0 $(encoded int8_ch0 $input)
  # shellcheck disable=SC2046
  run 0 "$conforms" --format FP8 "${by_class[@]}" $(encoded fp8_tensor $input)
  # shellcheck disable=SC2046
  run 0 "$conforms" --format NVFP4_STATIC "${by_class[@]}" $(encoded nvfp4 $input) \
    --tensor-scale "$pack:nvfp4/$input/scale1"
  # shellcheck disable=SC2046
  run 0 "$conforms" --format MXFP4 "${by_class[@]}" $(encoded mxfp4 $input)
done
# and what its simulation computed
run 0 "$conforms" --format INT8 --policy modelopt --input tests/golden/fake_quant.safetensors:gauss_f32 \
  --output tests/golden/fake_quant.safetensors:int8_tensor/gauss_f32/out \
  --amax tests/golden/fake_quant.safetensors:int8_tensor/gauss_f32/amax0
run 0 "$conforms" --format INT6 --axis 0 --policy modelopt --input tests/golden/fake_quant.safetensors:gauss_f32 \
  --output tests/golden/fake_quant.safetensors:int6_ch0/gauss_f32/out
run 0 "$conforms" --format MXFP8 --policy modelopt --input tests/golden/blocks.safetensors:w_f32 \
  --output tests/golden/blocks.safetensors:mx_e4m3_nv/w_f32/out

# wrong claims: the right one is named
# shellcheck disable=SC2046
run 1 'every element with: policy modelopt_pack; nibbles high first over the flat tensor, codes with an offset of 8' \
  --format INT4 --layout rows --block 32 $(encoded int4_b32 w_f32) --json "$work/report.json"
check "the report is JSON with the same" grep -q '"explained": true' "$work/report.json"
# shellcheck disable=SC2046
run 1 'every element with: blocks of 32' --format INT4 --policy modelopt_pack --layout flat --block 128 \
  --input $pack:heavy_f32 --output $pack:int4_b32/heavy_f32/dequantized
run 1 'every element with: policy modelopt' --format INT8 --input tests/golden/fake_quant.safetensors:gauss_f32 \
  --output tests/golden/fake_quant.safetensors:int8_tensor/gauss_f32/out
run 1 'every element with: scale rule mx_nv' --format MXFP8 --mx ocp --policy modelopt \
  --input tests/golden/blocks.safetensors:w_f32 --output tests/golden/blocks.safetensors:mx_e4m3_nv/w_f32/out
run 1 'note: the output is the input' --format INT8 --input $pack:w_f32 --output $pack:w_f32
check "one screen" test "$(wc -l <"$work/out")" -le 30
echo '{"num_bits": 6, "axis": 0}' >"$work/attributes.json"
run 0 "$conforms" --format "$work/attributes.json" --policy modelopt \
  --input tests/golden/fake_quant.safetensors:gauss_f32 \
  --output tests/golden/fake_quant.safetensors:int6_ch0/gauss_f32/out
run 1 'conformance to e4m3, policy stored' --format FP8_DEFAULT_CFG --quantizer input_quantizer --input $pack:w_f32 \
  --output $pack:w_f32

# vectors, and all of them in one report
for type in f32 f16 bf16; do
  run 0 "32 inputs written" --format NVFP4 --dtype $type --vectors "$work/$type"
  run 1 "every" --format NVFP4 --input "$work/$type/inputs.safetensors" --output "$work/$type/inputs.safetensors"
done
check "npy has no bfloat16" test ! -e "$work/bf16/inputs"
"$bin" --format NVFP4 --vectors "$work/again" >/dev/null
check "the same vectors every time" diff -r "$work/f32" "$work/again"
run 1 "11864 elements" --format NVFP4 --input "$work/f32/inputs" --output "$work/f32/inputs.safetensors"
run 0 "--vectors DIR" --help

known=(--format INT8 --input $pack:w_f32 --output $pack:w_f32)
mkfifo "$work/fifo"
refused "$work/fifo" --input "$work/fifo" --output "$work/fifo" --format FP8  # and does not wait for a writer
if [[ -w /dev/full ]]; then
  "$bin" --help >/dev/full 2>"$work/err"
  check "a full disk is an error" test $? -eq 2 -a "$(grep -c 'standard output' "$work/err")" -eq 1
fi
refused "see conformance --help"
refused "--format is missing" --input a
refused "unknown option '--bogus'" --bogus 1
refused "--help takes no other arguments" --help extra
refused "--json needs a value" "${known[@]}" --json
refused "given twice" "${known[@]}" --format INT8
refused "empty value" "${known[@]}" --json ''
refused "contradict" "${known[@]}" --axis 0 --block 4
refused "--block '0'" "${known[@]}" --block 0
refused "--axis 'x'" "${known[@]}" --axis x
refused "axis 7 is out of range" "${known[@]}" --axis 7
refused "--policy 'mine' is none of stored" "${known[@]}" --policy mine
refused "--mx belongs to MX" "${known[@]}" --mx ocp
refused "--scale-type belongs" --format MXFP4 --input $pack:w_f32 --output $pack:w_f32 --scale-type f16
refused "nothing to compare" --format INT8 --input $pack:w_f32
refused "--dtype belongs to --vectors" "${known[@]}" --dtype f16
refused "--input contradicts --vectors" --format INT8 --input $pack:w_f32 --vectors "$work/x"
refused "'INT9' is neither a format" --format INT9 --input $pack:w_f32 --output $pack:w_f32
refused "'FP8_DEFAULT_CFX' is neither a format" --format FP8_DEFAULT_CFX --vectors "$work/x"
refused "2 times in sequence" --format W4A8_AWQ_BETA_CFG --vectors "$work/x"
refused "is none of weight_quantizer" --format FP8_DEFAULT_CFG --quantizer wieght --vectors "$work/x"
refused "leaves the output_quantizer off" --format FP8_DEFAULT_CFG --quantizer output_quantizer --vectors "$work/x"
refused "policy modelopt_pack has no int5" --format INT5 --policy modelopt_pack --vectors "$work/x"
refused "a layout of nibbles holds 4 bits" --format INT8 --layout flat --vectors "$work/x"
echo '{"num_bits": 0}' >"$work/mine.json"
refused "$work/mine.json" --format "$work/mine.json" --vectors "$work/x"
refused "$work/none" --format INT8 --input "$work/none" --output $pack:w_f32
refused "has no tensor 'bogus'" --format INT8 --input $pack:bogus --output $pack:w_f32
refused "names no tensor behind its colon" --format INT8 --input $pack: --output $pack:w_f32
refused "has no tensor 'w_f32', which the input has" --format INT8 --input $pack:w_f32 --output "$work/f32/inputs"
refused "the output is bfloat16" --format INT8 --input $pack:w_f32 --output $pack:w_bf16
refused "which names no tensors" --format INT8 --input tests/golden/npy/float32.npy:x --output $pack:w_f32
refused "int64" --format INT8 --input tests/golden/npy/int64.npy --output tests/golden/npy/int64.npy
refused "'<U2' is not read" --format INT8 --input tests/golden/npy/refused_text.npy --output $pack:w_f32
refused "6 values of amax for 1 groups" --format INT8 --input $pack:w_f32 --output $pack:w_f32 \
  --amax tests/golden/npy/float32.npy
refused "compare them apart" --format INT8 --input $pack --output $pack
head -c 1000 $pack >"$work/short.safetensors"
refused "$work/short.safetensors" --format INT8 --input "$work/short.safetensors" --output $pack:w_f32
refused "/proc/none" --format INT8 --vectors /proc/none
refused "/proc/none" "${known[@]}" --json /proc/none
echo before >"$work/file"
refused "$work/file" --format INT8 --vectors "$work/file"
check "a file named by --vectors is as it was" test "$(cat "$work/file")" = before
mkdir "$work/full"
(ulimit -f 40; trap '' XFSZ; "$bin" --format INT8 --vectors "$work/full" >/dev/null 2>"$work/err")
check "a full disk: exit 2" test $? -eq 2
check "a full disk: nothing is left" test -z "$(ls -A "$work/full")"

# a kernel in another language, which rounds by adding a half
if python3 -c 'import numpy' 2>/dev/null; then
  "$bin" --format INT8 --axis 0 --vectors "$work/v" >/dev/null
  python3 - "$work/v/inputs" "$work/v/outputs" <<'KERNEL'
import pathlib, sys, numpy as np
source, target = map(pathlib.Path, sys.argv[1:])
target.mkdir()
for file in source.glob("*.npy"):
    x = np.load(file)
    amax = np.abs(np.where(np.isfinite(x), x, 0)).max(axis=1, keepdims=True)
    s = amax / np.float32(127)
    with np.errstate(all="ignore"):
        q = np.where((s == 0) | np.isnan(x), np.float32(0), x / s)
    q = np.clip(np.trunc(q + np.copysign(np.float32(0.5), q)), -128, 127)
    np.save(target / file.name, (q * s + 0).astype(np.float32))
KERNEL
  run 1 'every element with: truncation after adding a half' --format INT8 --axis 0 --input "$work/v/inputs" \
    --output "$work/v/outputs"
else
  skipped=1
  echo "skipped: conformance of a kernel in NumPy: python3 has no numpy"
fi

echo "$passed passed, $failed failed, $skipped skipped"
((failed == 0))

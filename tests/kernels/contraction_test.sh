#!/usr/bin/env bash
# The kernels built for AVX2 and for AVX-512, with the compiler's default contraction of products, compute what the
# build without contraction does: their digests (digest_test.cpp) are one. Skipped where the CPU lacks the instructions.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bin=${MIXBIT_BIN:-build/ci/bin}
passed=0 failed=0 skipped=0

run() { timeout 300 "$1" --no-intro -tc='digest:*'; }  # PROGRAM
has() {  # FLAG...
  local flag flags
  flags=" $(sed -n 's/^flags[[:space:]]*: //p' /proc/cpuinfo 2>/dev/null | head -n 1) "
  for flag; do [[ $flags == *" $flag "* ]] || { echo "the CPU has no $flag"; return 1; }; done
}
compare() {  # TARGET VECTORS FLAG...
  local missing output
  if ! missing=$(has "${@:3}"); then
    echo "skipped: kernels built with -march=$1: $missing"
    skipped=$((skipped + 1))
    return
  fi
  if output=$(run "$bin/contracted_$1") && grep -qx "$expected" <<<"$output" &&
      grep -qx "vectors of $2" <<<"$output" && grep -qx 'plain products are contracted' <<<"$output"; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "FAILED: contracted_$1 has another digest than '$expected', other vectors than $2, or rounds products:"
    echo "$output"
  fi
}

expected=$(run "$bin/test_kernels" | grep '^digest ')
[[ -n $expected ]] || { echo "FAILED: test_kernels prints no digest"; expected=none; }
compare haswell AVX2 avx2 fma bmi2 f16c aes pclmulqdq
compare x86-64-v4 AVX3 avx512f avx512bw avx512cd avx512dq avx512vl aes pclmulqdq

echo "$passed passed, $failed failed, $skipped skipped"
((failed == 0))

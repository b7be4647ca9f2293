#!/usr/bin/env bash
# The benchmarks' command lines: an option that is unknown, repeated or without its value ends with one line on stderr
# that names it, exit status 2, and nothing measured.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bin=${MIXBIT_BIN:-build/ci/bin}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0

refused() {  # WORD PROGRAM ARGUMENT...
  local word=$1 status
  shift
  timeout 60 "$bin/$1" "${@:2}" >"$work/out" 2>"$work/err" </dev/null
  status=$?
  if ((status == 2)) && [[ ! -s $work/out && $(wc -l <"$work/err") == 1 ]] && grep -qF -- "$word" "$work/err" &&
      grep -q "^$1: " "$work/err"; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "FAILED: $*: exit $status: $(head -n 3 "$work/err")"
  fi
}
for source in bench/bench_*.cpp; do
  program=$(basename "$source" .cpp)
  refused "'--frobnicate'" "$program" --frobnicate
  refused "--json" "$program" --json --json
  refused "given twice" "$program" --json --json
  refused "'quick'" "$program" quick
done
for program in bench_kernels bench_kernels_cuda; do
  [[ -x $bin/$program ]] || continue  # the latter where nvcc is
  refused "'--frobnicate'" "$program" --frobnicate
  refused "--filter" "$program" --filter
  refused "'('" "$program" --filter '('
  refused "at most 200 bytes" "$program" --filter "$(printf '(%.0s' {1..20000})"
done
refused "matches no line" bench_kernels --quick --filter 'no such kernel'
refused "matches no line" bench_kernels --quick --filter "$(printf '(a*)*%.0s' {1..39})zz"  # exponential for std::regex

# One line of results, and what becomes of it where nothing can be written.
number='[0-9.]+(e[-+][0-9]+)?'
expected='^\{"kernel":"amax","format":"int8","backend":"reference::simd","dtype":"float32","elements":16777216,'
expected+="\"gelem_s\":$number,\"gb_s\":$number,\"ratio_to_copy\":$number,"
expected+="\"peer\":\"(reference::scalar|read)\",\"ratio_to_peer\":$number\\}\$"
line=$("$bin/bench_kernels" --quick --json --filter '^subtract|^amax/int8/reference::simd/float32/')
if [[ $(grep -cE "$expected" <<<"$line") == 2 && $(wc -l <<<"$line") == 2 ]]; then
  passed=$((passed + 1))
else
  failed=$((failed + 1))
  echo "FAILED: bench_kernels --json prints $line"
fi
if [[ -w /dev/full ]]; then
  "$bin/bench_kernels" --quick --filter '^amax/int8/' >/dev/full 2>"$work/err"
  status=$?
  if ((status == 2)) && grep -q 'standard output' "$work/err"; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "FAILED: bench_kernels on a full disk: exit $status: $(head -n 3 "$work/err")"
  fi
fi
refused "given twice" bench_checkpoint --size 1G --size 2G
refused "--rounds needs a value" bench_checkpoint --rounds
for value in 0 -1 1x 1GG G '' 5000G; do refused "--size '$value'" bench_checkpoint --size "$value"; done
refused "GiB free, and 8396.8 are needed" bench_checkpoint --size 4096G
refused "'$work/none' cannot be looked at" bench_checkpoint --folder "$work/none"
expected='^\{"benchmark":"checkpoint","what":"(cp|[A-Z0-9_]+ as [a-z-]+)","gib":0.0[0-9]+,"written_gib":0.0[0-9]+,"seconds":'
expected+="$number,\"synced_seconds\":$number,\"cpu_seconds\":$number,\"ratio_to_cp\":$number,"
expected+="\"synced_ratio_to_cp\":$number,\"anonymous_mib\":$number\}\$"
line=$("$bin/bench_checkpoint" --json --size 0.05G --rounds 1 --folder "$work")
if [[ $(grep -cE "$expected" <<<"$line") == 6 && $(wc -l <<<"$line") == 6 && $(ls "$work") != *checkpoint* ]]; then
  passed=$((passed + 1))
else
  failed=$((failed + 1))
  echo "FAILED: bench_checkpoint --json prints $line"
fi
refused "given twice" bench_search --rounds 1 --rounds 2
for value in 0 -1 1x '' 99999999999; do refused "--rounds '$value'" bench_search --rounds "$value"; done
refused "--rounds ''" bench_search --rounds
refused "--method 'degradation' is not gradient or kl_div" bench_search --method degradation
refused "given twice" bench_search --peer --peer

echo "$passed passed, $failed failed"
((failed == 0))

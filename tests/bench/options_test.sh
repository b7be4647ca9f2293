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
refused "given twice" bench_search --rounds 1 --rounds 2
for value in 0 -1 1x '' 99999999999; do refused "--rounds '$value'" bench_search --rounds "$value"; done
refused "--rounds ''" bench_search --rounds

echo "$passed passed, $failed failed"
((failed == 0))

#!/usr/bin/env bash
# Fast-math modes are refused: at compile time where the compiler's macros tell of them, else by the self-test of
# core/arithmetic.hpp when the program runs. A mode that neither finds is a failure, and so is a plain build refused.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
cat >"$work/main.cpp" <<'CODE'
#include <cstdio>
#include "mixbit/core/arithmetic.hpp"
int main() try {
  mixbit::check_arithmetic();
} catch (mixbit::error const& e) {
  std::puts(e.what());
  return 2;
}
CODE

expect() {  # TEXT COMPILER FLAG...: the compiler or the program says TEXT; nothing where TEXT is empty
  local text=$1 said
  said=$("${@:2}" -std=c++20 -Iinclude "$work/main.cpp" -o "$work/main" 2>&1 && "$work/main" 2>&1)
  if [[ -n $text && $said == *"$text"* ]] || [[ -z $text && -z $said ]]; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "FAILED: ${*:2}: not '$text' but: $(head -n 3 <<<"$said")"
  fi
}

for compiler in g++ clang++; do
  for level in -O0 -O2 -O3; do expect '' "$compiler" "$level"; done
  expect 'fast-math modes change results' "$compiler" -O2 -ffast-math
  expect 'fast-math modes change results' "$compiler" -O2 -ffinite-math-only
done
for flags in -freciprocal-math -funsafe-math-optimizations -fno-signed-zeros \
    '-fassociative-math -fno-signed-zeros -fno-trapping-math'; do
  # shellcheck disable=SC2086  # flags are words
  expect 'fast-math modes change results' g++ -O2 $flags
done
expect 'divisions are replaced by reciprocals' clang++ -O2 -freciprocal-math
expect 'signs of zeros are ignored' clang++ -O2 -fno-signed-zeros
expect '[mixbit.603]' clang++ -O2 -funsafe-math-optimizations
expect 'sums are reassociated' clang++ -O2 -fassociative-math -fno-signed-zeros -fno-trapping-math
# -ffast-math when linking alone: gcc's crtfastmath.o sets flush-to-zero before main
"${CXX:-g++}" -std=c++20 -O2 -Iinclude -c "$work/main.cpp" -o "$work/main.o"
if "${CXX:-g++}" -ffast-math "$work/main.o" -o "$work/main" && said=$("$work/main"); [[ ${said:-} == *'flushed to zero'* ]]; then
  passed=$((passed + 1))
elif [[ -z ${said:-} ]]; then
  echo "skipped: fast math when linking: this linker's -ffast-math changes nothing"
else
  failed=$((failed + 1))
  echo "FAILED: linking with -ffast-math: $said"
fi

echo "$passed passed, $failed failed"
((failed == 0))

#!/usr/bin/env bash
# Two files of one program that include the CPU backends under different flags keep their own kernels, whichever the
# linker sees first, and compute the same bits: what the linker merges does not depend on the flags.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
if ! grep -qw avx2 /proc/cpuinfo; then
  echo "skipped: two instruction sets in one program: this CPU has no AVX2"
  exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
check() {  # NAME CONDITION...
  local name=$1
  shift
  if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAILED: $name"; fi
}

compile() {  # OUT FLAGS...; what is inlined could not be merged
  "${CXX:-g++}" -std=c++20 -O1 -fno-inline -Iinclude -Ireference "${@:2}" -c -o "$work/$1.o"
}
compile plain tests/odr/half.cpp -DHALF=plain_half &
compile avx2 tests/odr/half.cpp -DHALF=avx2_half -march=haswell -maes -mpclmul &
compile main tests/odr/main.cpp
wait
"${CXX:-g++}" -o "$work/one" "$work"/{main,plain,avx2}.o
"${CXX:-g++}" -o "$work/other" "$work"/{main,avx2,plain}.o
"$work/one" >"$work/one.txt"
"$work/other" >"$work/other.txt"

mapfile -t lines <"$work/one.txt"
read -r plain_set plain_scalar plain_simd <<<"${lines[0]:-}"
read -r avx2_set avx2_scalar avx2_simd <<<"${lines[1]:-}"
check "two lines, not $(cat "$work/one.txt")" test ${#lines[@]} -eq 2
check "the link order changes nothing: $(diff "$work/one.txt" "$work/other.txt")" cmp -s "$work/one.txt" "$work/other.txt"
check "the halves keep their instructions: $plain_set, $avx2_set" test "$plain_set" != AVX2 -a "$avx2_set" = AVX2
check "scalar kernels agree" test "$plain_scalar" = "$avx2_scalar"
check "simd agrees with scalar: $plain_simd, $avx2_simd" test "$plain_simd" = "$plain_scalar" -a "$avx2_simd" = "$plain_scalar"
echo "$passed passed, $failed failed, 0 skipped"
((failed == 0))

#!/usr/bin/env bash
# Tests scripts/check-layering: a clean small tree passes, and each planted violation is found by its own rule.
set -euo pipefail
check=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/scripts/check-layering
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0

write() {  # FILE LINE...
  mkdir -p "$work/$(dirname "$1")"
  printf '%s\n' "${@:2}" >"$work/$1"
}

clean_tree() {
  rm -rf "${work:?}"/*
  write include/mixbit/mixbit.hpp '#pragma once' '#include "mixbit/config/json.hpp"'
  write include/mixbit/core/error.hpp '#pragma once' '#include <string>'
  write include/mixbit/core/device.hpp '#pragma once' '// cuda::kernels are named in a comment, which is fine' \
    'enum class device { cpu, cuda };' 'using names = int;  /* reference:: */'
  write include/mixbit/formats/integer.hpp '#pragma once' '#include "mixbit/core/error.hpp"'
  write include/mixbit/config/json.hpp '#pragma once' '#include <nlohmann/json.hpp>' \
    '#include "mixbit/formats/integer.hpp"'
  write include/mixbit/calib/max.hpp '#pragma once' '#include "mixbit/config/json.hpp"'
  write include/mixbit/autoquant/solver.hpp '#pragma once' '#include "mixbit/core/error.hpp"'
  write include/mixbit/report/report.hpp '#pragma once' '#include "mixbit/autoquant/solver.hpp"'
  write include/mixbit/validate/compare.hpp '#pragma once' '#include "mixbit/config/json.hpp"'
  write include/mixbit/io/file.hpp '#pragma once' '#include <sys/mman.h>' '#include "mixbit/autoquant/solver.hpp"'
  write include/mixbit/adapters/eigen.hpp '#pragma once' '#include <Eigen/Core>' '#include "mixbit/core/device.hpp"'
  write reference/mixbit/reference/kernel.hpp '#pragma once' '#include <hwy/highway.h>' \
    '#include "mixbit/formats/integer.hpp"'
  write cuda/mixbit/cuda/kernel.cuh '#pragma once' '#include <cuda_runtime.h>' '#include "mixbit/core/device.hpp"'
}

expect_found() {  # RULE WHAT
  local out status=0
  out=$("$check" "$work") || status=$?
  if ((status == 1)) && grep -q ": $1: " <<<"$out" && grep -q '^13 passed, 1 failed, 0 skipped$' <<<"$out"; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    printf 'not found alone by the rule %s: %s (status %s)\n%s\n' "$1" "$2" "$status" "$out"
  fi
}

plant() {  # RULE FILE LINE: the line is added to the file of a clean tree, which is made if need be
  clean_tree
  [[ -e $work/$2 ]] || write "$2" '#pragma once'
  printf '%s\n' "$3" >>"$work/$2"
  expect_found "$1" "$2: $3"
}

clean_tree
if out=$("$check" "$work") && [[ $out == "14 passed, 0 failed, 0 skipped" ]]; then
  passed=$((passed + 1))
else
  failed=$((failed + 1))
  printf 'the clean tree does not pass:\n%s\n' "$out"
fi

inc=include/mixbit
plant std $inc/core/device.hpp '#include "mixbit/formats/integer.hpp"'
plant std $inc/core/device.hpp '#include <Eigen/Core>'
plant std $inc/core/device.hpp '#include <unistd.h>'
plant std $inc/formats/integer.hpp '#include "mixbit/config/json.hpp"'
plant std $inc/autoquant/solver.hpp '#include "mixbit/core/device.hpp"'
plant std $inc/autoquant/detail/search.hpp '#include "mixbit/formats/integer.hpp"'
plant order $inc/config/json.hpp '#include "mixbit/calib/max.hpp"'
plant order $inc/calib/max.hpp '#include "mixbit/autoquant/solver.hpp"'
plant order $inc/calib/max.hpp '#include "mixbit/io/file.hpp"'
plant order $inc/calib/max.hpp '#include "mixbit/mixbit.hpp"'
plant order $inc/calib/max.hpp '#include <xtensor/xarray.hpp>'
plant order $inc/io/file.hpp '#include "mixbit/report/report.hpp"'
plant order $inc/io/file.hpp '#include "mixbit/validate/compare.hpp"'
plant order $inc/report/report.hpp '#include "mixbit/validate/compare.hpp"'
plant order $inc/validate/compare.hpp '#include "mixbit/calib/max.hpp"'
plant order $inc/validate/compare.hpp '#include "mixbit/io/file.hpp"'
plant backend $inc/validate/compare.hpp '#include "mixbit/reference/kernel.hpp"'
plant order $inc/stray/file.hpp '// a layer of an unknown name'
plant json $inc/formats/integer.hpp '#include <nlohmann/json.hpp>'
plant json $inc/autoquant/solver.hpp '#include <nlohmann/json_fwd.hpp>'
plant json $inc/config/presets.hpp '#include <nlohmann/json.hpp>'
plant json $inc/config/presets.hpp 'inline nlohmann::json preset();'
plant adapters $inc/calib/max.hpp '#include "mixbit/adapters/eigen.hpp"'
plant adapters $inc/adapters/eigen.hpp '#include "mixbit/formats/integer.hpp"'
plant adapters $inc/adapters/xtensor.hpp '#include "mixbit/config/json.hpp"'
plant adapters $inc/distributed/mpi.hpp '#include "mixbit/config/json.hpp"'
plant umbrella $inc/mixbit.hpp '#include "mixbit/adapters/eigen.hpp"'
plant reference reference/mixbit/reference/kernel.hpp '#include "mixbit/config/json.hpp"'
plant reference reference/mixbit/reference/kernel.hpp '#include "mixbit/cuda/kernel.cuh"'
plant reference reference/mixbit/reference/kernel.hpp '#include <Eigen/Core>'
plant cuda cuda/mixbit/cuda/kernel.cuh '#include "mixbit/reference/kernel.hpp"'
plant cuda cuda/mixbit/cuda/kernel.hpp '#include <hwy/highway.h>'
plant backend $inc/calib/max.hpp '#include "mixbit/reference/kernel.hpp"'
plant backend $inc/calib/max.hpp 'inline int f() { return mixbit::reference::amax(); }'
plant backend $inc/calib/max.hpp 'namespace mixbit::cuda {}'
plant device tests/cuda/kernel_test.cu '#include <hwy/highway.h>'
plant device tests/cuda/kernel_test.cu '#include <Eigen/Core>'
plant exists $inc/calib/max.hpp '#include "mixbit/core/missing.hpp"'
plant exists tests/calib/max_test.cpp '#include "mixbit/core/missing.hpp"'
plant exists $inc/calib/max.hpp '#include "error.hpp"'
plant columns tests/calib/max_test.cpp "// $(printf '%0118d' 0)"

clean_tree
write $inc/calib/max.hpp '#include <vector>'
expect_found pragma 'a header without #pragma once'
clean_tree
yes '// a line' 2>/dev/null | head -n 450 >>"$work/$inc/calib/max.hpp" || true
expect_found length 'a header of 452 lines'
clean_tree
write examples/hosts/byte_lm/layers.hpp '#pragma once'
yes '  return apply(slots, x, weight, product);' 2>/dev/null | head -n 21 >>"$work/examples/hosts/byte_lm/layers.hpp" || true
yes '  visit(mixbit::linear(name, weight));' 2>/dev/null | head -n 20 >>"$work/examples/hosts/byte_lm/layers.hpp" || true
expect_found host 'a model with 41 lines that touch mixbit'
clean_tree
write $inc/mixbit.hpp '#pragma once' '#include "mixbit/config/yaml.hpp"'
write $inc/config/yaml.hpp '#pragma once' '#include <yaml-cpp/yaml.h>'
expect_found umbrella 'the optional yaml.hpp in the umbrella'

echo "$passed passed, $failed failed, 0 skipped"
((failed == 0))

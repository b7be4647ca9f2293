#!/usr/bin/env bash
# Tests the checks of scripts/ other than check-layering (which has a test of its own), on small trees made here:
# check-headers, check-compile-fail, check-mutations, demo, the arguments of test, count-tests.awk, list-sources,
# batch-tests, install-deps, fuzz and check-cuda.
set -euo pipefail
source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/scripts" "$work/include/mixbit" "$work/reference/mixbit" "$work/tests/compile_fail"
cp "$source_dir"/scripts/* "$work/scripts"
cd "$work"
passed=0 failed=0

expect() {  # WHAT STATUS REGEX COMMAND...: the command ends with the status and prints a line that matches
  local what=$1 status=$2 regex=$3 got=0 out
  out=$("${@:4}" 2>&1) || got=$?
  if ((got == status)) && grep -Eq -- "$regex" <<<"$out"; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    printf '%s: status %s, expected %s and /%s/\n%s\n' "$what" "$got" "$status" "$regex" "$out"
  fi
}

# check-headers
printf '#pragma once\n#include <string>\ninline std::string a() { return "a"; }\n' >include/mixbit/whole.hpp
expect 'a whole header' 0 '1 of 1 headers compile alone' scripts/check-headers g++
printf '#pragma once\n// needs: <no/such/header.h> (optional)\n#include <no/such/header.h>\n' >include/mixbit/optional.hpp
expect 'an optional header' 0 '^skipped: header mixbit/optional.hpp: <no/such/header.h>' scripts/check-headers g++
printf '#pragma once\ninline std::string b() { return "b"; }\n' >reference/mixbit/half.hpp
expect 'a header without its include' 1 'does not compile alone with g\+\+: mixbit/half.hpp' scripts/check-headers g++
printf 'struct twice {};\n' >reference/mixbit/half.hpp
expect 'a header without a guard' 1 'does not compile alone with clang\+\+: mixbit/half.hpp' scripts/check-headers clang++
printf '#pragma once\ninline int c(int unused) { return 1; }\n' >reference/mixbit/half.hpp
expect 'a header with a warning' 1 'does not compile alone with g\+\+: mixbit/half.hpp' scripts/check-headers g++
printf '#pragma once\nnamespace left_open {\n' >reference/mixbit/half.hpp
expect 'a header that ends too early' 1 'does not compile alone with g\+\+: mixbit/half.hpp' scripts/check-headers g++
# what many lead to is parsed once, and stands in for nothing that a header does not lead to
trunk=mixbit/reference/simd/rows-inl.hpp  # the last that check-headers knows
mkdir -p "reference/${trunk%/*}"
printf '#pragma once\n#include <string>\n' >"reference/$trunk"
for i in 1 2 3 4 5 6 7 8; do
  printf '#pragma once\n#include "%s"\ninline std::string d%s() { return "d"; }\n' $trunk $i >include/mixbit/user$i.hpp
done
printf '#pragma once\n#include "mixbit/user1.hpp"\ninline std::string e() { return d1(); }\n' >reference/mixbit/half.hpp
expect 'headers with much in common' 0 '^g\+\+: 12 of 12 headers compile alone' scripts/check-headers g++
printf '#pragma once\ninline std::string e() { return "e"; }\n' >reference/mixbit/half.hpp
for compiler in g++ clang++; do
  expect 'a header beside what it does not include' 1 '^.*: 11 of 12 headers compile alone' scripts/check-headers $compiler
done
printf '#pragma once\n#include "mixbit/user1.hpp"\ninline std::string e() { return f(); }\n' >reference/mixbit/half.hpp
expect 'a wrong header with what is precompiled' 1 'does not compile alone with g\+\+: mixbit/half.hpp' \
  scripts/check-headers g++
printf '#pragma once\ninline std::string b() { return "b"; }\n' >"reference/$trunk"
expect 'a wrong header that many include' 1 "does not compile alone with g\+\+: $trunk" \
  scripts/check-headers g++
rm -r reference/mixbit/reference include/mixbit/user*.hpp

# check-compile-fail
misuse() {  # EXPECTED MISUSE CORRECTED
  printf '// expect: %s\n#ifdef MIXBIT_COMPILE_PASS\n%s\n#else\n%s\n#endif\n' "$1" "$3" "$2" >tests/compile_fail/case.cpp
}
misuse 'a number is needed' 'static_assert(false, "a number is needed");' 'int x = 1;'
expect 'a good case' 0 '^1 passed, 0 failed, 0 skipped$' scripts/check-compile-fail
misuse 'a word is needed' 'static_assert(false, "a number is needed");' 'int x = 1;'
expect 'another message' 1 'fails without a message that matches' scripts/check-compile-fail
misuse 'a number is needed' 'int x = 1;' 'int x = 1;'
expect 'misuse that compiles' 1 'compiles with clang\+\+, but must not' scripts/check-compile-fail
misuse 'a number is needed' 'static_assert(false, "a number is needed");' 'int x = y;'
expect 'a corrected variant that is wrong' 1 'corrected variant does not compile with g\+\+' scripts/check-compile-fail
printf 'int x = y;\n' >tests/compile_fail/case.cpp
expect 'a case without its message' 1 "no line '// expect: regex'" scripts/check-compile-fail

expect 'a header that does not exist' 2 'no header mixbit/none.hpp' scripts/check-headers g++ mixbit/none.hpp
expect 'no compiler' 2 '^usage: scripts/check-headers' scripts/check-headers
expect 'a misuse that does not exist' 2 'no file tests/none.cpp' scripts/check-compile-fail tests/none.cpp
expect 'a second word for test' 2 '^usage: scripts/test' scripts/test --quick junk

# demo, with a byte_lm that shows its arguments
mkdir -p build/release/bin real
mv scripts/install-deps scripts/build real
printf '#!/bin/sh\necho "byte_lm $*"\n' >build/release/bin/byte_lm
printf '#!/bin/sh\n' >scripts/build
cp scripts/build scripts/install-deps
chmod +x build/release/bin/byte_lm scripts/build scripts/install-deps
expect 'demo' 0 '^byte_lm --model data/byte-lm --out build/demo --effective-bits 6.0 --formats FP8[^ ]*$' scripts/demo
expect 'an option of the user wins' 0 '^byte_lm --model [^ ]* --out [^ ]* --formats [^ ]* --effective-bits 5$' \
  scripts/demo --effective-bits 5
expect 'a preset is no search' 0 '^byte_lm --model [^ ]* --out [^ ]* --preset X$' scripts/demo --preset X
expect 'help alone' 0 '^byte_lm --help$' scripts/demo --help
mv real/* scripts

# count-tests.awk
cat >ctest.log <<'LOG'
1: [doctest] test cases:  9 |  7 passed | 1 failed | 1 skipped
1/5 Test  #1: core ........***Failed    0.03 sec
2: skipped: torch: the package is not installed
2: [doctest] test cases:  4 |  4 passed | 0 failed | 0 skipped
2/5 Test  #2: io ..........   Passed    0.03 sec
3: fake_quant: 5 cases
3: 3 passed, 0 failed, 2 skipped
3/5 Test  #3: goldens .....   Passed    0.03 sec
4: Segmentation fault
4/5 Test  #4: config ......***Exception: SegFault  0.10 sec
5/5 Test  #5: headers .....   Passed    1.00 sec
LOG
count() { awk -v mode="$1" -v reasons=reasons -v details=details -f scripts/count-tests.awk "$2"; }
expect 'cases' 0 '^14 2 4$' count cases ctest.log
expect 'tests' 0 '^3 2 0$' count tests ctest.log
expect 'why something was skipped' 0 '^torch: the package is not installed$' cat reasons
expect 'how something failed' 0 '^Segmentation fault$' cat details
printf '1: [doctest] test cases: 3 | 3 passed | 0 failed | 0 skipped\n1/1 Test #1: a ...***Failed 1 sec\n' >ctest.log
expect 'a failure outside the cases' 0 '^3 1 0$' count cases ctest.log
: >ctest.log
expect 'no test at all' 0 '^0 1 0$' count cases ctest.log

# list-sources
mkdir -p tests/b tests/a/deep examples/hosts/toy
touch tests/b/y_test.cpp tests/a/deep/x_test.cpp tests/a/w_test.cpp tests/a/help.cpp examples/hosts/toy/{main,more}.cpp \
  examples/hosts/single.cpp
expect 'a folder of tests' 0 '^a tests/a/deep/x_test.cpp tests/a/w_test.cpp$' scripts/list-sources unit
expect 'a host' 0 '^toy examples/hosts/toy/main.cpp examples/hosts/toy/more.cpp$' scripts/list-sources hosts
expect 'a single example' 0 '^single examples/hosts/single.cpp$' scripts/list-sources examples

# batch-tests: one batch that compiles, with names that two files have and what only compiles at file scope, and a file
# that must stay alone
printf '#include <cstdio>\nnamespace {\nint value = 1;\n}\nint w() { return value; }\n' >tests/a/w_test.cpp
printf '#include <cstdio>\nnamespace {\nint value = 2;\n}\nint x() { return value; }\n' >tests/a/deep/x_test.cpp
printf '#if __has_include(<string>)\nint y() { return 3; }\n#endif\n' >tests/b/y_test.cpp
printf '#include <functional>\nstruct z;\ntemplate <>\nstruct std::hash<z>;\n' >tests/a/z_test.cpp
expect 'a batch, and a test that stays alone' 0 '^tests/b/y_test.cpp build/batches/a-[0-9]*.cpp$' \
  bash -c 'scripts/batch-tests build/batches 3 tests/a/z_test.cpp tests/{a/w,b/y,a/deep/x}_test.cpp | xargs'
expect 'a batch compiles' 0 '' bash -c '${CXX:-g++} -std=c++20 -Wall -Wextra -Werror -I. -fsyntax-only build/batches/a-*.cpp'
expect 'batches of one' 0 '^tests/a/w_test.cpp$' scripts/batch-tests build/batches 1 tests/a/w_test.cpp
expect 'all sources as they are' 0 '^build/batches/a-[0-9]*.cpp$' \
  scripts/batch-tests build/batches whole tests/a/w_test.cpp tests/b/y_test.cpp
expect 'that compiles' 0 '' bash -c '${CXX:-g++} -std=c++20 -Wall -Wextra -Werror -I. -fsyntax-only \
  "$(scripts/batch-tests build/batches whole tests/a/w_test.cpp tests/b/y_test.cpp)"'
expect 'a single source alone' 0 '^tests/a/w_test.cpp$' scripts/batch-tests build/batches whole tests/a/w_test.cpp
expect 'a test that does not exist' 2 '^there is no file tests/none.cpp' scripts/batch-tests build/batches 2 tests/none.cpp
expect 'a size that is none' 2 '^usage: scripts/batch-tests' scripts/batch-tests build/batches 0 tests/a/w_test.cpp
rm tests/a/deep/x_test.cpp tests/a/z_test.cpp tests/b/y_test.cpp

# check-mutations, with a program that prints what doctest would
printf '#include <cstdio>\nint wrong();\nint main() { return std::printf("1 | %%d passed\\n", 1 - wrong()), wrong(); }\n' \
  >tests/main.cpp
mkdir include/mixbit/core
printf '#pragma once\ninline int next(int x) { return x + 1; }\n' >include/mixbit/core/next.hpp
printf '#pragma once\n#include "mixbit/core/next.hpp"\ninline int twice(int y) { return next(next(y)); }\n' \
  >include/mixbit/core/twice.hpp
printf '#include "mixbit/core/twice.hpp"\nint wrong() { return twice(1) == 3 ? 0 : 1; }\n' >tests/a/next_test.cpp
mutation() {  # TEXT REPLACEMENT
  printf '# a list\n\ncore/next: a mistake\n  in   include/mixbit/core/next.hpp\n  -    %s\n  +    %s\n' "$1" "$2"
  printf '  test a/next_test.cpp: *\n'
}
mutation 'x + 1' 'x + 2' >tests/mutations.list
expect 'a mutation that a test notices' 0 '^killed .*: core/next: a mistake$' scripts/check-mutations
expect 'a mutation of that name' 0 '^1 passed, 0 failed, 0 skipped$' scripts/check-mutations '^core/n'
expect 'no mutation of that name' 2 "no mutation matches 'cuda/'" scripts/check-mutations cuda/
expect 'two patterns' 2 '^usage: scripts/check-mutations' scripts/check-mutations a b
sed -i 's|"mixbit/core/next|"next|' include/mixbit/core/twice.hpp
expect 'an include past the mutated copy' 1 '^BROKEN .* past its mutated copy$' scripts/check-mutations
sed -i 's|"next|"mixbit/core/next|' include/mixbit/core/twice.hpp
mutation 'x + 1' '1 + x' >tests/mutations.list
expect 'a mutation that no test notices' 1 '^SURVIVES .*: tests/a/next_test.cpp passes' scripts/check-mutations
mutation 'x + 1' 'z + 1' >tests/mutations.list
expect 'a mutation that does not compile' 1 '^BROKEN .*error: .z. was not declared' scripts/check-mutations
printf 'int wrong() { return 1; }\n' >tests/a/next_test.cpp
expect 'a test that fails by itself' 1 '^UNPROVEN .*without it tests/a/next_test.cpp' scripts/check-mutations
mutation 'x - 1' 'x + 1' >tests/mutations.list
expect 'a mutation whose text is gone' 1 'next.hpp does not contain: x - 1$' scripts/check-mutations --list-only
mutation 'x' 'y' >tests/mutations.list
expect 'a mutation in two places' 1 'next.hpp contains more than once: x$' scripts/check-mutations --list-only
printf 'core/next: half of one\n  in   include/mixbit/core/next.hpp\n' >tests/mutations.list
expect 'half a mutation' 2 'not a mutation' scripts/check-mutations --list-only

# install-deps, where nothing is found on the PATH but what it calls itself
mkdir -p bin
bash_path=$(command -v bash)
printf '#!%s\necho 1000\n' "$bash_path" >bin/id
chmod +x bin/id
expect 'not Debian' 1 'not a Debian system .*g\+\+ cmake' env PATH="$work/bin" "$bash_path" scripts/install-deps run
printf '#!%s\nexit 1\n' "$bash_path" >bin/apt-get
chmod +x bin/apt-get
expect 'no root' 1 'root is needed .*apt-get install .*g\+\+' env PATH="$work/bin" "$bash_path" scripts/install-deps run
expect 'everything there' 0 '^$' scripts/install-deps test

# fuzz
expect 'no time' 2 '^usage: scripts/fuzz' scripts/fuzz --seconds 0
expect 'an unknown option' 2 '^usage: scripts/fuzz' scripts/fuzz --frobnicate
printf '#!%s\nexit 1\n' "$bash_path" >bin/clang++
chmod +x bin/clang++
expect 'no libFuzzer' 0 '^skipped: fuzz: ' env PATH="$work/bin:$PATH" scripts/fuzz
expect 'and what it counts' 0 '^0 passed, 0 failed, 1 skipped$' env PATH="$work/bin:$PATH" scripts/fuzz
# a compiler that compiles nothing, and a "program" whose only target takes what it is given
printf '#!%s\nfor last; do :; done\nwhile (($#)); do case $1 in -o) out=$2 ;; esac; shift; done\n' "$bash_path" >bin/clang++
printf 'cat >"$out" <<"END"\n#!%s\n' "$bash_path" >>bin/clang++
printf 'case $0 in */list) echo npy ;; esac\nexit 0\nEND\nchmod +x "$out"\n' >>bin/clang++
mkdir -p tests/fuzz/targets tests/fuzz/corpus/npy examples/tools/allocate reference
touch tests/fuzz/targets/npy.cpp tests/fuzz/corpus/npy/one tests/fuzz/main.cpp reference/kernels.cpp
touch examples/tools/allocate/{statistics,latency}.cpp
expect 'what a run counts' 0 '^1 passed, 0 failed, 0 skipped$' env PATH="$work/bin:$PATH" scripts/fuzz

# check-cuda
plant() {  # FILE LINE...: a program of bash
  mkdir -p "$(dirname "$1")"
  printf '#!%s\n' "$bash_path" >"$1"
  printf '%s\n' "${@:2}" >>"$1"
  chmod +x "$1"
}
on_device() { env PATH="$work/bin:$PATH" CUDA_HOME=/none scripts/check-cuda --build made "$@"; }
mkdir -p examples/cuda/mlp
touch examples/cuda/mlp/main.cpp
expect 'an unknown tool' 2 '^usage: scripts/check-cuda' scripts/check-cuda --tool leakcheck
expect 'an unknown option' 2 '^usage: scripts/check-cuda' scripts/check-cuda --frobnicate
no_tool() { PATH=$work/none:/usr/bin:/bin CUDA_HOME=/none scripts/check-cuda; }
if ! PATH=/usr/bin:/bin command -v compute-sanitizer >/dev/null; then
  expect 'no compute-sanitizer' 0 '^skipped: check-cuda: compute-sanitizer .* is not there$' no_tool
  expect 'and what it counts' 0 '^0 passed, 0 failed, 16 skipped$' no_tool
fi
plant bin/compute-sanitizer 'echo "asked: $*"' 'while [[ $1 == --* ]]; do shift 2; done' '"$@"' 'status=$?' \
  'echo "========= ERROR SUMMARY: ${ERRORS:-0} errors"' '((${ERRORS:-0} == 0)) || exit 9' 'exit $status'
plant bin/nvidia-smi 'exit 1'
if ! compgen -G '/dev/nvidia[0-9]*' >/dev/null; then
  expect 'no GPU' 0 '^skipped: check-cuda: no GPU$' on_device
  expect 'and what it counts' 0 '^0 passed, 0 failed, 16 skipped$' on_device
fi
plant bin/nvidia-smi 'echo "GPU 0: planted"'
expect 'nothing built' 0 '^skipped: check-cuda cuda_mlp: not built in made$' on_device
plant made/tests/test_cuda_device 'echo "[doctest] test cases: 1 | 1 passed"' 'echo "skipped: one case: why"'
plant made/tests/fp8_native_check 'exit 0'
plant made/tests/fp4_native_check 'echo "skipped: fp4: converts in software"'
plant made/examples/cuda_mlp 'exit 0'
expect 'each program under each tool' 0 '^12 passed, 0 failed, 4 skipped$' on_device
expect 'one of both' 0 '^1 passed, 0 failed, 0 skipped$' on_device --tool racecheck cuda_mlp
expect 'what a sanitizer finds' 1 '^FAILED: synccheck cuda_mlp: status 9$' env ERRORS=2 PATH="$work/bin:$PATH" \
  scripts/check-cuda --build made
expect 'what it is asked' 1 '^asked: --tool initcheck --error-exitcode 9 made/tests/fp8_native_check$' \
  env ERRORS=2 PATH="$work/bin:$PATH" scripts/check-cuda --build made
expect 'some cases' 1 '^asked: .*test_cuda_device --no-intro --test-case=cuda amax$' env ERRORS=2 \
  PATH="$work/bin:$PATH" scripts/check-cuda --build made --cases 'cuda amax' test_cuda_device
plant made/tests/test_cuda_device 'echo "[doctest] test cases:  0 |  0 passed | 0 failed | 41 skipped"'
expect 'a filter that no case matches' 1 '^0 passed, 1 failed, 0 skipped$' on_device --tool memcheck \
  --cases 'cuda typo' test_cuda_device
plant made/tests/test_cuda_device 'echo "[doctest] test cases: 10 | 10 passed | 0 failed | 31 skipped"' \
  'echo "skipped: one case: why"'
plant made/examples/cuda_mlp 'exit 3'
expect 'a program that fails' 1 '^8 passed, 4 failed, 4 skipped$' on_device
plant made/examples/cuda_mlp 'echo "skipped: example cuda_mlp: no CUDA device"'
expect 'a device that the tool hides' 1 '^8 passed, 4 failed, 4 skipped$' on_device
plant made/examples/cuda_mlp 'sleep 5'
expect 'a program that hangs' 1 '^FAILED: memcheck cuda_mlp: not done after 1 s$' on_device --tool memcheck --seconds 1
plant bin/compute-sanitizer 'echo Device not supported'
expect 'a tool that watched nothing' 1 '^0 passed, 16 failed, 0 skipped$' on_device

echo "$passed passed, $failed failed, 0 skipped"
((failed == 0))

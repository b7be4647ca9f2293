#!/usr/bin/env bash
# Installs mixbit and uses it in every way that docs name: find_package, pkg-config, add_subdirectory and a Meson
# subproject. Each consumer compiles tests/install/consumer.cpp, which includes the umbrella, and runs it.
set -euo pipefail
source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
consumers=$source_dir/tests/install
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if command -v ninja >/dev/null; then export CMAKE_GENERATOR=${CMAKE_GENERATOR:-Ninja}; fi
prefix=$work/prefix
passed=0 failed=0

attempt() {  # NAME FUNCTION
  local log=$work/$1.log
  if (set -e; "$2") >"$log" 2>&1 </dev/null; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "$1 failed:"
    grep -m 5 -E 'rror' "$log" || tail -n 15 "$log"
  fi
}

configure_and_run() {  # NAME ARGUMENT...
  cmake -S "$consumers" -B "$work/$1" -DCMAKE_BUILD_TYPE=Debug "${@:2}" &&
    cmake --build "$work/$1" && "$work/$1/consumer"
}

installs() {
  cmake -S "$source_dir" -B "$work/library" -DCMAKE_INSTALL_PREFIX="$prefix" \
    -DMIXBIT_BUILD_EXAMPLES=OFF -DMIXBIT_BUILD_BENCH=OFF -DMIXBIT_BUILD_TESTS=OFF &&
    cmake --install "$work/library" && test -e "$prefix/include/mixbit/mixbit.hpp"
}
find_package() { configure_and_run find_package -DCMAKE_PREFIX_PATH="$prefix"; }
add_subdirectory() { configure_and_run add_subdirectory -DMIXBIT_SOURCE="$source_dir"; }
pkg_config() {
  export PKG_CONFIG_PATH=$prefix/share/pkgconfig
  # shellcheck disable=SC2046  # pkg-config prints words
  "${CXX:-g++}" -std=c++20 "$consumers/consumer.cpp" -o "$work/by_pkg_config" $(pkg-config --cflags --libs mixbit) &&
    "$work/by_pkg_config"
}
meson_subproject() {
  mkdir -p "$work/meson/subprojects" && cp "$consumers/consumer.cpp" "$consumers/meson.build" "$work/meson" &&
    ln -s "$source_dir" "$work/meson/subprojects/mixbit" &&
    meson setup "$work/meson/build" "$work/meson" && meson compile -C "$work/meson/build" &&
    "$work/meson/build/consumer"
}

attempt install installs
attempt find_package find_package
attempt pkg-config pkg_config
attempt add_subdirectory add_subdirectory
attempt meson-subproject meson_subproject
echo "$passed passed, $failed failed, 0 skipped"
((failed == 0))

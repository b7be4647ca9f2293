// Every instruction set of this machine that reference::simd was compiled for, one after the other.
#pragma once

#include <set>
#include <string>

#include <doctest/doctest.h>
#include <hwy/targets.h>

#include "kernels/kernel_test.hpp"
#include "mixbit/reference/simd.hpp"

namespace kernel_tests {

/// Calls f() once an instruction set; the machine's own choice is restored at the end.
template <class F>
void on_every_instruction_set(F f) {
  std::set<std::string> seen;
  std::int64_t const supported = hwy::SupportedTargets();
  for (std::int64_t rest = supported; rest != 0; rest &= rest - 1) {
    std::int64_t const one = rest & -rest;
    hwy::SetSupportedTargetsForTest(one);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    std::string const name{mixbit::reference::simd::instructions()};
    if (!seen.insert(name).second) continue;
    CAPTURE(name);
    f();
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(supported);
}

template <>
struct instruction_sets<reference::simd> {
  template <class F>
  static void each(F f) {
    on_every_instruction_set(f);
  }
};

}  // namespace kernel_tests

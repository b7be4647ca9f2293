// What the CPU backends share: tensors in the host's own memory, and calls that have finished when they return.
#pragma once

#include <cstring>

#include "mixbit/core/backend.hpp"
#include "mixbit/reference/target.hpp"

namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET {

struct host {
  static constexpr device place = device::cpu;
  static constexpr bool exact_probe = true;

  static memory_source memory() { return {}; }
  void copy_to_host(void* to, void const* from, std::size_t bytes) const {
    if (bytes != 0) std::memmove(to, from, bytes);
  }
  void copy_from_host(void* to, void const* from, std::size_t bytes) const {
    if (bytes != 0) std::memmove(to, from, bytes);
  }
  void zero(void* p, std::size_t bytes) const {
    if (bytes != 0) std::memset(p, 0, bytes);
  }
  void synchronize() const {}
};

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET

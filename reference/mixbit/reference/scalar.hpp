// reference::scalar: the CPU backend of plain loops. It is what the other backends are held to.
//
//   mixbit::reference::scalar cpu;            // everything on the calling thread
//   mixbit::thread_pool pool{4};
//   mixbit::reference::scalar cpu4{pool};     // same results, to the bit
//
// The kernels cost seconds of compile time in each source file that uses them. Where that matters define
// MIXBIT_SEPARATE_COMPILATION for all of a program's files, and include mixbit/reference/scalar_impl.hpp in one of them
// (as reference/kernels.cpp does for this project's own programs).
#pragma once

#include <cstring>

#include "mixbit/core/backend.hpp"
#include "mixbit/core/executor.hpp"
#include "mixbit/reference/target.hpp"

namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET {

/// Models mixbit::backend. Copies share the executor, which must outlive them. Calls are synchronous, allocate nothing
/// and may be made from several threads.
struct scalar {
  static constexpr device place = device::cpu;
  static constexpr std::string_view name = "reference::scalar";
  static constexpr bool exact_probe = true;

  scalar() = default;
  explicit scalar(executor_ref threads) : threads_{threads} {}

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

#define MIXBIT_KERNEL(kernel) void kernel(kernel##_args const& a) const;
#include "mixbit/core/kernels.inc"
#undef MIXBIT_KERNEL

 private:
  executor_ref threads_{};
};

static_assert(backend<scalar>);

}  // namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET

#if !defined(MIXBIT_SEPARATE_COMPILATION)
#include "mixbit/reference/scalar_impl.hpp"
#endif

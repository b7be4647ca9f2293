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

#include "mixbit/core/backend.hpp"
#include "mixbit/core/thread_pool.hpp"
#include "mixbit/reference/host.hpp"

namespace mixbit::reference::inline MIXBIT_REFERENCE_TARGET {

/// Models mixbit::backend. Copies share the executor, which must outlive them. Calls are synchronous, allocate nothing
/// and may be made from several threads.
struct scalar : host {
  static constexpr std::string_view name = "reference::scalar";

  scalar() = default;
  explicit scalar(executor_ref threads) : threads_{threads} {}
  executor_ref threads() const { return threads_; }

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

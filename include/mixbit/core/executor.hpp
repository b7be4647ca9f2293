// Executors: who runs the pieces of a parallel loop. Passed, never global.
//
// Contract: `parallel_for(n, f)` calls f(i) once for every i in [0, n), in any order and on any thread, and returns
// when all calls have; the first exception is rethrown. Work is split by the *data*, never by the number of threads,
// so results do not depend on how many there are. A host plugs its own pool in by modelling the concept; the library's
// is in thread_pool.hpp.
#pragma once

#include <concepts>
#include <cstdint>

#include "mixbit/core/function_ref.hpp"

namespace mixbit {

template <class E>
concept executor = requires(E& e, std::int64_t n, function_ref<void(std::int64_t)> f) {
  { e.parallel_for(n, f) } -> std::same_as<void>;
  { e.concurrency() } -> std::convertible_to<int>;
};

/// Runs everything on the calling thread. The default.
struct inline_executor {
  void parallel_for(std::int64_t n, function_ref<void(std::int64_t)> f) {
    for (std::int64_t i = 0; i < n; ++i) f(i);
  }
  int concurrency() const { return 1; }
};

/// A borrowed executor of any kind; the default runs on the calling thread.
class executor_ref {
 public:
  executor_ref() = default;
  template <executor E>
    requires(!std::same_as<E, executor_ref>)
  executor_ref(E& e)  // NOLINT: any executor may be lent
      : object_{&e},
        concurrency_{[](void* o) { return static_cast<int>(static_cast<E*>(o)->concurrency()); }},
        run_{[](void* o, std::int64_t n, function_ref<void(std::int64_t)> f) {
          static_cast<E*>(o)->parallel_for(n, f);
        }} {}
  int concurrency() const { return object_ ? concurrency_(object_) : 1; }
  void parallel_for(std::int64_t n, function_ref<void(std::int64_t)> f) const {
    if (object_) return run_(object_, n, f);
    for (std::int64_t i = 0; i < n; ++i) f(i);
  }

 private:
  void* object_ = nullptr;
  int (*concurrency_)(void*) = nullptr;
  void (*run_)(void*, std::int64_t, function_ref<void(std::int64_t)>) = nullptr;
};

/// What a backend computes by, where it says so (`threads()`); else the calling thread. For work beside its kernels, on
/// memory of the host.
template <class B>
executor_ref executor_of(B const& b) {
  if constexpr (requires { { b.threads() } -> std::convertible_to<executor_ref>; }) return b.threads();
  else return {};
}

}  // namespace mixbit

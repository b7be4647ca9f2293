// A borrowed callable: two pointers, no allocation. Must not outlive what it was made from.
#pragma once

#include <memory>
#include <type_traits>
#include <utility>

namespace mixbit {

template <class Signature>
class function_ref;

template <class R, class... Args>
class function_ref<R(Args...)> {
 public:
  template <class F>
    requires(!std::is_same_v<std::remove_cvref_t<F>, function_ref> && std::is_invocable_r_v<R, F&, Args...>)
  function_ref(F&& f) noexcept  // NOLINT: any callable may be lent
      : object_{const_cast<void*>(static_cast<void const*>(std::addressof(f)))},
        call_{[](void* o, Args... args) -> R {
          return static_cast<R>((*static_cast<std::remove_reference_t<F>*>(o))(std::forward<Args>(args)...));
        }} {
    static_assert(!std::is_function_v<std::remove_reference_t<F>>, "pass a lambda, not a function");
  }
  /// call(object, args...): for callers that erase many types and have the function at hand.
  function_ref(void* object, R (*call)(void*, Args...)) noexcept : object_{object}, call_{call} {}
  R operator()(Args... args) const { return call_(object_, std::forward<Args>(args)...); }

 private:
  void* object_;
  R (*call_)(void*, Args...);
};

}  // namespace mixbit

// What a backend is: memory, copies and the kernels of kernels.inc over its own memory.
//
// A backend object is small and copyable; it carries what its calls need (an executor, a stream). Calls may be
// asynchronous: `synchronize` waits for all of them, and `copy_to_host` waits for what it copies.
#pragma once

#include <concepts>
#include <cstddef>
#include <span>
#include <string_view>
#include <utility>

#include "mixbit/core/arena.hpp"
#include "mixbit/core/kernel_args.hpp"

namespace mixbit {

template <class B>
concept backend = std::copyable<B> && requires(B& b, void* p, void const* q, std::size_t n) {
  { B::place } -> std::convertible_to<device>;           // where its tensors live
  { B::name } -> std::convertible_to<std::string_view>;  // for reports
  { B::exact_probe } -> std::convertible_to<bool>;       // does one op give the same bits for scaled operands?
  { B::memory() } -> std::convertible_to<memory_source>;
  { b.copy_to_host(p, q, n) } -> std::same_as<void>;
  { b.copy_from_host(p, q, n) } -> std::same_as<void>;
  { b.zero(p, n) } -> std::same_as<void>;
  { b.synchronize() } -> std::same_as<void>;
#define MIXBIT_KERNEL(name) { b.name(std::declval<name##_args const&>()) } -> std::same_as<void>;
#include "mixbit/core/kernels.inc"
#undef MIXBIT_KERNEL
};

/// An owning array in a backend's memory, zeroed; move-only.
template <backend B, class T>
class buffer {
 public:
  buffer() = default;
  buffer(B& b, std::size_t n) : buffer{} {  // whole from here on: where `zero` throws, the destructor gives it back
    if (n == 0) return;
    data_ = static_cast<T*>(B::memory().allocate(n * sizeof(T)));
    size_ = n;
    b.zero(data_, n * sizeof(T));
  }
  buffer(buffer&& other) noexcept : data_{std::exchange(other.data_, nullptr)}, size_{std::exchange(other.size_, 0)} {}
  buffer& operator=(buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~buffer() {
    if (data_) B::memory().release(data_);
  }
  T* data() { return data_; }
  T const* data() const { return data_; }
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

/// A buffer on the device that holds these values; empty for none.
template <backend B>
buffer<B, float> buffer_of(B& b, std::span<float const> values) {
  buffer<B, float> held{b, values.size()};
  if (!values.empty()) b.copy_from_host(held.data(), values.data(), values.size_bytes());
  return held;
}
template <backend B>
buffer<B, float> buffer_of(B& b, float value) {
  return buffer_of(b, std::span<float const>{&value, 1});
}

}  // namespace mixbit

// Memory whose ends are watched: reads and writes beyond them are found by the address sanitizer, writes also without.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#define MIXBIT_TEST_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define MIXBIT_TEST_ASAN 1
#endif
#endif
#if defined(MIXBIT_TEST_ASAN)
#include <sanitizer/asan_interface.h>
#endif

namespace cuda_tests {

/// `bytes` bytes that start `shift` bytes behind a multiple of 64, between two guards.
class guarded {
 public:
  explicit guarded(std::size_t bytes, std::size_t shift = 0, unsigned char fill = 0xa5) : bytes_{bytes} {
    memory_.assign(bytes + 4 * guard, pattern);
    auto const start = reinterpret_cast<std::uintptr_t>(memory_.data()) + guard;
    first_ = memory_.data() + guard + (64 - start % 64) % 64 + shift % 64;
    for (std::size_t i = 0; i < bytes; ++i) first_[i] = fill;
    poison(true);
  }
  guarded(guarded const&) = delete;
  guarded& operator=(guarded const&) = delete;
  ~guarded() { poison(false); }

  unsigned char* data() { return first_; }
  template <class T>
  T* as() { return reinterpret_cast<T*>(first_); }
  std::vector<unsigned char> bytes() const { return {first_, first_ + bytes_}; }

  /// Is everything around the bytes as it was?
  bool intact() {
    poison(false);
    bool same = true;
    for (unsigned char const* p = memory_.data(); p != memory_.data() + memory_.size(); ++p)
      same = same && ((p >= first_ && p < first_ + bytes_) || *p == pattern);
    poison(true);
    return same;
  }

 private:
  static constexpr std::size_t guard = 64;
  static constexpr unsigned char pattern = 0x5c;

  void poison([[maybe_unused]] bool on) {
#if defined(MIXBIT_TEST_ASAN)
    // the sanitizer tells bytes apart behind multiples of 8 only: what precedes a shifted start is left to the pattern
    if (on) {
      unsigned char* const end = memory_.data() + memory_.size();
      __asan_poison_memory_region(memory_.data(), static_cast<std::size_t>(first_ - memory_.data()) / 8 * 8);
      __asan_poison_memory_region(first_ + bytes_, static_cast<std::size_t>(end - first_) - bytes_);
    } else {
      __asan_unpoison_memory_region(memory_.data(), memory_.size());
    }
#endif
  }

  std::size_t bytes_;
  std::vector<unsigned char> memory_;
  unsigned char* first_ = nullptr;
};

}  // namespace cuda_tests

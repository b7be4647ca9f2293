// How kernels are timed: what is compared runs in turn, round after round, and a ratio is the median of the rounds'
// ratios, because absolute numbers drift more than those.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace bench {

inline double median(std::vector<double> v) {
  std::ranges::nth_element(v, v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2));
  return v[v.size() / 2];
}

template <class F>
double seconds_of(F&& f) {
  auto const start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Copies past the caches, from and to addresses aligned to 16 bytes: what memory allows at best.
inline void copy_past_caches(void* to, void const* from, std::size_t bytes) {
#if defined(__SSE2__)
  auto* const out = static_cast<__m128i*>(to);
  auto const* const in = static_cast<__m128i const*>(from);
  std::size_t const vectors = bytes / 64 * 4;
  for (std::size_t i = 0; i < vectors; i += 4) {
    __m128i const a = _mm_load_si128(in + i), b = _mm_load_si128(in + i + 1);
    __m128i const c = _mm_load_si128(in + i + 2), d = _mm_load_si128(in + i + 3);
    _mm_stream_si128(out + i, a);
    _mm_stream_si128(out + i + 1, b);
    _mm_stream_si128(out + i + 2, c);
    _mm_stream_si128(out + i + 3, d);
  }
  _mm_sfence();
#else
  std::memcpy(to, from, bytes);
#endif
}

/// Reads bytes at an address aligned to 16; the result keeps a compiler from leaving that out.
inline int read_bytes(void const* from, std::size_t bytes) {
#if defined(__SSE2__)
  auto const* const in = static_cast<__m128i const*>(from);
  __m128i sum[8] = {};
  for (std::size_t i = 0; i + 8 <= bytes / 16; i += 8)
    for (std::size_t k = 0; k < 8; ++k) sum[k] = _mm_or_si128(sum[k], _mm_load_si128(in + i + k));
  for (std::size_t k = 1; k < 8; ++k) sum[0] = _mm_or_si128(sum[0], sum[k]);
  return _mm_cvtsi128_si32(sum[0]);
#else
  auto const* const in = static_cast<std::uint32_t const*>(from);
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i < bytes / 4; ++i) sum |= in[i];
  return static_cast<int>(sum);
#endif
}

/// How many bytes a copy moves that is compared with a kernel which moves `moved`: half as many there and back, or all.
inline std::size_t copied_bytes(double moved, std::size_t all) {
  return std::min(all, static_cast<std::size_t>(moved / 2)) / 64 * 64;
}

struct comparison {
  double kernel = 0, peer = 0;                  ///< seconds, medians; a peer that was left out has 0
  double copy_to_kernel = 0, peer_to_kernel = 0;  ///< medians of the rounds' ratios of seconds
};

/// Runs copy, kernel and peer in turn, in both orders. `peer` may be empty, and returns the seconds that it took. A
/// peer that takes longer than its share of `peer_budget` seconds sits rounds out, but for two.
inline comparison compare(int rounds, double peer_budget, std::function<void()> const& copy,
                          std::function<void()> const& kernel, std::function<double()> const& peer) {
  std::vector<double> kernels, peers, to_copy, to_peer;
  double spent = 0;
  for (int r = 0; r <= rounds; ++r) {
    bool const with_peer = peer && (r <= 2 || spent < peer_budget * r / rounds);
    double copied = 0, ran = 0, other = 0;
    auto const time_peer = [&] { other = with_peer ? peer() : 0; };
    if (r % 2 == 0) {
      copied = seconds_of(copy);
      ran = seconds_of(kernel);
      time_peer();
    } else {
      time_peer();
      ran = seconds_of(kernel);
      copied = seconds_of(copy);
    }
    spent += other;
    if (r == 0) continue;  // page faults
    kernels.push_back(ran);
    to_copy.push_back(copied / ran);
    if (!with_peer) continue;
    peers.push_back(other);
    to_peer.push_back(other / ran);
  }
  return {median(kernels), peers.empty() ? 0 : median(peers), median(to_copy), to_peer.empty() ? 0 : median(to_peer)};
}

}  // namespace bench

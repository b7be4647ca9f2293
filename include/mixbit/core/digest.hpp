// A digest of what a file holds, by which damage and other content are noticed: FNV-1a with 64 bits (Fowler, Noll and
// Vo; draft-eastlake-fnv). It is no defence against somebody who wants two contents to look alike.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mixbit/core/fp.hpp"

namespace mixbit {

class content_digest {
 public:
  /// Each value is taken in as one number of 32 bits, so that this is the same on any machine.
  void add(std::span<float const> values) {
    add_number(values.size());
    for (float const v : values) add_number(fp::bits(v));
  }
  void add(std::string_view text) {
    add_number(text.size());
    for (char const c : text) add_number(static_cast<unsigned char>(c));
  }
  /// FNV-1a as it is published, byte by byte.
  void add(std::span<std::byte const> bytes) {
    for (std::byte const b : bytes) add_number(std::to_integer<std::uint64_t>(b));
  }
  /// 16 hexadecimal digits.
  std::string text() const {
    char hex[17];
    std::snprintf(hex, sizeof hex, "%016llx", static_cast<unsigned long long>(hash_));
    return hex;
  }

 private:
  void add_number(std::uint64_t n) { hash_ = (hash_ ^ n) * 0x100000001b3u; }
  std::uint64_t hash_ = 0xcbf29ce484222325u;
};

/// Of these bytes alone.
inline std::string digest_of(std::span<std::byte const> bytes) {
  content_digest digest;
  digest.add(bytes);
  return digest.text();
}

}  // namespace mixbit

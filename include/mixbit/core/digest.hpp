// A digest of values and texts, by which kept results are held to what they were made from.
#pragma once

#include <bit>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <string_view>

namespace mixbit {

/// FNV-1a, 64 bits: tells other weights from these, and is no defence against somebody who wants them to look alike.
class digest {
 public:
  void add(std::span<float const> values) {
    add_number(values.size());
    for (float const v : values) add_number(std::bit_cast<std::uint32_t>(v));
  }
  void add(std::string_view text) {
    add_number(text.size());
    for (char const c : text) add_number(static_cast<unsigned char>(c));
  }
  std::string text() const {
    char hex[17];
    std::snprintf(hex, sizeof hex, "%016llx", static_cast<unsigned long long>(hash_));
    return hex;
  }

 private:
  void add_number(std::uint64_t n) { hash_ = (hash_ ^ n) * 0x100000001b3u; }
  std::uint64_t hash_ = 0xcbf29ce484222325u;
};

}  // namespace mixbit

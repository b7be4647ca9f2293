// Budgets in effective bits: bits stored for the weights of a search divided by their number of elements; and limits of
// bytes and of time beside them.
//
// A target is a decimal number and is kept as one, so that 8.0 bits means exactly 8; the budget in bits is
// floor(target × elements), rounded once. Unquantized weights count 16 bits (bfloat16) whatever the file holds.
#pragma once

#include <charconv>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "mixbit/core/error.hpp"

namespace mixbit {

/// A non-negative decimal number of bits, exactly: digits / 10^places.
class effective_bits {
 public:
  effective_bits() = default;
  /// From a number: its shortest decimal form, so effective_bits{4.8} is exactly 4.8.
  effective_bits(double value) : effective_bits{shortest(value)} {}  // NOLINT: 6.0 is a target
  /// From text such as "4.8". Throws `config_value` naming the text.
  explicit effective_bits(std::string_view text) {
    bool point = false, any = false;
    for (char const c : text) {
      if (c == '.' && !point) {
        point = true;
      } else if (c >= '0' && c <= '9' && digits_ < wide_limit && scale_ < wide_limit) {
        digits_ = digits_ * 10 + (c - '0');
        if (point) scale_ *= 10;
        any = true;
      } else {
        refuse(text);
      }
    }
    if (!any || digits_ == 0 || digits_ / 16 > scale_ || (digits_ / 16 == scale_ && digits_ % 16 != 0)) refuse(text);
  }

  /// Has it been given a value?
  bool given() const { return digits_ != 0; }
  double value() const { return static_cast<double>(digits_) / static_cast<double>(scale_); }
  /// In all its digits.
  std::string text() const { return shortest(value()); }

  /// floor(bits × elements).
  std::int64_t budget(std::int64_t elements) const {
    __extension__ using wide = __int128;
    return static_cast<std::int64_t>(static_cast<wide>(digits_) * elements / scale_);
  }

 private:
  [[noreturn]] static void refuse(std::string_view text) {
    fail(error_id::config_value, "'", text, "' is not a decimal number above 0 and at most 16, as effective bits are");
  }
  static std::string shortest(double value) {
    char text[64];
    auto const [end, code] = std::to_chars(text, text + sizeof text, value, std::chars_format::fixed);
    return code == std::errc{} ? std::string{text, end} : std::string{"(a number too small or too large)"};
  }
  static constexpr std::int64_t wide_limit =
      100'000'000'000'000'000;  // 17 digits: any double's shortest form from 1 on
  std::int64_t digits_ = 0, scale_ = 1;
};

/// What a choice may cost. What is not given does not limit.
struct search_limits {
  effective_bits target = {};                                  ///< of what counts (cost_model.hpp)
  std::optional<std::int64_t> max_bytes = std::nullopt;        ///< of all that is stored, whatever part of it counts
  std::optional<std::int64_t> max_nanoseconds = std::nullopt;  ///< the limit of a latency_table

  bool any() const { return target.given() || max_bytes || max_nanoseconds; }
};

/// Bits as whole bytes, rounded up.
inline std::string shown_bytes(std::int64_t bits) { return std::to_string(bits / 8 + (bits % 8 != 0)); }

/// Nanoseconds as microseconds, in all their digits.
inline std::string shown_microseconds(std::int64_t nanoseconds) {
  std::string places = std::to_string(1000 + nanoseconds % 1000).substr(1);
  places.erase(places.find_last_not_of('0') + 1);
  return std::to_string(nanoseconds / 1000) + (places.empty() ? "" : "." + places);
}

/// Bits per element of a cost in bits.
inline double bits_per_element(std::int64_t bits, std::int64_t elements) {
  return elements == 0 ? 0.0 : static_cast<double>(bits) / static_cast<double>(elements);
}

}  // namespace mixbit

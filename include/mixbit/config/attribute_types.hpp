// The value types of a quantizer's attributes: bits, axes, blocks, bias, rotation. Plain data; names and meanings are
// ModelOpt's. Axes count as PyTorch's do, so negative ones from the end.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mixbit/core/error.hpp"
#include "mixbit/core/partition.hpp"

namespace mixbit {

/// How something was written in a file (a number or a list of one number, a field named or left out). Kept so that a
/// config is written back as it was read; never part of equality.
template <class T>
struct as_written {
  T value{};
  friend constexpr bool operator==(as_written const&, as_written const&) { return true; }
};

/// The bits of an element or of a scale: an integer width, exponent and mantissa bits of a minifloat, or the name of
/// a format of the user's own.
class bit_spec {
 public:
  constexpr bit_spec(int bits = 8) : first_{bits} {}  // NOLINT: num_bits = 4 reads as in Python
  constexpr bit_spec(int exponent, int mantissa) : kind_{kind::pair}, first_{exponent}, mantissa_{mantissa} {}
  bit_spec(std::string name) : kind_{kind::name}, name_{std::move(name)} {}  // NOLINT
  bit_spec(char const* name) : bit_spec{std::string{name}} {}                // NOLINT

  bool is_integer() const { return kind_ == kind::integer; }
  bool is_pair() const { return kind_ == kind::pair; }
  bool is_name() const { return kind_ == kind::name; }
  int bits() const { return is_pair() ? 1 + first_ + mantissa_ : first_; }  ///< a minifloat's includes the sign
  int exponent() const { return first_; }                                   ///< of a pair
  int mantissa() const { return mantissa_; }                                ///< of a pair
  std::string const& name() const { return name_; }
  bool is_pair_of(int exponent, int mantissa) const { return *this == bit_spec{exponent, mantissa}; }
  /// "8", "[4,3]" or the name, for messages.
  std::string text() const {
    if (is_name()) return '"' + name_ + '"';
    if (is_integer()) return std::to_string(first_);
    return '[' + std::to_string(first_) + ',' + std::to_string(mantissa_) + ']';
  }
  friend bool operator==(bit_spec const&, bit_spec const&) = default;

 private:
  enum class kind : std::uint8_t { integer, pair, name };
  kind kind_ = kind::integer;
  int first_ = 8, mantissa_ = 0;
  std::string name_;
};

/// The axes that keep an amax of their own: none (per tensor), one, or a tuple.
struct axis_list {
  std::vector<int> axes;
  as_written<bool> tuple;  ///< written as a list, even if of one axis

  axis_list() = default;
  axis_list(int axis) : axes{axis} {}                                                     // NOLINT: axis = 0
  axis_list(std::vector<int> several) : axes{std::move(several)}, tuple{true} {}          // NOLINT
  axis_list(std::initializer_list<int> several) : axes(several), tuple{true} {}
  bool per_tensor() const { return axes.empty(); }
  friend bool operator==(axis_list const&, axis_list const&) = default;
};

/// Whether amax values are calibrated once or computed anew on every call.
enum class quantizer_type : std::uint8_t { static_type, dynamic_type };

constexpr std::string_view name_of(quantizer_type t) {
  return t == quantizer_type::static_type ? "static" : "dynamic";
}

/// `block_sizes`: which elements share a scale, and how that scale is itself held.
struct block_config {
  std::vector<axis_block> axes;
  std::optional<quantizer_type> type = std::nullopt;     ///< absent means static
  std::optional<bit_spec> scale_bits = std::nullopt;     ///< absent means the scale is not quantized
  std::vector<axis_block> scale_block_sizes = {};        ///< blocks of scales (double quantization)
  bool four_over_six = false;                            ///< NVFP4: amax on 6 or on 4, whichever errs less

  bool is_dynamic() const { return type == quantizer_type::dynamic_type; }
  /// The block size along `axis` exactly as written; no value if the axis is absent or whole.
  std::optional<std::int64_t> size_along(int axis) const {
    for (axis_block const& b : axes)
      if (b.axis == axis) return b.size;
    return std::nullopt;
  }
  friend bool operator==(block_config const& a, block_config const& b) {
    auto const same = [](auto const& x, auto const& y) {  // a dictionary: the order of axes says nothing
      return std::is_permutation(x.begin(), x.end(), y.begin(), y.end());
    };
    return same(a.axes, b.axes) && a.type == b.type && a.scale_bits == b.scale_bits &&
           same(a.scale_block_sizes, b.scale_block_sizes) && a.four_over_six == b.four_over_six;
  }
};

enum class bias_method : std::uint8_t { mean, max_min };

constexpr std::string_view name_of(bias_method m) { return m == bias_method::mean ? "mean" : "max_min"; }

/// `bias`: the offset taken off before the cast. `axes` are the axes *reduced*.
struct bias_config {
  std::vector<int> axes;
  std::optional<quantizer_type> type = std::nullopt;     ///< absent means static
  std::optional<bias_method> method = std::nullopt;      ///< absent means mean
  friend bool operator==(bias_config const&, bias_config const&) = default;
};

enum class rotate_mode : std::uint8_t { rotate, rotate_back };

constexpr std::string_view name_of(rotate_mode m) { return m == rotate_mode::rotate ? "rotate" : "rotate_back"; }

/// `rotate`: a normalized Hadamard transform before the cast; `true` and `{"enable": true}` mean the same.
struct rotate_config {
  bool enable = false;
  rotate_mode mode = rotate_mode::rotate;
  bool rotate_fp32 = false;
  std::optional<std::int64_t> block_size = std::nullopt;  ///< absent: the full width
  as_written<bool> as_struct{};

  constexpr rotate_config() = default;
  constexpr rotate_config(bool on) : enable{on} {}  // NOLINT: rotate = true
  friend bool operator==(rotate_config const&, rotate_config const&) = default;
};

namespace detail {

/// Sizes are positive and axes differ.
inline void check_axis_blocks(std::vector<axis_block> const& blocks, std::string const& where) {
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    if (blocks[i].size && *blocks[i].size <= 0)
      fail(error_id::config_value, where, '[', blocks[i].axis, "]: a block size must be positive or absent, got ",
           *blocks[i].size);
    for (std::size_t k = 0; k < i; ++k)
      if (blocks[k].axis == blocks[i].axis)
        fail(error_id::config_conflict, where, ": axis ", blocks[i].axis, " is given twice");
  }
}

inline void check_axes_differ(std::vector<int> const& axes, std::string const& where) {
  for (std::size_t i = 0; i < axes.size(); ++i)
    if (std::find(axes.begin(), axes.begin() + static_cast<std::ptrdiff_t>(i), axes[i]) !=
        axes.begin() + static_cast<std::ptrdiff_t>(i))
      fail(error_id::config_conflict, where, ": axis ", axes[i], " is given twice");
}

}  // namespace detail

}  // namespace mixbit

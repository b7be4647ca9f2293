// One checkpoint held to a golden one, tensor by tensor, for the suite export: types, shapes and bytes; what comes from
// activations within 1e-5; of layers that ModelOpt has scaled twice (export_scales.hpp) scales within 2^-20, and codes
// that may be neighbours.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>

#include "golden_suites/export_scales.hpp"
#include "mixbit/io/safetensors.hpp"

namespace golden {

class export_comparison {
 public:
  /// Holds on to `theirs` and `scales`.
  export_comparison(mixbit::safetensors_file ours, mixbit::safetensors_file const& theirs, export_scales const& scales)
      : ours_{std::move(ours)}, theirs_{theirs}, scales_{scales} {}

  bool same_names() const { return ours_.names() == theirs_.names(); }
  bool same_metadata() const { return ours_.metadata() == theirs_.metadata(); }
  bool has(std::string const& tensor) const { return ours_.contains(tensor); }

  /// What is wrong with ours; empty: nothing, or we have none of that name.
  std::string difference(std::string const& tensor) const {
    if (!has(tensor)) return {};
    auto const a = ours_.at(tensor), b = theirs_.at(tensor);
    if (a.type != b.type || !a.same_shape(b)) return "another type or shape";
    if (std::memcmp(a.data, b.data, static_cast<std::size_t>(a.bytes())) == 0) return {};
    for (std::string_view const activation : {".input_scale", ".k_scale", ".v_scale"})
      if (tensor.ends_with(activation)) return are_close(tensor, 1e-5f) ? "" : "another scale";
    if (!scales_.is_resmoothed(tensor.substr(0, tensor.rfind('.')))) return "other bytes";
    if (a.type == mixbit::dtype::f32) return are_close(tensor, 0x1p-20f) ? "" : "other scales";
    return are_next(a, b) ? "" : "other codes";
  }

 private:
  bool are_close(std::string const& tensor, float relative) const {
    auto const x = ours_.read_as_float(tensor), y = theirs_.read_as_float(tensor);
    for (std::size_t i = 0; i < x.size(); ++i)
      if (!(std::abs(x[i] - y[i]) <= relative * std::abs(y[i]))) return false;
    return true;
  }

  /// int8, or int4 two a byte: one step apart where they differ, which one in ten thousand codes may.
  static bool are_next(mixbit::const_tensor_ref const& a, mixbit::const_tensor_ref const& b) {
    bool const packed = a.type == mixbit::dtype::u8;
    std::int64_t others = 0;
    for (std::int64_t i = 0; i < a.size(); ++i) {
      std::uint8_t const x = a.as<std::uint8_t>()[i], y = b.as<std::uint8_t>()[i];
      if (x == y) continue;
      int const low = std::abs(code(x, packed ? 4 : 8) - code(y, packed ? 4 : 8));
      int const high = packed ? std::abs(code(x >> 4, 4) - code(y >> 4, 4)) : 0;
      if (low > 1 || high > 1) return false;
      others += low + high;
    }
    return others * 10000 <= a.size() + 9999;
  }

  /// Of two's complement.
  static int code(int byte, int bits) {
    int const value = byte & ((1 << bits) - 1);
    return value >= 1 << (bits - 1) ? value - (1 << bits) : value;
  }

  mixbit::safetensors_file ours_;
  mixbit::safetensors_file const& theirs_;
  export_scales const& scales_;
};

}  // namespace golden

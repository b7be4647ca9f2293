// What a kernel was given and what it gave, on the host and dense, whatever views they came as.
#pragma once

#include <algorithm>
#include <cfloat>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "mixbit/core/backend.hpp"
#include "mixbit/formats/check.hpp"
#include "mixbit/formats/packing.hpp"
#include "mixbit/formats/scale_types.hpp"
#include "mixbit/formats/storage.hpp"

namespace mixbit::validate {

/// What a kernel's results are held to: the format, its groups and where amax comes from.
struct expectation {
  format how;
  partition groups;
  std::span<float const> amax{};       ///< [group_count], on the host; empty: taken from x
  std::optional<float> tensor_amax{};  ///< of two-level scales; none: the largest amax
  bool dynamic = false;                ///< are block scales of each call's data (NVFP4 under policy modelopt)?
};

/// Views of what was found. `x` and `values` have one shape; `codes` are packed bytes, or integers of x's shape.
struct results {
  const_tensor_ref x;
  std::optional<const_tensor_ref> values{};  ///< fake-quantized or dequantized, in x's type
  std::optional<const_tensor_ref> codes{};
  std::optional<const_tensor_ref> scales{};
  std::optional<float> tensor_scale{};
};

/// Found codes: the bytes as they lay, or one number an element.
struct found_codes {
  std::vector<std::uint8_t> bytes;
  std::vector<int> unpacked;  ///< empty: `bytes` holds them
};

/// One tensor with everything that a comparison needs.
struct sample {
  std::string name;
  geometry shape;         ///< dense, of x's type
  std::vector<float> x;
  partition groups;
  std::vector<float> amax;
  bool amax_given = false;
  float tensor_amax = 0;
  bool dynamic = false;
  std::optional<std::vector<float>> values;
  std::optional<found_codes> codes;
  std::optional<std::vector<float>> scales;
  std::optional<float> tensor_scale;
  /// What a decoder was given: then `values` is its result, and x only says where the codes came from.
  std::optional<std::vector<std::uint8_t>> given_codes;
  std::vector<float> given_scales;
  float given_tensor_scale = 1;
};

/// float32 values in a compute type, dense.
inline std::vector<std::byte> typed(std::span<float const> values, dtype type) {
  std::vector<std::byte> bytes(values.size() * size_of(type));
  visit_compute(type, [&](auto element) {
    using type_of = decltype(element);
    for (std::size_t i = 0; i < values.size(); ++i) {
      auto const v = from_float<type_of>(values[i]);
      std::memcpy(bytes.data() + i * sizeof v, &v, sizeof v);
    }
  });
  return bytes;
}

/// The group of every element, in row-major order.
inline std::vector<std::int32_t> group_numbers(geometry const& g, partition const& p) {
  std::vector<std::int32_t> numbers(static_cast<std::size_t>(g.size()));
  extents at{};
  for (auto& number : numbers) {
    std::int64_t group = 0;
    for (int a = 0; a < g.rank; ++a) group = group * p.groups[a] + at[a] / std::max<std::int64_t>(p.block[a], 1);
    number = static_cast<std::int32_t>(group);
    for (int a = g.rank - 1; a >= 0; --a) {
      if (++at[a] < g.shape[a]) break;
      at[a] = 0;
    }
  }
  return numbers;
}

/// The largest magnitudes of the groups: NaN is left out; so are infinities, or they count as the largest float32
/// where the blocks of a format take their scale from the data.
inline std::vector<float> amax_of(std::span<float const> x, std::span<std::int32_t const> groups, std::int64_t count,
                                  bool bounds_infinity) {
  std::vector<float> amax(static_cast<std::size_t>(count), 0.0f);
  for (std::size_t i = 0; i < x.size(); ++i) {
    float m = fp::abs(x[i]);
    if (fp::is_nan(m) || (!fp::is_finite(m) && !bounds_infinity)) continue;
    m = std::min(m, FLT_MAX);
    float& top = amax[static_cast<std::size_t>(groups[i])];
    top = std::max(top, m);
  }
  return amax;
}

inline bool bounds_infinity(format const& how, bool dynamic) {
  return is_mx(how.scaling) || (is_two_level(how.scaling) && dynamic);
}

namespace detail {

/// The smallest positive normal number of a compute type, below which a kernel may flush.
inline float least_normal(dtype t) { return t == dtype::f16 ? 0x1p-14f : 0x1p-126f; }

/// The elements in row-major order, as bytes on the host. Of memory that is not the host's, all between the first and
/// the last element is copied.
template <backend B>
std::vector<std::byte> gather(B& b, const_tensor_ref const& t) {
  auto const element = static_cast<std::ptrdiff_t>(size_of(t.type));
  std::vector<std::byte> dense(static_cast<std::size_t>(t.bytes()));
  if (dense.empty()) return dense;
  std::ptrdiff_t lowest = 0, highest = 0;  // where elements lie, from the first of the view; strides may be negative
  for (int a = 0; a < t.rank; ++a) {
    std::ptrdiff_t const last = (t.shape[a] - 1) * t.stride[a];
    (last < 0 ? lowest : highest) += last;
  }
  std::vector<std::byte> copy;
  auto const* first = static_cast<std::byte const*>(t.data);
  if (t.where != device::cpu) {
    copy.resize(static_cast<std::size_t>((highest - lowest + 1) * element));
    b.copy_to_host(copy.data(), first + lowest * element, copy.size());
    first = copy.data() - lowest * element;
  }
  extents at{};
  for (std::size_t to = 0; to < dense.size(); to += static_cast<std::size_t>(element)) {
    std::ptrdiff_t from = 0;
    for (int a = 0; a < t.rank; ++a) from += at[a] * t.stride[a];
    std::memcpy(dense.data() + to, first + from * element, static_cast<std::size_t>(element));
    for (int a = t.rank - 1; a >= 0; --a) {
      if (++at[a] < t.shape[a]) break;
      at[a] = 0;
    }
  }
  return dense;
}

template <class T>
T load_as(std::byte const* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

/// Elements of a compute type, or of a type of scales, as float32: exact.
inline std::vector<float> as_floats(std::span<std::byte const> bytes, dtype type) {
  std::vector<float> result(bytes.size() / size_of(type));
  formats::visit_scale(type, [&](auto element) {
    using type_of = decltype(element);
    for (std::size_t i = 0; i < result.size(); ++i)
      result[i] = formats::scale_value(load_as<type_of>(bytes.data() + i * sizeof(type_of)));
  });
  return result;
}

/// Elements of an integer type. Codes have 16 bits at most; a number that no such code is, signed or unsigned, is
/// refused with its place, since cutting it off could make it right.
inline std::vector<int> as_codes(std::span<std::byte const> bytes, dtype type, std::string const& where) {
  std::vector<int> result(bytes.size() / size_of(type));
  for (std::size_t i = 0; i < result.size(); ++i) {
    std::byte const* const at = bytes.data() + i * size_of(type);
    std::int64_t code = 0;
    switch (type) {
      case dtype::i8: code = load_as<std::int8_t>(at); break;
      case dtype::i16: code = load_as<std::int16_t>(at); break;
      case dtype::u16: code = load_as<std::uint16_t>(at); break;
      case dtype::i32: code = load_as<std::int32_t>(at); break;
      case dtype::u32: code = load_as<std::uint32_t>(at); break;
      case dtype::i64: case dtype::u64: code = load_as<std::int64_t>(at); break;
      default: code = load_as<std::uint8_t>(at);
    }
    if (code < -32768 || code > 65535)
      fail(error_id::format_value, where, ": codes[", i, "] is ", code, ", more than the 16 bits of any format");
    result[i] = static_cast<int>(code);
  }
  return result;
}

inline bool is_integer(dtype t) {
  return t == dtype::i8 || t == dtype::u8 || t == dtype::i16 || t == dtype::u16 || t == dtype::i32 ||
         t == dtype::u32 || t == dtype::i64 || t == dtype::u64;
}

/// Codes of one number an element come in x's shape and fewer than 8 bits, or in a type wider than a byte.
template <backend B>
found_codes read_codes(B& b, const_tensor_ref const& codes, sample const& s, format const& how,
                       std::string const& where) {
  bool const eight = codes.type == dtype::f8_e4m3 || codes.type == dtype::f8_e5m2;
  if (!is_integer(codes.type) && !eight)
    fail(error_id::tensor_dtype, where, ": codes are ", name_of(codes.type), ", not integers or 8-bit floats");
  auto const bytes = gather(b, codes);
  found_codes found;
  auto const* const first = reinterpret_cast<std::uint8_t const*>(bytes.data());
  found.bytes.assign(first, first + bytes.size());
  bool const same = codes.same_shape(s.shape);
  if (same && how.element.bits != 16 && (how.element.bits < 8 || size_of(codes.type) > 1)) {
    found.unpacked = as_codes(bytes, codes.type, where);
    found.bytes.clear();
  } else if (size_of(codes.type) > 1 && how.element.bits != 16) {
    fail(error_id::tensor_shape, where, ": codes of type ", name_of(codes.type), " have shape ", to_string(codes),
         ", not that of the input ", to_string(s.shape));
  }
  return found;
}

template <backend B>
std::vector<float> read_scales(B& b, const_tensor_ref const& scales, format const& how, std::string const& where) {
  auto const bytes = gather(b, scales);
  bool const raw = size_of(scales.type) == 1 && is_integer(scales.type) && size_of(how.scale_type) == 1;
  if (!raw && !formats::is_scale_type(scales.type))
    fail(error_id::tensor_dtype, where, ": scales are ", name_of(scales.type), ", which holds no scales of ",
         mixbit::name_of(how));
  return as_floats(bytes, raw ? how.scale_type : scales.type);
}

inline void check_shapes(results const& r, expectation const& e, std::string const& where) {
  require_compute(r.x.type, where + ": input");
  if (r.values && (!r.values->same_shape(r.x) || r.values->type != r.x.type))
    fail(error_id::tensor_shape, where, ": the output is ", name_of(r.values->type), ' ', to_string(*r.values),
         ", the input ", name_of(r.x.type), ' ', to_string(r.x), "; they must agree");
  if (!r.values && !r.codes && !r.scales && !r.tensor_scale)
    fail(error_id::usage, where, ": there is neither an output nor codes nor scales to compare");
  if (e.groups.rank != r.x.rank)
    fail(error_id::tensor_shape, where, ": groups of rank ", int{e.groups.rank}, " for an input of shape ",
         to_string(r.x));
  for (int a = 0; a < r.x.rank; ++a)
    if (e.groups.block[a] < 0 || e.groups.groups[a] < 1 || e.groups.block[a] * e.groups.groups[a] < r.x.shape[a])
      fail(error_id::tensor_shape, where, ": the groups along axis ", a, " do not cover the input of shape ",
           to_string(r.x));
  bool const measured = e.amax.empty();
  if (!measured && e.amax.size() != static_cast<std::size_t>(e.groups.group_count()))
    fail(error_id::tensor_shape, where, ": ", e.amax.size(), " values of amax for ", e.groups.group_count(), " groups");
}

inline void set_amax(sample& s, expectation const& e) {
  s.amax_given = !e.amax.empty();
  s.dynamic = e.dynamic;
  if (s.amax_given) s.amax.assign(e.amax.begin(), e.amax.end());
  else s.amax = amax_of(s.x, group_numbers(s.shape, e.groups), e.groups.group_count(),
                        bounds_infinity(e.how, e.dynamic));
  float top = 0;
  for (float x : s.x)
    if (fp::is_finite(x)) top = std::max(top, fp::abs(x));
  if (s.amax_given && !s.amax.empty()) top = *std::max_element(s.amax.begin(), s.amax.end());
  s.tensor_amax = e.tensor_amax.value_or(top);
}

}  // namespace detail

/// The elements of a tensor of a compute type, in row-major order.
template <backend B>
std::vector<float> read_floats(B& b, const_tensor_ref const& t) {
  return detail::as_floats(detail::gather(b, t), t.type);
}

/// Checks and copies what was found. Errors begin with `where`. Throws what check_format and check_amax throw, and
/// `tensor_shape` or `tensor_dtype` for results that cannot be compared.
template <backend B>
sample make_sample(B& b, results const& r, expectation const& e, std::string const& where) {
  check_format(e.how, where);
  detail::check_shapes(r, e, where);
  sample s;
  s.name = where;
  s.shape = dense_geometry(r.x.type, std::span{r.x.shape.data(), static_cast<std::size_t>(r.x.rank)});
  s.x = read_floats(b, r.x);
  s.groups = e.groups;
  detail::set_amax(s, e);
  check_amax(s.amax, e.how, s.shape.type, where);
  check_amax(std::span{&s.tensor_amax, 1}, e.how, s.shape.type, where);
  if (r.codes) check_encodable(e.how, where);
  if (r.values) s.values = read_floats(b, *r.values);
  if (r.codes) s.codes = detail::read_codes(b, *r.codes, s, e.how, where);
  if (r.scales) s.scales = detail::read_scales(b, *r.scales, e.how, where);
  s.tensor_scale = r.tensor_scale;
  return s;
}

}  // namespace mixbit::validate

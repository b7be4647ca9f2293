// What a kernel of a given convention would have made of a sample.
//
// Formats are computed by the backend, whole tensors at a time. Deviations are applied around it: to the amax of the
// groups (which groups, whose scale), to the input (NaN, subnormals), to single elements (rounding and arithmetic:
// validate/emulate.hpp) and to the results (signs of zeros, ragged blocks).
#pragma once

#include <deque>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "mixbit/validate/emulate.hpp"
#include "mixbit/validate/sample.hpp"

namespace mixbit::validate {

/// `values`, `codes` and `scales` are there where the sample has such results.
struct prediction {
  std::vector<float> values;
  std::vector<int> codes;
  std::vector<float> scales;  ///< in the type of the format's file
  float tensor_scale = 0;
};

/// Codes as a reading sees them; nothing where so many bytes cannot hold them.
inline std::optional<std::vector<int>> read_as(std::span<std::uint8_t const> bytes, code_reading const& r,
                                               format const& how, geometry const& g) {
  int const bits = how.element.bits;
  auto const m = formats::code_matrix_of(r.layout, g);
  if (formats::payload_bytes(r.layout, bits, m) != static_cast<std::int64_t>(bytes.size())) return std::nullopt;
  std::vector<std::uint8_t> swapped;
  if (r.swapped) {
    swapped.assign(bytes.begin(), bytes.end());
    for (auto& byte : swapped) byte = static_cast<std::uint8_t>(byte << 4 | byte >> 4);
    bytes = swapped;
  }
  bool const known_offset = formats::stores_offset(r.layout, how.element);
  int const half = 1 << (bits - 1), mask = 2 * half - 1;
  std::vector<int> codes(static_cast<std::size_t>(g.size()));
  for (std::int64_t i = 0; i < g.size(); ++i) {
    auto const place = formats::place_of(r.layout, bits, m, i / m.columns, i % m.columns);
    int code = formats::read_code(bytes.data(), r.layout, how.element, place);
    if (how.element.kind != element_kind::integer) code &= mask;
    else if (known_offset != r.offset) {  // the other of two's complement and an offset
      int const wrapped = (code + half) & mask;
      code = !how.element.is_unsigned && wrapped >= half ? wrapped - 2 * half : wrapped;
    }
    codes[static_cast<std::size_t>(i)] = code;
  }
  return codes;
}

/// The group whose scale group `g` is given.
inline std::size_t placed(scale_place place, std::size_t g, partition const& p) {
  auto const count = static_cast<std::size_t>(p.group_count());
  switch (place) {
    case scale_place::previous: return g == 0 ? 0 : g - 1;
    case scale_place::next: return g + 1 == count ? g : g + 1;
    case scale_place::first: return 0;
    case scale_place::transposed: {
      std::size_t last = p.rank > 0 ? static_cast<std::size_t>(p.groups[p.rank - 1]) : 1;
      for (int a = p.rank - 1; a >= 0 && last == count && a > 0; --a) last = static_cast<std::size_t>(p.groups[a]);
      std::size_t const rows = last == 0 ? 1 : count / last;
      return g % last * rows + g / last;
    }
    default: return g;
  }
}

/// Does element i of a tensor lie in a block that the tensor's end cuts short?
inline std::vector<bool> ragged_elements(geometry const& g, partition const& p) {
  std::vector<bool> ragged(static_cast<std::size_t>(g.size()), false);
  extents at{};
  for (std::size_t i = 0; i < ragged.size(); ++i) {
    for (int a = 0; a < g.rank; ++a)
      if (p.block[a] > 0 && (at[a] / p.block[a] + 1) * p.block[a] > g.shape[a]) ragged[i] = true;
    for (int a = g.rank - 1; a >= 0; --a) {
      if (++at[a] < g.shape[a]) break;
      at[a] = 0;
    }
  }
  return ragged;
}

namespace detail {

inline float flushed(float v, dtype t) {
  return fp::abs(v) < least_normal(t) ? fp::copy_sign(0.0f, v) : v;
}

/// x as a deviating kernel sees it.
inline std::vector<float> seen_input(sample const& s, convention const& c) {
  std::vector<float> x = s.x;
  float const top = s.shape.type == dtype::f16 ? 65504.0f : to_float(bfloat16{0x7f7f});
  for (float& v : x) {
    if (c.subnormals == flush::inputs) v = flushed(v, s.shape.type);
    if (!fp::is_nan(v)) continue;
    if (c.nan == nan_use::zero) v = 0.0f;
    if (c.nan == nan_use::highest) v = top;
    if (c.nan == nan_use::lowest) v = c.how.element.is_unsigned ? 0.0f : -top;
  }
  return x;
}

/// float32 to the sample's type, in the backend's memory.
template <backend B>
buffer<B, std::byte> upload(B& b, std::span<float const> values, dtype type) {
  auto const bytes = typed(values, type);
  buffer<B, std::byte> memory{b, std::max<std::size_t>(bytes.size(), 1)};
  b.copy_from_host(memory.data(), bytes.data(), bytes.size());
  return memory;
}

template <backend B>
std::vector<std::byte> download(B& b, void const* from, std::size_t bytes) {
  std::vector<std::byte> result(bytes);
  b.synchronize();
  b.copy_to_host(result.data(), from, bytes);
  return result;
}

}  // namespace detail

/// Predicts for one sample. Keeps the backend, which must outlive it.
template <backend B>
class predictor {
 public:
  predictor(B& b, sample const& s) : backend_{b}, sample_{s} {}

  /// Nothing where the sample cannot show the convention.
  std::optional<prediction> operator()(convention const& c) const {
    partition const groups = groups_of(c.groups, sample_.shape, sample_.groups);
    if (sample_.given_codes) return decoded(c);
    std::vector<float> amax = amax_under(c, groups);
    bool const from_data = sample_.dynamic && is_two_level(c.how.scaling) && fake_only(c.how) && untouched(c);
    if (sample_.dynamic && is_two_level(c.how.scaling) && fake_only(c.how) && !from_data) return std::nullopt;
    prediction p = computed(c, groups, amax, from_data);
    if (c.rounding != rounding_mode::of_format || c.scaling != arithmetic::of_format) {
      if (!can_emulate(c.how)) return std::nullopt;
      emulate(p, c, groups, amax, from_data);
    }
    finish(p, c, groups);
    return p;
  }

  /// amax of the groups of a convention, each the one whose scale it is given.
  std::vector<float> amax_under(convention const& c, partition const& groups) const {
    bool const claimed = c.groups.what == regrouping::kind::none;
    std::vector<float> const& own = claimed ? sample_.amax : regrouped(c, groups);
    std::vector<float> amax(own.size());
    for (std::size_t g = 0; g < own.size(); ++g) amax[g] = own[placed(c.place, g, groups)];
    return amax;
  }

 private:
  /// amax of other groups than the claim's; kept, since a search asks for it again and again.
  std::vector<float> const& regrouped(convention const& c, partition const& groups) const {
    bool const bounded = bounds_infinity(c.how, sample_.dynamic);
    for (auto const& known : regrouped_)
      if (known.groups == groups && known.bounded == bounded) return known.amax;
    regrouped_.push_back({groups, bounded,
                          amax_of(sample_.x, numbers_of(groups), groups.group_count(), bounded)});
    return regrouped_.back().amax;
  }

  /// Of the groups that were asked for last.
  std::vector<std::int32_t> const& numbers_of(partition const& groups) const {
    if (numbered_ != groups) {
      numbers_ = group_numbers(sample_.shape, groups);
      numbered_ = groups;
    }
    return numbers_;
  }

  static bool fake_only(format const& how) {
    return how.numerics == policy::modelopt || how.numerics == policy::modelopt_triton;
  }
  static bool untouched(convention const& c) {
    return c.place == scale_place::own && c.subnormals != flush::inputs &&
           (c.nan == nan_use::of_format || c.nan == nan_use::kept);
  }
  float tensor_amax(convention const& c) const {
    return c.no_tensor_scale ? formats::nvfp4_range(c.how.scaling) : sample_.tensor_amax;
  }

  prediction computed(convention const& c, partition const& groups, std::span<float const> amax,
                      bool from_data) const {
    prediction p;
    geometry g = sample_.shape;
    g.where = B::place;
    auto const x = detail::upload(backend_, detail::seen_input(sample_, c), g.type);
    auto const scale_amax = buffer_of(backend_, amax);
    float const whole_amax = tensor_amax(c);
    auto const whole = buffer_of(backend_, whole_amax);
    amax_use const use = from_data ? amax_use::data : amax_use::given;
    if (sample_.values) {
      auto y = detail::upload(backend_, std::vector<float>(sample_.x.size()), g.type);
      buffer<B, data_flags> flags{backend_, 1};
      backend_.fake_quantize({{g, x.data()}, {{g}, y.data()}, groups, scale_amax.data(), c.how, flags.data(),
                              whole.data(), use});
      auto const bytes = detail::download(backend_, y.data(), static_cast<std::size_t>(g.bytes()));
      p.values = detail::as_floats(bytes, g.type);
      check_flags(backend_, flags.data(), {g, x.data()}, c.how, sample_.name);
    }
    if (sample_.codes || sample_.scales || sample_.tensor_scale)
      encode(p, c, groups, {g, x.data()}, scale_amax.data(), whole.data(), use);
    return p;
  }

  void encode(prediction& p, convention const& c, partition const& groups, const_tensor_ref const& x,
              float const* amax, float const* whole, amax_use use) const {
    format how = c.how;
    how.layout = packing::bytes;  // a code a byte, or two
    auto const size = storage_size_of(how, x, groups);
    auto const payload = static_cast<std::size_t>(size.payload), scale_bytes = static_cast<std::size_t>(size.scales);
    buffer<B, std::uint8_t> codes{backend_, std::max<std::size_t>(payload, 1)}, scales{backend_, scale_bytes};
    buffer<B, float> tensor_scale{backend_, 1};
    buffer<B, data_flags> flags{backend_, 1};
    backend_.encode({x, groups, amax, how, codes.data(), scales.data(), flags.data(), whole, tensor_scale.data(),
                     is_two_level(how.scaling) || is_mx(how.scaling) ? use : amax_use::given});
    check_flags(backend_, flags.data(), x, c.how, sample_.name);
    if (sample_.codes) {
      auto const bytes = detail::download(backend_, codes.data(), payload);
      auto const* const first = reinterpret_cast<std::uint8_t const*>(bytes.data());
      p.codes = read_as({first, bytes.size()}, {packing::bytes, false, false}, how, x).value();
    }
    p.scales = detail::as_floats(detail::download(backend_, scales.data(), scale_bytes), how.scale_type);
    p.tensor_scale = detail::load_as<float>(detail::download(backend_, tensor_scale.data(), sizeof(float)).data());
  }

  void emulate(prediction& p, convention const& c, partition const& groups, std::span<float const> amax,
               bool from_data) const {
    emulation const rule{c, {sample_.shape.type, tensor_amax(c), from_data}};
    auto const& numbers = numbers_of(groups);
    std::vector<std::optional<scaling_steps>> steps(amax.size());
    for (std::size_t g = 0; g < amax.size(); ++g) steps[g] = rule.steps(amax[g]);
    std::vector<float> const x = detail::seen_input(sample_, c);
    for (std::size_t i = 0; i < x.size(); ++i) {
      auto const& s = steps[static_cast<std::size_t>(numbers[i])];
      if (!s || fp::is_nan(x[i]) || x[i] == 0.0f) continue;  // no arithmetic is met
      float const q = rule.quantize(*s, x[i]);
      if (!p.codes.empty()) p.codes[i] = rule.code(q);
      if (!p.values.empty()) p.values[i] = formats::through(sample_.shape.type, rule.restore(*s, q));
    }
  }

  /// A decoder's results, from the codes that it was given.
  std::optional<prediction> decoded(convention const& c) const {
    auto const codes = read_as(*sample_.given_codes, c.reading, c.how, sample_.shape);
    if (!codes) return std::nullopt;
    auto const& numbers = numbers_of(sample_.groups);
    prediction p;
    p.values.resize(codes->size());
    float const whole = c.no_tensor_scale ? 1.0f : sample_.given_tensor_scale;
    formats::visit_rule(c.how, {sample_.shape.type}, [&](auto const& rule) {
      for (std::size_t i = 0; i < codes->size(); ++i) {
        auto const from = placed(c.place, static_cast<std::size_t>(numbers[i]), sample_.groups);
        float scale = sample_.given_scales[from];
        if (c.content == scale_content::reciprocal) scale = fp::div(1.0f, scale);
        float const y = rule.decode(rule.effective(scale, whole), (*codes)[i]);
        p.values[i] = formats::through(sample_.shape.type, y);
      }
    });
    finish(p, c, sample_.groups);
    return p;
  }

  void finish(prediction& p, convention const& c, partition const& groups) const {
    bool const minifloat = c.how.element.kind == element_kind::minifloat;
    int const minus_zero = 1 << (c.how.element.bits - 1);
    for (std::size_t i = 0; i < p.values.size(); ++i) {
      float& y = p.values[i];
      if (c.subnormals == flush::results) y = detail::flushed(y, sample_.shape.type);
      if (c.nan == nan_use::kept && fp::is_nan(sample_.x[i])) y = sample_.x[i];
      if (y == 0.0f && c.zeros != zero_sign::of_format)
        y = c.zeros == zero_sign::positive ? 0.0f : fp::copy_sign(0.0f, sample_.x[i]);
    }
    for (std::size_t i = 0; minifloat && i < p.codes.size() && c.zeros != zero_sign::of_format; ++i)
      if (p.codes[i] == 0 || p.codes[i] == minus_zero)
        p.codes[i] = c.zeros == zero_sign::of_input && fp::bits(sample_.x[i]) >> 31 ? minus_zero : 0;
    if (c.tail == tail_use::of_format) return;
    auto const ragged = ragged_elements(sample_.shape, groups);
    for (std::size_t i = 0; i < ragged.size(); ++i) {
      if (!ragged[i]) continue;
      if (!p.values.empty()) p.values[i] = c.tail == tail_use::copied ? sample_.x[i] : 0.0f;
      if (!p.codes.empty() && c.tail == tail_use::zeroed) p.codes[i] = 0;
    }
  }

  struct known_amax {
    partition groups;
    bool bounded;
    std::vector<float> amax;
  };

  B& backend_;
  sample const& sample_;
  mutable std::optional<partition> numbered_;
  mutable std::vector<std::int32_t> numbers_;
  mutable std::deque<known_amax> regrouped_;  // of which addresses are given out
};

}  // namespace mixbit::validate

// Inputs on which kernels that are almost right differ from those that are: random data alone finds little.
//
// Per group one theme: ties at scale * (middle of two values) and one step of the type to each side, values on the
// grid, a single outlier, nothing but zeros, zeros of both signs, subnormal numbers, NaN and infinities, ordinary ones.
// The same for every run and every standard library: numbers come from integers.
#pragma once

#include <algorithm>
#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "mixbit/formats/check.hpp"
#include "mixbit/validate/sample.hpp"

namespace mixbit::validate {

enum class theme : std::uint8_t { ties, ordinary, outlier, grid, signed_zeros, subnormals, zeros, nonfinite };
inline constexpr int theme_count = 8;

constexpr std::string_view name_of(theme t) {
  constexpr std::string_view names[] = {"ties",         "ordinary",   "outlier", "grid",
                                        "signed_zeros", "subnormals", "zeros",   "nonfinite"};
  return names[static_cast<int>(t)];
}

/// One input: float32 values that the type holds exactly.
struct test_vector {
  std::string name;
  geometry shape;
  std::vector<float> x;
};

namespace detail {

/// Magnitudes that a format's codes decode to before scaling, in order.
inline std::vector<double> magnitudes_of(format const& how) {
  std::vector<double> all;
  if (how.element.kind == element_kind::lookup) {
    for (int code = formats::nf4_zero; code < 16; ++code) all.push_back(formats::nf4_value(code));
    return all;
  }
  if (how.element.kind == element_kind::integer) {
    int const bound = static_cast<int>(std::min(formats::integer_bound(how.element), 255.0f));
    double const step = static_cast<double>(formats::integer_bound(how.element)) / bound;
    for (int k = 0; k <= bound; ++k) all.push_back(bound < 255 ? k : static_cast<double>(static_cast<int>(k * step)));
    return all;
  }
  formats::minifloat_codec const codec{how.element};
  for (int code = 0; codec.value(code) < codec.largest(); ++code) all.push_back(codec.value(code));
  all.push_back(codec.largest());
  return all;
}

/// v rounded to the type, and `steps` of it further.
inline float stepped(double v, int steps, dtype type) {
  return visit_compute(type, [&](auto element) {
    using type_of = decltype(element);
    auto rounded = from_float<type_of>(static_cast<float>(v));
    if constexpr (std::is_same_v<type_of, float>) {
      return v == 0 ? 0.0f : fp::from_bits(fp::bits(rounded) + static_cast<std::uint32_t>(steps));
    } else {
      rounded.bits = static_cast<std::uint16_t>(v == 0 ? 0 : rounded.bits + steps);
      return to_float(rounded);
    }
  });
}

class vector_maker {
 public:
  vector_maker(format const& how, dtype type, float tensor_amax, unsigned seed)
      : how_{how}, type_{type}, tensor_amax_{tensor_amax}, magnitudes_{magnitudes_of(how)}, random_{seed},
        next_{seed * 41u}, round_{seed} {}

  /// Values of one group of n elements.
  std::vector<float> group(theme t, std::size_t n) {
    static constexpr float amaxes[] = {1.0f, 0.7f, 3.25f, 0.0123f, 113.0f, 0x1p-9f, 6.0f};
    float const amax = through(amaxes[round_++ % 7] * (1.0f + 0.25f * uniform()));  // with a full significand
    std::vector<float> x(n);
    for (std::size_t i = 0; i < n; ++i) x[i] = element(t, i, amax);
    if (n > 0 && (t == theme::ties || t == theme::grid)) x[random_() % n] = amax;
    if (n > 0 && t == theme::outlier) x[random_() % n] = through(std::min(amax * 900.0f, 60000.0f));
    if (n > 0 && !has_scale(x)) x[0] = amax;
    for (float& v : x)
      if (how_.element.is_unsigned) v = fp::abs(v);
    return x;
  }

 private:
  float through(float v) const { return formats::through(type_, v); }

  float uniform() { return static_cast<float>(random_() >> 8) * 0x1p-23f - 1.0f; }

  /// Does the format have a scale for these values? A reciprocal of subnormal numbers may overflow its type.
  bool has_scale(std::span<float const> x) const {
    float top = 0;
    for (float v : x)
      if (fp::is_finite(v)) top = std::max(top, fp::abs(v));
    if (top == 0.0f || how_.scaling != scale_rule::ratio) return true;
    return formats::visit_rule(how_, {type_}, [&](auto const& rule) {
      return fp::is_finite(formats::through(how_.scale_type, rule.file_scale(top)));
    });
  }

  /// The step of the grid by which ties are laid: the scale of the group as a file of this format holds it.
  double scale_of(float amax) const {
    return formats::visit_rule(how_, {type_, tensor_amax_, false}, [&](auto const& rule) {
      float const s = rule.effective(rule.file_scale(amax), formats::nvfp4_tensor_scale(how_.scaling, tensor_amax_));
      bool const inverse = how_.numerics == policy::modelopt_pack && formats::packs_inverse_scale(how_.element) &&
                           how_.scaling == scale_rule::ratio;
      return inverse ? 1.0 / static_cast<double>(s) : static_cast<double>(s);
    });
  }

  float element(theme t, std::size_t i, float amax) {
    bool const negative = random_() % 2 != 0;
    auto const sign = [&](float v) { return fp::copy_sign(v, negative ? -1.0f : 1.0f); };
    switch (t) {
      case theme::ties: {
        std::size_t const k = next_ / 3 % std::max<std::size_t>(magnitudes_.size() - 1, 1);
        double const middle = (magnitudes_[k] + magnitudes_[std::min(k + 1, magnitudes_.size() - 1)]) / 2;
        return sign(stepped(middle * scale_of(amax), static_cast<int>(next_++ % 3) - 1, type_));
      }
      case theme::grid: return sign(stepped(magnitudes_[next_++ % magnitudes_.size()] * scale_of(amax), 0, type_));
      case theme::signed_zeros: return i % 3 == 0 ? through(uniform()) : sign(0.0f);
      case theme::zeros: return 0.0f;
      case theme::subnormals: return sign(through(uniform() * least_normal(type_)));
      case theme::nonfinite:
        return i % 5 == 1 ? fp::from_bits(0x7fc00000u) : i % 7 == 2 ? sign(fp::from_bits(0x7f800000u))
                                                                     : through(uniform());
      default: return through(uniform() * amax);
    }
  }

  format how_;
  dtype type_;
  float tensor_amax_;  // of two-level scales
  std::vector<double> magnitudes_;
  std::mt19937 random_;
  std::size_t next_, round_;
};

/// The elements of every group.
inline std::vector<std::vector<std::size_t>> members_of(geometry const& shape, partition const& groups) {
  auto const numbers = group_numbers(shape, groups);
  std::vector<std::vector<std::size_t>> members(static_cast<std::size_t>(groups.group_count()));
  for (std::size_t i = 0; i < numbers.size(); ++i) members[static_cast<std::size_t>(numbers[i])].push_back(i);
  return members;
}

inline std::vector<float> themed(format const& how, geometry const& shape, float tensor_amax, int first,
                                 std::vector<std::vector<std::size_t>> const& members) {
  vector_maker make{how, shape.type, tensor_amax, static_cast<unsigned>(first)};
  std::vector<float> x(static_cast<std::size_t>(shape.size()));
  for (std::size_t g = 0; g < members.size(); ++g) {
    auto const t = static_cast<theme>((g + static_cast<std::size_t>(first)) % theme_count);
    auto const values = make.group(t, members[g].size());
    for (std::size_t k = 0; k < values.size(); ++k) x[members[g][k]] = values[k];
  }
  return x;
}

}  // namespace detail

/// Inputs of one shape under a grouping: as many as there are themes, so that every group meets every one.
inline std::vector<test_vector> make_vectors(format const& how, geometry const& shape, partition const& groups) {
  auto const members = detail::members_of(shape, groups);
  std::vector<test_vector> all;
  for (int first = 0; first < theme_count; ++first) {
    auto x = detail::themed(how, shape, 1.0f, first, members);
    if (is_two_level(how.scaling)) {  // once more, with ties by the scale that the tensor turned out to have
      float top = 0;
      for (float v : x)
        if (fp::is_finite(v)) top = std::max(top, fp::abs(v));
      x = detail::themed(how, shape, top, first, members);
    }
    all.push_back({std::string{name_of(static_cast<theme>(first))}, shape, std::move(x)});
  }
  return all;
}

/// Shapes that show a kernel's edges under a block of `block` elements (0: none): whole, ragged and short rows.
inline std::vector<std::vector<std::int64_t>> awkward_shapes(std::int64_t block) {
  std::int64_t const b = block > 1 ? block : 32;
  return {{8, 9 * b}, {5, 3 * b + b / 2 + 1}, {3, std::max<std::int64_t>(b - 1, 1)}, {1, 1}};
}

}  // namespace mixbit::validate

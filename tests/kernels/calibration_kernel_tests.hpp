// The tests of the kernels around the cast: scores, scales of channels, statistics of calibrators, rotation.
#pragma once

#include "kernels/kernel_test.hpp"
#include "mixbit/reference/scalar.hpp"

namespace kernel_tests {

template <>
struct kernel_test<kernel_subtract> {
  template <class B, class T>
  static void run(std::vector<std::int64_t> const& shape, layout l, unsigned seed) {
    tensor<T> a{make_geometry<T>(shape, l)}, b{make_geometry<T>(shape, layout::row_major)};
    fill(a, seed);
    fill(b, seed + 1);
    std::vector<std::uint32_t> expected;
    for (std::int64_t i = 0; i < a.g.size(); ++i)
      expected.push_back(bits_of(from_float<T>(to_float(a[i]) - to_float(b[i]))));
    auto const found = same_everywhere<B>([&](B cpu) {
      tensor<T> y{a.g};
      cpu.subtract({a.view(), b.view(), y.ref()});
      return all_bits(y);
    });
    CHECK(found == expected);
  }
};

template <>
struct kernel_test<kernel_gradient_score> {
  template <class B, class T>
  static void run(std::vector<std::int64_t> const& shape, layout l, unsigned seed) {
    tensor<T> grad{make_geometry<T>(shape, l)}, difference{make_geometry<T>(shape, layout::row_major)};
    fill(grad, seed);
    fill(difference, seed + 1);
    if (grad.g.size() > 4) {
      grad[1] = from_float<T>(60000.0f);  // beyond the clamp together, in types that hold so much
      difference[1] = from_float<T>(std::is_same_v<T, half> ? 3.0f : 1e9f);
    }
    long double expected = 0;
    for (std::int64_t i = 0; i < grad.g.size(); ++i) {
      float const product = to_float(grad[i]) * to_float(difference[i]);
      long double const v = std::min(std::max(product, -1e10f), 1e10f);
      expected += v * v;
    }
    double const found = same_everywhere<B>([&](B cpu) {
      double sum = 0.25;
      cpu.gradient_score({grad.view(), difference.view(), &sum});
      return sum;
    });
    CHECK(std::fabs(found - 0.25 - static_cast<double>(expected)) <= 1e-12 * static_cast<double>(expected) + 1e-15);
    double in_order = 0.25;
    reference::scalar{}.gradient_score({grad.view(), difference.view(), &in_order});
    CHECK(found == in_order);  // all backends add in one order
  }
};

template <>
struct kernel_test<kernel_scale_channels> {
  template <class B, class T>
  static void run(std::vector<std::int64_t> const& shape, layout l, unsigned seed) {
    tensor<T> x{make_geometry<T>(shape, l)};
    fill(x, seed);
    for (int axis = 0; axis < x.g.rank; ++axis) {
      std::int64_t const n = x.g.shape[axis], period = n % 2 == 0 && n > 0 ? n / 2 : std::max<std::int64_t>(n, 1);
      std::vector<float> scale;
      for (std::int64_t i = 0; i < period; ++i) scale.push_back(0.5f + 0.37f * static_cast<float>(i));
      partition const channel = per_axes(x.g, std::span{&axis, 1});
      std::vector<std::uint32_t> expected;
      for (std::int64_t i = 0; i < x.g.size(); ++i) {
        auto const index = static_cast<std::size_t>(group_of(channel, x.g, i) % period);
        expected.push_back(bits_of(from_float<T>(to_float(x[i]) * scale[index])));
      }
      auto const found = same_everywhere<B>([&](B cpu) {
        tensor<T> y = x;
        cpu.scale_channels({y.view(), y.ref(), axis, period, scale.data()});
        return all_bits(y);
      });
      CHECK(found == expected);
    }
  }
};

/// Strews NaN and infinities into a tensor; returns how many.
template <class T>
std::uint64_t strew_nonfinite(tensor<T>& x) {
  std::uint64_t strange = 0;
  for (std::int64_t i = 0; i < x.g.size(); ++i) {
    if (i % 11 != 5) continue;
    float const huge = std::numeric_limits<float>::infinity();
    x[i] = from_float<T>(i % 3 == 0 ? std::numeric_limits<float>::quiet_NaN() : i % 3 == 1 ? huge : -huge);
    ++strange;
  }
  return strange;
}

template <>
struct kernel_test<kernel_histogram> {
  /// The definition, in words of its own.
  static std::size_t bin_of(float x, std::int64_t bins, float top) {
    if (top == 0.0f) return 0;
    float const product = fp::abs(x) * static_cast<float>(bins), place = product / top;
    return place >= static_cast<float>(bins) ? static_cast<std::size_t>(bins - 1) : static_cast<std::size_t>(place);
  }

  template <class B, class T>
  static void on(tensor<T>& x, named_partition const& part, std::int64_t bins, std::uint64_t strange) {
    auto top = amax_of(x, part.groups);
    for (std::size_t g = 0; g < top.size(); ++g) top[g] = g % 5 == 3 ? 0.0f : g % 2 ? top[g] * 0.75f : top[g];
    std::vector<std::uint64_t> expected(top.size() * static_cast<std::size_t>(bins), 2);
    for (std::int64_t i = 0; i < x.g.size(); ++i) {
      auto const g = static_cast<std::size_t>(group_of(part.groups, x.g, i));
      if (!fp::is_finite(to_float(x[i]))) continue;
      ++expected[g * static_cast<std::size_t>(bins) + bin_of(to_float(x[i]), bins, top[g])];
    }
    auto const found = same_everywhere<B>([&, &g = part.groups](B cpu) {
      std::vector<std::uint64_t> counts(expected.size(), 2);
      data_flags flags;
      cpu.histogram({x.view(), g, top.data(), bins, counts.data(), &flags});
      CHECK(flags.nonfinite == strange);
      return counts;
    });
    if (found != expected) FAIL_CHECK(to_string(x.g), " ", part.name, " ", bins, " bins");
  }

  template <class B, class T>
  static void run(std::vector<std::int64_t> const& shape, layout l, unsigned seed) {
    tensor<T> x{make_geometry<T>(shape, l)};
    fill(x, seed);
    std::uint64_t const strange = strew_nonfinite(x);
    for (auto const& part : partitions_of(x.g))
      for (std::int64_t const bins : {1, 3, 2048, 5000})
        if (part.groups.group_count() <= 100 || bins <= 3) on<B>(x, part, bins, strange);
    if (shape != std::vector<std::int64_t>{33001} || l != layout::row_major) return;
    tensor<T> several_pieces{make_geometry<T>({3, 100001}, l)};  // of scalar::histogram_piece elements
    fill(several_pieces, seed);
    std::uint64_t const strange_there = strew_nonfinite(several_pieces);
    int const first[] = {0};
    on<B>(several_pieces, {"tensor", per_tensor(several_pieces.g)}, 2048, strange_there);
    on<B>(several_pieces, {"axis 0", per_axes(several_pieces.g, first)}, 2048, strange_there);
  }
};

template <>
struct kernel_test<kernel_sum> {
  /// Chunks of lanes over values in memory order, as formats/summation.hpp says, with the numbers written out.
  static double in_order(std::vector<double> const& values) {
    std::size_t const n = values.size(), chunk = std::max<std::size_t>(1024, ((n + 511) / 512 + 31) / 32 * 32);
    double total = 0;
    for (std::size_t first = 0; first < n; first += chunk) {
      double lanes[32] = {}, part = 0;
      for (std::size_t i = first; i < std::min(n, first + chunk); ++i) lanes[i % 32] += values[i];
      for (double const lane : lanes) part += lane;
      total += part;
    }
    return total;
  }

  /// What each group's sum becomes, 0.25 being there already.
  template <class T>
  static std::vector<double> expected_of(tensor<T>& x, partition const& groups, sum_of what) {
    // these layouts overlap nowhere, and their strides are nested: memory order is the order of addresses
    std::vector<std::vector<std::pair<T const*, double>>> elements(static_cast<std::size_t>(groups.group_count()));
    for (std::int64_t i = 0; i < x.g.size(); ++i) {
      double const v = to_float(x[i]);
      double const term = what == sum_of::values ? v : what == sum_of::magnitudes ? std::fabs(v) : v * v;
      elements[static_cast<std::size_t>(group_of(groups, x.g, i))].push_back({&x[i], std::isfinite(v) ? term : 0.0});
    }
    std::vector<double> expected;
    for (auto& group : elements) {
      std::sort(group.begin(), group.end());
      std::vector<double> values;
      for (auto const& e : group) values.push_back(e.second);
      expected.push_back(0.25 + in_order(values));
    }
    return expected;
  }

  template <class B, class T>
  static void on(tensor<T>& x, named_partition const& part, sum_of what, std::uint64_t strange) {
    auto const expected = expected_of(x, part.groups, what);
    auto const found = same_everywhere<B>([&, &g = part.groups](B cpu) {
      std::vector<double> sum(expected.size(), 0.25);
      data_flags flags;
      cpu.sum({x.view(), g, what, sum.data(), &flags});
      CHECK(flags.nonfinite == strange);
      return sum;
    });
    if (found != expected) FAIL_CHECK(to_string(x.g), " ", part.name, " ", static_cast<int>(what));
  }

  /// Groups whose chunks are longer than the shortest: 524289 elements have 497 chunks, 524288 have 512.
  template <class B, class T>
  static void long_groups(std::vector<std::int64_t> const& shape, unsigned seed) {
    tensor<T> x{make_geometry<T>(shape, layout::row_major)};
    fill(x, seed);
    std::uint64_t const strange = strew_nonfinite(x);
    std::vector<axis_block> const along_first{{0, 524289}, {-1, 1}};
    on<B>(x, {"blocks of 524289", blocks_of(x.g, {along_first.data(), shape.size()})}, sum_of::values, strange);
  }

  template <class B, class T>
  static void run(std::vector<std::int64_t> const& shape, layout l, unsigned seed) {
    tensor<T> x{make_geometry<T>(shape, l)};
    fill(x, seed);
    std::uint64_t const strange = strew_nonfinite(x);
    for (auto const& part : partitions_of(x.g))
      for (sum_of const what : {sum_of::values, sum_of::magnitudes, sum_of::squares}) on<B>(x, part, what, strange);
    if (std::is_same_v<T, bfloat16> && shape == std::vector<std::int64_t>{33001} && l == layout::row_major) {
      long_groups<B, T>({1048577}, seed);
      long_groups<B, T>({525289, 2}, seed);
    }
  }
};

template <>
struct kernel_test<kernel_extremes> {
  template <class B, class T>
  static void run(std::vector<std::int64_t> const& shape, layout l, unsigned seed) {
    tensor<T> x{make_geometry<T>(shape, l)};
    fill(x, seed);
    std::uint64_t const strange = strew_nonfinite(x);
    float const infinity = std::numeric_limits<float>::infinity();
    for (auto const& part : partitions_of(x.g)) {
      auto const count = static_cast<std::size_t>(part.groups.group_count());
      auto const started = [&](float v) {
        std::vector<float> all(count, v);
        if (!all.empty()) all[0] = v > 0 ? -0.5f : 0.5f;  // what is there already counts
        return all;
      };
      std::vector<float> low = started(infinity), high = started(-infinity);
      auto const below = [](float a, float b) { return a < b || (a == b && std::signbit(a) && !std::signbit(b)); };
      for (std::int64_t i = 0; i < x.g.size(); ++i) {
        auto const g = static_cast<std::size_t>(group_of(part.groups, x.g, i));
        float const v = to_float(x[i]);
        if (!fp::is_finite(v)) continue;
        if (below(v, low[g])) low[g] = v;
        if (below(high[g], v)) high[g] = v;
      }
      auto const bits = [](std::vector<float> const& a, std::vector<float> const& b) {
        std::vector<std::uint32_t> all;
        for (float const v : a) all.push_back(fp::bits(v));
        for (float const v : b) all.push_back(fp::bits(v));
        return all;
      };
      auto const found = same_everywhere<B>([&, &g = part.groups](B cpu) {
        std::vector<float> our_low = started(infinity), our_high = started(-infinity);
        data_flags flags;
        cpu.extremes({x.view(), g, our_low.data(), our_high.data(), &flags});
        CHECK(flags.nonfinite == strange);
        return bits(our_low, our_high);
      });
      if (found != bits(low, high)) FAIL_CHECK(to_string(x.g), " ", part.name);
    }
  }
};

template <>
struct kernel_test<kernel_shift> {
  template <class B, class T>
  static void run(std::vector<std::int64_t> const& shape, layout l, unsigned seed) {
    tensor<T> x{make_geometry<T>(shape, l)};
    fill(x, seed);
    for (auto const& part : partitions_of(x.g)) {
      std::vector<float> value;
      for (std::int64_t g = 0; g < part.groups.group_count(); ++g)
        value.push_back(to_float(from_float<T>(g % 7 == 6 ? 0.0f : 0.3f * static_cast<float>(g % 5) - 0.7f)));
      for (bool const subtract : {false, true}) {
        std::vector<std::uint32_t> expected;
        for (std::int64_t i = 0; i < x.g.size(); ++i) {
          float const v = value[static_cast<std::size_t>(group_of(part.groups, x.g, i))], e = to_float(x[i]);
          expected.push_back(bits_of(from_float<T>(subtract ? e - v : e + v)));
        }
        auto const found = same_everywhere<B>([&, &g = part.groups](B cpu) {
          tensor<T> y{make_geometry<T>(shape, layout::row_major)}, in_place = x;
          cpu.shift({x.view(), y.ref(), g, value.data(), subtract});
          cpu.shift({in_place.view(), in_place.ref(), g, value.data(), subtract});
          CHECK(margins_untouched(y));
          CHECK(all_bits(in_place) == all_bits(y));
          return all_bits(y);
        });
        if (found != expected) FAIL_CHECK(to_string(x.g), " ", part.name, subtract ? " subtract" : " add");
      }
    }
  }
};

template <>
struct kernel_test<kernel_hadamard> {
  /// The recursive definition: H_2n = [H H; H -H], so the last stage adds and subtracts the halves.
  static std::vector<float> transformed(std::vector<float> const& x) {
    if (x.size() == 1) return x;
    auto const middle = x.begin() + static_cast<std::ptrdiff_t>(x.size() / 2);
    auto const a = transformed({x.begin(), middle}), b = transformed({middle, x.end()});
    std::vector<float> y;
    for (std::size_t i = 0; i < a.size(); ++i) y.push_back(a[i] + b[i]);
    for (std::size_t i = 0; i < a.size(); ++i) y.push_back(a[i] - b[i]);
    return y;
  }

  template <class T>
  static std::vector<std::uint32_t> expected_of(tensor<T>& x, std::int64_t block) {
    std::vector<std::uint32_t> bits;
    auto const scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(block)));
    for (std::int64_t first = 0; first < x.g.size(); first += block) {
      std::vector<float> values;
      for (std::int64_t i = 0; i < block; ++i) values.push_back(to_float(x[first + i]));
      for (float const v : transformed(values)) bits.push_back(bits_of(from_float<T>(v * scale)));
    }
    return bits;
  }

  template <class B, class T>
  static void on(tensor<T>& x, std::int64_t block) {
    auto const expected = expected_of(x, block);
    auto const found = same_everywhere<B>([&](B cpu) {
      geometry dense = x.g;
      for (std::int64_t a = x.g.rank - 1, step = 1; a >= 0; step *= x.g.shape[a--]) dense.stride[a] = step;
      tensor<T> y{dense}, in_place = x;
      cpu.hadamard({x.view(), y.ref(), block});
      cpu.hadamard({in_place.view(), in_place.ref(), block});
      CHECK(margins_untouched(y));
      CHECK(margins_untouched(in_place));
      CHECK(all_bits(in_place) == all_bits(y));
      return all_bits(y);
    });
    if (found != expected) FAIL_CHECK(to_string(x.g), " block ", block);
  }

  template <class B, class T>
  static void run(std::vector<std::int64_t> const& shape, layout l, unsigned seed) {
    if (shape.empty()) return;
    for (std::int64_t const wider : {1, 8, 48}) {
      std::vector<std::int64_t> wide = shape;
      wide.back() *= wider;
      tensor<T> x{make_geometry<T>(wide, l)};
      if (wider > 1 && x.g.size() > 20000) continue;
      fill(x, seed);
      std::int64_t const largest = std::max<std::int64_t>(wide.back() & -wide.back(), 1);
      for (std::int64_t block = largest; block > 0; block /= block > 16 ? 8 : 2) on<B>(x, block);
    }
    if (shape == std::vector<std::int64_t>{33})
      for (std::int64_t const width : {4096, 32768}) {
        tensor<T> x{make_geometry<T>({2, width}, l)};
        fill(x, seed);
        on<B>(x, width);
      }
  }
};

}  // namespace kernel_tests

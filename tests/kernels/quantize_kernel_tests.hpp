// The tests of the kernels that quantize: fake_quantize, amax, encode, decode and the backward mask.
#pragma once

#include "kernels/kernel_test.hpp"

namespace kernel_tests {

inline std::vector<format> formats_of(std::int64_t size) {
  if (size > 1000) return {{}, {e4m3_element}};
  std::vector<format> all;
  for (auto const& e : all_elements)
    for (policy const p : {policy::stored, policy::modelopt}) all.push_back({e, p, dtype::f32, packing::bytes});
  for (auto const& e : {e4m3_element, integer_element(4), integer_element(8)})
    all.push_back({e, policy::modelopt_pack, dtype::f32, packing::bytes});
  return all;
}

template <class T>
std::vector<std::uint32_t> expected_fake(tensor<T>& x, partition const& groups, std::vector<float> const& amax,
                                         format const& how) {
  std::vector<std::uint32_t> bits;
  formats::visit_rule(how, {dtype_of<T>::value}, [&](auto const& rule) {
    for (std::int64_t i = 0; i < x.g.size(); ++i) {
      auto const s =
          amax.empty() ? formats::scaling{} : rule.prepare(amax[static_cast<std::size_t>(group_of(groups, x.g, i))]);
      bits.push_back(bits_of(from_float<T>(rule.fake_quantize(s, to_float(x[i])))));
    }
  });
  return bits;
}

template <>
struct kernel_test<kernel_fake_quantize> {
  template <class B, class T>
  static void run(std::vector<std::int64_t> const& shape, layout l, unsigned seed) {
    tensor<T> x{make_geometry<T>(shape, l)};
    fill(x, seed, false);
    for (auto const& part : partitions_of(x.g)) {
      auto const amax = amax_of(x, part.groups);
      for (format const& how : formats_of(x.g.size())) {
        CAPTURE(to_string(x.g));
        CAPTURE(part.name);
        auto const expected = expected_fake(x, part.groups, amax, how);
        instruction_sets<B>::each([&] {
          tensor<T> y{make_geometry<T>(shape, layout::row_major)}, in_place = x;
          B cpu;
          cpu.fake_quantize({x.view(), y.ref(), part.groups, amax.data(), how, nullptr});
          cpu.fake_quantize({in_place.view(), in_place.ref(), part.groups, amax.data(), how, nullptr});
          if (all_bits(y) != expected) FAIL_CHECK(name_of(how.element), " ", name_of(how.numerics));
          if (all_bits(in_place) != expected)
            FAIL_CHECK("in place: ", name_of(how.element), " ", name_of(how.numerics));
          if (!margins_untouched(y)) FAIL_CHECK("wrote outside of the tensor");
        });
      }
      same_everywhere<B>([&](B cpu) {
        tensor<T> y{x.g};
        cpu.fake_quantize({x.view(), y.ref(), part.groups, amax.data(), {}, nullptr});
        return all_bits(y);
      });
    }
    auto const unscaled = same_everywhere<B>([&](B cpu) {
      tensor<T> y{x.g};
      cpu.fake_quantize({x.view(), y.ref(), per_tensor(x.g), nullptr, {e4m3_element}, nullptr});
      return all_bits(y);
    });
    CHECK(unscaled == expected_fake(x, per_tensor(x.g), {}, {e4m3_element}));
  }
};

template <>
struct kernel_test<kernel_amax> {
  template <class B, class T>
  static void run(std::vector<std::int64_t> const& shape, layout l, unsigned seed) {
    tensor<T> x{make_geometry<T>(shape, l)};
    fill(x, seed);
    std::uint64_t strange = 0;
    for (std::int64_t i = 0; i < x.g.size(); ++i) {
      if (i % 11 != 5) continue;
      x[i] = from_float<T>(i % 2 ? std::numeric_limits<float>::quiet_NaN() : -std::numeric_limits<float>::infinity());
      ++strange;
    }
    for (auto const& part : partitions_of(x.g)) {
      CAPTURE(to_string(x.g));
      CAPTURE(part.name);
      auto expected = amax_of(x, part.groups);
      if (!expected.empty()) expected[0] = std::max(expected[0], 0.5f);  // what is there already counts
      auto const found = same_everywhere<B>([&, &g = part.groups](B cpu) {
        std::vector<float> amax(expected.size(), 0.0f);
        if (!amax.empty()) amax[0] = 0.5f;
        data_flags flags;
        cpu.amax({x.view(), g, amax.data(), &flags});
        CHECK(flags.nonfinite == strange);
        return amax;
      });
      CHECK(found == expected);
    }
  }
};

/// Codes by their definition: place_of and write_code for each element.
template <class T>
std::vector<std::uint8_t> expected_codes(tensor<T>& x, partition const& groups, std::vector<float> const& amax,
                                         format const& how) {
  auto const m = formats::code_matrix_of(how.layout, x.g);
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(storage_size_of(how, x.g, groups).payload), 0);
  formats::visit_rule(how, {dtype_of<T>::value}, [&](auto const& rule) {
    for (std::int64_t i = 0; i < x.g.size(); ++i) {
      auto const group = static_cast<std::size_t>(group_of(groups, x.g, i));
      int const code = rule.encode(rule.prepare(amax[group]), to_float(x[i]));
      auto const place = formats::place_of(how.layout, how.element.bits, m, i / m.columns, i % m.columns);
      formats::write_code(bytes.data(), how.layout, how.element, place, code);
    }
  });
  if (how.layout == packing::nibbles_high_first && x.g.size() % 2) bytes.back() |= 8;  // the code 0 where nothing is
  return bytes;
}

/// Scales by their definition, as bytes.
template <class T>
std::vector<std::uint8_t> expected_scales(std::vector<float> const& amax, format const& how) {
  std::vector<std::uint8_t> bytes;
  formats::visit_rule(how, {dtype_of<T>::value}, [&](auto const& rule) {
    formats::visit_scale(how.scale_type, [&]<class S>(S) {
      for (float const a : amax) {
        S const scale = formats::scale_as<S>(rule.file_scale(a));
        auto const* const first = reinterpret_cast<std::uint8_t const*>(&scale);
        bytes.insert(bytes.end(), first, first + sizeof scale);
      }
    });
  });
  return bytes;
}

inline std::vector<format> packed_formats(std::int64_t size) {
  std::vector<format> all{
      {}, {e4m3_element}, {integer_element(4), policy::stored, dtype::f32, packing::nibbles_row_pairs}};
  all.push_back({integer_element(4), policy::stored, dtype::f32, packing::nibbles_high_first});
  all.push_back({integer_element(3), policy::stored, dtype::bf16, packing::dense_rows});
  if (size > 1000) return all;
  for (auto const& e : all_elements) all.push_back({e, policy::stored, dtype::f32, packing::dense_rows});
  for (auto const& e : all_elements) all.push_back({e, policy::stored, dtype::f16, packing::bytes});
  for (auto const& e : {integer_element(5), e4m3_element})
    all.push_back({e, policy::modelopt, dtype::f32, packing::bytes});
  return all;
}

/// Calls f(x, partition, amax, format) for all of packed_formats, with values that the format takes.
template <class T, class F>
void for_packed(std::vector<std::int64_t> const& shape, layout l, unsigned seed, F f) {
  tensor<T> x{make_geometry<T>(shape, l)};
  auto const formats = packed_formats(x.g.size());
  for (bool const is_unsigned : {false, true}) {
    fill(x, seed, !is_unsigned);
    for (auto const& part : partitions_of(x.g)) {
      auto const amax = amax_of(x, part.groups);
      for (format const& how : formats)
        if (how.element.is_unsigned == is_unsigned) f(x, part, amax, how);
    }
  }
}

template <>
struct kernel_test<kernel_encode> {
  template <class B, class T>
  static void run(std::vector<std::int64_t> const& shape, layout l, unsigned seed) {
    for_packed<T>(shape, l, seed, [](tensor<T>& x, named_partition const& part, auto const& amax, format const& how) {
      auto const size = storage_size_of(how, x.g, part.groups);
      auto const written = same_everywhere<B>([&](B cpu) {
        std::vector<std::uint8_t> codes(static_cast<std::size_t>(size.payload), 0xee);
        std::vector<std::uint8_t> scales(static_cast<std::size_t>(size.scales));
        cpu.encode({x.view(), part.groups, amax.data(), how, codes.data(), scales.data(), nullptr});
        return std::pair{codes, scales};
      });
      if (written != std::pair{expected_codes(x, part.groups, amax, how), expected_scales<T>(amax, how)})
        FAIL_CHECK(to_string(x.g), " ", part.name, " ", name_of(how.element), " layout ", static_cast<int>(how.layout));
    });
  }
};

template <>
struct kernel_test<kernel_decode> {
  /// decode(encode(x)) is fake_quantize(x), bit for bit, under `stored`.
  template <class B, class T>
  static void run(std::vector<std::int64_t> const& shape, layout l, unsigned seed) {
    for_packed<T>(shape, l, seed, [&](tensor<T>& x, named_partition const& part, auto const& amax, format const& how) {
      if (how.numerics != policy::stored) return;
      auto const size = storage_size_of(how, x.g, part.groups);
      std::vector<std::uint8_t> codes(static_cast<std::size_t>(size.payload)),
          scales(static_cast<std::size_t>(size.scales));
      tensor<T> fake{make_geometry<T>(shape, layout::row_major)};
      B cpu;
      cpu.encode({x.view(), part.groups, amax.data(), how, codes.data(), scales.data(), nullptr});
      cpu.fake_quantize({x.view(), fake.ref(), part.groups, amax.data(), how, nullptr});
      auto const decoded = same_everywhere<B>([&](B any) {
        tensor<T> y{x.g};
        any.decode({codes.data(), scales.data(), part.groups, how, y.ref()});
        CHECK(margins_untouched(y));
        return all_bits(y);
      });
      if (decoded != all_bits(fake))
        FAIL_CHECK(to_string(x.g), " ", part.name, " ", name_of(how.element), " layout ", static_cast<int>(how.layout));
    });
  }
};

template <>
struct kernel_test<kernel_backward_mask> {
  template <class B, class T>
  static void run(std::vector<std::int64_t> const& shape, layout l, unsigned seed) {
    tensor<T> x{make_geometry<T>(shape, l)}, grad{make_geometry<T>(shape, layout::row_major)};
    fill(x, seed);
    for (auto const& part : partitions_of(x.g)) {
      auto amax = amax_of(x, part.groups);
      for (std::size_t i = 0; i < amax.size(); i += 2) amax[i] *= 0.5f;  // the others clip nothing: |x| = amax passes
      fill(grad, seed + 1);
      std::vector<std::uint32_t> expected;
      for (std::int64_t i = 0; i < x.g.size(); ++i) {
        bool const out = fp::abs(to_float(x[i])) > amax[static_cast<std::size_t>(group_of(part.groups, x.g, i))];
        expected.push_back(out ? 0u : bits_of(grad[i]));
      }
      auto const masked = same_everywhere<B>([&, &g = part.groups](B cpu) {
        tensor<T> copy = grad;
        cpu.backward_mask({x.view(), copy.ref(), g, amax.data()});
        return all_bits(copy);
      });
      CHECK(masked == expected);
    }
  }
};

}  // namespace kernel_tests

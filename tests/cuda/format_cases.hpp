// Everything that quantizing kernels make of a tensor, by a backend B and by reference::scalar: every format, policy
// and scale rule, in float32, float16 and bfloat16, from memory whose ends are watched, aligned for 16-byte accesses
// and not.
#pragma once

#include <cstring>
#include <limits>

#include <doctest/doctest.h>

#include "cuda/guarded.hpp"
#include "mixbit/formats/check.hpp"
#include "mixbit/formats/storage.hpp"
#include "mixbit/reference/scalar.hpp"
#include "support/format_data.hpp"

namespace cuda_tests {

using namespace mixbit;
using namespace test_data;

inline std::size_t span_of(geometry const& g) {
  std::int64_t last = 0;
  for (int a = 0; a < g.rank; ++a) {
    if (g.shape[static_cast<std::size_t>(a)] == 0) return 0;
    last += (g.shape[static_cast<std::size_t>(a)] - 1) * g.stride[static_cast<std::size_t>(a)];
  }
  return static_cast<std::size_t>(last + 1) * size_of(g.type);
}

/// Where tensors, codes and scales start, in elements or bytes behind an aligned address.
struct placement {
  std::size_t x = 0, y = 0, codes = 0;
};

struct quantizing {
  partition groups;
  std::vector<float> amax;  ///< empty: from the data
  format how;
  float tensor_amax = 0;
  amax_use use() const { return amax.empty() ? amax_use::data : amax_use::given; }
  float const* given() const { return amax.empty() ? nullptr : amax.data(); }
};

/// NaN as one NaN: a device's arithmetic does not keep signs and payloads.
template <class T>
std::vector<unsigned char> with_one_nan(std::vector<unsigned char> bytes) {
  for (std::size_t i = 0; i + sizeof(T) <= bytes.size(); i += sizeof(T)) {
    T value;
    std::memcpy(&value, bytes.data() + i, sizeof value);
    if (!fp::is_nan(to_float(value))) continue;
    value = from_float<T>(std::numeric_limits<float>::quiet_NaN());
    std::memcpy(bytes.data() + i, &value, sizeof value);
  }
  return bytes;
}

/// Everything that a backend makes of a tensor, as bytes.
struct outcome {
  std::vector<unsigned char> fake, in_place, codes, scales, decoded, flags;
  bool intact = true;
  friend bool operator==(outcome const&, outcome const&) = default;
};

template <class T>
class case_of {
 public:
  case_of(geometry const& g, quantizing const& q, placement const& at, unsigned seed) : g_{g}, q_{q}, at_{at} {
    tensor<T> x{g};
    fill_with_ties(x, q.groups, q.how, seed);
    values_.resize(span_of(g));
    if (!values_.empty()) std::memcpy(values_.data(), x.data(), values_.size());
    amax_ = amax_of(x, q.groups);
  }
  std::vector<float> const& amax() const { return amax_; }
  void set(quantizing const& q) { q_ = q; }

  template <class B>
  outcome run(B backend) const {
    outcome o;
    data_flags flags;
    std::size_t const size = sizeof(T);
    guarded x{values_.size(), at_.x * size};
    if (!values_.empty()) std::memcpy(x.data(), values_.data(), values_.size());
    geometry const dense = dense_like(g_);
    guarded y{static_cast<std::size_t>(dense.bytes()), at_.y * size};
    const_tensor_ref const view{g_, x.data()};
    backend.fake_quantize({view, {dense, y.data()}, q_.groups, q_.given(), q_.how, &flags, &q_.tensor_amax, q_.use()});
    o.fake = with_one_nan<T>(y.bytes());
    o.intact = y.intact() && x.intact();
    if (formats::has_codes(q_.how.element.bits) && !(q_.amax.empty() && q_.how.scaling == scale_rule::ratio))
      encode_and_decode(backend, view, flags, o);
    backend.fake_quantize({view, {g_, x.data()}, q_.groups, q_.given(), q_.how, nullptr, &q_.tensor_amax, q_.use()});
    o.in_place = with_one_nan<T>(x.bytes());
    o.intact = o.intact && x.intact();
    auto const* const first = reinterpret_cast<unsigned char const*>(&flags);
    o.flags.assign(first, first + sizeof flags);
    return o;
  }

 private:
  template <class B>
  void encode_and_decode(B& backend, const_tensor_ref const& x, data_flags& flags, outcome& o) const {
    auto const size = storage_size_of(q_.how, g_, q_.groups);
    guarded codes{static_cast<std::size_t>(size.payload), at_.codes, 0xee};
    guarded scales{static_cast<std::size_t>(size.scales), at_.codes * size_of(q_.how.scale_type), 0xee};
    guarded tensor_scale{sizeof(float)}, y{static_cast<std::size_t>(dense_like(g_).bytes()), at_.y * sizeof(T)};
    backend.encode({x, q_.groups, q_.given(), q_.how, codes.data(), scales.data(), &flags, &q_.tensor_amax,
                    tensor_scale.as<float>(), q_.use()});
    backend.decode({codes.data(), scales.data(), q_.groups, q_.how, {dense_like(g_), y.data()},
                    is_two_level(q_.how.scaling) ? tensor_scale.as<float>() : nullptr});
    o.codes = codes.bytes();
    o.scales = scales.bytes();
    if (g_.size() == 0) o.scales.clear();  // of groups that there are not
    o.decoded = with_one_nan<T>(y.bytes());
    o.intact = o.intact && codes.intact() && scales.intact() && tensor_scale.intact() && y.intact();
    auto const t = tensor_scale.bytes();
    o.scales.insert(o.scales.end(), t.begin(), t.end());
  }

  geometry g_;
  quantizing q_;
  placement at_;
  std::vector<unsigned char> values_;
  std::vector<float> amax_;
};

inline std::string text_of(geometry const& g, quantizing const& q, placement const& at) {
  return std::string{name_of(q.how)}.append(" ").append(name_of(q.how.numerics)).append(" ").append(to_string(g))
      .append(" ").append(name_of(g.type)).append(q.amax.empty() ? " from data" : " given")
      .append(" at ").append(std::to_string(at.x)).append(",").append(std::to_string(at.y)).append(",")
      .append(std::to_string(at.codes)).append(" layout ").append(std::to_string(static_cast<int>(q.how.layout)));
}

template <class B, class T>
void compare(geometry const& g, partition const& groups, format const& how, placement const& at, unsigned seed) {
  quantizing q{groups, {}, how, 1.0f};
  case_of<T> c{g, q, at, seed};
  q.amax = c.amax();
  for (float const m : q.amax) q.tensor_amax = std::max(q.tensor_amax, m);
  if (seed % 5 == 0) q.tensor_amax = 0.0f;  // its scale is 0, as that of a tensor of the smallest numbers
  for (bool const from_data : {false, true}) {
    if (from_data && (how.numerics == policy::modelopt_pack || !line_axis(groups))) break;
    if (from_data) q.amax.clear();
    c.set(q);
    auto const expected = c.run(reference::scalar{});
    auto const found = c.run(B{});
    CAPTURE(text_of(g, q, at));
    if (found.fake != expected.fake) FAIL_CHECK("fake_quantize");
    if (found.in_place != expected.in_place) FAIL_CHECK("fake_quantize in place");
    if (found.codes != expected.codes) FAIL_CHECK("codes");
    if (found.scales != expected.scales) FAIL_CHECK("scales");
    if (found.decoded != expected.decoded) FAIL_CHECK("decode");
    if (found.flags != expected.flags) FAIL_CHECK("flags");
    if (!found.intact) FAIL_CHECK("wrote outside of its memory");
  }
}

inline constexpr placement placements[] = {{0, 0, 0}, {1, 0, 1}, {4, 3, 4}};

template <class B, class T>
void compare_list(std::vector<format> const& list, std::vector<std::int64_t> const& blocks) {
  unsigned seed = 1;
  for (std::vector<std::int64_t> const& shape : std::vector<std::vector<std::int64_t>>{
           {1}, {7}, {8}, {9}, {64}, {3, 0}, {5, 33}, {4, 64}, {2, 3, 40}, {1, 520}})
    for (auto const l : {layout::row_major, layout::column_major, layout::strided}) {
      if (l != layout::row_major && shape.size() == 1) continue;
      geometry const g = make_geometry<T>(shape, l);
      for (auto const& how : list)
        for (std::int64_t const block : blocks) {
          std::vector<axis_block> const last{{-1, block}};
          compare<B, T>(g, blocks_of(g, last), how, placements[seed % 3], seed);
          ++seed;
        }
    }
}

template <class B, class T>
void compare_partitions(std::vector<format> const& list) {
  unsigned seed = 1;
  for (std::vector<std::int64_t> const& shape : std::vector<std::vector<std::int64_t>>{{24, 40}, {3, 5, 16}})
    for (auto const l : {layout::row_major, layout::column_major, layout::strided}) {
      geometry const g = make_geometry<T>(shape, l);
      for (auto const& part : partitions_of(g))
        for (auto const& how : list) {
          compare<B, T>(g, part.groups, how, placements[seed % 3], seed);
          ++seed;
        }
    }
}

template <class B>
void ratio_formats_agree() {
  compare_list<B, float>(ratio_formats(), {16, 100});
  compare_list<B, half>(ratio_formats(), {32});
  compare_list<B, bfloat16>(ratio_formats(), {4096});
}

template <class B>
void block_formats_agree() {
  compare_list<B, float>(block_formats(), {8, 16, 32, 20});
  compare_list<B, half>(block_formats(), {16, 32});
  compare_list<B, bfloat16>(block_formats(), {16, 32});
}

template <class B>
void partitions_agree() {
  std::vector<format> list{{},
                           {e4m3_element, policy::modelopt},
                           {integer_element(4), policy::stored, dtype::f32, packing::nibbles_row_pairs},
                           {integer_element(4), policy::stored, dtype::f32, packing::nibbles_high_first},
                           {integer_element(3, true), policy::stored, dtype::bf16, packing::dense_rows},
                           {nf4_element, policy::stored, dtype::f32, packing::nibbles_high_first}};
  compare_partitions<B, float>(list);
  compare_partitions<B, half>(list);
}

template <class B>
void long_rows_agree() {
  for (std::int64_t const n : {255, 256, 257, 1000, 2048, 5000})
    for (auto const& how : {format{}, format{e4m3_element}, block_formats().front(), block_formats().back()}) {
      geometry const g = dense_geometry(dtype::f32, std::vector<std::int64_t>{3, n});
      std::vector<axis_block> const token{{-1, std::nullopt}};
      compare<B, float>(g, blocks_of(g, token), how, placements[n % 2], static_cast<unsigned>(n));
    }
}

}  // namespace cuda_tests

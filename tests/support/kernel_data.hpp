// Tensors, partitions and formats over which kernel and format tests run.
#pragma once

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "mixbit/core/format.hpp"
#include "mixbit/core/partition.hpp"
#include "mixbit/core/tensor_view.hpp"

namespace test_data {

using namespace mixbit;

/// A tensor of any strides over a buffer that starts off an aligned address and is filled with a pattern first.
template <class T>
struct tensor {
  geometry g;
  std::vector<T> memory;
  static constexpr std::size_t margin = 3;  // elements before and after, to see writes out of place

  explicit tensor(geometry const& like) : g{like} {
    std::size_t last = 0;
    for (int a = 0; a < g.rank; ++a)
      last += static_cast<std::size_t>(std::max<std::int64_t>(g.shape[a] - 1, 0) * g.stride[a]);
    memory.assign(last + 1 + 2 * margin, from_float<T>(-77.0f));
  }
  T* data() { return memory.data() + margin; }
  tensor_ref ref() { return {g, data()}; }
  const_tensor_ref view() { return {g, data()}; }

  /// Element of row-major number i.
  T& operator[](std::int64_t i) {
    std::int64_t at = 0;
    for (int a = g.rank - 1; a >= 0; --a) {
      at += i % g.shape[a] * g.stride[a];
      i /= g.shape[a];
    }
    return data()[at];
  }
};

enum class layout { row_major, column_major, strided };

template <class T>
geometry make_geometry(std::vector<std::int64_t> const& shape, layout how) {
  geometry g = dense_geometry(dtype_of<T>::value, shape);
  if (how == layout::row_major) return g;
  std::int64_t step = how == layout::strided ? 2 : 1;
  for (int i = 0; i < g.rank; ++i) {
    int const a = how == layout::column_major ? i : g.rank - 1 - i;
    g.stride[a] = step;
    step *= g.shape[a] + (how == layout::strided ? 1 : 0);
  }
  return g;
}

/// Normal values with outliers, zeros of both signs, subnormals and exact repetitions.
template <class T>
void fill(tensor<T>& t, unsigned seed, bool negative = true) {
  std::mt19937 random{seed};
  for (std::int64_t i = 0; i < t.g.size(); ++i) {
    // from bits and sums, so that every standard library gives the same values
    float v = 0;
    for (int k = 0; k < 6; ++k) v += static_cast<float>(random() >> 8) * 0x1p-24f - 0.5f;
    unsigned const kind = random() % 32;
    if (kind == 0) v *= 40.0f;
    if (kind == 1) v = 0.0f;
    if (kind == 2) v = -0.0f;
    if (kind == 3) v *= 0x1p-130f;
    if (!negative) v = fp::abs(v);
    t[i] = from_float<T>(v);
  }
}

/// The group of row-major element i, by the definition.
inline std::int64_t group_of(partition const& p, geometry const& g, std::int64_t i) {
  std::int64_t group = 0, step = 1;
  for (int a = g.rank - 1; a >= 0; --a) {
    group += i % g.shape[a] / p.block[a] * step;
    step *= p.groups[a];
    i /= g.shape[a];
  }
  return group;
}

/// The largest finite magnitude of each group, by the definition.
template <class T>
std::vector<float> amax_of(tensor<T>& t, partition const& p) {
  std::vector<float> amax(static_cast<std::size_t>(p.group_count()), 0.0f);
  for (std::int64_t i = 0; i < t.g.size(); ++i) {
    float const m = fp::abs(to_float(t[i]));
    auto& top = amax[static_cast<std::size_t>(group_of(p, t.g, i))];
    if (fp::is_finite(m) && m > top) top = m;
  }
  return amax;
}

struct named_partition {
  std::string name;
  partition groups;
};

inline std::vector<named_partition> partitions_of(geometry const& g) {
  int const first[] = {0}, last[] = {-1};
  std::vector<named_partition> all{{"tensor", per_tensor(g)}};
  if (g.rank == 0) return all;
  all.push_back({"axis 0", per_axes(g, first)});
  all.push_back({"axis -1", per_axes(g, last)});
  auto const blocks = [&](char const* name, std::vector<axis_block> const& b) {
    all.push_back({name, blocks_of(g, b)});
  };
  blocks("token", {{-1, std::nullopt}});
  blocks("block 16", {{-1, 16}});
  blocks("block 5", {{-1, 5}});
  blocks("block along axis 0", {{0, 3}});
  if (g.rank > 1) blocks("2-D block", {{-1, 4}, {-2, 3}});
  int const apart[] = {0, 2};
  if (g.rank > 2) all.push_back({"axes 0 and 2", per_axes(g, apart)});
  return all;
}

inline std::vector<std::vector<std::int64_t>> const awkward_shapes = {
    {},      {1},     {7},     {16},       {33},         {1, 1}, {5, 1}, {1, 45},
    {7, 45}, {3, 31}, {4, 32}, {2, 3, 17}, {5, 4, 3, 3}, {0, 4}, {3, 0}, {0},    {2, 1, 3, 2, 1, 5}};

inline std::vector<element_type> minifloats_and(std::vector<element_type> others) {
  others.insert(others.begin(), std::begin(minifloat_elements), std::end(minifloat_elements));
  return others;
}

inline std::vector<element_type> const all_elements = [] {
  auto all = minifloats_and({integer_element(16), integer_element(16, true)});
  for (int bits = 1; bits <= 8; ++bits) {
    all.push_back(integer_element(bits, true));
    if (bits == 1) continue;
    all.push_back(integer_element(bits));
    all.push_back(integer_element(bits, false, true));
  }
  return all;
}();

template <class T>
auto bits_of(T x) {
  if constexpr (std::is_same_v<T, float>) return std::bit_cast<std::uint32_t>(x);
  else return x.bits;
}

}  // namespace test_data

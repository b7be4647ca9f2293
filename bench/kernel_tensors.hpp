// The tensors that kernels are timed on, in the memory of any backend.
#pragma once

#include <cstdint>
#include <vector>

#include "kernel_list.hpp"
#include "mixbit/core/backend.hpp"
#include "mixbit/formats/storage.hpp"

namespace bench {

/// [rows, columns] of one element type, and what the kernels are given beside them.
template <backend B, class T>
class tensors {
 public:
  static constexpr std::int64_t columns = 4096;
  static constexpr int bins = 2048;

  tensors(B& b, std::int64_t rows)
      : rows_{rows}, x_{b, count()}, y_{b, count()}, z_{b, count()}, amax_{b, count() / 16}, scales_{b, count() / 16},
        scale_{b, columns}, ends_{b, 2}, sums_{b, columns}, counts_{b, bins}, codes_{b, count()} {
    std::vector<T> values(count());
    for (auto const& [to, size] : {std::pair{&x_, 0x1p-30f}, {&z_, 0x1p-31f}}) {
      std::uint32_t state = 1;
      for (T& v : values) {
        state = state * 1664525u + 1013904223u;
        v = from_float<T>(static_cast<float>(static_cast<std::int32_t>(state)) * size);
      }
      put(b, *to, values);
    }
    put(b, amax_, std::vector<float>(amax_.size(), 2.0f));
    put(b, scale_, std::vector<float>(scale_.size(), 1.5f));
  }

  std::int64_t rows() const { return rows_; }
  std::int64_t size() const { return rows_ * columns; }
  const_tensor_ref x() const { return at(x_.data()); }
  const_tensor_ref z() const { return at(z_.data()); }
  tensor_ref y() {
    tensor_ref t = dense_view(y_.data(), {rows_, columns});
    t.where = B::place;
    return t;
  }
  partition groups(named_format const& f) const {
    return f.blocks.empty() ? per_tensor(x()) : blocks_of(x(), f.blocks);
  }
  float* amax() { return amax_.data(); }
  float const* given(named_format const& f) { return f.use == amax_use::data ? nullptr : amax_.data(); }
  float const* tensor_amax() { return amax_.data(); }
  float const* scale() const { return scale_.data(); }
  float* ends() { return ends_.data(); }
  double* sums() { return sums_.data(); }
  std::uint64_t* counts() { return counts_.data(); }
  std::uint8_t* codes() { return codes_.data(); }
  void* scales() { return scales_.data(); }
  /// Bytes an element of codes and scales.
  double payload(named_format const& f) const {
    return static_cast<double>(storage_size_of(f.how, x(), groups(f)).bytes()) / static_cast<double>(size());
  }

 private:
  template <class V>
  static void put(B& b, buffer<B, V>& to, std::vector<V> const& from) {
    b.copy_from_host(to.data(), from.data(), from.size() * sizeof(V));
  }
  std::size_t count() const { return static_cast<std::size_t>(size()); }
  const_tensor_ref at(T const* data) const {
    const_tensor_ref t = dense_view(data, {rows_, columns});
    t.where = B::place;
    return t;
  }

  std::int64_t rows_;
  buffer<B, T> x_, y_, z_;
  buffer<B, float> amax_, scales_, scale_, ends_;
  buffer<B, double> sums_;
  buffer<B, std::uint64_t> counts_;
  buffer<B, std::uint8_t> codes_;
};

}  // namespace bench

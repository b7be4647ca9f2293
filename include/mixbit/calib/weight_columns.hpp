// Single columns of a weight, quantized as its quantizer quantizes the whole: what GPTQ asks for. The backend's kernel
// does it, on one column with the amaxes of the groups that the column crosses.
//
// On a CPU the kernel works where the column lies, and threads call it side by side. A backend with a memory of its own
// gets each piece by copies, one after another.
#pragma once

#include <mutex>
#include <optional>
#include <vector>

#include "mixbit/calib/host_floats.hpp"
#include "mixbit/quantizer/sequential_quantizer.hpp"

namespace mixbit {

template <backend B>
class weight_columns {
 public:
  /// `weight` is [rows, columns]. Throws `format_value`, naming the quantizer, for what a column cannot be quantized
  /// under: scales of each call's data, several candidate scales a block, a bias, a rotation.
  weight_columns(B& device, sequential_quantizer<B> const& q, geometry const& weight) : device_{device} {
    for (auto const& member : q.members()) {
      require_possible(member);
      auto const amax = member.cast_amax(device, weight);
      float const whole = member.tensor_amax(device, weight);
      casts_.push_back({member.numerics().how, member.grouping(weight), amax, buffer_of(device, whole)});
    }
  }

  /// Throws, with or without an amax, what making one throws.
  static void require_possible(tensor_quantizer<B> const& member) {
    auto const& n = member.numerics();
    char const* const what = n.groups_from_data || n.amax_from == amax_source::data ? "scales of each call's data"
                             : n.how.scaling == scale_rule::four_over_six           ? "four_over_six"
                             : n.bias                                               ? "a bias"
                             : n.rotate                                             ? "a rotation"
                                                                                    : nullptr;
    if (what != nullptr)
      fail(error_id::format_value, member.name(), ": gptq quantizes a weight column by column, with calibrated ",
           "scales, and cannot under ", what);
  }

  /// q = Q(x) for n rows of a column, the first of which is `row`.
  void operator()(std::int64_t column, std::int64_t row, std::int64_t n, float const* x, float* q) {
    float amax[most_rows];
    for (std::int64_t first = 0; first < n; first += most_rows) {
      std::int64_t const count = std::min(most_rows, n - first);
      float const* from = x + first;
      for (auto const& c : casts_) {
        c.amax_of(column, row + first, count, amax);
        cast(c, count, from, amax, q + first);
        from = q + first;
      }
    }
  }

 private:
  static constexpr std::int64_t most_rows = 256;

  struct one_cast {
    format how;
    partition groups;
    std::vector<float> amax;
    buffer<B, float> tensor_amax;

    void amax_of(std::int64_t column, std::int64_t row, std::int64_t n, float* to) const {
      std::int64_t const group = column / groups.block[1];
      for (std::int64_t i = 0; i < n; ++i)
        to[i] = amax[static_cast<std::size_t>((row + i) / groups.block[0] * groups.groups[1] + group)];
    }
  };

  void cast(one_cast const& c, std::int64_t n, float const* x, float const* amax, float* q) {
    if constexpr (B::place == device::cpu) {
      run(c, n, x, amax, q);
    } else {
      std::lock_guard const alone{mutex_};
      auto const bytes = static_cast<std::size_t>(n) * sizeof(float);
      if (staged_.empty()) staged_ = buffer<B, float>{device_, 2 * most_rows};
      device_.copy_from_host(staged_.data(), x, bytes);
      device_.copy_from_host(staged_.data() + most_rows, amax, bytes);
      run(c, n, staged_.data(), staged_.data() + most_rows, staged_.data());
      device_.copy_to_host(q, staged_.data(), bytes);
    }
  }

  void run(one_cast const& c, std::int64_t n, float const* x, float const* amax, float* q) {
    geometry g = dense_geometry(dtype::f32, {n});
    g.where = B::place;
    partition each;  // a group an element
    each.rank = 1;
    each.groups[0] = n;
    fake_quantize_args args{{g, x}, {g, q}, each, amax, c.how};
    args.tensor_amax = c.tensor_amax.data();
    B calls = device_;  // its kernels may be called from several threads, one copy each
    calls.fake_quantize(args);
  }

  B& device_;
  std::vector<one_cast> casts_;
  buffer<B, float> staged_;
  std::mutex mutex_;
};

}  // namespace mixbit

// Searching the amaxes of a calibrated weight: every candidate is tried by the backend's own cast, and each group takes
// the first that errs least. Candidates are multiples of the amax that is there (ModelOpt's mse), or for static NVFP4
// the amaxes that the positive E4M3 scales stand for (its fp8_scale_sweep).
//
// The weight is seen as float32, whatever its type. It is cut into slabs of rows that stay in cache while all
// candidates are tried: memory is a float32 copy of one weight, and errors are kept for the groups of one slab. Groups
// that cross rows are summed over all slabs first.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "mixbit/calib/host_floats.hpp"
#include "mixbit/core/function_ref.hpp"
#include "mixbit/formats/minifloat.hpp"
#include "mixbit/quantizer/workspace.hpp"

namespace mixbit {

/// What a search tries, in the order in which ties are decided.
struct amax_candidates {
  std::vector<float> values;
  bool multiply = true;  ///< the group's amax; otherwise they are amaxes themselves
};

/// `count` points from start to stop as torch.linspace makes them: each half from its own end, in float32.
inline amax_candidates amax_multipliers(double start, double stop, double step) {
  auto const count = static_cast<std::int64_t>(std::ceil((stop - start) / step)) + 1;
  auto const from = static_cast<float>(start), to = static_cast<float>(stop);
  float const apart = (to - from) / static_cast<float>(std::max<std::int64_t>(count - 1, 1));
  amax_candidates c;
  for (std::int64_t i = 0; i < count; ++i)
    c.values.push_back(i < count / 2 || count == 1 ? from + apart * static_cast<float>(i)
                                                   : to - apart * static_cast<float>(count - 1 - i));
  return c;
}

/// The amaxes under which a block of NVFP4 gets each of the 126 positive finite E4M3 scales, ascending.
inline amax_candidates nvfp4_scale_amaxes(float tensor_amax) {
  amax_candidates c{{}, false};
  for (int code = 1; code < 0x7f; ++code) c.values.push_back(tensor_amax * (formats::e4m3::value(code) / 448.0f));
  return c;
}

/// A slab of the weight, what a candidate makes of it, and its groups; `first_row` is its place in the weight. Adds
/// each group's error to `sum`. All memory is the backend's.
struct cast_slab {
  const_tensor_ref weight, cast;
  partition groups;
  std::int64_t first_row = 0;
};
using cast_error = function_ref<void(cast_slab const&, double* sum)>;

namespace detail {

/// Σ (w - q)² over `width` neighbours, in four sums.
inline double squared_distance(float const* w, float const* q, std::int64_t width) {
  double sums[4] = {};
  std::int64_t k = 0;
  for (; k + 4 <= width; k += 4)
    for (int i = 0; i < 4; ++i) {
      double const d = w[k + i] - q[k + i];
      sums[i] += d * d;
    }
  for (; k < width; ++k) {
    double const d = w[k] - q[k];
    sums[0] += d * d;
  }
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

}  // namespace detail

/// Σ (w - Q(w))² of each group, by the backend's kernels; on a CPU in place where groups are short blocks of a row, for
/// which the kernel's 32 lanes cost more than the sum.
template <backend B>
class squared_error {
 public:
  explicit squared_error(workspace<B>& ws) : ws_{ws} {}
  void operator()(cast_slab const& s, double* sum) {
    if constexpr (B::place == device::cpu)
      if (has_short_blocks(s)) return add_blocks(s, sum);
    arena_scope const borrowed{ws_.scratch};
    tensor_ref const difference{s.cast, ws_.scratch.allocate(static_cast<std::size_t>(s.cast.bytes()))};
    ws_.device.subtract({s.weight, s.cast, difference});
    ws_.device.sum({difference, s.groups, sum_of::squares, sum, nullptr});
  }

 private:
  static bool has_short_blocks(cast_slab const& s) {
    return s.weight.rank == 2 && s.groups.block[0] == 1 && s.groups.block[1] <= 64;
  }
  static void add_blocks(cast_slab const& s, double* sum) {
    std::int64_t const rows = s.weight.shape[0], width = s.weight.shape[1], block = s.groups.block[1];
    float const *w = s.weight.as<float>(), *q = s.cast.as<float>();
    for (std::int64_t row = 0; row < rows; ++row, w += width, q += width)
      for (std::int64_t at = 0; at < width; at += block)
        *sum++ += detail::squared_distance(w + at, q + at, std::min(block, width - at));
  }

  workspace<B>& ws_;
};

/// One weight, ready to be searched.
template <backend B>
class amax_search {
 public:
  /// `amax` has a value for each group of `weight`; `tensor_amax` is what two-level scales are relative to.
  amax_search(workspace<B>& ws, const_tensor_ref weight, partition groups, format how, std::vector<float> amax,
              float tensor_amax)
      : ws_{ws}, groups_{groups}, how_{how}, amax_{std::move(amax)},
        tensor_amax_{buffer_of(ws.device, tensor_amax)},
        weight_{buffer_of(ws.device, fetch_floats(ws.device, weight))} {
    shape_ = dense_geometry(dtype::f32, {weight.shape.data(), static_cast<std::size_t>(weight.rank)});
    shape_.where = B::place;
  }

  /// Each group's amax of the candidate with the least error; of equal ones the first.
  std::vector<float> best(amax_candidates const& candidates, cast_error error) {
    std::vector<float> found = amax_;
    if (shape_.size() == 0) return found;
    std::int64_t const rows = shape_.rank == 0 ? 1 : shape_.shape[0], width = shape_.size() / rows;
    bool const shared = shape_.rank == 0 || groups_.groups[0] == 1;  // every slab holds the same groups
    std::int64_t const unit = shared ? 1 : groups_.block[0];
    std::int64_t const step = std::max<std::int64_t>(1, slab_elements / (width * unit)) * unit;
    std::vector<double> errors;
    for (std::int64_t row = 0; row < rows; row += step) {
      cast_slab const slab = slab_of(row, std::min(step, rows - row), width);
      if (errors.empty() || !shared) errors.assign(candidates.values.size() * count(slab), 0.0);
      try_all(slab, candidates, error, errors);
      if (!shared || row + step >= rows) choose(slab, candidates, errors, found);
    }
    return found;
  }

 private:
  static constexpr std::int64_t slab_elements = B::place == device::cpu ? 1 << 16 : 1 << 22;

  static std::size_t count(cast_slab const& s) { return static_cast<std::size_t>(s.groups.group_count()); }

  cast_slab slab_of(std::int64_t row, std::int64_t rows, std::int64_t width) const {
    cast_slab s;
    geometry g = shape_;
    s.groups = groups_;
    s.first_row = row;
    if (g.rank > 0) {
      g.shape[0] = rows;
      if (groups_.groups[0] == 1) s.groups.block[0] = rows;
      else s.groups.groups[0] = (rows + groups_.block[0] - 1) / groups_.block[0];
    }
    s.weight = {g, weight_.data() + row * width};
    return s;
  }
  /// Where the slab's groups begin among all.
  std::size_t first_group(cast_slab const& s) const {
    if (shape_.rank == 0 || groups_.groups[0] == 1) return 0;
    return static_cast<std::size_t>(s.first_row / groups_.block[0] * (groups_.group_count() / groups_.groups[0]));
  }

  void try_all(cast_slab slab, amax_candidates const& candidates, cast_error error, std::vector<double>& errors) {
    arena_scope const borrowed{ws_.scratch};
    std::size_t const n = count(slab);
    auto* const amax = static_cast<float*>(ws_.scratch.allocate(n * sizeof(float)));
    auto* const sum = static_cast<double*>(ws_.scratch.allocate(n * sizeof(double)));
    tensor_ref const cast{slab.weight, ws_.scratch.allocate(static_cast<std::size_t>(slab.weight.bytes()))};
    slab.cast = cast;
    std::vector<float> tried(n);
    std::vector<double> errs(n);
    for (std::size_t c = 0; c < candidates.values.size(); ++c) {
      for (std::size_t g = 0; g < n; ++g) tried[g] = of_group(candidates, c, first_group(slab) + g);
      ws_.device.copy_from_host(amax, tried.data(), n * sizeof(float));
      ws_.device.zero(sum, n * sizeof(double));
      fake_quantize_args args{slab.weight, cast, slab.groups, amax, how_};
      args.tensor_amax = tensor_amax_.data();
      ws_.device.fake_quantize(args);
      error(slab, sum);
      ws_.device.copy_to_host(errs.data(), sum, n * sizeof(double));
      for (std::size_t g = 0; g < n; ++g) errors[c * n + g] += errs[g];
    }
  }

  float of_group(amax_candidates const& candidates, std::size_t c, std::size_t group) const {
    return candidates.multiply ? amax_[group] * candidates.values[c] : candidates.values[c];
  }

  void choose(cast_slab const& slab, amax_candidates const& candidates, std::vector<double> const& errors,
              std::vector<float>& found) const {
    std::size_t const n = count(slab);
    for (std::size_t g = 0; g < n; ++g) {
      std::size_t best = 0;
      for (std::size_t c = 1; c < candidates.values.size(); ++c)
        if (errors[c * n + g] < errors[best * n + g]) best = c;
      std::size_t const group = first_group(slab) + g;  // beside a NaN or infinity no error says anything
      found[group] = std::isfinite(errors[best * n + g]) ? of_group(candidates, best, group) : amax_[group];
    }
  }

  workspace<B>& ws_;
  partition groups_;
  format how_;
  std::vector<float> amax_;
  buffer<B, float> tensor_amax_, weight_;
  geometry shape_;
};

}  // namespace mixbit

// The bias of an affine quantizer, y = Q(x - b) + b: one value for each index of the axes that are not reduced.
//
// Static: calibrated, the running mean of the batches' means, or the midpoint of the running extremes. Dynamic: of each
// call's tensor; the value then goes through the host, so that a call waits for the device. Values are numbers of the
// tensor's type. Source: ModelOpt's BiasCalibrator.
#pragma once

#include <algorithm>
#include <array>
#include <limits>
#include <string>
#include <vector>

#include "mixbit/config/quantizer_attribute_config.hpp"
#include "mixbit/core/arena.hpp"
#include "mixbit/core/backend.hpp"
#include "mixbit/formats/rounding.hpp"

namespace mixbit {

template <backend B>
class affine_bias {
 public:
  affine_bias(bias_config const& config, std::string where)
      : where_{std::move(where)},
        axes_{config.axes},
        static_{config.type != quantizer_type::dynamic_type},
        mean_{config.method != bias_method::max_min} {}

  bool is_static() const { return static_; }
  bool has_value() const { return !value_.empty(); }
  partition const& groups() const { return groups_; }

  /// One group for each index of the axes that are kept. Throws `format_value` for an axis that x does not have.
  partition grouping(geometry const& x) const {
    partition p = per_axes(x, {});
    std::array<bool, max_rank> reduced{};
    for (int const axis : axes_) {
      if (axis < -x.rank || axis >= x.rank)
        fail(error_id::format_value, where_, ": bias: axis ", axis, " is out of range for a tensor of rank ",
             int{x.rank});
      reduced[static_cast<std::size_t>(axis < 0 ? axis + x.rank : axis)] = true;
    }
    for (int a = 0; a < x.rank; ++a)
      if (!reduced[static_cast<std::size_t>(a)]) {
        p.block[a] = 1;
        p.groups[a] = x.shape[a];
      }
    return p;
  }

  /// Throws where a static bias has not been calibrated, or was for other groups; for a dynamic one, for a bad axis.
  void require_fit(geometry const& x) const {
    partition const groups = grouping(x);
    if (!static_) return;
    if (!has_value())
      fail(error_id::state_not_calibrated, where_, ": the bias of a static quantizer that saw no data; calibrate it ",
           "with a forward_loop or set it");
    if (groups.group_count() != static_cast<std::int64_t>(value_.size()))
      fail(error_id::tensor_shape, where_, ": a bias of ", value_.size(), " values, but this tensor has ",
           groups.group_count());
  }

  /// Shows a static bias one batch more. NaN and infinities are left out and counted in `flags`, which may be null.
  void observe(B& device, arena& scratch, const_tensor_ref x, data_flags* flags) {
    partition const groups = grouping(x);
    if (seen_ != 0 && groups.group_count() != static_cast<std::int64_t>(state_.low.size())) require_fit(x);
    merge(batch_of(device, scratch, x, groups, flags), x.type);
    put(device, groups);
  }

  /// The values for x, in the device's memory: calibrated, or of x itself in scratch memory.
  float const* of(B& device, arena& scratch, const_tensor_ref x) {
    if (static_) return value_.data();
    affine_bias now{*this, nothing{}};
    now.merge(batch_of(device, scratch, x, grouping(x), nullptr), x.type);
    auto const bytes = now.state_.value.size() * sizeof(float);
    auto* const values = static_cast<float*>(scratch.allocate(bytes));
    device.copy_from_host(values, now.state_.value.data(), bytes);
    return values;
  }

  std::vector<float> values() const { return state_.value; }
  /// Throws `tensor_shape` for another number of values and `format_value` for one that is not finite.
  void set(B& device, partition const& groups, std::vector<float> const& values) {
    if (static_cast<std::int64_t>(values.size()) != groups.group_count())
      fail(error_id::tensor_shape, where_, ": ", values.size(), " bias values for ", groups.group_count(), " groups");
    for (std::size_t i = 0; i < values.size(); ++i) require_finite(values[i], i);
    state_ = {values, values, values};
    seen_ = 1;
    put(device, groups);
  }
  void forget() {
    state_ = {};
    seen_ = 0;
    value_ = {};
  }
  void adopt(B& device, affine_bias const& other) {
    state_ = other.state_;
    seen_ = other.seen_;
    if (other.has_value()) put(device, other.groups_);
  }

 private:
  struct nothing {};
  struct statistics {
    std::vector<float> value, low, high;
  };
  affine_bias(affine_bias const& like, nothing) : where_{like.where_}, static_{like.static_}, mean_{like.mean_} {}

  /// Means, or extremes, of one tensor; `value` is only set for means. A mean's divisor counts all elements of a group,
  /// those that were left out too.
  statistics batch_of(B& device, arena& scratch, const_tensor_ref x, partition const& groups, data_flags* flags) const {
    auto const count = static_cast<std::size_t>(groups.group_count());
    statistics s{std::vector<float>(count), std::vector<float>(count), std::vector<float>(count)};
    if (mean_) {
      std::vector<double> sums(count);
      auto* const sum = static_cast<double*>(scratch.allocate(count * sizeof(double)));
      device.zero(sum, count * sizeof(double));
      device.sum({x, groups, sum_of::values, sum, flags});
      device.copy_to_host(sums.data(), sum, count * sizeof(double));
      // at least 1: groups without elements (an expert without tokens) have the mean 0, as their midpoint is
      double const n = std::max(static_cast<double>(x.size()) / static_cast<double>(count), 1.0);
      for (std::size_t g = 0; g < count; ++g)
        s.value[g] = formats::through(x.type, static_cast<float>(sums[g] / n));
      return s;
    }
    std::size_t const bytes = count * sizeof(float);
    auto* const low = static_cast<float*>(scratch.allocate(bytes));
    auto* const high = static_cast<float*>(scratch.allocate(bytes));
    s.low.assign(count, std::numeric_limits<float>::infinity());
    s.high.assign(count, -std::numeric_limits<float>::infinity());
    device.copy_from_host(low, s.low.data(), bytes);
    device.copy_from_host(high, s.high.data(), bytes);
    device.extremes({x, groups, low, high, flags});
    device.copy_to_host(s.low.data(), low, bytes);
    device.copy_to_host(s.high.data(), high, bytes);
    return s;
  }

  void merge(statistics batch, dtype type) {
    for (std::size_t g = 0; g < batch.value.size() && seen_ != 0; ++g) {
      auto const n = static_cast<float>(seen_);
      batch.value[g] = formats::through(type, fp::div(fp::mul(state_.value[g], n) + batch.value[g], n + 1.0f));
      batch.low[g] = std::min(batch.low[g], state_.low[g]);
      batch.high[g] = std::max(batch.high[g], state_.high[g]);
    }
    for (std::size_t g = 0; g < batch.value.size() && !mean_; ++g) {
      bool const any = batch.low[g] <= batch.high[g];
      batch.value[g] = any ? formats::through(type, formats::through(type, batch.high[g] + batch.low[g]) * 0.5f) : 0.0f;
    }
    for (std::size_t g = 0; g < batch.value.size(); ++g) require_finite(batch.value[g], g);
    state_ = std::move(batch);
    ++seen_;
  }

  void put(B& device, partition const& groups) {
    value_ = buffer_of(device, state_.value);
    groups_ = groups;
  }

  void require_finite(float value, std::size_t group) const {
    if (!fp::is_finite(value))
      fail(error_id::format_value, where_, ": bias[", group, "] is ", value, "; it must be finite in the type of the ",
           "tensor");
  }

  std::string where_;
  std::vector<int> axes_;
  bool static_ = true, mean_ = true;
  statistics state_;
  std::int64_t seen_ = 0;
  buffer<B, float> value_;
  partition groups_;
};

}  // namespace mixbit
